//! Sends commands to a server, Kea's or this one's.

use std::fmt;
use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream, ToSocketAddrs};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use rustix::net::{
    AddressFamily, RecvFlags, SocketAddrUnix, SocketFlags, SocketType, connect, recv, socket_with,
};

use super::auth::{AuthError, Credentials};
use super::head::{AnswerHead, MAX_HEAD, head_len};
use super::limits::MAX_TIME;
use super::scan::{Progress, Scan};
#[cfg(feature = "control-tls")]
use super::tls::ClientTls;

/// Maximum time of a command, if it is not set.
const TIME: Duration = Duration::from_secs(10);
/// Maximum size of an answer, if it is not set: 256 MiB.
const ANSWER_SIZE: usize = 256 << 20;
/// What is read at a time, in bytes.
const PART: usize = 64 * 1024;

/// Why there is no answer to a command.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ClientError {
    /// The URL is not one of HTTP, or HTTPS without the settings for it.
    #[error("expected a URL such as http://192.0.2.1:8000/, without a user; found {url}")]
    Url {
        /// The URL.
        url: String,
    },
    /// The URL is one of HTTPS, and no trust anchor is set; or the feature `control-tls` is off.
    #[error("{url}: HTTPS needs a trust anchor")]
    NoTls {
        /// The URL.
        url: String,
    },
    /// There is no connection to the server. The command was not sent.
    #[error("{server}: cannot connect")]
    Connect {
        /// The server.
        server: String,
        /// The error of the system.
        source: io::Error,
    },
    /// The connection was lost, or there was no answer in time. The server may have made the
    /// command.
    #[error("{server}: no answer")]
    Lost {
        /// The server.
        server: String,
        /// The error of the system; `TimedOut` if the time has passed, `UnexpectedEof` if the
        /// server has closed the connection.
        source: io::Error,
    },
    /// The answer is not what a server of commands sends. The server may have made the command.
    #[error("{server}: {expected}")]
    Invalid {
        /// The server.
        server: String,
        /// What was expected.
        expected: &'static str,
    },
}

impl ClientError {
    /// Returns whether the server has not received the command.
    #[must_use]
    pub fn is_unsent(&self) -> bool {
        matches!(self, Self::Url { .. } | Self::NoTls { .. } | Self::Connect { .. })
    }
}

/// A client of a server of commands. It blocks.
///
/// It has one connection with one request at a time, and keeps the connection open over HTTP. A
/// connection that the server has closed meanwhile is opened again before a command is sent; a
/// command is never sent twice.
///
/// ```no_run
/// use std::time::Duration;
///
/// use leasemgr::control::Client;
///
/// let mut client = Client::http("http://192.0.2.2:8000/")?.user("ha", "1234")?;
/// client.set_time(Duration::from_secs(60));
/// let answer = client.send(br#"{ "command": "ha-heartbeat", "service": [ "dhcp4" ] }"#)?;
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub struct Client {
    server: Place,
    user: Option<Credentials>,
    #[cfg(feature = "control-tls")]
    tls: Option<ClientTls>,
    time: Duration,
    answer_size: usize,
    open: Option<Open>,
}

impl fmt::Debug for Client {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Client")
            .field("server", &self.server.to_string())
            .field("user", &self.user)
            .finish_non_exhaustive()
    }
}

/// Where the server is.
#[derive(Clone, Debug)]
enum Place {
    Unix(PathBuf),
    Http(Url),
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unix(path) => path.display().fmt(f),
            Self::Http(url) => url.text.fmt(f),
        }
    }
}

/// The parts of a URL.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Url {
    text: String,
    is_https: bool,
    host: String,
    port: u16,
    path: String,
}

impl Url {
    fn parse(text: &str) -> Option<Self> {
        let (scheme, rest) = text.split_once("://")?;
        let (is_https, default_port) = match scheme.to_ascii_lowercase().as_str() {
            "http" => (false, 80),
            "https" => (true, 443),
            _ => return None,
        };
        let (place, path) = match rest.find('/') {
            Some(at) => rest.split_at_checked(at)?,
            None => (rest, "/"),
        };
        let (host, port) = match place.strip_prefix('[') {
            Some(place) => {
                let (host, port) = place.split_once(']')?;
                host.parse::<std::net::Ipv6Addr>().ok()?;
                (host, port)
            }
            None => place.split_at_checked(place.find(':').unwrap_or(place.len()))?,
        };
        let port = match port.strip_prefix(':') {
            Some(port) => port.parse().ok()?,
            None if port.is_empty() => default_port,
            None => return None,
        };
        let is_host = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | '_' | ':');
        let is_valid =
            !host.is_empty() && host.chars().all(is_host) && path.chars().all(|c| matches!(c, '!'..='~'));
        is_valid.then(|| Self {
            text: text.to_owned(),
            is_https,
            host: host.to_owned(),
            port,
            path: path.to_owned(),
        })
    }

    /// Returns the value of the header `Host`, which has no port, as Kea's clients send it.
    fn host_header(&self) -> String {
        if self.host.contains(':') { format!("[{}]", self.host) } else { self.host.clone() }
    }
}

impl Client {
    /// Creates a client of a UNIX socket. Each command has a connection of its own.
    #[must_use]
    pub fn unix(path: impl Into<PathBuf>) -> Self {
        Self::new(Place::Unix(path.into()))
    }

    /// Creates a client of a server with a URL such as `http://192.0.2.1:8000/`.
    ///
    /// # Errors
    /// Returns [`ClientError::Url`] if it is not such a URL. A user belongs in
    /// [`user`](Self::user).
    pub fn http(url: &str) -> Result<Self, ClientError> {
        let parsed = Url::parse(url);
        // A user with a password may be before the host.
        let shown = || url.rsplit_once('@').map_or(url.to_owned(), |(_, host)| format!("*****@{host}"));
        Ok(Self::new(Place::Http(parsed.ok_or_else(|| ClientError::Url { url: shown() })?)))
    }

    fn new(server: Place) -> Self {
        Self {
            server,
            user: None,
            #[cfg(feature = "control-tls")]
            tls: None,
            time: TIME,
            answer_size: ANSWER_SIZE,
            open: None,
        }
    }

    /// Sets the user for basic authentication over HTTP.
    ///
    /// # Errors
    /// Returns [`AuthError::Invalid`] if the name has a colon, or if both are too long.
    pub fn user(mut self, user: &str, password: &str) -> Result<Self, AuthError> {
        self.user = Some(Credentials::new(user, password)?);
        Ok(self)
    }

    /// Sets how connections to a URL of HTTPS are encrypted.
    #[cfg(feature = "control-tls")]
    #[must_use]
    pub fn tls(mut self, tls: ClientTls) -> Self {
        self.tls = Some(tls);
        self
    }

    /// Sets the maximum time of a command, from connecting to the end of the answer. The default is
    /// 10 seconds.
    pub fn set_time(&mut self, time: Duration) {
        self.time = time;
    }

    /// Sets the maximum size of an answer, in bytes. The default is 256 MiB.
    pub fn set_answer_size(&mut self, size: usize) {
        self.answer_size = size;
    }

    /// Sends a command, and returns the answer: over a UNIX socket a map; over HTTP the body, which
    /// is a list with a map, or a map if the server refuses the request. The status of HTTP is not
    /// looked at, as in Kea.
    ///
    /// # Errors
    /// Returns an error if there is no answer in time, or if the answer is too large.
    pub fn send(&mut self, body: &[u8]) -> Result<Vec<u8>, ClientError> {
        let deadline = Instant::now() + self.time.min(MAX_TIME);
        let mut open = match self.open.take().filter(Open::is_alive) {
            Some(open) => open,
            None => self.connect(deadline)?,
        };
        let (answer, is_kept) = match &self.server {
            Place::Unix(_) => (self.ask_unix(&mut open, body, deadline)?, false),
            Place::Http(url) => self.ask_http(&mut open, url, body, deadline)?,
        };
        self.open = Some(open).filter(|_| is_kept);
        Ok(answer)
    }

    fn invalid(&self, expected: &'static str) -> ClientError {
        ClientError::Invalid { server: self.server.to_string(), expected }
    }

    fn connect(&self, deadline: Instant) -> Result<Open, ClientError> {
        let connected = match &self.server {
            Place::Unix(path) => connect_unix(path, deadline),
            Place::Http(url) if url.is_https => self.connect_tls(url, deadline)?,
            Place::Http(url) => connect_tcp(url, deadline).map(Open::Tcp),
        };
        connected.map_err(|source| ClientError::Connect { server: self.server.to_string(), source })
    }

    #[cfg(feature = "control-tls")]
    fn connect_tls(&self, url: &Url, deadline: Instant) -> Result<io::Result<Open>, ClientError> {
        let tls = self.tls.as_ref().ok_or_else(|| ClientError::NoTls { url: url.text.clone() })?;
        let connect = || {
            let name = rustls::pki_types::ServerName::try_from(url.host.clone()).map_err(io::Error::other)?;
            let session = rustls::ClientConnection::new(std::sync::Arc::clone(&tls.0), name);
            let stream = connect_tcp(url, deadline)?;
            let mut stream = rustls::StreamOwned::new(session.map_err(io::Error::other)?, stream);
            while stream.conn.is_handshaking() {
                limit(&stream.sock, deadline)?;
                without_time_out(stream.conn.complete_io(&mut stream.sock).map(|(read, _)| read))?;
            }
            Ok(Open::Tls(Box::new(stream)))
        };
        Ok(connect())
    }

    #[cfg(not(feature = "control-tls"))]
    fn connect_tls(&self, url: &Url, _: Instant) -> Result<io::Result<Open>, ClientError> {
        Err(ClientError::NoTls { url: url.text.clone() })
    }

    fn ask_unix(&self, open: &mut Open, body: &[u8], deadline: Instant) -> Result<Vec<u8>, ClientError> {
        let lost = |source| ClientError::Lost { server: self.server.to_string(), source };
        open.write_all(body, deadline).map_err(lost)?;
        let (mut answer, mut scan) = (Vec::new(), Scan::new());
        loop {
            match scan.advance(&answer) {
                Progress::Complete(len) => {
                    answer.truncate(len);
                    return Ok(answer);
                }
                Progress::TooDeep => {
                    return Err(self.invalid("expected an answer that is not nested so deep"));
                }
                Progress::Blank | Progress::Begun => {}
            }
            if answer.len() > self.answer_size {
                return Err(self.invalid("expected a smaller answer"));
            }
            open.read_more(&mut answer, deadline).map_err(lost)?;
        }
    }

    /// Returns the answer, and whether the connection can be used again.
    fn ask_http(
        &self,
        open: &mut Open,
        url: &Url,
        body: &[u8],
        deadline: Instant,
    ) -> Result<(Vec<u8>, bool), ClientError> {
        let lost = |source| ClientError::Lost { server: self.server.to_string(), source };
        let authorization = self.user.as_ref().map(|user| format!("Authorization: {}\r\n", user.header()));
        let head = format!(
            "POST {} HTTP/1.1\r\nHost: {}\r\nContent-Length: {}\r\nContent-Type: application/json\r\n{}\r\n",
            url.path,
            url.host_header(),
            body.len(),
            authorization.unwrap_or_default()
        );
        // In one piece: a second packet might wait until the first one is acknowledged.
        open.write_all(&[head.as_bytes(), body].concat(), deadline).map_err(lost)?;
        let mut text = Vec::new();
        let (head, mut answer) = loop {
            match head_len(&text) {
                Ok(Some(len)) => {
                    let rest = text.split_off(len);
                    let head = AnswerHead::parse(&text)
                        .map_err(|_| self.invalid("expected an answer of HTTP/1.1 or HTTP/1.0"))?;
                    // An interim answer comes before the answer.
                    if !(100..200).contains(&head.status) {
                        break (head, rest);
                    }
                    text = rest;
                }
                Ok(None) if text.len() < MAX_HEAD => open.read_more(&mut text, deadline).map_err(lost)?,
                _ => return Err(self.invalid("expected an answer of HTTP/1.1 or HTTP/1.0")),
            }
        };
        let len = head.body_len.ok_or_else(|| self.invalid("expected an answer with its Content-Length"))?;
        let len = usize::try_from(len).ok().filter(|&len| len <= self.answer_size);
        let len = len.ok_or_else(|| self.invalid("expected a smaller answer"))?;
        while answer.len() < len {
            open.read_more(&mut answer, deadline).map_err(lost)?;
        }
        // Nothing may follow the answer: it would be taken for that of the next command.
        let is_kept = head.keep_alive && answer.len() == len;
        answer.truncate(len);
        Ok((answer, is_kept))
    }
}

/// Returns the time that is left.
fn left(deadline: Instant) -> io::Result<Duration> {
    let left = deadline.saturating_duration_since(Instant::now());
    if left.is_zero() { Err(io::ErrorKind::TimedOut.into()) } else { Ok(left) }
}

fn connect_unix(path: &Path, deadline: Instant) -> io::Result<Open> {
    let socket = socket_with(AddressFamily::UNIX, SocketType::STREAM, SocketFlags::CLOEXEC, None)?;
    let stream = UnixStream::from(socket);
    // The server's queue of clients may be full.
    stream.set_write_timeout(Some(left(deadline)?))?;
    connect(&stream, &SocketAddrUnix::new(path)?)?;
    Ok(Open::Unix(stream))
}

fn connect_tcp(url: &Url, deadline: Instant) -> io::Result<TcpStream> {
    let mut last = io::Error::new(io::ErrorKind::NotFound, "the host has no address");
    let addresses: Vec<SocketAddr> = (url.host.as_str(), url.port).to_socket_addrs()?.collect();
    for address in addresses {
        match TcpStream::connect_timeout(&address, left(deadline)?) {
            Ok(stream) => {
                stream.set_nodelay(true)?;
                return Ok(stream);
            }
            Err(error) => last = error,
        }
    }
    Err(last)
}

/// Limits the time of the next read and write.
fn limit(stream: &TcpStream, deadline: Instant) -> io::Result<()> {
    let left = Some(left(deadline)?);
    stream.set_read_timeout(left)?;
    stream.set_write_timeout(left)
}

/// An open connection.
enum Open {
    Unix(UnixStream),
    Tcp(TcpStream),
    #[cfg(feature = "control-tls")]
    Tls(Box<rustls::StreamOwned<rustls::ClientConnection, TcpStream>>),
}

impl Open {
    /// Returns whether the server has neither closed the connection nor sent what was not asked
    /// for.
    fn is_alive(&self) -> bool {
        let stream = match self {
            Self::Unix(_) => return false,
            Self::Tcp(stream) => stream,
            // If anything is unread, also a ticket for a later session, the connection is not used again.
            #[cfg(feature = "control-tls")]
            Self::Tls(stream) => &stream.sock,
        };
        let mut byte = [0];
        let flags = RecvFlags::PEEK | RecvFlags::DONTWAIT;
        match recv(stream, &mut byte, flags) {
            Err(error) => error == rustix::io::Errno::WOULDBLOCK,
            Ok(_) => false,
        }
    }

    fn limit(&self, deadline: Instant) -> io::Result<()> {
        match self {
            Self::Unix(stream) => {
                let left = Some(left(deadline)?);
                stream.set_read_timeout(left)?;
                stream.set_write_timeout(left)
            }
            Self::Tcp(stream) => limit(stream, deadline),
            #[cfg(feature = "control-tls")]
            Self::Tls(stream) => limit(&stream.sock, deadline),
        }
    }

    fn write_all(&mut self, mut bytes: &[u8], deadline: Instant) -> io::Result<()> {
        while !bytes.is_empty() {
            self.limit(deadline)?;
            let written = match self {
                Self::Unix(stream) => stream.write(bytes),
                Self::Tcp(stream) => stream.write(bytes),
                #[cfg(feature = "control-tls")]
                Self::Tls(stream) => stream.write(bytes),
            };
            let written = match without_time_out(written)? {
                Some(0) => return Err(io::ErrorKind::WriteZero.into()),
                Some(written) => written,
                None => 0,
            };
            bytes = bytes.get(written..).unwrap_or_default();
        }
        #[cfg(feature = "control-tls")]
        while let Self::Tls(stream) = self {
            limit(&stream.sock, deadline)?;
            if without_time_out(stream.flush().map(|()| 0))?.is_some() {
                break;
            }
        }
        Ok(())
    }

    fn read_more(&mut self, to: &mut Vec<u8>, deadline: Instant) -> io::Result<()> {
        let mut part = [0; PART];
        loop {
            self.limit(deadline)?;
            let read = match self {
                Self::Unix(stream) => stream.read(&mut part),
                Self::Tcp(stream) => stream.read(&mut part),
                #[cfg(feature = "control-tls")]
                Self::Tls(stream) => stream.read(&mut part),
            };
            match without_time_out(read)? {
                Some(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
                Some(read) => {
                    to.extend_from_slice(part.get(..read).unwrap_or_default());
                    return Ok(());
                }
                None => {}
            }
        }
    }
}

/// Returns `None` if the operation has to be repeated, where the deadline is looked at.
fn without_time_out(result: io::Result<usize>) -> io::Result<Option<usize>> {
    match result {
        Ok(len) => Ok(Some(len)),
        Err(error) => match error.kind() {
            io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut | io::ErrorKind::Interrupted => Ok(None),
            _ => Err(error),
        },
    }
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::*;

    #[rstest]
    #[case("http://192.0.2.1:8000/", false, "192.0.2.1", 8000, "/", "192.0.2.1")]
    #[case("HTTP://host", false, "host", 80, "/", "host")]
    #[case("https://a.example/x?y", true, "a.example", 443, "/x?y", "a.example")]
    #[case("http://[2001:db8::1]:1/", false, "2001:db8::1", 1, "/", "[2001:db8::1]")]
    #[case("http://[::1]", false, "::1", 80, "/", "[::1]")]
    fn a_url_has_parts(
        #[case] text: &str,
        #[case] is_https: bool,
        #[case] host: &str,
        #[case] port: u16,
        #[case] path: &str,
        #[case] header: &str,
    ) {
        let url = Url::parse(text).unwrap();
        assert_eq!((url.is_https, &*url.host, url.port, &*url.path), (is_https, host, port, path));
        assert_eq!(url.host_header(), header);
    }

    #[rstest]
    #[case("")]
    #[case("192.0.2.1:8000")]
    #[case("ftp://host/")]
    #[case("http:///")]
    #[case("http://host:x/")]
    #[case("http://host:99999/")]
    #[case("http://[::1/")]
    #[case("http://[::1]8000/")]
    #[case("http://admin:1234@host/")]
    #[case("http://host/a b")]
    #[case("http://host\r\nx: y/")]
    fn other_texts_are_no_urls(#[case] text: &str) {
        let error = Client::http(text).unwrap_err();
        let shown = format!("{error} {error:?}");
        assert!(error.is_unsent() && !shown.contains("1234@"), "{shown}");
    }

    #[test]
    fn a_client_does_not_show_the_password() {
        let client = Client::http("http://host/").unwrap().user("admin", "1234").unwrap();
        let shown = format!("{client:?}");
        assert!(shown.contains("admin") && !shown.contains("1234"), "{shown}");
    }
}
