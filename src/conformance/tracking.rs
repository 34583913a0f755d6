//! Who is told of changes.

use std::sync::{Arc, Mutex, PoisonError};

use super::case::{Case, Fault, Verdict, ask, holds, in_threads, same};
use super::sample::{END, in_state, in_subnet, sample, samples, with};
use super::{Rule, TestedLease, rules};
use crate::lease::{LeaseState, SubnetId};
use crate::{Change, ChangeKind, LeaseMgrError, LeaseMgrExt};

pub(super) fn rules<L: TestedLease>() -> Vec<Rule<L>> {
    rules![
        an_addition_is_told,
        an_update_is_told_with_the_lease_before_and_after,
        a_deletion_is_told_with_the_lease_that_was_there,
        a_change_is_told_for_its_subnet_only,
        a_move_is_told_to_both_subnets,
        a_refused_change_is_not_told,
        each_of_many_removed_leases_is_told,
        nothing_is_told_behind_the_end_of_the_registration,
        changes_of_an_address_are_told_in_their_order,
        a_lock_is_the_same_for_all,
    ]
}

const KINDS: [ChangeKind; 3] = [ChangeKind::Add, ChangeKind::Update, ChangeKind::Delete];

/// A change that was told: the lease before, and the lease after.
type Told<L> = (Option<L>, Option<L>);

/// What was told since it was last asked.
#[derive(Clone)]
struct Log<L>(Arc<Mutex<Vec<Told<L>>>>);

impl<L: TestedLease> Log<L> {
    /// Writes down changes of some kinds, in one subnet or in all.
    fn register(case: &Case<L>, owner: &str, kinds: &[ChangeKind], subnet: Option<u32>) -> Verdict<Self> {
        let log = Self(Arc::default());
        for &kind in kinds {
            let Self(list) = log.clone();
            let write = move |change: &Change<'_, L>| {
                let told = match change {
                    Change::Added(new) => (None, Some((*new).clone())),
                    Change::Updated { old, new } => (Some((*old).clone()), Some((*new).clone())),
                    Change::Deleted(old) => (Some((*old).clone()), None),
                };
                list.lock().unwrap_or_else(PoisonError::into_inner).push(told);
            };
            let registered = case.mgr().tracking().register(owner, kind, subnet.map(SubnetId), write);
            registered.map_err(|error| Fault::new("register a callback", "no error", error))?;
        }
        Ok(log)
    }

    fn take(&self) -> Vec<Told<L>> {
        std::mem::take(&mut *self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// These changes were told, and no others.
    fn has(&self, what: &str, expected: &[Told<L>]) -> Verdict {
        same(format_args!("changes that were told, {what}"), &self.take()[..], expected)
    }
}

fn an_addition_is_told<L: TestedLease>(case: &Case<L>) -> Verdict {
    let log = Log::register(case, "log", &[ChangeKind::Add], None)?;
    for lease in samples::<L>(0..3)? {
        case.add(&lease)?;
        log.has("an addition", &[(None, Some(lease.clone()))])?;
        case.update(&with(&lease, |data| data.cltt += 1))?;
        case.delete(lease.address())?;
        log.has("an update and a deletion to who asked for additions", &[])?;
    }
    Ok(())
}

fn an_update_is_told_with_the_lease_before_and_after<L: TestedLease>(case: &Case<L>) -> Verdict {
    let log = Log::register(case, "log", &[ChangeKind::Update], None)?;
    let lease = sample::<L>(1, 1)?;
    case.add(&lease)?;
    log.has("an addition to who asked for updates", &[])?;
    let renewed = with(&lease, |data| data.cltt += 100);
    case.update(&renewed)?;
    log.has("an update", &[(Some(lease.clone()), Some(renewed.clone()))])?;
    let other = in_subnet(&sample(1, 2)?, 3);
    ask("update, if unchanged", case.mgr().update_if_unchanged(&renewed, &other))?;
    log.has("an update, if unchanged", &[(Some(renewed), Some(other.clone()))])?;
    case.delete(lease.address())?;
    log.has("a deletion to who asked for updates", &[])
}

fn a_deletion_is_told_with_the_lease_that_was_there<L: TestedLease>(case: &Case<L>) -> Verdict {
    let log = Log::register(case, "log", &[ChangeKind::Delete], None)?;
    let lease = sample::<L>(1, 1)?;
    case.add(&lease)?;
    let renewed = with(&lease, |data| data.cltt += 100);
    case.update(&renewed)?;
    log.has("changes to who asked for deletions", &[])?;
    case.delete(lease.address())?;
    log.has("a deletion", &[(Some(renewed), None)])?;
    case.add(&lease)?;
    ask("delete, if unchanged", case.mgr().delete_if_unchanged(&lease))?;
    log.has("a deletion, if unchanged", &[(Some(lease), None)])
}

fn a_change_is_told_for_its_subnet_only<L: TestedLease>(case: &Case<L>) -> Verdict {
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
        let told = [
            (None, Some(lease.clone())),
            (Some(lease.clone()), Some(renewed.clone())),
            (Some(renewed.clone()), None),
        ];
        log.has("in their subnet", &told)?;
        all.has("in all subnets", &told)?;
        logs.iter().try_for_each(|log| log.has("in another subnet", &[]))?;
    }
    Ok(())
}

fn a_move_is_told_to_both_subnets<L: TestedLease>(case: &Case<L>) -> Verdict {
    let from = Log::register(case, "from", &KINDS, Some(1))?;
    let to = Log::register(case, "to", &KINDS, Some(2))?;
    let other = Log::register(case, "other", &KINDS, Some(3))?;
    let lease = sample::<L>(1, 1)?;
    case.add(&lease)?;
    from.has("an addition", &[(None, Some(lease.clone()))])?;
    let moved = in_subnet(&lease, 2);
    case.update(&moved)?;
    let told = [(Some(lease), Some(moved.clone()))];
    from.has("a move, to the subnet of before", &told)?;
    to.has("a move, to the subnet of after", &told)?;
    case.delete(moved.address())?;
    from.has("a deletion, to the subnet of before the move", &[])?;
    to.has("a deletion", &[(Some(moved), None)])?;
    other.has("in another subnet", &[])
}

fn a_refused_change_is_not_told<L: TestedLease>(case: &Case<L>) -> Verdict {
    let leases = samples::<L>(0..2)?;
    case.add(&leases[0])?;
    let log = Log::register(case, "log", &KINDS, None)?;
    let other = with(&leases[0], |data| data.cltt += 1);
    let mgr = case.mgr();
    ask("add where there is a lease", mgr.add(&other).map(drop))?;
    log.has("an addition where there is a lease", &[])?;
    let _ = mgr.replace(&leases[1], None);
    log.has("an update of a lease that is not there", &[])?;
    let _ = mgr.replace(&other, Some(&other));
    log.has("an update of a lease that has changed", &[])?;
    ask("delete what is not there", mgr.remove(leases[1].address(), None))?;
    log.has("a deletion of a lease that is not there", &[])?;
    let _ = mgr.remove(other.address(), Some(&other));
    log.has("a deletion of a lease that has changed", &[])?;
    ask("remove reclaimed leases", mgr.remove_reclaimed(u64::MAX))?;
    ask("wipe subnet 9", mgr.wipe_subnet(SubnetId(9)))?;
    ask("recount", mgr.recount())?;
    ask("flush", mgr.flush())?;
    log.has("nothing at all", &[])
}

fn each_of_many_removed_leases_is_told<L: TestedLease>(case: &Case<L>) -> Verdict {
    let mut leases = samples::<L>(0..10)?;
    for lease in leases.iter_mut().step_by(2) {
        lease.set_state(LeaseState::EXPIRED_RECLAIMED)?;
    }
    case.add_all(&leases)?;
    let log = Log::register(case, "log", &KINDS, None)?;
    let deletions = |first| leases.iter().skip(first).step_by(2).map(|lease| (Some(lease.clone()), None));
    let check = |what: &str, first| {
        let mut told = log.take();
        told.sort_by_key(|(old, _)| old.as_ref().map(L::address));
        same(format_args!("changes that were told, {what}"), &told, &deletions(first).collect())
    };
    ask("remove reclaimed leases", case.mgr().remove_reclaimed(END))?;
    check("removal of reclaimed leases", 0)?;
    ask("wipe subnet 1", case.mgr().wipe_subnet(SubnetId(1)))?;
    check("wiping of their subnet", 1)
}

fn nothing_is_told_behind_the_end_of_the_registration<L: TestedLease>(case: &Case<L>) -> Verdict {
    let log = Log::register(case, "log", &KINDS, None)?;
    let in_subnet_1 = Log::register(case, "log", &KINDS, Some(1))?;
    let other = Log::register(case, "other", &KINDS, Some(1))?;
    let lease = sample::<L>(1, 1)?;
    let change = || {
        case.add(&lease)?;
        case.update(&with(&lease, |data| data.cltt += 1))?;
        case.delete(lease.address())
    };
    let told = |log: &Log<L>| log.take().len();
    change()?;
    same("how many changes were told", &[told(&log), told(&in_subnet_1), told(&other)], &[3, 3, 3])?;
    same("unregister for subnet 1", &case.mgr().tracking().unregister("log", Some(SubnetId(1))), &3)?;
    change()?;
    same("how many changes were told", &[told(&log), told(&in_subnet_1), told(&other)], &[3, 0, 3])?;
    same("unregister", &case.mgr().tracking().unregister("log", None), &3)?;
    change()?;
    same("how many changes were told", &[told(&log), told(&in_subnet_1), told(&other)], &[0, 0, 3])
}

fn changes_of_an_address_are_told_in_their_order<L: TestedLease>(case: &Case<L>) -> Verdict {
    let log = Log::register(case, "log", &KINDS, None)?;
    let leases = samples::<L>(0..3)?;
    in_threads(4, |thread| {
        for round in 0..60 {
            // Another first address in each thread.
            let lease = &leases[(thread + round) % leases.len()];
            let own = with(lease, |data| data.cltt += (1000 * thread + round) as i64);
            let change = match (thread + round / 3) % 4 {
                0 => case.mgr().add(&own).map(drop),
                1 => case.mgr().remove(own.address(), None).map(drop),
                _ => case.mgr().replace(&own, None),
            };
            match change {
                Err(LeaseMgrError::NoSuchLease { .. }) => {}
                other => ask("a change", other)?,
            }
        }
        Ok(())
    })?;
    let told = log.take();
    for lease in &leases {
        let address = lease.address();
        let of_address =
            |(old, new): &&Told<L>| old.iter().chain(new).any(|lease| lease.address() == address);
        let mut last = None;
        for (old, new) in told.iter().filter(of_address) {
            let action =
                format_args!("the lease of {address} before a change, as the one after the change before");
            same(action, old, &last)?;
            last.clone_from(new);
        }
        case.has(address, last.as_ref())?;
    }
    holds("changes that were told", !told.is_empty(), "some", told.len())
}

fn a_lock_is_the_same_for_all<L: TestedLease>(case: &Case<L>) -> Verdict {
    let leases = [sample::<L>(1, 1)?, in_state(&sample(2, 2)?, LeaseState::DECLINED)?];
    let (address, other) = (leases[0].address(), leases[1].address());
    let action = "lock a lease that is locked";
    let lock = case.mgr().tracking().try_lock(address);
    holds("lock a lease", lock.is_some(), "a lock", &lock)?;
    let again = in_threads(2, |_| Ok(case.mgr().tracking().try_lock(address).is_some()))?;
    same(action, &again, &vec![false, false])?;
    holds("lock another lease", case.mgr().tracking().try_lock(other).is_some(), "a lock", "none")?;
    // Who has the lock and who has not can change leases.
    case.add_all(&leases)?;
    drop(lock);
    holds("lock it again", case.mgr().tracking().try_lock(address).is_some(), "a lock", "none")?;
    case.holds(&leases, [])
}
