//! Serializes fields of a status to JSON: times in seconds since the epoch, durations in seconds,
//! paths as text.

use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use serde::{Serialize, Serializer};

use crate::lease::seconds_since_epoch;

pub(super) fn time<S: Serializer>(time: &SystemTime, serializer: S) -> Result<S::Ok, S::Error> {
    seconds_since_epoch(*time).serialize(serializer)
}

pub(super) fn optional_time<S: Serializer>(
    time: &Option<SystemTime>,
    serializer: S,
) -> Result<S::Ok, S::Error> {
    time.map(seconds_since_epoch).serialize(serializer)
}

pub(super) fn duration<S: Serializer>(duration: &Duration, serializer: S) -> Result<S::Ok, S::Error> {
    duration.as_secs_f64().serialize(serializer)
}

/// Replaces bytes that are not UTF-8 by U+FFFD.
pub(super) fn path<S: Serializer>(path: &Path, serializer: S) -> Result<S::Ok, S::Error> {
    path.to_string_lossy().serialize(serializer)
}

pub(super) fn optional_path<S: Serializer>(path: &Option<PathBuf>, serializer: S) -> Result<S::Ok, S::Error> {
    path.as_ref().map(|path| path.to_string_lossy()).serialize(serializer)
}

#[cfg(test)]
mod tests {
    use std::ffi::OsStr;
    use std::os::unix::ffi::OsStrExt;
    use std::path::PathBuf;
    use std::time::Duration;

    use rstest::rstest;
    use serde_json::{Value, json};

    use crate::lease::{LeaseState, LeaseType, PoolId, SubnetId, system_time};
    use crate::lease_mgr::{
        Availability, CleanupReport, CleanupRows, CleanupStart, CleanupStatus, CleanupWork, Durability,
        OnFail, StatisticsQuery, StatisticsRow, Status, TotalsRow,
    };

    fn json_of(value: impl serde::Serialize) -> Value {
        serde_json::to_value(value).unwrap()
    }

    #[test]
    fn a_status_in_json() {
        let mut report = CleanupReport::new(
            CleanupWork::Program(OsStr::from_bytes(b"/bin/\xff").into()),
            system_time(1_790_000_000),
            Duration::from_millis(1500),
        );
        report.rows = Some(CleanupRows { read: 3, invalid: 1, written: 2 });
        let cleanup = CleanupStatus {
            running: true,
            last: Some(report),
            next: Some(system_time(1_790_000_060)),
            succeeded: 4,
            ..CleanupStatus::default()
        };
        let status = Status {
            lease_file: Some(PathBuf::from("/leases")),
            leases: Some(7),
            on_fail: Some(OnFail::ServeRetryExit),
            durability: Some(Durability::Synced),
            cleanup: Some(cleanup),
            ..Status::new("memfile", "/leases")
        };
        let expected = json!({
            "backend": "memfile", "location": "/leases", "lease-file": "/leases", "leases": 7, "refused": null,
            "on-fail": "serve-retry-exit", "durability": "synced", "availability": "up", "warning": null,
            "cleanup": {
                "running": true, "succeeded": 4, "failed": 0, "next": 1_790_000_060,
                "last": {
                    "work": { "program": "/bin/\u{fffd}" }, "started": 1_790_000_000, "duration": 1.5,
                    "failure": null, "rows": { "read": 3, "invalid": 1, "written": 2 },
                    "bytes-before": 0, "bytes-after": 0,
                },
            },
        });
        assert_eq!(json_of(status), expected);
        assert_eq!(json_of(Status::default())["lease-file"], Value::Null);
        assert_eq!(json_of(CleanupStart::NotNeeded), json!("not-needed"));
        assert_eq!(json_of(CleanupStatus::default())["next"], Value::Null);
    }

    #[rstest]
    #[case::up(Availability::Up, json!("up"))]
    #[case::lost(
        Availability::Lost { since: system_time(5), tries: 2, next_try: Some(system_time(9)) },
        json!({ "lost": { "since": 5, "tries": 2, "next-try": 9 } })
    )]
    #[case::given_up(Availability::GivenUp { since: system_time(-1) }, json!({ "given-up": { "since": -1 } }))]
    fn an_availability_in_json(#[case] availability: Availability, #[case] expected: Value) {
        assert_eq!(json_of(availability), expected);
    }

    #[test]
    fn names_in_json_are_those_of_connection_strings() {
        for (name, on_fail) in OnFail::NAMES {
            assert_eq!(json_of(on_fail), json!(name));
        }
        let every = Durability::SyncedEvery(Duration::from_millis(250));
        assert_eq!(json_of(every), json!({ "synced-every": 0.25 }));
    }

    #[test]
    fn statistics_in_json() {
        assert_eq!(json_of(StatisticsQuery::all()), json!({ "subnets": "all", "by-pool": false }));
        let one = StatisticsQuery::subnet(SubnetId(3)).by_pool();
        assert_eq!(json_of(one), json!({ "subnets": { "one": 3 }, "by-pool": true }));
        let range = StatisticsQuery::range(SubnetId(1), SubnetId(4));
        assert_eq!(json_of(range), json!({ "subnets": { "range": [1, 4] }, "by-pool": false }));
        let pool = Some(PoolId(2));
        let row = StatisticsRow::new(SubnetId(1), pool, Some(LeaseType::PD), LeaseState::DEFAULT, 9);
        let expected = json!({ "subnet-id": 1, "pool-id": 2, "lease-type": 2, "state": 0, "count": 9 });
        assert_eq!(json_of(row), expected);
        let totals = TotalsRow {
            subnet_id: SubnetId(1),
            pool_id: None,
            lease_type: None,
            size: Some(u128::from(u64::MAX)),
            assigned: 1,
            declined: 2,
            registered: 3,
            cumulative_assigned: 4,
            reclaimed: 5,
            reclaimed_declined: 6,
        };
        let expected = json!({
            "subnet-id": 1, "pool-id": null, "lease-type": null, "size": u64::MAX, "assigned": 1, "declined": 2,
            "registered": 3, "cumulative-assigned": 4, "reclaimed": 5, "reclaimed-declined": 6,
        });
        assert_eq!(json_of(totals), expected);
        let largest = serde_json::to_string(&TotalsRow { size: Some(u128::MAX), ..totals }).unwrap();
        assert!(largest.contains(&u128::MAX.to_string()));
    }
}
