//! The lease manager factory: opening, replacing and closing managers, and its errors.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a helper of a test fails the test, as the test itself does"
)]

mod support;

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::{Debug, Write};
use std::net::Ipv4Addr;
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, LazyLock, Mutex, OnceLock, Weak};
use std::thread;
use std::time::{Duration, SystemTime};

use leasemgr::connection::{ConnectionString, ConnectionStringError};
use leasemgr::lease::{ClientClass, HwAddr, Lease4, Lease6, LeaseKind, LeaseState, Lifetime, SubnetId};
use leasemgr::memfile::OpenError;
use leasemgr::{
    Added, Change, ChangeKind, Deleted, Key, LeaseMgr, LeaseMgrError, LeaseMgrExt, LeaseMgrFactory,
    ManagedLease, Query, StatisticsQuery, StatisticsRow, Status, Tracking,
};
use leasemgr::{FactoryError, LeaseMgrOpener, OpenerError};
use rstest::rstest;
use support::logs::Logs;
use tempfile::TempDir;

/// A trunk is stored by name, and used by one manager at a time.
type Trunk = BTreeMap<Ipv4Addr, Lease4>;

/// A third-party backend that stores leases in memory as long as it exists.
#[derive(Default)]
struct TreeBackend {
    trunks: Mutex<BTreeMap<String, Arc<Mutex<Trunk>>>>,
    in_use: Arc<Mutex<BTreeSet<String>>>,
    /// A manager that was opened while this is set keeps a reference to itself when its callbacks
    /// are requested.
    keeps_itself: AtomicBool,
    /// While this is set, all trunks are in use by another process.
    in_use_elsewhere: AtomicBool,
    /// Signals that `open` was called, and then waits until it may continue.
    gate: Mutex<Option<(Sender<()>, Receiver<()>)>>,
}

#[derive(Debug)]
struct TreeMgr {
    name: String,
    leases: Arc<Mutex<Trunk>>,
    in_use: Arc<Mutex<BTreeSet<String>>>,
    tracking: Tracking<Lease4>,
    itself: Option<Weak<TreeMgr>>,
    held: OnceLock<Arc<TreeMgr>>,
}

#[derive(Debug, thiserror::Error)]
#[error("the trunk {0} is in use")]
struct InUse(String);

impl LeaseMgrOpener<Lease4> for TreeBackend {
    fn name(&self) -> &str {
        "tree"
    }

    fn version(&self) -> String {
        "oak 1".to_owned()
    }

    fn keywords(&self) -> &[&str] {
        &["name", "colour", "rings", "password"]
    }

    fn open(&self, connection: &ConnectionString) -> Result<Arc<dyn LeaseMgr<Lease4>>, OpenerError> {
        if let Some((called, go_on)) = &*self.gate.lock().unwrap() {
            called.send(())?;
            go_on.recv()?;
        }
        connection.number("rings", 1..=5000)?;
        let name = connection.required("name")?.to_owned();
        if self.in_use_elsewhere.load(Ordering::Relaxed) || !self.in_use.lock().unwrap().insert(name.clone())
        {
            return Err(InUse(name).into());
        }
        // Other threads can run while the manager is open and not yet handed over.
        (0..10).for_each(|_| thread::yield_now());
        let leases = Arc::clone(self.trunks.lock().unwrap().entry(name.clone()).or_default());
        let keeps_itself = self.keeps_itself.load(Ordering::Relaxed);
        Ok(Arc::new_cyclic(|itself| TreeMgr {
            name,
            leases,
            in_use: Arc::clone(&self.in_use),
            tracking: Tracking::default(),
            itself: keeps_itself.then(|| itself.clone()),
            held: OnceLock::new(),
        }))
    }
}

impl Drop for TreeMgr {
    fn drop(&mut self) {
        self.in_use.lock().unwrap().remove(&self.name);
    }
}

fn cannot<T>(operation: &str) -> Result<T, LeaseMgrError> {
    Err(LeaseMgrError::Unsupported { backend: "tree".to_owned(), operation: operation.to_owned() })
}

impl LeaseMgr<Lease4> for TreeMgr {
    fn status(&self) -> Status {
        let mut status = Status::default();
        status.backend = "tree".to_owned();
        status.location = self.name.clone();
        status
    }

    fn add(&self, lease: &Lease4) -> Result<Added, LeaseMgrError> {
        let mut leases = self.leases.lock().unwrap();
        if leases.contains_key(&lease.address()) {
            return Ok(Added::AddressTaken);
        }
        leases.insert(lease.address(), lease.clone());
        self.tracking.notify(&Change::added(lease));
        Ok(Added::Added)
    }

    fn get(&self, address: Ipv4Addr) -> Result<Option<Lease4>, LeaseMgrError> {
        Ok(self.leases.lock().unwrap().get(&address).cloned())
    }

    fn find(&self, query: &Query<'_, Lease4>) -> Result<Vec<Lease4>, LeaseMgrError> {
        match query.key {
            Key::All => Ok(self.leases.lock().unwrap().values().cloned().collect()),
            _ => cannot("find leases by something"),
        }
    }

    fn list_expired(&self, _: SystemTime, _: usize) -> Result<Vec<Lease4>, LeaseMgrError> {
        cannot("find expired leases")
    }

    fn update_expecting(&self, _: &Lease4, _: Option<&Lease4>) -> Result<(), LeaseMgrError> {
        cannot("update a lease")
    }

    fn delete_expecting(&self, _: Ipv4Addr, _: Option<&Lease4>) -> Result<Deleted, LeaseMgrError> {
        cannot("delete a lease")
    }

    fn delete_reclaimed(&self, _: SystemTime) -> Result<u64, LeaseMgrError> {
        cannot("delete leases")
    }

    fn statistics(&self, _: &StatisticsQuery) -> Result<Vec<StatisticsRow>, LeaseMgrError> {
        cannot("count leases")
    }

    fn recount(&self) -> Result<(), LeaseMgrError> {
        Ok(())
    }

    fn class_leases(&self, _: &ClientClass, _: LeaseKind) -> Result<u64, LeaseMgrError> {
        cannot("count leases")
    }

    fn tracking(&self) -> &Tracking<Lease4> {
        if let Some(itself) = self.itself.as_ref().and_then(Weak::upgrade) {
            // The cell may be set already.
            let _ = self.held.set(itself);
        }
        &self.tracking
    }
}

/// Returns a factory. What factories do is logged.
/// Returns a factory whose only backend is the memfile, whichever features are enabled.
fn factory<L: ManagedLease>() -> LeaseMgrFactory<L> {
    LazyLock::force(&LOG);
    let factory = LeaseMgrFactory::new();
    for (name, _) in factory.backends() {
        if name != "memfile" {
            assert!(factory.deregister(&name));
        }
    }
    factory
}

/// Returns a factory with the tree backend, and the backend.
fn with_tree() -> (Arc<LeaseMgrFactory<Lease4>>, Arc<TreeBackend>) {
    let factory = Arc::new(factory());
    let tree = Arc::new(TreeBackend::default());
    factory.register(tree.clone()).unwrap();
    (factory, tree)
}

fn lease(n: u8) -> Lease4 {
    let hwaddr = HwAddr::new(&[2, 0, 0, 0, 0, n]).unwrap();
    let mut lease = Lease4::new([192, 0, 2, n].into(), Some(hwaddr), None, LeaseState::DEFAULT).unwrap();
    lease.data_mut().subnet_id = SubnetId(1);
    lease.data_mut().valid_lifetime = Lifetime(3600);
    lease.data_mut().cltt = 1_790_000_000;
    lease
}

/// Registers a callback that counts added leases.
fn count_adds(manager: &dyn LeaseMgr<Lease4>) -> Arc<AtomicU64> {
    let count = Arc::new(AtomicU64::new(0));
    let counter = Arc::clone(&count);
    let add = move |_: &Change<'_, Lease4>| {
        counter.fetch_add(1, Ordering::Relaxed);
    };
    manager.tracking().register("test", ChangeKind::Add, None, add).unwrap();
    count
}

/// Returns the location of the current manager's leases.
fn location(factory: &LeaseMgrFactory<Lease4>) -> String {
    factory.instance().unwrap().status().location
}

#[test]
fn the_backends_of_the_features_are_registered() {
    let names: Vec<_> =
        LeaseMgrFactory::<Lease6>::new().backends().into_iter().map(|(name, _)| name).collect();
    let mut expected = vec!["memfile"];
    expected.extend(cfg!(feature = "mysql").then_some("mysql"));
    expected.extend(cfg!(feature = "postgresql").then_some("postgresql"));
    assert_eq!(names, expected);
}

#[test]
fn the_version_of_memfile_is_that_of_the_lease_files() {
    let of_dhcpv4 = factory::<Lease4>();
    let version = format!("{}, DHCPv4 lease files 3.0", env!("CARGO_PKG_VERSION"));
    assert_eq!(of_dhcpv4.backends(), [("memfile".to_owned(), version)]);
    let version = format!("{}, DHCPv6 lease files 5.0", env!("CARGO_PKG_VERSION"));
    assert_eq!(factory::<Lease6>().backends(), [("memfile".to_owned(), version)]);
}

/// A backend that has a name only.
struct Named(&'static str);

impl LeaseMgrOpener<Lease4> for Named {
    fn name(&self) -> &str {
        self.0
    }

    fn version(&self) -> String {
        String::new()
    }

    fn keywords(&self) -> &[&str] {
        &[]
    }

    fn open(&self, _: &ConnectionString) -> Result<Arc<dyn LeaseMgr<Lease4>>, OpenerError> {
        Err("nothing in it".into())
    }
}

#[test]
fn backends_are_listed_by_name() {
    let (factory, _) = with_tree();
    for name in ["zebra", "ant"] {
        factory.register(Arc::new(Named(name))).unwrap();
    }
    let names: Vec<_> = factory.backends().into_iter().map(|(name, _)| name).collect();
    assert_eq!(names, ["ant", "memfile", "tree", "zebra"]);
    assert_eq!(factory.backends()[2].1, "oak 1");
}

#[test]
fn a_name_is_registered_once() {
    let (factory, _) = with_tree();
    let error = factory.register(Arc::new(TreeBackend::default())).unwrap_err();
    assert_eq!(error.to_string(), r#"a lease manager type "tree" is registered already"#);
    assert!(matches!(factory.register(Arc::new(Named("memfile"))), Err(FactoryError::Registered { .. })));
    assert!(factory.deregister("tree"));
    factory.register(Arc::new(TreeBackend::default())).unwrap();
}

#[test]
fn a_deregistered_backend_is_unknown_and_its_managers_stay() {
    let (factory, _) = with_tree();
    factory.create("type=tree name=a").unwrap();
    assert!(factory.deregister("tree"));
    assert!(!factory.deregister("tree"));
    assert!(matches!(factory.open("type=tree name=b"), Err(FactoryError::UnknownType { .. })));
    assert_eq!(location(&factory), "a");
}

#[rstest]
#[case::nothing("", r#"the connection string is invalid: keyword "type" is missing"#)]
#[case::misspelt_type(
    "tpye=tree",
    r#"the connection string is invalid: keyword "type" is missing; "tpye" may be a misspelling of it"#
)]
#[case::unknown("type=bush", r#"unknown type "bush" of a lease manager, known: memfile, tree"#)]
#[case::capitals("type=Memfile", r#"unknown type "Memfile" of a lease manager, known: memfile, tree"#)]
#[case::empty("type=", r#"unknown type "" of a lease manager, known: memfile, tree"#)]
#[case::mysql(
    "type=mysql host=db",
    r#"this build has no lease manager of type "mysql", it has: memfile, tree"#
)]
#[case::postgresql(
    "type=postgresql",
    r#"this build has no lease manager of type "postgresql", it has: memfile, tree"#
)]
#[case::not_a_pair(
    "type=tree name",
    r#"the connection string is invalid: word 2 ("name"): no "=", expected keyword=value"#
)]
#[case::unknown_keyword(
    "type=memfile presist=true",
    r#"the connection string is invalid: word 2 ("presist"): unknown keyword; did you mean "persist"? memfile has type, universe, name, data-directory, persist, lfc-interval, max-row-errors, extended-info-tables, extended-info-checks, on-fail, retry-on-startup, max-reconnect-tries, reconnect-wait-time, durability, lfc-executable"#
)]
#[case::keyword_of_another(
    "type=memfile host=db",
    r#"the connection string is invalid: "host" is a keyword of mysql and postgresql, not of memfile, which has type, universe, name, data-directory, persist, lfc-interval, max-row-errors, extended-info-tables, extended-info-checks, on-fail, retry-on-startup, max-reconnect-tries, reconnect-wait-time, durability, lfc-executable"#
)]
#[case::memfile_keyword(
    "type=tree lfc-interval=1",
    r#"the connection string is invalid: "lfc-interval" is a keyword of memfile, not of tree, which has type, universe, name, colour, rings, password"#
)]
#[case::third_party_keyword(
    "type=tree color=red",
    r#"the connection string is invalid: word 2 ("color"): unknown keyword; did you mean "colour"? tree has type, universe, name, colour, rings, password"#
)]
#[case::universe(
    "type=tree universe=6",
    r#"the connection string is invalid: universe is "6", expected 4 for DHCPv4 leases"#
)]
#[case::no_universe(
    "type=memfile universe=v4",
    r#"the connection string is invalid: universe is "v4", expected 4 for DHCPv4 leases"#
)]
#[case::value(
    "type=tree name=a rings=0",
    r#"the connection string is invalid: rings is "0", expected a number from 1 to 5000"#
)]
#[case::missing("type=tree", r#"the connection string is invalid: keyword "name" is missing"#)]
#[case::memfile_value(
    "type=memfile persist=no",
    r#"the connection string is invalid: persist is "no", expected true or false"#
)]
fn an_invalid_connection_string_is_explained(#[case] connection: &str, #[case] message: &str) {
    let (factory, _) = with_tree();
    assert_eq!(leasemgr::with_sources(&factory.open(connection).unwrap_err()).to_string(), message);
    assert_eq!(leasemgr::with_sources(&factory.create(connection).unwrap_err()).to_string(), message);
    assert!(!factory.have_instance());
}

#[test]
fn the_family_of_the_leases_is_that_of_the_universe() {
    let factory = factory::<Lease6>();
    factory.open("type=memfile universe=6 persist=false").unwrap();
    let error = factory.open("type=memfile universe=4 persist=false").unwrap_err();
    assert_eq!(
        leasemgr::with_sources(&error).to_string(),
        r#"the connection string is invalid: universe is "4", expected 6 for DHCPv6 leases"#
    );
}

#[test]
fn the_error_of_a_backend_is_passed_on() {
    let (factory, _) = with_tree();
    let _first = factory.open("type=tree name=a").unwrap();
    let error = factory.open("type=tree name=a").unwrap_err();
    assert_eq!(
        leasemgr::with_sources(&error).to_string(),
        "cannot open a lease manager of type tree: the trunk a is in use"
    );
    let FactoryError::Open { backend, source } = error else {
        panic!("{error}");
    };
    assert_eq!(backend, "tree");
    assert_eq!(source.downcast::<InUse>().unwrap().0, "a");
    // An error in the connection string is reported as such, also if the backend finds it.
    let error = factory.open("type=tree name=b rings=many").unwrap_err();
    assert!(
        matches!(error, FactoryError::ConnectionString(ConnectionStringError::Value { .. })),
        "{error:?}"
    );
}

#[test]
fn an_opened_manager_is_not_the_current_one() {
    let (factory, tree) = with_tree();
    let manager = factory.open("type=tree name=a").unwrap();
    assert!(!factory.have_instance());
    drop(manager);
    assert!(tree.in_use.lock().unwrap().is_empty());
}

#[test]
fn there_is_one_current_manager_between_create_and_destroy() {
    let (factory, tree) = with_tree();
    assert!(!factory.have_instance());
    assert!(matches!(factory.instance(), Err(FactoryError::NoInstance)));
    assert!(!factory.destroy());

    factory.create("type=tree name=a").unwrap();
    assert!(factory.have_instance());
    assert!(Arc::ptr_eq(&factory.instance().unwrap(), &factory.instance().unwrap()));

    assert!(factory.destroy());
    assert!(!factory.have_instance());
    assert!(tree.in_use.lock().unwrap().is_empty());
    assert!(!factory.destroy());
}

#[test]
fn the_current_manager_is_closed_before_the_next_one_is_opened() {
    let (factory, tree) = with_tree();
    factory.create("type=tree name=a colour=red").unwrap();
    factory.create("type=tree name=a colour=green").unwrap();
    factory.create("type=tree name=b").unwrap();
    assert_eq!(location(&factory), "b");
    assert_eq!(*tree.in_use.lock().unwrap(), BTreeSet::from(["b".to_owned()]));
}

#[test]
fn a_referenced_manager_stays_open_when_another_one_is_created() {
    let (factory, _) = with_tree();
    factory.create("type=tree name=a").unwrap();
    let held = factory.instance().unwrap();
    factory.create("type=tree name=b").unwrap();
    assert_eq!((held.status().location.as_str(), location(&factory).as_str()), ("a", "b"));
}

#[rstest]
#[case::no_connection_string("type")]
#[case::unknown_type("type=bush")]
#[case::unknown_keyword("type=tree size=1")]
#[case::other_family("type=tree universe=6")]
fn a_wrong_connection_string_leaves_the_current_manager(#[case] connection: &str) {
    let (factory, _) = with_tree();
    factory.create("type=tree name=a").unwrap();
    factory.create(connection).unwrap_err();
    assert_eq!(location(&factory), "a");
}

#[test]
fn there_is_no_manager_when_the_next_one_cannot_be_opened() {
    let (factory, tree) = with_tree();
    factory.create("type=tree name=a").unwrap();
    let _other = factory.open("type=tree name=b").unwrap();
    assert!(matches!(factory.create("type=tree name=b"), Err(FactoryError::Open { .. })));
    assert!(!factory.have_instance());
    assert!(!tree.in_use.lock().unwrap().contains("a"));
}

#[rstest]
#[case::kept(true, 2)]
#[case::discarded(false, 1)]
fn a_manager_is_recreated_with_its_callbacks_if_asked(#[case] keep_callbacks: bool, #[case] calls: u64) {
    let (factory, _) = with_tree();
    factory.create("type=tree name=a").unwrap();
    let count = count_adds(factory.instance().unwrap().as_ref());
    let before = Arc::downgrade(&factory.instance().unwrap());
    assert_eq!(factory.instance().unwrap().add(&lease(1)).unwrap(), Added::Added);

    factory.recreate(keep_callbacks).unwrap();
    assert!(before.upgrade().is_none());
    let manager = factory.instance().unwrap();
    assert_eq!(manager.all().unwrap(), [lease(1)]);
    assert_eq!(manager.add(&lease(2)).unwrap(), Added::Added);
    assert_eq!(count.load(Ordering::Relaxed), calls);
}

#[test]
fn callbacks_are_kept_by_every_recreation() {
    let (factory, _) = with_tree();
    factory.create("type=tree name=a").unwrap();
    let count = count_adds(factory.instance().unwrap().as_ref());
    for n in 1..=3 {
        factory.recreate(true).unwrap();
        assert_eq!(factory.instance().unwrap().add(&lease(n)).unwrap(), Added::Added);
        assert_eq!(count.load(Ordering::Relaxed), u64::from(n));
    }
}

#[test]
fn callbacks_do_not_outlive_a_replaced_manager() {
    let (factory, _) = with_tree();
    factory.create("type=tree name=a").unwrap();
    let count = count_adds(factory.instance().unwrap().as_ref());
    factory.create("type=tree name=a").unwrap();
    assert_eq!(factory.instance().unwrap().add(&lease(1)).unwrap(), Added::Added);
    assert_eq!(count.load(Ordering::Relaxed), 0);
}

#[rstest]
fn a_referenced_manager_is_not_recreated(#[values(true, false)] keep_callbacks: bool) {
    let (factory, _) = with_tree();
    factory.create("type=tree name=a").unwrap();
    let holders = [factory.instance().unwrap(), factory.instance().unwrap()];
    let count = count_adds(holders[0].as_ref());
    let error = factory.recreate(keep_callbacks).unwrap_err();
    assert!(matches!(error, FactoryError::InUse { holders: 2 }), "{error:?}");
    assert!(Arc::ptr_eq(&holders[0], &factory.instance().unwrap()));
    // It is unchanged.
    assert_eq!(factory.instance().unwrap().add(&lease(1)).unwrap(), Added::Added);
    assert_eq!(count.load(Ordering::Relaxed), 1);
    drop(holders);
    factory.recreate(keep_callbacks).unwrap();
}

#[test]
fn a_manager_referenced_at_the_last_moment_is_not_recreated() {
    let (factory, tree) = with_tree();
    tree.keeps_itself.store(true, Ordering::Relaxed);
    factory.create("type=tree name=a").unwrap();
    let before = Arc::downgrade(&factory.instance().unwrap());
    assert!(matches!(factory.recreate(true), Err(FactoryError::InUse { holders: 1 })));
    assert!(Arc::ptr_eq(&before.upgrade().unwrap(), &factory.instance().unwrap()));
}

#[test]
fn without_a_manager_there_is_nothing_to_recreate() {
    let (factory, _) = with_tree();
    assert!(matches!(factory.recreate(true), Err(FactoryError::NoInstance)));
    factory.create("type=tree name=a").unwrap();
    factory.destroy();
    assert!(matches!(factory.recreate(true), Err(FactoryError::NoInstance)));
}

#[test]
fn a_manager_of_a_deregistered_backend_is_not_closed_for_recreation() {
    let (factory, _) = with_tree();
    factory.create("type=tree name=a").unwrap();
    factory.deregister("tree");
    assert!(matches!(factory.recreate(true), Err(FactoryError::UnknownType { .. })));
    assert_eq!(location(&factory), "a");
}

#[rstest]
#[case::with_callbacks(true, 1)]
#[case::without(false, 0)]
fn a_manager_is_recreated_with_another_connection_string(
    #[case] keep_callbacks: bool,
    #[case] calls: u64,
    #[values("type=tree name=b", "type=memfile persist=false", "type=tree name=a rings=7")] connection: &str,
) {
    let (factory, tree) = with_tree();
    factory.create("type=tree name=a").unwrap();
    let count = count_adds(factory.instance().unwrap().as_ref());
    factory.recreate_with(connection, keep_callbacks).unwrap();
    let manager = factory.instance().unwrap();
    let is_tree = connection.starts_with("type=tree");
    assert_eq!(manager.status().backend, if is_tree { "tree" } else { "memfile" });
    assert_eq!(tree.in_use.lock().unwrap().len(), usize::from(is_tree));
    assert_eq!(manager.add(&lease(1)).unwrap(), Added::Added);
    assert_eq!(count.load(Ordering::Relaxed), calls);
    // It is now the one that is recreated.
    drop(manager);
    factory.recreate(keep_callbacks).unwrap();
    assert_eq!(factory.instance().unwrap().status().backend, if is_tree { "tree" } else { "memfile" });
}

#[rstest]
#[case::not_a_pair("type=tree name", false)]
#[case::unknown_type("type=bush", false)]
#[case::unknown_keyword("type=tree name=b leaves=3", false)]
#[case::invalid_value("type=tree name=b rings=9999", true)]
#[case::in_use("type=tree name=taken", true)]
#[case::invalid_file("type=memfile name=/dev/null/leases.csv", true)]
fn a_manager_that_cannot_be_replaced_stays_or_is_restored(
    #[case] connection: &str,
    #[case] is_closed: bool,
    #[values(true, false)] keep_callbacks: bool,
) {
    let (factory, _) = with_tree();
    let _taken = factory.open("type=tree name=taken").unwrap();
    factory.create("type=tree name=a").unwrap();
    let count = count_adds(factory.instance().unwrap().as_ref());
    let before = Arc::downgrade(&factory.instance().unwrap());
    let error = factory.recreate_with(connection, keep_callbacks).unwrap_err();
    let is_known = matches!(
        error,
        FactoryError::ConnectionString(_) | FactoryError::UnknownType { .. } | FactoryError::Open { .. }
    );
    assert!(is_known, "{error:?}");
    assert_eq!(before.upgrade().is_none(), is_closed);
    assert_eq!(location(&factory), "a");
    assert_eq!(factory.instance().unwrap().add(&lease(1)).unwrap(), Added::Added);
    assert_eq!(count.load(Ordering::Relaxed), 1);
}

#[rstest]
#[case::with_another_string(Some("type=tree name=b rings=9999"))]
#[case::with_the_same(None)]
fn callbacks_are_kept_until_a_manager_can_be_reopened(#[case] connection: Option<&str>) {
    let (factory, tree) = with_tree();
    factory.create("type=tree name=a").unwrap();
    let count = count_adds(factory.instance().unwrap().as_ref());
    // Another process takes the trunk as soon as it is closed.
    tree.in_use_elsewhere.store(true, Ordering::Relaxed);
    for _ in 0..2 {
        let result = match connection {
            Some(connection) => factory.recreate_with(connection, true),
            None => factory.recreate(true),
        };
        assert!(result.is_err());
        assert!(!factory.have_instance());
    }
    tree.in_use_elsewhere.store(false, Ordering::Relaxed);
    factory.recreate(true).unwrap();
    assert_eq!(location(&factory), "a");
    assert_eq!(factory.instance().unwrap().add(&lease(1)).unwrap(), Added::Added);
    assert_eq!(count.load(Ordering::Relaxed), 1);
}

#[rstest]
#[case::destroyed(|factory: &LeaseMgrFactory<Lease4>| assert!(!factory.destroy()))]
#[case::created(|factory: &LeaseMgrFactory<Lease4>| drop(factory.create("type=tree name=b")))]
fn saved_callbacks_are_dropped_with_their_manager(#[case] end: fn(&LeaseMgrFactory<Lease4>)) {
    let (factory, tree) = with_tree();
    factory.create("type=tree name=a").unwrap();
    tree.in_use_elsewhere.store(true, Ordering::Relaxed);
    assert!(factory.recreate(true).is_err());
    end(&factory);
    assert!(matches!(factory.recreate(true), Err(FactoryError::NoInstance)));
    assert!(matches!(factory.recreate_with("type=tree name=c", true), Err(FactoryError::NoInstance)));
}

#[test]
fn a_referenced_manager_is_not_replaced() {
    let (factory, _) = with_tree();
    factory.create("type=tree name=a").unwrap();
    let holder = factory.instance().unwrap();
    let error = factory.recreate_with("type=tree name=b", true).unwrap_err();
    assert!(matches!(error, FactoryError::InUse { holders: 1 }), "{error:?}");
    assert!(Arc::ptr_eq(&holder, &factory.instance().unwrap()));
}

#[test]
fn other_operations_do_not_wait_for_an_opening_manager() {
    let (factory, tree) = with_tree();
    let (called, on_call) = channel();
    let (go_on, on_go_on) = channel();
    *tree.gate.lock().unwrap() = Some((called, on_go_on));
    let (answer, on_answer) = channel();
    let creator = thread::spawn({
        let factory = factory.clone();
        move || factory.create("type=tree name=a").unwrap()
    });
    on_call.recv().unwrap();
    let asker = thread::spawn({
        let factory = factory.clone();
        move || {
            let instance = matches!(factory.instance(), Err(FactoryError::NoInstance));
            let known = factory.backends().len();
            answer.send((factory.have_instance(), instance, known)).unwrap();
        }
    });
    let answer = on_answer.recv_timeout(Duration::from_secs(600));
    go_on.send(()).unwrap();
    creator.join().unwrap();
    asker.join().unwrap();
    assert_eq!(answer, Ok((false, true, 2)));
    assert!(factory.have_instance());
}

#[rstest]
#[case::created(|factory: &LeaseMgrFactory<Lease4>| factory.create("type=tree name=a"))]
#[case::recreated(|factory: &LeaseMgrFactory<Lease4>| factory.recreate(false))]
fn a_manager_is_not_destroyed_before_it_is_open(
    #[case] open: fn(&LeaseMgrFactory<Lease4>) -> Result<(), FactoryError>,
) {
    let (factory, tree) = with_tree();
    factory.create("type=tree name=a").unwrap();
    let (called, on_call) = channel();
    let (go_on, on_go_on) = channel();
    *tree.gate.lock().unwrap() = Some((called, on_go_on));
    let (ready, on_ready) = channel();
    thread::scope(|scope| {
        let opener = scope.spawn(|| open(&factory));
        on_call.recv().unwrap();
        let destroyer = scope.spawn(|| {
            ready.send(()).unwrap();
            factory.destroy()
        });
        on_ready.recv().unwrap();
        // Time in which a premature destruction would show.
        (0..1000).for_each(|_| thread::yield_now());
        go_on.send(()).unwrap();
        opener.join().unwrap().unwrap();
        assert!(destroyer.join().unwrap());
    });
    assert!(!factory.have_instance());
}

#[test]
fn concurrent_operations_leave_only_the_current_manager_open() {
    let (factory, tree) = with_tree();
    thread::scope(|scope| {
        for worker in 0..4_u64 {
            let factory = &factory;
            scope.spawn(move || {
                // The order of operations must differ between threads.
                let mut random = worker;
                for _ in 0..1000 {
                    random = random
                        .wrapping_mul(6_364_136_223_846_793_005)
                        .wrapping_add(1_442_695_040_888_963_407);
                    match random >> 62 {
                        0 | 1 => factory.create("type=tree name=a").unwrap(),
                        2 => match factory.recreate(true) {
                            Ok(()) | Err(FactoryError::NoInstance) => {}
                            Err(error) => panic!("{error}"),
                        },
                        _ => {
                            factory.destroy();
                        }
                    }
                }
            });
        }
    });
    let open = tree.in_use.lock().unwrap().len();
    assert_eq!(open, usize::from(factory.have_instance()));
}

/// The log of all tests. It is shared, because `tracing` caches its interest in events for all
/// threads.
static LOG: LazyLock<Logs> = LazyLock::new(Logs::of_everything);

#[test]
fn no_password_is_logged_or_shown() {
    let (factory, _) = with_tree();
    factory.create("type=tree name=hollow password='Lorem Ipsum'").unwrap();
    factory.recreate(true).unwrap();
    let mut shown = format!("{factory:?}");
    for connection in [
        "type=tree name=a password='Lorem Ipsum",
        "type=tree name=a password=Lorem Ipsum",
        "type=tree password=Lorem Ipsum=",
        "type=tree pasword=Lorem name=a",
        "type=bush password=Lorem",
        "type=mysql password=Lorem",
        "type=tree password=Lorem universe=6",
        "type=memfile password=Lorem",
        "password=Lorem",
    ] {
        let error = factory.create(connection).unwrap_err();
        writeln!(shown, "{} {error:?}", leasemgr::with_sources(&error)).unwrap();
    }
    factory.destroy();
    shown += &LOG.lines().join("\n");
    assert!(shown.contains("DHCPv4 leases: type=tree name=hollow password=*****"), "{shown}");
    assert!(!shown.contains("Lorem") && !shown.contains("Ipsum"), "{shown}");
}

/// Returns a connection string for lease files in a directory.
fn memfile(directory: &Path) -> String {
    format!("type=memfile universe=4 lfc-interval=0 name={}/leases.csv", directory.display())
}

fn directory() -> TempDir {
    let directory = tempfile::tempdir().unwrap();
    assert!(
        !directory.path().to_str().unwrap().contains([' ', '\t']),
        "such a name cannot be used in a connection string"
    );
    directory
}

fn is_owned<T: Debug>(result: Result<T, FactoryError>) -> bool {
    match result.unwrap_err() {
        FactoryError::Open { source, .. } => matches!(source.downcast_ref(), Some(OpenError::Owned { .. })),
        error => panic!("{error}"),
    }
}

#[test]
fn a_lease_file_is_opened_once_at_a_time() {
    let directory = directory();
    let connection = memfile(directory.path());
    let factory = factory::<Lease4>();
    factory.create(&connection).unwrap();
    assert!(is_owned(factory.open(&connection)));
    assert!(is_owned(self::factory::<Lease4>().create(&connection)));
    assert!(factory.destroy());
    drop(factory.open(&connection).unwrap());
    factory.create(&connection).unwrap();
    // The current manager is closed before the next one is opened.
    factory.create(&connection).unwrap();
}

#[test]
fn a_lease_file_is_unlocked_with_the_last_reference() {
    let directory = directory();
    let connection = memfile(directory.path());
    let factory = factory::<Lease4>();
    factory.create(&connection).unwrap();
    let held = factory.instance().unwrap();
    assert!(factory.destroy());
    assert!(is_owned(factory.open(&connection)));
    drop(held);
    factory.open(&connection).unwrap();
}

#[rstest]
#[case::kept(true, 2)]
#[case::discarded(false, 1)]
fn leases_in_a_file_survive_a_recreation_of_their_manager(#[case] keep_callbacks: bool, #[case] calls: u64) {
    let directory = directory();
    let factory = factory::<Lease4>();
    factory.create(&memfile(directory.path())).unwrap();
    let count = count_adds(factory.instance().unwrap().as_ref());
    assert_eq!(factory.instance().unwrap().add(&lease(1)).unwrap(), Added::Added);
    factory.recreate(keep_callbacks).unwrap();
    let manager = factory.instance().unwrap();
    assert_eq!(manager.all().unwrap(), [lease(1)]);
    assert_eq!(manager.status().lease_file, Some(directory.path().join("leases.csv")));
    assert_eq!(manager.add(&lease(2)).unwrap(), Added::Added);
    assert_eq!(count.load(Ordering::Relaxed), calls);
    assert!(matches!(factory.recreate(keep_callbacks), Err(FactoryError::InUse { holders: 1 })));
}

#[test]
fn leases_without_a_file_are_lost_with_their_manager() {
    let factory = factory::<Lease4>();
    factory.create("type=memfile persist=false").unwrap();
    assert_eq!(factory.instance().unwrap().add(&lease(1)).unwrap(), Added::Added);
    assert_eq!(factory.instance().unwrap().status().lease_file, None);
    factory.recreate(true).unwrap();
    assert_eq!(factory.instance().unwrap().all().unwrap(), []);
}

/// A factory can be a static, for either family.
#[test]
fn a_factory_is_shared_between_threads() {
    fn shared<T: Send + Sync + 'static>() {}
    fn of<L: ManagedLease>() {
        shared::<LeaseMgrFactory<L>>();
        shared::<FactoryError>();
        shared::<ConnectionString>();
    }
    of::<Lease4>();
    of::<Lease6>();
}
