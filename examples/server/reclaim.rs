//! Expired leases.

use std::time::{Duration, SystemTime};

use leasemgr::{LeaseMgr, LeaseMgrExt, ManagedLease};

use super::Outcome;

/// Number of expired leases that are read at a time.
const BATCH: usize = 1000;
/// Time for which a returning client finds its reclaimed lease, unless the address was assigned to
/// another client.
const HOLD_RECLAIMED: Duration = Duration::from_secs(3600);

/// Reclaims the leases that have expired at `now`, and deletes those that were reclaimed long ago
/// and declined ones whose probation is over, until none is left or the server stops.
pub(crate) fn reclaim<L: ManagedLease>(
    leases: &dyn LeaseMgr<L>,
    now: SystemTime,
    stop: impl Fn() -> bool,
) -> Outcome {
    while !stop() {
        let expired = leases.list_expired(now, BATCH)?;
        for lease in &expired {
            // A server with DNS updates would remove the names here. If the lease has changed, its
            // client was faster.
            leases.reclaim(lease)?;
        }
        if expired.len() < BATCH {
            break;
        }
    }
    leases.delete_reclaimed(now - HOLD_RECLAIMED)?;
    Ok(())
}
