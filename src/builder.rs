//! All settings in one place.

use std::time::Duration;

use crate::cluster::Cluster;
use crate::error::Error;
use crate::etcd::{Credentials, Tls};
use crate::settings::{Check, OnConflict, Settings};

/// Settings of a [`Cluster`]; [`start`](Self::start) checks and uses them.
///
/// Without [`member`](Self::member) it is a pure observer. The defaults are right for a local etcd
/// and a Pitaya cluster.
#[derive(Debug, Clone, Default)]
#[must_use = "nothing happens before start()"]
pub struct Builder {
    settings: Settings,
}

impl Builder {
    /// All defaults.
    pub fn new() -> Self {
        Builder::default()
    }

    // ---- where

    /// etcd's client URLs (`http://127.0.0.1:2379`); without a scheme `http`, or `https` where
    /// [`tls`](Self::tls) is set; without a port 2379.
    ///
    /// Give all of one etcd cluster: whichever fails is passed by, and costs `connect_timeout` at
    /// most. They are tried from a random one on, so that processes spread. Symptom of a wrong one:
    /// [`Error::Unreachable`] or [`Error::NotAGateway`]; of two clusters mixed: `cluster_changed`
    /// growing in the statistics.
    pub fn endpoints<S: Into<String>>(mut self, urls: impl IntoIterator<Item = S>) -> Self {
        self.settings.endpoints = urls.into_iter().map(Into::into).collect();
        self
    }

    /// What all keys begin with (`pitaya/`): one segment and its slash.
    ///
    /// It must be the other servers' own (`pitaya.cluster.sd.etcd.prefix`). Symptom of a wrong one:
    /// you see nobody but yourself.
    pub fn prefix(mut self, prefix: impl Into<String>) -> Self {
        self.settings.prefix = prefix.into();
        self
    }

    /// User and password, where etcd has authentication on. Its role needs read and write on
    /// `[<prefix>servers-, <prefix>servers0)`.
    ///
    /// Symptom of wrong ones: [`Error::WrongPassword`], [`Error::PermissionDenied`]. Neither the
    /// password nor a token is ever logged by this crate. (The HTTP library below it writes raw
    /// bytes when *its* log target, `ureq_proto`, is set to `trace`: leave that off.)
    pub fn credentials(mut self, user: impl Into<String>, password: impl Into<String>) -> Self {
        let (user, password) = (user.into(), password.into());
        self.settings.credentials = Some(Credentials { user, password });
        self
    }

    /// How to speak TLS with `https` endpoints, of which there has to be one. Needs the feature `tls`.
    pub fn tls(mut self, tls: Tls) -> Self {
        self.settings.tls = Some(tls);
        self
    }

    // ---- oneself

    /// Register this process as a member: its server type and its id, both non-empty and without
    /// slash, together less than 1 KiB: whoever has a longer key is nobody's peer. Pitaya wants ids
    /// that are unique across all types.
    pub fn member(mut self, server_type: impl Into<String>, id: impl Into<String>) -> Self {
        self.settings.member = Some((server_type.into(), id.into()));
        self
    }

    /// One pair of metadata, which every other member sees. Keys that begin with `headcount.` are
    /// reserved.
    pub fn metadata(mut self, key: impl Into<String>, value: impl Into<String>) -> Self {
        self.settings.metadata.push((key.into(), value.into()));
        self
    }

    /// Whether clients connect to this server (false).
    pub fn frontend(mut self, frontend: bool) -> Self {
        self.settings.frontend = frontend;
        self
    }

    /// The host name to register (the system's own).
    pub fn hostname(mut self, hostname: impl Into<String>) -> Self {
        self.settings.hostname = Some(hostname.into());
        self
    }

    /// How long etcd keeps our registration without a sign of life (10 s; whole seconds, at least
    /// 2 s). What etcd grants counts, which may be more.
    ///
    /// etcd gets a keepalive each TTL/3, and a crash is told TTL + 0…0.5 s after the last one: so
    /// between 2/3 TTL and TTL + 0.5 s after the death, and 600 ms later where the lease was not
    /// seen to be late (see [`mass_loss_hold`](Self::mass_loss_hold)). Rule of thumb: three times
    /// the longest pause of your process or network that is no death.
    /// Symptom of too short: `Lost` and `Registered` in turn, and peers that see `ServerDown`,
    /// while the process lives. Pitaya's own default is 60 s.
    pub fn ttl(mut self, ttl: Duration) -> Self {
        self.settings.ttl = ttl;
        self
    }

    /// What to do when another live instance has our (type, id) (`TakeOver`).
    pub fn on_conflict(mut self, policy: OnConflict) -> Self {
        self.settings.on_conflict = policy;
        self
    }

    // ---- the others' heartbeats

    /// Whose heartbeats to check (`All`).
    ///
    /// Each check is a small request to etcd, from each process about each member, so its cost
    /// grows with both: see [`check_rate`](Self::check_rate). Rule of thumb: `All` in clusters of up
    /// to some hundred; in larger ones `Silent` in most processes. Where all members are Headcount's
    /// that costs no request; but nobody is suspected, and a crash is told as `unknown`, and 600 ms
    /// later, for it was not seen to come.
    pub fn check(mut self, whom: Check) -> Self {
        self.settings.check = whom;
        self
    }

    /// How many requests a second checking may cost etcd, at most (50), for this process.
    ///
    /// Each lease is looked at about ten times in its TTL, and less often where there are too many
    /// for that. Telling a leave from a crash, for members that say nothing, takes a look each
    /// 2/3 TTL − 1.3 s; so at this rate it can be told for up to rate × (2/3 TTL − 1.3 s) members:
    /// at 50 for some 270 with a TTL of 10 s, 1,900 with 60 s. All processes together should stay
    /// below what etcd can spare, some thousand a second. Symptom of too low: `oldest_check` in the
    /// statistics above that bound; ends that become `unknown` (never a wrong reason), and suspicion
    /// that comes late.
    pub fn check_rate(mut self, per_second: u32) -> Self {
        self.settings.check_rate = per_second;
        self
    }

    /// How long the departure of a member whose key went without a word may wait for etcd's answer
    /// whether its lease lives on (200 ms; zero: it never asks).
    ///
    /// Only that member's events wait. Rule of thumb: ten round trips. Symptom of too short: keys
    /// deleted by hand are told as `ServerDown unknown`, and revoked leases as `deregistered`.
    pub fn verdict_timeout(mut self, limit: Duration) -> Self {
        self.settings.verdict_timeout = limit;
        self
    }

    /// Which part of the members, lost at once with their leases, makes a
    /// [mass loss](crate::Event::MassLoss): more than this (0.5), and at least four members.
    ///
    /// Symptom of too small: the end of a rack is told `mass_loss_hold` late.
    pub fn mass_loss_share(mut self, share: f64) -> Self {
        self.settings.mass_loss_share = share;
        self
    }

    /// How long the departures of a mass loss are held (5 s; zero turns it off).
    ///
    /// etcd has lost leases whose owners lived (in versions before 3.4.31 and 3.5.13), and a cut
    /// between it and the servers looks the same. Who is back within this time as the same process
    /// is told as `UpdateMember`, not as a death. To tell a mass from a single loss takes 600 ms:
    /// so long the departure of a member of Headcount waits that vanished unexpectedly, that is
    /// without having been late before. Of a mass that takes longer, those who went first are told.
    ///
    /// Turn it off where a death must be told as soon as possible, and listeners bear it if
    /// everybody goes and comes back; as where whole racks do die, and their work has to be taken
    /// over at once.
    pub fn mass_loss_hold(mut self, limit: Duration) -> Self {
        self.settings.mass_loss_hold = limit;
        self
    }

    // ---- what to see

    /// See only members of this type; call it once for each wanted type. Oneself is always seen.
    /// Default: all.
    pub fn only_type(mut self, server_type: impl Into<String>) -> Self {
        self.settings.only_types.push(server_type.into());
        self
    }

    /// Do not see members of this type; call it once for each. Oneself is always seen. What is
    /// left out here costs no memory; to leave out for one listener only, use
    /// [`Options::only_type`](crate::Options::only_type).
    pub fn except_type(mut self, server_type: impl Into<String>) -> Self {
        self.settings.except_types.push(server_type.into());
        self
    }

    // ---- times

    /// How long one endpoint may take to be resolved, connected to (TLS included) and, if there are
    /// others to try, to answer (1 s). The watch takes at most 1/16 of `stall_bound` to connect, or a
    /// hang would not be noticed in time.
    ///
    /// Rule of thumb: ten round trips. Symptom of too short: [`Error::Timeout`] naming it while
    /// etcd is well; of too long: a dead endpoint holds up every rotation, and leaving, for that
    /// long.
    pub fn connect_timeout(mut self, limit: Duration) -> Self {
        self.settings.connect_timeout = limit;
        self
    }

    /// How long a request may take altogether, all endpoints included (3 s; at most 9/10 of
    /// `stall_bound`). A keepalive gets TTL/3 instead.
    ///
    /// An etcd without leader answers after some 1–2.5 s: shorter than that turns every election
    /// into errors in the log.
    pub fn request_timeout(mut self, limit: Duration) -> Self {
        self.settings.request_timeout = limit;
        self
    }

    /// Within what time a hung etcd, a black hole or a dead watch is noticed (10 s).
    ///
    /// etcd is asked to end the watch stream after half of it, and it is opened anew on the same
    /// connection; so each process costs etcd two small requests per bound. Rule of thumb: how
    /// stale a view may be before you want to know. Symptom of too short: `StoreLost` while etcd
    /// is merely slow.
    pub fn stall_bound(mut self, limit: Duration) -> Self {
        self.settings.stall_bound = limit;
        self
    }

    /// How often the view is compared with etcd's keys (60 s, less up to a tenth at random).
    ///
    /// It matters when etcd itself loses a watch event, as old versions did around compactions; after
    /// a reconnect it is done within half a `stall_bound`, for a wiped etcd may look as before. It
    /// reads keys without values. Symptom of too long: ghosts for that long after
    /// such a loss; of too short: load on etcd that grows with the square of the cluster.
    pub fn reconcile_interval(mut self, interval: Duration) -> Self {
        self.settings.reconcile_interval = interval;
        self
    }

    /// Bounds of the waits between tries (100 ms, growing to 5 s), each a random part of its bound.
    ///
    /// Symptom of too short: a restarting etcd is stormed; of too long: it is back for that long
    /// before it is noticed.
    pub fn backoff(mut self, first: Duration, longest: Duration) -> Self {
        self.settings.backoff = (first, longest);
        self
    }

    /// How long [`start`](Self::start) waits for the first listing, and for the registration
    /// (10 s).
    pub fn start_timeout(mut self, limit: Duration) -> Self {
        self.settings.start_timeout = limit;
        self
    }

    /// Start at once, whether or not etcd is there, and converge as soon as it is: `Synced` and
    /// `Registered` tell when. By default `start` waits, and fails.
    pub fn start_without_store(mut self) -> Self {
        self.settings.start_without_store = true;
        self
    }

    /// How long telling the others that we leave may take (1 s). If etcd does not answer by then,
    /// they find out when the lease runs out.
    pub fn leave_timeout(mut self, limit: Duration) -> Self {
        self.settings.leave_timeout = limit;
        self
    }

    /// How long, at the end, listeners that lag may take what waits for them, and again how long
    /// handlers may be at work (500 ms). The thread of one that is still busy then is left to end
    /// when its call returns.
    pub fn drain_timeout(mut self, limit: Duration) -> Self {
        self.settings.drain_timeout = limit;
        self
    }

    // ---- limits

    /// The largest value taken for a member (64 KiB). Larger ones are skipped and counted.
    pub fn max_value_bytes(mut self, bytes: usize) -> Self {
        self.settings.max_value_bytes = bytes;
        self
    }

    /// The largest reply or frame taken from etcd (16 MiB; at least twice `max_value_bytes`).
    ///
    /// A frame holds all of a revision, or, when a connection catches up, of up to 1,000 revisions: 4/3
    /// of their values' bytes, and some 250 a change. One that does not fit, or does not come within
    /// 7/10 of the stall bound, is made up for by a listing; listings come in pages, which are made
    /// smaller when one does not fit. Symptom of too small: [`Error::TooLarge`], `oversized` growing
    /// in the statistics.
    pub fn max_frame_bytes(mut self, bytes: usize) -> Self {
        self.settings.max_frame_bytes = bytes;
        self
    }

    /// The most members taken into the view (100,000). Further ones are skipped and counted, until
    /// there is room; oneself never is, and takes no room.
    pub fn max_members(mut self, members: usize) -> Self {
        self.settings.max_members = members;
        self
    }

    /// Checks the settings and starts the threads; by default waits until the view is complete and,
    /// for a member, until it is registered and in it.
    ///
    /// Blocks for `start_timeout` at most, and a little for the clean-up where it fails.
    ///
    /// # Errors
    /// [`Error::Setting`] where a value makes no sense. [`Error::StartTimeout`] with the last cause
    /// when it is not ready in time. At once, without waiting, what no waiting can mend:
    /// [`Error::WrongPassword`], [`Error::CredentialsNeeded`], [`Error::PermissionDenied`],
    /// [`Error::WrongScheme`], [`Error::NotAGateway`], [`Error::Tls`],
    /// [`Error::CertificateWithName`], [`Error::Conflict`]; and [`Error::Thread`] if the system gives
    /// no thread. After an error nothing is left running.
    pub fn start(self) -> Result<Cluster, Error> {
        Cluster::start(self.settings)
    }
}
