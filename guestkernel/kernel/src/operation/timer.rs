//! Timers that send signals: `setitimer(2)`, `alarm(2)`, `timer_create(2)` and their relatives.

use super::Actor;
use super::clock::{Clock, read_timeval};
use super::time_value::{SECOND, deadline_at_realtime, read_timespec, timespec, timeval};
use crate::error::{Errno, Result};
use crate::mm::AddressSpace;
use crate::process::{IntervalTimer, Notice, Signal, Target, TimerSetting};
use alloc::sync::Arc;
use linux_raw_sys::general as raw;

/// Bytes of `struct sigevent` before what depends on how it notifies.
const EVENT_VALUE: u64 = 0;
const EVENT_SIGNAL: u64 = 8;
const EVENT_KIND: u64 = 12;
const EVENT_THREAD: u64 = 16;
/// Bytes of `struct itimerspec` and `struct itimerval`.
pub(super) const SETTING_SIZE: usize = 32;

fn write_interval(space: &AddressSpace, address: u64, setting: TimerSetting) -> Result<()> {
    space.write_value(address, &timeval(setting.interval))?;
    space.write_value(address.wrapping_add(16), &timeval(setting.value))
}

fn interval_timer(actor: Actor<'_>, which: u32) -> Result<&Arc<IntervalTimer>> {
    let timers = &actor.process.interval_timers;
    timers.get(which).ok_or(Errno::EINVAL)
}

/// `getitimer(2)`.
pub struct GetIntervalTimer {
    /// `ITIMER_*`.
    pub which: u32,
    /// Where its setting goes.
    pub setting_at: u64,
}

impl GetIntervalTimer {
    /// Does it.
    ///
    /// # Errors
    ///
    /// `EINVAL`, `EFAULT`.
    pub fn run(self, actor: Actor<'_>) -> Result<()> {
        let setting = interval_timer(actor, self.which)?.get();
        write_interval(actor.space(), self.setting_at, setting)
    }
}

/// `setitimer(2)`.
pub struct SetIntervalTimer {
    /// `ITIMER_*`.
    pub which: u32,
    /// Where its setting is; 0 to stop it.
    pub setting_at: u64,
    /// Where the setting before goes; 0 for nowhere.
    pub before_at: u64,
}

impl SetIntervalTimer {
    /// Does it.
    ///
    /// # Errors
    ///
    /// `EINVAL`, `EFAULT`.
    pub fn run(self, actor: Actor<'_>) -> Result<()> {
        let space = actor.space();
        let setting = match self.setting_at {
            0 => TimerSetting::default(),
            at => TimerSetting {
                interval: read_timeval(actor, at)?,
                value: read_timeval(actor, at.wrapping_add(16))?,
            },
        };
        if self.before_at != 0 {
            space.prepare_write(self.before_at, SETTING_SIZE)?;
        }
        let before = interval_timer(actor, self.which)?.set(setting);
        match self.before_at {
            0 => Ok(()),
            at => write_interval(space, at, before),
        }
    }
}

/// `alarm(2)`.
pub struct SetAlarm {
    /// Seconds until it goes off; 0 for never.
    pub seconds: u32,
}

impl SetAlarm {
    /// Does it; gives the seconds that were left.
    pub fn run(self, actor: Actor<'_>) -> u64 {
        let setting = TimerSetting {
            value: u64::from(self.seconds) * SECOND,
            interval: 0,
        };
        let before = actor.process.interval_timers.real().set(setting);
        // Rounded to the nearest second, but never to "none".
        let seconds = before.value.saturating_add(SECOND / 2) / SECOND;
        seconds.max(u64::from(before.value > 0))
    }
}

/// What a timer does when it goes off, as the `sigevent` at `address` says.
fn read_notice(actor: Actor<'_>, address: u64) -> Result<Option<Notice>> {
    if address == 0 {
        return Ok(Some(Notice {
            signal: Signal::SIGALRM,
            target: Target::Process,
            value: None,
        }));
    }
    let space = actor.space();
    let field = |offset: u64| space.read_value::<i32>(address.wrapping_add(offset));
    let value = space.read_value(address.wrapping_add(EVENT_VALUE))?;
    let (number, kind) = (field(EVENT_SIGNAL)?, field(EVENT_KIND)? as u32);
    let tid = field(EVENT_THREAD)?;
    let target = match kind {
        raw::SIGEV_NONE => return Ok(None),
        raw::SIGEV_SIGNAL | raw::SIGEV_THREAD => Target::Process,
        _ if kind == raw::SIGEV_THREAD_ID | raw::SIGEV_SIGNAL => {
            let is_member = tid > 0 && actor.thread_numbered(tid).is_ok();
            match is_member {
                true => Target::Thread(tid as u32),
                false => return Err(Errno::EINVAL),
            }
        }
        _ => return Err(Errno::EINVAL),
    };
    let signal = Signal::new(number).ok_or(Errno::EINVAL)?;
    Ok(Some(Notice {
        signal,
        target,
        value: Some(value),
    }))
}

/// `timer_create(2)`.
pub struct MakeTimer {
    /// `CLOCK_*`.
    pub clock: i32,
    /// Where the `struct sigevent` is; 0 for none.
    pub event_at: u64,
    /// Where its number goes.
    pub id_at: u64,
}

impl MakeTimer {
    /// Does it.
    ///
    /// # Errors
    ///
    /// Those of `timer_create(2)`.
    pub fn run(self, actor: Actor<'_>) -> Result<()> {
        let clock = Clock::new(actor, self.clock)?;
        if clock.has_no_timers() {
            return Err(Errno::EOPNOTSUPP);
        }
        let notice = read_notice(actor, self.event_at)?;
        let clock = clock.for_timer(actor)?;
        let process = actor.process;
        process.space.prepare_write(self.id_at, size_of::<i32>())?;
        let is_realtime = matches!(self.clock as u32, raw::CLOCK_REALTIME | raw::CLOCK_TAI);
        let id = process.create_timer(clock, is_realtime, notice)?;
        let result = process.space.write_value(self.id_at, &id);
        if result.is_err() {
            process.delete_timer(id)?;
        }
        result
    }
}

/// The `struct itimerspec` at `address`.
pub(super) fn read_setting(space: &AddressSpace, address: u64) -> Result<TimerSetting> {
    Ok(TimerSetting {
        interval: read_timespec(space, address)?,
        value: read_timespec(space, address.wrapping_add(16))?,
    })
}

/// Stores a setting as a `struct itimerspec`.
pub(super) fn write_setting(
    space: &AddressSpace,
    address: u64,
    setting: TimerSetting,
) -> Result<()> {
    space.write_value(address, &timespec(setting.interval))?;
    space.write_value(address.wrapping_add(16), &timespec(setting.value))
}

/// `timer_settime(2)`.
pub struct SetTimer {
    /// The timer's number.
    pub id: i32,
    /// `TIMER_ABSTIME`, or none.
    pub flags: u32,
    /// Where its setting is.
    pub setting_at: u64,
    /// Where the setting before goes; 0 for nowhere.
    pub before_at: u64,
}

impl SetTimer {
    /// Does it.
    ///
    /// # Errors
    ///
    /// Those of `timer_settime(2)`.
    pub fn run(self, actor: Actor<'_>) -> Result<()> {
        let process = actor.process;
        if self.setting_at == 0 {
            return Err(Errno::EINVAL);
        }
        let setting = read_setting(&process.space, self.setting_at)?;
        let timer = process.timers.lock().get(self.id)?;
        if self.before_at != 0 {
            process.space.prepare_write(self.before_at, SETTING_SIZE)?;
        }
        let before = timer.get();
        let is_absolute = self.flags & raw::TIMER_ABSTIME != 0;
        let expires = (setting.value > 0).then(|| match is_absolute {
            true if timer.is_realtime() => deadline_at_realtime(setting.value),
            true => setting.value,
            false => timer.now().saturating_add(setting.value),
        });
        process.set_timer(&timer, expires, setting.interval);
        match self.before_at {
            0 => Ok(()),
            at => write_setting(&process.space, at, before),
        }
    }
}

/// `timer_gettime(2)`.
pub struct GetTimer {
    /// The timer's number.
    pub id: i32,
    /// Where its setting goes.
    pub setting_at: u64,
}

impl GetTimer {
    /// Does it.
    ///
    /// # Errors
    ///
    /// `EINVAL`, `EFAULT`.
    pub fn run(self, actor: Actor<'_>) -> Result<()> {
        let timer = actor.process.timers.lock().get(self.id)?;
        write_setting(actor.space(), self.setting_at, timer.get())
    }
}

/// `timer_getoverrun(2)`.
pub struct GetTimerOverrun {
    /// The timer's number.
    pub id: i32,
}

impl GetTimerOverrun {
    /// Gives how often it went off without a signal.
    ///
    /// # Errors
    ///
    /// `EINVAL`.
    pub fn run(self, actor: Actor<'_>) -> Result<i32> {
        let timer = actor.process.timers.lock().get(self.id)?;
        Ok(timer.overrun())
    }
}

/// `timer_delete(2)`.
pub struct DeleteTimer {
    /// The timer's number.
    pub id: i32,
}

impl DeleteTimer {
    /// Does it.
    ///
    /// # Errors
    ///
    /// `EINVAL`.
    pub fn run(self, actor: Actor<'_>) -> Result<()> {
        actor.process.delete_timer(self.id)
    }
}
