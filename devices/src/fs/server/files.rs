//! Open files: OPEN, READ, WRITE, FSYNC, FLUSH, RELEASE and what else takes a handle.

use std::os::fd::{AsRawFd, OwnedFd};
use std::sync::Arc;

use fuse_abi::linux::{
    FOPEN_DIRECT_IO, FOPEN_KEEP_CACHE, FUSE_ATOMIC_O_TRUNC, FUSE_FSYNC_FDATASYNC,
    FUSE_RELEASE_FLOCK_UNLOCK, FUSE_RELEASE_FLUSH, FUSE_WRITE_CACHE, FUSE_WRITEBACK_CACHE,
    fuse_copy_file_range_in, fuse_fallocate_in, fuse_flush_in, fuse_fsync_in, fuse_in_header,
    fuse_lseek_in, fuse_lseek_out, fuse_opcode, fuse_open_in, fuse_open_out, fuse_read_in,
    fuse_release_in, fuse_write_in, fuse_write_out,
};
use ringlet_abi::fs::MAX_TRANSFER;
use rustix::fs::{FallocateFlags, FileType, OFlags, SeekFrom};
use rustix::io::Errno;

use super::{Server, Wait};
use crate::engine::Operation;
use crate::fs::handles::{Charge, OpenFile};
use crate::fs::host;
use crate::fs::nodes::Found;
use crate::fs::protocol::{Reply, Request, Result, take};
use crate::fs::share::Cache;

/// Bytes that one COPY_FILE_RANGE copies at most, so that it ends soon.
const MAX_COPY: u64 = 128 << 20;

/// What READ, WRITE and FSYNC do on the host.
pub(in crate::fs) struct Transfer {
    /// The open file.
    pub(in crate::fs) file: Arc<OpenFile>,
    /// What to do with it.
    pub(in crate::fs) kind: TransferKind,
    /// Where, in bytes.
    pub(in crate::fs) offset: u64,
    /// How much data, in bytes.
    pub(in crate::fs) len: u32,
}

/// See [`Transfer`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::fs) enum TransferKind {
    /// From the file to the guest.
    Read,
    /// From the guest to the file.
    Write,
    /// From the guest to the file's end.
    Append,
    /// Make the file durable, its attributes too.
    Sync,
    /// Make the file's data durable.
    SyncData,
}

impl Transfer {
    /// What is left to do after `done` bytes.
    pub(in crate::fs) fn operation(&self, done: u32) -> Operation {
        let fd = self.file.fd.as_raw_fd();
        let offset = self.offset + u64::from(done);
        match self.kind {
            TransferKind::Read => Operation::Read { fd, offset },
            TransferKind::Write => Operation::Write { fd, offset },
            TransferKind::Append => Operation::Append { fd },
            TransferKind::Sync => Operation::Sync { fd, metadata: true },
            TransferKind::SyncData => Operation::Sync {
                fd,
                metadata: false,
            },
        }
    }

    /// Adds what the reply says of `done` bytes that were moved, other than those of READ.
    pub(in crate::fs) fn push_result(&self, done: u32, reply: &mut Reply) {
        if matches!(self.kind, TransferKind::Write | TransferKind::Append) {
            reply.push(&fuse_write_out {
                size: done,
                padding: 0,
            });
        }
    }
}

/// Bytes of the arguments of READ, WRITE or FSYNC; `None` for other requests.
pub(in crate::fs) fn transfer_arguments(opcode: u32) -> Option<usize> {
    match fuse_opcode::try_from(opcode).ok()? {
        fuse_opcode::FUSE_READ => Some(size_of::<fuse_read_in>()),
        fuse_opcode::FUSE_WRITE => Some(size_of::<fuse_write_in>()),
        fuse_opcode::FUSE_FSYNC => Some(size_of::<fuse_fsync_in>()),
        _ => None,
    }
}

impl Server {
    /// Takes READ, WRITE or FSYNC apart, which has `data` bytes behind its arguments and room for
    /// `room` behind the reply's header.
    ///
    /// # Errors
    ///
    /// What the request fails with.
    pub(in crate::fs) fn transfer(
        &self,
        header: &fuse_in_header,
        arguments: &[u8],
        data: u64,
        room: usize,
    ) -> Result<Transfer> {
        if !self.session.is_open() {
            return Err(Errno::IO);
        }
        match fuse_opcode::try_from(header.opcode) {
            Ok(fuse_opcode::FUSE_READ) => {
                let (asked, _) = take::<fuse_read_in>(arguments)?;
                let len = asked.size.min(MAX_TRANSFER).min(room as u32);
                check_range(asked.offset, len)?;
                Ok(Transfer {
                    file: self.handles.file(asked.fh)?,
                    kind: TransferKind::Read,
                    offset: asked.offset,
                    len,
                })
            }
            Ok(fuse_opcode::FUSE_WRITE) => {
                let (asked, _) = take::<fuse_write_in>(arguments)?;
                if u64::from(asked.size) != data || asked.size > MAX_TRANSFER {
                    return Err(Errno::INVAL);
                }
                if room < size_of::<fuse_write_out>() {
                    return Err(Errno::RANGE);
                }
                check_range(asked.offset, asked.size)?;
                if !self.share.is_writable {
                    return Err(Errno::ROFS);
                }
                let is_append = asked.flags & OFlags::APPEND.bits() != 0
                    && asked.write_flags & FUSE_WRITE_CACHE == 0;
                Ok(Transfer {
                    file: self.handles.file(asked.fh)?,
                    kind: match is_append {
                        true => TransferKind::Append,
                        false => TransferKind::Write,
                    },
                    offset: asked.offset,
                    len: asked.size,
                })
            }
            Ok(fuse_opcode::FUSE_FSYNC) => {
                let (asked, _) = take::<fuse_fsync_in>(arguments)?;
                Ok(Transfer {
                    file: self.handles.file(asked.fh)?,
                    kind: match asked.fsync_flags & FUSE_FSYNC_FDATASYNC {
                        0 => TransferKind::Sync,
                        _ => TransferKind::SyncData,
                    },
                    offset: 0,
                    len: 0,
                })
            }
            _ => Err(Errno::NOSYS),
        }
    }

    /// The flags by which the host opens a file that the guest opens with `flags`.
    pub(super) fn open_flags(&self, flags: u32) -> OFlags {
        let flags = OFlags::from_bits_retain(flags);
        let mut wanted = flags & (OFlags::RWMODE | OFlags::NOATIME | OFlags::SYNC | OFlags::DSYNC);
        if self.session.has(FUSE_ATOMIC_O_TRUNC) {
            wanted |= flags & OFlags::TRUNC;
        }
        wanted
    }

    /// Opens the file that `found` names as the guest wants it with `flags`.
    pub(super) fn open_node(&self, found: &Found, flags: u32) -> Result<OwnedFd> {
        if found.kind == FileType::Directory {
            return Err(Errno::ISDIR);
        }
        let flags = self.open_flags(flags);
        if flags.intersects(OFlags::WRONLY | OFlags::RDWR | OFlags::TRUNC) {
            self.may_change(found)?;
        }
        let is_write_only = flags & OFlags::RWMODE == OFlags::WRONLY;
        if is_write_only && self.session.has(FUSE_WRITEBACK_CACHE) {
            let both = flags.difference(OFlags::RWMODE) | OFlags::RDWR;
            match self.reopen(found, both) {
                Err(Errno::ACCESS) => (),
                result => return result,
            }
        }
        self.reopen(found, flags)
    }

    pub(super) fn open(&self, request: &Request<'_>, reply: &mut Reply) -> Result<()> {
        let (asked, _) = take::<fuse_open_in>(request.arguments)?;
        let found = self.node(request)?;
        let charge = self.budget.take()?;
        let fd = match self.open_node(&found, asked.flags) {
            // O_NOATIME is for the owner; what the guest's user may do, the client has checked.
            Err(Errno::PERM) => self.open_node(&found, asked.flags & !OFlags::NOATIME.bits())?,
            result => result?,
        };
        self.push_handle(request.header.nodeid, fd, charge, reply)
    }

    /// Gives the open file a handle and tells it.
    pub(super) fn push_handle(
        &self,
        node: u64,
        fd: OwnedFd,
        charge: Charge,
        reply: &mut Reply,
    ) -> Result<()> {
        self.nodes.pin(node)?;
        let file = OpenFile {
            fd,
            node,
            _charge: charge,
        };
        reply.push(&fuse_open_out {
            fh: self.handles.insert_file(file),
            open_flags: match self.share.cache {
                Cache::Auto => 0,
                Cache::None => FOPEN_DIRECT_IO,
                Cache::Always => FOPEN_KEEP_CACHE,
            },
            backing_id: 0,
        });
        Ok(())
    }

    pub(super) fn flush(&self, request: &Request<'_>) -> Result<()> {
        let (asked, _) = take::<fuse_flush_in>(request.arguments)?;
        let file = self.handles.file(asked.fh)?;
        self.locks.release(file.node, asked.lock_owner);
        // What a network file system has not written yet fails when a descriptor is closed.
        let copy = rustix::io::fcntl_dupfd_cloexec(&file.fd, 0)?;
        close(copy)
    }

    pub(super) fn release(&self, request: &Request<'_>) -> Result<()> {
        let (asked, _) = take::<fuse_release_in>(request.arguments)?;
        let file = self.handles.remove_file(asked.fh)?;
        if asked.release_flags & FUSE_RELEASE_FLOCK_UNLOCK != 0 {
            // A transfer may keep the file open for a moment.
            let _ = host::flock(&file.fd, libc::F_UNLCK as u32);
        }
        if asked.release_flags & FUSE_RELEASE_FLUSH != 0 {
            self.locks.release(file.node, asked.lock_owner);
        }
        if self.nodes.unpin(file.node) {
            self.locks.release_all(file.node);
        }
        self.locks.set_released();
        Ok(())
    }

    pub(super) fn allocate(&self, request: &Request<'_>) -> Result<()> {
        let (asked, _) = take::<fuse_fallocate_in>(request.arguments)?;
        let file = self.handles.file(asked.fh)?;
        if !self.share.is_writable {
            return Err(Errno::ROFS);
        }
        let mode = FallocateFlags::from_bits_retain(asked.mode);
        rustix::fs::fallocate(&file.fd, mode, asked.offset, asked.length)
    }

    pub(super) fn seek(&self, request: &Request<'_>, reply: &mut Reply) -> Result<()> {
        let (asked, _) = take::<fuse_lseek_in>(request.arguments)?;
        let file = self.handles.file(asked.fh)?;
        let to = match asked.whence as i32 {
            libc::SEEK_DATA => SeekFrom::Data(asked.offset),
            libc::SEEK_HOLE => SeekFrom::Hole(asked.offset),
            _ => return Err(Errno::INVAL),
        };
        if asked.offset > i64::MAX as u64 {
            return Err(Errno::NXIO);
        }
        let offset = rustix::fs::seek(&file.fd, to)?;
        reply.push(&fuse_lseek_out { offset });
        Ok(())
    }

    pub(super) fn copy(&self, request: &Request<'_>, reply: &mut Reply) -> Result<()> {
        let (asked, _) = take::<fuse_copy_file_range_in>(request.arguments)?;
        if asked.flags != 0 {
            return Err(Errno::INVAL);
        }
        let (from, to) = (
            self.handles.file(asked.fh_in)?,
            self.handles.file(asked.fh_out)?,
        );
        if !self.share.is_writable {
            return Err(Errno::ROFS);
        }
        let (mut offset_in, mut offset_out) = (asked.off_in, asked.off_out);
        let len = asked.len.min(MAX_COPY) as usize;
        let count = rustix::fs::copy_file_range(
            &from.fd,
            Some(&mut offset_in),
            &to.fd,
            Some(&mut offset_out),
            len,
        )?;
        reply.push(&fuse_write_out {
            size: count as u32,
            padding: 0,
        });
        Ok(())
    }

    pub(super) fn sync_fs(&self, request: &Request<'_>) -> Result<()> {
        let found = self.nodes.find(request.header.nodeid, Wait::Yes)?;
        rustix::fs::syncfs(self.reopen(&found, OFlags::RDONLY)?)
    }
}

/// # Errors
///
/// EINVAL or EFBIG as pread(2) and pwrite(2) have it for ranges that no file can have.
fn check_range(offset: u64, len: u32) -> Result<()> {
    match offset.checked_add(len.into()) {
        Some(end) if end <= i64::MAX as u64 => Ok(()),
        _ => Err(Errno::INVAL),
    }
}

/// close(2), with its error.
fn close(fd: OwnedFd) -> Result<()> {
    use std::os::fd::IntoRawFd;
    // SAFETY: the descriptor was the owner's, who gave it away.
    match unsafe { libc::close(fd.into_raw_fd()) } {
        0 => Ok(()),
        _ => Err(Errno::from_io_error(&std::io::Error::last_os_error()).unwrap_or(Errno::IO)),
    }
}
