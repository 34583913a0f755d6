//! Logging the first ones of many.

/// Counts what is found amiss, and has the first ones logged.
#[derive(Debug, Default)]
pub(crate) struct FirstOfMany {
    count: u64,
}

impl FirstOfMany {
    /// Maximum number that are logged one by one.
    pub(crate) const LOGGED: u64 = 20;

    /// Counts one more, and logs it if it is one of the first.
    pub(crate) fn add(&mut self, log: impl FnOnce()) {
        self.count += 1;
        if self.count <= Self::LOGGED {
            log();
        }
    }

    /// Number of all.
    pub(crate) fn count(&self) -> u64 {
        self.count
    }

    /// Whether there are some that were not logged.
    pub(crate) fn has_more(&self) -> bool {
        self.count > Self::LOGGED
    }
}
