use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::OnceLock;

use crate::support::process::example;

pub type Version = (u32, u32, u32);

/// What `HEADCOUNT_ETCD` says where the embedded registry stands in for etcd: the example
/// `registry`, as a process of its own, so that it can be killed and paused as etcd is.
const EMBEDDED: &str = "embedded";

pub fn is_embedded() -> bool {
    std::env::var_os("HEADCOUNT_ETCD").is_some_and(|value| value == EMBEDDED)
}

/// The etcd to test with. There is always one: a test that skips itself proves nothing.
pub fn default_binary() -> &'static (PathBuf, Version) {
    static FOUND: OnceLock<(PathBuf, Version)> = OnceLock::new();
    FOUND.get_or_init(|| {
        if is_embedded() {
            // The version whose replies it gives.
            return (example("registry"), (3, 5, 16));
        }
        if let Some(path) = std::env::var_os("HEADCOUNT_ETCD").filter(|path| !path.is_empty()) {
            let path = PathBuf::from(path);
            let version = version_of(&path).unwrap_or_else(|| {
                panic!(
                    "HEADCOUNT_ETCD={} is no etcd that runs here",
                    path.display()
                )
            });
            return (path, version);
        }
        let root = Path::new(env!("CARGO_MANIFEST_DIR"));
        let target = std::env::var_os("CARGO_TARGET_DIR").map(PathBuf::from);
        // Where this test was built, too: cargo has more ways than one to choose the folder.
        let exe = std::env::current_exe().unwrap_or_default();
        let built = exe.ancestors().nth(3).map(Path::to_path_buf);
        let targets = target.into_iter().chain(built).chain([root.join("target")]);
        targets
            .flat_map(|dir| ["new", "old"].map(|slot| dir.join("etcd").join(slot).join("etcd")))
            .chain([PathBuf::from("etcd")])
            .find_map(|path| version_of(&path).map(|version| (path, version)))
            .expect("no etcd to test with: run tests/etcd.sh, or set HEADCOUNT_ETCD to one")
    })
}

pub fn version_of(binary: &Path) -> Option<Version> {
    let output = Command::new(binary)
        .arg("--version")
        .stdin(Stdio::null())
        .output()
        .ok()?;
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let version = text
        .lines()
        .find_map(|line| line.strip_prefix("etcd Version: "))?;
    // A build may carry a suffix: 3.6.0-rc.1, 3.5.16+dfsg.
    let mut parts = version.split(|c: char| !c.is_ascii_digit()).map(str::parse);
    let mut part = || parts.next()?.ok();
    Some((part()?, part()?, part()?))
}
