//! A listener that never reads, beside one that does: the second one's latency is unchanged, memory
//! stays flat, and the first one, once it reads, ends at the true view (row 15; clientv3 #7446).

mod history;
mod ledger;
mod support;
mod told;

use std::fmt::Write;
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, Sender, bounded};
use headcount::{Cluster, Event, Options};
use serde_json::{Value, json};

use ledger::{Ledger, Random, View, add, adds, commit, value, view_in, view_of};
use support::etcd::Etcd;
use support::fake::{FakeGateway, Reply, StreamStep};
use support::gateway::b64;
use support::load::rss_kib;
use told::{SOON, observer};

const MEMBERS: usize = 100;
const FRAMES: usize = 10_000;
/// In turns, so that what else the machine does falls on both sides.
const TURNS: usize = 6;
const ROUNDS: usize = 50;

/// Median and 99th percentile.
fn percentiles(mut times: Vec<Duration>) -> (Duration, Duration) {
    times.sort();
    (times[times.len() / 2], times[times.len() * 99 / 100])
}

/// "Unchanged" on a machine that does other things besides.
#[track_caller]
fn assert_unchanged(what: &str, alone: Vec<Duration>, beside: Vec<Duration>) {
    let (alone, beside) = (percentiles(alone), percentiles(beside));
    println!("{what}: latency (p50, p99) alone {alone:?}, beside stalled ones {beside:?}");
    let limit = 2 * alone.0 + Duration::from_millis(1);
    assert!(beside.0 < limit, "{:?} is not below {limit:?}", beside.0);
}

/// A store of 100 members, of which each revision changes all: most get a new value, some go, and
/// come again as new incarnations.
struct Store {
    revision: i64,
    /// Each member's key and create revision, if it is there.
    members: Vec<(String, Option<i64>)>,
    random: Random,
}

impl Store {
    /// All are there, each since a revision of its own.
    fn new() -> Store {
        let member = |n| (b64(format!("pitaya/servers/load/{n}")), Some(n as i64 + 1));
        Store {
            revision: MEMBERS as i64,
            members: (0..MEMBERS).map(member).collect(),
            random: Random(3),
        }
    }

    fn listing(&self) -> Value {
        let kv = |(n, (key, created)): (usize, &(String, Option<i64>))| {
            let (created, value) = (created.unwrap_or_default(), value(&format!("load/{n}"), 0));
            json!({ "key": key, "value": b64(value), "version": "1",
                    "create_revision": created.to_string(), "mod_revision": created.to_string() })
        };
        let kvs: Vec<Value> = self.members.iter().enumerate().map(kv).collect();
        json!({ "header": header(self.revision), "kvs": kvs, "count": MEMBERS.to_string() })
    }

    /// The next revision, as etcd's watch tells it. `all`: nobody goes.
    fn frame(&mut self, values: &[Vec<String>], all: bool) -> Vec<u8> {
        self.revision += 1;
        let now = self.revision;
        // A put that changes nothing is not told.
        let values = &values[now as usize % values.len()];
        let header = header(now);
        let mut frame = format!(r#"{{"result":{{"header":{header},"events":["#);
        for (n, (key, created)) in self.members.iter_mut().enumerate() {
            let comma = if n == 0 { "" } else { "," };
            if !all && created.is_some() && self.random.below(10) == 0 {
                *created = None;
                let kv = format!(r#"{{"key":"{key}","mod_revision":"{now}"}}"#);
                let _ = write!(frame, r#"{comma}{{"type":"DELETE","kv":{kv}}}"#);
                continue;
            }
            let (created, value) = (created.get_or_insert(now), &values[n]);
            let _ = write!(
                frame,
                r#"{comma}{{"kv":{{"key":"{key}","create_revision":"{created}","mod_revision":"{now}","version":"2","value":"{value}"}}}}"#
            );
        }
        frame.push_str("]}}\n");
        frame.into_bytes()
    }

    fn view(&self) -> View {
        let there = self.members.iter().enumerate();
        let there = there.filter_map(|(n, (_, created))| Some((n, (*created)?)));
        there
            .map(|(n, created)| (format!("load/{n}"), (created, self.revision)))
            .collect()
    }
}

fn header(revision: i64) -> Value {
    json!({ "cluster_id": "7", "member_id": "1", "revision": revision.to_string() })
}

/// An etcd that lists the store as it is now, and then sends whatever it is given.
fn serve(store: &Store) -> (FakeGateway, Sender<StreamStep>) {
    let (listing, created) = (store.listing(), store.revision);
    let (frames, given) = bounded(4);
    let gateway = FakeGateway::start(move |request| match request.path.as_str() {
        "/v3/kv/range" => Reply::Json(200, listing.clone()),
        "/v3/watch" => {
            let created = json!({ "result": { "header": header(created), "created": true } });
            let given: Receiver<StreamStep> = given.clone();
            Reply::Stream(vec![StreamStep::line(&created), StreamStep::Live(given)])
        }
        _ => Reply::Text(404, "not here".into()),
    });
    (gateway, frames)
}

/// Sends revisions one at a time; how long each took until its first change was told.
#[track_caller]
fn rounds(
    mut next: impl FnMut() -> i64,
    events: &Receiver<Event>,
    ledger: &mut Ledger,
) -> Vec<Duration> {
    let mut times = Vec::with_capacity(ROUNDS);
    for _ in 0..ROUNDS {
        let sent = Instant::now();
        let revision = next();
        ledger.read_until(events, SOON, |event| event.revision() == Some(revision));
        times.push(sent.elapsed());
    }
    times
}

#[track_caller]
fn stalled(cluster: &Cluster, capacity: usize) -> Receiver<Event> {
    cluster.subscribe_with(Options::new().name("stalled").capacity(capacity))
}

#[test]
fn g4_g5_a_million_changes_beside_one_that_never_reads() {
    let mut store = Store::new();
    let (gateway, frames) = serve(&store);
    // The scripted etcd does not end its stream in time to prove itself alive.
    let builder = observer(gateway.endpoint()).stall_bound(Duration::from_secs(600));
    let cluster = builder.start().expect("an observer");
    let values: Vec<Vec<String>> = (0..10)
        .map(|step| {
            let one = |n| b64(value(&format!("load/{n}"), step));
            (0..MEMBERS).map(one).collect()
        })
        .collect();
    let reads = cluster.subscribe_with(Options::new().name("reads"));
    let mut followed = Ledger::default();
    followed.read_until_synced(&reads, SOON);

    // One frame at a time, so that nothing queues: first alone, then beside one that never reads.
    let mut one_frame = || {
        let frame = store.frame(&values, true);
        frames.send(StreamStep::Send(frame)).expect("it is read");
        store.revision
    };
    let (mut alone, mut beside) = (vec![], vec![]);
    let mut never_read = None;
    for _ in 0..TURNS {
        drop(never_read.take());
        alone.extend(rounds(&mut one_frame, &reads, &mut followed));
        never_read = Some(stalled(&cluster, 16));
        beside.extend(rounds(&mut one_frame, &reads, &mut followed));
    }
    let never_read = never_read.expect("the last of them");
    assert_unchanged("100 changes at once", alone, beside);

    // The flood, which the other one follows on a thread of its own.
    let follower = std::thread::spawn(move || {
        for event in reads {
            followed.take(&event);
        }
        followed
    });
    let started = Instant::now();
    let mut memory = Vec::new();
    for number in 0..FRAMES {
        let frame = store.frame(&values, number + 1 == FRAMES);
        let sent = frames.send_timeout(StreamStep::Send(frame), SOON);
        sent.expect("changes are taken, whoever does not read");
        if number % (FRAMES / 20) == 0 {
            memory.push(rss_kib());
        }
    }
    assert!(cluster.wait_for(|_| cluster.view_revision() == store.revision, SOON));
    let took = started.elapsed();
    memory.push(rss_kib());
    // The first tenth fills buffers and the allocator's pools.
    let (first, last) = (memory[2], *memory[2..].iter().max().expect("20 of them"));
    let grown = last.saturating_sub(first);
    println!(
        "{} changes in {took:?}; memory {first} KiB, at most {grown} more",
        FRAMES * MEMBERS
    );
    assert!(grown < 20 * 1024, "{memory:?} KiB");
    let stats = cluster.stats();
    assert!(
        stats.events >= (FRAMES * MEMBERS * 8 / 10) as u64,
        "{stats:?}"
    );
    let queue = &stats.listeners[1];
    println!("{queue:?}");
    assert!(queue.depth <= 16 + 2 * MEMBERS as u64, "{queue:?}");
    assert!(queue.folded > stats.events * 9 / 10, "{queue:?}");

    let mut ledger = Ledger::default();
    let newest = store.revision;
    while ledger.view != store.view() {
        ledger.read_until(&never_read, SOON, |event| event.revision() == Some(newest));
    }
    assert_eq!(view_of(&cluster), store.view());
    assert!(never_read.is_empty(), "it was told more than the view");
    cluster.leave().expect("nobody to tell");
    let followed = follower.join().expect("nothing wrong was told");
    assert_eq!(followed.view, store.view());
    println!(
        "the other one was told {} changes, {} folded",
        followed.changes, followed.folded
    );
}

#[test]
fn g4_g5_twenty_thousand_changes_of_a_real_etcd_beside_ten_that_never_read() {
    let etcd = Etcd::start();
    let gateway = etcd.gateway();
    let cluster = observer(etcd.endpoint()).start().expect("an observer");
    let reads = cluster.subscribe_with(Options::new().name("reads").capacity(30_000));
    let mut followed = Ledger::default();
    let mut step = 0;
    let mut one_put = || {
        step += 1;
        let value = value("one/1", step);
        gateway.put("pitaya/servers/one/1", value, 0)
    };
    let (mut alone, mut beside) = (vec![], vec![]);
    let mut never_read = vec![];
    for _ in 0..TURNS {
        never_read.clear();
        alone.extend(rounds(&mut one_put, &reads, &mut followed));
        never_read.extend((0..10).map(|n| stalled(&cluster, 1 + n)));
        beside.extend(rounds(&mut one_put, &reads, &mut followed));
    }
    assert_unchanged("one put", alone, beside);

    let names: Vec<String> = (0..MEMBERS).map(|n| format!("load/{n}")).collect();
    let mut random = Random(4);
    let (mut changes, started) = (0, Instant::now());
    while changes < 20_000 {
        let batch = random.changes(&names);
        changes += batch.len();
        commit(&gateway, batch);
    }
    add(&gateway, "end/1");
    followed.read_until(&reads, SOON, |event| adds(event, "end/1"));
    println!("{changes} changes, told after {:?}", started.elapsed());
    let truth = view_in(&gateway);
    assert_eq!(followed.view, truth);
    for events in never_read {
        let mut ledger = Ledger::default();
        ledger.read_until(&events, SOON, |event| adds(event, "end/1"));
        assert_eq!(ledger.view, truth);
        assert!(ledger.folded > 10_000, "{} folded", ledger.folded);
    }
}
