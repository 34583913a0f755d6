//! A lock for what is read much more often than changed, by threads on several processors.
//!
//! The usual lock has one count of readers, and every reader writes to it: on two processors, that alone costs as much as a
//! look-up. Here are several gates, each with a count on a cache line of its own. A reader passes the gate of its thread; who
//! changes something closes all of them. There are as many gates as processors, up to 8: each of them costs every change
//! a transfer between processors.
//!
//! This is the one module of the crate with `unsafe` in it: `lock_api`, which makes a lock of the gates, has every kind of lock
//! promise that it keeps readers and writers apart, and that promise cannot be given without. No pointer is followed here.

#![allow(unsafe_code, reason = "the promise of lock_api's trait, see above")]

use std::cell::Cell;
use std::sync::LazyLock;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;

use crossbeam_utils::CachePadded;
use parking_lot::lock_api::{self, GuardNoSend};

use crate::sync::{RawRwLock, hint, thread_local};

/// How often a gate is tried before the thread sleeps. A change closes it for less than a microsecond, and to be
/// woken takes many.
const TRIES: u32 = if cfg!(shuttle) { 2 } else { 200 };
const MOST: usize = 8;

/// A value that many read at a time, or one changes. A thread that reads it must not ask for it once more.
pub(super) type Gates<T> = lock_api::RwLock<RawGates, T>;
/// The value, to be read.
pub(super) type Reading<'a, T> = lock_api::RwLockReadGuard<'a, RawGates, T>;
/// The value, to be changed.
pub(super) type Writing<'a, T> = lock_api::RwLockWriteGuard<'a, RawGates, T>;

/// The gates of a lock.
pub(super) struct RawGates([CachePadded<RawRwLock>; MOST]);

/// How many gates are in use.
static COUNT: LazyLock<usize> =
    LazyLock::new(|| thread::available_parallelism().map_or(1, usize::from).clamp(1, MOST));

thread_local! {
    /// The number of the thread's gate.
    static GATE: Cell<Option<usize>> = const { Cell::new(None) };
}

/// The number of the thread's gate, the same each time. Threads get them in turn.
fn own_gate() -> usize {
    static THREADS: AtomicUsize = AtomicUsize::new(0);
    GATE.with(|own| {
        own.get().unwrap_or_else(|| {
            let gate = THREADS.fetch_add(1, Ordering::Relaxed) % *COUNT;
            own.set(Some(gate));
            gate
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

impl RawGates {
    #[inline]
    fn own(&self) -> &RawRwLock {
        &self.0[own_gate()]
    }

    fn in_use(&self) -> &[CachePadded<RawRwLock>] {
        &self.0[..*COUNT]
    }
}

// SAFETY: who has locked it exclusively holds every gate in use exclusively, and who has locked it shared holds one of these
// shared. So while there is the one, there is neither another one nor the other. A thread's gate is always the same, and
// guards do not leave their thread (`GuardNoSend`), so each unlocks what it has locked.
unsafe impl lock_api::RawRwLock for RawGates {
    #[allow(clippy::declare_interior_mutable_const, reason = "that is what the trait asks for")]
    const INIT: Self = Self([const { CachePadded::new(RawRwLock::INIT) }; MOST]);

    type GuardMarker = GuardNoSend;

    #[inline]
    fn lock_shared(&self) {
        let gate = self.own();
        patiently(|| gate.try_lock_shared(), || gate.lock_shared());
    }

    #[inline]
    fn try_lock_shared(&self) -> bool {
        self.own().try_lock_shared()
    }

    #[inline]
    unsafe fn unlock_shared(&self) {
        // SAFETY: the caller has locked it shared, and so this gate.
        unsafe { self.own().unlock_shared() };
    }

    /// The first gate is closed first by all, so no two wait for each other.
    #[inline]
    fn lock_exclusive(&self) {
        for gate in self.in_use() {
            patiently(|| gate.try_lock_exclusive(), || gate.lock_exclusive());
        }
    }

    fn try_lock_exclusive(&self) -> bool {
        let gates = self.in_use();
        let closed = gates.iter().take_while(|gate| gate.try_lock_exclusive()).count();
        if closed < gates.len() {
            for gate in &gates[..closed] {
                // SAFETY: it was locked just now.
                unsafe { gate.unlock_exclusive() };
            }
        }
        closed == gates.len()
    }

    /// The first gate is opened last, so that the next who waits for it finds the others open.
    #[inline]
    unsafe fn unlock_exclusive(&self) {
        for gate in self.in_use().iter().rev() {
            // SAFETY: the caller has locked it exclusively, and so every gate.
            unsafe { gate.unlock_exclusive() };
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
        let gates = Arc::new(Gates::new([0; 2]));
        let change = |tries: bool| {
            let gates = Arc::clone(&gates);
            thread::spawn(move || {
                let mut value = if tries {
                    loop {
                        match gates.try_write() {
                            Some(value) => break value,
                            None => thread::yield_now(),
                        }
                    }
                } else {
                    gates.write()
                };
                value[0] += 1;
                thread::yield_now();
                value[1] += 1;
            })
        };
        let read = |tries: bool| {
            let gates = Arc::clone(&gates);
            thread::spawn(move || {
                let value = if tries { gates.try_read() } else { Some(gates.read()) };
                if let Some(value) = value {
                    let before = *value;
                    thread::yield_now();
                    assert!(before[0] == before[1] && *value == before, "{before:?}, {:?}", *value);
                }
            })
        };
        let threads = [change(false), read(false), change(true), read(false), read(true), change(false)];
        threads.into_iter().for_each(|thread| thread.join().unwrap());
        assert_eq!(*gates.read(), [3; 2]);
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
        let gates = Gates::new([0_u64; 32]);
        let start = Barrier::new(6);
        std::thread::scope(|scope| {
            for tries in [false, true] {
                let (gates, start) = (&gates, &start);
                scope.spawn(move || {
                    start.wait();
                    for _ in 0..CHANGES {
                        let mut value = if tries {
                            std::iter::repeat_with(|| gates.try_write()).flatten().next().unwrap()
                        } else {
                            gates.write()
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
                        let value = gates.read();
                        assert!(value.iter().all(|n| *n == value[0]) && value[0] >= last, "{:?}", *value);
                        last = value[0];
                    }
                });
            }
        });
        assert_eq!(*gates.read(), [2 * CHANGES; 32]);
    }

    #[test]
    fn many_may_read_at_a_time_and_nobody_changes_it_then() {
        let gates = Gates::new(1);
        let reading = gates.read();
        std::thread::scope(|scope| {
            for _ in 0..2 * MOST {
                scope.spawn(|| {
                    assert_eq!(*gates.read(), 1);
                    assert!(gates.try_write().is_none());
                });
            }
        });
        drop(reading);
        *gates.try_write().unwrap() = 2;
        let writing = gates.write();
        std::thread::scope(|scope| {
            for _ in 0..2 * MOST {
                scope.spawn(|| assert!(gates.try_read().is_none() && gates.try_write().is_none()));
            }
        });
        drop(writing);
        assert_eq!(*gates.read(), 2);
    }
}
