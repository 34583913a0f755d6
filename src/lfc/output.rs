//! The output file of a cleanup.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::sync::PoisonError;
use std::sync::mpsc::{self, Sender};

use super::LfcError;
use crate::fs::{Attributes, FileSystem, WriteFile, create_in_place_of};

/// The output file. It is synced while it is written, so that the last sync takes little time.
pub(super) struct Output {
    path: PathBuf,
    file: Box<dyn WriteFile>,
    progress: Mutex<Progress>,
}

#[derive(Default)]
struct Progress {
    /// Number of bytes written since the last request to sync.
    unsynced: usize,
    request: Option<Sender<()>>,
}

/// Drops the sender on every path, including a panic: the thread that syncs ends without one.
struct EndOfRequests<'a>(&'a Output);

impl Drop for EndOfRequests<'_> {
    fn drop(&mut self) {
        self.0.lock().request = None;
    }
}

impl Output {
    /// Number of bytes that are written between two syncs.
    const SYNC_STEP: usize = 16 * 1024 * 1024;

    /// Creates the file with the attributes of the file that it is to replace. Replaces an output
    /// that an interrupted cleanup left.
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

    /// Runs `write`, which appends to the file. Returns when everything that it wrote is durable.
    pub(super) fn write_durably<T, E: From<LfcError>>(
        &self,
        write: impl FnOnce(&Self) -> Result<T, E>,
    ) -> Result<T, E> {
        let (request, requests) = mpsc::channel();
        self.lock().request = Some(request);
        let (written, synced) = std::thread::scope(|scope| {
            let sync = move || requests.iter().try_for_each(|()| self.file.sync());
            // If no thread can be started, everything is synced at the end.
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

    /// Appends bytes.
    pub(super) fn append(&self, bytes: &[u8]) -> Result<(), LfcError> {
        if bytes.is_empty() {
            return Ok(());
        }
        self.file.append(bytes).map_err(LfcError::io("write", &self.path))?;
        let mut progress = self.lock();
        progress.unsynced += bytes.len();
        if progress.unsynced >= Self::SYNC_STEP {
            progress.unsynced = 0;
            if let Some(request) = &progress.request {
                // After a failed sync no thread receives; the error is returned at the end.
                let _ = request.send(());
            }
        }
        Ok(())
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Progress> {
        self.progress.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
