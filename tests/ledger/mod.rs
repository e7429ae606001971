//! A listener's book: adds up what it is told, and panics at the first event that breaks G3.

// Every integration test is a crate of its own and uses only a part of this.
#![allow(dead_code)]

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use crossbeam_channel::Receiver;
use headcount::{Cluster, Event, Member};
use serde_json::{Value, json};

use crate::support::gateway::{Gateway, b64};

/// Incarnation and revision, by `type/id`.
pub type View = BTreeMap<String, (i64, i64)>;

#[derive(Default)]
pub struct Ledger {
    /// Who is there, by what was told.
    pub view: View,
    /// Everybody ever told of, as told last.
    last: View,
    pub synced: bool,
    /// Events about members.
    pub changes: u64,
    /// What `Lagged` said, summed up.
    pub folded: u64,
}

impl Ledger {
    #[track_caller]
    pub fn take(&mut self, event: &Event) {
        match event {
            Event::Synced => {
                assert!(!self.synced, "Synced twice");
                self.synced = true;
            }
            Event::Lagged { folded, .. } => self.folded += folded,
            _ => {}
        }
        let Some(member) = event.member() else { return };
        if matches!(event, Event::Suspect { .. } | Event::Cleared { .. }) {
            assert!(self.view.contains_key(member.name()), "{event}: nobody");
            return;
        }
        self.changes += 1;
        let name = member.name().to_owned();
        let now = (member.incarnation(), member.revision());
        let told = self.view.get(&name).copied();
        match event {
            Event::AddMember(_) => {
                assert_eq!(told, None, "{event}: a second Add");
                let before = self.last.get(&name).copied().unwrap_or_default();
                assert!(now.0 > before.0, "{event} after {before:?}: not a new life");
            }
            Event::UpdateMember { previous, .. } => {
                let before = Some((previous.incarnation(), previous.revision()));
                assert_eq!(told, before, "{event}: not from what was told");
                assert_eq!(now.0, previous.incarnation(), "{event}: another life");
                assert!(now.1 > previous.revision(), "{event}: backwards");
            }
            _ => {
                let told = told.unwrap_or_else(|| panic!("{event}: never told of it"));
                assert_eq!(told.0, now.0, "{event}: of another life");
                self.view.remove(&name);
                self.last.insert(name, now);
                return;
            }
        }
        self.view.insert(name.clone(), now);
        self.last.insert(name, now);
    }

    /// Takes events until one fits.
    #[track_caller]
    pub fn read_until(
        &mut self,
        events: &Receiver<Event>,
        bound: Duration,
        mut fits: impl FnMut(&Event) -> bool,
    ) -> Event {
        let give_up = Instant::now() + bound;
        loop {
            match events.recv_deadline(give_up) {
                Ok(event) => {
                    self.take(&event);
                    if fits(&event) {
                        return event;
                    }
                }
                Err(why) => panic!("no such event within {bound:?}: {why}"),
            }
        }
    }

    #[track_caller]
    pub fn read_until_synced(&mut self, events: &Receiver<Event>, bound: Duration) {
        self.read_until(events, bound, |event| matches!(event, Event::Synced));
    }
}

/// Whether the event says that this member is there.
pub fn adds(event: &Event, name: &str) -> bool {
    matches!(event, Event::AddMember(member) if member.name() == name)
}

pub fn view_of(cluster: &Cluster) -> View {
    let members = cluster.members();
    let entry = |m: &Member| (m.name().to_owned(), (m.incarnation(), m.revision()));
    members.iter().map(|m| entry(m)).collect()
}

/// The truth.
#[track_caller]
pub fn view_in(etcd: &Gateway) -> View {
    let all = etcd.list_prefix("pitaya/servers/");
    let name = |key: &str| key["pitaya/servers/".len()..].to_owned();
    let entry = |kv: &crate::support::gateway::Kv| (kv.create_revision, kv.mod_revision);
    all.iter().map(|kv| (name(&kv.key), entry(kv))).collect()
}

/// A server's value, as Pitaya writes it.
pub fn value(name: &str, step: u64) -> String {
    let (server_type, id) = name.split_once('/').expect("type/id");
    format!(
        r#"{{"id":"{id}","type":"{server_type}","metadata":{{"step":"{step}"}},"frontend":false,"hostname":"vm"}}"#
    )
}

pub fn put(name: &str, step: u64) -> Value {
    let (key, value) = (
        b64(format!("pitaya/servers/{name}")),
        b64(value(name, step)),
    );
    json!({ "request_put": { "key": key, "value": value } })
}

pub fn delete(name: &str) -> Value {
    json!({ "request_delete_range": { "key": b64(format!("pitaya/servers/{name}")) } })
}

/// All of it as one revision; etcd takes up to 128 operations.
#[track_caller]
pub fn commit(etcd: &Gateway, operations: Vec<Value>) {
    etcd.txn(&json!({ "success": operations }));
}

/// Puts one member.
#[track_caller]
pub fn add(etcd: &Gateway, name: &str) {
    commit(etcd, vec![put(name, 0)]);
}

/// A small generator (SplitMix64), so that every run makes the same history.
pub struct Random(pub u64);

impl Random {
    pub fn below(&mut self, bound: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (z ^ (z >> 31)) % bound
    }

    /// Some of the names put, some deleted, each at most once.
    pub fn changes(&mut self, names: &[String]) -> Vec<Value> {
        let (mut changes, step) = (Vec::new(), self.below(1_000_000));
        for name in names {
            match self.below(10) {
                0..3 => changes.push(put(name, step)),
                3 => changes.push(delete(name)),
                _ => {}
            }
        }
        changes
    }
}
