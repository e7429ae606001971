//! What was counted, and how things stand.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

pub use crate::roster::SkippedCounts;

/// A snapshot of the counters of one [`Cluster`](crate::Cluster). Counts are since the start.
#[derive(Debug, Clone, Default)]
#[non_exhaustive]
pub struct Stats {
    /// Members in the view now.
    pub members: usize,
    /// etcd's revision that the view stands at.
    pub revision: i64,
    /// How long ago etcd last confirmed the view; `None` before the first listing.
    pub view_age: Option<Duration>,
    /// Whether etcd is within reach.
    pub store_reachable: bool,
    /// Events that the view has gone through, whoever listened.
    pub events: u64,
    /// What was passed over as not being a member.
    pub skipped: SkippedCounts,
    /// Full listings, by reason.
    pub relists: Relists,
    /// Watch streams opened after one had failed.
    pub reconnects: u64,
    /// How often etcd was lost.
    pub store_losses: u64,
    /// How long ago the last keepalive that succeeded was sent; `None` for an observer, or before
    /// the first.
    pub keepalive_age: Option<Duration>,
    /// How often this process was registered.
    pub registrations: u64,
    /// How often its registration was lost, or doubtful.
    pub registration_losses: u64,
    /// Leases of others that are watched.
    pub checked: usize,
    /// Of these, how many were not renewed in time when last looked at.
    pub overdue: usize,
    /// How long ago the lease was looked at that waits longest for its next check: how far apart
    /// checks are. `None` where none was.
    pub oldest_check: Option<Duration>,
    /// Requests made to check the others' leases.
    pub checks: u64,
    /// Of these, how many failed.
    pub checks_failed: u64,
    /// How often many members vanished at once.
    pub mass_losses: u64,
    /// Members that are gone but not yet told to be: held in a mass loss, or about to be judged.
    pub held: usize,
    /// Panics in handlers, caught.
    pub handler_panics: u64,
    /// The listeners, in the order of their subscription.
    pub listeners: Vec<ListenerStats>,
}

/// Why everything was listed anew, and how often.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Relists {
    /// The first listing.
    pub first: u64,
    /// The revision to resume from was compacted away.
    pub compacted: u64,
    /// etcd's revision went back: it was wiped or restored.
    pub went_back: u64,
    /// The answers came from another etcd cluster.
    pub cluster_changed: u64,
    /// A reconcile found that etcd's stream had lost something.
    pub lost_events: u64,
    /// A reconcile found that there is room for members that were beyond `max_members`.
    pub room: u64,
    /// Others write so much beside our quiet prefix that resuming had become dear for etcd.
    pub behind: u64,
    /// A response was larger than `max_frame_bytes`, or was not whole in time.
    pub oversized: u64,
    /// The watch stream brought something that could not be understood.
    pub unreadable: u64,
}

/// One listener's queue.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct ListenerStats {
    /// The name given at subscription.
    pub name: String,
    /// Capacity of its channel.
    pub capacity: usize,
    /// Events that wait for it now, in its channel and behind it.
    pub depth: u64,
    /// Events that were put into its channel.
    pub delivered: u64,
    /// Events that it was spared because it was slow.
    pub folded: u64,
}

/// Why everything is listed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Why {
    First,
    Compacted,
    WentBack,
    ClusterChanged,
    LostEvents,
    Oversized,
    Unreadable,
    Behind,
    Room,
}

impl Why {
    /// Whether etcd may be another, under the same id: wiped or restored.
    pub fn doubts_store(self) -> bool {
        matches!(self, Why::LostEvents | Why::WentBack)
    }
}

/// Counters that the threads write and [`Stats`] reads.
#[derive(Debug, Default)]
pub(crate) struct Counters {
    relists: [AtomicU64; 9],
    pub reconnects: AtomicU64,
    pub registrations: AtomicU64,
    pub registration_losses: AtomicU64,
    pub handler_panics: AtomicU64,
    pub checks: AtomicU64,
    pub checks_failed: AtomicU64,
}

impl Counters {
    pub fn relist(&self, why: Why) {
        add(&self.relists[why as usize]);
    }

    pub fn fill(&self, stats: &mut Stats) {
        let relists = |why: Why| get(&self.relists[why as usize]);
        stats.relists = Relists {
            first: relists(Why::First),
            compacted: relists(Why::Compacted),
            went_back: relists(Why::WentBack),
            cluster_changed: relists(Why::ClusterChanged),
            lost_events: relists(Why::LostEvents),
            room: relists(Why::Room),
            oversized: relists(Why::Oversized),
            behind: relists(Why::Behind),
            unreadable: relists(Why::Unreadable),
        };
        stats.reconnects = get(&self.reconnects);
        stats.registrations = get(&self.registrations);
        stats.registration_losses = get(&self.registration_losses);
        stats.checks = get(&self.checks);
        stats.checks_failed = get(&self.checks_failed);
        stats.handler_panics = get(&self.handler_panics);
    }
}

pub(crate) fn add(counter: &AtomicU64) {
    counter.fetch_add(1, Ordering::Relaxed);
}

fn get(counter: &AtomicU64) -> u64 {
    counter.load(Ordering::Relaxed)
}
