//! PID files: a cleanup does not run if the file names a process that has the name of Kea's
//! program; otherwise it takes the file.
#![no_main]

use std::path::Path;

use leasemgr::fs::Memory;
use leasemgr::lease::Family;
use leasemgr::lease_file::LeaseFileSet;
use leasemgr::lfc::{Cleanup, Outcome};
use leasemgr_fuzz::with_memory;
use libfuzzer_sys::fuzz_target;

/// Returns the number in a PID file, by another method.
fn number(text: &[u8]) -> Option<i32> {
    let text = &text[..text.len().min(64)];
    let line = &text[..text.iter().position(|&byte| byte == b'\n')?];
    std::str::from_utf8(text).ok()?;
    let is_blank = |byte: &u8| matches!(byte, b' ' | b'\t');
    let from = line.iter().position(|byte| !is_blank(byte))?;
    let to = line.iter().rposition(|byte| !is_blank(byte))?;
    let digits = line[from..=to].strip_prefix(b"+").unwrap_or(&line[from..=to]);
    if digits.is_empty() {
        return None;
    }
    let mut number = 0_i32;
    for digit in digits {
        let digit = digit.is_ascii_digit().then(|| i32::from(digit - b'0'))?;
        number = number.checked_mul(10)?.checked_add(digit)?;
    }
    Some(number)
}

/// Returns whether another process has the name of Kea's program. None is started here, but one may
/// run on the machine.
fn is_cleanup(pid: i32) -> bool {
    let directory = Path::new("/proc").join(pid.to_string());
    let name = std::fs::read_to_string(directory.join("comm")).unwrap_or_default();
    pid > 0 && pid.unsigned_abs() != std::process::id() && name.contains("kea-lfc")
}

fuzz_target!(|text: &[u8]| {
    let (fs, names) = (Memory::default(), LeaseFileSet::new("f"));
    fs.put(&names.pid_path(), text);
    let cleanup = Cleanup::new(Family::V4, names.lfc_files()).file_system(&fs);
    let outcome = with_memory(text.len(), 4 * 1024 * 1024, 1, || cleanup.run())
        .expect("a cleanup without lease files succeeds");
    match outcome {
        Outcome::Running(pid) => {
            assert_eq!(number(text), Some(pid));
            assert!(is_cleanup(pid));
            assert_eq!(fs.get(&names.pid_path()).as_deref(), Some(text));
        }
        _ => {
            assert!(!number(text).is_some_and(is_cleanup));
            assert_eq!(fs.get(&names.pid_path()), None);
        }
    }
});
