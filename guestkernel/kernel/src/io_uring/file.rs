//! The open file that stands for a ring.

use super::memory::RingMemory;
use super::region::MappedRegions;
use super::ring::Ring;
use crate::error::{Errno, Result};
use crate::fs::{Answer, FileOps, OpenFile, Readiness};
use crate::mm::PageSource;
use alloc::sync::Arc;
use core::any::Any;
use core::task::Context;
use linux_raw_sys::io_uring as raw;
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
}

impl RingPages {
    /// The page at an offset of the ring's file (`IORING_OFF_*`), in pages.
    fn find(&self, index: u64) -> Option<Frame> {
        let offset = u32::try_from(index.checked_mul(PAGE_SIZE as u64)?).ok()?;
        let part = offset & raw::IORING_OFF_MMAP_MASK;
        let within = offset & !raw::IORING_OFF_MMAP_MASK;
        match part {
            raw::IORING_OFF_SQ_RING | raw::IORING_OFF_CQ_RING => self.memory.ring_page(within),
            raw::IORING_OFF_SQES => self.memory.sqe_page(within),
            raw::IORING_OFF_PBUF_RING => {
                let mask = (1 << raw::IORING_OFF_PBUF_SHIFT) - 1;
                let index = (within & mask) as usize / PAGE_SIZE;
                self.regions.page(offset & !mask, index)
            }
            _ => self.regions.page(part, within as usize / PAGE_SIZE),
        }
    }
}

impl PageSource for RingPages {
    fn page(&self, index: u64, _for_write: bool) -> Answer<'_, Frame> {
        Answer::ready(self.find(index).ok_or(Errno::EFAULT))
    }

    /// Linux finds no address for a part that there is not.
    fn check_start(&self, first: u64) -> Result<()> {
        self.find(first).map(drop).ok_or(Errno::ENOMEM)
    }
}

impl Drop for RingFile {
    fn drop(&mut self) {
        self.ring.shut_down();
    }
}

impl FileOps for RingFile {
    /// The rings and the SQEs. They live as long as they are mapped, whatever becomes of the ring.
    fn page_source(self: Arc<Self>) -> Result<Arc<dyn PageSource>> {
        Ok(Arc::new(RingPages {
            memory: self.ring.memory(),
            regions: self.ring.regions().clone(),
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
