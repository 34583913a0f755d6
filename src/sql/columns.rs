//! The columns of Kea's tables `lease4` and `lease6`, and a lease as the values of its columns.
//!
//! Values are independent of the dialect. What a field without a value becomes ([`Value::Null`])
//! and how addresses and times are written is up to the backend.

use std::any::Any;
use std::borrow::Cow;
use std::net::IpAddr;

use super::driver::Schema;
use crate::lease::{
    Family, Fields, HwSource, HwType, Iaid, Lease4, LeaseError, LeaseState, LeaseType, Lifetime, PoolId,
    SubnetId,
};
use crate::lease_mgr::ManagedLease;

/// Returns the name of the lease table of a family.
pub(crate) fn table(family: Family) -> &'static str {
    match family {
        Family::V4 => "lease4",
        Family::V6 => "lease6",
    }
}

/// A column of a lease table.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Column {
    Address,
    HwAddr,
    ClientId,
    Duid,
    ValidLifetime,
    Expire,
    SubnetId,
    PreferredLifetime,
    LeaseType,
    Iaid,
    PrefixLen,
    FqdnFwd,
    FqdnRev,
    Hostname,
    HwType,
    HwAddrSource,
    State,
    UserContext,
    /// The relay id of a DHCPv4 lease, which the user context contains as well.
    RelayId,
    /// The remote id of a DHCPv4 lease, which the user context contains as well.
    RemoteId,
    PoolId,
}

/// The value of a column.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Value<'a> {
    /// No value: no hardware address, no client id, an empty hostname, no user context, no relay or
    /// remote id; and the type and source of a hardware address that a DHCPv6 lease does not have.
    Null,
    Number(i64),
    Flag(bool),
    Bytes(Cow<'a, [u8]>),
    Text(Cow<'a, str>),
    Address(IpAddr),
    /// Seconds since the epoch.
    Time(i64),
}

/// The type of the values of a column.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    Number,
    Flag,
    Bytes,
    Text,
    Address,
    Time,
}

/// The columns of `lease4` that every version has.
const COLUMNS4: &[Column] = &[
    Column::Address,
    Column::HwAddr,
    Column::ClientId,
    Column::ValidLifetime,
    Column::Expire,
    Column::SubnetId,
    Column::FqdnFwd,
    Column::FqdnRev,
    Column::Hostname,
    Column::State,
    Column::UserContext,
];

/// The columns of `lease6` that every version has.
const COLUMNS6: &[Column] = &[
    Column::Address,
    Column::Duid,
    Column::ValidLifetime,
    Column::Expire,
    Column::SubnetId,
    Column::PreferredLifetime,
    Column::LeaseType,
    Column::Iaid,
    Column::PrefixLen,
    Column::FqdnFwd,
    Column::FqdnRev,
    Column::Hostname,
    Column::HwAddr,
    Column::HwType,
    Column::HwAddrSource,
    Column::State,
    Column::UserContext,
];

impl Column {
    /// Returns the columns of the lease table of a family, the address first.
    pub(crate) fn of(family: Family, schema: &Schema) -> Vec<Self> {
        let mut columns = match family {
            Family::V4 => COLUMNS4.to_vec(),
            Family::V6 => COLUMNS6.to_vec(),
        };
        if family == Family::V4 && schema.has_relay_ids {
            columns.extend([Self::RelayId, Self::RemoteId]);
        }
        if schema.has_pool_ids {
            columns.push(Self::PoolId);
        }
        columns
    }

    /// Returns the name in the table.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Address => "address",
            Self::HwAddr => "hwaddr",
            Self::ClientId => "client_id",
            Self::Duid => "duid",
            Self::ValidLifetime => "valid_lifetime",
            Self::Expire => "expire",
            Self::SubnetId => "subnet_id",
            Self::PreferredLifetime => "pref_lifetime",
            Self::LeaseType => "lease_type",
            Self::Iaid => "iaid",
            Self::PrefixLen => "prefix_len",
            Self::FqdnFwd => "fqdn_fwd",
            Self::FqdnRev => "fqdn_rev",
            Self::Hostname => "hostname",
            Self::HwType => "hwtype",
            Self::HwAddrSource => "hwaddr_source",
            Self::State => "state",
            Self::UserContext => "user_context",
            Self::RelayId => "relay_id",
            Self::RemoteId => "remote_id",
            Self::PoolId => "pool_id",
        }
    }

    /// Returns the type of its values.
    pub(crate) fn kind(self) -> Kind {
        match self {
            Self::Address => Kind::Address,
            Self::HwAddr | Self::ClientId | Self::Duid | Self::RelayId | Self::RemoteId => Kind::Bytes,
            Self::Expire => Kind::Time,
            Self::FqdnFwd | Self::FqdnRev => Kind::Flag,
            Self::Hostname | Self::UserContext => Kind::Text,
            _ => Kind::Number,
        }
    }

    /// Returns whether a conditional change compares the column. The address selects the row, and
    /// the relay and remote ids follow from the user context.
    pub(crate) fn is_compared(self) -> bool {
        !matches!(self, Self::Address | Self::RelayId | Self::RemoteId)
    }

    /// Returns the value of the column for a lease in its kept form.
    pub(crate) fn value<'a, L: ManagedLease>(self, lease: &'a L, fields: &Fields<'a>) -> Value<'a> {
        let bytes = |bytes: Option<&'a [u8]>| bytes.map_or(Value::Null, |bytes| Value::Bytes(bytes.into()));
        match self {
            Self::Address => Value::Address(fields.address),
            Self::HwAddr => bytes(fields.hwaddr),
            Self::ClientId | Self::Duid => bytes(fields.client),
            Self::ValidLifetime => Value::Number(fields.valid_lifetime.0.into()),
            Self::Expire => Value::Time(expire(fields)),
            Self::SubnetId => Value::Number(fields.subnet_id.0.into()),
            Self::PreferredLifetime => Value::Number(fields.preferred_lifetime.0.into()),
            Self::LeaseType => Value::Number(fields.lease_type.0.into()),
            Self::Iaid => Value::Number(fields.iaid.0.into()),
            Self::PrefixLen => Value::Number(fields.prefix_len.into()),
            Self::FqdnFwd => Value::Flag(fields.fqdn_fwd),
            Self::FqdnRev => Value::Flag(fields.fqdn_rev),
            Self::Hostname if fields.hostname.is_empty() => Value::Null,
            // The kept form is UTF-8.
            Self::Hostname => Value::Text(String::from_utf8_lossy(fields.hostname)),
            Self::HwType if fields.hwaddr.is_none() => Value::Null,
            Self::HwType => Value::Number(fields.hwtype.0.into()),
            Self::HwAddrSource if fields.hwaddr.is_none() => Value::Null,
            Self::HwAddrSource => Value::Number(fields.hwaddr_source.0.into()),
            Self::State => Value::Number(fields.state.0.into()),
            // Its text is ASCII.
            Self::UserContext => fields.user_context.map_or(Value::Null, |text| Value::Text(text.into())),
            Self::RelayId => {
                let id = lease4(lease).and_then(Lease4::relay_id);
                id.map_or(Value::Null, |id| Value::Bytes(id.as_bytes().to_vec().into()))
            }
            Self::RemoteId => {
                let id = lease4(lease).and_then(Lease4::remote_id);
                id.map_or(Value::Null, |id| Value::Bytes(id.as_bytes().to_vec().into()))
            }
            Self::PoolId => Value::Number(fields.pool_id.0.into()),
        }
    }
}

fn lease4<L: ManagedLease>(lease: &L) -> Option<&Lease4> {
    (lease as &dyn Any).downcast_ref()
}

/// Returns the time in the column `expire`: the end of the lease; for an infinite lifetime, when
/// the client was last heard.
pub(crate) fn expire(fields: &Fields<'_>) -> i64 {
    let lifetime = if fields.valid_lifetime.is_infinite() { 0 } else { fields.valid_lifetime.0 };
    fields.cltt.saturating_add(lifetime.into())
}

/// Why a row is not a lease.
#[derive(Debug, thiserror::Error)]
pub(crate) enum RowError {
    /// A column has a value of another type, or none.
    #[error("the column {column} of the row of {address} is {value}, expected {expected}")]
    Value { address: String, column: &'static str, value: String, expected: &'static str },
    /// The values are no lease.
    #[error("the row of {address} is not a lease")]
    Lease { address: String, source: LeaseError },
}

/// Returns the lease of a row, whose values are in the order of the columns. Columns without a
/// value are read as empty, 0 or false.
pub(crate) fn lease<L: ManagedLease>(columns: &[Column], values: &[Value<'_>]) -> Result<L, RowError> {
    let address = match values.first() {
        Some(Value::Address(address)) => *address,
        other => {
            let value = other.map_or_else(String::new, |other| format!("{other:?}"));
            return Err(RowError::Value {
                address: "a lease".to_owned(),
                column: Column::Address.name(),
                value,
                expected: "an address",
            });
        }
    };
    let mut fields = Fields::new(address);
    let mut expires = 0;
    for (&column, value) in columns.iter().zip(values) {
        set(&mut fields, &mut expires, column, value).map_err(|expected| RowError::Value {
            address: address.to_string(),
            column: column.name(),
            value: format!("{value:?}"),
            expected,
        })?;
    }
    let lifetime = if fields.valid_lifetime.is_infinite() { 0 } else { fields.valid_lifetime.0 };
    fields.cltt = expires - i64::from(lifetime);
    L::from_fields(fields).map_err(|source| RowError::Lease { address: address.to_string(), source })
}

/// Sets a field to the value of its column. Returns what was expected if the value is another.
fn set<'a>(
    fields: &mut Fields<'a>,
    expires: &mut i64,
    column: Column,
    value: &'a Value<'_>,
) -> Result<(), &'static str> {
    let number = || match value {
        Value::Null => Ok(0),
        Value::Number(number) => Ok(*number),
        Value::Flag(flag) => Ok(i64::from(*flag)),
        _ => Err("a number"),
    };
    let u32 = || u32::try_from(number()?).map_err(|_| "a number from 0 to 4294967295");
    let flag = || number().map(|number| number != 0);
    let bytes = || match value {
        Value::Null => Ok(None),
        Value::Bytes(bytes) => Ok(Some(&**bytes).filter(|bytes| !bytes.is_empty())),
        _ => Err("bytes"),
    };
    let text = || match value {
        Value::Null => Ok(None),
        Value::Text(text) => Ok(Some(&**text).filter(|text| !text.is_empty())),
        _ => Err("text"),
    };
    match column {
        Column::Address | Column::RelayId | Column::RemoteId => {}
        Column::HwAddr => fields.hwaddr = bytes()?,
        Column::ClientId | Column::Duid => fields.client = bytes()?,
        Column::ValidLifetime => fields.valid_lifetime = Lifetime(u32()?),
        Column::Expire => match value {
            Value::Time(time) => *expires = *time,
            _ => return Err("a time"),
        },
        Column::SubnetId => fields.subnet_id = SubnetId(u32()?),
        Column::PreferredLifetime => fields.preferred_lifetime = Lifetime(u32()?),
        Column::LeaseType => {
            fields.lease_type = LeaseType(number()?.try_into().map_err(|_| "a type of leases")?);
        }
        Column::Iaid => fields.iaid = Iaid(u32()?),
        Column::PrefixLen => fields.prefix_len = number()?.try_into().map_err(|_| "a length of a prefix")?,
        Column::FqdnFwd => fields.fqdn_fwd = flag()?,
        Column::FqdnRev => fields.fqdn_rev = flag()?,
        Column::Hostname => fields.hostname = text()?.unwrap_or_default().as_bytes(),
        Column::HwType => {
            if *value != Value::Null {
                fields.hwtype = HwType(number()?.try_into().map_err(|_| "a type of hardware")?);
            }
        }
        Column::HwAddrSource => fields.hwaddr_source = HwSource(u32()?),
        Column::State => fields.state = LeaseState(u32()?),
        Column::UserContext => fields.user_context = text()?,
        Column::PoolId => fields.pool_id = PoolId(u32()?),
    }
    Ok(())
}
