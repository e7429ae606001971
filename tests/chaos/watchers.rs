//! The watchers: handles of this process, each with listeners of its own kinds.

use std::sync::Arc;
use std::time::Duration;

use headcount::{Builder, Check, Cluster};

use super::script::{MEMBER_GROUPS, WATCHER_GROUPS};
use super::stage::Stage;
use crate::history::recorder::{Listening, Plan, Sampler, ask, listen, relists};
use crate::history::{Answer, Log, Seen};

pub const WATCHERS: usize = 5;

pub struct Watcher {
    pub handle: String,
    pub own: Option<String>,
    pub cluster: Arc<Cluster>,
    listeners: Vec<Listening>,
    sampler: Option<Sampler>,
}

/// Which group's ways that one uses.
pub fn group(watcher: usize) -> usize {
    MEMBER_GROUPS + watcher * WATCHER_GROUPS / WATCHERS
}

/// So called.
pub fn handle(watcher: usize) -> String {
    format!("watcher {watcher}")
}

/// The member that it is, if it is one.
pub fn own(watcher: usize) -> Option<String> {
    (watcher >= 3).then(|| format!("watch/{watcher}"))
}

fn builder(watcher: usize) -> Builder {
    let ms = Duration::from_millis;
    let all_defaults = Cluster::builder();
    match watcher {
        0 => all_defaults,
        // Quick to notice, quick to try again.
        1 => all_defaults
            .connect_timeout(ms(500))
            .request_timeout(ms(1800))
            .stall_bound(ms(2500))
            .backoff(ms(20), ms(500)),
        // Holds nothing back, and looks after itself often.
        2 => all_defaults
            .mass_loss_hold(Duration::ZERO)
            .reconcile_interval(ms(3000)),
        3 => all_defaults.ttl(ms(4000)).stall_bound(ms(5000)),
        _ => all_defaults.ttl(ms(6000)).check(Check::Silent),
    }
}

/// Name, capacity, delay in milliseconds.
fn listeners(watcher: usize) -> &'static [(&'static str, usize, u64)] {
    match watcher {
        0 => &[("fast", 100_000, 0), ("slow", 4, 50)],
        1 => &[("fast", 1024, 0), ("tight", 1, 200)],
        2 => &[("fast", 1024, 0), ("steady", 16, 20)],
        3 => &[("fast", 1024, 0), ("slow", 8, 100)],
        _ => &[("fast", 1024, 0), ("slowest", 2, 300)],
    }
}

impl Watcher {
    #[track_caller]
    pub fn start(stage: &Stage, watcher: usize, every: Duration) -> Watcher {
        let (handle, own) = (handle(watcher), own(watcher));
        let mut builder = builder(watcher).endpoints(stage.endpoints(group(watcher)));
        if let Some((server_type, id)) = own.as_deref().and_then(|name| name.split_once('/')) {
            builder = builder.member(server_type, id);
        }
        let cluster = builder.start_timeout(Duration::from_secs(30)).start();
        let cluster = Arc::new(cluster.unwrap_or_else(|error| panic!("{handle}: {error}")));
        let plan = |&(name, capacity, delay): &(&str, usize, u64)| Plan {
            capacity,
            delay: Duration::from_millis(delay),
            fast: delay == 0,
            ..Plan::new(name)
        };
        let listeners = listeners(watcher)
            .iter()
            .map(|kind| listen(&cluster, &handle, own.as_deref(), plan(kind)))
            .collect();
        let sampler = Sampler::start(Arc::clone(&cluster), &handle, own.is_some(), every);
        Watcher {
            handle,
            own,
            cluster,
            listeners,
            sampler: Some(sampler),
        }
    }

    pub fn view(&self) -> Vec<Seen> {
        let members = self.cluster.members();
        members.iter().map(|m| Seen::of(m, m.revision())).collect()
    }

    /// Nothing waits for any of its listeners, nor is held back from them.
    pub fn is_drained(&self) -> bool {
        let stats = self.cluster.stats();
        stats.held == 0 && stats.listeners.iter().all(|queue| queue.depth == 0)
    }

    /// How much its listeners were told so far.
    pub fn told(&self) -> usize {
        self.listeners.iter().map(Listening::len).sum()
    }

    /// What its listeners were told, and what was answered, the last word last. `settled`: all that
    /// there was to tell was told.
    pub fn finish(&mut self, settled: bool) -> (Vec<Log>, Vec<Answer>) {
        let mut sampler = self.sampler.take().expect("only once");
        let mut answers = sampler.end();
        answers.push(ask(&self.cluster, &self.handle, self.own.is_some()));
        let relists = relists(&self.cluster);
        let logs = self.listeners.iter().map(|listener| {
            listener.set(|log| {
                log.settled = settled;
                log.relists = Some(relists);
            });
            listener.log()
        });
        (logs.collect(), answers)
    }
}
