//! The async executor: what is ready to run, what waits for a device or a time.
//!
//! A [`Runnable`] is anything that can be queued: a spawned future, or an io_uring request that
//! polls its operation in place. The loop in [`run`] polls devices between tasks; it halts the
//! CPU only when nothing is ready and polling has found nothing for a while.

mod answer;
mod batch;
mod deadline;
mod devices;
mod idle;
mod program;
mod queue;
mod registry;
mod scheduler;
mod stint;
mod task;
mod task_state;
mod timer;
mod timer_heap;
mod turn;
mod wait_queue;

pub use answer::{Answer, BoxFuture};
pub use batch::{Batch, is_batching};
pub use deadline::{Deadline, until_deadline};
pub use devices::{Device, Urgent, add_device, kick_devices, note_request, poll_devices};
pub use program::{Slice, prepare_program};
pub use registry::{Listed, Listing, for_each_listed, list, report};
pub use stint::Stint;
pub use task::{Scheduled, block_on, spawn, spawn_thread, yield_now};
pub use timer::{Sleep, sleep_until};
pub use turn::{Taken, Turn};
pub use wait_queue::WaitQueue;

use crate::globals::global;
use alloc::sync::Arc;
use core::future::poll_fn;
use core::task::Poll;
use machine::MAX_CPUS;
use scheduler::{CpuChoice, CpuSet, Scheduler};

/// Something that makes progress when it is run, and is queued again when it can make more.
pub trait Runnable: Send + Sync {
    /// Makes progress.
    fn run(self: Arc<Self>);
}

global! {
    static SCHEDULER: Scheduler<Arc<dyn Runnable>, MAX_CPUS> = Scheduler::new();
}

global! {
    /// Who gives free memory back to the host.
    static FREED: WaitQueue = WaitQueue::new();
}

/// Waits until there is free memory to give back to the host ([`machine::idle_blocks`]).
pub async fn memory_freed() {
    poll_fn(|context| {
        FREED.register(context.waker());
        match machine::has_free_blocks() {
            true => Poll::Ready(()),
            false => Poll::Pending,
        }
    })
    .await;
}

/// The CPU that executes this.
#[inline]
fn this_cpu() -> u32 {
    machine::current_cpu()
}

fn interrupt(cpus: CpuSet) {
    for number in scheduler::members(cpus) {
        machine::kick(number);
    }
}

/// Queues work of the kernel; the caller sees to it that it is not queued twice. It runs on this
/// CPU before that runs a program, or on CPU `near` if that is on the watch for work.
pub fn schedule(runnable: Arc<dyn Runnable>, near: u32) {
    interrupt(SCHEDULER.add_work(this_cpu(), near, runnable));
}

fn schedule_thread(runnable: Arc<dyn Runnable>, choice: CpuChoice) {
    interrupt(SCHEDULER.add_thread(this_cpu(), runnable, choice));
}

/// The CPUs that run, as a set.
pub fn all_cpus() -> u64 {
    SCHEDULER.all()
}

/// Whether the kernel has something to do, which a thread does before it enters its program.
#[inline]
pub fn has_work() -> bool {
    SCHEDULER.work(this_cpu()) > 0
}

/// Whether threads wait that this CPU may run.
#[inline]
pub fn has_waiting_threads() -> bool {
    let this = this_cpu();
    SCHEDULER.has_threads(this) || SCHEDULER.has_others(this)
}

/// Whether anything waits to be run here.
#[inline]
pub fn has_ready() -> bool {
    has_work() || has_waiting_threads()
}

/// Runs what the kernel has to do here, but not what that leads to in turn, so that it ends; false
/// if there was nothing.
pub fn run_work() -> bool {
    let this = this_cpu();
    let mut left = SCHEDULER.work(this);
    let has_any = left > 0;
    while left > 0
        && let Some(runnable) = SCHEDULER.take_work(this)
    {
        runnable.run();
        left -= 1;
    }
    has_any
}

/// Runs what another CPU has no time for; false if there was nothing.
fn steal_work() -> bool {
    let work = SCHEDULER.steal_work(this_cpu());
    work.map(Runnable::run).is_some()
}

/// Polls devices and timers once and runs what the kernel then has to do; false if there was
/// nothing. A thread does that when it was interrupted.
pub fn poll() -> bool {
    if machine::interrupt::take_report_request() {
        registry::print();
    }
    if machine::take_free_blocks() {
        FREED.wake_all();
    }
    poll_devices() | timer::fire() | run_work()
}

/// As [`poll`], then runs one thread.
fn step() -> bool {
    machine::progress();
    let progress = poll();
    let this = this_cpu();
    match SCHEDULER.take_thread(this) {
        Some(thread) => {
            SCHEDULER.note_busy(this);
            thread.run();
            true
        }
        None => progress,
    }
}

/// Starts CPUs until there are `wanted`, as far as the machine has them; all run tasks for ever.
pub fn start_cpus(wanted: u32) {
    let started = machine::start_cpus(wanted, run);
    SCHEDULER.set_count(started);
    if started < wanted {
        log::warn!("{started} of {wanted} CPUs have started");
    }
}

/// Runs tasks for ever.
pub fn run() -> ! {
    loop {
        if !step() {
            idle::wait(|| false);
        }
    }
}
