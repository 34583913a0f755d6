//! Rows of DHCPv4 lease files: read, written and read again, and cleaned up.
#![no_main]

use leasemgr::lease::Lease4;
use leasemgr_fuzz::{clean, read, with_header};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|rows: &[u8]| {
    let file = with_header::<Lease4>(rows);
    assert!(read::<Lease4>(&file).is_some());
    clean::<Lease4>(&with_header::<Lease4>(b""), &file);
});
