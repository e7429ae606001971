//! What can go wrong, when it happens, and which setting is at fault.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

/// Everything that Headcount reports as an error.
///
/// Only [`Builder::start`](crate::Builder::start), [`Cluster::update_metadata`],
/// [`Cluster::leave`] and [`Cluster::add_listener`] return errors. What goes wrong later, in the
/// background, is retried for ever, logged, and readable as
/// [`Cluster::last_error`].
///
/// [`Cluster::update_metadata`]: crate::Cluster::update_metadata
/// [`Cluster::leave`]: crate::Cluster::leave
/// [`Cluster::add_listener`]: crate::Cluster::add_listener
/// [`Cluster::last_error`]: crate::Cluster::last_error
#[derive(Debug, Clone)]
#[non_exhaustive]
pub enum Error {
    /// A setting makes no sense. Nothing was started.
    Setting {
        /// The builder method whose value was refused.
        setting: &'static str,
        /// Why, as a sentence.
        reason: String,
    },
    /// No connection: refused, reset, or the host name does not resolve.
    /// At fault: `endpoints`, or etcd is down.
    Unreachable {
        /// The endpoint that was tried.
        endpoint: Arc<str>,
        /// What the system said.
        reason: String,
    },
    /// No answer in time. Where the `limit` is `connect_timeout`, not even a connection, or not a
    /// word from an endpoint that has substitutes.
    Timeout {
        /// The endpoint that was tried.
        endpoint: Arc<str>,
        /// The setting that bounds this phase, which may be a part of it: of `ttl` where our own
        /// registration would be in doubt, of `stall_bound` for the watch.
        limit: &'static str,
        /// How long was waited.
        after: Duration,
    },
    /// The endpoint answers, but not as etcd's JSON gateway: it is switched off
    /// (`--enable-grpc-gateway=false`), or this is not etcd. At fault: `endpoints`.
    NotAGateway {
        /// The endpoint that was tried.
        endpoint: Arc<str>,
    },
    /// `http` to a port that speaks TLS, or `https` to one that does not. At fault: the scheme in
    /// `endpoints`.
    WrongScheme {
        /// The endpoint that was tried.
        endpoint: Arc<str>,
    },
    /// The TLS handshake failed: unknown issuer, wrong name, client certificate missing or
    /// refused. At fault: `tls`.
    Tls {
        /// The endpoint that was tried.
        endpoint: Arc<str>,
        /// What the TLS library said.
        reason: String,
    },
    /// etcd has authentication on and refuses the user or password. Final: nothing is retried
    /// before the slowest back-off, so that no account is locked. At fault: `credentials`.
    WrongPassword {
        /// The user that was refused.
        user: String,
    },
    /// etcd has authentication on and no `credentials` are set.
    CredentialsNeeded,
    /// The user may not do this. At fault: the role in etcd, which needs read and write on
    /// `[<prefix>servers-, <prefix>servers0)`.
    PermissionDenied {
        /// The request that was refused.
        request: &'static str,
    },
    /// etcd refuses every gateway call made with a client certificate that carries a common name
    /// while authentication is on. At fault: the certificate; issue one without a CN.
    CertificateWithName {
        /// The endpoint that was tried.
        endpoint: Arc<str>,
    },
    /// etcd answered with an error of its own.
    Etcd {
        /// The gRPC status code.
        code: u32,
        /// etcd's words, up to 300 characters of them.
        message: String,
    },
    /// The answer is not what etcd's gateway says: cut short, not JSON, or a field is missing.
    Protocol {
        /// What was wrong with it.
        reason: String,
    },
    /// An answer or a frame of the stream is larger than allowed. At fault:
    /// `max_frame_bytes`, or somebody writes huge values under the prefix.
    TooLarge {
        /// The bound that was passed, in bytes.
        limit: usize,
    },
    /// Another live instance holds this (type, id) and the policy is
    /// [`OnConflict::Fail`](crate::OnConflict::Fail); or it took over while we were starting.
    Conflict {
        /// The member that holds it, `type/id`.
        member: String,
    },
    /// [`start`](crate::Builder::start) gave up after `start_timeout`; everything it had begun was
    /// stopped again.
    StartTimeout {
        /// How long was waited.
        after: Duration,
        /// The last thing that went wrong.
        last: Option<Box<Error>>,
    },
    /// Metadata was to be changed by a pure observer, or by a member that was displaced.
    NotAMember,
    /// The cluster handle has left already.
    Closed,
    /// The system gave no thread.
    Thread {
        /// What the system said.
        reason: String,
    },
}

impl Error {
    /// Whether waiting won't help: the settings, or etcd's, have to change. Who [starts without the
    /// store](crate::Builder::start_without_store) may look at
    /// [`last_error`](crate::Cluster::last_error) so.
    pub fn is_setup(&self) -> bool {
        matches!(
            self,
            Error::Setting { .. }
                | Error::NotAGateway { .. }
                | Error::WrongScheme { .. }
                | Error::Tls { .. }
                | Error::WrongPassword { .. }
                | Error::CredentialsNeeded
                | Error::PermissionDenied { .. }
                | Error::CertificateWithName { .. }
                | Error::Conflict { .. }
        )
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Error::Setting { setting, reason } => write!(f, "{setting}: {reason}"),
            Error::Unreachable { endpoint, reason } => {
                write!(f, "no connection to {endpoint}: {reason} (endpoints)")
            }
            Error::Timeout {
                endpoint,
                limit,
                after,
            } => {
                write!(f, "no answer from {endpoint} within {after:?} ({limit})")
            }
            Error::NotAGateway { endpoint } => write!(
                f,
                "{endpoint} answers, but not as etcd's JSON gateway: is this etcd, and was it \
                 started with --enable-grpc-gateway=false? (endpoints)"
            ),
            Error::WrongScheme { endpoint } => write!(
                f,
                "{endpoint}: http was spoken to a TLS port, or TLS to a plain one; change the \
                 scheme (endpoints)"
            ),
            Error::Tls { endpoint, reason } => {
                write!(f, "TLS with {endpoint} failed: {reason} (tls)")
            }
            Error::WrongPassword { user } => {
                write!(
                    f,
                    "etcd refuses user {user:?} with this password (credentials)"
                )
            }
            Error::CredentialsNeeded => {
                f.write_str("etcd has authentication on and no user is set (credentials)")
            }
            Error::PermissionDenied { request } => write!(
                f,
                "the user has no permission for {request}: its role needs read and write on \
                 [<prefix>servers-, <prefix>servers0) (credentials)"
            ),
            Error::CertificateWithName { endpoint } => write!(
                f,
                "{endpoint} has authentication on and refuses gateway calls with a client \
                 certificate that carries a common name: issue one without CN (tls)"
            ),
            Error::Etcd { code, message } => write!(f, "etcd: {message} (gRPC code {code})"),
            Error::Protocol { reason } => write!(f, "not understood: {reason}"),
            Error::TooLarge { limit } => {
                write!(
                    f,
                    "an answer is larger than {limit} bytes (max_frame_bytes)"
                )
            }
            Error::Conflict { member } => {
                write!(
                    f,
                    "another instance is registered as {member} (on_conflict)"
                )
            }
            Error::StartTimeout {
                after,
                last: Some(last),
            } => {
                write!(f, "not ready within {after:?} (start_timeout): {last}")
            }
            Error::StartTimeout { after, last: None } => {
                write!(f, "not ready within {after:?} (start_timeout)")
            }
            Error::NotAMember => f.write_str("this process is not a member of the cluster"),
            Error::Closed => f.write_str("this cluster handle has left"),
            Error::Thread { reason } => write!(f, "no thread to be had: {reason}"),
        }
    }
}

impl std::error::Error for Error {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Error::StartTimeout {
                last: Some(last), ..
            } => Some(last.as_ref()),
            _ => None,
        }
    }
}
