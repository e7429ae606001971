//! What a cluster handle tells, kept whole, with the time at which it came.

// Every integration test is a crate of its own and uses only a part of this.
#![allow(dead_code)]

use std::sync::Arc;
use std::time::{Duration, Instant};

use headcount::{Builder, Cluster, Event};
use parking_lot::{Condvar, Mutex};

/// Generous: the machine may be small and busy.
pub const SOON: Duration = Duration::from_secs(30);

/// An observer that is quick to notice and to try again.
pub fn observer(endpoint: impl Into<String>) -> Builder {
    let ms = Duration::from_millis;
    Cluster::builder()
        .endpoints([endpoint])
        .connect_timeout(ms(500))
        .request_timeout(ms(1500))
        .start_timeout(SOON)
        .stall_bound(ms(2000))
        .backoff(ms(20), ms(300))
}

/// The same as a member, `type/id`.
pub fn member(endpoint: impl Into<String>, name: &str, ttl: u64) -> Builder {
    let (server_type, id) = name.split_once('/').expect("type/id");
    observer(endpoint)
        .member(server_type, id)
        .hostname("vm")
        .ttl(Duration::from_secs(ttl))
}

/// Where that member's key stands.
pub fn key(name: &str) -> String {
    format!("pitaya/servers/{name}")
}

#[derive(Clone, Debug)]
pub struct Entry {
    pub at: Instant,
    pub event: Event,
    /// The event as a line for people.
    pub text: String,
}

impl Entry {
    /// Of the member it is about, or of oneself.
    #[track_caller]
    pub fn incarnation(&self) -> i64 {
        match (&self.event, self.event.member()) {
            (_, Some(member)) => member.incarnation(),
            (Event::Registered { incarnation, .. }, None) => *incarnation,
            _ => panic!("{} has no incarnation", self.text),
        }
    }

    /// Of one's own registration.
    #[track_caller]
    pub fn lease(&self) -> i64 {
        match self.event {
            Event::Registered { lease, .. } => lease,
            _ => panic!("{} has no lease", self.text),
        }
    }
}

/// Everything that one handle has told so far.
pub struct Told {
    shared: Arc<(Mutex<Vec<Entry>>, Condvar)>,
    read: usize,
}

impl Told {
    /// Listens from now on.
    #[track_caller]
    pub fn by(cluster: &Cluster) -> Told {
        let shared = Arc::<(Mutex<Vec<Entry>>, Condvar)>::default();
        let log = Arc::clone(&shared);
        let listener = move |event: &Event| {
            let (event, text) = (event.clone(), event.to_string());
            let at = Instant::now();
            log.0.lock().push(Entry { at, event, text });
            log.1.notify_all();
        };
        cluster.add_listener(listener).expect("a thread").keep();
        Told { shared, read: 0 }
    }

    /// The next event whose line begins so, past those already asked for.
    #[track_caller]
    pub fn next(&mut self, bound: Duration, line: &str) -> Entry {
        self.find(bound, line, |e| e.text.starts_with(line))
    }

    /// The next departure of that member, whatever is known of its reason.
    #[track_caller]
    pub fn departure(&mut self, bound: Duration, name: &str) -> Entry {
        let of = |e: &Entry| e.event.member().is_some_and(|m| m.name() == name);
        self.find(bound, "departure", |e| e.event.is_departure() && of(e))
    }

    /// How many departures were told so far.
    pub fn departures(&self) -> usize {
        let entries = self.shared.0.lock();
        entries.iter().filter(|e| e.event.is_departure()).count()
    }

    #[track_caller]
    fn find(&mut self, bound: Duration, what: &str, fits: impl Fn(&Entry) -> bool) -> Entry {
        let give_up = Instant::now() + bound;
        let mut entries = self.shared.0.lock();
        let mut from = self.read;
        loop {
            let new = entries[from..].iter().position(&fits);
            if let Some(at) = new {
                self.read = from + at + 1;
                return entries[from + at].clone();
            }
            from = entries.len();
            if self.shared.1.wait_until(&mut entries, give_up).timed_out() {
                let told: Vec<&str> = entries.iter().map(|e| &*e.text).collect();
                let read = self.read;
                panic!("no {what:?} within {bound:?} after the first {read} of {told:#?}");
            }
        }
    }

    /// All lines so far that begin so, asked for or not.
    pub fn all(&self, line: &str) -> Vec<Entry> {
        let entries = self.shared.0.lock();
        let fits = entries.iter().filter(|e| e.text.starts_with(line));
        fits.cloned().collect()
    }

    /// All lines so far.
    pub fn lines(&self) -> Vec<String> {
        self.all("").into_iter().map(|e| e.text).collect()
    }
}
