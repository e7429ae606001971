//! Everything at once against a real etcd, recorded and judged: random commits by several writers,
//! listeners of all kinds, broken connections, a compaction, a wipe.

mod history;
mod support;
mod told;

use std::sync::Arc;
use std::time::Duration;

use headcount::{Builder, Cluster};
use history::recorder::{Listening, Plan, Sampler, ask, listen, relists};
use history::truth_reader::TruthReader;
use history::{Bounds, Deed, Deeds, History, Told, Whom, judge, now};
use parking_lot::Mutex;
use serde_json::{Value, json};
use support::etcd::Etcd;
use support::gateway::{Gateway, b64};
use support::proxy::Proxy;
use support::random::Random;
use support::wait::{eventually, until};
use told::observer;

/// Generous: the machine may be small and busy.
const SOON: Duration = Duration::from_secs(30);

fn ms(n: u64) -> Duration {
    Duration::from_millis(n)
}

/// Somebody who writes members by hand, as other programs would.
struct Writer<'a> {
    etcd: Gateway,
    number: u64,
    dice: Random,
    deeds: &'a Mutex<Deeds>,
    /// Lease, and how often its value was changed.
    there: [Option<(i64, u64)>; 8],
    serial: u64,
}

impl Writer<'_> {
    fn name(&self, n: usize) -> String {
        format!("w{}/{n}", self.number)
    }

    fn key(&self, n: usize) -> String {
        format!("pitaya/servers/{}", self.name(n))
    }

    fn value(&self, n: usize, step: u64) -> String {
        let kind = format!("w{}", self.number);
        let metadata = json!({ "step": step.to_string() });
        json!({ "id": n.to_string(), "type": kind, "metadata": metadata, "hostname": "vm" })
            .to_string()
    }

    fn put(&self, n: usize) -> Value {
        let (lease, step) = self.there[n].expect("is there");
        json!({ "request_put": {
            "key": b64(self.key(n)), "value": b64(self.value(n, step)), "lease": lease.to_string(),
        }})
    }

    fn commit(&self, operations: Vec<Value>) {
        self.etcd.txn(&json!({ "success": operations }));
    }

    fn deed(&self, deed: Deed) {
        self.deeds.lock().add(deed);
    }

    fn step(&mut self) {
        let n = self.dice.below(8) as usize;
        let name = self.name(n);
        self.serial += 1;
        let Some((lease, _)) = self.there[n] else {
            let lease = match self.dice.below(3) {
                0 => 0,
                _ => self.etcd.grant(120),
            };
            self.there[n] = Some((lease, self.serial));
            return self.commit(vec![self.put(n)]);
        };
        let delete = json!({ "request_delete_range": { "key": b64(self.key(n)) } });
        match self.dice.below(20) {
            0..8 => {
                self.there[n] = Some((lease, self.serial));
                self.commit(vec![self.put(n)]);
            }
            8..10 => {
                let all = (0..8).filter(|n| self.there[*n].is_some());
                let all: Vec<usize> = all.collect();
                for n in &all {
                    let lease = self.there[*n].expect("was there").0;
                    self.there[*n] = Some((lease, self.serial));
                }
                self.commit(all.into_iter().map(|n| self.put(n)).collect());
            }
            // Nothing new.
            10..12 => self.commit(vec![self.put(n)]),
            12..15 => {
                let life = self
                    .etcd
                    .get(&self.key(n))
                    .expect("is there")
                    .create_revision;
                let note = b64(format!("pitaya/servers-gone/{name}/{life}"));
                let note = json!({ "request_put": {
                    "key": note, "value": b64(r#"{"reason":"leave"}"#), "lease": lease.to_string(),
                }});
                self.there[n] = None;
                self.commit(vec![note, delete]);
            }
            15..18 => {
                self.there[n] = None;
                self.deed(Deed::KeyDeleted { name });
                self.commit(vec![delete]);
            }
            _ if lease != 0 => {
                self.there[n] = None;
                self.deed(Deed::LeaseRevoked { name, lease });
                self.etcd.revoke(lease);
            }
            _ => {}
        }
    }
}

/// Three writers, so many commits each.
fn write(etcd: &Etcd, deeds: &Mutex<Deeds>, seed: u64, commits: u64) {
    std::thread::scope(|scope| {
        for number in 0..3 {
            scope.spawn(move || {
                let mut writer = Writer {
                    etcd: etcd.gateway(),
                    number,
                    dice: Random(seed * 10 + number),
                    deeds,
                    there: [None; 8],
                    serial: seed * 100_000,
                };
                // What another round has left there.
                let mine = format!("pitaya/servers/w{number}/");
                for kv in writer.etcd.list_prefix(&mine) {
                    let n: usize = kv.key[mine.len()..].parse().expect("a number");
                    writer.there[n] = Some((kv.lease, 0));
                }
                for _ in 0..commits {
                    writer.step();
                }
            });
        }
    });
}

struct Handle {
    name: &'static str,
    cluster: Arc<Cluster>,
    member: bool,
    sampler: Sampler,
    listeners: Vec<Listening>,
}

impl Handle {
    fn start(name: &'static str, builder: Builder, member: bool) -> Handle {
        let cluster = Arc::new(builder.start().expect("start"));
        let sampler = Sampler::start(Arc::clone(&cluster), name, member, ms(20));
        Handle {
            name,
            cluster,
            member,
            sampler,
            listeners: Vec::new(),
        }
    }

    fn listen(&mut self, plan: Plan) {
        let own = self.member.then_some(self.name);
        let listening = listen(&self.cluster, self.name, own, plan);
        self.listeners.push(listening);
    }

    /// What was recorded, all having settled.
    fn record(&mut self, history: &mut History) {
        let relists = relists(&self.cluster);
        let last = ask(&self.cluster, self.name, self.member);
        history.answers.extend(self.sampler.end());
        history.answers.push(last);
        for listening in &self.listeners {
            let mut log = listening.log();
            log.relists = Some(relists);
            log.settled = true;
            history.logs.push(log);
        }
    }
}

fn plan(name: &str, capacity: usize, delay: u64) -> Plan {
    Plan {
        capacity,
        delay: ms(delay),
        ..Plan::new(name)
    }
}

#[test]
fn g1_g2_g3_g4_g5_g6_g7_g10_hold_over_a_wild_history() {
    let etcd = Etcd::start();
    let reader = TruthReader::start("pitaya/", vec![etcd.endpoint()]);
    let deeds = Mutex::new(Deeds {
        complete: true,
        ..Deeds::default()
    });
    let deed = |deed: Deed| deeds.lock().add(deed);
    let (way, own_way) = (
        Proxy::start(&etcd.endpoint()),
        Proxy::start(&etcd.endpoint()),
    );
    let me = |name: &'static str, builder: Builder| {
        let (kind, id) = name.split_once('/').expect("type/id");
        builder.member(kind, id).ttl(Duration::from_secs(2))
    };
    let mut calm = Handle::start("calm", observer(etcd.endpoint()), false);
    let mut cut = Handle::start("cut", observer(way.endpoint()), false);
    let mut m1 = Handle::start("m/1", me("m/1", observer(own_way.endpoint())), true);
    let mut m2 = Handle::start("m/2", me("m/2", observer(etcd.endpoint())), true);
    let fast = Plan {
        fast: true,
        ..plan("fast", 20_000, 0)
    };
    calm.listen(fast);
    calm.listen(plan("slow", 4, 3));
    cut.listen(plan("wide", 20_000, 0));
    cut.listen(plan("narrow", 1, 8));
    m1.listen(plan("own", 20_000, 0));
    m2.listen(plan("own", 20_000, 0));
    let began = now();

    // Cuts, in the middle of anything, with late subscribers.
    std::thread::scope(|scope| {
        let writers = scope.spawn(|| write(&etcd, &deeds, 1, 250));
        let mut round = 0;
        while !writers.is_finished() {
            way.cut_after([None, Some(700), Some(150), Some(5000)][round % 4]);
            way.cut();
            if round < 3 {
                calm.listen(plan(&format!("late {round}"), 64, round as u64 * 2));
                cut.listen(plan(&format!("late {round}"), 64, round as u64 * 2));
            }
            round += 1;
            std::thread::sleep(ms(100));
        }
        way.pass();
    });

    // A compaction while it is away, for long enough to be told.
    let told = |handle: &Handle, what: Told| handle.listeners[0].has(|t| *t == what);
    way.refuse();
    way.cut();
    write(&etcd, &deeds, 2, 60);
    until(SOON, "etcd is lost", || told(&cut, Told::StoreLost));
    let compacted = reader.catch_up(SOON);
    deed(Deed::Compacted {
        revision: compacted,
    });
    etcd.gateway().compact(compacted);
    write(&etcd, &deeds, 3, 20);
    way.pass();
    until(SOON, "everything is listed anew", || {
        relists(&cut.cluster) > 0
    });

    // A member is cut off for longer than its lease lasts; another one is thrown out.
    let gone = |name: &str| {
        let name = name.to_owned();
        let about = move |t: &Told| t.departure().is_some_and(|(s, _)| s.name == name);
        let log = calm.listeners[0].log();
        log.entries.iter().filter(|e| about(&e.what)).count()
    };
    let whom = Whom::These(vec!["m/1".into()]);
    deed(Deed::Cut { whom: whom.clone() });
    own_way.black_hole();
    let name = "m/2".to_owned();
    let key = "pitaya/servers/m/2";
    let (before, life) = (gone("m/2"), m2.cluster.incarnation());
    let lease = etcd.gateway().get(key).expect("is there").lease;
    deed(Deed::LeaseRevoked { name, lease });
    etcd.gateway().revoke(lease);
    until(SOON, "it is thrown out", || gone("m/2") > before);
    until(SOON, "and back", || {
        let now = m2.cluster.incarnation();
        now.is_some() && now != life
    });
    write(&etcd, &deeds, 4, 60);
    until(SOON, "its lease runs out", || gone("m/1") > 0);
    own_way.pass();
    own_way.cut();
    until(SOON, "it is back", || m1.cluster.is_registered());
    deed(Deed::Healed { whom });
    let wiped = now();

    // Etcd loses everything, and departures wait for a verdict on what it held.
    write(&etcd, &deeds, 5, 30);
    reader.catch_up(SOON);
    deed(Deed::EtcdDown { node: 0 });
    etcd.wipe();
    deed(Deed::Wiped);
    deed(Deed::EtcdUp { node: 0 });
    write(&etcd, &deeds, 6, 100);
    until(SOON, "the members are back", || {
        let there = |name| {
            etcd.gateway()
                .get(&format!("pitaya/servers/{name}"))
                .is_some()
        };
        there("m/1") && there("m/2")
    });

    let mut handles = vec![calm, cut, m1, m2];
    let all = |fits: &dyn Fn(&Handle) -> bool| handles.iter().all(fits);
    let everybody_hears_of = |id: &str| {
        let marker = json!({ "id": id, "type": "zz", "metadata": {}, "hostname": "vm" });
        let name = format!("zz/{id}");
        etcd.gateway()
            .put(&format!("pitaya/servers/{name}"), marker.to_string(), 0);
        for listening in handles.iter().flat_map(|handle| &handle.listeners) {
            eventually(SOON, "the marker", || {
                let is = |t: &Told| t.change().is_some_and(|s| s.name == name);
                listening.has(is).then_some(())
            });
        }
    };
    until(SOON, "everybody is well", || {
        all(&|h| h.cluster.store_reachable() && (!h.member || h.cluster.is_registered()))
    });
    // Whoever has heard of it knows what was before, but for what waits for a verdict.
    everybody_hears_of("marker");
    until(SOON, "nothing waits for a verdict", || {
        all(&|h| h.cluster.stats().held == 0)
    });
    everybody_hears_of("last");
    reader.catch_up(SOON);

    let mut history = History {
        truth: reader.truth(),
        deeds: deeds.lock().clone(),
        bounds: Bounds {
            delivery: ms(2500).as_nanos() as u64,
            calm: vec![(began, wiped)],
            ttl: Duration::from_secs(2).as_nanos() as u64,
            slack: ms(500).as_nanos() as u64,
        },
        ..History::default()
    };
    for handle in &mut handles {
        handle.record(&mut history);
    }
    drop(handles);
    match judge(&history) {
        Ok(summary) => {
            println!("{summary:?}");
            for guarantee in ["G1", "G2", "G3", "G4", "G5", "G6", "G7", "G10"] {
                assert!(summary.of(guarantee) > 0, "{guarantee} was not checked");
            }
            assert!(summary.folded > 0 && summary.netted > 0, "{summary:?}");
        }
        Err(violation) => panic!("{violation}"),
    }
}
