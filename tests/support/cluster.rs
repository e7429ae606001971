use std::time::Duration;

use serde_json::json;

use super::etcd::Etcd;
use super::gateway::{Gateway, int};
use super::wait::{eventually, until};

/// Several etcd nodes that are one cluster.
pub struct EtcdCluster {
    nodes: Vec<Etcd>,
}

impl EtcdCluster {
    /// A cluster of that many nodes in which all are up and one leads.
    #[track_caller]
    pub fn start(size: usize) -> EtcdCluster {
        EtcdCluster::start_with(size, &[])
    }

    /// `start`, with these arguments for every node.
    #[track_caller]
    pub fn start_with(size: usize, args: &[&str]) -> EtcdCluster {
        // Every node must know every peer's address before the first one starts.
        let mut nodes: Vec<Etcd> = (0..size)
            .map(|n| {
                let mut options = Etcd::options().args(args.iter().copied());
                options.name = format!("n{n}");
                options.prepare()
            })
            .collect();
        let all: Vec<String> = nodes
            .iter()
            .enumerate()
            .map(|(n, node)| format!("n{n}={}", node.peer_url()))
            .collect();
        for node in &mut nodes {
            node.join(all.join(","));
            node.launch();
        }
        let cluster = EtcdCluster { nodes };
        cluster.wait_healthy(Duration::from_secs(60));
        cluster
    }

    pub fn endpoints(&self) -> Vec<String> {
        self.nodes.iter().map(Etcd::endpoint).collect()
    }

    pub fn node(&self, index: usize) -> &Etcd {
        &self.nodes[index]
    }

    pub fn nodes(&self) -> &[Etcd] {
        &self.nodes
    }

    /// Who leads; waits for an election to end.
    #[track_caller]
    pub fn leader(&self) -> usize {
        eventually(Duration::from_secs(20), "a leader", || self.leader_now())
    }

    /// Who says of itself that it leads, in the highest term: one that was paused may still believe
    /// it. A node that doesn't answer at once isn't asked twice.
    pub fn leader_now(&self) -> Option<usize> {
        let claims = self
            .nodes
            .iter()
            .enumerate()
            .filter(|(_, node)| node.pid().is_some());
        let claims = claims.filter_map(|(index, node)| {
            let gateway = Gateway::with_timeout(node.endpoint(), Duration::from_millis(500));
            let (_, status) = gateway
                .try_post("/v3/maintenance/status", &json!({}))
                .ok()?;
            let leads =
                status["leader"].is_string() && status["leader"] == status["header"]["member_id"];
            leads.then(|| (int(&status["raftTerm"]), index))
        });
        claims.max().map(|(_, index)| index)
    }

    /// Any node but the leader.
    #[track_caller]
    pub fn follower(&self) -> usize {
        let leader = self.leader();
        (0..self.nodes.len())
            .find(|&index| index != leader)
            .expect("more than one node")
    }

    /// All data of all nodes lost: another cluster, at the same addresses, that starts at
    /// revision 1.
    #[track_caller]
    pub fn wipe(&self) {
        self.nodes.iter().for_each(Etcd::new_generation);
        self.nodes.iter().for_each(Etcd::forget);
        self.nodes.iter().for_each(Etcd::launch);
        self.wait_healthy(Duration::from_secs(60));
    }

    /// Waits until every node answers reads.
    #[track_caller]
    pub fn wait_healthy(&self, bound: Duration) {
        for (index, node) in self.nodes.iter().enumerate() {
            if node.pid().is_some() {
                node.wait_ready(bound);
            } else {
                panic!("node {index} isn't running: restart it first");
            }
        }
        until(bound, "a leader", || self.leader_now().is_some());
    }
}
