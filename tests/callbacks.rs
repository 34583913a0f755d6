//! Callbacks of lease managers: changes from a callback, of the same and of other managers, and
//! panics.

#![expect(clippy::unwrap_used, reason = "a test")]

mod support;

use std::mem;
use std::panic::{panic_any, resume_unwind};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Barrier, Mutex, Weak};
use std::thread;

use leasemgr::WriteLeases;
use leasemgr::lease::{Lease4, Lease6, LeaseType, SubnetId};
use leasemgr::lease_file::FileLease;
use leasemgr::memfile::{self, MemfileOptions};
use leasemgr::{
    Added, CallbackError, Change, ChangeKind, Deleted, LeaseMgr, LeaseMgrError, LeaseMgrExt, ManagedLease,
    Scope,
};
use rstest::rstest;
use support::leases::TestLease;
use support::logs::Logs;

const KINDS: [ChangeKind; 3] = [ChangeKind::Add, ChangeKind::Update, ChangeKind::Delete];

/// Returns the result of `work`, and what it logs in this thread.
fn recorded<T>(work: impl FnOnce() -> T) -> (T, Vec<String>) {
    let logs = Logs::default();
    let result = logs.of(work);
    (result, logs.lines())
}

fn memfile<L: ManagedLease + FileLease>(directory: Option<&tempfile::TempDir>) -> Arc<dyn LeaseMgr<L>> {
    let file = directory.map(|directory| directory.path().join("leases.csv"));
    memfile::open(MemfileOptions::default().file(file)).unwrap()
}

/// Calls `function` at each change.
fn at_each<L: ManagedLease + FileLease>(
    mgr: &Arc<dyn LeaseMgr<L>>,
    function: impl Fn(&dyn LeaseMgr<L>, &Change<'_, L>) + Clone + Send + Sync + 'static,
) {
    for kind in KINDS {
        let (weak, function): (Weak<dyn LeaseMgr<L>>, _) = (Arc::downgrade(mgr), function.clone());
        let call = move |change: &Change<'_, L>| function(&*weak.upgrade().unwrap(), change);
        mgr.tracking().register("test", kind, None, call).unwrap();
    }
}

/// Changes each address that shares a row lock with the changed address, in all ways.
fn a_change_in_a_callback_is_refused_for_any_address<L: TestLease>() {
    let mgr = memfile::<L>(None);
    let refused = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&refused);
    at_each(&mgr, move |mgr, _| {
        // More than the number of locks.
        for n in 0..2000 {
            let lease = L::tagged(n, 1);
            assert!(matches!(mgr.add(&lease), Err(LeaseMgrError::InCallback)));
            assert!(matches!(mgr.delete_expecting(lease.address(), None), Err(LeaseMgrError::InCallback)));
            count.fetch_add(2, Ordering::Relaxed);
        }
    });
    assert_eq!(mgr.add(&L::tagged(7, 0)).unwrap(), Added::Added);
    assert_eq!(refused.load(Ordering::Relaxed), 4000);
    assert_eq!(mgr.all().unwrap(), [L::tagged(7, 0).kept()]);
}

#[test]
fn a_change_in_a_callback_is_refused_for_any_address4() {
    a_change_in_a_callback_is_refused_for_any_address::<Lease4>();
}

#[test]
fn a_change_in_a_callback_is_refused_for_any_address6() {
    a_change_in_a_callback_is_refused_for_any_address::<Lease6>();
}

#[test]
fn an_error_in_a_callback_says_what_to_do() {
    let text = LeaseMgrError::InCallback.to_string();
    assert!(text.contains("a callback cannot change leases"), "{text}");
    assert!(text.ends_with("; hand the change to another thread"), "{text}");
}

#[test]
fn a_callback_changes_the_leases_of_another_manager() {
    let (from, to) = (memfile::<Lease4>(None), memfile::<Lease6>(None));
    let mirror = Arc::clone(&to);
    at_each(&from, move |_, change| match (change.before(), change.now()) {
        (None, _) => {
            assert_eq!(mirror.add(&Lease6::tagged(1, 1)).unwrap(), Added::Added);
        }
        (Some(_), Some(_)) => mirror.update(&Lease6::tagged(1, 2)).unwrap(),
        (Some(_), None) => {
            assert_eq!(mirror.delete(Lease6::numbered(1)).unwrap(), Deleted::Deleted);
        }
    });
    assert_eq!(from.add(&Lease4::tagged(1, 1)).unwrap(), Added::Added);
    assert_eq!(to.all().unwrap(), [Lease6::tagged(1, 1).kept()]);
    from.update(&Lease4::tagged(1, 2)).unwrap();
    assert_eq!(to.all().unwrap(), [Lease6::tagged(1, 2).kept()]);
    assert_eq!(from.delete(Lease4::numbered(1)).unwrap(), Deleted::Deleted);
    assert_eq!(to.all().unwrap(), []);
}

#[test]
fn a_change_of_the_own_manager_through_another_is_refused() {
    let (first, second) = (memfile::<Lease4>(None), memfile::<Lease4>(None));
    let results = Arc::new(Mutex::new(Vec::new()));
    let to_second = Arc::downgrade(&second);
    at_each(&first, move |_, _| {
        let lease = Lease4::tagged(2, 2);
        assert_eq!(to_second.upgrade().unwrap().add(&lease).unwrap(), Added::Added);
    });
    let (to_first, back) = (Arc::downgrade(&first), Arc::clone(&results));
    at_each(&second, move |_, _| {
        let first = to_first.upgrade().unwrap();
        assert_eq!(first.get(Lease4::numbered(1)).unwrap(), Some(Lease4::tagged(1, 1).kept()));
        back.lock().unwrap().push(first.add(&Lease4::tagged(3, 3)).map_err(|error| error.to_string()));
    });
    assert_eq!(first.add(&Lease4::tagged(1, 1)).unwrap(), Added::Added);
    assert_eq!(*results.lock().unwrap(), [Err(LeaseMgrError::InCallback.to_string())]);
    assert_eq!(first.all().unwrap(), [Lease4::tagged(1, 1).kept()]);
    assert_eq!(second.all().unwrap(), [Lease4::tagged(2, 2).kept()]);
}

#[test]
fn callbacks_of_managers_in_a_ring_do_not_deadlock() {
    // The changes run at the same time, so each callback changes the next manager.
    for count in 2..=4_u32 {
        let managers: Vec<_> = (0..count).map(|_| memfile::<Lease4>(None)).collect();
        let (meet, results) = (Arc::new(Barrier::new(count as usize)), Arc::new(Mutex::new(Vec::new())));
        for (n, manager) in managers.iter().enumerate() {
            let next = Arc::downgrade(&managers[(n + 1) % managers.len()]);
            let (meet, results) = (Arc::clone(&meet), Arc::clone(&results));
            at_each(manager, move |_, change| {
                if *change == Change::added(&Lease4::tagged(1, 1)) {
                    meet.wait();
                    // The address that is being changed in the next manager.
                    let result = next.upgrade().unwrap().update(&Lease4::tagged(1, 2));
                    results.lock().unwrap().push(result.map_err(|error| error.to_string()));
                }
            });
        }
        thread::scope(|scope| {
            for manager in &managers {
                scope.spawn(|| assert_eq!(manager.add(&Lease4::tagged(1, 1)).unwrap(), Added::Added));
            }
        });
        let mut results = mem::take(&mut *results.lock().unwrap());
        results.sort();
        let mut expected = vec![Ok(()); count as usize - 1];
        expected.push(Err(LeaseMgrError::InCallback.to_string()));
        assert_eq!(results, expected);
        // After the callbacks, changes are accepted.
        for manager in &managers {
            manager.update(&Lease4::tagged(1, 3)).unwrap();
        }
    }
}

#[test]
fn reads_in_a_callback_do_not_wait_for_file_writes() {
    let directory = tempfile::tempdir().unwrap();
    let mgr = memfile::<Lease4>(Some(&directory));
    let (counts, copy) = (Arc::new(Mutex::new(Vec::new())), directory.path().join("copy.csv"));
    let written = Arc::clone(&counts);
    at_each(&mgr, move |mgr, _| {
        mgr.flush().unwrap();
        written.lock().unwrap().push(mgr.write_to(&copy).unwrap());
        let _ = mgr.clean_up().unwrap();
    });
    for n in 1..4 {
        assert_eq!(mgr.add(&Lease4::tagged(n, n)).unwrap(), Added::Added);
    }
    assert_eq!(*counts.lock().unwrap(), [1, 2, 3]);
}

/// A value whose destructor panics.
struct PanicsOnDrop;

impl Drop for PanicsOnDrop {
    fn drop(&mut self) {
        resume_unwind(Box::new("dropped"));
    }
}

#[rstest]
#[case::text(|| resume_unwind(Box::new("out of order")), "out of order")]
#[case::formatted(|| resume_unwind(Box::new(format!("out of {}", "order"))), "out of order")]
#[case::no_text(|| resume_unwind(Box::new(7)), "without a message")]
#[case::a_value_that_panics_when_dropped(|| panic_any(PanicsOnDrop), "without a message")]
fn a_panic_of_a_callback_is_logged_with_its_owner(
    #[case] panics: fn(),
    #[case] message: &str,
    #[values(false, true)] on_disk: bool,
) {
    let directory = on_disk.then(|| tempfile::tempdir().unwrap());
    let mgr = memfile::<Lease6>(directory.as_ref());
    let called = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&called);
    mgr.tracking().register("an owner", ChangeKind::Add, None, move |_| panics()).unwrap();
    mgr.tracking()
        .register("another", ChangeKind::Add, None, move |_| {
            count.fetch_add(1, Ordering::Relaxed);
        })
        .unwrap();
    let lease = Lease6::tagged(1, 1);
    let (added, log) = recorded(|| mgr.add(&lease));
    assert_eq!(added.unwrap(), Added::Added);
    assert_eq!(called.load(Ordering::Relaxed), 1);
    let line = log.iter().find(|line| line.contains("DHCPSRV_LEASE_MGR_CALLBACK_FAILED")).unwrap();
    for part in ["an owner", "Add", message, &lease.address().to_string()] {
        assert!(line.contains(part), "{line}");
    }
    assert_eq!(mgr.status().refused, None);
    mgr.update(&Lease6::tagged(1, 2)).unwrap();
    drop(mgr);
    if directory.is_some() {
        assert_eq!(memfile::<Lease6>(directory.as_ref()).all().unwrap(), [Lease6::tagged(1, 2).kept()]);
    }
}

#[test]
fn values_of_an_unregistered_callback_may_panic_when_dropped() {
    let mgr = memfile::<Lease4>(None);
    let (weak, panics_on_drop) = (Arc::downgrade(&mgr), PanicsOnDrop);
    mgr.tracking()
        .register("an owner", ChangeKind::Add, None, move |_| {
            let _owned = &panics_on_drop;
            assert_eq!(weak.upgrade().unwrap().tracking().unregister("an owner", None), 1);
        })
        .unwrap();
    let (added, log) = recorded(|| mgr.add(&Lease4::tagged(1, 1)));
    assert_eq!(added.unwrap(), Added::Added);
    assert!(log.iter().any(|line| line.contains("an owner") && line.contains("dropped")), "{log:?}");
    assert!(!mgr.tracking().is_watched());
}

/// Releases a lease of another manager when dropped.
struct Releases(Arc<dyn LeaseMgr<Lease4>>);

impl Drop for Releases {
    fn drop(&mut self) {
        let _ = self.0.delete(Lease4::numbered(1));
    }
}

#[test]
fn a_change_in_a_destructor_during_a_panic_does_not_break_the_manager() {
    let (mgr, other) = (memfile::<Lease6>(None), memfile::<Lease4>(None));
    assert_eq!(other.add(&Lease4::tagged(1, 1)).unwrap(), Added::Added);
    let of_callback = Arc::clone(&other);
    mgr.tracking()
        .register("an owner", ChangeKind::Add, None, move |_| {
            let _guard = Releases(Arc::clone(&of_callback));
            resume_unwind(Box::new("out of order"));
        })
        .unwrap();
    assert_eq!(mgr.add(&Lease6::tagged(1, 1)).unwrap(), Added::Added);
    assert_eq!(other.all().unwrap(), []);
    assert_eq!(other.status().refused, None);
    assert_eq!(other.add(&Lease4::tagged(1, 1)).unwrap(), Added::Added);
}

#[test]
fn values_of_unregistered_callbacks_may_register_callbacks_when_dropped() {
    struct Registers(Weak<dyn LeaseMgr<Lease4>>);
    impl Drop for Registers {
        fn drop(&mut self) {
            let mgr = self.0.upgrade().unwrap();
            mgr.tracking().register("successor", ChangeKind::Add, None, |_| {}).unwrap();
        }
    }
    let mgr = memfile::<Lease4>(None);
    let registers = Registers(Arc::downgrade(&mgr));
    mgr.tracking()
        .register("owner", ChangeKind::Add, None, move |_| {
            let _owned = &registers;
        })
        .unwrap();
    assert_eq!(mgr.tracking().unregister("owner", None), 1);
    assert_eq!(mgr.tracking().unregister_all(None), 1);
}

#[test]
fn a_callback_is_registered_once_for_a_scope() {
    let mgr = memfile::<Lease6>(None);
    let register = |scope: Scope| mgr.tracking().register("owner", ChangeKind::Add, scope, |_| {});
    let both = Scope::from(SubnetId(1)).lease_type(LeaseType::NA);
    for scope in [Scope::default(), SubnetId(1).into(), LeaseType::NA.into(), LeaseType::PD.into(), both] {
        assert_eq!(register(scope), Ok(()));
        let again = register(scope).unwrap_err();
        assert_eq!(again, CallbackError::Registered { owner: "owner".to_owned(), kind: ChangeKind::Add });
    }
}

#[test]
fn a_dhcpv4_callback_has_no_lease_type() {
    let mgr = memfile::<Lease4>(None);
    let error = mgr.tracking().register("owner", ChangeKind::Add, LeaseType::NA, |_| {}).unwrap_err();
    assert_eq!(error, CallbackError::NoTypes { owner: "owner".to_owned(), lease_type: LeaseType::NA });
    assert!(!mgr.tracking().is_watched());
}
