//! The program `leasemgr-demo`.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    reason = "a test may panic, also where it is not in a test function"
)]

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use tempfile::TempDir;

const DEMO: &str = env!("CARGO_BIN_EXE_leasemgr-demo");
const KEA_LFC: &str = env!("CARGO_BIN_EXE_kea-lfc");

/// Runs the program, with environment variables of Kea that must have no effect.
fn run(demo: &Path, directory: &TempDir) -> (Output, String) {
    let mut command = Command::new(demo);
    command.env("TMPDIR", directory.path());
    command.env("KEA_DHCP_DATA_DIR", "/nowhere").env("KEA_LFC_EXECUTABLE", "/nowhere/kea-lfc");
    let output = command.output().unwrap();
    let text = [output.stdout.as_slice(), &output.stderr].concat();
    (output, String::from_utf8(text).unwrap())
}

/// Returns the numbers in a row of the table.
fn row(text: &str, name: &str) -> Vec<u64> {
    let row =
        text.lines().find_map(|line| line.strip_prefix(name)).unwrap_or_else(|| panic!("{name}: {text}"));
    row.split_whitespace().map(|number| number.parse().unwrap()).collect()
}

/// Creates a directory with a hard link to the program and this `kea-lfc`.
fn beside(kea_lfc: &str) -> TempDir {
    let directory = tempfile::tempdir_in(Path::new(DEMO).parent().unwrap()).unwrap();
    fs::hard_link(DEMO, directory.path().join("leasemgr-demo")).unwrap();
    if !kea_lfc.is_empty() {
        let path = directory.path().join("kea-lfc");
        fs::write(&path, kea_lfc).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
    }
    directory
}

/// Runs the program beside this `kea-lfc`, with its files in this directory. Checks that it fails, and
/// returns its output and the path of its `kea-lfc`.
fn failure(kea_lfc: &str, directory: &TempDir) -> (String, PathBuf) {
    let programs = beside(kea_lfc);
    let (output, text) = run(&programs.path().join("leasemgr-demo"), directory);
    assert_eq!(output.status.code(), Some(1), "{text}");
    (text, programs.path().join("kea-lfc"))
}

#[test]
fn every_acknowledged_change_is_found_after_a_kill() {
    let directory = tempfile::tempdir().unwrap();
    let (output, text) = run(DEMO.as_ref(), &directory);
    assert!(output.status.success(), "{text}");
    assert!(text.ends_with("Nothing that was acknowledged is missing.\n"), "{text}");
    for name in
        ["leases added", "leases renewed", "leases deleted", "leases to be found", "found as acknowledged"]
    {
        let numbers = row(&text, name);
        assert!(numbers.len() == 2 && numbers.iter().all(|&number| number > 0), "{name}: {text}");
    }
    for name in ["missing", "without the last change", "deleted, but found", "never made, but found"] {
        assert_eq!(row(&text, name), [0, 0], "{name}: {text}");
    }
    assert!(row(&text, "cleanups by kea-lfc:")[0] > 0, "{text}");
    assert_eq!(fs::read_dir(directory.path()).unwrap().count(), 0, "the directory is empty");
}

#[test]
fn a_cleanup_that_loses_leases_is_detected() {
    // Only the header of the result is left.
    let program = format!(
        "#!/bin/sh\n'{KEA_LFC}' \"$@\" || exit\n\
         while [ $# -gt 1 ]; do [ \"$1\" != -x ] || previous=$2; shift; done\n\
         [ ! -f \"$previous\" ] || sed -i 1q \"$previous\"\n"
    );
    let directory = tempfile::tempdir().unwrap();
    let (text, _) = failure(&program, &directory);
    assert!(row(&text, "missing").iter().sum::<u64>() > 0, "{text}");
    let kept: Vec<_> = fs::read_dir(directory.path()).unwrap().map(|entry| entry.unwrap().path()).collect();
    assert!(
        text.ends_with(&format!("Not as acknowledged; the files are kept in {}.\n", kept[0].display())),
        "{text}"
    );
}

#[test]
fn a_cleanup_that_fails_ends_it() {
    let (text, _) = failure("#!/bin/sh\nexit 1\n", &tempfile::tempdir().unwrap());
    assert!(text.contains("a cleanup failed: "), "{text}");
}

#[test]
fn a_missing_kea_lfc_is_reported() {
    let (text, kea_lfc) = failure("", &tempfile::tempdir().unwrap());
    let expected = format!("leasemgr-demo: {} is missing", kea_lfc.display());
    assert!(text.starts_with(&expected), "{text}");
}
