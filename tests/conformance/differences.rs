//! Where two stores may differ, and why. Everything else has to be equal.
//!
//! The registry answers as etcd 3.5 does; where 3.4 says the same in another way, that is rewritten
//! as what 3.5 says, and where the two disagree in substance, a scenario says so with `allow`.

use serde_json::{Value, json};

use super::talk::Entry;

/// A difference that is none for a client.
#[derive(Debug)]
pub struct Allowed {
    pub why: &'static str,
    /// Takes out of an answer what may differ, and no more.
    pub mask: fn(&mut Entry),
}

/// What may differ wherever it is met.
pub static EVERYWHERE: &[Allowed] = &[
    Allowed {
        why: "Why a body can't be read is said in the words of the JSON library.",
        mask: |entry| {
            on_errors(&mut entry.reply, &mut |code, message| {
                let own = ["etcdserver: ", "invalid grpc-timeout: "];
                if *code == 3 && !own.iter().any(|prefix| message.starts_with(prefix)) {
                    *message = "<unreadable>".into();
                }
            });
        },
    },
    Allowed {
        why: "3.4 answers 412 where 3.5 answers 400 (failed precondition).",
        mask: |entry| {
            let mut failed = false;
            on_errors(&mut entry.reply, &mut |code, _| failed |= *code == 9);
            if failed && entry.status == 412 {
                entry.status = 400;
            }
        },
    },
    Allowed {
        why: "3.4 says in plain text what 3.5 says as an error: no such path, no such method.",
        mask: |entry| {
            let (status, code, message) = match (entry.status, &entry.reply) {
                (404, Value::String(text)) if text == "Not Found\n" => (404, 5, "Not Found"),
                (405, Value::String(text)) if text == "Method Not Allowed\n" => {
                    // On what is no part of the gateway, 3.5 says it in plain text too.
                    if !entry.request.contains(" /v3/") {
                        return;
                    }
                    (501, 12, "Method Not Allowed")
                }
                _ => return,
            };
            entry.status = status;
            entry.content_type = "application/json".into();
            entry.reply = json!({ "error": { "code": code, "message": message } });
        },
    },
    Allowed {
        why: "3.4 now and then ends a watch whose time is over with code 2 instead of 4.",
        mask: |entry| {
            on_errors(&mut entry.reply, &mut |code, message| {
                if message == "context deadline exceeded" && *code == 2 {
                    *code = 4;
                }
            });
        },
    },
    Allowed {
        why: "Every store has its own version.",
        mask: |entry| {
            for field in ["etcdserver", "etcdcluster"] {
                if let Some(Value::String(version)) = entry.reply.get_mut(field) {
                    let parts: Vec<&str> = version.split('.').collect();
                    if parts.len() == 3 && parts.iter().all(|part| part.parse::<u32>().is_ok()) {
                        *version = "<version>".into();
                    }
                }
            }
        },
    },
];

pub static HEALTH_REASON: Allowed = Allowed {
    why: "3.5 gives a reason for its health, empty where all is well.",
    mask: |entry| {
        if entry.reply["reason"] == "" {
            entry
                .reply
                .as_object_mut()
                .map(|fields| fields.remove("reason"));
        }
    },
};

pub static LENIENCE: Allowed = Allowed {
    why: "3.4 and 3.5 draw the line between odd and wrong JSON differently: unpadded base64, 1.0 \
          for 1, unknown names, a field twice, null in a list (which 3.4 panics over). It is taken \
          or refused as unreadable, and nothing else.",
    mask: |entry| {
        let mut refused = entry.reply == "<closed without an answer>";
        on_errors(&mut entry.reply, &mut |code, _| {
            refused |= *code == 3 || *code == 2
        });
        if entry.status == 200 || refused {
            entry.status = 0;
            entry.content_type.clear();
            entry.reply = json!("<taken, or refused>");
        }
    },
};

pub static NO_MEANING: Allowed = Allowed {
    why: "A number that stands for nothing is taken for something by etcd, and refused as \
          unreadable by the registry.",
    mask: LENIENCE.mask,
};

pub static NO_TIME: Allowed = Allowed {
    why: "A negative time-out is over at once in etcd, and unreadable to the registry.",
    mask: |entry| {
        let mut refused = false;
        on_errors(&mut entry.reply, &mut |code, _| {
            refused |= *code == 3 || *code == 4
        });
        if refused {
            entry.status = 0;
            entry.reply = json!("<refused>");
        }
    },
};

pub static OLD_STREAM: Allowed = Allowed {
    why: "To a client of HTTP/1.0 etcd streams without an encoding, the registry in chunks.",
    mask: |entry| entry.reply["encoding"] = Value::Null,
};

pub static UNREADABLE_STREAM: Allowed = Allowed {
    why: "Where the first request of a stream can't be read, 3.4 answers 500 with code 2, 3.5 not \
          at all (a watch) or with nothing (a keepalive).",
    mask: |entry| {
        let mut refused = entry.reply == "<silence>" || entry.reply == "";
        on_errors(&mut entry.reply, &mut |code, _| {
            refused |= *code == 2 || *code == 3
        });
        if refused {
            entry.status = 0;
            entry.content_type.clear();
            entry.reply = json!("<refused, or ignored>");
        }
    },
};

pub static EMPTY_STREAM: Allowed = Allowed {
    why: "3.4 names a content type even where a stream has nothing to say.",
    mask: |entry| entry.content_type.clear(),
};

pub static NEEDLESS_TOKEN: Allowed = Allowed {
    why: "While nobody has to log in, 3.4 refuses tokens and 3.5 ignores them.",
    mask: |entry| {
        let mut refused = false;
        on_errors(&mut entry.reply, &mut |code, _| refused |= *code == 16);
        if refused || entry.status == 200 {
            entry.status = 0;
            entry.reply = json!("<ignored, or refused>");
        }
    },
};

pub static LONE_PROGRESS: Allowed = Allowed {
    why: "Asked for the progress of no watch at all, 3.4 answers and 3.5 doesn't.",
    mask: |entry| {
        entry.status = 0;
        entry.content_type.clear();
        entry.reply = json!("<whatever>");
    },
};

/// Calls `change` with the code and the message of every error in a reply.
fn on_errors(value: &mut Value, change: &mut dyn FnMut(&mut i64, &mut String)) {
    match value {
        Value::Object(fields) => {
            let code = fields.get("code").and_then(Value::as_i64);
            if let (Some(mut code), Some(Value::String(message))) =
                (code, fields.get_mut("message"))
            {
                change(&mut code, message);
                fields.insert("code".into(), json!(code));
            }
            fields
                .values_mut()
                .for_each(|field| on_errors(field, change));
        }
        Value::Array(items) => items.iter_mut().for_each(|item| on_errors(item, change)),
        _ => {}
    }
}
