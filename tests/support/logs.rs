//! Records what the library logs.

use std::fmt::{Debug, Write as _};
use std::sync::{Arc, LazyLock, Mutex};

use tracing::field::{Field, Visit};
use tracing::span::{Attributes, Id, Record};
use tracing::{Dispatch, Event, Metadata, Subscriber};

/// Recorded log lines: one for each event with all its fields, and one for the fields of each span.
#[derive(Clone, Default)]
pub(crate) struct Logs(Arc<Mutex<Vec<String>>>);

/// A second dispatcher, which receives nothing. With a single dispatcher, `tracing` caches for all
/// threads whether the first thread that reaches a call site wants its events.
static SECOND: LazyLock<Dispatch> = LazyLock::new(|| Dispatch::new(Logs::default()));

impl Logs {
    /// Runs `work`, and records what this thread logs meanwhile.
    pub(crate) fn of<T>(&self, work: impl FnOnce() -> T) -> T {
        LazyLock::force(&SECOND);
        tracing::subscriber::with_default(self.clone(), work)
    }

    /// Records what all threads log.
    pub(crate) fn of_everything() -> Self {
        let logs = Self::default();
        tracing::subscriber::set_global_default(logs.clone()).unwrap();
        logs
    }

    pub(crate) fn lines(&self) -> Vec<String> {
        self.0.lock().unwrap().clone()
    }

    /// Returns the number of lines that contain these words.
    pub(crate) fn count(&self, words: &str) -> usize {
        self.lines().iter().filter(|line| line.contains(words)).count()
    }

    fn push(&self, record: impl FnOnce(&mut Line)) {
        let mut line = Line::default();
        record(&mut line);
        self.0.lock().unwrap().push(line.0);
    }
}

#[derive(Default)]
struct Line(String);

impl Visit for Line {
    fn record_str(&mut self, field: &Field, value: &str) {
        write!(self.0, "{field}={value} ").unwrap();
    }

    fn record_debug(&mut self, field: &Field, value: &dyn Debug) {
        write!(self.0, "{field}={value:?} ").unwrap();
    }
}

impl Subscriber for Logs {
    fn enabled(&self, _: &Metadata<'_>) -> bool {
        true
    }

    fn new_span(&self, span: &Attributes<'_>) -> Id {
        self.push(|line| span.record(line));
        Id::from_u64(1)
    }

    fn record(&self, _: &Id, values: &Record<'_>) {
        self.push(|line| values.record(line));
    }

    fn record_follows_from(&self, _: &Id, _: &Id) {}

    fn event(&self, event: &Event<'_>) {
        self.push(|line| event.record(line));
    }

    fn enter(&self, _: &Id) {}

    fn exit(&self, _: &Id) {}
}
