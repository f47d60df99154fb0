//! Whose files the guest sees, and to whom it may give them.

use rustix::fs::{Gid, Uid};
use rustix::io::Errno;

use super::protocol::Result;

/// The user that the server is, and what follows for IDs.
#[derive(Clone, Copy, Debug)]
pub(super) struct Identity {
    uid: u32,
    gid: u32,
}

impl Identity {
    /// This process's.
    pub(super) fn of_process() -> Self {
        Self {
            uid: rustix::process::geteuid().as_raw(),
            gid: rustix::process::getegid().as_raw(),
        }
    }

    /// Whether IDs are stored as they are.
    pub(super) fn is_root(self) -> bool {
        self.uid == 0
    }

    /// The user ID that the guest sees of the host's `uid`.
    pub(super) fn shown_uid(self, uid: u32) -> u32 {
        match self.is_root() {
            false if uid == self.uid => 0,
            _ => uid,
        }
    }

    /// The group ID that the guest sees of the host's `gid`.
    pub(super) fn shown_gid(self, gid: u32) -> u32 {
        match self.is_root() {
            false if gid == self.gid => 0,
            _ => gid,
        }
    }

    /// The user that stands for the guest's `uid` on the host.
    ///
    /// # Errors
    ///
    /// EPERM if it cannot be stored, EINVAL for the ID that is none.
    pub(super) fn stored_uid(self, uid: u32) -> Result<Uid> {
        match uid {
            u32::MAX => Err(Errno::INVAL),
            uid if self.is_root() => Ok(Uid::from_raw(uid)),
            0 => Ok(Uid::from_raw(self.uid)),
            _ => Err(Errno::PERM),
        }
    }

    /// As [`stored_uid`](Self::stored_uid), for a group. Other groups of the server's user may be stored;
    /// the host knows which.
    pub(super) fn stored_gid(self, gid: u32) -> Result<Gid> {
        match gid {
            u32::MAX => Err(Errno::INVAL),
            gid if self.is_root() => Ok(Gid::from_raw(gid)),
            0 => Ok(Gid::from_raw(self.gid)),
            gid if gid == self.gid => Err(Errno::PERM),
            gid => Ok(Gid::from_raw(gid)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn root_stores_what_it_is_told() {
        let root = Identity { uid: 0, gid: 0 };
        assert_eq!(root.shown_uid(1000), 1000);
        assert_eq!(root.stored_uid(7).unwrap().as_raw(), 7);
        assert_eq!(root.stored_gid(7).unwrap().as_raw(), 7);
        assert_eq!(root.stored_uid(u32::MAX), Err(Errno::INVAL));
    }

    #[test]
    fn anybody_else_is_shown_as_root_and_stores_nobody_else() {
        let user = Identity {
            uid: 1000,
            gid: 100,
        };
        assert_eq!(user.shown_uid(1000), 0);
        assert_eq!(user.shown_uid(0), 0);
        assert_eq!(user.shown_uid(5), 5);
        assert_eq!(user.shown_gid(100), 0);
        assert_eq!(user.stored_uid(0).unwrap().as_raw(), 1000);
        assert_eq!(user.stored_uid(1000), Err(Errno::PERM));
        assert_eq!(user.stored_gid(0).unwrap().as_raw(), 100);
        assert_eq!(user.stored_gid(100), Err(Errno::PERM));
        assert_eq!(user.stored_gid(27).unwrap().as_raw(), 27);
    }
}
