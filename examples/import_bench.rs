//! Measures the import and export of many DHCPv4 leases.
//!
//! ```text
//! import_bench LEASES CONNECTION-STRING [PORTION] [exclusive]
//! ```
//!
//! The DHCPv4 leases of the connection string are deleted first, subnet by subnet of the benchmark.

use std::error::Error;
use std::io::{Write, stdout};
use std::net::Ipv4Addr;
use std::time::{Duration, Instant, SystemTime};

use leasemgr::lease::{ClientId, HwAddr, Lease4, SubnetId};
use leasemgr::{ImportOptions, Imported, LeaseMgrError, LeaseMgrExt, LeaseMgrFactory, Query};

type Outcome<T = ()> = Result<T, Box<dyn Error>>;

const USAGE: &str = "usage: import_bench LEASES CONNECTION-STRING [PORTION] [exclusive]";
const FIRST: u32 = 0x0a00_0000;
const IN_SUBNET: u32 = 65_536;

fn main() -> Outcome {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [leases, connection, rest @ ..] = &arguments[..] else {
        return Err(USAGE.into());
    };
    let leases: u32 = leases.parse()?;
    let mut options = ImportOptions::default();
    for argument in rest {
        options = match argument.as_str() {
            "exclusive" => options.exclusive(),
            portion => options.portion(portion.parse()?),
        };
    }
    let factory = LeaseMgrFactory::<Lease4>::new();
    let mgr = factory.open(connection).map_err(|error| leasemgr::with_sources(&error).to_string())?;
    for subnet in 0..=leases / IN_SUBNET {
        mgr.wipe_subnet(SubnetId(1 + subnet))?;
    }
    let now = SystemTime::now();
    let make = |n| lease(n, now).map_err(|error| LeaseMgrError::Backend(error.to_string().into()));
    let import = |name| {
        let start = Instant::now();
        let imported = mgr.import(&mut (0..leases).map(make), &options, &mut |_| {})?;
        report(name, leases, start.elapsed())?;
        Ok::<Imported<Lease4>, Box<dyn Error>>(imported)
    };
    let imported = import("import")?;
    if imported.added != u64::from(leases) {
        return Err(format!("expected new leases, found {imported:?}").into());
    }
    let start = Instant::now();
    let exported = mgr.leases(Query::all()).try_fold(0_u64, |count, lease| lease.map(|_| count + 1))?;
    report("export", leases, start.elapsed())?;
    if exported < u64::from(leases) {
        return Err(format!("{exported} leases were exported").into());
    }
    let start = Instant::now();
    mgr.recount()?;
    report("recount", leases, start.elapsed())?;
    let again = import("import again")?;
    if again.same == u64::from(leases) {
        Ok(())
    } else {
        Err(format!("expected the same, found {again:?}").into())
    }
}

fn lease(n: u32, now: SystemTime) -> Outcome<Lease4> {
    let [a, b, c, d] = n.to_be_bytes();
    let client = (HwAddr::new(&[2, 0, a, b, c, d])?, ClientId::new(&[1, 2, 0, a, b, c, d])?);
    let builder = Lease4::builder(Ipv4Addr::from_bits(FIRST + n)).client(client).lifetime(3600).heard_at(now);
    Ok(builder.subnet(1 + n / IN_SUBNET).hostname(format!("host-{n}.example.org")).build()?)
}

fn report(name: &str, leases: u32, time: Duration) -> Outcome {
    let seconds = time.as_secs_f64();
    let rate = f64::from(leases) / seconds;
    Ok(writeln!(stdout(), "{name:<14} {leases} leases  {seconds:.3} s  {rate:.0} leases/s")?)
}
