//! etcd's refusals: two error shapes, and what they mean.

use std::borrow::Cow;
use std::sync::Arc;
use std::time::Duration;

use serde::Deserialize;

use crate::error::Error;

/// A failed request, and what its caller can do about it.
#[derive(Debug, Clone)]
pub(crate) enum Failure {
    /// The revision asked for is not there: compacted away or, after a wipe, yet to come.
    NoSuchRevision,
    /// No such lease.
    LeaseGone,
    /// The token is missing, expired, or older than the last change of a user: log in again.
    Unauthenticated,
    /// A stream's token was refused; the next request logs in again.
    TokenExpired,
    /// etcd's quota is used up: it takes deletes and keepalives, but no puts.
    NoSpace,
    /// `authenticate` was called, and authentication is off.
    AuthOff,
    /// This endpoint can't, another one may: no connection, no answer, no leader.
    Elsewhere(Error),
    /// A message began and was not whole in time: too much for this way, or what carries it stalls.
    Unfinished(Error),
    /// Nobody can.
    Final(Error),
}

impl Failure {
    /// Nothing came in time, or not the whole.
    pub fn is_late(&self) -> bool {
        use Failure::{Elsewhere, Final, Unfinished};
        let (Elsewhere(error) | Unfinished(error) | Final(error)) = self else {
            return false;
        };
        matches!(error, Error::Timeout { .. })
    }

    pub fn into_error(self) -> Error {
        let etcd = |code, message: &str| Error::Etcd {
            code,
            message: message.into(),
        };
        match self {
            Failure::NoSuchRevision => etcd(11, "required revision is not there"),
            Failure::LeaseGone => etcd(5, "requested lease not found"),
            Failure::Unauthenticated => Error::CredentialsNeeded,
            Failure::TokenExpired => Error::Protocol {
                reason: "the token has expired; logging in again".into(),
            },
            Failure::NoSpace => etcd(8, "database space exceeded"),
            Failure::AuthOff => etcd(9, "authentication is not enabled"),
            Failure::Elsewhere(error) | Failure::Unfinished(error) | Failure::Final(error) => error,
        }
    }
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        Failure::Final(error)
    }
}

/// All shapes in one: unary v1 `{error, message, code}`, unary v2 `{code, message}`, and, inside a
/// stream's `error`, v1 `{grpc_code, message}` and v2 `{code, message}`.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct WireError<'a> {
    #[serde(deserialize_with = "super::wire::number")]
    code: u32,
    #[serde(deserialize_with = "super::wire::number")]
    grpc_code: u32,
    #[serde(borrow)]
    message: Cow<'a, str>,
}

#[derive(Deserialize)]
struct Streamed<'a> {
    #[serde(borrow)]
    error: WireError<'a>,
}

impl WireError<'_> {
    pub fn failure(&self, request: &'static str) -> Failure {
        classify(self.code.max(self.grpc_code), &self.message, request)
    }
}

/// What a gRPC status means to us. The HTTP status differs between versions for the same code, so
/// it is not asked.
pub(super) fn classify(code: u32, message: &str, request: &'static str) -> Failure {
    let error = || Error::Etcd {
        code,
        message: line(message),
    };
    let says = |words: &str| message.contains(words);
    match code {
        11 if says("compacted") || says("future revision") => Failure::NoSuchRevision,
        5 if says("lease not found") => Failure::LeaseGone,
        // JWT: any change of a user makes older tokens invalid.
        3 if says("auth store is old") || says("user name is empty") => Failure::Unauthenticated,
        3 if says("authentication failed") => Failure::Final(Error::WrongPassword {
            user: String::new(),
        }),
        8 if says("space exceeded") => Failure::NoSpace,
        9 if says("authentication is not enabled") => Failure::AuthOff,
        7 => Failure::Final(Error::PermissionDenied { request }),
        16 => Failure::Unauthenticated,
        // Unknown (such as "not a primary lessor"), deadline, internal, unavailable.
        2 | 4 | 13 | 14 => Failure::Elsewhere(error()),
        _ => Failure::Final(error()),
    }
}

/// What somebody else says, made fit for one line of a log.
pub(super) fn line(text: &str) -> String {
    let plain = text.trim().chars().map(|c| match c.is_control() {
        true => ' ',
        false => c,
    });
    plain.take(300).collect()
}

/// A reply with an error status.
pub(crate) fn refusal(
    endpoint: &Arc<str>,
    status: u16,
    body: &[u8],
    request: &'static str,
) -> Failure {
    let unary = serde_json::from_slice::<WireError>(body).ok();
    // What a streaming call fails with before its first message.
    let streamed = || Some(serde_json::from_slice::<Streamed>(body).ok()?.error);
    let told = |error: &WireError| error.code != 0 || error.grpc_code != 0;
    if let Some(error) = unary.filter(told).or_else(streamed).filter(told) {
        return error.failure(request);
    }
    let text = String::from_utf8_lossy(&body[..body.len().min(300)]);
    let endpoint = Arc::clone(endpoint);
    if text.contains("HTTP request to an HTTPS server") {
        return Failure::Elsewhere(Error::WrongScheme { endpoint });
    }
    if text.contains("CommonName of client sending a request against gateway") {
        return Failure::Elsewhere(Error::CertificateWithName { endpoint });
    }
    if status == 404 {
        return Failure::Elsewhere(Error::NotAGateway { endpoint });
    }
    let reason = format!("HTTP status {status} from {endpoint}: {}", line(&text));
    Failure::Elsewhere(Error::Protocol { reason })
}

/// What the HTTP client could not do. `silence` names the setting that bounds a wait for an
/// answer.
pub(super) fn transport(
    endpoint: &Arc<str>,
    error: ureq::Error,
    silence: (&'static str, Duration),
    connect: Duration,
) -> Failure {
    use ureq::Timeout::{Connect, Resolve};
    let endpoint = Arc::clone(endpoint);
    let reason = error.to_string();
    Failure::Elsewhere(match error {
        ureq::Error::Timeout(Connect | Resolve) => Error::Timeout {
            endpoint,
            limit: "connect_timeout",
            after: connect,
        },
        ureq::Error::Timeout(_) => Error::Timeout {
            endpoint,
            limit: silence.0,
            after: silence.1,
        },
        #[cfg(feature = "tls")]
        error if super::tls::is_tls(&error) => super::tls::error(endpoint, &error),
        ureq::Error::Protocol(_) => Error::Protocol { reason },
        ureq::Error::Io(e) if e.kind() == std::io::ErrorKind::InvalidData => {
            Error::Protocol { reason }
        }
        _ => Error::Unreachable { endpoint, reason },
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(body: &str) -> Failure {
        refusal(&"http://e:1".into(), 400, body.as_bytes(), "range")
    }

    #[test]
    fn both_error_shapes_mean_the_same() {
        for (code, message, wanted) in [
            (
                11,
                "etcdserver: mvcc: required revision has been compacted",
                "NoSuchRevision",
            ),
            (5, "etcdserver: requested lease not found", "LeaseGone"),
            (16, "etcdserver: invalid auth token", "Unauthenticated"),
            (
                3,
                "etcdserver: revision of auth store is old",
                "Unauthenticated",
            ),
            (3, "etcdserver: user name is empty", "Unauthenticated"),
            (9, "etcdserver: authentication is not enabled", "AuthOff"),
            (
                3,
                "etcdserver: authentication failed, invalid user ID or password",
                "WrongPassword",
            ),
            (7, "etcdserver: permission denied", "PermissionDenied"),
            (14, "etcdserver: no leader", "Elsewhere"),
            (2, "etcdserver: not a primary lessor", "Elsewhere"),
            (8, "etcdserver: mvcc: database space exceeded", "NoSpace"),
        ] {
            for body in [
                format!(r#"{{"error":"{message}","message":"{message}","code":{code}}}"#),
                format!(r#"{{ "code":{code},  "message":"{message}" }}"#),
            ] {
                let failure = format!("{:?}", of(&body));
                assert!(failure.contains(wanted), "{body}: {failure}");
            }
            for body in [
                format!(r#"{{"grpc_code":{code},"http_code":400,"message":"{message}"}}"#),
                format!(r#"{{"code":{code},"message":"{message}"}}"#),
            ] {
                let error: WireError = serde_json::from_str(&body).unwrap();
                let failure = format!("{:?}", error.failure("watch"));
                assert!(failure.contains(wanted), "{body}: {failure}");
                let whole = format!(r#"{{"error":{body}}}"#);
                let failure = format!("{:?}", of(&whole));
                assert!(failure.contains(wanted), "{whole}: {failure}");
            }
        }
    }

    #[test]
    fn plain_texts_name_the_setting() {
        let text = |status, body: &str| {
            refusal(&"http://e:1".into(), status, body.as_bytes(), "range")
                .into_error()
                .to_string()
        };
        assert!(text(404, "404 page not found\n").contains("--enable-grpc-gateway"));
        assert!(text(400, "Client sent an HTTP request to an HTTPS server.\n").contains("scheme"));
        assert!(
            text(
                400,
                "CommonName of client sending a request against gateway will be ignored"
            )
            .contains("without CN")
        );
        assert!(text(502, "<html>\u{1b}[2J").contains("HTTP status 502"));
    }

    #[test]
    fn g13_what_etcd_says_fits_one_line() {
        let message = format!("a\\n\\u001b{}", "x".repeat(10_000));
        let error = of(&format!(r#"{{"code":14,"message":"{message}"}}"#)).into_error();
        let told = error.to_string();
        assert!(
            told.starts_with("etcd: a  xxx") && told.len() < 400,
            "{told}"
        );
    }
}
