//! Where an endpoint is: its host name, looked up.
//!
//! The HTTP library asks before each request, whether or not it needs a connection. Here it is told
//! what was found before, and names are looked up once a minute, beside the requests; or when a
//! request failed, for the endpoint may have moved. So a name service that is slow, or away, costs
//! nothing while etcd is well (**G8**), and each name is looked up by one thread at a time.

use std::fmt;
use std::io;
use std::net::{IpAddr, SocketAddr, ToSocketAddrs};
use std::sync::Arc;
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, RecvTimeoutError, bounded};
use parking_lot::Mutex;
use ureq::config::Config;
use ureq::http::Uri;
use ureq::unversioned::resolver::{ResolvedSocketAddrs, Resolver};
use ureq::unversioned::transport::NextTimeout;

use super::endpoint::Endpoint;

/// So long what was found is told without a doubt.
const FRESH: Duration = Duration::from_secs(60);
/// So soon it is looked up again, where that failed and what was found before still serves.
const AGAIN: Duration = Duration::from_secs(5);

type Addresses = Vec<SocketAddr>;
type LookUp = dyn Fn() -> io::Result<Addresses> + Send + Sync;

/// The address of an endpoint, for the connections of one thread.
pub(super) enum Address {
    Given(SocketAddr),
    Named(Arc<LookUp>, Mutex<Found>),
}

#[derive(Default)]
pub(super) struct Found {
    addresses: Addresses,
    /// When to look again.
    due: Option<Instant>,
    /// A request has failed there.
    doubtful: bool,
    /// A look-up that is under way.
    asked: Option<Receiver<io::Result<Addresses>>>,
}

impl Address {
    pub fn new(endpoint: &Endpoint) -> Arc<Self> {
        let host = endpoint.host.trim_matches(['[', ']']).to_owned();
        let port = endpoint.port;
        Arc::new(match host.parse::<IpAddr>() {
            Ok(ip) => Address::Given(SocketAddr::new(ip, port)),
            Err(_) => Address::named(move || Ok((&*host, port).to_socket_addrs()?.collect())),
        })
    }

    fn named(look_up: impl Fn() -> io::Result<Addresses> + Send + Sync + 'static) -> Self {
        Address::Named(Arc::new(look_up), Mutex::default())
    }

    /// A request failed there.
    pub fn doubt(&self) {
        if let Address::Named(_, found) = self {
            found.lock().doubtful = true;
        }
    }

    /// At least one. Waits for a look-up only where there is nothing else to tell, or it is doubtful.
    pub fn find(&self, within: Duration) -> Result<Addresses, NotFound> {
        match self {
            Address::Given(address) => Ok(vec![*address]),
            Address::Named(look_up, found) => found.lock().find(look_up, within, Instant::now()),
        }
    }
}

/// Why there is no address.
#[derive(Debug)]
pub(super) enum NotFound {
    Late,
    Failed(io::Error),
}

impl Found {
    fn find(
        &mut self,
        look_up: &Arc<LookUp>,
        within: Duration,
        now: Instant,
    ) -> Result<Addresses, NotFound> {
        let fresh = self.due.is_some_and(|due| now < due);
        if fresh && !self.doubtful {
            return Ok(self.addresses.clone());
        }
        let wait = match self.addresses.is_empty() || self.doubtful {
            true => within,
            false => Duration::ZERO,
        };
        let failure = match self.look(look_up, wait) {
            Ok(addresses) => {
                self.addresses = addresses;
                (self.due, self.doubtful) = (Some(now + FRESH), false);
                return Ok(self.addresses.clone());
            }
            Err(failure) => failure,
        };
        if self.addresses.is_empty() {
            return Err(failure);
        }
        if let NotFound::Failed(error) = &failure {
            log::debug!(
                "looking up an endpoint: {error}; it is {:?} as before",
                self.addresses
            );
            self.due = Some(now + AGAIN);
        }
        self.doubtful = false;
        Ok(self.addresses.clone())
    }

    fn look(&mut self, look_up: &Arc<LookUp>, wait: Duration) -> Result<Addresses, NotFound> {
        let asked = match self.asked.take() {
            Some(asked) => asked,
            None => ask(Arc::clone(look_up)).map_err(NotFound::Failed)?,
        };
        match asked.recv_timeout(wait) {
            Ok(Ok(addresses)) if addresses.is_empty() => {
                let none = io::Error::new(io::ErrorKind::NotFound, "it has no address");
                Err(NotFound::Failed(none))
            }
            Ok(answer) => answer.map_err(NotFound::Failed),
            Err(RecvTimeoutError::Timeout) => {
                self.asked = Some(asked);
                Err(NotFound::Late)
            }
            Err(RecvTimeoutError::Disconnected) => Err(NotFound::Failed(io::Error::other(
                "looking up its name panicked",
            ))),
        }
    }
}

/// The system's look-up can't be interrupted: a thread of its own, which ends with it.
fn ask(look_up: Arc<LookUp>) -> io::Result<Receiver<io::Result<Addresses>>> {
    let (tell, told) = bounded(1);
    let thread = std::thread::Builder::new().name("headcount-names".into());
    // Whoever asked may have ended.
    thread.spawn(move || drop(tell.send(look_up())))?;
    Ok(told)
}

/// Tells the HTTP library, under whatever name TLS is to check.
#[derive(Debug)]
pub(super) struct At(pub Arc<Address>);

impl Resolver for At {
    fn resolve(
        &self,
        _asked: &Uri,
        _config: &Config,
        timeout: NextTimeout,
    ) -> Result<ResolvedSocketAddrs, ureq::Error> {
        let found = self.0.find(*timeout.after).map_err(|e| match e {
            NotFound::Late => ureq::Error::Timeout(timeout.reason),
            NotFound::Failed(error) => ureq::Error::Io(error),
        })?;
        let mut addresses = self.empty();
        // It has room for so many.
        found.into_iter().take(16).for_each(|at| addresses.push(at));
        Ok(addresses)
    }
}

impl fmt::Debug for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Address::Given(address) => write!(f, "{address}"),
            Address::Named(_, found) => write!(f, "{:?}", found.lock().addresses),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

    use super::*;

    const LONG: Duration = Duration::from_secs(20);

    fn at(port: u16) -> Addresses {
        vec![SocketAddr::from(([127, 0, 0, 1], port))]
    }

    /// What the name service answers: each look-up takes the next, and waits for it.
    fn scripted() -> (
        Arc<LookUp>,
        crossbeam_channel::Sender<io::Result<Addresses>>,
        Arc<AtomicUsize>,
    ) {
        let (answer, answers) = bounded(8);
        let asked = Arc::new(AtomicUsize::new(0));
        let count = Arc::clone(&asked);
        let look_up = move || {
            count.fetch_add(1, Relaxed);
            answers.recv().expect("the test goes on")
        };
        (Arc::new(look_up), answer, asked)
    }

    #[test]
    fn g8_a_name_service_that_is_away_changes_nothing() {
        let (look_up, answer, asked) = scripted();
        let mut found = Found::default();
        let start = Instant::now();
        let find = |found: &mut Found, within, after| found.find(&look_up, within, start + after);
        let (none, second) = (Duration::ZERO, Duration::from_secs(1));

        // Nothing known, and no answer: late, and it is not asked twice.
        for _ in 0..3 {
            let late = find(&mut found, none, none);
            assert!(matches!(late, Err(NotFound::Late)), "{late:?}");
        }
        answer.send(Ok(at(1))).unwrap();
        assert_eq!(find(&mut found, LONG, none).unwrap(), at(1));
        assert_eq!(asked.load(Relaxed), 1);
        // For a minute without asking.
        assert_eq!(find(&mut found, none, FRESH - second).unwrap(), at(1));
        assert_eq!(asked.load(Relaxed), 1);
        // Then beside the requests, which don't wait.
        assert_eq!(find(&mut found, LONG, FRESH).unwrap(), at(1));
        answer
            .send(Err(io::Error::other("no name service")))
            .unwrap();
        found.doubtful = true;
        assert_eq!(find(&mut found, LONG, FRESH).unwrap(), at(1), "as before");
        assert_eq!(asked.load(Relaxed), 2);
        assert_eq!(
            find(&mut found, none, FRESH + AGAIN - second).unwrap(),
            at(1)
        );
        assert_eq!(asked.load(Relaxed), 2);
        // It has moved: a request fails, and the next finds it.
        answer.send(Ok(at(2))).unwrap();
        found.doubtful = true;
        assert_eq!(find(&mut found, LONG, FRESH + second).unwrap(), at(2));
    }

    #[test]
    fn a_name_without_address_is_an_error() {
        let named = Address::named(|| Ok(vec![]));
        let error = named.find(LONG).unwrap_err();
        assert!(matches!(error, NotFound::Failed(_)), "{error:?}");
        let named = Address::named(|| panic!("in the system's library"));
        let error = named.find(LONG).unwrap_err();
        assert!(matches!(error, NotFound::Failed(_)), "{error:?}");
    }

    #[test]
    fn an_address_is_not_looked_up() {
        for (url, wanted) in [
            ("http://127.0.0.1:5", "127.0.0.1:5"),
            ("http://[::1]:5", "[::1]:5"),
        ] {
            let address = Address::new(&Endpoint::parse(url, false).unwrap());
            assert_eq!(
                address.find(Duration::ZERO).unwrap(),
                [wanted.parse().unwrap()]
            );
        }
        let named = Address::new(&Endpoint::parse("localhost:5", false).unwrap());
        assert!(!named.find(LONG).unwrap().is_empty());
    }
}
