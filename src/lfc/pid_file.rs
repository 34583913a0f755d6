//! The PID file, by which the server and the cleanup know of each other, and the lock by which this project's cleanups do.
//!
//! A cleanup that this project does or starts holds the lock of `F.pid.running` as long as it lives, whatever becomes of the PID file,
//! in whatever container it is, and however it ends. Kea's servers and programs know nothing of that file, and only go by the
//! PID file. So a cleanup is running if that lock is held, or if the PID file names another process that has the name of Kea's program.
//!
//! `F.pid.running` is locked, and looked at, only under the lock of `F.pid.lock`: two that look at the same time would each take the other
//! for a cleanup.

use std::fmt;
use std::fs::File;
use std::io;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::thread;
use std::time::{Duration, Instant};

use rustix::process::{getpid, getppid};

use super::LfcError;
use super::processes::is_cleanup;
use crate::fs::{FileSystem, ProcessLock, ReadFile, read_full};
use crate::lease_file::LeaseFileError;

/// Returns the name of a PID file's lock, which is held while the PID file is looked at or changed.
pub(crate) fn lock_path(path: &Path) -> PathBuf {
    with_suffix(path, ".lock")
}

/// Returns the name of the file whose lock is held as long as a cleanup lives.
fn running_path(path: &Path) -> PathBuf {
    with_suffix(path, ".running")
}

fn with_suffix(path: &Path, suffix: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(suffix);
    name.into()
}

/// A cleanup that is running, of this process or another.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RunningCleanup {
    pid: Option<i32>,
    pid_file: PathBuf,
    is_locked: bool,
}

impl RunningCleanup {
    /// Returns the number of the process that does it, as the PID file has it: in another container, it is that container's number.
    ///
    /// `None` if the PID file names no process, as when it was removed meanwhile.
    #[must_use]
    pub fn pid(&self) -> Option<i32> {
        self.pid
    }

    /// Returns the name of the PID file.
    #[must_use]
    pub fn pid_file(&self) -> &Path {
        &self.pid_file
    }
}

impl fmt::Display for RunningCleanup {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let pid_file = self.pid_file.display();
        let running = running_path(&self.pid_file);
        match self.pid {
            Some(pid) if self.is_locked => write!(
                f,
                "process {pid} of {pid_file} is cleaning up these lease files, and holds {}; \
                 wait until it has ended, or end it",
                running.display()
            ),
            Some(pid) => write!(
                f,
                "process {pid} of {pid_file} is a kea-lfc that is cleaning up these lease files; wait until it has ended, \
                 or remove {pid_file} if it works on other files"
            ),
            None => write!(
                f,
                "a process that {pid_file} does not name is cleaning up these lease files, and holds {}; \
                 wait until it has ended, or end it",
                running.display()
            ),
        }
    }
}

/// The right to do the cleanup of some files, which no other process has until this is dropped.
pub(crate) struct Claim {
    /// A lock that a process can be given. If there is none, it is one of this process only, or the process that started this one holds it.
    for_process: Option<ProcessLock>,
    _own: Option<Box<dyn Send + Sync>>,
}

impl Claim {
    /// Returns what a process that is started for the cleanup is to have as its standard input; `None` if it must
    /// take the lock by itself.
    pub(crate) fn descriptor(&self) -> io::Result<Option<OwnedFd>> {
        self.for_process.as_ref().map(ProcessLock::descriptor).transpose()
    }

    /// Returns the lock that a process has been given. If it has not, the lock is free for it.
    pub(crate) fn given(self) -> Option<ProcessLock> {
        self.for_process
    }
}

/// What claiming a cleanup came to.
pub(crate) enum Claimed {
    Ours(Claim),
    Running(RunningCleanup),
}

/// A PID file that names this process, which does the cleanup. It is removed by [`PidFile::remove`], and when it is dropped.
pub(crate) struct PidFile<'a> {
    fs: &'a dyn FileSystem,
    path: PathBuf,
    removed: bool,
    /// Given up last: while the PID file is there, it names a cleanup that is running.
    _claim: Claim,
}

/// What taking a PID file came to.
pub(super) enum Taken<'a> {
    /// It is ours now.
    Ours(PidFile<'a>),
    /// A cleanup is running.
    Running(RunningCleanup),
}

impl<'a> PidFile<'a> {
    /// Writes this process into the PID file, unless a cleanup is running. A lock that this process has `inherited` is its own.
    pub(super) fn take(
        fs: &'a dyn FileSystem,
        path: &Path,
        inherited: Option<&File>,
    ) -> Result<Taken<'a>, LfcError> {
        let lock = PidLock::take(fs, path)?;
        match lock.claim_or_inherit(inherited)? {
            Claimed::Ours(claim) => Ok(Taken::Ours(lock.hold(claim)?)),
            Claimed::Running(running) => Ok(Taken::Running(running)),
        }
    }

    /// Removes the file.
    pub(super) fn remove(mut self) -> Result<(), LfcError> {
        let path = lock_path(&self.path);
        let _lock = lock(self.fs, &path).map_err(LfcError::io("lock", &path))?;
        self.removed = true;
        let result = remove(self.fs, &self.path).map_err(LfcError::io("remove", &self.path));
        drop(self);
        result
    }
}

impl Drop for PidFile<'_> {
    fn drop(&mut self) {
        if !self.removed {
            // Left over, it names a process that does no cleanup, which is as good as no file.
            let _ = remove(self.fs, &self.path);
        }
    }
}

/// A PID file under its lock: no other process reads or writes it.
pub(crate) struct PidLock<'a> {
    fs: &'a dyn FileSystem,
    path: PathBuf,
    _lock: Box<dyn Send>,
}

impl<'a> PidLock<'a> {
    /// Waits for the lock, but not for a process that has stopped while it has it.
    pub(crate) fn take(fs: &'a dyn FileSystem, path: &Path) -> Result<Self, PidFileError> {
        let lock_path = lock_path(path);
        let lock = lock(fs, &lock_path).map_err(error("lock", &lock_path))?;
        Ok(Self { fs, path: path.to_owned(), _lock: lock })
    }

    /// Takes the lock, unless another process has it.
    pub(crate) fn try_take(fs: &'a dyn FileSystem, path: &Path) -> Result<Option<Self>, PidFileError> {
        let lock = lock_path(path);
        let lock = fs.try_lock(&lock).map_err(error("lock", &lock))?;
        Ok(lock.map(|lock| Self { fs, path: path.to_owned(), _lock: lock }))
    }

    /// Returns the cleanup that is running, if there is one.
    pub(crate) fn running(&self) -> Result<Option<RunningCleanup>, PidFileError> {
        Ok(match self.claim()? {
            Claimed::Ours(_) => None,
            Claimed::Running(running) => Some(running),
        })
    }

    /// Claims the cleanup for this process, unless one is running.
    pub(crate) fn claim(&self) -> Result<Claimed, PidFileError> {
        self.claim_or_inherit(None)
    }

    /// Claims the cleanup for a process that is about to be started, unless one is running. Where the file system has no locks for
    /// other processes, that process must take the lock by itself, after this claim is dropped.
    pub(crate) fn claim_for_process(&self) -> Result<Claimed, PidFileError> {
        let path = running_path(&self.path);
        match self.fs.try_lock_for_process(&path) {
            Err(error) if error.kind() == io::ErrorKind::Unsupported => self.claim(),
            taken => {
                let claim = taken
                    .map_err(error("lock", &path))?
                    .map(|lock| Claim { for_process: Some(lock), _own: None });
                self.unless_named(claim)
            }
        }
    }

    fn claim_or_inherit(&self, inherited: Option<&File>) -> Result<Claimed, PidFileError> {
        let path = running_path(&self.path);
        let lock = self.fs.try_lock(&path).map_err(error("lock", &path))?;
        let claim = lock.map(|lock| Claim { for_process: None, _own: Some(lock) });
        if claim.is_none() && inherited.is_some_and(|file| self.is_lock_of(file, &path)) {
            // The process in the PID file is this one, or the one that started it.
            return Ok(Claimed::Ours(Claim { for_process: None, _own: None }));
        }
        self.unless_named(claim)
    }

    /// Returns whether it is by this file that the lock is held.
    fn is_lock_of(&self, file: &File, path: &Path) -> bool {
        let is_same = || Ok::<_, io::Error>(self.fs.open(path)?.identity()? == ReadFile::identity(file)?);
        // It succeeds if the lock was taken with this file before.
        is_same().unwrap_or(false) && file.try_lock().is_ok()
    }

    /// What a claim of the lock comes to, which failed if there is none: also Kea's program must not be at work.
    fn unless_named(&self, claim: Option<Claim>) -> Result<Claimed, PidFileError> {
        let pid = self.read()?;
        let running = |is_locked| RunningCleanup { pid, pid_file: self.path.clone(), is_locked };
        Ok(match (claim, pid) {
            (None, _) => Claimed::Running(running(true)),
            (Some(_), Some(pid)) if !is_related(pid) && is_cleanup(pid) => Claimed::Running(running(false)),
            (Some(claim), _) => Claimed::Ours(claim),
        })
    }

    /// Makes the file name this process, which does the cleanup.
    pub(crate) fn hold(&self, claim: Claim) -> Result<PidFile<'a>, PidFileError> {
        self.write(own_pid())?;
        Ok(PidFile { fs: self.fs, path: self.path.clone(), removed: false, _claim: claim })
    }

    /// Makes the file name a process.
    pub(crate) fn write(&self, pid: i32) -> Result<(), PidFileError> {
        remove(self.fs, &self.path).map_err(error("replace the PID file", &self.path))?;
        let file = self.fs.create(&self.path).map_err(error("create the PID file", &self.path))?;
        file.append(format!("{pid}\n").as_bytes()).map_err(error("write the PID file", &self.path))
    }

    /// Removes the file if it names this process.
    pub(crate) fn remove_if_of(&self, pid: i32) -> Result<(), PidFileError> {
        if self.read()? == Some(pid) {
            remove(self.fs, &self.path).map_err(error("remove the PID file", &self.path))?;
        }
        Ok(())
    }

    fn read(&self) -> Result<Option<i32>, PidFileError> {
        read(self.fs, &self.path).map_err(error("read the PID file", &self.path))
    }
}

/// Waits for the lock of a PID file, but no longer than a process needs it that goes on.
fn lock(fs: &dyn FileSystem, path: &Path) -> io::Result<Box<dyn Send>> {
    const PATIENCE: Duration = Duration::from_millis(if cfg!(test) { 1000 } else { 10_000 });
    const PAUSE: Duration = Duration::from_millis(2);
    let start = Instant::now();
    loop {
        if let Some(lock) = fs.try_lock(path)? {
            return Ok(lock);
        }
        if start.elapsed() >= PATIENCE {
            let text = format!("another process has held it for {PATIENCE:?}; end that process");
            return Err(io::Error::new(io::ErrorKind::TimedOut, text));
        }
        thread::sleep(PAUSE);
    }
}

/// What cannot be done with a PID file, or a file that is locked for it.
#[derive(Debug, thiserror::Error)]
#[error("cannot {action} {}", path.display())]
pub(crate) struct PidFileError {
    action: &'static str,
    path: PathBuf,
    source: io::Error,
}

impl From<PidFileError> for LfcError {
    fn from(PidFileError { action, path, source }: PidFileError) -> Self {
        Self::PidFile { action, path, source }
    }
}

impl From<PidFileError> for LeaseFileError {
    fn from(PidFileError { action, path, source }: PidFileError) -> Self {
        Self::Io { path, action, source }
    }
}

fn error(action: &'static str, path: &Path) -> impl FnOnce(io::Error) -> PidFileError + use<> {
    let path = path.to_owned();
    move |source| PidFileError { action, path, source }
}

fn own_pid() -> i32 {
    getpid().as_raw_nonzero().get()
}

/// Returns whether a process is this one, or the one that started it: that may be a script, which waits for this one.
fn is_related(pid: i32) -> bool {
    pid == own_pid() || getppid().is_some_and(|parent| parent.as_raw_nonzero().get() == pid)
}

fn remove(fs: &dyn FileSystem, path: &Path) -> io::Result<()> {
    match fs.remove(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        result => result,
    }
}

/// The number of the process that a PID file names, if it names any.
///
/// What is no number of a process is as good as no file: a crash may leave an empty file, or half a one.
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

#[cfg(test)]
mod tests {
    use std::process::{Child, Command, Stdio};

    use rstest::rstest;

    use super::*;
    use crate::fs::OsFileSystem;
    use crate::with_sources::with_sources;

    /// A directory with the PID file `f.pid`.
    struct Place(tempfile::TempDir);

    impl Place {
        fn new(content: Option<&str>) -> Self {
            let place = Self(tempfile::tempdir().unwrap());
            if let Some(content) = content {
                std::fs::write(place.path(), content).unwrap();
            }
            place
        }

        fn path(&self) -> PathBuf {
            self.0.path().join("f.pid")
        }

        fn content(&self) -> Option<String> {
            std::fs::read_to_string(self.path()).ok()
        }

        fn lock(&self) -> PidLock<'static> {
            PidLock::take(&OsFileSystem, &self.path()).unwrap()
        }

        fn running(&self) -> Option<RunningCleanup> {
            self.lock().running().unwrap()
        }

        fn take(&self) -> Taken<'static> {
            PidFile::take(&OsFileSystem, &self.path(), None).unwrap()
        }

        fn names(&self) -> Vec<String> {
            let entries = self.0.path().read_dir().unwrap();
            let mut names: Vec<_> =
                entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
            names.sort_unstable();
            names
        }

        /// Starts a process that has the name of Kea's program, or another one.
        fn start(&self, name: &str) -> (Child, i32) {
            let path = self.0.path().join(name);
            assert!(Command::new("cp").arg("/bin/sleep").arg(&path).status().unwrap().success());
            let child = Command::new(&path).arg("1000").stdin(Stdio::null()).spawn().unwrap();
            std::fs::remove_file(path).unwrap();
            let pid = i32::try_from(child.id()).unwrap();
            (child, pid)
        }
    }

    fn end(mut child: Child) {
        child.kill().unwrap();
        child.wait().unwrap();
    }

    #[rstest]
    #[case::absent(None)]
    #[case::dead(Some("999999\n"))]
    #[case::of_another_program(Some("1\n"))]
    #[case::empty(Some(""))]
    #[case::zero(Some("0\n"))]
    #[case::negative(Some("-1\n"))]
    #[case::junk(Some("junk\n"))]
    #[case::without_a_newline(Some("1"))]
    #[case::beyond_a_number(Some("99999999999999999999\n"))]
    #[case::long(Some("1111111111111111111111111111111111111111111111111111111111111111111111111111\n"))]
    #[case::this_process(Some(concat_pid()))]
    fn a_pid_file_that_names_no_cleanup_is_taken(#[case] content: Option<&str>) {
        let place = Place::new(content);
        assert_eq!(place.running(), None);
        assert_eq!(place.content().as_deref(), content, "a look changes nothing");
        let Taken::Ours(file) = place.take() else {
            panic!("taken for running");
        };
        assert_eq!(place.content().unwrap(), format!("{}\n", std::process::id()));
        assert_eq!(place.names(), ["f.pid", "f.pid.running"]);
        file.remove().unwrap();
        assert_eq!(place.names(), [""; 0]);
    }

    fn concat_pid() -> &'static str {
        Box::leak(format!("{}\n", std::process::id()).into_boxed_str())
    }

    #[cfg(target_os = "linux")]
    #[rstest]
    #[case::keas_program("kea-lfc", true)]
    #[case::keas_program_in_its_source_tree("lt-kea-lfc", true)]
    #[case::a_server("kea-dhcp4", false)]
    #[case::another_program("sleep", false)]
    fn a_live_process_is_a_cleanup_if_it_is_named_so(#[case] name: &str, #[case] is_cleanup: bool) {
        let place = Place::new(None);
        let (child, pid) = place.start(name);
        let content = format!("{pid}\n");
        std::fs::write(place.path(), &content).unwrap();
        match place.take() {
            Taken::Running(running) => {
                assert!(is_cleanup);
                assert_eq!(
                    running,
                    RunningCleanup { pid: Some(pid), pid_file: place.path(), is_locked: false }
                );
                let text = running.to_string();
                assert!(text.contains(&format!("process {pid} of {}", place.path().display())), "{text}");
                assert!(text.contains(&format!("or remove {}", place.path().display())), "{text}");
                assert_eq!(place.content(), Some(content));
            }
            Taken::Ours(_) => assert!(!is_cleanup),
        }
        end(child);
        assert_eq!(place.running(), None);
    }

    #[test]
    fn a_cleanup_is_running_as_long_as_it_lives_whatever_becomes_of_its_pid_file() {
        let place = Place::new(None);
        let Taken::Ours(file) = place.take() else { panic!() };
        let own = i32::try_from(std::process::id()).unwrap();
        for (content, pid) in
            [(None, Some(own)), (Some("1\n"), Some(1)), (Some("999999\n"), Some(999_999)), (Some(""), None)]
        {
            if let Some(content) = content {
                std::fs::write(place.path(), content).unwrap();
            }
            let expected = RunningCleanup { pid, pid_file: place.path(), is_locked: true };
            assert!(matches!(place.take(), Taken::Running(running) if running == expected));
            assert_eq!(place.running(), Some(expected));
        }
        // As an operator may do, and Kea's tools, and a restart of the tools' lock.
        for name in ["f.pid", "f.pid.lock"] {
            let _ = std::fs::remove_file(place.0.path().join(name));
        }
        let running = place.running().unwrap();
        assert_eq!(running.pid(), None);
        assert!(running.to_string().contains("f.pid.running; wait"), "{running}");
        drop(file);
        assert_eq!(place.running(), None);
        assert_eq!(place.names(), [""; 0]);
    }

    #[test]
    fn what_a_killed_cleanup_has_left_stops_nothing() {
        let place = Place::new(Some("1\n"));
        for name in ["f.pid.lock", "f.pid.running"] {
            std::fs::write(place.0.path().join(name), "").unwrap();
        }
        assert_eq!(place.running(), None);
        let Taken::Ours(file) = place.take() else { panic!() };
        file.remove().unwrap();
        assert_eq!(place.names(), [""; 0]);
    }

    #[test]
    fn a_process_that_was_given_the_lock_is_the_cleanup() {
        let place = Place::new(None);
        let lock = place.lock();
        let Claimed::Ours(claim) = lock.claim_for_process().unwrap() else { panic!() };
        let stdin = || claim.descriptor().unwrap().unwrap();
        let child = Command::new("sleep").arg("1000").stdin(stdin()).spawn().unwrap();
        let pid = i32::try_from(child.id()).unwrap();
        lock.write(pid).unwrap();
        let inherited = File::from(stdin());
        drop(lock);
        assert_eq!(place.running().unwrap().pid(), Some(pid));
        // The process that it was given, or one that comes from it, does the cleanup itself.
        let other = File::open(place.path()).unwrap();
        let take = |file| PidFile::take(&OsFileSystem, &place.path(), Some(file)).unwrap();
        assert!(matches!(take(&other), Taken::Running(_)));
        let another = File::options().read(true).write(true).open(running_path(&place.path())).unwrap();
        assert!(matches!(take(&another), Taken::Running(_)), "the same file, without its lock");
        let Taken::Ours(file) = take(&inherited) else { panic!() };
        assert!(place.running().is_some());
        file.remove().unwrap();
        assert_eq!(place.content(), None);
        assert!(place.running().is_some(), "the lock is not its own to give up");
        // The manager is killed: the process goes on.
        claim.given().unwrap().leave();
        drop(inherited);
        assert!(place.running().is_some());
        end(child);
        assert_eq!(place.running(), None);
    }

    #[test]
    fn a_pid_file_is_removed_only_for_the_process_that_it_names() {
        let place = Place::new(None);
        let lock = place.lock();
        lock.remove_if_of(1).unwrap();
        lock.write(12).unwrap();
        lock.write(1).unwrap();
        lock.remove_if_of(12).unwrap();
        assert_eq!(place.content().unwrap(), "1\n");
        lock.remove_if_of(1).unwrap();
        assert_eq!(place.content(), None);
    }

    #[test]
    fn a_process_that_keeps_the_lock_of_the_pid_file_is_waited_for_for_some_time_only() {
        let place = Place::new(None);
        let lock = place.lock();
        let error = PidLock::take(&OsFileSystem, &place.path()).map(drop).unwrap_err();
        let error = with_sources(&error).to_string();
        assert!(error.contains("f.pid.lock: another process has held it for 1s; end that"), "{error}");
        drop(lock);
        assert!(PidLock::take(&OsFileSystem, &place.path()).is_ok());
    }

    /// A directory in the place of a file lets no operation with that succeed.
    #[rstest]
    #[case::its_lock("f.pid.lock", "cannot lock")]
    #[case::the_lock_of_the_cleanup("f.pid.running", "cannot lock")]
    #[case::itself("f.pid", "cannot read the PID file")]
    fn an_error_names_the_file_that_it_is_about(#[case] name: &str, #[case] action: &str) {
        let place = Place::new(None);
        std::fs::create_dir(place.0.path().join(name)).unwrap();
        let error = PidFile::take(&OsFileSystem, &place.path(), None).map(drop).unwrap_err();
        let expected = format!("{action} {}: not a regular file", place.0.path().join(name).display());
        assert_eq!(with_sources(&error).to_string(), expected);
    }
}
