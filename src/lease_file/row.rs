//! Conversion of rows to leases and of leases to rows.

use std::fmt;
use std::hash::Hash;
use std::net::{Ipv4Addr, Ipv6Addr};

use super::canonical::Canonical;
use super::error::{RowProblem, excerpt};
use super::schema::{Conversion, Header, SCHEMA4, SCHEMA6, Schema};
use super::text::{escape, flag, ipv4, number, unescape, write_ipv4, write_ipv6, write_number, write_octets};
use crate::identifiers::octets::{Octets, octets, separated_octets};
use crate::lease::{
    ClientId, Duid, Hostname, HwAddr, HwSource, HwType, Iaid, Lease, Lease4, Lease6, LeaseData, LeaseError,
    LeaseState, LeaseType, Lifetime, PoolId, SubnetId, UserContext,
};

/// A lease that lease files can contain: [`Lease4`] and [`Lease6`].
pub trait FileLease: Lease + private::RowFormat {
    /// The columns of the family's files.
    #[must_use]
    fn schema() -> &'static Schema {
        Self::SCHEMA
    }
}

impl FileLease for Lease4 {}
impl FileLease for Lease6 {}

pub(crate) mod private {
    use super::{Header, Parsed, RowProblem, Schema, Values};
    use crate::lease_file::canonical::Canonical;

    /// The parts of a row's format that differ between the families.
    pub trait RowFormat: Sized {
        /// The columns of the family's files.
        const SCHEMA: &'static Schema;

        /// An address as a number that sorts in the same order.
        type AddressKey: super::AddressKey;

        /// Returns the key of the lease's address.
        fn key(&self) -> Self::AddressKey;

        /// Makes the lease of these values.
        fn from_values(values: &Values<'_>) -> Result<Parsed<Self>, RowProblem>;

        /// Appends the row, with its newline.
        fn write_row(&self, out: &mut Vec<u8>);

        /// Returns what a row of this number of values contains if it is, byte for byte, a prefix
        /// of the row that [`RowFormat::write_row`] writes for its lease; `None` for any other row,
        /// and for a few of those that are.
        ///
        /// The row starts at `start` of `text`, which has padding after it; the first separators
        /// from there on are at `ends`.
        fn canonical(
            text: &[u8],
            start: usize,
            ends: &[u32],
            values: usize,
        ) -> Option<Canonical<Self::AddressKey>>;

        /// Returns the lease of a row, given without its newline.
        fn parse_row(line: &[u8], header: &Header) -> Result<Parsed<Self>, RowProblem> {
            let values = Values::split(line, header, Self::SCHEMA)?;
            // An extra value, for example by a comma in a name, moves those after it into the wrong
            // columns.
            Self::from_values(&values).map_err(|problem| values.too_many(line, header).unwrap_or(problem))
        }
    }
}

/// An address as a number: small, and fast to compare and to sort.
pub trait AddressKey: Copy + fmt::Debug + Default + Eq + Hash + Ord + Send + Sync + 'static {
    /// Returns the `n`th byte, counted from the least significant one.
    fn byte(self, n: usize) -> u8;

    /// Number of bytes.
    const BYTES: usize;
}

impl AddressKey for u32 {
    const BYTES: usize = 4;

    fn byte(self, n: usize) -> u8 {
        self.to_le_bytes()[n]
    }
}

/// The upper and the lower half of an IPv6 address: aligned to 8 bytes, where a `u128` would take
/// 16.
impl AddressKey for (u64, u64) {
    const BYTES: usize = 16;

    fn byte(self, n: usize) -> u8 {
        if n < 8 { self.1.to_le_bytes()[n] } else { self.0.to_le_bytes()[n - 8] }
    }
}

/// The content of a valid row.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Parsed<L> {
    /// The lease; if its valid lifetime is 0, the row deletes it.
    pub lease: L,
    /// The problem of a hardware address that was left out; the row is valid without it.
    pub dropped: Option<RowProblem>,
}

impl<L: Lease> Parsed<L> {
    /// Returns whether the row deletes the lease.
    #[must_use]
    pub fn deletes(&self) -> bool {
        self.lease.data().valid_lifetime.0 == 0
    }
}

/// The values of a row.
pub struct Values<'a> {
    values: [&'a [u8]; 18],
    count: usize,
    schema: &'static Schema,
}

const U16: &str = "a number from 0 to 65535";
const U32: &str = "a number from 0 to 4294967295";
const U64: &str = "a number from 0 to 18446744073709551615";

impl<'a> Values<'a> {
    /// Splits a row at its commas. Values beyond the known columns are dropped.
    fn split(line: &'a [u8], header: &Header, schema: &'static Schema) -> Result<Self, RowProblem> {
        let mut values: [&[u8]; 18] = [&[]; 18];
        let mut count = 0;
        let mut start = 0;
        for end in memchr::memchr_iter(b',', line).chain([line.len()]).take(schema.columns.len()) {
            values[count] = &line[start..end];
            count += 1;
            start = end + 1;
        }
        if count < header.columns {
            let (least, most) = (header.columns, schema.columns.len());
            return Err(RowProblem::TooFewValues { found: count, least, most });
        }
        Ok(Self { values, count, schema })
    }

    /// Returns the problem of a row with more values than columns. The number of columns of a newer
    /// file is unknown.
    #[cold]
    fn too_many(&self, line: &[u8], header: &Header) -> Option<RowProblem> {
        let (least, most) = (header.columns, self.schema.columns.len());
        let found = memchr::memchr_iter(b',', line).count() + 1;
        let is_known = header.conversion != Conversion::Downgrade;
        (is_known && found > most).then_some(RowProblem::TooManyValues { found, least, most })
    }

    /// Returns the value of a column, `None` if the row ends before it.
    fn get(&self, column: usize) -> Option<&'a [u8]> {
        (column < self.count).then(|| self.values[column])
    }

    fn invalid(&self, column: usize, expected: &'static str) -> RowProblem {
        RowProblem::Value {
            column: self.schema.columns[column],
            value: excerpt(self.values[column]),
            expected,
        }
    }

    fn lease_error<E: Into<LeaseError>>(&self, column: usize) -> impl Fn(E) -> RowProblem + use<'a, E> {
        let column = self.schema.columns[column];
        move |problem| RowProblem::Lease { column, problem: problem.into() }
    }

    /// Returns a number, or `default` if the row ends before it.
    fn number<T: TryFrom<u64>>(
        &self,
        column: usize,
        default: Option<T>,
        expected: &'static str,
    ) -> Result<T, RowProblem> {
        match (self.get(column), default) {
            (None, Some(default)) => Ok(default),
            (value, _) => number(value.unwrap_or_default()).ok_or_else(|| self.invalid(column, expected)),
        }
    }

    fn flag(&self, column: usize) -> Result<bool, RowProblem> {
        self.get(column).and_then(flag).ok_or_else(|| self.invalid(column, "0 or 1"))
    }

    fn user_context(&self, column: usize) -> Result<Option<UserContext>, RowProblem> {
        let Some(value) = self.get(column).filter(|value| !value.is_empty()) else {
            return Ok(None);
        };
        let mut text = Vec::with_capacity(value.len());
        unescape(value, &mut text);
        UserContext::parse(&text).map(Some).map_err(self.lease_error(column))
    }

    /// Returns a hardware address, `None` if there is no value.
    fn hwaddr(&self, column: usize) -> Result<Option<HwAddr>, RowProblem> {
        let Some(value) = self.get(column).filter(|value| !value.is_empty()) else {
            return Ok(None);
        };
        let bytes = separated_octets(value, b':');
        let bytes = bytes.ok_or_else(|| self.invalid(column, "hex octets with ':' between them"))?;
        HwAddr::new(bytes.as_slice()).map(Some).map_err(self.lease_error(column))
    }

    /// Returns the octets of a client id or DUID.
    fn octets(&self, column: usize) -> Result<Octets, RowProblem> {
        const EXPECTED: &str = "hex octets with ':' or blanks between them, or plain hex digits";
        self.get(column).and_then(octets).ok_or_else(|| self.invalid(column, EXPECTED))
    }

    /// Returns a name, in lower case if `LOWER`.
    fn hostname<const LOWER: bool>(&self, column: usize) -> Hostname {
        let value = self.get(column).unwrap_or_default();
        let upper = |value: &[u8]| value.iter().fold(false, |any, byte| any | byte.is_ascii_uppercase());
        if memchr::memchr(b'&', value).is_none() && !(LOWER && upper(value)) {
            return Hostname::new(value);
        }
        let mut name = Vec::new();
        unescape(value, &mut name);
        if LOWER {
            name.make_ascii_lowercase();
        }
        Hostname::new(&name)
    }
}

/// The client id or DUID in the row of a reclaimed lease without a client, as Kea would refuse a
/// row without one: two octets 0, a type that no client id or DUID has, and `nobody`.
pub(crate) const CLIENT_PLACEHOLDER: &[u8] = b"\0\0nobody";

/// Returns the client id or DUID of a row, given that of the lease; `lacks_client` if the lease has
/// no client.
fn written_client<'a>(client: &'a [u8], lacks_client: bool, common: &Common<'_>) -> &'a [u8] {
    if lacks_client && common.state == LeaseState::EXPIRED_RECLAIMED { CLIENT_PLACEHOLDER } else { client }
}

impl private::RowFormat for Lease4 {
    const SCHEMA: &'static Schema = &SCHEMA4;

    type AddressKey = u32;

    fn key(&self) -> u32 {
        self.address().to_bits()
    }

    fn from_values(values: &Values<'_>) -> Result<Parsed<Self>, RowProblem> {
        let address = ipv4(values.values[0]).ok_or_else(|| values.invalid(0, "an IPv4 address"))?;
        let hwaddr = values.hwaddr(1)?;
        let client_id = match values.get(2) {
            None | Some([]) => None,
            Some(_) => Some(ClientId::new(values.octets(2)?.as_slice()).map_err(values.lease_error(2))?),
        };
        let valid_lifetime: u32 = values.number(3, None, U32)?;
        let expire: u64 = values.number(4, None, U64)?;
        let data = LeaseData {
            valid_lifetime: Lifetime(valid_lifetime),
            cltt: expire.wrapping_sub(valid_lifetime.into()).cast_signed(),
            subnet_id: SubnetId(values.number(5, None, U32)?),
            fqdn_fwd: values.flag(6)?,
            fqdn_rev: values.flag(7)?,
            hostname: values.hostname::<true>(8),
            user_context: values.user_context(10)?,
            pool_id: PoolId(values.number(11, Some(0), U32)?),
        };
        let state = LeaseState(values.number(9, Some(0), U32)?);
        let lacks_client = state == LeaseState::EXPIRED_RECLAIMED && hwaddr.is_none();
        let client_id = match client_id {
            Some(id) if lacks_client && id.as_bytes() == CLIENT_PLACEHOLDER => None,
            // As in Kea.
            None if lacks_client => return Err(values.lease_error(1)(LeaseError::NoIdentity { state })),
            client_id => client_id,
        };
        let mut lease = Self::new(address, hwaddr, client_id, state).map_err(values.lease_error(1))?;
        *lease.data_mut() = data;
        Ok(Parsed { lease, dropped: None })
    }

    fn write_row(&self, out: &mut Vec<u8>) {
        let client_id = self.client_id().map_or(&[][..], ClientId::as_bytes);
        Row4 { address: self.address(), client_id, common: Common::of(self) }.write(out);
    }

    fn canonical(text: &[u8], start: usize, ends: &[u32], values: usize) -> Option<Canonical<u32>> {
        super::canonical::row4(text, start, ends, values)
    }
}

impl private::RowFormat for Lease6 {
    const SCHEMA: &'static Schema = &SCHEMA6;

    type AddressKey = (u64, u64);

    fn key(&self) -> (u64, u64) {
        super::canonical::halves(self.address().to_bits())
    }

    fn from_values(values: &Values<'_>) -> Result<Parsed<Self>, RowProblem> {
        let text = std::str::from_utf8(values.values[0]).ok();
        let address: Option<Ipv6Addr> = text.and_then(|text| text.parse().ok());
        let address = address.ok_or_else(|| values.invalid(0, "an IPv6 address"))?;
        let duid = Duid::recorded(values.octets(1)?.as_slice()).map_err(values.lease_error(1))?;
        let valid_lifetime: u32 = values.number(2, None, U32)?;
        let expire: u64 = values.number(3, None, U64)?;
        let subnet_id = SubnetId(values.number(4, None, U32)?);
        let preferred_lifetime = Lifetime(values.number(5, None, U32)?);
        let lease_type = lease_type(values)?;
        let iaid = Iaid(values.number(7, None, U32)?);
        let state = LeaseState(values.number(13, Some(0), U32)?);
        let duid = match (state, duid.as_bytes()) {
            (LeaseState::EXPIRED_RECLAIMED, CLIENT_PLACEHOLDER) => Duid::empty(),
            // As in Kea.
            (LeaseState::EXPIRED_RECLAIMED, _) if duid.is_new_empty() => {
                return Err(values.lease_error(1)(LeaseError::EmptyDuid { state }));
            }
            _ => duid,
        };
        let mut lease = if lease_type == LeaseType::PD {
            let prefix_len = values.number(8, None, "a number from 0 to 128")?;
            Self::recorded_prefix(address, prefix_len, duid, iaid, state).map_err(|error| {
                let column = if matches!(error, LeaseError::EmptyDuid { .. }) { 1 } else { 8 };
                values.lease_error(column)(error)
            })?
        } else {
            Self::new(lease_type, address, duid, iaid, state).map_err(values.lease_error(1))?
        };
        lease.set_preferred_lifetime(preferred_lifetime);
        *lease.data_mut() = LeaseData {
            valid_lifetime: Lifetime(valid_lifetime),
            cltt: cltt6(expire, valid_lifetime),
            subnet_id,
            fqdn_fwd: values.flag(9)?,
            fqdn_rev: values.flag(10)?,
            hostname: values.hostname::<false>(11),
            user_context: values.user_context(14)?,
            pool_id: PoolId(values.number(17, Some(0), U32)?),
        };
        let dropped = match hwaddr6(values) {
            Ok(hwaddr) => {
                lease.set_hwaddr(hwaddr);
                None
            }
            Err(problem) => Some(problem),
        };
        Ok(Parsed { lease, dropped })
    }

    fn write_row(&self, out: &mut Vec<u8>) {
        let mut common = Common::of(self);
        if self.data().cltt < 0 {
            // Kea would read a cltt before 1970 as 32 bits, shortly before 2106.
            common.expire = common.valid_lifetime.0.into();
        }
        let row = Row6 {
            address: self.address(),
            duid: self.duid().as_bytes(),
            preferred_lifetime: self.preferred_lifetime(),
            lease_type: self.lease_type(),
            iaid: self.iaid(),
            prefix_len: self.prefix_len(),
            hardware: self.hwaddr().map_or_else(Default::default, |hwaddr| (hwaddr.htype, hwaddr.source)),
            common,
        };
        row.write(out);
    }

    fn canonical(text: &[u8], start: usize, ends: &[u32], values: usize) -> Option<Canonical<(u64, u64)>> {
        super::canonical::row6(text, start, ends, values)
    }
}

/// Returns the cltt of a DHCPv6 row: 32 bits, as Kea keeps it, whatever the expiry time is.
fn cltt6(expire: u64, valid_lifetime: u32) -> i64 {
    (expire.wrapping_sub(valid_lifetime.into()) & u64::from(u32::MAX)).cast_signed()
}

/// Parses a lease type of up to 31 bits, of which 16 are kept.
fn lease_type(values: &Values<'_>) -> Result<LeaseType, RowProblem> {
    const EXPECTED: &str = "a number from 0 to 2147483647";
    let number: u64 = values.number(6, None, EXPECTED)?;
    match i32::try_from(number) {
        Ok(number) => {
            let [low, high, ..] = number.to_le_bytes();
            Ok(LeaseType(u16::from_le_bytes([low, high])))
        }
        Err(_) => Err(values.invalid(6, EXPECTED)),
    }
}

/// Returns the hardware address of a DHCPv6 row, from its three columns.
fn hwaddr6(values: &Values<'_>) -> Result<Option<HwAddr>, RowProblem> {
    let Some(mut hwaddr) = values.hwaddr(12)? else {
        return Ok(None);
    };
    let present = |column| values.get(column).is_some_and(|value| !value.is_empty());
    if present(15) {
        hwaddr.htype = HwType(values.number(15, None, U16)?);
    }
    if present(16) {
        hwaddr.source = HwSource(values.number(16, None, U32)?);
    }
    Ok(Some(hwaddr))
}

/// Writes numeric columns, each after a comma.
fn write_numbers<const N: usize>(numbers: [u64; N], out: &mut Vec<u8>) {
    for number in numbers {
        out.push(b',');
        write_number(number, out);
    }
}

/// The columns that rows of both families have.
pub(crate) struct Common<'a> {
    pub(crate) hwaddr: &'a [u8],
    pub(crate) valid_lifetime: Lifetime,
    pub(crate) expire: u64,
    pub(crate) subnet_id: SubnetId,
    pub(crate) fqdn_fwd: bool,
    pub(crate) fqdn_rev: bool,
    pub(crate) hostname: &'a [u8],
    pub(crate) state: LeaseState,
    /// Empty if there is no user context.
    pub(crate) user_context: &'a [u8],
    pub(crate) pool_id: PoolId,
}

impl<'a> Common<'a> {
    fn of(lease: &'a impl Lease) -> Self {
        let data = lease.data();
        Self {
            hwaddr: lease.hwaddr().map_or(&[], HwAddr::as_bytes),
            valid_lifetime: data.valid_lifetime,
            expire: lease.expires_at(),
            subnet_id: data.subnet_id,
            fqdn_fwd: data.fqdn_fwd,
            fqdn_rev: data.fqdn_rev,
            hostname: data.hostname.as_bytes(),
            state: lease.state(),
            user_context: data.user_context.as_ref().map_or(&[], |context| context.as_str().as_bytes()),
            pool_id: data.pool_id,
        }
    }

    /// Writes the columns `valid_lifetime`, `expire` and `subnet_id`, each after a comma.
    fn write_times(&self, out: &mut Vec<u8>) {
        write_numbers([self.valid_lifetime.0.into(), self.expire, self.subnet_id.0.into()], out);
    }

    /// Writes the columns `fqdn_fwd`, `fqdn_rev` and `hostname`, each after a comma.
    fn write_names(&self, out: &mut Vec<u8>) {
        write_numbers([self.fqdn_fwd.into(), self.fqdn_rev.into()], out);
        out.push(b',');
        escape(self.hostname, out);
    }

    /// Writes the columns `state` and `user_context`, each after a comma.
    fn write_state(&self, out: &mut Vec<u8>) {
        write_numbers([self.state.0.into()], out);
        out.push(b',');
        escape(self.user_context, out);
    }
}

/// The content of a DHCPv4 row.
pub(crate) struct Row4<'a> {
    pub(crate) address: Ipv4Addr,
    /// Empty if there is no client id.
    pub(crate) client_id: &'a [u8],
    pub(crate) common: Common<'a>,
}

impl Row4<'_> {
    pub(crate) fn write(&self, out: &mut Vec<u8>) {
        write_ipv4(self.address, out);
        out.push(b',');
        write_octets(self.common.hwaddr, out);
        out.push(b',');
        let lacks_client = self.client_id.is_empty() && self.common.hwaddr.is_empty();
        write_octets(written_client(self.client_id, lacks_client, &self.common), out);
        self.common.write_times(out);
        self.common.write_names(out);
        self.common.write_state(out);
        write_numbers([self.common.pool_id.0.into()], out);
        out.push(b'\n');
    }
}

/// The content of a DHCPv6 row.
pub(crate) struct Row6<'a> {
    pub(crate) address: Ipv6Addr,
    pub(crate) duid: &'a [u8],
    pub(crate) preferred_lifetime: Lifetime,
    pub(crate) lease_type: LeaseType,
    pub(crate) iaid: Iaid,
    pub(crate) prefix_len: u8,
    /// The type and the source of the hardware address.
    pub(crate) hardware: (HwType, HwSource),
    pub(crate) common: Common<'a>,
}

impl Row6<'_> {
    pub(crate) fn write(&self, out: &mut Vec<u8>) {
        let (htype, source) = self.hardware;
        write_ipv6(self.address, out);
        out.push(b',');
        let lacks_client = self.duid == Duid::EMPTY_BYTES;
        write_octets(written_client(self.duid, lacks_client, &self.common), out);
        self.common.write_times(out);
        write_numbers([self.preferred_lifetime.0.into(), self.lease_type.0.into()], out);
        write_numbers([self.iaid.0.into(), self.prefix_len.into()], out);
        self.common.write_names(out);
        out.push(b',');
        write_octets(self.common.hwaddr, out);
        self.common.write_state(out);
        write_numbers([htype.0.into(), source.0.into(), self.common.pool_id.0.into()], out);
        out.push(b'\n');
    }
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::super::{FileLease, Reader, Writer};
    use super::*;
    use crate::lease::system_time;

    /// Returns the file of a lease, and the lease that is read from it.
    fn written_and_read<L: FileLease>(lease: &L) -> (String, L) {
        let mut writer = Writer::new(Vec::new()).unwrap();
        writer.append(lease).unwrap();
        let text = writer.into_inner();
        let read = Reader::new(&text[..]).unwrap().next().unwrap().unwrap().lease;
        (String::from_utf8(text).unwrap(), read)
    }

    #[test]
    fn a_reclaimed_lease_without_a_client_has_a_row_that_kea_reads() {
        let mut lease = Lease4::declined([192, 0, 2, 1].into()).lifetime(60).cltt(1000).build().unwrap();
        lease.reclaim();
        let (text, read) = written_and_read(&lease);
        let context = "{ \"leasemgr\": { \"reclaimed-from\": 1 } }";
        let row = "192.0.2.1,,00:00:6e:6f:62:6f:64:79,60,1060,0,0,0,,2,";
        assert_eq!(text.lines().nth(1), Some(&*format!("{row}{context},0")));
        assert_eq!(read, lease);
    }

    #[test]
    fn a_reclaimed_dhcpv6_lease_without_a_client_has_a_row_that_kea_reads() {
        let mut lease = Lease6::declined("2001:db8::1".parse().unwrap()).lifetime(60).build().unwrap();
        lease.decline(system_time(1000), Lifetime(60));
        lease.reclaim();
        let (text, read) = written_and_read(&lease);
        let row = "2001:db8::1,00:00:6e:6f:62:6f:64:79,60,1060,0,0,0,0,128,0,0,,,2,";
        assert!(text.lines().nth(1).unwrap().starts_with(row), "{text}");
        assert_eq!(read, lease);
    }

    #[rstest]
    #[case(LeaseState::DECLINED, "")]
    #[case(LeaseState::EXPIRED_RECLAIMED, "00:00:6e:6f:62:6f:64:79")]
    fn only_a_reclaimed_lease_needs_a_client_in_its_row(#[case] state: LeaseState, #[case] client: &str) {
        let lease = Lease4::declined([192, 0, 2, 1].into()).state(state).lifetime(60).build().unwrap();
        let (text, read) = written_and_read(&lease);
        assert_eq!(text.lines().nth(1).unwrap().split(',').nth(2), Some(client));
        assert_eq!(read, lease);
    }

    #[rstest]
    #[case(128)]
    #[case(192)]
    #[case(255)]
    #[case(u32::MAX)]
    fn any_state_is_kept_in_a_row(#[case] state: u32) {
        let lease = Lease4::builder([192, 0, 2, 1].into()).client(HwAddr::from([2, 0, 0, 0, 0, 1]));
        let lease = lease.state(LeaseState(state)).lifetime(60).build().unwrap();
        assert_eq!(written_and_read(&lease).1, lease);
    }
}
