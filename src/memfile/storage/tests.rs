//! The indexes agree with the leases after any sequence of changes.

use std::collections::BTreeMap;

use proptest::prelude::*;

use super::ended::Misplaced;
use super::packed_lease::{Packed, pack};
use super::*;
use crate::lease::{
    ClientId, Duid, Hostname, HwAddr, HwType, Iaid, Lease4, Lease6, LeaseData, LeaseType, Lifetime, PoolId,
    system_time,
};
use crate::lease_mgr::{FreeRange, Query};

/// Leases of few clients and addresses, so that they collide.
trait Arbitrary: StoredLease {
    fn arbitrary() -> BoxedStrategy<Self>;
}

fn data() -> impl Strategy<Value = LeaseData> {
    let contexts = [
        r#"{ "ISC": { "client-classes": [ "a", "b" ] } }"#,
        r#"{ "ISC": { "relay-agent-info": { "sub-options": "0x0C0401020304020155" } } }"#,
        r#"{ "ISC": { "client-classes": [ "b" ], "relay-info": [ { "options": "0x00350004AABBCCDD" } ] } }"#,
    ];
    let context = prop_oneof![
        3 => Just(None),
        1 => prop::sample::select(contexts.to_vec()).prop_map(|text| UserContext::parse(text.as_bytes()).ok()),
        1 => (0..3000_usize).prop_map(|n| UserContext::parse(format!("{{\"x\":\"{}\"}}", "y".repeat(n)).as_bytes()).ok()),
    ];
    let lifetime = prop_oneof![5 => 1..100_u32, 1 => Just(u32::MAX)];
    let cltt = prop_oneof![10 => 0..100_i64, 1 => Just(-5), 1 => Just(1 << 40)];
    let hostname = prop_oneof![Just(String::new()), "[ab]", "[a-c]{12,30}", Just("x".repeat(300))];
    (lifetime, cltt, 0..3_u32, 0..3_u32, any::<(bool, bool)>(), hostname, context).prop_map(
        |(lifetime, cltt, subnet, pool, (fwd, rev), hostname, user_context)| LeaseData {
            valid_lifetime: Lifetime(lifetime),
            cltt,
            subnet_id: SubnetId(subnet),
            pool_id: PoolId(pool),
            fqdn_fwd: fwd,
            fqdn_rev: rev,
            hostname: Hostname::from(hostname.as_str()),
            user_context,
        },
    )
}

fn hwaddr() -> impl Strategy<Value = Option<HwAddr>> {
    let some = (0..4_u8, 1..3_u16).prop_map(|(n, htype)| {
        let mut hwaddr = HwAddr::new(&[2, n]).ok();
        hwaddr.iter_mut().for_each(|hwaddr| hwaddr.htype = HwType(htype));
        hwaddr
    });
    prop_oneof![1 => Just(None), 4 => some]
}

fn state() -> impl Strategy<Value = LeaseState> {
    prop_oneof![4 => 0..5_u32, 1 => Just(2), 1 => Just(700)].prop_map(LeaseState)
}

impl Arbitrary for Lease4 {
    fn arbitrary() -> BoxedStrategy<Self> {
        let client_id = prop::option::of((0..4_u8).prop_map(|n| ClientId::new(&[1, n]).unwrap()));
        (0..20_u32, hwaddr(), client_id, state(), data())
            .prop_map(|(address, hwaddr, client_id, state, data)| {
                let state =
                    if hwaddr.is_none() && client_id.is_none() { LeaseState::DECLINED } else { state };
                let mut lease = Self::new(address.into(), hwaddr, client_id, state).unwrap();
                *lease.data_mut() = data;
                lease
            })
            .boxed()
    }
}

impl Arbitrary for Lease6 {
    fn arbitrary() -> BoxedStrategy<Self> {
        let duid = (0..4_u8).prop_map(|n| Duid::new(&[0, 0, n, 0]).unwrap());
        (0..20_u32, hwaddr(), duid, state(), data(), 0..3_u16, 0..3_u32)
            .prop_map(|(n, hwaddr, duid, state, data, lease_type, iaid)| {
                let address = (u128::from(n) << 64).into();
                let iaid = Iaid(iaid);
                let mut lease = match lease_type {
                    2 => Self::new_prefix(address, 64, duid, iaid, state).unwrap(),
                    _ => Self::new(LeaseType(lease_type), address, duid, iaid, state).unwrap(),
                };
                lease.set_hwaddr(hwaddr);
                lease.set_preferred_lifetime(Lifetime(n));
                *lease.data_mut() = data;
                lease
            })
            .boxed()
    }
}

#[derive(Clone, Debug)]
enum Step<L> {
    Put(L),
    Remove(L),
    Expired(i64),
}

fn steps<L: Arbitrary>() -> impl Strategy<Value = Vec<Step<L>>> {
    let step = prop_oneof![
        5 => L::arbitrary().prop_map(Step::Put),
        2 => L::arbitrary().prop_map(Step::Remove),
        1 => (-50..250_i64).prop_map(Step::Expired),
    ];
    prop::collection::vec(step, 1..120)
}

fn packed<L: StoredLease>(lease: &L) -> Vec<u8> {
    let mut record = Vec::new();
    pack(lease, &mut record);
    record
}

fn expired<L: StoredLease>(storage: &mut Storage<L>, queue: ExpiryKind, now: i64) -> Vec<L> {
    loop {
        match storage.ended(queue, now, None, usize::MAX, |packed| packed.lease()) {
            Ok(leases) => return leases.into_iter().map(|(_, lease)| lease).collect(),
            Err(Misplaced) => storage.fix_places(queue, now, None, usize::MAX),
        }
    }
}

fn check_agreement<L: Arbitrary>(steps: Vec<Step<L>>) -> Result<(), TestCaseError> {
    let mut storage = Storage::<L>::new(true);
    let mut model: BTreeMap<L::AddressKey, L> = BTreeMap::new();
    for step in steps {
        match step {
            Step::Put(lease) => {
                storage.replace(&packed(&lease)).map_err(|NoRoom| TestCaseError::fail("no room"))?;
                model.insert(lease.key(), lease);
            }
            Step::Remove(lease) => {
                prop_assert_eq!(storage.remove(lease.key()), model.remove(&lease.key()).is_some());
            }
            Step::Expired(now) => {
                for queue in [ExpiryKind::Expiring, ExpiryKind::Reclaimed] {
                    let mut wanted: Vec<_> = model
                        .values()
                        .filter(|lease| {
                            ExpiryKind::of(lease.state()) == queue && lease.is_expired(system_time(now))
                        })
                        .cloned()
                        .collect();
                    wanted.sort_by_key(|lease| (lease.end(), lease.key()));
                    prop_assert_eq!(expired(&mut storage, queue, now), wanted);
                }
                let range = FreeRange::<L>::new(L::address_of_bits(0)..=L::address_of_bits(u128::MAX));
                let is_taken = |address| {
                    let current = model.get(&L::key_of(address));
                    current.is_some_and(|lease| !lease.is_reclaimed() && !lease.is_expired(system_time(now)))
                };
                for first in model.keys().map(|&key| L::address_of(key)).chain([range.first()]) {
                    let mut next = first;
                    while is_taken(next) {
                        next = range.after(next).expect("the last address has no lease");
                    }
                    let found = storage.first_free(&range, first, now, 1);
                    prop_assert!(
                        matches!(found, free_range::Step::Free(address) if address == next),
                        "{:?}",
                        found
                    );
                }
            }
        }
        if let Err(what) = storage.check() {
            return Err(TestCaseError::fail(what));
        }
    }
    let mut all = Vec::new();
    storage.find(&Query::all(), None, usize::MAX, usize::MAX, &mut all);
    prop_assert_eq!(&all, &model.values().cloned().collect::<Vec<_>>());

    let mut loaded = Storage::<L>::new(true);
    for lease in &all {
        loaded.load(&packed(lease)).map_err(|NoRoom| TestCaseError::fail("no room"))?;
    }
    loaded.build_indexes().unwrap();
    loaded.check().map_err(TestCaseError::fail)
}

proptest! {
    #[test]
    fn packing_preserves_a_lease(v4 in Lease4::arbitrary(), v6 in Lease6::arbitrary()) {
        let (record4, record6) = (packed(&v4), packed(&v6));
        prop_assert_eq!(Packed::<Lease4>::new(&record4).lease(), v4);
        prop_assert_eq!(Packed::<Lease6>::new(&record6).lease(), v6);
    }

    #[test]
    fn packed_leases_are_equal_if_the_leases_are(
        lease in Lease4::arbitrary(),
        data in data(),
        change in any::<[bool; 3]>(),
    ) {
        let mut other = lease.clone();
        if change[0] { other.data_mut().user_context = data.user_context; }
        if change[1] { other.data_mut().hostname = data.hostname; }
        if change[2] { other.data_mut().cltt = data.cltt; }
        let (a, b) = (packed(&lease), packed(&other));
        prop_assert_eq!(Packed::<Lease4>::new(&a).is_same(&Packed::new(&b)), lease == other);
    }

    #[test]
    fn indexes_and_leases_agree_for_dhcpv4(steps in steps::<Lease4>()) {
        check_agreement(steps)?;
    }

    #[test]
    fn indexes_and_leases_agree_for_dhcpv6(steps in steps::<Lease6>()) {
        check_agreement(steps)?;
    }
}

#[test]
fn a_usual_lease_is_packed_into_64_bytes() {
    let hwaddr = HwAddr::new(&[2, 0, 0, 0, 0, 1]).unwrap();
    let client_id = ClientId::new(&[1, 2, 0, 0, 0, 0, 1]).unwrap();
    let mut lease =
        Lease4::new([10, 0, 0, 1].into(), Some(hwaddr), Some(client_id), LeaseState::DEFAULT).unwrap();
    lease.data_mut().hostname = "host-123456.example.org".into();
    assert_eq!(packed(&lease).len(), 64);
}
