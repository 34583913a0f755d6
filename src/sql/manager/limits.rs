//! Leases that are added within limits.
//!
//! The rows of the statistics that count towards the limits are locked, the leases are counted by
//! them, and the lease is added, in one transaction. So it is right between all managers of the
//! database, and between the nodes of a Galera cluster, where rows are not locked on other nodes: the
//! triggers for the new lease change the same rows, and one of two transactions fails and is repeated.

use std::cell::RefCell;
use std::fmt::Write as _;
use std::sync::Arc;

use super::{Batch, Shared, class_count, each_answered};
use crate::lease::{ClientClass, Family, LeaseKind, LeaseState, LeaseType, Limits, SubnetId, UserContext};
use crate::lease_mgr::{
    AddedWithin, Borrowed, Done, LeaseMgrError, ManagedLease, Operation, StatisticsQuery,
};
use crate::sql::columns::{self, Kind, Value};
use crate::sql::driver::{DbError, DbErrorKind, Driver, Session, Write};

/// Maximum number of characters of the name of a class that is counted.
const MAX_NAME: usize = 128;

/// What a row of the statistics counts.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Counter {
    Subnet(SubnetId, LeaseType),
    Class(String, LeaseType),
}

impl<L: ManagedLease, D: Driver<L>> Shared<L, D> {
    /// Adds a lease as [`LeaseMgr::add_within`](crate::LeaseMgr::add_within) does.
    pub(super) fn add_within(&self, lease: &L, context: &UserContext) -> Result<AddedWithin, LeaseMgrError> {
        self.tracking.refuse_in_callback()?;
        let limits = Limits::of(context)?;
        if let Some(limit) = &limits.subnet {
            StatisticsQuery::subnet(limit.subnet).check()?;
        }
        let operation = Arc::new(self.kept_operation(Borrowed::Add(lease))?);
        let Operation::Add(lease) = &*operation else {
            return Err(LeaseMgrError::Panicked);
        };
        let counters = counters::<L>(&limits);
        // The sessions of threads that would wait for each other are left to others. An operation
        // that has the address may wait for the rows.
        let turn = self.limits.lock();
        let held = self.changes.hold(lease.address());
        let written = self.in_transaction(|session| {
            for counter in &counters {
                lock::<L>(session, counter)?;
            }
            let session = RefCell::new(session);
            let failure = RefCell::new(None);
            let count = |counter| {
                let count = count::<L>(&mut **session.borrow_mut(), &counter);
                count.unwrap_or_else(|error| {
                    *failure.borrow_mut() = Some(error);
                    0
                })
            };
            let exceeded = limits.exceeded(
                L::FAMILY,
                |class, kind| {
                    class_name(class).map_or(0, |name| count(Counter::Class(name, lease_type(kind))))
                },
                |subnet, kind| count(Counter::Subnet(subnet, lease_type(kind))),
            );
            if let Some(error) = failure.into_inner() {
                return Err(error);
            }
            match exceeded {
                Some(exceeded) => Ok((false, AddedWithin::LimitReached(exceeded))),
                None => {
                    let added = session.into_inner().write(&[Write::Insert(lease)])?;
                    let is_added = added.first() == Some(&true);
                    Ok((is_added, if is_added { AddedWithin::Added } else { AddedWithin::AddressTaken }))
                }
            }
        });
        drop(turn);
        let result = match written {
            Err(error) if error.kind == DbErrorKind::Lost => {
                let operations = [Arc::clone(&operation)];
                let made = each_answered(1, || Batch::new(self, &operations).found_out(error)).pop();
                made.unwrap_or(Err(LeaseMgrError::Panicked)).map(|_| AddedWithin::Added)
            }
            Err(error) => Err(self.sessions.failed(error)),
            Ok(added) => Ok(added),
        };
        if let Ok(AddedWithin::Added) = result {
            self.notify(&operation, Done::Added, None);
        }
        drop(held);
        result
    }
}

/// Returns what must not change while leases are counted, in the order in which the triggers for an
/// added lease lock it.
fn counters<L: ManagedLease>(limits: &Limits) -> Vec<Counter> {
    let kinds: &[LeaseKind] = match L::FAMILY {
        Family::V4 => &[LeaseKind::Address],
        Family::V6 => &[LeaseKind::Address, LeaseKind::Prefix],
    };
    let mut counters = Vec::new();
    for &kind in kinds {
        let is_limited = |limits: &crate::lease::LeaseLimits| match kind {
            LeaseKind::Address => limits.addresses.is_some(),
            LeaseKind::Prefix => limits.prefixes.is_some(),
        };
        let subnet = limits.subnet.iter().filter(|limit| is_limited(&limit.limits));
        counters.extend(subnet.map(|limit| Counter::Subnet(limit.subnet, lease_type(kind))));
        let classes = limits.classes.iter().filter(|limit| is_limited(&limit.limits));
        let names = classes.filter_map(|limit| class_name(&limit.class));
        counters.extend(names.map(|name| Counter::Class(name, lease_type(kind))));
    }
    counters.sort_unstable();
    counters.dedup();
    counters
}

fn lease_type(kind: LeaseKind) -> LeaseType {
    match kind {
        LeaseKind::Address => LeaseType::NA,
        LeaseKind::Prefix => LeaseType::PD,
    }
}

/// Returns the name of a class as the database has it; `None` if it can have no lease of the class.
fn class_name(class: &ClientClass) -> Option<String> {
    let name = str::from_utf8(class.as_bytes()).ok()?;
    (name.chars().count() <= MAX_NAME && !name.contains('\0')).then(|| name.to_owned())
}

/// Locks the row of a counter, or adds it with no leases.
fn lock<L: ManagedLease>(session: &mut impl Session<L>, counter: &Counter) -> Result<(), DbError> {
    let table = columns::table(L::FAMILY);
    let mut values = Vec::new();
    let (table, mut key, mut row, lease_type) = match counter {
        Counter::Subnet(subnet, lease_type) => {
            let row = format!("{}, {}", subnet.0, LeaseState::DEFAULT.0);
            (format!("{table}_stat"), "subnet_id, state".to_owned(), row, lease_type)
        }
        Counter::Class(name, lease_type) => {
            let mut row = String::new();
            values.push(Value::Text(name.as_str().into()));
            session.placeholder(&mut row, 1, Kind::Text);
            (format!("{table}_stat_by_client_class"), "client_class".to_owned(), row, lease_type)
        }
    };
    if L::FAMILY == Family::V6 {
        key.push_str(", lease_type");
        let _ = write!(row, ", {}", lease_type.0);
    }
    let or_lock = session.or_lock(&table, &key, "leases");
    let sql = format!("INSERT INTO {table} ({key}, leases) VALUES ({row}, 0){or_lock}");
    session.execute(&sql, &values).map(drop)
}

/// Returns the number of leases of a counter.
fn count<L: ManagedLease>(session: &mut impl Session<L>, counter: &Counter) -> Result<u64, DbError> {
    match counter {
        Counter::Subnet(subnet, lease_type) => {
            let (table, subnet) = (columns::table(L::FAMILY), subnet.0);
            let (assigned, declined) = (LeaseState::DEFAULT.0, LeaseState::DECLINED.0);
            let mut sql = format!(
                "SELECT leases FROM {table}_stat WHERE subnet_id = {subnet} AND state IN ({assigned}, {declined})"
            );
            if L::FAMILY == Family::V6 {
                let _ = write!(sql, " AND lease_type = {}", lease_type.0);
            }
            let rows = session.query(&sql, &[], &[Kind::Number])?;
            let counts = rows.iter().map(|row| match row.as_slice() {
                [Value::Number(count)] => (*count).max(0).unsigned_abs(),
                _ => 0,
            });
            Ok(counts.sum())
        }
        Counter::Class(name, lease_type) => class_count::<L>(session, name, *lease_type),
    }
}
