//! What queries answer.

use super::{CUT, FAST, LAG, MS, Maker};
use crate::history::Answer;

impl Maker {
    pub(super) fn ask(&mut self) {
        let at = self.at + LAG;
        for (handle, which) in [("h1", FAST), ("h2", CUT)] {
            let ear = &self.ears[which];
            let last = self.history.answers.iter().rev();
            let last = last.clone().find(|a| a.handle == handle).cloned();
            let (members, view_age) = match (ear.deaf, last) {
                (true, Some(last)) => {
                    let age = last.view_age.unwrap_or(0) + (at - last.at_after);
                    let first = !last.store_reachable;
                    let same = ear.knows.values().cloned().collect();
                    (if first { last.members } else { same }, age)
                }
                _ => {
                    let all = self.members.values().map(|m| m.seen.clone());
                    (all.collect(), MS)
                }
            };
            self.history.answers.push(Answer {
                at_before: at,
                at_after: at,
                handle: handle.into(),
                members,
                view_age: Some(view_age),
                store_reachable: !ear.deaf,
                revision: self.revision,
                registered: None,
            });
        }
    }
}
