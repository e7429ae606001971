//! A listing or a reconcile, page by page.

use super::super::super::Violation;
use super::super::super::bug::Bug;
use super::super::super::network::Trip;
use super::super::super::store::{Ms, Store};
use super::super::{Client, World};
use super::{Doing, no_leader, unreachable};
use crate::etcd::{Failure, Page};
use crate::event::Event;
use crate::kv::Kv;
use crate::roster::Listing;
use crate::stats::Why;
use crate::watch::Pages;

/// A listing or a reconcile.
pub struct Reading {
    /// `None`: a reconcile.
    pub listing: Option<(Why, Listing)>,
    pub pages: Pages,
    pub all: Vec<Kv>,
    pub differs: Option<Why>,
    pub seen: usize,
    pub trip: Trip,
    pub answer: Option<Result<Page, Failure>>,
    /// Of which epoch the first page was; whether others were of another.
    pub epoch: Option<usize>,
    pub mixed: bool,
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

impl Reading {
    pub fn new(listing: Option<(Why, Listing)>, pages: Pages, trip: Trip) -> Box<Reading> {
        Box::new(Reading {
            listing,
            pages,
            all: Vec::new(),
            differs: None,
            seen: 0,
            trip,
            answer: None,
            epoch: None,
            mixed: false,
        })
    }

    /// etcd's part.
    pub fn serve(&mut self, world: &World) {
        self.answer = Some(match self.trip.by {
            None => Err(unreachable("nobody answers")),
            Some(_) if !world.store.leads() => Err(no_leader()),
            Some(_) => range(world.store, &self.pages),
        });
        let current = world.store.current();
        self.mixed |= *self.epoch.get_or_insert(current) != current;
    }
}

impl Client {
    pub(super) fn read_on(&mut self, mut reading: Box<Reading>) {
        reading.pages.limit = reading.pages.limit.min(self.watching.page);
        self.watching.doing = Doing::Reading(reading);
    }

    pub(super) fn ask_page(&mut self, now: Ms, world: &mut World) -> Trip {
        let (request, connect) = (self.settings.request, self.settings.connect);
        world.network.ask(
            &mut self.watching.endpoint,
            now,
            request,
            connect,
            world.dice,
        )
    }

    /// A page has come, or not.
    pub(super) fn read(
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
            let more = reading.pages.came(&page, false)?;
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
                        Ok(known) => reading.seen += known,
                        Err(why) => reading.differs = Some(why),
                    },
                }
                if more && reading.differs.is_none() {
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
            differs,
            seen,
            epoch,
            mixed,
            ..
        } = *reading;
        let at = self.at(now);
        let Some((why, mut listing)) = listing else {
            let gone = (seen != self.state.known()).then_some(Why::LostEvents);
            let blind = self.bug == Some(Bug::BlindReconcile);
            let differs = differs.or(gone).filter(|_| !blind);
            let found = failure.map_or(Ok((pages.cluster(), differs)), Err);
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
            .listing(listing.complete(), (revision, pages.cluster()), why, at);
        if !self.prompt.synced {
            self.prompt.take(&Event::Synced)?;
        }
        self.changed = true;
        self.hear(told, now, world)
    }
}
