//! Extended attributes of a file in memory (`xattr(7)`).

use crate::error::{Errno, Result};
use crate::fs::SetMode;
use crate::heap;
use alloc::boxed::Box;
use alloc::collections::BTreeMap;
use alloc::vec::Vec;
use machine::lock::Mutex;

/// The name spaces that there are.
const PREFIXES: [&[u8]; 3] = [b"user.", b"trusted.", b"security."];
/// Bytes of the heap that an attribute takes beside its name and value.
const COST: usize = 256;

type Values = BTreeMap<Box<[u8]>, Box<[u8]>>;

/// The extended attributes of one file; most have none.
#[derive(Default)]
pub(super) struct ExtendedAttributes(Mutex<Option<Box<Values>>>);

fn check(name: &[u8]) -> Result<()> {
    let prefix = PREFIXES.into_iter().find(|prefix| name.starts_with(prefix));
    match prefix {
        None => Err(Errno::EOPNOTSUPP),
        Some(prefix) if prefix.len() == name.len() => Err(Errno::EINVAL),
        Some(_) => Ok(()),
    }
}

impl ExtendedAttributes {
    pub(super) fn get(&self, name: &[u8]) -> Result<Vec<u8>> {
        check(name)?;
        let values = self.0.lock();
        let value = values.as_ref().and_then(|values| values.get(name));
        value.map(|value| value.to_vec()).ok_or(Errno::ENODATA)
    }

    pub(super) fn set(&self, name: &[u8], value: Vec<u8>, mode: SetMode) -> Result<()> {
        check(name)?;
        heap::check(COST + name.len() + value.len()).map_err(|_| Errno::ENOSPC)?;
        let mut values = self.0.lock();
        let values = values.get_or_insert_default();
        match (values.contains_key(name), mode) {
            (true, SetMode::Create) => Err(Errno::EEXIST),
            (false, SetMode::Replace) => Err(Errno::ENODATA),
            _ => {
                values.insert(name.into(), value.into());
                Ok(())
            }
        }
    }

    pub(super) fn remove(&self, name: &[u8]) -> Result<()> {
        check(name)?;
        let mut values = self.0.lock();
        let value = values.as_mut().and_then(|values| values.remove(name));
        value.map(drop).ok_or(Errno::ENODATA)
    }

    /// All names, each with a NUL behind it.
    pub(super) fn list(&self) -> Vec<u8> {
        let values = self.0.lock();
        let mut list = Vec::new();
        for name in values.iter().flat_map(|values| values.keys()) {
            list.extend_from_slice(name);
            list.push(0);
        }
        list
    }
}
