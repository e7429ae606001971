//! What etcd sends down a watch stream, and when it arrives.

use std::collections::VecDeque;

use super::super::super::network::Trip;
use super::super::super::store::Ms;
use super::super::World;
use crate::kv::KvEvent;
use crate::watch::Open;

/// Without a leader for so long, a node ends its streams.
const LEADERLESS: Ms = 3000;

pub struct Stream {
    pub open: Open,
    pub by: usize,
    pub cuts: u64,
    pub epoch: usize,
    pub opened: Ms,
    /// The next revision that it is to bring.
    cursor: i64,
    ended: bool,
    /// It has lost something since the last response.
    lost: bool,
    pub wire: VecDeque<(Ms, Sent)>,
    /// When something came last.
    pub word: Ms,
    pub alive: bool,
}

pub enum Sent {
    Created {
        revision: i64,
        cluster: u64,
    },
    Events {
        events: Vec<KvEvent>,
        lossy: bool,
        header: i64,
    },
    Compacted,
    /// In good order, or with a refusal.
    End(bool),
}

impl Stream {
    /// etcd has taken the request.
    pub fn opened(open: Open, trip: &Trip, by: usize, now: Ms, world: &World) -> Stream {
        let (store, lag) = (world.store, world.network.endpoints[by].lag);
        let epoch = store.epoch();
        let revision = epoch.revision_at(now.saturating_sub(lag));
        let mut wire = VecDeque::new();
        wire.push_back((
            trip.done,
            Sent::Created {
                revision,
                cluster: epoch.cluster,
            },
        ));
        Stream {
            open,
            by,
            cuts: world.network.cuts,
            epoch: store.current(),
            opened: trip.sent,
            cursor: open.start_revision,
            ended: false,
            lost: false,
            wire,
            word: trip.sent,
            alive: false,
        }
    }

    /// etcd's part.
    pub fn serve(&mut self, now: Ms, world: &mut World) {
        if self.ended || self.cuts != world.network.cuts {
            return;
        }
        let epoch = &world.store.epochs[self.epoch];
        let known = epoch.revision_at(now.saturating_sub(world.network.endpoints[self.by].lag));
        while self.cursor <= known && !self.ended {
            if self.cursor < epoch.compacted {
                self.send(now, Sent::Compacted, world);
                self.ended = true;
                return;
            }
            // A response has one revision or, catching up, several.
            let last = (self.cursor + world.dice.between(0, 4) as i64).min(known);
            let revisions = &epoch.revisions[self.cursor as usize - 1..last as usize];
            let mut events: Vec<KvEvent> = revisions
                .iter()
                .flat_map(|r| r.events.iter().cloned())
                .collect();
            let loses = !events.is_empty() && world.dice.permille(world.network.lossy);
            if loses {
                self.lost = true;
                events.remove(world.dice.below(events.len()));
            }
            self.cursor = last + 1;
            if !events.is_empty() {
                let (header, lossy) = (epoch.revision(), std::mem::take(&mut self.lost));
                self.send(
                    now,
                    Sent::Events {
                        events,
                        lossy,
                        header,
                    },
                    world,
                );
            }
        }
        let leaderless = !world.store.leads() && now >= world.store.leader_lost + LEADERLESS;
        let over = now >= self.opened + self.open.period.as_millis() as Ms;
        if leaderless || over {
            self.send(now, Sent::End(!leaderless), world);
            self.ended = true;
        }
    }

    fn send(&mut self, now: Ms, what: Sent, world: &mut World) {
        let at = now + world.network.way(world.dice);
        let at = self.wire.back().map_or(at, |(before, _)| at.max(*before));
        self.wire.push_back((at, what));
    }
}
