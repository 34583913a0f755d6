//! The users of a disk, and what they may do with files.

use std::collections::BTreeMap;
use std::io;

use super::state::MODE;
use crate::fs::Attributes;

/// The users that there are, and which of them the process is.
#[derive(Clone, Debug, Default)]
pub(super) struct Users {
    pub(super) current: u32,
    /// The groups that they are in, the one of new files first.
    pub(super) groups: BTreeMap<u32, Vec<u32>>,
}

impl Users {
    fn is_member(&self, user: u32, group: u32) -> bool {
        self.groups.get(&user).is_some_and(|groups| groups.contains(&group))
    }

    /// The attributes of a file that the process creates.
    pub(super) fn of_new_file(&self) -> Attributes {
        let group = self.groups.get(&self.current).and_then(|groups| groups.first());
        Attributes::new(self.current, group.copied().unwrap_or(self.current), MODE)
    }

    /// What the process can take over of these attributes for a file that has these.
    pub(super) fn take_over(&self, wanted: &Attributes, now: &Attributes) -> io::Result<Attributes> {
        if self.current == 0 {
            return Ok(wanted.clone());
        }
        let group = if self.is_member(self.current, wanted.group) { wanted.group } else { now.group };
        Ok(wanted.under(now.owner, group, |user, group| self.is_member(user, group))?)
    }

    /// Fails unless the process may do this with the file: 4 is reading, 2 writing.
    pub(super) fn check(&self, attributes: &Attributes, wanted: u32) -> io::Result<()> {
        match attributes.grants(self.current, wanted, |user, group| self.is_member(user, group)) {
            true => Ok(()),
            false => Err(io::ErrorKind::PermissionDenied.into()),
        }
    }
}
