//! One after the other, where who has his turn may wait meanwhile.

use super::WaitQueue;
use core::future::poll_fn;
use core::sync::atomic::{AtomicBool, Ordering};
use core::task::Poll;

/// What one task at a time has.
#[derive(Debug, Default)]
pub struct Turn {
    is_taken: AtomicBool,
    waiters: WaitQueue,
}

/// A turn, until it is dropped.
#[derive(Debug)]
pub struct Taken<'a>(&'a Turn);

impl Turn {
    /// Waits until nobody has it.
    pub async fn take(&self) -> Taken<'_> {
        poll_fn(|context| {
            if !self.is_taken.swap(true, Ordering::Acquire) {
                return Poll::Ready(());
            }
            // Registered first, so that its end is not missed.
            self.waiters.register(context.waker());
            match self.is_taken.swap(true, Ordering::Acquire) {
                false => Poll::Ready(()),
                true => Poll::Pending,
            }
        })
        .await;
        Taken(self)
    }
}

impl Drop for Taken<'_> {
    fn drop(&mut self) {
        self.0.is_taken.store(false, Ordering::Release);
        self.0.waiters.wake_all();
    }
}
