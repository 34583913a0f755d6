//! The PID file, by which the server and the cleanup know of each other.

use std::io;
use std::path::{Path, PathBuf};

use rustix::process::{Pid, getpid, test_kill_process};

use super::LfcError;
use crate::fs::{FileSystem, read_full};

/// The name of a PID file's lock.
fn lock_path(path: &Path) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(".lock");
    name.into()
}

/// A PID file that names this process. It is removed by [`PidFile::remove`], and when it is dropped.
#[derive(Debug)]
pub(super) struct PidFile<'a> {
    fs: &'a dyn FileSystem,
    path: &'a Path,
    removed: bool,
}

/// What taking a PID file came to.
#[derive(Debug)]
pub(super) enum Taken<'a> {
    /// It is ours now.
    Ours(PidFile<'a>),
    /// It names another process, which is alive.
    Running(i32),
}

impl<'a> PidFile<'a> {
    /// Writes this process into the PID file, unless another live process is in it.
    ///
    /// What is no number of a process is as good as no file: a crash may leave an empty file, or half a one.
    pub(super) fn take(fs: &'a dyn FileSystem, path: &'a Path) -> Result<Taken<'a>, LfcError> {
        let error = |action| move |source| LfcError::PidFile { action, path: path.to_owned(), source };
        let _lock = fs.lock(&lock_path(path)).map_err(error("lock"))?;
        let own = getpid().as_raw_nonzero().get();
        match read(fs, path).map_err(error("read"))? {
            Some(pid) if pid != own && is_alive(pid) => return Ok(Taken::Running(pid)),
            _ => {}
        }
        remove(fs, path).map_err(error("replace"))?;
        let file = fs.create(path).map_err(error("create"))?;
        file.append(format!("{own}\n").as_bytes()).map_err(error("write"))?;
        Ok(Taken::Ours(Self { fs, path, removed: false }))
    }

    /// Removes the file.
    pub(super) fn remove(mut self) -> Result<(), LfcError> {
        let _lock = self.fs.lock(&lock_path(self.path)).map_err(LfcError::io("lock", self.path))?;
        self.removed = true;
        remove(self.fs, self.path).map_err(LfcError::io("remove", self.path))
    }
}

impl Drop for PidFile<'_> {
    fn drop(&mut self) {
        if !self.removed {
            // Left over, it names a process that has ended, which is as good as no file.
            let _ = remove(self.fs, self.path);
        }
    }
}

fn remove(fs: &dyn FileSystem, path: &Path) -> io::Result<()> {
    match fs.remove(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        result => result,
    }
}

/// The number of the process that a PID file names, if it names any.
fn read(fs: &dyn FileSystem, path: &Path) -> io::Result<Option<i32>> {
    let file = match fs.open(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        file => file?,
    };
    let mut buffer = [0; 64];
    let count = read_full(file.as_ref(), &mut buffer, 0)?;
    let text = std::str::from_utf8(&buffer[..count]).unwrap_or_default();
    // Without its newline, a number may be the beginning of one.
    let pid = text.split_once('\n').and_then(|(line, _)| line.trim_matches([' ', '\t']).parse().ok());
    Ok(pid.filter(|&pid| pid > 0))
}

/// Whether there is such a process. One that belongs to somebody else is alive too.
fn is_alive(pid: i32) -> bool {
    let Some(pid) = Pid::from_raw(pid) else {
        return false;
    };
    !matches!(test_kill_process(pid), Err(rustix::io::Errno::SRCH))
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::*;
    use crate::fs::OsFileSystem;

    #[rstest]
    #[case::absent(None)]
    #[case::dead(Some("999999\n"))]
    #[case::empty(Some(""))]
    #[case::zero(Some("0\n"))]
    #[case::negative(Some("-1\n"))]
    #[case::junk(Some("junk\n"))]
    #[case::init_without_a_newline(Some("1"))]
    #[case::beyond_a_number(Some("99999999999999999999\n"))]
    #[case::long(Some("1111111111111111111111111111111111111111111111111111111111111111111111111111\n"))]
    fn a_pid_file_that_names_no_live_process_is_taken(#[case] content: Option<&str>) {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("f.pid");
        if let Some(content) = content {
            std::fs::write(&path, content).unwrap();
        }
        let Taken::Ours(file) = PidFile::take(&OsFileSystem, &path).unwrap() else {
            panic!("taken for running");
        };
        assert_eq!(std::fs::read_to_string(&path).unwrap(), format!("{}\n", std::process::id()));
        file.remove().unwrap();
        assert_eq!(folder.path().read_dir().unwrap().count(), 0);
    }

    #[test]
    fn the_pid_file_of_another_live_process_stays() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("f.pid");
        std::fs::write(&path, "1\n").unwrap();
        assert!(matches!(PidFile::take(&OsFileSystem, &path), Ok(Taken::Running(1))));
        assert_eq!(std::fs::read_to_string(&path).unwrap(), "1\n");
    }

    #[test]
    fn the_own_process_is_not_another() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("f.pid");
        std::fs::write(&path, format!("{}\n", std::process::id())).unwrap();
        assert!(matches!(PidFile::take(&OsFileSystem, &path), Ok(Taken::Ours(_))));
        assert!(!path.exists(), "the guard removes the file");
    }
}
