//! Concurrent changes and queries.

use std::sync::atomic::{AtomicUsize, Ordering};

use super::TestedLease;
use super::case::{Action, Case, Fault, QueryText, Verdict, ask, holds, in_threads, same, same_leases};
use super::model::{answer, matches};
use super::sample::{hostname, hwaddr, id, in_state, in_subnet, sample, samples, with, with_context};
use super::tracking::{KINDS, Log, in_order};
use crate::lease::{LeaseState, SubnetId, system_time};
use crate::{Added, Deleted, Key, LeaseMgrError, LeaseMgrExt, Query};

/// Number of threads.
const THREADS: usize = 4;

/// Maximum number of attempts for a change that is modified concurrently.
const TRIES: usize = 100_000;

/// Returns the lease that a thread adds to an address.
fn own<L: TestedLease>(address: u32, thread: usize) -> Verdict<L> {
    sample(address, 1000 + thread as u32)
}

pub(super) fn concurrent_adds_have_one_winner<L: TestedLease>(case: &Case<L>) -> Verdict {
    const ADDRESSES: u32 = 500;
    let added = in_threads(THREADS, |thread| {
        let mut added = Vec::new();
        for n in 0..ADDRESSES {
            // Some threads go up, some down.
            let n = if thread % 2 == 0 { n } else { ADDRESSES - 1 - n };
            let lease = own::<L>(n, thread)?;
            if ask(Action("add", &lease), case.mgr().add(&lease))? == Added::Added {
                added.push(lease);
            }
        }
        Ok(added)
    })?;
    let mut added: Vec<_> = added.into_iter().flatten().collect();
    added.sort_by_key(L::address);
    same("number of successful adds of 500 addresses", &added.len(), &(ADDRESSES as usize))?;
    same_leases("find all leases that were reported as added", &case.all()?, &added)?;
    case.holds(&added, [])
}

pub(super) fn concurrent_deletes_have_one_winner<L: TestedLease>(case: &Case<L>) -> Verdict {
    let leases = samples::<L>(0..300)?;
    case.add_all(&leases)?;
    let deleted = in_threads(THREADS, |thread| {
        let mut deleted = 0;
        for n in 0..leases.len() {
            let lease = &leases[if thread % 2 == 0 { n } else { leases.len() - 1 - n }];
            let expected = (thread < THREADS / 2).then_some(lease);
            let result = case.mgr().delete_expecting(lease.address(), expected);
            deleted += usize::from(ask(Action("delete", lease), result)? == Deleted::Deleted);
        }
        Ok(deleted)
    })?;
    same("number of successful deletes of 300 leases", &deleted.iter().sum::<usize>(), &leases.len())?;
    case.holds([], &leases[..20])
}

pub(super) fn no_conditional_update_is_lost<L: TestedLease>(case: &Case<L>) -> Verdict {
    const ROUNDS: i64 = 100;
    let leases = samples::<L>(0..3)?;
    case.add_all(&leases)?;
    in_threads(THREADS, |thread| {
        for round in 0..ROUNDS {
            let address = leases[(thread + round as usize) % leases.len()].address();
            increment(case, address)?;
        }
        Ok(())
    })?;
    let heard: i64 = case.all()?.iter().map(|lease| lease.data().cltt).sum();
    let before: i64 = leases.iter().map(|lease| lease.data().cltt).sum();
    same("number of increments of the cltt", &(heard - before), &(THREADS as i64 * ROUNDS))?;
    case.holds(&case.all()?, [])
}

/// Increments the time when the client was heard by a second.
pub(super) fn increment<L: TestedLease>(case: &Case<L>, address: L::Address) -> Verdict {
    for _ in 0..TRIES {
        let Some(read) = case.get(address)? else {
            return Err(Fault::new(format_args!("get {address}"), "the lease", "none"));
        };
        let renewed = with(&read, |data| data.cltt += 1);
        match case.mgr().update_if_unchanged(&read, &renewed) {
            Err(LeaseMgrError::ChangedMeanwhile { .. }) => {}
            other => return ask(Action("update, if unchanged,", &renewed), other),
        }
    }
    let found = "a concurrent modification each time";
    Err(Fault::new(
        format_args!("update {address}, expecting the lease as just read"),
        "success after some attempts",
        found,
    ))
}

pub(super) fn an_update_and_a_delete_have_one_winner<L: TestedLease>(case: &Case<L>) -> Verdict {
    let leases = samples::<L>(0..60)?;
    case.add_all(&leases)?;
    let successes = in_threads(THREADS, |thread| {
        let mut successes = Vec::new();
        for lease in &leases {
            let own = with(lease, |data| data.cltt += 1 + thread as i64);
            let result = if thread == 0 {
                case.mgr().delete_if_unchanged(lease).map(|deleted| deleted == Deleted::Deleted)
            } else {
                case.mgr().update_if_unchanged(lease, &own).map(|()| true)
            };
            successes.push(match result {
                Err(LeaseMgrError::ChangedMeanwhile { .. } | LeaseMgrError::NoSuchLease { .. }) => false,
                other => ask(Action("change, if unchanged,", lease), other)?,
            });
        }
        Ok(successes)
    })?;
    for (n, lease) in leases.iter().enumerate() {
        let winners: Vec<_> = (0..THREADS).filter(|&thread| successes[thread][n]).collect();
        let address = lease.address();
        let action = format_args!("threads whose conditional change of {address} succeeded");
        holds(action, winners.len() == 1, "one", &winners)?;
        let left = (winners[0] > 0).then(|| with(lease, |data| data.cltt += 1 + winners[0] as i64));
        case.has(lease.address(), left.as_ref())?;
    }
    case.holds(&case.all()?, &leases)
}

/// Numbers of changes of each kind that were made, or reported: additions, updates and deletions.
type Counts = [usize; 3];

pub(super) fn no_concurrent_change_of_an_address_is_lost<L: TestedLease>(case: &Case<L>) -> Verdict {
    const ROUNDS: usize = 100;
    let log = Log::register(case, "log", &KINDS, None)?;
    let address = L::address_number(1);
    let made = in_threads(THREADS, |thread| {
        let mut made = Counts::default();
        for round in 0..ROUNDS {
            let lease = with(&own::<L>(1, thread)?, |data| data.cltt += 1000 * round as i64);
            let added = ask(Action("add", &lease), case.mgr().add(&lease))?;
            made[0] += usize::from(added == Added::Added);
            if let Some(there) = case.get(address)? {
                let renewed = with(&there, |data| data.cltt += 1);
                match case.mgr().update_if_unchanged(&there, &renewed) {
                    Err(LeaseMgrError::ChangedMeanwhile { .. } | LeaseMgrError::NoSuchLease { .. }) => {}
                    other => {
                        ask(Action("update, if unchanged,", &renewed), other)?;
                        made[1] += 1;
                    }
                }
            }
            if (round + thread) % 3 == 0 {
                let action = format_args!("delete the lease of {address}");
                let deleted = ask(action, case.mgr().delete_expecting(address, None))?;
                made[2] += usize::from(deleted == Deleted::Deleted);
            }
        }
        Ok(made)
    })?;
    let mut all = Counts::default();
    for made in made {
        all.iter_mut().zip(made).for_each(|(all, made)| *all += made);
    }
    let changes = log.take();
    let mut reported = Counts::default();
    for change in &changes {
        reported[match change {
            (None, _) => 0,
            (_, Some(_)) => 1,
            (_, None) => 2,
        }] += 1;
    }
    in_order(case, address, &changes)?;
    same("reported additions, updates and deletions of an address by all threads", &reported, &all)?;
    let last = changes.last().and_then(|(_, now)| now.as_ref());
    case.holds(last, changes.iter().take(9).filter_map(|(_, now)| now.as_ref()))
}

pub(super) fn an_update_is_atomic<L: TestedLease>(case: &Case<L>) -> Verdict {
    const ROUNDS: usize = 300;
    // Two forms with only the address and the name in common.
    let one = with_context(&sample::<L>(5, 1)?, &["gold"], &[])?;
    let two = in_state(&in_subnet(&sample::<L>(5, 2)?, 2), LeaseState::DECLINED)?;
    let two = with(&two, |data| {
        data.cltt += 1000;
        data.valid_lifetime.0 += 50;
        data.hostname = one.data().hostname.clone();
    });
    let neighbours = [sample::<L>(4, 4)?, sample::<L>(6, 6)?];
    case.add_all(neighbours.iter().chain([&one]))?;
    let hostname = &one.data().hostname;
    let done = AtomicUsize::new(0);
    let read = || {
        let found = case.get(one.address())?;
        let is_a_form = |lease: &L| *lease == one || *lease == two;
        let expected = "the lease before or after an update";
        let is_good = found.as_ref().is_some_and(is_a_form);
        holds("get a lease during updates", is_good, expected, &found)?;
        for query in
            [Query::hostname(hostname), Query::all(), Query::all().in_range(one.address()..=one.address())]
        {
            let found = case.find(&query)?;
            let of_address: Vec<_> = found.iter().filter(|lease| lease.address() == one.address()).collect();
            let query_text = QueryText(&query);
            let action = format_args!("{query_text}, during updates of a lease");
            let is_good = of_address.len() == 1 && is_a_form(of_address[0]);
            holds(action, is_good, expected, &of_address)?;
        }
        Ok(())
    };
    in_threads(THREADS, |thread| {
        if thread > 0 {
            while done.load(Ordering::Acquire) == 0 {
                read()?;
            }
            return read();
        }
        let _done = Done(&done);
        for _ in 0..ROUNDS {
            case.update(&two)?;
            ask("update, if unchanged", case.mgr().update_if_unchanged(&two, &one))?;
        }
        Ok(())
    })?;
    case.holds(neighbours.iter().chain([&one]), [&two])
}

pub(super) fn a_thread_reads_its_own_writes<L: TestedLease>(case: &Case<L>) -> Verdict {
    let kept = in_threads(THREADS, |thread| {
        // The thread has its own addresses, client and name, but shares subnet and state with the
        // others.
        let number = 1000 + thread as u32;
        let addresses = (0..8).map(|n| 10 * n + thread as u32);
        let mut leases = addresses.map(|n| own::<L>(n, thread)).collect::<Verdict<Vec<_>>>()?;
        let (hwaddr, hostname) = (hwaddr(number)?, hostname(number));
        for round in 0..20 {
            for (n, lease) in leases.iter_mut().enumerate() {
                *lease = with(lease, |data| data.cltt += 1);
                *lease = in_subnet(lease, 1 + (n as u32 + round) % 2);
                match round {
                    0 => case.add(lease)?,
                    _ => case.update(lease)?,
                }
                case.has(lease.address(), Some(lease))?;
            }
            for query in [Query::hwaddr(&hwaddr), Query::hostname(&hostname)] {
                case.finds(&query, &leases)?;
                let query = query.in_subnet(SubnetId(2));
                case.finds(&query, answer(&query, &leases))?;
            }
            // Leases of the other threads are added and deleted.
            for query in
                [Query::all(), Query::all().in_subnet(SubnetId(1)), Query::state(LeaseState::DEFAULT)]
            {
                let found = case.find(&query)?;
                let found = found.iter().filter(|lease| lease.hwaddr() == Some(&hwaddr));
                let query_text = QueryText(&query);
                let action = format_args!("{query_text}, own leases of the thread only");
                same_leases(action, found, answer(&query, &leases))?;
            }
            case.delete(leases[3].address())?;
            case.has(leases[3].address(), None)?;
            case.finds(&Query::hwaddr(&hwaddr), leases[..3].iter().chain(&leases[4..]))?;
            case.add(&leases[3])?;
        }
        Ok(leases)
    })?;
    case.holds(kept.iter().flatten(), [])
}

/// Counts a thread as done when dropped.
struct Done<'a>(&'a AtomicUsize);

impl Drop for Done<'_> {
    fn drop(&mut self) {
        self.0.fetch_add(1, Ordering::Release);
    }
}

pub(super) fn a_reader_sees_only_leases_that_were_written<L: TestedLease>(case: &Case<L>) -> Verdict {
    const WRITERS: usize = 2;
    const ADDRESSES: u32 = 24;
    const ROUNDS: usize = 60;
    // Every other lease does not change, and must always be found. The others change between two
    // forms that have nothing in common, and no lease.
    let mut forms = Vec::new();
    for n in 0..ADDRESSES {
        let stable = n % 2 == 0;
        let one = with_context(&sample::<L>(n, 1)?, &["gold"], &[])?;
        let two = in_state(&in_subnet(&sample::<L>(n, 2)?, 2), LeaseState::DECLINED)?;
        let two = with(&two, |data| data.cltt += 1000);
        forms.push(if stable { vec![if n % 4 == 0 { one } else { two }] } else { vec![one, two] });
    }
    let (stable, changing): (Vec<_>, Vec<_>) = forms.iter().partition(|forms| forms.len() == 1);
    let stable: Vec<L> = stable.into_iter().flatten().cloned().collect();
    case.add_all(&stable)?;

    let done = AtomicUsize::new(0);
    let written = |lease: &L| forms.iter().flatten().any(|form| form == lease);
    let check = |query: &Query<'_, L>| -> Verdict<Option<L::Address>> {
        let found = case.find(query)?;
        for lease in &found {
            let expected = "leases that were written, and that match the query";
            let query_text = QueryText(query);
            let action = format_args!("{query_text} during changes");
            holds(action, written(lease) && matches(query, lease), expected, lease)?;
        }
        let ordered = found.is_sorted_by(|a, b| a.address() < b.address());
        holds(
            format_args!("{} during changes", QueryText(query)),
            ordered,
            "each address once, in order",
            &found,
        )?;
        if query.limit.is_none() {
            let found = found.iter().filter(|&lease| stable.contains(lease));
            let query_text = QueryText(query);
            let action = format_args!("{query_text} during changes, unchanged leases only");
            same_leases(action, found, answer(query, &stable))?;
        }
        Ok(found.last().map(L::address))
    };
    let read = || -> Verdict {
        let (hwaddr, hostname) = (hwaddr(1)?, hostname(2));
        for subnet in [None, Some(SubnetId(1)), Some(SubnetId(2))] {
            let mut keys = vec![
                Key::All,
                Key::HwAddr(&hwaddr),
                Key::Hostname(&hostname),
                Key::State(LeaseState::DEFAULT),
                Key::State(LeaseState::DECLINED),
            ];
            keys.extend(stable[0].client_keys().into_iter().map(Key::Client));
            for key in keys {
                check(&Query { subnet, ..Query::new(key) })?;
            }
        }
        let mut page = Query::all().limit(5);
        while let Some(last) = check(&page)? {
            holds(QueryText(&page), page.after.is_none_or(|after| last > after), "addresses after it", last)?;
            page = page.after(last);
        }
        for forms in &forms {
            if let Some(lease) = case.get(forms[0].address())? {
                holds("get during changes", forms.contains(&lease), "a lease that was written", &lease)?;
            }
        }
        Ok(())
    };
    let write = |writer: usize| {
        let _done = Done(&done);
        for _ in 0..ROUNDS {
            for forms in changing.iter().skip(writer).step_by(WRITERS) {
                let (one, two) = (&forms[0], &forms[1]);
                case.add(one)?;
                case.update(two)?;
                case.update(one)?;
                case.delete(one.address())?;
                case.add(two)?;
                case.delete(two.address())?;
            }
        }
        Ok(())
    };
    in_threads(THREADS, |thread| {
        if thread < WRITERS {
            return write(thread);
        }
        read()?;
        while done.load(Ordering::Acquire) < WRITERS {
            read()?;
        }
        read()
    })?;
    case.holds(&stable, forms.iter().flatten())
}

pub(super) fn leases_with_common_keys_change_concurrently<L: TestedLease>(case: &Case<L>) -> Verdict {
    let left = in_threads(THREADS, |thread| {
        // The leases of all threads have one of two clients, names, subnets, ...
        let mut leases: Vec<L> = Vec::new();
        for round in 0..150_u32 {
            let address = THREADS as u32 * (round % 25) + thread as u32;
            let n = (round / 7 + thread as u32) % 2;
            let lease = in_subnet(&sample::<L>(address, n)?, 1 + n);
            let lease = with_context(&lease, &[["gold", "silver"][n as usize]], &[(&id(n), &id(n))])?;
            let lease = in_state(&lease, LeaseState((round % 3 + n) % 3))?;
            let lease = with(&lease, |data| data.cltt += i64::from(round % 4));
            match leases.iter().position(|other| other.address() == lease.address()) {
                None => {
                    case.add(&lease)?;
                    leases.push(lease);
                }
                Some(i) if round % 5 == 0 => {
                    case.delete(leases.remove(i).address())?;
                }
                Some(i) => {
                    case.update(&lease)?;
                    leases[i] = lease;
                }
            }
        }
        Ok(leases)
    })?;
    let left: Vec<_> = left.into_iter().flatten().collect();
    case.holds(&left, [])?;
    ask("recount", case.mgr().recount())?;
    case.holds(&left, [])
}

pub(super) fn a_renewed_lease_is_not_deleted_as_reclaimed<L: TestedLease>(case: &Case<L>) -> Verdict {
    const ROUNDS: usize = 200;
    let done = AtomicUsize::new(0);
    let left = in_threads(THREADS, |thread| {
        if thread == 0 {
            while done.load(Ordering::Acquire) < THREADS - 1 {
                ask("delete reclaimed leases", case.mgr().delete_reclaimed(system_time(u32::MAX.into())))?;
            }
            return Ok(None);
        }
        let _done = Done(&done);
        let lease = own::<L>(thread as u32, thread)?;
        let reclaimed = in_state(&lease, LeaseState::EXPIRED_RECLAIMED)?;
        for _ in 0..ROUNDS {
            case.add(&reclaimed)?;
            match case.mgr().update_if_unchanged(&reclaimed, &lease) {
                Ok(()) => {
                    case.has(lease.address(), Some(&lease))?;
                    case.delete(lease.address())?;
                }
                Err(LeaseMgrError::NoSuchLease { .. }) => case.has(lease.address(), None)?,
                Err(error) => {
                    return Err(Fault::new("renew a reclaimed lease", "success, or no lease", error));
                }
            }
        }
        case.add(&lease)?;
        Ok(Some(lease))
    })?;
    case.holds(left.iter().flatten(), [])
}
