//! Tracks which callbacks a thread is in, so that a change that would wait for itself is refused.
//!
//! A change waits for the callbacks of other changes. So a thread in a callback must not change
//! leases of the manager that calls it, nor of a manager whose callback, in another thread, changes
//! leases of the first one. Managers are identified by their addresses, which are unique while a
//! call is in progress.

use std::cell::{Cell, RefCell};
use std::thread::{self, ThreadId};

use parking_lot::Mutex;

thread_local! {
    /// Managers whose callbacks the thread is in, the innermost last.
    static CALLING: RefCell<Vec<usize>> = const { RefCell::new(Vec::new()) };
    /// Whether the thread is among [`CHANGES`].
    static CHANGES_OTHERS: Cell<bool> = const { Cell::new(false) };
}

/// Changes that callbacks are making to leases of other managers; an entry stays until its callback
/// ends.
static CHANGES: Mutex<Vec<Change>> = Mutex::new(Vec::new());

/// A change that a callback makes.
#[derive(Clone, Copy, PartialEq, Eq)]
struct Change {
    thread: ThreadId,
    /// The manager that calls the callback.
    calling: usize,
    /// The manager whose leases it changes.
    changed: usize,
}

/// Marks the thread as in a callback of a manager, until dropped.
pub(super) struct Calling(usize);

impl Calling {
    pub(super) fn enter(manager: usize) -> Self {
        // A thread that is ending has no thread-local variables: its callbacks are not tracked.
        let _ = CALLING.try_with(|calling| calling.borrow_mut().push(manager));
        Self(manager)
    }
}

impl Drop for Calling {
    fn drop(&mut self) {
        let _ = CALLING.try_with(|calling| {
            let mut calling = calling.borrow_mut();
            calling.pop();
            if CHANGES_OTHERS.get() {
                let thread = thread::current().id();
                CHANGES.lock().retain(|change| change.thread != thread || change.calling != self.0);
                CHANGES_OTHERS.set(!calling.is_empty());
            }
        });
    }
}

/// Returns whether a change of the manager's leases would wait for a callback that the thread is
/// in.
pub(super) fn would_wait_for_itself(manager: usize) -> bool {
    let would_wait = CALLING.try_with(|calling| {
        let calling = calling.borrow();
        !calling.is_empty() && (calling.contains(&manager) || !enter_change(&calling, manager))
    });
    would_wait.unwrap_or(false)
}

/// Records a change that a thread makes in these callbacks, unless the changes of another thread
/// lead from the manager back to them.
fn enter_change(callbacks: &[usize], manager: usize) -> bool {
    let thread = thread::current().id();
    let mut changes = CHANGES.lock();
    let mut waited_for = vec![manager];
    let mut at = 0;
    while let Some(&next) = waited_for.get(at) {
        at += 1;
        for change in changes.iter().filter(|change| change.calling == next && change.thread != thread) {
            if callbacks.contains(&change.changed) {
                return false;
            }
            if !waited_for.contains(&change.changed) {
                waited_for.push(change.changed);
            }
        }
    }
    for &calling in callbacks {
        let change = Change { thread, calling, changed: manager };
        if !changes.contains(&change) {
            changes.push(change);
        }
    }
    CHANGES_OTHERS.set(true);
    true
}
