//! What a member process does: it registers, obeys, and reports what becomes of its registration.

use std::collections::BTreeMap;
use std::error::Error;
use std::io::Write;
use std::time::Duration;

use crossbeam_channel::{Receiver, bounded, select};
use headcount::Event;
use serde::{Deserialize, Serialize};

use crate::{Place, common};

/// Short, so that nobody waits long for a death to be noticed; a real server takes 10 s or more.
pub const TTL: Duration = Duration::from_secs(5);

/// What the demo can ask of it, by a line on its standard input. When that is closed, it goes.
pub const HERE: &str = "here?";
pub const SET: &str = "set ";

/// What it says about itself: one JSON object a line on its standard output.
#[derive(Serialize, Deserialize)]
pub struct Report {
    pub event: String,
    pub incarnation: Option<i64>,
}

pub fn run(place: &Place, name: &str) -> Result<(), Box<dyn Error>> {
    outlive_nobody()?;
    let signals = common::signals();
    let (server_type, id) = name.split_once('/').ok_or("its name is TYPE/ID")?;
    let mut metadata = BTreeMap::from([("pid".to_owned(), std::process::id().to_string())]);
    let mut builder = place.builder().member(server_type, id).ttl(TTL);
    for (key, value) in &metadata {
        builder = builder.metadata(key, value);
    }
    let cluster = builder.start()?;
    let events = cluster.subscribe();
    let orders = orders();
    loop {
        select! {
            recv(signals) -> _ => break,
            recv(events) -> event => match event? {
                Event::Registered { incarnation, .. } => report("Registered", Some(incarnation))?,
                event @ (Event::Lost | Event::Displaced) => report(event.name(), None)?,
                _ => {}
            },
            recv(orders) -> order => match order.as_deref() {
                Ok(HERE) => report("Here", cluster.incarnation())?,
                Ok(order) => {
                    let pair = order.strip_prefix(SET).ok_or("what does that order mean?")?;
                    metadata.extend([common::pair(pair)?]);
                    cluster.update_metadata(metadata.clone())?;
                }
                // The demo has ended; dropping the cluster leaves it.
                Err(_) => return Ok(()),
            },
        }
    }
    cluster.leave()?;
    Ok(())
}

fn orders() -> Receiver<String> {
    let (sender, orders) = bounded(1);
    std::thread::spawn(move || {
        for line in std::io::stdin().lines().map_while(Result::ok) {
            if sender.send(line).is_err() {
                break;
            }
        }
    });
    orders
}

fn report(event: &str, incarnation: Option<i64>) -> Result<(), Box<dyn Error>> {
    let event = event.to_owned();
    let line = serde_json::to_string(&Report { event, incarnation })?;
    let mut out = std::io::stdout().lock();
    writeln!(out, "{line}")?;
    Ok(out.flush()?)
}

/// A stopped process does not see that its input is closed. So the kernel is to wake it, should
/// the demo be killed while it stands still.
fn outlive_nobody() -> Result<(), Box<dyn Error>> {
    #[cfg(target_os = "linux")]
    nix::sys::prctl::set_pdeathsig(nix::sys::signal::Signal::SIGCONT)?;
    Ok(())
}
