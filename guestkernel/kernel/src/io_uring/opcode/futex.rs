//! `IORING_OP_FUTEX_WAIT`, `FUTEX_WAKE` and `FUTEX_WAITV`: futexes as `futex2` has them.

use super::{Completion, Issue, Prepared, Started, Work};
use crate::error::{Errno, Result};
use crate::io_uring::ring::RingState;
use crate::io_uring::sqe::{RequestFlags, Sqe};
use crate::operation::{Actor, FutexWaits, FutexWord, WaitBegun, read_futex_words};
use smallvec::SmallVec;

fn word_and_bits(sqe: &Sqe) -> Result<(FutexWord, u32)> {
    let flags = u32::try_from(sqe.fd()).map_err(|_| Errno::EINVAL)?;
    let word = FutexWord::new(sqe.address(), sqe.offset(), flags)?;
    let bits = u32::try_from(sqe.address3()).map_err(|_| Errno::EINVAL)?;
    Ok((word, bits))
}

/// A prepared FUTEX_WAIT.
pub(in crate::io_uring) struct FutexWait {
    word: FutexWord,
    bits: u32,
}

impl Prepared for FutexWait {
    fn prepare(sqe: &Sqe, _: RequestFlags, _: Actor<'_>) -> Result<Self> {
        let (word, bits) = word_and_bits(sqe)?;
        Ok(Self { word, bits })
    }

    fn start(self, _: &mut RingState, issue: Issue<'_>) -> Started {
        let waiting = FutexWaits::at_one(self.word, self.bits, issue.actor);
        waiting.map(Work::futex).into()
    }
}

/// A prepared FUTEX_WAKE.
pub(in crate::io_uring) struct FutexWake {
    word: FutexWord,
    bits: u32,
}

impl Prepared for FutexWake {
    fn prepare(sqe: &Sqe, _: RequestFlags, _: Actor<'_>) -> Result<Self> {
        let (word, bits) = word_and_bits(sqe)?;
        Ok(Self { word, bits })
    }

    fn start(self, _: &mut RingState, issue: Issue<'_>) -> Started {
        let woken = self.word.wake(self.bits, issue.actor);
        Completion::of(woken.map(|count| count as i32)).into()
    }
}

/// A prepared FUTEX_WAITV.
pub(in crate::io_uring) struct FutexWaitV(SmallVec<[FutexWord; 1]>);

impl Prepared for FutexWaitV {
    fn prepare(sqe: &Sqe, _: RequestFlags, actor: Actor<'_>) -> Result<Self> {
        if sqe.fd() != 0 {
            return Err(Errno::EINVAL);
        }
        read_futex_words(actor, sqe.address(), sqe.length()).map(Self)
    }

    fn start(self, _: &mut RingState, issue: Issue<'_>) -> Started {
        match FutexWaits::at_any(&self.0, issue.actor) {
            Ok(WaitBegun::Waits(waiting)) => Started::Pending(Work::futex(waiting)),
            Ok(WaitBegun::Woken(index)) => Completion::success(index as i32).into(),
            Err(error) => error.into(),
        }
    }
}
