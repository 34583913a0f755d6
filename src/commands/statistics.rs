//! The commands for numbers of leases.

use std::time::SystemTime;

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
        ("timestamp", Json::from(timestamp(commands.now()).as_str())),
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

/// Returns a time as text with microseconds, in UTC.
fn timestamp(time: SystemTime) -> String {
    let seconds = seconds_since_epoch(time);
    let micros = time.duration_since(SystemTime::UNIX_EPOCH).map_or(0, |since| since.subsec_micros());
    let (days, second) = (seconds.div_euclid(86400), seconds.rem_euclid(86400));
    // Eras of 400 years, which begin on 1 March of the year 0.
    let days = days + 719_468;
    let (era, day) = (days.div_euclid(146_097), days.rem_euclid(146_097));
    let year = (day - day / 1460 + day / 36524 - day / 146_096) / 365;
    let day_of_year = day - (365 * year + year / 4 - year / 100);
    let month = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * month + 2) / 5 + 1;
    let month = if month < 10 { month + 3 } else { month - 9 };
    let year = era * 400 + year + i64::from(month <= 2);
    let (hour, minute, second) = (second / 3600, second / 60 % 60, second % 60);
    format!("{year:04}-{month:02}-{day:02} {hour:02}:{minute:02}:{second:02}.{micros:06}")
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::*;
    use crate::lease::system_time;

    #[rstest]
    #[case(0, "1970-01-01 00:00:00.000000")]
    #[case(951_782_399, "2000-02-28 23:59:59.000000")]
    #[case(951_782_400, "2000-02-29 00:00:00.000000")]
    #[case(1_790_000_000, "2026-09-21 14:13:20.000000")]
    #[case(4_107_542_399, "2100-02-28 23:59:59.000000")]
    #[case(4_107_542_400, "2100-03-01 00:00:00.000000")]
    #[case(-1, "1969-12-31 23:59:59.000000")]
    fn a_time_is_a_date_in_utc(#[case] seconds: i64, #[case] text: &str) {
        assert_eq!(timestamp(system_time(seconds)), text);
    }
}
