//! A load test: tasks reserve, renew and release leases of one lease manager, on a tokio runtime
//! with two threads.
//!
//! ```text
//! tokio_server CALLS TASKS SECONDS CONNECTION
//! ```
//!
//! `CALLS` selects how the tasks change leases: `async` (`AsyncLeaseMgr`), or blocking methods:
//! `direct`, `block-in-place`, `spawn-blocking`. `CONNECTION` is a connection string, such as
//! `type=memfile name=/tmp/leases4.csv durability=synced`.
//!
//! Prints the number of changes a second, the delay of timers of one millisecond, and the peak
//! memory of the process.

use std::error::Error;
use std::fs;
use std::io::{Write, stdout};
use std::sync::Arc;
use std::time::Duration;

use leasemgr::lease::{HwAddr, Lease4, LeaseState, Lifetime, SubnetId};
use leasemgr::{Added, AsyncLeaseMgr, Deleted, LeaseMgrExt, LeaseMgrFactory};
use tokio::task::{JoinSet, block_in_place, spawn_blocking};
use tokio::time::{Instant, sleep_until};

type Outcome<T = ()> = Result<T, Box<dyn Error + Send + Sync>>;

const USAGE: &str = "usage: tokio_server async|direct|block-in-place|spawn-blocking TASKS SECONDS CONNECTION";
const FIRST: u32 = 0x0a00_0000;
/// Number of addresses that each task uses in turn.
const ADDRESSES: u32 = 64;

#[derive(Clone, Copy)]
enum Calls {
    Async,
    Direct,
    BlockInPlace,
    SpawnBlocking,
}

fn main() -> Outcome {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let [calls, tasks, seconds, connection] = &args[..] else {
        return Err(USAGE.into());
    };
    let calls = match calls.as_str() {
        "async" => Calls::Async,
        "direct" => Calls::Direct,
        "block-in-place" => Calls::BlockInPlace,
        "spawn-blocking" => Calls::SpawnBlocking,
        _ => return Err(USAGE.into()),
    };
    let (tasks, time) = (tasks.parse()?, Duration::from_secs_f64(seconds.parse()?));
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_time().build()?;
    // On a thread of the runtime, like the tasks of a server.
    let connection = connection.clone();
    runtime.block_on(async move { tokio::spawn(serve(calls, tasks, time, connection)).await? })
}

async fn serve(calls: Calls, tasks: u32, time: Duration, connection: String) -> Outcome {
    let leases = LeaseMgrFactory::<Lease4>::new().open_async(&connection).await?;
    let end = Instant::now() + time;
    let timer = tokio::spawn(timer_delays(end));
    let mut clients = JoinSet::new();
    for number in 0..tasks {
        clients.spawn(client(leases.clone(), calls, number, end));
    }
    let mut changes = 0;
    while let Some(made) = clients.join_next().await {
        changes += made??;
    }
    let mut late = timer.await?;
    late.sort_unstable();
    leases.close().await;
    let at = |part: f64| late.get((part * late.len() as f64) as usize).or(late.last()).copied();
    let milliseconds = |time: Option<Duration>| time.unwrap_or_default().as_secs_f64() * 1000.0;
    let (p99, most) = (milliseconds(at(0.99)), milliseconds(at(1.0)));
    let rate = changes as f64 / time.as_secs_f64();
    writeln!(stdout(), "{rate:.0} changes a second")?;
    writeln!(
        stdout(),
        "timers: {} at most {p99:.2} ms late in 99 % of cases, {most:.2} ms in all",
        late.len()
    )?;
    writeln!(stdout(), "memory: {:.1} MB at its peak", peak_memory()?)?;
    Ok(())
}

/// Reserves, renews and releases leases, one after the other. Returns the number of changes.
async fn client(leases: AsyncLeaseMgr<Lease4>, calls: Calls, number: u32, end: Instant) -> Outcome<u64> {
    let [a, b, c, d] = number.to_be_bytes();
    let hwaddr = HwAddr::new(&[2, 0, a, b, c, d])?;
    let mut changes = 0;
    for n in (0..ADDRESSES).cycle() {
        if Instant::now() >= end {
            break;
        }
        let address = (FIRST + number * ADDRESSES + n).into();
        let mut lease = Lease4::new(address, Some(hwaddr.clone()), None, LeaseState::DEFAULT)?;
        lease.data_mut().subnet_id = SubnetId(1);
        lease.data_mut().valid_lifetime = Lifetime(3600);
        lease.data_mut().cltt = 1_790_000_000;
        let mut renewed = lease.clone();
        renewed.data_mut().cltt += 1800;
        let done = match calls {
            Calls::Async => {
                let added = leases.add(&lease).await?;
                leases.update_if_unchanged(&lease, &renewed).await?;
                (added, leases.delete_if_unchanged(&renewed).await?)
            }
            Calls::Direct => {
                let blocking = leases.leases();
                let added = blocking.add(&lease)?;
                // Other tasks run between two packets.
                tokio::task::yield_now().await;
                blocking.update_if_unchanged(&lease, &renewed)?;
                tokio::task::yield_now().await;
                (added, blocking.delete_if_unchanged(&renewed)?)
            }
            Calls::BlockInPlace => {
                let blocking = leases.leases();
                let added = block_in_place(|| blocking.add(&lease))?;
                block_in_place(|| blocking.update_if_unchanged(&lease, &renewed))?;
                (added, block_in_place(|| blocking.delete_if_unchanged(&renewed))?)
            }
            Calls::SpawnBlocking => {
                let blocking = || Arc::clone(leases.leases());
                let (own, new) = (blocking(), lease.clone());
                let added = spawn_blocking(move || own.add(&new)).await??;
                let (own, new) = (blocking(), renewed.clone());
                spawn_blocking(move || own.update_if_unchanged(&lease, &new)).await??;
                let own = blocking();
                (added, spawn_blocking(move || own.delete_if_unchanged(&renewed)).await??)
            }
        };
        if done != (Added::Added, Deleted::Deleted) {
            return Err(format!("the lease of {address} is another one: {done:?}").into());
        }
        changes += 3;
        if matches!(calls, Calls::Async | Calls::Direct) {
            tokio::task::yield_now().await;
        }
    }
    Ok(changes)
}

/// Returns the delays of timers of one millisecond.
async fn timer_delays(end: Instant) -> Vec<Duration> {
    let mut late = Vec::new();
    loop {
        let due = Instant::now() + Duration::from_millis(1);
        if due >= end {
            return late;
        }
        sleep_until(due).await;
        late.push(due.elapsed());
    }
}

/// Returns the peak memory of the process, in megabytes.
fn peak_memory() -> Outcome<f64> {
    let status = fs::read_to_string("/proc/self/status")?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap_or_default();
    Ok(line.trim().trim_end_matches(" kB").parse::<f64>()? / 1000.0)
}
