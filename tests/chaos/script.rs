//! What goes wrong, and when: drawn from a seed, nothing else. Pure.

use std::time::Duration;

use crate::ledger::Random;

/// Members that are processes of their own.
pub const MEMBERS: usize = 20;
/// Servers that say nothing when they leave.
pub const SILENT: usize = 4;
/// Groups of members that share their way to etcd.
pub const MEMBER_GROUPS: usize = 4;
/// And of watchers.
pub const WATCHER_GROUPS: usize = 3;
pub const GROUPS: usize = MEMBER_GROUPS + WATCHER_GROUPS;
pub const NODES: usize = 3;

/// One thing to do, so long after the beginning.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Cue {
    pub after: Duration,
    pub step: Step,
}

/// Whoever is named, is a number: of a member, of a silent server, of a group, of a node.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// SIGKILL.
    Kill(usize),
    /// SIGTERM: it leaves.
    Terminate(usize),
    /// SIGSTOP.
    Stop(usize),
    Continue(usize),
    /// After its end.
    Start(usize),
    /// A second process of the same name, while the first one runs.
    Twin(usize),
    /// New metadata.
    Update(usize),
    DeleteKey(usize),
    RevokeLease(usize),
    /// A silent server appears.
    SilentStarts(usize),
    /// It renews its lease no more.
    SilentDies(usize),
    /// It revokes its lease.
    SilentLeaves(usize),
    /// What happens to a group's way to etcd.
    Way(Way, Fault),
    /// etcd's leader is killed. It comes back with `StartNodes`.
    KillLeader,
    /// It stands still, its sockets open. Goes on with `ResumeNodes`.
    PauseLeader,
    /// Two of three: no quorum.
    KillTwo,
    PauseTwo,
    StartNodes,
    ResumeNodes,
    Compact,
    /// All data lost, under the eyes of everybody.
    Wipe,
}

/// A group's connections: to one node, or to all.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Way {
    pub group: usize,
    pub node: Option<usize>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// All connections are reset; new ones are welcome.
    Cut,
    /// Everything arrives so many milliseconds late.
    Delay(u64),
    /// Streams arrive in pieces of so many bytes.
    Chop(usize),
    /// Bytes vanish.
    BlackHole,
    /// Nobody listens; what is open is cut.
    Refuse,
    /// Bytes wait.
    Stall,
    /// No fault any more.
    Pass,
}

/// Small faults, those of one member or one group. As often as they stand here.
const SMALL: [Small; 20] = [
    Small::Kill,
    Small::Kill,
    Small::Terminate,
    Small::Terminate,
    Small::ShortStop,
    Small::LongStop,
    Small::Twin,
    Small::Update,
    Small::Update,
    Small::DeleteKey,
    Small::DeleteKey,
    Small::RevokeLease,
    Small::RevokeLease,
    Small::SilentDies,
    Small::SilentLeaves,
    Small::Way,
    Small::Way,
    Small::Way,
    Small::Way,
    Small::Compact,
];

#[derive(Clone, Copy, PartialEq)]
enum Small {
    Kill,
    Terminate,
    ShortStop,
    LongStop,
    Twin,
    Update,
    DeleteKey,
    RevokeLease,
    SilentDies,
    SilentLeaves,
    Way,
    Compact,
}

/// Faults that concern everybody: one after the other, with a pause between.
const BIG: [Big; 6] = [
    Big::KillLeader,
    Big::PauseLeader,
    Big::KillTwo,
    Big::PauseTwo,
    Big::CutOffMost,
    Big::CompactUnseen,
];

#[derive(Clone, Copy, PartialEq)]
enum Big {
    KillLeader,
    PauseLeader,
    KillTwo,
    PauseTwo,
    /// More than half of the members can't renew their leases.
    CutOffMost,
    /// What watchers are about to resume from is compacted away.
    CompactUnseen,
    Wipe,
}

/// How long the member's lease lives, in seconds.
pub fn ttl(member: usize) -> u64 {
    [3, 4, 5, 8][member % 4]
}

pub fn member_group(member: usize) -> usize {
    member * MEMBER_GROUPS / MEMBERS
}

/// The same for the same seed and length.
pub fn script(seed: u64, length: Duration) -> Vec<Cue> {
    let mut author = Author {
        random: Random(seed),
        length: length.as_millis() as u64,
        cues: Vec::new(),
        members: [0; MEMBERS],
        silent: [0; SILENT],
        ways: [0; GROUPS],
        quorum: Vec::new(),
        turn: seed % 6,
    };
    author.big();
    author.small();
    let mut cues = author.cues;
    // Stable: what was written first comes first.
    cues.sort_by_key(|cue| cue.after);
    cues
}

/// Times are in milliseconds; each table says from when on the one of that number is free.
struct Author {
    random: Random,
    length: u64,
    cues: Vec<Cue>,
    members: [u64; MEMBERS],
    silent: [u64; SILENT],
    ways: [u64; GROUPS],
    /// When etcd can't be asked.
    quorum: Vec<(u64, u64)>,
    /// How many faults of ways there were.
    turn: u64,
}

impl Author {
    fn between(&mut self, least: u64, most: u64) -> u64 {
        least + self.random.below(most - least + 1)
    }

    fn cue(&mut self, at: u64, step: Step) {
        let after = Duration::from_millis(at);
        self.cues.push(Cue { after, step });
    }

    fn shuffled<T: Copy>(&mut self, deck: &[T]) -> Vec<T> {
        let mut deck = deck.to_vec();
        for last in (1..deck.len()).rev() {
            let other = self.random.below(last as u64 + 1) as usize;
            deck.swap(last, other);
        }
        deck
    }

    fn big(&mut self) {
        let mut at = self.between(3000, 5000);
        let mut deck = self.shuffled(&BIG);
        // Once, not as the very first.
        let when = self.between(1, deck.len() as u64 - 1) as usize;
        deck.insert(when, Big::Wipe);
        // A short run has to make do with shorter acts, but leaves none out.
        let share = (self.length.saturating_sub(at) / deck.len() as u64).clamp(4000, 12_000);
        // Each once, however short the run; then as long as there is time.
        let mut all_seen = false;
        loop {
            for act in deck {
                let long = self.between(share / 2, share * 3 / 4);
                if all_seen && at + long > self.length {
                    return;
                }
                let over = self.act(act, at, at + long);
                at = over + self.between(share / 6, share / 3);
            }
            all_seen = true;
            deck = self.shuffled(&BIG);
        }
    }

    /// When it is over.
    fn act(&mut self, act: Big, from: u64, mut to: u64) -> u64 {
        match act {
            Big::KillLeader => self.nodes(from, to, Step::KillLeader, Step::StartNodes),
            Big::PauseLeader => self.nodes(from, to, Step::PauseLeader, Step::ResumeNodes),
            Big::KillTwo => self.nodes(from, to, Step::KillTwo, Step::StartNodes),
            Big::PauseTwo => self.nodes(from, to, Step::PauseTwo, Step::ResumeNodes),
            Big::CutOffMost => {
                let fault = match self.random.below(2) {
                    0 => Fault::BlackHole,
                    _ => Fault::Refuse,
                };
                // Longer than the longest lease, so that all of them do run out.
                to = to.max(from + 9500);
                for group in 0..MEMBER_GROUPS {
                    self.way(group, from, to, fault);
                }
            }
            Big::CompactUnseen => {
                for group in MEMBER_GROUPS..GROUPS {
                    self.way(group, from, to, Fault::BlackHole);
                }
                for member in 0..3 {
                    self.cue(from + 300, Step::Update(member));
                }
                self.cue(to - 200, Step::Compact);
            }
            Big::Wipe => {
                self.asleep(from, to);
                self.cue(from, Step::Wipe);
            }
        }
        to
    }

    fn nodes(&mut self, from: u64, to: u64, down: Step, up: Step) {
        self.asleep(from, to);
        self.cue(from, down);
        self.cue(to, up);
    }

    /// Meanwhile etcd may answer nobody.
    fn asleep(&mut self, from: u64, to: u64) {
        self.quorum.push((from.saturating_sub(200), to + 2500));
    }

    fn way(&mut self, group: usize, from: u64, to: u64, fault: Fault) {
        let way = Way { group, node: None };
        self.ways[group] = self.ways[group].max(to + 500);
        self.cue(from, Step::Way(way, fault));
        self.cue(to, Step::Way(way, Fault::Pass));
    }

    fn small(&mut self) {
        for silent in 0..SILENT {
            self.cue(0, Step::SilentStarts(silent));
        }
        // The ways that big acts take are taken for their time only.
        let busy: Vec<(usize, u64, u64)> = self.busy_ways();
        let mut at = 1500;
        loop {
            for act in self.shuffled(&SMALL) {
                if at >= self.length {
                    return;
                }
                self.small_act(act, at, &busy);
                at += self.between(150, 750);
            }
        }
    }

    /// When the ways are in the hands of big acts.
    fn busy_ways(&mut self) -> Vec<(usize, u64, u64)> {
        let mut busy: Vec<(usize, u64, u64)> = Vec::new();
        for cue in &self.cues {
            if let Step::Way(Way { group, .. }, fault) = cue.step {
                let at = cue.after.as_millis() as u64;
                match fault {
                    Fault::Pass => {
                        let open = busy.iter_mut().rev().find(|b| b.0 == group);
                        open.expect("it began").2 = at;
                    }
                    _ => busy.push((group, at, u64::MAX)),
                }
            }
        }
        self.ways = [0; GROUPS];
        busy
    }

    /// One of those that are free; it is taken until then.
    fn pick(&mut self, at: u64, until: u64) -> Option<usize> {
        let free: Vec<usize> = (0..MEMBERS).filter(|&m| self.members[m] <= at).collect();
        if free.is_empty() {
            return None;
        }
        let member = free[self.random.below(free.len() as u64) as usize];
        self.members[member] = until;
        Some(member)
    }

    /// Then, or when etcd can be asked again.
    fn with_quorum(&self, at: u64) -> u64 {
        let asleep = |at| {
            self.quorum
                .iter()
                .find(|&&(from, to)| from <= at && at < to)
        };
        let mut at = at;
        while let Some((_, to)) = asleep(at) {
            at = *to;
        }
        at
    }

    fn small_act(&mut self, act: Small, at: u64, busy: &[(usize, u64, u64)]) {
        // Back soon, while the old lease lives, or late.
        let back = match self.random.below(2) {
            0 => at + self.between(50, 1500),
            _ => at + self.between(3000, 11_000),
        };
        let settled = back + 1500;
        match act {
            Small::Kill => {
                if let Some(member) = self.pick(at, settled) {
                    self.cue(at, Step::Kill(member));
                    self.cue(back, Step::Start(member));
                }
            }
            Small::Terminate => {
                if let Some(member) = self.pick(at, settled + 1500) {
                    self.cue(at, Step::Terminate(member));
                    self.cue(back + 1500, Step::Start(member));
                }
            }
            Small::ShortStop => {
                let long = self.between(200, 1200);
                if let Some(member) = self.pick(at, at + long + 1000) {
                    self.cue(at, Step::Stop(member));
                    self.cue(at + long, Step::Continue(member));
                }
            }
            Small::LongStop => {
                let over = self.between(1200, 3000);
                if let Some(member) = self.pick(at, at + 12_000) {
                    let long = ttl(member) * 1000 + over;
                    self.members[member] = at + long + 1000;
                    self.cue(at, Step::Stop(member));
                    self.cue(at + long, Step::Continue(member));
                }
            }
            Small::Twin => {
                if let Some(member) = self.pick(at, at + 4000) {
                    self.cue(at, Step::Twin(member));
                }
            }
            Small::Update => {
                if let Some(member) = self.pick(at, at) {
                    self.cue(at, Step::Update(member));
                }
            }
            Small::DeleteKey => {
                let at = self.with_quorum(at);
                if let Some(member) = self.pick(at, at + 1500) {
                    self.cue(at, Step::DeleteKey(member));
                }
            }
            Small::RevokeLease => {
                let at = self.with_quorum(at);
                if let Some(member) = self.pick(at, at + 1500) {
                    self.cue(at, Step::RevokeLease(member));
                }
            }
            Small::SilentDies | Small::SilentLeaves => {
                let server = self.random.below(SILENT as u64) as usize;
                // It has to have lived for a while, so that its lease was looked at.
                if self.silent[server] > at {
                    return;
                }
                let back = at + self.between(1000, 8000);
                self.silent[server] = back + 4000;
                self.cue(
                    at,
                    match act {
                        Small::SilentDies => Step::SilentDies(server),
                        _ => Step::SilentLeaves(server),
                    },
                );
                self.cue(back, Step::SilentStarts(server));
            }
            Small::Way => self.small_way(at, busy),
            Small::Compact => self.cue(self.with_quorum(at), Step::Compact),
        }
    }

    fn small_way(&mut self, at: u64, busy: &[(usize, u64, u64)]) {
        let group = self.random.below(GROUPS as u64) as usize;
        let to = at + self.between(300, 7000);
        let taken = |b: &&(usize, u64, u64)| b.0 == group && b.1 < to + 200 && at < b.2 + 200;
        if self.ways[group] > at || busy.iter().any(|b| taken(&b)) {
            return;
        }
        let node = match self.random.below(2) {
            0 => None,
            _ => Some(self.random.below(NODES as u64) as usize),
        };
        // In turn, so that none is left out.
        self.turn += 1;
        let fault = match self.turn % 6 {
            0 => Fault::Cut,
            1 => Fault::Delay(self.between(20, 400)),
            2 => Fault::Chop(self.between(1, 40) as usize),
            3 => Fault::BlackHole,
            4 => Fault::Refuse,
            _ => Fault::Stall,
        };
        let way = Way { group, node };
        self.cue(at, Step::Way(way, fault));
        if fault != Fault::Cut {
            self.ways[group] = to + 300;
            self.cue(to, Step::Way(way, Fault::Pass));
        }
    }
}

/// All kinds of faults, as the report has them.
pub const KINDS: [&str; 21] = [
    "member killed",
    "member terminated",
    "member stopped",
    "twin started",
    "metadata updated",
    "key deleted by hand",
    "lease revoked",
    "silent server died",
    "silent server left",
    "connections cut",
    "connections delayed",
    "connections chopped",
    "connections black-holed",
    "connections refused",
    "connections stalled",
    "leader killed",
    "leader paused",
    "two nodes killed",
    "two nodes paused",
    "compacted",
    "wiped",
];

impl Step {
    /// The kind of fault; `None` for what only ends one.
    pub fn kind(&self) -> Option<&'static str> {
        let kind = match self {
            Step::Kill(_) => 0,
            Step::Terminate(_) => 1,
            Step::Stop(_) => 2,
            Step::Twin(_) => 3,
            Step::Update(_) => 4,
            Step::DeleteKey(_) => 5,
            Step::RevokeLease(_) => 6,
            Step::SilentDies(_) => 7,
            Step::SilentLeaves(_) => 8,
            Step::Way(_, Fault::Cut) => 9,
            Step::Way(_, Fault::Delay(_)) => 10,
            Step::Way(_, Fault::Chop(_)) => 11,
            Step::Way(_, Fault::BlackHole) => 12,
            Step::Way(_, Fault::Refuse) => 13,
            Step::Way(_, Fault::Stall) => 14,
            Step::KillLeader => 15,
            Step::PauseLeader => 16,
            Step::KillTwo => 17,
            Step::PauseTwo => 18,
            Step::Compact => 19,
            Step::Wipe => 20,
            Step::Continue(_)
            | Step::Start(_)
            | Step::SilentStarts(_)
            | Step::Way(_, Fault::Pass)
            | Step::StartNodes
            | Step::ResumeNodes => return None,
        };
        Some(KINDS[kind])
    }
}

#[test]
fn a_script_repeats_and_leaves_nothing_out() {
    for seed in 0..300 {
        let length = Duration::from_secs(45 + seed % 90);
        let cues = script(seed, length);
        assert_eq!(cues, script(seed, length));
        assert!(cues.is_sorted_by_key(|cue| cue.after));
        let count = |kind| {
            let fits = cues.iter().filter(|cue| cue.step.kind() == Some(kind));
            fits.count()
        };
        for kind in KINDS {
            assert!(count(kind) > 0, "seed {seed}, {length:?}: no {kind}");
        }
        assert_eq!(count("wiped"), 1, "seed {seed}");
        assert_ne!(cues, script(seed + 1, length));
    }
}

/// Nobody is stopped for good, and no two faults have one member, or one way, at a time.
#[test]
fn what_a_script_breaks_it_mends() {
    for seed in 0..300 {
        let (mut stopped, mut broken) = ([false; MEMBERS], [false; GROUPS]);
        for Cue { step, after } in script(seed, Duration::from_secs(120)) {
            let at = format!("seed {seed}, {after:?}: {step:?}");
            match step {
                Step::Stop(member) => {
                    assert!(!std::mem::replace(&mut stopped[member], true), "{at}")
                }
                Step::Continue(member) => assert!(std::mem::take(&mut stopped[member]), "{at}"),
                Step::Kill(member) | Step::Terminate(member) | Step::Twin(member) => {
                    assert!(!stopped[member], "{at}");
                }
                Step::Way(way, Fault::Pass) => {
                    assert!(std::mem::take(&mut broken[way.group]), "{at}")
                }
                Step::Way(_, Fault::Cut) => {}
                Step::Way(way, _) => {
                    assert!(!std::mem::replace(&mut broken[way.group], true), "{at}");
                }
                _ => {}
            }
        }
        assert!(
            !stopped.contains(&true) && !broken.contains(&true),
            "seed {seed}"
        );
    }
}
