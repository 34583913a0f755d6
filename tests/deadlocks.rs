//! The deadlock detection finds a deadlock (`scripts/threads`).

#![cfg(deadlock_detection)]
#![allow(clippy::unwrap_used, reason = "a test")]

mod support;

use std::sync::{Arc, Barrier};
use std::thread;
use std::time::{Duration, Instant};

use parking_lot::Mutex;

#[test]
fn a_deadlock_is_found() {
    let locks = Arc::new((Mutex::new(()), Mutex::new(()), Barrier::new(2)));
    for turned in [false, true] {
        let locks = Arc::clone(&locks);
        thread::spawn(move || {
            let (first, second) = if turned { (&locks.1, &locks.0) } else { (&locks.0, &locks.1) };
            let _first = first.lock();
            locks.2.wait();
            let _second = second.lock();
        });
    }
    let start = Instant::now();
    let found = loop {
        if let Some(found) = support::deadlocks::find() {
            break found;
        }
        assert!(start.elapsed() < Duration::from_secs(60), "no deadlock found");
        thread::sleep(Duration::from_millis(10));
    };
    assert_eq!(found.matches("deadlock 0, thread").count(), 2, "{found}");
}
