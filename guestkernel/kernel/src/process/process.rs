//! A process: memory, files, identity, and how it ends.

use super::credentials::Credentials;
use super::interval_timer::IntervalTimer;
use super::limits::{Limit, Limits};
use super::signals::{Signal, Signals};
use crate::error::{Errno, Result};
use crate::fs::{FdTable, FsContext};
use crate::mm::AddressSpace;
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::future::{Future, poll_fn};
use core::pin::pin;
use core::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use core::task::{Poll, Waker};
use linux_raw_sys::general as raw;
use spin::Mutex;

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
    /// Those who wait for something and must hear of a signal or the end.
    wakers: Mutex<Vec<Waker>>,
    /// When it started, on the monotonic clock, and the nanoseconds since then in which it
    /// waited.
    started: u64,
    waited: AtomicU64,
}

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
            wakers: Mutex::new(Vec::new()),
            started: machine::clock::monotonic(),
            waited: AtomicU64::new(0),
        });
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
    }

    /// Whether its threads must stop.
    #[inline]
    pub fn is_ending(&self) -> bool {
        self.is_ending.load(Ordering::Relaxed)
    }

    /// How it ended; waits for that.
    pub async fn ended(&self) -> ExitStatus {
        poll_fn(|context| {
            self.wake_on_signal(context.waker());
            match *self.exit.lock() {
                Some(status) => Poll::Ready(status),
                None => Poll::Pending,
            }
        })
        .await
    }

    /// Has `waker` called when the process ends or a signal comes.
    fn wake_on_signal(&self, waker: &Waker) {
        let mut wakers = self.wakers.lock();
        if !wakers.iter().any(|known| known.will_wake(waker)) {
            wakers.push(waker.clone());
        }
    }

    fn wake(&self) {
        let wakers = core::mem::take(&mut *self.wakers.lock());
        wakers.into_iter().for_each(Waker::wake);
    }

    /// Sends it a signal.
    pub fn signal(&self, signal: Signal) {
        self.signals.lock().raise(signal);
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

    /// Waits for `future`, but not longer than until the process ends (`None`). The time counts
    /// as not used by the process.
    pub(super) async fn until_ending<F: Future>(&self, future: F) -> Option<F::Output> {
        let mut future = pin!(future);
        let mut waiting_since = None;
        poll_fn(|context| {
            if let Some(since) = waiting_since.take() {
                let waited = machine::clock::monotonic().saturating_sub(since);
                self.waited.fetch_add(waited, Ordering::Relaxed);
            }
            if let Poll::Ready(output) = future.as_mut().poll(context) {
                return Poll::Ready(Some(output));
            }
            self.wake_on_signal(context.waker());
            if self.is_ending() {
                return Poll::Ready(None);
            }
            waiting_since = Some(machine::clock::monotonic());
            Poll::Pending
        })
        .await
    }

    /// Waits for `future`, but not longer than until a signal comes that has a handler.
    ///
    /// # Errors
    ///
    /// `EINTR`.
    pub async fn until_signal<F: Future>(&self, future: F) -> Result<F::Output> {
        let mut future = pin!(future);
        let before = self.signals.lock().caught;
        poll_fn(|context| {
            if let Poll::Ready(output) = future.as_mut().poll(context) {
                return Poll::Ready(Ok(output));
            }
            self.wake_on_signal(context.waker());
            match self.signals.lock().caught == before {
                true => Poll::Pending,
                false => Poll::Ready(Err(Errno::EINTR)),
            }
        })
        .await
    }

    /// Waits until `ready`, which is asked again whenever a signal has come, gives something.
    pub async fn on_signal<T>(&self, mut ready: impl FnMut(&mut Signals) -> Option<T>) -> T {
        poll_fn(|context| {
            self.wake_on_signal(context.waker());
            match ready(&mut self.signals.lock()) {
                Some(value) => Poll::Ready(value),
                None => Poll::Pending,
            }
        })
        .await
    }

    /// Nanoseconds of CPU time that it has used.
    pub fn cpu_time(&self) -> u64 {
        machine::clock::monotonic()
            .saturating_sub(self.started)
            .saturating_sub(self.waited.load(Ordering::Relaxed))
    }
}
