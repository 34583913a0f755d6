//! Creating and opening files, without following links of other users and without blocking.

use std::fs::{File, Metadata, OpenOptions};
use std::io;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::time::Duration;

use rustix::fs::{OFlags, fcntl_getfl, fcntl_setfl};

use crate::fs::directory_of;

/// The mode of created files, less the umask: no access for other users.
const FILE_MODE: u32 = 0o640;

/// Creates a file that must not exist, not even as a symbolic link.
pub(crate) fn create_file(path: &Path, options: &mut OpenOptions) -> io::Result<File> {
    options.create_new(true).mode(FILE_MODE).open(path)
}

/// Opens a file that exists, through symbolic links that may be followed only.
pub(crate) fn open_file(path: &Path, options: &OpenOptions) -> io::Result<File> {
    open_as(path, options, resolve)
}

/// Opens the file that `resolve` returns for a name, and no other that has replaced it meanwhile.
pub(super) fn open_as(
    path: &Path,
    options: &OpenOptions,
    resolve: impl Fn(&Path) -> io::Result<PathBuf>,
) -> io::Result<File> {
    /// Maximum number of attempts: the file may be renamed between `resolve` and opening.
    const MAX_ATTEMPTS: usize = 10;
    /// The time for a process that must give up a lease on the file before it can be opened, such
    /// as a client of an NFS server.
    const RETRY_DELAY: Duration = Duration::from_millis(100);
    let mut result = open_itself(&resolve(path)?, options);
    for _ in 1..MAX_ATTEMPTS {
        match &result {
            Ok(_) => break,
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => std::thread::sleep(RETRY_DELAY),
            // If a link or a FIFO has come between, the error differs between systems; `resolve`
            // finds the reason.
            Err(_) => {}
        }
        result = open_itself(&resolve(path)?, options);
    }
    result
}

/// Opens a regular file, without blocking and without following a symbolic link of that name.
pub(super) fn open_itself(path: &Path, options: &OpenOptions) -> io::Result<File> {
    let flags = OFlags::NOFOLLOW | OFlags::NONBLOCK;
    let file = options.clone().custom_flags(flags.bits().cast_signed()).open(path)?;
    regular(&file.metadata()?)?;
    // The flag is for the opening only: its effect on reads and writes of regular files is
    // unspecified.
    fcntl_setfl(&file, fcntl_getfl(&file)? - OFlags::NONBLOCK)?;
    Ok(file)
}

pub(super) fn identity(metadata: &Metadata) -> (u64, u64) {
    (metadata.dev(), metadata.ino())
}

/// Returns the name of the regular file that a name stands for, by symbolic links that may be
/// followed.
pub(super) fn resolve(path: &Path) -> io::Result<PathBuf> {
    match follow(path)? {
        (path, Some(metadata)) => regular(&metadata).map(|()| path),
        (_, None) => Err(io::ErrorKind::NotFound.into()),
    }
}

/// Returns the name at the end of a chain of symbolic links, and the metadata of what has that
/// name, if anything.
pub(super) fn follow(path: &Path) -> io::Result<(PathBuf, Option<Metadata>)> {
    /// Maximum number of links, as in Linux.
    const MAX_LINKS: usize = 40;
    let mut path = path.to_owned();
    for _ in 0..MAX_LINKS {
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
        let directory = directory_of(&path);
        let trusted = [0, rustix::process::geteuid().as_raw(), std::fs::metadata(directory)?.uid()];
        if !trusted.contains(&owner) {
            let text = format!("a symbolic link of user {owner}, which is not followed");
            return Err(io::Error::new(io::ErrorKind::PermissionDenied, text));
        }
        path = directory.join(target);
    }
    Err(io::Error::new(io::ErrorKind::InvalidInput, "too many symbolic links"))
}

/// Returns the owner and the target of a symbolic link, both of the same link even if it is
/// replaced. `None` if it is no longer a link.
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

/// Returns the owner and the target of a symbolic link. `None` if it is no longer a link.
///
/// Systems other than Linux cannot open the link itself: a link replaced between the two calls is
/// not noticed.
#[cfg(not(target_os = "linux"))]
fn read_link(path: &Path) -> io::Result<Option<(u32, PathBuf)>> {
    let metadata = std::fs::symlink_metadata(path)?;
    if !metadata.is_symlink() {
        return Ok(None);
    }
    Ok(Some((metadata.uid(), std::fs::read_link(path)?)))
}

/// Does as [`resolve`] for a name that must not be a symbolic link.
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
