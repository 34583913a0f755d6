//! Leases that outlive their manager.

use super::TestedLease;
use super::case::{Action, Case, Fault, Opener, Verdict, ask, in_threads, same, same_leases};
use super::changes::extremes;
use super::sample::{END, in_state, in_subnet, sample, samples, variants, with};
use crate::lease::{LeaseState, SubnetId, system_time};
use crate::{Added, LeaseMgrError, LeaseMgrExt, Operation, Query};

/// Checks a rule, and that all its leases are found after a reopen.
pub(super) fn check_and_reopen<L: TestedLease>(
    opener: &Opener<'_, L>,
    check: fn(&Case<L>) -> Verdict,
) -> Verdict {
    let left = opener.with(|case| {
        check(case)?;
        case.all()
    })?;
    opener.with(|case| check_reopened(case, &left, &[])).map_err(Fault::in_passing)
}

/// Checks that the reopened manager has these leases.
fn check_reopened<L: TestedLease>(case: &Case<L>, leases: &[L], others: &[L]) -> Verdict {
    // Queries for more leases take long, and prove no more.
    const ASKED: usize = 300;
    let mut leases = leases.to_vec();
    leases.sort_by_key(L::address);
    same_leases("reopen the manager, and find all leases", &case.all()?, &leases)?;
    if leases.len() <= ASKED {
        case.holds(&leases, others)?;
    }
    Ok(())
}

pub(super) fn leases_outlive_their_manager<L: TestedLease>(opener: &Opener<'_, L>) -> Verdict {
    let leases = opener.with(|case| {
        let leases = extremes(case)?;
        case.add_all(&leases)?;
        Ok(leases)
    })?;
    opener.with(|case| check_reopened(case, &leases, &[]))
}

pub(super) fn an_empty_manager_is_empty_when_reopened<L: TestedLease>(opener: &Opener<'_, L>) -> Verdict {
    let lease = sample::<L>(1, 1)?;
    for _ in 0..3 {
        opener.with(|case| check_reopened(case, &[], std::slice::from_ref(&lease)))?;
    }
    Ok(())
}

pub(super) fn the_last_of_many_changes_survives<L: TestedLease>(opener: &Opener<'_, L>) -> Verdict {
    let lease = sample::<L>(1, 1)?;
    let forms: Vec<_> = variants(&lease)?.into_iter().map(|(_, form)| form).collect();
    opener.with(|case| case.add(&lease))?;
    for form in &forms {
        // A DHCPv4 file does not store a type.
        let keeps = form.hwaddr().is_none_or(|hwaddr| hwaddr.htype.0 == 1 && hwaddr.source.0 == 0);
        let last = if keeps { form } else { &lease };
        opener.with(|case| {
            for form in &forms {
                case.update(form)?;
            }
            case.update(last)
        })?;
        opener.with(|case| check_reopened(case, std::slice::from_ref(last), &forms))?;
    }
    Ok(())
}

pub(super) fn a_deleted_lease_stays_deleted<L: TestedLease>(opener: &Opener<'_, L>) -> Verdict {
    let leases = samples::<L>(0..6)?;
    opener.with(|case| {
        case.add_all(&leases)?;
        case.delete(leases[1].address())
    })?;
    let kept = |n: &[usize]| n.iter().map(|&n| leases[n].clone()).collect::<Vec<_>>();
    opener.with(|case| {
        check_reopened(case, &kept(&[0, 2, 3, 4, 5]), &leases)?;
        case.delete(leases[3].address())?;
        // Deleted, added, deleted.
        case.delete(leases[4].address())?;
        case.add(&leases[4])?;
        case.delete(leases[4].address())
    })?;
    opener.with(|case| {
        check_reopened(case, &kept(&[0, 2, 5]), &leases)?;
        case.add(&leases[4])?;
        ask("delete, if unchanged", case.mgr().delete_if_unchanged(&leases[5]).map(drop))
    })?;
    opener.with(|case| check_reopened(case, &kept(&[0, 2, 4]), &leases))
}

pub(super) fn deleted_reclaimed_leases_stay_deleted<L: TestedLease>(opener: &Opener<'_, L>) -> Verdict {
    let mut leases = samples::<L>(0..6)?;
    for lease in &mut leases[2..5] {
        lease.set_state(LeaseState::EXPIRED_RECLAIMED)?;
    }
    leases[3].data_mut().cltt += 10;
    let kept = [&leases[..2], &leases[3..4], &leases[5..]].concat();
    opener.with(|case| {
        case.add_all(&leases)?;
        let action = "delete reclaimed leases";
        same(action, &ask(action, case.mgr().delete_reclaimed(system_time(END)))?, &2)
    })?;
    opener.with(|case| check_reopened(case, &kept, &leases))
}

pub(super) fn a_wiped_subnet_stays_empty<L: TestedLease>(opener: &Opener<'_, L>) -> Verdict {
    let mut leases = samples::<L>(0..6)?;
    for lease in &mut leases[3..] {
        lease.data_mut().subnet_id = SubnetId(2);
    }
    opener.with(|case| {
        case.add_all(&leases)?;
        same("wipe subnet 1", &ask("wipe subnet 1", case.mgr().wipe_subnet(SubnetId(1)))?, &3)
    })?;
    opener.with(|case| check_reopened(case, &leases[3..], &leases))
}

pub(super) fn a_refused_change_is_not_persisted<L: TestedLease>(opener: &Opener<'_, L>) -> Verdict {
    let leases = samples::<L>(0..2)?;
    let other = in_subnet(&sample::<L>(0, 7)?, 7);
    let absent = sample::<L>(9, 9)?;
    opener.with(|case| {
        case.add_all(&leases)?;
        let mgr = case.mgr();
        // Another rule checks that these fail.
        let _ = mgr.add(&other);
        let _ = mgr.update_expecting(&absent, None);
        let _ = mgr.update_expecting(&other, Some(&other));
        let _ = mgr.delete_expecting(other.address(), Some(&other));
        let _ = mgr.delete_expecting(absent.address(), None);
        let _ = mgr.delete_expecting(absent.address(), Some(&absent));
        check_reopened(case, &leases, &[])
    })?;
    opener.with(|case| check_reopened(case, &leases, &[other.clone(), absent.clone()]))
}

pub(super) fn a_reopened_manager_continues_with_its_leases<L: TestedLease>(
    opener: &Opener<'_, L>,
) -> Verdict {
    let mut leases = samples::<L>(0..4)?;
    opener.with(|case| case.add_all(&leases))?;
    for round in 0..4_u32 {
        opener.with(|case| {
            check_reopened(case, &leases, &[])?;
            let action = Action("add to an address that had a lease before the reopen", &leases[0]);
            same(&action, &ask(&action, case.mgr().add(&leases[0]))?, &Added::AddressTaken)?;
            // A lease that was read before the reopen can be expected.
            let renewed = with(&leases[1], |data| data.cltt += 10);
            let action = Action("update, expecting the lease as before the reopen,", &renewed);
            ask(&action, case.mgr().update_if_unchanged(&leases[1], &renewed))?;
            leases[1] = renewed;
            let removed = leases.remove(2);
            let action = Action("delete, expecting the lease as before the reopen,", &removed);
            ask(&action, case.mgr().delete_if_unchanged(&removed).map(drop))?;
            leases.push(sample(10 + round, round)?);
            case.add(&leases[3])?;
            let reclaimed = in_state(&leases[0], LeaseState(round % 4))?;
            case.update(&reclaimed)?;
            leases[0] = reclaimed;
            case.holds(&leases, [&removed])
        })?;
    }
    opener.with(|case| check_reopened(case, &leases, &[]))
}

pub(super) fn repeated_reopening_changes_nothing<L: TestedLease>(opener: &Opener<'_, L>) -> Verdict {
    let leases = samples::<L>(0..5)?;
    opener.with(|case| case.add_all(&leases))?;
    for _ in 0..6 {
        opener.with(|case| check_reopened(case, &leases, &[]))?;
    }
    // Also if the manager is not used.
    for _ in 0..3 {
        drop(opener.open());
    }
    opener.with(|case| check_reopened(case, &leases, &[]))
}

pub(super) fn thousands_of_leases_survive<L: TestedLease>(opener: &Opener<'_, L>) -> Verdict {
    let mut leases = (0..3000).map(|n| sample::<L>(n, n % 100)).collect::<Verdict<Vec<_>>>()?;
    opener.with(|case| case.add_all(&leases))?;
    opener.with(|case| {
        check_reopened(case, &leases, &[])?;
        for lease in leases.iter_mut().step_by(3) {
            lease.data_mut().subnet_id = SubnetId(2);
            case.update(lease)?;
        }
        Ok(())
    })?;
    opener.with(|case| {
        check_reopened(case, &leases, &[])?;
        let query = Query::all().in_subnet(SubnetId(2));
        case.finds(&query, leases.iter().step_by(3))
    })
}

pub(super) fn the_last_concurrent_changes_survive<L: TestedLease>(opener: &Opener<'_, L>) -> Verdict {
    for _ in 0..3 {
        let left = opener.with(|case| {
            in_threads(4, |thread| {
                for round in 0..200 {
                    let lease = sample::<L>(round % 5, 1)?;
                    let lease = with(&lease, |data| data.cltt += i64::from(round) * 4 + thread as i64);
                    let result = match (round as usize / 5 + thread) % 4 {
                        0 => case.mgr().add(&lease).map(drop),
                        1 => case.mgr().delete_expecting(lease.address(), None).map(drop),
                        _ => case.mgr().update_expecting(&lease, None),
                    };
                    match result {
                        Err(LeaseMgrError::NoSuchLease { .. }) => {}
                        other => ask("a change", other)?,
                    }
                }
                Ok(())
            })?;
            case.all()
        })?;
        opener.with(|case| check_reopened(case, &left, &[]))?;
    }
    Ok(())
}

/// Makes some changes of each kind, and returns the leases that they leave.
fn change<L: TestedLease>(case: &Case<L>, round: u32) -> Verdict<Vec<L>> {
    let mut leases = samples::<L>(round * 10..round * 10 + 6)?;
    case.add_all(&leases)?;
    leases[0].data_mut().cltt += 1;
    case.update(&leases[0])?;
    let renewed = in_subnet(&leases[1], 2);
    ask("update, if unchanged", case.mgr().update_if_unchanged(&leases[1], &renewed))?;
    leases[1] = renewed;
    case.delete(leases.remove(4).address())?;
    let submitted = with(&leases[2], |data| data.cltt += 7);
    let batch = [Operation::update(submitted.clone()), Operation::delete(leases[4].address())];
    for result in case.mgr().apply(&batch) {
        ask("apply an update and a deletion", result.map(drop))?;
    }
    leases[2] = submitted;
    leases.truncate(4);
    Ok(leases)
}

pub(super) fn acknowledged_changes_survive_a_crash<L: TestedLease>(opener: &Opener<'_, L>) -> Verdict {
    let mut leases = Vec::new();
    for round in 0..4 {
        leases.extend(opener.until_crash(|case| change(case, round))?);
        opener.with(|case| check_reopened(case, &leases, &samples(round * 10..round * 10 + 6)?))?;
    }
    // A crash after a start without changes.
    opener.until_crash(|case| check_reopened(case, &leases, &[]))?;
    opener.with(|case| check_reopened(case, &leases, &[]))
}

pub(super) fn changes_around_a_cleanup_survive<L: TestedLease>(opener: &Opener<'_, L>) -> Verdict {
    let mut leases = samples::<L>(0..50)?;
    let gone = sample::<L>(100, 100)?;
    opener.with(|case| case.add_all(&leases))?;
    for round in 0..3 {
        opener.with(|case| {
            case.add(&gone)?;
            ask("clean up", case.mgr().clean_up())?;
            // The cleanup may be running now.
            for lease in leases.iter_mut().step_by(2) {
                lease.data_mut().cltt += 1;
                case.update(lease)?;
            }
            case.delete(gone.address())?;
            leases.remove(round);
            case.delete(L::address_number(round as u32 * 2))?;
            ask("clean up again", case.mgr().clean_up())?;
            check_reopened(case, &leases, &[])
        })?;
        opener.with(|case| check_reopened(case, &leases, std::slice::from_ref(&gone)))?;
    }
    Ok(())
}
