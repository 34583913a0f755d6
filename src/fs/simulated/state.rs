//! What is on a disk at one moment, and what of it is durable.

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::{Contents, Effect};
use crate::fs::Attributes;

/// The place of a file in [`State::files`].
pub(super) type FileId = usize;

#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct FileState {
    pub(super) bytes: Arc<Vec<u8>>,
    /// What they were at the last sync.
    pub(super) durable: Arc<Vec<u8>>,
    /// What they were in between, where that is more than the beginning of what they were later.
    pub(super) between: Vec<Arc<Vec<u8>>>,
    /// A sync has failed. The system may have forgotten which bytes are not on the disk, so that a later sync
    /// promises nothing of them.
    doubtful: bool,
    pub(super) attributes: Attributes,
}

/// A change of names that survives as a whole or not at all, until a folder is synced.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Change {
    /// The names that are not durable yet, and what they stand for.
    pub(super) names: Vec<(PathBuf, Option<FileId>)>,
}

/// A disk at one moment. The default is an empty one.
///
/// What is equal leaves the same after a power cut. The order has no meaning.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct State {
    /// All that there ever were, by their number.
    pub(super) files: Vec<FileState>,
    pub(super) names: BTreeMap<PathBuf, FileId>,
    pub(super) durable_names: BTreeMap<PathBuf, FileId>,
    /// The changes since, in their order.
    pub(super) pending: Vec<Change>,
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

/// The mode of a file that is created, unless it is created like another.
pub(super) const MODE: u32 = 0o640;

impl FileState {
    /// One whose bytes are durable.
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

/// Makes durable what was written. After a failure it is not known what is, and another sync proves nothing.
pub(super) fn sync(state: &mut State, id: FileId, effect: Effect) {
    let file = &mut state.files[id];
    if effect != Effect::Everything {
        file.doubtful = true;
    } else if !file.doubtful {
        file.durable = Arc::clone(&file.bytes);
        file.between.clear();
    }
}
