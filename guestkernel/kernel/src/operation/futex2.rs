//! Futexes as `futex2` has them: words with flags of their own, and waits at several at once.

use super::Actor;
use crate::error::{Errno, Result};
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
/// The most words that one waits at.
const MOST: u32 = 128;

/// One word.
#[derive(Clone, Copy)]
pub struct FutexWord {
    address: u64,
    value: u32,
    is_private: bool,
}

impl FutexWord {
    /// The word at `address`, that is to hold `value` or where so many are woken; `flags` are
    /// `FUTEX2_*`.
    ///
    /// # Errors
    ///
    /// `EINVAL`.
    pub fn new(address: u64, value: u64, flags: u32) -> Result<Self> {
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

    /// Wakes as many as its value says of those who wait at it for one of `bits`; gives how many.
    ///
    /// # Errors
    ///
    /// `EINVAL`, `EFAULT`.
    pub fn wake(&self, bits: u32, actor: Actor<'_>) -> Result<u32> {
        self.futex(actor)?.wake(self.value, bits)
    }
}

/// A wait at words of memory, to be polled where it stands. Dropping it gives up.
pub struct FutexWaits {
    waiting: SmallVec<[Waiting; 1]>,
    /// Which one was woken is told.
    tells_which: bool,
}

/// What beginning to wait gave.
pub enum WaitBegun {
    /// It waits.
    Waits(FutexWaits),
    /// The word with that number was woken before all were looked at.
    Woken(usize),
}

impl FutexWaits {
    /// Begins to wait at `word` for a wake-up with one of `bits`.
    ///
    /// # Errors
    ///
    /// `EINVAL`, `EFAULT`, `EAGAIN` if it holds something else.
    pub fn at_one(word: FutexWord, bits: u32, actor: Actor<'_>) -> Result<Self> {
        if bits == 0 {
            return Err(Errno::EINVAL);
        }
        let waiting = word.futex(actor)?.wait(word.value, bits)?;
        Ok(Self {
            waiting: [waiting].into(),
            tells_which: false,
        })
    }

    /// Begins to wait at all of `words`.
    ///
    /// # Errors
    ///
    /// `EFAULT`, `EAGAIN` if one holds something else.
    pub fn at_any(words: &[FutexWord], actor: Actor<'_>) -> Result<WaitBegun> {
        let mut waiting: SmallVec<[Waiting; 1]> = SmallVec::new();
        for word in words {
            let next = word
                .futex(actor)
                .and_then(|futex| futex.wait(word.value, u32::MAX));
            match next {
                Ok(next) => waiting.push(next),
                Err(error) => {
                    // One that was woken meanwhile counts, or its wake-up would be lost on others.
                    let woken = waiting.iter().position(Waiting::give_up);
                    return woken.map(WaitBegun::Woken).ok_or(error);
                }
            }
        }
        Ok(WaitBegun::Waits(Self {
            waiting,
            tells_which: true,
        }))
    }

    /// Ready, with the number of the word if that is told, when one was woken.
    pub fn poll(&mut self, context: &mut Context<'_>) -> Poll<usize> {
        let woken = self
            .waiting
            .iter()
            .position(|waiting| waiting.poll(context).is_ready());
        match woken {
            Some(index) => Poll::Ready(if self.tells_which { index } else { 0 }),
            None => Poll::Pending,
        }
    }
}

/// The `count` words that the array of `struct futex_waitv` at `address` names.
///
/// # Errors
///
/// `EINVAL` if there are none or too many or one is bad, `EFAULT`.
pub fn read_futex_words(
    actor: Actor<'_>,
    address: u64,
    count: u32,
) -> Result<SmallVec<[FutexWord; 1]>> {
    if count == 0 || count > MOST {
        return Err(Errno::EINVAL);
    }
    let mut words = SmallVec::new();
    for index in 0..u64::from(count) {
        let at = address.wrapping_add(index * size_of::<raw::futex_waitv>() as u64);
        let word: raw::futex_waitv = actor.space().read_value(at)?;
        if word.__reserved != 0 {
            return Err(Errno::EINVAL);
        }
        words.push(FutexWord::new(word.uaddr, word.val, word.flags)?);
    }
    Ok(words)
}
