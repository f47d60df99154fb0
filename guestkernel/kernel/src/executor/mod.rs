//! The async executor: what is ready to run, what waits for a device or a time.
//!
//! A [`Runnable`] is anything that can be queued: a spawned future, or an io_uring request that
//! polls its operation in place. The loop in [`run`] polls devices between tasks; it halts the
//! CPU only when nothing is ready and polling has found nothing for a while.

mod devices;
mod program;
mod queue;
mod task;
mod task_state;
mod timer;

pub use devices::{Device, Urgent, add_device, poll_devices};
pub use program::{Slice, prepare_program};
pub use task::{block_on, spawn, spawn_thread, yield_now};
pub use timer::{Sleep, sleep_until};

use alloc::sync::Arc;
use queue::Queue;

/// Something that makes progress when it is run, and is queued again when it can make more.
pub trait Runnable: Send + Sync {
    /// Makes progress.
    fn run(self: Arc<Self>);
}

/// Tasks of the kernel and rings: each runs for a moment.
static WORK: Queue = Queue::new();
/// Threads that wait for a CPU to run their programs on.
static THREADS: Queue = Queue::new();

/// Nanoseconds of polling without success before the CPU is halted. Halting and waking up costs
/// a few traps and an interrupt, some 50 µs where CPL 0 is emulated.
const POLL_BEFORE_HALT: u64 = 50_000;

/// Queues `runnable`; the caller sees to it that it is not queued twice.
pub fn schedule(runnable: Arc<dyn Runnable>) {
    WORK.push(runnable);
}

fn schedule_thread(runnable: Arc<dyn Runnable>) {
    THREADS.push(runnable);
}

/// Whether the kernel has something to do, which a thread does before it enters its program.
#[inline]
pub fn has_work() -> bool {
    !WORK.is_empty()
}

/// Whether threads wait for a CPU.
#[inline]
pub fn has_waiting_threads() -> bool {
    !THREADS.is_empty()
}

/// Whether anything waits to be run.
#[inline]
pub fn has_ready() -> bool {
    has_work() || has_waiting_threads()
}

/// Runs what the kernel has to do, but not what that leads to in turn, so that it ends; false if
/// there was nothing.
pub fn run_work() -> bool {
    let mut left = WORK.len();
    let has_any = left > 0;
    while left > 0
        && let Some(runnable) = WORK.pop()
    {
        runnable.run();
        left -= 1;
    }
    has_any
}

/// Polls devices and timers once and runs what the kernel then has to do; false if there was
/// nothing. A thread does that when it was interrupted.
pub fn poll() -> bool {
    poll_devices() | timer::fire() | run_work()
}

/// As [`poll`], then runs one thread.
fn step() -> bool {
    let progress = poll();
    match THREADS.pop() {
        Some(thread) => {
            thread.run();
            true
        }
        None => progress,
    }
}

/// Runs tasks for ever.
pub fn run() -> ! {
    loop {
        if !step() {
            idle();
        }
    }
}

/// Polls for a while, then waits for an interrupt.
fn idle() {
    if devices::in_flight() {
        let end = machine::clock::monotonic() + POLL_BEFORE_HALT;
        while machine::clock::monotonic() < end {
            for _ in 0..16 {
                if poll_devices() {
                    return;
                }
                core::hint::spin_loop();
            }
            if timer::fire() {
                return;
            }
        }
    }
    if devices::arm() {
        return;
    }
    machine::interrupt::wait(timer::next_deadline());
}
