//! The lease manager over the sessions of a database.

mod limits;
mod others;
mod reclaim;
mod text_order;

use std::borrow::Cow;
use std::collections::HashMap;
use std::fmt;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use foldhash::fast::RandomState;
use parking_lot::Mutex;

use self::others::Memory;
use super::columns::{self, Column, Kind, Value};
use super::driver::{ClientColumn, DbError, DbErrorKind, Driver, MAX_FOUND, Session, Write};
use super::free::{self, Window};
use super::kept::kept;
use super::options::SqlOptions;
use super::queue::Queue;
use super::select::{self, Builder, Statement};
use super::sessions::{Sessions, SharedError};
use crate::lease::{
    ClientClass, Family, LeaseKind, LeaseState, LeaseType, PoolId, SubnetId, UserContext, seconds_since_epoch,
};
use crate::lease_mgr::writer::{self, Writer};
use crate::lease_mgr::{
    Added, AddedWithin, Borrowed, Change, Cursor, Deleted, Done, FreeRange, ImportEvent, ImportOptions,
    Imported, Key, LeaseMgr, LeaseMgrError, LookUp, ManagedLease, Operation, Query, StatisticsQuery,
    StatisticsRow, Status, Then, ThenFound, Tracking, call_then, defaults,
};
use crate::panics::contained;

/// Number of leases that are read with one statement.
const PAGE: usize = 10_000;
/// Number of leases that are looked up with one statement by a caller that asks for many.
const LARGE_BATCH: usize = 512;
/// Number of batches of changes that are made at the same time.
const CHANGE_LEADERS: usize = 1;
/// Number of batches of look-ups that are made at the same time, for each kind of key and for those
/// that are submitted.
pub(super) const READ_LEADERS: usize = 2;
/// Maximum number of attempts to make a batch that conflicts with others.
const MAX_CONFLICTS: u32 = 30;

/// An operation, and the lease that it replaces or deletes.
type Made<L> = Result<(Done, Option<L>), LeaseMgrError>;

/// A client in a subnet.
type ClientInSubnet = (ClientColumn, Vec<u8>, u32);

/// The leases of a client; `None` if they have to be looked up alone.
type OfClient<L> = Result<Option<Vec<L>>, LeaseMgrError>;

/// Leases in a database.
pub(crate) struct SqlLeaseMgr<L: ManagedLease, D: Driver<L>> {
    shared: Arc<Shared<L, D>>,
    writer: Option<Writer<Operation<L>, Result<Done, LeaseMgrError>>>,
    /// Makes look-ups that are submitted.
    reader: Option<Writer<LookUp<L>, Found<L>>>,
}

/// The leases that a look-up or a query finds.
type Found<L> = Result<Vec<L>, LeaseMgrError>;

/// What the manager shares with the thread of submitted changes.
pub(super) struct Shared<L: ManagedLease, D: Driver<L>> {
    pub(super) sessions: Arc<Sessions<L, D>>,
    columns: Vec<Column>,
    changes: Queue<L::Address, Arc<Operation<L>>, Made<L>>,
    addresses: Queue<L::Address, L::Address, Result<Option<L>, LeaseMgrError>>,
    clients: Queue<(), ClientInSubnet, OfClient<L>>,
    /// Held while leases are counted and a lease is added within limits.
    limits: Mutex<()>,
    /// What all leases were, if changes of others are to be found out.
    memory: Option<Memory<L>>,
    pub(super) tracking: Arc<Tracking<L>>,
}

impl<L: ManagedLease, D: Driver<L>> fmt::Debug for SqlLeaseMgr<L, D> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SqlLeaseMgr").field("place", &self.shared.sessions.place()).finish_non_exhaustive()
    }
}

impl<L: ManagedLease, D: Driver<L>> SqlLeaseMgr<L, D> {
    /// Opens a lease manager.
    ///
    /// # Errors
    /// Returns [`DbError`] if the database cannot be reached, or has no schema of a known version.
    pub(crate) fn open(driver: D, options: SqlOptions) -> Result<Self, DbError> {
        let tracking = Arc::new(Tracking::default());
        let notified = Arc::clone(&tracking);
        let sessions =
            Sessions::open(driver, options, move |availability| notified.notify_availability(availability))?;
        let columns = Column::of(L::FAMILY, sessions.schema());
        let memory = sessions.options().poll_interval.map(|_| Memory::default());
        let shared = Arc::new(Shared {
            sessions,
            columns,
            changes: Queue::new(true, CHANGE_LEADERS),
            addresses: Queue::new(false, READ_LEADERS),
            clients: Queue::new(false, READ_LEADERS),
            limits: Mutex::new(()),
            memory,
            tracking,
        });
        shared.follow_others()?;
        let own = Arc::clone(&shared);
        let writer = Writer::new(1, move |operations: &[Operation<L>]| {
            own.apply(operations.iter().map(Operation::borrowed))
        });
        let own = Arc::clone(&shared);
        let reader = Writer::new(READ_LEADERS, move |look_ups: &[LookUp<L>]| {
            let batches = look_ups.chunks(super::queue::MAX_BATCH);
            batches.flat_map(|batch| each_answered(batch.len(), || own.look_up_any(batch))).collect()
        });
        Ok(Self { shared, writer: Some(writer), reader: Some(reader) })
    }
}

impl<L: ManagedLease, D: Driver<L>> Drop for SqlLeaseMgr<L, D> {
    /// Waits until all submitted changes and look-ups are made.
    fn drop(&mut self) {
        if let Some(writer) = self.writer.take() {
            writer.end(true);
        }
        if let Some(reader) = self.reader.take() {
            reader.end(true);
        }
    }
}

impl<L: ManagedLease, D: Driver<L>> Shared<L, D> {
    pub(super) fn kept<'a>(&self, lease: &'a L) -> Result<Cow<'a, L>, LeaseMgrError> {
        kept(lease, self.sessions.schema())
    }

    /// Returns the operation with leases in their kept form. An expected lease that cannot be kept
    /// is nowhere in the database, and differs from any.
    fn kept_operation(&self, operation: Borrowed<'_, L>) -> Result<Operation<L>, LeaseMgrError> {
        let kept = |lease: &L| self.kept(lease).map(Cow::into_owned);
        let expected = |lease: &L| kept(lease).unwrap_or_else(|_| lease.clone());
        Ok(match operation {
            Borrowed::Add(lease) => Operation::Add(kept(lease)?),
            Borrowed::Update(lease, read) => {
                Operation::Update { lease: kept(lease)?, expected: read.map(expected) }
            }
            Borrowed::Delete(address, read) => Operation::Delete { address, expected: read.map(expected) },
        })
    }

    /// Makes one change, and calls the callbacks.
    fn change(&self, operation: Borrowed<'_, L>) -> Result<Done, LeaseMgrError> {
        let mut results = self.apply([operation].into_iter());
        results.pop().unwrap_or(Err(LeaseMgrError::Panicked))
    }

    /// Makes changes together with those of other threads, and calls the callbacks.
    fn apply<'a>(
        &self,
        operations: impl ExactSizeIterator<Item = Borrowed<'a, L>>,
    ) -> Vec<Result<Done, LeaseMgrError>> {
        if self.tracking.refuse_in_callback().is_err() {
            return operations.map(|_| Err(LeaseMgrError::InCallback)).collect();
        }
        let (mut results, mut sent) = (Vec::with_capacity(operations.len()), Vec::new());
        for (number, operation) in operations.enumerate() {
            results.push(Err(LeaseMgrError::Panicked));
            match self.kept_operation(operation) {
                Ok(operation) => sent.push((number, Arc::new(operation))),
                Err(error) => results[number] = Err(error),
            }
        }
        let queued = sent.iter().map(|(_, operation)| (operation.address(), Arc::clone(operation)));
        self.changes.run(queued, &|batch| self.make(batch), |n, made| {
            let (number, operation) = &sent[n];
            results[*number] = made.map(|(done, old)| {
                self.notify(operation, done, old.as_ref());
                done
            });
        });
        results
    }

    fn notify(&self, operation: &Operation<L>, done: Done, old: Option<&L>) {
        let change = match (operation, done, old) {
            (Operation::Add(lease), Done::Added, _) => Change::added(lease),
            (Operation::Update { lease, .. }, Done::Updated, Some(old)) => Change::updated(old, lease),
            (Operation::Delete { .. }, Done::Deleted, Some(old)) => Change::deleted(old),
            _ => return,
        };
        if let Some(memory) = &self.memory {
            memory.note(change.address(), change.now());
        }
        self.tracking.notify(&change);
    }

    /// Makes a batch in which each address occurs once.
    fn make(&self, batch: &[Arc<Operation<L>>]) -> Vec<Made<L>> {
        each_answered(batch.len(), || Batch::new(self, batch).make())
    }

    /// Selects leases by a statement.
    fn select<'a>(&self, build: impl Fn(&D::Session) -> Statement<'a>) -> Result<Vec<L>, LeaseMgrError> {
        let select = |session: &mut D::Session| {
            let Statement { sql, values } = build(session);
            session.select(&sql, &values, &self.columns)
        };
        self.sessions.with(true, select).map_err(|error| self.sessions.failed(error))
    }

    fn rows<'a>(
        &self,
        kinds: &[Kind],
        build: impl Fn(&D::Session) -> Statement<'a>,
    ) -> Result<Vec<Vec<Value<'static>>>, LeaseMgrError> {
        let query = |session: &mut D::Session| {
            let Statement { sql, values } = build(session);
            session.query(&sql, &values, kinds)
        };
        self.sessions.with(true, query).map_err(|error| self.sessions.failed(error))
    }

    fn get_many(&self, addresses: &[L::Address]) -> Result<Vec<Option<L>>, LeaseMgrError> {
        if addresses.len() > super::queue::MAX_BATCH {
            // They gain nothing from other look-ups.
            return addresses.chunks(LARGE_BATCH).flat_map(|batch| self.look_up(batch)).collect();
        }
        let mut results: Vec<_> = addresses.iter().map(|_| Ok(None)).collect();
        let queued = addresses.iter().map(|&address| (address, address));
        self.addresses.run(
            queued,
            &|batch| each_answered(batch.len(), || self.look_up(batch)),
            |n, found| results[n] = found,
        );
        results.into_iter().collect()
    }

    /// Reads the leases of a batch of addresses, which may repeat.
    fn look_up(&self, addresses: &[L::Address]) -> Vec<Result<Option<L>, LeaseMgrError>> {
        let found = self.read(addresses);
        match found {
            Ok(found) => addresses.iter().map(|address| Ok(found.get(address).cloned())).collect(),
            Err(error) => self.fail_all(error, addresses.len()),
        }
    }

    /// Makes look-ups of all kinds, with a statement for each kind. Clients that are not found by their
    /// ids are looked up by their hardware addresses.
    fn look_up_any(&self, look_ups: &[LookUp<L>]) -> Vec<Found<L>> {
        let mut results: Vec<_> = look_ups.iter().map(|_| Ok(Vec::new())).collect();
        let addresses = look_ups.iter().enumerate().filter_map(|(n, look_up)| match look_up {
            LookUp::Address(address) => Some((n, *address)),
            LookUp::Client { .. } => None,
        });
        let (numbers, addresses): (Vec<_>, Vec<_>) = addresses.unzip();
        if !addresses.is_empty() {
            for (n, found) in numbers.into_iter().zip(self.look_up(&addresses)) {
                results[n] = found.map(|lease| lease.into_iter().collect());
            }
        }
        self.look_up_open(look_ups, &mut results, LookUp::by_id, |_, _| {});
        self.look_up_open(look_ups, &mut results, LookUp::by_hwaddr, LookUp::retain_own);
        results
    }

    /// Makes queries of the look-ups that have found nothing yet, and drops leases of other clients
    /// by `retain_own`.
    fn look_up_open(
        &self,
        look_ups: &[LookUp<L>],
        results: &mut [Found<L>],
        query_of: impl Fn(&LookUp<L>) -> Option<Query<'_, L>>,
        retain_own: impl Fn(&LookUp<L>, &mut Vec<L>),
    ) {
        let open = results.iter().enumerate().filter(|(_, found)| found.as_ref().is_ok_and(Vec::is_empty));
        let open = open.filter_map(|(n, _)| Some((n, query_of(&look_ups[n])?)));
        let (numbers, queries): (Vec<_>, Vec<_>) = open.unzip();
        for (n, mut found) in numbers.into_iter().zip(self.find_each(&queries)) {
            if let Ok(leases) = &mut found {
                retain_own(&look_ups[n], leases);
            }
            results[n] = found;
        }
    }

    /// Finds the leases of several queries, those of clients in subnets together.
    fn find_each(&self, queries: &[Query<'_, L>]) -> Vec<Found<L>> {
        let clients: Vec<_> = queries.iter().filter_map(client_in_subnet).collect();
        let mut found = self.look_up_clients(&clients).into_iter();
        let found_of = |query| match client_in_subnet(query).and_then(|_| found.next()) {
            Some(Ok(Some(leases))) => Ok(selected(query, leases)),
            Some(Err(error)) => Err(error),
            Some(Ok(None)) | None => self.find_alone(query),
        };
        queries.iter().map(found_of).collect()
    }

    /// Calls `work` in a transaction as [`Session::transaction`] does, again while it conflicts with
    /// others.
    fn in_transaction<T>(
        &self,
        mut work: impl FnMut(&mut D::Session) -> Result<(bool, T), DbError>,
    ) -> Result<T, DbError> {
        self.without_conflicts(|| self.sessions.with(false, |session| session.transaction(&mut work)))
    }

    fn fail_all<T>(&self, error: DbError, count: usize) -> Vec<Result<T, LeaseMgrError>> {
        let (kind, error) = (error.kind, Arc::new(error));
        let shared = || DbError::new(kind, SharedError(Arc::clone(&error)));
        (0..count).map(|_| Err(self.sessions.failed(shared()))).collect()
    }

    pub(super) fn read(
        &self,
        addresses: &[L::Address],
    ) -> Result<HashMap<L::Address, L, RandomState>, DbError> {
        let found = self.sessions.with(true, |session| session.get(addresses))?;
        Ok(found.into_iter().map(|lease| (lease.address(), lease)).collect())
    }

    /// Does something, and repeats it after conflicts with others.
    pub(super) fn without_conflicts<T>(
        &self,
        mut work: impl FnMut() -> Result<T, DbError>,
    ) -> Result<T, DbError> {
        let mut conflicts = 0;
        loop {
            match work() {
                Err(error) if error.kind == DbErrorKind::Conflict && conflicts < MAX_CONFLICTS => {
                    conflicts += 1;
                    wait_after_conflict(conflicts);
                }
                result => return result,
            }
        }
    }

    /// Reads the leases of a batch of clients.
    fn look_up_clients(&self, clients: &[ClientInSubnet]) -> Vec<OfClient<L>> {
        let mut found = HashMap::<_, Vec<L>, RandomState>::default();
        for by in [ClientColumn::Id, ClientColumn::HwAddr] {
            let keys = clients.iter().filter(|client| client.0 == by);
            let mut keys: Vec<_> = keys.map(|(_, key, subnet)| (key.as_slice(), *subnet)).collect();
            if keys.is_empty() {
                continue;
            }
            // Callers that ask for the same client get its leases once each.
            keys.sort_unstable();
            keys.dedup();
            let leases = match self.sessions.with(true, |session| session.of_clients(by, &keys)) {
                // There may be more.
                Ok(leases) if leases.len() >= MAX_FOUND => return clients.iter().map(|_| Ok(None)).collect(),
                Ok(leases) => leases,
                Err(error) => return self.fail_all(error, clients.len()),
            };
            let key_of = |lease: &L| match by {
                ClientColumn::Id => lease.client_key().map(|client| client.id.to_vec()),
                ClientColumn::HwAddr => lease.hwaddr().map(|hwaddr| hwaddr.as_bytes().to_vec()),
            };
            for lease in leases {
                let key = (by, key_of(&lease).unwrap_or_default(), lease.data().subnet_id.0);
                found.entry(key).or_default().push(lease);
            }
        }
        clients.iter().map(|client| Ok(Some(found.get(client).cloned().unwrap_or_default()))).collect()
    }

    /// Returns the leases of a query for those of a client in a subnet, as a server makes it for each
    /// packet. `None` for another query, and if the client has too many leases.
    fn find_of_client(&self, query: &Query<'_, L>) -> OfClient<L> {
        let Some(client) = client_in_subnet(query) else { return Ok(None) };
        let mut found = Ok(None);
        self.clients.run(
            [((), client)],
            &|batch| each_answered(batch.len(), || self.look_up_clients(batch)),
            |_, leases| found = leases,
        );
        Ok(found?.map(|leases| selected(query, leases)))
    }

    /// Returns the lowest free address of a range from an address of it on.
    fn lowest_free(
        &self,
        range: &FreeRange<L>,
        mut from: L::Address,
        now: i64,
    ) -> Result<Option<L::Address>, LeaseMgrError> {
        loop {
            let find = |session: &mut D::Session| match free::lowest(session, range, from, now) {
                Some(Statement { sql, values }) => session.query(&sql, &values, &[Kind::Address]).map(Some),
                None => Ok(None),
            };
            let Some(rows) = self.sessions.with(true, find).map_err(|error| self.sessions.failed(error))?
            else {
                return self.lowest_free_of_windows(range, from, now);
            };
            let Some(Value::Address(found)) = rows.into_iter().flatten().next() else {
                return Ok(None);
            };
            let found = L::address_of_bits(match found {
                IpAddr::V4(address) => address.to_bits().into(),
                IpAddr::V6(address) => address.to_bits(),
            });
            match range.from(found) {
                // The address that was found is excluded.
                Some(next) if next != found => from = next,
                free => return Ok(free),
            }
        }
    }

    /// Does as [`Shared::lowest_free`] if the database cannot calculate with the addresses.
    fn lowest_free_of_windows(
        &self,
        range: &FreeRange<L>,
        from: L::Address,
        now: i64,
    ) -> Result<Option<L::Address>, LeaseMgrError> {
        let mut rest = Window::from(range, from);
        while let Some(window) = rest {
            let rows = self.rows(&[Kind::Address], |session| window.occupied(session, now))?;
            let occupied = rows.into_iter().flatten().filter_map(|value| match value {
                Value::Address(address) => Some(address),
                _ => None,
            });
            if let Some(free) = window.lowest_gap(&occupied.collect()) {
                return Ok(Some(free));
            }
            rest = window.following();
        }
        Ok(None)
    }

    fn find(&self, query: &Query<'_, L>) -> Result<Vec<L>, LeaseMgrError> {
        query.check()?;
        match self.find_of_client(query)? {
            Some(leases) => Ok(leases),
            None => self.find_alone(query),
        }
    }

    /// Finds the leases of a query with statements of its own.
    fn find_alone(&self, query: &Query<'_, L>) -> Result<Vec<L>, LeaseMgrError> {
        if self.has_text_addresses() && query.is_whole() && query.limit.is_none() {
            let mut all = self.all_of_text()?;
            if query.reversed {
                all.reverse();
            }
            return Ok(all);
        }
        let schema = self.sessions.schema();
        let wanted = query.limit.unwrap_or(usize::MAX);
        let is_exact = select::is_exact(query, schema);
        let (mut found, mut rest) = (Vec::new(), *query);
        loop {
            let step = if is_exact { PAGE.min(wanted - found.len()) } else { PAGE };
            let page =
                self.select(|session| select::find(session, schema, &self.columns, &rest, Some(step)))?;
            let is_last = page.len() < step;
            let last = page.last().map(L::address);
            found.extend(page.into_iter().filter(|lease| query.matches(lease)).take(wanted - found.len()));
            match last {
                Some(last) if !is_last && found.len() < wanted => rest = rest.after(last),
                _ => return Ok(found),
            }
        }
    }
}

/// Returns the client of a query that can be made together with others; `None` for another query.
fn client_in_subnet<L: ManagedLease>(query: &Query<'_, L>) -> Option<ClientInSubnet> {
    let (by, key) = match query.key {
        Key::Client(client) => (ClientColumn::Id, client.id),
        // DHCPv6 has no index for it in the schema of Kea 2.2.
        Key::HwAddr(hwaddr) if L::FAMILY == Family::V4 => (ClientColumn::HwAddr, hwaddr.as_bytes()),
        _ => return None,
    };
    let subnet = query.subnet?;
    let is_plain =
        (Query { limit: None, reversed: false, ..*query }) == Query::new(query.key).in_subnet(subnet);
    is_plain.then(|| (by, key.to_vec(), subnet.0))
}

/// Returns the leases that a query selects among those of its client in its subnet.
fn selected<L: ManagedLease>(query: &Query<'_, L>, mut leases: Vec<L>) -> Vec<L> {
    leases.retain(|lease| query.matches(lease));
    leases.sort_unstable_by_key(L::address);
    if query.reversed {
        leases.reverse();
    }
    leases.truncate(query.limit.unwrap_or(usize::MAX));
    leases
}

/// Returns the results of a batch. After a panic, each operation fails.
fn each_answered<T>(
    count: usize,
    make: impl FnOnce() -> Vec<Result<T, LeaseMgrError>>,
) -> Vec<Result<T, LeaseMgrError>> {
    let mut results = Vec::new();
    if contained(|| results = make()).is_err() || results.len() != count {
        return (0..count).map(|_| Err(LeaseMgrError::Panicked)).collect();
    }
    results
}

/// Waits before a batch is made again. Others that conflict wait for different times.
fn wait_after_conflict(conflicts: u32) {
    let local = 0_u8;
    let thread = std::ptr::from_ref(&local).addr() as u64 >> 4;
    std::thread::sleep(Duration::from_micros(100 + thread % 997 * u64::from(conflicts)));
}

/// Operations of a batch, until the outcome of each is known.
struct Batch<'a, L: ManagedLease, D: Driver<L>> {
    shared: &'a Shared<L, D>,
    operations: &'a [Arc<Operation<L>>],
    results: Vec<Option<Made<L>>>,
    /// The lease that an operation without an expected one has found.
    found: Vec<Option<L>>,
}

impl<'a, L: ManagedLease, D: Driver<L>> Batch<'a, L, D> {
    fn new(shared: &'a Shared<L, D>, operations: &'a [Arc<Operation<L>>]) -> Self {
        let results = operations.iter().map(|_| None).collect();
        let found = operations.iter().map(|_| None).collect();
        Self { shared, operations, results, found }
    }

    fn make(mut self) -> Vec<Made<L>> {
        let all: Vec<_> = (0..self.operations.len()).collect();
        self.decide(all);
        self.results.into_iter().map(|result| result.unwrap_or(Err(LeaseMgrError::Panicked))).collect()
    }

    /// Finds out the results after no answer came.
    fn found_out(mut self, error: DbError) -> Vec<Made<L>> {
        let all: Vec<_> = (0..self.operations.len()).collect();
        self.find_out(&all, error);
        self.results.into_iter().map(|result| result.unwrap_or(Err(LeaseMgrError::Panicked))).collect()
    }

    /// Makes these operations until each has a result.
    fn decide(&mut self, mut open: Vec<usize>) {
        open.sort_unstable_by_key(|&n| self.operations[n].address());
        let mut conflicts = 0;
        while !open.is_empty() {
            if let Err(error) = self.attempt(&open) {
                // Those that are made stay made, whatever happened to the others.
                open.retain(|&n| self.results[n].is_none());
                match error.kind {
                    DbErrorKind::Conflict if conflicts < MAX_CONFLICTS => {
                        conflicts += 1;
                        wait_after_conflict(conflicts);
                    }
                    DbErrorKind::Refused | DbErrorKind::Other | DbErrorKind::NoSpace if open.len() > 1 => {
                        // One that fails does not fail the others.
                        open.iter().for_each(|&n| self.decide(vec![n]));
                    }
                    DbErrorKind::Lost => self.find_out(&open, error),
                    _ => {
                        let failed = self.shared.fail_all(error, open.len());
                        for (&n, failed) in open.iter().zip(failed) {
                            self.results[n] = Some(failed);
                        }
                    }
                }
            }
            open.retain(|&n| self.results[n].is_none());
        }
    }

    /// Returns the lease that the row must be for an operation to be made.
    fn expected(&self, n: usize) -> Option<&L> {
        match &*self.operations[n] {
            Operation::Add(_) => None,
            Operation::Update { expected, .. } | Operation::Delete { expected, .. } => {
                expected.as_ref().or(self.found[n].as_ref())
            }
        }
    }

    /// Returns the change of a row; `None` if it is not known yet which lease it must have.
    fn write(&self, n: usize) -> Option<Write<'_, L>> {
        match &*self.operations[n] {
            Operation::Add(lease) => Some(Write::Insert(lease)),
            Operation::Update { lease, .. } => {
                self.expected(n).map(|expected| Write::Update { new: lease, expected })
            }
            Operation::Delete { .. } => self.expected(n).map(Write::Delete),
        }
    }

    /// Returns whether the expected lease of an operation has its address, as any lease of it has.
    fn is_possible(&self, n: usize) -> bool {
        self.expected(n).is_none_or(|expected| expected.address() == self.operations[n].address())
    }

    /// Makes operations once, and records the results that are known then.
    fn attempt(&mut self, open: &[usize]) -> Result<(), DbError> {
        let unread: Vec<_> =
            open.iter().copied().filter(|&n| self.write(n).is_none() || !self.is_possible(n)).collect();
        self.read(&unread, true)?;
        let sent: Vec<_> = open.iter().copied().filter(|&n| self.results[n].is_none()).collect();
        let writes: Vec<_> = sent.iter().filter_map(|&n| self.write(n)).collect();
        if writes.is_empty() {
            return Ok(());
        }
        let made = self.shared.sessions.with(false, |session| session.write(&writes))?;
        let mut unmade = Vec::new();
        for (n, made) in sent.into_iter().zip(made) {
            if made {
                self.set_made(n);
            } else {
                unmade.push(n);
            }
        }
        self.read(&unmade, false)
    }

    fn set_made(&mut self, n: usize) {
        let done = match &*self.operations[n] {
            Operation::Add(_) => Done::Added,
            Operation::Update { .. } => Done::Updated,
            Operation::Delete { .. } => Done::Deleted,
        };
        self.results[n] = Some(Ok((done, self.expected(n).cloned())));
    }

    /// Reads the leases of operations that are not made: before they are sent (`is_first`), or to
    /// find out why they were not made.
    fn read(&mut self, numbers: &[usize], is_first: bool) -> Result<(), DbError> {
        if numbers.is_empty() {
            return Ok(());
        }
        let addresses: Vec<_> = numbers.iter().map(|&n| self.operations[n].address()).collect();
        // Reading changes nothing: what is lost is the connection, not the outcome.
        let there = self.shared.read(&addresses).map_err(|error| match error.kind {
            DbErrorKind::Lost => DbError::new(DbErrorKind::NotConnected, error.source),
            _ => error,
        })?;
        for &n in numbers {
            let address = self.operations[n].address();
            let result = match (&*self.operations[n], there.get(&address)) {
                (Operation::Add(_), Some(_)) => Some(Ok((Done::AddressTaken, None))),
                // It was deleted meanwhile.
                (Operation::Add(_), None) => None,
                (Operation::Update { .. }, None) => {
                    Some(Err(LeaseMgrError::NoSuchLease { address: address.into() }))
                }
                (Operation::Delete { .. }, None) => Some(Ok((Done::NoSuchLease, None))),
                (_, Some(lease)) if self.is_given(n) && self.expected(n) != Some(lease) => {
                    Some(Err(LeaseMgrError::ChangedMeanwhile { address: address.into() }))
                }
                (_, Some(lease)) if !is_first && self.expected(n) == Some(lease) => {
                    // The row has the values of the lease in another form, such as a user context
                    // with other blanks.
                    let lease = lease.clone();
                    self.write_compared(n, &lease)?;
                    None
                }
                (_, Some(lease)) => {
                    if !self.is_given(n) {
                        self.found[n] = Some(lease.clone());
                    }
                    None
                }
            };
            if result.is_some() {
                self.results[n] = result;
            }
        }
        Ok(())
    }

    /// Returns whether the caller expects a lease.
    fn is_given(&self, n: usize) -> bool {
        match &*self.operations[n] {
            Operation::Add(_) => false,
            Operation::Update { expected, .. } | Operation::Delete { expected, .. } => expected.is_some(),
        }
    }

    fn write_compared(&mut self, n: usize, lease: &L) -> Result<(), DbError> {
        let Some(write) = self.write(n) else {
            return Ok(());
        };
        let is_expected = |there: &L| there == lease;
        match self.shared.sessions.with(false, |session| session.write_compared(&write, &is_expected)) {
            Ok(true) => self.set_made(n),
            Ok(false) => {}
            // The outcome of the others is known.
            Err(error) if error.kind == DbErrorKind::Lost => self.find_out(&[n], error),
            Err(error) => return Err(error),
        }
        Ok(())
    }

    /// Finds out by reading which operations were made, after no answer came. Those that were not
    /// made when they are read may still be made by a server that has not noticed the end of the
    /// session.
    fn find_out(&mut self, open: &[usize], error: DbError) {
        let addresses: Vec<_> = open.iter().map(|&n| self.operations[n].address()).collect();
        let there = self.shared.read(&addresses).ok();
        let error = Arc::new(error);
        for &n in open {
            let operation = &*self.operations[n];
            let address = operation.address();
            let is_made = there.as_ref().is_some_and(|there| match (operation, there.get(&address)) {
                (Operation::Add(lease) | Operation::Update { lease, .. }, Some(there)) => there == lease,
                (Operation::Delete { .. }, None) => true,
                _ => false,
            });
            if is_made {
                self.set_made(n);
            } else {
                let source: Box<dyn std::error::Error + Send + Sync> =
                    Box::new(SharedError(Arc::clone(&error)));
                let unknown = LeaseMgrError::OutcomeUnknown { address: address.into(), source: Some(source) };
                self.results[n] = Some(Err(unknown));
            }
        }
    }
}

impl<L: ManagedLease, D: Driver<L>> SqlLeaseMgr<L, D> {
    pub(super) fn shared(&self) -> &Shared<L, D> {
        &self.shared
    }

    /// Deletes the leases of a query in steps, each with one transaction.
    fn delete_all(&self, query: &Query<'_, L>) -> Result<u64, LeaseMgrError> {
        self.shared.tracking.refuse_in_callback()?;
        let Some(mut query) = defaults::up_to_the_last(self, query)? else {
            return Ok(0);
        };
        let mut deleted = 0;
        loop {
            let leases = self.find(&query.limit(super::queue::MAX_BATCH))?;
            let Some(last) = leases.last().map(L::address) else {
                return Ok(deleted);
            };
            let operations: Vec<_> = leases.iter().map(Operation::delete_if_unchanged).collect();
            for (lease, result) in leases.into_iter().zip(LeaseMgr::apply(self, &operations)) {
                deleted += match result {
                    Err(error) if error.is_stale() => {
                        u64::from(defaults::delete_matching(self, &query, lease)?)
                    }
                    result => u64::from(result? == Done::Deleted),
                };
            }
            query = query.after(last);
        }
    }

    /// Returns the rows of a statement whose values are numbers.
    fn numbers<'a>(
        &self,
        count: usize,
        build: impl Fn(&D::Session) -> Statement<'a>,
    ) -> Result<Vec<Vec<i64>>, LeaseMgrError> {
        let number = |value: &Value<'_>| match value {
            Value::Number(number) => *number,
            _ => 0,
        };
        let rows = self.shared.rows(&vec![Kind::Number; count], build)?;
        Ok(rows.iter().map(|row| row.iter().map(number).collect()).collect())
    }
}

impl<L: ManagedLease, D: Driver<L>> LeaseMgr<L> for SqlLeaseMgr<L, D> {
    fn status(&self) -> Status {
        let sessions = &self.shared.sessions;
        let mut status = Status::new(D::NAME, sessions.place());
        status.availability = sessions.availability();
        status.on_fail = Some(sessions.options().on_fail);
        status
    }

    fn tracking(&self) -> &Tracking<L> {
        &self.shared.tracking
    }

    fn add(&self, lease: &L) -> Result<Added, LeaseMgrError> {
        let done = self.shared.change(Borrowed::Add(lease))?;
        Ok(if done == Done::Added { Added::Added } else { Added::AddressTaken })
    }

    fn get(&self, address: L::Address) -> Result<Option<L>, LeaseMgrError> {
        Ok(self.shared.get_many(&[address])?.pop().flatten())
    }

    fn get_many(&self, addresses: &[L::Address]) -> Result<Vec<Option<L>>, LeaseMgrError> {
        self.shared.get_many(addresses)
    }

    fn find(&self, query: &Query<'_, L>) -> Result<Vec<L>, LeaseMgrError> {
        self.shared.find(query)
    }

    fn list_expired(&self, now: SystemTime, limit: usize) -> Result<Vec<L>, LeaseMgrError> {
        let (now, limit) = (seconds_since_epoch(now), Some(limit).filter(|&limit| limit > 0));
        self.shared.select(|session| select::ended(session, L::FAMILY, &self.shared.columns, now, limit))
    }

    fn update_expecting(&self, lease: &L, expected: Option<&L>) -> Result<(), LeaseMgrError> {
        self.shared.change(Borrowed::Update(lease, expected)).map(drop)
    }

    fn delete_expecting(&self, address: L::Address, expected: Option<&L>) -> Result<Deleted, LeaseMgrError> {
        let done = self.shared.change(Borrowed::Delete(address, expected))?;
        Ok(if done == Done::Deleted { Deleted::Deleted } else { Deleted::NoSuchLease })
    }

    fn apply(&self, operations: &[Operation<L>]) -> Vec<Result<Done, LeaseMgrError>> {
        self.shared.apply(operations.iter().map(Operation::borrowed))
    }

    fn submit(&self, operation: Operation<L>, then: Then) {
        writer::submit(self, self.writer.as_ref(), operation, then);
    }

    fn submits(&self) -> bool {
        true
    }

    fn submit_look_up(&self, look_up: LookUp<L>, then: ThenFound<L>) {
        let unsent = match &self.reader {
            Some(reader) => reader.submit(look_up, then).err(),
            None => Some((look_up, then)),
        };
        if let Some((look_up, then)) = unsent {
            call_then(then, look_up.run(self));
        }
    }

    fn submits_look_ups(&self) -> bool {
        true
    }

    fn is_shared(&self) -> bool {
        true
    }

    fn kept(&self, lease: &L) -> Result<L, LeaseMgrError> {
        self.shared.kept(lease).map(Cow::into_owned)
    }

    fn delete_reclaimed(&self, until: SystemTime) -> Result<u64, LeaseMgrError> {
        self.delete_all(&Query::state(LeaseState::EXPIRED_RECLAIMED).ended_by(until))
    }

    fn wipe_subnet(&self, subnet: SubnetId) -> Result<u64, LeaseMgrError> {
        self.delete_all(&Query::all().in_subnet(subnet))
    }

    fn count(&self, query: &Query<'_, L>) -> Result<u64, LeaseMgrError> {
        query.check()?;
        let schema = self.shared.sessions.schema();
        if !select::is_exact(query, schema) || query.limit.is_some() {
            return defaults::count(self, query);
        }
        let rows = self.numbers(1, |session| {
            let mut builder =
                Builder::new(session, format!("SELECT count(*) FROM {}", columns::table(L::FAMILY)));
            select::conditions(&mut builder, schema, query);
            builder.end()
        })?;
        Ok(rows.first().and_then(|row| row.first()).map_or(0, |&count| count.unsigned_abs()))
    }

    fn scan(&self, cursor: Option<&Cursor>, limit: usize) -> Result<(Vec<L>, Option<Cursor>), LeaseMgrError> {
        if self.shared.has_text_addresses() {
            return self.shared.scan_text(cursor, limit);
        }
        defaults::scan(self, cursor, limit)
    }

    fn address_list(&self) -> Result<Option<Vec<L::Address>>, LeaseMgrError> {
        if self.shared.has_text_addresses() { self.shared.addresses_of_text() } else { Ok(None) }
    }

    fn first_free(&self, range: &FreeRange<L>, now: SystemTime) -> Result<Option<L::Address>, LeaseMgrError> {
        let Some(first) = range.from(range.first()) else {
            return Ok(None);
        };
        self.shared.lowest_free(range, first, seconds_since_epoch(now))
    }

    fn add_within(&self, lease: &L, context: &UserContext) -> Result<AddedWithin, LeaseMgrError> {
        self.shared.add_within(lease, context)
    }

    fn reclaim_expired(&self, now: SystemTime, limit: usize) -> Result<Vec<L>, LeaseMgrError> {
        match self.shared.reclaim(now, limit)? {
            Some(reclaimed) => Ok(reclaimed),
            None => defaults::reclaim_expired(self, now, limit),
        }
    }

    /// Searches from a random address on, so that few occupied addresses are read unless hardly any
    /// address is free, and several servers hardly ever find the same one.
    fn free_address(
        &self,
        range: &FreeRange<L>,
        now: SystemTime,
    ) -> Result<Option<L::Address>, LeaseMgrError> {
        let Some(start) = free::any_of(range) else {
            return Ok(None);
        };
        match self.shared.lowest_free(range, start, seconds_since_epoch(now))? {
            None => self.first_free(range, now),
            found => Ok(found),
        }
    }

    fn statistics(&self, query: &StatisticsQuery) -> Result<Vec<StatisticsRow>, LeaseMgrError> {
        query.check()?;
        if query.by_pool && !self.shared.sessions.schema().has_pool_ids {
            return defaults::statistics(self, query);
        }
        let (first, last) = query.subnets.bounds();
        let has_types = L::FAMILY == Family::V6;
        let mut keys = vec!["subnet_id"];
        keys.extend(query.by_pool.then_some("pool_id"));
        keys.extend(has_types.then_some("lease_type"));
        keys.push("state");
        let table = format!("{}{}_stat", columns::table(L::FAMILY), if query.by_pool { "_pool" } else { "" });
        let keys = keys.join(", ");
        let mut rows = self.numbers(keys.split(',').count() + 1, |session| {
            let mut builder = Builder::new(session, format!("SELECT {keys}, leases FROM {table}"));
            builder.condition("subnet_id >=", Kind::Number, Value::Number(first.0.into()));
            builder.condition("subnet_id <=", Kind::Number, Value::Number(last.0.into()));
            builder.fixed("leases > 0");
            builder.end()
        })?;
        if has_types && query.by_pool {
            // The tables of pools do not have registered addresses.
            let registered = self.numbers(5, |session| {
                let table = columns::table(L::FAMILY);
                let mut builder = Builder::new(session, format!("SELECT {keys}, count(*) FROM {table}"));
                let state = Value::Number(LeaseState::REGISTERED.0.into());
                builder.condition("state =", Kind::Number, state);
                builder.condition("subnet_id >=", Kind::Number, Value::Number(first.0.into()));
                builder.condition("subnet_id <=", Kind::Number, Value::Number(last.0.into()));
                builder.text(&format!(" GROUP BY {keys}"));
                builder.end()
            })?;
            rows.extend(registered);
        }
        rows.sort_unstable();
        let number = |value: Option<i64>| value.and_then(|value| u32::try_from(value).ok()).unwrap_or(0);
        let row = |values: Vec<i64>| {
            let mut values = values.into_iter();
            let subnet = SubnetId(number(values.next()));
            let pool = query.by_pool.then(|| PoolId(number(values.next())));
            let kind = if has_types {
                values.next().and_then(|kind| kind.try_into().ok()).map(LeaseType)
            } else {
                None
            };
            let state = LeaseState(number(values.next()));
            let count = values.next().unwrap_or(0).unsigned_abs();
            StatisticsRow::new(subnet, pool, kind, state, count)
        };
        let rows = rows.into_iter().map(row);
        Ok(rows.filter(|row| L::is_counted(row.lease_type, row.state)).collect())
    }

    fn recount(&self) -> Result<(), LeaseMgrError> {
        self.shared.recount()
    }

    fn import(
        &self,
        leases: &mut dyn Iterator<Item = Result<L, LeaseMgrError>>,
        options: &ImportOptions,
        report: &mut dyn FnMut(ImportEvent<'_, L>),
    ) -> Result<Imported<L>, LeaseMgrError> {
        self.import_leases(leases, options, report)
    }

    fn class_leases(&self, class: &ClientClass, kind: LeaseKind) -> Result<u64, LeaseMgrError> {
        let Ok(name) = str::from_utf8(class.as_bytes()) else {
            return Ok(0);
        };
        let kind = match (L::FAMILY, kind) {
            (_, LeaseKind::Address) => LeaseType::NA,
            (Family::V6, LeaseKind::Prefix) => LeaseType::PD,
            (Family::V4, LeaseKind::Prefix) => return Ok(0),
        };
        let count = |session: &mut D::Session| class_count::<L>(session, name, kind);
        self.shared.sessions.with(true, count).map_err(|error| self.shared.sessions.failed(error))
    }
}

/// Returns the number of leases in use of a client class, in DHCPv6 of those of one type.
fn class_count<L: ManagedLease>(
    session: &mut impl Session<L>,
    name: &str,
    lease_type: LeaseType,
) -> Result<u64, DbError> {
    let table = format!("{}_stat_by_client_class", columns::table(L::FAMILY));
    let mut builder = Builder::new(&*session, format!("SELECT client_class, leases FROM {table}"));
    // The database may find names in any case.
    builder.condition("client_class =", Kind::Text, Value::Text(name.to_owned().into()));
    if L::FAMILY == Family::V6 {
        builder.condition("lease_type =", Kind::Number, Value::Number(lease_type.0.into()));
    }
    let Statement { sql, values } = builder.end();
    let rows = session.query(&sql, &values, &[Kind::Text, Kind::Number])?;
    let counts = rows.iter().map(|row| match row.as_slice() {
        [Value::Text(class), Value::Number(count)] if class == name => count.unsigned_abs(),
        _ => 0,
    });
    Ok(counts.sum())
}
