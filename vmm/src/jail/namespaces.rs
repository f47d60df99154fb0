//! Namespaces: what the VMM sees of the host's users, processes, mounts, networks and names.

use std::fs;
use std::io;

use rustix::thread::UnshareFlags;

use super::identity::User;
use super::parts::Part;

/// Has the children of this process, which must have one thread only, be in a process namespace of
/// their own, the first of them as its first process.
///
/// # Errors
///
/// Those of unshare(2).
pub(super) fn new_processes() -> io::Result<()> {
    unshare(UnshareFlags::NEWPID)
}

/// As [`new_processes`], with a user namespace around it, in which this process has all capabilities
/// and is the same user as before, which is the only one that exists there.
///
/// # Errors
///
/// Those of unshare(2), and of the files in /proc/self.
pub(super) fn new_users_and_processes() -> io::Result<()> {
    let user = User::current();
    unshare(UnshareFlags::NEWUSER | UnshareFlags::NEWPID)?;
    map(user)
}

/// A user namespace for this process alone, which must have one thread only; as above.
///
/// # Errors
///
/// Those of unshare(2), and of the files in /proc/self.
pub(super) fn new_users() -> io::Result<()> {
    let user = User::current();
    unshare(UnshareFlags::NEWUSER)?;
    map(user)
}

fn map(user: User) -> io::Result<()> {
    let User { uid, gid } = user;
    // Without it a group could be left, and with it what that one may not do.
    fs::write("/proc/self/setgroups", "deny")?;
    fs::write("/proc/self/uid_map", format!("{uid} {uid} 1"))?;
    fs::write("/proc/self/gid_map", format!("{gid} {gid} 1"))
}

/// The namespaces that a process enters itself.
const OWN: [(Part, UnshareFlags); 4] = [
    (Part::MountNamespace, UnshareFlags::NEWNS),
    (Part::IpcNamespace, UnshareFlags::NEWIPC),
    (Part::UtsNamespace, UnshareFlags::NEWUTS),
    (Part::NetworkNamespace, UnshareFlags::NEWNET),
];

/// Enters new namespaces of mounts, inter-process communication and host names, and of networks unless
/// that of the host is needed. Gives what came of each.
pub(super) fn isolate(needs_network: bool) -> Vec<(Part, io::Result<()>)> {
    let wanted = OWN
        .into_iter()
        .filter(|(part, _)| !(needs_network && *part == Part::NetworkNamespace));
    let wanted: Vec<_> = wanted.collect();
    let all = wanted
        .iter()
        .fold(UnshareFlags::empty(), |all, (_, flag)| all | *flag);
    let is_all = unshare(all).is_ok();
    let results: Vec<_> = wanted
        .into_iter()
        .map(|(part, flag)| match is_all {
            true => (part, Ok(())),
            false => (part, unshare(flag)),
        })
        .collect();
    if results
        .iter()
        .any(|(part, result)| *part == Part::UtsNamespace && result.is_ok())
    {
        // That of the host is copied. It fails only for who may not, and then it is no secret either.
        let _ = rustix::system::sethostname(b"ringlet");
    }
    results
}

/// Enters one of the namespaces that [`isolate`] does.
///
/// # Errors
///
/// Those of unshare(2).
pub(super) fn enter(part: Part) -> io::Result<()> {
    OWN.into_iter()
        .filter(|(known, _)| *known == part)
        .try_for_each(|(_, flag)| unshare(flag))
}

fn unshare(flags: UnshareFlags) -> io::Result<()> {
    // SAFETY: the table of descriptors stays shared: none of the flags is about it.
    Ok(unsafe { rustix::thread::unshare_unsafe(flags) }?)
}
