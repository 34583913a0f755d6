//! Synchronization of threads: locks, atomics and waiting.
//!
//! These are from `parking_lot` and the standard library. In the models (`scripts/threads`) they
//! are from `shuttle`, which runs one thread at a time and switches threads at each of these calls:
//! so the code is run unchanged in thousands of schedules, and fails if threads deadlock.

#[cfg(not(all(test, shuttle)))]
mod system {
    pub(crate) use std::sync as fair;
    pub(crate) use std::sync::atomic;
    pub(crate) use std::time::Instant;
    pub(crate) use std::{hint, thread, thread_local};

    pub(crate) use parking_lot::{Condvar, Mutex, MutexGuard, RawRwLock};
}

#[cfg(not(all(test, shuttle)))]
pub(crate) use system::*;

#[cfg(all(test, shuttle))]
mod model;

#[cfg(all(test, shuttle))]
pub(crate) use model::*;
