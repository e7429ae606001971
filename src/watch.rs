//! The poll thread: list, watch, resume, reconcile. It only talks: what to do next, and when, says
//! the [`Plan`].

mod pages;
mod plan;

use std::sync::Arc;
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, RecvTimeoutError};

use crate::error::Error;
use crate::etcd::{Client, Failure, Frame, Page, WatchRequest};
use crate::hub::Hub;
use crate::kv::Kv;
use crate::roster::Rules;
use crate::stats::{Counters, Why, add};

pub(crate) use pages::{Pages, Sizes};
pub(crate) use plan::{Failed, Open, Plan, Reaction, Step, Timing};

pub(crate) struct Watcher {
    pub client: Arc<Client>,
    pub hub: Arc<Hub>,
    pub rules: Arc<Rules>,
    pub counters: Arc<Counters>,
    pub request_timeout: Duration,
    pub plan: Plan,
    pub sizes: Sizes,
}

/// Waits for the end, or so long.
fn stopped(stop: &Receiver<()>, within: Duration) -> bool {
    stop.recv_timeout(within) == Err(RecvTimeoutError::Disconnected)
}

impl Watcher {
    /// Runs until `stop` disconnects. To unblock it at once, shut its client down as well.
    pub fn run(&mut self, stop: &Receiver<()>) {
        // Where it begins anew, what it had in hand may not have reached the roster.
        self.plan.begin();
        loop {
            let wait = match self.plan.step(self.hub.applied(), Instant::now()) {
                Step::List(why) => self.list(why, stop),
                Step::Watch(open) => self.watch(&open, stop),
                Step::Reconcile => self.reconcile(stop),
            };
            // `None`: it was stopped.
            if wait.is_none_or(|wait| stopped(stop, wait)) {
                return;
            }
        }
    }

    /// Does what the plan says; how long to wait then, if the conversation is over.
    fn react(&self, reaction: Reaction) -> Option<Duration> {
        if reaction.rotate {
            self.client.rotate();
        }
        if reaction.reconnected {
            add(&self.counters.reconnects);
            let from = || self.hub.applied().saturating_add(1);
            log::info!("watching again, from revision {}", from());
        }
        if reaction.confirmed {
            self.hub.confirmed();
        }
        if let Some(Failed {
            error,
            lost,
            concerns,
        }) = &reaction.failed
        {
            log::debug!("watching: {error}");
            if *lost {
                self.hub.lost(error, *concerns);
            } else if *concerns {
                self.hub.failed(error);
            }
        }
        reaction.over
    }

    /// All pages of the range at one revision, until `page` has seen enough: (revision, cluster).
    fn pages(
        &mut self,
        stop: &Receiver<()>,
        pinned: i64,
        keys_only: bool,
        mut page: impl FnMut(Vec<Kv>) -> bool,
    ) -> Result<(i64, u64), Failure> {
        let mut pages = Pages::new(&self.rules.keys, pinned, self.sizes);
        loop {
            let asked = Instant::now();
            let answer = self.client.range(
                &pages.from,
                &pages.to,
                pages.revision,
                pages.limit,
                keys_only,
                self.request_timeout,
            );
            let found = match answer {
                Err(Failure::Final(Error::TooLarge { .. })) if pages.shrink() => continue,
                Err(Failure::Final(Error::TooLarge { .. })) if !keys_only => {
                    self.without_value(&pages)?
                }
                Err(failure) if failure.is_late() => {
                    self.sizes = pages.late();
                    return Err(failure);
                }
                other => other?,
            };
            let slow = asked.elapsed() > self.request_timeout / 4;
            let more = pages.came(&found, slow)?;
            if !page(found.kvs) || !more || stopped(stop, Duration::ZERO) {
                self.sizes = pages.done();
                return Ok((pages.revision, pages.cluster()));
            }
        }
    }

    /// The next key, whose value does not even fit into a reply.
    fn without_value(&self, pages: &Pages) -> Result<Page, Failure> {
        let (from, to, revision) = (&pages.from, &pages.to, pages.revision);
        let budget = self.request_timeout;
        let mut page = self.client.range(from, to, revision, 1, true, budget)?;
        for kv in &mut page.kvs {
            // Stands for it: beyond the bound as well.
            kv.value = vec![0; self.rules.max_value_bytes + 1];
        }
        Ok(page)
    }

    fn list(&mut self, why: Why, stop: &Receiver<()>) -> Option<Duration> {
        let started = Instant::now();
        let mut listing = self.hub.new_listing();
        let pages = self.pages(stop, 0, false, |kvs| {
            listing.page(kvs);
            true
        });
        if stopped(stop, Duration::ZERO) {
            return None;
        }
        let (pages, revision) = match pages {
            Ok((revision, cluster)) => (Ok(cluster), Some((revision, cluster))),
            Err(failure) => (Err(failure), None),
        };
        let reaction = self.plan.listed(pages, Instant::now());
        let wait = self.react(reaction);
        if let Some((revision, cluster)) = revision {
            self.counters.relist(why);
            self.hub
                .listing(listing.complete(), (revision, cluster), why);
            let (members, took) = (self.hub.known(), started.elapsed());
            log::info!("listed {members} members at revision {revision} in {took:?} ({why:?})");
        }
        wait
    }

    fn watch(&mut self, open: &Open, stop: &Receiver<()>) -> Option<Duration> {
        let keys = &self.rules.keys;
        let request = WatchRequest {
            from: &keys.range_start(),
            to: &keys.range_end(),
            start_revision: open.start_revision,
            period: open.period,
            connect: open.connect,
            answer: open.answer,
            silence: open.silence,
        };
        let client = Arc::clone(&self.client);
        let mut stream = match client.watch(&request) {
            Ok(stream) => stream,
            Err(_) if stopped(stop, Duration::ZERO) => return None,
            Err(failure) => {
                let reaction = self.plan.unopened(failure, Instant::now());
                return self.react(reaction);
            }
        };
        loop {
            let frame = stream.next();
            if stopped(stop, Duration::ZERO) {
                return None;
            }
            let now = Instant::now();
            let reaction = match frame {
                Ok(Some(Frame::Created { revision, cluster })) => {
                    self.plan.created(revision, cluster, now)
                }
                Ok(Some(Frame::Events(events))) => {
                    self.hub.events(events);
                    self.plan.events(Instant::now())
                }
                Ok(Some(Frame::Compacted)) => self.plan.compacted(now),
                Ok(None) => self.plan.ended(now),
                Err(failure) => self.plan.broke(failure, now),
            };
            if let Some(wait) = self.react(reaction) {
                return Some(wait);
            }
        }
    }

    /// Covers what etcd itself has lost: its watches have dropped events around compactions. Reads
    /// the past, so that a change since then is still told by the stream, with its reason.
    fn reconcile(&mut self, stop: &Receiver<()>) -> Option<Duration> {
        let (mut differs, mut seen) = (None, 0);
        let hub = Arc::clone(&self.hub);
        let pages = self.pages(stop, self.hub.applied(), true, |keys| {
            match hub.matches(&keys) {
                Ok(known) => seen += known,
                Err(why) => differs = Some(why),
            }
            differs.is_none()
        });
        if stopped(stop, Duration::ZERO) {
            return None;
        }
        let gone = (seen != self.hub.known()).then_some(Why::LostEvents);
        let found = pages.map(|(_, cluster)| (cluster, differs.or(gone)));
        let reaction = self.plan.reconciled(found, Instant::now());
        let wait = self.react(reaction);
        if self.plan.is_mending() {
            log::warn!("etcd's watch stream has lost something; listing everything");
        }
        wait
    }
}
