//! The jail: a VMM that a guest has taken over reaches nothing that the VM did not need.
//!
//! A VM is two processes. The one that the user started stays outside as its *front*
//! ([`front`](crate::front)): it passes signals on, sets the terminal, waits, and cleans up. Its child
//! is the VMM. That opens all that the VM needs, and then gives up the rest, in this order:
//!
//! - [`namespaces`] and the [`identity`]: of root nothing is left, nor of other processes, mounts,
//!   networks;
//! - an empty [`root`] directory, [`limits`], no_new_privs, no capabilities, and by landlock no
//!   [`files`] but those in directories that are shared;
//! - for each thread a seccomp [`filter`] with what its kind still has to do ([`calls`]), when it has
//!   what it needs, and when all have, the guest may run. A thread
//!   that makes another call ends the VM ([`violation`]). Rings are made before, and restricted to
//!   their opcodes (`ringlet_devices`).
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
//! - if it opens files of the host later on, they lie below directories that are listed in
//!   [`Needs::shares`], open, before the jail is closed: the root directory is empty by then, so it
//!   opens by these descriptors (openat2(2) with RESOLVE_BENEATH). If it is to have root's rights over
//!   them, [`Needs::file_capabilities`] says so: then the VMM stays root, with these capabilities and
//!   no others, in the threads of kinds that [`calls::keeps_file_capabilities`] names; the rest drop them;
//! - is tested by a stand-in for a thread that was taken over (`intruder`, a feature of this crate that
//!   no release has), as all other kinds are, and by all that the device does while it is confined.

mod calls;
mod files;
mod filter;
mod identity;
mod limits;
mod namespaces;
pub mod parts;
mod root;
pub mod violation;

use std::io;
use std::path::Path;

use ringlet_devices::{ThreadKind, Threads};
use rustix::process::geteuid;
use rustix::thread::{CapabilitySet, set_no_new_privs};

pub use files::Share;
pub use identity::User;
pub use parts::{Finding, Part, survey};

use crate::outcome::Ending;

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
pub enum JailError {
    /// A part does not work.
    #[error(
        "--jail=strict: {part}: {cause}; 'ringlet doctor' says what works here, and '--jail=auto' does \
         without"
    )]
    Part {
        /// The part.
        part: Part,
        /// What the host says.
        cause: io::Error,
    },
    /// A user was asked for, and only root can take another one.
    #[error("--jail-user: only root can take another user; leave it out")]
    NotRoot,
    /// The user that was asked for cannot be had.
    #[error("--jail-user: {0}; give another")]
    User(io::Error),
}

/// What a VM needs of the host beyond what is open when the jail is closed.
#[derive(Debug, Default)]
pub struct Needs {
    /// The host's network.
    pub network: bool,
    /// Directories in which files are opened later.
    pub shares: Vec<Share>,
    /// Signals to a program that it has started.
    pub program: bool,
    /// Root's rights over the files in them.
    pub file_capabilities: bool,
}

/// The capabilities that root has over files, without those that reach beyond.
const FILE_CAPABILITIES: CapabilitySet = CapabilitySet::CHOWN
    .union(CapabilitySet::DAC_OVERRIDE)
    .union(CapabilitySet::FOWNER)
    .union(CapabilitySet::FSETID)
    .union(CapabilitySet::MKNOD)
    .union(CapabilitySet::SETFCAP)
    .union(CapabilitySet::SETUID)
    .union(CapabilitySet::SETGID);

/// A jail, as far as this process is in it.
#[derive(Clone, Debug)]
pub struct Jail {
    policy: Policy,
    user: Option<User>,
    is_root: bool,
    /// The number of the process that the user has started, which no other has.
    process: u32,
    /// Parts that did not work.
    failed: Vec<Part>,
    /// This process is in a user namespace of its own.
    has_users: bool,
    /// Threads that serve files keep root's rights over them.
    has_file_capabilities: bool,
    /// This process has a user that no other has, or that is in a namespace of its own.
    is_alone: bool,
}

impl Jail {
    /// A jail that this process is not in; root becomes `user` in it, or one of its own.
    ///
    /// # Errors
    ///
    /// [`JailError::NotRoot`].
    pub fn new(policy: Policy, user: Option<User>) -> Result<Self, JailError> {
        let is_root = geteuid().is_root();
        if user.is_some() && !is_root {
            return Err(JailError::NotRoot);
        }
        Ok(Self {
            policy,
            user,
            is_root,
            process: std::process::id(),
            failed: Vec::new(),
            has_users: false,
            has_file_capabilities: false,
            is_alone: false,
        })
    }

    /// Whether there is one.
    pub fn is_on(&self) -> bool {
        self.policy != Policy::Off
    }

    /// The parts that the host does not allow, of those that were tried.
    pub fn failed(&self) -> &[Part] {
        &self.failed
    }

    /// Prepares for the front and the VMM to become two processes: the next child of this process,
    /// which must have one thread only, sees no other processes.
    ///
    /// # Errors
    ///
    /// [`JailError::Part`].
    pub fn prepare_fork(&mut self) -> Result<(), JailError> {
        if !self.is_on() {
            return Ok(());
        }
        if self.is_root {
            self.attempt(Part::PidNamespace, namespaces::new_processes)?;
            return Ok(());
        }
        // Only in a user namespace may others than root have any of the rest.
        self.has_users = self.attempt(Part::UserNamespace, namespaces::new_users_and_processes)?;
        self.is_alone = self.has_users;
        if self.has_users {
            // Files are opened with the rights of the user, not with those of the namespace's root.
            self.attempt(Part::Capabilities, identity::rest_capabilities)?;
        }
        Ok(())
    }

    /// Confines the front, after the fork.
    ///
    /// # Errors
    ///
    /// [`JailError::Part`].
    pub fn confine_front(&mut self) -> Result<(), JailError> {
        if !self.is_on() {
            return Ok(());
        }
        violation::note_kind(ThreadKind::Front);
        self.attempt(Part::Descriptors, limits::close_inherited)?;
        self.attempt(Part::NotDumpable, limits::hide_memory)?;
        self.attempt(Part::NoNewPrivileges, || Ok(set_no_new_privs(true)?))?;
        // The VMM of root has another user, and is ended by a signal.
        self.attempt(Part::Capabilities, || {
            identity::drop_capabilities(CapabilitySet::KILL)
        })?;
        self.attempt(Part::Seccomp, || {
            violation::watch(None)?;
            filter::install(ThreadKind::Front)
        })?;
        Ok(())
    }

    /// Leaves all but the files of the host behind: all that the VM needs is open, but for what the
    /// [`close`](Self::close) of the jail leaves. This process must have one thread only.
    ///
    /// # Errors
    ///
    /// [`JailError`].
    pub fn isolate(&mut self, needs: &Needs) -> Result<(), JailError> {
        if !self.is_on() {
            return Ok(());
        }
        limits::use_one_heap();
        self.attempt(Part::Descriptors, limits::close_inherited)?;
        if self.is_root && !needs.file_capabilities {
            self.take_own_user()?;
            // Users of a namespace are no users of the files that are shared with root's rights.
            self.has_users = self.attempt(Part::UserNamespace, namespaces::new_users)?;
        } else if self.has_users {
            self.attempt(Part::Capabilities, identity::use_capabilities)?;
        }
        if self.is_root || self.has_users {
            for (part, result) in namespaces::isolate(needs.network) {
                self.attempt(part, || result)?;
            }
        }
        Ok(())
    }

    fn take_own_user(&mut self) -> Result<(), JailError> {
        match self.user {
            Some(user) => user.assume().map_err(JailError::User),
            None => {
                let users = User::of_process(self.process);
                self.is_alone =
                    self.attempt(Part::OwnUser, || parts::assume_any(&users).map(drop))?;
                Ok(())
            }
        }
    }

    /// Gives up everything else that the process has and its threads do not need. It must still have
    /// one thread only. The shared directories become mounts of their own.
    ///
    /// # Errors
    ///
    /// [`JailError`].
    pub fn close(&mut self, needs: &mut Needs) -> Result<(), JailError> {
        if !self.is_on() {
            return Ok(());
        }
        if self.has_mounts() {
            self.attempt(Part::EmptyRoot, || {
                for share in &mut needs.shares {
                    share.directory = root::detach(&share.directory)?;
                }
                root::enter_empty()
            })?;
        }
        let is_alone = self.is_alone;
        self.attempt(Part::Limits, || limits::set(is_alone))?;
        self.attempt(Part::NoNewPrivileges, || Ok(set_no_new_privs(true)?))?;
        self.attempt(Part::Landlock, || {
            let exceptions = files::Exceptions {
                network: needs.network,
                signals: needs.program,
            };
            files::restrict(&needs.shares, exceptions)
        })?;
        self.has_file_capabilities = needs.file_capabilities && self.is_root;
        let kept = match self.has_file_capabilities {
            true => FILE_CAPABILITIES,
            false => CapabilitySet::empty(),
        };
        self.attempt(Part::Capabilities, || identity::drop_capabilities(kept))?;
        self.attempt(Part::NotDumpable, limits::hide_memory)?;
        Ok(())
    }

    /// Whether this process has a mount namespace of its own, once it is [isolated](Self::isolate).
    fn has_mounts(&self) -> bool {
        (self.is_root || self.has_users) && !self.failed.contains(&Part::MountNamespace)
    }

    /// Confines the calling process, a child of the VMM that is about to execute `program`: one that has
    /// a filter of its own. It sees what is installed on the host, and cannot write anything.
    ///
    /// # Errors
    ///
    /// [`JailError`].
    pub fn enter_program(&mut self, program: &Path) -> Result<(), JailError> {
        if !self.is_on() {
            return Ok(());
        }
        if self.has_mounts() {
            // The VMM leaves its own.
            self.attempt(Part::EmptyRoot, || {
                namespaces::enter(Part::MountNamespace)?;
                root::enter_system(program)
            })?;
        }
        let is_alone = self.is_alone;
        self.attempt(Part::Limits, || limits::set(is_alone))?;
        self.attempt(Part::NoNewPrivileges, || Ok(set_no_new_privs(true)?))?;
        self.attempt(Part::Landlock, files::restrict_program)?;
        self.attempt(Part::Capabilities, || {
            identity::drop_capabilities(CapabilitySet::empty())
        })?;
        Ok(())
    }

    /// What confines the threads of the VMM, which end the VM by `ending` if they violate that.
    ///
    /// # Errors
    ///
    /// The host denies a descriptor.
    pub fn threads(&self, ending: &Ending) -> io::Result<Threads> {
        if !self.is_on() {
            return Ok(Threads::unconfined());
        }
        violation::watch(Some(ending.event()))?;
        let is_strict = self.policy == Policy::Strict;
        let has_file_capabilities = self.has_file_capabilities;
        Ok(Threads::new(move |kind| {
            confine(kind, is_strict, has_file_capabilities)
        }))
    }

    /// Does what a part is about; whether that worked.
    fn attempt(
        &mut self,
        part: Part,
        enforce: impl FnOnce() -> io::Result<()>,
    ) -> Result<bool, JailError> {
        match enforce() {
            Ok(()) => return Ok(true),
            Err(cause) if self.policy == Policy::Strict => {
                return Err(JailError::Part { part, cause });
            }
            Err(cause) => log::debug!("jail: {part} does not work: {cause}"),
        }
        self.failed.push(part);
        Ok(false)
    }
}

/// Confines the calling thread.
fn confine(kind: ThreadKind, is_strict: bool, has_file_capabilities: bool) -> io::Result<()> {
    violation::note_kind(kind);
    if has_file_capabilities && !calls::keeps_file_capabilities(kind) {
        // Those of this thread alone.
        identity::drop_capabilities(CapabilitySet::empty())?;
    }
    match filter::install(kind) {
        Err(error) if is_strict => Err(io::Error::new(
            error.kind(),
            JailError::Part {
                part: Part::Seccomp,
                cause: error,
            },
        )),
        Err(error) => {
            log::debug!("jail: no filter for {kind}: {error}");
            Ok(())
        }
        Ok(()) => Ok(()),
    }
}
