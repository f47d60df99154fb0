//! The process control block: what a process is to others, from `fork(2)` until its parent has waited
//! for it.

use super::account::{Account, SignalCharge, ThreadCharge};
use super::credentials::{Credentials, Ids};
use super::interval_timer::IntervalTimers;
use super::limits::Limits;
use super::posix_timer::PosixTimers;
use super::process::Process;
use super::signal::{Handlers, SignalSet};
use super::table;
use super::thread_group::ThreadGroup;
use super::thread_state::{Attention, ThreadState};
use crate::error::{Errno, Result};
use crate::executor::Urgent;
use crate::fs::WaitQueue;
use crate::mm::PAGE;
use alloc::sync::{Arc, Weak};
use alloc::vec::Vec;
use core::future::{Future, poll_fn};
use core::pin::pin;
use core::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use core::task::Poll;
use linux_raw_sys::general as raw;
use machine::clock;
use machine::lock::Mutex;

/// How a process ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ExitStatus {
    /// It said so.
    Exited(u8),
    /// A signal ended it.
    Signaled(u8),
}

/// A process as others know it.
pub struct ControlBlock {
    /// Its number.
    pub pid: u32,
    /// Its resource limits; [`Process::set_limit`] changes them.
    pub limits: Mutex<Limits>,
    /// Who it is.
    pub credentials: Mutex<Credentials>,
    /// Its nice value, -20 to 19.
    pub nice: Mutex<i32>,
    /// Its alarm, and its timers of CPU time.
    pub interval_timers: IntervalTimers,
    /// The timers that it has made.
    pub timers: Mutex<PosixTimers>,
    /// The signal that it gets when its parent ends; 0 for none (`PR_SET_PDEATHSIG`).
    pub death_signal: AtomicU32,
    /// Whether orphans below it become its children (`PR_SET_CHILD_SUBREAPER`).
    pub is_subreaper: AtomicBool,
    /// Whether it has executed a program since it was made.
    pub(super) has_executed: AtomicBool,
    /// When it was made, on the monotonic clock.
    pub started: u64,
    /// Its threads and their signals.
    pub(super) group: Mutex<ThreadGroup>,
    /// The name of its first thread, when that has ended.
    last_name: Mutex<[u8; 16]>,
    /// Woken when a child of it has changed, or one of its threads has ended.
    pub(super) changes: WaitQueue,
    /// Woken when it has ended, and when its parent has waited for it.
    pub(super) ends: WaitQueue,
    exit: Mutex<Option<ExitStatus>>,
    is_ending: AtomicBool,
    /// Nanoseconds of CPU time that threads used which have ended, and that children used, and theirs,
    /// that were waited for.
    past_cpu_time: AtomicU64,
    pub(super) children_cpu_time: AtomicU64,
    /// What its threads reach, if any of them is left.
    view: Mutex<Weak<Process>>,
    me: Weak<Self>,
}

/// Bytes of RAM that a thread needs, for a bound on their number: a thread takes some of the
/// kernel's memory, of which programs must not be able to use up all.
const RAM_PER_THREAD: u64 = 256 << 10;

/// How many threads there can be.
pub(super) fn threads_max() -> u64 {
    machine::memory_use().total as u64 * PAGE / RAM_PER_THREAD
}

impl ControlBlock {
    /// That of the first process.
    pub(super) fn first() -> Arc<Self> {
        let limits = Limits::new(threads_max());
        let handlers = Arc::new(Handlers::default());
        Self::assemble(1, limits, Credentials::default(), 0, handlers)
    }

    /// That of a child with number `pid`, which handles signals as `handlers` say.
    pub(super) fn child(&self, pid: u32, handlers: Arc<Handlers>) -> Arc<Self> {
        let limits = self.limits.lock().clone();
        let credentials = self.credentials.lock().clone();
        let nice = *self.nice.lock();
        Self::assemble(pid, limits, credentials, nice, handlers)
    }

    fn assemble(
        pid: u32,
        limits: Limits,
        credentials: Credentials,
        nice: i32,
        handlers: Arc<Handlers>,
    ) -> Arc<Self> {
        Arc::new_cyclic(|me| Self {
            pid,
            limits: Mutex::new(limits),
            credentials: Mutex::new(credentials),
            nice: Mutex::new(nice),
            interval_timers: IntervalTimers::new(me),
            timers: Mutex::default(),
            death_signal: AtomicU32::new(0),
            is_subreaper: AtomicBool::new(false),
            has_executed: AtomicBool::new(false),
            started: clock::monotonic(),
            group: Mutex::new(ThreadGroup::new(handlers)),
            last_name: Mutex::new([0; 16]),
            changes: WaitQueue::new(),
            ends: WaitQueue::new(),
            exit: Mutex::new(None),
            is_ending: AtomicBool::new(false),
            past_cpu_time: AtomicU64::new(0),
            children_cpu_time: AtomicU64::new(0),
            view: Mutex::new(Weak::new()),
            me: me.clone(),
        })
    }

    /// What does not keep it.
    pub fn weak(&self) -> &Weak<Self> {
        &self.me
    }

    /// What its threads reach; `None` when the last has ended.
    pub fn view(&self) -> Option<Arc<Process>> {
        self.view.lock().upgrade()
    }

    pub(super) fn set_view(&self, view: &Arc<Process>) {
        *self.view.lock() = Arc::downgrade(view);
    }

    /// The name of its first thread, be that gone: padded with NULs.
    pub fn name(&self) -> [u8; 16] {
        let first = self.group.lock().thread(self.pid).cloned();
        match first {
            Some(first) => *first.name.lock(),
            None => *self.last_name.lock(),
        }
    }

    /// What of it is running, as `ps(1)` shows it.
    pub fn state_letter(&self) -> char {
        let group = self.group.lock();
        if group.len() == 0 {
            return 'Z';
        }
        if group.has_stopped() {
            return 'T';
        }
        match group.threads().all(|thread| thread.is_waiting()) {
            true => 'S',
            false => 'R',
        }
    }

    /// Whether it was waited for, or will not be.
    pub fn is_gone(&self) -> bool {
        table::state_of(self) == table::State::Gone
    }

    /// Whether it may look into `other` and change it: it is root, or has its user and group in every
    /// way (`ptrace_may_access` of Linux).
    pub fn may_trace(&self, other: &Self) -> bool {
        if other.pid == self.pid {
            return true;
        }
        let (user, group) = {
            let own = self.credentials.lock();
            (own.user, own.group)
        };
        let other = other.credentials.lock();
        let is_all = |ids: Ids, own: u32| [ids.real, ids.effective, ids.saved] == [own; 3];
        user.effective == 0 || is_all(other.user, user.real) && is_all(other.group, group.real)
    }

    /// Counts one more signal that waits, unless the user has too many.
    pub(super) fn charge_signal(&self) -> Option<SignalCharge> {
        let limit = self.limits.lock().soft(raw::RLIMIT_SIGPENDING);
        let user = self.credentials.lock().user.real;
        Account::of(user).charge_signal(limit)
    }

    /// Counts one more thread of its user.
    ///
    /// # Errors
    ///
    /// `EAGAIN` if the user has too many (`RLIMIT_NPROC`), which root never has.
    pub(super) fn charge_thread(&self) -> Result<ThreadCharge> {
        let limit = self.limits.lock().soft(raw::RLIMIT_NPROC);
        let user = self.credentials.lock().user;
        let is_root = user.real == 0 || user.effective == 0;
        let limit = if is_root { u64::MAX } else { limit };
        Account::of(user.real)
            .charge_thread(limit)
            .ok_or(Errno::EAGAIN)
    }

    /// Has its threads count for the user that it is now.
    pub fn change_account(&self) {
        let account = Account::of(self.credentials.lock().user.real);
        let before = self.group.lock().change_account(&account);
        drop(before);
    }

    /// Ends it, unless it ends already.
    pub fn exit(&self, status: ExitStatus) {
        self.exit.lock().get_or_insert(status);
        self.is_ending.store(true, Ordering::Release);
        let group = self.group.lock();
        for thread in group.threads() {
            thread.notify(Attention::END);
        }
    }

    /// Whether its threads must stop.
    #[inline]
    pub fn is_ending(&self) -> bool {
        self.is_ending.load(Ordering::Relaxed)
    }

    /// How it ended; waits for that, for all its threads to be gone and, as it is the first one, for all
    /// other processes.
    pub async fn ended(&self) -> ExitStatus {
        poll_fn(|context| {
            self.changes.register(context.waker());
            match *self.exit.lock() {
                Some(status) if table::is_last(self.pid) => Poll::Ready(status),
                _ => Poll::Pending,
            }
        })
        .await
    }

    /// Makes one more thread that begins as `parent` is: with its name, the signals that it blocks, and
    /// the CPUs that it may use.
    ///
    /// # Errors
    ///
    /// `EAGAIN` if there are too many, `ERESTARTNOINTR` if there is a signal for `parent`.
    pub(super) fn add_thread(&self, parent: &ThreadState) -> Result<Arc<ThreadState>> {
        let charge = self.charge_thread()?;
        let tid = table::add_thread(&self.me)?;
        let state = Arc::new(ThreadState::new(tid, Some(parent)));
        let mut group = self.group.lock();
        if !parent.attention().is_empty() {
            drop(group);
            table::remove_thread(tid);
            return Err(Errno::ERESTARTNOINTR);
        }
        let blocked = group.blocked(parent.tid);
        group.add(state.clone(), blocked, Some(charge));
        drop(group);
        if self.is_ending() {
            state.notify(Attention::END);
        }
        Ok(state)
    }

    /// Adds its first thread, which begins as `parent`, of whatever process, is.
    pub(super) fn add_first_thread(
        &self,
        parent: Option<&ThreadState>,
        blocked: SignalSet,
        charge: Option<ThreadCharge>,
    ) -> Arc<ThreadState> {
        let state = Arc::new(ThreadState::new(self.pid, parent));
        self.group.lock().add(state.clone(), blocked, charge);
        if self.is_ending() {
            state.notify(Attention::END);
        }
        state
    }

    /// A thread has ended, with the status that the process gets if it was the last and nobody has given
    /// another.
    pub(super) fn remove_thread(&self, state: &ThreadState, status: u8) {
        state.forget_waker();
        if state.tid == self.pid {
            *self.last_name.lock() = *state.name.lock();
        }
        let mut group = self.group.lock();
        self.past_cpu_time
            .fetch_add(state.cpu_time(), Ordering::Relaxed);
        let (change, charge) = group.remove(state.tid);
        let is_last = group.len() == 0;
        drop(group);
        drop(charge);
        if let Some(change) = change {
            self.tell_parent(change);
        }
        if state.tid != self.pid {
            table::remove_thread(state.tid);
        }
        match is_last {
            true => self.die(ExitStatus::Exited(status)),
            // Perhaps a thread waits for being alone.
            false => self.changes.wake_all(),
        }
    }

    /// The last thread has ended.
    fn die(&self, last: ExitStatus) {
        self.delete_timers();
        self.interval_timers.stop();
        let status = *self.exit.lock().get_or_insert(last);
        self.is_ending.store(true, Ordering::Release);
        table::bury(self, status);
    }

    /// Deletes the timers that it has made.
    pub(super) fn delete_timers(&self) {
        let timers = self.timers.lock().remove_all();
        timers.for_each(|timer| timer.set(None, 0));
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

    /// As [`Thread::until_signal`](super::Thread::until_signal), in the thread `tid`.
    ///
    /// # Errors
    ///
    /// `ERESTARTSYS`.
    pub async fn until_signal<F: Future>(&self, tid: u32, future: F) -> Result<F::Output> {
        let state = self.group.lock().thread(tid).cloned();
        match state {
            Some(state) => state.until_signal(future).await,
            None => Ok(future.await),
        }
    }

    /// Nanoseconds of CPU time that its threads have used.
    pub fn cpu_time(&self) -> u64 {
        let group = self.group.lock();
        let past = self.past_cpu_time.load(Ordering::Relaxed);
        group
            .threads()
            .fold(past, |sum, thread| sum + thread.cpu_time())
    }

    /// Nanoseconds of CPU time that children which were waited for have used, and theirs.
    pub fn children_cpu_time(&self) -> u64 {
        self.children_cpu_time.load(Ordering::Relaxed)
    }
}
