//! Choosing the program that does a cleanup, and its arguments.

use std::ffi::{OsStr, OsString};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use tracing::{info, warn};

use super::version::{Answer, Answers, FileVersion};
use crate::lease::{Family, Lease4, Lease6};
use crate::lease_file::FileLease;
use crate::lfc::LfcFiles;
use crate::memfile::LfcProgram;

/// The environment variable that names the program.
const VARIABLE: &str = "KEA_LFC_EXECUTABLE";

/// The name of the program if the configuration names none.
const NAME: &str = "kea-lfc";

/// The directories that are searched, in this order, after that of the running program.
const DIRECTORIES: [&str; 4] = ["/usr/local/sbin", "/usr/local/bin", "/usr/sbin", "/usr/bin"];

/// Chooses the program that does a cleanup.
pub(super) struct Chooser<'a> {
    pub(super) wanted: &'a LfcProgram,
    pub(super) family: Family,
    pub(super) answers: &'a Answers,
    /// Waits, and returns whether the manager is closing.
    pub(super) pause: &'a dyn Fn(Duration) -> bool,
}

/// The locations of a program that the configuration does not name.
struct Locations<'a> {
    variable: Option<OsString>,
    /// The directory of the running program.
    own: Option<PathBuf>,
    directories: &'a [&'a str],
}

impl Chooser<'_> {
    /// Returns the program that does the cleanup; `None` for a thread of this process.
    pub(super) fn choose(&self) -> Option<PathBuf> {
        self.choose_from(Locations {
            variable: std::env::var_os(VARIABLE),
            own: std::env::current_exe().ok().and_then(|own| Some(own.parent()?.to_owned())),
            directories: &DIRECTORIES,
        })
    }

    fn choose_from(&self, locations: Locations<'_>) -> Option<PathBuf> {
        let (program, named_by) = match self.wanted {
            LfcProgram::Internal => return None,
            LfcProgram::Program(program) => (program.clone(), "the configuration"),
            LfcProgram::Installed => match locations.variable.filter(|program| !program.is_empty()) {
                Some(program) => (program.into(), VARIABLE),
                None => return self.installed(locations.own, locations.directories),
            },
        };
        // A name without a directory would be searched for in PATH.
        let checked =
            std::path::absolute(&program).and_then(|program| is_program(&program).map(|()| program));
        let program = checked
            .inspect_err(|error| {
                warn!(
                    id = "DHCPSRV_MEMFILE_LFC_NO_PROGRAM",
                    "{named_by} names {} for the cleanup, which cannot be run: {error}; a thread of this process does the cleanup",
                    program.display()
                );
            })
            .ok()?;
        let asked = self.answers.ask(&program, self.family, self.pause)?;
        match asked.answer {
            Some(answer) => self.is_new_enough(&program, answer, asked.is_new).then_some(program),
            // A named program is used in spite of this: it may be a script that only knows the
            // arguments of a cleanup.
            None => {
                if asked.is_new {
                    warn!(
                        id = "DHCPSRV_MEMFILE_LFC_UNKNOWN_VERSION",
                        "{named_by} names {} for the cleanup, which does not report the version of the lease files that it writes (option -V); \
                         it is used: make sure that it supports version {}",
                        program.display(),
                        self.current().map_or_else(String::new, |version| version.to_string())
                    );
                }
                Some(program)
            }
        }
    }

    /// Returns this project's program, if it is next to the running program or installed.
    fn installed(&self, own: Option<PathBuf>, directories: &[&str]) -> Option<PathBuf> {
        for directory in own.into_iter().chain(directories.iter().map(PathBuf::from)) {
            let program = directory.join(NAME);
            if is_program(&program).is_err() {
                continue;
            }
            let asked = self.answers.ask(&program, self.family, self.pause)?;
            let Some(answer) = asked.answer.filter(|answer| answer.is_own) else {
                if asked.is_new {
                    info!(
                        id = "DHCPSRV_MEMFILE_LFC_NOT_OWN",
                        "{} is not this project's; it is not used unless lfc-executable or {VARIABLE} names it",
                        program.display()
                    );
                }
                continue;
            };
            if self.is_new_enough(&program, answer, asked.is_new) {
                return Some(program);
            }
        }
        info!(
            id = "DHCPSRV_MEMFILE_LFC_NO_PROGRAM",
            "no kea-lfc of this project is next to this program or in {}; a thread of this process does the cleanup",
            directories.join(", ")
        );
        None
    }

    /// Returns whether a program writes all columns of the journal. If not, and if the answer is
    /// new, logs a warning.
    fn is_new_enough(&self, program: &Path, answer: Answer, is_new: bool) -> bool {
        let Some(current) = self.current() else {
            return true;
        };
        let is_new_enough = answer.files >= current;
        if !is_new_enough && is_new {
            warn!(
                id = "DHCPSRV_MEMFILE_LFC_OLD_PROGRAM",
                "{} writes {} lease files of version {}, older than {current}, and would drop columns; it is not used, and a thread of this \
                 process does the cleanup: name a newer program, or internal",
                program.display(),
                self.family,
                answer.files
            );
        }
        is_new_enough
    }

    /// Returns the version of the journal.
    fn current(&self) -> Option<FileVersion> {
        FileVersion::parse(match self.family {
            Family::V4 => Lease4::schema().version(),
            Family::V6 => Lease6::schema().version(),
        })
    }
}

/// Returns an error if no user may execute the file. Whether this process may is only known when it
/// tries.
fn is_program(path: &Path) -> std::io::Result<()> {
    let metadata = std::fs::metadata(path)?;
    if metadata.is_file() && metadata.permissions().mode() & 0o111 != 0 {
        Ok(())
    } else {
        Err(std::io::Error::other("it is not an executable file"))
    }
}

/// The arguments of `kea-lfc`.
pub(super) fn arguments(family: Family, files: &LfcFiles) -> [&OsStr; 13] {
    let family = match family {
        Family::V4 => "-4",
        Family::V6 => "-6",
    };
    let LfcFiles { previous, input, output, finish, pid } = files;
    [
        family.as_ref(),
        "-x".as_ref(),
        previous.as_os_str(),
        "-i".as_ref(),
        input.as_os_str(),
        "-o".as_ref(),
        output.as_os_str(),
        "-f".as_ref(),
        finish.as_os_str(),
        "-p".as_ref(),
        pid.as_os_str(),
        // Required, but without effect.
        "-c".as_ref(),
        "ignored-path".as_ref(),
    ]
}

#[cfg(test)]
mod tests {
    use std::process::Command;

    use rstest::rstest;

    use super::*;

    /// Creates a directory with programs, and with other files.
    fn directory() -> tempfile::TempDir {
        let directory = tempfile::tempdir().unwrap();
        for name in ["empty", "text", "directory/kea-lfc"] {
            std::fs::create_dir_all(directory.path().join(name)).unwrap();
        }
        let ours =
            |v4: &str| format!("echo kea-lfc 0.1.0; echo lease files: DHCPv4 schema {v4}, DHCPv6 schema 5.0");
        let keas = |files: &str| format!("echo 2.9.9; echo tarball; echo database: Memfile backend {files}");
        for (name, script) in [
            ("ours", ours("3.0")),
            ("ours-newer", ours("3.1")),
            ("ours-older", ours("2.1")),
            ("keas", keas("5.0")),
            ("keas-older", keas("2.1")),
            ("mute", "exit 0".to_owned()),
            ("failing", "exit 1".to_owned()),
        ] {
            // Written by another process, for the same reason as in the tests of `version`.
            let path = directory.path().join(name);
            std::fs::create_dir_all(&path).unwrap();
            let text = format!("#!/bin/sh\necho \"$@\" >> \"$0.asked\"\n{script}\n");
            let write = "printf %s \"$2\" > \"$1\" && chmod 755 \"$1\"";
            let path = path.join(NAME);
            let status = Command::new("sh").args(["-c", write, "sh"]).arg(path).arg(text).status().unwrap();
            assert!(status.success());
        }
        std::fs::write(directory.path().join("text/kea-lfc"), "").unwrap();
        directory
    }

    /// The circumstances of a choice.
    struct Choice<'a> {
        directory: &'a Path,
        wanted: LfcProgram,
        variable: Option<OsString>,
        own: &'a str,
        directories: &'a [&'a str],
        answers: Answers,
    }

    impl<'a> Choice<'a> {
        fn of(directory: &'a Path, wanted: LfcProgram) -> Self {
            Self {
                directory,
                wanted,
                variable: None,
                own: "empty",
                directories: &[],
                answers: Answers::default(),
            }
        }

        fn choose(&self) -> Option<PathBuf> {
            let at = |name: &str| self.directory.join(name).to_str().unwrap().to_owned();
            let directories: Vec<_> = self.directories.iter().map(|name| at(name)).collect();
            let directories: Vec<_> = directories.iter().map(String::as_str).collect();
            let pause = |time| {
                std::thread::sleep(time);
                false
            };
            let chooser =
                Chooser { wanted: &self.wanted, family: Family::V4, answers: &self.answers, pause: &pause };
            chooser.choose_from(Locations {
                variable: self.variable.clone(),
                own: Some(self.directory.join(self.own)),
                directories: &directories,
            })
        }
    }

    #[rstest]
    #[case::next_to_the_program("ours", &["ours-newer"], Some("ours"))]
    #[case::in_the_first("empty", &["ours", "ours-newer"], Some("ours"))]
    #[case::in_a_later_one("absent", &["absent", "empty", "text", "directory", "ours"], Some("ours"))]
    #[case::after_keas("keas", &["keas-older", "ours"], Some("ours"))]
    #[case::after_an_older_one("ours-older", &["ours-newer"], Some("ours-newer"))]
    #[case::after_one_without_an_answer("mute", &["failing", "ours"], Some("ours"))]
    #[case::only_keas("keas", &["keas"], None)]
    #[case::only_older_ones("ours-older", &["keas-older"], None)]
    #[case::nowhere("absent", &["empty", "text", "directory"], None)]
    fn only_this_projects_program_is_used_without_being_named(
        #[case] own: &str,
        #[case] directories: &[&str],
        #[case] found: Option<&str>,
    ) {
        let directory = directory();
        for variable in [None, Some(OsString::new())] {
            let choice =
                Choice { variable, own, directories, ..Choice::of(directory.path(), LfcProgram::Installed) };
            let found = found.map(|name| directory.path().join(name).join(NAME));
            assert_eq!(choice.choose(), found);
            assert_eq!(choice.choose(), found, "the same choice from recorded answers");
        }
    }

    #[rstest]
    #[case::ours("ours/kea-lfc", true)]
    #[case::ours_newer("ours-newer/kea-lfc", true)]
    #[case::ours_older("ours-older/kea-lfc", false)]
    #[case::keas("keas/kea-lfc", true)]
    #[case::keas_older("keas-older/kea-lfc", false)]
    #[case::without_an_answer("mute/kea-lfc", true)]
    #[case::failing_when_asked("failing/kea-lfc", true)]
    #[case::absent("absent", false)]
    #[case::not_executable("text/kea-lfc", false)]
    #[case::a_directory("directory/kea-lfc", false)]
    fn a_named_program_has_no_alternatives(#[case] name: &str, #[case] good: bool) {
        let directory = directory();
        let path = directory.path().join(name);
        let expected = good.then(|| path.clone());
        let by_configuration = Choice {
            // The configuration takes precedence.
            variable: Some(directory.path().join("ours-newer/kea-lfc").into()),
            own: "ours-newer",
            directories: &["ours-newer"],
            ..Choice::of(directory.path(), LfcProgram::Program(path.clone()))
        };
        assert_eq!(by_configuration.choose(), expected);
        let by_environment = Choice {
            variable: Some(path.clone().into()),
            own: "ours-newer",
            directories: &["ours-newer"],
            ..Choice::of(directory.path(), LfcProgram::Installed)
        };
        assert_eq!(by_environment.choose(), expected);
    }

    #[test]
    fn a_program_is_asked_once_for_many_cleanups() {
        let directory = directory();
        let path = directory.path().join("keas/kea-lfc");
        let choice = Choice::of(directory.path(), LfcProgram::Program(path.clone()));
        for _ in 0..3 {
            assert_eq!(choice.choose(), Some(path.clone()));
        }
        assert_eq!(std::fs::read_to_string(directory.path().join("keas/kea-lfc.asked")).unwrap(), "-4 -V\n");
    }

    #[test]
    fn a_name_without_a_directory_is_not_searched_for() {
        let directory = directory();
        assert_eq!(Choice::of(directory.path(), LfcProgram::Program("sh".into())).choose(), None);
    }

    #[test]
    fn an_internal_cleanup_searches_for_no_program() {
        let directory = directory();
        let choice = Choice {
            variable: Some(directory.path().join("ours/kea-lfc").into()),
            own: "ours",
            directories: &["ours"],
            ..Choice::of(directory.path(), LfcProgram::Internal)
        };
        assert_eq!(choice.choose(), None);
        assert!(!directory.path().join("ours/kea-lfc.asked").exists());
    }
}
