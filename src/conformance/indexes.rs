//! A changed lease is found under its new keys, and no longer under its old ones.

use super::TestedLease;
use super::case::{Case, Verdict};
use super::find::varied_leases;
use super::sample::{
    changed, hostname, hwaddr, id, in_state, in_subnet, rebuilt, sample, shuffled, with, with_context,
};
use crate::lease::{Hostname, HwAddr, Lease6, LeaseState, LeaseType, system_time};

/// Changes a lease from one form to the next, in both directions, between neighbours that have the
/// keys of all forms. Checks all queries after each step.
pub(super) fn follows<L: TestedLease>(case: &Case<L>, forms: &[L]) -> Verdict {
    // Before and after the lease, which has address number 500: one of each form.
    let mut neighbours = Vec::new();
    for (form, n) in forms.iter().zip(0..) {
        neighbours.push(form.at_address(L::address_number(490 + n))?);
        neighbours.push(form.at_address(L::address_number(510 + n))?);
    }
    case.add_all(&shuffled(&neighbours))?;
    let back_and_forth = forms.iter().chain(forms.iter().rev());
    for (i, form) in back_and_forth.enumerate() {
        if i == 0 {
            case.add(form)?;
        } else {
            case.update(form)?;
        }
        case.answers(neighbours.iter().chain([form]), forms)?;
    }
    // Without the neighbours, each step makes a key unknown or known again.
    for neighbour in &neighbours {
        case.delete(neighbour.address())?;
    }
    for form in forms {
        case.update(form)?;
        case.answers([form], forms.iter().chain(&neighbours))?;
    }
    case.delete(L::address_number(500))?;
    case.answers([], forms.iter().chain(&neighbours))
}

pub(super) fn a_lease_moves_to_another_subnet<L: TestedLease>(case: &Case<L>) -> Verdict {
    let lease = sample(500, 1)?;
    let forms = [1, 2, 0, u32::MAX].map(|subnet| in_subnet(&lease, subnet));
    follows::<L>(case, &forms)
}

pub(super) fn a_lease_moves_to_another_hardware_address<L: TestedLease>(case: &Case<L>) -> Verdict {
    let lease = sample::<L>(500, 1)?;
    let longest = HwAddr::new(&[9; HwAddr::MAX_LEN])?;
    let forms = [hwaddr(1)?, hwaddr(2)?, longest].map(|hwaddr| lease.with_client(Some(hwaddr), lease.id()));
    follows(case, &forms.into_iter().collect::<Verdict<Vec<_>>>()?)
}

pub(super) fn a_lease_moves_to_another_client_id_or_duid<L: TestedLease>(case: &Case<L>) -> Verdict {
    let lease = sample::<L>(500, 1)?;
    let longest = vec![9; L::ID_LENGTHS.1];
    let ids = [&id(1)[..], &id(2), &longest];
    let forms = ids.map(|id| lease.with_client(lease.hwaddr().cloned(), id));
    follows(case, &forms.into_iter().collect::<Verdict<Vec<_>>>()?)
}

pub(super) fn a_lease_moves_to_another_hostname<L: TestedLease>(case: &Case<L>) -> Verdict {
    let lease = sample(500, 1)?;
    let names = [hostname(1), hostname(2), Hostname::default(), Hostname::new(&[b'x'; 300])];
    let mut forms = names.map(|name| with(&lease, |data| data.hostname = name)).to_vec();
    forms.retain(|lease| case.keeps(lease));
    follows::<L>(case, &forms)
}

pub(super) fn a_lease_moves_to_another_state<L: TestedLease>(case: &Case<L>) -> Verdict {
    let lease = sample::<L>(500, 1)?;
    let forms = [0, 1, 2, 0, 3, 4, 77, 78, 1].map(|state| in_state(&lease, LeaseState(state)));
    follows(case, &forms.into_iter().collect::<Verdict<Vec<_>>>()?)
}

pub(super) fn a_lease_moves_to_another_pool<L: TestedLease>(case: &Case<L>) -> Verdict {
    let lease = sample(500, 1)?;
    let mut forms = [0, 1, u32::MAX].map(|pool| with(&lease, |data| data.pool_id.0 = pool)).to_vec();
    forms.push(in_subnet(&forms[1], 2));
    follows::<L>(case, &forms)
}

pub(super) fn a_lease_loses_identifiers_and_gets_them_back<L: TestedLease>(case: &Case<L>) -> Verdict {
    let lease = sample::<L>(500, 1)?;
    let nameless = with(&lease, |data| data.hostname = Hostname::default());
    let mut declined = lease.clone();
    declined.decline(system_time(lease.data().cltt + 5), crate::lease::Lifetime(600));
    let mut forms = vec![lease.clone(), lease.with_client(None, lease.id())?, nameless, declined];
    let others = lease.family_variants()?.into_iter();
    forms.extend(others.filter(|(field, _)| *field == "no client id").map(|(_, lease)| lease));
    follows(case, &forms)
}

pub(super) fn all_fields_of_a_lease_change_at_once<L: TestedLease>(case: &Case<L>) -> Verdict {
    let mut forms = Vec::new();
    for n in 1_u8..4 {
        let client = u32::from(n);
        let lease = in_subnet(&sample::<L>(500, client)?, client);
        let classes: &[&str] = &["gold", "silver"][..usize::from(n % 3)];
        let lease = with_context(&lease, classes, &[(&[0, 3, 0, 1, n], &[0, 0, 0, 9, n])])?;
        let lease = with(&lease, |data| {
            data.pool_id.0 = client;
            data.cltt += i64::from(n) * 100;
        });
        forms.push(in_state(&lease, LeaseState(client - 1))?);
    }
    follows(case, &forms)
}

pub(super) fn a_renewed_lease_is_found_under_the_same_keys<L: TestedLease>(case: &Case<L>) -> Verdict {
    let mut leases = varied_leases::<L>()?;
    case.add_all(&leases)?;
    for _ in 0..3 {
        for lease in &mut leases {
            lease.data_mut().cltt += 1000;
            case.update(lease)?;
        }
        case.answers(&leases, [])?;
    }
    Ok(())
}

pub(super) fn a_deleted_lease_is_found_under_no_key<L: TestedLease>(case: &Case<L>) -> Verdict {
    let leases = varied_leases::<L>()?;
    case.add_all(&leases)?;
    for kept in [30, 18, 9, 3, 1, 0] {
        for (i, lease) in leases.iter().enumerate() {
            // The remaining leases are of all clients and subnets, as long as there are enough.
            let rank = i * 11 % leases.len();
            if rank >= kept && case.get(lease.address())?.is_some() {
                case.delete(lease.address())?;
            }
        }
        let rest = leases.iter().enumerate().filter(|(i, _)| i * 11 % leases.len() < kept);
        case.answers(rest.map(|(_, lease)| lease), &leases)?;
    }
    Ok(())
}

pub(super) fn an_update_does_not_move_other_leases_with_the_same_key<L: TestedLease>(
    case: &Case<L>,
) -> Verdict {
    let mut leases = (0..8).map(|n| sample::<L>(n, 1)).collect::<Verdict<Vec<_>>>()?;
    case.add_all(&leases)?;
    let old = leases.clone();
    for (i, n) in [(3, 2), (0, 3), (7, 2), (3, 1), (4, 2)] {
        let address = leases[i].address();
        leases[i] = sample::<L>(0, n)?.at_address(address)?;
        case.update(&leases[i])?;
        case.answers(&leases, &old)?;
    }
    Ok(())
}

pub(super) fn a_lease_moves_to_another_identity_association(case: &Case<Lease6>) -> Verdict {
    let lease = sample::<Lease6>(500, 1)?;
    follows(case, &[1, 2, 0, u32::MAX].map(|iaid| changed(&lease, |lease| lease.set_iaid(iaid))))
}

pub(super) fn a_lease_moves_to_another_type(case: &Case<Lease6>) -> Verdict {
    let lease = sample::<Lease6>(500, 1)?;
    let types = [LeaseType::NA, LeaseType::PD, LeaseType::TA, LeaseType::NA];
    let forms = types.map(|kind| rebuilt(&lease, lease.address(), kind, 128, lease.duid().clone()));
    follows(case, &forms.into_iter().collect::<Verdict<Vec<_>>>()?)
}
