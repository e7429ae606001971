use serde_json::{Map, Value, json};

use crate::support::gateway::int;

/// The names that stand for what no two stores have alike: ids and times.
#[derive(Default)]
pub struct Names {
    /// The leases that the store has named, in order of their appearance.
    leases: Vec<String>,
}

impl Names {
    /// Takes note of a lease whose id the store has chosen.
    pub fn granted(&mut self, request: &str, reply: &Value) {
        if let Some(id) = reply["ID"].as_str().filter(|id| !request.contains(id)) {
            self.leases.push(id.to_owned());
        }
    }

    /// The reply with the names in place of ids, and with one shape for errors.
    pub fn normal(&self, value: &Value) -> Value {
        self.walk(&error_shape(value))
    }

    /// A request with the names in place of ids.
    pub fn in_text(&self, mut text: String) -> String {
        for (n, id) in self.leases.iter().enumerate() {
            text = text.replace(id, &format!("L{}", n + 1));
        }
        text
    }

    /// How long a lease has left: within a second of what was granted is as good as that.
    pub fn ttl_left(&self, reply: &mut Value) {
        let granted = int(&reply["grantedTTL"]);
        let left = int(&reply["TTL"]);
        if granted > 0 && (granted - 1..=granted).contains(&left) {
            reply["TTL"] = json!("<all of it>");
        }
    }

    fn walk(&self, value: &Value) -> Value {
        match value {
            Value::Object(fields) => Value::Object(
                fields
                    .iter()
                    .map(|(k, v)| (k.clone(), self.field(k, v)))
                    .collect(),
            ),
            Value::Array(items) => items.iter().map(|item| self.walk(item)).collect(),
            other => other.clone(),
        }
    }

    fn field(&self, name: &str, value: &Value) -> Value {
        match (name, value) {
            // Only in the form that etcd gives them: a string of digits.
            ("cluster_id" | "member_id" | "raft_term", Value::String(text)) if is_digits(text) => {
                json!(format!("<{name}>"))
            }
            ("ID" | "lease", Value::String(text)) => {
                match self.leases.iter().position(|id| id == text) {
                    Some(n) => json!(format!("L{}", n + 1)),
                    None => value.clone(),
                }
            }
            // The keys of a lease come in no order.
            ("keys", Value::Array(keys)) => {
                let mut keys = keys.clone();
                keys.sort_by_key(Value::to_string);
                Value::Array(keys)
            }
            _ => self.walk(value),
        }
    }
}

fn is_digits(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit())
}

/// The two generations of etcd's gateway write errors differently, and say the same.
fn error_shape(value: &Value) -> Value {
    let Value::Object(fields) = value else {
        return value.clone();
    };
    // In a stream: {"error":{"grpc_code",…,"message"}} or {"error":{"code","message"}}.
    if let (Some(Value::Object(inner)), 1) = (fields.get("error"), fields.len()) {
        let code = inner.get("grpc_code").or(inner.get("code"));
        return json!({ "stream_error": pair(code, inner) });
    }
    // Alone: {"error","message","code"} or {"code","message"}.
    if fields.contains_key("message") && fields.contains_key("code") {
        return json!({ "error": pair(fields.get("code"), fields) });
    }
    value.clone()
}

fn pair(code: Option<&Value>, fields: &Map<String, Value>) -> Value {
    let message = fields
        .get("message")
        .and_then(Value::as_str)
        .unwrap_or_default();
    // The newer gateway throws in unbreakable spaces at random, so that nobody relies on its words.
    let message = message.replace('\u{a0}', " ");
    let mut error = json!({ "code": code, "message": message });
    if let Some(Value::Array(details)) = fields.get("details") {
        if !details.is_empty() {
            error["details"] = json!(details);
        }
    }
    error
}
