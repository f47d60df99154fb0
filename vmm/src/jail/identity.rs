//! Who the VMM is: its user, and its capabilities.

use std::ffi::CString;
use std::io;
use std::mem::MaybeUninit;

use rustix::process::{DumpableBehavior, getegid, geteuid, set_dumpable_behavior};
use rustix::thread::{
    CapabilitiesSecureBits, CapabilitySet, CapabilitySets, capabilities,
    clear_ambient_capability_set, remove_capability_from_bounding_set, set_capabilities,
    set_capabilities_secure_bits, set_keep_capabilities, set_thread_groups, set_thread_res_gid,
    set_thread_res_uid,
};
use rustix::thread::{Gid, Uid};

/// Users from here on are nobody's (systemd's docs/UIDS-GIDS.md: 1879048192 to 2147483647): each VMM
/// that root starts is one of its own, so that none can touch another.
const FIRST_OWN: u32 = 0x7000_0000;
/// Who is nobody where only some users exist, as in a container.
const NOBODY: u32 = 65534;

/// A user and a group.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct User {
    /// The user's number.
    pub uid: u32,
    /// The group's number.
    pub gid: u32,
}

impl User {
    /// Understands `NAME`, `UID` and `UID:GID`. A user's group is the one that it has in the list of
    /// users; that of a number which is not there, is the same number.
    ///
    /// # Errors
    ///
    /// What to write instead.
    pub fn parse(text: &str) -> Result<Self, String> {
        let number = |text: &str| {
            text.parse::<u32>()
                .ok()
                .filter(|number| *number != u32::MAX)
        };
        if let Some((uid, gid)) = text.split_once(':') {
            return match (number(uid), number(gid)) {
                (Some(uid), Some(gid)) => Ok(Self { uid, gid }),
                _ => Err("give a user's name, UID or UID:GID".to_owned()),
            };
        }
        let (uid, gid) = match (number(text), look_up(text)) {
            (None, None) => return Err(format!("there is no user '{text}'")),
            (None, Some(user)) => return Ok(user),
            (Some(uid), _) => (uid, uid),
        };
        Ok(Self { uid, gid })
    }

    /// The one that this process is.
    pub(super) fn current() -> Self {
        Self {
            uid: geteuid().as_raw(),
            gid: getegid().as_raw(),
        }
    }

    /// Those that the VMM of root's process `number` may become, in order, where nobody says which.
    pub(super) fn of_process(number: u32) -> [Self; 2] {
        [FIRST_OWN + number, NOBODY].map(|id| Self { uid: id, gid: id })
    }

    /// Becomes this user, with all capabilities that this process has.
    ///
    /// # Errors
    ///
    /// Those of setresuid(2), setresgid(2), setgroups(2) and capset(2).
    pub(super) fn assume(self) -> io::Result<()> {
        let (uid, gid) = (Uid::from_raw(self.uid), Gid::from_raw(self.gid));
        set_keep_capabilities(true)?;
        set_thread_groups(&[])?;
        set_thread_res_gid(gid, gid, gid)?;
        set_thread_res_uid(uid, uid, uid)?;
        set_keep_capabilities(false)?;
        use_capabilities()?;
        // Its files in /proc belong to root otherwise, and it is to write its maps of users.
        set_dumpable_behavior(DumpableBehavior::Dumpable)?;
        Ok(())
    }
}

/// The user of that name in the list of users.
fn look_up(name: &str) -> Option<User> {
    let name = CString::new(name).ok()?;
    let mut buffer = vec![0; 16 << 10];
    let mut entry = MaybeUninit::<libc::passwd>::uninit();
    let mut found = std::ptr::null_mut();
    // SAFETY: the name is a C string; entry, buffer and result are live and of the sizes that are told.
    let result = unsafe {
        libc::getpwnam_r(
            name.as_ptr(),
            entry.as_mut_ptr(),
            buffer.as_mut_ptr(),
            buffer.len(),
            &raw mut found,
        )
    };
    if result != 0 || found.is_null() {
        return None;
    }
    // SAFETY: the result is not null, so the entry is filled in.
    let entry = unsafe { entry.assume_init() };
    Some(User {
        uid: entry.pw_uid,
        gid: entry.pw_gid,
    })
}

/// Uses all capabilities that this process may use.
///
/// # Errors
///
/// Those of capset(2).
pub(super) fn use_capabilities() -> io::Result<()> {
    let sets = capabilities(None)?;
    Ok(set_capabilities(
        None,
        CapabilitySets {
            effective: sets.permitted,
            ..sets
        },
    )?)
}

/// Uses no capabilities for now, but may again.
///
/// # Errors
///
/// Those of capset(2).
pub(super) fn rest_capabilities() -> io::Result<()> {
    let sets = capabilities(None)?;
    Ok(set_capabilities(
        None,
        CapabilitySets {
            effective: CapabilitySet::empty(),
            ..sets
        },
    )?)
}

/// Gives up all capabilities but those in `kept`, for this process and what it executes.
///
/// # Errors
///
/// Those of prctl(2) and capset(2).
pub(super) fn drop_capabilities(kept: CapabilitySet) -> io::Result<()> {
    let has = capabilities(None)?.permitted;
    // Only who has this one may shrink the bounding set; nobody else can get anything by it.
    if has.contains(CapabilitySet::SETPCAP) {
        use_capabilities()?;
        set_capabilities_secure_bits(
            CapabilitiesSecureBits::NO_ROOT
                | CapabilitiesSecureBits::NO_ROOT_LOCKED
                | CapabilitiesSecureBits::NO_SETUID_FIXUP
                | CapabilitiesSecureBits::NO_SETUID_FIXUP_LOCKED
                | CapabilitiesSecureBits::NO_CAP_AMBIENT_RAISE
                | CapabilitiesSecureBits::NO_CAP_AMBIENT_RAISE_LOCKED,
        )?;
        for capability in CapabilitySet::all().difference(kept).iter() {
            match remove_capability_from_bounding_set(capability) {
                // The host's kernel does not know all of them.
                Ok(()) | Err(rustix::io::Errno::INVAL) => (),
                Err(error) => return Err(error.into()),
            }
        }
    }
    clear_ambient_capability_set()?;
    let kept = has.intersection(kept);
    Ok(set_capabilities(
        None,
        CapabilitySets {
            effective: kept,
            permitted: kept,
            inheritable: CapabilitySet::empty(),
        },
    )?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn users_have_names_or_numbers() {
        let user = |uid, gid| Ok(User { uid, gid });
        assert_eq!(User::parse("root"), user(0, 0));
        assert_eq!(User::parse("1234"), user(1234, 1234));
        assert_eq!(User::parse("1234:77"), user(1234, 77));
        for text in ["", "no-such-user", "1:", ":1", "-1", "1:2:3", "4294967295"] {
            assert!(User::parse(text).is_err(), "{text}");
        }
    }

    #[test]
    fn users_of_their_own_differ_by_process() {
        let [[one, nobody], [other, _]] = [1, 2].map(User::of_process);
        assert_ne!(one, other);
        assert_eq!(nobody.uid, NOBODY);
        // The largest number of a process, and the last user that is nobody's.
        let [last, _] = User::of_process(1 << 22);
        assert!(last.uid < 1 << 31);
    }
}
