//! What the example servers share: arguments, opening of the leases, sockets and threads, signals,
//! reclaiming of expired leases, commands, and the status line.
//!
//! A server parses its arguments ([`Options::parse`], which also accepts options of its family),
//! opens its leases ([`open`]) and its socket ([`socket`]), starts to answer commands ([`Control`]), and
//! passes all to [`serve`] with a function that answers one message:
//!
//! ```text
//! fn main() -> ExitCode {
//!     server::exit("dhcp4_server", || {
//!         let options = Options::<Ipv4Addr>::parse(USAGE, DEFAULT_BIND, |option, parser| { ... })?;
//!         let leases = server::open::<Lease4>(&options.connection)?;
//!         let strategy = options.strategy(leases.as_ref());
//!         let allocator = Arc::new(Allocator::new(options.pool, strategy, OFFER_TIME));
//!         allocator.follow(&leases)?;
//!         let socket = server::socket(options.bind, options.interface.as_deref())?;
//!         let server = ...;
//!         let handle = |message: &[u8], from| server.handle(message, from);
//!         let control = Control::start(&Served { ... })?;
//!         server::serve(&leases, &[Listener { socket: &socket, handle: &handle }], options.threads, control)
//!     })
//! }
//! ```
//! All threads read the same socket, and with several sockets the same number of threads reads each
//! of them. With one socket for each thread (`SO_REUSEPORT`), the kernel would choose the socket by
//! the sender's address and port, and all messages of a relay agent, which has a single address and
//! port, would go to one thread.

mod args;
#[cfg(all(feature = "commands", feature = "control"))]
mod control;
#[cfg(not(all(feature = "commands", feature = "control")))]
#[path = "no_control.rs"]
mod control;
mod open;
mod reclaim;

use std::error::Error;
use std::fmt::Write as _;
use std::io::{self, ErrorKind, IsTerminal, Write as _, stderr};
use std::net::{SocketAddr, UdpSocket};
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant, SystemTime};

use leasemgr::allocator::Pool;
use leasemgr::lease::{Lifetime, SubnetId, seconds_since_epoch};
use leasemgr::{Availability, LeaseMgr, LeaseMgrError, ManagedLease, OnFail, with_sources};
use signal_hook::consts::{SIGINT, SIGTERM};
use socket2::{Domain, Protocol, SockRef, Socket, Type};

pub(crate) use args::{Options, Subnet, value};
pub(crate) use control::Control;
pub(crate) use open::open;
pub(crate) use reclaim::reclaim;

pub(crate) type Outcome<T = ()> = Result<T, Box<dyn Error + Send + Sync>>;

/// The reply to a message and its destination; `None` if there is no reply. An error is for leases
/// that cannot be stored, not for invalid messages. It ends the server unless [`is_passing`].
pub(crate) type Answer = Outcome<Option<(Vec<u8>, SocketAddr)>>;

/// The subnet of all leases.
pub(crate) const SUBNET: SubnetId = SubnetId(1);
/// Maximum length of a DHCP message.
const MAX_MESSAGE: usize = 65_535;
/// Size of the receive buffer, in bytes.
const RECEIVE_BUFFER: usize = 4 << 20;
/// Interval at which threads check whether the server stops.
const STOP_INTERVAL: Duration = Duration::from_millis(100);
/// Interval at which expired leases are looked for.
const RECLAIM_INTERVAL: Duration = Duration::from_secs(1);
/// Erases the status line on a terminal.
const CLEARED: &str = "\r\x1b[K";
/// Interval of the status line.
const STATUS_INTERVAL: Duration = Duration::from_secs(3);

/// Runs a server. Returns its exit status: failure, with the reason on standard error, if it ends
/// with an error.
pub(crate) fn exit(name: &str, run: impl FnOnce() -> Outcome) -> ExitCode {
    match run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{name}: {}", leasemgr::with_sources(&*error));
            ExitCode::FAILURE
        }
    }
}

/// Returns the time in seconds since the epoch.
pub(crate) fn now() -> i64 {
    seconds_since_epoch(SystemTime::now())
}

/// Opens a socket that all threads read. With an interface, it is bound to that, and so receives
/// and sends broadcasts and multicasts of this link only; Linux requires the capability
/// `CAP_NET_RAW` for it.
pub(crate) fn socket(bind: SocketAddr, interface: Option<&str>) -> Outcome<UdpSocket> {
    let open = || -> io::Result<UdpSocket> {
        let socket = Socket::new(Domain::for_address(bind), Type::DGRAM, Some(Protocol::UDP))?;
        if bind.is_ipv4() {
            socket.set_broadcast(true)?;
        } else {
            socket.set_only_v6(true)?;
            // Only the groups that the socket joins, not those of other sockets on this host.
            socket.set_multicast_all_v6(false)?;
            // The socket of a multicast group uses the same port. See `serve`.
            socket.set_reuse_address(true)?;
        }
        if let Some(interface) = interface {
            socket.bind_device(Some(interface.as_bytes()))?;
        }
        // Or the maximum of the system, for messages that arrive while all threads are busy.
        socket.set_recv_buffer_size(RECEIVE_BUFFER)?;
        socket.bind(&bind.into())?;
        // A thread that waits for a message checks at this interval whether the server stops.
        socket.set_read_timeout(Some(STOP_INTERVAL))?;
        Ok(socket.into())
    };
    let place = interface.map(|interface| format!(" on {interface}")).unwrap_or_default();
    open().map_err(|error| format!("cannot listen on {bind}{place}: {error}").into())
}

/// A socket, and the function that answers its messages.
#[derive(Clone, Copy)]
pub(crate) struct Listener<'a> {
    pub(crate) socket: &'a UdpSocket,
    pub(crate) handle: &'a (dyn Fn(&[u8], SocketAddr) -> Answer + Sync),
}

/// What a server serves, for its commands.
pub(crate) struct Served<'a, L: ManagedLease> {
    pub(crate) options: &'a Options<L::Address>,
    pub(crate) leases: &'a Arc<dyn LeaseMgr<L>>,
    /// The prefixes that are delegated.
    pub(crate) prefixes: Option<Pool<L::Address>>,
    /// The preferred lifetime of DHCPv6.
    pub(crate) preferred_lifetime: Option<Lifetime>,
}

/// Serves clients with `threads` threads for each socket until SIGTERM, SIGINT or the command
/// `shutdown`, reclaims expired leases, and finally makes all acknowledged changes durable.
pub(crate) fn serve<L: ManagedLease>(
    leases: &Arc<dyn LeaseMgr<L>>,
    listeners: &[Listener<'_>],
    threads: usize,
    control: Control,
) -> Outcome {
    let mut places = Vec::with_capacity(listeners.len());
    for Listener { socket, .. } in listeners {
        // All sockets are bound: a later one would be another server's, and must not get their
        // messages.
        SockRef::from(*socket).set_reuse_address(false)?;
        places.push(socket.local_addr()?.to_string());
    }
    let stop = Arc::clone(control.stop());
    for signal in [SIGTERM, SIGINT] {
        signal_hook::flag::register(signal, Arc::clone(&stop))?;
    }
    let status = leases.status();
    let found = status.leases.unwrap_or_default();
    eprintln!("listening on {}, {found} leases in {}", places.join(" and "), status.location);

    leases.tracking().on_availability("server", |availability| match availability {
        Availability::Up => eprintln!("the leases can be changed again"),
        Availability::Lost { tries: 0, .. } => eprintln!("the leases cannot be reached"),
        Availability::Lost { .. } => {}
        _ => eprintln!("the leases can no longer be changed"),
    });
    let is_passing = |error: &(dyn Error + Send + Sync + 'static)| is_passing(leases.as_ref(), error);
    let traffic = Traffic {
        stop: &stop,
        control: &control,
        is_passing: &is_passing,
        sent: AtomicU64::new(0),
        unsent: AtomicU64::new(0),
        failed: AtomicU64::new(0),
    };
    let ended = thread::scope(|scope| {
        let readers = listeners.iter().flat_map(|listener| std::iter::repeat_n(*listener, threads));
        let traffic = &traffic;
        let threads: Vec<_> =
            readers.map(|listener| scope.spawn(move || traffic.answer_messages(listener))).collect();
        let mut housekeeping = Housekeeping::new(leases.as_ref());
        let mut housekeeping_result = Ok(());
        while housekeeping_result.is_ok()
            && !stop.load(Ordering::Relaxed)
            && !threads.iter().any(thread::ScopedJoinHandle::is_finished)
        {
            thread::sleep(STOP_INTERVAL);
            housekeeping_result = housekeeping.run_due(&stop, traffic.sent.load(Ordering::Relaxed));
            if housekeeping_result.as_ref().is_err_and(|error| is_passing(&**error)) {
                housekeeping_result = Ok(());
            }
        }
        stop.store(true, Ordering::Relaxed);
        for thread in threads {
            thread.join().map_err(|_| "a thread panicked")??;
        }
        housekeeping_result
    });
    let Traffic { sent, unsent, failed, .. } = traffic;
    // Commands that are being made are ended, and answered.
    drop(control);
    // Acknowledged changes are in the lease manager. The flush makes them durable, whatever
    // durability is configured.
    let flushed = leases.flush();
    ended?;
    flushed?;
    let (sent, unsent, failed) = (sent.into_inner(), unsent.into_inner(), failed.into_inner());
    let mut unsent = if unsent > 0 { format!(", {unsent} could not be sent") } else { String::new() };
    if failed > 0 {
        let _ = write!(unsent, ", {failed} messages had none");
    }
    let status_line = if stderr().is_terminal() { CLEARED } else { "" };
    eprintln!(
        "{status_line}ended: {} leases, {sent} answers{unsent}",
        leases.status().leases.unwrap_or_default()
    );
    Ok(())
}

/// Counts of messages and replies, shared by all threads.
struct Traffic<'a> {
    stop: &'a AtomicBool,
    control: &'a Control,
    is_passing: &'a (dyn Fn(&(dyn Error + Send + Sync + 'static)) -> bool + Sync),
    sent: AtomicU64,
    unsent: AtomicU64,
    /// Messages that were not answered because of an error of the leases.
    failed: AtomicU64,
}

/// Returns whether a server goes on after an error of its leases: they cannot be reached at present,
/// or those of one client are refused. The client repeats its message.
fn is_passing<L: ManagedLease>(
    leases: &dyn LeaseMgr<L>,
    error: &(dyn Error + Send + Sync + 'static),
) -> bool {
    match error.downcast_ref::<LeaseMgrError>() {
        None
        | Some(LeaseMgrError::Refused { .. } | LeaseMgrError::Panicked | LeaseMgrError::ReadOnly { .. }) => {
            false
        }
        Some(LeaseMgrError::Unavailable { .. }) => {
            let status = leases.status();
            !matches!(status.availability, Availability::GivenUp { .. })
                || status.on_fail == Some(OnFail::ServeRetryContinue)
        }
        Some(error @ LeaseMgrError::Write { .. }) => error.is_transient(),
        Some(_) => true,
    }
}

impl Traffic<'_> {
    /// Answers messages until the server stops.
    fn answer_messages(&self, Listener { socket, handle }: Listener<'_>) -> Outcome {
        let mut buffer = vec![0; MAX_MESSAGE];
        while !self.stop.load(Ordering::Relaxed) {
            let (len, from) = match socket.recv_from(&mut buffer) {
                Ok(received) => received,
                Err(error) if is_timeout(&error) => continue,
                // For example, the interface is down, and may come up again.
                Err(error) => {
                    eprintln!("cannot receive: {error}");
                    thread::sleep(Duration::from_secs(1));
                    continue;
                }
            };
            // Held until the answer is sent.
            let Some(_serving) = self.control.serve() else {
                continue;
            };
            let message = buffer.get(..len).unwrap_or_default();
            let answer = match handle(message, from) {
                Ok(answer) => answer,
                Err(error) if (self.is_passing)(&*error) => {
                    // Only the first one is shown: their number is shown at the end.
                    if self.failed.fetch_add(1, Ordering::Relaxed) == 0 {
                        eprintln!("cannot answer {from}: {}", with_sources(&*error));
                    }
                    continue;
                }
                Err(error) => return Err(error),
            };
            let Some((answer, to)) = answer else {
                continue;
            };
            match socket.send_to(&answer, to) {
                Ok(_) => _ = self.sent.fetch_add(1, Ordering::Relaxed),
                Err(error) => {
                    // Only the first one is shown: their number is shown at the end.
                    if self.unsent.fetch_add(1, Ordering::Relaxed) == 0 {
                        eprintln!("cannot send to {to}: {error}");
                    }
                }
            }
        }
        Ok(())
    }
}

fn is_timeout(error: &io::Error) -> bool {
    matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut | ErrorKind::Interrupted)
}

/// The periodic work of the main thread.
struct Housekeeping<'a, L: ManagedLease> {
    leases: &'a dyn LeaseMgr<L>,
    reclaimed: Instant,
    is_terminal: bool,
    shown: Instant,
    sent: u64,
}

impl<'a, L: ManagedLease> Housekeeping<'a, L> {
    fn new(leases: &'a dyn LeaseMgr<L>) -> Self {
        let now = Instant::now();
        Self { leases, reclaimed: now, is_terminal: stderr().is_terminal(), shown: now, sent: 0 }
    }

    /// Does the work that is due. `sent` is the number of replies so far.
    fn run_due(&mut self, stop: &AtomicBool, sent: u64) -> Outcome {
        if self.reclaimed.elapsed() >= RECLAIM_INTERVAL {
            self.reclaimed = Instant::now();
            reclaim(self.leases, SystemTime::now(), || stop.load(Ordering::Relaxed))?;
        }
        let elapsed = self.shown.elapsed();
        if self.is_terminal && elapsed >= STATUS_INTERVAL {
            let rate = u128::from(sent - self.sent) * 1000 / elapsed.as_millis().max(1);
            (self.shown, self.sent) = (Instant::now(), sent);
            let mut stderr = stderr().lock();
            // Replaces the previous status line, if no other line was written.
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

#[cfg(test)]
mod tests {
    use leasemgr::LeaseMgrFactory;
    use leasemgr::lease::Lease4;
    use rstest::rstest;

    use super::*;

    fn write(kind: ErrorKind) -> LeaseMgrError {
        LeaseMgrError::Write { place: String::new(), action: "write", source: Arc::new(kind.into()) }
    }

    fn unavailable() -> LeaseMgrError {
        LeaseMgrError::Unavailable { place: String::new(), since: SystemTime::now(), source: None }
    }

    #[rstest]
    #[case::not_reached(unavailable(), true)]
    #[case::unknown(LeaseMgrError::OutcomeUnknown { address: [192, 0, 2, 1].into(), source: None }, true)]
    #[case::of_one_client(
        LeaseMgrError::CannotKeep { address: [192, 0, 2, 1].into(), field: "hostname", limit: String::new() },
        true
    )]
    #[case::no_room(write(ErrorKind::StorageFull), true)]
    #[case::not_written(write(ErrorKind::Other), false)]
    #[case::panicked(LeaseMgrError::Panicked, false)]
    #[case::read_only(LeaseMgrError::ReadOnly { place: String::new() }, false)]
    fn a_server_goes_on_after_errors_that_pass(#[case] error: LeaseMgrError, #[case] passes: bool) {
        let leases = LeaseMgrFactory::<Lease4>::new().open("type=memfile persist=false").unwrap();
        assert_eq!(is_passing(leases.as_ref(), &error), passes, "{error}");
        assert!(!is_passing(leases.as_ref(), &io::Error::other("an error of a socket")));
    }
}
