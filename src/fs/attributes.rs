//! Owner and access rights of a file, which a file that replaces it takes over.

use std::fs::File;
use std::io;
use std::os::unix::fs::MetadataExt;

use rustix::fs::{Gid, Mode, Uid, fchmod, fchown};
use rustix::io::Errno;
use tracing::warn;

use xattr::{acl, label};

/// The bits of a mode that are taken over: not setuid, setgid and sticky.
const PERMISSIONS: u32 = 0o777;
/// The right to read, as one of the three bits of a class in a mode or an ACL.
const READ: u32 = 4;

/// Owner, group, mode, POSIX ACL and SELinux label of a file.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Attributes {
    /// The user id of the owner.
    pub owner: u32,
    /// The group id.
    pub group: u32,
    /// The permissions: the last nine bits of the mode.
    pub mode: u32,
    /// What the ACL grants beyond the mode, if there is one.
    acl: Option<Acl>,
    /// The SELinux label.
    label: Option<Vec<u8>>,
}

/// The file cannot have the owner of the one that it is to replace, and that owner could not read
/// it.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "user {owner} owns the file to be replaced and could not read the new one, whose owner this process, as user \
     {user}, may not change; run as root or as user {owner}, or give a group of user {owner} or all users the \
     right to read"
)]
pub struct OwnerNotKept {
    /// The owner of the file that is to be replaced.
    pub owner: u32,
    /// The owner that the new file would have.
    pub user: u32,
}

impl From<OwnerNotKept> for io::Error {
    fn from(error: OwnerNotKept) -> Self {
        Self::new(io::ErrorKind::PermissionDenied, error)
    }
}

/// The entries of a POSIX ACL beyond those of the mode.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Acl {
    /// The rights of the group of the file; the mode has the mask instead.
    group: u32,
    /// Users, and their rights before the mask is applied.
    users: Vec<(u32, u32)>,
    /// Groups, and their rights before the mask is applied.
    groups: Vec<(u32, u32)>,
}

impl Attributes {
    /// Makes attributes without an ACL and without a label.
    #[must_use]
    pub fn new(owner: u32, group: u32, mode: u32) -> Self {
        Self { owner, group, mode: mode & PERMISSIONS, acl: None, label: None }
    }

    /// Reads the attributes of an open file.
    pub(super) fn of(file: &File) -> io::Result<Self> {
        let metadata = file.metadata()?;
        let mut attributes = Self::new(metadata.uid(), metadata.gid(), metadata.mode());
        match acl(file).map(|text| text.map(|text| Acl::parse(&text))) {
            Ok(None) => {}
            Ok(Some(Some(acl))) => attributes.acl = acl,
            unknown => {
                let reason =
                    unknown.err().map_or_else(|| "unknown form".to_owned(), |error| error.to_string());
                warn!("the access control list of a lease file cannot be read: {reason}");
                // The bits are those of a mask, and say nothing about the group.
                attributes.mode &= !0o070;
            }
        }
        attributes.label = label(file).unwrap_or_else(|error| {
            warn!("the security label of a lease file cannot be read: {error}");
            None
        });
        Ok(attributes)
    }

    /// Returns what a file of this owner and group may keep of these attributes, so that no user
    /// has more rights than before.
    ///
    /// # Errors
    /// Returns [`OwnerNotKept`] if the previous owner could not read the file.
    pub(super) fn under(
        &self,
        owner: u32,
        group: u32,
        is_member: impl Fn(u32, u32) -> bool,
    ) -> Result<Self, OwnerNotKept> {
        let mut new = Self { owner, group, ..self.clone() };
        if group != self.group {
            // Members of either group may now be others, and the other way round.
            let both = new.group_bits() & new.mode & 7;
            match &mut new.acl {
                Some(acl) => acl.group = both,
                None => new.mode = new.mode & 0o707 | both << 3,
            }
            new.mode = new.mode & 0o770 | both;
        }
        if owner != self.owner && !new.grants(self.owner, READ, is_member) {
            return Err(OwnerNotKept { owner: self.owner, user: owner });
        }
        Ok(new)
    }

    /// Returns whether a user has all of these rights: 4 is reading, 2 writing.
    pub(super) fn grants(&self, user: u32, wanted: u32, is_member: impl Fn(u32, u32) -> bool) -> bool {
        let allow = |bits: u32| bits & wanted == wanted;
        let mask = self.mode >> 3 & 7;
        if user == 0 {
            return true;
        }
        if user == self.owner {
            return allow(self.mode >> 6);
        }
        let (users, groups) = self.acl.as_ref().map_or((&[][..], &[][..]), |acl| (&acl.users, &acl.groups));
        if let Some((_, bits)) = users.iter().find(|(named, _)| *named == user) {
            return allow(bits & mask);
        }
        let own = [(self.group, self.group_bits())];
        let mut of_groups = own.iter().chain(groups).filter(|(group, _)| is_member(user, *group)).peekable();
        match of_groups.peek() {
            Some(_) => of_groups.any(|(_, bits)| allow(bits & mask)),
            None => allow(self.mode),
        }
    }

    /// Returns the rights of the group of the file, before the mask of an ACL is applied.
    fn group_bits(&self) -> u32 {
        self.acl.as_ref().map_or(self.mode >> 3 & 7, |acl| acl.group)
    }

    /// Returns the attributes without the ACL, for a file system that cannot keep it.
    fn without_acl(&self) -> Self {
        let mut new = Self { acl: None, ..self.clone() };
        new.mode = new.mode & 0o707 | (self.group_bits() & self.mode >> 3 & 7) << 3;
        new
    }
}

/// Gives a file these attributes, as far as the process may.
///
/// # Errors
/// Returns an error if an operation fails for another reason than missing rights, and
/// [`OwnerNotKept`].
pub(super) fn give(file: &File, wanted: &Attributes) -> io::Result<()> {
    let metadata = file.metadata()?;
    let (user, group) = (wanted.owner != metadata.uid(), wanted.group != metadata.gid());
    if user || group {
        let (user, group) =
            (user.then(|| Uid::from_raw(wanted.owner)), group.then(|| Gid::from_raw(wanted.group)));
        if !permitted(fchown(file, user, group))? && user.is_some() && group.is_some() {
            permitted(fchown(file, None, group))?;
        }
    }
    let metadata = file.metadata()?;
    let (owner, group) = (metadata.uid(), metadata.gid());
    let mut new = wanted.under(owner, group, users::is_member)?;
    if let Some(acl) = &new.acl
        && let Err(error) = xattr::set_acl(file, &acl.text(new.mode))
    {
        warn!("the access control list of a lease file cannot be kept: {error}");
        new = wanted.without_acl().under(owner, group, users::is_member)?;
    }
    if new.acl.is_none() {
        // A default ACL of the directory would give rights to other users.
        xattr::remove_acl(file)?;
    }
    if file.metadata()?.mode() & 0o7777 != new.mode {
        fchmod(file, Mode::from_raw_mode(new.mode))?;
    }
    if group != wanted.group {
        let wanted = wanted.group;
        warn!(
            "group {wanted} of a lease file cannot be kept: its members may not do more than all users may"
        );
    }
    if let Some(wanted) = &new.label
        && label(file).ok().flatten().as_ref() != Some(wanted)
        && let Err(error) = xattr::set_label(file, wanted)
    {
        let wanted = wanted.escape_ascii();
        warn!("the security label {wanted} of a lease file cannot be kept: {error}");
    }
    Ok(())
}

/// Returns whether the process had the right to do something; other errors are passed on.
fn permitted(result: rustix::io::Result<()>) -> io::Result<bool> {
    match result {
        Ok(()) => Ok(true),
        // `INVAL` is for ids that a user namespace does not map, the last two for file systems
        // without owners.
        Err(Errno::PERM | Errno::INVAL | Errno::NOSYS | Errno::OPNOTSUPP) => Ok(false),
        Err(error) => Err(error.into()),
    }
}

impl Acl {
    const VERSION: u32 = 2;
    const OWNER: u16 = 1;
    const USER: u16 = 2;
    const GROUP_OF_FILE: u16 = 4;
    const GROUP: u16 = 8;
    const MASK: u16 = 16;
    const OTHERS: u16 = 32;
    /// The id of entries without an id.
    const NO_ID: u32 = u32::MAX;

    /// Parses an ACL as the kernel returns it: `None` if it is in an unknown form, `Some(None)` if
    /// it grants nothing beyond the mode.
    fn parse(text: &[u8]) -> Option<Option<Self>> {
        let (version, entries) = text.split_first_chunk::<4>()?;
        let (entries, rest) = entries.as_chunks::<8>();
        if u32::from_le_bytes(*version) != Self::VERSION || !rest.is_empty() {
            return None;
        }
        let mut acl = Self { group: 0, users: Vec::new(), groups: Vec::new() };
        let mut is_extended = false;
        for &[tag0, tag1, bits0, bits1, id @ ..] in entries {
            let bits = u32::from(u16::from_le_bytes([bits0, bits1])) & 7;
            let id = u32::from_le_bytes(id);
            match u16::from_le_bytes([tag0, tag1]) {
                Self::OWNER | Self::OTHERS => {}
                Self::GROUP_OF_FILE => acl.group = bits,
                Self::USER => acl.users.push((id, bits)),
                Self::GROUP => acl.groups.push((id, bits)),
                Self::MASK => is_extended = true,
                _ => return None,
            }
        }
        Some(is_extended.then_some(acl))
    }

    /// Returns the ACL in the kernel's form, for a file of this mode.
    #[expect(clippy::cast_possible_truncation, reason = "three bits")]
    fn text(&self, mode: u32) -> Vec<u8> {
        let named = |tag, entries: &[(u32, u32)]| {
            entries.iter().map(move |&(id, bits)| (tag, bits, id)).collect::<Vec<_>>()
        };
        let mut entries = vec![(Self::OWNER, mode >> 6 & 7, Self::NO_ID)];
        entries.extend(named(Self::USER, &self.users));
        entries.push((Self::GROUP_OF_FILE, self.group, Self::NO_ID));
        entries.extend(named(Self::GROUP, &self.groups));
        entries.push((Self::MASK, mode >> 3 & 7, Self::NO_ID));
        entries.push((Self::OTHERS, mode & 7, Self::NO_ID));
        let mut text = Self::VERSION.to_le_bytes().to_vec();
        for (tag, bits, id) in entries {
            text.extend(tag.to_le_bytes());
            text.extend((bits as u16).to_le_bytes());
            text.extend(id.to_le_bytes());
        }
        text
    }
}

/// Membership of users in groups.
mod users {
    /// Returns whether a user is a member of a group, by the files of this machine. Users of a
    /// directory service are members of no group, which errs on the safe side.
    pub(super) fn is_member(user: u32, group: u32) -> bool {
        let read = |path| std::fs::read_to_string(path).unwrap_or_default();
        is_member_by(&read("/etc/passwd"), &read("/etc/group"), user, group)
    }

    fn is_member_by(passwd: &str, groups: &str, user: u32, group: u32) -> bool {
        let number = |field: &str| field.parse::<u32>().ok();
        let names = passwd.lines().filter_map(|line| {
            let fields: Vec<_> = line.split(':').collect();
            let is_user = number(fields.get(2)?) == Some(user);
            is_user.then_some((fields[0], number(fields.get(3)?)?))
        });
        let names: Vec<(&str, u32)> = names.collect();
        names.iter().any(|&(_, first)| first == group)
            || groups.lines().any(|line| {
                let fields: Vec<_> = line.split(':').collect();
                let is_group = fields.get(2).and_then(|field| number(field)) == Some(group);
                let mut members = fields.get(3).into_iter().flat_map(|members| members.split(','));
                is_group && members.any(|member| names.iter().any(|&(name, _)| name == member.trim()))
            })
    }

    #[cfg(test)]
    mod tests {
        #[test]
        fn a_user_is_a_member_of_the_primary_group_and_of_those_that_list_the_user() {
            let passwd =
                "root:x:0:0::/root:/bin/sh\n_kea:x:102:105::/:/bin/false\n\nbroken:x\nbob:x:7:7::/:\n";
            let groups = "root:x:0:\n_kea:x:105:\nadm:x:4:syslog,_kea\nbroken\nbob:x:7:bobby";
            let of = |user| [0, 4, 105, 7].map(|group| super::is_member_by(passwd, groups, user, group));
            assert_eq!(of(0), [true, false, false, false]);
            assert_eq!(of(102), [false, true, true, false]);
            assert_eq!(of(7), [false, false, false, true]);
            assert_eq!(of(999), [false; 4]);
        }
    }
}

/// POSIX ACLs and SELinux labels, which Linux keeps as extended attributes.
#[cfg(target_os = "linux")]
mod xattr {
    use std::fs::File;
    use std::io;

    use rustix::fs::{XattrFlags, fgetxattr, fremovexattr, fsetxattr};
    use rustix::io::Errno;

    const ACL: &str = "system.posix_acl_access";
    const LABEL: &str = "security.selinux";

    pub(super) fn acl(file: &File) -> io::Result<Option<Vec<u8>>> {
        get(file, ACL)
    }

    pub(super) fn label(file: &File) -> io::Result<Option<Vec<u8>>> {
        get(file, LABEL)
    }

    pub(super) fn set_acl(file: &File, value: &[u8]) -> io::Result<()> {
        Ok(fsetxattr(file, ACL, value, XattrFlags::empty())?)
    }

    pub(super) fn set_label(file: &File, value: &[u8]) -> io::Result<()> {
        Ok(fsetxattr(file, LABEL, value, XattrFlags::empty())?)
    }

    pub(super) fn remove_acl(file: &File) -> io::Result<()> {
        if get(file, ACL)?.is_some() {
            fremovexattr(file, ACL)?;
        }
        Ok(())
    }

    fn get(file: &File, name: &str) -> io::Result<Option<Vec<u8>>> {
        /// Maximum length of an extended attribute.
        const MAX: usize = 64 * 1024;
        let mut value = vec![0; 256];
        loop {
            match fgetxattr(file, name, &mut value) {
                Ok(len) => {
                    value.truncate(len);
                    return Ok(Some(value));
                }
                Err(Errno::RANGE) if value.len() < MAX => value.resize(MAX, 0),
                Err(Errno::NODATA | Errno::OPNOTSUPP | Errno::NOSYS) => return Ok(None),
                Err(error) => return Err(error.into()),
            }
        }
    }
}

/// ACLs and labels are not kept on other systems.
#[cfg(not(target_os = "linux"))]
mod xattr {
    use std::fs::File;
    use std::io;

    pub(super) fn acl(_: &File) -> io::Result<Option<Vec<u8>>> {
        Ok(None)
    }

    pub(super) fn label(_: &File) -> io::Result<Option<Vec<u8>>> {
        Ok(None)
    }

    pub(super) fn set_acl(_: &File, _: &[u8]) -> io::Result<()> {
        Err(io::ErrorKind::Unsupported.into())
    }

    pub(super) fn set_label(_: &File, _: &[u8]) -> io::Result<()> {
        Err(io::ErrorKind::Unsupported.into())
    }

    pub(super) fn remove_acl(_: &File) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;
    use std::os::unix::fs::{PermissionsExt, chown};
    use std::path::{Path, PathBuf};
    use std::process::Command;

    use rstest::rstest;

    use super::*;
    use crate::fs::{FileSystem, OsFileSystem};

    /// Creates a directory with a file `old` of this owner, group and mode.
    fn with_file(owner: u32, group: u32, mode: u32) -> (tempfile::TempDir, PathBuf) {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("old");
        std::fs::write(&path, "").unwrap();
        chown(&path, Some(owner), Some(group)).unwrap();
        std::fs::set_permissions(&path, PermissionsExt::from_mode(mode)).unwrap();
        (directory, path)
    }

    fn attributes(path: &Path) -> Attributes {
        OsFileSystem.open(path).unwrap().attributes().unwrap().unwrap()
    }

    /// Creates `new` beside `old`, to replace it.
    fn replacement(old: &Path) -> io::Result<PathBuf> {
        let new = old.with_file_name("new");
        OsFileSystem.create_like(&new, &attributes(old)).map(|_| new)
    }

    fn is_superuser() -> bool {
        let is_superuser = rustix::process::geteuid().is_root();
        if !is_superuser {
            eprintln!("skipped: only the superuser gives files away");
        }
        is_superuser
    }

    #[rstest]
    fn the_superuser_keeps_owner_group_and_permissions_but_no_other_bits(
        #[values(0o644, 0o664, 0o640, 0o600, 0o444, 0o666, 0o604, 0o6755, 0o1640)] mode: u32,
        #[values((102, 105), (0, 4), (102, 0), (0, 0))] (owner, group): (u32, u32),
    ) {
        if !is_superuser() {
            return;
        }
        let (_directory, old) = with_file(owner, group, mode);
        let new = replacement(&old).unwrap();
        assert_eq!(attributes(&new), Attributes::new(owner, group, mode & 0o777));
        assert_eq!(new.metadata().unwrap().permissions().mode() & 0o7777, mode & 0o777);
    }

    #[test]
    fn an_existing_file_gets_the_attributes_of_the_one_that_it_replaces() {
        let mode =
            |path: &Path, mode| std::fs::set_permissions(path, PermissionsExt::from_mode(mode)).unwrap();
        let directory = tempfile::tempdir().unwrap();
        let [old, new] = ["old", "new"].map(|name| directory.path().join(name));
        for path in [&old, &new] {
            std::fs::write(path, "").unwrap();
        }
        mode(&old, 0o664);
        mode(&new, 0o2600);
        OsFileSystem.set_attributes(&new, &attributes(&old)).unwrap();
        assert_eq!(attributes(&new), attributes(&old));
        assert_eq!(new.metadata().unwrap().permissions().mode() & 0o7777, 0o664);
        let missing = OsFileSystem.set_attributes(&directory.path().join("missing"), &attributes(&old));
        assert_eq!(missing.unwrap_err().kind(), io::ErrorKind::NotFound);
    }

    #[test]
    fn create_like_leaves_an_existing_file_as_it_was() {
        let (_directory, old) =
            with_file(rustix::process::geteuid().as_raw(), rustix::process::getegid().as_raw(), 0o640);
        let new = replacement(&old).unwrap();
        std::fs::write(&new, "text").unwrap();
        assert_eq!(replacement(&old).unwrap_err().kind(), io::ErrorKind::AlreadyExists);
        assert_eq!(std::fs::read_to_string(&new).unwrap(), "text");
    }

    /// Runs `setfacl`; returns `false` if it cannot set an ACL here.
    fn set_acl(path: &Path, arguments: &[&str]) -> bool {
        let run = Command::new("setfacl").args(arguments).arg(path).output();
        let is_set = run.as_ref().is_ok_and(|run| run.status.success());
        if !is_set {
            eprintln!("skipped: setfacl cannot set an ACL here: {run:?}");
        }
        is_set
    }

    fn acl_text(path: &Path) -> BTreeSet<String> {
        let run = Command::new("getfacl").args(["-cnp"]).arg(path).output().unwrap();
        String::from_utf8(run.stdout).unwrap().lines().map(str::to_owned).collect()
    }

    #[rstest]
    #[case::of_a_user("u:1234:rw")]
    #[case::of_a_group("g:1234:r")]
    #[case::of_several("u:1234:rw,u:99:-,g:1234:r,g:7:w,g::-,m::r")]
    fn an_acl_is_kept(#[case] entries: &str) {
        let directory = tempfile::tempdir().unwrap();
        let old = directory.path().join("old");
        std::fs::write(&old, "").unwrap();
        if !set_acl(&old, &["-m", entries]) {
            return;
        }
        let new = replacement(&old).unwrap();
        assert_eq!(acl_text(&new), acl_text(&old));
        assert!(acl_text(&new).iter().any(|line| line.contains(":1234:")), "{:?}", acl_text(&new));
        assert_eq!(attributes(&new), attributes(&old));
    }

    #[test]
    fn the_default_acl_of_a_directory_gives_no_user_rights() {
        let directory = tempfile::tempdir().unwrap();
        let old = directory.path().join("old");
        std::fs::write(&old, "").unwrap();
        if !set_acl(directory.path(), &["-d", "-m", "u:1234:rw"]) {
            return;
        }
        let new = replacement(&old).unwrap();
        assert_eq!(acl_text(&new), acl_text(&old));
        assert!(attributes(&new).acl.is_none());
    }

    fn with_acl(
        attributes: Attributes,
        group: u32,
        users: &[(u32, u32)],
        groups: &[(u32, u32)],
    ) -> Attributes {
        let (users, groups) = (users.to_vec(), groups.to_vec());
        Attributes { acl: Some(Acl { group, users, groups }), ..attributes }
    }

    #[test]
    fn an_acl_in_the_kernels_form_is_parsed_and_other_bytes_are_not() {
        let attributes = with_acl(Attributes::new(1, 2, 0o654), 4, &[(7, 6), (9, 0)], &[(8, 1)]);
        let acl = attributes.acl.unwrap();
        let text = acl.text(attributes.mode);
        assert_eq!(Acl::parse(&text), Some(Some(acl)));
        for wrong in [&text[..text.len() - 1], &text[1..], &[], &[2, 0, 0, 0, 64, 0, 7, 0, 1, 0, 0, 0]] {
            assert_eq!(Acl::parse(wrong), None);
        }
        assert_eq!(Acl::parse(&[2, 0, 0, 0, 1, 0, 6, 0, 255, 255, 255, 255]), Some(None));
    }

    /// User 5 owns the file and is in group 50, and user 6 is in group 60.
    fn is_member(user: u32, group: u32) -> bool {
        group == user * 10
    }

    #[rstest]
    #[case::an_entry_of_the_user(with_acl(Attributes::new(5, 50, 0o660), 0, &[(5, 4)], &[]), true)]
    #[case::an_entry_that_the_mask_takes_away(with_acl(Attributes::new(5, 50, 0o620), 6, &[(5, 4)], &[]), false)]
    #[case::an_entry_that_denies(with_acl(Attributes::new(5, 50, 0o664), 6, &[(5, 2)], &[]), false)]
    #[case::an_entry_of_its_group(with_acl(Attributes::new(5, 70, 0o640), 0, &[], &[(50, 4)]), true)]
    #[case::an_entry_of_another_group(with_acl(Attributes::new(5, 70, 0o640), 0, &[], &[(60, 4)]), false)]
    #[case::a_group_that_denies(with_acl(Attributes::new(5, 70, 0o644), 4, &[], &[(50, 2)]), false)]
    #[case::all_users(with_acl(Attributes::new(5, 70, 0o644), 0, &[(6, 0)], &[(60, 0)]), true)]
    #[case::the_group_of_the_file(Attributes::new(5, 50, 0o640), true)]
    #[case::no_right_of_the_group(Attributes::new(5, 50, 0o604), false)]
    fn an_owner_that_is_not_kept_must_be_able_to_read(#[case] old: Attributes, #[case] can_read: bool) {
        let new = old.under(6, old.group, is_member);
        match can_read {
            true => assert_eq!(new, Ok(Attributes { owner: 6, ..old })),
            false => assert_eq!(new, Err(OwnerNotKept { owner: 5, user: 6 })),
        }
    }

    #[test]
    fn another_group_gets_no_more_than_all_users_had() {
        let old = with_acl(Attributes::new(5, 70, 0o675), 6, &[(9, 4)], &[(60, 4)]);
        let new = old.under(5, 50, is_member).unwrap();
        assert_eq!(new, with_acl(Attributes::new(5, 50, 0o674), 4, &[(9, 4)], &[(60, 4)]));
        for (mode, expected) in
            [(0o664, 0o644), (0o660, 0o600), (0o604, 0o600), (0o666, 0o666), (0o640, 0o600)]
        {
            let new = Attributes::new(5, 70, mode).under(5, 50, is_member).unwrap();
            assert_eq!(new, Attributes::new(5, 50, expected));
        }
    }

    #[test]
    fn without_the_acl_the_group_keeps_its_own_rights_within_the_mask() {
        let old = with_acl(Attributes::new(5, 50, 0o664), 0, &[(9, 6)], &[]);
        assert_eq!(old.without_acl(), Attributes::new(5, 50, 0o604));
        let old = with_acl(Attributes::new(5, 50, 0o644), 6, &[(9, 6)], &[]);
        assert_eq!(old.without_acl(), Attributes::new(5, 50, 0o644));
    }
}
