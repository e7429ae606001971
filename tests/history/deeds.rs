//! What was really done: to members, to etcd, and to the way there.

use super::{At, Nanos};
use serde::{Deserialize, Serialize};

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Deeds {
    /// In the order of time; each is entered *before* it is done, and what mends something after.
    pub all: Vec<At<Deed>>,
    /// Everything that was done to members is in here: what is not, was not done.
    pub complete: bool,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum Deed {
    Started {
        name: String,
        pid: u32,
    },
    /// SIGKILL.
    Killed {
        name: String,
    },
    /// SIGTERM.
    Terminated {
        name: String,
    },
    /// SIGSTOP.
    Stopped {
        name: String,
    },
    /// SIGCONT.
    Continued {
        name: String,
    },
    /// A stranger deleted the member's key, its lease lives on.
    KeyDeleted {
        name: String,
    },
    LeaseRevoked {
        name: String,
        lease: i64,
    },
    /// Stopped, killed or paused.
    EtcdDown {
        node: usize,
    },
    EtcdUp {
        node: usize,
    },
    /// Connections cut, refused, delayed or swallowed.
    Cut {
        whom: Whom,
    },
    /// The way there is as it should be.
    Healed {
        whom: Whom,
    },
    Compacted {
        revision: i64,
    },
    Wiped,
}

impl Deed {
    /// Whether somebody takes the member's key or lease.
    pub fn throws_out(&self, name: &str) -> bool {
        match self {
            Deed::KeyDeleted { name: n } | Deed::LeaseRevoked { name: n, .. } => n == name,
            _ => false,
        }
    }
}

/// Whose way to etcd it is.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum Whom {
    Everybody,
    /// Members and handles, by name.
    These(Vec<String>),
}

impl Whom {
    pub fn includes(&self, name: &str) -> bool {
        match self {
            Whom::Everybody => true,
            Whom::These(names) => names.iter().any(|n| n == name),
        }
    }
}

impl Deeds {
    pub fn add(&mut self, deed: Deed) {
        let at = super::now();
        self.all.push(At { at, what: deed });
    }

    pub fn between(&self, from: Nanos, to: Nanos) -> impl Iterator<Item = &At<Deed>> {
        let within = move |deed: &&At<Deed>| from <= deed.at && deed.at <= to;
        self.all.iter().filter(within)
    }
}
