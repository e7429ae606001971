//! The members: processes of the `member` example, one name each.

use std::time::Duration;

use parking_lot::Mutex;

use super::script::{MEMBERS, member_group, ttl};
use super::stage::Stage;
use crate::history::{At, Deed, Deeds, Log, Told, json};
use crate::support::process::Example;

/// A member that is told to end does so within this, whatever state etcd is in.
const END: Duration = Duration::from_secs(15);

pub struct Cast {
    slots: Vec<Slot>,
    /// What those said that have ended.
    ended: Vec<Log>,
    /// Their standard errors.
    complaints: Vec<(String, String)>,
}

struct Slot {
    name: String,
    endpoints: String,
    ttl: u64,
    checks: &'static str,
    now: Option<Process>,
    /// Still running, though another one has its name.
    before: Vec<Process>,
    /// Two were started, and none has been told yet to stay out.
    contested: bool,
    /// How many processes it has had, and how many updates: what its metadata say.
    lives: u64,
    updates: u64,
}

struct Process {
    program: Example,
    handle: String,
    stopped: bool,
    leaving: bool,
}

/// What a member is called.
pub fn name(member: usize) -> String {
    let server_type = ["gate", "game", "chat"][member % 3];
    format!("{server_type}/{member}")
}

impl Cast {
    pub fn new(stage: &Stage) -> Cast {
        let slot = |member| Slot {
            name: name(member),
            endpoints: stage.endpoints(member_group(member)).join(","),
            ttl: ttl(member),
            // Each look is a request to etcd, and there are only so many processors.
            checks: if member % 5 == 0 { "all" } else { "silent" },
            now: None,
            before: Vec::new(),
            contested: false,
            lives: 0,
            updates: 0,
        };
        Cast {
            slots: (0..MEMBERS).map(slot).collect(),
            ended: Vec::new(),
            complaints: Vec::new(),
        }
    }

    /// Nothing happens where it runs.
    pub fn start(&mut self, member: usize, deeds: &Mutex<Deeds>) {
        let running = self.slots[member].now.as_ref();
        if running.is_some_and(|process| !process.leaving) {
            return;
        }
        if let Some(leaving) = self.slots[member].now.take() {
            self.bury(leaving, END);
        }
        let slot = &mut self.slots[member];
        slot.contested = !slot.before.is_empty();
        slot.spawn(deeds);
    }

    pub fn twin(&mut self, member: usize, deeds: &Mutex<Deeds>) -> bool {
        let slot = &mut self.slots[member];
        let Some(first) = slot.now.take_if(|process| !process.leaving) else {
            return false;
        };
        slot.before.push(first);
        slot.contested = true;
        slot.spawn(deeds);
        true
    }

    /// Of two with one name one is told to stay out, and has no more to say: mostly the older one,
    /// but not if it was at a loss when the younger one came. It may be told when the other one has
    /// been killed.
    pub fn dismiss_displaced(&mut self) {
        for member in 0..self.slots.len() {
            let slot = &mut self.slots[member];
            if !slot.contested {
                continue;
            }
            let mut all = std::mem::take(&mut slot.before);
            all.extend(slot.now.take());
            let (out, mut stay): (Vec<_>, Vec<_>) =
                all.into_iter().partition(Process::is_displaced);
            slot.now = stay.pop();
            slot.contested = out.is_empty() || !stay.is_empty();
            slot.before = stay;
            for process in out {
                process.program.signal(libc::SIGCONT);
                process.program.signal(libc::SIGTERM);
                self.bury(process, END);
            }
        }
    }

    pub fn kill(&mut self, member: usize, deeds: &Mutex<Deeds>) -> bool {
        let slot = &mut self.slots[member];
        slot.enter(deeds, |name| Deed::Killed { name });
        let Some(process) = slot.now.take() else {
            return false;
        };
        process.program.signal(libc::SIGKILL);
        self.bury(process, END);
        true
    }

    pub fn terminate(&mut self, member: usize, deeds: &Mutex<Deeds>) -> bool {
        let slot = &mut self.slots[member];
        slot.enter(deeds, |name| Deed::Terminated { name });
        let Some(process) = slot.running() else {
            return false;
        };
        process.leaving = true;
        process.program.signal(libc::SIGTERM);
        true
    }

    pub fn stop(&mut self, member: usize, deeds: &Mutex<Deeds>) -> bool {
        let slot = &mut self.slots[member];
        slot.enter(deeds, |name| Deed::Stopped { name });
        let Some(process) = slot.running() else {
            return false;
        };
        process.stopped = true;
        process.program.signal(libc::SIGSTOP);
        true
    }

    pub fn go_on(&mut self, member: usize, deeds: &Mutex<Deeds>) {
        let slot = &mut self.slots[member];
        if let Some(process) = slot.now.as_mut().filter(|process| process.stopped) {
            process.stopped = false;
            process.program.signal(libc::SIGCONT);
            slot.enter(deeds, |name| Deed::Continued { name });
        }
    }

    pub fn update(&mut self, member: usize) -> bool {
        let slot = &mut self.slots[member];
        slot.updates += 1;
        let line = format!("set step={}", slot.updates);
        let Some(process) = slot.running() else {
            return false;
        };
        process.program.write_line(&line);
        true
    }

    pub fn name(&self, member: usize) -> &str {
        &self.slots[member].name
    }

    /// Everybody runs, alone under its name.
    pub fn gather(&mut self, deeds: &Mutex<Deeds>) {
        for member in 0..self.slots.len() {
            self.go_on(member, deeds);
            self.start(member, deeds);
        }
    }

    /// Who does not yet say of itself that it is registered as what etcd holds; `lives`: the
    /// incarnation, by name.
    pub fn missing(&self, lives: impl Fn(&str) -> Option<i64>) -> Vec<String> {
        let registered = |slot: &Slot| {
            let own = slot.now.as_ref().and_then(Process::last_own);
            let life = lives(&slot.name);
            let sure = matches!(own, Some(Told::Registered { incarnation, .. })
                if Some(incarnation) == life);
            (!sure).then(|| format!("{}: says {own:?}, etcd holds {life:?}", slot.name))
        };
        let apart = self.slots.iter().flat_map(|slot| &slot.before);
        let apart = apart.map(|process| format!("{}: not displaced", process.handle));
        self.slots
            .iter()
            .filter_map(registered)
            .chain(apart)
            .collect()
    }

    /// What everybody said, and complained about.
    pub fn logs(mut self) -> (Vec<Log>, Vec<(String, String)>) {
        for slot in &mut self.slots {
            for process in slot.now.take().into_iter().chain(slot.before.drain(..)) {
                self.ended.push(process.log(&slot.name));
                self.complaints
                    .push((process.handle.clone(), process.program.errors()));
            }
        }
        (self.ended, self.complaints)
    }

    /// Its last words, once it has ended.
    fn bury(&mut self, process: Process, bound: Duration) {
        process.program.wait_exit(bound);
        // To the end of its output.
        while process.program.next_line(END).is_some() {}
        let name = process.handle.split(' ').next().unwrap_or_default();
        let mut log = process.log(name);
        log.closed = true;
        self.ended.push(log);
        self.complaints
            .push((process.handle.clone(), process.program.errors()));
    }
}

impl Slot {
    fn enter(&self, deeds: &Mutex<Deeds>, deed: impl FnOnce(String) -> Deed) {
        if self.now.is_some() {
            deeds.lock().add(deed(self.name.clone()));
        }
    }

    fn running(&mut self) -> Option<&mut Process> {
        let process = self.now.as_mut()?;
        assert!(
            process.leaving || process.program.running(),
            "{} has ended by itself: {}",
            process.handle,
            process.program.errors()
        );
        Some(process).filter(|process| !process.leaving && !process.stopped)
    }

    fn spawn(&mut self, deeds: &Mutex<Deeds>) {
        let (server_type, id) = self.name.split_once('/').expect("type/id");
        self.lives += 1;
        let (ttl, step) = (self.ttl.to_string(), format!("step={}", self.updates));
        let life = format!("life={}", self.lives);
        let options = [
            "--json",
            "--endpoints",
            &self.endpoints,
            "--type",
            server_type,
            "--id",
            id,
            "--ttl",
            &ttl,
            "--check",
            self.checks,
            "--metadata",
            &life,
            "--metadata",
            &step,
        ];
        let program = Example::spawn_with("member", options, &[("RUST_LOG", "headcount=info")]);
        let (name, pid) = (self.name.clone(), program.pid());
        deeds.lock().add(Deed::Started { name, pid });
        self.now = Some(Process {
            handle: format!("{} {pid}", self.name),
            program,
            stopped: false,
            leaving: false,
        });
    }
}

impl Process {
    fn told(&self) -> Vec<At<Told>> {
        let lines = self.program.lines();
        let parse = |line: &str| match json::parse(line) {
            Ok(json::Line::Told(told)) => told,
            other => panic!("{}: {other:?}", self.handle),
        };
        lines.iter().map(|line| parse(&line.text)).collect()
    }

    /// What it said last about its registration.
    fn last_own(&self) -> Option<Told> {
        let about =
            |told: &Told| matches!(told, Told::Registered { .. } | Told::Lost | Told::Displaced);
        let mut told = self.told().into_iter().rev().map(|entry| entry.what);
        told.find(about)
    }

    fn is_displaced(&self) -> bool {
        self.last_own() == Some(Told::Displaced)
    }

    fn log(&self, name: &str) -> Log {
        Log {
            listener: "member".into(),
            handle: self.handle.clone(),
            own: Some(name.into()),
            // The program shows nothing of others.
            types: vec!["nobody".into()],
            entries: self.told(),
            ..Log::default()
        }
    }
}
