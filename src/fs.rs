//! The file operations of the journal and of the cleanup.
//!
//! All of them go through [`FileSystem`], so that tests can let any one of them fail, and can
//! forget what was never synced: the module `simulated` (feature `simulated-disk`) does so. [`OsFileSystem`] is the real thing.

mod attributes;
#[cfg(test)]
pub(crate) mod memory;
#[cfg(any(test, feature = "simulated-disk"))]
pub mod simulated;

use std::fmt;
use std::fs::{File, Metadata, OpenOptions, TryLockError};
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::fs::{FileExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::time::Duration;

use rustix::fs::{OFlags, fcntl_getfl, fcntl_setfl};

pub use attributes::{Attributes, OwnerNotKept};

/// The mode of files that are created: no access for others (less what the umask takes away).
const FILE_MODE: u32 = 0o640;
/// The mode of a PID file's lock, as in Kea.
const LOCK_MODE: u32 = 0o600;

/// The file operations that a lease store needs.
pub trait FileSystem: fmt::Debug + Send + Sync {
    /// Opens a file for reading.
    ///
    /// # Errors
    /// As [`File::open`]; above all [`io::ErrorKind::NotFound`].
    fn open(&self, path: &Path) -> io::Result<Box<dyn ReadFile>>;

    /// Creates a file that must not exist, for writing. A symbolic link is not followed.
    ///
    /// # Errors
    /// As [`OpenOptions::create_new`]; above all [`io::ErrorKind::AlreadyExists`].
    fn create(&self, path: &Path) -> io::Result<Box<dyn WriteFile>>;

    /// Creates a file that must not exist, for writing, with the attributes of a file whose place it is to take. From its
    /// creation on, no user may do more with it than with that file.
    ///
    /// A group, an ACL or a label that cannot be kept is logged. A file system without owners may leave this as it is.
    ///
    /// # Errors
    /// As [`FileSystem::create`], and [`OwnerNotKept`] (within an error of kind
    /// [`PermissionDenied`](io::ErrorKind::PermissionDenied)) if the file cannot have the owner and that user could not
    /// read it. Then there is no file.
    fn create_like(&self, path: &Path, attributes: &Attributes) -> io::Result<Box<dyn WriteFile>> {
        let _ = attributes;
        self.create(path)
    }

    /// Gives a file the attributes of one whose place it is to take, as far as [`FileSystem::create_like`] does.
    ///
    /// # Errors
    /// As [`FileSystem::create_like`]; above all [`io::ErrorKind::NotFound`].
    fn set_attributes(&self, path: &Path, attributes: &Attributes) -> io::Result<()> {
        let _ = (path, attributes);
        Ok(())
    }

    /// Opens a file that exists, for writing.
    ///
    /// # Errors
    /// As [`OpenOptions::open`]; above all [`io::ErrorKind::NotFound`].
    fn open_write(&self, path: &Path) -> io::Result<Box<dyn WriteFile>>;

    /// Opens a file that exists, to append to it: [`WriteFile::append`] writes at the end of the file, wherever
    /// other processes have put that meanwhile. [`WriteFile::write_at`] is an error.
    ///
    /// # Errors
    /// As [`OpenOptions::open`]; above all [`io::ErrorKind::NotFound`].
    fn open_append(&self, path: &Path) -> io::Result<Box<dyn WriteFile>>;

    /// Gives a file another name, in place of a file of that name.
    ///
    /// # Errors
    /// As [`std::fs::rename`].
    fn rename(&self, from: &Path, to: &Path) -> io::Result<()>;

    /// Gives a file a second name (a hard link), which must not exist. A symbolic link is not followed.
    ///
    /// # Errors
    /// As [`std::fs::hard_link`]. Where there are no such links, [`io::ErrorKind::Unsupported`] or another error.
    fn link(&self, from: &Path, to: &Path) -> io::Result<()> {
        let _ = (from, to);
        Err(io::ErrorKind::Unsupported.into())
    }

    /// Returns the name of the file that a name stands for, by symbolic links that may be followed. The file need
    /// not exist, be it of the name itself or at the end of the links.
    ///
    /// # Errors
    /// Returns an error if a link may not be followed or cannot be read.
    fn resolve(&self, path: &Path) -> io::Result<PathBuf> {
        Ok(path.to_owned())
    }

    /// Returns whether two names are one: the same name in the same directory, however the directory is called. The
    /// files need not exist, and links of these names are not followed.
    ///
    /// # Errors
    /// Returns an error if a directory cannot be looked at.
    fn is_same_name(&self, one: &Path, other: &Path) -> io::Result<bool> {
        Ok(one == other)
    }

    /// Removes a file.
    ///
    /// # Errors
    /// As [`std::fs::remove_file`].
    fn remove(&self, path: &Path) -> io::Result<()>;

    /// Makes the content of a file durable that somebody else has written.
    ///
    /// # Errors
    /// As [`File::sync_all`].
    fn sync_file(&self, path: &Path) -> io::Result<()>;

    /// Makes the names in a folder durable, as they are now.
    ///
    /// # Errors
    /// As [`File::sync_all`].
    fn sync_folder(&self, folder: &Path) -> io::Result<()>;

    /// Waits for the exclusive advisory lock of a file, which is created for it, and holds it until the
    /// guard is dropped. Then the file is removed.
    ///
    /// # Errors
    /// As opening and [`File::lock`].
    fn lock(&self, path: &Path) -> io::Result<Box<dyn Send>>;

    /// As [`FileSystem::lock`], but without waiting: `None` if somebody else holds the lock, in this process or
    /// another.
    ///
    /// # Errors
    /// As opening and [`File::try_lock`].
    fn try_lock(&self, path: &Path) -> io::Result<Option<Box<dyn Send + Sync>>>;

    /// As [`FileSystem::try_lock`], for a process that is about to be started: the lock is held until the guard is dropped, or, if
    /// this process ends before that, until no process has a descriptor of the lock any more.
    ///
    /// # Errors
    /// As [`FileSystem::try_lock`]. Returns [`io::ErrorKind::Unsupported`] if no other process can hold a lock of this file system, as
    /// it does unless implemented.
    fn try_lock_for_process(&self, path: &Path) -> io::Result<Option<ProcessLock>> {
        let _ = path;
        Err(io::ErrorKind::Unsupported.into())
    }
}

/// An open file to read from.
pub trait ReadFile: Send + Sync {
    /// Its length in bytes.
    ///
    /// # Errors
    /// As [`File::metadata`].
    fn len(&self) -> io::Result<u64>;

    /// Whether it has no bytes.
    ///
    /// # Errors
    /// As [`ReadFile::len`].
    fn is_empty(&self) -> io::Result<bool> {
        Ok(self.len()? == 0)
    }

    /// Reads at most `buffer.len()` bytes from byte `at` on; 0 at the end.
    ///
    /// # Errors
    /// As [`FileExt::read_at`].
    fn read_at(&self, buffer: &mut [u8], at: u64) -> io::Result<usize>;

    /// What tells this file from every other, whatever its name.
    ///
    /// # Errors
    /// As [`File::metadata`].
    fn identity(&self) -> io::Result<(u64, u64)>;

    /// Its owner, group and mode, for a file that is to take its place; `None` where files have no owners.
    ///
    /// # Errors
    /// As [`File::metadata`].
    fn attributes(&self) -> io::Result<Option<Attributes>> {
        Ok(None)
    }
}

/// An open file to write to.
pub trait WriteFile: Send + Sync {
    /// Writes all bytes behind those already there.
    ///
    /// # Errors
    /// As [`io::Write::write_all`]; some of the bytes may have been written.
    fn append(&self, bytes: &[u8]) -> io::Result<()>;

    /// Writes bytes over those from byte `at` on, or behind the last one, and tells how many of them it has written.
    ///
    /// # Errors
    /// As [`FileExt::write_at`].
    fn write_at(&self, bytes: &[u8], at: u64) -> io::Result<usize>;

    /// Cuts the file off behind byte `len`.
    ///
    /// # Errors
    /// As [`File::set_len`].
    fn set_len(&self, len: u64) -> io::Result<()>;

    /// Makes durable what was written, and the length.
    ///
    /// # Errors
    /// As [`File::sync_data`]. After an error it is not known what of the file is durable.
    fn sync(&self) -> io::Result<()>;
}

/// Does something again for as long as a signal interrupts it.
pub(crate) fn retry<T>(mut work: impl FnMut() -> io::Result<T>) -> io::Result<T> {
    loop {
        match work() {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            result => return result,
        }
    }
}

/// Reads until `buffer` is full or the file ends, and tells how many bytes that were.
///
/// # Errors
/// As [`ReadFile::read_at`].
pub(crate) fn read_full(file: &dyn ReadFile, buffer: &mut [u8], at: u64) -> io::Result<usize> {
    let mut done = 0;
    while done < buffer.len() {
        match retry(|| file.read_at(&mut buffer[done..], at + done as u64))? {
            0 => break,
            count => done += count,
        }
    }
    Ok(done)
}

/// Creates a file that is to take the place of one with these attributes, or of none.
pub(crate) fn create_in_place_of(
    fs: &dyn FileSystem,
    path: &Path,
    attributes: Option<&Attributes>,
) -> io::Result<Box<dyn WriteFile>> {
    attributes.map_or_else(|| fs.create(path), |attributes| fs.create_like(path, attributes))
}

/// Returns the attributes of the first of these files that exists.
pub(crate) fn attributes_of(fs: &dyn FileSystem, paths: &[&Path]) -> io::Result<Option<Attributes>> {
    for path in paths {
        match fs.open(path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            file => return file?.attributes(),
        }
    }
    Ok(None)
}

/// Writes all bytes from byte `at` on.
///
/// # Errors
/// As [`WriteFile::write_at`]; some of the bytes may have been written.
pub(crate) fn write_full(file: &dyn WriteFile, mut bytes: &[u8], mut at: u64) -> io::Result<()> {
    while !bytes.is_empty() {
        match retry(|| file.write_at(bytes, at))? {
            0 => return Err(io::ErrorKind::WriteZero.into()),
            count => {
                bytes = &bytes[count..];
                at += count as u64;
            }
        }
    }
    Ok(())
}

/// Appends bytes of one file, from one place to another or to its end, to another file. Returns the number of them.
pub(crate) fn copy_range(from: &dyn ReadFile, to: &dyn WriteFile, start: u64, end: u64) -> io::Result<u64> {
    const STEP: u64 = 256 * 1024;
    let mut buffer = Vec::new();
    let mut at = start;
    while at < end {
        buffer.resize(usize::try_from(STEP.min(end - at)).unwrap_or_default(), 0);
        let count = read_full(from, &mut buffer, at)?;
        if count == 0 {
            break;
        }
        to.append(&buffer[..count])?;
        at += count as u64;
    }
    Ok(at.saturating_sub(start))
}

/// The folder that a file is in.
pub(crate) fn folder_of(path: &Path) -> &Path {
    match path.parent() {
        Some(folder) if !folder.as_os_str().is_empty() => folder,
        _ => Path::new("."),
    }
}

/// The file system of the operating system.
///
/// Files are created with mode 0640 (a PID file's lock with 0600), less what the umask takes away, and never through a symbolic
/// link. A file that takes another's place ([`FileSystem::create_like`]) takes its owner and group, as far as the process may, its
/// permissions, whatever the umask is, its POSIX ACL and its SELinux label. What is opened is a regular file; the name may be a symbolic link to one, if the link is owned by the superuser,
/// by the user of this process, or by the owner of the folder that the link is in: nobody else's link is followed, which is a
/// [`PermissionDenied`](io::ErrorKind::PermissionDenied) error. A lock's file may not be a link at all. Links to folders on
/// the way to a file are followed as the system does it.
#[derive(Clone, Copy, Debug, Default)]
pub struct OsFileSystem;

impl FileSystem for OsFileSystem {
    fn open(&self, path: &Path) -> io::Result<Box<dyn ReadFile>> {
        Ok(Box::new(open_file(path, OpenOptions::new().read(true))?))
    }

    fn create(&self, path: &Path) -> io::Result<Box<dyn WriteFile>> {
        Ok(Box::new(create_file(path, OpenOptions::new().write(true))?))
    }

    fn create_like(&self, path: &Path, attributes: &Attributes) -> io::Result<Box<dyn WriteFile>> {
        let mut options = OpenOptions::new();
        // The owner alone, until the file has its owner and group.
        let file = options.write(true).create_new(true).mode(attributes.mode & 0o600).open(path)?;
        match attributes::give(&file, attributes) {
            Ok(()) => Ok(Box::new(file)),
            Err(error) => {
                let _ = std::fs::remove_file(path);
                Err(error)
            }
        }
    }

    fn set_attributes(&self, path: &Path, attributes: &Attributes) -> io::Result<()> {
        attributes::give(&open_file(path, OpenOptions::new().read(true))?, attributes)
    }

    fn open_write(&self, path: &Path) -> io::Result<Box<dyn WriteFile>> {
        Ok(Box::new(open_file(path, OpenOptions::new().write(true))?))
    }

    fn open_append(&self, path: &Path) -> io::Result<Box<dyn WriteFile>> {
        Ok(Box::new(AppendFile(open_file(path, OpenOptions::new().append(true))?)))
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        std::fs::rename(from, to)
    }

    fn link(&self, from: &Path, to: &Path) -> io::Result<()> {
        std::fs::hard_link(from, to)
    }

    fn resolve(&self, path: &Path) -> io::Result<PathBuf> {
        follow(path).map(|(path, _)| path)
    }

    fn is_same_name(&self, one: &Path, other: &Path) -> io::Result<bool> {
        let folder = |path| std::fs::metadata(folder_of(path)).map(|metadata| identity(&metadata));
        Ok(one == other || (one.file_name() == other.file_name() && folder(one)? == folder(other)?))
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        std::fs::remove_file(path)
    }

    fn sync_file(&self, path: &Path) -> io::Result<()> {
        open_file(path, OpenOptions::new().read(true))?.sync_all()
    }

    fn sync_folder(&self, folder: &Path) -> io::Result<()> {
        File::open(folder)?.sync_all()
    }

    fn lock(&self, path: &Path) -> io::Result<Box<dyn Send>> {
        loop {
            let file = open_lock(path)?;
            file.lock()?;
            if let Some(guard) = LockGuard::new(file, path)? {
                return Ok(Box::new(guard));
            }
        }
    }

    fn try_lock(&self, path: &Path) -> io::Result<Option<Box<dyn Send + Sync>>> {
        Ok(LockGuard::try_take(path)?.map(|guard| Box::new(guard) as _))
    }

    fn try_lock_for_process(&self, path: &Path) -> io::Result<Option<ProcessLock>> {
        Ok(LockGuard::try_take(path)?.map(ProcessLock))
    }
}

/// Creates a file that must not exist, also not as a symbolic link.
pub(crate) fn create_file(path: &Path, options: &mut OpenOptions) -> io::Result<File> {
    options.create_new(true).mode(FILE_MODE).open(path)
}

/// Opens a file that exists, by links that may be followed only.
pub(crate) fn open_file(path: &Path, options: &OpenOptions) -> io::Result<File> {
    open_as(path, options, resolve)
}

/// Opens the file that `resolve` finds behind a name, and nothing else that has come in its place meanwhile.
fn open_as(
    path: &Path,
    options: &OpenOptions,
    resolve: impl Fn(&Path) -> io::Result<PathBuf>,
) -> io::Result<File> {
    /// A rename or two may come between.
    const TRIES: usize = 10;
    /// For those who are told to give a file back before somebody else opens it, as the clients of an NFS server are.
    const PATIENCE: Duration = Duration::from_millis(100);
    let mut result = open_itself(&resolve(path)?, options);
    for _ in 1..TRIES {
        match &result {
            Ok(_) => break,
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => std::thread::sleep(PATIENCE),
            // A link or a FIFO that came between is an error that each system calls by another name. Another look says what it is.
            Err(_) => {}
        }
        result = open_itself(&resolve(path)?, options);
    }
    result
}

/// Opens a regular file, without waiting for anybody and not by a symbolic link of that name.
fn open_itself(path: &Path, options: &OpenOptions) -> io::Result<File> {
    let flags = OFlags::NOFOLLOW | OFlags::NONBLOCK;
    let file = options.clone().custom_flags(flags.bits().cast_signed()).open(path)?;
    regular(&file.metadata()?)?;
    // It is for the opening only: what it does to reads and writes of a file is not said anywhere.
    fcntl_setfl(&file, fcntl_getfl(&file)? - OFlags::NONBLOCK)?;
    Ok(file)
}

fn identity(metadata: &Metadata) -> (u64, u64) {
    (metadata.dev(), metadata.ino())
}

/// Finds the regular file that a name stands for, by symbolic links that may be followed only.
fn resolve(path: &Path) -> io::Result<PathBuf> {
    match follow(path)? {
        (path, Some(metadata)) => regular(&metadata).map(|()| path),
        (_, None) => Err(io::ErrorKind::NotFound.into()),
    }
}

/// Finds the name at the end of the symbolic links that a name is the first of, and what has that name, if anything.
fn follow(path: &Path) -> io::Result<(PathBuf, Option<Metadata>)> {
    /// As many as the system follows.
    const LINKS: usize = 40;
    let mut path = path.to_owned();
    for _ in 0..LINKS {
        let metadata = match std::fs::symlink_metadata(&path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok((path, None)),
            metadata => metadata?,
        };
        if !metadata.is_symlink() {
            return Ok((path, Some(metadata)));
        }
        let Some((owner, target)) = read_link(&path)? else {
            continue;
        };
        let folder = folder_of(&path);
        let trusted = [0, rustix::process::geteuid().as_raw(), std::fs::metadata(folder)?.uid()];
        if !trusted.contains(&owner) {
            let text = format!("a symbolic link of user {owner}, which is not followed");
            return Err(io::Error::new(io::ErrorKind::PermissionDenied, text));
        }
        path = folder.join(target);
    }
    Err(io::Error::new(io::ErrorKind::InvalidInput, "too many symbolic links"))
}

/// The owner of a symbolic link and what it leads to, of one and the same link whatever comes in its place. `None` if it is
/// no link any more.
#[cfg(target_os = "linux")]
fn read_link(path: &Path) -> io::Result<Option<(u32, PathBuf)>> {
    use std::os::unix::ffi::OsStringExt;
    let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let link = File::from(rustix::fs::open(path, flags, rustix::fs::Mode::empty())?);
    let metadata = link.metadata()?;
    if !metadata.is_symlink() {
        return Ok(None);
    }
    let target = rustix::fs::readlinkat(&link, "", Vec::new())?;
    Ok(Some((metadata.uid(), std::ffi::OsString::from_vec(target.into_bytes()).into())))
}

/// The owner of a symbolic link and what it leads to. `None` if it is no link any more.
///
/// Other systems than Linux do not open a link itself: one that is put in its place between the two looks is not noticed.
#[cfg(not(target_os = "linux"))]
fn read_link(path: &Path) -> io::Result<Option<(u32, PathBuf)>> {
    let metadata = std::fs::symlink_metadata(path)?;
    if !metadata.is_symlink() {
        return Ok(None);
    }
    Ok(Some((metadata.uid(), std::fs::read_link(path)?)))
}

/// As [`resolve`], where the name must not be a symbolic link.
fn not_a_link(path: &Path) -> io::Result<PathBuf> {
    regular(&std::fs::symlink_metadata(path)?).map(|()| path.to_owned())
}

fn regular(metadata: &Metadata) -> io::Result<()> {
    if metadata.is_file() {
        Ok(())
    } else {
        Err(io::Error::new(io::ErrorKind::InvalidInput, "not a regular file"))
    }
}

/// Opens a lock's file, and creates it if there is none.
///
/// A symbolic link is refused: the file is to be removed again, and what is locked must be what the name stands for.
fn open_lock(path: &Path) -> io::Result<File> {
    loop {
        // A process that gets it as its standard input finds nothing to read.
        let mut options = OpenOptions::new();
        options.read(true).write(true);
        match options.clone().create_new(true).mode(LOCK_MODE).open(path) {
            Ok(file) => {
                give_to_owner_of_folder(&file, path);
                return Ok(file);
            }
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
            Err(error) => return Err(error),
        }
        match open_as(path, &options, not_a_link) {
            // Its holder has removed it meanwhile.
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            result => return result,
        }
    }
}

/// Gives a lock's file that the superuser has created to the owner of the folder: what a kill leaves of it must not keep the server, which
/// runs as another user, from its own lock.
fn give_to_owner_of_folder(file: &File, path: &Path) {
    if !rustix::process::geteuid().is_root() {
        return;
    }
    if let Ok(folder) = std::fs::metadata(folder_of(path)) {
        // Without it, the lock is as good.
        let _ = std::os::unix::fs::fchown(file, Some(folder.uid()), Some(folder.gid()));
    }
}

/// A lock that a process can be given, as its standard input.
///
/// It is held as long as this is not dropped, and then as long as another process has the descriptor that it was given, or one
/// that comes from it.
#[derive(Debug)]
pub struct ProcessLock(LockGuard);

impl ProcessLock {
    /// Returns what a process is given: an empty file, with which the process holds the lock.
    ///
    /// # Errors
    /// Returns the system's error if there is no free descriptor.
    pub fn descriptor(&self) -> io::Result<OwnedFd> {
        self.0.file.try_clone().map(OwnedFd::from)
    }

    /// Leaves the lock to the process that was given it, which holds it until it ends.
    pub fn leave(mut self) {
        self.0.is_left = true;
    }
}

#[derive(Debug)]
struct LockGuard {
    file: File,
    path: PathBuf,
    /// Whether another process goes on to hold the lock.
    is_left: bool,
}

impl LockGuard {
    /// Takes the lock of a file, unless it is held.
    fn try_take(path: &Path) -> io::Result<Option<Self>> {
        loop {
            let file = open_lock(path)?;
            match file.try_lock() {
                Ok(()) => {}
                Err(TryLockError::WouldBlock) => return Ok(None),
                Err(TryLockError::Error(error)) => return Err(error),
            }
            if let Some(guard) = Self::new(file, path)? {
                return Ok(Some(guard));
            }
        }
    }

    /// Takes a file that is locked. `None` if whoever held the lock before has removed it: then it is a lock on a file
    /// without a name.
    fn new(file: File, path: &Path) -> io::Result<Option<Self>> {
        match std::fs::symlink_metadata(path) {
            Ok(named) if identity(&named) == identity(&file.metadata()?) => {
                Ok(Some(Self { file, path: path.to_owned(), is_left: false }))
            }
            Ok(_) => Ok(None),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error),
        }
    }
}

impl Drop for LockGuard {
    fn drop(&mut self) {
        if self.is_left {
            return;
        }
        // Removed while it is still locked, so that nobody else's file is. Left over, it harms nobody.
        let _ = std::fs::remove_file(&self.path);
        let _ = self.file.unlock();
    }
}

impl ReadFile for File {
    fn len(&self) -> io::Result<u64> {
        Ok(self.metadata()?.len())
    }

    fn read_at(&self, buffer: &mut [u8], at: u64) -> io::Result<usize> {
        FileExt::read_at(self, buffer, at)
    }

    fn identity(&self) -> io::Result<(u64, u64)> {
        Ok(identity(&self.metadata()?))
    }

    fn attributes(&self) -> io::Result<Option<Attributes>> {
        Attributes::of(self).map(Some)
    }
}

impl WriteFile for File {
    fn append(&self, bytes: &[u8]) -> io::Result<()> {
        self.write_all_at(bytes, self.metadata()?.len())
    }

    fn write_at(&self, bytes: &[u8], at: u64) -> io::Result<usize> {
        // The system is called at once: by way of the C library it takes longer, as that lets a thread be cancelled in the call.
        Ok(rustix::io::pwrite(self, bytes, at)?)
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        self.set_len(len)
    }

    fn sync(&self) -> io::Result<()> {
        self.sync_data()
    }
}

/// A file that all writes to are at the end of.
struct AppendFile(File);

impl WriteFile for AppendFile {
    fn append(&self, mut bytes: &[u8]) -> io::Result<()> {
        while !bytes.is_empty() {
            match retry(|| Ok(rustix::io::write(&self.0, bytes)?))? {
                0 => return Err(io::ErrorKind::WriteZero.into()),
                count => bytes = &bytes[count..],
            }
        }
        Ok(())
    }

    fn write_at(&self, _: &[u8], _: u64) -> io::Result<usize> {
        Err(io::Error::new(io::ErrorKind::Unsupported, "the file was opened to append to it"))
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        self.0.set_len(len)
    }

    fn sync(&self) -> io::Result<()> {
        self.0.sync_data()
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use rstest::rstest;

    use super::*;

    fn mode(path: &Path) -> u32 {
        path.metadata().unwrap().permissions().mode() & 0o777
    }

    #[test]
    fn a_lock_is_held_by_one_until_it_is_dropped() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("f.lock");
        for _ in 0..3 {
            let guard = OsFileSystem.try_lock(&path).unwrap().expect("nobody holds it");
            assert_eq!(mode(&path), 0o600);
            assert!(OsFileSystem.try_lock(&path).unwrap().is_none());
            drop(guard);
            assert!(!path.exists());
        }
    }

    #[test]
    fn a_lock_that_a_process_was_given_is_held_until_the_guard_is_dropped() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("f.lock");
        let guard = OsFileSystem.try_lock_for_process(&path).unwrap().expect("nobody holds it");
        let mut child = std::process::Command::new("sleep")
            .arg("1000")
            .stdin(guard.descriptor().unwrap())
            .spawn()
            .unwrap();
        assert!(OsFileSystem.try_lock_for_process(&path).unwrap().is_none());
        drop(guard);
        assert!(!path.exists());
        assert!(OsFileSystem.try_lock(&path).unwrap().is_some());
        child.kill().unwrap();
        child.wait().unwrap();
    }

    #[test]
    fn a_lock_that_is_left_to_a_process_is_held_until_that_ends() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("f.lock");
        let guard = OsFileSystem.try_lock_for_process(&path).unwrap().expect("nobody holds it");
        let mut child = std::process::Command::new("cat")
            .stdin(guard.descriptor().unwrap())
            .stdout(std::process::Stdio::null())
            .spawn()
            .unwrap();
        assert!(child.wait().unwrap().success(), "it has found nothing to read");
        let mut child = std::process::Command::new("sleep")
            .arg("1000")
            .stdin(guard.descriptor().unwrap())
            .spawn()
            .unwrap();
        guard.leave();
        assert!(path.exists() && OsFileSystem.try_lock(&path).unwrap().is_none());
        child.kill().unwrap();
        child.wait().unwrap();
        assert!(OsFileSystem.try_lock(&path).unwrap().is_some());
        assert!(!path.exists());
    }

    #[test]
    fn a_lock_file_of_the_superuser_belongs_to_the_owner_of_its_folder() {
        if !rustix::process::geteuid().is_root() {
            eprintln!("skipped: it takes the superuser");
            return;
        }
        let folder = tempfile::tempdir().unwrap();
        std::os::unix::fs::chown(folder.path(), Some(65534), Some(65533)).unwrap();
        let path = folder.path().join("f.lock");
        let check = || {
            let metadata = path.metadata().unwrap();
            assert_eq!((metadata.uid(), metadata.gid(), mode(&path)), (65534, 65533, 0o600));
        };
        let lock = OsFileSystem.lock(&path).unwrap();
        check();
        drop(lock);
        let lock = OsFileSystem.try_lock_for_process(&path).unwrap();
        check();
        drop(lock);
    }

    #[test]
    fn a_lock_file_that_a_crash_left_is_taken() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("f.lock");
        std::fs::write(&path, "").unwrap();
        assert!(OsFileSystem.try_lock(&path).unwrap().is_some());
        assert!(!path.exists());
    }

    #[rstest]
    #[case::of_a_file(Some("target"))]
    #[case::of_nothing(None)]
    fn a_lock_follows_no_symbolic_link(#[case] content: Option<&str>) {
        let folder = tempfile::tempdir().unwrap();
        let (path, target) = (folder.path().join("f.lock"), folder.path().join("target"));
        if let Some(content) = content {
            std::fs::write(&target, content).unwrap();
        }
        std::os::unix::fs::symlink(&target, &path).unwrap();
        assert_eq!(OsFileSystem.lock(&path).map(drop).unwrap_err().kind(), io::ErrorKind::InvalidInput);
        assert_eq!(OsFileSystem.try_lock(&path).map(drop).unwrap_err().kind(), io::ErrorKind::InvalidInput);
        assert_eq!(std::fs::read_to_string(&target).ok().as_deref(), content);
    }

    #[rstest]
    #[case::removed(remove)]
    #[case::replaced(replace_by_another_file)]
    #[case::replaced_by_a_link_to_it(replace_by_a_link)]
    fn the_lock_of_a_file_that_has_lost_its_name_is_none(#[case] replace: fn(&Path)) {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("f.lock");
        let file = open_lock(&path).unwrap();
        replace(&path);
        file.lock().unwrap();
        assert!(LockGuard::new(file, &path).unwrap().is_none());
    }

    /// Who waits for a lock file that is then replaced holds the lock of the new one.
    #[test]
    fn a_lock_is_that_of_the_file_that_has_the_name() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("f.lock");
        let old = open_lock(&path).unwrap();
        old.lock().unwrap();
        let (locked, lock) = std::sync::mpsc::channel();
        std::thread::scope(|scope| {
            scope.spawn(|| locked.send(OsFileSystem.lock(&path).unwrap()).unwrap());
            // Who comes later than that finds the new file at once, and nothing is tested.
            std::thread::sleep(Duration::from_millis(200));
            replace_by_another_file(&path);
            old.unlock().unwrap();
            let guard = lock.recv().unwrap();
            assert!(OsFileSystem.try_lock(&path).unwrap().is_none());
            drop(guard);
            assert!(!path.exists());
        });
    }

    #[test]
    fn a_lock_is_never_held_by_two_while_its_file_comes_and_goes() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("f.lock");
        let holders = std::sync::atomic::AtomicU32::new(0);
        std::thread::scope(|scope| {
            for n in 0..4 {
                let (path, holders) = (&path, &holders);
                scope.spawn(move || {
                    for _ in 0..500 {
                        let guard: Box<dyn Send> = if n % 2 == 0 {
                            OsFileSystem.lock(path).unwrap()
                        } else {
                            match OsFileSystem.try_lock(path).unwrap() {
                                Some(guard) => guard,
                                None => continue,
                            }
                        };
                        assert_eq!(holders.fetch_add(1, std::sync::atomic::Ordering::SeqCst), 0);
                        assert_eq!(holders.fetch_sub(1, std::sync::atomic::Ordering::SeqCst), 1);
                        drop(guard);
                    }
                });
            }
        });
    }

    #[test]
    fn what_is_appended_comes_last_whatever_was_written_or_cut_off_before() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("f");
        OsFileSystem.create(&path).unwrap().append(b"0123456789").unwrap();
        let file = OsFileSystem.open_write(&path).unwrap();
        file.append(b"ab").unwrap();
        assert_eq!(file.write_at(b"xy", 1).unwrap(), 2);
        file.set_len(5).unwrap();
        file.append(b"!").unwrap();
        assert_eq!(std::fs::read_to_string(&path).unwrap(), "0xy34!");
        assert_eq!(mode(&path) & !0o640, 0);
    }

    #[test]
    fn appending_leaves_what_others_have_written() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("f");
        std::fs::write(&path, "1").unwrap();
        let file = OsFileSystem.open_append(&path).unwrap();
        file.append(b"2").unwrap();
        std::fs::write(&path, "other").unwrap();
        file.append(b"3").unwrap();
        std::fs::write(&path, "").unwrap();
        file.append(b"4").unwrap();
        assert_eq!(std::fs::read_to_string(&path).unwrap(), "4");
        assert_eq!(file.write_at(b"5", 0).unwrap_err().kind(), io::ErrorKind::Unsupported);
    }

    #[test]
    fn a_file_may_have_two_names() {
        let folder = tempfile::tempdir().unwrap();
        let [one, two] = ["f", "g"].map(|name| folder.path().join(name));
        std::fs::write(&one, "1").unwrap();
        OsFileSystem.link(&one, &two).unwrap();
        assert_eq!(OsFileSystem.link(&one, &two).unwrap_err().kind(), io::ErrorKind::AlreadyExists);
        let identity = |path: &Path| OsFileSystem.open(path).unwrap().identity().unwrap();
        assert_eq!(identity(&one), identity(&two));
        assert!(!OsFileSystem.is_same_name(&one, &two).unwrap());
    }

    #[test]
    fn a_name_is_resolved_whether_or_not_there_is_a_file() {
        let folder = tempfile::tempdir().unwrap();
        let [f, g, h] = ["f", "g", "h"].map(|name| folder.path().join(name));
        assert_eq!(OsFileSystem.resolve(&f).unwrap(), f);
        std::os::unix::fs::symlink("g", &f).unwrap();
        std::os::unix::fs::symlink(&h, &g).unwrap();
        assert_eq!(OsFileSystem.resolve(&f).unwrap(), h);
        std::fs::write(&h, "").unwrap();
        assert_eq!(OsFileSystem.resolve(&f).unwrap(), h);
        if rustix::process::geteuid().is_root() {
            std::os::unix::fs::lchown(&g, Some(65534), None).unwrap();
            assert_eq!(OsFileSystem.resolve(&f).unwrap_err().kind(), io::ErrorKind::PermissionDenied);
        }
    }

    #[test]
    fn a_name_is_the_same_however_its_directory_is_called() {
        let folder = tempfile::tempdir().unwrap();
        let inner = folder.path().join("inner");
        std::fs::create_dir(&inner).unwrap();
        std::os::unix::fs::symlink("inner", folder.path().join("link")).unwrap();
        let same =
            |other: &str| OsFileSystem.is_same_name(&inner.join("f"), &folder.path().join(other)).unwrap();
        assert!(same("inner/f") && same("link/f") && same("inner/../link/./f"));
        assert!(!same("inner/g") && !same("f"));
    }

    #[test]
    fn a_file_that_is_to_be_created_is_not_looked_for_behind_a_symbolic_link() {
        let folder = tempfile::tempdir().unwrap();
        let (path, target) = (folder.path().join("f"), folder.path().join("target"));
        std::os::unix::fs::symlink(&target, &path).unwrap();
        let error = |result: io::Result<Box<dyn WriteFile>>| result.map(drop).unwrap_err().kind();
        assert_eq!(error(OsFileSystem.open_write(&path)), io::ErrorKind::NotFound);
        assert_eq!(error(OsFileSystem.create(&path)), io::ErrorKind::AlreadyExists);
        assert!(!target.exists());
    }

    fn replace_by_a_fifo(path: &Path) {
        remove(path);
        assert!(std::process::Command::new("mkfifo").arg(path).status().unwrap().success());
    }

    fn remove(path: &Path) {
        std::fs::remove_file(path).unwrap();
    }

    fn replace_by_another_file(path: &Path) {
        std::fs::rename(path, path.with_extension("old")).unwrap();
        std::fs::write(path, "").unwrap();
    }

    fn replace_by_a_link(path: &Path) {
        let target = path.with_extension("target");
        std::fs::rename(path, &target).unwrap();
        std::os::unix::fs::symlink(&target, path).unwrap();
    }

    fn replace_by_a_link_of_somebody(path: &Path) {
        replace_by_a_link(path);
        std::os::unix::fs::lchown(path, Some(65534), None).unwrap();
    }

    /// Opens a file that is replaced once somebody has looked at it.
    fn open_replaced(
        options: &OpenOptions,
        resolve: fn(&Path) -> io::Result<PathBuf>,
        replace: fn(&Path),
    ) -> io::Result<File> {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("f");
        std::fs::write(&path, "").unwrap();
        let is_replaced = std::cell::Cell::new(false);
        let look_and_replace = |path: &Path| {
            let found = resolve(path)?;
            if !is_replaced.replace(true) {
                replace(path);
            }
            Ok(found)
        };
        open_as(&path, options, look_and_replace)
    }

    #[rstest]
    fn what_comes_in_the_place_of_a_file_is_no_way_to_another(#[values(false, true)] writes: bool) {
        let mut options = OpenOptions::new();
        options.read(!writes).write(writes);
        let error = |resolve, replace| open_replaced(&options, resolve, replace).unwrap_err().to_string();
        for resolve in [resolve, not_a_link] {
            assert_eq!(error(resolve, replace_by_a_fifo), "not a regular file");
        }
        assert_eq!(error(not_a_link, replace_by_a_link), "not a regular file");
        // One that may be followed might have been there from the start.
        assert!(open_replaced(&options, resolve, replace_by_a_link).is_ok());
        if rustix::process::geteuid().is_root() {
            let expected = "a symbolic link of user 65534, which is not followed";
            assert_eq!(error(resolve, replace_by_a_link_of_somebody), expected);
        }
    }

    #[rstest]
    fn nothing_but_a_file_is_opened_even_if_nobody_looks_at_it_before(#[values(false, true)] writes: bool) {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("f");
        let mut options = OpenOptions::new();
        options.read(!writes).write(writes);
        std::fs::write(&path, "").unwrap();
        let file = open_itself(&path, &options).unwrap();
        assert!(!fcntl_getfl(&file).unwrap().contains(OFlags::NONBLOCK));
        for replace in [replace_by_a_link, replace_by_a_fifo] {
            replace(&path);
            // Another system calls it something else.
            open_itself(&path, &options).unwrap_err();
        }
        open_itself(folder.path(), &options).unwrap_err();
    }

    #[test]
    fn links_that_lead_to_each_other_are_an_error() {
        let folder = tempfile::tempdir().unwrap();
        let (one, other) = (folder.path().join("f"), folder.path().join("g"));
        std::os::unix::fs::symlink(&one, &other).unwrap();
        std::os::unix::fs::symlink(&other, &one).unwrap();
        let error = OsFileSystem.open(&one).map(drop).unwrap_err();
        assert_eq!(error.to_string(), "too many symbolic links");
    }
}
