//! HTTP/1.1 (RFC 9112): one request and its answer on a separate connection.

use base64ct::{Base64, Encoding};
use std::io::{ErrorKind, Read, Write};
use std::time::{Duration, SystemTime};

/// The largest permitted size of a response's status line and headers, in bytes.
const LONGEST_HEAD: usize = 64 << 10;
const MOST_HEADERS: usize = 100;
/// The largest permitted size of a response's body, in bytes. Certificates of a CA are much
/// shorter.
pub(super) const LARGEST_BODY: usize = 1 << 20;
/// The longest text of a server that is shown to the user, in bytes.
const SHOWN: usize = 1 << 10;

/// A request.
#[derive(Debug)]
pub(super) struct Request<'a> {
    /// The value of the header Host.
    pub(super) host: &'a str,
    pub(super) path: &'a str,
    /// The value of the header Authorization.
    pub(super) authorization: Option<&'a str>,
    /// A PKCS#10 request in DER. `None`: the method is GET.
    pub(super) pkcs10: Option<&'a [u8]>,
}

/// An answer.
#[derive(Debug, Default)]
pub(super) struct Response {
    pub(super) status: u16,
    headers: Vec<(String, Vec<u8>)>,
    pub(super) body: Vec<u8>,
}

/// The reason why there is no valid response of the server.
#[derive(Debug)]
pub(super) enum HttpError {
    /// The connection to the server failed.
    Io(std::io::Error),
    /// The received data is not a valid HTTP response.
    Broken(String),
}

impl From<std::io::Error> for HttpError {
    fn from(error: std::io::Error) -> Self {
        Self::Io(error)
    }
}

fn broken(what: impl Into<String>) -> HttpError {
    HttpError::Broken(what.into())
}

impl Request<'_> {
    /// Sends the request and reads the answer.
    pub(super) fn exchange(&self, stream: &mut (impl Read + Write)) -> Result<Response, HttpError> {
        let body = self.pkcs10.map(Base64::encode_string);
        let method = if body.is_some() { "POST" } else { "GET" };
        let mut head = format!(
            "{method} {} HTTP/1.1\r\nHost: {}\r\nUser-Agent: devid/{}\r\nAccept: */*\r\nConnection: close\r\n",
            self.path,
            self.host,
            env!("CARGO_PKG_VERSION")
        );
        if let Some(value) = self.authorization {
            head += &format!("Authorization: {value}\r\n");
        }
        if let Some(body) = &body {
            head += &format!(
                "Content-Type: application/pkcs10\r\nContent-Transfer-Encoding: base64\r\nContent-Length: {}\r\n",
                body.len()
            );
        }
        head += "\r\n";
        head += body.as_deref().unwrap_or_default();
        // A server that refuses early may close the connection before it has read all data. Its
        // answer then has the reason.
        let _ = stream
            .write_all(head.as_bytes())
            .and_then(|()| stream.flush());
        Response::read(stream)
    }
}

impl Response {
    fn read(stream: &mut impl Read) -> Result<Self, HttpError> {
        let mut bytes = Vec::new();
        loop {
            let mut response = Self::default();
            let body = response.read_head(stream, &mut bytes)?;
            bytes.drain(..body);
            // The final response follows an informational response (status 1xx).
            if (100..200).contains(&response.status) {
                continue;
            }
            response.body = response.read_body(stream, bytes)?;
            return Ok(response);
        }
    }

    /// Reads the head of the answer into `bytes`, and returns its length.
    fn read_head(
        &mut self,
        stream: &mut impl Read,
        bytes: &mut Vec<u8>,
    ) -> Result<usize, HttpError> {
        loop {
            let mut headers = [httparse::EMPTY_HEADER; MOST_HEADERS];
            let mut parsed = httparse::Response::new(&mut headers);
            match parsed.parse(bytes) {
                Err(error) => return Err(broken(format!("the answer is not HTTP: {error}"))),
                Ok(httparse::Status::Complete(length)) => {
                    self.status = parsed.code.unwrap_or_default();
                    let kept = parsed.headers.iter();
                    let kept = kept.map(|one| (one.name.to_ascii_lowercase(), one.value.to_vec()));
                    self.headers = kept.collect();
                    return Ok(length);
                }
                Ok(httparse::Status::Partial) if bytes.len() > LONGEST_HEAD => {
                    return Err(broken(format!(
                        "the head of the answer is over {LONGEST_HEAD} bytes"
                    )));
                }
                Ok(httparse::Status::Partial) => {}
            }
            if !more(stream, bytes)? {
                return Err(broken(match bytes.is_empty() {
                    true => "the server closed the connection without an answer",
                    false => "the answer ends within its head",
                }));
            }
        }
    }

    fn read_body(&self, stream: &mut impl Read, mut bytes: Vec<u8>) -> Result<Vec<u8>, HttpError> {
        if matches!(self.status, 204 | 304) {
            return Ok(Vec::new());
        }
        let is_chunked = |value: &str| value.to_ascii_lowercase().contains("chunked");
        if self
            .header("transfer-encoding")
            .is_some_and(|value| is_chunked(&value))
        {
            return chunks(stream, bytes);
        }
        let length =
            match self.header("content-length") {
                None => None,
                Some(text) => {
                    let length = text.trim().parse::<usize>();
                    Some(length.map_err(|_| {
                        broken("the answer has a Content-Length that is not a number")
                    })?)
                }
            };
        if length.is_some_and(|length| length > LARGEST_BODY) {
            return Err(too_large());
        }
        while length.is_none_or(|length| bytes.len() < length) {
            if bytes.len() > LARGEST_BODY {
                return Err(too_large());
            }
            if !more(stream, &mut bytes)? {
                return match length {
                    None => Ok(bytes),
                    Some(length) => Err(broken(format!(
                        "the answer is incomplete: {} of its {length} bytes arrived",
                        bytes.len()
                    ))),
                };
            }
        }
        bytes.truncate(length.unwrap_or(bytes.len()));
        Ok(bytes)
    }

    /// Returns the first value of a header.
    pub(super) fn header(&self, name: &str) -> Option<String> {
        let found = self.headers.iter().find(|(known, _)| known == name);
        found.map(|(_, value)| String::from_utf8_lossy(value).into_owned())
    }

    /// Returns all values of a header.
    pub(super) fn headers(&self, name: &str) -> Vec<String> {
        let found = self.headers.iter().filter(|(known, _)| known == name);
        found
            .map(|(_, value)| String::from_utf8_lossy(value).into_owned())
            .collect()
    }

    /// Returns the time after which the server expects the next request (RFC 9110, section 10.2.3).
    pub(super) fn retry_after(&self, now: SystemTime) -> Option<Duration> {
        let value = self.header("retry-after")?;
        let value = value.trim();
        match value.parse() {
            Ok(seconds) => Some(Duration::from_secs(seconds)),
            Err(_) => {
                let then = httpdate::parse_http_date(value).ok()?;
                Some(then.duration_since(now).unwrap_or_default())
            }
        }
    }

    /// Returns the body of the response, if it is readable text.
    pub(super) fn words(&self) -> Option<String> {
        let kind = self
            .header("content-type")
            .unwrap_or_default()
            .to_ascii_lowercase();
        if !kind.starts_with("text/") && !kind.contains("json") {
            return None;
        }
        let shown = &self.body[..self.body.len().min(SHOWN)];
        let text = String::from_utf8_lossy(shown);
        let plain = match kind.contains("html") {
            true => without_tags(&text),
            false => text.into_owned(),
        };
        let words: Vec<&str> = plain
            .split(|c: char| c.is_whitespace() || c.is_control())
            .collect();
        let words: Vec<&str> = words.into_iter().filter(|word| !word.is_empty()).collect();
        (!words.is_empty()).then(|| words.join(" "))
    }
}

fn without_tags(text: &str) -> String {
    let parts = text.split('<').enumerate();
    let outside = parts.map(|(at, part)| match (at, part.split_once('>')) {
        (0, _) => part,
        (_, Some((_, outside))) => outside,
        (_, None) => "",
    });
    outside.collect::<Vec<_>>().join(" ")
}

fn too_large() -> HttpError {
    broken(format!("the answer is over {LARGEST_BODY} bytes"))
}

/// Reads the rest of a body in chunks (RFC 9112, section 7.1), and returns the whole body. `bytes`
/// were received before.
fn chunks(stream: &mut impl Read, mut bytes: Vec<u8>) -> Result<Vec<u8>, HttpError> {
    let mut body = Vec::new();
    let cut = || broken("the answer is incomplete: it ends within a chunk");
    loop {
        let (begin, size) = loop {
            match httparse::parse_chunk_size(&bytes) {
                Err(_) => return Err(broken("the answer has a chunk without size")),
                Ok(httparse::Status::Complete(found)) => break found,
                Ok(httparse::Status::Partial) if bytes.len() > LONGEST_HEAD => {
                    return Err(broken("the answer has a chunk without size"));
                }
                Ok(httparse::Status::Partial) if more(stream, &mut bytes)? => {}
                Ok(httparse::Status::Partial) => return Err(cut()),
            }
        };
        // `devid` does not need the trailer fields after the last chunk.
        if size == 0 {
            return Ok(body);
        }
        let size = usize::try_from(size).unwrap_or(usize::MAX);
        if size > LARGEST_BODY || body.len() + size > LARGEST_BODY {
            return Err(too_large());
        }
        // A line end (CR LF) follows the data of the chunk.
        while bytes.len() < begin + size + 2 {
            if !more(stream, &mut bytes)? {
                return Err(cut());
            }
        }
        body.extend_from_slice(&bytes[begin..begin + size]);
        bytes.drain(..begin + size + 2);
    }
}

/// Reads more data. Returns false at the end of the data. A TLS session that ended without a
/// closing message counts as ended. The lengths in HTTP and in PKCS#7 show whether data is missing.
fn more(stream: &mut impl Read, bytes: &mut Vec<u8>) -> Result<bool, HttpError> {
    let mut room = [0; 8 << 10];
    match stream.read(&mut room) {
        Ok(0) => Ok(false),
        Ok(count) => {
            bytes.extend_from_slice(&room[..count]);
            Ok(true)
        }
        Err(error) if error.kind() == ErrorKind::Interrupted => more(stream, bytes),
        Err(error) if error.kind() == ErrorKind::UnexpectedEof => Ok(false),
        Err(error) => Err(error.into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(mut bytes: &[u8]) -> Result<Response, HttpError> {
        Response::read(&mut bytes)
    }

    fn fault(bytes: &[u8]) -> String {
        match read(bytes).unwrap_err() {
            HttpError::Broken(what) => what,
            HttpError::Io(error) => error.to_string(),
        }
    }

    #[test]
    fn bodies_of_every_framing() {
        for bytes in [
            &b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhelloGARBAGE"[..],
            b"HTTP/1.1 200 OK\r\nTransfer-Encoding: Chunked\r\n\r\n3;x=y\r\nhel\r\n2\r\nlo\r\n0\r\nX: y\r\n\r\n",
            b"HTTP/1.0 200 OK\r\n\r\nhello",
            b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\nhello",
        ] {
            let response = read(bytes).unwrap();
            assert_eq!((response.status, &response.body[..]), (200, &b"hello"[..]));
        }
        assert!(
            read(b"HTTP/1.1 204 No Content\r\n\r\n")
                .unwrap()
                .body
                .is_empty()
        );
    }

    #[test]
    fn what_is_cut_or_too_large_is_no_answer() {
        for (bytes, said) in [
            (&b""[..], "without an answer"),
            (b"HTTP/1.1 200", "within its head"),
            (b"SSH-2.0-OpenSSH\r\n", "not HTTP"),
            (
                b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nhello",
                "incomplete: 5 of its 9",
            ),
            (
                b"HTTP/1.1 200 OK\r\nContent-Length: x\r\n\r\n",
                "not a number",
            ),
            (
                b"HTTP/1.1 200 OK\r\nContent-Length: 99999999\r\n\r\n",
                "over 1048576 bytes",
            ),
            (
                b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhel",
                "incomplete",
            ),
            (
                b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n",
                "without size",
            ),
            (
                b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nFFFFFFFF\r\n",
                "over 1048576",
            ),
        ] {
            assert!(fault(bytes).contains(said), "{}", fault(bytes));
        }
        let head = [&b"HTTP/1.1 200 OK\r\nX: "[..], &[b'a'; 70_000]].concat();
        assert!(fault(&head).contains("head"));
        let endless = [
            &b"HTTP/1.1 200 OK\r\n\r\n"[..],
            &vec![b'a'; LARGEST_BODY + 9000],
        ]
        .concat();
        assert!(fault(&endless).contains("over"));
    }

    #[test]
    fn a_wait_is_seconds_or_a_date() {
        let now = httpdate::parse_http_date("Sun, 29 Nov 2026 10:00:00 GMT").unwrap();
        let wait = |value: &str| {
            let bytes = format!(
                "HTTP/1.1 202 Accepted\r\nRetry-After: {value}\r\nContent-Length: 0\r\n\r\n"
            );
            read(bytes.as_bytes()).unwrap().retry_after(now)
        };
        assert_eq!(wait("90"), Some(Duration::from_secs(90)));
        assert_eq!(
            wait("Sun, 29 Nov 2026 10:01:00 GMT"),
            Some(Duration::from_secs(60))
        );
        assert_eq!(wait("Sun, 29 Nov 2026 09:00:00 GMT"), Some(Duration::ZERO));
        assert_eq!(wait("soon"), None);
    }

    #[test]
    fn a_servers_words_are_one_line() {
        let said = |kind: &str, body: &str| {
            let bytes = format!("HTTP/1.1 400 Bad\r\nContent-Type: {kind}\r\n\r\n{body}");
            read(bytes.as_bytes()).unwrap().words()
        };
        assert_eq!(
            said("text/plain", "no\x1b[2J\r\n such key "),
            Some("no [2J such key".into())
        );
        assert_eq!(
            said("text/html", "<h1>Not <b>found</b></h1><x"),
            Some("Not found".into())
        );
        assert_eq!(said("application/pkcs7-mime", "MII"), None);
        assert_eq!(said("text/plain", ""), None);
    }
}
