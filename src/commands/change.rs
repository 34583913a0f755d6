//! The commands that change leases. None of their changes counts as an assignment of this server.

use super::arguments::Arguments;
use super::family::{self, CommandLease, Purpose, leases_of};
use super::find::Selector;
use super::lease_of::lease_of;
use super::subnet::Store;
use super::{Answer, Bulk, BulkChange, CommandError, Commands, NameChange, Reply, Request};
use crate::lease::{Lease6, LeaseState, LeaseType, SubnetId};
use crate::lease_mgr::{Added, Deleted, Done, LeaseMgr, LeaseMgrError, ManagedLease, Operation};
use crate::with_sources;

/// Number of leases of a batch.
const BATCH: usize = 1000;

/// `lease4-add`, `lease6-add`
pub(super) fn add<'a, L: CommandLease>(
    commands: &'a Commands,
    request: &Request<'a>,
) -> Result<Reply<'a>, CommandError> {
    let store = L::store(commands);
    let lease = lease_of::<L>(&request.map()?, Purpose::New, &store.subnets(), commands.now())?;
    match store.change(|leases| leases.add(&lease))?? {
        Added::Added => Ok(Answer::success(format!(
            "the lease of {} in subnet {} was added",
            lease.address(),
            lease.data().subnet_id
        ))
        .into()),
        Added::AddressTaken => Err(CommandError::Taken { address: lease.address().into() }),
    }
}

/// Checks that a lease may be replaced by another one.
fn check_replacement<L: ManagedLease>(old: &L, new: &L) -> Result<(), CommandError> {
    let address = new.address().into();
    if old.kind() != new.kind() {
        return Err(CommandError::OtherType { address });
    }
    if new.state() == LeaseState::REGISTERED && old.state() != LeaseState::REGISTERED {
        return Err(CommandError::InUse { address });
    }
    Ok(())
}

/// `lease4-update`, `lease6-update`
pub(super) fn update<'a, L: CommandLease>(
    commands: &'a Commands,
    request: &Request<'a>,
) -> Result<Reply<'a>, CommandError> {
    let store = L::store(commands);
    let arguments = request.map()?;
    let creates = arguments.boolean("force-create")?.unwrap_or_default();
    let lease = lease_of::<L>(&arguments, Purpose::Replacement, &store.subnets(), commands.now())?;
    let address = lease.address();
    if let Some(there) = store.get(address)? {
        check_replacement(&there, &lease)?;
        store.change(|leases| leases.update_expecting(&lease, Some(&there)))??;
        return Ok(Answer::success(format!("the lease of {address} was updated")).into());
    }
    if !creates {
        return Err(CommandError::NoLease { address: address.into() });
    }
    match store.change(|leases| leases.add(&lease))?? {
        Added::Added => Ok(Answer::success(format!("the lease of {address} was added")).into()),
        Added::AddressTaken => Err(CommandError::Taken { address: address.into() }),
    }
}

/// Deletes the lease that a selector finds, and returns it. If it is modified concurrently, it is
/// looked for again.
fn delete_selected<L: CommandLease>(
    store: &Store<L>,
    selector: &Selector<L>,
) -> Result<Option<L>, CommandError> {
    while let Some(lease) = selector.find(store)? {
        match store.change(|leases| leases.delete_expecting(lease.address(), Some(&lease)))? {
            Ok(Deleted::Deleted) => return Ok(Some(lease)),
            Ok(Deleted::NoSuchLease) => {}
            Err(error) if error.is_stale() => {}
            Err(error) => return Err(error.into()),
        }
    }
    Ok(None)
}

/// `lease4-del`, `lease6-del`
pub(super) fn delete<'a, L: CommandLease>(
    commands: &'a Commands,
    request: &Request<'a>,
) -> Result<Reply<'a>, CommandError> {
    let arguments = request.map()?;
    let updates_ddns = arguments.boolean("update-ddns")?.unwrap_or_default();
    let selector = Selector::<L>::of(&arguments)?;
    let Some(lease) = delete_selected(L::store(commands), &selector)? else {
        return Ok(Answer::empty("no such lease").into());
    };
    let address = lease.address();
    if updates_ddns
        && !lease.data().hostname.is_empty()
        && let Some(ddns) = &commands.ddns
    {
        // The lease is deleted in any case.
        if let Err(error) = ddns(NameChange::Remove(lease.fields())) {
            let error = CommandError::Ddns { address: address.into(), source: error };
            let error = with_sources(&error);
            return Ok(Answer::success(format!("the lease of {address} was deleted, but {error}")).into());
        }
    }
    Ok(Answer::success(format!("the lease of {address} was deleted")).into())
}

/// `lease4-wipe`, `lease6-wipe`
pub(super) fn wipe<'a, L: CommandLease>(
    commands: &'a Commands,
    request: &Request<'a>,
) -> Result<Reply<'a>, CommandError> {
    let store = L::store(commands);
    let subnet = match request.optional_map()? {
        Some(arguments) => family::subnet_id(&arguments)?,
        None => None,
    };
    let subnets: Vec<SubnetId> = match subnet {
        Some(subnet) => vec![subnet],
        None => store.subnets().iter().map(super::Subnet::id).collect(),
    };
    let mut count = 0;
    if store.leases.is_some() {
        for &subnet in &subnets {
            count += store.change(|leases| leases.wipe_subnet(subnet))??;
        }
    }
    let ids: Vec<_> = subnets.iter().map(ToString::to_string).collect();
    let text = format!("deleted {} of subnets {}", leases_of::<L>(count), ids.join(" "));
    Ok(if count == 0 { Answer::empty(text) } else { Answer::success(text) }.into())
}

/// `lease4-resend-ddns`, `lease6-resend-ddns`
pub(super) fn resend_ddns<'a, L: CommandLease>(
    commands: &'a Commands,
    request: &Request<'a>,
) -> Result<Reply<'a>, CommandError> {
    let arguments = request.map()?;
    let address = family::address::<L>(&arguments)?;
    let ddns = commands.ddns.as_ref().ok_or(CommandError::NoDdns)?;
    let Some(lease) = L::store(commands).get(address)? else {
        return Ok(Answer::empty(format!("{address} has no lease")).into());
    };
    if lease.data().hostname.is_empty() {
        return Err(CommandError::NoHostname { address: address.into() });
    }
    ddns(NameChange::Add(lease.fields()))
        .map_err(|source| CommandError::Ddns { address: address.into(), source })?;
    Ok(Answer::success(format!("the DNS update of {address} is requested")).into())
}

/// `leases-reclaim`
pub(super) fn reclaim<'a>(commands: &'a Commands, request: &Request<'a>) -> Result<Reply<'a>, CommandError> {
    let key = "remove";
    let removes = request.map()?.boolean(key)?;
    let removes = removes.ok_or(CommandError::Missing { key, expected: "true or false" })?;
    let mut count = 0;
    if commands.store4.leases.is_some() {
        count += reclaim_all(commands, &commands.store4, removes)?;
    }
    if commands.store6.leases.is_some() {
        count += reclaim_all(commands, &commands.store6, removes)?;
    }
    Ok(Answer::success(format!("reclaimed {count} expired leases")).into())
}

/// Reclaims all expired leases, and returns their number. Registered ones are deleted, as declined
/// ones are, and with `removes` all.
fn reclaim_all<L: ManagedLease>(
    commands: &Commands,
    store: &Store<L>,
    removes: bool,
) -> Result<usize, CommandError> {
    let (leases, now) = (store.leases()?, commands.now());
    let mut count = 0;
    loop {
        let reclaimed = leases.reclaim_expired(now, BATCH)?;
        let was_last = reclaimed.len() < BATCH;
        count += reclaimed.len();
        let is_left = |lease: &&L| lease.is_reclaimed();
        let is_removed = |lease: &&L| removes || lease.reclaimed_from() == Some(LeaseState::REGISTERED);
        let removals: Vec<_> =
            reclaimed.iter().filter(is_left).filter(is_removed).map(Operation::delete_if_unchanged).collect();
        for result in leases.apply(&removals) {
            match result {
                // A client has returned meanwhile.
                Err(error) if error.is_stale() => {}
                result => drop(result?),
            }
        }
        if was_last {
            return Ok(count);
        }
    }
}

/// `lease6-bulk-apply`
pub(super) fn bulk_apply<'a>(
    commands: &'a Commands,
    request: &Request<'a>,
) -> Result<Reply<'a>, CommandError> {
    let store = &commands.store6;
    let arguments = request.map()?;
    let (subnets, now) = (store.subnets(), commands.now());
    let (deletions, changes) = (arguments.list("deleted-leases")?, arguments.list("leases")?);
    if deletions.is_none() && changes.is_none() {
        return Err(CommandError::Missing { key: "leases", expected: "a list of leases" });
    }
    let deletions = deletions.unwrap_or_default().into_iter().map(|item| {
        let arguments = Arguments::of("deleted-leases", item)?;
        Selector::<Lease6>::of(&arguments)
    });
    let deletions: Vec<_> = deletions.collect::<Result<_, _>>()?;
    let changes = changes.unwrap_or_default().into_iter().map(|item| {
        let arguments = Arguments::of("leases", item)?;
        lease_of::<Lease6>(&arguments, Purpose::Replacement, &subnets, now)
    });
    // A lease that does not fit makes the whole command invalid, and nothing is changed.
    let changes: Vec<Lease6> = match changes.collect() {
        Ok(changes) => changes,
        Err(error) => return Ok(Answer { result: Answer::ERROR, ..Answer::from(error) }.into()),
    };

    let mut bulk = Bulk::default();
    for selector in &deletions {
        let (selector, lease) = match selector {
            // Whichever type the lease has.
            &Selector::Address { address, lease_type } => (
                &Selector::Address { address, lease_type: None },
                Some((address.into(), lease_type.unwrap_or(LeaseType::NA))),
            ),
            selector @ Selector::Client { .. } => (selector, None),
        };
        let answer = match delete_selected(store, selector) {
            Ok(Some(_)) => Answer::success("the lease was deleted"),
            Ok(None) => Answer::empty("no such lease"),
            Err(error) => error.into(),
        };
        bulk.note(BulkChange::Deletion, lease, &answer);
    }
    for batch in changes.chunks(BATCH) {
        let results = store.change(|leases| put_all(leases, batch))?;
        for (lease, result) in batch.iter().zip(results) {
            let answer = result.map_or_else(Answer::from, |()| Answer::success("the lease was stored"));
            bulk.note(BulkChange::Lease, Some((lease.address().into(), lease.lease_type())), &answer);
        }
    }
    Ok(bulk.answer().into())
}

/// Adds leases, or replaces those of their addresses: in one batch, and then one by one those that
/// were modified concurrently, or come twice.
fn put_all(leases: &dyn LeaseMgr<Lease6>, batch: &[Lease6]) -> Vec<Result<(), CommandError>> {
    let addresses: Vec<_> = batch.iter().map(Lease6::address).collect();
    let there = match leases.get_many(&addresses) {
        Ok(there) => there,
        Err(error) => {
            let text = with_sources(&error).to_string();
            let failed = |_| Err(CommandError::Unread { text: text.clone() });
            return batch.iter().map(failed).collect();
        }
    };
    let replaced: Vec<_> = batch
        .iter()
        .zip(&there)
        .map(|(lease, there)| there.as_ref().map_or(Ok(()), |there| check_replacement(there, lease)))
        .collect();
    let operation = |(lease, there): (&Lease6, &Option<Lease6>)| match there {
        Some(there) => Operation::update_if_unchanged(there, lease.clone()),
        None => Operation::Add(lease.clone()),
    };
    let valid = batch.iter().zip(&there).zip(&replaced).filter(|(_, check)| check.is_ok());
    let operations: Vec<_> = valid.map(|(pair, _)| operation(pair)).collect();
    let mut results = leases.apply(&operations).into_iter();
    let result = |(lease, check): (&Lease6, Result<(), CommandError>)| {
        check?;
        match results.next() {
            Some(Ok(Done::AddressTaken)) | None => put(leases, lease),
            Some(Ok(_)) => Ok(()),
            Some(Err(error)) if error.is_stale() => put(leases, lease),
            Some(Err(error)) => Err(error.into()),
        }
    };
    batch.iter().zip(replaced).map(result).collect()
}

/// Adds a lease, or replaces that of its address, whichever it is at the time.
fn put(leases: &dyn LeaseMgr<Lease6>, lease: &Lease6) -> Result<(), CommandError> {
    loop {
        let result = match leases.get(lease.address())? {
            Some(there) => {
                check_replacement(&there, lease)?;
                leases.update_expecting(lease, Some(&there)).map(|()| true)
            }
            None => leases.add(lease).map(|added| added == Added::Added),
        };
        match result {
            Ok(true) => return Ok(()),
            Ok(false) => {}
            Err(error) if error.is_stale() => {}
            Err(error) => return Err(LeaseMgrError::into(error)),
        }
    }
}
