//! What is ready to run on one CPU, first come first served, and the lock of that.

use crate::sync::{AtomicUsize, Mutex, Ordering};
use alloc::collections::VecDeque;

/// A queue of one CPU. Others add to it and take from it as well, but rarely, so that its lock
/// stays in the CPU's cache.
#[derive(Debug)]
pub(super) struct Queue<T> {
    ready: Mutex<VecDeque<Entry<T>>>,
    /// How many there are, to be looked at without the lock. Whoever relies on seeing what another
    /// CPU has added puts a fence before the look: see [`scheduler`](super::scheduler).
    count: AtomicUsize,
}

/// Something that is ready.
#[derive(Debug)]
pub(super) struct Entry<T> {
    pub(super) item: T,
    /// The CPUs that may take it, CPU N as bit N.
    pub(super) allowed: u64,
}

impl<T> Queue<T> {
    /// An empty queue.
    #[cfg(not(loom))]
    pub(super) const fn new() -> Self {
        Self {
            ready: Mutex::new(VecDeque::new()),
            count: AtomicUsize::new(0),
        }
    }

    /// As above; loom's atomics are not made at compile time.
    #[cfg(loom)]
    pub(super) fn new() -> Self {
        Self {
            ready: Mutex::new(VecDeque::new()),
            count: AtomicUsize::new(0),
        }
    }

    /// Adds one at the end, and calls `then` with all there are before the lock is released.
    pub(super) fn push(&self, entry: Entry<T>, then: impl FnOnce(&VecDeque<Entry<T>>)) {
        let mut ready = self.ready.lock();
        ready.push_back(entry);
        self.count.store(ready.len(), Ordering::Release);
        then(&ready);
    }

    /// Takes the first that one of the CPUs `by` may take, and calls `then` with what remains
    /// before the lock is released.
    pub(super) fn take(&self, by: u64, then: impl FnOnce(&VecDeque<Entry<T>>)) -> Option<Entry<T>> {
        if self.is_empty() {
            return None;
        }
        let mut ready = self.ready.lock();
        let place = ready.iter().position(|entry| entry.allowed & by != 0);
        let entry = place.and_then(|place| ready.remove(place));
        self.count.store(ready.len(), Ordering::Release);
        then(&ready);
        entry
    }

    /// Calls `then` with all there are, under the lock.
    pub(super) fn with(&self, then: impl FnOnce(&VecDeque<Entry<T>>)) {
        then(&self.ready.lock());
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
