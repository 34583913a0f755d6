//! What is known about the partner, and the clients by which its failure is detected.

use std::collections::HashSet;
use std::time::Duration;

use super::{Heartbeat, State, Time};

/// Maximum number of clients that are remembered. More do not change a decision.
const MAX_CLIENTS: usize = 65_536;

/// What is known about the partner.
#[derive(Clone, Debug)]
pub struct Communication {
    heard_at: Duration,
    failing: bool,
    interrupted: bool,
    state: Option<State>,
    scopes: Vec<String>,
    clock_skew: Option<i64>,
    date_time: Option<i64>,
    count: Option<u64>,
    /// The count when the copy that is being made was begun.
    remembered: Option<u64>,
    /// The count of the last copy.
    copied: Option<u64>,
    analyzed: u64,
    connecting: HashSet<Box<[u8]>>,
    unacked: HashSet<Box<[u8]>>,
    rejected: HashSet<Box<[u8]>>,
}

impl Communication {
    pub(super) fn new(now: Time) -> Self {
        Self {
            heard_at: now.monotonic,
            failing: false,
            interrupted: false,
            state: None,
            scopes: Vec::new(),
            clock_skew: None,
            date_time: None,
            count: None,
            remembered: None,
            copied: None,
            analyzed: 0,
            connecting: HashSet::new(),
            unacked: HashSet::new(),
            rejected: HashSet::new(),
        }
    }

    /// Returns the state that the partner told last; `None` if the last heartbeat failed.
    #[must_use]
    pub fn state(&self) -> Option<State> {
        self.state
    }

    /// Returns the scopes that the partner told last.
    #[must_use]
    pub fn scopes(&self) -> &[String] {
        &self.scopes
    }

    /// Returns the time since the partner was last heard or, if it never was, since the start.
    #[must_use]
    pub fn age(&self, now: Time) -> Duration {
        now.monotonic.saturating_sub(self.heard_at)
    }

    /// Returns whether the partner ever answered a heartbeat.
    #[must_use]
    pub fn was_heard(&self) -> bool {
        self.date_time.is_some()
    }

    /// Returns whether the last heartbeat failed.
    #[must_use]
    pub fn is_failing(&self) -> bool {
        self.failing
    }

    /// Returns whether there was no answer for longer than `max-response-delay` when the last
    /// heartbeat ended.
    #[must_use]
    pub fn is_interrupted(&self) -> bool {
        self.interrupted
    }

    /// Returns by how many seconds the partner's clock is ahead of the own one.
    #[must_use]
    pub fn clock_skew(&self) -> Option<i64> {
        self.clock_skew
    }

    /// Returns the time of the partner's clock at the last answer, in seconds since the epoch.
    #[must_use]
    pub fn date_time(&self) -> Option<i64> {
        self.date_time
    }

    /// Returns the number of packets of the partner's clients during the interruption.
    #[must_use]
    pub fn analyzed_packets(&self) -> u64 {
        self.analyzed
    }

    /// Returns the number of clients that sent these packets, up to 65,536.
    #[must_use]
    pub fn connecting_clients(&self) -> usize {
        self.connecting.len()
    }

    /// Returns the number of these clients that have waited for longer than `max-ack-delay`, up to
    /// one more than `max-unacked-clients`.
    #[must_use]
    pub fn unacked(&self) -> u32 {
        u32::try_from(self.unacked.len()).unwrap_or(u32::MAX)
    }

    pub(super) fn answered(&mut self, now: Time, heartbeat: &Heartbeat) {
        self.heard(now);
        self.failing = false;
        self.state = Some(heartbeat.state);
        self.scopes.clone_from(&heartbeat.scopes);
        self.clock_skew = Some(heartbeat.date_time.saturating_sub(now.wall));
        self.date_time = Some(heartbeat.date_time);
        self.count = heartbeat.unsent_update_count;
    }

    pub(super) fn heard(&mut self, now: Time) {
        self.heard_at = now.monotonic;
        if std::mem::take(&mut self.interrupted) {
            self.analyzed = 0;
            self.connecting.clear();
            self.unacked.clear();
        }
    }

    pub(super) fn failed(&mut self, now: Time, max_response_delay: Duration) {
        self.failing = true;
        self.state = None;
        self.interrupted = self.age(now) > max_response_delay;
    }

    pub(super) fn observed(&mut self, client: Box<[u8]>, is_unacked: bool, max_unacked: u32) {
        self.analyzed = self.analyzed.saturating_add(1);
        if is_unacked && self.unacked() <= max_unacked {
            self.unacked.insert(client.clone());
        }
        if self.connecting.len() < MAX_CLIENTS {
            self.connecting.insert(client);
        }
    }

    /// Returns the number of clients whose changes were rejected, up to `limit`.
    pub(super) fn rejected(&mut self, client: Box<[u8]>, limit: u32) -> u32 {
        let number = |rejected: &HashSet<_>| u32::try_from(rejected.len()).unwrap_or(u32::MAX);
        if number(&self.rejected) < limit {
            self.rejected.insert(client);
        }
        number(&self.rejected)
    }

    /// Remembers the count of changes, because all before it will be copied.
    pub(super) fn remember_count(&mut self) {
        self.remembered = self.count;
    }

    /// Notes that all leases were copied, at `count` if it was asked for, or when the count was
    /// remembered.
    pub(super) fn copied(&mut self, count: Option<u64>) {
        self.copied = count.or(self.remembered).or(self.copied);
    }

    /// Returns whether the partner gave leases that neither were sent nor copied.
    pub(super) fn has_unseen_changes(&self) -> bool {
        self.count.is_some_and(|count| count != self.copied.unwrap_or(0))
    }
}

/// Returns for how long a DHCPv4 client has waited, by the field `secs` of its packet.
///
/// Some clients send the field in the wrong order of bytes: if its low byte is 0, the high byte is
/// taken, as in Kea.
///
/// ```
/// use std::time::Duration;
///
/// use leasemgr::ha::waited_secs;
///
/// assert_eq!(waited_secs(0x0500), Duration::from_secs(5));
/// assert_eq!(waited_secs(0x0501), Duration::from_secs(1281));
/// ```
#[must_use]
pub fn waited_secs(field: u16) -> Duration {
    let secs = if field & 0xff == 0 { field >> 8 } else { field };
    Duration::from_secs(secs.into())
}
