//! Good histories, made by a small generator: what a perfect Headcount would tell.
//!
//! * [`members`]: what happens to a member, in etcd and to its listeners.
//! * [`steps`]: one random step.
//! * [`losses`]: etcd out of reach, and back; or wiped.
//! * [`ear`]: one listener: deaf, slow, or made to wait.
//! * [`answers`]: what queries answer.

mod answers;
mod ear;
mod losses;
mod members;
mod steps;

use std::collections::BTreeMap;

use self::ear::Ear;
use crate::history::{Act, At, Change, Deed, Epoch, History, Log, Nanos, Seen, Told};
use crate::support::random::Random;

const MS: Nanos = 1_000_000;
/// So late everything is told.
const LAG: Nanos = 2 * MS;
pub const TTL: Nanos = 3_000 * MS;

#[derive(Clone)]
struct Member {
    seen: Seen,
    value: String,
    lease: i64,
}

struct Maker {
    dice: Random,
    at: Nanos,
    revision: i64,
    serial: u64,
    calm_since: Nanos,
    history: History,
    members: BTreeMap<String, Member>,
    notes: BTreeMap<(String, i64), &'static str>,
    ears: Vec<Ear>,
}

/// Which listener is which in [`good`]'s logs.
pub const FAST: usize = 0;
pub const SLOW: usize = 1;
pub const CUT: usize = 2;
pub const LATE: usize = 3;

/// Whether etcd loses everything in the end.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Wipe {
    Never,
    AtRest,
    /// Departures of before are told after what the new epoch brings.
    WhileSomeWait,
}

/// A good history of so many random steps.
pub fn good(seed: u64, steps: u64, wipe: Wipe) -> History {
    let mut maker = Maker::new(seed);
    for n in 0..6 {
        maker.join(&format!("t/{n}"));
    }
    maker.listen("fast", "h1", |log| log.fast = true);
    maker.listen("slow", "h1", |_| {});
    maker.listen("cut", "h2", |_| {});
    for step in 0..steps {
        match step * 10 / steps {
            2 | 5 if !maker.ears[SLOW].deaf => maker.ears[SLOW].deaf = true,
            3 | 6 if maker.ears[SLOW].deaf => maker.unfold(SLOW),
            _ => {}
        }
        if step == steps / 2 {
            maker.listen("late", "h1", |_| {});
        }
        if step == steps * 7 / 10 {
            maker.lose(CUT);
        }
        if step == steps * 8 / 10 {
            maker.find(CUT);
        }
        maker.step();
        maker.ask();
    }
    maker.unfold(SLOW);
    if wipe == Wipe::WhileSomeWait {
        maker.leave_unjudged();
    }
    if wipe != Wipe::Never {
        maker.wipe();
        for step in 0..steps / 4 {
            if step == 5 {
                maker.release_all();
            }
            maker.step();
        }
    }
    maker.at += 200 * MS;
    maker.ask();
    maker.end()
}

impl Maker {
    fn new(seed: u64) -> Maker {
        let mut history = History::default();
        history.truth.prefix = "pitaya/".into();
        history.truth.epochs = vec![Epoch {
            cluster_id: 1,
            ..Epoch::default()
        }];
        history.deeds.complete = true;
        history.bounds.ttl = TTL;
        history.bounds.slack = 20 * MS;
        history.bounds.delivery = 100 * MS;
        Maker {
            dice: Random(seed),
            at: 1_000_000 * MS,
            revision: 1,
            serial: 0,
            calm_since: 0,
            history,
            members: BTreeMap::new(),
            notes: BTreeMap::new(),
            ears: Vec::new(),
        }
    }

    fn listen(&mut self, listener: &str, handle: &str, more: impl FnOnce(&mut Log)) {
        let mut log = Log {
            listener: listener.into(),
            handle: handle.into(),
            initial: true,
            settled: true,
            relists: Some(0),
            ..Log::default()
        };
        more(&mut log);
        let mut ear = Ear::new(log);
        for member in self.members.values() {
            ear.tell(self.at, Told::Added(member.seen.clone()));
        }
        ear.tell(self.at, Told::Synced);
        self.ears.push(ear);
    }

    fn tell(&mut self, told: Told) {
        let at = self.at + LAG;
        for ear in &mut self.ears {
            ear.tell(at, told.clone());
        }
    }

    fn own(&mut self, name: &str, told: Told) {
        let log = self.history.logs.iter_mut().find(|l| l.handle == name);
        let log = match log {
            Some(log) => log,
            None => {
                let log = Log {
                    listener: "own".into(),
                    handle: name.into(),
                    own: Some(name.into()),
                    relists: Some(0),
                    ..Log::default()
                };
                self.history.logs.push(log);
                self.history.logs.last_mut().expect("was just pushed")
            }
        };
        let at = self.at;
        log.entries.push(At { at, what: told });
    }

    fn done(&mut self, deed: Deed) {
        let at = self.at;
        self.history.deeds.all.push(At { at, what: deed });
    }

    fn change(&mut self, key: String, act: Act) {
        let (revision, at) = (self.revision, self.at);
        let epoch = self.history.truth.epochs.last_mut().expect("one");
        epoch.read_to = revision;
        epoch.changes.push(Change {
            revision,
            at,
            key,
            act,
        });
    }

    fn next(&mut self) {
        self.revision += 1;
        self.at += (1 + self.dice.below(20)) * MS;
    }

    fn end(mut self) -> History {
        let calm = (self.calm_since, self.at);
        self.history.bounds.calm.push(calm);
        let own = std::mem::take(&mut self.history.logs);
        let logs = self.ears.into_iter().map(|ear| ear.log);
        self.history.logs = logs.chain(own).collect();
        self.history
    }
}
