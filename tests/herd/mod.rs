//! Servers as Pitaya's in Go: a plain put on a lease that is renewed each third of its time; one
//! that ends well revokes it, one that crashes does nothing more. No notes.

// Every integration test is a crate of its own and uses only a part of this.
#![allow(dead_code)]

use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::ledger::{Random, value};
use crate::support::gateway::{Gateway, int};

/// How one of them is to live.
#[derive(Clone, Debug)]
pub struct Plan {
    pub name: String,
    pub ttl: u64,
    pub life: Duration,
    pub graceful: bool,
}

/// How it went.
#[derive(Clone, Debug)]
pub struct Life {
    pub plan: Plan,
    pub began: Instant,
    pub ended: Instant,
}

/// One server, at whichever of the endpoints answers.
pub struct Server {
    gateways: Vec<Gateway>,
    at: usize,
    pub lease: i64,
    pub ttl: Duration,
    /// When it asked for the lease and for each renewal, and had it.
    pub renewals: Vec<(Instant, Instant)>,
}

impl Server {
    #[track_caller]
    pub fn start(endpoints: &[String], name: &str, ttl: u64) -> Server {
        let timeout = Duration::from_millis(match endpoints.len() {
            1 => 10_000,
            _ => 700,
        });
        let gateway = |e: &String| Gateway::with_timeout(e.clone(), timeout);
        let mut server = Server {
            gateways: endpoints.iter().map(gateway).collect(),
            at: 0,
            lease: 0,
            ttl: Duration::from_secs(ttl),
            renewals: vec![],
        };
        let asked = Instant::now();
        let granted = server.ask("/v3/lease/grant", &json!({ "TTL": ttl.to_string() }));
        server.lease = int(&granted["ID"]);
        server.renewals.push((asked, Instant::now()));
        let at = server.at;
        server.gateways[at].put(&crate::told::key(name), value(name, 0), server.lease);
        server
    }

    /// Asks one after another until there is an answer.
    fn ask(&mut self, path: &str, body: &Value) -> Value {
        let give_up = Instant::now() + Duration::from_secs(10);
        loop {
            let answer = self.gateways[self.at].try_post(path, body);
            match answer {
                Ok((200, answer)) if answer.get("error").is_none() => return answer,
                other if Instant::now() > give_up => panic!("{path}: {other:?}"),
                _ => self.at = (self.at + 1) % self.gateways.len(),
            }
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    /// Lives until then. Go's client looks twice a second what is due.
    pub fn live(&mut self, until: Instant, random: &mut Random) {
        loop {
            let tick = Duration::from_millis(random.below(500));
            let (renewed, _) = self.renewals.last().expect("granted");
            let next = *renewed + self.ttl / 3 + tick;
            let now = Instant::now();
            std::thread::sleep(next.min(until).saturating_duration_since(now));
            if next >= until {
                return;
            }
            self.renew();
        }
    }

    pub fn renew(&mut self) {
        let asked = Instant::now();
        let lease = json!({ "ID": self.lease.to_string() });
        let answer = self.ask("/v3/lease/keepalive", &lease);
        assert!(answer["result"]["TTL"].is_string(), "the lease is gone");
        self.renewals.push((asked, Instant::now()));
    }

    pub fn leave(&mut self) {
        let lease = json!({ "ID": self.lease.to_string() });
        self.ask("/v3/lease/revoke", &lease);
    }
}

impl Plan {
    /// A life of a random length, from its first moment on, so that it ends at a random moment of
    /// the renewal cycle; on a TTL of 3 s to `most`.
    pub fn random(name: String, graceful: bool, most: u64, random: &mut Random) -> Plan {
        let ttl = 3 + random.below(most - 2);
        let life = Duration::from_millis(random.below(ttl * 1300));
        Plan {
            name,
            ttl,
            life,
            graceful,
        }
    }

    pub fn run(self, endpoints: &[String], random: &mut Random) -> Life {
        let mut server = Server::start(endpoints, &self.name, self.ttl);
        let began = Instant::now();
        server.live(began + self.life, random);
        let ended = Instant::now();
        if self.graceful {
            server.leave();
        }
        Life {
            plan: self,
            began,
            ended,
        }
    }
}

/// Runs all plans, so many at a time.
pub fn run(endpoints: &[String], plans: Vec<Plan>, at_a_time: usize) -> Vec<Life> {
    let (send, take) = crossbeam_channel::unbounded();
    plans.into_iter().for_each(|plan| send.send(plan).unwrap());
    drop(send);
    std::thread::scope(|scope| {
        let worker = |seed: usize| {
            let take = take.clone();
            move || {
                let mut random = Random(seed as u64);
                let live = |plan: Plan| plan.run(endpoints, &mut random);
                take.iter().map(live).collect::<Vec<_>>()
            }
        };
        let workers: Vec<_> = (0..at_a_time).map(|n| scope.spawn(worker(n))).collect();
        workers
            .into_iter()
            .flat_map(|worker| worker.join().expect("they all end"))
            .collect()
    })
}
