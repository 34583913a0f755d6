//! The last row of each address in a journal: where it stands, not what it says.

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
    /// Where the row stands, and what is to be done with it.
    pub(super) fn place(&self) -> Place {
        self.place
    }
}

/// Position (43 bits), length (17 bits) and [`Way`] (4 bits) of a row, in 8 bytes: two halves, so that an entry of
/// a DHCPv4 row takes 12 bytes and not 16.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Place {
    high: u32,
    low: u32,
}

/// What is to be done with a row.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Way {
    /// It is copied, and this comes after it.
    Copy(Tail),
    /// It must be written in another way than it stands in the file.
    Convert,
    /// It deletes the lease.
    Delete,
}

impl Way {
    const DELETE: u8 = (1 << Place::WAY_BITS) - 1;

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
    const LONG: usize = (1 << Self::LEN_BITS) - 1;
    const WAY_BITS: u32 = 4;

    fn new(position: u64, len: usize, way: Way) -> Self {
        let len = len.min(Self::LONG) as u64;
        let bits = (position << Self::LEN_BITS | len) << Self::WAY_BITS | u64::from(way.number());
        #[expect(clippy::cast_possible_truncation, reason = "the halves are taken apart")]
        Self { high: (bits >> 32) as u32, low: bits as u32 }
    }

    fn bits(self) -> u64 {
        u64::from(self.high) << 32 | u64::from(self.low)
    }

    /// Where the row starts in the file.
    pub(super) fn position(self) -> u64 {
        self.bits() >> (Self::LEN_BITS + Self::WAY_BITS)
    }

    fn len(self) -> usize {
        (self.bits() >> Self::WAY_BITS) as usize & Self::LONG
    }

    fn way_number(self) -> u8 {
        self.low.to_le_bytes()[0] & Way::DELETE
    }

    /// What is to be done with it.
    pub(super) fn way(self) -> Way {
        match (self.way_number(), Tail::of_number(self.way_number())) {
            (Way::DELETE, _) => Way::Delete,
            (_, Some(tail)) => Way::Copy(tail),
            (_, None) => Way::Convert,
        }
    }

    /// Whether the row deletes the lease.
    pub(super) fn deletes(self) -> bool {
        self.way_number() == Way::DELETE
    }
}

/// What is known of a part of a journal.
#[derive(Debug)]
pub(super) struct Part<K> {
    /// The last row of each address, in address order.
    pub(super) entries: Vec<Entry<K>>,
    /// The lengths of rows whose length is beyond what a [`Place`] can tell, by position.
    long: HashMap<u64, usize>,
    /// What reading met with.
    pub(super) tally: Tally,
}

impl<K> Part<K> {
    /// How many bytes the row will have, with its newline; none if it deletes the lease.
    pub(super) fn written_len(&self, place: Place) -> usize {
        match place.len() {
            _ if place.deletes() => 0,
            Place::LONG => self.long.get(&place.position()).copied().unwrap_or(Place::LONG),
            len => len,
        }
    }
}

/// Maximum number of rows that are logged one by one.
const MAX_LOGGED: usize = FirstOfMany::LOGGED as usize;

/// What reading rows met with.
#[derive(Debug, Default)]
pub(super) struct Tally {
    /// Lines, also empty ones.
    pub(super) lines: u64,
    /// Good rows, also those that delete a lease.
    pub(super) leases: u64,
    /// Number of invalid rows.
    pub(super) invalid_rows: u64,
    /// Invalid rows, no more than one beyond the limit, with lines counted from the start of the part.
    invalid: Vec<InvalidRow>,
    /// Number of hardware addresses that were left out.
    dropped_count: u64,
    /// The first [`MAX_LOGGED`] of them, with lines counted the same way.
    dropped: Vec<RowError>,
}

impl Tally {
    /// Counts an invalid row; `false` where that is one too many.
    pub(super) fn bad(&mut self, row: InvalidRow, limit: u64) -> bool {
        self.invalid_rows += 1;
        if self.invalid_rows <= limit.saturating_add(1) {
            self.invalid.push(row);
        }
        self.invalid_rows <= limit
    }

    /// Notes what was left out of a good row.
    pub(super) fn dropped(&mut self, error: RowError) {
        self.dropped_count += 1;
        if self.dropped.len() < MAX_LOGGED {
            self.dropped.push(error);
        }
    }

    /// Adds what reading the rows after those counted so far met with.
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

    /// Fails if there are more invalid rows than allowed.
    pub(super) fn check_limit<L: FileLease>(&self, source: &Source, limit: u64) -> Result<(), LfcError> {
        if self.invalid_rows <= limit {
            return Ok(());
        }
        let last = self.invalid.last().ok_or_else(|| source.changed())?;
        let (path, last) = (source.path().to_owned(), source.error_of::<L>(*last)?);
        Err(LeaseFileError::TooManyInvalidRows { path, limit, last }.into())
    }

    /// Fails if no row of the whole file can be read, so that it is another file than it is taken for.
    pub(super) fn check_any<L: FileLease>(&self, source: &Source) -> Result<(), LfcError> {
        /// Fewer may be what a crash has left.
        const ROWS: u64 = 3;
        match self.invalid.first() {
            Some(first) if self.leases == 0 && self.invalid_rows >= ROWS => {
                let (path, first) = (source.path().to_owned(), Box::new(source.error_of::<L>(*first)?));
                Err(LfcError::NoValidRow { path, rows: self.invalid_rows, first })
            }
            _ => Ok(()),
        }
    }

    /// Logs what is wrong with rows: the first of them, and how many more there are.
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

    /// Counts a line that is longer than any row.
    pub(super) fn overlong(&mut self, position: u64, limit: u64) -> bool {
        self.lines += 1;
        self.bad(InvalidRow { line: self.lines, position }, limit)
    }

    /// The invalid rows, which are all there were unless there were more than allowed.
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
    /// What a row is at least thought to take, to have room for the entries.
    const ROW: u64 = 80;
    let mut entries = Vec::with_capacity(usize::try_from((to - from) / ROW).unwrap_or(0));
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
            let (key, deletes, start, len, way) = match row {
                Row::Canonical { row: Canonical { key, deletes, end, tail }, start } => {
                    (key, deletes, start, end - start + tail.text().len(), Way::Copy(tail))
                }
                Row::Converted { key, deletes, start, row, dropped } => {
                    if let Some(dropped) = dropped {
                        tally.dropped(dropped);
                    }
                    (key, deletes, start, row.len(), Way::Convert)
                }
                Row::Invalid { start, line } => {
                    let position = window.position + start as u64;
                    within_limit = tally.bad(InvalidRow { line, position }, limit);
                    return within_limit;
                }
            };
            let position = window.position + start as u64;
            if len >= Place::LONG {
                long.insert(position, len);
            }
            let first = *first_key.get_or_insert(key);
            for (n, byte) in differing[..L::AddressKey::BYTES].iter_mut().enumerate() {
                *byte |= key.byte(n) ^ first.byte(n);
            }
            let place = Place::new(position, len, if deletes { Way::Delete } else { way });
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

/// The last entry of each address, in address order.
///
/// A radix sort keeps entries of one address in their order, so the last of them is the newest. Bytes
/// that are the same in all addresses (`differing` is 0) need no pass.
fn last_of_each<K: AddressKey>(mut entries: Vec<Entry<K>>, differing: &[u8]) -> Vec<Entry<K>> {
    /// Below this, sorting by comparison is faster.
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
    // Of entries with the same key, `dedup` keeps the first: so it is made the last.
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
    fn an_entry_is_small_and_keeps_what_it_was_given() {
        assert_eq!(size_of::<Entry<u32>>(), 12);
        assert_eq!(size_of::<Entry<(u64, u64)>>(), 24);
        let tails = (0..Tail::COUNT).filter_map(Tail::of_number).map(Way::Copy);
        for way in tails.chain([Way::Convert, Way::Delete]) {
            for (position, len) in [(0, 0), (1, 90), ((1 << 43) - 1, Place::LONG - 1)] {
                let place = Place::new(position, len, way);
                assert_eq!((place.position(), place.len(), place.way()), (position, len, way));
                assert_eq!(place.deletes(), way == Way::Delete);
            }
        }
        assert_eq!(Place::new(0, usize::MAX, Way::Convert).len(), Place::LONG);
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
                entries.push(Entry { key, place: Place::new(i as u64, 1, Way::Convert) });
                expected.insert(key, i as u64);
            }
            let last: Vec<_> =
                last_of_each(entries, &differing).iter().map(|e| (e.key, e.place.position())).collect();
            assert_eq!(last, expected.into_iter().collect::<Vec<_>>());
        }
    }
}
