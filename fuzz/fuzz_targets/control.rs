//! Requests to a UNIX socket and over HTTP: each answer is complete, and the server goes on.
#![no_main]

use std::io::{self, Read, Write};
use std::net::{Ipv4Addr, Shutdown, SocketAddr, TcpStream};
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::process;
use std::sync::{Arc, LazyLock};
use std::time::Duration;

use leasemgr::control::{BasicAuth, HA_COMMANDS, Http, Server, UnixSocket};
use leasemgr::request::{Handler, Outcome, Source};
use libfuzzer_sys::fuzz_target;

/// Answers with the length of the request.
struct Length;

impl Handler for Length {
    fn answer(&self, request: &[u8], _: &Source, answer: &mut dyn Write) -> io::Result<Outcome> {
        write!(answer, "{{ \"result\": 0, \"length\": {} }}", request.len())?;
        Ok(Outcome::Answered)
    }
}

/// A server that never ends: its socket, an open address, and one with users and few commands.
static SERVER: LazyLock<(Server, PathBuf, SocketAddr, SocketAddr)> = LazyLock::new(|| {
    let path = std::env::temp_dir().join(format!("leasemgr-fuzz-{}.socket", process::id()));
    let users = BasicAuth::new("fuzz").user("a", "b").expect("a valid user");
    let any_port = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
    let server = Server::builder(Arc::new(Length))
        .unix(UnixSocket::new(&path))
        .http(Http::new(any_port).allow_only(HA_COMMANDS.iter().copied()))
        .http(Http::new(any_port).basic_auth(users))
        .start()
        .expect("the server starts");
    let addresses = (server.addresses()[0], server.addresses()[1]);
    (server, path, addresses.0, addresses.1)
});

/// Sends a text and the end of the connection, and returns the answers.
fn ask<S: Read + Write>(mut stream: S, text: &[u8], close: impl Fn(&S)) -> Vec<u8> {
    // The server may have closed the connection.
    let _ = stream.write_all(text);
    close(&stream);
    let mut answers = Vec::new();
    match stream.read_to_end(&mut answers) {
        Err(error) if error.kind() == io::ErrorKind::WouldBlock => panic!("the connection stays open"),
        _ => answers,
    }
}

fn ask_http(address: SocketAddr, text: &[u8]) -> Vec<u8> {
    let stream = TcpStream::connect(address).expect("the server listens");
    stream.set_read_timeout(Some(Duration::from_secs(50))).expect("a valid time");
    ask(stream, text, |stream| {
        let _ = stream.shutdown(Shutdown::Write);
    })
}

/// Checks that a text consists of complete answers.
fn check_http(mut text: &[u8]) {
    while !text.is_empty() {
        if let Some(rest) = text.strip_prefix(b"HTTP/1.1 100 Continue\r\n\r\n") {
            text = rest;
            continue;
        }
        let end = text.windows(4).position(|four| four == b"\r\n\r\n").expect("an answer has a head");
        let head = std::str::from_utf8(&text[..end]).expect("heads are ASCII");
        assert!(head.starts_with("HTTP/1."), "{head}");
        let len = head.lines().find_map(|line| line.strip_prefix("Content-Length: "));
        let len: usize = len.expect("an answer has a length").parse().expect("a number");
        let body = &text[end + 4..][..len];
        assert!(body.starts_with(b"[ {") || body.starts_with(b"{ \"result\": 4"), "{head}");
        text = &text[end + 4 + len..];
    }
}

fuzz_target!(|text: &[u8]| {
    let (_, path, open, restricted) = &*SERVER;
    let stream = UnixStream::connect(path).expect("the server listens");
    stream.set_read_timeout(Some(Duration::from_secs(50))).expect("a valid time");
    let answers = ask(stream, text, |stream| {
        let _ = stream.shutdown(Shutdown::Write);
    });
    let answers = String::from_utf8(answers).expect("answers are ASCII");
    assert!(answers.is_empty() || answers.starts_with("{ \"result\": "), "{answers}");

    check_http(&ask_http(*open, text));
    check_http(&ask_http(*restricted, text));
    let head = format!(
        "POST / HTTP/1.1\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\r\n",
        text.len()
    );
    check_http(&ask_http(*open, &[head.as_bytes(), text].concat()));
});
