//! `timerfd_create(2)`: a timer to wait for as for a file.

use super::{FileOps, OpenFile, Readiness, WaitQueue};
use crate::error::{Errno, Result};
use crate::io::{Direction, Io, IoFlags};
use crate::process::{Schedule, Timer, TimerClock, TimerSetting, next_after, set_timer};
use alloc::sync::Arc;
use core::any::Any;
use core::task::{Context, Poll, Waker};
use machine::lock::Mutex;

/// Bytes of a read.
const SIZE: usize = 8;

/// A timer that is a file.
pub struct TimerFd {
    schedule: Schedule,
    /// Absolute times for it are those of the realtime clock.
    is_realtime: bool,
    state: Mutex<State>,
    changes: WaitQueue,
}

#[derive(Default)]
struct State {
    /// For which time it is set, as long as that has not come.
    deadline: Option<u64>,
    /// Nanoseconds between times; 0 for once.
    interval: u64,
    /// The time for which it was set has come, and it is not set for the next yet: it goes on when
    /// somebody looks, so that a short interval keeps nobody busy.
    expired_at: Option<u64>,
    /// Times that have come and were not read.
    ticks: u64,
}

/// When a timer goes off.
#[derive(Clone, Copy, Debug)]
pub struct TimerFdSetting {
    /// The monotonic time of the first; `None` for never.
    pub deadline: Option<u64>,
    /// Nanoseconds between times after that; 0 for no more.
    pub interval: u64,
}

impl TimerFd {
    /// One that is not set.
    pub fn new(is_realtime: bool) -> Arc<Self> {
        Arc::new(Self {
            schedule: Schedule::new(TimerClock::Monotonic),
            is_realtime,
            state: Mutex::default(),
            changes: WaitQueue::new(),
        })
    }

    /// The timer that `file` stands for, if it is one.
    pub fn of(file: &OpenFile) -> Option<Arc<Self>> {
        let ops: &dyn Any = &*file.ops;
        Some(ops.downcast_ref::<TimerFile>()?.0.clone())
    }

    /// Whether absolute times for it are those of the realtime clock.
    pub fn is_realtime(&self) -> bool {
        self.is_realtime
    }

    /// Sets it, and gives what was left. What was not read is forgotten.
    pub fn set(self: &Arc<Self>, setting: TimerFdSetting) -> TimerSetting {
        let before = self.get();
        *self.state.lock() = State {
            deadline: setting.deadline,
            interval: setting.interval,
            ..State::default()
        };
        set_timer(self, setting.deadline);
        before
    }

    /// What is left.
    pub fn get(self: &Arc<Self>) -> TimerSetting {
        self.go_on();
        let now = self.schedule.now();
        let state = self.state.lock();
        TimerSetting {
            // A timer that is due has not gone off yet: it is not one that is off.
            value: state
                .deadline
                .map_or(0, |deadline| deadline.saturating_sub(now).max(1)),
            interval: state.interval,
        }
    }

    /// Sets it for the next of its intervals, if it has gone off.
    fn go_on(self: &Arc<Self>) {
        let mut state = self.state.lock();
        if state.interval == 0 {
            return;
        }
        let Some(expired_at) = state.expired_at.take() else {
            return;
        };
        let (next, passed) = next_after(expired_at, state.interval, self.schedule.now());
        state.ticks = state.ticks.saturating_add(passed);
        state.deadline = Some(next);
        drop(state);
        set_timer(self, Some(next));
    }
}

impl Timer for TimerFd {
    fn schedule(&self) -> &Schedule {
        &self.schedule
    }

    fn expire(self: Arc<Self>, deadline: u64) {
        let mut state = self.state.lock();
        // It may have been set anew meanwhile.
        if state.deadline != Some(deadline) {
            return;
        }
        state.deadline = None;
        state.expired_at = Some(deadline);
        state.ticks = state.ticks.saturating_add(1);
        drop(state);
        self.changes.wake(Readiness::IN.bits());
    }
}

/// The file of a timer. With it the timer ends.
pub struct TimerFile(Arc<TimerFd>);

impl TimerFile {
    /// A file of `timer`.
    pub fn new(timer: Arc<TimerFd>) -> Self {
        Self(timer)
    }
}

impl Drop for TimerFile {
    fn drop(&mut self) {
        self.0.state.lock().deadline = None;
        set_timer(&self.0, None);
    }
}

impl FileOps for TimerFile {
    fn poll_io(&self, io: &mut Io, context: &mut Context<'_>) -> Poll<Result<usize>> {
        let timer = &self.0;
        if io.direction == Direction::Write || io.buffer.len() < SIZE {
            return Poll::Ready(Err(Errno::EINVAL));
        }
        timer
            .changes
            .register_for(context.waker(), Readiness::heard(Readiness::IN));
        io.buffer.prepare_fill(0, SIZE)?;
        timer.go_on();
        let ticks = core::mem::take(&mut timer.state.lock().ticks);
        if ticks == 0 {
            return match io.flags.contains(IoFlags::NOWAIT) {
                true => Poll::Ready(Err(Errno::EAGAIN)),
                false => Poll::Pending,
            };
        }
        Poll::Ready(match io.buffer.fill(0, &ticks.to_ne_bytes())? {
            SIZE => Ok(SIZE),
            _ => Err(Errno::EFAULT),
        })
    }

    fn kind(&self) -> &'static str {
        "timerfd"
    }

    fn stays_at_start(&self) -> bool {
        true
    }

    fn can_splice(&self, _direction: Direction) -> bool {
        false
    }

    fn poll_ready(&self, interest: Readiness, context: &mut Context<'_>) -> Readiness {
        let heard = Readiness::heard(interest);
        self.0.changes.register_for(context.waker(), heard);
        match self.0.state.lock().ticks {
            0 => Readiness::empty(),
            _ => Readiness::IN,
        }
    }

    fn forget_waker(&self, waker: &Waker) {
        self.0.changes.forget(waker);
    }

    fn is_pollable(&self) -> bool {
        true
    }
}
