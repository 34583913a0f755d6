//! The channels of commands, with a handler of the test: forms of requests, hostile clients,
//! limits, authentication and encryption.

#![expect(clippy::unwrap_used, clippy::panic, reason = "a test")]

use std::fs;
use std::io::{self, Read, Write};
use std::net::Shutdown;
use std::os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use leasemgr::control::{ControlError, Limits, Server, ServerBuilder, UnixSocket};
use leasemgr::request::{Channel, Handler, Outcome, Source};
use rstest::rstest;
use serde_json::{Value, json};

/// Maximum time to wait for anything.
const TIMEOUT: Duration = Duration::from_secs(120);

/// Answers with the request, and makes a few commands of its own.
#[derive(Default)]
struct Echo {
    /// Number of commands that are being made.
    active: AtomicUsize,
    most_active: AtomicUsize,
    /// `hold` waits until this is set.
    released: AtomicUsize,
}

impl Handler for Echo {
    fn answer(&self, request: &[u8], source: &Source, answer: &mut dyn Write) -> io::Result<Outcome> {
        let active = self.active.fetch_add(1, Ordering::SeqCst) + 1;
        self.most_active.fetch_max(active, Ordering::SeqCst);
        let result = self.make(request, source, answer);
        self.active.fetch_sub(1, Ordering::SeqCst);
        result
    }
}

impl Echo {
    fn make(&self, request: &[u8], source: &Source, answer: &mut dyn Write) -> io::Result<Outcome> {
        let Ok(map) = serde_json::from_slice::<Value>(request) else {
            let text = String::from_utf8_lossy(request);
            if text.trim().is_empty() {
                return Ok(Outcome::NoAnswer);
            }
            let result = if source.channel == Channel::Http { 400 } else { 1 };
            write!(answer, "{}", json!({ "result": result, "text": "Bad Request" }))?;
            return Ok(Outcome::Answered);
        };
        let number = map["arguments"]["size"].as_u64().unwrap_or_default();
        match map["command"].as_str() {
            Some("panic") => panic!("wanted by the test"),
            Some("fail") => return Err(io::Error::other("wanted by the test")),
            Some("no-answer") => return Ok(Outcome::NoAnswer),
            Some("hold") => {
                while self.released.load(Ordering::SeqCst) == 0 {
                    thread::sleep(Duration::from_millis(1));
                }
                write!(answer, "{{ \"result\": 0 }}")?;
            }
            Some("big") => {
                write!(answer, "{{ \"result\": 0, \"text\": \"")?;
                let line = [b'x'; 1000];
                for _ in 0..number / 1000 {
                    answer.write_all(&line)?;
                }
                write!(answer, "\" }}")?;
            }
            _ => {
                let channel = format!("{:?}", source.channel);
                let request = json!({ "request": map, "channel": channel, "user": source.user });
                let text = json!({ "result": 0, "arguments": request });
                answer.write_all(text.to_string().as_bytes())?;
            }
        }
        Ok(Outcome::Answered)
    }
}

fn wait_until(what: &str, mut is_so: impl FnMut() -> bool) {
    let start = Instant::now();
    while !is_so() {
        assert!(start.elapsed() < TIMEOUT, "timed out after {TIMEOUT:?}: {what}");
        thread::sleep(Duration::from_millis(2));
    }
}

/// A server with a UNIX socket.
struct Fixture {
    _directory: tempfile::TempDir,
    path: PathBuf,
    echo: Arc<Echo>,
    server: Option<Server>,
}

impl Fixture {
    fn new(limits: Limits) -> Self {
        Self::with(|path| UnixSocket::new(path), |server| server.limits(limits))
    }

    fn with(
        socket: impl FnOnce(&Path) -> UnixSocket,
        server: impl FnOnce(ServerBuilder) -> ServerBuilder,
    ) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("control.socket");
        let echo = Arc::new(Echo::default());
        let builder = Server::builder(Arc::clone(&echo) as Arc<dyn Handler>).unix(socket(&path));
        let server = server(builder).start().unwrap();
        Self { _directory: directory, path, echo, server: Some(server) }
    }

    fn connect(&self) -> UnixStream {
        let stream = UnixStream::connect(&self.path).unwrap();
        stream.set_read_timeout(Some(TIMEOUT)).unwrap();
        stream.set_write_timeout(Some(TIMEOUT)).unwrap();
        stream
    }

    /// Sends a text, and returns all that is answered until the server closes the connection.
    fn ask(&self, text: &[u8]) -> String {
        let mut stream = self.connect();
        stream.write_all(text).unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        answer
    }
}

/// Reads one answer, which is a map.
fn read_map(stream: &mut impl Read) -> Value {
    let mut values = serde_json::Deserializer::from_reader(stream).into_iter();
    values.next().unwrap().unwrap()
}

fn echoed(answer: &str) -> Value {
    let answer: Value = serde_json::from_str(answer).unwrap_or_else(|error| panic!("{answer}: {error}"));
    assert_eq!(answer["result"], 0, "{answer}");
    answer["arguments"]["request"].clone()
}

const REQUEST: &[u8] = br#"{"command": "list-commands"}"#;

#[test]
fn a_request_is_answered_and_the_socket_closed() {
    let server = Fixture::new(Limits::default());
    let answer: Value = serde_json::from_str(&server.ask(REQUEST)).unwrap();
    let request = json!({ "command": "list-commands" });
    assert_eq!(answer["arguments"], json!({ "request": request, "channel": "Unix", "user": null }));
}

#[rstest]
#[case::nothing("")]
#[case::blanks(" \n\t")]
#[case::a_comment("# {}\n")]
#[case::a_truncated_map("{\"command\": \"list-commands\"")]
#[case::a_truncated_string("{\"command\": \"list-commands}")]
fn a_request_without_an_end_is_not_answered(#[case] text: &str) {
    let server = Fixture::new(Limits::default());
    let mut stream = server.connect();
    stream.write_all(text.as_bytes()).unwrap();
    stream.shutdown(Shutdown::Write).unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    assert_eq!(answer, "");
    assert_eq!(echoed(&server.ask(REQUEST))["command"], "list-commands");
}

#[rstest]
#[case::garbage(r#"{"command": "a"} x"#, r#"{"command":"a"}"#)]
#[case::a_bracket(r#"{"command": "a"}}"#, r#"{"command":"a"}"#)]
#[case::a_newline("{\"command\": \"a\"}\n", r#"{"command":"a"}"#)]
fn what_follows_a_request_is_ignored(#[case] text: &str, #[case] request: &str) {
    let server = Fixture::new(Limits::default());
    assert_eq!(echoed(&server.ask(text.as_bytes())).to_string(), request);
}

#[test]
fn text_that_is_no_json_is_answered_at_once() {
    let server = Fixture::new(Limits::default());
    assert!(server.ask(b"hello").contains("\"result\":1"));
}

#[test]
fn several_requests_are_answered_in_one_connection() {
    let server = Fixture::with(
        |path| UnixSocket::new(path),
        |server| {
            let mut limits = Limits::default();
            limits.second_request_time = TIMEOUT;
            server.limits(limits)
        },
    );
    let mut stream = server.connect();
    for number in 0..50 {
        let request = json!({ "command": "a", "arguments": number });
        stream.write_all(request.to_string().as_bytes()).unwrap();
        assert_eq!(read_map(&mut stream)["arguments"]["request"], request);
    }
    stream.write_all(&[REQUEST, b" \n", REQUEST].concat()).unwrap();
    stream.shutdown(Shutdown::Write).unwrap();
    let mut answers = String::new();
    stream.read_to_string(&mut answers).unwrap();
    assert_eq!(answers.matches("list-commands").count(), 2, "{answers}");
}

#[test]
fn a_request_may_come_in_any_parts() {
    let server = Fixture::new(Limits::default());
    let mut stream = server.connect();
    for byte in br#" {"command": "a } \" b", "arguments": {} } "# {
        stream.write_all(&[*byte]).unwrap();
    }
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    assert_eq!(echoed(&answer)["command"], "a } \" b");
}

#[rstest]
#[case(0o600)]
#[case(0o660)]
#[case(0o666)]
fn the_socket_has_its_mode(#[case] mode: u32) {
    let server = Fixture::with(|path| UnixSocket::new(path).mode(mode), |server| server);
    let metadata = fs::symlink_metadata(&server.path).unwrap();
    assert_eq!(metadata.permissions().mode() & 0o7777, mode);
    assert!(metadata.file_type().is_socket());
}

#[test]
fn the_socket_has_its_owner() {
    let metadata = fs::metadata("/proc/self").unwrap();
    let wanted = if metadata.uid() == 0 { (4321, 1234) } else { (metadata.uid(), metadata.gid()) };
    let server = Fixture::with(|path| UnixSocket::new(path).owner(Some(wanted.0), Some(wanted.1)), |s| s);
    let metadata = fs::symlink_metadata(&server.path).unwrap();
    assert_eq!((metadata.uid(), metadata.gid()), wanted);
    drop(server);
}

#[test]
fn the_socket_is_removed_with_the_server() {
    let mut server = Fixture::new(Limits::default());
    let idle = server.connect();
    server.server = None;
    assert!(!server.path.exists());
    let mut end = Vec::new();
    // The connection is reset if the server had not accepted it.
    let _ = (&idle).read_to_end(&mut end);
    assert!(end.is_empty() && UnixStream::connect(&server.path).is_err());
}

#[test]
fn the_socket_of_another_server_stays() {
    let mut server = Fixture::new(Limits::default());
    fs::remove_file(&server.path).unwrap();
    let other = UnixListener::bind(&server.path).unwrap();
    server.server = None;
    assert!(server.path.exists());
    drop(other);
}

fn start_at(path: &Path) -> Result<Server, ControlError> {
    Server::builder(Arc::new(Echo::default())).unix(UnixSocket::new(path)).start()
}

#[test]
fn a_stale_socket_is_replaced() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("socket");
    drop(UnixListener::bind(&path).unwrap());
    assert!(path.exists());
    let server = start_at(&path).unwrap();
    UnixStream::connect(&path).unwrap();
    drop(server);
}

#[test]
fn a_socket_in_use_is_not_replaced() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("socket");
    let first = start_at(&path).unwrap();
    let error = start_at(&path).unwrap_err();
    assert!(matches!(error, ControlError::InUse { .. }), "{error}");
    UnixStream::connect(&path).unwrap();
    drop(first);
    // A listener that accepts nobody, with a full queue.
    let listener = UnixListener::bind(&path).unwrap();
    rustix::net::listen(&listener, 0).unwrap();
    let _waiting = UnixStream::connect(&path).unwrap();
    let error = start_at(&path).unwrap_err();
    assert!(matches!(error, ControlError::InUse { .. }), "{error}");
}

#[test]
fn another_file_is_not_replaced() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("socket");
    fs::write(&path, "text").unwrap();
    let error = start_at(&path).unwrap_err();
    assert!(matches!(error, ControlError::NotASocket { .. }), "{error}");
    assert_eq!(fs::read(&path).unwrap(), b"text");
    let link = directory.path().join("link");
    std::os::unix::fs::symlink(&path, &link).unwrap();
    assert!(matches!(start_at(&link).unwrap_err(), ControlError::NotASocket { .. }));
}

#[test]
fn one_of_several_servers_that_start_gets_the_socket() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("socket");
    drop(UnixListener::bind(&path).unwrap());
    let servers: Vec<_> = thread::scope(|scope| {
        let starting: Vec<_> = (0..8).map(|_| scope.spawn(|| start_at(&path))).collect();
        starting.into_iter().filter_map(|server| server.join().unwrap().ok()).collect()
    });
    assert_eq!(servers.len(), 1);
    UnixStream::connect(&path).unwrap();
}

#[test]
fn an_answer_is_streamed() {
    let server = Fixture::new(Limits::default());
    let mut stream = server.connect();
    stream.write_all(br#"{"command": "big", "arguments": {"size": 300000000}}"#).unwrap();
    let mut len = 0;
    let mut part = vec![0; 1 << 20];
    while let Ok(more @ 1..) = stream.read(&mut part) {
        len += more;
    }
    assert_eq!(len, 300_000_000 + r#"{ "result": 0, "text": "" }"#.len());
}

#[test]
fn a_handler_that_panics_or_fails_is_answered_for() {
    let server = Fixture::new(Limits::default());
    for command in ["panic", "fail"] {
        let answer = server.ask(json!({ "command": command }).to_string().as_bytes());
        assert_eq!(serde_json::from_str::<Value>(&answer).unwrap()["result"], 1);
    }
    assert_eq!(server.ask(br#"{"command": "no-answer"}"#), "");
}

#[test]
fn the_number_of_commands_at_a_time_is_limited() {
    let mut limits = Limits::default();
    limits.commands = 3;
    let server = Fixture::new(limits);
    let mut streams: Vec<_> = (0..20).map(|_| server.connect()).collect();
    for stream in &mut streams {
        stream.write_all(br#"{"command": "hold"}"#).unwrap();
    }
    wait_until("commands are made", || server.echo.active.load(Ordering::SeqCst) == 3);
    server.echo.released.store(1, Ordering::SeqCst);
    for stream in &mut streams {
        assert_eq!(read_map(stream)["result"], 0);
    }
    assert_eq!(server.echo.most_active.load(Ordering::SeqCst), 3);
}
