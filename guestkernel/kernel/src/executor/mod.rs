//! The async executor: what is ready to run, what waits for a device or a time.
//!
//! A [`Runnable`] is anything that can be queued: a spawned future, or an io_uring request that
//! polls its operation in place. The loop in [`run`] polls devices between tasks; it halts the
//! CPU only when nothing is ready and polling has found nothing for a while.

mod devices;
mod idle;
mod task;
mod timer;

pub use devices::{Device, Urgent, add_device, poll_devices, prepare_program};
pub use task::{block_on, spawn, yield_now};
pub use timer::{Sleep, sleep_until};

use alloc::collections::VecDeque;
use alloc::sync::Arc;
use core::sync::atomic::{AtomicUsize, Ordering};
use spin::Mutex;

/// Something that makes progress when it is run, and is queued again when it can make more.
pub trait Runnable: Send + Sync {
    /// Makes progress.
    fn run(self: Arc<Self>);
}

static READY: Mutex<VecDeque<Arc<dyn Runnable>>> = Mutex::new(VecDeque::new());
static READY_COUNT: AtomicUsize = AtomicUsize::new(0);

/// Queues `runnable`; the caller sees to it that it is not queued twice.
pub fn schedule(runnable: Arc<dyn Runnable>) {
    READY.lock().push_back(runnable);
    READY_COUNT.fetch_add(1, Ordering::Relaxed);
}

/// Whether something waits to be run: a thread that is about to enter its program yields then.
#[inline]
pub fn has_ready() -> bool {
    READY_COUNT.load(Ordering::Relaxed) > 0
}

/// Runs what is ready first; false if nothing was.
fn run_one() -> bool {
    let Some(runnable) = READY.lock().pop_front() else {
        return false;
    };
    READY_COUNT.fetch_sub(1, Ordering::Relaxed);
    runnable.run();
    true
}

/// Polls devices and timers once, then runs one task; false if there was nothing to do.
fn step() -> bool {
    let progress = poll_devices() | timer::fire();
    run_one() | progress
}

/// Runs tasks for ever.
pub fn run() -> ! {
    loop {
        if !step() {
            idle::wait();
        }
    }
}
