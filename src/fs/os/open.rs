//! Creating and opening files, without following links of other users and without waiting for other processes.

use std::fs::{File, Metadata, OpenOptions};
use std::io;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::time::Duration;

use rustix::fs::{OFlags, fcntl_getfl, fcntl_setfl};

use crate::fs::directory_of;

/// The mode of files that are created: no access for others (less what the umask takes away).
const FILE_MODE: u32 = 0o640;

/// Creates a file that must not exist, also not as a symbolic link.
pub(crate) fn create_file(path: &Path, options: &mut OpenOptions) -> io::Result<File> {
    options.create_new(true).mode(FILE_MODE).open(path)
}

/// Opens a file that exists, by links that may be followed only.
pub(crate) fn open_file(path: &Path, options: &OpenOptions) -> io::Result<File> {
    open_as(path, options, resolve)
}

/// Opens the file that `resolve` finds behind a name, and nothing else that has come in its place meanwhile.
pub(super) fn open_as(
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
pub(super) fn open_itself(path: &Path, options: &OpenOptions) -> io::Result<File> {
    let flags = OFlags::NOFOLLOW | OFlags::NONBLOCK;
    let file = options.clone().custom_flags(flags.bits().cast_signed()).open(path)?;
    regular(&file.metadata()?)?;
    // It is for the opening only: what it does to reads and writes of a file is not said anywhere.
    fcntl_setfl(&file, fcntl_getfl(&file)? - OFlags::NONBLOCK)?;
    Ok(file)
}

pub(super) fn identity(metadata: &Metadata) -> (u64, u64) {
    (metadata.dev(), metadata.ino())
}

/// Finds the regular file that a name stands for, by symbolic links that may be followed only.
pub(super) fn resolve(path: &Path) -> io::Result<PathBuf> {
    match follow(path)? {
        (path, Some(metadata)) => regular(&metadata).map(|()| path),
        (_, None) => Err(io::ErrorKind::NotFound.into()),
    }
}

/// Finds the name at the end of the symbolic links that a name is the first of, and what has that name, if anything.
pub(super) fn follow(path: &Path) -> io::Result<(PathBuf, Option<Metadata>)> {
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
        let folder = directory_of(&path);
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
pub(super) fn not_a_link(path: &Path) -> io::Result<PathBuf> {
    regular(&std::fs::symlink_metadata(path)?).map(|()| path.to_owned())
}

fn regular(metadata: &Metadata) -> io::Result<()> {
    if metadata.is_file() {
        Ok(())
    } else {
        Err(io::Error::new(io::ErrorKind::InvalidInput, "not a regular file"))
    }
}
