//! Lists the leases of a Kea server, which may be running:
//!
//! ```text
//! list_leases 4 /var/lib/kea/kea-leases4.csv
//! ```
//!
//! Address, state, client and expiry of each lease are written to standard output, in address
//! order, separated by tabs. Invalid rows, and files whose last line is incomplete, are reported on
//! standard error.

use std::error::Error;
use std::io::{self, Write};
use std::process::ExitCode;
use std::time::SystemTime;

use leasemgr::lease::{Lease, Lease4, Lease6, LeaseType};
use leasemgr::lease_file::{FileLease, LeaseFileSet};

/// What is shown of a lease of either family.
trait Shown: FileLease {
    /// Returns the leased address, or prefix with its length.
    fn leased(&self) -> String;

    /// Returns the client of the lease.
    fn client(&self) -> String;
}

impl Shown for Lease4 {
    fn leased(&self) -> String {
        self.address().to_string()
    }

    fn client(&self) -> String {
        let hwaddr = self.hwaddr().map(|hwaddr| format!("hwaddr {hwaddr}"));
        let client_id = self.client_id().map(|client_id| format!("client-id {client_id}"));
        hwaddr.into_iter().chain(client_id).collect::<Vec<_>>().join(" ")
    }
}

impl Shown for Lease6 {
    fn leased(&self) -> String {
        if self.lease_type() == LeaseType::PD {
            format!("{}/{}", self.address(), self.prefix_len())
        } else {
            self.address().to_string()
        }
    }

    fn client(&self) -> String {
        if self.duid().is_empty() {
            return String::new();
        }
        format!("duid {} iaid {}", self.duid(), self.iaid())
    }
}

fn main() -> ExitCode {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let result = match args.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        ["4", path] => list::<Lease4>(path),
        ["6", path] => list::<Lease6>(path),
        _ => Err("usage: list_leases 4|6 LEASE-FILE".into()),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            // If standard error is closed, the error cannot be reported.
            let _ = writeln!(io::stderr(), "list_leases: {}", leasemgr::with_sources(&*error));
            ExitCode::FAILURE
        }
    }
}

fn list<L: Shown>(path: &str) -> Result<(), Box<dyn Error>> {
    let set = LeaseFileSet::new(path).read::<L>()?;
    if set.files.is_empty() {
        return Err(format!("{path}: neither this lease file nor one of a cleanup is there").into());
    }
    for row in &set.invalid_rows {
        writeln!(io::stderr(), "list_leases: {}: {}", row.path.display(), row.error)?;
    }
    let more = set.stats.invalid_rows.saturating_sub(set.invalid_rows.len() as u64);
    if more > 0 {
        writeln!(io::stderr(), "list_leases: {more} more rows are no lease")?;
    }
    for path in &set.torn {
        let path = path.display();
        writeln!(io::stderr(), "list_leases: {path}: the last line has no newline; it may be incomplete")?;
    }
    match show(set.leases.values(), SystemTime::now()) {
        // The reader of the list has read enough of it.
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(()),
        result => Ok(result?),
    }
}

fn show<'a, L: Shown>(leases: impl Iterator<Item = &'a L>, now: SystemTime) -> io::Result<()> {
    let mut out = io::BufWriter::new(io::stdout().lock());
    for lease in leases {
        let (leased, state, client) = (lease.leased(), lease.state(), lease.client());
        writeln!(out, "{leased}\t{state}\t{client}\t{}", expiry(lease, now))?;
    }
    out.flush()
}

/// Returns the time at which a lease expires.
fn expiry(lease: &impl Lease, now: SystemTime) -> String {
    let Some(end) = lease.end() else {
        return "never expires".to_owned();
    };
    let Ok(end) = u64::try_from(end) else {
        return "expired before 1970".to_owned();
    };
    let tense = if lease.is_expired(now) { "expired" } else { "expires" };
    format!("{tense} {}", date_and_time(end))
}

/// Returns seconds since the epoch in the format of RFC 3339, in UTC.
fn date_and_time(seconds: u64) -> String {
    let (day, second) = (seconds / 86400, seconds % 86400);
    // The calendar repeats every 400 years, 146097 days. The year starts with March here, so that
    // the leap day is its last one.
    let day = day + 719_468;
    let (era, day) = (day / 146_097, day % 146_097);
    let year = (day - day / 1460 + day / 36524 - day / 146_096) / 365;
    let day = day - (365 * year + year / 4 - year / 100);
    let month = (5 * day + 2) / 153;
    let day = day - (153 * month + 2) / 5 + 1;
    let month = if month < 10 { month + 3 } else { month - 9 };
    let year = 400 * era + year + u64::from(month <= 2);
    let (hour, minute, second) = (second / 3600, second / 60 % 60, second % 60);
    format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}Z")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn seconds_since_the_epoch_are_shown_as_a_date() {
        for (seconds, shown) in [
            (0, "1970-01-01T00:00:00Z"),
            (951_782_400, "2000-02-29T00:00:00Z"),
            (951_868_800, "2000-03-01T00:00:00Z"),
            (1_790_003_600, "2026-09-21T15:13:20Z"),
            (4_107_542_399, "2100-02-28T23:59:59Z"),
            (4_107_542_400, "2100-03-01T00:00:00Z"),
            (6_085_000_000, "2162-10-29T05:46:40Z"),
        ] {
            assert_eq!(date_and_time(seconds), shown);
        }
    }
}
