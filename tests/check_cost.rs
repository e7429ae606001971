//! What checking costs etcd and this process, measured at etcd itself.

mod history;
mod ledger;
mod support;
mod told;

use std::time::{Duration, Instant};

use headcount::Check;
use support::etcd::Etcd;
use support::gateway::Gateway;
use support::load;
use support::wait::until;
use told::{SOON, key, observer};

/// How many questions of that kind etcd has answered so far, by its own count.
fn answered(gateway: &Gateway) -> u64 {
    let (_, metrics) = gateway.try_get("/metrics").expect("etcd's metrics");
    let metrics = metrics.as_str().expect("a text");
    let counts = metrics
        .lines()
        .filter(|line| line.starts_with("grpc_server_handled_total{"))
        .filter(|line| line.contains(r#"grpc_method="LeaseTimeToLive""#))
        .filter_map(|line| line.rsplit(' ').next()?.parse::<f64>().ok());
    counts.sum::<f64>() as u64
}

/// The members' TTL in seconds: Headcount's default.
const TTL: i64 = 10;

#[test]
fn checking_costs_no_more_than_the_rate() {
    let etcd = Etcd::start();
    let gateway = etcd.gateway();
    let mut leases = Vec::new();
    for (wanted, check, rate) in [
        (10, Check::All, 50),
        (100, Check::All, 50),
        (1000, Check::Nobody, 50),
        (1000, Check::All, 50),
        (1000, Check::All, 400),
    ] {
        let renew = |leases: &[i64]| {
            let there = leases
                .iter()
                .all(|lease| gateway.keepalive(*lease).is_some());
            assert!(there, "one ran out");
        };
        let mut renewed = Instant::now();
        for n in leases.len()..wanted {
            // It may take a slow machine longer than they live.
            if renewed.elapsed() > Duration::from_secs(TTL as u64 / 4) {
                renew(&leases);
                renewed = Instant::now();
            }
            let (name, lease) = (format!("go/{n}"), gateway.grant(TTL));
            gateway.put(&key(&name), ledger::value(&name, 0), lease);
            leases.push(lease);
        }
        renew(&leases);
        let members = wanted;
        let builder = observer(etcd.endpoint()).check(check).check_rate(rate);
        let cluster = builder.start().expect("an observer");
        assert_eq!(cluster.members().len(), members);
        let watched = if check == Check::Nobody { 0 } else { members };
        assert_eq!(cluster.stats().checked, watched);
        // The first looks come at once, as many as may.
        until(SOON, "a round, or the rate", || {
            cluster.stats().checks >= watched.min(rate as usize) as u64
        });
        renew(&leases);

        let pid = etcd.pid().expect("etcd runs");
        let (before, cpu, etcds) = (answered(&gateway), load::cpu(), load::cpu_of(pid));
        let began = Instant::now();
        std::thread::sleep(Duration::from_secs(2));
        let span = began.elapsed().as_secs_f64();
        let percent = |used: Duration| used.as_secs_f64() / span * 100.0;
        let (cpu, etcds) = (
            percent(load::cpu() - cpu),
            percent(load::cpu_of(pid) - etcds),
        );
        let asked = (answered(&gateway) - before) as f64 / span;
        println!(
            "{members} members, {check:?}, at most {rate}/s: {asked:.1} requests a second by \
             etcd's count; {cpu:.1} % of a core here, {etcds:.1} % in etcd"
        );
        let most = f64::from(rate).min(if watched == 0 { 0.0 } else { f64::MAX });
        assert!(asked <= most * 1.02 + 0.5, "{asked} a second");
        // Some ten looks in a lease's time, or as many as may be; a quarter of it on a busy machine.
        let least = most.min(watched as f64 * 5.0 / TTL as f64) / 4.0;
        assert!(asked >= least - 1.0, "{asked} a second");
        assert_eq!(cluster.stats().checks_failed, 0);
    }
}
