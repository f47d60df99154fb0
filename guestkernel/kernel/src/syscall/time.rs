//! System calls about time: clocks, sleeping, alarms, accounting.

use super::Args;
use crate::error::{Errno, Result};
use crate::executor::sleep_until;
use crate::mm::AddressSpace;
use crate::process::{CLOCK_TICKS, Restart, Thread, ThreadState, TimerClock};
use alloc::sync::Arc;
use linux_raw_sys::general as raw;
use machine::clock;

pub(super) const SECOND: u64 = 1_000_000_000;
/// The difference between TAI and UTC is unknown until somebody sets it; Linux starts with 0 too.
const TAI_OFFSET: u64 = 0;
/// Kinds of clocks in the numbers that `clock_getcpuclockid(3)` makes: of the lower three bits.
const CPU_CLOCK_MAX: u32 = 2;
const CPU_CLOCK_THREAD: u32 = 4;
/// Of `getrusage(2)`.
const RUSAGE_THREAD: i32 = 1;

/// A clock of `clock_gettime(2)`.
#[derive(Clone, Debug)]
pub(super) enum Clock {
    Realtime,
    Monotonic,
    /// CPU time of the process.
    Process,
    /// CPU time of a thread.
    Thread(Arc<ThreadState>),
    /// The calling thread's CPU time: it stands still while the thread waits.
    OwnCpu,
    /// A raw or coarse variant of another.
    Variant {
        is_realtime: bool,
    },
}

impl Clock {
    /// The clock with the number `id`, as `thread` means it.
    pub(super) fn new(thread: &Thread, id: i32) -> Result<Self> {
        if id < 0 {
            let kind = id as u32 & 7;
            let pid = !(id >> 3);
            if kind & 3 > CPU_CLOCK_MAX {
                return Err(Errno::EINVAL);
            }
            let is_thread = kind & CPU_CLOCK_THREAD != 0;
            let target = thread.process.thread(pid, &thread.state);
            return match target {
                Ok(target) if is_thread => Ok(Self::Thread(target)),
                Ok(_) if matches!(pid, 0) || pid.unsigned_abs() == thread.process.pid => {
                    Ok(Self::Process)
                }
                _ => Err(Errno::EINVAL),
            };
        }
        Ok(match id as u32 {
            raw::CLOCK_REALTIME | raw::CLOCK_TAI | raw::CLOCK_REALTIME_ALARM => Self::Realtime,
            raw::CLOCK_MONOTONIC | raw::CLOCK_BOOTTIME | raw::CLOCK_BOOTTIME_ALARM => {
                Self::Monotonic
            }
            raw::CLOCK_PROCESS_CPUTIME_ID => Self::Process,
            raw::CLOCK_THREAD_CPUTIME_ID => Self::OwnCpu,
            raw::CLOCK_MONOTONIC_RAW | raw::CLOCK_MONOTONIC_COARSE => {
                Self::Variant { is_realtime: false }
            }
            raw::CLOCK_REALTIME_COARSE => Self::Variant { is_realtime: true },
            _ => return Err(Errno::EINVAL),
        })
    }

    /// What a timer of `thread` by this clock goes by.
    pub(super) fn for_timer(&self, thread: &Thread) -> Result<TimerClock> {
        Ok(match self {
            Self::Realtime | Self::Monotonic => TimerClock::Monotonic,
            Self::Process => TimerClock::Process(thread.process.weak().clone()),
            Self::Thread(target) => TimerClock::Thread(Arc::downgrade(target)),
            Self::OwnCpu => TimerClock::Thread(Arc::downgrade(&thread.state)),
            Self::Variant { .. } => return Err(Errno::EOPNOTSUPP),
        })
    }

    /// What it shows, in nanoseconds.
    fn now(&self, thread: &Thread) -> u64 {
        match self {
            Self::Realtime | Self::Variant { is_realtime: true } => clock::realtime() + TAI_OFFSET,
            Self::Monotonic | Self::Variant { is_realtime: false } => clock::monotonic(),
            Self::Process => thread.process.cpu_time(),
            Self::Thread(target) => target.cpu_time(),
            Self::OwnCpu => thread.state.cpu_time(),
        }
    }
}

/// Nanoseconds as a `timespec`.
pub(super) fn timespec(nanoseconds: u64) -> raw::__kernel_timespec {
    raw::__kernel_timespec {
        tv_sec: (nanoseconds / SECOND) as i64,
        tv_nsec: (nanoseconds % SECOND) as i64,
    }
}

pub(super) fn timeval(nanoseconds: u64) -> raw::timeval {
    raw::timeval {
        tv_sec: (nanoseconds / SECOND) as i64,
        tv_usec: (nanoseconds % SECOND / 1000) as i64,
    }
}

/// Nanoseconds of a `timespec`; what does not fit is for ever.
///
/// # Errors
///
/// `EFAULT`, `EINVAL` for a negative time or nanoseconds of a second or more.
pub(crate) fn read_timespec(space: &AddressSpace, address: u64) -> Result<u64> {
    let time: raw::__kernel_timespec = space.read_value(address)?;
    if time.tv_sec < 0 || !(0..SECOND as i64).contains(&time.tv_nsec) {
        return Err(Errno::EINVAL);
    }
    Ok((time.tv_sec as u64)
        .saturating_mul(SECOND)
        .saturating_add(time.tv_nsec as u64))
}

/// The monotonic time at which `nanoseconds` from now are over.
pub(crate) fn deadline_after(nanoseconds: u64) -> u64 {
    clock::monotonic().saturating_add(nanoseconds)
}

/// The monotonic time at which the realtime clock shows `nanoseconds`.
pub(crate) fn deadline_at_realtime(nanoseconds: u64) -> u64 {
    deadline_after(nanoseconds.saturating_sub(clock::realtime()))
}

pub(super) fn clock_gettime(thread: &mut Thread, args: Args) -> Result<u64> {
    let now = Clock::new(thread, args.int(0))?.now(thread);
    thread
        .process
        .space
        .write_value(args.get(1), &timespec(now))?;
    Ok(0)
}

pub(super) fn clock_getres(thread: &mut Thread, args: Args) -> Result<u64> {
    Clock::new(thread, args.int(0))?;
    if args.get(1) != 0 {
        thread
            .process
            .space
            .write_value(args.get(1), &timespec(1))?;
    }
    Ok(0)
}

/// The host keeps the time; a program cannot set it.
pub(super) fn clock_settime(thread: &mut Thread, args: Args) -> Result<u64> {
    let clock = Clock::new(thread, args.int(0))?;
    read_timespec(&thread.process.space, args.get(1))?;
    match clock {
        Clock::Realtime => Err(Errno::EPERM),
        _ => Err(Errno::EINVAL),
    }
}

pub(super) fn settimeofday(thread: &mut Thread, args: Args) -> Result<u64> {
    let space = &thread.process.space;
    let is_set = args.get(0) != 0;
    if is_set {
        let time: raw::timeval = space.read_value(args.get(0))?;
        // Linux takes a whole second of microseconds for one.
        if !(0..=1_000_000).contains(&time.tv_usec) {
            return Err(Errno::EINVAL);
        }
    }
    if args.get(1) != 0 {
        space.read_value::<u64>(args.get(1))?;
    }
    match is_set || args.get(1) != 0 {
        true => Err(Errno::EPERM),
        false => Ok(0),
    }
}

pub(super) fn gettimeofday(thread: &mut Thread, args: Args) -> Result<u64> {
    let space = &thread.process.space;
    if args.get(0) != 0 {
        space.write_value(args.get(0), &timeval(clock::realtime()))?;
    }
    if args.get(1) != 0 {
        // The time zone: UTC, no daylight saving.
        space.write_value(args.get(1), &0_u64)?;
    }
    Ok(0)
}

pub(super) fn time(thread: &mut Thread, args: Args) -> Result<u64> {
    let now = clock::realtime() / SECOND;
    if args.get(0) != 0 {
        thread.process.space.write_value(args.get(0), &now)?;
    }
    Ok(now)
}

/// Sleeps until `deadline`, and if a signal without a handler interrupts it goes on; if it has one,
/// what is left is stored at `remaining`, unless that is 0.
pub(super) async fn sleep(thread: &mut Thread, deadline: u64, remaining: u64) -> Result<u64> {
    let result = thread.until_signal(sleep_until(deadline)).await;
    if result.is_ok() {
        return Ok(0);
    }
    if remaining != 0 {
        let left = timespec(deadline.saturating_sub(clock::monotonic()));
        let space = &thread.process.space;
        space.retry(|| space.write_value(remaining, &left)).await?;
    }
    thread.restart = Some(Restart::Sleep {
        deadline,
        remaining,
    });
    Err(Errno::ERESTART_RESTARTBLOCK)
}

/// Sleeps until `deadline`, which does not change if the call is made again.
async fn sleep_absolute(thread: &Thread, deadline: u64) -> Result<u64> {
    let result = thread.until_signal(sleep_until(deadline)).await;
    result.map(|()| 0).map_err(|_| Errno::ERESTARTNOHAND)
}

pub(super) async fn nanosleep(thread: &mut Thread, args: Args) -> Result<u64> {
    let time = read_timespec(&thread.process.space, args.get(0))?;
    sleep(thread, deadline_after(time), args.get(1)).await
}

pub(super) async fn clock_nanosleep(thread: &mut Thread, args: Args) -> Result<u64> {
    let clock = Clock::new(thread, args.int(0))?;
    if matches!(clock, Clock::Variant { .. } | Clock::OwnCpu) {
        return Err(Errno::EOPNOTSUPP);
    }
    let time = read_timespec(&thread.process.space, args.get(2))?;
    let is_absolute = args.uint(1) & raw::TIMER_ABSTIME != 0;
    match (&clock, is_absolute) {
        (Clock::Thread(target), _) if target.tid == thread.tid => Err(Errno::EINVAL),
        (Clock::Process | Clock::Thread(_), _) => {
            let start = if is_absolute { 0 } else { clock.now(thread) };
            let end = start.saturating_add(time);
            let sleeping = sleep_on(&clock, thread, end);
            let result = thread.until_signal(sleeping).await;
            let error = match is_absolute {
                true => Errno::ERESTARTNOHAND,
                false => Errno::EINTR,
            };
            result.map(|()| 0).map_err(|_| error)
        }
        (_, false) => sleep(thread, deadline_after(time), args.get(3)).await,
        (Clock::Realtime, true) => sleep_absolute(thread, deadline_at_realtime(time)).await,
        (_, true) => sleep_absolute(thread, time).await,
    }
}

/// Sleeps until a clock of CPU time, which runs as fast as all CPUs together at most, shows `end`.
async fn sleep_on(clock: &Clock, thread: &Thread, end: u64) {
    /// So that a clock that stands still costs little.
    const AT_LEAST: u64 = 1_000_000;
    let cpus = u64::from(machine::cpu_count());
    while let Some(left @ 1..) = end.checked_sub(clock.now(thread)) {
        sleep_until(deadline_after((left / cpus).max(AT_LEAST))).await;
    }
}

/// All CPU time counts as the program's: telling its share would take two looks at the clock for
/// every system call.
pub(super) fn times(thread: &mut Thread, args: Args) -> Result<u64> {
    let tick = SECOND / CLOCK_TICKS;
    if args.get(0) != 0 {
        let user = thread.process.cpu_time() / tick;
        for (index, value) in [user, 0, 0, 0].iter().enumerate() {
            let at = args.get(0).wrapping_add(index as u64 * 8);
            thread.process.space.write_value(at, value)?;
        }
    }
    Ok(clock::monotonic() / tick)
}

pub(super) fn getrusage(thread: &mut Thread, args: Args) -> Result<u64> {
    use machine::Plain;
    let mut usage = raw::rusage::zeroed();
    let used = match args.int(0) {
        0 => thread.process.cpu_time(),
        RUSAGE_THREAD => thread.state.cpu_time(),
        // Of children: there were none.
        -1 => 0,
        _ => return Err(Errno::EINVAL),
    };
    let time = timeval(used);
    usage.ru_utime.tv_sec = time.tv_sec;
    usage.ru_utime.tv_usec = time.tv_usec;
    thread.process.space.write_value(args.get(1), &usage)?;
    Ok(0)
}
