//! A disk in memory for tests: it knows what of it would survive a power cut, and fails when it is told to.
//!
//! It is for the authors of whatever keeps its files by way of [`FileSystem`], and proves what `conformance` does not: what
//! is left when an operation fails, the process dies or the power does. Needs the feature `simulated-disk`, which is not stable.
//!
//! * **Failures.** Operations are counted from 0. [`SimulatedDisk::with_fault`] lets one of them fail, or it and all later ones, with any
//!   error number, after it had any [`Effect`]. [`SimulatedDisk::with_failing_sync`] and [`SimulatedDisk::with_full_writes`] choose by what
//!   is done instead, for threads whose operations come in any order.
//! * **Short reads and writes**, which are no failures: [`SimulatedDisk::reading_at_most`], [`SimulatedDisk::writing_at_most`].
//! * **The death of the process.** What it leaves is what was written until then: [`State::contents`]. With
//!   [`SimulatedDisk::with_moments`] the disk remembers the state behind each operation that changed something.
//! * **A power cut.** It leaves one of [`State::survivors`].
//! * **Threads.** [`SimulatedDisk::before_each`] lets operations wait. Where [`FileSystem::lock`] would wait, for ever if the other
//!   is in the same thread, it is an error here.
//!
//! # What survives a power cut
//!
//! What is promised to survive is only what a file system promises: the bytes and the length of a file as they were when it was
//! synced, and the names in a folder as they were when that folder was synced. Of all that came later, any part may survive:
//!
//! * each creation, renaming and removal, whatever became of those before it; a renaming as a whole, as long as neither
//!   folder was synced;
//! * of bytes behind the durable ones: all, none, half of them, all but one, or zeros in their place;
//! * of bytes in place of durable ones: each sector of 512 bytes by itself, with the old length or the new one.
//!
//! A file may also be what such a mixture would have made of it at any time since the sync. After a sync that failed nothing of that
//! file becomes durable any more, also when a later sync succeeds: the system may have forgotten what it has not
//! written.
//!
//! Each real file system leaves fewer disks than these; what holds for all of them holds for it.
//!
//! # Owners
//!
//! Files have owner, group and mode ([`State::with_attributes`], [`State::attributes`]), from their creation on. The process is the
//! superuser unless [`SimulatedDisk::as_user`] says otherwise; another user gives no file away, and opens only what it may.
//!
//! Not modelled: folders, which all exist and may be changed by all users, and symbolic links.
//!
//! # Example
//!
//! Does a lease that was acknowledged as synced survive, whatever fails before the power does?
//!
//! ```
//! use std::sync::Arc;
//!
//! use leasemgr::LeaseMgr;
//! use leasemgr::fs::simulated::{Action, Contents, EIO, Effect, Fault, SimulatedDisk, State};
//! use leasemgr::lease::{HwAddr, Lease4};
//! use leasemgr::Durability;
//! use leasemgr::memfile::{LfcProgram, Memfile, MemfileOptions, OpenError};
//!
//! fn open(disk: &SimulatedDisk) -> Result<Memfile<Lease4>, OpenError> {
//!     let options = MemfileOptions::at("/leases/leases4.csv");
//!     let options = options.durability(Durability::Synced).lfc_program(LfcProgram::Internal);
//!     Memfile::open_on(options, Arc::new(disk.clone()))
//! }
//!
//! fn lease() -> Lease4 {
//!     let client = HwAddr::from([2, 0, 0, 0, 0, 1]);
//!     Lease4::builder([192, 0, 2, 1].into()).client(client).lifetime(3600).build().unwrap()
//! }
//!
//! // Opens it and adds a lease, and tells whether the lease was acknowledged.
//! let live = |disk: &SimulatedDisk| open(disk).is_ok_and(|leases| leases.add(&lease()).is_ok());
//!
//! // Opens what is left, and tells whether the lease is there.
//! let is_there = |contents: &Contents| {
//!     let leases = open(&SimulatedDisk::new(State::holding(contents))).unwrap();
//!     leases.get([192, 0, 2, 1].into()).unwrap().is_some()
//! };
//!
//! // A life without failures, to learn what it does. No power cut takes the lease.
//! let disk = SimulatedDisk::new(State::default());
//! assert!(live(&disk));
//! assert!(disk.state().survivors(1).disks.iter().all(is_there));
//! let operations = disk.operations();
//! assert!(operations.iter().any(|operation| operation.action == Action::Sync));
//!
//! // The same life again and again, and each time the next operation fails. Then the power does: of the
//! // disks that it may leave, which are many where much was not synced, some are tried.
//! for (at, operation) in operations.iter().enumerate() {
//!     let fault = Fault { at, error: EIO, effect: Effect::Half, lasting: false };
//!     let disk = SimulatedDisk::new(State::default()).with_fault(fault);
//!     let acknowledged = live(&disk);
//!     for contents in disk.state().some_survivors(at as u64, 5) {
//!         assert!(is_there(&contents) || !acknowledged, "{operation} failed, and the lease is gone");
//!     }
//! }
//! ```

mod disk;
mod files;
mod operation;
mod state;
mod survivors;
#[cfg(test)]
mod tests;
mod users;

use std::collections::BTreeMap;
use std::path::PathBuf;

pub use disk::SimulatedDisk;
pub use operation::{Action, EDQUOT, EINTR, EIO, ENOSPC, Effect, Fault, Operation};
pub use state::State;
pub use survivors::Survivors;

#[cfg(doc)]
use super::FileSystem;

/// Files and what is in them.
pub type Contents = BTreeMap<PathBuf, Vec<u8>>;
