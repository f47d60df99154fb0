//! What others see of a thread: its number, its name, the CPU time that it has used.

use super::restart::Restart;
use crate::executor::{Scheduled, Slice, all_cpus};
use bitflags::bitflags;
use core::fmt;
use core::sync::atomic::{AtomicU32, AtomicU64, Ordering, fence};
use core::task::Waker;
use machine::clock;
use machine::lock::Mutex;
use ringlet_abi::names::system_call as name;

bitflags! {
    /// What a thread has to see to before its program goes on, and that ends what it waits for.
    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    pub(crate) struct Attention: u32 {
        /// A signal that it does not block, or it is to stop.
        const SIGNAL = 1;
        /// It is to end.
        const END = 2;
    }
}

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
    pub affinity: AtomicU64,
    /// What is left of a system call that a signal has interrupted.
    pub restart: Mutex<Option<Restart>>,
    time: Mutex<CpuTime>,
    /// The CPU that it is on, or [`NOWHERE`].
    cpu: AtomicU32,
    /// How often it has got a CPU, and the end of its time slice on it.
    turns: AtomicU64,
    slice_end: AtomicU64,
    /// The number of the system call that it waits in, or [`NONE`].
    waits_in: AtomicU64,
    /// When its last turn ended, on the monotonic clock.
    left: AtomicU64,
    /// [`Attention`]. What concerns signals changes under the lock of its process's threads only.
    attention: AtomicU32,
    /// Of the task that runs it, once it has waited.
    waker: Mutex<Option<Waker>>,
}

/// The CPU time of a thread.
#[derive(Clone, Copy, Debug, Default)]
struct CpuTime {
    /// Nanoseconds before the current turn.
    used: u64,
    /// Since when it has been on a CPU, on the monotonic clock.
    running_since: Option<u64>,
}

/// No CPU has that number.
const NOWHERE: u32 = u32::MAX;
/// No system call has that number.
const NONE: u64 = u64::MAX;

/// A turn on a CPU: while one exists, the thread has it.
pub(crate) struct CpuTurn<'a>(&'a ThreadState);

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
            affinity: AtomicU64::new(affinity),
            restart: Mutex::new(None),
            waits_in: AtomicU64::new(NONE),
            left: AtomicU64::new(0),
            time: Mutex::default(),
            cpu: AtomicU32::new(NOWHERE),
            turns: AtomicU64::new(0),
            slice_end: AtomicU64::new(0),
            attention: AtomicU32::new(0),
            waker: Mutex::new(None),
        }
    }

    /// What it has to see to.
    #[inline]
    pub(crate) fn attention(&self) -> Attention {
        Attention::from_bits_truncate(self.attention.load(Ordering::Acquire))
    }

    /// Has it see to something, wherever it is.
    pub(super) fn notify(&self, what: Attention) {
        self.attention.fetch_or(what.bits(), Ordering::AcqRel);
        // Woken by reference: a waker that goes may be the last to hold the task.
        if let Some(waker) = &*self.waker.lock() {
            waker.wake_by_ref();
        }
        self.interrupt();
    }

    /// Notes whether there is something that it has to see to; it notices by itself.
    pub(super) fn set_attention(&self, what: Attention, is_needed: bool) {
        match is_needed {
            true => self.attention.fetch_or(what.bits(), Ordering::AcqRel),
            false => self.attention.fetch_and(!what.bits(), Ordering::AcqRel),
        };
    }

    /// Has `waker` woken when there is something that it has to see to. Whoever waits looks at
    /// [`attention`](Self::attention) afterwards.
    pub(crate) fn register(&self, waker: &Waker) {
        let mut known = self.waker.lock();
        if !known.as_ref().is_some_and(|known| known.will_wake(waker)) {
            let before = known.replace(waker.clone());
            drop(known);
            drop(before);
        }
    }

    /// It has ended: nobody need wake it any more.
    pub(super) fn forget_waker(&self) {
        let waker = self.waker.lock().take();
        drop(waker);
    }

    /// The thread gets a CPU, and a slice of its time.
    pub(crate) fn begin_turn(&self) -> CpuTurn<'_> {
        let now = clock::monotonic();
        self.time.lock().running_since = Some(now);
        self.turns.fetch_add(1, Ordering::Relaxed);
        let slice = Slice::starting(now);
        self.slice_end.store(slice.end(), Ordering::Relaxed);
        self.cpu.store(machine::current_cpu(), Ordering::Relaxed);
        // Either the thread sees what others want of it, or they see where it is.
        fence(Ordering::SeqCst);
        CpuTurn(self)
    }

    /// Has the thread look what has changed, that it ends or may not stay on its CPU, before it
    /// goes on with its program.
    pub fn interrupt(&self) {
        fence(Ordering::SeqCst);
        let cpu = self.cpu.load(Ordering::Relaxed);
        if cpu != NOWHERE && cpu != machine::current_cpu() {
            machine::kick(cpu);
        }
    }

    /// Whether it may be on the CPU that it is on.
    #[inline]
    pub(crate) fn may_stay(&self) -> bool {
        let allowed = self.affinity.load(Ordering::Relaxed);
        let cpu = machine::current_cpu();
        // A set holds 64 CPUs; others are nobody's to choose.
        cpu >= u64::BITS || allowed >> cpu & 1 != 0
    }

    /// The number of the current turn, from 1, and its time slice.
    #[inline]
    pub(crate) fn turn(&self) -> (u64, Slice) {
        let end = self.slice_end.load(Ordering::Relaxed);
        (self.turns.load(Ordering::Relaxed), Slice::ending(end))
    }

    /// Notes the number of the system call that it may wait in.
    pub(crate) fn waits_in(&self, number: Option<u64>) {
        self.waits_in
            .store(number.unwrap_or(NONE), Ordering::Relaxed);
    }

    /// Whether it waits in a system call.
    pub fn is_waiting(&self) -> bool {
        self.waits_in.load(Ordering::Relaxed) != NONE && self.cpu.load(Ordering::Relaxed) == NOWHERE
    }

    /// Nanoseconds of CPU time that it has used.
    pub fn cpu_time(&self) -> u64 {
        let time = *self.time.lock();
        time.at(clock::monotonic())
    }
}

impl Scheduled for ThreadState {
    fn affinity(&self) -> u64 {
        self.affinity.load(Ordering::Relaxed)
    }

    fn describe(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "thread {}", self.tid)?;
        if let Some(name) = self.name.try_lock() {
            let length = name.iter().position(|byte| *byte == 0);
            let name = &name[..length.unwrap_or(name.len())];
            write!(out, " ({})", name.escape_ascii())?;
        }
        match self.waits_in.load(Ordering::Relaxed) {
            NONE => write!(out, " in its program"),
            number => match name(number) {
                Some(name) => write!(out, " in {name}"),
                None => write!(out, " in system call {number}"),
            },
        }?;
        if self.cpu.load(Ordering::Relaxed) == NOWHERE {
            let left = clock::monotonic().saturating_sub(self.left.load(Ordering::Relaxed));
            let milliseconds = left / 1_000_000;
            write!(out, ", off the CPU for {milliseconds} ms")?;
        }
        Ok(())
    }
}

impl CpuTime {
    fn at(&self, now: u64) -> u64 {
        let turn = self
            .running_since
            .map_or(0, |since| now.saturating_sub(since));
        self.used + turn
    }
}

impl Drop for CpuTurn<'_> {
    fn drop(&mut self) {
        let now = clock::monotonic();
        self.0.left.store(now, Ordering::Relaxed);
        let mut time = self.0.time.lock();
        *time = CpuTime {
            used: time.at(now),
            running_since: None,
        };
        self.0.cpu.store(NOWHERE, Ordering::Relaxed);
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
