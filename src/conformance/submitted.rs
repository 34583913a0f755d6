//! Submitted changes.

use std::panic::resume_unwind;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::Duration;

use super::TestedLease;
use super::case::{
    Case, Fault, Opener, Verdict, ask, changed_meanwhile, in_callback, in_threads, no_such_lease, same,
    same_leases,
};
use super::find::varied_leases;
use super::model::matches;
use super::sample::{id, in_subnet, sample, samples, with};
use super::tracking::{KINDS, in_each};
use crate::lease::{Family, HwAddr, SubnetId};
use crate::with_sources::with_sources;
use crate::{ClientKey, Done, LeaseMgr, LeaseMgrError, LookUp, Operation, Query};

type Answer = Result<Done, LeaseMgrError>;

/// Submits a change, and sends its result to a channel.
fn submit<L: TestedLease>(
    mgr: &dyn LeaseMgr<L>,
    operation: Operation<L>,
    answers: &Sender<(usize, Answer)>,
    number: usize,
) {
    let answers = answers.clone();
    // After a failure, the rule has dropped the receiver.
    mgr.submit(operation, Box::new(move |answer| drop(answers.send((number, answer)))));
}

/// Waits for a result.
fn answer<T>(answers: &Receiver<T>) -> Verdict<T> {
    const LONG: Duration = Duration::from_secs(30);
    answers.recv_timeout(LONG).map_err(|error| {
        Fault::new("submit a change", "a result", format_args!("none: {}", with_sources(&error)))
    })
}

/// Submits changes and waits for the results, in the order of the changes.
fn submit_all<L: TestedLease>(
    case: &Case<L>,
    operations: impl IntoIterator<Item = Operation<L>>,
) -> Verdict<Vec<Answer>> {
    let (sender, receiver) = channel();
    let mut count = 0;
    for operation in operations {
        submit(case.mgr(), operation, &sender, count);
        count += 1;
    }
    drop(sender);
    let mut answers = (0..count).map(|_| answer(&receiver)).collect::<Verdict<Vec<_>>>()?;
    if let Ok((number, again)) = receiver.recv_timeout(Duration::ZERO) {
        return Err(Fault::new(
            format_args!("submit change {number}"),
            "one result",
            format_args!("{again:?}"),
        ));
    }
    answers.sort_by_key(|(number, _)| *number);
    Ok(answers.into_iter().map(|(_, answer)| answer).collect())
}

pub(super) fn a_submitted_change_returns_its_result<L: TestedLease>(case: &Case<L>) -> Verdict {
    let (lease, absent) = (sample::<L>(1, 1)?, sample::<L>(2, 2)?);
    let renewed = with(&lease, |data| data.cltt += 1);
    let answers = submit_all(
        case,
        [
            Operation::Add(lease.clone()),
            Operation::Add(in_subnet(&lease, 2)),
            Operation::update_if_unchanged(&lease, renewed.clone()),
            Operation::delete(absent.address()),
        ],
    )?;
    let answers = answers.into_iter().collect::<Result<Vec<_>, _>>();
    let action = "submit valid changes";
    let expected = [Done::Added, Done::AddressTaken, Done::Updated, Done::NoSuchLease];
    same(action, &ask(action, answers)?[..], &expected[..])?;
    let answers = submit_all(
        case,
        [
            Operation::update(absent.clone()),
            Operation::delete_if_unchanged(&lease),
            Operation::delete_if_unchanged(&renewed),
        ],
    )?;
    no_such_lease("submit an update of a missing lease", &answers[0], absent.address())?;
    changed_meanwhile("submit a deletion of a lease that changed", &answers[1], lease.address())?;
    same("submit a deletion", &answers[2].as_ref().ok(), &Some(&Done::Deleted))?;
    case.holds([], [&lease, &renewed, &absent])
}

pub(super) fn submitted_changes_of_an_address_are_made_in_order<L: TestedLease>(case: &Case<L>) -> Verdict {
    const CHANGES: i64 = 100;
    let leases = samples::<L>(0..3)?;
    let form = |lease: &L, n: i64| with(lease, |data| data.cltt += n);
    let mut operations: Vec<_> = leases.iter().cloned().map(Operation::Add).collect();
    for n in (0..CHANGES).step_by(2) {
        for lease in &leases {
            let update = |n| Operation::update_if_unchanged(&form(lease, n), form(lease, n + 1));
            operations.extend([update(n), update(n + 1)]);
        }
    }
    let answers = submit_all(case, operations)?.into_iter().collect::<Result<Vec<_>, _>>();
    ask("submit updates of each other's leases, if unchanged", answers)?;
    let last: Vec<_> = leases.iter().map(|lease| form(lease, CHANGES)).collect();
    case.holds(&last, &leases)
}

pub(super) fn a_submitted_change_is_made_before_its_completion<L: TestedLease>(case: &Case<L>) -> Verdict {
    for lease in samples::<L>(0..20)? {
        let (sender, receiver) = channel();
        let (mgr, address) = (case.weak(), lease.address());
        let look = move |answer: Answer| {
            let there = mgr.upgrade().map(|mgr| mgr.get(address));
            drop(sender.send((answer, there)));
        };
        case.mgr().submit(Operation::Add(lease.clone()), Box::new(look));
        let (added, there) = answer(&receiver)?;
        same("submit an addition", &ask("submit an addition", added)?, &Done::Added)?;
        let there = there.map(|there| ask("get in a completion", there)).transpose()?.flatten();
        same_leases("get the lease in the completion of its addition", there.iter(), [&lease])?;
    }
    Ok(())
}

/// Submits the addition of a lease, whose completion submits that of the next lease, and adds one
/// itself at the end.
fn submit_in_turn<L: TestedLease>(
    mgr: &Weak<dyn LeaseMgr<L>>,
    mut leases: std::vec::IntoIter<L>,
    answers: Sender<(usize, Answer)>,
) {
    let (Some(open), Some(lease)) = (mgr.upgrade(), leases.next()) else {
        return;
    };
    let number = leases.len();
    let mgr = Weak::clone(mgr);
    let next = move |answer: Answer| {
        drop(answers.send((number, answer)));
        if let ([last], Some(open)) = (leases.as_slice(), mgr.upgrade()) {
            drop(answers.send((0, open.add(last).map(Done::from))));
        } else {
            submit_in_turn(&mgr, leases, answers);
        }
    };
    open.submit(Operation::Add(lease), Box::new(next));
}

pub(super) fn a_completion_may_submit_and_change<L: TestedLease>(case: &Case<L>) -> Verdict {
    let leases = samples::<L>(0..50)?;
    let (sender, receiver) = channel();
    submit_in_turn(&case.weak(), leases.clone().into_iter(), sender);
    for _ in &leases {
        let action = "submit or add in a completion";
        same(action, &ask(action, answer(&receiver)?.1)?, &Done::Added)?;
    }
    // The last sender is dropped after the manager's reference.
    while receiver.recv().is_ok() {}
    case.holds(&leases, [])
}

pub(super) fn a_panic_in_a_completion_fails_nothing_else<L: TestedLease>(case: &Case<L>) -> Verdict {
    let leases = samples::<L>(0..6)?;
    for pair in leases.chunks(2) {
        // Panics without a message on standard error.
        case.mgr()
            .submit(Operation::Add(pair[0].clone()), Box::new(|_| resume_unwind(Box::new("out of order"))));
        let answers = submit_all(case, [Operation::Add(pair[1].clone())])?;
        let action = "submit after a panic in another completion";
        let answers = answers.into_iter().collect::<Result<Vec<_>, _>>();
        same(action, &ask(action, answers)?[..], &[Done::Added][..])?;
    }
    case.holds(&leases, [])
}

pub(super) fn a_callback_cannot_apply_or_submit<L: TestedLease>(case: &Case<L>) -> Verdict {
    let absent = sample::<L>(90, 90)?;
    let new = absent.clone();
    let verdicts = in_each(case, &KINDS, move |calling, change| {
        for operation in [Operation::Add(new.clone()), Operation::delete(change.address())] {
            let results = calling.apply(&[operation.clone(), operation.clone()]);
            same("apply in a callback", &results.len(), &2)?;
            results.iter().try_for_each(|result| in_callback("apply in a callback", result))?;
            let reported = Arc::new(Mutex::new(None));
            let tell = Arc::clone(&reported);
            let put = move |answer| *tell.lock().unwrap_or_else(PoisonError::into_inner) = Some(answer);
            calling.submit(operation, Box::new(put));
            // It is refused before anything can wait for the callback.
            let reported = reported.lock().unwrap_or_else(PoisonError::into_inner).take();
            let reported =
                reported.ok_or_else(|| Fault::new("submit in a callback", "a result at once", "none"))?;
            in_callback("submit in a callback", &reported)?;
        }
        Ok(())
    })?;
    let lease = sample::<L>(1, 1)?;
    case.add(&lease)?;
    let renewed = with(&lease, |data| data.cltt += 1);
    let submitted = submit_all(case, [Operation::update(renewed)])?;
    same("submit", &submitted[0].as_ref().ok(), &Some(&Done::Updated))?;
    verdicts.are_good(2)?;
    case.delete(lease.address())?;
    case.holds([], [&lease, &absent])
}

/// Submits look-ups and waits for the leases of each, in the order of the look-ups.
fn look_up_all<L: TestedLease>(case: &Case<L>, look_ups: Vec<LookUp<L>>) -> Verdict<Vec<Vec<L>>> {
    let (sender, receiver) = channel();
    let mut found: Vec<_> = look_ups.iter().map(|_| Vec::new()).collect();
    for (number, look_up) in look_ups.into_iter().enumerate() {
        let sender = sender.clone();
        let tell = move |leases| drop(sender.send((number, leases)));
        case.mgr().submit_look_up(look_up, Box::new(tell));
    }
    for _ in 0..found.len() {
        let (number, leases) = answer(&receiver)?;
        found[number] = ask("submit a look-up", leases)?;
    }
    Ok(found)
}

/// Returns the leases of a client in a subnet.
fn of_client<L: TestedLease>(
    leases: &[L],
    hwaddr: Option<&HwAddr>,
    client: Option<ClientKey<'_>>,
    subnet: SubnetId,
) -> Vec<L> {
    let found = |query: Query<'_, L>| {
        let query = query.in_subnet(subnet);
        leases.iter().filter(|lease| matches(&query, *lease)).cloned().collect::<Vec<_>>()
    };
    let mut of_client = client.map(|client| found(Query::client(client))).unwrap_or_default();
    if let Some(hwaddr) = hwaddr.filter(|_| of_client.is_empty()) {
        of_client = found(Query::hwaddr(hwaddr));
        of_client.retain(|lease| client.is_none() || lease.id().is_empty());
    }
    of_client
}

pub(super) fn submitted_look_ups_find_addresses_and_clients<L: TestedLease>(case: &Case<L>) -> Verdict {
    let mut leases = varied_leases::<L>()?;
    if L::FAMILY == Family::V4 {
        // Clients without a client id.
        for lease in leases.iter_mut().step_by(5) {
            *lease = lease.with_client(lease.hwaddr().cloned(), &[])?;
        }
    }
    case.add_all(&leases)?;
    let (absent, unknown) = (sample::<L>(1, 90)?, id(91));
    let (mut look_ups, mut expected) = (Vec::new(), Vec::new());
    for lease in leases.iter().step_by(2).chain([&absent]) {
        look_ups.push(LookUp::Address(lease.address()));
        expected.push(leases.iter().filter(|other| other.address() == lease.address()).cloned().collect());
        let others = [None, Some(ClientKey::new(&unknown))];
        for client in lease.client_keys().into_iter().map(Some).chain(others) {
            for hwaddr in [None, lease.hwaddr()] {
                for subnet in [lease.data().subnet_id, SubnetId(77)] {
                    look_ups.push(LookUp::client(hwaddr, client, subnet));
                    expected.push(of_client(&leases, hwaddr, client, subnet));
                }
            }
        }
    }
    let found = look_up_all(case, look_ups.clone())?;
    for ((look_up, found), expected) in look_ups.iter().zip(&found).zip(&expected) {
        same_leases(format_args!("submit {look_up:?}"), found, expected)?;
    }
    Ok(())
}

pub(super) fn a_submitted_look_up_sees_answered_changes<L: TestedLease>(case: &Case<L>) -> Verdict {
    for lease in samples::<L>(0..20)? {
        let look_ups = || {
            let client = LookUp::client(lease.hwaddr(), lease.client_key(), lease.data().subnet_id);
            vec![LookUp::Address(lease.address()), client]
        };
        let renewed = with(&lease, |data| data.cltt += 1);
        let (deletion, none) = (Operation::delete_if_unchanged(&renewed), []);
        let steps = [
            (Operation::Add(lease.clone()), std::slice::from_ref(&lease)),
            (Operation::update(renewed.clone()), std::slice::from_ref(&renewed)),
            (deletion, &none[..]),
        ];
        for (operation, expected) in steps {
            for answer in submit_all(case, [operation])? {
                let _ = ask("submit a change", answer)?;
            }
            for found in look_up_all(case, look_ups())? {
                same_leases("submit a look-up after a change", &found, expected)?;
            }
        }
    }
    Ok(())
}

pub(super) fn concurrent_submitted_adds_have_one_winner<L: TestedLease>(case: &Case<L>) -> Verdict {
    const ADDRESSES: u32 = 200;
    let added = in_threads(4, |thread| {
        let lease = |n| sample::<L>(n, 1000 + thread as u32);
        let leases = (0..ADDRESSES).map(lease).collect::<Verdict<Vec<_>>>()?;
        let answers = submit_all(case, leases.iter().cloned().map(Operation::Add))?;
        let answers = answers.into_iter().collect::<Result<Vec<_>, _>>();
        let answers = ask("submit additions", answers)?;
        let added = leases.into_iter().zip(answers).filter(|(_, done)| *done == Done::Added);
        Ok(added.map(|(lease, _)| lease).collect::<Vec<_>>())
    })?;
    let mut added: Vec<_> = added.into_iter().flatten().collect();
    added.sort_by_key(L::address);
    same("number of successful adds of 200 addresses", &added.len(), &(ADDRESSES as usize))?;
    same_leases("find all leases that were reported as added", &case.all()?, &added)
}

pub(super) fn submitted_changes_are_made_before_the_manager_ends<L: TestedLease>(
    opener: &Opener<'_, L>,
) -> Verdict {
    const COUNT: u32 = 50;
    let mut all = Vec::new();
    for round in 0..3 {
        let leases = samples::<L>(round * COUNT..(round + 1) * COUNT)?;
        let (sender, receiver) = channel();
        opener.with(|case| {
            for (number, lease) in leases.iter().enumerate() {
                submit(case.mgr(), Operation::Add(lease.clone()), &sender, number);
            }
            Ok(())
        })?;
        drop(sender);
        let answers = receiver.try_iter().map(|(_, answer)| answer).collect::<Result<Vec<_>, _>>();
        let action = "submit additions and drop the manager";
        same(action, &ask(action, answers)?, &vec![Done::Added; leases.len()])?;
        all.extend(leases);
        opener.with(|case| same_leases("reopen the manager, and find all leases", &case.all()?, &all))?;
    }
    Ok(())
}
