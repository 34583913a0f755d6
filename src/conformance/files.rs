//! Writing all leases to a file.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};

use super::TestedLease;
use super::case::{Case, Fault, Verdict, ask, pages, same, same_leases};
use super::changes::extremes;
use super::sample::{sample, samples, shuffled};
use crate::lease_file::Reader;
use crate::{Query, WriteLeases};

/// A temporary directory, which is removed at the end.
struct Directory(PathBuf);

impl Directory {
    fn new() -> Verdict<Self> {
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let name = format!("leasemgr-conformance-{}-{number}", std::process::id());
        let path = std::env::temp_dir().join(name);
        match fs::create_dir(&path) {
            Ok(()) => Ok(Self(path)),
            Err(error) => Err(Fault::new(format_args!("create {}", path.display()), "no error", error)),
        }
    }
}

impl Drop for Directory {
    fn drop(&mut self) {
        // A directory that is left over does no harm.
        let _ = fs::remove_dir_all(&self.0);
    }
}

/// Writes all leases to a file, and checks that it has these.
fn writes<L: TestedLease>(case: &Case<L>, path: &Path, expected: &[L]) -> Verdict {
    // Writing would not end if pages did not advance.
    pages(case, &Query::all(), 1000)?;
    let count = ask("write all leases", case.mgr().write_to(path))?;
    same("the number of leases written", &count, &(expected.len() as u64))?;
    let reader =
        Reader::<L, _>::open(path).map_err(|error| Fault::new("read the file", "no error", error))?;
    let rows: Result<Vec<_>, _> = reader.map(|row| row.map(|row| row.lease)).collect();
    let rows = rows.map_err(|error| Fault::new("read the file", "no invalid row", error))?;
    same_leases("write all leases and read them back", &rows, expected)
}

pub(super) fn leases_written_to_a_file_are_read_back_in_order<L: TestedLease>(case: &Case<L>) -> Verdict {
    let directory = Directory::new()?;
    let path = directory.0.join("leases.csv");
    writes(case, &path, &[])?;
    let leases = extremes(case)?;
    case.add_all(&shuffled(&leases))?;
    writes(case, &path, &leases)?;
    case.holds(&leases, [])
}

pub(super) fn writing_replaces_an_existing_file<L: TestedLease>(case: &Case<L>) -> Verdict {
    let directory = Directory::new()?;
    let path = directory.0.join("leases.csv");
    let failed = |error| Fault::new("make a file", "no error", error);
    fs::write(&path, "something else").map_err(failed)?;
    let mut leases = samples::<L>(0..3)?;
    case.add_all(&leases)?;
    writes(case, &path, &leases)?;
    case.delete(leases.remove(1).address())?;
    writes(case, &path, &leases)?;
    let names = fs::read_dir(&directory.0).and_then(Iterator::collect::<Result<Vec<_>, _>>);
    same("the number of files", &names.map_err(failed)?.len(), &1)
}

pub(super) fn thousands_of_leases_are_written_to_a_file<L: TestedLease>(case: &Case<L>) -> Verdict {
    let directory = Directory::new()?;
    let leases = (0..2000).map(|n| sample::<L>(3 * n, n % 50)).collect::<Verdict<Vec<_>>>()?;
    case.add_all(&shuffled(&leases))?;
    writes(case, &directory.0.join("leases.csv"), &leases)?;
    case.add(&sample(4, 4)?)?;
    let mut leases = leases;
    leases.insert(2, sample(4, 4)?);
    writes(case, &directory.0.join("leases.csv"), &leases)
}
