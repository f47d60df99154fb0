//! Spin locks that know who holds them: a wait that takes too long is reported with the holder's
//! CPU and the place in the source where it took the lock.
//!
//! The kernel is never preempted, so a lock is held for moments only, and who waits spins. What is
//! known of the holder is the lock's own word, so that knowing it costs a lock nothing but one
//! instruction: the number of the CPU is mixed into a constant.

use crate::backend;
use crate::stall::{self, Patience};
use core::cell::UnsafeCell;
use core::fmt;
use core::marker::PhantomData;
use core::ops::{Deref, DerefMut};
use core::panic::Location;
use core::sync::atomic::{AtomicU64, Ordering};

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

/// The lock without what it protects.
pub(crate) struct RawLock(AtomicU64);

impl RawLock {
    /// A free one.
    pub(crate) const fn new() -> Self {
        Self(AtomicU64::new(0))
    }

    /// Waits until it is free, and takes it.
    #[inline]
    #[track_caller]
    pub(crate) fn lock(&self) {
        let own = Holder::new(Location::caller());
        if !self.take(own) {
            self.wait(own);
        }
    }

    /// Takes it if it is free.
    #[inline]
    #[track_caller]
    pub(crate) fn try_lock(&self) -> bool {
        self.take(Holder::new(Location::caller()))
    }

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

    /// Gives it back.
    ///
    /// # Safety
    ///
    /// The caller must hold it.
    #[inline]
    pub(crate) unsafe fn unlock(&self) {
        self.0.store(0, Ordering::Release);
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

/// A value that one CPU uses at a time.
pub struct Mutex<T: ?Sized> {
    lock: RawLock,
    value: UnsafeCell<T>,
}

// SAFETY: the lock gives the value to one CPU at a time, so sharing the mutex is sending the value.
unsafe impl<T: ?Sized + Send> Sync for Mutex<T> {}
// SAFETY: as above.
unsafe impl<T: ?Sized + Send> Send for Mutex<T> {}

impl<T> Mutex<T> {
    /// One that nobody holds.
    pub const fn new(value: T) -> Self {
        Self {
            lock: RawLock::new(),
            value: UnsafeCell::new(value),
        }
    }

    /// The value, which nobody else uses.
    pub fn into_inner(self) -> T {
        self.value.into_inner()
    }
}

impl<T: ?Sized> Mutex<T> {
    /// Waits until nobody holds it, and holds it until the guard is dropped.
    #[inline]
    #[track_caller]
    pub fn lock(&self) -> MutexGuard<'_, T> {
        self.lock.lock();
        MutexGuard {
            mutex: self,
            value: PhantomData,
        }
    }

    /// Holds it if nobody does.
    #[inline]
    #[track_caller]
    pub fn try_lock(&self) -> Option<MutexGuard<'_, T>> {
        // Not `then_some`: a guard that is made is dropped.
        self.lock.try_lock().then(|| MutexGuard {
            mutex: self,
            value: PhantomData,
        })
    }

    /// The value, which nobody else uses.
    pub fn get_mut(&mut self) -> &mut T {
        self.value.get_mut()
    }
}

impl<T: Default> Default for Mutex<T> {
    fn default() -> Self {
        Self::new(T::default())
    }
}

impl<T: ?Sized + fmt::Debug> fmt::Debug for Mutex<T> {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.try_lock() {
            Some(value) => write!(formatter, "Mutex({:?})", &*value),
            None => formatter.write_str("Mutex(held)"),
        }
    }
}

/// A [`Mutex`] that is held.
#[must_use = "the mutex is held as long as the guard lives"]
pub struct MutexGuard<'a, T: ?Sized> {
    mutex: &'a Mutex<T>,
    /// Shared and sent as what it gives access to.
    value: PhantomData<&'a mut T>,
}

impl<T: ?Sized> Deref for MutexGuard<'_, T> {
    type Target = T;

    #[inline]
    fn deref(&self) -> &T {
        // SAFETY: the mutex is held as long as the guard lives.
        unsafe { &*self.mutex.value.get() }
    }
}

impl<T: ?Sized> DerefMut for MutexGuard<'_, T> {
    #[inline]
    fn deref_mut(&mut self) -> &mut T {
        // SAFETY: as above.
        unsafe { &mut *self.mutex.value.get() }
    }
}

impl<T: ?Sized> Drop for MutexGuard<'_, T> {
    #[inline]
    fn drop(&mut self) {
        // SAFETY: the guard holds it.
        unsafe { self.mutex.lock.unlock() };
    }
}

impl<T: ?Sized + fmt::Debug> fmt::Debug for MutexGuard<'_, T> {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        (**self).fmt(formatter)
    }
}

/// A value that one CPU changes or several read at a time. Readers may keep a writer waiting.
pub struct RwLock<T> {
    /// 0, the number of readers, or the writer's [`Holder`].
    state: AtomicU64,
    value: UnsafeCell<T>,
}

// SAFETY: the lock gives the value to one writer or to readers, which share it.
unsafe impl<T: Send + Sync> Sync for RwLock<T> {}

impl<T> RwLock<T> {
    /// One that nobody holds.
    pub const fn new(value: T) -> Self {
        Self {
            state: AtomicU64::new(0),
            value: UnsafeCell::new(value),
        }
    }

    /// Waits until nobody writes, and reads until the guard is dropped.
    #[inline]
    #[track_caller]
    pub fn read(&self) -> ReadGuard<'_, T> {
        let readers = |state: u64| (state < MOST_READERS).then_some(state + 1);
        self.change(Holder::new(Location::caller()), readers);
        ReadGuard { lock: self }
    }

    /// Waits until nobody reads or writes, and holds it until the guard is dropped.
    #[inline]
    #[track_caller]
    pub fn write(&self) -> WriteGuard<'_, T> {
        let own = Holder::new(Location::caller());
        self.change(own, |state| (state == 0).then_some(own.0));
        WriteGuard {
            lock: self,
            value: PhantomData,
        }
    }

    /// Changes the state as soon as `change` can.
    #[inline]
    fn change(&self, own: Holder, change: impl Fn(u64) -> Option<u64>) {
        let mut patience = Patience::new();
        while let Err(state) =
            self.state
                .fetch_update(Ordering::Acquire, Ordering::Relaxed, &change)
        {
            if patience.spin() {
                report(&patience, own, state);
            }
        }
    }
}

impl<T: fmt::Debug> fmt::Debug for RwLock<T> {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "RwLock({:?})", &*self.read())
    }
}

/// A [`RwLock`] that is read.
#[must_use = "the lock is held as long as the guard lives"]
#[derive(Debug)]
pub struct ReadGuard<'a, T> {
    lock: &'a RwLock<T>,
}

impl<T> Deref for ReadGuard<'_, T> {
    type Target = T;

    #[inline]
    fn deref(&self) -> &T {
        // SAFETY: nobody writes as long as the guard lives.
        unsafe { &*self.lock.value.get() }
    }
}

impl<T> Drop for ReadGuard<'_, T> {
    #[inline]
    fn drop(&mut self) {
        self.lock.state.fetch_sub(1, Ordering::Release);
    }
}

/// A [`RwLock`] that is held to write.
#[must_use = "the lock is held as long as the guard lives"]
pub struct WriteGuard<'a, T> {
    lock: &'a RwLock<T>,
    /// Shared and sent as what it gives access to.
    value: PhantomData<&'a mut T>,
}

impl<T> Deref for WriteGuard<'_, T> {
    type Target = T;

    #[inline]
    fn deref(&self) -> &T {
        // SAFETY: the lock is held as long as the guard lives.
        unsafe { &*self.lock.value.get() }
    }
}

impl<T> DerefMut for WriteGuard<'_, T> {
    #[inline]
    fn deref_mut(&mut self) -> &mut T {
        // SAFETY: as above.
        unsafe { &mut *self.lock.value.get() }
    }
}

impl<T> Drop for WriteGuard<'_, T> {
    #[inline]
    fn drop(&mut self) {
        self.lock.state.store(0, Ordering::Release);
    }
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
        assert_eq!(format!("{mutex:?}"), "Mutex(held)");
        drop(held);
        assert_eq!(format!("{mutex:?}"), "Mutex(1500)");
        assert_eq!(Arc::into_inner(mutex).unwrap().into_inner(), 1500);
    }

    #[test]
    fn many_read_and_one_writes() {
        let lock = Arc::new(RwLock::new((0, 0)));
        let readers = [lock.read(), lock.read()];
        assert_eq!(*readers[0], *readers[1]);
        drop(readers);
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
