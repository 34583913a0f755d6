//! Methods with defaults that a backend may override to save round trips.

use std::collections::BTreeMap;

use super::TestedLease;
use super::case::{Case, Verdict, ask, bad_argument, in_threads, same, same_leases};
use super::find::varied_leases;
use super::model::{answer, for_each_key};
use super::sample::{END, ending, in_state, in_subnet, sample, samples, shuffled, with, with_context};
use crate::lease::{LeaseState, SubnetId, UserContext, system_time};
use crate::{AddedWithin, Cursor, Deleted, LeaseMgrExt, Query};

pub(super) fn kept_returns_the_lease_as_it_is_read_back<L: TestedLease>(case: &Case<L>) -> Verdict {
    for mut lease in varied_leases::<L>()? {
        lease.data_mut().hostname = "Some.Host.Example.ORG".into();
        let kept = ask("kept", case.mgr().kept(&lease))?;
        same("kept of a kept lease", &ask("kept", case.mgr().kept(&kept))?, &kept)?;
        case.add(&lease)?;
        case.has(lease.address(), Some(&kept))?;
        // It is the expected lease then.
        let renewed = with(&kept, |data| data.cltt += 1);
        ask("update", case.mgr().update_if_unchanged(&kept, &renewed))?;
        let deleted = ask("delete", case.mgr().delete_if_unchanged(&renewed))?;
        same("delete", &deleted, &Deleted::Deleted)?;
    }
    Ok(())
}

pub(super) fn a_lease_that_cannot_be_kept_is_refused<L: TestedLease>(case: &Case<L>) -> Verdict {
    let lease = with(&sample::<L>(1, 1)?, |data| data.valid_lifetime.0 = 0);
    let result = case.mgr().kept(&lease);
    same("kept of a lease that is valid for 0 seconds fails", &result.is_err(), &true)
}

pub(super) fn get_many_returns_leases_in_the_order_of_the_addresses<L: TestedLease>(
    case: &Case<L>,
) -> Verdict {
    let leases = samples::<L>(0..20)?;
    case.add_all(leases.iter().step_by(2))?;
    for numbers in [&[][..], &[3], &[4, 2, 4, 3, 19, 18], &[1000, 0]] {
        let addresses: Vec<_> = numbers.iter().map(|&n| L::address_number(n)).collect();
        let found = ask("get_many", case.mgr().get_many(&addresses))?;
        let expected = numbers.iter().map(|&n| leases.get(n as usize).filter(|_| n % 2 == 0).cloned());
        same("get_many", &found, &expected.collect())?;
    }
    Ok(())
}

pub(super) fn count_returns_the_number_of_leases<L: TestedLease>(case: &Case<L>) -> Verdict {
    let leases = varied_leases()?;
    case.add_all(&shuffled(&leases))?;
    for_each_key(case, &leases, |query| {
        for query in [query, query.in_subnet(SubnetId(1)), query.limit(3), query.reverse().limit(3)] {
            let count = ask("count", case.mgr().count(&query))?;
            same(super::case::QueryText(&query), &count, &(answer(&query, &leases).len() as u64))?;
        }
        Ok(())
    })?;
    bad_argument("count", &case.mgr().count(&Query::all().limit(0)), "0")
}

pub(super) fn a_scan_returns_every_lease_once<L: TestedLease>(case: &Case<L>) -> Verdict {
    let leases = samples::<L>(0..100)?;
    case.add_all(&shuffled(&leases))?;
    for limit in [1, 7, 50, 100, 1000] {
        let (mut found, mut cursor) = (Vec::new(), None);
        loop {
            let (leases, next) = ask("scan", case.mgr().scan(cursor.as_ref(), limit))?;
            same("a scan gives no more than its limit", &(leases.len() <= limit), &true)?;
            found.extend(leases);
            match next {
                // A cursor can be stored as bytes.
                Some(next) if found.len() <= 100 => cursor = Some(Cursor::new(next.as_bytes())),
                _ => break,
            }
        }
        found.sort_by_key(L::address);
        same_leases("scan", &found, &leases)?;
    }
    bad_argument("a scan of 0 leases", &case.mgr().scan(None, 0), "0")
}

pub(super) fn an_invalid_cursor_is_refused<L: TestedLease>(case: &Case<L>) -> Verdict {
    let result = case.mgr().scan(Some(&Cursor::new(b"\xff no cursor")), 10);
    same("a scan with an invalid cursor fails", &result.is_err(), &true)
}

pub(super) fn reclaim_expired_returns_reclaimed_leases<L: TestedLease>(case: &Case<L>) -> Verdict {
    let used = ending(&sample::<L>(1, 1)?, END);
    let mut declined = ending(&sample::<L>(2, 2)?, END + 1);
    declined.set_state(LeaseState::DECLINED)?;
    let later = ending(&sample::<L>(3, 3)?, END + 2);
    let released = ending(&in_state(&sample::<L>(4, 4)?, LeaseState::RELEASED)?, END + 1);
    case.add_all([&used, &declined, &later, &released])?;
    same_leases(
        "reclaim nothing",
        &ask("reclaim", case.mgr().reclaim_expired(system_time(END - 1), 0))?,
        [],
    )?;
    let [mut reclaimed, mut reclaimed_from_released] = [used, released];
    reclaimed.reclaim();
    reclaimed_from_released.reclaim();
    let was = reclaimed_from_released.reclaimed_from();
    same("the former state of a released lease", &was, &Some(LeaseState::RELEASED))?;
    let found = ask("reclaim", case.mgr().reclaim_expired(system_time(END + 1), 0))?;
    same_leases("reclaim", &found, [&reclaimed, &declined, &reclaimed_from_released])?;
    case.holds([&reclaimed, &later, &reclaimed_from_released], [&declined])?;
    same_leases("reclaim again", &ask("reclaim", case.mgr().reclaim_expired(system_time(END + 1), 0))?, [])
}

pub(super) fn the_longest_expired_are_reclaimed_first<L: TestedLease>(case: &Case<L>) -> Verdict {
    let leases: Vec<L> = samples(0..10)?;
    let leases: Vec<L> = leases.iter().zip(0..).map(|(lease, n)| ending(lease, END + (10 - n))).collect();
    case.add_all(&leases)?;
    for (limit, numbers) in [(3, [9, 8, 7].as_slice()), (1, &[6]), (0, &[5, 4, 3, 2, 1, 0])] {
        let found = ask("reclaim", case.mgr().reclaim_expired(system_time(END + 100), limit))?;
        let expected = numbers.iter().map(|&n| in_state(&leases[n], LeaseState::EXPIRED_RECLAIMED));
        same_leases("reclaim", &found, &expected.collect::<Verdict<Vec<_>>>()?)?;
    }
    Ok(())
}

pub(super) fn concurrent_reclaims_have_one_winner<L: TestedLease>(case: &Case<L>) -> Verdict {
    leases_are_reclaimed_once([case; 4])
}

/// Reclaims expired leases with a thread for each of these managers of the same leases, which may
/// be the same manager.
pub(super) fn leases_are_reclaimed_once<L: TestedLease, const N: usize>(cases: [&Case<L>; N]) -> Verdict {
    const LEASES: u32 = 200;
    for n in 0..LEASES {
        cases[0].add(&ending(&sample(n, n)?, END))?;
    }
    let reclaimed = in_threads(N, |n| {
        let (mgr, mut reclaimed) = (cases[n].mgr(), Vec::new());
        loop {
            let found = ask("reclaim", mgr.reclaim_expired(system_time(END), 7))?;
            let left = ask("expired", mgr.list_expired(system_time(END), 1))?;
            reclaimed.extend(found.iter().map(L::address));
            if left.is_empty() {
                return Ok(reclaimed);
            }
        }
    })?;
    let mut counts = BTreeMap::new();
    reclaimed.into_iter().flatten().for_each(|address| *counts.entry(address).or_insert(0) += 1);
    same("the number of leases reclaimed", &counts.len(), &(LEASES as usize))?;
    same("leases are reclaimed once", &counts.values().all(|&count| count == 1), &true)
}

fn limits(subnet: u32, limit: u32) -> Verdict<UserContext> {
    let kind = "address-limit";
    let text = format!(
        "{{ \"ISC\": {{ \"limits\": {{ \"subnet\": {{ \"id\": {subnet}, \"{kind}\": {limit} }} }} }} }}"
    );
    Ok(UserContext::parse(text.as_bytes())?)
}

pub(super) fn a_lease_is_added_within_limits<L: TestedLease>(case: &Case<L>) -> Verdict {
    let leases: Vec<L> = samples(0..3)?;
    let context = limits(1, 2)?;
    let add = |lease: &L| ask("add_within", case.mgr().add_within(lease, &context));
    same("add_within", &add(&leases[0])?, &AddedWithin::Added)?;
    same("add_within", &add(&leases[0])?, &AddedWithin::AddressTaken)?;
    same("add_within", &add(&leases[1])?, &AddedWithin::Added)?;
    let AddedWithin::LimitReached(exceeded) = add(&leases[2])? else {
        return same("the limit is reached", &false, &true);
    };
    same("limit and count", &(exceeded.limit, exceeded.count), &(2, 2))?;
    case.holds(&leases[..2], [&leases[2]])?;
    // Another subnet has a limit of its own.
    let elsewhere = in_subnet(&leases[2], 2);
    same(
        "add_within",
        &ask("add_within", case.mgr().add_within(&elsewhere, &limits(2, 1)?))?,
        &AddedWithin::Added,
    )?;
    // The limit of a class counts the leases that name it.
    let gold = with_context(&sample::<L>(5, 5)?, &["gold"], &[])?;
    let text = "{ \"ISC\": { \"limits\": { \"client-classes\": [ { \"name\": \"gold\", \"address-limit\": 1 } ] } } }";
    let context = UserContext::parse(text.as_bytes())?;
    same("add_within", &ask("add_within", case.mgr().add_within(&gold, &context))?, &AddedWithin::Added)?;
    let silver = sample::<L>(6, 6)?;
    let refused = ask("add_within", case.mgr().add_within(&silver, &context))?;
    same("the limit of a class", &matches!(refused, AddedWithin::LimitReached(_)), &true)
}

pub(super) fn concurrent_adds_within_a_limit_do_not_exceed_it<L: TestedLease>(case: &Case<L>) -> Verdict {
    const LIMIT: u32 = 50;
    let context = limits(1, LIMIT)?;
    let added = in_threads(4, |thread| {
        let mut added = 0;
        for n in 0..LIMIT {
            let lease = sample::<L>(thread as u32 * LIMIT + n, n)?;
            let done = ask("add_within", case.mgr().add_within(&lease, &context))?;
            added += u32::from(done == AddedWithin::Added);
        }
        Ok(added)
    })?;
    same("the number of leases added", &added.iter().sum(), &LIMIT)
}

pub(super) fn update_with_loses_no_other_update<L: TestedLease>(case: &Case<L>) -> Verdict {
    const EACH: i64 = 50;
    let lease = sample::<L>(1, 1)?;
    same("without a lease", &ask("update_with", case.mgr().update_with(lease.address(), |_| None))?, &None)?;
    case.add(&lease)?;
    in_threads(4, |_| {
        (0..EACH).try_for_each(|_| {
            let renew = |lease: &L| Some(with(lease, |data| data.cltt += 1));
            ask("update_with", case.mgr().update_with(lease.address(), renew)).map(drop)
        })
    })?;
    let renewed = with(&lease, |data| data.cltt += 4 * EACH);
    case.has(lease.address(), Some(&renewed))?;
    same(
        "without a new lease",
        &ask("update_with", case.mgr().update_with(lease.address(), |_| None))?,
        &None,
    )?;
    case.has(lease.address(), Some(&renewed))
}

pub(super) fn delete_if_deletes_only_a_matching_lease<L: TestedLease>(case: &Case<L>) -> Verdict {
    let lease = sample::<L>(1, 1)?;
    case.add(&lease)?;
    let delete = |is_meant: bool| ask("delete_if", case.mgr().delete_if(lease.address(), |_| is_meant));
    same("delete_if of another lease", &delete(false)?, &None)?;
    case.has(lease.address(), Some(&lease))?;
    same("delete_if of this lease", &delete(true)?, &Some(lease.clone()))?;
    case.has(lease.address(), None)?;
    same("delete_if without a lease", &delete(true)?, &None)
}
