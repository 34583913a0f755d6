//! A DHCP server without its network, which stores its leases in a lease manager.
//!
//! ```text
//! lease_server CONNECTION-STRING [--threads N] [--clients N] [--rate N] [--seconds N] [--lifetime N] [--clean-up-after N]
//! ```
//!
//! For example: `lease_server 'type=memfile universe=6 name=/tmp/leases6.csv lfc-interval=60' --seconds 10`
//!
//! Several threads serve clients, which ask for addresses, renew, decline and release them at
//! random; in DHCPv6, every fourth client asks for a prefix. Leases that are not renewed expire,
//! and are reclaimed. `--rate` sets the number of messages in a second; without it, messages are
//! served as fast as possible. `--clean-up-after` sets a number of changes after which the lease
//! files are also cleaned up.
//!
//! Every change is written to standard output when it is acknowledged, and before its thread
//! continues: `added`, `renewed`, `reassigned`, `declined`, `reclaimed` or `deleted`, the address,
//! and the number of the change. The number is also stored in the lease, so that a reader of the
//! lease files can tell which change they contain; for a deleted lease it is the number of its last
//! change. A deletion may leave no trace in the files, so `releasing` is written before it. Status
//! lines are written to standard error; a subscriber of the crate `tracing` would get the library's
//! log.
//!
//! The server ends after `--seconds`, or with SIGINT or SIGTERM.

#![allow(clippy::print_stderr, reason = "a program's own reports")]

#[path = "server/open.rs"]
mod open;

use std::error::Error;
use std::fmt::{self, Write as _};
use std::io::{self, Write as _};
use std::net::{Ipv4Addr, Ipv6Addr};
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::{self, ScopedJoinHandle};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use leasemgr::connection::ConnectionString;
use leasemgr::lease::{
    ClientId, Duid, HwAddr, Iaid, Lease, Lease4, Lease6, LeaseState, LeaseType, Lifetime, SubnetId,
    UserContext, seconds_since_epoch,
};
use leasemgr::{
    Added, ChangeKind, LeaseMgr, LeaseMgrError, LeaseMgrExt, LeaseMgrExt4, LeaseMgrExt6, ManagedLease,
};
use signal_hook::consts::{SIGINT, SIGTERM};

use open::open;

type Outcome<T = ()> = Result<T, Box<dyn Error + Send + Sync>>;

/// The subnet of all addresses.
const SUBNET: SubnetId = SubnetId(1);
/// Number of addresses that are tried for a client.
const TRIES: u32 = 32;
/// Time for which a declined address is not used.
const PROBATION: Lifetime = Lifetime(10);
/// Number of expired leases that are read at a time.
const BATCH: usize = 1000;

fn main() -> ExitCode {
    let run = || {
        let options = Options::from_args()?;
        let connection: ConnectionString = options.connection.parse()?;
        match connection.get("universe") {
            Some("6") => run::<Lease6>(options),
            _ => run::<Lease4>(options),
        }
    };
    match run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("lease_server: {}", leasemgr::with_sources(&*error));
            ExitCode::FAILURE
        }
    }
}

/// Opens the leases, serves clients, and closes the leases.
fn run<L: Served>(options: Options) -> Outcome {
    let leases = open::<L>(&options.connection)?;
    let status = leases.status();
    eprintln!("{}: found {} leases", status.location, status.leases.unwrap_or_default());

    let output = Arc::new(Output::default());
    // All deletions are written here, because a lease manager also deletes leases in bulk.
    let deletions = Arc::clone(&output);
    leases.tracking().register("lease_server", ChangeKind::Delete, None, move |change| {
        change.lease().into_iter().for_each(|lease| deletions.write_change("deleted", lease));
    })?;
    let stop = Arc::new(AtomicBool::new(false));
    for signal in [SIGINT, SIGTERM] {
        signal_hook::flag::register(signal, Arc::clone(&stop))?;
    }
    let changes = AtomicU64::new(first_change(leases.as_ref())?);
    let server = Server { leases, options, output, changes, stop };
    server.run()?;

    // Acknowledged changes are in the lease file. The flush makes them durable, whatever durability
    // is configured.
    server.leases.flush()?;
    server.report(format_args!("ended"));
    Ok(())
}

/// Returns the number of the first change: greater than those of all earlier servers.
fn first_change<L: ManagedLease>(leases: &dyn LeaseMgr<L>) -> Outcome<u64> {
    // The time is enough, unless an earlier server made a million changes a second, or the clock
    // was set back since. Then the leases show the last number, apart from changes of leases that
    // were deleted: hardly a million in a row.
    const DELETED: u64 = 1_000_000;
    let mut first = u64::try_from(SystemTime::now().duration_since(UNIX_EPOCH)?.as_micros())?;
    let mut page = leases.page(None, BATCH)?;
    while let Some(last) = page.last() {
        first = page.iter().map(|lease| number_of(lease).saturating_add(DELETED)).fold(first, u64::max);
        page = leases.page(Some(last.address()), BATCH)?;
    }
    Ok(first)
}

/// Returns the number of the change that wrote a lease.
fn number_of<L: Lease>(lease: &L) -> u64 {
    let context = lease.data().user_context.as_ref();
    context.and_then(|context| context.get("change")?.as_u64()).unwrap_or_default()
}

/// The options of the command line.
struct Options {
    connection: String,
    threads: u32,
    clients: u32,
    /// Number of messages in a second.
    rate: Option<u32>,
    /// Time after which the server ends.
    time: Option<Duration>,
    lifetime: Lifetime,
    /// Number of changes after which the lease files are cleaned up.
    clean_up_after: Option<u64>,
}

impl Options {
    fn from_args() -> Outcome<Self> {
        const USAGE: &str = "usage: lease_server CONNECTION-STRING [--threads N] [--clients N] [--rate N] \
                             [--seconds N] [--lifetime N] [--clean-up-after N]";
        let mut args = std::env::args().skip(1);
        let mut options = Self {
            connection: args.next().ok_or(USAGE)?,
            threads: 4,
            clients: 10_000,
            rate: None,
            time: None,
            lifetime: Lifetime(3600),
            clean_up_after: None,
        };
        while let Some(name) = args.next() {
            let value: u32 = args.next().ok_or(USAGE)?.parse().map_err(|error| format!("{name}: {error}"))?;
            match name.as_str() {
                "--threads" => options.threads = value.max(1),
                "--clients" => options.clients = value,
                "--rate" => options.rate = Some(value.max(1)),
                "--seconds" => options.time = Some(Duration::from_secs(value.into())),
                "--lifetime" => options.lifetime = Lifetime(value.max(1)),
                "--clean-up-after" => options.clean_up_after = Some(value.into()),
                _ => return Err(USAGE.into()),
            }
        }
        Ok(options)
    }
}

/// Leases of either family.
trait Served: ManagedLease {
    /// Returns the `n`th address of the pool for this client.
    fn pool_address(n: u32, client: u32) -> Self::Address;

    /// Returns a lease for a client that has none.
    fn for_client(address: Self::Address, client: u32) -> Outcome<Self>;

    /// Returns the lease that a client has, expired or not.
    fn of_client(leases: &dyn LeaseMgr<Self>, client: u32) -> Outcome<Option<Self>>;

    fn set_lifetime(&mut self, lifetime: Lifetime);
}

impl Served for Lease4 {
    fn pool_address(n: u32, _: u32) -> Ipv4Addr {
        Ipv4Addr::from_bits(Ipv4Addr::new(10, 0, 0, 1).to_bits() + n)
    }

    fn for_client(address: Ipv4Addr, client: u32) -> Outcome<Self> {
        Ok(Self::new(address, Some(hwaddr(client)?), client_id(client)?, LeaseState::DEFAULT)?)
    }

    fn of_client(leases: &dyn LeaseMgr<Self>, client: u32) -> Outcome<Option<Self>> {
        Ok(match client_id(client)? {
            Some(id) => leases.by_client_id_in_subnet(&id, SUBNET)?,
            None => leases.by_hwaddr_in_subnet(&hwaddr(client)?, SUBNET)?,
        })
    }

    fn set_lifetime(&mut self, lifetime: Lifetime) {
        self.data_mut().valid_lifetime = lifetime;
    }
}

impl Served for Lease6 {
    fn pool_address(n: u32, client: u32) -> Ipv6Addr {
        match kind(client) {
            LeaseType::PD => {
                let first = Ipv6Addr::new(0x2001, 0xdb8, 0x8000, 0, 0, 0, 0, 0);
                Ipv6Addr::from_bits(first.to_bits() + (u128::from(n) << 64))
            }
            _ => {
                Ipv6Addr::from_bits(Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 1).to_bits() + u128::from(n))
            }
        }
    }

    fn for_client(address: Ipv6Addr, client: u32) -> Outcome<Self> {
        let builder = match kind(client) {
            LeaseType::PD => Self::prefix_builder(address, 64),
            _ => Self::builder(address),
        };
        Ok(builder.client(duid(client)?, client).hwaddr(hwaddr(client)?).build()?)
    }

    fn of_client(leases: &dyn LeaseMgr<Self>, client: u32) -> Outcome<Option<Self>> {
        Ok(leases.by_identity_in_subnet(kind(client), &duid(client)?, Iaid(client), SUBNET)?.pop())
    }

    fn set_lifetime(&mut self, lifetime: Lifetime) {
        self.data_mut().valid_lifetime = lifetime;
        self.set_preferred_lifetime(Lifetime(lifetime.0 / 8 * 5));
    }
}

/// Returns the lease type that a DHCPv6 client asks for.
fn kind(client: u32) -> LeaseType {
    if client % 4 == 3 { LeaseType::PD } else { LeaseType::NA }
}

/// Returns a locally administered address.
fn hwaddr(client: u32) -> Outcome<HwAddr> {
    let [a, b, c, d] = client.to_be_bytes();
    Ok(HwAddr::new(&[2, 0, a, b, c, d])?)
}

/// Returns the client id that every second client has.
fn client_id(client: u32) -> Outcome<Option<ClientId>> {
    let [a, b, c, d] = client.to_be_bytes();
    let id = (client % 2 == 1).then(|| ClientId::new(&[1, 2, 0, a, b, c, d]));
    Ok(id.transpose()?)
}

fn duid(client: u32) -> Outcome<Duid> {
    let [a, b, c, d] = client.to_be_bytes();
    Ok(Duid::new(&[0, 3, 0, 1, 2, 0, a, b, c, d])?)
}

/// The server, shared by all threads.
struct Server<L: Served> {
    leases: Arc<dyn LeaseMgr<L>>,
    options: Options,
    output: Arc<Output>,
    /// The number of the next change.
    changes: AtomicU64,
    stop: Arc<AtomicBool>,
}

impl<L: Served> Server<L> {
    /// Runs all threads until the end, or until one of them fails.
    fn run(&self) -> Outcome {
        thread::scope(|scope| {
            let threads = 0..self.options.threads;
            let threads: Vec<_> = threads.map(|n| scope.spawn(move || self.serve_clients(n))).collect();
            let housekeeping_result = self.run_housekeeping(&threads);
            self.stop.store(true, Ordering::Relaxed);
            for thread in threads {
                thread.join().map_err(|_| "a thread panicked")??;
            }
            housekeeping_result
        })
    }

    // Threads that serve clients.

    /// Serves a thread's share of the clients: the messages of one client are served one after the
    /// other.
    fn serve_clients(&self, thread: u32) -> Outcome {
        let Options { threads, clients, rate, .. } = self.options;
        let mut random = Random(self.changes.load(Ordering::Relaxed) + u64::from(thread));
        let share = (clients / threads).max(1);
        let begin = Instant::now();
        let mut due = Duration::ZERO;
        while !self.stop.load(Ordering::Relaxed) {
            if let Some(rate) = rate {
                // Time of the next message of this thread. Sleeping for less time would cost more
                // than serving a message.
                due += Duration::from_secs(1) * threads / rate;
                let early = due.saturating_sub(begin.elapsed());
                if early > Duration::from_millis(5) {
                    thread::sleep(early);
                }
            }
            let client = random.below(share) * threads + thread;
            match random.below(1000) {
                0..850 => self.request(client, &mut random)?,
                850..990 => self.release(client)?,
                _ => self.decline(client)?,
            }
            self.output.check()?;
        }
        Ok(())
    }

    /// Handles a request for an address, or for more time.
    fn request(&self, client: u32, random: &mut Random) -> Outcome {
        while let Some(lease) = L::of_client(self.leases.as_ref(), client)? {
            let mut renewed = lease.clone();
            renewed.set_state(LeaseState::DEFAULT)?;
            self.grant(&mut renewed, client)?;
            if self.update("renewed", &lease, renewed)? {
                return Ok(());
            }
            // The lease had expired, and has just been reclaimed or assigned to another client.
        }
        self.allocate(client, random)
    }

    /// Assigns a free address to a client, if one is found: its previous one, or any.
    fn allocate(&self, client: u32, random: &mut Random) -> Outcome {
        // More addresses than clients, because some are declined.
        let pool = self.options.clients + self.options.clients / 4 + 1;
        for n in 0..TRIES {
            let address = L::pool_address(if n == 0 { client } else { random.below(pool) }, client);
            // No other thread assigns this address meanwhile.
            let Some(_lock) = self.leases.tracking().try_lock(address) else {
                continue;
            };
            match self.leases.get(address)? {
                None => {
                    let mut lease = L::for_client(address, client)?;
                    self.grant(&mut lease, client)?;
                    self.number(&mut lease)?;
                    if self.leases.add(&lease)? == Added::Added {
                        self.output.write_change("added", &lease);
                        return Ok(());
                    }
                }
                Some(old) if old.is_reclaimed() => {
                    let mut lease = L::for_client(address, client)?;
                    self.grant(&mut lease, client)?;
                    if self.update("reassigned", &old, lease)? {
                        return Ok(());
                    }
                }
                Some(_) => {}
            }
        }
        Ok(())
    }

    /// Handles a release.
    fn release(&self, client: u32) -> Outcome {
        while let Some(lease) = L::of_client(self.leases.as_ref(), client)? {
            self.output.write_change("releasing", &lease);
            match self.leases.delete_if_unchanged(&lease) {
                Err(LeaseMgrError::ChangedMeanwhile { .. }) => {}
                deleted => return Ok(deleted.map(drop)?),
            }
        }
        Ok(())
    }

    /// Handles a message that the address is in use by another host.
    fn decline(&self, client: u32) -> Outcome {
        while let Some(lease) = L::of_client(self.leases.as_ref(), client)? {
            if lease.is_reclaimed() {
                return Ok(());
            }
            let mut declined = lease.clone();
            declined.decline(SystemTime::now(), PROBATION);
            if self.update("declined", &lease, declined)? {
                return Ok(());
            }
        }
        Ok(())
    }

    /// Sets what a client is granted.
    fn grant(&self, lease: &mut L, client: u32) -> Outcome {
        lease.set_lifetime(self.options.lifetime);
        let data = lease.data_mut();
        data.cltt = seconds_since_epoch(SystemTime::now());
        data.subnet_id = SUBNET;
        data.hostname = format!("client-{client}.example.org").as_str().into();
        Ok(())
    }

    /// Replaces `old` by `new`. Returns `false` if another thread has modified or deleted the lease
    /// concurrently.
    fn update(&self, word: &str, old: &L, mut new: L) -> Outcome<bool> {
        self.number(&mut new)?;
        match self.leases.update_if_unchanged(old, &new) {
            Ok(()) => {
                self.output.write_change(word, &new);
                Ok(true)
            }
            Err(error) if error.is_stale() => Ok(false),
            Err(error) => Err(error.into()),
        }
    }

    /// Stores the number of a change in the lease. The number is taken after the lease was read, so
    /// the numbers of a lease's changes ascend.
    fn number(&self, lease: &mut L) -> Outcome {
        let number = self.changes.fetch_add(1, Ordering::Relaxed);
        let context = UserContext::parse(format!(r#"{{ "change": {number} }}"#).as_bytes())?;
        lease.data_mut().user_context = Some(context);
        Ok(())
    }

    // The main thread.

    /// Reclaims expired leases, starts cleanups, and writes status lines, until the end.
    fn run_housekeeping(&self, threads: &[ScopedJoinHandle<'_, Outcome>]) -> Outcome {
        let begin = Instant::now();
        let mut since = (begin, self.changes.load(Ordering::Relaxed));
        let mut cleaned_at = since.1;
        while !self.stop.load(Ordering::Relaxed)
            && !threads.iter().any(ScopedJoinHandle::is_finished)
            && self.options.time.is_none_or(|time| begin.elapsed() < time)
        {
            thread::sleep(Duration::from_millis(20));
            let changes = self.changes.load(Ordering::Relaxed);
            if self.options.clean_up_after.is_some_and(|count| changes - cleaned_at >= count) {
                // The cleanup runs in the background.
                self.leases.clean_up()?;
                cleaned_at = changes;
            }
            let elapsed = since.0.elapsed();
            if elapsed >= Duration::from_secs(1) {
                self.reclaim()?;
                let rate = u128::from(changes - since.1) * 1000 / elapsed.as_millis();
                self.report(format_args!("{rate} changes/s"));
                since = (Instant::now(), changes);
            }
        }
        Ok(())
    }

    /// Reclaims expired leases, and deletes those that no client has asked for again.
    fn reclaim(&self) -> Outcome {
        let now = SystemTime::now();
        while !self.stop.load(Ordering::Relaxed) {
            let expired = self.leases.list_expired(now, BATCH)?;
            for lease in &expired {
                self.reclaim_lease(lease)?;
            }
            if expired.len() < BATCH {
                break;
            }
        }
        let held = Duration::from_secs(self.options.lifetime.0.into());
        self.leases.delete_reclaimed(now - held)?;
        Ok(())
    }

    /// Reclaims a lease, unless its client is faster.
    fn reclaim_lease(&self, lease: &L) -> Outcome {
        // A server with DNS updates would remove the name here.
        if lease.state() == LeaseState::DECLINED {
            // A declined lease has no client, so there is nothing to keep.
            return match self.leases.delete_if_unchanged(lease) {
                Ok(_) | Err(LeaseMgrError::ChangedMeanwhile { .. }) => Ok(()),
                Err(error) => Err(error.into()),
            };
        }
        let mut reclaimed = lease.clone();
        reclaimed.reclaim();
        self.update("reclaimed", lease, reclaimed)?;
        Ok(())
    }

    fn report(&self, news: fmt::Arguments<'_>) {
        let status = self.leases.status();
        let mut line = format!("{news}, {} leases", status.leases.unwrap_or_default());
        if let Some(cleanup) = status.cleanup {
            let _ = write!(line, ", cleanups: {} done, {} failed", cleanup.succeeded, cleanup.failed);
            if let Some(last) = cleanup.last {
                let _ = write!(line, ", the last took {:.3?}", last.duration);
                if let Some(failure) = last.failure {
                    let _ = write!(line, " and failed: {failure}");
                }
            }
        }
        if let Some(refused) = status.refused {
            let _ = write!(line, ", changes are refused: {refused}");
        }
        eprintln!("{line}");
    }
}

/// Standard output, in place of the replies to clients.
#[derive(Default)]
struct Output {
    closed: AtomicBool,
}

impl Output {
    /// Writes a change in one line with one call: a reader gets the whole line or nothing, also if
    /// the server is killed.
    fn write_change<L: Lease>(&self, word: &str, lease: &L) {
        let line = format!("{word} {} {}\n", lease.address(), number_of(lease));
        let mut stdout = io::stdout().lock();
        if stdout.write_all(line.as_bytes()).and_then(|()| stdout.flush()).is_err() {
            self.closed.store(true, Ordering::Relaxed);
        }
    }

    fn check(&self) -> Outcome {
        if self.closed.load(Ordering::Relaxed) { Err("standard output is closed".into()) } else { Ok(()) }
    }
}

/// Marsaglia's xorshift generator of 64 bits. Its state must not be 0.
struct Random(u64);

impl Random {
    /// Returns a number below `bound`.
    fn below(&mut self, bound: u32) -> u32 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        let scaled = (self.0 >> 32) * u64::from(bound);
        u32::try_from(scaled >> 32).unwrap_or(u32::MAX)
    }
}
