//! What is there, for whoever asks: the roster, and those whose departure is not told yet.
//!
//! The view is what listeners were told (G5): who is held in a mass loss, or waits for a verdict, is
//! still in it, and who has come after it is not.

use std::sync::Arc;

use super::{Hub, State};
use crate::event::Evidence;
use crate::member::Member;

impl State {
    /// How many there are.
    pub fn len(&self) -> usize {
        let kept = self.delay.kept();
        let more = kept.filter(|(old, _)| self.roster.get(old.name()).is_none());
        self.roster.len() + more.count()
    }

    /// All, sorted by type and id.
    pub fn view(&self) -> Vec<Arc<Member>> {
        let all = self.roster.iter().cloned().collect();
        self.with_kept(all, |_| true)
    }

    fn with_kept(
        &self,
        mut all: Vec<Arc<Member>>,
        wanted: impl Fn(&Member) -> bool,
    ) -> Vec<Arc<Member>> {
        if self.delay.is_empty() {
            return all;
        }
        all.retain(|member| self.delay.get(member.name()).is_none());
        let kept = self.delay.kept().map(|(member, _)| member);
        all.extend(kept.filter(|member| wanted(member)).cloned());
        all.sort_unstable_by(|a, b| a.name().cmp(b.name()));
        all
    }

    /// Why a member of the view is suspected, if it is.
    pub(super) fn suspicion(&self, member: &Member) -> Option<Evidence> {
        match self.delay.get(member.name()) {
            Some((_, suspicion)) => suspicion,
            None => self.judge.suspicion(member.lease(), member.name()),
        }
    }
}

impl Hub {
    pub fn members(&self) -> Vec<Arc<Member>> {
        self.state.lock().view()
    }

    pub fn members_of(&self, server_type: &str) -> Vec<Arc<Member>> {
        let state = self.state.lock();
        let all = state.roster.of_type(server_type).cloned().collect();
        state.with_kept(all, |member| member.server_type() == server_type)
    }

    pub fn member(&self, server_type: &str, id: &str) -> Option<Arc<Member>> {
        let (state, name) = (self.state.lock(), format!("{server_type}/{id}"));
        let kept = state.delay.get(&name).map(|(member, _)| member);
        kept.or_else(|| state.roster.get(&name)).cloned()
    }
}
