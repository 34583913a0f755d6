//! Measures the lease operations of a DHCPv4 server through the public API: add, renew, look up,
//! page, load, delete.
//!
//! ```text
//! lease_mgr_bench LEASES THREADS DIR [KEYWORD=VALUE...]
//! lease_mgr_bench LEASES THREADS CONNECTION-STRING
//! lease_mgr_bench LEASES --tasks TASKS DIR-or-CONNECTION-STRING [KEYWORD=VALUE...]
//! ```
//!
//! With a directory, the leases are in the memfile `DIR/bench-leases4.csv`, which is replaced, and
//! keywords are added to the connection string, such as `durability=synced`. With the connection
//! string of a database, its DHCPv4 leases of the benchmark's subnets are deleted first. Every
//! operation is done once for each lease; the leases are shared between the threads or, with
//! `--tasks`, between the tasks of one thread, which use `AsyncLeaseMgr`.

use std::error::Error;
use std::fs;
use std::io::{Write, stdout};
use std::net::Ipv4Addr;
use std::path::Path;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Instant;

use leasemgr::lease::{ClientId, HwAddr, Lease4, SubnetId};
use leasemgr::{
    Added, AsyncLeaseMgr, ClientKey, Deleted, LeaseMgr, LeaseMgrExt, LeaseMgrExt4, LeaseMgrFactory,
};
use rustix::time::{ClockId, clock_gettime};

type Outcome<T = ()> = Result<T, Box<dyn Error + Send + Sync>>;
type Leases = dyn LeaseMgr<Lease4>;

const USAGE: &str =
    "usage: lease_mgr_bench LEASES THREADS|--tasks TASKS DIR-or-CONNECTION-STRING [KEYWORD=VALUE...]";
const FIRST: u32 = 0x0a00_0000;

/// An operation for the lease of a number among a number of leases.
struct Operation {
    name: &'static str,
    call: fn(&Leases, u32, u32) -> Outcome,
    start: fn(AsyncLeaseMgr<Lease4>, u32, u32) -> Pending,
}

type Pending = Pin<Box<dyn Future<Output = Outcome> + Send>>;

const ADD: Operation = Operation {
    name: "add",
    call: |leases, i, _| expect(leases.add(&lease(i)?)? == Added::Added),
    start: |leases, i, _| Box::pin(async move { expect(leases.add(&lease(i)?).await? == Added::Added) }),
};

const USE: [Operation; 4] = [
    Operation {
        name: "renew",
        call: |leases, i, n| {
            let lease = known(leases.get(address(scattered(i, n)))?)?;
            Ok(leases.update_if_unchanged(&lease, &renewed(&lease))?)
        },
        start: |leases, i, n| {
            Box::pin(async move {
                let lease = known(leases.get(address(scattered(i, n))).await?)?;
                Ok(leases.update_if_unchanged(&lease, &renewed(&lease)).await?)
            })
        },
    },
    Operation {
        name: "get by address",
        call: |leases, i, n| known(leases.get(address(scattered(i, n)))?).map(drop),
        start: |leases, i, n| {
            Box::pin(async move { known(leases.get(address(scattered(i, n))).await?).map(drop) })
        },
    },
    Operation {
        name: "get by hwaddr+subnet",
        call: |leases, i, n| {
            let k = scattered(i, n);
            known(leases.by_hwaddr_in_subnet(&HwAddr::from(mac(k)), subnet(k))?).map(drop)
        },
        start: |leases, i, n| {
            Box::pin(async move {
                let k = scattered(i, n);
                let hwaddr = HwAddr::from(mac(k));
                known(leases.by_client_in_subnet(Some(&hwaddr), None, subnet(k)).await?.pop()).map(drop)
            })
        },
    },
    Operation {
        name: "get by clientid+subnet",
        call: |leases, i, n| {
            let k = scattered(i, n);
            known(leases.by_client_id_in_subnet(&client_id(k)?, subnet(k))?).map(drop)
        },
        start: |leases, i, n| {
            Box::pin(async move {
                let k = scattered(i, n);
                let id = client_id(k)?;
                let client = Some(ClientKey::from(&id));
                known(leases.by_client_in_subnet(None, client, subnet(k)).await?.pop()).map(drop)
            })
        },
    },
];

const DELETE: Operation = Operation {
    name: "get and delete",
    call: |leases, i, _| {
        let lease = known(leases.get(address(i))?)?;
        expect(leases.delete_if_unchanged(&lease)? == Deleted::Deleted)
    },
    start: |leases, i, _| {
        Box::pin(async move {
            let lease = known(leases.get(address(i)).await?)?;
            expect(leases.delete_if_unchanged(&lease).await? == Deleted::Deleted)
        })
    },
};

/// What calls the lease manager at the same time.
#[derive(Clone, Copy)]
enum Callers {
    Threads(u32),
    Tasks(u32),
}

fn main() -> Outcome {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let (leases, callers, place, keywords) = match &args[..] {
        [leases, option, tasks, place, keywords @ ..] if option == "--tasks" => {
            (leases, Callers::Tasks(tasks.parse()?), place, keywords)
        }
        [leases, threads, place, keywords @ ..] => {
            (leases, Callers::Threads(threads.parse()?), place, keywords)
        }
        _ => return Err(USAGE.into()),
    };
    let n: u32 = leases.parse()?;
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
    timed(&ADD, &leases, n, callers)?;
    writeln!(stdout(), "{:<22} {:.0} bytes per lease", "memory", (resident()? - before) / f64::from(n))?;
    USE.iter().try_for_each(|operation| timed(operation, &leases, n, callers))?;
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
    timed(&DELETE, &leases, n, callers)
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

fn renewed(lease: &Lease4) -> Lease4 {
    let mut renewed = lease.clone();
    renewed.data_mut().cltt += 1;
    renewed
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

fn report(name: &str, callers: Callers, n: u32, start: Instant) -> Outcome {
    let seconds = start.elapsed().as_secs_f64();
    let rate = f64::from(n) / seconds;
    let callers = match callers {
        Callers::Threads(count) => format!("threads={count}"),
        Callers::Tasks(count) => format!("tasks={count}"),
    };
    Ok(writeln!(stdout(), "{name:<22} {callers} n={n}  {seconds:.3} s  {rate:.0} ops/s")?)
}

/// Runs an operation for each lease; each thread or task has a share of the leases.
fn timed(operation: &Operation, leases: &Arc<Leases>, n: u32, callers: Callers) -> Outcome {
    let start = Instant::now();
    match callers {
        Callers::Threads(threads) => in_threads(operation.call, leases.as_ref(), n, threads)?,
        Callers::Tasks(tasks) => in_tasks(operation.start, leases, n, tasks)?,
    }
    report(operation.name, callers, n, start)
}

/// Returns the numbers of the leases of one of several callers.
fn share(caller: u32, callers: u32, n: u32) -> Outcome<std::ops::Range<u32>> {
    let bound = |t: u32| u32::try_from(u64::from(n) * u64::from(t) / u64::from(callers));
    Ok(bound(caller)?..bound(caller + 1)?)
}

fn in_threads(call: fn(&Leases, u32, u32) -> Outcome, leases: &Leases, n: u32, threads: u32) -> Outcome {
    std::thread::scope(|scope| {
        let calls = |t| move || share(t, threads, n)?.try_for_each(|i| call(leases, i, n));
        let threads: Vec<_> = (0..threads).map(|t| scope.spawn(calls(t))).collect();
        threads.into_iter().try_for_each(|thread| thread.join().map_err(|_| "a thread panicked")?)
    })
}

fn in_tasks(
    start: fn(AsyncLeaseMgr<Lease4>, u32, u32) -> Pending,
    leases: &Arc<Leases>,
    n: u32,
    tasks: u32,
) -> Outcome {
    let leases = AsyncLeaseMgr::new(Arc::clone(leases));
    tokio::runtime::Builder::new_current_thread().build()?.block_on(async {
        let mut calls = tokio::task::JoinSet::<Outcome>::new();
        for task in 0..tasks {
            let (leases, share) = (leases.clone(), share(task, tasks, n)?);
            calls.spawn(async move {
                for i in share {
                    start(leases.clone(), i, n).await?;
                }
                Ok(())
            });
        }
        while let Some(ended) = calls.join_next().await {
            ended??;
        }
        Ok(())
    })
}

fn pages(leases: &Arc<Leases>, n: u32) -> Outcome {
    let mut after = Some(Ipv4Addr::UNSPECIFIED);
    let start = Instant::now();
    for _ in 0..n {
        let page = leases.page(after, 1000)?;
        after = Some(page.last().ok_or("an empty page")?.address());
    }
    report("page 1000", Callers::Threads(1), n, start)
}
