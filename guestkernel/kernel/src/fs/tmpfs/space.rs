//! How much a file system may hold and how much it does.

use crate::error::{Errno, Result};
use core::sync::atomic::{AtomicU64, Ordering};

/// A limit and what is used of it: pages, or files.
#[derive(Debug)]
pub(super) struct Space {
    /// 0 for none.
    limit: AtomicU64,
    used: AtomicU64,
}

/// Units that were taken and go back unless they are kept.
#[must_use]
pub(super) struct SpaceCharge<'a> {
    space: &'a Space,
    count: u64,
}

impl Space {
    pub(super) fn new(limit: u64) -> Self {
        Self {
            limit: AtomicU64::new(limit),
            used: AtomicU64::new(0),
        }
    }

    /// The most that there may be.
    pub(super) fn limit(&self) -> u64 {
        match self.shown_limit() {
            0 => u64::MAX,
            limit => limit,
        }
    }

    /// The same, or 0 if there is no limit.
    pub(super) fn shown_limit(&self) -> u64 {
        self.limit.load(Ordering::Relaxed)
    }

    /// Sets the most that there may be, 0 for no limit.
    ///
    /// # Errors
    ///
    /// `EINVAL` if there is more already.
    pub(super) fn set_limit(&self, limit: u64) -> Result<()> {
        if limit != 0 && self.used.load(Ordering::Relaxed) > limit {
            return Err(Errno::EINVAL);
        }
        self.limit.store(limit, Ordering::Relaxed);
        Ok(())
    }

    /// Raises the limit by `count` units that are in use from now on.
    pub(super) fn add(&self, count: u64) {
        if self.shown_limit() != 0 {
            self.limit.fetch_add(count, Ordering::Relaxed);
        }
        self.used.fetch_add(count, Ordering::Relaxed);
    }

    /// What is left; 0 if there is no limit.
    pub(super) fn free(&self) -> u64 {
        let used = self.used.load(Ordering::Relaxed);
        self.shown_limit().saturating_sub(used)
    }

    /// Takes `count` units. `ENOSPC` if there are not so many.
    pub(super) fn charge(&self, count: u64) -> Result<SpaceCharge<'_>> {
        let limit = self.limit();
        let take = |used: u64| used.checked_add(count).filter(|used| *used <= limit);
        self.used
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, take)
            .map_err(|_| Errno::ENOSPC)?;
        Ok(SpaceCharge { space: self, count })
    }

    /// Gives back units that were kept.
    pub(super) fn release(&self, count: u64) {
        self.used.fetch_sub(count, Ordering::Relaxed);
    }
}

impl SpaceCharge<'_> {
    /// They are in use now.
    pub(super) fn keep(self) {
        core::mem::forget(self);
    }
}

impl Drop for SpaceCharge<'_> {
    fn drop(&mut self) {
        self.space.release(self.count);
    }
}
