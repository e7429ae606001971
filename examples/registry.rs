//! The embedded registry alone, to try `watch`, `member` and curl against it by hand, without etcd.
//!
//! ```text
//! cargo run --example registry
//! cargo run --example registry -- --listen 127.0.0.1:0     # at a port that the kernel chooses
//! ```
//!
//! Its endpoint is the first line of its output. Ctrl-C ends it, and all that is in it is gone.

mod common;

use std::io::Write;
use std::net::{Ipv4Addr, SocketAddr};
use std::process::exit;

use common::OptionError;
use headcount::embedded::Registry;
use lexopt::prelude::*;

const USAGE: &str = "\
registry: an in-memory stand-in for etcd, for one machine.

  --listen ADDR         address and port (127.0.0.1:2379); port 0: one that is free
";

/// etcd's own port, so that the other examples find it without being told.
const USUAL: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(Ipv4Addr::LOCALHOST), 2379);

fn main() {
    env_logger::init();
    let address = listen().unwrap_or_else(|error| {
        eprintln!("{error}; --help tells what there is");
        exit(2);
    });
    let signals = common::signals();
    let registry = Registry::start_at(address).unwrap_or_else(|error| {
        common::fail(&format_args!(
            "{address}: {error} (--listen chooses another)"
        ))
    });
    if !address.ip().is_loopback() {
        eprintln!("Whoever can reach {address} can read and change everything in it.");
    }
    // Where nobody reads it, it is still there to be used.
    let _ = introduce(registry.endpoint());
    let _ = signals.recv();
}

fn listen() -> Result<SocketAddr, OptionError> {
    let mut address = USUAL;
    let mut parser = lexopt::Parser::from_env();
    while let Some(argument) = parser.next()? {
        match argument {
            Long("help") | Short('h') => {
                print!("{USAGE}");
                exit(0);
            }
            Long("listen") => address = parser.value()?.parse()?,
            other => return Err(other.unexpected()),
        }
    }
    Ok(address)
}

fn introduce(endpoint: &str) -> std::io::Result<()> {
    // "pitaya/servers-" to "pitaya/servers0", in base64.
    let range = r#"{"key":"cGl0YXlhL3NlcnZlcnMt","range_end":"cGl0YXlhL3NlcnZlcnMw"}"#;
    let mut out = std::io::stdout().lock();
    writeln!(
        out,
        "{endpoint}

In other terminals:
  cargo run --example watch -- --endpoints {endpoint}
  cargo run --example member -- --endpoints {endpoint} --type gate --id gate-1
  curl {endpoint}/v3/kv/range -d '{range}'

Ctrl-C ends it."
    )?;
    out.flush()
}
