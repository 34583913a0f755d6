//! A queue of what a thread has to do.

use std::collections::VecDeque;

use parking_lot::{Condvar, Mutex};

/// Jobs for a thread, first in first out.
pub(super) struct Queue<J> {
    jobs: Mutex<Jobs<J>>,
    changed: Condvar,
    limit: usize,
}

struct Jobs<J> {
    waiting: VecDeque<J>,
    is_closed: bool,
}

impl<J> Queue<J> {
    /// Creates a queue in which up to `limit` jobs wait.
    pub(super) fn new(limit: usize) -> Self {
        let jobs = Mutex::new(Jobs { waiting: VecDeque::new(), is_closed: false });
        Self { jobs, changed: Condvar::new(), limit }
    }

    /// Adds a job. Returns whether it is in the queue; if not, the queue is full or closed, and the
    /// job was dropped.
    pub(super) fn push(&self, job: J) -> bool {
        let mut jobs = self.jobs.lock();
        let is_possible = !jobs.is_closed && jobs.waiting.len() < self.limit;
        // A job that is left out is dropped after the lock, since its end calls others.
        if is_possible {
            jobs.waiting.push_back(job);
            self.changed.notify_one();
        }
        is_possible
    }

    /// Waits for a job. `None`: the queue is closed.
    pub(super) fn pop(&self) -> Option<J> {
        let mut jobs = self.jobs.lock();
        loop {
            if jobs.is_closed {
                return None;
            }
            if let Some(job) = jobs.waiting.pop_front() {
                return Some(job);
            }
            self.changed.wait(&mut jobs);
        }
    }

    /// Ends the thread, after the job that it has. Jobs that wait are dropped.
    pub(super) fn close(&self) {
        let mut jobs = self.jobs.lock();
        jobs.is_closed = true;
        let waiting = std::mem::take(&mut jobs.waiting);
        self.changed.notify_all();
        drop(jobs);
        drop(waiting);
    }
}
