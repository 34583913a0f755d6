//! Listens in a thread of its own.

use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::thread::{self, JoinHandle};
use std::time::Duration;

use tokio::net::{TcpListener, TcpSocket, UnixListener};
use tokio::runtime::{Builder, Runtime};
use tokio::sync::{Semaphore, oneshot};
use tokio::time::{sleep, timeout};
#[cfg(feature = "control-tls")]
use tracing::debug;
use tracing::{info, warn};

use super::commands::Shared;
use super::connections::{BACKLOG, Connections};
use super::http::{self, Http, HttpShared};
use super::limits::{Limits, Memory};
use super::unix::{self, SocketFile, UnixSocket};
use crate::request::Handler;

/// Time between two attempts to accept connections after an error, which is usually that the
/// process has too many open files.
const ACCEPT_RETRY: Duration = Duration::from_millis(100);
/// Maximum time for the answers that are being sent when the server is stopped.
const STOP_TIME: Duration = Duration::from_secs(2);
/// Number of threads that read files of answers, beside those that make commands.
const FILE_THREADS: usize = 4;

/// Why a server of commands cannot be started.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ControlError {
    /// The UNIX socket cannot be created.
    #[error("{}: cannot listen on the socket", path.display())]
    Socket {
        /// The path of the socket.
        path: PathBuf,
        /// The error of the system.
        source: io::Error,
    },
    /// A process listens on the socket.
    #[error("{}: another process listens on the socket", path.display())]
    InUse {
        /// The path of the socket.
        path: PathBuf,
    },
    /// The path is that of another file, which is not removed.
    #[error("{}: expected a socket or no file; remove the file if it is not needed", path.display())]
    NotASocket {
        /// The path.
        path: PathBuf,
    },
    /// The address cannot be listened on.
    #[error("{address}: cannot listen on the address")]
    Address {
        /// The address.
        address: SocketAddr,
        /// The error of the system.
        source: io::Error,
    },
    /// The thread of the server cannot be started.
    #[error("cannot start the thread of the control channels")]
    Thread(#[source] io::Error),
}

/// A server that is to be started.
#[must_use]
pub struct ServerBuilder {
    handler: Arc<dyn Handler>,
    limits: Limits,
    sockets: Vec<UnixSocket>,
    https: Vec<Http>,
}

impl fmt::Debug for ServerBuilder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ServerBuilder")
            .field("limits", &self.limits)
            .field("sockets", &self.sockets)
            .field("https", &self.https)
            .finish_non_exhaustive()
    }
}

impl ServerBuilder {
    /// Sets the limits of clients.
    pub fn limits(mut self, limits: Limits) -> Self {
        self.limits = limits;
        self
    }

    /// Adds a UNIX socket.
    pub fn unix(mut self, socket: UnixSocket) -> Self {
        self.sockets.push(socket);
        self
    }

    /// Adds an address for HTTP.
    pub fn http(mut self, http: Http) -> Self {
        self.https.push(http);
        self
    }

    /// Starts the server. Clients can connect when this returns.
    ///
    /// # Errors
    /// Returns an error if a socket or an address cannot be listened on, or if the thread cannot be
    /// started.
    pub fn start(self) -> Result<Server, ControlError> {
        let (started, is_started) = std::sync::mpsc::channel();
        let (stop, stopped) = oneshot::channel();
        // All of the runtime is in the thread: the caller may be in a runtime of its own.
        let thread =
            thread::Builder::new().name("leasemgr-control".to_owned()).spawn(move || match self.listen() {
                Ok(Listening { runtime, all, files, addresses }) => {
                    let _ = started.send(Ok(addresses));
                    run(runtime, &all, files, stopped);
                }
                Err(error) => {
                    let _ = started.send(Err(error));
                }
            });
        let thread = thread.map_err(ControlError::Thread)?;
        let ended = || Err(ControlError::Thread(io::Error::other("the thread has ended")));
        let addresses = is_started.recv().unwrap_or_else(|_| ended())?;
        Ok(Server { stop: Some(stop), thread: Some(thread), addresses })
    }

    fn listen(self) -> Result<Listening, ControlError> {
        let limits = Arc::new(self.limits);
        let memory = Memory::new(limits.memory);
        let channels = self.sockets.len() + self.https.len();
        let runtime = Builder::new_current_thread()
            .enable_all()
            .thread_name("leasemgr-command")
            .max_blocking_threads(channels * limits.commands.max(1) + FILE_THREADS)
            .build()
            .map_err(ControlError::Thread)?;
        let shared = || Shared {
            handler: Arc::clone(&self.handler),
            limits: Arc::clone(&limits),
            memory: memory.clone(),
            commands: Arc::new(Semaphore::new(limits.commands.max(1))),
        };
        let entered = runtime.enter();
        let (mut all, mut files, mut addresses) = (Vec::new(), Vec::new(), Vec::new());
        for socket in &self.sockets {
            let (listener, file) = socket.listen()?;
            info!("commands are answered on {}", file.path().display());
            files.push(file);
            let listener = UnixListener::from_std(listener).map_err(ControlError::Thread)?;
            let connections = Connections::new(limits.connections);
            all.push(Arc::clone(&connections));
            runtime.spawn(serve_unix(listener, connections, Arc::new(shared())));
        }
        for http in self.https {
            let address = http.address;
            let io_error = |source| ControlError::Address { address, source };
            let listener = listen_on(address).map_err(io_error)?;
            let address = listener.local_addr().map_err(io_error)?;
            info!("commands are answered on {address}");
            addresses.push(address);
            let connections = Connections::new(limits.connections);
            all.push(Arc::clone(&connections));
            let shared = Arc::new(HttpShared { http, shared: shared() });
            runtime.spawn(serve_http(listener, connections, shared));
        }
        drop(entered);
        Ok(Listening { runtime, all, files, addresses })
    }
}

fn listen_on(address: SocketAddr) -> io::Result<TcpListener> {
    let socket = if address.is_ipv4() { TcpSocket::new_v4() } else { TcpSocket::new_v6() }?;
    // Connections of an earlier server may be closing.
    socket.set_reuseaddr(true)?;
    socket.bind(address)?;
    socket.listen(BACKLOG)
}

/// A server that listens.
struct Listening {
    runtime: Runtime,
    /// The connections of each channel.
    all: Vec<Arc<Connections>>,
    files: Vec<SocketFile>,
    addresses: Vec<SocketAddr>,
}

async fn serve_unix(listener: UnixListener, connections: Arc<Connections>, shared: Arc<Shared>) {
    let mut is_failing = false;
    loop {
        match listener.accept().await {
            Ok((stream, _)) => {
                is_failing = false;
                let shared = Arc::clone(&shared);
                connections.start(|connection| async move {
                    unix::serve(stream, connection, &shared).await;
                });
            }
            Err(error) => failed_to_accept(&error, &mut is_failing).await,
        }
    }
}

async fn serve_http(listener: TcpListener, connections: Arc<Connections>, shared: Arc<HttpShared>) {
    let mut is_failing = false;
    loop {
        match listener.accept().await {
            Ok((stream, _)) => {
                is_failing = false;
                // Answers are written in one piece, or in large ones.
                let _ = stream.set_nodelay(true);
                let shared = Arc::clone(&shared);
                connections.start(|connection| async move {
                    #[cfg(feature = "control-tls")]
                    if let Some(tls) = &shared.http.tls {
                        let accept = tls.acceptor().accept(stream);
                        match timeout(shared.shared.limits.request_time, accept).await {
                            Ok(Ok(stream)) => http::serve(stream, connection, &shared).await,
                            Ok(Err(error)) => debug!(%error, "a client cannot encrypt its connection"),
                            Err(_) => debug!("a client did not encrypt its connection in time"),
                        }
                        return;
                    }
                    http::serve(stream, connection, &shared).await;
                });
            }
            Err(error) => failed_to_accept(&error, &mut is_failing).await,
        }
    }
}

/// Waits after an error, and logs the first of several.
async fn failed_to_accept(error: &io::Error, is_failing: &mut bool) {
    if !std::mem::replace(is_failing, true) {
        warn!(%error, "cannot accept a connection for commands");
    }
    sleep(ACCEPT_RETRY).await;
}

/// Runs until the server is dropped.
fn run(runtime: Runtime, all: &[Arc<Connections>], files: Vec<SocketFile>, stopped: oneshot::Receiver<()>) {
    runtime.block_on(async {
        let _ = stopped.await;
        // A new server may now take the names of the sockets.
        drop(files);
        for connections in all {
            connections.close();
        }
        let closed = async {
            for connections in all {
                connections.all_closed().await;
            }
        };
        let _ = timeout(STOP_TIME, closed).await;
    });
    // Closes all connections, and waits for the handlers.
    drop(runtime);
}

/// A running server of commands.
///
/// When this is dropped, the sockets are removed, clients are refused, and the answers that are
/// being sent get 2 seconds. Then the connections are closed, and the threads end. That waits for
/// handlers that are still running, so a handler must not drop the server.
#[derive(Debug)]
pub struct Server {
    stop: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<()>>,
    addresses: Vec<SocketAddr>,
}

impl Server {
    /// Returns the addresses for HTTP, in the order in which they were added.
    #[must_use]
    pub fn addresses(&self) -> &[SocketAddr] {
        &self.addresses
    }

    /// Creates a server that passes requests to this handler.
    pub fn builder(handler: Arc<dyn Handler>) -> ServerBuilder {
        ServerBuilder { handler, limits: Limits::default(), sockets: Vec::new(), https: Vec::new() }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        drop(self.stop.take());
        if let Some(thread) = self.thread.take() {
            // A panic was reported when it happened.
            let _ = thread.join();
        }
    }
}
