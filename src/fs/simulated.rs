//! A disk in memory for tests: it knows what would survive a power cut, and fails on request.
//!
//! It is for authors of code that keeps files by means of [`FileSystem`], and proves what
//! `conformance` does not: what is left when an operation fails, the process is killed or the power
//! fails. Needs the feature `simulated-disk`, which is not stable.
//!
//! * **Failures.** Operations are counted from 0. [`SimulatedDisk::with_fault`] makes one of them
//!   fail, or it and all later ones, with any error number and any [`Effect`].
//!   [`SimulatedDisk::with_failing_sync`] and [`SimulatedDisk::with_full_writes`] select the
//!   operation by its kind, for threads whose operations come in any order.
//! * **Short reads and writes**, which are not failures: [`SimulatedDisk::reading_at_most`],
//!   [`SimulatedDisk::writing_at_most`].
//! * **The death of the process.** It leaves what was written until then: [`State::contents`]. With
//!   [`SimulatedDisk::with_moments`] the disk records the state after each operation that changed
//!   something.
//! * **A power cut.** It leaves one of [`State::survivors`].
//! * **Threads.** [`SimulatedDisk::before_each`] can make operations wait. [`FileSystem::lock`]
//!   fails if it would have to wait, which would be for ever if the holder is the same thread.
//!
//! # What survives a power cut
//!
//! Only what a file system guarantees is guaranteed to survive: the bytes and the length of a file
//! as they were when it was synced, and the names in a directory as they were when that directory
//! was synced. Of all later changes, any part may survive:
//!
//! * each creation, renaming and removal, independently of earlier ones; a renaming as a whole, as
//!   long as neither directory was synced;
//! * of bytes after the durable ones: all, none, half of them, all but one, or zeros in their
//!   place;
//! * of bytes in place of durable ones: each sector of 512 bytes independently, with the old length
//!   or the new one.
//!
//! A file may also be what such a mixture would have made of it at any time since the sync. After a
//! sync has failed, nothing more of that file becomes durable, even if a later sync succeeds: the
//! kernel may have discarded the bytes that it could not write.
//!
//! Each real file system leaves fewer disks than these, so what holds for all of these holds for
//! it.
//!
//! # Owners
//!
//! Files have owner, group and mode ([`State::with_attributes`], [`State::attributes`]), from their
//! creation on. The process is the superuser unless [`SimulatedDisk::as_user`] sets another user,
//! which cannot give files away, and can only open files that it has the rights to.
//!
//! Not modelled: directories, which all exist and can be changed by all users, and symbolic links.
//!
//! # Example
//!
//! Does a lease that was acknowledged as synced survive, whichever operation fails before the power
//! does?
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
//! // Opens a store and adds a lease. Returns whether the lease was acknowledged.
//! let run = |disk: &SimulatedDisk| open(disk).is_ok_and(|leases| leases.add(&lease()).is_ok());
//!
//! // Opens what is left. Returns whether it has the lease.
//! let has_lease = |contents: &Contents| {
//!     let leases = open(&SimulatedDisk::new(State::holding(contents))).unwrap();
//!     leases.get([192, 0, 2, 1].into()).unwrap().is_some()
//! };
//!
//! // A run without failures, which records the operations. The lease survives each power cut.
//! let disk = SimulatedDisk::new(State::default());
//! assert!(run(&disk));
//! assert!(disk.state().survivors(1).disks.iter().all(has_lease));
//! let operations = disk.operations();
//! assert!(operations.iter().any(|operation| operation.action == Action::Sync));
//!
//! // The same run once for each operation, which fails, and then the power does. Some of the disks
//! // that it may leave are tried; if much was not synced, there are many.
//! for (at, operation) in operations.iter().enumerate() {
//!     let fault = Fault { at, error: EIO, effect: Effect::Half, lasting: false };
//!     let disk = SimulatedDisk::new(State::default()).with_fault(fault);
//!     let acknowledged = run(&disk);
//!     for contents in disk.state().some_survivors(at as u64, 5) {
//!         assert!(has_lease(&contents) || !acknowledged, "{operation} failed, and the lease is lost");
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

/// The names and the bytes of files.
pub type Contents = BTreeMap<PathBuf, Vec<u8>>;
