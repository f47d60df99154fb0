//! System calls about timers that send signals.

use super::Args;
use super::time::{Clock, SECOND, deadline_at_realtime, read_timespec, timespec, timeval};
use crate::error::{Errno, Result};
use crate::mm::AddressSpace;
use crate::process::{IntervalTimer, Notice, Signal, Target, Thread, TimerSetting};
use alloc::sync::Arc;
use linux_raw_sys::general as raw;

/// Bytes of `struct sigevent` before what depends on how it notifies.
const EVENT_VALUE: u64 = 0;
const EVENT_SIGNAL: u64 = 8;
const EVENT_KIND: u64 = 12;
const EVENT_THREAD: u64 = 16;
/// Bytes of `struct itimerspec` and `struct itimerval`.
const SETTING_SIZE: usize = 32;

fn read_timeval(space: &AddressSpace, address: u64) -> Result<u64> {
    let time: raw::timeval = space.read_value(address)?;
    if time.tv_sec < 0 || !(0..1_000_000).contains(&time.tv_usec) {
        return Err(Errno::EINVAL);
    }
    Ok((time.tv_sec as u64)
        .saturating_mul(SECOND)
        .saturating_add(time.tv_usec as u64 * 1000))
}

fn write_interval(space: &AddressSpace, address: u64, setting: TimerSetting) -> Result<()> {
    space.write_value(address, &timeval(setting.interval))?;
    space.write_value(address.wrapping_add(16), &timeval(setting.value))
}

fn interval_timer(thread: &Thread, which: u32) -> Result<&Arc<IntervalTimer>> {
    let timers = &thread.process.interval_timers;
    timers.get(which).ok_or(Errno::EINVAL)
}

pub(super) fn getitimer(thread: &mut Thread, args: Args) -> Result<u64> {
    let setting = interval_timer(thread, args.uint(0))?.get();
    write_interval(&thread.process.space, args.get(1), setting)?;
    Ok(0)
}

pub(super) fn setitimer(thread: &mut Thread, args: Args) -> Result<u64> {
    let space = &thread.process.space;
    let setting = match args.get(1) {
        0 => TimerSetting::default(),
        address => TimerSetting {
            interval: read_timeval(space, address)?,
            value: read_timeval(space, address.wrapping_add(16))?,
        },
    };
    if args.get(2) != 0 {
        space.prepare_write(args.get(2), SETTING_SIZE)?;
    }
    let before = interval_timer(thread, args.uint(0))?.set(setting);
    if args.get(2) != 0 {
        write_interval(space, args.get(2), before)?;
    }
    Ok(0)
}

pub(super) fn alarm(thread: &mut Thread, args: Args) -> Result<u64> {
    let setting = TimerSetting {
        value: u64::from(args.uint(0)) * SECOND,
        interval: 0,
    };
    let before = thread.process.interval_timers.real().set(setting);
    // Rounded to the nearest second, but never to "none".
    let seconds = before.value.saturating_add(SECOND / 2) / SECOND;
    Ok(seconds.max(u64::from(before.value > 0)))
}

/// What a timer does when it goes off, as the `sigevent` at `address` says.
fn read_notice(thread: &Thread, address: u64) -> Result<Option<Notice>> {
    if address == 0 {
        return Ok(Some(Notice {
            signal: Signal::SIGALRM,
            target: Target::Process,
            value: None,
        }));
    }
    let space = &thread.process.space;
    let field = |offset: u64| space.read_value::<i32>(address.wrapping_add(offset));
    let value = space.read_value(address.wrapping_add(EVENT_VALUE))?;
    let (number, kind) = (field(EVENT_SIGNAL)?, field(EVENT_KIND)? as u32);
    let tid = field(EVENT_THREAD)?;
    let target = match kind {
        raw::SIGEV_NONE => return Ok(None),
        raw::SIGEV_SIGNAL | raw::SIGEV_THREAD => Target::Process,
        _ if kind == raw::SIGEV_THREAD_ID | raw::SIGEV_SIGNAL => {
            let is_member = tid > 0 && thread.process.thread(tid, &thread.state).is_ok();
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

pub(super) fn timer_create(thread: &mut Thread, args: Args) -> Result<u64> {
    let clock = Clock::new(thread, args.int(0))?.for_timer(thread)?;
    let is_alarm = matches!(
        args.uint(0),
        raw::CLOCK_REALTIME_ALARM | raw::CLOCK_BOOTTIME_ALARM
    );
    if is_alarm {
        // As without a real-time clock that could wake the machine.
        return Err(Errno::EOPNOTSUPP);
    }
    let notice = read_notice(thread, args.get(1))?;
    let process = &thread.process;
    process.space.prepare_write(args.get(2), size_of::<i32>())?;
    let is_realtime = matches!(args.uint(0), raw::CLOCK_REALTIME | raw::CLOCK_TAI);
    let id = process.create_timer(clock, is_realtime, notice)?;
    if let Err(error) = process.space.write_value(args.get(2), &id) {
        process.delete_timer(id)?;
        return Err(error);
    }
    Ok(0)
}

/// A setting with what is left and the interval in the order of `struct itimerspec`.
fn write_setting(space: &AddressSpace, address: u64, setting: TimerSetting) -> Result<()> {
    space.write_value(address, &timespec(setting.interval))?;
    space.write_value(address.wrapping_add(16), &timespec(setting.value))
}

pub(super) fn timer_settime(thread: &mut Thread, args: Args) -> Result<u64> {
    let process = &thread.process;
    if args.get(2) == 0 {
        return Err(Errno::EINVAL);
    }
    let setting = TimerSetting {
        interval: read_timespec(&process.space, args.get(2))?,
        value: read_timespec(&process.space, args.get(2).wrapping_add(16))?,
    };
    let timer = process.timers.lock().get(args.int(0))?;
    if args.get(3) != 0 {
        process.space.prepare_write(args.get(3), SETTING_SIZE)?;
    }
    let before = timer.get();
    let is_absolute = args.uint(1) & raw::TIMER_ABSTIME != 0;
    let expires = (setting.value > 0).then(|| match is_absolute {
        true if timer.is_realtime() => deadline_at_realtime(setting.value),
        true => setting.value,
        false => timer.now().saturating_add(setting.value),
    });
    process.set_timer(&timer, expires, setting.interval);
    if args.get(3) != 0 {
        write_setting(&process.space, args.get(3), before)?;
    }
    Ok(0)
}

pub(super) fn timer_gettime(thread: &mut Thread, args: Args) -> Result<u64> {
    let timer = thread.process.timers.lock().get(args.int(0))?;
    write_setting(&thread.process.space, args.get(1), timer.get())?;
    Ok(0)
}

pub(super) fn timer_getoverrun(thread: &mut Thread, args: Args) -> Result<u64> {
    let timer = thread.process.timers.lock().get(args.int(0))?;
    Ok(timer.overrun() as u64)
}

pub(super) fn timer_delete(thread: &mut Thread, args: Args) -> Result<u64> {
    thread.process.delete_timer(args.int(0))?;
    Ok(0)
}
