//! How much memory all rings together may use for what they have accepted. Linux charges this to
//! the program's memory control group; here it is a part of RAM. When it is used up, submission
//! stops before the next SQE (`EAGAIN` if it was the first), so that nothing accepted is lost, and
//! what is large by itself fails with `ENOMEM`.

use crate::error::{Errno, Result};
use crate::globals::global;
use crate::heap;
use core::sync::atomic::{AtomicUsize, Ordering};
use machine::PAGE_SIZE;

/// The share of RAM: one part in so many.
const SHARE: usize = 8;
/// Requests for which a ring asks at once.
const STEP: usize = 256;

global! {
    static IN_USE: AtomicUsize = AtomicUsize::new(0);
}

/// The bytes that there are.
pub(super) fn limit() -> usize {
    machine::memory_use().total / SHARE * PAGE_SIZE
}

/// A part of the budget, given back when it is dropped.
#[derive(Debug)]
pub(super) struct MemoryCharge(usize);

impl MemoryCharge {
    /// Nothing.
    pub(super) const NONE: Self = Self(0);

    /// Takes `bytes`.
    ///
    /// # Errors
    ///
    /// `ENOMEM`.
    pub(super) fn new(bytes: usize) -> Result<Self> {
        let mut charge = Self::NONE;
        charge.add(bytes)?;
        Ok(charge)
    }

    /// Takes `bytes` more.
    ///
    /// # Errors
    ///
    /// `ENOMEM`.
    pub(super) fn add(&mut self, bytes: usize) -> Result<()> {
        match self.grow(bytes) {
            true => Ok(()),
            false => Err(Errno::ENOMEM),
        }
    }

    /// Takes `bytes` more; false if there are not so many.
    fn grow(&mut self, bytes: usize) -> bool {
        if heap::check(bytes).is_err() {
            return false;
        }
        let limit = limit();
        let take = |in_use: usize| in_use.checked_add(bytes).filter(|sum| *sum <= limit);
        let is_granted = IN_USE
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, take)
            .is_ok();
        if is_granted {
            self.0 += bytes;
        }
        is_granted
    }
}

impl Drop for MemoryCharge {
    fn drop(&mut self) {
        if self.0 > 0 {
            IN_USE.fetch_sub(self.0, Ordering::Relaxed);
        }
    }
}

/// What one ring may accept: requests under way and CQEs that wait for room.
#[derive(Debug)]
pub(super) struct Allowance {
    requests: usize,
    /// Bytes that a request is taken to need.
    cost: usize,
    charge: MemoryCharge,
}

impl Allowance {
    /// Nothing yet, for requests of `cost` bytes each.
    pub(super) fn new(cost: usize) -> Self {
        Self {
            requests: 0,
            cost,
            charge: MemoryCharge::NONE,
        }
    }

    /// Whether one more can be had where there are `used`.
    #[inline(always)]
    pub(super) fn covers_more_than(&mut self, used: usize) -> bool {
        used < self.requests || self.grow()
    }

    #[cold]
    fn grow(&mut self) -> bool {
        let is_granted = self.charge.grow(self.cost.saturating_mul(STEP));
        if is_granted {
            self.requests += STEP;
        }
        is_granted
    }

    /// The requests that it is for now.
    #[cfg(test)]
    pub(super) fn requests(&self) -> usize {
        self.requests
    }

    /// Has it never grow again, as if other rings had used up the budget.
    #[cfg(test)]
    pub(super) fn freeze(&mut self) {
        self.cost = usize::MAX;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_allowance_ends_and_is_given_back() {
        // Two steps fit, and leave something for other tests.
        let cost = limit() / 5 * 2 / STEP;
        let mut first = Allowance::new(cost);
        assert!(first.covers_more_than(0));
        assert!(first.covers_more_than(STEP));
        assert!(!first.covers_more_than(2 * STEP));
        assert_eq!(MemoryCharge::new(STEP * cost).unwrap_err(), Errno::ENOMEM);
        drop(first);
        assert!(Allowance::new(cost).covers_more_than(0));
    }
}
