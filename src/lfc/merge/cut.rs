//! Cutting the addresses into pieces that are merged independently of each other.

use std::ops::Range;

use super::{JournalPart, Stop};
use crate::lease_file::canonical::Canonical;
use crate::lease_file::row::FileLease;
use crate::lease_file::scan::{Row, Scanner};
use crate::lfc::LfcError;
use crate::lfc::index::Entry;
use crate::lfc::source::Source;
use crate::lfc::window::{WINDOW, Windows};

/// Some consecutive addresses: what holds them in the previous file and in the parts of the journal.
#[derive(Debug)]
pub(super) struct Piece<K> {
    /// The part of the previous file whose rows have the addresses.
    pub(super) previous: Range<u64>,
    /// The first address of the next piece.
    pub(super) below: Option<K>,
    /// For each part of the journal, the entries with the addresses.
    pub(super) entries: Vec<Range<usize>>,
    /// For each part of the journal, how many bytes the rows of the entries have.
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
            // A stretch without any good row belongs to the piece before it.
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

/// The key of the first good row that starts in `from..to`.
fn first_key<L: FileLease>(
    source: &Source,
    from: u64,
    to: u64,
    buffer: &mut Vec<u8>,
) -> Result<Option<L::AddressKey>, LfcError> {
    /// Some rows: nearly always, the first of them is good.
    const GLANCE: usize = 2048;
    let windows = Windows::new(source.file.as_ref(), source.first, from, to, std::mem::take(buffer));
    let mut windows = windows.with_window(GLANCE);
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

/// Makes pieces, one behind the other.
struct Cutter<'a, L: FileLease> {
    previous: Option<&'a Source>,
    journal: &'a [JournalPart<'a, L::AddressKey>],
    /// For each part of the journal, the first entry that is in no piece yet.
    starts: Vec<usize>,
    pieces: Vec<Piece<L::AddressKey>>,
}

impl<L: FileLease> Cutter<'_, L> {
    /// Makes a piece of this stretch of the previous file, and of what the journal has below an address.
    fn cut(&mut self, range: Range<u64>, below: Option<L::AddressKey>) -> Result<(), Stop> {
        let keys = self.too_large(below);
        let mut from = range.start;
        if !keys.is_empty() {
            // The journal has far more rows here than the previous file, as it has in the beginning.
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

    /// Addresses at which to cut a piece that would take far more of the journal than a piece should.
    fn too_large(&self, below: Option<L::AddressKey>) -> Vec<L::AddressKey> {
        const LARGE: usize = 8 * WINDOW;
        let mut keys = Vec::new();
        for (part, &start) in self.journal.iter().zip(&self.starts) {
            let mut bytes = 0;
            for entry in &part.part.entries[start..end_of(&part.part.entries, below)] {
                bytes += part.part.written_len(entry.place());
                if bytes >= LARGE {
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

/// The end of the entries below an address.
fn end_of<K: Ord>(entries: &[Entry<K>], below: Option<K>) -> usize {
    below.map_or(entries.len(), |key| entries.partition_point(|entry| entry.key < key))
}

/// The good rows of a stretch of the previous file: their keys, and where they start.
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

/// Pieces whose rows of the journal are fetched together: a fourth of the journal at most, or little.
pub(super) fn groups<K>(pieces: &[Piece<K>]) -> Vec<Range<usize>> {
    const LITTLE: usize = 64 * WINDOW;
    const MUCH: usize = 64 * LITTLE;
    let bytes = |piece: &Piece<K>| piece.bytes.iter().sum::<usize>();
    let limit = (pieces.iter().map(bytes).sum::<usize>() / 4).clamp(LITTLE, MUCH);
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
