//! The crate itself, as a user has it.

use std::sync::mpsc;
use std::time::Duration;

use headcount::{Builder, Cluster, Event, Member, Options};

use super::shared::{self, Args, Watched, cpu, done, memory, now, ready};
use crate::data;

/// When its last change was sent.
pub fn time_of(member: &Member) -> u64 {
    let text = member.metadata().get("t").expect("a member of the bench");
    text.parse().expect("digits")
}

fn observer(args: &Args) -> Builder {
    let builder = Cluster::builder().endpoints([args.text("endpoint")]);
    // A busy machine may take long; that is for the figures to tell.
    let builder = builder.start_timeout(Duration::from_secs(100));
    builder.prefix(data::PREFIX)
}

/// A stream of the bench's source is one for the whole job: by default etcd is asked for a new one
/// each five seconds, and half a second without an answer may be this machine's.
pub fn observer_of_source(args: &Args) -> Cluster {
    let builder = observer(args).stall_bound(Duration::from_secs(600));
    builder.start().expect("the source answers")
}

/// Room for what comes while the listener is not scheduled, so that nothing is folded.
fn options() -> Options {
    Options::new().capacity(65_536).initial(false)
}

/// Everything in a row, to a channel.
fn replay(args: &Args) {
    let cluster = observer_of_source(args);
    let events = cluster.subscribe_with(options());
    let mut watched = Watched::begin(false);
    for event in &events {
        let Some(member) = event.member() else {
            continue;
        };
        watched.event(|| 0);
        if member.id() == data::LAST {
            break;
        }
    }
    let folded = cluster.stats().listeners[0].folded;
    watched.end(folded.into());
}

/// Change by change, to a handler.
fn live(args: &Args) {
    let cluster = observer(args).start().expect("etcd answers");
    // Everybody is looked at once in the beginning.
    while (cluster.stats().checks as usize) < cluster.members().len() {
        std::thread::sleep(Duration::from_millis(20));
    }
    let (end, ended) = mpsc::channel();
    let mut watched = Some(Watched::new(true));
    let handler = move |event: &Event| {
        let Some(member) = event.member() else { return };
        let Some(mut w) = watched.take() else { return };
        w.event(|| time_of(member));
        match member.id() == data::LAST {
            true => end.send(w).expect("the bench waits"),
            false => watched = Some(w),
        }
    };
    let guard = cluster
        .add_listener_with(options(), handler)
        .expect("a thread");
    ready();
    let watched = ended.recv().expect("a last change");
    drop(guard);
    watched.end(0.into());
}

pub fn watch(args: &Args) {
    match args.number("timed") {
        0 => replay(args),
        _ => live(args),
    }
}

pub fn list(args: &Args) {
    ready();
    let (began, spent, before) = (now(), cpu(), memory("VmRSS:"));
    let cluster = observer(args).start().expect("etcd answers");
    let (wall, cpu) = ((now() - began) as f64 * 1e-9, cpu() - spent);
    let peak = memory("VmHWM:") - before;
    shared::trim();
    done(serde_json::json!({
        "wall": wall, "cpu": cpu, "members": cluster.stats().members, "peak": peak,
        "held": memory("VmRSS:") - before,
    }));
}
