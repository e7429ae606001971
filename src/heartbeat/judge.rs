//! Whom to look at next, and who is late. Pure: it is told the time, and what etcd said.
//!
//! Enforced here: **G6 Truthful**. Nobody is suspected for *our* troubles: not while etcd is out of
//! reach, nor before a renewal was due after it came back, nor when we were late ourselves.

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::subject::{Health, LAG, Subject};
use super::verdict::{Finding, is_silent};
use super::window::{Ended, Observation};
use crate::etcd::TimeToLive;
use crate::event::{Event, Evidence};
use crate::member::Member;
use crate::settings::Check;
use crate::stats::Why;

/// Waking up so much later than planned, we may have been held up like those we look at.
const LATE: Duration = Duration::from_millis(250);
/// An answer that takes so long says more of the way than of the lease.
const SLOW: Duration = Duration::from_secs(1);
/// Newcomers are looked at within this.
const NEW: Duration = Duration::from_millis(100);
/// What is left of a second's requests may be used up at once by questions, and no more.
const DEBT: Duration = Duration::from_secs(1);
/// A leader that stood still while another was elected may, once it goes on, end leases that the
/// election has renewed: nobody's leaving. So long after an election it may still come.
const OLD_LEADER: Duration = Duration::from_secs(60);

/// What to do now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Next {
    Look(i64),
    Wait(Option<Instant>),
}

/// What a look has shown.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Shown {
    Lease(TimeToLive),
    /// It is unknown to the etcd of that cluster.
    Gone {
        cluster: u64,
    },
    /// It does not know yet that the key is gone.
    Behind,
    /// Nothing: etcd did not answer.
    Nothing,
}

/// A change in what is thought of a member.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Doubt {
    pub name: Box<str>,
    /// `None`: it is well again.
    pub evidence: Option<Evidence>,
}

impl Doubt {
    pub fn event(self, member: Arc<Member>) -> Event {
        match self.evidence {
            Some(evidence) => Event::Suspect { member, evidence },
            None => Event::Cleared { member },
        }
    }
}

#[derive(Debug)]
pub(crate) struct Judge {
    whom: Check,
    /// This process: it knows its own lease.
    own: Option<Box<str>>,
    /// Between two requests.
    pace: Duration,
    /// Boxed: there may be 100,000, and the table grows by doubling.
    subjects: HashMap<i64, Box<Subject>>,
    /// By when a look is worth it.
    waiting: BTreeSet<(Instant, i64)>,
    /// Those for which it is, by when it has to be.
    ready: BTreeSet<(Instant, i64)>,
    /// When the next request may go.
    slot: Instant,
    /// When we had meant to wake up.
    planned: Option<Instant>,
    health: Health,
    reachable: bool,
    /// The election that etcd has its leader from, as far as is known.
    term: u64,
    /// The etcd cluster that this is of.
    cluster: Option<u64>,
    /// The revision that its last answer was of, and when it was asked: by the time that the answer
    /// came, etcd may have been far beyond it.
    revision: Option<(i64, Instant)>,
    overdue: usize,
}

impl Judge {
    pub fn new(whom: Check, rate: u32, own: Option<Box<str>>, now: Instant) -> Self {
        Judge {
            whom,
            own,
            pace: Duration::from_secs(1) / rate.max(1),
            subjects: HashMap::new(),
            waiting: BTreeSet::new(),
            ready: BTreeSet::new(),
            slot: now,
            planned: None,
            health: Health::default(),
            reachable: true,
            term: 0,
            cluster: None,
            revision: None,
            overdue: 0,
        }
    }

    /// Whether its silent end is judged by its lease.
    fn covers(&self, member: &Member) -> bool {
        match self.whom {
            Check::All => true,
            Check::Silent => is_silent(member),
            Check::Nobody => false,
        }
    }

    /// How many leases are watched, how many are overdue, and how long ago the one was looked at
    /// that waits longest.
    pub fn counts(&self, now: Instant) -> (usize, usize, Option<Duration>) {
        let seen = self.subjects.values().filter_map(|s| s.seen.as_ref());
        let oldest = seen.map(|seen| seen.window.last.answered).min();
        let age = oldest.map(|at| now.saturating_duration_since(at));
        (self.subjects.len(), self.overdue, age)
    }

    /// How many leases were not renewed in time, when last looked at.
    pub fn overdue(&self) -> usize {
        self.overdue
    }

    // ---- whom

    /// A member is there, or its key has moved to this lease. True: the checker is to be woken.
    pub fn track(&mut self, member: &Member, now: Instant, fraction: f64) -> bool {
        let lease = member.lease();
        if lease == 0 || !self.covers(member) || self.own.as_deref() == Some(member.name()) {
            return false;
        }
        if let Some(subject) = self.subjects.get_mut(&lease) {
            subject.names.insert(member.name());
            return false;
        }
        let due = now + NEW.mul_f64(fraction);
        let subject = Subject::new(member.name(), due);
        self.subjects.insert(lease, Box::new(subject));
        self.waiting.insert((due, lease));
        self.planned.is_none_or(|planned| due < planned)
    }

    /// A member is gone, or its key has moved away from this lease.
    pub fn untrack(&mut self, lease: i64, name: &str) {
        let Some(subject) = self.subjects.get_mut(&lease) else {
            return;
        };
        subject.names.remove(name);
        if subject.names.is_empty() {
            let subject = self.subjects.remove(&lease).expect("was just there");
            self.overdue -= usize::from(subject.is_overdue());
            self.waiting.remove(&(subject.due, lease));
            self.ready.remove(&(subject.deadline, lease));
        }
    }

    /// The member's key was deleted without a word at that revision, and we see it at `now`.
    pub fn finding(&self, member: &Member, revision: i64, now: Instant) -> Finding {
        if !self.covers(member) {
            return Finding::Unwatched;
        }
        let subject = self.subjects.get(&member.lease());
        match subject.and_then(|subject| subject.seen.as_ref()) {
            // The lease may have been found gone before the news came to us.
            Some(seen) => {
                let at = seen.gone.map_or(now, |gone| gone.min(now));
                let ended = seen.window.ended(at);
                let last = &seen.window.last;
                Finding::Seen(match self.holds(ended, at, revision, last) {
                    true => ended,
                    false => Ended::Unclear,
                })
            }
            None => Finding::Unseen,
        }
    }

    /// G6: an election gives every lease its whole time, whatever was seen of it before. So who ran
    /// out was seen to have little left since the last election, or silence of etcd, that may hide
    /// one. And who went early, so soon after one, may be an old leader's doing.
    ///
    /// News may come late: a lease that was still there after the key was gone has not taken it
    /// along, though it may have run out since.
    fn holds(&self, ended: Ended, at: Instant, revision: i64, last: &Observation) -> bool {
        let Health {
            elected, shaken, ..
        } = self.health;
        match ended {
            Ended::Early => {
                elected.is_none_or(|elected| at >= elected + last.granted.max(OLD_LEADER))
            }
            Ended::RanOut => {
                shaken.is_none_or(|shaken| last.sent >= shaken) && last.after < revision
            }
            Ended::Unclear => true,
        }
    }

    /// Why a member on that lease is suspected, if it is. Who is not watched never is: nobody could
    /// say when it is over.
    pub fn suspicion(&self, lease: i64, name: &str) -> Option<Evidence> {
        let subject = self.subjects.get(&lease)?;
        let suspected = subject.suspected.as_ref()?;
        subject.names.has(name).then_some(suspected.evidence)
    }

    // ---- when

    pub fn next(&mut self, now: Instant) -> Next {
        if let Some(planned) = self.planned.take() {
            if now > planned + LATE {
                self.trouble();
            }
        }
        while let Some((due, lease)) = self.waiting.first().copied() {
            if due > now {
                break;
            }
            self.waiting.pop_first();
            let subject = &self.subjects[&lease];
            self.ready.insert((subject.deadline, lease));
        }
        let wait = match (self.ready.first(), self.waiting.first()) {
            (Some(_), _) if self.slot <= now => {
                let (_, lease) = self.ready.pop_first().expect("was just there");
                self.spend(now);
                return Next::Look(lease);
            }
            (Some(_), _) => Some(self.slot),
            (None, Some((due, _))) => Some((*due).max(self.slot)),
            (None, None) => None,
        };
        self.planned = wait;
        Next::Wait(wait)
    }

    /// A request is about to go, on top of the looks: they wait for it.
    pub fn spend(&mut self, now: Instant) {
        self.slot = (self.slot.max(now) + self.pace).min(now + DEBT);
    }

    /// Whether etcd is within reach, for those who watch.
    pub fn store(&mut self, reachable: bool) {
        self.reachable = reachable;
        self.trouble();
    }

    /// Something was wrong with etcd, the way there, or us.
    pub fn trouble(&mut self) {
        self.health.sound_since = None;
    }

    /// What comes now is of that etcd, listed anew because of this.
    pub fn listed(&mut self, cluster: u64, why: Why, now: Instant) {
        // G6: in another one, leases have their whole time, whatever was seen of them before.
        if why.doubts_store() || self.cluster.is_some_and(|known| known != cluster) {
            self.health.shaken = Some(now);
        }
        if why.doubts_store() {
            // Its terms need not compare, either.
            self.term = 0;
        }
    }

    // ---- what was seen

    /// Whether etcd has another leader than before, or is about to, or is another etcd. A node that
    /// lags behind may still tell of an older election.
    fn is_elected(&self, found: &TimeToLive) -> bool {
        found.by_election || found.term > self.term || self.cluster != Some(found.cluster)
    }

    /// What a look shows has come after this revision. A node may for a moment say more of itself
    /// than of the lease, which the leader knows: so it is where etcd was just before it was asked,
    /// if that is known.
    fn after(&mut self, shown: &Shown, sent: Instant) -> i64 {
        let Shown::Lease(found) = shown else {
            return 0;
        };
        let same = self.cluster == Some(found.cluster);
        match self.revision.replace((found.revision, sent)) {
            Some((known, asked)) if same && sent <= asked + LAG => known.min(found.revision),
            _ => found.revision,
        }
    }

    /// The answer to a look: whom to suspect, and whom no longer.
    pub fn shown(
        &mut self,
        lease: i64,
        shown: Shown,
        sent: Instant,
        answered: Instant,
        fraction: f64,
    ) -> Vec<Doubt> {
        let after = self.after(&shown, sent);
        match shown {
            Shown::Nothing => {
                self.health.shaken = Some(answered);
                self.trouble();
            }
            Shown::Lease(found) if self.is_elected(&found) => {
                let known = self.cluster == Some(found.cluster);
                // An election renews every lease.
                if known || found.by_election {
                    self.health.elected = Some(answered);
                }
                self.health.shaken = Some(sent);
                if !known || found.term > self.term {
                    (self.cluster, self.term) = (Some(found.cluster), found.term);
                }
                self.health.sound_since = Some(sent);
            }
            _ if answered.saturating_duration_since(sent) > SLOW => self.trouble(),
            _ => {
                self.health.sound_since.get_or_insert(sent);
            }
        }
        if !self.reachable {
            self.trouble();
        }
        // We mean to go on at once.
        self.planned = Some(answered);
        let health = self.health;
        let Some(subject) = self.subjects.get_mut(&lease) else {
            return Vec::new();
        };
        self.waiting.remove(&(subject.due, lease));
        self.ready.remove(&(subject.deadline, lease));
        let was_overdue = subject.is_overdue();
        let mut doubts = Vec::new();
        match shown {
            Shown::Lease(found) => {
                let seen = Observation::new(found, after, sent, answered);
                if let Some(evidence) = subject.look(seen, fraction, &health) {
                    for name in subject.names.iter() {
                        let name = name.into();
                        doubts.push(Doubt { name, evidence });
                    }
                }
            }
            Shown::Gone { cluster } if self.cluster == Some(cluster) => subject.is_gone(answered),
            // G6: what a wiped etcd does not know proves nothing.
            Shown::Gone { .. } | Shown::Behind | Shown::Nothing => {
                subject.unknown(answered, fraction)
            }
        }
        self.overdue += usize::from(subject.is_overdue());
        self.overdue -= usize::from(was_overdue);
        self.waiting.insert((subject.due, lease));
        doubts
    }
}
