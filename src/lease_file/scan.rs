//! Rows of a window of text, one after the other, each in the cheapest way that is right.

use super::canonical::{PADDING, RowText, separator_mask};
use super::error::{RowError, RowProblem};
use super::row::FileLease;
use super::schema::Header;

/// What stands behind the text of a window, so that whole blocks can be looked at.
pub(crate) const WINDOW_PADDING: usize = 64;
const _: () = assert!(WINDOW_PADDING >= PADDING);

/// A row of a window.
pub(crate) enum Row<'a, K> {
    /// A row that the writer would write just so.
    Canonical {
        /// Its address.
        key: K,
        /// Whether it deletes the lease.
        deletes: bool,
        /// Where its text starts in the window.
        start: usize,
        /// Where its text ends, at its newline.
        end: usize,
    },
    /// A good row that the writer would write in another way.
    Converted {
        /// Its address.
        key: K,
        /// Whether it deletes the lease.
        deletes: bool,
        /// Where its text starts in the window.
        start: usize,
        /// The row that the writer writes, with its newline.
        row: &'a [u8],
        /// A hardware address that was left out.
        dropped: Option<RowError>,
    },
    /// A row that is no lease.
    Bad(RowError),
}

/// Finds and checks the rows of windows. Keeps its memory from window to window.
#[derive(Default)]
pub(crate) struct Scanner {
    separators: Vec<u32>,
    row: Vec<u8>,
}

impl Scanner {
    /// Gives every row of `window[..len]` to `each`, in order, until it returns `false`.
    ///
    /// The text ends with a newline; [`WINDOW_PADDING`] bytes follow it. `lines` is the number of lines
    /// before it, counted on.
    pub(crate) fn scan<L: FileLease>(
        &mut self,
        window: &[u8],
        len: usize,
        header: &Header,
        lines: &mut u64,
        mut each: impl FnMut(Row<'_, L::Key>) -> bool,
    ) {
        let columns = L::SCHEMA.columns.len();
        let count = find_separators(window, len, &mut self.separators);
        let mut start = 0;
        let mut at = 0;
        while start < len {
            *lines += 1;
            if let Some(ends) = self.separators[..count].get(at..at + columns) {
                let row = RowText { text: window, start, ends };
                if let Some((key, deletes)) = L::canonical(&row) {
                    let end = ends[columns - 1] as usize;
                    at += columns;
                    if !each(Row::Canonical { key, deletes, start, end }) {
                        return;
                    }
                    start = end + 1;
                    continue;
                }
            }
            let rest = &self.separators[at.min(count)..count];
            let Some(newline) = rest.iter().position(|&i| window[i as usize] == b'\n') else {
                return;
            };
            let end = rest[newline] as usize;
            at += newline + 1;
            if end > start && !self.slow_row::<L>(&window[start..end], start, header, *lines, &mut each) {
                return;
            }
            start = end + 1;
        }
    }

    #[cold]
    #[inline(never)]
    fn slow_row<L: FileLease>(
        &mut self,
        text: &[u8],
        start: usize,
        header: &Header,
        line: u64,
        each: &mut impl FnMut(Row<'_, L::Key>) -> bool,
    ) -> bool {
        let located = |problem: RowProblem| RowError { line, problem };
        match L::parse_row(text, header) {
            Ok(parsed) => {
                self.row.clear();
                parsed.lease.write_row(&mut self.row);
                let key = parsed.lease.key();
                let deletes = parsed.deletes();
                let dropped = parsed.dropped.map(located);
                each(Row::Converted { key, deletes, start, row: &self.row, dropped })
            }
            Err(problem) => each(Row::Bad(located(problem))),
        }
    }
}

/// Puts the places of all commas and newlines of `window[..len]` into the front of `found`, and
/// tells how many they are.
fn find_separators(window: &[u8], len: usize, found: &mut Vec<u32>) -> usize {
    // Eight places are written at once, and the next ones over those that were too many.
    const STEP: usize = 8;
    let mut count = 0;
    let (blocks, _) = window[..len.next_multiple_of(64)].as_chunks::<64>();
    for (i, block) in blocks.iter().enumerate() {
        let base = i * 64;
        let mut mask = separator_mask(block);
        if base + 64 > len {
            mask &= u64::MAX >> (base + 64 - len);
        }
        if found.len() < count + 64 + STEP {
            found.resize((count + 64 + STEP) * 2, 0);
        }
        let total = mask.count_ones() as usize;
        let mut written = 0;
        while written < total {
            if let Some(places) = found[count + written..].first_chunk_mut::<STEP>() {
                for place in places {
                    // Windows are far smaller than 4 GiB.
                    *place = u32::try_from(base).unwrap_or(u32::MAX) + (mask.trailing_zeros() & 63);
                    mask &= mask.wrapping_sub(1);
                }
            }
            written += STEP;
        }
        count += total;
    }
    count
}
