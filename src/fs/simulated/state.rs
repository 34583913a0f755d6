//! The content of a disk at one moment, and which part of it is durable.

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::{Contents, Effect};
use crate::fs::Attributes;

/// The index of a file in [`State::files`].
pub(super) type FileId = usize;

#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct FileState {
    pub(super) bytes: Arc<Vec<u8>>,
    /// The bytes at the last sync.
    pub(super) durable: Arc<Vec<u8>>,
    /// The bytes at times since the sync, unless they are a prefix of later ones.
    pub(super) between: Vec<Arc<Vec<u8>>>,
    /// A sync has failed. The kernel may have discarded bytes that are not on the disk, so that a
    /// later sync guarantees nothing about them.
    doubtful: bool,
    pub(super) attributes: Attributes,
}

/// A change of names that survives as a whole or not at all, until a directory is synced.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Change {
    /// The names that are not durable yet, and the files that they refer to.
    pub(super) names: Vec<(PathBuf, Option<FileId>)>,
}

/// A disk at one moment. The default is an empty one.
///
/// Equal states leave the same after a power cut. The order has no meaning.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct State {
    /// All files that ever existed, by their id.
    pub(super) files: Vec<FileState>,
    pub(super) names: BTreeMap<PathBuf, FileId>,
    pub(super) durable_names: BTreeMap<PathBuf, FileId>,
    /// The changes since, in order.
    pub(super) pending: Vec<Change>,
}

impl State {
    /// Creates a disk with these files, all of them durable.
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

    /// Returns the content of the files while the power is on, which is what the death of a process
    /// leaves.
    #[must_use]
    pub fn contents(&self) -> Contents {
        self.names.iter().map(|(path, &id)| (path.clone(), self.files[id].bytes.to_vec())).collect()
    }

    /// Sets the attributes of a file.
    ///
    /// # Panics
    /// Panics if no file has this name.
    #[must_use]
    pub fn with_attributes(mut self, path: impl AsRef<Path>, attributes: Attributes) -> Self {
        let id = self.names[path.as_ref()];
        self.files[id].attributes = attributes;
        self
    }

    /// Returns owner, group and mode of a file; `None` if no file has this name.
    #[must_use]
    pub fn attributes(&self, path: impl AsRef<Path>) -> Option<&Attributes> {
        self.names.get(path.as_ref()).map(|&id| &self.files[id].attributes)
    }

    /// Returns the file of this name.
    pub(super) fn id_of(&self, path: &Path) -> io::Result<FileId> {
        self.names.get(path).copied().ok_or_else(|| io::ErrorKind::NotFound.into())
    }

    pub(super) fn change(&mut self, names: Vec<(PathBuf, Option<FileId>)>) {
        apply(&mut self.names, &names);
        self.pending.push(Change { names });
    }
}

pub(super) fn apply(names: &mut BTreeMap<PathBuf, FileId>, changes: &[(PathBuf, Option<FileId>)]) {
    for (path, id) in changes {
        match id {
            Some(id) => names.insert(path.clone(), *id),
            None => names.remove(path),
        };
    }
}

/// The mode of a file that is created by `create`.
pub(super) const MODE: u32 = 0o640;

impl FileState {
    /// Creates a file whose bytes are durable.
    pub(super) fn new(bytes: Arc<Vec<u8>>, attributes: Attributes) -> Self {
        Self { durable: Arc::clone(&bytes), bytes, between: Vec::new(), doubtful: false, attributes }
    }

    /// Changes the bytes.
    pub(super) fn change(&mut self, change: impl FnOnce(&mut Vec<u8>)) {
        let before = Arc::clone(&self.bytes);
        change(Arc::make_mut(&mut self.bytes));
        if !self.bytes.starts_with(&before) && before != self.durable {
            self.between.push(before);
        }
    }
}

/// Makes the written bytes durable. After a failure it is unknown which are, and a later sync
/// proves nothing.
pub(super) fn sync(state: &mut State, id: FileId, effect: Effect) {
    let file = &mut state.files[id];
    if effect != Effect::Everything {
        file.doubtful = true;
    } else if !file.doubtful {
        file.durable = Arc::clone(&file.bytes);
        file.between.clear();
    }
}
