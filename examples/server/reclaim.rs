//! Expired leases.

use leasemgr::lease::LeaseState;
use leasemgr::{LeaseMgr, LeaseMgrError, LeaseMgrExt, ManagedLease};

use super::Outcome;

/// How many expired leases are read at a time.
const BATCH: usize = 1000;
/// For so many seconds a client that comes back finds its lease, if nobody else was given the address.
const HOLD_RECLAIMED: u32 = 3600;

/// Reclaims the leases that have expired at `now`, in seconds since the epoch, and deletes those that were reclaimed long
/// ago and declined ones whose probation is over, until there are no more of them or it is time to stop.
pub(crate) fn reclaim<L: ManagedLease>(
    leases: &dyn LeaseMgr<L>,
    now: i64,
    stop: impl Fn() -> bool,
) -> Outcome {
    let now = u64::try_from(now)?;
    while !stop() {
        let expired = leases.expired(now, BATCH)?;
        for lease in &expired {
            match reclaim_lease(leases, lease) {
                // Its client was faster.
                Ok(()) | Err(LeaseMgrError::ChangedMeanwhile { .. } | LeaseMgrError::NoSuchLease { .. }) => {}
                Err(error) => return Err(error.into()),
            }
        }
        if expired.len() < BATCH {
            break;
        }
    }
    leases.delete_reclaimed(now, HOLD_RECLAIMED)?;
    Ok(())
}

/// A server that puts names into the DNS would take them out here.
fn reclaim_lease<L: ManagedLease>(leases: &dyn LeaseMgr<L>, lease: &L) -> Result<(), LeaseMgrError> {
    let mut reclaimed = lease.clone();
    // A declined lease is nobody's, so there is nothing to hold.
    if lease.state() == LeaseState::DECLINED || reclaimed.set_state(LeaseState::EXPIRED_RECLAIMED).is_err() {
        return leases.delete_if_unchanged(lease).map(drop);
    }
    leases.update_if_unchanged(lease, &reclaimed)
}
