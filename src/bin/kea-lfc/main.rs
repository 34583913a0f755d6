//! `kea-lfc`: the program that a server starts to clean up its lease files, in place of Kea's
//! program of that name.

mod args;
mod log;
mod progress;

use std::io::{self, Write};
use std::os::fd::AsFd;
use std::process::ExitCode;

use leasemgr::lease::{Lease4, Lease6};
use leasemgr::lease_file::FileLease;
use leasemgr::lfc::{Cleanup, LfcError, Monitor, Outcome};
use leasemgr::with_sources;
use tracing::{info, warn};

use args::{Arguments, Command, USAGE};
use log::printable;

const VERSION: &str = env!("CARGO_PKG_VERSION");

/// The increase of the nice value: servers that clients wait for have priority.
const NICE: i32 = 4;

fn main() -> ExitCode {
    let succeeded = match Command::parse(std::env::args_os()) {
        Ok(Command::Clean(arguments)) => {
            let is_on_console = arguments.debug;
            let result = clean(arguments);
            if let Err(error) = &result
                && !is_on_console
            {
                // For the process that started this one, which does not see the log.
                let _ = print(io::stderr(), &format!("kea-lfc: {}\n", printable(with_sources(error))));
            }
            result.is_ok()
        }
        Ok(Command::Version) => print(io::stdout(), &format!("{VERSION}\n")).is_ok(),
        Ok(Command::Versions) => print(io::stdout(), &versions()).is_ok(),
        Ok(Command::BuildReport) => print(io::stdout(), &build_report()).is_ok(),
        Ok(Command::Help) => print(io::stderr(), USAGE).is_ok(),
        Err(error) => {
            // If standard error is closed, the error cannot be reported.
            let _ = print(io::stderr(), &format!("kea-lfc: {}\n{USAGE}", printable(error)));
            false
        }
    };
    if succeeded { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

/// Prints as `println!` does, but returns an error instead of panicking if the output is closed.
fn print(mut to: impl Write, text: &str) -> io::Result<()> {
    to.write_all(text.as_bytes())?;
    to.flush()
}

fn clean(arguments: Arguments) -> Result<Outcome, LfcError> {
    let bar = progress::bar(arguments.debug);
    if arguments.debug {
        // The cleanup does not depend on its output.
        let _ = print(io::stdout(), &arguments.to_string());
        log::to_console(bar.clone());
    } else {
        log::to_syslog();
    }
    let Arguments { family, files, .. } = arguments;
    info!(id = "LFC_START", "cleaning up {family} lease files");
    if let Err(error) = rustix::process::nice(NICE) {
        warn!(id = "LFC_PRIORITY", "cannot lower the priority: {error}");
    }

    let monitor = Monitor::default();
    let mut cleanup = Cleanup::new(family, files).monitor(&monitor);
    // A lease manager passes the lock of the cleanup as standard input.
    if let Ok(stdin) = io::stdin().as_fd().try_clone_to_owned() {
        cleanup = cleanup.inherited_lock(stdin.into());
    }
    let result = progress::show(&bar, &monitor, || cleanup.run());

    match &result {
        // The cleanup did not begin.
        Ok(Outcome::Running(_)) | Err(LfcError::PidFile { .. }) => {}
        Ok(_) => info!(id = "LFC_TERMINATE", "the cleanup is complete"),
        Err(_) => info!(id = "LFC_TERMINATE", "the cleanup has failed"),
    }
    result
}

/// Returns the versions of the program and of the files that it writes.
fn versions() -> String {
    let (v4, v6) = (Lease4::schema().version(), Lease6::schema().version());
    format!("kea-lfc {VERSION}\nlease files: DHCPv4 schema {v4}, DHCPv6 schema {v6}\n")
}

/// Returns how the program was built.
fn build_report() -> String {
    let os = std::env::consts::OS;
    let arch = std::env::consts::ARCH;
    let env = if cfg!(target_env = "musl") {
        "-musl"
    } else if cfg!(target_env = "gnu") {
        "-gnu"
    } else {
        ""
    };
    let profile = if cfg!(debug_assertions) { "debug" } else { "release" };
    let features: Vec<_> = [(cfg!(feature = "kea-lfc"), "kea-lfc"), (cfg!(feature = "serde"), "serde")]
        .into_iter()
        .filter_map(|(on, feature)| on.then_some(feature))
        .collect();
    let features = features.join(", ");
    let rustc = env!("CARGO_PKG_RUST_VERSION");
    let versions = versions();
    format!(
        "{versions}target: {arch}-{os}{env}\nprofile: {profile}\nfeatures: {features}\nrustc: {rustc} or newer\n"
    )
}
