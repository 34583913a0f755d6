//! What a client has sent and has not been read.

use std::io;

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::time::{Duration, Instant, timeout, timeout_at};

use super::limits::{Limits, MAX_TIME, Memory, MemoryPart};

/// Capacity of the first buffer of a connection, in bytes.
const FIRST_CAPACITY: usize = 2048;
/// Part of an answer that a client must take within the limit, in bytes.
pub(super) const CHUNK: usize = 64 * 1024;
/// What is read of a refused request, so that the client reads the answer before it finds the
/// connection closed: maximum size in bytes, and time.
const REST: usize = 1024 * 1024;
const REST_TIME: Duration = Duration::from_secs(1);

/// Why no more can be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Stop {
    /// The client has closed its end, or the connection is broken.
    Closed,
    TimedOut,
    TooLarge,
    /// Other clients have the memory.
    NoMemory,
}

/// How long a connection waits for a request.
#[derive(Clone, Copy, Debug)]
pub(super) enum Wait {
    /// For the first request, as long as for a whole one.
    ForFirst,
    /// For the beginning of a later one, so long.
    Idle(Duration),
}

impl Wait {
    pub(super) fn deadline(self, limits: &Limits) -> Deadline {
        match self {
            Self::ForFirst => {
                Deadline { at: Instant::now() + limits.request_time.min(MAX_TIME), is_idle: false }
            }
            Self::Idle(time) => Deadline { at: Instant::now() + time.min(MAX_TIME), is_idle: true },
        }
    }
}

/// When a request must have come, or must have begun.
#[derive(Debug)]
pub(super) struct Deadline {
    at: Instant,
    is_idle: bool,
}

impl Deadline {
    pub(super) fn at(&self) -> Instant {
        self.at
    }

    /// Begins the time of a request, if it has begun.
    pub(super) fn begin(&mut self, is_begun: bool, limits: &Limits) {
        if is_begun && self.is_idle {
            *self = Wait::ForFirst.deadline(limits);
        }
    }
}

/// A connection with the bytes that were read from it and not been taken.
pub(super) struct Input<S> {
    stream: S,
    pub(super) buffer: Vec<u8>,
    memory: Memory,
    part: MemoryPart,
}

impl<S: AsyncRead + AsyncWrite + Unpin> Input<S> {
    pub(super) fn new(stream: S, memory: &Memory) -> Self {
        let part = memory.part();
        Self { stream, buffer: Vec::with_capacity(FIRST_CAPACITY), memory: memory.clone(), part }
    }

    /// Reads more into the buffer, which may become `max` bytes large.
    pub(super) async fn fill(&mut self, deadline: Instant, max: usize) -> Result<(), Stop> {
        if self.buffer.len() >= max {
            return Err(Stop::TooLarge);
        }
        if self.buffer.len() == self.buffer.capacity() {
            let capacity = (2 * self.buffer.len()).max(FIRST_CAPACITY).min(max);
            if !self.part.grow(capacity) {
                return Err(Stop::NoMemory);
            }
            self.buffer.reserve_exact(capacity - self.buffer.len());
        }
        match timeout_at(deadline, self.stream.read_buf(&mut self.buffer)).await {
            Ok(Ok(0) | Err(_)) => Err(Stop::Closed),
            Ok(Ok(_)) => Ok(()),
            Err(_) => Err(Stop::TimedOut),
        }
    }

    /// Takes the first bytes of the buffer, with the memory that they are in.
    pub(super) fn take(&mut self, len: usize) -> (Vec<u8>, MemoryPart) {
        let rest = self.buffer.split_off(len.min(self.buffer.len()));
        let taken = std::mem::replace(&mut self.buffer, rest);
        let mut part = self.memory.part();
        // The rest came with the last read: it is small, or it is not counted for a short time.
        let _ = part.grow(self.buffer.capacity());
        (taken, std::mem::replace(&mut self.part, part))
    }

    /// Writes a part of an answer.
    pub(super) async fn write(&mut self, bytes: &[u8], time: Duration) -> io::Result<()> {
        for chunk in bytes.chunks(CHUNK) {
            timeout(time, self.stream.write_all(chunk)).await??;
        }
        timeout(time, self.stream.flush()).await?
    }

    /// Answers a request that was not read to its end, and closes the connection.
    pub(super) async fn refuse(mut self, answer: &[u8], time: Duration) {
        self.release();
        if self.write(answer, time).await.is_ok() {
            self.close().await;
        }
    }

    /// Gives the memory back, before the client knows.
    fn release(&mut self) {
        self.buffer = Vec::with_capacity(FIRST_CAPACITY);
        self.part = self.memory.part();
    }

    /// Closes the connection after an answer.
    pub(super) async fn close(mut self) {
        self.release();
        let rest = async {
            self.stream.shutdown().await?;
            let mut left = REST;
            loop {
                self.buffer.clear();
                match self.stream.read_buf(&mut self.buffer).await? {
                    0 => return Ok(()),
                    len if len > left => return Ok(()),
                    len => left -= len,
                }
            }
        };
        let _: Result<io::Result<()>, _> = timeout(REST_TIME, rest).await;
    }
}
