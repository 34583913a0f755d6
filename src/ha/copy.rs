//! Copies the partner's leases into a lease manager.

use std::error::Error;
use std::net::IpAddr;

use thiserror::Error;

use super::{
    Config, Conflicts, Decision, Dialect, MessageError, PageLease, Request, Response, Role, Via, decide,
};
use crate::lease::Family;
use crate::lease_mgr::{Added, Done, LeaseMgr, LeaseMgrError, Operation};

/// The connection to the partner.
pub trait Partner {
    /// Why there is no answer.
    type Error: Error + Send + Sync + 'static;

    /// Sends the body of a request, and returns the body of the answer.
    ///
    /// # Errors
    /// Returns an error if no answer came in time.
    fn send(&mut self, body: &[u8]) -> Result<Vec<u8>, Self::Error>;
}

/// Why leases were not copied.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum CopyError {
    /// The partner did not answer.
    #[error("the partner did not answer")]
    Unreachable(#[source] Box<dyn Error + Send + Sync>),
    /// The partner refused, or its answer is not valid.
    #[error("the partner did not answer {command} as expected")]
    Answer {
        /// The command.
        command: &'static str,
        /// What is wrong with the answer.
        source: MessageError,
    },
    /// The pages of leases do not come to an end.
    #[error("the page after {from} ends with {last}, expected a later address")]
    Endless {
        /// The last address of the page before, or `start`.
        from: String,
        /// The last address of the page, or `no address`.
        last: String,
    },
    /// The lease manager could not look up or store leases.
    #[error("leases of the partner could not be stored")]
    Store(#[source] LeaseMgrError),
}

/// What becomes of the partner's service while its leases are copied.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Copying {
    /// It is disabled, and enabled at the end: for [`Action::Sync`](super::Action::Sync).
    Disabled,
    /// It goes on: for [`Action::Pull`](super::Action::Pull).
    Enabled,
}

/// What was copied.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Copied {
    /// The number of leases of the partner.
    pub read: u64,
    /// The number of these that were stored.
    pub taken: u64,
    /// The number of these that could not be read, and were skipped.
    pub invalid: u64,
    /// Addresses that both servers gave.
    pub conflicts: Conflicts,
    /// For [`Event::Copied`](super::Event::Copied).
    pub unsent_update_count: Option<u64>,
}

/// Copies all leases of the partner into `leases`, page by page. `now` returns seconds since the
/// epoch.
///
/// An own lease remains if [`decide`] says so; leases that the partner does not have are kept. What
/// was copied before an error remains.
///
/// # Errors
/// Returns [`CopyError`] if the partner does not answer as expected, or a lease cannot be stored.
/// The partner's service is enabled again, if it can be reached.
pub fn copy_leases<L: PageLease>(
    partner: &mut impl Partner,
    leases: &dyn LeaseMgr<L>,
    config: &Config,
    dialect: Dialect,
    copying: Copying,
    now: impl Fn() -> i64,
) -> Result<Copied, CopyError> {
    let mut copy = Copy { partner, leases, config, dialect, now, copied: Copied::default() };
    match copying {
        Copying::Enabled => copy.pages(false)?,
        Copying::Disabled => {
            copy.disable()?;
            let result = copy.pages(true).and_then(|()| copy.notify());
            if let Err(error) = result {
                // The period of the command ends, too, if the partner does not hear this.
                let _ = copy.ask(&Request::EnableService, &[0]);
                return Err(error);
            }
        }
    }
    Ok(copy.copied)
}

/// Stores a lease of the partner, unless the own one remains. Returns which of them does.
///
/// A partner whose change is not stored ([`Decision::KeepOther`]) is answered with a conflict, so
/// that its client is not told that it has the address.
///
/// # Errors
/// As [`LeaseMgr::add`] and [`LeaseMgr::update_expecting`], except for concurrent modification.
pub fn store<L: PageLease>(
    leases: &dyn LeaseMgr<L>,
    lease: &L,
    via: Via,
    now: i64,
    other_is_primary: bool,
) -> Result<Decision, LeaseMgrError> {
    loop {
        let own = leases.get(lease.address())?;
        let decision = decide(own.as_ref(), lease, via, now, other_is_primary);
        if !decision.takes() {
            return Ok(decision);
        }
        let Some(own) = own else {
            match leases.add(lease)? {
                Added::Added => return Ok(decision),
                Added::AddressTaken => continue,
            }
        };
        match leases.update_expecting(lease, Some(&own)) {
            Ok(()) => return Ok(decision),
            Err(error) if error.is_stale() => {}
            Err(error) => return Err(error),
        }
    }
}

/// Sends a request, and returns the answer if it has one of these results.
pub(super) fn ask<P: Partner>(
    partner: &mut P,
    request: &Request,
    family: Family,
    dialect: Dialect,
    results: &[i64],
) -> Result<Response, CopyError> {
    let command = request.command(family);
    let answer = |source| CopyError::Answer { command, source };
    let body = request.encode(family, dialect).map_err(answer)?;
    let unreachable = |error: P::Error| CopyError::Unreachable(error.into());
    let body = partner.send(body.as_bytes()).map_err(unreachable)?;
    let response = Response::parse(&body).map_err(answer)?;
    response.check(results).map_err(answer)?;
    Ok(response)
}

struct Copy<'a, P, L: PageLease, N> {
    partner: &'a mut P,
    leases: &'a dyn LeaseMgr<L>,
    config: &'a Config,
    dialect: Dialect,
    now: N,
    copied: Copied,
}

impl<P: Partner, L: PageLease, N: Fn() -> i64> Copy<'_, P, L, N> {
    /// Sends a request, and returns the answer if it has one of these results.
    fn ask(&mut self, request: &Request, results: &[i64]) -> Result<Response, CopyError> {
        ask(self.partner, request, L::FAMILY, self.dialect, results)
    }

    fn name(&self) -> Option<String> {
        Some(self.config.this.name.clone())
    }

    fn disable(&mut self) -> Result<(), CopyError> {
        let seconds = u32::try_from(self.config.sync_timeout.as_secs()).unwrap_or(u32::MAX);
        // Without a period, a partner that is not reached again would never serve.
        let request = Request::DisableService { max_period: Some(seconds.max(1)) };
        self.ask(&request, &[0]).map(drop)
    }

    fn notify(&mut self) -> Result<(), CopyError> {
        let request = Request::SyncCompleteNotify { server_name: self.name() };
        // A server that does not know the command answers with 2.
        if self.ask(&request, &[0, 2])?.result == 2 {
            self.ask(&Request::EnableService, &[0])?;
        }
        Ok(())
    }

    fn pages(&mut self, disabled: bool) -> Result<(), CopyError> {
        // Before the first page: what the partner does later is another number.
        let request = Request::Heartbeat { server_name: self.name() };
        let heartbeat = self.ask(&request, &[0])?.heartbeat();
        self.copied.unsent_update_count = heartbeat.ok().and_then(|heartbeat| heartbeat.unsent_update_count);
        let limit = self.config.sync_page_limit.max(1);
        let mut from: Option<IpAddr> = None;
        loop {
            let request = Request::GetPage { from, limit };
            let answer = |source| CopyError::Answer { command: request.command(L::FAMILY), source };
            let page = self.ask(&request, &[0, 3])?.page::<L>().map_err(answer)?;
            self.copied.read =
                self.copied.read.saturating_add(u64::try_from(page.number).unwrap_or(u64::MAX));
            for error in &page.invalid {
                tracing::warn!(error = error as &dyn Error, "a lease of the partner is skipped");
                self.copied.invalid = self.copied.invalid.saturating_add(1);
            }
            self.store_page(&page.leases)?;
            if page.number < usize::try_from(limit).unwrap_or(usize::MAX) {
                return Ok(());
            }
            if page.last.is_none() || page.last <= from {
                let text = |address: Option<IpAddr>, none: &str| {
                    address.map_or(none.to_owned(), |at| at.to_string())
                };
                return Err(CopyError::Endless {
                    from: text(from, "start"),
                    last: text(page.last, "no address"),
                });
            }
            from = page.last;
            if disabled {
                self.disable()?;
            }
        }
    }

    /// Stores the leases of a page with few calls of the lease manager.
    fn store_page(&mut self, page: &[L]) -> Result<(), CopyError> {
        let addresses: Vec<_> = page.iter().map(L::address).collect();
        let own = self.leases.get_many(&addresses).map_err(CopyError::Store)?;
        let now = (self.now)();
        let other_is_primary = self.config.partner().is_some_and(|peer| peer.role == Role::Primary);
        let mut decisions = Vec::new();
        let mut operations = Vec::new();
        for (lease, own) in page.iter().zip(own) {
            let decision = decide(own.as_ref(), lease, Via::Page, now, other_is_primary);
            if decision.takes() {
                let lease = lease.clone();
                decisions.push(decision);
                operations.push(match own {
                    None => Operation::Add(lease),
                    Some(_) => Operation::Update { lease, expected: own },
                });
            } else {
                self.copied.conflicts.count(decision);
            }
        }
        let results = self.leases.apply(&operations);
        for ((operation, decision), result) in operations.iter().zip(decisions).zip(results) {
            let decision = match (result, operation) {
                (Ok(Done::Added | Done::Updated), _) => decision,
                // The own lease was changed meanwhile.
                (Ok(_), Operation::Add(lease) | Operation::Update { lease, .. }) => {
                    store(self.leases, lease, Via::Page, now, other_is_primary).map_err(CopyError::Store)?
                }
                (Err(error), Operation::Add(lease) | Operation::Update { lease, .. }) if error.is_stale() => {
                    store(self.leases, lease, Via::Page, now, other_is_primary).map_err(CopyError::Store)?
                }
                (Err(error), _) => return Err(CopyError::Store(error)),
                (Ok(_), _) => decision,
            };
            self.copied.conflicts.count(decision);
            if decision.takes() {
                self.copied.taken = self.copied.taken.saturating_add(1);
            }
        }
        Ok(())
    }
}
