//! Leases as text in the answers to Kea's lease commands, written without building a tree.

use std::fmt::Write as _;

use super::{Family, Fields, Lease, LeaseType};
use crate::kea_json::write_string;

/// Appends a lease as Kea's servers answer it, with sorted keys, in printable ASCII. Absent are a
/// `client-id` of no client, a `pool-id` of 0, the `user-context` and (DHCPv6) the `hw-address`
/// that the lease does not have, and the `prefix-len` of an address.
pub(crate) fn write_kea_text<L: Lease>(lease: &L, out: &mut String) {
    let fields = lease.fields();
    let is_v6 = L::FAMILY == Family::V6;
    let mut first = true;
    let mut key = |out: &mut String, key: &str| {
        out.push_str(if first { "{ \"" } else { ", \"" });
        first = false;
        out.push_str(key);
        out.push_str("\": ");
    };
    if let Some(client) = fields.client.filter(|_| !is_v6) {
        key(out, "client-id");
        write_octets(out, client);
    }
    key(out, "cltt");
    write_number(out, fields.cltt);
    if is_v6 {
        key(out, "duid");
        write_octets(out, fields.client.unwrap_or_default());
    }
    key(out, "fqdn-fwd");
    out.push_str(word(fields.fqdn_fwd));
    key(out, "fqdn-rev");
    out.push_str(word(fields.fqdn_rev));
    key(out, "hostname");
    write_string(out, fields.hostname);
    if !is_v6 || fields.hwaddr.is_some() {
        key(out, "hw-address");
        write_octets(out, fields.hwaddr.unwrap_or_default());
    }
    if is_v6 {
        key(out, "iaid");
        write_number(out, fields.iaid.0.into());
    }
    key(out, "ip-address");
    let _ = write!(out, "\"{}\"", fields.address);
    if fields.pool_id.0 != 0 {
        key(out, "pool-id");
        write_number(out, fields.pool_id.0.into());
    }
    if is_v6 {
        key(out, "preferred-lft");
        write_number(out, fields.preferred_lifetime.0.into());
        if fields.lease_type == LeaseType::PD {
            key(out, "prefix-len");
            write_number(out, fields.prefix_len.into());
        }
    }
    key(out, "state");
    write_number(out, fields.state.0.into());
    key(out, "subnet-id");
    write_number(out, fields.subnet_id.0.into());
    if is_v6 {
        key(out, "type");
        write_type(out, &fields);
    }
    if let Some(context) = fields.user_context {
        key(out, "user-context");
        out.push_str(context);
    }
    key(out, "valid-lft");
    write_number(out, fields.valid_lifetime.0.into());
    out.push_str(" }");
}

/// Returns the name of a type in Kea's JSON; `None` for a type without a name.
pub(crate) fn type_name(lease_type: LeaseType) -> Option<&'static str> {
    match lease_type {
        LeaseType::NA => Some("IA_NA"),
        LeaseType::TA => Some("IA_TA"),
        LeaseType::PD => Some("IA_PD"),
        _ => None,
    }
}

fn write_type(out: &mut String, fields: &Fields<'_>) {
    match type_name(fields.lease_type) {
        Some(name) => write_string(out, name.as_bytes()),
        None => write_number(out, fields.lease_type.0.into()),
    }
}

fn word(value: bool) -> &'static str {
    if value { "true" } else { "false" }
}

fn write_number(out: &mut String, number: i64) {
    // Writing to a string never fails.
    let _ = write!(out, "{number}");
}

/// Appends two hex digits for each octet, separated by colons, in quotes.
fn write_octets(out: &mut String, octets: &[u8]) {
    const HEX: &[u8; 16] = b"0123456789abcdef";
    out.push('"');
    for (i, octet) in octets.iter().enumerate() {
        if i > 0 {
            out.push(':');
        }
        out.push(HEX[usize::from(octet >> 4)].into());
        out.push(HEX[usize::from(octet & 15)].into());
    }
    out.push('"');
}
