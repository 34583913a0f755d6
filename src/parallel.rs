//! Parallel work on several threads.

use std::sync::{Mutex, PoisonError};
use std::thread::ScopedJoinHandle;

/// A thread of the work panicked.
#[derive(Debug)]
pub(crate) struct Panicked;

/// Processes each item on its own thread, and returns the results in the order of the items. If
/// threads cannot be started, the others, which include the caller's, process their items.
///
/// # Errors
/// Returns the first error in the order of the items, after all items have been processed, and
/// [`Panicked`] if a thread panicked.
pub(crate) fn in_parallel<I: Send, T: Send, E: From<Panicked> + Send>(
    items: impl IntoIterator<Item = I>,
    work: impl Fn(I) -> Result<T, E> + Sync,
) -> Result<Vec<T>, E> {
    let items: Vec<(usize, I)> = items.into_iter().enumerate().collect();
    let count = items.len();
    let items = Mutex::new(items.into_iter());
    let next = || items.lock().unwrap_or_else(PoisonError::into_inner).next();
    let work = || {
        let mut results = Vec::new();
        while let Some((n, item)) = next() {
            results.push((n, work(item)));
        }
        results
    };
    let mut results = std::thread::scope(|scope| {
        let spawn = |_| std::thread::Builder::new().spawn_scoped(scope, work).ok();
        let threads: Vec<_> = (1..count).map_while(spawn).collect();
        let own = work();
        // All threads are joined: a scope panics if a thread that was not joined has panicked.
        let joined: Vec<_> = threads.into_iter().map(ScopedJoinHandle::join).collect();
        joined.into_iter().try_fold(own, |mut results, of_thread| {
            results.extend(of_thread.map_err(|_| Panicked)?);
            Ok::<_, Panicked>(results)
        })
    })?;
    results.sort_unstable_by_key(|&(n, _)| n);
    results.into_iter().map(|(_, result)| result).collect()
}

#[cfg(test)]
mod tests {
    use std::sync::Barrier;

    use super::*;

    #[derive(Debug, PartialEq)]
    enum Failed {
        Item(usize),
        Panicked,
    }

    impl From<Panicked> for Failed {
        fn from(Panicked: Panicked) -> Self {
            Self::Panicked
        }
    }

    #[test]
    fn results_are_in_the_order_of_the_items_and_each_item_has_a_thread() {
        let all_running = Barrier::new(8);
        let squares = in_parallel(0..8, |n| {
            all_running.wait();
            Ok::<_, Failed>(n * n)
        });
        assert_eq!(squares, Ok(vec![0, 1, 4, 9, 16, 25, 36, 49]));
        assert_eq!(in_parallel([], |n: usize| Ok::<_, Failed>(n)), Ok(vec![]));
    }

    #[test]
    fn the_first_error_is_returned() {
        let fail_from_2 = |n| if n < 2 { Ok(n) } else { Err(Failed::Item(n)) };
        assert_eq!(in_parallel(0..5, fail_from_2), Err(Failed::Item(2)));
    }

    #[test]
    fn a_panic_of_a_thread_is_an_error() {
        let caller = std::thread::current().id();
        let all_running = Barrier::new(3);
        let result = in_parallel(0..3, |n| {
            all_running.wait();
            assert_eq!(std::thread::current().id(), caller, "item {n}");
            Ok::<_, Failed>(n)
        });
        assert_eq!(result, Err(Failed::Panicked));
    }
}
