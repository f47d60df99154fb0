//! A process: memory, files, identity, and how it ends.

use super::credentials::Credentials;
use super::interval_timer::IntervalTimer;
use super::limits::{Limit, Limits};
use super::signals::{Signal, Signals};
use super::thread_state::ThreadState;
use crate::error::{Errno, Result};
use crate::executor::Urgent;
use crate::fs::{FdTable, FsContext};
use crate::mm::{AddressSpace, PAGE};
use alloc::collections::BTreeMap;
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::future::{Future, poll_fn};
use core::pin::pin;
use core::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use core::task::{Poll, Waker};
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
    /// Its signals.
    pub signals: Mutex<Signals>,
    /// Who it is.
    pub credentials: Mutex<Credentials>,
    /// Its nice value, -20 to 19.
    pub nice: Mutex<i32>,
    /// Its alarm (`ITIMER_REAL`).
    pub alarm: Arc<IntervalTimer>,
    exit: Mutex<Option<ExitStatus>>,
    is_ending: AtomicBool,
    threads: Mutex<Threads>,
    /// By thread: those who wait for something and must hear of a signal or the end.
    wakers: Mutex<BTreeMap<u32, Waker>>,
    /// Nanoseconds of CPU time that threads used which have ended.
    past_cpu_time: AtomicU64,
}

/// The threads of a process.
struct Threads {
    /// Those that have not ended, by number.
    alive: BTreeMap<u32, Arc<ThreadState>>,
    /// The number that the next one gets, if it is free.
    next_tid: u32,
    /// What the first thread said when it ended: the process's status when all have ended.
    status: ExitStatus,
}

/// Who waits for the end of the process, among those who are woken: no thread has that number.
const NOBODY: u32 = 0;
/// Numbers of threads are below this (`pid_max`).
const TID_MAX: u32 = 1 << 22;
/// Bytes of RAM that a thread needs, for a bound on their number: a thread takes some of the
/// kernel's memory, of which programs must not be able to use up all.
const RAM_PER_THREAD: u64 = 256 << 10;

impl Process {
    /// The first process.
    pub fn new(space: Arc<AddressSpace>, files: Arc<FdTable>, fs: Arc<FsContext>) -> Arc<Self> {
        const PID: u32 = 1;
        let process = Arc::new(Self {
            pid: PID,
            space,
            files,
            fs,
            limits: Mutex::new(Limits::default()),
            signals: Mutex::new(Signals::default()),
            credentials: Mutex::new(Credentials {
                process_group: PID,
                session: PID,
                ..Credentials::default()
            }),
            nice: Mutex::new(0),
            alarm: Arc::default(),
            exit: Mutex::new(None),
            is_ending: AtomicBool::new(false),
            threads: Mutex::new(Threads {
                alive: BTreeMap::new(),
                next_tid: PID + 1,
                status: ExitStatus::Exited(0),
            }),
            wakers: Mutex::new(BTreeMap::new()),
            past_cpu_time: AtomicU64::new(0),
        });
        process.signals.lock().thread(PID);
        let weak = Arc::downgrade(&process);
        process.space.set_on_exhaustion(move || {
            if let Some(process) = weak.upgrade() {
                process.force(Signal::SIGKILL);
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

    /// Ends it, unless it ends already.
    pub fn exit(&self, status: ExitStatus) {
        self.exit.lock().get_or_insert(status);
        self.is_ending.store(true, Ordering::Release);
        self.wake();
        for thread in self.threads.lock().alive.values() {
            thread.interrupt();
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
            self.wake_on_signal(NOBODY, context.waker());
            let status = *self.exit.lock();
            match status {
                Some(status) if self.threads.lock().alive.is_empty() => Poll::Ready(status),
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
        let limit = machine::memory_use().total as u64 * PAGE / RAM_PER_THREAD;
        let mut threads = self.threads.lock();
        if threads.alive.len() as u64 >= limit {
            return Err(Errno::EAGAIN);
        }
        let tid = match parent {
            None => self.pid,
            Some(_) => threads.take_number(),
        };
        let state = Arc::new(ThreadState::new(tid, parent));
        threads.alive.insert(tid, state.clone());
        drop(threads);
        if let Some(parent) = parent {
            let mut signals = self.signals.lock();
            let blocked = signals.thread(parent.tid).blocked;
            signals.thread(tid).blocked = blocked;
        }
        Ok(state)
    }

    /// A thread has ended, with the status that the process gets if it was the first and nobody
    /// gives another. The process ends with its last thread.
    pub(super) fn remove_thread(&self, state: &ThreadState, status: u8) {
        self.signals.lock().remove_thread(state.tid);
        self.wakers.lock().remove(&state.tid);
        let mut threads = self.threads.lock();
        self.past_cpu_time
            .fetch_add(state.cpu_time(), Ordering::Relaxed);
        threads.alive.remove(&state.tid);
        if state.tid == self.pid {
            threads.status = ExitStatus::Exited(status);
        }
        let is_last = threads.alive.is_empty();
        let status = threads.status;
        drop(threads);
        if is_last {
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
        let threads = self.threads.lock();
        threads.alive.get(&tid).cloned().ok_or(Errno::ESRCH)
    }

    /// Its threads, by number.
    pub fn threads(&self) -> Vec<Arc<ThreadState>> {
        self.threads.lock().alive.values().cloned().collect()
    }

    /// Has `waker` called when the process ends or a signal comes.
    fn wake_on_signal(&self, tid: u32, waker: &Waker) {
        let mut wakers = self.wakers.lock();
        match wakers.get_mut(&tid) {
            Some(known) => known.clone_from(waker),
            None => drop(wakers.insert(tid, waker.clone())),
        }
    }

    fn wake(&self) {
        let wakers = core::mem::take(&mut *self.wakers.lock());
        wakers.into_values().for_each(Waker::wake);
    }

    /// Sends it a signal.
    pub fn signal(&self, signal: Signal) {
        self.signals.lock().raise(signal, None);
        self.deliver_signals();
    }

    /// Sends one of its threads a signal.
    pub fn signal_thread(&self, tid: u32, signal: Signal) {
        self.signals.lock().raise(signal, Some(tid));
        self.deliver_signals();
    }

    /// Carries out what pending signals do that are not blocked any more.
    pub fn deliver_signals(&self) {
        let fatal = self.signals.lock().deliver();
        match fatal {
            Some(signal) => self.force(signal),
            None => self.wake(),
        }
    }

    /// Ends it by `signal`, whatever it does about signals: for those that it has caused itself
    /// by what it executed.
    pub fn force(&self, signal: Signal) {
        self.exit(ExitStatus::Signaled(signal.number()));
    }

    /// Waits for `future`, in the thread `tid`, but not longer than until the process ends
    /// (`None`). If `is_urgent`, what it waits for must be seen while other threads run.
    pub(crate) async fn until_ending<F: Future>(
        &self,
        tid: u32,
        is_urgent: bool,
        future: F,
    ) -> Option<F::Output> {
        let mut future = pin!(future);
        let mut urgent = None;
        poll_fn(|context| {
            if let Poll::Ready(output) = future.as_mut().poll(context) {
                return Poll::Ready(Some(output));
            }
            self.wake_on_signal(tid, context.waker());
            if self.is_ending() {
                return Poll::Ready(None);
            }
            if is_urgent && urgent.is_none() {
                urgent = Some(Urgent::new());
            }
            Poll::Pending
        })
        .await
    }

    /// Waits for `future`, in the thread `tid`, but not longer than until a signal comes that it
    /// has to handle.
    ///
    /// # Errors
    ///
    /// `EINTR`.
    pub async fn until_signal<F: Future>(&self, tid: u32, future: F) -> Result<F::Output> {
        let mut future = pin!(future);
        let before = self.signals.lock().thread(tid).caught;
        poll_fn(|context| {
            if let Poll::Ready(output) = future.as_mut().poll(context) {
                return Poll::Ready(Ok(output));
            }
            self.wake_on_signal(tid, context.waker());
            match self.signals.lock().thread(tid).caught == before {
                true => Poll::Pending,
                false => Poll::Ready(Err(Errno::EINTR)),
            }
        })
        .await
    }

    /// Waits, in the thread `tid`, until `ready`, which is asked again whenever a signal has come,
    /// gives something.
    pub async fn on_signal<T>(
        &self,
        tid: u32,
        mut ready: impl FnMut(&mut Signals) -> Option<T>,
    ) -> T {
        poll_fn(|context| {
            self.wake_on_signal(tid, context.waker());
            match ready(&mut self.signals.lock()) {
                Some(value) => Poll::Ready(value),
                None => Poll::Pending,
            }
        })
        .await
    }

    /// Nanoseconds of CPU time that its threads have used.
    pub fn cpu_time(&self) -> u64 {
        let threads = self.threads.lock();
        let past = self.past_cpu_time.load(Ordering::Relaxed);
        threads
            .alive
            .values()
            .fold(past, |sum, thread| sum + thread.cpu_time())
    }
}

impl Threads {
    fn take_number(&mut self) -> u32 {
        loop {
            let tid = self.next_tid;
            self.next_tid = if tid + 1 < TID_MAX { tid + 1 } else { 2 };
            if !self.alive.contains_key(&tid) {
                return tid;
            }
        }
    }
}
