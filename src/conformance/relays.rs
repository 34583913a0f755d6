//! Queries by the data of relay agents.

use super::TestedLease;
use super::case::{Case, Fault, QueryText, Verdict, pages, same_leases};
use super::find::varied_leases;
use super::indexes::follows;
use super::model::answer;
use super::sample::{HEARD, Relay, in_subnet, sample, shuffled, with, with_context};
use crate::lease::{Family, RelayId, RemoteId, SubnetId, UserContext, system_time};
use crate::{LeaseMgrError, Query};

const RELAYS: [Relay<'_>; 4] = [
    (&[0, 3, 0, 1, 1], &[0, 0, 0, 9, 1]),
    (&[0, 3, 0, 1, 2], &[0, 0, 0, 9, 1]),
    (&[0, 3, 0, 1, 1], &[0, 0, 0, 9, 2]),
    (&[7; 130], &[8; 200]),
];

/// Creates a relay id or a remote id.
fn id<T, E: std::fmt::Display>(new: impl Fn(&[u8]) -> Result<T, E>, bytes: &[u8]) -> Verdict<T> {
    new(bytes).map_err(|error| Fault::new("create an id", "a valid id", error))
}

/// Leases of clients behind the relay agents, and of clients behind none.
fn leases<L: TestedLease>() -> Verdict<Vec<L>> {
    let mut leases = Vec::new();
    for (n, i) in (0..20).zip((0..5).cycle()) {
        let lease = in_subnet(&sample::<L>(n, n)?, 1 + n % 2);
        leases.push(match RELAYS.get(i) {
            Some(relay) => with_context(&lease, &[], &[*relay])?,
            None => lease,
        });
    }
    Ok(leases)
}

pub(super) fn a_lease_is_found_by_the_relay_id_in_its_user_context<L: TestedLease>(
    case: &Case<L>,
) -> Verdict {
    let leases = leases::<L>()?;
    case.add_all(&shuffled(&leases))?;
    for (bytes, indexes) in
        [(RELAYS[0].0, &[0, 2][..]), (RELAYS[1].0, &[1]), (RELAYS[3].0, &[3]), (b"none", &[])]
    {
        let relay_id = id(RelayId::new, bytes)?;
        let query = Query::relay_id(&relay_id);
        let expected = leases.iter().enumerate().filter(|(i, _)| indexes.contains(&(i % 5)));
        let expected: Vec<_> = expected.map(|(_, lease)| lease).collect();
        case.finds(&query, expected.iter().copied())?;
        let in_subnet = expected.iter().copied().filter(|lease| lease.data().subnet_id == SubnetId(2));
        case.finds(&query.in_subnet(SubnetId(2)), in_subnet)?;
    }
    case.holds(&leases, [])
}

pub(super) fn a_lease_is_found_by_the_remote_id_in_its_user_context<L: TestedLease>(
    case: &Case<L>,
) -> Verdict {
    let leases = leases::<L>()?;
    case.add_all(&shuffled(&leases))?;
    for (bytes, indexes) in
        [(RELAYS[0].1, &[0, 1][..]), (RELAYS[2].1, &[2]), (RELAYS[3].1, &[3]), (b"none", &[])]
    {
        let remote_id = id(RemoteId::new, bytes)?;
        let query = Query::remote_id(&remote_id);
        let expected = leases.iter().enumerate().filter(|(i, _)| indexes.contains(&(i % 5)));
        let expected: Vec<_> = expected.map(|(_, lease)| lease).collect();
        case.finds(&query, expected.iter().copied())?;
        let in_subnet = expected.iter().copied().filter(|lease| lease.data().subnet_id == SubnetId(2));
        case.finds(&query.in_subnet(SubnetId(2)), in_subnet)?;
    }
    case.holds(&leases, [])
}

pub(super) fn a_relay_id_is_not_a_remote_id<L: TestedLease>(case: &Case<L>) -> Verdict {
    let (one, other) = (&[0, 3, 0, 1, 1][..], &[0, 3, 0, 1, 2][..]);
    let leases = [
        with_context(&sample::<L>(1, 1)?, &[], &[(one, other)])?,
        with_context(&sample::<L>(2, 2)?, &[], &[(other, one)])?,
        with_context(&sample::<L>(3, 3)?, &[], &[(one, &[])])?,
        with_context(&sample::<L>(4, 4)?, &[], &[(&[], one)])?,
    ];
    case.add_all(&leases)?;
    let relay_id = id(RelayId::new, one)?;
    case.finds(&Query::relay_id(&relay_id), [&leases[0], &leases[2]])?;
    let remote_id = id(RemoteId::new, one)?;
    case.finds(&Query::remote_id(&remote_id), [&leases[1], &leases[3]])?;
    case.holds(&leases, [])
}

pub(super) fn ids_in_the_options_of_a_relay_agent_are_found<L: TestedLease>(case: &Case<L>) -> Verdict {
    // Without keys of their own: relay id 00030001AABB, remote id 0000000907.
    let context = match L::FAMILY {
        Family::V4 => {
            r#"{ "ISC": { "relay-agent-info": { "sub-options": "0x0101050C0600030001AABB02050000000907" } } }"#
        }
        Family::V6 => {
            r#"{ "ISC": { "relay-info": [ { "hop": 0, "options": "0x0035000600030001AABB002500050000000907" } ] } }"#
        }
    };
    let context = UserContext::parse(context.as_bytes())?;
    let lease = with(&sample::<L>(1, 1)?, |data| data.user_context = Some(context));
    case.add_all([&lease, &sample(2, 2)?])?;
    let relay_id = id(RelayId::new, &[0, 3, 0, 1, 0xaa, 0xbb])?;
    case.finds(&Query::relay_id(&relay_id), [&lease])?;
    let remote_id = id(RemoteId::new, &[0, 0, 0, 9, 7])?;
    case.finds(&Query::remote_id(&remote_id), [&lease])
}

pub(super) fn a_lease_moves_to_another_relay_agent<L: TestedLease>(case: &Case<L>) -> Verdict {
    let lease = sample::<L>(500, 1)?;
    let mut forms = vec![lease.clone(), with_context(&lease, &["gold"], &[])?];
    for relay in [RELAYS[0], RELAYS[1], RELAYS[2], RELAYS[3], (RELAYS[0].0, &[]), (&[], RELAYS[0].1)] {
        forms.push(with_context(&lease, &[], &[relay])?);
    }
    follows(case, &forms)
}

pub(super) fn each_of_several_relay_agents_is_found<L: TestedLease>(case: &Case<L>) -> Verdict {
    // In DHCPv4 there is at most one.
    let lease = sample::<L>(500, 1)?;
    let forms = [
        with_context(&lease, &[], &[RELAYS[0], RELAYS[3]])?,
        // The same agent twice: the lease is found once.
        with_context(&lease, &[], &[RELAYS[0], RELAYS[0]])?,
        with_context(&lease, &[], &[RELAYS[3], RELAYS[1], (RELAYS[0].0, &[])])?,
        with_context(&lease, &[], &[RELAYS[1]])?,
    ];
    follows(case, &forms)
}

pub(super) fn pages_of_a_relay_agent_respect_a_window<L: TestedLease>(case: &Case<L>) -> Verdict {
    let leases = varied_leases::<L>()?;
    case.add_all(&shuffled(&leases))?;
    let relay_id = id(RelayId::new, &[0, 3, 0, 1, 1])?;
    let remote_id = id(RemoteId::new, &[0, 0, 0, 9, 3])?;
    for query in [Query::relay_id(&relay_id), Query::remote_id(&remote_id)] {
        let query = query.heard_since(system_time(HEARD + 50)).heard_until(system_time(HEARD + 320));
        let found = pages(case, &query, 2)?;
        same_leases(format_args!("{}, page by page", QueryText(&query)), &found, answer(&query, &leases))?;
    }
    Ok(())
}

pub(super) fn without_extended_info_nothing_is_found_by_relay_agents<L: TestedLease>(
    case: &Case<L>,
) -> Verdict {
    let leases = leases::<L>()?;
    case.add_all(&leases)?;
    let relay_id = id(RelayId::new, RELAYS[0].0)?;
    let remote_id = id(RemoteId::new, RELAYS[0].1)?;
    for query in [Query::relay_id(&relay_id), Query::remote_id(&remote_id)] {
        match case.mgr().find(&query) {
            Err(LeaseMgrError::Unsupported { .. }) => {}
            Ok(found) if found.is_empty() => {}
            other => {
                let expected = "nothing, or the error that the backend does not support it";
                return Err(Fault::new(QueryText(&query), expected, format_args!("{other:?}")));
            }
        }
    }
    case.holds(&leases, [])
}
