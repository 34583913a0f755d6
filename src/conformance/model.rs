//! The expected results, computed from a list of leases.

use std::collections::{BTreeMap, BTreeSet};

use super::case::{Case, Verdict, ask, same, same_leases};
use super::sample::Sample;
use crate::lease::{
    ClientClass, Family, HwAddr, LeaseData, LeaseKind, LeaseState, LeaseType, PoolId, RelayId, RemoteId,
    SubnetId, client_classes, system_time,
};
use crate::{Key, Query, StatisticsQuery, StatisticsRow, Subnets};

/// Returns whether a query selects a lease, if its limit is ignored.
pub(super) fn matches<L: Sample>(query: &Query<'_, L>, lease: &L) -> bool {
    let LeaseData { subnet_id, cltt, hostname, .. } = lease.data();
    let of_key = match query.key {
        Key::All => true,
        Key::State(state) => lease.state() == state,
        Key::HwAddr(hwaddr) => lease.hwaddr().map(HwAddr::as_bytes) == Some(hwaddr.as_bytes()),
        Key::Client(client) => lease.client_keys().contains(&client),
        Key::Hostname(name) => !name.is_empty() && hostname.as_bytes().eq_ignore_ascii_case(name.as_bytes()),
        Key::RelayId(id) => lease.relays().contains(id),
        Key::RemoteId(id) => lease.remotes().contains(id),
    };
    of_key
        && query.subnet.is_none_or(|subnet| *subnet_id == subnet)
        && query.heard_since.is_none_or(|since| *cltt >= since)
        && query.heard_until.is_none_or(|until| *cltt <= until)
        && query.ended_by.is_none_or(|time| has_ended(lease, time))
        && query.first.is_none_or(|first| lease.address() >= first)
        && query.last.is_none_or(|last| lease.address() <= last)
        && match query.after {
            None => true,
            Some(after) if query.reversed => lease.address() < after,
            Some(after) => lease.address() > after,
        }
}

fn has_ended<L: Sample>(lease: &L, time: i64) -> bool {
    let LeaseData { cltt, valid_lifetime, .. } = lease.data();
    valid_lifetime.0 != u32::MAX && i128::from(*cltt) + i128::from(valid_lifetime.0) <= i128::from(time)
}

/// Returns the result of a query, from leases in the order of their addresses.
pub(super) fn answer<'a, L: Sample>(query: &Query<'_, L>, leases: &'a [L]) -> Vec<&'a L> {
    let limit = query.limit.unwrap_or(usize::MAX);
    let all = leases.iter().filter(|lease| matches(query, lease));
    if query.reversed { all.rev().take(limit).collect() } else { all.take(limit).collect() }
}

/// Returns the expired leases, in order.
pub(super) fn expired<L: Sample>(leases: &[L], now: i64, limit: usize) -> Vec<&L> {
    let has_expired = |lease: &&L| lease.state().0 != 2 && has_ended(*lease, now);
    let mut expired: Vec<_> = leases.iter().filter(has_expired).collect();
    expired.sort_by_key(|lease| (lease.end(), lease.address()));
    expired.truncate(if limit == 0 { usize::MAX } else { limit });
    expired
}

/// Returns the rows of statistics.
pub(super) fn statistics<L: Sample>(leases: &[L], query: &StatisticsQuery) -> Vec<StatisticsRow> {
    let mut counts: BTreeMap<(SubnetId, Option<PoolId>, Option<LeaseType>, LeaseState), u64> =
        BTreeMap::new();
    for lease in leases {
        let (subnet, pool) = (lease.data().subnet_id, lease.data().pool_id);
        let wanted = match query.subnets {
            Subnets::All => true,
            Subnets::One(one) => subnet == one,
            Subnets::Range(first, last) => first <= subnet && subnet <= last,
        };
        if wanted && L::has_row(lease.kind(), lease.state()) {
            *counts
                .entry((subnet, query.by_pool.then_some(pool), lease.kind(), lease.state()))
                .or_default() += 1;
        }
    }
    let row = |((subnet_id, pool_id, lease_type, state), count)| {
        StatisticsRow::new(subnet_id, pool_id, lease_type, state, count)
    };
    counts.into_iter().map(row).collect()
}

/// Returns the names of the client classes of a lease.
pub(super) fn classes<L: Sample>(lease: &L) -> BTreeSet<String> {
    let context = lease.data().user_context.as_ref();
    let names = context.into_iter().flat_map(client_classes);
    names.map(|name| String::from_utf8_lossy(&name).into_owned()).collect()
}

/// Returns the number of leases in use of a class.
pub(super) fn class_leases<L: Sample>(leases: &[L], class: &str, kind: LeaseKind) -> u64 {
    let lease_type = match kind {
        LeaseKind::Address => 0,
        LeaseKind::Prefix => 2,
    };
    let counts = |lease: &&L| {
        lease.state().0 == 0
            && lease.kind().map_or(0, |kind| kind.0) == lease_type
            && classes(*lease).contains(class)
    };
    leases.iter().filter(counts).count() as u64
}

/// The keys of a lease.
pub(super) struct Keys<'a, L: Sample> {
    lease: &'a L,
    relays: Vec<RelayId>,
    remotes: Vec<RemoteId>,
}

impl<'a, L: Sample> Keys<'a, L> {
    /// Returns the keys of a lease; relay id and remote id only if the manager must find them.
    pub(super) fn of(case: &Case<L>, lease: &'a L) -> Self {
        let with_relays = case.extended_info || L::FAMILY == Family::V4;
        let relays = if with_relays { lease.relays() } else { Vec::new() };
        let remotes = if with_relays { lease.remotes() } else { Vec::new() };
        Self { lease, relays, remotes }
    }

    /// Returns each key.
    pub(super) fn each(&self) -> Vec<Key<'_>> {
        let hostname = &self.lease.data().hostname;
        let hostname = Some(hostname).filter(|name| !name.is_empty());
        let mut keys = vec![Key::All, Key::State(self.lease.state())];
        keys.extend(self.lease.hwaddr().map(Key::HwAddr));
        keys.extend(self.lease.client_keys().into_iter().map(Key::Client));
        keys.extend(hostname.map(Key::Hostname));
        keys.extend(self.relays.iter().map(Key::RelayId));
        keys.extend(self.remotes.iter().map(Key::RemoteId));
        keys
    }
}

/// Calls `check` once with each query without bounds that selects one of the leases.
pub(super) fn for_each_key<L: Sample>(
    case: &Case<L>,
    leases: &[L],
    mut check: impl FnMut(Query<'_, L>) -> Verdict,
) -> Verdict {
    let mut seen = BTreeSet::new();
    for lease in leases {
        for key in Keys::of(case, lease).each() {
            if seen.insert(format!("{key:?}")) {
                check(Query::new(key))?;
            }
        }
    }
    Ok(())
}

/// Checks the results of all queries, by every key of the given leases and of others, of a manager
/// with these leases.
pub(super) fn audit<L: Sample>(case: &Case<L>, mut leases: Vec<L>, others: &[L]) -> Verdict {
    leases.sort_by_key(L::address);
    let leases = &leases[..];
    let known: Vec<_> = leases.iter().chain(others).cloned().collect();
    let subnets: BTreeSet<_> = known.iter().map(|lease| lease.data().subnet_id).collect();

    for lease in &known {
        let expected = leases.iter().find(|other| other.address() == lease.address());
        case.has(lease.address(), expected)?;
    }
    for_each_key(case, &known, |query| {
        case.finds(&query, answer(&query, leases))?;
        subnets.iter().try_for_each(|&subnet| {
            let query = query.in_subnet(subnet);
            case.finds(&query, answer(&query, leases))
        })
    })?;

    let ends: BTreeSet<_> = known.iter().filter_map(|lease| i64::try_from(lease.end()?).ok()).collect();
    for now in ends.into_iter().chain([0]) {
        let found = ask("list expired leases", case.mgr().list_expired(system_time(now), 0))?;
        same_leases(format_args!("leases that have expired at {now}"), &found, expired(leases, now, 0))?;
    }

    audit_figures(case, leases, &known)?;
    if let Some(count) = case.mgr().status().leases {
        same("the number of leases in the status", &count, &(leases.len() as u64))?;
    }
    Ok(())
}

/// Checks the counts; a part of [`audit`].
fn audit_figures<L: Sample>(case: &Case<L>, leases: &[L], known: &[L]) -> Verdict {
    for by_pool in [false, true] {
        let query = StatisticsQuery { subnets: Subnets::All, by_pool };
        has_statistics(case, &query, leases)?;
    }
    let names: BTreeSet<_> = known.iter().flat_map(classes).collect();
    for name in &names {
        for kind in [LeaseKind::Address, LeaseKind::Prefix] {
            has_class_leases(case, name, kind, class_leases(leases, name, kind))?;
        }
    }
    Ok(())
}

/// Checks that the statistics are those of these leases.
pub(super) fn has_statistics<L: Sample>(case: &Case<L>, query: &StatisticsQuery, leases: &[L]) -> Verdict {
    let found = ask(format_args!("{query:?}"), case.mgr().statistics(query))?;
    same(format_args!("{query:?}"), &found, &statistics(leases, query))
}

/// Checks the number of leases of a class.
pub(super) fn has_class_leases<L: Sample>(
    case: &Case<L>,
    class: &str,
    kind: LeaseKind,
    expected: u64,
) -> Verdict {
    let action = format_args!("count the leases of class {class:?}, {kind}");
    same(action, &ask(action, case.mgr().class_leases(&ClientClass::new(class.as_bytes()), kind))?, &expected)
}
