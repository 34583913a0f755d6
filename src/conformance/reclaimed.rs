//! Deleting several leases: reclaimed ones, and those of a subnet.

use super::TestedLease;
use super::case::{Case, Verdict, ask, same};
use super::find::varied_leases;
use super::sample::{END, HEARD, ending, in_state, in_subnet, sample, samples, with};
use crate::lease::{LeaseState, Lifetime, SubnetId, system_time};

fn reclaimed<L: TestedLease>(lease: &L) -> Verdict<L> {
    in_state(lease, LeaseState::EXPIRED_RECLAIMED)
}

/// Deletes reclaimed leases, and checks their number.
fn deletes<L: TestedLease>(case: &Case<L>, until: i64, expected: u64) -> Verdict {
    let action = format_args!("delete reclaimed leases that ended by {until}");
    same(action, &ask(action, case.mgr().delete_reclaimed(system_time(until)))?, &expected)
}

pub(super) fn only_reclaimed_leases_are_deleted<L: TestedLease>(case: &Case<L>) -> Verdict {
    let mut leases = Vec::new();
    for (state, n) in [0, 2, 1, 3, 2, 4, 5, 77, 2, 258, u32::MAX].into_iter().zip(1..) {
        leases.push(in_state(&sample::<L>(n, n)?, LeaseState(state))?);
    }
    case.add_all(&leases)?;
    deletes(case, u32::MAX.into(), 3)?;
    case.holds(leases.iter().filter(|lease| lease.state().0 != 2), &leases)
}

pub(super) fn a_reclaimed_lease_is_deleted_from_its_end_on<L: TestedLease>(case: &Case<L>) -> Verdict {
    let leases = [5, 1, 3].map(|n| reclaimed(&ending(&sample::<L>(n, n)?, END + i64::from(n))));
    let leases = leases.into_iter().collect::<Verdict<Vec<_>>>()?;
    case.add_all(&leases)?;
    deletes(case, 0, 0)?;
    deletes(case, END, 0)?;
    case.holds(&leases, [])?;
    deletes(case, END + 1, 1)?;
    case.holds([&leases[0], &leases[2]], &leases)?;
    deletes(case, END + 2, 0)?;
    deletes(case, END + 4, 1)?;
    case.holds([&leases[0]], &leases)?;
    deletes(case, i64::MAX, 1)?;
    case.holds([], &leases)
}

pub(super) fn deleting_reclaimed_leases_returns_their_number<L: TestedLease>(case: &Case<L>) -> Verdict {
    let mut leases = samples::<L>(0..10)?;
    case.add_all(&leases)?;
    deletes(case, END, 0)?;
    for lease in &mut leases[2..7] {
        lease.set_state(LeaseState::EXPIRED_RECLAIMED)?;
        case.update(lease)?;
    }
    case.delete(leases[4].address())?;
    deletes(case, END, 4)?;
    deletes(case, END, 0)?;
    case.holds(leases[..2].iter().chain(&leases[7..]), &leases)
}

pub(super) fn an_infinite_reclaimed_lease_is_never_deleted<L: TestedLease>(case: &Case<L>) -> Verdict {
    let infinite = with(&sample::<L>(1, 1)?, |data| data.valid_lifetime = Lifetime::INFINITE);
    let leases = [reclaimed(&infinite)?, reclaimed(&sample(2, 2)?)?];
    case.add_all(&leases)?;
    deletes(case, END + 1000, 1)?;
    case.has(leases[0].address(), Some(&leases[0]))?;
    let infinite_end = HEARD + i64::from(u32::MAX);
    for until in [infinite_end - 1, infinite_end, infinite_end + 1, i64::MAX - 1, i64::MAX] {
        deletes(case, until, 0)?;
        case.has(leases[0].address(), Some(&leases[0]))?;
    }
    case.holds([&leases[0]], &leases)
}

pub(super) fn a_lease_that_is_no_longer_reclaimed_is_not_deleted<L: TestedLease>(case: &Case<L>) -> Verdict {
    let leases = samples::<L>(0..4)?;
    case.add_all(&leases)?;
    let mut now = Vec::new();
    for lease in &leases {
        let lease = reclaimed(lease)?;
        case.update(&lease)?;
        now.push(lease);
    }
    now[1] = leases[1].clone();
    case.update(&now[1])?;
    now[2].data_mut().cltt += 1000;
    case.update(&now[2])?;
    deletes(case, END, 2)?;
    case.holds(&now[1..3], now.iter().chain(&leases))?;
    deletes(case, END + 1000, 1)?;
    case.holds(&now[1..2], now.iter().chain(&leases))
}

pub(super) fn reclaimed_leases_that_ended_before_1970_are_deleted<L: TestedLease>(case: &Case<L>) -> Verdict {
    let mut leases = Vec::new();
    for (end, n) in [-1000, -100, -1, 0, 100].into_iter().zip(1..) {
        let valid = i64::from(sample::<L>(n, n)?.data().valid_lifetime.0);
        leases.push(reclaimed(&with(&sample(n, n)?, |data| data.cltt = end - valid))?);
    }
    if !leases.iter().all(|lease| case.keeps(lease)) {
        return Ok(());
    }
    let infinite =
        with(&sample::<L>(9, 9)?, |data| (data.cltt, data.valid_lifetime) = (-9, Lifetime::INFINITE));
    case.add_all(leases.iter().chain([&reclaimed(&infinite)?]))?;
    deletes(case, i64::MIN, 0)?;
    deletes(case, -1001, 0)?;
    deletes(case, -1000, 1)?;
    deletes(case, -2, 1)?;
    deletes(case, 0, 2)?;
    deletes(case, 99, 0)?;
    deletes(case, 100, 1)?;
    case.has(infinite.address(), Some(&reclaimed(&infinite)?))?;
    // A DHCPv6 file cannot store the time when the client was heard.
    case.clear()
}

pub(super) fn thousands_of_reclaimed_leases_are_deleted<L: TestedLease>(case: &Case<L>) -> Verdict {
    const LEASES: u32 = 2500;
    let mut kept = Vec::new();
    for n in 0..LEASES {
        let lease = ending(&sample::<L>(n, n % 7)?, END + i64::from(n % 100));
        if n % 10 == 0 {
            case.add(&lease)?;
            kept.push(lease);
        } else {
            case.add(&reclaimed(&lease)?)?;
        }
    }
    deletes(case, END + 49, u64::from(LEASES) / 2 * 9 / 10)?;
    same("the number of leases left", &case.all()?.len(), &1375)?;
    deletes(case, END + 99, u64::from(LEASES) / 2 * 9 / 10)?;
    case.finds(&crate::Query::all(), &kept)?;
    case.holds(&kept, [])
}

pub(super) fn wiping_a_subnet_leaves_other_subnets<L: TestedLease>(case: &Case<L>) -> Verdict {
    let leases = varied_leases::<L>()?;
    case.add_all(&leases)?;
    let wipes = |subnet, expected| {
        let action = format_args!("wipe subnet {subnet}");
        same(action, &ask(action, case.mgr().wipe_subnet(SubnetId(subnet)))?, &expected)
    };
    // Subnet 0 does not stand for all.
    wipes(0, 0)?;
    wipes(3, 0)?;
    case.holds(&leases, [])?;
    wipes(2, 12)?;
    case.holds(leases.iter().filter(|lease| lease.data().subnet_id != SubnetId(2)), &leases)?;
    wipes(2, 0)?;
    wipes(u32::MAX, 12)?;
    case.holds(leases.iter().filter(|lease| lease.data().subnet_id == SubnetId(1)), &leases)
}

pub(super) fn thousands_of_leases_of_a_subnet_are_wiped<L: TestedLease>(case: &Case<L>) -> Verdict {
    let mut kept = Vec::new();
    for n in 0..3000 {
        let lease = in_subnet(&sample::<L>(n, n % 7)?, 1 + n % 5 / 4);
        case.add(&lease)?;
        if n % 5 == 4 {
            kept.push(lease);
        }
    }
    same("wipe subnet 1", &ask("wipe subnet 1", case.mgr().wipe_subnet(SubnetId(1)))?, &2400)?;
    case.finds(&crate::Query::all(), &kept)?;
    case.holds(&kept, [])
}
