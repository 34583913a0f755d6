//! The commands for the server itself, and its files.

use std::path::{Path, PathBuf};
use std::process;

use super::family::{CommandLease, leases_of};
use super::{Answer, CommandError, Commands, Reply, Request};
use crate::export::WriteLeases;
use crate::lease::Json;
use crate::lease_mgr::{CleanupStart, LeaseMgr, ManagedLease, Status};

/// The backend whose leases are in files.
const FILES: &str = "memfile";

/// `list-commands`
pub(super) fn list<'a>(commands: &'a Commands, _: &Request<'a>) -> Result<Reply<'a>, CommandError> {
    let names = commands.names().map(Json::from).collect();
    Ok(Answer::success("").with_arguments(names).into())
}

/// `version-get`
pub(super) fn version<'a>(commands: &'a Commands, _: &Request<'a>) -> Result<Reply<'a>, CommandError> {
    let extended = format!("{} (leasemgr {})", commands.version, env!("CARGO_PKG_VERSION"));
    let arguments = Json::map([("extended", Json::from(extended.as_str()))]);
    Ok(Answer::success(commands.version.as_str()).with_arguments(arguments).into())
}

/// `config-get`
pub(super) fn config<'a>(commands: &'a Commands, _: &Request<'a>) -> Result<Reply<'a>, CommandError> {
    let config = commands.config.as_ref().map_or_else(Json::empty_map, |config| config());
    Ok(Answer::success("").with_arguments(config).into())
}

/// `status-get`
pub(super) fn status<'a>(commands: &'a Commands, _: &Request<'a>) -> Result<Reply<'a>, CommandError> {
    let uptime = commands.started.elapsed().as_secs();
    let mut members = vec![
        ("pid".to_owned(), Json::from(process::id())),
        ("uptime".to_owned(), Json::from(uptime)),
        ("reload".to_owned(), Json::from(uptime)),
        ("dhcp-state".to_owned(), commands.service.to_json()),
    ];
    let statuses = [status_of(&commands.store4), status_of(&commands.store6)];
    if let Some(file) = statuses.into_iter().flatten().find_map(|status| status.lease_file) {
        members.push(("csv-lease-file".to_owned(), Json::from(file.display().to_string().as_str())));
    }
    members.extend(commands.status.iter().map(|(key, status)| (key.clone(), status())));
    Ok(Answer::success("").with_arguments(Json::map(members)).into())
}

fn status_of<L: ManagedLease>(store: &super::subnet::Store<L>) -> Option<Status> {
    store.leases.as_ref().map(|leases| leases.status())
}

/// `kea-lfc-start`
pub(super) fn start_cleanup<'a>(commands: &'a Commands, _: &Request<'a>) -> Result<Reply<'a>, CommandError> {
    let (four, six) = (commands.store4.leases.as_deref(), commands.store6.leases.as_deref());
    let starts = [four.map(clean_up), six.map(clean_up)];
    // A server has leases of one family, as a rule.
    for start in starts.into_iter().flatten() {
        start?;
    }
    Ok(Answer::success("the cleanup of the lease file was started").into())
}

fn clean_up<L: ManagedLease>(leases: &dyn LeaseMgr<L>) -> Result<(), CommandError> {
    match leases.clean_up()? {
        CleanupStart::Requested => Ok(()),
        CleanupStart::Running => Err(CommandError::Cleaning),
        CleanupStart::NotNeeded => {
            let backend = leases.status().backend;
            Err(CommandError::Backend {
                backend,
                operation: "clean up lease files, as it does not keep leases in files",
            })
        }
    }
}

/// `lease4-write`, `lease6-write`
pub(super) fn write<'a, L: CommandLease>(
    commands: &'a Commands,
    request: &Request<'a>,
) -> Result<Reply<'a>, CommandError> {
    let arguments = request.map()?;
    let name = arguments.required_text("filename")?;
    let leases = L::store(commands).leases()?;
    let status = leases.status();
    if status.backend != FILES {
        return Ok(
            Answer::error(format!("the backend {} does not write leases to files", status.backend)).into()
        );
    }
    let of_file = status.lease_file.as_deref().and_then(Path::parent);
    let directory = commands.data_directory.as_deref().or(of_file);
    let path = directory.and_then(|directory| path_in(directory, std::str::from_utf8(&name).ok()?));
    let path = path.ok_or_else(|| {
        arguments.wrong("filename", "the name of a file in the directory of the lease file")
    })?;
    let count = leases.write_to(&path)?;
    Ok(Answer::success(format!("{} written to {}", leases_of::<L>(count), path.display())).into())
}

/// Returns the path of a file in a directory: of its name, or of its path in that directory.
fn path_in(directory: &Path, name: &str) -> Option<PathBuf> {
    if name.trim().is_empty() || name.ends_with('/') || name.contains('\0') {
        return None;
    }
    let file = Path::new(name).file_name()?;
    let parent = Path::new(name).parent()?;
    let is_there = parent.as_os_str().is_empty() || parent == directory;
    is_there.then(|| directory.join(file))
}

/// `build-report`
pub(super) fn build_report<'a>(_: &'a Commands, _: &Request<'a>) -> Result<Reply<'a>, CommandError> {
    Ok(Answer::success(concat!("leasemgr ", env!("CARGO_PKG_VERSION"))).into())
}

/// Commands for tables of free leases, which only Kea's databases have.
pub(super) fn no_free_lease_tables<'a>(_: &'a Commands, _: &Request<'a>) -> Result<Reply<'a>, CommandError> {
    Ok(Answer::error("there are no tables of free leases").into())
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::*;

    #[rstest]
    #[case("out.csv", Some("/var/lib/kea/out.csv"))]
    #[case("/var/lib/kea/out.csv", Some("/var/lib/kea/out.csv"))]
    #[case("/var/lib/kea", None)]
    #[case("/var/lib/kea/", None)]
    #[case("/var/lib/kea/a/out.csv", None)]
    #[case("/var/lib/kea/../kea/out.csv", None)]
    #[case("/var/lib/kea/..", None)]
    #[case("../out.csv", None)]
    #[case("./out.csv", None)]
    #[case("..", None)]
    #[case("/etc/passwd", None)]
    #[case("", None)]
    #[case(" ", None)]
    #[case("a\0b", None)]
    fn a_file_is_in_the_directory_itself(#[case] name: &str, #[case] path: Option<&str>) {
        assert_eq!(path_in(Path::new("/var/lib/kea"), name), path.map(PathBuf::from));
    }
}
