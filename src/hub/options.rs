//! What a listener wants to hear.

use crate::event::Event;

/// Options of a subscription; see [`Cluster::subscribe_with`](crate::Cluster::subscribe_with).
#[derive(Debug, Clone)]
pub struct Options {
    pub(crate) name: String,
    pub(super) capacity: usize,
    pub(super) types: Vec<Box<str>>,
    pub(super) initial: bool,
    pub(super) others_only: bool,
}

impl Options {
    /// Everything about everybody, beginning with who is there.
    pub fn new() -> Self {
        Options {
            name: String::new(),
            capacity: 1024,
            types: Vec::new(),
            initial: true,
            others_only: false,
        }
    }

    /// A name for statistics, logs, and the handler's thread. Default: none.
    pub fn name(mut self, name: impl Into<String>) -> Self {
        self.name = name.into();
        self
    }

    /// How many events the channel holds (1024; what is below 1 or above 1,000,000 counts as that).
    /// When it is full the listener lags: what waits is folded per member, so nothing is lost but
    /// the steps in between.
    ///
    /// Rule of thumb: the most changes that come while the handler is busy with one event. Symptom
    /// of too small: `Lagged` events, `folded` growing in the statistics. Too large costs memory
    /// (some 70 bytes a place, whether used or not) and lets a slow handler act on old news.
    pub fn capacity(mut self, events: usize) -> Self {
        self.capacity = events.clamp(1, 1_000_000);
        self
    }

    /// Only members of this type; call it once for each wanted type. Events that are about no
    /// member (`Synced`, `StoreLost`, …) always come. Default: all types.
    pub fn only_type(mut self, server_type: impl Into<String>) -> Self {
        self.types.push(server_type.into().into());
        self
    }

    /// Whether to be told first of everybody who is there (true). Without it nobody is told before
    /// `Synced`, and later there are departures, updates and suspicions of members the listener was
    /// never told had joined.
    pub fn initial(mut self, told: bool) -> Self {
        self.initial = told;
        self
    }

    /// Leave out this process' own membership: its own `AddMember` and departures. `Registered`,
    /// `Lost` and `Displaced` still come.
    pub fn others_only(mut self) -> Self {
        self.others_only = true;
        self
    }

    pub(super) fn admits(&self, event: &Event, own: Option<&str>) -> bool {
        let Some(member) = event.member() else {
            return true;
        };
        let wanted =
            self.types.is_empty() || self.types.iter().any(|t| **t == *member.server_type());
        wanted && !(self.others_only && own == Some(member.name()))
    }
}

impl Default for Options {
    fn default() -> Self {
        Options::new()
    }
}
