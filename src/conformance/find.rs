//! Queries for leases.

use super::TestedLease;
use super::case::{Case, QueryText, Verdict, ask, bad_argument, changed_meanwhile, pages, same, same_leases};
use super::model::{answer, for_each_key};
use super::sample::{
    END, HEARD, PREFIX, Relay, Sample, at, hostname, hwaddr, id, in_state, in_subnet, rebuilt, sample,
    shuffled, with, with_context,
};
use crate::lease::{
    Duid, Hostname, HwAddr, HwSource, HwType, Iaid, Lease, Lease6, LeaseState, LeaseType, SubnetId,
    system_time,
};
use crate::{Added, ClientKey, Key, LeaseMgrExt, LeaseMgrExt6, Query};

const SUBNETS: [u32; 3] = [1, 2, u32::MAX];

/// Leases that share subnets, clients, names, states and relay agents, each with another time when
/// its client was heard.
pub(super) fn varied_leases<L: TestedLease>() -> Verdict<Vec<L>> {
    const LEASES: u32 = 36;
    let mut leases = Vec::new();
    for n in 0..LEASES {
        let mut lease = in_subnet(&sample::<L>(3 * n + 2, n % 3)?, SUBNETS[n as usize / 3 % 3]);
        lease.data_mut().cltt = HEARD + i64::from(n * 7 % LEASES) * 10;
        lease.data_mut().pool_id.0 = n % 2;
        let relay: Relay<'_> = (&[0, 3, 0, 1, (n % 2) as u8], &[0, 0, 0, 9, (n % 4) as u8]);
        let lease = with_context(&lease, &[["gold", "silver"][n as usize % 2]], &[relay])?;
        leases.push(in_state(&lease, LeaseState([0, 0, 1, 3, 77][n as usize % 5]))?);
    }
    Ok(leases)
}

/// Adds these leases, not in the order of their addresses.
fn with_varied_leases<L: TestedLease>(case: &Case<L>) -> Verdict<Vec<L>> {
    let leases = varied_leases()?;
    case.add_all(&shuffled(&leases))?;
    Ok(leases)
}

pub(super) fn leases_come_in_the_order_of_their_addresses<L: TestedLease>(case: &Case<L>) -> Verdict {
    let addresses = L::scattered();
    let leases = addresses.iter().map(|&address| at::<L>(address, 1)).collect::<Verdict<Vec<_>>>()?;
    case.add_all(&shuffled(&leases))?;
    for_each_key(case, &leases, |query| {
        case.finds(&query, &leases)?;
        case.finds(&query.in_subnet(SubnetId(1)), &leases)?;
        for (i, lease) in leases.iter().enumerate() {
            case.finds(&query.after(lease.address()), &leases[i + 1..])?;
        }
        Ok(())
    })
}

pub(super) fn a_key_finds_exactly_its_leases<L: TestedLease>(case: &Case<L>) -> Verdict {
    let leases = with_varied_leases(case)?;
    for_each_key(case, &leases, |query| case.finds(&query, answer(&query, &leases)))
}

pub(super) fn an_unknown_key_finds_nothing<L: TestedLease>(case: &Case<L>) -> Verdict {
    let leases = with_varied_leases(case)?;
    let stranger = in_state(&sample::<L>(1000, 99)?, LeaseState(5))?;
    let stranger = with_context(&stranger, &[], &[(&[0, 3, 0, 1, 99], &[0, 0, 0, 9, 99])])?;
    for_each_key(case, std::slice::from_ref(&stranger), |query| match query.key {
        Key::All => Ok(()),
        _ => case.finds(&query, []),
    })?;
    // Nor does a lease that has other keys.
    for_each_key(case, &leases, |query| case.finds(&query.in_subnet(SubnetId(99)), []))?;
    case.has(stranger.address(), None)
}

pub(super) fn a_subnet_restricts_every_key<L: TestedLease>(case: &Case<L>) -> Verdict {
    let leases = with_varied_leases(case)?;
    for_each_key(case, &leases, |query| {
        // Subnet 0 is like any other, and does not stand for all.
        SUBNETS.into_iter().chain([0, 3]).try_for_each(|subnet| {
            let query = query.in_subnet(SubnetId(subnet));
            case.finds(&query, answer(&query, &leases))
        })
    })?;
    let in_zero = in_subnet(&sample::<L>(1000, 0)?, 0);
    case.add(&in_zero)?;
    case.finds(&Query::all().in_subnet(SubnetId(0)), [&in_zero])
}

pub(super) fn a_page_begins_after_its_address<L: TestedLease>(case: &Case<L>) -> Verdict {
    let leases = with_varied_leases(case)?;
    // After addresses with a lease (2, 5, ... 107), between them, and beyond.
    let numbers = [0, 1, 2, 3, 4, 5, 52, 53, 54, 104, 106, 107, 108];
    let bounds: Vec<_> = numbers.map(L::address_number).into_iter().chain(L::scattered()).collect();
    for_each_key(case, &leases, |query| {
        for &after in &bounds {
            let query = query.after(after);
            case.finds(&query, answer(&query, &leases))?;
            let query = query.in_subnet(SubnetId(2));
            case.finds(&query, answer(&query, &leases))?;
        }
        Ok(())
    })
}

pub(super) fn a_limit_returns_the_first_leases<L: TestedLease>(case: &Case<L>) -> Verdict {
    let leases = with_varied_leases(case)?;
    for_each_key(case, &leases, |query| {
        for limit in [1, 2, 3, 5, 11, 12, 13, 36, 37, usize::MAX] {
            let query = query.limit(limit);
            case.finds(&query, answer(&query, &leases))?;
            let query = query.after(L::address_number(20));
            case.finds(&query, answer(&query, &leases))?;
        }
        Ok(())
    })
}

/// Checks that a query is refused, with this value in the message.
fn refuses<L: TestedLease>(case: &Case<L>, query: &Query<'_, L>, value: &str) -> Verdict {
    bad_argument(QueryText(query), &case.mgr().find(query), value)
}

pub(super) fn a_limit_of_zero_is_refused<L: TestedLease>(case: &Case<L>) -> Verdict {
    refuses(case, &Query::all().limit(0), "0")?;
    let leases = with_varied_leases(case)?;
    for_each_key(case, &leases, |query| {
        refuses(case, &query.limit(0), "0")?;
        refuses(case, &query.limit(0).in_subnet(SubnetId(1)), "0")
    })?;
    bad_argument("a page of 0 leases", &case.mgr().page(None, 0), "0")?;
    let first = L::address_number(0);
    bad_argument("a page of 0 leases after an address", &case.mgr().page(Some(first), 0), "0")
}

pub(super) fn a_limit_counts_only_leases_that_match<L: TestedLease>(case: &Case<L>) -> Verdict {
    let leases = with_varied_leases(case)?;
    for_each_key(case, &leases, |query| {
        for limit in 1..4 {
            for query in [
                query.in_subnet(SubnetId(u32::MAX)),
                query.heard_since(system_time(HEARD + 200)),
                query.heard_until(system_time(HEARD + 100)).in_subnet(SubnetId(2)),
                query
                    .heard_since(system_time(HEARD + 50))
                    .heard_until(system_time(HEARD + 300))
                    .after(L::address_number(30)),
            ] {
                let query = query.limit(limit);
                case.finds(&query, answer(&query, &leases))?;
            }
        }
        Ok(())
    })
}

pub(super) fn a_window_includes_both_of_its_ends<L: TestedLease>(case: &Case<L>) -> Verdict {
    let heard = |cltt| sample::<L>(cltt, 1).map(|lease| with(&lease, |data| data.cltt = cltt.into()));
    let leases = [heard(10)?, heard(20)?, heard(30)?];
    case.add_all(&leases)?;
    let all = Query::all;
    case.finds(&all().heard_since(system_time(20)), &leases[1..])?;
    case.finds(&all().heard_since(system_time(21)), &leases[2..])?;
    case.finds(&all().heard_since(system_time(30)), &leases[2..])?;
    case.finds(&all().heard_since(system_time(31)), [])?;
    case.finds(&all().heard_since(system_time(0)), &leases)?;
    case.finds(&all().heard_until(system_time(20)), &leases[..2])?;
    case.finds(&all().heard_until(system_time(19)), &leases[..1])?;
    case.finds(&all().heard_until(system_time(10)), &leases[..1])?;
    case.finds(&all().heard_until(system_time(9)), [])?;
    case.finds(&all().heard_until(system_time(i64::MAX)), &leases)?;
    case.finds(&all().heard_since(system_time(10)).heard_until(system_time(30)), &leases)?;
    case.finds(&all().heard_since(system_time(20)).heard_until(system_time(20)), &leases[1..2])?;
    case.finds(&all().heard_since(system_time(11)).heard_until(system_time(29)), &leases[1..2])?;
    // The window is about when the client was heard, not about the end of the lease.
    let longer = with(&leases[0], |data| data.valid_lifetime.0 += 15);
    case.update(&longer)?;
    case.finds(&all().heard_since(system_time(20)), &leases[1..])?;
    // A renewal moves the lease in the window.
    let renewed = with(&leases[0], |data| data.cltt = 25);
    case.update(&renewed)?;
    case.finds(&all().heard_since(system_time(20)).heard_until(system_time(25)), [&renewed, &leases[1]])?;
    case.finds(&all().heard_until(system_time(19)), [])
}

pub(super) fn an_invalid_window_is_refused<L: TestedLease>(case: &Case<L>) -> Verdict {
    let leases = with_varied_leases(case)?;
    let refused = [
        (Some(21), Some(20), "20"),
        (Some(HEARD + 1), Some(HEARD), "1700000000"),
        (Some(i64::MAX), Some(0), "0"),
        (Some(-1), None, "-1"),
        (None, Some(-1), "-1"),
        (Some(-300), Some(HEARD), "-300"),
        (Some(i64::MIN), Some(i64::MAX), "-9223372036854775808"),
    ];
    for_each_key(case, &leases, |query| {
        for (heard_since, heard_until, value) in refused {
            let query = Query { heard_since, heard_until, ..query };
            refuses(case, &query, value)?;
            refuses(case, &query.in_subnet(SubnetId(1)).limit(3), value)?;
        }
        // A window may have the same start and end.
        let query = query.heard_since(system_time(HEARD + 10)).heard_until(system_time(HEARD + 10));
        case.finds(&query, answer(&query, &leases))
    })
}

pub(super) fn a_window_restricts_every_key<L: TestedLease>(case: &Case<L>) -> Verdict {
    let leases = with_varied_leases(case)?;
    for_each_key(case, &leases, |query| {
        for (since, until) in [(0, 350), (50, 200), (110, 110), (340, 1000)] {
            let query = query.heard_since(system_time(HEARD + since)).heard_until(system_time(HEARD + until));
            case.finds(&query, answer(&query, &leases))?;
            let query = query.in_subnet(SubnetId(1));
            case.finds(&query, answer(&query, &leases))?;
        }
        let query = query.heard_since(system_time(HEARD + 205));
        case.finds(&query, answer(&query, &leases))
    })
}

pub(super) fn a_range_includes_both_of_its_ends<L: TestedLease>(case: &Case<L>) -> Verdict {
    let leases = with_varied_leases(case)?;
    for first in [0, 1, leases.len() / 2, leases.len() - 1] {
        for last in [first, leases.len() - 1] {
            let range = leases[first].address()..=leases[last].address();
            case.finds(&Query::all().in_range(range), &leases[first..=last])?;
        }
    }
    Ok(())
}

/// Returns ranges that begin and end at leases and between them.
fn ranges<L: TestedLease>() -> impl Iterator<Item = std::ops::RangeInclusive<L::Address>> {
    [(0, 200), (2, 2), (3, 3), (3, 60), (50, 51), (59, 107), (108, 200)]
        .into_iter()
        .map(|(first, last)| L::address_number(first)..=L::address_number(last))
}

pub(super) fn a_range_restricts_every_key<L: TestedLease>(case: &Case<L>) -> Verdict {
    let leases = with_varied_leases(case)?;
    for_each_key(case, &leases, |query| {
        for query in [query, query.in_subnet(SubnetId(1)), query.reverse()] {
            for range in ranges::<L>() {
                let query = query.in_range(range);
                case.finds(&query, answer(&query, &leases))?;
                let query = query.limit(2);
                case.finds(&query, answer(&query, &leases))?;
                for address in [2, 30, 59] {
                    let query = query.after(L::address_number(address));
                    case.finds(&query, answer(&query, &leases))?;
                }
            }
        }
        Ok(())
    })
}

pub(super) fn a_range_that_ends_before_it_begins_is_refused<L: TestedLease>(case: &Case<L>) -> Verdict {
    with_varied_leases(case)?;
    let range = L::address_number(3)..=L::address_number(2);
    refuses(case, &Query::all().in_range(range), &L::address_number(2).to_string())
}

pub(super) fn a_reversed_query_returns_leases_in_reverse_order<L: TestedLease>(case: &Case<L>) -> Verdict {
    let leases = with_varied_leases(case)?;
    for_each_key(case, &leases, |query| {
        for query in [query, query.in_subnet(SubnetId(2)), query.heard_since(system_time(HEARD + 100))] {
            let query = query.reverse();
            case.finds(&query, answer(&query, &leases))?;
            case.finds(&query.limit(3), answer(&query.limit(3), &leases))?;
            case.finds(&query.reverse(), answer(&query.reverse(), &leases))?;
        }
        Ok(())
    })
}

pub(super) fn a_reversed_page_begins_before_its_address<L: TestedLease>(case: &Case<L>) -> Verdict {
    let leases = with_varied_leases(case)?;
    for_each_key(case, &leases, |query| {
        let query = query.reverse();
        for lease in &leases {
            let query = query.after(lease.address());
            case.finds(&query, answer(&query, &leases))?;
        }
        same_leases(QueryText(&query), &pages(case, &query, 4)?, answer(&query, &leases))
    })
}

pub(super) fn ended_by_finds_only_leases_that_have_ended<L: TestedLease>(case: &Case<L>) -> Verdict {
    let mut leases = varied_leases::<L>()?;
    let infinite = with(&sample::<L>(500, 1)?, |data| data.valid_lifetime.0 = u32::MAX);
    let early = with(&sample::<L>(501, 1)?, |data| data.cltt = 5);
    leases.extend([infinite, early]);
    case.add_all(&shuffled(&leases))?;
    for_each_key(case, &leases, |query| {
        for time in [0, END - 1, END, END + 100, END + 350, i64::MAX] {
            for query in [
                query.ended_by(system_time(time)),
                query.ended_by(system_time(time)).in_subnet(SubnetId(1)).limit(2),
            ] {
                case.finds(&query, answer(&query, &leases))?;
            }
        }
        Ok(())
    })
}

pub(super) fn a_name_is_found_in_any_case<L: TestedLease>(case: &Case<L>) -> Verdict {
    let mut leases = Vec::new();
    for (n, name) in ["one.example.org", "ONE.Example.org", "two.example.org"].into_iter().enumerate() {
        leases.push(with(&sample::<L>(n as u32, 1)?, |data| data.hostname = Hostname::new(name.as_bytes())));
    }
    for lease in &leases {
        let lease = lease.clone();
        let _ = ask("add", case.mgr().add(&lease))?;
    }
    for name in ["one.example.org", "ONE.EXAMPLE.ORG", "oNe.example.ORG"] {
        let name = Hostname::new(name.as_bytes());
        let found = ask("find by name", case.mgr().find(&Query::hostname(&name)))?;
        let addresses: Vec<_> = found.iter().map(Lease::address).collect();
        same("the addresses", &addresses, &leases[..2].iter().map(Lease::address).collect())?;
    }
    Ok(())
}

pub(super) fn a_state_is_found_across_many_subnets<L: TestedLease>(case: &Case<L>) -> Verdict {
    const SUBNETS: u32 = 100;
    let mut leases = Vec::new();
    for n in 0..10 * SUBNETS {
        let lease = in_subnet(&sample::<L>(n, n % 7)?, 1 + n * 37 % SUBNETS);
        leases.push(in_state(&lease, LeaseState(if n % 9 == 0 { 1 } else { 0 }))?);
    }
    case.add_all(&shuffled(&leases))?;
    for state in [0, 1, 2].map(LeaseState) {
        let query = Query::state(state);
        for query in [query, query.limit(7), query.reverse(), query.heard_since(system_time(HEARD + 1))] {
            case.finds(&query, answer(&query, &leases))?;
        }
        same_leases(QueryText(&query), &pages(case, &query, 33)?, answer(&query, &leases))?;
    }
    Ok(())
}

pub(super) fn a_client_may_have_leases_in_several_subnets<L: TestedLease>(case: &Case<L>) -> Verdict {
    let lease = |address, subnet| sample::<L>(address, 1).map(|lease| in_subnet(&lease, subnet));
    let leases = [lease(1, 3)?, lease(2, 1)?, lease(3, 2)?, lease(4, 1)?];
    case.add_all(&shuffled(&leases))?;
    let hwaddr = hwaddr(1)?;
    case.finds(&Query::hwaddr(&hwaddr), &leases)?;
    case.finds(&Query::hwaddr(&hwaddr).in_subnet(SubnetId(1)), [&leases[1], &leases[3]])?;
    for (subnet, expected) in [(3, Some(&leases[0])), (2, Some(&leases[2])), (4, None)] {
        let found = ask("find", case.mgr().by_hwaddr_in_subnet(&hwaddr, SubnetId(subnet)))?;
        same_leases(format_args!("the lease of {hwaddr} in subnet {subnet}"), found.iter(), expected)?;
    }
    for client in leases[0].client_keys() {
        let query = Query::new(Key::Client(client));
        case.finds(&query, &leases)?;
        case.finds(&query.in_subnet(SubnetId(1)), [&leases[1], &leases[3]])?;
        case.finds(&query.in_subnet(SubnetId(2)), [&leases[2]])?;
        case.finds(&query.in_subnet(SubnetId(4)), [])?;
    }
    case.delete(leases[1].address())?;
    case.holds([&leases[0], &leases[2], &leases[3]], &leases)
}

pub(super) fn the_lowest_address_of_a_client_in_a_subnet_comes_first<L: TestedLease>(
    case: &Case<L>,
) -> Verdict {
    // Added from both ends towards the middle.
    let mut there = Vec::new();
    let (hwaddr, subnet) = (hwaddr(1)?, SubnetId(1));
    let first = |there: &[L]| there.iter().min_by_key(|lease| lease.address()).cloned();
    for n in [50, 90, 10, 70, 30] {
        let lease = sample::<L>(n, 1)?;
        case.add(&lease)?;
        there.push(lease);
        let found = ask("find", case.mgr().by_hwaddr_in_subnet(&hwaddr, subnet))?;
        same_leases("the first lease of a hardware address in its subnet", &found, &first(&there))?;
        for client in there[0].client_keys() {
            let query = Query::new(Key::Client(client)).in_subnet(subnet).limit(1);
            case.finds(&query, &first(&there))?;
        }
    }
    while let Some(lowest) = first(&there) {
        case.delete(lowest.address())?;
        there.retain(|lease| lease.address() != lowest.address());
        let found = ask("find", case.mgr().by_hwaddr_in_subnet(&hwaddr, subnet))?;
        same_leases("the first lease of a hardware address in its subnet", &found, &first(&there))?;
    }
    Ok(())
}

pub(super) fn a_hardware_address_is_found_with_any_type_and_source<L: TestedLease>(
    case: &Case<L>,
) -> Verdict {
    let plain = hwaddr(1)?;
    let mut others = [plain.clone(), plain.clone(), plain.clone()];
    others[0].htype = HwType(6);
    others[1].source = HwSource(1);
    (others[2].htype, others[2].source) = (HwType(32), HwSource(u32::MAX));
    let mut leases = vec![sample::<L>(1, 1)?];
    for (other, n) in others.iter().zip(2..) {
        leases.push(sample::<L>(n, n)?.with_client(Some(other.clone()), &id(n))?);
    }
    leases.retain(|lease| case.keeps(lease));
    case.add_all(&leases)?;
    for hwaddr in others.iter().chain([&plain]) {
        case.finds(&Query::hwaddr(hwaddr), &leases)?;
        case.finds(&Query::hwaddr(hwaddr).in_subnet(SubnetId(1)), &leases)?;
    }
    // They are stored, however.
    for lease in &leases {
        case.has(lease.address(), Some(lease))?;
    }
    // A DHCPv4 file has neither.
    case.clear()
}

pub(super) fn the_shortest_and_the_longest_identifiers_are_found<L: TestedLease>(case: &Case<L>) -> Verdict {
    let (shortest, longest) = L::ID_LENGTHS;
    let mut leases = Vec::new();
    for (len, n) in [shortest, shortest + 1, 13, 14, 15, 16, longest - 1, longest].into_iter().zip(1..) {
        let id: Vec<u8> = (1..=len).map(|i| i as u8).collect();
        let hwaddr = HwAddr::new(&id[..len.min(HwAddr::MAX_LEN)])?;
        leases.push(sample::<L>(n, n)?.with_client(Some(hwaddr), &id)?);
    }
    for (len, n) in [1, 2, 3, 8, 19].into_iter().zip(100..) {
        let hwaddr = HwAddr::new(&[7; HwAddr::MAX_LEN][..len])?;
        leases.push(sample::<L>(n, n)?.with_client(Some(hwaddr), &id(n))?);
    }
    case.add_all(&shuffled(&leases))?;
    case.holds(&leases, [])
}

pub(super) fn identifiers_that_differ_in_one_byte_are_different<L: TestedLease>(case: &Case<L>) -> Verdict {
    let (shortest, longest) = L::ID_LENGTHS;
    let mut leases = Vec::new();
    for len in [shortest, 7, 14, 15, longest] {
        for changed in [0, len / 2, len - 1] {
            for byte in [1, 128] {
                let n = leases.len() as u32;
                let mut id = vec![0x75; len];
                id[changed] = byte;
                let hwaddr = HwAddr::new(&id[id.len().saturating_sub(HwAddr::MAX_LEN)..])?;
                let lease = sample::<L>(n, n)?.with_client(Some(hwaddr), &id)?;
                let named = with(&lease, |data| data.hostname = Hostname::new(&id));
                leases.push(if case.keeps(&named) { named } else { lease });
            }
        }
    }
    case.add_all(&shuffled(&leases))?;
    case.holds(&leases, [])?;
    // Also if one is a prefix of the other.
    for len in [6, 8, 13, 16] {
        let id = vec![0x75; len];
        let other = sample::<L>(0, 0)?.with_client(Some(HwAddr::new(&id)?), &id)?;
        let other = with(&other, |data| data.hostname = Hostname::new(&id));
        for_each_key(case, std::slice::from_ref(&other), |query| match query.key {
            Key::All | Key::State(_) => Ok(()),
            _ => case.finds(&query, []),
        })?;
    }
    Ok(())
}

pub(super) fn a_name_of_any_bytes_is_found<L: TestedLease>(case: &Case<L>) -> Verdict {
    let names: [&[u8]; 12] = [
        b"a",
        b"ab",
        b"host.example.org",
        b"host.example.org.",
        b"with,comma",
        b"with&#x2c;escape",
        b"new\nline",
        b"nul\0inside",
        b"nul\0",
        &[0xc3, 0xa9],
        &[0xff; 255],
        &[b'x'; 1000],
    ];
    let mut leases = Vec::new();
    for (name, n) in names.into_iter().zip(1..) {
        leases.push(with(&sample::<L>(n, n)?, |data| data.hostname = Hostname::new(name)));
    }
    leases.retain(|lease| case.keeps(lease));
    case.add_all(&shuffled(&leases))?;
    for lease in &leases {
        let name = lease.data().hostname.clone();
        case.finds(&Query::hostname(&name), [lease])?;
        case.finds(&Query::hostname(&name).in_subnet(SubnetId(1)), [lease])?;
        case.finds(&Query::hostname(&name).in_subnet(SubnetId(2)), [])?;
    }
    for absent in [&b"nul"[..], b"with%", b"host", b"a ", b" a", b"_", &[b'x'; 999], &[0xff; 256]] {
        case.finds(&Query::hostname(&Hostname::new(absent)), [])?;
    }
    Ok(())
}

pub(super) fn an_empty_name_finds_nothing<L: TestedLease>(case: &Case<L>) -> Verdict {
    let nameless = with(&sample::<L>(1, 1)?, |data| data.hostname = Hostname::default());
    let leases = [nameless, sample(2, 2)?];
    case.add_all(&leases)?;
    case.finds(&Query::hostname(&Hostname::default()), [])?;
    case.finds(&Query::hostname(&Hostname::default()).in_subnet(SubnetId(1)), [])?;
    case.holds(&leases, [])
}

pub(super) fn a_lease_without_an_identifier_is_found_by_the_others<L: TestedLease>(
    case: &Case<L>,
) -> Verdict {
    let mut leases = Vec::new();
    for n in 0..12 {
        let lease = sample::<L>(n, n % 2)?;
        let lease = match n % 3 {
            0 => lease.with_client(None, &id(n % 2))?,
            1 => with(&lease, |data| data.hostname = Hostname::default()),
            _ => lease,
        };
        leases.push(in_subnet(&lease, n / 6));
    }
    // A DHCPv4 client may have a hardware address only.
    for (field, variant) in leases[2].family_variants()? {
        if field == "no client id" {
            leases[2] = variant;
        }
    }
    case.add_all(&shuffled(&leases))?;
    case.holds(&leases, [])
}

pub(super) fn a_state_of_any_number_is_found<L: TestedLease>(case: &Case<L>) -> Verdict {
    const STATES: [u32; 11] = [0, 1, 2, 3, 4, 5, 77, 255, 256, 65536, u32::MAX];
    let mut leases = Vec::new();
    for n in 0..44 {
        let lease = in_state(&sample::<L>(n, n)?, LeaseState(STATES[n as usize % 11]))?;
        leases.push(in_subnet(&lease, 1 + n / 11 % 2));
    }
    leases.retain(|lease| case.keeps(lease));
    case.add_all(&shuffled(&leases))?;
    for state in STATES.into_iter().chain([6, 76, 78, 257, u32::MAX - 1]) {
        let query = Query::state(LeaseState(state));
        case.finds(&query, answer(&query, &leases))?;
        for subnet in 1..4 {
            let query = query.in_subnet(SubnetId(subnet));
            let found = case.mgr().by_state(LeaseState(state), Some(SubnetId(subnet)));
            same_leases(QueryText(&query), &ask(QueryText(&query), found)?, answer(&query, &leases))?;
            let query = query.after(L::address_number(15)).limit(1);
            case.finds(&query, answer(&query, &leases))?;
        }
    }
    Ok(())
}

pub(super) fn a_declined_lease_has_no_client<L: TestedLease>(case: &Case<L>) -> Verdict {
    let relay: Relay<'_> = (&[0, 3, 0, 1, 1], &[0, 0, 0, 9, 1]);
    let before = (1..6).map(|n| with_context(&sample::<L>(n, 1)?, &["gold"], &[relay]));
    let before = before.collect::<Verdict<Vec<_>>>()?;
    case.add_all(&before)?;
    let mut leases = before.clone();
    for n in [3, 0, 4, 1] {
        leases[n].decline(system_time(HEARD + 10), crate::lease::Lifetime(86400));
        case.update(&leases[n])?;
        case.has(leases[n].address(), Some(&leases[n]))?;
        case.holds(&leases, &before)?;
    }
    let declined = [&leases[0], &leases[1], &leases[3], &leases[4]];
    case.finds(&Query::state(LeaseState::DECLINED), declined)?;
    case.finds(&Query::hwaddr(&hwaddr(1)?), [&leases[2]])?;
    case.finds(&Query::hostname(&hostname(1)), [&leases[2]])?;
    // The address gets a client again.
    case.update(&before[0])?;
    case.delete(leases[1].address())?;
    case.holds([&before[0], &leases[2], &leases[3], &leases[4]], &before)
}

pub(super) fn pages_return_each_of_thousands_of_leases_once<L: TestedLease>(case: &Case<L>) -> Verdict {
    const LEASES: u32 = 5000;
    let mut leases = Vec::new();
    for n in 0..LEASES {
        leases.push(in_subnet(&sample::<L>(2 * n, n % 10)?, n % 4));
    }
    // In steps of seven, modulo their number, which reaches each address.
    case.add_all((0..LEASES).map(|n| &leases[(n * 7 % LEASES) as usize]))?;
    case.finds(&Query::all(), &leases)?;
    let hwaddr = hwaddr(3)?;
    for (query, size) in [
        (Query::all(), 1000),
        (Query::all(), 37),
        (Query::all().in_subnet(SubnetId(2)), 100),
        (Query::hwaddr(&hwaddr), 64),
        (Query::state(LeaseState::DEFAULT), 256),
    ] {
        let found = pages(case, &query, size)?;
        same_leases(format_args!("{}, page by page", QueryText(&query)), &found, answer(&query, &leases))?;
    }
    Ok(())
}

pub(super) fn type_and_iaid_restrict_an_identity(case: &Case<Lease6>) -> Verdict {
    let mut leases = Vec::new();
    for n in 0..24 {
        let kind = Lease6::KINDS[n as usize % 3];
        let mut lease = sample::<Lease6>(n, n / 12)?.with_kind(kind)?;
        lease.set_iaid(Iaid(n / 3 % 2));
        lease.data_mut().subnet_id = SubnetId(1 + n / 6 % 2);
        leases.push(lease);
    }
    case.add_all(&shuffled(&leases))?;
    let (duid, absent) = (Duid::new(&id(0))?, Duid::new(&id(9))?);
    let of = |duid, lease_type: Option<LeaseType>, iaid: Option<Iaid>| {
        let mut client = ClientKey::from(duid);
        (client.iaid, client.lease_type) = (iaid, lease_type);
        Query::<Lease6>::client(client)
    };
    for lease_type in
        [None, Some(LeaseType::NA), Some(LeaseType::TA), Some(LeaseType::PD), Some(LeaseType(3))]
    {
        for iaid in [None, Some(Iaid(0)), Some(Iaid(1)), Some(Iaid(2))] {
            let query = of(&duid, lease_type, iaid);
            case.finds(&query, answer(&query, &leases))?;
            case.finds(&of(&absent, lease_type, iaid), [])?;
            for subnet in 1..4 {
                let query = query.in_subnet(SubnetId(subnet));
                case.finds(&query, answer(&query, &leases))?;
                let query = query.limit(1);
                case.finds(&query, answer(&query, &leases))?;
                let query = query.after(Lease6::address_number(1));
                case.finds(&query, answer(&query, &leases))?;
            }
        }
    }
    let found = ask("find", case.mgr().by_identity_in_subnet(LeaseType::PD, &duid, Iaid(1), SubnetId(1)))?;
    same_leases("by type, DUID, IAID and subnet", &found, [&leases[5]])?;
    case.holds(&leases, [])
}

pub(super) fn a_lease_is_found_by_its_address_and_type(case: &Case<Lease6>) -> Verdict {
    let leases = (0..3)
        .map(|n| sample::<Lease6>(u32::from(n), 1)?.with_kind(Some(LeaseType(n))))
        .collect::<Verdict<Vec<_>>>()?;
    case.add_all(&leases)?;
    for lease in &leases {
        for lease_type in [0, 1, 2, 3].map(LeaseType) {
            let action = format!("get {} of type {lease_type}", lease.address());
            let found = ask(&action, case.mgr().get_of_type(lease_type, lease.address()))?;
            let expected = Some(lease).filter(|lease| lease.lease_type() == lease_type);
            same_leases(&action, &found, expected)?;
        }
    }
    Ok(())
}

pub(super) fn a_prefix_and_an_address_exclude_each_other(case: &Case<Lease6>) -> Verdict {
    let address: Lease6 = at(PREFIX, 1)?;
    let prefix = rebuilt(&address, PREFIX, LeaseType::PD, 56, address.duid().clone())?;
    let longer = rebuilt(&address, PREFIX, LeaseType::PD, 64, address.duid().clone())?;
    for (first, second) in [(&prefix, &address), (&address, &prefix), (&prefix, &longer)] {
        case.add(first)?;
        let action = "add another lease that begins with the same address";
        same(action, &ask(action, case.mgr().add(second))?, &Added::AddressTaken)?;
        case.holds([first], [second])?;
        case.update(second)?;
        case.holds([second], [first])?;
        case.delete(PREFIX)?;
        case.holds([], [first, second])?;
    }
    // Addresses within a prefix are not checked.
    let inside: Lease6 = at((PREFIX.to_bits() + 1).into(), 1)?;
    case.add_all([&prefix, &inside])?;
    case.holds([&prefix, &inside], [])
}

pub(super) fn a_hostname_keeps_its_case(case: &Case<Lease6>) -> Verdict {
    let lower = with(&sample::<Lease6>(1, 1)?, |data| data.hostname = "host.example".into());
    let mixed = with(&sample::<Lease6>(1, 1)?, |data| data.hostname = "Host.Example".into());
    let upper = with(&sample::<Lease6>(2, 2)?, |data| data.hostname = "HOST.EXAMPLE".into());
    if !case.keeps(&upper) {
        return Ok(());
    }
    case.add_all([&lower, &upper])?;
    case.finds(&Query::all(), [&lower, &upper])?;
    let result = case.mgr().update_expecting(&lower, Some(&mixed));
    changed_meanwhile("update a lease whose hostname has another case", &result, lower.address())?;
    case.update(&mixed)?;
    case.has(mixed.address(), Some(&mixed))?;
    case.finds(&Query::all(), [&mixed, &upper])
}
