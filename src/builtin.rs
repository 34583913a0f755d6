//! Registers the backends of this crate. No other file names them.

use std::any::Any;
use std::iter;
use std::sync::Arc;

use crate::factory::{LeaseMgrFactory, LeaseMgrOpener};
use crate::lease::{Family, Lease4, Lease6};
use crate::lease_mgr::ManagedLease;

impl<L: ManagedLease> Default for LeaseMgrFactory<L> {
    fn default() -> Self {
        Self::new()
    }
}

impl<L: ManagedLease> LeaseMgrFactory<L> {
    /// Creates a factory with the backends of this crate and no current manager.
    #[must_use]
    pub fn new() -> Self {
        Self::with_backends(backends())
    }
}

/// Collects the backends for leases of a family whose features are enabled.
macro_rules! backends_for {
    ($lease:ty) => {{
        let backends = iter::empty::<Arc<dyn LeaseMgrOpener<$lease>>>();
        #[cfg(feature = "memfile")]
        let backends = backends.chain([Arc::new(crate::memfile::MemfileOpener) as _]);
        #[cfg(feature = "mysql")]
        let backends = backends.chain([Arc::new(crate::mysql::MysqlOpener) as _]);
        #[cfg(feature = "postgresql")]
        let backends = backends.chain([Arc::new(crate::postgresql::PostgresqlOpener) as _]);
        backends.collect::<Vec<_>>()
    }};
}

fn backends<L: ManagedLease>() -> Vec<Arc<dyn LeaseMgrOpener<L>>> {
    let backends: Box<dyn Any> = match L::FAMILY {
        Family::V4 => Box::new(backends_for!(Lease4)),
        Family::V6 => Box::new(backends_for!(Lease6)),
    };
    // `ManagedLease` has no other implementations.
    backends.downcast().map_or_else(|_| Vec::new(), |backends| *backends)
}
