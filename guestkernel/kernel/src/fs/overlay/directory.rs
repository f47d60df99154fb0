//! An open directory: what is below and has not changed, and what has.

use super::inode::{Changed, OverlayInode};
use crate::error::{Errno, Result};
use crate::fs::{Answer, BoxFuture, DirEntry, DirectorySink, FileOps, FileType, Inode, Stat};
use alloc::boxed::Box;
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::task::{Context, Poll};
use machine::lock::Mutex;

type Listed = Arc<Vec<(Vec<u8>, u64, u8)>>;

/// An open directory of an [`Overlay`](super::Overlay). What it lists is what there was when listing
/// began, as on Linux.
pub(super) struct OverlayDirectory {
    inode: Arc<OverlayInode>,
    listed: Mutex<Option<Listed>>,
}

impl OverlayDirectory {
    pub(super) fn new(inode: Arc<OverlayInode>) -> Self {
        Self {
            inode,
            listed: Mutex::new(None),
        }
    }

    async fn list(&self) -> Result<Listed> {
        let directory = FileType::Directory.directory_type();
        let own = self.inode.stat().await?.inode;
        let above = match self.inode.parent() {
            Some(parent) => parent.stat().await?.inode,
            None => own,
        };
        let mut listed = Vec::from([
            (b".".to_vec(), own, directory),
            (b"..".to_vec(), above, directory),
        ]);
        let changed: Vec<_> = {
            let names = self.inode.names.lock();
            let named = names.iter().map(|(name, changed)| (name.to_vec(), changed));
            named
                .filter_map(|(name, changed)| match changed {
                    Changed::Is(inode) => Some((name, inode.clone())),
                    Changed::Gone => None,
                })
                .collect()
        };
        listed.extend(self.inode.names_below().await?);
        for (name, inode) in changed {
            let number = inode.stat().await?.inode;
            listed.push((name, number, inode.file_type().directory_type()));
        }
        Ok(Arc::new(listed))
    }

    async fn read(&self, start: u64, sink: &mut DirectorySink<'_>) -> Result<u64> {
        let known = self.listed.lock().clone();
        let listed = match known {
            Some(listed) if start != 0 => listed,
            _ => {
                let listed = self.list().await?;
                *self.listed.lock() = Some(listed.clone());
                listed
            }
        };
        let mut position = start;
        let from = usize::try_from(start).unwrap_or(usize::MAX);
        for (name, inode, kind) in listed.iter().skip(from) {
            let entry = DirEntry {
                name,
                inode: *inode,
                kind: *kind,
                next: position + 1,
            };
            if !sink(&entry) {
                break;
            }
            position += 1;
        }
        Ok(position)
    }
}

impl FileOps for OverlayDirectory {
    fn poll_io(&self, _io: &mut crate::io::Io, _context: &mut Context<'_>) -> Poll<Result<usize>> {
        Poll::Ready(Err(Errno::EISDIR))
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

    fn sync(&self, _data_only: bool) -> BoxFuture<'_, Result<()>> {
        Box::pin(core::future::ready(Ok(())))
    }

    fn allocate(&self, _mode: u32, _offset: u64, _length: u64) -> Answer<'_, ()> {
        Errno::EISDIR.into()
    }

    fn read_dir<'a>(&'a self, position: u64, sink: &'a mut DirectorySink<'_>) -> Answer<'a, u64> {
        Answer::later(self.read(position, sink))
    }
}
