//! Many listeners of one cluster handle.

use std::time::Duration;

use crossbeam_channel::Receiver;
use headcount::{Cluster, Event, Options};

use super::headcount::time_of;
use super::shared::{Args, done, now, one_core, ready};
use crate::data;
use crate::report::Samples;

pub fn run(args: &Args) {
    let burst = args.text("mode") == "burst";
    if burst {
        // Threads inherit it.
        one_core();
    }
    let cluster = Cluster::builder()
        .endpoints([args.text("endpoint")])
        .prefix(data::PREFIX)
        .start()
        .expect("the source answers");
    let options = || Options::new().initial(false);
    // Full soon, and never read.
    let stalled: Vec<_> = (0..args.number("stalled"))
        .map(|_| cluster.subscribe_with(options().capacity(1)))
        .collect();
    let all: Vec<_> = (0..args.number("listeners"))
        .map(|_| cluster.subscribe_with(options()))
        .collect();
    match burst {
        true => take(&cluster, &all),
        false => time(all),
    }
    drop(stalled);
}

fn is_last(event: &Event) -> bool {
    event.member().is_some_and(|m| m.id() == data::LAST)
}

/// One thread empties all channels.
fn take(cluster: &Cluster, all: &[Receiver<Event>]) {
    ready();
    let (mut deliveries, mut ended) = (0_u64, 0);
    while ended < all.len() {
        let first = all[0].recv_timeout(Duration::from_millis(20));
        let rest = all.iter().flat_map(Receiver::try_iter);
        for event in first.into_iter().chain(rest) {
            if event.member().is_some() {
                deliveries += 1;
                ended += usize::from(is_last(&event));
            }
        }
    }
    let at = now();
    let folded: u64 = cluster.stats().listeners.iter().map(|l| l.folded).sum();
    assert_eq!(folded, 0, "the channels were too small");
    done(serde_json::json!({ "at": at, "deliveries": deliveries }));
}

/// Each on a thread of its own, or, where they are too many for that, every tenth.
fn time(all: Vec<Receiver<Event>>) {
    let step = all.len().div_ceil(100);
    let (timed, rest): (Vec<_>, Vec<_>) = all
        .into_iter()
        .enumerate()
        .partition(|(n, _)| n % step == 0);
    let threads: Vec<_> = timed
        .into_iter()
        .map(|(_, events)| {
            std::thread::spawn(move || {
                let mut late = Vec::with_capacity(1024);
                for event in events {
                    let at = now();
                    let Some(member) = event.member() else {
                        continue;
                    };
                    late.push((at - time_of(member)) as f64);
                    if is_last(&event) {
                        break;
                    }
                }
                late
            })
        })
        .collect();
    ready();
    let joined = threads.into_iter().map(|t| t.join().expect("no panic"));
    let late: Samples = joined.flat_map(|late| late.into_iter().skip(20)).collect();
    drop(rest);
    done(serde_json::json!({ "p50": late.median(), "p99": late.at(0.99) }));
}
