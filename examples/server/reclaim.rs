//! Expired leases.

use std::time::{Duration, SystemTime};

use leasemgr::{LeaseMgr, LeaseMgrExt, ManagedLease};

use super::Outcome;

/// How many expired leases are read at a time.
const BATCH: usize = 1000;
/// For so long a client that comes back finds its lease, if nobody else was given the address.
const HOLD_RECLAIMED: Duration = Duration::from_secs(3600);

/// Reclaims the leases that have expired at `now`, and deletes those that were reclaimed long
/// ago and declined ones whose probation is over, until there are no more of them or it is time to stop.
pub(crate) fn reclaim<L: ManagedLease>(
    leases: &dyn LeaseMgr<L>,
    now: SystemTime,
    stop: impl Fn() -> bool,
) -> Outcome {
    while !stop() {
        let expired = leases.list_expired(now, BATCH)?;
        for lease in &expired {
            // A server that puts names into the DNS would take them out here. If it was not done, the client was faster.
            leases.reclaim(lease)?;
        }
        if expired.len() < BATCH {
            break;
        }
    }
    leases.delete_reclaimed(now - HOLD_RECLAIMED)?;
    Ok(())
}
