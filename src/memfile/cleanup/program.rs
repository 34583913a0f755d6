//! Which program does a cleanup, and what it is told.

use std::ffi::{OsStr, OsString};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use tracing::{info, warn};

use crate::lease::Family;
use crate::lfc::LfcFiles;
use crate::memfile::LfcProgram;

/// The environment variable that names the program.
const VARIABLE: &str = "KEA_LFC_EXECUTABLE";

/// Where the program is looked for, in this order.
const FOLDERS: [&str; 4] = ["/usr/local/sbin", "/usr/local/bin", "/usr/sbin", "/usr/bin"];

/// The program that does the cleanup; `None` is a thread of this process.
pub(super) fn choose(wanted: &LfcProgram) -> Option<PathBuf> {
    choose_from(wanted, std::env::var_os(VARIABLE), &FOLDERS)
}

fn choose_from(wanted: &LfcProgram, variable: Option<OsString>, folders: &[&str]) -> Option<PathBuf> {
    let (program, named_by) = match wanted {
        LfcProgram::Internal => return None,
        LfcProgram::Program(program) => (program.clone(), "the configuration"),
        LfcProgram::Installed => match variable.filter(|program| !program.is_empty()) {
            Some(program) => (program.into(), VARIABLE),
            None => return installed(folders),
        },
    };
    // A mere name would be looked for in PATH.
    let checked = std::path::absolute(&program).and_then(|program| is_program(&program).map(|()| program));
    checked
        .inspect_err(|error| {
            warn!(
                id = "DHCPSRV_MEMFILE_LFC_NO_PROGRAM",
                "{named_by} names {} for the cleanup, which is no program that can be run: {error}; this process cleans up itself",
                program.display()
            );
        })
        .ok()
}

fn installed(folders: &[&str]) -> Option<PathBuf> {
    let candidates = folders.iter().map(|folder| Path::new(folder).join("kea-lfc"));
    let found = candidates.into_iter().find(|program| is_program(program).is_ok());
    if found.is_none() {
        info!(
            id = "DHCPSRV_MEMFILE_LFC_NO_PROGRAM",
            "no kea-lfc is installed in {}: this process cleans up itself",
            folders.join(", ")
        );
    }
    found
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
    use rstest::rstest;

    use super::*;

    /// A folder with a program in `bin`, and with things that are none.
    fn folder() -> tempfile::TempDir {
        let folder = tempfile::tempdir().unwrap();
        for name in ["bin", "empty", "text", "folder/kea-lfc"] {
            std::fs::create_dir_all(folder.path().join(name)).unwrap();
        }
        for (name, mode) in [("bin/kea-lfc", 0o755), ("bin/other", 0o711), ("text/kea-lfc", 0o644)] {
            let path = folder.path().join(name);
            std::fs::write(&path, "").unwrap();
            std::fs::set_permissions(&path, PermissionsExt::from_mode(mode)).unwrap();
        }
        folder
    }

    #[rstest]
    #[case::in_the_first(&["bin", "empty"], Some("bin/kea-lfc"))]
    #[case::in_a_later_one(&["absent", "empty", "text", "folder", "bin"], Some("bin/kea-lfc"))]
    #[case::nowhere(&["absent", "empty", "text", "folder"], None)]
    fn the_installed_program_is_looked_for(#[case] folders: &[&str], #[case] found: Option<&str>) {
        let folder = folder();
        let at = |name: &str| folder.path().join(name).to_str().unwrap().to_owned();
        let folders: Vec<_> = folders.iter().map(|name| at(name)).collect();
        let folders: Vec<_> = folders.iter().map(String::as_str).collect();
        for variable in [None, Some(OsString::new())] {
            let program = choose_from(&LfcProgram::Installed, variable, &folders);
            assert_eq!(program, found.map(|name| at(name).into()));
        }
    }

    #[rstest]
    #[case::a_program("bin/other", true)]
    #[case::absent("absent", false)]
    #[case::not_executable("text/kea-lfc", false)]
    #[case::a_folder("folder/kea-lfc", false)]
    fn a_program_that_is_named_is_the_only_one_in_question(#[case] name: &str, #[case] good: bool) {
        let folder = folder();
        let path = folder.path().join(name);
        let folders = [folder.path().join("bin")];
        let folders = [folders[0].to_str().unwrap()];
        let expected = good.then(|| path.clone());
        assert_eq!(choose_from(&LfcProgram::Program(path.clone()), None, &folders), expected);
        assert_eq!(choose_from(&LfcProgram::Installed, Some(path.into()), &folders), expected);
    }

    #[test]
    fn a_name_without_a_folder_is_not_looked_for_elsewhere() {
        assert_eq!(choose_from(&LfcProgram::Program("sh".into()), None, &[]), None);
    }

    #[test]
    fn inside_the_process_no_program_is_looked_for() {
        let folder = folder();
        let bin = folder.path().join("bin");
        let variable = Some(bin.join("kea-lfc").into());
        assert_eq!(choose_from(&LfcProgram::Internal, variable, &[bin.to_str().unwrap()]), None);
    }
}
