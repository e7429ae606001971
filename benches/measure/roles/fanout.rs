//! Many listeners of one cluster handle.

use std::thread::{self, JoinHandle};
use std::time::Duration;

use crossbeam_channel::Receiver;
use headcount::{Cluster, Event, Member, Options};
use serde_json::json;

use super::headcount::{observer_of_source, time_of};
use super::shared::{Args, done, now, one_core, ready};
use crate::data;
use crate::report::Samples;

/// So many changes alone, so many beside a stalled listener, and so on. The first ones find
/// everything cold: they don't count.
pub const BLOCK: usize = 50;

/// All changes in a row, on one core: they are taken out of the channels by one thread. What it does
/// not get to in time is folded, and not counted.
pub fn burst(args: &Args) {
    // Threads inherit it.
    one_core();
    let cluster = observer_of_source(args);
    let all = subscribe(&cluster, args);
    ready();
    let (mut deliveries, mut ended) = (0_u64, 0);
    while ended < all.len() {
        let first = all[0].recv_timeout(Duration::from_millis(20));
        let rest = all.iter().flat_map(Receiver::try_iter);
        for event in first.into_iter().chain(rest) {
            if let Some(member) = event.member() {
                deliveries += 1;
                ended += usize::from(is_last(member));
            }
        }
    }
    let at = now();
    let folded: u64 = cluster.stats().listeners.iter().map(|l| l.folded).sum();
    done(json!({ "at": at, "deliveries": deliveries, "folded": folded }));
}

/// Change by change, each listener on a thread of its own; where they are too many for that, every
/// tenth, and what the others have stays in their channels.
pub fn single(args: &Args) {
    let cluster = observer_of_source(args);
    let all = subscribe(&cluster, args);
    let changes = cluster.subscribe_with(Options::new().initial(false));
    let step = all.len().div_ceil(100);
    let (timed, rest): (Vec<_>, Vec<_>) = all
        .into_iter()
        .enumerate()
        .partition(|(n, _)| n % step == 0);
    let threads: Vec<_> = timed.into_iter().map(|(_, events)| time(events)).collect();
    ready();
    let mut stalled = None;
    let members = changes.iter().filter_map(|e| e.member().cloned());
    for (n, member) in (1..).zip(members) {
        if n % BLOCK == 0 {
            // Full at once, and never read.
            let options = || Options::new().initial(false).capacity(1);
            let now = n / BLOCK % 2 == 1;
            stalled = now.then(|| cluster.subscribe_with(options()));
        }
        if is_last(&member) {
            break;
        }
    }
    let late: Vec<Late> = threads
        .into_iter()
        .map(|thread| thread.join().expect("no panic"))
        .collect();
    drop((stalled, rest));
    let of = |which: usize| late.iter().flat_map(move |l| l[which].iter().copied());
    let [alone, beside] = [0, 1].map(|which| of(which).collect::<Samples>());
    done(json!({ "alone": alone.median(), "beside": beside.median() }));
}

/// Nanoseconds from the source to here: alone, and beside a stalled listener.
type Late = [Vec<f64>; 2];

fn time(events: Receiver<Event>) -> JoinHandle<Late> {
    thread::spawn(move || {
        let mut late = Late::default();
        let mut seen = 0;
        for event in events {
            let at = now();
            let Some(member) = event.member() else {
                continue;
            };
            // With the first of a block its listener is only about to come, or to go.
            if seen > BLOCK && seen % BLOCK > 1 {
                late[seen / BLOCK % 2].push((at - time_of(member)) as f64);
            }
            seen += 1;
            if is_last(member) {
                break;
            }
        }
        late
    })
}

fn subscribe(cluster: &Cluster, args: &Args) -> Vec<Receiver<Event>> {
    let capacity = args.number("capacity") as usize;
    let options = || Options::new().initial(false).capacity(capacity);
    let all = 0..args.number("listeners");
    all.map(|_| cluster.subscribe_with(options())).collect()
}

fn is_last(member: &Member) -> bool {
    member.id() == data::LAST
}
