//! A DHCP server's leases from the first packet to the last cleanup, step by step.
//!
//! Each program on this page is compiled and run by the tests of the crate. For single tasks, see
//! the [cookbook](crate::cookbook). `examples/dhcp4_server.rs` and `examples/dhcp6_server.rs` are
//! whole servers.
//!
//! 1. [Open a lease manager](#open-a-lease-manager)
//! 2. [Look up the client](#look-up-the-client)
//! 3. [Give it a free address](#give-it-a-free-address)
//! 4. [Renew](#renew)
//! 5. [Release and decline](#release-and-decline)
//! 6. [Reclaim what has expired](#reclaim-what-has-expired)
//! 7. [Publish statistics](#publish-statistics)
//! 8. [Clean up the lease files](#clean-up-the-lease-files)
//! 9. [React to failures](#react-to-failures)
//! 10. [DHCPv6 and delegated prefixes](#dhcpv6-and-delegated-prefixes)
//! 11. [Where to go from here](#where-to-go-from-here)
//!
//! # Open a lease manager
//!
//! A connection string names the backend and its options; [`LeaseMgrFactory::open`] opens it. The
//! result is an `Arc<dyn LeaseMgr<Lease4>>`, which all threads of the server share. The type of the
//! lease is the family: a server of both has two managers.
//!
//! ```
//! use std::sync::Arc;
//!
//! use leasemgr::prelude::*;
//!
//! # let directory = tempfile::tempdir()?;
//! # let name = directory.path().join("leases4.csv");
//! # let name = name.display();
//! let connection = format!("type=memfile name={name} lfc-interval=3600 durability=written");
//! let leases: Arc<dyn LeaseMgr<Lease4>> = LeaseMgrFactory::new().open(&connection)?;
//! assert_eq!(leases.status().leases, Some(0));
//!
//! // One manager owns a lease file: a second one, in any process, is refused.
//! assert!(LeaseMgrFactory::<Lease4>::new().open(&connection).is_err());
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! The programs below use `persist=false`: leases in memory only, and the same interface. The
//! README has a table of all keywords, and [`connection::KEYWORDS`] has them as data.
//!
//! Without connection strings, [`Memfile::open`] takes [`MemfileOptions`].
//!
//! # Look up the client
//!
//! For each packet, a server asks whether the client has a lease in the subnet.
//! [`LeaseMgr::by_client_in_subnet`] looks by client id and then by hardware address, as RFC 2131
//! identifies clients. [`LeaseMgrExt`] has the other lookups.
//!
//! ```
//! use std::time::SystemTime;
//!
//! use leasemgr::ClientKey;
//! use leasemgr::prelude::*;
//!
//! let leases = LeaseMgrFactory::<Lease4>::new().open("type=memfile persist=false")?;
//! let hwaddr = HwAddr::from([2, 0, 0, 0, 0, 1]);
//! let client_id = ClientId::from_option(&[1, 2, 0, 0, 0, 0, 1])?;
//! let lease = Lease4::builder([192, 0, 2, 10].into())
//!     .client((hwaddr.clone(), client_id.clone()))
//!     .subnet(1)
//!     .lifetime(3600)
//!     .heard_at(SystemTime::now())
//!     .hostname("printer")
//!     .build()?;
//! assert_eq!(leases.add(&lease)?, Added::Added);
//!
//! let key = ClientKey::from(&client_id);
//! let found = leases.by_client_in_subnet(Some(&hwaddr), Some(key), SubnetId(1))?;
//! assert_eq!(found, [lease.clone()]);
//! assert_eq!(leases.by_hwaddr(&hwaddr)?, [lease.clone()]);
//! assert_eq!(leases.by_hostname(&"PRINTER".into())?, [lease]);
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! # Give it a free address
//!
//! [`LeaseMgr::claim_first`] finds the lowest free address of a range and adds the lease in one
//! step, so that of several threads or servers, each gets another address. An address is free if
//! it has no lease, or one that has ended or is reclaimed.
//!
//! ```
//! use std::net::Ipv4Addr;
//! use std::time::SystemTime;
//!
//! use leasemgr::FreeRange;
//! use leasemgr::prelude::*;
//!
//! let leases = LeaseMgrFactory::<Lease4>::new().open("type=memfile persist=false")?;
//! let address = |n| Ipv4Addr::new(192, 0, 2, n);
//! let pool = FreeRange::new(address(10)..=address(250)).without(address(20)..=address(29));
//! let now = SystemTime::now();
//! // A hardware address is a whole client, so the lease can always be built.
//! let client = HwAddr::from([2, 0, 0, 0, 0, 1]);
//! let mut lease_of = |address| {
//!     let lease = Lease4::builder(address).client(client.clone()).subnet(1).lifetime(3600);
//!     lease.heard_at(now).build().expect("the lease has a client")
//! };
//! match leases.claim_first(&pool, now, &mut lease_of)? {
//!     Some(claimed) => assert_eq!(claimed.lease.address(), address(10)),
//!     None => println!("the pool is full"),
//! }
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! A DHCPv4 server offers an address before the client asks for it. [`Allocator`] proposes
//! addresses, remembers offers for a while, and finds a free address in constant time; the lease
//! manager decides when the server calls [`LeaseMgr::add`]:
//!
//! ```
//! use std::net::Ipv4Addr;
//! use std::sync::Arc;
//! use std::time::{Duration, Instant, SystemTime};
//!
//! use leasemgr::allocator::{Allocator, Pool, Strategy};
//! use leasemgr::prelude::*;
//!
//! let leases = LeaseMgrFactory::<Lease4>::new().open("type=memfile persist=false")?;
//! let pool = Pool::new(Ipv4Addr::new(192, 0, 2, 10), Ipv4Addr::new(192, 0, 2, 250))?;
//! let allocator = Arc::new(Allocator::new(pool, Strategy::FreeList, Duration::from_secs(30)));
//! allocator.follow(&leases)?;
//!
//! // DHCPDISCOVER: offer an address.
//! let client = HwAddr::from([2, 0, 0, 0, 0, 1]);
//! let is_free = |address| {
//!     Ok::<_, LeaseMgrError>(leases.get(address)?.is_none_or(|lease| lease.is_reclaimed()))
//! };
//! let offered = allocator.offer(&client, None, Instant::now(), is_free)?.ok_or("pool is full")?;
//!
//! // DHCPREQUEST: lease it, unless it is offered to another client.
//! assert!(allocator.may_take(&client, offered, Instant::now()));
//! let lease = Lease4::builder(offered)
//!     .client(client)
//!     .subnet(1)
//!     .lifetime(3600)
//!     .heard_at(SystemTime::now())
//!     .build()?;
//! match leases.add(&lease)? {
//!     Added::Added => println!("DHCPACK for {offered}"),
//!     Added::AddressTaken => println!("read the lease: update a reclaimed one, else DHCPNAK"),
//! }
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! # Renew
//!
//! A renewal replaces a lease that the server has read. [`LeaseMgrExt::update_if_unchanged`]
//! replaces it only if no other thread or server has changed it since, so no change is undone. If
//! it has changed, the error [`is_stale`](crate::LeaseMgrError::is_stale): read the lease and decide again.
//! [`LeaseMgrExt::update_with`] is that loop.
//!
//! ```
//! use std::time::{Duration, SystemTime};
//!
//! use leasemgr::prelude::*;
//!
//! let leases = LeaseMgrFactory::<Lease4>::new().open("type=memfile persist=false")?;
//! let client = HwAddr::from([2, 0, 0, 0, 0, 1]);
//! let start = SystemTime::UNIX_EPOCH + Duration::from_secs(1_790_000_000);
//! let lease = Lease4::builder([192, 0, 2, 10].into())
//!     .client(client.clone())
//!     .lifetime(3600)
//!     .heard_at(start)
//!     .build()?;
//! assert_eq!(leases.add(&lease)?, Added::Added);
//!
//! let mut renewed = lease.clone();
//! renewed.set_heard_at(start + Duration::from_secs(1800));
//! leases.update_if_unchanged(&lease, &renewed)?;
//! // The lease is not as it was read any more.
//! let error = leases.update_if_unchanged(&lease, &renewed).unwrap_err();
//! assert!(error.is_stale());
//!
//! // The same in one call. The closure returns `None` for a lease of another client.
//! let later = start + Duration::from_secs(3600);
//! let renewed = leases.update_with(lease.address(), |lease| {
//!     let mut renewed = lease.clone();
//!     renewed.set_heard_at(later);
//!     lease.belongs_to_client(Some(&client), None).then_some(renewed)
//! })?;
//! assert_eq!(renewed.map(|lease| lease.heard_at()), Some(later));
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! # Release and decline
//!
//! A client that releases its address no longer needs the lease: delete it, if it is still the
//! client's. A client that declines its address has found another host that uses it: the address
//! stays out of use for a probation period, as a declined lease that belongs to no client.
//!
//! ```
//! use std::time::SystemTime;
//!
//! use leasemgr::prelude::*;
//!
//! let leases = LeaseMgrFactory::<Lease4>::new().open("type=memfile persist=false")?;
//! let (one, two) = (HwAddr::from([2, 0, 0, 0, 0, 1]), HwAddr::from([2, 0, 0, 0, 0, 2]));
//! for (n, client) in [(10, &one), (11, &two)] {
//!     let address = [192, 0, 2, n].into();
//!     let lease = Lease4::builder(address).client(client.clone()).lifetime(3600).build()?;
//!     assert_eq!(leases.add(&lease)?, Added::Added);
//! }
//!
//! // DHCPRELEASE
//! let address = [192, 0, 2, 10].into();
//! let released =
//!     leases.delete_if(address, |lease| lease.belongs_to_client(Some(&one), None))?;
//! assert!(released.is_some() && leases.get(address)?.is_none());
//!
//! // DHCPDECLINE
//! let declined = leases.update_with([192, 0, 2, 11].into(), |lease| {
//!     let mut declined = lease.clone();
//!     declined.decline(SystemTime::now(), Lifetime(86_400));
//!     lease.belongs_to_client(Some(&two), None).then_some(declined)
//! })?;
//! assert_eq!(declined.map(|lease| lease.state()), Some(LeaseState::DECLINED));
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! # Reclaim what has expired
//!
//! A lease that has ended keeps its row, so that its client may come back. A server *reclaims* it:
//! it removes the DNS entries, runs its hooks, and marks the lease. Call
//! [`LeaseMgr::reclaim_expired`] every few seconds, with a limit that bounds the work of one call.
//! [`LeaseMgr::delete_reclaimed`] deletes the reclaimed leases that ended long ago.
//!
//! ```
//! use std::time::{Duration, SystemTime};
//!
//! use leasemgr::prelude::*;
//!
//! let leases = LeaseMgrFactory::<Lease4>::new().open("type=memfile persist=false")?;
//! let now = SystemTime::UNIX_EPOCH + Duration::from_secs(1_790_000_000);
//! let hour = Duration::from_secs(3600);
//! let lease = Lease4::builder([192, 0, 2, 10].into())
//!     .client(HwAddr::from([2, 0, 0, 0, 0, 1]))
//!     .lifetime(3600)
//!     .heard_at(now - 2 * hour)
//!     .build()?;
//! assert_eq!(leases.add(&lease)?, Added::Added);
//!
//! for lease in leases.reclaim_expired(now, 100)? {
//!     println!("remove {} from the DNS", lease.hostname());
//! }
//! assert!(leases.get(lease.address())?.is_some_and(|lease| lease.is_reclaimed()));
//!
//! // It ended an hour ago: that is long enough.
//! assert_eq!(leases.delete_reclaimed(now - hour)?, 1);
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! # Publish statistics
//!
//! [`LeaseMgr::statistics`] counts the leases of each subnet (or pool) and state;
//! [`LeaseMgrExt::totals`] adds what was assigned and reclaimed since the manager was opened. A
//! memfile keeps these numbers up to date, so asking for them costs little.
//!
//! ```
//! use leasemgr::StatisticsQuery;
//! use leasemgr::prelude::*;
//!
//! let leases = LeaseMgrFactory::<Lease4>::new().open("type=memfile persist=false")?;
//! let client = HwAddr::from([2, 0, 0, 0, 0, 1]);
//! let lease =
//!     Lease4::builder([192, 0, 2, 10].into()).client(client).subnet(1).lifetime(3600).build()?;
//! assert_eq!(leases.add(&lease)?, Added::Added);
//!
//! let rows = leases.statistics(&StatisticsQuery::subnet(SubnetId(1)))?;
//! assert_eq!((rows[0].state, rows[0].count), (LeaseState::DEFAULT, 1));
//! let totals = leases.totals(&StatisticsQuery::all())?;
//! assert_eq!((totals[0].assigned, totals[0].cumulative_assigned), (1, 1));
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! # Clean up the lease files
//!
//! Every change appends a row to the lease file. The cleanup keeps the newest row of each lease and
//! deletes the others. It runs every `lfc-interval` seconds, in the program `kea-lfc` or in a thread
//! of the server, and changes go on meanwhile. A server does nothing for it, but may request a
//! cleanup and watch it:
//!
//! ```
//! use leasemgr::CleanupStart;
//! use leasemgr::prelude::*;
//!
//! # let directory = tempfile::tempdir()?;
//! # let name = directory.path().join("leases4.csv");
//! # let name = name.display();
//! let connection = format!("type=memfile name={name} lfc-interval=0 lfc-executable=internal");
//! let leases = LeaseMgrFactory::<Lease4>::new().open(&connection)?;
//! assert_eq!(leases.clean_up()?, CleanupStart::Requested);
//! if let Some(cleanup) = leases.status().cleanup {
//!     println!("{} succeeded, {} failed", cleanup.succeeded, cleanup.failed);
//! }
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! # React to failures
//!
//! Each error says what is known about the lease ([`LeaseMgrError`]):
//!
//! * [`is_stale`](crate::LeaseMgrError::is_stale): another thread or server has changed the lease; read it
//!   again.
//! * [`is_transient`](crate::LeaseMgrError::is_transient): nothing was changed, and the same call may
//!   succeed later, as on a full disk.
//! * [`is_unknown`](crate::LeaseMgrError::is_unknown): the change was made or not; read the lease before
//!   the client is answered.
//! * All other errors: nothing was changed.
//!
//! After a failed write or sync, a memfile refuses further changes until it is reopened.
//! [`Status::refused`] gives the reason, and [`Status::on_fail`] what the operator wants the server
//! to do (keyword `on-fail`). [`LeaseMgrFactory::recreate`] reopens the current manager, with its
//! callbacks:
//!
//! ```
//! use leasemgr::OnFail;
//! use leasemgr::prelude::*;
//!
//! let factory = LeaseMgrFactory::<Lease4>::new();
//! factory.create("type=memfile persist=false on-fail=serve-retry-exit")?;
//!
//! let status = factory.instance()?.status();
//! if let Some(reason) = &status.refused {
//!     eprintln!("{}: {reason}", status.location);
//!     let serves = status.on_fail != Some(OnFail::StopRetryExit);
//!     println!("answer clients meanwhile: {serves}");
//!     factory.recreate(true)?;
//! }
//! assert_eq!(status.on_fail, Some(OnFail::ServeRetryExit));
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! # DHCPv6 and delegated prefixes
//!
//! The same methods serve DHCPv6. A client is a DUID with an identity association (IAID) and a type:
//! non-temporary addresses, temporary addresses, or delegated prefixes.
//!
//! ```
//! use std::net::Ipv6Addr;
//! use std::time::SystemTime;
//!
//! use leasemgr::FreeRange;
//! use leasemgr::prelude::*;
//!
//! let leases = LeaseMgrFactory::<Lease6>::new().open("type=memfile persist=false")?;
//! let duid = Duid::new(&[0, 3, 0, 1, 2, 0, 0, 0, 0, 1])?;
//! let now = SystemTime::now();
//!
//! // IA_NA
//! let address: Ipv6Addr = "2001:db8:1::1000".parse()?;
//! let lease = Lease6::builder(address)
//!     .client(duid.clone(), 7)
//!     .subnet(1)
//!     .lifetime(4000)
//!     .preferred_lifetime(3000)
//!     .heard_at(now)
//!     .build()?;
//! assert_eq!(leases.add(&lease)?, Added::Added);
//! let found = leases.by_identity_in_subnet(LeaseType::NA, &duid, Iaid(7), SubnetId(1))?;
//! assert_eq!(found, [lease]);
//!
//! // IA_PD: a /56 of 2001:db8:8000::/40
//! let (first, last) = ("2001:db8:8000::".parse()?, "2001:db8:80ff:ff00::".parse()?);
//! let pool = FreeRange::prefixes(first..=last, 56);
//! let mut prefix_of = |prefix| {
//!     let lease = Lease6::prefix_builder(prefix, 56).client(duid.clone(), 1).subnet(1);
//!     lease.lifetime(4000).heard_at(now).build().expect("the prefix has no bits after its length")
//! };
//! let claimed = leases.claim_first(&pool, now, &mut prefix_of)?.ok_or("the pool is full")?;
//! assert_eq!((claimed.lease.address(), claimed.lease.prefix_len()), (first, 56));
//! assert_eq!(leases.by_duid(&duid)?.len(), 2);
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! # Where to go from here
//!
//! * The [cookbook](crate::cookbook): batches, async, callbacks, lease files, `kea-lfc`, backends.
//! * `docs/durability.md`: what is promised after a crash and a power cut, and how to choose.
//! * `docs/async.md`: which calls an async task may make directly.
//!
//! [`Allocator`]: crate::allocator::Allocator
//! [`LeaseMgr::add`]: crate::LeaseMgr::add
//! [`LeaseMgr::by_client_in_subnet`]: crate::LeaseMgr::by_client_in_subnet
//! [`LeaseMgr::claim_first`]: crate::LeaseMgr::claim_first
//! [`LeaseMgr::delete_reclaimed`]: crate::LeaseMgr::delete_reclaimed
//! [`LeaseMgr::reclaim_expired`]: crate::LeaseMgr::reclaim_expired
//! [`LeaseMgr::statistics`]: crate::LeaseMgr::statistics
//! [`LeaseMgrError`]: crate::LeaseMgrError
//! [`LeaseMgrExt`]: crate::LeaseMgrExt
//! [`LeaseMgrExt::totals`]: crate::LeaseMgrExt::totals
//! [`LeaseMgrExt::update_if_unchanged`]: crate::LeaseMgrExt::update_if_unchanged
//! [`LeaseMgrExt::update_with`]: crate::LeaseMgrExt::update_with
//! [`LeaseMgrFactory::open`]: crate::LeaseMgrFactory::open
//! [`LeaseMgrFactory::recreate`]: crate::LeaseMgrFactory::recreate
//! [`Memfile::open`]: crate::memfile::Memfile::open
//! [`MemfileOptions`]: crate::memfile::MemfileOptions
//! [`Status::on_fail`]: crate::Status::on_fail
//! [`Status::refused`]: crate::Status::refused
//! [`connection::KEYWORDS`]: crate::connection::KEYWORDS
