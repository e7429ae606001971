//! Leases: grant, keepalive, and what is left of one.

use std::time::Duration;

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
}

/// What etcd knows of a lease.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Looked {
    Lives(TimeToLive),
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
    pub cluster: u64,
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
        match self.call("/v3/lease/timetolive", &Look { id }, budget, left) {
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
            cluster: left.header.cluster_id,
        })),
        _ if left.ttl < 0 => Ok(Looked::Gone {
            cluster: left.header.cluster_id,
        }),
        _ => Err(serde_json::Error::custom("a lease without any number")),
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
            Looked::Gone { .. } => None,
        })
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
