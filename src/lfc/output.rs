//! The file that the cleanup writes.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::sync::PoisonError;
use std::sync::mpsc::{self, Sender};

use super::LfcError;
use crate::fs::{Attributes, FileSystem, WriteFile, create_in_place_of};

/// The output file. What was written is made durable along the way, so that little is left to be
/// waited for in the end.
pub(super) struct Output {
    path: PathBuf,
    file: Box<dyn WriteFile>,
    progress: Mutex<Progress>,
}

#[derive(Default)]
struct Progress {
    /// Bytes written since the last request to sync.
    unsynced: usize,
    request: Option<Sender<()>>,
}

/// Takes the sender away when it goes, whatever it goes for: without one, the thread that syncs ends.
struct EndOfRequests<'a>(&'a Output);

impl Drop for EndOfRequests<'_> {
    fn drop(&mut self) {
        self.0.lock().request = None;
    }
}

impl Output {
    /// How much is written between two syncs along the way.
    const STRIDE: usize = 16 * 1024 * 1024;

    /// Creates the file, in place of one that an interrupted cleanup left, for the place of a file with these attributes.
    pub(super) fn create(
        fs: &dyn FileSystem,
        path: &Path,
        attributes: Option<&Attributes>,
    ) -> Result<Self, LfcError> {
        match fs.remove(path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                return Err(LfcError::io("remove the output of an interrupted cleanup,", path)(error));
            }
            _ => {}
        }
        let file = create_in_place_of(fs, path, attributes).map_err(LfcError::io("create", path))?;
        Ok(Self { path: path.to_owned(), file, progress: Mutex::default() })
    }

    /// Runs `write`, which appends to the file, and returns when all that it wrote is durable.
    pub(super) fn write_durably<T, E: From<LfcError>>(
        &self,
        write: impl FnOnce(&Self) -> Result<T, E>,
    ) -> Result<T, E> {
        let (request, requests) = mpsc::channel();
        self.lock().request = Some(request);
        let (written, synced) = std::thread::scope(|scope| {
            let sync = move || requests.iter().try_for_each(|()| self.file.sync());
            // Without a thread to spare, all is synced in the end.
            let syncing = std::thread::Builder::new().spawn_scoped(scope, sync);
            let written = {
                let _end = EndOfRequests(self);
                write(self)
            };
            let synced = syncing.map_or(Ok(()), |thread| {
                thread.join().unwrap_or_else(|_| Err(io::Error::other("syncing panicked")))
            });
            (written, synced)
        });
        let written = written?;
        synced.and_then(|()| self.file.sync()).map_err(LfcError::io("sync", &self.path))?;
        Ok(written)
    }

    /// Appends.
    pub(super) fn append(&self, bytes: &[u8]) -> Result<(), LfcError> {
        if bytes.is_empty() {
            return Ok(());
        }
        self.file.append(bytes).map_err(LfcError::io("write", &self.path))?;
        let mut progress = self.lock();
        progress.unsynced += bytes.len();
        if progress.unsynced >= Self::STRIDE {
            progress.unsynced = 0;
            if let Some(request) = &progress.request {
                // After a failed sync nobody listens; the error is found in the end.
                let _ = request.send(());
            }
        }
        Ok(())
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Progress> {
        self.progress.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
