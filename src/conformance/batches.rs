//! Batches of changes.

use super::TestedLease;
use super::case::{Case, Verdict, ask, changed_meanwhile, in_threads, no_such_lease, same, same_leases};
use super::sample::{in_subnet, sample, samples, with};
use super::tracking::{KINDS, Log};
use crate::lease::Lifetime;
use crate::{Added, Done, ImportEvent, ImportOptions, LeaseMgrError, Operation};

/// Applies a batch, and checks the result of each change.
fn apply<L: TestedLease>(case: &Case<L>, action: &str, batch: &[Operation<L>], expected: &[Done]) -> Verdict {
    let results = case.mgr().apply(batch).into_iter().collect::<Result<Vec<_>, _>>();
    same(action, &ask(action, results)?[..], expected)
}

pub(super) fn each_change_of_a_batch_has_its_own_result<L: TestedLease>(case: &Case<L>) -> Verdict {
    apply(case, "apply an empty batch", &[], &[])?;
    let there = samples::<L>(1..4)?;
    case.add_all(&there)?;
    let new = sample::<L>(9, 9)?;
    let absent = sample::<L>(8, 8)?;
    let renewed = with(&there[0], |data| data.cltt += 1);
    let ended = with(&new, |data| data.valid_lifetime = Lifetime(0));
    let batch = [
        Operation::Add(in_subnet(&there[0], 2)),
        Operation::Add(ended),
        Operation::update(absent.clone()),
        Operation::update_if_unchanged(&renewed, there[0].clone()),
        Operation::delete(absent.address()),
        Operation::delete_if_unchanged(&in_subnet(&there[1], 2)),
        Operation::Add(new.clone()),
        Operation::update_if_unchanged(&there[0], renewed.clone()),
        Operation::delete(there[1].address()),
    ];
    let action = "apply valid and invalid changes";
    let results = case.mgr().apply(&batch);
    same(action, &results.len(), &batch.len())?;
    for (number, result) in results.iter().enumerate() {
        let action = format!("{action}, number {number}");
        let address = batch[number].address();
        match (number, result) {
            (0, Ok(Done::AddressTaken)) | (1, Err(LeaseMgrError::ZeroLifetime { .. })) => {}
            (2, result) => no_such_lease(action, result, address)?,
            (3 | 5, result) => changed_meanwhile(action, result, address)?,
            (4, Ok(Done::NoSuchLease)) | (6, Ok(Done::Added)) => {}
            (7, Ok(Done::Updated)) | (8, Ok(Done::Deleted)) => {}
            (_, result) => {
                let found = format!("{result:?}");
                return same(action, found.as_str(), "the result of the change alone");
            }
        }
    }
    case.holds([&renewed, &there[2], &new], [&there[0], &there[1], &absent])
}

pub(super) fn a_change_of_a_batch_sees_earlier_ones<L: TestedLease>(case: &Case<L>) -> Verdict {
    let (first, second) = (sample::<L>(1, 1)?, in_subnet(&sample::<L>(1, 2)?, 2));
    let renewed = with(&first, |data| data.cltt += 1);
    let batch = [
        Operation::delete(first.address()),
        Operation::Add(first.clone()),
        Operation::Add(second.clone()),
        Operation::update_if_unchanged(&first, renewed.clone()),
        Operation::delete_if_unchanged(&renewed),
        Operation::delete(first.address()),
        Operation::Add(second.clone()),
    ];
    let expected = [
        Done::NoSuchLease,
        Done::Added,
        Done::AddressTaken,
        Done::Updated,
        Done::Deleted,
        Done::NoSuchLease,
        Done::Added,
    ];
    apply(case, "apply changes of one address", &batch, &expected)?;
    case.holds([&second], [&first, &renewed])?;
    // The lease that was there before the batch must not be expected any more.
    let batch = [Operation::update(first.clone()), Operation::delete_if_unchanged(&second)];
    let results = case.mgr().apply(&batch);
    let action = "delete, if unchanged, a lease that was replaced in the same batch";
    same(action, &results.len(), &2)?;
    changed_meanwhile(action, &results[1], first.address())?;
    case.holds([&first], [&second])
}

pub(super) fn a_batch_of_thousands_of_changes_is_applied<L: TestedLease>(case: &Case<L>) -> Verdict {
    const COUNT: u32 = 3000;
    let leases = samples::<L>(0..COUNT)?;
    let batch: Vec<_> = leases.iter().cloned().map(Operation::Add).collect();
    apply(case, "apply thousands of additions", &batch, &vec![Done::Added; batch.len()])?;
    same_leases("find all leases", &case.all()?, &leases)?;
    let each_other = |first| leases.iter().skip(first).step_by(2);
    let gone = each_other(1).chain(each_other(0));
    let batch: Vec<_> = gone.map(|lease| Operation::delete(lease.address())).collect();
    apply(case, "apply thousands of deletions", &batch, &vec![Done::Deleted; batch.len()])?;
    case.holds([], [&sample(1, 1)?])
}

pub(super) fn changes_of_a_batch_are_reported_in_order<L: TestedLease>(case: &Case<L>) -> Verdict {
    let log = Log::register(case, "log", &KINDS, None)?;
    let (lease, other) = (sample::<L>(1, 1)?, sample::<L>(2, 2)?);
    let renewed = with(&lease, |data| data.cltt += 1);
    let batch = [
        Operation::Add(lease.clone()),
        Operation::Add(other.clone()),
        Operation::Add(renewed.clone()),
        Operation::update(renewed.clone()),
        Operation::delete(lease.address()),
        Operation::Add(renewed.clone()),
    ];
    let expected = [Done::Added, Done::Added, Done::AddressTaken, Done::Updated, Done::Deleted, Done::Added];
    apply(case, "apply changes while a callback is registered", &batch, &expected)?;
    // Changes of different addresses have no order.
    let mut reported = log.take();
    let of_other = reported
        .extract_if(.., |(old, new)| old.iter().chain(&*new).all(|lease| lease.address() == other.address()));
    same("reported changes of another address", &of_other.collect::<Vec<_>>(), &vec![(None, Some(other))])?;
    let expected = vec![
        (None, Some(lease.clone())),
        (Some(lease), Some(renewed.clone())),
        (Some(renewed.clone()), None),
        (None, Some(renewed)),
    ];
    same("reported changes of one address in a batch", &reported, &expected)
}

pub(super) fn an_import_adds_only_the_leases_that_are_missing<L: TestedLease>(case: &Case<L>) -> Verdict {
    let mut leases = samples::<L>(1..30)?;
    let other = in_subnet(&leases[1], 2);
    case.add_all([&leases[0], &other])?;
    let mut expected = leases.clone();
    expected[1] = other.clone();
    let conflict = (leases[1].clone(), other);
    let ended = with(&sample::<L>(40, 40)?, |data| data.valid_lifetime = Lifetime(0));
    // In no order of addresses, as they may come; and one lease twice.
    leases.reverse();
    leases.extend([ended.clone(), leases[0].clone()]);
    let (mut conflicts, mut refused, mut portions) = (Vec::new(), Vec::new(), 0);
    let imported = case.mgr().import(
        &mut leases.iter().cloned().map(Ok),
        &ImportOptions::default().portion(10),
        &mut |event| match event {
            ImportEvent::Portion(_) => portions += 1,
            ImportEvent::Conflict { lease, there } => conflicts.push((lease.clone(), there.clone())),
            ImportEvent::Refused { lease, .. } => refused.push(lease.clone()),
        },
    );
    let imported = ask("import leases", imported)?;
    let found = (imported.added, imported.same, imported.conflicts, imported.refused);
    same("number of leases added, there already, in conflict, and refused", &found, &(27, 2, 1, 1))?;
    same("number of portions", &portions, &4)?;
    same("conflicts", &conflicts, &vec![conflict])?;
    same("refused leases", &refused, &vec![ended])?;
    same_leases("find all leases", &case.all()?, &expected)?;

    let source = || LeaseMgrError::Backend("the source has ended".into());
    let more = samples::<L>(30..42)?;
    let mut broken = more.iter().cloned().map(Ok).chain(std::iter::once_with(|| Err(source())));
    let result = case.mgr().import(&mut broken, &ImportOptions::default().portion(5), &mut |_| {});
    let action = "import leases from an iterator that fails after two portions and two leases";
    same(action, &result.is_err(), &true)?;
    expected.extend_from_slice(&more[..10]);
    same_leases("find the leases of two portions", &case.all()?, &expected)
}

pub(super) fn imported_leases_are_reported<L: TestedLease>(case: &Case<L>) -> Verdict {
    let log = Log::register(case, "log", &KINDS, None)?;
    let leases = samples::<L>(1..4)?;
    case.add_all(&leases[..1])?;
    let options = ImportOptions::default().portion(2).exclusive();
    let imported = case.mgr().import(&mut leases.iter().cloned().map(Ok), &options, &mut |_| {});
    same("number of imported leases", &ask("import leases", imported)?.added, &2)?;
    let expected: Vec<_> = leases.into_iter().map(|lease| (None, Some(lease))).collect();
    let mut reported = log.take();
    reported.sort_by_key(|(_, new)| new.as_ref().map(L::address));
    same("reported changes", &reported, &expected)
}

pub(super) fn concurrent_batches_are_applied<L: TestedLease>(case: &Case<L>) -> Verdict {
    const THREADS: usize = 4;
    let added = in_threads(THREADS, |thread| {
        // All threads add the same addresses, some in reverse order.
        let mut leases =
            (0..400).map(|n| sample::<L>(n, 1000 + thread as u32)).collect::<Verdict<Vec<_>>>()?;
        if thread % 2 == 1 {
            leases.reverse();
        }
        let batch: Vec<_> = leases.iter().cloned().map(Operation::Add).collect();
        let results = case.mgr().apply(&batch).into_iter().collect::<Result<Vec<_>, _>>();
        let results = ask("apply additions", results)?;
        let added = leases.into_iter().zip(results).filter(|(_, result)| *result == Done::Added);
        Ok(added.map(|(lease, _)| lease).collect::<Vec<_>>())
    })?;
    let mut added: Vec<_> = added.into_iter().flatten().collect();
    added.sort_by_key(L::address);
    same_leases("find all leases that were reported as added", &case.all()?, &added)?;
    let taken = ask("add", case.mgr().add(&sample(1, 1)?))?;
    same("add one of them", &taken, &Added::AddressTaken)
}
