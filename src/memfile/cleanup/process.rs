//! The process that does a cleanup.

use std::io;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process_group};
use tracing::{error, warn};

/// How long a process has to end by itself when it is no longer wanted, and again after each signal.
pub(super) const GRACE: Duration = Duration::from_millis(if cfg!(test) { 500 } else { 2000 });
/// How often it is looked after in that time.
const TICK: Duration = Duration::from_millis(10);

/// A process that was started here, with its descendants in its group. When it is dropped, none of it is left.
pub(super) struct Process {
    child: Child,
    pid: Pid,
    ended: bool,
}

/// How a process ended.
#[derive(Debug)]
pub(super) enum End {
    /// As it tells itself.
    Status(ExitStatus),
    /// Somebody else has reaped it, or child processes are ignored (`SIGCHLD`).
    Unknown,
}

impl Process {
    /// Starts a program, without a shell, and with nothing to read from or write to.
    pub(super) fn start(program: &Path, arguments: &[impl AsRef<std::ffi::OsStr>]) -> io::Result<Self> {
        let child = Command::new(program)
            .args(arguments)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            // Signals of a terminal are for the server, which ends the process in its own time.
            .process_group(0)
            .spawn()?;
        let pid = Pid::from_child(&child);
        Ok(Self { child, pid, ended: false })
    }

    pub(super) fn pid(&self) -> i32 {
        self.pid.as_raw_nonzero().get()
    }

    /// How it ended, if it has. Then it is reaped.
    pub(super) fn end(&mut self) -> Option<End> {
        let end = match self.child.try_wait() {
            Ok(None) => return None,
            Ok(Some(status)) => End::Status(status),
            Err(_) => End::Unknown,
        };
        self.ended = true;
        Some(end)
    }

    /// Makes it end: by itself in this time, or else by signals, each of which has the same time to act.
    ///
    /// `None` if it did not: then it waits for a device, and no signal reaches it.
    pub(super) fn stop(&mut self, grace: Duration) -> Option<End> {
        let pid = self.pid();
        if let Some(end) = self.end_within(grace) {
            return Some(end);
        }
        warn!(
            id = "DHCPSRV_MEMFILE_LFC_STOP",
            "the cleanup by process {pid} is still running, and is stopped"
        );
        for signal in [Signal::TERM, Signal::KILL] {
            // It fails if the process has just ended.
            let _ = kill_process_group(self.pid, signal);
            if let Some(end) = self.end_within(grace) {
                return Some(end);
            }
        }
        error!(id = "DHCPSRV_MEMFILE_LFC_STOP", "process {pid} does not end, it is left alone");
        self.ended = true;
        None
    }

    fn end_within(&mut self, time: Duration) -> Option<End> {
        let start = Instant::now();
        loop {
            let end = self.end();
            if end.is_some() || start.elapsed() >= time {
                return end;
            }
            thread::sleep(TICK);
        }
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        if !self.ended {
            self.stop(GRACE);
        }
    }
}

#[cfg(test)]
mod tests {
    use rustix::process::{WaitOptions, waitpid};

    use super::*;

    fn start(script: &str) -> Process {
        Process::start(Path::new("/bin/sh"), &["-c", script]).unwrap()
    }

    fn wait_for_end(process: &mut Process) -> End {
        loop {
            if let Some(end) = process.end() {
                return end;
            }
            thread::sleep(TICK);
        }
    }

    #[test]
    fn a_process_that_somebody_else_has_reaped_has_ended() {
        let mut process = start("exit 3");
        waitpid(Some(process.pid), WaitOptions::empty()).unwrap();
        assert!(matches!(wait_for_end(&mut process), End::Unknown));
    }

    #[test]
    fn a_process_tells_how_it_has_ended() {
        let mut process = start("exit 3");
        assert!(matches!(wait_for_end(&mut process), End::Status(status) if status.code() == Some(3)));
    }

    #[test]
    fn a_process_that_ends_by_itself_gets_no_signal() {
        let mut process = start("trap 'exit 1' TERM; sleep 0.05; exit 0");
        let end = process.stop(Duration::from_secs(30));
        assert!(matches!(end, Some(End::Status(status)) if status.success()));
    }

    #[test]
    fn a_process_that_nobody_wants_any_more_does_not_stay() {
        let process = start("sleep 1000");
        let pid = process.pid();
        drop(process);
        assert!(!Path::new("/proc").join(pid.to_string()).exists());
    }
}
