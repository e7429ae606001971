//! Requests whole, cut and spoilt.

use proptest::collection::vec;
use proptest::prelude::*;

use super::alone::serve;

fn request(method: &str, path: &str, headers: &str, body: &str) -> Vec<u8> {
    let length = body.len();
    format!(
        "{method} {path} HTTP/1.1\r\nHost: x\r\n{headers}Content-Length: {length}\r\n\r\n{body}"
    )
    .into_bytes()
}

fn post(path: &str, body: &str) -> Vec<u8> {
    request("POST", path, "", body)
}

/// One of everything that is understood.
fn requests() -> Vec<Vec<u8>> {
    let all = r#""key":"AA==","range_end":"AA==""#;
    let put = r#"{"key":"YQ==","value":"Yg==","prev_kv":true}"#;
    let mut requests = vec![
        post("/v3/kv/put", put),
        post("/v3/kv/put", r#"{"key":"Yg==","lease":"7"}"#),
        post("/v3/kv/range", &format!("{{{all},\"limit\":1}}")),
        post(
            "/v3/kv/range",
            &format!("{{{all},\"sort_order\":\"DESCEND\",\"sort_target\":\"MOD\"}}"),
        ),
        post("/v3/kv/deleterange", r#"{"key":"YQ==","prev_kv":true}"#),
        post(
            "/v3/kv/txn",
            &format!(
                r#"{{"compare":[{{"key":"YQ==","target":"VALUE","value":"Yg=="}}],
                "success":[{{"request_put":{put}}}],"failure":[{{"request_txn":{{}}}}]}}"#
            ),
        ),
        post("/v3/kv/compaction", r#"{"revision":"2"}"#),
        post("/v3/lease/grant", r#"{"TTL":"9","ID":"7"}"#),
        post("/v3/lease/grant", r#"{"TTL":9}"#),
        post("/v3/lease/keepalive", r#"{"ID":"7"}{"ID":"8"}"#),
        post("/v3/lease/timetolive", r#"{"ID":"7","keys":true}"#),
        post("/v3/lease/revoke", r#"{"ID":"7"}"#),
        post("/v3/lease/leases", ""),
        post("/v3/maintenance/status", "{}"),
        request("GET", "/version", "", ""),
        request("HEAD", "/health", "Connection: close\r\n", ""),
        b"POST /v3/kv/put HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n\
          6\r\n{\"key\"\r\n8\r\n:\"YQ==\"}\r\n0\r\n\r\n"
            .to_vec(),
    ];
    let watch = format!(r#"{{"create_request":{{{all},"start_revision":1,"prev_kv":true}}}}"#);
    requests.push(request("POST", "/v3/watch", "Grpc-Timeout: 1n\r\n", &watch));
    requests.push(post(
        "/v3/watch",
        &format!("{watch}{{\"progress_request\":{{}}}}"),
    ));
    requests
}

/// Some of them one after the other, with some bytes changed.
fn conversation() -> impl Strategy<Value = Vec<u8>> {
    let requests = vec(prop::sample::select(requests()), 1..6).prop_map(|some| some.concat());
    let spoilt = vec((any::<prop::sample::Index>(), any::<u8>()), 0..3);
    (requests, spoilt).prop_map(|(mut bytes, spoilt)| {
        for (at, byte) in spoilt {
            let at = at.index(bytes.len());
            bytes[at] = byte;
        }
        bytes
    })
}

fn cut(bytes: &[u8], every: usize) -> Vec<u8> {
    serve(bytes.chunks(every))
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(512))]

    #[test]
    fn g13_where_the_bytes_are_cut_makes_no_difference(bytes in conversation(), every in 1..90usize) {
        prop_assert_eq!(cut(&bytes, every), cut(&bytes, usize::MAX));
    }

    #[test]
    fn g13_whatever_comes_is_borne(bytes in vec(any::<u8>(), 0..300), every in 1..90usize) {
        cut(&bytes, every);
    }
}

#[test]
fn everything_is_answered_in_turn() {
    // The last stream has no end of its own.
    let all = requests();
    let answers = cut(&all.concat(), usize::MAX);
    let answers = String::from_utf8(answers).expect("text");
    // A HEAD with `Connection: close` is among them: nothing is answered behind it.
    let until = all
        .iter()
        .position(|r| r.starts_with(b"HEAD"))
        .expect("it is there")
        + 1;
    assert_eq!(answers.matches("HTTP/1.1 ").count(), until, "{answers}");
    // An unknown lease, and a HEAD where etcd takes only a GET.
    assert_eq!(answers.matches("HTTP/1.1 4").count(), 2, "{answers}");
    assert!(answers.contains("requested lease not found"), "{answers}");
}
