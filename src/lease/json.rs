//! Leases in the JSON form of Kea's lease commands (`lease4-get-all`, `lease4-add`, and others).
//!
//! # Strings
//! Host names and the strings of user contexts are byte strings. Kea's JSON, and this one, have a
//! character from U+0000 to U+00FF for each byte: every byte string survives, and answers from Kea
//! can be read. A string with a character above U+00FF cannot come from Kea; its bytes are its
//! UTF-8.
//!
//! As a consequence, `é` alone is the byte 0xe9, even if its writer meant UTF-8. Kea distinguishes
//! `\u00e9` from `é`, but to a deserializer they are the same.
//!
//! # Kea's rules for leases
//! A lease that is read as a [`Lease4`] or [`Lease6`] is one that Kea's commands accept: its
//! hostname is lower-cased (ASCII), and its subnet id and cltt are at least 1. Leases are written
//! unchanged: an upper-case hostname reads back in lower case, and a lease of subnet 0 or of a
//! client that was heard before 1970 is refused. Unlike Kea's commands, reading takes no default
//! from a configuration (`subnet-id`, lifetimes), and accepts `IA_TA` and other types, states above
//! 4, and a lease without `hw-address`. [`Recorded`] reads a recorded DHCPv6 lease, rather than one
//! for a command, unchanged.

use std::net::{Ipv4Addr, Ipv6Addr};

use serde::de::Error as _;
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use serde_json::Value;

use super::kea_text::write_kea_text;
use super::{
    ClientId, Duid, Hostname, HwAddr, Iaid, Lease, Lease4, Lease6, LeaseData, LeaseError, LeaseState,
    LeaseType, Lifetime, PoolId, SubnetId, UserContext,
};
use crate::identifiers::IdentifierKind;
use crate::identifiers::serde::{bytes_of, text_error};

/// A DHCPv4 lease as Kea writes it.
#[derive(Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
struct Json4 {
    ip_address: Ipv4Addr,
    /// Written as an empty string if there is none.
    #[serde(default, serialize_with = "hwaddr_or_empty", deserialize_with = "no_hwaddr_if_empty")]
    hw_address: Option<HwAddr>,
    #[serde(skip_serializing_if = "Option::is_none")]
    client_id: Option<ClientId>,
    #[serde(flatten)]
    common: Common,
}

/// A DHCPv6 lease as Kea writes it.
#[derive(Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
struct Json6 {
    #[serde(rename = "type", default)]
    lease_type: TypeJson,
    ip_address: Ipv6Addr,
    /// Written and read for prefixes only.
    #[serde(skip_serializing_if = "Option::is_none")]
    prefix_len: Option<u32>,
    iaid: Iaid,
    /// Of any length that a recorded lease may have.
    #[serde(deserialize_with = "recorded_duid")]
    duid: Duid,
    #[serde(default, skip_serializing_if = "Option::is_none", deserialize_with = "no_hwaddr_if_empty")]
    hw_address: Option<HwAddr>,
    preferred_lft: Lifetime,
    #[serde(flatten)]
    common: Common,
}

/// The keys of both families.
#[derive(Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
struct Common {
    subnet_id: SubnetId,
    valid_lft: Lifetime,
    /// Always written.
    cltt: Option<i64>,
    /// An alternative to cltt in commands.
    #[serde(skip_serializing)]
    expire: Option<i64>,
    #[serde(default)]
    fqdn_fwd: bool,
    #[serde(default)]
    fqdn_rev: bool,
    #[serde(default)]
    hostname: Hostname,
    #[serde(default)]
    state: LeaseState,
    #[serde(skip_serializing_if = "Option::is_none")]
    user_context: Option<UserContext>,
    #[serde(default, skip_serializing_if = "is_zero")]
    pool_id: PoolId,
}

fn is_zero(pool_id: &PoolId) -> bool {
    pool_id.0 == 0
}

impl Common {
    fn of(lease: &impl Lease) -> Self {
        let data = lease.data();
        Self {
            subnet_id: data.subnet_id,
            valid_lft: data.valid_lifetime,
            cltt: Some(data.cltt),
            expire: None,
            fqdn_fwd: data.fqdn_fwd,
            fqdn_rev: data.fqdn_rev,
            hostname: data.hostname.clone(),
            state: lease.state(),
            user_context: data.user_context.clone(),
            pool_id: data.pool_id,
        }
    }

    /// Applies the rules for a new lease; see the module.
    fn into_new<E: serde::de::Error>(self) -> Result<Self, E> {
        let at_least_one = |key, value: i64| match value {
            1.. => Ok(()),
            _ => Err(E::custom(format_args!("{key} is {value}, expected at least 1"))),
        };
        at_least_one("subnet-id", self.subnet_id.0.into())?;
        match (self.expire, self.cltt) {
            (Some(expire), _) => at_least_one("expire", expire)?,
            (None, Some(cltt)) => at_least_one("cltt", cltt)?,
            (None, None) => {}
        }
        Ok(Self { hostname: self.hostname.to_ascii_lowercase(), ..self })
    }

    fn into_data<E: serde::de::Error>(self) -> Result<LeaseData, E> {
        let valid = i64::from(self.valid_lft.0);
        let cltt = match (self.expire, self.cltt) {
            (Some(expire), _) if expire >= valid => expire - valid,
            (Some(expire), _) => {
                return Err(E::custom(format_args!(
                    "expire is {expire}, expected at least valid-lft, {valid}"
                )));
            }
            (None, Some(cltt)) => cltt,
            (None, None) => return Err(E::missing_field("cltt")),
        };
        Ok(LeaseData {
            valid_lifetime: self.valid_lft,
            cltt,
            subnet_id: self.subnet_id,
            pool_id: self.pool_id,
            fqdn_fwd: self.fqdn_fwd,
            fqdn_rev: self.fqdn_rev,
            hostname: self.hostname,
            user_context: self.user_context,
        })
    }
}

/// Serializes to an element of the answer to `lease4-get-all`: a map with the keys `ip-address`,
/// `hw-address` (empty if there is none), `client-id` (left out if there is none), `subnet-id`,
/// `valid-lft`, `cltt`, `fqdn-fwd`, `fqdn-rev`, `hostname`, `state`, `user-context` (left out if
/// there is none) and `pool-id` (left out if it is 0).
///
/// The type of a hardware address is not written; it reads back as Ethernet.
///
/// Each byte of the host name is a character from U+0000 to U+00FF; see the implementation of
/// [`Hostname`].
impl Serialize for Lease4 {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        Json4 {
            ip_address: self.address(),
            hw_address: self.hwaddr().cloned(),
            client_id: self.client_id().cloned(),
            common: Common::of(self),
        }
        .serialize(serializer)
    }
}

/// Deserializes from the form of the answer to `lease4-get-all`, or of the arguments of
/// `lease4-add`.
///
/// `ip-address`, `subnet-id`, `valid-lft` and one of `cltt` and `expire` are required, as there is
/// no configuration with defaults for them. If both `cltt` and `expire` are given, `expire` is
/// used. All other keys are optional, and unknown keys are ignored.
///
/// The hostname is lower-cased. `subnet-id` and `cltt` must be at least 1, and `expire` at least 1
/// and at least `valid-lft`. A lease is written unchanged: one of subnet 0, or of a client that was
/// heard before 1970, is refused when it is read back.
///
/// Unlike Kea's commands, this accepts states above 4, and a lease with a client id and without
/// `hw-address`, and takes no default from a configuration.
impl<'de> Deserialize<'de> for Lease4 {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let json = Json4::deserialize(deserializer)?;
        let mut lease = Self::new(json.ip_address, json.hw_address, json.client_id, json.common.state)
            .map_err(D::Error::custom)?;
        *lease.data_mut() = json.common.into_new()?.into_data()?;
        Ok(lease)
    }
}

/// Serializes to an element of the answer to `lease6-get-all`: a map with the keys `type` (`IA_NA`,
/// `IA_TA`, `IA_PD`, else a number), `ip-address`, `prefix-len` (for an `IA_PD` only), `iaid`,
/// `duid`, `hw-address` (left out if there is none), `preferred-lft`, and the keys of a [`Lease4`]
/// from `subnet-id` on.
///
/// The type and the source of a hardware address are not written; it reads back as Ethernet, from
/// an unknown source.
impl Serialize for Lease6 {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        Json6 {
            lease_type: TypeJson::of(self.lease_type()),
            ip_address: self.address(),
            prefix_len: (self.lease_type() == LeaseType::PD).then(|| self.prefix_len().into()),
            iaid: self.iaid,
            duid: self.duid().clone(),
            hw_address: self.hwaddr.clone(),
            preferred_lft: self.preferred_lifetime,
            common: Common::of(self),
        }
        .serialize(serializer)
    }
}

/// Deserializes from the form of the answer to `lease6-get-all`, or of the arguments of
/// `lease6-add`.
///
/// `ip-address`, `duid`, `iaid`, `subnet-id`, `preferred-lft`, `valid-lft`, one of `cltt` and
/// `expire`, and, for an `IA_PD`, `prefix-len` are required. If both `cltt` and `expire` are given,
/// `expire` is used. All other keys are optional (the default of `type` is `IA_NA`), and unknown
/// keys are ignored.
///
/// The hostname is lower-cased. `subnet-id` and `cltt` must be at least 1, and `expire` at least 1
/// and at least `valid-lft`.
///
/// The lease is a new one: a DUID of less than 3 bytes, and a prefix with bits set after its
/// length, are refused. [`Recorded`] accepts them.
impl<'de> Deserialize<'de> for Lease6 {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let mut json = Json6::deserialize(deserializer)?;
        json.duid = Duid::new(json.duid.as_bytes()).map_err(D::Error::custom)?;
        json.common = json.common.into_new()?;
        json.into_lease(Self::new_prefix)
    }
}

/// A lease that a server has recorded, as in the answer to `lease6-get-all`. Unlike a [`Lease6`],
/// which is read as a new lease, it may have what Kea 2.2 puts into leases: a DUID of 1 or 2 bytes,
/// and a prefix with bits set after its length. Its hostname keeps its case, and any subnet and
/// time is accepted. So every lease that is written as JSON can be read back.
///
/// ```
/// use leasemgr::lease::{Lease6, Recorded};
///
/// let json = r#"{"type": "IA_PD", "ip-address": "2001:db8:8:1::1", "prefix-len": 64, "iaid": 7, "duid": "01",
///     "subnet-id": 1, "preferred-lft": 0, "valid-lft": 3600, "cltt": 1790000000}"#;
/// assert!(serde_json::from_str::<Lease6>(json).is_err());
/// let Recorded(lease) = serde_json::from_str(json)?;
/// assert_eq!((lease.prefix_len(), lease.duid().as_bytes()), (64, &[1][..]));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(transparent)]
pub struct Recorded(pub Lease6);

impl<'de> Deserialize<'de> for Recorded {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Json6::deserialize(deserializer)?.into_lease(Lease6::recorded_prefix).map(Self)
    }
}

/// Creates the lease of a delegated prefix.
type NewPrefix = fn(Ipv6Addr, u32, Duid, Iaid, LeaseState) -> Result<Lease6, LeaseError>;

impl Json6 {
    fn into_lease<E: serde::de::Error>(self, new_prefix: NewPrefix) -> Result<Lease6, E> {
        let state = self.common.state;
        let lease_type = self.lease_type.lease_type();
        let lease = if lease_type == LeaseType::PD {
            let prefix_len = self.prefix_len.ok_or_else(|| E::missing_field("prefix-len"))?;
            new_prefix(self.ip_address, prefix_len, self.duid, self.iaid, state)
        } else {
            Lease6::new(lease_type, self.ip_address, self.duid, self.iaid, state)
        };
        let mut lease = lease.map_err(E::custom)?;
        lease.preferred_lifetime = self.preferred_lft;
        lease.hwaddr = self.hw_address;
        *lease.data_mut() = self.common.into_data()?;
        Ok(lease)
    }
}

fn recorded_duid<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Duid, D::Error> {
    let text = String::deserialize(deserializer)?;
    let bytes = IdentifierKind::Duid.bytes_of(&text).map_err(|error| text_error(&text, error))?;
    Duid::recorded(&bytes).map_err(D::Error::custom)
}

/// Returns JSON text in printable ASCII. Only its strings have characters outside it.
#[cfg(feature = "ha")]
pub(crate) fn to_ascii(json: &str) -> String {
    let mut ascii = String::with_capacity(json.len());
    for c in json.chars() {
        if c.is_ascii() {
            ascii.push(c);
        } else {
            // A character above U+FFFF is two units of UTF-16.
            let mut units = [0; 2];
            for unit in c.encode_utf16(&mut units) {
                ascii.push_str(&format!("\\u{unit:04x}"));
            }
        }
    }
    ascii
}

macro_rules! to_json {
    ($lease:ident, $command:literal) => {
        impl $lease {
            #[doc = concat!("Returns the lease as JSON text for Kea's `", $command, "`.")]
            ///
            /// The text has what serializing has, and is ASCII: Kea reads `\u00e9` as one byte of a host
            /// name or user context, but `é` as two. Numbers of the user context keep their spelling.
            #[must_use]
            pub fn to_json(&self) -> String {
                let mut text = String::new();
                write_kea_text(self, &mut text);
                text
            }
        }
    };
}
to_json!(Lease4, "lease4-add");
to_json!(Lease6, "lease6-add");

/// The type of a lease, by name if it has one.
#[derive(Serialize, Deserialize)]
#[serde(untagged, expecting = "type is expected to be IA_NA, IA_TA, IA_PD or a number from 0 to 65535")]
enum TypeJson {
    Name(TypeName),
    Number(u16),
}

#[derive(Serialize, Deserialize)]
enum TypeName {
    #[serde(rename = "IA_NA")]
    Na,
    #[serde(rename = "IA_TA")]
    Ta,
    #[serde(rename = "IA_PD")]
    Pd,
}

impl TypeJson {
    fn of(lease_type: LeaseType) -> Self {
        match lease_type {
            LeaseType::NA => Self::Name(TypeName::Na),
            LeaseType::TA => Self::Name(TypeName::Ta),
            LeaseType::PD => Self::Name(TypeName::Pd),
            LeaseType(number) => Self::Number(number),
        }
    }

    fn lease_type(&self) -> LeaseType {
        match *self {
            Self::Name(TypeName::Na) => LeaseType::NA,
            Self::Name(TypeName::Ta) => LeaseType::TA,
            Self::Name(TypeName::Pd) => LeaseType::PD,
            Self::Number(number) => LeaseType(number),
        }
    }
}

impl Default for TypeJson {
    fn default() -> Self {
        Self::of(LeaseType::NA)
    }
}

fn hwaddr_or_empty<S: Serializer>(hwaddr: &Option<HwAddr>, serializer: S) -> Result<S::Ok, S::Error> {
    match hwaddr {
        Some(hwaddr) => hwaddr.serialize(serializer),
        None => serializer.serialize_str(""),
    }
}

fn no_hwaddr_if_empty<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<HwAddr>, D::Error> {
    let text = String::deserialize(deserializer)?;
    if text.is_empty() {
        return Ok(None);
    }
    text.parse().map(Some).map_err(|error| text_error(&text, error))
}

/// Serializes to a map, whose strings have a character from U+0000 to U+00FF for each byte, as in
/// Kea.
///
/// Integers from [`i64::MIN`] to [`u64::MAX`] are kept; any other number becomes the nearest
/// double. Maps and lists that are nested deeper than serde_json supports (128 levels) are an
/// error.
impl Serialize for UserContext {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let value: Value = serde_json::from_str(self.as_str()).map_err(serde::ser::Error::custom)?;
        value.serialize(serializer)
    }
}

/// Deserializes a map. If all characters of a string or key are below U+0100, each is a byte;
/// otherwise the bytes are the UTF-8 of the string.
impl<'de> Deserialize<'de> for UserContext {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let mut text = Vec::new();
        write_value(&Value::deserialize(deserializer)?, &mut text);
        Self::parse(&text).map_err(D::Error::custom)
    }
}

/// Appends a value in the form that [`UserContext::parse`] takes, with strings as raw bytes.
fn write_value(value: &Value, out: &mut Vec<u8>) {
    match value {
        Value::String(string) => write_string(string, out),
        Value::Array(items) => {
            out.push(b'[');
            for item in items {
                write_value(item, out);
                // A comma is allowed after the last item.
                out.push(b',');
            }
            out.push(b']');
        }
        Value::Object(members) => {
            out.push(b'{');
            for (i, (key, value)) in members.iter().enumerate() {
                if i > 0 {
                    out.push(b',');
                }
                write_string(key, out);
                out.push(b':');
                write_value(value, out);
            }
            out.push(b'}');
        }
        Value::Null | Value::Bool(_) | Value::Number(_) => {
            out.extend_from_slice(value.to_string().as_bytes());
        }
    }
}

fn write_string(string: &str, out: &mut Vec<u8>) {
    out.push(b'"');
    for byte in bytes_of(string) {
        if matches!(byte, b'"' | b'\\') {
            out.push(b'\\');
        }
        out.push(byte);
    }
    out.push(b'"');
}
