//! Operations of several threads that one of them makes together.
//!
//! A thread that has operations to make leads if fewer threads than allowed do: it makes all
//! operations that wait, and then passes the lead to a thread whose operations have arrived
//! meanwhile. So a lone operation is made at once by its own thread, and while batches are made, the
//! next one gathers. With two leaders the database works at one batch while the threads deal with
//! the results of the other.
//!
//! Operations have keys. Those of one key are made in their order, in different batches, and the
//! next one waits until the caller of the previous one has dealt with its result, so that callbacks
//! for an address are called in the order of its changes.

use std::collections::{HashSet, VecDeque};
use std::hash::Hash;
use std::mem;
use std::sync::Arc;
use std::time::Duration;

use foldhash::fast::RandomState;

use crate::lease_mgr::gathering::Gathering;
use crate::sync::thread::{self, Thread};
use crate::sync::{Instant, Mutex};

/// Maximum number of operations in a batch.
pub(super) const MAX_BATCH: usize = 256;

/// Waiting operations `O` with keys `K`, whose results are `R`.
pub(super) struct Queue<K, O, R> {
    state: Mutex<State<K, O, R>>,
    /// Whether operations of one key are made one after the other.
    is_ordered: bool,
    max_leaders: usize,
}

struct State<K, O, R> {
    waiting: VecDeque<Waiting<K, O, R>>,
    /// The keys of operations in a batch, or whose results the caller has not dealt with, and those
    /// that are held.
    busy: HashSet<K, RandomState>,
    /// Threads that wait to hold a key. The one to which a key is handed is removed.
    holders: VecDeque<(K, Thread)>,
    /// Number of threads that lead, or are to lead.
    leaders: usize,
    /// The leader, which waits until this number of operations wait.
    wanted: usize,
    leader: Option<Thread>,
    /// Number of operations that are expected to arrive soon.
    expected: usize,
    /// The usual time of a batch.
    time: Duration,
}

/// Keeps operations of a key from being made.
pub(super) struct Hold<'a, K: Copy + Eq + Hash, O, R> {
    queue: &'a Queue<K, O, R>,
    key: K,
}

impl<K: Copy + Eq + Hash, O, R> Drop for Hold<'_, K, O, R> {
    fn drop(&mut self) {
        self.queue.release(self.key);
    }
}

struct Waiting<K, O, R> {
    key: K,
    operation: O,
    /// Its number among those of its caller.
    number: usize,
    call: Arc<Call<R>>,
}

/// The results for one caller.
struct Call<R> {
    thread: Thread,
    state: Mutex<Ready<R>>,
}

struct Ready<R> {
    results: Vec<(usize, R)>,
    /// Whether the caller is to lead.
    leads: bool,
}

impl<K: Copy + Eq + Hash, O, R> Queue<K, O, R> {
    /// Creates a queue. A single leader with one operation waits for a short time until as many
    /// operations as last time have arrived; several leaders do not.
    pub(super) fn new(is_ordered: bool, max_leaders: usize) -> Self {
        let state = State {
            waiting: VecDeque::new(),
            busy: HashSet::default(),
            holders: VecDeque::new(),
            leaders: 0,
            wanted: 0,
            leader: None,
            expected: 0,
            time: Duration::ZERO,
        };
        Self { state: Mutex::new(state), is_ordered, max_leaders }
    }

    /// Makes operations, and calls `each` with the number and the result of each as soon as it is
    /// known. `make` makes a batch, of this caller and of others, and returns the results in the
    /// order of the operations; it must not panic.
    pub(super) fn run(
        &self,
        operations: impl IntoIterator<Item = (K, O)>,
        make: &dyn Fn(&[O]) -> Vec<R>,
        mut each: impl FnMut(usize, R),
    ) {
        let ready = Mutex::new(Ready { results: Vec::new(), leads: false });
        let call = Arc::new(Call { thread: thread::current(), state: ready });
        let (mut keys, mut leads) = (Vec::new(), false);
        {
            let mut state = self.state.lock();
            for (number, (key, operation)) in operations.into_iter().enumerate() {
                keys.push(key);
                state.waiting.push_back(Waiting { key, operation, number, call: Arc::clone(&call) });
            }
            if state.leaders < self.max_leaders && !keys.is_empty() {
                state.leaders += 1;
                leads = true;
            }
            let is_wanted = state.wanted > 0 && state.waiting.len() >= state.wanted;
            let leader = if is_wanted { state.leader.take() } else { None };
            drop(state);
            leader.as_ref().map(Thread::unpark);
        }
        let mut left = keys.len();
        while left > 0 {
            if leads {
                self.lead(make, keys.len() == 1);
            }
            let results = {
                let mut ready = call.state.lock();
                leads = mem::take(&mut ready.leads);
                mem::take(&mut ready.results)
            };
            if results.is_empty() && !leads {
                thread::park();
            }
            for (number, result) in results {
                left -= 1;
                each(number, result);
                if self.is_ordered {
                    self.release(keys[number]);
                }
            }
        }
        // Leads that were passed to this thread after its last operation was made.
        let is_passed_on = mem::take(&mut call.state.lock().leads);
        for is_left in [leads, is_passed_on] {
            if is_left {
                self.pass_on();
            }
        }
    }

    /// Keeps operations of a key from being made until the result is dropped. `None` if one is being
    /// made, or the caller of the previous one has not dealt with its result. For ordered queues.
    pub(super) fn try_hold(&self, key: K) -> Option<Hold<'_, K, O, R>> {
        self.state.lock().busy.insert(key).then(|| Hold { queue: self, key })
    }

    /// Waits until a key can be held, before the operations of the key that wait.
    pub(super) fn hold(&self, key: K) -> Hold<'_, K, O, R> {
        let own = thread::current();
        let mut state = self.state.lock();
        if !state.busy.insert(key) {
            state.holders.push_back((key, own.clone()));
            // A thread waits for one key at a time.
            while state.holders.iter().any(|(_, holder)| holder.id() == own.id()) {
                drop(state);
                thread::park();
                state = self.state.lock();
            }
        }
        drop(state);
        Hold { queue: self, key }
    }

    /// Makes a batch, and passes the lead on. The leader waits for others if it `is_alone` with one
    /// operation; several operations of a caller have been gathered before.
    fn lead(&self, make: &dyn Fn(&[O]) -> Vec<R>, is_alone: bool) {
        let batch = self.gather(is_alone);
        let start = Instant::now();
        if !batch.is_empty() {
            let count = batch.len();
            let mut operations = Vec::with_capacity(count);
            let mut calls = Vec::with_capacity(count);
            for Waiting { operation, number, call, .. } in batch {
                operations.push(operation);
                calls.push((number, call));
            }
            let results = make(&operations);
            let elapsed = start.elapsed();
            {
                let mut state = self.state.lock();
                state.time = (7 * state.time + elapsed) / 8;
                state.expected = (count + state.waiting.len()).min(MAX_BATCH);
            }
            let own = thread::current().id();
            let mut woken: Vec<Arc<Call<R>>> = Vec::with_capacity(count);
            for ((number, call), result) in calls.into_iter().zip(results) {
                let mut ready = call.state.lock();
                let is_first = ready.results.is_empty();
                ready.results.push((number, result));
                drop(ready);
                if is_first && call.thread.id() != own {
                    woken.push(call);
                }
            }
            self.pass_on();
            woken.iter().for_each(|call| call.thread.unpark());
        } else {
            self.pass_on();
        }
    }

    /// Takes the operations of a batch: those that wait, and if `waits` is set after a short time in
    /// which as many as last time arrive.
    fn gather(&self, waits: bool) -> Vec<Waiting<K, O, R>> {
        let mut state = self.state.lock();
        let mut gathering = Gathering::new(state.waiting.len(), state.time);
        while waits && self.max_leaders == 1 && state.waiting.len() < state.expected {
            state.wanted = state.expected;
            state.leader = Some(thread::current());
            drop(state);
            thread::park_timeout(gathering.sleep());
            state = self.state.lock();
            if !gathering.goes_on(state.waiting.len()) {
                break;
            }
        }
        (state.wanted, state.leader) = (0, None);
        let State { waiting, busy, .. } = &mut *state;
        if !self.is_ordered {
            return waiting.drain(..waiting.len().min(MAX_BATCH)).collect();
        }
        let mut batch = Vec::new();
        let mut rest = VecDeque::new();
        while let Some(next) = waiting.pop_front() {
            if batch.len() < MAX_BATCH && busy.insert(next.key) {
                batch.push(next);
            } else {
                rest.push_back(next);
            }
        }
        *waiting = rest;
        batch
    }

    /// Passes the lead to the caller of the first operation that can be made, if there is one.
    fn pass_on(&self) {
        let mut state = self.state.lock();
        let State { waiting, busy, .. } = &mut *state;
        let next = waiting.iter().find(|next| !self.is_ordered || !busy.contains(&next.key));
        let next = next.map(|next| Arc::clone(&next.call));
        // A caller that is to lead already makes all that waits.
        let next = next.filter(|call| !mem::replace(&mut call.state.lock().leads, true));
        if next.is_none() {
            state.leaders -= 1;
        }
        drop(state);
        if let Some(call) = next {
            call.thread.unpark();
        }
    }

    /// Hands a key to the next thread that waits to hold it, or lets its next operation be made.
    fn release(&self, key: K) {
        let mut state = self.state.lock();
        let next = state.holders.iter().position(|(wanted, _)| *wanted == key);
        if let Some((_, holder)) = next.and_then(|next| state.holders.remove(next)) {
            drop(state);
            holder.unpark();
            return;
        }
        state.busy.remove(&key);
        let leads = state.leaders < self.max_leaders && !state.waiting.is_empty();
        if leads {
            state.leaders += 1;
        }
        drop(state);
        if leads {
            self.pass_on();
        }
    }
}

#[cfg(test)]
#[cfg(shuttle)]
mod models {
    use std::sync::Mutex;

    use shuttle::{check_pct, check_random};

    use super::*;

    const ORDERS: usize = 5000;

    /// Notes that a key is used, or no longer, by one operation or thread at a time.
    fn note(users: &Mutex<[bool; 2]>, key: u8, is_used: bool) {
        let before = std::mem::replace(&mut users.lock().unwrap()[usize::from(key)], is_used);
        assert_ne!(before, is_used, "a key has one user");
    }

    /// Threads make operations of two keys; the results are numbered in the order in which they are
    /// made. If these are ordered, a further thread holds the keys at times.
    fn run_and_deal_with(is_ordered: bool, max_leaders: usize) {
        let queue = Arc::new(Queue::<u8, (u8, usize), usize>::new(is_ordered, max_leaders));
        let made = Arc::new(Mutex::new(Vec::<(u8, usize)>::new()));
        let dealt_with = Arc::new(Mutex::new(Vec::<usize>::new()));
        // From when an operation is made until its result is dealt with, or while a key is held.
        let users = Arc::new(Mutex::new([false; 2]));
        let threads = (0..3).map(|number| {
            let (queue, made, dealt_with) = (Arc::clone(&queue), Arc::clone(&made), Arc::clone(&dealt_with));
            let users = Arc::clone(&users);
            thread::spawn(move || {
                let make = |batch: &[(u8, usize)]| {
                    assert!(!batch.is_empty());
                    if is_ordered {
                        let keys: HashSet<_> = batch.iter().map(|(key, _)| key).collect();
                        assert_eq!(keys.len(), batch.len(), "an operation of each key");
                        batch.iter().for_each(|(key, _)| note(&users, *key, true));
                    }
                    thread::yield_now();
                    let mut made = made.lock().unwrap();
                    made.extend(batch);
                    (0..batch.len()).map(|n| made.len() - batch.len() + n).collect()
                };
                let operations = if number == 2 { vec![0, 1, 0] } else { vec![number % 2, 0] };
                let operations = operations.into_iter().map(|key| (key, (key, usize::from(number))));
                let mut results = 0;
                queue.run(operations.collect::<Vec<_>>(), &make, |_, result| {
                    results += 1;
                    thread::yield_now();
                    dealt_with.lock().unwrap().push(result);
                    if is_ordered {
                        let key = made.lock().unwrap()[result].0;
                        note(&users, key, false);
                    }
                });
                assert_eq!(results, if number == 2 { 3 } else { 2 });
            })
        });
        let mut threads: Vec<_> = threads.collect();
        if is_ordered {
            let (queue, users) = (Arc::clone(&queue), Arc::clone(&users));
            threads.push(thread::spawn(move || {
                let used = |key| {
                    note(&users, key, true);
                    thread::yield_now();
                    note(&users, key, false);
                };
                let zero = queue.hold(0);
                used(0);
                let one = queue.hold(1);
                used(1);
                drop(zero);
                drop(one);
                let held = queue.try_hold(0);
                held.iter().for_each(|_| used(0));
                drop(held);
                let held = queue.hold(0);
                used(0);
                drop(held);
            }));
        }
        threads.into_iter().for_each(|thread| thread.join().unwrap());
        let (made, dealt_with) = (made.lock().unwrap(), dealt_with.lock().unwrap());
        assert_eq!((made.len(), dealt_with.len()), (7, 7));
        if is_ordered {
            for key in [0, 1] {
                let of_key: Vec<_> = dealt_with.iter().filter(|&&n| made[n].0 == key).collect();
                assert!(of_key.is_sorted(), "results of a key are dealt with in order");
            }
        }
        let state = queue.state.lock();
        assert!(state.leaders == 0 && state.waiting.is_empty() && state.busy.is_empty());
        assert!(state.holders.is_empty());
    }

    #[test]
    fn each_operation_is_made_once_and_those_of_a_key_in_order() {
        for (is_ordered, max_leaders) in [(true, 1), (true, 2), (false, 1), (false, 2)] {
            check_random(move || run_and_deal_with(is_ordered, max_leaders), ORDERS);
            check_pct(move || run_and_deal_with(is_ordered, max_leaders), ORDERS, 3);
        }
    }
}

#[cfg(test)]
#[cfg(not(shuttle))]
mod tests {
    use std::sync::Barrier;
    use std::sync::atomic::{AtomicUsize, Ordering};

    use super::*;

    #[test]
    fn operations_that_wait_are_made_together() {
        const THREADS: usize = 8;
        let queue = Queue::<usize, usize, usize>::new(true, 1);
        let (batches, start) = (AtomicUsize::new(0), Barrier::new(THREADS));
        let make = |batch: &[usize]| {
            batches.fetch_add(1, Ordering::Relaxed);
            std::thread::sleep(Duration::from_millis(5));
            batch.to_vec()
        };
        std::thread::scope(|scope| {
            for thread in 0..THREADS {
                let (queue, make, start) = (&queue, &make, &start);
                scope.spawn(move || {
                    start.wait();
                    for n in 0..10 {
                        let number = thread + n * THREADS;
                        let mut results = Vec::new();
                        queue.run([(number, number)], make, |_, result| results.push(result));
                        assert_eq!(results, [number]);
                    }
                });
            }
        });
        let batches = batches.into_inner();
        assert!(batches < 10 * THREADS / 2, "{batches} batches");
    }

    #[test]
    fn a_key_that_is_released_is_held_before_operations_that_wait() {
        let queue = Queue::<u8, u8, ()>::new(true, 1);
        let made = Mutex::new(Vec::new());
        let make = |batch: &[u8]| {
            made.lock().extend_from_slice(batch);
            vec![(); batch.len()]
        };
        std::thread::scope(|scope| {
            let first = queue.try_hold(0).unwrap();
            assert!(queue.try_hold(0).is_none());
            let second = scope.spawn(|| {
                let held = queue.hold(0);
                made.lock().push(1);
                drop(held);
            });
            while queue.state.lock().holders.is_empty() {
                std::thread::yield_now();
            }
            let operation = scope.spawn(|| queue.run([(0, 2)], &make, |_, ()| {}));
            while queue.state.lock().waiting.is_empty() {
                std::thread::yield_now();
            }
            drop(first);
            second.join().unwrap();
            operation.join().unwrap();
        });
        assert_eq!(*made.lock(), [1, 2]);
        assert!(queue.state.lock().busy.is_empty());
    }

    #[test]
    fn a_caller_can_have_several_operations_of_one_key() {
        let queue = Queue::<u8, usize, usize>::new(true, 1);
        let mut results = Vec::new();
        let operations = (0..5).map(|n| (0, n));
        queue.run(operations, &<[usize]>::to_vec, |number, result| results.push((number, result)));
        assert_eq!(results, (0..5).map(|n| (n, n)).collect::<Vec<_>>());
    }
}
