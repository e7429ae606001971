//! The example programs, from outside: their options, how they end, and what people read.

mod history;
mod ledger;
mod programs;
mod support;

use std::fs;
use std::time::Duration;

use ledger::{add, commit, delete, put};
use programs::{SOON, end, folded, member, spawn_member, truth, view, watch};
use support::etcd::Etcd;
use support::gateway::Gateway;
use support::process::Example;
use support::proxy::Proxy;
use support::wait::{throughout, until};

#[test]
fn g12_watch_ends_by_time_or_signal_with_the_view_as_its_last_line() {
    let etcd = Etcd::start();
    let gateway = etcd.gateway();
    for n in 0..3 {
        commit(&gateway, vec![put(&format!("a/{n}"), n), put("b/1", n)]);
    }
    let (member, _) = member(&etcd, "1", &["--metadata", "k=v"]);
    let signalled = [libc::SIGINT, libc::SIGTERM].map(|signal| {
        let watch = watch(&etcd, &[]);
        println!(
            "watch ended {:?} after signal {signal}",
            end(&watch, signal)
        );
        watch
    });
    let timed = watch(&etcd, &["--for", "0.5"]);
    assert_eq!(timed.wait_exit(SOON).code(), Some(0));
    for watch in signalled.iter().chain([&timed]) {
        assert_eq!(view(watch), truth(&gateway));
        assert_eq!(folded(watch), truth(&gateway));
    }
    let only = watch(&etcd, &["--type", "a", "--type", "gate"]);
    let except = watch(&etcd, &["--exclude-type", "a"]);
    for (watch, members) in [(only, 4), (except, 2)] {
        end(&watch, libc::SIGTERM);
        assert_eq!(view(&watch).len(), members);
    }
    end(&member, libc::SIGTERM);
}

/// Row 21, from outside.
#[test]
fn g12_programs_end_within_2_s_of_a_signal_while_etcd_hangs() {
    let etcd = Etcd::start();
    let (member, _) = member(&etcd, "1", &[]);
    let watching = watch(&etcd, &[]);
    etcd.pause();
    let late = spawn_member(&etcd, "2", &[]);
    // It has no news to give; that it hears signals is seen by its thread for them.
    until(SOON, "it has started", || {
        fs::read_dir(format!("/proc/{}/task", late.pid())).is_ok_and(|all| all.count() >= 5)
    });
    for (what, program) in [
        ("member", &member),
        ("late member", &late),
        ("watch", &watching),
    ] {
        let took = end(program, libc::SIGTERM);
        println!("{what} ended after {took:?}");
        assert!(took < Duration::from_secs(2), "{what}: {took:?}");
    }
    assert_eq!(view(&watching).len(), 1, "nobody is removed");
    etcd.resume();
}

/// Row 23: the other two policies.
#[test]
fn g8_a_name_in_use_is_waited_for_or_refused() {
    let etcd = Etcd::start();
    let (first, _) = member(&etcd, "1", &[]);
    let refused = spawn_member(&etcd, "1", &["--on-conflict", "fail"]);
    assert_eq!(refused.wait_exit(SOON).code(), Some(1));
    let says = "another instance is registered as gate/1";
    assert!(refused.errors().contains(says), "{}", refused.errors());
    let waits = spawn_member(&etcd, "1", &["--on-conflict", "wait"]);
    throughout(Duration::from_millis(500), "it waits", || {
        waits.running() && waits.lines().is_empty() && first.running()
    });
    end(&first, libc::SIGTERM);
    waits.wait_line(SOON, |line| line["event"] == "Registered");
    end(&waits, libc::SIGTERM);
}

/// Row 23: it was taken over from before it had seen the others. That is told, and no wrong set-up.
#[test]
fn g8_who_is_displaced_before_it_is_synced_says_so_and_stays_out() {
    let etcd = Etcd::start();
    for kind in ["a", "b"] {
        let many = (0..100).map(|n| put(&format!("{kind}/{n}"), n));
        commit(&etcd.gateway(), many.collect());
    }
    // What the registration takes gets through; a listing of all does not.
    let proxy = Proxy::start(&etcd.endpoint());
    proxy.cut_after(20_000);
    // It looks at its key each TTL; nothing else tells it.
    let name = ["--type", "gate", "--id", "1", "--ttl", "3"];
    let proxied = proxy.endpoint();
    let options = ["--json", "--endpoints", &proxied];
    let first = Example::spawn("member", [&options[..], &name].concat());
    first.wait_line(SOON, |line| line["event"] == "Registered");
    let (second, _) = member(&etcd, "1", &[]);
    first.wait_line(SOON, |line| line["event"] == "Displaced");
    throughout(Duration::from_millis(500), "it stays", || first.running());
    end(&first, libc::SIGTERM);
    end(&second, libc::SIGTERM);
}

/// Its first line is all that a program needs; the commands it proposes to people do work.
#[test]
fn g12_a_registry_of_its_own_serves_the_others_until_it_is_told_to_end() {
    let registry = Example::spawn("registry", ["--listen", "127.0.0.1:0"]);
    let endpoint = registry.next_line(SOON).expect("its endpoint").text;
    let options = ["--json", "--endpoints", &endpoint];
    let watch = Example::spawn("watch", options);
    watch.wait_line(SOON, |line| line["event"] == "Synced");
    let name = ["--type", "gate", "--id", "gate-1"];
    let member = Example::spawn("member", [&options[..], &name].concat());
    watch.wait_line(SOON, |line| line["event"] == "AddMember");
    until(SOON, "its commands", || {
        registry.output().contains("/v3/kv/range -d ")
    });
    let range = registry
        .output()
        .split('\'')
        .nth(1)
        .map(serde_json::from_str);
    let range = range.expect("a body in quotes").expect("which is JSON");
    let (status, found) = Gateway::new(&endpoint).post("/v3/kv/range", &range);
    assert_eq!((status, &found["count"]), (200, &"1".into()), "{found}");

    let taken = endpoint.replace("http://", "");
    let second = Example::spawn("registry", ["--listen", &taken]);
    assert_eq!(second.wait_exit(SOON).code(), Some(1));
    assert!(second.errors().contains("in use"), "{}", second.errors());

    end(&member, libc::SIGTERM);
    watch.wait_line(SOON, |line| line["event"] == "RemoveMember");
    for program in [&watch, &registry] {
        end(program, libc::SIGTERM);
    }
}

#[test]
fn g13_wrong_options_and_hopeless_settings_end_with_a_sentence() {
    let etcd = Etcd::start();
    let endpoint = etcd.endpoint();
    let run = |name: &str, args: &[&str]| {
        let program = Example::spawn(name, args);
        let code = program.wait_exit(SOON).code();
        (code, program.errors() + &program.output())
    };
    for (name, args, code, says) in [
        ("watch", &["--help"][..], 0, "--exclude-type"),
        ("member", &["--help"], 0, "--on-conflict"),
        ("registry", &["--help"], 0, "--listen"),
        ("registry", &["--listen", "here"], 2, "here"),
        ("watch", &["--nonsense"], 2, "--nonsense"),
        ("watch", &["--for", "soon"], 2, "soon"),
        ("watch", &["--user", "u"], 2, "HEADCOUNT_PASSWORD"),
        ("watch", &["--cert", "c"], 2, "--key"),
        ("member", &["--type", "a"], 2, "--id"),
        ("member", &["--type", "a", "--id", "b/c"], 1, "slash"),
        (
            "member",
            &["--type", "a", "--id", "b", "--metadata", "c"],
            2,
            "KEY=VALUE",
        ),
        ("member", &["--check", "some"], 2, "silent"),
        ("watch", &["--prefix", "no-slash"], 1, "prefix"),
        (
            "watch",
            &["--endpoints", &endpoint.replace("http", "https")],
            1,
            "tls",
        ),
    ] {
        let (got, said) = run(name, args);
        assert_eq!(got, Some(code), "{name} {args:?}: {said}");
        let says = says.to_lowercase();
        assert!(said.to_lowercase().contains(&says), "{args:?}: {said}");
    }
}

#[test]
fn g13_the_password_comes_from_the_environment() {
    let etcd = Etcd::start();
    add(&etcd.gateway(), "gate/1");
    etcd.gateway().auth_enable("right one");
    let endpoint = etcd.endpoint();
    let options = ["--json", "--endpoints", &endpoint];
    let user = [&options[..], &["--user", "root"]].concat();
    let password = |password| [("HEADCOUNT_PASSWORD", password)];
    let right = Example::spawn_with("watch", &user, &password("right one"));
    right.wait_line(SOON, |line| line["event"] == "Synced");
    end(&right, libc::SIGTERM);
    assert_eq!(view(&right).len(), 1);
    let wrong = Example::spawn_with("watch", &user, &password("wrong one"));
    let none = Example::spawn("watch", options);
    for (program, says) in [(wrong, "refuses user"), (none, "no user is set")] {
        assert_eq!(program.wait_exit(SOON).code(), Some(1));
        assert!(program.errors().contains(says), "{}", program.errors());
        assert!(!program.errors().contains("wrong one"));
    }
}

#[test]
fn g6_lines_for_people_say_when_what_who_and_why() {
    let etcd = Etcd::start();
    let gateway = etcd.gateway();
    let endpoint = etcd.endpoint();
    let watch = Example::spawn("watch", ["--endpoints", &endpoint]);
    let says = |what: &str| {
        until(SOON, what, || watch.output().contains(what));
    };
    says("Synced");
    commit(&gateway, vec![put("gate/1", 5), put("gate/2", 0)]);
    commit(&gateway, vec![delete("gate/1")]);
    says("deregistered");
    end(&watch, libc::SIGTERM);
    says("1 members at revision 3");
    let output = watch.output();
    let added = output.lines().find(|line| line.contains("gate/1@2"));
    let added = added.unwrap_or_else(|| panic!("{output}"));
    let words: Vec<&str> = added.split_whitespace().collect();
    assert_eq!(words[0].len(), "00:00:00.000".len(), "{added}");
    assert_eq!(
        words[1..],
        ["AddMember", "gate/1@2", "on", "vm", "{step=5}"]
    );
}
