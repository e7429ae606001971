//! Events beside your own work, in one loop on one thread.
//!
//! ```text
//! cargo run --example select
//! cargo run --example member -- --type worker --id 1
//! ```
//!
//! Each second one job is given to the next worker; workers may come and go meanwhile. Ctrl-C ends
//! it.

mod common;

use std::collections::BTreeSet;
use std::time::Duration;

use crossbeam_channel::{select, tick};
use headcount::{Event, Options};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let builder = common::options("select: gives jobs to workers.\n", |_, _| Ok(false));
    let end = common::signals();
    let cluster = builder.start()?;
    let events = cluster.subscribe_with(Options::new().only_type("worker"));
    let jobs = tick(Duration::from_secs(1));
    let mut workers = BTreeSet::new();
    let mut job = 0_usize;
    loop {
        select! {
            recv(events) -> event => {
                let event = event?;
                println!("{event}");
                match &event {
                    Event::AddMember(member) => {
                        workers.insert(member.id().to_owned());
                    }
                    _ if event.is_departure() => {
                        event.member().map(|member| workers.remove(member.id()));
                    }
                    _ => {}
                }
            }
            recv(jobs) -> _ => {
                let Some(turn) = job.checked_rem(workers.len()) else {
                    println!("job {job} waits for a worker");
                    continue;
                };
                let worker = workers.iter().nth(turn).map_or("", String::as_str);
                println!("job {job} goes to {worker}");
                job += 1;
            }
            recv(end) -> _ => break,
        }
    }
    cluster.leave()?;
    Ok(())
}
