//! Reads etcd's history by a direct watch of everything, from revision 1 on.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::SeqCst};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use parking_lot::{Condvar, Mutex};
use serde_json::{Value, json};

use super::{Act, Change, Epoch, Truth, now};
use crate::support::gateway::{Gateway, Lines, Next, b64, int, unb64};

/// So long a node may say nothing before another one is asked; a watch asks for progress by ending.
const SILENCE: Duration = Duration::from_millis(1500);

/// A thread that reads the truth. Give it the nodes' own endpoints: nothing that a test breaks on
/// purpose may lie in between.
pub struct TruthReader {
    shared: Arc<Shared>,
    endpoints: Vec<String>,
    thread: Option<JoinHandle<()>>,
}

struct Shared {
    stop: AtomicBool,
    truth: Mutex<Truth>,
    grown: Condvar,
    /// What went wrong for good: the truth is no longer complete.
    broken: Mutex<Option<String>>,
}

impl TruthReader {
    pub fn start(prefix: &str, endpoints: Vec<String>) -> TruthReader {
        let prefix = prefix.to_owned();
        let epochs = Vec::new();
        let shared = Arc::new(Shared {
            stop: AtomicBool::new(false),
            truth: Mutex::new(Truth { prefix, epochs }),
            grown: Condvar::new(),
            broken: Mutex::new(None),
        });
        let (work, nodes) = (Arc::clone(&shared), endpoints.clone());
        let thread = std::thread::Builder::new()
            .name("truth".into())
            .spawn(move || work.run(&nodes));
        TruthReader {
            shared,
            endpoints,
            thread: Some(thread.expect("a thread")),
        }
    }

    /// Waits until everything was read that etcd holds now; that revision.
    #[track_caller]
    pub fn catch_up(&self, bound: Duration) -> i64 {
        let give_up = Instant::now() + bound;
        let (held, cluster) = loop {
            let ask = |e: &String| revision(&Gateway::with_timeout(e.clone(), SILENCE));
            if let Some(answer) = self.endpoints.iter().find_map(ask) {
                break answer;
            }
            assert!(Instant::now() < give_up, "no etcd answers within {bound:?}");
        };
        let read = |epoch: &Epoch| epoch.cluster_id == cluster && epoch.read_to >= held;
        self.wait(bound, |truth| truth.epochs.last().is_some_and(read));
        held
    }

    #[track_caller]
    fn wait(&self, bound: Duration, fits: impl Fn(&Truth) -> bool) {
        let give_up = Instant::now() + bound;
        let mut truth = self.shared.truth.lock();
        while !fits(&truth) {
            if let Some(why) = &*self.shared.broken.lock() {
                panic!("the truth is lost: {why}");
            }
            let late = self.shared.grown.wait_until(&mut truth, give_up);
            if late.timed_out() && !fits(&truth) {
                let read = truth.epochs.last().map(|e| (e.cluster_id, e.read_to));
                panic!("not read within {bound:?}; there is {read:?}");
            }
        }
    }

    /// What was read so far.
    #[track_caller]
    pub fn truth(&self) -> Truth {
        if let Some(why) = &*self.shared.broken.lock() {
            panic!("the truth is lost: {why}");
        }
        self.shared.truth.lock().clone()
    }
}

impl Drop for TruthReader {
    fn drop(&mut self) {
        self.shared.stop.store(true, SeqCst);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

impl Shared {
    fn stops(&self) -> bool {
        self.stop.load(SeqCst) || self.broken.lock().is_some()
    }

    fn run(&self, endpoints: &[String]) {
        for endpoint in endpoints.iter().cycle() {
            if self.stops() {
                return;
            }
            let gateway = Gateway::with_timeout(endpoint.clone(), SILENCE);
            if let Err(why) = self.read_from(&gateway) {
                if why.starts_with("lost") {
                    *self.broken.lock() = Some(why);
                    return;
                }
                std::thread::sleep(Duration::from_millis(20));
            }
        }
    }

    /// One connection's worth.
    fn read_from(&self, gateway: &Gateway) -> Result<(), String> {
        let (held, cluster) = revision(gateway).ok_or("no answer")?;
        let from = self.resume_at(held, cluster);
        let create = json!({ "create_request": {
            "key": b64("\0"), "range_end": b64("\0"), "start_revision": from.to_string(),
            "prev_kv": true, "progress_notify": true,
        }});
        let leader = [("Grpc-Metadata-hasleader", "true")];
        let body = create.to_string();
        let mut lines = gateway.try_stream("/v3/watch", &leader, &body, SILENCE)?;
        loop {
            let Some(message) = self.next(&mut lines, gateway)? else {
                continue;
            };
            let result = &message["result"];
            if let Some(error) = message.get("error") {
                return Err(error.to_string());
            }
            if int(&result["compact_revision"]) > 0 {
                return Err(format!("lost to a compaction: {result}"));
            }
            if result["canceled"] == true {
                return Err(result.to_string());
            }
            let header = &result["header"];
            if cluster_of(header) != cluster {
                return Ok(());
            }
            self.take(cluster, result);
        }
    }

    /// The next message. Silence is fine where etcd has nothing to say.
    fn next(&self, lines: &mut Lines, gateway: &Gateway) -> Result<Option<Value>, String> {
        let asked = Instant::now();
        loop {
            match lines.next_raw(Duration::from_millis(50)) {
                Next::Line(line) => {
                    return serde_json::from_str(&line)
                        .map(Some)
                        .map_err(|e| e.to_string());
                }
                Next::Silence => {}
                other => return Err(format!("{other:?}")),
            }
            if self.stop.load(SeqCst) {
                return Err("stopped".into());
            }
            if asked.elapsed() < SILENCE {
                continue;
            }
            let (held, cluster) = revision(gateway).ok_or("no answer")?;
            let known = self
                .truth
                .lock()
                .epochs
                .last()
                .map(|e| (e.cluster_id, e.read_to));
            match known {
                Some((same, read)) if same == cluster && read >= held => return Ok(None),
                // It may be on its way; if not, the stream is dead.
                _ if asked.elapsed() < 2 * SILENCE => {}
                _ => return Err("silent".into()),
            }
        }
    }

    /// Where to go on, in which epoch.
    fn resume_at(&self, held: i64, cluster: u64) -> i64 {
        let mut truth = self.truth.lock();
        let goes_on = |epoch: &Epoch| epoch.cluster_id == cluster && epoch.read_to <= held;
        if !truth.epochs.last().is_some_and(goes_on) {
            truth.epochs.push(Epoch {
                cluster_id: cluster,
                changes: Vec::new(),
                // What an empty etcd begins with.
                read_to: 1,
            });
        }
        self.grown.notify_all();
        truth.epochs.last().expect("was just made").read_to + 1
    }

    fn take(&self, cluster: u64, result: &Value) {
        let at = now();
        let mut truth = self.truth.lock();
        let epoch = truth.epochs.last_mut().expect("was made before");
        assert_eq!(epoch.cluster_id, cluster);
        let events = result["events"].as_array();
        for event in events.into_iter().flatten() {
            let (kv, before) = (&event["kv"], &event["prev_kv"]);
            let revision = int(&kv["mod_revision"]);
            let act = match event["type"] == "DELETE" {
                true => Act::Delete {
                    create_revision: int(&before["create_revision"]),
                    lease: int(&before["lease"]),
                },
                false => Act::Put {
                    value: unb64(&kv["value"]),
                    lease: int(&kv["lease"]),
                    create_revision: int(&kv["create_revision"]),
                    version: int(&kv["version"]),
                },
            };
            let key = unb64(&kv["key"]);
            epoch.changes.push(Change {
                revision,
                at,
                key,
                act,
            });
            epoch.read_to = epoch.read_to.max(revision);
        }
        drop(truth);
        self.grown.notify_all();
    }
}

fn cluster_of(header: &Value) -> u64 {
    let id = header["cluster_id"].as_str();
    id.and_then(|id| id.parse().ok()).unwrap_or_default()
}

/// Revision and cluster of a node that has a leader.
fn revision(gateway: &Gateway) -> Option<(i64, u64)> {
    let body = json!({ "key": b64("\0"), "count_only": true });
    let (status, answer) = gateway.try_post("/v3/kv/range", &body).ok()?;
    let header = &answer["header"];
    (status == 200).then(|| (int(&header["revision"]), cluster_of(header)))
}
