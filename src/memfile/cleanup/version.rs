//! Asking cleanup programs whether they belong to this project, and which version of the lease
//! files they write.
//!
//! A program for an older version than that of the journal would drop columns, so it is asked
//! before its first use.

use std::collections::HashMap;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use tracing::debug;

use super::process::{Captured, End, Process};
use crate::lease::Family;

/// Maximum time for the answer of a program.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(if cfg!(test) { 600 } else { 5 });

/// The beginning of the first line of the answer of this project's program.
const OWN_NAME: &str = "kea-lfc ";
/// The beginning of the line of that answer with the versions of the lease files.
const OWN_FILES: &str = "lease files: ";
/// The text before the version of the lease files in the answer of Kea's program.
const KEAS_FILES: &str = "emfile backend ";

/// A version of lease files. Newer versions compare greater.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct FileVersion(u32, u32);

impl FileVersion {
    /// Parses the version at the beginning of a text, such as `3.0`.
    pub(super) fn parse(text: &str) -> Option<Self> {
        let (major, rest) = text.split_once('.')?;
        let end = rest.find(|c: char| !c.is_ascii_digit()).unwrap_or(rest.len());
        let number =
            |digits: &str| digits.bytes().all(|byte| byte.is_ascii_digit()).then(|| digits.parse().ok())?;
        Some(Self(number(major)?, number(&rest[..end])?))
    }
}

impl std::fmt::Display for FileVersion {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}.{}", self.0, self.1)
    }
}

/// The answer of a program.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Answer {
    /// Whether the program belongs to this project.
    pub(super) is_own: bool,
    /// The version of the lease files that the program writes.
    pub(super) files: FileVersion,
}

impl Answer {
    /// Parses the output of a program; `None` if it is not such an answer.
    fn parse(family: Family, text: &[u8]) -> Option<Self> {
        let text = std::str::from_utf8(text).ok()?;
        let mut lines = text.lines();
        let is_own = lines.next()?.starts_with(OWN_NAME);
        let files = if is_own {
            let all = lines.find_map(|line| line.strip_prefix(OWN_FILES))?;
            let name = format!("{family} schema ");
            all.split(", ").find_map(|one| one.strip_prefix(name.as_str()))?
        } else {
            lines.find_map(|line| line.split_once(KEAS_FILES))?.1
        };
        Some(Self { is_own, files: FileVersion::parse(files)? })
    }
}

/// Distinguishes a program file from one that has replaced it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Identity([i64; 6]);

impl Identity {
    fn of(program: &Path) -> Option<Self> {
        let file = std::fs::metadata(program).ok()?;
        let number = |n: u64| n.cast_signed();
        let times = [file.mtime(), file.mtime_nsec(), file.ctime()];
        Some(Self([
            number(file.dev()),
            number(file.ino()),
            number(file.size()),
            times[0],
            times[1],
            times[2],
        ]))
    }
}

/// The answers of programs.
#[derive(Debug)]
pub(super) struct Answers {
    known: Mutex<HashMap<PathBuf, (Identity, Option<Answer>)>>,
    timeout: Duration,
}

/// An answer, and whether it is new.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Reply {
    /// `None` if the answer was invalid or late.
    pub(super) answer: Option<Answer>,
    pub(super) is_new: bool,
}

impl Default for Answers {
    fn default() -> Self {
        Self { known: Mutex::default(), timeout: ANSWER_TIMEOUT }
    }
}

impl Answers {
    /// Asks a program, or returns its earlier answer. `pause` waits, and returns whether the
    /// manager is closing.
    ///
    /// Returns `None` if the manager is closing before the program has answered.
    pub(super) fn ask(
        &self,
        program: &Path,
        family: Family,
        pause: &dyn Fn(Duration) -> bool,
    ) -> Option<Reply> {
        let identity = Identity::of(program);
        if let Some((known, answer)) = self.known.lock().get(program)
            && Some(*known) == identity
        {
            return Some(Reply { answer: *answer, is_new: false });
        }
        let answer = ask(program, family, self.timeout, pause)?;
        if let Some(identity) = identity {
            self.known.lock().insert(program.to_owned(), (identity, answer));
        }
        Some(Reply { answer, is_new: true })
    }

    /// Records the version of the files that a program without an answer has written.
    pub(super) fn record(&self, program: &Path, files: FileVersion) {
        if let Some((_, answer @ None)) = self.known.lock().get_mut(program) {
            *answer = Some(Answer { is_own: false, files });
        }
    }
}

fn ask(
    program: &Path,
    family: Family,
    timeout: Duration,
    pause: &dyn Fn(Duration) -> bool,
) -> Option<Option<Answer>> {
    /// The first and the longest interval between two checks of a process.
    const PAUSES: (Duration, Duration) = (Duration::from_millis(1), Duration::from_millis(50));
    let number = match family {
        Family::V4 => "-4",
        Family::V6 => "-6",
    };
    // Kea's program only reports the version of the files if the family is given before.
    let mut process = match Process::start(program, &[number, "-V"], None, Captured::Output) {
        Ok(process) => process,
        Err(error) => {
            debug!(id = "DHCPSRV_MEMFILE_LFC_VERSION", "{} cannot be run: {error}", program.display());
            return Some(None);
        }
    };
    let start = Instant::now();
    let mut pause_for = PAUSES.0;
    let end = loop {
        if let Some(end) = process.end() {
            break end;
        }
        if pause(pause_for) {
            process.kill();
            return None;
        }
        if start.elapsed() > timeout {
            debug!(
                id = "DHCPSRV_MEMFILE_LFC_VERSION",
                "{} {number} -V does not end within {timeout:?}; it is stopped",
                program.display()
            );
            process.kill();
            return Some(None);
        }
        pause_for = (pause_for * 2).min(PAUSES.1);
    };
    let has_succeeded = matches!(end, End::Status(status) if status.success());
    let answer = if has_succeeded { Answer::parse(family, process.output()) } else { None };
    debug!(id = "DHCPSRV_MEMFILE_LFC_VERSION", "{} {number} -V: {}", program.display(), process.message());
    Some(answer)
}

#[cfg(test)]
mod tests {
    use std::process::Command;

    use rstest::rstest;

    use super::*;

    fn answer(is_own: bool, major: u32, minor: u32) -> Option<Answer> {
        Some(Answer { is_own, files: FileVersion(major, minor) })
    }

    const OURS: &str = "kea-lfc 0.1.0\nlease files: DHCPv4 schema 3.0, DHCPv6 schema 5.0\n";

    #[rstest]
    #[case::ours(OURS, answer(true, 3, 0), answer(true, 5, 0))]
    #[case::ours_later(
        "kea-lfc 9.1\nmore\nlease files: DHCPv4 schema 10.12, DHCPv6 schema 5.0, more 1.0\n",
        answer(true, 10, 12),
        answer(true, 5, 0)
    )]
    #[case::ours_cut("kea-lfc 0.1.0\n", None, None)]
    #[case::ours_without_a_number(
        "kea-lfc 0.1.0\nlease files: DHCPv4 schema x, DHCPv6 schema .0\n",
        None,
        None
    )]
    #[case::kea_2_2_v4(
        "2.2.0\ntarball\ndatabase: Memfile backend 2.1\n",
        answer(false, 2, 1),
        answer(false, 2, 1)
    )]
    #[case::kea_without_a_family("2.2.0\ntarball\n\n", None, None)]
    #[case::kea_with_a_suffix(
        "3.1.0\n3.1.0 (isc)\ndatabase: Memfile backend 3.0, library x\n",
        answer(false, 3, 0),
        answer(false, 3, 0)
    )]
    #[case::nothing("", None, None)]
    #[case::only_a_version("2.2.0\n", None, None)]
    #[case::usage("Usage: kea-lfc -4|-6\n", None, None)]
    #[case::a_sign("2.2.0\nMemfile backend +2.-1\n", None, None)]
    #[case::not_a_number("2.2.0\nMemfile backend new\n", None, None)]
    #[case::too_large_a_number("2.2.0\nMemfile backend 99999999999.0\n", None, None)]
    fn an_answer_has_the_project_and_the_file_version_of_a_program(
        #[case] text: &str,
        #[case] v4: Option<Answer>,
        #[case] v6: Option<Answer>,
    ) {
        assert_eq!(Answer::parse(Family::V4, text.as_bytes()), v4);
        assert_eq!(Answer::parse(Family::V6, text.as_bytes()), v6);
    }

    #[test]
    fn an_answer_in_invalid_utf8_is_ignored() {
        assert_eq!(Answer::parse(Family::V4, b"2.2.0\nMemfile backend 3.0\n\xff"), None);
    }

    #[rstest]
    #[case("2.1", "3.0")]
    #[case("2.9", "2.10")]
    #[case("9.0", "10.0")]
    fn versions_are_in_the_order_of_their_numbers(#[case] older: &str, #[case] newer: &str) {
        assert!(FileVersion::parse(older).unwrap() < FileVersion::parse(newer).unwrap());
    }

    struct ProgramDirectory(tempfile::TempDir);

    impl ProgramDirectory {
        fn new() -> Self {
            Self(tempfile::tempdir().unwrap())
        }

        /// Writes a program by another process: a child of another test that has not executed its
        /// program yet would still have the file open for writing, and the kernel does not run such
        /// a file.
        fn program(&self, script: &str) -> PathBuf {
            let path = self.0.path().join("program");
            let text = format!(
                "#!/bin/sh\ncd '{}' || exit 9\necho \"$@\" >> asked\n{script}\n",
                self.0.path().display()
            );
            let write = "printf %s \"$2\" > \"$1.new\" && chmod 755 \"$1.new\" && mv \"$1.new\" \"$1\"";
            let status = Command::new("sh").args(["-c", write, "sh"]).arg(&path).arg(text).status().unwrap();
            assert!(status.success());
            path
        }

        fn asked(&self) -> Vec<String> {
            let text = std::fs::read_to_string(self.0.path().join("asked")).unwrap_or_default();
            text.lines().map(str::to_owned).collect()
        }
    }

    fn pause(time: Duration) -> bool {
        std::thread::sleep(time);
        false
    }

    #[rstest]
    #[case::it_answers("echo 2.2.0; echo database: Memfile backend 2.1", answer(false, 2, 1))]
    #[case::it_fails("echo 2.2.0; echo database: Memfile backend 2.1; exit 1", None)]
    #[case::it_is_killed("kill -9 $$", None)]
    #[case::it_says_something_else("echo hello", None)]
    #[case::it_answers_on_standard_error("(echo 2.2.0; echo database: Memfile backend 2.1) >&2", None)]
    #[case::it_reads_standard_input(
        "cat; echo 2.2.0; echo database: Memfile backend 2.1",
        answer(false, 2, 1)
    )]
    #[case::it_leaves_a_child(
        "echo 2.2.0; echo database: Memfile backend 2.1; sleep 5 & exit 0",
        answer(false, 2, 1)
    )]
    fn a_program_is_asked_once_and_the_answer_remembered(
        #[case] script: &str,
        #[case] expected: Option<Answer>,
    ) {
        let directory = ProgramDirectory::new();
        let program = directory.program(script);
        let answers = Answers::default();
        let ask = || answers.ask(&program, Family::V4, &pause).unwrap();
        assert_eq!(ask(), Reply { answer: expected, is_new: true });
        assert_eq!(ask(), Reply { answer: expected, is_new: false });
        assert_eq!(directory.asked(), ["-4 -V"]);
    }

    #[rstest]
    #[case::it_does_not_end("echo 2.2.0; echo database: Memfile backend 2.1; sleep 1000")]
    #[case::it_is_deaf("trap '' TERM; while :; do sleep 0.1; done")]
    fn a_program_that_does_not_end_gives_no_answer_and_is_not_asked_again(#[case] script: &str) {
        let directory = ProgramDirectory::new();
        let program = directory.program(script);
        let answers = Answers { timeout: Duration::from_millis(100), ..Answers::default() };
        let ask = || answers.ask(&program, Family::V4, &pause).unwrap();
        assert_eq!(ask(), Reply { answer: None, is_new: true });
        assert_eq!(ask(), Reply { answer: None, is_new: false });
        // It may be stopped before it has written that it was asked.
        assert!(directory.asked().len() <= 1);
    }

    #[test]
    fn another_program_of_the_same_name_is_asked_again() {
        let directory = ProgramDirectory::new();
        let program = directory.program("echo 2.2.0; echo database: Memfile backend 4.0");
        let answers = Answers::default();
        assert_eq!(answers.ask(&program, Family::V6, &pause).unwrap().answer, answer(false, 4, 0));
        directory.program("echo 3.0.0; echo database: Memfile backend 5.0");
        let asked = answers.ask(&program, Family::V6, &pause).unwrap();
        assert_eq!(asked, Reply { answer: answer(false, 5, 0), is_new: true });
        assert_eq!(directory.asked(), ["-6 -V", "-6 -V"]);
    }

    #[test]
    fn a_program_that_cannot_be_started_gives_no_answer() {
        let answers = Answers::default();
        let asked = answers.ask(Path::new("/absent/kea-lfc"), Family::V4, &pause).unwrap();
        assert_eq!(asked.answer, None);
    }

    #[test]
    fn a_closing_manager_does_not_wait_for_an_answer() {
        let directory = ProgramDirectory::new();
        let program = directory.program("echo $$ > own; sleep 1000");
        let answers = Answers::default();
        let own = directory.0.path().join("own");
        let ends = |time| {
            std::thread::sleep(time);
            std::fs::read_to_string(&own).is_ok_and(|pid| pid.ends_with('\n'))
        };
        assert_eq!(answers.ask(&program, Family::V4, &ends), None);
        let pid = std::fs::read_to_string(&own).unwrap();
        assert!(!Path::new("/proc").join(pid.trim()).exists(), "the process is reaped");
        assert!(answers.known.lock().is_empty(), "it is asked again the next time");
    }

    #[rstest]
    #[case(Family::V4, answer(false, 2, 1))]
    #[case(Family::V6, answer(false, 4, 0))]
    fn keas_own_program_answers(#[case] family: Family, #[case] expected: Option<Answer>) {
        let program = Path::new("/usr/sbin/kea-lfc");
        if !program.exists() {
            eprintln!("skipped: no {} here", program.display());
            return;
        }
        let asked = Answers::default().ask(program, family, &pause).unwrap();
        if asked.answer != expected {
            // A newer Kea than Debian's gives another version, but is still Kea's.
            assert!(!asked.answer.unwrap().is_own);
        }
    }
}
