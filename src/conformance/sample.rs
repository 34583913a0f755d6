//! Test leases of both families.

use std::net::{Ipv4Addr, Ipv6Addr};

use super::case::Verdict;
use super::{Rule, TestedLease};
use crate::lease::{
    ClientId, Duid, Hostname, HwAddr, HwSource, HwType, Iaid, Lease4, Lease6, LeaseData, LeaseState,
    LeaseType, Lifetime, PoolId, RelayId, RemoteId, SubnetId, UserContext,
};
use crate::lease_file::FileLease;
use crate::{ClientKey, ManagedLease};

/// When the clients of the samples were heard, in seconds since the epoch.
pub(super) const HEARD: i64 = 1_700_000_000;
/// Valid lifetime of the samples.
pub(super) const VALID: u32 = 3600;
/// When the samples end, in seconds since the epoch.
pub(super) const END: i64 = 1_700_003_600;

/// A relay agent by its relay id and its remote id; empty if it sent none.
pub(super) type Relay<'a> = (&'a [u8], &'a [u8]);

/// The operations that differ between the families.
pub trait Sample: ManagedLease + FileLease {
    /// Minimum and maximum length of a client id or DUID, in bytes.
    const ID_LENGTHS: (usize, usize);
    /// The types of leases.
    const KINDS: &'static [Option<LeaseType>];

    /// Returns the address with a number; addresses ascend with their numbers.
    fn address_number(n: u32) -> Self::Address;

    /// Returns addresses all over the range of the family, ascending, including the first and the
    /// last possible one.
    fn scattered() -> Vec<Self::Address>;

    /// Creates a lease of a client with this client id or DUID; empty if it has none.
    fn of_client(
        address: Self::Address,
        hwaddr: Option<HwAddr>,
        id: &[u8],
        state: LeaseState,
    ) -> Verdict<Self>;

    /// Returns the lease with another address.
    fn at_address(&self, address: Self::Address) -> Verdict<Self>;

    /// Returns the lease with another client.
    fn with_client(&self, hwaddr: Option<HwAddr>, id: &[u8]) -> Verdict<Self>;

    /// Returns the lease with another type.
    fn with_kind(&self, kind: Option<LeaseType>) -> Verdict<Self>;

    /// Returns the client id or DUID, or an empty slice for a lease without a client.
    fn id(&self) -> &[u8];

    /// Returns all keys of the client.
    fn client_keys(&self) -> Vec<ClientKey<'_>>;

    /// Returns the JSON of the data of relay agents.
    fn relay_json(relays: &[Relay<'_>]) -> String;

    /// Returns the relay ids.
    fn relays(&self) -> Vec<RelayId>;

    /// Returns the remote ids.
    fn remotes(&self) -> Vec<RemoteId>;

    /// Returns the lease with one field changed that the other family does not have, and the name
    /// of the field.
    fn family_variants(&self) -> Verdict<Vec<(&'static str, Self)>>;

    /// Returns whether leases of a type and state have a row in statistics.
    fn has_row(kind: Option<LeaseType>, state: LeaseState) -> bool;

    /// Returns the rules of this family only.
    fn family_rules() -> Vec<Rule<Self>>
    where
        Self: TestedLease;
}

/// Returns the hardware address with a number.
pub(super) fn hwaddr(n: u32) -> Verdict<HwAddr> {
    let [a, b, c, d] = n.to_be_bytes();
    Ok(HwAddr::new(&[2, 0, a, b, c, d])?)
}

/// Returns the client id or DUID with a number.
pub(super) fn id(n: u32) -> [u8; 8] {
    let [a, b, c, d] = n.to_be_bytes();
    [0, 3, 0, 1, a, b, c, d]
}

/// Returns the hostname with a number.
pub(super) fn hostname(n: u32) -> Hostname {
    Hostname::new(format!("host-{n}.example.org").as_bytes())
}

/// Returns a lease of the address and the client with these numbers: in use, in subnet 1.
pub(super) fn sample<L: Sample>(address: u32, client: u32) -> Verdict<L> {
    at(L::address_number(address), client)
}

/// As [`sample`], with any address.
pub(super) fn at<L: Sample>(address: L::Address, client: u32) -> Verdict<L> {
    let mut lease = L::of_client(address, Some(hwaddr(client)?), &id(client), LeaseState::DEFAULT)?;
    *lease.data_mut() = LeaseData {
        valid_lifetime: Lifetime(VALID),
        cltt: HEARD,
        subnet_id: SubnetId(1),
        hostname: hostname(client),
        ..LeaseData::default()
    };
    Ok(lease)
}

/// Returns a lease for each address number, each with a client of its own.
pub(super) fn samples<L: Sample>(numbers: std::ops::Range<u32>) -> Verdict<Vec<L>> {
    numbers.map(|n| sample(n, n)).collect()
}

/// Returns the lease with some of its data changed.
pub(super) fn with<L: Sample>(lease: &L, change: impl FnOnce(&mut LeaseData)) -> L {
    let mut lease = lease.clone();
    change(lease.data_mut());
    lease
}

/// Returns the lease in another state.
pub(super) fn in_state<L: Sample>(lease: &L, state: LeaseState) -> Verdict<L> {
    let mut lease = lease.clone();
    lease.set_state(state)?;
    Ok(lease)
}

/// Returns the lease in another subnet.
pub(super) fn in_subnet<L: Sample>(lease: &L, subnet: u32) -> L {
    with(lease, |data| data.subnet_id = SubnetId(subnet))
}

/// Returns the lease with another end, in seconds since the epoch.
pub(super) fn ending<L: Sample>(lease: &L, end: i64) -> L {
    with(lease, |data| data.cltt = end.wrapping_sub(data.valid_lifetime.0.into()))
}

/// Returns a user context with client classes and relay agents.
pub(super) fn context<L: Sample>(classes: &[&str], relays: &[Relay<'_>]) -> Verdict<UserContext> {
    let mut parts = vec![r#""comment": 1"#.to_owned()];
    if !classes.is_empty() {
        let names: Vec<_> = classes.iter().map(|name| format!("\"{name}\"")).collect();
        parts.push(format!("\"client-classes\": [ {} ]", names.join(", ")));
    }
    if !relays.is_empty() {
        parts.push(L::relay_json(relays));
    }
    Ok(UserContext::parse(format!("{{ \"ISC\": {{ {} }} }}", parts.join(", ")).as_bytes())?)
}

/// Returns the lease with a user context.
pub(super) fn with_context<L: Sample>(lease: &L, classes: &[&str], relays: &[Relay<'_>]) -> Verdict<L> {
    let context = context::<L>(classes, relays)?;
    Ok(with(lease, |data| data.user_context = Some(context)))
}

/// Returns a lease in which no field has its default.
pub(super) fn full<L: Sample>(n: u32) -> Verdict<L> {
    let mut lease = sample::<L>(n, n)?;
    let context = context::<L>(&["gold"], &[(&[0, 3, 0, 1, 9], &[0, 0, 0, 9, 1])])?;
    let data = lease.data_mut();
    data.pool_id = PoolId(3);
    data.fqdn_fwd = true;
    data.fqdn_rev = true;
    data.user_context = Some(context);
    in_state(&lease, LeaseState::RELEASED)
}

/// Returns leases of the same address that differ from this one in one field each, and the name of
/// the field.
pub(super) fn variants<L: Sample>(lease: &L) -> Verdict<Vec<(&'static str, L)>> {
    let hwaddr = hwaddr(77)?;
    let old = lease.hwaddr().cloned().unwrap_or(hwaddr.clone());
    let mut typed = old.clone();
    typed.htype = HwType(6);
    let mut sourced = old.clone();
    sourced.source = HwSource(2);
    let other_context = context::<L>(&["golf"], &[(&[0, 3, 0, 1, 9], &[0, 0, 0, 9, 1])])?;
    let mut variants = vec![
        ("valid lifetime", with(lease, |data| data.valid_lifetime.0 += 1)),
        ("cltt", with(lease, |data| data.cltt += 1)),
        (
            "cltt, with the same end",
            with(lease, |data| {
                data.cltt -= 1;
                data.valid_lifetime.0 += 1;
            }),
        ),
        ("infinite lifetime", with(lease, |data| data.valid_lifetime = Lifetime::INFINITE)),
        ("subnet", with(lease, |data| data.subnet_id.0 += 1)),
        ("pool", with(lease, |data| data.pool_id.0 += 1)),
        ("forward DNS flag", with(lease, |data| data.fqdn_fwd = !data.fqdn_fwd)),
        ("reverse DNS flag", with(lease, |data| data.fqdn_rev = !data.fqdn_rev)),
        ("hostname", with(lease, |data| data.hostname = hostname(77))),
        ("no hostname", with(lease, |data| data.hostname = Hostname::default())),
        ("user context", with(lease, |data| data.user_context = Some(other_context))),
        ("no user context", with(lease, |data| data.user_context = None)),
        ("state", in_state(lease, LeaseState::DECLINED)?),
        ("state of an unknown number", in_state(lease, LeaseState(77))?),
        ("hardware address", lease.with_client(Some(hwaddr), lease.id())?),
        ("type of the hardware address", lease.with_client(Some(typed), lease.id())?),
        ("source of the hardware address", lease.with_client(Some(sourced), lease.id())?),
        ("no hardware address", lease.with_client(None, lease.id())?),
        ("client id or DUID", lease.with_client(Some(old), &id(77))?),
    ];
    variants.extend(lease.family_variants()?);
    Ok(variants)
}

/// Returns the same leases in another order than that of their addresses.
pub(super) fn shuffled<L: Clone>(leases: &[L]) -> Vec<L> {
    let mut shuffled: Vec<_> = leases.iter().skip(1).step_by(2).rev().collect();
    shuffled.extend(leases.iter().step_by(2));
    shuffled.into_iter().cloned().collect()
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02X}")).collect()
}

/// Returns the options with relay id and remote id in hex, with code and length written by `head`,
/// and the keys beside them.
fn relay_map(relay: &Relay<'_>, codes: [u16; 2], name: &str, head: impl Fn(u16, usize) -> String) -> String {
    let (relay_id, remote_id) = *relay;
    let mut options = String::new();
    let mut keys = String::new();
    for (code, key, value) in [(codes[0], "relay-id", relay_id), (codes[1], "remote-id", remote_id)] {
        if !value.is_empty() {
            options += &(head(code, value.len()) + &hex(value));
            keys += &format!(", \"{key}\": \"{}\"", hex(value));
        }
    }
    format!("\"{name}\": \"0x{options}\"{keys}")
}

impl Sample for Lease4 {
    const ID_LENGTHS: (usize, usize) = (ClientId::MIN_LEN, ClientId::MAX_LEN);
    const KINDS: &'static [Option<LeaseType>] = &[None];

    fn address_number(n: u32) -> Ipv4Addr {
        Ipv4Addr::from_bits(0x0a00_0000 + n)
    }

    fn scattered() -> Vec<Ipv4Addr> {
        let addresses = [
            [0, 0, 0, 0],
            [0, 0, 0, 1],
            [9, 255, 255, 255],
            [10, 0, 0, 2],
            [10, 0, 0, 10],
            [10, 0, 0, 200],
            [10, 0, 1, 0],
            [127, 255, 255, 255],
            [128, 0, 0, 0],
            [192, 0, 2, 1],
            [224, 0, 0, 1],
            [255, 255, 255, 254],
            [255, 255, 255, 255],
        ];
        addresses.into_iter().map(Ipv4Addr::from).collect()
    }

    fn of_client(address: Ipv4Addr, hwaddr: Option<HwAddr>, id: &[u8], state: LeaseState) -> Verdict<Self> {
        let client_id = if id.is_empty() { None } else { Some(ClientId::new(id)?) };
        Ok(Self::new(address, hwaddr, client_id, state)?)
    }

    fn at_address(&self, address: Ipv4Addr) -> Verdict<Self> {
        let mut lease = Self::of_client(address, self.hwaddr().cloned(), self.id(), self.state())?;
        *lease.data_mut() = self.data().clone();
        Ok(lease)
    }

    fn with_client(&self, hwaddr: Option<HwAddr>, id: &[u8]) -> Verdict<Self> {
        let mut lease = Self::of_client(self.address(), hwaddr, id, self.state())?;
        *lease.data_mut() = self.data().clone();
        Ok(lease)
    }

    fn with_kind(&self, _: Option<LeaseType>) -> Verdict<Self> {
        Ok(self.clone())
    }

    fn id(&self) -> &[u8] {
        self.client_id().map_or(&[], ClientId::as_bytes)
    }

    fn client_keys(&self) -> Vec<ClientKey<'_>> {
        self.client_id().into_iter().map(ClientKey::from).collect()
    }

    fn relay_json(relays: &[Relay<'_>]) -> String {
        let head = |code, len| format!("{code:02X}{len:02X}");
        let map = |relay| relay_map(relay, [12, 2], "sub-options", head);
        format!("\"relay-agent-info\": {{ {} }}", relays.first().map(map).unwrap_or_default())
    }

    fn relays(&self) -> Vec<RelayId> {
        self.relay_id().into_iter().collect()
    }

    fn remotes(&self) -> Vec<RemoteId> {
        self.remote_id().into_iter().collect()
    }

    fn family_variants(&self) -> Verdict<Vec<(&'static str, Self)>> {
        Ok(vec![("no client id", self.with_client(self.hwaddr().cloned(), &[])?)])
    }

    fn has_row(_: Option<LeaseType>, state: LeaseState) -> bool {
        [0, 1].contains(&state.0)
    }

    fn family_rules() -> Vec<Rule<Self>> {
        Vec::new()
    }
}

/// The first address of a delegated prefix of at least 56 bits.
pub(super) const PREFIX: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 1, 0, 0, 0, 0, 0);

impl Sample for Lease6 {
    const ID_LENGTHS: (usize, usize) = (Duid::MIN_LEN, Duid::MAX_LEN);
    const KINDS: &'static [Option<LeaseType>] =
        &[Some(LeaseType::NA), Some(LeaseType::TA), Some(LeaseType::PD)];

    fn address_number(n: u32) -> Ipv6Addr {
        Ipv6Addr::from_bits((0x2001_0db8 << 96) + u128::from(n))
    }

    fn scattered() -> Vec<Ipv6Addr> {
        let numbers = [
            0,
            1,
            u128::from(u64::MAX),
            1 << 64,
            2 << 112,
            0x10 << 112,
            (0x2001_0db8 << 96) + 2,
            (0x2001_0db8 << 96) + 0x10,
            (0x2001_0db8 << 96) + (1 << 63) - 1,
            (0x2001_0db8 << 96) + (1 << 63),
            0x2001_0db8_0001 << 80,
            (1 << 127) - 1,
            1 << 127,
            (0xfe80 << 112) + 1,
            u128::MAX - 1,
            u128::MAX,
        ];
        numbers.into_iter().map(Ipv6Addr::from_bits).collect()
    }

    fn of_client(address: Ipv6Addr, hwaddr: Option<HwAddr>, id: &[u8], state: LeaseState) -> Verdict<Self> {
        let duid = if id.is_empty() { Duid::empty() } else { Duid::new(id)? };
        let mut lease = Self::new(LeaseType::NA, address, duid, Iaid(1), state)?;
        lease.set_hwaddr(hwaddr);
        lease.set_preferred_lifetime(Lifetime(VALID / 2));
        Ok(lease)
    }

    fn at_address(&self, address: Ipv6Addr) -> Verdict<Self> {
        rebuilt(self, address, self.lease_type(), self.prefix_len(), self.duid().clone())
    }

    fn with_client(&self, hwaddr: Option<HwAddr>, id: &[u8]) -> Verdict<Self> {
        let duid = if id.is_empty() { Duid::empty() } else { Duid::new(id)? };
        let lease = rebuilt(self, self.address(), self.lease_type(), self.prefix_len(), duid)?;
        Ok(changed(&lease, |lease| lease.set_hwaddr(hwaddr.clone())))
    }

    fn with_kind(&self, kind: Option<LeaseType>) -> Verdict<Self> {
        rebuilt(self, self.address(), kind.unwrap_or_default(), 128, self.duid().clone())
    }

    fn id(&self) -> &[u8] {
        self.duid().as_bytes()
    }

    fn client_keys(&self) -> Vec<ClientKey<'_>> {
        if self.duid().is_empty() {
            return Vec::new();
        }
        let (client, lease_type) = (ClientKey::from(self.duid()), self.lease_type());
        let in_iaid = client.iaid(self.iaid());
        vec![client, in_iaid, client.lease_type(lease_type), in_iaid.lease_type(lease_type)]
    }

    fn relay_json(relays: &[Relay<'_>]) -> String {
        let head = |code, len| format!("{code:04X}{len:04X}");
        let map = |(hop, relay)| {
            let options = relay_map(relay, [53, 37], "options", head);
            format!("{{ \"hop\": {hop}, \"link\": \"2001:db8::1\", \"peer\": \"fe80::1\", {options} }}")
        };
        let maps: Vec<_> = relays.iter().enumerate().map(map).collect();
        format!("\"relay-info\": [ {} ]", maps.join(", "))
    }

    fn relays(&self) -> Vec<RelayId> {
        self.relay_ids().collect()
    }

    fn remotes(&self) -> Vec<RemoteId> {
        self.remote_ids().collect()
    }

    fn family_variants(&self) -> Verdict<Vec<(&'static str, Self)>> {
        Ok(vec![
            ("IAID", changed(self, |lease| lease.set_iaid(lease.iaid().0 + 1))),
            (
                "preferred lifetime",
                changed(self, |lease| lease.set_preferred_lifetime(lease.preferred_lifetime().0 + 7)),
            ),
            ("type TA", self.with_kind(Some(LeaseType::TA))?),
            ("type PD", self.with_kind(Some(LeaseType::PD))?),
            // A value that Kea 2.2 records.
            ("prefix length", rebuilt(self, self.address(), LeaseType::PD, 64, self.duid().clone())?),
            (
                "DUID of one byte",
                rebuilt(self, self.address(), self.lease_type(), self.prefix_len(), Duid::recorded(&[1])?)?,
            ),
        ])
    }

    fn has_row(kind: Option<LeaseType>, state: LeaseState) -> bool {
        match kind {
            Some(LeaseType(0)) => [0, 1, 4].contains(&state.0),
            Some(LeaseType(2)) => state.0 == 0,
            _ => false,
        }
    }

    fn family_rules() -> Vec<Rule<Self>> {
        crate::__conformance_rules!(dhcpv6 list once)
    }
}

/// Returns the lease with some of its fields changed.
pub(super) fn changed(lease: &Lease6, change: impl FnOnce(&mut Lease6)) -> Lease6 {
    let mut lease = lease.clone();
    change(&mut lease);
    lease
}

/// Returns the lease with another address, type, prefix length or client.
pub(super) fn rebuilt(
    lease: &Lease6,
    address: Ipv6Addr,
    lease_type: LeaseType,
    prefix_len: u8,
    duid: Duid,
) -> Verdict<Lease6> {
    let (iaid, state) = (lease.iaid(), lease.state());
    let mut other = if lease_type == LeaseType::PD {
        Lease6::recorded_prefix(address, prefix_len.into(), duid, iaid, state)?
    } else {
        Lease6::new(lease_type, address, duid, iaid, state)?
    };
    other.set_hwaddr(lease.hwaddr().cloned());
    other.set_preferred_lifetime(lease.preferred_lifetime());
    *other.data_mut() = lease.data().clone();
    Ok(other)
}
