//! An open regular file: of the file below until there is an upper one.

use super::inode::OverlayInode;
use crate::error::{Errno, Result};
use crate::fs::{Answer, BoxFuture, FileOps, Inode, Stat};
use crate::io::{Direction, Io};
use crate::mm::PageSource;
use alloc::boxed::Box;
use alloc::sync::Arc;
use core::task::{Context, Poll};

/// An open file of an [`Overlay`](super::Overlay).
pub(super) struct OverlayFile {
    inode: Arc<OverlayInode>,
    /// The open file below, if it was opened before there was an upper one.
    lower: Option<Arc<dyn FileOps>>,
}

impl OverlayFile {
    pub(super) fn new(inode: Arc<OverlayInode>, lower: Option<Arc<dyn FileOps>>) -> Self {
        Self { inode, lower }
    }

    /// What does the work now. An upper file is opened without waiting.
    fn real(&self) -> Result<Arc<dyn FileOps>> {
        match (self.inode.upper(), &self.lower) {
            (Some(upper), _) => Ok(upper.clone() as Arc<dyn FileOps>),
            (None, Some(lower)) => Ok(lower.clone()),
            (None, None) => Err(Errno::EIO),
        }
    }
}

impl FileOps for OverlayFile {
    fn poll_io(&self, io: &mut Io, context: &mut Context<'_>) -> Poll<Result<usize>> {
        match (self.inode.upper(), &self.lower) {
            // What has begun goes on.
            (_, Some(lower)) if !io.in_flight.is_empty() => lower.poll_io(io, context),
            (Some(upper), _) => FileOps::poll_io(&**upper, io, context),
            (None, Some(lower)) => lower.poll_io(io, context),
            (None, None) => Poll::Ready(Err(Errno::EIO)),
        }
    }

    fn stat(&self) -> Answer<'_, Stat> {
        Inode::stat(&*self.inode)
    }

    fn is_seekable(&self) -> bool {
        true
    }

    fn supports_nowait(&self) -> bool {
        false
    }

    fn can_splice(&self, _direction: Direction) -> bool {
        true
    }

    fn size(&self) -> Answer<'_, u64> {
        Inode::stat(&*self.inode).and_then(|stat| Ok(stat.size))
    }

    fn has_size(&self) -> bool {
        true
    }

    fn seek_hole(&self, from: u64, hole: bool) -> Answer<'_, u64> {
        match (self.inode.upper(), &self.lower) {
            (Some(upper), _) => upper.seek_hole(from, hole),
            (None, Some(lower)) => lower.seek_hole(from, hole),
            (None, None) => Errno::EIO.into(),
        }
    }

    fn sync(&self, _data_only: bool) -> BoxFuture<'_, Result<()>> {
        // What has changed is in memory.
        Box::pin(core::future::ready(Ok(())))
    }

    fn page_source(self: Arc<Self>) -> Result<Arc<dyn PageSource>> {
        self.real()?.page_source()
    }

    fn truncate(&self, size: u64) -> Answer<'_, ()> {
        let change = crate::fs::AttributeChange {
            size: Some(size),
            ..crate::fs::AttributeChange::default()
        };
        Answer::later(self.inode.change(change))
    }

    fn allocate(&self, mode: u32, offset: u64, length: u64) -> Answer<'_, ()> {
        match self.inode.upper() {
            Some(upper) => FileOps::allocate(&**upper, mode, offset, length),
            None => Errno::EBADF.into(),
        }
    }
}
