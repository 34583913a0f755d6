//! The named queries and changes of a server.

use std::mem;

use super::operation::reclaimed_form;
use super::{
    CountedAs, Deleted, Done, LeaseMgr, LeaseMgrError, ManagedLease, Query, StatisticsQuery, TotalsRow,
    Tracking, defaults,
};
use crate::lease::{
    ClientId, Duid, ExtendedInfoChecks, Hostname, HwAddr, Iaid, Lease, Lease4, Lease6, LeaseState, LeaseType,
    SubnetId,
};

/// Number of leases that [`LeaseMgrExt::leases`] reads at a time.
const LARGE_PAGE: usize = 10_000;

/// Number of pages that cost less to find, in a backend with a [`LeaseMgr::address_list`], than the
/// look-ups of their leases.
const FEW_PAGES: usize = 20;

/// Operations of servers of both families. Implemented for every [`LeaseMgr`].
///
/// # Errors
/// All methods return the errors of the methods of [`LeaseMgr`] that they are built on.
pub trait LeaseMgrExt<L: ManagedLease>: LeaseMgr<L> {
    /// Replaces the lease of an address.
    ///
    /// # Errors
    /// Returns [`LeaseMgrError::NoSuchLease`] if the address has no lease.
    fn update(&self, lease: &L) -> Result<(), LeaseMgrError> {
        self.update_expecting(lease, None)
    }

    /// Replaces a lease that the caller has read, unless it was modified since, so that threads and
    /// servers do not undo each other's changes.
    ///
    /// # Errors
    /// Returns [`LeaseMgrError::NoSuchLease`] if the address has no lease, and
    /// [`LeaseMgrError::ChangedMeanwhile`] if it has another one.
    fn update_if_unchanged(&self, read: &L, lease: &L) -> Result<(), LeaseMgrError> {
        self.update_expecting(lease, Some(read))
    }

    /// Deletes the lease of an address.
    ///
    /// # Errors
    /// Returns [`LeaseMgrError`] if the deletion could not be written.
    fn delete(&self, address: L::Address) -> Result<Deleted, LeaseMgrError> {
        self.delete_expecting(address, None)
    }

    /// Deletes a lease that the caller has read, unless it was modified since.
    ///
    /// # Errors
    /// Returns [`LeaseMgrError::ChangedMeanwhile`] if the address has another lease.
    fn delete_if_unchanged(&self, read: &L) -> Result<Deleted, LeaseMgrError> {
        self.delete_expecting(read.address(), Some(read))
    }

    /// Reclaims an expired lease that the caller has read ([`Lease::reclaim`]): its address becomes
    /// free, and the lease stays for a returning client, with a record of its former state
    /// ([`Lease::reclaimed_from`]). A declined lease, which has no client, is deleted. Returns
    /// whether the lease was reclaimed, which is not so if it was modified concurrently, such as by
    /// a renewal.
    ///
    /// ```
    /// use leasemgr::lease::{HwAddr, Lease4, system_time};
    /// use leasemgr::{LeaseMgr, LeaseMgrExt, LeaseMgrFactory};
    ///
    /// let leases = LeaseMgrFactory::<Lease4>::new().open("type=memfile persist=false")?;
    /// let client = HwAddr::from([2, 0, 0, 0, 0, 1]);
    /// let lease = Lease4::builder([192, 0, 2, 1].into()).client(client).lifetime(60).build()?;
    /// let declined = Lease4::declined([192, 0, 2, 2].into()).lifetime(60).build()?;
    /// for lease in [&lease, &declined] {
    ///     let _ = leases.add(lease)?;
    /// }
    /// for lease in leases.list_expired(system_time(60), 0)? {
    ///     assert!(leases.reclaim(&lease)?);
    /// // It was reclaimed already.
    ///     assert!(!leases.reclaim(&lease)?);
    /// }
    /// let left = leases.all()?;
    /// assert!(left.len() == 1 && left[0].address() == lease.address() && left[0].is_reclaimed());
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    /// Returns [`LeaseMgrError`] if the change could not be written.
    fn reclaim(&self, expired: &L) -> Result<bool, LeaseMgrError> {
        let result = match reclaimed_form(expired) {
            Some(reclaimed) => self.update_if_unchanged(expired, &reclaimed).map(|()| Done::Updated),
            None => self.delete_if_unchanged(expired).map(Done::from),
        };
        is_reclaimed(self.tracking(), CountedAs::of(expired), result)
    }

    /// Returns all leases, in the order of their addresses.
    ///
    /// # Errors
    /// Returns [`LeaseMgrError`] if the backend cannot be read.
    fn all(&self) -> Result<Vec<L>, LeaseMgrError> {
        self.find(&Query::all())
    }

    /// Returns the first `limit` leases after an address, or from the lowest address on.
    ///
    /// # Errors
    /// Returns [`LeaseMgrError::BadArgument`] if `limit` is 0, and another error if the backend
    /// cannot be read.
    fn page(&self, after: Option<L::Address>, limit: usize) -> Result<Vec<L>, LeaseMgrError> {
        self.find(&Query { after, ..Query::all().limit(limit) })
    }

    /// Returns all leases of a subnet.
    ///
    /// # Errors
    /// Returns [`LeaseMgrError`] if the backend cannot be read.
    fn by_subnet(&self, subnet: SubnetId) -> Result<Vec<L>, LeaseMgrError> {
        self.find(&Query::all().in_subnet(subnet))
    }

    /// Returns all leases in a state, of one subnet or of all.
    ///
    /// # Errors
    /// Returns [`LeaseMgrError`] if the backend cannot be read.
    fn by_state(&self, state: LeaseState, subnet: Option<SubnetId>) -> Result<Vec<L>, LeaseMgrError> {
        self.find(&Query { subnet, ..Query::state(state) })
    }

    /// Returns all leases of a hardware address.
    ///
    /// # Errors
    /// Returns [`LeaseMgrError`] if the backend cannot be read.
    fn by_hwaddr(&self, hwaddr: &HwAddr) -> Result<Vec<L>, LeaseMgrError> {
        self.find(&Query::hwaddr(hwaddr))
    }

    /// Returns the lease of a hardware address in a subnet; of several, the one with the lowest
    /// address.
    ///
    /// # Errors
    /// Returns [`LeaseMgrError`] if the backend cannot be read.
    fn by_hwaddr_in_subnet(&self, hwaddr: &HwAddr, subnet: SubnetId) -> Result<Option<L>, LeaseMgrError> {
        Ok(self.find(&Query::hwaddr(hwaddr).in_subnet(subnet).limit(1))?.pop())
    }

    /// Returns all leases with a hostname.
    ///
    /// # Errors
    /// Returns [`LeaseMgrError`] if the backend cannot be read.
    fn by_hostname(&self, hostname: &Hostname) -> Result<Vec<L>, LeaseMgrError> {
        self.find(&Query::hostname(hostname))
    }

    /// Replaces the lease of an address by the result of `change`, and returns the new lease.
    /// Returns `None`, and changes nothing, if the address has no lease or `change` returns `None`.
    /// If the lease is modified concurrently, `change` is called again with the new one, so that no
    /// change of another caller is undone.
    ///
    /// ```
    /// use leasemgr::lease::{HwAddr, Lease, Lease4, LeaseState, Lifetime};
    /// use leasemgr::{LeaseMgr, LeaseMgrExt, LeaseMgrFactory};
    ///
    /// let leases = LeaseMgrFactory::<Lease4>::new().open("type=memfile persist=false")?;
    /// let hwaddr = Some(HwAddr::new(&[2, 0, 0, 0, 0, 1])?);
    /// let mut lease = Lease4::new([192, 0, 2, 1].into(), hwaddr.clone(), None, LeaseState::DEFAULT)?;
    /// lease.data_mut().valid_lifetime = Lifetime(60);
    /// let _ = leases.add(&lease)?;
    ///
    /// // The client renews its lease.
    /// let renewed = leases.update_with(lease.address(), |lease| {
    ///     let mut renewed = lease.clone();
    ///     renewed.data_mut().cltt = 30;
    ///     lease.belongs_to_client(hwaddr.as_ref(), None).then_some(renewed)
    /// })?;
    /// assert_eq!(renewed.unwrap().data().cltt, 30);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    /// As [`LeaseMgr::update_expecting`], except for concurrent modification.
    fn update_with(
        &self,
        address: L::Address,
        mut change: impl FnMut(&L) -> Option<L>,
    ) -> Result<Option<L>, LeaseMgrError> {
        while let Some(there) = self.get(address)? {
            let Some(new) = change(&there) else {
                break;
            };
            match self.update_expecting(&new, Some(&there)) {
                Ok(()) => return Ok(Some(new)),
                Err(error) if error.is_stale() => {}
                Err(error) => return Err(error),
            }
        }
        Ok(None)
    }

    /// Deletes the lease of an address if `is_meant` returns true, and returns the lease. If the
    /// lease is modified concurrently, `is_meant` is called again with the new one.
    ///
    /// # Errors
    /// As [`LeaseMgr::delete_expecting`], except for concurrent modification.
    fn delete_if(
        &self,
        address: L::Address,
        mut is_meant: impl FnMut(&L) -> bool,
    ) -> Result<Option<L>, LeaseMgrError> {
        while let Some(there) = self.get(address)?.filter(|lease| is_meant(lease)) {
            match self.delete_expecting(address, Some(&there)) {
                Ok(Deleted::Deleted) => return Ok(Some(there)),
                Ok(Deleted::NoSuchLease) => break,
                Err(error) if error.is_stale() => {}
                Err(error) => return Err(error),
            }
        }
        Ok(None)
    }

    /// Calls `work` with each lease that a query selects, in the order of the query. Reads a page
    /// at a time, so memory does not grow with the number of leases.
    ///
    /// # Errors
    /// As [`LeaseMgr::find`].
    fn for_each(&self, query: &Query<'_, L>, mut work: impl FnMut(L)) -> Result<(), LeaseMgrError> {
        super::defaults::each(self, query, |lease| {
            work(lease);
            Ok(())
        })
    }

    /// Returns an iterator over the leases that a query selects, in the order of the query, in
    /// pages of `size` leases (at least 1). Each page is read when the iterator reaches it. The
    /// iterator ends after an error.
    ///
    /// For many pages of all leases of a backend with a [`LeaseMgr::address_list`], the iterator keeps
    /// the list, and does not return leases that were added since it began.
    ///
    /// ```
    /// use leasemgr::lease::Lease4;
    /// use leasemgr::{LeaseMgrExt, LeaseMgrFactory, Query};
    ///
    /// let leases = LeaseMgrFactory::<Lease4>::new().open("type=memfile persist=false")?;
    /// for page in leases.pages(Query::all(), 1000) {
    ///     for lease in page? {
    ///         println!("{lease:?}");
    ///     }
    /// }
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    fn pages<'a>(
        &'a self,
        query: Query<'a, L>,
        size: usize,
    ) -> impl Iterator<Item = Result<Vec<L>, LeaseMgrError>> + 'a {
        let (mut query, mut left) = (query, query.limit.unwrap_or(usize::MAX));
        let (mut listed, mut is_begun, mut is_done) = (None, false, false);
        std::iter::from_fn(move || {
            if is_done || left == 0 {
                return None;
            }
            let size = size.min(left);
            if !mem::replace(&mut is_begun, true) && query.is_whole() && (1..left).contains(&size) {
                match self.address_list() {
                    Ok(addresses) => {
                        let are_many = |addresses: &Vec<_>| addresses.len() / size > FEW_PAGES;
                        listed = addresses.filter(are_many).map(Vec::into_iter);
                    }
                    Err(error) => {
                        is_done = true;
                        return Some(Err(error));
                    }
                }
            }
            let page = match &mut listed {
                Some(addresses) if query.reversed => defaults::listed_page(self, &mut addresses.rev(), size),
                Some(addresses) => defaults::listed_page(self, addresses, size),
                None => self.find(&query.limit(size)),
            };
            match &page {
                Ok(leases) => {
                    left -= leases.len().min(left);
                    is_done = leases.len() < size;
                    query.after = leases.last().map(Lease::address).or(query.after);
                }
                Err(_) => is_done = true,
            }
            Some(page).filter(|page| page.as_ref().map_or(true, |leases| !leases.is_empty()))
        })
    }

    /// Returns an iterator over the leases that a query selects, in the order of the query, as for
    /// [`LeaseMgr::import`] of another manager. Reads 10 000 leases at a time. The iterator ends
    /// after an error.
    fn leases<'a>(&'a self, query: Query<'a, L>) -> impl Iterator<Item = Result<L, LeaseMgrError>> + 'a {
        self.pages(query, LARGE_PAGE).flat_map(|page| {
            let (leases, error) = match page {
                Ok(leases) => (leases, None),
                Err(error) => (Vec::new(), Some(error)),
            };
            leases.into_iter().map(Ok).chain(error.map(Err))
        })
    }

    /// Returns the numbers of leases that were assigned and reclaimed since the manager was opened,
    /// the sizes set by [`Totals::set_size`](super::Totals::set_size) and the present numbers of
    /// leases: a row for each subnet, or each pool, and kind of leases with any of these. Leases
    /// that change during the call may be in some of the figures and not in others.
    ///
    /// # Errors
    /// As [`LeaseMgr::statistics`].
    fn totals(&self, query: &StatisticsQuery) -> Result<Vec<TotalsRow>, LeaseMgrError> {
        let now = self.statistics(query)?;
        Ok(self.tracking().totals().rows(query, &now))
    }

    /// Checks the extended info of all leases, as when leases are loaded from files, and converts
    /// old forms to the present one. Reads `page_size` leases at a time, and returns the number of
    /// changed leases. A lease that is modified concurrently is checked again in its new form; no
    /// change of another caller is undone.
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
    /// As [`LeaseMgr::find`] and [`LeaseMgr::update_expecting`]; some of the leases may be changed
    /// then.
    fn upgrade_extended_info(
        &self,
        checks: ExtendedInfoChecks,
        page_size: usize,
    ) -> Result<u64, LeaseMgrError> {
        super::rewrite::upgrade_extended_info(self, checks, page_size)
    }

    /// Has the backend write each lease that names a relay agent again, unchanged, so that tables
    /// by relay id and remote id that the backend stores apart from the leases agree with them
    /// again. Reads `page_size` leases at a time, and returns the number of written leases.
    /// Callbacks are called with updates that change nothing.
    ///
    /// A memfile derives these tables from the leases, both on loading and with each change, and
    /// does not need it.
    ///
    /// # Errors
    /// As [`LeaseMgr::find`] and [`LeaseMgr::update_expecting`]; some of the leases may be written
    /// then.
    fn rebuild_relay_tables(&self, page_size: usize) -> Result<u64, LeaseMgrError> {
        super::rewrite::rebuild_relay_tables(self, page_size)
    }
}

impl<L: ManagedLease, M: LeaseMgr<L> + ?Sized> LeaseMgrExt<L> for M {}

/// Returns whether an expired lease was reclaimed, from the result of the change, and counts it if
/// so.
pub(crate) fn is_reclaimed<L: ManagedLease>(
    tracking: &Tracking<L>,
    expired: CountedAs,
    result: Result<Done, LeaseMgrError>,
) -> Result<bool, LeaseMgrError> {
    match result {
        Err(error) if error.is_stale() => Ok(false),
        Err(error) => Err(error),
        Ok(Done::Updated | Done::Deleted) => {
            tracking.totals().reclaimed(expired);
            Ok(true)
        }
        Ok(_) => Ok(false),
    }
}

/// Operations of DHCPv4 servers.
pub trait LeaseMgrExt4: LeaseMgr<Lease4> {
    /// Returns all leases of a client id.
    ///
    /// # Errors
    /// Returns [`LeaseMgrError`] if the backend cannot be read.
    fn by_client_id(&self, client_id: &ClientId) -> Result<Vec<Lease4>, LeaseMgrError> {
        self.find(&Query::client(client_id))
    }

    /// Returns the lease of a client id in a subnet; of several, the one with the lowest address.
    ///
    /// # Errors
    /// Returns [`LeaseMgrError`] if the backend cannot be read.
    fn by_client_id_in_subnet(
        &self,
        client_id: &ClientId,
        subnet: SubnetId,
    ) -> Result<Option<Lease4>, LeaseMgrError> {
        Ok(self.find(&Query::client(client_id).in_subnet(subnet).limit(1))?.pop())
    }
}

impl<M: LeaseMgr<Lease4> + ?Sized> LeaseMgrExt4 for M {}

/// Operations of DHCPv6 servers.
pub trait LeaseMgrExt6: LeaseMgr<Lease6> {
    /// Returns the lease of an address, or of the prefix that starts with it, if it has this type.
    ///
    /// # Errors
    /// Returns [`LeaseMgrError`] if the backend cannot be read.
    fn get_of_type(
        &self,
        lease_type: LeaseType,
        address: std::net::Ipv6Addr,
    ) -> Result<Option<Lease6>, LeaseMgrError> {
        Ok(self.get(address)?.filter(|lease| lease.lease_type() == lease_type))
    }

    /// Returns all leases of a DUID.
    ///
    /// # Errors
    /// Returns [`LeaseMgrError`] if the backend cannot be read.
    fn by_duid(&self, duid: &Duid) -> Result<Vec<Lease6>, LeaseMgrError> {
        self.find(&Query::client(duid))
    }

    /// Returns all leases of a type that a client has in an identity association.
    ///
    /// # Errors
    /// Returns [`LeaseMgrError`] if the backend cannot be read.
    fn by_identity(
        &self,
        lease_type: LeaseType,
        duid: &Duid,
        iaid: Iaid,
    ) -> Result<Vec<Lease6>, LeaseMgrError> {
        self.find(&Query::identity(lease_type, duid, iaid))
    }

    /// Returns all leases of a type that a client has in an identity association in a subnet.
    ///
    /// # Errors
    /// Returns [`LeaseMgrError`] if the backend cannot be read.
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
