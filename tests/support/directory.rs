//! A temporary directory, which is removed at the end.

use std::path::{Path, PathBuf};

use tempfile::TempDir;

/// A temporary directory. Tests add methods for the files that they keep in it.
pub(crate) struct Directory(TempDir);

impl Directory {
    pub(crate) fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    /// Returns the path of the directory.
    pub(crate) fn root(&self) -> &Path {
        self.0.path()
    }

    /// Returns the path of a file in the directory.
    pub(crate) fn path(&self, name: impl AsRef<Path>) -> PathBuf {
        self.root().join(name)
    }
}
