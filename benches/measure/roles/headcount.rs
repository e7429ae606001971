//! The crate itself, as a user has it.

use std::sync::mpsc;

use headcount::{Cluster, Event, Member, Options};

use super::shared::{self, Args, Watched, cpu, done, memory, now, ready};
use crate::data;

/// When its last change was sent.
pub fn time_of(member: &Member) -> u64 {
    let text = member.metadata().get("t").expect("a member of the bench");
    text.parse().expect("digits")
}

fn observer(args: &Args) -> Cluster {
    Cluster::builder()
        .endpoints([args.text("endpoint")])
        .prefix(data::PREFIX)
        .start()
        .expect("etcd answers")
}

pub fn watch(args: &Args) {
    // Room for what comes while the listener is not scheduled, so that nothing is folded.
    let options = Options::new().capacity(65_536).initial(false);
    let cluster = observer(args);
    if args.number("timed") == 0 {
        let events = cluster.subscribe_with(options);
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
        return watched.end(folded.into());
    }
    let (end, ended) = mpsc::channel();
    let mut watched = Some(Watched::begin(true));
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
        .add_listener_with(options, handler)
        .expect("a thread");
    let watched = ended.recv().expect("a last change");
    drop(guard);
    watched.end(0.into());
}

pub fn list(args: &Args) {
    ready();
    let (began, spent, before) = (now(), cpu(), memory("VmRSS:"));
    let cluster = observer(args);
    let (wall, cpu) = ((now() - began) as f64 * 1e-9, cpu() - spent);
    let peak = memory("VmHWM:") - before;
    shared::trim();
    done(serde_json::json!({
        "wall": wall, "cpu": cpu, "members": cluster.stats().members, "peak": peak,
        "held": memory("VmRSS:") - before,
    }));
}
