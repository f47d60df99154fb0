//! Timers that a process makes as many of as it wants (`timer_create(2)`).
//!
//! As on Linux a timer with an interval goes on only when its signal is taken, and the times that
//! have passed meanwhile are told as its overrun: no interval is so short that it keeps the kernel
//! busy.

use super::account::SignalCharge;
use super::control_block::ControlBlock;
use super::signal::{Queued, Signal, SignalInfo};
use super::thread_group::Target;
use super::timer::{self, Schedule, Timer, TimerClock, TimerSetting, next_after};
use crate::error::{Errno, Result};
use crate::heap;
use alloc::collections::BTreeMap;
use alloc::sync::{Arc, Weak};
use machine::lock::Mutex;

/// Overruns that are told of, at most (`DELAYTIMER_MAX`).
const OVERRUN_MAX: u64 = i32::MAX as u64;
/// Bytes of the kernel's heap that a timer takes, with the task that waits for it.
const COST: usize = 1024;

/// What a timer does when it goes off.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Notice {
    /// The signal that it sends.
    pub signal: Signal,
    /// Whom to.
    pub target: Target,
    /// What the signal has with it; the timer's number if it is `None`.
    pub value: Option<u64>,
}

/// A timer.
pub struct PosixTimer {
    schedule: Schedule,
    process: Weak<ControlBlock>,
    id: i32,
    /// Absolute times for it are those of the realtime clock.
    is_realtime: bool,
    notice: Option<Notice>,
    state: Mutex<TimerState>,
    /// Its signal waits with what is known of it: it counts as if it always did.
    _charge: SignalCharge,
}

#[derive(Default)]
struct TimerState {
    interval: u64,
    /// When it goes off, or has gone off if that was not told yet.
    expires: Option<u64>,
    /// It has sent a signal that was not taken.
    is_waiting: bool,
    /// It would have, but the process ignored the signal.
    is_ignored: bool,
    /// The overrun of the signal that was taken last.
    overrun: u64,
}

/// A signal of a timer that waits.
pub(super) struct Expiry(Arc<PosixTimer>);

/// The timers of a process.
#[derive(Default)]
pub struct PosixTimers {
    by_id: BTreeMap<i32, Arc<PosixTimer>>,
    next: i32,
}

impl PosixTimers {
    /// Makes one, which is not set.
    ///
    /// # Errors
    ///
    /// `EAGAIN` if there is no memory or the user has too many.
    pub(super) fn create(
        &mut self,
        process: &ControlBlock,
        (clock, is_realtime): (TimerClock, bool),
        notice: Option<Notice>,
    ) -> Result<i32> {
        heap::check(COST).map_err(|_| Errno::EAGAIN)?;
        let charge = process.charge_signal().ok_or(Errno::EAGAIN)?;
        let id = loop {
            let id = self.next;
            self.next = self.next.wrapping_add(1).max(0);
            if !self.by_id.contains_key(&id) {
                break id;
            }
        };
        let timer = PosixTimer {
            schedule: Schedule::new(clock),
            process: process.weak().clone(),
            id,
            is_realtime,
            notice,
            state: Mutex::default(),
            _charge: charge,
        };
        self.by_id.insert(id, Arc::new(timer));
        Ok(id)
    }

    /// The timer with that number.
    ///
    /// # Errors
    ///
    /// `EINVAL`.
    pub fn get(&self, id: i32) -> Result<Arc<PosixTimer>> {
        self.by_id.get(&id).cloned().ok_or(Errno::EINVAL)
    }

    pub(super) fn remove(&mut self, id: i32) -> Result<Arc<PosixTimer>> {
        self.by_id.remove(&id).ok_or(Errno::EINVAL)
    }

    pub(super) fn remove_all(&mut self) -> impl Iterator<Item = Arc<PosixTimer>> + use<> {
        core::mem::take(&mut self.by_id).into_values()
    }

    /// Those that have waited for `signal` not to be ignored.
    pub(super) fn ignored(&self, signal: Signal) -> impl Iterator<Item = Arc<PosixTimer>> {
        let timers = self.by_id.values();
        let sends = move |timer: &&Arc<PosixTimer>| {
            timer.notice.is_some_and(|notice| notice.signal == signal)
        };
        timers
            .filter(sends)
            .filter(|timer| core::mem::take(&mut timer.state.lock().is_ignored))
            .cloned()
    }
}

impl PosixTimer {
    /// What its clock shows.
    pub fn now(&self) -> u64 {
        self.schedule.now()
    }

    /// Whether absolute times for it are those of the realtime clock.
    pub fn is_realtime(&self) -> bool {
        self.is_realtime
    }

    /// The overrun of the signal that was taken last.
    pub fn overrun(&self) -> i32 {
        self.state.lock().overrun.min(OVERRUN_MAX) as i32
    }

    /// What is left.
    pub fn get(&self) -> TimerSetting {
        let now = self.now();
        let mut state = self.state.lock();
        let interval = state.interval;
        let Some(expires) = state.expires else {
            return TimerSetting { value: 0, interval };
        };
        let mut next = expires;
        // Nobody tells of the times that have passed but this.
        if interval > 0 && (state.is_waiting || self.notice.is_none()) && expires <= now {
            next = next_after(expires, interval, now).0;
            if self.notice.is_none() {
                state.expires = Some(next);
            }
        }
        let left = next.saturating_sub(now);
        let is_over = left == 0 && interval == 0 && (self.notice.is_none() || state.is_waiting);
        TimerSetting {
            value: if is_over { 0 } else { left.max(1) },
            interval,
        }
    }

    /// Sets when it goes off, by its clock, and then how often; `None` for never. A signal that it has
    /// sent and nobody has taken is forgotten.
    pub(super) fn set(self: &Arc<Self>, expires: Option<u64>, interval: u64) {
        *self.state.lock() = TimerState {
            interval,
            expires,
            ..TimerState::default()
        };
        let sends = self.notice.is_some();
        timer::set(self, expires.filter(|_| sends));
    }

    /// Sends the signal.
    pub(super) fn send(self: &Arc<Self>) {
        let (Some(process), Some(notice)) = (self.process.upgrade(), self.notice) else {
            return;
        };
        self.state.lock().is_waiting = true;
        let value = notice.value.unwrap_or(self.id as u64);
        let queued = Queued {
            info: SignalInfo::timer(notice.signal, self.id, value),
            _charge: None,
            expiry: Some(Expiry(self.clone())),
        };
        if !process.send_expiry(notice.target, queued) {
            let mut state = self.state.lock();
            state.is_waiting = false;
            state.is_ignored = true;
        }
    }
}

impl ControlBlock {
    /// Makes a timer, which is not set, and gives its number. `is_realtime` says that absolute times
    /// for it are those of the realtime clock.
    ///
    /// # Errors
    ///
    /// `EAGAIN` if there is no memory or the user has too many.
    pub fn create_timer(
        &self,
        clock: TimerClock,
        is_realtime: bool,
        notice: Option<Notice>,
    ) -> Result<i32> {
        let mut timers = self.timers.lock();
        timers.create(self, (clock, is_realtime), notice)
    }

    /// Sets when a timer goes off, by its clock, and then how often; `None` for never. What it has
    /// sent and nobody has taken is forgotten.
    pub fn set_timer(&self, timer: &Arc<PosixTimer>, expires: Option<u64>, interval: u64) {
        timer.set(expires, interval);
        self.forget_expiry(timer);
    }

    /// Deletes a timer.
    ///
    /// # Errors
    ///
    /// `EINVAL` if there is none with that number.
    pub fn delete_timer(&self, id: i32) -> Result<()> {
        let timer = self.timers.lock().remove(id)?;
        self.set_timer(&timer, None, 0);
        Ok(())
    }

    fn forget_expiry(&self, timer: &Arc<PosixTimer>) {
        let is_its = |expiry: &Expiry| Arc::ptr_eq(&expiry.0, timer);
        self.group.lock().forget_expiries(is_its);
    }
}

impl Expiry {
    /// The signal is taken: tells it how many times have passed meanwhile, and has the timer go on.
    pub(super) fn taken(self, info: &mut SignalInfo) {
        let timer = self.0;
        let now = timer.now();
        let mut state = timer.state.lock();
        if !core::mem::take(&mut state.is_waiting) {
            return;
        }
        state.overrun = 0;
        let mut next = None;
        if let Some(expired_at) = state.expires
            && state.interval > 0
        {
            let (after, passed) = next_after(expired_at, state.interval, now);
            state.overrun = passed;
            next = Some(after);
        }
        state.expires = next;
        info.set_overrun(state.overrun.min(OVERRUN_MAX) as u32);
        drop(state);
        if next.is_some() {
            timer::set(&timer, next);
        }
    }
}

impl Timer for PosixTimer {
    fn schedule(&self) -> &Schedule {
        &self.schedule
    }

    fn expire(self: Arc<Self>, _deadline: u64) {
        self.send();
    }
}
