//! The disk: its settings, and the execution or failure of each operation.

use std::collections::BTreeSet;
use std::fmt;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

// Not `crate::sync`: a model of threads is not about waiting for this disk.
use parking_lot::{Mutex, MutexGuard};

use super::files::{Lock, OpenFile};
use super::state::{FileId, FileState};
use super::users::Users;
use super::{Action, EIO, ENOSPC, Effect, Fault, Operation, State};
use crate::fs::Attributes;
#[cfg(doc)]
use crate::fs::{FileSystem, WriteFile};

/// A disk in memory. Clones are the same disk, including its faults.
///
/// The [module](super) describes what it does.
#[derive(Clone, Debug)]
pub struct SimulatedDisk(Arc<Mutex<Inner>>);

#[derive(Debug)]
pub(super) struct Inner {
    state: State,
    operations: Vec<Operation>,
    /// The state at first and the one after each operation that changed it.
    moments: Option<Vec<State>>,
    fault: Option<Fault>,
    failing_sync: Option<usize>,
    full_writes: Option<usize>,
    before_each: Option<Hook>,
    pub(super) read_at_most: usize,
    pub(super) write_at_most: usize,
    pub(super) locked: BTreeSet<PathBuf>,
    pub(super) has_links: bool,
    pub(super) users: Users,
}

type BeforeEach = dyn Fn(usize, &Operation) + Send + Sync;

/// A function that is called before each operation.
#[derive(Clone)]
struct Hook(Arc<BeforeEach>);

impl fmt::Debug for Hook {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Hook")
    }
}

impl SimulatedDisk {
    /// Creates a disk in this state, on which nothing fails and no file is locked.
    #[must_use]
    pub fn new(state: State) -> Self {
        Self(Arc::new(Mutex::new(Inner {
            state,
            operations: Vec::new(),
            moments: None,
            fault: None,
            failing_sync: None,
            full_writes: None,
            before_each: None,
            read_at_most: usize::MAX,
            write_at_most: usize::MAX,
            locked: BTreeSet::new(),
            has_links: true,
            users: Users::default(),
        })))
    }

    /// Makes an operation fail, instead of the one set before.
    pub fn with_fault(self, fault: Fault) -> Self {
        self.inner().fault = Some(fault);
        self
    }

    /// Makes the `nth` sync of a file fail with [`EIO`], counted from 1. A [`Fault`] overrides
    /// this.
    pub fn with_failing_sync(self, nth: usize) -> Self {
        self.inner().failing_sync = Some(nth);
        self
    }

    /// Makes every `nth` write ([`WriteFile::append`], [`WriteFile::write_at`]) find room for half
    /// of its bytes only ([`ENOSPC`]). A [`Fault`] overrides this.
    ///
    /// # Panics
    /// Each write panics if `nth` is 0.
    pub fn with_full_writes(self, nth: usize) -> Self {
        self.inner().full_writes = Some(nth);
        self
    }

    /// Defines a user as a member of these groups, the first of which its new files have.
    pub fn with_user(self, user: u32, groups: &[u32]) -> Self {
        self.inner().users.groups.insert(user, groups.to_vec());
        self
    }

    /// Makes the process run as this user, a member of these groups. The default is the superuser
    /// (0).
    pub fn as_user(self, user: u32, groups: &[u32]) -> Self {
        self.inner().users.current = user;
        self.with_user(user, groups)
    }

    /// Limits each read to a number of bytes.
    pub fn reading_at_most(self, bytes: usize) -> Self {
        self.inner().read_at_most = bytes;
        self
    }

    /// Limits each [`WriteFile::write_at`] to a number of bytes.
    pub fn writing_at_most(self, bytes: usize) -> Self {
        self.inner().write_at_most = bytes;
        self
    }

    /// Makes [`FileSystem::link`] fail, as file systems without hard links do.
    pub fn without_links(self) -> Self {
        self.inner().has_links = false;
        self
    }

    /// Calls a function before each operation, with the number of the operation, which
    /// [`operations`](Self::operations) already contains. The function may wait, so that other
    /// operations come first, or panic instead of the operation.
    pub fn before_each(self, call: impl Fn(usize, &Operation) + Send + Sync + 'static) -> Self {
        self.inner().before_each = Some(Hook(Arc::new(call)));
        self
    }

    /// Records from now on every state in which the process may be killed and the power may fail.
    pub fn with_moments(self) -> Self {
        {
            let mut inner = self.inner();
            inner.moments = Some(vec![inner.state.clone()]);
        }
        self
    }

    /// Returns the operations that were requested so far.
    #[must_use]
    pub fn operations(&self) -> Vec<Operation> {
        self.inner().operations.clone()
    }

    /// Returns the state of the disk.
    #[must_use]
    pub fn state(&self) -> State {
        self.inner().state.clone()
    }

    /// Returns the states of the disk since [`with_moments`](Self::with_moments): the one at that
    /// time, and one after each operation that changed something.
    #[must_use]
    pub fn moments(&self) -> Vec<State> {
        self.inner().moments.clone().unwrap_or_default()
    }

    /// Returns the number of moments so far.
    #[must_use]
    pub fn moment_count(&self) -> usize {
        self.inner().moments.as_ref().map_or(0, Vec::len)
    }

    pub(super) fn inner(&self) -> MutexGuard<'_, Inner> {
        self.0.lock()
    }

    /// Executes an operation, unless it is to fail.
    pub(super) fn operate<T>(
        &self,
        action: Action,
        path: &Path,
        work: impl FnOnce(&mut State, Effect) -> io::Result<T>,
    ) -> io::Result<T> {
        let operation = Operation { action, path: path.to_owned() };
        let (number, before_each) = {
            let mut inner = self.inner();
            inner.operations.push(operation.clone());
            (inner.operations.len() - 1, inner.before_each.clone())
        };
        // Called without the lock of the disk: other threads continue while it waits.
        if let Some(Hook(call)) = before_each {
            call(number, &operation);
        }
        let inner = &mut *self.inner();
        let is_write = |action| matches!(action, Action::Append | Action::WriteAt);
        let is_alike =
            |other: &&Operation| other.action == action || (is_write(action) && is_write(other.action));
        let count = || inner.operations.iter().filter(is_alike).count();
        let (effect, error) = match inner.fault {
            None if action == Action::Sync && inner.failing_sync == Some(count()) => {
                (Effect::Nothing, Some(EIO))
            }
            None if is_write(action) && inner.full_writes.is_some_and(|nth| count() % nth == 0) => {
                (Effect::Half, Some(ENOSPC))
            }
            Some(fault) if number == fault.at => (fault.effect, Some(fault.error)),
            Some(fault) if number > fault.at && fault.lasting => (Effect::Nothing, Some(fault.error)),
            _ => (Effect::Everything, None),
        };
        let failing_sync = action == Action::Sync && error.is_some();
        let result = if effect == Effect::Nothing && !failing_sync {
            Err(io::Error::from_raw_os_error(EIO))
        } else {
            work(&mut inner.state, effect)
        };
        if let Some(moments) = &mut inner.moments
            && moments.last() != Some(&inner.state)
        {
            moments.push(inner.state.clone());
        }
        match error {
            Some(error) => Err(io::Error::from_raw_os_error(error)),
            None => result,
        }
    }

    /// Takes a lock. Returns `None` if it is held.
    pub(super) fn hold(&self, path: &Path) -> Option<Lock> {
        let free = self.inner().locked.insert(path.to_owned());
        free.then(|| Lock::new(self.clone(), path.to_owned()))
    }

    /// Opens a file if the process has the rights that are wanted.
    pub(super) fn open_by(&self, action: Action, path: &Path, wanted: u32) -> io::Result<OpenFile> {
        let users = self.inner().users.clone();
        let id = self.operate(action, path, |state, _| {
            let id = state.id_of(path)?;
            users.check(&state.files[id].attributes, wanted).map(|()| id)
        })?;
        Ok(self.file(id, path))
    }

    pub(super) fn create_with(
        &self,
        path: &Path,
        attributes: io::Result<Attributes>,
    ) -> io::Result<OpenFile> {
        let id = self.operate(Action::Create, path, |state, _| {
            if state.names.contains_key(path) {
                return Err(io::ErrorKind::AlreadyExists.into());
            }
            let id = state.files.len();
            state.files.push(FileState::new(Arc::default(), attributes?));
            state.change(vec![(path.to_owned(), Some(id))]);
            Ok(id)
        })?;
        Ok(self.file(id, path))
    }

    fn file(&self, id: FileId, path: &Path) -> OpenFile {
        OpenFile::new(self.clone(), id, path.to_owned())
    }
}
