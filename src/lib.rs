//! A lease store for DHCP servers, in ISC Kea's file format: faster, smaller and safer than Kea's
//! own.
//!
//! * [`LeaseMgr`]: the leases of a server, wherever a backend keeps them; [`LeaseMgrExt`] has the
//!   named queries of a server.
//! * [`LeaseMgrFactory`]: opens the backend that a connection string names; other backends can be
//!   registered.
//! * [`AsyncLeaseMgr`]: the same for async servers, under any runtime.
//! * [`allocator`]: finds free addresses for a server to offer, also in a pool that is nearly full.
//! * [`memfile`]: leases in memory, with a journal of all changes in Kea's format.
//! * [`lease`]: DHCPv4 and DHCPv6 leases, as types that cannot hold an invalid lease.
//! * [`lease_file`]: reads and writes lease files; [`lease_file::LeaseFileSet`] reads all leases of
//!   a server, even while the server runs.
//! * [`prelude`]: the traits and the types that every server needs, to import all at once.
//! * [`lfc`]: lease file cleanup, which keeps the last row of each lease; also as the program
//!   `kea-lfc`, which Kea's own servers can run.
//! * [`tutorial`] and [`cookbook`]: programs to start from, which are compiled and run as tests.
//!
//! ```
//! use std::time::SystemTime;
//!
//! use leasemgr::lease::{HwAddr, Lease4, SubnetId};
//! use leasemgr::{Added, LeaseMgr, LeaseMgrExt, LeaseMgrFactory};
//!
//! # let directory = tempfile::tempdir()?;
//! # let file = directory.path().join("leases4.csv");
//! # let connection = format!("type=memfile name={} lfc-interval=3600", file.display());
//! # let connection = connection.as_str();
//! # if false {
//! let connection = "type=memfile name=/var/lib/dhcp/leases4.csv lfc-interval=3600";
//! # }
//! let leases = LeaseMgrFactory::<Lease4>::new().open(connection)?;
//! let client = HwAddr::from([2, 0, 0, 0, 0, 1]);
//! if leases.by_hwaddr_in_subnet(&client, SubnetId(1))?.is_none() {
//!     let lease = Lease4::builder([192, 0, 2, 1].into())
//!         .client(client)
//!         .subnet(1)
//!         .lifetime(3600)
//!         .heard_at(SystemTime::now())
//!         .build()?;
//!     match leases.add(&lease)? {
//!         Added::Added => println!("{} is leased", lease.address()),
//!         Added::AddressTaken => println!("another client was faster"),
//!     }
//! }
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! # Features
//!
//! * `memfile` (default): the backend [`memfile`].
//! * `postgresql`, `mysql`: the backends for databases with Kea's schema, `postgresql` and `mysql`.
//! * `serde`: Kea's JSON form of leases, and the JSON of statistics and status.
//! * `tokio`: backends that block are called in the blocking threads of the tokio runtime.
//! * `commands`: Kea's lease commands, in JSON, for a server to answer: `commands`.
//! * `control`: servers and clients of commands over UNIX sockets and HTTP, `control`;
//!   `control-tls`: HTTPS.
//! * `ha`: high availability, `ha`: two servers that serve clients together, as Kea's do.
//! * `kea-lfc`: the program `kea-lfc`, with the dependencies that only it needs.
//! * `demo`: the program `leasemgr-demo`, which shows that a store survives a kill, and the
//!   `kea-lfc` that it starts.
//! * `conformance`: the test suite for backends. Not stable: new versions add rules.
//! * `simulated-disk`: [`fs::simulated`], the disk of the tests. Not stable.

#![cfg_attr(docsrs, feature(doc_cfg))]
#![cfg_attr(not(feature = "memfile"), allow(dead_code, unused_imports, reason = "of backends with files"))]

#[cfg(not(unix))]
compile_error!("leasemgr needs a Unix system: it uses file locks, signals and file owners of POSIX");

pub mod allocator;
mod async_lease_mgr;
mod builtin;
#[cfg(feature = "commands")]
pub mod commands;
#[cfg(feature = "conformance")]
pub mod conformance;
pub mod connection;
#[cfg(feature = "control")]
pub mod control;
#[cfg(all(any(doc, doctest), feature = "memfile"))]
pub mod cookbook;
mod export;
mod factory;
mod first_of_many;
pub mod fs;
#[cfg(feature = "ha")]
pub mod ha;
mod identifiers;
mod kea_json;
pub mod lease;
pub mod lease_file;
mod lease_mgr;
pub mod lfc;
#[cfg(feature = "memfile")]
pub mod memfile;
#[cfg(feature = "mysql")]
pub mod mysql;
mod panics;
mod parallel;
#[cfg(any(feature = "control-tls", feature = "postgresql"))]
mod pem;
#[cfg(feature = "postgresql")]
pub mod postgresql;
pub mod prelude;
pub mod request;
mod simd;
#[cfg(any(feature = "mysql", feature = "postgresql"))]
mod sql;
mod sync;
#[cfg(all(any(doc, doctest), feature = "memfile"))]
pub mod tutorial;
mod with_sources;

pub use async_lease_mgr::{Answer, AsyncLeaseMgr, Work};
pub use export::WriteLeases;
pub use factory::{FactoryError, LeaseMgrFactory, LeaseMgrOpener, OpenerError};
pub use lease_mgr::{
    Added, AddedWithin, AddressLock, Availability, CallbackError, Change, ChangeKind, Claimed, CleanupReport,
    CleanupRows, CleanupStart, CleanupStatus, CleanupWork, ClientKey, CountedAs, Cursor, Deleted, Done,
    Durability, FreeRange, ImportEvent, ImportOptions, Imported, Key, LeaseMgr, LeaseMgrError, LeaseMgrExt,
    LeaseMgrExt4, LeaseMgrExt6, LookUp, ManagedLease, OnFail, Operation, Origin, Query, Scope,
    StatisticsQuery, StatisticsRow, Status, Subnets, Then, ThenFound, Totals, TotalsRow, Tracking, call_then,
    check, unchanged,
};
pub use with_sources::with_sources;

/// The documents with Rust code, which is compiled and run as that of the items is.
#[cfg(all(doctest, feature = "memfile"))]
mod documents {
    #[doc = include_str!("../README.md")]
    struct Readme;

    #[doc = include_str!("../docs/async.md")]
    struct Async;
}
