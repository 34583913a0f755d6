//! A lease, packed into bytes.
//!
//! | bytes | |
//! |---|---|
//! | 0 | reserved for the arena |
//! | 1 | flags: the optional fields that are present, and the DNS flags |
//! | 2 | state |
//! | 3, 4, 5 | lengths of hardware address, client ID or DUID, and hostname |
//! | 6 | prefix length (DHCPv6) |
//! | 8..12 | subnet ID |
//! | 12..16 | valid lifetime |
//! | 16..20 | cltt |
//! | 20..24 | the lag, see [`Packed::lag`] |
//! | 24.. | DHCPv4: address (4). DHCPv6: address (16), IAID, preferred lifetime (4 each), type (2) |
//! | then | the optional fields, in the order of their flags |
//! | then | hardware address, client ID or DUID, hostname, user context |
//!
//! A value outside of its usual range has an optional field. Numbers are little-endian. The usual
//! DHCPv4 lease takes 64 bytes.

use std::marker::PhantomData;
use std::net::{Ipv4Addr, Ipv6Addr};

use super::expiry_queue;
use crate::lease::{
    ClientId, Duid, Hostname, HwAddr, HwSource, HwType, Iaid, Lease4, Lease6, LeaseBase, LeaseData,
    LeaseState, LeaseType, Lifetime, PoolId, SubnetId, UserContext,
};
use crate::lease_file::FileLease;
use crate::lease_file::row::private::RowFormat;
use crate::lease_file::row::{Common, Row4, Row6};
use crate::lease_mgr::{ClientKey, CountedAs, ManagedLease};

const FWD: u8 = 1;
const REV: u8 = 1 << 1;
/// The pool ID is not 0: 4 bytes.
const POOL: u8 = 1 << 2;
/// A state beyond 255: 4 bytes.
const WIDE_STATE: u8 = 1 << 3;
/// A cltt before 1970 or after 2106: 8 bytes.
const WIDE_CLTT: u8 = 1 << 4;
/// A hardware address of another type than Ethernet, or from a known source: 2 and 4 bytes.
const HARDWARE: u8 = 1 << 5;
/// A hostname of 256 bytes or more: 4 bytes.
const WIDE_HOSTNAME: u8 = 1 << 6;
/// A user context: 4 bytes for its length.
const CONTEXT: u8 = 1 << 7;
const OPTIONAL: [(u8, usize); 6] =
    [(POOL, 4), (WIDE_STATE, 4), (WIDE_CLTT, 8), (HARDWARE, 6), (WIDE_HOSTNAME, 4), (CONTEXT, 4)];

const LAG: std::ops::Range<usize> = 20..24;
const FAMILY_START: usize = 24;
/// Maximum number of bytes of the fixed fields of a family.
const LARGEST_FAMILY: usize = 32;

/// The differences between the lease types of the two families.
pub trait StoredLease: FileLease + ManagedLease {
    /// Number of bytes of the fixed fields.
    const FAMILY_LEN: usize;

    /// Returns the client ID or DUID, or an empty slice for a lease without a client.
    fn stored_client(&self) -> &[u8];

    /// Writes the fixed fields of the family, and returns the prefix length.
    fn pack_family(&self, out: &mut [u8]) -> u8;

    /// Returns the address, as a key, from the fixed fields.
    fn key_in(family: &[u8]) -> Self::AddressKey;

    /// Returns the address of a key.
    fn address_of(key: Self::AddressKey) -> Self::Address;

    /// Returns the key of an address.
    fn key_of(address: Self::Address) -> Self::AddressKey;

    /// Returns the number that distinguishes the leases of one client: the subnet for DHCPv4, the
    /// IAID for DHCPv6.
    fn client_order(packed: &Packed<'_, Self>) -> u32;

    /// Returns that number for the leases of a client query, if the query determines it.
    fn order_of_query(client: &ClientKey<'_>, subnet: Option<SubnetId>) -> Option<u32>;

    /// Returns the IAID; `None` for DHCPv4.
    fn iaid_in(packed: &Packed<'_, Self>) -> Option<Iaid>;

    /// Returns the lease type; `None` for DHCPv4.
    fn kind_in(packed: &Packed<'_, Self>) -> Option<LeaseType>;

    /// Returns the lease.
    fn unpack(packed: &Packed<'_, Self>) -> Self;

    /// Returns whether hostnames keep their upper-case letters. DHCPv4 hostnames are lower-cased
    /// when a lease file is read, so they are always stored in lower case.
    fn keeps_case() -> bool;

    /// Appends the row that deletes the lease.
    fn write_deletion(packed: &Packed<'_, Self>, out: &mut Vec<u8>);
}

/// A packed lease.
#[derive(Debug)]
pub struct Packed<'a, L> {
    bytes: &'a [u8],
    /// The position of the hardware address.
    names: usize,
    lease: PhantomData<L>,
}

fn u32_at(bytes: &[u8], at: usize) -> u32 {
    bytes.get(at..).and_then(|rest| rest.first_chunk()).map_or(0, |chunk| u32::from_le_bytes(*chunk))
}

fn u64_at(bytes: &[u8], at: usize) -> u64 {
    bytes.get(at..).and_then(|rest| rest.first_chunk()).map_or(0, |chunk| u64::from_le_bytes(*chunk))
}

/// Returns the low byte of a length or number, which fits or also has a wide field.
fn low_byte(value: usize) -> u8 {
    value.to_le_bytes()[0]
}

/// Packs a lease, and replaces the contents of `out`.
pub(in crate::memfile) fn pack<L: StoredLease>(lease: &L, out: &mut Vec<u8>) {
    let data = lease.data();
    let hwaddr = lease.hwaddr();
    let hostname = data.hostname.as_bytes();
    let client = lease.stored_client();
    let state = lease.state().0;
    let narrow_cltt = u32::try_from(data.cltt);
    let plain_hardware = hwaddr.is_none_or(|h| h.htype == HwType::ETHERNET && h.source == HwSource(0));
    let mut flags = u8::from(data.fqdn_fwd) * FWD;
    flags |= u8::from(data.fqdn_rev) * REV;
    flags |= u8::from(data.pool_id.0 != 0) * POOL;
    flags |= u8::from(state > 255) * WIDE_STATE;
    flags |= u8::from(narrow_cltt.is_err()) * WIDE_CLTT;
    flags |= u8::from(!plain_hardware) * HARDWARE;
    flags |= u8::from(hostname.len() > 255) * WIDE_HOSTNAME;
    flags |= u8::from(data.user_context.is_some()) * CONTEXT;
    let hwaddr_bytes = hwaddr.map_or(&[][..], HwAddr::as_bytes);
    let mut fixed = [0; FAMILY_START + LARGEST_FAMILY];
    fixed[1..6].copy_from_slice(&[
        flags,
        state.to_le_bytes()[0],
        low_byte(hwaddr_bytes.len()),
        low_byte(client.len()),
        low_byte(hostname.len()),
    ]);
    fixed[8..12].copy_from_slice(&data.subnet_id.0.to_le_bytes());
    fixed[12..16].copy_from_slice(&data.valid_lifetime.0.to_le_bytes());
    fixed[16..20].copy_from_slice(&narrow_cltt.unwrap_or(0).to_le_bytes());
    let (_, family) = fixed.split_at_mut(FAMILY_START);
    fixed[6] = lease.pack_family(family);
    out.clear();
    out.extend_from_slice(&fixed[..FAMILY_START + L::FAMILY_LEN]);
    if flags & !(FWD | REV) != 0 {
        if flags & POOL != 0 {
            out.extend_from_slice(&data.pool_id.0.to_le_bytes());
        }
        if flags & WIDE_STATE != 0 {
            out.extend_from_slice(&state.to_le_bytes());
        }
        if flags & WIDE_CLTT != 0 {
            out.extend_from_slice(&data.cltt.to_le_bytes());
        }
        if let Some(hwaddr) = hwaddr.filter(|_| flags & HARDWARE != 0) {
            out.extend_from_slice(&hwaddr.htype.0.to_le_bytes());
            out.extend_from_slice(&hwaddr.source.0.to_le_bytes());
        }
        if flags & WIDE_HOSTNAME != 0 {
            out.extend_from_slice(&length(hostname.len()).to_le_bytes());
        }
        if let Some(context) = &data.user_context {
            out.extend_from_slice(&length(context.as_str().len()).to_le_bytes());
        }
    }
    out.extend_from_slice(hwaddr_bytes);
    out.extend_from_slice(client);
    let at = out.len();
    out.extend_from_slice(hostname);
    if !L::keeps_case() {
        out[at..].make_ascii_lowercase();
    }
    if let Some(context) = &data.user_context {
        out.extend_from_slice(context.as_str().as_bytes());
    }
}

/// Returns a length as a number of 4 bytes. Longer ones do not occur: they are checked before
/// leases are packed.
fn length(len: usize) -> u32 {
    u32::try_from(len).unwrap_or(u32::MAX)
}

impl<'a, L: StoredLease> Packed<'a, L> {
    /// Creates a view of bytes packed by [`pack`]; bytes after the lease are ignored.
    #[inline]
    pub(in crate::memfile) fn new(bytes: &'a [u8]) -> Self {
        let mut names = FAMILY_START + L::FAMILY_LEN;
        let flags = bytes[1];
        if flags & !(FWD | REV) != 0 {
            names +=
                OPTIONAL.iter().filter(|(flag, _)| flags & flag != 0).map(|&(_, len)| len).sum::<usize>();
        }
        Self { bytes, names, lease: PhantomData }
    }

    fn has(&self, flag: u8) -> bool {
        self.bytes[1] & flag != 0
    }

    /// Returns the position of an optional field.
    fn optional(&self, flag: u8) -> usize {
        let before = OPTIONAL.iter().take_while(|&&(other, _)| other != flag);
        let before: usize = before.filter(|&&(other, _)| self.has(other)).map(|&(_, len)| len).sum();
        FAMILY_START + L::FAMILY_LEN + before
    }

    /// Returns the address, as a key.
    #[inline]
    pub(in crate::memfile) fn key(&self) -> L::AddressKey {
        L::key_in(self.family())
    }

    fn family(&self) -> &'a [u8] {
        &self.bytes[FAMILY_START..FAMILY_START + L::FAMILY_LEN]
    }

    #[inline]
    pub(in crate::memfile) fn state(&self) -> LeaseState {
        if self.has(WIDE_STATE) {
            LeaseState(u32_at(self.bytes, self.optional(WIDE_STATE)))
        } else {
            LeaseState(self.bytes[2].into())
        }
    }

    #[inline]
    pub(in crate::memfile) fn subnet_id(&self) -> SubnetId {
        SubnetId(u32_at(self.bytes, 8))
    }

    pub(in crate::memfile) fn pool_id(&self) -> PoolId {
        PoolId(if self.has(POOL) { u32_at(self.bytes, self.optional(POOL)) } else { 0 })
    }

    #[inline]
    pub(in crate::memfile) fn valid_lifetime(&self) -> Lifetime {
        Lifetime(u32_at(self.bytes, 12))
    }

    #[inline]
    pub(in crate::memfile) fn cltt(&self) -> i64 {
        if self.has(WIDE_CLTT) {
            u64_at(self.bytes, self.optional(WIDE_CLTT)).cast_signed()
        } else {
            u32_at(self.bytes, 16).into()
        }
    }

    /// Returns the attributes that statistics depend on.
    pub(in crate::memfile) fn counted_as(&self) -> CountedAs {
        let lifetime = self.valid_lifetime();
        CountedAs {
            subnet_id: self.subnet_id(),
            pool_id: self.pool_id(),
            lease_type: L::kind_in(self),
            state: self.state(),
            end: (!lifetime.is_infinite()).then(|| self.cltt().saturating_add(lifetime.0.into())),
        }
    }

    /// Returns the time at which the lease ends, as a number of the expiry queues; `None` if it
    /// never does.
    #[inline]
    pub(in crate::memfile) fn end(&self) -> Option<u64> {
        let valid_lifetime = self.valid_lifetime();
        (!valid_lifetime.is_infinite()).then(|| expiry_queue::end(self.cltt(), valid_lifetime.0))
    }

    /// Returns whether the lease has ended at `time`, in seconds since the epoch.
    pub(super) fn has_ended(&self, time: i64) -> bool {
        let valid_lifetime = self.valid_lifetime();
        !valid_lifetime.is_infinite()
            && i128::from(self.cltt()) + i128::from(valid_lifetime.0) <= i128::from(time)
    }

    /// Returns the number of seconds by which the lease's place in its expiry queue precedes its
    /// end.
    #[inline]
    pub(in crate::memfile) fn lag(&self) -> u32 {
        u32_at(self.bytes, LAG.start)
    }

    fn hwaddr_len(&self) -> usize {
        self.bytes[3].into()
    }

    fn client_len(&self) -> usize {
        self.bytes[4].into()
    }

    fn hostname_len(&self) -> usize {
        if self.has(WIDE_HOSTNAME) {
            u32_at(self.bytes, self.optional(WIDE_HOSTNAME)) as usize
        } else {
            self.bytes[5].into()
        }
    }

    #[inline]
    pub(in crate::memfile) fn hwaddr(&self) -> &'a [u8] {
        &self.bytes[self.names..self.names + self.hwaddr_len()]
    }

    /// Returns the client ID or DUID.
    #[inline]
    pub(in crate::memfile) fn client(&self) -> &'a [u8] {
        let at = self.names + self.hwaddr_len();
        &self.bytes[at..at + self.client_len()]
    }

    #[inline]
    pub(in crate::memfile) fn hostname(&self) -> &'a [u8] {
        let at = self.names + self.hwaddr_len() + self.client_len();
        &self.bytes[at..at + self.hostname_len()]
    }

    fn context_bytes(&self) -> Option<&'a [u8]> {
        if !self.has(CONTEXT) {
            return None;
        }
        let at = self.names + self.hwaddr_len() + self.client_len() + self.hostname_len();
        Some(&self.bytes[at..at + u32_at(self.bytes, self.optional(CONTEXT)) as usize])
    }

    pub(in crate::memfile) fn user_context(&self) -> Option<UserContext> {
        self.context_bytes().map(UserContext::from_stored)
    }

    /// Returns the length of the record.
    fn len(&self) -> usize {
        let context = self.context_bytes().map_or(0, <[u8]>::len);
        self.names + self.hwaddr_len() + self.client_len() + self.hostname_len() + context
    }

    /// Returns whether both are the same lease.
    pub(in crate::memfile) fn is_same(&self, other: &Self) -> bool {
        self.len() == other.len()
            && self.bytes[1..LAG.start] == other.bytes[1..LAG.start]
            && self.bytes[LAG.end..self.len()] == other.bytes[LAG.end..other.len()]
    }

    /// Returns whether both have the same user context.
    pub(in crate::memfile) fn has_context_of(&self, other: &Self) -> bool {
        self.context_bytes() == other.context_bytes()
    }

    /// Returns the lease.
    pub(in crate::memfile) fn lease(&self) -> L {
        L::unpack(self)
    }

    fn data(&self) -> LeaseData {
        LeaseData {
            valid_lifetime: self.valid_lifetime(),
            cltt: self.cltt(),
            subnet_id: self.subnet_id(),
            pool_id: self.pool_id(),
            fqdn_fwd: self.has(FWD),
            fqdn_rev: self.has(REV),
            hostname: Hostname::new(self.hostname()),
            user_context: self.user_context(),
        }
    }

    /// Returns the type and the source of the hardware address; 0 if there is none.
    #[inline]
    fn hardware(&self) -> (HwType, HwSource) {
        if self.has(HARDWARE) {
            let at = self.optional(HARDWARE);
            let htype = u16::from_le_bytes([self.bytes[at], self.bytes[at + 1]]);
            return (HwType(htype), HwSource(u32_at(self.bytes, at + 2)));
        }
        if self.hwaddr_len() > 0 { (HwType::ETHERNET, HwSource(0)) } else { (HwType(0), HwSource(0)) }
    }

    #[inline]
    fn whole_hwaddr(&self) -> Option<HwAddr> {
        let (htype, source) = self.hardware();
        (self.hwaddr_len() > 0).then(|| HwAddr::from_stored(self.hwaddr(), htype, source))
    }

    /// Returns the common fields of the row that deletes the lease.
    fn deletion(&self) -> Common<'a> {
        Common {
            hwaddr: self.hwaddr(),
            valid_lifetime: Lifetime(0),
            expire: self.cltt().cast_unsigned(),
            subnet_id: self.subnet_id(),
            fqdn_fwd: self.has(FWD),
            fqdn_rev: self.has(REV),
            hostname: self.hostname(),
            state: self.state(),
            user_context: self.context_bytes().unwrap_or_default(),
            pool_id: self.pool_id(),
        }
    }
}

/// Sets the lag of a packed lease.
#[inline]
pub(in crate::memfile) fn set_lag(record: &mut [u8], lag: u32) {
    record[LAG].copy_from_slice(&lag.to_le_bytes());
}

impl StoredLease for Lease4 {
    const FAMILY_LEN: usize = 4;

    fn stored_client(&self) -> &[u8] {
        self.client_id().map_or(&[], ClientId::as_bytes)
    }

    fn pack_family(&self, out: &mut [u8]) -> u8 {
        out[..4].copy_from_slice(&self.key().to_le_bytes());
        0
    }

    #[inline]
    fn key_in(family: &[u8]) -> u32 {
        u32_at(family, 0)
    }

    fn address_of(key: u32) -> Ipv4Addr {
        Ipv4Addr::from_bits(key)
    }

    fn key_of(address: Ipv4Addr) -> u32 {
        address.to_bits()
    }

    fn client_order(packed: &Packed<'_, Self>) -> u32 {
        packed.subnet_id().0
    }

    fn order_of_query(_: &ClientKey<'_>, subnet: Option<SubnetId>) -> Option<u32> {
        subnet.map(|subnet| subnet.0)
    }

    fn iaid_in(_: &Packed<'_, Self>) -> Option<Iaid> {
        None
    }

    fn kind_in(_: &Packed<'_, Self>) -> Option<LeaseType> {
        None
    }

    fn unpack(packed: &Packed<'_, Self>) -> Self {
        let base = LeaseBase::from_stored(Self::address_of(packed.key()), packed.state(), packed.data());
        let client_id = (packed.client_len() > 0).then(|| ClientId::from_stored(packed.client()));
        Self::from_stored(base, packed.whole_hwaddr(), client_id)
    }

    fn keeps_case() -> bool {
        false
    }

    fn write_deletion(packed: &Packed<'_, Self>, out: &mut Vec<u8>) {
        let address = Self::address_of(packed.key());
        Row4 { address, client_id: packed.client(), common: packed.deletion() }.write(out);
    }
}

impl StoredLease for Lease6 {
    const FAMILY_LEN: usize = 26;

    fn stored_client(&self) -> &[u8] {
        self.duid().as_bytes()
    }

    fn pack_family(&self, out: &mut [u8]) -> u8 {
        let (high, low) = self.key();
        out[..8].copy_from_slice(&high.to_le_bytes());
        out[8..16].copy_from_slice(&low.to_le_bytes());
        out[16..20].copy_from_slice(&self.iaid().0.to_le_bytes());
        out[20..24].copy_from_slice(&self.preferred_lifetime().0.to_le_bytes());
        out[24..26].copy_from_slice(&self.lease_type().0.to_le_bytes());
        self.prefix_len()
    }

    #[inline]
    fn key_in(family: &[u8]) -> (u64, u64) {
        (u64_at(family, 0), u64_at(family, 8))
    }

    fn address_of((high, low): (u64, u64)) -> Ipv6Addr {
        Ipv6Addr::from_bits(u128::from(high) << 64 | u128::from(low))
    }

    fn key_of(address: Ipv6Addr) -> (u64, u64) {
        crate::lease_file::canonical::halves(address.to_bits())
    }

    fn client_order(packed: &Packed<'_, Self>) -> u32 {
        u32_at(packed.family(), 16)
    }

    fn order_of_query(client: &ClientKey<'_>, _: Option<SubnetId>) -> Option<u32> {
        client.iaid.map(|iaid| iaid.0)
    }

    fn iaid_in(packed: &Packed<'_, Self>) -> Option<Iaid> {
        Some(Iaid(Self::client_order(packed)))
    }

    fn kind_in(packed: &Packed<'_, Self>) -> Option<LeaseType> {
        let family = packed.family();
        Some(LeaseType(u16::from_le_bytes([family[24], family[25]])))
    }

    fn unpack(packed: &Packed<'_, Self>) -> Self {
        let base = LeaseBase::from_stored(Self::address_of(packed.key()), packed.state(), packed.data());
        let lease_type = Self::kind_in(packed).unwrap_or_default();
        let duid = Duid::from_stored(packed.client());
        let iaid = Iaid(Self::client_order(packed));
        let hwaddr = packed.whole_hwaddr();
        let mut lease = Self::from_stored(base, (lease_type, packed.bytes[6]), duid, iaid, hwaddr);
        lease.set_preferred_lifetime(Lifetime(u32_at(packed.family(), 20)));
        lease
    }

    fn keeps_case() -> bool {
        true
    }

    fn write_deletion(packed: &Packed<'_, Self>, out: &mut Vec<u8>) {
        let row = Row6 {
            address: Self::address_of(packed.key()),
            duid: packed.client(),
            preferred_lifetime: Lifetime(0),
            lease_type: Self::kind_in(packed).unwrap_or_default(),
            iaid: Iaid(Self::client_order(packed)),
            prefix_len: packed.bytes[6],
            hardware: packed.hardware(),
            common: packed.deletion(),
        };
        row.write(out);
    }
}
