//! Free addresses of a range, which the database finds by its index of addresses.
//!
//! An address is occupied if it has a lease that has not ended and is not reclaimed. The lowest free
//! address of a range is its first one, or the one after the lowest occupied address whose next one
//! is free. The statement reads occupied addresses in their order until it has found that one.
//!
//! A database that cannot calculate with the addresses of a range is asked which addresses of a
//! window are occupied, window after window.

use std::collections::HashSet;
use std::hash::{BuildHasher, RandomState};
use std::iter;
use std::net::IpAddr;

use super::columns::{Kind, Value, table};
use super::driver::Dialect;
use super::select::{Builder, Statement};
use crate::lease::LeaseState;
use crate::lease_mgr::{FreeRange, ManagedLease};

/// Returns the statement that selects the lowest free address from `from` to the end of a range, or
/// NULL. It disregards exclusions. Returns `None` if the database cannot calculate with the addresses
/// of the range: if the first one is not a multiple of the distance between two, or if prefixes
/// longer than 64 bits, or addresses, differ in their first 64 bits.
pub(super) fn lowest<L: ManagedLease>(
    dialect: &(impl Dialect + ?Sized),
    range: &FreeRange<L>,
    from: L::Address,
    now: i64,
) -> Option<Statement<'static>> {
    let (first, last, step) = (L::bits_of(range.first()), L::bits_of(range.last()), range.step());
    if first % step != 0 || (step <= u64::MAX.into() && first >> 64 != last >> 64) {
        return None;
    }
    let (table, following) = (table(L::FAMILY), dialect.following("l", step)?);
    let last = L::address_of_bits(last - last % step);
    let address = |address: L::Address| Value::Address(address.into());
    let mut builder = Builder::new(dialect, format!("SELECT CASE WHEN EXISTS (SELECT 1 FROM {table} AS f"));
    builder.condition("f.address =", Kind::Address, address(from));
    occupied(&mut builder, "f", now);
    // A join: MySQL would make a table of all leases for a NOT EXISTS.
    let join = format!("{table} AS l LEFT JOIN {table} AS n ON n.address = {following}");
    builder.text(&format!(") THEN (SELECT {following} FROM {join}"));
    occupied(&mut builder, "n", now);
    builder.begin_conditions();
    builder.condition("l.address >=", Kind::Address, address(from));
    // So that the next address is one of the range.
    builder.condition("l.address <", Kind::Address, address(last));
    occupied(&mut builder, "l", now);
    builder.fixed("n.address IS NULL");
    builder.text(" ORDER BY l.address LIMIT 1) ELSE ");
    builder.value(Kind::Address, address(from));
    builder.text(" END");
    Some(builder.end())
}

/// The sizes of windows: the first one is small, as it usually has a free address.
const WINDOWS: (usize, usize) = (32, 512);

/// Addresses of a range that follow each other.
pub(super) struct Window<'a, L: ManagedLease> {
    range: &'a FreeRange<L>,
    addresses: Vec<L::Address>,
}

impl<'a, L: ManagedLease> Window<'a, L> {
    /// Returns the window that begins at an address, or `None` if the range ends before it.
    pub(super) fn from(range: &'a FreeRange<L>, from: L::Address) -> Option<Self> {
        Some(Self::at(range, range.from(from)?, WINDOWS.0))
    }

    /// Returns the window after this one.
    pub(super) fn following(&self) -> Option<Self> {
        let next = self.range.after(*self.addresses.last()?)?;
        Some(Self::at(self.range, next, (2 * self.addresses.len()).min(WINDOWS.1)))
    }

    fn at(range: &'a FreeRange<L>, first: L::Address, size: usize) -> Self {
        let addresses = iter::successors(Some(first), |&address| range.after(address)).take(size).collect();
        Self { range, addresses }
    }

    /// Returns the statement that selects the occupied addresses, by the primary key.
    pub(super) fn occupied(&self, dialect: &(impl Dialect + ?Sized), now: i64) -> Statement<'static> {
        let mut builder = Builder::new(dialect, format!("SELECT address FROM {} AS l", table(L::FAMILY)));
        // A window at the end of the range repeats its last address, so that there are few different
        // statements.
        let size = self.addresses.len().next_power_of_two().max(WINDOWS.0);
        let last = self.addresses.last().copied();
        builder.addresses(self.addresses.iter().copied().chain(last.into_iter().cycle()).take(size));
        occupied(&mut builder, "l", now);
        builder.end()
    }

    /// Returns the lowest address that is not among those that are occupied.
    pub(super) fn lowest_gap(&self, occupied: &HashSet<IpAddr>) -> Option<L::Address> {
        self.addresses.iter().copied().find(|&address| !occupied.contains(&address.into()))
    }
}

/// Appends the condition that the lease of a row has not ended and is not reclaimed.
fn occupied<D: Dialect + ?Sized>(builder: &mut Builder<'_, '_, D>, row: &str, now: i64) {
    let (reclaimed, infinite) = (LeaseState::EXPIRED_RECLAIMED.0, u32::MAX);
    builder.fixed(&format!("({row}.state <> {reclaimed} OR {row}.state IS NULL)"));
    builder.fixed(&format!("({row}.valid_lifetime = {infinite} OR {row}.expire IS NULL OR {row}.expire > "));
    builder.value(Kind::Time, Value::Time(now));
    builder.text(")");
}

/// Returns any address of a range, or `None` if it has none.
pub(super) fn any_of<L: ManagedLease>(range: &FreeRange<L>) -> Option<L::Address> {
    let first = range.from(range.first())?;
    let steps = (L::bits_of(range.last()) - L::bits_of(first)) / range.step();
    let half = || u128::from(RandomState::new().hash_one(steps));
    let number = (half() << 64) | half();
    let number = steps.checked_add(1).map_or(number, |count| number % count);
    let start = L::bits_of(first) + number * range.step();
    range.from(L::address_of_bits(start)).or(Some(first))
}
