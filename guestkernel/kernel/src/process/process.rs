//! A process: memory, files, identity, and how it ends.

use super::account::{Account, SignalCharge};
use super::credentials::Credentials;
use super::interval_timer::IntervalTimers;
use super::limits::{Limit, Limits};
use super::posix_timer::PosixTimers;
use super::signal::{Handlers, Signal, SignalSet};
use super::thread_group::ThreadGroup;
use super::thread_state::{Attention, ThreadState};
use crate::error::{Errno, Result};
use crate::executor::Urgent;
use crate::fs::{FdTable, FsContext, WaitQueue};
use crate::mm::{AddressSpace, PAGE};
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::future::{Future, poll_fn};
use core::pin::pin;
use core::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use core::task::Poll;
use linux_raw_sys::general as raw;
use machine::lock::Mutex;

/// How a process ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ExitStatus {
    /// It said so.
    Exited(u8),
    /// A signal ended it.
    Signaled(u8),
}

/// A process.
pub struct Process {
    /// Its number.
    pub pid: u32,
    /// Its memory.
    pub space: Arc<AddressSpace>,
    /// Its open files.
    pub files: Arc<FdTable>,
    /// Its place in the name space.
    pub fs: Arc<FsContext>,
    /// Its resource limits; [`set_limit`](Self::set_limit) changes them.
    pub limits: Mutex<Limits>,
    /// Who it is.
    pub credentials: Mutex<Credentials>,
    /// Its nice value, -20 to 19.
    pub nice: Mutex<i32>,
    /// Its alarm, and its timers of CPU time.
    pub interval_timers: IntervalTimers,
    /// The timers that it has made.
    pub timers: Mutex<PosixTimers>,
    /// Its threads and their signals.
    pub(super) group: Mutex<ThreadGroup>,
    exit: Mutex<Option<ExitStatus>>,
    is_ending: AtomicBool,
    /// What the first thread said when it ended: the process's status when all have ended.
    first_status: Mutex<ExitStatus>,
    next_tid: Mutex<u32>,
    /// Those who wait for the end.
    waiting_for_end: WaitQueue,
    /// Nanoseconds of CPU time that threads used which have ended.
    past_cpu_time: AtomicU64,
}

/// Numbers of threads are below this (`pid_max`).
const TID_MAX: u32 = 1 << 22;
/// Bytes of RAM that a thread needs, for a bound on their number: a thread takes some of the
/// kernel's memory, of which programs must not be able to use up all.
const RAM_PER_THREAD: u64 = 256 << 10;

/// How many threads there can be.
pub(super) fn threads_max() -> u64 {
    machine::memory_use().total as u64 * PAGE / RAM_PER_THREAD
}

impl Process {
    /// The first process.
    pub fn new(space: Arc<AddressSpace>, files: Arc<FdTable>, fs: Arc<FsContext>) -> Arc<Self> {
        const PID: u32 = 1;
        let process = Arc::new_cyclic(|me| Self {
            pid: PID,
            space,
            files,
            fs,
            limits: Mutex::new(Limits::new(threads_max())),
            credentials: Mutex::new(Credentials {
                process_group: PID,
                session: PID,
                ..Credentials::default()
            }),
            nice: Mutex::new(0),
            interval_timers: IntervalTimers::new(me),
            timers: Mutex::default(),
            group: Mutex::new(ThreadGroup::new(Arc::new(Handlers::default()))),
            exit: Mutex::new(None),
            is_ending: AtomicBool::new(false),
            first_status: Mutex::new(ExitStatus::Exited(0)),
            next_tid: Mutex::new(PID + 1),
            waiting_for_end: WaitQueue::new(),
            past_cpu_time: AtomicU64::new(0),
        });
        let weak = Arc::downgrade(&process);
        process.space.set_on_exhaustion(move || {
            if let Some(process) = weak.upgrade() {
                process.exit(ExitStatus::Signaled(Signal::SIGKILL.number()));
            }
        });
        process
    }

    /// Sets a resource limit, where it counts too.
    ///
    /// # Errors
    ///
    /// Those of [`Limits::set`].
    pub fn set_limit(&self, resource: u32, limit: Limit) -> Result<()> {
        self.limits.lock().set(resource, limit)?;
        match resource {
            raw::RLIMIT_AS => self.space.set_limit(limit.soft),
            raw::RLIMIT_NOFILE => self.files.set_limit(limit.soft as u32),
            _ => {}
        }
        Ok(())
    }

    /// Counts one more signal that waits, unless the user has too many.
    pub(super) fn charge_signal(&self) -> Option<SignalCharge> {
        let limit = self.limits.lock().soft(raw::RLIMIT_SIGPENDING);
        let user = self.credentials.lock().user.real;
        Account::of(user).charge_signal(limit)
    }

    /// Ends it, unless it ends already.
    pub fn exit(&self, status: ExitStatus) {
        self.exit.lock().get_or_insert(status);
        self.is_ending.store(true, Ordering::Release);
        let group = self.group.lock();
        for thread in group.threads() {
            thread.notify(Attention::END);
        }
        let is_gone = group.len() == 0;
        drop(group);
        if is_gone {
            self.waiting_for_end.wake_all();
        }
    }

    /// Whether its threads must stop.
    #[inline]
    pub fn is_ending(&self) -> bool {
        self.is_ending.load(Ordering::Relaxed)
    }

    /// How it ended; waits for that, and for all its threads to be gone.
    pub async fn ended(&self) -> ExitStatus {
        poll_fn(|context| {
            self.waiting_for_end.register(context.waker());
            let status = *self.exit.lock();
            match status {
                Some(status) if self.group.lock().len() == 0 => Poll::Ready(status),
                _ => Poll::Pending,
            }
        })
        .await
    }

    /// Makes a first thread, or one more that begins as `parent` is: with its name, the signals that
    /// it blocks, and the CPUs that it may use.
    ///
    /// # Errors
    ///
    /// `EAGAIN` if there are too many.
    pub(super) fn add_thread(&self, parent: Option<&ThreadState>) -> Result<Arc<ThreadState>> {
        let mut group = self.group.lock();
        if group.len() as u64 >= threads_max() {
            return Err(Errno::EAGAIN);
        }
        let (tid, blocked) = match parent {
            None => (self.pid, SignalSet::EMPTY),
            Some(parent) => (self.take_number(&group), group.blocked(parent.tid)),
        };
        let state = Arc::new(ThreadState::new(tid, parent));
        group.add(state.clone(), blocked);
        drop(group);
        if self.is_ending() {
            state.notify(Attention::END);
        }
        Ok(state)
    }

    fn take_number(&self, group: &ThreadGroup) -> u32 {
        let mut next = self.next_tid.lock();
        loop {
            let tid = *next;
            *next = if tid + 1 < TID_MAX { tid + 1 } else { 2 };
            if group.thread(tid).is_none() {
                return tid;
            }
        }
    }

    /// A thread has ended, with the status that the process gets if it was the first and nobody
    /// gives another. The process ends with its last thread.
    pub(super) fn remove_thread(&self, state: &ThreadState, status: u8) {
        state.forget_waker();
        if state.tid == self.pid {
            *self.first_status.lock() = ExitStatus::Exited(status);
        }
        let mut group = self.group.lock();
        self.past_cpu_time
            .fetch_add(state.cpu_time(), Ordering::Relaxed);
        group.remove(state.tid);
        let is_last = group.len() == 0;
        drop(group);
        if is_last {
            let timers = self.timers.lock().remove_all();
            timers.for_each(|timer| timer.set(None, 0));
            self.interval_timers.stop();
            let status = *self.first_status.lock();
            self.exit(status);
        }
    }

    /// The thread with the number `tid`, or, for 0, `own`.
    ///
    /// # Errors
    ///
    /// `ESRCH` if there is none.
    pub fn thread(&self, tid: i32, own: &Arc<ThreadState>) -> Result<Arc<ThreadState>> {
        let tid = u32::try_from(tid).map_err(|_| Errno::ESRCH)?;
        if tid == 0 || tid == own.tid {
            return Ok(own.clone());
        }
        self.member(tid)
    }

    /// The thread with the number `tid`.
    ///
    /// # Errors
    ///
    /// `ESRCH` if there is none.
    pub fn member(&self, tid: u32) -> Result<Arc<ThreadState>> {
        let group = self.group.lock();
        group.thread(tid).cloned().ok_or(Errno::ESRCH)
    }

    /// Its threads, by number.
    pub fn threads(&self) -> Vec<Arc<ThreadState>> {
        self.group.lock().threads().cloned().collect()
    }

    /// Waits for `future`, in the thread of `state`, but not longer than until that is to end
    /// (`None`). If `is_urgent`, what it waits for must be seen while other threads run.
    pub(crate) async fn until_ending<F: Future>(
        &self,
        state: &ThreadState,
        is_urgent: bool,
        future: F,
    ) -> Option<F::Output> {
        let mut future = pin!(future);
        let mut urgent = None;
        poll_fn(|context| {
            if let Poll::Ready(output) = future.as_mut().poll(context) {
                return Poll::Ready(Some(output));
            }
            state.register(context.waker());
            if state.attention().contains(Attention::END) {
                return Poll::Ready(None);
            }
            if is_urgent && urgent.is_none() {
                urgent = Some(Urgent::new());
            }
            Poll::Pending
        })
        .await
    }

    /// Nanoseconds of CPU time that its threads have used.
    pub fn cpu_time(&self) -> u64 {
        let group = self.group.lock();
        let past = self.past_cpu_time.load(Ordering::Relaxed);
        group
            .threads()
            .fold(past, |sum, thread| sum + thread.cpu_time())
    }
}
