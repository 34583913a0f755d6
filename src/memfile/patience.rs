//! Waiting for locks that are never held for long.

use std::hint;
use std::sync::TryLockError;

use crossbeam_utils::sync::{ShardedLock, ShardedLockReadGuard};
use parking_lot::{Mutex, MutexGuard};

/// How often a lock is tried before the thread sleeps. A change holds one for less than a microsecond, and to be
/// woken takes many.
const TRIES: u32 = 200;

/// Waits for a lock.
pub(super) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    for _ in 0..TRIES {
        if let Some(guard) = mutex.try_lock() {
            return guard;
        }
        hint::spin_loop();
    }
    mutex.lock()
}

/// Waits until nobody changes what a lock protects. A panic of who did leaves it as it was then.
pub(super) fn read<T>(lock: &ShardedLock<T>) -> ShardedLockReadGuard<'_, T> {
    for _ in 0..TRIES {
        match lock.try_read() {
            Ok(guard) => return guard,
            Err(TryLockError::Poisoned(error)) => return error.into_inner(),
            Err(TryLockError::WouldBlock) => hint::spin_loop(),
        }
    }
    lock.read().unwrap_or_else(std::sync::PoisonError::into_inner)
}
