//! Changes of all leases, while other callers change leases, too.

use tracing::warn;

use super::{LeaseMgr, LeaseMgrError, LeaseMgrExt, ManagedLease};
use crate::first_of_many::FirstOfMany;
use crate::lease::{ExtendedInfoChecks, RelayInfo, check_extended_info};

/// Reads all leases in pages, and replaces those for which `changed` returns a new lease. A lease
/// that is modified concurrently is read and passed to `changed` again, so that no change of
/// another caller is undone. Returns the number of replaced leases.
fn rewrite<L: ManagedLease, M: LeaseMgr<L> + ?Sized>(
    mgr: &M,
    page_size: usize,
    mut changed: impl FnMut(&L) -> Option<L>,
) -> Result<u64, LeaseMgrError> {
    let mut count = 0;
    let mut after = None;
    loop {
        let page = mgr.page(after, page_size)?;
        let Some(last) = page.last() else {
            return Ok(count);
        };
        after = Some(last.address());
        for read in page {
            let mut there = Some(read);
            while let Some(lease) = there.take()
                && let Some(new) = changed(&lease)
            {
                match mgr.update_expecting(&new, Some(&lease)) {
                    Ok(()) => count += 1,
                    Err(error) if error.is_stale() => there = mgr.get(lease.address())?,
                    Err(error) => return Err(error),
                }
            }
        }
    }
}

pub(super) fn upgrade_extended_info<L: ManagedLease, M: LeaseMgr<L> + ?Sized>(
    mgr: &M,
    checks: ExtendedInfoChecks,
    page_size: usize,
) -> Result<u64, LeaseMgrError> {
    let mut failed = FirstOfMany::default();
    let count = rewrite(mgr, page_size, |lease: &L| {
        let context = lease.data().user_context.as_ref()?;
        let checked = check_extended_info(L::FAMILY, context, checks)?;
        if let Some(problem) = checked.problem {
            let address = lease.address();
            failed.add(|| {
                warn!(
                    id = "DHCPSRV_EXTENDED_INFO_REMOVED",
                    "{address}: {problem}; the lease is kept without it"
                );
            });
        }
        let mut new = lease.clone();
        new.data_mut().user_context = checked.context;
        Some(new)
    })?;
    if failed.has_more() {
        let all = failed.count();
        warn!(id = "DHCPSRV_EXTENDED_INFO_REMOVED", "extended info was removed from a total of {all} leases");
    }
    Ok(count)
}

pub(super) fn rebuild_relay_tables<L: ManagedLease, M: LeaseMgr<L> + ?Sized>(
    mgr: &M,
    page_size: usize,
) -> Result<u64, LeaseMgrError> {
    rewrite(mgr, page_size, |lease: &L| {
        let context = lease.data().user_context.as_ref()?;
        let has_ids = |info: RelayInfo| info != RelayInfo::default();
        RelayInfo::all(L::FAMILY, context).any(has_ids).then(|| lease.clone())
    })
}
