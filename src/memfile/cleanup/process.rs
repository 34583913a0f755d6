//! The process that does a cleanup.

use std::fs::File;
use std::io::{self, Read};
use std::os::fd::OwnedFd;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use rustix::fs::{OFlags, fcntl_getfl, fcntl_setfl};
use rustix::process::{Pid, Signal, kill_process_group};
use tracing::{error, warn};

use crate::fs::retry;

/// Time for a process to end by itself when it is no longer needed, and again after each signal.
pub(super) const GRACE: Duration = Duration::from_millis(if cfg!(test) { 500 } else { 2000 });
/// Interval between two checks of a process during this time.
const TICK: Duration = Duration::from_millis(10);

/// A process that was started here, with its descendants in its process group. Dropping it ends all
/// of them.
pub(super) struct Process {
    child: Child,
    pid: Pid,
    ended: bool,
    output: OutputTail,
}

/// The output stream of a process of which the end is kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Captured {
    Output,
    Errors,
}

/// The end of the output of a process.
///
/// It is read whenever the process is checked, without a thread of its own, and only while the
/// process runs: other processes that have the pipe open are not waited for.
struct OutputTail {
    pipe: Option<File>,
    bytes: Vec<u8>,
    is_truncated: bool,
}

impl OutputTail {
    /// Maximum number of bytes that are kept.
    const MAX_KEPT: usize = 4096;
    /// Maximum number of bytes that are read at a time: a process that writes endlessly must not
    /// block this thread.
    const MAX_READ: usize = 1 << 20;

    /// Reads from a pipe, unless it cannot be made non-blocking.
    fn new(pipe: Option<OwnedFd>) -> Self {
        let pipe = pipe.filter(|pipe| {
            let flags = fcntl_getfl(pipe);
            flags.and_then(|flags| fcntl_setfl(pipe, flags | OFlags::NONBLOCK)).is_ok()
        });
        Self { pipe: pipe.map(File::from), bytes: Vec::new(), is_truncated: false }
    }

    /// Reads the available output.
    fn read(&mut self) {
        let mut buffer = [0; Self::MAX_KEPT];
        let mut total = 0;
        while let Some(pipe) = &mut self.pipe
            && total < Self::MAX_READ
        {
            match retry(|| pipe.read(&mut buffer)) {
                Ok(0) => self.pipe = None,
                Ok(count) => {
                    total += count;
                    self.bytes.extend_from_slice(&buffer[..count]);
                    let excess = self.bytes.len().saturating_sub(Self::MAX_KEPT);
                    self.is_truncated |= excess > 0;
                    self.bytes.drain(..excess);
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return,
                Err(_) => self.pipe = None,
            }
        }
    }
}

/// How a process ended.
#[derive(Debug)]
pub(super) enum End {
    /// With an exit status.
    Status(ExitStatus),
    /// Another part of the program has reaped it, or child processes are ignored (`SIGCHLD`).
    Unknown,
}

impl Process {
    /// Starts a program, without a shell, with `stdin` or else no input.
    pub(super) fn start(
        program: &Path,
        arguments: &[impl AsRef<std::ffi::OsStr>],
        stdin: Option<OwnedFd>,
        captured: Captured,
    ) -> io::Result<Self> {
        let output = |of| if captured == of { Stdio::piped() } else { Stdio::null() };
        let mut child = Command::new(program)
            .args(arguments)
            .stdin(stdin.map_or_else(Stdio::null, Stdio::from))
            .stdout(output(Captured::Output))
            .stderr(output(Captured::Errors))
            // Signals of a terminal are for the server, which ends the process by itself.
            .process_group(0)
            .spawn()?;
        let pid = Pid::from_child(&child);
        let pipe = match captured {
            Captured::Output => child.stdout.take().map(OwnedFd::from),
            Captured::Errors => child.stderr.take().map(OwnedFd::from),
        };
        Ok(Self { child, pid, ended: false, output: OutputTail::new(pipe) })
    }

    /// Returns the end of the output so far.
    pub(super) fn output(&self) -> &[u8] {
        &self.output.bytes
    }

    /// Returns the end of the output so far as one line, with control characters escaped; empty if
    /// there is no output.
    pub(super) fn message(&self) -> String {
        let text = String::from_utf8_lossy(&self.output.bytes);
        let lines = text.split(['\n', '\r']).map(str::trim).filter(|line| !line.is_empty());
        let mut message = if self.output.is_truncated { "...".to_owned() } else { String::new() };
        for (n, line) in lines.enumerate() {
            if n > 0 {
                message.push_str("; ");
            }
            for c in line.chars() {
                if c.is_control() { message.extend(c.escape_default()) } else { message.push(c) }
            }
        }
        message
    }

    pub(super) fn pid(&self) -> i32 {
        self.pid.as_raw_nonzero().get()
    }

    /// Returns how the process ended, if it has, and reaps it.
    pub(super) fn end(&mut self) -> Option<End> {
        // Also while it runs: a process with a full pipe blocks.
        self.output.read();
        let end = match self.child.try_wait() {
            Ok(None) => return None,
            Ok(Some(status)) => End::Status(status),
            Err(_) => End::Unknown,
        };
        self.ended = true;
        self.output.read();
        self.output.pipe = None;
        Some(end)
    }

    /// Ends the process: waits for it for the time `grace`, and again after each of the signals
    /// SIGTERM and SIGKILL.
    ///
    /// Returns `None` if the process did not end: it is waiting for a device, and does not receive
    /// signals.
    pub(super) fn stop(&mut self, grace: Duration) -> Option<End> {
        let pid = self.pid();
        if let Some(end) = self.end_within(grace) {
            return Some(end);
        }
        warn!(
            id = "DHCPSRV_MEMFILE_LFC_STOP",
            "the cleanup by process {pid} is still running; it is stopped"
        );
        for signal in [Signal::TERM, Signal::KILL] {
            // Fails if the process has just ended.
            let _ = kill_process_group(self.pid, signal);
            if let Some(end) = self.end_within(grace) {
                return Some(end);
            }
        }
        error!(id = "DHCPSRV_MEMFILE_LFC_STOP", "process {pid} does not end; it is left running");
        self.ended = true;
        None
    }

    /// Kills the process and all its descendants at once.
    pub(super) fn kill(&mut self) {
        // Fails if the process has just ended.
        let _ = kill_process_group(self.pid, Signal::KILL);
        self.end_within(GRACE);
        self.ended = true;
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
    use rstest::rstest;
    use rustix::process::{WaitOptions, waitpid};

    use super::*;

    fn start(script: &str) -> Process {
        Process::start(Path::new("/bin/sh"), &["-c", script], None, Captured::Errors).unwrap()
    }

    /// Returns the message that a script leaves on its standard error.
    fn message_of(script: &str) -> String {
        let mut process = start(script);
        wait_for_end(&mut process);
        process.message()
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
    fn a_process_that_was_reaped_elsewhere_has_ended() {
        let mut process = start("exit 3");
        waitpid(Some(process.pid), WaitOptions::empty()).unwrap();
        assert!(matches!(wait_for_end(&mut process), End::Unknown));
    }

    #[test]
    fn the_exit_status_of_a_process_is_returned() {
        let mut process = start("exit 3");
        assert!(matches!(wait_for_end(&mut process), End::Status(status) if status.code() == Some(3)));
    }

    #[rstest]
    #[case::nothing("exit 0", "")]
    #[case::only_blanks("printf '\\n \\n\\n' >&2", "")]
    #[case::on_standard_output("echo out; echo error >&2", "error")]
    #[case::a_line("echo error >&2", "error")]
    #[case::without_a_newline("printf error >&2", "error")]
    #[case::lines("printf 'one\\n\\n  two\\r\\nthree' >&2", "one; two; three")]
    #[case::control_characters("printf 'a\\033[31mb\\tc\\302\\205d' >&2", "a\\u{1b}[31mb\\tc\\u{85}d")]
    #[case::invalid_utf8("printf 'a\\377b' >&2", "a\u{fffd}b")]
    fn the_message_of_a_process_is_one_line_of_printable_text(#[case] script: &str, #[case] message: &str) {
        assert_eq!(message_of(script), message);
    }

    #[test]
    fn the_end_of_a_long_output_is_kept() {
        // Much more than a pipe buffers.
        let message = message_of("i=0; while [ $i -lt 40000 ]; do echo line $i; i=$((i+1)); done >&2");
        assert!(message.starts_with("...") && message.ends_with("line 39998; line 39999"), "{message}");
        assert!(message.len() < 2 * OutputTail::MAX_KEPT, "{}", message.len());
    }

    #[test]
    fn a_child_that_inherits_the_output_is_not_waited_for() {
        let mut process = start("echo error >&2; sleep 1000 & exit 3");
        assert!(matches!(wait_for_end(&mut process), End::Status(status) if status.code() == Some(3)));
        assert_eq!(process.message(), "error");
        assert!(process.output.pipe.is_none());
        let _ = kill_process_group(process.pid, Signal::KILL);
    }

    #[test]
    fn a_process_that_closes_its_output_is_still_waited_for() {
        let mut process = start("echo error >&2; exec 2>&-; sleep 0.05; exit 3");
        assert!(matches!(wait_for_end(&mut process), End::Status(status) if status.code() == Some(3)));
        assert_eq!(process.message(), "error");
    }

    #[test]
    fn a_process_that_writes_endlessly_can_be_stopped() {
        let mut process = start("while :; do echo error; done >&2");
        assert!(
            matches!(process.stop(Duration::from_millis(50)), Some(End::Status(status)) if !status.success())
        );
        assert!(process.output().len() <= OutputTail::MAX_KEPT);
    }

    #[test]
    fn a_process_that_ends_by_itself_gets_no_signal() {
        let mut process = start("trap 'exit 1' TERM; sleep 0.05; exit 0");
        let end = process.stop(Duration::from_secs(30));
        assert!(matches!(end, Some(End::Status(status)) if status.success()));
    }

    #[test]
    fn a_dropped_process_is_ended() {
        let process = start("sleep 1000");
        let pid = process.pid();
        drop(process);
        assert!(!Path::new("/proc").join(pid.to_string()).exists());
    }
}
