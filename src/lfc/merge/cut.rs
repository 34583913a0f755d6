//! Cutting the addresses into pieces that are merged independently.

use std::ops::Range;

use super::{JournalPart, Stop};
use crate::lease_file::canonical::Canonical;
use crate::lease_file::row::FileLease;
use crate::lease_file::scan::{Row, Scanner};
use crate::lfc::LfcError;
use crate::lfc::index::Entry;
use crate::lfc::source::Source;
use crate::lfc::window::{WINDOW, Windows};

/// Consecutive addresses, with the locations of their rows in the previous file and in the parts of
/// the journal.
#[derive(Debug)]
pub(super) struct Piece<K> {
    /// The part of the previous file whose rows have the addresses.
    pub(super) previous: Range<u64>,
    /// The first address of the next piece.
    pub(super) below: Option<K>,
    /// For each part of the journal, the entries with the addresses.
    pub(super) entries: Vec<Range<usize>>,
    /// For each part of the journal, the number of bytes of the rows of the entries.
    pub(super) bytes: Vec<usize>,
}

/// Cuts the addresses into pieces.
pub(super) fn cut<L: FileLease>(
    previous: Option<&Source>,
    journal: &[JournalPart<'_, L::AddressKey>],
) -> Result<Vec<Piece<L::AddressKey>>, Stop> {
    let mut cutter = Cutter::<L> { previous, journal, starts: vec![0; journal.len()], pieces: Vec::new() };
    let (first, len) = previous.map_or((0, 0), |source| (source.first, source.len));
    let mut from = first;
    if let Some(source) = previous {
        let mut last_key: Option<L::AddressKey> = None;
        let mut buffer = Vec::new();
        let mut at = first + WINDOW as u64;
        while at < len {
            let to = (at + WINDOW as u64).min(len);
            // A range without any valid row belongs to the previous piece.
            if let Some(key) = first_key::<L>(source, at, to, &mut buffer)? {
                if last_key.is_some_and(|last| last >= key) {
                    return Err(Stop::OutOfOrder);
                }
                last_key = Some(key);
                cutter.cut(from..at, Some(key))?;
                from = at;
            }
            at = to;
        }
    }
    cutter.cut(from..len, None)?;
    Ok(cutter.pieces)
}

/// Returns the key of the first valid row that starts in `from..to`.
fn first_key<L: FileLease>(
    source: &Source,
    from: u64,
    to: u64,
    buffer: &mut Vec<u8>,
) -> Result<Option<L::AddressKey>, LfcError> {
    /// Enough for some rows: the first one is nearly always valid.
    const FIRST_WINDOW: usize = 2048;
    let windows = Windows::new(source.file.as_ref(), source.first, from, to, std::mem::take(buffer));
    let mut windows = windows.with_window(FIRST_WINDOW);
    let mut scanner = Scanner::default();
    let mut found = None;
    while found.is_none() {
        let Some(window) = windows.next().map_err(|error| source.unreadable(error))? else {
            break;
        };
        scanner.scan::<L>(window.text, window.len, &source.header, &mut 0, |row| {
            if let Row::Canonical { row: Canonical { key, .. }, .. } | Row::Converted { key, .. } = row {
                found = Some(key);
            }
            found.is_none()
        });
    }
    *buffer = windows.into_buffer();
    Ok(found)
}

/// Makes consecutive pieces.
struct Cutter<'a, L: FileLease> {
    previous: Option<&'a Source>,
    journal: &'a [JournalPart<'a, L::AddressKey>],
    /// For each part of the journal, the first entry that is in no piece yet.
    starts: Vec<usize>,
    pieces: Vec<Piece<L::AddressKey>>,
}

impl<L: FileLease> Cutter<'_, L> {
    /// Makes a piece of this range of the previous file and of the journal's entries below an
    /// address.
    fn cut(&mut self, range: Range<u64>, below: Option<L::AddressKey>) -> Result<(), Stop> {
        let keys = self.too_large(below);
        let mut from = range.start;
        if !keys.is_empty() {
            // The journal has far more rows here than the previous file, as it has at first.
            let rows = match self.previous {
                Some(source) => rows_of::<L>(source, range.clone())?,
                None => Vec::new(),
            };
            for key in keys {
                let row = rows.partition_point(|&(of_row, _)| of_row < key);
                let to = rows.get(row).map_or(range.end, |&(_, position)| position);
                self.push(from..to, Some(key));
                from = to;
            }
        }
        self.push(from..range.end, below);
        Ok(())
    }

    fn push(&mut self, previous: Range<u64>, below: Option<L::AddressKey>) {
        let ends: Vec<usize> = self.journal.iter().map(|part| end_of(&part.part.entries, below)).collect();
        let entries: Vec<_> = self.starts.iter().zip(&ends).map(|(&start, &end)| start..end).collect();
        let bytes = self.journal.iter().zip(&entries).map(|(part, range)| {
            let entries = &part.part.entries[range.clone()];
            entries.iter().map(|entry| part.part.written_len(entry.place())).sum()
        });
        let bytes = bytes.collect();
        self.starts = ends;
        self.pieces.push(Piece { previous, below, entries, bytes });
    }

    /// Returns addresses at which to cut a piece that would take too many bytes of the journal.
    fn too_large(&self, below: Option<L::AddressKey>) -> Vec<L::AddressKey> {
        const MAX_BYTES: usize = 8 * WINDOW;
        let mut keys = Vec::new();
        for (part, &start) in self.journal.iter().zip(&self.starts) {
            let mut bytes = 0;
            for entry in &part.part.entries[start..end_of(&part.part.entries, below)] {
                bytes += part.part.written_len(entry.place());
                if bytes >= MAX_BYTES {
                    keys.push(entry.key);
                    bytes = 0;
                }
            }
        }
        keys.sort_unstable();
        keys.dedup();
        keys
    }
}

/// Returns the end of the entries below an address.
fn end_of<K: Ord>(entries: &[Entry<K>], below: Option<K>) -> usize {
    below.map_or(entries.len(), |key| entries.partition_point(|entry| entry.key < key))
}

/// Returns the keys and the positions of the valid rows in a range of the previous file.
fn rows_of<L: FileLease>(source: &Source, range: Range<u64>) -> Result<Vec<(L::AddressKey, u64)>, Stop> {
    let mut windows = Windows::new(source.file.as_ref(), source.first, range.start, range.end, Vec::new());
    let mut scanner = Scanner::default();
    let mut rows: Vec<(L::AddressKey, u64)> = Vec::new();
    let mut in_order = true;
    while let Some(window) = windows.next().map_err(|error| source.unreadable(error))? {
        scanner.scan::<L>(window.text, window.len, &source.header, &mut 0, |row| {
            if let Row::Canonical { row: Canonical { key, .. }, start } | Row::Converted { key, start, .. } =
                row
            {
                in_order &= rows.last().is_none_or(|&(last, _)| last < key);
                rows.push((key, window.position + start as u64));
            }
            in_order
        });
        if !in_order {
            return Err(Stop::OutOfOrder);
        }
    }
    Ok(rows)
}

/// Groups pieces whose rows of the journal are fetched together: at most a fourth of the journal,
/// within limits.
pub(super) fn groups<K>(pieces: &[Piece<K>]) -> Vec<Range<usize>> {
    const MIN_LIMIT: usize = 64 * WINDOW;
    const MAX_LIMIT: usize = 64 * MIN_LIMIT;
    let bytes = |piece: &Piece<K>| piece.bytes.iter().sum::<usize>();
    let limit = (pieces.iter().map(bytes).sum::<usize>() / 4).clamp(MIN_LIMIT, MAX_LIMIT);
    let mut groups = Vec::new();
    let mut start = 0;
    let mut sum = 0;
    for (i, piece) in pieces.iter().enumerate() {
        let bytes = bytes(piece);
        if i > start && sum + bytes > limit {
            groups.push(start..i);
            start = i;
            sum = 0;
        }
        sum += bytes;
    }
    groups.push(start..pieces.len());
    groups
}
