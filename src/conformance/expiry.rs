//! Expired leases.

use super::TestedLease;
use super::case::{Case, Verdict, ask, same};
use super::model::expired;
use super::sample::{END, HEARD, VALID, ending, in_state, sample, samples, shuffled, with};
use crate::LeaseMgrExt;
use crate::lease::{LeaseState, Lifetime, system_time};

pub(super) fn a_lease_expires_at_its_end<L: TestedLease>(case: &Case<L>) -> Verdict {
    let lease = sample::<L>(1, 1)?;
    case.add(&lease)?;
    for now in [0, 1, HEARD, END - 1] {
        case.expired(now, 0, [])?;
    }
    for now in [END, END + 1, u32::MAX.into(), 1 << 32, i64::MAX - 1, i64::MAX] {
        case.expired(now, 0, [&lease])?;
        case.expired(now, 5, [&lease])?;
    }
    // Both cltt and lifetime determine the end.
    let shorter = with(&lease, |data| data.valid_lifetime = Lifetime(VALID - 10));
    case.update(&shorter)?;
    case.expired(END - 11, 0, [])?;
    case.expired(END - 10, 0, [&shorter])
}

/// Returns leases whose ends are not in the order of their addresses, some with the same end.
fn varied_leases<L: TestedLease>() -> Verdict<Vec<L>> {
    let ends = (0..40).map(|n: u32| END + i64::from(n * 7 % 20));
    ends.zip(0..).map(|(end, n)| Ok(ending(&sample::<L>(n, n)?, end))).collect()
}

pub(super) fn expired_leases_come_in_the_order_of_their_ends<L: TestedLease>(case: &Case<L>) -> Verdict {
    let leases = [5, 1, 4, 2, 3].map(|n| Ok(ending(&sample::<L>(10 - n, n)?, END + i64::from(n))));
    let mut leases = leases.into_iter().collect::<Verdict<Vec<_>>>()?;
    case.add_all(&leases)?;
    leases.sort_by_key(L::expires_at);
    for n in 0..5 {
        case.expired(END + n, 0, &leases[..n as usize])?;
    }
    case.expired(END + 100, 0, &leases)?;
    // With any lifetime that gives the same end.
    case.clear()?;
    let long = with(&leases[0], |data| (data.cltt, data.valid_lifetime) = (10, Lifetime(1000)));
    let short = with(&leases[1], |data| (data.cltt, data.valid_lifetime) = (900, Lifetime(100)));
    case.add_all([&long, &short])?;
    case.expired(2000, 0, [&short, &long])
}

pub(super) fn leases_that_end_together_come_in_the_order_of_their_addresses<L: TestedLease>(
    case: &Case<L>,
) -> Verdict {
    let leases = varied_leases::<L>()?;
    case.add_all(&shuffled(&leases))?;
    for now in END - 1..END + 21 {
        case.expired(now, 0, expired(&leases, now, 0))?;
    }
    // Also if an update has given a lease that end.
    let mut leases = leases;
    for n in [30, 3, 12] {
        leases[n] = ending(&leases[n], END + 7);
        case.update(&leases[n])?;
        case.expired(END + 8, 0, expired(&leases, END + 8, 0))?;
    }
    Ok(())
}

pub(super) fn a_limit_returns_the_longest_expired<L: TestedLease>(case: &Case<L>) -> Verdict {
    let leases = varied_leases::<L>()?;
    case.add_all(&shuffled(&leases))?;
    for limit in [1, 2, 3, 7, 19, 39, 40, 41, usize::MAX] {
        for now in [END - 1, END, END + 3, END + 19] {
            case.expired(now, limit, expired(&leases, now, limit))?;
        }
    }
    Ok(())
}

pub(super) fn a_limit_of_zero_returns_all_expired<L: TestedLease>(case: &Case<L>) -> Verdict {
    const LEASES: u32 = 1100;
    let mut leases = Vec::new();
    for n in 0..LEASES {
        leases.push(ending(&sample::<L>(LEASES - n, n % 5)?, END + i64::from(n)));
    }
    case.add_all(&leases)?;
    case.expired(END + i64::from(LEASES), 0, &leases)?;
    case.expired(END + 999, 0, &leases[..1000])
}

pub(super) fn an_infinite_lease_never_expires<L: TestedLease>(case: &Case<L>) -> Verdict {
    let finite = sample::<L>(1, 1)?;
    let infinite = with(&sample::<L>(2, 2)?, |data| data.valid_lifetime = Lifetime::INFINITE);
    let declined = in_state(&infinite, LeaseState::DECLINED)?;
    let long = |lifetime| Ok(with(&sample::<L>(3, 3)?, |data| data.valid_lifetime = Lifetime(lifetime)));
    let nearly: Verdict<L> = long(u32::MAX - 1);
    let mut nearly = nearly?;
    if !case.keeps(&nearly) {
        nearly = long(400_000_000)?;
    }
    case.add_all([&finite, &infinite, &nearly])?;
    let beyond = HEARD + i64::from(u32::MAX);
    for lease in [&infinite, &declined] {
        case.update(lease)?;
        case.expired(END, 0, [&finite])?;
        for now in [beyond, beyond + 1, i64::MAX] {
            case.expired(now, 0, [&finite, &nearly])?;
            case.expired(now, 10, [&finite, &nearly])?;
        }
    }
    // A lease becomes infinite, and finite again.
    case.update(&with(&finite, |data| data.valid_lifetime = Lifetime::INFINITE))?;
    case.expired(i64::MAX, 0, [&nearly])?;
    case.update(&finite)?;
    case.update(&sample(2, 2)?)?;
    case.expired(END, 0, [&finite, &sample(2, 2)?])
}

pub(super) fn a_reclaimed_lease_has_not_expired<L: TestedLease>(case: &Case<L>) -> Verdict {
    let mut leases = samples::<L>(0..6)?;
    case.add_all(&leases)?;
    for n in [2, 5, 0] {
        leases[n].set_state(LeaseState::EXPIRED_RECLAIMED)?;
        case.update(&leases[n])?;
        for now in [END, END + 1000, i64::MAX] {
            case.expired(now, 0, expired(&leases, now, 0))?;
            case.expired(now, 2, expired(&leases, now, 2))?;
        }
    }
    // Nor has one that was added as reclaimed.
    case.add(&in_state(&sample(10, 10)?, LeaseState::EXPIRED_RECLAIMED)?)?;
    case.expired(END, 0, expired(&leases, END, 0))
}

pub(super) fn a_lease_expires_in_every_other_state<L: TestedLease>(case: &Case<L>) -> Verdict {
    let mut leases = Vec::new();
    for (state, n) in [0, 1, 3, 4, 5, 77, 258, u32::MAX].into_iter().zip(1..) {
        leases.push(in_state(&sample::<L>(n, n)?, LeaseState(state))?);
    }
    let without_client = in_state(&sample::<L>(100, 100)?, LeaseState::DECLINED)?.with_client(None, &[])?;
    leases.push(without_client);
    case.add_all(&leases)?;
    case.expired(END - 1, 0, [])?;
    case.expired(END, 0, &leases)?;
    case.expired(END, 3, &leases[..3])
}

pub(super) fn a_renewed_lease_has_not_expired<L: TestedLease>(case: &Case<L>) -> Verdict {
    let leases = samples::<L>(0..5)?;
    case.add_all(&leases)?;
    case.expired(END, 0, &leases)?;
    let later = with(&leases[1], |data| data.cltt += 500);
    case.update(&later)?;
    let longer = with(&leases[3], |data| data.valid_lifetime.0 += 500);
    case.update(&longer)?;
    case.expired(END, 0, [&leases[0], &leases[2], &leases[4]])?;
    case.expired(END + 499, 0, [&leases[0], &leases[2], &leases[4]])?;
    case.expired(END + 500, 0, [&leases[0], &leases[2], &leases[4], &later, &longer])?;
    // Renewed again, many times.
    let mut often = leases[0].clone();
    for _ in 0..50 {
        often.data_mut().cltt += 100;
        case.update(&often)?;
    }
    case.expired(END + 4999, 0, [&leases[2], &leases[4], &later, &longer])?;
    case.expired(END + 5000, 0, [&leases[2], &leases[4], &later, &longer, &often])
}

pub(super) fn a_lease_with_a_new_earlier_end_expires<L: TestedLease>(case: &Case<L>) -> Verdict {
    let leases = samples::<L>(0..3)?;
    case.add_all(&leases)?;
    let shorter = with(&leases[1], |data| data.valid_lifetime.0 -= 100);
    case.update(&shorter)?;
    case.expired(END - 101, 0, [])?;
    case.expired(END - 100, 0, [&shorter])?;
    let earlier = with(&leases[2], |data| data.cltt -= 200);
    case.update(&earlier)?;
    case.expired(END - 150, 0, [&earlier])?;
    case.expired(END, 0, [&earlier, &shorter, &leases[0]])?;
    // Later and earlier again.
    let later = with(&leases[2], |data| data.cltt += 5000);
    case.update(&later)?;
    case.expired(END, 0, [&shorter, &leases[0]])?;
    case.update(&earlier)?;
    case.expired(END, 0, [&earlier, &shorter, &leases[0]])
}

pub(super) fn a_reclaimed_lease_that_is_renewed_expires_again<L: TestedLease>(case: &Case<L>) -> Verdict {
    let lease = sample::<L>(1, 1)?;
    case.add(&lease)?;
    let reclaimed = in_state(&lease, LeaseState::EXPIRED_RECLAIMED)?;
    for round in 1..4 {
        case.update(&reclaimed)?;
        case.expired(i64::MAX, 0, [])?;
        let renewed = with(&lease, |data| data.cltt += 1000 * round);
        case.update(&renewed)?;
        let end = END + 1000 * round;
        case.expired(end - 1, 0, [])?;
        case.expired(end, 0, [&renewed])?;
    }
    // Also if its times have not changed.
    case.update(&reclaimed)?;
    case.update(&lease)?;
    case.expired(END, 0, [&lease])
}

pub(super) fn a_deleted_lease_does_not_expire<L: TestedLease>(case: &Case<L>) -> Verdict {
    let leases = samples::<L>(0..3)?;
    case.add_all(&leases)?;
    case.delete(leases[1].address())?;
    case.expired(END, 0, [&leases[0], &leases[2]])?;
    // Its address now has a lease with another end.
    let later = with(&leases[1], |data| data.cltt += 10);
    case.add(&later)?;
    case.expired(END, 0, [&leases[0], &leases[2]])?;
    case.expired(END + 10, 0, [&leases[0], &leases[2], &later])?;
    case.clear()?;
    case.expired(i64::MAX, 0, [])
}

pub(super) fn a_lease_may_end_beyond_32_bits<L: TestedLease>(case: &Case<L>) -> Verdict {
    const WRAP: i64 = 1 << 32;
    let ends = [WRAP - 1, WRAP, WRAP + 1, WRAP + 5000, 1 << 40];
    let leases = ends.into_iter().zip(1..).map(|(end, n)| Ok(ending(&sample::<L>(10 - n, n)?, end)));
    let mut leases = leases.collect::<Verdict<Vec<_>>>()?;
    leases.retain(|lease| case.keeps(lease));
    case.add_all(&leases)?;
    for (i, end) in ends.into_iter().enumerate().take(leases.len()) {
        case.expired(end - 1, 0, &leases[..i])?;
        case.expired(end, 0, &leases[..=i])?;
        case.has(leases[i].address(), Some(&leases[i]))?;
    }
    // A DHCPv6 file has 32 bits for the time when the client was heard.
    case.clear()
}

pub(super) fn a_lease_that_ended_before_1970_has_expired<L: TestedLease>(case: &Case<L>) -> Verdict {
    // When the client was heard, and the valid lifetime.
    let times =
        [(-300, 200), (-4000, 100), (-300, 300), (-300, 301), (-1, 100), (0, 5), (i64::MIN + (1 << 33), 9)];
    let mut leases = Vec::new();
    for ((cltt, valid), n) in times.into_iter().zip(1..) {
        let times =
            |lease: &L| with(lease, |data| (data.cltt, data.valid_lifetime) = (cltt, Lifetime(valid)));
        leases.push(times(&sample(20 - n, n)?));
    }
    let infinite =
        with(&sample::<L>(30, 30)?, |data| (data.cltt, data.valid_lifetime) = (-300, Lifetime::INFINITE));
    leases.retain(|lease| case.keeps(lease));
    if leases.is_empty() {
        return Ok(());
    }
    case.add_all(leases.iter().chain([&infinite].into_iter().filter(|lease| case.keeps(lease))))?;
    let check = |leases: &[L]| -> Verdict {
        for now in [i64::MIN, -2, 0, 1, 4, 5, 98, 99, END, i64::MAX - 1, i64::MAX] {
            case.expired(now, 0, expired(leases, now, 0))?;
            case.expired(now, 2, expired(leases, now, 2))?;
        }
        Ok(())
    };
    check(&leases)?;
    // A lease gets such an end, and another one again.
    let now = leases[0].clone();
    leases[0].data_mut().cltt = HEARD;
    case.update(&leases[0])?;
    check(&leases)?;
    leases[0] = now;
    case.update(&leases[0])?;
    check(&leases)?;
    // It is reclaimed like any other, and its address is free again.
    for lease in case.mgr().list_expired(system_time(0), 0).into_iter().flatten() {
        let address = lease.address();
        let action = format_args!("reclaim the lease of {address}");
        same(action, &ask(action, case.mgr().reclaim(&lease))?, &true)?;
    }
    case.expired(0, 0, [])?;
    let removed = ask("delete reclaimed leases", case.mgr().delete_reclaimed(system_time(0)))?;
    let ended = leases.iter().filter(|lease| lease.is_expired(system_time(0))).count() as u64;
    same("number of reclaimed leases that ended in 1970 or before", &removed, &ended)?;
    // A DHCPv6 file cannot store the time when the client was heard.
    case.clear()
}

pub(super) fn listing_expired_leases_changes_nothing<L: TestedLease>(case: &Case<L>) -> Verdict {
    let leases = varied_leases::<L>()?;
    case.add_all(&leases)?;
    for _ in 0..3 {
        case.expired(END + 10, 0, expired(&leases, END + 10, 0))?;
        case.expired(i64::MAX, 2, expired(&leases, i64::MAX, 2))?;
    }
    case.holds(&leases, [])
}
