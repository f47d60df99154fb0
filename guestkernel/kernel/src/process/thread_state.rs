//! What others see of a thread: its number, its name, the CPU time that it has used.

use crate::executor::{Slice, all_cpus};
use alloc::sync::Arc;
use core::sync::atomic::{AtomicU64, Ordering};
use machine::clock;
use spin::Mutex;

/// The part of a thread that is not its own alone.
#[derive(Debug)]
pub struct ThreadState {
    /// Its number.
    pub tid: u32,
    /// Its name (`PR_SET_NAME`), padded with NULs.
    pub name: Mutex<[u8; 16]>,
    /// What `set_robust_list(2)` said: the list's head.
    pub robust_list: AtomicU64,
    /// The CPUs that it may use (`sched_setaffinity(2)`), CPU N as bit N.
    pub affinity: Arc<AtomicU64>,
    /// Nanoseconds of CPU time before the current time on a CPU.
    used: AtomicU64,
    /// Since when it has been on a CPU, on the monotonic clock; 0 if it is not.
    running_since: AtomicU64,
    /// How often it has got a CPU, and the end of its time slice on it.
    turns: AtomicU64,
    slice_end: AtomicU64,
}

/// A turn on a CPU: while one exists, the thread has it.
pub(super) struct Turn<'a>(&'a ThreadState);

impl ThreadState {
    /// That of a new thread, which takes after `parent`.
    pub(super) fn new(tid: u32, parent: Option<&Self>) -> Self {
        let name = parent.map_or([0; 16], |parent| *parent.name.lock());
        let affinity =
            parent.map_or_else(all_cpus, |parent| parent.affinity.load(Ordering::Relaxed));
        Self {
            tid,
            name: Mutex::new(name),
            robust_list: AtomicU64::new(0),
            affinity: Arc::new(AtomicU64::new(affinity)),
            used: AtomicU64::new(0),
            running_since: AtomicU64::new(0),
            turns: AtomicU64::new(0),
            slice_end: AtomicU64::new(0),
        }
    }

    /// The thread gets a CPU, and a slice of its time.
    pub(super) fn begin_turn(&self) -> Turn<'_> {
        let now = clock::monotonic();
        self.running_since.store(now.max(1), Ordering::Relaxed);
        self.turns.fetch_add(1, Ordering::Relaxed);
        let slice = Slice::starting(now);
        self.slice_end.store(slice.end(), Ordering::Relaxed);
        Turn(self)
    }

    /// The number of the current turn, from 1, and its time slice.
    #[inline]
    pub(super) fn turn(&self) -> (u64, Slice) {
        let end = self.slice_end.load(Ordering::Relaxed);
        (self.turns.load(Ordering::Relaxed), Slice::ending(end))
    }

    /// Nanoseconds of CPU time that it has used.
    pub fn cpu_time(&self) -> u64 {
        let used = self.used.load(Ordering::Relaxed);
        match self.running_since.load(Ordering::Relaxed) {
            0 => used,
            since => used + clock::monotonic().saturating_sub(since),
        }
    }
}

impl Drop for Turn<'_> {
    fn drop(&mut self) {
        let used = self.0.cpu_time();
        self.0.running_since.store(0, Ordering::Relaxed);
        self.0.used.store(used, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_time_on_a_cpu_counts() {
        let state = ThreadState::new(1, None);
        assert_eq!(state.cpu_time(), 0);
        let turn = state.begin_turn();
        let start = clock::monotonic();
        while clock::monotonic() < start + 1_000_000 {}
        assert!(state.cpu_time() >= 1_000_000);
        drop(turn);
        let used = state.cpu_time();
        assert!(used >= 1_000_000);
        assert_eq!(state.cpu_time(), used);
    }

    #[test]
    fn a_new_thread_takes_after_its_parent() {
        let parent = ThreadState::new(1, None);
        *parent.name.lock() = *b"parent\0\0\0\0\0\0\0\0\0\0";
        parent.robust_list.store(7, Ordering::Relaxed);
        let child = ThreadState::new(2, Some(&parent));
        assert_eq!(&child.name.lock()[..7], b"parent\0");
        assert_eq!(child.robust_list.load(Ordering::Relaxed), 0);
        assert_eq!(child.affinity.load(Ordering::Relaxed), all_cpus());
    }
}
