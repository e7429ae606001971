//! Does what the script says, and enters it as a deed: what breaks something before, what mends it
//! after.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use serde_json::json;

use super::cast::{self, Cast};
use super::script::{Cue, Fault, GROUPS, MEMBER_GROUPS, MEMBERS, NODES, SILENT, Step, Way};
use super::silent::Silent;
use super::stage::{Stage, key};
use super::watchers::{self, WATCHERS};
use crate::history::truth_reader::TruthReader;
use crate::history::{Deed, Deeds, Nanos, Whom, now};
use crate::support::gateway::b64;

/// Enough for a busy machine with an election on it.
const SOON: Duration = Duration::from_secs(30);
/// While nothing is broken, whoever keeps up is told within this.
pub const PROMPT: Duration = Duration::from_secs(2);

pub struct Director<'a> {
    pub stage: &'a Stage,
    pub truth: &'a TruthReader,
    pub deeds: Arc<Mutex<Deeds>>,
    pub cast: Cast,
    pub silent: Silent,
    /// What was done, by kind.
    pub done: BTreeMap<&'static str, u64>,
    /// What could not be done, for whoever it concerned was not there.
    pub skipped: BTreeMap<&'static str, u64>,
    /// Nodes that are down and not yet back.
    down: Vec<usize>,
    paused: Vec<usize>,
}

impl<'a> Director<'a> {
    pub fn new(stage: &'a Stage, truth: &'a TruthReader) -> Director<'a> {
        let deeds = Arc::<Mutex<Deeds>>::default();
        Director {
            stage,
            truth,
            cast: Cast::new(stage),
            silent: Silent::new(stage, &deeds),
            deeds,
            done: BTreeMap::new(),
            skipped: BTreeMap::new(),
            down: Vec::new(),
            paused: Vec::new(),
        }
    }

    fn enter(&self, deed: Deed) {
        self.deeds.lock().add(deed);
    }

    /// Who is not registered as what etcd holds, or is missing there.
    pub fn missing(&mut self, held: &BTreeMap<String, (i64, i64)>) -> Vec<String> {
        let life = |name: &str| held.get(name).map(|lives| lives.0);
        self.cast.dismiss_displaced();
        // Whoever was displaced by one that was killed leaves its name to nobody.
        self.cast.gather(&Arc::clone(&self.deeds));
        let mut missing = self.cast.missing(life);
        let silent = self.silent.names().filter(|name| life(name).is_none());
        missing.extend(silent.map(|name| format!("{name} is not there")));
        missing
    }

    pub fn raise_the_curtain(&mut self) {
        for member in 0..MEMBERS {
            self.cast.start(member, &self.deeds);
        }
    }

    /// The whole script, each cue in its time or, where the machine is too slow, as soon as may be.
    pub fn play(&mut self, script: &[Cue]) {
        let began = Instant::now();
        for cue in script {
            while began.elapsed() < cue.after {
                self.look_around();
                let left = cue.after.saturating_sub(began.elapsed());
                std::thread::sleep(left.min(Duration::from_millis(50)));
            }
            let happened = self.perform(cue.step);
            if let Some(kind) = cue.step.kind() {
                let table = match happened {
                    true => &mut self.done,
                    false => &mut self.skipped,
                };
                *table.entry(kind).or_default() += 1;
            }
        }
    }

    /// Nothing is broken, and everybody says something new: from when to when.
    pub fn coda(&mut self) -> (Nanos, Nanos) {
        let began = now();
        for member in 0..MEMBERS {
            assert!(self.cast.update(member), "all are there");
            std::thread::sleep(Duration::from_millis(100));
        }
        self.truth.catch_up(SOON);
        std::thread::sleep(PROMPT);
        (began, now())
    }

    /// What comes about by itself.
    fn look_around(&mut self) {
        let nodes = self.stage.etcd.nodes();
        let starting = |node: &usize| nodes[*node].pid().is_some();
        let back = self.down.iter().copied().filter(starting);
        let back: Vec<usize> = back.filter(|&node| nodes[node].healthy()).collect();
        for node in back {
            self.down.retain(|&other| other != node);
            self.enter(Deed::EtcdUp { node });
        }
        self.cast.dismiss_displaced();
    }

    /// Whether it could be done.
    fn perform(&mut self, step: Step) -> bool {
        let deeds = Arc::clone(&self.deeds);
        match step {
            Step::Kill(member) => self.cast.kill(member, &deeds),
            Step::Terminate(member) => self.cast.terminate(member, &deeds),
            Step::Stop(member) => self.cast.stop(member, &deeds),
            Step::Continue(member) => {
                self.cast.go_on(member, &deeds);
                true
            }
            Step::Start(member) => {
                self.cast.start(member, &deeds);
                true
            }
            Step::Twin(member) => self.cast.twin(member, &deeds),
            Step::Update(member) => self.cast.update(member),
            Step::DeleteKey(member) => self.delete_key(member),
            Step::RevokeLease(member) => self.revoke_lease(member),
            Step::SilentStarts(server) => {
                self.silent.start(server);
                true
            }
            Step::SilentDies(server) => self.silent.die(server),
            Step::SilentLeaves(server) => self.silent.leave(server),
            Step::Way(way, fault) => {
                self.way(way, fault);
                true
            }
            Step::KillLeader => self.leader_down(false),
            Step::PauseLeader => self.leader_down(true),
            Step::KillTwo => self.two_down(false),
            Step::PauseTwo => self.two_down(true),
            Step::StartNodes => {
                self.start_nodes();
                true
            }
            Step::ResumeNodes => {
                self.resume_nodes();
                true
            }
            Step::Compact => self.compact(),
            Step::Wipe => {
                self.wipe();
                true
            }
        }
    }

    fn way(&self, way: Way, fault: Fault) {
        let whom = Whom::These(self.whose(way.group));
        if fault == Fault::Pass {
            self.stage.way(way, fault);
            return self.enter(Deed::Healed { whom });
        }
        self.enter(Deed::Cut { whom: whom.clone() });
        self.stage.way(way, fault);
        if fault == Fault::Cut {
            self.enter(Deed::Healed { whom });
        }
    }

    /// Members and handles on that group's way.
    fn whose(&self, group: usize) -> Vec<String> {
        let members = (0..MEMBERS).filter(|&m| super::script::member_group(m) == group);
        let silent = (0..SILENT).filter(|n| n % MEMBER_GROUPS == group);
        let watchers = (0..WATCHERS).filter(|&w| watchers::group(w) == group);
        let mut all: Vec<String> = members.map(cast::name).collect();
        all.extend(silent.map(super::silent::name));
        for watcher in watchers {
            all.push(watchers::handle(watcher));
            all.extend(watchers::own(watcher));
        }
        all
    }

    fn node_down(&mut self, node: usize, paused: bool) {
        self.enter(Deed::EtcdDown { node });
        let etcd = self.stage.etcd.node(node);
        if paused {
            etcd.pause();
            self.paused.push(node);
        } else {
            etcd.kill();
            self.down.push(node);
        }
    }

    fn all_up(&self) -> bool {
        self.down.is_empty() && self.paused.is_empty()
    }

    /// Who leads, once the last fault of etcd's nodes is over.
    fn leader(&mut self) -> usize {
        let give_up = Instant::now() + SOON;
        loop {
            self.look_around();
            match self.stage.etcd.leader_now().filter(|_| self.all_up()) {
                Some(leader) => return leader,
                None if Instant::now() < give_up => std::thread::sleep(Duration::from_millis(50)),
                None => panic!(
                    "etcd isn't well: down {:?}, paused {:?}",
                    self.down, self.paused
                ),
            }
        }
    }

    fn leader_down(&mut self, paused: bool) -> bool {
        let leader = self.leader();
        self.node_down(leader, paused);
        true
    }

    fn two_down(&mut self, paused: bool) -> bool {
        let leader = self.leader();
        self.node_down(leader, paused);
        self.node_down((leader + 1) % NODES, paused);
        true
    }

    fn start_nodes(&mut self) {
        // That they are up is entered when they are.
        self.stage
            .etcd
            .nodes()
            .iter()
            .for_each(|node| node.launch());
    }

    fn resume_nodes(&mut self) {
        for node in std::mem::take(&mut self.paused) {
            self.stage.etcd.node(node).resume();
            self.enter(Deed::EtcdUp { node });
        }
    }

    fn delete_key(&self, member: usize) -> bool {
        let name = self.cast.name(member).to_owned();
        let Some((gateway, _)) = self.stage.key(&name) else {
            return false;
        };
        let body = json!({ "key": b64(key(&name)) });
        self.enter(Deed::KeyDeleted { name });
        // Whether or not the answer comes.
        let _ = gateway.try_post("/v3/kv/deleterange", &body);
        true
    }

    fn revoke_lease(&self, member: usize) -> bool {
        let name = self.cast.name(member).to_owned();
        let found = self.stage.key(&name);
        let Some((gateway, kv)) = found.filter(|(_, kv)| kv.lease != 0) else {
            return false;
        };
        let lease = kv.lease;
        self.enter(Deed::LeaseRevoked { name, lease });
        let body = json!({ "ID": lease.to_string() });
        let _ = gateway.try_post("/v3/lease/revoke", &body);
        true
    }

    fn compact(&self) -> bool {
        let Some(gateway) = self.stage.straight().filter(|_| self.all_up()) else {
            return false;
        };
        // Whoever writes the truth has to have read what is about to be forgotten.
        let revision = self.truth.catch_up(SOON);
        self.enter(Deed::Compacted { revision });
        let body = json!({ "revision": revision.to_string(), "physical": true });
        // Where that very revision is compacted already, it says so.
        let _ = gateway.try_post("/v3/kv/compaction", &body);
        true
    }

    /// Nobody but the truth sees the last that the old store did.
    fn wipe(&mut self) {
        self.resume_nodes();
        self.start_nodes();
        self.stage.etcd.wait_healthy(SOON);
        self.look_around();
        let whom = Whom::Everybody;
        self.enter(Deed::Cut { whom });
        self.stage.all_ways(Fault::BlackHole);
        self.truth.catch_up(SOON);
        self.enter(Deed::Wiped);
        for node in 0..NODES {
            self.enter(Deed::EtcdDown { node });
        }
        self.stage.etcd.wipe();
        for node in 0..NODES {
            self.enter(Deed::EtcdUp { node });
        }
        self.truth.catch_up(SOON);
        self.stage.all_ways(Fault::Pass);
        let whom = Whom::Everybody;
        self.enter(Deed::Healed { whom });
    }

    /// Everything is as it should be, or about to be.
    pub fn heal(&mut self) {
        self.resume_nodes();
        self.start_nodes();
        self.stage.etcd.wait_healthy(SOON);
        self.look_around();
        self.stage.all_ways(Fault::Pass);
        for group in 0..GROUPS {
            let whom = Whom::These(self.whose(group));
            self.enter(Deed::Healed { whom });
        }
        let deeds = Arc::clone(&self.deeds);
        self.cast.gather(&deeds);
        for server in 0..SILENT {
            self.silent.start(server);
        }
    }
}
