//! Registers a member and stays, until it is told to go.
//!
//! ```text
//! cargo run --example watch                                  # in another terminal
//! cargo run --example member -- --type gate --id 1 --metadata region=eu
//! ```
//!
//! Type `set region=us` and see the watcher's `UpdateMember`; press Ctrl-C for its `RemoveMember`;
//! or end it with `kill -9`, and see `ServerDown` when the lease has run out.

mod common;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use common::output;
use crossbeam_channel::{bounded, select};
use headcount::{Check, Cluster, Event, OnConflict, Options};
use lexopt::prelude::*;

const USAGE: &str = "\
member: registers and stays. `set K=V` on standard input updates its metadata.

  --type T --id ID      who it is
  --metadata K=V        what it says about itself (may be repeated)
  --frontend            clients connect to it
  --ttl S               how long etcd keeps it without a sign of life (10)
  --on-conflict takeover|wait|fail
                        what to do when another one has its name (takeover)
  --check all|silent|nobody
                        whose heartbeats to check (all)
  --json                its own registration, one JSON object a line
";

/// A supervisor should not have to wait longer, whatever state etcd is in.
const LEAVE_WITHIN: Duration = Duration::from_millis(1700);

fn main() {
    let (mut server_type, mut id) = (None, None);
    let mut metadata = BTreeMap::new();
    let mut frontend = false;
    let mut ttl = Duration::from_secs(10);
    let mut policy = OnConflict::TakeOver;
    let mut check = Check::All;
    let mut json = false;
    let builder = common::options(USAGE, |name, parser| {
        match name {
            "type" => server_type = Some(parser.value()?.string()?),
            "id" => id = Some(parser.value()?.string()?),
            "metadata" => metadata.extend([common::pair(&parser.value()?.string()?)?]),
            "frontend" => frontend = true,
            "ttl" => ttl = Duration::from_secs(parser.value()?.parse()?),
            "on-conflict" => policy = parser.value()?.parse_with(on_conflict)?,
            "check" => check = parser.value()?.parse_with(whom)?,
            "json" => json = true,
            _ => return Ok(false),
        }
        Ok(true)
    });
    let (Some(server_type), Some(id)) = (server_type, id) else {
        eprintln!("a member needs --type and --id; --help tells what there is");
        std::process::exit(2);
    };
    let signals = common::signals();
    let name = format!("{server_type}/{id}");
    let mut builder = builder
        .member(server_type, id)
        .frontend(frontend)
        .ttl(ttl)
        .on_conflict(policy)
        .check(check);
    for (key, value) in &metadata {
        builder = builder.metadata(key, value);
    }
    let cluster = common::start(builder);
    let events = cluster.subscribe_with(Options::new().name("member").initial(false));
    listen_to_input(Arc::clone(&cluster), metadata);

    let mut was_registered = false;
    loop {
        select! {
            recv(signals) -> _ => break,
            recv(events) -> event => match event {
                Ok(event) => {
                    show(&event, json);
                    was_registered |= matches!(event, Event::Registered { .. });
                    let refused = matches!(event, Event::Displaced) && !was_registered;
                    if refused && policy == OnConflict::Fail {
                        common::fail(&format_args!("another instance is registered as {name}"));
                    }
                }
                Err(_) => break,
            },
        }
    }

    // Beside us, so that nothing can make it last too long.
    let (done, left) = bounded(1);
    std::thread::spawn(move || done.send(cluster.leave()));
    match left.recv_timeout(LEAVE_WITHIN) {
        Ok(Ok(())) => {}
        Ok(Err(error)) => eprintln!("{name} could not say that it leaves: {error}"),
        Err(_) => eprintln!("{name} could not say that it leaves: etcd takes too long"),
    }
    for event in events.try_iter() {
        show(&event, json);
    }
}

fn on_conflict(text: &str) -> Result<OnConflict, String> {
    match text {
        "takeover" => Ok(OnConflict::TakeOver),
        "wait" => Ok(OnConflict::Wait),
        "fail" => Ok(OnConflict::Fail),
        _ => Err("it is takeover, wait or fail".into()),
    }
}

fn whom(text: &str) -> Result<Check, String> {
    match text {
        "all" => Ok(Check::All),
        "silent" => Ok(Check::Silent),
        "nobody" => Ok(Check::Nobody),
        _ => Err("it is all, silent or nobody".into()),
    }
}

/// Only what is about ourselves.
fn show(event: &Event, json: bool) {
    match event {
        Event::Synced | Event::Lagged { .. } => {}
        event if event.member().is_some() => {}
        event => output::event(event, SystemTime::now(), json),
    }
}

/// Its thread ends with the input, or the program.
fn listen_to_input(cluster: Arc<Cluster>, mut metadata: BTreeMap<String, String>) {
    std::thread::spawn(move || {
        for line in std::io::stdin().lines().map_while(Result::ok) {
            let Some(rest) = line.trim_start().strip_prefix("set ") else {
                eprintln!("not understood: {line:?}; say `set KEY=VALUE`");
                continue;
            };
            match common::pair(rest) {
                Ok((key, value)) => {
                    metadata.insert(key, value);
                    if let Err(error) = cluster.update_metadata(metadata.clone()) {
                        eprintln!("not published yet: {error}");
                    }
                }
                Err(error) => eprintln!("{error}"),
            }
        }
    });
}
