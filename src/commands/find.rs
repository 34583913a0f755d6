//! The commands that read leases.

use std::io::{self, Write};

use super::answer::WriteArguments;
use super::arguments::{Arguments, OfText, parse};
use super::family::{self, CommandLease, Identifier, is_of_type, leases_of};
use super::subnet::Store;
use super::{Answer, CommandError, Commands, Reply, Request};
use crate::lease::{ClientId, Duid, Hostname, HwAddr, Json, LeaseState, LeaseType, SubnetId, write_kea_text};
use crate::lease_mgr::{ClientKey, Key, LeaseMgrError, LeaseMgrExt, Query};
use crate::with_sources;

/// Number of leases that are read at a time.
const PAGE: usize = 1000;

/// The lease that a command names.
pub(super) enum Selector<L: CommandLease> {
    Address { address: L::Address, lease_type: Option<LeaseType> },
    Client { identifier: Identifier, subnet: SubnetId },
}

impl<L: CommandLease> Selector<L> {
    /// Reads the address of the lease, or a client and its subnet.
    pub(super) fn of(arguments: &Arguments<'_>) -> Result<Self, CommandError> {
        if arguments.get("ip-address").is_some() {
            let address = family::address::<L>(arguments)?;
            return Ok(Self::Address { address, lease_type: L::query_type(arguments)? });
        }
        let subnet = SubnetId(arguments.required_u32("subnet-id")?);
        Ok(Self::Client { identifier: L::identifier(arguments)?, subnet })
    }

    /// Returns the lease; of several, the one with the lowest address.
    pub(super) fn find(&self, store: &Store<L>) -> Result<Option<L>, LeaseMgrError> {
        match self {
            Self::Address { address, lease_type } => {
                Ok(store.get(*address)?.filter(|lease| is_of_type(lease, *lease_type)))
            }
            Self::Client { identifier, subnet } => match identifier.key() {
                Some(key) => Ok(store.find(&Query::new(key).in_subnet(*subnet).limit(1))?.pop()),
                None => Ok(None),
            },
        }
    }
}

/// Returns the JSON of a lease.
pub(super) fn json_of<L: CommandLease>(lease: &L) -> Json {
    let mut text = String::new();
    write_kea_text(lease, &mut text);
    Json::from_stored(&text)
}

/// `lease4-get`, `lease6-get`
pub(super) fn get<'a, L: CommandLease>(
    commands: &'a Commands,
    request: &Request<'a>,
) -> Result<Reply<'a>, CommandError> {
    let selector = Selector::<L>::of(&request.map()?)?;
    Ok(match selector.find(L::store(commands))? {
        Some(lease) => {
            Answer::success(format!("{} found", leases_of::<L>(1))).with_arguments(json_of(&lease))
        }
        None => Answer::empty("no such lease"),
    }
    .into())
}

/// The queries whose leases are answered, one after the other.
type Queries<'a, L> = Box<dyn Iterator<Item = Query<'a, L>> + 'a>;

/// Accepts every lease.
fn any<L>(_: &L) -> bool {
    true
}

/// Answers with the leases that queries select and `keeps` accepts, read page by page; with their
/// number, too, in a page.
fn leases<'a, L: CommandLease>(
    store: &'a Store<L>,
    queries: Queries<'a, L>,
    keeps: fn(&L) -> bool,
    is_page: bool,
) -> WriteArguments<'a> {
    Box::new(move |out| {
        out.write_all(b"{ \"leases\": [ ")?;
        let (count, result) = write_leases(store, queries, keeps, out)?;
        out.write_all(b" ]")?;
        if is_page {
            write!(out, ", \"count\": {count}")?;
        }
        out.write_all(b" }")?;
        Ok(match result {
            Ok(()) if count == 0 => Answer::empty(format!("{} found", leases_of::<L>(0))),
            Ok(()) => Answer::success(format!("{} found", leases_of::<L>(count))),
            Err(error) => Answer::error(with_sources(&error).to_string()),
        })
    })
}

/// Writes leases; returns their number, and the error of the backend after which there are no
/// further ones.
fn write_leases<L: CommandLease>(
    store: &Store<L>,
    queries: Queries<'_, L>,
    keeps: fn(&L) -> bool,
    out: &mut dyn Write,
) -> io::Result<(u64, Result<(), LeaseMgrError>)> {
    let (mut count, mut text) = (0, String::new());
    let Some(manager) = &store.leases else { return Ok((0, Ok(()))) };
    for page in queries.flat_map(|query| manager.pages(query, PAGE)) {
        let page = match page {
            Ok(page) => page,
            Err(error) => return Ok((count, Err(error))),
        };
        for lease in page.iter().filter(|lease| keeps(lease)) {
            if count > 0 {
                text.push_str(", ");
            }
            count += 1;
            write_kea_text(lease, &mut text);
        }
        out.write_all(text.as_bytes())?;
        text.clear();
    }
    Ok((count, Ok(())))
}

/// `lease4-get-all`, `lease6-get-all`
pub(super) fn get_all<'a, L: CommandLease>(
    commands: &'a Commands,
    request: &Request<'a>,
) -> Result<Reply<'a>, CommandError> {
    let queries: Queries<'a, L> = match request.optional_map()? {
        None => Box::new([Query::all()].into_iter()),
        Some(arguments) => {
            let expected = "a list of ids of subnets";
            let subnets =
                arguments.list("subnets")?.ok_or(CommandError::Missing { key: "subnets", expected })?;
            let id = |id: crate::lease::JsonRef<'_>| id.as_u64().and_then(|id| u32::try_from(id).ok());
            let ids: Option<Vec<_>> = subnets.into_iter().map(id).collect();
            let ids = ids.ok_or_else(|| arguments.wrong("subnets", expected))?;
            Box::new(ids.into_iter().map(|id| Query::all().in_subnet(SubnetId(id))))
        }
    };
    Ok(Reply::Streamed(leases(L::store(commands), queries, any, false)))
}

/// `lease4-get-page`, `lease6-get-page`
pub(super) fn get_page<'a, L: CommandLease>(
    commands: &'a Commands,
    request: &Request<'a>,
) -> Result<Reply<'a>, CommandError> {
    let arguments = request.map()?;
    let after = match &*arguments.required_text("from")? {
        b"start" => None,
        from => Some(parse::<L::Address>("from", from)?),
    };
    let limit = match arguments.required_u32("limit")? {
        0 => return Err(arguments.wrong("limit", "an integer from 1 to 4294967295")),
        limit => usize::try_from(limit).unwrap_or(usize::MAX),
    };
    let query = Query { after, ..Query::all().limit(limit) };
    Ok(Reply::Streamed(leases(L::store(commands), Box::new([query].into_iter()), any, true)))
}

/// Answers with the leases of a key, which `key` gives for a value of the arguments.
fn by_value<'a, L: CommandLease, T: 'a>(
    commands: &'a Commands,
    value: T,
    key: impl Fn(&T) -> Key<'_> + 'a,
) -> Reply<'a> {
    let store = L::store(commands);
    Reply::Streamed(Box::new(move |out| {
        let query = Query::new(key(&value));
        leases(store, Box::new([query].into_iter()), any, false)(out)
    }))
}

/// Reads the text of an argument, which must not be empty.
fn value<T: OfText>(request: &Request<'_>, key: &'static str) -> Result<T, CommandError> {
    parse(key, &text(request, key)?)
}

fn text<'a>(request: &Request<'a>, key: &'static str) -> Result<std::borrow::Cow<'a, [u8]>, CommandError> {
    let arguments = request.map()?;
    let text = arguments.required_text(key)?;
    if text.is_empty() { Err(arguments.wrong(key, "a text that is not empty")) } else { Ok(text) }
}

/// `lease4-get-by-hw-address`, `lease6-get-by-hw-address`
pub(super) fn by_hwaddr<'a, L: CommandLease>(
    commands: &'a Commands,
    request: &Request<'a>,
) -> Result<Reply<'a>, CommandError> {
    let hwaddr: HwAddr = value(request, "hw-address")?;
    Ok(by_value::<L, _>(commands, hwaddr, |hwaddr| Key::HwAddr(hwaddr)))
}

/// `lease4-get-by-client-id`
pub(super) fn by_client_id<'a, L: CommandLease>(
    commands: &'a Commands,
    request: &Request<'a>,
) -> Result<Reply<'a>, CommandError> {
    let id: ClientId = value(request, "client-id")?;
    Ok(by_value::<L, _>(commands, id, |id| Key::Client(id.into())))
}

/// `lease6-get-by-duid`
pub(super) fn by_duid<'a, L: CommandLease>(
    commands: &'a Commands,
    request: &Request<'a>,
) -> Result<Reply<'a>, CommandError> {
    let duid: Duid = value(request, "duid")?;
    if duid == Duid::empty() {
        // Declined leases, which have no client by which a backend finds them.
        let query = Query::state(LeaseState::DECLINED);
        let has_no_client = |lease: &L| lease.client_key().is_none();
        let leases = leases(L::store(commands), Box::new([query].into_iter()), has_no_client, false);
        return Ok(Reply::Streamed(leases));
    }
    Ok(by_value::<L, _>(commands, duid, |duid| Key::Client(ClientKey::from(duid))))
}

/// `lease4-get-by-hostname`, `lease6-get-by-hostname`
pub(super) fn by_hostname<'a, L: CommandLease>(
    commands: &'a Commands,
    request: &Request<'a>,
) -> Result<Reply<'a>, CommandError> {
    let name = Hostname::new(&text(request, "hostname")?);
    Ok(by_value::<L, _>(commands, name, |name| Key::Hostname(name)))
}

/// Names of states in queries.
const STATES: [(&[u8], LeaseState); 6] = [
    (b"default", LeaseState::DEFAULT),
    (b"assigned", LeaseState::DEFAULT),
    (b"declined", LeaseState::DECLINED),
    (b"expired-reclaimed", LeaseState::EXPIRED_RECLAIMED),
    (b"released", LeaseState::RELEASED),
    (b"registered", LeaseState::REGISTERED),
];

/// `lease4-get-by-state`, `lease6-get-by-state`
pub(super) fn by_state<'a, L: CommandLease>(
    commands: &'a Commands,
    request: &Request<'a>,
) -> Result<Reply<'a>, CommandError> {
    let arguments = request.map()?;
    let expected = "a state by its name or number";
    let state = arguments.get("state").ok_or(CommandError::Missing { key: "state", expected })?;
    let state = match (state.as_bytes(), state.as_i64()) {
        (Some(name), _) => STATES.iter().find(|(known, _)| **known == *name).map(|&(_, state)| state),
        // The lowest 32 bits, as in Kea.
        (None, Some(number)) => u32::try_from(number & i64::from(u32::MAX)).ok().map(LeaseState),
        (None, None) => None,
    };
    let state = state.ok_or_else(|| arguments.wrong("state", expected))?;
    let subnet = family::subnet_id(&arguments)?;
    let query = Query { subnet, ..Query::state(state) };
    Ok(Reply::Streamed(leases(L::store(commands), Box::new([query].into_iter()), any, false)))
}
