//! Registered credentials (`IORING_REGISTER_PERSONALITY`): requests say by number with whose they are
//! made. Everything here runs with root's rights, so that it matters only whether there are any.

use crate::error::{Errno, Result};
use crate::process::Credentials;
use alloc::collections::BTreeMap;

/// The most that a ring has.
const MOST: u32 = u16::MAX as u32 + 1;

/// The credentials of a ring.
#[derive(Default)]
pub(super) struct Personalities {
    registered: BTreeMap<u16, Credentials>,
    next: u16,
}

impl Personalities {
    /// Registers `credentials`; gives their number, which comes after that of those before.
    ///
    /// # Errors
    ///
    /// `EBUSY` if there are as many as there are numbers, `ENOMEM`.
    pub(super) fn add(&mut self, credentials: Credentials) -> Result<u16> {
        if self.registered.len() as u32 >= MOST - 1 {
            return Err(Errno::EBUSY);
        }
        crate::heap::check(size_of::<Credentials>() + credentials.groups.len() * size_of::<u32>())?;
        // No personality at all is 0 in an SQE.
        let mut number = self.next.max(1);
        while self.registered.contains_key(&number) {
            number = number.wrapping_add(1).max(1);
        }
        self.next = number.wrapping_add(1);
        self.registered.insert(number, credentials);
        Ok(number)
    }

    /// Forgets those with that number.
    ///
    /// # Errors
    ///
    /// `EINVAL`.
    pub(super) fn remove(&mut self, number: u32) -> Result<()> {
        let number = u16::try_from(number).map_err(|_| Errno::EINVAL)?;
        let removed = self.registered.remove(&number);
        removed.map(drop).ok_or(Errno::EINVAL)
    }

    /// Whether there are any with that number.
    pub(super) fn contains(&self, number: u16) -> bool {
        self.registered.contains_key(&number)
    }
}
