//! The jail: a VMM that a guest has taken over reaches nothing that the VM did not need.
//!
//! Each thread is confined on its own, when it has what it needs; when all are, the guest may run. It
//! has no_new_privs, no capabilities, by landlock no [`files`] but those of shares, and by a seccomp
//! [`filter`] only the system calls that its kind still makes ([`calls`]). One that makes another ends
//! the VM ([`violation`]). Rings are made before, and restricted to their opcodes
//! (`ringlet_devices`). The process as a whole has [`limits`].
//!
//! What the host does not allow is done without, unless the policy is [`Policy::Strict`]; [`survey`]
//! finds out what that is ([`parts`]).
//!
//! # A device with a thread of its own
//!
//! - starts it when it is made, with [`Threads`]: a `Service` if it serves what the driver activates;
//!   what needs rights is done in `prepare`, on the new thread (rings, descriptors, more threads);
//! - has a [`ThreadKind`], and its system calls in the table in [`calls`], which is all that the filter
//!   is made of. A kind that needs no other calls than one that is there shares that one's line;
//! - if it opens files of the host later on, they are in [`Needs`], and [`calls::serves_files`] names
//!   its kind;
//! - is tested by a stand-in for a thread that was taken over (`tests`), as all other kinds are.

mod calls;
mod files;
mod filter;
mod identity;
mod limits;
pub mod parts;
#[cfg(test)]
mod tests;
pub mod violation;

use std::io;
use std::path::{Path, PathBuf};

use landlock::RulesetCreated;
use ringlet_devices::{ThreadKind, Threads};
use rustix::thread::{CapabilitySet, set_no_new_privs};

pub use files::Share;
pub use parts::{Finding, Part, survey};

use crate::outcome::Ending;
use files::Rules;

/// How much of the jail there has to be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Policy {
    /// None.
    Off,
    /// What the host allows.
    Auto,
    /// All of it.
    Strict,
}

/// A part of the jail that there has to be, and that the host does not allow.
#[derive(Debug, thiserror::Error)]
#[error(
    "--jail=strict: {part}: {cause}; 'ringlet doctor' says what works here, and '--jail=auto' does \
     without"
)]
pub struct JailError {
    /// The part.
    part: Part,
    /// What the host says.
    cause: io::Error,
}

impl From<JailError> for io::Error {
    fn from(error: JailError) -> Self {
        Self::new(error.cause.kind(), error)
    }
}

/// What a VM needs of the host's files beyond those that are open when it starts.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Needs {
    /// Directories and files in which others are opened.
    pub shares: Vec<Share>,
    /// Sockets that are removed at the end.
    pub sockets: Vec<PathBuf>,
}

impl Policy {
    /// Closes what this process was given and does not know. It has opened nothing yet, and has one
    /// thread.
    ///
    /// # Errors
    ///
    /// As for [`close`](Self::close).
    pub fn begin(self) -> io::Result<()> {
        if self == Self::Off {
            return Ok(());
        }
        limits::use_one_heap();
        self.attempt(Part::Descriptors, limits::close_inherited)
    }

    /// Confines this process, as far as that is not done thread by thread, and gives what confines its
    /// threads. One that violates that ends the VM by `ending`.
    ///
    /// # Errors
    ///
    /// [`JailError`] as the source of an error, or the host denies what a thread's confinement takes.
    pub fn close(self, needs: &Needs, ending: &Ending) -> io::Result<Threads> {
        if self == Self::Off {
            return Ok(Threads::unconfined());
        }
        self.attempt(Part::Limits, limits::set)?;
        self.attempt(Part::NotDumpable, limits::hide_memory)?;
        violation::watch(ending.event())?;
        let mut rules = None;
        self.attempt(Part::Landlock, || {
            let directories = needs.sockets.iter().filter_map(|socket| directory(socket));
            let directories: Vec<_> = directories.collect();
            rules = Some(Rules::new(&needs.shares, &directories)?);
            Ok(())
        })?;
        let has_shares = !needs.shares.is_empty();
        Ok(Threads::new(move |kind| {
            self.confine(kind, rules.as_ref(), has_shares)
        }))
    }

    /// Confines the calling thread.
    fn confine(self, kind: ThreadKind, rules: Option<&Rules>, has_shares: bool) -> io::Result<()> {
        violation::note_kind(kind);
        self.attempt(Part::NoNewPrivileges, || Ok(set_no_new_privs(true)?))?;
        let serves_files = calls::serves_files(kind);
        if let Some(rules) = rules {
            self.attempt(Part::Landlock, || rules.enforce(serves_files))?;
        }
        let kept = match serves_files && has_shares {
            true => identity::OVER_FILES,
            false => CapabilitySet::empty(),
        };
        self.attempt(Part::Capabilities, || identity::keep(kept))?;
        self.attempt(Part::Seccomp, || filter::install(kind))?;
        Ok(())
    }

    /// What confines a child of the VMM that is about to execute `program`, which has a filter of its own.
    /// It can read what is installed on the host, and `files`, and write nothing.
    ///
    /// # Errors
    ///
    /// As for [`close`](Self::close).
    pub fn for_program(self, program: &Path, files: &[PathBuf]) -> io::Result<ProgramJail> {
        let mut rules = None;
        if self != Self::Off {
            self.attempt(Part::Landlock, || {
                rules = Some(files::rules_of_program(program, files)?);
                Ok(())
            })?;
        }
        Ok(ProgramJail {
            policy: self,
            rules,
        })
    }

    /// Does what a part is about, or does without it.
    fn attempt(
        self,
        part: Part,
        enforce: impl FnOnce() -> io::Result<()>,
    ) -> Result<(), io::Error> {
        match enforce() {
            Ok(()) => Ok(()),
            Err(cause) if self == Self::Strict => Err(JailError { part, cause }.into()),
            Err(cause) => {
                log::debug!("jail: {part} does not work: {cause}");
                Ok(())
            }
        }
    }
}

/// A jail for a program that is about to be executed.
pub struct ProgramJail {
    policy: Policy,
    rules: Option<RulesetCreated>,
}

impl ProgramJail {
    /// Another one like it.
    ///
    /// # Errors
    ///
    /// The host denies a descriptor.
    pub fn try_clone(&self) -> io::Result<Self> {
        let rules = self.rules.as_ref().map(RulesetCreated::try_clone);
        Ok(Self {
            policy: self.policy,
            rules: rules.transpose()?,
        })
    }

    /// Puts the calling process, a child with one thread, into it. Does nothing but system calls, unless
    /// one fails.
    ///
    /// # Errors
    ///
    /// As for [`Policy::close`].
    pub fn enter(&self) -> io::Result<()> {
        if self.policy == Policy::Off {
            return Ok(());
        }
        let landlock = || match &self.rules {
            Some(rules) => files::enforce(rules),
            None => Ok(()),
        };
        // In the child of a process with several threads nothing can be logged.
        let check = |part, result: io::Result<()>| match result {
            Err(cause) if self.policy == Policy::Strict => Err(JailError { part, cause }),
            _ => Ok(()),
        };
        check(Part::Limits, limits::set())?;
        check(
            Part::NoNewPrivileges,
            set_no_new_privs(true).map_err(Into::into),
        )?;
        check(Part::Landlock, landlock())?;
        check(Part::Capabilities, identity::give_up_for_programs())?;
        Ok(())
    }
}

/// The directory that a file is in.
fn directory(path: &Path) -> Option<PathBuf> {
    match path.parent()? {
        parent if parent.as_os_str().is_empty() => Some(PathBuf::from(".")),
        parent => Some(parent.to_owned()),
    }
}
