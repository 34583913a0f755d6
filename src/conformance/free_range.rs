//! The lowest free address of a range.

use std::collections::BTreeSet;

use super::TestedLease;
use super::case::{Case, Verdict, ask, bad_argument, holds, in_callback, in_threads, same};
use super::sample::{END, at, ending, in_state, sample, shuffled, with};
use crate::lease::{LeaseState, system_time};
use crate::{Change, ChangeKind, FreeRange, LeaseMgrExt};

fn range<L: TestedLease>(first: u32, last: u32) -> FreeRange<L> {
    FreeRange::new(L::address_number(first)..=L::address_number(last))
}

/// Checks that the lowest free address of a range is the one with this number.
fn is_free<L: TestedLease>(case: &Case<L>, range: &FreeRange<L>, now: i64, n: Option<u32>) -> Verdict {
    let found = ask("first_free", case.mgr().first_free(range, system_time(now)))?;
    same(format_args!("first_free at {now}"), &found, &n.map(L::address_number))
}

pub(super) fn the_lowest_address_without_a_lease_is_free<L: TestedLease>(case: &Case<L>) -> Verdict {
    is_free(case, &range(0, 9), 0, Some(0))?;
    for n in [0, 1, 2, 4, 5] {
        case.add(&sample(n, n)?)?;
    }
    is_free(case, &range(0, 9), 0, Some(3))?;
    is_free(case, &range(1, 9), 0, Some(3))?;
    is_free(case, &range(4, 9), 0, Some(6))?;
    is_free(case, &range(3, 3), 0, Some(3))?;
    is_free(case, &range(4, 5), 0, None)?;
    is_free(case, &range(6, 9), 0, Some(6))
}

pub(super) fn an_address_whose_lease_has_ended_is_free<L: TestedLease>(case: &Case<L>) -> Verdict {
    for n in 0..5 {
        case.add(&ending(&sample(n, n)?, END + i64::from(5 - n) * 10))?;
    }
    let infinite = with(&sample::<L>(5, 1)?, |data| data.valid_lifetime.0 = u32::MAX);
    case.add(&infinite)?;
    for (now, n) in
        [(0, 6), (END + 9, 6), (END + 10, 4), (END + 19, 4), (END + 20, 3), (END + 49, 1), (END + 50, 0)]
    {
        is_free(case, &range(0, 9), now, Some(n))?;
    }
    is_free(case, &range(5, 5), i64::MAX, None)?;
    // In any state.
    let declined = in_state(&ending(&sample::<L>(8, 1)?, END), LeaseState::DECLINED)?;
    case.add(&declined)?;
    is_free(case, &range(8, 8), END - 1, None)?;
    is_free(case, &range(8, 8), END, Some(8))
}

pub(super) fn the_address_of_a_reclaimed_lease_is_free<L: TestedLease>(case: &Case<L>) -> Verdict {
    for n in 0..3 {
        case.add(&sample(n, n)?)?;
    }
    case.update(&in_state(&sample::<L>(1, 1)?, LeaseState::EXPIRED_RECLAIMED)?)?;
    is_free(case, &range(0, 9), 0, Some(1))?;
    case.update(&sample(1, 1)?)?;
    is_free(case, &range(0, 9), 0, Some(3))
}

pub(super) fn an_excluded_address_is_not_free<L: TestedLease>(case: &Case<L>) -> Verdict {
    let excluded = |first, last| L::address_number(first)..=L::address_number(last);
    let range = range::<L>(0, 9).without(excluded(4, 6)).without(excluded(0, 1)).without(excluded(5, 7));
    is_free(case, &range, 0, Some(2))?;
    case.add(&sample(2, 1)?)?;
    is_free(case, &range, 0, Some(3))?;
    case.add(&sample(3, 1)?)?;
    is_free(case, &range, 0, Some(8))?;
    case.add(&sample(5, 1)?)?;
    case.add(&sample(8, 1)?)?;
    is_free(case, &range, 0, Some(9))?;
    is_free(case, &range.clone().without(excluded(9, 30)), 0, None)
}

pub(super) fn a_full_range_has_no_free_address<L: TestedLease>(case: &Case<L>) -> Verdict {
    case.add_all(&shuffled(&(0..10).map(|n| sample(n, n)).collect::<Verdict<Vec<L>>>()?))?;
    is_free(case, &range(0, 9), 0, None)?;
    // A range that ends before it begins has none.
    is_free(case, &range(20, 19), 0, None)?;
    let claimed = ask(
        "claim_first",
        case.mgr().claim_first(&range(0, 9), system_time(0), &mut |_| unreachable_lease::<L>()),
    )?;
    same("claim_first", &claimed, &None)
}

#[expect(clippy::panic, reason = "a panic is a violation of the rule that is checked")]
fn unreachable_lease<L>() -> L {
    panic!("a lease was made for an address that is not free")
}

pub(super) fn leases_outside_the_range_are_ignored<L: TestedLease>(case: &Case<L>) -> Verdict {
    let addresses = L::scattered();
    let leases = addresses.iter().map(|&address| at::<L>(address, 1)).collect::<Verdict<Vec<_>>>()?;
    case.add_all(&leases)?;
    for (n, pair) in addresses.windows(2).enumerate() {
        let range = FreeRange::<L>::new(pair[0]..=pair[1]);
        let expected = range.after(pair[0]).filter(|&address| address < pair[1]);
        let found = ask("first_free", case.mgr().first_free(&range, system_time(0)))?;
        same(format_args!("first_free between addresses {n} and {}", n + 1), &found, &expected)?;
    }
    Ok(())
}

pub(super) fn free_addresses_follow_every_change<L: TestedLease>(case: &Case<L>) -> Verdict {
    let all = range::<L>(0, 9);
    for n in 0..10 {
        case.add(&ending(&sample(n, n)?, END))?;
    }
    case.delete(L::address_number(7))?;
    is_free(case, &all, 0, Some(7))?;
    case.add(&ending(&sample(7, 1)?, END + 100))?;
    is_free(case, &all, 0, None)?;
    // A lease that ends earlier than before.
    case.update(&ending(&sample(6, 6)?, END - 100))?;
    is_free(case, &all, END - 101, None)?;
    is_free(case, &all, END - 100, Some(6))?;
    // And later again.
    case.update(&ending(&sample(6, 6)?, END + 100))?;
    is_free(case, &all, END - 1, None)?;
    is_free(case, &all, END, Some(0))?;
    for n in 0..6 {
        case.update(&ending(&sample(n, n)?, END + 200))?;
    }
    is_free(case, &all, END, Some(8))?;
    for n in [8, 9] {
        case.delete(L::address_number(n))?;
    }
    is_free(case, &all, 0, Some(8))?;
    is_free(case, &all, END + 150, Some(6))
}

pub(super) fn a_claim_takes_the_lowest_free_address<L: TestedLease>(case: &Case<L>) -> Verdict {
    case.add(&sample(1, 1)?)?;
    for n in [0, 2, 3] {
        let made = sample::<L>(n, 9)?;
        let claimed =
            ask("claim_first", case.mgr().claim_first(&range(0, 3), system_time(0), &mut |_| made.clone()))?;
        let claimed = claimed.as_ref().map(|claimed| (&claimed.lease, &claimed.replaced));
        same("claim_first", &claimed, &Some((&made, &None)))?;
        case.has(L::address_number(n), Some(&made))?;
    }
    let claimed = ask(
        "claim_first",
        case.mgr().claim_first(&range(0, 3), system_time(0), &mut |_| unreachable_lease::<L>()),
    )?;
    same("claim_first", &claimed, &None)
}

pub(super) fn a_claim_replaces_a_lease_that_has_ended<L: TestedLease>(case: &Case<L>) -> Verdict {
    let old = ending(&sample::<L>(0, 1)?, END);
    let reclaimed = in_state(&sample::<L>(1, 2)?, LeaseState::EXPIRED_RECLAIMED)?;
    case.add_all([&old, &reclaimed])?;
    for (now, n, replaced) in [(END, 0, &old), (END, 1, &reclaimed)] {
        let made = ending(&sample::<L>(n, 9)?, END + 1000);
        let claimed = ask(
            "claim_first",
            case.mgr().claim_first(&range(0, 1), system_time(now), &mut |_| made.clone()),
        )?;
        let claimed = claimed.as_ref().map(|claimed| (&claimed.lease, claimed.replaced.as_ref()));
        same("claim_first", &claimed, &Some((&made, Some(replaced))))?;
        case.has(L::address_number(n), Some(&made))?;
    }
    Ok(())
}

pub(super) fn a_claim_for_another_address_is_refused<L: TestedLease>(case: &Case<L>) -> Verdict {
    let other = sample::<L>(7, 1)?;
    let result = case.mgr().claim_first(&range(0, 3), system_time(0), &mut |_| other.clone());
    bad_argument("a claim for another address", &result, &other.address().to_string())?;
    case.holds([], [])
}

pub(super) fn concurrent_claims_take_different_addresses<L: TestedLease>(case: &Case<L>) -> Verdict {
    const THREADS: u32 = 4;
    const EACH: u32 = 50;
    // Some addresses have leases that have ended.
    for n in (0..THREADS * EACH).step_by(3) {
        case.add(&ending(&sample(n, n)?, END))?;
    }
    let all = range::<L>(0, THREADS * EACH - 1);
    let taken = in_threads(THREADS as usize, |thread| {
        let mut taken = Vec::new();
        for _ in 0..EACH {
            let mut fault = None;
            let claimed = ask(
                "claim_first",
                case.mgr().claim_first(&all, system_time(END), &mut |address| {
                    at::<L>(address, 1000 + thread as u32)
                        .map(|lease| ending(&lease, END + 1000))
                        .unwrap_or_else(|error| {
                            fault = Some(error);
                            unreachable_lease()
                        })
                }),
            )?;
            taken.extend(claimed.map(|claimed| claimed.lease.address()));
        }
        Ok(taken)
    })?;
    let taken: Vec<_> = taken.into_iter().flatten().collect();
    let different: BTreeSet<_> = taken.iter().copied().collect();
    same("the number of addresses claimed", &taken.len(), &((THREADS * EACH) as usize))?;
    same("the number of different addresses claimed", &different.len(), &taken.len())?;
    is_free(case, &all, END, None)
}

pub(super) fn a_claim_in_a_callback_is_refused<L: TestedLease>(case: &Case<L>) -> Verdict {
    let (weak, lease) = (case.weak(), sample::<L>(1, 1)?);
    let (reported, results) = std::sync::mpsc::channel();
    let made = sample::<L>(0, 1)?;
    let callback = move |_: &Change<'_, L>| {
        if let Some(mgr) = weak.upgrade() {
            let result = mgr.claim_first(&range(0, 0), system_time(0), &mut |_| made.clone()).map(drop);
            // The receiver is dropped if the rule has already ended.
            let _ = reported.send(result);
        }
    };
    let registered = case.mgr().tracking().register("suite", ChangeKind::Add, None, callback);
    holds("register", registered.is_ok(), "no error", format_args!("{registered:?}"))?;
    case.add(&lease)?;
    case.mgr().tracking().unregister_all(None);
    let results: Vec<_> = results.try_iter().collect();
    same("the number of callbacks", &results.len(), &1)?;
    results.iter().try_for_each(|result| in_callback("a claim in a callback", result))?;
    case.holds([&lease], [])
}

pub(super) fn a_long_run_of_leases_is_skipped<L: TestedLease>(case: &Case<L>) -> Verdict {
    const LEASES: u32 = 2500;
    for n in 0..LEASES {
        case.add(&ending(&sample(n, n % 50)?, END + i64::from(n)))?;
    }
    let all = range(0, 2 * LEASES);
    is_free(case, &all, 0, Some(LEASES))?;
    for n in [2000, 1000, 100, 3] {
        case.delete(L::address_number(n))?;
        is_free(case, &all, 0, Some(n))?;
    }
    is_free(case, &range(101, LEASES), 0, Some(1000))?;
    is_free(case, &range(1001, LEASES - 1), END + 1500, Some(1001))?;
    is_free(case, &range(2001, LEASES - 1), 0, None)?;
    let _ = ask("delete", case.mgr().delete(L::address_number(0)))?;
    is_free(case, &all, 0, Some(0))
}
