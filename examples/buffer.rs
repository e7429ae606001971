//! What the size of a listener's channel does under load.
//!
//! ```text
//! cargo run --example buffer
//! cargo run --example buffer -- --delay-ms 20
//! ```
//!
//! Twenty members of its own change their metadata as fast as etcd takes it, while two equally slow
//! listeners look on: one with room for 8 events, one for 4096. See the small one fold at once, and
//! stay close to the present; the large one is told every step, ever later, until it is full too.
//! When the changes stop, both end at the same view. Takes some ten seconds.

mod common;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use crossbeam_channel::{select, tick};
use headcount::{Cluster, Error, Event, Options};
use lexopt::prelude::*;

const MEMBERS: usize = 20;
const CHURN: Duration = Duration::from_secs(5);

fn main() -> Result<(), Error> {
    let mut delay = Duration::from_millis(3);
    let usage = "buffer: two slow listeners, a small and a large channel.\n
  --delay-ms N          how long each event keeps a listener busy (3)\n";
    let builder = common::options(usage, |name, parser| {
        if name == "delay-ms" {
            delay = Duration::from_millis(parser.value()?.parse()?);
        }
        Ok(name == "delay-ms")
    });
    let end = common::signals();
    let observer = builder.clone().only_type("buffer-example").start()?;
    let slow = move |_: &Event| std::thread::sleep(delay);
    for capacity in [8, 4096] {
        let options = Options::new().name(format!("{capacity}"));
        let guard = observer.add_listener_with(options.capacity(capacity), slow)?;
        guard.keep();
    }

    let members: Vec<Cluster> = (0..MEMBERS)
        .map(|n| {
            builder
                .clone()
                .member("buffer-example", n.to_string())
                .start()
        })
        .collect::<Result<_, _>>()?;
    let stop = Arc::new(AtomicBool::new(false));
    let churn: Vec<_> = members
        .into_iter()
        .map(|member| {
            let stop = Arc::clone(&stop);
            std::thread::spawn(move || {
                for step in 0.. {
                    if stop.load(Ordering::Relaxed) {
                        break;
                    }
                    if let Err(error) = member.update_metadata([("step", step.to_string())]) {
                        eprintln!("{error}");
                    }
                }
                // Dropping it leaves.
            })
        })
        .collect();

    println!("capacity    depth  delivered   folded");
    let started = Instant::now();
    let ticks = tick(Duration::from_secs(1));
    loop {
        select! {
            recv(ticks) -> _ => {}
            recv(end) -> _ => break,
        }
        let stats = observer.stats();
        for queue in &stats.listeners {
            let (depth, delivered, folded) = (queue.depth, queue.delivered, queue.folded);
            println!("{:>8} {depth:>8} {delivered:>10} {folded:>8}", queue.name);
        }
        println!("{} events so far", stats.events);
        if started.elapsed() >= CHURN && !stop.swap(true, Ordering::Relaxed) {
            println!("the changes end; the queues are worked off");
        }
        let through = stats.listeners.iter().all(|queue| queue.depth == 0);
        if stop.load(Ordering::Relaxed) && through && stats.members == 0 {
            break;
        }
    }
    stop.store(true, Ordering::Relaxed);
    for thread in churn {
        // It only calls what gives errors, and does not panic.
        let _ = thread.join();
    }
    observer.leave()
}
