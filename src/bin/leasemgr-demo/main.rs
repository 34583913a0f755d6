//! `leasemgr-demo`: a lease store in use, killed with SIGKILL, and opened again.
//!
//! A child process opens the store, and two of its threads add, renew and delete leases, while
//! `kea-lfc` cleans up the lease files. Each change is reported to this process when it is
//! acknowledged. After the kill, the store must have every acknowledged change.

#![expect(clippy::print_stdout, clippy::print_stderr, reason = "a program's own reports")]

mod directory;
mod found;
mod server;
mod steps;

use std::error::Error;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::{Duration, Instant};

use leasemgr::with_sources;

use directory::Directory;
use found::Found;
use server::Server;

type Outcome<T = ()> = Result<T, Box<dyn Error + Send + Sync>>;

/// Number of threads that change leases.
const THREADS: u32 = 2;
/// Time before the kill. It is longer if no cleanup has ended by then.
const USE: Duration = Duration::from_secs(4);
/// Maximum time before the kill.
const LONGEST_USE: Duration = Duration::from_secs(60);

const USAGE: &str = "usage: leasemgr-demo";

fn main() -> ExitCode {
    let arguments: Vec<_> = std::env::args().skip(1).collect();
    let arguments: Vec<_> = arguments.iter().map(String::as_str).collect();
    let result = match arguments[..] {
        [] => run(),
        [server::ARGUMENT, connection] => server::run(connection).map(|()| true),
        _ => Err(USAGE.into()),
    };
    match result {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("leasemgr-demo: {}", with_sources(error.as_ref()));
            ExitCode::FAILURE
        }
    }
}

/// Returns whether the store had every acknowledged change.
fn run() -> Outcome<bool> {
    let program = cleanup_program()?;
    let directory = Directory::new()?;
    let file = directory.path().join("leases4.csv");
    let connection = format!(
        "type=memfile universe=4 name='{}' lfc-interval=1 lfc-executable='{}'",
        file.display(),
        program.display()
    );
    println!("{connection}\n");
    println!("{THREADS} threads add, renew and delete leases, {} cleans up ...", program.display());
    let mut server = Server::start(&connection)?;
    let start = Instant::now();
    while server.is_running()?
        && start.elapsed() < LONGEST_USE
        && (start.elapsed() < USE || server.cleanups() == 0)
    {
        std::thread::sleep(Duration::from_millis(20));
    }
    let time = start.elapsed();
    let reports = server.kill()?;
    println!("The process that holds the store was killed with SIGKILL after {:.1} s.\n", time.as_secs_f64());

    let found = Found::new(&file, &program, &reports)?;
    println!("{found}");
    if found.is_right()? {
        println!("Nothing that was acknowledged is missing.");
        return Ok(true);
    }
    println!("Not as acknowledged; the files are kept in {}.", directory.keep().display());
    Ok(false)
}

/// Returns this project's `kea-lfc`, which is built with this program.
fn cleanup_program() -> Outcome<PathBuf> {
    let own = std::env::current_exe()?;
    let program = own.parent().unwrap_or(Path::new("/")).join("kea-lfc");
    if program.is_file() {
        Ok(program)
    } else {
        Err(format!("{} is missing; build both with: cargo build --features demo", program.display()).into())
    }
}
