//! Merging a part of the previous file with the rows of the journal.

use std::ops::Range;

use super::cut::Piece;
use super::group::Group;
use super::{Merged, Stop};
use crate::lease_file::canonical::{Canonical, Tail};
use crate::lease_file::row::FileLease;
use crate::lease_file::scan::{Row, Scanner};
use crate::lfc::Control;
use crate::lfc::index::Part;
use crate::lfc::source::{InvalidRow, Source};
use crate::lfc::window::Windows;

/// The newest row of each address of a piece in the journal, in address order.
pub(super) struct Cursor<'a, K> {
    parts: Vec<CursorPart<'a, K>>,
}

struct CursorPart<'a, K> {
    part: &'a Part<K>,
    entries: Range<usize>,
    rows: &'a [u8],
}

impl<'a, K: Copy + Ord> Cursor<'a, K> {
    pub(super) fn new<L: FileLease<AddressKey = K>>(
        group: &'a Group<'a, L>,
        piece: &Piece<K>,
        starts: &[usize],
    ) -> Self {
        let parts = group.journal.iter().enumerate().map(|(n, part)| CursorPart {
            part: &part.part,
            entries: piece.entries[n].clone(),
            rows: &group.fetched[n][starts[n]..starts[n] + piece.bytes[n]],
        });
        Self { parts: parts.collect() }
    }

    fn next_key(&self) -> Option<K> {
        self.parts.iter().filter_map(CursorPart::key).min()
    }

    /// Takes the rows of this address, which is the next one. Returns the newest, which is empty if
    /// it deletes the lease.
    fn take(&mut self, key: K) -> &'a [u8] {
        let mut newest: &[u8] = &[];
        for part in &mut self.parts {
            if part.key() == Some(key) {
                newest = part.take();
            }
        }
        newest
    }
}

impl<'a, K: Copy> CursorPart<'a, K> {
    fn key(&self) -> Option<K> {
        (!self.entries.is_empty()).then(|| self.part.entries[self.entries.start].key)
    }

    fn take(&mut self) -> &'a [u8] {
        let place = self.part.entries[self.entries.start].place();
        self.entries.start += 1;
        let (row, rest) = self.rows.split_at(self.part.written_len(place));
        self.rows = rest;
        row
    }
}

/// Merges pieces. Reuses its memory for all pieces.
#[derive(Default)]
pub(super) struct Merger {
    scanner: Scanner,
    buffer: Vec<u8>,
}

impl Merger {
    /// Appends the rows of a piece to `out`.
    pub(super) fn merge_piece<L: FileLease>(
        &mut self,
        previous: Option<&Source>,
        piece: &Piece<L::AddressKey>,
        mut cursor: Cursor<'_, L::AddressKey>,
        out: &mut Vec<u8>,
        control: &Control<'_>,
    ) -> Result<Merged, Stop> {
        let mut merged = Merged::default();
        let mut next = cursor.next_key();
        if let Some(source) = previous.filter(|_| !piece.previous.is_empty()) {
            let limit = control.max_invalid_rows;
            let Range { start, end } = piece.previous.clone();
            let mut windows = Windows::new(
                source.file.as_ref(),
                source.first,
                start,
                end,
                std::mem::take(&mut self.buffer),
            );
            let mut last: Option<L::AddressKey> = None;
            let mut in_order = true;
            let mut within_limit = true;
            while let Some(window) = windows.next().map_err(|error| source.unreadable(error))? {
                if window.overlong {
                    merged.previous.overlong(window.position, limit);
                    continue;
                }
                let tally = &mut merged.previous;
                let written = &mut merged.written;
                // Consecutive rows that are kept, to be copied at once.
                let mut run = 0..0;
                let mut lines = tally.lines;
                self.scanner.scan::<L>(window.text, window.len, &source.header, &mut lines, |row| {
                    let (key, deletes) = match &row {
                        Row::Canonical { row: Canonical { key, deletes, .. }, .. }
                        | Row::Converted { key, deletes, .. } => (*key, *deletes),
                        Row::Invalid { start, line } => {
                            let position = window.position + *start as u64;
                            within_limit = tally.count_invalid(InvalidRow { line: *line, position }, limit);
                            return within_limit;
                        }
                    };
                    tally.leases += 1;
                    if last.is_some_and(|last| last >= key) || piece.below.is_some_and(|below| key >= below) {
                        in_order = false;
                        return false;
                    }
                    last = Some(key);
                    while let Some(of_journal) = next.filter(|&of_journal| of_journal < key) {
                        out.extend_from_slice(&window.text[std::mem::take(&mut run)]);
                        *written += take_row(&mut cursor, of_journal, out);
                        next = cursor.next_key();
                    }
                    if next == Some(key) {
                        out.extend_from_slice(&window.text[std::mem::take(&mut run)]);
                        *written += take_row(&mut cursor, key, out);
                        next = cursor.next_key();
                        return true;
                    }
                    if deletes {
                        return true;
                    }
                    *written += 1;
                    match row {
                        Row::Canonical { row: Canonical { end, tail, .. }, start } => {
                            if run.end != start || run.is_empty() {
                                out.extend_from_slice(
                                    &window.text[std::mem::replace(&mut run, start..start)],
                                );
                            }
                            if tail == Tail::NEWLINE {
                                run.end = end + 1;
                            } else {
                                run.end = end;
                                out.extend_from_slice(&window.text[std::mem::take(&mut run)]);
                                out.extend_from_slice(tail.text());
                            }
                        }
                        Row::Converted { row, dropped, .. } => {
                            out.extend_from_slice(&window.text[std::mem::take(&mut run)]);
                            out.extend_from_slice(row);
                            if let Some(dropped) = dropped {
                                tally.dropped(dropped);
                            }
                        }
                        Row::Invalid { .. } => {}
                    }
                    true
                });
                out.extend_from_slice(&window.text[run]);
                tally.lines = lines;
                control.advance(window.len as u64)?;
                if !in_order {
                    return Err(Stop::OutOfOrder);
                }
                if !within_limit {
                    break;
                }
            }
            self.buffer = windows.into_buffer();
        }
        while let Some(key) = next {
            merged.written += take_row(&mut cursor, key, out);
            next = cursor.next_key();
        }
        control.check()?;
        Ok(merged)
    }
}

/// Appends the newest row of an address. Returns the number of leases, 0 or 1.
fn take_row<K: Copy + Ord>(cursor: &mut Cursor<'_, K>, key: K, out: &mut Vec<u8>) -> u64 {
    let row = cursor.take(key);
    out.extend_from_slice(row);
    u64::from(!row.is_empty())
}
