//! What clients may take: time, memory, connections.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

/// What the clients of a server may take, so that a hostile one leaves the others served.
///
/// ```
/// use std::time::Duration;
///
/// use leasemgr::control::Limits;
///
/// let mut limits = Limits::default();
/// limits.request_size = 1024 * 1024;
/// limits.request_time = Duration::from_secs(5);
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Limits {
    /// Maximum number of connections to each socket and address. When another client connects, the
    /// connection is closed that has been without a request for the longest, those that never sent
    /// one first. The default is 256.
    pub connections: usize,
    /// Maximum size of a request, in bytes. The default is 16 MiB.
    pub request_size: usize,
    /// Maximum time from connecting to the end of the first request, and from the first byte to the
    /// end of a later one. The default is 30 seconds.
    pub request_time: Duration,
    /// Maximum time between the requests of an HTTP connection. The default is 2 minutes, which is
    /// 12 times the heartbeat delay of Kea's high availability.
    pub idle_time: Duration,
    /// Time that a connection to a UNIX socket stays open for a second request. The default is 200
    /// milliseconds: Kea's servers close at once, and there are clients that read until then. A
    /// client that has sent a second request gets `idle_time` for each further one.
    pub second_request_time: Duration,
    /// Maximum time in which a client takes 64 KiB of an answer, or the end of it. The default is
    /// 30 seconds.
    pub answer_time: Duration,
    /// Maximum memory of all connections for requests and answers that are larger than 16 KiB, in
    /// bytes. A request that does not fit is refused; an answer is kept in a file. The default is
    /// 64 MiB.
    pub memory: usize,
    /// Maximum size of an answer over HTTP that is kept in memory until its length is known, in
    /// bytes. A larger one is kept in a file that has no name. The default is 4 MiB.
    pub answer_memory: usize,
    /// The directory of these files. The default is that for temporary files, which may be in
    /// memory: where all of millions of leases are asked for, it should be on a disk.
    pub answer_directory: PathBuf,
    /// Maximum number of commands that are made at the same time, for each socket and address. The
    /// default is 8.
    pub commands: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            connections: 256,
            request_size: 16 << 20,
            request_time: Duration::from_secs(30),
            idle_time: Duration::from_secs(120),
            second_request_time: Duration::from_millis(200),
            answer_time: Duration::from_secs(30),
            memory: 64 << 20,
            answer_memory: 4 << 20,
            answer_directory: std::env::temp_dir(),
            commands: 8,
        }
    }
}

/// Maximum time that is waited for anything: a longer one might have no end that can be written as a
/// point in time.
pub(super) const MAX_TIME: Duration = Duration::from_secs(365 * 24 * 3600);

/// Memory of a connection that is not counted: the number of connections limits it.
pub(super) const FREE_MEMORY: usize = 16 * 1024;

/// The memory that is left to all connections together.
#[derive(Clone, Debug)]
pub(super) struct Memory(Arc<AtomicUsize>);

impl Memory {
    pub(super) fn new(size: usize) -> Self {
        Self(Arc::new(AtomicUsize::new(size)))
    }

    /// Returns a part of the memory, which is of size 0.
    pub(super) fn part(&self) -> MemoryPart {
        MemoryPart { left: self.clone(), size: 0 }
    }
}

/// A part of the memory, which is given back when this is dropped.
#[derive(Debug)]
pub(super) struct MemoryPart {
    left: Memory,
    size: usize,
}

impl MemoryPart {
    /// Makes the part large enough for `size` bytes. Returns false if so much is not left.
    pub(super) fn grow(&mut self, size: usize) -> bool {
        let wanted = size.saturating_sub(FREE_MEMORY);
        let Some(more) = wanted.checked_sub(self.size) else {
            return true;
        };
        let taken =
            self.left.0.fetch_update(Ordering::AcqRel, Ordering::Acquire, |left| left.checked_sub(more));
        if taken.is_ok() {
            self.size = wanted;
        }
        taken.is_ok()
    }
}

impl Drop for MemoryPart {
    fn drop(&mut self) {
        self.left.0.fetch_add(self.size, Ordering::AcqRel);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memory_is_limited_and_given_back() {
        let memory = Memory::new(100);
        let (mut first, mut second) = (memory.part(), memory.part());
        assert!(first.grow(FREE_MEMORY + 60) && first.grow(FREE_MEMORY) && second.grow(FREE_MEMORY + 40));
        assert!(!second.grow(FREE_MEMORY + 41) && !first.grow(FREE_MEMORY + 61));
        drop(second);
        assert!(first.grow(FREE_MEMORY + 100));
        drop(first);
        assert!(memory.part().grow(FREE_MEMORY + 100));
    }
}
