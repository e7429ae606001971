//! What the hub and the heartbeat checker have to do with each other.

use std::sync::Arc;
use std::time::Instant;

use parking_lot::MutexGuard;

use super::{Hub, State, report_told};
use crate::delay::Scene;
use crate::event::Event;
use crate::heartbeat::{Answer, Next, Request, Shown};
use crate::jitter::fraction;
use crate::member::Member;
use crate::roster::Moved;

impl State {
    /// As of now. Of the members, a few may be counted twice, which matters to nobody.
    pub(super) fn scene(&self) -> Scene {
        Scene {
            now: Instant::now(),
            members: self.roster.len() + self.delay.len(),
            overdue: self.judge.overdue(),
        }
    }
}

impl State {
    /// Whoever comes on a lease that others hang on, and that is overdue, is in doubt with them.
    pub(super) fn inherited_doubt(&self, event: &Event) -> Option<Event> {
        let Event::AddMember(member) = event else {
            return None;
        };
        let evidence = self.judge.suspicion(member.lease())?;
        let member = Arc::clone(member);
        Some(Event::Suspect { member, evidence })
    }
}

impl Hub {
    /// A member has put its key on another lease, which is a sign of life.
    pub(super) fn moved(
        &self,
        state: &mut MutexGuard<'_, State>,
        moved: &Moved,
        scene: &Scene,
        told: &mut Vec<Event>,
    ) {
        let suspected = state.judge.suspicion(moved.from).is_some();
        state.judge.untrack(moved.from, moved.member.name());
        self.track(state, &moved.member, scene.now);
        if suspected {
            let member = Arc::clone(&moved.member);
            state
                .delay
                .take(Event::Cleared { member }, None, scene, told);
        }
    }

    /// Keeps in step which leases are watched.
    pub(super) fn watch_over(
        &self,
        state: &mut MutexGuard<'_, State>,
        event: &Event,
        now: Instant,
    ) {
        match event {
            Event::AddMember(member) => self.track(state, member, now),
            Event::RemoveMember { member, .. } | Event::ServerDown { member, .. } => {
                state.judge.untrack(member.lease(), member.name());
            }
            _ => {}
        }
    }

    pub(super) fn track(
        &self,
        state: &mut MutexGuard<'_, State>,
        member: &Arc<Member>,
        now: Instant,
    ) {
        if state.judge.track(member, now, fraction()) {
            self.wake_checker();
        }
    }

    pub(super) fn wake_checker(&self) {
        // Full: it is awake already.
        let _ = self.ask.try_send(());
    }

    /// What the checker is to ask etcd now: what a departure waits for comes first.
    pub fn next_request(&self) -> Request {
        let mut state = self.state.lock();
        let now = Instant::now();
        let (question, again) = state.delay.question(now);
        if let Some(question) = question {
            state.judge.spend(now);
            return Request::Ask(question);
        }
        match state.judge.next(now) {
            Next::Look(lease) => Request::Look(lease),
            Next::Wait(until) => Request::Wait([until, again].into_iter().flatten().min()),
        }
    }

    /// What a look at a lease has shown.
    pub fn shown(&self, lease: i64, shown: Shown, sent: Instant, answered: Instant) {
        let mut state = self.state.lock();
        let doubts = state.judge.shown(lease, shown, sent, answered, fraction());
        if doubts.is_empty() {
            return;
        }
        let (scene, mut told) = (state.scene(), Vec::new());
        for doubt in doubts {
            let member = state.roster.get(&doubt.name).cloned();
            if let Some(member) = member {
                state
                    .delay
                    .take(doubt.event(member), None, &scene, &mut told);
            }
        }
        self.pass_on(&mut state, &told);
        drop(state);
        report_told(&told);
    }

    /// What etcd answered to a question that a departure waits for.
    pub fn answered(&self, ticket: u64, shown: Shown) {
        let answer = match shown {
            Shown::Lease(_) => Answer::Alive,
            Shown::Gone => Answer::Gone,
            Shown::Nothing => Answer::None,
        };
        let mut state = self.state.lock();
        let (scene, mut told) = (state.scene(), Vec::new());
        state.delay.answered(ticket, answer, &scene, &mut told);
        self.pass_on(&mut state, &told);
        drop(state);
        report_told(&told);
    }

    /// Lets go of what has been delayed long enough; when to come again.
    pub(super) fn tick(&self) -> Option<Instant> {
        let mut state = self.state.lock();
        let due = state.delay.deadline();
        state.tick_at = due;
        if due.is_none_or(|due| Instant::now() < due) {
            return due;
        }
        let (scene, mut told) = (state.scene(), Vec::new());
        state.delay.tick(&scene, &mut told);
        let due = state.delay.deadline();
        state.tick_at = due;
        self.pass_on(&mut state, &told);
        drop(state);
        report_told(&told);
        due
    }
}
