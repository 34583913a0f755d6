//! Finds deadlocks of threads that use the locks of `parking_lot`, if built with `--cfg
//! deadlock_detection` (`scripts/threads`).

use std::fmt::Write as _;

/// Returns the deadlocked threads and their backtraces, if any. Each deadlock is reported once.
pub(crate) fn find() -> Option<String> {
    let mut text = String::new();
    for (n, threads) in parking_lot::deadlock::check_deadlock().iter().enumerate() {
        for thread in threads {
            let _ =
                writeln!(text, "deadlock {n}, thread {:?}:\n{:?}", thread.thread_id(), thread.backtrace());
        }
    }
    (!text.is_empty()).then_some(text)
}
