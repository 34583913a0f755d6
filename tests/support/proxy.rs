//! A proxy between a lease manager and a database server, which ends a connection at a chosen
//! message of their protocol.

use std::io::{self, Read, Write};
use std::net::{Ipv4Addr, Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

/// Maximum time to wait for a server to end a session.
const LIMIT: Duration = Duration::from_secs(120);
/// For how long a late message is kept back, unless it is released before.
const LATE: Duration = Duration::from_millis(300);

/// How messages are divided.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Protocol {
    Postgresql,
    Mysql,
}

/// What becomes of the message at which a connection ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Cut {
    /// It is not delivered.
    Lost,
    /// It is delivered if it is for the server, and nothing more reaches the client.
    Delivered,
    /// As [`Cut::Delivered`], but the server gets it after the client has seen the end.
    Late,
}

/// A message.
#[derive(Clone, Debug)]
pub(crate) struct Message {
    pub(crate) is_of_client: bool,
    pub(crate) bytes: Vec<u8>,
}

#[derive(Debug, Default)]
struct State {
    /// Number of messages since the cut was chosen.
    passed: usize,
    cut: Option<(usize, Cut)>,
    /// The message at which a connection was ended.
    fired: Option<Message>,
    is_released: bool,
    /// Number of ended connections whose server has not ended the session.
    ending: usize,
    pairs: Vec<Arc<Pair>>,
}

#[derive(Debug)]
struct Shared {
    protocol: Protocol,
    server: SocketAddr,
    state: Mutex<State>,
    changed: Condvar,
    is_silent: AtomicBool,
    /// Connections that were accepted meanwhile.
    unanswered: Mutex<Vec<TcpStream>>,
}

#[derive(Debug)]
struct Pair {
    client: TcpStream,
    server: TcpStream,
    is_cut: AtomicBool,
}

/// A proxy, which listens at a port of its own.
#[derive(Debug)]
pub(crate) struct Proxy {
    pub(crate) port: u16,
    shared: Arc<Shared>,
}

impl Proxy {
    pub(crate) fn new(protocol: Protocol, server: SocketAddr) -> Self {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let port = listener.local_addr().unwrap().port();
        let shared = Arc::new(Shared {
            protocol,
            server,
            state: Mutex::default(),
            changed: Condvar::new(),
            is_silent: AtomicBool::new(false),
            unanswered: Mutex::default(),
        });
        let own = Arc::clone(&shared);
        // It waits for connections until the process ends.
        thread::spawn(move || {
            for client in listener.incoming().flatten() {
                if own.is_silent.load(Ordering::Relaxed) {
                    own.unanswered.lock().unwrap_or_else(PoisonError::into_inner).push(client);
                } else if let Ok(server) = TcpStream::connect(own.server) {
                    own.start(client, server);
                }
            }
        });
        Self { port, shared }
    }

    /// Accepts connections from now on without an answer, or not any longer, which ends these.
    pub(crate) fn set_silent(&self, is_silent: bool) {
        self.shared.is_silent.store(is_silent, Ordering::Relaxed);
        if !is_silent {
            self.shared.unanswered.lock().unwrap_or_else(PoisonError::into_inner).clear();
        }
    }

    /// Ends a connection at the `n`th message from now on, from 1.
    pub(crate) fn cut_at(&self, n: usize, cut: Cut) {
        let mut state = self.shared.lock();
        (state.passed, state.cut, state.fired, state.is_released) = (0, Some((n, cut)), None, false);
    }

    /// Returns the message at which a connection was ended.
    pub(crate) fn fired(&self) -> Option<Message> {
        self.shared.lock().fired.clone()
    }

    /// Delivers what was kept back, and waits until the server has ended the sessions of ended
    /// connections, so that it makes no change of them afterwards.
    pub(crate) fn settle(&self) {
        let mut state = self.shared.lock();
        state.is_released = true;
        self.shared.changed.notify_all();
        let end = Instant::now() + LIMIT;
        while state.ending > 0 {
            assert!(Instant::now() < end, "the server does not end a session");
            let wait = self.shared.changed.wait_timeout(state, Duration::from_millis(100));
            state = wait.unwrap_or_else(PoisonError::into_inner).0;
        }
    }

    /// Ends all connections.
    pub(crate) fn end_connections(&self) {
        let pairs = std::mem::take(&mut self.shared.lock().pairs);
        for pair in pairs {
            let _ = (pair.client.shutdown(Shutdown::Both), pair.server.shutdown(Shutdown::Both));
        }
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.end_connections();
    }
}

impl Shared {
    fn lock(&self) -> std::sync::MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn start(self: &Arc<Self>, client: TcpStream, server: TcpStream) {
        let _ = (client.set_nodelay(true), server.set_nodelay(true));
        let pair = Arc::new(Pair { client, server, is_cut: AtomicBool::new(false) });
        self.lock().pairs.push(Arc::clone(&pair));
        for is_of_client in [true, false] {
            let (shared, pair) = (Arc::clone(self), Arc::clone(&pair));
            thread::spawn(move || shared.pump(&pair, is_of_client));
        }
    }

    /// Passes the messages of one direction.
    fn pump(&self, pair: &Pair, is_of_client: bool) {
        let (mut from, mut to) =
            if is_of_client { (&pair.client, &pair.server) } else { (&pair.server, &pair.client) };
        let mut is_first = true;
        while let Ok(bytes) = self.read(&mut from, is_of_client && is_first) {
            is_first = false;
            if pair.is_cut.load(Ordering::Acquire) {
                if is_of_client {
                    break;
                }
                // What the server sends to a client that is gone.
                continue;
            }
            let Some(cut) = self.note(is_of_client, &bytes, pair) else {
                if to.write_all(&bytes).is_err() && is_of_client {
                    break;
                }
                continue;
            };
            let _ = pair.client.shutdown(Shutdown::Both);
            if is_of_client {
                if cut == Cut::Late {
                    self.wait_for_release();
                }
                if cut != Cut::Lost {
                    let _ = to.write_all(&bytes);
                }
                break;
            }
            let _ = pair.server.shutdown(Shutdown::Write);
        }
        if is_of_client {
            let _ = pair.server.shutdown(Shutdown::Write);
        } else {
            let _ = pair.client.shutdown(Shutdown::Both);
            if pair.is_cut.load(Ordering::Acquire) {
                self.lock().ending -= 1;
                self.changed.notify_all();
            }
        }
    }

    /// Counts a message, and returns what becomes of it if the connection ends at it.
    fn note(&self, is_of_client: bool, bytes: &[u8], pair: &Pair) -> Option<Cut> {
        let mut state = self.lock();
        state.passed += 1;
        let (n, cut) = state.cut?;
        if state.fired.is_some() || state.passed != n {
            return None;
        }
        state.fired = Some(Message { is_of_client, bytes: bytes.to_vec() });
        state.ending += 1;
        pair.is_cut.store(true, Ordering::Release);
        Some(cut)
    }

    fn wait_for_release(&self) {
        let end = Instant::now() + LATE;
        let mut state = self.lock();
        while !state.is_released && Instant::now() < end {
            let wait = self.changed.wait_timeout(state, Duration::from_millis(10));
            state = wait.unwrap_or_else(PoisonError::into_inner).0;
        }
    }

    /// Reads a message. The first one of a client of PostgreSQL has no type.
    fn read(&self, from: &mut impl Read, has_no_type: bool) -> io::Result<Vec<u8>> {
        let (length, at) = match self.protocol {
            Protocol::Postgresql if has_no_type => (4, 0),
            Protocol::Postgresql => (5, 1),
            Protocol::Mysql => (4, 0),
        };
        let mut bytes = vec![0; length];
        from.read_exact(&mut bytes)?;
        let rest = match self.protocol {
            Protocol::Postgresql => {
                let length = [bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]];
                usize::try_from(u32::from_be_bytes(length)).unwrap().saturating_sub(4)
            }
            Protocol::Mysql => {
                usize::try_from(u32::from_le_bytes([bytes[0], bytes[1], bytes[2], 0])).unwrap()
            }
        };
        bytes.resize(length + rest, 0);
        from.read_exact(&mut bytes[length..])?;
        Ok(bytes)
    }
}
