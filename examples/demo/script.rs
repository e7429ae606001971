//! The story, act by act: what is done, and what has to come of it.

use std::time::{Duration, Instant};

use nix::sys::signal::Signal::{SIGCONT, SIGSTOP, SIGTERM};

use crate::member::{HERE, TTL};
use crate::stage::{Stage, Stop};
use crate::tally::Expected;

const MEMBERS: [(&str, &str); 5] = [
    ("gate", "gate-1"),
    ("gate", "gate-2"),
    ("room", "room-1"),
    ("room", "room-2"),
    ("chat", "chat-1"),
];

/// Much shorter than the lease, so that it is no death.
const SHORT: Duration = Duration::from_secs(1);

pub fn play(stage: &mut Stage) -> Result<(), Stop> {
    stage.act("five servers start", "each a process, and of three types")?;
    for (server_type, id) in MEMBERS {
        let (pid, cause) = stage.cast.start(server_type, id)?;
        stage.expect(cause, Expected::told(id, "AddMember"));
        stage.expect(cause, ready(pid, id));
    }
    stage.wait()?;

    stage.act("chat-1 has news", "and changes its metadata")?;
    let cause = stage.cast.say("chat-1", "set players=42")?;
    stage.expect(cause, Expected::told("chat-1", "UpdateMember"));
    stage.wait()?;

    stage.act("gate-2 leaves", "asked to by SIGTERM")?;
    let cause = stage.cast.signal("gate-2", SIGTERM)?;
    stage.expect(cause, left("gate-2"));
    stage.wait()?;

    stage.act("gate-1 is started twice", "the second takes over its name")?;
    let first = stage.cast.pid("gate-1")?;
    let (second, cause) = stage.cast.start("gate", "gate-1")?;
    let replaced = Expected::told("gate-1", "ServerDown").why(&["replaced"]);
    stage.expect(cause, replaced);
    stage.expect(cause, Expected::told("gate-1", "AddMember"));
    stage.expect(cause, ready(second, "gate-1"));
    stage.expect(cause, Expected::said(first, "gate-1", "Displaced"));
    stage.wait()?;

    stage.act("room-2 stops for 1 s", "by SIGSTOP; its lease is longer")?;
    let frozen = stage.cast.pid("room-2")?;
    stage.cast.signal("room-2", SIGSTOP)?;
    stage.pause(SHORT, "room-2 stands still")?;
    let cause = stage.cast.signal("room-2", SIGCONT)?;
    stage.cast.say("room-2", HERE)?;
    let here = Expected::said(frozen, "room-2", "Here").why(&["registered"]);
    stage.expect(cause, here);
    stage.wait()?;

    stage.act("room-1 is killed", "by SIGKILL, and can't say anything")?;
    let cause = stage.cast.kill("room-1")?;
    run_out(stage, cause, "room-1");
    stage.wait_for_lease(cause, "room-1")?;

    stage.act("room-2 stops again", "by SIGSTOP, longer than its lease")?;
    let cause = stage.cast.signal("room-2", SIGSTOP)?;
    run_out(stage, cause, "room-2");
    stage.wait_for_lease(cause, "room-2")?;

    stage.act("room-2 goes on", "by SIGCONT, and finds its lease gone")?;
    let cause = stage.cast.signal("room-2", SIGCONT)?;
    stage.expect(cause, Expected::said(frozen, "room-2", "Lost"));
    stage.expect(cause, Expected::said(frozen, "room-2", "Registered"));
    stage.expect(cause, Expected::told("room-2", "AddMember"));
    stage.wait()?;

    stage.act("all others leave", "asked to by SIGTERM")?;
    for id in ["gate-1", "room-2", "chat-1"] {
        let cause = stage.cast.signal(id, SIGTERM)?;
        stage.expect(cause, left(id));
    }
    stage.wait()
}

/// The listener may be told of a member before the member itself knows that it is registered.
fn ready(pid: u32, id: &str) -> Expected {
    Expected::said(pid, id, "Registered").quietly()
}

fn left(id: &str) -> Expected {
    Expected::told(id, "RemoveMember").why(&["announced"])
}

/// Its heartbeat is missed long before its lease has run out.
fn run_out(stage: &mut Stage, cause: Instant, id: &str) {
    let ttl = format!("(TTL {} s)", TTL.as_secs());
    stage.expect(cause, Expected::told(id, "Suspect"));
    let down = Expected::told(id, "ServerDown").why(&["lease-expired"]);
    stage.expect(cause, down.beside(ttl));
}
