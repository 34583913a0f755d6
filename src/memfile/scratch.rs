//! Reused memory of a thread.

use std::cell::RefCell;

use crate::sync::thread_local;

/// Buffers that every change needs, reused by the next change of the thread.
#[derive(Default)]
pub(super) struct Scratch {
    pub(super) row: Vec<u8>,
    pub(super) record: Vec<u8>,
    pub(super) expected: Vec<u8>,
}

thread_local! {
    static SCRATCH: RefCell<Scratch> = RefCell::default();
}

/// Maximum capacity of a buffer that is kept for reuse.
const SCRATCH_LIMIT: usize = 64 * 1024;

pub(super) fn with_scratch<T>(work: impl FnOnce(&mut Scratch) -> T) -> T {
    SCRATCH.with(|scratch| {
        let scratch = &mut *scratch.borrow_mut();
        let result = work(scratch);
        for buffer in [&mut scratch.row, &mut scratch.record, &mut scratch.expected] {
            buffer.clear();
            buffer.shrink_to(SCRATCH_LIMIT);
        }
        result
    })
}
