//! What threads that lock one address, several and all of them do to each other (`scripts/threads`).

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use shuttle::{check_pct, check_random, thread};

use super::*;

/// More than there are locks, so that some share one.
const KEYS: usize = 6;
const ORDERS: usize = 5000;

struct Model {
    locks: RowLocks,
    held: [AtomicBool; KEYS],
}

impl Model {
    /// Holds keys for some time, in which no other thread may hold one of them.
    fn hold(&self, keys: &[usize]) {
        for key in keys {
            assert!(!self.held[*key].swap(true, Ordering::Relaxed), "two threads hold {key}");
            thread::yield_now();
        }
        for key in keys {
            self.held[*key].store(false, Ordering::Relaxed);
        }
    }
}

fn locking() {
    let model = Arc::new(Model { locks: RowLocks::new(), held: Default::default() });
    let one = |key: usize| {
        let model = Arc::clone(&model);
        thread::spawn(move || {
            let _lock = model.locks.lock(key);
            model.hold(&[key]);
        })
    };
    let several = |keys: &'static [usize]| {
        let model = Arc::clone(&model);
        thread::spawn(move || {
            let _locks = model.locks.lock_all(keys.iter());
            model.hold(keys);
        })
    };
    let all = {
        let model = Arc::clone(&model);
        thread::spawn(move || {
            let _locks = model.locks.lock_everything();
            model.hold(&[0, 1, 2, 3, 4, 5]);
        })
    };
    let threads = [one(0), several(&[0, 1, 2, 3]), several(&[4, 3, 2, 1]), all, one(3), several(&[5, 0])];
    threads.into_iter().for_each(|thread| thread.join().unwrap());
}

#[test]
fn an_address_is_locked_by_one_thread_and_none_waits_for_ever() {
    check_random(locking, ORDERS);
    check_pct(locking, ORDERS, 3);
}
