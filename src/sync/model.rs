//! The same items from `shuttle`.

#![allow(unsafe_code, reason = "a raw lock, which a sharded lock is made of, is opened with `unsafe` calls")]

use std::ops::Sub;
use std::sync::PoisonError;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

pub(crate) use shuttle::sync as fair;
use shuttle::sync::Condvar;
pub(crate) use shuttle::sync::{MutexGuard, atomic};
pub(crate) use shuttle::{hint, thread_local};

pub(crate) mod thread {
    use std::time::Duration;

    pub(crate) use shuttle::thread::*;

    /// `shuttle` has no timeouts. Here the timeout may be over whenever other threads have run.
    pub(crate) fn park_timeout(_: Duration) {
        yield_now();
    }
}

/// A clock that advances by a microsecond at each call.
#[derive(Clone, Copy)]
pub(crate) struct Instant(u64);

impl Instant {
    pub(crate) fn now() -> Self {
        static CLOCK: AtomicU64 = AtomicU64::new(0);
        Self(CLOCK.fetch_add(1, Ordering::Relaxed))
    }

    pub(crate) fn elapsed(self) -> Duration {
        Self::now() - self
    }
}

impl Sub for Instant {
    type Output = Duration;

    fn sub(self, earlier: Self) -> Duration {
        Duration::from_micros(self.0 - earlier.0)
    }
}

/// A mutex like `parking_lot`'s, which is never poisoned.
#[derive(Debug, Default)]
pub(crate) struct Mutex<T>(shuttle::sync::Mutex<T>);

impl<T> Mutex<T> {
    pub(crate) const fn new(value: T) -> Self {
        Self(shuttle::sync::Mutex::new(value))
    }

    pub(crate) fn lock(&self) -> MutexGuard<'_, T> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn try_lock(&self) -> Option<MutexGuard<'_, T>> {
        self.0.try_lock().ok()
    }
}

/// A lock like `parking_lot`'s: a thread that waits for exclusive access blocks further readers.
pub(crate) struct RawRwLock {
    state: Mutex<State>,
    changed: Condvar,
}

struct State {
    readers: usize,
    is_exclusive: bool,
    waiting_writers: usize,
}

impl State {
    fn read(&mut self) -> bool {
        let may = !self.is_exclusive && self.waiting_writers == 0;
        self.readers += usize::from(may);
        may
    }

    fn write(&mut self) -> bool {
        let may = !self.is_exclusive && self.readers == 0;
        self.is_exclusive |= may;
        may
    }
}

impl RawRwLock {
    #[allow(clippy::declare_interior_mutable_const, reason = "as parking_lot's")]
    pub(crate) const INIT: Self = Self {
        state: Mutex::new(State { readers: 0, is_exclusive: false, waiting_writers: 0 }),
        changed: Condvar::new(),
    };

    pub(crate) fn lock_shared(&self) {
        let mut state = self.state.lock();
        while !state.read() {
            state = self.changed.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
    }

    pub(crate) fn try_lock_shared(&self) -> bool {
        self.state.lock().read()
    }

    pub(crate) unsafe fn unlock_shared(&self) {
        self.state.lock().readers -= 1;
        self.changed.notify_all();
    }

    pub(crate) fn lock_exclusive(&self) {
        let mut state = self.state.lock();
        state.waiting_writers += 1;
        while !state.write() {
            state = self.changed.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
        state.waiting_writers -= 1;
    }

    pub(crate) fn try_lock_exclusive(&self) -> bool {
        self.state.lock().write()
    }

    pub(crate) unsafe fn unlock_exclusive(&self) {
        self.state.lock().is_exclusive = false;
        self.changed.notify_all();
    }
}
