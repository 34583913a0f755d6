//! Files and locks of the operating system, and concurrent changes by other processes.

use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::time::{Duration, Instant};

use rstest::rstest;
use rustix::fs::{OFlags, fcntl_getfl};

use super::lock::open_lock;
use super::open::{not_a_link, open_as, open_itself, resolve};
use super::*;

fn mode(path: &Path) -> u32 {
    path.metadata().unwrap().permissions().mode() & 0o777
}

#[test]
fn a_lock_has_one_holder_until_the_guard_is_dropped() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("f.lock");
    for _ in 0..3 {
        let guard = OsFileSystem.try_lock(&path).unwrap().expect("the lock is free");
        assert_eq!(mode(&path), 0o600);
        assert!(OsFileSystem.try_lock(&path).unwrap().is_none());
        drop(guard);
        assert!(!path.exists());
    }
}

#[test]
fn a_lock_passed_to_a_process_is_released_when_the_guard_is_dropped() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("f.lock");
    let guard = OsFileSystem.try_lock_for_process(&path).unwrap().expect("the lock is free");
    let mut child =
        std::process::Command::new("sleep").arg("1000").stdin(guard.descriptor().unwrap()).spawn().unwrap();
    assert!(OsFileSystem.try_lock_for_process(&path).unwrap().is_none());
    drop(guard);
    assert!(!path.exists());
    assert!(OsFileSystem.try_lock(&path).unwrap().is_some());
    child.kill().unwrap();
    child.wait().unwrap();
}

#[test]
fn a_lock_left_to_a_process_is_held_until_the_process_ends() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("f.lock");
    let guard = OsFileSystem.try_lock_for_process(&path).unwrap().expect("the lock is free");
    let mut child = std::process::Command::new("cat")
        .stdin(guard.descriptor().unwrap())
        .stdout(std::process::Stdio::null())
        .spawn()
        .unwrap();
    assert!(child.wait().unwrap().success(), "the descriptor can be read and is empty");
    let mut child =
        std::process::Command::new("sleep").arg("1000").stdin(guard.descriptor().unwrap()).spawn().unwrap();
    guard.leave();
    assert!(path.exists() && OsFileSystem.try_lock(&path).unwrap().is_none());
    child.kill().unwrap();
    child.wait().unwrap();
    assert!(OsFileSystem.try_lock(&path).unwrap().is_some());
    assert!(!path.exists());
}

#[test]
fn a_lock_file_of_the_superuser_belongs_to_the_owner_of_its_directory() {
    if !rustix::process::geteuid().is_root() {
        eprintln!("skipped: requires the superuser");
        return;
    }
    let directory = tempfile::tempdir().unwrap();
    std::os::unix::fs::chown(directory.path(), Some(65534), Some(65533)).unwrap();
    let path = directory.path().join("f.lock");
    let check = || {
        let metadata = path.metadata().unwrap();
        assert_eq!((metadata.uid(), metadata.gid(), mode(&path)), (65534, 65533, 0o600));
    };
    let lock = OsFileSystem.lock(&path).unwrap();
    check();
    drop(lock);
    let lock = OsFileSystem.try_lock_for_process(&path).unwrap();
    check();
    drop(lock);
}

#[test]
fn a_lock_file_left_by_a_crash_can_be_locked() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("f.lock");
    std::fs::write(&path, "").unwrap();
    assert!(OsFileSystem.try_lock(&path).unwrap().is_some());
    assert!(!path.exists());
}

#[rstest]
#[case::to_a_file(Some("target"))]
#[case::to_nothing(None)]
fn a_lock_follows_no_symbolic_link(#[case] content: Option<&str>) {
    let directory = tempfile::tempdir().unwrap();
    let (path, target) = (directory.path().join("f.lock"), directory.path().join("target"));
    if let Some(content) = content {
        std::fs::write(&target, content).unwrap();
    }
    std::os::unix::fs::symlink(&target, &path).unwrap();
    assert_eq!(OsFileSystem.lock(&path).map(drop).unwrap_err().kind(), io::ErrorKind::InvalidInput);
    assert_eq!(OsFileSystem.try_lock(&path).map(drop).unwrap_err().kind(), io::ErrorKind::InvalidInput);
    assert_eq!(std::fs::read_to_string(&target).ok().as_deref(), content);
}

#[rstest]
#[case::removed(remove)]
#[case::replaced(replace_by_another_file)]
#[case::replaced_by_a_link_to_it(replace_by_a_link)]
fn the_lock_of_a_file_that_has_lost_its_name_is_void(#[case] replace: fn(&Path)) {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("f.lock");
    let file = open_lock(&path).unwrap();
    replace(&path);
    file.lock().unwrap();
    assert!(LockGuard::new(file, &path).unwrap().is_none());
}

/// Waits until a thread waits for the lock of a file, according to the kernel's list of locks.
fn wait_for_waiter(path: &Path) {
    let inode = format!(":{} ", std::fs::metadata(path).unwrap().ino());
    let has_waiter = || {
        let locks = std::fs::read_to_string("/proc/locks").unwrap();
        locks.lines().any(|lock| lock.contains("-> FLOCK") && lock.contains(&inode))
    };
    let start = Instant::now();
    while !has_waiter() {
        assert!(start.elapsed() < Duration::from_secs(600), "no thread waits for the lock");
        std::thread::sleep(Duration::from_millis(1));
    }
}

/// A process that waits for the lock of a file that is then replaced gets the lock of the new file.
#[test]
fn the_lock_is_on_the_file_that_has_the_name() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("f.lock");
    let old = open_lock(&path).unwrap();
    old.lock().unwrap();
    let (locked, lock) = std::sync::mpsc::channel();
    std::thread::scope(|scope| {
        scope.spawn(|| locked.send(OsFileSystem.lock(&path).unwrap()).unwrap());
        wait_for_waiter(&path);
        replace_by_another_file(&path);
        old.unlock().unwrap();
        let guard = lock.recv().unwrap();
        assert!(OsFileSystem.try_lock(&path).unwrap().is_none());
        drop(guard);
        assert!(!path.exists());
    });
}

#[test]
fn a_lock_never_has_two_holders_while_its_file_is_created_and_removed() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("f.lock");
    let holders = std::sync::atomic::AtomicU32::new(0);
    std::thread::scope(|scope| {
        for n in 0..4 {
            let (path, holders) = (&path, &holders);
            scope.spawn(move || {
                for _ in 0..500 {
                    let guard: Box<dyn Send> = if n % 2 == 0 {
                        OsFileSystem.lock(path).unwrap()
                    } else {
                        match OsFileSystem.try_lock(path).unwrap() {
                            Some(guard) => guard,
                            None => continue,
                        }
                    };
                    assert_eq!(holders.fetch_add(1, std::sync::atomic::Ordering::SeqCst), 0);
                    assert_eq!(holders.fetch_sub(1, std::sync::atomic::Ordering::SeqCst), 1);
                    drop(guard);
                }
            });
        }
    });
}

#[test]
fn append_writes_at_the_end_after_other_writes_and_truncation() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("f");
    OsFileSystem.create(&path).unwrap().append(b"0123456789").unwrap();
    let file = OsFileSystem.open_write(&path).unwrap();
    file.append(b"ab").unwrap();
    assert_eq!(file.write_at(b"xy", 1).unwrap(), 2);
    file.set_len(5).unwrap();
    file.append(b"!").unwrap();
    assert_eq!(std::fs::read_to_string(&path).unwrap(), "0xy34!");
    assert_eq!(mode(&path) & !0o640, 0);
}

#[test]
fn append_keeps_what_other_processes_have_written() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("f");
    std::fs::write(&path, "1").unwrap();
    let file = OsFileSystem.open_append(&path).unwrap();
    file.append(b"2").unwrap();
    std::fs::write(&path, "other").unwrap();
    file.append(b"3").unwrap();
    std::fs::write(&path, "").unwrap();
    file.append(b"4").unwrap();
    assert_eq!(std::fs::read_to_string(&path).unwrap(), "4");
    assert_eq!(file.write_at(b"5", 0).unwrap_err().kind(), io::ErrorKind::Unsupported);
}

#[test]
fn a_file_may_have_two_names() {
    let directory = tempfile::tempdir().unwrap();
    let [one, two] = ["f", "g"].map(|name| directory.path().join(name));
    std::fs::write(&one, "1").unwrap();
    OsFileSystem.link(&one, &two).unwrap();
    assert_eq!(OsFileSystem.link(&one, &two).unwrap_err().kind(), io::ErrorKind::AlreadyExists);
    let identity = |path: &Path| OsFileSystem.open(path).unwrap().identity().unwrap();
    assert_eq!(identity(&one), identity(&two));
    assert!(!OsFileSystem.is_same_name(&one, &two).unwrap());
}

#[test]
fn a_name_is_resolved_whether_or_not_the_file_exists() {
    let directory = tempfile::tempdir().unwrap();
    let [f, g, h] = ["f", "g", "h"].map(|name| directory.path().join(name));
    assert_eq!(OsFileSystem.resolve(&f).unwrap(), f);
    std::os::unix::fs::symlink("g", &f).unwrap();
    std::os::unix::fs::symlink(&h, &g).unwrap();
    assert_eq!(OsFileSystem.resolve(&f).unwrap(), h);
    std::fs::write(&h, "").unwrap();
    assert_eq!(OsFileSystem.resolve(&f).unwrap(), h);
    if rustix::process::geteuid().is_root() {
        std::os::unix::fs::lchown(&g, Some(65534), None).unwrap();
        assert_eq!(OsFileSystem.resolve(&f).unwrap_err().kind(), io::ErrorKind::PermissionDenied);
    }
}

#[test]
fn a_name_is_the_same_by_any_path_of_its_directory() {
    let directory = tempfile::tempdir().unwrap();
    let inner = directory.path().join("inner");
    std::fs::create_dir(&inner).unwrap();
    std::os::unix::fs::symlink("inner", directory.path().join("link")).unwrap();
    let same =
        |other: &str| OsFileSystem.is_same_name(&inner.join("f"), &directory.path().join(other)).unwrap();
    assert!(same("inner/f") && same("link/f") && same("inner/../link/./f"));
    assert!(!same("inner/g") && !same("f"));
}

#[test]
fn create_does_not_follow_a_symbolic_link() {
    let directory = tempfile::tempdir().unwrap();
    let (path, target) = (directory.path().join("f"), directory.path().join("target"));
    std::os::unix::fs::symlink(&target, &path).unwrap();
    let error = |result: io::Result<Box<dyn WriteFile>>| result.map(drop).unwrap_err().kind();
    assert_eq!(error(OsFileSystem.open_write(&path)), io::ErrorKind::NotFound);
    assert_eq!(error(OsFileSystem.create(&path)), io::ErrorKind::AlreadyExists);
    assert!(!target.exists());
}

fn replace_by_a_fifo(path: &Path) {
    remove(path);
    assert!(std::process::Command::new("mkfifo").arg(path).status().unwrap().success());
}

fn remove(path: &Path) {
    std::fs::remove_file(path).unwrap();
}

fn replace_by_another_file(path: &Path) {
    std::fs::rename(path, path.with_extension("old")).unwrap();
    std::fs::write(path, "").unwrap();
}

fn replace_by_a_link(path: &Path) {
    let target = path.with_extension("target");
    std::fs::rename(path, &target).unwrap();
    std::os::unix::fs::symlink(&target, path).unwrap();
}

fn replace_by_a_link_of_another_user(path: &Path) {
    replace_by_a_link(path);
    std::os::unix::fs::lchown(path, Some(65534), None).unwrap();
}

/// Opens a file that is replaced once after its name was resolved.
fn open_replaced(
    options: &OpenOptions,
    resolve: fn(&Path) -> io::Result<PathBuf>,
    replace: fn(&Path),
) -> io::Result<File> {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("f");
    std::fs::write(&path, "").unwrap();
    let is_replaced = std::cell::Cell::new(false);
    let resolve_and_replace = |path: &Path| {
        let found = resolve(path)?;
        if !is_replaced.replace(true) {
            replace(path);
        }
        Ok(found)
    };
    open_as(&path, options, resolve_and_replace)
}

#[rstest]
fn a_replacement_during_opening_is_refused_unless_a_link_that_may_be_followed(
    #[values(false, true)] writes: bool,
) {
    let mut options = OpenOptions::new();
    options.read(!writes).write(writes);
    let error = |resolve, replace| open_replaced(&options, resolve, replace).unwrap_err().to_string();
    for resolve in [resolve, not_a_link] {
        assert_eq!(error(resolve, replace_by_a_fifo), "not a regular file");
    }
    assert_eq!(error(not_a_link, replace_by_a_link), "not a regular file");
    // A link that may be followed might have been there from the start.
    assert!(open_replaced(&options, resolve, replace_by_a_link).is_ok());
    if rustix::process::geteuid().is_root() {
        let expected = "a symbolic link of user 65534, which is not followed";
        assert_eq!(error(resolve, replace_by_a_link_of_another_user), expected);
    }
}

#[rstest]
fn open_itself_opens_regular_files_only(#[values(false, true)] writes: bool) {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("f");
    let mut options = OpenOptions::new();
    options.read(!writes).write(writes);
    std::fs::write(&path, "").unwrap();
    let file = open_itself(&path, &options).unwrap();
    assert!(!fcntl_getfl(&file).unwrap().contains(OFlags::NONBLOCK));
    for replace in [replace_by_a_link, replace_by_a_fifo] {
        replace(&path);
        // The error differs between systems.
        open_itself(&path, &options).unwrap_err();
    }
    open_itself(directory.path(), &options).unwrap_err();
}

#[test]
fn a_cycle_of_links_is_an_error() {
    let directory = tempfile::tempdir().unwrap();
    let (one, other) = (directory.path().join("f"), directory.path().join("g"));
    std::os::unix::fs::symlink(&one, &other).unwrap();
    std::os::unix::fs::symlink(&other, &one).unwrap();
    let error = OsFileSystem.open(&one).map(drop).unwrap_err();
    assert_eq!(error.to_string(), "too many symbolic links");
}
