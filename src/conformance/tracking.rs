//! Callbacks for changes, and address locks.

use std::panic::resume_unwind;
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;

use super::TestedLease;
use super::case::{Case, Fault, QueryText, Verdict, ask, holds, in_callback, in_threads, same, same_leases};
use super::model::matches;
use super::sample::{END, Sample, in_state, in_subnet, sample, samples, with};
use crate::lease::{ClientClass, Lease6, LeaseKind, LeaseState, LeaseType, SubnetId, system_time};
use crate::{Change, ChangeKind, LeaseMgr, LeaseMgrError, LeaseMgrExt, Query, Scope, StatisticsQuery};

pub(super) const KINDS: [ChangeKind; 3] = [ChangeKind::Add, ChangeKind::Update, ChangeKind::Delete];

/// A reported change: the lease before, and the lease after.
pub(super) type Reported<L> = (Option<L>, Option<L>);

/// The changes that were reported since the last call of `take`.
#[derive(Clone)]
pub(super) struct Log<L>(Arc<Mutex<Vec<Reported<L>>>>);

impl<L: TestedLease> Log<L> {
    /// Records changes of some kinds, in one subnet or in all.
    pub(super) fn register(
        case: &Case<L>,
        owner: &str,
        kinds: &[ChangeKind],
        subnet: Option<u32>,
    ) -> Verdict<Self> {
        Self::register_for(case, owner, kinds, subnet.map(SubnetId).into())
    }

    /// Records changes of some kinds that concern a scope.
    fn register_for(case: &Case<L>, owner: &str, kinds: &[ChangeKind], scope: Scope) -> Verdict<Self> {
        let log = Self(Arc::default());
        for &kind in kinds {
            let Self(list) = log.clone();
            let write = move |change: &Change<'_, L>| {
                let reported = (change.before().cloned(), change.now().cloned());
                list.lock().unwrap_or_else(PoisonError::into_inner).push(reported);
            };
            register(case, owner, kind, scope, write)?;
        }
        Ok(log)
    }

    pub(super) fn take(&self) -> Vec<Reported<L>> {
        std::mem::take(&mut *self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Checks that exactly these changes were reported.
    fn has(&self, what: &str, expected: &[Reported<L>]) -> Verdict {
        same(format_args!("reported changes, {what}"), &self.take()[..], expected)
    }
}

fn register<L: TestedLease>(
    case: &Case<L>,
    owner: &str,
    kind: ChangeKind,
    scope: Scope,
    callback: impl Fn(&Change<'_, L>) + Send + Sync + 'static,
) -> Verdict {
    let registered = case.mgr().tracking().register(owner, kind, scope, callback);
    registered.map_err(|error| Fault::new("register a callback", "no error", error))
}

/// Calls `work` in a callback at each change of some kinds. The returned verdicts must be checked
/// afterwards.
pub(super) fn in_each<L: TestedLease>(
    case: &Case<L>,
    kinds: &[ChangeKind],
    work: impl Fn(&dyn LeaseMgr<L>, &Change<'_, L>) -> Verdict + Clone + Send + Sync + 'static,
) -> Verdict<Verdicts> {
    let verdicts = Verdicts::default();
    for &kind in kinds {
        let (mgr, work, verdicts) = (case.weak(), work.clone(), verdicts.clone());
        register(case, "suite", kind, Scope::default(), move |change| {
            // The manager is not dropped during a callback.
            if let Some(mgr) = mgr.upgrade() {
                // Called without the lock: a defective manager may call it recursively.
                let verdict = work(&*mgr, change);
                verdicts.lock().push(verdict);
            }
        })?;
    }
    Ok(verdicts)
}

/// The results of callbacks.
#[derive(Clone, Default)]
pub(super) struct Verdicts(Arc<Mutex<Vec<Verdict>>>);

impl Verdicts {
    fn lock(&self) -> std::sync::MutexGuard<'_, Vec<Verdict>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Checks the number of callbacks since the last call, and that none has found a fault.
    pub(super) fn are_good(&self, calls: usize) -> Verdict {
        let verdicts = std::mem::take(&mut *self.lock());
        same("number of callbacks that were called", &verdicts.len(), &calls)?;
        verdicts.into_iter().collect()
    }
}

pub(super) fn an_addition_is_reported<L: TestedLease>(case: &Case<L>) -> Verdict {
    let log = Log::register(case, "log", &[ChangeKind::Add], None)?;
    for lease in samples::<L>(0..3)? {
        case.add(&lease)?;
        log.has("an addition", &[(None, Some(lease.clone()))])?;
        case.update(&with(&lease, |data| data.cltt += 1))?;
        case.delete(lease.address())?;
        log.has("an update and a deletion, registered for additions", &[])?;
    }
    Ok(())
}

pub(super) fn an_update_is_reported_with_the_lease_before_and_after<L: TestedLease>(
    case: &Case<L>,
) -> Verdict {
    let log = Log::register(case, "log", &[ChangeKind::Update], None)?;
    let lease = sample::<L>(1, 1)?;
    case.add(&lease)?;
    log.has("an addition, registered for updates", &[])?;
    let renewed = with(&lease, |data| data.cltt += 100);
    case.update(&renewed)?;
    log.has("an update", &[(Some(lease.clone()), Some(renewed.clone()))])?;
    let other = in_subnet(&sample(1, 2)?, 3);
    ask("update, if unchanged", case.mgr().update_if_unchanged(&renewed, &other))?;
    log.has("an update, if unchanged", &[(Some(renewed), Some(other.clone()))])?;
    case.delete(lease.address())?;
    log.has("a deletion, registered for updates", &[])
}

pub(super) fn a_deletion_is_reported_with_the_deleted_lease<L: TestedLease>(case: &Case<L>) -> Verdict {
    let log = Log::register(case, "log", &[ChangeKind::Delete], None)?;
    let lease = sample::<L>(1, 1)?;
    case.add(&lease)?;
    let renewed = with(&lease, |data| data.cltt += 100);
    case.update(&renewed)?;
    log.has("changes, registered for deletions", &[])?;
    case.delete(lease.address())?;
    log.has("a deletion", &[(Some(renewed), None)])?;
    case.add(&lease)?;
    ask("delete, if unchanged", case.mgr().delete_if_unchanged(&lease))?;
    log.has("a deletion, if unchanged", &[(Some(lease), None)])
}

pub(super) fn a_change_is_reported_for_its_subnet_only<L: TestedLease>(case: &Case<L>) -> Verdict {
    let logs = [
        Log::register(case, "log", &KINDS, Some(1))?,
        Log::register(case, "log", &KINDS, Some(2))?,
        Log::register(case, "log", &KINDS, Some(0))?,
    ];
    let all = Log::register(case, "all", &KINDS, None)?;
    for (subnet, log) in [(1, &logs[0]), (2, &logs[1]), (0, &logs[2])] {
        let lease = in_subnet(&sample::<L>(1, 1)?, subnet);
        let renewed = with(&lease, |data| data.cltt += 1);
        case.add(&lease)?;
        case.update(&renewed)?;
        case.delete(lease.address())?;
        let reported = [
            (None, Some(lease.clone())),
            (Some(lease.clone()), Some(renewed.clone())),
            (Some(renewed.clone()), None),
        ];
        log.has("in their subnet", &reported)?;
        all.has("in all subnets", &reported)?;
        logs.iter().try_for_each(|log| log.has("in another subnet", &[]))?;
    }
    Ok(())
}

pub(super) fn a_move_is_reported_for_both_subnets<L: TestedLease>(case: &Case<L>) -> Verdict {
    let from = Log::register(case, "from", &KINDS, Some(1))?;
    let to = Log::register(case, "to", &KINDS, Some(2))?;
    let other = Log::register(case, "other", &KINDS, Some(3))?;
    let lease = sample::<L>(1, 1)?;
    case.add(&lease)?;
    from.has("an addition", &[(None, Some(lease.clone()))])?;
    let moved = in_subnet(&lease, 2);
    case.update(&moved)?;
    let reported = [(Some(lease), Some(moved.clone()))];
    from.has("a move, registered for the old subnet", &reported)?;
    to.has("a move, registered for the new subnet", &reported)?;
    case.delete(moved.address())?;
    from.has("a deletion, registered for the old subnet", &[])?;
    to.has("a deletion", &[(Some(moved), None)])?;
    other.has("in another subnet", &[])
}

pub(super) fn a_refused_change_is_not_reported<L: TestedLease>(case: &Case<L>) -> Verdict {
    let leases = samples::<L>(0..2)?;
    case.add(&leases[0])?;
    let log = Log::register(case, "log", &KINDS, None)?;
    let other = with(&leases[0], |data| data.cltt += 1);
    let mgr = case.mgr();
    ask("add to an address with a lease", mgr.add(&other).map(drop))?;
    log.has("an addition to an address with a lease", &[])?;
    let _ = mgr.update_expecting(&leases[1], None);
    log.has("an update of a missing lease", &[])?;
    let _ = mgr.update_expecting(&other, Some(&other));
    log.has("an update of a lease that has changed", &[])?;
    ask("delete a missing lease", mgr.delete_expecting(leases[1].address(), None))?;
    log.has("a deletion of a missing lease", &[])?;
    let _ = mgr.delete_expecting(other.address(), Some(&other));
    log.has("a deletion of a lease that has changed", &[])?;
    ask("delete reclaimed leases", mgr.delete_reclaimed(system_time(i64::MAX)))?;
    ask("wipe subnet 9", mgr.wipe_subnet(SubnetId(9)))?;
    ask("recount", mgr.recount())?;
    ask("flush", mgr.flush())?;
    log.has("no change", &[])
}

pub(super) fn each_of_many_deleted_leases_is_reported<L: TestedLease>(case: &Case<L>) -> Verdict {
    let mut leases = samples::<L>(0..10)?;
    for lease in leases.iter_mut().step_by(2) {
        lease.set_state(LeaseState::EXPIRED_RECLAIMED)?;
    }
    case.add_all(&leases)?;
    let log = Log::register(case, "log", &KINDS, None)?;
    let deletions = |first| leases.iter().skip(first).step_by(2).map(|lease| (Some(lease.clone()), None));
    let check = |what: &str, first| {
        let mut reported = log.take();
        reported.sort_by_key(|(old, _)| old.as_ref().map(L::address));
        same(format_args!("reported changes, {what}"), &reported, &deletions(first).collect())
    };
    ask("delete reclaimed leases", case.mgr().delete_reclaimed(system_time(END)))?;
    check("deletion of reclaimed leases", 0)?;
    ask("wipe subnet 1", case.mgr().wipe_subnet(SubnetId(1)))?;
    check("wiping of their subnet", 1)
}

pub(super) fn an_unregistered_callback_is_not_called<L: TestedLease>(case: &Case<L>) -> Verdict {
    let log = Log::register(case, "log", &KINDS, None)?;
    let in_subnet_1 = Log::register(case, "log", &KINDS, Some(1))?;
    let other = Log::register(case, "other", &KINDS, Some(1))?;
    let lease = sample::<L>(1, 1)?;
    let change = || {
        case.add(&lease)?;
        case.update(&with(&lease, |data| data.cltt += 1))?;
        case.delete(lease.address())
    };
    let reported = |log: &Log<L>| log.take().len();
    change()?;
    same(
        "number of reported changes",
        &[reported(&log), reported(&in_subnet_1), reported(&other)],
        &[3, 3, 3],
    )?;
    same("unregister for subnet 1", &case.mgr().tracking().unregister("log", Some(SubnetId(1))), &3)?;
    change()?;
    same(
        "number of reported changes",
        &[reported(&log), reported(&in_subnet_1), reported(&other)],
        &[3, 0, 3],
    )?;
    same("unregister", &case.mgr().tracking().unregister("log", None), &3)?;
    change()?;
    same(
        "number of reported changes",
        &[reported(&log), reported(&in_subnet_1), reported(&other)],
        &[0, 0, 3],
    )
}

pub(super) fn callbacks_are_unregistered_by_owner_and_by_subnet<L: TestedLease>(case: &Case<L>) -> Verdict {
    let register = || {
        let mut logs = Vec::new();
        for owner in ["one", "two"] {
            for subnet in [None, Some(1), Some(2)] {
                logs.push(Log::register(case, owner, &KINDS, subnet)?);
            }
        }
        Ok::<_, Fault>(logs)
    };
    let lease = sample::<L>(1, 1)?;
    let (one, two) = (Some(SubnetId(1)), Some(SubnetId(2)));
    // In order: for owner "one" all subnets, subnet 1 and subnet 2, then the same for "two". The
    // lease is in subnet 1.
    for (owner, subnet, count, reported) in [
        (Some("one"), one, 3, [1, 0, 0, 1, 1, 0]),
        (Some("two"), None, 9, [1, 1, 0, 0, 0, 0]),
        (Some("three"), None, 0, [1, 1, 0, 1, 1, 0]),
        (None, one, 6, [1, 0, 0, 1, 0, 0]),
        (None, two, 6, [1, 1, 0, 1, 1, 0]),
        (None, None, 18, [0; 6]),
    ] {
        let logs = register()?;
        let tracking = case.mgr().tracking();
        let removed = match owner {
            Some(owner) => tracking.unregister(owner, subnet),
            None => tracking.unregister_all(subnet),
        };
        let action = format!("unregister {owner:?} in {subnet:?}");
        same(&action, &removed, &count)?;
        case.add(&lease)?;
        let found: Vec<_> = logs.iter().map(|log| log.take().len()).collect();
        same(format_args!("{action}, and add a lease"), &found[..], &reported)?;
        case.delete(lease.address())?;
        tracking.unregister_all(None);
    }
    Ok(())
}

/// Checks that the changes of an address were reported in order: each begins with the lease that
/// the previous one has left, and the last one leaves the present lease.
pub(super) fn in_order<L: TestedLease>(
    case: &Case<L>,
    address: L::Address,
    reported: &[Reported<L>],
) -> Verdict {
    let of_address =
        |(old, new): &&Reported<L>| old.iter().chain(new).any(|lease| lease.address() == address);
    let mut last = None;
    for (old, new) in reported.iter().filter(of_address) {
        let action = format_args!("the lease of {address} before a change is that after the previous one");
        same_leases(action, old, last)?;
        last = new.as_ref();
    }
    case.has(address, last)
}

pub(super) fn changes_of_an_address_are_reported_in_order<L: TestedLease>(case: &Case<L>) -> Verdict {
    let log = Log::register(case, "log", &KINDS, None)?;
    let leases = samples::<L>(0..3)?;
    in_threads(4, |thread| {
        for round in 0..60 {
            // Each thread starts with another address.
            let lease = &leases[(thread + round) % leases.len()];
            let own = with(lease, |data| data.cltt += (1000 * thread + round) as i64);
            let change = match (thread + round / 3) % 4 {
                0 => case.mgr().add(&own).map(drop),
                1 => case.mgr().delete_expecting(own.address(), None).map(drop),
                _ => case.mgr().update_expecting(&own, None),
            };
            match change {
                Err(LeaseMgrError::NoSuchLease { .. }) => {}
                other => ask("a change", other)?,
            }
        }
        Ok(())
    })?;
    let reported = log.take();
    for lease in &leases {
        in_order(case, lease.address(), &reported)?;
    }
    holds("reported changes", !reported.is_empty(), "some", reported.len())
}

pub(super) fn a_callback_may_read_leases<L: TestedLease>(case: &Case<L>) -> Verdict {
    let verdicts = in_each(case, &KINDS, |mgr, change| {
        let Some(lease) = change.lease() else {
            return Err(Fault::new("a change", "the lease before or after it", "neither"));
        };
        let expected = change.now();
        let found = ask("get in a callback", mgr.get(lease.address()))?;
        same_leases("get in a callback", found.iter(), expected)?;
        for lease in [change.before(), change.now()].into_iter().flatten() {
            let mut queries = vec![
                Query::all(),
                Query::hostname(&lease.data().hostname),
                Query::state(lease.state()),
                Query::all().in_subnet(lease.data().subnet_id),
                Query::all().in_range(lease.address()..=lease.address()),
            ];
            queries.extend(lease.hwaddr().map(Query::hwaddr));
            queries.extend(lease.client_keys().into_iter().map(Query::client));
            for query in queries {
                let query_text = QueryText(&query);
                let action = format_args!("{query_text}, in a callback");
                let found = ask(action, mgr.find(&query))?;
                let found = found.iter().find(|other| other.address() == lease.address());
                same_leases(action, found, expected.filter(|lease| matches(&query, *lease)))?;
            }
        }
        ask("list expired leases in a callback", mgr.list_expired(system_time(END), 0))?;
        ask("statistics in a callback", mgr.statistics(&StatisticsQuery::default()))?;
        let gold = ClientClass::from("gold");
        ask("count the leases of a class in a callback", mgr.class_leases(&gold, LeaseKind::Address))?;
        ask("recount in a callback", mgr.recount())?;
        ask("flush in a callback", mgr.flush())?;
        ask("clean up in a callback", mgr.clean_up())?;
        mgr.status();
        Ok(())
    })?;
    let leases = samples::<L>(0..6)?;
    case.add_all(&leases)?;
    verdicts.are_good(6)?;
    let renewed = with(&leases[1], |data| data.cltt += 10);
    case.update(&renewed)?;
    case.delete(leases[0].address())?;
    case.update(&in_state(&leases[2], LeaseState::EXPIRED_RECLAIMED)?)?;
    verdicts.are_good(3)?;
    // Leases that are deleted together may be missing together, so only one may be deleted here.
    ask("delete reclaimed leases", case.mgr().delete_reclaimed(system_time(END)))?;
    verdicts.are_good(1)?;
    case.holds([&renewed, &leases[3], &leases[4], &leases[5]], &leases)
}

pub(super) fn a_callback_cannot_change_leases<L: TestedLease>(case: &Case<L>) -> Verdict {
    let (absent, other) = (sample::<L>(90, 90)?, sample::<L>(80, 80)?);
    let reclaimed = in_state(&sample::<L>(70, 70)?, LeaseState::EXPIRED_RECLAIMED)?;
    case.add_all([&other, &reclaimed])?;
    let handed = Arc::new(Mutex::new(Vec::new()));
    let (threads, mgr) = (Arc::clone(&handed), case.weak());
    let (new, there) = (absent.clone(), other.clone());
    let verdicts = in_each(case, &KINDS, move |calling, change| {
        let Some(own) = change.lease() else {
            return Err(Fault::new("a change", "the lease before or after it", "neither"));
        };
        for lease in [own, &new, &there] {
            let address = lease.address();
            let longer = with(lease, |data| data.valid_lifetime.0 += 1);
            in_callback("add in a callback", &calling.add(lease))?;
            in_callback("update in a callback", &calling.update(&longer))?;
            in_callback(
                "update, if unchanged, in a callback",
                &calling.update_expecting(&longer, Some(lease)),
            )?;
            in_callback("delete in a callback", &calling.delete(address))?;
            in_callback(
                "delete, if unchanged, in a callback",
                &calling.delete_expecting(address, Some(lease)),
            )?;
            in_callback("reclaim in a callback", &calling.reclaim(lease))?;
        }
        in_callback("delete reclaimed leases in a callback", &calling.delete_reclaimed(system_time(END)))?;
        in_callback("delete no reclaimed leases in a callback", &calling.delete_reclaimed(system_time(-1)))?;
        for subnet in [1, 999] {
            in_callback("wipe a subnet in a callback", &calling.wipe_subnet(SubnetId(subnet)))?;
        }
        // A callback that has unregistered itself is still a callback.
        calling.tracking().unregister_all(None);
        in_callback("delete in a callback that has unregistered itself", &calling.delete(own.address()))?;
        // Another thread can make the change when the callback has returned.
        if let (Some(mgr), ChangeKind::Add) = (mgr.upgrade(), change.kind()) {
            let new = new.clone();
            let thread = thread::spawn(move || mgr.add(&new));
            threads.lock().unwrap_or_else(PoisonError::into_inner).push(thread);
        }
        Ok(())
    })?;
    let lease = sample::<L>(1, 1)?;
    case.add(&lease)?;
    verdicts.are_good(1)?;
    let threads = std::mem::take(&mut *handed.lock().unwrap_or_else(PoisonError::into_inner));
    for thread in threads {
        let added = thread.join().map_err(|panic| Fault::panic(&*panic))?;
        same("add in a thread of a callback", &ask("add", added)?, &crate::Added::Added)?;
    }
    case.holds([&lease, &absent, &other, &reclaimed], [])?;
    // After the callback its thread can change leases, too.
    case.delete(absent.address())?;
    ask("delete reclaimed leases", case.mgr().delete_reclaimed(system_time(END)).map(drop))?;
    case.holds([&lease, &other], [&absent, &reclaimed])
}

pub(super) fn a_callback_may_register_and_unregister<L: TestedLease>(case: &Case<L>) -> Verdict {
    let log = Log::<L>(Arc::default());
    let inner = log.clone();
    let verdicts = in_each(case, &[ChangeKind::Add], move |mgr, _| {
        let tracking = mgr.tracking();
        same("unregister in a callback", &tracking.unregister("suite", None), &1)?;
        let Log(list) = inner.clone();
        let write = move |change: &Change<'_, L>| {
            let reported = (None, change.lease().cloned());
            list.lock().unwrap_or_else(PoisonError::into_inner).push(reported);
        };
        let registered = tracking.register("inner", ChangeKind::Add, None, write);
        registered.map_err(|error| Fault::new("register in a callback", "no error", error))
    })?;
    let leases = samples::<L>(0..2)?;
    case.add(&leases[0])?;
    verdicts.are_good(1)?;
    log.has("the change at which the callback was registered", &[])?;
    case.add(&leases[1])?;
    verdicts.are_good(0)?;
    log.has("the next change", &[(None, Some(leases[1].clone()))])
}

pub(super) fn a_callback_that_panics_fails_nothing_else<L: TestedLease>(case: &Case<L>) -> Verdict {
    let before = Log::register(case, "before", &KINDS, None)?;
    for kind in KINDS {
        // Panics without a message on standard error.
        let panics = |_: &Change<'_, L>| resume_unwind(Box::new("out of order"));
        register(case, "panics", kind, Scope::default(), panics)?;
        register(case, "panics", kind, SubnetId(1).into(), panics)?;
    }
    let after = Log::register(case, "after", &KINDS, None)?;
    let reported = |what: &str, changes: &[Reported<L>]| {
        before.has(what, changes)?;
        after.has(what, changes)
    };

    let lease = sample::<L>(1, 1)?;
    case.add(&lease)?;
    reported("an addition", &[(None, Some(lease.clone()))])?;
    let renewed = with(&lease, |data| data.cltt += 10);
    case.update(&renewed)?;
    reported("an update", &[(Some(lease.clone()), Some(renewed.clone()))])?;
    case.delete(lease.address())?;
    reported("a deletion", &[(Some(renewed), None)])?;

    let mut leases = samples::<L>(0..8)?;
    for lease in leases.iter_mut().step_by(2) {
        lease.set_state(LeaseState::EXPIRED_RECLAIMED)?;
    }
    case.add_all(&leases)?;
    let removed = ask("delete reclaimed leases", case.mgr().delete_reclaimed(system_time(END)))?;
    same("number of reclaimed leases", &removed, &4)?;
    case.holds(leases.iter().skip(1).step_by(2), &leases)?;
    same("wipe subnet 1", &ask("wipe subnet 1", case.mgr().wipe_subnet(SubnetId(1)))?, &4)?;
    case.holds([], &leases)?;
    for log in [before, after] {
        same("number of reported changes", &log.take().len(), &16)?;
    }
    if let Some(refused) = case.mgr().status().refused {
        return Err(Fault::new("the status after panics of callbacks", "no refusal", refused));
    }
    Ok(())
}

pub(super) fn a_change_is_reported_for_its_type_only(case: &Case<Lease6>) -> Verdict {
    const TYPES: [LeaseType; 3] = [LeaseType::NA, LeaseType::TA, LeaseType::PD];
    let mut logs = Vec::new();
    for lease_type in TYPES {
        let in_subnet_1 = Scope::from(SubnetId(1)).lease_type(lease_type);
        logs.push(Log::register_for(case, "log", &KINDS, lease_type.into())?);
        logs.push(Log::register_for(case, "log", &KINDS, in_subnet_1)?);
    }
    let reported = |what: &str| {
        let counts: Vec<_> = logs.iter().map(|log| log.take().len()).collect();
        (what.to_owned(), counts)
    };
    let is_reported = |what: &str, expected: [usize; 6]| {
        same(
            "reported changes, by type, in all subnets and in subnet 1",
            &reported(what),
            &(what.to_owned(), expected.to_vec()),
        )
    };
    let typed = |lease_type| sample::<Lease6>(1, 1)?.with_kind(Some(lease_type));
    let (address, temporary, prefix) = (typed(TYPES[0])?, typed(TYPES[1])?, typed(TYPES[2])?);
    case.add(&address)?;
    is_reported("an address is added", [1, 1, 0, 0, 0, 0])?;
    // A change of the type concerns both types.
    case.update(&prefix)?;
    is_reported("it becomes a prefix", [1, 1, 0, 0, 1, 1])?;
    let moved = in_subnet(&prefix, 2);
    case.update(&moved)?;
    is_reported("it moves to another subnet", [0, 0, 0, 0, 1, 1])?;
    // Neither form was a temporary address in subnet 2, or a prefix in subnet 1.
    case.update(&temporary)?;
    is_reported("it moves back as a temporary address", [0, 0, 1, 1, 1, 0])?;
    case.delete(temporary.address())?;
    is_reported("it is deleted", [0, 0, 1, 1, 0, 0])?;
    let tracking = case.mgr().tracking();
    same("unregister temporary addresses", &tracking.unregister("log", LeaseType::TA), &6)?;
    let prefixes = Scope::from(SubnetId(1)).lease_type(LeaseType::PD);
    same("unregister prefixes in subnet 1", &tracking.unregister_all(prefixes), &3)?;
    case.add(&temporary)?;
    case.update(&prefix)?;
    is_reported("after that", [0, 0, 0, 0, 1, 0])?;
    same("unregister all", &tracking.unregister_all(None), &9)
}

pub(super) fn an_address_lock_has_one_holder<L: TestedLease>(case: &Case<L>) -> Verdict {
    let leases = [sample::<L>(1, 1)?, in_state(&sample(2, 2)?, LeaseState::DECLINED)?];
    let (address, other) = (leases[0].address(), leases[1].address());
    let action = "lock a lease that is locked";
    let lock = case.mgr().tracking().try_lock(address);
    holds("lock a lease", lock.is_some(), "a lock", &lock)?;
    let again = in_threads(2, |_| Ok(case.mgr().tracking().try_lock(address).is_some()))?;
    same(action, &again, &vec![false, false])?;
    holds("lock another lease", case.mgr().tracking().try_lock(other).is_some(), "a lock", "none")?;
    // Callers with and without the lock can change leases.
    case.add_all(&leases)?;
    drop(lock);
    holds("lock it again", case.mgr().tracking().try_lock(address).is_some(), "a lock", "none")?;
    case.holds(&leases, [])
}
