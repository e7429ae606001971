//! What the hub and the heartbeat checker have to do with each other.

use std::sync::Arc;
use std::time::Instant;

use super::{Hub, State, Told, report};
use crate::delay::Scene;
use crate::event::Event;
use crate::heartbeat::{Answer, Next, Request, Shown};
use crate::member::Member;
use crate::roster::Moved;

impl State {
    /// As of now. Of the members, a few may be counted twice, which matters to nobody.
    pub(super) fn scene(&self, now: Instant) -> Scene {
        Scene {
            now,
            members: self.roster.len() + self.delay.len(),
            overdue: self.judge.overdue(),
        }
    }

    /// Whoever comes on a lease that others hang on, and that is overdue, is in doubt with them.
    pub(super) fn inherited_doubt(&self, event: &Event) -> Option<Event> {
        let Event::AddMember(member) = event else {
            return None;
        };
        let evidence = self.judge.suspicion(member.lease(), member.name())?;
        let member = Arc::clone(member);
        Some(Event::Suspect { member, evidence })
    }

    /// A member has put its key on another lease, which is a sign of life; but if others hang on
    /// that one, and it is overdue, it is in doubt with them.
    pub(super) fn moved(&mut self, moved: &Moved, scene: &Scene, told: &mut Vec<Event>) {
        let (member, name) = (Arc::clone(&moved.member), moved.member.name());
        let before = self.judge.suspicion(moved.from, name);
        self.judge.untrack(moved.from, name);
        self.track(&member, scene.now);
        let doubt = match (before, self.judge.suspicion(member.lease(), name)) {
            (None, Some(evidence)) => Event::Suspect { member, evidence },
            (Some(_), None) => Event::Cleared { member },
            _ => return,
        };
        self.delay.take(doubt, None, scene, told);
    }

    /// Keeps in step which leases are watched.
    pub(super) fn watch_over(&mut self, event: &Event, now: Instant) {
        match event {
            Event::AddMember(member) => self.track(member, now),
            Event::RemoveMember { member, .. } | Event::ServerDown { member, .. } => {
                self.judge.untrack(member.lease(), member.name());
            }
            _ => {}
        }
    }

    fn track(&mut self, member: &Member, now: Instant) {
        let fraction = self.random.fraction();
        self.wakes.checker |= self.judge.track(member, now, fraction);
    }

    /// What the checker is to ask etcd now: what a departure waits for comes first.
    pub fn next_request(&mut self, now: Instant) -> Request {
        let (question, again) = self.delay.question(now);
        if let Some(question) = question {
            self.judge.spend(now);
            return Request::Ask(question);
        }
        match self.judge.next(now) {
            Next::Look(lease) => Request::Look(lease),
            Next::Wait(until) => Request::Wait([until, again].into_iter().flatten().min()),
        }
    }

    /// What a look at a lease, from `sent` to `answered`, has shown.
    pub fn shown(
        &mut self,
        lease: i64,
        shown: Shown,
        (sent, answered): (Instant, Instant),
        now: Instant,
    ) -> Told {
        let fraction = self.random.fraction();
        let doubts = self.judge.shown(lease, shown, sent, answered, fraction);
        if doubts.is_empty() {
            return Told::default();
        }
        let (scene, mut told) = (self.scene(now), Vec::new());
        for doubt in doubts {
            if let Some(member) = self.roster.get(&doubt.name).cloned() {
                self.delay
                    .take(doubt.event(member), None, &scene, &mut told);
            }
        }
        self.told(told)
    }

    /// What etcd answered to a question that a departure waits for.
    pub fn answered(&mut self, ticket: u64, shown: Shown, now: Instant) -> Told {
        let ours = |cluster| self.roster.cluster() == Some(cluster);
        let answer = match shown {
            Shown::Lease(found) if ours(found.cluster) => Answer::Alive,
            Shown::Gone { cluster } if ours(cluster) => Answer::Gone,
            Shown::Behind => Answer::Behind,
            // G6: what another etcd says of it, such as a wiped one, proves nothing.
            _ => Answer::None,
        };
        let (scene, mut told) = (self.scene(now), Vec::new());
        self.delay.answered(ticket, answer, &scene, &mut told);
        self.told(told)
    }

    /// Lets go of what has been delayed long enough; when to come again.
    pub fn tick(&mut self, now: Instant) -> (Option<Instant>, Told) {
        let due = self.delay.deadline();
        self.tick_at = due;
        if due.is_none_or(|due| now < due) {
            return (due, Told::default());
        }
        let (scene, mut told) = (self.scene(now), Vec::new());
        self.delay.tick(&scene, &mut told);
        self.tick_at = self.delay.deadline();
        (self.tick_at, self.told(told))
    }

    fn told(&mut self, events: Vec<Event>) -> Told {
        self.pass_on(&events);
        Told {
            events,
            ..Told::default()
        }
    }
}

impl Hub {
    pub fn next_request(&self) -> Request {
        self.change(State::next_request)
    }

    pub fn shown(&self, lease: i64, shown: Shown, sent: Instant, answered: Instant) {
        report(&self.change(|state, now| state.shown(lease, shown, (sent, answered), now)));
    }

    pub fn answered(&self, ticket: u64, shown: Shown) {
        report(&self.change(|state, now| state.answered(ticket, shown, now)));
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::super::state::tests::{checking, kv, observing};
    use super::*;
    use crate::etcd::TimeToLive;
    use crate::kv::{Kv, KvEvent};
    use crate::member::Document;
    use crate::settings::Check;
    use crate::stats::Why;

    fn left(seconds: u64) -> Shown {
        Shown::Lease(TimeToLive {
            remaining: Duration::from_secs(seconds),
            granted: Duration::from_secs(10),
            term: 2,
            by_election: false,
            cluster: 1,
            revision: 1,
        })
    }

    /// Looks at the lease, 4 s apart; what was told.
    fn looks(state: &mut State, now: &mut Instant, lease: i64, all: &[u64]) -> Vec<String> {
        let mut told = Vec::new();
        for seconds in all {
            *now += Duration::from_secs(4);
            let shown = state.shown(lease, left(*seconds), (*now, *now), *now);
            told.extend(shown.events.iter().map(doubt));
        }
        told
    }

    fn doubt(event: &Event) -> String {
        let name = event.member().map_or("", |member| member.name());
        format!("{} {name}", event.name())
    }

    /// On the lease that it comes onto, it shares what is thought of those who hang on it.
    #[test]
    fn g6_who_moves_is_in_doubt_where_its_new_lease_is() {
        for (from, to, moved, later) in [
            (8, 7, "Suspect t/2", 2),
            (7, 8, "Cleared t/2", 1),
            (7, 9, "", 1),
        ] {
            let mut now = Instant::now();
            let mut state = observing();
            let mut listing = state.new_listing();
            listing.page(vec![
                kv("t/1", 1, 7),
                kv("t/2", 2, from),
                kv("t/3", 3, 8),
                kv("t/4", 4, 9),
            ]);
            state.listing(listing.complete(), (4, 1), Why::First, now);
            looks(&mut state, &mut now, 8, &[9]);
            looks(&mut state, &mut now, 7, &[9, 9, 3]);
            looks(&mut state, &mut now, 9, &[9, 9, 3]);
            let told = state.events(vec![KvEvent::Put(kv("t/2", 5, to))], now);
            let told: Vec<String> = told.events.iter().map(doubt).collect();
            assert_eq!(told.join(", "), moved, "from {from} to {to}");
            // Whoever comes now is told the same, and the doubt ends for all of them.
            let member = state.roster.get("t/2").cloned().expect("it is there");
            assert_eq!(state.suspicion(&member).is_some(), to != 8);
            assert_eq!(looks(&mut state, &mut now, 7, &[9, 9]).len(), later);
        }
    }

    /// Only whose leases are watched can be told when a doubt is over.
    #[test]
    fn g6_who_is_not_watched_is_in_no_doubt_on_anybodys_lease() {
        let mut now = Instant::now();
        let mut state = checking(Check::Silent);
        let mut listing = state.new_listing();
        listing.page(vec![kv("go/1", 1, 7)]);
        state.listing(listing.complete(), (1, 1), Why::First, now);
        let told = looks(&mut state, &mut now, 7, &[9, 9, 3]);
        assert_eq!(told, ["Suspect go/1"]);
        let speaking = |mod_revision, lease| {
            let document = Document {
                instance: Some("x".into()),
                ..Document::default()
            };
            KvEvent::Put(Kv {
                value: document.to_json("t/2"),
                ..kv("t/2", mod_revision, lease)
            })
        };
        for (revision, lease, told) in [(2, 7, 1), (3, 8, 0), (4, 7, 0)] {
            let heard = state.events(vec![speaking(revision, lease)], now).events;
            assert_eq!(heard.len(), told, "{heard:?}");
        }
        let told = looks(&mut state, &mut now, 7, &[9, 9]);
        assert_eq!(told, ["Cleared go/1"]);
    }

    /// A member on a lease that was well is gone at revision 6, which cluster 1 is asked about.
    fn asked_about_one(state: &mut State, now: Instant) -> u64 {
        let mut listing = state.new_listing();
        listing.page(vec![kv("go/1", 5, 7)]);
        state.listing(listing.complete(), (5, 1), Why::First, now);
        state.shown(7, left(8), (now, now), now);
        let gone = KvEvent::Delete {
            key: kv("go/1", 5, 7).key,
            mod_revision: 6,
        };
        assert_eq!(state.events(vec![gone], now).events.len(), 0);
        match state.next_request(now) {
            Request::Ask(question) => question.ticket,
            _ => panic!("nothing is asked"),
        }
    }

    /// All that was told, which is one event.
    fn only(told: &[Event]) -> String {
        let [told] = told else {
            panic!("{told:?}");
        };
        told.to_string()
    }

    /// A wiped etcd knows no lease: that says nothing of how a member went before.
    #[test]
    fn g6_an_answer_of_another_etcd_proves_nothing() {
        for (cluster, reason) in [
            (1, "(revoked)"),
            (2, "(deregistered)"),
            (0, "(deregistered)"),
        ] {
            let (now, mut state) = (Instant::now(), observing());
            let ticket = asked_about_one(&mut state, now);
            let mut told = state.answered(ticket, Shown::Gone { cluster }, now).events;
            told.extend(state.tick(now + Duration::from_secs(1)).1.events);
            let told = only(&told);
            assert!(told.ends_with(reason), "{told}, not {reason}");
        }
    }

    /// Nor does it once it is the one that we watch, under the same id or another.
    #[test]
    fn g6_an_etcd_that_was_listed_since_proves_nothing_of_those_before() {
        for (revision, cluster) in [(1, 1), (1, 2), (9, 2)] {
            let (now, mut state) = (Instant::now(), observing());
            let ticket = asked_about_one(&mut state, now);
            let listing = state.new_listing().complete();
            state.listing(listing, (revision, cluster), Why::WentBack, now);
            let told = state.answered(ticket, Shown::Gone { cluster }, now);
            assert_eq!(told.events.len(), 0, "{:?}", told.events);
            let told = only(&state.tick(now + Duration::from_secs(1)).1.events);
            assert!(told.ends_with("(deregistered)"), "{told}");
        }
    }
}
