//! The PID file, by which the server and the cleanup know of each other, and the lock by which this
//! project's cleanups do.
//!
//! A cleanup that this project runs or starts holds the lock of `F.pid.running` while it runs, even
//! if the PID file is changed, in any container, and until its process ends in any way. Kea's
//! servers and programs do not know that file, and only use the PID file. So a cleanup is running
//! if that lock is held, or if the PID file names another process that has the name of Kea's
//! program.
//!
//! `F.pid.running` is only locked or checked under the lock of `F.pid.lock`: otherwise two
//! processes that check at the same time would each take the other for a cleanup.

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

/// Returns the name of a PID file's lock, which is held while the PID file is read or changed.
pub(crate) fn lock_path(path: &Path) -> PathBuf {
    with_suffix(path, ".lock")
}

/// Returns the name of the file whose lock is held while a cleanup runs.
fn running_path(path: &Path) -> PathBuf {
    with_suffix(path, ".running")
}

fn with_suffix(path: &Path, suffix: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(suffix);
    name.into()
}

/// A running cleanup, of this process or another.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RunningCleanup {
    pid: Option<i32>,
    pid_file: PathBuf,
    is_locked: bool,
}

impl RunningCleanup {
    /// Returns the number of the process that runs it, as in the PID file; in another container, it
    /// is that container's number.
    ///
    /// `None` if the PID file names no process, for example because it was removed meanwhile.
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

/// The exclusive right to clean up some files, held until this is dropped.
pub(crate) struct Claim {
    /// A lock that can be passed to a process; `None` if only this process can hold it, or if the
    /// process that started this one holds it.
    for_process: Option<ProcessLock>,
    _own: Option<Box<dyn Send + Sync>>,
}

impl Claim {
    /// Returns the standard input for a process that is started for the cleanup; `None` if the
    /// process must take the lock itself.
    pub(crate) fn descriptor(&self) -> io::Result<Option<OwnedFd>> {
        self.for_process.as_ref().map(ProcessLock::descriptor).transpose()
    }

    /// Returns the lock that was passed to a process. If it was not, the process can take it.
    pub(crate) fn into_lock(self) -> Option<ProcessLock> {
        self.for_process
    }
}

/// The result of claiming a cleanup.
pub(crate) enum Claimed {
    Ours(Claim),
    Running(RunningCleanup),
}

/// A PID file that names this process, which runs the cleanup. It is removed by
/// [`PidFile::remove`], and on drop.
pub(crate) struct PidFile<'a> {
    fs: &'a dyn FileSystem,
    path: PathBuf,
    removed: bool,
    /// Dropped last: while the PID file exists, it names a running cleanup.
    _claim: Claim,
}

/// The result of taking a PID file.
pub(super) enum Taken<'a> {
    /// This process has the PID file.
    Ours(PidFile<'a>),
    /// A cleanup is running.
    Running(RunningCleanup),
}

impl<'a> PidFile<'a> {
    /// Writes the number of this process into the PID file, unless a cleanup is running. An
    /// `inherited` lock counts as held by this process.
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

    /// Removes the PID file.
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
            // A file that is left names a process that runs no cleanup, which has no effect.
            let _ = remove(self.fs, &self.path);
        }
    }
}

/// A PID file whose lock is held: no other process reads or writes it.
pub(crate) struct PidLock<'a> {
    fs: &'a dyn FileSystem,
    path: PathBuf,
    _lock: Box<dyn Send>,
}

impl<'a> PidLock<'a> {
    /// Waits for the lock, with a timeout for the case that its holder is stopped.
    pub(crate) fn take(fs: &'a dyn FileSystem, path: &Path) -> Result<Self, PidFileError> {
        let lock_path = lock_path(path);
        let lock = lock(fs, &lock_path).map_err(error("lock", &lock_path))?;
        Ok(Self { fs, path: path.to_owned(), _lock: lock })
    }

    /// Takes the lock. Returns `None` if another process holds it.
    pub(crate) fn try_take(fs: &'a dyn FileSystem, path: &Path) -> Result<Option<Self>, PidFileError> {
        let lock = lock_path(path);
        let lock = fs.try_lock(&lock).map_err(error("lock", &lock))?;
        Ok(lock.map(|lock| Self { fs, path: path.to_owned(), _lock: lock }))
    }

    /// Returns the running cleanup, if there is one.
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

    /// Claims the cleanup for a process that is about to be started, unless one is running. If the
    /// file system has no locks for other processes, that process must take the lock itself, after
    /// this claim is dropped.
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
            // The PID file names this process, or the one that started it.
            return Ok(Claimed::Ours(Claim { for_process: None, _own: None }));
        }
        self.unless_named(claim)
    }

    /// Returns whether the lock is held by means of this file.
    fn is_lock_of(&self, file: &File, path: &Path) -> bool {
        let is_same = || Ok::<_, io::Error>(self.fs.open(path)?.identity()? == ReadFile::identity(file)?);
        // Succeeds if the lock was taken with this open file before.
        is_same().unwrap_or(false) && file.try_lock().is_ok()
    }

    /// Completes a claim, which is `None` if the lock is held: Kea's program must not be running
    /// either.
    fn unless_named(&self, claim: Option<Claim>) -> Result<Claimed, PidFileError> {
        let pid = self.read()?;
        let running = |is_locked| RunningCleanup { pid, pid_file: self.path.clone(), is_locked };
        Ok(match (claim, pid) {
            (None, _) => Claimed::Running(running(true)),
            (Some(_), Some(pid)) if !is_related(pid) && is_cleanup(pid) => Claimed::Running(running(false)),
            (Some(claim), _) => Claimed::Ours(claim),
        })
    }

    /// Writes the number of this process, which runs the cleanup, into the file.
    pub(crate) fn hold(&self, claim: Claim) -> Result<PidFile<'a>, PidFileError> {
        self.write(own_pid())?;
        Ok(PidFile { fs: self.fs, path: self.path.clone(), removed: false, _claim: claim })
    }

    /// Writes the number of a process into the file.
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

/// Waits for the lock of a PID file, for longer than a process that is not stopped needs it.
fn lock(fs: &dyn FileSystem, path: &Path) -> io::Result<Box<dyn Send>> {
    const TIMEOUT: Duration = Duration::from_millis(if cfg!(test) { 1000 } else { 10_000 });
    const POLL_INTERVAL: Duration = Duration::from_millis(2);
    let start = Instant::now();
    loop {
        if let Some(lock) = fs.try_lock(path)? {
            return Ok(lock);
        }
        if start.elapsed() >= TIMEOUT {
            let text = format!("another process has held it for {TIMEOUT:?}; end that process");
            return Err(io::Error::new(io::ErrorKind::TimedOut, text));
        }
        thread::sleep(POLL_INTERVAL);
    }
}

/// The error of an operation on a PID file or one of its lock files.
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

/// Returns whether a process is this one, or its parent, which may be a script that waits for this
/// one.
fn is_related(pid: i32) -> bool {
    pid == own_pid() || getppid().is_some_and(|parent| parent.as_raw_nonzero().get() == pid)
}

fn remove(fs: &dyn FileSystem, path: &Path) -> io::Result<()> {
    match fs.remove(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        result => result,
    }
}

/// Returns the number of the process that a PID file names, if it names one.
///
/// Any other content is treated as no file: a crash may leave an empty or incomplete file.
fn read(fs: &dyn FileSystem, path: &Path) -> io::Result<Option<i32>> {
    let file = match fs.open(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        file => file?,
    };
    let mut buffer = [0; 64];
    let count = read_full(file.as_ref(), &mut buffer, 0)?;
    let text = std::str::from_utf8(&buffer[..count]).unwrap_or_default();
    // A number without a newline may be truncated.
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

    /// A directory for the PID file `f.pid`.
    struct Fixture(tempfile::TempDir);

    impl Fixture {
        fn new(content: Option<&str>) -> Self {
            let fixture = Self(tempfile::tempdir().unwrap());
            if let Some(content) = content {
                std::fs::write(fixture.path(), content).unwrap();
            }
            fixture
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

        /// Starts a process with the into_lock program name.
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
    #[case::a_dead_process(Some("999999\n"))]
    #[case::a_process_of_another_program(Some("1\n"))]
    #[case::empty(Some(""))]
    #[case::zero(Some("0\n"))]
    #[case::negative(Some("-1\n"))]
    #[case::junk(Some("junk\n"))]
    #[case::without_a_newline(Some("1"))]
    #[case::beyond_a_number(Some("99999999999999999999\n"))]
    #[case::long(Some("1111111111111111111111111111111111111111111111111111111111111111111111111111\n"))]
    #[case::this_process(Some(concat_pid()))]
    fn a_pid_file_that_names_no_cleanup_is_taken(#[case] content: Option<&str>) {
        let fixture = Fixture::new(content);
        assert_eq!(fixture.running(), None);
        assert_eq!(fixture.content().as_deref(), content, "a check changes nothing");
        let Taken::Ours(file) = fixture.take() else {
            panic!("the cleanup counts as running");
        };
        assert_eq!(fixture.content().unwrap(), format!("{}\n", std::process::id()));
        assert_eq!(fixture.names(), ["f.pid", "f.pid.running"]);
        file.remove().unwrap();
        assert_eq!(fixture.names(), [""; 0]);
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
    fn a_live_process_is_a_cleanup_if_it_has_the_programs_name(#[case] name: &str, #[case] is_cleanup: bool) {
        let fixture = Fixture::new(None);
        let (child, pid) = fixture.start(name);
        let content = format!("{pid}\n");
        std::fs::write(fixture.path(), &content).unwrap();
        match fixture.take() {
            Taken::Running(running) => {
                assert!(is_cleanup);
                assert_eq!(
                    running,
                    RunningCleanup { pid: Some(pid), pid_file: fixture.path(), is_locked: false }
                );
                let text = running.to_string();
                assert!(text.contains(&format!("process {pid} of {}", fixture.path().display())), "{text}");
                assert!(text.contains(&format!("or remove {}", fixture.path().display())), "{text}");
                assert_eq!(fixture.content(), Some(content));
            }
            Taken::Ours(_) => assert!(!is_cleanup),
        }
        end(child);
        assert_eq!(fixture.running(), None);
    }

    #[test]
    fn a_cleanup_is_running_until_it_ends_even_if_its_pid_file_changes() {
        let fixture = Fixture::new(None);
        let Taken::Ours(file) = fixture.take() else { panic!() };
        let own = i32::try_from(std::process::id()).unwrap();
        for (content, pid) in
            [(None, Some(own)), (Some("1\n"), Some(1)), (Some("999999\n"), Some(999_999)), (Some(""), None)]
        {
            if let Some(content) = content {
                std::fs::write(fixture.path(), content).unwrap();
            }
            let expected = RunningCleanup { pid, pid_file: fixture.path(), is_locked: true };
            assert!(matches!(fixture.take(), Taken::Running(running) if running == expected));
            assert_eq!(fixture.running(), Some(expected));
        }
        // Operators and Kea's tools may remove these.
        for name in ["f.pid", "f.pid.lock"] {
            let _ = std::fs::remove_file(fixture.0.path().join(name));
        }
        let running = fixture.running().unwrap();
        assert_eq!(running.pid(), None);
        assert!(running.to_string().contains("f.pid.running; wait"), "{running}");
        drop(file);
        assert_eq!(fixture.running(), None);
        assert_eq!(fixture.names(), [""; 0]);
    }

    #[test]
    fn files_left_by_a_killed_cleanup_stop_nothing() {
        let fixture = Fixture::new(Some("1\n"));
        for name in ["f.pid.lock", "f.pid.running"] {
            std::fs::write(fixture.0.path().join(name), "").unwrap();
        }
        assert_eq!(fixture.running(), None);
        let Taken::Ours(file) = fixture.take() else { panic!() };
        file.remove().unwrap();
        assert_eq!(fixture.names(), [""; 0]);
    }

    #[test]
    fn a_process_that_has_the_lock_is_the_cleanup() {
        let fixture = Fixture::new(None);
        let lock = fixture.lock();
        let Claimed::Ours(claim) = lock.claim_for_process().unwrap() else { panic!() };
        let stdin = || claim.descriptor().unwrap().unwrap();
        let child = Command::new("sleep").arg("1000").stdin(stdin()).spawn().unwrap();
        let pid = i32::try_from(child.id()).unwrap();
        lock.write(pid).unwrap();
        let inherited = File::from(stdin());
        drop(lock);
        assert_eq!(fixture.running().unwrap().pid(), Some(pid));
        // The process that has the lock, or a child of it, runs the cleanup itself.
        let other = File::open(fixture.path()).unwrap();
        let take = |file| PidFile::take(&OsFileSystem, &fixture.path(), Some(file)).unwrap();
        assert!(matches!(take(&other), Taken::Running(_)));
        let another = File::options().read(true).write(true).open(running_path(&fixture.path())).unwrap();
        assert!(matches!(take(&another), Taken::Running(_)), "the same file, without its lock");
        let Taken::Ours(file) = take(&inherited) else { panic!() };
        assert!(fixture.running().is_some());
        file.remove().unwrap();
        assert_eq!(fixture.content(), None);
        assert!(fixture.running().is_some(), "the lock is not its own to give up");
        // The manager is killed, and the process continues.
        claim.into_lock().unwrap().leave();
        drop(inherited);
        assert!(fixture.running().is_some());
        end(child);
        assert_eq!(fixture.running(), None);
    }

    #[test]
    fn a_pid_file_is_removed_only_for_the_process_that_it_names() {
        let fixture = Fixture::new(None);
        let lock = fixture.lock();
        lock.remove_if_of(1).unwrap();
        lock.write(12).unwrap();
        lock.write(1).unwrap();
        lock.remove_if_of(12).unwrap();
        assert_eq!(fixture.content().unwrap(), "1\n");
        lock.remove_if_of(1).unwrap();
        assert_eq!(fixture.content(), None);
    }

    #[test]
    fn waiting_for_the_lock_of_a_pid_file_times_out() {
        let fixture = Fixture::new(None);
        let lock = fixture.lock();
        let error = PidLock::take(&OsFileSystem, &fixture.path()).map(drop).unwrap_err();
        let error = with_sources(&error).to_string();
        assert!(error.contains("f.pid.lock: another process has held it for 1s; end that"), "{error}");
        drop(lock);
        assert!(PidLock::take(&OsFileSystem, &fixture.path()).is_ok());
    }

    /// A directory in fixture of a file makes operations on it fail.
    #[rstest]
    #[case::the_lock_of_the_pid_file("f.pid.lock", "cannot lock")]
    #[case::the_lock_of_the_cleanup("f.pid.running", "cannot lock")]
    #[case::the_pid_file("f.pid", "cannot read the PID file")]
    fn an_error_names_its_file(#[case] name: &str, #[case] action: &str) {
        let fixture = Fixture::new(None);
        std::fs::create_dir(fixture.0.path().join(name)).unwrap();
        let error = PidFile::take(&OsFileSystem, &fixture.path(), None).map(drop).unwrap_err();
        let expected = format!("{action} {}: not a regular file", fixture.0.path().join(name).display());
        assert_eq!(with_sources(&error).to_string(), expected);
    }
}
