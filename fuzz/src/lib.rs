//! The parts that the fuzz targets share: a limit of memory, and the properties of every lease
//! file.

use std::collections::BTreeMap;

use leasemgr::fs::Memory;
use leasemgr::lease::Lease;
use leasemgr::lease_file::{Conversion, FileLease, LeaseFileSet, ReadError, Reader, Writer};
use leasemgr::lfc::{Cleanup, LfcError, Outcome};
use peak_alloc::PeakAlloc;

#[global_allocator]
static ALLOCATOR: PeakAlloc = PeakAlloc;

/// The leases of a file, by address, and the numbers of its rows.
pub struct Read<L: Lease> {
    pub leases: BTreeMap<L::Address, L>,
    pub rows: u64,
    pub invalid_rows: u64,
    pub conversion: Conversion,
}

/// Does some work with limited memory: `fixed` bytes, and `factor` bytes for each byte of the
/// input.
///
/// # Panics
/// Panics if the work takes more memory.
pub fn with_memory<T>(input: usize, fixed: usize, factor: usize, work: impl FnOnce() -> T) -> T {
    let before = ALLOCATOR.current_usage();
    ALLOCATOR.reset_peak_usage();
    let result = work();
    let taken = ALLOCATOR.peak_usage().saturating_sub(before);
    let limit = fixed + factor * input;
    assert!(taken <= limit, "{taken} bytes of memory for {input} bytes of input, the limit is {limit}");
    result
}

/// Reads a lease file, and checks that each valid row is the same lease when it is written and read
/// again.
///
/// Returns `None` if the file is refused.
///
/// # Panics
/// Panics if a row changes by being written, or if an error has no location.
pub fn read<L: FileLease>(text: &[u8]) -> Option<Read<L>> {
    const FIXED: usize = 128 * 1024;
    const FACTOR: usize = 64;
    with_memory(text.len(), FIXED, FACTOR, || {
        let mut reader = Reader::<L, _>::new(text).ok()?;
        let mut read = Read {
            leases: BTreeMap::new(),
            rows: 0,
            invalid_rows: 0,
            conversion: reader.header().conversion,
        };
        let lines = text.split(|&byte| byte == b'\n').count() as u64;
        while let Some(row) = reader.next() {
            assert!(reader.line() <= lines);
            match row {
                Ok(parsed) => {
                    read.rows += 1;
                    let again = write_and_read(&parsed.lease);
                    assert_eq!(again, parsed.lease);
                    if parsed.deletes() {
                        read.leases.remove(&parsed.lease.address());
                    } else {
                        read.leases.insert(parsed.lease.address(), parsed.lease);
                    }
                }
                Err(ReadError::Row(error)) => {
                    read.invalid_rows += 1;
                    assert_eq!(error.line, reader.line());
                    assert!(is_plain(&error.to_string()), "{error:?}");
                }
                Err(error) => panic!("{error}"),
            }
        }
        assert_eq!(reader.stats().invalid_rows, read.invalid_rows);
        Some(read)
    })
}

fn write_and_read<L: FileLease>(lease: &L) -> L {
    let mut writer = Writer::new(Vec::new()).expect("a Vec takes all");
    writer.append(lease).expect("a Vec takes all");
    let text = writer.into_inner();
    assert_eq!(text.iter().filter(|&&byte| byte == b'\n').count(), 2, "a row is one line");
    let mut reader = Reader::<L, _>::new(&text[..]).expect("what the writer writes is a lease file");
    let parsed = reader.next().expect("there is a row").expect("what the writer writes is a lease");
    assert_eq!(parsed.dropped, None);
    assert!(reader.next().is_none());
    parsed.lease
}

/// Cleans up previous and input, and checks that the result has the leases that are read from both
/// in turn.
///
/// # Panics
/// Panics if it has not, or if the cleanup and the reader differ in what they accept.
pub fn clean<L: FileLease>(previous: &[u8], input: &[u8]) {
    const FIXED: usize = 16 * 1024 * 1024;
    const FACTOR: usize = 64;
    let (fs, files) = (Memory::default(), LeaseFileSet::new("f").lfc_files());
    fs.put(&files.previous, previous);
    fs.put(&files.input, input);
    let cleanup = Cleanup::new(L::FAMILY, files.clone()).file_system(&fs).max_invalid_rows(u64::MAX);
    let outcome = with_memory(previous.len() + input.len(), FIXED, FACTOR, || cleanup.run());
    let result = files.previous;
    let (Some(first), Some(second)) = (read::<L>(previous), read::<L>(input)) else {
        assert!(outcome.is_err(), "the reader refuses a file and the cleanup does not");
        assert_eq!(
            (fs.get(&result).as_deref(), fs.get(&files.input).as_deref()),
            (Some(previous), Some(input))
        );
        assert_eq!(fs.names().len(), 2);
        return;
    };
    // A file of several rows, none of which is valid, is refused.
    if [&first, &second].iter().any(|file| file.rows == 0 && file.invalid_rows >= 3) {
        assert!(matches!(outcome, Err(LfcError::NoValidRow { .. })), "{outcome:?}");
        assert_eq!(
            (fs.get(&result).as_deref(), fs.get(&files.input).as_deref()),
            (Some(previous), Some(input))
        );
        return;
    }
    let invalid_rows = first.invalid_rows + second.invalid_rows;
    let mut expected = first.leases;
    for lease in rows::<L>(input) {
        if lease.data().valid_lifetime.0 == 0 {
            expected.remove(&lease.address());
        } else {
            expected.insert(lease.address(), lease);
        }
    }
    match outcome {
        Ok(Outcome::Cleaned { read, written }) => {
            assert_eq!((read.errors, written.leases), (invalid_rows, expected.len() as u64));
        }
        other => panic!("{other:?}"),
    }
    let kept = invalid_rows > 0;
    assert_eq!(
        (fs.names().len(), fs.get(&LeaseFileSet::new("f").bad_path()).is_some()),
        (1 + usize::from(kept), kept)
    );
    let result = fs.get(&result).expect("a cleanup writes a previous file");
    let found = self::read::<L>(&result).expect("the result of a cleanup is a lease file");
    assert_eq!((found.invalid_rows, found.conversion), (0, Conversion::None));
    assert_eq!(found.leases, expected);
    assert!(rows::<L>(&result).map(|lease| lease.address()).is_sorted_by(|a, b| a < b));
}

fn rows<L: FileLease>(text: &[u8]) -> impl Iterator<Item = L> {
    Reader::<L, _>::new(text).into_iter().flatten().flatten().map(|parsed| parsed.lease)
}

/// Returns a row after the header of the current schema.
pub fn with_header<L: FileLease>(row: &[u8]) -> Vec<u8> {
    [L::schema().header.as_bytes(), b"\n", row].concat()
}

/// Returns whether a text has no control characters.
pub fn is_plain(text: &str) -> bool {
    !text.contains(char::is_control)
}
