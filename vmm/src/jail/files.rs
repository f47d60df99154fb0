//! Which of the host's files a thread may still open: none, but for those of shares, where it serves
//! these (landlock(7)). What is open already stays open. Networks are refused, too.

use std::io;
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};

use landlock::{
    ABI, Access, AccessFs, AccessNet, BitFlags, CompatLevel, Compatible, PathBeneath, PathFd,
    Ruleset, RulesetAttr, RulesetCreated, RulesetCreatedAttr, RulesetError, RulesetStatus, Scope,
    make_bitflags,
};

/// What is newest of what the rules here know; an older kernel enforces what it knows.
const NEWEST: ABI = ABI::V6;

/// A directory or file that a VM shares with the host.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Share {
    /// Where it is.
    pub path: PathBuf,
    /// Whether the guest may change it.
    pub is_writable: bool,
}

/// The rules for threads that serve files, and for those that do not.
pub(super) struct Rules {
    files: RulesetCreated,
    nothing: RulesetCreated,
}

impl Rules {
    /// Rules by which those who serve files reach `shares`, and the others nothing; but files in the
    /// directories of `removable` can be removed, which are there.
    ///
    /// # Errors
    ///
    /// The host's kernel refuses, or there is no such share.
    pub(super) fn new(shares: &[Share], removable: &[PathBuf]) -> io::Result<Self> {
        let shares = shares.iter().map(|share| {
            let rights = match share.path.is_dir() {
                true => access(share.is_writable),
                false => access(share.is_writable) & AccessFs::from_file(NEWEST),
            };
            (share.path.as_path(), rights)
        });
        let removable = removable
            .iter()
            .map(|path| (path.as_path(), AccessFs::RemoveFile.into()));
        Ok(Self {
            files: rules(shares)?,
            nothing: rules(removable)?,
        })
    }

    /// Confines the calling thread for ever, and those that it starts.
    ///
    /// # Errors
    ///
    /// The host's kernel has no landlock, or refuses.
    pub(super) fn enforce(&self, serves_files: bool) -> io::Result<()> {
        let rules = match serves_files {
            true => &self.files,
            false => &self.nothing,
        };
        enforce(rules)
    }
}

fn rules<'a>(
    allowed: impl Iterator<Item = (&'a Path, BitFlags<AccessFs>)>,
) -> io::Result<RulesetCreated> {
    let created = Ruleset::default()
        .set_compatibility(CompatLevel::BestEffort)
        .handle_access(AccessFs::from_all(NEWEST))
        .and_then(|rules| rules.handle_access(AccessNet::from_all(NEWEST)))
        // Signals are the business of seccomp: some kernels refuse those between threads, too.
        .and_then(|rules| rules.scope(Scope::AbstractUnixSocket))
        .and_then(Ruleset::create);
    let mut rules = created.map_err(io::Error::other)?;
    for (path, rights) in allowed {
        rules = add(rules, path, rights)?;
    }
    Ok(rules)
}

fn add(
    rules: RulesetCreated,
    path: &Path,
    rights: BitFlags<AccessFs>,
) -> io::Result<RulesetCreated> {
    let place = PathFd::new(path).map_err(io::Error::other)?;
    let rule = PathBeneath::new(place.as_fd(), rights);
    rules
        .add_rule(rule)
        .map_err(|error: RulesetError| io::Error::other(error))
}

/// Confines the calling thread by `rules`.
///
/// # Errors
///
/// As for [`Rules::enforce`].
pub(super) fn enforce(rules: &RulesetCreated) -> io::Result<()> {
    let rules = rules.try_clone()?;
    let enforced = rules.restrict_self().map_err(io::Error::other)?;
    match enforced.ruleset {
        RulesetStatus::NotEnforced => Err(io::Error::new(
            io::ErrorKind::Unsupported,
            "the host's kernel has no landlock (CONFIG_SECURITY_LANDLOCK, lsm=)",
        )),
        _ => Ok(()),
    }
}

/// Where a program of the distribution, and what it loads, may be.
const SYSTEM: [&str; 10] = [
    "/usr",
    "/bin",
    "/sbin",
    "/lib",
    "/lib32",
    "/lib64",
    "/libx32",
    "/etc/alternatives",
    "/etc/ld.so.cache",
    "/sys/devices/system",
];
/// Devices that a program may expect, and itself.
const OTHERS: [&str; 4] = ["/dev/null", "/dev/zero", "/dev/urandom", "/proc"];

/// Rules by which `program` has what it loads, and `files`, to read; nothing to write, and no networks.
///
/// # Errors
///
/// As for [`Rules::new`].
pub(super) fn rules_of_program(program: &Path, files: &[PathBuf]) -> io::Result<RulesetCreated> {
    // One that is installed elsewhere has its files beside the directory that it is in.
    let place = program.parent().and_then(Path::parent);
    let place = place.filter(|place| *place != Path::new("/"));
    let directory = make_bitflags!(AccessFs::{ReadFile | ReadDir | Execute});
    let paths = SYSTEM.iter().chain(&OTHERS).map(Path::new);
    let paths = paths
        .chain(place)
        .chain([program])
        .chain(files.iter().map(PathBuf::as_path));
    let allowed = paths.filter(|path| path.exists()).map(|path| {
        let rights = match path.is_dir() {
            true => directory,
            false => directory & AccessFs::from_file(NEWEST),
        };
        (path, rights)
    });
    rules(allowed)
}

fn access(is_writable: bool) -> BitFlags<AccessFs> {
    const NOT: BitFlags<AccessFs> = make_bitflags!(AccessFs::{Execute | IoctlDev});
    match is_writable {
        true => AccessFs::from_all(NEWEST) & !NOT,
        false => make_bitflags!(AccessFs::{ReadFile | ReadDir}),
    }
}
