//! DHCP lease files in ISC Kea's format, and their cleanup.
//!
//! * [`lease`]: the leases of DHCPv4 and DHCPv6, as types that hold no impossible ones.
//! * [`lease_file`]: reading and writing lease files, and [`lease_file::LeaseFileSet`], which reads all leases of a
//!   server, also while it runs.
//! * [`lfc`]: lease file cleanup, which keeps the last row of each lease; also as the program `kea-lfc`, which Kea's own
//!   servers can run.
//!
//! ```no_run
//! use leasemgr::lease::{Lease, Lease4};
//! use leasemgr::lease_file::LeaseFileSet;
//!
//! let set = LeaseFileSet::new("/var/lib/kea/kea-leases4.csv").read::<Lease4>()?;
//! for (address, lease) in &set.leases {
//!     println!("{address} until {}", lease.expire());
//! }
//! # Ok::<(), leasemgr::lease_file::LeaseFileError>(())
//! ```

// The unit tests share the disk of the tests in `tests`, which knows the crate by its name.
#[cfg(test)]
extern crate self as leasemgr;

pub mod factory;
pub mod fs;
pub mod lease;
pub mod lease_file;
pub mod lease_mgr;
pub mod lfc;
pub mod memfile;

pub use factory::LeaseMgrFactory;
pub use lease_mgr::*;
