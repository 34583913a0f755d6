//! Numbers of leases of client classes.

use super::TestedLease;
use super::case::{Case, Verdict, ask};
use super::model::{class_leases, has_class_leases};
use super::sample::{at, in_state, in_subnet, sample, with, with_context};
use crate::lease::{LeaseKind, LeaseState, SubnetId, UserContext, system_time};

const NAMES: [&str; 4] = ["gold", "silver", "Gold", "absent"];

/// Checks that the counts of all classes are those of these leases.
fn counts<L: TestedLease>(case: &Case<L>, leases: &[L]) -> Verdict {
    for name in NAMES {
        for kind in [LeaseKind::Address, LeaseKind::Prefix] {
            has_class_leases(case, name, kind, class_leases(leases, name, kind))?;
        }
    }
    Ok(())
}

pub(super) fn a_class_counts_the_leases_in_use_that_name_it<L: TestedLease>(case: &Case<L>) -> Verdict {
    has_class_leases(case, "gold", LeaseKind::Address, 0)?;
    let classes: [&[&str]; 5] = [&["gold"], &["gold", "silver"], &["silver"], &[], &["Gold", "other"]];
    for (names, n) in classes.into_iter().zip(1..) {
        case.add(&with_context(&sample::<L>(n, n)?, names, &[])?)?;
    }
    // Leases in other states do not count.
    for state in [1, 2, 3, 4, 77] {
        case.add(&in_state(
            &with_context(&sample::<L>(100 + state, 1)?, &["gold"], &[])?,
            LeaseState(state),
        )?)?;
    }
    for (name, count) in [("gold", 2), ("silver", 2), ("Gold", 1), ("other", 1), ("absent", 0), ("", 0)] {
        has_class_leases(case, name, LeaseKind::Address, count)?;
    }
    Ok(())
}

pub(super) fn a_class_counts_addresses_and_prefixes_separately<L: TestedLease>(case: &Case<L>) -> Verdict {
    let mut leases = Vec::new();
    for n in 0..12 {
        let lease = sample::<L>(n, n)?.with_kind(L::KINDS[n as usize % L::KINDS.len()])?;
        leases.push(with_context(&lease, &[NAMES[n as usize / 6]], &[])?);
    }
    case.add_all(&leases[..10])?;
    counts(case, &leases[..10])
}

pub(super) fn class_counts_follow_every_change<L: TestedLease>(case: &Case<L>) -> Verdict {
    let mut leases = Vec::new();
    for n in 0..6 {
        leases.push(with_context(&sample::<L>(n, n)?, &["gold"], &[])?);
        case.add(&leases[n as usize])?;
        counts(case, &leases)?;
    }
    // State.
    for state in [1, 0, 2, 3, 0] {
        leases[0] = in_state(&leases[0], LeaseState(state))?;
        case.update(&leases[0])?;
        counts(case, &leases)?;
    }
    // Classes.
    for names in [&["silver"][..], &["gold", "silver"], &[], &["gold"]] {
        leases[1] = with_context(&leases[1], names, &[])?;
        case.update(&leases[1])?;
        counts(case, &leases)?;
    }
    leases[2].data_mut().user_context = None;
    case.update(&leases[2])?;
    counts(case, &leases)?;
    // Another client, and another subnet.
    leases[3] = in_subnet(&with_context(&at(leases[3].address(), 50)?, &["silver", "Gold"], &[])?, 2);
    case.update(&leases[3])?;
    counts(case, &leases)?;
    // Deletion.
    case.delete(leases.remove(4).address())?;
    counts(case, &leases)?;
    leases[0] = in_state(&leases[0], LeaseState::EXPIRED_RECLAIMED)?;
    case.update(&leases[0])?;
    ask("delete reclaimed leases", case.mgr().delete_reclaimed(system_time(u32::MAX.into())))?;
    leases.remove(0);
    counts(case, &leases)?;
    ask("wipe subnet 1", case.mgr().wipe_subnet(SubnetId(1)))?;
    leases.retain(|lease| lease.data().subnet_id != SubnetId(1));
    counts(case, &leases)?;
    // A refused change.
    ask("add to an address with a lease", case.mgr().add(&leases[0]).map(drop))?;
    counts(case, &leases)?;
    case.clear()?;
    counts(case, &[])
}

pub(super) fn a_class_that_a_lease_names_twice_counts_once<L: TestedLease>(case: &Case<L>) -> Verdict {
    let lease = with_context(&sample::<L>(1, 1)?, &["gold", "silver", "gold"], &[])?;
    case.add(&lease)?;
    counts(case, std::slice::from_ref(&lease))?;
    let renewed = with(&lease, |data| data.cltt += 1);
    case.update(&renewed)?;
    counts(case, &[renewed])?;
    case.delete(lease.address())?;
    counts(case, &[])
}

pub(super) fn names_elsewhere_in_the_context_are_not_classes<L: TestedLease>(case: &Case<L>) -> Verdict {
    let contexts = [
        r#"{ "client-classes": [ "gold" ] }"#,
        r#"{ "ISC": { "classes": [ "gold" ] } }"#,
        r#"{ "ISC": { "client-classes": "gold" } }"#,
        r#"{ "ISC": { "client-classes": { "gold": 1 } } }"#,
        r#"{ "ISC": { "client-classes": [ 1, null, [ "gold" ], { "name": "gold" } ] } }"#,
        r#"{ "ISC": [ "client-classes", "gold" ] }"#,
        r#"{ "ISC": { "limits": { "client-classes": [ { "name": "gold", "address-limit": 1 } ] } } }"#,
        r#"{ "ISC": { "client-classes": [ "goldfish", "gol" ] } }"#,
    ];
    for (context, n) in contexts.into_iter().zip(1..) {
        let context = UserContext::parse(context.as_bytes())?;
        case.add(&with(&sample::<L>(n, n)?, |data| data.user_context = Some(context)))?;
        has_class_leases(case, "gold", LeaseKind::Address, 0)?;
    }
    // A valid name among other values.
    let context =
        UserContext::parse(br#"{ "ISC": { "client-classes": [ 1, "g\u006fld", null ] }, "gold": 1 }"#)?;
    case.add(&with(&sample::<L>(100, 1)?, |data| data.user_context = Some(context)))?;
    has_class_leases(case, "gold", LeaseKind::Address, 1)?;
    // Loading may remove an `ISC` that is not a map from a user context.
    case.delete(L::address_number(6))
}

pub(super) fn a_recount_gives_the_same_class_counts<L: TestedLease>(case: &Case<L>) -> Verdict {
    let mut leases = Vec::new();
    for n in 0..8 {
        let lease = with_context(&sample::<L>(n, n)?, &NAMES[..n as usize % 3], &[])?;
        leases.push(in_state(&lease, LeaseState(n / 6))?);
    }
    case.add_all(&leases)?;
    case.delete(leases.remove(2).address())?;
    for _ in 0..2 {
        counts(case, &leases)?;
        ask("recount", case.mgr().recount())?;
    }
    // Changes are still counted.
    case.delete(leases.remove(1).address())?;
    leases[0] = with_context(&leases[0], &["Gold"], &[])?;
    case.update(&leases[0])?;
    counts(case, &leases)
}
