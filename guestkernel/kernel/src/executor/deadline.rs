//! A time at which a wait ends, if there is one.

use super::timer::{Sleep, sleep_until};
use core::future::{Future, poll_fn};
use core::pin::{Pin, pin};
use core::task::{Context, Poll};

/// The end of a wait.
#[derive(Debug)]
pub struct Deadline(Option<Sleep>);

impl Deadline {
    /// The monotonic time `at`, in nanoseconds; `None` for no end.
    pub fn new(at: Option<u64>) -> Self {
        Self(at.map(sleep_until))
    }

    /// Whether there is one.
    pub fn is_set(&self) -> bool {
        self.0.is_some()
    }

    /// Ready when it has come.
    pub fn poll(&mut self, context: &mut Context<'_>) -> Poll<()> {
        match &mut self.0 {
            Some(sleep) => Pin::new(sleep).poll(context),
            None => Poll::Pending,
        }
    }
}

/// Waits for `event`, but not longer than until the monotonic time `deadline`, if there is one: `None`
/// then. An event that comes at the same time goes before it.
pub async fn until_deadline<F: Future>(deadline: Option<u64>, event: F) -> Option<F::Output> {
    let mut deadline = Deadline::new(deadline);
    let mut event = pin!(event);
    poll_fn(|context| match event.as_mut().poll(context) {
        Poll::Ready(output) => Poll::Ready(Some(output)),
        Poll::Pending => deadline.poll(context).map(|()| None),
    })
    .await
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::executor::block_on;
    use core::future::{pending, ready};
    use machine::clock;

    #[test]
    fn what_comes_first_ends_the_wait() {
        let soon = clock::monotonic() + 1_000_000;
        assert_eq!(block_on(until_deadline(Some(soon), pending::<()>())), None);
        assert!(clock::monotonic() >= soon);
        assert_eq!(block_on(until_deadline(None, ready(1))), Some(1));
        let at_once = block_on(until_deadline(Some(0), ready(2)));
        assert_eq!(at_once, Some(2), "the event goes before the time");
        let sleeping = async {
            sleep_until(soon + 1_000_000).await;
            3
        };
        let later = Some(soon + 1_000_000_000);
        assert_eq!(block_on(until_deadline(later, sleeping)), Some(3));
    }
}
