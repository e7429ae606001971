//! Leases: grant and keepalive.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::client::Client;
use super::failure::Failure;
use super::wire::number;

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
        let reply: Reply = self.call("/v3/lease/grant", &request, budget, |bytes| {
            serde_json::from_slice(bytes)
        })?;
        if reply.id == 0 || reply.ttl <= 0 {
            let reason = "a lease without id or TTL was granted".into();
            return Err(Failure::Elsewhere(crate::Error::Protocol { reason }));
        }
        Ok((reply.id, seconds(reply.ttl)))
    }

    /// Renews a lease. [`Failure::LeaseGone`]: etcd does not know it (it says so by leaving the
    /// TTL out).
    pub fn keepalive(&self, id: i64, budget: Duration) -> Result<Duration, Failure> {
        let reply = self.call("/v3/lease/keepalive", &KeepAlive { id }, budget, |bytes| {
            let reply: Streamed = serde_json::from_slice(bytes)?;
            Ok(match reply.error {
                Some(error) => Err(error.failure("keepalive")),
                None if reply.result.ttl <= 0 => Err(Failure::LeaseGone),
                None => Ok(seconds(reply.result.ttl)),
            })
        })?;
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
