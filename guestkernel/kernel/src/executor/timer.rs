//! Waiting for a time.

use alloc::collections::BTreeMap;
use core::future::Future;
use core::pin::Pin;
use core::sync::atomic::{AtomicU64, Ordering};
use core::task::{Context, Poll, Waker};
use machine::clock;
use machine::lock::Mutex;

/// Wakers by deadline and a number that tells timers of the same deadline apart.
static TIMERS: Mutex<BTreeMap<(u64, u64), Waker>> = Mutex::new(BTreeMap::new());
static NEXT_ID: AtomicU64 = AtomicU64::new(0);
/// The earliest deadline, to be looked at without the lock; `u64::MAX` for none.
static EARLIEST: AtomicU64 = AtomicU64::new(u64::MAX);

/// A future that is ready at a time; dropping it forgets the timer.
#[derive(Debug)]
pub struct Sleep {
    deadline: u64,
    id: u64,
}

/// Ready when [`clock::monotonic`] reaches `deadline`.
pub fn sleep_until(deadline: u64) -> Sleep {
    Sleep {
        deadline,
        id: NEXT_ID.fetch_add(1, Ordering::Relaxed),
    }
}

impl Sleep {
    /// The monotonic time, in nanoseconds, at which this is ready.
    pub fn deadline(&self) -> u64 {
        self.deadline
    }
}

impl Future for Sleep {
    type Output = ();

    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<()> {
        if clock::monotonic() >= self.deadline {
            return Poll::Ready(());
        }
        let mut timers = TIMERS.lock();
        timers.insert((self.deadline, self.id), context.waker().clone());
        publish(&timers);
        Poll::Pending
    }
}

impl Drop for Sleep {
    fn drop(&mut self) {
        let mut timers = TIMERS.lock();
        if timers.remove(&(self.deadline, self.id)).is_some() {
            publish(&timers);
        }
    }
}

fn publish(timers: &BTreeMap<(u64, u64), Waker>) {
    let earliest = timers.first_key_value().map_or(u64::MAX, |(key, _)| key.0);
    EARLIEST.store(earliest, Ordering::Relaxed);
}

/// The earliest time that somebody waits for.
pub(super) fn next_deadline() -> Option<u64> {
    Some(EARLIEST.load(Ordering::Relaxed)).filter(|deadline| *deadline != u64::MAX)
}

/// Wakes those whose time has come; false if there was none.
pub(super) fn fire() -> bool {
    let Some(deadline) = next_deadline() else {
        return false;
    };
    let now = clock::monotonic();
    if now < deadline {
        return false;
    }
    loop {
        let mut timers = TIMERS.lock();
        let due = timers.first_entry().filter(|entry| entry.key().0 <= now);
        let waker = due.map(|entry| entry.remove());
        publish(&timers);
        drop(timers);
        match waker {
            Some(waker) => waker.wake(),
            None => return true,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::block_on;
    use super::*;

    #[test]
    fn sleeping_takes_its_time() {
        let start = clock::monotonic();
        block_on(async {
            sleep_until(start + 2_000_000).await;
            sleep_until(start + 1_000_000).await;
        });
        assert!(clock::monotonic() >= start + 2_000_000);
    }
}
