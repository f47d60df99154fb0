//! What is ready to run, first come first served.

use super::Runnable;
use alloc::collections::VecDeque;
use alloc::sync::Arc;
use core::sync::atomic::{AtomicUsize, Ordering};
use machine::lock::Mutex;

/// A queue.
pub(super) struct Queue {
    ready: Mutex<VecDeque<Arc<dyn Runnable>>>,
    /// How many there are, to be looked at without the lock.
    count: AtomicUsize,
}

impl Queue {
    /// An empty queue.
    pub(super) const fn new() -> Self {
        Self {
            ready: Mutex::new(VecDeque::new()),
            count: AtomicUsize::new(0),
        }
    }

    /// Adds one at the end.
    pub(super) fn push(&self, runnable: Arc<dyn Runnable>) {
        let mut ready = self.ready.lock();
        ready.push_back(runnable);
        self.count.store(ready.len(), Ordering::Release);
    }

    /// Takes the first.
    pub(super) fn pop(&self) -> Option<Arc<dyn Runnable>> {
        if self.is_empty() {
            return None;
        }
        let mut ready = self.ready.lock();
        let first = ready.pop_front();
        self.count.store(ready.len(), Ordering::Release);
        first
    }

    /// How many there are.
    #[inline]
    pub(super) fn len(&self) -> usize {
        self.count.load(Ordering::Acquire)
    }

    /// Whether there is none.
    #[inline]
    pub(super) fn is_empty(&self) -> bool {
        self.len() == 0
    }
}
