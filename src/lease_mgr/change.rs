//! The change of a lease, as a lease manager reports it.

use super::ManagedLease;

/// Kind of a change.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[non_exhaustive]
pub enum ChangeKind {
    /// A lease was added.
    Add,
    /// A lease took the place of another.
    Update,
    /// A lease was deleted.
    Delete,
}

/// Where a change was made.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Origin {
    /// By a call of this lease manager.
    #[default]
    Here,
    /// By another server or program that uses the same leases; see
    /// [`LeaseMgr::is_shared`](super::LeaseMgr::is_shared).
    Elsewhere,
}

/// A change that was made, with the lease before it, the lease after it, or both.
///
/// A change that was made elsewhere may lack the lease before it, if the backend does not know it.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Change<'a, L: ManagedLease> {
    kind: ChangeKind,
    address: L::Address,
    old: Option<&'a L>,
    new: Option<&'a L>,
    origin: Origin,
}

impl<'a, L: ManagedLease> Change<'a, L> {
    /// Describes the addition of a lease.
    #[must_use]
    pub fn added(new: &'a L) -> Self {
        Self {
            kind: ChangeKind::Add,
            address: new.address(),
            old: None,
            new: Some(new),
            origin: Origin::Here,
        }
    }

    /// Describes the replacement of a lease by another one of the same address.
    #[must_use]
    pub fn updated(old: &'a L, new: &'a L) -> Self {
        let kind = ChangeKind::Update;
        Self { kind, address: new.address(), old: Some(old), new: Some(new), origin: Origin::Here }
    }

    /// Describes the deletion of a lease.
    #[must_use]
    pub fn deleted(old: &'a L) -> Self {
        Self {
            kind: ChangeKind::Delete,
            address: old.address(),
            old: Some(old),
            new: None,
            origin: Origin::Here,
        }
    }

    /// Describes the change from the lease of an address before to the one after; `None` if both
    /// are `None`.
    #[must_use]
    pub fn of(old: Option<&'a L>, new: Option<&'a L>) -> Option<Self> {
        match (old, new) {
            (None, None) => None,
            (None, Some(new)) => Some(Self::added(new)),
            (Some(old), None) => Some(Self::deleted(old)),
            (Some(old), Some(new)) => (old != new).then(|| Self::updated(old, new)),
        }
    }

    /// Describes a change made elsewhere: a lease replaced one that is not known.
    #[must_use]
    pub fn updated_elsewhere(new: &'a L) -> Self {
        let (kind, origin) = (ChangeKind::Update, Origin::Elsewhere);
        Self { kind, address: new.address(), old: None, new: Some(new), origin }
    }

    /// Describes a change made elsewhere: the lease of an address, which is not known, was deleted.
    #[must_use]
    pub fn deleted_elsewhere(address: L::Address) -> Self {
        Self { kind: ChangeKind::Delete, address, old: None, new: None, origin: Origin::Elsewhere }
    }

    /// Returns the same change, as made elsewhere.
    #[must_use]
    pub fn elsewhere(self) -> Self {
        Self { origin: Origin::Elsewhere, ..self }
    }

    /// Returns the kind of the change.
    #[must_use]
    pub fn kind(&self) -> ChangeKind {
        self.kind
    }

    /// Returns the address.
    #[must_use]
    pub fn address(&self) -> L::Address {
        self.address
    }

    /// Returns the lease before the change; `None` if a lease was added, or if the lease is not
    /// known ([`Origin::Elsewhere`] only).
    #[must_use]
    pub fn before(&self) -> Option<&'a L> {
        self.old
    }

    /// Returns the lease after the change; `None` if it was deleted.
    #[must_use]
    pub fn now(&self) -> Option<&'a L> {
        self.new
    }

    /// Returns the lease after the change or, if it was deleted, the lease before. `None` only if
    /// an unknown lease was deleted elsewhere.
    #[must_use]
    pub fn lease(&self) -> Option<&'a L> {
        self.new.or(self.old)
    }

    /// Returns where the change was made.
    #[must_use]
    pub fn origin(&self) -> Origin {
        self.origin
    }
}
