//! The same items from `shuttle`.

#![allow(unsafe_code, reason = "a raw lock, which a sharded lock is made of, is opened with `unsafe` calls")]

use std::ops::{Deref, DerefMut, Sub};
use std::sync::PoisonError;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

pub(crate) use shuttle::sync as fair;
pub(crate) use shuttle::sync::atomic;
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
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Instant(u64);

impl Instant {
    pub(crate) fn now() -> Self {
        static CLOCK: AtomicU64 = AtomicU64::new(0);
        Self(CLOCK.fetch_add(1, Ordering::Relaxed))
    }

    pub(crate) fn elapsed(self) -> Duration {
        Self::now() - self
    }

    pub(crate) fn checked_add(self, time: Duration) -> Option<Self> {
        self.0.checked_add(u64::try_from(time.as_micros()).ok()?).map(Self)
    }

    pub(crate) fn saturating_duration_since(self, earlier: Self) -> Duration {
        Duration::from_micros(self.0.saturating_sub(earlier.0))
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
        MutexGuard { mutex: self, held: Some(self.0.lock().unwrap_or_else(PoisonError::into_inner)) }
    }

    pub(crate) fn try_lock(&self) -> Option<MutexGuard<'_, T>> {
        Some(MutexGuard { mutex: self, held: Some(self.0.try_lock().ok()?) })
    }
}

pub(crate) struct MutexGuard<'a, T> {
    mutex: &'a Mutex<T>,
    /// Always there, but while the guard is borrowed by what waits without the lock.
    held: Option<shuttle::sync::MutexGuard<'a, T>>,
}

impl<T> MutexGuard<'_, T> {
    pub(crate) fn unlocked<U>(guard: &mut Self, work: impl FnOnce() -> U) -> U {
        guard.held = None;
        let result = work();
        guard.held = guard.mutex.lock().held;
        result
    }
}

impl<T> Deref for MutexGuard<'_, T> {
    type Target = T;

    fn deref(&self) -> &T {
        self.held.as_deref().unwrap()
    }
}

impl<T> DerefMut for MutexGuard<'_, T> {
    fn deref_mut(&mut self) -> &mut T {
        self.held.as_deref_mut().unwrap()
    }
}

/// `parking_lot`'s.
#[derive(Debug, Default)]
pub(crate) struct Condvar(shuttle::sync::Condvar);

/// Whether the time was over before a thread was woken.
pub(crate) struct TimedOut(bool);

impl TimedOut {
    pub(crate) fn timed_out(&self) -> bool {
        self.0
    }
}

impl Condvar {
    /// A wait that is longer than a model lasts.
    const LONG: Duration = Duration::from_secs(1);

    pub(crate) const fn new() -> Self {
        Self(shuttle::sync::Condvar::new())
    }

    pub(crate) fn wait<T>(&self, guard: &mut MutexGuard<'_, T>) {
        if let Some(held) = guard.held.take() {
            guard.held = Some(self.0.wait(held).unwrap_or_else(PoisonError::into_inner));
        }
    }

    /// A short time may be over whenever other threads have had their turn; a long one never is, so that a thread for which
    /// nothing else comes is found to wait for ever.
    pub(crate) fn wait_for<T>(&self, guard: &mut MutexGuard<'_, T>, time: Duration) -> TimedOut {
        if time >= Self::LONG {
            self.wait(guard);
            return TimedOut(false);
        }
        MutexGuard::unlocked(guard, thread::yield_now);
        TimedOut(true)
    }

    pub(crate) fn notify_all(&self) {
        self.0.notify_all();
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
            self.changed.wait(&mut state);
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
            self.changed.wait(&mut state);
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
