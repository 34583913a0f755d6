//! Import of many leases, such as those of another lease manager.

use super::{Done, LeaseMgr, LeaseMgrError, ManagedLease, Operation};

/// How leases are imported ([`LeaseMgr::import`]).
///
/// ```
/// use leasemgr::ImportOptions;
///
/// let options = ImportOptions::default().portion(1000);
/// assert!(options.portion == 1000 && !options.exclusive);
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct ImportOptions {
    /// Number of leases that are added in one step, 1 to 1 000 000; 2000 by default. PostgreSQL's
    /// triggers are slower in large transactions, but `exclusive` is faster with 10 000.
    pub portion: usize,
    /// Whether all leases are added in one step at the cost of other users of the database, if that
    /// is faster. PostgreSQL locks the lease table, so that it cannot even be read, builds its
    /// indexes again, and counts the statistics once at the end; the user must own the table.
    /// Nothing is added if the import fails, and leases do not count as assigned. Other backends
    /// ignore this, and so does PostgreSQL if there are callbacks.
    pub exclusive: bool,
}

/// Maximum number of leases in a portion.
const MAX_PORTION: usize = 1_000_000;

impl Default for ImportOptions {
    fn default() -> Self {
        Self { portion: 2000, exclusive: false }
    }
}

impl ImportOptions {
    /// Sets the number of leases that are added in one step.
    #[must_use]
    pub fn portion(self, portion: usize) -> Self {
        Self { portion, ..self }
    }

    /// Adds all leases in one step, if that is faster.
    #[must_use]
    pub fn exclusive(self) -> Self {
        Self { exclusive: true, ..self }
    }

    /// Checks the options. For backends, before they import.
    ///
    /// # Errors
    /// Returns [`LeaseMgrError::BadArgument`] if the portion is not from 1 to 1 000 000.
    pub fn check(&self) -> Result<(), LeaseMgrError> {
        if (1..=MAX_PORTION).contains(&self.portion) {
            return Ok(());
        }
        let value = self.portion.to_string();
        Err(LeaseMgrError::BadArgument { argument: "portion", value, expected: "1 to 1000000 leases" })
    }
}

/// What became of the leases of an import.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct Imported<L: ManagedLease> {
    /// Number of leases that were added.
    pub added: u64,
    /// Number of leases that were there already, with the same values.
    pub same: u64,
    /// Number of addresses with another lease, which was kept.
    pub conflicts: u64,
    /// Number of leases that cannot be kept.
    pub refused: u64,
    /// The highest address of the leases up to which the import is complete, as durable as the
    /// backend makes its changes; `None` until then.
    pub last: Option<L::Address>,
}

impl<L: ManagedLease> Default for Imported<L> {
    fn default() -> Self {
        Self { added: 0, same: 0, conflicts: 0, refused: 0, last: None }
    }
}

/// What an import tells its caller meanwhile.
#[derive(Debug)]
#[non_exhaustive]
pub enum ImportEvent<'a, L: ManagedLease> {
    /// A portion is complete. The numbers are those since the beginning.
    Portion(&'a Imported<L>),
    /// The address has another lease, which was kept.
    Conflict {
        /// The lease that was to be added, in its kept form.
        lease: &'a L,
        /// The lease of the address.
        there: &'a L,
    },
    /// The lease was not added, because the backend cannot keep it.
    Refused {
        /// The lease.
        lease: &'a L,
        /// Why.
        error: &'a LeaseMgrError,
    },
}

/// The leases of an import, one after the other.
pub(crate) type Leases<'a, L> = dyn Iterator<Item = Result<L, LeaseMgrError>> + 'a;

/// A function that is called with events.
type Report<'a, L> = dyn FnMut(ImportEvent<'_, L>) + 'a;

/// Counts and reports what became of leases.
pub(crate) struct Tally<'a, L: ManagedLease> {
    pub(crate) imported: Imported<L>,
    report: &'a mut Report<'a, L>,
}

impl<'a, L: ManagedLease> Tally<'a, L> {
    pub(crate) fn new(report: &'a mut Report<'a, L>) -> Self {
        Self { imported: Imported::default(), report }
    }

    /// Counts a lease of an address that has a lease.
    pub(crate) fn found(&mut self, lease: &L, there: &L) {
        if lease == there {
            self.imported.same += 1;
        } else {
            self.imported.conflicts += 1;
            (self.report)(ImportEvent::Conflict { lease, there });
        }
    }

    pub(crate) fn refused(&mut self, lease: &L, error: &LeaseMgrError) {
        self.imported.refused += 1;
        (self.report)(ImportEvent::Refused { lease, error });
    }

    /// Reports that a portion is complete.
    pub(crate) fn portion(&mut self) {
        (self.report)(ImportEvent::Portion(&self.imported));
    }
}

/// Returns whether an error concerns a lease that the backend cannot keep, whatever others it has.
pub(crate) fn is_refusal(error: &LeaseMgrError) -> bool {
    matches!(error, LeaseMgrError::CannotKeep { .. } | LeaseMgrError::ZeroLifetime { .. })
}

/// Returns the next leases, at most `size`; none at the end. After an error, those before it are not
/// returned.
pub(crate) fn next_portion<L: ManagedLease>(
    leases: &mut Leases<'_, L>,
    size: usize,
) -> Result<Vec<L>, LeaseMgrError> {
    leases.take(size).collect()
}

/// Returns the highest address of leases.
pub(crate) fn highest<L: ManagedLease>(leases: &[L]) -> Option<L::Address> {
    leases.iter().map(L::address).max()
}

/// Imports leases in portions, each of which `make` adds.
pub(crate) fn in_portions<L: ManagedLease>(
    leases: &mut Leases<'_, L>,
    options: &ImportOptions,
    mut tally: Tally<'_, L>,
    mut make: impl FnMut(Vec<L>, &mut Tally<'_, L>) -> Result<(), LeaseMgrError>,
) -> Result<Imported<L>, LeaseMgrError> {
    loop {
        let portion = next_portion(leases, options.portion)?;
        let Some(highest) = highest(&portion) else {
            return Ok(tally.imported);
        };
        make(portion, &mut tally)?;
        tally.imported.last = tally.imported.last.max(Some(highest));
        tally.portion();
    }
}

/// Adds the leases of a portion by [`LeaseMgr::apply`].
pub(crate) fn add_portion<L: ManagedLease, M: LeaseMgr<L> + ?Sized>(
    mgr: &M,
    portion: Vec<L>,
    tally: &mut Tally<'_, L>,
) -> Result<(), LeaseMgrError> {
    let mut open: Vec<_> = portion.into_iter().map(Operation::Add).collect();
    while !open.is_empty() {
        let results = mgr.apply(&open);
        let mut taken = Vec::new();
        let mut failed = None;
        for (operation, result) in open.into_iter().zip(results) {
            let Operation::Add(lease) = operation else { continue };
            match result {
                Ok(Done::AddressTaken) => taken.push(lease),
                Ok(_) => tally.imported.added += 1,
                Err(error) if is_refusal(&error) => tally.refused(&lease, &error),
                Err(error) => failed = failed.or(Some(error)),
            }
        }
        if let Some(error) = failed {
            return Err(error);
        }
        let addresses: Vec<_> = taken.iter().map(L::address).collect();
        let there = if addresses.is_empty() { Vec::new() } else { mgr.get_many(&addresses)? };
        open = Vec::new();
        for (lease, there) in taken.into_iter().zip(there) {
            match there {
                Some(there) => tally.found(&mgr.kept(&lease)?, &there),
                // It was deleted meanwhile.
                None => open.push(Operation::Add(lease)),
            }
        }
    }
    Ok(())
}
