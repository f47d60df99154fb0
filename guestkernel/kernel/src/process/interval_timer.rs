//! The timer that sends SIGALRM (`setitimer(2)` with `ITIMER_REAL`, `alarm(2)`).

use super::process::Process;
use super::signals::Signal;
use crate::executor::{self, Sleep, Urgent, sleep_until};
use alloc::sync::Arc;
use core::future::{Future, poll_fn};
use core::pin::Pin;
use core::task::{Poll, Waker};
use machine::lock::Mutex;

/// When a timer goes off.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct TimerSetting {
    /// Nanoseconds until the next time; 0 for never.
    pub value: u64,
    /// Nanoseconds between times after that; 0 for no more.
    pub interval: u64,
}

#[derive(Default)]
struct State {
    /// Monotonic time at which it goes off next.
    deadline: Option<u64>,
    interval: u64,
    /// Of the task that waits for it; there is one while there is a deadline.
    waker: Option<Waker>,
    is_running: bool,
}

/// An interval timer.
#[derive(Default)]
pub struct IntervalTimer(Mutex<State>);

impl IntervalTimer {
    /// What is left.
    pub fn get(&self) -> TimerSetting {
        self.0.lock().setting()
    }

    /// Sets it, for `process`, and returns what was left.
    pub fn set(self: &Arc<Self>, process: &Arc<Process>, setting: TimerSetting) -> TimerSetting {
        let mut state = self.0.lock();
        let before = state.setting();
        state.interval = setting.interval;
        state.deadline =
            (setting.value > 0).then(|| machine::clock::monotonic().saturating_add(setting.value));
        if let Some(waker) = state.waker.take() {
            waker.wake();
        }
        if state.deadline.is_some() && !state.is_running {
            state.is_running = true;
            drop(state);
            executor::spawn("interval timer", self.clone().run(Arc::downgrade(process)));
        }
        before
    }

    async fn run(self: Arc<Self>, process: alloc::sync::Weak<Process>) {
        // It goes off even if the program never enters the kernel.
        let _urgent = Urgent::new();
        let mut sleep: Option<Sleep> = None;
        poll_fn(|context| {
            loop {
                let mut state = self.0.lock();
                let Some(deadline) = state.deadline else {
                    state.is_running = false;
                    return Poll::Ready(());
                };
                let sleep = match &mut sleep {
                    Some(sleep) if sleep.deadline() == deadline => sleep,
                    slot => slot.insert(sleep_until(deadline)),
                };
                if Pin::new(sleep).poll(context).is_pending() {
                    state.waker = Some(context.waker().clone());
                    return Poll::Pending;
                }
                state.deadline = (state.interval > 0)
                    .then(|| machine::clock::monotonic().saturating_add(state.interval));
                drop(state);
                if let Some(process) = process.upgrade() {
                    process.signal(Signal::SIGALRM);
                }
            }
        })
        .await;
    }
}

impl State {
    fn setting(&self) -> TimerSetting {
        TimerSetting {
            // A timer that is due has not gone off yet: it is not one that is off.
            value: self.deadline.map_or(0, |deadline| {
                deadline.saturating_sub(machine::clock::monotonic()).max(1)
            }),
            interval: self.interval,
        }
    }
}
