//! The form in which the tables keep a lease.

use std::borrow::Cow;

use super::driver::Schema;
use crate::lease::{Family, HwSource, HwType, PoolId};
use crate::lease_mgr::{LeaseMgrError, ManagedLease, check};

/// Maximum number of characters of a hostname.
const MAX_HOSTNAME: usize = 255;

/// Returns the lease as it is read back: with a hostname in lower case; in DHCPv4 with a hardware
/// address of Ethernet, as there is no column for its type and source; and without a pool where the schema has
/// no column for it.
///
/// # Errors
/// Returns [`LeaseMgrError::ZeroLifetime`], and [`LeaseMgrError::CannotKeep`] if a column cannot
/// hold a field.
pub(super) fn kept<'a, L: ManagedLease>(lease: &'a L, schema: &Schema) -> Result<Cow<'a, L>, LeaseMgrError> {
    check(lease)?;
    let mut fields = lease.fields();
    let cannot = |field: &'static str, limit: String| {
        Err(LeaseMgrError::CannotKeep { address: lease.address().into(), field, limit })
    };
    if !schema.states.contains(&fields.state) {
        let states: Vec<_> = schema.states.iter().map(|state| state.0.to_string()).collect();
        return cannot("state", format!("one of the states of the database: {}", states.join(", ")));
    }
    if L::FAMILY == Family::V6 && !schema.lease_types.contains(&fields.lease_type) {
        let types: Vec<_> = schema.lease_types.iter().map(|kind| kind.0.to_string()).collect();
        return cannot("lease type", format!("one of the types of the database: {}", types.join(", ")));
    }
    if let (Family::V6, Some(sources), Some(_)) = (L::FAMILY, &schema.hwaddr_sources, fields.hwaddr)
        && !sources.contains(&fields.hwaddr_source.0)
    {
        let sources: Vec<_> = sources.iter().map(u32::to_string).collect();
        return cannot(
            "hwaddr source",
            format!("one of the sources of the database: {}", sources.join(", ")),
        );
    }
    let (max_type, max_source) = schema.max_hardware;
    if L::FAMILY == Family::V6 && fields.hwaddr.is_some() {
        if fields.hwtype.0 > max_type {
            return cannot("hwtype", format!("at most {max_type}"));
        }
        if fields.hwaddr_source.0 > max_source {
            return cannot("hwaddr source", format!("at most {max_source}"));
        }
    }
    if fields.client.is_some_and(|client| client.len() > schema.max_client) {
        return cannot("client id", format!("at most {} bytes", schema.max_client));
    }
    if fields.user_context.is_some_and(|text| text.len() > schema.max_user_context) {
        return cannot("user context", format!("at most {} bytes", schema.max_user_context));
    }
    let (first, last) = schema.times;
    let lifetime = if fields.valid_lifetime.is_infinite() { 0 } else { fields.valid_lifetime.0 };
    let end = fields.cltt.checked_add(lifetime.into());
    if !end.is_some_and(|end| (first..=last).contains(&end)) {
        return cannot("end", format!("seconds since the epoch from {first} to {last}"));
    }
    let hostname = match str::from_utf8(fields.hostname) {
        Ok(name) if name.contains('\0') => return cannot("hostname", "text without NUL".to_owned()),
        Ok(name) if name.chars().count() > MAX_HOSTNAME => {
            return cannot("hostname", format!("at most {MAX_HOSTNAME} characters"));
        }
        Ok(name) if name.bytes().any(|byte| byte.is_ascii_uppercase()) => name.to_ascii_lowercase(),
        Ok(_) => String::new(),
        Err(_) => return cannot("hostname", "UTF-8".to_owned()),
    };
    let has_pool = fields.pool_id != PoolId(0) && !schema.has_pool_ids;
    let is_plain = fields.hwtype == HwType::ETHERNET && fields.hwaddr_source == HwSource(0);
    let has_type = L::FAMILY == Family::V4 && !is_plain;
    if hostname.is_empty() && !has_pool && !has_type {
        return Ok(Cow::Borrowed(lease));
    }
    if !hostname.is_empty() {
        fields.hostname = hostname.as_bytes();
    }
    if has_pool {
        fields.pool_id = PoolId(0);
    }
    if has_type {
        (fields.hwtype, fields.hwaddr_source) = (HwType::ETHERNET, HwSource(0));
    }
    match L::from_fields(fields) {
        Ok(lease) => Ok(Cow::Owned(lease)),
        Err(error) => Err(LeaseMgrError::Backend(Box::new(error))),
    }
}
