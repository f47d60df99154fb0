//! Requests that were woken, and who is told that there are some.
//!
//! This is all that a waker touches, so that anything may be woken while the ring is locked. A
//! ring that defers work tells the task that waits in `io_uring_enter`; any other is run by the
//! executor. Neither is needed while a task is inside `io_uring_enter` and looks for itself.

use super::memory::RingMemory;
use super::ring::Ring;
use super::setup::Setup;
use crate::executor;
use crate::executor::WaitQueue;
use alloc::sync::{Arc, Weak};
use alloc::task::Wake;
use alloc::vec::Vec;
use core::sync::atomic::{AtomicBool, AtomicU32, Ordering, fence};
use core::task::Waker;
use linux_raw_sys::io_uring::IORING_SQ_TASKRUN;
use machine::lock::Mutex;

/// The woken requests of a ring.
pub(super) struct ReadyQueue {
    /// The slots of the requests, each at most once.
    slots: Mutex<Vec<u32>>,
    /// Whether there are any, to be looked at without the lock.
    has_slots: AtomicBool,
    /// Whoever saw to the ring has left something for later, so that others had their turn.
    has_rest: AtomicBool,
    /// Requests have their turn that only the issuer may start, in a ring that defers work.
    has_turn: AtomicBool,
    /// Tasks inside `io_uring_enter` that will look at `slots` before they leave or wait.
    attendants: AtomicU32,
    /// The CPU where a task was last inside `io_uring_enter`, which has the ring in its cache.
    home: AtomicU32,
    /// The ring is queued in the executor.
    is_scheduled: AtomicBool,
    /// Tasks that wait for CQEs.
    waiters: WaitQueue,
    has_waiters: AtomicBool,
    ring: Weak<Ring>,
    memory: Arc<RingMemory>,
    setup: Setup,
}

impl ReadyQueue {
    pub(super) fn new(ring: Weak<Ring>, memory: Arc<RingMemory>, setup: Setup) -> Arc<Self> {
        Arc::new(Self {
            slots: Mutex::new(Vec::new()),
            has_slots: AtomicBool::new(false),
            has_rest: AtomicBool::new(false),
            has_turn: AtomicBool::new(false),
            attendants: AtomicU32::new(0),
            home: AtomicU32::new(machine::current_cpu()),
            is_scheduled: AtomicBool::new(false),
            waiters: WaitQueue::new(),
            has_waiters: AtomicBool::new(false),
            ring,
            memory,
            setup,
        })
    }

    /// Whether nothing was woken, or left for later.
    #[inline]
    pub(super) fn is_empty(&self) -> bool {
        !self.has_slots.load(Ordering::Acquire) && !self.has_rest.load(Ordering::Relaxed)
    }

    /// Notes whether something is left for later. Under the lock of the ring.
    #[inline]
    pub(super) fn leave_rest(&self, has_rest: bool) {
        if self.has_rest.load(Ordering::Relaxed) != has_rest {
            self.has_rest.store(has_rest, Ordering::Relaxed);
        }
    }

    /// Takes back slots that were taken and not looked at: they come first the next time.
    #[cold]
    pub(super) fn put_back(&self, rest: &[u32]) {
        let mut slots = self.slots.lock();
        slots.splice(0..0, rest.iter().copied());
        self.has_slots.store(true, Ordering::Release);
    }

    /// Notes whether requests have their turn that only the issuer may start.
    #[inline]
    pub(super) fn defer_turn(&self, has_turn: bool) {
        self.has_turn.store(has_turn, Ordering::Relaxed);
    }

    /// Whether asking for events would find something to do.
    pub(super) fn has_deferred(&self) -> bool {
        !self.is_empty() || self.has_turn.load(Ordering::Relaxed)
    }

    /// Swaps the woken slots for `taken`, which is empty, so that both keep their allocations.
    #[inline]
    pub(super) fn take(&self, taken: &mut Vec<u32>) {
        let mut slots = self.slots.lock();
        core::mem::swap(&mut *slots, taken);
        self.has_slots.store(false, Ordering::Relaxed);
    }

    fn push(&self, slot: u32) {
        let was_empty = {
            let mut slots = self.slots.lock();
            slots.push(slot);
            !self.has_slots.swap(true, Ordering::Release)
        };
        if was_empty {
            self.announce();
        }
    }

    /// Has somebody see to the work of the ring.
    pub(super) fn announce(&self) {
        if self.setup.flags_work() {
            self.show_work(true);
        }
        // Pairs with the fence in `Attention::drop`.
        fence(Ordering::SeqCst);
        if self.attendants.load(Ordering::Relaxed) > 0 {
            return;
        }
        if self.setup.defers_work() {
            self.wake_waiters();
        } else if !self.is_scheduled.swap(true, Ordering::AcqRel)
            && let Some(ring) = self.ring.upgrade()
        {
            executor::schedule(ring, self.home.load(Ordering::Relaxed));
        }
    }

    /// The executor runs the ring: it may be queued again.
    pub(super) fn unschedule(&self) {
        self.is_scheduled.store(false, Ordering::Release);
    }

    /// Shows the program whether there is deferred work.
    pub(super) fn show_work(&self, value: bool) {
        self.memory.set_sq_flag(IORING_SQ_TASKRUN, value);
    }

    /// Adds a task that waits for CQEs, or for work if the ring defers it. It looks once more after
    /// that.
    pub(super) fn add_waiter(&self, waker: &Waker) {
        self.waiters.register(waker);
        self.has_waiters.store(true, Ordering::SeqCst);
    }

    /// Wakes all tasks that wait.
    #[inline]
    pub(super) fn wake_waiters(&self) {
        if self.has_waiters.load(Ordering::SeqCst) {
            self.has_waiters.store(false, Ordering::SeqCst);
            self.waiters.wake_all();
        }
    }
}

/// Held by a task inside `io_uring_enter` that looks for woken requests itself.
pub(super) struct Attention<'a>(&'a ReadyQueue);

impl<'a> Attention<'a> {
    pub(super) fn new(queue: &'a ReadyQueue) -> Self {
        queue.attendants.fetch_add(1, Ordering::Relaxed);
        let cpu = machine::current_cpu();
        if queue.home.load(Ordering::Relaxed) != cpu {
            queue.home.store(cpu, Ordering::Relaxed);
        }
        Self(queue)
    }
}

impl Drop for Attention<'_> {
    fn drop(&mut self) {
        self.0.attendants.fetch_sub(1, Ordering::Relaxed);
        // Either this sees what was woken meanwhile, or the waker sees that nobody attends.
        fence(Ordering::SeqCst);
        if !self.0.is_empty() {
            self.0.announce();
        }
    }
}

/// What wakes the request in a slot. A wake that comes late, when the slot holds another request
/// or none, makes that be polled once for nothing.
pub(super) struct SlotWaker {
    queue: Arc<ReadyQueue>,
    slot: u32,
    is_woken: AtomicBool,
}

impl SlotWaker {
    pub(super) fn new(queue: Arc<ReadyQueue>, slot: u32) -> Arc<Self> {
        Arc::new(Self {
            queue,
            slot,
            is_woken: AtomicBool::new(false),
        })
    }

    /// Whether it was woken since it was reset.
    pub(super) fn is_woken(&self) -> bool {
        self.is_woken.load(Ordering::Relaxed)
    }

    /// A wake from now on counts anew.
    #[inline]
    pub(super) fn reset(&self) {
        self.is_woken.store(false, Ordering::Release);
    }
}

impl Wake for SlotWaker {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        if !self.is_woken.swap(true, Ordering::AcqRel) {
            self.queue.push(self.slot);
        }
    }
}
