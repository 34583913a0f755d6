//! A lock for a value that is read much more often than changed, by threads on several processors.
//!
//! The usual lock has one count of readers, and every reader writes to it: on two processors, that alone costs as much as a
//! look-up. This one has several shards, each with a count on a cache line of its own. A reader locks the shard of its
//! thread, a writer locks all of them. There are as many shards as processors, up to 8: each of them costs every
//! change a transfer between processors.
//!
//! This module has `unsafe` in it because `lock_api`, which makes a lock of the shards, has every kind of lock
//! promise that it keeps readers and writers apart, and that promise cannot be given without. No pointer is followed here.

#![allow(unsafe_code, reason = "the promise of lock_api's trait, see above")]

use std::cell::Cell;
use std::sync::LazyLock;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;

use crossbeam_utils::CachePadded;
use parking_lot::lock_api::{self, GuardNoSend};

use crate::sync::{RawRwLock, hint, thread_local};

/// Number of times that a shard is tried before the thread sleeps. A change holds it for less than a microsecond, and to be
/// woken takes many.
const TRIES: u32 = if cfg!(shuttle) { 2 } else { 200 };
/// Maximum number of shards.
const MAX_SHARDS: usize = 8;

/// A value that many read at a time, or one changes. A thread that reads it must not ask for it once more.
pub(in crate::memfile) type ShardedLock<T> = lock_api::RwLock<RawShardedLock, T>;
/// The value, to be read.
pub(in crate::memfile) type ReadGuard<'a, T> = lock_api::RwLockReadGuard<'a, RawShardedLock, T>;
/// The value, to be changed.
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

/// The number of the thread's shard, the same each time. Threads get them in turn.
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

/// Tries something many times before doing what may take long.
#[inline]
fn patiently(mut attempt: impl FnMut() -> bool, wait: impl FnOnce()) {
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

// SAFETY: who has locked it exclusively holds every shard in use exclusively, and who has locked it shared holds one of these
// shared. So while there is the one, there is neither another one nor the other. A thread's shard is always the same, and
// guards do not leave their thread (`GuardNoSend`), so each unlocks what it has locked.
unsafe impl lock_api::RawRwLock for RawShardedLock {
    #[allow(clippy::declare_interior_mutable_const, reason = "that is what the trait asks for")]
    const INIT: Self = Self([const { CachePadded::new(RawRwLock::INIT) }; MAX_SHARDS]);

    type GuardMarker = GuardNoSend;

    #[inline]
    fn lock_shared(&self) {
        let shard = self.own();
        patiently(|| shard.try_lock_shared(), || shard.lock_shared());
    }

    #[inline]
    fn try_lock_shared(&self) -> bool {
        self.own().try_lock_shared()
    }

    #[inline]
    unsafe fn unlock_shared(&self) {
        // SAFETY: the caller has locked it shared, and so this shard.
        unsafe { self.own().unlock_shared() };
    }

    /// The first shard is locked first by all, so no two wait for each other.
    #[inline]
    fn lock_exclusive(&self) {
        for shard in self.in_use() {
            patiently(|| shard.try_lock_exclusive(), || shard.lock_exclusive());
        }
    }

    fn try_lock_exclusive(&self) -> bool {
        let shards = self.in_use();
        let locked = shards.iter().take_while(|shard| shard.try_lock_exclusive()).count();
        if locked < shards.len() {
            for shard in &shards[..locked] {
                // SAFETY: it was locked just now.
                unsafe { shard.unlock_exclusive() };
            }
        }
        locked == shards.len()
    }

    /// The first shard is unlocked last, so that the next writer that waits for it finds the others unlocked.
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

    /// Three threads change both numbers, and three read them; who holds the value lets others go on.
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
    fn a_reader_and_a_writer_never_meet() {
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
        const CHANGES: u64 = 20_000;
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
    fn many_may_read_at_a_time_and_nobody_changes_it_then() {
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
