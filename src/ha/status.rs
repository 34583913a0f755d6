//! What `status-get` tells about a relationship.

use chrono::{TimeZone, Utc};
use serde_json::{Value, json};

use super::{Machine, State, Time};

impl Machine {
    /// Returns the list `high-availability` of the answer to `status-get`, in Kea's form.
    #[must_use]
    pub fn status(&self, now: Time) -> Value {
        let (config, partner) = (self.config(), self.partner());
        let mut servers = json!({ "local": {
            "role": config.this.role.name(),
            "scopes": self.scopes(),
            "server-name": config.this.name,
            "state": self.state().name(),
            // Known with the first answer of the partner, as the skew.
            "system-time": partner.date_time().map(|_| date(now.wall)),
        } });
        if let (Some(peer), Value::Object(servers)) = (config.partner(), &mut servers) {
            let left = u64::from(config.max_unacked_clients) + 1;
            let remote = json!({
                "age": partner.age(now).as_secs(),
                "analyzed-packets": partner.analyzed_packets(),
                "clock-skew": partner.clock_skew(),
                "communication-interrupted": partner.is_interrupted(),
                "connecting-clients": partner.connecting_clients(),
                "in-touch": partner.was_heard(),
                "last-scopes": partner.scopes(),
                "last-state": partner.state().map_or("unavailable", State::name),
                "role": peer.role.name(),
                "server-name": peer.name,
                "system-time": partner.date_time().map(date),
                "unacked-clients": partner.unacked(),
                "unacked-clients-left": if partner.is_interrupted() {
                    left.saturating_sub(partner.unacked().into())
                } else {
                    0
                },
            });
            servers.insert("remote".to_owned(), remote);
        }
        json!([{ "ha-mode": config.mode.name(), "ha-servers": servers }])
    }
}

/// Returns seconds since the epoch as a date and a time in UTC; empty for a time beyond the years of
/// the calendar.
fn date(seconds: i64) -> String {
    let time = Utc.timestamp_opt(seconds, 0).single();
    time.map_or_else(String::new, |time| time.format("%Y-%m-%d %H:%M:%S").to_string())
}
