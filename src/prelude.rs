//! The traits and the types that every server needs, to import all at once.
//!
//! ```
//! use std::sync::Arc;
//!
//! use leasemgr::prelude::*;
//!
//! let leases: Arc<dyn LeaseMgr<Lease4>> = LeaseMgrFactory::new().open("type=memfile persist=false")?;
//! let client = HwAddr::from([2, 0, 0, 0, 0, 1]);
//! let lease = Lease4::builder([192, 0, 2, 1].into()).client(client).subnet(1).lifetime(3600).build()?;
//! assert_eq!(leases.add(&lease)?, Added::Added);
//! assert_eq!(leases.count(&Query::all().in_subnet(SubnetId(1)))?, 1);
//! for page in leases.pages(Query::all(), 1000) {
//!     assert_eq!(page?, [lease.clone()]);
//! }
//! assert_eq!(leases.delete(lease.address())?, Deleted::Deleted);
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

pub use crate::lease::{
    ClientId, Duid, Hostname, HwAddr, Iaid, Lease, Lease4, Lease6, LeaseState, LeaseType, Lifetime, SubnetId,
};
pub use crate::{
    Added, Deleted, LeaseMgr, LeaseMgrError, LeaseMgrExt, LeaseMgrExt4, LeaseMgrExt6, LeaseMgrFactory,
    ManagedLease, Query, WriteLeases,
};
