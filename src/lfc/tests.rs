//! The cleanup compared with a simple model: a map.

use std::collections::BTreeMap;

use proptest::prelude::*;

use super::*;
use crate::fs::Memory;
use crate::fs::simulated::{Action, SimulatedDisk, State};
use crate::lease_file::row::private::RowFormat;

/// The expected result of a cleanup.
#[derive(Default)]
struct Expected {
    text: Vec<u8>,
    figures: Figures,
    /// The invalid rows, each after the line with its location.
    invalid: Vec<u8>,
    /// The file that has three rows or more, none of which is valid.
    unreadable: Option<&'static str>,
}

/// Returns the expected result for two files.
fn model<L: FileLease>(texts: [Option<&[u8]>; 2]) -> Expected {
    let mut rows: BTreeMap<L::AddressKey, Option<Vec<u8>>> = BTreeMap::new();
    let mut expected = Expected::default();
    let Expected { figures, invalid, unreadable, .. } = &mut expected;
    for (path, text) in ["f.2", "f.1"].into_iter().zip(texts) {
        let Some(text) = text else {
            continue;
        };
        figures.attempts += 1;
        let lines = text.split(|&b| b == b'\n').enumerate();
        let mut lines = lines.filter(|(_, line)| !line.is_empty());
        let Some((_, header)) = lines.next() else {
            continue;
        };
        let header = L::SCHEMA.parse_header(header).unwrap();
        let (mut count, mut valid) = (0, 0);
        for (n, line) in lines {
            figures.attempts += 1;
            count += 1;
            match L::parse_row(line, &header) {
                Ok(parsed) => {
                    figures.leases += 1;
                    valid += 1;
                    let mut row = Vec::new();
                    parsed.lease.write_row(&mut row);
                    rows.insert(parsed.lease.key(), (!parsed.deletes()).then_some(row));
                }
                Err(problem) => {
                    figures.errors += 1;
                    let row = String::from_utf8_lossy(line);
                    let address = row.split(',').next().unwrap();
                    let line = format!("# {path}: line {}: {problem} (address {address})\n{row}\n", n + 1);
                    invalid.extend(line.as_bytes());
                }
            }
        }
        if count >= 3 && valid == 0 {
            *unreadable = Some(path);
        }
    }
    expected.text = [L::SCHEMA.header.as_bytes(), b"\n"].concat();
    expected.text.extend(rows.into_values().flatten().flatten());
    expected
}

/// A line of a file, determined by a few numbers.
#[derive(Clone, Debug)]
struct Line {
    address: u16,
    kind: u8,
    size: u16,
}

fn line(addresses: u16) -> impl Strategy<Value = Line> {
    (0..addresses, any::<u8>(), any::<u16>()).prop_map(|(address, kind, size)| Line { address, kind, size })
}

impl Line {
    fn text(&self, family: Family) -> String {
        let Self { address, kind, size } = self;
        let (valid, hostname, hwaddr) = match kind {
            0..=30 => (0, "gone".to_owned(), "02:00:00:00:00:01"),
            31..=40 => return String::new(),
            41..=43 => return "bad row".to_owned(),
            44..=60 => (3600, "Upper&#x2C".to_owned(), "2:0:0:0:0:1"),
            61..=64 => (3600, "long".repeat(usize::from(*size) / 20), "02:00:00:00:00:01"),
            _ => (u32::from(*size) + 1, format!("host-{size}"), "02:00:00:00:00:01"),
        };
        let (high, low) = (address >> 8, address & 255);
        match family {
            Family::V4 => {
                format!("10.0.{high}.{low},{hwaddr},,{valid},1790003600,1,0,0,{hostname},0,,0")
            }
            Family::V6 => format!(
                "2001:db8:{high:x}::{:x},00:01:02,{valid},1790003600,1,0,0,7,128,0,0,{hostname},{hwaddr},0,,1,0,0",
                low + 1
            ),
        }
    }
}

/// Makes a file of these lines, in a schema without `missing` of the last columns, or the oldest
/// one. Some rows are of newer schemas.
fn file<L: FileLease>(lines: &[Line], missing: usize, torn: bool) -> Vec<u8> {
    let columns = L::SCHEMA.columns;
    let oldest = if L::FAMILY == Family::V4 { 9 } else { 12 };
    let count = (columns.len() - missing).max(oldest);
    let mut text = columns[..count].join(",") + "\n";
    for line in lines {
        let values = count + usize::from(line.size / 16) % 9 / 5 * (usize::from(line.size) % (missing + 1));
        text += &line.text(L::FAMILY).split(',').take(values).collect::<Vec<_>>().join(",");
        text += "\n";
    }
    if torn {
        text.pop();
    }
    text.into_bytes()
}

fn check<L: FileLease>(previous: Option<&[u8]>, input: Option<&[u8]>, threads: usize) {
    let fs = Memory::default();
    let files = crate::lease_file::LeaseFileSet::new("f").lfc_files();
    for (path, text) in [(&files.previous, previous), (&files.input, input)] {
        if let Some(text) = text {
            fs.put(path, text);
        }
    }
    let expected = model::<L>([previous, input]);
    let cleanup = Cleanup::new(L::FAMILY, files.clone()).file_system(&fs).max_invalid_rows(u64::MAX);
    let outcome = match (cleanup.threads(threads).run(), expected.unreadable) {
        (Err(LfcError::NoValidRow { path, .. }), Some(unreadable)) => {
            assert!(path == Path::new(unreadable) || [previous, input].iter().all(Option::is_some));
            assert_eq!(
                [fs.get(&files.previous), fs.get(&files.input)],
                [previous, input].map(|text| text.map(<[u8]>::to_vec))
            );
            return;
        }
        (outcome, None) => outcome.unwrap(),
        (outcome, _) => panic!("{outcome:?}"),
    };
    let Outcome::Cleaned { read, written } = outcome else {
        panic!("{outcome:?}");
    };
    let result = fs.get(&files.previous).unwrap();
    assert!(result == expected.text, "{}\n\n{}", result.escape_ascii(), expected.text.escape_ascii());
    assert_eq!(read, expected.figures);
    let rows = expected.text.iter().filter(|&&b| b == b'\n').count() as u64 - 1;
    assert_eq!(written, Figures { leases: rows, attempts: rows, errors: 0 });
    let kept = fs.get(Path::new("f.bad")).unwrap_or_default();
    assert!(kept == expected.invalid, "{}\n\n{}", kept.escape_ascii(), expected.invalid.escape_ascii());
    let count = if kept.is_empty() { 1 } else { 2 };
    assert_eq!(fs.names().len(), count, "nothing but the previous file and the invalid rows is left");
}

/// The kind of the previous file.
#[derive(Clone, Copy, Debug)]
enum Previous {
    Absent,
    Clean,
    InOrder,
    InAnyOrder,
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 250, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn the_newest_row_of_each_address_is_kept(
        before in prop::collection::vec(line(2000), 0..600),
        after in prop::collection::vec(line(3000), 0..600),
        previous in prop::sample::select(
            vec![Previous::Absent, Previous::Clean, Previous::Clean, Previous::InOrder, Previous::InAnyOrder]
        ),
        missing in prop::array::uniform2(prop_oneof![Just(0), 1..7_usize]),
        torn in any::<[bool; 2]>(),
        threads in 1..4_usize,
    ) {
        fn run<L: FileLease>(before: &[Line], after: &[Line], previous: Previous, missing: [usize; 2], torn: [bool; 2], threads: usize) {
            let mut before = before.to_vec();
            if !matches!(previous, Previous::InAnyOrder) {
                before.sort_by_key(|line| line.address);
                before.dedup_by_key(|line| line.address);
            }
            let mut text = file::<L>(&before, missing[0], torn[0]);
            if matches!(previous, Previous::Clean) {
                text = model::<L>([Some(&text), None]).text;
            }
            let previous = (!matches!(previous, Previous::Absent)).then_some(text.as_slice());
            check::<L>(previous, Some(&file::<L>(after, missing[1], torn[1])), threads);
        }
        run::<Lease4>(&before, &after, previous, missing, torn, threads);
        run::<Lease6>(&before, &after, previous, missing, torn, threads);
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 500, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn a_cleanup_of_arbitrary_bytes_ends_and_is_idempotent(
        junk in prop::collection::vec(
            prop_oneof![
                any::<u8>().prop_map(|b| vec![b]),
                prop::sample::select(vec!["\n", ",", "10.0.0.1,02:00:00:00:00:01,,1,1790003600,1,0,0,,0,,0\n", "::1,"])
                    .prop_map(|text| text.as_bytes().to_vec()),
                (any::<u8>(), 0..2000_usize).prop_map(|(b, len)| vec![b; len]),
            ],
            0..60,
        ),
        with_header in any::<[bool; 3]>(),
        cut in any::<[prop::sample::Index; 2]>(),
        threads in 1..4_usize,
    ) {
        let files = crate::lease_file::LeaseFileSet::new("f").lfc_files();
        let fs = Memory::default();
        let mut rest = junk.concat();
        for ((path, header), cut) in [&files.previous, &files.input].into_iter().zip(with_header).zip(cut) {
            let tail = rest.split_off(cut.index(rest.len() + 1));
            let header = if header { format!("{}\n", Lease4::SCHEMA.header) } else { String::new() };
            fs.put(path, &[header.as_bytes(), &rest].concat());
            rest = tail;
        }
        if with_header[2] {
            fs.put(&files.finish, &rest);
        }
        let cleanup = Cleanup::new(Family::V4, files.clone()).file_system(&fs).threads(threads);
        if cleanup.run().is_ok() {
            let result = fs.get(&files.previous).unwrap();
            let again = cleanup.run();
            if !with_header[2] {
                prop_assert!(again.is_ok());
                prop_assert_eq!(fs.get(&files.previous).unwrap(), result);
            }
        }
    }
}

#[test]
fn absent_and_empty_files_are_cleaned_up_to_a_header() {
    let header = format!("{}\n", Lease4::SCHEMA.header);
    let header = header.as_bytes();
    let texts = [None, Some(&b""[..]), Some(header), Some(header.trim_ascii_end())];
    for previous in texts {
        for input in texts {
            check::<Lease4>(previous, input, 2);
        }
    }
}

#[test]
fn too_many_invalid_rows_are_an_error_with_the_line_and_change_nothing() {
    for threads in 1..4 {
        for (bad_previous, bad_input, fails) in
            [(100, 100, None), (101, 0, Some("f.2")), (0, 101, Some("f.1")), (3, 400, Some("f.1"))]
        {
            let text = |bad: usize| {
                let row = "10.0.0.1,02:00:00:00:00:01,,1,1790003600,1,0,0,,0,,0\n";
                let header = Lease4::SCHEMA.header;
                format!("\n{header}\n{row}\n{}", "bad row\n".repeat(bad))
            };
            let fs = Memory::default();
            let files = crate::lease_file::LeaseFileSet::new("f").lfc_files();
            fs.put(&files.previous, text(bad_previous).as_bytes());
            fs.put(&files.input, text(bad_input).as_bytes());
            let result = Cleanup::new(Family::V4, files.clone()).file_system(&fs).threads(threads).run();
            match fails {
                None => assert!(matches!(result, Ok(Outcome::Cleaned { .. }))),
                Some(path) => {
                    let message = result.unwrap_err().to_string();
                    // A newline, the header, a row, a newline, 101 invalid rows.
                    let expected = format!(
                        "{path}: more than 100 invalid rows, the last in line 105: 1 values, expected 12 (address bad row)"
                    );
                    assert_eq!(message, expected);
                    assert_eq!(fs.get(&files.previous).unwrap(), text(bad_previous).as_bytes());
                    assert_eq!(fs.get(&files.input).unwrap(), text(bad_input).as_bytes());
                    assert_eq!(fs.names().len(), 2);
                }
            }
        }
    }
}

#[test]
fn a_cancelled_cleanup_changes_nothing() {
    let fs = Memory::default();
    let files = crate::lease_file::LeaseFileSet::new("f").lfc_files();
    let text = file::<Lease4>(&[Line { address: 1, kind: 100, size: 1 }], 0, false);
    fs.put(&files.input, &text);
    let monitor = Monitor::default();
    monitor.cancel();
    let result = Cleanup::new(Family::V4, files.clone()).file_system(&fs).monitor(&monitor).run();
    assert!(matches!(result, Err(LfcError::Cancelled)));
    assert_eq!(fs.get(&files.input), Some(text));
    assert_eq!(fs.names().len(), 1);
}

#[test]
fn a_thread_that_panics_does_not_leave_the_others_waiting() {
    let lines: Vec<_> = (0..400).map(|address| Line { address, kind: 100, size: 1 }).collect();
    let text = file::<Lease4>(&lines, 0, false);
    let mut ended = 0;
    for reads in 0.. {
        let files = crate::lease_file::LeaseFileSet::new("f").lfc_files();
        let contents = [files.previous.clone(), files.input.clone()].map(|path| (path, text.clone())).into();
        let reads_left = AtomicU64::new(reads);
        let fs = SimulatedDisk::new(State::holding(&contents)).before_each(move |_, operation| {
            if operation.action == Action::Read {
                assert_ne!(reads_left.fetch_sub(1, Ordering::Relaxed), 0, "injected");
            }
        });
        let cleanup = Cleanup::new(Family::V4, files.clone()).file_system(&fs).threads(2);
        let result = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| cleanup.run()));
        if let Ok(Ok(_)) = result {
            break;
        }
        ended += 1;
        let left = fs.state().contents();
        assert_eq!((&left[&files.previous], &left[&files.input]), (&text, &text));
    }
    assert!(ended > 50, "{ended} panics were tried");
}

#[test]
fn progress_reaches_the_total() {
    let fs = Memory::default();
    let files = crate::lease_file::LeaseFileSet::new("f").lfc_files();
    let lines: Vec<_> = (0..3000).map(|address| Line { address, kind: 100, size: 1 }).collect();
    fs.put(&files.previous, &file::<Lease4>(&lines, 0, false));
    fs.put(&files.input, &file::<Lease4>(&lines[5..99], 0, false));
    let monitor = Monitor::default();
    Cleanup::new(Family::V4, files).file_system(&fs).monitor(&monitor).run().unwrap();
    let (done, total) = monitor.progress();
    assert!(total > 0);
    assert_eq!(done, total);
}
