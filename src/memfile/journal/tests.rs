//! Tests of the journal, on a disk with faults and power cuts, and with many threads.

use std::collections::{BTreeMap, BTreeSet};
use std::net::Ipv4Addr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use rstest::rstest;

use super::*;
use crate::fs::OsFileSystem;
use crate::fs::simulated::{
    Action, Contents, EDQUOT, EINTR, EIO, ENOSPC, Effect, Fault, SimulatedDisk, State,
};
use crate::lease_file::LeaseFileError;

const F: &str = "/leases/f";
const HEADER: &str = "address,text,number";
const HOUR: Durability = Durability::SyncedEvery(Duration::from_secs(3600));

fn row(number: usize) -> String {
    let [.., a, b] = number.to_be_bytes();
    // Some rows are longer than a sector, most are shorter.
    let len = if number % 11 == 7 { 1300 } else { 20 + number * 7 % 60 };
    format!("110.10.{a}.{b},{},{number}\n", "x".repeat(len))
}

fn input(rotation: usize) -> PathBuf {
    format!("{F}.1-{rotation}").into()
}

fn disk(contents: &Contents) -> SimulatedDisk {
    SimulatedDisk::new(State::holding(contents))
}

fn empty_disk() -> SimulatedDisk {
    disk(&Contents::new())
}

fn open(disk: &SimulatedDisk, durability: Durability) -> Result<Journal, LeaseFileError> {
    Journal::open(Arc::new(disk.clone()), F.into(), HEADER, durability)
}

fn text(disk: &SimulatedDisk, path: impl AsRef<Path>) -> Option<String> {
    disk.state().contents().get(path.as_ref()).map(|bytes| String::from_utf8_lossy(bytes).into_owned())
}

/// Returns the lines of a file that are neither the header nor empty; none if the header is
/// incomplete.
fn lines(content: &[u8]) -> Vec<String> {
    let text = String::from_utf8_lossy(content);
    if HEADER.starts_with(&*text) {
        return Vec::new();
    }
    let rest =
        text.strip_prefix(HEADER).unwrap_or_else(|| panic!("no header: {:?}", &text[..text.len().min(99)]));
    rest.lines().filter(|line| !line.is_empty()).map(|line| format!("{line}\n")).collect()
}

/// Returns whether a reader would accept a line as a row.
fn is_row(line: &str) -> bool {
    let fields: Vec<_> = line.trim_end().split(',').collect();
    matches!(&fields[..], [address, _, number] if address.parse::<Ipv4Addr>().is_ok() && number.parse::<u64>().is_ok())
}

fn is_write(action: Action) -> bool {
    matches!(action, Action::Append | Action::WriteAt)
}

fn count_writes(disk: &SimulatedDisk) -> usize {
    disk.operations().iter().filter(|operation| is_write(operation.action)).count()
}

fn count(disk: &SimulatedDisk, action: Action) -> usize {
    disk.operations().iter().filter(|operation| operation.action == action).count()
}

/// Makes the next operation fail.
fn fail_next(disk: &SimulatedDisk, error: i32, effect: Effect) {
    let _ = disk.clone().with_fault(Fault { at: disk.operations().len(), error, effect, lasting: false });
}

#[track_caller]
fn wait_until(what: &str, mut holds: impl FnMut() -> bool) {
    let start = Instant::now();
    while !holds() {
        assert!(start.elapsed() < Duration::from_secs(600), "timeout: {what}");
        thread::yield_now();
    }
}

#[track_caller]
fn assert_write_error(result: Result<(), LeaseMgrError>, expected: &'static str, number: i32) {
    match result {
        Err(LeaseMgrError::Write { place, action, source }) => {
            assert_eq!((place.as_str(), action), (F, expected));
            assert_eq!(source.raw_os_error(), Some(number));
        }
        other => panic!("{other:?}"),
    }
}

#[track_caller]
fn assert_refused(result: Result<(), LeaseMgrError>, expected: &'static str, number: i32) {
    match result {
        Err(LeaseMgrError::Refused { place, action, source }) => {
            assert_eq!((place.as_str(), action), (F, expected));
            assert_eq!(source.raw_os_error(), Some(number));
        }
        other => panic!("{other:?}"),
    }
}

#[rstest]
#[case::absent(None, "")]
#[case::empty(Some(""), "")]
#[case::nothing_but_newlines(Some("\n\n\n"), "")]
#[case::header(Some("address,text,number\n"), "")]
#[case::header_without_a_newline(Some("address,text,number"), "")]
#[case::part_of_the_header(Some("address,te"), "")]
#[case::part_of_the_header_and_padding(Some("address,te\n\n\n"), "")]
#[case::rows(Some("address,text,number\na\nb\n"), "a\nb\n")]
#[case::torn_row(Some("address,text,number\na\nb"), "a\nb\n")]
#[case::empty_lines_between(Some("address,text,number\na\n\n\nb\n"), "a\n\n\nb\n")]
#[case::empty_line_at_the_end(Some("address,text,number\na\n\n"), "a\n")]
#[case::zeros(Some("address,text,number\na\n\0\0\0"), "a\n\0\0\0\n")]
fn rows_are_appended_after_the_last_one(
    #[case] before: Option<&str>,
    #[case] kept: &str,
    #[values(Durability::Written, Durability::Synced, HOUR)] durability: Durability,
    #[values(1, 3, usize::MAX)] write_at_most: usize,
) {
    let contents = before.map(|before| (PathBuf::from(F), before.as_bytes().to_vec()));
    let disk = disk(&contents.into_iter().collect()).writing_at_most(write_at_most);
    let journal = open(&disk, durability).unwrap();
    journal.append(b"one\ntwo\n").unwrap();
    journal.append(b"three\n").unwrap();
    drop(journal);
    assert_eq!(text(&disk, F).unwrap(), format!("{HEADER}\n{kept}one\ntwo\nthree\n"));
}

#[rstest]
#[case::within_a_step(&format!("{HEADER}\na"), 65_000)]
#[case::of_a_step(&format!("{HEADER}\na"), 65_536)]
#[case::a_byte_longer(&format!("{HEADER}\na"), 65_537)]
#[case::of_several_steps(&format!("{HEADER}\na"), 200_000)]
#[case::after_the_header(HEADER, 131_072)]
fn padding_left_by_a_crash_is_cut_off(#[case] before: &str, #[case] padding: usize) {
    let disk = disk(&Contents::from([(F.into(), format!("{before}{}", "\n".repeat(padding)).into())]));
    let journal = open(&disk, Durability::Written).unwrap();
    journal.append(b"one\n").unwrap();
    drop(journal);
    assert_eq!(text(&disk, F).unwrap(), format!("{before}\none\n"));
}

#[rstest]
#[case::written(Durability::Written, 0)]
#[case::every_hour(HOUR, 0)]
#[case::synced(Durability::Synced, 3)]
fn rows_are_synced_before_append_returns_only_if_promised(
    #[case] durability: Durability,
    #[case] syncs: usize,
) {
    let disk = empty_disk();
    let journal = open(&disk, durability).unwrap();
    let before = count(&disk, Action::Sync);
    for number in 0..3 {
        journal.append(row(number).as_bytes()).unwrap();
    }
    assert_eq!(count(&disk, Action::Sync) - before, syncs);
}

#[rstest]
fn a_sync_and_closing_make_appended_rows_durable(
    #[values(Durability::Written, Durability::Synced, HOUR)] durability: Durability,
) {
    let disk = disk(&Contents::from([(F.into(), format!("{HEADER}\n").into())]));
    let journal = open(&disk, durability).unwrap();
    let survives = |number| {
        let survivors = disk.state().survivors(0);
        survivors.disks.iter().all(|disk| lines(&disk[Path::new(F)]).contains(&row(number)))
    };
    journal.append(row(1).as_bytes()).unwrap();
    assert_eq!(survives(1), durability == Durability::Synced);
    journal.sync().unwrap();
    assert!(survives(1));
    let syncs = count(&disk, Action::Sync);
    journal.sync().unwrap();
    assert_eq!(count(&disk, Action::Sync), syncs, "there is nothing more to sync");
    journal.append(row(2).as_bytes()).unwrap();
    drop(journal);
    assert!(survives(1) && survives(2));
}

#[test]
fn a_synced_file_is_longer_than_its_rows_until_it_is_closed_or_renamed() {
    let disk = empty_disk();
    let journal = open(&disk, Durability::Synced).unwrap();
    let mut all = format!("{HEADER}\n");
    let mut lengths = BTreeSet::new();
    for number in 0..200 {
        // All rows have the same length and fit into a sector, so no empty lines are needed between
        // them.
        journal.append(row(number).as_bytes()).unwrap();
        all += &row(number);
        let content = disk.state().contents()[Path::new(F)].clone();
        lengths.insert(content.len());
        assert_eq!(lines(&content).concat(), all[HEADER.len() + 1..]);
    }
    assert!((3..10).contains(&lengths.len()), "lengths: {lengths:?}");
    journal.rotate(&input(1)).unwrap();
    let renamed = text(&disk, input(1)).unwrap();
    assert!(renamed.ends_with(&row(199)));
    assert_eq!(lines(renamed.as_bytes()).concat(), all[HEADER.len() + 1..]);
    journal.append(row(1).as_bytes()).unwrap();
    assert!(text(&disk, F).unwrap().ends_with("\n\n"));
    drop(journal);
    assert_eq!(text(&disk, F).unwrap(), format!("{HEADER}\n{}", row(1)));
}

#[rstest]
fn rows_are_appended_if_the_file_cannot_be_extended_in_advance(
    #[values(Effect::Nothing, Effect::Half)] effect: Effect,
) {
    let disk = empty_disk();
    let journal = open(&disk, Durability::Synced).unwrap();
    // After the length check and the row.
    let padding = disk.operations().len() + 2;
    let disk = disk.with_fault(Fault { at: padding, error: ENOSPC, effect, lasting: false });
    for number in 0..3 {
        journal.append(row(number).as_bytes()).unwrap();
        assert!(text(&disk, F).unwrap().ends_with(&row(number)));
    }
    assert_eq!(disk.operations()[padding].action, Action::WriteAt);
}

#[rstest]
fn a_rotation_renames_the_old_file_and_starts_a_new_one(
    #[values(Durability::Written, Durability::Synced, HOUR)] durability: Durability,
) {
    let disk = empty_disk();
    let journal = open(&disk, durability).unwrap();
    for rotation in 0..3 {
        journal.append(row(rotation).as_bytes()).unwrap();
        journal.rotate(&input(rotation)).unwrap();
        assert_eq!(text(&disk, F).unwrap(), format!("{HEADER}\n"));
        assert_eq!(text(&disk, input(rotation)).unwrap(), format!("{HEADER}\n{}", row(rotation)));
        let survivors = disk.state().survivors(0).disks;
        assert_eq!(survivors, BTreeSet::from([disk.state().contents()]), "all of it is durable");
    }
}

/// A call of the journal.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Step {
    Append(usize),
    Rotate,
    Sync,
}

use Step::{Append, Rotate, Sync};

const STEPS: [Step; 12] = [
    Append(1),
    Append(3),
    Sync,
    Rotate,
    Append(2),
    Rotate,
    Append(1),
    Append(8),
    Rotate,
    Sync,
    Append(1),
    Append(1),
];

/// The results of the steps.
#[derive(Debug, Default)]
struct History {
    acknowledged: Vec<String>,
    failed: Vec<String>,
    errors: usize,
    rotate_errors: Vec<RotateError>,
}

impl History {
    fn run(journal: &Journal, disk: &SimulatedDisk) -> (Self, Vec<(String, usize)>) {
        let mut history = Self::default();
        // The disk's number of moments when each row was acknowledged.
        let mut moments = Vec::new();
        let mut next = 0;
        for (n, step) in STEPS.into_iter().enumerate() {
            let refused = journal.refused();
            match step {
                Append(count) => {
                    let rows: Vec<_> = (next..next + count).map(row).collect();
                    next += count;
                    match journal.append(rows.concat().as_bytes()) {
                        Ok(()) => {
                            assert_eq!(refused, None);
                            moments.extend(rows.iter().map(|row| (row.clone(), disk.moment_count())));
                            history.acknowledged.extend(rows);
                        }
                        Err(error) => {
                            assert_eq!(
                                matches!(error, LeaseMgrError::Refused { .. }),
                                refused.is_some(),
                                "{error}"
                            );
                            assert!(
                                journal.refused().is_some() || is_disk_full(&error),
                                "after any failure but a full disk, rows are refused: {error}"
                            );
                            history.failed.extend(rows);
                            history.errors += 1;
                        }
                    }
                }
                Rotate => {
                    if let Err(error) = journal.rotate(&input(n)) {
                        history.rotate_errors.push(error);
                    }
                }
                Sync => history.errors += usize::from(journal.sync().is_err()),
            }
            if refused.is_some() {
                assert_eq!(journal.refused(), refused, "the first failure keeps its reason");
            }
        }
        (history, moments)
    }
}

fn is_disk_full(error: &LeaseMgrError) -> bool {
    matches!(error, LeaseMgrError::Write { action: "write", source, .. } if source.raw_os_error() == Some(ENOSPC))
}

fn all_lines(contents: &Contents) -> Vec<String> {
    contents.values().flat_map(|content| lines(content)).collect()
}

/// Returns how often each line occurs in the files.
fn counts(lines: &[String]) -> BTreeMap<&str, usize> {
    let mut counts = BTreeMap::new();
    for line in lines {
        *counts.entry(line.as_str()).or_default() += 1;
    }
    counts
}

fn effects(action: Action) -> &'static [Effect] {
    match action {
        Action::Append | Action::WriteAt => {
            &[Effect::Nothing, Effect::Half, Effect::AllButOne, Effect::Everything]
        }
        Action::Create
        | Action::Rename
        | Action::Link
        | Action::Remove
        | Action::SetLen
        | Action::Sync
        | Action::SyncDirectory => &[Effect::Nothing, Effect::Everything],
        _ => &[Effect::Nothing],
    }
}

#[rstest]
fn after_any_fault_the_file_has_exactly_the_acknowledged_rows(
    #[values(Durability::Written, Durability::Synced, HOUR)] durability: Durability,
    #[values(false, true)] lasting: bool,
) {
    let start = Contents::from([(F.into(), format!("{HEADER}\n{}", row(900)).into_bytes())]);
    let fault_free = disk(&start);
    let journal = open(&fault_free, durability).unwrap();
    History::run(&journal, &fault_free);
    drop(journal);
    let operations = fault_free.operations();
    let mut failures = 0;
    let mut without_room = 0;
    for (at, operation) in operations.iter().enumerate() {
        for &effect in effects(operation.action) {
            for error in [EIO, ENOSPC, EINTR] {
                if error == EINTR && lasting {
                    // A call that is always interrupted is retried forever.
                    continue;
                }
                let context =
                    format!("{operation}, number {at}: error {error}, {effect:?}, lasting {lasting}");
                let disk = disk(&start).with_fault(Fault { at, error, effect, lasting });
                let Ok(journal) = open(&disk, durability) else {
                    assert_ne!(error, EINTR, "{context}");
                    continue;
                };
                let (history, _) = History::run(&journal, &disk);
                let refused = journal.refused();
                drop(journal);
                failures += usize::from(refused.is_some());
                if error == EINTR {
                    assert_eq!((refused.as_ref(), history.errors), (None, 0), "{context}");
                    assert!(history.rotate_errors.is_empty(), "{context}: {:?}", history.rotate_errors);
                }
                if error == ENOSPC && is_write(operation.action) && !lasting {
                    assert_eq!(refused, None, "{context}");
                    without_room += history.errors;
                }
                if !lasting {
                    // The rotation after a failed one succeeds.
                    assert!(history.rotate_errors.len() <= 1 || refused.is_some(), "{context}");
                }

                let contents = disk.state().contents();
                check(&history, &contents, lasting && refused.is_some(), &context);

                // A reopened journal on a disk without faults works.
                let disk = self::disk(&contents);
                let journal = open(&disk, durability).unwrap();
                journal.append(row(901).as_bytes()).unwrap();
                journal.rotate(&input(901)).unwrap();
                journal.append(row(902).as_bytes()).unwrap();
                drop(journal);
                let mut history = history;
                history.acknowledged.extend([row(900), row(901), row(902)]);
                check(&history, &disk.state().contents(), lasting && refused.is_some(), &context);
            }
        }
    }
    assert!(failures > 20, "only {failures} failures");
    assert_eq!(without_room > 20, !lasting, "{without_room} writes found no room");
}

fn check(history: &History, contents: &Contents, may_be_kept: bool, context: &str) {
    let lines = all_lines(contents);
    let counts = counts(&lines);
    for row in &history.acknowledged {
        let count = counts.get(row.as_str()).copied().unwrap_or(0);
        // A failed rotation may leave a second name of the file.
        assert!(
            count == 1 || (count == 2 && !history.rotate_errors.is_empty()),
            "{context}: {row} in {lines:?}"
        );
    }
    for line in counts.keys() {
        let is_known = history.acknowledged.iter().any(|row| row == line) || *line == row(900);
        assert!(is_known || may_be_kept, "{context}: {line} in {lines:?}");
    }
}

#[rstest]
fn a_failed_rotation_leaves_the_lease_file_and_the_next_one_succeeds(
    #[values(Durability::Written, Durability::Synced)] durability: Durability,
    #[values(false, true)] has_links: bool,
    #[values(false, true)] lasting: bool,
) {
    let start = || {
        let mut disk = empty_disk();
        if !has_links {
            disk = disk.without_links();
        }
        let journal = open(&disk, durability).unwrap();
        journal.append(row(1).as_bytes()).unwrap();
        (disk, journal)
    };
    let (fault_free, journal) = start();
    let begin = fault_free.operations().len();
    journal.rotate(&input(1)).unwrap();
    let operations = fault_free.operations().split_off(begin);
    let (mut failures, mut linked) = (0, 0);
    for (at, operation) in operations.into_iter().enumerate() {
        for &effect in effects(operation.action) {
            let context = format!("{operation}, number {at}: {effect:?}");
            let (disk, journal) = start();
            let _ = disk.clone().with_fault(Fault { at: begin + at, error: EIO, effect, lasting });
            let result = journal.rotate(&input(1));
            let _ = disk.clone().with_fault(Fault { at: usize::MAX, error: EIO, effect, lasting: false });
            if let Err(error) = &result {
                failures += 1;
                if journal.refused().is_some() {
                    assert!(matches!(error, RotateError::Journal(_)), "{context}: {error}");
                    continue;
                }
                journal.append(row(2).as_bytes()).unwrap();
                if journal.file_state().unwrap() == FileState::Lost {
                    // The rename succeeded despite its error, and the check of it failed. All rows
                    // are kept.
                    assert!(lasting && text(&disk, F).unwrap() == format!("{HEADER}\n"), "{context}");
                    assert_eq!(lines(text(&disk, input(1)).unwrap().as_bytes())[0], row(1), "{context}");
                    rewrite(&journal, &[row(1), row(2)], &[]).unwrap();
                }
                assert_eq!(lines(text(&disk, F).unwrap().as_bytes()), [row(1), row(2)], "{context}");
                let name = if journal.is_linked(&input(1)).unwrap() {
                    linked += 1;
                    assert!(has_links, "{context}");
                    input(1)
                } else if text(&disk, input(1)).is_some() {
                    // A copy that could not be removed. The lease file has its rows.
                    input(2)
                } else {
                    input(1)
                };
                journal.rotate(&name).unwrap();
                assert_eq!(lines(text(&disk, name).unwrap().as_bytes()), [row(1), row(2)], "{context}");
            }
            journal.append(row(3).as_bytes()).unwrap();
            drop(journal);
            assert_eq!(lines(text(&disk, F).unwrap().as_bytes()), [row(3)], "{context}");
            assert_eq!(text(&disk, format!("{F}.next")), None, "{context}");
        }
    }
    assert!(failures > 5, "{failures}");
    assert_eq!(linked > 0, lasting && has_links, "{linked}");
}

/// A program that follows the lease file by its name finds a file at each moment, and rows that it
/// has not read are not written to another file.
#[rstest]
fn there_is_a_lease_file_at_each_moment_of_a_rotation(
    #[values(Durability::Written, Durability::Synced)] durability: Durability,
    #[values(false, true)] has_links: bool,
) {
    let disk = if has_links { empty_disk() } else { empty_disk().without_links() };
    let journal = open(&disk, durability).unwrap();
    journal.append(row(1).as_bytes()).unwrap();
    let disk = disk.with_moments();
    journal.rotate(&input(1)).unwrap();
    for moment in disk.moments() {
        let found = lines(&moment.contents()[Path::new(F)]);
        assert!(found == [row(1)] || found.is_empty(), "{found:?}");
        if durability != Durability::Synced {
            continue;
        }
        for contents in moment.survivors(0).disks {
            let files = [PathBuf::from(F), input(1)].into_iter().filter_map(|path| contents.get(&path));
            assert!(files.flat_map(|content| lines(content)).any(|line| line == row(1)));
        }
    }
}

#[rstest]
fn a_file_of_another_process_is_not_given_to_the_cleanup(
    #[values(Durability::Written, Durability::Synced)] durability: Durability,
) {
    let disk = empty_disk();
    let journal = open(&disk, durability).unwrap();
    journal.append(row(1).as_bytes()).unwrap();
    fs_rename(&disk, F, "/leases/elsewhere");
    let other = format!("{HEADER}\n{}", row(7));
    FileSystem::create(&disk, Path::new(F)).unwrap().append(other.as_bytes()).unwrap();
    let error = journal.rotate(&input(1)).unwrap_err();
    assert!(matches!(error, RotateError::Changed { .. }), "{error}");
    assert_eq!((text(&disk, F), text(&disk, input(1))), (Some(other), None));
}

fn fs_rename(disk: &SimulatedDisk, from: impl AsRef<Path>, to: impl AsRef<Path>) {
    FileSystem::rename(disk, from.as_ref(), to.as_ref()).unwrap();
}

/// Appends each row in its own thread, all at the same time, and returns their results.
fn append_together(journal: &Journal, rows: &[String]) -> Vec<thread::Result<Result<(), LeaseMgrError>>> {
    append_together_after(journal, rows, |_| {})
}

/// As [`append_together`], but runs `before` while all rows wait.
fn append_together_after(
    journal: &Journal,
    rows: &[String],
    before: impl FnOnce(&mut Tail),
) -> Vec<thread::Result<Result<(), LeaseMgrError>>> {
    thread::scope(|scope| {
        let mut tail = journal.shared.tail.lock();
        let append = |row| scope.spawn(move || journal.append(String::as_bytes(row)));
        let threads: Vec<_> = rows.iter().map(append).collect();
        wait_until("all rows wait", || journal.shared.queue.len() == rows.len() as u64);
        before(&mut tail);
        drop(tail);
        threads.into_iter().map(thread::ScopedJoinHandle::join).collect()
    })
}

#[rstest]
#[case::written(Durability::Written, 1, 0)]
// The second write extends the file.
#[case::synced(Durability::Synced, 2, 1)]
fn concurrent_rows_share_a_write(
    #[case] durability: Durability,
    #[case] writes: usize,
    #[case] syncs: usize,
) {
    let disk = empty_disk();
    let journal = open(&disk, durability).unwrap();
    let rows: Vec<_> = (0..16).map(row).collect();
    let before = (count_writes(&disk), count(&disk, Action::Sync));
    for result in append_together(&journal, &rows) {
        result.unwrap().unwrap();
    }
    let after = (count_writes(&disk), count(&disk, Action::Sync));
    assert_eq!((after.0 - before.0, after.1 - before.1), (writes, syncs));
    let mut found = lines(text(&disk, F).unwrap().as_bytes());
    found.sort_unstable();
    let mut rows = rows;
    rows.sort_unstable();
    assert_eq!(found, rows);
}

#[rstest]
fn a_failed_write_fails_all_rows_that_shared_it(
    #[values(Durability::Written, Durability::Synced)] durability: Durability,
    #[values(Effect::Nothing, Effect::Half, Effect::Everything)] effect: Effect,
) {
    let disk = empty_disk();
    let journal = open(&disk, durability).unwrap();
    journal.append(row(99).as_bytes()).unwrap();
    let rows: Vec<_> = (0..5).map(row).collect();
    fail_next(&disk, EIO, effect);
    for result in append_together(&journal, &rows) {
        assert_write_error(result.unwrap(), "write", EIO);
    }
    assert_refused(journal.append(row(6).as_bytes()), "write", EIO);
    assert_eq!(journal.refused().unwrap(), format!("{F}: cannot write: Input/output error (os error 5)"));
    assert!(matches!(journal.rotate(&input(1)), Err(RotateError::Journal(LeaseMgrError::Refused { .. }))));
    if durability == Durability::Synced {
        // They do not reappear after a power cut either.
        for contents in disk.state().survivors(0).disks {
            assert_eq!(lines(&contents[Path::new(F)]), [row(99)]);
        }
    }
    drop(journal);
    assert_eq!(text(&disk, F).unwrap(), format!("{HEADER}\n{}", row(99)));
}

#[rstest]
fn on_a_full_disk_only_the_rows_of_the_failed_write_fail(
    #[values(Durability::Written, Durability::Synced, HOUR)] durability: Durability,
    #[values(Effect::Nothing, Effect::Half, Effect::Everything)] effect: Effect,
    #[values(ENOSPC, EDQUOT)] error: i32,
) {
    let disk = empty_disk();
    let journal = open(&disk, durability).unwrap();
    journal.append(row(99).as_bytes()).unwrap();
    for _ in 0..2 {
        // Where rows are synced, the length of the file is checked before the write.
        let at = disk.operations().len() + usize::from(durability == Durability::Synced);
        let _ = disk.clone().with_fault(Fault { at, error, effect, lasting: false });
        let rows: Vec<_> = (0..5).map(row).collect();
        for result in append_together(&journal, &rows) {
            assert_write_error(result.unwrap(), "write", error);
        }
        assert_eq!(journal.refused(), None);
        assert!(journal.warning().unwrap().starts_with(&format!("{F}: cannot write: ")));
        assert_eq!(lines(text(&disk, F).unwrap().as_bytes()), [row(99)]);
    }
    if durability == Durability::Synced {
        for contents in disk.state().survivors(0).disks {
            assert_eq!(lines(&contents[Path::new(F)]), [row(99)]);
        }
    }
    let mut expected: Vec<_> = (10..15).map(row).collect();
    for result in append_together(&journal, &expected) {
        result.unwrap().unwrap();
    }
    assert_eq!(journal.warning(), None);
    journal.rotate(&input(1)).unwrap();
    expected.push(row(99));
    let mut found = lines(text(&disk, input(1)).unwrap().as_bytes());
    for lines in [&mut found, &mut expected] {
        lines.sort_unstable();
    }
    assert_eq!(found, expected);
}

#[rstest]
fn with_many_threads_and_a_full_disk_the_file_has_exactly_the_acknowledged_rows(
    #[values(Durability::Written, Durability::Synced)] durability: Durability,
) {
    const ROWS: usize = 100;
    let disk = empty_disk();
    let journal = open(&disk, durability).unwrap();
    let disk = disk.with_full_writes(7);
    let acknowledged = Mutex::new(BTreeSet::new());
    thread::scope(|scope| {
        for thread in 0..4 {
            let (journal, acknowledged) = (&journal, &acknowledged);
            scope.spawn(move || {
                for number in thread * ROWS..(thread + 1) * ROWS {
                    match journal.append(row(number).as_bytes()) {
                        Ok(()) => assert!(acknowledged.lock().insert(row(number))),
                        Err(error) => assert!(is_disk_full(&error), "{error}"),
                    }
                }
            });
        }
    });
    assert!(journal.shared.queue.lock().has_no_rejections(), "a thread did not read its error");
    drop(journal);
    let acknowledged = acknowledged.into_inner();
    let found = lines(text(&disk, F).unwrap().as_bytes());
    assert_eq!(found.len(), acknowledged.len());
    assert_eq!(BTreeSet::from_iter(found), acknowledged);
    assert!((100..400).contains(&acknowledged.len()), "{} of 400", acknowledged.len());
}

/// How another process takes the name of the lease file away.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum NameLoss {
    Removed,
    Replaced,
}

impl NameLoss {
    const OTHER: &str = "something else\n";

    fn from(self, disk: &SimulatedDisk, path: &Path) {
        FileSystem::remove(disk, path).unwrap();
        if self == Self::Replaced {
            FileSystem::create(disk, path).unwrap().append(Self::OTHER.as_bytes()).unwrap();
        }
    }

    /// Returns the contents of the other process's file, which is kept.
    fn kept(self) -> Option<String> {
        (self == Self::Replaced).then(|| Self::OTHER.to_owned())
    }
}

/// Rewrites the lease file with `rows`, while `later` are appended to the old one.
fn rewrite(journal: &Journal, rows: &[String], later: &[String]) -> Result<Option<PathBuf>, LeaseFileError> {
    let mut rewrite = journal.rewrite()?;
    rewrite.merge_changes(|_, _| Ok(()))?;
    for row in later {
        journal.append(row.as_bytes()).unwrap();
    }
    rewrite.append(rows.concat().as_bytes())?;
    rewrite.finish()
}

#[rstest]
fn a_removed_or_replaced_file_is_rewritten(
    #[values(Durability::Written, Durability::Synced, HOUR)] durability: Durability,
    #[values(NameLoss::Removed, NameLoss::Replaced)] loss: NameLoss,
) {
    let disk = empty_disk();
    let journal = open(&disk, durability).unwrap();
    journal.append(row(1).as_bytes()).unwrap();
    assert_eq!(journal.file_state().unwrap(), FileState::Unchanged);
    loss.from(&disk, Path::new(F));
    journal.append(row(2).as_bytes()).unwrap();
    assert_eq!(journal.file_state().unwrap(), FileState::Lost);
    let kept = rewrite(&journal, &[row(1), row(2)], &[row(3)]).unwrap();
    assert_eq!(kept, loss.kept().map(|_| format!("{F}.replaced").into()));
    for disk in disk.state().survivors(0).disks {
        assert_eq!(lines(&disk[Path::new(F)]), [row(1), row(2), row(3)]);
    }
    assert_eq!(journal.file_state().unwrap(), FileState::Unchanged);
    journal.append(row(4).as_bytes()).unwrap();
    assert_eq!((journal.refused(), journal.warning()), (None, None));
    drop(journal);
    assert_eq!(lines(text(&disk, F).unwrap().as_bytes()), [row(1), row(2), row(3), row(4)]);
    assert_eq!(text(&disk, format!("{F}.replaced")), loss.kept());
    assert_eq!(text(&disk, format!("{F}.restored")), None);
}

#[rstest]
fn after_any_fault_in_a_rewrite_the_next_rewrite_succeeds(
    #[values(Durability::Written, Durability::Synced)] durability: Durability,
    #[values(NameLoss::Removed, NameLoss::Replaced)] loss: NameLoss,
    #[values(EIO, ENOSPC, EINTR)] error: i32,
) {
    let start = |fault: Option<Fault>| {
        let disk = empty_disk();
        let journal = open(&disk, durability).unwrap();
        journal.append(row(1).as_bytes()).unwrap();
        loss.from(&disk, Path::new(F));
        let begin = disk.operations().len();
        if let Some(fault) = fault {
            let _ = disk.clone().with_fault(Fault { at: begin + fault.at, ..fault });
        }
        let result = rewrite(&journal, &[row(1)], &[]);
        (disk, journal, begin, result)
    };
    let (fault_free, _journal, begin, _) = start(None);
    let operations = fault_free.operations().split_off(begin);
    let mut failures = 0;
    for (at, operation) in operations.into_iter().enumerate() {
        for &effect in effects(operation.action) {
            let context = format!("{operation}, number {at}: error {error}, {effect:?}");
            let (disk, journal, _, result) = start(Some(Fault { at, error, effect, lasting: false }));
            failures += usize::from(result.is_err());
            journal.append(row(2).as_bytes()).unwrap();
            if journal.file_state().unwrap() != FileState::Unchanged {
                assert!(result.is_err(), "{context}");
                rewrite(&journal, &[row(1), row(2)], &[]).unwrap();
            }
            assert_eq!(journal.file_state().unwrap(), FileState::Unchanged, "{context}");
            assert_eq!((journal.refused(), journal.warning()), (None, None), "{context}");
            drop(journal);
            assert_eq!(lines(text(&disk, F).unwrap().as_bytes()), [row(1), row(2)], "{context}");
            assert_eq!(text(&disk, format!("{F}.replaced")), loss.kept(), "{context}");
            assert_eq!(text(&disk, format!("{F}.restored")), None, "{context}");
        }
    }
    assert_eq!(failures > 8, error != EINTR, "{failures}");
}

/// How another process changes the lease file in place.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum ForeignChange {
    Appended,
    AppendedTorn,
    Emptied,
    CutOff,
    Overwritten,
    OverwrittenLonger,
}

impl ForeignChange {
    fn apply(self, disk: &SimulatedDisk) {
        let file = FileSystem::open_write(disk, Path::new(F)).unwrap();
        let set = |text: &str| {
            file.set_len(0).unwrap();
            file.append(text.as_bytes()).unwrap();
        };
        match self {
            Self::Appended => file.append(row(70).as_bytes()).unwrap(),
            Self::AppendedTorn => file.append(row(70).trim_end().as_bytes()).unwrap(),
            Self::Emptied => set(""),
            Self::CutOff => file.set_len(HEADER.len() as u64 + 4).unwrap(),
            Self::Overwritten => set(&format!("{HEADER}\n")),
            Self::OverwrittenLonger => set(&format!("{HEADER}\n{}", (70..170).map(row).collect::<String>())),
        }
    }
}

#[rstest]
fn changes_of_another_process_are_detected_and_not_overwritten(
    #[values(Durability::Written, Durability::Synced, HOUR)] durability: Durability,
    #[values(
        ForeignChange::Appended,
        ForeignChange::AppendedTorn,
        ForeignChange::Emptied,
        ForeignChange::CutOff,
        ForeignChange::Overwritten,
        ForeignChange::OverwrittenLonger
    )]
    change: ForeignChange,
    #[values(false, true)] is_checked_before: bool,
) {
    let disk = empty_disk();
    let journal = open(&disk, durability).unwrap();
    journal.append((1..4).map(row).collect::<String>().as_bytes()).unwrap();
    if is_checked_before {
        assert_eq!(journal.file_state().unwrap(), FileState::Unchanged);
    }
    change.apply(&disk);
    let foreign: Vec<_> = lines_after_any_header(&disk);
    journal.append(row(5).as_bytes()).unwrap();
    journal.append(row(6).as_bytes()).unwrap();
    let all = text(&disk, F).unwrap();
    assert!(!all.contains('\0'), "{all:?}");
    let found = lines_after_any_header(&disk);
    assert!(
        found[..foreign.len()] == foreign
            || change == ForeignChange::AppendedTorn
            || change == ForeignChange::CutOff
    );
    assert!(found.ends_with(&[row(6)]));
    assert_eq!(journal.file_state().unwrap(), FileState::Changed);
    assert!(matches!(journal.rotate(&input(1)), Err(RotateError::Changed { .. })));

    // The examined range has all that the other process may have changed, and all rows since.
    let mut examined = None;
    let mut rewrite = journal.rewrite().unwrap();
    rewrite
        .merge_changes(|file, changed| {
            let mut bytes = vec![0; (changed.end - changed.from) as usize];
            file.read_at(&mut bytes, changed.from).unwrap();
            examined = Some((changed.from, String::from_utf8(bytes).unwrap()));
            Ok(())
        })
        .unwrap();
    let (from, examined) = examined.unwrap();
    let is_longer = matches!(change, ForeignChange::Appended | ForeignChange::AppendedTorn);
    assert_eq!(from > 0, is_longer, "{change:?}");
    assert!(examined.contains(row(6).trim_end()) && examined.contains(row(5).trim_end()));
    assert!(!is_longer || examined.contains(row(70).trim_end()));
    // Until it is rewritten, the file stays due for it.
    journal.append(row(8).as_bytes()).unwrap();
    drop(rewrite);
    assert_eq!(journal.file_state().unwrap(), FileState::Due);
    let mut rewrite = journal.rewrite().unwrap();
    rewrite.merge_changes(|_, _| panic!("nothing has changed since")).unwrap();
    rewrite.append(row(1).as_bytes()).unwrap();
    journal.append(row(9).as_bytes()).unwrap();
    rewrite.finish().unwrap();
    assert_eq!(journal.file_state().unwrap(), FileState::Unchanged);
    journal.append(row(10).as_bytes()).unwrap();
    journal.rotate(&input(1)).unwrap();
    assert_eq!(lines(text(&disk, input(1)).unwrap().as_bytes()), [row(1), row(9), row(10)]);
}

/// Returns the lines that are neither the header nor empty, whatever the file begins with.
fn lines_after_any_header(disk: &SimulatedDisk) -> Vec<String> {
    let text = text(disk, F).unwrap();
    let lines = text.lines().filter(|line| !line.is_empty() && *line != HEADER);
    lines.map(|line| format!("{line}\n")).collect()
}

#[rstest]
#[case::appended(ForeignChange::Appended, true)]
#[case::emptied(ForeignChange::Emptied, false)]
#[case::overwritten(ForeignChange::OverwrittenLonger, false)]
fn changes_during_a_rewrite_are_examined_by_the_next_one(
    #[values(Durability::Written, Durability::Synced)] durability: Durability,
    #[case] change: ForeignChange,
    #[case] ends: bool,
) {
    let disk = empty_disk();
    let journal = open(&disk, durability).unwrap();
    journal.append(row(1).as_bytes()).unwrap();
    let mut rewrite = journal.rewrite().unwrap();
    rewrite.merge_changes(|_, _| panic!("nothing has changed")).unwrap();
    rewrite.append(row(1).as_bytes()).unwrap();
    journal.append(row(2).as_bytes()).unwrap();
    change.apply(&disk);
    journal.append(row(3).as_bytes()).unwrap();
    assert_eq!(rewrite.finish().is_ok(), ends);
    assert_eq!(journal.file_state().unwrap(), FileState::Changed);
    let mut rewrite = journal.rewrite().unwrap();
    let mut examined = None;
    rewrite
        .merge_changes(|file, changed| {
            let mut bytes = vec![0; (changed.end - changed.from) as usize];
            file.read_at(&mut bytes, changed.from).unwrap();
            examined = Some(String::from_utf8(bytes).unwrap());
            Ok(())
        })
        .unwrap();
    let examined = examined.unwrap();
    assert!(examined.contains(row(3).trim_end()), "{examined}");
    assert!(change == ForeignChange::Emptied || examined.contains(row(70).trim_end()), "{examined}");
}

#[rstest]
fn rows_that_wait_while_a_sync_fails_are_not_written(
    #[values(Durability::Written, Durability::Synced)] durability: Durability,
) {
    let disk = empty_disk();
    let journal = open(&disk, durability).unwrap();
    let rows: Vec<_> = (0..3).map(row).collect();
    let fail = |tail: &mut Tail| {
        let _ = journal.shared.fail(tail, failure::Action::Sync, std::io::Error::from_raw_os_error(EIO), 0);
    };
    for result in append_together_after(&journal, &rows, fail) {
        assert_refused(result.unwrap(), "sync", EIO);
    }
    drop(journal);
    assert_eq!(text(&disk, F).unwrap(), format!("{HEADER}\n"));
}

/// Returns a lock that blocks every sync while the test holds it.
fn lock_of_syncs(disk: &SimulatedDisk) -> Arc<Mutex<()>> {
    let lock = Arc::new(Mutex::new(()));
    let passed = Arc::clone(&lock);
    let _ = disk.clone().before_each(move |_, operation| {
        if operation.action == Action::Sync {
            drop(passed.lock());
        }
    });
    lock
}

/// Appends a row, and two others while it is being synced.
fn append_during_a_sync(disk: &SimulatedDisk, journal: &Journal) -> [Result<(), LeaseMgrError>; 3] {
    let lock = lock_of_syncs(disk);
    thread::scope(|scope| {
        let blocked = lock.lock();
        let append = |number| scope.spawn(move || journal.append(row(number).as_bytes()));
        let first = append(1);
        wait_until("the first row is being synced", || {
            journal.shared.queue.len() == 1 && journal.shared.queue.lock().has_no_rows()
        });
        let others = [append(2), append(3)];
        wait_until("two others wait", || journal.shared.queue.len() == 3);
        drop(blocked);
        let [second, third] = others;
        [first, second, third].map(|thread| thread.join().unwrap())
    })
}

#[test]
fn rows_that_arrive_during_a_sync_share_the_next_one() {
    let disk = empty_disk();
    let journal = open(&disk, Durability::Synced).unwrap();
    let before = count(&disk, Action::Sync);
    for result in append_during_a_sync(&disk, &journal) {
        result.unwrap();
    }
    assert_eq!(count(&disk, Action::Sync) - before, 2);
}

#[test]
fn rows_that_arrive_during_a_failing_sync_are_refused() {
    let disk = empty_disk();
    let journal = open(&disk, Durability::Synced).unwrap();
    let disk = disk.clone().with_failing_sync(count(&disk, Action::Sync) + 1);
    let [first, second, third] = append_during_a_sync(&disk, &journal);
    assert_write_error(first, "sync", EIO);
    assert_refused(second, "sync", EIO);
    assert_refused(third, "sync", EIO);
}

#[test]
fn a_sync_does_not_return_before_another_that_began_earlier() {
    let disk = disk(&Contents::from([(F.into(), format!("{HEADER}\n").into())]));
    let journal = open(&disk, Durability::Written).unwrap();
    journal.append(row(1).as_bytes()).unwrap();
    let lock = lock_of_syncs(&disk);
    thread::scope(|scope| {
        let blocked = lock.lock();
        scope.spawn(|| journal.sync().unwrap());
        wait_until("the first sync goes on", || !journal.shared.tail.lock().unsynced);
        let second = scope.spawn(|| {
            journal.sync().unwrap();
            disk.state().survivors(0).disks
        });
        // Gives the second sync a chance to return too early.
        (0..1000).for_each(|_| thread::yield_now());
        drop(blocked);
        let survivors = second.join().unwrap();
        assert_eq!(survivors, BTreeSet::from([disk.state().contents()]));
    });
}

#[test]
fn a_failed_sync_fails_all_rows_that_shared_it() {
    let disk = empty_disk();
    let journal = open(&disk, Durability::Synced).unwrap();
    journal.append(row(99).as_bytes()).unwrap();
    let disk = disk.clone().with_failing_sync(count(&disk, Action::Sync) + 1);
    let rows: Vec<_> = (0..5).map(row).collect();
    for result in append_together(&journal, &rows) {
        assert_write_error(result.unwrap(), "sync", EIO);
    }
    assert_refused(journal.append(row(6).as_bytes()), "sync", EIO);
    assert_refused(journal.sync(), "sync", EIO);
    drop(journal);
    assert_eq!(text(&disk, F).unwrap(), format!("{HEADER}\n{}", row(99)));
}

#[rstest]
fn a_panic_of_one_thread_is_a_failure_for_the_others(
    #[values(Durability::Written, Durability::Synced)] durability: Durability,
) {
    let disk = empty_disk();
    let journal = open(&disk, durability).unwrap();
    let panics = disk.operations().len();
    let _ = disk.clone().before_each(move |number, _| assert_ne!(number, panics, "injected"));
    let rows: Vec<_> = (0..5).map(row).collect();
    let results = append_together(&journal, &rows);
    assert_eq!(results.iter().filter(|result| result.is_err()).count(), 1);
    for result in results.into_iter().flatten() {
        assert!(matches!(result, Err(LeaseMgrError::Write { .. })), "{result:?}");
    }
    assert!(matches!(journal.append(b"x\n"), Err(LeaseMgrError::Refused { .. })));
}

#[test]
fn written_rows_are_synced_at_intervals() {
    let disk = empty_disk();
    let journal = open(&disk, Durability::SyncedEvery(Duration::from_millis(1))).unwrap();
    for n in 1..=3 {
        let before = count(&disk, Action::Sync);
        journal.append(row(n).as_bytes()).unwrap();
        wait_until("the row is synced", || count(&disk, Action::Sync) > before);
    }
}

#[test]
fn after_a_failed_background_sync_nothing_is_written() {
    let disk = empty_disk().with_failing_sync(2);
    let journal = open(&disk, Durability::SyncedEvery(Duration::from_millis(1))).unwrap();
    journal.append(row(1).as_bytes()).unwrap();
    wait_until("the sync has failed", || journal.refused().is_some());
    assert_refused(journal.append(row(2).as_bytes()), "sync", EIO);
    assert_refused(journal.sync(), "sync", EIO);
    drop(journal);
    assert_eq!(lines(text(&disk, F).unwrap().as_bytes()), [row(1)], "acknowledged rows are kept");
}

#[rstest]
fn rows_acknowledged_before_a_failed_write_can_still_be_synced(
    #[values(HOUR, Durability::Written)] durability: Durability,
) {
    let disk = empty_disk();
    let journal = open(&disk, durability).unwrap();
    journal.append(row(1).as_bytes()).unwrap();
    fail_next(&disk, EIO, Effect::Half);
    assert_write_error(journal.append(row(2).as_bytes()), "write", EIO);
    let before = count(&disk, Action::Sync);
    journal.sync().unwrap();
    assert_eq!(count(&disk, Action::Sync), before + 1);
}

#[test]
fn closing_does_not_wait_for_the_next_interval() {
    let disk = empty_disk();
    let journal = open(&disk, HOUR).unwrap();
    journal.append(row(1).as_bytes()).unwrap();
    let before = count(&disk, Action::Sync);
    drop(journal);
    assert_eq!(count(&disk, Action::Sync), before + 1);
}

#[rstest]
#[case::written(Durability::Written, 500)]
#[case::synced(Durability::Synced, 20)]
#[case::every_millisecond(Durability::SyncedEvery(Duration::from_millis(1)), 500)]
fn with_many_threads_and_rotations_each_row_is_kept_once_and_in_order(
    #[case] durability: Durability,
    #[case] rows: usize,
) {
    const THREADS: usize = 6;
    const ROTATIONS: usize = 5;
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("f");
    let journal = Journal::open(Arc::new(OsFileSystem), path.clone(), HEADER, durability).unwrap();
    let (appended, begun, ended) = (AtomicUsize::new(0), AtomicUsize::new(0), AtomicUsize::new(0));
    let mut files = Vec::new();
    thread::scope(|scope| {
        for thread in 0..THREADS {
            let (journal, appended, begun, ended) = (&journal, &appended, &begun, &ended);
            scope.spawn(move || {
                for part in 0..=ROTATIONS {
                    // Rows are appended during every rotation, and after the last one.
                    let rotations = if part == ROTATIONS { ended } else { begun };
                    wait_until("the next rotation", || rotations.load(Ordering::SeqCst) >= part);
                    for number in part * rows..(part + 1) * rows {
                        journal.append(row(thread * 10_000 + number).as_bytes()).unwrap();
                        appended.fetch_add(1, Ordering::SeqCst);
                    }
                }
            });
        }
        for rotation in 1..=ROTATIONS {
            let enough = rotation * THREADS * rows;
            wait_until("there are rows", || appended.load(Ordering::SeqCst) >= enough - THREADS * rows / 2);
            begun.store(rotation, Ordering::SeqCst);
            let input = directory.path().join(format!("f.1-{rotation}"));
            journal.rotate(&input).unwrap();
            ended.store(rotation, Ordering::SeqCst);
            let content = std::fs::read(&input).unwrap();
            files.push((input, content));
        }
    });
    drop(journal);
    let mut found = Vec::new();
    for (input, content) in &files {
        assert_eq!(
            &std::fs::read(input).unwrap(),
            content,
            "nothing is written to it when rotate has returned"
        );
        found.extend(lines(content));
    }
    found.extend(lines(&std::fs::read(&path).unwrap()));
    let mut next = [0; THREADS];
    for line in &found {
        let number: usize = line.trim_end().rsplit(',').next().unwrap().parse().unwrap();
        assert_eq!(*line, row(number));
        let next = &mut next[number / 10_000];
        assert_eq!(number % 10_000, *next, "the rows of a thread are in the order in which it appended them");
        *next += 1;
    }
    assert_eq!(next, [(ROTATIONS + 1) * rows; THREADS]);
}

/// Checks every moment of a disk: after a power cut, the acknowledged rows are in the files, and
/// nothing that a reader would accept as another row.
fn check_power_cuts(disk: &SimulatedDisk, acknowledged: &[(String, usize)], attempted: &BTreeSet<String>) {
    let mut checked = BTreeSet::new();
    for (n, moment) in disk.moments().into_iter().enumerate() {
        // The state with the number n is current from the moment count n + 1 on.
        let rows: Vec<&str> =
            acknowledged.iter().filter(|(_, count)| *count <= n + 1).map(|(row, _)| row.as_str()).collect();
        for contents in moment.survivors(n as u64).disks {
            if !checked.insert((rows.len(), contents.clone())) {
                continue;
            }
            let mut found = Vec::new();
            for (path, content) in &contents {
                // A new file may have the length of its header, but not its contents.
                if content.iter().all(|&byte| byte == 0) {
                    let is_new = path == Path::new(F) || path == Path::new("/leases/f.next");
                    assert!(is_new && content.len() <= HEADER.len() + 1, "moment {n}: {path:?}");
                    continue;
                }
                found.extend(lines(content));
            }
            let counts = counts(&found);
            // An interrupted rotation leaves a second name of the file.
            let is_there = |row: &str| matches!(counts.get(row), Some(1 | 2));
            for row in &rows {
                assert!(is_there(row), "moment {n}: {row}");
            }
            for (line, count) in counts {
                // A row longer than a sector may contain zeros if its own write extended the file.
                // Kea's writers never write such rows, and it was not acknowledged.
                let has_zeros = line.contains('\0');
                let was_tried = attempted.contains(line) && count <= 2;
                // A row whose last column crosses the end of a sector may have lost its last
                // digits.
                let left = line.trim_end();
                let is_cut = || attempted.iter().any(|row| row.starts_with(left) && row.trim_end() != left);
                assert!(!is_row(line) || was_tried || has_zeros || is_cut(), "moment {n}: {line}");
            }
        }
    }
    assert!(checked.len() > 100, "only {} disks were checked", checked.len());
}

#[rstest]
#[case::short("x")]
#[case::longer_than_a_sector(&"x".repeat(1300))]
fn a_power_cut_never_turns_a_row_into_another(#[case] filler: &str) {
    let row = format!("110.110.110.110,{filler},1234567890\n");
    for used in 0..512 {
        let before = format!("{HEADER}\n10.0.0.1,{},1\n", "x".repeat(used));
        // The file has padding already, as after some more appends.
        let disk = disk(&Contents::from([(F.into(), before.clone().into())]));
        let journal = open(&disk, Durability::Synced).unwrap();
        journal.append(b"10.0.0.2,x,2\n").unwrap();
        let disk = disk.clone().with_moments();
        journal.append(row.as_bytes()).unwrap();
        let mut kept = 0;
        for contents in disk.moments().iter().flat_map(|moment| moment.survivors(0).disks) {
            let rows: Vec<_> =
                lines(&contents[Path::new(F)]).into_iter().filter(|line| is_row(line)).collect();
            assert_eq!(rows[1], "10.0.0.2,x,2\n");
            assert!(rows.len() == 2 || rows[2..] == [row.clone()], "{used} bytes before: {:?}", &rows[2..]);
            kept += usize::from(rows.len() == 3);
        }
        assert!(kept > 0);
    }
}

#[test]
fn a_power_cut_loses_no_row_that_was_acknowledged_as_synced() {
    let disk = empty_disk().with_moments();
    let journal = open(&disk, Durability::Synced).unwrap();
    let (history, acknowledged) = History::run(&journal, &disk);
    assert_eq!(history.errors, 0);
    drop(journal);
    check_power_cuts(&disk, &acknowledged, &history.acknowledged.into_iter().collect());
}

#[test]
fn a_power_cut_loses_no_synced_row_of_any_thread() {
    const ROWS: usize = 10;
    let disk = empty_disk().with_moments();
    let journal = open(&disk, Durability::Synced).unwrap();
    let acknowledged = Mutex::new(Vec::new());
    thread::scope(|scope| {
        for thread in 0..4 {
            let (journal, disk, acknowledged) = (&journal, &disk, &acknowledged);
            scope.spawn(move || {
                for number in thread * ROWS..(thread + 1) * ROWS {
                    journal.append(row(number).as_bytes()).unwrap();
                    let count = disk.moment_count();
                    acknowledged.lock().push((row(number), count));
                }
            });
        }
        for rotation in 0..3 {
            wait_until("there are more rows", || acknowledged.lock().len() > rotation * ROWS);
            journal.rotate(&input(rotation)).unwrap();
        }
    });
    drop(journal);
    check_power_cuts(&disk, &acknowledged.into_inner(), &(0..4 * ROWS).map(row).collect());
}

#[test]
fn after_a_power_cut_the_journal_continues_after_the_last_row() {
    let disk = empty_disk().with_moments();
    let journal = open(&disk, Durability::Synced).unwrap();
    let (_, acknowledged) = History::run(&journal, &disk);
    drop(journal);
    let mut reopened = 0;
    for (n, moment) in disk.moments().into_iter().enumerate().step_by(3) {
        for contents in moment.survivors(7).disks {
            let disk = self::disk(&contents);
            let journal = open(&disk, Durability::Synced).unwrap();
            journal.append(row(900).as_bytes()).unwrap();
            drop(journal);
            let content = text(&disk, F).unwrap();
            assert!(content.ends_with(&format!("\n{}", row(900))), "moment {n}: {content:?}");
            let rows = acknowledged.iter().filter(|(_, count)| *count <= n + 1);
            let found = disk.state().contents();
            let found: BTreeSet<_> = found
                .values()
                .flat_map(|content| {
                    String::from_utf8_lossy(content)
                        .into_owned()
                        .split_inclusive('\n')
                        .map(str::to_owned)
                        .collect::<Vec<_>>()
                })
                .collect();
            for (row, _) in rows {
                assert!(found.contains(row), "moment {n}: {row}");
            }
            reopened += 1;
        }
    }
    assert!(reopened > 20, "only {reopened}");
}
