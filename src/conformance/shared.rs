//! Several managers of the same leases.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use super::TestedLease;
use super::case::{Action, Case, Opener, Verdict, ask, changed_meanwhile, in_threads, no_such_lease, same};
use super::round_trips::leases_are_reclaimed_once;
use super::sample::{END, at, in_state, in_subnet, sample, samples, with};
use super::threads::increment;
use crate::lease::{LeaseState, system_time};
use crate::{Added, Deleted, FreeRange, Query};

pub(super) fn a_manager_sees_the_changes_of_another<L: TestedLease>(opener: &Opener<'_, L>) -> Verdict {
    let (one, two) = (opener.open(), opener.open());
    let leases = samples::<L>(1..4)?;
    let finds = |case: &Case<L>, lease: &L| {
        case.has(lease.address(), Some(lease))?;
        case.finds(&Query::hostname(&lease.data().hostname).in_subnet(lease.data().subnet_id), [lease])
    };
    for lease in &leases {
        let moved = in_subnet(lease, 2);
        one.add(lease)?;
        finds(&two, lease)?;
        let action = Action("add to an address to which another manager has added a lease", lease);
        same(&action, &ask(&action, two.mgr().add(lease))?, &Added::AddressTaken)?;
        two.update(&moved)?;
        finds(&one, &moved)?;
        let result = one.mgr().update_expecting(lease, Some(lease));
        let action = "update, expecting the lease as read before a change by another manager";
        changed_meanwhile(action, &result, lease.address())?;
        ask(
            "update, expecting the lease that another manager has written",
            one.mgr().update_expecting(lease, Some(&moved)),
        )?;
        finds(&two, lease)?;
    }
    two.holds(&leases, [])?;
    let address = leases[0].address();
    two.delete(address)?;
    one.has(address, None)?;
    let action = "update a lease that another manager has deleted";
    no_such_lease(action, &one.mgr().update_expecting(&leases[0], None), address)?;
    let action = "delete a lease that another manager has deleted";
    same(action, &ask(action, one.mgr().delete_expecting(address, None))?, &Deleted::NoSuchLease)?;
    one.add(&leases[0])?;
    two.holds(&leases, [])?;
    let reclaimed = in_state(&leases[1], LeaseState::EXPIRED_RECLAIMED)?;
    one.update(&reclaimed)?;
    same(
        "reclaimed leases",
        &ask("delete reclaimed leases", two.mgr().delete_reclaimed(system_time(END)))?,
        &1,
    )?;
    drop(two);
    one.holds([&leases[0], &leases[2]], [&reclaimed])
}

pub(super) fn concurrent_adds_of_several_managers_have_one_winner<L: TestedLease>(
    opener: &Opener<'_, L>,
) -> Verdict {
    const ADDRESSES: u32 = 100;
    let managers = [opener.open(), opener.open(), opener.open()];
    let added = in_threads(managers.len(), |n| {
        let mut added = Vec::new();
        for address in 0..ADDRESSES {
            let lease = sample::<L>(address, 1000 + n as u32)?;
            if ask(Action("add", &lease), managers[n].mgr().add(&lease))? == Added::Added {
                added.push(lease);
            }
        }
        Ok(added)
    })?;
    let mut added: Vec<_> = added.into_iter().flatten().collect();
    added.sort_by_key(L::address);
    same("number of successful adds of 100 addresses", &added.len(), &(ADDRESSES as usize))?;
    managers.iter().try_for_each(|case| case.finds(&Query::all(), &added))?;
    let deleted = in_threads(managers.len(), |n| {
        let delete = |lease: &L| {
            let action = Action("delete", lease);
            Ok(ask(&action, managers[n].mgr().delete_expecting(lease.address(), Some(lease)))?
                == Deleted::Deleted)
        };
        let deleted = added.iter().map(delete).collect::<Verdict<Vec<_>>>()?;
        Ok(deleted.into_iter().filter(|deleted| *deleted).count())
    })?;
    same("number of successful deletes of 100 leases", &deleted.iter().sum(), &added.len())?;
    managers.iter().try_for_each(|case| case.finds(&Query::all(), []))
}

pub(super) fn no_update_of_several_managers_is_lost<L: TestedLease>(opener: &Opener<'_, L>) -> Verdict {
    const ROUNDS: i64 = 60;
    let managers = [opener.open(), opener.open()];
    let leases = samples::<L>(0..2)?;
    managers[0].add_all(&leases)?;
    in_threads(2 * managers.len(), |n| {
        let case: &Case<L> = &managers[n % managers.len()];
        (0..ROUNDS).try_for_each(|round| increment(case, leases[round as usize % 2].address()))
    })?;
    let count = |lease: &L| with(lease, |data| data.cltt += ROUNDS * managers.len() as i64);
    let expected: Vec<_> = leases.iter().map(count).collect();
    managers.iter().try_for_each(|case| case.finds(&Query::all(), &expected))
}

pub(super) fn an_expired_lease_is_reclaimed_by_one_of_several_managers<L: TestedLease>(
    opener: &Opener<'_, L>,
) -> Verdict {
    let managers = [opener.open(), opener.open()];
    leases_are_reclaimed_once([&managers[0], &managers[1]])
}

pub(super) fn a_free_address_is_claimed_by_one_of_several_managers<L: TestedLease>(
    opener: &Opener<'_, L>,
) -> Verdict {
    const ADDRESSES: u32 = 60;
    const PATIENCE: Duration = Duration::from_millis(300);
    let managers = [opener.open(), opener.open()];
    let range = FreeRange::<L>::new(L::address_number(0)..=L::address_number(ADDRESSES - 1));
    let like = sample::<L>(0, 0)?;
    let begun = AtomicUsize::new(0);
    let claimed = in_threads(managers.len(), |n| {
        let (mut claimed, mut is_first) = (Vec::new(), true);
        let mut make = |address| {
            if std::mem::take(&mut is_first) {
                begun.fetch_add(1, Ordering::Relaxed);
                // All are about to claim the same address, unless one of them waits for the end of another's claim.
                let start = Instant::now();
                while begun.load(Ordering::Relaxed) < managers.len() && start.elapsed() < PATIENCE {
                    thread::yield_now();
                }
            }
            at(address, n as u32).unwrap_or_else(|_| like.clone())
        };
        while let Some(lease) =
            ask("claim", managers[n].mgr().claim_first(&range, system_time(0), &mut make))?
        {
            claimed.push(lease.lease);
        }
        Ok(claimed)
    })?;
    let mut claimed: Vec<_> = claimed.into_iter().flatten().collect();
    claimed.sort_by_key(L::address);
    same("number of claimed addresses", &claimed.len(), &(ADDRESSES as usize))?;
    managers.iter().try_for_each(|case| case.finds(&Query::all(), &claimed))
}
