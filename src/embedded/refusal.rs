//! Why a request is refused, in gRPC's codes and etcd's words.

use std::borrow::Cow;

/// An error of etcd's API.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Refusal {
    pub code: u8,
    pub message: Cow<'static, str>,
}

pub(super) const CANCELLED: u8 = 1;
pub(super) const INVALID: u8 = 3;
pub(super) const DEADLINE_EXCEEDED: u8 = 4;
pub(super) const NOT_FOUND: u8 = 5;
pub(super) const EXHAUSTED: u8 = 8;
pub(super) const FAILED_PRECONDITION: u8 = 9;
pub(super) const OUT_OF_RANGE: u8 = 11;
pub(super) const UNIMPLEMENTED: u8 = 12;

const fn refusal(code: u8, message: &'static str) -> Refusal {
    Refusal {
        code,
        message: Cow::Borrowed(message),
    }
}

impl Refusal {
    pub const NO_KEY: Refusal = refusal(INVALID, "etcdserver: key is not provided");
    pub const KEY_NOT_FOUND: Refusal = refusal(INVALID, "etcdserver: key not found");
    pub const VALUE_PROVIDED: Refusal = refusal(INVALID, "etcdserver: value is provided");
    pub const LEASE_PROVIDED: Refusal = refusal(INVALID, "etcdserver: lease is provided");
    pub const DUPLICATE_KEY: Refusal =
        refusal(INVALID, "etcdserver: duplicate key given in txn request");
    pub const TOO_MANY_OPS: Refusal =
        refusal(INVALID, "etcdserver: too many operations in txn request");
    pub const TOO_LARGE: Refusal = refusal(INVALID, "etcdserver: request is too large");
    pub const NO_SPACE: Refusal = refusal(EXHAUSTED, "etcdserver: mvcc: database space exceeded");
    pub const COMPACTED: Refusal = refusal(
        OUT_OF_RANGE,
        "etcdserver: mvcc: required revision has been compacted",
    );
    pub const FUTURE: Refusal = refusal(
        OUT_OF_RANGE,
        "etcdserver: mvcc: required revision is a future revision",
    );
    pub const LEASE_NOT_FOUND: Refusal =
        refusal(NOT_FOUND, "etcdserver: requested lease not found");
    pub const LEASE_EXISTS: Refusal =
        refusal(FAILED_PRECONDITION, "etcdserver: lease already exists");
    pub const TTL_TOO_LARGE: Refusal = refusal(OUT_OF_RANGE, "etcdserver: too large lease TTL");
    pub const NO_AUTH: Refusal = refusal(
        FAILED_PRECONDITION,
        "etcdserver: authentication is not enabled",
    );
    pub const CANCELED: Refusal = refusal(CANCELLED, "context canceled");
    pub const PERIOD_OVER: Refusal = refusal(DEADLINE_EXCEEDED, "context deadline exceeded");

    /// A request with more bytes than gRPC takes.
    pub fn message_too_large(bytes: usize, most: usize) -> Refusal {
        let message = format!("grpc: received message larger than max ({bytes} vs. {most})");
        Refusal {
            code: EXHAUSTED,
            message: message.into(),
        }
    }

    /// A request to a place, or by a method, that is not there.
    pub fn nowhere(code: u8, message: &'static str) -> Refusal {
        refusal(code, message)
    }

    /// A request that can't be read.
    pub fn unreadable(why: impl std::fmt::Display) -> Refusal {
        Refusal {
            code: INVALID,
            message: why.to_string().into(),
        }
    }

    /// The gateway's HTTP status for the code.
    pub fn status(&self) -> u16 {
        match self.code {
            CANCELLED => 499,
            INVALID | FAILED_PRECONDITION | OUT_OF_RANGE => 400,
            DEADLINE_EXCEEDED => 504,
            NOT_FOUND => 404,
            EXHAUSTED => 429,
            UNIMPLEMENTED => 501,
            _ => 500,
        }
    }
}
