//! How much memory all rings together may use for what they have accepted. Linux charges this to
//! the program's memory control group; here it is a part of RAM. When it is used up, submission
//! stops before the next SQE (`EAGAIN` if it was the first), so that nothing accepted is lost.

use core::sync::atomic::{AtomicUsize, Ordering};
use machine::PAGE_SIZE;

/// The share of RAM: one part in so many.
const SHARE: usize = 8;
/// Requests for which a ring asks at once.
const STEP: usize = 256;

static IN_USE: AtomicUsize = AtomicUsize::new(0);

/// What one ring may accept: requests under way and CQEs that wait for room.
#[derive(Debug)]
pub(super) struct Allowance {
    requests: usize,
    /// Bytes that a request is taken to need.
    cost: usize,
    /// Bytes taken from the budget.
    charged: usize,
}

impl Allowance {
    /// Nothing yet, for requests of `cost` bytes each.
    pub(super) fn new(cost: usize) -> Self {
        Self {
            requests: 0,
            cost,
            charged: 0,
        }
    }

    /// Whether one more can be had where there are `used`.
    #[inline(always)]
    pub(super) fn covers_more_than(&mut self, used: usize) -> bool {
        used < self.requests || self.grow()
    }

    #[cold]
    fn grow(&mut self) -> bool {
        let bytes = self.cost.saturating_mul(STEP);
        let limit = machine::memory_use().total / SHARE * PAGE_SIZE;
        let take = |in_use: usize| in_use.checked_add(bytes).filter(|sum| *sum <= limit);
        let is_granted = IN_USE
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, take)
            .is_ok();
        if is_granted {
            self.requests += STEP;
            self.charged += bytes;
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

impl Drop for Allowance {
    fn drop(&mut self) {
        IN_USE.fetch_sub(self.charged, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_allowance_ends_and_is_given_back() {
        // Each step takes a third of the share, so that other tests keep some.
        let share = machine::memory_use().total / SHARE * PAGE_SIZE;
        let cost = share / 3 / STEP;
        let mut first = Allowance::new(cost);
        let mut used = 0;
        while first.covers_more_than(used) {
            used += STEP;
            assert!(used <= 3 * STEP);
        }
        assert!(used > 0);
        drop(first);
        assert!(Allowance::new(cost).covers_more_than(0));
    }
}
