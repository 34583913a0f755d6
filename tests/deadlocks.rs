//! The deadlock detection finds a deadlock (`scripts/threads`).

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test")]

#[cfg(deadlock_detection)]
mod support;

#[cfg(deadlock_detection)]
fn lock_in_both_orders() {
    use std::sync::{Arc, Barrier};
    use std::thread;
    use std::time::{Duration, Instant};

    use parking_lot::Mutex;

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
        assert!(start.elapsed() < Duration::from_secs(600), "no deadlock found");
        thread::sleep(Duration::from_millis(10));
    };
    assert_eq!(found.matches("deadlock 0, thread").count(), 2, "{found}");
}

#[cfg(not(deadlock_detection))]
fn lock_in_both_orders() {
    panic!("no deadlock is found without --cfg deadlock_detection");
}

#[test]
#[cfg_attr(not(deadlock_detection), ignore = "needs --cfg deadlock_detection: scripts/threads deadlocks")]
fn a_deadlock_is_found() {
    lock_in_both_orders();
}
