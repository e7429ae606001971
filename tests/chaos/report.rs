//! What is said at the end, and what is kept where it ended badly.

use std::fmt::Write;
use std::fs;
use std::path::PathBuf;

use super::script::Cue;
use crate::history::{Deed, History, Log, Whom};

/// Everything that is needed to find out what went wrong, in a folder that outlives the test.
pub struct Evidence<'a> {
    pub seed: u64,
    pub script: &'a [Cue],
    pub history: &'a History,
    /// Standard errors of the members, by handle.
    pub complaints: &'a [(String, String)],
    pub etcd: Vec<String>,
}

const HISTORY: &str = "history.json";

/// What such a folder holds for the judge.
#[track_caller]
pub fn kept(folder: &str) -> History {
    let text = fs::read_to_string(PathBuf::from(folder).join(HISTORY)).expect("a kept history");
    serde_json::from_str(&text).expect("a history")
}

impl Evidence<'_> {
    pub fn keep(&self) -> PathBuf {
        let folder =
            PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join(format!("chaos-{}", self.seed));
        let _ = fs::remove_dir_all(&folder);
        fs::create_dir_all(&folder).expect("a folder for the evidence");
        let write = |name: &str, text: String| {
            fs::write(folder.join(name), text).expect("the evidence is written");
        };
        let lines = |lines: &mut dyn Iterator<Item = String>| lines.collect::<String>();
        write(
            "script",
            lines(
                &mut self
                    .script
                    .iter()
                    .map(|cue| format!("{:?} {:?}\n", cue.after, cue.step)),
            ),
        );
        let deeds = self.history.deeds.all.iter();
        write(
            "deeds",
            lines(&mut deeds.map(|deed| format!("{} {}\n", deed.at, told(&deed.what)))),
        );
        write("truth", self.truth());
        let history = serde_json::to_string(self.history);
        write(HISTORY, history.expect("plain data"));
        for log in &self.history.logs {
            let name = format!("{} {}", log.handle, log.listener);
            write(&format!("log {}", name.replace('/', "-")), text(log));
        }
        let answers = self.history.answers.iter();
        write("answers", lines(&mut answers.map(|a| format!("{a:?}\n"))));
        for (handle, complaint) in self.complaints {
            write(
                &format!("stderr {}", handle.replace('/', "-")),
                complaint.clone(),
            );
        }
        for (node, log) in self.etcd.iter().enumerate() {
            write(&format!("etcd {node}"), log.clone());
        }
        folder
    }

    fn truth(&self) -> String {
        let mut text = String::new();
        for epoch in &self.history.truth.epochs {
            let _ = writeln!(text, "epoch {:x}, to {}", epoch.cluster_id, epoch.read_to);
            for change in &epoch.changes {
                let (at, revision, key) = (change.at, change.revision, &change.key);
                let _ = writeln!(text, "{at} {revision} {key} {:?}", change.act);
            }
        }
        text
    }
}

fn told(deed: &Deed) -> String {
    match deed {
        Deed::Cut { whom } => format!("Cut {}", names(whom)),
        Deed::Healed { whom } => format!("Healed {}", names(whom)),
        other => format!("{other:?}"),
    }
}

fn names(whom: &Whom) -> String {
    match whom {
        Whom::Everybody => "everybody".into(),
        Whom::These(names) => names.join(", "),
    }
}

fn text(log: &Log) -> String {
    let mut text = String::new();
    for entry in &log.entries {
        let _ = writeln!(text, "{} {}", entry.at, entry.what);
    }
    text
}
