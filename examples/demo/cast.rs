//! The member processes: this very program, started again with a name.

use std::io::{self, BufRead, BufReader, Write};
use std::process::{Child, ChildStdin, Command, Stdio};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use crossbeam_channel::Sender;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::Place;
use crate::sighting::Sighting;

/// How long those that are to go may take, all together. Then they are killed.
const FAREWELL: Duration = Duration::from_secs(3);

/// All that were started and have not been seen to end. Dropping it ends them.
pub struct Cast {
    place: Place,
    /// Where their reports go.
    sightings: Sender<Sighting>,
    processes: Vec<Process>,
}

struct Process {
    id: String,
    child: Child,
    input: Option<ChildStdin>,
    reader: JoinHandle<()>,
}

impl Cast {
    pub fn new(place: Place, sightings: Sender<Sighting>) -> Cast {
        Cast {
            place,
            sightings,
            processes: Vec::new(),
        }
    }

    /// Starts one more process; its number, and when that was.
    pub fn start(&mut self, server_type: &str, id: &str) -> io::Result<(u32, Instant)> {
        let mut command = Command::new(std::env::current_exe()?);
        command
            .args(["--endpoints", &self.place.endpoints])
            .args(["--prefix", &self.place.prefix])
            .args(["--member", &format!("{server_type}/{id}")])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped());
        let cause = Instant::now();
        let mut child = command.spawn()?;
        let output = child.stdout.take().expect("it is a pipe");
        let (pid, id, sightings) = (child.id(), id.to_owned(), self.sightings.clone());
        self.processes.push(Process {
            input: child.stdin.take(),
            child,
            id: id.clone(),
            // Ends with the process, whose output then does.
            reader: std::thread::spawn(move || {
                for line in BufReader::new(output).lines().map_while(Result::ok) {
                    let report = Sighting::reported(Instant::now(), pid, &id, &line);
                    if sightings.send(report).is_err() {
                        break;
                    }
                }
            }),
        });
        Ok((pid, cause))
    }

    /// Says a line to the one that was started last under this id; when that was.
    pub fn say(&mut self, id: &str, line: &str) -> io::Result<Instant> {
        let cause = Instant::now();
        let input = self.find(id)?.input.as_mut();
        writeln!(input.expect("it is open until the end"), "{line}")?;
        Ok(cause)
    }

    /// Sends it a signal; when that was.
    pub fn signal(&mut self, id: &str, signal: Signal) -> io::Result<Instant> {
        let process = self.find(id)?;
        // Not reaped yet: the number is still its own.
        if let Some(status) = process.child.try_wait()? {
            let why = format!("{id} has ended by itself: {status}");
            return Err(io::Error::other(why));
        }
        let cause = Instant::now();
        process.send(signal)?;
        Ok(cause)
    }

    /// Kills it, about which it can do nothing; when that was.
    pub fn kill(&mut self, id: &str) -> io::Result<Instant> {
        let cause = self.signal(id, Signal::SIGKILL)?;
        let named = |process: &Process| process.id == id;
        if let Some(at) = self.processes.iter().rposition(named) {
            let mut process = self.processes.remove(at);
            process.child.wait()?;
            process.join();
        }
        Ok(cause)
    }

    pub fn pid(&mut self, id: &str) -> io::Result<u32> {
        Ok(self.find(id)?.child.id())
    }

    fn find(&mut self, id: &str) -> io::Result<&mut Process> {
        let mut latest = self.processes.iter_mut().rev();
        let found = latest.find(|process| process.id == id);
        found.ok_or_else(|| io::Error::other(format!("{id} was not started")))
    }

    /// Ends all that still run; a sentence about each that did not go as it should.
    pub fn end(&mut self) -> Vec<String> {
        for process in &mut self.processes {
            process.input = None;
            if matches!(process.child.try_wait(), Ok(None)) {
                // In case that it stands still.
                let _ = process.send(Signal::SIGCONT);
            }
        }
        let give_up = Instant::now() + FAREWELL;
        let all = self.processes.drain(..);
        all.filter_map(|process| process.end(give_up)).collect()
    }
}

impl Drop for Cast {
    fn drop(&mut self) {
        self.end();
    }
}

impl Process {
    fn send(&self, signal: Signal) -> io::Result<()> {
        Ok(kill(Pid::from_raw(self.child.id() as i32), signal)?)
    }

    /// What was wrong with its end.
    fn end(mut self, give_up: Instant) -> Option<String> {
        let status = loop {
            match self.child.try_wait() {
                Ok(None) if Instant::now() < give_up => {
                    std::thread::sleep(Duration::from_millis(5));
                }
                Ok(status) => break status,
                Err(_) => break None,
            }
        };
        if status.is_none() {
            let _ = self.child.kill();
            let _ = self.child.wait();
        }
        let id = self.join();
        match status {
            None => Some(format!("{id} did not go, and was killed")),
            Some(status) if status.success() => None,
            Some(status) => Some(format!("{id} ended with {status}")),
        }
    }

    /// Its output ends with it, and so does the thread that reads it.
    fn join(self) -> String {
        let _ = self.reader.join();
        self.id
    }
}
