//! (e) Leaving, restarting and dying, seen by another.

use std::time::{Duration, Instant};

use crossbeam_channel::Receiver;
use headcount::{Cluster, Event};

use super::{labelled, samples};
use crate::report::{Report, Section};
use crate::support::etcd::Etcd;
use crate::support::gateway::Gateway;
use crate::{Plan, data};

const BOUND: Duration = Duration::from_secs(20);
/// Of the leases that don't run out, in seconds.
const LONG: i64 = 3600;
/// Of the leases that run out, in seconds: the least that etcd grants.
const TTL: i64 = 2;

pub fn run(plan: &Plan, report: &mut Report) {
    let etcd = Etcd::start();
    let gateway = etcd.gateway();
    let builder = || {
        let builder = Cluster::builder().endpoints([etcd.endpoint()]);
        builder.prefix(data::PREFIX)
    };
    let observer = builder().start().expect("etcd answers");
    let seen = Seen(observer.subscribe());
    let rounds = plan.pick(100, 3);

    plan.progress("puts, leaves and restarts");
    let (mut put, mut leave, mut restart) = (vec![], vec![], vec![]);
    let (mut take_over, mut ready) = (vec![], vec![]);
    for n in 0..rounds {
        // As in (b), for comparison under the same conditions.
        let servant = format!("servant-{n}");
        let lease = gateway.grant(LONG);
        let at = Instant::now();
        gateway.put(&data::key(&servant), data::value(&servant, 0), lease);
        put.push(seen.added(&servant, at));

        let id = format!("leaver-{n}");
        let member = builder().member("room", &id).start().expect("etcd answers");
        seen.added(&id, Instant::now());
        let at = Instant::now();
        let left = std::thread::spawn(move || member.leave());
        leave.push(seen.until(
            at,
            |e| matches!(e, Event::RemoveMember { member, .. } if member.id() == id),
        ));
        left.join().expect("no panic").expect("etcd answers");

        // The newcomer lists, takes a lease, takes over.
        let id = format!("twice-{n}");
        let old = builder().member("room", &id).start().expect("etcd answers");
        seen.added(&id, Instant::now());
        let newcomer = builder().member("room", &id);
        let at = Instant::now();
        let new = std::thread::spawn(move || {
            let new = newcomer.start().expect("etcd answers");
            (new, at.elapsed().as_secs_f64() * 1e3)
        });
        take_over.push(seen.added(&id, at));
        let (new, took) = new.join().expect("no panic");
        ready.push(took);
        drop((old, new));

        // By now its lease has been looked at, so that its end is judged.
        gateway.revoke(lease);
        let lease = gateway.grant(LONG);
        let at = Instant::now();
        gateway.put(&data::key(&servant), data::value(&servant, 1), lease);
        restart.push(seen.added(&servant, at));
    }
    plan.progress("leases run out");
    let over = deaths(&gateway, &seen, plan.pick(20, 2));

    let about = format!(
        "From the call, or the request's being sent, to a listener; {rounds} of each, in turn. A \
         restart is that of a server in Go: its lease is revoked, and its key put anew on another; \
         from that put. A take-over is a restart by Headcount, under a name that still stands: from \
         the call of `Builder::start`, which makes some seven requests one after the other. It \
         returns when it sees itself, up to 100 ms later: for so long etcd lets a watch wait that \
         begins before the newest change, here its own registration. Deaths: {} leases of {TTL} s \
         that nobody renews.",
        over.len()
    );
    let mut section = Section::new("ends", "e. Leave, restart, death", about);
    section.head = vec!["", "p50, ms", "p99, ms"];
    section.plot = ("From the call to a listener, p25, p50, p75".into(), "ms");
    for (what, values) in [
        ("put → AddMember", &put),
        ("leave() → RemoveMember", &leave),
        ("restart → AddMember", &restart),
        ("take-over → AddMember", &take_over),
        ("take-over → start() returns", &ready),
    ] {
        let times = samples(values);
        let [mid, high] = [0.5, 0.99].map(|share| format!("{:.2}", times.at(share)));
        section.rows.push(vec![what.into(), mid, high]);
        let middle = [0.25, 0.5, 0.75].map(|share| times.at(share));
        section.bars.push(labelled(what.into(), &middle, true));
    }
    let over = samples(&over);
    let [mid, most] = [0.5, 1.0].map(|share| over.at(share));
    section.rows.push(vec![
        "death → ServerDown, beyond the TTL".into(),
        format!("{mid:.0}"),
        format!("{most:.0}"),
    ]);
    let base = samples(&put);
    for (what, values) in [("leave", &leave), ("restart", &restart)] {
        let ratio = samples(values).median() / base.median();
        let target = format!("{what}: p50 ≤ 1.3 × a put's");
        section.target('e', &target, format!("{ratio:.2}"), ratio <= 1.3);
    }
    let met = most <= 500.0 + base.at(0.99);
    let measured = format!("TTL + {:.2} s, at most {:.2} s", mid / 1e3, most / 1e3);
    section.target('e', "expiry: TTL + 0.5 s + b", measured, met);
    report.add(section);
}

/// Milliseconds beyond the TTL, from the grant's answer to `ServerDown`.
fn deaths(gateway: &Gateway, seen: &Seen, count: usize) -> Vec<f64> {
    let mut granted = Vec::new();
    for n in 0..count {
        let id = format!("dead-{n}");
        let lease = gateway.grant(TTL);
        let at = Instant::now();
        gateway.put(&data::key(&id), data::value(&id, 0), lease);
        granted.push((id, at));
        // etcd looks twice a second: not all at the same moment of its round.
        std::thread::sleep(Duration::from_millis(53));
    }
    let mut over = Vec::new();
    while over.len() < count {
        let event = seen.0.recv_timeout(BOUND).expect("leases run out");
        let down = match &event {
            Event::ServerDown { member, .. } => member.id(),
            _ => continue,
        };
        if let Some((_, at)) = granted.iter().find(|(id, _)| id == down) {
            over.push((at.elapsed().as_secs_f64() - TTL as f64) * 1e3);
        }
    }
    over
}

struct Seen(Receiver<Event>);

impl Seen {
    /// Milliseconds from `at` until such an event is received.
    fn until(&self, at: Instant, fits: impl Fn(&Event) -> bool) -> f64 {
        loop {
            let event = self.0.recv_timeout(BOUND).expect("the event comes");
            if fits(&event) {
                return at.elapsed().as_secs_f64() * 1e3;
            }
        }
    }

    fn added(&self, id: &str, at: Instant) -> f64 {
        self.until(at, |e| matches!(e, Event::AddMember(m) if m.id() == id))
    }
}
