//! An index of leases by the IDs that relay agents have added.

use std::collections::HashMap;

use foldhash::fast::RandomState;

use super::b_tree::OrderedMap;
use super::packed_lease::StoredLease;
use crate::lease::{RelayId, RelayInfo, RemoteId, UserContext};

type Addresses<K> = OrderedMap<K, ()>;

/// Addresses by relay ID and by remote ID, as found in the user context.
pub(super) struct RelayIndex<L: StoredLease> {
    enabled: bool,
    relays: HashMap<RelayId, Addresses<L::AddressKey>, RandomState>,
    remotes: HashMap<RemoteId, Addresses<L::AddressKey>, RandomState>,
}

impl<L: StoredLease> RelayIndex<L> {
    pub(super) fn new(enabled: bool) -> Self {
        let (relays, remotes) = (HashMap::default(), HashMap::default());
        Self { enabled, relays, remotes }
    }

    pub(super) fn insert(&mut self, context: &UserContext, key: L::AddressKey) {
        if self.enabled {
            for RelayInfo { relay_id, remote_id } in RelayInfo::all(L::FAMILY, context) {
                if let Some(id) = relay_id {
                    self.relays.entry(id).or_default().insert(key, ());
                }
                if let Some(id) = remote_id {
                    self.remotes.entry(id).or_default().insert(key, ());
                }
            }
        }
    }

    pub(super) fn remove(&mut self, context: &UserContext, key: L::AddressKey) {
        if self.enabled {
            for RelayInfo { relay_id, remote_id } in RelayInfo::all(L::FAMILY, context) {
                if let Some(id) = relay_id {
                    remove(&mut self.relays, &id, key);
                }
                if let Some(id) = remote_id {
                    remove(&mut self.remotes, &id, key);
                }
            }
        }
    }

    pub(super) fn by_relay(&self, id: &RelayId) -> Option<&Addresses<L::AddressKey>> {
        self.relays.get(id)
    }

    pub(super) fn by_remote(&self, id: &RemoteId) -> Option<&Addresses<L::AddressKey>> {
        self.remotes.get(id)
    }

    pub(super) fn is_enabled(&self) -> bool {
        self.enabled
    }

    /// Returns all entries.
    #[cfg(test)]
    pub(super) fn content(&self) -> std::collections::BTreeSet<(Vec<u8>, bool, L::AddressKey)> {
        let all = |n: &[u8], addresses: &Addresses<L::AddressKey>, relay| {
            let keys: Vec<_> = addresses.iter_from(std::ops::Bound::Unbounded).map(|(key, ())| key).collect();
            keys.into_iter().map(|key| (n.to_vec(), relay, key)).collect::<Vec<_>>()
        };
        let relays = self.relays.iter().flat_map(|(id, keys)| all(id.as_bytes(), keys, true));
        relays.chain(self.remotes.iter().flat_map(|(id, keys)| all(id.as_bytes(), keys, false))).collect()
    }
}

fn remove<I: Eq + std::hash::Hash, K: Copy + Ord>(
    index: &mut HashMap<I, Addresses<K>, RandomState>,
    id: &I,
    key: K,
) {
    if let Some(addresses) = index.get_mut(id) {
        addresses.remove(key);
        if addresses.is_empty() {
            index.remove(id);
        }
    }
}
