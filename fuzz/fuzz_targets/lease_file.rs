//! Whole lease files of both families: a previous file and an input, with a byte 0 between them.
#![no_main]

use leasemgr::lease::{Lease4, Lease6};
use leasemgr_fuzz::clean;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|files: &[u8]| {
    let (previous, input) = match files.iter().position(|&byte| byte == 0) {
        Some(at) => (&files[..at], &files[at + 1..]),
        None => (files, &[][..]),
    };
    clean::<Lease4>(previous, input);
    clean::<Lease6>(previous, input);
});
