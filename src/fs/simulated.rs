//! A disk in memory for tests: it knows what of it would survive a power cut, and fails when it is told to.
//!
//! It is for the authors of whatever keeps its files by way of [`FileSystem`], and proves what `conformance` does not: what
//! is left when an operation fails, the process dies or the power does. Needs the feature `simulated-disk`.
//!
//! * **Failures.** Operations are counted from 0. [`SimulatedDisk::with_fault`] lets one of them fail, or it and all later ones, with any
//!   error number, after it had any [`Effect`]. [`SimulatedDisk::with_failing_sync`] and [`SimulatedDisk::with_full_writes`] choose by what
//!   is done instead, for threads whose operations come in any order.
//! * **Short reads and writes**, which are no failures: [`SimulatedDisk::reading_at_most`], [`SimulatedDisk::writing_at_most`].
//! * **The death of the process.** What it leaves is what was written until then: [`State::contents`]. With
//!   [`SimulatedDisk::with_moments`] the disk remembers the state behind each operation that changed something.
//! * **A power cut.** It leaves one of [`State::survivors`].
//! * **Threads.** [`SimulatedDisk::before_each`] lets operations wait. Where [`FileSystem::lock`] would wait, for ever if the other
//!   is in the same thread, it is an error here.
//!
//! # What survives a power cut
//!
//! What is promised to survive is only what a file system promises: the bytes and the length of a file as they were when it was
//! synced, and the names in a folder as they were when that folder was synced. Of all that came later, any part may survive:
//!
//! * each creation, renaming and removal, whatever became of those before it; a renaming as a whole, as long as neither
//!   folder was synced;
//! * of bytes behind the durable ones: all, none, half of them, all but one, or zeros in their place;
//! * of bytes in place of durable ones: each sector of 512 bytes by itself, with the old length or the new one.
//!
//! A file may also be what such a mixture would have made of it at any time since the sync. After a sync that failed nothing of that
//! file becomes durable any more, also when a later sync succeeds: the system may have forgotten what it has not
//! written.
//!
//! Each real file system leaves fewer disks than these; what holds for all of them holds for it.
//!
//! # Owners
//!
//! Files have owner, group and mode ([`State::with_attributes`], [`State::attributes`]), from their creation on. The process is the
//! superuser unless [`SimulatedDisk::as_user`] says otherwise; another user gives no file away, and opens only what it may.
//!
//! Not modelled: folders, which all exist and may be changed by all users, and symbolic links.
//!
//! # Example
//!
//! Does a lease that was acknowledged as synced survive, whatever fails before the power does?
//!
//! ```
//! use std::sync::Arc;
//!
//! use leasemgr::LeaseMgr;
//! use leasemgr::fs::simulated::{Action, Contents, EIO, Effect, Fault, SimulatedDisk, State};
//! use leasemgr::lease::{HwAddr, Lease4};
//! use leasemgr::Durability;
//! use leasemgr::memfile::{LfcProgram, Memfile, MemfileOptions, OpenError};
//!
//! fn open(disk: &SimulatedDisk) -> Result<Memfile<Lease4>, OpenError> {
//!     Memfile::open(MemfileOptions {
//!         file: Some("/leases/leases4.csv".into()),
//!         durability: Durability::Synced,
//!         lfc_program: LfcProgram::Internal,
//!         file_system: Arc::new(disk.clone()),
//!         ..MemfileOptions::default()
//!     })
//! }
//!
//! fn lease() -> Lease4 {
//!     let client = HwAddr::from([2, 0, 0, 0, 0, 1]);
//!     Lease4::builder([192, 0, 2, 1].into()).client(client).lifetime(3600).build().unwrap()
//! }
//!
//! // Opens it and adds a lease, and tells whether the lease was acknowledged.
//! let live = |disk: &SimulatedDisk| open(disk).is_ok_and(|leases| leases.add(&lease()).is_ok());
//!
//! // Opens what is left, and tells whether the lease is there.
//! let is_there = |contents: &Contents| {
//!     let leases = open(&SimulatedDisk::new(State::holding(contents))).unwrap();
//!     leases.get([192, 0, 2, 1].into()).unwrap().is_some()
//! };
//!
//! // A life without failures, to learn what it does. No power cut takes the lease.
//! let disk = SimulatedDisk::new(State::default());
//! assert!(live(&disk));
//! assert!(disk.state().survivors(1).disks.iter().all(is_there));
//! let operations = disk.operations();
//! assert!(operations.iter().any(|operation| operation.action == Action::Sync));
//!
//! // The same life again and again, and each time the next operation fails. Then the power does: of the
//! // disks that it may leave, which are many where much was not synced, some are tried.
//! for (at, operation) in operations.iter().enumerate() {
//!     let fault = Fault { at, error: EIO, effect: Effect::Half, lasting: false };
//!     let disk = SimulatedDisk::new(State::default()).with_fault(fault);
//!     let acknowledged = live(&disk);
//!     for contents in disk.state().some_survivors(at as u64, 5) {
//!         assert!(is_there(&contents) || !acknowledged, "{operation} failed, and the lease is gone");
//!     }
//! }
//! ```

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

// Not by way of `crate::sync`: threads that wait for this disk are nothing that a model is about.
use parking_lot::{Mutex, MutexGuard};
use rustix::io::Errno;

use super::{Attributes, FileSystem, ReadFile, WriteFile, folder_of};

/// Files and what is in them.
pub type Contents = BTreeMap<PathBuf, Vec<u8>>;

/// The error number of an I/O error.
pub const EIO: i32 = Errno::IO.raw_os_error();
/// The error number of a call that a signal interrupted.
pub const EINTR: i32 = Errno::INTR.raw_os_error();
/// The error number of a full disk.
pub const ENOSPC: i32 = Errno::NOSPC.raw_os_error();
/// The error number of a user who has no room left on a disk.
pub const EDQUOT: i32 = Errno::DQUOT.raw_os_error();

/// What is done with a file, or a folder: a call of a [`FileSystem`] or of an open file.
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
    /// [`FileSystem::sync_folder`]
    SyncFolder,
    /// [`FileSystem::lock`] or [`FileSystem::try_lock`]
    Lock,
}

/// One file operation that was asked for, whatever came of it.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Operation {
    /// What is done.
    pub action: Action,
    /// The file or folder that it is done with, by the name with which it was opened; of a renaming or a link, the old name.
    pub path: PathBuf,
}

impl fmt::Display for Operation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?} {}", self.action, self.path.display())
    }
}

/// What an operation that fails has done all the same.
///
/// Of [`Action::Append`] and [`Action::WriteAt`] it is a matter of bytes. Of all others [`Half`](Self::Half) and
/// [`AllButOne`](Self::AllButOne) are as [`Everything`](Self::Everything), but for [`Action::Sync`]: there only
/// [`Everything`](Self::Everything) makes durable what was written, and after any other nothing more of that file ever is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Effect {
    /// Nothing was done.
    Nothing,
    /// Half of the bytes were written.
    Half,
    /// All bytes but one were written.
    AllButOne,
    /// All was done, and yet it was called a failure.
    Everything,
}

impl Effect {
    /// How many of the bytes were written.
    fn of(self, bytes: usize) -> usize {
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
    /// How many operations come before it.
    pub at: usize,
    /// The error number that it gives, as [`EIO`].
    pub error: i32,
    /// What it does all the same.
    pub effect: Effect,
    /// Whether all later operations fail too, with the same error number and without any effect.
    pub lasting: bool,
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

/// The place of a file in [`State::files`].
type FileId = usize;

#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct FileState {
    bytes: Arc<Vec<u8>>,
    /// What they were at the last sync.
    durable: Arc<Vec<u8>>,
    /// What they were in between, where that is more than the beginning of what they were later.
    between: Vec<Arc<Vec<u8>>>,
    /// A sync has failed. The system may have forgotten which bytes are not on the disk, so that a later sync
    /// promises nothing of them.
    doubtful: bool,
    attributes: Attributes,
}

/// A change of names that survives as a whole or not at all, until a folder is synced.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Change {
    /// The names that are not durable yet, and what they stand for.
    names: Vec<(PathBuf, Option<FileId>)>,
}

/// A disk at one moment. The default is an empty one.
///
/// What is equal leaves the same after a power cut. The order has no meaning.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct State {
    /// All that there ever were, by their number.
    files: Vec<FileState>,
    names: BTreeMap<PathBuf, FileId>,
    durable_names: BTreeMap<PathBuf, FileId>,
    /// The changes since, in their order.
    pending: Vec<Change>,
}

/// The disks that a power cut may leave.
#[derive(Debug)]
#[non_exhaustive]
pub struct Survivors {
    /// How many combinations of what survives were looked at: a number for reports.
    pub combinations: usize,
    /// What they come to, without those that are the same. There is at least one.
    pub disks: BTreeSet<Contents>,
}

impl State {
    /// A disk with these files, all of them durable.
    #[must_use]
    pub fn holding(contents: &Contents) -> Self {
        let mut state = Self::default();
        for (id, (path, bytes)) in contents.iter().enumerate() {
            let bytes = Arc::new(bytes.clone());
            state.files.push(FileState::new(bytes, Attributes::new(0, 0, MODE)));
            state.names.insert(path.clone(), id);
        }
        state.durable_names = state.names.clone();
        state
    }

    /// What is in the files now, while the power is on: what the death of a process leaves.
    #[must_use]
    pub fn contents(&self) -> Contents {
        self.names.iter().map(|(path, &id)| (path.clone(), self.files[id].bytes.to_vec())).collect()
    }

    /// The same with these attributes of a file, which must be there.
    ///
    /// # Panics
    /// If there is no file of this name.
    #[must_use]
    pub fn with_attributes(mut self, path: impl AsRef<Path>, attributes: Attributes) -> Self {
        let id = self.names[path.as_ref()];
        self.files[id].attributes = attributes;
        self
    }

    /// Owner, group and mode of a file; `None` if there is no file of this name.
    #[must_use]
    pub fn attributes(&self, path: impl AsRef<Path>) -> Option<&Attributes> {
        self.names.get(path.as_ref()).map(|&id| &self.files[id].attributes)
    }

    fn change(&mut self, names: Vec<(PathBuf, Option<FileId>)>) {
        apply(&mut self.names, &names);
        self.pending.push(Change { names });
    }

    /// What a power cut may leave now: all combinations of changes of names that survive and do not, and of what becomes of
    /// the bytes that were not synced; where there are too many of them, samples.
    ///
    /// Too many are more than 8 changes of names, or 4 sectors that differ. The samples are the same in each run with the same `seed`.
    /// Files are combined with each other without such a bound: where many of them are not synced, take
    /// [`some_survivors`](Self::some_survivors).
    #[must_use]
    pub fn survivors(&self, seed: u64) -> Survivors {
        const MAX_CHANGES: usize = 8;
        const SAMPLES: usize = 200;
        let mut random = Random(seed);
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

        let mut after = BTreeMap::new();
        for &id in maps.iter().flat_map(BTreeMap::values) {
            after.entry(id).or_insert_with(|| self.files[id].after_power_cut());
        }
        let mut disks = BTreeSet::new();
        for names in maps {
            let ids: BTreeSet<FileId> = names.values().copied().collect();
            let mut combined: Vec<BTreeMap<FileId, &Vec<u8>>> = vec![BTreeMap::new()];
            for id in ids {
                let with = |bytes| {
                    let add = |others: &BTreeMap<FileId, _>| {
                        others.iter().map(|(&id, &bytes)| (id, bytes)).chain([(id, bytes)]).collect()
                    };
                    combined.iter().map(add).collect::<Vec<_>>()
                };
                combined = after[&id].iter().flat_map(with).collect();
            }
            for files in combined {
                combinations += 1;
                disks.insert(names.iter().map(|(path, id)| (path.clone(), files[id].clone())).collect());
            }
        }
        Survivors { combinations, disks }
    }

    /// Some of the disks that a power cut may leave now, `count` of them less those that are the same. With many changes and files,
    /// all of them would be too many to look at.
    ///
    /// They are the same in each run with the same `seed`.
    #[must_use]
    pub fn some_survivors(&self, seed: u64, count: usize) -> BTreeSet<Contents> {
        let random = &mut Random(seed);
        let mut survivor = || {
            let mut names = self.durable_names.clone();
            // Each change with the same probability, and with the probability that all survive, or none.
            let probability = random.below(5);
            for change in &self.pending {
                if random.below(4) < probability {
                    apply(&mut names, &change.names);
                }
            }
            let mut content = |id: FileId| self.files[id].some_after_power_cut(random);
            names.iter().map(|(path, &id)| (path.clone(), content(id))).collect()
        };
        (0..count).map(|_| survivor()).collect()
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

/// Random numbers that are the same in every run with the same seed (SplitMix64).
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    fn below(&mut self, bound: usize) -> usize {
        (self.next() % bound as u64) as usize
    }
}

/// The mode of a file that is created, unless it is created like another.
const MODE: u32 = 0o640;

/// So many bytes get onto the disk together, or not at all.
const SECTOR: usize = 512;

impl FileState {
    /// One whose bytes are durable.
    fn new(bytes: Arc<Vec<u8>>, attributes: Attributes) -> Self {
        Self { durable: Arc::clone(&bytes), bytes, between: Vec::new(), doubtful: false, attributes }
    }

    /// Changes the bytes.
    fn change(&mut self, change: impl FnOnce(&mut Vec<u8>)) {
        let before = Arc::clone(&self.bytes);
        change(Arc::make_mut(&mut self.bytes));
        if !self.bytes.starts_with(&before) && before != self.durable {
            self.between.push(before);
        }
    }

    /// What a power cut may leave of the file.
    fn after_power_cut(&self) -> BTreeSet<Vec<u8>> {
        let mut disks = BTreeSet::from([self.durable.to_vec()]);
        for bytes in self.between.iter().chain([&self.bytes]) {
            if bytes.starts_with(&self.durable) {
                disks.extend(Tail::ALL.map(|tail| tail.of(bytes, self.durable.len())));
            } else {
                let (count, mixture) = mixtures(&self.durable, bytes);
                disks.extend((0..count).map(mixture));
            }
        }
        disks
    }

    /// One of these.
    fn some_after_power_cut(&self, random: &mut Random) -> Vec<u8> {
        let mut one_of = |len: usize| random.below(len);
        let bytes = self.between.get(one_of(self.between.len() + 1)).unwrap_or(&self.bytes);
        if bytes.starts_with(&self.durable) {
            Tail::ALL[one_of(Tail::ALL.len())].of(bytes, self.durable.len())
        } else {
            let (count, mixture) = mixtures(&self.durable, bytes);
            mixture(one_of(count))
        }
    }
}

impl Tail {
    /// What is left of these bytes, where so many are durable.
    fn of(self, bytes: &[u8], durable: usize) -> Vec<u8> {
        let unsynced = bytes.len() - durable;
        let kept = match self {
            Self::All => unsynced,
            Self::Lost | Self::Zeros => 0,
            Self::Half => unsynced / 2,
            Self::AllButOne => unsynced.saturating_sub(1),
        };
        let mut left = bytes[..durable + kept].to_vec();
        if matches!(self, Self::Zeros) {
            left.resize(bytes.len(), 0);
        }
        left
    }
}

/// Files of the length of one or the other, each sector of which is as in one or the other; where they differ in
/// many sectors, samples. How many there are, and what makes each of them.
fn mixtures(old: &[u8], new: &[u8]) -> (usize, impl Fn(usize) -> Vec<u8>) {
    const MAX_SECTORS: usize = 4;
    let sector = |bytes: &[u8], n: usize| {
        let mut sector = [0; SECTOR];
        let rest = &bytes[bytes.len().min(n * SECTOR)..];
        let count = rest.len().min(SECTOR);
        sector[..count].copy_from_slice(&rest[..count]);
        sector
    };
    let sectors = 0..old.len().max(new.len()).div_ceil(SECTOR);
    let changed: Vec<usize> = sectors.filter(|&n| sector(old, n) != sector(new, n)).collect();
    let count = changed.len();
    let mut masks: Vec<Vec<bool>> = Vec::new();
    if count <= MAX_SECTORS {
        masks.extend((0..1_u32 << count).map(|mask| (0..count).map(|n| mask >> n & 1 == 1).collect()));
    } else {
        for at in 0..count {
            masks.push((0..count).map(|n| n < at).collect());
            masks.push((0..count).map(|n| n >= at).collect());
            masks.push((0..count).map(|n| n == at).collect());
            masks.push((0..count).map(|n| n != at).collect());
        }
    }
    (2 * masks.len(), move |which: usize| {
        let len = if which.is_multiple_of(2) { old.len() } else { new.len() };
        let mut file = old.to_vec();
        file.resize(len.next_multiple_of(SECTOR), 0);
        for (&n, _) in changed.iter().zip(&masks[which / 2]).filter(|&(_, &is_new)| is_new) {
            if let Some(place) = file.get_mut(n * SECTOR..(n + 1) * SECTOR) {
                place.copy_from_slice(&sector(new, n));
            }
        }
        file.truncate(len);
        file
    })
}

/// A disk in memory. Clones are the same disk, also where one of them is told to fail.
///
/// See the [module](self) for what it does.
#[derive(Clone, Debug)]
pub struct SimulatedDisk(Arc<Mutex<Inner>>);

#[derive(Debug)]
struct Inner {
    state: State,
    operations: Vec<Operation>,
    /// The states before the first operation and after each one that changed something.
    moments: Option<Vec<State>>,
    fault: Option<Fault>,
    failing_sync: Option<usize>,
    full_writes: Option<usize>,
    before_each: Option<Hook>,
    read_at_most: usize,
    write_at_most: usize,
    locked: BTreeSet<PathBuf>,
    has_links: bool,
    users: Users,
}

/// The users that there are, and which of them the process is.
#[derive(Clone, Debug, Default)]
struct Users {
    current: u32,
    /// The groups that they are in, the one of new files first.
    groups: BTreeMap<u32, Vec<u32>>,
}

impl Users {
    fn is_member(&self, user: u32, group: u32) -> bool {
        self.groups.get(&user).is_some_and(|groups| groups.contains(&group))
    }

    /// The attributes of a file that the process creates.
    fn of_new_file(&self) -> Attributes {
        let group = self.groups.get(&self.current).and_then(|groups| groups.first());
        Attributes::new(self.current, group.copied().unwrap_or(self.current), MODE)
    }

    /// What the process can take over of these attributes for a file that has these.
    fn take_over(&self, wanted: &Attributes, now: &Attributes) -> io::Result<Attributes> {
        if self.current == 0 {
            return Ok(wanted.clone());
        }
        let group = if self.is_member(self.current, wanted.group) { wanted.group } else { now.group };
        Ok(wanted.under(now.owner, group, |user, group| self.is_member(user, group))?)
    }

    /// Fails unless the process may do this with the file: 4 is reading, 2 writing.
    fn check(&self, attributes: &Attributes, wanted: u32) -> io::Result<()> {
        match attributes.grants(self.current, wanted, |user, group| self.is_member(user, group)) {
            true => Ok(()),
            false => Err(io::ErrorKind::PermissionDenied.into()),
        }
    }
}

type BeforeEach = dyn Fn(usize, &Operation) + Send + Sync;

/// What is called before each operation.
#[derive(Clone)]
struct Hook(Arc<BeforeEach>);

impl fmt::Debug for Hook {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Hook")
    }
}

impl SimulatedDisk {
    /// A disk in this state, on which nothing fails and no file is locked.
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

    /// Lets an operation fail, in place of the one that was to fail before.
    pub fn with_fault(self, fault: Fault) -> Self {
        self.inner().fault = Some(fault);
        self
    }

    /// Lets the `nth` sync of a file fail with [`EIO`], counted from 1. On a disk with a [`Fault`] this is without effect.
    pub fn with_failing_sync(self, nth: usize) -> Self {
        self.inner().failing_sync = Some(nth);
        self
    }

    /// Lets every `nth` write ([`WriteFile::append`], [`WriteFile::write_at`]) find room for half of its bytes only ([`ENOSPC`]). On a disk with a [`Fault`]
    /// this is without effect.
    ///
    /// # Panics
    /// When something is written, if `nth` is 0.
    pub fn with_full_writes(self, nth: usize) -> Self {
        self.inner().full_writes = Some(nth);
        self
    }

    /// Tells of a user that is in these groups, the one of its new files first.
    pub fn with_user(self, user: u32, groups: &[u32]) -> Self {
        self.inner().users.groups.insert(user, groups.to_vec());
        self
    }

    /// Lets the process be this user, who is in these groups. It is the superuser (0) otherwise.
    pub fn as_user(self, user: u32, groups: &[u32]) -> Self {
        self.inner().users.current = user;
        self.with_user(user, groups)
    }

    /// Gives no more than so many bytes for one read.
    pub fn reading_at_most(self, bytes: usize) -> Self {
        self.inner().read_at_most = bytes;
        self
    }

    /// Takes no more than so many bytes for one [`WriteFile::write_at`].
    pub fn writing_at_most(self, bytes: usize) -> Self {
        self.inner().write_at_most = bytes;
        self
    }

    /// Gives no file a second name ([`FileSystem::link`]), as file systems that know no hard links.
    pub fn without_links(self) -> Self {
        self.inner().has_links = false;
        self
    }

    /// Calls this before each operation, with the number of the operation, which is among [`operations`](Self::operations) already.
    /// It may wait, so that something else comes before, or panic in place of the operation.
    pub fn before_each(self, call: impl Fn(usize, &Operation) + Send + Sync + 'static) -> Self {
        self.inner().before_each = Some(Hook(Arc::new(call)));
        self
    }

    /// Remembers from now on every moment at which the process may die and the power may fail.
    pub fn with_moments(self) -> Self {
        {
            let mut inner = self.inner();
            inner.moments = Some(vec![inner.state.clone()]);
        }
        self
    }

    /// The operations that were asked for so far.
    #[must_use]
    pub fn operations(&self) -> Vec<Operation> {
        self.inner().operations.clone()
    }

    /// How the disk is now.
    #[must_use]
    pub fn state(&self) -> State {
        self.inner().state.clone()
    }

    /// The states that the disk was in since [`with_moments`](Self::with_moments): the one at that time, and one behind each
    /// operation that changed something.
    #[must_use]
    pub fn moments(&self) -> Vec<State> {
        self.inner().moments.clone().unwrap_or_default()
    }

    /// How many moments there are so far.
    #[must_use]
    pub fn moment_count(&self) -> usize {
        self.inner().moments.as_ref().map_or(0, Vec::len)
    }

    fn inner(&self) -> MutexGuard<'_, Inner> {
        self.0.lock()
    }

    /// Does an operation, unless it is to fail.
    fn operate<T>(
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
        // Without the lock of the disk: others go on while it waits.
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

    /// Holds a lock, unless it is held.
    fn hold(&self, path: &Path) -> Option<Lock> {
        let free = self.inner().locked.insert(path.to_owned());
        free.then(|| Lock(self.clone(), path.to_owned()))
    }

    /// Opens a file for what the process must be allowed to do.
    fn open_by(&self, action: Action, path: &Path, wanted: u32) -> io::Result<OpenFile> {
        let users = self.inner().users.clone();
        let id = self.operate(action, path, |state, _| {
            let id = *state.names.get(path).ok_or_else(not_found)?;
            users.check(&state.files[id].attributes, wanted).map(|()| id)
        })?;
        Ok(self.file(id, path))
    }

    fn create_with(&self, path: &Path, attributes: io::Result<Attributes>) -> io::Result<OpenFile> {
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
        OpenFile { disk: self.clone(), id, path: path.to_owned() }
    }
}

/// A length or a place in a file, where it is one that memory can have.
fn in_memory(at: u64) -> io::Result<usize> {
    usize::try_from(at).map_err(|_| io::ErrorKind::FileTooLarge.into())
}

fn not_found() -> io::Error {
    io::ErrorKind::NotFound.into()
}

impl FileSystem for SimulatedDisk {
    fn open(&self, path: &Path) -> io::Result<Box<dyn ReadFile>> {
        Ok(Box::new(self.open_by(Action::Open, path, 4)?))
    }

    fn create(&self, path: &Path) -> io::Result<Box<dyn WriteFile>> {
        let attributes = self.inner().users.of_new_file();
        Ok(Box::new(self.create_with(path, Ok(attributes))?))
    }

    fn create_like(&self, path: &Path, attributes: &Attributes) -> io::Result<Box<dyn WriteFile>> {
        let users = self.inner().users.clone();
        let attributes = users.take_over(attributes, &users.of_new_file());
        Ok(Box::new(self.create_with(path, attributes)?))
    }

    fn set_attributes(&self, path: &Path, attributes: &Attributes) -> io::Result<()> {
        let users = self.inner().users.clone();
        self.operate(Action::SetAttributes, path, |state, _| {
            let id = *state.names.get(path).ok_or_else(not_found)?;
            let now = &mut state.files[id].attributes;
            *now = users.take_over(attributes, now)?;
            Ok(())
        })
    }

    fn open_write(&self, path: &Path) -> io::Result<Box<dyn WriteFile>> {
        Ok(Box::new(self.open_by(Action::OpenWrite, path, 2)?))
    }

    fn open_append(&self, path: &Path) -> io::Result<Box<dyn WriteFile>> {
        Ok(Box::new(self.open_by(Action::OpenAppend, path, 2)?))
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        self.operate(Action::Rename, from, |state, _| {
            let id = *state.names.get(from).ok_or_else(not_found)?;
            state.change(vec![(from.to_owned(), None), (to.to_owned(), Some(id))]);
            Ok(())
        })
    }

    fn link(&self, from: &Path, to: &Path) -> io::Result<()> {
        if !self.inner().has_links {
            return Err(io::ErrorKind::Unsupported.into());
        }
        self.operate(Action::Link, from, |state, _| {
            let id = *state.names.get(from).ok_or_else(not_found)?;
            if state.names.contains_key(to) {
                return Err(io::ErrorKind::AlreadyExists.into());
            }
            state.change(vec![(to.to_owned(), Some(id))]);
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
        match self.hold(path) {
            Some(lock) => Ok(Box::new(lock)),
            None => Err(io::Error::other("locked twice: outside of a test this waits for ever")),
        }
    }

    fn try_lock(&self, path: &Path) -> io::Result<Option<Box<dyn Send + Sync>>> {
        self.operate(Action::Lock, path, |_, _| Ok(()))?;
        Ok(self.hold(path).map(|lock| Box::new(lock) as _))
    }
}

/// Makes durable what was written. After a failure it is not known what is, and another sync proves nothing.
fn sync(state: &mut State, id: FileId, effect: Effect) {
    let file = &mut state.files[id];
    if effect != Effect::Everything {
        file.doubtful = true;
    } else if !file.doubtful {
        file.durable = Arc::clone(&file.bytes);
        file.between.clear();
    }
}

struct Lock(SimulatedDisk, PathBuf);

impl Drop for Lock {
    fn drop(&mut self) {
        self.0.inner().locked.remove(&self.1);
    }
}

struct OpenFile {
    disk: SimulatedDisk,
    id: FileId,
    path: PathBuf,
}

impl ReadFile for OpenFile {
    fn len(&self) -> io::Result<u64> {
        self.disk.operate(Action::Len, &self.path, |state, _| Ok(state.files[self.id].bytes.len() as u64))
    }

    fn read_at(&self, buffer: &mut [u8], at: u64) -> io::Result<usize> {
        let most = self.disk.inner().read_at_most;
        self.disk.operate(Action::Read, &self.path, |state, _| {
            let bytes = &state.files[self.id].bytes;
            let rest = &bytes[usize::try_from(at).map_or(bytes.len(), |at| at.min(bytes.len()))..];
            let count = rest.len().min(buffer.len()).min(most);
            buffer[..count].copy_from_slice(&rest[..count]);
            Ok(count)
        })
    }

    fn identity(&self) -> io::Result<(u64, u64)> {
        self.disk.operate(Action::Identity, &self.path, |_, _| Ok((0, self.id as u64)))
    }

    fn attributes(&self) -> io::Result<Option<Attributes>> {
        let of = |state: &mut State, _| Ok(Some(state.files[self.id].attributes.clone()));
        self.disk.operate(Action::Attributes, &self.path, of)
    }
}

impl WriteFile for OpenFile {
    fn append(&self, mut bytes: &[u8]) -> io::Result<()> {
        loop {
            let mut count = 0;
            let result = self.disk.operate(Action::Append, &self.path, |state, effect| {
                count = effect.of(bytes.len());
                state.files[self.id].change(|content| content.extend_from_slice(&bytes[..count]));
                Ok(())
            });
            bytes = &bytes[count..];
            match result {
                // As `write_all`, it goes on.
                Err(error) if error.kind() == io::ErrorKind::Interrupted && !bytes.is_empty() => {}
                Err(error) if error.kind() == io::ErrorKind::Interrupted => return Ok(()),
                result => return result,
            }
        }
    }

    fn write_at(&self, bytes: &[u8], at: u64) -> io::Result<usize> {
        let most = self.disk.inner().write_at_most;
        self.disk.operate(Action::WriteAt, &self.path, |state, effect| {
            let written = &bytes[..effect.of(bytes.len().min(most))];
            let at = in_memory(at)?;
            state.files[self.id].change(|bytes| {
                bytes.resize(bytes.len().max(at + written.len()), 0);
                bytes[at..at + written.len()].copy_from_slice(written);
            });
            Ok(written.len())
        })
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        self.disk.operate(Action::SetLen, &self.path, |state, _| {
            let len = in_memory(len)?;
            state.files[self.id].change(|bytes| bytes.resize(len, 0));
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

#[cfg(test)]
mod tests {
    use super::*;

    const F: &str = "/leases/f";
    const G: &str = "/leases/g";

    fn contents<const N: usize>(files: [(&str, &str); N]) -> Contents {
        files.map(|(path, text)| (path.into(), text.into())).into()
    }

    fn holding<const N: usize>(files: [(&str, &str); N]) -> SimulatedDisk {
        SimulatedDisk::new(State::holding(&contents(files)))
    }

    fn fail_next(disk: &SimulatedDisk, error: i32, effect: Effect, lasting: bool) {
        let _ = disk.clone().with_fault(Fault { at: disk.operations().len(), error, effect, lasting });
    }

    fn survivors(disk: &SimulatedDisk) -> BTreeSet<Contents> {
        disk.state().survivors(0).disks
    }

    #[test]
    fn what_is_synced_survives_and_nothing_else() {
        let disk = SimulatedDisk::new(State::default());
        let file = disk.create(Path::new(F)).unwrap();
        file.append(b"1234").unwrap();
        let with = |text| contents([(F, text)]);
        let zeros = "\0\0\0\0";
        let expected = ["", "12", "123", "1234", zeros].map(with).into_iter().chain([contents([])]).collect();
        assert_eq!(survivors(&disk), expected);
        file.sync().unwrap();
        assert_eq!(survivors(&disk), BTreeSet::from([contents([]), with("1234")]));
        disk.sync_folder(Path::new("/elsewhere")).unwrap();
        assert_eq!(survivors(&disk).len(), 2);
        disk.sync_folder(Path::new("/leases")).unwrap();
        assert_eq!(survivors(&disk), BTreeSet::from([with("1234")]));
    }

    #[test]
    fn names_without_a_folder_are_in_that_of_the_process() {
        let disk = SimulatedDisk::new(State::default());
        disk.create(Path::new("f")).unwrap();
        disk.sync_folder(Path::new(".")).unwrap();
        assert_eq!(survivors(&disk), BTreeSet::from([contents([("f", "")])]));
    }

    #[test]
    fn a_file_has_its_old_name_or_the_new_one_after_a_power_cut() {
        let disk = holding([(F, "new"), (G, "old")]);
        disk.rename(Path::new(F), Path::new(G)).unwrap();
        let expected = [contents([(F, "new"), (G, "old")]), contents([(G, "new")])];
        assert_eq!(survivors(&disk), expected.into());
    }

    #[test]
    fn sectors_that_are_written_over_survive_one_by_one() {
        let text = |first: &str, second: &str| first.repeat(SECTOR) + second;
        let disk = holding([(F, &text("a", "b"))]);
        disk.open_write(Path::new(F)).unwrap().write_at(text("x", "y").as_bytes(), 0).unwrap();
        let all = [("a", "b"), ("a", "y"), ("x", "b"), ("x", "y")];
        let expected = all.map(|(first, second)| contents([(F, &text(first, second))]));
        assert_eq!(survivors(&disk), expected.into());
        let some = disk.state().some_survivors(1, 20);
        assert_eq!(some, disk.state().some_survivors(1, 20));
        assert!(some.len() > 1 && some.is_subset(&survivors(&disk)), "{some:?}");
    }

    /// Creates G in place of F, as user 7 of the groups 8 and 9.
    fn replaced_by_user_7(old: Attributes) -> Result<Attributes, String> {
        let state = State::holding(&contents([(F, "")])).with_attributes(F, old);
        let disk = SimulatedDisk::new(state).with_user(5, &[9]).as_user(7, &[8, 9]);
        let attributes = disk.open(Path::new(F)).and_then(|file| file.attributes());
        let attributes = attributes.map_err(|error| error.to_string())?.unwrap();
        disk.create_like(Path::new(G), &attributes).map(drop).map_err(|error| error.to_string())?;
        Ok(disk.state().attributes(G).unwrap().clone())
    }

    #[rstest::rstest]
    #[case::kept((7, 8, 0o640), Ok((7, 8, 0o640)))]
    #[case::kept_with_a_second_group((7, 9, 0o600), Ok((7, 9, 0o600)))]
    #[case::with_the_old_owner_in_the_group((5, 9, 0o640), Ok((7, 9, 0o640)))]
    #[case::with_all_users_reading((6, 6, 0o664), Ok((7, 8, 0o644)))]
    #[case::with_a_group_of_others((7, 6, 0o660), Ok((7, 8, 0o600)))]
    #[case::with_a_group_that_may_do_less_than_others((7, 6, 0o646), Ok((7, 8, 0o644)))]
    #[case::of_the_superuser((0, 8, 0o640), Ok((7, 8, 0o640)))]
    #[case::locked_out((6, 9, 0o640), Err("user 6 owns the file that is to be replaced and could not read the new one"))]
    #[case::locked_out_by_its_group((5, 9, 0o604), Err("permission denied"))]
    #[case::not_readable((6, 6, 0o640), Err("permission denied"))]
    fn a_user_gives_no_file_away_and_no_user_more_rights(
        #[case] (owner, group, mode): (u32, u32, u32),
        #[case] expected: Result<(u32, u32, u32), &str>,
    ) {
        let replaced = replaced_by_user_7(Attributes::new(owner, group, mode));
        match expected {
            Ok((owner, group, mode)) => assert_eq!(replaced, Ok(Attributes::new(owner, group, mode))),
            Err(expected) => {
                let error = replaced.unwrap_err();
                assert!(error.starts_with(expected), "{error}");
            }
        }
    }

    #[test]
    fn the_superuser_keeps_owner_group_and_mode() {
        let old = Attributes::new(5, 6, 0o6751);
        let disk = SimulatedDisk::new(holding([(F, "")]).state().with_attributes(F, old.clone()));
        disk.create(Path::new(G)).unwrap();
        assert_eq!(disk.state().attributes(G), Some(&Attributes::new(0, 0, 0o640)));
        disk.set_attributes(Path::new(G), &old).unwrap();
        disk.rename(Path::new(G), Path::new(F)).unwrap();
        assert_eq!(disk.state().attributes(F), Some(&Attributes::new(5, 6, 0o751)));
        assert_eq!(disk.state().attributes(G), None);
    }

    #[test]
    fn after_a_sync_that_failed_no_other_proves_anything() {
        let disk = holding([(F, "")]).with_failing_sync(1);
        let file = disk.open_write(Path::new(F)).unwrap();
        file.append(b"1").unwrap();
        assert_eq!(file.sync().unwrap_err().raw_os_error(), Some(EIO));
        file.sync().unwrap();
        assert!(survivors(&disk).contains(&contents([(F, "")])));
    }

    #[test]
    fn a_fault_has_its_effect_and_may_last() {
        let disk = holding([(F, "")]);
        let file = disk.open_write(Path::new(F)).unwrap();
        for (effect, text) in [
            (Effect::Nothing, ""),
            (Effect::Half, "12"),
            (Effect::AllButOne, "12123"),
            (Effect::Everything, "121231234"),
        ] {
            fail_next(&disk, ENOSPC, effect, false);
            assert_eq!(file.append(b"1234").unwrap_err().kind(), io::ErrorKind::StorageFull);
            assert_eq!(disk.state().contents(), contents([(F, text)]));
        }
        file.set_len(0).unwrap();
        fail_next(&disk, EIO, Effect::Half, true);
        for _ in 0..3 {
            assert_eq!(file.append(b"1234").unwrap_err().raw_os_error(), Some(EIO));
        }
        assert_eq!(disk.state().contents(), contents([(F, "12")]));
    }

    #[test]
    fn what_is_called_before_an_operation_finds_the_disk_as_it_was() {
        let disk = SimulatedDisk::new(State::default()).with_moments();
        let (before, seen) = (disk.clone(), Arc::new(Mutex::new(Vec::new())));
        let told = Arc::clone(&seen);
        let disk = disk.before_each(move |number, operation| {
            let contents = before.state().contents();
            told.lock().push((number, operation.to_string(), contents));
        });
        disk.create(Path::new(F)).unwrap();
        disk.remove(Path::new(F)).unwrap();
        let expected =
            [(0, format!("Create {F}"), contents([])), (1, format!("Remove {F}"), contents([(F, "")]))];
        assert_eq!(*seen.lock(), expected);
        let moments: Vec<_> = disk.moments().iter().map(State::contents).collect();
        assert_eq!(moments, [contents([]), contents([(F, "")]), contents([])]);
    }
}
