//! Timers that are files: `timerfd_create(2)`.

use super::time_value::{deadline_after, deadline_at_realtime};
use super::timer::{SETTING_SIZE, read_setting, write_setting};
use super::{Actor, FileRef};
use crate::error::{Errno, Result};
use crate::fs::timerfd::{TimerFd, TimerFdSetting, TimerFile};
use crate::fs::{OpenFile, OpenFlags};
use alloc::sync::Arc;
use linux_raw_sys::general as raw;

/// `TFD_TIMER_CANCEL_ON_SET`, which linux-raw-sys lacks (`include/uapi/linux/timerfd.h`): a read fails
/// when the clock was set. Nobody can set it.
const CANCEL_ON_SET: u32 = 1 << 1;
const ABSOLUTE: u32 = raw::TFD_TIMER_ABSTIME;

/// `timerfd_create(2)`.
pub struct MakeTimerFd {
    /// `CLOCK_*`.
    pub clock: u32,
    /// `TFD_CLOEXEC`, `TFD_NONBLOCK`.
    pub flags: u32,
}

impl MakeTimerFd {
    /// Makes it, and gives it a descriptor.
    ///
    /// # Errors
    ///
    /// `EINVAL`, `EMFILE`.
    pub fn install(self, actor: Actor<'_>) -> Result<i32> {
        if self.flags & !(raw::TFD_CLOEXEC | raw::TFD_NONBLOCK) != 0 {
            return Err(Errno::EINVAL);
        }
        let is_realtime = match self.clock {
            raw::CLOCK_REALTIME | raw::CLOCK_REALTIME_ALARM => true,
            raw::CLOCK_MONOTONIC | raw::CLOCK_BOOTTIME | raw::CLOCK_BOOTTIME_ALARM => false,
            _ => return Err(Errno::EINVAL),
        };
        let mut kept = OpenFlags::READ_WRITE;
        kept.set(OpenFlags::NONBLOCK, self.flags & raw::TFD_NONBLOCK != 0);
        let timer = TimerFile::new(TimerFd::new(is_realtime));
        let file = OpenFile::new(Arc::new(timer), kept);
        let close_on_exec = self.flags & raw::TFD_CLOEXEC != 0;
        actor.process.files.insert(file, close_on_exec, 0)
    }
}

fn timer(actor: Actor<'_>, file: FileRef) -> Result<Arc<TimerFd>> {
    TimerFd::of(&*actor.file(file)?).ok_or(Errno::EINVAL)
}

/// `timerfd_settime(2)`.
pub struct SetTimerFd {
    /// The timer.
    pub file: FileRef,
    /// `TFD_TIMER_*`.
    pub flags: u32,
    /// Where the `struct itimerspec` is.
    pub setting_at: u64,
    /// Where the setting before goes; 0 for nowhere.
    pub before_at: u64,
}

impl SetTimerFd {
    /// Does it.
    ///
    /// # Errors
    ///
    /// Those of `timerfd_settime(2)`.
    pub fn run(self, actor: Actor<'_>) -> Result<()> {
        let space = actor.space();
        let setting = read_setting(space, self.setting_at)?;
        if self.flags & !(ABSOLUTE | CANCEL_ON_SET) != 0 {
            return Err(Errno::EINVAL);
        }
        let timer = timer(actor, self.file)?;
        if self.before_at != 0 {
            space.prepare_write(self.before_at, SETTING_SIZE)?;
        }
        let deadline = (setting.value > 0).then(|| match self.flags & ABSOLUTE != 0 {
            true if timer.is_realtime() => deadline_at_realtime(setting.value),
            true => setting.value,
            false => deadline_after(setting.value),
        });
        let before = timer.set(TimerFdSetting {
            deadline,
            interval: setting.interval,
        });
        match self.before_at {
            0 => Ok(()),
            at => write_setting(space, at, before),
        }
    }
}

/// `timerfd_gettime(2)`.
pub struct GetTimerFd {
    /// The timer.
    pub file: FileRef,
    /// Where its setting goes.
    pub setting_at: u64,
}

impl GetTimerFd {
    /// Does it.
    ///
    /// # Errors
    ///
    /// `EBADF`, `EINVAL`, `EFAULT`.
    pub fn run(self, actor: Actor<'_>) -> Result<()> {
        let left = timer(actor, self.file)?.get();
        write_setting(actor.space(), self.setting_at, left)
    }
}
