//! Numbers of leases.

use super::TestedLease;
use super::case::{Case, Verdict, ask, bad_argument, no_such_lease, same};
use super::find::varied_leases;
use super::model::{has_statistics, statistics};
use super::sample::{END, Sample, in_state, in_subnet, sample, samples, shuffled, with};
use crate::lease::{Lease6, LeaseState, LeaseType, PoolId, SubnetId, system_time};
use crate::{LeaseMgrExt, StatisticsQuery, StatisticsRow, Subnets};

const ALL: StatisticsQuery = StatisticsQuery { subnets: Subnets::All, by_pool: false };
const BY_POOL: StatisticsQuery = StatisticsQuery { subnets: Subnets::All, by_pool: true };

fn row<L: TestedLease>(subnet: u32, pool: Option<u32>, state: u32, count: u64) -> StatisticsRow {
    StatisticsRow {
        subnet_id: SubnetId(subnet),
        pool_id: pool.map(PoolId),
        lease_type: L::KINDS[0],
        state: LeaseState(state),
        count,
    }
}

/// Checks that the statistics have these rows.
fn has_rows<L: TestedLease>(case: &Case<L>, query: &StatisticsQuery, rows: &[StatisticsRow]) -> Verdict {
    let found = ask(format_args!("{query:?}"), case.mgr().statistics(query))?;
    same(format_args!("{query:?}"), &found[..], rows)
}

/// Checks that the statistics, with and without pools, are those of these leases.
fn counts<L: TestedLease>(case: &Case<L>, leases: &[L]) -> Verdict {
    [ALL, BY_POOL].iter().try_for_each(|query| has_statistics(case, query, leases))
}

pub(super) fn only_counted_states_have_rows<L: TestedLease>(case: &Case<L>) -> Verdict {
    has_rows(case, &ALL, &[])?;
    has_rows(case, &BY_POOL, &[])?;
    let mut n = 0;
    for state in [0, 1, 2, 3, 4, 5, 77, 256, 257, u32::MAX] {
        for _ in 0..=state.min(4) {
            case.add(&in_state(&sample(n, n)?, LeaseState(state))?)?;
            n += 1;
        }
    }
    let mut rows = vec![row::<L>(1, None, 0, 1), row::<L>(1, None, 1, 2)];
    if L::FAMILY == crate::lease::Family::V6 {
        rows.push(row::<L>(1, None, 4, 5));
    }
    has_rows(case, &ALL, &rows)?;
    for row in &mut rows {
        row.pool_id = Some(PoolId(0));
    }
    has_rows(case, &BY_POOL, &rows)
}

pub(super) fn statistics_are_of_the_requested_subnets<L: TestedLease>(case: &Case<L>) -> Verdict {
    let mut leases = Vec::new();
    for (subnet, n) in [0, 1, 1, 2, 3, 3, 3, 10, 256, u32::MAX].into_iter().zip(0..) {
        leases.push(in_subnet(&sample::<L>(n, n)?, subnet));
    }
    case.add_all(&shuffled(&leases))?;
    let range = |first, last| Subnets::Range(SubnetId(first), SubnetId(last));
    let one = |subnet| Subnets::One(SubnetId(subnet));
    for subnets in [
        Subnets::All,
        one(1),
        one(3),
        one(4),
        one(u32::MAX),
        range(1, 3),
        range(2, 2),
        range(1, u32::MAX),
        range(4, 9),
        range(10, 10),
        range(4, 10),
        range(11, u32::MAX),
    ] {
        for by_pool in [false, true] {
            has_statistics(case, &StatisticsQuery { subnets, by_pool }, &leases)?;
        }
    }
    let three = StatisticsQuery { subnets: one(3), by_pool: false };
    has_rows(case, &three, &[row::<L>(3, None, 0, 3)])
}

pub(super) fn statistics_of_invalid_subnets_are_refused<L: TestedLease>(case: &Case<L>) -> Verdict {
    let leases = [in_subnet(&sample::<L>(1, 1)?, 0), in_subnet(&sample::<L>(2, 2)?, 1)];
    case.add_all(&leases)?;
    let range = |first, last| Subnets::Range(SubnetId(first), SubnetId(last));
    for (subnets, value) in [
        (Subnets::One(SubnetId(0)), "0"),
        (range(0, 3), "0 to 3"),
        (range(0, 0), "0 to 0"),
        (range(3, 1), "3 to 1"),
        (range(u32::MAX, 0), "4294967295 to 0"),
    ] {
        for by_pool in [false, true] {
            let query = StatisticsQuery { subnets, by_pool };
            bad_argument(format_args!("{query:?}"), &case.mgr().statistics(&query), value)?;
        }
    }
    // "All" includes a lease of a file in subnet 0.
    has_rows(case, &ALL, &[row::<L>(0, None, 0, 1), row::<L>(1, None, 0, 1)])
}

pub(super) fn statistics_by_pool_have_rows_for_each_pool<L: TestedLease>(case: &Case<L>) -> Verdict {
    let mut leases = Vec::new();
    for (pool, n) in [0, 7, 7, 1, u32::MAX, 7].into_iter().zip(0..) {
        let lease = in_subnet(&sample::<L>(n, n)?, 1 + n / 5);
        leases.push(with(&lease, |data| data.pool_id = PoolId(pool)));
    }
    leases[1].set_state(LeaseState::DECLINED)?;
    case.add_all(&leases)?;
    let rows = [
        row::<L>(1, Some(0), 0, 1),
        row::<L>(1, Some(1), 0, 1),
        row::<L>(1, Some(7), 0, 1),
        row::<L>(1, Some(7), 1, 1),
        row::<L>(1, Some(u32::MAX), 0, 1),
        row::<L>(2, Some(7), 0, 1),
    ];
    has_rows(case, &BY_POOL, &rows)?;
    let second = StatisticsQuery { subnets: Subnets::One(SubnetId(2)), by_pool: true };
    has_rows(case, &second, &rows[5..])?;
    has_rows(case, &ALL, &[row::<L>(1, None, 0, 4), row::<L>(1, None, 1, 1), row::<L>(2, None, 0, 1)])
}

pub(super) fn statistics_come_in_the_order_of_their_fields<L: TestedLease>(case: &Case<L>) -> Verdict {
    let mut leases = Vec::new();
    for n in 0..120 {
        let lease = in_subnet(&sample::<L>(n, n)?, [256, 2, 10, 65_536, 1][n as usize % 5]);
        let lease = with(&lease, |data| data.pool_id = PoolId([10, 256, 9][n as usize / 5 % 3]));
        let lease = lease.with_kind(L::KINDS[n as usize / 15 % L::KINDS.len()])?;
        leases.push(in_state(&lease, LeaseState([4, 0, 1][n as usize / 45 % 3]))?);
    }
    case.add_all(&shuffled(&leases))?;
    counts(case, &leases)?;
    for query in [ALL, BY_POOL] {
        let mut rows = statistics(&leases, &query);
        rows.sort();
        has_rows(case, &query, &rows)?;
    }
    Ok(())
}

pub(super) fn statistics_follow_an_addition<L: TestedLease>(case: &Case<L>) -> Verdict {
    let mut leases = Vec::new();
    for n in 0..12 {
        let lease = in_subnet(&sample::<L>(n, n)?, n % 3);
        let lease = with(&lease, |data| data.pool_id = PoolId(n % 2));
        leases.push(in_state(&lease, LeaseState(n / 6))?);
        case.add(&leases[n as usize])?;
        counts(case, &leases)?;
    }
    Ok(())
}

pub(super) fn statistics_follow_an_update<L: TestedLease>(case: &Case<L>) -> Verdict {
    let mut leases = samples::<L>(0..4)?;
    case.add_all(&leases)?;
    for state in [1, 2, 0, 3, 1, 77, 0] {
        leases[1].set_state(LeaseState(state))?;
        case.update(&leases[1])?;
        counts(case, &leases)?;
    }
    for (subnet, pool) in [(2, 0), (2, 1), (1, 1), (1, 0), (3, 5), (1, 0)] {
        leases[2].data_mut().subnet_id = SubnetId(subnet);
        leases[2].data_mut().pool_id = PoolId(pool);
        case.update(&leases[2])?;
        counts(case, &leases)?;
    }
    // All changes at once.
    let lease = with(&leases[3], |data| (data.subnet_id, data.pool_id) = (SubnetId(9), PoolId(9)));
    leases[3] = in_state(&lease, LeaseState::DECLINED)?;
    case.update(&leases[3])?;
    counts(case, &leases)?;
    // If unchanged.
    let declined = in_state(&leases[0], LeaseState::DECLINED)?;
    ask("update, if unchanged", case.mgr().update_if_unchanged(&leases[0], &declined))?;
    leases[0] = declined;
    counts(case, &leases)
}

pub(super) fn statistics_follow_a_deletion<L: TestedLease>(case: &Case<L>) -> Verdict {
    let mut leases = varied_leases::<L>()?;
    case.add_all(&leases)?;
    while let Some(lease) = leases.pop() {
        case.delete(lease.address())?;
        counts(case, &leases)?;
    }
    // There is no row with a count of 0.
    has_rows(case, &ALL, &[])?;
    has_rows(case, &BY_POOL, &[])
}

pub(super) fn statistics_follow_the_deletion_of_many_leases<L: TestedLease>(case: &Case<L>) -> Verdict {
    let mut leases = varied_leases::<L>()?;
    case.add_all(&leases)?;
    for lease in leases.iter_mut().step_by(3) {
        lease.set_state(LeaseState::EXPIRED_RECLAIMED)?;
        case.update(lease)?;
    }
    counts(case, &leases)?;
    let end = END + 200;
    ask("delete reclaimed leases", case.mgr().delete_reclaimed(system_time(end)))?;
    leases.retain(|lease| {
        lease.state() != LeaseState::EXPIRED_RECLAIMED || !lease.is_expired(system_time(end))
    });
    counts(case, &leases)?;
    ask("wipe subnet 2", case.mgr().wipe_subnet(SubnetId(2)))?;
    leases.retain(|lease| lease.data().subnet_id != SubnetId(2));
    counts(case, &leases)
}

pub(super) fn a_renewal_does_not_change_statistics<L: TestedLease>(case: &Case<L>) -> Verdict {
    let mut leases = samples::<L>(0..3)?;
    case.add_all(&leases)?;
    for _ in 0..3 {
        for lease in &mut leases {
            lease.data_mut().cltt += 10;
            case.update(lease)?;
            has_rows(case, &ALL, &[row::<L>(1, None, 0, 3)])?;
            has_rows(case, &BY_POOL, &[row::<L>(1, Some(0), 0, 3)])?;
        }
    }
    Ok(())
}

pub(super) fn a_refused_change_is_not_counted<L: TestedLease>(case: &Case<L>) -> Verdict {
    let leases = samples::<L>(0..2)?;
    case.add_all(&leases)?;
    let other = in_state(&in_subnet(&leases[0], 2), LeaseState::DECLINED)?;
    ask("add to an address with a lease", case.mgr().add(&other).map(drop))?;
    counts(case, &leases)?;
    let absent = in_state(&sample::<L>(9, 9)?, LeaseState::DECLINED)?;
    no_such_lease("update a missing lease", &case.mgr().update(&absent), absent.address())?;
    counts(case, &leases)?;
    // Another rule checks whether it fails.
    let _ = case.mgr().update_if_unchanged(&in_subnet(&leases[0], 7), &leases[0]);
    let _ = case.mgr().delete_expecting(absent.address(), None);
    counts(case, &leases)
}

pub(super) fn a_recount_gives_the_same_statistics<L: TestedLease>(case: &Case<L>) -> Verdict {
    let mut leases = varied_leases::<L>()?;
    case.add_all(&leases)?;
    for n in [35, 20, 4, 0] {
        case.delete(leases.remove(n).address())?;
    }
    leases[3].data_mut().subnet_id = SubnetId(50);
    case.update(&leases[3])?;
    for _ in 0..2 {
        counts(case, &leases)?;
        ask("recount", case.mgr().recount())?;
    }
    // Changes are still counted.
    leases[5].set_state(LeaseState::DECLINED)?;
    case.update(&leases[5])?;
    case.delete(leases.remove(0).address())?;
    counts(case, &leases)
}

pub(super) fn addresses_and_prefixes_are_counted_separately(case: &Case<Lease6>) -> Verdict {
    let mut leases = Vec::new();
    for (kind, state, count) in [(0, 0, 1), (0, 1, 2), (0, 4, 3), (0, 2, 2), (2, 0, 4), (2, 1, 1), (2, 4, 1)]
        .into_iter()
        .chain([(1, 0, 2), (1, 1, 2), (1, 4, 2), (7, 0, 3)])
    {
        for _ in 0..count {
            let n = 10 + leases.len() as u32;
            let lease = sample::<Lease6>(n, n)?.with_kind(Some(LeaseType(kind)))?;
            leases.push(in_state(&lease, LeaseState(state))?);
        }
    }
    case.add_all(&leases)?;
    let typed =
        |lease_type, state, count| StatisticsRow { lease_type, ..row::<Lease6>(1, None, state, count) };
    let (address, prefix) = (Some(LeaseType::NA), Some(LeaseType::PD));
    let rows = [typed(address, 0, 1), typed(address, 1, 2), typed(address, 4, 3), typed(prefix, 0, 4)];
    has_rows(case, &ALL, &rows)?;
    counts(case, &leases)?;
    // A lease gets another type.
    leases[0] = leases[0].with_kind(prefix)?;
    case.update(&leases[0])?;
    counts(case, &leases)
}
