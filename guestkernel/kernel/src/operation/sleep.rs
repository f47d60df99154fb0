//! Sleeping: `nanosleep(2)`, `clock_nanosleep(2)`.

use super::Actor;
use super::clock::Clock;
use super::time_value::{deadline_after, deadline_at_realtime, read_timespec, timespec};
use crate::error::{Errno, Result};
use crate::executor::sleep_until;
use crate::process::Restart;
use linux_raw_sys::general as raw;
use machine::clock;

/// A sleep for a while.
pub struct Sleep {
    /// The monotonic time at which it is over.
    pub deadline: u64,
    /// Where what is left is stored if a signal with a handler ends it; 0 for nowhere.
    pub remaining_at: u64,
}

impl Sleep {
    /// One for as long as the `struct timespec` at `time_at` says.
    ///
    /// # Errors
    ///
    /// `EFAULT`, `EINVAL`.
    pub fn read(actor: Actor<'_>, time_at: u64, remaining_at: u64) -> Result<Self> {
        let time = read_timespec(actor.space(), time_at)?;
        Ok(Self {
            deadline: deadline_after(time),
            remaining_at,
        })
    }

    /// Sleeps; goes on if a signal without a handler interrupts it.
    ///
    /// # Errors
    ///
    /// Those of `nanosleep(2)`.
    pub async fn run(self, actor: Actor<'_>) -> Result<()> {
        let result = actor.until_signal(sleep_until(self.deadline)).await;
        if result.is_ok() {
            return Ok(());
        }
        if self.remaining_at != 0 {
            let left = timespec(self.deadline.saturating_sub(clock::monotonic()));
            let space = actor.space();
            let store = || space.write_value(self.remaining_at, &left);
            space.retry(store).await?;
        }
        Err(actor.interrupted(Restart::Sleep {
            deadline: self.deadline,
            remaining: self.remaining_at,
        }))
    }
}

/// `clock_nanosleep(2)`.
pub struct SleepOnClock {
    /// `CLOCK_*`.
    pub clock: i32,
    /// `TIMER_ABSTIME`, or none.
    pub flags: u32,
    /// Where the time is.
    pub time_at: u64,
    /// Where what is left is stored; 0 for nowhere.
    pub remaining_at: u64,
}

impl SleepOnClock {
    /// Sleeps.
    ///
    /// # Errors
    ///
    /// Those of `clock_nanosleep(2)`.
    pub async fn run(self, actor: Actor<'_>) -> Result<()> {
        // Which thread or process a clock of CPU time is about is looked at last.
        let clock = match Clock::new(actor, self.clock) {
            Err(_) if self.clock < 0 => None,
            clock => Some(clock?),
        };
        if matches!(
            clock,
            Some(Clock::Variant { .. } | Clock::OwnCpu | Clock::Alarm | Clock::Descriptor)
        ) {
            return Err(Errno::EOPNOTSUPP);
        }
        let time = read_timespec(actor.space(), self.time_at)?;
        let clock = clock.ok_or(Errno::EINVAL)?;
        let is_absolute = self.flags & raw::TIMER_ABSTIME != 0;
        match (&clock, is_absolute) {
            (Clock::Thread(target), _) if target.tid == actor.tid => Err(Errno::EINVAL),
            (Clock::Process | Clock::Thread(_), _) => {
                let start = if is_absolute { 0 } else { clock.now(actor)? };
                let end = start.saturating_add(time);
                let sleeping = sleep_on(&clock, actor, end);
                let result = actor.until_signal(sleeping).await;
                result.map_err(|_| match is_absolute {
                    true => Errno::ERESTARTNOHAND,
                    false => Errno::EINTR,
                })?
            }
            (_, false) => {
                let sleep = Sleep {
                    deadline: deadline_after(time),
                    remaining_at: self.remaining_at,
                };
                sleep.run(actor).await
            }
            (Clock::Realtime, true) => sleep_absolute(actor, deadline_at_realtime(time)).await,
            (_, true) => sleep_absolute(actor, time).await,
        }
    }
}

/// Sleeps until `deadline`, which does not change if the call is made again.
async fn sleep_absolute(actor: Actor<'_>, deadline: u64) -> Result<()> {
    let result = actor.until_signal(sleep_until(deadline)).await;
    result.map_err(|_| Errno::ERESTARTNOHAND)
}

/// Sleeps until a clock of CPU time, which runs as fast as all CPUs together at most, shows `end`.
async fn sleep_on(clock: &Clock, actor: Actor<'_>, end: u64) -> Result<()> {
    /// So that a clock that stands still costs little.
    const AT_LEAST: u64 = 1_000_000;
    let cpus = u64::from(machine::cpu_count());
    while let Some(left @ 1..) = end.checked_sub(clock.now(actor)?) {
        sleep_until(deadline_after((left / cpus).max(AT_LEAST))).await;
    }
    Ok(())
}
