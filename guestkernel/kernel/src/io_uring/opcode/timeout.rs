//! `IORING_OP_TIMEOUT`: a CQE at a time, or when so many others were posted.

use super::work::Step;
use super::{Completion, Issue, Prepared, Progress, Started, Work};
use crate::error::{Errno, Result};
use crate::executor::{Sleep, sleep_until};
use crate::io_uring::ring::State;
use crate::io_uring::sqe::{RequestFlags, Sqe};
use crate::operation::Actor;
use alloc::sync::Arc;
use core::future::Future;
use core::pin::Pin;
use core::sync::atomic::{AtomicU64, Ordering};
use core::task::{Context, Poll};
use linux_raw_sys::general::__kernel_timespec;
use linux_raw_sys::io_uring as raw;
use machine::clock;

const KNOWN: u32 = raw::IORING_TIMEOUT_ABS
    | raw::IORING_TIMEOUT_CLOCK_MASK
    | raw::IORING_TIMEOUT_ETIME_SUCCESS
    | raw::IORING_TIMEOUT_MULTISHOT;

/// A prepared TIMEOUT.
pub(in crate::io_uring) struct Timespan {
    /// On the clock that `flags` names.
    nanoseconds: u64,
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
            nanoseconds: nanoseconds(&actor.space().read_value(sqe.address())?)?,
            flags,
            count: sqe.offset() as u32,
        })
    }

    fn start(self, state: &mut State, _: Issue<'_>) -> Started {
        Started::Pending(Work::time(state.start_timeout(self)))
    }
}

/// The span or time that `time` stands for; the far future if it does not fit.
fn nanoseconds(time: &__kernel_timespec) -> Result<u64> {
    let seconds = u64::try_from(time.tv_sec).map_err(|_| Errno::EINVAL)?;
    let rest = u64::try_from(time.tv_nsec).map_err(|_| Errno::EINVAL)?;
    Ok(seconds.saturating_mul(1_000_000_000).saturating_add(rest))
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

impl State {
    fn start_timeout(&mut self, timespan: Timespan) -> Timeout {
        let Timespan {
            nanoseconds,
            flags,
            count,
        } = timespan;
        let now = clock::monotonic();
        let deadline = if flags & raw::IORING_TIMEOUT_ABS == 0 {
            now.saturating_add(nanoseconds)
        } else if flags & raw::IORING_TIMEOUT_REALTIME == 0 {
            nanoseconds
        } else {
            now.saturating_add(nanoseconds.saturating_sub(clock::realtime()))
        };
        let is_repeated = flags & raw::IORING_TIMEOUT_MULTISHOT != 0;
        let until_posted = (count > 0 && !is_repeated).then(|| {
            // Those posted in this batch count as posted after it, as on Linux.
            self.posted_by_others() + i64::from(count)
        });
        self.counting_timeouts += usize::from(until_posted.is_some());
        Timeout {
            sleep: sleep_until(deadline),
            flags,
            period: nanoseconds,
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
        let next = clock::monotonic().saturating_add(self.period);
        self.sleep = sleep_until(next);
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
