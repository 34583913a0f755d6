//! When a change may be acknowledged to the client.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use parking_lot::Mutex;

use crate::panics::contained;

type Then = Box<dyn FnOnce(bool) + Send>;

/// What is called when all servers have answered.
struct Pending {
    /// Taken once; the lock only lets other threads refer to it.
    then: Mutex<Option<Then>>,
    failed: AtomicBool,
}

impl Drop for Pending {
    fn drop(&mut self) {
        let is_made = !*self.failed.get_mut();
        if let Some(then) = self.then.get_mut().take()
            && let Err(message) = contained(|| then(is_made))
        {
            tracing::error!(message, "the function that is told about a change panicked");
        }
    }
}

/// One server's part of an acknowledgement. It fails if it is dropped before
/// [`made`](Self::made), so a change that is forgotten is never acknowledged.
pub(super) struct Ack {
    pending: Arc<Pending>,
    is_made: bool,
}

impl fmt::Debug for Ack {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Ack").field("is_made", &self.is_made).finish_non_exhaustive()
    }
}

impl Ack {
    /// `then` is called once, when all parts have ended, with whether each was made.
    pub(super) fn new(then: impl FnOnce(bool) + Send + 'static) -> Self {
        let pending = Pending { then: Mutex::new(Some(Box::new(then))), failed: AtomicBool::new(false) };
        Self { pending: Arc::new(pending), is_made: false }
    }

    /// Returns the part of another server.
    pub(super) fn share(&self) -> Self {
        Self { pending: Arc::clone(&self.pending), is_made: false }
    }

    /// Ends this part: the server has the change.
    pub(super) fn made(mut self) {
        self.is_made = true;
    }
}

impl Drop for Ack {
    fn drop(&mut self) {
        if !self.is_made {
            self.pending.failed.store(true, Ordering::Release);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;

    use rstest::rstest;

    use super::Ack;

    #[rstest]
    #[case(true, true)]
    #[case(true, false)]
    #[case(false, true)]
    fn all_parts_have_to_be_made(#[case] first: bool, #[case] second: bool) {
        let (sender, told) = mpsc::channel();
        let ack = Ack::new(move |is_made| sender.send(is_made).unwrap());
        let other = ack.share();
        let end = |ack: Ack, is_made: bool| if is_made { ack.made() } else { drop(ack) };
        end(ack, first);
        assert!(told.try_recv().is_err());
        end(other, second);
        assert_eq!(told.try_recv(), Ok(first && second));
    }
}
