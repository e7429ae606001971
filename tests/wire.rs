//! What comes down the wire, in every way in which it may come, and in some in which it may not.

mod follow;
mod history;
mod support;

use std::sync::Arc;

use follow::script::*;
use follow::{Follower, SOON, delete, key, ms, observer, patient, put};
use parking_lot::Mutex;
use serde_json::{Value, json};
use support::etcd::Etcd;
use support::fake::{FakeGateway, Reply, Request, StreamStep};
use support::gateway::b64;
use support::proxy::Proxy;
use support::wait::{throughout, until};

/// Failure-modes row 13: chunks end anywhere, and errors have no newline.
#[test]
fn g13_frames_split_at_every_byte() {
    let split = |size: usize| {
        let fake = scripted(move |n, _| {
            let name = ["b/1", "b/2"][n.min(1)];
            let revision = 11 + n.min(1) as i64;
            let messages = [
                created(revision),
                events(revision, &[put_event(name, revision, revision)]),
            ];
            let mut text: String = messages.iter().map(|m| format!("{m}\n")).collect();
            if n > 0 {
                return Reply::Stream(
                    StreamStep::split(text.as_bytes(), size)
                        .into_iter()
                        .chain([StreamStep::WaitUntilClosed])
                        .collect(),
                );
            }
            text += r#"{"error":{"grpc_code":14,"http_code":503,"message":"no } leader \" {"}}"#;
            Reply::Stream(StreamStep::split(text.as_bytes(), size))
        });
        let mut follower = Follower::start(patient([fake.endpoint()]));
        follower.wait(SOON, "AddMember b/2@12");
        assert_eq!(starts(&fake), [11, 12]);
        told(&follower)
    };
    let whole = split(usize::MAX);
    assert_eq!(
        whole,
        ["AddMember a/1@2", "AddMember b/1@11", "AddMember b/2@12"]
    );
    for size in [1, 2, 3, 7, 64] {
        assert_eq!(split(size), whole, "in chunks of {size}");
    }
}

/// The same with what real etcd says, byte by byte on the network.
#[test]
fn g13_real_etcd_byte_by_byte() {
    let etcd = Etcd::start();
    let gateway = etcd.gateway();
    for n in 0..20 {
        put(&gateway, &format!("a/{n}"), n);
    }
    let proxy = Proxy::start(&etcd.endpoint());
    proxy.chunk(1);
    let builder = patient([proxy.endpoint()])
        .request_timeout(ms(4500))
        .stall_bound(ms(5000));
    let mut follower = Follower::start(builder);
    for n in 0..20 {
        delete(&gateway, &format!("a/{n}"));
    }
    follower.settle(&gateway);
    assert_eq!(follower.count("RemoveMember"), 20);
    // Over the end of a period, too.
    throughout(ms(3000), "nothing is told", || {
        follower.next(ms(10)).is_none()
    });
    put(&gateway, "a/1", 1);
    follower.settle(&gateway);
    assert_eq!(follower.cluster.stats().reconnects, 0);
}

/// Failure-modes row 6: neither silence, nor a header, nor the end of a period is progress.
#[test]
fn g1_only_events_move_the_point_to_resume_from() {
    let fake = scripted(|n, _| match n {
        // Silence, after headers that run ahead.
        0 => open(&[
            created(10),
            message(50, json!({})),
            message(60, json!({ "events": [] })),
        ]),
        // The end in good order, at its time.
        1 => {
            let mut steps = lines(&[created(70)]);
            steps.extend([StreamStep::Wait(ms(550)), period_over()]);
            Reply::Stream(steps)
        }
        // A batch of a catch-up: the header is the store's, not the batch's.
        2 => {
            let mut steps = lines(&[created(80), events(80, &[put_event("b/1", 20, 20)])]);
            steps.push(StreamStep::Abort);
            Reply::Stream(steps)
        }
        _ => open(&[created(80), events(80, &[put_event("b/2", 21, 21)])]),
    });
    let mut follower = Follower::start(
        observer([fake.endpoint()])
            .request_timeout(ms(900))
            .stall_bound(ms(1000)),
    );
    follower.wait(SOON, "AddMember b/2@21");
    assert_eq!(starts(&fake)[..4], [11, 11, 11, 21]);
    follower.never_relisted();
}

/// Failure-modes row 10: etcd, or what stands between, loses an event; the reconcile notices.
#[test]
fn g1_g6_a_lost_event_is_found_by_the_reconcile() {
    let etcd = Etcd::start();
    let gateway = etcd.gateway();
    for name in ["a/deleted", "a/updated", "a/restarted"] {
        put(&gateway, name, 1);
    }
    // The key whose events the relay loses.
    let hidden = Arc::new(Mutex::new(String::new()));
    let hide = Arc::clone(&hidden);
    let relay = FakeGateway::relay(etcd.endpoint(), move |_, line| {
        let mut message: Value = serde_json::from_str(&line).unwrap_or_default();
        let Some(events) = message["result"]["events"].as_array_mut() else {
            return Some(line);
        };
        let key = b64(&*hide.lock());
        events.retain(|event| event["kv"]["key"] != key);
        (!events.is_empty()).then(|| message.to_string())
    });
    let builder = observer([relay.endpoint()]).reconcile_interval(ms(300));
    let mut follower = Follower::start(builder.request_timeout(ms(1300)).stall_bound(ms(1500)));
    follower.settle(&gateway);
    let life = |name: &str| gateway.get(&key(name)).map_or(0, |kv| kv.create_revision);
    // Reconciles that find nothing do nothing.
    until(SOON, "some reconciles", || {
        let requests = relay.requests();
        let keys_only = |request: &&Request| request.body["keys_only"] == true;
        requests.iter().filter(keys_only).count() >= 2
    });
    assert_eq!(follower.cluster.stats().relists.lost_events, 0);
    for (n, name) in ["a/deleted", "a/updated", "a/restarted", "a/new"]
        .into_iter()
        .enumerate()
    {
        follower.told.clear();
        let old = life(name);
        *hidden.lock() = key(name);
        let wanted = match name {
            "a/deleted" => {
                delete(&gateway, name);
                vec![format!("ServerDown {name}@{old} (missing)")]
            }
            "a/updated" => {
                put(&gateway, name, 2);
                vec![format!("UpdateMember {name}@{old}")]
            }
            "a/restarted" => {
                delete(&gateway, name);
                let life = put(&gateway, name, 1);
                vec![
                    format!("ServerDown {name}@{old} (replaced)"),
                    format!("AddMember {name}@{life}"),
                ]
            }
            _ => vec![format!("AddMember {name}@{}", put(&gateway, name, 1))],
        };
        // A later event, which does come, makes the loss final.
        put(&gateway, "b/later", n);
        for line in &wanted {
            follower.wait(SOON, line);
        }
        hidden.lock().clear();
        follower.settle(&gateway);
        follower.told.retain(|line| line.contains(name));
        assert_eq!(follower.told, wanted);
    }
    assert_eq!(follower.cluster.stats().relists.lost_events, 4);
}

/// Failure-modes row 4: the stream is canceled and stays open and silent, in both shapes.
#[test]
fn g1_canceled_by_a_compaction_on_an_open_silent_stream() {
    let canceled = json!({ "canceled": true, "compact_revision": "30" });
    let both = json!({ "created": true, "canceled": true, "compact_revision": "30" });
    let shapes = [
        vec![created(10), message(40, canceled)],
        vec![message(40, both)],
    ];
    for shape in shapes {
        let fake = scripted(move |n, _| match n {
            0 => open(&shape),
            _ => open(&[created(10), events(11, &[put_event("b/1", 11, 11)])]),
        });
        let mut follower = Follower::start(patient([fake.endpoint()]));
        // At once, and not when the silence has lasted.
        follower.wait(ms(2000), "AddMember b/1@11");
        assert_eq!(follower.cluster.stats().relists.compacted, 1);
        assert_eq!(fake.count("/v3/kv/range"), 2);
    }
}

/// A gateway that cancels every watch for good is not stormed.
#[test]
fn g9_listings_that_lead_nowhere_are_paced() {
    let canceled = json!({ "created": true, "canceled": true, "compact_revision": "30" });
    let fake = scripted(move |_, _| open(&[message(40, canceled.clone())]));
    let follower = Follower::start(patient([fake.endpoint()]));
    throughout(ms(1500), "the view is kept", || {
        follower.cluster.members().len() == 1
    });
    let listings = fake.count("/v3/kv/range");
    assert!((3..80).contains(&listings), "{listings} listings in 1.5 s");
}

/// A response in parts, some of which share a revision: all of a revision comes together, and of one
/// that is cut off nothing.
#[test]
fn g2_fragments_that_split_a_revision() {
    let part = |list: &[Value]| message(13, json!({ "events": list, "fragment": true }));
    let (b, c, d) = (
        put_event("b/1", 12, 12),
        put_event("c/1", 12, 12),
        put_event("d/1", 13, 13),
    );
    let gone = delete_event("a/1", 12);
    let (go, gate) = crossbeam_channel::bounded::<()>(0);
    let gate = Mutex::new(Some(gate));
    let fake = scripted(move |n, _| {
        let head = lines(&[created(13), part(&[b.clone(), gone.clone()])]);
        let middle = StreamStep::line(&part(std::slice::from_ref(&c)));
        let last = StreamStep::line(&events(13, std::slice::from_ref(&d)));
        let mut steps = head;
        match n {
            0 => steps.extend([middle, StreamStep::Abort]),
            1 => steps.push(StreamStep::End),
            _ => {
                let gate = gate.lock().take().expect("the third is the last");
                steps.extend([middle, StreamStep::WaitFor(gate), last]);
                steps.push(StreamStep::WaitUntilClosed);
            }
        }
        Reply::Stream(steps)
    });
    let mut follower = Follower::start(patient([fake.endpoint()]));
    until(SOON, "three watches", || starts(&fake).len() >= 3);
    throughout(ms(200), "no part is told", || {
        follower.cluster.members().len() == 1
    });
    drop(go);
    follower.wait(SOON, "AddMember d/1@13");
    assert_eq!(starts(&fake), [11, 11, 11]);
    assert_eq!(
        follower.told[2..],
        [
            "AddMember b/1@12",
            "RemoveMember a/1@2 (deregistered)",
            "AddMember c/1@12",
            "AddMember d/1@13"
        ]
    );
}

/// Bytes that never come to anything are no sign of life: not spaces, not empty messages, not a
/// frame that creeps.
#[test]
fn g9_a_stream_that_only_dribbles_is_given_up() {
    for drip in ["\n", "{}\n", "{\"result\":{}}\n", "x"] {
        let fake = scripted(move |n, _| {
            if n > 0 {
                return open(&[created(10), events(11, &[put_event("b/1", 11, 11)])]);
            }
            let mut steps = lines(&[created(10)]);
            if drip == "x" {
                steps.push(StreamStep::Send(b"{\"result\":{\"x\":\"".to_vec()));
            }
            let drips =
                (0..1000).flat_map(|_| [StreamStep::Wait(ms(20)), StreamStep::Send(drip.into())]);
            steps.extend(drips);
            Reply::Stream(steps)
        });
        let builder = observer([fake.endpoint()])
            .request_timeout(ms(2700))
            .stall_bound(ms(3000));
        let mut follower = Follower::start(builder);
        // It would drip for 20 s.
        follower.wait(ms(9000), "AddMember b/1@11");
        assert_eq!(starts(&fake), [11, 11], "{drip:?}");
        // Where a message had begun, the same one might never be whole in time: it is listed.
        let listed = follower.cluster.stats().relists.oversized;
        assert_eq!(listed, u64::from(drip == "x"), "{drip:?}");
    }
}

/// What comes in vain shortly before the bound does not begin it anew.
#[test]
fn g9_a_last_drop_does_not_put_off_the_loss() {
    for drop in ["\n", "{}\n", "x"] {
        let fake = scripted(move |_, _| {
            let mut steps = lines(&[created(10)]);
            // 7/10 of the bound may be silent.
            steps.push(StreamStep::Wait(ms(1300)));
            steps.push(StreamStep::Send(drop.into()));
            steps.push(StreamStep::WaitUntilClosed);
            Reply::Stream(steps)
        });
        let builder = observer([fake.endpoint()])
            .request_timeout(ms(1800))
            .stall_bound(ms(2000));
        let mut follower = Follower::start(builder);
        until(SOON, "given up", || starts(&fake).len() > 1);
        let opened = |n: usize| {
            let requests = fake.requests();
            let mut watches = requests
                .iter()
                .filter(|request| request.path == "/v3/watch");
            watches.nth(n).map(|request| request.at)
        };
        let took = opened(1).expect("the second") - opened(0).expect("the first");
        // 1.4 s, a wait of 20 ms at most, and what a busy machine takes.
        assert!(took < ms(2000), "{drop:?}: {took:?}");
        follower.drain();
    }
}

/// Messages that have come together, an error after them: all of them are told, in order, and the
/// next watch begins after the last.
#[test]
fn g1_g2_what_comes_together_is_told_before_what_ends_it() {
    let put = |revision: i64| put_event(&format!("b/{revision}"), revision, revision);
    let mut text = format!("{}\n", created(10));
    for revision in 11..=1510 {
        text += &format!("{}\n", events(revision, &[put(revision)]));
    }
    let part = json!({ "events": [put(1511)], "fragment": true });
    text += &format!("{}\n", message(1512, part));
    let error = json!({ "error": { "grpc_code": 14, "message": "etcdserver: no leader" }});
    text += &format!("{}\n{error}", events(1512, &[put(1512)]));
    // Written before it is asked for: that takes a busy machine longer than an answer may.
    let text = text.into_bytes();
    let fake = scripted(move |n, _| match n {
        0 => Reply::Stream(vec![StreamStep::Send(text.clone())]),
        _ => open(&[created(1512)]),
    });
    let mut follower = Follower::start(patient([fake.endpoint()]).max_members(2000));
    for revision in 11..=1512 {
        follower.wait(SOON, &format!("AddMember b/{revision}@{revision}"));
    }
    until(SOON, "two watches", || starts(&fake).len() >= 2);
    assert_eq!(starts(&fake)[..2], [11, 1513]);
}
