//! A disk in memory that knows what of it would survive a power cut, and that fails when it is told to.
//!
//! What is promised to survive is only what a file system promises: the bytes of a file that were
//! synced, and the names in a folder as they were when that folder was synced. Of all that came later, any
//! part may survive: [`State::survivors`] gives the disks that a power cut may leave. They
//! are more than one real file system makes of it, and hold those of all.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard};

use leasemgr::fs::{FileSystem, ReadFile, WriteFile};
use leasemgr::lfc::Monitor;

use super::{Contents, Random};

/// The error number of an I/O error.
pub(crate) const EIO: i32 = 5;
/// The error number of a call that a signal interrupted.
pub(crate) const EINTR: i32 = 4;
/// The error number of a full disk.
pub(crate) const ENOSPC: i32 = 28;

/// What is done with a file, or a folder.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Action {
    Open,
    Len,
    Identity,
    Read,
    Create,
    Append,
    Sync,
    Rename,
    Remove,
    SyncFolder,
    Lock,
}

/// One file operation that was asked for.
#[derive(Clone, Debug)]
pub(crate) struct Operation {
    pub(crate) action: Action,
    pub(crate) path: PathBuf,
}

impl fmt::Display for Operation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?} {}", self.action, self.path.display())
    }
}

/// What an operation that fails has done all the same.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Effect {
    Nothing,
    /// Half of the bytes were appended.
    Half,
    /// All bytes but one were appended.
    AllButOne,
    Everything,
}

/// An operation that fails.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Fault {
    /// How many operations come before it.
    pub(crate) at: usize,
    /// The error number that it gives.
    pub(crate) error: i32,
    pub(crate) effect: Effect,
    /// Whether all later operations fail too, without any effect.
    pub(crate) lasting: bool,
}

/// What the power cut made of the bytes behind those that were synced.
#[derive(Clone, Copy, Debug)]
enum Tail {
    Lost,
    Half,
    AllButOne,
    All,
    /// The length was kept, and the bytes were not.
    Zeros,
}

impl Tail {
    const ALL: [Self; 5] = [Self::Lost, Self::Half, Self::AllButOne, Self::All, Self::Zeros];
}

type FileId = usize;

#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct FileState {
    bytes: Arc<Vec<u8>>,
    /// How many of the bytes are durable.
    durable: usize,
    /// A sync has failed. The system may have forgotten which bytes are not on the disk, so that a later sync
    /// promises nothing of them.
    doubtful: bool,
}

/// A change of names that survives as a whole or not at all, until a folder is synced.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Change {
    /// The names that are not durable yet, and what they stand for.
    names: Vec<(PathBuf, Option<FileId>)>,
}

/// A disk at one moment.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct State {
    files: BTreeMap<FileId, FileState>,
    names: BTreeMap<PathBuf, FileId>,
    durable_names: BTreeMap<PathBuf, FileId>,
    /// The changes since, in their order.
    pending: Vec<Change>,
}

/// The disks that a power cut may leave.
#[derive(Debug)]
pub(crate) struct Survivors {
    /// How many combinations of what survives were looked at.
    pub(crate) combinations: usize,
    /// What they come to, without those that are the same.
    pub(crate) disks: BTreeSet<Contents>,
}

impl State {
    /// A disk with these files, all of them durable.
    pub(crate) fn holding(contents: &Contents) -> Self {
        let mut state = Self::default();
        for (id, (path, bytes)) in contents.iter().enumerate() {
            let file = FileState { bytes: Arc::new(bytes.clone()), durable: bytes.len(), doubtful: false };
            state.files.insert(id, file);
            state.names.insert(path.clone(), id);
        }
        state.durable_names = state.names.clone();
        state
    }

    /// What is in the files now, while the power is on.
    pub(crate) fn contents(&self) -> Contents {
        self.names.iter().map(|(path, id)| (path.clone(), self.files[id].bytes.to_vec())).collect()
    }

    fn change(&mut self, names: Vec<(PathBuf, Option<FileId>)>) {
        apply(&mut self.names, &names);
        self.pending.push(Change { names });
    }

    /// What a power cut may leave now: all combinations of changes of names that survive and do not, and of what becomes of
    /// the bytes that were not synced; where there are too many of them, samples.
    pub(crate) fn survivors(&self, random: &mut Random) -> Survivors {
        const MAX_CHANGES: usize = 8;
        const SAMPLES: usize = 200;
        let mut maps = BTreeSet::new();
        let mut combinations = 0;
        let changes = self.pending.len();
        let mut keep = |kept: &dyn Fn(usize) -> bool| {
            let mut names = self.durable_names.clone();
            for (_, change) in self.pending.iter().enumerate().filter(|&(n, _)| kept(n)) {
                apply(&mut names, &change.names);
            }
            maps.insert(names);
            combinations += 1;
        };
        if changes <= MAX_CHANGES {
            for mask in 0..1_u64 << changes {
                keep(&|n| mask >> n & 1 == 1);
            }
        } else {
            keep(&|_| true);
            for upto in 0..changes {
                keep(&|n| n < upto);
            }
            for _ in 0..SAMPLES {
                let mask = random.next();
                keep(&|n| mask >> n & 1 == 1);
            }
        }

        let mut disks = BTreeSet::new();
        for names in maps {
            let unsynced: BTreeSet<FileId> = names
                .values()
                .copied()
                .filter(|id| self.files[id].durable < self.files[id].bytes.len())
                .collect();
            let mut tails = vec![BTreeMap::new()];
            for id in unsynced {
                tails = tails
                    .iter()
                    .flat_map(|tails| {
                        Tail::ALL.map(|tail| {
                            tails.iter().map(|(&id, &tail)| (id, tail)).chain([(id, tail)]).collect()
                        })
                    })
                    .collect::<Vec<BTreeMap<FileId, Tail>>>();
            }
            for tails in tails {
                combinations += 1;
                let content = |id: &FileId| self.files[id].after_power_cut(tails.get(id).copied());
                disks.insert(names.iter().map(|(path, id)| (path.clone(), content(id))).collect());
            }
        }
        Survivors { combinations, disks }
    }
}

fn apply(names: &mut BTreeMap<PathBuf, FileId>, changes: &[(PathBuf, Option<FileId>)]) {
    for (path, id) in changes {
        match id {
            Some(id) => names.insert(path.clone(), *id),
            None => names.remove(path),
        };
    }
}

impl FileState {
    fn after_power_cut(&self, tail: Option<Tail>) -> Vec<u8> {
        let unsynced = self.bytes.len() - self.durable;
        let kept = match tail {
            None | Some(Tail::All) => unsynced,
            Some(Tail::Lost | Tail::Zeros) => 0,
            Some(Tail::Half) => unsynced / 2,
            Some(Tail::AllButOne) => unsynced - 1,
        };
        let mut bytes = self.bytes[..self.durable + kept].to_vec();
        if matches!(tail, Some(Tail::Zeros)) {
            bytes.resize(self.bytes.len(), 0);
        }
        bytes
    }
}

/// A disk in memory. Clones are the same disk.
#[derive(Clone, Debug)]
pub(crate) struct SimulatedDisk(Arc<Mutex<Inner>>);

#[derive(Debug)]
struct Inner {
    state: State,
    operations: Vec<Operation>,
    /// The states before the first operation and after each one that changed something.
    moments: Option<Vec<State>>,
    fault: Option<Fault>,
    failing_sync: Option<usize>,
    cancel: Option<(usize, Arc<Monitor>)>,
    read_at_most: usize,
    locked: bool,
}

impl SimulatedDisk {
    /// A disk in this state.
    pub(crate) fn new(state: State) -> Self {
        Self(Arc::new(Mutex::new(Inner {
            state,
            operations: Vec::new(),
            moments: None,
            fault: None,
            failing_sync: None,
            cancel: None,
            read_at_most: usize::MAX,
            locked: false,
        })))
    }

    /// Lets an operation fail.
    pub(crate) fn with_fault(self, fault: Fault) -> Self {
        self.inner().fault = Some(fault);
        self
    }

    /// Lets the `nth` sync of a file fail, counted from 1.
    pub(crate) fn with_failing_sync(self, nth: usize) -> Self {
        self.inner().failing_sync = Some(nth);
        self
    }

    /// Remembers every moment at which the power may fail.
    pub(crate) fn with_moments(self) -> Self {
        {
            let mut inner = self.inner();
            inner.moments = Some(vec![inner.state.clone()]);
        }
        self
    }

    /// Cancels a cleanup when it asks for operation number `at`.
    pub(crate) fn cancelling(self, at: usize, monitor: Arc<Monitor>) -> Self {
        self.inner().cancel = Some((at, monitor));
        self
    }

    /// Gives no more than so many bytes for one read.
    pub(crate) fn reading_at_most(self, bytes: usize) -> Self {
        self.inner().read_at_most = bytes;
        self
    }

    /// The operations that were asked for so far.
    pub(crate) fn operations(&self) -> Vec<Operation> {
        self.inner().operations.clone()
    }

    /// How the disk is now.
    pub(crate) fn state(&self) -> State {
        self.inner().state.clone()
    }

    /// The states that the disk was in.
    pub(crate) fn moments(&self) -> Vec<State> {
        self.inner().moments.clone().unwrap_or_default()
    }

    fn inner(&self) -> MutexGuard<'_, Inner> {
        self.0.lock().unwrap()
    }

    /// Does an operation, unless it is to fail.
    fn operate<T>(
        &self,
        action: Action,
        path: &Path,
        work: impl FnOnce(&mut State, Effect) -> io::Result<T>,
    ) -> io::Result<T> {
        let inner = &mut *self.inner();
        let number = inner.operations.len();
        inner.operations.push(Operation { action, path: path.to_owned() });
        if let Some((at, monitor)) = &inner.cancel
            && *at == number
        {
            monitor.cancel();
        }
        let syncs = || inner.operations.iter().filter(|operation| operation.action == Action::Sync).count();
        let (effect, error) = match inner.fault {
            None if action == Action::Sync && inner.failing_sync == Some(syncs()) => {
                (Effect::Nothing, Some(EIO))
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

    fn file(&self, id: FileId, path: &Path) -> OpenFile {
        OpenFile { disk: self.clone(), id, path: path.to_owned() }
    }
}

fn not_found() -> io::Error {
    io::ErrorKind::NotFound.into()
}

impl FileSystem for SimulatedDisk {
    fn open(&self, path: &Path) -> io::Result<Box<dyn ReadFile>> {
        let id = self
            .operate(Action::Open, path, |state, _| state.names.get(path).copied().ok_or_else(not_found))?;
        Ok(Box::new(self.file(id, path)))
    }

    fn create(&self, path: &Path) -> io::Result<Box<dyn WriteFile>> {
        let id = self.operate(Action::Create, path, |state, _| {
            if state.names.contains_key(path) {
                return Err(io::ErrorKind::AlreadyExists.into());
            }
            let id = state.files.last_key_value().map_or(0, |(&last, _)| last + 1);
            state.files.insert(id, FileState { bytes: Arc::default(), durable: 0, doubtful: false });
            state.change(vec![(path.to_owned(), Some(id))]);
            Ok(id)
        })?;
        Ok(Box::new(self.file(id, path)))
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        self.operate(Action::Rename, from, |state, _| {
            let id = *state.names.get(from).ok_or_else(not_found)?;
            state.change(vec![(from.to_owned(), None), (to.to_owned(), Some(id))]);
            Ok(())
        })
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        self.operate(Action::Remove, path, |state, _| {
            if !state.names.contains_key(path) {
                return Err(not_found());
            }
            state.change(vec![(path.to_owned(), None)]);
            Ok(())
        })
    }

    fn sync_file(&self, path: &Path) -> io::Result<()> {
        self.operate(Action::Sync, path, |state, effect| {
            let id = *state.names.get(path).ok_or_else(not_found)?;
            sync(state, id, effect);
            Ok(())
        })
    }

    fn sync_folder(&self, folder: &Path) -> io::Result<()> {
        self.operate(Action::SyncFolder, folder, |state, _| {
            for change in &mut state.pending {
                let names = std::mem::take(&mut change.names).into_iter();
                let (durable, pending): (Vec<_>, _) = names.partition(|(path, _)| folder_of(path) == folder);
                change.names = pending;
                apply(&mut state.durable_names, &durable);
            }
            state.pending.retain(|change| !change.names.is_empty());
            Ok(())
        })
    }

    // The lock's file holds nothing, so that it does not matter whether its name survives.
    fn lock(&self, path: &Path) -> io::Result<Box<dyn Send>> {
        self.operate(Action::Lock, path, |_, _| Ok(()))?;
        if std::mem::replace(&mut self.inner().locked, true) {
            return Err(io::Error::other("locked twice: outside of a test this waits for ever"));
        }
        Ok(Box::new(Lock(self.clone())))
    }
}

/// Makes durable what was written. After a failure it is not known what is, and another sync proves nothing.
fn sync(state: &mut State, id: FileId, effect: Effect) {
    let file = state.files.get_mut(&id).unwrap();
    if effect != Effect::Everything {
        file.doubtful = true;
    } else if !file.doubtful {
        file.durable = file.bytes.len();
    }
}

fn folder_of(path: &Path) -> &Path {
    path.parent().unwrap()
}

struct Lock(SimulatedDisk);

impl Drop for Lock {
    fn drop(&mut self) {
        self.0.inner().locked = false;
    }
}

struct OpenFile {
    disk: SimulatedDisk,
    id: FileId,
    path: PathBuf,
}

impl ReadFile for OpenFile {
    fn len(&self) -> io::Result<u64> {
        self.disk.operate(Action::Len, &self.path, |state, _| Ok(state.files[&self.id].bytes.len() as u64))
    }

    fn read_at(&self, buffer: &mut [u8], at: u64) -> io::Result<usize> {
        let most = self.disk.inner().read_at_most;
        self.disk.operate(Action::Read, &self.path, |state, _| {
            let bytes = &state.files[&self.id].bytes;
            let rest = &bytes[usize::try_from(at).unwrap().min(bytes.len())..];
            let count = rest.len().min(buffer.len()).min(most);
            buffer[..count].copy_from_slice(&rest[..count]);
            Ok(count)
        })
    }

    fn identity(&self) -> io::Result<(u64, u64)> {
        self.disk.operate(Action::Identity, &self.path, |_, _| Ok((0, self.id as u64)))
    }
}

impl WriteFile for OpenFile {
    fn append(&self, bytes: &[u8]) -> io::Result<()> {
        self.disk.operate(Action::Append, &self.path, |state, effect| {
            let count = match effect {
                Effect::Nothing => 0,
                Effect::Half => bytes.len() / 2,
                Effect::AllButOne => bytes.len().saturating_sub(1),
                Effect::Everything => bytes.len(),
            };
            let file = state.files.get_mut(&self.id).unwrap();
            Arc::make_mut(&mut file.bytes).extend_from_slice(&bytes[..count]);
            Ok(())
        })
    }

    fn sync(&self) -> io::Result<()> {
        self.disk.operate(Action::Sync, &self.path, |state, effect| {
            sync(state, self.id, effect);
            Ok(())
        })
    }
}
