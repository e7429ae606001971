//! The roster case by case; see `model_tests` for any history.

use super::*;
use crate::member::{Document, Keyspace};

fn rules(max_members: usize) -> Arc<Rules> {
    Arc::new(Rules {
        keys: Keyspace::new("p/"),
        filter: TypeFilter::default(),
        max_value_bytes: 1000,
        max_members,
    })
}

fn kv(name: &str, life: i64, revision: i64, lease: i64) -> Kv {
    let metadata = [("r", revision.to_string())].into_iter().collect();
    let document = Document {
        metadata,
        ..Document::default()
    };
    Kv {
        key: rules(1).keys.member(name),
        value: document.to_json(name),
        create_revision: life,
        mod_revision: revision,
        lease,
    }
}

fn put(name: &str, life: i64, revision: i64) -> KvEvent {
    KvEvent::Put(kv(name, life, revision, 7))
}

fn spoilt(mut kv: Kv) -> Kv {
    kv.value = b"null".to_vec();
    kv
}

fn delete(name: &str, mod_revision: i64) -> KvEvent {
    let key = rules(1).keys.member(name);
    KvEvent::Delete { key, mod_revision }
}

fn note(name: &str, life: i64, revision: i64, json: &str) -> KvEvent {
    KvEvent::Put(Kv {
        key: rules(1).keys.note(name, life),
        value: json.into(),
        create_revision: revision,
        mod_revision: revision,
        lease: 7,
    })
}

const LEAVE: &str = r#"{"reason":"leave"}"#;

/// A roster that writes down what it tells.
struct Scribe(Roster, Vec<Notice>);

impl Scribe {
    fn new(max_members: usize) -> Self {
        Scribe(Roster::new(rules(max_members)), Vec::new())
    }

    fn told(&mut self, out: Output) -> Vec<String> {
        self.1.extend(out.notices);
        let line = |e: &Event| format!("{e} r{}", e.revision().unwrap());
        out.events.iter().map(line).collect()
    }

    fn events(&mut self, batch: Vec<KvEvent>) -> Vec<String> {
        let mut out = Output::default();
        self.0.events(batch, &mut out);
        self.told(out)
    }

    fn listing(&mut self, kvs: Vec<Kv>, revision: i64) -> Vec<String> {
        let mut listing = self.0.new_listing();
        listing.page(kvs);
        let mut out = Output::default();
        self.0.listing(listing.complete(), revision, 1, &mut out);
        self.told(out)
    }

    fn names(&self) -> Vec<&str> {
        self.0.iter().map(|m| m.name()).collect()
    }
}

#[test]
fn g3_a_restart_inside_one_batch_is_departure_then_addition() {
    let mut s = Scribe::new(9);
    assert_eq!(s.events(vec![put("a/1", 2, 2)]), ["AddMember a/1@2 r2"]);
    assert_eq!(
        s.events(vec![delete("a/1", 3), put("a/1", 4, 4), put("a/1", 4, 5)]),
        [
            "ServerDown a/1@2 (unknown) r3",
            "AddMember a/1@4 r4",
            "UpdateMember a/1@4 r5"
        ]
    );
}

/// Failure-modes row 10: etcd has lost the DELETE.
#[test]
fn g3_a_new_life_without_a_delete_is_still_a_pair() {
    let mut s = Scribe::new(9);
    s.events(vec![put("a/1", 2, 2)]);
    assert_eq!(
        s.events(vec![put("a/1", 5, 6)]),
        ["ServerDown a/1@2 (replaced) r6", "AddMember a/1@5 r6"]
    );
}

#[test]
fn g3_a_restart_across_a_gap_is_a_pair_with_departures_first() {
    let mut s = Scribe::new(9);
    s.events(vec![put("b/1", 2, 2), put("c/1", 3, 3)]);
    assert_eq!(
        s.listing(vec![kv("a/1", 4, 4, 7), kv("b/1", 6, 8, 7)], 9),
        [
            "ServerDown b/1@2 (replaced) r6",
            "ServerDown c/1@3 (missing) r9",
            "AddMember a/1@4 r4",
            "AddMember b/1@6 r8"
        ]
    );
}

/// Failure-modes row 7: an etcd that was restored, and had come as far again when it was listed.
#[test]
fn g3_another_process_of_the_same_incarnation_is_another_life() {
    let of = |token: &str, revision| {
        let document = Document {
            instance: Some(token.into()),
            ..Document::default()
        };
        let value = document.to_json("a/1");
        Kv {
            value,
            ..kv("a/1", 2, revision, 7)
        }
    };
    let mut s = Scribe::new(9);
    s.listing(vec![of("x", 3)], 4);
    assert!(s.listing(vec![of("x", 3)], 5).is_empty());
    assert_eq!(
        s.listing(vec![of("y", 6)], 6),
        ["ServerDown a/1@2 (replaced) r6", "AddMember a/1@2 r6"]
    );
}

#[test]
fn g2_a_revision_that_was_applied_is_never_applied_again() {
    let mut s = Scribe::new(9);
    let all = vec![put("a/1", 2, 2), delete("a/1", 3), put("a/1", 4, 4)];
    assert_eq!(s.events(all.clone()).len(), 3);
    assert!(s.events(all.clone()).is_empty());
    assert!(s.listing(vec![kv("a/1", 4, 4, 7)], 6).is_empty());
    assert!(s.events(all).is_empty());
    assert_eq!(s.0.applied(), 6);
}

#[test]
fn g6_only_a_note_of_the_same_life_and_revision_counts() {
    for (json, life, told) in [
        (LEAVE, 2, "RemoveMember a/1@2 (announced) r3"),
        (
            r#"{"reason":"replaced"}"#,
            2,
            "ServerDown a/1@2 (replaced) r3",
        ),
        (
            r#"{"reason":"evicted","by":["x/1","x/2"]}"#,
            2,
            "ServerDown a/1@2 (evicted by x/1, x/2) r3",
        ),
        (r#"{"reason":"bored"}"#, 2, "ServerDown a/1@2 (unknown) r3"),
        (LEAVE, 1, "ServerDown a/1@2 (unknown) r3"),
    ] {
        for note_first in [true, false] {
            let mut s = Scribe::new(9);
            s.events(vec![put("a/1", 2, 2)]);
            let mut txn = vec![delete("a/1", 3), note("a/1", life, 3, json)];
            if note_first {
                txn.reverse();
            }
            assert_eq!(s.events(txn), [told], "{json}");
        }
    }
    let mut s = Scribe::new(9);
    s.events(vec![put("a/1", 2, 2), note("a/1", 2, 3, LEAVE)]);
    let told = s.events(vec![delete("a/1", 4)]);
    assert_eq!(told, ["ServerDown a/1@2 (unknown) r4"]);
}

#[test]
fn g6_a_note_that_still_stands_at_a_listing_gives_the_reason() {
    let KvEvent::Put(note) = note("a/1", 2, 5, LEAVE) else {
        unreachable!()
    };
    for (successor, told) in [
        (None, vec!["RemoveMember a/1@2 (announced) r9"]),
        (
            Some(kv("a/1", 7, 7, 7)),
            vec!["RemoveMember a/1@2 (announced) r7", "AddMember a/1@7 r7"],
        ),
    ] {
        let mut s = Scribe::new(9);
        s.events(vec![put("a/1", 2, 2)]);
        let all = [note.clone()].into_iter().chain(successor).collect();
        assert_eq!(s.listing(all, 9), told);
    }
}

/// What the heartbeat has to hear of: silent ends, and keys that move to another lease.
#[test]
fn g6_silent_ends_and_moves_are_named() {
    let on = |life, revision, lease| KvEvent::Put(kv("a/1", life, revision, lease));
    let mut same = kv("a/1", 2, 4, 9);
    same.value = kv("a/1", 2, 3, 8).value;
    let batch = vec![
        on(2, 2, 7),
        on(2, 3, 8),
        KvEvent::Put(same),
        delete("a/1", 5),
        on(6, 6, 0),
        delete("a/1", 7),
        on(8, 8, 7),
        note("a/1", 8, 9, LEAVE),
        delete("a/1", 9),
    ];
    let mut roster = Roster::new(rules(9));
    let mut out = Output::default();
    roster.events(batch, &mut out);
    let names: Vec<_> = out.events.iter().map(Event::name).collect();
    assert_eq!(names[..3], ["AddMember", "UpdateMember", "ServerDown"]);
    assert_eq!(out.silent, [2], "with a note, or without a lease, none is");
    let moves = out.moved.iter();
    let moves: Vec<_> = moves
        .map(|m| (m.from, m.member.lease(), m.before))
        .collect();
    assert_eq!(moves, [(7, 8, 2), (8, 9, 2)]);
    // By a listing as well.
    let mut roster = Roster::new(rules(9));
    roster.events(vec![on(2, 2, 7)], &mut Output::default());
    let mut listing = roster.new_listing();
    listing.page(vec![spoilt(kv("a/1", 2, 3, 8))]);
    let mut out = Output::default();
    roster.listing(listing.complete(), 4, 1, &mut out);
    assert!(out.events.is_empty());
    assert_eq!((out.moved[0].from, out.moved[0].member.lease()), (7, 8));
}

/// A key without a lease can't have run out.
#[test]
fn g6_without_a_note_the_last_lease_decides() {
    for (leases, told) in [
        ([0, 0], "RemoveMember a/1@2 (deregistered) r4"),
        ([7, 0], "RemoveMember a/1@2 (deregistered) r4"),
        ([0, 7], "ServerDown a/1@2 (unknown) r4"),
    ] {
        for bad in [false, true] {
            let mut s = Scribe::new(9);
            let second = kv("a/1", 2, 3, leases[1]);
            let second = if bad { spoilt(second) } else { second };
            s.events(vec![KvEvent::Put(kv("a/1", 2, 2, leases[0]))]);
            s.events(vec![KvEvent::Put(second)]);
            assert_eq!(s.events(vec![delete("a/1", 4)]), [told], "bad: {bad}");
        }
    }
}

#[test]
fn g13_the_last_good_value_is_kept_and_each_bad_one_told_once() {
    let mut s = Scribe::new(9);
    s.events(vec![put("a/1", 2, 2)]);
    let bad = spoilt(kv("a/1", 2, 3, 7));
    assert!(s.events(vec![KvEvent::Put(bad.clone())]).is_empty());
    for revision in 4..8 {
        assert!(s.listing(vec![bad.clone()], revision).is_empty());
        assert_eq!(s.0.matches(std::slice::from_ref(&bad)), Ok(1));
    }
    assert_eq!((s.names(), s.1.len()), (vec!["a/1"], 1));
    assert_eq!(s.0.skipped().counts().unparsable, 1);
    // A bad value of another life keeps nobody.
    let other = spoilt(kv("a/1", 8, 8, 7));
    assert_eq!(
        s.listing(vec![other], 9),
        ["ServerDown a/1@2 (replaced) r8"]
    );
}

/// Nothing bounds the length of a key but etcd.
#[test]
fn g13_giant_keys_take_no_memory() {
    let rss = || {
        let statm = std::fs::read_to_string("/proc/self/statm").expect("Linux");
        let pages = statm.split(' ').nth(1).and_then(|pages| pages.parse().ok());
        pages.map_or(0, |pages: usize| pages * 4096)
    };
    let mut s = Scribe::new(9);
    let before = rss();
    let mut listing = s.0.new_listing();
    for n in 0..150 {
        let mut bad = kv(&format!("a/{n}"), 2, 2, 0);
        bad.key.resize(1_000_000, b'x');
        listing.page(vec![bad]);
    }
    let mut out = Output::default();
    s.0.listing(listing.complete(), 200, 1, &mut out);
    assert!(s.told(out).is_empty());
    assert_eq!((s.0.skipped().counts().bad_key, s.1.len()), (150, 150));
    let grown = rss().saturating_sub(before) >> 20;
    assert!(grown < 100, "{grown} MB");
}

#[test]
fn g13_memory_of_bad_keys_is_bounded_and_so_is_what_is_told() {
    let mut s = Scribe::new(9);
    let bad = |n: i64| spoilt(kv(&format!("a/{n}"), n, n, 0));
    let all: Vec<Kv> = (1..=12_000).map(bad).collect();
    for revision in 20_000..20_003 {
        assert!(s.listing(all.clone(), revision).is_empty());
    }
    assert_eq!(s.1.len(), 10_000);
    assert!(s.0.skipped().counts().unparsable >= 12_000);
}

/// However many strangers' bad values come before it.
#[test]
fn g6_g13_a_member_whose_value_went_bad_stays_behind_many_bad_ones() {
    let mut s = Scribe::new(2);
    s.events(vec![put("z/1", 2, 2)]);
    let names = ["a/1", "a/2", "a/3"];
    let mut all: Vec<Kv> = names.iter().map(|n| spoilt(kv(n, 3, 3, 7))).collect();
    all.push(spoilt(kv("z/1", 2, 4, 7)));
    assert!(s.listing(all, 5).is_empty());
    assert_eq!(s.names(), ["z/1"]);
}

#[test]
fn g13_a_newcomer_beyond_max_members_pushes_nobody_out() {
    let mut s = Scribe::new(2);
    s.events(vec![put("b/1", 2, 2), put("c/1", 3, 3), put("a/1", 4, 4)]);
    assert_eq!(s.names(), ["b/1", "c/1"]);
    let kvs = || vec![kv("a/1", 4, 4, 7), kv("b/1", 2, 2, 7), kv("c/1", 3, 3, 7)];
    assert!(s.listing(kvs(), 5).is_empty());
    assert_eq!(s.0.matches(&kvs()), Ok(2), "nothing is amiss");
    // Nor does one whose value went bad lose its place.
    let c = spoilt(kv("c/1", 3, 6, 7));
    assert!(
        s.listing(vec![kvs()[0].clone(), kvs()[1].clone(), c], 6)
            .is_empty()
    );
    assert_eq!(s.names(), ["b/1", "c/1"]);
    assert!(s.0.skipped().counts().over_limit >= 3);
    assert_eq!(
        s.1.iter()
            .filter(|n| n.what.contains("max_members"))
            .count(),
        1
    );
    // With room a reconcile wants it, and the listing takes it.
    s.events(vec![delete("c/1", 7)]);
    assert_eq!(s.0.matches(&kvs()[..2]), Err(Why::Room));
    for lost in [kv("a/1", 4, 7, 7), kv("d/1", 7, 7, 7)] {
        // Whatever else the page shows.
        let page = [kvs()[0].clone(), lost];
        assert_eq!(s.0.matches(&page), Err(Why::LostEvents));
    }
    assert_eq!(s.listing(kvs()[..2].to_vec(), 7), ["AddMember a/1@4 r4"]);
}

/// Room that comes by a departure, while somebody waits, is no fault of the stream's.
#[test]
fn g13_room_is_told_from_a_loss() {
    for listed in [true, false] {
        let mut s = Scribe::new(2);
        let kvs = ["a/1", "b/1", "c/1"].map(|name| kv(name, 3, 3, 7));
        match listed {
            true => s.listing(kvs.to_vec(), 3),
            false => s.events(kvs.iter().cloned().map(KvEvent::Put).collect()),
        };
        s.events(vec![delete("a/1", 4)]);
        assert_eq!(s.0.matches(&kvs[1..]), Err(Why::Room));
        // Who waited has gone, and come again unseen.
        s.events(vec![delete("c/1", 5)]);
        assert_eq!(s.0.matches(&kvs[1..]), Err(Why::LostEvents));
    }
}

#[test]
fn g13_of_a_first_listing_beyond_max_members_the_first_are_taken() {
    let mut s = Scribe::new(2);
    let all = (1..=5).map(|n| kv(&format!("a/{n}"), n, n, 7)).collect();
    assert_eq!(
        s.listing(all, 9),
        ["AddMember a/1@1 r1", "AddMember a/2@2 r2"]
    );
    assert_eq!(s.0.skipped().counts().over_limit, 3);
}

/// Wherever one stands oneself, and whether one is there already.
#[test]
fn g13_oneself_takes_nobodys_room() {
    for (own, listed) in [("a/0", true), ("a/3", true), ("a/9", true), ("a/9", false)] {
        let mut rules = (*rules(2)).clone();
        rules.filter.own = Some(own.into());
        let mut s = Scribe(Roster::new(Arc::new(rules)), Vec::new());
        let mut names = vec!["a/1", "a/2", "a/4", "a/5"];
        names.extend(listed.then_some(own));
        names.sort();
        let kvs = || names.iter().map(|name| kv(name, 3, 3, 7));
        s.listing(kvs().collect(), 9);
        if !listed {
            s.events(vec![put(own, 10, 10)]);
        }
        let mut wanted = ["a/1", "a/2", own];
        wanted.sort();
        assert_eq!(s.names(), wanted);
        let all: Vec<_> = kvs().collect();
        if listed {
            assert_eq!(s.0.matches(&all), Ok(3), "nothing is amiss");
        }
    }
}

#[test]
fn g13_absurd_revisions_do_no_harm() {
    let mut s = Scribe::new(9);
    assert!(
        s.events(vec![put("a/1", 0, 0), put("a/1", -5, -5)])
            .is_empty()
    );
    s.events(vec![put("a/1", 1, i64::MAX)]);
    assert_eq!(s.0.applied(), i64::MAX);
    assert_eq!(s.listing(vec![], 3), ["ServerDown a/1@1 (missing) r3"]);
}

/// Failure-modes row 10: what a reconcile has to see.
#[test]
fn g1_matches_sees_every_difference_and_nothing_else() {
    let mut s = Scribe::new(9);
    let lost = Err(Why::LostEvents);
    s.listing(vec![kv("a/1", 2, 2, 7), kv("b/1", 3, 4, 7)], 5);
    let same = [kv("a/1", 2, 2, 7), kv("b/1", 3, 4, 7)];
    assert_eq!(s.0.matches(&same), Ok(2));
    assert_eq!(s.0.matches(&same[..1]), Ok(1), "a lost DELETE: too few");
    assert_eq!(s.0.matches(&[kv("c/1", 5, 5, 7)]), lost, "a lost addition");
    assert_eq!(s.0.matches(&[kv("a/1", 2, 5, 7)]), lost, "a lost update");
    assert_eq!(s.0.matches(&[kv("a/1", 5, 5, 7)]), lost, "a lost restart");
    let restored = [kv("a/1", 2, 2, 8)];
    assert_eq!(s.0.matches(&restored), lost, "a value of after a restore");
    let mut foreign = kv("a/1", 5, 5, 7);
    foreign.key = b"p/servers.bak".to_vec();
    assert_eq!(s.0.matches(&[foreign]), Ok(0));
}

/// Pitaya row 3.
#[test]
fn identity_is_type_and_id() {
    let mut s = Scribe::new(9);
    s.events(vec![put("x/same", 2, 2), put("y/same", 3, 3)]);
    let told = s.events(vec![delete("y/same", 4)]);
    assert_eq!(told, ["ServerDown y/same@3 (unknown) r4"]);
    assert_eq!(s.names(), ["x/same"]);
}

#[test]
fn members_of_a_type_are_not_those_of_its_neighbours() {
    let mut s = Scribe::new(9);
    for (n, name) in ["a/2", "a-b/1", "a0/1", "aa/1", "a/1", "b/1"]
        .iter()
        .enumerate()
    {
        s.events(vec![put(name, n as i64 + 2, n as i64 + 2)]);
    }
    let of = |t: &str| {
        s.0.of_type(t)
            .map(|m| m.name().to_owned())
            .collect::<Vec<_>>()
    };
    assert_eq!(of("a"), ["a/1", "a/2"]);
    assert!(of("").is_empty() && of("c").is_empty());
}
