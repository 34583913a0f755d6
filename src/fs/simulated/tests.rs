//! The guarantees of the simulated disk.

use std::collections::BTreeSet;
use std::io;
use std::path::Path;
use std::sync::Arc;

use parking_lot::Mutex;

use super::survivors::SECTOR;
use super::*;
use crate::fs::{Attributes, FileSystem};

const F: &str = "/leases/f";
const G: &str = "/leases/g";

fn contents<const N: usize>(files: [(&str, &str); N]) -> Contents {
    files.map(|(path, text)| (path.into(), text.into())).into()
}

fn holding<const N: usize>(files: [(&str, &str); N]) -> SimulatedDisk {
    SimulatedDisk::new(State::holding(&contents(files)))
}

fn fail_next(disk: &SimulatedDisk, error: i32, effect: Effect, lasting: bool) {
    let _ = disk.clone().with_fault(Fault { at: disk.operations().len(), error, effect, lasting });
}

fn survivors(disk: &SimulatedDisk) -> BTreeSet<Contents> {
    disk.state().survivors(0).disks
}

#[test]
fn only_synced_bytes_and_names_survive() {
    let disk = SimulatedDisk::new(State::default());
    let file = disk.create(Path::new(F)).unwrap();
    file.append(b"1234").unwrap();
    let with = |text| contents([(F, text)]);
    let zeros = "\0\0\0\0";
    let expected = ["", "12", "123", "1234", zeros].map(with).into_iter().chain([contents([])]).collect();
    assert_eq!(survivors(&disk), expected);
    file.sync().unwrap();
    assert_eq!(survivors(&disk), BTreeSet::from([contents([]), with("1234")]));
    disk.sync_directory(Path::new("/elsewhere")).unwrap();
    assert_eq!(survivors(&disk).len(), 2);
    disk.sync_directory(Path::new("/leases")).unwrap();
    assert_eq!(survivors(&disk), BTreeSet::from([with("1234")]));
}

#[test]
fn names_without_a_directory_are_in_the_current_directory() {
    let disk = SimulatedDisk::new(State::default());
    disk.create(Path::new("f")).unwrap();
    disk.sync_directory(Path::new(".")).unwrap();
    assert_eq!(survivors(&disk), BTreeSet::from([contents([("f", "")])]));
}

#[test]
fn a_renamed_file_has_either_name_after_a_power_cut() {
    let disk = holding([(F, "new"), (G, "old")]);
    disk.rename(Path::new(F), Path::new(G)).unwrap();
    let expected = [contents([(F, "new"), (G, "old")]), contents([(G, "new")])];
    assert_eq!(survivors(&disk), expected.into());
}

#[test]
fn overwritten_sectors_survive_independently() {
    let text = |first: &str, second: &str| first.repeat(SECTOR) + second;
    let disk = holding([(F, &text("a", "b"))]);
    disk.open_write(Path::new(F)).unwrap().write_at(text("x", "y").as_bytes(), 0).unwrap();
    let all = [("a", "b"), ("a", "y"), ("x", "b"), ("x", "y")];
    let expected = all.map(|(first, second)| contents([(F, &text(first, second))]));
    assert_eq!(survivors(&disk), expected.into());
    let some = disk.state().some_survivors(1, 20);
    assert_eq!(some, disk.state().some_survivors(1, 20));
    assert!(some.len() > 1 && some.is_subset(&survivors(&disk)), "{some:?}");
}

/// Creates G as a replacement of F, as user 7 of the groups 8 and 9.
fn replaced_by_user_7(old: Attributes) -> Result<Attributes, String> {
    let state = State::holding(&contents([(F, "")])).with_attributes(F, old);
    let disk = SimulatedDisk::new(state).with_user(5, &[9]).as_user(7, &[8, 9]);
    let attributes = disk.open(Path::new(F)).and_then(|file| file.attributes());
    let attributes = attributes.map_err(|error| error.to_string())?.unwrap();
    disk.create_like(Path::new(G), &attributes).map(drop).map_err(|error| error.to_string())?;
    Ok(disk.state().attributes(G).unwrap().clone())
}

#[rstest::rstest]
#[case::kept((7, 8, 0o640), Ok((7, 8, 0o640)))]
#[case::kept_with_a_second_group((7, 9, 0o600), Ok((7, 9, 0o600)))]
#[case::with_the_old_owner_in_the_group((5, 9, 0o640), Ok((7, 9, 0o640)))]
#[case::with_all_users_reading((6, 6, 0o664), Ok((7, 8, 0o644)))]
#[case::with_a_group_of_others((7, 6, 0o660), Ok((7, 8, 0o600)))]
#[case::with_a_group_that_may_do_less_than_others((7, 6, 0o646), Ok((7, 8, 0o644)))]
#[case::of_the_superuser((0, 8, 0o640), Ok((7, 8, 0o640)))]
#[case::locked_out((6, 9, 0o640), Err("user 6 owns the file to be replaced and could not read the new one"))]
#[case::locked_out_by_its_group((5, 9, 0o604), Err("permission denied"))]
#[case::not_readable((6, 6, 0o640), Err("permission denied"))]
fn a_replacement_by_a_user_gives_no_other_user_more_rights(
    #[case] (owner, group, mode): (u32, u32, u32),
    #[case] expected: Result<(u32, u32, u32), &str>,
) {
    let replaced = replaced_by_user_7(Attributes::new(owner, group, mode));
    match expected {
        Ok((owner, group, mode)) => assert_eq!(replaced, Ok(Attributes::new(owner, group, mode))),
        Err(expected) => {
            let error = replaced.unwrap_err();
            assert!(error.starts_with(expected), "{error}");
        }
    }
}

#[test]
fn the_superuser_keeps_owner_group_and_mode() {
    let old = Attributes::new(5, 6, 0o6751);
    let disk = SimulatedDisk::new(holding([(F, "")]).state().with_attributes(F, old.clone()));
    disk.create(Path::new(G)).unwrap();
    assert_eq!(disk.state().attributes(G), Some(&Attributes::new(0, 0, 0o640)));
    disk.set_attributes(Path::new(G), &old).unwrap();
    disk.rename(Path::new(G), Path::new(F)).unwrap();
    assert_eq!(disk.state().attributes(F), Some(&Attributes::new(5, 6, 0o751)));
    assert_eq!(disk.state().attributes(G), None);
}

#[test]
fn a_sync_after_a_failed_sync_guarantees_nothing() {
    let disk = holding([(F, "")]).with_failing_sync(1);
    let file = disk.open_write(Path::new(F)).unwrap();
    file.append(b"1").unwrap();
    assert_eq!(file.sync().unwrap_err().raw_os_error(), Some(EIO));
    file.sync().unwrap();
    assert!(survivors(&disk).contains(&contents([(F, "")])));
}

#[test]
fn a_fault_has_its_effect_once_or_lasting() {
    let disk = holding([(F, "")]);
    let file = disk.open_write(Path::new(F)).unwrap();
    for (effect, text) in [
        (Effect::Nothing, ""),
        (Effect::Half, "12"),
        (Effect::AllButOne, "12123"),
        (Effect::Everything, "121231234"),
    ] {
        fail_next(&disk, ENOSPC, effect, false);
        assert_eq!(file.append(b"1234").unwrap_err().kind(), io::ErrorKind::StorageFull);
        assert_eq!(disk.state().contents(), contents([(F, text)]));
    }
    file.set_len(0).unwrap();
    fail_next(&disk, EIO, Effect::Half, true);
    for _ in 0..3 {
        assert_eq!(file.append(b"1234").unwrap_err().raw_os_error(), Some(EIO));
    }
    assert_eq!(disk.state().contents(), contents([(F, "12")]));
}

#[test]
fn before_each_sees_the_disk_before_the_operation() {
    let disk = SimulatedDisk::new(State::default()).with_moments();
    let (before, seen) = (disk.clone(), Arc::new(Mutex::new(Vec::new())));
    let calls = Arc::clone(&seen);
    let disk = disk.before_each(move |number, operation| {
        let contents = before.state().contents();
        calls.lock().push((number, operation.to_string(), contents));
    });
    disk.create(Path::new(F)).unwrap();
    disk.remove(Path::new(F)).unwrap();
    let expected =
        [(0, format!("Create {F}"), contents([])), (1, format!("Remove {F}"), contents([(F, "")]))];
    assert_eq!(*seen.lock(), expected);
    let moments: Vec<_> = disk.moments().iter().map(State::contents).collect();
    assert_eq!(moments, [contents([]), contents([(F, "")]), contents([])]);
}
