//! Timers of programs: what goes off at a time, by a clock or by the CPU time that is used.

use super::control_block::ControlBlock;
use super::thread_state::ThreadState;
use crate::executor::{self, Sleep, Urgent, sleep_until};
use alloc::sync::{Arc, Weak};
use core::future::{Future, poll_fn};
use core::pin::Pin;
use core::task::{Poll, Waker};
use machine::clock;
use machine::lock::Mutex;

/// How long, at least and at most, nothing is looked at while a clock of CPU time runs or stands still.
const NAP_LEAST: u64 = 1_000_000;
const NAP_MOST: u64 = 50_000_000;

/// When a timer goes off.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct TimerSetting {
    /// Nanoseconds until the next time; 0 for never.
    pub value: u64,
    /// Nanoseconds between times after that; 0 for no more.
    pub interval: u64,
}

/// What a timer goes by.
#[derive(Clone, Debug)]
pub enum TimerClock {
    /// The time since boot.
    Monotonic,
    /// The CPU time of a process.
    Process(Weak<ControlBlock>),
    /// The CPU time of a thread.
    Thread(Weak<ThreadState>),
}

impl TimerClock {
    /// What it shows, in nanoseconds. That of what has ended stands still.
    pub(super) fn now(&self) -> u64 {
        match self {
            Self::Monotonic => clock::monotonic(),
            Self::Process(process) => process.upgrade().map_or(0, |process| process.cpu_time()),
            Self::Thread(thread) => thread.upgrade().map_or(0, |thread| thread.cpu_time()),
        }
    }
}

/// A timer of some kind.
pub(super) trait Timer: Send + Sync + 'static {
    fn schedule(&self) -> &Schedule;

    /// The time for which it was set has come; it may be set again. Called without locks.
    fn expire(self: Arc<Self>, deadline: u64);
}

/// When a timer goes off.
pub(super) struct Schedule {
    clock: TimerClock,
    state: Mutex<ScheduleState>,
}

#[derive(Default)]
struct ScheduleState {
    deadline: Option<u64>,
    /// Of the task that waits for it; there is one while there is a deadline.
    waker: Option<Waker>,
    is_running: bool,
}

impl Schedule {
    pub(super) fn new(clock: TimerClock) -> Self {
        Self {
            clock,
            state: Mutex::default(),
        }
    }

    /// What its clock shows.
    pub(super) fn now(&self) -> u64 {
        self.clock.now()
    }

    /// When it goes off, by its clock.
    pub(super) fn deadline(&self) -> Option<u64> {
        self.state.lock().deadline
    }

    /// Takes the deadline if it has passed.
    fn take_due(&self, now: u64) -> Option<u64> {
        let mut state = self.state.lock();
        state.deadline.take_if(|deadline| *deadline <= now)
    }
}

/// The first time later than `now` that is some intervals after `expired_at`, and how many more there
/// are between the two.
pub(super) fn next_after(expired_at: u64, interval: u64, now: u64) -> (u64, u64) {
    let passed = now.saturating_sub(expired_at) / interval.max(1);
    let next = expired_at.saturating_add(passed.saturating_add(1).saturating_mul(interval));
    (next, passed)
}

/// Sets when `timer` goes off, by its clock.
pub(super) fn set<T: Timer>(timer: &Arc<T>, deadline: Option<u64>) {
    let mut state = timer.schedule().state.lock();
    state.deadline = deadline;
    let waker = state.waker.take();
    let must_start = deadline.is_some() && !state.is_running;
    state.is_running |= must_start;
    drop(state);
    if let Some(waker) = waker {
        waker.wake();
    }
    if must_start {
        executor::spawn("timer", run(timer.clone()));
    }
}

/// Waits for the deadlines of a timer as long as it has one.
async fn run<T: Timer>(timer: Arc<T>) {
    // It goes off even if the program never enters the kernel.
    let _urgent = Urgent::new();
    let mut sleep: Option<Sleep> = None;
    let mut nap = Nap::default();
    poll_fn(|context| {
        loop {
            let schedule = timer.schedule();
            let now = schedule.now();
            if let Some(deadline) = schedule.take_due(now) {
                timer.clone().expire(deadline);
                continue;
            }
            let mut state = schedule.state.lock();
            let Some(deadline) = state.deadline else {
                state.is_running = false;
                return Poll::Ready(());
            };
            let until = match schedule.clock {
                TimerClock::Monotonic => deadline,
                _ => nap.until(now, deadline),
            };
            let sleep = match &mut sleep {
                Some(sleep) if sleep.deadline() == until => sleep,
                slot => slot.insert(sleep_until(until)),
            };
            if Pin::new(sleep).poll(context).is_pending() {
                state.waker = Some(context.waker().clone());
                return Poll::Pending;
            }
            nap.is_over();
        }
    })
    .await;
}

/// When to look at a clock of CPU time next. Nobody tells of it, and all CPUs together make it run as
/// fast as there are, at most.
#[derive(Default)]
struct Nap {
    until: Option<u64>,
    /// What the clock showed, and for how long to wait if it still does.
    seen: u64,
    length: u64,
}

impl Nap {
    /// The monotonic time at which a clock that shows `now` is looked at to see whether it shows
    /// `deadline`.
    fn until(&mut self, now: u64, deadline: u64) -> u64 {
        if let Some(until) = self.until {
            return until;
        }
        self.length = match self.seen == now {
            true => (self.length * 2).clamp(NAP_LEAST, NAP_MOST),
            false => NAP_LEAST,
        };
        self.seen = now;
        let left = deadline.saturating_sub(now) / u64::from(machine::cpu_count());
        let until = clock::monotonic().saturating_add(left.max(self.length));
        self.until = Some(until);
        until
    }

    fn is_over(&mut self) {
        self.until = None;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_stay_whole_intervals_apart() {
        assert_eq!(next_after(100, 10, 100), (110, 0));
        assert_eq!(next_after(100, 10, 109), (110, 0));
        assert_eq!(next_after(100, 10, 110), (120, 1));
        assert_eq!(next_after(100, 10, 155), (160, 5));
        assert_eq!(next_after(u64::MAX - 5, 10, u64::MAX), (u64::MAX, 0));
    }

    #[test]
    fn a_clock_that_stands_still_is_looked_at_less_often() {
        let mut nap = Nap::default();
        let mut length = |now| {
            let before = clock::monotonic();
            let until = nap.until(now, now + 1);
            nap.is_over();
            until - before
        };
        assert!(length(5) < 2 * NAP_LEAST);
        assert!(length(6) < 2 * NAP_LEAST);
        for _ in 0..10 {
            length(6);
        }
        assert!(length(6) >= NAP_MOST);
        assert!(length(7) < 2 * NAP_LEAST);
    }
}
