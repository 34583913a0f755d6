//! Long histories of mixed changes and queries.

use super::TestedLease;
use super::case::{Case, Fault, Verdict, ask, changed_meanwhile, no_such_lease, same};
use super::model::{Keys, answer, expired, has_statistics};
use super::sample::{END, HEARD, Relay, hostname, hwaddr, id, in_state, sample, with, with_context};
use crate::lease::{Hostname, LeaseState, Lifetime, PoolId, SubnetId, system_time};
use crate::{Added, Deleted, LeaseMgrExt, Query, StatisticsQuery, Subnets};

/// Pseudorandom numbers, always the same (SplitMix64).
struct Random(u64);

impl Random {
    fn number(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.0 ^ self.0 >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ mixed >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ mixed >> 31
    }

    /// Returns a number less than `bound`.
    fn below(&mut self, bound: u32) -> u32 {
        (self.number() % u64::from(bound)) as u32
    }

    /// Returns true once in `times` calls, on average.
    fn once_in(&mut self, times: u32) -> bool {
        self.below(times) == 0
    }

    fn of<'a, T>(&mut self, choices: &'a [T]) -> Option<&'a T> {
        if choices.is_empty() {
            return None;
        }
        choices.get(self.below(choices.len() as u32) as usize)
    }
}

pub(super) fn a_long_history_of_few_leases_is_consistent<L: TestedLease>(case: &Case<L>) -> Verdict {
    history(case, Random(1), 24, 3000).map_err(Fault::in_passing)
}

pub(super) fn a_long_history_of_many_leases_is_consistent<L: TestedLease>(case: &Case<L>) -> Verdict {
    history(case, Random(2), 400, 3000).map_err(Fault::in_passing)
}

/// Returns a lease of one of `addresses` addresses; all other values are few enough to coincide
/// often.
fn any_lease<L: TestedLease>(random: &mut Random, addresses: u32) -> Verdict<L> {
    let client = random.below(6);
    let mut lease = sample::<L>(random.below(addresses), client)?;
    if random.once_in(3) {
        lease = lease.with_client(Some(hwaddr(random.below(6))?), &id(client))?;
    }
    for (_, variant) in lease.family_variants()? {
        if random.once_in(6) {
            lease = variant;
        }
    }
    if random.once_in(6) && !lease.id().is_empty() {
        lease = lease.with_client(None, &id(client))?;
    }
    let state = LeaseState(*random.of(&[0, 0, 0, 0, 1, 2, 2, 3, 4, 77]).unwrap_or(&0));
    lease = in_state(&lease, state)?;
    if state == LeaseState::DECLINED && random.once_in(2) {
        lease = lease.with_client(None, &[])?;
    }
    let classes: &[&str] = random.of(&[&[][..], &["gold"], &["gold", "silver"]]).copied().unwrap_or_default();
    let (relay, remote) = ([0, 3, 0, random.below(3) as u8], [0, 0, 0, 9, random.below(3) as u8]);
    let relays: &[Relay<'_>] = &[(&relay, &remote), (&remote, &relay)];
    let relays = &relays[..random.below(3) as usize];
    if !random.once_in(4) {
        lease = with_context(&lease, classes, relays)?;
    }
    let data = lease.data_mut();
    data.subnet_id = SubnetId(random.below(3));
    data.pool_id = PoolId(random.below(2));
    data.cltt = HEARD + i64::from(random.below(50));
    data.hostname = if random.once_in(4) { Hostname::default() } else { hostname(random.below(4)) };
    match random.below(10) {
        0 => data.valid_lifetime = Lifetime::INFINITE,
        1 => data.valid_lifetime = Lifetime(10),
        _ => {}
    }
    Ok(lease)
}

/// Makes changes and queries of all kinds, again and again.
fn history<L: TestedLease>(case: &Case<L>, mut random: Random, addresses: u32, steps: u32) -> Verdict {
    // In the order of addresses.
    let mut leases: Vec<L> = Vec::new();
    for step in 0..steps {
        change(case, &mut random, addresses, &mut leases)?;
        question(case, &mut random, addresses, &leases)?;
        if step % 1000 == 999 {
            case.holds(&leases, [])?;
        }
    }
    Ok(())
}

fn change<L: TestedLease>(
    case: &Case<L>,
    random: &mut Random,
    addresses: u32,
    leases: &mut Vec<L>,
) -> Verdict {
    let lease = any_lease::<L>(random, addresses)?;
    let other = any_lease::<L>(random, addresses)?;
    let address = lease.address();
    let place = leases.binary_search_by_key(&address, L::address);
    let mgr = case.mgr();
    match (random.below(40), place) {
        (0..16, Err(place)) => {
            case.add(&lease)?;
            leases.insert(place, lease);
        }
        (0..16, Ok(_)) => {
            same("add to an address with a lease", &ask("add", mgr.add(&lease))?, &Added::AddressTaken)?;
        }
        (16..20, Err(_)) => no_such_lease("update", &mgr.update_expecting(&lease, None), address)?,
        (20..22, Err(_)) => no_such_lease("update", &mgr.update_expecting(&lease, Some(&lease)), address)?,
        (16..20, Ok(place)) => {
            case.update(&lease)?;
            leases[place] = lease;
        }
        (20..24, Ok(place)) => {
            ask("update, if unchanged", mgr.update_expecting(&lease, Some(&leases[place])))?;
            leases[place] = lease;
        }
        (24..26, Ok(place)) => {
            let renewed = with(&leases[place], |data| data.cltt += 1);
            changed_meanwhile(
                "update, if unchanged",
                &mgr.update_expecting(&lease, Some(&renewed)),
                address,
            )?;
        }
        (26..29, Ok(place)) => {
            case.delete(address)?;
            leases.remove(place);
        }
        (29..31, Ok(place)) => {
            ask("delete, if unchanged", mgr.delete_expecting(address, Some(&leases[place])))?;
            leases.remove(place);
        }
        (31..33, Ok(place)) => {
            let renewed = with(&leases[place], |data| data.cltt += 1);
            changed_meanwhile(
                "delete, if unchanged",
                &mgr.delete_expecting(address, Some(&renewed)),
                address,
            )?;
        }
        (22..33, Err(_)) => {
            same("delete", &ask("delete", mgr.delete_expecting(address, None))?, &Deleted::NoSuchLease)?;
        }
        (33..39, _) => {
            // The lease that ends next is reclaimed, as by a server.
            let found = ask("expired", mgr.list_expired(system_time(END + 25), 1))?;
            for lease in found {
                let reclaimed = in_state(&lease, LeaseState::EXPIRED_RECLAIMED);
                let Ok(place) = leases.binary_search_by_key(&lease.address(), L::address) else {
                    return case.has(lease.address(), None);
                };
                // A lease without a client cannot be reclaimed.
                if let Ok(reclaimed) = reclaimed {
                    ask("reclaim", mgr.update_if_unchanged(&lease, &reclaimed))?;
                    leases[place] = reclaimed;
                } else {
                    case.delete(lease.address())?;
                    leases.remove(place);
                }
            }
        }
        _ => {
            let (subnet, until) = (other.data().subnet_id, END + i64::from(random.below(40)));
            match random.below(4) {
                0 => {
                    ask("wipe", mgr.wipe_subnet(subnet))?;
                    leases.retain(|lease| lease.data().subnet_id != subnet);
                }
                1 => ask("recount", mgr.recount())?,
                _ => {
                    ask("delete reclaimed leases", mgr.delete_reclaimed(system_time(until)))?;
                    leases.retain(|lease| lease.state().0 != 2 || !lease.is_expired(system_time(until)));
                }
            }
        }
    }
    Ok(())
}

fn question<L: TestedLease>(case: &Case<L>, random: &mut Random, addresses: u32, leases: &[L]) -> Verdict {
    let like = any_lease::<L>(random, addresses)?;
    let keys = Keys::of(case, &like);
    let keys = keys.each();
    let Some(&key) = random.of(&keys) else {
        return Ok(());
    };
    let mut query = Query::new(key);
    if random.once_in(2) {
        query.subnet = Some(like.data().subnet_id);
    }
    if random.once_in(3) {
        query.after = Some(L::address_number(random.below(addresses)));
    }
    if random.once_in(3) {
        query.limit = Some(1 + random.below(7) as usize);
    }
    if random.once_in(4) {
        query.heard_since = Some(HEARD + i64::from(random.below(50)));
    }
    if random.once_in(4) {
        let since = query.heard_since.unwrap_or(HEARD);
        query.heard_until = Some(since + i64::from(random.below(50)));
    }
    case.finds(&query, answer(&query, leases))?;
    let (now, limit) = (END - 10 + i64::from(random.below(70)), random.below(5) as usize);
    case.expired(now, limit, expired(leases, now, limit))?;
    let subnets = match like.data().subnet_id {
        // There are no statistics of subnet 0.
        subnet if subnet.0 > 0 && random.once_in(2) => Subnets::One(subnet),
        _ => Subnets::All,
    };
    let by_pool = random.once_in(2);
    has_statistics(case, &StatisticsQuery { subnets, by_pool }, leases)
}
