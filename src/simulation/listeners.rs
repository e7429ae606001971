//! Slow listeners, each with its own pace: they come, lag, and go.

use crossbeam_channel::Receiver;

use super::Violation;
use super::book::Book;
use super::bug::Bug;
use super::client::Client;
use super::dice::Dice;
use super::store::Ms;
use crate::event::Event;
use crate::hub::{Options, State};

struct Listener {
    id: u64,
    events: Receiver<Event>,
    book: Book,
    capacity: usize,
    /// It takes something every so many ticks.
    every: u64,
    /// It does nothing until then.
    stalled: Ms,
    /// The epochs of the store that it was made aware of.
    epochs: usize,
}

#[derive(Default)]
pub struct Listeners {
    all: Vec<Listener>,
    pub heard: u64,
    pub folded: u64,
    /// Nobody comes, goes or stops reading any more.
    resting: bool,
}

impl Listeners {
    pub fn step(
        &mut self,
        tick: u64,
        now: Ms,
        client: &mut Client,
        bug: Option<Bug>,
        dice: &mut Dice,
    ) -> Result<(), Violation> {
        let restless = !self.resting;
        if restless && self.all.len() < 6 && dice.permille(if tick == 0 { 1000 } else { 5 }) {
            self.subscribe(client, dice);
        }
        if restless && self.all.len() > 2 && dice.permille(2) {
            let gone = self.all.swap_remove(dice.below(self.all.len()));
            // One in two only drops its channel.
            if dice.permille(500) {
                client.state.unsubscribe(gone.id);
            }
        }
        for listener in &mut self.all {
            if restless && dice.permille(2) {
                listener.stalled = now + dice.between(100, 10_000);
            }
            while listener.epochs < client.epochs {
                listener.epochs += 1;
                listener.book.anew();
            }
            if now >= listener.stalled && tick % listener.every == 0 {
                let most = dice.between(1, 5) as usize;
                self.heard += listener.read(most, bug, &mut self.folded)?;
            }
            listener.judge(client)?;
        }
        client.wakes();
        Ok(())
    }

    fn subscribe(&mut self, client: &mut Client, dice: &mut Dice) {
        let capacity = dice.of(&[1, 2, 5, 50]);
        let (id, events) = client.state.subscribe(Options::new().capacity(capacity));
        self.all.push(Listener {
            id,
            events,
            book: Book::new(client.prompt.turns),
            capacity,
            every: dice.of(&[1, 1, 5, 40]),
            stalled: 0,
            epochs: client.epochs,
        });
    }

    /// Nobody is slow any more.
    pub fn heal(&mut self) {
        self.resting = true;
        for listener in &mut self.all {
            (listener.every, listener.stalled) = (1, 0);
        }
    }

    /// Who has not been told all, and how much waits.
    pub fn behind(&self, state: &State) -> Option<String> {
        let behind = |l: &&Listener| {
            !l.events.is_empty() || state.waiting(l.id) != Some(0) || !l.book.synced
        };
        let behind = self.all.iter().find(behind)?;
        let waiting = state.waiting(behind.id);
        Some(format!(
            "listener {}: {waiting:?} wait, {} in its channel",
            behind.id,
            behind.events.len()
        ))
    }
}

impl Listener {
    fn read(&mut self, most: usize, bug: Option<Bug>, folded: &mut u64) -> Result<u64, Violation> {
        let mut heard = 0;
        if bug == Some(Bug::DropWhenFull) && self.events.len() == self.capacity {
            let _ = self.events.try_recv();
        }
        for event in self.events.try_iter().take(most) {
            if let Event::Lagged { folded: more } = &event {
                *folded += more;
            }
            self.book.take(&event).map_err(|mut violation| {
                violation.what = format!("listener {}: {}", self.id, violation.what);
                violation
            })?;
            heard += 1;
        }
        Ok(heard)
    }

    /// G5: what waits is bounded by the members; once drained, what it was told is the view.
    fn judge(&mut self, client: &Client) -> Result<(), Violation> {
        let wrong = |what: String| {
            let what = format!("listener {}: {what}", self.id);
            Err(Violation {
                guarantee: "G5",
                what,
            })
        };
        let Some(waiting) = client.state.waiting(self.id) else {
            return wrong("it is not there".into());
        };
        if waiting > 4 * 13 + 8 {
            return wrong(format!("{waiting} events wait"));
        }
        if waiting > 0 || !self.events.is_empty() {
            return Ok(());
        }
        let prompt = &client.prompt;
        if prompt.turns == 0 {
            self.book.settle();
        }
        if let Some(how) = self.book.differs(prompt.view.values()) {
            return wrong(format!("it has drained: {how}"));
        }
        if self.book.suspected != prompt.suspected {
            return wrong(format!(
                "suspects {:?}, not {:?}",
                self.book.suspected, prompt.suspected
            ));
        }
        if (self.book.lost, self.book.synced) != (prompt.lost, prompt.synced) {
            return wrong("it has drained, and does not know of the store".into());
        }
        Ok(())
    }
}
