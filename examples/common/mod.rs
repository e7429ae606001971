//! What the examples share: the options that lead to etcd, signals, and how events are written.

// Every example is a crate of its own and uses only a part of this.
#![allow(dead_code)]

pub mod output;

use std::process::exit;
use std::sync::Arc;
use std::time::Duration;

use crossbeam_channel::{Receiver, bounded};
use headcount::{Builder, Cluster, Error, Tls};
use lexopt::prelude::*;
pub use lexopt::{Error as OptionError, Parser};

const CONNECTION: &str = "\
Where etcd is:
  --endpoints URL,URL   etcd's client URLs (http://127.0.0.1:2379)
  --prefix P            what all keys begin with (pitaya/)
  --user U              with the password in HEADCOUNT_PASSWORD
  --ca F                trust the issuers in this PEM file       (feature `tls`)
  --cert F --key F      client certificate and its key, PEM      (feature `tls`)

Set RUST_LOG=headcount=debug to see what it does.
";

/// Reads the command line: the connection's options into a builder, all others by `own`, which
/// says whether it knows the one that it is given. What it can't read ends the program with a
/// sentence.
pub fn options(
    usage: &str,
    own: impl FnMut(&str, &mut Parser) -> Result<bool, OptionError>,
) -> Builder {
    env_logger::init();
    match read(usage, own) {
        Ok(builder) => builder,
        Err(error) => {
            eprintln!("{error}; --help tells what there is");
            exit(2);
        }
    }
}

fn read(
    usage: &str,
    mut own: impl FnMut(&str, &mut Parser) -> Result<bool, OptionError>,
) -> Result<Builder, OptionError> {
    let mut builder = Cluster::builder();
    let (mut ca, mut cert, mut key) = (None, None, None);
    let mut parser = Parser::from_env();
    while let Some(argument) = parser.next()? {
        let name = match argument {
            Long("help") | Short('h') => {
                print!("{usage}\n{CONNECTION}");
                exit(0);
            }
            Long(name) => name.to_owned(),
            other => return Err(other.unexpected()),
        };
        match &*name {
            "endpoints" => {
                let all = parser.value()?.string()?;
                builder = builder.endpoints(all.split(',').map(str::trim));
            }
            "prefix" => builder = builder.prefix(parser.value()?.string()?),
            "user" => {
                let password = std::env::var("HEADCOUNT_PASSWORD")
                    .map_err(|_| "--user needs the password in HEADCOUNT_PASSWORD")?;
                builder = builder.credentials(parser.value()?.string()?, password);
            }
            "ca" => ca = Some(parser.value()?),
            "cert" => cert = Some(parser.value()?),
            "key" => key = Some(parser.value()?),
            _ if own(&name, &mut parser)? => {}
            _ => return Err(Long(&name).unexpected()),
        }
    }
    let mut tls = Tls::new();
    let wanted = ca.is_some() || cert.is_some();
    if let Some(ca) = ca {
        tls = tls.ca_file(ca);
    }
    match (cert, key) {
        (Some(cert), Some(key)) => tls = tls.identity(cert, key),
        (None, None) => {}
        _ => return Err("--cert and --key go together".into()),
    }
    if wanted {
        builder = builder.tls(tls);
    }
    Ok(builder)
}

/// `K=V`, split.
pub fn pair(text: &str) -> Result<(String, String), OptionError> {
    let pair = text
        .split_once('=')
        .filter(|(key, _)| !key.trim().is_empty());
    let (key, value) = pair.ok_or_else(|| format!("{text:?} is not KEY=VALUE"))?;
    Ok((key.trim().to_owned(), value.to_owned()))
}

/// Says something at SIGINT or SIGTERM. A second one ends the program at once.
pub fn signals() -> Receiver<()> {
    let (tell, told) = bounded(1);
    let installed = ctrlc::set_handler(move || {
        if tell.try_send(()).is_err() {
            exit(130);
        }
    });
    installed.expect("no other handler is set");
    told
}

/// Ends the program with the error's sentence.
pub fn fail(error: &dyn std::fmt::Display) -> ! {
    eprintln!("{error}");
    exit(1);
}

/// Starts without waiting for etcd, so that a signal is heard from the first moment on; but what
/// no waiting can mend ends the program, as long as it has not been ready. Not a conflict: the
/// listener hears of that one, and says what becomes of it.
pub fn start(builder: Builder) -> Arc<Cluster> {
    let cluster = builder.start_without_store().start();
    let cluster = Arc::new(cluster.unwrap_or_else(|error| fail(&error)));
    let watched = Arc::clone(&cluster);
    std::thread::spawn(move || {
        let mut hopeless = None;
        let beyond_waiting =
            |error: &Error| error.is_setup() && !matches!(error, Error::Conflict { .. });
        let settled = |_: &[_]| {
            hopeless = watched.last_error().filter(beyond_waiting);
            hopeless.is_some() || watched.is_synced()
        };
        watched.wait_for(settled, Duration::from_secs(24 * 3600));
        if let Some(error) = hopeless {
            fail(&error);
        }
    });
    cluster
}
