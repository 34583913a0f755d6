//! What threads that ask for cleanups, the thread that does them and the end of the manager do to each other
//! (`scripts/threads`).
//!
//! Each cleanup fails at the lock of the PID file, before other threads and processes, which a model knows nothing of.

use shuttle::{check_pct, check_random};

use super::*;
use crate::lease_mgr::Durability;
use crate::memfile::journal::models::Disk;

const ORDERS: usize = 3000;

fn start(interval: Option<Duration>) -> Arc<Cleaner> {
    let disk = Disk::default();
    let fs: Arc<dyn FileSystem> = Arc::new(disk.clone());
    let files = LeaseFileSet::new("/leases/f");
    let path = files.current_path().to_owned();
    let journal = Journal::open(Arc::clone(&fs), path, "address,text", Durability::Written).unwrap();
    disk.refuse_locks();
    let config = CleanerConfig {
        family: Family::V4,
        files,
        fs,
        program: LfcProgram::Internal,
        interval,
        at_once: false,
        watch: Watch(Box::new(thread::yield_now)),
    };
    Arc::new(Cleaner::start(config, Arc::new(journal)).unwrap())
}

/// Waits for the end of this number of cleanups.
fn wait_for(cleaner: &Cleaner, count: u64) {
    while cleaner.status().failed < count {
        thread::yield_now();
    }
}

/// Drops the cleaner, after which its thread is gone.
fn end(cleaner: Arc<Cleaner>) {
    let cleaner = Arc::into_inner(cleaner).unwrap();
    let shared = Arc::clone(&cleaner.shared);
    drop(cleaner);
    assert_eq!(Arc::strong_count(&shared), 1, "the thread has not ended");
    assert!(!shared.state.lock().running);
}

/// Threads ask for cleanups, and wait for those that they were promised.
fn requesting() {
    let cleaner = start(None);
    let threads = (0..2).map(|_| {
        let cleaner = Arc::clone(&cleaner);
        thread::spawn(move || {
            let before = cleaner.status().failed;
            if cleaner.request() == CleanupStart::Requested {
                wait_for(&cleaner, before + 1);
            }
        })
    });
    threads.collect::<Vec<_>>().into_iter().for_each(|thread| thread.join().unwrap());
    assert!((1..=2).contains(&cleaner.status().failed));
    // One that is asked for now may begin or not.
    let _ = cleaner.request();
    end(cleaner);
}

/// Cleanups come by themselves, beside one that is asked for.
fn due() {
    let cleaner = start(Some(Duration::from_micros(50)));
    let _ = cleaner.request();
    wait_for(&cleaner, 3);
    end(cleaner);
}

#[test]
fn a_cleanup_that_was_asked_for_is_done_and_the_thread_ends() {
    check_random(requesting, ORDERS);
    check_pct(requesting, ORDERS, 3);
}

#[test]
fn cleanups_that_are_due_are_done_and_the_thread_ends() {
    check_random(due, ORDERS / 3);
}
