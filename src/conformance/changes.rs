//! Adding, reading, updating and deleting leases.

use super::TestedLease;
use super::case::{
    Action, Case, Fault, Verdict, ask, changed_meanwhile, holds, no_such_lease, same, same_leases,
};
use super::sample::{
    PREFIX, at, full, hostname, hwaddr, id, in_state, in_subnet, rebuilt, sample, samples, shuffled, with,
    with_context,
};
use crate::lease::{
    Hostname, HwAddr, Lease6, LeaseState, LeaseType, Lifetime, PoolId, SubnetId, system_time,
};
use crate::{Added, Deleted, LeaseMgrError, LeaseMgrExt, Query};

pub(super) fn an_empty_manager_has_no_leases<L: TestedLease>(case: &Case<L>) -> Verdict {
    let lease = full::<L>(1)?;
    case.holds([], [&lease])?;
    case.expired(i64::MAX, 0, [])?;
    let mgr = case.mgr();
    same("delete", &ask("delete", mgr.delete_expecting(lease.address(), None))?, &Deleted::NoSuchLease)?;
    same(
        "delete reclaimed leases",
        &ask("delete reclaimed leases", mgr.delete_reclaimed(system_time(i64::MAX)))?,
        &0,
    )?;
    same("wipe subnet 1", &ask("wipe subnet 1", mgr.wipe_subnet(SubnetId(1)))?, &0)?;
    ask("recount", mgr.recount())?;
    case.holds([], [&lease])
}

pub(super) fn an_added_lease_can_be_read<L: TestedLease>(case: &Case<L>) -> Verdict {
    let leases = samples::<L>(1..5)?;
    for (i, lease) in leases.iter().enumerate() {
        case.has(lease.address(), None)?;
        case.add(lease)?;
        case.has(lease.address(), Some(lease))?;
        case.holds(&leases[..=i], &leases)?;
    }
    Ok(())
}

pub(super) fn an_address_has_one_lease<L: TestedLease>(case: &Case<L>) -> Verdict {
    let lease = sample::<L>(1, 1)?;
    case.add(&lease)?;
    let others = [lease.clone(), in_subnet(&lease, 2), sample(1, 2)?, in_state(&lease, LeaseState(77))?];
    for other in &others {
        let action = Action("add to an address with a lease", other);
        same(&action, &ask(&action, case.mgr().add(other))?, &Added::AddressTaken)?;
        case.holds([&lease], &others)?;
    }
    // In any state of the existing lease.
    for state in [1, 2, 3, 77] {
        let used = in_state(&lease, LeaseState(state))?;
        case.update(&used)?;
        let action = Action("add to an address with a lease in another state", &lease);
        same(&action, &ask(&action, case.mgr().add(&lease))?, &Added::AddressTaken)?;
        case.has(lease.address(), Some(&used))?;
    }
    Ok(())
}

pub(super) fn the_first_and_the_last_address_can_be_leased<L: TestedLease>(case: &Case<L>) -> Verdict {
    let addresses = L::scattered();
    let ends = [addresses.first(), addresses.last()].into_iter().flatten();
    let leases = ends.map(|&address| at::<L>(address, 1)).collect::<Verdict<Vec<_>>>()?;
    case.add_all(&leases)?;
    case.holds(&leases, [])?;
    for (i, lease) in leases.iter().enumerate() {
        case.finds(&Query::all().after(lease.address()), &leases[i + 1..])?;
    }
    case.delete(leases[0].address())?;
    case.holds(&leases[1..], &leases)
}

/// Leases with the minimum and the maximum of each field, as far as the backend keeps them.
pub(super) fn extremes<L: TestedLease>(case: &Case<L>) -> Verdict<Vec<L>> {
    let base = full::<L>(1)?;
    let (shortest, longest) = L::ID_LENGTHS;
    let every_byte: Vec<u8> = (0..=255).filter(|byte: &u8| !byte.is_ascii_uppercase()).collect();
    let mut leases = vec![
        base.clone(),
        with(&base, |data| data.cltt = 0),
        with(&base, |data| data.cltt = u32::MAX.into()),
        with(&base, |data| data.valid_lifetime = Lifetime(1)),
        with(&base, |data| data.valid_lifetime = Lifetime(u32::MAX - 1)),
        with(&base, |data| data.valid_lifetime = Lifetime::INFINITE),
        with(&base, |data| data.subnet_id = SubnetId(0)),
        with(&base, |data| data.subnet_id = SubnetId(u32::MAX)),
        with(&base, |data| data.pool_id = PoolId(u32::MAX)),
        with(&base, |data| data.fqdn_fwd = false),
        with(&base, |data| data.fqdn_rev = false),
        with(&base, |data| data.hostname = "a".into()),
        with(&base, |data| data.hostname = Hostname::new(&every_byte)),
        with(&base, |data| data.hostname = "comma,newline\nand&#x41;escape".into()),
        with(&base, |data| data.hostname = Hostname::new(&[b'x'; 1000])),
        with_context(&base, &[], &[])?,
        in_state(&base, LeaseState(u32::MAX))?,
        base.with_client(Some(HwAddr::new(&[0])?), base.id())?,
        base.with_client(Some(HwAddr::new(&[255; HwAddr::MAX_LEN])?), base.id())?,
        base.with_client(base.hwaddr().cloned(), &vec![1; shortest])?,
        base.with_client(base.hwaddr().cloned(), &vec![255; longest])?,
        in_state(&base, LeaseState::DECLINED)?.with_client(None, &[])?,
    ];
    let text = br#"{ "a,b": "\u0000\u00ff\"\\/\n", "c": [ 1, -2.5e3, true, false, null, {  }, [  ] ] }"#;
    let context = crate::lease::UserContext::parse(text)?;
    leases.push(with(&base, |data| data.user_context = Some(context)));
    let context = format!("{{ \"long\": \"{}\" }}", "&,".repeat(5000));
    let context = crate::lease::UserContext::parse(context.as_bytes())?;
    leases.push(with(&base, |data| data.user_context = Some(context)));
    leases.extend(base.family_variants()?.into_iter().map(|(_, lease)| lease));
    // Each has an address of its own.
    let mut moved = Vec::new();
    for (lease, n) in leases.iter().zip(1..) {
        moved.push(lease.at_address(L::address_number(n))?);
    }
    moved.retain(|lease| case.keeps(lease));
    Ok(moved)
}

pub(super) fn a_lease_is_stored_unchanged<L: TestedLease>(case: &Case<L>) -> Verdict {
    let leases = extremes(case)?;
    for lease in shuffled(&leases) {
        case.add(&lease)?;
        case.has(lease.address(), Some(&lease))?;
    }
    case.holds(&leases, [])?;
    // The same with an update.
    case.clear()?;
    for lease in &leases {
        case.add(&at(lease.address(), 9)?)?;
        case.update(lease)?;
        case.has(lease.address(), Some(lease))?;
    }
    case.holds(&leases, [&sample(999, 9)?])
}

pub(super) fn a_freed_address_can_be_leased_again<L: TestedLease>(case: &Case<L>) -> Verdict {
    let (first, second) = (sample::<L>(1, 1)?, in_subnet(&sample(1, 2)?, 2));
    for _ in 0..3 {
        case.add(&first)?;
        case.delete(first.address())?;
        case.add(&second)?;
        case.holds([&second], [&first])?;
        case.delete(first.address())?;
        case.holds([], [&first, &second])?;
    }
    case.add(&first)?;
    case.holds([&first], [&second])
}

pub(super) fn an_update_of_a_missing_lease_fails<L: TestedLease>(case: &Case<L>) -> Verdict {
    let (lease, neighbour) = (sample::<L>(1, 1)?, sample::<L>(2, 1)?);
    case.add(&neighbour)?;
    let address = lease.address();
    no_such_lease("update a missing lease", &case.mgr().update_expecting(&lease, None), address)?;
    let renewed = with(&lease, |data| data.cltt += 1);
    let result = case.mgr().update_expecting(&renewed, Some(&lease));
    no_such_lease("update a missing lease, if unchanged", &result, address)?;
    case.holds([&neighbour], [&lease, &renewed])?;
    // A deleted lease is missing, too.
    case.add(&lease)?;
    case.delete(address)?;
    let result = case.mgr().update_expecting(&renewed, Some(&lease));
    no_such_lease("update a deleted lease, if unchanged", &result, address)?;
    no_such_lease("update a deleted lease", &case.mgr().update_expecting(&renewed, None), address)?;
    case.holds([&neighbour], [&lease, &renewed])
}

pub(super) fn an_update_replaces_the_lease<L: TestedLease>(case: &Case<L>) -> Verdict {
    let (lease, neighbour) = (full::<L>(1)?, full::<L>(2)?);
    case.add_all([&lease, &neighbour])?;
    let mut others = vec![lease.clone()];
    for (field, variant) in case.variants(&lease)? {
        let action = format_args!("update a lease, {field}");
        ask(action, case.mgr().update_expecting(&variant, None))?;
        same_leases(action, case.get(lease.address())?.iter(), [&variant])?;
        case.holds([&variant, &neighbour], &others)?;
        others.push(variant);
    }
    case.update(&lease)?;
    case.holds([&lease, &neighbour], &others)
}

pub(super) fn an_unchanged_lease_can_be_updated<L: TestedLease>(case: &Case<L>) -> Verdict {
    let lease = full::<L>(1)?;
    case.add(&lease)?;
    ask("update a lease to the same, if unchanged", case.mgr().update_expecting(&lease, Some(&lease)))?;
    case.holds([&lease], [])?;
    let mut variants = case.variants(&lease)?;
    variants.push(("all fields unchanged", lease.clone()));
    let mut before = lease.clone();
    for (field, variant) in variants {
        let result = case.mgr().update_if_unchanged(&before, &variant);
        ask(format_args!("update a lease, if unchanged, {field}"), result)?;
        case.has(lease.address(), Some(&variant))?;
        before = variant;
    }
    case.holds([&lease], [])
}

pub(super) fn a_lease_that_changed_in_any_field_is_not_updated<L: TestedLease>(case: &Case<L>) -> Verdict {
    let lease = full::<L>(1)?;
    let wanted = with(&lease, |data| data.cltt += 1000);
    for (field, variant) in case.variants(&lease)? {
        for (there, expected) in [(&variant, &lease), (&lease, &variant)] {
            case.add(there)?;
            let action = format!("update a lease that differs from the expected one: {field}");
            let result = case.mgr().update_expecting(&wanted, Some(expected));
            changed_meanwhile(&action, &result, lease.address())?;
            same_leases(&action, case.get(lease.address())?.iter(), [there])?;
            case.delete(lease.address())?;
        }
    }
    // A caller that reads the lease again can update it.
    case.add(&lease)?;
    let renewed = with(&lease, |data| data.cltt += 1);
    case.update(&renewed)?;
    let result = case.mgr().update_expecting(&wanted, Some(&lease));
    changed_meanwhile(
        "update a renewed lease, expecting the lease as read before",
        &result,
        lease.address(),
    )?;
    ask("update it, expecting the lease as read now", case.mgr().update_expecting(&wanted, Some(&renewed)))?;
    case.holds([&wanted], [&lease, &renewed])
}

pub(super) fn an_expected_lease_of_another_address_is_refused<L: TestedLease>(case: &Case<L>) -> Verdict {
    let lease = full::<L>(1)?;
    let same_but_moved = lease.at_address(L::address_number(2))?;
    let renewed = with(&lease, |data| data.cltt += 1);
    case.add(&lease)?;
    let refused = |there: &[&L]| {
        let action = "update a lease, expecting that of another address";
        let result = case.mgr().update_expecting(&renewed, Some(&same_but_moved));
        changed_meanwhile(action, &result, lease.address())?;
        let action = "delete a lease, expecting that of another address";
        let result = case.mgr().delete_expecting(lease.address(), Some(&same_but_moved));
        changed_meanwhile(action, &result, lease.address())?;
        case.has(lease.address(), Some(&lease))?;
        case.holds(there.iter().copied(), [&renewed])
    };
    refused(&[&lease])?;
    // Even if the other address has that lease.
    case.add(&same_but_moved)?;
    refused(&[&lease, &same_but_moved])
}

pub(super) fn prefixes_that_differ_in_length_are_different(case: &Case<Lease6>) -> Verdict {
    let lease = full::<Lease6>(1)?;
    let of_length = |len| rebuilt(&lease, PREFIX, LeaseType::PD, len, lease.duid().clone());
    let lengths = [48, 56, 64, 128].map(of_length).into_iter().collect::<Verdict<Vec<_>>>()?;
    let mut there = &lengths[3];
    case.add(there)?;
    for prefix in &lengths {
        case.update(prefix)?;
        case.has(PREFIX, Some(prefix))?;
        there = prefix;
        for other in lengths.iter().filter(|other| other.prefix_len() != prefix.prefix_len()) {
            let action = format_args!("update /{}, expecting /{}", prefix.prefix_len(), other.prefix_len());
            changed_meanwhile(action, &case.mgr().update_expecting(other, Some(other)), PREFIX)?;
            let action = format_args!("delete /{}, expecting /{}", prefix.prefix_len(), other.prefix_len());
            changed_meanwhile(action, &case.mgr().delete_expecting(PREFIX, Some(other)), PREFIX)?;
            case.has(PREFIX, Some(prefix))?;
        }
    }
    case.holds([there], &lengths)
}

pub(super) fn a_lifetime_of_zero_is_refused<L: TestedLease>(case: &Case<L>) -> Verdict {
    let (lease, free) = (sample::<L>(1, 1)?, sample::<L>(2, 2)?);
    let ended = |lease| with(lease, |data| data.valid_lifetime = Lifetime(0));
    case.add(&lease)?;
    let refused = |action, result| match result {
        Err(LeaseMgrError::ZeroLifetime { .. }) => case.holds([&lease], [&free]),
        other => {
            Err(Fault::new(action, "the error that the lease has no lifetime", format_args!("{other:?}")))
        }
    };
    refused("add a lease that is valid for 0 seconds", case.mgr().add(&ended(&free)).map(drop))?;
    refused("update a lease to be valid for 0 seconds", case.mgr().update_expecting(&ended(&lease), None))?;
    let result = case.mgr().update_expecting(&ended(&lease), Some(&lease));
    refused("update a lease, if unchanged, to be valid for 0 seconds", result)
}

pub(super) fn a_lease_that_is_not_in_use_may_have_a_lifetime_of_zero<L: TestedLease>(
    case: &Case<L>,
) -> Verdict {
    let ended_in = |lease: &L, state| -> Verdict<L> {
        Ok(with(&in_state(lease, state)?, |data| data.valid_lifetime = Lifetime(0)))
    };
    let lease = sample::<L>(2, 2)?;
    let added = ended_in(&sample(1, 1)?, LeaseState::RELEASED)?;
    let updated = ended_in(&lease, LeaseState::EXPIRED_RECLAIMED)?;
    case.add_all([&added, &lease])?;
    ask("update a lease", case.mgr().update_expecting(&updated, Some(&lease)))?;
    case.holds([&added, &updated], [&sample(3, 3)?])?;
    ask("update it again", case.mgr().update_expecting(&lease, Some(&updated)))?;
    let deleted = case.mgr().delete_expecting(added.address(), Some(&added));
    same("delete it", &ask("delete it", deleted)?, &Deleted::Deleted)?;
    case.holds([&lease], [&added])
}

pub(super) fn a_deleted_lease_is_gone<L: TestedLease>(case: &Case<L>) -> Verdict {
    let mut leases = vec![full::<L>(1)?, full(2)?];
    leases.extend(samples(3..6)?);
    case.add_all(&leases)?;
    let all = leases.clone();
    for n in [2, 0, 0, 1, 0] {
        let lease = leases.remove(n);
        case.delete(lease.address())?;
        case.has(lease.address(), None)?;
        case.holds(&leases, &all)?;
    }
    Ok(())
}

pub(super) fn deleting_a_missing_lease_returns_no_such_lease<L: TestedLease>(case: &Case<L>) -> Verdict {
    let (lease, neighbour) = (sample::<L>(1, 1)?, sample::<L>(2, 1)?);
    case.add(&neighbour)?;
    let delete = |expected: Option<&L>| {
        let action = "delete a missing lease";
        let deleted = ask(action, case.mgr().delete_expecting(lease.address(), expected))?;
        same(action, &deleted, &Deleted::NoSuchLease)
    };
    delete(None)?;
    delete(Some(&lease))?;
    case.add(&lease)?;
    case.delete(lease.address())?;
    delete(None)?;
    delete(Some(&lease))?;
    case.holds([&neighbour], [&lease])
}

pub(super) fn an_unchanged_lease_can_be_deleted<L: TestedLease>(case: &Case<L>) -> Verdict {
    let (lease, neighbour) = (full::<L>(1)?, full::<L>(2)?);
    case.add(&neighbour)?;
    for (field, variant) in case.variants(&lease)? {
        case.add(&variant)?;
        let action = format!("delete a lease, if unchanged, {field}");
        let deleted = ask(&action, case.mgr().delete_if_unchanged(&variant))?;
        same(&action, &deleted, &Deleted::Deleted)?;
        case.holds([&neighbour], [&variant])?;
    }
    Ok(())
}

pub(super) fn a_lease_that_changed_in_any_field_is_not_deleted<L: TestedLease>(case: &Case<L>) -> Verdict {
    let lease = full::<L>(1)?;
    for (field, variant) in case.variants(&lease)? {
        for (there, expected) in [(&variant, &lease), (&lease, &variant)] {
            case.add(there)?;
            let action = format!("delete a lease that differs from the expected one: {field}");
            let result = case.mgr().delete_expecting(lease.address(), Some(expected));
            changed_meanwhile(&action, &result, lease.address())?;
            same_leases(&action, case.get(lease.address())?.iter(), [there])?;
            case.delete(lease.address())?;
        }
    }
    Ok(())
}

pub(super) fn a_refused_change_changes_nothing<L: TestedLease>(case: &Case<L>) -> Verdict {
    let leases = [full::<L>(1)?, full(2)?];
    case.add_all(&leases)?;
    let other = with_context(&in_subnet(&leases[0], 9), &["silver"], &[])?;
    let other = in_state(&with(&other, |data| data.hostname = hostname(9)), LeaseState::DEFAULT)?;
    let other = other.with_client(Some(hwaddr(9)?), &id(9))?;
    let absent = other.at_address(L::address_number(3))?;

    let mgr = case.mgr();
    let address = other.address();
    same("add to an address with a lease", &ask("add", mgr.add(&other))?, &Added::AddressTaken)?;
    case.holds(&leases, [&other, &absent])?;
    no_such_lease("update a missing lease", &mgr.update_expecting(&absent, None), absent.address())?;
    case.holds(&leases, [&other, &absent])?;
    changed_meanwhile("update a changed lease", &mgr.update_expecting(&other, Some(&other)), address)?;
    case.holds(&leases, [&other, &absent])?;
    changed_meanwhile("delete a changed lease", &mgr.delete_expecting(address, Some(&other)), address)?;
    case.holds(&leases, [&other, &absent])
}

pub(super) fn the_status_names_the_backend_and_counts_its_leases<L: TestedLease>(case: &Case<L>) -> Verdict {
    let status = case.mgr().status();
    holds("the backend in the status", !status.backend.is_empty(), "a name", &status.backend)?;
    same("why changes are refused, in the status", &status.refused, &None)?;
    let leases = samples::<L>(1..4)?;
    for (lease, n) in leases.iter().zip(1..) {
        case.add(lease)?;
        let count = case.mgr().status().leases;
        holds("the number of leases in the status", count.unwrap_or(n) == n, n, count)?;
    }
    ask("update", case.mgr().update(&leases[0]))?;
    ask("add again", case.mgr().add(&leases[0]).map(drop))?;
    case.delete(leases[1].address())?;
    ask("delete again", case.mgr().delete(leases[1].address()))?;
    let count = case.mgr().status().leases;
    holds("the number of leases in the status", count.unwrap_or(2) == 2, 2, count)
}

pub(super) fn flushing_changes_no_lease<L: TestedLease>(case: &Case<L>) -> Verdict {
    let leases = samples::<L>(1..4)?;
    ask("flush without leases", case.mgr().flush())?;
    for (i, lease) in leases.iter().enumerate() {
        case.add(lease)?;
        ask("flush", case.mgr().flush())?;
        case.holds(&leases[..=i], &leases)?;
    }
    ask("flush again", case.mgr().flush())?;
    case.holds(&leases, [])
}

pub(super) fn a_cleanup_changes_no_lease<L: TestedLease>(case: &Case<L>) -> Verdict {
    let mut leases = samples::<L>(1..6)?;
    case.add_all(&leases)?;
    ask("clean up", case.mgr().clean_up())?;
    case.holds(&leases, [])?;
    // Changes continue during the cleanup.
    let old = leases.clone();
    leases[0] = in_subnet(&leases[0], 2);
    case.update(&leases[0])?;
    case.delete(leases[4].address())?;
    leases[4] = sample(6, 6)?;
    case.add(&leases[4])?;
    ask("clean up again", case.mgr().clean_up())?;
    case.holds(&leases, &old)
}
