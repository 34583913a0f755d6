//! What differs between the families.

use std::net::{Ipv4Addr, Ipv6Addr};

use super::arguments::{Arguments, OfText, parse};
use super::subnet::Store;
use super::{CommandError, Commands};
use crate::lease::{
    ClientId, Duid, HwAddr, Iaid, Lease, Lease4, Lease6, LeaseError, LeaseState, LeaseType, Lifetime,
    SubnetId,
};
use crate::lease_file::FileLease;
use crate::lease_mgr::{ClientKey, Key, ManagedLease};

/// A lease with commands.
pub(super) trait CommandLease: ManagedLease<Address: OfText> + FileLease {
    /// Whether subnets have prefixes, too.
    const HAS_PREFIXES: bool;

    fn store(commands: &Commands) -> &Store<Self>;

    /// Returns the type that a query asks for; `None` if the family has only one.
    fn query_type(arguments: &Arguments<'_>) -> Result<Option<LeaseType>, CommandError>;

    /// Reads an identifier of a client in a query.
    fn identifier(arguments: &Arguments<'_>) -> Result<Identifier, CommandError>;

    /// Reads what identifies the client of a lease, and its type.
    fn client(arguments: &Arguments<'_>, purpose: Purpose) -> Result<Client<Self>, CommandError>;
}

/// What a lease in the arguments is for.
#[derive(Clone, Copy, PartialEq)]
pub(super) enum Purpose {
    /// It is added.
    New,
    /// It may be that of a partner server, which has recorded it.
    Replacement,
}

/// The parts of a lease that differ between the families.
pub(super) struct Client<L> {
    /// Whether the address is to be in a subnet. A prefix need not be.
    pub(super) is_address: bool,
    /// Makes the lease, with the subnet's lifetime as the default.
    pub(super) make: MakeLease<L>,
}

/// Makes a lease of its state and of the default of its preferred lifetime.
pub(super) type MakeLease<L> = Box<dyn FnOnce(LeaseState, Lifetime) -> Result<L, CommandError>>;

/// An identifier of a client in a query.
pub(super) enum Identifier {
    HwAddr(HwAddr),
    ClientId(ClientId),
    Duid {
        duid: Duid,
        iaid: Iaid,
        lease_type: LeaseType,
    },
    /// No lease has it.
    Nothing,
}

impl Identifier {
    /// Returns the key of a query; `None` if it finds nothing.
    pub(super) fn key(&self) -> Option<Key<'_>> {
        match self {
            Self::HwAddr(hwaddr) => Some(Key::HwAddr(hwaddr)),
            Self::ClientId(id) => Some(Key::Client(id.into())),
            Self::Duid { duid, iaid, lease_type } => {
                Some(Key::Client(ClientKey::from(duid).iaid(*iaid).lease_type(*lease_type)))
            }
            Self::Nothing => None,
        }
    }
}

/// Kinds of identifiers that queries know, and those that they accept in both families.
const KINDS: [&[u8]; 6] = [b"hw-address", b"duid", b"client-id", b"circuit-id", b"flex-id", b"address"];

fn kind_of_identifier(
    arguments: &Arguments<'_>,
    accepted: &'static [&'static [u8]],
    expected: &'static str,
) -> Result<&'static [u8], CommandError> {
    let key = "identifier-type";
    let kind = arguments.required_text(key)?;
    arguments.required_text("identifier")?;
    let known = KINDS.iter().find(|known| ***known == *kind).copied();
    known.filter(|kind| accepted.contains(kind)).ok_or_else(|| arguments.wrong(key, expected))
}

/// Reads a hardware address; `None` for an empty text.
fn hwaddr(arguments: &Arguments<'_>) -> Result<Option<Option<HwAddr>>, CommandError> {
    let key = "hw-address";
    let text = arguments.text(key)?;
    text.map(|text| if text.is_empty() { Ok(None) } else { parse(key, &text).map(Some) }).transpose()
}

impl CommandLease for Lease4 {
    const HAS_PREFIXES: bool = false;

    fn store(commands: &Commands) -> &Store<Self> {
        &commands.store4
    }

    fn query_type(_: &Arguments<'_>) -> Result<Option<LeaseType>, CommandError> {
        Ok(None)
    }

    fn identifier(arguments: &Arguments<'_>) -> Result<Identifier, CommandError> {
        let kind = kind_of_identifier(arguments, &[b"hw-address", b"client-id"], "hw-address or client-id")?;
        let text = arguments.required_text("identifier")?;
        if kind == b"client-id" {
            return parse("identifier", &text).map(Identifier::ClientId);
        }
        if text.is_empty() {
            return Ok(Identifier::Nothing);
        }
        parse("identifier", &text).map(Identifier::HwAddr)
    }

    fn client(arguments: &Arguments<'_>, _: Purpose) -> Result<Client<Self>, CommandError> {
        let address: Ipv4Addr = address::<Self>(arguments)?;
        let hwaddr = hwaddr(arguments)?;
        let hwaddr = hwaddr.ok_or(CommandError::Missing { key: "hw-address", expected: "a text" })?;
        let client_id = arguments.parsed("client-id")?;
        Ok(Client {
            is_address: true,
            make: Box::new(move |state, _| Ok(Self::new(address, hwaddr, client_id, state)?)),
        })
    }
}

impl CommandLease for Lease6 {
    const HAS_PREFIXES: bool = true;

    fn store(commands: &Commands) -> &Store<Self> {
        &commands.store6
    }

    fn query_type(arguments: &Arguments<'_>) -> Result<Option<LeaseType>, CommandError> {
        match arguments.text("type")?.as_deref() {
            None | Some(b"IA_NA") => Ok(Some(LeaseType::NA)),
            Some(b"IA_PD") => Ok(Some(LeaseType::PD)),
            // A type that no DHCPv6 lease has.
            Some(b"V4") => Ok(Some(LeaseType(u16::MAX))),
            Some(_) => Err(arguments.wrong("type", "IA_NA or IA_PD")),
        }
    }

    fn identifier(arguments: &Arguments<'_>) -> Result<Identifier, CommandError> {
        kind_of_identifier(arguments, &[b"duid"], "duid")?;
        let duid: Duid = parse("identifier", &arguments.required_text("identifier")?)?;
        let iaid = Iaid(arguments.u32("iaid")?.unwrap_or_default());
        let lease_type = Self::query_type(arguments)?.unwrap_or(LeaseType::NA);
        Ok(Identifier::Duid { duid, iaid, lease_type })
    }

    fn client(arguments: &Arguments<'_>, purpose: Purpose) -> Result<Client<Self>, CommandError> {
        let address: Ipv6Addr = address::<Self>(arguments)?;
        let lease_type = match arguments.text("type")?.as_deref() {
            None | Some(b"IA_NA") => LeaseType::NA,
            Some(b"IA_PD") => LeaseType::PD,
            Some(_) => return Err(arguments.wrong("type", "IA_NA or IA_PD")),
        };
        let prefix_len = if lease_type == LeaseType::PD {
            let expected = "an integer from 1 to 128";
            let len = arguments.u32("prefix-len").map_err(|_| arguments.wrong("prefix-len", expected))?;
            len.filter(|len| (1..=128).contains(len))
                .ok_or_else(|| arguments.wrong("prefix-len", expected))?
        } else {
            128
        };
        let iaid = Iaid(arguments.required_u32("iaid")?);
        let duid_text = arguments.required_text("duid")?;
        let hwaddr = hwaddr(arguments)?.flatten();
        let preferred = arguments.u32("preferred-lft")?.map(Lifetime);
        let duid_text = duid_text.into_owned();
        let make = move |state, default| {
            let is_declined = state == LeaseState::DECLINED;
            if is_declined && lease_type == LeaseType::PD {
                return Err(CommandError::Invalid { what: "a prefix cannot be declined" });
            }
            let duid = match &*duid_text {
                // A declined lease of a partner with Kea 2.2.
                b"00" if is_declined && purpose == Purpose::Replacement => {
                    Duid::recorded(&[0]).map_err(LeaseError::from)?
                }
                text => parse("duid", text)?,
            };
            if duid == Duid::empty() && !is_declined {
                return Err(CommandError::Invalid { what: "only a declined lease has the empty DUID" });
            }
            let mut lease = if lease_type == LeaseType::PD {
                Self::new_prefix(address, prefix_len, duid, iaid, state)?
            } else {
                Self::new(lease_type, address, duid, iaid, state)?
            };
            lease.set_hwaddr(hwaddr);
            lease.set_preferred_lifetime(preferred.unwrap_or(default));
            Ok(lease)
        };
        Ok(Client { is_address: lease_type != LeaseType::PD, make: Box::new(make) })
    }
}

/// Reads the address of a lease.
pub(super) fn address<L: CommandLease>(arguments: &Arguments<'_>) -> Result<L::Address, CommandError> {
    parse("ip-address", &arguments.required_text("ip-address")?)
}

/// Reads the id of a subnet; `None` if it is 0 or absent.
pub(super) fn subnet_id(arguments: &Arguments<'_>) -> Result<Option<SubnetId>, CommandError> {
    Ok(arguments.u32("subnet-id")?.filter(|&id| id != 0).map(SubnetId))
}

/// Returns whether a lease has the type that a query asks for.
pub(super) fn is_of_type<L: ManagedLease>(lease: &L, wanted: Option<LeaseType>) -> bool {
    wanted.is_none() || lease.kind() == wanted
}

/// Returns the name of a family in texts.
pub(super) fn leases_of<L: Lease>(count: u64) -> String {
    format!("{count} {} lease{}", L::FAMILY, if count == 1 { "" } else { "s" })
}
