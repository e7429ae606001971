//! Where it plays: three etcd nodes, and the ways there, which can be broken group by group.

use std::time::Duration;

use serde_json::{Value, json};

use super::script::{Fault, GROUPS, NODES, Way};
use crate::support::cluster::EtcdCluster;
use crate::support::gateway::{Gateway, Kv, b64};
use crate::support::proxy::Proxy;

/// Enough for an etcd with a leader on a busy machine.
const ANSWER: Duration = Duration::from_secs(3);

pub struct Stage {
    pub etcd: EtcdCluster,
    /// `ways[group][node]`.
    ways: Vec<Vec<Proxy>>,
}

impl Stage {
    pub fn set() -> Stage {
        let etcd = EtcdCluster::start(NODES);
        // So that no member has the same incarnation before and after a wipe, by which a judge
        // could not tell the two.
        let gateway = etcd.node(0).gateway();
        for n in 0..200 {
            gateway.put("elsewhere", n.to_string(), 0);
        }
        let way = |_| {
            let proxies = etcd
                .nodes()
                .iter()
                .map(|node| Proxy::start(&node.address()));
            proxies.collect()
        };
        let ways = (0..GROUPS).map(way).collect();
        Stage { etcd, ways }
    }

    /// What a group is told that etcd's endpoints are.
    pub fn endpoints(&self, group: usize) -> Vec<String> {
        self.ways[group].iter().map(Proxy::endpoint).collect()
    }

    pub fn way(&self, way: Way, fault: Fault) {
        for (node, proxy) in self.ways[way.group].iter().enumerate() {
            if way.node.is_some_and(|only| only != node) {
                continue;
            }
            match fault {
                Fault::Cut => proxy.cut(),
                Fault::Delay(ms) => proxy.delay(Duration::from_millis(ms)),
                Fault::Chop(size) => proxy.chunk(size),
                Fault::BlackHole => proxy.black_hole(),
                Fault::Refuse => {
                    proxy.refuse();
                    proxy.cut();
                }
                Fault::Stall => proxy.stall(),
                Fault::Pass => proxy.pass(),
            }
        }
    }

    pub fn all_ways(&self, fault: Fault) {
        for group in 0..GROUPS {
            self.way(Way { group, node: None }, fault);
        }
    }

    /// A straight way to a node that answers with a leader behind it.
    pub fn straight(&self) -> Option<Gateway> {
        let running = self.etcd.nodes().iter().filter(|node| node.pid().is_some());
        running
            .map(|node| Gateway::with_timeout(node.endpoint(), ANSWER))
            .find(|gateway| read(gateway, "\0").is_some())
    }

    /// The member's key, where etcd can be asked.
    pub fn key(&self, name: &str) -> Option<(Gateway, Kv)> {
        let gateway = self.straight()?;
        let body = json!({ "key": b64(key(name)) });
        let (status, _) = gateway.try_post("/v3/kv/range", &body).ok()?;
        let found = (status == 200).then(|| gateway.get(&key(name)))??;
        Some((gateway, found))
    }
}

/// Where a member stands.
pub fn key(name: &str) -> String {
    format!("pitaya/servers/{name}")
}

fn read(gateway: &Gateway, key: &str) -> Option<Value> {
    let body = json!({ "key": b64(key), "count_only": true });
    let (status, answer) = gateway.try_post("/v3/kv/range", &body).ok()?;
    (status == 200).then_some(answer)
}
