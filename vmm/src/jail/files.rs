//! Which of the host's files the VMM may still open: none but those below the directories that it
//! shares (landlock(7)). What is open already stays open. Networks and signals are refused, too.

use std::io;
use std::os::fd::OwnedFd;

use landlock::{
    ABI, Access, AccessFs, AccessNet, BitFlags, PathBeneath, Ruleset, RulesetAttr,
    RulesetCreatedAttr, RulesetError, RulesetStatus, Scope, make_bitflags,
};

/// What is newest of what the rules here know; an older kernel enforces what it knows.
const NEWEST: ABI = ABI::V7;

/// A directory that a VM shares with the host.
#[derive(Debug)]
pub struct Share {
    /// It, open for anything (O_PATH suffices).
    pub directory: OwnedFd,
    /// Whether the guest may change it.
    pub is_writable: bool,
}

/// What a set of rules leaves alone.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Exceptions {
    /// Sockets.
    pub(super) network: bool,
    /// Signals to processes that are not confined by the same rules.
    pub(super) signals: bool,
}

/// Opens nothing more but what `shares` has.
///
/// # Errors
///
/// The host's kernel has no landlock, or refuses.
pub(super) fn restrict(shares: &[Share], exceptions: Exceptions) -> io::Result<()> {
    let rules: io::Result<Vec<_>> = shares
        .iter()
        .map(|share| {
            Ok(PathBeneath::new(
                share.directory.try_clone()?,
                access(share),
            ))
        })
        .collect();
    enforce(rules?, exceptions)
}

fn enforce(
    rules: impl IntoIterator<Item = PathBeneath<OwnedFd>>,
    exceptions: Exceptions,
) -> io::Result<()> {
    let mut scope = Scope::from_all(NEWEST);
    if exceptions.signals {
        scope.remove(Scope::Signal);
    }
    let ruleset = Ruleset::default()
        .handle_access(AccessFs::from_all(NEWEST))
        .and_then(|ruleset| match exceptions.network {
            true => Ok(ruleset),
            false => ruleset.handle_access(AccessNet::from_all(NEWEST)),
        })
        .and_then(|ruleset| ruleset.scope(scope))
        .and_then(Ruleset::create);
    let rules = rules.into_iter().map(Ok::<_, RulesetError>);
    let enforced = ruleset
        .and_then(|ruleset| ruleset.add_rules(rules))
        .and_then(|ruleset| ruleset.restrict_self())
        .map_err(io::Error::other)?;
    match enforced.ruleset {
        RulesetStatus::NotEnforced => Err(io::Error::new(
            io::ErrorKind::Unsupported,
            "the host's kernel has no landlock (CONFIG_SECURITY_LANDLOCK, lsm=)",
        )),
        _ => Ok(()),
    }
}

/// Leaves a program that is executed next what it can read and execute, and nothing to write; nor
/// networks.
///
/// # Errors
///
/// As for [`restrict`].
pub(super) fn restrict_program() -> io::Result<()> {
    let root = OwnedFd::from(std::fs::File::open("/")?);
    let access = make_bitflags!(AccessFs::{ReadFile | ReadDir | Execute});
    enforce([PathBeneath::new(root, access)], Exceptions::default())
}

fn access(share: &Share) -> BitFlags<AccessFs> {
    const DEVICES: BitFlags<AccessFs> =
        make_bitflags!(AccessFs::{Execute | MakeChar | MakeBlock | IoctlDev});
    match share.is_writable {
        true => AccessFs::from_all(NEWEST) & !DEVICES,
        false => make_bitflags!(AccessFs::{ReadFile | ReadDir}),
    }
}
