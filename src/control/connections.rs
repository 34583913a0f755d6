//! The open connections of a channel, and which of them is closed for another.

use std::collections::HashMap;
use std::future::Future;
use std::sync::Arc;

use parking_lot::Mutex;
use tokio::sync::Notify;
use tokio::task::AbortHandle;

/// Number of clients that may wait for a channel to accept them.
pub(super) const BACKLOG: u32 = 1024;

/// What a connection does, in the order in which connections are closed for others.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Phase {
    /// It has not sent a request yet.
    New,
    /// It may send another request.
    Idle,
    /// It is being sent an answer.
    Answering,
    /// A command is made for it: it is not closed.
    Busy,
}

/// The open connections of a channel.
#[derive(Debug)]
pub(super) struct Connections {
    max: usize,
    open: Mutex<Open>,
    /// Wakes the task that waits until all are closed.
    closed: Notify,
}

#[derive(Debug, Default)]
struct Open {
    all: HashMap<u64, Entry>,
    /// Counts changes of phases, which gives their order.
    changes: u64,
    closing: bool,
}

#[derive(Debug)]
struct Entry {
    phase: Phase,
    since: u64,
    /// None until its task is started.
    task: Option<AbortHandle>,
}

impl Connections {
    pub(super) fn new(max: usize) -> Arc<Self> {
        Arc::new(Self { max: max.max(1), open: Mutex::default(), closed: Notify::new() })
    }

    /// Starts the task of a new connection. If there are too many, another one is closed, or, if
    /// all are busy, this one.
    pub(super) fn start<F>(self: &Arc<Self>, task: impl FnOnce(Connection) -> F)
    where
        F: Future<Output = ()> + Send + 'static,
    {
        let mut open = self.open.lock();
        if open.closing {
            return;
        }
        if open.all.len() >= self.max {
            let first = open.all.iter().filter(|(_, entry)| entry.phase < Phase::Busy);
            let first = first.min_by_key(|(_, entry)| (entry.phase, entry.since)).map(|(&id, _)| id);
            let Some(closed) = first.and_then(|id| open.all.remove(&id)) else {
                return;
            };
            if let Some(task) = closed.task {
                task.abort();
            }
        }
        open.changes += 1;
        let id = open.changes;
        open.all.insert(id, Entry { phase: Phase::New, since: id, task: None });
        drop(open);
        let started = tokio::spawn(task(Connection { id, all: Arc::clone(self) }));
        if let Some(entry) = self.open.lock().all.get_mut(&id) {
            entry.task = Some(started.abort_handle());
        }
    }

    /// Refuses new connections, and closes those that wait for a request. The others are closed
    /// after their answer.
    pub(super) fn close(&self) {
        let mut open = self.open.lock();
        open.closing = true;
        for entry in open.all.values().filter(|entry| entry.phase <= Phase::Idle) {
            if let Some(task) = &entry.task {
                task.abort();
            }
        }
    }

    /// Waits until all are closed.
    pub(super) async fn all_closed(&self) {
        loop {
            let closed = self.closed.notified();
            if self.open.lock().all.is_empty() {
                return;
            }
            closed.await;
        }
    }
}

/// An open connection.
#[derive(Debug)]
pub(super) struct Connection {
    id: u64,
    all: Arc<Connections>,
}

impl Connection {
    /// Returns false if the connection has to end instead.
    pub(super) fn enter(&self, phase: Phase) -> bool {
        let mut open = self.all.open.lock();
        open.changes += 1;
        let since = open.changes;
        let stays = !open.closing || phase > Phase::Idle;
        match open.all.get_mut(&self.id) {
            Some(entry) => {
                (entry.phase, entry.since) = (phase, since);
                stays
            }
            None => false,
        }
    }
}

impl Drop for Connection {
    fn drop(&mut self) {
        let mut open = self.all.open.lock();
        open.all.remove(&self.id);
        if open.all.is_empty() {
            drop(open);
            self.all.closed.notify_one();
        }
    }
}
