//! Operations of a memfile with 100 000 leases, in memory and on disk; free addresses of a full
//! pool; and leases in a state across many subnets.

mod support;

use std::hint::black_box;
use std::net::Ipv4Addr;
use std::sync::Arc;
use std::time::UNIX_EPOCH;

use criterion::measurement::WallTime;
use criterion::{BatchSize, BenchmarkGroup, Criterion, Throughput};
use leasemgr::WriteLeases;
use leasemgr::lease::{Hostname, HwAddr, Lease4, Lease6, LeaseState, Lifetime, SubnetId, system_time};
use leasemgr::lease_file::FileLease;
use leasemgr::memfile::{self, LfcProgram, MemfileOptions};
use leasemgr::{FreeRange, LeaseMgr, LeaseMgrExt, ManagedLease, Query, StatisticsQuery};
use support::{Contexts, Outcome, Sample, criterion, leases};

const LEASES: u32 = 100_000;

fn main() -> Outcome {
    let mut criterion = criterion();
    for on_disk in [false, true] {
        family::<Lease4>(&mut criterion, "v4", on_disk)?;
        family::<Lease6>(&mut criterion, "v6", on_disk)?;
    }
    free_addresses(&mut criterion)?;
    criterion.final_summary();
    Ok(())
}

/// Measures a pool of 200 000 addresses, all of which have a lease, in 10 000 subnets; every fifth
/// is declined.
#[expect(clippy::expect_used, reason = "a closure that gives a lease, which has a client")]
fn free_addresses(criterion: &mut Criterion) -> Outcome {
    const POOL: u32 = 200_000;
    const SUBNETS: u32 = 10_000;
    const END: i64 = 3600;
    let address = |n| Ipv4Addr::from_bits(0x0a00_0000 + n);
    let manager = memfile::open::<Lease4>(MemfileOptions::default())?;
    let lease = |address, heard_at| {
        let client = HwAddr::from([2, 0, 0, 0, 0, 1]);
        let lease = Lease4::builder(address).client(client).subnet(1 + address.to_bits() % SUBNETS);
        lease.lifetime(3600).heard_at(system_time(heard_at)).build()
    };
    for n in 0..POOL {
        let mut lease = lease(address(n), 0)?;
        if n % 5 == 0 {
            lease.decline(UNIX_EPOCH, Lifetime(3600));
        }
        assert_eq!(manager.add(&lease)?, leasemgr::Added::Added);
    }
    let range = FreeRange::new(address(0)..=address(2 * POOL));
    let mut group = criterion.benchmark_group("memfile v4 full pool");
    group.bench_function("first free address", |bencher| {
        bencher
            .iter(|| assert_eq!(manager.first_free(&range, system_time(0)).ok(), Some(Some(address(POOL)))));
    });
    let one_subnet = memfile::open::<Lease4>(MemfileOptions::default())?;
    for mut lease in manager.all()? {
        lease.data_mut().subnet_id = SubnetId(1);
        assert_eq!(one_subnet.add(&lease)?, leasemgr::Added::Added);
    }
    group.throughput(Throughput::Elements(u64::from(POOL / 5)));
    for (name, manager) in [("10 000 subnets", &manager), ("one subnet", &one_subnet)] {
        let query = match name {
            "one subnet" => Query::state(LeaseState::DECLINED).in_subnet(SubnetId(1)),
            _ => Query::state(LeaseState::DECLINED),
        };
        group.bench_function(format!("declined leases of {name}"), |bencher| {
            bencher.iter(|| assert_eq!(manager.find(&query).map(|leases| leases.len()).ok(), Some(40_000)));
        });
    }
    group.throughput(Throughput::Elements(100));
    group.bench_function("page of 100 declined leases of 10 000 subnets", |bencher| {
        let pages: Vec<_> =
            (0..40).map(|n| Query::state(LeaseState::DECLINED).after(address(n * 5000)).limit(100)).collect();
        let mut pages = pages.iter().cycle();
        bencher.iter(|| pages.next().map(|page| manager.find(page).map(|leases| leases.len()).ok()));
    });
    // Each claim assigns a lease that starts a second later, so there are always expired leases.
    group.throughput(Throughput::Elements(1));
    let mut now = END;
    group.bench_function("claim of an address whose lease has ended", |bencher| {
        bencher.iter(|| {
            now += 1;
            let claimed = manager.claim_first(&range, system_time(now), &mut |address| {
                lease(address, now).expect("the lease has a client")
            });
            assert!(claimed.is_ok_and(|claimed| claimed.is_some()));
        });
    });
    group.finish();
    Ok(())
}

/// Iterates over the leases in another order than that of their addresses.
struct Scattered<'a, L> {
    leases: &'a [L],
    n: usize,
}

impl<L> Scattered<'_, L> {
    fn next(&mut self) -> &L {
        self.n += 7919;
        &self.leases[self.n % self.leases.len()]
    }
}

fn family<L: Sample + ManagedLease + FileLease>(
    criterion: &mut Criterion,
    family: &str,
    on_disk: bool,
) -> Outcome {
    let directory = tempfile::tempdir()?;
    let options = MemfileOptions::default()
        .file(on_disk.then(|| directory.path().join("leases.csv")))
        .lfc_interval(None)
        .lfc_program(LfcProgram::Internal);
    let samples = leases::<L>(0..LEASES, Contexts::None)?;
    let manager: Arc<dyn LeaseMgr<L>> = memfile::open(options.clone())?;
    for lease in &samples {
        assert_eq!(manager.add(lease)?, leasemgr::Added::Added);
    }
    let place = if on_disk { "on disk" } else { "in memory" };
    let mut group = criterion.benchmark_group(format!("memfile {family} {place}"));
    changes(&mut group, manager.as_ref(), &samples);
    if !on_disk {
        queries(&mut group, manager.as_ref(), &samples);
    }
    if on_disk {
        // A separate file: the manager's own file has a row for each change by now.
        let file = directory.path().join("loaded.csv");
        manager.write_to(&file)?;
        let options = options.file(file);
        group.throughput(Throughput::Elements(u64::from(LEASES)));
        group.sample_size(10);
        group.bench_function("load", |bencher| {
            bencher.iter_with_large_drop(|| memfile::open::<L>(options.clone()).map_err(|e| e.to_string()));
        });
    }
    group.finish();
    Ok(())
}

fn changes<L: Sample + ManagedLease>(
    group: &mut BenchmarkGroup<'_, WallTime>,
    manager: &dyn LeaseMgr<L>,
    samples: &[L],
) {
    group.throughput(Throughput::Elements(1));
    let mut scattered = Scattered { leases: samples, n: 0 };
    group.bench_function("renew", |bencher| {
        bencher.iter(|| {
            let lease = manager.get(scattered.next().address()).ok().flatten();
            lease.map(|mut lease| {
                lease.data_mut().cltt += 1;
                manager.update(&lease)
            })
        });
    });
    group.bench_function("renew if unchanged", |bencher| {
        bencher.iter(|| {
            let read = manager.get(scattered.next().address()).ok().flatten();
            read.map(|read| {
                let mut lease = read.clone();
                lease.data_mut().cltt += 1;
                manager.update_if_unchanged(&read, &lease)
            })
        });
    });
    group.bench_function("delete and add", |bencher| {
        bencher.iter_batched(
            || scattered.next().clone(),
            |lease| (manager.delete(lease.address()).is_ok(), manager.add(&lease).is_ok()),
            BatchSize::SmallInput,
        );
    });
}

fn queries<L: Sample + ManagedLease>(
    group: &mut BenchmarkGroup<'_, WallTime>,
    manager: &dyn LeaseMgr<L>,
    samples: &[L],
) {
    let mut scattered = Scattered { leases: samples, n: 0 };
    group.bench_function("get by address", |bencher| {
        bencher.iter(|| manager.get(scattered.next().address()).is_ok());
    });
    group.bench_function("get by hardware address and subnet", |bencher| {
        bencher.iter(|| {
            let lease = scattered.next();
            lease.hwaddr().map(|hwaddr| manager.by_hwaddr_in_subnet(hwaddr, lease.data().subnet_id).is_ok())
        });
    });
    group.bench_function("get by hostname", |bencher| {
        bencher.iter(|| {
            let name: Hostname = scattered.next().data().hostname.clone();
            manager.by_hostname(&name).is_ok()
        });
    });
    group.bench_function("expired, none", |bencher| {
        bencher.iter(|| manager.list_expired(system_time(0), 100).is_ok());
    });
    group.bench_function("statistics", |bencher| {
        bencher.iter(|| black_box(manager.statistics(&StatisticsQuery::default())).is_ok());
    });
    let pages = [
        ("page of 1000", Query::all()),
        ("page of 1000 in a subnet", Query::all().in_subnet(SubnetId(1))),
        ("page of 1000 in a state", Query::state(LeaseState::DEFAULT)),
    ];
    group.throughput(Throughput::Elements(1000));
    for (name, query) in pages {
        let middle = samples[samples.len() / 4].address();
        group.bench_function(name, |bencher| {
            bencher.iter(|| manager.find(&query.after(middle).limit(1000)).map(|page| page.len()).ok());
        });
    }
}
