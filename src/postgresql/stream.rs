//! A socket for `tokio-postgres` without a runtime: the calling thread polls a future, and waits
//! with poll(2) for the socket when the future has to.

use std::future::Future;
use std::io::{self, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream, ToSocketAddrs};
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll, Wake, Waker};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::net::sockopt;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// When the server is asked whether it is there, after no data came.
const KEEPALIVE_AFTER: Duration = Duration::from_secs(60);
const KEEPALIVE_INTERVAL: Duration = Duration::from_secs(10);
const KEEPALIVE_PROBES: u32 = 6;

#[derive(Debug)]
enum Kind {
    Tcp(TcpStream),
    Unix(UnixStream),
}

/// A socket that does not block, and what its user waits for.
#[derive(Debug)]
pub(super) struct Socket {
    kind: Kind,
    /// Whether the last read found no data.
    wants_read: AtomicBool,
    /// Whether the last write found no room.
    wants_write: AtomicBool,
}

impl Socket {
    /// Connects to the first address of a host that accepts it.
    pub(super) fn tcp(
        host: &str,
        port: u16,
        deadline: Instant,
        user_timeout: Option<Duration>,
    ) -> io::Result<Self> {
        let mut error = io::Error::new(io::ErrorKind::NotFound, "the host has no address");
        for address in (host, port).to_socket_addrs()? {
            match tcp(address, deadline, user_timeout) {
                Ok(stream) => return Ok(Self::new(Kind::Tcp(stream))),
                Err(err) => error = err,
            }
        }
        Err(error)
    }

    /// Connects to the socket of a server on this machine.
    pub(super) fn unix(path: &Path) -> io::Result<Self> {
        let stream = UnixStream::connect(path)?;
        stream.set_nonblocking(true)?;
        Ok(Self::new(Kind::Unix(stream)))
    }

    fn new(kind: Kind) -> Self {
        Self { kind, wants_read: AtomicBool::new(false), wants_write: AtomicBool::new(false) }
    }

    fn fd(&self) -> BorrowedFd<'_> {
        match &self.kind {
            Kind::Tcp(stream) => stream.as_fd(),
            Kind::Unix(stream) => stream.as_fd(),
        }
    }

    /// Waits until the socket has what was noted as missing.
    fn wait(&self, limits: &Limits) -> io::Result<()> {
        let wants_write = self.wants_write.load(Ordering::Relaxed);
        let mut flags = PollFlags::empty();
        flags.set(PollFlags::OUT, wants_write);
        flags.set(PollFlags::IN, !wants_write || self.wants_read.load(Ordering::Relaxed));
        let deadline = limits.deadline(wants_write);
        loop {
            let timeout = deadline.map(|at| at.saturating_duration_since(Instant::now()));
            let timeout = timeout.and_then(|timeout| Timespec::try_from(timeout).ok());
            match poll(&mut [PollFd::from_borrowed_fd(self.fd(), flags)], timeout.as_ref()) {
                Ok(0) => return Err(io::Error::new(io::ErrorKind::TimedOut, "the server does not answer")),
                Ok(_) => return Ok(()),
                Err(rustix::io::Errno::INTR) => {}
                Err(err) => return Err(err.into()),
            }
        }
    }
}

fn tcp(address: SocketAddr, deadline: Instant, user_timeout: Option<Duration>) -> io::Result<TcpStream> {
    let remaining = deadline.saturating_duration_since(Instant::now());
    if remaining.is_zero() {
        return Err(io::ErrorKind::TimedOut.into());
    }
    let stream = TcpStream::connect_timeout(&address, remaining)?;
    stream.set_nodelay(true)?;
    stream.set_nonblocking(true)?;
    sockopt::set_socket_keepalive(&stream, true)?;
    sockopt::set_tcp_keepidle(&stream, KEEPALIVE_AFTER)?;
    sockopt::set_tcp_keepintvl(&stream, KEEPALIVE_INTERVAL)?;
    sockopt::set_tcp_keepcnt(&stream, KEEPALIVE_PROBES)?;
    #[cfg(any(target_os = "android", target_os = "linux"))]
    if let Some(timeout) = user_timeout {
        let milliseconds = u32::try_from(timeout.as_millis()).unwrap_or(u32::MAX);
        sockopt::set_tcp_user_timeout(&stream, milliseconds)?;
    }
    #[cfg(not(any(target_os = "android", target_os = "linux")))]
    let _ = user_timeout;
    Ok(stream)
}

/// For how long a thread waits for a socket.
#[derive(Clone, Copy, Debug)]
pub(super) enum Limits {
    /// Until this time.
    Until(Instant),
    /// For this long each time that it waits for data, or for room for data.
    Each { read: Option<Duration>, write: Option<Duration> },
}

impl Limits {
    fn deadline(&self, wants_write: bool) -> Option<Instant> {
        match self {
            Self::Until(deadline) => Some(*deadline),
            Self::Each { write, .. } if wants_write => write.map(|timeout| Instant::now() + timeout),
            Self::Each { read, .. } => read.map(|timeout| Instant::now() + timeout),
        }
    }
}

/// Whether a future was woken since it was polled.
#[derive(Debug, Default)]
pub(super) struct Woken(AtomicBool);

impl Woken {
    /// Returns whether it was, and forgets it.
    pub(super) fn take(&self) -> bool {
        self.0.swap(false, Ordering::AcqRel)
    }
}

impl Wake for Woken {
    fn wake(self: Arc<Self>) {
        self.0.store(true, Ordering::Release);
    }

    fn wake_by_ref(self: &Arc<Self>) {
        self.0.store(true, Ordering::Release);
    }
}

/// What polls futures in the calling thread.
#[derive(Debug)]
pub(super) struct Executor {
    socket: Arc<Socket>,
    woken: Arc<Woken>,
    waker: Waker,
}

impl Executor {
    pub(super) fn new(socket: Socket) -> Self {
        let woken = Arc::<Woken>::default();
        Self { socket: Arc::new(socket), waker: Waker::from(Arc::clone(&woken)), woken }
    }

    /// Returns the socket as a stream of bytes.
    pub(super) fn stream(&self) -> Stream {
        Stream(Arc::clone(&self.socket))
    }

    pub(super) fn waker(&self) -> &Waker {
        &self.waker
    }

    /// Forgets that futures were woken, before those are polled.
    pub(super) fn forget_wakes(&self) {
        self.woken.take();
    }

    /// Polls until there is a result. A step polls futures that wait for the socket alone, or for
    /// each other.
    pub(super) fn run<T>(
        &self,
        limits: &Limits,
        mut step: impl FnMut(&mut Context<'_>) -> Poll<T>,
    ) -> io::Result<T> {
        let mut context = Context::from_waker(&self.waker);
        loop {
            self.socket.wants_write.store(false, Ordering::Relaxed);
            self.socket.wants_read.store(false, Ordering::Relaxed);
            if let Poll::Ready(result) = step(&mut context) {
                return Ok(result);
            }
            if !self.woken.take() {
                self.socket.wait(limits)?;
            }
        }
    }

    /// Polls a future that uses the socket itself.
    pub(super) fn run_future<T>(&self, limits: &Limits, future: impl Future<Output = T>) -> io::Result<T> {
        let mut future = pin!(future);
        self.run(limits, |context| future.as_mut().poll(context))
    }
}

/// A socket as `tokio-postgres` reads and writes it. Wakes no one: the thread that polls it waits.
#[derive(Debug)]
pub(super) struct Stream(Arc<Socket>);

/// Tries an operation until it is not interrupted.
fn attempt<T>(blocked: &AtomicBool, mut operation: impl FnMut() -> io::Result<T>) -> Poll<io::Result<T>> {
    loop {
        match operation() {
            Err(err) if err.kind() == io::ErrorKind::Interrupted => {}
            Err(err) if err.kind() == io::ErrorKind::WouldBlock => {
                blocked.store(true, Ordering::Relaxed);
                return Poll::Pending;
            }
            result => return Poll::Ready(result),
        }
    }
}

impl AsyncRead for Stream {
    fn poll_read(
        self: Pin<&mut Self>,
        _: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let socket = &*self.0;
        let room = buffer.initialize_unfilled();
        let read = attempt(&socket.wants_read, || match &socket.kind {
            Kind::Tcp(stream) => (&*stream).read(room),
            Kind::Unix(stream) => (&*stream).read(room),
        });
        read.map_ok(|length| buffer.advance(length))
    }
}

impl AsyncWrite for Stream {
    fn poll_write(self: Pin<&mut Self>, _: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let socket = &*self.0;
        attempt(&socket.wants_write, || match &socket.kind {
            Kind::Tcp(stream) => (&*stream).write(bytes),
            Kind::Unix(stream) => (&*stream).write(bytes),
        })
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(match &self.0.kind {
            Kind::Tcp(stream) => stream.shutdown(Shutdown::Write),
            Kind::Unix(stream) => stream.shutdown(Shutdown::Write),
        })
    }
}
