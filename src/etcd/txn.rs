//! Transactions: if all compares hold then some operations, else others.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::client::Client;
use super::failure::Failure;
use super::wire::{self, Header, WireKv, number};
use crate::kv::{Kv, Standing};

/// A condition on one key.
#[derive(Serialize)]
pub(crate) struct Compare<'a> {
    #[serde(serialize_with = "wire::as_base64")]
    key: &'a [u8],
    result: &'static str,
    #[serde(flatten)]
    target: Target,
}

#[derive(Serialize)]
#[serde(tag = "target", rename_all = "UPPERCASE")]
enum Target {
    Create { create_revision: i64 },
    Lease { lease: i64 },
}

impl<'a> Compare<'a> {
    /// The key stands so.
    pub fn stands(key: &'a [u8], as_known: Standing) -> [Self; 2] {
        let equal = |target| Compare {
            key,
            result: "EQUAL",
            target,
        };
        let create_revision = as_known.incarnation;
        let lease = as_known.lease;
        [
            equal(Target::Create { create_revision }),
            equal(Target::Lease { lease }),
        ]
    }
}

/// What to do in a transaction.
#[derive(Serialize)]
pub(crate) enum Op<'a> {
    #[serde(rename = "request_put")]
    Put {
        #[serde(serialize_with = "wire::as_base64")]
        key: &'a [u8],
        #[serde(serialize_with = "wire::as_base64")]
        value: &'a [u8],
        lease: i64,
    },
    #[serde(rename = "request_delete_range")]
    Delete {
        #[serde(serialize_with = "wire::as_base64")]
        key: &'a [u8],
    },
    #[serde(rename = "request_range")]
    Get {
        #[serde(serialize_with = "wire::as_base64")]
        key: &'a [u8],
        #[serde(skip_serializing_if = "std::ops::Not::not")]
        keys_only: bool,
    },
}

#[derive(Serialize)]
struct Request<'a> {
    compare: &'a [Compare<'a>],
    success: &'a [Op<'a>],
    failure: &'a [Op<'a>],
}

#[derive(Deserialize, Default)]
#[serde(default)]
struct Reply<'a> {
    header: Header,
    succeeded: bool,
    #[serde(borrow)]
    responses: Vec<Response<'a>>,
}

#[derive(Deserialize, Default)]
#[serde(default)]
struct Response<'a> {
    #[serde(borrow)]
    response_range: Option<Found<'a>>,
}

#[derive(Deserialize, Default)]
#[serde(default)]
struct Found<'a> {
    #[serde(borrow)]
    kvs: Vec<WireKv<'a>>,
    #[serde(rename = "count", deserialize_with = "number")]
    _count: i64,
}

impl<'a> Op<'a> {
    pub fn get(key: &'a [u8]) -> Self {
        let keys_only = false;
        Op::Get { key, keys_only }
    }
}

/// What a transaction did.
pub(crate) struct TxnReply {
    pub succeeded: bool,
    pub revision: i64,
    /// The answers of its `Get`s, in order.
    pub found: Vec<Option<Kv>>,
}

impl Client {
    pub fn txn(
        &self,
        compare: &[Compare],
        success: &[Op],
        failure: &[Op],
        budget: Duration,
    ) -> Result<TxnReply, Failure> {
        let request = Request {
            compare,
            success,
            failure,
        };
        self.call("/v3/kv/txn", &request, budget, read)
    }
}

pub(crate) fn read(bytes: &[u8]) -> Result<TxnReply, serde_json::Error> {
    let reply: Reply = serde_json::from_slice(bytes)?;
    let found = reply
        .responses
        .iter()
        .filter_map(|r| r.response_range.as_ref());
    let found: Result<Vec<Option<Kv>>, _> = found
        .map(|f| f.kvs.first().map(WireKv::decode).transpose())
        .collect();
    Ok(TxnReply {
        succeeded: reply.succeeded,
        revision: reply.header.revision,
        found: found.map_err(serde::de::Error::custom)?,
    })
}
