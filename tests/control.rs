//! The channels of commands, with a handler of the test: forms of requests, hostile clients,
//! limits, authentication and encryption.

#![expect(clippy::unwrap_used, clippy::panic, reason = "a test")]

#[path = "support/certificates.rs"]
mod certificates;

use std::collections::BTreeMap;
use std::fs;
use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::{Ipv4Addr, Shutdown, SocketAddr, TcpListener, TcpStream};
use std::os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use certificates::Authority;
use leasemgr::control::{
    BasicAuth, Client, ClientError, ClientTls, ControlError, HA_COMMANDS, Http, Limits, Server,
    ServerBuilder, ServerTls, UnixSocket,
};
use leasemgr::request::{Channel, Handler, Outcome, Source};
use rstest::rstest;
use rustix::process::{Resource, Rlimit};
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
    // A listener that accepts no connection, with a full queue.
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

/// A server with an address for HTTP.
struct HttpFixture {
    address: SocketAddr,
    echo: Arc<Echo>,
    server: Server,
}

impl HttpFixture {
    fn new(limits: Limits) -> Self {
        Self::with(limits, |http| http)
    }

    fn with(limits: Limits, http: impl FnOnce(Http) -> Http) -> Self {
        let echo = Arc::new(Echo::default());
        let http = http(Http::new((Ipv4Addr::LOCALHOST, 0).into()));
        let builder = Server::builder(Arc::clone(&echo) as Arc<dyn Handler>).limits(limits).http(http);
        let server = builder.start().unwrap();
        Self { address: server.addresses()[0], echo, server }
    }

    fn connect(&self) -> TcpStream {
        let stream = TcpStream::connect(self.address).unwrap();
        stream.set_read_timeout(Some(TIMEOUT)).unwrap();
        stream.set_write_timeout(Some(TIMEOUT)).unwrap();
        stream
    }

    fn client(&self) -> Client {
        let mut client = Client::http(&format!("http://{}/", self.address)).unwrap();
        client.set_time(TIMEOUT);
        client
    }

    /// Panics unless a new client gets an answer.
    fn assert_serves(&self) {
        let answer = self.client().send(REQUEST).unwrap();
        assert_eq!(serde_json::from_slice::<Value>(&answer).unwrap()[0]["result"], 0);
    }
}

/// An answer of HTTP.
#[derive(Debug)]
struct Answer {
    line: String,
    headers: BTreeMap<String, String>,
    body: Vec<u8>,
}

impl Answer {
    /// Reads an answer; `None` at the end of the connection.
    fn read(stream: &mut impl BufRead) -> Option<Self> {
        let mut line = || {
            let mut line = String::new();
            let len = stream.read_line(&mut line).unwrap_or(0);
            (len > 0).then(|| line.strip_suffix("\r\n").unwrap().to_owned())
        };
        let status = line()?;
        let mut headers = BTreeMap::new();
        while let Some((name, value)) = line().unwrap().split_once(": ") {
            headers.insert(name.to_owned(), value.to_owned());
        }
        let mut body = vec![0; headers["Content-Length"].parse().unwrap()];
        stream.read_exact(&mut body).unwrap();
        Some(Self { line: status, headers, body })
    }

    fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap()
    }

    fn status(&self) -> &str {
        self.line.split(' ').nth(1).unwrap()
    }
}

fn post(body: &[u8], headers: &str) -> Vec<u8> {
    let len = body.len();
    let head = format!(
        "POST / HTTP/1.1\r\nContent-Type: application/json\r\nContent-Length: {len}\r\n{headers}\r\n"
    );
    [head.as_bytes(), body].concat()
}

#[test]
fn requests_in_all_forms_are_answered_as_by_kea() {
    let server = HttpFixture::new(Limits::default());
    for line in include_str!("data/kea-http-forms.jsonl").lines() {
        let case: Value = serde_json::from_str(line).unwrap();
        let form = case["form"].as_str().unwrap();
        let mut stream = BufReader::new(server.connect());
        stream.get_mut().write_all(case["request"].as_str().unwrap().as_bytes()).unwrap();
        let answer = Answer::read(&mut stream).unwrap();
        // This server accepts parameters of the content type.
        let is_accepted = form == "content type with charset";
        let line = if is_accepted { "HTTP/1.1 200 OK" } else { case["status-line"].as_str().unwrap() };
        assert_eq!(answer.line, line, "{form}");
        assert_eq!(answer.json().is_array(), is_accepted || case["is-list"] == true, "{form}");
        for header in case["headers"].as_array().unwrap() {
            assert!(answer.headers.contains_key(header.as_str().unwrap()), "{form}: {header}");
        }
        if answer.json().is_array() {
            assert_eq!(answer.json()[0]["arguments"]["request"]["command"], "ha-heartbeat", "{form}");
        } else {
            assert_eq!(answer.json(), json!({ "result": 400, "text": "Bad Request" }), "{form}");
        }
        if case["closed"] == true && !is_accepted {
            assert!(Answer::read(&mut stream).is_none(), "{form}");
        }
        // This server answers both requests.
        if form.starts_with("two requests") {
            assert_eq!(Answer::read(&mut stream).unwrap().line, "HTTP/1.1 200 OK");
        }
    }
}

#[rstest]
#[case::get("GET / HTTP/1.1\r\n\r\n", "400")]
#[case::put("PUT / HTTP/1.1\r\nContent-Type: application/json\r\nContent-Length: 2\r\n\r\n{}", "400")]
#[case::no_content_type("POST / HTTP/1.1\r\nContent-Length: 2\r\n\r\n{}", "400")]
#[case::a_form(
    "POST / HTTP/1.1\r\nContent-Type: application/x-www-form-urlencoded\r\nContent-Length: 2\r\n\r\n{}",
    "400"
)]
#[case::another_path(
    "POST /a?b HTTP/1.1\r\nContent-Type: application/json\r\nContent-Length: 2\r\n\r\n{}",
    "200"
)]
#[case::two_lengths(
    "POST / HTTP/1.1\r\nContent-Type: application/json\r\nContent-Length: 2\r\nContent-Length: 3\r\n\r\n{}",
    "400"
)]
#[case::a_length_and_chunks(
    "POST / HTTP/1.1\r\nContent-Type: application/json\r\nContent-Length: 2\r\nTransfer-Encoding: chunked\r\n\r\n{}",
    "400"
)]
#[case::truncated_json(
    "POST / HTTP/1.1\r\nContent-Type: application/json\r\nContent-Length: 10\r\n\r\n{\"command\"",
    "400"
)]
#[case::no_json("POST / HTTP/1.1\r\nContent-Type: application/json\r\nContent-Length: 3\r\n\r\n{a}", "400")]
#[case::blank_lines_before(
    "\r\n\r\nPOST / HTTP/1.1\r\nContent-Type: application/json\r\nContent-Length: 2\r\n\r\n{}",
    "200"
)]
fn requests_of_other_kinds(#[case] request: &str, #[case] status: &str) {
    let server = HttpFixture::new(Limits::default());
    let mut stream = BufReader::new(server.connect());
    stream.get_mut().write_all(request.as_bytes()).unwrap();
    assert_eq!(Answer::read(&mut stream).unwrap().status(), status);
}

#[test]
fn an_empty_body_is_answered_with_an_error() {
    let server = HttpFixture::new(Limits::default());
    let answer = server.client().send(b"").unwrap();
    assert_eq!(serde_json::from_slice::<Value>(&answer).unwrap()[0]["result"], 1);
}

#[test]
fn a_large_body_is_asked_for() {
    let server = HttpFixture::new(Limits::default());
    let mut stream = BufReader::new(server.connect());
    let body = json!({ "command": "a", "arguments": "x".repeat(1_000_000) }).to_string();
    let request = post(body.as_bytes(), "Expect: 100-continue\r\n");
    let (head, body) = request.split_at(request.len() - body.len());
    stream.get_mut().write_all(head).unwrap();
    let mut line = String::new();
    stream.read_line(&mut line).unwrap();
    assert_eq!(line, "HTTP/1.1 100 Continue\r\n");
    stream.read_line(&mut line).unwrap();
    stream.get_mut().write_all(body).unwrap();
    assert_eq!(Answer::read(&mut stream).unwrap().status(), "200");
}

#[rstest]
#[case::in_memory(1 << 20)]
#[case::in_a_file(50_000_000)]
fn an_answer_over_http_has_its_length(#[case] size: usize) {
    let directory = tempfile::tempdir().unwrap();
    let mut limits = Limits::default();
    limits.answer_directory = directory.path().to_owned();
    let server = HttpFixture::new(limits);
    let mut client = server.client();
    for _ in 0..2 {
        let request = json!({ "command": "big", "arguments": { "size": size } });
        let answer = client.send(request.to_string().as_bytes()).unwrap();
        let answer: Value = serde_json::from_slice(&answer).unwrap();
        assert_eq!(answer[0]["text"].as_str().unwrap().len(), size / 1000 * 1000);
    }
    assert_eq!(fs::read_dir(directory.path()).unwrap().count(), 0);
}

#[test]
fn a_handler_that_panics_or_fails_is_answered_for_over_http() {
    let server = HttpFixture::new(Limits::default());
    let mut client = server.client();
    for (command, result) in [("panic", 500), ("fail", 500)] {
        let answer = client.send(json!({ "command": command }).to_string().as_bytes()).unwrap();
        assert_eq!(serde_json::from_slice::<Value>(&answer).unwrap()["result"], result);
    }
}

#[test]
fn only_allowed_commands_are_made() {
    let server = HttpFixture::with(Limits::default(), |http| http.allow_only(HA_COMMANDS.iter().copied()));
    let mut stream = BufReader::new(server.connect());
    for (command, status) in [("ha-heartbeat", "200"), ("config-get", "403"), ("list-commands", "200")] {
        let body = json!({ "command": command, "arguments": 7 }).to_string();
        stream.get_mut().write_all(&post(body.as_bytes(), "")).unwrap();
        let answer = Answer::read(&mut stream).unwrap();
        assert_eq!(answer.status(), status);
        if status == "403" {
            assert_eq!(answer.json(), json!({ "result": 403, "text": "Forbidden" }));
        } else {
            assert_eq!(answer.json()[0]["arguments"]["request"]["arguments"], 7);
        }
    }
}

#[test]
fn users_are_authenticated() {
    let users = BasicAuth::new("leases").user("admin", "12:34").unwrap().user("ha", "").unwrap();
    let server = HttpFixture::with(Limits::default(), |http| http.basic_auth(users));
    for (user, password) in [("admin", "12:34"), ("ha", "")] {
        let mut client = server.client().user(user, password).unwrap();
        for _ in 0..2 {
            let answer: Value = serde_json::from_slice(&client.send(REQUEST).unwrap()).unwrap();
            assert_eq!(answer[0]["arguments"]["user"], user);
        }
    }
    let mut wrong = server.client().user("admin", "1234").unwrap();
    for client in [&mut wrong, &mut server.client()] {
        let answer: Value = serde_json::from_slice(&client.send(REQUEST).unwrap()).unwrap();
        assert_eq!(answer, json!({ "result": 401, "text": "Unauthorized" }));
    }
    let mut stream = BufReader::new(server.connect());
    for _ in 0..2 {
        stream.get_mut().write_all(&post(REQUEST, "")).unwrap();
        let answer = Answer::read(&mut stream).unwrap();
        assert_eq!(answer.headers["WWW-Authenticate"], "Basic realm=\"leases\"");
    }
    // A body of this length is not read.
    stream
        .get_mut()
        .write_all(b"POST / HTTP/1.1\r\nContent-Type: application/json\r\nContent-Length: 9999999\r\n\r\n")
        .unwrap();
    assert_eq!(Answer::read(&mut stream).unwrap().status(), "401");
    assert!(Answer::read(&mut stream).is_none());
}

#[test]
fn a_client_opens_a_closed_connection_again() {
    let mut limits = Limits::default();
    limits.idle_time = Duration::from_millis(20);
    let server = HttpFixture::new(limits);
    let mut client = server.client();
    for _ in 0..3 {
        client.send(REQUEST).unwrap();
        thread::sleep(Duration::from_millis(200));
    }
    let address = server.address;
    drop(server.server);
    let error = client.send(REQUEST).unwrap_err();
    assert!(matches!(error, ClientError::Connect { .. }), "{error} from {address}");
    assert!(error.is_unsent());
}

#[test]
fn a_client_uses_one_connection() {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let mut client = Client::http(&format!("http://{}/x", listener.local_addr().unwrap())).unwrap();
    let partner = thread::spawn(move || {
        let (stream, _) = listener.accept().unwrap();
        let mut stream = BufReader::new(stream);
        let mut heads = Vec::new();
        for body in ["[ { \"result\": 0 } ]", "[]"] {
            let mut head = String::new();
            while !head.ends_with("\r\n\r\n") {
                stream.read_line(&mut head).unwrap();
            }
            stream.read_exact(&mut vec![0; REQUEST.len()]).unwrap();
            heads.push(head);
            // In parts, with other headers and without a type.
            let answer = format!(
                "HTTP/1.1 100 Continue\r\n\r\nHTTP/1.0 500 x\r\na: b\r\nConnection: keep-alive\r\ncontent-length: {}\r\n\r\n{body}",
                body.len()
            );
            for part in answer.as_bytes().chunks(7) {
                stream.get_mut().write_all(part).unwrap();
            }
        }
        heads
    });
    assert_eq!(client.send(REQUEST).unwrap(), b"[ { \"result\": 0 } ]");
    assert_eq!(client.send(REQUEST).unwrap(), b"[]");
    let heads = partner.join().unwrap();
    let len = REQUEST.len();
    let expected = format!(
        "POST /x HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: {len}\r\nContent-Type: application/json\r\n\r\n"
    );
    assert_eq!(heads, [expected.as_str(), expected.as_str()]);
}

#[rstest]
#[case::silent("", false)]
#[case::closed("", true)]
#[case::half_an_answer("HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\n[", true)]
#[case::half_an_answer_and_silent("HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\n[", false)]
#[case::chunked("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\n[]\r\n0\r\n\r\n", false)]
#[case::without_length("HTTP/1.1 200 OK\r\n\r\n[]", true)]
#[case::no_http("SSH-2.0-OpenSSH_9\r\n\r\n", false)]
#[case::too_large("HTTP/1.1 200 OK\r\nContent-Length: 999999999999\r\n\r\n", false)]
fn an_answer_that_cannot_be_used_is_an_error(#[case] text: &'static str, #[case] closes: bool) {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let mut client = Client::http(&format!("http://{}/", listener.local_addr().unwrap())).unwrap();
    client.set_time(Duration::from_secs(if closes { 100 } else { 1 }));
    let partner = thread::spawn(move || {
        let (mut stream, _) = listener.accept().unwrap();
        stream.read_exact(&mut [0; 40]).unwrap();
        stream.write_all(text.as_bytes()).unwrap();
        if closes {
            stream.shutdown(Shutdown::Write).unwrap();
        }
        // Until the client closes the connection.
        let _ = stream.read_to_end(&mut Vec::new());
    });
    let error = client.send(REQUEST).unwrap_err();
    assert!(!error.is_unsent(), "{error}");
    drop(client);
    partner.join().unwrap();
}

#[test]
fn a_client_of_a_unix_socket_gets_the_answer() {
    let server = Fixture::new(Limits::default());
    let mut client = Client::unix(&server.path);
    client.set_time(TIMEOUT);
    for number in 0..20 {
        let request = json!({ "command": "a", "arguments": number });
        let answer: Value =
            serde_json::from_slice(&client.send(request.to_string().as_bytes()).unwrap()).unwrap();
        assert_eq!(answer["arguments"]["request"], request);
    }
    client.set_answer_size(1000);
    let big = br#"{"command": "big", "arguments": {"size": 10000000}}"#;
    assert!(matches!(client.send(big).unwrap_err(), ClientError::Invalid { .. }));
    drop(server);
    assert!(client.send(REQUEST).unwrap_err().is_unsent());
}

/// Returns the number of bytes of a part of this process's memory, from `/proc/self/status`.
fn memory(part: &str) -> u64 {
    let status = fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix(part)).unwrap();
    line.trim_matches([':', ' ', '\t', 'k', 'B']).parse::<u64>().unwrap() * 1024
}

/// Limits of a server that hostile clients attack.
fn tight() -> Limits {
    let mut limits = Limits::default();
    limits.connections = 20;
    limits.request_size = 1 << 20;
    limits.memory = 4 << 20;
    limits.request_time = Duration::from_secs(2);
    limits.answer_time = Duration::from_secs(2);
    limits
}

#[test]
fn idle_connections_are_closed_for_others() {
    let limits = rustix::process::getrlimit(Resource::Nofile);
    rustix::process::setrlimit(Resource::Nofile, Rlimit { current: limits.maximum, ..limits }).unwrap();
    let server = HttpFixture::new(tight());
    // All of them, unless the limit of open files is lower.
    let count = limits.maximum.map_or(10_000, |max| max.saturating_sub(1000).min(10_000));
    let mut idle = Vec::new();
    for number in 0..count {
        idle.push(TcpStream::connect(server.address).unwrap());
        if number % 1000 == 0 {
            server.assert_serves();
        }
    }
    server.assert_serves();
    let open = fs::read_dir("/proc/self/fd").unwrap().count() as u64;
    // The clients of this and of other tests, and what is left of the server's ends.
    assert!(open < count + 800, "{open}");
}

#[test]
fn a_server_starts_and_stops_in_a_task() {
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    runtime.block_on(async {
        let server = Fixture::new(Limits::default());
        let error = start_at(&server.path).unwrap_err();
        assert!(matches!(error, ControlError::InUse { .. }));
        assert!(matches!(
            start_at(Path::new("/nonexistent/socket")).unwrap_err(),
            ControlError::Socket { .. }
        ));
    });
}

#[test]
fn times_may_be_without_limit() {
    let mut limits = Limits::default();
    limits.request_time = Duration::MAX;
    limits.idle_time = Duration::MAX;
    limits.answer_time = Duration::MAX;
    let server = HttpFixture::new(limits);
    let mut client = server.client();
    client.set_time(Duration::MAX);
    for _ in 0..2 {
        client.send(REQUEST).unwrap();
    }
}

#[test]
fn an_address_in_use_is_an_error() {
    let server = HttpFixture::new(Limits::default());
    let builder = Server::builder(Arc::new(Echo::default())).http(Http::new(server.address));
    let error = builder.start().unwrap_err();
    assert!(matches!(error, ControlError::Address { .. }), "{error}");
}

#[test]
fn a_client_that_has_sent_requests_is_closed_last() {
    let server = HttpFixture::new(tight());
    let mut stream = BufReader::new(server.connect());
    let mut ask = move || {
        stream.get_mut().write_all(&post(REQUEST, "")).unwrap();
        Answer::read(&mut stream).map(|answer| answer.status().to_owned())
    };
    assert_eq!(ask().as_deref(), Some("200"));
    let idle: Vec<_> = (0..100).map(|_| server.connect()).collect();
    // The first of them are closed already, so they all are accepted.
    for mut stream in idle.iter().take(80) {
        assert_eq!(stream.read(&mut [0]).unwrap_or(0), 0);
    }
    assert_eq!(ask().as_deref(), Some("200"));
}

#[test]
fn busy_connections_are_not_closed_for_others() {
    let server = HttpFixture::new(tight());
    let mut busy: Vec<_> = (0..20).map(|_| BufReader::new(server.connect())).collect();
    for stream in &mut busy {
        stream.get_mut().write_all(&post(br#"{"command": "hold"}"#, "")).unwrap();
    }
    // Eight of them are made, and the others wait.
    wait_until("commands are made", || server.echo.active.load(Ordering::SeqCst) == 8);
    for _ in 0..50 {
        // Those whose request has not been read yet may be closed, but not the others.
        drop(server.connect());
    }
    server.echo.released.store(1, Ordering::SeqCst);
    let answers = busy.iter_mut().filter_map(Answer::read).filter(|answer| answer.status() == "200").count();
    assert!(answers >= 8, "{answers}");
    server.assert_serves();
}

#[test]
fn slow_clients_are_closed() {
    let server = HttpFixture::new(tight());
    let unix = Fixture::new(tight());
    let mut slow = Vec::new();
    for text in [
        "",
        "P",
        "POST / HTTP/1.1\r\n",
        "POST / HTTP/1.1\r\nContent-Type: application/json\r\nContent-Length: 100\r\n\r\n{",
    ] {
        let mut stream = server.connect();
        stream.write_all(text.as_bytes()).unwrap();
        slow.push(stream);
    }
    let mut slow_unix = Vec::new();
    for text in ["", "{", "# "] {
        let mut stream = unix.connect();
        stream.write_all(text.as_bytes()).unwrap();
        slow_unix.push(stream);
    }
    server.assert_serves();
    unix.ask(REQUEST);
    for (number, stream) in slow.iter_mut().enumerate() {
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        assert_eq!(answer.contains("408 Request Timeout"), number > 0, "{answer}");
    }
    for stream in &mut slow_unix {
        assert_eq!(stream.read_to_end(&mut Vec::new()).unwrap(), 0);
    }
}

#[test]
fn a_client_that_sends_byte_by_byte_has_no_more_time() {
    let server = HttpFixture::new(tight());
    let mut stream = server.connect();
    let start = Instant::now();
    wait_until("the connection is closed", || {
        thread::sleep(Duration::from_millis(100));
        stream.write_all(b"x").is_err()
    });
    assert!(start.elapsed() >= Duration::from_secs(2));
}

#[test]
fn clients_that_do_not_read_leave_others_served() {
    let mut limits = tight();
    limits.commands = 2;
    let server = HttpFixture::new(limits.clone());
    let unix = Fixture::new(limits);
    let big = json!({ "command": "big", "arguments": { "size": 20_000_000 } }).to_string();
    let deaf: Vec<_> = (0..10)
        .map(|_| {
            let mut stream = server.connect();
            stream.write_all(&post(big.as_bytes(), "")).unwrap();
            let mut on_socket = unix.connect();
            on_socket.write_all(big.as_bytes()).unwrap();
            (stream, on_socket)
        })
        .collect();
    server.assert_serves();
    assert_eq!(echoed(&unix.ask(REQUEST))["command"], "list-commands");
    for (mut stream, mut on_socket) in deaf {
        // The answer is cut off: the server has closed the connection.
        for len in [stream.read_to_end(&mut Vec::new()), on_socket.read_to_end(&mut Vec::new())] {
            assert!(len.unwrap_or(0) < 20_000_000);
        }
    }
}

#[test]
fn requests_that_are_too_large_are_refused() {
    let server = HttpFixture::new(tight());
    let mut stream = BufReader::new(server.connect());
    stream
        .get_mut()
        .write_all(b"POST / HTTP/1.1\r\nContent-Type: application/json\r\nContent-Length: 1073741824\r\n\r\n")
        .unwrap();
    let mut writer = stream.get_ref().try_clone().unwrap();
    let sent = thread::spawn(move || {
        let part = vec![b' '; 1 << 20];
        (0..1024).take_while(|_| writer.write_all(&part).is_ok()).count()
    });
    assert_eq!(Answer::read(&mut stream).unwrap().status(), "413");
    assert!(sent.join().unwrap() < 1024);
    let mut stream = BufReader::new(server.connect());
    let mut head = b"POST / HTTP/1.1\r\n".to_vec();
    while head.len() < 100_000 {
        head.extend_from_slice(b"a: bbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbb\r\n");
    }
    let _ = stream.get_mut().write_all(&head);
    assert_eq!(Answer::read(&mut stream).unwrap().status(), "400");

    let unix = Fixture::new(tight());
    let mut stream = unix.connect();
    let mut writer = stream.try_clone().unwrap();
    let sent = thread::spawn(move || {
        let part = vec![b'['; 500];
        let _ = writer.write_all(b"[\"");
        (0..1 << 21).take_while(|_| writer.write_all(&part).is_ok()).count()
    });
    assert_eq!(read_map(&mut stream)["result"], 1);
    assert!(sent.join().unwrap() < 1 << 21);
}

#[rstest]
#[case::lists("[")]
#[case::maps("{\"a\":")]
fn deep_json_is_refused(#[case] level: &str) {
    let text = level.repeat(100_000);
    let (server, unix) = (HttpFixture::new(tight()), Fixture::new(tight()));
    let answer = server.client().send(text.as_bytes()).unwrap();
    assert_eq!(serde_json::from_slice::<Value>(&answer).unwrap()["result"], 400);
    let mut stream = unix.connect();
    // The rest of it cannot be sent.
    let _ = stream.write_all(text.as_bytes());
    assert_eq!(read_map(&mut stream)["result"], 1);
}

#[test]
fn large_requests_share_a_limited_memory() {
    const NAME: &str = "LEASEMGR_TEST_OF_MEMORY";
    // In a process of its own, whose memory is that of this test.
    if std::env::var_os(NAME).is_none() {
        let mut child = Command::new(std::env::current_exe().unwrap());
        child.args(["--exact", "large_requests_share_a_limited_memory", "--nocapture"]).env(NAME, "1");
        let output = child.output().unwrap();
        assert!(output.status.success(), "{output:?}");
        return;
    }
    let mut limits = tight();
    limits.connections = 200;
    let server = HttpFixture::new(limits);
    server.assert_serves();
    let before = memory("VmRSS");
    let body = vec![b' '; (1 << 20) - 1];
    let len = 1 << 20;
    let head = format!("POST / HTTP/1.1\r\nContent-Type: application/json\r\nContent-Length: {len}\r\n\r\n");
    let mut all: Vec<_> = (0..100).map(|_| BufReader::new(server.connect())).collect();
    for stream in &mut all {
        // A refused client may find its connection closed.
        let _ = stream.get_mut().write_all(head.as_bytes()).and_then(|()| stream.get_mut().write_all(&body));
    }
    server.assert_serves();
    let mut statuses = BTreeMap::<String, usize>::new();
    for answer in all.iter_mut().filter_map(Answer::read) {
        *statuses.entry(answer.status().to_owned()).or_default() += 1;
    }
    // Those that fitted had no more time.
    assert!(statuses.contains_key("503") && statuses.keys().all(|status| status == "503" || status == "408"));
    let taken = memory("VmHWM") - before;
    assert!(taken < 32 << 20, "{taken} bytes");
    server.assert_serves();
    // The memory is free again.
    let answer = server.client().send(&vec![b' '; 1 << 20]).unwrap();
    assert_eq!(serde_json::from_slice::<Value>(&answer).unwrap()[0]["result"], 1);
}

#[test]
fn half_closed_connections_get_their_answers() {
    let server = HttpFixture::new(tight());
    let mut stream = BufReader::new(server.connect());
    stream.get_mut().write_all(&[post(REQUEST, ""), post(REQUEST, "")].concat()).unwrap();
    stream.get_mut().shutdown(Shutdown::Write).unwrap();
    for _ in 0..2 {
        assert_eq!(Answer::read(&mut stream).unwrap().status(), "200");
    }
    assert!(Answer::read(&mut stream).is_none());
}

#[test]
fn the_threads_end_with_the_server() {
    let server = HttpFixture::new(Limits::default());
    let mut stream = BufReader::new(server.connect());
    stream.get_mut().write_all(&post(br#"{"command": "hold"}"#, "")).unwrap();
    let echo = Arc::clone(&server.echo);
    wait_until("the command is made", || echo.active.load(Ordering::SeqCst) == 1);
    let stopping = thread::spawn(move || drop(server.server));
    echo.released.store(1, Ordering::SeqCst);
    // The command that is being made is answered.
    assert_eq!(Answer::read(&mut stream).unwrap().status(), "200");
    stopping.join().unwrap();
    // The threads had the other references.
    assert_eq!(Arc::strong_count(&echo), 2);
}

/// Returns the first result of a command over HTTPS.
fn ask_encrypted(server: &HttpFixture, tls: &ClientTls, host: &str) -> Result<Value, ClientError> {
    let url = format!("https://{host}:{}/", server.address.port());
    let mut client = Client::http(&url).unwrap().tls(tls.clone());
    client.set_time(TIMEOUT);
    client.send(REQUEST)?;
    // In the same connection.
    let answer: Value = serde_json::from_slice(&client.send(REQUEST)?).unwrap();
    Ok(answer[0]["result"].clone())
}

#[test]
fn connections_are_encrypted() {
    let directory = tempfile::tempdir().unwrap();
    let (authority, stranger) =
        (Authority::new(directory.path(), "authority"), Authority::new(directory.path(), "stranger"));
    let own = authority.certify("server");
    let tls = ServerTls::new(&own.cert, &own.key).unwrap();
    let server = HttpFixture::with(tight(), |http| http.tls(tls));
    let client = ClientTls::new(authority.file()).unwrap();
    assert_eq!(ask_encrypted(&server, &client, "127.0.0.1").unwrap(), 0);
    assert_eq!(ask_encrypted(&server, &client, "localhost").unwrap(), 0);
    // The server is not the one that was asked for, or is not trusted.
    let other = ask_encrypted(&server, &client, "127.0.0.2").unwrap_err();
    assert!(other.is_unsent(), "{other}");
    let untrusted = ClientTls::new(stranger.file()).unwrap();
    assert!(ask_encrypted(&server, &untrusted, "127.0.0.1").unwrap_err().is_unsent());
    // Clients that do not encrypt.
    let mut plain = server.connect();
    plain.write_all(&post(REQUEST, "")).unwrap();
    let mut answer = Vec::new();
    let _ = plain.read_to_end(&mut answer);
    assert!(!answer.starts_with(b"HTTP"));
    let url = format!("https://{}/", server.address);
    let error = Client::http(&url).unwrap().send(REQUEST).unwrap_err();
    assert!(matches!(error, ClientError::NoTls { .. }));
    // A handshake that does not end.
    let mut silent = server.connect();
    assert_eq!(silent.read(&mut [0]).unwrap_or(0), 0);
}

#[test]
fn clients_have_certificates() {
    let directory = tempfile::tempdir().unwrap();
    let (authority, stranger) =
        (Authority::new(directory.path(), "authority"), Authority::new(directory.path(), "stranger"));
    let own = authority.certify("server");
    let tls = ServerTls::with_client_certificates(&own.cert, &own.key, authority.file()).unwrap();
    let server = HttpFixture::with(Limits::default(), |http| http.tls(tls));
    let certificate = authority.certify("client");
    let client = ClientTls::with_certificate(authority.file(), &certificate.cert, &certificate.key).unwrap();
    assert_eq!(ask_encrypted(&server, &client, "127.0.0.1").unwrap(), 0);
    let foreign = stranger.certify("foreign");
    let foreign = ClientTls::with_certificate(authority.file(), &foreign.cert, &foreign.key).unwrap();
    for client in [foreign, ClientTls::new(authority.file()).unwrap()] {
        ask_encrypted(&server, &client, "127.0.0.1").unwrap_err();
    }
    assert_eq!(server.echo.most_active.load(Ordering::SeqCst), 1);
}

#[test]
fn certificates_that_cannot_be_used_are_errors() {
    let directory = tempfile::tempdir().unwrap();
    let authority = Authority::new(directory.path(), "authority");
    let (own, other) = (authority.certify("server"), authority.certify("other"));
    let missing = directory.path().join("missing");
    for error in [
        ServerTls::new(&missing, &own.key).unwrap_err(),
        ServerTls::new(&own.cert, &own.cert).unwrap_err(),
        ServerTls::new(&own.cert, &other.key).unwrap_err(),
        ClientTls::new(&own.key).unwrap_err(),
    ] {
        assert!(!error.to_string().is_empty());
    }
}
