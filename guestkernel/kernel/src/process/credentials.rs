//! User and group ids: kept and given back. Everything runs with root's rights.

use crate::error::{Errno, Result};
use alloc::vec::Vec;

/// Real, effective and saved id.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Ids {
    /// Real.
    pub real: u32,
    /// Effective.
    pub effective: u32,
    /// Saved.
    pub saved: u32,
}

/// Who a process is.
#[derive(Clone, Debug, Default)]
pub struct Credentials {
    /// User ids.
    pub user: Ids,
    /// Group ids.
    pub group: Ids,
    /// Supplementary groups.
    pub groups: Vec<u32>,
}

impl Ids {
    /// `setuid(2)`: root sets all three, others the effective one.
    ///
    /// # Errors
    ///
    /// `EINVAL` for -1, `EPERM`.
    pub fn set(&mut self, id: u32, is_root: bool) -> Result<()> {
        if id == u32::MAX {
            return Err(Errno::EINVAL);
        }
        if is_root {
            self.real = id;
            self.saved = id;
        } else if id != self.real && id != self.saved {
            return Err(Errno::EPERM);
        }
        self.effective = id;
        Ok(())
    }

    /// `setreuid(2)`; -1 leaves an id as it is.
    ///
    /// # Errors
    ///
    /// `EPERM`.
    pub fn set_real_effective(&mut self, real: u32, effective: u32, is_root: bool) -> Result<()> {
        let may_real = [self.real, self.effective];
        let may_effective = [self.real, self.effective, self.saved];
        let is_allowed = |id: u32, may: &[u32]| id == u32::MAX || is_root || may.contains(&id);
        if !is_allowed(real, &may_real) || !is_allowed(effective, &may_effective) {
            return Err(Errno::EPERM);
        }
        let old_real = self.real;
        if real != u32::MAX {
            self.real = real;
        }
        if effective != u32::MAX {
            self.effective = effective;
        }
        if real != u32::MAX || effective != u32::MAX && effective != old_real {
            self.saved = self.effective;
        }
        Ok(())
    }

    /// `setresuid(2)`; -1 leaves an id as it is.
    ///
    /// # Errors
    ///
    /// `EPERM`.
    pub fn set_all(&mut self, new: Ids, is_root: bool) -> Result<()> {
        let may = [self.real, self.effective, self.saved];
        let pairs = [
            (new.real, self.real),
            (new.effective, self.effective),
            (new.saved, self.saved),
        ];
        let is_allowed = |id: u32| id == u32::MAX || is_root || may.contains(&id);
        if !pairs.iter().all(|(id, _)| is_allowed(*id)) {
            return Err(Errno::EPERM);
        }
        let [real, effective, saved] = pairs.map(|(id, old)| if id == u32::MAX { old } else { id });
        *self = Self {
            real,
            effective,
            saved,
        };
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn giving_up_root_is_final() {
        let mut ids = Ids::default();
        ids.set(1000, true).unwrap();
        assert_eq!(ids.set(0, false), Err(Errno::EPERM));
        assert_eq!(ids.set(u32::MAX, true), Err(Errno::EINVAL));
    }

    #[test]
    fn minus_one_leaves_an_id() {
        let mut ids = Ids::default();
        ids.set_all(
            Ids {
                real: u32::MAX,
                effective: 5,
                saved: u32::MAX,
            },
            true,
        )
        .unwrap();
        assert_eq!((ids.real, ids.effective, ids.saved), (0, 5, 0));
        ids.set_real_effective(u32::MAX, 0, false).unwrap();
        assert_eq!(ids.effective, 0);
        assert_eq!(
            ids.set_real_effective(7, u32::MAX, false),
            Err(Errno::EPERM)
        );
    }
}
