//! Detection of processes that run Kea's cleanup program.
//!
//! This project's cleanups hold a lock while they run ([`super::pid_file`]); Kea's only write the
//! number of their process into the PID file. After a crash or a restart of the machine or the
//! container, that number may belong to another process, so the process must also have the name of
//! the program.

use std::ffi::OsStr;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use rustix::process::{Pid, getpid, test_kill_process};
use tracing::debug;

/// The names of Kea's program: as installed, as built in its source tree by libtool, and as wrapped
/// by NixOS.
const NAMES: [&[u8]; 3] = [b"kea-lfc", b"lt-kea-lfc", b".kea-lfc-wrapped"];

/// Maximum length of the name that the kernel keeps of a process.
const KERNEL_NAME_LEN: usize = 15;

/// The kind of a process.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Found {
    /// No such process, a process that has ended and is not reaped, or the number of a thread.
    None,
    /// A process whose details this process may not see.
    Hidden,
    Other,
    Cleanup,
}

/// Returns whether the process of this number is alive and runs a cleanup, by its name.
///
/// Without a `/proc` as in Linux, every live process counts that this process may send signals to.
pub(super) fn is_cleanup(pid: i32) -> bool {
    is_cleanup_in(Path::new("/proc"), pid)
}

fn is_cleanup_in(proc: &Path, pid: i32) -> bool {
    if !is_of_this_system(proc) {
        return Pid::from_raw(pid).is_some_and(|pid| test_kill_process(pid).is_ok());
    }
    let found = look_up(proc, pid);
    if found == Found::Hidden {
        debug!(
            id = "LFC_HIDDEN_PROCESS",
            "what process {pid} is is not fake_proc, it does not count as a cleanup"
        );
    }
    found == Found::Cleanup
}

/// Returns whether a directory shows the processes by the numbers that this process knows.
fn is_of_this_system(proc: &Path) -> bool {
    let own = getpid().as_raw_nonzero().to_string();
    std::fs::read_link(proc.join("self")).is_ok_and(|this| this.as_os_str() == own.as_str())
}

fn look_up(proc: &Path, pid: i32) -> Found {
    let directory = proc.join(pid.to_string());
    let status = match std::fs::read(directory.join("status")) {
        Ok(status) => status,
        Err(error) if error.kind() == io::ErrorKind::PermissionDenied => return Found::Hidden,
        Err(_) => return Found::None,
    };
    let field = |name: &str| {
        let mut lines = status.split(|&byte| byte == b'\n');
        lines.find_map(|line| line.strip_prefix(name.as_bytes())).unwrap_or_default().trim_ascii()
    };
    // The numbers of threads have directories as well.
    if field("Tgid:") != pid.to_string().as_bytes() {
        return Found::None;
    }
    // A process whose first thread has ended looks the same as a zombie, except for the other
    // threads.
    let has_ended = matches!(field("State:").first(), Some(b'Z' | b'X' | b'x'));
    if has_ended && !std::fs::read_dir(directory.join("task")).is_ok_and(|tasks| tasks.count() > 1) {
        return Found::None;
    }
    let executable = std::fs::read_link(directory.join("exe"));
    let is_named = match &executable {
        Ok(path) => is_name_of(path),
        // The executable of another user's process is hidden, its arguments are not.
        Err(_) => std::fs::read(directory.join("cmdline")).is_ok_and(|arguments| {
            let first = arguments.split(|&byte| byte == 0).next().unwrap_or_default();
            is_name_of(Path::new(OsStr::from_bytes(first)))
        }),
    };
    // For a script, and a program started by a symbolic link, only the kernel keeps the name.
    let is_named = is_named || {
        let kept = field("Name:");
        NAMES.iter().any(|name| kept == &name[..name.len().min(KERNEL_NAME_LEN)])
    };
    if is_named { Found::Cleanup } else { Found::Other }
}

/// Returns whether an executable is Kea's program, including one that an upgrade has removed.
fn is_name_of(path: &Path) -> bool {
    let path = path.as_os_str().as_bytes();
    let path = path.strip_suffix(b" (deleted)").unwrap_or(path);
    let name = path.rsplit(|&byte| byte == b'/').next().unwrap_or_default();
    NAMES.contains(&name)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::{PermissionsExt, symlink};
    use std::os::unix::process::CommandExt;
    use std::path::PathBuf;
    use std::process::{Child, Command, Stdio};
    use std::time::{Duration, Instant};

    use rstest::rstest;
    use rustix::process::{WaitId, WaitIdOptions, waitid};

    use super::*;

    /// A directory like `/proc` with a process of number [`PID`].
    struct FakeProc {
        directory: tempfile::TempDir,
    }

    const PID: i32 = 4711;

    impl FakeProc {
        fn new(name: &str, state: &str, tgid: i32, threads: usize) -> Self {
            let fake_proc = Self { directory: tempfile::tempdir().unwrap() };
            symlink(std::process::id().to_string(), fake_proc.directory.path().join("self")).unwrap();
            for thread in 0..threads {
                std::fs::create_dir_all(fake_proc.path("task").join(thread.to_string())).unwrap();
            }
            let status =
                format!("Name:\t{name}\nUmask:\t0022\nState:\t{state}\nTgid:\t{tgid}\nPid:\t{PID}\n");
            std::fs::write(fake_proc.path("status"), status).unwrap();
            fake_proc
        }

        fn path(&self, name: &str) -> PathBuf {
            self.directory.path().join(PID.to_string()).join(name)
        }

        fn with_executable(self, target: &str) -> Self {
            symlink(target, self.path("exe")).unwrap();
            self
        }

        fn with_arguments(self, arguments: &str) -> Self {
            std::fs::write(self.path("cmdline"), arguments).unwrap();
            self
        }

        fn found(&self) -> Found {
            look_up(self.directory.path(), PID)
        }
    }

    fn fake_proc(name: &str) -> FakeProc {
        FakeProc::new(name, "S (sleeping)", PID, 1)
    }

    #[rstest]
    #[case::installed("kea-lfc", Some("/usr/sbin/kea-lfc"), "", Found::Cleanup)]
    #[case::elsewhere("kea-lfc", Some("/opt/kea/sbin/kea-lfc"), "", Found::Cleanup)]
    #[case::replaced_by_an_upgrade("x", Some("/usr/sbin/kea-lfc (deleted)"), "", Found::Cleanup)]
    #[case::of_libtool("lt-kea-lfc", Some("/src/kea/bin/lfc/.libs/lt-kea-lfc"), "", Found::Cleanup)]
    #[case::of_nixos(".kea-lfc-wrappe", Some("/nix/store/x/bin/.kea-lfc-wrapped"), "", Found::Cleanup)]
    #[case::by_a_link_of_another_name("clean", Some("/usr/sbin/kea-lfc"), "/bin/clean", Found::Cleanup)]
    #[case::a_link_to_another_name("kea-lfc", Some("/opt/lfc-2.2"), "/usr/sbin/kea-lfc", Found::Cleanup)]
    #[case::a_script("kea-lfc", Some("/usr/bin/dash"), "/bin/sh\0/usr/sbin/kea-lfc\0", Found::Cleanup)]
    #[case::of_another_user("kea-lfc", None, "", Found::Cleanup)]
    #[case::of_another_user_by_its_arguments("x", None, "/usr/sbin/kea-lfc\0-4\0", Found::Cleanup)]
    #[case::another_program("nginx", Some("/usr/sbin/nginx"), "nginx: master\0", Found::Other)]
    #[case::the_server("kea-dhcp4", Some("/usr/sbin/kea-dhcp4"), "/usr/sbin/kea-dhcp4\0", Found::Other)]
    #[case::another_program_with_the_name_as_its_argument_0(
        "sleep",
        Some("/usr/bin/sleep"),
        "kea-lfc\x001000\0",
        Found::Other
    )]
    #[case::an_editor_of_the_program("vi", Some("/usr/bin/vi"), "vi\0/usr/sbin/kea-lfc\0", Found::Other)]
    #[case::another_program_of_another_user("cron", None, "/usr/sbin/cron\0", Found::Other)]
    #[case::a_thread_of_the_kernel("kworker/0:1", None, "", Found::Other)]
    #[case::a_program_with_a_longer_name("kea-lfc-watch", Some("/usr/bin/kea-lfc-watch"), "", Found::Other)]
    #[case::in_a_directory_of_that_name("run", Some("/opt/kea-lfc/run"), "", Found::Other)]
    fn a_process_is_recognized_by_the_name_of_its_program(
        #[case] name: &str,
        #[case] executable: Option<&str>,
        #[case] arguments: &str,
        #[case] found: Found,
    ) {
        let mut fake_proc = fake_proc(name).with_arguments(arguments);
        if let Some(executable) = executable {
            fake_proc = fake_proc.with_executable(executable);
        }
        assert_eq!(fake_proc.found(), found);
        assert_eq!(is_cleanup_in(fake_proc.directory.path(), PID), found == Found::Cleanup);
    }

    #[rstest]
    #[case::alive("D (disk sleep)", PID, 1, Found::Cleanup)]
    #[case::stopped("T (stopped)", PID, 1, Found::Cleanup)]
    #[case::not_reaped("Z (zombie)", PID, 1, Found::None)]
    #[case::dead("X (dead)", PID, 1, Found::None)]
    #[case::without_its_first_thread("Z (zombie)", PID, 3, Found::Cleanup)]
    #[case::a_thread_of_another_process("S (sleeping)", PID - 1, 1, Found::None)]
    fn an_ended_process_and_a_thread_are_not_found(
        #[case] state: &str,
        #[case] tgid: i32,
        #[case] threads: usize,
        #[case] found: Found,
    ) {
        assert_eq!(FakeProc::new("kea-lfc", state, tgid, threads).found(), found);
    }

    #[test]
    fn a_missing_or_hidden_process_is_not_a_cleanup() {
        let fake_proc = fake_proc("kea-lfc");
        std::fs::remove_dir_all(fake_proc.directory.path().join(PID.to_string())).unwrap();
        assert_eq!(fake_proc.found(), Found::None);
        assert!(!is_cleanup_in(fake_proc.directory.path(), PID));
        if !rustix::process::geteuid().is_root() {
            let fake_proc = self::fake_proc("kea-lfc");
            std::fs::set_permissions(fake_proc.path("status"), PermissionsExt::from_mode(0o000)).unwrap();
            assert_eq!(fake_proc.found(), Found::Hidden);
            assert!(!is_cleanup_in(fake_proc.directory.path(), PID));
        }
    }

    #[test]
    fn without_a_usable_proc_every_live_process_counts() {
        let directory = tempfile::tempdir().unwrap();
        let own = i32::try_from(std::process::id()).unwrap();
        assert!(is_cleanup_in(directory.path(), own));
        // Processes of another PID namespace have other numbers.
        symlink("99999999", directory.path().join("self")).unwrap();
        assert!(is_cleanup_in(directory.path(), own));
        assert!(!is_cleanup_in(directory.path(), 999_999_999));
    }

    /// Starts a program under another name.
    fn start(directory: &Path, name: &str) -> Child {
        let path = directory.join(name);
        let status = Command::new("cp").arg("/bin/cat").arg(&path).status().unwrap();
        assert!(status.success());
        Command::new(path).stdin(Stdio::piped()).stdout(Stdio::null()).spawn().unwrap()
    }

    fn wait_until(mut holds: impl FnMut() -> bool) {
        let start = Instant::now();
        while !holds() {
            assert!(start.elapsed() < Duration::from_secs(60));
            std::thread::sleep(Duration::from_millis(1));
        }
    }

    #[cfg(target_os = "linux")]
    #[rstest]
    #[case::the_program("kea-lfc", true)]
    #[case::another_program("kea-dhcp4", false)]
    fn a_real_process_is_a_cleanup_until_it_ends(#[case] name: &str, #[case] expected: bool) {
        let directory = tempfile::tempdir().unwrap();
        let mut child = start(directory.path(), name);
        let pid = i32::try_from(child.id()).unwrap();
        assert_eq!(is_cleanup(pid), expected);
        std::fs::remove_file(directory.path().join(name)).unwrap();
        assert_eq!(is_cleanup(pid), expected, "the executable was removed");
        drop(child.stdin.take());
        let ended = WaitIdOptions::EXITED.union(WaitIdOptions::NOWAIT);
        waitid(WaitId::Pid(Pid::from_child(&child)), ended).unwrap();
        assert!(!is_cleanup(pid), "the process is a zombie");
        child.wait().unwrap();
        assert!(!is_cleanup(pid));
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn a_real_process_with_the_name_as_its_argument_0_is_not_a_cleanup() {
        let mut child = Command::new("sleep").arg0("kea-lfc").arg("1000").spawn().unwrap();
        let pid = i32::try_from(child.id()).unwrap();
        let arguments = || std::fs::read(format!("/proc/{pid}/cmdline")).unwrap();
        wait_until(|| arguments().starts_with(b"kea-lfc\0"));
        assert!(!is_cleanup(pid));
        child.kill().unwrap();
        child.wait().unwrap();
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn a_real_thread_is_not_a_cleanup() {
        let own = std::process::id().to_string();
        let of_threads =
            || std::fs::read_dir("/proc/self/task").unwrap().map(|task| task.unwrap().file_name());
        let (sender, receiver) = std::sync::mpsc::channel::<()>();
        let thread = std::thread::Builder::new().name("kea-lfc".to_owned()).spawn(move || receiver.recv());
        let is_named = |id: &OsStr| {
            std::fs::read(Path::new("/proc/self/task").join(id).join("comm"))
                .is_ok_and(|name| name == b"kea-lfc\n")
        };
        let mut id = None;
        wait_until(|| {
            id = of_threads().find(|id| id != own.as_str() && is_named(id));
            id.is_some()
        });
        let id: i32 = id.unwrap().to_str().unwrap().parse().unwrap();
        assert!(test_kill_process(Pid::from_raw(id).unwrap()).is_ok(), "kill accepts the number of a thread");
        assert!(!is_cleanup(id));
        drop(sender);
        thread.unwrap().join().unwrap().unwrap_err();
    }
}
