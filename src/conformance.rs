//! A test suite for lease managers of this crate and of others: it checks, rule by rule, the
//! guarantees of [`LeaseMgr`].
//!
//! A backend is correct if it satisfies all rules. Each rule is checked with a fresh manager
//! without leases, from the author of the backend. Needs the feature `conformance`, which is not
//! stable: a new version may have more rules, which a backend may violate that satisfied those of
//! the version before.
//!
//! # A test of each rule
//! [`conformance_tests`](crate::conformance_tests) generates a `#[test]` with the name of each
//! rule. In a test of the crate with the backend:
//!
//! ```no_run,test_harness
//! mod memfile_v4 {
//!     use std::sync::Arc;
//!
//!     use leasemgr::memfile::{Memfile, MemfileOptions};
//!
//!     leasemgr::conformance_tests!(v4, in_memory, || {
//!         Arc::new(Memfile::open(MemfileOptions::default()).unwrap())
//!     });
//! }
//! ```
//!
//! A backend whose leases outlive the manager provides a [`Fixture`] instead, which is opened
//! several times. After each rule, the manager is then dropped and reopened, and must have the same
//! leases; and there are additional rules about persistence. A backend that several managers use at
//! the same time is `shared`, with more additional rules.
//!
//! ```no_run,test_harness
//! mod memfile_v6 {
//!     use std::sync::Arc;
//!
//!     use leasemgr::LeaseMgr;
//!     use leasemgr::conformance::Fixture;
//!     use leasemgr::lease::Lease6;
//!     use leasemgr::memfile::{Memfile, MemfileOptions};
//!
//!     struct InFile(tempfile::TempDir);
//!
//!     impl Fixture<Lease6> for InFile {
//!         fn open(&self) -> Arc<dyn LeaseMgr<Lease6>> {
//!             let file = Some(self.0.path().join("leases.csv"));
//!             let options = MemfileOptions::default().file(file).extended_info_tables(true);
//!             Arc::new(Memfile::open(options).unwrap())
//!         }
//!     }
//!
//!     leasemgr::conformance_tests!(v6, persistent, || InFile(tempfile::tempdir().unwrap()));
//! }
//! ```
//!
//! # All rules in one test
//! [`assert_conforms4`], [`assert_conforms6`], [`assert_persists4`] and [`assert_persists6`] check
//! all rules, and panic with a list of violations. [`Suite`] returns the rules one by one and the
//! [`Violation`]s as values, and supports backends that do not find DHCPv6 leases by relay ids.
//!
//! # How to read violations
//! Fix the first one first: basic rules come first, and a later rule may be violated only because
//! an earlier one is. After the changes of a rule, the suite runs all possible queries for the
//! manager's leases. If such a query has a wrong result, the violation is [in
//! passing](Violation::in_passing): most likely another rule is about it, and the list has the
//! violations of that rule before those in passing.
//!
//! A rule has a time limit ([`Suite::time_limit`]). A rule whose calls do not return in time is
//! violated; its thread is abandoned, with the fixture.
//!
//! # What is not in it
//! The suite uses only leases that every lease file can hold: with hostnames in lower case; no
//! DHCPv6 lease whose client was heard after 2106; no hardware address of another type than
//! Ethernet in DHCPv4; no user context that the checks of extended info change
//! ([`crate::lease::check_extended_info`]). If a rule needs another lease, it deletes the lease at
//! its end.
//!
//! The suite does not check what a backend does when its disk or its database fails. For backends
//! with files there is the disk of `fs::simulated` (feature `simulated-disk`, which is not stable
//! either).

mod batches;
mod case;
mod changes;
mod classes;
mod expiry;
mod files;
mod find;
mod free_range;
mod history;
mod indexes;
mod list;
mod model;
mod persistence;
mod reclaimed;
mod relays;
mod round_trips;
mod sample;
mod shared;
mod statistics;
mod submitted;
mod threads;
mod totals;
mod tracking;

use std::fmt;
use std::marker::PhantomData;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::mpsc::{RecvTimeoutError, channel};
use std::thread;
use std::time::Duration;

use case::{Case, Fault, Opener, Verdict};

use crate::LeaseMgr;
use crate::lease::{Lease4, Lease6};

/// A lease for which the suite has rules: [`Lease4`] or [`Lease6`].
pub trait TestedLease: sample::Sample {}

impl TestedLease for Lease4 {}
impl TestedLease for Lease6 {}

/// The place where a backend keeps leases.
pub trait Fixture<L: TestedLease>: Send + Sync + 'static {
    /// Opens the manager: without leases at first, later with those that it had before. Called
    /// again only after the previous manager was dropped or, if the fixture [is
    /// shared](Self::is_shared), while it is open.
    ///
    /// A panic is a violation of the rule that is checked.
    fn open(&self) -> Arc<dyn LeaseMgr<L>>;

    /// Returns whether leases outlive the manager. If not, the rules about persistence do not
    /// apply.
    fn is_persistent(&self) -> bool {
        true
    }

    /// Returns whether several managers of the same leases may be open at the same time. If so, the
    /// rules about sharing apply.
    fn is_shared(&self) -> bool {
        false
    }

    /// Ends the manager like a crash of its process: it must not write anything more. By default,
    /// drops it.
    fn crash(&self, manager: Arc<dyn LeaseMgr<L>>) {
        drop(manager);
    }
}

/// A backend whose leases do not outlive the manager: each call of the closure returns a manager
/// without leases.
#[derive(Clone, Copy)]
pub struct InMemory<F>(pub F);

impl<F> fmt::Debug for InMemory<F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("InMemory")
    }
}

impl<L: TestedLease, F: Fn() -> Arc<dyn LeaseMgr<L>> + Send + Sync + 'static> Fixture<L> for InMemory<F> {
    fn open(&self) -> Arc<dyn LeaseMgr<L>> {
        (self.0)()
    }

    fn is_persistent(&self) -> bool {
        false
    }
}

/// A violation of a rule by a backend.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Violation {
    /// The name of the rule.
    pub rule: &'static str,
    /// The call or query that showed it.
    pub action: String,
    /// The expected result.
    pub expected: String,
    /// The actual result.
    pub found: String,
    /// The names of the [fields](crate::lease::Fields) in which the first wrong lease differs from
    /// the expected one of the same address; empty if the violation is about something else.
    pub fields: Vec<&'static str>,
    /// Whether it was found by one of the queries that follow the changes of a rule, and not by
    /// what the rule is about.
    pub in_passing: bool,
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { rule, action, expected, found, .. } = self;
        write!(f, "{rule}\n    action:   {action}\n    expected: {expected}\n    found:    {found}")?;
        if !self.fields.is_empty() {
            write!(f, "\n    differs:  {}", self.fields.join(", "))?;
        }
        if self.in_passing {
            f.write_str("\n    in passing; another rule is likely to be about it")?;
        }
        Ok(())
    }
}

impl std::error::Error for Violation {}

/// How a rule is checked.
enum Check<L: TestedLease> {
    /// With one manager, which is reopened at the end if leases outlive it.
    Once(fn(&Case<L>) -> Verdict),
    /// With a manager that is opened several times.
    Reopening(fn(&Opener<'_, L>) -> Verdict),
    /// With several managers of the same leases.
    Sharing(fn(&Opener<'_, L>) -> Verdict),
}

/// Default time limit of a rule.
pub const TIME_LIMIT: Duration = Duration::from_secs(120);

/// A guarantee that every backend must give.
pub struct Rule<L: TestedLease> {
    name: &'static str,
    check: Check<L>,
    extended_info: bool,
    time_limit: Duration,
}

impl<L: TestedLease> Rule<L> {
    fn new(name: &'static str, check: Check<L>) -> Self {
        Self { name, check, extended_info: true, time_limit: TIME_LIMIT }
    }

    fn once(name: &'static str, check: fn(&Case<L>) -> Verdict) -> Self {
        Self::new(name, Check::Once(check))
    }

    fn reopening(name: &'static str, check: fn(&Opener<'_, L>) -> Verdict) -> Self {
        Self::new(name, Check::Reopening(check))
    }

    fn sharing(name: &'static str, check: fn(&Opener<'_, L>) -> Verdict) -> Self {
        Self::new(name, Check::Sharing(check))
    }

    /// Returns the name: words separated by underscores.
    #[must_use]
    pub fn name(&self) -> &'static str {
        self.name
    }

    /// Returns whether the rule applies to a fixture: rules about persistence only if it is
    /// persistent, rules about sharing only if it is shared.
    #[must_use]
    pub fn applies_to(&self, fixture: &dyn Fixture<L>) -> bool {
        match self.check {
            Check::Once(_) => true,
            Check::Reopening(_) => fixture.is_persistent(),
            Check::Sharing(_) => fixture.is_shared(),
        }
    }

    /// Checks the rule with a fixture without leases, in a thread of its own.
    ///
    /// # Errors
    /// Returns [`Violation`] if the rule is violated, or if its calls have not returned within the
    /// time limit. The thread still exists then.
    pub fn check(&self, fixture: Arc<dyn Fixture<L>>) -> Result<(), Violation> {
        let (sender, verdict) = channel();
        let rule = *self;
        let started = thread::Builder::new().name(self.name.to_owned()).spawn(move || {
            let run = AssertUnwindSafe(|| rule.check_here(&*fixture));
            let verdict = catch_unwind(run).unwrap_or_else(|panic| Err(Fault::panic(&*panic)));
            // Dropping the fixture may fail or hang as well.
            let ended = catch_unwind(AssertUnwindSafe(|| drop(fixture)));
            let ended = ended.map_err(|panic| Fault::panic(&*panic));
            // A check that has timed out has no receiver any more.
            let _ = sender.send(verdict.and(ended));
        });
        let verdict = match started {
            Ok(_) => verdict.recv_timeout(self.time_limit),
            Err(error) => Ok(Err(Fault::new("start a thread for the rule", "a thread", error))),
        };
        let verdict = verdict.unwrap_or_else(|error| {
            let found = match error {
                RecvTimeoutError::Timeout => "they have not returned",
                RecvTimeoutError::Disconnected => "the thread has ended without a verdict",
            };
            let expected = format_args!("that they return within {:?}", self.time_limit);
            Err(Fault::new("calls of the rule", expected, found))
        });
        verdict.map_err(|fault| fault.violates(self.name))
    }

    fn check_here(&self, fixture: &dyn Fixture<L>) -> Verdict {
        let opener = Opener::new(fixture, self.extended_info);
        match self.check {
            Check::Once(check) if fixture.is_persistent() => persistence::check_and_reopen(&opener, check),
            Check::Once(check) => check(&opener.open()),
            Check::Reopening(check) | Check::Sharing(check) => check(&opener),
        }
    }
}

// A derived `Clone` would require leases that are `Copy`.
impl<L: TestedLease> Clone for Check<L> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<L: TestedLease> Copy for Check<L> {}

impl<L: TestedLease> Clone for Rule<L> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<L: TestedLease> Copy for Rule<L> {}

impl<L: TestedLease> fmt::Debug for Rule<L> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Rule({})", self.name)
    }
}

/// All rules for backends.
#[derive(Clone, Copy, Debug)]
pub struct Suite<L> {
    extended_info: bool,
    time_limit: Duration,
    leases: PhantomData<L>,
}

impl<L: TestedLease> Default for Suite<L> {
    fn default() -> Self {
        Self { extended_info: true, time_limit: TIME_LIMIT, leases: PhantomData }
    }
}

impl Suite<Lease6> {
    /// Leaves out the rules about finding leases by relay id or remote id. DHCPv4 backends must
    /// satisfy them.
    #[must_use]
    pub fn without_extended_info(self) -> Self {
        Self { extended_info: false, ..self }
    }
}

impl<L: TestedLease> Suite<L> {
    /// Creates a suite of all rules.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Sets another time limit for each rule than [`TIME_LIMIT`], for backends that are slow or
    /// remote.
    #[must_use]
    pub fn time_limit(self, time_limit: Duration) -> Self {
        Self { time_limit, ..self }
    }

    /// Returns the rules: basic ones first, those about persistence and sharing last.
    #[must_use]
    pub fn rules(&self) -> Vec<Rule<L>> {
        let relay_agents = if self.extended_info {
            crate::__conformance_rules!(relay_agents list once)
        } else {
            crate::__conformance_rules!(no_relay_agents list once)
        };
        let groups = [
            crate::__conformance_rules!(every list once),
            relay_agents,
            L::family_rules(),
            crate::__conformance_rules!(persistent list reopening),
            crate::__conformance_rules!(shared list sharing),
        ];
        let Self { extended_info, time_limit, .. } = *self;
        groups.into_iter().flatten().map(|rule| Rule { extended_info, time_limit, ..rule }).collect()
    }

    /// Checks all rules except those about persistence and sharing, each with a new manager from
    /// `make`, which must have no leases. Returns the violations: those in passing last, otherwise
    /// in the order of the rules.
    pub fn run(&self, make: impl Fn() -> Arc<dyn LeaseMgr<L>> + Send + Sync + 'static) -> Vec<Violation> {
        let fixture: Arc<dyn Fixture<L>> = Arc::new(InMemory(make));
        self.check_each(|| Arc::clone(&fixture))
    }

    /// Checks all rules that [apply](Rule::applies_to), each with a new fixture from `make`, which
    /// must have no leases. Returns the violations as [`Suite::run`] does.
    pub fn run_persistent<F: Fixture<L>>(&self, make: impl Fn() -> F) -> Vec<Violation> {
        self.check_each(|| Arc::new(make()))
    }

    fn check_each(&self, make: impl Fn() -> Arc<dyn Fixture<L>>) -> Vec<Violation> {
        let check = |rule: &Rule<L>| {
            let fixture = make();
            if rule.applies_to(&*fixture) { rule.check(fixture).err() } else { None }
        };
        let mut violations: Vec<_> = self.rules().iter().filter_map(check).collect();
        violations.sort_by_key(|violation| violation.in_passing);
        violations
    }

    /// Checks the rule of this name with a fixture without leases.
    ///
    /// # Panics
    /// Panics if the rule is violated, if there is no rule of this name, or if it does not apply to
    /// the fixture.
    pub fn assert_rule<F: Fixture<L>>(&self, name: &str, fixture: F) {
        let rule = self.rules().into_iter().find(|rule| rule.name == name);
        let (expected, found) = match rule {
            Some(rule) if rule.applies_to(&fixture) => {
                return assert_none(rule.check(Arc::new(fixture)).err().as_slice());
            }
            Some(_) => ("a fixture that is persistent or shared, as the rule requires", "another one"),
            None => ("a rule of the suite", "no such rule"),
        };
        let violation = Fault::new(format_args!("check {name}"), expected, found).violates("the tests");
        assert_none(&[violation]);
    }
}

/// Checks all rules except those about persistence and sharing, as [`Suite::run`].
pub fn run<L: TestedLease>(
    make: impl Fn() -> Arc<dyn LeaseMgr<L>> + Send + Sync + 'static,
) -> Vec<Violation> {
    Suite::new().run(make)
}

/// Checks all rules, as [`Suite::run_persistent`].
pub fn run_persistent<L: TestedLease, F: Fixture<L>>(make: impl Fn() -> F) -> Vec<Violation> {
    Suite::new().run_persistent(make)
}

/// Checks all rules for DHCPv4 except those about persistence and sharing, as [`Suite::run`].
///
/// # Panics
/// Panics with a list of the violated rules, if there are any.
pub fn assert_conforms4(make: impl Fn() -> Arc<dyn LeaseMgr<Lease4>> + Send + Sync + 'static) {
    assert_none(&run(make));
}

/// Checks all rules for DHCPv6 except those about persistence and sharing, as [`Suite::run`].
///
/// # Panics
/// Panics with a list of the violated rules, if there are any.
pub fn assert_conforms6(make: impl Fn() -> Arc<dyn LeaseMgr<Lease6>> + Send + Sync + 'static) {
    assert_none(&run(make));
}

/// Checks all rules for DHCPv4, as [`Suite::run_persistent`].
///
/// # Panics
/// Panics with a list of the violated rules, if there are any.
pub fn assert_persists4<F: Fixture<Lease4>>(make: impl Fn() -> F) {
    assert_none(&run_persistent(make));
}

/// Checks all rules for DHCPv6, as [`Suite::run_persistent`].
///
/// # Panics
/// Panics with a list of the violated rules, if there are any.
pub fn assert_persists6<F: Fixture<Lease6>>(make: impl Fn() -> F) {
    assert_none(&run_persistent(make));
}

/// Fails a test if there are violations.
///
/// # Panics
/// Panics with a list of the violations, if there are any.
pub fn assert_none(violations: &[Violation]) {
    if !violations.is_empty() {
        let list: Vec<_> = violations.iter().map(Violation::to_string).collect();
        #[expect(clippy::panic, reason = "this is how a test fails")]
        {
            panic!("{} violations:\n\n{}\n", violations.len(), list.join("\n\n"));
        }
    }
}
