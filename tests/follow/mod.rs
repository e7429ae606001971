//! An observer under test: what it is told is folded, and every event is checked on the way.

// Every integration test is a crate of its own and uses only a part of this.
#![allow(dead_code)]

pub mod script;

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use crossbeam_channel::Receiver;
use headcount::{Builder, Cluster, Event, Options};
use serde_json::{Value, json};

use crate::history::pairing::Pairing;
use crate::history::recorder::relists;
use crate::history::truth_reader::TruthReader;
use crate::history::{At, History, Log, Seen, Summary, Told, judge, now, timeline};
use crate::support::gateway::{Gateway, Kv, b64};
use crate::support::proxy::Proxy;
use crate::support::wait::until;

/// Generous: the machine may be small and busy.
pub const SOON: Duration = Duration::from_secs(30);

pub fn ms(n: u64) -> Duration {
    Duration::from_millis(n)
}

/// An observer that notices and retries quickly.
pub fn observer<S: Into<String>>(endpoints: impl IntoIterator<Item = S>) -> Builder {
    Cluster::builder()
        .endpoints(endpoints)
        .connect_timeout(ms(500))
        .request_timeout(ms(1800))
        .start_timeout(SOON)
        .stall_bound(ms(2000))
        .backoff(ms(20), ms(300))
}

/// The same where a test is not about time: a busy machine is no lost etcd.
pub fn patient<S: Into<String>>(endpoints: impl IntoIterator<Item = S>) -> Builder {
    observer(endpoints)
        .connect_timeout(ms(2000))
        .request_timeout(ms(5000))
        .stall_bound(ms(8000))
}

/// Where the member `type/id` stands.
pub fn key(name: &str) -> String {
    format!("pitaya/servers/{name}")
}

/// The value of the member `type/id`, with one pair of metadata.
pub fn value(name: &str, meta: impl ToString) -> String {
    let (kind, id) = name.split_once('/').expect("type/id");
    let meta = json!({ "m": meta.to_string() });
    json!({ "id": id, "type": kind, "metadata": meta, "frontend": false, "hostname": "vm" })
        .to_string()
}

/// Puts the member without a lease; the revision.
#[track_caller]
pub fn put(etcd: &Gateway, name: &str, meta: impl ToString) -> i64 {
    etcd.put(&key(name), value(name, meta), 0)
}

#[track_caller]
pub fn delete(etcd: &Gateway, name: &str) {
    assert_eq!(etcd.delete(&key(name)), 1, "{name} was there");
}

/// Puts all these keys, 100 in a revision.
#[track_caller]
pub fn put_all(etcd: &Gateway, pairs: &[(String, String)]) {
    for some in pairs.chunks(100) {
        let ops: Vec<Value> = some
            .iter()
            .map(|(key, value)| json!({ "request_put": { "key": b64(key), "value": b64(value) } }))
            .collect();
        etcd.txn(&json!({ "success": ops }));
    }
}

/// Leaves as Headcount does: the note and the deletion in one revision.
#[track_caller]
pub fn leave(etcd: &Gateway, name: &str, note: &str) {
    let life = etcd.get(&key(name)).expect("a member").create_revision;
    let note_key = format!("pitaya/servers-gone/{name}/{life}");
    etcd.txn(&json!({ "success": [
        { "request_put": { "key": b64(note_key), "value": b64(note) } },
        { "request_delete_range": { "key": b64(key(name)) } },
    ]}));
}

/// Makes the running observer list everything anew.
#[track_caller]
pub fn relist(follower: &Follower, etcd: &Gateway, proxy: &Proxy) {
    let before = follower.cluster.stats().relists.compacted;
    for n in 0..3 {
        etcd.put("elsewhere", n.to_string(), 0);
    }
    etcd.compact(etcd.revision());
    proxy.cut();
    until(SOON, "a listing", || {
        follower.cluster.stats().relists.compacted > before
    });
}

/// A member that shows how far the telling has come.
const MARKER: &str = "zz/marker";

/// A running observer and what it has told.
pub struct Follower {
    pub cluster: Cluster,
    events: Receiver<Event>,
    book: Pairing,
    /// Lines such as `ServerDown gate/1@5 (unknown)`, about members and the store.
    pub told: Vec<String>,
    /// All events, when they were read.
    entries: Vec<At<Told>>,
}

impl Follower {
    #[track_caller]
    pub fn start(builder: Builder) -> Follower {
        match builder.start() {
            Ok(cluster) => Follower::of(cluster),
            Err(error) => panic!("start: {error}"),
        }
    }

    pub fn of(cluster: Cluster) -> Follower {
        let events = cluster.subscribe_with(Options::new().capacity(200_000));
        Follower {
            cluster,
            events,
            book: Pairing::default(),
            told: Vec::new(),
            entries: Vec::new(),
        }
    }

    /// The next event, checked; `None` if none comes in time.
    #[track_caller]
    pub fn next(&mut self, bound: Duration) -> Option<Event> {
        let event = self.events.recv_timeout(bound).ok()?;
        self.hear(&event);
        Some(event)
    }

    /// All events up to the one that this line is of.
    #[track_caller]
    pub fn wait(&mut self, bound: Duration, line: &str) -> Event {
        let deadline = Instant::now() + bound;
        let from = self.told.len();
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            match self.next(left) {
                Some(event) if event.to_string() == line => return event,
                Some(_) => {}
                None => panic!("no {line:?} in {bound:?}, but {:#?}", &self.told[from..]),
            }
        }
    }

    /// Reads on until all that has happened so far has been told, and checks that it adds up to
    /// what etcd holds.
    #[track_caller]
    pub fn settle(&mut self, etcd: &Gateway) {
        // What was before the marker has come when the marker has.
        let life = put(etcd, MARKER, "x");
        self.read_until("the marker", |book| {
            book.get(MARKER)
                .is_some_and(|seen| seen.incarnation == life)
        });
        delete(etcd, MARKER);
        self.read_until("the marker's end", |book| book.get(MARKER).is_none());
        self.drain();
        let truth = truth(&etcd.list_prefix("pitaya/servers/"));
        let told = self.book.view().map(|(_, seen)| member(seen));
        assert_eq!(told.collect::<View>(), truth, "what was told");
        let view = self.cluster.members();
        let view = view.iter().map(|m| member(&Seen::of(m, m.revision())));
        assert_eq!(view.collect::<View>(), truth, "the view");
    }

    /// What was told until now and not asked for yet.
    #[track_caller]
    pub fn news(&mut self, etcd: &Gateway) -> Vec<String> {
        self.settle(etcd);
        std::mem::take(&mut self.told)
    }

    #[track_caller]
    fn read_until(&mut self, what: &str, done: impl Fn(&Pairing) -> bool) {
        let deadline = Instant::now() + SOON;
        while !done(&self.book) {
            let left = deadline.saturating_duration_since(Instant::now());
            if self.next(left).is_none() {
                let tail = &self.told[self.told.len().saturating_sub(20)..];
                panic!(
                    "{what} has not come within {SOON:?}; {:#?}; {tail:#?}",
                    self.cluster.stats()
                );
            }
        }
    }

    #[track_caller]
    pub fn drain(&mut self) {
        while self.next(Duration::ZERO).is_some() {}
    }

    pub fn count(&self, what: &str) -> usize {
        self.told
            .iter()
            .filter(|line| line.starts_with(what))
            .count()
    }

    /// The store's revisions start anew.
    pub fn new_epoch(&mut self) {
        self.book.new_epoch();
    }

    /// Only the first listing was made, and no other.
    #[track_caller]
    pub fn never_relisted(&self) {
        let made = self.cluster.stats().relists;
        assert_eq!((made.first, relists(&self.cluster)), (1, 0), "{made:?}");
    }

    /// Holds all that was told, having settled, against all that etcd ever held.
    #[track_caller]
    pub fn judge(&self, reader: &TruthReader) -> Summary {
        reader.catch_up(SOON);
        let history = History {
            truth: reader.truth(),
            logs: vec![Log {
                listener: "follower".into(),
                handle: "follower".into(),
                initial: true,
                settled: true,
                relists: Some(relists(&self.cluster)),
                entries: self.entries.clone(),
                ..Log::default()
            }],
            ..History::default()
        };
        match judge(&history) {
            Ok(summary) => summary,
            Err(violation) => panic!("{violation}"),
        }
    }

    /// G2 and G3, and no event that tells nothing.
    #[track_caller]
    fn hear(&mut self, event: &Event) {
        if event.member().is_none_or(|member| member.name() != MARKER) {
            self.told.push(event.to_string());
        }
        let told = Told::from(event);
        let heard = self.book.hear(&told);
        self.entries.push(At {
            at: now(),
            what: told,
        });
        if let Err(broken) = heard {
            let tail = self.told[self.told.len().saturating_sub(20)..].join("\n");
            panic!("{}: {event}: {}\n{tail}", broken.guarantee, broken.why);
        }
    }
}

/// Incarnation and content, by name.
type View = BTreeMap<String, (i64, String)>;

fn member(seen: &Seen) -> (String, (i64, String)) {
    (seen.name.clone(), (seen.incarnation, seen.content.clone()))
}

/// What etcd holds, read by the tests' own means.
fn truth(kvs: &[Kv]) -> View {
    let name = |kv: &Kv| {
        let name = kv.key.strip_prefix("pitaya/servers/");
        name.expect("in the range").to_owned()
    };
    let said = |kv: &Kv| timeline::value(&kv.text()).expect("only good values").0;
    let entry = |kv| (name(kv), (kv.create_revision, said(kv)));
    kvs.iter().map(entry).collect()
}
