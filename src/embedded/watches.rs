//! The watches of one stream. Each is a place in the store's history, so that a slow reader costs
//! no memory: what it has not been sent yet, the store still has, or has compacted. Pure.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use super::reply::{EventOut, Header, WatchOut, to_line};
use super::request::{Bytes, Filter, Keys, Watch, WatchCreate};
use super::store::{Change, Store};
use super::wire::Text;

/// How many revisions go into one response while a watch catches up.
const BATCH: usize = 1000;
/// A response that may come in fragments is cut at about this many bytes.
const FRAGMENT_BYTES: usize = 5 << 19;
/// How often an idle watch with `progress_notify` is told the revision.
const PROGRESS: Duration = Duration::from_secs(600);
/// Of a watch that could not be created.
const NO_ID: i64 = -1;

pub(super) struct Watches {
    header: Header,
    all: Vec<One>,
    next_id: i64,
    /// Messages ready to be sent: replies to requests, and the parts of one response.
    ready: VecDeque<Vec<u8>>,
}

struct One {
    id: i64,
    key: Bytes,
    range_end: Bytes,
    /// The next revision to look at.
    next: i64,
    /// Has been told of everything, so each revision is a response of its own.
    synced: bool,
    prev_kv: bool,
    fragment: bool,
    filters: Vec<Filter>,
    /// When it is due to be told the revision.
    progress: Option<Instant>,
}

impl Watches {
    pub fn new(header: Header) -> Self {
        Watches {
            header,
            all: Vec::new(),
            next_id: 0,
            ready: VecDeque::new(),
        }
    }

    pub fn ask(&mut self, request: Watch, store: &Store, now: Instant) {
        if let Some(create) = request.create_request {
            self.create(create, store, now);
        } else if let Some(cancel) = request.cancel_request {
            if let Some(at) = self.all.iter().position(|one| one.id == cancel.watch_id) {
                self.all.remove(at);
                self.say(WatchOut {
                    header: self.header.at(store.revision()),
                    watch_id: Text(cancel.watch_id),
                    canceled: true,
                    ..WatchOut::default()
                });
            }
        } else if request.progress_request.is_some() && !self.all.is_empty() {
            self.say(WatchOut {
                header: self.header.at(store.revision()),
                watch_id: Text(NO_ID),
                ..WatchOut::default()
            });
        }
    }

    fn create(&mut self, create: WatchCreate, store: &Store, now: Instant) {
        let taken = |id: i64| self.all.iter().any(|one| one.id == id);
        let empty = match &*create.range_end {
            [] | [0] => false,
            end => *end <= *create.key,
        };
        let refused = if empty {
            "mvcc: watcher range is empty"
        } else if create.watch_id != 0 && taken(create.watch_id) {
            "mvcc: duplicate watch ID provided on the WatchStream"
        } else {
            ""
        };
        let id = match (refused, create.watch_id) {
            ("", 0) => {
                let free = (self.next_id..).find(|&id| !taken(id)).unwrap_or(NO_ID);
                self.next_id = free + 1;
                free
            }
            ("", wanted) => wanted,
            _ => NO_ID,
        };
        self.say(WatchOut {
            header: self.header.at(store.revision()),
            watch_id: Text(id),
            created: true,
            canceled: !refused.is_empty(),
            cancel_reason: refused,
            ..WatchOut::default()
        });
        if !refused.is_empty() {
            return;
        }
        // From the very first key on.
        let key = match create.key.is_empty() {
            true => Bytes::from([0]),
            false => create.key,
        };
        let next = match create.start_revision {
            from if from > 0 => from,
            _ => store.revision() + 1,
        };
        self.all.push(One {
            id,
            key,
            range_end: create.range_end,
            next,
            synced: next > store.revision(),
            prev_kv: create.prev_kv,
            fragment: create.fragment,
            filters: create.filters,
            progress: create.progress_notify.then(|| now + PROGRESS),
        });
    }

    fn say(&mut self, message: WatchOut) {
        self.ready.push_back(to_line(&message));
    }

    /// The next message to send, if there is one.
    pub fn next(&mut self, store: &Store, now: Instant) -> Option<Vec<u8>> {
        for at in 0..self.all.len() {
            if !self.ready.is_empty() {
                break;
            }
            let one = &mut self.all[at];
            if one.next < store.compacted() {
                let (id, header) = (one.id, self.header.at(0));
                self.all.remove(at);
                self.say(WatchOut {
                    header,
                    watch_id: Text(id),
                    canceled: true,
                    compact_revision: Text(store.compacted()),
                    ..WatchOut::default()
                });
                break;
            }
            let told = one.take(store, self.header, &mut self.ready);
            match &mut one.progress {
                Some(due) if told => *due = now + PROGRESS,
                Some(due) if *due <= now => {
                    *due = now + PROGRESS;
                    let watch_id = Text(one.id);
                    self.say(WatchOut {
                        header: self.header.at(store.revision()),
                        watch_id,
                        ..WatchOut::default()
                    });
                }
                _ => {}
            }
        }
        self.ready.pop_front()
    }

    /// When there is something to say though nothing changes.
    pub fn next_progress(&self) -> Option<Instant> {
        self.all.iter().filter_map(|one| one.progress).min()
    }
}

impl One {
    /// The next response's worth of changes; whether there was one.
    fn take(&mut self, store: &Store, header: Header, ready: &mut VecDeque<Vec<u8>>) -> bool {
        let newest = store.revision();
        if newest - self.next >= BATCH as i64 {
            self.synced = false;
        }
        let mut changes: Vec<&Change> = Vec::new();
        let (mut revisions, mut last) = (0, newest);
        while self.next <= newest && revisions < if self.synced { 1 } else { BATCH } {
            let before = changes.len();
            changes.extend(store.changes(self.next).iter().filter(|c| self.wants(c)));
            revisions += usize::from(changes.len() > before);
            if self.synced {
                last = self.next;
            }
            self.next += 1;
        }
        self.synced |= self.next > newest;
        if changes.is_empty() {
            return false;
        }
        // What was before the compaction is not told.
        let prev_kv = |c: &Change| self.prev_kv && c.kv.mod_revision > store.compacted();
        let mut parts = self.parts(&changes).peekable();
        while let Some(events) = parts.next() {
            ready.push_back(to_line(&WatchOut {
                header: header.at(last),
                watch_id: Text(self.id),
                fragment: parts.peek().is_some(),
                events: events
                    .iter()
                    .map(|c| EventOut::new(c, prev_kv(c)))
                    .collect(),
                ..WatchOut::default()
            }));
        }
        true
    }

    fn wants(&self, change: &Change) -> bool {
        let keys = Keys {
            key: &self.key,
            range_end: &self.range_end,
        };
        let unwanted = match change.kv.is_tombstone() {
            true => Filter::NoDelete,
            false => Filter::NoPut,
        };
        keys.contain(&change.kv.key) && !self.filters.contains(&unwanted)
    }

    /// Cut where fragments are wanted and a response would be large.
    fn parts<'a>(&self, changes: &'a [&'a Change]) -> impl Iterator<Item = &'a [&'a Change]> {
        let prev_kv = self.prev_kv;
        let size = move |change: &Change| {
            let previous = change.previous.as_deref().filter(|_| prev_kv);
            let kvs = std::iter::once(&*change.kv).chain(previous);
            kvs.map(|kv| kv.key.len() + kv.value.len() + 64)
                .sum::<usize>()
        };
        let limit = match self.fragment {
            true => FRAGMENT_BYTES,
            false => usize::MAX,
        };
        let mut rest = changes;
        std::iter::from_fn(move || {
            let mut bytes = 0;
            let fit = rest.iter().take_while(|change| {
                bytes += size(change);
                bytes <= limit
            });
            // One that is too large by itself goes alone.
            let count = fit.count().max(1).min(rest.len());
            let (part, left) = rest.split_at(count);
            rest = left;
            (!part.is_empty()).then_some(part)
        })
    }
}
