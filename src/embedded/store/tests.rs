//! The store against a model that keeps every state whole.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use proptest::collection::vec;
use proptest::prelude::*;

use super::*;
use crate::embedded::request::{Compare, CompareTarget, Op, Range, Relation, Target, Txn};

/// Key to value, create revision, mod revision, version, lease.
type State = BTreeMap<u8, (u8, i64, i64, i64, i64)>;

#[derive(Debug, Clone)]
enum Step {
    Put(u8, u8, i64),
    Delete(u8, u8),
    /// If the key has this value: put and delete; else put another.
    Txn(u8, u8),
    Grant(i64),
    Revoke(i64),
    /// So many tenths of a second pass.
    Wait(u64),
    /// To this share of the history, in percent.
    Compact(u8),
}

const KEYS: u8 = 8;

fn step() -> impl Strategy<Value = Step> {
    let (key, value, lease) = (0..KEYS, 0..3u8, 0..4i64);
    prop_oneof![
        6 => (key.clone(), value.clone(), lease).prop_map(|(k, v, l)| Step::Put(k, v, l)),
        3 => (key.clone(), 0..=KEYS).prop_map(|(from, to)| Step::Delete(from, to)),
        3 => (key, value).prop_map(|(k, v)| Step::Txn(k, v)),
        2 => (1..4i64).prop_map(Step::Grant),
        1 => (1..4i64).prop_map(Step::Revoke),
        1 => (1..40u64).prop_map(Step::Wait),
        1 => (0..=100u8).prop_map(Step::Compact),
    ]
}

/// All that has ever been, state by state.
struct Model {
    states: Vec<State>,
    leases: BTreeMap<i64, Instant>,
    compacted: i64,
}

impl Model {
    fn now(&self) -> &State {
        self.states.last().expect("never empty")
    }

    /// The state that a revision left behind; the first one is revision 1.
    fn at(&self, revision: i64) -> &State {
        &self.states[revision as usize - 1]
    }

    fn change(&mut self, change: impl FnOnce(&mut State, i64)) {
        let mut next = self.now().clone();
        change(&mut next, self.states.len() as i64 + 1);
        if next != *self.now() {
            self.states.push(next);
        }
    }

    fn put(state: &mut State, at: i64, key: u8, value: u8, lease: i64) {
        let (created, version) = state.get(&key).map_or((at, 0), |kv| (kv.1, kv.3));
        state.insert(key, (value, created, at, version + 1, lease));
    }

    fn end_lease(&mut self, lease: i64) {
        self.leases.remove(&lease);
        self.change(|state, _| state.retain(|_, kv| kv.4 != lease));
    }
}

const TTL: i64 = 2;

fn put(key: u8, value: u8, lease: i64) -> Put {
    Put {
        key: Box::new([key]),
        value: Box::new([value]),
        lease,
        ..Put::default()
    }
}

fn everything(revision: i64) -> Range {
    Range {
        key: Box::new([0]),
        range_end: Box::new([0]),
        revision,
        ..Range::default()
    }
}

fn entry(kv: &Arc<Kv>) -> (u8, (u8, i64, i64, i64, i64)) {
    let revisions = (kv.create_revision, kv.mod_revision, kv.version);
    (
        kv.key[0],
        (kv.value[0], revisions.0, revisions.1, revisions.2, kv.lease),
    )
}

fn state(found: &Found) -> State {
    found.kvs.iter().map(entry).collect()
}

fn run(steps: Vec<Step>, limits: Limits) -> Result<(), TestCaseError> {
    let mut store = Store::new(limits, 7);
    let mut model = Model {
        states: vec![State::new()],
        leases: BTreeMap::new(),
        compacted: -1,
    };
    let mut now = Instant::now();
    for step in steps {
        match step {
            Step::Put(key, value, lease) => {
                let known = lease == 0 || model.leases.contains_key(&lease);
                prop_assert_eq!(store.put(&put(key, value, lease)).is_ok(), known);
                if known {
                    model.change(|s, at| Model::put(s, at, key, value, lease));
                }
            }
            Step::Delete(from, to) => {
                let request = DeleteRange {
                    key: Box::new([from]),
                    // 0 would be a range without an end.
                    range_end: if to == 0 {
                        Box::default()
                    } else {
                        Box::new([to])
                    },
                    ..DeleteRange::default()
                };
                let hit = |key: u8| {
                    if to == 0 {
                        key == from
                    } else {
                        (from..to).contains(&key)
                    }
                };
                let gone = store.delete_range(&request).expect("well-formed");
                let expected = model.now().keys().filter(|key| hit(**key)).count();
                prop_assert_eq!(gone.len(), expected);
                model.change(|state, _| state.retain(|key, _| !hit(*key)));
            }
            Step::Txn(key, value) => {
                let other = (key + 1) % KEYS;
                let op = |put: Put| Op {
                    request_put: Some(put),
                    ..Op::default()
                };
                let txn = Txn {
                    compare: vec![Compare {
                        target: CompareTarget(Target::Value),
                        result: Relation::Equal,
                        key: Box::new([key]),
                        value: Box::new([value]),
                        ..Compare::default()
                    }],
                    success: vec![
                        op(put(key, value + 1, 0)),
                        Op {
                            request_delete_range: Some(DeleteRange {
                                key: Box::new([other]),
                                ..DeleteRange::default()
                            }),
                            ..Op::default()
                        },
                    ],
                    failure: vec![op(put(key, value, 0)), op(put(other, value, 0))],
                };
                let holds = model.now().get(&key).is_some_and(|kv| kv.0 == value);
                let outcome = store.txn(&txn).expect("well-formed");
                prop_assert_eq!((outcome.succeeded, outcome.done.len()), (holds, 2));
                model.change(|s, at| {
                    if holds {
                        Model::put(s, at, key, value + 1, 0);
                        s.remove(&other);
                    } else {
                        Model::put(s, at, key, value, 0);
                        Model::put(s, at, other, value, 0);
                    }
                });
            }
            Step::Grant(lease) => {
                let free = !model.leases.contains_key(&lease);
                prop_assert_eq!(store.leases.grant(lease, TTL, now).is_ok(), free);
                if free {
                    model
                        .leases
                        .insert(lease, now + Duration::from_secs(TTL as u64));
                }
            }
            Step::Revoke(lease) => {
                let known = model.leases.contains_key(&lease);
                prop_assert_eq!(store.revoke(lease).is_ok(), known);
                model.end_lease(lease);
            }
            Step::Wait(tenths) => {
                now += Duration::from_millis(100 * tenths);
                store.expire(now);
                let mut over: Vec<_> = model.leases.iter().map(|(id, at)| (*at, *id)).collect();
                over.sort();
                for (_, lease) in over.into_iter().filter(|(until, _)| *until <= now) {
                    model.end_lease(lease);
                }
            }
            Step::Compact(percent) => {
                let revision = store.revision() * i64::from(percent) / 100;
                let expected = revision > model.compacted;
                prop_assert_eq!(store.compact(revision).is_ok(), expected);
                model.compacted = model.compacted.max(revision);
            }
        }
        model.compacted = model.compacted.max(store.compacted());
        agree(&store, &model)?;
    }
    Ok(())
}

/// Whatever can be asked gives what the model says.
fn agree(store: &Store, model: &Model) -> Result<(), TestCaseError> {
    let newest = model.states.len() as i64;
    prop_assert_eq!(store.revision(), newest);
    prop_assert_eq!(store.compacted(), model.compacted);
    prop_assert_eq!(
        &state(&store.range(&everything(0)).expect("now")),
        model.now()
    );
    for revision in 1..=newest {
        let found = store.range(&everything(revision));
        match revision < model.compacted {
            true => prop_assert_eq!(found, Err(Refusal::COMPACTED)),
            false => prop_assert_eq!(&state(&found.expect("kept")), model.at(revision)),
        }
    }
    prop_assert_eq!(store.range(&everything(newest + 1)), Err(Refusal::FUTURE));
    // The log leads from each state to the next.
    for revision in model.compacted.max(1) + 1..=newest {
        let mut replayed = model.at(revision - 1).clone();
        for Change { kv, previous } in store.changes(revision) {
            let before = replayed.get(&kv.key[0]).map(|kv| kv.2);
            prop_assert_eq!(previous.as_ref().map(|kv| kv.mod_revision), before);
            match kv.is_tombstone() {
                true => drop(replayed.remove(&kv.key[0])),
                false => replayed.extend([entry(kv)]),
            }
        }
        prop_assert_eq!(&replayed, model.at(revision));
    }
    // And what is counted is what is there.
    let live: usize = store.living(EVERYTHING).map(|kv| kv.size()).sum();
    prop_assert_eq!(store.live_bytes, live);
    let versions = store.keys.values().map(VecDeque::len).sum::<usize>();
    let changes = store.log.iter().map(Vec::len).sum::<usize>();
    let oldest = model.at(model.compacted.max(1)).len();
    prop_assert!(versions <= changes + oldest, "old versions are kept");
    let logged = store.log.iter().flatten().map(|change| change.kv.size());
    prop_assert_eq!(store.log_bytes, logged.sum::<usize>());
    Ok(())
}

const EVERYTHING: Keys = Keys {
    key: &[0],
    range_end: &[0],
};

proptest! {
    #![proptest_config(ProptestConfig::with_cases(256))]

    #[test]
    fn whatever_is_done_it_is_what_the_model_says(steps in vec(step(), 1..60)) {
        run(steps, Limits::DEFAULT)?;
    }

    #[test]
    fn the_same_when_history_is_short(steps in vec(step(), 1..60)) {
        let limits = Limits { revisions: 5, ..Limits::DEFAULT };
        run(steps, limits)?;
    }
}

#[test]
fn history_keeps_within_its_bounds() {
    let limits = Limits {
        revisions: 100,
        history_bytes: 50 * (OVERHEAD + 2),
        quota_bytes: 10 * (OVERHEAD + 2),
    };
    let mut store = Store::new(limits, 7);
    for n in 0..1000u32 {
        store
            .put(&put((n % 9) as u8, n as u8, 0))
            .expect("there is room");
    }
    assert_eq!(store.log.len(), 50);
    assert!(store.keys.values().map(VecDeque::len).sum::<usize>() <= 50 + 9);
    assert_eq!(store.compacted(), store.revision() - 49);

    store.put(&put(9, 0, 0)).expect("the last place");
    assert_eq!(store.put(&put(10, 0, 0)), Err(Refusal::NO_SPACE));
    // Nothing less than before, nothing more either.
    assert_eq!(store.range(&everything(0)).expect("now").count, 10);
}
