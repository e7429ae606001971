//! Whoever refuses us says why, and hangs up: maybe while we are still writing. So under TLS, where
//! a client's certificate is the last thing that the server sees of the handshake. Here writing does
//! not fail before what was said is read.

use std::io;
use std::io::ErrorKind::{BrokenPipe, ConnectionAborted, ConnectionReset};

use ureq::Error;
use ureq::unversioned::transport::{
    Buffers, ConnectionDetails, Connector, NextTimeout, TcpConnector, Transport,
};

/// TCP, and TLS over it where the scheme and the features say so.
pub(super) fn connector() -> impl Connector {
    let tcp = ().chain(TcpConnector::default()).chain(HearOut);
    #[cfg(feature = "tls")]
    let tcp = tcp.chain(ureq::unversioned::transport::RustlsConnector::default());
    tcp
}

/// Whether the other side has ended the connection.
pub(super) fn hung_up(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        BrokenPipe | ConnectionReset | ConnectionAborted
    )
}

#[derive(Debug)]
struct HearOut;

impl<In: Transport> Connector<In> for HearOut {
    type Out = HeardOut<In>;

    fn connect(
        &self,
        _: &ConnectionDetails,
        chained: Option<In>,
    ) -> Result<Option<Self::Out>, Error> {
        Ok(chained.map(HeardOut::new))
    }
}

/// Reads on where writing has failed.
#[derive(Debug)]
struct HeardOut<T> {
    inner: T,
    hung_up: bool,
    /// Why writing failed, until it is told.
    failure: Option<Error>,
}

impl<T> HeardOut<T> {
    fn new(inner: T) -> Self {
        HeardOut {
            inner,
            hung_up: false,
            failure: None,
        }
    }
}

impl<T: Transport> Transport for HeardOut<T> {
    fn buffers(&mut self) -> &mut dyn Buffers {
        self.inner.buffers()
    }

    fn transmit_output(&mut self, amount: usize, timeout: NextTimeout) -> Result<(), Error> {
        if self.hung_up {
            return Ok(());
        }
        match self.inner.transmit_output(amount, timeout) {
            Err(Error::Io(e)) if hung_up(&e) => {
                self.hung_up = true;
                self.failure = Some(Error::Io(e));
                Ok(())
            }
            other => other,
        }
    }

    fn await_input(&mut self, timeout: NextTimeout) -> Result<bool, Error> {
        let heard = self.inner.await_input(timeout);
        match &heard {
            Ok(true) => heard,
            // Nothing (more) was said.
            _ => self.failure.take().map_or(heard, Err),
        }
    }

    fn is_open(&mut self) -> bool {
        !self.hung_up && self.inner.is_open()
    }
}

#[cfg(test)]
mod tests {
    use std::io::{Read, Write};
    use std::net::TcpListener;
    use std::time::Duration;

    use ureq::Agent;
    use ureq::config::Config;
    use ureq::unversioned::resolver::DefaultResolver;

    use super::*;

    /// Posts more than a connection holds to a server that says `words` on the first byte of it,
    /// and hangs up.
    fn posted(words: &'static str) -> Result<u16, Error> {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let url = format!("http://{}/", listener.local_addr().expect("bound"));
        let server = std::thread::spawn(move || {
            let mut stream = listener.accept().expect("a connection").0;
            stream.read_exact(&mut [0]).expect("a byte");
            stream.write_all(words.as_bytes()).expect("said");
        });
        let config = Config::builder()
            .http_status_as_error(false)
            .timeout_global(Some(Duration::from_secs(30)))
            .build();
        let agent = Agent::with_parts(config, connector(), DefaultResolver::default());
        let answer = agent.post(url).send(&vec![0; 32 << 20][..]);
        server.join().expect("a server");
        answer.map(|answer| answer.status().as_u16())
    }

    #[test]
    fn what_was_said_before_hanging_up_is_heard() {
        let refusal = "HTTP/1.1 403 Forbidden\r\nContent-Length: 0\r\n\r\n";
        assert_eq!(posted(refusal).expect("an answer"), 403);
    }

    #[test]
    fn where_nothing_was_said_it_is_why_writing_failed() {
        for words in ["", "HTTP/1.1 403 Forb"] {
            let error = posted(words).expect_err("no answer");
            let broken = |e: &io::Error| matches!(e.kind(), BrokenPipe | ConnectionReset);
            assert!(matches!(&error, Error::Io(e) if broken(e)), "{error:?}");
        }
    }
}
