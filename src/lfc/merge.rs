//! The rows of the previous file, with the newest rows of the journal merged in, in address order.
//!
//! The previous file is cut into pieces of a window each. What falls to a piece of the
//! journal's rows is known from the index, so pieces are merged independently of each other, on all
//! processors, and written in their order. The rows of the journal stand anywhere in its file:
//! those of many pieces are fetched together, in the order of the file, into one stretch of memory
//! for each part of the journal.

use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Condvar, Mutex, PoisonError};

use super::index::{Entry, Part, Place, Tally, Way};
use super::output::Output;
use super::source::{InvalidRow, Source};
use super::window::{WINDOW, Windows};
use super::{Control, LfcError};
use crate::fs::read_full;
use crate::lease_file::canonical::{Canonical, Tail};
use crate::lease_file::row::FileLease;
use crate::lease_file::scan::{Row, Scanner};
use crate::parallel::in_parallel;

/// The newest rows of a part of a journal, and the file that they are in.
pub(super) struct JournalPart<'a, K> {
    pub(super) source: &'a Source,
    pub(super) part: Part<K>,
}

/// Why merging ended early.
#[derive(Debug)]
pub(super) enum Stop {
    /// The previous file is not in address order, or an address stands twice in it.
    OutOfOrder,
    /// Something went wrong.
    Error(LfcError),
}

impl From<LfcError> for Stop {
    fn from(error: LfcError) -> Self {
        Self::Error(error)
    }
}

/// Some consecutive addresses: what holds them in the previous file and in the parts of the journal.
#[derive(Debug)]
struct Piece<K> {
    /// The part of the previous file whose rows have the addresses.
    previous: Range<u64>,
    /// The first address of the next piece.
    below: Option<K>,
    /// For each part of the journal, the entries with the addresses.
    entries: Vec<Range<usize>>,
    /// For each part of the journal, how many bytes the rows of the entries have.
    bytes: Vec<usize>,
}

/// What merging gave.
#[derive(Debug, Default)]
pub(super) struct Merged {
    /// What reading the previous file met with.
    pub(super) previous: Tally,
    /// How many leases were written.
    pub(super) written: u64,
}

/// Merges `previous` and the journal, whose parts are in the order of their age, into `output`.
pub(super) fn merge<L: FileLease>(
    previous: Option<&Source>,
    journal: &[JournalPart<'_, L::Key>],
    output: &Output,
    control: &Control<'_>,
) -> Result<Merged, Stop> {
    let pieces = cut::<L>(previous, journal)?;
    let groups = groups(&pieces);
    let mut fetchers: Vec<Fetcher> = (0..journal.len())
        .map(|n| Fetcher::for_largest(n, groups.iter().map(|group| &pieces[group.clone()])))
        .collect();
    let mut mergers: Vec<Merger> = (0..control.threads).map(|_| Merger::default()).collect();
    let mut merged = Merged::default();
    for group in groups {
        let pieces = &pieces[group];
        in_parallel(journal.iter().zip(&mut fetchers).enumerate(), |(n, (part, fetcher))| {
            let start = pieces.first().map_or(0, |piece| piece.entries[n].start);
            let end = pieces.last().map_or(0, |piece| piece.entries[n].end);
            fetcher.fetch::<L>(part, start..end, control)
        })?;
        let fetched: Vec<&[u8]> = fetchers.iter().map(|fetcher| fetcher.rows.as_slice()).collect();
        let group = Group { previous, journal, pieces, fetched: &fetched };
        merged = merge_group::<L>(&group, &mut mergers, output, control, merged)?;
    }
    Ok(merged)
}

/// Cuts the addresses into pieces.
fn cut<L: FileLease>(
    previous: Option<&Source>,
    journal: &[JournalPart<'_, L::Key>],
) -> Result<Vec<Piece<L::Key>>, Stop> {
    let mut cutter = Cutter::<L> { previous, journal, starts: vec![0; journal.len()], pieces: Vec::new() };
    let (first, len) = previous.map_or((0, 0), |source| (source.first, source.len));
    let mut from = first;
    if let Some(source) = previous {
        let mut last_key: Option<L::Key> = None;
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
) -> Result<Option<L::Key>, LfcError> {
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
    journal: &'a [JournalPart<'a, L::Key>],
    /// For each part of the journal, the first entry that is in no piece yet.
    starts: Vec<usize>,
    pieces: Vec<Piece<L::Key>>,
}

impl<L: FileLease> Cutter<'_, L> {
    /// Makes a piece of this stretch of the previous file, and of what the journal has below an address.
    fn cut(&mut self, range: Range<u64>, below: Option<L::Key>) -> Result<(), Stop> {
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

    fn push(&mut self, previous: Range<u64>, below: Option<L::Key>) {
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
    fn too_large(&self, below: Option<L::Key>) -> Vec<L::Key> {
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
fn rows_of<L: FileLease>(source: &Source, range: Range<u64>) -> Result<Vec<(L::Key, u64)>, Stop> {
    let mut windows = Windows::new(source.file.as_ref(), source.first, range.start, range.end, Vec::new());
    let mut scanner = Scanner::default();
    let mut rows: Vec<(L::Key, u64)> = Vec::new();
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
fn groups<K>(pieces: &[Piece<K>]) -> Vec<Range<usize>> {
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

/// Fetches rows of a part of the journal. Keeps its memory from group to group.
#[derive(Default)]
struct Fetcher {
    /// The rows, in address order.
    rows: Vec<u8>,
    wanted: Vec<Wanted>,
    window: Vec<u8>,
    row: Vec<u8>,
}

/// A row to be fetched.
#[derive(Clone, Copy, Default)]
struct Wanted {
    place: Place,
    /// Where it belongs in [`Fetcher::rows`].
    to: u32,
    len: u32,
}

impl Fetcher {
    /// One with room for what any of these groups takes of part `n` of the journal: growing later would leave
    /// what was outgrown behind.
    fn for_largest<'p, K: 'p>(n: usize, groups: impl Iterator<Item = &'p [Piece<K>]>) -> Self {
        let (mut bytes, mut rows) = (0, 0);
        for pieces in groups {
            bytes = bytes.max(pieces.iter().map(|piece| piece.bytes[n]).sum());
            rows = rows.max(pieces.iter().map(|piece| piece.entries[n].len()).sum());
        }
        Self { rows: vec![0; bytes], wanted: Vec::with_capacity(rows), ..Self::default() }
    }

    /// Fetches the rows of these entries.
    fn fetch<L: FileLease>(
        &mut self,
        part: &JournalPart<'_, L::Key>,
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
                let Way::Copy(tail) = row.place.way() else {
                    convert::<L>(source, row.place, rest, into, &mut self.row)?;
                    continue;
                };
                if let Some((into, after)) = into.split_at_mut_checked(into.len() - tail.text().len()) {
                    after.copy_from_slice(tail.text());
                    match rest.get(..into.len()) {
                        Some(row) => into.copy_from_slice(row),
                        // The row goes on behind the window.
                        None => read_exactly(source, into, row.place.position())?,
                    }
                }
            }
        }
        Ok(())
    }

    /// Notes where rows of these entries belong, in the order of the windows that they start in. Tells how many
    /// bytes they have, unless these are more than 4 GiB.
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

/// The window of the file that a row starts in.
fn window_of(place: Place) -> u64 {
    place.position() / WINDOW as u64
}

/// Writes a row in the way that the writer does. `text` starts with the row, and may end before it does.
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

/// Pieces whose rows of the journal are in memory.
struct Group<'a, L: FileLease> {
    previous: Option<&'a Source>,
    journal: &'a [JournalPart<'a, L::Key>],
    pieces: &'a [Piece<L::Key>],
    /// For each part of the journal, the rows of the pieces, one behind the other.
    fetched: &'a [&'a [u8]],
}

/// What is merged but not written yet, and what came of the pieces that are.
struct Queue {
    /// The piece to be written next.
    next: usize,
    ready: BTreeMap<usize, Result<(Merged, Vec<u8>), Stop>>,
    /// Whether a thread is writing.
    writing: bool,
    /// Memory of rows that were written.
    spare: Vec<Vec<u8>>,
    merged: Merged,
    stop: Option<Stop>,
}

fn merge_group<L: FileLease>(
    group: &Group<'_, L>,
    mergers: &mut [Merger],
    output: &Output,
    control: &Control<'_>,
    merged: Merged,
) -> Result<Merged, Stop> {
    // Where the rows of each piece start in what was fetched.
    let mut starts = vec![0; group.journal.len()];
    let starts: Vec<Vec<usize>> = group
        .pieces
        .iter()
        .map(|piece| {
            let next = starts.iter().zip(&piece.bytes).map(|(start, bytes)| start + bytes).collect();
            std::mem::replace(&mut starts, next)
        })
        .collect();
    let taken = AtomicUsize::new(0);
    let queue =
        Queue { next: 0, ready: BTreeMap::new(), writing: false, spare: Vec::new(), merged, stop: None };
    let queue = Mutex::new(queue);
    let written = Condvar::new();
    let lock = || queue.lock().unwrap_or_else(PoisonError::into_inner);
    // A thread that is ahead goes on, until so many pieces wait for the one before them.
    let ahead = 2 * mergers.len();
    in_parallel(mergers, |merger| -> Result<(), LfcError> {
        let _guard = PanicGuard { queue: &queue, written: &written };
        loop {
            let n = taken.fetch_add(1, Ordering::Relaxed);
            let Some(piece) = group.pieces.get(n) else {
                return Ok(());
            };
            let mut out = lock().spare.pop().unwrap_or_default();
            out.clear();
            let cursor = Cursor::new(group, piece, &starts[n]);
            let result = merger.merge_piece::<L>(group.previous, piece, cursor, &mut out, control);
            let mut queue = lock();
            while queue.ready.len() >= ahead && queue.next != n && queue.stop.is_none() {
                queue = written.wait(queue).unwrap_or_else(PoisonError::into_inner);
            }
            queue.ready.insert(n, result.map(|merged| (merged, out)));
            if queue.writing {
                // That thread writes this piece too when its turn comes.
                continue;
            }
            queue.writing = true;
            while queue.stop.is_none() {
                let next = queue.next;
                let Some(result) = queue.ready.remove(&next) else {
                    break;
                };
                let added = result.and_then(|(merged, out)| {
                    queue.merged.add::<L>(merged, group.previous, control)?;
                    Ok(out)
                });
                match added {
                    Ok(out) => {
                        drop(queue);
                        let appended = output.append(&out);
                        queue = lock();
                        queue.spare.push(out);
                        if let Err(error) = appended {
                            queue.stop = Some(Stop::Error(error));
                        }
                    }
                    Err(stop) => queue.stop = Some(stop),
                }
                queue.next += 1;
                written.notify_all();
            }
            queue.writing = false;
            if queue.stop.is_some() {
                return Ok(());
            }
        }
    })?;
    let queue = queue.into_inner().unwrap_or_else(PoisonError::into_inner);
    queue.stop.map_or(Ok(queue.merged), Err)
}

/// Ends the work of all threads when one panics: they would wait for its piece.
struct PanicGuard<'a> {
    queue: &'a Mutex<Queue>,
    written: &'a Condvar,
}

impl Drop for PanicGuard<'_> {
    fn drop(&mut self) {
        if std::thread::panicking() {
            let mut queue = self.queue.lock().unwrap_or_else(PoisonError::into_inner);
            queue.stop = Some(Stop::Error(LfcError::Panicked));
            self.written.notify_all();
        }
    }
}

impl Merged {
    /// Adds what the next piece gave.
    fn add<L: FileLease>(
        &mut self,
        piece: Merged,
        previous: Option<&Source>,
        control: &Control<'_>,
    ) -> Result<(), LfcError> {
        self.written += piece.written;
        self.previous.add(piece.previous, control.max_bad_rows);
        let Some(source) = previous else {
            return Ok(());
        };
        self.previous.check_limit::<L>(source, control.max_bad_rows).or_else(|error| {
            self.previous.report::<L>(source)?;
            Err(error)
        })
    }
}

/// The rows of the journal in a piece, in address order, the newest of each address.
struct Cursor<'a, K> {
    parts: Vec<CursorPart<'a, K>>,
}

struct CursorPart<'a, K> {
    part: &'a Part<K>,
    entries: Range<usize>,
    rows: &'a [u8],
}

impl<'a, K: Copy + Ord> Cursor<'a, K> {
    fn new<L: FileLease<Key = K>>(group: &'a Group<'a, L>, piece: &Piece<K>, starts: &[usize]) -> Self {
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

    /// Takes the rows of this address, which is the next one, and gives the newest; an empty one deletes.
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

/// Merges pieces. Keeps its memory from piece to piece.
#[derive(Default)]
struct Merger {
    scanner: Scanner,
    buffer: Vec<u8>,
}

impl Merger {
    /// Appends the rows of a piece to `out`.
    fn merge_piece<L: FileLease>(
        &mut self,
        previous: Option<&Source>,
        piece: &Piece<L::Key>,
        mut cursor: Cursor<'_, L::Key>,
        out: &mut Vec<u8>,
        control: &Control<'_>,
    ) -> Result<Merged, Stop> {
        let mut merged = Merged::default();
        let mut next = cursor.next_key();
        if let Some(source) = previous.filter(|_| !piece.previous.is_empty()) {
            let limit = control.max_bad_rows;
            let Range { start, end } = piece.previous.clone();
            let mut windows = Windows::new(
                source.file.as_ref(),
                source.first,
                start,
                end,
                std::mem::take(&mut self.buffer),
            );
            let mut last: Option<L::Key> = None;
            let mut in_order = true;
            let mut within_limit = true;
            while let Some(window) = windows.next().map_err(|error| source.unreadable(error))? {
                if window.overlong {
                    merged.previous.overlong(window.position, limit);
                    continue;
                }
                let tally = &mut merged.previous;
                let written = &mut merged.written;
                // Rows that stand one behind the other and are kept, to be copied at once.
                let mut run = 0..0;
                let mut lines = tally.lines;
                self.scanner.scan::<L>(window.text, window.len, &source.header, &mut lines, |row| {
                    let (key, deletes) = match &row {
                        Row::Canonical { row: Canonical { key, deletes, .. }, .. }
                        | Row::Converted { key, deletes, .. } => (*key, *deletes),
                        Row::Bad { start, line } => {
                            let position = window.position + *start as u64;
                            within_limit = tally.bad(InvalidRow { line: *line, position }, limit);
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
                        Row::Bad { .. } => {}
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

/// Appends the newest row of an address, and tells how many leases that are, 0 or 1.
fn take_row<K: Copy + Ord>(cursor: &mut Cursor<'_, K>, key: K, out: &mut Vec<u8>) -> u64 {
    let row = cursor.take(key);
    out.extend_from_slice(row);
    u64::from(!row.is_empty())
}
