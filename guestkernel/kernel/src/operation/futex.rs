//! `futex(2)`: waiting at words of memory, and waking those who wait.

use super::Actor;
use super::time_value::{deadline_after, deadline_at_realtime, read_timespec};
use crate::error::{Errno, Result};
use crate::executor::until_deadline;
use crate::process::Restart;
use crate::process::futex::{ALL_BITS, Futex, Modification, Waiting};
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
            raw::FUTEX_WAIT
            | raw::FUTEX_WAIT_BITSET
            | raw::FUTEX_LOCK_PI
            | raw::FUTEX_LOCK_PI2
            | raw::FUTEX_WAIT_REQUEUE_PI => None,
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
        let command = self.command();
        let deadline = self.deadline(actor)?;
        let takes_clock = matches!(
            command,
            raw::FUTEX_WAIT_BITSET | raw::FUTEX_WAIT_REQUEUE_PI | raw::FUTEX_LOCK_PI2
        );
        if self.is_realtime() && !takes_clock {
            return Err(Errno::ENOSYS);
        }
        match command {
            raw::FUTEX_LOCK_PI | raw::FUTEX_LOCK_PI2 => self.lock(actor, deadline).await,
            raw::FUTEX_WAIT_REQUEUE_PI => self.wait_for_lock(actor, deadline).await,
            _ => {
                let has_bits = command == raw::FUTEX_WAIT_BITSET;
                let wait = FutexWait {
                    address: self.address,
                    is_private: self.is_private(),
                    value: self.value,
                    bits: if has_bits { self.third } else { ALL_BITS },
                    deadline,
                };
                wait.run(actor).await
            }
        }
        .map(|()| 0)
    }

    /// When the wait ends, as the time says whose address it has.
    fn deadline(&self, actor: Actor<'_>) -> Result<Option<u64>> {
        if self.time == 0 {
            return Ok(None);
        }
        let time = read_timespec(actor.space(), self.time)?;
        Ok(Some(match self.command() {
            raw::FUTEX_WAIT => deadline_after(time),
            raw::FUTEX_LOCK_PI => deadline_at_realtime(time),
            _ if self.is_realtime() => deadline_at_realtime(time),
            _ => time,
        }))
    }

    /// Waits for the lock that the first word is.
    async fn lock(self, actor: Actor<'_>, deadline: Option<u64>) -> Result<()> {
        let futex = Futex::new(actor.space(), self.address, self.is_private())?;
        let Some(waiting) = futex.lock(actor.tid, false, &exists(actor))? else {
            return Ok(());
        };
        match until_woken(actor, &waiting, deadline).await {
            Err(_) if waiting.give_up() => Ok(()),
            // The call is made again whatever the handler says.
            Err(Errno::ERESTARTSYS) => Err(Errno::ERESTARTNOINTR),
            result => result,
        }
    }

    /// Waits to be moved to the lock that the second word is, and then for that.
    async fn wait_for_lock(self, actor: Actor<'_>, deadline: Option<u64>) -> Result<()> {
        if self.address == self.other {
            return Err(Errno::EINVAL);
        }
        let futex = |address| Futex::new(actor.space(), address, self.is_private());
        let lock = futex(self.other)?;
        let waiting = futex(self.address)?.wait_for_lock(self.value, lock, actor.tid)?;
        let result = until_woken(actor, &waiting, deadline).await;
        match (result, result.err().map(|_| waiting.leave())) {
            (Ok(()), _) | (Err(_), Some(None)) => Ok(()),
            // It is at the lock, where the call cannot begin anew.
            (Err(Errno::ERESTARTSYS), Some(Some(true))) => Err(Errno::EAGAIN),
            (Err(Errno::ERESTARTSYS), _) => Err(Errno::ERESTARTNOINTR),
            (error, _) => error,
        }
    }

    /// Gives up the lock that the first word is.
    fn unlock(&self, actor: Actor<'_>) -> Result<u32> {
        let value: u32 = actor.space().read_value(self.address)?;
        if value & raw::FUTEX_TID_MASK != actor.tid {
            return Err(Errno::EPERM);
        }
        let futex = Futex::new(actor.space(), self.address, self.is_private())?;
        futex.unlock(actor.tid).map(|()| 0)
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
            raw::FUTEX_UNLOCK_PI => self.unlock(actor),
            raw::FUTEX_TRYLOCK_PI => {
                let taken = futex(self.address)?.lock(actor.tid, true, &exists(actor));
                taken.map(|_| 0)
            }
            raw::FUTEX_CMP_REQUEUE_PI => {
                let (wake, most) = (self.value as i32, self.time as i32);
                if wake != 1 || most < 0 || self.address == self.other {
                    return Err(Errno::EINVAL);
                }
                let from = futex(self.address)?;
                let to = futex(self.other)?;
                from.requeue_to_lock(to, most as u32, self.third, &exists(actor))
            }
            _ => Err(Errno::ENOSYS),
        }
    }
}

/// Whether there is a thread with a number, which owns a lock.
fn exists(actor: Actor<'_>) -> impl Fn(u32) -> bool {
    move |tid| actor.process.member(tid).is_ok()
}

async fn until_woken(actor: Actor<'_>, waiting: &Waiting, deadline: Option<u64>) -> Result<()> {
    let woken = poll_fn(|context| waiting.poll(context));
    let result = actor.until_signal(until_deadline(deadline, woken)).await;
    result.and_then(|woken| woken.ok_or(Errno::ETIMEDOUT))
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
        match until_woken(actor, &waiting, self.deadline).await {
            // The wake-up would be lost on others.
            Err(_) if waiting.give_up() => Ok(()),
            result => result,
        }
    }
}
