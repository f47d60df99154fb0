//! The three timers that each process has (`setitimer(2)`): one by the clock, which `alarm(2)` sets
//! too, and two by the CPU time of the process.

use super::control_block::ControlBlock;
use super::signal::Signal;
use super::timer::{self, Schedule, Timer, TimerClock, TimerSetting, next_after};
use alloc::sync::{Arc, Weak};
use core::sync::atomic::{AtomicU64, Ordering};
use linux_raw_sys::general as raw;

/// An interval timer.
pub struct IntervalTimer {
    schedule: Schedule,
    process: Weak<ControlBlock>,
    signal: Signal,
    /// Nanoseconds between times; 0 for once.
    interval: AtomicU64,
    /// The deadline at which it has gone off last.
    expired_at: AtomicU64,
}

/// The three of them.
pub struct IntervalTimers([Arc<IntervalTimer>; 3]);

impl IntervalTimers {
    /// Those of a new process: none is set.
    pub(super) fn new(process: &Weak<ControlBlock>) -> Self {
        let cpu = || TimerClock::Process(process.clone());
        Self(
            [
                (Signal::SIGALRM, TimerClock::Monotonic),
                (Signal::SIGVTALRM, cpu()),
                (Signal::SIGPROF, cpu()),
            ]
            .map(|(signal, clock)| {
                Arc::new(IntervalTimer {
                    schedule: Schedule::new(clock),
                    process: process.clone(),
                    signal,
                    interval: AtomicU64::new(0),
                    expired_at: AtomicU64::new(0),
                })
            }),
        )
    }

    /// That of `ITIMER_*`, if there is such a one.
    pub fn get(&self, which: u32) -> Option<&Arc<IntervalTimer>> {
        self.0.get(which as usize)
    }

    /// That of `alarm(2)`.
    pub fn real(&self) -> &Arc<IntervalTimer> {
        &self.0[raw::ITIMER_REAL as usize]
    }

    /// The process ends.
    pub(super) fn stop(&self) {
        self.0.iter().for_each(|timer| timer::set(timer, None));
    }
}

impl IntervalTimer {
    /// What is left.
    pub fn get(&self) -> TimerSetting {
        let deadline = self.schedule.deadline();
        TimerSetting {
            // A timer that is due has not gone off yet: it is not one that is off.
            value: deadline.map_or(0, |deadline| {
                deadline.saturating_sub(self.schedule.now()).max(1)
            }),
            interval: self.interval.load(Ordering::Relaxed),
        }
    }

    /// Sets it, and returns what was left.
    pub fn set(self: &Arc<Self>, setting: TimerSetting) -> TimerSetting {
        let before = self.get();
        self.interval.store(setting.interval, Ordering::Relaxed);
        let deadline = || self.schedule.now().saturating_add(setting.value);
        timer::set(self, (setting.value > 0).then(deadline));
        before
    }

    /// Sets it for the next of its intervals, if it has gone off. The one by the clock does so when its
    /// signal is taken: however short the interval is, the process gets somewhere in between.
    pub(super) fn go_on(self: &Arc<Self>) {
        let interval = self.interval.load(Ordering::Relaxed);
        if interval > 0 && self.schedule.deadline().is_none() {
            let expired_at = self.expired_at.load(Ordering::Relaxed);
            let (next, _) = next_after(expired_at, interval, self.schedule.now());
            timer::set(self, Some(next));
        }
    }
}

impl Timer for IntervalTimer {
    fn schedule(&self) -> &Schedule {
        &self.schedule
    }

    fn expire(self: Arc<Self>, deadline: u64) {
        let Some(process) = self.process.upgrade() else {
            return;
        };
        self.expired_at.store(deadline, Ordering::Relaxed);
        // Those of CPU time are not looked at so often that they could keep the kernel busy.
        if self.signal != Signal::SIGALRM {
            self.go_on();
        }
        process.signal(self.signal);
    }
}
