//! The open file that stands for a ring.

use super::memory::RingMemory;
use super::region::MappedRegions;
use super::ring::Ring;
use crate::error::{Errno, Result};
use crate::fs::{Answer, FileOps, OpenFile, Readiness};
use crate::mm::PageSource;
use alloc::sync::Arc;
use core::any::Any;
use core::task::{Context, Waker};
use linux_raw_sys::io_uring as raw;
use machine::lock::Mutex;
use machine::{Frame, PAGE_SIZE};

/// Keeps a ring going as long as it is open.
pub(super) struct RingFile {
    ring: Arc<Ring>,
}

impl RingFile {
    pub(super) fn new(ring: Arc<Ring>) -> Self {
        Self { ring }
    }
}

/// What the program maps of a ring.
struct RingPages {
    memory: Arc<RingMemory>,
    regions: Arc<MappedRegions>,
    /// The region that is mapped, if it is one, and where it begins. It is longer than the distance to
    /// the next one may be.
    mapped: Mutex<Option<(u64, Arc<[Frame]>)>>,
}

impl RingPages {
    /// The page of the rings or SQEs at an offset of the ring's file (`IORING_OFF_*`).
    fn ring_page(&self, offset: u32) -> Option<Frame> {
        let within = offset & !raw::IORING_OFF_MMAP_MASK;
        match offset & raw::IORING_OFF_MMAP_MASK {
            raw::IORING_OFF_SQ_RING | raw::IORING_OFF_CQ_RING => self.memory.ring_page(within),
            raw::IORING_OFF_SQES => self.memory.sqe_page(within),
            _ => None,
        }
    }
}

/// The offset of page `index`, if a ring's file is so long.
fn offset_of(index: u64) -> Option<u32> {
    u32::try_from(index.checked_mul(PAGE_SIZE as u64)?).ok()
}

impl PageSource for RingPages {
    fn page(&self, index: u64, _for_write: bool) -> Answer<'_, Frame> {
        let mapped = self.mapped.lock();
        let frame = match &*mapped {
            Some((first, frames)) => index
                .checked_sub(*first)
                .and_then(|index| frames.get(index as usize).cloned()),
            None => offset_of(index).and_then(|offset| self.ring_page(offset)),
        };
        Answer::ready(frame.ok_or(Errno::EFAULT))
    }

    /// Linux finds no address for a part that there is not.
    fn check_start(&self, first: u64) -> Result<()> {
        let offset = offset_of(first).ok_or(Errno::ENOMEM)?;
        if let Some(frames) = self.regions.frames(offset) {
            *self.mapped.lock() = Some((first, frames));
            return Ok(());
        }
        self.ring_page(offset).map(drop).ok_or(Errno::ENOMEM)
    }
}

impl Drop for RingFile {
    fn drop(&mut self) {
        self.ring.shut_down();
    }
}

impl FileOps for RingFile {
    fn can_be_sent(&self) -> bool {
        false
    }

    /// The rings and the SQEs. They live as long as they are mapped, whatever becomes of the ring.
    fn page_source(self: Arc<Self>) -> Result<Arc<dyn PageSource>> {
        Ok(Arc::new(RingPages {
            memory: self.ring.memory(),
            regions: self.ring.regions().clone(),
            mapped: Mutex::new(None),
        }))
    }

    /// A request for it waits until it is readable, though nothing can be read then.
    fn supports_nowait(&self) -> bool {
        false
    }

    /// Readable when there are CQEs, writable when there is room for SQEs. It does not lock the
    /// ring: one of its own requests may ask.
    fn poll_ready(&self, _interest: Readiness, context: &mut Context<'_>) -> Readiness {
        let queue = self.ring.ready();
        queue.add_waiter(context.waker());
        let memory = self.ring.memory();
        let mut ready = Readiness::empty();
        ready.set(
            Readiness::READABLE,
            memory.has_cqes() || queue.has_deferred(),
        );
        ready.set(Readiness::WRITABLE, memory.has_sq_room());
        ready
    }

    fn forget_waker(&self, waker: &Waker) {
        self.ring.ready().forget_waiter(waker);
    }

    fn is_pollable(&self) -> bool {
        true
    }
}

/// The ring that an open file stands for, if it is one.
pub(super) fn ring_of(file: &OpenFile) -> Option<&Arc<Ring>> {
    let ops: &dyn Any = &*file.ops;
    ops.downcast_ref::<RingFile>().map(|file| &file.ring)
}

/// Whether an open file stands for a ring.
pub(super) fn is_ring(file: &OpenFile) -> bool {
    ring_of(file).is_some()
}
