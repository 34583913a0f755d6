//! Short programs for single tasks.
//!
//! Each is compiled by the tests of the crate, and run if it does not touch the system. The
//! [tutorial](crate::tutorial) shows a server's leases step by step.
//!
//! 1. [Make many changes at once](#make-many-changes-at-once)
//! 2. [Call a lease manager from async code](#call-a-lease-manager-from-async-code)
//! 3. [Be told of changes](#be-told-of-changes)
//! 4. [Look at all leases without much memory](#look-at-all-leases-without-much-memory)
//! 5. [Keep to limits of client classes](#keep-to-limits-of-client-classes)
//! 6. [Use states of the application](#use-states-of-the-application)
//! 7. [Check leases against the subnets of the server](#check-leases-against-the-subnets-of-the-server)
//! 8. [Read the lease files of a Kea server](#read-the-lease-files-of-a-kea-server)
//! 9. [Read and write a single lease file](#read-and-write-a-single-lease-file)
//! 10. [Write all leases to a file](#write-all-leases-to-a-file)
//! 11. [Clean up lease files](#clean-up-lease-files)
//! 12. [Write a backend](#write-a-backend)
//!
//! # Make many changes at once
//!
//! [`LeaseMgr::apply`] makes a batch. Each operation succeeds or fails by itself, and finds what
//! those before it have left. A memfile makes up to 256 operations with one write and, with
//! `durability=synced`, one sync.
//!
//! ```
//! use leasemgr::prelude::*;
//! use leasemgr::{Done, Operation};
//!
//! let leases = LeaseMgrFactory::<Lease4>::new().open("type=memfile persist=false")?;
//! let mut batch = Vec::new();
//! for n in 1..=3 {
//!     let client = HwAddr::from([2, 0, 0, 0, 0, n]);
//!     let lease = Lease4::builder([192, 0, 2, n].into()).client(client).lifetime(3600).build()?;
//!     batch.push(Operation::Add(lease));
//! }
//! batch.push(Operation::delete([192, 0, 2, 2].into()));
//! let results = leases.apply(&batch).into_iter().collect::<Result<Vec<_>, _>>()?;
//! assert_eq!(results, [Done::Added, Done::Added, Done::Added, Done::Deleted]);
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! # Call a lease manager from async code
//!
//! [`AsyncLeaseMgr`] makes changes as futures, under any runtime. A memfile answers reads from
//! memory, so a task calls them directly. `docs/async.md` says which call belongs where, and what
//! each costs.
//!
//! ```
//! use std::time::Duration;
//!
//! use leasemgr::prelude::*;
//! use leasemgr::AsyncLeaseMgr;
//!
//! # #[tokio::main]
//! # async fn main() -> Result<(), Box<dyn std::error::Error>> {
//! # let directory = tempfile::tempdir()?;
//! # let name = directory.path().join("leases4.csv");
//! # let name = name.display();
//! let connection = format!("type=memfile name={name} durability=synced");
//! let leases = LeaseMgrFactory::<Lease4>::new().open(&connection)?;
//! let leases = AsyncLeaseMgr::new(leases);
//!
//! let client = HwAddr::from([2, 0, 0, 0, 0, 1]);
//! let lease = Lease4::builder([192, 0, 2, 1].into()).client(client).lifetime(3600).build()?;
//! assert_eq!(leases.add(&lease).await?, Added::Added);
//!
//! // A read of a memfile does not block.
//! assert_eq!(leases.leases().get(lease.address())?, Some(lease.clone()));
//!
//! // A change goes on after a timeout: read the lease before the client is answered.
//! let deletion = leases.delete(lease.address());
//! if tokio::time::timeout(Duration::from_secs(60), deletion).await.is_err() {
//!     println!("{:?}", leases.leases().get(lease.address())?);
//! }
//! leases.close().await;
//! # Ok(())
//! # }
//! ```
//!
//! With the feature `tokio`, `LeaseMgrFactory::open_async` loads the leases in a blocking thread, and
//! backends that block are called in such threads.
//!
//! # Be told of changes
//!
//! A callback is called after each change, in the thread that made it, and for each address in the
//! order of its changes. It may read leases, but not change those of the manager that calls it.
//!
//! ```
//! use std::sync::mpsc;
//!
//! use leasemgr::ChangeKind;
//! use leasemgr::prelude::*;
//!
//! let leases = LeaseMgrFactory::<Lease4>::new().open("type=memfile persist=false")?;
//! let (sender, receiver) = mpsc::channel();
//! for kind in [ChangeKind::Add, ChangeKind::Update, ChangeKind::Delete] {
//!     let sender = sender.clone();
//!     leases.tracking().register("dns-updater", kind, None, move |change| {
//!         // The receiver may be gone; that is no failure of the change.
//!         let _ = sender.send((change.kind(), change.address()));
//!     })?;
//! }
//!
//! let client = HwAddr::from([2, 0, 0, 0, 0, 1]);
//! let lease = Lease4::builder([192, 0, 2, 1].into()).client(client).lifetime(3600).build()?;
//! assert_eq!(leases.add(&lease)?, Added::Added);
//! assert_eq!(receiver.recv()?, (ChangeKind::Add, lease.address()));
//! assert_eq!(leases.tracking().unregister("dns-updater", None), 3);
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! # Look at all leases without much memory
//!
//! [`LeaseMgrExt::for_each`] and [`LeaseMgrExt::pages`] read a page at a time. A [`Query`] says
//! which leases.
//!
//! ```
//! use leasemgr::prelude::*;
//!
//! let leases = LeaseMgrFactory::<Lease4>::new().open("type=memfile persist=false")?;
//! let mut names = Vec::new();
//! let query = Query::state(LeaseState::DEFAULT).in_subnet(SubnetId(1));
//! leases.for_each(&query, |lease| names.push(lease.hostname().clone()))?;
//! assert!(names.is_empty());
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! # Keep to limits of client classes
//!
//! Kea's hook for limits puts them into the user context of a lease. [`LeaseMgr::add_within`] adds
//! a lease unless such a limit is reached.
//!
//! ```
//! use leasemgr::AddedWithin;
//! use leasemgr::lease::UserContext;
//! use leasemgr::prelude::*;
//!
//! let leases = LeaseMgrFactory::<Lease4>::new().open("type=memfile persist=false")?;
//! let limits = br#"{ "ISC": { "limits": { "subnet": { "id": 1, "address-limit": 1 } } } }"#;
//! let limits = UserContext::parse(limits)?;
//! for n in 1..=2 {
//!     let client = HwAddr::from([2, 0, 0, 0, 0, n]);
//!     let address = [192, 0, 2, n].into();
//!     let lease = Lease4::builder(address).client(client).subnet(1).lifetime(3600).build()?;
//!     let added = leases.add_within(&lease, &limits)?;
//!     assert_eq!(matches!(added, AddedWithin::LimitReached(_)), n == 2);
//! }
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! # Use states of the application
//!
//! The states 192 to 255 are free for applications ([`LeaseState::APPLICATION`]). Neither this crate
//! nor Kea uses them, and both keep them in lease files.
//!
//! ```
//! use leasemgr::prelude::*;
//!
//! const QUARANTINED: LeaseState = LeaseState(192);
//! assert!(LeaseState::APPLICATION.contains(&QUARANTINED));
//!
//! let leases = LeaseMgrFactory::<Lease4>::new().open("type=memfile persist=false")?;
//! let client = HwAddr::from([2, 0, 0, 0, 0, 1]);
//! let lease = Lease4::builder([192, 0, 2, 1].into()).client(client).lifetime(3600);
//! assert_eq!(leases.add(&lease.state(QUARANTINED).build()?)?, Added::Added);
//! assert_eq!(leases.by_state(QUARANTINED, None)?.len(), 1);
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! # Check leases against the subnets of the server
//!
//! [`LeaseSanity`] has the subnets of the server, and what becomes of leases outside of them when
//! they are loaded.
//!
//! ```no_run
//! use leasemgr::lease::{Lease4, SubnetId};
//! use leasemgr::memfile::{LeaseChecks, LeaseSanity, Memfile, MemfileOptions, SubnetMap};
//!
//! let subnets = SubnetMap::new([(SubnetId(1), [192, 0, 2, 0].into(), 24)])?;
//! let options = MemfileOptions::at("/var/lib/dhcp/leases4.csv")
//!     .lease_sanity(LeaseSanity { checks: LeaseChecks::Fix, subnets });
//! let leases = Memfile::<Lease4>::open(options)?;
//! # let _ = leases;
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! # Read the lease files of a Kea server
//!
//! A server keeps its leases in up to three files, and renames them. [`LeaseFileSet::read`] reads
//! those that belong together, also while the server runs.
//!
//! ```no_run
//! use leasemgr::lease::Lease4;
//! use leasemgr::lease_file::LeaseFileSet;
//!
//! let set = LeaseFileSet::new("/var/lib/kea/kea-leases4.csv").read::<Lease4>()?;
//! for (address, lease) in &set.leases {
//!     println!("{address} is {} until {:?}", lease.state(), lease.valid_until());
//! }
//! for file in &set.torn {
//!     eprintln!("{}: the last row may be incomplete", file.display());
//! }
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! # Read and write a single lease file
//!
//! [`Reader`] gives each row with its line, and an error for each row that is not a lease.
//! [`Writer`] writes the newest schema.
//!
//! ```
//! use leasemgr::lease::{HwAddr, Lease4};
//! use leasemgr::lease_file::{ReadError, Reader, Writer};
//!
//! let client = HwAddr::from([2, 0, 0, 0, 0, 1]);
//! let lease = Lease4::builder([192, 0, 2, 1].into()).client(client).lifetime(3600).build()?;
//! let mut writer = Writer::new(Vec::new())?;
//! writer.append(&lease)?;
//! let mut file = writer.into_inner();
//! file.extend(b"not a row\n");
//!
//! let mut leases = Vec::new();
//! for row in Reader::<Lease4, _>::new(&file[..])? {
//!     match row {
//!         Ok(row) => leases.push(row.lease),
//!         Err(ReadError::Row(error)) => assert_eq!(error.line, 3),
//!         Err(error) => return Err(error.into()),
//!     }
//! }
//! assert_eq!(leases, [lease]);
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! # Write all leases to a file
//!
//! [`WriteLeases::write_to`] writes the leases of any backend as a lease file, which Kea loads. The
//! file takes its name when it is complete and synced.
//!
//! ```
//! use leasemgr::lease_file::LeaseFileSet;
//! use leasemgr::prelude::*;
//!
//! # let directory = tempfile::tempdir()?;
//! # let path = directory.path().join("copy.csv");
//! let leases = LeaseMgrFactory::<Lease4>::new().open("type=memfile persist=false")?;
//! let client = HwAddr::from([2, 0, 0, 0, 0, 1]);
//! let lease = Lease4::builder([192, 0, 2, 1].into()).client(client).lifetime(3600).build()?;
//! assert_eq!(leases.add(&lease)?, Added::Added);
//! assert_eq!(leases.write_to(&path)?, 1);
//! let copy = LeaseFileSet::new(path).read::<Lease4>()?;
//! assert_eq!(copy.leases.into_values().collect::<Vec<_>>(), [lease]);
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! # Clean up lease files
//!
//! A lease manager has its files cleaned up by itself. For files of a stopped server, [`Cleanup`]
//! does it in the process:
//!
//! ```no_run
//! use leasemgr::lease::Family;
//! use leasemgr::lease_file::LeaseFileSet;
//! use leasemgr::lfc::{Cleanup, Outcome};
//!
//! let files = LeaseFileSet::new("/var/lib/kea/kea-leases4.csv").lfc_files();
//! match Cleanup::new(Family::V4, files).run()? {
//!     Outcome::Cleaned { written, .. } => println!("{} leases", written.leases),
//!     Outcome::Finished => println!("an interrupted cleanup is complete"),
//!     Outcome::Running(pid) => println!("a cleanup is running, PID {pid}"),
//! }
//! # Ok::<(), leasemgr::lfc::LfcError>(())
//! ```
//!
//! and the program does the same (build it with `--features kea-lfc`; `man kea-lfc` has the rest):
//!
//! ```text
//! kea-lfc -4d -p kea-leases4.csv.pid -x kea-leases4.csv.2 -i kea-leases4.csv.1 \
//!     -o kea-leases4.csv.output -f kea-leases4.csv.completed -c /dev/null
//! ```
//!
//! # Write a backend
//!
//! A backend implements [`LeaseMgr`], eight methods for both families, and
//! [`LeaseMgrOpener`](crate::LeaseMgrOpener), so that a connection string opens it.
//! `examples/sqlite_backend` is a whole one in SQLite, with the steps in its README and the
//! conformance suite as its test. Registered with a factory, it is opened like the memfile:
//!
//! ```
//! use std::sync::Arc;
//!
//! use leasemgr::{FactoryError, LeaseMgr, LeaseMgrFactory, LeaseMgrOpener};
//! use leasemgr::lease::Lease4;
//!
//! /// Opens the lease manager of a connection string with the type of `opener`.
//! fn open_with(
//!     opener: Arc<dyn LeaseMgrOpener<Lease4>>,
//!     connection: &str,
//! ) -> Result<Arc<dyn LeaseMgr<Lease4>>, FactoryError> {
//!     let factory = LeaseMgrFactory::new();
//!     factory.register(opener)?;
//!     factory.open(connection)
//! }
//! ```
//!
//! [`AsyncLeaseMgr`]: crate::AsyncLeaseMgr
//! [`Cleanup`]: crate::lfc::Cleanup
//! [`LeaseFileSet::read`]: crate::lease_file::LeaseFileSet::read
//! [`LeaseMgr`]: crate::LeaseMgr
//! [`LeaseMgr::add_within`]: crate::LeaseMgr::add_within
//! [`LeaseMgr::apply`]: crate::LeaseMgr::apply
//! [`LeaseMgrExt::for_each`]: crate::LeaseMgrExt::for_each
//! [`LeaseMgrExt::pages`]: crate::LeaseMgrExt::pages
//! [`LeaseSanity`]: crate::memfile::LeaseSanity
//! [`LeaseState::APPLICATION`]: crate::lease::LeaseState::APPLICATION
//! [`Query`]: crate::Query
//! [`Reader`]: crate::lease_file::Reader
//! [`WriteLeases::write_to`]: crate::WriteLeases::write_to
//! [`Writer`]: crate::lease_file::Writer
