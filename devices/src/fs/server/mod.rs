//! The FUSE server: what each request does on the host.

mod attributes;
mod directories;
mod files;
mod locks;
mod names;
mod session;
mod xattr;

use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::time::Duration;

use fuse_abi::linux::{FUSE_ATTR_SUBMOUNT, fuse_attr, fuse_entry_out, fuse_opcode};
use rustix::fs::{FileType, Statx};
use rustix::io::Errno;

use super::handles::{Budget, Handles};
use super::host::{self, Wait};
use super::nodes::{Found, Nodes};
use super::protocol::{Reply, Request, Result};
use super::share::Share;
use locks::Locks;
use session::Session;

pub(super) use files::{Transfer, TransferKind, transfer_arguments};

/// How many descriptors a server may hold.
#[derive(Clone, Copy, Debug)]
pub struct DescriptorLimits {
    /// For files that are known.
    pub(super) nodes: usize,
    /// For files and directories that are open, and for locks. An open file keeps another one.
    pub(super) handles: usize,
}

/// Descriptors that the process keeps for all else.
const RESERVED: u64 = 256;
/// A share can do with so few.
const MIN_DESCRIPTORS: u64 = 64;

impl DescriptorLimits {
    /// What each of `shares` servers may hold, by this process's limit (RLIMIT_NOFILE).
    pub fn of_process(shares: usize) -> Self {
        let limit = rustix::process::getrlimit(rustix::process::Resource::Nofile);
        // A million is more than makes anything faster.
        let limit = limit.current.unwrap_or(1 << 20).min(1 << 20);
        let each = limit.saturating_sub(RESERVED) / (shares.max(1) as u64);
        let each = each.max(MIN_DESCRIPTORS) as usize;
        Self {
            nodes: each / 2,
            handles: each / 4,
        }
    }
}

/// How a request ended.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Outcome {
    /// What was pushed to the reply is the reply.
    Done,
    /// It failed.
    Failed(Errno),
    /// A lock must be waited for: try again later.
    Later,
}

impl From<Result<()>> for Outcome {
    fn from(result: Result<()>) -> Self {
        match result {
            Ok(()) => Self::Done,
            Err(errno) => Self::Failed(errno),
        }
    }
}

/// A server for one share, from the device's activation to its reset.
pub(super) struct Server {
    share: Arc<Share>,
    nodes: Nodes,
    handles: Handles,
    budget: Arc<Budget>,
    locks: Locks,
    session: Session,
}

impl Server {
    /// A server that has not seen INIT.
    ///
    /// # Errors
    ///
    /// The host denies a descriptor.
    pub(super) fn new(share: Arc<Share>, limits: DescriptorLimits) -> std::io::Result<Self> {
        let root = share.root.try_clone()?;
        Ok(Self {
            nodes: Nodes::new(root, limits.nodes)?,
            handles: Handles::default(),
            budget: Budget::new(limits.handles),
            locks: Locks::default(),
            session: Session::default(),
            share,
        })
    }

    /// Carries out a request that takes no time, if this is one; `None` if it may.
    pub(super) fn try_now(&self, request: &Request<'_>, reply: &mut Reply) -> Option<Outcome> {
        if !self.share.is_local || !self.session.is_open() {
            return None;
        }
        let result = match fuse_opcode::try_from(request.header.opcode).ok()? {
            fuse_opcode::FUSE_LOOKUP => self.look_up(request, reply, Wait::No),
            fuse_opcode::FUSE_GETATTR => self.get_attributes(request, reply, Wait::No),
            _ => return None,
        };
        match result {
            Err(Errno::AGAIN) => {
                reply.clear();
                None
            }
            result => Some(fit(result, request, reply).into()),
        }
    }

    /// Carries out a request that has a reply, other than READ, WRITE and FSYNC.
    pub(super) fn handle(&self, request: &Request<'_>, reply: &mut Reply) -> Outcome {
        let opcode = fuse_opcode::try_from(request.header.opcode);
        let result = match opcode {
            Ok(fuse_opcode::FUSE_INIT) => self.init(request, reply),
            Ok(fuse_opcode::FUSE_SETLK | fuse_opcode::FUSE_SETLKW) if self.session.is_open() => {
                let is_waiting = opcode == Ok(fuse_opcode::FUSE_SETLKW);
                return match self.set_lock(request) {
                    Err(Errno::AGAIN | Errno::ACCESS) if is_waiting => Outcome::Later,
                    // Both say that another lock is in the way; Linux's own locks say EAGAIN.
                    Err(Errno::ACCESS) => Outcome::Failed(Errno::AGAIN),
                    result => result.into(),
                };
            }
            Ok(opcode) if self.session.is_open() => self.dispatch(opcode, request, reply),
            Ok(_) => Err(Errno::IO),
            Err(_) => Err(Errno::NOSYS),
        };
        fit(result, request, reply).into()
    }

    fn dispatch(
        &self,
        opcode: fuse_opcode,
        request: &Request<'_>,
        reply: &mut Reply,
    ) -> Result<()> {
        match opcode {
            fuse_opcode::FUSE_LOOKUP => self.look_up(request, reply, Wait::Yes),
            fuse_opcode::FUSE_GETATTR => self.get_attributes(request, reply, Wait::Yes),
            fuse_opcode::FUSE_STATX => self.statx(request, reply),
            fuse_opcode::FUSE_SETATTR => self.set_attributes(request, reply),
            fuse_opcode::FUSE_READLINK => self.read_link(request, reply),
            fuse_opcode::FUSE_STATFS => self.stat_fs(request, reply),
            fuse_opcode::FUSE_SYMLINK => self.symlink(request, reply),
            fuse_opcode::FUSE_MKNOD => self.make_node(request, reply),
            fuse_opcode::FUSE_MKDIR => self.make_directory(request, reply),
            fuse_opcode::FUSE_UNLINK => self.unlink(request, rustix::fs::AtFlags::empty()),
            fuse_opcode::FUSE_RMDIR => self.unlink(request, rustix::fs::AtFlags::REMOVEDIR),
            fuse_opcode::FUSE_RENAME => self.rename(request, false),
            fuse_opcode::FUSE_RENAME2 => self.rename(request, true),
            fuse_opcode::FUSE_LINK => self.link(request, reply),
            fuse_opcode::FUSE_CREATE => self.create(request, reply),
            fuse_opcode::FUSE_TMPFILE => self.make_nameless(request, reply),
            fuse_opcode::FUSE_OPEN => self.open(request, reply),
            fuse_opcode::FUSE_FLUSH => self.flush(request),
            fuse_opcode::FUSE_RELEASE => self.release(request),
            fuse_opcode::FUSE_FALLOCATE => self.allocate(request),
            fuse_opcode::FUSE_LSEEK => self.seek(request, reply),
            fuse_opcode::FUSE_COPY_FILE_RANGE => self.copy(request, reply),
            fuse_opcode::FUSE_SYNCFS => self.sync_fs(request),
            fuse_opcode::FUSE_OPENDIR => self.open_directory(request, reply),
            fuse_opcode::FUSE_READDIR => self.read_directory(request, reply, false),
            fuse_opcode::FUSE_READDIRPLUS => self.read_directory(request, reply, true),
            fuse_opcode::FUSE_RELEASEDIR => self.release_directory(request),
            fuse_opcode::FUSE_FSYNCDIR => self.sync_directory(request),
            fuse_opcode::FUSE_GETXATTR => self.get_xattr(request, reply),
            fuse_opcode::FUSE_LISTXATTR => self.list_xattr(request, reply),
            fuse_opcode::FUSE_SETXATTR => self.set_xattr(request),
            fuse_opcode::FUSE_REMOVEXATTR => self.remove_xattr(request),
            fuse_opcode::FUSE_GETLK => self.get_lock(request, reply),
            fuse_opcode::FUSE_DESTROY => {
                self.close_session();
                Ok(())
            }
            fuse_opcode::FUSE_IOCTL => Err(Errno::NOTTY),
            _ => Err(Errno::NOSYS),
        }
    }

    /// The node that the request is about.
    fn node(&self, request: &Request<'_>) -> Result<Found> {
        self.nodes.find(request.header.nodeid, Wait::Yes)
    }

    /// Node `id` as a directory in which something changes.
    ///
    /// # Errors
    ///
    /// ENOTDIR; EROFS where nothing may change.
    fn changing_directory(&self, id: u64) -> Result<Found> {
        let found = self.nodes.find(id, Wait::Yes)?;
        if found.kind != FileType::Directory {
            return Err(Errno::NOTDIR);
        }
        self.may_change(&found)?;
        Ok(found)
    }

    /// # Errors
    ///
    /// EROFS where nothing may change.
    fn may_change(&self, found: &Found) -> Result<()> {
        match self.share.is_writable && !found.is_hidden {
            true => Ok(()),
            false => Err(Errno::ROFS),
        }
    }

    /// Opens a directory or regular file again, to do more with it than to name it.
    fn reopen(&self, found: &Found, flags: rustix::fs::OFlags) -> Result<OwnedFd> {
        match found.kind {
            FileType::RegularFile | FileType::Directory => {
                host::reopen(&self.share.descriptors, &found.fd, flags)
            }
            FileType::Symlink => Err(Errno::LOOP),
            _ => Err(Errno::NXIO),
        }
    }

    fn validity(&self) -> Duration {
        self.share.cache.validity()
    }

    /// Attributes as the protocol has them.
    fn attributes(&self, status: &Statx, is_mount: bool) -> fuse_attr {
        let identity = self.share.identity;
        fuse_attr {
            ino: status.stx_ino,
            size: status.stx_size,
            blocks: status.stx_blocks,
            atime: status.stx_atime.tv_sec as u64,
            mtime: status.stx_mtime.tv_sec as u64,
            ctime: status.stx_ctime.tv_sec as u64,
            atimensec: status.stx_atime.tv_nsec,
            mtimensec: status.stx_mtime.tv_nsec,
            ctimensec: status.stx_ctime.tv_nsec,
            mode: status.stx_mode.into(),
            nlink: status.stx_nlink,
            uid: identity.shown_uid(status.stx_uid),
            gid: identity.shown_gid(status.stx_gid),
            rdev: encode_device(status.stx_rdev_major, status.stx_rdev_minor),
            blksize: status.stx_blksize,
            flags: if is_mount { FUSE_ATTR_SUBMOUNT } else { 0 },
        }
    }

    /// The reply for node `id`, which has `status`.
    fn entry(&self, id: u64, status: &Statx) -> fuse_entry_out {
        let validity = self.validity();
        fuse_entry_out {
            nodeid: id,
            generation: 0,
            entry_valid: validity.as_secs(),
            attr_valid: validity.as_secs(),
            entry_valid_nsec: validity.subsec_nanos(),
            attr_valid_nsec: validity.subsec_nanos(),
            attr: self.attributes(status, self.nodes.is_mount(id)),
        }
    }

    /// Takes `count` look-ups of node `id` back.
    pub(super) fn forget(&self, id: u64, count: u64) {
        self.nodes.forget(id, count);
    }

    /// Whether a lock was given up since the last call, so that others may be had.
    pub(super) fn has_released_lock(&self) -> bool {
        self.locks.has_released()
    }

    /// Nodes, and descriptors that they hold.
    #[cfg(any(test, fuzzing))]
    pub(super) fn counts(&self) -> (usize, usize) {
        self.nodes.counts()
    }
}

/// A device number as the protocol has it (the kernel's `new_encode_dev`).
fn encode_device(major: u32, minor: u32) -> u32 {
    minor & 0xff | major << 8 | (minor & !0xff) << 12
}

/// Checks that the reply fits into the request's room.
fn fit(result: Result<()>, request: &Request<'_>, reply: &Reply) -> Result<()> {
    match reply.len() <= request.room {
        false if result.is_ok() => Err(Errno::RANGE),
        _ => result,
    }
}
