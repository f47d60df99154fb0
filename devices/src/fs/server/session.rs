//! INIT and DESTROY: what client and server agree on.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use fuse_abi::linux::{
    FUSE_ASYNC_DIO, FUSE_ASYNC_READ, FUSE_ATOMIC_O_TRUNC, FUSE_AUTO_INVAL_DATA, FUSE_BIG_WRITES,
    FUSE_CACHE_SYMLINKS, FUSE_DIRECT_IO_ALLOW_MMAP, FUSE_DO_READDIRPLUS, FUSE_DONT_MASK,
    FUSE_FLOCK_LOCKS, FUSE_INIT_EXT, FUSE_KERNEL_MINOR_VERSION, FUSE_KERNEL_VERSION,
    FUSE_MAX_PAGES, FUSE_NO_EXPORT_SUPPORT, FUSE_PARALLEL_DIROPS, FUSE_POSIX_ACL, FUSE_POSIX_LOCKS,
    FUSE_READDIRPLUS_AUTO, FUSE_SETXATTR_EXT, FUSE_SUBMOUNTS, FUSE_WRITEBACK_CACHE, fuse_init_out,
};
use ringlet_abi::fs::MAX_TRANSFER;
use rustix::io::Errno;

use super::Server;
use crate::fs::protocol::{Reply, Request, Result, take};
use crate::fs::share::Cache;

/// The oldest minor version whose structures are those of now.
const MIN_MINOR: u32 = 31;
/// Requests that the client should have in the background.
const BACKGROUND: u16 = 64;
const PAGE: u32 = 4096;

const GRANTED: u64 = (FUSE_ASYNC_READ
    | FUSE_POSIX_LOCKS
    | FUSE_ATOMIC_O_TRUNC
    | FUSE_BIG_WRITES
    | FUSE_DONT_MASK
    | FUSE_FLOCK_LOCKS
    | FUSE_AUTO_INVAL_DATA
    | FUSE_DO_READDIRPLUS
    | FUSE_READDIRPLUS_AUTO
    | FUSE_ASYNC_DIO
    | FUSE_PARALLEL_DIROPS
    | FUSE_POSIX_ACL
    | FUSE_MAX_PAGES
    | FUSE_CACHE_SYMLINKS
    | FUSE_SUBMOUNTS
    | FUSE_SETXATTR_EXT
    | FUSE_INIT_EXT) as u64
    | FUSE_NO_EXPORT_SUPPORT
    | FUSE_DIRECT_IO_ALLOW_MMAP;

/// Whether there was an INIT, and what it granted.
#[derive(Default)]
pub(super) struct Session {
    is_open: AtomicBool,
    granted: AtomicU64,
}

impl Session {
    /// Whether requests other than INIT may come.
    pub(super) fn is_open(&self) -> bool {
        self.is_open.load(Ordering::Acquire)
    }

    /// Whether the flag was granted.
    pub(super) fn has(&self, flag: u32) -> bool {
        self.granted.load(Ordering::Acquire) & u64::from(flag) != 0
    }
}

impl Server {
    pub(super) fn init(&self, request: &Request<'_>, reply: &mut Reply) -> Result<()> {
        let (major, rest) = take::<u32>(request.arguments)?;
        let (minor, rest) = take::<u32>(rest)?;
        if major < FUSE_KERNEL_VERSION || major == FUSE_KERNEL_VERSION && minor < MIN_MINOR {
            return Err(Errno::PROTO);
        }
        let mut answer = fuse_init_out {
            major: FUSE_KERNEL_VERSION,
            minor: FUSE_KERNEL_MINOR_VERSION,
            max_readahead: 0,
            flags: 0,
            max_background: 0,
            congestion_threshold: 0,
            max_write: 0,
            time_gran: 0,
            max_pages: 0,
            map_alignment: 0,
            flags2: 0,
            max_stack_depth: 0,
            unused: [0; 6],
        };
        if major > FUSE_KERNEL_VERSION {
            // The client is to ask again, with our version.
            reply.push(&answer);
            return Ok(());
        }
        let (max_readahead, rest) = take::<u32>(rest)?;
        let (flags, rest) = take::<u32>(rest)?;
        let mut asked = u64::from(flags);
        if flags & FUSE_INIT_EXT != 0 {
            let (flags2, _) = take::<u32>(rest)?;
            asked |= u64::from(flags2) << 32;
        }
        let mut granted = GRANTED;
        if self.share.is_writable && self.share.cache != Cache::None {
            granted |= u64::from(FUSE_WRITEBACK_CACHE);
        }
        granted &= asked;
        self.close_session();
        self.session.granted.store(granted, Ordering::Release);
        self.session.is_open.store(true, Ordering::Release);
        answer.minor = minor.min(FUSE_KERNEL_MINOR_VERSION);
        answer.max_readahead = max_readahead.min(MAX_TRANSFER);
        answer.flags = granted as u32;
        answer.flags2 = (granted >> 32) as u32;
        answer.max_background = BACKGROUND;
        answer.congestion_threshold = BACKGROUND / 4 * 3;
        answer.max_write = MAX_TRANSFER;
        answer.max_pages = (MAX_TRANSFER / PAGE) as u16;
        answer.time_gran = 1;
        reply.push(&answer);
        Ok(())
    }

    /// Forgets all that the client was given.
    pub(super) fn close_session(&self) {
        self.session.is_open.store(false, Ordering::Release);
        self.locks.clear();
        self.handles.clear();
        self.nodes.clear();
    }
}
