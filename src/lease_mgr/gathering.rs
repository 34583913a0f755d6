//! For how long the maker of a batch waits until further operations have arrived.

use std::time::Duration;

use crate::sync::Instant;

/// Waiting ends when nothing has arrived for the usual time of a batch divided by this.
const IDLE_DIVISOR: u32 = 4;

/// Waiting for operations: while they keep arriving, and at most for the usual time of a batch.
pub(crate) struct Gathering {
    /// The usual time of a batch.
    time: Duration,
    start: Instant,
    /// Number of operations that had arrived when the number was last seen to grow.
    count: usize,
    last: Instant,
}

impl Gathering {
    /// Begins to wait, with this number of operations.
    pub(crate) fn new(count: usize, time: Duration) -> Self {
        let start = Instant::now();
        Self { time, start, count, last: start }
    }

    /// Returns the longest time to sleep before the number of operations is looked at again.
    pub(crate) fn sleep(&self) -> Duration {
        self.time / IDLE_DIVISOR
    }

    /// Returns whether to wait on, now that there is this number of operations.
    pub(crate) fn goes_on(&mut self, count: usize) -> bool {
        let now = Instant::now();
        if count > self.count {
            (self.count, self.last) = (count, now);
        } else if now - self.last >= self.sleep() {
            return false;
        }
        now - self.start < self.time
    }
}
