//! A type of your own as a listener: here a routing table that is always up to date.
//!
//! ```text
//! cargo run --example listener
//! cargo run --example member -- --type chat --id 1 --metadata grpcHost=10.0.0.7
//! ```
//!
//! Start and stop members, and see the table change. Ctrl-C ends it.

mod common;

use std::collections::BTreeMap;
use std::sync::Arc;

use headcount::{DownCause, Listener, Member, RemoveReason};

/// Where to send what is meant for a server type. No lock: a listener's calls come one at a time,
/// on a thread of its own.
#[derive(Default)]
struct Routes {
    hosts: BTreeMap<String, String>,
    complete: bool,
}

impl Routes {
    fn insert(&mut self, member: &Member) {
        let host = member
            .metadata()
            .get("grpcHost")
            .unwrap_or(member.hostname());
        self.hosts.insert(member.name().into(), host.into());
        self.show();
    }

    fn remove(&mut self, member: &Member) {
        self.hosts.remove(member.name());
        self.show();
    }

    fn show(&self) {
        // Before that it is only a part of the truth.
        if self.complete {
            println!("routes: {:?}", self.hosts);
        }
    }
}

impl Listener for Routes {
    fn add_member(&mut self, member: &Arc<Member>) {
        self.insert(member);
    }

    fn update_member(&mut self, member: &Arc<Member>, _previous: &Arc<Member>) {
        self.insert(member);
    }

    fn remove_member(&mut self, member: &Arc<Member>, reason: RemoveReason) {
        println!("{} left: {}", member.name(), reason.as_str());
        self.remove(member);
    }

    fn server_down(&mut self, member: &Arc<Member>, cause: &DownCause) {
        println!(
            "{} is down: {}; alarm somebody?",
            member.name(),
            cause.as_str()
        );
        self.remove(member);
    }

    fn synced(&mut self) {
        self.complete = true;
        self.show();
    }
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let builder = common::options("listener: keeps a routing table.\n", |_, _| Ok(false));
    let end = common::signals();
    let cluster = builder.start()?;
    // It listens for as long as the guard lives.
    let _guard = cluster.add_listener(Routes::default())?;
    end.recv()?;
    cluster.leave()?;
    Ok(())
}
