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
    /// * A file that is absent or empty, or has only a part of the header, gets the header. If the
    ///   name is a symbolic link that may be followed, the file is created at its target.
    /// * A last row without its newline, left by an interrupted writer, gets the newline, so that
    ///   it does not swallow the next row.
    /// * Empty lines at the end, which a crash may leave ([`Tail`]), are cut off.
    ///
    /// The rows are not checked: the caller has read them.
    ///
    /// # Errors
    /// Returns [`LeaseFileError::Io`] if a step fails.
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
                // Useless leftovers, also removed before the next one is created.
                let _ = fs.remove(&with_suffix(&target, leftover));
            }
            let (mut file, reader, end) = open_file(fs.as_ref(), &path, &target, header.as_bytes())?;
            // In every durability mode, as a later sync has to cover the name of the file as well.
            retry(|| file.sync()).map_err(|error| ("sync", error))?;
            retry(|| fs.sync_directory(directory_of(&target)))
                .map_err(|error| ("sync its directory", error))?;
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

/// The failed action and its error.
type Failed = (&'static str, io::Error);

/// The file to write to, the same file to read, and the position after its last row.
type Opened = (Box<dyn WriteFile>, Box<dyn ReadFile>, u64);

/// Opens the file, and finds the position after its last row.
fn open_file(fs: &dyn FileSystem, path: &Path, target: &Path, header: &[u8]) -> Result<Opened, Failed> {
    let file = match retry(|| fs.open_write(path)) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            // The new file continues these files, and belongs to the same users.
            let before = [".1", ".2", ".completed"].map(|suffix| with_suffix(path, suffix));
            let attributes = retry(|| attributes_of(fs, &before.each_ref().map(PathBuf::as_path)))
                .map_err(|error| ("read the owner of the older files of", error))?;
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

/// Returns whether the first `end` bytes of a file, with no newline after them, are a beginning of
/// the header.
fn is_beginning(file: &dyn ReadFile, end: u64, header: &[u8]) -> io::Result<bool> {
    let Some(len) = usize::try_from(end).ok().filter(|&len| len < header.len()) else {
        return Ok(false);
    };
    let mut content = vec![0; len];
    read_full(file, &mut content, 0)?;
    Ok(header.starts_with(&content))
}

/// Returns the length of a file, and the position after its last byte that is not a newline.
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
