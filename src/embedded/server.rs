//! The registry's one thread: it waits for all connections at once, and owns the store.

use std::collections::{BTreeMap, BTreeSet};
use std::io::{self, ErrorKind, Read, Write};
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, TryRecvError};
use mio::net::{TcpListener, TcpStream};
use mio::{Events, Interest, Poll, Token};

use super::reply::Header;
use super::session::Session;
use super::store::{Limits, Store};
use super::wire::Text;

/// More connections than this are closed as they come.
const MOST_CONNECTIONS: usize = 4096;
/// A request that has begun must be whole within this time.
const PATIENCE: Duration = Duration::from_secs(30);
/// After an accept that failed for want of something, such as file descriptors.
const ACCEPT_AGAIN: Duration = Duration::from_millis(100);
/// Read from one connection before the others have their turn, in bytes.
const TURN: usize = 256 << 10;

pub(super) const WAKER: Token = Token(0);
const LISTENER: Token = Token(1);
const FIRST_CLIENT: usize = 2;

/// Something to do on the registry's thread.
pub(super) type Command = Box<dyn FnOnce(&mut Server) + Send>;

/// How it treats its clients.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Mode {
    Serving,
    /// Connections are accepted, and nothing is answered. Time goes on.
    Silent,
    /// Nobody listens. Time stands still.
    Refusing,
}

pub(super) struct Server {
    poll: Poll,
    address: SocketAddr,
    listener: Option<TcpListener>,
    accept_again: bool,
    clients: BTreeMap<Token, Client>,
    next_token: usize,
    /// Who can be read from; an edge is told only once.
    readable: BTreeSet<Token>,
    mode: Mode,
    store: Store,
    header: Header,
}

struct Client {
    socket: TcpStream,
    session: Session,
    writable: bool,
    /// Since when it owes us the rest of a request, or to take an answer.
    waiting: Option<Instant>,
}

impl Server {
    pub fn bind(poll: Poll, address: SocketAddr) -> io::Result<Server> {
        let mut server = Server {
            poll,
            address,
            listener: None,
            accept_again: false,
            clients: BTreeMap::new(),
            next_token: FIRST_CLIENT,
            readable: BTreeSet::new(),
            mode: Mode::Serving,
            store: store(),
            header: header(),
        };
        server.listen()?;
        Ok(server)
    }

    pub fn address(&self) -> SocketAddr {
        self.address
    }

    fn listen(&mut self) -> io::Result<()> {
        let mut listener = TcpListener::bind(self.address)?;
        self.address = listener.local_addr()?;
        let registry = self.poll.registry();
        registry.register(&mut listener, LISTENER, Interest::READABLE)?;
        self.listener = Some(listener);
        Ok(())
    }

    /// Serves until the commands' other end is gone.
    pub fn run(mut self, commands: &Receiver<Command>) {
        let mut events = Events::with_capacity(256);
        loop {
            match self.poll.poll(&mut events, self.pause(Instant::now())) {
                Err(error) if error.kind() != ErrorKind::Interrupted => {
                    log::error!("the registry can't wait for its clients: {error}");
                    return;
                }
                _ => {}
            }
            let mut accept = self.accept_again;
            for event in &events {
                match event.token() {
                    WAKER => {}
                    LISTENER => accept = true,
                    token => self.ready(token, event),
                }
            }
            loop {
                match commands.try_recv() {
                    Ok(command) => command(&mut self),
                    Err(TryRecvError::Empty) => break,
                    Err(TryRecvError::Disconnected) => return,
                }
            }
            if accept {
                self.accept();
            }
            self.work(Instant::now());
        }
    }

    /// How long there is nothing to do by itself.
    fn pause(&self, now: Instant) -> Option<Duration> {
        if self.mode == Mode::Serving && !self.readable.is_empty() {
            return Some(Duration::ZERO);
        }
        let again = self.accept_again.then(|| now + ACCEPT_AGAIN);
        let leases = self
            .store
            .leases
            .next_end()
            .filter(|_| self.mode != Mode::Refusing);
        let clients = self.clients.values().filter_map(Client::next_deadline);
        let clients = clients.min().filter(|_| self.mode == Mode::Serving);
        let next = [again, leases, clients].into_iter().flatten().min()?;
        // Rounded up, or it would wake up just too early and turn in circles.
        Some(next.saturating_duration_since(now) + Duration::from_millis(1))
    }

    fn accept(&mut self) {
        self.accept_again = false;
        let Some(listener) = &self.listener else {
            return;
        };
        loop {
            match listener.accept() {
                Ok((mut socket, _)) => {
                    if self.clients.len() >= MOST_CONNECTIONS {
                        continue;
                    }
                    let token = Token(self.next_token);
                    let interest = Interest::READABLE | Interest::WRITABLE;
                    if let Err(error) = self.poll.registry().register(&mut socket, token, interest)
                    {
                        log::warn!("the registry can't serve a client: {error}");
                        continue;
                    }
                    self.next_token += 1;
                    let _ = socket.set_nodelay(true);
                    self.clients.insert(token, Client::new(socket));
                }
                Err(error) if error.kind() == ErrorKind::WouldBlock => return,
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => {
                    log::warn!("the registry can't take a client: {error}");
                    self.accept_again = true;
                    return;
                }
            }
        }
    }

    fn ready(&mut self, token: Token, event: &mio::event::Event) {
        let Some(client) = self.clients.get_mut(&token) else {
            return;
        };
        client.writable |= event.is_writable();
        if event.is_readable() || event.is_read_closed() {
            self.readable.insert(token);
        }
        // Nobody waits for an answer any more.
        let gone = event.is_error() || (event.is_read_closed() && event.is_write_closed());
        if gone || (self.mode == Mode::Silent && event.is_read_closed()) {
            self.drop_client(token);
        }
    }

    fn drop_client(&mut self, token: Token) {
        self.readable.remove(&token);
        if let Some(mut client) = self.clients.remove(&token) {
            let _ = self.poll.registry().deregister(&mut client.socket);
        }
    }

    fn drop_clients(&mut self) {
        for token in self.clients.keys().copied().collect::<Vec<_>>() {
            self.drop_client(token);
        }
    }

    fn work(&mut self, now: Instant) {
        if self.mode != Mode::Refusing {
            self.store.expire(now);
        }
        if self.mode != Mode::Serving {
            return;
        }
        for token in std::mem::take(&mut self.readable) {
            let Some(client) = self.clients.get_mut(&token) else {
                continue;
            };
            if client.read(&mut self.store, self.header, now) {
                self.readable.insert(token);
            }
        }
        let mut over = Vec::new();
        for (token, client) in &mut self.clients {
            if client.write(&self.store, now) {
                // What was sent behind the request for the stream has its turn.
                self.readable.insert(*token);
            }
            if client.is_over(now) {
                over.push(*token);
            }
        }
        for token in over {
            self.drop_client(token);
        }
    }

    // ---- what the handle asks for

    pub fn store(&mut self) -> &mut Store {
        &mut self.store
    }

    pub fn silence(&mut self) {
        self.mode = Mode::Silent;
    }

    pub fn refuse(&mut self) {
        self.mode = Mode::Refusing;
        if let Some(mut listener) = self.listener.take() {
            let _ = self.poll.registry().deregister(&mut listener);
        }
        self.drop_clients();
    }

    pub fn come_back(&mut self) -> io::Result<()> {
        if self.listener.is_none() {
            self.listen()?;
        }
        if self.mode == Mode::Refusing {
            self.store.leases.renew_all(Instant::now());
        }
        self.mode = Mode::Serving;
        Ok(())
    }

    /// Everything lost, as if its data had been deleted: another cluster, at revision 1.
    pub fn wipe(&mut self) {
        self.store = store();
        self.header = header();
        self.drop_clients();
    }
}

/// A number that no other registry has.
fn id() -> i64 {
    (crate::jitter::random() >> 1) as i64
}

fn store() -> Store {
    Store::new(Limits::DEFAULT, id())
}

/// A cluster of its own.
fn header() -> Header {
    Header {
        cluster_id: Text(id()),
        member_id: Text(id()),
        revision: Text(0),
        raft_term: Text(2),
    }
}

impl Client {
    fn new(socket: TcpStream) -> Self {
        Client {
            socket,
            session: Session::new(),
            writable: true,
            waiting: None,
        }
    }

    fn next_deadline(&self) -> Option<Instant> {
        match self.session.is_streaming() {
            true => self.session.next_deadline(),
            false => self.waiting.map(|since| since + PATIENCE),
        }
    }

    /// Reads what has come and answers what is whole; whether there is more to read.
    fn read(&mut self, store: &mut Store, header: Header, now: Instant) -> bool {
        let mut buffer = [0; 16 << 10];
        let mut turn = TURN;
        loop {
            self.session.answer(store, header, now);
            let connection = &mut self.session.connection;
            let room = connection.room().min(buffer.len()).min(turn);
            if room == 0 {
                // While it streams, what the client sends stays where it is.
                return turn == 0;
            }
            match self.socket.read(&mut buffer[..room]) {
                Ok(0) => {
                    self.session.hung_up();
                    return false;
                }
                Ok(count) => {
                    turn -= count;
                    connection.received(&buffer[..count]);
                }
                Err(error) if error.kind() == ErrorKind::WouldBlock => return false,
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(_) => {
                    connection.broken();
                    return false;
                }
            }
        }
    }

    /// Gives a stream what is new, and sends what waits; whether the stream has ended.
    fn write(&mut self, store: &Store, now: Instant) -> bool {
        let mut ended = false;
        loop {
            ended |= self.session.feed(store, now);
            let connection = &mut self.session.connection;
            if !self.writable || connection.output().is_empty() {
                break;
            }
            match self.socket.write(connection.output()) {
                Ok(count) => {
                    connection.sent(count);
                    self.waiting = None;
                }
                Err(error) if error.kind() == ErrorKind::WouldBlock => self.writable = false,
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(_) => connection.broken(),
            }
        }
        self.waiting = match self.session.connection.is_waiting() {
            true => self.waiting.or(Some(now)),
            false => None,
        };
        ended
    }

    fn is_over(&self, now: Instant) -> bool {
        let late = self.waiting.is_some_and(|since| since + PATIENCE <= now);
        (late && !self.session.is_streaming()) || self.session.connection.is_over()
    }
}
