//! Measures the lease operations of a DHCPv4 server through the public API: add, renew, look up,
//! page, load, delete.
//!
//! ```text
//! lease_mgr_bench LEASES THREADS DIR [KEYWORD=VALUE...]
//! lease_mgr_bench LEASES THREADS CONNECTION-STRING
//! ```
//!
//! With a directory, the leases are in the memfile `DIR/bench-leases4.csv`, which is replaced, and
//! keywords are added to the connection string, such as `durability=synced`. With the connection
//! string of a database, its DHCPv4 leases of the benchmark's subnets are deleted first. Every
//! operation is done once for each lease; the leases are shared between the threads.

use std::error::Error;
use std::fs;
use std::io::{Write, stdout};
use std::net::Ipv4Addr;
use std::path::Path;
use std::sync::Arc;
use std::time::Instant;

use leasemgr::lease::{ClientId, HwAddr, Lease4, SubnetId};
use leasemgr::{Added, Deleted, LeaseMgr, LeaseMgrExt, LeaseMgrExt4, LeaseMgrFactory};
use rustix::time::{ClockId, clock_gettime};

type Outcome<T = ()> = Result<T, Box<dyn Error + Send + Sync>>;
type Leases = dyn LeaseMgr<Lease4>;

const USAGE: &str = "usage: lease_mgr_bench LEASES THREADS DIR-or-CONNECTION-STRING [KEYWORD=VALUE...]";
const FIRST: u32 = 0x0a00_0000;

fn main() -> Outcome {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let [leases, threads, place, keywords @ ..] = &args[..] else {
        return Err(USAGE.into());
    };
    let (n, threads): (u32, u32) = (leases.parse()?, threads.parse()?);
    let keywords = keywords.join(" ");
    let is_memfile = !place.contains('=');
    let connection = if is_memfile { memfile(Path::new(place)) } else { place.clone() };
    let connection = format!("{connection} {keywords}");
    let factory = LeaseMgrFactory::<Lease4>::new();
    let open = || factory.open(&connection).map_err(|error| leasemgr::with_sources(&error).to_string());

    let leases = open()?;
    if !is_memfile {
        for k in 0..n {
            if k == 0 || subnet(k) != subnet(k - 1) {
                leases.wipe_subnet(subnet(k))?;
            }
        }
    }
    let before = resident()?;
    let run = |name, work: &(dyn Fn(&Leases, u32) -> Outcome + Sync)| timed(name, &leases, n, threads, work);
    run("add", &|leases, i| expect(leases.add(&lease(i)?)? == Added::Added))?;
    writeln!(stdout(), "{:<22} {:.0} bytes per lease", "memory", (resident()? - before) / f64::from(n))?;
    run("renew", &|leases, i| {
        let lease = known(leases.get(address(scattered(i, n)))?)?;
        let mut renewed = lease.clone();
        renewed.data_mut().cltt += 1;
        Ok(leases.update_if_unchanged(&lease, &renewed)?)
    })?;
    run("get by address", &|leases, i| known(leases.get(address(scattered(i, n)))?).map(drop))?;
    run("get by hwaddr+subnet", &|leases, i| {
        let k = scattered(i, n);
        known(leases.by_hwaddr_in_subnet(&HwAddr::new(&mac(k))?, subnet(k))?).map(drop)
    })?;
    run("get by clientid+subnet", &|leases, i| {
        let k = scattered(i, n);
        known(leases.by_client_id_in_subnet(&client_id(k)?, subnet(k))?).map(drop)
    })?;
    pages(&leases, n / 1000)?;
    drop(leases);

    let before = resident()?;
    let start = Instant::now();
    let leases = open()?;
    if is_memfile {
        let seconds = start.elapsed().as_secs_f64();
        writeln!(
            stdout(),
            "{:<22} rows={}  {seconds:.3} s  {:.0} rows/s (rss {:+.0} KiB)",
            "load",
            2 * n,
            f64::from(2 * n) / seconds,
            (resident()? - before) / 1024.0
        )?;
    }
    let delete = |leases: &Leases, i| {
        let lease = known(leases.get(address(i))?)?;
        expect(leases.delete_if_unchanged(&lease)? == Deleted::Deleted)
    };
    timed("get and delete", &leases, n, threads, &delete)
}

/// Removes the files of earlier runs, and returns the connection string of the memfile.
fn memfile(directory: &Path) -> String {
    let file = directory.join("bench-leases4.csv");
    for suffix in ["", ".1", ".2", ".completed", ".output", ".pid", ".lock"] {
        let _ = fs::remove_file(format!("{}{suffix}", file.display()));
    }
    format!("type=memfile universe=4 persist=true lfc-interval=0 name={}", file.display())
}

fn mac(i: u32) -> [u8; 6] {
    let [a, b, c, d] = i.to_be_bytes();
    [2, 0, a, b, c, d]
}

fn client_id(i: u32) -> Outcome<ClientId> {
    let [a, b, c, d, e, f] = mac(i);
    Ok(ClientId::new(&[1, a, b, c, d, e, f])?)
}

fn subnet(i: u32) -> SubnetId {
    SubnetId(1 + i / 65536)
}

fn address(i: u32) -> Ipv4Addr {
    Ipv4Addr::from_bits(FIRST + i)
}

/// Returns an index in another order than that of the addresses.
fn scattered(i: u32, n: u32) -> u32 {
    u32::try_from(u64::from(i) * 7919 % u64::from(n)).unwrap_or(0)
}

fn lease(i: u32) -> Outcome<Lease4> {
    Ok(Lease4::builder(address(i))
        .client((HwAddr::new(&mac(i))?, client_id(i)?))
        .lifetime(3600)
        // The clock that `time` of the C library reads.
        .cltt(clock_gettime(ClockId::RealtimeCoarse).tv_sec)
        .subnet(subnet(i))
        .hostname(format!("host-{i}.example.org"))
        .build()?)
}

fn known(lease: Option<Lease4>) -> Outcome<Lease4> {
    lease.ok_or_else(|| "a lease is missing".into())
}

fn expect(as_expected: bool) -> Outcome {
    if as_expected { Ok(()) } else { Err("an operation had an unexpected result".into()) }
}

/// Returns the memory of the process in bytes.
fn resident() -> Outcome<f64> {
    let status = fs::read_to_string("/proc/self/status")?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    let kib: f64 = line.and_then(|line| line.trim().strip_suffix(" kB")).ok_or("no VmRSS")?.parse()?;
    Ok(kib * 1024.0)
}

fn report(name: &str, threads: u32, n: u32, start: Instant) -> Outcome {
    let seconds = start.elapsed().as_secs_f64();
    let rate = f64::from(n) / seconds;
    Ok(writeln!(stdout(), "{name:<22} threads={threads} n={n}  {seconds:.3} s  {rate:.0} ops/s")?)
}

/// Runs an operation for each lease; each thread has a share of the leases.
fn timed(
    name: &str,
    leases: &Arc<Leases>,
    n: u32,
    threads: u32,
    work: &(dyn Fn(&Leases, u32) -> Outcome + Sync),
) -> Outcome {
    let bound = |t: u32| u32::try_from(u64::from(n) * u64::from(t) / u64::from(threads));
    let start = Instant::now();
    std::thread::scope(|scope| {
        let share = |t| {
            move || {
                let leases = Arc::clone(leases);
                (bound(t)?..bound(t + 1)?).try_for_each(|i| work(leases.as_ref(), i))
            }
        };
        let threads: Vec<_> = (0..threads).map(|t| scope.spawn(share(t))).collect();
        threads.into_iter().try_for_each(|thread| thread.join().map_err(|_| "a thread panicked")?)
    })?;
    report(name, threads, n, start)
}

fn pages(leases: &Arc<Leases>, n: u32) -> Outcome {
    let mut after = Some(Ipv4Addr::UNSPECIFIED);
    let start = Instant::now();
    for _ in 0..n {
        let page = leases.page(after, 1000)?;
        after = Some(page.last().ok_or("an empty page")?.address());
    }
    report("page 1000", 1, n, start)
}
