//! Merging the newest rows of the journal into the rows of the previous file, in address order.
//!
//! The previous file is cut into pieces of a window each. The index determines the rows of the
//! journal that belong to each piece, so pieces are merged independently, on all processors, and
//! written in order. The rows of the journal are in the order of time: those of many pieces are
//! fetched together, in file order, into one buffer for each part of the journal.

mod cut;
mod fetch;
mod group;
mod piece;

use cut::{cut, groups};
use fetch::Fetcher;
use group::{Group, merge_group};
use piece::Merger;

use super::index::{Part, Tally};
use super::output::Output;
use super::source::Source;
use super::{Control, LfcError};
use crate::lease_file::row::FileLease;
use crate::parallel::in_parallel;

/// The newest rows of a part of a journal, and their file.
pub(super) struct JournalPart<'a, K> {
    pub(super) source: &'a Source,
    pub(super) part: Part<K>,
}

/// The reason why merging ended early.
#[derive(Debug)]
pub(super) enum Stop {
    /// The previous file is not in address order, or has two rows of an address.
    OutOfOrder,
    /// An error.
    Error(LfcError),
}

impl From<LfcError> for Stop {
    fn from(error: LfcError) -> Self {
        Self::Error(error)
    }
}

/// The result of merging.
#[derive(Debug, Default)]
pub(super) struct Merged {
    /// The tally of the rows of the previous file.
    pub(super) previous: Tally,
    /// Number of leases written.
    pub(super) written: u64,
}

/// Merges `previous` and the parts of the journal, the oldest first, into `output`.
pub(super) fn merge<L: FileLease>(
    previous: Option<&Source>,
    journal: &[JournalPart<'_, L::AddressKey>],
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

impl Merged {
    /// Adds the result of the next piece.
    fn add<L: FileLease>(
        &mut self,
        piece: Merged,
        previous: Option<&Source>,
        control: &Control<'_>,
    ) -> Result<(), LfcError> {
        self.written += piece.written;
        self.previous.add(piece.previous, control.max_invalid_rows);
        let Some(source) = previous else {
            return Ok(());
        };
        self.previous.check_limit::<L>(source, control.max_invalid_rows).or_else(|error| {
            self.previous.report::<L>(source)?;
            Err(error)
        })
    }
}
