//! A future whose value comes from another thread, under any runtime.

use std::fmt;
use std::future::Future;
use std::mem;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};

use crate::sync::Mutex;

/// The result of work that was started when this was created. Independent of runtimes.
///
/// The work continues if this is dropped; only its result is lost.
#[must_use = "the work continues if this is dropped, but its result is lost"]
pub struct Answer<T>(State<T>);

enum State<T> {
    Known(Option<T>),
    Awaited(Arc<Slot<T>>),
}

/// The place through which a value is passed to a future.
struct Slot<T>(Mutex<Content<T>>);

enum Content<T> {
    Waiting(Option<Waker>),
    Ready(T),
    Taken,
}

/// Sends a value to an [`Answer`]; if it is dropped without one, sends the value of `lost`.
pub(super) struct Sender<T> {
    slot: Arc<Slot<T>>,
    lost: Option<Box<dyn FnOnce() -> T + Send + Sync>>,
}

impl<T> Answer<T> {
    pub(super) fn known(value: T) -> Self {
        Self(State::Known(Some(value)))
    }

    pub(super) fn awaited(lost: impl FnOnce() -> T + Send + Sync + 'static) -> (Sender<T>, Self) {
        let slot = Arc::new(Slot(Mutex::new(Content::Waiting(None))));
        (Sender { slot: Arc::clone(&slot), lost: Some(Box::new(lost)) }, Self(State::Awaited(slot)))
    }
}

/// The value is never pinned.
impl<T> Unpin for Answer<T> {}

impl<T> Future for Answer<T> {
    type Output = T;

    /// Returns `Ready` once only.
    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<T> {
        let slot = match &mut self.get_mut().0 {
            State::Known(value) => return value.take().map_or(Poll::Pending, Poll::Ready),
            State::Awaited(slot) => slot,
        };
        let mut content = slot.0.lock();
        match &mut *content {
            Content::Waiting(Some(waker)) => waker.clone_from(context.waker()),
            Content::Waiting(waker) => *waker = Some(context.waker().clone()),
            Content::Taken => {}
            Content::Ready(_) => {
                if let Content::Ready(value) = mem::replace(&mut *content, Content::Taken) {
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
        let before = mem::replace(&mut *self.slot.0.lock(), Content::Ready(value));
        // The lock is released, as the woken task may poll at once.
        if let Content::Waiting(Some(waker)) = before {
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

    /// One thread waits for an answer, polling for two tasks alternately; another thread sends the
    /// answer or drops the sender.
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
