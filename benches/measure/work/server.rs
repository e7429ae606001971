//! (g) What members cost etcd in steady state.

use std::collections::BTreeMap;
use std::time::Duration;

use super::{float, labelled};
use crate::Plan;
use crate::child::{Job, Who};
use crate::report::{Report, Section};
use crate::support::etcd::Etcd;

/// The default, in seconds.
const TTL: f64 = 10.0;

pub fn run(plan: &Plan, report: &mut Report) {
    let sizes: &[usize] = plan.pick(&[10, 100, 1000], &[10]);
    let window = Duration::from_secs(plan.pick(30, 2));
    let about = format!(
        "Members with default settings (TTL {TTL} s) in steady state, for {} s; requests as etcd \
         counts them (`grpc_server_started_total`), CPU as its process uses it.",
        window.as_secs()
    );
    let mut section = Section::new("server", "g. etcd's side", about);
    section.head = vec![
        "members",
        "requests a second per member",
        "of which",
        "etcd's CPU per member, ms/s",
        "a member's own CPU, ms/s",
    ];
    section.plot = ("Requests to etcd per member".into(), "a second");
    let mut rates = Vec::new();
    for &size in sizes {
        plan.progress(&format!("{size} members in steady state"));
        let etcd = Etcd::start();
        let args = [("endpoint", etcd.endpoint()), ("count", size.to_string())];
        let job = Job::start(None, Who::Headcount, "members", &args);
        job.wait_ready();
        // What the starts cause has to be over.
        std::thread::sleep(Duration::from_secs(plan.pick(12, 1)));
        job.go();
        let before = Metrics::of(&etcd);
        std::thread::sleep(window);
        let after = Metrics::of(&etcd);
        job.go();
        let result = job.result();
        assert_eq!(float(&result["lost"]), 0.0, "a member was lost");
        let per = |value: f64| value / window.as_secs_f64() / size as f64;
        let mut methods: Vec<(&str, f64)> = after
            .requests
            .iter()
            .map(|(name, count)| {
                let was = before.requests.get(name).copied().unwrap_or_default();
                (name.as_str(), per(count - was))
            })
            .filter(|(_, rate)| *rate >= 0.005)
            .collect();
        methods.sort_by(|a, b| b.1.total_cmp(&a.1));
        let named: Vec<_> = methods.iter().map(|(n, r)| format!("{n} {r:.2}")).collect();
        let rate = per(after.total() - before.total());
        rates.push(rate);
        section.rows.push(vec![
            size.to_string(),
            format!("{rate:.2}"),
            named.join(", "),
            format!("{:.2}", per(after.cpu - before.cpu) * 1e3),
            format!("{:.2}", per(float(&result["cpu"])) * 1e3),
        ]);
        let bar = labelled(format!("{size} members"), &[rate], true);
        section.bars.push(bar);
    }
    let most = rates.iter().copied().fold(0.0, f64::max);
    let target = "≤ 3/TTL + 1 requests a second per member (1.3), not growing";
    let measured: Vec<_> = rates.iter().map(|r| format!("{r:.2}")).collect();
    section.target('g', target, measured.join(", "), most <= 3.0 / TTL + 1.0);
    report.add(section);
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
        let requests = text
            .lines()
            .filter(|line| line.starts_with("grpc_server_started_total"))
            .map(|line| {
                let after = line.split("grpc_method=\"").nth(1);
                let method = after.and_then(|m| m.split('"').next());
                (method.unwrap_or("?").to_owned(), value(line))
            })
            .collect();
        let mut lines = text.lines();
        let cpu = lines.find(|line| line.starts_with("process_cpu_seconds_total"));
        Metrics {
            requests,
            cpu: cpu.map_or(0.0, value),
        }
    }

    fn total(&self) -> f64 {
        self.requests.values().sum()
    }
}
