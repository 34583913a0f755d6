//! Merging pieces on several threads, and writing them in order.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Condvar, Mutex, PoisonError};

use super::cut::Piece;
use super::piece::{Cursor, Merger};
use super::{JournalPart, Merged, Stop};
use crate::lease_file::row::FileLease;
use crate::lfc::output::Output;
use crate::lfc::source::Source;
use crate::lfc::{Control, LfcError};
use crate::parallel::in_parallel;

/// Pieces whose rows of the journal are in memory.
pub(super) struct Group<'a, L: FileLease> {
    pub(super) previous: Option<&'a Source>,
    pub(super) journal: &'a [JournalPart<'a, L::AddressKey>],
    pub(super) pieces: &'a [Piece<L::AddressKey>],
    /// For each part of the journal, the rows of the pieces, concatenated.
    pub(super) fetched: &'a [&'a [u8]],
}

/// Merged pieces that are not written yet, and the result of those that are.
struct WriteQueue {
    /// The next piece to be written.
    next: usize,
    ready: BTreeMap<usize, Result<(Merged, Vec<u8>), Stop>>,
    /// Whether a thread is writing.
    writing: bool,
    /// Buffers for reuse.
    spare: Vec<Vec<u8>>,
    merged: Merged,
    stop: Option<Stop>,
}

/// Merges the pieces of a group, with one merger on each thread, and writes them.
pub(super) fn merge_group<L: FileLease>(
    group: &Group<'_, L>,
    mergers: &mut [Merger],
    output: &Output,
    control: &Control<'_>,
    merged: Merged,
) -> Result<Merged, Stop> {
    // The start of the rows of each piece in the fetched rows.
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
        WriteQueue { next: 0, ready: BTreeMap::new(), writing: false, spare: Vec::new(), merged, stop: None };
    let queue = Mutex::new(queue);
    let written = Condvar::new();
    let lock = || queue.lock().unwrap_or_else(PoisonError::into_inner);
    // Maximum number of merged pieces that wait for an earlier one.
    let max_ready = 2 * mergers.len();
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
            while queue.ready.len() >= max_ready && queue.next != n && queue.stop.is_none() {
                queue = written.wait(queue).unwrap_or_else(PoisonError::into_inner);
            }
            queue.ready.insert(n, result.map(|merged| (merged, out)));
            if queue.writing {
                // The writing thread also writes this piece in its turn.
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

/// Stops all threads if one panics, as they would wait for its piece.
struct PanicGuard<'a> {
    queue: &'a Mutex<WriteQueue>,
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
