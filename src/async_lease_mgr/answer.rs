//! A future that another thread gives its value to, under any runtime.

use std::fmt;
use std::future::Future;
use std::mem;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};

use crate::sync::Mutex;

/// The result of work that was begun when this was made. It names no runtime.
///
/// The work goes on if this is dropped: only its result is not known then.
#[must_use = "the work is done also if this is dropped, but then its result is not known"]
pub struct Answer<T>(State<T>);

enum State<T> {
    Known(Option<T>),
    Awaited(Arc<Slot<T>>),
}

/// Where a value is left for a future.
struct Slot<T>(Mutex<Content<T>>);

enum Content<T> {
    Awaited(Option<Waker>),
    There(T),
    Taken,
}

/// Gives its value to an [`Answer`]; if it is dropped without one, what `lost` gives.
pub(super) struct Sender<T> {
    slot: Arc<Slot<T>>,
    lost: Option<Box<dyn FnOnce() -> T + Send + Sync>>,
}

impl<T> Answer<T> {
    pub(super) fn known(value: T) -> Self {
        Self(State::Known(Some(value)))
    }

    pub(super) fn awaited(lost: impl FnOnce() -> T + Send + Sync + 'static) -> (Sender<T>, Self) {
        let slot = Arc::new(Slot(Mutex::new(Content::Awaited(None))));
        (Sender { slot: Arc::clone(&slot), lost: Some(Box::new(lost)) }, Self(State::Awaited(slot)))
    }
}

/// The value is only ever moved.
impl<T> Unpin for Answer<T> {}

impl<T> Future for Answer<T> {
    type Output = T;

    /// After it was ready, it never is again.
    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<T> {
        let slot = match &mut self.get_mut().0 {
            State::Known(value) => return value.take().map_or(Poll::Pending, Poll::Ready),
            State::Awaited(slot) => slot,
        };
        let mut content = slot.0.lock();
        match &mut *content {
            Content::Awaited(Some(waker)) => waker.clone_from(context.waker()),
            Content::Awaited(waker) => *waker = Some(context.waker().clone()),
            Content::Taken => {}
            Content::There(_) => {
                if let Content::There(value) = mem::replace(&mut *content, Content::Taken) {
                    return Poll::Ready(value);
                }
            }
        }
        Poll::Pending
    }
}

impl<T> fmt::Debug for Answer<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Answer").finish_non_exhaustive()
    }
}

impl<T> Sender<T> {
    pub(super) fn send(mut self, value: T) {
        self.lost = None;
        self.put(value);
    }

    fn put(&self, value: T) {
        let before = mem::replace(&mut *self.slot.0.lock(), Content::There(value));
        // The lock is free: what is woken may poll at once.
        if let Content::Awaited(Some(waker)) = before {
            waker.wake();
        }
    }
}

impl<T> Drop for Sender<T> {
    fn drop(&mut self) {
        if let Some(lost) = self.lost.take() {
            self.put(lost());
        }
    }
}

#[cfg(test)]
#[cfg(shuttle)]
mod models {
    use std::task::Wake;

    use shuttle::{check_pct, check_random, thread};

    use super::*;

    /// Wakes a thread.
    struct Unpark(thread::Thread);

    impl Wake for Unpark {
        fn wake(self: Arc<Self>) {
            self.0.unpark();
        }
    }

    /// One thread waits for an answer, polling for two tasks in turn, and another one gives it or is lost.
    fn answer(is_lost: bool) {
        let (sender, mut answer) = Answer::awaited(|| 2);
        let other = thread::spawn(move || if is_lost { drop(sender) } else { sender.send(1) });
        loop {
            let waker = Waker::from(Arc::new(Unpark(thread::current())));
            if let Poll::Ready(value) = Pin::new(&mut answer).poll(&mut Context::from_waker(&waker)) {
                assert_eq!(value, if is_lost { 2 } else { 1 });
                break;
            }
            thread::park();
        }
        other.join().unwrap();
    }

    #[test]
    fn an_answer_wakes_the_task_that_polled_last() {
        for is_lost in [false, true] {
            check_random(move || answer(is_lost), 2000);
            check_pct(move || answer(is_lost), 2000, 3);
        }
    }
}
