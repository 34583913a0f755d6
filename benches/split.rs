//! Ways to split rows into values, compared with what the crate does with whole rows.
//!
//! `csv` and `memchr` only find the values. The reader also creates leases; the cleanup (of a file
//! in address order, in memory, on one thread) also checks that each row is in canonical form, and
//! copies it to an output that is discarded.

mod support;

use std::hint::black_box;

use criterion::{BatchSize, Criterion};
use csv::{ByteRecord, ReaderBuilder};
use leasemgr::lease::{Family, Lease4, Lease6};
use leasemgr::lease_file::{LeaseFileSet, Reader};
use leasemgr::lfc::Cleanup;
use support::{Contexts, Outcome, Sample, criterion, leases, memory_files, text, throughput};

const ROWS: u32 = 10_000;

fn main() -> Outcome {
    let mut criterion = criterion();
    split::<Lease4>(&mut criterion, Family::V4)?;
    split::<Lease6>(&mut criterion, Family::V6)?;
    criterion.final_summary();
    Ok(())
}

/// Number of values, and the sum of their lengths.
type Sums = (usize, usize);

fn with_csv(text: &[u8]) -> csv::Result<Sums> {
    let mut reader = ReaderBuilder::new()
        .has_headers(false)
        .quoting(false)
        .flexible(true)
        .buffer_capacity(256 * 1024)
        .from_reader(text);
    let mut record = ByteRecord::new();
    let mut sums = (0, 0);
    while reader.read_byte_record(&mut record)? {
        for value in &record {
            sums = (sums.0 + 1, sums.1 + value.len());
        }
    }
    Ok(sums)
}

fn with_memchr(text: &[u8]) -> Sums {
    let mut sums = (0, 0);
    let mut start = 0;
    for end in memchr::memchr2_iter(b',', b'\n', text) {
        sums = (sums.0 + 1, sums.1 + end - start);
        start = end + 1;
    }
    sums
}

/// Finds lines with memchr, and values byte by byte.
fn with_slices(text: &[u8]) -> Sums {
    let mut sums = (0, 0);
    let mut start = 0;
    for end in memchr::memchr_iter(b'\n', text) {
        for value in text[start..end].split(|&byte| byte == b',') {
            sums = (sums.0 + 1, sums.1 + value.len());
        }
        start = end + 1;
    }
    sums
}

fn split<L: Sample>(criterion: &mut Criterion, family: Family) -> Outcome {
    let leases = leases::<L>(0..ROWS, Contexts::None)?;
    let text = text(&leases)?;
    let sums = with_csv(&text)?;
    assert_eq!(sums.0, (leases.len() + 1) * L::schema().columns.len());
    assert_eq!((sums, sums), (with_memchr(&text), with_slices(&text)));

    let mut group = criterion.benchmark_group(format!("{family} rows split by"));
    group.throughput(throughput(leases.len(), &text));
    group.bench_function("csv ByteRecord", |bencher| bencher.iter(|| with_csv(black_box(&text))));
    group.bench_function("memchr2", |bencher| bencher.iter(|| with_memchr(black_box(&text))));
    group.bench_function("memchr and slice split", |bencher| bencher.iter(|| with_slices(black_box(&text))));
    group.bench_function("reader, with all else", |bencher| {
        bencher.iter(|| Reader::<L, _>::new(black_box(&text[..])).map(Iterator::count));
    });
    let files = LeaseFileSet::new("leases.csv").lfc_files();
    group.bench_function("cleanup, with all else", |bencher| {
        bencher.iter_batched(
            || memory_files([(&files.previous, &text)]),
            |fs| Cleanup::new(family, files.clone()).file_system(&fs).threads(1).run(),
            BatchSize::PerIteration,
        );
    });
    group.finish();
    Ok(())
}
