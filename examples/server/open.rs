//! Opening the leases of a server.

use std::error::Error;
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use leasemgr::FactoryError;
use leasemgr::memfile::OpenError;
use leasemgr::{LeaseMgr, LeaseMgrFactory, ManagedLease, with_sources};

/// Maximum time to wait for a running cleanup.
const TIMEOUT: Duration = Duration::from_secs(60);

/// Opens the lease manager. A cleanup of a server that was killed may still be running; it is
/// waited for up to a minute.
pub(crate) fn open<L: ManagedLease>(
    connection: &str,
) -> Result<Arc<dyn LeaseMgr<L>>, Box<dyn Error + Send + Sync>> {
    open_within(connection, TIMEOUT)
}

fn open_within<L: ManagedLease>(
    connection: &str,
    timeout: Duration,
) -> Result<Arc<dyn LeaseMgr<L>>, Box<dyn Error + Send + Sync>> {
    let factory = LeaseMgrFactory::<L>::new();
    let mut waiting_since = None;
    loop {
        let error = match factory.open(connection) {
            Err(FactoryError::Open { source, .. })
                if matches!(source.downcast_ref(), Some(OpenError::CleanupRunning { .. })) =>
            {
                source
            }
            opened => return Ok(opened?),
        };
        let start = match waiting_since {
            Some(start) => start,
            None => {
                eprintln!("waiting for a cleanup, {timeout:?} at most: {}", with_sources(&*error));
                *waiting_since.insert(Instant::now())
            }
        };
        if start.elapsed() >= timeout {
            return Err(format!(
                "waited {timeout:?} for a cleanup that is running: {}",
                with_sources(&*error)
            )
            .into());
        }
        thread::sleep(Duration::from_millis(100));
    }
}

#[cfg(test)]
mod tests {
    use leasemgr::fs::{FileSystem, OsFileSystem};
    use leasemgr::lease::{Lease4, Lease6};

    use super::*;

    #[test]
    fn a_running_cleanup_is_waited_for_for_a_limited_time() {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("leases.csv");
        let connection = format!("type=memfile name={} lfc-interval=0", file.display());
        let pid_file = format!("{}.pid", file.display());
        std::fs::write(&pid_file, "4711\n").unwrap();
        let lock = OsFileSystem.try_lock(format!("{pid_file}.running").as_ref()).unwrap().unwrap();
        let error = open_within::<Lease4>(&connection, Duration::from_millis(300)).map(drop).unwrap_err();
        let error = error.to_string();
        assert!(error.starts_with("waited 300ms for a cleanup that is running: "), "{error}");
        assert!(error.contains(&format!("process 4711 of {pid_file} ")), "{error}");

        let end = thread::spawn(move || {
            thread::sleep(Duration::from_millis(300));
            drop(lock);
        });
        open_within::<Lease4>(&connection, TIMEOUT).unwrap();
        end.join().unwrap();
    }

    #[test]
    fn a_pid_of_another_process_is_not_waited_for() {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("leases.csv");
        std::fs::write(format!("{}.pid", file.display()), "1\n").unwrap();
        let connection = format!("type=memfile name={} lfc-interval=0", file.display());
        open_within::<Lease6>(&connection, Duration::ZERO).unwrap();
    }
}
