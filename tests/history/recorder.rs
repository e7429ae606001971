//! Records what a handle of this process tells and answers.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::SeqCst};
use std::thread::JoinHandle;
use std::time::Duration;

use headcount::{Cluster, Event, Options};
use parking_lot::Mutex;

use super::{Answer, At, Log, Seen, Told, now};

/// One listener under observation.
pub struct Listening {
    log: Arc<Mutex<Log>>,
}

/// How a listener is to be.
#[derive(Clone, Debug)]
pub struct Plan {
    pub name: String,
    pub capacity: usize,
    /// It takes so long over each event.
    pub delay: Duration,
    /// Its deliveries are held against the clock.
    pub fast: bool,
}

impl Plan {
    pub fn new(name: &str) -> Plan {
        Plan {
            name: name.into(),
            capacity: 1024,
            delay: Duration::ZERO,
            fast: false,
        }
    }
}

/// Listens from now on, by a handler's thread.
#[track_caller]
pub fn listen(cluster: &Cluster, handle: &str, own: Option<&str>, plan: Plan) -> Listening {
    let log = Arc::new(Mutex::new(Log {
        listener: plan.name.clone(),
        handle: handle.into(),
        own: own.map(str::to_owned),
        capacity: Some(plan.capacity),
        initial: true,
        fast: plan.fast,
        ..Log::default()
    }));
    let shared = Arc::clone(&log);
    let listener = move |event: &Event| {
        let entry = At {
            at: now(),
            what: Told::from(event),
        };
        shared.lock().entries.push(entry);
        if !plan.delay.is_zero() {
            std::thread::sleep(plan.delay);
        }
    };
    let options = Options::new().name(&plan.name).capacity(plan.capacity);
    let guard = cluster.add_listener_with(options, listener);
    guard.expect("a thread").keep();
    Listening { log }
}

impl Listening {
    /// What it was told so far.
    pub fn log(&self) -> Log {
        self.log.lock().clone()
    }

    pub fn len(&self) -> usize {
        self.log.lock().entries.len()
    }

    /// Whether something like that was told.
    pub fn has(&self, fits: impl Fn(&Told) -> bool) -> bool {
        self.log.lock().entries.iter().any(|e| fits(&e.what))
    }

    pub fn set(&self, change: impl FnOnce(&mut Log)) {
        change(&mut self.log.lock());
    }
}

/// Full listings after the first.
pub fn relists(cluster: &Cluster) -> u64 {
    let r = cluster.stats().relists;
    r.compacted
        + r.went_back
        + r.cluster_changed
        + r.lost_events
        + r.room
        + r.behind
        + r.oversized
        + r.unreadable
}

/// Asks the handle once.
pub fn ask(cluster: &Cluster, handle: &str, member: bool) -> Answer {
    let at_before = now();
    let members = cluster.members();
    let members = members.iter().map(|m| Seen::of(m, m.revision())).collect();
    let view_age = cluster.view_age().map(|age| age.as_nanos() as u64);
    Answer {
        at_before,
        handle: handle.into(),
        members,
        view_age,
        store_reachable: cluster.store_reachable(),
        revision: cluster.view_revision(),
        registered: member.then(|| cluster.is_registered()),
        at_after: now(),
    }
}

/// Asks a handle again and again.
pub struct Sampler {
    stop: Arc<AtomicBool>,
    answers: Arc<Mutex<Vec<Answer>>>,
    thread: Option<JoinHandle<()>>,
}

impl Sampler {
    pub fn start(cluster: Arc<Cluster>, handle: &str, member: bool, every: Duration) -> Sampler {
        let stop = Arc::new(AtomicBool::new(false));
        let answers = Arc::<Mutex<Vec<Answer>>>::default();
        let (stopped, kept, handle) = (stop.clone(), answers.clone(), handle.to_owned());
        let thread = std::thread::spawn(move || {
            while !stopped.load(SeqCst) {
                kept.lock().push(ask(&cluster, &handle, member));
                std::thread::sleep(every);
            }
        });
        Sampler {
            stop,
            answers,
            thread: Some(thread),
        }
    }

    /// Ends it; what was answered.
    pub fn end(&mut self) -> Vec<Answer> {
        self.join();
        std::mem::take(&mut *self.answers.lock())
    }

    fn join(&mut self) {
        self.stop.store(true, SeqCst);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

impl Drop for Sampler {
    fn drop(&mut self) {
        self.join();
    }
}
