//! A ring: what is shared with wakers, and the state under its lock.

use super::budget::Allowance;
use super::completion::CompletionQueue;
use super::file::is_ring;
use super::links::{Chain, Drain};
use super::memory::{Cqe, RingMemory};
use super::opcode::{Completion, Started, Work, opcode};
use super::pace::Pace;
use super::personality::Personalities;
use super::ready::ReadyQueue;
use super::request::{REQUEST_COST, Request, RequestSlot, Running, Slots};
use super::resources::{ALLOCATE, Resources, Tagged};
use super::setup::Setup;
use super::sqe::RequestFlags;
use super::tags::Tags;
use crate::error::{Errno, Result};
use crate::executor::{self, Listed, Listing, Runnable, Urgent};
use crate::fs::OpenFile;
use crate::process::Process;
use alloc::collections::VecDeque;
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::fmt;
use core::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use core::task::{Context, Poll};
use linux_raw_sys::io_uring::IORING_CQE_F_MORE;
use machine::lock::{Mutex, MutexGuard};

/// A ring. Its open file shuts it down when it is closed.
pub(super) struct Ring {
    memory: Arc<RingMemory>,
    ready: Arc<ReadyQueue>,
    setup: Setup,
    /// Nothing is accepted before the program enables the ring.
    is_disabled: AtomicBool,
    /// The only task that may use the ring; 0 for any, or for none yet.
    issuer: AtomicU32,
    state: Mutex<RingState>,
    /// The process that made it.
    owner: u32,
    _listing: Listing,
}

/// What the lock guards.
pub(super) struct RingState {
    pub(super) memory: Arc<RingMemory>,
    pub(super) setup: Setup,
    /// The position of the next SQE.
    pub(super) sq_head: u32,
    pub(super) completions: CompletionQueue,
    pub(super) slots: Slots,
    pub(super) resources: Resources,
    pub(super) tags: Tags,
    pub(super) personalities: Personalities,
    pub(super) allowance: Allowance,
    /// The chain that the batch is in the middle of.
    pub(super) chain: Option<Chain>,
    pub(super) drain: Drain,
    /// Accepted requests whose turn has come.
    pub(super) turn: VecDeque<u32>,
    /// Timeouts that count CQEs.
    pub(super) counting_timeouts: usize,
    /// Timeouts that ended by themselves; they do not count for those that count.
    pub(super) timeouts_fired: Arc<AtomicU64>,
    pub(super) ready: Arc<ReadyQueue>,
    /// Woken slots that are being polled; kept for its allocation.
    woken: Vec<u32>,
    /// Held while requests run whose CQEs the program may look for without a system call.
    urgent: Option<Urgent>,
}

impl Ring {
    /// Requests that a report names.
    const LISTED_REQUESTS: usize = 16;

    /// A ring made by the task `issuer` of `owner`.
    ///
    /// # Errors
    ///
    /// `ENOMEM`.
    pub(super) fn new(setup: Setup, owner: &Arc<Process>, issuer: u32) -> Result<Arc<Self>> {
        let memory = Arc::new(RingMemory::new(&setup)?);
        let is_issuer_known = setup.has_single_issuer() && !setup.starts_disabled();
        Ok(Arc::new_cyclic(|ring| {
            let ready = ReadyQueue::new(ring.clone(), memory.clone(), setup);
            Self {
                memory: memory.clone(),
                ready: ready.clone(),
                setup,
                is_disabled: AtomicBool::new(setup.starts_disabled()),
                issuer: AtomicU32::new(if is_issuer_known { issuer } else { 0 }),
                owner: owner.pid,
                _listing: executor::list(ring.clone()),
                state: Mutex::new(RingState {
                    completions: CompletionQueue::new(setup.cq_entries),
                    slots: Slots::new(ready.clone()),
                    memory,
                    setup,
                    sq_head: 0,
                    resources: Resources::default(),
                    tags: Tags::new(),
                    personalities: Personalities::default(),
                    allowance: Allowance::new(REQUEST_COST),
                    chain: None,
                    drain: Drain::default(),
                    turn: VecDeque::new(),
                    counting_timeouts: 0,
                    timeouts_fired: Arc::default(),
                    ready,
                    woken: Vec::new(),
                    urgent: None,
                }),
            }
        }))
    }

    pub(super) fn memory(&self) -> &Arc<RingMemory> {
        &self.memory
    }

    pub(super) fn ready(&self) -> &Arc<ReadyQueue> {
        &self.ready
    }

    pub(super) fn setup(&self) -> &Setup {
        &self.setup
    }

    #[inline]
    pub(super) fn lock(&self) -> MutexGuard<'_, RingState> {
        self.state.lock()
    }

    #[inline]
    pub(super) fn is_disabled(&self) -> bool {
        self.is_disabled.load(Ordering::Acquire)
    }

    /// Lets a ring that was made disabled accept requests, from `issuer` only if it is for one.
    ///
    /// # Errors
    ///
    /// `EBADFD` if it is enabled.
    pub(super) fn enable(&self, issuer: u32) -> Result<()> {
        if !self.is_disabled() {
            return Err(Errno::EBADFD);
        }
        if self.setup.has_single_issuer() {
            self.issuer.store(issuer, Ordering::Relaxed);
        }
        self.is_disabled.store(false, Ordering::Release);
        Ok(())
    }

    /// Whether `task` may use the ring.
    ///
    /// # Errors
    ///
    /// `EEXIST` if it is another task's.
    #[inline]
    pub(super) fn check_issuer(&self, task: u32) -> Result<()> {
        match self.issuer.load(Ordering::Relaxed) {
            0 => Ok(()),
            issuer if issuer == task => Ok(()),
            _ => Err(Errno::EEXIST),
        }
    }

    /// The open file is gone: ends everything.
    pub(super) fn shut_down(&self) {
        self.lock().clear();
        self.ready.wake_waiters();
    }
}

impl Runnable for Ring {
    fn run(self: Arc<Self>) {
        self.ready.unschedule();
        self.lock().run();
        if !self.ready.is_empty() {
            self.ready.announce();
        }
    }
}

impl Listed for Ring {
    fn describe(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "io_uring of process {}: ", self.owner)?;
        let Some(state) = self.state.try_lock() else {
            return write!(out, "in use");
        };
        write!(out, "{} requests", state.slots.running())?;
        for (_, running) in state.slots.all_running().take(Self::LISTED_REQUESTS) {
            let name = opcode(running.request.opcode).map_or("?", |opcode| opcode.name);
            write!(out, " {name}")?;
        }
        Ok(())
    }
}

impl RingState {
    /// Polls what was woken and starts what has its turn, and shows the program the results. After
    /// about a millisecond the rest is left for later.
    pub(super) fn run(&mut self) {
        if self.setup.flags_work() {
            self.ready.show_work(false);
        }
        let mut pace = Pace::default();
        let mut woken = core::mem::take(&mut self.woken);
        self.ready.take(&mut woken);
        let mut polled = 0;
        for slot in &woken {
            self.poll(*slot);
            polled += 1;
            if pace.is_over() || self.slots.is_woken(*slot) {
                break;
            }
        }
        if polled < woken.len() {
            self.ready.put_back(&woken[polled..]);
        }
        woken.clear();
        self.woken = woken;
        self.settle_at(pace);
    }

    /// Starts what has its turn, and shows the program the results.
    #[inline]
    pub(super) fn settle(&mut self) {
        self.settle_at(Pace::default());
    }

    #[inline]
    fn settle_at(&mut self, mut pace: Pace) {
        // What was posted before a request has its turn is posted before it, for timeouts that count.
        loop {
            self.publish();
            if self.turn.is_empty() || !self.start_all(&mut pace) {
                break;
            }
        }
        self.ready.leave_rest(!self.turn.is_empty());
        if self.setup.defers_work() {
            self.ready.defer_turn(false);
        }
    }

    /// Does all that a task which asks for events does for the ring; returns how many CQEs the
    /// program finds.
    #[inline(always)]
    pub(super) fn reap(&mut self) -> u32 {
        if self.has_work() {
            self.run();
        }
        if self.completions.overflowed() > 0 {
            self.completions.flush_overflow(&self.memory);
            self.settle();
        }
        self.completions.waiting(&self.memory)
    }

    /// Shows the program new CQEs, ends timeouts that waited for them, and tells those who wait.
    #[inline(always)]
    pub(super) fn publish(&mut self) {
        if self.completions.publish(&self.memory) {
            if self.counting_timeouts > 0 {
                self.end_satisfied_timeouts();
            }
            self.ready.wake_waiters();
        }
    }

    /// CQEs that the program was shown, without those of timeouts. Of these some may have fired
    /// that it was not shown yet, so that the difference can be negative.
    pub(super) fn posted_by_others(&self) -> i64 {
        let fired = self.timeouts_fired.load(Ordering::Relaxed);
        self.completions.published() as i64 - fired as i64
    }

    #[cold]
    fn end_satisfied_timeouts(&mut self) {
        let posted = self.posted_by_others();
        let satisfied: Vec<u32> = self
            .slots
            .all_running()
            .filter(|(_, running)| {
                let timeout = running.work.as_timeout();
                timeout.is_some_and(|timeout| timeout.is_satisfied_by(posted))
            })
            .map(|(slot, _)| slot)
            .collect();
        for slot in satisfied {
            self.timeouts_fired.fetch_add(1, Ordering::Relaxed);
            self.finish(slot, Completion::success(0));
        }
        self.completions.publish(&self.memory);
    }

    /// Sees to a request whose operation has started.
    #[inline(always)]
    pub(super) fn go_on(&mut self, request: Request, started: Started) {
        match started {
            Started::Done(completion) => self.complete(request, completion),
            Started::Pending(work) => self.run_in_slot(request, work),
        }
    }

    /// Puts an operation that could not finish at once into a slot, after polling it.
    #[inline]
    fn run_in_slot(&mut self, request: Request, work: Work) {
        let slot = self
            .slots
            .insert(RequestSlot::Running(Running { request, work }));
        self.poll(slot);
        if request.flags.contains(RequestFlags::TIMED) {
            self.start_time_limit(slot);
        }
        let has_to_hurry = !self.setup.defers_work() || self.setup.flags_work();
        if self.urgent.is_none() && has_to_hurry && self.slots.running() > 0 {
            self.urgent = Some(Urgent::new());
        }
    }

    /// Advances a request that has started.
    pub(super) fn poll(&mut self, slot: u32) {
        while let Some((running, waker)) = self.slots.pollable(slot) {
            match running.work.poll(&mut Context::from_waker(waker)) {
                Poll::Pending => return,
                Poll::Ready(_) if let Some(limit) = running.work.as_time_limit() => {
                    let head = limit.head;
                    return self.end_time_limit(slot, head);
                }
                Poll::Ready(step) if !step.has_more => {
                    let completion = match running.work.take_opened() {
                        None => step.completion,
                        Some((file, place)) => self.install_opened(file, place),
                    };
                    return self.finish(slot, completion);
                }
                Poll::Ready(step) => {
                    let cqe = Cqe {
                        user_data: running.request.user_data,
                        result: step.completion.result,
                        flags: step.completion.flags | IORING_CQE_F_MORE,
                    };
                    // Without room this is the last one: it waits for room, no more come.
                    if !self.completions.try_post(&self.memory, cqe) {
                        return self.finish(slot, step.completion);
                    }
                }
            }
        }
    }

    /// Puts a file that was opened for it into a place of the file table, named as an SQE does.
    #[cold]
    fn install_opened(&mut self, file: Arc<OpenFile>, place: u32) -> Completion {
        Completion::of(self.install_file(file, place).map(|place| place as i32))
    }

    /// Puts a file into the place of the table that an SQE names, counted from 1: gives 0, or, where
    /// that is to be found, the place that it got.
    ///
    /// # Errors
    ///
    /// `EBADF` for a ring, which could hold itself; `ENXIO` if there is no table, `EINVAL` beyond it,
    /// `ENFILE` if it is full.
    pub(super) fn install_file(&mut self, file: Arc<OpenFile>, place: u32) -> Result<u32> {
        let index = match place {
            ALLOCATE => self.resources.files.find_free()?,
            place => place.wrapping_sub(1),
        };
        if is_ring(&file) {
            return Err(Errno::EBADF);
        }
        if self.resources.files.is_empty() {
            return Err(Errno::ENXIO);
        }
        let file = Tagged { item: file, tag: 0 };
        let old = self.resources.files.set(index, file)?;
        self.retire_file(old);
        Ok(if place == ALLOCATE { index } else { 0 })
    }

    /// Takes the file out of a place of the table.
    ///
    /// # Errors
    ///
    /// `ENXIO` if there is no table, `EINVAL` beyond it, `EBADF` if there is no file.
    pub(super) fn take_file(&mut self, index: u32) -> Result<()> {
        let files = &mut self.resources.files;
        if files.is_empty() {
            return Err(Errno::ENXIO);
        }
        if index >= files.len() {
            return Err(Errno::EINVAL);
        }
        let old = files.remove(index).ok_or(Errno::EBADF)?;
        self.retire_file(Some(old));
        Ok(())
    }

    /// Empties a place of the table that was filled for somebody who cannot be told.
    #[cold]
    pub(super) fn give_up_file(&mut self, index: u32) {
        let old = self.resources.files.remove(index);
        self.retire_file(old);
    }

    /// Ends a request that has started.
    fn finish(&mut self, slot: u32, completion: Completion) {
        if let Some(request) = self.end_work(slot) {
            self.complete(request, completion);
        }
    }

    /// Drops the work of a request that has started, and frees its slot.
    pub(super) fn end_work(&mut self, slot: u32) -> Option<Request> {
        if let Some(timeout) = self.slots.running_at(slot)?.work.as_timeout() {
            self.counting_timeouts -= usize::from(timeout.is_counting());
        }
        if self
            .slots
            .running_at(slot)?
            .request
            .flags
            .contains(RequestFlags::USES_RETIRED)
        {
            self.release_retired(slot);
        }
        let request = self.slots.remove_running(slot);
        if self.slots.running() == 0 {
            self.urgent = None;
        }
        request
    }

    /// Posts the CQE of a request that is at its end, and sees to those that wait for it.
    #[inline(always)]
    pub(super) fn complete(&mut self, mut request: Request, completion: Completion) {
        if completion.is_failure && request.flags.contains(RequestFlags::SKIP_SUCCESS) {
            request.flags.remove(RequestFlags::SKIP_SUCCESS);
            request.flags.insert(RequestFlags::SILENT_LINKS);
        }
        if !request.flags.contains(RequestFlags::SKIP_SUCCESS) {
            self.completions.post(
                &self.memory,
                Cqe {
                    user_data: request.user_data,
                    result: completion.result,
                    flags: completion.flags,
                },
            );
        }
        if request.next.is_some() {
            self.go_on_after(request, completion.is_failure);
        }
        if self.drain.is_waiting() {
            self.release_drained();
        }
    }

    /// Whether something has its turn that only the issuer may start.
    pub(super) fn has_work(&self) -> bool {
        !self.turn.is_empty() || !self.ready.is_empty()
    }

    pub(super) fn show_work(&self) {
        self.ready.show_work(true);
    }

    /// Drops all requests, and all CQEs that wait for room.
    fn clear(&mut self) {
        self.chain = None;
        self.drain = Drain::default();
        self.turn.clear();
        self.slots.clear();
        self.completions.clear();
        self.resources = Resources::default();
        self.tags.clear();
        self.counting_timeouts = 0;
        self.urgent = None;
    }
}
