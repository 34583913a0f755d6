//! Threads that wait for each other's locks, as far as these are `parking_lot`'s: looked for with `--cfg deadlock_detection`
//! (`scripts/threads`).

use std::fmt::Write as _;

/// The threads that wait for each other now, and where, if there are any. Each of them is told of once.
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
