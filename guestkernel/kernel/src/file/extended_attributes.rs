//! Extended attributes of a file that is in memory: values with names.

use crate::error::{Errno, Result};
use crate::heap;
use alloc::collections::BTreeMap;
use alloc::vec::Vec;
use machine::lock::Mutex;

/// How a value is set.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SetMode {
    /// Whether there is one or not.
    Always,
    /// Only if there is none (`XATTR_CREATE`).
    Create,
    /// Only if there is one (`XATTR_REPLACE`).
    Replace,
}

/// The extended attributes of a file.
#[derive(Debug, Default)]
pub struct ExtendedAttributes(Mutex<BTreeMap<Vec<u8>, Vec<u8>>>);

impl ExtendedAttributes {
    /// The value with that name.
    ///
    /// # Errors
    ///
    /// `ENODATA` if there is none, `ENOMEM`.
    pub fn get(&self, name: &[u8]) -> Result<Vec<u8>> {
        let values = self.0.lock();
        let value = values.get(name).ok_or(Errno::ENODATA)?;
        heap::check(value.len())?;
        Ok(value.clone())
    }

    /// Sets the value with that name.
    ///
    /// # Errors
    ///
    /// `EEXIST`, `ENODATA` as `mode` has it, `ENOSPC` if there is no room.
    pub fn set(&self, name: Vec<u8>, value: Vec<u8>, mode: SetMode) -> Result<()> {
        heap::check(name.len() + value.len()).map_err(|_| Errno::ENOSPC)?;
        let mut values = self.0.lock();
        match (mode, values.contains_key(&name)) {
            (SetMode::Create, true) => Err(Errno::EEXIST),
            (SetMode::Replace, false) => Err(Errno::ENODATA),
            _ => {
                values.insert(name, value);
                Ok(())
            }
        }
    }

    /// Forgets the value with that name.
    ///
    /// # Errors
    ///
    /// `ENODATA` if there is none.
    pub fn remove(&self, name: &[u8]) -> Result<()> {
        let removed = self.0.lock().remove(name);
        removed.map(drop).ok_or(Errno::ENODATA)
    }

    /// All names, each with a NUL behind it.
    ///
    /// # Errors
    ///
    /// `ENOMEM`.
    pub fn names(&self) -> Result<Vec<u8>> {
        let values = self.0.lock();
        let length = values.keys().map(|name| name.len() + 1).sum();
        heap::check(length)?;
        let mut names = Vec::with_capacity(length);
        for name in values.keys() {
            names.extend_from_slice(name);
            names.push(0);
        }
        Ok(names)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::vec;

    #[test]
    fn values_are_made_replaced_and_removed() {
        let all = ExtendedAttributes::default();
        let set = |value: &[u8], mode| all.set(b"user.a".to_vec(), value.to_vec(), mode);
        assert_eq!(set(b"1", SetMode::Replace), Err(Errno::ENODATA));
        assert_eq!(set(b"1", SetMode::Create), Ok(()));
        assert_eq!(set(b"2", SetMode::Create), Err(Errno::EEXIST));
        assert_eq!(set(b"3", SetMode::Replace), Ok(()));
        assert_eq!(all.get(b"user.a"), Ok(vec![b'3']));
        assert_eq!(all.names(), Ok(b"user.a\0".to_vec()));
        assert_eq!(all.remove(b"user.a"), Ok(()));
        assert_eq!(all.remove(b"user.a"), Err(Errno::ENODATA));
        assert_eq!(all.get(b"user.a"), Err(Errno::ENODATA));
    }

    #[test]
    fn they_leave_a_part_of_the_heap() {
        let all = ExtendedAttributes::default();
        let set = || all.set(b"user.a".to_vec(), vec![0; 9], SetMode::Always);
        assert_eq!(crate::heap::exhausted(set), Err(Errno::ENOSPC));
        assert_eq!(all.names(), Ok(vec![]));
    }
}
