//! The poll thread's part: does what the plan says, in steps.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use super::super::Violation;
use super::super::bug::Bug;
use super::super::dice::Dice;
use super::super::network::{Mode, Trip};
use super::super::store::{Ms, Store, keys};
use super::{Client, World};
use crate::error::Error;
use crate::etcd::{Failure, Page};
use crate::event::{DownCause, Event};
use crate::hub::Told;
use crate::kv::{Kv, KvEvent};
use crate::roster::Listing;
use crate::stats::Why;
use crate::watch::{Failed, Open, Pages, Reaction, Step};

/// Without a leader for so long, a node ends its streams.
const LEADERLESS: Ms = 3000;

pub struct Watching {
    doing: Doing,
    /// The endpoint that worked last.
    endpoint: usize,
    /// Keys a page.
    page: i64,
    /// What the headers said last.
    header: i64,
    /// The store was restored since the last listing, and nothing has shown it.
    hidden: bool,
    /// Everything that was ever given, for a bug.
    given: BTreeMap<Vec<u8>, Kv>,
}

enum Doing {
    Waiting(Ms),
    Reading(Box<Reading>),
    Opening(Open, Trip),
    Following(Box<Stream>),
}

/// A listing or a reconcile.
struct Reading {
    /// `None`: a reconcile.
    listing: Option<(Why, Listing)>,
    pages: Pages,
    all: Vec<Kv>,
    same: bool,
    seen: usize,
    trip: Trip,
    answer: Option<Result<Page, Failure>>,
    /// Of which epoch the first page was; whether others were of another.
    epoch: Option<usize>,
    mixed: bool,
}

struct Stream {
    open: Open,
    by: usize,
    cuts: u64,
    epoch: usize,
    opened: Ms,
    /// The next revision that it is to bring.
    cursor: i64,
    ended: bool,
    /// It has lost something since the last response.
    lost: bool,
    wire: VecDeque<(Ms, Sent)>,
    /// When something came last.
    word: Ms,
    alive: bool,
}

enum Sent {
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

fn unreachable(reason: &str) -> Failure {
    Failure::Elsewhere(Error::Unreachable {
        endpoint: "etcd".into(),
        reason: reason.into(),
    })
}

fn no_leader() -> Failure {
    Failure::Elsewhere(Error::Etcd {
        code: 14,
        message: "etcdserver: no leader".into(),
    })
}

/// A linearizable range.
fn range(store: &Store, pages: &Pages) -> Result<Page, Failure> {
    let epoch = store.epoch();
    let revision = match pages.revision {
        0 => epoch.revision(),
        pinned => pinned,
    };
    if revision < epoch.compacted || revision > epoch.revision() {
        return Err(Failure::NoSuchRevision);
    }
    let mut found = epoch
        .at(revision)
        .range(pages.from.clone()..pages.to.clone());
    let kvs = found
        .by_ref()
        .take(pages.limit as usize)
        .map(|(_, kv)| Kv::clone(kv))
        .collect();
    Ok(Page {
        kvs,
        more: found.next().is_some(),
        revision: epoch.revision(),
        cluster: epoch.cluster,
    })
}

impl Watching {
    pub fn new(dice: &mut Dice) -> Self {
        Watching {
            doing: Doing::Waiting(0),
            endpoint: dice.below(3),
            page: dice.of(&[2, 5, 1000]),
            header: 0,
            hidden: false,
            given: BTreeMap::new(),
        }
    }

    pub fn serve(&mut self, now: Ms, world: &mut World) {
        match &mut self.doing {
            Doing::Reading(reading) if reading.answer.is_none() && now >= reading.trip.seen => {
                reading.answer = Some(match reading.trip.by {
                    None => Err(unreachable("nobody answers")),
                    Some(_) if !world.store.leads() => Err(no_leader()),
                    Some(_) => range(world.store, &reading.pages),
                });
                let current = world.store.current();
                reading.mixed |= *reading.epoch.get_or_insert(current) != current;
            }
            Doing::Opening(open, trip) if trip.by.is_some() && now >= trip.seen => {
                let by = trip.by.expect("just checked");
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
                let stream = Stream {
                    open: *open,
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
                };
                self.doing = Doing::Following(Box::new(stream));
            }
            Doing::Following(stream) => stream.serve(now, world),
            _ => {}
        }
    }
}

impl Stream {
    /// etcd's part.
    fn serve(&mut self, now: Ms, world: &mut World) {
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

impl Client {
    pub(super) fn watch(&mut self, now: Ms, world: &mut World) -> Result<(), Violation> {
        loop {
            let doing = std::mem::replace(&mut self.watching.doing, Doing::Waiting(now));
            match doing {
                Doing::Waiting(until) if now < until => {
                    self.watching.doing = Doing::Waiting(until);
                    return Ok(());
                }
                Doing::Waiting(_) => self.begin(now, world)?,
                Doing::Reading(reading) if now < reading.trip.done || reading.answer.is_none() => {
                    self.watching.doing = Doing::Reading(reading);
                    return Ok(());
                }
                Doing::Reading(reading) => self.read(reading, now, world)?,
                Doing::Opening(_, trip) if trip.by.is_none() && now >= trip.done => {
                    let reaction = self
                        .plan
                        .unopened(unreachable("no connection"), self.at(now));
                    self.react(reaction, now, world)?;
                }
                Doing::Opening(open, trip) => {
                    self.watching.doing = Doing::Opening(open, trip);
                    return Ok(());
                }
                Doing::Following(stream) => {
                    if !self.follow(stream, now, world)? {
                        return Ok(());
                    }
                }
            }
        }
    }

    fn begin(&mut self, now: Ms, world: &mut World) -> Result<(), Violation> {
        let step = self.plan.step(self.state.applied(), self.at(now));
        (world.trace)(&|| format!("{step:?}"));
        let pages = match step {
            Step::List(Why::Compacted) if self.bug == Some(Bug::SkipRelist) => {
                self.watching.header = world.store.epoch().compacted;
                let reaction = self
                    .plan
                    .listed(Ok(world.store.epoch().cluster), self.at(now));
                return self.react(reaction, now, world).map(drop);
            }
            Step::List(_) => Pages::new(&keys(), 0),
            Step::Reconcile => Pages::new(&keys(), self.state.applied()),
            Step::Watch(open) => return self.open(open, now, world),
        };
        let listing = match step {
            Step::List(why) => Some((why, self.state.new_listing())),
            _ => None,
        };
        let trip = self.ask_page(now, world);
        let reading = Reading {
            listing,
            pages,
            all: Vec::new(),
            same: true,
            seen: 0,
            trip,
            answer: None,
            epoch: None,
            mixed: false,
        };
        self.read_on(Box::new(reading));
        Ok(())
    }

    fn read_on(&mut self, mut reading: Box<Reading>) {
        reading.pages.limit = reading.pages.limit.min(self.watching.page);
        self.watching.doing = Doing::Reading(reading);
    }

    fn ask_page(&mut self, now: Ms, world: &mut World) -> Trip {
        let (request, connect) = (self.settings.request, self.settings.connect);
        world.network.ask(
            &mut self.watching.endpoint,
            now,
            request,
            connect,
            world.dice,
        )
    }

    fn open(&mut self, mut open: Open, now: Ms, world: &mut World) -> Result<(), Violation> {
        if let Some(Bug::ResumeAtHeader | Bug::SkipRelist) = self.bug {
            open.start_revision = open.start_revision.max(self.watching.header + 1);
        }
        // G1: where it stands is known from what was given, not from the roster.
        if open.start_revision != self.oracle.reached + 1 {
            let (start, reached) = (open.start_revision, self.oracle.reached);
            let what = format!("resumed from {start}, though what was given ends at {reached}");
            return Err(Violation {
                guarantee: "G1",
                what,
            });
        }
        self.counts.resumed += 1;
        let budget = (open.connect + open.answer).as_millis() as Ms;
        let by = self.watching.endpoint % world.network.endpoints.len();
        let (there, back) = (world.network.way(world.dice), world.network.way(world.dice));
        let trip = match world.network.endpoints[by].mode {
            Mode::Pass if there + back <= budget => Trip {
                sent: now,
                seen: now + there,
                done: now + there + back,
                by: Some(by),
            },
            mode => {
                let done = now + if mode == Mode::Refuse { 1 } else { budget };
                Trip {
                    sent: now,
                    seen: done,
                    done,
                    by: None,
                }
            }
        };
        self.watching.doing = Doing::Opening(open, trip);
        Ok(())
    }

    /// A page has come, or not.
    fn read(
        &mut self,
        mut reading: Box<Reading>,
        now: Ms,
        world: &mut World,
    ) -> Result<(), Violation> {
        let mut answer = reading.answer.take().expect("it has come");
        if reading.trip.by.is_some_and(|by| !world.network.passes(by)) {
            // What was on its way is lost; noticed when the time is up.
            let budget = reading.trip.sent + self.settings.request;
            if now < budget {
                reading.answer = Some(answer);
                reading.trip.done = budget.min(now + 50);
                self.watching.doing = Doing::Reading(reading);
                return Ok(());
            }
            answer = Err(unreachable("the answer is lost"));
        }
        let more = answer.and_then(|page| {
            let more = reading.pages.came(&page)?;
            Ok((page.kvs, more))
        });
        if matches!(more, Ok(_) | Err(Failure::NoSuchRevision)) {
            self.heard = now;
        }
        let failure = match more {
            Ok((kvs, more)) => {
                match &mut reading.listing {
                    Some((_, listing)) => {
                        listing.page(kvs.clone());
                        reading.all.extend(kvs);
                    }
                    None => match self.state.matches(&kvs) {
                        Some(known) => reading.seen += known,
                        None => reading.same = false,
                    },
                }
                if more && reading.same {
                    reading.trip = self.ask_page(now, world);
                    self.read_on(reading);
                    return Ok(());
                }
                None
            }
            Err(failure) => Some(failure),
        };
        let Reading {
            listing,
            pages,
            all,
            same,
            seen,
            epoch,
            mixed,
            ..
        } = *reading;
        let at = self.at(now);
        let Some((why, mut listing)) = listing else {
            let same = same && seen == self.state.known() || self.bug == Some(Bug::BlindReconcile);
            let found = failure.map_or(Ok((pages.cluster(), same)), Err);
            let reaction = self.plan.reconciled(found, at);
            return self.react(reaction, now, world).map(drop);
        };
        let done = failure.is_none();
        let reaction = self
            .plan
            .listed(failure.map_or(Ok(pages.cluster()), Err), at);
        self.react(reaction, now, world)?;
        if !done {
            return Ok(());
        }
        self.counts.listings += 1;
        let (revision, epoch) = (pages.revision, epoch.expect("a page has come"));
        (world.trace)(&|| {
            format!(
                "listed {} keys at {revision} of epoch {epoch} ({why:?})",
                all.len()
            )
        });
        if self.bug == Some(Bug::ListingWithoutDepartures) {
            let still = |key: &Vec<u8>| all.iter().any(|kv| kv.key == *key);
            listing.page(
                self.watching
                    .given
                    .iter()
                    .filter(|(k, _)| !still(k))
                    .map(|(_, kv)| kv.clone())
                    .collect(),
            );
            self.watching
                .given
                .extend(all.iter().map(|kv| (kv.key.clone(), kv.clone())));
        }
        let hidden = std::mem::take(&mut self.watching.hidden) || mixed;
        let anew = self.oracle.is_anew(world.store, epoch, revision);
        if anew || hidden || epoch != self.oracle.epoch {
            self.prompt.anew();
            self.epochs += 1;
        }
        self.oracle.listing(&all, world.store, epoch, revision, now);
        self.oracle.tainted |= mixed;
        self.watching.header = revision;
        let told = self
            .state
            .listing(listing.complete(), revision, pages.cluster(), at);
        if !self.prompt.synced {
            self.prompt.take(&Event::Synced)?;
        }
        self.changed = true;
        self.hear(told, now, world)
    }

    /// What the stream has brought by now. True: it is over.
    fn follow(
        &mut self,
        mut stream: Box<Stream>,
        now: Ms,
        world: &mut World,
    ) -> Result<bool, Violation> {
        let mode = world.network.endpoints[stream.by].mode;
        let cut = stream.cuts != world.network.cuts || mode == Mode::Refuse;
        // What had arrived before the cut can still be read, or a part of it.
        let readable = mode == Mode::Pass && (!cut || world.dice.permille(500));
        while readable && stream.wire.front().is_some_and(|(at, _)| *at <= now) {
            let (_, sent) = stream.wire.pop_front().expect("just seen");
            stream.word = now;
            self.heard = now;
            let at = self.at(now);
            let reaction = match sent {
                Sent::Created { revision, cluster } => {
                    stream.alive = true;
                    let reaction = self.plan.created(revision, cluster, at);
                    let goes_on = reaction.over.is_none() || reaction.confirmed;
                    if goes_on && stream.epoch != self.oracle.epoch {
                        // Nothing shows that this is another history. What it brings continues
                        // what was given; what the view has of before, the next listing corrects.
                        self.oracle.tainted = true;
                        self.oracle.epoch = stream.epoch;
                        self.watching.hidden = true;
                    }
                    reaction
                }
                Sent::Events {
                    events,
                    lossy,
                    header,
                } => {
                    self.watching.header = header;
                    self.oracle.tainted |= lossy;
                    self.bring(events, now, world)?;
                    self.plan.events(at)
                }
                Sent::Compacted => self.plan.compacted(at),
                Sent::End(true) => self.plan.ended(at),
                Sent::End(false) => self.plan.broke(no_leader(), at),
            };
            if self.react(reaction, now, world)? {
                return Ok(true);
            }
        }
        let silence = stream.open.silence.as_millis() as Ms;
        let answer = (stream.open.connect + stream.open.answer).as_millis() as Ms;
        let failure = match stream.alive {
            _ if cut => Some(unreachable("connection reset")),
            false if now > stream.opened + answer => Some(unreachable("no answer")),
            true if now > stream.word + silence && self.bug != Some(Bug::SilentStall) => {
                Some(unreachable("silence"))
            }
            _ => None,
        };
        let Some(failure) = failure else {
            self.watching.doing = Doing::Following(stream);
            return Ok(false);
        };
        let reaction = match stream.alive {
            true => self.plan.broke(failure, self.at(now)),
            false => self.plan.unopened(failure, self.at(now)),
        };
        self.react(reaction, now, world)
    }

    fn bring(
        &mut self,
        mut events: Vec<KvEvent>,
        now: Ms,
        world: &mut World,
    ) -> Result<(), Violation> {
        (world.trace)(&|| {
            let line = |e: &KvEvent| match e {
                KvEvent::Put(kv) => format!(
                    "put {}@{}",
                    String::from_utf8_lossy(&kv.key),
                    kv.mod_revision
                ),
                KvEvent::Delete { key, mod_revision } => {
                    format!("delete {}@{mod_revision}", String::from_utf8_lossy(key))
                }
            };
            format!(
                "events: {}",
                events.iter().map(line).collect::<Vec<_>>().join(", ")
            )
        });
        self.oracle.events(&events, world.store, now);
        if self.bug == Some(Bug::NotesUnread) {
            let is_note = |e: &KvEvent| matches!(e, KvEvent::Put(kv) if kv.key.starts_with(b"p/servers-gone/"));
            events.retain(|e| !is_note(e));
        }
        if self.bug == Some(Bug::BackwardsResponse) {
            events.reverse();
        }
        if self.bug == Some(Bug::ListingWithoutDepartures) {
            let put = |e: &KvEvent| match e {
                KvEvent::Put(kv) => Some((kv.key.clone(), kv.clone())),
                KvEvent::Delete { .. } => None,
            };
            self.watching.given.extend(events.iter().filter_map(put));
        }
        let told = self.state.events(events, self.at(now));
        self.changed = true;
        self.hear(told, now, world)
    }

    /// As the thread does. True: the conversation is over.
    fn react(&mut self, reaction: Reaction, now: Ms, world: &mut World) -> Result<bool, Violation> {
        self.watching.endpoint += usize::from(reaction.rotate);
        if reaction.confirmed && self.state.confirmed(self.at(now)) {
            let events = vec![Event::StoreRestored];
            let told = Told {
                events,
                ..Told::default()
            };
            self.hear(told, now, world)?;
        }
        if let Some(Failed {
            error,
            lost,
            concerns,
        }) = &reaction.failed
        {
            (world.trace)(&|| format!("failed: {error}{}", if *lost { " (lost)" } else { "" }));
            if *lost && self.state.lost() {
                let mut events = vec![Event::StoreLost];
                if self.bug == Some(Bug::DownOnLoss) {
                    events.extend(self.state.view().iter().map(|member| Event::ServerDown {
                        member: Arc::clone(member),
                        cause: DownCause::Unknown,
                        revision: self.state.applied(),
                    }));
                }
                self.hear(
                    Told {
                        events,
                        ..Told::default()
                    },
                    now,
                    world,
                )?;
            }
            if *concerns {
                self.state.failed(error);
            }
        }
        self.wakes();
        let Some(wait) = reaction.over else {
            return Ok(false);
        };
        self.watching.doing = Doing::Waiting(self.ms(self.at(now) + wait.max(Duration::ZERO)));
        Ok(true)
    }
}
