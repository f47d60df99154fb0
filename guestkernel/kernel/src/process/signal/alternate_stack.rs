//! The stack for handlers that ask for it (`sigaltstack(2)`).

use crate::error::{Errno, Result};
use linux_raw_sys::general as raw;

/// What `sigaltstack(2)` said.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct AlternateStack {
    /// The lowest address.
    pub base: u64,
    /// `SS_*`, as the program gave them.
    pub flags: u32,
    /// Bytes; 0 if there is none.
    pub size: u64,
}

impl AlternateStack {
    /// None, as after a handler has taken one that is given once (`SS_AUTODISARM`).
    pub const NONE: Self = Self {
        base: 0,
        flags: raw::SS_DISABLE,
        size: 0,
    };

    /// Whether `pointer` points into it.
    pub(super) fn contains(&self, pointer: u64) -> bool {
        pointer > self.base && pointer - self.base <= self.size
    }

    /// Whether a program with that stack pointer is on it. One that is given once is nobody's.
    fn is_used(&self, pointer: u64) -> bool {
        self.flags & raw::SS_AUTODISARM == 0 && self.contains(pointer)
    }

    /// `SS_*` as the program is told, with that stack pointer.
    pub fn status(&self, pointer: u64) -> u32 {
        let state = match self.size {
            0 => raw::SS_DISABLE,
            _ if self.is_used(pointer) => raw::SS_ONSTACK,
            _ => 0,
        };
        state | self.flags & raw::SS_AUTODISARM
    }

    /// Where a handler's stack begins that asks for this one, if it can have it and is not on it.
    pub(super) fn top(&self, pointer: u64) -> Option<u64> {
        (self.size > 0 && !self.is_used(pointer)).then(|| self.base.wrapping_add(self.size))
    }

    /// Whether a handler is called on it already.
    pub(super) fn is_nested(&self, pointer: u64) -> bool {
        self.is_used(pointer)
    }

    /// Puts another one in its place, for a program with that stack pointer.
    ///
    /// # Errors
    ///
    /// `EPERM` if the program is on it, `EINVAL` for flags, `ENOMEM` if the new one is too small.
    pub fn replace(&mut self, new: Self, pointer: u64) -> Result<()> {
        if self.is_used(pointer) {
            return Err(Errno::EPERM);
        }
        let mode = new.flags & !raw::SS_AUTODISARM;
        if !matches!(mode, 0 | raw::SS_ONSTACK | raw::SS_DISABLE) {
            return Err(Errno::EINVAL);
        }
        if *self == new {
            return Ok(());
        }
        if mode == raw::SS_DISABLE {
            *self = Self {
                flags: new.flags,
                ..Self::NONE
            };
            return Ok(());
        }
        if new.size < raw::MINSIGSTKSZ.into() {
            return Err(Errno::ENOMEM);
        }
        *self = new;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn stack(flags: u32) -> AlternateStack {
        AlternateStack {
            base: 0x10000,
            flags,
            size: 0x4000,
        }
    }

    #[test]
    fn one_that_is_used_stays() {
        let mut current = stack(0);
        assert_eq!(current.status(0x14000), raw::SS_ONSTACK);
        assert_eq!(current.status(0x10000), 0);
        assert_eq!(current.top(0x12000), None);
        assert_eq!(current.top(0x9000), Some(0x14000));
        assert_eq!(
            current.replace(AlternateStack::NONE, 0x12000),
            Err(Errno::EPERM)
        );
        assert_eq!(current.replace(stack(8), 0x9000), Err(Errno::EINVAL));
        let small = AlternateStack {
            size: 100,
            ..stack(0)
        };
        assert_eq!(current.replace(small, 0x9000), Err(Errno::ENOMEM));
        assert_eq!(current.replace(AlternateStack::NONE, 0x9000), Ok(()));
        assert_eq!(current.status(0x12000), raw::SS_DISABLE);
    }

    #[test]
    fn one_that_is_given_once_is_never_used() {
        let mut current = stack(raw::SS_AUTODISARM);
        assert_eq!(current.status(0x12000), raw::SS_AUTODISARM);
        assert_eq!(current.top(0x12000), Some(0x14000));
        assert_eq!(current.replace(AlternateStack::NONE, 0x12000), Ok(()));
    }
}
