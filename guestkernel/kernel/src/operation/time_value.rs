//! Times as programs give them and get them: `struct timespec` and `struct timeval`.

use crate::error::{Errno, Result};
use crate::mm::AddressSpace;
use linux_raw_sys::general as raw;
use machine::clock;

/// Nanoseconds in a second, a millisecond, a microsecond.
pub(super) const SECOND: u64 = 1_000_000_000;
/// See [`SECOND`].
pub(super) const MILLISECOND: u64 = 1_000_000;
/// See [`SECOND`].
pub(super) const MICROSECOND: u64 = 1_000;

/// A time or a span as a program wrote it, which need not make sense.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TimeValue {
    seconds: i64,
    /// Of a second, in nanoseconds; 2^63 microseconds are more than 64 bits hold.
    fraction: i128,
}

impl TimeValue {
    /// The `struct timespec` at `address`.
    ///
    /// # Errors
    ///
    /// `EFAULT`.
    pub fn read_timespec(space: &AddressSpace, address: u64) -> Result<Self> {
        let time: raw::__kernel_timespec = space.read_value(address)?;
        Ok(Self {
            seconds: time.tv_sec,
            fraction: time.tv_nsec.into(),
        })
    }

    /// The `struct timeval` at `address`.
    ///
    /// # Errors
    ///
    /// `EFAULT`.
    pub fn read_timeval(space: &AddressSpace, address: u64) -> Result<Self> {
        let time: raw::timeval = space.read_value(address)?;
        Ok(Self {
            seconds: time.tv_sec,
            fraction: i128::from(time.tv_usec) * i128::from(MICROSECOND),
        })
    }

    /// The same with whole seconds of the fraction counted as seconds, as `select(2)` takes it.
    pub fn carried(self) -> Self {
        let second = i128::from(SECOND);
        Self {
            seconds: self.seconds.wrapping_add((self.fraction / second) as i64),
            fraction: self.fraction % second,
        }
    }

    /// Nanoseconds; what does not fit is for ever.
    ///
    /// # Errors
    ///
    /// `EINVAL` for a negative time, or a fraction that is none of a second.
    pub fn nanoseconds(self) -> Result<u64> {
        match (0..i128::from(SECOND)).contains(&self.fraction) {
            true => self.nanoseconds_carried(),
            false => Err(Errno::EINVAL),
        }
    }

    /// Nanoseconds, whatever the fraction; what does not fit is for ever.
    ///
    /// # Errors
    ///
    /// `EINVAL` if either part is negative.
    pub fn nanoseconds_carried(self) -> Result<u64> {
        match self.seconds < 0 || self.fraction < 0 {
            true => Err(Errno::EINVAL),
            false => Ok(self.nanoseconds_at_least_0()),
        }
    }

    /// Nanoseconds: 0 for a negative time, and what does not fit is for ever.
    pub fn nanoseconds_at_least_0(self) -> u64 {
        let total = i128::from(self.seconds) * i128::from(SECOND) + self.fraction;
        u64::try_from(total.max(0)).unwrap_or(u64::MAX)
    }
}

/// Nanoseconds of the `struct timespec` at `address`; what does not fit is for ever.
///
/// # Errors
///
/// `EFAULT`, `EINVAL` for a negative time or nanoseconds of a second or more.
pub fn read_timespec(space: &AddressSpace, address: u64) -> Result<u64> {
    TimeValue::read_timespec(space, address)?.nanoseconds()
}

/// Nanoseconds as a `struct timespec`.
pub(super) fn timespec(nanoseconds: u64) -> raw::__kernel_timespec {
    raw::__kernel_timespec {
        tv_sec: (nanoseconds / SECOND) as i64,
        tv_nsec: (nanoseconds % SECOND) as i64,
    }
}

/// Nanoseconds as a `struct timeval`.
pub(super) fn timeval(nanoseconds: u64) -> raw::timeval {
    raw::timeval {
        tv_sec: (nanoseconds / SECOND) as i64,
        tv_usec: (nanoseconds % SECOND / MICROSECOND) as i64,
    }
}

/// The monotonic time at which `nanoseconds` from now are over.
pub fn deadline_after(nanoseconds: u64) -> u64 {
    clock::monotonic().saturating_add(nanoseconds)
}

/// The monotonic time at which the realtime clock shows `nanoseconds`.
pub fn deadline_at_realtime(nanoseconds: u64) -> u64 {
    deadline_after(nanoseconds.saturating_sub(clock::realtime()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_way_to_take_a_time_has_its_own_limits() {
        let time = |seconds, fraction| TimeValue { seconds, fraction };
        let second = i128::from(SECOND);
        assert_eq!(time(1, 5).nanoseconds(), Ok(SECOND + 5));
        for bad in [time(-1, 0), time(0, -1), time(0, second)] {
            assert_eq!(bad.nanoseconds(), Err(Errno::EINVAL), "{bad:?}");
        }
        assert_eq!(time(0, second).nanoseconds_carried(), Ok(SECOND));
        assert_eq!(time(1, -1).nanoseconds_carried(), Err(Errno::EINVAL));
        assert_eq!(time(1, -1).nanoseconds_at_least_0(), SECOND - 1);
        assert_eq!(time(-1, 5).nanoseconds_at_least_0(), 0);
        assert_eq!(time(i64::MAX, 0).nanoseconds(), Ok(u64::MAX));
        assert_eq!(time(0, 2 * second + 7).carried(), time(2, 7));
        assert_eq!(time(1, -second).carried().nanoseconds(), Ok(0));
    }
}
