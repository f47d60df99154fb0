//! The parts of the jail, and which of them the host allows.

use std::fmt;
use std::io;

use ringlet_devices::ThreadKind;
use ringlet_devices::block::has_restrictions;
use rustix::process::{WaitOptions, geteuid, waitpid};
use rustix::thread::{CapabilitySet, set_no_new_privs};

use super::identity::{self, User};
use super::{files, filter, limits, namespaces, root};

/// A part of the jail.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Part {
    /// System calls are filtered by thread.
    Seccomp,
    /// No files, networks and signals to others.
    Landlock,
    /// Executing gives no rights.
    NoNewPrivileges,
    /// Capabilities reach no further than the VMM.
    UserNamespace,
    /// Mounts of its own.
    MountNamespace,
    /// Other processes are not seen.
    PidNamespace,
    /// Other processes' System V objects are not seen.
    IpcNamespace,
    /// Nor the host's name.
    UtsNamespace,
    /// Nor its networks.
    NetworkNamespace,
    /// There are no files.
    EmptyRoot,
    /// A VMM of root has a user of its own.
    OwnUser,
    /// No capabilities.
    Capabilities,
    /// An io_uring does disk I/O and nothing else.
    RingRestrictions,
    /// Descriptors that it was given and that are none of the standard streams are closed.
    Descriptors,
    /// Others do not see its memory.
    NotDumpable,
    /// Limits on what it takes.
    Limits,
}

impl Part {
    /// All there are.
    pub const ALL: [Self; 16] = [
        Self::Seccomp,
        Self::Landlock,
        Self::NoNewPrivileges,
        Self::UserNamespace,
        Self::MountNamespace,
        Self::PidNamespace,
        Self::IpcNamespace,
        Self::UtsNamespace,
        Self::NetworkNamespace,
        Self::EmptyRoot,
        Self::OwnUser,
        Self::Capabilities,
        Self::RingRestrictions,
        Self::Descriptors,
        Self::NotDumpable,
        Self::Limits,
    ];

    /// Its name in `ringlet doctor` and in messages.
    pub fn name(self) -> &'static str {
        match self {
            Self::Seccomp => "seccomp",
            Self::Landlock => "landlock",
            Self::NoNewPrivileges => "no_new_privs",
            Self::UserNamespace => "user_namespace",
            Self::MountNamespace => "mount_namespace",
            Self::PidNamespace => "pid_namespace",
            Self::IpcNamespace => "ipc_namespace",
            Self::UtsNamespace => "uts_namespace",
            Self::NetworkNamespace => "network_namespace",
            Self::EmptyRoot => "empty_root",
            Self::OwnUser => "own_user",
            Self::Capabilities => "capabilities",
            Self::RingRestrictions => "io_uring_restrictions",
            Self::Descriptors => "descriptors",
            Self::NotDumpable => "not_dumpable",
            Self::Limits => "rlimits",
        }
    }

    /// Does to this process, which must have one thread only, what the part does to a VMM.
    fn enforce(self) -> io::Result<()> {
        let is_root = geteuid().is_root();
        match self {
            Self::Seccomp => {
                set_no_new_privs(true)?;
                filter::install(ThreadKind::Main)
            }
            Self::Landlock => {
                set_no_new_privs(true)?;
                files::restrict(&[], files::Exceptions::default())
            }
            Self::NoNewPrivileges => Ok(set_no_new_privs(true)?),
            Self::UserNamespace => namespaces::new_users(),
            Self::PidNamespace if is_root => namespaces::new_processes(),
            Self::PidNamespace => namespaces::new_users_and_processes(),
            Self::MountNamespace
            | Self::IpcNamespace
            | Self::UtsNamespace
            | Self::NetworkNamespace => {
                become_able(is_root)?;
                namespaces::enter(self)
            }
            Self::EmptyRoot => {
                become_able(is_root)?;
                namespaces::enter(Self::MountNamespace)?;
                root::enter_empty()
            }
            Self::OwnUser if is_root => assume_any(&User::of_process(std::process::id())).map(drop),
            Self::OwnUser => Err(io::Error::new(
                io::ErrorKind::PermissionDenied,
                "only root can take another user: the VMM keeps that of who started it",
            )),
            Self::Capabilities => identity::drop_capabilities(CapabilitySet::empty()),
            Self::RingRestrictions => match has_restrictions() {
                true => Ok(()),
                false => Err(io::Error::new(
                    io::ErrorKind::Unsupported,
                    "the host has no io_uring that can be restricted (Linux 5.10)",
                )),
            },
            Self::Descriptors => limits::close_inherited(),
            Self::NotDumpable => limits::hide_memory(),
            Self::Limits => limits::set(false),
        }
    }
}

/// Who is not root can enter namespaces only within one of users.
fn become_able(is_root: bool) -> io::Result<()> {
    match is_root {
        true => Ok(()),
        false => namespaces::new_users(),
    }
}

/// Becomes the first of `users` that the host knows, and gives that.
///
/// # Errors
///
/// Those of [`User::assume`], about the last one.
pub(super) fn assume_any(users: &[User]) -> io::Result<User> {
    let mut result = Err(io::ErrorKind::NotFound.into());
    for user in users {
        result = user.assume().map(|()| *user);
        // Others are not in the list of users of a container.
        match &result {
            Err(error) if error.raw_os_error() == Some(libc::EINVAL) => (),
            _ => break,
        }
    }
    result
}

impl fmt::Display for Part {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// Whether a part works on this host, for this user.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finding {
    /// The part.
    pub part: Part,
    /// Whether it does.
    pub works: bool,
    /// Why it does not; empty if it does.
    pub reason: String,
}

/// Tries all parts, each in a process of its own. This one must have one thread only.
pub fn survey() -> Vec<Finding> {
    Part::ALL.map(find).into()
}

fn find(part: Part) -> Finding {
    let (works, reason) = match in_another_process(|| part.enforce()) {
        Ok(()) => (true, String::new()),
        Err(error) => (false, error.to_string()),
    };
    Finding {
        part,
        works,
        reason,
    }
}

/// What `attempt` comes to in a process that ends with it.
fn in_another_process(attempt: impl FnOnce() -> io::Result<()>) -> io::Result<()> {
    let (mut reader, writer) = io::pipe()?;
    // SAFETY: this process has one thread only, as the callers promise, so the child may do anything.
    match unsafe { libc::fork() } {
        -1 => Err(io::Error::last_os_error()),
        0 => {
            let answer = match attempt() {
                Ok(()) => String::new(),
                Err(error) => error.to_string(),
            };
            // Without an answer it counts as one that was killed.
            let told = io::Write::write_all(&mut &writer, answer.as_bytes());
            // SAFETY: _exit has no memory arguments.
            unsafe { libc::_exit(told.is_err().into()) }
        }
        child => {
            drop(writer);
            let mut answer = String::new();
            io::Read::read_to_string(&mut reader, &mut answer)?;
            let child = rustix::process::Pid::from_raw(child);
            let status = waitpid(child, WaitOptions::empty())?;
            match status {
                Some((_, status)) if status.exit_status() == Some(0) => match answer.as_str() {
                    "" => Ok(()),
                    _ => Err(io::Error::other(answer)),
                },
                _ => Err(io::Error::other("a process that tried it was killed")),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashSet;

    #[test]
    fn all_parts_are_there_and_named() {
        let names: HashSet<_> = Part::ALL.iter().map(|part| part.name()).collect();
        assert_eq!(names.len(), Part::ALL.len());
        let last = Part::ALL[Part::ALL.len() - 1];
        assert_eq!(last as usize, Part::ALL.len() - 1);
    }
}
