//! A cluster by a virtual clock: a model etcd, members that live and die, a network that fails, and
//! the pure parts of a client in the midst, wired as its threads wire them. Nothing here talks,
//! sleeps, or has a thread; all chance is from one seed. So [`run`] is a function, and a failure
//! comes again, to the letter:
//!
//! ```text
//! HEADCOUNT_SEED=<seed> cargo test --lib simulation::tests::fresh_seeds -- --nocapture
//! ```
//!
//! `HEADCOUNT_SEEDS` runs more of them, `HEADCOUNT_TICKS` makes each longer. A seed speaks for the
//! code that it ran with: a change in what chance is asked for makes another history of it. So
//! what a seed has found is held by a test of the part that was wrong.
//!
//! What is not asked, since nobody could know it:
//!
//! * **G2** Where etcd is restored, each member's revisions may fall back once, when the client is
//!   given a listing of the new history; a listener that is behind may hear it later.
//! * **G6** A stream that has lost the event by which a key moved to another lease tells of the old
//!   one: how such a key ended is not judged, until the next listing. A lease that ran out, and
//!   that a restore brings back before etcd is asked about it, is taken for one that lives: its
//!   owner may be told as deregistered. And who misses a renewal, and
//!   goes when its lease would have run out for that, may be told to have run out.

mod book;
mod bug;
mod client;
mod dice;
mod listeners;
mod network;
mod oracle;
mod processes;
mod store;
mod tests;

use std::fmt;
use std::time::Instant;

use self::bug::Bug;
use self::client::{Client, Counts, World};
use self::dice::Dice;
use self::listeners::Listeners;
use self::network::{Faults, Network};
use self::processes::Processes;
use self::store::{Ms, Store, name_of};

/// A tick of the clock.
const TICK: Ms = 20;
/// Ticks that may pass in the end until all is quiet for a moment.
const LAST: u64 = 200;
/// Lines of the trace that a failure shows.
const TAIL: usize = 60;

/// A guarantee that does not hold.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Violation {
    guarantee: &'static str,
    what: String,
}

/// What a run went through.
#[derive(Debug, Default, Clone, Copy)]
struct Summary {
    /// Changes of members' keys in etcd.
    changes: u64,
    /// Events that listeners took, and that they were spared.
    heard: u64,
    folded: u64,
    faults: u64,
    counts: Counts,
}

impl Summary {
    fn add(&mut self, other: Summary) {
        self.changes += other.changes;
        self.heard += other.heard;
        self.folded += other.folded;
        self.faults += other.faults;
        let (sum, more) = (&mut self.counts, other.counts);
        sum.listings += more.listings;
        sum.resumed += more.resumed;
        sum.looks += more.looks;
        sum.departures += more.departures;
        sum.held += more.held;
    }
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct Failure {
    seed: u64,
    ticks: u64,
    tick: u64,
    violation: Violation,
    trace: Vec<String>,
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Failure {
            seed,
            ticks,
            tick,
            violation,
            trace,
        } = self;
        let from = trace.len().saturating_sub(TAIL);
        writeln!(
            f,
            "{} is violated at tick {tick}: {}",
            violation.guarantee, violation.what
        )?;
        for line in &trace[from..] {
            writeln!(f, "  {line}")?;
        }
        write!(
            f,
            "again: HEADCOUNT_SEED={seed} HEADCOUNT_TICKS={ticks} cargo test --lib simulation::tests::fresh_seeds -- --nocapture"
        )
    }
}

/// So many ticks of churn and faults; then all heals, and has to converge.
fn run(seed: u64, ticks: u64, bug: Option<Bug>) -> Result<Summary, Failure> {
    match simulate(seed, ticks, bug, &mut |_| {}) {
        Ok(summary) => Ok(summary),
        // Once more, to tell how it came to it.
        Err((tick, violation)) => {
            let mut trace = Vec::new();
            let again = simulate(seed, ticks, bug, &mut |line| trace.push(line()));
            let same = matches!(&again, Err((t, v)) if *t == tick && *v == violation);
            assert!(
                same,
                "seed {seed} is not deterministic: {violation:?}, then {again:?}"
            );
            Err(Failure {
                seed,
                ticks,
                tick,
                violation,
                trace,
            })
        }
    }
}

/// Gets lines of the trace; whoever wants none does not make them.
type Trace<'a> = &'a mut dyn FnMut(&dyn Fn() -> String);

fn simulate(
    seed: u64,
    ticks: u64,
    bug: Option<Bug>,
    trace: Trace,
) -> Result<Summary, (u64, Violation)> {
    let mut dice = Dice::seeded(seed);
    let mut store = Store::new();
    let mut network = Network::new(&mut dice);
    let mut faults = Faults::new(&mut dice);
    let mut processes = Processes::new(&mut dice);
    let mut client = Client::new(Instant::now(), network.endpoints.len(), bug, &mut dice);
    let mut listeners = Listeners::default();
    let mut summary = Summary::default();
    trace(&|| format!("{:?}", client.settings));
    let settings = client.settings;
    // Until the last one is alive again or gone, and the last difference is found.
    let settle =
        2 * settings.stall + 2 * settings.reconcile + settings.hold + settings.verdict + 30_000;
    let end = ticks + settle / TICK;
    for tick in 0.. {
        let now = tick * TICK;
        let mut trace = |line: &dyn Fn() -> String| {
            trace(&|| format!("{:>7.2} s  {}", now as f64 / 1000.0, line()))
        };
        if tick == ticks {
            trace(&|| "all heals".into());
            network.heal();
            processes.heal();
            listeners.heal();
            faults.stopped = 0;
            (faults.pace, network.lossy) = (0, 0);
        }
        store.pass(now);
        if tick < ticks {
            if let Some(what) =
                faults.step(&mut store, &mut network, settings.stall, now, &mut dice)
            {
                summary.faults += 1;
                trace(&|| format!("fault: {what}"));
            }
            if dice.permille(1) {
                summary.faults += 1;
                trace(&|| "fault: etcd loses leases".into());
                processes.mass_loss(&mut store, &mut dice);
            }
        }
        processes.step(&mut store, now, &mut dice, &mut trace);
        let mut world = World {
            store: &store,
            network: &network,
            dice: &mut dice,
            trace: &mut trace,
        };
        client.serve(now, &mut world);
        let step = match now < faults.stopped {
            true => {
                client.stands_still(now);
                Ok(())
            }
            false => client.step(now, &mut world),
        };
        let step = step.and_then(|()| listeners.step(tick, now, &mut client, bug, &mut dice));
        step.map_err(|violation| (tick, violation))?;
        if tick >= end {
            match converged(&store, &client, &listeners) {
                Ok(()) => break,
                Err(violation) if tick >= end + LAST => return Err((tick, violation)),
                // Something may be on its way just now.
                Err(_) => {}
            }
        }
    }
    summary.changes = store.changes;
    (summary.heard, summary.folded) = (listeners.heard, listeners.folded);
    summary.counts = client.counts;
    Ok(summary)
}

/// All is well for long enough: everybody knows what etcd holds.
fn converged(store: &Store, client: &Client, listeners: &Listeners) -> Result<(), Violation> {
    let wrong = |guarantee, what| Err(Violation { guarantee, what });
    if !client.state.store_reachable() {
        return wrong("G9", "etcd is well, and still lost".into());
    }
    let epoch = store.epoch();
    let mut there = 0;
    for kv in epoch.at(epoch.revision()).values() {
        let Some(name) = name_of(&kv.key) else {
            continue;
        };
        let told = client.prompt.view.get(name);
        there += usize::from(told.is_some());
        // A bad value keeps the last good one, for those who know it.
        let Some(wanted) = store.meanings.get(&kv.value) else {
            continue;
        };
        let right = told.is_some_and(|told| {
            told.incarnation() == kv.create_revision
                && told.instance() == wanted.token.as_deref()
                && told.metadata().get("m") == Some(&wanted.metadata)
        });
        if !right {
            return wrong(
                "G1",
                format!("in the end {name} is {kv:?}, told was {told:?}"),
            );
        }
    }
    if there != client.prompt.view.len() {
        return wrong(
            "G1",
            format!(
                "in the end there are {there}, told was {:?}",
                client.prompt.view
            ),
        );
    }
    if !client.prompt.suspected.is_empty() {
        return wrong(
            "G6",
            format!(
                "all is well, and suspected are {:?}",
                client.prompt.suspected
            ),
        );
    }
    match listeners.behind(&client.state) {
        Some(who) => wrong("G5", who),
        None => Ok(()),
    }
}
