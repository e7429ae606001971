//! G6: servers that say nothing, ended well or badly at random moments: which it was is told, and
//! never wrongly.

mod herd;
mod history;
mod ledger;
mod support;
mod told;

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use herd::{Life, Plan};
use ledger::Random;
use parking_lot::Mutex;
use support::etcd::Etcd;
use support::load;
use support::wait::until;
use told::{Told, observer};

/// One at a time: they measure.
static ALONE: Mutex<()> = Mutex::new(());

/// So many ends of each kind; by the environment for a longer run.
fn ends(default: usize) -> usize {
    let wanted = std::env::var("HEADCOUNT_ENDS").ok();
    wanted.map_or(default, |n| n.parse().expect("a number"))
}

/// Within this a newcomer is looked at for the first time; who goes sooner can't be judged.
const UNSEEN: Duration = Duration::from_millis(1500);

/// So often they live and end, at most, until enough of them is known.
const ROUNDS: usize = 3;

/// On a busy machine we may be held up ourselves: then some ends are told as unknown. Never as
/// another. Whether enough was known.
fn crash_or_leave(each: usize, most_ttl: u64, busy: bool) -> bool {
    let etcd = Etcd::start();
    let cluster = observer(etcd.endpoint())
        .stall_bound(Duration::from_secs(10))
        // An answer that comes later makes a leave a deregistration.
        .verdict_timeout(Duration::from_secs(5))
        .request_timeout(Duration::from_secs(5))
        .start()
        .expect("an observer");
    let told = Told::by(&cluster);
    let mut random = Random(each as u64);
    let plans: Vec<_> = (0..2 * each)
        .map(|n| Plan::random(format!("go/{n}"), n % 2 == 0, most_ttl, &mut random))
        .collect();
    let (began, cpu) = (Instant::now(), load::cpu());
    let lives = herd::run(&[etcd.endpoint()], plans, 50);
    until(Duration::from_secs(25), "all are gone", || {
        cluster.members().is_empty() && told.departures() == 2 * each
    });

    let (mut unknown, mut wrong, mut waited) = (Vec::new(), Vec::new(), Vec::new());
    for Life { plan, began, ended } in &lives {
        let all = told.all("");
        let of = |e: &&told::Entry| {
            e.event.is_departure() && e.event.member().is_some_and(|m| m.name() == plan.name)
        };
        let gone = all.iter().find(of).expect("all were told");
        let lived = *ended - *began;
        let (end, expected) = match plan.graceful {
            true => ("left", "(revoked)"),
            false => ("died", "(lease-expired)"),
        };
        let line = format!("TTL {} s, {end} after {lived:?}: {}", plan.ttl, gone.text);
        if gone.text.ends_with("(unknown)") {
            unknown.push((lived, line));
        } else if !gone.text.ends_with(expected) {
            wrong.push(line);
        }
        if plan.graceful {
            waited.push(gone.at.saturating_duration_since(*ended));
        }
    }
    waited.sort();
    let stats = cluster.stats();
    let span = began.elapsed().as_secs_f64();
    println!(
        "{}: {each} leaves and {each} crashes in {span:.0} s: {} wrong, {} unknown, {} suspected; \
         a leave is told after {:?} (median), {:?} (worst); {:.0} checks a second; CPU of this \
         process {:.1} %",
        if busy { "busy" } else { "idle" },
        wrong.len(),
        unknown.len(),
        told.all("Suspect").len(),
        waited[waited.len() / 2],
        waited[waited.len() - 1],
        stats.checks as f64 / span,
        (load::cpu() - cpu).as_secs_f64() / span * 100.0,
    );
    println!("{unknown:#?}");
    assert!(wrong.is_empty(), "{wrong:#?}");
    let too_old: Vec<_> = unknown
        .iter()
        .filter(|(lived, _)| *lived > UNSEEN)
        .collect();
    // Of both kinds together. How much is known on a busy machine is its own matter, but some is.
    let (held_up, most) = match busy {
        true => (each, each * 4 / 3),
        false => (each / 20, each / 4),
    };
    too_old.len() <= held_up && unknown.len() <= most
}

#[test]
fn g6_crash_or_leave_is_told_by_the_lease() {
    let _alone = ALONE.lock();
    // Where etcd, or we, stood still for seconds, nobody could know.
    assert!(
        (0..ROUNDS).any(|_| crash_or_leave(ends(100), 10, false)),
        "too much is unknown in each of {ROUNDS} rounds"
    );
}

/// The same while every core is wanted by others. A longer run has longer lives, too.
#[test]
fn g6_crash_or_leave_under_load() {
    let _alone = ALONE.lock();
    let stop = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let cores = std::thread::available_parallelism().map_or(2, usize::from);
        for _ in 0..cores {
            scope.spawn(|| {
                while !stop.load(Ordering::Relaxed) {
                    std::hint::spin_loop();
                }
            });
        }
        let most_ttl = if ends(0) == 0 { 5 } else { 10 };
        let result = std::panic::catch_unwind(|| crash_or_leave(ends(30), most_ttl, true));
        stop.store(true, Ordering::Relaxed);
        match result {
            Ok(enough) => assert!(enough, "too much is unknown"),
            Err(panic) => std::panic::resume_unwind(panic),
        }
    });
}
