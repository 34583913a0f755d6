//! What threads meet at: locks, atomic numbers, ways to wait.
//!
//! These are `parking_lot`'s and the standard library's. In the models (`scripts/threads`) they are `shuttle`'s instead, which lets one
//! thread go on at a time and chooses at each of these calls which one: so the code as it stands is run in thousands of orders,
//! and fails where threads wait for each other for ever.

#[cfg(not(all(test, shuttle)))]
mod system {
    pub(crate) use std::sync as fair;
    pub(crate) use std::sync::atomic;
    pub(crate) use std::time::Instant;
    pub(crate) use std::{hint, thread, thread_local};

    pub(crate) use parking_lot::{Mutex, MutexGuard, RawRwLock};
}

#[cfg(not(all(test, shuttle)))]
pub(crate) use system::*;

#[cfg(all(test, shuttle))]
mod model;

#[cfg(all(test, shuttle))]
pub(crate) use model::*;
