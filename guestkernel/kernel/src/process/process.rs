//! A process: memory, files, identity, and how it ends.

use super::limits::Limits;
use super::signals::{Signal, Signals};
use crate::fs::FdTable;
use crate::mm::AddressSpace;
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::future::poll_fn;
use core::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use core::task::{Poll, Waker};
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
    /// Its resource limits.
    pub limits: Mutex<Limits>,
    /// Its signals.
    pub signals: Mutex<Signals>,
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
    pub fn new(space: Arc<AddressSpace>, files: Arc<FdTable>) -> Arc<Self> {
        Arc::new(Self {
            pid: 1,
            space,
            files,
            limits: Mutex::new(Limits::default()),
            signals: Mutex::new(Signals::default()),
            exit: Mutex::new(None),
            is_ending: AtomicBool::new(false),
            wakers: Mutex::new(Vec::new()),
            started: machine::clock::monotonic(),
            waited: AtomicU64::new(0),
        })
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
    pub(crate) fn wake_on_signal(&self, waker: &Waker) {
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
        let fatal = {
            let mut signals = self.signals.lock();
            signals.raise(signal);
            signals.take_fatal()
        };
        match fatal {
            Some(signal) => self.exit(ExitStatus::Signaled(signal.number())),
            None => self.wake(),
        }
    }

    /// Ends it by a signal that it has caused itself by what it executed.
    pub(super) fn force(&self, signal: Signal) {
        self.exit(ExitStatus::Signaled(signal.number()));
    }

    /// Notes that the thread has waited since `since`.
    pub(super) fn note_wait(&self, since: u64) {
        let waited = machine::clock::monotonic().saturating_sub(since);
        self.waited.fetch_add(waited, Ordering::Relaxed);
    }

    /// Nanoseconds of CPU time that it has used.
    pub fn cpu_time(&self) -> u64 {
        machine::clock::monotonic()
            .saturating_sub(self.started)
            .saturating_sub(self.waited.load(Ordering::Relaxed))
    }
}
