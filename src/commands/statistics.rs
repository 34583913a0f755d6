//! The commands for numbers of leases.

use std::fmt::Display;
use std::time::SystemTime;

use chrono::{Local, TimeZone};

use super::family::CommandLease;
use super::{Answer, CommandError, Commands, Reply, Request, Subnet};
use crate::lease::{Json, LeaseType, SubnetId, seconds_since_epoch};
use crate::lease_mgr::{StatisticsQuery, TotalsRow};

const COLUMNS_4: [&str; 5] = [
    "subnet-id",
    "total-addresses",
    "cumulative-assigned-addresses",
    "assigned-addresses",
    "declined-addresses",
];

const COLUMNS_6: [&str; 8] = [
    "subnet-id",
    "total-nas",
    "cumulative-assigned-nas",
    "assigned-nas",
    "declined-addresses",
    "total-pds",
    "cumulative-assigned-pds",
    "assigned-pds",
];

/// Reads which subnets to count, as a range of their ids.
fn subnets(request: &Request<'_>) -> Result<(SubnetId, SubnetId), CommandError> {
    let all = (SubnetId(0), SubnetId(u32::MAX));
    let Some(arguments) = request.optional_map()? else {
        return Ok(all);
    };
    let expected = "an integer from 1 on";
    let id = |number: i64| u32::try_from(number).ok().map(SubnetId);
    match (arguments.integer("subnet-id")?, arguments.map("subnet-range")?) {
        (None, None) => Ok(all),
        (Some(_), Some(_)) => {
            Err(CommandError::Invalid { what: "both subnet-id and subnet-range, expected one of them" })
        }
        (Some(number), None) if number > 0 => {
            // No subnet has an id beyond 32 bits.
            Ok(id(number).map_or((SubnetId(1), SubnetId(0)), |id| (id, id)))
        }
        (Some(_), None) => Err(arguments.wrong("subnet-id", expected)),
        (None, Some(range)) => {
            let range = super::arguments::Arguments::of("subnet-range", range)?;
            let bound = |key| match range.integer(key)? {
                Some(number) => id(number).filter(|id| id.0 > 0).ok_or_else(|| range.wrong(key, expected)),
                None => Err(CommandError::Missing { key, expected }),
            };
            let (first, last) = (bound("first-subnet-id")?, bound("last-subnet-id")?);
            if last <= first {
                return Err(range.wrong("last-subnet-id", "an id that is greater than first-subnet-id"));
            }
            Ok((first, last))
        }
    }
}

/// `stat-lease4-get`, `stat-lease6-get`
pub(super) fn get<'a, L: CommandLease>(
    commands: &'a Commands,
    request: &Request<'a>,
) -> Result<Reply<'a>, CommandError> {
    let (first, last) = subnets(request)?;
    let store = L::store(commands);
    let subnets = store.subnets();
    let mut asked = subnets.iter().filter(|subnet| (first..=last).contains(&subnet.id())).peekable();
    if asked.peek().is_none() {
        let text =
            if first == last { format!("there is no subnet {first}") } else { "no such subnets".into() };
        return Ok(Answer::empty(text).with_arguments(Json::empty_map()).into());
    }
    let query = if first.0 == 0 { StatisticsQuery::all() } else { StatisticsQuery::range(first, last) };
    let totals = store.totals(&query)?;
    let rows = asked.filter_map(|subnet| row::<L>(subnet, &totals));
    let rows: Json = rows.map(|row| row.into_iter().map(Json::from).collect()).collect();
    let columns: &[&str] = if L::HAS_PREFIXES { &COLUMNS_6 } else { &COLUMNS_4 };
    let result_set = Json::map([
        ("columns", columns.iter().copied().map(Json::from).collect()),
        ("rows", rows),
        ("timestamp", Json::from(timestamp(&Local, commands.now()).as_str())),
    ]);
    Ok(Answer::success("statistics of leases").with_arguments(Json::map([("result-set", result_set)])).into())
}

/// Returns the row of a subnet; `None` if it has registered addresses only, as in Kea.
fn row<L: CommandLease>(subnet: &Subnet<L>, totals: &[TotalsRow]) -> Option<Vec<u128>> {
    let start = totals.partition_point(|row| row.subnet_id < subnet.id());
    let of_subnet = || totals.iter().skip(start).take_while(|row| row.subnet_id == subnet.id());
    let of = |kind| of_subnet().find(|row| row.lease_type == kind);
    let id = u128::from(subnet.id().0);
    let counts = |row: Option<&TotalsRow>| {
        row.map_or([0; 3], |row| [row.cumulative_assigned, row.assigned, row.declined].map(u128::from))
    };
    if !L::HAS_PREFIXES {
        let [cumulative, assigned, declined] = counts(of(None));
        return Some(vec![id, subnet.addresses(), cumulative, assigned, declined]);
    }
    let counts_any = |row: &TotalsRow| row.assigned > 0 || row.declined > 0;
    if of_subnet().any(|row| row.registered > 0) && !of_subnet().any(counts_any) {
        return None;
    }
    let [cumulative, assigned, declined] = counts(of(Some(LeaseType::NA)));
    let [cumulative_pds, assigned_pds, _] = counts(of(Some(LeaseType::PD)));
    let (nas, pds) = (subnet.addresses(), subnet.prefixes());
    Some(vec![id, nas, cumulative, assigned, declined, pds, cumulative_pds, assigned_pds])
}

/// Returns a time as text with microseconds; empty for one beyond the years of the calendar.
fn timestamp<T: TimeZone<Offset: Display>>(zone: &T, time: SystemTime) -> String {
    let nanos = time.duration_since(SystemTime::UNIX_EPOCH).map_or(0, |since| since.subsec_nanos());
    let time = zone.timestamp_opt(seconds_since_epoch(time), nanos).single();
    time.map_or_else(String::new, |time| time.format("%Y-%m-%d %H:%M:%S%.6f").to_string())
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use chrono::Utc;
    use rstest::rstest;

    use super::*;

    #[rstest]
    #[case(Duration::from_micros(1_790_000_000_000_012), "2026-09-21 14:13:20.000012")]
    #[case(Duration::ZERO, "1970-01-01 00:00:00.000000")]
    fn a_time_is_a_date_with_microseconds(#[case] since: Duration, #[case] text: &str) {
        assert_eq!(timestamp(&Utc, SystemTime::UNIX_EPOCH + since), text);
    }
}
