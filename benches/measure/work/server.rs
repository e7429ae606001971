//! (g) What members cost etcd in steady state.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use super::{float, labelled, samples};
use crate::Plan;
use crate::child::{Job, Who};
use crate::report::{Report, Section, ratios};
use crate::support::etcd::Etcd;

/// The defaults, in seconds.
const TTL: f64 = 10.0;
const STALL_BOUND: f64 = 10.0;
const RECONCILE: f64 = 60.0;
/// A second, at most.
const CHECK_RATE: f64 = 50.0;
/// Keys in the first page of a reconcile; the next ones hold more.
const PAGE: usize = 1000;

pub fn run(plan: &Plan, report: &mut Report) {
    let sizes: &[usize] = plan.pick(&[10, 100, 1000], &[10]);
    let mut section = Section::new("server", "g. etcd's side", about());
    section.head = vec![
        "members",
        "`check`",
        "requests a second per member",
        "by the formula",
        "of which",
        "etcd's CPU per member, ms/s",
        "a member's own CPU, ms/s",
    ];
    section.plot = ("Requests to etcd per member".into(), "a second");
    let (mut silent, mut all) = (Vec::new(), Vec::new());
    for &size in sizes {
        let found = measure(plan, size);
        for (name, cost, looks) in [
            ("Silent", &found.silent, 0.0),
            ("All (default)", &found.all, looks(size)),
        ] {
            section.rows.push(vec![
                size.to_string(),
                name.into(),
                format!("{:.2}", cost.rate()),
                format!("{:.2}", own(size) + looks),
                cost.named(),
                format!("{:.2}", cost.etcd),
                format!("{:.2}", cost.own),
            ]);
            let bar = labelled(format!("{size} members, {name}"), &[cost.rate()], true);
            section.bars.push(bar);
        }
        if found.lost > 0.0 {
            let note = format!(
                " Of {size} members, {} lost their registration.",
                found.lost
            );
            section.about += &note;
        }
        silent.push(found.silent.rate());
        all.push(found.all.rate());
    }
    let said = |rates: &[f64]| {
        let said: Vec<_> = rates.iter().map(|rate| format!("{rate:.2}")).collect();
        format!("{} with {sizes:?} members", said.join(", "))
    };
    let bound = 3.0 / TTL + 1.0;
    let most = |rates: &[f64]| samples(rates).at(1.0);
    let target = "≤ 3/TTL + 1 = 1.3 requests a second per member at the defaults (`Check::All`)";
    section.target('g', target, said(&all), most(&all) <= bound);
    let target = "the same with `Check::Silent`";
    section.target('g', target, said(&silent), most(&silent) <= bound);
    let target = "not growing with the members, but for checks, and these to `check_rate` at most";
    let beyond = |rates: &[f64], looks: fn(usize) -> f64| {
        let formula = sizes.iter().map(|size| own(*size) + looks(*size));
        ratios(rates, &formula.collect::<Vec<_>>()).at(1.0)
    };
    let (quiet, asking) = (beyond(&silent, |_| 0.0), beyond(&all, looks));
    let measured = format!("at most {quiet:.2} and {asking:.2} × the formula");
    // A tenth is jitter and chance.
    section.target('g', target, measured, quiet.max(asking) <= 1.1);
    report.add(section);
}

/// What a member asks of etcd without looking at others' leases: keepalives, looks at its own key,
/// watch streams, and comparisons with etcd's keys.
fn own(members: usize) -> f64 {
    let pages = members.div_ceil(PAGE) as f64;
    3.0 / TTL + 1.0 / TTL + 2.0 / STALL_BOUND + pages / RECONCILE
}

fn looks(members: usize) -> f64 {
    CHECK_RATE.min(10.0 * (members - 1) as f64 / TTL)
}

fn about() -> String {
    format!(
        "Members with default settings in steady state; requests as etcd counts them \
         (`grpc_server_started_total`), CPU as its process uses it. The formula: 3/TTL keepalives \
         + 1/TTL looks at the own key + 2/`stall_bound` watch streams + a page of keys (the first has {PAGE}) a \
         `reconcile_interval` + the looks at others' leases, which are none with \
         `Check::Silent`, and min(`check_rate`, 10 × others / TTL) with `Check::All`; by default \
         TTL {TTL} s, `stall_bound` {STALL_BOUND} s, `reconcile_interval` {RECONCILE} s, \
         `check_rate` {CHECK_RATE}. What is waited for is some 5 % shorter, by its jitter. Ten of \
         the members check all others' leases, the rest only silent ones', of which there are \
         none; so `All` is what each of the ten costs. All of a hundred or a thousand would cost \
         etcd a hundred or a thousand times that."
    )
}

/// Per member and second.
struct Cost {
    requests: BTreeMap<String, f64>,
    /// CPU, ms.
    etcd: f64,
    own: f64,
}

impl Cost {
    fn rate(&self) -> f64 {
        self.requests.values().sum()
    }

    fn named(&self) -> String {
        let mut methods: Vec<_> = self.requests.iter().collect();
        methods.retain(|(_, rate)| **rate >= 0.005);
        methods.sort_by(|a, b| b.1.total_cmp(a.1));
        let named: Vec<_> = methods.iter().map(|(n, r)| format!("{n} {r:.2}")).collect();
        named.join(", ")
    }
}

struct Found {
    silent: Cost,
    all: Cost,
    lost: f64,
}

fn measure(plan: &Plan, size: usize) -> Found {
    plan.progress(&format!("{size} members start"));
    let etcd = Etcd::start();
    let checkers = size.min(10);
    let args = [
        ("endpoint", etcd.endpoint()),
        ("count", size.to_string()),
        ("checkers", checkers.to_string()),
    ];
    let job = Job::start(None, Who::Headcount, "members", &args);
    // One reconcile of each, where they weigh most.
    let span = plan.pick(if size < 1000 { 15 } else { 60 }, 1);
    let silent = window(plan, &etcd, &job, size, span);
    let all = window(plan, &etcd, &job, size, plan.pick(10, 1));
    let result = job.result();
    let per = |amount: f64, n: usize| amount / n as f64;
    let cost = |(metrics, seconds): &(Metrics, f64), own: &str| Cost {
        requests: metrics
            .requests
            .iter()
            .map(|(name, count)| (name.clone(), per(count / seconds, size)))
            .collect(),
        etcd: per(metrics.cpu / seconds * 1e3, size),
        own: per(float(&result[own]) / seconds * 1e3, size),
    };
    let (quiet, mut asking) = (cost(&silent, "silent"), cost(&all, "all"));
    // What is more than it was is the checkers' doing.
    let more = size as f64 / checkers as f64;
    asking.etcd = quiet.etcd + (asking.etcd - quiet.etcd) * more;
    asking.own = quiet.own + (asking.own - quiet.own) * more;
    if let Some(looks) = asking.requests.get_mut("LeaseTimeToLive") {
        *looks *= more;
    }
    Found {
        silent: quiet,
        all: asking,
        lost: float(&result["lost"]),
    }
}

/// What etcd did in so many seconds, and how many these were.
fn window(plan: &Plan, etcd: &Etcd, job: &Job, size: usize, seconds: u64) -> (Metrics, f64) {
    job.wait_ready();
    plan.progress(&format!("{size} members in steady state, {seconds} s"));
    // What the starts cause has to be over.
    std::thread::sleep(Duration::from_secs(plan.pick(3, 1)));
    let before = Metrics::of(etcd);
    job.go();
    let began = Instant::now();
    std::thread::sleep(Duration::from_secs(seconds));
    job.go();
    let span = began.elapsed().as_secs_f64();
    (Metrics::of(etcd).since(&before), span)
}

/// etcd's own account.
struct Metrics {
    requests: BTreeMap<String, f64>,
    cpu: f64,
}

impl Metrics {
    fn of(etcd: &Etcd) -> Metrics {
        let (_, text) = etcd.gateway().try_get("/metrics").expect("etcd's metrics");
        let text = text.as_str().expect("text");
        let value = |line: &str| {
            let last = line.rsplit(' ').next();
            last.and_then(|v| v.parse().ok()).unwrap_or(0.0)
        };
        let mut requests = BTreeMap::new();
        for line in text.lines() {
            if line.starts_with("grpc_server_started_total") {
                let after = line.split("grpc_method=\"").nth(1);
                let method = after.and_then(|m| m.split('"').next());
                // Two services may have a method of that name.
                *requests.entry(method.unwrap_or("?").into()).or_default() += value(line);
            }
        }
        let mut lines = text.lines();
        let cpu = lines.find(|line| line.starts_with("process_cpu_seconds_total"));
        Metrics {
            requests,
            cpu: cpu.map_or(0.0, value),
        }
    }

    fn since(mut self, before: &Metrics) -> Metrics {
        for (name, count) in &mut self.requests {
            *count -= before.requests.get(name).copied().unwrap_or_default();
        }
        self.cpu -= before.cpu;
        self
    }
}
