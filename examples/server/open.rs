//! Opening the leases of a server.

use std::error::Error;
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use leasemgr::factory::FactoryError;
use leasemgr::memfile::OpenError;
use leasemgr::{LeaseMgr, LeaseMgrFactory, ManagedLease};

/// Opens the lease manager. If a server before this one was killed, its cleanup of the lease files may still be
/// running, and is waited for.
pub(crate) fn open<L: ManagedLease>(
    connection: &str,
) -> Result<Arc<dyn LeaseMgr<L>>, Box<dyn Error + Send + Sync>> {
    let factory = LeaseMgrFactory::<L>::new();
    let mut is_waiting = false;
    loop {
        match factory.open(connection) {
            Err(FactoryError::Open { source, .. })
                if matches!(source.downcast_ref(), Some(OpenError::CleanupRunning { .. })) =>
            {
                if !is_waiting {
                    eprintln!("{source}");
                }
                is_waiting = true;
                thread::sleep(Duration::from_millis(100));
            }
            opened => return Ok(opened?),
        }
    }
}
