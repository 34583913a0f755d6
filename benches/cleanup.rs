//! Whole file sets: the cleanup of files in memory, and reading from a directory.

mod support;

use std::fs;
use std::time::Duration;

use criterion::{BatchSize, Criterion};
use leasemgr::lease::{Family, Lease4, Lease6, Lifetime};
use leasemgr::lease_file::{LeaseFileSet, ReadStats};
use leasemgr::lfc::{Cleanup, Outcome as Cleaned};
use support::{Contexts, Files, Outcome, Sample, criterion, leases, memory_files, text, throughput};

const LEASES: u32 = 50_000;
const JOURNAL: u32 = 50_000;

fn main() -> Outcome {
    let mut criterion = criterion().measurement_time(Duration::from_secs(3));
    cleanup::<Lease4>(&mut criterion, Family::V4)?;
    cleanup::<Lease6>(&mut criterion, Family::V6)?;
    criterion.final_summary();
    Ok(())
}

/// Returns clients at random positions, each about once; a tenth of them are new.
fn scattered() -> impl Iterator<Item = u32> {
    (0..JOURNAL).map(|row| row.wrapping_mul(2_654_435_761) % (LEASES + LEASES / 10))
}

/// Returns a journal in which every twentieth row deletes its lease.
fn journal<L: Sample>(contexts: Contexts) -> Outcome<Vec<u8>> {
    let mut leases = leases::<L>(scattered(), contexts)?;
    for lease in leases.iter_mut().step_by(20) {
        lease.data_mut().valid_lifetime = Lifetime(0);
    }
    text(&leases)
}

fn cleanup<L: Sample>(criterion: &mut Criterion, family: Family) -> Outcome {
    let plain = text(&leases::<L>(0..LEASES, Contexts::None)?)?;
    let with_context = text(&leases::<L>(0..LEASES, Contexts::All)?)?;
    // Every row has octets in upper case, which the writer writes in lower case.
    let mut to_rewrite = plain.clone();
    let header = L::schema().header.len();
    to_rewrite[header..].make_ascii_uppercase();
    let out_of_order = text(&leases::<L>((0..LEASES).rev(), Contexts::None)?)?;
    let nothing = L::schema().header.as_bytes();
    let (journal, journal_with_context) = (journal::<L>(Contexts::None)?, journal::<L>(Contexts::All)?);

    let files = LeaseFileSet::new("leases.csv").lfc_files();
    let all = std::thread::available_parallelism()?.get();
    let mut group = criterion.benchmark_group(format!("{family} cleanup of"));
    let mut bench = |name: &str, previous: &[u8], input: &[u8], threads: usize| {
        let file_set = || memory_files([(&files.previous, previous), (&files.input, input)]);
        let run = |fs: Files| Cleanup::new(family, files.clone()).file_system(&fs).threads(threads).run();
        let Cleaned::Cleaned { read, .. } = run(file_set())? else {
            return Err("the cleanup found nothing to do".into());
        };
        assert_eq!(read.errors, 0);
        let rows = usize::try_from(read.leases)?;
        group.throughput(throughput(rows, &[previous, input].concat()));
        group.bench_function(format!("{name}, {threads} threads"), |bencher| {
            bencher.iter_batched(file_set, run, BatchSize::PerIteration);
        });
        Outcome::Ok(())
    };
    bench("a previous file", &plain, nothing, 1)?;
    bench("a previous file with user contexts", &with_context, nothing, 1)?;
    bench("a previous file to be rewritten", &to_rewrite, nothing, 1)?;
    bench("a previous file out of order", &out_of_order, nothing, 1)?;
    bench("both files", &plain, &journal, 1)?;
    bench("both files with user contexts", &with_context, &journal_with_context, 1)?;
    if all > 1 {
        bench("both files", &plain, &journal, all)?;
    }
    drop(group);

    let dir = tempfile::tempdir()?;
    let set = LeaseFileSet::new(dir.path().join("leases.csv"));
    fs::write(set.previous_path(), &plain)?;
    fs::write(set.current_path(), &journal)?;
    let rows = u64::from(LEASES + JOURNAL);
    assert_eq!(set.read::<L>()?.stats, ReadStats { leases: rows, invalid_rows: 0 });
    let mut group = criterion.benchmark_group(format!("{family} file set"));
    group.throughput(throughput(usize::try_from(rows)?, &[&plain[..], &journal].concat()));
    group.bench_function("read", |bencher| bencher.iter_with_large_drop(|| set.read::<L>()));
    group.finish();
    Ok(())
}
