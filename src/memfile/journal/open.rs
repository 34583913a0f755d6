//! Opening the journal.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock};

use super::rewrite::RESTORED;
use super::rotate::NEXT;
use super::tail::Tail;
use super::{Journal, Shared, with_suffix};
use crate::fs::{
    FileSystem, ReadFile, WriteFile, attributes_of, create_in_place_of, directory_of, read_full, retry,
    write_full,
};
use crate::lease_file::LeaseFileError;
use crate::lease_mgr::Durability;
use crate::sync::Mutex;

impl Journal {
    /// Opens a file to append to.
    ///
    /// * One that is absent or empty, or has but a part of the header, gets the header. Where the name is a symbolic link that may
    ///   be followed, the file is created at the end of it.
    /// * A last row that an interrupted writer left without its newline gets that, so that it does not swallow the next row.
    /// * Empty lines at the end, which a crash may leave ([`Tail`]), are cut off.
    ///
    /// The rows are not looked at: who opens the file has read it.
    ///
    /// # Errors
    /// [`LeaseFileError::Io`] says what of that could not be done.
    pub(crate) fn open(
        fs: Arc<dyn FileSystem>,
        path: PathBuf,
        header: &'static str,
        durability: Durability,
    ) -> Result<Self, LeaseFileError> {
        let path: Arc<Path> = path.into();
        let header = format!("{header}\n");
        let appends = durability != Durability::Synced;
        let tail = (|| {
            let target = retry(|| fs.resolve(&path)).map_err(|error| ("open", error))?;
            for leftover in [NEXT, RESTORED] {
                // Of no use; it is removed again before the next one is begun.
                let _ = fs.remove(&with_suffix(&target, leftover));
            }
            let (mut file, reader, end) = open_file(fs.as_ref(), &path, &target, header.as_bytes())?;
            // Also where rows are not synced each: whoever asks for a sync later means the name of the file too.
            retry(|| file.sync()).map_err(|error| ("sync", error))?;
            retry(|| fs.sync_directory(directory_of(&target)))
                .map_err(|error| ("sync the directory of it", error))?;
            if appends {
                file = retry(|| fs.open_append(&path)).map_err(|error| ("open", error))?;
            }
            Tail::new(Arc::clone(&path), file.into(), reader, end, appends).map_err(|error| ("read", error))
        })();
        let io = |(action, source)| LeaseFileError::Io { path: path.to_path_buf(), action, source };
        let tail = tail.map_err(io)?;
        let shared = Shared {
            fs,
            path: Arc::clone(&path),
            header,
            durability,
            tail: Mutex::new(tail).into(),
            queue: Default::default(),
            syncs: Mutex::default(),
            timer: Default::default(),
            rotation: Mutex::default(),
            warnings: Mutex::default(),
            is_due: false.into(),
            failure: OnceLock::new(),
            is_full: false.into(),
        };
        let mut journal = Self { shared: Arc::new(shared), timer: None };
        if let Durability::SyncedEvery(time) = durability {
            journal.start_timer(time).map_err(|error| io(("start a thread to sync it", error)))?;
        }
        Ok(journal)
    }
}

/// What could not be done, and why.
type Failed = (&'static str, io::Error);

/// The file to write to, the same file to be read, and the place behind its last row.
type Opened = (Box<dyn WriteFile>, Box<dyn ReadFile>, u64);

/// Opens the file, and finds the place behind its last row.
fn open_file(fs: &dyn FileSystem, path: &Path, target: &Path, header: &[u8]) -> Result<Opened, Failed> {
    let file = match retry(|| fs.open_write(path)) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            // It comes after these, and is for the same users.
            let before = [".1", ".2", ".completed"].map(|suffix| with_suffix(path, suffix));
            let attributes = retry(|| attributes_of(fs, &before.each_ref().map(PathBuf::as_path)))
                .map_err(|error| ("look at the owner of the files beside", error))?;
            retry(|| create_in_place_of(fs, target, attributes.as_ref()))
                .map_err(|error| ("create", error))?
        }
        file => file.map_err(|error| ("open", error))?,
    };
    let content = retry(|| fs.open(path)).map_err(|error| ("open", error))?;
    let (len, mut end) = find_end(content.as_ref()).map_err(|error| ("read", error))?;
    if len > end + 1 {
        retry(|| file.set_len(end + 1)).map_err(|error| ("cut off the empty lines at the end of", error))?;
    }
    let write = |bytes: &[u8], at| write_full(file.as_ref(), bytes, at).map_err(|error| ("write", error));
    if is_beginning(content.as_ref(), end, header).map_err(|error| ("read", error))? {
        write(header, 0)?;
        end = header.len() as u64 - 1;
    } else if len == end {
        write(b"\n", end)?;
    }
    Ok((file, content, end + 1))
}

/// Whether the first `end` bytes of a file, without a newline behind them, are nothing but the beginning of the header.
fn is_beginning(file: &dyn ReadFile, end: u64, header: &[u8]) -> io::Result<bool> {
    let Some(len) = usize::try_from(end).ok().filter(|&len| len < header.len()) else {
        return Ok(false);
    };
    let mut content = vec![0; len];
    read_full(file, &mut content, 0)?;
    Ok(header.starts_with(&content))
}

/// How long a file is, and the place behind its last byte that is no newline.
fn find_end(file: &dyn ReadFile) -> io::Result<(u64, u64)> {
    const STEP: u64 = 64 * 1024;
    let len = retry(|| file.len())?;
    let mut buffer = Vec::new();
    let mut upto = len;
    while upto > 0 {
        let from = upto.saturating_sub(STEP);
        buffer.resize(usize::try_from(upto - from).unwrap_or_default(), 0);
        if read_full(file, &mut buffer, from)? < buffer.len() {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        if let Some(last) = buffer.iter().rposition(|&byte| byte != b'\n') {
            return Ok((len, from + last as u64 + 1));
        }
        upto = from;
    }
    Ok((len, 0))
}
