//! Who waits for which futex: a hash table of queues, with a lock for each bucket.
//!
//! A waiter is in the queue of one bucket until it is woken or gives up; a requeue moves it to
//! another. The locks of buckets are taken in the order of their numbers, and before those of waiters.
//! The word is looked at under the lock of its bucket, so that a wake-up that comes after a change of
//! the word finds the waiter, or the waiter finds the change.
//!
//! Waiters are used again: once there were as many as there ever are at a time, waiting allocates
//! nothing.

use super::pi_lock::{Chains, Owner};
use crate::error::{Errno, Result};
use crate::sync::Mutex;
use alloc::boxed::Box;
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::sync::atomic::AtomicUsize;
use core::task::{Context, Poll, Waker};
use machine::PhysAddr;
use smallvec::SmallVec;

/// Waiters that a bucket keeps for those who come next.
const SPARE: usize = 4;

/// Which word is waited on (`union futex_key` of Linux).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Key {
    /// A word at an address of the address space with that number, among its own threads.
    Private(usize, u64),
    /// The same, for those who do not say that it is private; the two do not meet.
    Own(usize, u64),
    /// A word of memory that several can map, by its place in the machine's memory.
    Shared(PhysAddr),
}

impl Key {
    fn hash(self) -> usize {
        let bits = match self {
            Self::Private(space, address) | Self::Own(space, address) => {
                address ^ (space as u64).rotate_left(32)
            }
            Self::Shared(address) => address.0,
        };
        // Fibonacci hashing: words are at multiples of 4, often in the same place of a page.
        (bits.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 32) as usize
    }
}

/// What somebody waits for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Purpose {
    /// A wake-up.
    Wake,
    /// To be moved to the lock with that key, as the thread with that number
    /// (`FUTEX_WAIT_REQUEUE_PI`).
    Move(Key, u32),
    /// To own the lock, as the thread with that number (`FUTEX_LOCK_PI`).
    Own(u32),
}

/// Where a waiter is.
#[derive(Debug)]
enum Place {
    /// In the queue of that bucket.
    Queued(usize),
    /// It has been woken; it was in that bucket last.
    Woken(usize),
}

/// What waiter and waker share.
#[derive(Debug)]
pub(super) struct Waiter {
    state: Mutex<(Place, Option<Waker>)>,
}

pub(super) struct Entry {
    pub(super) key: Key,
    /// It hears of wake-ups that have a bit in common with these.
    bits: u32,
    pub(super) purpose: Purpose,
    waiter: Arc<Waiter>,
}

#[derive(Default)]
pub(super) struct Bucket {
    pub(super) entries: Vec<Entry>,
    /// Who owns the locks that somebody here waits for.
    pub(super) owners: Vec<Owner>,
    spare: Vec<Arc<Waiter>>,
}

/// Those who are to be woken once the locks are released.
pub(super) type Wakers = SmallVec<[Waker; 8]>;

/// The table.
pub(super) struct WaitTable {
    pub(super) buckets: Box<[Mutex<Bucket>]>,
    pub(super) chains: Chains,
    /// Locks that were ever waited for: without any, nobody need look for his own.
    pub(super) owned: AtomicUsize,
}

/// Somebody's place in the table, given up when it is dropped.
pub(super) struct Ticket<'a> {
    table: &'a WaitTable,
    waiter: Arc<Waiter>,
}

/// How many to wake at a word, and how many of the others to move to a second one.
#[derive(Clone, Copy, Debug)]
pub(super) struct Counts {
    pub(super) wake: u32,
    pub(super) requeue: u32,
}

impl WaitTable {
    /// A table of so many buckets, a power of two.
    pub(super) fn new(buckets: usize) -> Self {
        Self {
            buckets: (0..buckets)
                .map(|_| Mutex::new(Bucket::default()))
                .collect(),
            chains: Chains::new(),
            owned: AtomicUsize::new(0),
        }
    }

    pub(super) fn index(&self, key: Key) -> usize {
        key.hash() & (self.buckets.len() - 1)
    }

    /// Makes the caller one who waits at `key` for a wake-up with one of `bits`, or to be moved,
    /// unless `check` fails, which looks at the word.
    ///
    /// # Errors
    ///
    /// Those of `check`.
    pub(super) fn wait_if(
        &self,
        key: Key,
        bits: u32,
        purpose: Purpose,
        check: impl FnOnce() -> Result<()>,
    ) -> Result<Ticket<'_>> {
        let index = self.index(key);
        let mut bucket = self.buckets[index].lock();
        check()?;
        Ok(self.add(&mut bucket, index, (key, bits), purpose))
    }

    /// Adds a waiter to bucket `index`, which is `bucket`.
    pub(super) fn add<'a>(
        &'a self,
        bucket: &mut Bucket,
        index: usize,
        (key, bits): (Key, u32),
        purpose: Purpose,
    ) -> Ticket<'a> {
        let waiter = match bucket.spare.pop() {
            Some(waiter) => {
                *waiter.state.lock() = (Place::Queued(index), None);
                waiter
            }
            None => Arc::new(Waiter {
                state: Mutex::new((Place::Queued(index), None)),
            }),
        };
        bucket.entries.push(Entry {
            key,
            bits,
            purpose,
            waiter: waiter.clone(),
        });
        Ticket {
            table: self,
            waiter,
        }
    }

    /// Wakes up to `count` of those who wait at `key` and have one of `bits`, those first who came
    /// first; returns how many.
    ///
    /// # Errors
    ///
    /// `EINVAL` if there is one who waits for a lock.
    pub(super) fn wake(&self, key: Key, count: u32, bits: u32) -> Result<u32> {
        let mut wakers = Wakers::new();
        let woken = take(
            &mut self.buckets[self.index(key)].lock(),
            (key, count, bits),
            &mut wakers,
        );
        wakers.into_iter().for_each(Waker::wake);
        woken
    }

    /// Calls `change`, which changes the second word, while nobody comes or goes at either key;
    /// then wakes up to the first count at the first key and, if `change` gives true, up to the
    /// second at the second. Returns how many were woken.
    ///
    /// # Errors
    ///
    /// Those of `change`, `EINVAL` if there is one who waits for a lock.
    pub(super) fn wake_two(
        &self,
        keys: [Key; 2],
        counts: [u32; 2],
        change: impl FnOnce() -> Result<bool>,
    ) -> Result<u32> {
        let mut wakers = Wakers::new();
        let woken = self.with_two(keys, |first, second| -> Result<u32> {
            let both = change()?;
            let mut woken = take(first, (keys[0], counts[0], u32::MAX), &mut wakers)?;
            if both {
                let bucket = second.unwrap_or(first);
                woken += take(bucket, (keys[1], counts[1], u32::MAX), &mut wakers)?;
            }
            Ok(woken)
        });
        wakers.into_iter().for_each(Waker::wake);
        woken
    }

    /// Wakes some of those at the first key and moves some of the others to the second, unless
    /// `check` fails, which looks at the first word. Returns how many were woken or moved.
    ///
    /// # Errors
    ///
    /// Those of `check`, `EINVAL` if there is one who waits for a lock.
    pub(super) fn requeue(
        &self,
        keys: [Key; 2],
        counts: Counts,
        check: impl FnOnce() -> Result<()>,
    ) -> Result<u32> {
        let [from, to] = keys;
        let target = self.index(to);
        let mut wakers = Wakers::new();
        let touched = self.with_two(keys, |first, second| -> Result<u32> {
            check()?;
            let woken = take(first, (from, counts.wake, u32::MAX), &mut wakers)?;
            let mut moved = 0;
            let mut result = Ok(());
            for entry in first.entries.iter_mut().filter(|entry| entry.key == from) {
                if moved == counts.requeue {
                    break;
                }
                if entry.purpose != Purpose::Wake {
                    result = Err(Errno::EINVAL);
                    break;
                }
                moved += 1;
                entry.key = to;
                entry.waiter.state.lock().0 = Place::Queued(target);
            }
            if let Some(second) = second {
                // Those that were moved are the only ones in the wrong bucket.
                let moving = first.entries.extract_if(.., |entry| entry.key == to);
                second.entries.extend(moving);
            }
            result.map(|()| woken + moved)
        });
        wakers.into_iter().for_each(Waker::wake);
        touched
    }

    /// Calls `with` with the buckets of both keys, locked; the second is `None` if it is the first.
    pub(super) fn with_two<R>(
        &self,
        keys: [Key; 2],
        with: impl FnOnce(&mut Bucket, Option<&mut Bucket>) -> R,
    ) -> R {
        let [first, second] = keys.map(|key| self.index(key));
        if first == second {
            return with(&mut self.buckets[first].lock(), None);
        }
        let mut low = self.buckets[first.min(second)].lock();
        let mut high = self.buckets[first.max(second)].lock();
        match first < second {
            true => with(&mut low, Some(&mut high)),
            false => with(&mut high, Some(&mut low)),
        }
    }
}

impl Waiter {
    fn wake(&self, wakers: &mut Wakers) {
        let mut state = self.state.lock();
        if let Place::Queued(index) = state.0 {
            state.0 = Place::Woken(index);
        }
        wakers.extend(state.1.take());
    }
}

impl Entry {
    /// Wakes who waits; the entry is no longer in its bucket.
    pub(super) fn wake(self, wakers: &mut Wakers) {
        self.waiter.wake(wakers);
    }

    /// It goes to bucket `index`, and waits for something else.
    pub(super) fn set_place(&mut self, index: usize, key: Key, purpose: Purpose) {
        self.key = key;
        self.purpose = purpose;
        self.waiter.state.lock().0 = Place::Queued(index);
    }
}

/// Takes up to `count` of those who wait at a key and have one of `bits` out of a bucket.
fn take(
    bucket: &mut Bucket,
    (key, count, bits): (Key, u32, u32),
    wakers: &mut Wakers,
) -> Result<u32> {
    let mut woken = 0;
    let mut result = Ok(());
    bucket.entries.retain(|entry| {
        if woken == count || result.is_err() || entry.key != key {
            return true;
        }
        if entry.purpose != Purpose::Wake {
            result = Err(Errno::EINVAL);
            return true;
        }
        if entry.bits & bits == 0 {
            return true;
        }
        woken += 1;
        entry.waiter.wake(wakers);
        false
    });
    result.map(|()| woken)
}

impl Ticket<'_> {
    /// Ready when it has been woken.
    pub(super) fn poll(&self, context: &Context<'_>) -> Poll<()> {
        let (place, waker) = &mut *self.waiter.state.lock();
        match place {
            Place::Woken(_) => Poll::Ready(()),
            Place::Queued(_) => {
                match waker {
                    Some(waker) => waker.clone_from(context.waker()),
                    None => *waker = Some(context.waker().clone()),
                }
                Poll::Pending
            }
        }
    }

    /// Waits no longer; true if it has been woken.
    pub(super) fn give_up(&self) -> bool {
        self.leave().is_none()
    }

    /// Waits no longer, and gives what it waited for; `None` if it has been woken, or given up before.
    pub(super) fn leave(&self) -> Option<Purpose> {
        loop {
            let Place::Queued(index) = self.waiter.state.lock().0 else {
                return None;
            };
            let mut bucket = self.table.buckets[index].lock();
            let is_here = |entry: &Entry| Arc::ptr_eq(&entry.waiter, &self.waiter);
            // If it was moved or woken meanwhile, look again.
            if let Some(position) = bucket.entries.iter().position(is_here) {
                let entry = bucket.entries.remove(position);
                bucket.forget_owner_of(entry.key);
                drop(bucket);
                self.table.has_left(entry.purpose);
                return Some(entry.purpose);
            }
            let Place::Queued(now) = self.waiter.state.lock().0 else {
                return None;
            };
            if now == index {
                // It has given up before.
                return Some(Purpose::Wake);
            }
        }
    }
}

impl Drop for Ticket<'_> {
    fn drop(&mut self) {
        self.give_up();
        // Nobody else knows it any more: it can be somebody else's.
        if Arc::strong_count(&self.waiter) == 1 {
            let (Place::Queued(index) | Place::Woken(index)) = self.waiter.state.lock().0;
            let mut bucket = self.table.buckets[index].lock();
            if bucket.spare.len() < SPARE {
                bucket.spare.push(self.waiter.clone());
            }
        }
    }
}

#[cfg(all(test, loom))]
mod models {
    use super::*;
    use crate::error::Errno;
    use alloc::task::Wake;
    use loom::sync::atomic::{AtomicU32, AtomicUsize, Ordering};
    use loom::thread;

    const FIRST: Key = Key::Private(1, 0x1000);
    const SECOND: Key = Key::Private(1, 0x2004);

    struct Count(AtomicUsize);

    impl Wake for Count {
        fn wake(self: Arc<Self>) {
            self.0.fetch_add(1, Ordering::SeqCst);
        }
    }

    fn table() -> Arc<WaitTable> {
        let table = Arc::new(WaitTable::new(4));
        assert_ne!(table.index(FIRST), table.index(SECOND));
        table
    }

    fn is_empty(table: &WaitTable) -> bool {
        table
            .buckets
            .iter()
            .all(|bucket| bucket.lock().entries.is_empty())
    }

    #[test]
    fn a_waiter_sees_the_change_or_is_woken() {
        loom::model(|| {
            let (table, word) = (table(), Arc::new(AtomicU32::new(0)));
            let waker = {
                let (table, word) = (table.clone(), word.clone());
                thread::spawn(move || {
                    word.store(1, Ordering::Relaxed);
                    table.wake(FIRST, 1, u32::MAX).unwrap()
                })
            };
            let check = || match word.load(Ordering::Relaxed) {
                0 => Ok(()),
                _ => Err(Errno::EAGAIN),
            };
            let count = Arc::new(Count(AtomicUsize::new(0)));
            let task = Waker::from(count.clone());
            let context = Context::from_waker(&task);
            match table.wait_if(FIRST, u32::MAX, Purpose::Wake, check) {
                Err(_) => assert_eq!(waker.join().unwrap(), 0),
                Ok(ticket) => {
                    let is_pending = ticket.poll(&context).is_pending();
                    assert_eq!(waker.join().unwrap(), 1);
                    assert_eq!(count.0.load(Ordering::SeqCst), usize::from(is_pending));
                    assert!(ticket.poll(&context).is_ready());
                }
            }
            assert!(is_empty(&table));
        });
    }

    #[test]
    fn a_wake_up_counts_for_one_who_has_not_given_up_wherever_it_was_moved() {
        loom::model(|| {
            let table = table();
            let ticket = table
                .wait_if(FIRST, u32::MAX, Purpose::Wake, || Ok(()))
                .unwrap();
            let other = table.clone();
            let mover = thread::spawn(move || {
                let counts = Counts {
                    wake: 0,
                    requeue: 1,
                };
                let moved = other.requeue([FIRST, SECOND], counts, || Ok(()));
                assert!(moved.unwrap() <= 1);
            });
            let other = table.clone();
            let waker = thread::spawn(move || other.wake(SECOND, 1, u32::MAX).unwrap());
            let was_woken = ticket.give_up();
            assert_eq!(was_woken, ticket.give_up());
            mover.join().unwrap();
            assert_eq!(waker.join().unwrap() == 1, was_woken);
            assert!(is_empty(&table));
        });
    }
}
