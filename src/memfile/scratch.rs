//! Memory that a thread keeps for its next change.

use std::cell::RefCell;

/// Memory that every change needs, kept for the next one of the thread.
#[derive(Default)]
pub(super) struct Scratch {
    pub(super) row: Vec<u8>,
    pub(super) record: Vec<u8>,
    pub(super) expected: Vec<u8>,
}

thread_local! {
    static SCRATCH: RefCell<Scratch> = RefCell::default();
}

/// What a row takes that is kept as memory for the next.
const SCRATCH_LIMIT: usize = 64 * 1024;

pub(super) fn with_scratch<T>(work: impl FnOnce(&mut Scratch) -> T) -> T {
    SCRATCH.with_borrow_mut(|scratch| {
        let result = work(scratch);
        for buffer in [&mut scratch.row, &mut scratch.record, &mut scratch.expected] {
            buffer.clear();
            buffer.shrink_to(SCRATCH_LIMIT);
        }
        result
    })
}
