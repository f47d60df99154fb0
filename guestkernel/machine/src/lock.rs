//! Spin locks that know who holds them: a wait that takes too long is reported with the holder's
//! CPU and the place in the source where it took the lock.
//!
//! The kernel is never preempted, so a lock is held for moments only, and who waits spins. What is
//! known of the holder is the lock's own word, so that knowing it costs a lock nothing but one
//! instruction: the number of the CPU is mixed into a constant.

use crate::backend;
use crate::stall::{self, Patience};
use core::panic::Location;
use core::sync::atomic::{AtomicU64, Ordering};
use lock_api::{GuardNoSend, RawMutex, RawRwLock};

/// A value that one CPU uses at a time.
pub type Mutex<T> = lock_api::Mutex<RawLock, T>;

/// A [`Mutex`] that is held. It is not [`Send`], so no task holds one while it waits.
pub type MutexGuard<'a, T> = lock_api::MutexGuard<'a, RawLock, T>;

/// A value that one CPU changes or several read at a time. Readers may keep a writer waiting.
pub type RwLock<T> = lock_api::RwLock<RawReadWriteLock, T>;

/// Bits of an address; the rest of an address repeats the last of them.
const ADDRESS_BITS: u32 = 48;
/// No holder's word is so small: an address has bits above.
const MOST_READERS: u64 = u32::MAX as u64;

/// Who took a lock: the address of the [`Location`], with the CPU's number mixed into the bits that
/// say nothing in an address. Never 0.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Holder(u64);

impl Holder {
    /// This CPU, at that place.
    #[inline]
    fn new(place: &'static Location<'static>) -> Self {
        let address = core::ptr::from_ref(place).expose_provenance() as u64;
        Self(backend::smp::mix_cpu_into(address))
    }

    fn decode(self) -> (u64, u64) {
        let unused = u64::BITS - ADDRESS_BITS;
        let address = ((self.0 << unused) as i64 >> unused) as u64;
        (address, (self.0 ^ address) >> ADDRESS_BITS)
    }

    /// The number of the CPU.
    fn cpu(self) -> u64 {
        self.decode().1
    }

    /// Where the lock was taken.
    fn place(self) -> &'static Location<'static> {
        let pointer =
            core::ptr::with_exposed_provenance::<Location<'static>>(self.decode().0 as usize);
        // SAFETY: the word was made in `new` of the address of a static `Location`, and decoding
        // gives that address back.
        unsafe { &*pointer }
    }
}

/// The word of a [`Mutex`]: 0, or the [`Holder`] who has it.
pub struct RawLock(AtomicU64);

// SAFETY: only who changes the word from 0 has it, until it is 0 again.
unsafe impl RawMutex for RawLock {
    const INIT: Self = Self(AtomicU64::new(0));

    type GuardMarker = GuardNoSend;

    #[inline]
    #[track_caller]
    fn lock(&self) {
        let own = Holder::new(Location::caller());
        if !self.take(own) {
            self.wait(own);
        }
    }

    #[inline]
    #[track_caller]
    fn try_lock(&self) -> bool {
        self.take(Holder::new(Location::caller()))
    }

    #[inline]
    unsafe fn unlock(&self) {
        self.0.store(0, Ordering::Release);
    }
}

impl RawLock {
    #[inline]
    fn take(&self, own: Holder) -> bool {
        self.0
            .compare_exchange(0, own.0, Ordering::Acquire, Ordering::Relaxed)
            .is_ok()
    }

    #[cold]
    fn wait(&self, own: Holder) {
        let mut patience = Patience::new();
        while !self.take(own) {
            let mut word = self.0.load(Ordering::Relaxed);
            while word != 0 {
                if patience.spin() {
                    report(&patience, own, word);
                }
                word = self.0.load(Ordering::Relaxed);
            }
        }
    }
}

/// The word of a [`RwLock`]: 0, the number of readers, or the writer's [`Holder`].
pub struct RawReadWriteLock(AtomicU64);

// SAFETY: a writer changes the word from 0 to a number that no reader adds to, and nobody else
// changes it until the writer makes it 0 again.
unsafe impl RawRwLock for RawReadWriteLock {
    const INIT: Self = Self(AtomicU64::new(0));

    type GuardMarker = GuardNoSend;

    #[inline]
    #[track_caller]
    fn lock_shared(&self) {
        self.change(Holder::new(Location::caller()), one_more_reader);
    }

    #[inline]
    fn try_lock_shared(&self) -> bool {
        self.try_change(one_more_reader).is_ok()
    }

    #[inline]
    unsafe fn unlock_shared(&self) {
        self.0.fetch_sub(1, Ordering::Release);
    }

    #[inline]
    #[track_caller]
    fn lock_exclusive(&self) {
        let own = Holder::new(Location::caller());
        self.change(own, |word| (word == 0).then_some(own.0));
    }

    #[inline]
    #[track_caller]
    fn try_lock_exclusive(&self) -> bool {
        let own = Holder::new(Location::caller());
        self.try_change(|word| (word == 0).then_some(own.0)).is_ok()
    }

    #[inline]
    unsafe fn unlock_exclusive(&self) {
        self.0.store(0, Ordering::Release);
    }
}

/// The word when one more reads, unless somebody writes.
fn one_more_reader(word: u64) -> Option<u64> {
    (word < MOST_READERS).then_some(word + 1)
}

impl RawReadWriteLock {
    /// Changes the word if `change` can; the word that it cannot change, otherwise.
    #[inline]
    fn try_change(&self, change: impl Fn(u64) -> Option<u64>) -> Result<u64, u64> {
        self.0
            .fetch_update(Ordering::Acquire, Ordering::Relaxed, change)
    }

    /// Changes the word as soon as `change` can.
    #[inline]
    fn change(&self, own: Holder, change: impl Fn(u64) -> Option<u64>) {
        let mut patience = Patience::new();
        while let Err(word) = self.try_change(&change) {
            if patience.spin() {
                report(&patience, own, word);
            }
        }
    }
}

/// Says on whom `own` has waited so long.
fn report(patience: &Patience, own: Holder, word: u64) {
    let seconds = patience.seconds();
    let (cpu, place) = (own.cpu(), own.place());
    if word <= MOST_READERS {
        stall::report(format_args!(
            "CPU {cpu} has waited {seconds} s for a lock at {place}, which {word} readers hold"
        ));
        return;
    }
    let holder = Holder(word);
    let (holding, taken) = (holder.cpu(), holder.place());
    stall::report(format_args!(
        "CPU {cpu} has waited {seconds} s for a lock at {place}, which CPU {holding} took at {taken}"
    ));
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Arc;
    use std::thread;

    #[test]
    fn one_at_a_time() {
        let mutex = Arc::new(Mutex::new(0_u64));
        let threads: Vec<_> = (0..3)
            .map(|_| {
                let mutex = mutex.clone();
                thread::spawn(move || (0..500).for_each(|_| *mutex.lock() += 1))
            })
            .collect();
        threads
            .into_iter()
            .for_each(|thread| thread.join().unwrap());
        assert_eq!(*mutex.lock(), 1500);
        let held = mutex.lock();
        assert!(mutex.try_lock().is_none());
        drop(held);
        assert!(mutex.try_lock().is_some());
        assert_eq!(Arc::into_inner(mutex).unwrap().into_inner(), 1500);
    }

    #[test]
    fn many_read_and_one_writes() {
        let lock = Arc::new(RwLock::new((0, 0)));
        let readers = [lock.read(), lock.read()];
        assert_eq!(*readers[0], *readers[1]);
        assert!(lock.try_write().is_none());
        drop(readers);
        let writer = lock.try_write();
        assert!(writer.is_some() && lock.try_read().is_none());
        drop(writer);
        let threads: Vec<_> = (0..3)
            .map(|id| {
                let lock = lock.clone();
                thread::spawn(move || {
                    for _ in 0..300 {
                        if id == 0 {
                            let mut pair = lock.write();
                            pair.0 += 1;
                            pair.1 += 1;
                        }
                        let pair = lock.read();
                        assert_eq!(pair.0, pair.1);
                    }
                })
            })
            .collect();
        threads
            .into_iter()
            .for_each(|thread| thread.join().unwrap());
        assert_eq!(*lock.read(), (300, 300));
    }

    #[test]
    fn the_word_tells_cpu_and_place() {
        let place = Location::caller();
        for cpu in [0, 1, 63] {
            let holder =
                Holder(core::ptr::from_ref(place).expose_provenance() as u64 ^ cpu << ADDRESS_BITS);
            assert_eq!(holder.cpu(), cpu);
            assert_eq!(holder.place(), place);
            assert!(holder.0 > MOST_READERS);
        }
        // As the kernel's image has them.
        let holder = Holder(0xffff_ffff_8123_4568 ^ 5 << ADDRESS_BITS);
        assert_eq!(holder.decode(), (0xffff_ffff_8123_4568, 5));
    }

    #[test]
    fn a_wait_that_takes_too_long_names_the_holder() {
        let mutex = Arc::new(Mutex::new(()));
        let held = mutex.lock();
        let waiter = {
            let mutex = mutex.clone();
            thread::spawn(move || drop(mutex.lock()))
        };
        let line = format!("which CPU 0 took at {}:", file!());
        stall::tests::await_report(&line);
        drop(held);
        waiter.join().unwrap();
    }
}
