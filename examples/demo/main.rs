//! Headcount at work: five server processes join, change, leave, freeze and die, and a listener is
//! told of each. Nothing needs to be installed, and it takes ten seconds.
//!
//! ```text
//! cargo run --example demo
//! cargo run --example demo -- --endpoints http://127.0.0.1:2379     # on an etcd of your own
//! ```
//!
//! [`script`] is the story, [`member`] all that its servers do. The status is 0 if everything came
//! as it should, and nothing else; 1 if not; 130 after Ctrl-C.

mod cast;
#[path = "../common/mod.rs"]
mod common;
mod member;
mod script;
mod sighting;
mod stage;
mod tally;
mod timeline;

use std::process::ExitCode;
use std::time::{SystemTime, UNIX_EPOCH};

use headcount::embedded::Registry;
use headcount::{Builder, Cluster};
use lexopt::prelude::*;

use stage::{Stage, Stop};

const USAGE: &str = "\
demo: five server processes and a listener that is told what becomes of them.

  --endpoints URL,URL   use this etcd (default: HEADCOUNT_ENDPOINTS from the environment; without
                        either, a registry inside this process)

NO_COLOR=1 takes the colours away, RUST_LOG=headcount=debug shows what the library does.
";

/// Where the members meet: known to this process, and told to those that it starts.
#[derive(Clone)]
pub struct Place {
    endpoints: String,
    prefix: String,
}

impl Place {
    fn builder(&self) -> Builder {
        Cluster::builder()
            .endpoints(self.endpoints.split(',').map(str::trim))
            .prefix(&self.prefix)
    }
}

fn main() -> ExitCode {
    env_logger::init();
    let args = match Args::read() {
        Ok(args) => args,
        Err(error) => {
            eprintln!("{error}; --help tells what there is");
            return ExitCode::from(2);
        }
    };
    let done = match args {
        Args::Help => {
            print!("{USAGE}");
            return ExitCode::SUCCESS;
        }
        Args::Member { place, name } => member::run(&place, &name).map_err(|error| {
            eprintln!("{name}: {error}");
            ExitCode::FAILURE
        }),
        Args::Demo { endpoints } => demo(endpoints).map_err(|stop| match stop {
            Stop::Interrupted => {
                eprintln!("interrupted; no process is left behind");
                ExitCode::from(130)
            }
            Stop::NotAsExpected => ExitCode::FAILURE,
            Stop::Failed(error) => {
                eprintln!("{error}");
                ExitCode::FAILURE
            }
        }),
    };
    done.err().unwrap_or(ExitCode::SUCCESS)
}

fn demo(endpoints: Option<String>) -> Result<(), Stop> {
    let signals = common::signals();
    // Outlasts the stage, which is set up after it.
    let registry;
    let (store, endpoints) = match endpoints {
        Some(endpoints) => ("etcd", endpoints),
        None => {
            registry = Registry::start()?;
            ("registry in this process", registry.endpoint().to_owned())
        }
    };
    // One of its own for each run: what else is in that etcd neither disturbs nor is disturbed.
    let now = SystemTime::now().duration_since(UNIX_EPOCH);
    let now = now.unwrap_or_default().as_millis();
    let prefix = format!("demo-{}-{now:x}/", std::process::id());
    let place = Place { endpoints, prefix };
    let mut stage = Stage::open(place, store, signals)?;
    let played = script::play(&mut stage);
    stage.close(played)
}

enum Args {
    Help,
    Demo {
        endpoints: Option<String>,
    },
    /// For this program's own use: it starts itself as each of the members.
    Member {
        place: Place,
        name: String,
    },
}

impl Args {
    fn read() -> Result<Args, lexopt::Error> {
        let given = |endpoints: &String| !endpoints.is_empty();
        let mut endpoints = std::env::var("HEADCOUNT_ENDPOINTS").ok().filter(given);
        let (mut prefix, mut name) = (String::new(), None);
        let mut parser = lexopt::Parser::from_env();
        while let Some(argument) = parser.next()? {
            match argument {
                Long("help") | Short('h') => return Ok(Args::Help),
                Long("endpoints") => endpoints = Some(parser.value()?.string()?),
                Long("prefix") => prefix = parser.value()?.string()?,
                Long("member") => name = Some(parser.value()?.string()?),
                other => return Err(other.unexpected()),
            }
        }
        Ok(match name {
            None => Args::Demo { endpoints },
            Some(name) => {
                let endpoints = endpoints.ok_or("--member is for this program's own use")?;
                let place = Place { endpoints, prefix };
                Args::Member { place, name }
            }
        })
    }
}
