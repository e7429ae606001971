//! Reading keys.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::client::Client;
use super::failure::Failure;
use super::wire::{self, Header, WireKv};
use crate::kv::Kv;

#[derive(Serialize)]
struct Request<'a> {
    #[serde(serialize_with = "wire::as_base64")]
    key: &'a [u8],
    #[serde(serialize_with = "wire::as_base64")]
    range_end: &'a [u8],
    limit: i64,
    /// 0: the newest.
    revision: i64,
    keys_only: bool,
}

#[derive(Deserialize, Default)]
#[serde(default)]
struct Reply<'a> {
    header: Header,
    #[serde(borrow)]
    kvs: Vec<WireKv<'a>>,
    more: bool,
}

/// Part of a range, as of one revision.
pub(crate) struct Page {
    pub kvs: Vec<Kv>,
    pub more: bool,
    pub revision: i64,
    pub cluster: u64,
}

impl Client {
    /// Up to `limit` keys from `from` up to `to`, as of `revision` (0: now). Linearizable.
    pub fn range(
        &self,
        from: &[u8],
        to: &[u8],
        revision: i64,
        limit: i64,
        keys_only: bool,
        budget: Duration,
    ) -> Result<Page, Failure> {
        let request = Request {
            key: from,
            range_end: to,
            limit,
            revision,
            keys_only,
        };
        self.call("/v3/kv/range", &request, budget, read)
    }
}

pub(crate) fn read(bytes: &[u8]) -> Result<Page, serde_json::Error> {
    let reply: Reply = wire::parse(bytes)?;
    let kvs: Result<Vec<Kv>, _> = reply.kvs.iter().map(WireKv::decode).collect();
    Ok(Page {
        kvs: kvs.map_err(serde::de::Error::custom)?,
        more: reply.more,
        revision: reply.header.revision,
        cluster: reply.header.cluster_id,
    })
}
