//! Values of columns as PostgreSQL sends them. A value is written as the type that the server
//! inferred for its parameter, so statements need no conversions.

use std::borrow::Cow;
use std::error::Error;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use bytes::BytesMut;
use tokio_postgres::Row;
use tokio_postgres::types::{FromSql, IsNull, ToSql, Type, to_sql_checked};

use crate::sql::columns::{Column, Kind, Value};

/// Seconds from 1970 to 2000, from when PostgreSQL counts its microseconds.
const EPOCH: i64 = 946_684_800;

/// The number of an address family in a value of type `inet`.
const INET4: u8 = 2;
const INET6: u8 = 3;

/// A value does not fit in the type of its parameter.
#[derive(Debug, thiserror::Error)]
#[error("the value {value} does not fit in a column of type {to}")]
pub(super) struct Unencodable {
    value: String,
    to: String,
}

/// A value of a result is not what was expected.
#[derive(Debug, thiserror::Error)]
pub(super) enum Undecodable {
    #[error("the result has a column of type {from}, expected {expected}")]
    Type { from: String, expected: &'static str },
    #[error("the result has an invalid value of type {from}")]
    Bytes { from: String },
    #[error("the result has the address {text:?}")]
    Address { text: String },
}

/// Returns the value that a column of a row has for a value of a lease: most have no NULL.
pub(super) fn stored<'a>(column: Column, value: Value<'a>) -> Value<'a> {
    match (column, value) {
        (Column::RelayId | Column::RemoteId, Value::Null) => Value::Null,
        (column, Value::Null) => match column.kind() {
            Kind::Bytes => Value::Bytes(Cow::Borrowed(&[])),
            Kind::Text => Value::Text(Cow::Borrowed("")),
            Kind::Flag => Value::Flag(false),
            Kind::Number => Value::Number(0),
            Kind::Address | Kind::Time => Value::Null,
        },
        (_, value) => value,
    }
}

impl ToSql for Value<'_> {
    fn to_sql(&self, ty: &Type, out: &mut BytesMut) -> Result<IsNull, Box<dyn Error + Sync + Send>> {
        let number = |number: i64, out: &mut BytesMut| match *ty {
            Type::INT2 => Some(i16::try_from(number).ok()?.to_sql(ty, out)),
            // An identity association is unsigned, and its column is signed.
            #[expect(clippy::cast_possible_wrap, reason = "the same 32 bits")]
            Type::INT4 => {
                let unsigned = u32::try_from(number).map(|number| number as i32);
                let number = i32::try_from(number).or(unsigned).ok()?;
                Some(number.to_sql(ty, out))
            }
            Type::INT8 => Some(number.to_sql(ty, out)),
            Type::BOOL => Some((number != 0).to_sql(ty, out)),
            _ => None,
        };
        let is_text = matches!(*ty, Type::TEXT | Type::VARCHAR | Type::BPCHAR);
        let written = match self {
            Self::Null => return Ok(IsNull::Yes),
            Self::Number(value) => number(*value, out),
            Self::Flag(flag) => number((*flag).into(), out),
            Self::Bytes(bytes) if *ty == Type::BYTEA => Some((&**bytes).to_sql(ty, out)),
            Self::Text(text) if is_text => Some((&**text).to_sql(ty, out)),
            Self::Address(address) if *ty == Type::INET => Some(address.to_sql(ty, out)),
            Self::Address(address) if is_text => Some(address.to_string().as_str().to_sql(ty, out)),
            Self::Address(IpAddr::V4(address)) => number(address.to_bits().into(), out),
            Self::Time(time) if *ty == Type::TIMESTAMPTZ => {
                let microseconds = time.saturating_sub(EPOCH).saturating_mul(1_000_000);
                Some(microseconds.to_sql(ty, out))
            }
            _ => None,
        };
        written.unwrap_or_else(|| {
            Err(Unencodable { value: format!("{self:?}"), to: ty.name().to_owned() }.into())
        })
    }

    fn accepts(_: &Type) -> bool {
        true
    }

    to_sql_checked!();
}

/// The bytes of a value of any type.
struct Raw<'a>(&'a [u8]);

impl<'a> FromSql<'a> for Raw<'a> {
    fn from_sql(_: &Type, raw: &'a [u8]) -> Result<Self, Box<dyn Error + Sync + Send>> {
        Ok(Self(raw))
    }

    fn accepts(_: &Type) -> bool {
        true
    }
}

/// Returns the values of a row, which has columns of these kinds. Empty bytes and texts are
/// [`Value::Null`].
pub(super) fn values(
    row: &Row,
    kinds: impl Iterator<Item = Kind>,
) -> Result<Vec<Value<'_>>, Box<dyn Error + Send + Sync>> {
    let mut values = Vec::with_capacity(row.len());
    for (index, (kind, column)) in kinds.zip(row.columns()).enumerate() {
        values.push(match row.try_get::<_, Option<Raw<'_>>>(index)? {
            Some(Raw(raw)) => value(kind, column.type_(), raw)?,
            None => Value::Null,
        });
    }
    Ok(values)
}

/// Returns a value that does not borrow from a row.
pub(super) fn owned(value: Value<'_>) -> Value<'static> {
    match value {
        Value::Null => Value::Null,
        Value::Number(number) => Value::Number(number),
        Value::Flag(flag) => Value::Flag(flag),
        Value::Bytes(bytes) => Value::Bytes(bytes.into_owned().into()),
        Value::Text(text) => Value::Text(text.into_owned().into()),
        Value::Address(address) => Value::Address(address),
        Value::Time(time) => Value::Time(time),
    }
}

/// Returns the value of a kind for the bytes of a value of a type.
fn value<'a>(kind: Kind, ty: &Type, raw: &'a [u8]) -> Result<Value<'a>, Undecodable> {
    let mismatch = |expected| Undecodable::Type { from: ty.name().to_owned(), expected };
    let found = typed(ty, raw)?;
    Ok(match (kind, found) {
        (Kind::Bytes, Value::Bytes(bytes)) if bytes.is_empty() => Value::Null,
        (Kind::Text, Value::Text(text)) if text.is_empty() => Value::Null,
        (Kind::Number, Value::Flag(flag)) => Value::Number(flag.into()),
        (Kind::Flag, Value::Number(number)) => Value::Flag(number != 0),
        (Kind::Address, Value::Number(number)) => {
            let bits = u32::try_from(number);
            let bits = bits.map_err(|_| Undecodable::Address { text: number.to_string() })?;
            Value::Address(Ipv4Addr::from_bits(bits).into())
        }
        (Kind::Address, Value::Text(text)) => {
            let address = text.parse();
            Value::Address(address.map_err(|_| Undecodable::Address { text: text.into() })?)
        }
        (Kind::Number, found @ Value::Number(_))
        | (Kind::Flag, found @ Value::Flag(_))
        | (Kind::Bytes, found @ Value::Bytes(_))
        | (Kind::Text, found @ Value::Text(_))
        | (Kind::Address, found @ Value::Address(_))
        | (Kind::Time, found @ Value::Time(_)) => found,
        (Kind::Number, _) => return Err(mismatch("a number")),
        (Kind::Flag, _) => return Err(mismatch("a boolean")),
        (Kind::Bytes, _) => return Err(mismatch("bytes")),
        (Kind::Text, _) => return Err(mismatch("text")),
        (Kind::Address, _) => return Err(mismatch("an address")),
        (Kind::Time, _) => return Err(mismatch("a time")),
    })
}

/// Returns the value that bytes are in a type.
fn typed<'a>(ty: &Type, raw: &'a [u8]) -> Result<Value<'a>, Undecodable> {
    let invalid = || Undecodable::Bytes { from: ty.name().to_owned() };
    let i64 = || raw.try_into().map(i64::from_be_bytes).map_err(|_| invalid());
    Ok(match *ty {
        Type::INT2 => Value::Number(raw.try_into().map(i16::from_be_bytes).map_err(|_| invalid())?.into()),
        Type::INT4 => Value::Number(raw.try_into().map(i32::from_be_bytes).map_err(|_| invalid())?.into()),
        Type::INT8 => Value::Number(i64()?),
        Type::NUMERIC => Value::Number(numeric(raw).ok_or_else(invalid)?),
        Type::BOOL => Value::Flag(raw != [0]),
        Type::BYTEA => Value::Bytes(raw.into()),
        Type::TEXT | Type::VARCHAR | Type::BPCHAR | Type::NAME => {
            Value::Text(str::from_utf8(raw).map_err(|_| invalid())?.into())
        }
        Type::INET | Type::CIDR => Value::Address(inet(raw).ok_or_else(invalid)?),
        // The times without end are the ends of what 64 bits can count.
        Type::TIMESTAMPTZ => Value::Time(i64()?.div_euclid(1_000_000).saturating_add(EPOCH)),
        _ => return Err(Undecodable::Type { from: ty.name().to_owned(), expected: "one of a lease" }),
    })
}

/// Returns the address of a value of type `inet`: family, number of bits, a flag, length, octets.
fn inet(raw: &[u8]) -> Option<IpAddr> {
    match raw {
        [INET4, _, _, 4, octets @ ..] => Some(Ipv4Addr::from(<[u8; 4]>::try_from(octets).ok()?).into()),
        [INET6, _, _, 16, octets @ ..] => Some(Ipv6Addr::from(<[u8; 16]>::try_from(octets).ok()?).into()),
        _ => None,
    }
}

/// Returns the number of a value of type `numeric`, such as a sum: number of digits to the base of
/// 10000, exponent of the first one, sign, scale, digits. `None` for fractions, and beyond 64 bits.
fn numeric(raw: &[u8]) -> Option<i64> {
    let mut words = raw.as_chunks().0.iter().map(|&word| i16::from_be_bytes(word));
    let (length, exponent) = (i32::from(words.next()?), i32::from(words.next()?));
    let is_negative = match words.next()? {
        0 => false,
        0x4000 => true,
        _ => return None,
    };
    words.next()?;
    // Zeros at the end are left out.
    let zeros = if length == 0 { 0 } else { exponent + 1 - length };
    let mut number =
        words.try_fold(0i64, |number, digit| number.checked_mul(10_000)?.checked_add(digit.into()))?;
    number = number.checked_mul(10_000i64.checked_pow(u32::try_from(zeros).ok()?)?)?;
    Some(if is_negative { -number } else { number })
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::*;

    fn encoded(value: &Value<'_>, ty: &Type) -> Option<Vec<u8>> {
        let mut out = BytesMut::new();
        value.to_sql(ty, &mut out).ok().map(|_| out.to_vec())
    }

    #[rstest]
    #[case(Value::Number(4_294_967_295), Type::INT4, Some(vec![255; 4]))]
    #[case(Value::Number(2_147_483_648), Type::INT4, Some(vec![128, 0, 0, 0]))]
    #[case(Value::Number(4_294_967_296), Type::INT4, None)]
    #[case(Value::Number(32_767), Type::INT2, Some(vec![127, 255]))]
    #[case(Value::Number(32_768), Type::INT2, None)]
    #[case(Value::Address([192, 0, 2, 10].into()), Type::INT8, Some(3_221_225_994_i64.to_be_bytes().to_vec()))]
    #[case(Value::Address(Ipv6Addr::LOCALHOST.into()), Type::TEXT, Some(b"::1".to_vec()))]
    #[case(Value::Address(Ipv6Addr::LOCALHOST.into()), Type::INT8, None)]
    #[case(Value::Time(EPOCH + 1), Type::TIMESTAMPTZ, Some(1_000_000_i64.to_be_bytes().to_vec()))]
    #[case(Value::Text("a".into()), Type::BYTEA, None)]
    #[case(Value::Null, Type::BYTEA, Some(vec![]))]
    fn values_are_written_as_the_type_of_the_parameter(
        #[case] value: Value<'_>,
        #[case] ty: Type,
        #[case] expected: Option<Vec<u8>>,
    ) {
        assert_eq!(encoded(&value, &ty), expected);
    }

    #[rstest]
    #[case(Kind::Address, Type::INT8, &3_221_225_994_i64.to_be_bytes(), Value::Address([192, 0, 2, 10].into()))]
    #[case(Kind::Address, Type::VARCHAR, b"2001:DB8:0::1", Value::Address("2001:db8::1".parse().unwrap()))]
    #[case(Kind::Text, Type::VARCHAR, b"", Value::Null)]
    #[case(Kind::Bytes, Type::BYTEA, b"", Value::Null)]
    #[case(Kind::Number, Type::BOOL, &[1], Value::Number(1))]
    #[case(Kind::Flag, Type::INT2, &[0, 1], Value::Flag(true))]
    #[case(Kind::Time, Type::TIMESTAMPTZ, &(-1_i64).to_be_bytes(), Value::Time(EPOCH - 1))]
    #[case(Kind::Number, Type::NUMERIC, &[0, 0, 0, 0, 0, 0, 0, 0], Value::Number(0))]
    #[case(Kind::Number, Type::NUMERIC, &[0, 1, 0, 1, 0, 0, 0, 0, 0, 3], Value::Number(30_000))]
    #[case(Kind::Number, Type::NUMERIC, &[0, 2, 0, 1, 64, 0, 0, 0, 0, 3, 0, 7], Value::Number(-30_007))]
    fn values_are_read_by_their_kind(
        #[case] kind: Kind,
        #[case] ty: Type,
        #[case] raw: &[u8],
        #[case] expected: Value<'_>,
    ) {
        assert_eq!(value(kind, &ty, raw).unwrap(), expected);
    }

    #[rstest]
    #[case(Kind::Number, Type::NUMERIC, &[0, 1, 255, 255, 0, 0, 0, 1, 19, 136])]
    #[case(Kind::Address, Type::INT8, &(-1_i64).to_be_bytes())]
    #[case(Kind::Address, Type::TEXT, b"x")]
    #[case(Kind::Number, Type::TEXT, b"1")]
    #[case(Kind::Text, Type::TEXT, &[255])]
    #[case(Kind::Address, Type::INET, &[3, 128, 0, 4, 1, 2, 3, 4])]
    fn other_values_are_errors(#[case] kind: Kind, #[case] ty: Type, #[case] raw: &[u8]) {
        value(kind, &ty, raw).unwrap_err();
    }
}
