//! The host's calls by which files are reached: one name at a time, never through a link.

use std::ffi::CStr;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};

use rustix::fs::{AtFlags, FlockOperation, Mode, OFlags, ResolveFlags, Statx, StatxFlags};
use rustix::io::Errno;
use rustix::path::DecInt;

use super::protocol::Result;

/// What makes a descriptor that only names a file.
pub(super) const PATH: OFlags = OFlags::PATH.union(OFlags::NOFOLLOW).union(OFlags::CLOEXEC);

/// What is wanted of a file's attributes.
const STATUS: StatxFlags = StatxFlags::BASIC_STATS
    .union(StatxFlags::BTIME)
    .union(StatxFlags::MNT_ID);

/// Whether a look-up may wait for a disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Wait {
    /// It may.
    Yes,
    /// It fails with EAGAIN instead.
    No,
}

/// Opens `name`, of one entry or `.`, in `directory`.
///
/// # Errors
///
/// Those of openat2(2).
pub(super) fn open_beneath(
    directory: impl AsFd,
    name: &CStr,
    flags: OFlags,
    wait: Wait,
) -> Result<OwnedFd> {
    let cached = match wait {
        Wait::Yes => ResolveFlags::empty(),
        Wait::No => ResolveFlags::CACHED,
    };
    open_resolved(directory.as_fd(), name, flags, Mode::empty(), cached)
}

/// Makes and opens a file: `name` in `directory`, or one without a name if flags say O_TMPFILE.
///
/// # Errors
///
/// Those of openat2(2).
pub(super) fn create_beneath(
    directory: impl AsFd,
    name: &CStr,
    flags: OFlags,
    mode: Mode,
) -> Result<OwnedFd> {
    open_resolved(directory.as_fd(), name, flags, mode, ResolveFlags::empty())
}

fn open_resolved(
    directory: BorrowedFd<'_>,
    name: &CStr,
    flags: OFlags,
    mode: Mode,
    resolve: ResolveFlags,
) -> Result<OwnedFd> {
    let resolve =
        resolve | ResolveFlags::BENEATH | ResolveFlags::NO_MAGICLINKS | ResolveFlags::NO_SYMLINKS;
    loop {
        match rustix::fs::openat2(directory, name, flags | OFlags::CLOEXEC, mode, resolve) {
            Err(Errno::INTR) => (),
            result => return result,
        }
    }
}

/// The attributes of what `fd` names.
///
/// # Errors
///
/// Those of statx(2).
pub(super) fn status(fd: impl AsFd) -> Result<Statx> {
    let flags = AtFlags::EMPTY_PATH | AtFlags::SYMLINK_NOFOLLOW;
    rustix::fs::statx(fd, c"", flags, STATUS)
}

/// The attributes of entry `name` in `directory`, whatever it is.
///
/// # Errors
///
/// Those of statx(2).
pub(super) fn status_at(directory: impl AsFd, name: &CStr) -> Result<Statx> {
    let flags = AtFlags::SYMLINK_NOFOLLOW | AtFlags::NO_AUTOMOUNT;
    rustix::fs::statx(directory, name, flags, STATUS)
}

/// Opens again what `fd` names; `descriptors` is `/proc/self/fd`. The caller knows that it is a
/// directory or regular file.
///
/// # Errors
///
/// Those of open(2).
pub(super) fn reopen(descriptors: impl AsFd, fd: impl AsFd, flags: OFlags) -> Result<OwnedFd> {
    let name = DecInt::from_fd(fd);
    let flags = flags | OFlags::CLOEXEC | OFlags::NOCTTY;
    rustix::fs::openat(descriptors, name.as_c_str(), flags, Mode::empty())
}

/// The lock operation of flock(2) that does not wait.
pub(super) fn flock(fd: impl AsFd, kind: u32) -> Result<()> {
    let operation = match kind as i32 {
        libc::F_RDLCK => FlockOperation::NonBlockingLockShared,
        libc::F_WRLCK => FlockOperation::NonBlockingLockExclusive,
        libc::F_UNLCK => FlockOperation::NonBlockingUnlock,
        _ => return Err(Errno::INVAL),
    };
    rustix::fs::flock(fd, operation)
}

/// A range of bytes that is, or is to be, locked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Range {
    /// The first byte.
    pub(super) start: i64,
    /// Bytes; 0 for all that follow.
    pub(super) len: i64,
}

fn lock(kind: u32, range: Range) -> Result<libc::flock> {
    let kind = match kind as i32 {
        kind @ (libc::F_RDLCK | libc::F_WRLCK | libc::F_UNLCK) => kind,
        _ => return Err(Errno::INVAL),
    };
    // SAFETY: all-zero bytes are a valid flock: it is integers only.
    let mut lock: libc::flock = unsafe { std::mem::zeroed() };
    lock.l_type = kind as i16;
    lock.l_whence = libc::SEEK_SET as i16;
    lock.l_start = range.start;
    lock.l_len = range.len;
    Ok(lock)
}

/// Sets or removes an open-file-description lock (fcntl(2), F_OFD_SETLK), without waiting.
///
/// # Errors
///
/// Those of fcntl(2); EAGAIN if another lock is in the way.
pub(super) fn set_lock(fd: impl AsFd, kind: u32, range: Range) -> Result<()> {
    let lock = lock(kind, range)?;
    // SAFETY: the structure is a valid flock and lives over the call; the descriptor is open.
    let result = unsafe { libc::fcntl(fd.as_fd().as_raw_fd(), libc::F_OFD_SETLK, &raw const lock) };
    match result {
        -1 => Err(last_errno()),
        _ => Ok(()),
    }
}

/// The first lock that is in the way of one on `range` (fcntl(2), F_OFD_GETLK): kind, range and
/// process, if there is one.
///
/// # Errors
///
/// Those of fcntl(2).
pub(super) fn find_lock(
    fd: impl AsFd,
    kind: u32,
    range: Range,
) -> Result<Option<(u32, Range, i32)>> {
    let mut lock = lock(kind, range)?;
    let raw = fd.as_fd().as_raw_fd();
    // SAFETY: the structure is a valid flock and lives over the call; the descriptor is open.
    let result = unsafe { libc::fcntl(raw, libc::F_OFD_GETLK, &raw mut lock) };
    if result == -1 {
        return Err(last_errno());
    }
    if i32::from(lock.l_type) == libc::F_UNLCK {
        return Ok(None);
    }
    let range = Range {
        start: lock.l_start,
        len: lock.l_len,
    };
    Ok(Some((lock.l_type as u32, range, lock.l_pid)))
}

fn last_errno() -> Errno {
    Errno::from_io_error(&std::io::Error::last_os_error()).unwrap_or(Errno::IO)
}

/// Gives the calling thread a umask and working directory of its own, and has it work in
/// `descriptors`, which is `/proc/self/fd`: so names there can be given to calls that take
/// paths only.
///
/// # Errors
///
/// Those of unshare(2) and fchdir(2).
pub(super) fn enter(descriptors: impl AsFd) -> Result<()> {
    // SAFETY: what is no longer shared are umask and directories, of which no memory depends.
    if unsafe { libc::unshare(libc::CLONE_FS) } != 0 {
        return Err(last_errno());
    }
    rustix::process::umask(Mode::empty());
    rustix::process::fchdir(descriptors)
}
