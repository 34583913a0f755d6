//! A lock for a value that threads on several processors read much more often than they change it.
//!
//! A usual lock has one count of readers, and every reader writes to it: on two processors, this
//! alone costs as much as a look-up. This lock has several shards, each with its count on a cache
//! line of its own. A reader locks the shard of its thread, a writer locks all shards. There are as
//! many shards as processors, up to 8, as each shard costs every change a transfer between
//! processors.
//!
//! This module contains `unsafe` because the trait of `lock_api` that makes a lock of the shards
//! requires a promise to keep readers and writers apart. No pointers are dereferenced here.

#![allow(unsafe_code, reason = "the promise of lock_api's trait, see above")]

use std::cell::Cell;
#[cfg(debug_assertions)]
use std::ptr;
use std::sync::LazyLock;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;

use crossbeam_utils::CachePadded;
use parking_lot::lock_api::{self, GuardNoSend};

use crate::sync::{RawRwLock, hint, thread_local};

/// Number of attempts to lock a shard before the thread sleeps. A change holds it for less than a
/// microsecond, and waking a thread takes many.
const TRIES: u32 = if cfg!(shuttle) { 2 } else { 200 };
/// Maximum number of shards.
const MAX_SHARDS: usize = 8;

/// A value that many threads read at a time, or one changes. A thread must not lock it again while
/// it reads.
pub(in crate::memfile) type ShardedLock<T> = lock_api::RwLock<RawShardedLock, T>;
/// Shared access to the value.
pub(in crate::memfile) type ReadGuard<'a, T> = lock_api::RwLockReadGuard<'a, RawShardedLock, T>;
/// Exclusive access to the value.
pub(in crate::memfile) type WriteGuard<'a, T> = lock_api::RwLockWriteGuard<'a, RawShardedLock, T>;

/// The shards of a lock.
pub(in crate::memfile) struct RawShardedLock([CachePadded<RawRwLock>; MAX_SHARDS]);

/// Number of shards in use.
static COUNT: LazyLock<usize> =
    LazyLock::new(|| thread::available_parallelism().map_or(1, usize::from).clamp(1, MAX_SHARDS));

thread_local! {
    /// The number of the thread's shard.
    static SHARD: Cell<Option<usize>> = const { Cell::new(None) };
}

/// Returns the number of the thread's shard, which never changes. Threads get shards in turn.
fn own_shard() -> usize {
    static THREADS: AtomicUsize = AtomicUsize::new(0);
    SHARD.with(|own| {
        own.get().unwrap_or_else(|| {
            let shard = THREADS.fetch_add(1, Ordering::Relaxed) % *COUNT;
            own.set(Some(shard));
            shard
        })
    })
}

/// The locks that the thread has locked shared, to find in debug builds where it would lock one
/// again: it would wait for itself if another thread waits for exclusive access meanwhile.
#[cfg(debug_assertions)]
mod shared {
    use std::cell::RefCell;

    use super::{RawShardedLock, ptr, thread_local};

    thread_local! {
        static LOCKED: RefCell<Vec<usize>> = const { RefCell::new(Vec::new()) };
    }

    fn address(lock: &RawShardedLock) -> usize {
        ptr::from_ref(lock).addr()
    }

    pub(super) fn assert_not_locked(lock: &RawShardedLock) {
        let is_locked = LOCKED.with(|locked| locked.borrow().contains(&address(lock)));
        assert!(!is_locked || std::thread::panicking(), "a thread locks a value again while it reads it");
    }

    pub(super) fn locked(lock: &RawShardedLock) {
        LOCKED.with(|locked| locked.borrow_mut().push(address(lock)));
    }

    pub(super) fn unlocked(lock: &RawShardedLock) {
        LOCKED.with(|locked| {
            let mut locked = locked.borrow_mut();
            let last = locked.iter().rposition(|&other| other == address(lock));
            last.map(|last| locked.swap_remove(last));
        });
    }
}

#[cfg(not(debug_assertions))]
mod shared {
    use super::RawShardedLock;

    #[inline]
    pub(super) fn assert_not_locked(_: &RawShardedLock) {}

    #[inline]
    pub(super) fn locked(_: &RawShardedLock) {}

    #[inline]
    pub(super) fn unlocked(_: &RawShardedLock) {}
}

/// Makes [`TRIES`] attempts before it calls `wait`.
#[inline]
fn spin_then_wait(mut attempt: impl FnMut() -> bool, wait: impl FnOnce()) {
    for _ in 0..TRIES {
        if attempt() {
            return;
        }
        hint::spin_loop();
    }
    wait();
}

impl RawShardedLock {
    #[inline]
    fn own(&self) -> &RawRwLock {
        &self.0[own_shard()]
    }

    fn in_use(&self) -> &[CachePadded<RawRwLock>] {
        &self.0[..*COUNT]
    }
}

// SAFETY: an exclusive lock holds every shard in use exclusively, and a shared lock holds one of
// them shared. So an exclusive lock excludes all others. A thread's shard never changes, and guards
// do not leave their thread (`GuardNoSend`), so each thread unlocks the shards that it has locked.
unsafe impl lock_api::RawRwLock for RawShardedLock {
    #[allow(clippy::declare_interior_mutable_const, reason = "required by the trait")]
    const INIT: Self = Self([const { CachePadded::new(RawRwLock::INIT) }; MAX_SHARDS]);

    type GuardMarker = GuardNoSend;

    #[inline]
    fn lock_shared(&self) {
        shared::assert_not_locked(self);
        let shard = self.own();
        spin_then_wait(|| shard.try_lock_shared(), || shard.lock_shared());
        shared::locked(self);
    }

    #[inline]
    fn try_lock_shared(&self) -> bool {
        let is_locked = self.own().try_lock_shared();
        if is_locked {
            shared::locked(self);
        }
        is_locked
    }

    #[inline]
    unsafe fn unlock_shared(&self) {
        shared::unlocked(self);
        // SAFETY: the caller has locked it shared, and so this shard.
        unsafe { self.own().unlock_shared() };
    }

    /// All writers lock the first shard first, which avoids deadlocks.
    #[inline]
    fn lock_exclusive(&self) {
        shared::assert_not_locked(self);
        for shard in self.in_use() {
            spin_then_wait(|| shard.try_lock_exclusive(), || shard.lock_exclusive());
        }
    }

    fn try_lock_exclusive(&self) -> bool {
        let shards = self.in_use();
        let locked = shards.iter().take_while(|shard| shard.try_lock_exclusive()).count();
        if locked < shards.len() {
            for shard in &shards[..locked] {
                // SAFETY: locked above.
                unsafe { shard.unlock_exclusive() };
            }
        }
        locked == shards.len()
    }

    /// The first shard is unlocked last, so that the next writer, which waits for it, finds the
    /// others unlocked.
    #[inline]
    unsafe fn unlock_exclusive(&self) {
        for shard in self.in_use().iter().rev() {
            // SAFETY: the caller has locked it exclusively, and so every shard.
            unsafe { shard.unlock_exclusive() };
        }
    }
}

#[cfg(test)]
#[cfg(shuttle)]
mod models {
    use std::sync::Arc;

    use shuttle::{check_pct, check_random, thread};

    use super::*;

    /// Three threads change both numbers, and three read them; each lets other threads run while it
    /// holds the lock.
    fn read_and_change() {
        let lock = Arc::new(ShardedLock::new([0; 2]));
        let change = |tries: bool| {
            let lock = Arc::clone(&lock);
            thread::spawn(move || {
                let mut value = if tries {
                    loop {
                        match lock.try_write() {
                            Some(value) => break value,
                            None => thread::yield_now(),
                        }
                    }
                } else {
                    lock.write()
                };
                value[0] += 1;
                thread::yield_now();
                value[1] += 1;
            })
        };
        let read = |tries: bool| {
            let lock = Arc::clone(&lock);
            thread::spawn(move || {
                let value = if tries { lock.try_read() } else { Some(lock.read()) };
                if let Some(value) = value {
                    let before = *value;
                    thread::yield_now();
                    assert!(before[0] == before[1] && *value == before, "{before:?}, {:?}", *value);
                }
            })
        };
        let threads = [change(false), read(false), change(true), read(false), read(true), change(false)];
        threads.into_iter().for_each(|thread| thread.join().unwrap());
        assert_eq!(*lock.read(), [3; 2]);
    }

    #[test]
    fn readers_and_writers_exclude_each_other() {
        check_random(read_and_change, 20_000);
        check_pct(read_and_change, 5000, 3);
    }
}

#[cfg(test)]
#[cfg(not(shuttle))]
mod tests {
    use std::sync::Barrier;

    use super::*;

    #[test]
    fn a_reader_never_sees_half_a_change() {
        const CHANGES: u64 = if cfg!(miri) { 50 } else { 20_000 };
        let lock = ShardedLock::new([0_u64; 32]);
        let start = Barrier::new(6);
        std::thread::scope(|scope| {
            for tries in [false, true] {
                let (lock, start) = (&lock, &start);
                scope.spawn(move || {
                    start.wait();
                    for _ in 0..CHANGES {
                        let mut value = if tries {
                            std::iter::repeat_with(|| lock.try_write()).flatten().next().unwrap()
                        } else {
                            lock.write()
                        };
                        value.iter_mut().for_each(|n| *n += 1);
                    }
                });
            }
            for _ in 0..4 {
                scope.spawn(|| {
                    start.wait();
                    let mut last = 0;
                    while last < 2 * CHANGES {
                        let value = lock.read();
                        assert!(value.iter().all(|n| *n == value[0]) && value[0] >= last, "{:?}", *value);
                        last = value[0];
                    }
                });
            }
        });
        assert_eq!(*lock.read(), [2 * CHANGES; 32]);
    }

    #[test]
    #[cfg(debug_assertions)]
    fn debug_builds_find_a_thread_that_would_wait_for_itself() {
        let lock = ShardedLock::new(1);
        let reading = lock.read();
        let again = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| *lock.read()));
        let writing = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| *lock.write()));
        assert!(again.is_err() && writing.is_err());
        assert_eq!(*ShardedLock::new(3).read(), 3);
        drop(reading);
        *lock.write() += 1;
        assert_eq!(*lock.read(), 2);
    }

    #[test]
    fn many_threads_can_read_at_a_time_and_none_can_change_the_value() {
        let lock = ShardedLock::new(1);
        let reading = lock.read();
        std::thread::scope(|scope| {
            for _ in 0..2 * MAX_SHARDS {
                scope.spawn(|| {
                    assert_eq!(*lock.read(), 1);
                    assert!(lock.try_write().is_none());
                });
            }
        });
        drop(reading);
        *lock.try_write().unwrap() = 2;
        let writing = lock.write();
        std::thread::scope(|scope| {
            for _ in 0..2 * MAX_SHARDS {
                scope.spawn(|| assert!(lock.try_read().is_none() && lock.try_write().is_none()));
            }
        });
        drop(writing);
        assert_eq!(*lock.read(), 2);
    }
}
