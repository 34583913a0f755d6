//! The load of a DHCPv4 server on its leases: threads that look up clients, and reserve, renew and release addresses of one
//! pool at random.
//!
//! ```text
//! lease_load [--threads N] [--seconds N] [--pool N] CONNECTION
//! ```
//!
//! `CONNECTION` is a connection string, such as `type=memfile name=/tmp/leases4.csv durability=synced`; its lease file should
//! be a new one. The pool has 100 000 addresses by default, for nine tenths as many clients. An allocator that follows
//! the lease manager finds the free ones.
//!
//! Each message looks up its client. If it has a lease, that is renewed, or released by one message in five; else it gets a
//! lease. Prints the number of messages a second, and of each kind of operation the number a second and the mean time, the
//! search for a free address included.

use std::error::Error;
use std::io::{Write, stdout};
use std::net::Ipv4Addr;
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant, SystemTime};

use leasemgr::allocator::{Allocator, Pool, Strategy};
use leasemgr::lease::{ClientId, HwAddr, Lease4, SubnetId};
use leasemgr::{Added, Deleted, LeaseMgr, LeaseMgrError, LeaseMgrExt, LeaseMgrExt4, LeaseMgrFactory};
use lexopt::{Arg, Parser, ValueExt};

type Outcome<T = ()> = Result<T, Box<dyn Error + Send + Sync>>;

const USAGE: &str = "usage: lease_load [--threads N] [--seconds N] [--pool N] CONNECTION";
const SUBNET: SubnetId = SubnetId(1);
const FIRST: Ipv4Addr = Ipv4Addr::new(10, 0, 0, 0);
/// How long an address is kept for a client that it was offered.
const OFFER_TIME: Duration = Duration::from_secs(30);
/// Number of threads that reserve the first leases: many, because they share a sync where each change is synced.
const FILLERS: usize = 64;
const KINDS: [&str; 4] = ["look up", "reserve", "renew", "release"];

fn main() -> Outcome {
    let options = Options::parse(Parser::from_env())?;
    let pool = Pool::new(FIRST, Ipv4Addr::from_bits(FIRST.to_bits() + options.pool - 1))?;
    let leases = LeaseMgrFactory::<Lease4>::new().open(&options.connection)?;
    let allocator = Arc::new(Allocator::new(pool, Strategy::FreeList, OFFER_TIME));
    allocator.follow(&leases)?;
    let server = Server { leases: leases.as_ref(), allocator };
    let clients = options.pool / 10 * 9;
    // As many as have a lease in the long run, if each message in five releases one.
    in_threads(FILLERS, clients, |clients| {
        clients.iter().filter(|client| *client % 6 != 0).try_for_each(|client| server.reserve(*client))
    })?;
    let begin = Instant::now();
    let figures =
        in_threads(options.threads, clients, |clients| server.serve(clients, begin + options.time))?;
    Figures::sum(&figures).print(begin.elapsed())
}

/// Has each of some threads do something for its share of the clients.
fn in_threads<T: Send>(
    threads: usize,
    clients: u32,
    work: impl Fn(&[u32]) -> Outcome<T> + Sync,
) -> Outcome<Vec<T>> {
    let clients: Vec<_> = (0..clients).collect();
    thread::scope(|scope| {
        let shares = clients.chunks(clients.len().div_ceil(threads));
        let threads: Vec<_> = shares.map(|share| scope.spawn(|| work(share))).collect();
        threads.into_iter().map(|thread| thread.join().map_err(|_| "a thread panicked")?).collect()
    })
}

struct Options {
    threads: usize,
    time: Duration,
    pool: u32,
    connection: String,
}

impl Options {
    fn parse(mut args: Parser) -> Outcome<Self> {
        let (mut threads, mut seconds, mut pool, mut connection) = (1, 3, 100_000, None);
        while let Some(arg) = args.next()? {
            match arg {
                Arg::Long("threads") => threads = args.value()?.parse()?,
                Arg::Long("seconds") => seconds = args.value()?.parse()?,
                Arg::Long("pool") => pool = args.value()?.parse()?,
                Arg::Value(value) if connection.is_none() => connection = Some(value.string()?),
                _ => return Err(format!("{}\n{USAGE}", arg.unexpected()).into()),
            }
        }
        if threads == 0 || seconds == 0 || !(1000..1 << 24).contains(&pool) || threads > 500 {
            return Err(USAGE.into());
        }
        let connection = connection.ok_or(USAGE)?;
        Ok(Self { threads, time: Duration::from_secs(seconds), pool, connection })
    }
}

struct Server<'a> {
    leases: &'a dyn LeaseMgr<Lease4>,
    allocator: Arc<Allocator<Ipv4Addr, u32>>,
}

impl Server<'_> {
    /// Serves messages of these clients, which are no other thread's.
    fn serve(&self, clients: &[u32], end: Instant) -> Outcome<Figures> {
        let mut random = Random(u64::from(clients[0]) + 1);
        let mut figures = Figures::default();
        let mut now = Instant::now();
        while now < end {
            let client = clients[random.below(clients.len())];
            let lease = self.leases.by_client_id_in_subnet(&client_id(client)?, SUBNET)?;
            now = figures.count(0, now);
            let kind = match lease {
                None => {
                    self.reserve(client)?;
                    1
                }
                Some(lease) if random.below(5) > 0 => {
                    let mut renewed = lease.clone();
                    renewed.set_heard_at(SystemTime::now());
                    self.leases.update_if_unchanged(&lease, &renewed)?;
                    2
                }
                Some(lease) => {
                    expect(self.leases.delete_if_unchanged(&lease)? == Deleted::Deleted)?;
                    3
                }
            };
            now = figures.count(kind, now);
        }
        Ok(figures)
    }

    fn reserve(&self, client: u32) -> Outcome {
        let is_free = |address| Ok::<_, LeaseMgrError>(self.leases.get(address)?.is_none());
        let address =
            self.allocator.offer(&client, None, Instant::now(), is_free)?.ok_or("the pool is full")?;
        let [a, b, c, d] = client.to_be_bytes();
        let lease = Lease4::builder(address)
            .client((HwAddr::from([2, 0, a, b, c, d]), client_id(client)?))
            .subnet(SUBNET.0)
            .lifetime(3600)
            .heard_at(SystemTime::now())
            .hostname(format!("host-{client}.example.org"))
            .build()?;
        expect(self.leases.add(&lease)? == Added::Added)
    }
}

fn client_id(client: u32) -> Outcome<ClientId> {
    let [a, b, c, d] = client.to_be_bytes();
    Ok(ClientId::new(&[1, 2, 0, a, b, c, d])?)
}

fn expect(as_expected: bool) -> Outcome {
    if as_expected { Ok(()) } else { Err("an operation came to another result than expected".into()) }
}

/// Of each kind of operation the number, and the time that all of them took.
#[derive(Default)]
struct Figures([(u32, Duration); KINDS.len()]);

impl Figures {
    /// Counts an operation that began at `since`. Returns the present.
    fn count(&mut self, kind: usize, since: Instant) -> Instant {
        let now = Instant::now();
        let (count, time) = &mut self.0[kind];
        *count += 1;
        *time += now - since;
        now
    }

    fn sum(figures: &[Self]) -> Self {
        let mut sum = Self::default();
        for of_thread in figures {
            for ((count, time), own) in sum.0.iter_mut().zip(of_thread.0) {
                *count += own.0;
                *time += own.1;
            }
        }
        sum
    }

    fn print(&self, time: Duration) -> Outcome {
        let rate = |count: u32| f64::from(count) / time.as_secs_f64();
        writeln!(stdout(), "{:<10} {:>9.0} a second", "messages", rate(self.0[0].0))?;
        for (kind, (count, taken)) in KINDS.iter().zip(&self.0) {
            let mean = taken.as_secs_f64() * 1e6 / f64::from(*count);
            writeln!(stdout(), "{kind:<10} {:>9.0} a second {mean:>9.2} us each", rate(*count))?;
        }
        Ok(())
    }
}

/// Marsaglia's xorshift generator of 64 bits. Its state must not be 0.
struct Random(u64);

impl Random {
    /// A number below `bound`, which is at most 2^32.
    fn below(&mut self, bound: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        usize::try_from(((self.0 >> 32) * bound as u64) >> 32).unwrap_or(0)
    }
}
