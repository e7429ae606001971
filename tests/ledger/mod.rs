//! A listener's book: adds up what it is told, and panics at the first event that breaks a rule of
//! [`Pairing`](crate::history::pairing::Pairing).

// Every integration test is a crate of its own and uses only a part of this.
#![allow(dead_code)]

use std::collections::BTreeMap;
use std::ops::Deref;
use std::time::{Duration, Instant};

use crossbeam_channel::Receiver;
use headcount::{Cluster, Event, Member};
use serde_json::{Value, json};

use crate::history::pairing::Pairing;
use crate::history::{At, Told, now};
use crate::support::gateway::{Gateway, b64};
pub use crate::support::random::Random;

/// Incarnation and revision, by `type/id`.
pub type View = BTreeMap<String, (i64, i64)>;

#[derive(Default)]
pub struct Ledger {
    book: Pairing,
    /// Who is there, by what was told.
    pub view: View,
    /// All events, when they were read, if they are to be kept.
    pub entries: Option<Vec<At<Told>>>,
}

/// What was counted on the way.
impl Deref for Ledger {
    type Target = Pairing;

    fn deref(&self) -> &Pairing {
        &self.book
    }
}

impl Ledger {
    #[track_caller]
    pub fn take(&mut self, event: &Event) {
        let told = Told::from(event);
        if let Err(broken) = self.book.hear(&told) {
            panic!("{}: {told}: {}", broken.guarantee, broken.why);
        }
        if let Some(entries) = &mut self.entries {
            let what = told.clone();
            entries.push(At { at: now(), what });
        }
        let Some(seen) = told.change() else { return };
        let (name, now) = (seen.name.clone(), (seen.incarnation, seen.revision));
        match told.departure() {
            Some(_) => self.view.remove(&name),
            None => self.view.insert(name, now),
        };
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

impl Random {
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
