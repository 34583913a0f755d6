//! The answer to several changes at once, as that to `lease6-bulk-apply`.

use std::net::IpAddr;

use super::Answer;
use crate::lease::{Json, LeaseType, type_name};

/// The kind of a change.
#[derive(Clone, Copy, PartialEq)]
pub(crate) enum BulkChange {
    Deletion,
    /// A lease is added, or replaces that of its address.
    Lease,
}

/// What became of several changes.
#[derive(Default)]
pub(crate) struct Bulk {
    /// Number of changes.
    number: usize,
    /// Number of these that were made.
    made: usize,
    failed_deletions: Vec<Json>,
    failed_leases: Vec<Json>,
}

impl Bulk {
    /// Notes the answer to one change. The address and the type of the lease may be unknown.
    pub(crate) fn note(&mut self, change: BulkChange, lease: Option<(IpAddr, LeaseType)>, answer: &Answer) {
        self.number += 1;
        if answer.result == Answer::SUCCESS {
            self.made += 1;
            return;
        }
        let mut members = vec![
            ("error-message", Json::from(answer.text.as_str())),
            ("result", Json::from(u32::from(answer.result))),
        ];
        if let Some((address, lease_type)) = lease {
            members.push(("ip-address", Json::from(address.to_string().as_str())));
            members.push(("type", Json::from(type_name(lease_type).unwrap_or_default())));
        }
        let failed = match change {
            BulkChange::Deletion => &mut self.failed_deletions,
            BulkChange::Lease => &mut self.failed_leases,
        };
        failed.push(Json::map(members));
    }

    /// Returns the answer to all of them.
    pub(crate) fn answer(self) -> Answer {
        let result = if self.made == 0 { Answer::EMPTY } else { Answer::SUCCESS };
        let answer = Answer::new(result, format!("{} of {} changes were made", self.made, self.number));
        let lists = [("failed-deleted-leases", self.failed_deletions), ("failed-leases", self.failed_leases)];
        let lists: Vec<_> = lists.into_iter().filter(|(_, failed)| !failed.is_empty()).collect();
        if lists.is_empty() {
            return answer;
        }
        let lists = lists.into_iter().map(|(key, failed)| (key, failed.into_iter().collect()));
        answer.with_arguments(Json::map(lists))
    }
}
