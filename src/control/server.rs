//! Listens in a thread of its own.

use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::thread::{self, JoinHandle};
use std::time::Duration;

use tokio::runtime::{Builder, Runtime};
use tokio::sync::{Semaphore, oneshot};
use tokio::time::{sleep, timeout};
use tracing::{info, warn};

use super::commands::Shared;
use super::connections::Connections;
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
}

impl fmt::Debug for ServerBuilder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ServerBuilder")
            .field("limits", &self.limits)
            .field("sockets", &self.sockets)
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

    /// Starts the server. Clients can connect when this returns.
    ///
    /// # Errors
    /// Returns an error if a socket or an address cannot be listened on, or if the thread cannot be
    /// started.
    pub fn start(self) -> Result<Server, ControlError> {
        let limits = Arc::new(self.limits);
        let memory = Memory::new(limits.memory);
        let channels = self.sockets.len();
        let runtime = Builder::new_current_thread()
            .enable_all()
            .thread_name("leasemgr-command")
            .max_blocking_threads(channels.max(1) * limits.commands.max(1) + FILE_THREADS)
            .build()
            .map_err(ControlError::Thread)?;
        let shared = || {
            Arc::new(Shared {
                handler: Arc::clone(&self.handler),
                limits: Arc::clone(&limits),
                memory: memory.clone(),
                commands: Arc::new(Semaphore::new(limits.commands.max(1))),
            })
        };
        let mut all = Vec::new();
        let mut files = Vec::new();
        for socket in &self.sockets {
            let (listener, file) = socket.listen()?;
            info!("commands are answered on {}", file.path().display());
            files.push(file);
            let _runtime = runtime.enter();
            let listener = tokio::net::UnixListener::from_std(listener).map_err(ControlError::Thread)?;
            let connections = Connections::new(limits.connections);
            all.push(Arc::clone(&connections));
            let shared = shared();
            runtime.spawn(async move {
                loop {
                    match listener.accept().await {
                        Ok((stream, _)) => {
                            let shared = Arc::clone(&shared);
                            connections.start(|connection| async move {
                                unix::serve(stream, connection, &shared).await;
                            });
                        }
                        Err(error) => failed_to_accept(&error).await,
                    }
                }
            });
        }
        let (stop, stopped) = oneshot::channel();
        let thread = thread::Builder::new().name("leasemgr-control".to_owned());
        let thread =
            thread.spawn(move || run(runtime, &all, files, stopped)).map_err(ControlError::Thread)?;
        Ok(Server { stop: Some(stop), thread: Some(thread) })
    }
}

async fn failed_to_accept(error: &io::Error) {
    warn!(%error, "cannot accept a connection for commands");
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
}

impl Server {
    /// Creates a server that passes requests to this handler.
    pub fn builder(handler: Arc<dyn Handler>) -> ServerBuilder {
        ServerBuilder { handler, limits: Limits::default(), sockets: Vec::new() }
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
