//! Tasks that wait for something to change.

use core::mem::{swap, take};
use core::task::Waker;
use machine::lock::Mutex;
use smallvec::SmallVec;

/// One waiter needs no allocation, and takes no more space than a `Vec` would.
type Waiters = SmallVec<[(Waker, u32); 1]>;

/// Storage for more waiters than that is not kept.
const KEPT: usize = 64;

/// Wakers to be woken at the next change: of anything, or of what they wait for, which is told apart
/// by bits that whoever has the queue gives a meaning.
///
/// A waiter registers first and looks at the state afterwards, or does both under the lock that
/// guards the state, so that no change goes by unseen.
#[derive(Debug, Default)]
pub struct WaitQueue(Mutex<Waiters>);

impl WaitQueue {
    /// Nobody waits.
    pub const fn new() -> Self {
        Self(Mutex::new(SmallVec::new_const()))
    }

    /// Adds `waker`, once, for any change.
    pub fn register(&self, waker: &Waker) {
        self.register_for(waker, u32::MAX);
    }

    /// Adds `waker`, once, for changes that have one of `bits`.
    pub fn register_for(&self, waker: &Waker, bits: u32) {
        let mut waiting = self.0.lock();
        let known = waiting.iter_mut().find(|(other, _)| other.will_wake(waker));
        match known {
            Some((_, all)) => *all |= bits,
            None => waiting.push((waker.clone(), bits)),
        }
    }

    /// `waker` waits no more. Who registers again and again need not do this, who is gone for good
    /// does: nobody knows when the next change comes.
    pub fn forget(&self, waker: &Waker) {
        let mut waiting = self.0.lock();
        let place = waiting.iter().position(|(other, _)| other.will_wake(waker));
        let forgotten = place.map(|place| waiting.swap_remove(place));
        // What the waker keeps may be dropped with it, and look at this queue.
        drop(waiting);
        drop(forgotten);
    }

    /// Wakes all who wait. The queue keeps its storage for those who come next.
    pub fn wake_all(&self) {
        self.wake(u32::MAX);
    }

    /// Wakes those who wait for one of `bits`.
    pub fn wake(&self, bits: u32) {
        // Not under the lock: who is woken may wake this queue in turn, as a ring does that waits
        // for itself.
        let mut woken = {
            let mut waiting = self.0.lock();
            if waiting.is_empty() {
                return;
            }
            if waiting.iter().all(|(_, wanted)| wanted & bits != 0) {
                take(&mut *waiting)
            } else {
                let mut woken = Waiters::new();
                waiting.retain(|(waker, wanted)| {
                    let stays = *wanted & bits == 0;
                    if !stays {
                        woken.push((waker.clone(), *wanted));
                    }
                    stays
                });
                woken
            }
        };
        for (waker, _) in woken.drain(..) {
            waker.wake();
        }
        if woken.spilled() && woken.capacity() <= KEPT {
            let mut waiting = self.0.lock();
            if waiting.len() < woken.capacity() {
                // What is swapped out is dropped after the lock.
                woken.append(&mut waiting);
                swap(&mut *waiting, &mut woken);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::sync::Arc;
    use alloc::task::Wake;
    use alloc::vec::Vec;
    use core::sync::atomic::{AtomicUsize, Ordering};

    #[derive(Default)]
    struct Count {
        woken: AtomicUsize,
        /// Woken in turn.
        again: Option<&'static WaitQueue>,
    }

    impl Wake for Count {
        fn wake(self: Arc<Self>) {
            self.woken.fetch_add(1, Ordering::Relaxed);
            if let Some(queue) = self.again {
                queue.register(&Waker::from(self.clone()));
            }
        }
    }

    #[test]
    fn all_are_woken_once_and_the_storage_stays() {
        let queue = WaitQueue::new();
        let counts: Vec<_> = (0..10).map(|_| Arc::new(Count::default())).collect();
        for round in 1..4 {
            let before = queue.0.lock().as_ptr();
            for count in counts.iter().chain(&counts) {
                queue.register(&Waker::from(count.clone()));
            }
            let filled = queue.0.lock().as_ptr();
            assert!(round == 1 || filled == before, "no new storage");
            queue.wake_all();
            queue.wake_all();
            for count in &counts {
                assert_eq!(count.woken.load(Ordering::Relaxed), round);
                assert_eq!(Arc::strong_count(count), 1, "no waker is kept");
            }
        }
    }

    #[test]
    fn one_who_registers_while_he_is_woken_waits_for_the_next_change() {
        let queue: &WaitQueue = alloc::boxed::Box::leak(Default::default());
        let again = Arc::new(Count {
            again: Some(queue),
            ..Count::default()
        });
        let others: Vec<_> = (0..3).map(|_| Arc::new(Count::default())).collect();
        queue.register(&Waker::from(again.clone()));
        for other in &others {
            queue.register(&Waker::from(other.clone()));
        }
        for round in 1..4 {
            queue.wake_all();
            assert_eq!(again.woken.load(Ordering::Relaxed), round);
        }
        assert!(
            others
                .iter()
                .all(|other| other.woken.load(Ordering::Relaxed) == 1)
        );
    }

    #[test]
    fn who_is_forgotten_is_not_woken() {
        let queue = WaitQueue::new();
        let counts: Vec<_> = (0..3).map(|_| Arc::new(Count::default())).collect();
        let wakers: Vec<_> = counts.iter().cloned().map(Waker::from).collect();
        wakers.iter().for_each(|waker| queue.register(waker));
        queue.forget(&wakers[1]);
        queue.forget(&wakers[1]);
        queue.wake_all();
        let woken = counts
            .iter()
            .map(|count| count.woken.load(Ordering::Relaxed));
        assert_eq!(woken.collect::<Vec<_>>(), [1, 0, 1]);
    }

    #[test]
    fn storage_for_a_crowd_is_given_back() {
        let queue = WaitQueue::new();
        for _ in 0..=KEPT {
            queue.register(&Waker::from(Arc::new(Count::default())));
        }
        queue.wake_all();
        assert!(!queue.0.lock().spilled());
    }
}
