//! A manager under test, and the checks of its results.

use std::any::Any;
use std::fmt::{self, Debug, Display};
use std::net::IpAddr;
use std::sync::{Arc, Barrier, Weak};
use std::thread;

use super::sample::{Sample, variants};
use super::{Fixture, TestedLease, Violation, model};
use crate::lease::{Fields, IdentifierError, JsonError, LeaseError, system_time};
use crate::panics::panic_message;
use crate::with_sources::with_sources;
use crate::{Added, Deleted, Key, LeaseMgr, LeaseMgrError, Query};

/// A difference between a result and the rule.
#[derive(Debug)]
pub struct Fault {
    pub(super) action: String,
    pub(super) expected: String,
    pub(super) found: String,
    /// See [`Violation::fields`].
    fields: Vec<&'static str>,
    /// See [`Violation::in_passing`].
    in_passing: bool,
}

/// The result of a rule or a part of one.
pub(super) type Verdict<T = ()> = Result<T, Fault>;

impl Fault {
    pub(super) fn new(action: impl Display, expected: impl Display, found: impl Display) -> Self {
        Self {
            action: action.to_string(),
            expected: expected.to_string(),
            found: found.to_string(),
            fields: Vec::new(),
            in_passing: false,
        }
    }

    /// Marks it as found by a query that the rule is not about.
    pub(super) fn in_passing(self) -> Self {
        Self { in_passing: true, ..self }
    }

    /// Makes it the violation of a rule.
    pub(super) fn violates(self, rule: &'static str) -> Violation {
        let Self { action, expected, found, fields, in_passing } = self;
        Violation { rule, action, expected, found, fields, in_passing }
    }

    pub(super) fn panic(panic: &(dyn Any + Send)) -> Self {
        Self::new("calls of the rule", "no panic", format_args!("a panic: {}", panic_message(panic)))
    }

    /// Reports a mistake in the suite itself.
    fn of_sample(error: impl Display) -> Self {
        Self::new("create a test lease", "a valid lease", error)
    }
}

macro_rules! of_sample {
    ($($error:ty),*) => {
        $(impl From<$error> for Fault {
            fn from(error: $error) -> Self {
                Self::of_sample(error)
            }
        })*
    };
}
of_sample!(IdentifierError, JsonError, LeaseError);

/// Opens the managers of a fixture.
pub(super) struct Opener<'a, L: TestedLease> {
    fixture: &'a dyn Fixture<L>,
    extended_info: bool,
}

impl<'a, L: TestedLease> Opener<'a, L> {
    pub(super) fn new(fixture: &'a dyn Fixture<L>, extended_info: bool) -> Self {
        Self { fixture, extended_info }
    }

    /// Opens the manager. The previous one must be dropped, unless the fixture is shared.
    pub(super) fn open(&self) -> Case<L> {
        Case { mgr: self.fixture.open(), extended_info: self.extended_info }
    }

    /// Opens the manager, calls `work`, and drops it.
    pub(super) fn with<T>(&self, work: impl FnOnce(&Case<L>) -> Verdict<T>) -> Verdict<T> {
        work(&self.open())
    }

    /// Opens the manager, calls `work`, and ends it like a crash.
    pub(super) fn until_crash<T>(&self, work: impl FnOnce(&Case<L>) -> Verdict<T>) -> Verdict<T> {
        let case = self.open();
        let done = work(&case);
        self.fixture.crash(case.mgr);
        done
    }
}

/// A manager under test.
pub(super) struct Case<L: Sample> {
    mgr: Arc<dyn LeaseMgr<L>>,
    /// Whether the manager finds leases by relay id and remote id.
    pub(super) extended_info: bool,
}

impl<L: Sample> Case<L> {
    pub(super) fn mgr(&self) -> &dyn LeaseMgr<L> {
        &*self.mgr
    }

    /// Returns the manager for a callback, which must not keep it open.
    pub(super) fn weak(&self) -> Weak<dyn LeaseMgr<L>> {
        Arc::downgrade(&self.mgr)
    }

    /// Returns whether the backend keeps a lease with unusual values unchanged. A backend may have
    /// limits of its own ([`LeaseMgr::kept`]): rules about the bounds of fields leave out what it
    /// cannot keep.
    pub(super) fn keeps(&self, lease: &L) -> bool {
        match self.mgr.kept(lease) {
            Ok(kept) => kept == *lease,
            Err(error) => !matches!(error, LeaseMgrError::CannotKeep { .. }),
        }
    }

    /// Returns leases that differ from this one in one field each, as far as the backend keeps them
    /// ([`variants`]).
    pub(super) fn variants(&self, lease: &L) -> Verdict<Vec<(&'static str, L)>> {
        let mut variants = variants(lease)?;
        variants.retain(|(_, variant)| self.keeps(variant));
        Ok(variants)
    }

    /// Adds a lease to an address without one.
    pub(super) fn add(&self, lease: &L) -> Verdict {
        let action = Action("add", lease);
        same(&action, &ask(&action, self.mgr.add(lease))?, &Added::Added)
    }

    /// Adds leases to addresses without one.
    pub(super) fn add_all<'a>(&self, leases: impl IntoIterator<Item = &'a L>) -> Verdict {
        leases.into_iter().try_for_each(|lease| self.add(lease))
    }

    /// Replaces the lease of an address.
    pub(super) fn update(&self, lease: &L) -> Verdict {
        ask(Action("update", lease), self.mgr.update_expecting(lease, None))
    }

    /// Deletes the lease of an address, which must exist.
    pub(super) fn delete(&self, address: L::Address) -> Verdict {
        let action = format_args!("delete the lease of {address}");
        same(action, &ask(action, self.mgr.delete_expecting(address, None))?, &Deleted::Deleted)
    }

    /// Deletes all leases.
    pub(super) fn clear(&self) -> Verdict {
        self.all()?.iter().try_for_each(|lease| self.delete(lease.address()))
    }

    pub(super) fn get(&self, address: L::Address) -> Verdict<Option<L>> {
        ask(format_args!("get {address}"), self.mgr.get(address))
    }

    pub(super) fn find(&self, query: &Query<'_, L>) -> Verdict<Vec<L>> {
        ask(QueryText(query), self.mgr.find(query))
    }

    pub(super) fn all(&self) -> Verdict<Vec<L>> {
        self.find(&Query::all())
    }

    /// Checks that the address has this lease, or none.
    pub(super) fn has(&self, address: L::Address, expected: Option<&L>) -> Verdict {
        let found = self.get(address)?;
        same_leases(format_args!("get {address}"), found.iter(), expected)
    }

    /// Checks that a query returns these leases, in this order.
    pub(super) fn finds<'a>(
        &self,
        query: &Query<'_, L>,
        expected: impl IntoIterator<Item = &'a L>,
    ) -> Verdict {
        same_leases(QueryText(query), &self.find(query)?, expected)
    }

    /// Checks that these leases have expired, in this order.
    pub(super) fn expired<'a>(
        &self,
        now: i64,
        limit: usize,
        expected: impl IntoIterator<Item = &'a L>,
    ) -> Verdict {
        let action = format_args!("leases that have expired at {now}, limit {limit}");
        same_leases(action, &ask(action, self.mgr.list_expired(system_time(now), limit))?, expected)
    }

    /// Checks that the manager has these leases, and that all queries for them, and for leases that
    /// were deleted or never existed, have the right result. For rules that are about queries.
    pub(super) fn answers<'a>(
        &self,
        leases: impl IntoIterator<Item = &'a L>,
        others: impl IntoIterator<Item = &'a L>,
    ) -> Verdict {
        let leases: Vec<_> = leases.into_iter().cloned().collect();
        let others: Vec<_> = others.into_iter().cloned().collect();
        model::audit(self, leases, &others)
    }

    /// As [`Case::answers`], for rules that are about something else.
    pub(super) fn holds<'a>(
        &self,
        leases: impl IntoIterator<Item = &'a L>,
        others: impl IntoIterator<Item = &'a L>,
    ) -> Verdict {
        self.answers(leases, others).map_err(Fault::in_passing)
    }
}

/// Returns the leases of a query, read page by page. Fails if the pages do not advance.
pub(super) fn pages<L: Sample>(case: &Case<L>, query: &Query<'_, L>, size: usize) -> Verdict<Vec<L>> {
    let mut found: Vec<L> = Vec::new();
    let mut page = query.limit(size);
    loop {
        let leases = case.find(&page)?;
        let Some(last) = leases.last() else {
            return Ok(found);
        };
        holds(QueryText(&page), leases.len() <= size, format_args!("at most {size} leases"), leases.len())?;
        let forward = page.after.is_none_or(|after| match page.reversed {
            false => last.address() > after,
            true => last.address() < after,
        });
        holds(QueryText(&page), forward, "addresses after it", last.address())?;
        page = page.after(last.address());
        found.extend(leases);
    }
}

/// Displays an action and the row of its lease.
pub(super) struct Action<'a, L>(pub(super) &'static str, pub(super) &'a L);

impl<L: Sample> Display for Action<'_, L> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.0, row(self.1))
    }
}

/// Displays a query.
pub(super) struct QueryText<'a, 'b, L: Sample>(pub(super) &'a Query<'b, L>);

impl<L: Sample> Display for QueryText<'_, '_, L> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let query = self.0;
        match query.key {
            Key::All => f.write_str("find all leases")?,
            key => write!(f, "find leases by {key:?}")?,
        }
        if let Some(subnet) = query.subnet {
            write!(f, " in subnet {subnet}")?;
        }
        if let Some(since) = query.heard_since {
            write!(f, " heard since {since}")?;
        }
        if let Some(until) = query.heard_until {
            write!(f, " heard until {until}")?;
        }
        if let Some(time) = query.ended_by {
            write!(f, " ended by {time}")?;
        }
        if let Some(first) = query.first {
            write!(f, " from {first}")?;
        }
        if let Some(last) = query.last {
            write!(f, " to {last}")?;
        }
        if query.reversed {
            f.write_str(" in reverse order")?;
        }
        if let Some(after) = query.after {
            write!(f, " after {after}")?;
        }
        if let Some(limit) = query.limit {
            write!(f, " limit {limit}")?;
        }
        Ok(())
    }
}

/// Returns the row of a lease, as in a lease file.
pub(super) fn row<L: Sample>(lease: &L) -> String {
    let mut row = Vec::new();
    lease.write_row(&mut row);
    String::from_utf8_lossy(&row).trim_end().to_owned()
}

/// Checks that a call returns no error, and returns its value.
pub(super) fn ask<T>(action: impl Display, result: Result<T, LeaseMgrError>) -> Verdict<T> {
    result.map_err(|error| {
        Fault::new(action, "no error", format_args!("the error \"{}\"", with_sources(&error)))
    })
}

/// Checks that two values are equal.
pub(super) fn same<T: PartialEq + Debug + ?Sized>(action: impl Display, found: &T, expected: &T) -> Verdict {
    if found == expected {
        return Ok(());
    }
    Err(Fault::new(action, format_args!("{expected:?}"), format_args!("{found:?}")))
}

/// Checks a condition.
pub(super) fn holds(
    action: impl Display,
    condition: bool,
    expected: impl Display,
    found: impl Debug,
) -> Verdict {
    if condition {
        return Ok(());
    }
    Err(Fault::new(action, expected, format_args!("{found:?}")))
}

/// Checks that two lists have equal leases in the same order.
pub(super) fn same_leases<'a, 'b, L: Sample>(
    action: impl Display,
    found: impl IntoIterator<Item = &'a L>,
    expected: impl IntoIterator<Item = &'b L>,
) -> Verdict {
    let found: Vec<_> = found.into_iter().collect();
    let expected: Vec<_> = expected.into_iter().collect();
    if found == expected {
        return Ok(());
    }
    let mut pairs = found.iter().zip(&expected);
    let first = pairs.position(|(a, b)| a != b).unwrap_or(found.len().min(expected.len()));
    // A DHCPv4 row does not contain the type of a hardware address.
    let in_full = match (found.get(first), expected.get(first)) {
        (Some(a), Some(b)) => row(*a) == row(*b),
        _ => false,
    };
    let fields = match (found.get(first), expected.get(first)) {
        (Some(a), Some(b)) if a.address() == b.address() => differing_fields(*a, *b),
        _ => Vec::new(),
    };
    Err(Fault { fields, ..Fault::new(action, list(&expected, first, in_full), list(&found, first, in_full)) })
}

/// Returns the names of the fields in which leases differ.
fn differing_fields<L: Sample>(found: &L, expected: &L) -> Vec<&'static str> {
    macro_rules! differing {
        ($($field:ident),+ $(,)?) => {{
            // Destructured, so that a new field that is missing in the list is a compile error.
            let Fields { $($field),+ } = found.fields();
            let expected = expected.fields();
            let fields = [$((stringify!($field), $field == expected.$field)),+];
            fields.into_iter().filter(|(_, equal)| !equal).map(|(name, _)| name).collect()
        }};
    }
    differing!(
        address,
        state,
        valid_lifetime,
        cltt,
        subnet_id,
        pool_id,
        fqdn_fwd,
        fqdn_rev,
        hostname,
        user_context,
        hwaddr,
        hwtype,
        hwaddr_source,
        client,
        lease_type,
        prefix_len,
        iaid,
        preferred_lifetime,
    )
}

/// Displays leases, from the first relevant one on.
fn list<L: Sample>(leases: &[&L], first: usize, in_full: bool) -> String {
    const SHOWN: usize = 5;
    let mut text = match leases.len() {
        0 => return "no lease".to_owned(),
        1 => "1 lease".to_owned(),
        n => format!("{n} leases"),
    };
    let from = first.saturating_sub(1);
    if from > 0 {
        text += &format!(", from number {} on", from + 1);
    }
    for lease in leases.iter().skip(from).take(SHOWN) {
        let lease = if in_full { format!("{lease:?}") } else { row(*lease) };
        text += &format!("\n              {lease}");
    }
    if leases.len() > from + SHOWN {
        text += "\n              ...";
    }
    text
}

/// Displays the result of a call.
fn outcome<T: Debug>(result: &Result<T, LeaseMgrError>) -> String {
    match result {
        Ok(value) => format!("success: {value:?}"),
        Err(error) => format!("the error \"{}\"", with_sources(error)),
    }
}

/// Checks that a query is refused because of this value.
pub(super) fn bad_argument<T: Debug>(
    action: impl Display,
    result: &Result<T, LeaseMgrError>,
    expected: &str,
) -> Verdict {
    match result {
        Err(error @ LeaseMgrError::BadArgument { value, .. })
            if value == expected && error.to_string().contains(expected) =>
        {
            Ok(())
        }
        other => {
            let expected = format_args!("the error that names the value {expected}");
            Err(Fault::new(action, expected, outcome(other)))
        }
    }
}

/// Checks that a change is refused because a callback tries to make it.
pub(super) fn in_callback<T: Debug>(action: impl Display, result: &Result<T, LeaseMgrError>) -> Verdict {
    match result {
        Err(LeaseMgrError::InCallback) => Ok(()),
        other => Err(Fault::new(action, "the error that a callback cannot change leases", outcome(other))),
    }
}

/// Checks that a conditional change is refused because the lease is not the expected one.
pub(super) fn changed_meanwhile<T: Debug>(
    action: impl Display,
    result: &Result<T, LeaseMgrError>,
    address: impl Into<IpAddr>,
) -> Verdict {
    let expected = address.into();
    match result {
        Err(LeaseMgrError::ChangedMeanwhile { address }) if *address == expected => Ok(()),
        other => Err(Fault::new(
            action,
            format_args!("the error that the lease of {expected} was modified concurrently"),
            outcome(other),
        )),
    }
}

/// Checks that a change is refused because there is no lease.
pub(super) fn no_such_lease<T: Debug>(
    action: impl Display,
    result: &Result<T, LeaseMgrError>,
    address: impl Into<IpAddr>,
) -> Verdict {
    let expected = address.into();
    match result {
        Err(LeaseMgrError::NoSuchLease { address }) if *address == expected => Ok(()),
        other => {
            Err(Fault::new(action, format_args!("the error that {expected} has no lease"), outcome(other)))
        }
    }
}

/// Runs `count` threads at the same time. Returns their results, in the order of their numbers.
pub(super) fn in_threads<T: Send>(
    count: usize,
    work: impl Fn(usize) -> Verdict<T> + Sync,
) -> Verdict<Vec<T>> {
    let start = Barrier::new(count);
    let (start, work) = (&start, &work);
    thread::scope(|scope| {
        let run = |n| {
            scope.spawn(move || {
                start.wait();
                work(n)
            })
        };
        let threads: Vec<_> = (0..count).map(run).collect();
        // All threads are joined, even if one has failed.
        let results: Vec<_> = threads.into_iter().map(thread::ScopedJoinHandle::join).collect();
        results.into_iter().map(|result| result.unwrap_or_else(|panic| Err(Fault::panic(&*panic)))).collect()
    })
}
