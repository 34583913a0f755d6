//! The questions of a server, by name.

use std::cell::RefCell;

use super::{
    CountedAs, Deleted, LeaseMgr, LeaseMgrError, ManagedLease, Query, StatisticsQuery, StatisticsRow,
    Subnets, TotalsRow,
};
use crate::lease::{
    ClientClass, ClientId, Duid, ExtendedInfoChecks, Hostname, HwAddr, Iaid, Lease4, Lease6, LeaseKind,
    LeaseState, LeaseType, LimitExceeded, Limits, SubnetId, UserContext,
};

/// What servers of both families ask a lease manager. Everything has it that is a [`LeaseMgr`].
///
/// # Errors
/// All methods fail as those of [`LeaseMgr`] that they are built on.
pub trait LeaseMgrExt<L: ManagedLease>: LeaseMgr<L> {
    /// Puts a lease in the place of the one that its address has.
    ///
    /// # Errors
    /// [`LeaseMgrError::NoSuchLease`] where it has none.
    fn update(&self, lease: &L) -> Result<(), LeaseMgrError> {
        self.replace(lease, None)
    }

    /// Puts a lease in the place of the one that the caller has read, if nobody has changed that since: so no
    /// two threads or servers undo each other's work.
    ///
    /// # Errors
    /// [`LeaseMgrError::NoSuchLease`] where the address has none, [`LeaseMgrError::ChangedMeanwhile`] where it is
    /// another.
    fn update_if_unchanged(&self, read: &L, lease: &L) -> Result<(), LeaseMgrError> {
        self.replace(lease, Some(read))
    }

    /// Deletes the lease of an address.
    ///
    /// # Errors
    /// [`LeaseMgrError`] where that could not be written.
    fn delete(&self, address: L::Address) -> Result<Deleted, LeaseMgrError> {
        self.remove(address, None)
    }

    /// Deletes a lease that the caller has read, if nobody has changed it since.
    ///
    /// # Errors
    /// [`LeaseMgrError::ChangedMeanwhile`] where the address has another one.
    fn delete_if_unchanged(&self, read: &L) -> Result<Deleted, LeaseMgrError> {
        self.remove(read.address(), Some(read))
    }

    /// Reclaims a lease that has expired and that the caller has read: its address is free then, and what the lease says stays
    /// for the client to come back. A declined lease is nobody's any more, and is deleted. Tells whether it was
    /// done: not if somebody has changed the lease since, such as the client that came back just now.
    ///
    /// ```
    /// use leasemgr::lease::{HwAddr, Lease4};
    /// use leasemgr::{LeaseMgr, LeaseMgrExt, LeaseMgrFactory};
    ///
    /// let leases = LeaseMgrFactory::<Lease4>::new().open("type=memfile persist=false")?;
    /// let client = HwAddr::from([2, 0, 0, 0, 0, 1]);
    /// let lease = Lease4::builder([192, 0, 2, 1].into()).client(client).lifetime(60).build()?;
    /// let declined = Lease4::declined([192, 0, 2, 2].into()).lifetime(60).build()?;
    /// for lease in [&lease, &declined] {
    ///     let _ = leases.add(lease)?;
    /// }
    /// for lease in leases.expired(60, 0)? {
    ///     assert!(leases.reclaim(&lease)?);
    ///     // It is not as it was any more.
    ///     assert!(!leases.reclaim(&lease)?);
    /// }
    /// let left = leases.all()?;
    /// assert!(left.len() == 1 && left[0].address() == lease.address() && left[0].is_reclaimed());
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    /// [`LeaseMgrError`] where that could not be written.
    fn reclaim(&self, expired: &L) -> Result<bool, LeaseMgrError> {
        let mut reclaimed = expired.clone();
        let is_kept = expired.state() != LeaseState::DECLINED
            && reclaimed.set_state(LeaseState::EXPIRED_RECLAIMED).is_ok();
        let done = if is_kept {
            self.update_if_unchanged(expired, &reclaimed).map(|()| true)
        } else {
            self.delete_if_unchanged(expired).map(|deleted| deleted == Deleted::Deleted)
        };
        match done {
            Err(error) if error.is_stale() => Ok(false),
            Ok(true) => {
                self.tracking().totals().reclaimed(CountedAs::of(expired));
                Ok(true)
            }
            done => done,
        }
    }

    /// All leases, in the order of their addresses.
    ///
    /// # Errors
    /// [`LeaseMgrError`] where the backend cannot be asked.
    fn all(&self) -> Result<Vec<L>, LeaseMgrError> {
        self.find(&Query::all())
    }

    /// Returns the first `limit` leases after an address, or from the first one on.
    ///
    /// # Errors
    /// Returns [`LeaseMgrError::BadArgument`] for a limit of 0, and others if the backend cannot be asked.
    fn page(&self, after: Option<L::Address>, limit: usize) -> Result<Vec<L>, LeaseMgrError> {
        self.find(&Query { after, ..Query::all().limit(limit) })
    }

    /// All leases of a subnet.
    ///
    /// # Errors
    /// [`LeaseMgrError`] where the backend cannot be asked.
    fn by_subnet(&self, subnet: SubnetId) -> Result<Vec<L>, LeaseMgrError> {
        self.find(&Query::all().in_subnet(subnet))
    }

    /// All leases in a state, of one subnet or of all.
    ///
    /// # Errors
    /// [`LeaseMgrError`] where the backend cannot be asked.
    fn by_state(&self, state: LeaseState, subnet: Option<SubnetId>) -> Result<Vec<L>, LeaseMgrError> {
        self.find(&Query { subnet, ..Query::state(state) })
    }

    /// All leases of a hardware address.
    ///
    /// # Errors
    /// [`LeaseMgrError`] where the backend cannot be asked.
    fn by_hwaddr(&self, hwaddr: &HwAddr) -> Result<Vec<L>, LeaseMgrError> {
        self.find(&Query::hwaddr(hwaddr))
    }

    /// The lease of a hardware address in a subnet; of several, the one with the lowest address.
    ///
    /// # Errors
    /// [`LeaseMgrError`] where the backend cannot be asked.
    fn by_hwaddr_in_subnet(&self, hwaddr: &HwAddr, subnet: SubnetId) -> Result<Option<L>, LeaseMgrError> {
        Ok(self.find(&Query::hwaddr(hwaddr).in_subnet(subnet).limit(1))?.pop())
    }

    /// All leases of clients with a name.
    ///
    /// # Errors
    /// [`LeaseMgrError`] where the backend cannot be asked.
    fn by_hostname(&self, hostname: &Hostname) -> Result<Vec<L>, LeaseMgrError> {
        self.find(&Query::hostname(hostname))
    }

    /// Deletes the reclaimed leases that ended `seconds` before `now` (seconds since the epoch) or earlier, and tells
    /// how many these were.
    ///
    /// # Errors
    /// As [`LeaseMgr::remove_reclaimed`].
    fn delete_reclaimed(&self, now: u64, seconds: u32) -> Result<u64, LeaseMgrError> {
        if let Some(until) = now.checked_sub(seconds.into()) {
            return self.remove_reclaimed(until);
        }
        // Before 1970 hardly any lease has ended, so these are looked for one by one.
        self.tracking().refuse_in_callback()?;
        let until = i128::from(now) - i128::from(seconds);
        let mut deleted = 0;
        for lease in self.by_state(LeaseState::EXPIRED_RECLAIMED, None)? {
            if lease.end().is_some_and(|end| end <= until) {
                match self.delete_if_unchanged(&lease) {
                    Err(error) if error.is_stale() => {}
                    result => deleted += u64::from(result? == Deleted::Deleted),
                }
            }
        }
        Ok(deleted)
    }

    /// Returns the first limit under `ISC` / `limits` of a user context that is reached already, so that a lease with this
    /// context must not be given out. The limit of a subnet counts leases in use and declined ones, that of a client class
    /// leases in use, as Kea does.
    ///
    /// # Errors
    /// Returns [`LeaseMgrError::Limits`] if the limits are of another form, [`LeaseMgrError::BadArgument`] for a limit of subnet 0,
    /// and others if the backend cannot be asked.
    fn check_limits(&self, context: &UserContext) -> Result<Option<LimitExceeded>, LeaseMgrError> {
        let limits = Limits::of(context)?;
        let mut failure = None;
        let of_class = |class: &ClientClass, kind| self.class_leases(class, kind);
        let of_subnet = |subnet, kind| {
            let query = StatisticsQuery { subnets: Subnets::One(subnet), by_pool: false };
            let is_assigned = |row: &StatisticsRow| {
                matches!(row.state, LeaseState::DEFAULT | LeaseState::DECLINED)
                    && row.lease_type.map_or(Some(LeaseKind::Address), LeaseKind::of) == Some(kind)
            };
            Ok(self.statistics(&query)?.iter().filter(|row| is_assigned(row)).map(|row| row.count).sum())
        };
        let failures = RefCell::new(&mut failure);
        let known = |count: Result<u64, LeaseMgrError>| {
            count.unwrap_or_else(|error| {
                **failures.borrow_mut() = Some(error);
                0
            })
        };
        let exceeded = limits.exceeded(
            L::FAMILY,
            |class, kind| known(of_class(class, kind)),
            |subnet, kind| known(of_subnet(subnet, kind)),
        );
        failure.map_or(Ok(exceeded), Err)
    }

    /// How many leases were assigned and reclaimed since the manager was opened, beside the sizes that
    /// [`Totals::set_size`](super::Totals::set_size) was told and the leases of now: a row for each subnet and kind of leases, or each pool, with
    /// any of these. Leases that change meanwhile may be in some of the figures and not in others.
    ///
    /// # Errors
    /// As [`LeaseMgr::statistics`].
    fn totals(&self, query: &StatisticsQuery) -> Result<Vec<TotalsRow>, LeaseMgrError> {
        let now = self.statistics(query)?;
        Ok(self.tracking().totals().rows(query, &now))
    }

    /// Checks the extended info of all leases, as it is when leases are loaded from files, and brings old forms into that of
    /// today. Reads `page_size` leases at a time, and returns how many were changed. Leases that change meanwhile
    /// are looked at as they are then; no change of another caller is undone.
    ///
    /// ```
    /// use leasemgr::lease::{ExtendedInfoChecks, HwAddr, Lease4, UserContext};
    /// use leasemgr::{LeaseMgr, LeaseMgrExt, LeaseMgrFactory};
    ///
    /// let leases = LeaseMgrFactory::<Lease4>::new().open("type=memfile persist=false")?;
    /// let client = HwAddr::from([2, 0, 0, 0, 0, 1]);
    /// let old = UserContext::parse(br#"{ "ISC": { "relay-agent-info": "0x0202BEEF" } }"#)?;
    /// let lease = Lease4::builder([192, 0, 2, 1].into()).client(client).lifetime(60).user_context(old).build()?;
    /// let _ = leases.add(&lease)?;
    /// assert_eq!(leases.upgrade_extended_info(ExtendedInfoChecks::Fix, 1000)?, 1);
    /// assert_eq!(leases.upgrade_extended_info(ExtendedInfoChecks::Fix, 1000)?, 0);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    /// As [`LeaseMgr::find`] and [`LeaseMgr::replace`]; some of the leases may be changed then.
    fn upgrade_extended_info(
        &self,
        checks: ExtendedInfoChecks,
        page_size: usize,
    ) -> Result<u64, LeaseMgrError> {
        super::rewrite::upgrade_extended_info(self, checks, page_size)
    }

    /// Has the backend write each lease that names a relay agent once more, as it is, so that tables by relay id and remote
    /// id, where they are kept apart from the leases, are those of the leases again. Reads `page_size` leases at a
    /// time, and returns how many were written. Callbacks are told of updates that change nothing.
    ///
    /// A memfile derives these tables from the leases, when they are loaded and with each change, and has no
    /// need of it.
    ///
    /// # Errors
    /// As [`LeaseMgr::find`] and [`LeaseMgr::replace`]; some of the leases may be written then.
    fn rebuild_relay_tables(&self, page_size: usize) -> Result<u64, LeaseMgrError> {
        super::rewrite::rebuild_relay_tables(self, page_size)
    }
}

impl<L: ManagedLease, M: LeaseMgr<L> + ?Sized> LeaseMgrExt<L> for M {}

/// What DHCPv4 servers ask besides.
pub trait LeaseMgrExt4: LeaseMgr<Lease4> {
    /// All leases of a client id.
    ///
    /// # Errors
    /// [`LeaseMgrError`] where the backend cannot be asked.
    fn by_client_id(&self, client_id: &ClientId) -> Result<Vec<Lease4>, LeaseMgrError> {
        self.find(&Query::client(client_id))
    }

    /// The lease of a client id in a subnet; of several, the one with the lowest address.
    ///
    /// # Errors
    /// [`LeaseMgrError`] where the backend cannot be asked.
    fn by_client_id_in_subnet(
        &self,
        client_id: &ClientId,
        subnet: SubnetId,
    ) -> Result<Option<Lease4>, LeaseMgrError> {
        Ok(self.find(&Query::client(client_id).in_subnet(subnet).limit(1))?.pop())
    }

    /// All leases that are of a client in a subnet ([`Lease4::belongs_to_client`]): those of its client id or, where there
    /// are none, those of its hardware address that are not of another client id.
    ///
    /// ```
    /// use leasemgr::lease::{ClientId, HwAddr, Lease4, SubnetId};
    /// use leasemgr::{LeaseMgr, LeaseMgrExt4, LeaseMgrFactory};
    ///
    /// let leases = LeaseMgrFactory::<Lease4>::new().open("type=memfile persist=false")?;
    /// let card = HwAddr::from([2, 0, 0, 0, 0, 1]);
    /// let (one, two) = (ClientId::new(b"one")?, ClientId::new(b"two")?);
    /// let client = (card.clone(), one.clone());
    /// let lease = Lease4::builder([192, 0, 2, 1].into()).client(client).subnet(1).lifetime(3600).build()?;
    /// leases.add(&lease)?;
    ///
    /// // By its client id, whatever card it has now, and by its card, if it sends no client id.
    /// assert_eq!(leases.by_client_in_subnet(None, Some(&one), SubnetId(1))?, [lease.clone()]);
    /// assert_eq!(leases.by_client_in_subnet(Some(&card), None, SubnetId(1))?, [lease]);
    /// // Another client on the same card is another client.
    /// assert_eq!(leases.by_client_in_subnet(Some(&card), Some(&two), SubnetId(1))?, []);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    /// [`LeaseMgrError`] where the backend cannot be asked.
    fn by_client_in_subnet(
        &self,
        hwaddr: Option<&HwAddr>,
        client_id: Option<&ClientId>,
        subnet: SubnetId,
    ) -> Result<Vec<Lease4>, LeaseMgrError> {
        if let Some(client_id) = client_id {
            let leases = self.find(&Query::client(client_id).in_subnet(subnet))?;
            if !leases.is_empty() {
                return Ok(leases);
            }
        }
        let Some(hwaddr) = hwaddr else {
            return Ok(Vec::new());
        };
        let mut leases = self.find(&Query::hwaddr(hwaddr).in_subnet(subnet))?;
        leases.retain(|lease| lease.belongs_to_client(Some(hwaddr), client_id));
        Ok(leases)
    }
}

impl<M: LeaseMgr<Lease4> + ?Sized> LeaseMgrExt4 for M {}

/// What DHCPv6 servers ask besides.
pub trait LeaseMgrExt6: LeaseMgr<Lease6> {
    /// The lease of an address, or of the prefix that starts with it, if it is of this type.
    ///
    /// # Errors
    /// [`LeaseMgrError`] where the backend cannot be asked.
    fn get_of_type(
        &self,
        lease_type: LeaseType,
        address: std::net::Ipv6Addr,
    ) -> Result<Option<Lease6>, LeaseMgrError> {
        Ok(self.get(address)?.filter(|lease| lease.lease_type() == lease_type))
    }

    /// All leases of a DUID.
    ///
    /// # Errors
    /// [`LeaseMgrError`] where the backend cannot be asked.
    fn by_duid(&self, duid: &Duid) -> Result<Vec<Lease6>, LeaseMgrError> {
        self.find(&Query::client(duid))
    }

    /// All leases of a type that a client has in an identity association.
    ///
    /// # Errors
    /// [`LeaseMgrError`] where the backend cannot be asked.
    fn by_identity(
        &self,
        lease_type: LeaseType,
        duid: &Duid,
        iaid: Iaid,
    ) -> Result<Vec<Lease6>, LeaseMgrError> {
        self.find(&Query::identity(lease_type, duid, iaid))
    }

    /// All leases of a type that a client has in an identity association in a subnet.
    ///
    /// # Errors
    /// [`LeaseMgrError`] where the backend cannot be asked.
    fn by_identity_in_subnet(
        &self,
        lease_type: LeaseType,
        duid: &Duid,
        iaid: Iaid,
        subnet: SubnetId,
    ) -> Result<Vec<Lease6>, LeaseMgrError> {
        self.find(&Query::identity(lease_type, duid, iaid).in_subnet(subnet))
    }
}

impl<M: LeaseMgr<Lease6> + ?Sized> LeaseMgrExt6 for M {}
