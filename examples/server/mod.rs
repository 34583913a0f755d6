//! What the example servers have in common: arguments, the opening of the leases, the socket and its threads, signals,
//! the reclaiming of expired leases, and the status line.
//!
//! A server reads its arguments ([`Options::parse`], which takes the options of its own family too), opens its leases
//! ([`open`]) and its socket ([`socket`]), and hands both to [`serve`] with a function that answers one message:
//!
//! ```text
//! fn main() -> ExitCode {
//!     server::exit("dhcp4_server", || {
//!         let options = Options::<Ipv4Addr>::parse(USAGE, DEFAULT_BIND, |option, parser| { ... })?;
//!         let leases = server::open::<Lease4>(&options.connection)?;
//!         let allocator = Arc::new(Allocator::new(options.pool, options.strategy, OFFER_TIME));
//!         allocator.follow(&leases)?;
//!         let socket = server::socket(options.bind, options.interface.as_deref())?;
//!         let server = ...;
//!         let handle = |message: &[u8], from| server.handle(message, from);
//!         server::serve(&leases, &[Listener { socket: &socket, handle: &handle }], options.threads)
//!     })
//! }
//! ```
//!
//! All threads read the same socket, and so many read each where there are several. With a socket for each thread
//! (`SO_REUSEPORT`) the kernel would choose by the sender's address and port, and a relay, which has one of each, would keep one
//! thread busy and the others idle.

mod args;
mod open;
mod reclaim;

use leasemgr::lease::seconds_since_epoch;
use std::error::Error;
use std::fmt::Write as _;
use std::io::{self, ErrorKind, IsTerminal, Write as _, stderr};
use std::net::{SocketAddr, UdpSocket};
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant, SystemTime};

use leasemgr::{LeaseMgr, ManagedLease};
use signal_hook::consts::{SIGINT, SIGTERM};
use socket2::{Domain, Protocol, SockRef, Socket, Type};

pub(crate) use args::{Options, Subnet, value};
pub(crate) use open::open;
pub(crate) use reclaim::reclaim;

pub(crate) type Outcome<T = ()> = Result<T, Box<dyn Error + Send + Sync>>;

/// What is sent in answer to a message, and whereto; `None` where that is to be met with silence. An error ends the
/// server: it is for leases that cannot be kept any more, not for bad messages.
pub(crate) type Answer = Outcome<Option<(Vec<u8>, SocketAddr)>>;

/// No DHCP message is longer.
const MAX_MESSAGE: usize = 65_535;
/// So many bytes of messages may wait.
const RECEIVE_BUFFER: usize = 4 << 20;
/// So soon all threads see that the server is to end.
const PATIENCE: Duration = Duration::from_millis(100);
/// How often expired leases are looked for.
const RECLAIM_INTERVAL: Duration = Duration::from_secs(1);
/// Takes the status line off the terminal.
const CLEARED: &str = "\r\x1b[K";
/// How often the status line is written.
const STATUS_INTERVAL: Duration = Duration::from_secs(3);

/// Runs a server and tells its exit status: failure, with the reason on standard error, where it ends with an error.
pub(crate) fn exit(name: &str, run: impl FnOnce() -> Outcome) -> ExitCode {
    match run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{name}: {}", leasemgr::with_sources(&*error));
            ExitCode::FAILURE
        }
    }
}

/// Seconds since the epoch.
pub(crate) fn now() -> i64 {
    seconds_since_epoch(SystemTime::now())
}

/// A socket that all threads read. With an interface, it is bound to that, and so hears and sends broadcasts and
/// multicasts of this link alone; Linux allows that to those with the capability `CAP_NET_RAW`.
pub(crate) fn socket(bind: SocketAddr, interface: Option<&str>) -> Outcome<UdpSocket> {
    let open = || -> io::Result<UdpSocket> {
        let socket = Socket::new(Domain::for_address(bind), Type::DGRAM, Some(Protocol::UDP))?;
        if bind.is_ipv4() {
            socket.set_broadcast(true)?;
        } else {
            socket.set_only_v6(true)?;
            // It hears the groups that it joins, not those that others on this host have joined.
            socket.set_multicast_all_v6(false)?;
            // A group has a socket of its own on the same port. See `serve`.
            socket.set_reuse_address(true)?;
        }
        if let Some(interface) = interface {
            socket.bind_device(Some(interface.as_bytes()))?;
        }
        // Or as many as the system allows, to hold what comes while the threads are busy.
        socket.set_recv_buffer_size(RECEIVE_BUFFER)?;
        socket.bind(&bind.into())?;
        // A thread that waits for a message looks up so often, whether the server is to end.
        socket.set_read_timeout(Some(PATIENCE))?;
        Ok(socket.into())
    };
    let place = interface.map(|interface| format!(" on {interface}")).unwrap_or_default();
    open().map_err(|error| format!("cannot listen on {bind}{place}: {error}").into())
}

/// A socket, and how a message that comes from it is answered.
#[derive(Clone, Copy)]
pub(crate) struct Listener<'a> {
    pub(crate) socket: &'a UdpSocket,
    pub(crate) handle: &'a (dyn Fn(&[u8], SocketAddr) -> Answer + Sync),
}

/// Serves clients from so many threads for each socket until SIGTERM or SIGINT, reclaims leases meanwhile, and makes durable what was
/// acknowledged.
pub(crate) fn serve<L: ManagedLease>(
    leases: &Arc<dyn LeaseMgr<L>>,
    listeners: &[Listener<'_>],
    threads: usize,
) -> Outcome {
    let mut places = Vec::with_capacity(listeners.len());
    for Listener { socket, .. } in listeners {
        // All are bound: the next one to come is another server, and must not get their messages.
        SockRef::from(*socket).set_reuse_address(false)?;
        places.push(socket.local_addr()?.to_string());
    }
    let stop = Arc::new(AtomicBool::new(false));
    for signal in [SIGTERM, SIGINT] {
        signal_hook::flag::register(signal, Arc::clone(&stop))?;
    }
    let status = leases.status();
    let found = status.leases.unwrap_or_default();
    eprintln!("listening on {}, {found} leases in {}", places.join(" and "), status.location);

    let traffic = Traffic { stop: &stop, sent: AtomicU64::new(0), unsent: AtomicU64::new(0) };
    let ended = thread::scope(|scope| {
        let readers = listeners.iter().flat_map(|listener| std::iter::repeat_n(*listener, threads));
        let traffic = &traffic;
        let threads: Vec<_> =
            readers.map(|listener| scope.spawn(move || traffic.answer_messages(listener))).collect();
        let mut house = House::new(leases.as_ref());
        let mut kept_house = Ok(());
        while kept_house.is_ok()
            && !stop.load(Ordering::Relaxed)
            && !threads.iter().any(thread::ScopedJoinHandle::is_finished)
        {
            thread::sleep(PATIENCE);
            kept_house = house.keep(&stop, traffic.sent.load(Ordering::Relaxed));
        }
        stop.store(true, Ordering::Relaxed);
        for thread in threads {
            thread.join().map_err(|_| "a thread panicked")??;
        }
        kept_house
    });
    // What was acknowledged is with the lease manager. Now it is also on the disk, whatever durability was asked for.
    let flushed = leases.flush();
    ended?;
    flushed?;
    let (sent, unsent) = (traffic.sent.into_inner(), traffic.unsent.into_inner());
    let unsent = if unsent > 0 { format!(", {unsent} could not be sent") } else { String::new() };
    let status_line = if stderr().is_terminal() { CLEARED } else { "" };
    eprintln!(
        "{status_line}ended: {} leases, {sent} answers{unsent}",
        leases.status().leases.unwrap_or_default()
    );
    Ok(())
}

/// Messages and their answers, as all threads see them.
struct Traffic<'a> {
    stop: &'a AtomicBool,
    sent: AtomicU64,
    unsent: AtomicU64,
}

impl Traffic<'_> {
    /// What each thread does until the server ends.
    fn answer_messages(&self, Listener { socket, handle }: Listener<'_>) -> Outcome {
        let mut buffer = vec![0; MAX_MESSAGE];
        while !self.stop.load(Ordering::Relaxed) {
            let (len, from) = match socket.recv_from(&mut buffer) {
                Ok(received) => received,
                Err(error) if is_nothing_yet(&error) => continue,
                // The interface is down, for example. It may come up again.
                Err(error) => {
                    eprintln!("cannot receive: {error}");
                    thread::sleep(Duration::from_secs(1));
                    continue;
                }
            };
            let message = buffer.get(..len).unwrap_or_default();
            let Some((answer, to)) = handle(message, from)? else {
                continue;
            };
            match socket.send_to(&answer, to) {
                Ok(_) => _ = self.sent.fetch_add(1, Ordering::Relaxed),
                Err(error) => {
                    // Once is enough: their number is told at the end.
                    if self.unsent.fetch_add(1, Ordering::Relaxed) == 0 {
                        eprintln!("cannot send to {to}: {error}");
                    }
                }
            }
        }
        Ok(())
    }
}

fn is_nothing_yet(error: &io::Error) -> bool {
    matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut | ErrorKind::Interrupted)
}

/// What the main thread does meanwhile.
struct House<'a, L: ManagedLease> {
    leases: &'a dyn LeaseMgr<L>,
    reclaimed: Instant,
    is_terminal: bool,
    told: Instant,
    sent: u64,
}

impl<'a, L: ManagedLease> House<'a, L> {
    fn new(leases: &'a dyn LeaseMgr<L>) -> Self {
        let now = Instant::now();
        Self { leases, reclaimed: now, is_terminal: stderr().is_terminal(), told: now, sent: 0 }
    }

    /// Does what is due. Told how many answers were sent so far.
    fn keep(&mut self, stop: &AtomicBool, sent: u64) -> Outcome {
        if self.reclaimed.elapsed() >= RECLAIM_INTERVAL {
            self.reclaimed = Instant::now();
            reclaim(self.leases, SystemTime::now(), || stop.load(Ordering::Relaxed))?;
        }
        let elapsed = self.told.elapsed();
        if self.is_terminal && elapsed >= STATUS_INTERVAL {
            let rate = u128::from(sent - self.sent) * 1000 / elapsed.as_millis().max(1);
            (self.told, self.sent) = (Instant::now(), sent);
            let mut stderr = stderr().lock();
            // In place of the line before it, if nothing else was written.
            let _ = write!(stderr, "{CLEARED}{}", self.status(rate)).and_then(|()| stderr.flush());
        }
        Ok(())
    }

    fn status(&self, rate: u128) -> String {
        let status = self.leases.status();
        let mut line = format!("{} leases, {rate} answers/s", status.leases.unwrap_or_default());
        if let Some(last) = status.cleanup.and_then(|cleanup| cleanup.last) {
            let ago = last.started.elapsed().unwrap_or_default().saturating_sub(last.duration).as_secs();
            let _ = write!(line, ", last cleanup {ago} s ago in {:.3?}", last.duration);
            if let Some(failure) = last.failure {
                let _ = write!(line, ", which failed: {failure}");
            }
        }
        if let Some(refused) = status.refused {
            let _ = write!(line, ", changes are refused: {refused}");
        }
        line
    }
}
