//! Known bugs, to be switched on one at a time: what the checks are worth. They are made in the
//! wiring, by what goes into the code under test and what comes out of it.

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Bug {
    /// A stream is resumed after the revision that a header carried.
    ResumeAtHeader,
    /// After a compaction nothing is listed; the stream goes on after it.
    SkipRelist,
    /// A listing still shows who has gone meanwhile.
    ListingWithoutDepartures,
    /// A reconcile never finds anything.
    BlindReconcile,
    /// The events of a response come backwards.
    BackwardsResponse,
    /// Gone notes are not read.
    NotesUnread,
    /// Whatever is not explained was an expired lease.
    AlwaysExpired,
    /// Etcd is said to know each lease that it is asked about when a key is gone.
    AlwaysAlive,
    /// Leases are thought to have less left than they have.
    ShortLooks,
    /// The word of a leader that has lost its lead is taken for a renewal.
    ForEver,
    /// What is held is never let go of.
    HoldNeverEnds,
    /// The flusher is not told that somebody lags.
    ForgottenWake,
    /// What finds a full channel is dropped.
    DropWhenFull,
    /// A restart is told without the departure of the old life.
    RestartWithoutDeparture,
    /// An addition is told twice.
    DoubleAdd,
    /// Changes of one member are told in the wrong order.
    SwappedChanges,
    /// Losing etcd is taken for the members' end.
    DownOnLoss,
    /// A silent stream is waited for for ever.
    SilentStall,
}

impl Bug {
    /// All, and the guarantees one of which has to be named.
    pub const ALL: [(Bug, &'static [&'static str]); 18] = [
        (Bug::ResumeAtHeader, &["G1"]),
        (Bug::SkipRelist, &["G1"]),
        (Bug::ListingWithoutDepartures, &["G1", "G2"]),
        (Bug::BlindReconcile, &["G1"]),
        (Bug::BackwardsResponse, &["G1", "G2", "G6"]),
        (Bug::NotesUnread, &["G6"]),
        (Bug::AlwaysExpired, &["G6"]),
        (Bug::AlwaysAlive, &["G6"]),
        (Bug::ShortLooks, &["G6"]),
        (Bug::ForEver, &["G6"]),
        (Bug::HoldNeverEnds, &["G5"]),
        (Bug::ForgottenWake, &["G5"]),
        (Bug::DropWhenFull, &["G3", "G5"]),
        (Bug::RestartWithoutDeparture, &["G3"]),
        (Bug::DoubleAdd, &["G3"]),
        (Bug::SwappedChanges, &["G2", "G3"]),
        (Bug::DownOnLoss, &["G7"]),
        (Bug::SilentStall, &["G9"]),
    ];
}
