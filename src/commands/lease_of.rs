//! A lease of the arguments of `lease4-add`, `lease6-add` and others.

use std::time::SystemTime;

use super::CommandError;
use super::arguments::Arguments;
use super::family::{self, CommandLease, Purpose};
use super::subnet::{Subnet, by_id};
use crate::lease::{
    Hostname, Json, LeaseData, LeaseState, Lifetime, PoolId, SubnetId, UserContext, seconds_since_epoch,
    with_present_relay_form,
};

/// Makes a lease of arguments. First all are read, whose errors are 1; then the subnet is looked
/// for.
pub(super) fn lease_of<L: CommandLease>(
    arguments: &Arguments<'_>,
    purpose: Purpose,
    subnets: &[Subnet<L>],
    now: SystemTime,
) -> Result<L, CommandError> {
    let client = L::client(arguments, purpose)?;
    let address = family::address::<L>(arguments)?;
    let subnet_id = family::subnet_id(arguments)?;
    let valid = arguments.u32("valid-lft")?.map(Lifetime);
    let expire = arguments.integer("expire")?;
    if expire.is_some_and(|expire| expire <= 0) {
        return Err(arguments.wrong("expire", "a time in seconds since the epoch, from 1 on"));
    }
    let fqdn_fwd = arguments.boolean("fqdn-fwd")?.unwrap_or_default();
    let fqdn_rev = arguments.boolean("fqdn-rev")?.unwrap_or_default();
    let hostname = arguments.text("hostname")?.map_or_else(Hostname::default, |name| Hostname::new(&name));
    if hostname.is_empty() && (fqdn_fwd || fqdn_rev) {
        return Err(CommandError::Invalid { what: "fqdn-fwd and fqdn-rev need a hostname" });
    }
    let state = arguments.u32("state")?.map_or(LeaseState::DEFAULT, LeaseState);
    if state > LeaseState::REGISTERED {
        return Err(arguments.wrong("state", "an integer from 0 to 4"));
    }
    let user_context = user_context::<L>(arguments)?;
    let pool_id = PoolId(arguments.u32("pool-id")?.unwrap_or_default());

    let subnet = match subnet_id {
        Some(id) => by_id(subnets, id).ok_or(CommandError::NoSubnet { subnet: id })?,
        None if client.is_address => {
            let subnet = subnets.iter().find(|subnet| subnet.contains(address));
            subnet.ok_or(CommandError::NoSubnetOf { address: address.into() })?
        }
        None => return Err(CommandError::Missing { key: "subnet-id", expected: "the subnet of the prefix" }),
    };
    if client.is_address && !subnet.contains(address) {
        return Err(CommandError::OtherSubnet { subnet: subnet.id(), address: address.into() });
    }
    let valid_lifetime = valid.unwrap_or_else(|| subnet.lifetime());
    let cltt = match expire {
        None => seconds_since_epoch(now),
        Some(expire) if expire >= valid_lifetime.0.into() => expire - i64::from(valid_lifetime.0),
        Some(expire) => return Err(CommandError::Expire { expire, valid: valid_lifetime.0 }),
    };
    let mut lease = (client.make)(state, subnet.lifetime())?;
    *lease.data_mut() = LeaseData {
        valid_lifetime,
        cltt,
        subnet_id: SubnetId(subnet.id().0),
        pool_id,
        fqdn_fwd,
        fqdn_rev,
        hostname: hostname.to_ascii_lowercase(),
        user_context,
    };
    Ok(lease)
}

/// Reads the user context, and a comment that becomes a member of it.
fn user_context<L: CommandLease>(arguments: &Arguments<'_>) -> Result<Option<UserContext>, CommandError> {
    let context = match arguments.map("user-context")? {
        // An empty map is no user context.
        Some(map) if map.as_map().is_some_and(|mut members| members.next().is_some()) => {
            Some(UserContext::parse(map.as_json().as_bytes()).map_err(CommandError::Json)?)
        }
        _ => None,
    };
    let context = match arguments.get("comment") {
        None => context,
        Some(comment) => {
            let context = context.unwrap_or_default();
            if context.get("comment").is_some() {
                return Err(CommandError::Invalid { what: "the user context has a comment, too" });
            }
            Some(context.with(&["comment"], Json::from(comment)).map_err(CommandError::Json)?)
        }
    };
    Ok(context.map(|context| with_present_relay_form(L::FAMILY, &context).unwrap_or(context)))
}
