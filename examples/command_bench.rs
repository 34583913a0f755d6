//! Measures Kea's lease commands in one thread, without a channel: leases a second that are added,
//! bytes a second of all leases, and the memory that their answer needs.
//!
//! `command_bench [CONNECTION-STRING] [LEASES]`, by default `type=memfile persist=false` and a million.

use std::error::Error;
use std::fs;
use std::io::{self, Write, stdout};
use std::net::Ipv4Addr;
use std::time::Instant;

use leasemgr::LeaseMgrFactory;
use leasemgr::commands::{Commands, Subnet};
use leasemgr::lease::Lease4;
use leasemgr::request::{Channel, Source};

const SOURCE: Source = Source { channel: Channel::Unix, user: None };

fn main() -> Result<(), Box<dyn Error + Send + Sync>> {
    let mut args = std::env::args().skip(1);
    let connection = args.next().unwrap_or_else(|| "type=memfile persist=false".to_owned());
    let count: u32 = args.next().map_or(Ok(1_000_000), |text| text.parse())?;
    let leases = LeaseMgrFactory::<Lease4>::new().open(&connection)?;
    let commands = Commands::new().with_leases4(leases, [Subnet::new(1, [10, 0, 0, 0].into(), 8)]);
    let first = Ipv4Addr::new(10, 0, 0, 1).to_bits();

    let (mut request, mut answer) = (Vec::new(), Vec::new());
    for (command, force_create) in [("lease4-add", false), ("lease4-update", true)] {
        let start = Instant::now();
        for n in 0..count {
            request.clear();
            answer.clear();
            let [a, b, c, d] = n.to_be_bytes();
            write!(
                request,
                r#"{{ "command": "{command}", "arguments": {{ "ip-address": "{}", "hw-address": "02:00:{a:02x}:{b:02x}:{c:02x}:{d:02x}",
                    "subnet-id": 1, "valid-lft": 3600, "expire": 2000000000, "hostname": "host-{n}.example.org", "fqdn-fwd": true,
                    "fqdn-rev": true, "state": 0, "force-create": {force_create} }} }}"#,
                Ipv4Addr::from_bits(first + n)
            )?;
            commands.answer(&request, &SOURCE, &mut answer)?;
            if !answer.starts_with(br#"{ "result": 0"#) {
                return Err(String::from_utf8_lossy(&answer).into());
            }
        }
        writeln!(
            stdout(),
            "{command}: {:.0} commands a second",
            f64::from(count) / start.elapsed().as_secs_f64()
        )?;
    }

    let before = peak_memory()?;
    let start = Instant::now();
    let mut written = Counter(0);
    commands.answer(br#"{ "command": "lease4-get-all" }"#, &SOURCE, &mut written)?;
    let seconds = start.elapsed().as_secs_f64();
    let megabytes = written.0 as f64 / 1e6;
    writeln!(stdout(), "lease4-get-all: {count} leases of {megabytes:.0} MB in {seconds:.2} s")?;
    writeln!(stdout(), "lease4-get-all: {} KiB more memory at its peak", peak_memory()? - before)?;
    Ok(())
}

/// Counts what is written to it.
struct Counter(usize);

impl Write for Counter {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0 += bytes.len();
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Returns the most memory that the process had, in KiB.
fn peak_memory() -> Result<i64, Box<dyn Error + Send + Sync>> {
    let status = fs::read_to_string("/proc/self/status")?;
    let peak = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
    let peak = peak.and_then(|peak| peak.trim().strip_suffix(" kB"));
    Ok(peak.ok_or("no VmHWM in /proc/self/status")?.parse()?)
}
