//! The client of etcd's v3 HTTP JSON gateway: it talks, and decides nothing.

mod address;
mod auth;
mod client;
mod endpoint;
mod failure;
mod frames;
mod last_words;
mod lease;
mod messages;
mod probe;
mod range;
mod tls;
mod txn;
mod watch;
mod wire;

#[cfg(any(test, fuzzing))]
pub(crate) mod reading {
    //! What is read of whatever etcd says, for the fuzz targets.
    pub(crate) use super::auth::read_token as token;
    pub(crate) use super::failure::refusal;
    pub(crate) use super::lease::{granted, left, renewed};
    pub(crate) use super::messages::{Messages, Part};
    pub(crate) use super::range::read as range;
    pub(crate) use super::txn::read as txn;
}

pub(crate) use auth::Credentials;
pub(crate) use client::{Client, Shared};
pub(crate) use endpoint::Endpoint;
pub(crate) use failure::Failure;
pub(crate) use lease::{Looked, TimeToLive};
pub(crate) use messages::Frame;
pub(crate) use range::Page;
pub use tls::Tls;
#[cfg(any(test, fuzzing))]
pub(crate) use txn::TxnReply;
pub(crate) use txn::{Compare, Op};
pub(crate) use watch::WatchRequest;
#[cfg(feature = "embedded")]
pub(crate) use wire::number;
