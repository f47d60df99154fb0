//! `IORING_SETUP_SQPOLL`: a task of the kernel that submits what the program puts into the ring, so that
//! the program need not enter the kernel.
//!
//! It is scheduled as threads are: it has a CPU of its own where one is idle, and takes turns with the
//! program otherwise. After a time without work it says so in the ring (`IORING_SQ_NEED_WAKEUP`) and
//! waits to be woken.

use super::opcode::Submitter;
use super::ready::Attention;
use super::ring::Ring;
use crate::executor::{self, Batch, Scheduled, WaitQueue, yield_now};
use crate::operation::Actor;
use alloc::boxed::Box;
use alloc::sync::{Arc, Weak};
use core::fmt;
use core::future::poll_fn;
use core::sync::atomic::{AtomicBool, Ordering, fence};
use core::task::Poll;
use linux_raw_sys::io_uring::IORING_SQ_NEED_WAKEUP;
use machine::clock;

/// What a ring and the task that polls it both know.
pub(super) struct Poller {
    wakers: WaitQueue,
    is_woken: AtomicBool,
    /// The ring is closed.
    is_over: AtomicBool,
    /// Nanoseconds without work after which it waits.
    idle: u64,
    /// The CPUs that it runs on, CPU N as bit N.
    affinity: u64,
    /// For whom it submits.
    submitter: Submitter,
    owner: u32,
}

impl Scheduled for Poller {
    fn affinity(&self) -> u64 {
        self.affinity
    }

    fn describe(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "io_uring poller of process {}", self.owner)
    }
}

impl Poller {
    /// One that submits for `actor`, waits after `idle` nanoseconds, and runs on these CPUs.
    pub(super) fn new(actor: Actor<'_>, idle: u64, affinity: u64) -> Arc<Self> {
        Arc::new(Self {
            wakers: WaitQueue::new(),
            is_woken: AtomicBool::new(false),
            is_over: AtomicBool::new(false),
            idle,
            affinity,
            submitter: Submitter::new(actor),
            owner: actor.process.pid,
        })
    }

    /// Starts the task, for `ring`.
    pub(super) fn start(self: &Arc<Self>, ring: &Arc<Ring>) {
        let run = run(self.clone(), Arc::downgrade(ring));
        executor::spawn_thread(self.clone(), Box::pin(run));
    }

    /// Has it look at the ring.
    pub(super) fn wake(&self) {
        self.is_woken.store(true, Ordering::Release);
        self.wakers.wake_all();
    }

    /// The ring is closed.
    pub(super) fn end(&self) {
        self.is_over.store(true, Ordering::Release);
        self.wakers.wake_all();
    }

    /// Waits to be woken.
    async fn sleep(&self) {
        poll_fn(|context| {
            self.wakers.register(context.waker());
            let is_awake =
                self.is_woken.load(Ordering::Acquire) || self.is_over.load(Ordering::Acquire);
            match is_awake {
                true => Poll::Ready(()),
                false => Poll::Pending,
            }
        })
        .await;
    }
}

/// Looks at the ring for as long as it exists.
async fn run(poller: Arc<Poller>, ring: Weak<Ring>) {
    let mut worked_at = clock::monotonic();
    while !poller.is_over.load(Ordering::Acquire) {
        let Some(open) = ring.upgrade() else { return };
        if open.serve(&poller) {
            worked_at = clock::monotonic();
        } else if clock::monotonic().saturating_sub(worked_at) >= poller.idle {
            poller.is_woken.store(false, Ordering::Release);
            let memory = open.memory();
            memory.set_sq_flag(IORING_SQ_NEED_WAKEUP, true);
            // Either the program sees the flag after it has added something, or this sees that.
            fence(Ordering::SeqCst);
            if !open.serve(&poller) {
                drop(open);
                poller.sleep().await;
            }
            memory.set_sq_flag(IORING_SQ_NEED_WAKEUP, false);
            worked_at = clock::monotonic();
            continue;
        }
        drop(open);
        yield_now().await;
    }
}

impl Ring {
    /// Submits what there is, and does what has become ready; false if that is nothing.
    fn serve(&self, poller: &Poller) -> bool {
        if self.is_disabled() {
            return false;
        }
        if self.setup().polls_devices() {
            executor::poll_devices();
        }
        let _attention = Attention::new(self.ready());
        // Who has the ring now is at work itself, and this looks again.
        let Some(mut state) = self.try_lock() else {
            return true;
        };
        let pending = state.memory.sq_pending(state.sq_head);
        if pending > 0 {
            let batch = (pending > 1).then(Batch::new);
            let submitted = poller
                .submitter
                .with(|actor| state.submit(pending, actor).is_ok());
            drop(batch);
            if submitted != Some(true) {
                return false;
            }
        }
        let has_work = state.has_work();
        if has_work {
            state.run();
        }
        drop(state);
        if pending > 0 {
            // There is room for more now.
            self.ready().wake_waiters();
        }
        pending > 0 || has_work
    }
}
