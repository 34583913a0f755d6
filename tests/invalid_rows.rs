//! Invalid rows are not deleted: a cleanup keeps them in a separate file, and rejects a file that
//! has no valid row.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test")]

use std::fs;
use std::path::Path;
use std::process::Command;

use leasemgr::WriteLeases;
use leasemgr::lease::{Family, Lease4, Lease6};
use leasemgr::lease_file::{FileLease, LeaseFileSet, ReadError, Reader};
use leasemgr::lfc::{Cleanup, LfcError};
use leasemgr::memfile::{Memfile, MemfileOptions};
use rstest::rstest;

fn header(family: Family) -> &'static str {
    match family {
        Family::V4 => Lease4::schema().header,
        Family::V6 => Lease6::schema().header,
    }
}

/// Returns a valid row.
fn row(family: Family, n: usize) -> String {
    match family {
        Family::V4 => format!("192.0.2.{n},02:00:00:00:00:01,,3600,1790003600,1,0,0,,0,,0"),
        Family::V6 => format!("2001:db8::{n:x},00:01:02:03,3600,1790003600,1,1800,0,7,128,0,0,,,0,,0,0,0"),
    }
}

/// Returns a row in another format: octets without colons, times as text.
fn other_row(family: Family, n: usize) -> String {
    match family {
        Family::V4 => format!("192.0.2.{n},02000000{n:04x},,3600,2026-11-25 10:00:00,1,0,0,,0,,0"),
        Family::V6 => {
            format!("2001:db8::{n:x},0001020{n:x},1 h,2026-11-25 10:00:00,1,1800,0,7,128,0,0,,,0,,0,0,0")
        }
    }
}

/// The files of a server.
struct Place {
    directory: tempfile::TempDir,
    files: LeaseFileSet,
    family: Family,
    by_program: bool,
}

impl Place {
    fn new(family: Family, by_program: bool) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let files = LeaseFileSet::new(directory.path().join("leases.csv"));
        Self { directory, files, family, by_program }
    }

    fn put<R: AsRef<[u8]>>(&self, path: impl AsRef<Path>, rows: impl IntoIterator<Item = R>) {
        let mut text = format!("{}\n", header(self.family)).into_bytes();
        for row in rows {
            text.extend_from_slice(row.as_ref());
            text.push(b'\n');
        }
        fs::write(path, text).unwrap();
    }

    /// Cleans up. Returns the error message if the cleanup fails.
    fn clean(&self) -> Result<(), String> {
        let files = self.files.lfc_files();
        if !self.by_program {
            return Cleanup::new(self.family, files)
                .run()
                .map(drop)
                .map_err(|error| leasemgr::with_sources(&error).to_string());
        }
        let output = Command::new(env!("CARGO_BIN_EXE_kea-lfc"))
            .arg(if self.family == Family::V4 { "-4" } else { "-6" })
            .arg("-x")
            .arg(files.previous)
            .arg("-i")
            .arg(files.input)
            .arg("-o")
            .arg(files.output)
            .arg("-f")
            .arg(files.finish)
            .arg("-p")
            .arg(files.pid)
            .args(["-c", "/dev/null"])
            .output()
            .unwrap();
        match output.status.code() {
            Some(0) => Ok(()),
            Some(1) => Err(String::from_utf8_lossy(&output.stderr).into_owned()),
            code => panic!("{code:?}"),
        }
    }

    /// Returns all files.
    fn contents(&self) -> Vec<(String, Vec<u8>)> {
        let names = self.directory.path().read_dir().unwrap().map(|entry| entry.unwrap());
        let names = names.filter(|entry| entry.path().is_file());
        let mut files: Vec<_> = names
            .map(|entry| (entry.file_name().into_string().unwrap(), fs::read(entry.path()).unwrap()))
            .collect();
        files.sort();
        files
    }

    /// Returns the rows that are kept, with the lines before them.
    fn kept(&self) -> Vec<(String, Vec<u8>)> {
        let text = fs::read(self.files.bad_path()).unwrap_or_default();
        let lines: Vec<_> = text.split(|&byte| byte == b'\n').collect();
        let (pairs, end) = lines.as_chunks::<2>();
        assert_eq!(end, [b""], "{}", text.escape_ascii());
        pairs.iter().map(|[line, row]| (String::from_utf8(line.to_vec()).unwrap(), row.to_vec())).collect()
    }
}

#[rstest]
fn a_file_without_a_valid_row_fails_the_cleanup_and_changes_nothing(
    #[values(Family::V4, Family::V6)] family: Family,
    #[values(false, true)] by_program: bool,
    #[values(3, 60, 100)] count: usize,
    #[values(false, true)] in_previous: bool,
) {
    let place = Place::new(family, by_program);
    let (bad, good) = if in_previous {
        (place.files.previous_path(), place.files.input_path())
    } else {
        (place.files.input_path(), place.files.previous_path())
    };
    place.put(&bad, (1..=count).map(|n| other_row(family, n)));
    place.put(&good, [row(family, 200)]);
    let before = place.contents();
    for _ in 0..2 {
        let error = place.clean().unwrap_err();
        let expected =
            format!("{}: none of its {count} rows can be read, the first: line 2: ", bad.display());
        assert!(error.contains(&expected), "{error}");
        let address = if family == Family::V4 { "192.0.2.1)" } else { "2001:db8::1)" };
        assert!(error.contains(address), "{error}");
        assert_eq!(place.contents(), before);
    }
}

#[rstest]
#[case::one(1)]
#[case::two(2)]
fn one_or_two_invalid_rows_may_be_left_by_a_crash(
    #[case] count: usize,
    #[values(Family::V4, Family::V6)] family: Family,
    #[values(false, true)] by_program: bool,
) {
    let place = Place::new(family, by_program);
    place.put(place.files.input_path(), (1..=count).map(|n| other_row(family, n)));
    place.clean().unwrap();
    let kept: Vec<_> = place.kept().into_iter().map(|(_, row)| row).collect();
    assert_eq!(kept, (1..=count).map(|n| other_row(family, n).into_bytes()).collect::<Vec<_>>());
}

#[rstest]
fn invalid_rows_are_kept_byte_for_byte(
    #[values(Family::V4, Family::V6)] family: Family,
    #[values(false, true)] by_program: bool,
    #[values(false, true)] is_sorted: bool,
) {
    let place = Place::new(family, by_program);
    let strange: [&[u8]; 6] =
        [b"# a comment, not a row", b"\x00\x80\xff\r", b",", b" ", &[b'x'; 300_000], b"192.0.2.9,\xc3\xa9"];
    let other = other_row(family, 7).into_bytes();
    let good = [row(family, 3).into_bytes(), row(family, 5).into_bytes()];
    let in_previous = if is_sorted { [&good[0], &other, &good[1]] } else { [&good[1], &other, &good[0]] };
    place.put(place.files.previous_path(), in_previous);
    place.put(place.files.input_path(), strange.into_iter().chain([&good[0][..]]));
    place.clean().unwrap();
    let kept = place.kept();
    let rows: Vec<_> = kept.iter().map(|(_, row)| row.as_slice()).collect();
    assert_eq!(rows, [&[&other[..]], &strange[..]].concat());
    let comments: Vec<_> = kept.iter().map(|(line, _)| line.as_str()).collect();
    let of_previous = format!("# {}: line 3: ", place.files.previous_path().display());
    assert!(comments[0].starts_with(&of_previous), "{}", comments[0]);
    for (n, comment) in comments[1..].iter().enumerate() {
        let of_input = format!("# {}: line {}: ", place.files.input_path().display(), n + 2);
        assert!(comment.starts_with(&of_input) && comment.len() > of_input.len(), "{comment}");
    }
    let expected = format!("{}\n{}\n{}\n", header(family), row(family, 3), row(family, 5));
    assert_eq!(fs::read_to_string(place.files.previous_path()).unwrap(), expected);
    let names: Vec<_> = place.contents().into_iter().map(|(name, _)| name).collect();
    assert_eq!(names, ["leases.csv.2", "leases.csv.bad"]);
}

#[rstest]
fn new_rows_are_appended_and_known_rows_are_not(#[values(false, true)] by_program: bool) {
    let family = Family::V4;
    let place = Place::new(family, by_program);
    let (first, second) = ([row(family, 1), other_row(family, 2)], [row(family, 1), other_row(family, 3)]);
    for (rows, count) in [(&first, 1), (&first, 1), (&second, 2), (&first, 2), (&second, 2)] {
        place.put(place.files.input_path(), rows);
        place.clean().unwrap();
        assert_eq!(place.kept().len(), count);
    }
    // The same row on another line counts as another row.
    place.put(place.files.input_path(), [&second[..], &second[..]].concat());
    place.clean().unwrap();
    assert_eq!(place.kept().len(), 3);
}

#[rstest]
#[case::torn_in_a_row("# a: line 1: b\nhalf a ro", 1)]
#[case::torn_in_a_comment("# a: line 1: b\nrow\n# half a comm", 2)]
fn a_torn_append_does_not_hide_a_row(#[case] left: &str, #[case] before: usize) {
    let place = Place::new(Family::V4, false);
    fs::write(place.files.bad_path(), left).unwrap();
    place.put(place.files.input_path(), [row(Family::V4, 1), other_row(Family::V4, 2)]);
    place.clean().unwrap();
    let kept = place.kept();
    assert_eq!(kept.len(), before + 1);
    assert_eq!(kept[before].1, other_row(Family::V4, 2).as_bytes());
}

#[rstest]
fn a_cleanup_that_cannot_keep_the_rows_fails_and_changes_nothing(
    #[values(false, true)] by_program: bool,
    #[values(false, true)] is_full: bool,
) {
    let place = Place::new(Family::V4, by_program);
    if is_full {
        let line = format!("# it: is full\n{}\n", "x".repeat(1000));
        fs::write(place.files.bad_path(), line.repeat((16 << 20) / line.len() + 1)).unwrap();
    } else {
        fs::create_dir(place.files.bad_path()).unwrap();
    }
    place.put(place.files.previous_path(), [row(Family::V4, 9)]);
    place.put(place.files.input_path(), [row(Family::V4, 1), other_row(Family::V4, 2)]);
    let before = place.contents();
    let error = place.clean().unwrap_err();
    let bad = place.files.bad_path();
    assert!(error.contains(&format!("{}", bad.display())), "{error}");
    assert!(!is_full || error.contains("inspect it, and move it away"), "{error}");
    assert_eq!(place.contents(), before);
    if is_full {
        fs::rename(&bad, bad.with_extension("old")).unwrap();
    } else {
        fs::remove_dir(&bad).unwrap();
    }
    place.clean().unwrap();
    assert_eq!(place.kept().len(), 1);
}

#[test]
fn a_full_file_is_no_error_if_it_has_the_rows_already() {
    let place = Place::new(Family::V4, false);
    place.put(place.files.input_path(), [row(Family::V4, 1), other_row(Family::V4, 2)]);
    place.clean().unwrap();
    let mut text = fs::read(place.files.bad_path()).unwrap();
    text.extend(format!("# it: is full\n{}\n", "x".repeat(16 << 20)).as_bytes());
    fs::write(place.files.bad_path(), &text).unwrap();
    place.put(place.files.input_path(), [row(Family::V4, 1), other_row(Family::V4, 2)]);
    place.clean().unwrap();
    assert_eq!(fs::read(place.files.bad_path()).unwrap(), text);
}

#[test]
fn many_rows_are_kept_if_many_are_allowed() {
    let place = Place::new(Family::V4, false);
    let rows: Vec<_> = (0..5000).map(|n| format!("{n} is no address,,,,")).collect();
    place.put(place.files.input_path(), std::iter::once(row(Family::V4, 1)).chain(rows.clone()));
    let files = place.files.lfc_files();
    let cleanup = Cleanup::new(Family::V4, files).max_invalid_rows(u64::MAX).threads(3);
    cleanup.run().unwrap();
    let kept: Vec<_> = place.kept().into_iter().map(|(_, row)| String::from_utf8(row).unwrap()).collect();
    assert_eq!(kept, rows);
}

/// Writing all leases to the lease file itself compacts it, which drops invalid rows.
#[test]
fn invalid_rows_of_a_rewritten_lease_file_are_kept_beside_it() {
    let place = Place::new(Family::V4, false);
    place.put(place.files.current_path(), [row(Family::V4, 1), other_row(Family::V4, 2)]);
    let before = fs::read(place.files.current_path()).unwrap();
    let manager =
        Memfile::<Lease4>::open(MemfileOptions::at(place.files.current_path().to_owned()).lfc_interval(None))
            .unwrap();
    assert_eq!(manager.write_to(place.files.current_path()).unwrap(), 1);
    let mut replaced = place.files.current_path().as_os_str().to_owned();
    replaced.push(".replaced");
    assert_eq!(fs::read(&replaced).unwrap(), before);
    let now = format!("{}\n{}\n", header(Family::V4), row(Family::V4, 1));
    assert_eq!(fs::read_to_string(place.files.current_path()).unwrap().trim_end(), now.trim_end());
    // The invalid rows of the replaced file are already kept elsewhere.
    manager.write_to(place.files.current_path()).unwrap();
    assert_eq!(fs::read(&replaced).unwrap(), before);
}

#[rstest]
#[case::usual(["d/F.1", "d/F.completed", "d/F.2"], "d/F.bad")]
#[case::input_with_another_name(["d/in", "d/F.completed", "d/F.2"], "d/F.bad")]
#[case::only_previous(["d/in", "d/finish", "d/F.2"], "d/F.bad")]
#[case::none(["d/in", "d/finish", "d/previous"], "d/in.bad")]
#[case::nothing_but_a_suffix(["d/.1", "finish", "previous"], "d/.1.bad")]
fn the_file_is_named_after_the_lease_file(#[case] names: [&str; 3], #[case] bad: &str) {
    let [input, finish, previous] = names;
    let mut files = LeaseFileSet::new("F").lfc_files();
    assert_eq!(files.bad(), LeaseFileSet::new("F").bad_path());
    (files.input, files.finish, files.previous) = (input.into(), finish.into(), previous.into());
    assert_eq!(files.bad(), Path::new(bad));
}

/// Returns the problem of the only row of a file with this header.
fn problem<L: FileLease>(header: &str, row: &str) -> String {
    let text = format!("{header}\n{row}\n");
    let mut reader = Reader::<L, _>::new(text.as_bytes()).unwrap();
    match reader.next().unwrap() {
        Err(ReadError::Row(error)) => error.to_string(),
        other => panic!("{:?}", other.map(|_| ())),
    }
}

#[rstest]
// A name with an unescaped comma.
#[case(
    "192.0.2.1,02:00:00:00:00:01,,3600,1790003600,1,0,0,a,b,0,,0",
    12,
    "13 values, expected 12 (address 192.0.2.1)"
)]
#[case(
    "192.0.2.1,02:00:00:00:00:01,,3600,1790003600,1,0,0,a,0,{ \"a\": 1, \"b\": 2 },0",
    12,
    "13 values, expected 12 (address 192.0.2.1)"
)]
#[case(
    "192.0.2.1,02:00:00:00:00:01,,3600,1790003600,1,0,0,a,b,c,0,,0",
    10,
    "14 values, expected 10 to 12 (address 192.0.2.1)"
)]
#[case("192.0.2.1,02:00:00:00:00:01", 12, "2 values, expected 12 (address 192.0.2.1)")]
#[case("192.0.2.1,02:00:00:00:00:01", 11, "2 values, expected 11 to 12 (address 192.0.2.1)")]
#[case(
    "192.0.2.300,,,3600,1790003600,1,0,0,,0,,0",
    12,
    "address is \"192.0.2.300\", expected an IPv4 address"
)]
#[case(
    "192.0.2.1,,,x,1790003600,1,0,0,,0,,0",
    12,
    "valid_lifetime is \"x\", expected a number from 0 to 4294967295 (address 192.0.2.1)"
)]
#[case("\u{1b}[2J", 12, "1 values, expected 12 (address \\x1b[2J)")]
fn a_problem_names_the_address_and_the_number_of_values(
    #[case] row: &str,
    #[case] columns: usize,
    #[case] expected: &str,
) {
    let header = Lease4::schema().columns[..columns].join(",");
    assert_eq!(problem::<Lease4>(&header, row), format!("line 2: {expected}"));
}

#[rstest]
#[case(18, "20 values, expected 18 (address 2001:db8::1)")]
#[case(14, "20 values, expected 14 to 18 (address 2001:db8::1)")]
fn a_problem_of_a_dhcpv6_row_names_them_too(#[case] columns: usize, #[case] expected: &str) {
    let header = Lease6::schema().columns[..columns].join(",");
    let row = "2001:db8::1,00:01:02:03,3600,1790003600,1,1800,0,7,128,0,0,a,b,c,,0,,0,0,0";
    assert_eq!(problem::<Lease6>(&header, row), format!("line 2: {expected}"));
    let few = "2001:db8::1,00:01:02:03";
    let range = if columns == 18 { "18" } else { "14 to 18" };
    assert_eq!(
        problem::<Lease6>(&header, few),
        format!("line 2: 2 values, expected {range} (address 2001:db8::1)")
    );
}

#[test]
fn a_long_address_is_cut_off() {
    let header = Lease4::schema().header;
    let expected = format!("line 2: 1 values, expected 12 (address {}...)", "x".repeat(64));
    assert_eq!(problem::<Lease4>(header, &"x".repeat(1000)), expected);
}

#[test]
fn a_row_of_a_newer_file_may_have_more_values() {
    let header = format!("{},future,other", Lease4::schema().header);
    let row = "192.0.2.1,,,x,1790003600,1,0,0,,0,,0,9,9,9,9";
    let expected =
        "line 2: valid_lifetime is \"x\", expected a number from 0 to 4294967295 (address 192.0.2.1)";
    assert_eq!(problem::<Lease4>(&header, row), expected);
}

#[cfg(feature = "simulated-disk")]
mod on_a_failing_disk {
    use super::*;
    use leasemgr::fs::Attributes;
    use leasemgr::fs::simulated::{Contents, EIO, Effect, Fault, SimulatedDisk, State};

    const OLD: &str = "no lease, of before";
    const NEW: &str = "no lease at all";

    fn state(family: Family) -> (LeaseFileSet, State) {
        let files = LeaseFileSet::new("/leases/leases.csv");
        let text = |rows: &[&str]| format!("{}\n{}\n", header(family), rows.join("\n")).into_bytes();
        let (one, two) = (row(family, 1), row(family, 2));
        let mut contents = Contents::new();
        contents.insert(files.previous_path(), text(&[&one, OLD]));
        contents.insert(files.input_path(), text(&[&two, NEW]));
        let state = State::holding(&contents)
            .with_attributes(files.previous_path(), Attributes::new(7, 8, 0o664))
            .with_attributes(files.input_path(), Attributes::new(7, 9, 0o644));
        (files, state)
    }

    /// Returns a row that is kept in none of the files that a cleanup reads, nor in the file of
    /// invalid rows.
    fn lost(files: &LeaseFileSet, contents: &Contents) -> Option<&'static str> {
        let has = |path: &Path, row: &str| {
            let text = contents.get(path).map_or(&[][..], |text| text);
            text.split(|&byte| byte == b'\n').any(|line| line == row.as_bytes())
        };
        let paths = [files.previous_path(), files.input_path(), files.bad_path()];
        [OLD, NEW].into_iter().find(|row| !paths.iter().any(|path| has(path, row)))
    }

    #[rstest]
    fn a_failure_loses_no_row(#[values(Family::V4, Family::V6)] family: Family) {
        let (files, state) = state(family);
        let clean =
            |disk: &SimulatedDisk| Cleanup::new(family, files.lfc_files()).file_system(disk).threads(1).run();
        let undisturbed = SimulatedDisk::new(state.clone()).with_moments();
        clean(&undisturbed).unwrap();
        let end = undisturbed.state();
        assert_eq!(end.attributes(files.previous_path()), Some(&Attributes::new(7, 8, 0o664)));
        assert_eq!(end.attributes(files.bad_path()), Some(&Attributes::new(7, 9, 0o644)));
        let kept = end.contents()[&files.bad_path()].clone();
        // A kill or a power cut at any moment.
        for (n, moment) in undisturbed.moments().into_iter().enumerate() {
            for contents in moment.some_survivors(n as u64, 30).into_iter().chain([moment.contents()]) {
                assert_eq!(lost(&files, &contents), None, "at moment {n}");
                // The next cleanup keeps each row exactly once.
                let disk = SimulatedDisk::new(State::holding(&contents));
                clean(&disk).unwrap();
                let kept = disk.state().contents()[&files.bad_path()].clone();
                for row in [OLD, NEW] {
                    let times =
                        kept.split(|&byte| byte == b'\n').filter(|line| *line == row.as_bytes()).count();
                    assert_eq!(times, 1, "{}", kept.escape_ascii());
                }
            }
        }
        for (at, operation) in undisturbed.operations().into_iter().enumerate() {
            for effect in [Effect::Nothing, Effect::Half, Effect::Everything] {
                let fault = Fault { at, error: EIO, effect, lasting: false };
                let disk = SimulatedDisk::new(state.clone()).with_fault(fault);
                assert!(clean(&disk).is_err(), "{operation}");
                assert_eq!(lost(&files, &disk.state().contents()), None, "{operation} failed");
                for contents in disk.state().some_survivors(at as u64, 10) {
                    assert_eq!(lost(&files, &contents), None, "{operation} failed, then a power cut");
                }
                clean(&disk).unwrap();
                assert_eq!(
                    disk.state().contents()[&files.bad_path()],
                    kept,
                    "{operation} failed, {effect:?}"
                );
            }
        }
    }

    #[test]
    fn a_cleanup_by_another_user_fails_if_the_owner_would_lose_access() {
        let (files, state) = state(Family::V4);
        let clean = |state: State| {
            let disk = SimulatedDisk::new(state).as_user(5, &[5, 8, 9]);
            let result = Cleanup::new(Family::V4, files.lfc_files()).file_system(&disk).run();
            (result, disk.state())
        };
        let (result, after) = clean(state.clone());
        result.unwrap();
        assert_eq!(after.attributes(files.previous_path()), Some(&Attributes::new(5, 8, 0o664)));
        let closed = state.with_attributes(files.previous_path(), Attributes::new(7, 8, 0o660));
        let (result, after) = clean(closed.clone());
        assert!(matches!(result, Err(LfcError::Io { action: "create", .. })), "{result:?}");
        assert_eq!(after.contents(), closed.contents());
    }
}
