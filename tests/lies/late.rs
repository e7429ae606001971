//! What looks like a lie about etcd's absence, and was only heard or answered late.

use super::{MS, lost, repeat, restored};
use crate::history::timeline::Timeline;
use crate::history::{Answer, At, History, Log, Told};

/// That etcd is back is told after a departure that came later.
pub fn back(log: &mut Log) -> Option<()> {
    let back = restored(log)?;
    let later = log.entries[back].at + 100 * MS;
    let departs = |e: &At<Told>| e.at > later && e.what.departure().is_some();
    let gone = back + log.entries[back..].iter().position(departs)?;
    log.entries.remove(back);
    repeat(log, gone - 1, Told::StoreRestored);
    Some(())
}

/// That it was lost is told when it is back, as well.
pub fn lost_and_back(log: &mut Log) -> Option<()> {
    back(log)?;
    let gone = restored(log)? - 1;
    let mut lost = log.entries.remove(lost(log));
    lost.at = log.entries[gone - 1].at;
    log.entries.insert(gone - 1, lost);
    Some(())
}

/// The first answer without etcd takes long, and somebody's end is seen meanwhile: the next ones
/// know it.
pub fn answer(h: &mut History) -> Option<()> {
    let truth = Timeline::of(&h.truth.prefix, h.truth.epochs.last()?);
    let without = |a: &Answer| a.handle == "h2" && !a.store_reachable;
    let first = h.answers.iter().position(without)?;
    let (asked, members) = (h.answers[first].at_before, &h.answers[first].members);
    let (name, seen) = members.iter().find_map(|member| {
        let end = truth.end(&member.name, member.incarnation)?;
        let at = truth.steps(&member.name)[end].at;
        (asked + 50 * MS < at).then(|| (member.name.clone(), at))
    })?;
    let later = |a: &Answer| without(a) && a.at_before > seen;
    let answered = h.answers.iter().find(|a| later(a))?.at_before;
    h.answers
        .retain(|a| !without(a) || a.at_before == asked || a.at_before > seen);
    let answers = h.answers.iter_mut().filter(|a| without(a));
    for (n, answer) in answers.enumerate() {
        if n == 0 {
            answer.at_after = answered;
        } else {
            answer.members.retain(|member| member.name != name);
        }
        answer.view_age = Some(answer.at_after - seen);
    }
    Some(())
}
