//! Watches a cluster and prints what happens in it.
//!
//! ```text
//! cargo run --example watch
//! cargo run --example member -- --type gate --id 1      # in another terminal
//! ```
//!
//! Shows everybody who is there, then every change as it comes; Ctrl-C prints the last view. With
//! `--json` it is one object a line. With `--delay-ms 500 --capacity 1` it is a slow listener: see
//! how what it misses is folded, and that it ends at the true view all the same.

mod common;

use std::time::{Duration, SystemTime};

use common::{OptionError, output};
use crossbeam_channel::{RecvTimeoutError, after, bounded, never, select};
use headcount::Options;
use lexopt::prelude::*;

const USAGE: &str = "\
watch: prints who joins, leaves and dies.

  --type T              only members of this type (may be repeated)
  --exclude-type T      all but members of this type (may be repeated)
  --capacity N          size of the channel (1024)
  --delay-ms N          be slow on purpose: wait so long after each event
  --for SECONDS         end by itself
  --json                one JSON object a line
";

fn main() {
    let (mut only, mut except) = (Vec::new(), Vec::new());
    let mut listening = Options::new().name("watch");
    let mut delay = Duration::ZERO;
    let mut end = never();
    let mut json = false;
    let builder = common::options(USAGE, |name, parser| {
        match name {
            "type" => only.push(parser.value()?.string()?),
            "exclude-type" => except.push(parser.value()?.string()?),
            "capacity" => {
                let events = parser.value()?.parse()?;
                listening = listening.clone().capacity(events);
            }
            "delay-ms" => delay = Duration::from_millis(parser.value()?.parse()?),
            "for" => end = after(seconds(parser.value()?.parse()?)?),
            "json" => json = true,
            _ => return Ok(false),
        }
        Ok(true)
    });
    let signals = common::signals();
    let builder = only.into_iter().fold(builder, |b, t| b.only_type(t));
    let builder = except.into_iter().fold(builder, |b, t| b.except_type(t));
    // At the end a listener that lags should get all that waits for it.
    let cluster = common::start(builder.drain_timeout(Duration::from_secs(10)));
    let events = cluster.subscribe_with(listening);

    // Leaving closes the channel once what waits has been read: so the loop below must go on
    // meanwhile, and this happens beside it.
    let (in_a_hurry, hurry) = bounded::<()>(0);
    let leaving = std::thread::spawn(move || {
        select! {
            recv(signals) -> _ => {}
            recv(end) -> _ => {}
        }
        drop(in_a_hurry);
        let queues = cluster.stats().listeners;
        // An observer has nobody to tell that it goes.
        let _ = cluster.leave();
        (cluster, queues)
    });
    for event in &events {
        output::event(&event, SystemTime::now(), json);
        if !delay.is_zero() && hurry.recv_timeout(delay) == Err(RecvTimeoutError::Disconnected) {
            delay = Duration::ZERO;
        }
    }
    let (cluster, queues) = leaving.join().expect("leaving does not panic");
    output::view(&cluster, queues, json);
}

fn seconds(number: f64) -> Result<Duration, OptionError> {
    Duration::try_from_secs_f64(number).map_err(|error| format!("--for: {error}").into())
}
