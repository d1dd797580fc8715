//! One kept-alive HTTP/1.1 connection that costs little: prepared bytes out, status and length in.
//! Chunked answers are not understood; what is measured here never sends them.

use std::io;
use std::net::SocketAddr;
use std::ops::Range;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

/// Room for an answer; one that is longer grows it.
const ROOM: usize = 16 * 1024;
/// A longer answer is none that is measured here, in bytes.
const ANSWER_MAX: usize = 64 << 20;

/// A connection on which one request is under way at a time.
pub(super) struct Connection {
    stream: TcpStream,
    buffer: Vec<u8>,
}

/// An answer; its bytes stand in the connection until the next request.
#[derive(Clone, Copy, Debug)]
pub(super) struct Answer<'a> {
    /// The status.
    pub(super) status: u16,
    /// Everything before the empty line, the status line included.
    pub(super) head: &'a [u8],
    /// The body.
    pub(super) body: &'a [u8],
}

impl Connection {
    /// Connects.
    pub(super) async fn open(address: SocketAddr) -> io::Result<Connection> {
        let stream = TcpStream::connect(address).await?;
        stream.set_nodelay(true)?;
        Ok(Connection { stream, buffer: vec![0; ROOM] })
    }

    /// Sends a request and reads its answer to the end.
    ///
    /// # Errors
    /// When the connection ends, or what comes is no HTTP answer with a length.
    pub(super) async fn exchange(&mut self, request: &[u8]) -> io::Result<Answer<'_>> {
        self.stream.write_all(request).await?;
        let mut filled = 0;
        let mut head: Option<Head> = None;
        loop {
            if filled == self.buffer.len() {
                if filled >= ANSWER_MAX {
                    return Err(malformed("an answer without an end"));
                }
                self.buffer.resize(filled * 2, 0);
            }
            let read = self.stream.read(&mut self.buffer[filled..]).await?;
            if read == 0 {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
            filled += read;
            let Some(found) = (match head {
                Some(known) => Some(known),
                None => scan(&self.buffer[..filled])?,
            }) else {
                continue;
            };
            head = Some(found);
            let body = found.body();
            if filled >= body.end {
                return Ok(Answer {
                    status: found.status,
                    head: &self.buffer[..found.length],
                    body: &self.buffer[body],
                });
            }
        }
    }
}

/// What the head of an answer says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Head {
    status: u16,
    /// With the empty line.
    length: usize,
    content_length: usize,
}

impl Head {
    fn body(&self) -> Range<usize> {
        self.length..self.length + self.content_length
    }
}

fn malformed(what: &'static str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, what)
}

/// Reads the head, once all of it is there.
fn scan(bytes: &[u8]) -> io::Result<Option<Head>> {
    const LENGTH: &[u8] = b"content-length:";
    const STATUS: Range<usize> = 9..12;
    let mut content_length = None;
    let mut status = None;
    let mut at = 0;
    while let Some(end) = bytes[at..].iter().position(|b| *b == b'\n').map(|n| at + n) {
        let line = bytes[at..end].strip_suffix(b"\r").unwrap_or(&bytes[at..end]);
        at = end + 1;
        let Some(status) = status else {
            let digits = line.get(STATUS).filter(|_| line.starts_with(b"HTTP/1."));
            status = Some(number(digits.unwrap_or_default()).ok_or_else(|| malformed("no status line"))?);
            continue;
        };
        if line.is_empty() {
            let status = u16::try_from(status).map_err(|_| malformed("no status"))?;
            // RFC 9112 §6.3: these have no body, whatever their head says.
            let bodiless = matches!(status, 100..=199 | 204 | 304);
            let content_length = match content_length {
                _ if bodiless => 0,
                Some(length) => length,
                None => return Err(malformed("an answer without content-length")),
            };
            return Ok(Some(Head { status, length: at, content_length }));
        }
        if line.len() > LENGTH.len() && line[..LENGTH.len()].eq_ignore_ascii_case(LENGTH) {
            let value = line[LENGTH.len()..].trim_ascii();
            content_length = Some(number(value).ok_or_else(|| malformed("no content-length"))?);
        }
    }
    Ok(None)
}

fn number(digits: &[u8]) -> Option<usize> {
    // Nine digits are more than any answer has, and cannot overflow.
    let sound = !digits.is_empty() && digits.len() <= 9 && digits.iter().all(u8::is_ascii_digit);
    sound.then(|| digits.iter().fold(0, |n, d| n * 10 + usize::from(d - b'0')))
}

#[cfg(test)]
mod tests {
    use super::*;

    const ANSWER: &[u8] = b"HTTP/1.1 202 Accepted\r\nContent-Length: 3\r\nx-a: content-length: 9\r\n\r\nabc";

    #[test]
    fn a_head_is_read_once_it_is_whole() {
        let whole = ANSWER.len() - 3;
        for cut in 0..whole {
            assert_eq!(scan(&ANSWER[..cut]).unwrap(), None, "{cut}");
        }
        let head = scan(ANSWER).unwrap().unwrap();
        assert_eq!(head, Head { status: 202, length: whole, content_length: 3 });
        assert_eq!(&ANSWER[head.body()], b"abc");
    }

    #[test]
    fn an_answer_without_a_body_ends_with_its_head() {
        let head = scan(b"HTTP/1.1 304 Not Modified\r\ncontent-length: 9\r\n\r\n").unwrap().unwrap();
        assert_eq!((head.status, head.content_length), (304, 0));
        assert!(scan(b"HTTP/1.1 200 OK\r\n\r\n").is_err(), "where does it end?");
    }

    #[test]
    fn what_is_no_answer_is_refused() {
        for text in
            ["nonsense\r\n\r\n", "HTTP/1.1 2x2 No\r\n\r\n", "HTTP/1.1 200\r\ncontent-length: -1\r\n\r\n"]
        {
            assert!(scan(text.as_bytes()).is_err(), "{text}");
        }
    }

    #[tokio::test]
    async fn answers_are_read_to_their_end_however_they_arrive() {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let large = vec![b'x'; 3 * ROOM];
        let serving = tokio::spawn(async move {
            let (mut stream, _) = listener.accept().await.unwrap();
            let mut request = [0; 4];
            stream.read_exact(&mut request).await.unwrap();
            for byte in ANSWER {
                stream.write_all(&[*byte]).await.unwrap();
                tokio::task::yield_now().await;
            }
            stream.read_exact(&mut request).await.unwrap();
            let head = format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n", large.len());
            stream.write_all(head.as_bytes()).await.unwrap();
            stream.write_all(&large).await.unwrap();
        });
        let mut connection = Connection::open(address).await.unwrap();
        let first = connection.exchange(b"ping").await.unwrap();
        assert_eq!((first.status, first.body), (202, &b"abc"[..]));
        let second = connection.exchange(b"ping").await.unwrap();
        assert_eq!((second.status, second.body.len()), (200, 3 * ROOM));
        serving.await.unwrap();
        assert!(connection.exchange(b"ping").await.is_err(), "nobody answers any more");
    }
}
