//! The suite that proves a lease manager, in this crate or in another: rule by rule, what
//! [`LeaseMgr`] promises.
//!
//! A backend is right when it keeps all rules. Each rule is checked with a fresh manager without leases, which the
//! author of the backend gives. Needs the feature `conformance`.
//!
//! ```no_run
//! use std::sync::Arc;
//!
//! use leasemgr::LeaseMgr;
//! use leasemgr::conformance::assert_conforms4;
//! use leasemgr::lease::Lease4;
//! use leasemgr::memfile::{Memfile, MemfileOptions};
//!
//! // In a test of the crate with the backend.
//! assert_conforms4(|| -> Arc<dyn LeaseMgr<Lease4>> {
//!     Arc::new(Memfile::open(MemfileOptions::default()).unwrap())
//! });
//! ```
//!
//! A backend that keeps leases beyond its own life gives a [`Subject`] instead, which is opened several times. Then,
//! behind each rule, the manager is dropped and opened again, and everything must be found as it was; and there are
//! more rules about that alone.
//!
//! ```no_run
//! use std::path::PathBuf;
//! use std::sync::Arc;
//!
//! use leasemgr::LeaseMgr;
//! use leasemgr::conformance::{Subject, assert_persists6};
//! use leasemgr::lease::Lease6;
//! use leasemgr::memfile::{Memfile, MemfileOptions};
//!
//! struct InFile(PathBuf);
//!
//! impl Subject<Lease6> for InFile {
//!     fn open(&self) -> Arc<dyn LeaseMgr<Lease6>> {
//!         let file = Some(self.0.join("leases.csv"));
//!         let options = MemfileOptions { file, extended_info_tables: true, ..MemfileOptions::default() };
//!         Arc::new(Memfile::open(options).unwrap())
//!     }
//! }
//!
//! # fn fresh_folder() -> PathBuf { unimplemented!() }
//! assert_persists6(|| InFile(fresh_folder()));
//! ```
//!
//! [`Suite`] gives the rules one by one and the [`Violation`]s as values, and knows backends that do not find DHCPv6
//! leases by relay ids.
//!
//! The suite keeps to what every lease file can hold: hostnames in lower case, no DHCPv6 lease whose client was heard
//! after 2106, no hardware address of another type than Ethernet in DHCPv4, and no user context that the checks of extended info
//! change ([`crate::lease::check_extended_info`]). Where a rule needs more, the lease is deleted at its end.
//!
//! Not in it: what a backend does when its disk or its
//! database fails. For those with files there is the disk of `fs::simulated` (feature `simulated-disk`).

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
mod model;
mod persistence;
mod reclaimed;
mod relays;
mod round_trips;
mod sample;
mod statistics;
mod submitted;
mod threads;
mod totals;
mod tracking;

use std::fmt;
use std::marker::PhantomData;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

use case::{Case, Fault, Opener, Verdict};

use crate::LeaseMgr;
use crate::lease::{Lease4, Lease6};

/// A lease that the suite has rules for: [`Lease4`] and [`Lease6`].
pub trait TestedLease: sample::Sample {}

impl TestedLease for Lease4 {}
impl TestedLease for Lease6 {}

/// A place where a backend keeps leases.
pub trait Subject<L: TestedLease> {
    /// Opens the manager: without leases at first, later with those that it had before. It is opened again
    /// only when the manager of before was dropped.
    ///
    /// A panic is a violation of the rule that is checked.
    fn open(&self) -> Arc<dyn LeaseMgr<L>>;

    /// Whether the leases are there when the manager is opened again. If not, nothing is asked of that.
    fn is_persistent(&self) -> bool {
        true
    }
}

/// A backend whose leases are gone with the manager: each call of the closure gives a manager without leases.
#[derive(Clone, Copy)]
pub struct InMemory<F>(pub F);

impl<F> fmt::Debug for InMemory<F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("InMemory")
    }
}

impl<L: TestedLease, F: Fn() -> Arc<dyn LeaseMgr<L>>> Subject<L> for InMemory<F> {
    fn open(&self) -> Arc<dyn LeaseMgr<L>> {
        (self.0)()
    }

    fn is_persistent(&self) -> bool {
        false
    }
}

/// How a backend broke a rule.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{rule}\n    action:   {action}\n    expected: {expected}\n    found:    {found}")]
#[non_exhaustive]
pub struct Violation {
    /// The name of the rule.
    pub rule: &'static str,
    /// What was done or asked when it showed.
    pub action: String,
    /// What should have come of it.
    pub expected: String,
    /// What came of it.
    pub found: String,
}

/// How a rule is checked.
#[derive(Clone, Copy)]
enum Check<L: TestedLease> {
    /// With one manager, which is opened again at the end, if leases outlive it.
    Once(fn(&Case<L>) -> Verdict),
    /// With a manager that is opened several times.
    Reopening(fn(&Opener<'_, L>) -> Verdict),
}

/// Something that every backend must do.
#[derive(Clone, Copy)]
pub struct Rule<L: TestedLease> {
    name: &'static str,
    check: Check<L>,
    extended_info: bool,
}

/// Rules with the names of their functions.
macro_rules! rules {
    ($($name:ident),+ $(,)?) => { vec![$(crate::conformance::Rule::once(stringify!($name), $name)),+] };
}
use rules;

impl<L: TestedLease> Rule<L> {
    fn once(name: &'static str, check: fn(&Case<L>) -> Verdict) -> Self {
        Self { name, check: Check::Once(check), extended_info: true }
    }

    fn reopening(name: &'static str, check: fn(&Opener<'_, L>) -> Verdict) -> Self {
        Self { name, check: Check::Reopening(check), extended_info: true }
    }

    /// The rule as a name: words with underscores between them.
    #[must_use]
    pub fn name(&self) -> &'static str {
        self.name
    }

    /// Whether it is about leases that outlive the manager.
    #[must_use]
    pub fn is_about_persistence(&self) -> bool {
        matches!(self.check, Check::Reopening(_))
    }

    /// Checks it with a subject without leases.
    ///
    /// # Errors
    /// [`Violation`] where the rule is broken.
    pub fn check(&self, subject: &dyn Subject<L>) -> Result<(), Violation> {
        let opener = Opener::new(subject, self.extended_info);
        let run = || match self.check {
            Check::Once(check) if subject.is_persistent() => persistence::check_and_reopen(&opener, check),
            Check::Once(check) => check(&opener.open()),
            Check::Reopening(check) => check(&opener),
        };
        let verdict = catch_unwind(AssertUnwindSafe(run)).unwrap_or_else(|panic| Err(Fault::panic(&*panic)));
        verdict.map_err(|Fault { action, expected, found }| Violation {
            rule: self.name,
            action,
            expected,
            found,
        })
    }
}

impl<L: TestedLease> fmt::Debug for Rule<L> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Rule({})", self.name)
    }
}

/// All rules that a backend is to keep.
#[derive(Clone, Copy, Debug)]
pub struct Suite<L> {
    extended_info: bool,
    leases: PhantomData<L>,
}

impl<L: TestedLease> Default for Suite<L> {
    fn default() -> Self {
        Self { extended_info: true, leases: PhantomData }
    }
}

impl Suite<Lease6> {
    /// Without the rules about leases that are found by relay id or remote id. DHCPv4 has no choice there.
    #[must_use]
    pub fn without_extended_info(self) -> Self {
        Self { extended_info: false, ..self }
    }
}

impl<L: TestedLease> Suite<L> {
    /// All rules.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// The rules, those about persistence last.
    #[must_use]
    pub fn rules(&self) -> Vec<Rule<L>> {
        let relays = if self.extended_info { relays::rules() } else { relays::rules_without_extended_info() };
        let groups = [
            changes::rules(),
            find::rules(),
            indexes::rules(),
            relays,
            expiry::rules(),
            reclaimed::rules(),
            statistics::rules(),
            totals::rules(),
            round_trips::rules(),
            free_range::rules(),
            classes::rules(),
            tracking::rules(),
            files::rules(),
            batches::rules(),
            submitted::rules(),
            threads::rules(),
            history::rules(),
            L::family_rules(),
            persistence::rules(),
            submitted::persistence_rules(),
        ];
        let rules = groups.into_iter().flatten();
        rules.map(|rule| Rule { extended_info: self.extended_info, ..rule }).collect()
    }

    /// Checks all rules but those about persistence, each with a manager that `make` gives, which is to be without
    /// leases; gives those that are broken.
    pub fn run(&self, make: impl Fn() -> Arc<dyn LeaseMgr<L>>) -> Vec<Violation> {
        let subject = InMemory(make);
        let rules = self.rules().into_iter().filter(|rule| !rule.is_about_persistence());
        rules.filter_map(|rule| rule.check(&subject).err()).collect()
    }

    /// Checks all rules, each with a subject that `make` gives, which is to be without leases; gives those
    /// that are broken.
    pub fn run_persistent<S: Subject<L>>(&self, make: impl Fn() -> S) -> Vec<Violation> {
        self.rules().iter().filter_map(|rule| rule.check(&make()).err()).collect()
    }
}

/// Checks all rules but those about persistence, as [`Suite::run`].
pub fn run<L: TestedLease>(make: impl Fn() -> Arc<dyn LeaseMgr<L>>) -> Vec<Violation> {
    Suite::new().run(make)
}

/// Checks all rules, as [`Suite::run_persistent`].
pub fn run_persistent<L: TestedLease, S: Subject<L>>(make: impl Fn() -> S) -> Vec<Violation> {
    Suite::new().run_persistent(make)
}

/// Checks all rules for DHCPv4 but those about persistence, as [`Suite::run`].
///
/// # Panics
/// With a list of the rules that are broken, if any are.
pub fn assert_conforms4(make: impl Fn() -> Arc<dyn LeaseMgr<Lease4>>) {
    assert_none(&run(make));
}

/// Checks all rules for DHCPv6 but those about persistence, as [`Suite::run`].
///
/// # Panics
/// With a list of the rules that are broken, if any are.
pub fn assert_conforms6(make: impl Fn() -> Arc<dyn LeaseMgr<Lease6>>) {
    assert_none(&run(make));
}

/// Checks all rules for DHCPv4, as [`Suite::run_persistent`].
///
/// # Panics
/// With a list of the rules that are broken, if any are.
pub fn assert_persists4<S: Subject<Lease4>>(make: impl Fn() -> S) {
    assert_none(&run_persistent(make));
}

/// Checks all rules for DHCPv6, as [`Suite::run_persistent`].
///
/// # Panics
/// With a list of the rules that are broken, if any are.
pub fn assert_persists6<S: Subject<Lease6>>(make: impl Fn() -> S) {
    assert_none(&run_persistent(make));
}

/// Fails a test where rules are broken.
///
/// # Panics
/// With a list of them, if there are any.
pub fn assert_none(violations: &[Violation]) {
    if !violations.is_empty() {
        let list: Vec<_> = violations.iter().map(Violation::to_string).collect();
        #[expect(clippy::panic, reason = "this is how a test fails")]
        {
            panic!("{} rules are broken:\n\n{}\n", violations.len(), list.join("\n\n"));
        }
    }
}
