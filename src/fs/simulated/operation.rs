//! The operations of a disk, and their failures.

use std::fmt;
use std::path::PathBuf;

#[cfg(doc)]
use crate::fs::{FileSystem, ReadFile, WriteFile};
use rustix::io::Errno;

/// The error number of an I/O error.
pub const EIO: i32 = Errno::IO.raw_os_error();
/// The error number of a call that a signal interrupted.
pub const EINTR: i32 = Errno::INTR.raw_os_error();
/// The error number of a full disk.
pub const ENOSPC: i32 = Errno::NOSPC.raw_os_error();
/// The error number of a user whose disk quota is exhausted.
pub const EDQUOT: i32 = Errno::DQUOT.raw_os_error();

/// The kind of an operation on a file or directory: a method of [`FileSystem`] or of an open file.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[non_exhaustive]
pub enum Action {
    /// [`FileSystem::open`]
    Open,
    /// [`ReadFile::len`]
    Len,
    /// [`ReadFile::identity`]
    Identity,
    /// [`ReadFile::attributes`]
    Attributes,
    /// [`ReadFile::read_at`]
    Read,
    /// [`FileSystem::create`] or [`FileSystem::create_like`]
    Create,
    /// [`FileSystem::set_attributes`]
    SetAttributes,
    /// [`FileSystem::open_write`]
    OpenWrite,
    /// [`FileSystem::open_append`]
    OpenAppend,
    /// [`WriteFile::append`]
    Append,
    /// [`WriteFile::write_at`]
    WriteAt,
    /// [`WriteFile::set_len`]
    SetLen,
    /// [`WriteFile::sync`] or [`FileSystem::sync_file`]
    Sync,
    /// [`FileSystem::rename`]
    Rename,
    /// [`FileSystem::link`]
    Link,
    /// [`FileSystem::remove`]
    Remove,
    /// [`FileSystem::sync_directory`]
    SyncDirectory,
    /// [`FileSystem::lock`] or [`FileSystem::try_lock`]
    Lock,
}

/// A file operation that was requested, whether or not it succeeded.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Operation {
    /// The kind of the operation.
    pub action: Action,
    /// The file or directory, by the name with which it was opened; the old name for a renaming or
    /// a link.
    pub path: PathBuf,
}

impl fmt::Display for Operation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?} {}", self.action, self.path.display())
    }
}

/// What an operation that fails has done nevertheless.
///
/// For [`Action::Append`] and [`Action::WriteAt`] this is the number of bytes written. For all
/// others [`Half`](Self::Half) and [`AllButOne`](Self::AllButOne) are as
/// [`Everything`](Self::Everything), except [`Action::Sync`], where only
/// [`Everything`](Self::Everything) makes the written bytes durable; after any other effect,
/// nothing more of that file ever becomes durable.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Effect {
    /// Nothing was done.
    Nothing,
    /// Half of the bytes were written.
    Half,
    /// All bytes but one were written.
    AllButOne,
    /// Everything was done, but an error is returned.
    Everything,
}

impl Effect {
    /// Returns the number of bytes that were written.
    pub(super) fn of(self, bytes: usize) -> usize {
        match self {
            Self::Nothing => 0,
            Self::Half => bytes / 2,
            Self::AllButOne => bytes.saturating_sub(1),
            Self::Everything => bytes,
        }
    }
}

/// An operation that fails.
#[derive(Clone, Copy, Debug)]
pub struct Fault {
    /// Number of operations before it.
    pub at: usize,
    /// The error number that it returns, such as [`EIO`].
    pub error: i32,
    /// What it does nevertheless.
    pub effect: Effect,
    /// Whether all later operations fail too, with the same error number and without any effect.
    pub lasting: bool,
}
