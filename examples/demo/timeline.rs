//! What a person reads. Colours and rewritten lines are for terminals only.

use std::io::{self, IsTerminal, Stdout, Write};
use std::time::{Duration, Instant};

use crate::Place;
use crate::member::TTL;
use crate::sighting::{Side, Sighting};
use crate::tally::{Tally, Verdict};

// Codes of the terminal's styles.
const BOLD: &str = "1";
const DIM: &str = "2";
const RED: &str = "31";
const GREEN: &str = "32";
const YELLOW: &str = "33";
const BLUE: &str = "34";
const CYAN: &str = "36";

/// How many characters long a progress bar is.
const BAR: usize = 20;

pub struct Timeline {
    out: Stdout,
    started: Instant,
    coloured: bool,
    /// It goes to a terminal, whose last line can be rewritten.
    live: bool,
    /// The last line is about progress.
    waiting: bool,
}

/// What is waited for, until when, and how long that is altogether.
pub struct Progress {
    pub what: String,
    pub end: Instant,
    pub of: Duration,
}

impl Timeline {
    pub fn new() -> Timeline {
        let out = io::stdout();
        let set = |name| std::env::var_os(name).filter(|value| !value.is_empty());
        let live = out.is_terminal() && set("TERM").is_none_or(|term| term != "dumb");
        Timeline {
            out,
            started: Instant::now(),
            coloured: live && set("NO_COLOR").is_none(),
            live,
            waiting: false,
        }
    }

    pub fn head(&mut self, store: &str, place: &Place) -> io::Result<()> {
        let Place { endpoints, prefix } = place;
        self.line(&self.paint(BOLD, "Headcount: who joined, who left, who died"))?;
        let ttl = TTL.as_secs();
        let place = format!("{store}: {endpoints}, prefix {prefix}, TTL {ttl} s");
        self.line(&self.paint(DIM, &place))?;
        let columns = "\n   time  who     what            after  why";
        self.line(&self.paint(DIM, columns))
    }

    pub fn act(&mut self, title: &str, how: &str) -> io::Result<()> {
        let time = self.time(Instant::now());
        let title = self.paint(BOLD, &format!("▸ {title}"));
        let how = self.paint(DIM, how);
        self.line(&format!("{time}{title}, {how}"))
    }

    pub fn sighting(&mut self, sighting: &Sighting, verdict: &Verdict) -> io::Result<()> {
        let Sighting {
            at, id, event, why, ..
        } = sighting;
        let (took, note) = match verdict {
            Verdict::Expected { took, note } => (span(took), note.clone()),
            Verdict::Quiet => return Ok(()),
            Verdict::Surprise => (String::new(), self.paint(RED, "NOT EXPECTED")),
        };
        let time = self.time(*at);
        let event = self.paint(colour(sighting), &format!("{event:<12}"));
        let line = format!("{time}  {id:<6}  {event} {took:>8}  {why} {note}");
        self.line(line.trim_end())
    }

    /// On a terminal the last line, rewritten each time; elsewhere a line that is said once.
    pub fn progress(&mut self, progress: &Progress) -> io::Result<()> {
        let Progress { what, end, of } = progress;
        let left = end.saturating_duration_since(Instant::now());
        if self.live {
            let full = (left.as_secs_f64() / of.as_secs_f64() * BAR as f64).round() as usize;
            let bar = "━".repeat(full) + &"┄".repeat(BAR.saturating_sub(full));
            let text = format!("… {what} {bar} {:.1} s", left.as_secs_f64());
            write!(self.out, "\r\x1b[2K         {}", self.paint(DIM, &text))?;
        } else if !self.waiting {
            writeln!(self.out, "         … {what}: {} s", of.as_secs())?;
        }
        self.waiting = true;
        self.out.flush()
    }

    /// The progress is over.
    pub fn waited(&mut self) -> io::Result<()> {
        self.clear()?;
        self.waiting = false;
        self.out.flush()
    }

    pub fn summary(&mut self, tally: &Tally) -> io::Result<()> {
        self.line("")?;
        let head = row(
            "what was done",
            "what has to come",
            "expected",
            "seen",
            "after",
        );
        self.line(&self.paint(DIM, &head))?;
        for each in tally.rows() {
            let (least, most) = (each.took.iter().min(), each.took.iter().max());
            let after = match (least.map(span), most.map(span)) {
                (Some(least), Some(most)) if least != most => format!("{least}–{most}"),
                (Some(took), _) => format!("{took} {}", each.note),
                _ => String::new(),
            };
            let (expected, seen) = (each.expected, each.took.len());
            self.row(each.act, &each.what, expected, seen, &after)?;
        }
        self.row("", "anything else", 0, tally.surprises().len(), "")?;
        self.line("")
    }

    fn row(
        &mut self,
        act: &str,
        what: &str,
        expected: usize,
        seen: usize,
        after: &str,
    ) -> io::Result<()> {
        let colour = if seen == expected { GREEN } else { RED };
        let seen = self.paint(colour, &format!("{seen:>4}"));
        let line = row(act, what, &expected.to_string(), &seen, after);
        self.line(line.trim_end())
    }

    pub fn verdict(&mut self, tally: &Tally) -> io::Result<()> {
        let (expected, seen) = tally.count();
        let seconds = self.started.elapsed().as_secs_f64();
        let (colour, text) = match (expected - seen, tally.surprises().len()) {
            (0, 0) => (
                GREEN,
                format!("All {expected} events came as they should, and no other."),
            ),
            (missing, surprises) => (
                RED,
                format!("{missing} did not come, and {surprises} came that should not have."),
            ),
        };
        let text = self.paint(colour, &text);
        self.line(&format!("{text} It took {seconds:.1} s."))?;
        for surprise in tally.surprises() {
            self.line(&format!("Not expected: {surprise}"))?;
        }
        Ok(())
    }

    fn line(&mut self, text: &str) -> io::Result<()> {
        self.clear()?;
        writeln!(self.out, "{text}")?;
        self.out.flush()
    }

    fn clear(&mut self) -> io::Result<()> {
        match self.live && self.waiting {
            true => write!(self.out, "\r\x1b[2K"),
            false => Ok(()),
        }
    }

    fn time(&self, at: Instant) -> String {
        let since = at.saturating_duration_since(self.started);
        self.paint(DIM, &format!("{:>6.3}s ", since.as_secs_f64()))
    }

    fn paint(&self, style: &str, text: &str) -> String {
        match self.coloured {
            true => format!("\x1b[{style}m{text}\x1b[0m"),
            false => text.to_owned(),
        }
    }
}

fn row(act: &str, what: &str, expected: &str, seen: &str, after: &str) -> String {
    format!("{act:<23} {what:<26} {expected:>8} {seen:>4}  {after}")
}

fn colour(sighting: &Sighting) -> &'static str {
    match (sighting.side, &*sighting.event) {
        (Side::Member(_), _) => CYAN,
        (_, "AddMember") => GREEN,
        (_, "UpdateMember") => BLUE,
        (_, "RemoveMember" | "Suspect") => YELLOW,
        (_, "ServerDown") => RED,
        _ => BOLD,
    }
}

/// Two or three digits and the unit that fits.
fn span(took: &Duration) -> String {
    match took.as_secs_f64() * 1000.0 {
        ms if ms < 9.95 => format!("{ms:.1} ms"),
        ms if ms < 999.5 => format!("{ms:.0} ms"),
        ms => format!("{:.2} s", ms / 1000.0),
    }
}
