//! Opens memfiles that are described by connection strings.

use std::ffi::{OsStr, OsString};
use std::path::{Component, Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use super::storage::packed_lease::StoredLease;
use super::{LfcProgram, Memfile, MemfileOptions, OpenRetries};
use crate::connection::{ConnectionString, ConnectionStringError, decimal};
use crate::factory::{LeaseMgrOpener, OpenerError};
use crate::lease::{ExtendedInfoChecks, Family};
use crate::lease_mgr::{Durability, LeaseMgr, OnFail};

/// The default directory of lease files.
const DATA_DIRECTORY: &str = "/var/lib/kea";

/// Opens the lease managers of the backend `memfile`.
///
/// | keyword | value | default |
/// |---|---|---|
/// | `name` | the lease file; a name without `/` is in the data directory | `kea-leases4.csv`, `kea-leases6.csv` |
/// | `data-directory` | the data directory, an absolute path, within `$KEA_DHCP_DATA_DIR` if that is set | `$KEA_DHCP_DATA_DIR`, or `/var/lib/kea` |
/// | `persist` | `true`, or `false` for leases in memory only | `true` |
/// | `lfc-interval` | seconds between two cleanups, up to 4294967295; 0 disables cleanups | 3600 |
/// | `max-row-errors` | maximum number of tolerated invalid rows in each loaded file, up to 4294967295; 0 for any number | 0 |
/// | `extended-info-tables` | `true` to find DHCPv6 leases by relay ID and remote ID | `false` |
/// | `extended-info-checks` | [`none`, `fix`, `strict` or `pedantic`](ExtendedInfoChecks), when leases are loaded | `fix` |
/// | `on-fail` | [`stop-retry-exit`, `serve-retry-exit` or `serve-retry-continue`](OnFail) | `stop-retry-exit` |
/// | `retry-on-startup` | `true` to retry opening while another manager has the lease file, a cleanup runs, or a file cannot be read or written | `false` |
/// | `max-reconnect-tries` | maximum number of further attempts with `retry-on-startup`, up to 4294967295 | 0 |
/// | `reconnect-wait-time` | milliseconds before each further attempt, up to 4294967295 | 0 |
/// | `durability` | [`written`](Durability::Written), [`synced`](Durability::Synced), or [milliseconds](Durability::SyncedEvery) as `100ms`, from 1 to 3600000 | `written` |
/// | `lfc-executable` | the file name of the program that does cleanups, or `internal` for a thread of this process | see [`LfcProgram::Installed`] |
///
/// `on-fail` is what a server does when the journal refuses changes
/// ([`Status::on_fail`](crate::Status::on_fail)); with each of its values, the manager itself
/// refuses changes until it is reopened. `max-reconnect-tries` and `reconnect-wait-time` have no
/// effect without `retry-on-startup`: a memfile has no connection to lose. Opening blocks its
/// thread while it waits.
///
/// If `data-directory` or `$KEA_DHCP_DATA_DIR` sets a data directory, the lease file must be in it
/// or in one of its subdirectories: relative names are resolved within it, and names with `..` and
/// absolute names elsewhere are refused. Symbolic links are not resolved for this check; see
/// [`OsFileSystem`](crate::fs::OsFileSystem) for them.
///
/// If `$KEA_DHCP_DATA_DIR` is set, connection strings cannot start programs: `lfc-executable` can
/// only be `internal`. `$KEA_LFC_EXECUTABLE` can still name a program.
#[derive(Clone, Copy, Debug, Default)]
pub struct MemfileOpener;

impl<L: StoredLease> LeaseMgrOpener<L> for MemfileOpener {
    fn name(&self) -> &str {
        "memfile"
    }

    /// Returns the version of this crate and that of the lease files that it writes.
    fn version(&self) -> String {
        format!("{}, {} lease files {}", env!("CARGO_PKG_VERSION"), L::FAMILY, L::schema().version())
    }

    fn keywords(&self) -> &[&str] {
        &[
            "name",
            "data-directory",
            "persist",
            "lfc-interval",
            "max-row-errors",
            "extended-info-tables",
            "extended-info-checks",
            "on-fail",
            "retry-on-startup",
            "max-reconnect-tries",
            "reconnect-wait-time",
            "durability",
            "lfc-executable",
        ]
    }

    fn open(&self, connection: &ConnectionString) -> Result<Arc<dyn LeaseMgr<L>>, OpenerError> {
        let options = options(connection, L::FAMILY, std::env::var_os("KEA_DHCP_DATA_DIR"))?;
        Ok(Arc::new(Memfile::<L>::open(options)?))
    }
}

/// Reads the options from a connection string. `directory` is the data directory of the
/// environment.
fn options(
    connection: &ConnectionString,
    family: Family,
    directory: Option<OsString>,
) -> Result<MemfileOptions, ConnectionStringError> {
    let defaults = MemfileOptions::default();
    let persist = connection.flag("persist")?.unwrap_or(true);
    let seconds = connection.number("lfc-interval", 0..=u32::MAX.into())?;
    let errors = connection.number("max-row-errors", 0..=u32::MAX.into())?;
    let lfc_program = program(connection, directory.as_deref())?;
    Ok(MemfileOptions {
        file: persist.then(|| file(connection, family, directory)).transpose()?,
        lfc_interval: seconds.map_or(defaults.lfc_interval, |s| (s > 0).then(|| Duration::from_secs(s))),
        max_row_errors: errors.filter(|&errors| errors > 0),
        extended_info_tables: connection.flag("extended-info-tables")?.unwrap_or(false),
        extended_info_checks: connection
            .choice("extended-info-checks", &ExtendedInfoChecks::NAMES)?
            .unwrap_or_default(),
        on_fail: connection.choice("on-fail", &OnFail::NAMES)?.unwrap_or_default(),
        open_retries: open_retries(connection)?,
        durability: durability(connection)?,
        lfc_program,
        ..defaults
    })
}

/// Returns the program that does cleanups. If the environment sets a data directory, connection
/// strings may come from people other than the operator of the server, and cannot start programs.
fn program(
    connection: &ConnectionString,
    environment: Option<&OsStr>,
) -> Result<LfcProgram, ConnectionStringError> {
    const KEYWORD: &str = "lfc-executable";
    match connection.get(KEYWORD) {
        None => Ok(LfcProgram::Installed),
        Some("internal") => Ok(LfcProgram::Internal),
        Some(_) if environment.is_some_and(|directory| !directory.is_empty()) => {
            let expected = "internal, as KEA_DHCP_DATA_DIR is set; name a program by KEA_LFC_EXECUTABLE";
            Err(connection.bad_value(KEYWORD, expected))
        }
        Some(name) if name.is_empty() || name.ends_with('/') => {
            Err(connection.bad_value(KEYWORD, "the file name of a program, or internal"))
        }
        Some(name) => Ok(LfcProgram::Program(name.into())),
    }
}

fn file(
    connection: &ConnectionString,
    family: Family,
    directory: Option<OsString>,
) -> Result<PathBuf, ConnectionStringError> {
    let default = match family {
        Family::V4 => "kea-leases4.csv",
        Family::V6 => "kea-leases6.csv",
    };
    let name = connection.get("name").unwrap_or(default);
    if name.is_empty() || name.ends_with('/') {
        return Err(connection.bad_value("name", "the name of a file"));
    }
    let Some(directory) = data_directory(connection, directory)? else {
        return Ok(if name.contains('/') { name.into() } else { Path::new(DATA_DIRECTORY).join(name) });
    };
    let file = directory.join(name);
    if !is_within(&file, &directory) {
        return Err(connection.bad_value("name", format!("a file in the data directory {directory:?}")));
    }
    Ok(file)
}

/// Returns the data directory, if one is set. The keyword cannot lead out of the directory of the
/// environment, which may restrict the authors of connection strings to it.
fn data_directory(
    connection: &ConnectionString,
    environment: Option<OsString>,
) -> Result<Option<PathBuf>, ConnectionStringError> {
    let environment = environment.filter(|directory| !directory.is_empty()).map(PathBuf::from);
    let Some(directory) = connection.get("data-directory").map(PathBuf::from) else {
        return Ok(environment);
    };
    if !directory.is_absolute() {
        return Err(connection.bad_value("data-directory", "an absolute path of a directory"));
    }
    match environment {
        Some(outer) if directory != outer && !is_within(&directory, &outer) => {
            let expected = format!("a directory within KEA_DHCP_DATA_DIR, {outer:?}");
            Err(connection.bad_value("data-directory", expected))
        }
        _ => Ok(Some(directory)),
    }
}

/// Returns whether a path is below a directory and never leads out of it.
fn is_within(path: &Path, directory: &Path) -> bool {
    let is_plain = |part: Component<'_>| matches!(part, Component::Normal(_));
    path.strip_prefix(directory)
        .is_ok_and(|rest| rest.components().all(is_plain) && rest.components().next().is_some())
}

fn open_retries(connection: &ConnectionString) -> Result<Option<OpenRetries>, ConnectionStringError> {
    let number = |keyword| connection.number(keyword, 0..=u32::MAX.into());
    // Both values are checked even where they have no effect.
    let tries = number("max-reconnect-tries")?.and_then(|tries| u32::try_from(tries).ok()).unwrap_or(0);
    let wait = Duration::from_millis(number("reconnect-wait-time")?.unwrap_or(0));
    let is_asked_for = connection.flag("retry-on-startup")?.unwrap_or(false);
    Ok((is_asked_for && tries > 0).then_some(OpenRetries { tries, wait }))
}

fn durability(connection: &ConnectionString) -> Result<Durability, ConnectionStringError> {
    match connection.get("durability") {
        None => Ok(Durability::default()),
        Some("written") => Ok(Durability::Written),
        Some("synced") => Ok(Durability::Synced),
        Some(value) => value
            .strip_suffix("ms")
            .and_then(decimal)
            .filter(|time| (1..=3_600_000).contains(time))
            .map(|time| Durability::SyncedEvery(Duration::from_millis(time)))
            .ok_or_else(|| connection.bad_value("durability", "written, synced, or 1ms to 3600000ms")),
    }
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::*;
    use crate::connection::KEYWORDS;
    use crate::lease::{Lease4, Lease6};

    fn read(text: &str) -> Result<MemfileOptions, ConnectionStringError> {
        options(&text.parse().unwrap(), Family::V4, Some("/data".into()))
    }

    #[test]
    fn a_memfile_is_on_disk_and_cleaned_up_every_hour_by_default() {
        let options = read("type=memfile").unwrap();
        assert_eq!(options.file, Some("/data/kea-leases4.csv".into()));
        assert_eq!(options.lfc_interval, Some(Duration::from_secs(3600)));
        assert_eq!(options.max_row_errors, None);
        assert!(!options.extended_info_tables);
        assert_eq!(options.durability, Durability::Written);
    }

    #[rstest]
    #[case::default4("", Family::V4, Some("/data"), "/data/kea-leases4.csv")]
    #[case::default6("", Family::V6, Some("/data"), "/data/kea-leases6.csv")]
    #[case::no_directory("", Family::V6, None, "/var/lib/kea/kea-leases6.csv")]
    #[case::empty_directory("", Family::V4, Some(""), "/var/lib/kea/kea-leases4.csv")]
    #[case::relative_directory("", Family::V4, Some("data"), "data/kea-leases4.csv")]
    #[case::name("name=a.csv", Family::V4, Some("/data"), "/data/a.csv")]
    #[case::relative("name=./a.csv", Family::V4, None, "./a.csv")]
    #[case::relative_in_a_directory("name=b/a.csv", Family::V4, Some(""), "b/a.csv")]
    #[case::absolute("name=/b/a.csv", Family::V4, None, "/b/a.csv")]
    #[case::upwards("name=../a.csv", Family::V4, None, "../a.csv")]
    #[case::keyword("data-directory=/b name=a.csv", Family::V4, None, "/b/a.csv")]
    #[case::keyword_without_a_name("data-directory=/b", Family::V6, Some(""), "/b/kea-leases6.csv")]
    #[case::keyword_as_the_environment(
        "data-directory=/data/",
        Family::V4,
        Some("/data"),
        "/data/kea-leases4.csv"
    )]
    #[case::keyword_in_the_environment(
        "data-directory=/data/b name=a",
        Family::V4,
        Some("/data"),
        "/data/b/a"
    )]
    #[case::relative_in_a_set_directory("name=./a.csv", Family::V4, Some("/data"), "/data/a.csv")]
    #[case::deeper_in_a_set_directory("name=b/a.csv", Family::V4, Some("/data"), "/data/b/a.csv")]
    #[case::absolute_in_a_set_directory("name=/data/b/./a.csv", Family::V4, Some("/data/."), "/data/b/a.csv")]
    #[case::dots_in_a_name("name=..a...csv", Family::V4, Some("/data"), "/data/..a...csv")]
    fn a_file_is_in_the_data_directory_if_there_is_one_or_its_name_has_no_slash(
        #[case] text: &str,
        #[case] family: Family,
        #[case] directory: Option<&str>,
        #[case] file: &str,
    ) {
        let options = options(&text.parse().unwrap(), family, directory.map(OsString::from)).unwrap();
        assert_eq!(options.file, Some(file.into()));
    }

    #[rstest]
    #[case::absolute("name=/b/a.csv", Some("/data"))]
    #[case::beginning_of_the_name("name=/database/a.csv", Some("/data"))]
    #[case::the_directory_itself("name=/data", Some("/data"))]
    #[case::a_dot("name=.", Some("/data"))]
    #[case::upwards("name=../data/a.csv", Some("/data"))]
    #[case::upwards_after_it("name=/data/../a.csv", Some("/data"))]
    #[case::upwards_and_back("name=b/../a.csv", Some("/data"))]
    #[case::only_upwards("name=..", Some("/data"))]
    #[case::keyword("data-directory=/data name=/b/a.csv", None)]
    #[case::keyword_in_the_environment("data-directory=/data name=/c/a.csv", Some("/"))]
    fn no_name_leads_out_of_the_data_directory(#[case] text: &str, #[case] directory: Option<&str>) {
        let connection: ConnectionString = text.parse().unwrap();
        let error = options(&connection, Family::V4, directory.map(OsString::from)).unwrap_err();
        let name = connection.get("name").unwrap();
        assert_eq!(
            error.to_string(),
            format!("name is {name:?}, expected a file in the data directory \"/data\"")
        );
    }

    #[rstest]
    #[case::elsewhere("/b")]
    #[case::its_parent("/")]
    #[case::upwards_out_of_it("/data/../b")]
    fn the_keyword_does_not_lead_out_of_the_directory_of_the_environment(#[case] directory: &str) {
        let error = read(&format!("data-directory={directory}")).unwrap_err();
        let expected = "a directory within KEA_DHCP_DATA_DIR, \"/data\"";
        assert_eq!(error.to_string(), format!("data-directory is {directory:?}, expected {expected}"));
    }

    #[rstest]
    #[case("persist=false", None)]
    #[case("persist=false name=/a.csv", None)]
    #[case("persist=true name=/data/a.csv", Some("/data/a.csv"))]
    fn without_persist_there_is_no_file(#[case] text: &str, #[case] file: Option<&str>) {
        assert_eq!(read(text).unwrap().file, file.map(PathBuf::from));
    }

    #[rstest]
    #[case("lfc-interval=0", None)]
    #[case("lfc-interval=1", Some(1))]
    #[case("lfc-interval=4294967295", Some(4_294_967_295))]
    fn an_interval_of_0_disables_cleanups(#[case] text: &str, #[case] seconds: Option<u64>) {
        assert_eq!(read(text).unwrap().lfc_interval, seconds.map(Duration::from_secs));
    }

    #[rstest]
    #[case("max-row-errors=0", None)]
    #[case("max-row-errors=1", Some(1))]
    #[case("max-row-errors=4294967295", Some(4_294_967_295))]
    fn a_limit_of_0_tolerates_any_number_of_invalid_rows(#[case] text: &str, #[case] errors: Option<u64>) {
        assert_eq!(read(text).unwrap().max_row_errors, errors);
    }

    #[rstest]
    #[case("extended-info-tables=true", true)]
    #[case("extended-info-tables=false", false)]
    fn extended_info_tables_are_optional(#[case] text: &str, #[case] kept: bool) {
        assert_eq!(read(text).unwrap().extended_info_tables, kept);
    }

    #[rstest]
    #[case("", ExtendedInfoChecks::Fix)]
    #[case("extended-info-checks=none", ExtendedInfoChecks::None)]
    #[case("extended-info-checks=fix", ExtendedInfoChecks::Fix)]
    #[case("extended-info-checks=strict", ExtendedInfoChecks::Strict)]
    #[case("extended-info-checks=pedantic", ExtendedInfoChecks::Pedantic)]
    fn the_keyword_selects_the_extended_info_checks(#[case] text: &str, #[case] checks: ExtendedInfoChecks) {
        assert_eq!(read(text).unwrap().extended_info_checks, checks);
    }

    #[rstest]
    #[case("", OnFail::StopRetryExit)]
    #[case("on-fail=stop-retry-exit", OnFail::StopRetryExit)]
    #[case("on-fail=serve-retry-exit", OnFail::ServeRetryExit)]
    #[case("on-fail=serve-retry-continue", OnFail::ServeRetryContinue)]
    fn on_fail_is_one_of_three(#[case] text: &str, #[case] on_fail: OnFail) {
        assert_eq!(read(text).unwrap().on_fail, on_fail);
    }

    #[rstest]
    #[case("", None)]
    #[case("retry-on-startup=true", None)]
    #[case("max-reconnect-tries=3 reconnect-wait-time=500", None)]
    #[case("retry-on-startup=false max-reconnect-tries=3", None)]
    #[case("retry-on-startup=true max-reconnect-tries=0", None)]
    #[case("retry-on-startup=true max-reconnect-tries=3", Some((3, 0)))]
    #[case("retry-on-startup=true max-reconnect-tries=4294967295 reconnect-wait-time=4294967295", Some((u32::MAX, 4_294_967_295)))]
    fn opening_is_retried_on_startup_only(#[case] text: &str, #[case] retries: Option<(u32, u64)>) {
        let retries = retries.map(|(tries, wait)| OpenRetries { tries, wait: Duration::from_millis(wait) });
        assert_eq!(read(text).unwrap().open_retries, retries);
    }

    #[rstest]
    #[case("durability=written", Durability::Written)]
    #[case("durability=synced", Durability::Synced)]
    #[case("durability=1ms", Durability::SyncedEvery(Duration::from_millis(1)))]
    #[case("durability=3600000ms", Durability::SyncedEvery(Duration::from_secs(3600)))]
    fn durability_is_a_word_or_a_time(#[case] text: &str, #[case] durability: Durability) {
        assert_eq!(read(text).unwrap().durability, durability);
    }

    #[rstest]
    #[case::absent("", None, LfcProgram::Installed)]
    #[case::absent_in_a_set_directory("", Some("/data"), LfcProgram::Installed)]
    #[case::a_program("lfc-executable=/usr/sbin/kea-lfc", None, LfcProgram::Program("/usr/sbin/kea-lfc".into()))]
    #[case::in_an_empty_directory("lfc-executable=/opt/lfc", Some(""), LfcProgram::Program("/opt/lfc".into()))]
    #[case::relative("lfc-executable=./internal", None, LfcProgram::Program("./internal".into()))]
    #[case::internal("lfc-executable=internal", None, LfcProgram::Internal)]
    #[case::internal_in_a_set_directory("lfc-executable=internal", Some("/data"), LfcProgram::Internal)]
    fn the_cleanup_program_is_installed_named_or_internal(
        #[case] text: &str,
        #[case] directory: Option<&str>,
        #[case] program: LfcProgram,
    ) {
        for family in [Family::V4, Family::V6] {
            let options = options(&text.parse().unwrap(), family, directory.map(OsString::from)).unwrap();
            assert_eq!(options.lfc_program, program);
        }
    }

    #[rstest]
    #[case::empty("lfc-executable=", None, "the file name of a program, or internal")]
    #[case::a_directory("lfc-executable=/usr/sbin/", None, "the file name of a program, or internal")]
    #[case::where_the_environment_sets_the_data_directory(
        "lfc-executable=/usr/sbin/kea-lfc",
        Some("/data"),
        "internal, as KEA_DHCP_DATA_DIR is set; name a program by KEA_LFC_EXECUTABLE"
    )]
    fn a_forbidden_program_is_refused(
        #[case] text: &str,
        #[case] directory: Option<&str>,
        #[case] expected: &str,
    ) {
        let connection: ConnectionString = text.parse().unwrap();
        let error = options(&connection, Family::V6, directory.map(OsString::from)).unwrap_err();
        let value = connection.get("lfc-executable").unwrap();
        assert_eq!(error.to_string(), format!("lfc-executable is {value:?}, expected {expected}"));
    }

    #[rstest]
    #[case("name", "", "the name of a file")]
    #[case("name", "/data/", "the name of a file")]
    #[case("data-directory", "data", "an absolute path of a directory")]
    #[case("data-directory", "", "an absolute path of a directory")]
    #[case("persist", "yes", "true or false")]
    #[case("lfc-interval", "-1", "a number from 0 to 4294967295")]
    #[case("lfc-interval", "4294967296", "a number from 0 to 4294967295")]
    #[case("lfc-interval", "1h", "a number from 0 to 4294967295")]
    #[case("max-row-errors", "4294967296", "a number from 0 to 4294967295")]
    #[case("extended-info-tables", "", "true or false")]
    #[case("extended-info-checks", "all", "one of none, fix, strict, pedantic")]
    #[case("extended-info-checks", "Fix", "one of none, fix, strict, pedantic")]
    #[case("extended-info-checks", "", "one of none, fix, strict, pedantic")]
    #[case("on-fail", "exit", "one of stop-retry-exit, serve-retry-exit, serve-retry-continue")]
    #[case("on-fail", "", "one of stop-retry-exit, serve-retry-exit, serve-retry-continue")]
    #[case("retry-on-startup", "yes", "true or false")]
    #[case("max-reconnect-tries", "-1", "a number from 0 to 4294967295")]
    #[case("max-reconnect-tries", "4294967296", "a number from 0 to 4294967295")]
    #[case("reconnect-wait-time", "1s", "a number from 0 to 4294967295")]
    #[case("reconnect-wait-time", "4294967296", "a number from 0 to 4294967295")]
    #[case("durability", "never", "written, synced, or 1ms to 3600000ms")]
    #[case("durability", "Synced", "written, synced, or 1ms to 3600000ms")]
    #[case("durability", "100", "written, synced, or 1ms to 3600000ms")]
    #[case("durability", "ms", "written, synced, or 1ms to 3600000ms")]
    #[case("durability", "0ms", "written, synced, or 1ms to 3600000ms")]
    #[case("durability", "+1ms", "written, synced, or 1ms to 3600000ms")]
    #[case("durability", "3600001ms", "written, synced, or 1ms to 3600000ms")]
    fn an_invalid_value_is_named(#[case] keyword: &str, #[case] value: &str, #[case] expected: &str) {
        let error = read(&format!("{keyword}={value}")).unwrap_err();
        assert_eq!(error.to_string(), format!("{keyword} is {value:?}, expected {expected}"));
    }

    #[test]
    fn the_keywords_match_the_keyword_table() {
        let of_table = KEYWORDS.iter().filter(|keyword| keyword.backends.contains(&"memfile"));
        let mut of_table: Vec<_> = of_table.map(|keyword| keyword.name).collect();
        let mut own = ["type", "universe"].to_vec();
        own.extend(LeaseMgrOpener::<Lease4>::keywords(&MemfileOpener));
        of_table.sort_unstable();
        own.sort_unstable();
        assert_eq!(own, of_table);
    }

    #[test]
    fn the_version_includes_that_of_the_lease_files() {
        let version = env!("CARGO_PKG_VERSION");
        let backend = MemfileOpener;
        assert_eq!(LeaseMgrOpener::<Lease4>::version(&backend), format!("{version}, DHCPv4 lease files 3.0"));
        assert_eq!(LeaseMgrOpener::<Lease6>::version(&backend), format!("{version}, DHCPv6 lease files 5.0"));
    }
}
