//! The way to etcd: endpoints that lag, refuse, or swallow everything; answers that take their time
//! or never come.

use super::dice::Dice;
use super::store::{Ms, Store};

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mode {
    Pass,
    Refuse,
    /// Nothing comes through; what was on its way comes when it passes again.
    Swallow,
}

pub struct Endpoint {
    pub mode: Mode,
    /// So far its node is behind the leader.
    pub lag: Ms,
}

pub struct Network {
    pub endpoints: Vec<Endpoint>,
    /// Bound of the time that a message takes.
    pub slowness: Ms,
    /// Grows when connections are cut: streams opened before are dead.
    pub cuts: u64,
    /// Events that etcd's streams lose, in a thousand responses.
    pub lossy: u64,
}

/// A request on its way.
#[derive(Debug, Clone, Copy)]
pub struct Trip {
    pub sent: Ms,
    /// When etcd answers, and when that is here.
    pub seen: Ms,
    pub done: Ms,
    /// Who answers; `None`: nobody, and at `done` that is clear.
    pub by: Option<usize>,
}

impl Network {
    pub fn new(dice: &mut Dice) -> Self {
        let count = dice.of(&[1, 1, 2, 3]);
        let endpoint = |lag| Endpoint {
            mode: Mode::Pass,
            lag,
        };
        Network {
            endpoints: (0..count)
                .map(|_| endpoint(dice.of(&[0, 0, 20, 200])))
                .collect(),
            slowness: dice.of(&[4, 30, 120]),
            cuts: 0,
            lossy: dice.of(&[0, 0, 0, 10]),
        }
    }

    /// How long a message is on its way, at least one tick.
    pub fn way(&self, dice: &mut Dice) -> Ms {
        match dice.permille(20) {
            true => dice.between(1, 8 * self.slowness + 1),
            false => dice.between(1, self.slowness + 1),
        }
    }

    /// As the client asks: each endpoint in turn, from `current` on, within a budget.
    pub fn ask(
        &self,
        current: &mut usize,
        sent: Ms,
        budget: Ms,
        connect: Ms,
        dice: &mut Dice,
    ) -> Trip {
        let count = self.endpoints.len();
        let (mut at, end) = (sent, sent + budget);
        for attempt in 0..count.max(2) {
            let by = *current % count;
            let untried = count.saturating_sub(attempt).max(1) as u64;
            let share = match untried {
                1 => end.saturating_sub(at),
                n => connect.min(end.saturating_sub(at) / n),
            };
            let (there, back) = (self.way(dice), self.way(dice));
            match self.endpoints[by].mode {
                Mode::Pass if there + back <= share => {
                    let (seen, done) = (at + there, at + there + back);
                    return Trip {
                        sent,
                        seen,
                        done,
                        by: Some(by),
                    };
                }
                Mode::Refuse => at += 1,
                _ => at += share,
            }
            *current += 1;
        }
        let done = at.max(sent + 1);
        Trip {
            sent,
            seen: done,
            done,
            by: None,
        }
    }

    /// Whether an answer from there comes through now.
    pub fn passes(&self, by: usize) -> bool {
        self.endpoints[by].mode == Mode::Pass
    }

    pub fn heal(&mut self) {
        for endpoint in &mut self.endpoints {
            endpoint.mode = Mode::Pass;
            endpoint.lag = endpoint.lag.min(20);
        }
        self.slowness = self.slowness.min(30);
    }
}

/// What goes wrong beside the members: with etcd, the network, and us.
pub struct Faults {
    pub pace: u64,
    heal_at: Ms,
    /// We stand still until then.
    pub stopped: Ms,
    restores: bool,
}

impl Faults {
    pub fn new(dice: &mut Dice) -> Self {
        Faults {
            pace: dice.of(&[0, 3, 8, 20]),
            heal_at: 0,
            stopped: 0,
            restores: dice.permille(400),
        }
    }

    pub fn step(
        &mut self,
        store: &mut Store,
        network: &mut Network,
        stall: Ms,
        now: Ms,
        dice: &mut Dice,
    ) -> Option<String> {
        if self.heal_at != 0 && now >= self.heal_at {
            self.heal_at = 0;
            for endpoint in &mut network.endpoints {
                endpoint.mode = Mode::Pass;
            }
            return Some("the network is well again".into());
        }
        if !dice.permille(self.pace) {
            return None;
        }
        let n = dice.below(network.endpoints.len());
        Some(match dice.below(100) {
            0..30 => {
                network.cuts += 1;
                "connections are cut".into()
            }
            30..55 => {
                let mode = dice.of(&[Mode::Refuse, Mode::Swallow, Mode::Swallow]);
                match dice.permille(500) {
                    true => network.endpoints[n].mode = mode,
                    false => network.endpoints.iter_mut().for_each(|e| e.mode = mode),
                }
                self.heal_at = now + dice.between(50, 2 * stall);
                format!("endpoint {n} or all: {mode:?}")
            }
            55..65 => {
                let keep = dice.between(0, 5) as i64;
                store.compact(keep);
                format!("compacted to {}", store.epoch().compacted)
            }
            65..78 => {
                let within = dice.between(200, 6000);
                let stood = dice.permille(400);
                store.elect(within, stood);
                let how = if stood {
                    ", the old leader goes on"
                } else {
                    ""
                };
                format!("an election, {within} ms{how}")
            }
            78..86 => {
                self.stopped = now + dice.between(100, 4000);
                format!("we stand still until {}", self.stopped)
            }
            86..92 => {
                network.slowness = dice.of(&[4, 30, 120, 400]);
                network.endpoints[n].lag = dice.of(&[0, 20, 200, 1000]);
                format!("messages take {} ms", network.slowness)
            }
            92..96 if self.restores => {
                network.cuts += 1;
                let (back, same) = (dice.between(1, 30) as usize, dice.permille(300));
                store.restore(back, same);
                format!(
                    "restored to {}, cluster {}",
                    store.epoch().revision(),
                    store.epoch().cluster
                )
            }
            96.. if self.restores => {
                network.cuts += 1;
                store.wipe();
                "wiped".into()
            }
            _ => return None,
        })
    }
}
