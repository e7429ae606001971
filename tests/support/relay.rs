use std::time::Duration;

use crossbeam_channel::{Sender, bounded};
use ureq::Agent;
use ureq::http;

use super::fake::{FakeGateway, Reply, Request, StreamStep};
use super::gateway::{agent_config, read_lines};

impl FakeGateway {
    /// Passes everything on to a real etcd, and each line of a watch through `filter`, which may
    /// change it, or swallow it with `None`.
    pub fn relay(
        target: impl Into<String>,
        filter: impl Fn(&Request, String) -> Option<String> + Clone + Send + Sync + 'static,
    ) -> FakeGateway {
        FakeGateway::relay_unless(target, |_| None, filter)
    }

    /// As `relay`, but a request that `answer` has a reply for never gets to etcd.
    pub fn relay_unless(
        target: impl Into<String>,
        answer: impl Fn(&Request) -> Option<Reply> + Send + Sync + 'static,
        filter: impl Fn(&Request, String) -> Option<String> + Clone + Send + Sync + 'static,
    ) -> FakeGateway {
        let target = target.into();
        FakeGateway::start(move |request| {
            answer(request).unwrap_or_else(|| forward(&target, request, filter.clone()))
        })
    }
}

fn forward(
    target: &str,
    request: &Request,
    filter: impl Fn(&Request, String) -> Option<String> + Send + 'static,
) -> Reply {
    // One agent a request: shutting it down must end this stream and nothing else.
    let agent = agent_config()
        .timeout_connect(Some(Duration::from_secs(2)))
        .timeout_recv_response(Some(Duration::from_secs(10)))
        .build()
        .new_agent();
    let mut outgoing = http::Request::builder()
        .method(request.method.as_str())
        .uri(format!("{target}{}", request.path));
    for (name, value) in &request.headers {
        // What concerns only the connection is between the relay and each side.
        if !["host", "content-length", "connection", "accept-encoding"].contains(&name.as_str()) {
            outgoing = outgoing.header(name, value);
        }
    }
    let sent = match request.method.as_str() {
        "GET" => outgoing.body(()).map(|outgoing| agent.run(outgoing)),
        _ => outgoing
            .body(request.text.clone())
            .map(|outgoing| agent.run(outgoing)),
    };
    // Without etcd the client sees what it would see of etcd.
    let Ok(Ok(response)) = sent else {
        return Reply::Reset;
    };

    let status = response.status().as_u16();
    let content_type = response
        .headers()
        .get("content-type")
        .and_then(|value| value.to_str().ok());
    let content_type = content_type.unwrap_or("application/json").to_owned();
    let mut body = response.into_body().into_reader();
    if request.path != "/v3/watch" || status != 200 {
        let mut bytes = Vec::new();
        return match std::io::Read::read_to_end(&mut body, &mut bytes) {
            Ok(_) => Reply::Bytes(status, content_type, bytes),
            Err(_) => Reply::Reset,
        };
    }

    let (steps, live) = bounded(64);
    let request = request.clone();
    std::thread::spawn(move || pump(&mut body, &request, &steps, filter));
    Reply::Stream(vec![
        StreamStep::Live(live),
        StreamStep::Keep(Box::new(Upstream(Some(agent)))),
    ])
}

/// Ends with the stream from etcd, or when nobody takes its lines any more.
fn pump(
    body: &mut dyn std::io::Read,
    request: &Request,
    steps: &Sender<StreamStep>,
    filter: impl Fn(&Request, String) -> Option<String>,
) {
    let outcome = read_lines(body, |line| match filter(request, line.to_owned()) {
        Some(line) => steps
            .send(StreamStep::Send(format!("{line}\n").into_bytes()))
            .is_ok(),
        None => true,
    });
    let _ = steps.send(if outcome.is_ok() {
        StreamStep::End
    } else {
        StreamStep::Abort
    });
}

/// The connection to etcd, closed when the client's is: dropping this wakes the pump.
struct Upstream(Option<Agent>);

impl Drop for Upstream {
    fn drop(&mut self) {
        if let Some(agent) = self.0.take() {
            agent.shutdown();
        }
    }
}
