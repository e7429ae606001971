//! Failure-modes row 19: many clients whose etcd restarts come back spread over time, ask for no
//! more than they need, and are all whole again.

mod history;
mod ledger;
mod support;
mod told;

use std::time::{Duration, Instant};

use headcount::{Builder, Check, Cluster};

use history::recorder::relists;
use ledger::{Random, View, add, commit, view_in, view_of};
use support::etcd::Etcd;
use support::gateway::Gateway;
use support::proxy::Proxy;
use support::wait::until;
use told::SOON;

/// Each behind a proxy of its own, which counts its requests.
const CLIENTS: usize = 200;
/// The first of them are members as well.
const MEMBERS: usize = 20;
/// Their lease: etcd is away for longer.
const TTL: Duration = Duration::from_secs(15);
/// The longest wait between two tries: the default of `backoff`.
const LONGEST: Duration = Duration::from_secs(5);
/// So often etcd is restarted, at most, until they come back spread.
const RESTARTS: usize = 3;
/// What is looked at once etcd is back, and in what steps.
const SPAN: Duration = Duration::from_secs(3);
const STEP: Duration = Duration::from_millis(100);

/// One to resume the watch, and one should etcd not be ready yet; then the keys are compared, which
/// takes one, and one to go on watching.
const OF_AN_OBSERVER: usize = 4;
/// That, and the keepalive and a look at the own key, each twice at most.
const OF_A_MEMBER: usize = 8;
/// Full jitter over the longest wait is 4 watches a step, and over a third of the TTL a keepalive of
/// a member: four times as many is no longer chance. On top of that, each member whose keepalive
/// etcd has let wait until it was ready looks at its key then.
const OF_A_STEP: usize = 4 * 5 + MEMBERS;

/// With full jitter a client that waits for up to so long tries, on average, twice in that time. So a
/// twentieth of it brings a tenth of them; a sixth, for those that have not come to the longest wait
/// yet. A quarter is no longer chance.
const MOMENT: Duration = Duration::from_millis(LONGEST.as_millis() as u64 / 20);
const AT_ONCE: usize = CLIENTS / 4;

struct Client {
    proxy: Proxy,
    cluster: Cluster,
}

/// Settings as they are by default, but that whole clusters check only who says nothing, and have the
/// time to start that a busy machine takes.
fn start(etcd: &Etcd, count: usize, set: impl Fn(usize, Builder) -> Builder) -> Vec<Client> {
    let client = |n: usize| {
        let proxy = Proxy::start(&etcd.endpoint());
        let builder = Cluster::builder()
            .endpoints([proxy.endpoint()])
            .start_timeout(SOON)
            .check(Check::Silent);
        let cluster = set(n, builder).start().expect("etcd is there");
        Client { proxy, cluster }
    };
    (0..count).map(client).collect()
}

#[track_caller]
fn all_see(clients: &[Client], bound: Duration, truth: &View) {
    until(bound, "all see the truth", || {
        let sees = |c: &Client| c.cluster.store_reachable() && view_of(&c.cluster) == *truth;
        clients.iter().all(sees)
    });
}

/// What that line of etcd's metrics says, over all its labels that hold these words.
fn metric(gateway: &Gateway, name: &str, words: &str) -> u64 {
    let (_, metrics) = gateway.try_get("/metrics").expect("etcd's metrics");
    let metrics = metrics.as_str().expect("a text");
    let lines = metrics.lines().filter(|line| {
        let rest = line.strip_prefix(name);
        rest.is_some_and(|rest| rest.starts_with(['{', ' ']) && rest.contains(words))
    });
    let counts = lines.filter_map(|line| line.rsplit(' ').next()?.parse::<f64>().ok());
    counts.sum::<f64>() as u64
}

/// How many requests of that kind have come to etcd since it started, by its own count.
fn begun(gateway: &Gateway, method: &str) -> u64 {
    let method = format!(r#"grpc_method="{method}""#);
    metric(gateway, "grpc_server_started_total", &method)
}

/// How many came in each step, from then on.
fn spread(arrivals: &[Vec<Instant>], from: Instant, span: Duration, step: Duration) -> Vec<usize> {
    let mut steps = vec![0; span.div_duration_f64(step) as usize];
    for at in arrivals.iter().flatten().filter(|at| **at >= from) {
        let step = (*at - from).div_duration_f64(step) as usize;
        steps
            .get_mut(step)
            .into_iter()
            .for_each(|count| *count += 1);
    }
    steps
}

/// How many clients had their first request within the same moment.
fn at_once(arrivals: &[Vec<Instant>]) -> usize {
    let mut firsts: Vec<Instant> = arrivals
        .iter()
        .filter_map(|all| all.first().copied())
        .collect();
    firsts.sort_unstable();
    let from = |at: usize| {
        let later = firsts[at..].iter();
        later
            .take_while(|&&next| next < firsts[at] + MOMENT)
            .count()
    };
    (0..firsts.len()).map(from).max().unwrap_or_default()
}

fn most(counts: &[usize]) -> usize {
    *counts.iter().max().expect("some")
}

/// Restarts etcd. All are whole again, and nobody has asked for too much; whether they came spread.
fn come_back_spread(etcd: &Etcd, gateway: &Gateway, clients: &[Client], before: &View) -> bool {
    let (members, _) = clients.split_at(MEMBERS);
    etcd.kill();
    until(
        TTL + SOON,
        "etcd is lost, and every registration doubtful",
        || {
            let lost = clients.iter().all(|c| !c.cluster.store_reachable());
            lost && members.iter().all(|c| !c.cluster.is_registered())
        },
    );
    clients.iter().for_each(|c| c.proxy.note_arrivals());
    let launched = Instant::now();
    etcd.launch();
    // The same lives as before.
    until(LONGEST + 3 * SOON, "all registered again", || {
        members.iter().all(|c| c.cluster.is_registered())
    });
    all_see(clients, LONGEST + SOON, before);
    let whole = launched.elapsed();
    let (lists, watches) = (begun(gateway, "Range"), begun(gateway, "Watch"));

    // What reached etcd, from the first that did.
    let arrivals: Vec<_> = clients.iter().map(|c| c.proxy.arrivals()).collect();
    let first = *arrivals.iter().flatten().min().expect("requests");
    until(SPAN, "it can be judged", || first.elapsed() >= SPAN);
    let arrivals: Vec<_> = clients.iter().map(|c| c.proxy.arrivals()).collect();
    let steps = spread(&arrivals, first, SPAN, STEP);
    let at_once = at_once(&arrivals);
    let early = |all: &Vec<Instant>| all.iter().filter(|at| **at < first + SPAN).count();
    let counts: Vec<usize> = arrivals.iter().map(early).collect();
    let of_a_member = most(&counts[..MEMBERS]);
    let of_an_observer = most(&counts[MEMBERS..]);
    println!(
        "{:?} after its start etcd had the first request, {whole:?} after it all were whole; \
         {lists} looks at the keys, {watches} watches; in the first {SPAN:?} a member made {of_a_member} \
         requests at most, an observer {of_an_observer}; {at_once} came within {MOMENT:?}; by {STEP:?}: {steps:?}",
        first - launched
    );
    assert!(of_a_member <= OF_A_MEMBER, "{counts:?}");
    assert!(of_an_observer <= OF_AN_OBSERVER, "{counts:?}");
    at_once <= AT_ONCE && most(&steps) <= OF_A_STEP
}

#[test]
fn g1_g8_two_hundred_clients_come_back_spread_and_whole() {
    let etcd = Etcd::start();
    let gateway = etcd.gateway();
    let clients = start(&etcd, CLIENTS, |n, builder| match n < MEMBERS {
        true => builder.member("gate", n.to_string()).ttl(TTL),
        false => builder,
    });
    let before = view_in(&gateway);
    assert_eq!(before.len(), MEMBERS);
    all_see(&clients, SOON, &before);

    // Where the processors were taken for a moment, whoever was due in it came at its end.
    assert!(
        (0..RESTARTS).any(|_| come_back_spread(&etcd, &gateway, &clients, &before)),
        "together after each of {RESTARTS} restarts"
    );

    // Nobody listed anew: what they knew was still etcd's.
    for client in &clients {
        let made = client.cluster.stats().relists;
        assert_eq!((made.first, relists(&client.cluster)), (1, 0), "{made:?}");
    }
    // One watch each, whoever listens: more is what TLS on some versions of etcd does not bear.
    until(SOON, "one watch each", || {
        metric(&gateway, "etcd_debugging_mvcc_watcher_total", "") == CLIENTS as u64
    });
    // And all are told what comes.
    let names: Vec<String> = (0..40).map(|n| format!("go/{n}")).collect();
    commit(&gateway, Random(19).changes(&names));
    add(&gateway, "end/1");
    all_see(&clients, SOON, &view_in(&gateway));
}

/// As behind a load balancer that restarts: what brought them together does not keep them together.
#[test]
fn g9_clients_that_came_back_together_drift_apart() {
    const HERD: usize = 100;
    const PERIOD: Duration = Duration::from_secs(1);
    let etcd = Etcd::start();
    let clients = start(&etcd, HERD, |_, builder| {
        let ms = Duration::from_millis;
        // Together at first; where etcd is too slow for that, not for ever.
        let builder = builder.request_timeout(ms(1500)).backoff(ms(1), ms(300));
        // A stream is renewed after half of it.
        builder.stall_bound(2 * PERIOD)
    });
    clients.iter().for_each(|c| c.proxy.cut());
    clients.iter().for_each(|c| c.proxy.note_arrivals());
    let began = Instant::now();
    until(20 * PERIOD + SOON, "20 renewals", || {
        began.elapsed() > 20 * PERIOD && clients.iter().all(|c| c.proxy.arrivals().len() > 15)
    });
    let arrivals: Vec<_> = clients.iter().map(|c| c.proxy.arrivals()).collect();
    let steps = spread(&arrivals, began + 16 * PERIOD, 4 * PERIOD, PERIOD / 10);
    println!("renewals by {:?}: {steps:?}", PERIOD / 10);
    // A machine that stands still for a moment brings some together, once; a herd comes each time.
    let calmest = steps.chunks(10).map(most).min().expect("four periods");
    assert!(calmest <= HERD / 2, "{steps:?}");
}
