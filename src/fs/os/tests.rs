//! Files and locks of the operating system, and what other processes do to them meanwhile.

use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::time::Duration;

use rstest::rstest;
use rustix::fs::{OFlags, fcntl_getfl};

use super::lock::open_lock;
use super::open::{not_a_link, open_as, open_itself, resolve};
use super::*;

fn mode(path: &Path) -> u32 {
    path.metadata().unwrap().permissions().mode() & 0o777
}

#[test]
fn a_lock_is_held_by_one_until_it_is_dropped() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("f.lock");
    for _ in 0..3 {
        let guard = OsFileSystem.try_lock(&path).unwrap().expect("nobody holds it");
        assert_eq!(mode(&path), 0o600);
        assert!(OsFileSystem.try_lock(&path).unwrap().is_none());
        drop(guard);
        assert!(!path.exists());
    }
}

#[test]
fn a_lock_that_a_process_was_given_is_held_until_the_guard_is_dropped() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("f.lock");
    let guard = OsFileSystem.try_lock_for_process(&path).unwrap().expect("nobody holds it");
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
fn a_lock_that_is_left_to_a_process_is_held_until_that_ends() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("f.lock");
    let guard = OsFileSystem.try_lock_for_process(&path).unwrap().expect("nobody holds it");
    let mut child = std::process::Command::new("cat")
        .stdin(guard.descriptor().unwrap())
        .stdout(std::process::Stdio::null())
        .spawn()
        .unwrap();
    assert!(child.wait().unwrap().success(), "it has found nothing to read");
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
fn a_lock_file_of_the_superuser_belongs_to_the_owner_of_its_folder() {
    if !rustix::process::geteuid().is_root() {
        eprintln!("skipped: it takes the superuser");
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    std::os::unix::fs::chown(folder.path(), Some(65534), Some(65533)).unwrap();
    let path = folder.path().join("f.lock");
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
fn a_lock_file_that_a_crash_left_is_taken() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("f.lock");
    std::fs::write(&path, "").unwrap();
    assert!(OsFileSystem.try_lock(&path).unwrap().is_some());
    assert!(!path.exists());
}

#[rstest]
#[case::of_a_file(Some("target"))]
#[case::of_nothing(None)]
fn a_lock_follows_no_symbolic_link(#[case] content: Option<&str>) {
    let folder = tempfile::tempdir().unwrap();
    let (path, target) = (folder.path().join("f.lock"), folder.path().join("target"));
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
fn the_lock_of_a_file_that_has_lost_its_name_is_none(#[case] replace: fn(&Path)) {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("f.lock");
    let file = open_lock(&path).unwrap();
    replace(&path);
    file.lock().unwrap();
    assert!(LockGuard::new(file, &path).unwrap().is_none());
}

/// Who waits for a lock file that is then replaced holds the lock of the new one.
#[test]
fn a_lock_is_that_of_the_file_that_has_the_name() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("f.lock");
    let old = open_lock(&path).unwrap();
    old.lock().unwrap();
    let (locked, lock) = std::sync::mpsc::channel();
    std::thread::scope(|scope| {
        scope.spawn(|| locked.send(OsFileSystem.lock(&path).unwrap()).unwrap());
        // Who comes later than that finds the new file at once, and nothing is tested.
        std::thread::sleep(Duration::from_millis(200));
        replace_by_another_file(&path);
        old.unlock().unwrap();
        let guard = lock.recv().unwrap();
        assert!(OsFileSystem.try_lock(&path).unwrap().is_none());
        drop(guard);
        assert!(!path.exists());
    });
}

#[test]
fn a_lock_is_never_held_by_two_while_its_file_comes_and_goes() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("f.lock");
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
fn what_is_appended_comes_last_whatever_was_written_or_cut_off_before() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("f");
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
fn appending_leaves_what_others_have_written() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("f");
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
    let folder = tempfile::tempdir().unwrap();
    let [one, two] = ["f", "g"].map(|name| folder.path().join(name));
    std::fs::write(&one, "1").unwrap();
    OsFileSystem.link(&one, &two).unwrap();
    assert_eq!(OsFileSystem.link(&one, &two).unwrap_err().kind(), io::ErrorKind::AlreadyExists);
    let identity = |path: &Path| OsFileSystem.open(path).unwrap().identity().unwrap();
    assert_eq!(identity(&one), identity(&two));
    assert!(!OsFileSystem.is_same_name(&one, &two).unwrap());
}

#[test]
fn a_name_is_resolved_whether_or_not_there_is_a_file() {
    let folder = tempfile::tempdir().unwrap();
    let [f, g, h] = ["f", "g", "h"].map(|name| folder.path().join(name));
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
fn a_name_is_the_same_however_its_directory_is_called() {
    let folder = tempfile::tempdir().unwrap();
    let inner = folder.path().join("inner");
    std::fs::create_dir(&inner).unwrap();
    std::os::unix::fs::symlink("inner", folder.path().join("link")).unwrap();
    let same = |other: &str| OsFileSystem.is_same_name(&inner.join("f"), &folder.path().join(other)).unwrap();
    assert!(same("inner/f") && same("link/f") && same("inner/../link/./f"));
    assert!(!same("inner/g") && !same("f"));
}

#[test]
fn a_file_that_is_to_be_created_is_not_looked_for_behind_a_symbolic_link() {
    let folder = tempfile::tempdir().unwrap();
    let (path, target) = (folder.path().join("f"), folder.path().join("target"));
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

fn replace_by_a_link_of_somebody(path: &Path) {
    replace_by_a_link(path);
    std::os::unix::fs::lchown(path, Some(65534), None).unwrap();
}

/// Opens a file that is replaced once somebody has looked at it.
fn open_replaced(
    options: &OpenOptions,
    resolve: fn(&Path) -> io::Result<PathBuf>,
    replace: fn(&Path),
) -> io::Result<File> {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("f");
    std::fs::write(&path, "").unwrap();
    let is_replaced = std::cell::Cell::new(false);
    let look_and_replace = |path: &Path| {
        let found = resolve(path)?;
        if !is_replaced.replace(true) {
            replace(path);
        }
        Ok(found)
    };
    open_as(&path, options, look_and_replace)
}

#[rstest]
fn what_comes_in_the_place_of_a_file_is_no_way_to_another(#[values(false, true)] writes: bool) {
    let mut options = OpenOptions::new();
    options.read(!writes).write(writes);
    let error = |resolve, replace| open_replaced(&options, resolve, replace).unwrap_err().to_string();
    for resolve in [resolve, not_a_link] {
        assert_eq!(error(resolve, replace_by_a_fifo), "not a regular file");
    }
    assert_eq!(error(not_a_link, replace_by_a_link), "not a regular file");
    // One that may be followed might have been there from the start.
    assert!(open_replaced(&options, resolve, replace_by_a_link).is_ok());
    if rustix::process::geteuid().is_root() {
        let expected = "a symbolic link of user 65534, which is not followed";
        assert_eq!(error(resolve, replace_by_a_link_of_somebody), expected);
    }
}

#[rstest]
fn nothing_but_a_file_is_opened_even_if_nobody_looks_at_it_before(#[values(false, true)] writes: bool) {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("f");
    let mut options = OpenOptions::new();
    options.read(!writes).write(writes);
    std::fs::write(&path, "").unwrap();
    let file = open_itself(&path, &options).unwrap();
    assert!(!fcntl_getfl(&file).unwrap().contains(OFlags::NONBLOCK));
    for replace in [replace_by_a_link, replace_by_a_fifo] {
        replace(&path);
        // Another system calls it something else.
        open_itself(&path, &options).unwrap_err();
    }
    open_itself(folder.path(), &options).unwrap_err();
}

#[test]
fn links_that_lead_to_each_other_are_an_error() {
    let folder = tempfile::tempdir().unwrap();
    let (one, other) = (folder.path().join("f"), folder.path().join("g"));
    std::os::unix::fs::symlink(&one, &other).unwrap();
    std::os::unix::fs::symlink(&other, &one).unwrap();
    let error = OsFileSystem.open(&one).map(drop).unwrap_err();
    assert_eq!(error.to_string(), "too many symbolic links");
}
