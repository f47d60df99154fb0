//! An open directory.

use super::inode::FuseInode;
use super::protocol::{Arguments, Listed, OPEN_DIRECT, Opened, opcode};
use super::session::{Call, contents, release_arguments, room};
use crate::error::{Errno, Result};
use crate::fs::{Answer, BoxFuture, DirEntry, DirectorySink, FileOps, Stat};
use alloc::boxed::Box;
use alloc::sync::Arc;
use alloc::vec::Vec;
use machine::lock::Mutex;

/// Bytes that one READDIRPLUS asks for.
const LISTED_AT_ONCE: usize = 32 << 10;

/// Entries that were listed and that nobody has taken yet.
struct Rest {
    /// The position of the first.
    position: u64,
    bytes: Vec<u8>,
    /// Where in `bytes` it is.
    at: usize,
}

/// An open directory of a [`FuseFs`](super::session::FuseFs).
pub(super) struct FuseDirectory {
    inode: Arc<FuseInode>,
    fh: u64,
    /// Nothing is kept that was listed.
    is_direct: bool,
    rest: Mutex<Option<Rest>>,
}

impl FuseDirectory {
    pub(super) fn new(inode: Arc<FuseInode>, opened: Opened) -> Self {
        Self {
            inode,
            fh: opened.fh,
            is_direct: opened.flags & OPEN_DIRECT != 0,
            rest: Mutex::new(None),
        }
    }

    /// The entries from `position` on, as the server lists them.
    async fn list(&self, position: u64) -> Result<Vec<u8>> {
        let arguments = Arguments::new()
            .u64(self.fh)
            .u64(position)
            .u32(LISTED_AT_ONCE as u32)
            .u32(0)
            .u64(0)
            .u32(0)
            .u32(0);
        let mut call = Call::new(opcode::READDIRPLUS, arguments, 0);
        call.from_device = Some(room(LISTED_AT_ONCE)?);
        let version = self.inode.fs.version();
        let bytes = contents(&self.inode.fs.call(self.inode.node, call).await?);
        // Each entry is a look-up, which counts whether or not anybody takes the entry.
        let mut left = &bytes[..];
        while let Ok(Some(listed)) = Listed::first(left) {
            if let Some(entry) = &listed.entry {
                if matches!(listed.name, b"." | b"..") {
                    self.inode.fs.forget(entry.node, 1);
                } else {
                    // One that cannot be kept is looked up when it is needed.
                    let _ = self.inode.take_entry(listed.name, entry, version);
                }
            }
            left = &left[listed.length..];
        }
        Ok(bytes)
    }

    async fn read(&self, start: u64, sink: &mut DirectorySink<'_>) -> Result<u64> {
        let mut position = start;
        loop {
            let rest = self.rest.lock().take();
            let rest = match rest {
                Some(rest) if rest.position == position && position != 0 => rest,
                _ => Rest {
                    position,
                    bytes: match self.list(position).await {
                        // What was taken counts.
                        Err(_) if position != start => return Ok(position),
                        bytes => bytes?,
                    },
                    at: 0,
                },
            };
            let Rest { bytes, mut at, .. } = rest;
            if at == bytes.len() {
                return Ok(position);
            }
            let before = position;
            loop {
                let listed = match Listed::first(&bytes[at..]) {
                    Ok(Some(listed)) => listed,
                    Ok(None) => break,
                    Err(_) if position != start => return Ok(position),
                    Err(error) => return Err(error),
                };
                let entry = DirEntry {
                    name: listed.name,
                    inode: listed.inode,
                    kind: listed.kind,
                    next: listed.next,
                };
                if !sink(&entry) {
                    if !self.is_direct {
                        *self.rest.lock() = Some(Rest {
                            position,
                            bytes,
                            at,
                        });
                    }
                    return Ok(position);
                }
                position = listed.next;
                at += listed.length;
            }
            if position == before {
                // Not even one: the server makes no sense, or it would go on for ever.
                return Err(Errno::EIO);
            }
        }
    }
}

impl Drop for FuseDirectory {
    fn drop(&mut self) {
        let call = Call::new(opcode::RELEASEDIR, release_arguments(self.fh, 0), 0);
        self.inode.fs.tell(self.inode.node, call);
    }
}

impl FileOps for FuseDirectory {
    fn poll_io(
        &self,
        _io: &mut crate::io::Io,
        _context: &mut core::task::Context<'_>,
    ) -> core::task::Poll<Result<usize>> {
        core::task::Poll::Ready(Err(Errno::EISDIR))
    }

    fn stat(&self) -> Answer<'_, Stat> {
        self.inode.attributes()
    }

    fn is_seekable(&self) -> bool {
        true
    }

    fn supports_nowait(&self) -> bool {
        false
    }

    fn sync(&self, data_only: bool) -> BoxFuture<'_, Result<()>> {
        Box::pin(async move {
            let arguments = Arguments::new()
                .u64(self.fh)
                .u32(u32::from(data_only))
                .u32(0);
            let call = Call::new(opcode::FSYNCDIR, arguments, 0);
            match self.inode.fs.call(self.inode.node, call).await {
                Ok(_) | Err(Errno::ENOSYS) => Ok(()),
                Err(error) => Err(error),
            }
        })
    }

    fn allocate(&self, _mode: u32, _offset: u64, _length: u64) -> Answer<'_, ()> {
        Errno::EISDIR.into()
    }

    fn read_dir<'a>(&'a self, position: u64, sink: &'a mut DirectorySink<'_>) -> Answer<'a, u64> {
        Answer::later(self.read(position, sink))
    }
}
