//! An index of the last row of each address in a journal: its place and length, not its content.

use std::collections::HashMap;

use tracing::{error, warn};

use super::source::{InvalidRow, Source};
use super::window::Windows;
use super::{Control, LfcError};
use crate::first_of_many::FirstOfMany;
use crate::lease_file::canonical::{Canonical, Tail};
use crate::lease_file::row::{AddressKey, FileLease};
use crate::lease_file::scan::{Row, Scanner};
use crate::lease_file::{LeaseFileError, RowError};

/// The last row of an address in a part of a journal.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Entry<K> {
    /// The address.
    pub(super) key: K,
    place: Place,
}

impl<K> Entry<K> {
    /// Returns the place of the row, and the action for it.
    pub(super) fn place(&self) -> Place {
        self.place
    }
}

/// Position (43 bits), length (17 bits) and [`RowAction`] (4 bits) of a row, in 8 bytes: two
/// halves, so that an entry of a DHCPv4 row has 12 bytes and not 16.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Place {
    high: u32,
    low: u32,
}

/// What the cleanup does with a row.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum RowAction {
    /// Copies it, followed by the tail.
    Copy(Tail),
    /// Converts it to the form of the writer.
    Convert,
    /// Deletes the lease.
    Delete,
}

impl RowAction {
    const DELETE: u8 = (1 << Place::ACTION_BITS) - 1;

    fn number(self) -> u8 {
        const { assert!(Tail::COUNT < Self::DELETE) };
        match self {
            Self::Copy(tail) => tail.number(),
            Self::Convert => Tail::COUNT,
            Self::Delete => Self::DELETE,
        }
    }
}

impl Place {
    const LEN_BITS: u32 = 17;
    /// This length or a greater one.
    const MAX_LEN: usize = (1 << Self::LEN_BITS) - 1;
    const ACTION_BITS: u32 = 4;

    fn new(position: u64, len: usize, action: RowAction) -> Self {
        let len = len.min(Self::MAX_LEN) as u64;
        let bits = (position << Self::LEN_BITS | len) << Self::ACTION_BITS | u64::from(action.number());
        #[expect(clippy::cast_possible_truncation, reason = "the halves are taken apart")]
        Self { high: (bits >> 32) as u32, low: bits as u32 }
    }

    fn bits(self) -> u64 {
        u64::from(self.high) << 32 | u64::from(self.low)
    }

    /// Returns the offset of the row in the file.
    pub(super) fn position(self) -> u64 {
        self.bits() >> (Self::LEN_BITS + Self::ACTION_BITS)
    }

    fn len(self) -> usize {
        (self.bits() >> Self::ACTION_BITS) as usize & Self::MAX_LEN
    }

    fn action_number(self) -> u8 {
        self.low.to_le_bytes()[0] & RowAction::DELETE
    }

    /// Returns the action for the row.
    pub(super) fn action(self) -> RowAction {
        match (self.action_number(), Tail::of_number(self.action_number())) {
            (RowAction::DELETE, _) => RowAction::Delete,
            (_, Some(tail)) => RowAction::Copy(tail),
            (_, None) => RowAction::Convert,
        }
    }

    /// Returns whether the row deletes the lease.
    pub(super) fn deletes(self) -> bool {
        self.action_number() == RowAction::DELETE
    }
}

/// The index of a part of a journal.
#[derive(Debug)]
pub(super) struct Part<K> {
    /// The last row of each address, in address order.
    pub(super) entries: Vec<Entry<K>>,
    /// The lengths of rows that are too long for a [`Place`], by position.
    long: HashMap<u64, usize>,
    /// The tally of the rows.
    pub(super) tally: Tally,
}

impl<K> Part<K> {
    /// Returns the number of bytes that are written for the row, with its newline; 0 if it deletes
    /// the lease.
    pub(super) fn written_len(&self, place: Place) -> usize {
        match place.len() {
            _ if place.deletes() => 0,
            Place::MAX_LEN => self.long.get(&place.position()).copied().unwrap_or(Place::MAX_LEN),
            len => len,
        }
    }
}

/// Maximum number of rows that are logged one by one.
const MAX_LOGGED: usize = FirstOfMany::LOGGED as usize;

/// Numbers and errors of the rows that were read.
#[derive(Debug, Default)]
pub(super) struct Tally {
    /// Number of lines, including empty ones.
    pub(super) lines: u64,
    /// Number of valid rows, including those that delete a lease.
    pub(super) leases: u64,
    /// Number of invalid rows.
    pub(super) invalid_rows: u64,
    /// The invalid rows, at most one more than the limit, with lines counted from the start of the
    /// part.
    invalid: Vec<InvalidRow>,
    /// Number of hardware addresses that were left out.
    dropped_count: u64,
    /// The first [`MAX_LOGGED`] errors of these, with lines counted from the start of the part.
    dropped: Vec<RowError>,
}

impl Tally {
    /// Counts an invalid row. Returns `false` if it exceeds the limit.
    pub(super) fn count_invalid(&mut self, row: InvalidRow, limit: u64) -> bool {
        self.invalid_rows += 1;
        if self.invalid_rows <= limit.saturating_add(1) {
            self.invalid.push(row);
        }
        self.invalid_rows <= limit
    }

    /// Counts a hardware address that was left out of a valid row.
    pub(super) fn dropped(&mut self, error: RowError) {
        self.dropped_count += 1;
        if self.dropped.len() < MAX_LOGGED {
            self.dropped.push(error);
        }
    }

    /// Adds the tally of the rows after those counted so far.
    pub(super) fn add(&mut self, next: Self, limit: u64) {
        let after = self.lines;
        let most = usize::try_from(limit.saturating_add(1)).unwrap_or(usize::MAX);
        let room = most.saturating_sub(self.invalid.len());
        let moved = next.invalid.into_iter().map(|row| InvalidRow { line: row.line + after, ..row });
        self.invalid.extend(moved.take(room));
        let room = MAX_LOGGED.saturating_sub(self.dropped.len());
        let moved = next.dropped.into_iter().map(|error| RowError { line: error.line + after, ..error });
        self.dropped.extend(moved.take(room));
        self.dropped_count += next.dropped_count;
        self.lines += next.lines;
        self.leases += next.leases;
        self.invalid_rows += next.invalid_rows;
    }

    /// Returns an error if there are more invalid rows than the limit.
    pub(super) fn check_limit<L: FileLease>(&self, source: &Source, limit: u64) -> Result<(), LfcError> {
        if self.invalid_rows <= limit {
            return Ok(());
        }
        let last = self.invalid.last().ok_or_else(|| source.changed())?;
        let (path, last) = (source.path().to_owned(), source.error_of::<L>(*last)?);
        Err(LeaseFileError::TooManyInvalidRows { path, limit, last }.into())
    }

    /// Returns an error if no row of the whole file is valid, so that it is probably another kind
    /// of file.
    pub(super) fn check_any<L: FileLease>(&self, source: &Source) -> Result<(), LfcError> {
        /// Fewer rows may be left by a crash.
        const MIN_ROWS: u64 = 3;
        match self.invalid.first() {
            Some(first) if self.leases == 0 && self.invalid_rows >= MIN_ROWS => {
                let (path, first) = (source.path().to_owned(), Box::new(source.error_of::<L>(*first)?));
                Err(LfcError::NoValidRow { path, rows: self.invalid_rows, first })
            }
            _ => Ok(()),
        }
    }

    /// Logs the first errors of rows, and the number of the others.
    pub(super) fn report<L: FileLease>(&self, source: &Source) -> Result<(), LfcError> {
        let path = source.path().display();
        for row in self.invalid.iter().take(MAX_LOGGED) {
            let error = source.error_of::<L>(*row)?;
            error!(id = "DHCPSRV_MEMFILE_LEASE_LOAD_ROW_ERROR", "{path}: {error}; the row is left out");
        }
        let more = self.invalid_rows.saturating_sub(MAX_LOGGED as u64);
        if more > 0 {
            error!(id = "DHCPSRV_MEMFILE_MORE_BAD_ROWS", "{path}: {more} more rows are left out");
        }
        for error in &self.dropped {
            let error = source.located(error);
            warn!(id = "DHCPSRV_MEMFILE_READ_HWADDR_FAIL", "{path}: {error}; the lease is kept without it");
        }
        let more = self.dropped_count.saturating_sub(MAX_LOGGED as u64);
        if more > 0 {
            warn!(
                id = "DHCPSRV_MEMFILE_MORE_HWADDR_DROPPED",
                "{path}: {more} more leases are kept without their hardware addresses"
            );
        }
        Ok(())
    }

    /// Counts a line that is longer than the maximum of a row.
    pub(super) fn overlong(&mut self, position: u64, limit: u64) -> bool {
        self.lines += 1;
        self.count_invalid(InvalidRow { line: self.lines, position }, limit)
    }

    /// Returns the invalid rows: all of them unless they exceed the limit.
    pub(super) fn invalid(&self) -> &[InvalidRow] {
        &self.invalid
    }
}

/// Indexes the rows that start in `from..to`.
pub(super) fn index_part<L: FileLease>(
    source: &Source,
    from: u64,
    to: u64,
    control: &Control<'_>,
) -> Result<Part<L::AddressKey>, LfcError> {
    /// The estimated minimum length of a row, for the capacity of the entries.
    const MIN_ROW_LEN: u64 = 80;
    let mut entries = Vec::with_capacity(usize::try_from((to - from) / MIN_ROW_LEN).unwrap_or(0));
    let mut tally = Tally::default();
    let mut windows = Windows::new(source.file.as_ref(), source.first, from, to, Vec::new());
    let mut scanner = Scanner::default();
    let mut long = HashMap::new();
    let mut differing = [0_u8; 16];
    let mut first_key: Option<L::AddressKey> = None;
    let limit = control.max_invalid_rows;
    let mut within_limit = true;
    while let Some(window) = windows.next().map_err(|error| source.unreadable(error))? {
        if window.overlong {
            if !tally.overlong(window.position, limit) {
                break;
            }
            continue;
        }
        let mut lines = tally.lines;
        scanner.scan::<L>(window.text, window.len, &source.header, &mut lines, |row| {
            let (key, deletes, start, len, action) = match row {
                Row::Canonical { row: Canonical { key, deletes, end, tail }, start } => {
                    (key, deletes, start, end - start + tail.text().len(), RowAction::Copy(tail))
                }
                Row::Converted { key, deletes, start, row, dropped } => {
                    if let Some(dropped) = dropped {
                        tally.dropped(dropped);
                    }
                    (key, deletes, start, row.len(), RowAction::Convert)
                }
                Row::Invalid { start, line } => {
                    let position = window.position + start as u64;
                    within_limit = tally.count_invalid(InvalidRow { line, position }, limit);
                    return within_limit;
                }
            };
            let position = window.position + start as u64;
            if len >= Place::MAX_LEN {
                long.insert(position, len);
            }
            let first = *first_key.get_or_insert(key);
            for (n, byte) in differing[..L::AddressKey::BYTES].iter_mut().enumerate() {
                *byte |= key.byte(n) ^ first.byte(n);
            }
            let place = Place::new(position, len, if deletes { RowAction::Delete } else { action });
            entries.push(Entry { key, place });
            tally.leases += 1;
            true
        });
        tally.lines = lines;
        control.advance(window.len as u64)?;
        if !within_limit {
            break;
        }
    }
    let entries = last_of_each(entries, &differing[..L::AddressKey::BYTES]);
    Ok(Part { entries, long, tally })
}

/// Returns the last entry of each address, in address order.
///
/// A radix sort is stable, so the last entry of an address is the newest. Bytes that are the same
/// in all addresses (`differing` is 0) need no pass.
fn last_of_each<K: AddressKey>(mut entries: Vec<Entry<K>>, differing: &[u8]) -> Vec<Entry<K>> {
    /// Number of entries below which sorting by comparison is faster.
    const SMALL: usize = 256;
    if entries.len() < SMALL {
        entries.sort_by_key(|entry| entry.key);
    } else {
        let mut other = vec![Entry::default(); entries.len()];
        for (n, _) in differing.iter().enumerate().filter(|&(_, &byte)| byte != 0) {
            sort_by_byte(&entries, &mut other, n);
            std::mem::swap(&mut entries, &mut other);
        }
    }
    // `dedup_by` keeps the first entry of a key, so the last one is copied into it.
    entries.dedup_by(|next, kept| {
        let same = next.key == kept.key;
        if same {
            kept.place = next.place;
        }
        same
    });
    entries.shrink_to_fit();
    entries
}

fn sort_by_byte<K: AddressKey>(from: &[Entry<K>], to: &mut [Entry<K>], n: usize) {
    let mut places = [0_usize; 256];
    for entry in from {
        places[usize::from(entry.key.byte(n))] += 1;
    }
    let mut before = 0;
    for place in &mut places {
        before += std::mem::replace(place, before);
    }
    for entry in from {
        let place = &mut places[usize::from(entry.key.byte(n))];
        to[*place] = *entry;
        *place += 1;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_entry_is_small_and_stores_position_length_and_action() {
        assert_eq!(size_of::<Entry<u32>>(), 12);
        assert_eq!(size_of::<Entry<(u64, u64)>>(), 24);
        let tails = (0..Tail::COUNT).filter_map(Tail::of_number).map(RowAction::Copy);
        for action in tails.chain([RowAction::Convert, RowAction::Delete]) {
            for (position, len) in [(0, 0), (1, 90), ((1 << 43) - 1, Place::MAX_LEN - 1)] {
                let place = Place::new(position, len, action);
                assert_eq!((place.position(), place.len(), place.action()), (position, len, action));
                assert_eq!(place.deletes(), action == RowAction::Delete);
            }
        }
        assert_eq!(Place::new(0, usize::MAX, RowAction::Convert).len(), Place::MAX_LEN);
    }

    #[test]
    fn the_last_entry_of_each_address_is_kept_in_address_order() {
        for count in [10_u64, 255, 256, 5000] {
            let keys: Vec<(u64, u64)> =
                (0..count).map(|i| (i * 7919 % 13, (i * 104_729 % 977) << 40)).collect();
            let mut differing = [0; 16];
            let mut entries = Vec::new();
            let mut expected = std::collections::BTreeMap::new();
            for (i, &key) in keys.iter().enumerate() {
                for (n, byte) in differing.iter_mut().enumerate() {
                    *byte |= key.byte(n) ^ keys[0].byte(n);
                }
                entries.push(Entry { key, place: Place::new(i as u64, 1, RowAction::Convert) });
                expected.insert(key, i as u64);
            }
            let last: Vec<_> =
                last_of_each(entries, &differing).iter().map(|e| (e.key, e.place.position())).collect();
            assert_eq!(last, expected.into_iter().collect::<Vec<_>>());
        }
    }
}
