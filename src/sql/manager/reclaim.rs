//! The reclamation of expired leases by several servers at the same time: each locks leases that no
//! other one has locked.

use std::sync::Arc;
use std::time::SystemTime;

use super::{Batch, Made, Shared, each_answered};
use crate::lease::seconds_since_epoch;
use crate::lease_mgr::{
    CountedAs, Done, LeaseMgrError, ManagedLease, Operation, is_reclaimed, reclaimed_form,
};
use crate::sql::columns;
use crate::sql::driver::{DbError, DbErrorKind, Dialect, Driver, Session, Write};
use crate::sql::select::{self, Statement};

/// Maximum number of leases that are reclaimed in one transaction.
const PORTION: usize = 1000;

/// An expired lease, and the operation that reclaims it.
type Expired<L> = (L, Arc<Operation<L>>);

impl<L: ManagedLease, D: Driver<L>> Shared<L, D> {
    /// Reclaims at most `limit` leases that have ended at `now`, or all if `limit` is 0. Returns
    /// them as [`LeaseMgr::reclaim_expired`](crate::LeaseMgr::reclaim_expired) does, or `None` if
    /// the database cannot skip locked rows.
    pub(super) fn reclaim(&self, now: SystemTime, limit: usize) -> Result<Option<Vec<L>>, LeaseMgrError> {
        self.tracking.refuse_in_callback()?;
        let now = seconds_since_epoch(now);
        let (mut left, mut reclaimed) = (if limit == 0 { usize::MAX } else { limit }, Vec::new());
        while left > 0 {
            let size = left.min(PORTION);
            let before = reclaimed.len();
            match self.reclaim_portion(now, size, &mut reclaimed) {
                Ok(None) => return Ok(None),
                // Leases that a thread of this manager is changing are left alone.
                Ok(Some(read)) if read < size || reclaimed.len() == before => break,
                Ok(Some(_)) => left -= (reclaimed.len() - before).min(left),
                Err(error) if reclaimed.is_empty() => return Err(error),
                // The caller needs the leases that were reclaimed. If the error persists, the next
                // call returns it.
                Err(_) => break,
            }
        }
        Ok(Some(reclaimed))
    }

    /// Reclaims a portion. Returns the number of leases that were read.
    fn reclaim_portion(
        &self,
        now: i64,
        size: usize,
        reclaimed: &mut Vec<L>,
    ) -> Result<Option<usize>, LeaseMgrError> {
        // Changes of these addresses wait until the callbacks for this one have been called.
        let mut held = Vec::new();
        let (mut expired, mut failure) = (Vec::<Expired<L>>::new(), None);
        let written = self.in_transaction(|session| {
            held.clear();
            expired.clear();
            if !session.skips_locked() {
                return Ok((false, None));
            }
            let Statement { sql, values } = select::lock_ended(session, L::FAMILY, &self.columns, now, size);
            let found = session.select(&sql, &values, &self.columns)?;
            let count = found.len();
            for lease in found {
                // The operation that has the address may wait for the row.
                let Some(hold) = self.changes.try_hold(lease.address()) else {
                    continue;
                };
                match self.kept_operation(Operation::reclaim(&lease).borrowed()) {
                    Ok(operation) => {
                        held.push(hold);
                        expired.push((lease, Arc::new(operation)));
                    }
                    Err(error) => failure = Some(error),
                }
            }
            let mut writes: Vec<_> =
                expired.iter().map(|(lease, operation)| write(lease, operation)).collect();
            writes.sort_unstable_by_key(Write::address);
            session.overwrite(&writes)?;
            Ok((true, Some(count)))
        });
        expired.sort_unstable_by_key(|(lease, _)| (columns::expire(&lease.fields()), lease.address()));
        let (read, made) = match written {
            Ok(None) => return Ok(None),
            Ok(Some(read)) => {
                let made = |(lease, operation): &Expired<L>| Ok((done(operation), Some(lease.clone())));
                (read, expired.iter().map(made).collect())
            }
            Err(error) if error.kind == DbErrorKind::Lost => (0, self.outcomes(&expired, error)),
            Err(error) => return Err(self.sessions.failed(error)),
        };
        let before = reclaimed.len();
        for ((lease, operation), made) in expired.iter().zip(made) {
            let done = made.map(|(done, _): (Done, _)| {
                self.notify(operation, done, Some(lease));
                done
            });
            match is_reclaimed(&self.tracking, CountedAs::of(lease), done) {
                Ok(true) => reclaimed.push(reclaimed_form(lease).unwrap_or_else(|| lease.clone())),
                Ok(false) => {}
                Err(error) => failure = Some(error),
            }
        }
        drop(held);
        failure.filter(|_| reclaimed.len() == before).map_or(Ok(Some(read)), Err)
    }

    /// Finds out which leases were reclaimed by a transaction whose end was not answered.
    fn outcomes(&self, expired: &[Expired<L>], error: DbError) -> Vec<Made<L>> {
        let operations: Vec<_> = expired.iter().map(|(_, operation)| Arc::clone(operation)).collect();
        each_answered(operations.len(), || Batch::new(self, &operations).found_out(error))
    }
}

/// Returns the change of the row of an expired lease.
fn write<'a, L: ManagedLease>(lease: &'a L, operation: &'a Operation<L>) -> Write<'a, L> {
    match operation {
        Operation::Add(new) | Operation::Update { lease: new, .. } => Write::Update { new, expected: lease },
        Operation::Delete { .. } => Write::Delete(lease),
    }
}

fn done<L: ManagedLease>(operation: &Operation<L>) -> Done {
    match operation {
        Operation::Add(_) | Operation::Update { .. } => Done::Updated,
        Operation::Delete { .. } => Done::Deleted,
    }
}
