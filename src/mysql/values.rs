//! Values of columns as the values of the protocol.

use std::borrow::Cow;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ::mysql::Value as Wire;

use crate::lease::Family;
use crate::sql::columns::{Column, Kind, Value};

/// The times that the type `timestamp` holds.
pub(super) const TIMES: (i64, i64) = (1, i32::MAX as i64);

/// How a table keeps its addresses.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Addresses {
    /// A number.
    V4,
    /// 16 bytes.
    V6,
    /// Text in this character set and collation.
    Text { charset: String, collation: String },
}

impl Addresses {
    pub(super) fn encode(&self, address: IpAddr) -> Wire {
        match (self, address) {
            (_, IpAddr::V4(address)) => Wire::UInt(address.to_bits().into()),
            (Self::Text { .. }, IpAddr::V6(address)) => Wire::Bytes(address.to_string().into_bytes()),
            (_, IpAddr::V6(address)) => Wire::Bytes(address.octets().to_vec()),
        }
    }

    fn decode(&self, value: &Wire) -> Option<IpAddr> {
        match self {
            Self::V4 => {
                let bits = u32::try_from(number(value)?).ok()?;
                Some(Ipv4Addr::from_bits(bits).into())
            }
            Self::V6 => {
                let Wire::Bytes(bytes) = value else { return None };
                let bytes: [u8; 16] = bytes.as_slice().try_into().ok()?;
                Some(Ipv6Addr::from(bytes).into())
            }
            Self::Text { .. } => {
                let Wire::Bytes(bytes) = value else { return None };
                let address: Ipv6Addr = std::str::from_utf8(bytes).ok()?.parse().ok()?;
                Some(address.into())
            }
        }
    }

    /// Returns a value of a result. A value of another type than its column should have becomes
    /// [`Value::Null`], or for an address or time, what the reader of the row refuses.
    pub(super) fn decode_as(&self, value: Wire, kind: Kind) -> Value<'static> {
        if value == Wire::NULL {
            return Value::Null;
        }
        match kind {
            Kind::Number => number(&value).map_or(Value::Null, Value::Number),
            Kind::Flag => number(&value).map_or(Value::Null, |number| Value::Flag(number != 0)),
            Kind::Time => number(&value).map_or(Value::Null, Value::Time),
            Kind::Address => match self.decode(&value) {
                Some(address) => Value::Address(address),
                None => decode_text(value),
            },
            Kind::Bytes => match value {
                Wire::Bytes(bytes) => Value::Bytes(bytes.into()),
                _ => Value::Null,
            },
            Kind::Text => decode_text(value),
        }
    }
}

fn decode_text(value: Wire) -> Value<'static> {
    match value {
        Wire::Bytes(bytes) => {
            let text = String::from_utf8(bytes);
            Value::Text(Cow::Owned(
                text.unwrap_or_else(|error| String::from_utf8_lossy(error.as_bytes()).into_owned()),
            ))
        }
        _ => Value::Null,
    }
}

/// Returns a number, which the server sends as text if the statement was not prepared, and for a
/// decimal number.
pub(super) fn number(value: &Wire) -> Option<i64> {
    match value {
        Wire::Int(number) => Some(*number),
        Wire::UInt(number) => i64::try_from(*number).ok(),
        Wire::Bytes(bytes) => {
            let text = std::str::from_utf8(bytes).ok()?;
            // The decimals of a time are 0.
            text.split('.').next()?.parse().ok()
        }
        _ => None,
    }
}

/// Returns the value of a parameter.
pub(super) fn encode(value: &Value<'_>, addresses: &Addresses) -> Wire {
    match value {
        Value::Null => Wire::NULL,
        Value::Number(number) | Value::Time(number) => Wire::Int(*number),
        Value::Flag(flag) => Wire::Int((*flag).into()),
        Value::Bytes(bytes) => Wire::Bytes(bytes.to_vec()),
        Value::Text(text) => Wire::Bytes(text.as_bytes().to_vec()),
        Value::Address(address) => addresses.encode(*address),
    }
}

/// Returns what a column has that is written without a value.
///
/// Kea's server reads the value of an earlier row, or ends, if a hostname or the hardware address
/// of a DHCPv4 lease is NULL.
pub(super) fn absent(column: Column, family: Family) -> Wire {
    match (column, family) {
        (Column::Hostname, _) | (Column::HwAddr, Family::V4) => Wire::Bytes(Vec::new()),
        _ => Wire::NULL,
    }
}

/// Returns whether a value of a row is the expected one.
pub(super) fn is_expected(column: Column, value: &Value<'_>, expected: &Value<'_>) -> bool {
    match (value, expected) {
        // A hardware address that is absent has any type and source.
        (_, Value::Null) if matches!(column, Column::HwType | Column::HwAddrSource) => true,
        (Value::Bytes(bytes), Value::Null) => bytes.is_empty(),
        (Value::Text(text), Value::Null) => text.is_empty(),
        (value, expected) => value == expected,
    }
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::*;

    fn text() -> Addresses {
        Addresses::Text { charset: "latin1".into(), collation: "latin1_swedish_ci".into() }
    }

    #[rstest]
    #[case(Addresses::V4, "192.0.2.10", Wire::UInt(3_221_225_994))]
    #[case(Addresses::V6, "::1", Wire::Bytes([[0; 15].as_slice(), &[1]].concat()))]
    #[case(text(), "2001:db8::a", Wire::Bytes(b"2001:db8::a".to_vec()))]
    fn addresses_are_read_as_written(
        #[case] addresses: Addresses,
        #[case] address: &str,
        #[case] wire: Wire,
    ) {
        let address: IpAddr = address.parse().unwrap();
        assert_eq!(addresses.encode(address), wire);
        assert_eq!(addresses.decode_as(wire, Kind::Address), Value::Address(address));
    }

    #[rstest]
    #[case(Wire::Bytes(b"4294967295".to_vec()), Kind::Number, Value::Number(4_294_967_295))]
    #[case(Wire::UInt(4_294_967_295), Kind::Number, Value::Number(4_294_967_295))]
    #[case(Wire::Bytes(b"1763000000.000000".to_vec()), Kind::Time, Value::Time(1_763_000_000))]
    #[case(Wire::Int(1), Kind::Flag, Value::Flag(true))]
    #[case(Wire::NULL, Kind::Text, Value::Null)]
    #[case(Wire::Bytes(vec![b'h', 0xf6]), Kind::Text, Value::Text("h\u{fffd}".into()))]
    fn values_are_read_from_both_protocols(#[case] wire: Wire, #[case] kind: Kind, #[case] value: Value<'_>) {
        assert_eq!(Addresses::V4.decode_as(wire, kind), value);
    }

    #[rstest]
    #[case(Column::HwAddr, Value::Bytes([].as_slice().into()), Value::Null, true)]
    #[case(Column::HwAddr, Value::Null, Value::Null, true)]
    #[case(Column::HwType, Value::Number(1), Value::Null, true)]
    #[case(Column::Hostname, Value::Text("A".into()), Value::Text("a".into()), false)]
    #[case(Column::PoolId, Value::Null, Value::Number(0), false)]
    fn null_and_empty_are_the_same(
        #[case] column: Column,
        #[case] value: Value<'_>,
        #[case] expected: Value<'_>,
        #[case] is: bool,
    ) {
        assert_eq!(is_expected(column, &value, &expected), is);
    }
}
