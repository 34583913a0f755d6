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
    pub(super) fn take(fs: &'a dyn FileSystem, path: &'a Path) -> Result<Taken<'a>, LfcError> {
        let lock = PidLock::take(fs, path)?;
        if let Some(pid) = lock.running()? {
            return Ok(Taken::Running(pid));
        }
        lock.write(own_pid())?;
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

/// A PID file under its lock: nobody else reads or writes it.
///
/// All errors are [`LfcError::PidFile`].
pub(crate) struct PidLock<'a> {
    fs: &'a dyn FileSystem,
    path: &'a Path,
    _lock: Box<dyn Send>,
}

impl<'a> PidLock<'a> {
    /// Waits for the lock.
    pub(crate) fn take(fs: &'a dyn FileSystem, path: &'a Path) -> Result<Self, LfcError> {
        let lock = fs.lock(&lock_path(path)).map_err(error("lock", path))?;
        Ok(Self { fs, path, _lock: lock })
    }

    /// Takes the lock, unless somebody has it.
    pub(crate) fn try_take(fs: &'a dyn FileSystem, path: &'a Path) -> Result<Option<Self>, LfcError> {
        let lock = fs.try_lock(&lock_path(path)).map_err(error("lock", path))?;
        Ok(lock.map(|lock| Self { fs, path, _lock: lock }))
    }

    /// The live process that the file names, unless it is this one.
    ///
    /// What is no number of a process is as good as no file: a crash may leave an empty file, or half a one.
    pub(crate) fn running(&self) -> Result<Option<i32>, LfcError> {
        let pid = self.read()?;
        Ok(pid.filter(|&pid| pid != own_pid() && is_alive(pid)))
    }

    /// Makes the file name this process.
    pub(crate) fn write(&self, pid: i32) -> Result<(), LfcError> {
        remove(self.fs, self.path).map_err(error("replace", self.path))?;
        let file = self.fs.create(self.path).map_err(error("create", self.path))?;
        file.append(format!("{pid}\n").as_bytes()).map_err(error("write", self.path))
    }

    /// Removes the file if it names this process.
    pub(crate) fn remove_if_of(&self, pid: i32) -> Result<(), LfcError> {
        if self.read()? == Some(pid) {
            remove(self.fs, self.path).map_err(error("remove", self.path))?;
        }
        Ok(())
    }

    fn read(&self) -> Result<Option<i32>, LfcError> {
        read(self.fs, self.path).map_err(error("read", self.path))
    }
}

fn error(action: &'static str, path: &Path) -> impl FnOnce(io::Error) -> LfcError + use<> {
    let path = path.to_owned();
    move |source| LfcError::PidFile { action, path, source }
}

fn own_pid() -> i32 {
    getpid().as_raw_nonzero().get()
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
    !matches!(test_kill_process(pid), Err(rustix::io::Errno::SRCH)) && !is_zombie(pid)
}

/// Whether a process has ended, and nobody has asked how: that may never happen, as where the first process of a
/// container reaps no orphans. It cannot be told without Linux's `/proc`.
fn is_zombie(pid: Pid) -> bool {
    let folder = Path::new("/proc").join(pid.as_raw_nonzero().to_string());
    let stat = std::fs::read(folder.join("stat")).unwrap_or_default();
    // The state stands behind the name, which is in parentheses, and may itself have any.
    let state = stat.iter().rposition(|&b| b == b')').and_then(|at| stat.get(at + 2));
    // A process whose first thread has ended looks the same, but for the other threads.
    state == Some(&b'Z') && std::fs::read_dir(folder.join("task")).is_ok_and(|tasks| tasks.count() <= 1)
}

#[cfg(test)]
mod tests {
    use rstest::rstest;
    use rustix::process::{WaitId, WaitIdOptions};

    use super::*;
    use crate::fs::OsFileSystem;

    /// Waits for the end of a process, and leaves it a zombie.
    const LOOK: WaitIdOptions = WaitIdOptions::EXITED.union(WaitIdOptions::NOWAIT);

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

    #[test]
    fn a_process_that_has_ended_is_not_running_even_if_nobody_reaps_it() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("f.pid");
        let mut child =
            std::process::Command::new("cat").stdin(std::process::Stdio::piped()).spawn().unwrap();
        let pid = i32::try_from(child.id()).unwrap();
        std::fs::write(&path, format!("{pid}\n")).unwrap();
        let running = || PidLock::take(&OsFileSystem, &path).unwrap().running().unwrap();
        assert_eq!(running(), Some(pid));
        drop(child.stdin.take());
        // It ends at once, and is there until it is waited for.
        let ended = || rustix::process::waitid(WaitId::Pid(Pid::from_raw(pid).unwrap()), LOOK).unwrap();
        ended();
        assert_eq!(running(), None);
        assert!(ended().is_some(), "it was a zombie all the time");
        child.wait().unwrap();
        assert_eq!(running(), None);
    }

    #[test]
    fn a_pid_file_is_removed_only_for_the_process_that_it_names() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("f.pid");
        let lock = PidLock::take(&OsFileSystem, &path).unwrap();
        lock.remove_if_of(1).unwrap();
        lock.write(12).unwrap();
        lock.write(1).unwrap();
        lock.remove_if_of(12).unwrap();
        assert_eq!(std::fs::read_to_string(&path).unwrap(), "1\n");
        lock.remove_if_of(1).unwrap();
        assert!(!path.exists());
    }
}
