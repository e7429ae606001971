//! The plainest HTTP client that does: what both light peers stand on.

use serde_json::json;
use ureq::{Agent, Body, http::Response};

use super::shared::Args;
use crate::data;
use crate::support::gateway::b64;

pub fn watch(args: &Args) -> Response<Body> {
    let (from, to) = data::range();
    let body = json!({ "create_request": {
        "key": b64(from), "range_end": b64(to), "start_revision": args.text("from"),
    }});
    post(args, "/v3/watch", &body.to_string())
}

pub fn list(args: &Args) -> Response<Body> {
    let (from, to) = data::range();
    let body = json!({ "key": b64(from), "range_end": b64(to) });
    post(args, "/v3/kv/range", &body.to_string())
}

fn post(args: &Args, path: &str, body: &str) -> Response<Body> {
    let agent: Agent = Agent::config_builder().proxy(None).build().into();
    let url = format!("{}{path}", args.text("endpoint"));
    agent.post(url).send(body).expect("an answer")
}
