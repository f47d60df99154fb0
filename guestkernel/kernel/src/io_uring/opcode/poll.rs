//! `IORING_OP_POLL_ADD` and `POLL_REMOVE`: waiting until a file is ready, once or again and again.

use super::{Completion, Issue, Prepared, Progress, Started, Step, Work};
use crate::error::{Errno, Result};
use crate::file::{OpenFile, Readiness};
use crate::io_uring::ring::RingState;
use crate::io_uring::sqe::{RequestFlags, Sqe};
use crate::operation::Actor;
use core::task::{Context, Poll};
use linux_raw_sys::io_uring as raw;

/// What a wait hears of whether it was asked for or not (`IO_POLL_UNMASK` of Linux).
const ALWAYS: Readiness = Readiness::ALWAYS.union(Readiness::READ_HANG_UP);

/// A prepared POLL_ADD.
pub(in crate::io_uring) struct PollAdd {
    fd: i32,
    wanted: Wanted,
}

/// What is waited for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Wanted {
    interest: Readiness,
    /// It goes on after the first time (`IORING_POLL_ADD_MULTI`).
    is_repeated: bool,
}

impl Wanted {
    fn new(sqe: &Sqe, flags: u32) -> Self {
        Self {
            interest: Readiness::from_bits_truncate(sqe.op_flags()) | ALWAYS,
            is_repeated: flags & raw::IORING_POLL_ADD_MULTI != 0,
        }
    }
}

impl Prepared for PollAdd {
    fn prepare(sqe: &Sqe, flags: RequestFlags, _: Actor<'_>) -> Result<Self> {
        let is_repeated = sqe.length() & raw::IORING_POLL_ADD_MULTI != 0;
        if sqe.length() & !raw::IORING_POLL_ADD_MULTI != 0
            || is_repeated && flags.contains(RequestFlags::SKIP_SUCCESS)
        {
            return Err(Errno::EINVAL);
        }
        Ok(Self {
            fd: sqe.fd(),
            wanted: Wanted::new(sqe, sqe.length()),
        })
    }

    fn start(self, state: &mut RingState, issue: Issue<'_>) -> Started {
        let file = state.file(self.fd, issue);
        file.map(|file| Work::readiness(file, Wait::new(self.wanted)))
            .into()
    }
}

/// A wait for a file to be ready.
pub(in crate::io_uring) struct Wait {
    wanted: Wanted,
    /// It has just told of what there was, and is registered for what comes.
    has_told: bool,
}

impl Wait {
    fn new(wanted: Wanted) -> Self {
        Self {
            wanted,
            has_told: false,
        }
    }

    pub(super) fn poll(&mut self, file: &OpenFile, context: &mut Context<'_>) -> Progress {
        // What is ready still is no news: only a change is, as with edge-triggered epoll.
        if core::mem::take(&mut self.has_told) {
            return Poll::Pending;
        }
        let interest = self.wanted.interest;
        let ready = file.ops.poll_ready(interest, context) & interest;
        if ready.is_empty() {
            return Poll::Pending;
        }
        self.has_told = self.wanted.is_repeated;
        Poll::Ready(Step {
            completion: Completion::success(ready.bits() as i32),
            has_more: self.wanted.is_repeated,
        })
    }

    /// Waits for something else from now on.
    fn change(&mut self, wanted: Wanted) {
        *self = Self::new(wanted);
    }
}

/// A prepared POLL_REMOVE: ends a POLL_ADD, or changes it.
pub(in crate::io_uring) struct PollRemove {
    user_data: u64,
    wanted: Option<Wanted>,
    new_user_data: Option<u64>,
}

impl Prepared for PollRemove {
    fn prepare(sqe: &Sqe, _: RequestFlags, _: Actor<'_>) -> Result<Self> {
        const KNOWN: u32 = raw::IORING_POLL_UPDATE_EVENTS
            | raw::IORING_POLL_UPDATE_USER_DATA
            | raw::IORING_POLL_ADD_MULTI;
        let flags = sqe.length();
        let has = |flag| flags & flag != 0;
        if flags & !KNOWN != 0 || flags == raw::IORING_POLL_ADD_MULTI {
            return Err(Errno::EINVAL);
        }
        let changes_name = has(raw::IORING_POLL_UPDATE_USER_DATA);
        let changes_events = has(raw::IORING_POLL_UPDATE_EVENTS);
        if !changes_name && sqe.offset() != 0 || !changes_events && sqe.op_flags() != 0 {
            return Err(Errno::EINVAL);
        }
        Ok(Self {
            user_data: sqe.address(),
            wanted: changes_events.then(|| Wanted::new(sqe, flags)),
            new_user_data: changes_name.then(|| sqe.offset()),
        })
    }

    fn start(self, state: &mut RingState, _: Issue<'_>) -> Started {
        Completion::of(state.change_poll(&self).map(|()| 0)).into()
    }
}

impl RingState {
    fn change_poll(&mut self, change: &PollRemove) -> Result<()> {
        let slot = self
            .slots
            .all_running()
            .find(|(_, running)| {
                running.request.user_data == change.user_data && running.work.is_readiness()
            })
            .map(|(slot, _)| slot)
            .ok_or(Errno::ENOENT)?;
        if change.wanted.is_none() && change.new_user_data.is_none() {
            self.cancel_running(slot);
            return Ok(());
        }
        if let Some((running, _)) = self.slots.pollable(slot) {
            if let Some(user_data) = change.new_user_data {
                running.request.user_data = user_data;
            }
            if let (Some(wait), Some(wanted)) = (running.work.as_readiness_mut(), change.wanted) {
                wait.change(wanted);
            }
        }
        // It may be ready at once for what it waits for now.
        self.poll(slot);
        Ok(())
    }
}
