//! Which program does a cleanup, and what it is told.

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

/// The name of the program where it is not named.
const NAME: &str = "kea-lfc";

/// Where it is looked for after the directory of the running program, in this order.
const FOLDERS: [&str; 4] = ["/usr/local/sbin", "/usr/local/bin", "/usr/sbin", "/usr/bin"];

/// Which program is to do a cleanup, and what is known of programs.
pub(super) struct Chooser<'a> {
    pub(super) wanted: &'a LfcProgram,
    pub(super) family: Family,
    pub(super) answers: &'a Answers,
    /// Waits, and tells whether it is time to end.
    pub(super) pause: &'a dyn Fn(Duration) -> bool,
}

/// Where a program may be that is not named by the configuration.
struct Places<'a> {
    variable: Option<OsString>,
    /// The directory of the running program.
    own: Option<PathBuf>,
    folders: &'a [&'a str],
}

impl Chooser<'_> {
    /// The program that does the cleanup; `None` is a thread of this process.
    pub(super) fn choose(&self) -> Option<PathBuf> {
        self.choose_from(Places {
            variable: std::env::var_os(VARIABLE),
            own: std::env::current_exe().ok().and_then(|own| Some(own.parent()?.to_owned())),
            folders: &FOLDERS,
        })
    }

    fn choose_from(&self, places: Places<'_>) -> Option<PathBuf> {
        let (program, named_by) = match self.wanted {
            LfcProgram::Internal => return None,
            LfcProgram::Program(program) => (program.clone(), "the configuration"),
            LfcProgram::Installed => match places.variable.filter(|program| !program.is_empty()) {
                Some(program) => (program.into(), VARIABLE),
                None => return self.installed(places.own, places.folders),
            },
        };
        // A mere name would be looked for in PATH.
        let checked =
            std::path::absolute(&program).and_then(|program| is_program(&program).map(|()| program));
        let program = checked
            .inspect_err(|error| {
                warn!(
                    id = "DHCPSRV_MEMFILE_LFC_NO_PROGRAM",
                    "{named_by} names {} for the cleanup, which is no program that can be run: {error}; this process cleans up itself",
                    program.display()
                );
            })
            .ok()?;
        let asked = self.answers.ask(&program, self.family, self.pause)?;
        match asked.answer {
            Some(answer) => self.is_new_enough(&program, answer, asked.is_new).then_some(program),
            // It was named, so whether it is good is not decided here: it may be a script that knows no other arguments than a cleanup's.
            None => {
                if asked.is_new {
                    warn!(
                        id = "DHCPSRV_MEMFILE_LFC_UNKNOWN_VERSION",
                        "{named_by} names {} for the cleanup, which does not tell the version of the lease files that it writes (option -V); \
                         it is used, make sure that it knows version {}",
                        program.display(),
                        self.current().map_or_else(String::new, |version| version.to_string())
                    );
                }
                Some(program)
            }
        }
    }

    /// This project's program, if it is beside the running program or installed.
    fn installed(&self, own: Option<PathBuf>, folders: &[&str]) -> Option<PathBuf> {
        for folder in own.into_iter().chain(folders.iter().map(PathBuf::from)) {
            let program = folder.join(NAME);
            if is_program(&program).is_err() {
                continue;
            }
            let asked = self.answers.ask(&program, self.family, self.pause)?;
            let Some(answer) = asked.answer.filter(|answer| answer.is_own) else {
                if asked.is_new {
                    info!(
                        id = "DHCPSRV_MEMFILE_LFC_NOT_OWN",
                        "{} is not this project's, and is not used unless it is named, by lfc-executable or {VARIABLE}",
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
            "no kea-lfc of this project is beside this program or in {}: this process cleans up itself",
            folders.join(", ")
        );
        None
    }

    /// Returns whether a program writes all columns of the journal. If not, and that has just been found out, the log says so.
    fn is_new_enough(&self, program: &Path, answer: Answer, is_new: bool) -> bool {
        let Some(current) = self.current() else {
            return true;
        };
        let is_new_enough = answer.files >= current;
        if !is_new_enough && is_new {
            warn!(
                id = "DHCPSRV_MEMFILE_LFC_OLD_PROGRAM",
                "{} writes {} lease files of version {}, older than {current}, and would drop columns: it is not used, this process \
                 cleans up itself; name a newer program, or internal",
                program.display(),
                self.family,
                answer.files
            );
        }
        is_new_enough
    }

    /// The version of the journal.
    fn current(&self) -> Option<FileVersion> {
        FileVersion::parse(match self.family {
            Family::V4 => Lease4::schema().version(),
            Family::V6 => Lease6::schema().version(),
        })
    }
}

/// Whether somebody may run this file. Whether this process may is found out by trying.
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
        // It must be given, and has no effect.
        "-c".as_ref(),
        "ignored-path".as_ref(),
    ]
}

#[cfg(test)]
mod tests {
    use std::process::Command;

    use rstest::rstest;

    use super::*;

    /// A directory with programs, and with things that are none.
    fn folder() -> tempfile::TempDir {
        let folder = tempfile::tempdir().unwrap();
        for name in ["empty", "text", "folder/kea-lfc"] {
            std::fs::create_dir_all(folder.path().join(name)).unwrap();
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
            // Another process writes it: see the tests of versions.
            let path = folder.path().join(name);
            std::fs::create_dir_all(&path).unwrap();
            let text = format!("#!/bin/sh\necho \"$@\" >> \"$0.asked\"\n{script}\n");
            let write = "printf %s \"$2\" > \"$1\" && chmod 755 \"$1\"";
            let path = path.join(NAME);
            let status = Command::new("sh").args(["-c", write, "sh"]).arg(path).arg(text).status().unwrap();
            assert!(status.success());
        }
        std::fs::write(folder.path().join("text/kea-lfc"), "").unwrap();
        folder
    }

    /// What is chosen.
    struct Choice<'a> {
        folder: &'a Path,
        wanted: LfcProgram,
        variable: Option<OsString>,
        own: &'a str,
        folders: &'a [&'a str],
        answers: Answers,
    }

    impl<'a> Choice<'a> {
        fn of(folder: &'a Path, wanted: LfcProgram) -> Self {
            Self { folder, wanted, variable: None, own: "empty", folders: &[], answers: Answers::default() }
        }

        fn choose(&self) -> Option<PathBuf> {
            let at = |name: &str| self.folder.join(name).to_str().unwrap().to_owned();
            let folders: Vec<_> = self.folders.iter().map(|name| at(name)).collect();
            let folders: Vec<_> = folders.iter().map(String::as_str).collect();
            let pause = |time| {
                std::thread::sleep(time);
                false
            };
            let chooser =
                Chooser { wanted: &self.wanted, family: Family::V4, answers: &self.answers, pause: &pause };
            chooser.choose_from(Places {
                variable: self.variable.clone(),
                own: Some(self.folder.join(self.own)),
                folders: &folders,
            })
        }
    }

    #[rstest]
    #[case::beside("ours", &["ours-newer"], Some("ours"))]
    #[case::in_the_first("empty", &["ours", "ours-newer"], Some("ours"))]
    #[case::in_a_later_one("absent", &["absent", "empty", "text", "folder", "ours"], Some("ours"))]
    #[case::after_one_of_kea("keas", &["keas-older", "ours"], Some("ours"))]
    #[case::after_an_older_one("ours-older", &["ours-newer"], Some("ours-newer"))]
    #[case::after_one_that_says_nothing("mute", &["failing", "ours"], Some("ours"))]
    #[case::only_one_of_kea("keas", &["keas"], None)]
    #[case::only_older_ones("ours-older", &["keas-older"], None)]
    #[case::nowhere("absent", &["empty", "text", "folder"], None)]
    fn only_this_projects_program_is_taken_without_being_named(
        #[case] own: &str,
        #[case] folders: &[&str],
        #[case] found: Option<&str>,
    ) {
        let folder = folder();
        for variable in [None, Some(OsString::new())] {
            let choice =
                Choice { variable, own, folders, ..Choice::of(folder.path(), LfcProgram::Installed) };
            let found = found.map(|name| folder.path().join(name).join(NAME));
            assert_eq!(choice.choose(), found);
            assert_eq!(choice.choose(), found, "what is remembered is the same");
        }
    }

    #[rstest]
    #[case::ours("ours/kea-lfc", true)]
    #[case::ours_newer("ours-newer/kea-lfc", true)]
    #[case::ours_older("ours-older/kea-lfc", false)]
    #[case::keas("keas/kea-lfc", true)]
    #[case::keas_older("keas-older/kea-lfc", false)]
    #[case::one_that_says_nothing("mute/kea-lfc", true)]
    #[case::one_that_fails_when_it_is_asked("failing/kea-lfc", true)]
    #[case::absent("absent", false)]
    #[case::not_executable("text/kea-lfc", false)]
    #[case::a_folder("folder/kea-lfc", false)]
    fn a_program_that_is_named_is_the_only_one_in_question(#[case] name: &str, #[case] good: bool) {
        let folder = folder();
        let path = folder.path().join(name);
        let expected = good.then(|| path.clone());
        let by_configuration = Choice {
            // The configuration goes first.
            variable: Some(folder.path().join("ours-newer/kea-lfc").into()),
            own: "ours-newer",
            folders: &["ours-newer"],
            ..Choice::of(folder.path(), LfcProgram::Program(path.clone()))
        };
        assert_eq!(by_configuration.choose(), expected);
        let by_environment = Choice {
            variable: Some(path.clone().into()),
            own: "ours-newer",
            folders: &["ours-newer"],
            ..Choice::of(folder.path(), LfcProgram::Installed)
        };
        assert_eq!(by_environment.choose(), expected);
    }

    #[test]
    fn a_program_is_asked_once_for_many_cleanups() {
        let folder = folder();
        let path = folder.path().join("keas/kea-lfc");
        let choice = Choice::of(folder.path(), LfcProgram::Program(path.clone()));
        for _ in 0..3 {
            assert_eq!(choice.choose(), Some(path.clone()));
        }
        assert_eq!(std::fs::read_to_string(folder.path().join("keas/kea-lfc.asked")).unwrap(), "-4 -V\n");
    }

    #[test]
    fn a_name_without_a_folder_is_not_looked_for_elsewhere() {
        let folder = folder();
        assert_eq!(Choice::of(folder.path(), LfcProgram::Program("sh".into())).choose(), None);
    }

    #[test]
    fn inside_the_process_no_program_is_looked_for() {
        let folder = folder();
        let choice = Choice {
            variable: Some(folder.path().join("ours/kea-lfc").into()),
            own: "ours",
            folders: &["ours"],
            ..Choice::of(folder.path(), LfcProgram::Internal)
        };
        assert_eq!(choice.choose(), None);
        assert!(!folder.path().join("ours/kea-lfc.asked").exists());
    }
}
