//! The threads that make submitted operations, so that callers need not wait for a sync or a network.
//!
//! A thread makes all waiting operations as one batch, and calls the callbacks with the results. The
//! callers often submit their next operations at once. So before the next batch, a single thread waits
//! until as many operations have arrived as last time, while they keep arriving, and at most for the
//! duration of a batch: if it started with the first of them, the others would wait for two syncs.
//! Several threads do not wait so: while one deals with its batch, another takes what has arrived.

use std::mem;
use std::sync::Arc;
use std::time::Duration;

use tracing::warn;

use super::gathering::Gathering;
use super::{Done, LeaseMgr, LeaseMgrError, ManagedLease, Operation, Then as ThenDone, call_then};
use crate::sync::thread::{self, JoinHandle, Thread};
use crate::sync::{Instant, Mutex, MutexGuard};

/// Called with the result of an operation.
type Then<R> = Box<dyn FnOnce(R) + Send>;

/// Makes a batch of operations `O`, and returns a result `R` for each.
type Make<O, R> = dyn Fn(&[O]) -> Vec<R> + Send + Sync;

/// A queue of operations, and the threads that make them. A thread is started when an operation has
/// to wait for it.
pub(crate) struct Writer<O, R> {
    shared: Arc<Shared<O, R>>,
    make: Arc<Make<O, R>>,
}

struct Shared<O, R> {
    state: Mutex<State<O, R>>,
    max_threads: usize,
}

struct State<O, R> {
    /// The waiting operations, and the callback for the result of each.
    waiting: Waiting<O, R>,
    /// A thread is woken when at least this number of operations wait.
    wanted: usize,
    /// The threads that wait for operations.
    idle: Vec<Thread>,
    /// Whether a thread was woken or started, and has not looked at the operations yet.
    is_woken: bool,
    threads: Vec<JoinHandle<()>>,
    is_ending: bool,
}

struct Waiting<O, R> {
    operations: Vec<O>,
    thens: Vec<Then<R>>,
}

impl<O, R> Waiting<O, R> {
    fn new() -> Self {
        Self { operations: Vec::new(), thens: Vec::new() }
    }

    fn len(&self) -> usize {
        self.operations.len()
    }
}

impl<O: Send + 'static, R: Send + 'static> Writer<O, R> {
    /// Creates a writer that makes each batch by `make`, which must return a result for each
    /// operation. Several threads make operations in any order.
    pub(crate) fn new(max_threads: usize, make: impl Fn(&[O]) -> Vec<R> + Send + Sync + 'static) -> Self {
        let state = State {
            waiting: Waiting::new(),
            wanted: 1,
            idle: Vec::new(),
            is_woken: false,
            threads: Vec::new(),
            is_ending: false,
        };
        Self { shared: Arc::new(Shared { state: Mutex::new(state), max_threads }), make: Arc::new(make) }
    }

    /// Queues an operation; a single thread makes it after those that were submitted before. `then` is
    /// called with its result.
    ///
    /// # Errors
    /// Returns the operation and its callback if no thread can be started.
    pub(crate) fn submit(&self, operation: O, then: Then<R>) -> Result<(), (O, Then<R>)> {
        let mut state = self.shared.state.lock();
        let is_wanted = state.waiting.len() + 1 >= state.wanted && !state.is_woken;
        let woken = if is_wanted { state.idle.pop() } else { None };
        let starts = is_wanted && woken.is_none() && state.threads.len() < self.shared.max_threads;
        if starts {
            match self.start() {
                Ok(thread) => {
                    state.threads.push(thread);
                    state.is_woken = true;
                }
                Err(error) if state.threads.is_empty() => {
                    warn!(
                        id = "DHCPSRV_MEMFILE_NO_WRITER",
                        "cannot start the thread for submitted changes, so their callers wait: {error}"
                    );
                    return Err((operation, then));
                }
                // The other threads make it.
                Err(_) => {}
            }
        }
        state.is_woken |= woken.is_some();
        state.waiting.operations.push(operation);
        state.waiting.thens.push(then);
        drop(state);
        woken.as_ref().map(Thread::unpark);
        Ok(())
    }

    fn start(&self) -> std::io::Result<JoinHandle<()>> {
        let (shared, make) = (Arc::clone(&self.shared), Arc::clone(&self.make));
        thread::Builder::new().name("lease-writer".to_owned()).spawn(move || shared.work(&*make))
    }

    /// Ends the threads after they have answered everything. Waits for their ends if `waits` is set,
    /// but not for that of the calling thread.
    pub(crate) fn end(self, waits: bool) {
        let threads = {
            let mut state = self.shared.state.lock();
            state.is_ending = true;
            mem::take(&mut state.threads)
        };
        threads.iter().for_each(|thread| thread.thread().unpark());
        for thread in threads {
            if waits && thread.thread().id() != thread::current().id() {
                // The thread catches all panics.
                let _ = thread.join();
            }
        }
    }
}

impl<O, R> Shared<O, R> {
    fn work(&self, make: &Make<O, R>) {
        let (mut expected, mut time) = (0, Duration::ZERO);
        while let Some(Waiting { operations, thens }) = self.gather(expected, time) {
            let start = Instant::now();
            let results = make(&operations);
            time = (7 * time + start.elapsed()) / 8;
            // The operations that have arrived meanwhile, and as many again as this batch had.
            expected = operations.len() + self.state.lock().waiting.len();
            for (then, result) in thens.into_iter().zip(results) {
                call_then(then, result);
            }
        }
    }

    /// Waits for the operations of a batch. Returns `None` if none wait and the writer is ending.
    fn gather(&self, expected: usize, time: Duration) -> Option<Waiting<O, R>> {
        let mut state = self.state.lock();
        while state.waiting.len() == 0 {
            if state.is_ending {
                return None;
            }
            state = self.idle(state, 1, thread::park);
        }
        let mut gathering = Gathering::new(state.waiting.len(), time);
        while self.max_threads == 1 && state.waiting.len() < expected && !state.is_ending {
            state = self.idle(state, expected, || thread::park_timeout(gathering.sleep()));
            if !gathering.goes_on(state.waiting.len()) {
                break;
            }
        }
        state.is_woken = false;
        Some(mem::replace(&mut state.waiting, Waiting::new()))
    }

    /// Waits until this number of operations wait, or `wait` returns otherwise.
    fn idle<'a>(
        &'a self,
        mut state: MutexGuard<'a, State<O, R>>,
        wanted: usize,
        wait: impl FnOnce(),
    ) -> MutexGuard<'a, State<O, R>> {
        state.wanted = wanted;
        state.is_woken = false;
        state.idle.push(thread::current());
        drop(state);
        wait();
        let mut state = self.state.lock();
        let own = thread::current().id();
        state.idle.retain(|thread| thread.id() != own);
        state
    }
}

/// Submits a change to the writer of a manager, as [`LeaseMgr::submit`] does. Without a writer, or if
/// its thread cannot be started, the calling thread makes the change.
pub(crate) fn submit<L: ManagedLease>(
    manager: &dyn LeaseMgr<L>,
    writer: Option<&Writer<Operation<L>, Result<Done, LeaseMgrError>>>,
    operation: Operation<L>,
    then: ThenDone,
) {
    let refused = manager.tracking().refuse_in_callback();
    let (result, then) = match (writer, refused) {
        (_, Err(error)) => (Err(error), then),
        (None, Ok(())) => (operation.run(manager), then),
        (Some(writer), Ok(())) => match writer.submit(operation, then) {
            Ok(()) => return,
            Err((operation, then)) => (operation.run(manager), then),
        },
    };
    call_then(then, result);
}

#[cfg(test)]
#[cfg(shuttle)]
mod models {
    use std::sync::Mutex;

    use shuttle::{check_pct, check_random};

    use super::*;

    const THREADS: usize = 3;
    const OPERATIONS: usize = 3;
    const ORDERS: usize = 5000;

    /// The operations made and answered, each as the numbers of its thread and of the operation.
    #[derive(Default)]
    struct Log {
        made: Mutex<Vec<(usize, usize)>>,
        answered: Mutex<Vec<(usize, usize)>>,
    }

    impl Log {
        fn writer(self: &Arc<Self>, threads: usize) -> Writer<(usize, usize), usize> {
            let log = Arc::clone(self);
            Writer::new(threads, move |operations: &[(usize, usize)]| {
                assert!(!operations.is_empty());
                // Other operations arrive meanwhile.
                thread::yield_now();
                log.made.lock().unwrap().extend(operations);
                thread::yield_now();
                operations.iter().map(|(_, number)| *number).collect()
            })
        }

        /// Submits an operation, and checks in its answer that it was made.
        fn submit(
            self: &Arc<Self>,
            writer: &Writer<(usize, usize), usize>,
            operation: (usize, usize),
            next: impl FnOnce() + Send + 'static,
        ) {
            let log = Arc::clone(self);
            let then = move |number| {
                assert_eq!(number, operation.1);
                assert!(log.made.lock().unwrap().contains(&operation));
                log.answered.lock().unwrap().push(operation);
                next();
            };
            assert!(writer.submit(operation, Box::new(then)).is_ok());
        }

        /// Checks that each operation was made once and answered once.
        fn check_once(&self, threads: usize) {
            for numbers in [&self.made, &self.answered] {
                let mut numbers = numbers.lock().unwrap().clone();
                numbers.sort_unstable();
                let all = (0..threads).flat_map(|thread| (0..OPERATIONS).map(move |n| (thread, n)));
                assert_eq!(numbers, all.collect::<Vec<_>>());
            }
        }

        /// Checks that each operation was made once, in the order of its thread, and then answered.
        fn check(&self, threads: usize) {
            let made = self.made.lock().unwrap().clone();
            assert_eq!(made, *self.answered.lock().unwrap());
            for thread in 0..threads {
                let own: Vec<_> = made.iter().filter(|made| made.0 == thread).map(|made| made.1).collect();
                assert_eq!(own, (0..OPERATIONS).collect::<Vec<_>>());
            }
            assert_eq!(made.len(), threads * OPERATIONS);
        }
    }

    /// Threads submit operations, and the writer ends.
    fn submitting(makers: usize) {
        let log = Arc::new(Log::default());
        let writer = Arc::new(log.writer(makers));
        let threads = (0..THREADS).map(|number| {
            let (log, writer) = (Arc::clone(&log), Arc::clone(&writer));
            thread::spawn(move || (0..OPERATIONS).for_each(|n| log.submit(&writer, (number, n), || ())))
        });
        threads.collect::<Vec<_>>().into_iter().for_each(|thread| thread.join().unwrap());
        Arc::into_inner(writer).unwrap().end(true);
        if makers == 1 {
            log.check(THREADS);
        }
        log.check_once(THREADS);
    }

    /// Submits the operations of a thread, each in the answer to the one before. The last one ends
    /// the writer.
    fn submit_in_turn(
        log: &Arc<Log>,
        writer: &Arc<Writer<(usize, usize), usize>>,
        (number, n): (usize, usize),
        waiter: thread::Thread,
    ) {
        let (own, next_writer) = (Arc::clone(log), Arc::clone(writer));
        log.submit(writer, (number, n), move || {
            if n + 1 < OPERATIONS {
                submit_in_turn(&own, &next_writer, (number, n + 1), waiter);
            } else if let Some(writer) = Arc::into_inner(next_writer) {
                // The writer's thread does not wait for itself.
                writer.end(true);
                waiter.unpark();
            }
        });
    }

    /// Answers submit further operations, and the last of them ends the writer.
    fn answering() {
        let log = Arc::new(Log::default());
        let writer = Arc::new(log.writer(1));
        for number in 0..2 {
            submit_in_turn(&log, &writer, (number, 0), thread::current());
        }
        if let Some(writer) = Arc::into_inner(writer) {
            writer.end(true);
        }
        while log.answered.lock().unwrap().len() < 2 * OPERATIONS {
            thread::park();
        }
        log.check(2);
    }

    #[test]
    fn operations_are_made_once_in_order_and_before_the_end() {
        for makers in [1, 2] {
            check_random(move || submitting(makers), ORDERS);
            check_pct(move || submitting(makers), ORDERS, 3);
        }
    }

    #[test]
    fn an_answer_can_submit_and_end_the_writer() {
        check_random(answering, ORDERS);
        check_pct(answering, ORDERS, 3);
    }
}
