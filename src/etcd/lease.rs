//! Leases: grant, keepalive, and what is left of one.

use std::borrow::Cow;
use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde::de::Error as _;
use serde::{Deserialize, Serialize};

use super::client::Client;
use super::failure::Failure;
use super::wire::{Header, number};

#[derive(Serialize)]
struct Grant {
    #[serde(rename = "TTL")]
    ttl: u64,
    #[serde(rename = "ID")]
    id: i64,
}

#[derive(Serialize)]
struct KeepAlive {
    #[serde(rename = "ID")]
    id: i64,
}

#[derive(Deserialize, Default)]
#[serde(default)]
struct Reply {
    #[serde(rename = "ID", deserialize_with = "number")]
    id: i64,
    #[serde(rename = "TTL", deserialize_with = "number")]
    ttl: i64,
}

/// A keepalive's reply comes as a stream of one.
#[derive(Deserialize, Default)]
#[serde(default)]
struct Streamed<'a> {
    result: Reply,
    #[serde(borrow)]
    error: Option<super::failure::WireError<'a>>,
}

#[derive(Serialize)]
struct Look {
    #[serde(rename = "ID")]
    id: i64,
    /// Its keys are to be told as well.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    keys: bool,
}

/// What etcd knows of a lease.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Looked {
    Lives(TimeToLive),
    /// It lives, and holds the key whose end we were told: the leader, who answers, is behind the
    /// node that told us.
    Behind,
    /// The etcd of this cluster does not know it; 0: which cluster was not said.
    Gone {
        cluster: u64,
    },
}

#[derive(Deserialize, Default)]
#[serde(default)]
struct Left {
    header: Header,
    #[serde(rename = "TTL", deserialize_with = "number")]
    ttl: i64,
    #[serde(rename = "grantedTTL", deserialize_with = "number")]
    granted: i64,
}

/// What etcd says of a lease that it holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct TimeToLive {
    /// In whole seconds, what is beyond them cut off; zero also while it is overdue for being
    /// ended.
    pub remaining: Duration,
    pub granted: Duration,
    /// Grows with each election, which renews all leases.
    pub term: u64,
    /// No less than was granted, as no renewal leaves it: for a second after an election, which
    /// adds its own time; or without end, from a node that has just lost its lead. A node may say
    /// so before it knows of the new term.
    pub by_election: bool,
    pub cluster: u64,
    /// Of the store, as the node that answers knows it.
    pub revision: i64,
}

#[derive(Deserialize, Default)]
#[serde(default)]
struct Held<'a> {
    #[serde(borrow)]
    keys: Vec<Cow<'a, str>>,
}

/// A TTL; a nonsensical one counts as a year, so that clocks can add it.
fn seconds(ttl: i64) -> Duration {
    Duration::from_secs(ttl.unsigned_abs().min(365 * 24 * 3600))
}

impl Client {
    /// A new lease: its id and the TTL that etcd really gave (at least 2 s, whatever was asked).
    pub fn grant(&self, ttl: Duration, budget: Duration) -> Result<(i64, Duration), Failure> {
        let request = Grant {
            ttl: ttl.as_secs(),
            id: 0,
        };
        self.call("/v3/lease/grant", &request, budget, granted)
    }

    /// What is left of a lease.
    pub fn time_to_live(&self, id: i64, budget: Duration) -> Result<Looked, Failure> {
        self.ask_of(&Look { id, keys: false }, budget, left)
    }

    /// Whether a lease lives on without that key.
    pub fn lives_without(&self, id: i64, key: &[u8], budget: Duration) -> Result<Looked, Failure> {
        let read = |bytes: &[u8]| without(bytes, key);
        self.ask_of(&Look { id, keys: true }, budget, read)
    }

    fn ask_of(
        &self,
        look: &Look,
        budget: Duration,
        read: impl Fn(&[u8]) -> Result<Looked, serde_json::Error>,
    ) -> Result<Looked, Failure> {
        match self.call("/v3/lease/timetolive", look, budget, read) {
            // Without a header.
            Err(Failure::LeaseGone) => Ok(Looked::Gone { cluster: 0 }),
            answer => answer,
        }
    }

    /// Renews a lease. [`Failure::LeaseGone`]: etcd does not know it (it says so by leaving the
    /// TTL out).
    pub fn keepalive(&self, id: i64, budget: Duration) -> Result<Duration, Failure> {
        let reply = self.call("/v3/lease/keepalive", &KeepAlive { id }, budget, renewed)?;
        // A stream's refusal can come with status 200.
        reply.map_err(|failure| match failure {
            Failure::Unauthenticated => self.token_refused(),
            // Such as "not a primary lessor".
            Failure::Elsewhere(_) => {
                self.rotate();
                failure
            }
            other => other,
        })
    }
}

pub(crate) fn granted(bytes: &[u8]) -> Result<(i64, Duration), serde_json::Error> {
    let reply: Reply = serde_json::from_slice(bytes)?;
    match reply.id == 0 || reply.ttl <= 0 {
        true => Err(serde_json::Error::custom("a lease without id or TTL")),
        false => Ok((reply.id, seconds(reply.ttl))),
    }
}

pub(crate) fn left(bytes: &[u8]) -> Result<Looked, serde_json::Error> {
    let left: Left = serde_json::from_slice(bytes)?;
    match left.granted {
        // One that etcd knows has a whole time to live, whatever is left of it.
        1.. => Ok(Looked::Lives(TimeToLive {
            remaining: match left.ttl {
                ..=0 => Duration::ZERO,
                ttl => seconds(ttl),
            },
            granted: seconds(left.granted),
            term: left.header.raft_term,
            by_election: left.ttl >= left.granted,
            cluster: left.header.cluster_id,
            revision: left.header.revision,
        })),
        _ if left.ttl < 0 => Ok(Looked::Gone {
            cluster: left.header.cluster_id,
        }),
        _ => Err(serde_json::Error::custom("a lease without any number")),
    }
}

fn without(bytes: &[u8], key: &[u8]) -> Result<Looked, serde_json::Error> {
    let held: Held = serde_json::from_slice(bytes)?;
    let key = STANDARD.encode(key);
    match held.keys.iter().any(|held| **held == key) {
        true => Ok(Looked::Behind),
        false => left(bytes),
    }
}

/// What a keepalive's reply says: the TTL anew, or why not.
pub(crate) fn renewed(bytes: &[u8]) -> Result<Result<Duration, Failure>, serde_json::Error> {
    let reply: Streamed = serde_json::from_slice(bytes)?;
    Ok(match reply.error {
        Some(error) => Err(error.failure("keepalive")),
        // G8: what names no lease says nothing of ours.
        None if reply.result.id == 0 => {
            return Err(serde_json::Error::custom("a keepalive of no lease"));
        }
        None if reply.result.ttl <= 0 => Err(Failure::LeaseGone),
        None => Ok(seconds(reply.result.ttl)),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(json: &str) -> Result<Option<(u64, u64)>, ()> {
        let found = left(json.as_bytes()).map_err(drop)?;
        Ok(match found {
            Looked::Lives(f) => Some((f.remaining.as_secs(), f.granted.as_secs())),
            Looked::Gone { .. } | Looked::Behind => None,
        })
    }

    #[test]
    fn g6_a_leader_that_still_holds_the_key_is_behind() {
        let says = |keys: &str| {
            let json = format!(r#"{{"ID":"7","TTL":"4","grantedTTL":"5"{keys}}}"#);
            without(json.as_bytes(), b"p/servers/t/1").map(|looked| looked == Looked::Behind)
        };
        assert!(says(r#","keys":["cC9zZXJ2ZXJzL3QvMQ=="]"#).unwrap());
        assert!(says(r#","keys":["eA==","cC9zZXJ2ZXJzL3QvMQ=="]"#).unwrap());
        for other in ["", r#","keys":[]"#, r#","keys":["eA=="]"#] {
            assert!(!says(other).unwrap(), "{other}");
        }
        assert!(says(r#","keys":[7]"#).is_err());
    }

    #[test]
    fn g8_only_an_answer_about_a_lease_ends_it() {
        let lost = |json: &str| match renewed(json.as_bytes()) {
            Ok(Err(Failure::LeaseGone)) => true,
            Err(_) => false,
            other => panic!("{json}: {other:?}"),
        };
        assert!(lost(r#"{"result":{"header":{"revision":"5"},"ID":"7"}}"#));
        for odd in ["{}", r#"{"result":{}}"#, r#"{"result":{"header":{}}}"#] {
            assert!(!lost(odd), "{odd}");
        }
    }

    /// No renewal leaves a whole TTL, for what is left is cut off.
    #[test]
    fn g6_what_only_an_election_leaves() {
        for (ttl, by_election) in [
            ("-1", false),
            ("4", false),
            ("5", true),
            ("6", true),
            ("9223372036", true),
        ] {
            let json = format!(r#"{{"ID":"7","TTL":"{ttl}","grantedTTL":"5"}}"#);
            let found = match left(json.as_bytes()) {
                Ok(Looked::Lives(found)) => found,
                other => panic!("{json}: {other:?}"),
            };
            assert_eq!(found.by_election, by_election, "{json}");
        }
    }

    #[test]
    fn g13_what_is_left_of_a_lease() {
        let year = 365 * 24 * 3600;
        for (json, found) in [
            (r#"{"ID":"7","TTL":"4","grantedTTL":"5"}"#, Ok(Some((4, 5)))),
            // Zero is left out.
            (r#"{"ID":"7","grantedTTL":"5"}"#, Ok(Some((0, 5)))),
            // Overdue for being ended.
            (
                r#"{"ID":"7","TTL":"-1","grantedTTL":"5"}"#,
                Ok(Some((0, 5))),
            ),
            (r#"{"ID":"7","TTL":"-1"}"#, Ok(None)),
            // A node that has just lost its lead: for ever.
            (
                r#"{"TTL":"9223372036","grantedTTL":"5"}"#,
                Ok(Some((year, 5))),
            ),
            ("{}", Err(())),
            (r#"{"TTL":"4"}"#, Err(())),
            (r#"{"TTL":"x","grantedTTL":"5"}"#, Err(())),
        ] {
            assert_eq!(read(json), found, "{json}");
        }
    }
}
