//! Servers as Pitaya's in Go, whatever becomes of etcd: a plain put on a lease that is renewed each
//! third of its time, and got anew when it is lost. Whoever leaves revokes it; nobody writes notes.

use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, RecvTimeoutError, Sender, bounded};
use parking_lot::Mutex;
use serde_json::{Value, json};

use super::script::{MEMBER_GROUPS, SILENT};
use super::stage::{Stage, key};
use crate::history::{Deed, Deeds};
use crate::ledger::value;
use crate::support::gateway::{Gateway, b64, int};

const TTL: Duration = Duration::from_secs(5);
/// One try.
const ANSWER: Duration = Duration::from_millis(700);

pub struct Silent {
    servers: Vec<(String, Vec<String>, Option<Server>)>,
    deeds: Arc<Mutex<Deeds>>,
}

struct Server {
    end: Sender<End>,
    thread: JoinHandle<()>,
}

#[derive(Clone, Copy, PartialEq)]
enum End {
    Leave,
    Die,
}

/// What a silent server is called.
pub fn name(server: usize) -> String {
    format!("go/{server}")
}

impl Silent {
    pub fn new(stage: &Stage, deeds: &Arc<Mutex<Deeds>>) -> Silent {
        let endpoints = |n: usize| stage.endpoints(n % MEMBER_GROUPS);
        let servers = (0..SILENT).map(|n| (name(n), endpoints(n), None));
        Silent {
            servers: servers.collect(),
            deeds: Arc::clone(deeds),
        }
    }

    /// Nothing happens where it runs.
    pub fn start(&mut self, server: usize) {
        let (name, endpoints, now) = &mut self.servers[server];
        if now.is_some() {
            return;
        }
        let (end, ended) = bounded(1);
        let life = Life {
            name: name.clone(),
            gateways: endpoints
                .iter()
                .map(|e| Gateway::with_timeout(e.clone(), ANSWER))
                .collect(),
            at: server,
            ended,
            deeds: Arc::clone(&self.deeds),
        };
        let (name, pid) = (name.clone(), std::process::id());
        self.deeds.lock().add(Deed::Started { name, pid });
        let thread = std::thread::spawn(move || life.run());
        *now = Some(Server { end, thread });
    }

    pub fn leave(&mut self, server: usize) -> bool {
        self.end(server, End::Leave)
    }

    pub fn die(&mut self, server: usize) -> bool {
        self.end(server, End::Die)
    }

    fn end(&mut self, server: usize, how: End) -> bool {
        let (name, _, now) = &mut self.servers[server];
        let Some(server) = now.take() else {
            return false;
        };
        let name = name.clone();
        self.deeds.lock().add(match how {
            End::Leave => Deed::Terminated { name },
            End::Die => Deed::Killed { name },
        });
        // Its thread may be in a request.
        let _ = server.end.send(how);
        server.thread.join().expect("it does not panic");
        true
    }

    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.servers.iter().map(|(name, ..)| name.as_str())
    }
}

impl Drop for Silent {
    fn drop(&mut self) {
        for (_, _, now) in &mut self.servers {
            if let Some(server) = now.take() {
                let _ = server.end.send(End::Die);
                let _ = server.thread.join();
            }
        }
    }
}

struct Life {
    name: String,
    gateways: Vec<Gateway>,
    at: usize,
    ended: Receiver<End>,
    deeds: Arc<Mutex<Deeds>>,
}

impl Life {
    fn run(mut self) {
        let mut lease = None;
        loop {
            let next = match lease {
                None => {
                    lease = self.register();
                    Duration::from_millis(200)
                }
                Some(id) => {
                    let body = json!({ "ID": i64::to_string(&id) });
                    match self.ask("/v3/lease/keepalive", &body) {
                        Some(answer) if answer["result"]["TTL"].is_string() => TTL / 3,
                        Some(_) => {
                            lease = None;
                            continue;
                        }
                        None => Duration::from_millis(100),
                    }
                }
            };
            match self.ended.recv_timeout(next) {
                Err(RecvTimeoutError::Timeout) => {}
                Ok(End::Leave) => return self.leave(lease),
                Ok(End::Die) | Err(RecvTimeoutError::Disconnected) => return,
            }
        }
    }

    fn register(&mut self) -> Option<i64> {
        let ttl = TTL.as_secs().to_string();
        let granted = self.ask("/v3/lease/grant", &json!({ "TTL": ttl }))?;
        let lease = int(&granted["ID"]);
        let (key, value) = (b64(key(&self.name)), b64(value(&self.name, 0)));
        let put = json!({ "key": key, "value": value, "lease": lease.to_string() });
        self.ask("/v3/kv/put", &put).map(|_| lease)
    }

    fn leave(&mut self, lease: Option<i64>) {
        let Some(lease) = lease else { return };
        let name = self.name.clone();
        self.deeds.lock().add(Deed::LeaseRevoked { name, lease });
        let give_up = Instant::now() + Duration::from_secs(2);
        let body = json!({ "ID": lease.to_string() });
        while self.ask("/v3/lease/revoke", &body).is_none() && Instant::now() < give_up {}
    }

    /// One try at the endpoint that answered last; the next time at the next.
    fn ask(&mut self, path: &str, body: &Value) -> Option<Value> {
        let gateway = &self.gateways[self.at % self.gateways.len()];
        match gateway.try_post(path, body) {
            Ok((200, answer)) if answer.get("error").is_none() => Some(answer),
            _ => {
                self.at += 1;
                None
            }
        }
    }
}
