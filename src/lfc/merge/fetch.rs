//! Fetching rows of the journal, which are in the order of time, into memory in address order.

use std::ops::Range;

use super::JournalPart;
use super::cut::Piece;
use crate::fs::read_full;
use crate::lease_file::row::FileLease;
use crate::lfc::index::{Entry, Part, Place, RowAction};
use crate::lfc::source::Source;
use crate::lfc::window::{WINDOW, Windows};
use crate::lfc::{Control, LfcError};

/// Fetches rows of a part of the journal. Reuses its memory for all groups.
#[derive(Default)]
pub(super) struct Fetcher {
    /// The rows, in address order.
    pub(super) rows: Vec<u8>,
    wanted: Vec<Wanted>,
    window: Vec<u8>,
    row: Vec<u8>,
}

/// A row to be fetched.
#[derive(Clone, Copy, Default)]
struct Wanted {
    place: Place,
    /// The offset in [`Fetcher::rows`].
    to: u32,
    len: u32,
}

impl Fetcher {
    /// Makes a fetcher with enough memory for any of these groups in part `n` of the journal, as
    /// growing would waste the memory that is outgrown.
    pub(super) fn for_largest<'p, K: 'p>(n: usize, groups: impl Iterator<Item = &'p [Piece<K>]>) -> Self {
        let (mut bytes, mut rows) = (0, 0);
        for pieces in groups {
            bytes = bytes.max(pieces.iter().map(|piece| piece.bytes[n]).sum());
            rows = rows.max(pieces.iter().map(|piece| piece.entries[n].len()).sum());
        }
        Self { rows: vec![0; bytes], wanted: Vec::with_capacity(rows), ..Self::default() }
    }

    /// Fetches the rows of these entries.
    pub(super) fn fetch<L: FileLease>(
        &mut self,
        part: &JournalPart<'_, L::AddressKey>,
        range: Range<usize>,
        control: &Control<'_>,
    ) -> Result<(), LfcError> {
        let source = part.source;
        let bytes = self.sort_by_window(&part.part, range).ok_or(LfcError::TooLarge)?;
        debug_assert!(bytes <= self.rows.len(), "the largest group has room");
        self.window.resize(WINDOW, 0);
        let mut wanted = self.wanted.iter().peekable();
        while let Some(next) = wanted.peek() {
            control.check()?;
            let window = window_of(next.place);
            let start = window * WINDOW as u64;
            let count = read_full(source.file.as_ref(), &mut self.window, start);
            let text = &self.window[..count.map_err(|error| source.unreadable(error))?];
            while let Some(row) = wanted.next_if(|row| window_of(row.place) == window) {
                let from = usize::try_from(row.place.position() - start).unwrap_or(usize::MAX);
                let into = &mut self.rows[row.to as usize..][..row.len as usize];
                let rest = text.get(from..).unwrap_or_default();
                let RowAction::Copy(tail) = row.place.action() else {
                    convert::<L>(source, row.place, rest, into, &mut self.row)?;
                    continue;
                };
                if let Some((into, after)) = into.split_at_mut_checked(into.len() - tail.text().len()) {
                    after.copy_from_slice(tail.text());
                    match rest.get(..into.len()) {
                        Some(row) => into.copy_from_slice(row),
                        // The row extends beyond the window.
                        None => read_exactly(source, into, row.place.position())?,
                    }
                }
            }
        }
        Ok(())
    }

    /// Sorts the rows of these entries by the windows in which they start, with their offsets in
    /// the result. Returns the number of bytes, or `None` if there are more than 4 GiB.
    fn sort_by_window<K>(&mut self, part: &Part<K>, range: Range<usize>) -> Option<usize> {
        let entries = || part.entries[range.clone()].iter().map(Entry::place);
        let rows = || entries().filter(|place| !place.deletes());
        let (first, last) = rows()
            .map(window_of)
            .fold((u64::MAX, 0), |(first, last), window| (first.min(window), last.max(window)));
        let bucket = |place: Place| usize::try_from(window_of(place) - first).unwrap_or(usize::MAX);
        let mut ends = vec![0_usize; usize::try_from(last.saturating_sub(first)).ok()? + 1];
        let mut count = 0;
        for place in rows() {
            ends[bucket(place)] += 1;
            count += 1;
        }
        let mut before = 0;
        for end in &mut ends {
            before += std::mem::replace(end, before);
        }
        self.wanted.clear();
        self.wanted.resize(count, Wanted::default());
        let mut to = 0_u32;
        for place in rows() {
            let end = &mut ends[bucket(place)];
            let len = u32::try_from(part.written_len(place)).ok()?;
            self.wanted[*end] = Wanted { place, to, len };
            *end += 1;
            to = to.checked_add(len)?;
        }
        usize::try_from(to).ok()
    }
}

/// Returns the window of the file in which a row starts.
fn window_of(place: Place) -> u64 {
    place.position() / WINDOW as u64
}

/// Writes a row as the writer does. `text` begins with the row, and may not contain all of it.
fn convert<L: FileLease>(
    source: &Source,
    place: Place,
    text: &[u8],
    into: &mut [u8],
    converted: &mut Vec<u8>,
) -> Result<(), LfcError> {
    let mut longer = Vec::new();
    let line = match memchr::memchr(b'\n', text) {
        Some(newline) => &text[..newline],
        None => {
            let position = place.position();
            let mut windows = Windows::new(source.file.as_ref(), position, position, position + 1, longer);
            let len =
                windows.next().map_err(|error| source.unreadable(error))?.map_or(0, |window| window.len);
            longer = windows.into_buffer();
            &longer[..len.saturating_sub(1)]
        }
    };
    let parsed = L::parse_row(line, &source.header).map_err(|_| source.changed())?;
    converted.clear();
    parsed.lease.write_row(converted);
    if converted.len() != into.len() {
        return Err(source.changed());
    }
    into.copy_from_slice(converted);
    Ok(())
}

fn read_exactly(source: &Source, into: &mut [u8], at: u64) -> Result<(), LfcError> {
    let count = read_full(source.file.as_ref(), into, at).map_err(|error| source.unreadable(error))?;
    if count < into.len() { Err(source.changed()) } else { Ok(()) }
}
