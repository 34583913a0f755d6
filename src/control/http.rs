//! Requests by HTTP/1.1, as Kea's servers answer them.

use std::borrow::Cow;
use std::collections::BTreeSet;
use std::io;
use std::net::SocketAddr;
use std::os::unix::fs::FileExt;
use std::sync::Arc;
use std::time::SystemTime;

use tokio::io::{AsyncRead, AsyncWrite};
use tokio::task::spawn_blocking;

use super::auth::BasicAuth;
use super::commands::{Kept, Request, Shared, keep};
use super::connections::{Connection, Phase};
use super::head::{MAX_HEAD, RequestHead, head_len, is_http11};
use super::input::{CHUNK, Input, Stop, Wait};
use super::scan::{Progress, Scan, without_comments};
#[cfg(feature = "control-tls")]
use super::tls::ServerTls;
use crate::kea_json::{Json, JsonRef};
use crate::request::{Channel, Outcome, Source};

/// Maximum size of the body of a request that is refused but leaves the connection open, in bytes.
const MAX_IGNORED: u64 = 64 * 1024;
/// Maximum size of an answer whose result may be a status of HTTP, in bytes.
const MAX_STATUS_ANSWER: usize = 4096;

/// The commands that the servers of a pair send to each other, and those that a server of Kea
/// allows with them (`restrict-commands`).
pub const HA_COMMANDS: &[&str] = &[
    "dhcp-disable",
    "dhcp-enable",
    "ha-continue",
    "ha-heartbeat",
    "ha-maintenance-cancel",
    "ha-maintenance-notify",
    "ha-maintenance-start",
    "ha-reset",
    "ha-scopes",
    "ha-sync",
    "ha-sync-complete-notify",
    "lease4-del",
    "lease4-get-page",
    "lease4-update",
    "lease6-bulk-apply",
    "lease6-del",
    "lease6-get-page",
    "lease6-update",
    "list-commands",
    "status-get",
];

/// An address to answer HTTP on.
#[derive(Clone, Debug)]
pub struct Http {
    pub(super) address: SocketAddr,
    auth: Option<BasicAuth>,
    allowed: Option<BTreeSet<String>>,
    #[cfg(feature = "control-tls")]
    pub(super) tls: Option<ServerTls>,
}

impl Http {
    /// Creates the description of an address where all clients may send all commands, without
    /// encryption. With port 0, the system chooses a port:
    /// [`Server::addresses`](super::Server::addresses).
    #[must_use]
    pub fn new(address: SocketAddr) -> Self {
        Self {
            address,
            auth: None,
            allowed: None,
            #[cfg(feature = "control-tls")]
            tls: None,
        }
    }

    /// Allows only these users.
    #[must_use]
    pub fn basic_auth(mut self, users: BasicAuth) -> Self {
        self.auth = Some(users);
        self
    }

    /// Allows only these commands, for example [`HA_COMMANDS`].
    #[must_use]
    pub fn allow_only<'a>(mut self, commands: impl IntoIterator<Item = &'a str>) -> Self {
        self.allowed = Some(commands.into_iter().map(str::to_owned).collect());
        self
    }

    /// Encrypts all connections.
    #[cfg(feature = "control-tls")]
    #[must_use]
    pub fn tls(mut self, tls: ServerTls) -> Self {
        self.tls = Some(tls);
        self
    }
}

/// What the connections of an address share.
pub(super) struct HttpShared {
    pub(super) http: Http,
    pub(super) shared: Shared,
}

/// A status of HTTP.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Status(u16);

impl Status {
    const OK: Self = Self(200);
    const BAD_REQUEST: Self = Self(400);
    const UNAUTHORIZED: Self = Self(401);
    const FORBIDDEN: Self = Self(403);
    const TIMED_OUT: Self = Self(408);
    const TOO_LARGE: Self = Self(413);
    const INTERNAL: Self = Self(500);
    const NO_MEMORY: Self = Self(503);

    /// Returns the reason phrase, which Kea's clients need.
    fn reason(self) -> &'static str {
        match self.0 {
            200 => "OK",
            400 => "Bad Request",
            401 => "Unauthorized",
            403 => "Forbidden",
            404 => "Not Found",
            408 => "Request Timeout",
            413 => "Content Too Large",
            503 => "Service Unavailable",
            other if other < 500 => "Client Error",
            _ => "Internal Server Error",
        }
    }
}

/// The form of an answer.
struct Reply<'a> {
    is_http11: bool,
    keep_alive: bool,
    auth: Option<&'a BasicAuth>,
}

impl Reply<'_> {
    fn head(&self, status: Status, body_len: u64) -> String {
        let version = if self.is_http11 { "1.1" } else { "1.0" };
        let connection = match (self.is_http11, self.keep_alive) {
            (true, true) | (false, false) => "",
            (true, false) => "Connection: close\r\n",
            (false, true) => "Connection: keep-alive\r\n",
        };
        let challenge = match self.auth.filter(|_| status == Status::UNAUTHORIZED) {
            Some(auth) => format!("WWW-Authenticate: Basic realm=\"{}\"\r\n", auth.realm()),
            None => String::new(),
        };
        format!(
            "HTTP/{version} {} {}\r\nContent-Length: {body_len}\r\nContent-Type: application/json\r\n\
             Date: {}\r\n{challenge}{connection}\r\n",
            status.0,
            status.reason(),
            httpdate::fmt_http_date(SystemTime::now())
        )
    }

    /// Returns the answer that says a status only, which is a map as in Kea.
    fn status(&self, status: Status) -> String {
        let body = format!("{{ \"result\": {}, \"text\": \"{}\" }}", status.0, status.reason());
        self.head(status, body.len() as u64) + &body
    }
}

/// Answers the requests of a connection.
pub(super) async fn serve<S: AsyncRead + AsyncWrite + Unpin>(
    stream: S,
    connection: Connection,
    all: &HttpShared,
) {
    let limits = &all.shared.limits;
    let mut input = Input::new(stream, &all.shared.memory);
    let (mut phase, mut wait) = (Phase::New, Wait::ForFirst);
    while connection.enter(phase) {
        let request = match next(&mut input, wait, all).await {
            Ok(request) => request,
            Err(None) => return,
            Err(Some(refused)) => {
                let reply =
                    Reply { is_http11: refused.is_http11, keep_alive: false, auth: all.http.auth.as_ref() };
                let text = reply.status(refused.status);
                return input.refuse(text.as_bytes(), limits.answer_time).await;
            }
        };
        let reply = Reply {
            is_http11: request.is_http11,
            keep_alive: request.head.keep_alive,
            auth: all.http.auth.as_ref(),
        };
        connection.enter(Phase::Busy);
        let sent = match request.user {
            Ok(user) => {
                let answer = answer(all, input.take(request.body_len), user).await;
                connection.enter(Phase::Answering);
                send(&mut input, &reply, answer, all).await
            }
            Err(Unauthorized) => {
                input.take(request.body_len);
                let text = reply.status(Status::UNAUTHORIZED);
                input.write(text.as_bytes(), limits.answer_time).await
            }
        };
        if sent.is_err() {
            return;
        }
        if !reply.keep_alive {
            input.close().await;
            return;
        }
        (phase, wait) = (Phase::Idle, Wait::Idle(limits.idle_time));
    }
}

/// A request that is in the buffer, without its head.
struct Next {
    is_http11: bool,
    head: RequestHead,
    body_len: usize,
    user: Result<Option<String>, Unauthorized>,
}

struct Unauthorized;

/// A request after which the connection is closed.
struct Refused {
    is_http11: bool,
    status: Status,
}

/// Reads the next request. An error of `None` is not answered.
async fn next<S: AsyncRead + AsyncWrite + Unpin>(
    input: &mut Input<S>,
    wait: Wait,
    all: &HttpShared,
) -> Result<Next, Option<Refused>> {
    let limits = &all.shared.limits;
    let mut deadline = wait.deadline(limits);
    let len = loop {
        // A blank line may come before a request (RFC 9112, section 2.2).
        while input.buffer.starts_with(b"\r\n") {
            input.buffer.drain(..2);
        }
        let refused = |status| Refused { is_http11: is_http11(&input.buffer), status };
        match head_len(&input.buffer) {
            Ok(Some(len)) => break len,
            Ok(None) => {}
            Err(_) => return Err(Some(refused(Status::BAD_REQUEST))),
        }
        let is_begun = !input.buffer.is_empty();
        deadline.begin(is_begun, limits);
        match input.fill(deadline.at(), MAX_HEAD).await {
            Ok(()) => {}
            Err(Stop::TimedOut) if is_begun => {
                return Err(Some(Refused { is_http11: is_http11(&input.buffer), status: Status::TIMED_OUT }));
            }
            Err(Stop::TooLarge) => {
                return Err(Some(Refused {
                    is_http11: is_http11(&input.buffer),
                    status: Status::BAD_REQUEST,
                }));
            }
            Err(_) => return Err(None),
        }
    };
    let (head, _) = input.take(len);
    let is_http11 = is_http11(&head);
    let refused = |status| Err(Some(Refused { is_http11, status }));
    let Ok(head) = RequestHead::parse(&head) else {
        return refused(Status::BAD_REQUEST);
    };
    let user = match &all.http.auth {
        None => Ok(None),
        Some(auth) => {
            let user = head.authorization.as_deref().and_then(|header| auth.authenticate(header));
            user.map(Some).ok_or(Unauthorized)
        }
    };
    let Some(body_len) = head.body_len.filter(|_| head.is_post && head.is_json) else {
        return refused(if user.is_ok() { Status::BAD_REQUEST } else { Status::UNAUTHORIZED });
    };
    if user.is_err() && body_len > MAX_IGNORED {
        return refused(Status::UNAUTHORIZED);
    }
    let Some(body_len) = usize::try_from(body_len).ok().filter(|&len| len <= limits.request_size) else {
        return refused(Status::TOO_LARGE);
    };
    if head.expects_continue && input.buffer.len() < body_len {
        let text = b"HTTP/1.1 100 Continue\r\n\r\n";
        input.write(text, limits.answer_time).await.map_err(|_| None)?;
    }
    while input.buffer.len() < body_len {
        deadline.begin(true, limits);
        match input.fill(deadline.at(), body_len).await {
            Ok(()) => {}
            Err(Stop::Closed) => return Err(None),
            Err(Stop::TimedOut) => return refused(Status::TIMED_OUT),
            Err(Stop::TooLarge) => return refused(Status::TOO_LARGE),
            Err(Stop::NoMemory) => return refused(Status::NO_MEMORY),
        }
    }
    Ok(Next { is_http11, head, body_len, user })
}

/// Makes the command of a request.
async fn answer(all: &HttpShared, request: Request, user: Option<String>) -> Result<Kept, Status> {
    let source = Source { channel: Channel::Http, user };
    let allowed = all.http.allowed.clone();
    let made = keep(&all.shared, move |call| {
        let (text, _memory) = request;
        let text = checked(&text, allowed.as_ref())?;
        call(&text, &source).map_err(|_| Status::INTERNAL)
    });
    let (outcome, mut kept) = made.await.ok_or(Status::INTERNAL)?;
    if outcome? == Outcome::NoAnswer {
        let text = br#"{ "result": 1, "text": "expected a command" }"#;
        io::Write::write_all(&mut kept, text).map_err(|_| Status::INTERNAL)?;
    }
    match kept.in_memory().and_then(status_of) {
        Some(status) => Err(status),
        None => Ok(kept),
    }
}

/// Returns the request as it is passed to the handler.
fn checked<'a>(text: &'a [u8], allowed: Option<&BTreeSet<String>>) -> Result<Cow<'a, [u8]>, Status> {
    match Scan::new().advance(text) {
        Progress::Blank => return Ok(Cow::Borrowed(text)),
        Progress::Begun | Progress::TooDeep => return Err(Status::BAD_REQUEST),
        Progress::Complete(_) => {}
    }
    let json = Json::parse(&without_comments(text)).map_err(|_| Status::BAD_REQUEST)?;
    let Some(allowed) = allowed else {
        return Ok(Cow::Borrowed(text));
    };
    if let Some(command) = json.root().get("command").and_then(JsonRef::as_bytes) {
        let is_allowed = std::str::from_utf8(&command).is_ok_and(|name| allowed.contains(name));
        if !is_allowed {
            return Err(Status::FORBIDDEN);
        }
    }
    // What is made is what was checked: there is no second way to read it.
    Ok(Cow::Owned(json.as_str().as_bytes().to_vec()))
}

/// Returns the status of an answer whose result is one of HTTP.
fn status_of(answer: &[u8]) -> Option<Status> {
    if answer.len() > MAX_STATUS_ANSWER {
        return None;
    }
    let result = Json::parse_map(answer).ok()?.root().get("result")?.as_u64()?;
    u16::try_from(result).ok().filter(|result| (400..600).contains(result)).map(Status)
}

/// Sends an answer: a list with the map that the handler wrote, or a status.
async fn send<S: AsyncRead + AsyncWrite + Unpin>(
    input: &mut Input<S>,
    reply: &Reply<'_>,
    answer: Result<Kept, Status>,
    all: &HttpShared,
) -> io::Result<()> {
    const BEFORE: &str = "[ ";
    const AFTER: &str = " ]";
    let time = all.shared.limits.answer_time;
    let kept = match answer {
        Ok(kept) => kept,
        Err(status) => return input.write(reply.status(status).as_bytes(), time).await,
    };
    let len = kept.len();
    let mut head = reply.head(Status::OK, len + (BEFORE.len() + AFTER.len()) as u64);
    head.push_str(BEFORE);
    if let Some(text) = kept.in_memory() {
        let mut head = head.into_bytes();
        if text.len() <= CHUNK {
            // In one packet, if it fits.
            head.extend_from_slice(text);
            head.extend_from_slice(AFTER.as_bytes());
            return input.write(&head, time).await;
        }
        input.write(&head, time).await?;
        input.write(text, time).await?;
        return input.write(AFTER.as_bytes(), time).await;
    }
    input.write(head.as_bytes(), time).await?;
    let lost = || io::Error::other("the file of an answer is lost");
    let file = Arc::new(spawn_blocking(|| kept.into_file()).await??.ok_or_else(lost)?);
    let mut at = 0;
    while at < len {
        let file = Arc::clone(&file);
        let chunk = spawn_blocking(move || {
            let mut chunk = vec![0; CHUNK];
            let read = file.read_at(&mut chunk, at)?;
            chunk.truncate(read);
            io::Result::Ok(chunk)
        });
        let chunk = chunk.await??;
        if chunk.is_empty() {
            return Err(lost());
        }
        input.write(&chunk, time).await?;
        at += chunk.len() as u64;
    }
    input.write(AFTER.as_bytes(), time).await
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::*;

    #[rstest]
    #[case::allowed(r#"{"command": "ha-heartbeat"}"#, Ok(r#"{ "command": "ha-heartbeat" }"#))]
    #[case::forbidden(r#"{"command": "config-get"}"#, Err(403))]
    #[case::the_last_of_two(r#"{"command": "ha-heartbeat", "command": "config-get"}"#, Err(403))]
    #[case::the_first_of_two(
        r#"{"command": "config-get", "command": "ha-heartbeat"}"#,
        Ok(r#"{ "command": "ha-heartbeat" }"#)
    )]
    #[case::with_escapes(r#"{"c\u006fmmand": "c\u006fnfig-get"}"#, Err(403))]
    #[case::after_a_comment("# \"command\": \"ha-heartbeat\"\n{\"command\": \"config-get\"}", Err(403))]
    #[case::no_utf_8(r#"{"command": "\u00ff"}"#, Err(403))]
    #[case::without_a_command("{}", Ok("{  }"))]
    #[case::a_list("[]", Ok("[  ]"))]
    #[case::nothing("", Ok(""))]
    #[case::truncated("{", Err(400))]
    #[case::no_json("{a}", Err(400))]
    fn commands_are_restricted(#[case] text: &str, #[case] expected: Result<&str, u16>) {
        let allowed = HA_COMMANDS.iter().map(|&name| name.to_owned()).collect();
        let found = checked(text.as_bytes(), Some(&allowed));
        let found = found.map(|text| String::from_utf8(text.into_owned()).unwrap());
        assert_eq!(found, expected.map(str::to_owned).map_err(Status));
    }

    #[rstest]
    #[case(r#"{ "result": 400, "text": "" }"#, Some(400))]
    #[case(r#"{ "result": 599 }"#, Some(599))]
    #[case(r#"{ "result": 4 }"#, None)]
    #[case(r#"{ "result": 600 }"#, None)]
    #[case("", None)]
    fn results_may_be_statuses(#[case] answer: &str, #[case] status: Option<u16>) {
        assert_eq!(status_of(answer.as_bytes()), status.map(Status));
    }
}
