//! What a lease manager tells of a change that was made.

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
    /// By another server or program that uses the same leases, see [`LeaseMgr::is_shared`](super::LeaseMgr::is_shared).
    Elsewhere,
}

/// A change that was made: at least one of the lease before and the lease after it is there.
///
/// A change that was made elsewhere may come without the lease before it, where the backend does not know that one.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Change<'a, L: ManagedLease> {
    kind: ChangeKind,
    address: L::Address,
    old: Option<&'a L>,
    new: Option<&'a L>,
    origin: Origin,
}

impl<'a, L: ManagedLease> Change<'a, L> {
    /// This lease was added.
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

    /// A lease took the place of another one of the same address.
    #[must_use]
    pub fn updated(old: &'a L, new: &'a L) -> Self {
        let kind = ChangeKind::Update;
        Self { kind, address: new.address(), old: Some(old), new: Some(new), origin: Origin::Here }
    }

    /// This lease was deleted.
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

    /// The change between the lease of an address before and the one after it; `None` if there is none.
    #[must_use]
    pub fn of(old: Option<&'a L>, new: Option<&'a L>) -> Option<Self> {
        match (old, new) {
            (None, None) => None,
            (None, Some(new)) => Some(Self::added(new)),
            (Some(old), None) => Some(Self::deleted(old)),
            (Some(old), Some(new)) => (old != new).then(|| Self::updated(old, new)),
        }
    }

    /// This lease took the place of one that is not known, by a change that was made elsewhere.
    #[must_use]
    pub fn updated_elsewhere(new: &'a L) -> Self {
        let (kind, origin) = (ChangeKind::Update, Origin::Elsewhere);
        Self { kind, address: new.address(), old: None, new: Some(new), origin }
    }

    /// The lease of an address, which is not known, was deleted elsewhere.
    #[must_use]
    pub fn deleted_elsewhere(address: L::Address) -> Self {
        Self { kind: ChangeKind::Delete, address, old: None, new: None, origin: Origin::Elsewhere }
    }

    /// The same change, made elsewhere.
    #[must_use]
    pub fn elsewhere(self) -> Self {
        Self { origin: Origin::Elsewhere, ..self }
    }

    /// Returns what kind of change it is.
    #[must_use]
    pub fn kind(&self) -> ChangeKind {
        self.kind
    }

    /// Returns the address.
    #[must_use]
    pub fn address(&self) -> L::Address {
        self.address
    }

    /// Returns the lease before the change; `None` if one was added, or if it is not known (then [`Origin::Elsewhere`]).
    #[must_use]
    pub fn before(&self) -> Option<&'a L> {
        self.old
    }

    /// Returns the lease after the change; `None` if it was deleted.
    #[must_use]
    pub fn now(&self) -> Option<&'a L> {
        self.new
    }

    /// Returns the lease as it is now; as it was, if it was deleted. `None` only for one that was deleted elsewhere and is not
    /// known.
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
