//! Numbers of leases, updated with each change: by subnet, pool, type and state, and by client
//! class.

use std::collections::{BTreeMap, HashMap};
use std::ops::Bound;

use foldhash::fast::RandomState;

use super::Storage;
use super::packed_lease::{Packed, StoredLease};
use crate::lease::{
    ClientClass, LeaseKind, LeaseState, LeaseType, PoolId, SubnetId, UserContext, client_classes,
};
use crate::lease_mgr::{StatisticsQuery, StatisticsRow};

/// The attributes by which leases are counted.
pub(super) type CountKey = (SubnetId, PoolId, Option<LeaseType>, LeaseState);

/// Numbers of leases in use, addresses and prefixes, for each client class that they name.
pub(super) type Classes = HashMap<ClientClass, [u64; 2], RandomState>;

impl<L: StoredLease> Storage<L> {
    /// Returns the numbers of leases.
    pub(in crate::memfile) fn statistics(&self, query: &StatisticsQuery) -> Vec<StatisticsRow> {
        let (first, last) = query.subnets.bounds();
        let lowest = (first, PoolId(0), None, LeaseState(0));
        let counts = self.counts.range(lowest..).take_while(|((subnet, ..), _)| *subnet <= last);
        if first > last {
            return Vec::new();
        }
        let mut rows: Vec<StatisticsRow> = Vec::new();
        for (&(subnet_id, pool_id, lease_type, state), &count) in counts {
            let pool_id = query.by_pool.then_some(pool_id);
            rows.push(StatisticsRow { subnet_id, pool_id, lease_type, state, count });
        }
        rows.sort_unstable();
        rows.dedup_by(|row, kept| {
            let same = StatisticsRow { count: 0, ..*row } == StatisticsRow { count: 0, ..*kept };
            kept.count += if same { row.count } else { 0 };
            same
        });
        rows
    }

    /// Counts all leases again.
    pub(in crate::memfile) fn recount(&mut self) {
        self.counts.clear();
        self.classes.clear();
        for (_, id) in self.primary.iter_from(Bound::Unbounded) {
            let packed = self.primary.packed(id);
            change_count::<L>(&mut self.counts, count_key(&packed), true);
            if let Some(context) = packed.user_context() {
                let (kind, state) = (L::kind_in(&packed), packed.state());
                change_classes(&mut self.classes, &context, kind, state, true);
            }
        }
    }

    /// Returns the number of leases in use that name a client class.
    pub(in crate::memfile) fn class_leases(&self, class: &ClientClass, kind: LeaseKind) -> u64 {
        self.classes.get(class).map_or(0, |counts| counts[kind as usize])
    }
}

/// Returns the attributes by which a lease is counted.
pub(super) fn count_key<L: StoredLease>(packed: &Packed<'_, L>) -> CountKey {
    (packed.subnet_id(), packed.pool_id(), L::kind_in(packed), packed.state())
}

pub(super) fn change_count<L: StoredLease>(counts: &mut BTreeMap<CountKey, u64>, key: CountKey, add: bool) {
    let (_, _, kind, state) = key;
    if !L::is_counted(kind, state) {
        return;
    }
    let count = counts.entry(key).or_default();
    *count = if add { *count + 1 } else { count.saturating_sub(1) };
    if *count == 0 {
        counts.remove(&key);
    }
}

pub(super) fn change_classes(
    classes: &mut Classes,
    context: &UserContext,
    kind: Option<LeaseType>,
    state: LeaseState,
    add: bool,
) {
    let Some(kind) = kind.map_or(Some(LeaseKind::Address), LeaseKind::of) else {
        return;
    };
    if state != LeaseState::DEFAULT {
        return;
    }
    let mut named: Vec<_> = client_classes(context).collect();
    named.sort_unstable();
    named.dedup();
    for class in named {
        if add {
            classes.entry(ClientClass::new(&class)).or_default()[kind as usize] += 1;
        } else if let Some(counts) = classes.get_mut(&*class) {
            counts[kind as usize] = counts[kind as usize].saturating_sub(1);
            if *counts == [0, 0] {
                classes.remove(&*class);
            }
        }
    }
}
