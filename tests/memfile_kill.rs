//! Kills the example `lease_server` at random moments, repeatedly, on real files.
//!
//! Every acknowledged change must be found when the files are opened, except for addresses with a
//! newer, unacknowledged change, of which there are only a few. `LEASEMGR_KILLS` sets the number of
//! kills in each case.

#![allow(clippy::print_stdout, clippy::unwrap_used, reason = "a test")]

mod support;

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use leasemgr::LeaseMgrExt;
use leasemgr::lease::{Family, Lease4, Lease6};
use rstest::rstest;

use support::Random;
use support::lease_server::{History, OfClient, Server, Setting, clean, last_changes};

/// Default number of kills in each case.
const KILLS: usize = 10;
/// Minimum number of lines that the server writes before it is killed.
const LINES: usize = 100;
/// Minimum size, in bytes, of a journal that is cleaned up between two servers.
const JOURNAL_LIMIT: u64 = 2 << 20;

/// The moment of a kill, after the first acknowledgements.
#[derive(Clone, Copy, Debug)]
enum Moment {
    After(Duration),
    /// Some time after this file appears.
    With(&'static str, Duration),
}

impl Moment {
    fn any(random: &mut Random) -> Self {
        let suffixes = [".1", ".pid", ".output", ".completed"];
        match suffixes.get(random.below(8) as usize) {
            Some(suffix) => Self::With(suffix, Duration::from_micros(random.below(300).into())),
            None => Self::After(Duration::from_millis(random.below(1500).into())),
        }
    }

    fn wait(self, server: &mut Server, setting: &Setting) {
        let start = Instant::now();
        match self {
            // The server must go on meanwhile.
            Self::After(time) => server.wait_until("some time has passed", |_| start.elapsed() >= time),
            Self::With(suffix, time) => {
                let path = setting.path(suffix);
                // Some files exist so briefly that they may never be seen.
                server.wait_until("the file exists", |_| path.exists() || start.elapsed().as_secs() >= 2);
                let seen = Instant::now();
                while seen.elapsed() < time {}
            }
        }
    }
}

fn kills() -> usize {
    std::env::var("LEASEMGR_KILLS").map_or(KILLS, |kills| kills.parse().unwrap())
}

#[rstest]
#[case::v4_written_program(Family::V4, "written", Some(env!("CARGO_BIN_EXE_kea-lfc")), 1)]
#[case::v4_synced_thread(Family::V4, "synced", None, 2)]
#[case::v6_written_thread(Family::V6, "written", None, 3)]
#[case::v6_synced_program(Family::V6, "synced", Some(env!("CARGO_BIN_EXE_kea-lfc")), 4)]
fn a_killed_server_loses_no_acknowledged_change(
    #[case] family: Family,
    #[case] durability: &'static str,
    #[case] program: Option<&'static str>,
    #[case] seed: u64,
) {
    let setting = Setting {
        directory: tempfile::tempdir().unwrap(),
        family,
        durability,
        program,
        lfc_interval: 1,
        clients: 2000,
        lifetime: 2,
        options: vec!["--clean-up-after".to_owned(), "200".to_owned()],
    };
    match family {
        Family::V4 => kill_repeatedly::<Lease4>(&setting, Random(seed)),
        Family::V6 => kill_repeatedly::<Lease6>(&setting, Random(seed)),
    }
}

fn kill_repeatedly<L: OfClient>(setting: &Setting, mut random: Random) {
    let mut history = History::default();
    let (mut lines, mut unacknowledged) = (0, 0);
    let mut situations = BTreeMap::<_, usize>::new();
    for n in 0..kills() {
        let moment = Moment::any(&mut random);
        let mut server = setting.start(history);
        server.wait_until("it has acknowledged some changes", |lines| lines >= LINES);
        moment.wait(&mut server, setting);
        let acknowledged;
        (history, acknowledged) = server.kill();
        *situations.entry(setting.situation()).or_default() += 1;
        // A power cut ends the program together with the server.
        if random.below(2) == 0 {
            setting.kill_program();
        }
        lines += acknowledged;
        println!("kill {n}, {moment:?}: {acknowledged} lines");
        let leases = setting.open::<L>();
        unacknowledged += history.compare(&last_changes(setting, &*leases));
        // A server that is killed early may never complete a cleanup of its own.
        if setting.journal_size() > JOURNAL_LIMIT {
            clean(&*leases);
            assert_eq!(history.compare(&last_changes(setting, &*leases)), 0);
        }
    }
    println!(
        "{} {}: {lines} lines, {unacknowledged} changes made and not acknowledged; files of a cleanup at the kills: {situations:?}",
        setting.family, setting.durability
    );

    // A server that is ended by a signal loses nothing, and can clean up the files of the killed
    // ones.
    let count = setting.open::<L>().all().unwrap().len();
    let mut server = setting.start(history);
    server.wait_until("it has acknowledged some changes", |lines| lines >= LINES);
    let (mut history, errors) = server.end();
    assert!(errors.contains(&format!("found {count} leases")), "{errors}");
    let leases = setting.open::<L>();
    assert_eq!(history.compare(&last_changes(setting, &*leases)), 0);
    let before = leases.all().unwrap();
    clean(&*leases);
    drop(leases);
    assert!(setting.open::<L>().all().unwrap() == before);
    assert_eq!(setting.situation(), "none");
}
