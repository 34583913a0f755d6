//! Totals of leases that were assigned and reclaimed.

use super::TestedLease;
use super::case::{Case, Fault, Verdict, ask, same};
use super::sample::{END, Sample, ending, in_state, in_subnet, sample, with};
use crate::lease::{LeaseState, LeaseType, PoolId, SubnetId};
use crate::{ChangeKind, LeaseMgrExt, StatisticsQuery, Subnets};

const ALL: StatisticsQuery = StatisticsQuery { subnets: Subnets::All, by_pool: false };

/// Numbers of assigned leases, of reclaimed leases, and of declined ones among these.
type Figures = [u64; 3];

/// Checks the sums of the totals of all subnets.
fn totals<L: TestedLease>(case: &Case<L>, expected: Figures) -> Verdict {
    let rows = ask("totals", case.mgr().totals(&ALL))?;
    let sum = rows.iter().fold([0; 3], |[a, r, d], row| {
        [a + row.cumulative_assigned, r + row.reclaimed, d + row.reclaimed_declined]
    });
    same("totals of assigned, reclaimed, and declined and reclaimed leases", &sum, &expected)
}

/// Runs `work` without and with a registered callback, as a backend may use different code for
/// each.
fn watched_or_not<L: TestedLease>(case: &Case<L>, work: impl Fn(&Case<L>) -> Verdict) -> Verdict {
    work(case)?;
    case.clear()?;
    case.mgr().tracking().totals().reset();
    for kind in [ChangeKind::Add, ChangeKind::Update, ChangeKind::Delete] {
        let registered = case.mgr().tracking().register("totals", kind, None, |_| {});
        registered.map_err(|error| Fault::new("register a callback", "no error", error))?;
    }
    work(case)?;
    case.mgr().tracking().unregister("totals", None);
    Ok(())
}

/// Returns the lease with its client heard this many seconds after [`END`].
fn heard<L: Sample>(lease: &L, seconds: i64) -> L {
    with(lease, |data| data.cltt = END + seconds)
}

fn reclaims<L: TestedLease>(case: &Case<L>, lease: &L, expected: bool) -> Verdict {
    same("reclaim", &ask("reclaim", case.mgr().reclaim(lease))?, &expected)
}

pub(super) fn an_addition_is_an_assignment_but_a_renewal_is_not<L: TestedLease>(case: &Case<L>) -> Verdict {
    watched_or_not(case, |case| {
        let lease = sample::<L>(1, 1)?;
        totals(case, [0, 0, 0])?;
        case.add(&lease)?;
        case.add(&in_state(&sample::<L>(2, 2)?, LeaseState::DECLINED)?)?;
        totals(case, [1, 0, 0])?;
        // Up to its last second.
        for end in [END, END + 1, END + 1000] {
            case.update(&ending(&lease, end))?;
        }
        case.delete(lease.address())?;
        totals(case, [1, 0, 0])?;
        case.add(&lease)?;
        totals(case, [2, 0, 0])
    })
}

pub(super) fn a_lease_that_is_assigned_again_is_counted_again<L: TestedLease>(case: &Case<L>) -> Verdict {
    watched_or_not(case, |case| {
        let lease = ending(&sample::<L>(1, 1)?, END);
        case.add(&lease)?;
        // A lease that has ended is also reclaimed.
        case.update(&heard(&lease, 0))?;
        totals(case, [2, 1, 0])?;
        for (state, expected) in [
            (LeaseState::EXPIRED_RECLAIMED, [3, 1, 0]),
            (LeaseState::RELEASED, [4, 1, 0]),
            (LeaseState::DECLINED, [5, 2, 1]),
        ] {
            case.update(&in_state(&lease, state)?)?;
            case.update(&heard(&lease, 10))?;
            totals(case, expected)?;
        }
        Ok(())
    })
}

pub(super) fn reclaimed_leases_are_counted<L: TestedLease>(case: &Case<L>) -> Verdict {
    watched_or_not(case, |case| {
        let lease = ending(&sample::<L>(1, 1)?, END);
        let declined = in_state(&ending(&sample::<L>(2, 2)?, END), LeaseState::DECLINED)?;
        case.add_all([&lease, &declined])?;
        reclaims(case, &lease, true)?;
        totals(case, [1, 1, 0])?;
        reclaims(case, &declined, true)?;
        totals(case, [1, 2, 1])?;
        // Both were modified.
        reclaims(case, &lease, false)?;
        reclaims(case, &declined, false)?;
        totals(case, [1, 2, 1])
    })
}

pub(super) fn a_refused_change_is_not_an_assignment<L: TestedLease>(case: &Case<L>) -> Verdict {
    watched_or_not(case, |case| {
        let lease = in_state(&sample::<L>(1, 1)?, LeaseState::EXPIRED_RECLAIMED)?;
        case.add(&lease)?;
        let other = sample::<L>(1, 2)?;
        // Other rules check the results.
        let _ = case.mgr().add(&other);
        let _ = case.mgr().update_if_unchanged(&other, &other);
        let _ = case.mgr().update(&sample::<L>(9, 9)?);
        totals(case, [0, 0, 0])
    })
}

pub(super) fn totals_are_counted_in_their_subnet_and_pool<L: TestedLease>(case: &Case<L>) -> Verdict {
    let kind: Option<LeaseType> = L::KINDS[0];
    let in_pool = |lease: &L, pool| with(lease, |data| data.pool_id = PoolId(pool));
    for (subnet, pool, n) in [(7, 0, 0), (3, 2, 1), (3, 1, 2), (3, 2, 3)] {
        case.add(&in_pool(&in_subnet(&sample::<L>(n, n)?, subnet), pool))?;
    }
    let expected = [(3, 1, 1, None), (3, 2, 2, Some(u128::MAX)), (7, 0, 1, None)];
    case.mgr().tracking().totals().set_size(SubnetId(3), PoolId(2), kind, Some(u128::MAX));
    let rows = ask("totals", case.mgr().totals(&StatisticsQuery { by_pool: true, ..ALL }))?;
    let found: Vec<_> = rows
        .iter()
        .map(|row| {
            (
                row.subnet_id.0,
                row.pool_id.unwrap_or_default().0,
                row.cumulative_assigned,
                row.size,
                row.assigned,
            )
        })
        .collect();
    let expected = expected.map(|(subnet, pool, count, size)| (subnet, pool, count, size, count));
    same(
        "totals of pools: subnet, pool, cumulative assigned, size, assigned now",
        &found[..],
        &expected[..],
    )?;
    let one = StatisticsQuery { subnets: Subnets::One(SubnetId(3)), by_pool: false };
    let rows = ask("totals", case.mgr().totals(&one))?;
    let found: Vec<_> = rows.iter().map(|row| (row.subnet_id.0, row.cumulative_assigned, row.size)).collect();
    same("totals of a subnet: subnet, cumulative assigned, size", &found[..], &[(3, 3, Some(u128::MAX))][..])
}
