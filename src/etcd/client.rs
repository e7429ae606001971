//! One request: to which endpoint, with which token, how long.

use std::io::{self, ErrorKind};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use serde::Serialize;
use ureq::http::Response;
use ureq::{Agent, Body};

use super::address::{Address, At};
use super::auth::{Auth, Credentials, read_token};
use super::endpoint::Endpoint;
use super::failure::{Failure, line, refusal, transport};
use super::last_words;
use super::probe;
use super::tls::TlsMaterial;
use crate::error::Error;

/// What all clients of one cluster handle have in common.
pub(crate) struct Shared {
    pub endpoints: Vec<Endpoint>,
    pub connect_timeout: Duration,
    /// Bound on a reply's, or a frame's, size in bytes.
    pub max_frame_bytes: usize,
    /// Which endpoints have ever answered in HTTP.
    spoke: Vec<AtomicBool>,
    auth: Auth,
    tls: Option<TlsMaterial>,
}

impl Shared {
    pub fn new(
        endpoints: Vec<Endpoint>,
        connect_timeout: Duration,
        max_frame_bytes: usize,
        credentials: Option<Credentials>,
        tls: Option<TlsMaterial>,
    ) -> Self {
        let auth = Auth::new(credentials);
        let spoke = endpoints.iter().map(|_| AtomicBool::new(false)).collect();
        Shared {
            endpoints,
            spoke,
            connect_timeout,
            max_frame_bytes,
            auth,
            tls,
        }
    }
}

/// Connections of one thread's own: shutting them down unblocks that thread and no other.
pub(crate) struct Client {
    pub(super) shared: Arc<Shared>,
    agents: Vec<Agent>,
    addresses: Vec<Arc<Address>>,
    /// The endpoint that worked last.
    current: AtomicUsize,
    stopped: AtomicBool,
}

/// How a request fared at one endpoint.
pub(super) struct Answer {
    pub endpoint: Arc<str>,
    pub response: Response<Body>,
    /// The setting that bounds the wait for the rest, and how long that is.
    silence: (&'static str, Duration),
}

/// Time-outs of one try.
#[derive(Clone, Copy)]
pub(super) struct Limits {
    /// For resolving the name, and again for connecting.
    pub connect: Duration,
    /// For sending the request, and again until the answer's first byte.
    pub answer: Duration,
    /// For everything; `None` for a stream.
    pub total: Option<Duration>,
    /// Between two reads of the body.
    pub read: Option<Duration>,
    /// For a stream: when the server is to end it.
    pub period: Option<Duration>,
    /// The setting that bounds `answer`, for the error.
    pub setting: &'static str,
}

impl Limits {
    /// What is left of them.
    fn after(&self, spent: Duration) -> Limits {
        // Zero is no time-out that a socket takes.
        let left = |limit: Duration| limit.saturating_sub(spent).max(Duration::from_millis(1));
        Limits {
            connect: left(self.connect),
            answer: left(self.answer),
            total: self.total.map(left),
            ..*self
        }
    }
}

impl Client {
    pub fn new(shared: Arc<Shared>) -> Self {
        let addresses = shared.endpoints.iter().map(Address::new).collect();
        // Processes that start together should not all crowd on the first endpoint.
        let current = crate::jitter::below(shared.endpoints.len());
        Client::at(shared, addresses, current)
    }

    fn at(shared: Arc<Shared>, addresses: Vec<Arc<Address>>, current: usize) -> Self {
        let agents = addresses.iter().map(|at| agent(&shared, at)).collect();
        Client {
            shared,
            agents,
            addresses,
            current: AtomicUsize::new(current),
            stopped: AtomicBool::new(false),
        }
    }

    /// Ends what is under way, at once, and refuses what comes.
    pub fn shutdown(&self) {
        self.stopped.store(true, Ordering::Relaxed);
        for agent in &self.agents {
            agent.clone().shutdown();
        }
    }

    /// Fresh connections, beginning with the endpoint that worked last.
    pub fn anew(&self) -> Self {
        let current = self.current.load(Ordering::Relaxed);
        Client::at(Arc::clone(&self.shared), self.addresses.clone(), current)
    }

    /// How many endpoints there are to try.
    pub fn endpoints(&self) -> usize {
        self.agents.len()
    }

    /// The next request goes to another endpoint first.
    pub fn rotate(&self) {
        let next = (self.current.load(Ordering::Relaxed) + 1) % self.agents.len();
        self.current.store(next, Ordering::Relaxed);
    }

    /// The endpoint that the next request goes to first.
    pub fn current(&self) -> &Arc<str> {
        &self.shared.endpoints[self.current.load(Ordering::Relaxed)].url
    }

    /// One request and its reply, within `budget` altogether. Endpoints that can't answer are
    /// passed by; each but the last one tried costs no more than `connect_timeout`, nor than its
    /// share of what is left.
    pub(super) fn call<T>(
        &self,
        path: &'static str,
        request: &impl Serialize,
        budget: Duration,
        read: impl Fn(&[u8]) -> Result<T, serde_json::Error>,
    ) -> Result<T, Failure> {
        let body = serde_json::to_vec(request).expect("requests are plain data");
        let deadline = Instant::now() + budget;
        let count = self.agents.len();
        let mut failure = None;
        // A lone endpoint gets a second try: the first may have hit a connection that the server
        // had closed while it was idle.
        for attempt in 0..count.max(2) {
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                break;
            }
            let untried = count.saturating_sub(attempt).max(1) as u32;
            let (answer, setting) = match untried {
                1 => (left, "request_timeout"),
                _ => (
                    self.shared.connect_timeout.min(left / untried),
                    "connect_timeout",
                ),
            };
            let limits = Limits {
                connect: self.shared.connect_timeout.min(answer),
                answer,
                total: Some(left),
                read: None,
                period: None,
                setting,
            };
            match self
                .ask(path, &body, limits)
                .and_then(|answer| self.reply(path, answer, &read))
            {
                Ok(value) => return Ok(value),
                Err(Failure::Elsewhere(error)) => {
                    self.rotate();
                    let again = count > 1 || matches!(error, Error::Unreachable { .. });
                    // What is wrong with the set-up is worth more than that others are down.
                    if failure.is_none() || error.is_setup() {
                        failure = Some(error);
                    }
                    if !again || attempt + 1 == count.max(2) {
                        break;
                    }
                }
                Err(failure) => return Err(failure),
            }
        }
        Err(Failure::Elsewhere(failure.unwrap_or_else(|| {
            Error::Timeout {
                endpoint: Arc::clone(self.current()),
                limit: "request_timeout",
                after: budget,
            }
        })))
    }

    /// One try at the current endpoint, logging in once more where etcd asks for it; all within
    /// `limits`.
    pub(super) fn ask(
        &self,
        path: &'static str,
        body: &[u8],
        limits: Limits,
    ) -> Result<Answer, Failure> {
        let auth = &self.shared.auth;
        let started = Instant::now();
        let left = || limits.after(started.elapsed());
        let once = || {
            let limits = left();
            let token = auth.token(limits.answer, |who| self.login(who, limits))?;
            let answer = self.post(path, body, token.as_deref(), left());
            if let Err(Failure::Unauthenticated) = &answer {
                auth.refused(token.as_ref());
            }
            answer
        };
        match once() {
            Err(Failure::Unauthenticated) if auth.has_credentials() => match once() {
                Err(Failure::Unauthenticated) => {
                    let reason = "etcd refuses a token that it has just given".into();
                    Err(Failure::Elsewhere(Error::Protocol { reason }))
                }
                other => other,
            },
            Err(Failure::Unauthenticated) => Err(Failure::Final(Error::CredentialsNeeded)),
            other => other,
        }
    }

    /// The stream says that our token is no good (any more).
    pub(super) fn token_refused(&self) -> Failure {
        match self.shared.auth.has_credentials() {
            true => {
                self.shared.auth.expire();
                Failure::TokenExpired
            }
            false => Failure::Final(Error::CredentialsNeeded),
        }
    }

    fn post(
        &self,
        path: &'static str,
        body: &[u8],
        token: Option<&str>,
        limits: Limits,
    ) -> Result<Answer, Failure> {
        let at = self.current.load(Ordering::Relaxed);
        let shared = &self.shared;
        let endpoint = Arc::clone(&shared.endpoints[at].url);
        let connect = limits.connect;
        let started = Instant::now();
        let mut request = self.agents[at]
            .post(url(shared, at, path))
            .config()
            .timeout_resolve(Some(connect))
            .timeout_connect(Some(connect))
            .timeout_send_request(Some(limits.answer))
            .timeout_send_body(Some(limits.answer))
            .timeout_recv_response(Some(limits.answer))
            .timeout_per_read(limits.read)
            .timeout_global(limits.total)
            .build()
            .header("Content-Type", "application/json");
        if let Some(token) = token {
            request = request.header("Authorization", token);
        }
        if let Some(period) = limits.period {
            request = request
                // Without a leader the stream ends, in place of going silent.
                .header("Grpc-Metadata-hasleader", "true")
                .header("Grpc-Timeout", format!("{}m", period.as_millis()));
        }
        let silence = (limits.setting, limits.answer);
        let mut response = request.send(body).map_err(|e| {
            self.addresses[at].doubt();
            // Whoever asks has no more time than that.
            let until = started + limits.answer.min(shared.connect_timeout);
            match self.is_wrong_scheme(at, &e, until) {
                true => Failure::Elsewhere(Error::WrongScheme {
                    endpoint: Arc::clone(&endpoint),
                }),
                false => transport(&endpoint, e, silence, connect),
            }
        })?;
        shared.spoke[at].store(true, Ordering::Relaxed);
        let status = response.status().as_u16();
        log::trace!(
            "POST {endpoint}{path}: {status} after {:?}",
            started.elapsed()
        );
        if status == 200 {
            return Ok(Answer {
                endpoint,
                response,
                silence,
            });
        }
        let text = response
            .body_mut()
            .with_config()
            .limit(64 * 1024)
            .read_to_vec();
        Err(refusal(
            &endpoint,
            status,
            &text.unwrap_or_default(),
            name(path),
        ))
    }

    /// Whether `error` came of plain HTTP to a TLS port, or of TLS to a plain one: etcd then hangs
    /// up without a word. One that has ever answered has other reasons to. Where it can't be found
    /// out before `until`: no.
    fn is_wrong_scheme(&self, at: usize, error: &ureq::Error, until: Instant) -> bool {
        let ended = |e: &io::Error| last_words::hung_up(e) || e.kind() == ErrorKind::UnexpectedEof;
        let hung_up = matches!(error, ureq::Error::Io(e) if ended(e));
        // Or it was us who hung up.
        let ours = self.stopped.load(Ordering::Relaxed);
        if ours || !hung_up || self.shared.spoke[at].load(Ordering::Relaxed) {
            return false;
        }
        let endpoint = &self.shared.endpoints[at];
        let left = || until.saturating_duration_since(Instant::now());
        let found = self.addresses[at].find(left());
        let address = found.ok().and_then(|found| found.first().copied());
        let speaks = match endpoint.secure {
            true => probe::speaks_http,
            false => probe::speaks_tls,
        };
        address.is_some_and(|address| speaks(&address, left()).unwrap_or(false))
    }

    /// Reads a whole reply.
    fn reply<T>(
        &self,
        path: &'static str,
        mut answer: Answer,
        read: impl Fn(&[u8]) -> Result<T, serde_json::Error>,
    ) -> Result<T, Failure> {
        let limit = self.shared.max_frame_bytes;
        let body = answer
            .response
            .body_mut()
            .with_config()
            .limit(limit as u64)
            .read_to_vec();
        let bytes = body.map_err(|e| match e {
            ureq::Error::BodyExceedsLimit(_) => Failure::Final(Error::TooLarge { limit }),
            other => {
                let connect = self.shared.connect_timeout;
                transport(&answer.endpoint, other, answer.silence, connect)
            }
        })?;
        read(&bytes).map_err(|e| {
            let what = line(&e.to_string());
            let reason = format!("reply of {} to {}: {what}", answer.endpoint, name(path));
            Failure::Elsewhere(Error::Protocol { reason })
        })
    }

    fn login(&self, credentials: &Credentials, limits: Limits) -> Result<Arc<str>, Failure> {
        #[derive(Serialize)]
        struct Login<'a> {
            name: &'a str,
            password: &'a str,
        }
        let login = Login {
            name: &credentials.user,
            password: &credentials.password,
        };
        let body = serde_json::to_vec(&login).expect("requests are plain data");
        const PATH: &str = "/v3/auth/authenticate";
        let limits = Limits {
            total: Some(limits.answer),
            read: None,
            period: None,
            ..limits
        };
        let answer = self.post(PATH, &body, None, limits)?;
        let token = self.reply(PATH, answer, read_token)?;
        log::debug!("logged in to etcd as {:?}", credentials.user);
        Ok(token)
    }
}

fn agent(shared: &Shared, address: &Arc<Address>) -> Agent {
    #[allow(unused_mut)]
    let mut config = Agent::config_builder()
        // A gateway is asked directly, whatever HTTP_PROXY says.
        .proxy(None)
        .max_redirects(0)
        // etcd's reason is in the body.
        .http_status_as_error(false)
        .max_idle_age(Duration::from_secs(60))
        .user_agent(concat!("headcount/", env!("CARGO_PKG_VERSION")));
    #[cfg(feature = "tls")]
    if let Some(tls) = &shared.tls {
        config = config.tls_config(tls.config.clone());
    }
    #[cfg(not(feature = "tls"))]
    let _ = &shared.tls;
    Agent::with_parts(
        config.build(),
        last_words::connector(),
        At(Arc::clone(address)),
    )
}

fn url(shared: &Shared, at: usize, path: &str) -> String {
    let endpoint = &shared.endpoints[at];
    match shared.tls.as_ref().and_then(|tls| tls.server_name.as_ref()) {
        // An IPv6 address wants brackets.
        Some(name) if endpoint.secure && name.contains(':') => {
            format!("https://[{name}]:{}{path}", endpoint.port)
        }
        Some(name) if endpoint.secure => format!("https://{name}:{}{path}", endpoint.port),
        _ => format!("{}{path}", endpoint.url),
    }
}

/// What a request is called in errors: `/v3/kv/range` is `range`.
fn name(path: &'static str) -> &'static str {
    path.rsplit('/').next().unwrap_or(path)
}
