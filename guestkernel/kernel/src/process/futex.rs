//! Waiting on a word of memory (`futex(2)`).

use crate::error::{Errno, Result};
use crate::mm::{Access, AddressSpace};
use alloc::collections::BTreeMap;
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::future::poll_fn;
use core::sync::atomic::Ordering;
use core::task::{Poll, Waker};
use spin::Mutex;

/// Which word is waited on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Key {
    /// A word of one address space, and its address.
    Private(usize, u64),
    /// A word of memory that several may map: its physical address.
    Shared(u64),
}

struct Waiter {
    id: u64,
    /// It hears of wake-ups that have a bit in common with these.
    bits: u32,
    waker: Option<Waker>,
}

#[derive(Default)]
struct Waiters {
    by_key: BTreeMap<Key, Vec<Waiter>>,
    /// Where a waiter is that was moved by a requeue; others are where they started.
    moved: BTreeMap<u64, Key>,
    next_id: u64,
}

static WAITERS: Mutex<Waiters> = Mutex::new(Waiters {
    by_key: BTreeMap::new(),
    moved: BTreeMap::new(),
    next_id: 0,
});

/// All bits: every waiter and every wake-up.
pub const ALL_BITS: u32 = u32::MAX;

fn key(space: &Arc<AddressSpace>, address: u64, is_private: bool) -> Result<Key> {
    if !address.is_multiple_of(4) {
        return Err(Errno::EINVAL);
    }
    if is_private {
        if address >= crate::mm::TASK_SIZE {
            return Err(Errno::EFAULT);
        }
        return Ok(Key::Private(Arc::as_ptr(space) as usize, address));
    }
    let page = space.with_frame(address, Access::READ, |frame| frame.address().0)?;
    Ok(Key::Shared(page + address % crate::mm::PAGE))
}

/// Waits until the word at `address` is woken, if it holds `expected`. The caller bounds the time
/// by dropping the future.
///
/// # Errors
///
/// `EAGAIN` if it holds something else, `EINVAL` for an address that is not aligned or no
/// `bits`, `EFAULT`.
pub async fn wait(
    space: &Arc<AddressSpace>,
    address: u64,
    is_private: bool,
    expected: u32,
    bits: u32,
) -> Result<()> {
    if bits == 0 {
        return Err(Errno::EINVAL);
    }
    let key = key(space, address, is_private)?;
    let ticket = {
        // Whoever wakes has changed the word before, and takes the lock after that.
        let mut waiters = WAITERS.lock();
        let value = space.with_u32(address, Access::READ, |word| word.load(Ordering::SeqCst))?;
        if value != expected {
            return Err(Errno::EAGAIN);
        }
        let id = waiters.next_id;
        waiters.next_id += 1;
        waiters.by_key.entry(key).or_default().push(Waiter {
            id,
            bits,
            waker: None,
        });
        Ticket { key, id }
    };
    poll_fn(|context| {
        let mut waiters = WAITERS.lock();
        match waiters.find(&ticket) {
            Some(waiter) => {
                waiter.waker = Some(context.waker().clone());
                Poll::Pending
            }
            None => Poll::Ready(()),
        }
    })
    .await;
    Ok(())
}

/// Wakes up to `count` of those who wait on the word at `address` and have one of `bits`; returns
/// how many.
///
/// # Errors
///
/// `EINVAL` for an address that is not aligned or no `bits`, `EFAULT`.
pub fn wake(
    space: &Arc<AddressSpace>,
    address: u64,
    is_private: bool,
    count: u32,
    bits: u32,
) -> Result<u32> {
    if bits == 0 {
        return Err(Errno::EINVAL);
    }
    let key = key(space, address, is_private)?;
    Ok(WAITERS.lock().wake(key, count, bits))
}

/// Wakes up to `wake_count` of those who wait on the word at `from` and has up to `move_count` of
/// the others wait on the word at `to` instead, if the first word holds `expected`, where that is
/// given. Returns how many were woken and moved.
///
/// # Errors
///
/// `EAGAIN` if it holds something else, `EINVAL`, `EFAULT`.
pub fn requeue(
    space: &Arc<AddressSpace>,
    (from, to): (u64, u64),
    is_private: bool,
    (wake_count, move_count): (u32, u32),
    expected: Option<u32>,
) -> Result<(u32, u32)> {
    let from_key = key(space, from, is_private)?;
    let to_key = key(space, to, is_private)?;
    let mut waiters = WAITERS.lock();
    if let Some(expected) = expected {
        let value = space.with_u32(from, Access::READ, |word| word.load(Ordering::SeqCst))?;
        if value != expected {
            return Err(Errno::EAGAIN);
        }
    }
    let woken = waiters.wake(from_key, wake_count, ALL_BITS);
    let moved = waiters.requeue(from_key, to_key, move_count);
    Ok((woken, moved))
}

/// A place among the waiters, given up when it is dropped.
struct Ticket {
    key: Key,
    id: u64,
}

impl Drop for Ticket {
    fn drop(&mut self) {
        let mut waiters = WAITERS.lock();
        let key = waiters.moved.remove(&self.id).unwrap_or(self.key);
        if let Some(list) = waiters.by_key.get_mut(&key) {
            list.retain(|waiter| waiter.id != self.id);
            if list.is_empty() {
                waiters.by_key.remove(&key);
            }
        }
    }
}

impl Waiters {
    fn find(&mut self, ticket: &Ticket) -> Option<&mut Waiter> {
        let key = self.moved.get(&ticket.id).unwrap_or(&ticket.key);
        let list = self.by_key.get_mut(key)?;
        list.iter_mut().find(|waiter| waiter.id == ticket.id)
    }

    fn wake(&mut self, key: Key, count: u32, bits: u32) -> u32 {
        let Some(list) = self.by_key.get_mut(&key) else {
            return 0;
        };
        let mut woken = 0;
        list.retain_mut(|waiter| {
            if woken == count || waiter.bits & bits == 0 {
                return true;
            }
            woken += 1;
            if let Some(waker) = waiter.waker.take() {
                waker.wake();
            }
            false
        });
        woken
    }

    fn requeue(&mut self, from: Key, to: Key, count: u32) -> u32 {
        let Some(list) = self.by_key.get_mut(&from) else {
            return 0;
        };
        if from == to {
            return list.len().min(count as usize) as u32;
        }
        let moving: Vec<_> = list.drain(..list.len().min(count as usize)).collect();
        let moved = moving.len() as u32;
        self.moved
            .extend(moving.iter().map(|waiter| (waiter.id, to)));
        self.by_key.entry(to).or_default().extend(moving);
        moved
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::executor::block_on;
    use crate::mm::MapRequest;
    use core::future::Future;
    use core::pin::pin;
    use core::task::Context;

    fn space_with_word() -> (Arc<AddressSpace>, u64) {
        let space = AddressSpace::new().unwrap();
        let access = Access::READ | Access::WRITE;
        let address = space.map(MapRequest::anonymous(4096, access)).unwrap();
        (space, address)
    }

    #[test]
    fn a_wake_up_ends_one_wait_and_reaches_only_its_word() {
        for is_private in [false, true] {
            let (space, word) = space_with_word();
            let mut context = Context::from_waker(Waker::noop());
            let mut first = pin!(wait(&space, word, is_private, 0, ALL_BITS));
            let mut second = pin!(wait(&space, word, is_private, 0, ALL_BITS));
            assert!(first.as_mut().poll(&mut context).is_pending());
            assert!(second.as_mut().poll(&mut context).is_pending());
            assert_eq!(wake(&space, word + 4, is_private, 9, ALL_BITS), Ok(0));
            assert_eq!(wake(&space, word, is_private, 1, ALL_BITS), Ok(1));
            assert_eq!(first.as_mut().poll(&mut context), Poll::Ready(Ok(())));
            assert!(second.as_mut().poll(&mut context).is_pending());
        }
    }

    #[test]
    fn a_wait_given_up_is_not_counted() {
        let (space, word) = space_with_word();
        {
            let mut wait = pin!(wait(&space, word, true, 0, ALL_BITS));
            let mut context = Context::from_waker(Waker::noop());
            assert!(wait.as_mut().poll(&mut context).is_pending());
        }
        assert_eq!(wake(&space, word, true, 1, ALL_BITS), Ok(0));
    }

    #[test]
    fn errors_are_those_of_linux() {
        let (space, word) = space_with_word();
        let wait = |address, expected, bits| block_on(wait(&space, address, true, expected, bits));
        assert_eq!(wait(word, 1, ALL_BITS), Err(Errno::EAGAIN));
        assert_eq!(wait(word + 2, 0, ALL_BITS), Err(Errno::EINVAL));
        assert_eq!(wait(word, 0, 0), Err(Errno::EINVAL));
        assert_eq!(wait(8, 0, ALL_BITS), Err(Errno::EFAULT));
    }

    #[test]
    fn a_moved_waiter_is_woken_at_its_new_word() {
        let (space, word) = space_with_word();
        let mut context = Context::from_waker(Waker::noop());
        let mut waiting = pin!(wait(&space, word, true, 0, ALL_BITS));
        assert!(waiting.as_mut().poll(&mut context).is_pending());
        let pair = (word, word + 8);
        assert_eq!(
            requeue(&space, pair, true, (0, 1), Some(1)),
            Err(Errno::EAGAIN)
        );
        assert_eq!(requeue(&space, pair, true, (0, 1), Some(0)), Ok((0, 1)));
        assert_eq!(wake(&space, word, true, 1, ALL_BITS), Ok(0));
        assert!(waiting.as_mut().poll(&mut context).is_pending());
        assert_eq!(wake(&space, word + 8, true, 1, ALL_BITS), Ok(1));
        assert!(waiting.as_mut().poll(&mut context).is_ready());
    }
}
