//! What checking costs etcd and this process, measured at etcd itself.

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

#[test]
fn a_thousand_members_cost_no_more_than_the_rate() {
    const MEMBERS: usize = 1000;
    let etcd = Etcd::start();
    let gateway = etcd.gateway();
    for n in 0..MEMBERS {
        let (name, lease) = (format!("go/{n}"), gateway.grant(60));
        gateway.put(&key(&name), ledger::value(&name, 0), lease);
    }
    let mut costs = Vec::new();
    for (check, rate) in [(Check::Nobody, 50), (Check::All, 50), (Check::All, 400)] {
        let builder = observer(etcd.endpoint()).check(check).check_rate(rate);
        let cluster = builder.start().expect("an observer");
        assert_eq!(cluster.members().len(), MEMBERS);
        std::thread::sleep(Duration::from_millis(500));
        let (began, cpu, before) = (Instant::now(), load::cpu(), answered(&gateway));
        std::thread::sleep(Duration::from_secs(5));
        let span = began.elapsed().as_secs_f64();
        let asked = (answered(&gateway) - before) as f64 / span;
        let cpu = (load::cpu() - cpu).as_secs_f64() / span * 100.0;
        println!(
            "{MEMBERS} members, {check:?} at {rate}/s: {asked:.1} requests a second at etcd, CPU \
             {cpu:.1} % of a core"
        );
        let most = if check == Check::Nobody {
            0.0
        } else {
            f64::from(rate)
        };
        assert!(asked <= most * 1.02 + 0.5, "{asked} a second");
        // More than ten looks in a lease's time would tell nothing new.
        let least = most.min(MEMBERS as f64 / 6.0) * 0.8;
        assert!(asked >= least, "{asked} a second");
        costs.push(cpu);
        let stats = cluster.stats();
        assert_eq!(
            stats.checked,
            if check == Check::Nobody { 0 } else { MEMBERS }
        );
        assert_eq!(stats.checks_failed, 0);
    }
    // A round of all of them at the higher rate.
    let cluster = observer(etcd.endpoint()).check_rate(1000).start();
    let cluster = cluster.expect("an observer");
    let began = Instant::now();
    until(SOON, "everybody was looked at", || {
        cluster.stats().checks >= MEMBERS as u64
    });
    let oldest = cluster.stats().oldest_check.expect("they were looked at");
    println!(
        "at 1000/s a round takes {:?}; oldest {oldest:?}",
        began.elapsed()
    );
}
