//! Clocks: `clock_gettime(2)` and its relatives, `gettimeofday(2)`, `times(2)`, `getrusage(2)`.

use super::Actor;
use super::time_value::{SECOND, TimeValue, read_timespec, timespec, timeval};
use crate::error::{Errno, Result};
use crate::process::{CLOCK_TICKS, ThreadState, TimerClock};
use alloc::sync::Arc;
use linux_raw_sys::general as raw;
use machine::{Plain, clock};

/// The difference between TAI and UTC is unknown until somebody sets it; Linux starts with 0 too.
const TAI_OFFSET: u64 = 0;
/// Kinds of clocks in the numbers below 0, of the lower three bits: a clock of CPU time
/// (`clock_getcpuclockid(3)`), of a process or a thread, or one that a descriptor names.
const KIND: u32 = 7;
const KIND_THREAD: u32 = 4;
const KIND_DESCRIPTOR: u32 = 3;
/// What a clock of CPU time counts, of the lower two bits: three there are.
const COUNTS: u32 = 3;
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
    /// One that would wake the machine, for which there is no device.
    Alarm,
    /// One that a descriptor names, of which there are none.
    Descriptor,
}

impl Clock {
    /// The clock with the number `id`, as `actor` means it.
    ///
    /// # Errors
    ///
    /// `EINVAL` if there is none.
    pub(super) fn new(actor: Actor<'_>, id: i32) -> Result<Self> {
        if id < 0 {
            return match id as u32 & KIND {
                KIND_DESCRIPTOR => Ok(Self::Descriptor),
                kind => Self::of_cpu_time(actor, kind, !(id >> 3)),
            };
        }
        Ok(match id as u32 {
            raw::CLOCK_REALTIME | raw::CLOCK_TAI => Self::Realtime,
            raw::CLOCK_MONOTONIC | raw::CLOCK_BOOTTIME => Self::Monotonic,
            raw::CLOCK_REALTIME_ALARM | raw::CLOCK_BOOTTIME_ALARM => Self::Alarm,
            raw::CLOCK_PROCESS_CPUTIME_ID => Self::Process,
            raw::CLOCK_THREAD_CPUTIME_ID => Self::OwnCpu,
            raw::CLOCK_MONOTONIC_RAW | raw::CLOCK_MONOTONIC_COARSE => {
                Self::Variant { is_realtime: false }
            }
            raw::CLOCK_REALTIME_COARSE => Self::Variant { is_realtime: true },
            _ => return Err(Errno::EINVAL),
        })
    }

    fn of_cpu_time(actor: Actor<'_>, kind: u32, pid: i32) -> Result<Self> {
        if kind & COUNTS == COUNTS {
            return Err(Errno::EINVAL);
        }
        let target = actor.thread_numbered(pid).map_err(|_| Errno::EINVAL)?;
        match kind & KIND_THREAD != 0 {
            true => Ok(Self::Thread(target)),
            false if pid == 0 || pid.unsigned_abs() == actor.process.pid => Ok(Self::Process),
            false => Err(Errno::EINVAL),
        }
    }

    /// Whether no timer can go by it, whatever it is to do.
    pub(super) fn has_no_timers(&self) -> bool {
        matches!(self, Self::Variant { .. } | Self::Descriptor)
    }

    /// What a timer of `actor` by this clock goes by.
    ///
    /// # Errors
    ///
    /// `EOPNOTSUPP`.
    pub(super) fn for_timer(&self, actor: Actor<'_>) -> Result<TimerClock> {
        Ok(match self {
            Self::Realtime | Self::Monotonic => TimerClock::Monotonic,
            Self::Process => TimerClock::Process(actor.process.weak().clone()),
            Self::Thread(target) => TimerClock::Thread(Arc::downgrade(target)),
            Self::OwnCpu => TimerClock::Thread(Arc::downgrade(&actor.thread_numbered(0)?)),
            Self::Variant { .. } | Self::Alarm | Self::Descriptor => {
                return Err(Errno::EOPNOTSUPP);
            }
        })
    }

    /// What it shows, in nanoseconds.
    ///
    /// # Errors
    ///
    /// `EINVAL` for one that is not there.
    pub(super) fn now(&self, actor: Actor<'_>) -> Result<u64> {
        Ok(match self {
            Self::Realtime | Self::Variant { is_realtime: true } => clock::realtime() + TAI_OFFSET,
            Self::Monotonic | Self::Variant { is_realtime: false } => clock::monotonic(),
            Self::Process => actor.process.cpu_time(),
            Self::Thread(target) => target.cpu_time(),
            Self::OwnCpu => actor.thread_numbered(0)?.cpu_time(),
            Self::Alarm | Self::Descriptor => return Err(Errno::EINVAL),
        })
    }
}

/// `clock_gettime(2)`.
pub struct GetTime {
    /// `CLOCK_*`.
    pub clock: i32,
    /// Where the time goes.
    pub time_at: u64,
}

impl GetTime {
    /// Does it.
    ///
    /// # Errors
    ///
    /// `EINVAL`, `EFAULT`.
    pub fn run(self, actor: Actor<'_>) -> Result<()> {
        let now = Clock::new(actor, self.clock)?.now(actor)?;
        actor.space().write_value(self.time_at, &timespec(now))
    }
}

/// `clock_getres(2)`.
pub struct GetResolution {
    /// `CLOCK_*`.
    pub clock: i32,
    /// Where it goes; 0 for nowhere.
    pub resolution_at: u64,
}

impl GetResolution {
    /// Does it.
    ///
    /// # Errors
    ///
    /// `EINVAL`, `EFAULT`.
    pub fn run(self, actor: Actor<'_>) -> Result<()> {
        let clock = Clock::new(actor, self.clock)?;
        if matches!(clock, Clock::Alarm | Clock::Descriptor) {
            return Err(Errno::EINVAL);
        }
        match self.resolution_at {
            0 => Ok(()),
            at => actor.space().write_value(at, &timespec(1)),
        }
    }
}

/// `clock_settime(2)`. The host keeps the time; a program cannot set it.
pub struct SetTime {
    /// `CLOCK_*`.
    pub clock: i32,
    /// Where the time is.
    pub time_at: u64,
}

impl SetTime {
    /// Checks it.
    ///
    /// # Errors
    ///
    /// `EPERM` if it could be set, `EINVAL`, `EFAULT`.
    pub fn run(self, actor: Actor<'_>) -> Result<()> {
        let clock = Clock::new(actor, self.clock)?;
        read_timespec(actor.space(), self.time_at)?;
        match clock {
            Clock::Realtime => Err(Errno::EPERM),
            _ => Err(Errno::EINVAL),
        }
    }
}

/// `settimeofday(2)`.
pub struct SetTimeOfDay {
    /// Where the time is; 0 for nowhere.
    pub time_at: u64,
    /// Where the time zone is; 0 for nowhere.
    pub zone_at: u64,
}

impl SetTimeOfDay {
    /// Checks it.
    ///
    /// # Errors
    ///
    /// `EPERM` if there is something to set, `EINVAL`, `EFAULT`.
    pub fn run(self, actor: Actor<'_>) -> Result<()> {
        let space = actor.space();
        if self.time_at != 0 {
            let time: raw::timeval = space.read_value(self.time_at)?;
            // Linux takes a whole second of microseconds for one.
            if !(0..=1_000_000).contains(&time.tv_usec) {
                return Err(Errno::EINVAL);
            }
        }
        if self.zone_at != 0 {
            space.read_value::<u64>(self.zone_at)?;
        }
        match self.time_at != 0 || self.zone_at != 0 {
            true => Err(Errno::EPERM),
            false => Ok(()),
        }
    }
}

/// `gettimeofday(2)`.
pub struct GetTimeOfDay {
    /// Where the time goes; 0 for nowhere.
    pub time_at: u64,
    /// Where the time zone goes; 0 for nowhere.
    pub zone_at: u64,
}

impl GetTimeOfDay {
    /// Does it.
    ///
    /// # Errors
    ///
    /// `EFAULT`.
    pub fn run(self, actor: Actor<'_>) -> Result<()> {
        let space = actor.space();
        if self.time_at != 0 {
            space.write_value(self.time_at, &timeval(clock::realtime()))?;
        }
        if self.zone_at != 0 {
            // UTC, no daylight saving.
            space.write_value(self.zone_at, &0_u64)?;
        }
        Ok(())
    }
}

/// `time(2)`.
pub struct GetSeconds {
    /// Where the time goes, too; 0 for nowhere.
    pub time_at: u64,
}

impl GetSeconds {
    /// Does it; gives the seconds since 1970.
    ///
    /// # Errors
    ///
    /// `EFAULT`.
    pub fn run(self, actor: Actor<'_>) -> Result<u64> {
        let now = clock::realtime() / SECOND;
        if self.time_at != 0 {
            actor.space().write_value(self.time_at, &now)?;
        }
        Ok(now)
    }
}

/// `times(2)`. All CPU time counts as the program's: telling its share would take two looks at the
/// clock for every system call.
pub struct GetTimes {
    /// Where they go; 0 for nowhere.
    pub times_at: u64,
}

impl GetTimes {
    /// Does it; gives the time since boot. The unit is [`CLOCK_TICKS`] a second.
    ///
    /// # Errors
    ///
    /// `EFAULT`.
    pub fn run(self, actor: Actor<'_>) -> Result<u64> {
        let tick = SECOND / CLOCK_TICKS;
        if self.times_at != 0 {
            let user = actor.process.cpu_time() / tick;
            let of_children = actor.process.children_cpu_time() / tick;
            for (index, value) in [user, 0, of_children, 0].iter().enumerate() {
                let at = self.times_at.wrapping_add(index as u64 * 8);
                actor.space().write_value(at, value)?;
            }
        }
        Ok(clock::monotonic() / tick)
    }
}

/// `getrusage(2)`.
pub struct GetUsage {
    /// `RUSAGE_*`.
    pub who: i32,
    /// Where it goes.
    pub usage_at: u64,
}

impl GetUsage {
    /// Does it.
    ///
    /// # Errors
    ///
    /// `EINVAL`, `EFAULT`.
    pub fn run(self, actor: Actor<'_>) -> Result<()> {
        let used = match self.who {
            0 => actor.process.cpu_time(),
            RUSAGE_THREAD => actor.thread_numbered(0)?.cpu_time(),
            // Of children that were waited for.
            -1 => actor.process.children_cpu_time(),
            _ => return Err(Errno::EINVAL),
        };
        let mut usage = raw::rusage::zeroed();
        let time = timeval(used);
        usage.ru_utime.tv_sec = time.tv_sec;
        usage.ru_utime.tv_usec = time.tv_usec;
        actor.space().write_value(self.usage_at, &usage)
    }
}

/// The time of an interval timer, which is in microseconds.
pub(super) fn read_timeval(actor: Actor<'_>, address: u64) -> Result<u64> {
    TimeValue::read_timeval(actor.space(), address)?.nanoseconds()
}
