//! Times of leases: `SystemTime` in the interface, seconds since the epoch in storage.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// Returns the time that is `seconds` after the epoch, or before it if negative.
#[must_use]
pub fn system_time(seconds: i64) -> SystemTime {
    let distance = Duration::from_secs(seconds.unsigned_abs());
    let time = if seconds < 0 { UNIX_EPOCH.checked_sub(distance) } else { UNIX_EPOCH.checked_add(distance) };
    // On Unix, a `SystemTime` has 64 bits of seconds and a fraction.
    time.unwrap_or(UNIX_EPOCH)
}

/// Returns the whole seconds from the epoch to `time`, negative before 1970. Rounds down.
#[must_use]
pub fn seconds_since_epoch(time: SystemTime) -> i64 {
    match time.duration_since(UNIX_EPOCH) {
        Ok(after) => i64::try_from(after.as_secs()).unwrap_or(i64::MAX),
        Err(before) => {
            let before = before.duration();
            let seconds = before.as_secs().saturating_add((before.subsec_nanos() > 0).into());
            0_i64.checked_sub_unsigned(seconds).unwrap_or(i64::MIN)
        }
    }
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::*;

    #[rstest]
    #[case(0)]
    #[case(1_790_000_000)]
    #[case(-1)]
    #[case(-300)]
    #[case(i64::MAX)]
    #[case(i64::MIN)]
    fn seconds_survive_the_conversion_to_a_time(#[case] seconds: i64) {
        assert_eq!(seconds_since_epoch(system_time(seconds)), seconds);
    }

    #[rstest]
    #[case(UNIX_EPOCH + Duration::from_millis(1999), 1)]
    #[case(UNIX_EPOCH - Duration::from_millis(1), -1)]
    #[case(UNIX_EPOCH - Duration::from_millis(1000), -1)]
    #[case(UNIX_EPOCH - Duration::from_millis(1001), -2)]
    fn fractions_are_rounded_down(#[case] time: SystemTime, #[case] seconds: i64) {
        assert_eq!(seconds_since_epoch(time), seconds);
    }
}
