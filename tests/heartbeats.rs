//! The heartbeat checker on real etcd: suspicion, what is known of each kind of end, mass loss.

mod herd;
mod history;
mod ledger;
mod programs;
mod support;
mod told;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::SeqCst};
use std::time::{Duration, Instant};

use headcount::{Check, Cluster, Event, Options};
use herd::Server;
use ledger::{Ledger, Random, value};
use serde_json::json;
use support::cluster::EtcdCluster;
use support::etcd::Etcd;
use support::fake::{FakeGateway, Reply};
use support::proxy::Proxy;
use support::wait::{eventually, throughout, until};
use told::{SOON, Told, key, member, observer};

fn ms(n: u64) -> Duration {
    Duration::from_millis(n)
}

/// An observer that waits so long for etcd's answer: without one, a revocation is told as a
/// deregistration.
fn patient(endpoint: String, verdict_timeout: Duration) -> headcount::Builder {
    observer(endpoint)
        .stall_bound(ms(10_000))
        .verdict_timeout(verdict_timeout)
}

/// An observer that has looked at so many leases.
#[track_caller]
fn checked(builder: headcount::Builder, leases: usize) -> (Cluster, Told) {
    let cluster = builder.start().expect("an observer");
    let told = Told::by(&cluster);
    until(SOON, "all were looked at", || {
        let stats = cluster.stats();
        stats.checked == leases && stats.checks >= leases as u64
    });
    (cluster, told)
}

/// A process that stands still is suspected before half of its time has passed, and cleared when it
/// goes on; after the whole of it, it is down, and comes back as another incarnation.
#[test]
fn g6_a_stopped_member_is_suspected_cleared_and_later_down() {
    const TTL: u64 = 8;
    let etcd = Etcd::start();
    let watch = programs::watch(&etcd, &[]);
    let (stopped, old) = programs::member(&etcd, "1", &["--ttl", "8"]);
    programs::expect(&watch, "1", "AddMember");
    let about = |event: &'static str| move |line: &serde_json::Value| line["event"] == event;

    let half = Duration::from_secs(TTL) / 2;
    let mut suspected = Vec::new();
    // At two moments of its renewal cycle.
    for pause in [900, 2100] {
        std::thread::sleep(ms(pause));
        stopped.signal(libc::SIGSTOP);
        let at = Instant::now();
        let line = watch.wait_line(half, about("Suspect"));
        suspected.push(line.at - at);
        let line = line.json();
        assert_eq!(line["incarnation"], old, "{line}");
        assert_eq!(line["granted_s"], 8.0, "{line}");
        let left = line["remaining_s"].as_f64().expect("a number");
        assert!((3.0..6.0).contains(&left), "{line}");
        std::thread::sleep(half.saturating_sub(at.elapsed()));
        stopped.signal(libc::SIGCONT);
        let on = Instant::now();
        let line = watch.wait_line(SOON, about("Cleared"));
        assert!(line.at - on < ms(2500), "{:?}", line.at - on);
    }
    println!("TTL {TTL} s; suspected {suspected:.2?} after it stopped");

    stopped.signal(libc::SIGSTOP);
    watch.wait_line(SOON, about("Suspect"));
    let line = programs::expect(&watch, "1", "ServerDown");
    assert_eq!(line["cause"], "lease-expired", "{line}");
    assert_eq!(line["incarnation"], old, "{line}");
    stopped.signal(libc::SIGCONT);
    stopped.wait_line(SOON, about("Lost"));
    let line = programs::expect(&watch, "1", "AddMember");
    assert!(line["incarnation"].as_i64() > Some(old), "{line}");
}

/// The README's table "what is known, and how".
#[test]
fn g6_what_is_known_of_each_end() {
    let etcd = Etcd::start();
    let (gateway, endpoints) = (etcd.gateway(), [etcd.endpoint()]);
    let mut go: Vec<Server> = (0..4)
        .map(|n| Server::start(&endpoints, &format!("go/{n}"), 6))
        .collect();
    let ours: Vec<Cluster> = ["hc/0", "hc/1", "hc/2", "hc/3"]
        .iter()
        .map(|name| member(etcd.endpoint(), name, 6).check(Check::Nobody))
        .map(|member| member.start().expect("a member"))
        .collect();
    let life = |name: &str| {
        gateway
            .get(&key(name))
            .expect("it is there")
            .create_revision
    };
    let lease = |name: &str| gateway.get(&key(name)).expect("it is there").lease;
    let patient = || patient(etcd.endpoint(), ms(1500));
    let (_all, mut all) = checked(patient(), 8);
    let (_silent, mut silent) = checked(patient().check(Check::Silent), 4);
    let nobody = observer(etcd.endpoint()).check(Check::Nobody);
    let nobody = nobody.start().expect("an observer");
    let mut unchecked = Told::by(&nobody);
    // So that what follows is not right after a start.
    std::thread::sleep(ms(400));
    let lives: Vec<i64> = (0..4).map(|n| life(&format!("hc/{n}"))).collect();

    // Leave.
    let left = Instant::now();
    go[0].leave();
    let gone = all.departure(SOON, "go/0");
    assert!(gone.text.starts_with("RemoveMember") && gone.text.ends_with("(revoked)"));
    println!("a silent leave is told after {:?}", gone.at - left);
    ours[0].leave().expect("told");
    assert!(all.departure(SOON, "hc/0").text.ends_with("(announced)"));
    // Deletion by hand, which a member of Headcount mends.
    let (at, old) = (Instant::now(), life("go/1"));
    gateway.delete(&key("go/1"));
    let gone = all.departure(SOON, "go/1");
    assert_eq!(gone.text, format!("RemoveMember go/1@{old} (deregistered)"));
    println!("a deletion by hand is told after {:?}", gone.at - at);
    assert!(gone.at - at < ms(3000), "the wait is bounded");
    gateway.delete(&key("hc/1"));
    all.next(
        SOON,
        &format!("RemoveMember hc/1@{} (deregistered)", lives[1]),
    );
    all.next(SOON, "AddMember hc/1@");
    // A lease revoked by hand: for Go's that is how they leave; ours would have said so.
    gateway.revoke(lease("hc/2"));
    all.next(SOON, &format!("ServerDown hc/2@{} (unknown)", lives[2]));
    all.next(SOON, "AddMember hc/2@");
    // Restart under the same name: Go's puts over the key of old, if that still stands.
    let restarted = member(etcd.endpoint(), "hc/3", 6).check(Check::Nobody);
    let restarted = restarted.start().expect("a member");
    all.next(SOON, &format!("ServerDown hc/3@{} (replaced)", lives[3]));
    all.next(SOON, "AddMember hc/3@");
    drop(restarted);

    // Who checks less knows less, and says so.
    for told in [&mut silent, &mut unchecked] {
        assert!(told.departure(SOON, "hc/0").text.ends_with("(announced)"));
        let gone = told.departure(SOON, "hc/1");
        assert_eq!(gone.text, format!("ServerDown hc/1@{} (unknown)", lives[1]));
    }
    let reason = |told: &Told, name: &str| {
        let of = |e: &told::Entry| e.event.is_departure() && e.text.contains(name);
        let gone = || told.all("").into_iter().find(of);
        eventually(SOON, "it is gone", gone).text
    };
    assert!(reason(&silent, "go/0@").ends_with("(revoked)"));
    assert!(reason(&silent, "go/1@").ends_with("(deregistered)"));
    assert!(reason(&unchecked, "go/0@").ends_with("(unknown)"));
    assert!(reason(&unchecked, "go/1@").ends_with("(unknown)"));
    assert_eq!(nobody.stats().checks, 0);

    // Crash: the last two of Go's just end.
    go.clear();
    for name in ["go/2@", "go/3@"] {
        let line = reason(&all, name);
        assert!(line.ends_with("(lease-expired)"), "{line}");
    }
}

/// A suspected server puts its key on another lease, as Go's do that have lost theirs: it is well,
/// and the new lease counts.
#[test]
fn g6_a_server_that_moves_to_another_lease() {
    let etcd = Etcd::start();
    let gateway = etcd.gateway();
    let server = Server::start(&[etcd.endpoint()], "go/1", 5);
    let (cluster, mut told) = checked(patient(etcd.endpoint(), ms(5000)), 1);
    told.next(SOON, "Suspect go/1@");
    let lease = gateway.grant(20);
    gateway.put(&key("go/1"), value("go/1", 0), lease);
    told.next(SOON, "Cleared go/1@");
    until(SOON, "the old one runs out", || {
        gateway.time_to_live(server.lease) == -1
    });
    gateway.revoke(lease);
    let gone = told.departure(SOON, "go/1");
    assert!(gone.text.ends_with("(revoked)"), "{}", gone.text);
    until(SOON, "nothing is left to watch", || {
        cluster.stats().checked == 0
    });
}

/// All leases are revoked while their owners live, as etcd's old versions have done.
#[test]
fn g3_g5_who_comes_back_from_a_mass_loss_was_never_away() {
    const OWNERS: usize = 30;
    let etcd = &Etcd::start();
    let gateway = etcd.gateway();
    let proxy = Proxy::start(&etcd.address());
    // Four that will not come back, as if their processes had ended.
    let dead: Vec<i64> = (0..4).map(|_| gateway.grant(60)).collect();
    for (n, lease) in dead.iter().enumerate() {
        let name = format!("dead/{n}");
        let token = format!(r#""metadata":{{"headcount.instance":"dead{n}","#);
        let value = value(&name, 0).replace(r#""metadata":{"#, &token);
        gateway.put(&key(&name), value, *lease);
    }
    let owners: Vec<Cluster> = (0..OWNERS)
        .map(|n| member(etcd.endpoint(), &format!("hc/{n}"), 10).check(Check::Nobody))
        .map(|member| member.start().expect("a member"))
        .collect();
    let hold = ms(6000);
    let observer = |hold| {
        let patient = observer(proxy.endpoint()).stall_bound(ms(20_000));
        let patient = patient.request_timeout(ms(10_000));
        checked(patient.mass_loss_hold(hold), OWNERS + 4)
    };
    let (held, mut told) = observer(hold);
    let (off, told_off) = observer(Duration::ZERO);
    let before = held.members();
    let mut ledger = Ledger::default();
    let events = off.subscribe_with(Options::new().capacity(10_000));

    let began = Instant::now();
    // All at once, however long it takes.
    proxy.stall();
    std::thread::scope(|scope| {
        for lease in gateway.leases() {
            scope.spawn(move || etcd.gateway().revoke(lease));
        }
    });
    proxy.pass();
    let took = began.elapsed();
    let mass = told.next(SOON, "MassLoss");
    // Whoever subscribes now is told the same as those who were there.
    let late = Told::by(&held);
    until(SOON, "all are back", || {
        owners.iter().all(Cluster::is_registered) && told.all("UpdateMember hc/").len() == OWNERS
    });
    assert_eq!(told.departures(), 0, "{:#?}", told.lines());
    assert_eq!(
        held.members().len(),
        before.len(),
        "the dead are kept meanwhile"
    );
    // The rest is told when it ends.
    until(SOON, "the dead are told", || {
        told.departures() >= 4 && late.departures() >= 4
    });
    for n in 0..4 {
        let name = format!("ServerDown dead/{n}@");
        let [gone] = &told.all(&name)[..] else {
            panic!("{name}: {:#?}", told.lines())
        };
        assert!(gone.text.ends_with("(unknown)"), "{}", gone.text);
        let waited = gone.at - began;
        assert!(
            waited > hold && waited < hold + took + ms(2000),
            "{waited:?}"
        );
        assert_eq!(late.all(&name).len(), 1, "{:#?}", late.lines());
    }
    assert_eq!((told.departures(), late.departures()), (4, 4));
    for old in before.iter().filter(|m| m.server_type() == "hc") {
        let update = told.all(&format!("UpdateMember {}@", old.name()));
        let [update] = &update[..] else {
            panic!("{old}: {update:?}")
        };
        let Event::UpdateMember {
            member, previous, ..
        } = &update.event
        else {
            unreachable!()
        };
        assert_eq!(previous.incarnation(), old.incarnation());
        assert!(member.incarnation() > old.incarnation());
        assert_eq!(member.instance(), old.instance());
    }
    println!(
        "{OWNERS} leases revoked within {took:?}; {} after {:?}; {} updates, 4 departures",
        mass.text,
        mass.at - began,
        told.all("UpdateMember").len()
    );

    // Without it, all of it in order.
    until(SOON, "all are back", || off.members().len() == OWNERS);
    assert_eq!(told_off.departures(), OWNERS + 4);
    assert!(told_off.all("MassLoss").is_empty());
    // The ledger checks the pairs.
    ledger.read_until(&events, SOON, |_| false_until_all_back(&told_off, OWNERS));
    while let Ok(event) = events.recv_timeout(ms(100)) {
        ledger.take(&event);
    }
    assert_eq!(ledger.view, ledger::view_of(&off));
    for n in 0..OWNERS {
        let name = format!("hc/{n}");
        let all = told_off.all("");
        let of = |e: &&told::Entry| e.event.member().is_some_and(|m| m.name() == name);
        let names: Vec<_> = all.iter().filter(of).map(|e| e.event.name()).collect();
        assert_eq!(names, ["AddMember", "ServerDown", "AddMember"], "{name}");
    }
}

/// The way between etcd and the owners is cut for longer than their leases last.
#[test]
fn g3_who_comes_back_from_a_cut_was_never_away() {
    const OWNERS: usize = 8;
    let etcd = Etcd::start();
    let proxy = Proxy::start(&etcd.endpoint());
    let owners: Vec<Cluster> = (0..OWNERS)
        .map(|n| member(proxy.endpoint(), &format!("hc/{n}"), 6).check(Check::Nobody))
        .map(|member| member.start().expect("a member"))
        .collect();
    let observer = observer(etcd.endpoint()).mass_loss_hold(ms(15_000));
    let (cluster, mut told) = checked(observer, OWNERS);
    // The cut comes at some moment of their renewal cycles, not right after the start.
    std::thread::sleep(ms(2000));
    proxy.black_hole();
    told.next(SOON, "MassLoss");
    // Until the last of them has run out as well.
    std::thread::sleep(ms(2700));
    proxy.pass();
    until(SOON, "all are back", || {
        told.all("UpdateMember hc/").len() == OWNERS && told.all("Cleared hc/").len() >= OWNERS
    });
    assert_eq!(told.departures(), 0, "{:#?}", told.lines());
    assert_eq!(told.all("Suspect hc/").len(), OWNERS, "{:#?}", told.lines());
    assert!(
        owners
            .iter()
            .all(|owner| owner.stats().registration_losses > 0)
    );
    assert_eq!(cluster.members().len(), OWNERS);
}

fn false_until_all_back(told: &Told, owners: usize) -> bool {
    told.all("AddMember hc/").len() == 2 * owners
}

/// etcd's leader is killed while some run out: an election renews every lease.
#[test]
fn g6_the_leader_dies_while_leases_run_out() {
    const TTL: u64 = 6;
    let etcd = EtcdCluster::start(3);
    let endpoints = etcd.endpoints();
    let cluster = Cluster::builder()
        .endpoints(endpoints.clone())
        .connect_timeout(ms(500))
        .start()
        .expect("an observer");
    let told = Told::by(&cluster);
    let began = Instant::now();
    let (kill, end) = (began + ms(7000), began + ms(18_500));
    let renewals: Vec<Vec<(Instant, Instant)>> = std::thread::scope(|scope| {
        let endpoints = &endpoints;
        let live = |n| {
            scope.spawn(move || {
                let mut server = Server::start(endpoints, &format!("live/{n}"), TTL);
                server.live(end, &mut Random(n));
                server.leave();
                server.renewals
            })
        };
        let lives: Vec<_> = (0..12).map(live).collect();
        for n in 0..10 {
            // The last renewals are such that they run out around the kill.
            scope.spawn(move || {
                let mut server = Server::start(endpoints, &format!("dead/{n}"), TTL);
                server.live(kill - ms(300 * n + 3500), &mut Random(n));
            });
        }
        std::thread::sleep(kill.saturating_duration_since(Instant::now()));
        etcd.node(etcd.leader()).kill();
        let renewals = lives.into_iter().map(|live| live.join().expect("it lived"));
        renewals.collect()
    });
    until(SOON, "all are gone", || told.departures() == 12 + 10);
    assert!(cluster.members().is_empty());
    let gone = |name: &str| {
        let all = told.all("");
        let gone = all.into_iter().filter(|e| e.event.is_departure());
        gone.filter(|e| e.text.contains(name))
            .map(|e| e.text)
            .collect::<Vec<_>>()
    };
    let (live, dead) = (gone("live/"), gone("dead/"));
    let expired = dead
        .iter()
        .filter(|l| l.ends_with("(lease-expired)"))
        .count();
    println!(
        "{expired} of {} known to have run out; {live:#?}",
        dead.len()
    );
    assert_eq!((live.len(), dead.len()), (12, 10), "{:#?}", told.lines());
    // So soon after an election nobody can tell a leave from an old leader's doing.
    assert!(live.iter().all(|l| l.ends_with("(unknown)")), "{live:#?}");
    let known = |l: &&String| l.ends_with("(lease-expired)") || l.ends_with("(unknown)");
    assert_eq!(dead.iter().filter(known).count(), 10, "{dead:#?}");
    assert!(expired >= 5, "{dead:#?}");
    for entry in told.all("") {
        let (at, text) = (entry.at, &entry.text);
        match at.checked_duration_since(kill) {
            Some(after) => println!("{:+.3} s {text}", after.as_secs_f64()),
            None => println!("{:+.3} s {text}", -(kill - at).as_secs_f64()),
        }
    }
    // What an election gives is no sign of life.
    let cleared = told.all("Cleared dead/");
    assert!(cleared.is_empty(), "{cleared:#?}");
    // Where an endpoint hangs, an owner may be late itself; but nobody's lease is said to have had less
    // time than its last renewal gave it.
    for suspected in told.all("Suspect live/") {
        let Event::Suspect {
            member, evidence, ..
        } = &suspected.event
        else {
            panic!("{suspected:?}");
        };
        let n: usize = member.id().parse().expect("a number");
        // A second before: the look had not begun when it was had.
        let before = |(_, had): &&(Instant, Instant)| *had + ms(1000) <= evidence.seen;
        let (asked, _) = renewals[n].iter().rfind(before).expect("it was granted");
        let (said, given) = (evidence.seen + evidence.remaining, *asked + ms(TTL * 1000));
        println!(
            "{}: {:?} more than it was given",
            suspected.text,
            said - given
        );
        assert!(said >= given, "{suspected:#?}, {:#?}", renewals[n]);
    }
}

/// A leader that has just lost its lead says that every lease lives for ever, knows of no new term,
/// and may still end those that have run out by its own clock. The moment is too short to be met at
/// will.
#[test]
fn g6_what_a_lost_leader_ends_has_not_left() {
    let etcd = Etcd::start();
    let lost = Arc::new(AtomicBool::new(false));
    let is_lost = Arc::clone(&lost);
    let (_, status) = etcd.gateway().post("/v3/maintenance/status", &json!({}));
    let answer = move |request: &support::fake::Request| {
        let look = request.path == "/v3/lease/timetolive";
        let for_ever = json!({
            "header": status["header"],
            "ID": request.body["ID"],
            "TTL": "9223372036",
            "grantedTTL": "20",
        });
        (look && is_lost.load(SeqCst)).then_some(Reply::Json(200, for_ever))
    };
    let relay = FakeGateway::relay_unless(etcd.endpoint(), answer, |_, line| Some(line));
    let mut server = Server::start(&[etcd.endpoint()], "go/1", 20);
    let (cluster, mut told) = checked(observer(relay.endpoint()), 1);
    lost.store(true, SeqCst);
    let checks = cluster.stats().checks + 2;
    until(SOON, "it was looked at", || {
        cluster.stats().checks >= checks
    });
    lost.store(false, SeqCst);
    server.leave();
    let gone = told.departure(SOON, "go/1");
    assert!(gone.text.ends_with("(unknown)"), "{}", gone.text);
    assert!(told.all("Suspect").is_empty());
}

/// Where etcd does not answer what the checker asks, nothing else is held up.
#[test]
fn g4_g6_a_checker_that_hangs_delays_nothing() {
    let etcd = Etcd::start();
    let gateway = etcd.gateway();
    let hang = Arc::new(AtomicBool::new(false));
    let hangs = Arc::clone(&hang);
    let answer = move |request: &support::fake::Request| {
        let look = request.path == "/v3/lease/timetolive";
        (look && hangs.load(SeqCst)).then_some(Reply::Silence)
    };
    let relay = FakeGateway::relay_unless(etcd.endpoint(), answer, |_, line| Some(line));
    let mut server = Server::start(&[etcd.endpoint()], "go/1", 20);
    let me = member(relay.endpoint(), "me/1", 9)
        .stall_bound(ms(8000))
        .start()
        .expect("a member");
    let mut told = Told::by(&me);
    let life = me.incarnation();
    until(SOON, "it was looked at", || me.stats().checks > 1);
    hang.store(true, SeqCst);
    until(SOON, "it hangs", || me.stats().checks_failed > 0);

    let at = Instant::now();
    ledger::add(&gateway, "go/2");
    assert!(told.next(SOON, "AddMember go/2@").at - at < ms(1000));
    // Before its lease could run out, so it was no crash; nobody says whether the lease lives.
    let at = Instant::now();
    server.leave();
    let gone = told.departure(SOON, "go/1");
    assert!(gone.text.ends_with("(deregistered)"), "{}", gone.text);
    let waited = gone.at - at;
    assert!((ms(150)..ms(1000)).contains(&waited), "{waited:?}");
    throughout(ms(4000), "the keepalive goes on", || {
        me.is_registered() && me.incarnation() == life && me.store_reachable()
    });
    assert!(told.all("Suspect").is_empty());
    let at = Instant::now();
    me.leave().expect("told");
    assert!(at.elapsed() < ms(1500), "{:?}", at.elapsed());
}

/// G6: etcd is away, or so slow that owners can't renew either: nobody is suspected for it.
#[test]
fn g6_nobody_is_suspected_when_etcd_hangs() {
    let etcd = Etcd::start();
    let endpoint = etcd.endpoint();
    let (cluster, told) = {
        let owners = ["hc/1", "hc/2", "hc/3"].map(|name| {
            let member = member(endpoint.clone(), name, 12).check(Check::Nobody);
            member.start().expect("a member")
        });
        let (cluster, told) = checked(observer(endpoint.clone()), 3);
        // Over the first renewal, until more than half of their time has passed.
        std::thread::sleep(ms(3000));
        etcd.pause();
        std::thread::sleep(ms(3500));
        etcd.resume();
        throughout(ms(7000), "they are all there", || {
            cluster.members().len() == 3
        });
        drop(owners);
        (cluster, told)
    };
    assert!(told.all("Suspect").is_empty(), "{:#?}", told.lines());
    assert_eq!(cluster.stats().store_losses, 1);
}
