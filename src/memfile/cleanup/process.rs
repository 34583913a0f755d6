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

/// How long a process has to end by itself when it is no longer wanted, and again after each signal.
pub(super) const GRACE: Duration = Duration::from_millis(if cfg!(test) { 500 } else { 2000 });
/// How often it is looked after in that time.
const TICK: Duration = Duration::from_millis(10);

/// A process that was started here, with its descendants in its group. When it is dropped, none of it is left.
pub(super) struct Process {
    child: Child,
    pid: Pid,
    ended: bool,
    said: Said,
}

/// What of a process is kept: the end of what it writes to one of its outputs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Heard {
    Output,
    Errors,
}

/// The end of what a process has written.
///
/// It is read whenever the process is looked after, by no thread of its own, and no longer than the process lives: another process that
/// has the other end of the pipe as well is not waited for.
struct Said {
    pipe: Option<File>,
    bytes: Vec<u8>,
    is_cut: bool,
}

impl Said {
    /// Maximum number of bytes that are kept.
    const KEPT: usize = 4096;
    /// Maximum number of bytes that are read in one go: a process that writes without end must not keep this thread.
    const READ: usize = 1 << 20;

    /// Listens to a pipe. Where it cannot be read without waiting, it is not read.
    fn new(pipe: Option<OwnedFd>) -> Self {
        let pipe = pipe.filter(|pipe| {
            let flags = fcntl_getfl(pipe);
            flags.and_then(|flags| fcntl_setfl(pipe, flags | OFlags::NONBLOCK)).is_ok()
        });
        Self { pipe: pipe.map(File::from), bytes: Vec::new(), is_cut: false }
    }

    /// Reads what is there.
    fn read(&mut self) {
        let mut buffer = [0; Self::KEPT];
        let mut total = 0;
        while let Some(pipe) = &mut self.pipe
            && total < Self::READ
        {
            match retry(|| pipe.read(&mut buffer)) {
                Ok(0) => self.pipe = None,
                Ok(count) => {
                    total += count;
                    self.bytes.extend_from_slice(&buffer[..count]);
                    let excess = self.bytes.len().saturating_sub(Self::KEPT);
                    self.is_cut |= excess > 0;
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
    /// As it tells itself.
    Status(ExitStatus),
    /// Somebody else has reaped it, or child processes are ignored (`SIGCHLD`).
    Unknown,
}

impl Process {
    /// Starts a program, without a shell, with this to read from, or with nothing.
    pub(super) fn start(
        program: &Path,
        arguments: &[impl AsRef<std::ffi::OsStr>],
        stdin: Option<OwnedFd>,
        heard: Heard,
    ) -> io::Result<Self> {
        let output = |of| if heard == of { Stdio::piped() } else { Stdio::null() };
        let mut child = Command::new(program)
            .args(arguments)
            .stdin(stdin.map_or_else(Stdio::null, Stdio::from))
            .stdout(output(Heard::Output))
            .stderr(output(Heard::Errors))
            // Signals of a terminal are for the server, which ends the process in its own time.
            .process_group(0)
            .spawn()?;
        let pid = Pid::from_child(&child);
        let pipe = match heard {
            Heard::Output => child.stdout.take().map(OwnedFd::from),
            Heard::Errors => child.stderr.take().map(OwnedFd::from),
        };
        Ok(Self { child, pid, ended: false, said: Said::new(pipe) })
    }

    /// Returns the end of what it has written so far.
    pub(super) fn said(&self) -> &[u8] {
        &self.said.bytes
    }

    /// Returns the end of what it has written so far as one line, with control characters escaped. Empty if that is nothing.
    pub(super) fn words(&self) -> String {
        let text = String::from_utf8_lossy(&self.said.bytes);
        let lines = text.split(['\n', '\r']).map(str::trim).filter(|line| !line.is_empty());
        let mut words = if self.said.is_cut { "...".to_owned() } else { String::new() };
        for (n, line) in lines.enumerate() {
            if n > 0 {
                words.push_str("; ");
            }
            for c in line.chars() {
                if c.is_control() { words.extend(c.escape_default()) } else { words.push(c) }
            }
        }
        words
    }

    pub(super) fn pid(&self) -> i32 {
        self.pid.as_raw_nonzero().get()
    }

    /// How it ended, if it has. Then it is reaped.
    pub(super) fn end(&mut self) -> Option<End> {
        // Also while it runs: a process whose pipe is full waits.
        self.said.read();
        let end = match self.child.try_wait() {
            Ok(None) => return None,
            Ok(Some(status)) => End::Status(status),
            Err(_) => End::Unknown,
        };
        self.ended = true;
        self.said.read();
        self.said.pipe = None;
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

    /// Ends it and all its descendants at once.
    pub(super) fn kill(&mut self) {
        // It fails if the process has just ended.
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
        Process::start(Path::new("/bin/sh"), &["-c", script], None, Heard::Errors).unwrap()
    }

    /// What is left of what a script has written to its standard error.
    fn words_of(script: &str) -> String {
        let mut process = start(script);
        wait_for_end(&mut process);
        process.words()
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

    #[rstest]
    #[case::nothing("exit 0", "")]
    #[case::only_blanks("printf '\\n \\n\\n' >&2", "")]
    #[case::to_the_other_output("echo out; echo error >&2", "error")]
    #[case::a_line("echo error >&2", "error")]
    #[case::without_a_newline("printf error >&2", "error")]
    #[case::lines("printf 'one\\n\\n  two\\r\\nthree' >&2", "one; two; three")]
    #[case::control_characters("printf 'a\\033[31mb\\tc\\302\\205d' >&2", "a\\u{1b}[31mb\\tc\\u{85}d")]
    #[case::in_no_encoding("printf 'a\\377b' >&2", "a\u{fffd}b")]
    fn what_a_process_says_is_one_line_of_printable_text(#[case] script: &str, #[case] words: &str) {
        assert_eq!(words_of(script), words);
    }

    #[test]
    fn of_what_a_process_says_the_end_is_kept_however_much_that_is() {
        // Much more than a pipe holds.
        let words = words_of("i=0; while [ $i -lt 40000 ]; do echo line $i; i=$((i+1)); done >&2");
        assert!(words.starts_with("...") && words.ends_with("line 39998; line 39999"), "{words}");
        assert!(words.len() < 2 * Said::KEPT, "{}", words.len());
    }

    #[test]
    fn a_process_that_leaves_another_with_its_output_is_not_waited_for_longer() {
        let mut process = start("echo error >&2; sleep 1000 & exit 3");
        assert!(matches!(wait_for_end(&mut process), End::Status(status) if status.code() == Some(3)));
        assert_eq!(process.words(), "error");
        assert!(process.said.pipe.is_none());
        let _ = kill_process_group(process.pid, Signal::KILL);
    }

    #[test]
    fn a_process_that_closes_its_output_is_still_looked_after() {
        let mut process = start("echo error >&2; exec 2>&-; sleep 0.05; exit 3");
        assert!(matches!(wait_for_end(&mut process), End::Status(status) if status.code() == Some(3)));
        assert_eq!(process.words(), "error");
    }

    #[test]
    fn a_process_that_writes_without_end_can_be_stopped() {
        let mut process = start("while :; do echo error; done >&2");
        assert!(
            matches!(process.stop(Duration::from_millis(50)), Some(End::Status(status)) if !status.success())
        );
        assert!(process.said().len() <= Said::KEPT);
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
