//! The database that `kea-admin` has made, which one test at a time uses.

use std::sync::{Condvar, Mutex};

use crate::databases::{Database, Server};

/// The turn of a test, which others wait for. Unlike a guard of a mutex, it can be sent.
struct Turn;

/// Whether a test has its turn.
static TAKEN: Mutex<bool> = Mutex::new(false);
static ENDED: Condvar = Condvar::new();

impl Turn {
    fn take() -> Self {
        let taken = TAKEN.lock().unwrap();
        *ENDED.wait_while(taken, |taken| *taken).unwrap() = true;
        Self
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        *TAKEN.lock().unwrap() = false;
        ENDED.notify_one();
    }
}

impl Database {
    /// Returns the database of `kea-admin`, of Kea 2.2, without leases.
    pub(crate) fn of_kea(server: Server) -> Self {
        let turn = Turn::take();
        let name = "kea22".to_owned();
        server.execute(&name, "DELETE FROM lease4; DELETE FROM lease6");
        Self { server, name, _turn: Some(Box::new(turn)) }
    }
}
