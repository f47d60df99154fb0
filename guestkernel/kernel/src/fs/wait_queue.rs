//! Tasks that wait for something to change.

use alloc::vec::Vec;
use core::task::Waker;
use machine::lock::Mutex;

/// Wakers to be woken, all of them, at the next change.
///
/// A waiter registers first and looks at the state afterwards, or does both under the lock that
/// guards the state, so that no change goes by unseen.
#[derive(Debug, Default)]
pub struct WaitQueue(Mutex<Vec<Waker>>);

impl WaitQueue {
    /// Nobody waits.
    pub const fn new() -> Self {
        Self(Mutex::new(Vec::new()))
    }

    /// Adds `waker`, once.
    pub fn register(&self, waker: &Waker) {
        let mut waiting = self.0.lock();
        if !waiting.iter().any(|other| other.will_wake(waker)) {
            waiting.push(waker.clone());
        }
    }

    /// Wakes all who wait.
    pub fn wake_all(&self) {
        let waiting = core::mem::take(&mut *self.0.lock());
        waiting.into_iter().for_each(Waker::wake);
    }
}
