//! Handlers are called in threads of their own, and their answers are sent as they are written, or
//! kept until their length is known.

use std::fs::{self, File, OpenOptions};
use std::io::{self, BufWriter, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::process;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use tokio::sync::{Semaphore, mpsc};
use tokio::task::spawn_blocking;
use tracing::error;

use super::input::CHUNK;
use super::limits::{Limits, Memory, MemoryPart};
use crate::panics::contained;
use crate::request::{Handler, Outcome, Source};

/// What the connections of one channel share.
pub(super) struct Shared {
    pub(super) handler: Arc<dyn Handler>,
    pub(super) limits: Arc<Limits>,
    pub(super) memory: Memory,
    /// One permit for each command that may be made at the same time.
    pub(super) commands: Arc<Semaphore>,
}

/// A request, with the memory that it takes.
pub(super) type Request = (Vec<u8>, MemoryPart);

/// Number of parts of an answer that wait to be sent.
const WAITING_CHUNKS: usize = 4;

/// Calls a handler. An error is logged, also that the handler panicked.
fn call(
    handler: &dyn Handler,
    request: &[u8],
    source: &Source,
    answer: &mut dyn Write,
) -> io::Result<Outcome> {
    match contained(|| handler.answer(request, source, answer)) {
        Ok(outcome) => outcome,
        Err(message) => {
            error!("the handler of a command panicked: {message}");
            Err(io::Error::other("the handler of a command panicked"))
        }
    }
}

/// An answer that is sent while it is written.
pub(super) struct Streamed {
    /// The parts, in order.
    pub(super) chunks: mpsc::Receiver<Vec<u8>>,
    /// The outcome, after all parts; `None` if the thread was lost.
    pub(super) outcome: tokio::sync::oneshot::Receiver<io::Result<Outcome>>,
}

/// Begins to answer a request.
pub(super) async fn stream(shared: &Shared, request: Request, source: Source) -> Option<Streamed> {
    let permit = Arc::clone(&shared.commands).acquire_owned().await.ok()?;
    let (sender, chunks) = mpsc::channel(WAITING_CHUNKS);
    let (finished, outcome) = tokio::sync::oneshot::channel();
    let handler = Arc::clone(&shared.handler);
    spawn_blocking(move || {
        let mut answer = BufWriter::with_capacity(CHUNK, Chunks(sender));
        let outcome = call(&*handler, &request.0, &source, &mut answer);
        let outcome = outcome.and_then(|outcome| answer.flush().map(|()| outcome));
        // If the connection is closed, the rest is not written.
        let _ = answer.into_parts();
        let _ = finished.send(outcome);
        drop((request, permit));
    });
    Some(Streamed { chunks, outcome })
}

/// Sends what is written to it as parts of an answer.
struct Chunks(mpsc::Sender<Vec<u8>>);

impl Write for Chunks {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let (chunk, _) = bytes.split_at(bytes.len().min(CHUNK));
        self.0.blocking_send(chunk.to_vec()).map_err(|_| io::ErrorKind::BrokenPipe)?;
        Ok(chunk.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Answers a request, and keeps the answer. `work` calls the handler.
pub(super) async fn keep<T: Send + 'static>(
    shared: &Shared,
    work: impl FnOnce(&mut dyn FnMut(&[u8], &Source) -> io::Result<Outcome>) -> T + Send + 'static,
) -> Option<(T, Kept)> {
    let permit = Arc::clone(&shared.commands).acquire_owned().await.ok()?;
    let handler = Arc::clone(&shared.handler);
    let mut kept = Kept::new(&shared.memory, Arc::clone(&shared.limits));
    let answered = spawn_blocking(move || {
        let result = work(&mut |request, source| call(&*handler, request, source, &mut kept));
        drop(permit);
        (result, kept)
    });
    answered.await.ok()
}

/// An answer that is kept until its length is known: in memory or, if it is large, in a file.
pub(super) struct Kept {
    memory: Vec<u8>,
    part: MemoryPart,
    file: Option<BufWriter<File>>,
    len: u64,
    limits: Arc<Limits>,
}

impl Kept {
    fn new(memory: &Memory, limits: Arc<Limits>) -> Self {
        Self { memory: Vec::new(), part: memory.part(), file: None, len: 0, limits }
    }

    /// Returns the number of bytes.
    pub(super) fn len(&self) -> u64 {
        self.len
    }

    /// Returns the answer if it is in memory.
    pub(super) fn in_memory(&self) -> Option<&[u8]> {
        self.file.is_none().then_some(&*self.memory)
    }

    /// Returns the file that the answer is in.
    pub(super) fn into_file(self) -> io::Result<Option<File>> {
        let file = self.file.map(BufWriter::into_inner).transpose();
        file.map_err(io::IntoInnerError::into_error)
    }

    /// Returns whether this number of further bytes fits in memory.
    fn fits(&mut self, more: usize) -> bool {
        let len = self.memory.len() + more;
        if len <= self.memory.capacity() {
            return true;
        }
        let max = self.limits.answer_memory;
        let capacity = len.max(2 * self.memory.len()).min(max);
        let fits = len <= max && self.part.grow(capacity);
        if fits {
            self.memory.reserve_exact(capacity - self.memory.len());
        }
        fits
    }
}

impl Write for Kept {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if self.file.is_none() && !self.fits(bytes.len()) {
            let mut file = BufWriter::with_capacity(CHUNK, unnamed_file(&self.limits.answer_directory)?);
            file.write_all(&self.memory)?;
            self.memory = Vec::new();
            self.file = Some(file);
        }
        match &mut self.file {
            Some(file) => file.write_all(bytes)?,
            None => self.memory.extend_from_slice(bytes),
        }
        self.len += bytes.len() as u64;
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Creates a file that only this process can read, and removes its name.
fn unnamed_file(directory: &Path) -> io::Result<File> {
    static NEXT: AtomicU64 = AtomicU64::new(0);
    loop {
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let path = directory.join(format!("leasemgr-answer-{}-{number}", process::id()));
        match OpenOptions::new().read(true).write(true).create_new(true).mode(0o600).open(&path) {
            Ok(file) => {
                fs::remove_file(&path)?;
                return Ok(file);
            }
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
            Err(error) => return Err(error),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::FileExt;

    use super::*;

    fn kept(memory: usize, answer_memory: usize, directory: &Path) -> Kept {
        let limits = Limits { answer_memory, answer_directory: directory.into(), ..Limits::default() };
        Kept::new(&Memory::new(memory), Arc::new(limits))
    }

    #[test]
    fn a_large_answer_is_kept_in_a_file_without_a_name() {
        let directory = tempfile::tempdir().unwrap();
        let text: Vec<u8> = (0..200_000_u32).map(|n| n as u8).collect();
        for (memory, answer_memory) in [(1 << 30, 100_000), (50_000, 1 << 30)] {
            let mut kept = kept(memory, answer_memory, directory.path());
            for part in text.chunks(1000) {
                kept.write_all(part).unwrap();
                assert!(kept.memory.capacity() <= 101_000);
            }
            assert_eq!((kept.len(), kept.in_memory()), (200_000, None));
            assert_eq!(fs::read_dir(directory.path()).unwrap().count(), 0);
            let file = kept.into_file().unwrap().unwrap();
            let mut found = vec![0; text.len()];
            file.read_exact_at(&mut found, 0).unwrap();
            assert_eq!(found, text);
        }
    }

    #[test]
    fn a_small_answer_is_kept_in_memory() {
        let mut kept = kept(1 << 20, 1 << 20, Path::new("/nonexistent"));
        for _ in 0..100 {
            kept.write_all(&[b' '; 1000]).unwrap();
        }
        assert_eq!(kept.in_memory().map(<[u8]>::len), Some(100_000));
        kept.write_all(&vec![b' '; 1 << 20]).unwrap_err();
    }
}
