//! Futures as tasks.

use super::registry::{self, Listed, Listing};
use super::scheduler::CpuChoice;
use super::task_state::TaskState;
use super::{Runnable, SCHEDULER, schedule, schedule_thread, step, this_cpu};
use alloc::boxed::Box;
use alloc::sync::{Arc, Weak};
use alloc::task::Wake;
use core::fmt;
use core::future::{Future, poll_fn};
use core::pin::{Pin, pin};
use core::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use core::task::{Context, Poll, Waker};
use machine::lock::Mutex;

/// What the executor has to know of a thread.
pub trait Scheduled: Send + Sync {
    /// The CPUs that it may use, CPU N as bit N.
    fn affinity(&self) -> u64;

    /// Says which thread it is and what it does, as [`Listed::describe`].
    fn describe(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result;
}

/// Where a task is queued.
enum Kind {
    /// With the kernel's own work. It has a name.
    Kernel(&'static str),
    /// With threads.
    Thread(Arc<dyn Scheduled>),
}

struct Task {
    state: TaskState,
    kind: Kind,
    /// The CPU that it ran on last, or was made on.
    cpu: AtomicU32,
    _listing: Listing,
    /// `None` once the future is done. Only who runs the task takes the lock.
    future: Mutex<Option<TaskFuture>>,
}

impl Task {
    /// Queues it; `goes_on` if this CPU has just run it.
    fn queue(self: Arc<Self>, goes_on: bool) {
        match &self.kind {
            Kind::Kernel(_) => schedule(self, this_cpu()),
            Kind::Thread(thread) => {
                let choice = CpuChoice {
                    allowed: thread.affinity(),
                    last: self.cpu.load(Ordering::Relaxed),
                    goes_on,
                };
                schedule_thread(self, choice);
            }
        }
    }
}

impl Listed for Task {
    fn describe(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.kind {
            Kind::Kernel(name) => write!(out, "task {name}")?,
            Kind::Thread(thread) => thread.describe(out)?,
        }
        let cpu = self.cpu.load(Ordering::Relaxed);
        write!(out, ": {}, CPU {cpu}", self.state.name())
    }
}

impl Wake for Task {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        if self.state.wake() {
            self.clone().queue(false);
        }
    }
}

impl Runnable for Task {
    fn run(self: Arc<Self>) {
        self.state.start();
        self.cpu.store(this_cpu(), Ordering::Relaxed);
        let waker = Waker::from(self.clone());
        let mut slot = self.future.lock();
        let Some(future) = slot.as_mut() else {
            return;
        };
        let is_done = future
            .as_mut()
            .poll(&mut Context::from_waker(&waker))
            .is_ready();
        if is_done {
            *slot = None;
            self.state.end();
            return;
        }
        drop(slot);
        if matches!(self.kind, Kind::Thread(_)) && machine::cpu_count() > 1 {
            // It may go on elsewhere, as soon as it does not run here any more.
            machine::suspend_program();
        }
        if self.state.suspend() {
            self.queue(true);
        }
    }
}

/// A task's future.
type TaskFuture = Pin<Box<dyn Future<Output = ()> + Send>>;

fn start(future: TaskFuture, kind: Kind) {
    let task = Arc::new_cyclic(|task: &Weak<Task>| Task {
        state: TaskState::queued(),
        kind,
        cpu: AtomicU32::new(this_cpu()),
        _listing: registry::list(task.clone()),
        future: Mutex::new(Some(future)),
    });
    task.queue(false);
}

/// Runs `future` as a task of its own, one of the kernel: it never runs for long, and goes before
/// programs. Reports call it `name`.
pub fn spawn(name: &'static str, future: impl Future<Output = ()> + Send + 'static) {
    start(Box::pin(future), Kind::Kernel(name));
}

/// Runs `future`, which runs the program of `thread`, as a task of its own. It gives way to others
/// of its kind when its time slice is over.
pub fn spawn_thread(thread: Arc<dyn Scheduled>, future: TaskFuture) {
    start(future, Kind::Thread(thread));
}

/// Lets everything else that is ready run first.
pub async fn yield_now() {
    let mut has_yielded = false;
    poll_fn(|context| {
        if has_yielded {
            return Poll::Ready(());
        }
        has_yielded = true;
        context.waker().wake_by_ref();
        Poll::Pending
    })
    .await;
}

/// Runs the executor until `future` is done: for boot code and tests, which are no task.
pub fn block_on<T>(future: impl Future<Output = T>) -> T {
    struct Flag {
        is_set: AtomicBool,
        /// The CPU that waits.
        cpu: u32,
    }
    impl Wake for Flag {
        fn wake(self: Arc<Self>) {
            self.is_set.store(true, Ordering::Release);
            if this_cpu() != self.cpu && SCHEDULER.must_interrupt(self.cpu) {
                machine::kick(self.cpu);
            }
        }
    }
    let flag = Arc::new(Flag {
        is_set: AtomicBool::new(true),
        cpu: this_cpu(),
    });
    let waker = Waker::from(flag.clone());
    let mut future = pin!(future);
    loop {
        if flag.is_set.swap(false, Ordering::AcqRel)
            && let Poll::Ready(value) = future.as_mut().poll(&mut Context::from_waker(&waker))
        {
            return value;
        }
        if !step() {
            super::idle::wait(|| flag.is_set.load(Ordering::Acquire));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::vec::Vec;

    #[test]
    fn tasks_take_turns_when_they_yield() {
        static LOG: Mutex<Vec<u32>> = Mutex::new(Vec::new());
        for id in 0..2 {
            spawn("test", async move {
                for _ in 0..2 {
                    LOG.lock().push(id);
                    yield_now().await;
                }
            });
        }
        block_on(async {
            while LOG.lock().len() < 4 {
                yield_now().await;
            }
        });
        let mut log = LOG.lock().clone();
        log.truncate(2);
        log.sort_unstable();
        assert_eq!(log, [0, 1], "one task ran twice before the other ran");
    }
}
