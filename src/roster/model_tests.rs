//! Random histories of a model etcd, told to the roster by random mixtures of stream and listing,
//! and checked at every step against a second reading of the same data.

mod oracle;
mod store;

use std::collections::BTreeMap;
use std::sync::Arc;

use proptest::prelude::*;

use self::oracle::{Expected, Oracle, Told};
use self::store::{MAX_VALUE, Snapshot, Store, Write, keys};
use crate::event::Event;
use crate::kv::{Kv, KvEvent};
use crate::member::Document;
use crate::roster::{Listing, Output, Roster, Rules, TypeFilter};

/// What happens next, to the store or to its client.
#[derive(Debug, Clone)]
enum Step {
    Commit(Vec<Write>),
    /// The stream brings up to `revisions`, in responses of up to `batch` revisions, beginning
    /// `back` revisions too early.
    Stream {
        back: i64,
        revisions: i64,
        batch: usize,
    },
    /// A listing, in pages, as of up to `behind` revisions ago: what follows comes by the stream.
    List {
        behind: i64,
        page: usize,
    },
    Compact,
    Wipe,
    Restore {
        back: usize,
        same_cluster: bool,
    },
}

fn write() -> impl Strategy<Value = Write> {
    let member = 0..7u8;
    let note = 0..4u8;
    let good = (member.clone(), any::<u8>(), any::<u8>(), any::<bool>());
    prop_oneof![
        8 => good.prop_map(|(member, meta, process, leased)| Write::Good { member, meta, process, leased }),
        1 => member.clone().prop_map(|member| Write::Mismatched { member }),
        3 => (member.clone(), any::<u8>(), any::<bool>())
            .prop_map(|(member, kind, leased)| Write::Bad { member, kind, leased }),
        4 => member.clone().prop_map(|member| Write::Delete { member }),
        4 => (member.clone(), note.clone()).prop_map(|(member, note)| Write::Gone { member, note }),
        1 => (member.clone(), note).prop_map(|(member, note)| Write::Note { member, note }),
        1 => member.prop_map(|member| Write::Forget { member }),
        1 => any::<u8>().prop_map(Write::BadKey),
        1 => any::<u8>().prop_map(Write::NoBadKey),
        1 => any::<u8>().prop_map(Write::Foreign),
    ]
}

fn step() -> impl Strategy<Value = Step> {
    let stream = (0..4i64, 1..12i64, 1..5usize);
    prop_oneof![
        20 => prop::collection::vec(write(), 1..4).prop_map(Step::Commit),
        10 => stream.prop_map(|(back, revisions, batch)| Step::Stream { back, revisions, batch }),
        3 => (0..6i64, 1..4usize).prop_map(|(behind, page)| Step::List { behind, page }),
        1 => Just(Step::Compact),
        1 => Just(Step::Wipe),
        1 => (1..10usize, any::<bool>())
            .prop_map(|(back, same_cluster)| Step::Restore { back, same_cluster }),
    ]
}

fn rules(max_members: usize) -> Arc<Rules> {
    Arc::new(Rules {
        keys: keys(),
        filter: TypeFilter {
            except: vec!["hidden".into()],
            ..TypeFilter::default()
        },
        max_value_bytes: MAX_VALUE,
        max_members,
    })
}

/// The roster under test, with everything that watches it.
struct Client {
    roster: Roster,
    oracle: Oracle,
    told: Told,
    /// As of the last listing.
    cluster: u64,
    notices: usize,
}

impl Client {
    fn new() -> Self {
        Client {
            roster: Roster::new(rules(1000)),
            oracle: Oracle::default(),
            told: Told::default(),
            cluster: 0,
            notices: 0,
        }
    }

    fn list(&mut self, store: &Store, revision: i64, page: usize) -> Result<(), String> {
        let epoch = revision < self.roster.applied() || self.cluster != store.cluster;
        if epoch {
            self.told.epoch();
        }
        let epoch = epoch && self.cluster != 0;
        let listing = read(&self.roster, &store.listing(revision), page);
        let mut out = Output::default();
        self.roster
            .listing(listing, revision, store.cluster, &mut out);
        self.cluster = store.cluster;
        let due = self.oracle.listing(store.at(revision), revision, epoch);
        let departures_first = out.events.is_sorted_by_key(|event| !event.is_departure());
        if !departures_first {
            return Err("G3: an addition before a departure in a listing".into());
        }
        self.told.step(&out.events, due)?;
        self.check(&out, revision)
    }

    fn stream(&mut self, store: &Store, from: i64, to: i64, batch: usize) -> Result<(), String> {
        for revisions in store.events(from, to).chunks(batch) {
            let applied = self.roster.applied();
            let mut due = Vec::new();
            for events in revisions {
                if events[0].revision() > applied {
                    due.extend(self.oracle.revision(events));
                }
            }
            let mut out = Output::default();
            self.roster.events(revisions.concat(), &mut out);
            if !out.events.is_sorted_by_key(|event| event.revision()) {
                return Err("G2: the revisions of one response do not ascend".into());
            }
            self.told.step(&out.events, due)?;
            let reached = revisions.last().map_or(applied, |last| last[0].revision());
            self.check(&out, applied.max(reached))?;
        }
        Ok(())
    }

    /// The view, and what its listener believes, are the truth at `revision`.
    fn check(&mut self, out: &Output, revision: i64) -> Result<(), String> {
        let is = |what: &str, left: String, right: String| match left == right {
            true => Ok(()),
            false => Err(format!("{what}: {left}, not {right}")),
        };
        is(
            "applied",
            self.roster.applied().to_string(),
            revision.to_string(),
        )?;
        let view = |m: &Arc<_>| Expected::of(m);
        let roster: Vec<_> = self
            .roster
            .iter()
            .map(|m| (m.name().to_owned(), view(m)))
            .collect();
        let truth: Vec<_> = self.oracle.view.clone().into_iter().collect();
        is("the view", format!("{roster:?}"), format!("{truth:?}"))?;
        let told: Vec<_> = self.told.view.iter().collect();
        let truth: Vec<_> = self
            .oracle
            .view
            .iter()
            .map(|(n, m)| (n, (m.life, &m.document)))
            .collect();
        is(
            "G1: what was told",
            format!("{told:?}"),
            format!("{truth:?}"),
        )?;
        let counts = self.roster.skipped().counts();
        is(
            "G13: counts",
            format!("{counts:?}"),
            format!("{:?}", self.oracle.counts),
        )?;
        self.notices += out.notices.len();
        let counted = counts.bad_key + counts.unparsable + counts.too_large + counts.mismatched;
        is(
            "G13: notices",
            self.notices.to_string(),
            counted.to_string(),
        )
    }
}

fn read(roster: &Roster, all: &[Kv], page: usize) -> Listing {
    let mut listing = roster.new_listing();
    for page in all.chunks(page) {
        listing.page(page.to_vec());
    }
    listing.complete()
}

/// What a reconcile would find.
fn reconciles(roster: &Roster, store: &Store) -> bool {
    let keys_only = |kv: &Kv| Kv {
        value: Vec::new(),
        ..kv.clone()
    };
    let all: Vec<Kv> = store.at(roster.applied()).values().map(keys_only).collect();
    let pages: Result<Vec<usize>, _> = all.chunks(3).map(|page| roster.matches(page)).collect();
    pages.is_ok_and(|seen| seen.iter().sum::<usize>() == roster.len())
}

/// Whether it has a bad value now; then nothing can tell which good one was the last.
fn spoilt(now: &Snapshot, name: &str) -> bool {
    let bad = |value: &[u8]| value.len() > MAX_VALUE || Document::parse(name, value).is_err();
    now.get(&keys().member(name))
        .is_some_and(|kv| bad(&kv.value))
}

/// Runs a history; the client is listed first, and at the end caught up.
fn run(steps: &[Step]) -> Result<(), String> {
    let mut store = Store::new();
    let mut client = Client::new();
    client.list(&store, 1, 1)?;
    let end = [Step::Stream {
        back: 0,
        revisions: i64::MAX / 2,
        batch: 3,
    }];
    for step in steps.iter().chain(&end) {
        match *step {
            Step::Commit(ref writes) => store.commit(writes),
            Step::Compact => store.compacted = store.revision(),
            Step::Wipe => store.wipe(),
            Step::Restore { back, same_cluster } => {
                store.restore(back, same_cluster);
                // The watch sees that the revision went back; once it has grown beyond again,
                // only a reconcile could.
                if client.cluster == store.cluster && client.roster.applied() > store.revision() {
                    client.list(&store, store.revision(), 2)?;
                }
            }
            Step::List { behind, page } => {
                let least = match client.cluster == store.cluster {
                    // A linearizable listing is never older than what was seen.
                    true => client.roster.applied(),
                    false => 1,
                };
                let revision = (store.revision() - behind).max(least).max(store.compacted);
                client.list(&store, revision, page)?;
            }
            Step::Stream {
                back,
                revisions,
                batch,
            } => {
                let applied = client.roster.applied();
                if client.cluster != store.cluster || applied < store.compacted {
                    client.list(&store, store.revision(), 2)?;
                } else {
                    let from = applied + 1 - back;
                    client.stream(&store, from, applied + revisions, batch)?;
                }
            }
        }
        if client.cluster == store.cluster && !reconciles(&client.roster, &store) {
            return Err("a reconcile finds a difference where there is none".into());
        }
    }
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig {
        cases: 1000,
        failure_persistence: None,
        ..ProptestConfig::default()
    })]

    #[test]
    fn g1_g2_g3_g6_g13_any_history_by_any_mixture(steps in prop::collection::vec(step(), 1..60)) {
        if let Err(why) = run(&steps) {
            return Err(TestCaseError::fail(why));
        }
    }

    /// Failure-modes row 10: whatever the stream loses, if it matters, a reconcile finds it, and a
    /// listing mends it.
    #[test]
    fn g1_a_reconcile_detects_any_lost_event(
        writes in prop::collection::vec(prop::collection::vec(write(), 1..3), 2..30),
        lost in prop::collection::vec(any::<prop::sample::Index>(), 1..3),
    ) {
        let mut store = Store::new();
        writes.iter().for_each(|writes| store.commit(writes));
        let mut client = Client::new();
        client.list(&store, 1, 1).map_err(TestCaseError::fail)?;
        let mut events: Vec<KvEvent> = store.events(2, store.revision()).concat();
        for lost in &lost {
            if !events.is_empty() {
                events.remove(lost.index(events.len()));
            }
        }
        let mut out = Output::default();
        client.roster.events(events, &mut out);
        // The pairs stay pairs even so.
        for event in &out.events {
            client.told.hear(event).map_err(TestCaseError::fail)?;
        }
        let mut truth = Oracle::default();
        for events in store.events(2, client.roster.applied()) {
            truth.revision(&events);
        }
        let now = store.at(client.roster.applied());
        truth.view.retain(|name, _| !spoilt(now, name));
        let view: BTreeMap<_, _> = client
            .roster
            .iter()
            .map(|m| (m.name().to_owned(), Expected::of(m)))
            .filter(|(name, _)| !spoilt(now, name))
            .collect();
        let found = !reconciles(&client.roster, &store);
        prop_assert!(found || view == truth.view, "{view:?} for {:?}", truth.view);

        let applied = client.roster.applied();
        let listing = read(&client.roster, &store.listing(applied), 2);
        let mut out = Output::default();
        client.roster.listing(listing, applied, store.cluster, &mut out);
        for event in &out.events {
            client.told.hear(event).map_err(TestCaseError::fail)?;
        }
        prop_assert!(reconciles(&client.roster, &store));
    }
}

/// The checks above are only worth something if they can fail: every kind of wrong telling must be
/// caught.
#[test]
fn the_checker_catches_every_kind_of_lie() {
    let good = |member, meta, process| Write::Good {
        member,
        meta,
        process,
        leased: true,
    };
    let mut store = Store::new();
    for writes in [
        vec![good(0, 0, 0)],
        vec![good(1, 0, 0)],
        vec![good(0, 1, 0)],
        vec![Write::Gone { member: 0, note: 0 }],
        vec![good(0, 2, 1)],
        vec![good(1, 2, 0), Write::Delete { member: 0 }],
    ] {
        store.commit(&writes);
    }
    let (mut roster, mut oracle) = (Roster::new(rules(10)), Oracle::default());
    let mut out = Output::default();
    let mut due = Vec::new();
    for events in store.events(2, store.revision()) {
        due.extend(oracle.revision(&events));
        roster.events(events, &mut out);
    }
    let verdict = |events: &[Event]| {
        let mut told = Told::default();
        told.step(events, due.clone())?;
        let truth = oracle.view.iter().map(|(n, m)| (n, (m.life, &m.document)));
        match told
            .view
            .iter()
            .map(|(n, (life, d))| (n, (*life, d)))
            .eq(truth)
        {
            true => Ok(()),
            false => Err("not the truth".to_owned()),
        }
    };
    let events = out.events;
    assert_eq!(verdict(&events), Ok(()));
    assert_eq!(events.len(), 7);
    for at in 0..events.len() {
        let mut dropped = events.clone();
        dropped.remove(at);
        assert!(verdict(&dropped).is_err(), "{} dropped", events[at]);
        let mut doubled = events.clone();
        doubled.insert(at, events[at].clone());
        assert!(verdict(&doubled).is_err(), "{} doubled", events[at]);
        if let Some(next) = events.get(at + 1) {
            if next.member().map(|m| m.name()) == events[at].member().map(|m| m.name()) {
                let mut swapped = events.clone();
                swapped.swap(at, at + 1);
                assert!(verdict(&swapped).is_err(), "{} swapped", events[at]);
            }
        }
    }
    let liar = |event: &Event| match event.clone() {
        Event::RemoveMember {
            member, revision, ..
        } => Event::ServerDown {
            member,
            cause: crate::event::DownCause::Unknown,
            revision,
        },
        Event::ServerDown {
            member, revision, ..
        } => Event::RemoveMember {
            member,
            reason: crate::event::RemoveReason::Announced,
            revision,
        },
        other => other,
    };
    for at in (0..events.len()).filter(|at| events[*at].is_departure()) {
        let mut lied = events.clone();
        lied[at] = liar(&lied[at]);
        assert!(verdict(&lied).unwrap_err().starts_with("G6"));
    }
    let (last, first) = (events.len() - 1, 0);
    let mut reordered = events.clone();
    reordered.swap(first, last);
    assert!(verdict(&reordered).is_err());
}
