//! The jobs, as each candidate without an async runtime does them; see [`crate::child`].

mod client;
pub mod fanout;
mod headcount;
mod members;
mod minimal;
mod raw;
mod shared;

use shared::Args;
pub use shared::{WARM, now};

pub fn run(args: Vec<String>) {
    let (job, who) = (args[0].clone(), args[1].clone());
    let args = Args::new(&args[2..]);
    match (job.as_str(), who.as_str()) {
        ("watch", "raw") => raw::watch(&args),
        ("watch", "minimal") => minimal::watch(&args),
        ("watch", "headcount") => headcount::watch(&args),
        ("list", "raw") => raw::list(&args),
        ("list", "minimal") => minimal::list(&args),
        ("list", "headcount") => headcount::list(&args),
        ("burst", "headcount") => fanout::burst(&args),
        ("single", "headcount") => fanout::single(&args),
        ("members", "headcount") => members::run(&args),
        _ => panic!("nobody called {who} does {job}"),
    }
}
