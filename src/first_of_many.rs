//! Logging only the first of many findings.

/// Counts findings, and logs the first of them.
#[derive(Debug, Default)]
pub(crate) struct FirstOfMany {
    count: u64,
}

impl FirstOfMany {
    /// Maximum number of findings that are logged.
    pub(crate) const LOGGED: u64 = 20;

    /// Counts a finding, and logs it if it is one of the first.
    pub(crate) fn add(&mut self, log: impl FnOnce()) {
        self.count += 1;
        if self.count <= Self::LOGGED {
            log();
        }
    }

    /// Returns the number of findings.
    pub(crate) fn count(&self) -> u64 {
        self.count
    }

    /// Returns whether some findings were not logged.
    pub(crate) fn has_more(&self) -> bool {
        self.count > Self::LOGGED
    }
}
