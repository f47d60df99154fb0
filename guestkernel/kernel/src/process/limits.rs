//! Resource limits (`getrlimit(2)`).

use crate::error::{Errno, Result};
use crate::fs::{FD_LIMIT, FD_LIMIT_MAX};
use linux_raw_sys::general as raw;

/// Resources there are.
const COUNT: usize = raw::RLIM_NLIMITS as usize;
/// No limit.
const INFINITY: u64 = u64::MAX;
/// What the stack may grow to.
pub(crate) const STACK: u64 = 8 << 20;

/// The limit of one resource.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limit {
    /// What counts.
    pub soft: u64,
    /// What the soft limit can be raised to.
    pub hard: u64,
}

/// The limits of a process.
#[derive(Clone, Debug)]
pub struct Limits([Limit; COUNT]);

impl Limits {
    /// Those of the first process, where there can be `threads` threads.
    pub(super) fn new(threads: u64) -> Self {
        let mut limits = [Limit {
            soft: INFINITY,
            hard: INFINITY,
        }; COUNT];
        let mut set = |resource: u32, soft, hard| limits[resource as usize] = Limit { soft, hard };
        set(raw::RLIMIT_STACK, STACK, INFINITY);
        set(raw::RLIMIT_CORE, 0, INFINITY);
        set(raw::RLIMIT_NOFILE, FD_LIMIT.into(), FD_LIMIT_MAX.into());
        set(raw::RLIMIT_MEMLOCK, STACK, STACK);
        set(raw::RLIMIT_MSGQUEUE, 819_200, 819_200);
        set(raw::RLIMIT_NICE, 0, 0);
        set(raw::RLIMIT_RTPRIO, 0, 0);
        set(raw::RLIMIT_SIGPENDING, threads / 2, threads / 2);
        set(raw::RLIMIT_NPROC, threads / 2, threads / 2);
        Self(limits)
    }

    /// What counts of a resource that there is (`RLIMIT_*`).
    pub(super) fn soft(&self, resource: u32) -> u64 {
        self.0[resource as usize % COUNT].soft
    }

    /// The limit of a resource (`RLIMIT_*`).
    ///
    /// # Errors
    ///
    /// `EINVAL` if there is no such resource.
    pub fn get(&self, resource: u32) -> Result<Limit> {
        self.0.get(resource as usize).copied().ok_or(Errno::EINVAL)
    }

    /// Sets the limit of a resource.
    ///
    /// # Errors
    ///
    /// `EINVAL` if there is no such resource or the soft limit is above the hard one, `EPERM` for
    /// more open files than there can be.
    pub fn set(&mut self, resource: u32, limit: Limit) -> Result<()> {
        let slot = self.0.get_mut(resource as usize).ok_or(Errno::EINVAL)?;
        if limit.soft > limit.hard {
            return Err(Errno::EINVAL);
        }
        if resource == raw::RLIMIT_NOFILE && limit.hard > FD_LIMIT_MAX.into() {
            return Err(Errno::EPERM);
        }
        *slot = limit;
        Ok(())
    }
}
