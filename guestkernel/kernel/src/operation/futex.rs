//! `futex(2)`: waiting at words of memory, and waking those who wait.

use super::Actor;
use super::time_value::{deadline_after, deadline_at_realtime, read_timespec};
use crate::error::{Errno, Result};
use crate::executor::until_deadline;
use crate::process::Restart;
use crate::process::futex::{ALL_BITS, Futex, Modification};
use core::future::poll_fn;
use linux_raw_sys::general as raw;

const COMMAND: u32 = !(raw::FUTEX_PRIVATE_FLAG | raw::FUTEX_CLOCK_REALTIME);

/// The arguments of any command; what they mean depends on that.
#[derive(Clone, Copy)]
pub struct FutexCall {
    /// The command, `FUTEX_*`, with its flags.
    pub operation: u32,
    /// Where the word is.
    pub address: u64,
    /// What it is to hold, or how many are woken.
    pub value: u32,
    /// A time's address, or a second count.
    pub time: u64,
    /// Where a second word is.
    pub other: u64,
    /// Bits, an expected value, or what is done to the second word.
    pub third: u32,
}

/// A wait at one word, which goes on where it was when a signal without a handler interrupts it.
#[derive(Clone, Copy)]
pub struct FutexWait {
    /// Where the word is.
    pub address: u64,
    /// Only threads of one address space use it.
    pub is_private: bool,
    /// What it is to hold.
    pub value: u32,
    /// The bits of wake-ups that it hears of.
    pub bits: u32,
    /// The monotonic time at which it ends.
    pub deadline: Option<u64>,
}

impl FutexCall {
    fn command(&self) -> u32 {
        self.operation & COMMAND
    }

    fn is_private(&self) -> bool {
        self.operation & raw::FUTEX_PRIVATE_FLAG != 0
    }

    fn is_realtime(&self) -> bool {
        self.operation & raw::FUTEX_CLOCK_REALTIME != 0
    }

    /// Does it, unless it is a command that waits: `None`, and nothing done, then. Gives how many
    /// waiters were woken or moved.
    #[inline]
    pub fn run_now(&self, actor: Actor<'_>) -> Option<Result<u64>> {
        match self.command() {
            raw::FUTEX_WAIT | raw::FUTEX_WAIT_BITSET => None,
            _ if self.is_realtime() => Some(Err(Errno::ENOSYS)),
            _ => Some(self.change(actor).map(u64::from)),
        }
    }

    /// Does a command that waits.
    ///
    /// # Errors
    ///
    /// Those of `futex(2)`.
    pub async fn run(self, actor: Actor<'_>) -> Result<u64> {
        let is_absolute = self.command() == raw::FUTEX_WAIT_BITSET;
        let deadline = match self.time {
            0 => None,
            at => {
                let time = read_timespec(actor.space(), at)?;
                Some(match (is_absolute, self.is_realtime()) {
                    (false, _) => deadline_after(time),
                    (true, false) => time,
                    (true, true) => deadline_at_realtime(time),
                })
            }
        };
        if self.is_realtime() && !is_absolute {
            return Err(Errno::ENOSYS);
        }
        let wait = FutexWait {
            address: self.address,
            is_private: self.is_private(),
            value: self.value,
            bits: if is_absolute { self.third } else { ALL_BITS },
            deadline,
        };
        wait.run(actor).await.map(|()| 0)
    }

    /// Does what does not wait; returns how many waiters were woken or moved.
    fn change(&self, actor: Actor<'_>) -> Result<u32> {
        let futex = |address| Futex::new(actor.space(), address, self.is_private());
        // Linux wakes one even if none is asked for.
        let count = (self.value as i32).max(1) as u32;
        match self.command() {
            raw::FUTEX_WAKE => futex(self.address)?.wake(count, ALL_BITS),
            raw::FUTEX_WAKE_BITSET if self.third == 0 => Err(Errno::EINVAL),
            raw::FUTEX_WAKE_BITSET => futex(self.address)?.wake(count, self.third),
            raw::FUTEX_REQUEUE | raw::FUTEX_CMP_REQUEUE => {
                let counts = (self.value, self.time as u32);
                if (counts.0 as i32) < 0 || (counts.1 as i32) < 0 {
                    return Err(Errno::EINVAL);
                }
                let expected = (self.command() == raw::FUTEX_CMP_REQUEUE).then_some(self.third);
                futex(self.address)?.requeue(futex(self.other)?, counts, expected)
            }
            raw::FUTEX_WAKE_OP => {
                let (first, second) = (futex(self.address)?, futex(self.other)?);
                let second_count = (self.time as i32).max(1) as u32;
                let modification = Modification::decode(self.third)?;
                first.wake_both(second, [count, second_count], modification)
            }
            _ => Err(Errno::ENOSYS),
        }
    }
}

impl FutexWait {
    /// Waits.
    ///
    /// # Errors
    ///
    /// Those of `futex(2)`.
    pub async fn run(self, actor: Actor<'_>) -> Result<()> {
        match (self.wait(actor).await, self.deadline) {
            (Err(Errno::ERESTARTSYS), Some(deadline)) => Err(actor.interrupted(Restart::Futex {
                address: self.address,
                value: (self.value, self.bits),
                is_private: self.is_private,
                deadline,
            })),
            (result, _) => result,
        }
    }

    async fn wait(&self, actor: Actor<'_>) -> Result<()> {
        let futex = Futex::new(actor.space(), self.address, self.is_private)?;
        let waiting = futex.wait(self.value, self.bits)?;
        let woken = poll_fn(|context| waiting.poll(context));
        let result = actor
            .until_signal(until_deadline(self.deadline, woken))
            .await;
        match result.and_then(|woken| woken.ok_or(Errno::ETIMEDOUT)) {
            // The wake-up would be lost on others.
            Err(_) if waiting.give_up() => Ok(()),
            result => result,
        }
    }
}
