//! Where the script is played: things are done, it is said what has to come of them, and just that
//! is waited for.

use std::error::Error;
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, at, bounded, select, tick};
use headcount::{Cluster, Event};

use crate::Place;
use crate::cast::Cast;
use crate::member::TTL;
use crate::sighting::Sighting;
use crate::tally::{Expected, Tally};
use crate::timeline::{Progress, Timeline};

/// What takes milliseconds may take this long on a machine that is busy.
const SOON: Duration = Duration::from_secs(10);

/// An etcd that does not answer by then is not there.
const THERE: Duration = Duration::from_secs(5);

/// How long to go on looking, at the end, for what should not come.
const AFTERMATH: Duration = Duration::from_millis(200);

/// Why the script is not played to its end.
pub enum Stop {
    Interrupted,
    NotAsExpected,
    Failed(Box<dyn Error>),
}

impl<E: Error + 'static> From<E> for Stop {
    fn from(error: E) -> Stop {
        Stop::Failed(error.into())
    }
}

pub struct Stage {
    /// Comes first, so that it ends while there still is somebody to say goodbye to.
    pub cast: Cast,
    timeline: Timeline,
    tally: Tally,
    sightings: Receiver<Sighting>,
    signals: Receiver<()>,
    _observer: Cluster,
}

impl Stage {
    /// Starts the observer, whose listener is told of everybody.
    pub fn open(place: Place, store: &str, signals: Receiver<()>) -> Result<Stage, Stop> {
        let (sender, sightings) = bounded(1024);
        let mut timeline = Timeline::new();
        timeline.head(store, &place)?;
        let cause = Instant::now();
        let observer = place.builder().start_timeout(THERE).start()?;
        let told = sender.clone();
        let listener = move |event: &Event| {
            // Fails when the demo is over.
            let _ = told.send(Sighting::told(Instant::now(), event));
        };
        observer.add_listener(listener)?.keep();
        let mut stage = Stage {
            cast: Cast::new(place, sender),
            timeline,
            tally: Tally::default(),
            sightings,
            signals,
            _observer: observer,
        };
        stage.act("an observer listens", "to what becomes of everybody")?;
        stage.expect(cause, Expected::told("", "Synced"));
        stage.wait()?;
        Ok(stage)
    }

    pub fn act(&mut self, title: &str, how: &str) -> Result<(), Stop> {
        self.tally.act(title);
        Ok(self.timeline.act(title, how)?)
    }

    /// This has to come of what was done at `cause`.
    pub fn expect(&mut self, cause: Instant, expected: Expected) {
        self.tally.expect(cause, expected);
    }

    /// Waits for all that has to come.
    pub fn wait(&mut self) -> Result<(), Stop> {
        self.until_all_came(Instant::now() + SOON, None)
    }

    /// The same, where first a lease has to run out that nobody keeps alive since `cause`.
    pub fn wait_for_lease(&mut self, cause: Instant, whose: &str) -> Result<(), Stop> {
        let what = format!("{whose}'s lease");
        let end = cause + TTL;
        self.until_all_came(end + SOON, Some(Progress { what, end, of: TTL }))
    }

    /// Lets time pass, in which nothing has to come.
    pub fn pause(&mut self, of: Duration, what: &str) -> Result<(), Stop> {
        let (what, end) = (what.to_owned(), Instant::now() + of);
        self.look(end, Some(Progress { what, end, of }), |_| false)
    }

    fn until_all_came(&mut self, end: Instant, progress: Option<Progress>) -> Result<(), Stop> {
        self.look(end, progress, Tally::is_complete)?;
        match self.tally.is_complete() {
            true => Ok(()),
            false => Err(Stop::NotAsExpected),
        }
    }

    fn look(
        &mut self,
        end: Instant,
        progress: Option<Progress>,
        enough: impl Fn(&Tally) -> bool,
    ) -> Result<(), Stop> {
        let (end, ticks) = (at(end), tick(Duration::from_millis(100)));
        while !enough(&self.tally) {
            if let Some(progress) = &progress {
                self.timeline.progress(progress)?;
            }
            select! {
                recv(self.signals) -> _ => return Err(Stop::Interrupted),
                recv(self.sightings) -> sighting => {
                    let sighting = sighting?;
                    let verdict = self.tally.take(&sighting);
                    self.timeline.sighting(&sighting, &verdict)?;
                }
                recv(ticks) -> _ => {}
                recv(end) -> _ => break,
            }
        }
        Ok(self.timeline.waited()?)
    }

    /// Ends what still runs, and draws up the account.
    pub fn close(mut self, played: Result<(), Stop>) -> Result<(), Stop> {
        let complete = played.is_ok();
        match played {
            Err(Stop::Interrupted) => {
                self.timeline.waited()?;
                return Err(Stop::Interrupted);
            }
            Err(Stop::Failed(error)) => self.tally.surprise(error.to_string()),
            Ok(()) | Err(Stop::NotAsExpected) => {}
        }
        for problem in self.cast.end() {
            self.tally.surprise(problem);
        }
        if complete {
            self.look(Instant::now() + AFTERMATH, None, |_| false)?;
        }
        self.timeline.summary(&self.tally)?;
        self.timeline.verdict(&self.tally)?;
        match self.tally.is_complete() && self.tally.surprises().is_empty() {
            true => Ok(()),
            false => Err(Stop::NotAsExpected),
        }
    }
}
