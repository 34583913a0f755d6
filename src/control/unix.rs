//! Requests by a UNIX socket: JSON values, each of which is a request.

use std::fs::{self, File, Permissions};
use std::io;
use std::os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt};
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};
use std::thread;
use std::time::{Duration, Instant};

use rustix::fs::{AtFlags, CWD, FlockOperation, Gid, Mode, Uid, chownat, fchmod, flock};
use rustix::net::{
    AddressFamily, SocketAddrUnix, SocketFlags, SocketType, bind, connect, listen, socket_with,
};
use tokio::net::UnixStream;

use super::ControlError;
use super::commands::{Shared, Streamed, stream};
use super::connections::{BACKLOG, Connection, Phase};
use super::input::{Input, Stop, Wait};
use super::scan::{Progress, Scan};
use crate::fs::directory_of;
use crate::request::{Channel, Outcome, Source};

/// Maximum time to wait for another process that starts or stops a server in the same directory.
const LOCK_TIME: Duration = Duration::from_secs(10);

/// A UNIX socket to listen on.
#[derive(Clone, Debug)]
pub struct UnixSocket {
    path: PathBuf,
    mode: u32,
    uid: Option<u32>,
    gid: Option<u32>,
}

impl UnixSocket {
    /// Creates the description of a socket with this path and the mode 0660, which belongs to the
    /// user and the group of the process. The directory must exist, and other users should not be
    /// able to write to it.
    #[must_use]
    pub fn new(path: impl Into<PathBuf>) -> Self {
        Self { path: path.into(), mode: 0o660, uid: None, gid: None }
    }

    /// Sets the mode of the socket's file. Users with the permission to write can send commands.
    #[must_use]
    pub fn mode(mut self, mode: u32) -> Self {
        self.mode = mode & 0o777;
        self
    }

    /// Sets the user and the group that the socket's file belongs to; `None` is that of the
    /// process. Only the superuser can set others than those that the process has.
    #[must_use]
    pub fn owner(mut self, uid: Option<u32>, gid: Option<u32>) -> Self {
        (self.uid, self.gid) = (uid, gid);
        self
    }

    /// Creates the socket, and listens on it. A file that a dead server has left is removed first.
    pub(super) fn listen(&self) -> Result<(UnixListener, SocketFile), ControlError> {
        let io_error = |source| ControlError::Socket { path: self.path.clone(), source };
        let lock = lock_directory(&self.path).map_err(io_error)?;
        self.remove_stale()?;
        let listener = self.create().map_err(io_error)?;
        let metadata = fs::symlink_metadata(&self.path).map_err(io_error)?;
        drop(lock);
        let file = SocketFile { path: self.path.clone(), identity: (metadata.dev(), metadata.ino()) };
        Ok((listener, file))
    }

    /// Removes the file of a socket that no process listens on.
    fn remove_stale(&self) -> Result<(), ControlError> {
        let path = &self.path;
        let io_error = |source| ControlError::Socket { path: path.clone(), source };
        match fs::symlink_metadata(path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
            Err(error) => return Err(io_error(error)),
            Ok(metadata) if !metadata.file_type().is_socket() => {
                return Err(ControlError::NotASocket { path: path.clone() });
            }
            Ok(_) => {}
        }
        let address = SocketAddrUnix::new(path).map_err(|error| io_error(error.into()))?;
        let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
        let client = socket_with(AddressFamily::UNIX, SocketType::STREAM, flags, None)
            .map_err(|error| io_error(error.into()))?;
        match connect(&client, &address) {
            Err(rustix::io::Errno::CONNREFUSED) => fs::remove_file(path).map_err(io_error),
            // Its queue may be full.
            Ok(()) | Err(rustix::io::Errno::AGAIN) => Err(ControlError::InUse { path: path.clone() }),
            Err(error) => Err(io_error(error.into())),
        }
    }

    /// Creates the socket. Clients are refused until it has its mode and owner.
    fn create(&self) -> io::Result<UnixListener> {
        let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
        let socket = socket_with(AddressFamily::UNIX, SocketType::STREAM, flags, None)?;
        // In Linux, the new file has this mode, without the bits of the umask.
        let _ = fchmod(&socket, Mode::from_raw_mode(self.mode));
        bind(&socket, &SocketAddrUnix::new(&self.path)?)?;
        if self.uid.is_some() || self.gid.is_some() {
            let (uid, gid) = (self.uid.map(Uid::from_raw), self.gid.map(Gid::from_raw));
            chownat(CWD, &self.path, uid, gid, AtFlags::SYMLINK_NOFOLLOW)?;
        }
        fs::set_permissions(&self.path, Permissions::from_mode(self.mode))?;
        listen(&socket, i32::try_from(BACKLOG).unwrap_or(i32::MAX))?;
        Ok(UnixListener::from(socket))
    }
}

/// Locks the directory of a socket, so that of two servers that start, the second one finds the
/// socket of the first.
fn lock_directory(path: &Path) -> io::Result<File> {
    let directory = File::open(directory_of(path))?;
    let start = Instant::now();
    loop {
        match flock(&directory, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => return Ok(directory),
            Err(rustix::io::Errno::WOULDBLOCK) if start.elapsed() < LOCK_TIME => {
                thread::sleep(Duration::from_millis(10));
            }
            Err(error) => return Err(error.into()),
        }
    }
}

/// The file of a socket, which is removed when this is dropped, unless another server has
/// replaced it.
#[derive(Debug)]
pub(super) struct SocketFile {
    path: PathBuf,
    identity: (u64, u64),
}

impl SocketFile {
    pub(super) fn path(&self) -> &Path {
        &self.path
    }
}

impl Drop for SocketFile {
    fn drop(&mut self) {
        let remove = || {
            let _lock = lock_directory(&self.path)?;
            let metadata = fs::symlink_metadata(&self.path)?;
            if (metadata.dev(), metadata.ino()) == self.identity {
                fs::remove_file(&self.path)?;
            }
            io::Result::Ok(())
        };
        if let Err(error) = remove() {
            tracing::warn!(%error, "{}: the socket cannot be removed", self.path.display());
        }
    }
}

/// Answers the requests of a connection.
pub(super) async fn serve(stream: UnixStream, connection: Connection, shared: &Shared) {
    let mut input = Input::new(stream, &shared.memory);
    let limits = &shared.limits;
    let (mut phase, mut wait) = (Phase::New, Wait::ForFirst);
    loop {
        if !connection.enter(phase) {
            return;
        }
        // What follows a request is ignored, as in Kea, unless it may be another request.
        if phase == Phase::Idle && !may_be_request(&input.buffer) {
            return input.close().await;
        }
        let end = match next(&mut input, wait, shared).await {
            Ok(end) => end,
            // With what is left unread, the client may lose the last answer.
            Err(Refusal::Ended) => return input.close().await,
            Err(Refusal::Answer(text)) => {
                let answer = format!("{{ \"result\": 1, \"text\": \"{text}\" }}");
                return input.refuse(answer.as_bytes(), limits.answer_time).await;
            }
        };
        connection.enter(Phase::Busy);
        let source = Source { channel: Channel::Unix, user: None };
        let Some(answer) = self::stream(shared, input.take(end), source).await else {
            return;
        };
        if !send(&mut input, answer, &connection, shared).await {
            return;
        }
        let idle = if phase == Phase::New { limits.second_request_time } else { limits.idle_time };
        wait = Wait::Idle(idle);
        phase = Phase::Idle;
    }
}

/// Returns whether what is there already may be the beginning of a request.
fn may_be_request(text: &[u8]) -> bool {
    let mut text = text.iter().filter(|byte| !byte.is_ascii_whitespace());
    text.next().is_none_or(|byte| matches!(byte, b'{' | b'#' | b'/'))
}

/// Why there is no request.
enum Refusal {
    /// The connection is closed without an answer.
    Ended,
    /// This is answered.
    Answer(&'static str),
}

/// Reads the next request, and returns its length in the buffer.
async fn next(input: &mut Input<UnixStream>, wait: Wait, shared: &Shared) -> Result<usize, Refusal> {
    let limits = &shared.limits;
    let mut scan = Scan::new();
    let mut deadline = wait.deadline(limits);
    loop {
        match scan.advance(&input.buffer) {
            Progress::Blank => {}
            Progress::Begun => deadline.begin(true, limits),
            Progress::Complete(end) => return Ok(end),
            Progress::TooDeep => return Err(Refusal::Answer("maps and lists are nested too deep")),
        }
        match input.fill(deadline.at(), limits.request_size).await {
            Ok(()) => {}
            Err(Stop::Closed | Stop::TimedOut) => return Err(Refusal::Ended),
            Err(Stop::TooLarge) => return Err(Refusal::Answer("the request is too large")),
            Err(Stop::NoMemory) => return Err(Refusal::Answer("too many large requests at the same time")),
        }
    }
}

/// Sends an answer while it is written. Returns false if the connection has to be closed.
async fn send(
    input: &mut Input<UnixStream>,
    answer: Streamed,
    connection: &Connection,
    shared: &Shared,
) -> bool {
    let Streamed { mut chunks, outcome } = answer;
    let mut is_begun = false;
    while let Some(chunk) = chunks.recv().await {
        is_begun = true;
        connection.enter(Phase::Answering);
        if input.write(&chunk, shared.limits.answer_time).await.is_err() {
            return false;
        }
        connection.enter(Phase::Busy);
    }
    match outcome.await {
        Ok(Ok(Outcome::Answered)) => true,
        Ok(Ok(Outcome::NoAnswer)) => false,
        // The beginning of an answer cannot be taken back: the client finds it truncated.
        Ok(Err(_)) | Err(_) if is_begun => false,
        Ok(Err(_)) | Err(_) => {
            let answer = br#"{ "result": 1, "text": "the command failed for an internal reason" }"#;
            let _ = input.write(answer, shared.limits.answer_time).await;
            false
        }
    }
}
