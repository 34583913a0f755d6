//! Rows of DHCPv6 lease files: read, written and read again, and cleaned up.
#![no_main]

use leasemgr::lease::Lease6;
use leasemgr_fuzz::{clean, read, with_header};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|rows: &[u8]| {
    let file = with_header::<Lease6>(rows);
    assert!(read::<Lease6>(&file).is_some());
    clean::<Lease6>(&with_header::<Lease6>(b""), &file);
});
