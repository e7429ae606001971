//! Cuts a byte stream into JSON objects.
//!
//! A frame of the gateway is not an HTTP chunk, is not always followed by a newline (errors are
//! not), and arrives split anywhere. So the end of a frame is found by its braces, resuming where
//! the last read ended: each byte is looked at once.

use memchr::memchr2;

use crate::error::Error;

pub(super) struct Frames {
    buffer: Vec<u8>,
    /// Where the current frame starts.
    start: usize,
    /// Up to where it has been scanned.
    scanned: usize,
    depth: usize,
    in_string: bool,
    /// Bound on one frame, in bytes.
    limit: usize,
}

impl Frames {
    pub fn new(limit: usize) -> Self {
        Frames {
            buffer: Vec::new(),
            start: 0,
            scanned: 0,
            depth: 0,
            in_string: false,
            limit,
        }
    }

    pub fn push(&mut self, bytes: &[u8]) {
        if self.start > 0 {
            self.buffer.drain(..self.start);
            self.scanned -= self.start;
            self.start = 0;
        }
        if self.buffer.is_empty() {
            // One giant frame should not hold its memory for ever.
            self.buffer.shrink_to(256 * 1024);
        }
        self.buffer.extend_from_slice(bytes);
    }

    /// The next whole frame; `None` until more bytes come.
    pub fn next(&mut self) -> Result<Option<&[u8]>, Error> {
        if self.depth == 0 {
            self.skip_space();
        }
        match self.scan()? {
            // However it was cut.
            Some(end) if end - self.start > self.limit => {
                Err(Error::TooLarge { limit: self.limit })
            }
            Some(end) => {
                let start = std::mem::replace(&mut self.start, end);
                Ok(Some(&self.buffer[start..end]))
            }
            None if self.buffer.len() - self.start > self.limit => {
                Err(Error::TooLarge { limit: self.limit })
            }
            None => Ok(None),
        }
    }

    /// Whether the stream may end here without anything being cut off.
    pub fn is_between(&self) -> bool {
        self.depth == 0
            && self.buffer[self.start..]
                .iter()
                .all(u8::is_ascii_whitespace)
    }

    /// How many bytes it holds on to.
    #[cfg(any(test, fuzzing))]
    pub fn held(&self) -> usize {
        self.buffer.len() - self.start
    }

    fn skip_space(&mut self) {
        let rest = &self.buffer[self.start..];
        let space = rest
            .iter()
            .position(|b| !b.is_ascii_whitespace())
            .unwrap_or(rest.len());
        self.start += space;
        self.scanned = self.start;
    }

    fn scan(&mut self) -> Result<Option<usize>, Error> {
        while self.scanned < self.buffer.len() {
            let rest = &self.buffer[self.scanned..];
            if self.in_string {
                let Some(at) = memchr2(b'"', b'\\', rest) else {
                    self.scanned = self.buffer.len();
                    break;
                };
                if rest[at] == b'\\' {
                    if at + 1 == rest.len() {
                        // What it escapes is yet to come; look again from here.
                        self.scanned += at;
                        break;
                    }
                    self.scanned += at + 2;
                } else {
                    // Mostly the next string follows at once.
                    self.in_string = matches!(rest[at + 1..], [b':' | b',', b'"', ..]);
                    self.scanned += at + if self.in_string { 3 } else { 1 };
                }
                continue;
            }
            if self.depth == 0 && rest[0] != b'{' {
                let reason = format!("a frame begins with byte {:#04x}, not with {{", rest[0]);
                return Err(Error::Protocol { reason });
            }
            // Between strings there is little, so that a call of `memchr3` would cost more.
            let Some(at) = rest.iter().position(|b| matches!(b, b'"' | b'{' | b'}')) else {
                self.scanned = self.buffer.len();
                break;
            };
            self.scanned += at + 1;
            match rest[at] {
                b'"' => self.in_string = true,
                b'{' => self.depth += 1,
                // At depth 0 the first byte is an opening brace, so this can't underflow.
                _ => {
                    self.depth -= 1;
                    if self.depth == 0 {
                        return Ok(Some(self.scanned));
                    }
                }
            }
        }
        Ok(None)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn cut(chunks: &[&[u8]], limit: usize) -> Result<Vec<String>, Error> {
        let mut frames = Frames::new(limit);
        let mut out = Vec::new();
        for chunk in chunks {
            frames.push(chunk);
            while let Some(frame) = frames.next()? {
                out.push(String::from_utf8(frame.to_vec()).unwrap());
            }
        }
        assert!(frames.is_between());
        Ok(out)
    }

    const STREAM: &str = concat!(
        r#"{"result":{"a":"}{\"\\","b":[{}]}}"#,
        "\n",
        r#" {"x":1}{"error":{"m":"\\\\"}}"#,
        "\r\n",
        r#"{}"#
    );
    const FRAMES: [&str; 4] = [
        r#"{"result":{"a":"}{\"\\","b":[{}]}}"#,
        r#"{"x":1}"#,
        r#"{"error":{"m":"\\\\"}}"#,
        "{}",
    ];

    #[test]
    fn split_at_every_byte() {
        let bytes = STREAM.as_bytes();
        let single: Vec<&[u8]> = bytes.chunks(1).collect();
        assert_eq!(cut(&single, 100).unwrap(), FRAMES);
        for at in 0..bytes.len() {
            assert_eq!(
                cut(&[&bytes[..at], &bytes[at..]], 100).unwrap(),
                FRAMES,
                "at {at}"
            );
        }
    }

    #[test]
    fn g13_garbage_and_giants_are_errors() {
        assert!(matches!(
            cut(&[b"nonsense"], 100),
            Err(Error::Protocol { .. })
        ));
        assert!(matches!(cut(&[b"}"], 100), Err(Error::Protocol { .. })));
        let giant = [b"{\"a\":\"".to_vec(), vec![b'x'; 200]].concat();
        let whole = [&giant[..], b"\"}"].concat();
        for giant in [giant, whole] {
            assert!(matches!(
                cut(&[&giant], 100),
                Err(Error::TooLarge { limit: 100 })
            ));
        }
    }

    proptest! {
        #[test]
        fn g13_any_bytes_any_cuts(bytes in prop::collection::vec(
            prop_oneof![Just(b'{'), Just(b'}'), Just(b'"'), Just(b'\\'), Just(b'\n'), any::<u8>()],
            0..200,
        ), size in 1..9usize) {
            let run = |size: usize| {
                let mut frames = Frames::new(1000);
                let mut out = Vec::new();
                for chunk in bytes.chunks(size) {
                    frames.push(chunk);
                    loop {
                        match frames.next() {
                            Ok(Some(frame)) => out.push(frame.to_vec()),
                            Ok(None) => break,
                            Err(_) => return (out, true),
                        }
                    }
                }
                (out, false)
            };
            prop_assert_eq!(run(size), run(usize::MAX));
        }
    }
}
