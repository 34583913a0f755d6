//! The users of a disk and their rights to files.

use std::collections::BTreeMap;
use std::io;

use super::state::MODE;
use crate::fs::Attributes;

/// The users that exist, and the user of the process.
#[derive(Clone, Debug, Default)]
pub(super) struct Users {
    pub(super) current: u32,
    /// The groups of each user, the one of new files first.
    pub(super) groups: BTreeMap<u32, Vec<u32>>,
}

impl Users {
    fn is_member(&self, user: u32, group: u32) -> bool {
        self.groups.get(&user).is_some_and(|groups| groups.contains(&group))
    }

    /// Returns the attributes of a file that the process creates.
    pub(super) fn of_new_file(&self) -> Attributes {
        let group = self.groups.get(&self.current).and_then(|groups| groups.first());
        Attributes::new(self.current, group.copied().unwrap_or(self.current), MODE)
    }

    /// Returns what the process can take over of the attributes `wanted` for a file that has those
    /// of `now`.
    pub(super) fn take_over(&self, wanted: &Attributes, now: &Attributes) -> io::Result<Attributes> {
        if self.current == 0 {
            return Ok(wanted.clone());
        }
        let group = if self.is_member(self.current, wanted.group) { wanted.group } else { now.group };
        Ok(wanted.under(now.owner, group, |user, group| self.is_member(user, group))?)
    }

    /// Returns an error unless the process has the rights to the file: 4 is reading, 2 writing.
    pub(super) fn check(&self, attributes: &Attributes, wanted: u32) -> io::Result<()> {
        match attributes.grants(self.current, wanted, |user, group| self.is_member(user, group)) {
            true => Ok(()),
            false => Err(io::ErrorKind::PermissionDenied.into()),
        }
    }
}
