//! Open directories: OPENDIR, READDIR, READDIRPLUS, RELEASEDIR, FSYNCDIR.

use std::mem::MaybeUninit;
use std::sync::{Mutex, PoisonError};

use fuse_abi::linux::{
    FOPEN_CACHE_DIR, FOPEN_DIRECT_IO, FOPEN_KEEP_CACHE, FUSE_FSYNC_FDATASYNC, fuse_entry_out,
    fuse_fsync_in, fuse_open_out, fuse_read_in, fuse_release_in,
};
use rustix::fs::{FileType, OFlags, RawDir, RawDirEntry, SeekFrom};
use rustix::io::Errno;
use zerocopy::FromZeros;

use super::Server;
use crate::fs::handles::OpenDirectory;
use crate::fs::host::{self, Wait};
use crate::fs::protocol::{MAX_REPLY, Reply, Request, Result, take};
use crate::fs::share::Cache;

/// Bytes of an entry without its name (`FUSE_NAME_OFFSET`).
const NAME_OFFSET: usize = 24;
/// Bytes of an entry of getdents64(2) without its name.
const HOST_NAME_OFFSET: usize = 19;
/// Bytes of the longest entry of getdents64(2).
const HOST_ENTRY_MAX: usize = 280;

impl Server {
    pub(super) fn open_directory(&self, request: &Request<'_>, reply: &mut Reply) -> Result<()> {
        let id = request.header.nodeid;
        let found = self.node(request)?;
        if found.kind != FileType::Directory {
            return Err(Errno::NOTDIR);
        }
        let charge = self.budget.take()?;
        let flags = OFlags::RDONLY | OFlags::DIRECTORY;
        let fd = match found.is_hidden {
            true => None,
            false => Some(host::open_beneath(&found.fd, c".", flags, Wait::Yes)?),
        };
        self.nodes.pin(id)?;
        let fh = self.handles.insert_directory(OpenDirectory {
            fd,
            node: id,
            position: Mutex::new(Some(0)),
            _charge: charge,
        });
        reply.push(&fuse_open_out {
            fh,
            open_flags: match self.share.cache {
                Cache::Auto => 0,
                Cache::None => FOPEN_DIRECT_IO,
                Cache::Always => FOPEN_KEEP_CACHE | FOPEN_CACHE_DIR,
            },
            backing_id: 0,
        });
        Ok(())
    }

    pub(super) fn release_directory(&self, request: &Request<'_>) -> Result<()> {
        let (asked, _) = take::<fuse_release_in>(request.arguments)?;
        let directory = self.handles.remove_directory(asked.fh)?;
        self.nodes.unpin(directory.node);
        Ok(())
    }

    pub(super) fn sync_directory(&self, request: &Request<'_>) -> Result<()> {
        let (asked, _) = take::<fuse_fsync_in>(request.arguments)?;
        let directory = self.handles.directory(asked.fh)?;
        match (&directory.fd, asked.fsync_flags & FUSE_FSYNC_FDATASYNC) {
            (None, _) => Ok(()),
            (Some(fd), 0) => rustix::fs::fsync(fd),
            (Some(fd), _) => rustix::fs::fdatasync(fd),
        }
    }

    /// READDIR, or READDIRPLUS with `plus`.
    pub(super) fn read_directory(
        &self,
        request: &Request<'_>,
        reply: &mut Reply,
        plus: bool,
    ) -> Result<()> {
        let (asked, _) = take::<fuse_read_in>(request.arguments)?;
        let directory = self.handles.directory(asked.fh)?;
        if directory.node != request.header.nodeid {
            return Err(Errno::BADF);
        }
        let room = (asked.size as usize).min(request.room).min(MAX_REPLY);
        let Some(fd) = &directory.fd else {
            return self.read_hidden(request, reply, plus, asked.offset, room);
        };
        if asked.offset > i64::MAX as u64 {
            return Err(Errno::INVAL);
        }
        let mut position = directory
            .position
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        if position.take() != Some(asked.offset) {
            rustix::fs::seek(fd, SeekFrom::Start(asked.offset))?;
        }
        // As many entries as will fit, about: with 16 bytes of name they are so much longer here.
        let (ours, hosts) = match plus {
            true => (
                size_of::<fuse_entry_out>() + NAME_OFFSET + 16,
                HOST_NAME_OFFSET + 17,
            ),
            false => (NAME_OFFSET, NAME_OFFSET),
        };
        let len = (room * hosts / ours).max(HOST_ENTRY_MAX);
        let mut buffer = vec![MaybeUninit::uninit(); len];
        let mut entries = RawDir::new(fd, &mut buffer);
        let mut last = asked.offset;
        let mut is_all_used = true;
        // One call of the host's, so that the position is known.
        while let Some(entry) = entries.next() {
            let entry = match entry {
                Ok(entry) => entry,
                // What was read so far counts.
                Err(_) if reply.len() > 0 => break,
                Err(errno) => return Err(errno),
            };
            if !self.push_entry(request, reply, plus, &entry, room)? {
                is_all_used = false;
                break;
            }
            last = entry.next_entry_cookie();
            if entries.is_buffer_empty() {
                break;
            }
        }
        if is_all_used {
            *position = Some(last);
        }
        match reply.len() == 0 && !is_all_used {
            // Not even one entry fits.
            true => Err(Errno::INVAL),
            false => Ok(()),
        }
    }

    /// Adds an entry, and looks it up for READDIRPLUS; `false` if it does not fit.
    fn push_entry(
        &self,
        request: &Request<'_>,
        reply: &mut Reply,
        plus: bool,
        entry: &RawDirEntry<'_>,
        room: usize,
    ) -> Result<bool> {
        let name = entry.file_name();
        let bytes = name.to_bytes();
        let prefix = if plus { size_of::<fuse_entry_out>() } else { 0 };
        if reply.len() + prefix + (NAME_OFFSET + bytes.len()).next_multiple_of(8) > room {
            return Ok(false);
        }
        if plus {
            let looked_up = match bytes {
                b"." | b".." => fuse_entry_out::new_zeroed(),
                _ => {
                    let directory = self.nodes.find(request.header.nodeid, Wait::Yes)?;
                    self.look_up_listed(request.header.nodeid, &directory.fd, name)
                        // It is gone, or there are too many: the client looks it up itself.
                        .unwrap_or_else(|_| fuse_entry_out::new_zeroed())
                }
            };
            reply.push(&looked_up);
        }
        let kind = kind_number(entry.file_type());
        push_dirent(reply, entry.ino(), entry.next_entry_cookie(), kind, bytes);
        Ok(true)
    }

    /// The entries of a directory that is empty to the guest.
    fn read_hidden(
        &self,
        request: &Request<'_>,
        reply: &mut Reply,
        plus: bool,
        offset: u64,
        room: usize,
    ) -> Result<()> {
        let found = self.node(request)?;
        let inode = host::status(&found.fd)?.stx_ino;
        for (at, name) in [(1, &b"."[..]), (2, b"..")] {
            let prefix = if plus { size_of::<fuse_entry_out>() } else { 0 };
            if at <= offset || reply.len() + prefix + NAME_OFFSET + 8 > room {
                continue;
            }
            if plus {
                reply.push(&fuse_entry_out::new_zeroed());
            }
            push_dirent(reply, inode, at, u32::from(libc::DT_DIR), name);
        }
        Ok(())
    }
}

fn push_dirent(reply: &mut Reply, inode: u64, next: u64, kind: u32, name: &[u8]) {
    reply.push(&inode);
    reply.push(&next);
    reply.push(&(name.len() as u32));
    reply.push(&kind);
    reply.push_bytes(name);
    reply.pad();
}

/// `d_type` of readdir(3).
fn kind_number(kind: FileType) -> u32 {
    u32::from(match kind {
        FileType::RegularFile => libc::DT_REG,
        FileType::Directory => libc::DT_DIR,
        FileType::Symlink => libc::DT_LNK,
        FileType::Fifo => libc::DT_FIFO,
        FileType::Socket => libc::DT_SOCK,
        FileType::CharacterDevice => libc::DT_CHR,
        FileType::BlockDevice => libc::DT_BLK,
        FileType::Unknown => libc::DT_UNKNOWN,
    })
}
