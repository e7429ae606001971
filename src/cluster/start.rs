//! Puts a cluster handle and its threads together.

use std::sync::Arc;
use std::time::{Duration, Instant};

use crossbeam_channel::bounded;
use parking_lot::Mutex;

use super::{Cluster, Identity, Running};
use crate::delay::MassLoss;
use crate::error::Error;
use crate::etcd::{Client, Shared};
use crate::heartbeat::Checker;
use crate::hub::{Hub, Setup};
use crate::jitter::{self, Backoff, Random};
use crate::lease::{Keeper, Own};
use crate::member::{Document, Keyspace, Metadata};
use crate::roster::{Rules, TypeFilter};
use crate::settings::{Check, Settings};
use crate::stats::Counters;
use crate::watch::{Plan, Sizes, Timing, Watcher};
use crate::worker::{Worker, join, spawn};

/// A look at a lease is of no use if it takes longer.
const LOOK: Duration = Duration::from_secs(1);

impl Cluster {
    pub(crate) fn start(settings: Settings) -> Result<Cluster, Error> {
        let shared = Arc::new(connection(&settings)?);
        let keys = Keyspace::new(&settings.prefix);
        let name = settings
            .member
            .as_ref()
            .map(|(t, id)| format!("{t}/{id}").into_boxed_str());
        let instance = jitter::token();
        let rules = Arc::new(rules(&settings, &keys, name.clone()));
        let (hub, wakers) = Hub::new(Setup {
            rules: Arc::clone(&rules),
            own: name.clone().map(|name| (name, instance.clone())),
            check: settings.check,
            check_rate: settings.check_rate,
            verdict_timeout: settings.verdict_timeout,
            mass_loss: MassLoss {
                share: settings.mass_loss_share,
                hold: settings.mass_loss_hold,
            },
        });
        let hub = Arc::new(hub);
        let counters = Arc::new(Counters::default());
        let backoff = |settings: &Settings| Backoff::new(settings.backoff, Random::new());
        let (update, updates) = bounded(0);

        let mut keeper = None;
        let mut identity = None;
        if let Some(name) = name {
            let own = Arc::new(Own::default());
            let metadata = settings
                .metadata
                .iter()
                .map(|(k, v)| (k.as_str(), v.as_str()));
            let document = document(&settings, metadata.collect(), &instance);
            check_size(&document, &name, &settings)?;
            let client = Arc::new(Client::new(Arc::clone(&shared)));
            let (hub, counters) = (Arc::clone(&hub), Arc::clone(&counters));
            let prepared = Keeper {
                client: Arc::clone(&client),
                hub,
                own: Arc::clone(&own),
                counters,
                keys: keys.clone(),
                name: name.clone(),
                document,
                ttl: settings.ttl,
                on_conflict: settings.on_conflict,
                request_timeout: settings.request_timeout,
                backoff: backoff(&settings),
                last: None,
                rounds: 0,
                touched: wakers.touched,
                updates,
            };
            keeper = Some((client, prepared));
            identity = Some(Identity {
                name,
                instance,
                keys,
                own,
                updates: update,
            });
        }

        let flusher = {
            let hub = Arc::clone(&hub);
            spawn("headcount-flush", move || hub.run_flusher(&wakers.nudged))?
        };
        let client = Arc::new(Client::new(Arc::clone(&shared)));
        let mut watcher = Watcher {
            client: Arc::clone(&client),
            hub: Arc::clone(&hub),
            rules,
            counters: Arc::clone(&counters),
            request_timeout: settings.request_timeout,
            sizes: Sizes::default(),
            plan: Plan::new(
                Timing {
                    stall_bound: settings.stall_bound,
                    connect_timeout: settings.connect_timeout,
                    request_timeout: settings.request_timeout,
                    reconcile_interval: settings.reconcile_interval,
                    endpoints: client.endpoints(),
                },
                backoff(&settings),
                Random::new(),
                Instant::now(),
            ),
        };
        let watcher = Worker::spawn("headcount-watch", client, move |stop| watcher.run(stop));
        let watcher = match watcher {
            Ok(watcher) => watcher,
            Err(error) => {
                hub.close(Instant::now());
                join(flusher);
                return Err(error);
            }
        };
        let running = Mutex::new(Some(Running {
            watcher,
            checker: None,
            keeper: None,
            flusher,
        }));
        let handlers = Mutex::new(Vec::new());
        let cluster = Cluster {
            hub,
            counters,
            identity,
            settings,
            shared,
            running,
            handlers,
        };

        // From here on an early return drops `cluster`, which ends what was started.
        if cluster.settings.check != Check::Nobody {
            let client = Arc::new(Client::new(Arc::clone(&cluster.shared)));
            let mut checker = Checker {
                client: Arc::clone(&client),
                hub: Arc::clone(&cluster.hub),
                counters: Arc::clone(&cluster.counters),
                budget: cluster.settings.request_timeout.min(LOOK),
                backoff: backoff(&cluster.settings),
                keys: Keyspace::new(&cluster.settings.prefix),
                nudged: wakers.asked,
            };
            let run = move |stop: &_| checker.run(stop);
            let worker = Worker::spawn("headcount-beats", client, run)?;
            if let Some(running) = &mut *cluster.running.lock() {
                running.checker = Some(worker);
            }
        }
        if let Some((client, mut keeper)) = keeper {
            let worker = Worker::spawn("headcount-lease", client, move |stop| keeper.run(stop))?;
            if let Some(running) = &mut *cluster.running.lock() {
                running.keeper = Some(worker);
            }
        }
        if !cluster.settings.start_without_store {
            cluster.ready()?;
        }
        Ok(cluster)
    }
}

fn connection(settings: &Settings) -> Result<Shared, Error> {
    let endpoints = settings.check()?;
    let tls = settings.tls.as_ref().map(|tls| tls.load()).transpose();
    Ok(Shared::new(
        endpoints,
        settings.connect_timeout,
        settings.max_frame_bytes,
        settings.credentials.clone(),
        tls.map_err(|reason| Error::Setting {
            setting: "tls",
            reason,
        })?,
    ))
}

fn rules(settings: &Settings, keys: &Keyspace, own: Option<Box<str>>) -> Rules {
    let boxed = |types: &[String]| types.iter().map(|t| t.as_str().into()).collect();
    let (only, except) = (boxed(&settings.only_types), boxed(&settings.except_types));
    Rules {
        keys: keys.clone(),
        filter: TypeFilter { only, except, own },
        max_value_bytes: settings.max_value_bytes,
        max_members: settings.max_members,
    }
}

/// What this process says about itself.
pub(super) fn document(settings: &Settings, metadata: Metadata, instance: &str) -> Document {
    let hostname = settings.hostname.clone().unwrap_or_else(system_hostname);
    Document {
        metadata,
        frontend: settings.frontend,
        hostname: hostname.into(),
        instance: Some(instance.into()),
    }
}

/// Peers with the same limits would skip what is larger.
pub(super) fn check_size(
    document: &Document,
    name: &str,
    settings: &Settings,
) -> Result<(), Error> {
    let (size, limit) = (document.to_json(name).len(), settings.max_value_bytes);
    if size > limit {
        let reason = format!("{size} bytes as JSON are beyond max_value_bytes, {limit}");
        return Err(Error::Setting {
            setting: "metadata",
            reason,
        });
    }
    Ok(())
}

/// The system's host name; empty where it can't be had without asking a library.
fn system_hostname() -> String {
    let from_file = std::fs::read_to_string("/proc/sys/kernel/hostname");
    let name = from_file.or_else(|_| std::env::var("HOSTNAME").or(std::env::var("COMPUTERNAME")));
    name.unwrap_or_default().trim().to_owned()
}
