//! `IORING_OP_FUTEX_WAIT`, `FUTEX_WAKE` and `FUTEX_WAITV`: futexes as `futex2` has them.

use super::{Completion, Issue, Prepared, Progress, Started, Work};
use crate::error::{Errno, Result};
use crate::io_uring::ring::State;
use crate::io_uring::sqe::{RequestFlags, Sqe};
use crate::operation::Actor;
use crate::process::futex::{Futex, Waiting};
use core::task::{Context, Poll};
use linux_raw_sys::general as raw;
use smallvec::SmallVec;

/// The flags of `futex2`: the size of the word, and who shares it. Only words of 32 bits are there.
const SIZE_MASK: u32 = raw::FUTEX2_SIZE_MASK;
const SIZE_U32: u32 = raw::FUTEX2_SIZE_U32;
const PRIVATE: u32 = raw::FUTEX2_PRIVATE;
/// A word's node would follow it; there is one node.
const NUMA: u32 = raw::FUTEX2_NUMA;
/// The most words that one request waits for.
const MOST: u32 = 128;

/// One word.
#[derive(Clone, Copy)]
struct Word {
    address: u64,
    value: u32,
    is_private: bool,
}

impl Word {
    fn new(address: u64, value: u64, flags: u32) -> Result<Self> {
        let is_known = flags & !(SIZE_MASK | NUMA | PRIVATE) == 0;
        if !is_known || flags & SIZE_MASK != SIZE_U32 || flags & NUMA != 0 {
            return Err(Errno::EINVAL);
        }
        Ok(Self {
            address,
            value: u32::try_from(value).map_err(|_| Errno::EINVAL)?,
            is_private: flags & PRIVATE != 0,
        })
    }

    fn futex<'a>(&self, actor: Actor<'a>) -> Result<Futex<'a>> {
        Futex::new(actor.space(), self.address, self.is_private)
    }
}

/// A prepared FUTEX_WAIT.
pub(in crate::io_uring) struct FutexWait {
    word: Word,
    bits: u32,
}

fn word_and_bits(sqe: &Sqe) -> Result<(Word, u32)> {
    let flags = u32::try_from(sqe.fd()).map_err(|_| Errno::EINVAL)?;
    let word = Word::new(sqe.address(), sqe.offset(), flags)?;
    let bits = u32::try_from(sqe.address3()).map_err(|_| Errno::EINVAL)?;
    Ok((word, bits))
}

impl Prepared for FutexWait {
    fn prepare(sqe: &Sqe, _: RequestFlags, _: Actor<'_>) -> Result<Self> {
        let (word, bits) = word_and_bits(sqe)?;
        Ok(Self { word, bits })
    }

    fn start(self, _: &mut State, issue: Issue<'_>) -> Started {
        if self.bits == 0 {
            return Errno::EINVAL.into();
        }
        let waiting = self
            .word
            .futex(issue.actor)
            .and_then(|futex| futex.wait(self.word.value, self.bits));
        waiting
            .map(|waiting| Work::futex(Words([waiting].into(), false)))
            .into()
    }
}

/// A prepared FUTEX_WAKE.
pub(in crate::io_uring) struct FutexWake {
    word: Word,
    bits: u32,
}

impl Prepared for FutexWake {
    fn prepare(sqe: &Sqe, _: RequestFlags, _: Actor<'_>) -> Result<Self> {
        let (word, bits) = word_and_bits(sqe)?;
        Ok(Self { word, bits })
    }

    fn start(self, _: &mut State, issue: Issue<'_>) -> Started {
        let woken = self
            .word
            .futex(issue.actor)
            .and_then(|futex| futex.wake(self.word.value, self.bits));
        Completion::of(woken.map(|count| count as i32)).into()
    }
}

/// A prepared FUTEX_WAITV.
pub(in crate::io_uring) struct FutexWaitV(SmallVec<[Word; 1]>);

impl Prepared for FutexWaitV {
    fn prepare(sqe: &Sqe, _: RequestFlags, actor: Actor<'_>) -> Result<Self> {
        if sqe.fd() != 0 || sqe.length() == 0 || sqe.length() > MOST {
            return Err(Errno::EINVAL);
        }
        let mut words = SmallVec::new();
        for index in 0..u64::from(sqe.length()) {
            let at = sqe
                .address()
                .wrapping_add(index * size_of::<raw::futex_waitv>() as u64);
            let word: raw::futex_waitv = actor.space().read_value(at)?;
            if word.__reserved != 0 {
                return Err(Errno::EINVAL);
            }
            words.push(Word::new(word.uaddr, word.val, word.flags)?);
        }
        Ok(Self(words))
    }

    fn start(self, _: &mut State, issue: Issue<'_>) -> Started {
        let mut waiting: SmallVec<[Waiting; 1]> = SmallVec::new();
        for word in &self.0 {
            let next = word
                .futex(issue.actor)
                .and_then(|futex| futex.wait(word.value, u32::MAX));
            match next {
                Ok(next) => waiting.push(next),
                Err(error) => {
                    // One that was woken meanwhile counts, or its wake-up would be lost on others.
                    let woken = waiting.iter().position(Waiting::give_up);
                    return Completion::of(woken.map_or(Err(error), |index| Ok(index as i32)))
                        .into();
                }
            }
        }
        Started::Pending(Work::futex(Words(waiting, true)))
    }
}

/// A wait for words of memory, and whether which one it was is told.
pub(in crate::io_uring) struct Words(SmallVec<[Waiting; 1]>, bool);

impl Words {
    pub(super) fn poll(&mut self, context: &mut Context<'_>) -> Progress {
        let woken = self
            .0
            .iter()
            .position(|waiting| waiting.poll(context).is_ready());
        match woken {
            Some(index) => {
                let result = if self.1 { index as i32 } else { 0 };
                Poll::Ready(Completion::success(result).into())
            }
            None => Poll::Pending,
        }
    }
}
