//! Import of leases in portions, each in one transaction, or all in one transaction.

use std::borrow::Cow;
use std::collections::HashMap;
use std::ops::ControlFlow;

use foldhash::fast::RandomState;

use super::driver::{DbError, DbErrorKind, Driver, Session, Table, Write};
use super::manager::{Shared, SqlLeaseMgr};
use crate::lease::Lease;
use crate::lease_mgr::import::{self, Leases, Tally};
use crate::lease_mgr::{ImportEvent, ImportOptions, Imported, LeaseMgrError, ManagedLease};

/// Maximum number of leases that a statement reads by their addresses.
const MAX_READ: usize = 1000;

/// Leases by their addresses.
type ByAddress<L> = HashMap<<L as Lease>::Address, L, RandomState>;

/// What ends an import in one transaction.
enum End {
    /// The database has no better way than portions.
    NoWay,
    Failed(LeaseMgrError),
}

impl<L: ManagedLease, D: Driver<L>> SqlLeaseMgr<L, D> {
    pub(super) fn import_leases(
        &self,
        leases: &mut Leases<'_, L>,
        options: &ImportOptions,
        report: &mut dyn FnMut(ImportEvent<'_, L>),
    ) -> Result<Imported<L>, LeaseMgrError> {
        options.check()?;
        let shared = self.shared();
        shared.tracking.refuse_in_callback()?;
        let mut tally = Tally::new(report);
        // Callbacks are called when a lease has been added, which is not sure until the end.
        if options.exclusive && !shared.tracking.is_watched() {
            match shared.import_at_once(leases, options, &mut tally) {
                Ok(()) => return Ok(tally.imported),
                Err(End::NoWay) => {}
                Err(End::Failed(error)) => return Err(error),
            }
        }
        let mut is_there = false;
        import::in_portions(leases, options, tally, |portion, tally| {
            if shared.tracking.is_watched() {
                // The queue of changes keeps callbacks in order.
                return import::add_portion(self, portion, tally);
            }
            is_there = shared.add_portion(&portion, is_there, tally)?;
            Ok(())
        })
    }
}

impl<L: ManagedLease, D: Driver<L>> Shared<L, D> {
    /// Returns the leases in their kept form, ordered by their addresses. Those of one address are in
    /// the order in which they came.
    fn kept_in_order<'a>(
        &self,
        portion: &'a [L],
        tally: &mut Tally<'_, L>,
    ) -> Result<Vec<Cow<'a, L>>, LeaseMgrError> {
        let mut kept = Vec::with_capacity(portion.len());
        for lease in portion {
            match self.kept(lease) {
                Ok(lease) => kept.push(lease),
                Err(error) if import::is_refusal(&error) => tally.refused(lease, &error),
                Err(error) => return Err(error),
            }
        }
        kept.sort_by_key(|lease| lease.address());
        Ok(kept)
    }

    /// Adds the leases of a portion, in one transaction unless some are refused. With `is_there`,
    /// expects that many of them are there already. Returns whether any is.
    fn add_portion(
        &self,
        portion: &[L],
        is_there: bool,
        tally: &mut Tally<'_, L>,
    ) -> Result<bool, LeaseMgrError> {
        let kept = self.kept_in_order(portion, tally)?;
        let mut open: Vec<&L> = kept.iter().map(|lease| &**lease).collect();
        let mut found = false;
        let mut reads_first = is_there;
        while !open.is_empty() {
            let mut left = Vec::new();
            if reads_first {
                left = std::mem::take(&mut open);
            } else {
                let mut sent: Vec<&L> = Vec::with_capacity(open.len());
                for lease in open {
                    let is_second = sent.last().is_some_and(|last| last.address() == lease.address());
                    if is_second { left.push(lease) } else { sent.push(lease) }
                }
                self.insert(&sent, &mut left, tally)?;
            }
            reads_first = false;
            let there = self.there(&left)?;
            found |= !there.is_empty();
            open = Vec::new();
            for lease in left {
                match there.get(&lease.address()) {
                    Some(there) => tally.found(lease, there),
                    // It was not sent yet, or the lease of its address was deleted meanwhile.
                    None => open.push(lease),
                }
            }
        }
        Ok(found)
    }

    /// Adds leases of different addresses, and those whose address has a lease to `left`.
    fn insert<'a>(
        &self,
        leases: &[&'a L],
        left: &mut Vec<&'a L>,
        tally: &mut Tally<'_, L>,
    ) -> Result<(), LeaseMgrError> {
        if leases.is_empty() {
            return Ok(());
        }
        let writes: Vec<_> = leases.iter().copied().map(Write::Insert).collect();
        // Leases that were added although the answer was lost are found by the second attempt.
        let made = self.without_conflicts(|| self.sessions.with(true, |session| session.write(&writes)));
        match (made, leases) {
            (Ok(made), _) => {
                for (&lease, made) in leases.iter().zip(made) {
                    if made {
                        tally.imported.added += 1;
                        self.tracking.count_added(lease);
                    } else {
                        left.push(lease);
                    }
                }
                Ok(())
            }
            (Err(error), [lease]) if error.kind == DbErrorKind::Refused => {
                tally.refused(lease, &self.sessions.failed(error));
                Ok(())
            }
            (Err(error), _) if error.kind == DbErrorKind::Refused => {
                // One that is refused does not fail the others.
                let (first, second) = leases.split_at(leases.len() / 2);
                self.insert(first, left, tally)?;
                self.insert(second, left, tally)
            }
            (Err(error), _) => Err(self.sessions.failed(error)),
        }
    }

    /// Returns the leases that the addresses of leases have.
    fn there(&self, leases: &[&L]) -> Result<ByAddress<L>, LeaseMgrError> {
        let mut there = ByAddress::<L>::default();
        for leases in leases.chunks(MAX_READ) {
            let addresses: Vec<_> = leases.iter().map(|lease| lease.address()).collect();
            let found = self.read(&addresses).map_err(|error| self.sessions.failed(error))?;
            there.extend(found);
        }
        Ok(there)
    }

    /// Imports all leases in one transaction.
    fn import_at_once(
        &self,
        leases: &mut Leases<'_, L>,
        options: &ImportOptions,
        tally: &mut Tally<'_, L>,
    ) -> Result<(), End> {
        let (mut ended, mut last) = (None, None);
        let result = self.sessions.with(false, |session| {
            let table = match session.begin_load()? {
                ControlFlow::Break(()) => {
                    ended = Some(End::NoWay);
                    return Ok(());
                }
                ControlFlow::Continue(table) => table,
            };
            match self.load(session, table, leases, options, tally) {
                Ok(Ok(highest)) => {
                    last = highest;
                    session.end_load()
                }
                Ok(Err(error)) => {
                    ended = Some(End::Failed(error));
                    session.cancel_load();
                    Ok(())
                }
                Err(error) => {
                    session.cancel_load();
                    Err(error)
                }
            }
        });
        match (result, ended, last) {
            (Ok(()), Some(end), _) => Err(end),
            (Ok(()), None, last) => {
                tally.imported.last = last;
                tally.portion();
                Ok(())
            }
            // Only the end of the transaction comes after the last lease.
            (Err(error), _, Some(last)) if error.kind == DbErrorKind::Lost => {
                let source = Some(error.source);
                Err(End::Failed(LeaseMgrError::OutcomeUnknown { address: last.into(), source }))
            }
            (Err(error), ..) => Err(End::Failed(self.sessions.failed(error))),
        }
    }

    /// Sends all leases to a locked table, and returns their highest address.
    fn load(
        &self,
        session: &mut D::Session,
        table: Table,
        leases: &mut Leases<'_, L>,
        options: &ImportOptions,
        tally: &mut Tally<'_, L>,
    ) -> Result<Result<Option<L::Address>, LeaseMgrError>, DbError> {
        let mut highest = None;
        loop {
            let portion = match import::next_portion(leases, options.portion) {
                Ok(portion) => portion,
                Err(error) => return Ok(Err(error)),
            };
            if portion.is_empty() {
                return Ok(Ok(highest));
            }
            let kept = match self.kept_in_order(&portion, tally) {
                Ok(kept) => kept,
                Err(error) => return Ok(Err(error)),
            };
            // The addresses above all others have no lease.
            let is_new = table == Table::Empty && kept.first().map(|lease| lease.address()) > highest;
            let mut there = ByAddress::<L>::default();
            if !is_new {
                for leases in kept.chunks(MAX_READ) {
                    let addresses: Vec<_> = leases.iter().map(|lease| lease.address()).collect();
                    there.extend(session.get(&addresses)?.into_iter().map(|lease| (lease.address(), lease)));
                }
            }
            let mut sent: Vec<&L> = Vec::with_capacity(kept.len());
            for lease in &kept {
                let before = sent.last().filter(|last| last.address() == lease.address());
                match before.copied().or_else(|| there.get(&lease.address())) {
                    Some(there) => tally.found(lease, there),
                    None => sent.push(lease),
                }
            }
            session.load(&sent)?;
            tally.imported.added += sent.len() as u64;
            highest = highest.max(import::highest(&portion));
            tally.portion();
        }
    }

    /// Counts the statistics again.
    pub(super) fn recount(&self) -> Result<(), LeaseMgrError> {
        let recounted = self.without_conflicts(|| self.sessions.with(true, Session::recount));
        recounted.map_err(|error| self.sessions.failed(error))
    }
}
