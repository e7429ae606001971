//! The client of etcd's v3 HTTP JSON gateway: it talks, and decides nothing.

mod auth;
mod client;
mod endpoint;
mod failure;
mod frames;
mod lease;
mod messages;
mod probe;
mod range;
mod tls;
mod txn;
mod watch;
mod wire;

pub(crate) use auth::Credentials;
pub(crate) use client::{Client, Shared};
pub(crate) use endpoint::Endpoint;
pub(crate) use failure::Failure;
pub(crate) use lease::TimeToLive;
pub(crate) use messages::Frame;
pub(crate) use range::Page;
pub use tls::Tls;
pub(crate) use txn::{Compare, Op};
pub(crate) use watch::WatchRequest;
#[cfg(feature = "embedded")]
pub(crate) use wire::number;
