//! Extended attributes of an inode, kept in memory: names and values that mean something to programs
//! (`xattr(7)`).

use crate::error::{Errno, Result};
use crate::heap;
use alloc::collections::BTreeMap;
use alloc::vec::Vec;
use machine::lock::Mutex;

/// Bytes of the kernel's heap that an attribute takes, beside its name and its value.
const COST: usize = 512;

/// Whether an attribute may be there before it is set.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Presence {
    /// It may be there or not.
    Any,
    /// It must not be there (`XATTR_CREATE`).
    Absent,
    /// It must be there (`XATTR_REPLACE`).
    Present,
}

/// The attributes of one inode.
#[derive(Debug, Default)]
pub struct ExtendedAttributes(Mutex<BTreeMap<Vec<u8>, Vec<u8>>>);

impl ExtendedAttributes {
    /// Sets one.
    ///
    /// # Errors
    ///
    /// `EEXIST`, `ENODATA`, `ENOSPC` if there is no memory for it.
    pub fn set(&self, name: &[u8], value: &[u8], presence: Presence) -> Result<()> {
        heap::check(COST + 2 * (name.len() + value.len())).map_err(|_| Errno::ENOSPC)?;
        let mut attributes = self.0.lock();
        match (attributes.contains_key(name), presence) {
            (true, Presence::Absent) => return Err(Errno::EEXIST),
            (false, Presence::Present) => return Err(Errno::ENODATA),
            _ => {}
        }
        attributes.insert(name.to_vec(), value.to_vec());
        Ok(())
    }

    /// The value of one.
    ///
    /// # Errors
    ///
    /// `ENODATA`.
    pub fn get(&self, name: &[u8]) -> Result<Vec<u8>> {
        self.0.lock().get(name).cloned().ok_or(Errno::ENODATA)
    }

    /// Removes one.
    ///
    /// # Errors
    ///
    /// `ENODATA`.
    pub fn remove(&self, name: &[u8]) -> Result<()> {
        let removed = self.0.lock().remove(name);
        removed.map(drop).ok_or(Errno::ENODATA)
    }

    /// The names for which `is_shown`, each with a NUL behind it.
    pub fn list(&self, is_shown: impl Fn(&[u8]) -> bool) -> Vec<u8> {
        let attributes = self.0.lock();
        let names = attributes.keys().filter(|name| is_shown(name));
        names
            .flat_map(|name| name.iter().copied().chain([0]))
            .collect()
    }
}
