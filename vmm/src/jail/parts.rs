//! The parts of the jail, and which of them the host allows.

use std::fmt;
use std::io;

use ringlet_devices::ThreadKind;
use ringlet_devices::block::has_restrictions;
use rustix::process::{WaitOptions, waitpid};
use rustix::thread::{CapabilitySet, set_no_new_privs};

use super::{files, filter, identity, limits};

/// A part of the jail.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Part {
    /// System calls are filtered by thread.
    Seccomp,
    /// No files and networks but those that were named.
    Landlock,
    /// Executing gives no rights.
    NoNewPrivileges,
    /// No capabilities.
    Capabilities,
    /// An io_uring moves data and nothing else.
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
    pub const ALL: [Self; 8] = [
        Self::Seccomp,
        Self::Landlock,
        Self::NoNewPrivileges,
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
            Self::Capabilities => "capabilities",
            Self::RingRestrictions => "io_uring_restrictions",
            Self::Descriptors => "descriptors",
            Self::NotDumpable => "not_dumpable",
            Self::Limits => "rlimits",
        }
    }

    /// Does to this process, which must have one thread only, what the part does to a VMM.
    fn enforce(self) -> io::Result<()> {
        match self {
            Self::Seccomp => {
                set_no_new_privs(true)?;
                filter::install(ThreadKind::Main)
            }
            Self::Landlock => {
                set_no_new_privs(true)?;
                files::Rules::new(&[], &[])?.enforce(false)
            }
            Self::NoNewPrivileges => Ok(set_no_new_privs(true)?),
            Self::Capabilities => identity::keep(CapabilitySet::empty()),
            Self::RingRestrictions => match has_restrictions() {
                true => Ok(()),
                false => Err(io::Error::new(
                    io::ErrorKind::Unsupported,
                    "the host has no io_uring that can be restricted (Linux 5.10)",
                )),
            },
            Self::Descriptors => limits::close_inherited(),
            Self::NotDumpable => limits::hide_memory(),
            Self::Limits => limits::set(),
        }
    }
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
