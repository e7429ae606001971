use std::io::{BufRead, BufReader, ErrorKind, Read, Write};
use std::net::{Shutdown, TcpStream};
use std::time::{Duration, Instant};

/// What comes, comes within this.
const BOUND: Duration = Duration::from_secs(5);

/// A bare connection, over which anything can be said.
pub struct Line {
    reader: BufReader<TcpStream>,
}

/// What stands at the beginning of an answer.
pub struct Head {
    pub status: u16,
    pub headers: Vec<(String, String)>,
}

impl Head {
    pub fn get(&self, name: &str) -> Option<&str> {
        let header = self.headers.iter().find(|(known, _)| known == name);
        header.map(|(_, value)| value.as_str())
    }
}

impl Line {
    pub fn open(address: &str) -> Line {
        let stream = TcpStream::connect(address).expect("somebody listens");
        stream.set_read_timeout(Some(BOUND)).expect("a time-out");
        stream.set_write_timeout(Some(BOUND)).expect("a time-out");
        stream.set_nodelay(true).expect("no delay");
        Line {
            reader: BufReader::new(stream),
        }
    }

    pub fn say(&mut self, bytes: impl AsRef<[u8]>) {
        // The other side may have hung up; what it said before is what counts.
        let _ = self.reader.get_mut().write_all(bytes.as_ref());
    }

    /// Has nothing more to say.
    pub fn close_one_way(&mut self) {
        let _ = self.reader.get_ref().shutdown(Shutdown::Write);
    }

    /// One line without its end; `None` where there is no whole one.
    pub fn line(&mut self) -> Option<String> {
        let mut text = String::new();
        self.reader.read_line(&mut text).ok()?;
        text.ends_with('\n').then(|| text.trim_end().to_owned())
    }

    /// The first line and the headers; `None` where nothing came, or not HTTP.
    pub fn head(&mut self) -> Option<Head> {
        let first = self.line().filter(|line| line.starts_with("HTTP/1."))?;
        let status = first.split(' ').nth(1)?.parse().ok()?;
        let mut headers = vec![];
        loop {
            match self.line()? {
                text if text.is_empty() => return Some(Head { status, headers }),
                text => {
                    let (name, value) = text.split_once(':')?;
                    headers.push((name.to_ascii_lowercase(), value.trim().to_owned()));
                }
            }
        }
    }

    /// One piece of a chunked body; the last is empty.
    pub fn chunk(&mut self) -> Option<String> {
        let size = usize::from_str_radix(&self.line()?, 16).ok()?;
        if size == 0 {
            // 3.4 sends trailers.
            while !self.line()?.is_empty() {}
            return Some(String::new());
        }
        let mut bytes = vec![0; size + 2];
        self.reader.read_exact(&mut bytes).ok()?;
        Some(String::from_utf8_lossy(&bytes[..size]).into_owned())
    }

    /// All that still comes of a chunked body, and whether it ends as HTTP wants it.
    pub fn chunks(&mut self) -> (String, bool) {
        let mut text = String::new();
        while let Some(chunk) = self.chunk() {
            if chunk.is_empty() {
                return (text, true);
            }
            text += &chunk;
        }
        (text, false)
    }

    /// An answer with its whole body.
    pub fn answer(&mut self) -> Option<(Head, String)> {
        let head = self.head()?;
        let mut body = vec![];
        if let Some(length) = head.get("content-length") {
            body = vec![0; length.parse().ok()?];
            self.reader.read_exact(&mut body).ok()?;
        } else if head.get("transfer-encoding") == Some("chunked") {
            match self.chunks() {
                (text, true) => body = text.into_bytes(),
                (_, false) => return None,
            }
        } else if head.status >= 200 {
            let _ = self.reader.read_to_end(&mut body);
        }
        Some((head, String::from_utf8_lossy(&body).into_owned()))
    }

    /// How the connection stands after `bound`, or sooner where the other side hangs up.
    pub fn state(&mut self, bound: Duration) -> &'static str {
        let give_up = Instant::now() + bound;
        let mut more = false;
        let state = loop {
            let left = give_up.saturating_duration_since(Instant::now());
            let left = left.max(Duration::from_millis(1));
            let _ = self.reader.get_ref().set_read_timeout(Some(left));
            match self.reader.read(&mut [0; 1024]) {
                Ok(0) => break "closed",
                Ok(_) => more = true,
                Err(error) if error.kind() == ErrorKind::ConnectionReset => break "closed",
                Err(_) => break "open",
            }
        };
        let _ = self.reader.get_ref().set_read_timeout(Some(BOUND));
        match (more, state) {
            (false, state) => state,
            (true, "closed") => "said more, then closed",
            (true, _) => "said more, still open",
        }
    }
}
