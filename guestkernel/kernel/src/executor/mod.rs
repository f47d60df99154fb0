//! The async executor: what is ready to run, what waits for a device or a time.
//!
//! A [`Runnable`] is anything that can be queued: a spawned future, or an io_uring request that
//! polls its operation in place. The loop in [`run`] polls devices between tasks; it halts the
//! CPU only when nothing is ready and polling has found nothing for a while.

mod cpus;
mod devices;
mod idle;
mod program;
mod queue;
mod registry;
mod task;
mod task_state;
mod timer;

pub use devices::{Device, Urgent, add_device, poll_devices};
pub use program::{Slice, prepare_program};
pub use registry::{Listed, Listing, for_each_listed, list, report};
pub use task::{Scheduled, block_on, spawn, spawn_thread, yield_now};
pub use timer::{Sleep, sleep_until};

use alloc::sync::Arc;
use queue::Queue;

/// Something that makes progress when it is run, and is queued again when it can make more.
pub trait Runnable: Send + Sync {
    /// Makes progress.
    fn run(self: Arc<Self>);
}

/// CPUs whose threads are told apart.
const MAX_CPUS: usize = 64;

/// Tasks of the kernel and rings: each runs for a moment.
static WORK: Queue = Queue::new();
/// Threads that wait for a CPU to run their programs on, whichever it is.
static THREADS: Queue = Queue::new();
/// Threads that wait for one CPU, by its number.
static PINNED: [Queue; MAX_CPUS] = [const { Queue::new() }; MAX_CPUS];

/// Queues `runnable`; the caller sees to it that it is not queued twice.
pub fn schedule(runnable: Arc<dyn Runnable>) {
    WORK.push(runnable);
    cpus::notify_one();
}

/// Queues a thread that may run on the CPUs of the set `allowed`: CPU N is bit N.
fn schedule_thread(runnable: Arc<dyn Runnable>, allowed: u64) {
    let all = all_cpus();
    if allowed & all == all {
        THREADS.push(runnable);
        cpus::notify_one();
        return;
    }
    let number = cpus::choose(allowed & all);
    pinned(number).push(runnable);
    cpus::notify(number);
}

/// The threads that wait for that CPU alone.
fn pinned(number: u32) -> &'static Queue {
    &PINNED[number as usize % MAX_CPUS]
}

/// The CPUs that run, as a set.
pub fn all_cpus() -> u64 {
    u64::MAX >> (64 - machine::cpu_count().clamp(1, 64))
}

/// Whether the kernel has something to do, which a thread does before it enters its program.
#[inline]
pub fn has_work() -> bool {
    !WORK.is_empty()
}

/// Whether threads wait for this CPU.
#[inline]
pub fn has_waiting_threads() -> bool {
    !THREADS.is_empty() || !pinned(machine::current_cpu()).is_empty()
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
    if machine::interrupt::take_report_request() {
        registry::print();
    }
    poll_devices() | timer::fire() | run_work()
}

/// As [`poll`], then runs one thread.
fn step() -> bool {
    machine::progress();
    let progress = poll();
    match pinned(machine::current_cpu())
        .pop()
        .or_else(|| THREADS.pop())
    {
        Some(thread) => {
            cpus::is_busy();
            thread.run();
            if machine::cpu_count() > 1 {
                // It may go on elsewhere.
                machine::suspend_program();
            }
            true
        }
        None => progress,
    }
}

/// Starts CPUs until there are `wanted`, as far as the machine has them; all run tasks for ever.
pub fn start_cpus(wanted: u32) {
    let started = machine::start_cpus(wanted, run);
    if started < wanted {
        log::warn!("{started} of {wanted} CPUs have started");
    }
}

/// Runs tasks for ever.
pub fn run() -> ! {
    loop {
        if !step() {
            idle::wait();
        }
    }
}
