//! Events as lines: JSON for programs, columns for people.

use std::collections::BTreeMap;
use std::io::Write;
use std::process::exit;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use headcount::{Cluster, DownCause, Event, ListenerStats, Member, Metadata, Stats};
use serde::Serialize;
use serde_json::{Value, json};

/// One event as JSON; what an event has no word for is left out.
#[derive(Serialize, Default)]
struct Line<'a> {
    ts_us: u64,
    event: &'a str,
    #[serde(flatten)]
    member: Option<About<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    previous: Option<Pairs<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    previous_incarnation: Option<i64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    previous_revision: Option<i64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    reason: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    cause: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    by: Option<&'a [Box<str>]>,
    #[serde(skip_serializing_if = "Option::is_none")]
    folded: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    remaining_s: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    granted_s: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    held: Option<usize>,
    #[serde(skip_serializing_if = "Option::is_none")]
    until_us: Option<u64>,
    #[serde(flatten)]
    own: Option<Own>,
}

#[derive(Serialize)]
struct About<'a> {
    r#type: &'a str,
    id: &'a str,
    incarnation: i64,
    revision: i64,
    frontend: bool,
    hostname: &'a str,
    metadata: Pairs<'a>,
}

impl<'a> About<'a> {
    fn new(member: &'a Member, revision: i64) -> About<'a> {
        About {
            r#type: member.server_type(),
            id: member.id(),
            incarnation: member.incarnation(),
            revision,
            frontend: member.is_frontend(),
            hostname: member.hostname(),
            metadata: member.metadata().iter().collect(),
        }
    }
}

#[derive(Serialize)]
struct Own {
    incarnation: i64,
    lease: i64,
}

type Pairs<'a> = BTreeMap<&'a str, &'a str>;

/// Writes one event, which the handler got at `at`.
pub fn event(event: &Event, at: SystemTime, json: bool) {
    match json {
        true => as_json(event, at),
        false => for_people(event, at),
    }
}

fn as_json(event: &Event, at: SystemTime) {
    let mut line = Line {
        ts_us: micros(at),
        event: event.name(),
        // A departure has a revision of its own, later than the member's last value.
        member: event
            .member()
            .map(|member| About::new(member, event.revision().unwrap_or(0))),
        ..Line::default()
    };
    match event {
        Event::UpdateMember { previous, .. } => {
            line.previous = Some(previous.metadata().iter().collect());
            line.previous_incarnation = Some(previous.incarnation());
            line.previous_revision = Some(previous.revision());
        }
        Event::RemoveMember { reason, .. } => line.reason = Some(reason.as_str()),
        Event::ServerDown { cause, .. } => {
            line.cause = Some(cause.as_str());
            if let DownCause::Evicted { by, .. } = cause {
                line.by = Some(by);
            }
        }
        Event::Suspect { evidence, .. } => {
            line.remaining_s = Some(evidence.remaining.as_secs_f64());
            line.granted_s = Some(evidence.granted.as_secs_f64());
        }
        Event::MassLoss { held, until, .. } => {
            line.held = Some(*held);
            line.until_us = Some(micros(at + left(*until)));
        }
        Event::Lagged { folded, .. } => line.folded = Some(*folded),
        Event::Registered {
            incarnation, lease, ..
        } => {
            let (incarnation, lease) = (*incarnation, *lease);
            line.own = Some(Own { incarnation, lease });
        }
        _ => {}
    }
    print(&serde_json::to_string(&line).expect("plain values always serialize"));
}

fn for_people(event: &Event, at: SystemTime) {
    let who = event.member().map(|m| m.to_string()).unwrap_or_default();
    let why = match event {
        Event::AddMember(member) => about(member),
        Event::UpdateMember {
            member, previous, ..
        } => {
            format!(
                "{}, was {}",
                pairs(member.metadata()),
                pairs(previous.metadata())
            )
        }
        Event::RemoveMember { reason, .. } => reason.as_str().into(),
        Event::ServerDown { cause, .. } => match cause {
            DownCause::Evicted { by, .. } => format!("evicted by {}", by.join(", ")),
            other => other.as_str().into(),
        },
        Event::Suspect { evidence, .. } => {
            let (left, granted) = (evidence.remaining, evidence.granted);
            format!("its heartbeat is late: {left:.1?} left of {granted:?}")
        }
        Event::Cleared { .. } => "its heart beats again".into(),
        Event::MassLoss { held, until, .. } => {
            let left = left(*until);
            format!("many vanished at once: {held} departures are held for {left:.1?}")
        }
        Event::Synced => "that is everybody; changes follow".into(),
        Event::StoreLost => "etcd is out of reach; the members are kept as they were".into(),
        Event::StoreRestored => "etcd is back".into(),
        Event::Lagged { folded, .. } => {
            format!("too slow: {folded} events were folded into others")
        }
        Event::Registered {
            incarnation, lease, ..
        } => {
            format!("this is incarnation {incarnation}, on lease {lease:x}")
        }
        Event::Lost => "our registration may be gone; working to get it back".into(),
        Event::Displaced => "another instance has our name; staying out".into(),
        _ => String::new(),
    };
    let line = format!("{}  {:<13}  {who:<20}  {why}", clock(at), event.name());
    print(line.trim_end());
}

fn left(until: Instant) -> Duration {
    until.saturating_duration_since(Instant::now())
}

fn about(member: &Member) -> String {
    let front = if member.is_frontend() {
        "frontend "
    } else {
        ""
    };
    format!(
        "{front}on {} {}",
        member.hostname(),
        pairs(member.metadata())
    )
}

fn pairs(metadata: &Metadata) -> String {
    let all: Vec<_> = metadata.iter().map(|(k, v)| format!("{k}={v}")).collect();
    format!("{{{}}}", all.join(" "))
}

/// Writes the last word: who is there, as far as is known. The queues are those of before leaving,
/// since afterwards there are none.
pub fn view(cluster: &Cluster, queues: Vec<ListenerStats>, json: bool) {
    let mut stats = cluster.stats();
    stats.listeners = queues;
    let members = cluster.members();
    if json {
        let members: Vec<_> = members
            .iter()
            .map(|member| About::new(member, member.revision()))
            .collect();
        let view = json!({
            "ts_us": micros(SystemTime::now()),
            "event": "View",
            "members": members,
            "stats": stats_json(&stats),
        });
        return print(&view.to_string());
    }
    print(&format!(
        "\n{} members at revision {}:",
        members.len(),
        stats.revision
    ));
    for member in &members {
        print(&format!("  {:<20}  {}", member.to_string(), about(member)));
    }
    for queue in &stats.listeners {
        let (delivered, folded) = (queue.delivered, queue.folded);
        print(&format!(
            "{} events; {delivered} delivered, {folded} folded",
            stats.events
        ));
    }
}

fn stats_json(stats: &Stats) -> Value {
    let seconds = |age: Option<Duration>| age.map(|age| age.as_secs_f64());
    let listeners: Vec<_> = stats
        .listeners
        .iter()
        .map(|queue| {
            json!({
                "name": queue.name,
                "capacity": queue.capacity,
                "depth": queue.depth,
                "delivered": queue.delivered,
                "folded": queue.folded,
            })
        })
        .collect();
    json!({
        "members": stats.members,
        "revision": stats.revision,
        "view_age_s": seconds(stats.view_age),
        "store_reachable": stats.store_reachable,
        "events": stats.events,
        "skipped": {
            "bad_key": stats.skipped.bad_key,
            "unparsable": stats.skipped.unparsable,
            "too_large": stats.skipped.too_large,
            "over_limit": stats.skipped.over_limit,
            "mismatched": stats.skipped.mismatched,
        },
        "relists": {
            "first": stats.relists.first,
            "compacted": stats.relists.compacted,
            "went_back": stats.relists.went_back,
            "cluster_changed": stats.relists.cluster_changed,
            "lost_events": stats.relists.lost_events,
            "room": stats.relists.room,
            "oversized": stats.relists.oversized,
            "unreadable": stats.relists.unreadable,
            "behind": stats.relists.behind,
        },
        "reconnects": stats.reconnects,
        "store_losses": stats.store_losses,
        "keepalive_age_s": seconds(stats.keepalive_age),
        "registrations": stats.registrations,
        "registration_losses": stats.registration_losses,
        "checked": stats.checked,
        "overdue": stats.overdue,
        "oldest_check_s": seconds(stats.oldest_check),
        "checks": stats.checks,
        "checks_failed": stats.checks_failed,
        "mass_losses": stats.mass_losses,
        "held": stats.held,
        "handler_panics": stats.handler_panics,
        "listeners": listeners,
    })
}

/// One line, at once. Where nobody reads any more there is nothing left to do.
fn print(line: &str) {
    let mut out = std::io::stdout().lock();
    if writeln!(out, "{line}").and_then(|()| out.flush()).is_err() {
        exit(0);
    }
}

fn micros(at: SystemTime) -> u64 {
    let since = at.duration_since(UNIX_EPOCH).unwrap_or_default();
    since.as_micros() as u64
}

/// Time of day, UTC.
fn clock(at: SystemTime) -> String {
    let ms = micros(at) / 1000;
    let (s, ms) = (ms / 1000 % 86_400, ms % 1000);
    format!("{:02}:{:02}:{:02}.{ms:03}", s / 3600, s / 60 % 60, s % 60)
}
