//! The example `tokio_server`, run briefly with each kind of calls.

#![allow(clippy::unwrap_used, reason = "a test")]

use std::path::Path;
use std::process::Command;

use rstest::rstest;

#[rstest]
fn an_async_server_changes_leases_in_every_way(
    #[values("async", "direct", "block-in-place", "spawn-blocking")] calls: &str,
    #[values("written", "synced", "10ms")] durability: &str,
) {
    let own = std::env::current_exe().unwrap();
    let program = own.parent().and_then(Path::parent).unwrap().join("examples/tokio_server");
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("leases4.csv");
    let connection = format!("type=memfile name={} durability={durability}", file.display());
    let output = Command::new(program).args([calls, "16", "0.2", &connection]).output().unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    assert!(output.status.success(), "{text}{}", String::from_utf8_lossy(&output.stderr));
    let (rate, rest) = text.split_once(" changes a second\n").unwrap();
    assert!(rate.parse::<u64>().unwrap() > 0, "{text}");
    assert!(rest.starts_with("timers: ") && rest.contains("\nmemory: "), "{text}");
    // Each task has added, renewed and released at least one lease.
    let rows = std::fs::read_to_string(&file).unwrap();
    assert!(rows.lines().filter(|row| row.starts_with("10.")).count() >= 48, "{rows}");
}
