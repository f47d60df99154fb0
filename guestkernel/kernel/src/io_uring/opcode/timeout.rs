//! `IORING_OP_TIMEOUT`, a CQE at a time or when so many others were posted; `LINK_TIMEOUT`, the time
//! that the request before it has; `TIMEOUT_REMOVE`, which ends or changes either.

use super::{Completion, Issue, Prepared, Progress, Started, Step, Work};
use crate::error::{Errno, Result};
use crate::executor::{Sleep, sleep_until};
use crate::io_uring::ring::RingState;
use crate::io_uring::sqe::{RequestFlags, Sqe};
use crate::operation::{Actor, TimeValue, deadline_after, deadline_at_realtime};
use alloc::sync::Arc;
use core::future::Future;
use core::pin::Pin;
use core::sync::atomic::{AtomicU64, Ordering};
use core::task::{Context, Poll};
use linux_raw_sys::io_uring as raw;

const KNOWN: u32 = raw::IORING_TIMEOUT_ABS
    | raw::IORING_TIMEOUT_CLOCK_MASK
    | raw::IORING_TIMEOUT_ETIME_SUCCESS
    | raw::IORING_TIMEOUT_MULTISHOT;

/// A time span, or a time on a clock.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Span {
    nanoseconds: u64,
    is_absolute: bool,
    is_realtime: bool,
}

impl Span {
    /// What the timespec at `address` says, with `IORING_TIMEOUT_*`.
    fn read(address: u64, flags: u32, actor: Actor<'_>) -> Result<Self> {
        Ok(Self {
            nanoseconds: TimeValue::read_timespec(actor.space(), address)?.nanoseconds_carried()?,
            is_absolute: flags & raw::IORING_TIMEOUT_ABS != 0,
            is_realtime: flags & raw::IORING_TIMEOUT_REALTIME != 0,
        })
    }

    /// Its end on the monotonic clock, when it begins now.
    fn deadline(self) -> u64 {
        match (self.is_absolute, self.is_realtime) {
            (false, _) => deadline_after(self.nanoseconds),
            (true, false) => self.nanoseconds,
            (true, true) => deadline_at_realtime(self.nanoseconds),
        }
    }
}

/// A prepared TIMEOUT.
pub(in crate::io_uring) struct Timespan {
    span: Span,
    flags: u32,
    /// CQEs that end it early, or how often it fires.
    count: u32,
}

impl Prepared for Timespan {
    fn prepare(sqe: &Sqe, _: RequestFlags, actor: Actor<'_>) -> Result<Self> {
        let flags = sqe.op_flags();
        let has = |flag| flags & flag == flag;
        // A time on the clock comes once.
        let comes_again = has(raw::IORING_TIMEOUT_MULTISHOT | raw::IORING_TIMEOUT_ABS);
        let has_two_clocks = has(raw::IORING_TIMEOUT_CLOCK_MASK);
        if sqe.length() != 1 || flags & !KNOWN != 0 || has_two_clocks || comes_again {
            return Err(Errno::EINVAL);
        }
        Ok(Self {
            span: Span::read(sqe.address(), flags, actor)?,
            flags,
            count: sqe.offset() as u32,
        })
    }

    fn start(self, state: &mut RingState, _: Issue<'_>) -> Started {
        Started::Pending(Work::time(state.start_timeout(self)))
    }
}

/// A TIMEOUT under way.
pub(in crate::io_uring) struct Timeout {
    sleep: Sleep,
    flags: u32,
    /// Nanoseconds from one firing to the next.
    period: u64,
    /// Firings left of a repeated one; 0 for no end.
    repeats: u32,
    /// The number of CQEs posted at which it ends with 0.
    until_posted: Option<i64>,
    /// Counts the timeouts that fired on this ring.
    fired: Arc<AtomicU64>,
}

impl RingState {
    fn start_timeout(&mut self, timespan: Timespan) -> Timeout {
        let Timespan { span, flags, count } = timespan;
        let is_repeated = flags & raw::IORING_TIMEOUT_MULTISHOT != 0;
        let until_posted = (count > 0 && !is_repeated).then(|| {
            // Those posted in this batch count as posted after it, as on Linux.
            self.posted_by_others() + i64::from(count)
        });
        self.counting_timeouts += usize::from(until_posted.is_some());
        Timeout {
            sleep: sleep_until(span.deadline()),
            flags,
            period: span.nanoseconds,
            repeats: if is_repeated { count } else { 0 },
            until_posted,
            fired: self.timeouts_fired.clone(),
        }
    }
}

impl Timeout {
    pub(super) fn poll(&mut self, context: &mut Context<'_>) -> Progress {
        if Pin::new(&mut self.sleep).poll(context) == Poll::Pending {
            return Poll::Pending;
        }
        self.fired.fetch_add(1, Ordering::Relaxed);
        let completion = Completion {
            result: Errno::ETIME.as_result(),
            flags: 0,
            is_failure: self.flags & raw::IORING_TIMEOUT_ETIME_SUCCESS == 0,
        };
        if self.flags & raw::IORING_TIMEOUT_MULTISHOT == 0 || self.repeats == 1 {
            return Poll::Ready(completion.into());
        }
        self.repeats = self.repeats.saturating_sub(1);
        self.sleep = sleep_until(deadline_after(self.period));
        Poll::Ready(Step {
            completion,
            has_more: true,
        })
    }

    /// Whether it waits for a number of CQEs.
    pub(in crate::io_uring) fn is_counting(&self) -> bool {
        self.until_posted.is_some()
    }

    /// Whether `posted` CQEs, without those of timeouts, are enough to end it.
    pub(in crate::io_uring) fn is_satisfied_by(&self, posted: i64) -> bool {
        self.until_posted.is_some_and(|until| posted >= until)
    }
}

/// A prepared LINK_TIMEOUT.
pub(in crate::io_uring) struct LinkTimeout(Span);

impl Prepared for LinkTimeout {
    fn prepare(sqe: &Sqe, flags: RequestFlags, actor: Actor<'_>) -> Result<Self> {
        Timespan::prepare(sqe, flags, actor).map(|timespan| Self(timespan.span))
    }

    /// It has its turn only when the request that it was for is over.
    fn start(self, _: &mut RingState, _: Issue<'_>) -> Started {
        Errno::ECANCELED.into()
    }
}

/// A LINK_TIMEOUT whose request is under way.
pub(in crate::io_uring) struct TimeLimit {
    sleep: Sleep,
    /// The slot of that request.
    pub(in crate::io_uring) head: u32,
}

impl TimeLimit {
    /// The time of the request in slot `head` begins.
    pub(in crate::io_uring) fn start(limit: &LinkTimeout, head: u32) -> Self {
        Self {
            sleep: sleep_until(limit.0.deadline()),
            head,
        }
    }

    pub(super) fn poll(&mut self, context: &mut Context<'_>) -> Progress {
        let sleep = Pin::new(&mut self.sleep);
        sleep
            .poll(context)
            .map(|()| Completion::failure(Errno::ETIME).into())
    }
}

/// A prepared TIMEOUT_REMOVE.
pub(in crate::io_uring) struct TimeoutRemove {
    user_data: u64,
    /// What it gets in place of its end.
    change: Option<Span>,
    /// It is a LINK_TIMEOUT.
    is_link: bool,
}

impl Prepared for TimeoutRemove {
    fn prepare(sqe: &Sqe, request: RequestFlags, actor: Actor<'_>) -> Result<Self> {
        const UPDATE: u32 = raw::IORING_TIMEOUT_UPDATE_MASK;
        if request.intersects(RequestFlags::FIXED_FILE | RequestFlags::BUFFER_SELECT) {
            return Err(Errno::EINVAL);
        }
        let flags = sqe.op_flags();
        let change = match flags & UPDATE {
            0 if flags != 0 => return Err(Errno::EINVAL),
            0 => None,
            _ if flags & !(UPDATE | raw::IORING_TIMEOUT_ABS) != 0 => return Err(Errno::EINVAL),
            _ => Some(Span::read(sqe.offset(), flags, actor)?),
        };
        // Without `IORING_TIMEOUT_UPDATE` it is read, and not used.
        let is_update = flags & raw::IORING_TIMEOUT_UPDATE != 0;
        Ok(Self {
            user_data: sqe.address(),
            change: change.filter(|_| is_update),
            is_link: is_update && flags & raw::IORING_LINK_TIMEOUT_UPDATE != 0,
        })
    }

    fn start(self, state: &mut RingState, _: Issue<'_>) -> Started {
        Completion::of(state.change_timeout(&self).map(|()| 0)).into()
    }
}

impl RingState {
    fn change_timeout(&mut self, remove: &TimeoutRemove) -> Result<()> {
        let slot = self
            .slots
            .all_running()
            .find(|(_, running)| {
                let is_kind = match remove.is_link {
                    true => running.work.as_time_limit().is_some(),
                    false => running.work.as_timeout().is_some(),
                };
                is_kind && running.request.user_data == remove.user_data
            })
            .map(|(slot, _)| slot)
            .ok_or(Errno::ENOENT)?;
        let Some(span) = remove.change else {
            self.cancel_running(slot);
            return Ok(());
        };
        if let Some((running, _)) = self.slots.pollable(slot) {
            let sleep = sleep_until(span.deadline());
            if let Some(limit) = running.work.as_time_limit_mut() {
                limit.sleep = sleep;
            } else if let Some(timeout) = running.work.as_timeout_mut() {
                timeout.sleep = sleep;
                timeout.period = span.nanoseconds;
                // It waits for the time alone from now on.
                self.counting_timeouts -= usize::from(timeout.until_posted.take().is_some());
            }
        }
        self.poll(slot);
        Ok(())
    }
}
