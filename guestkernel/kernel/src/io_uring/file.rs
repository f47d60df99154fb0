//! The open file that stands for a ring.

use super::ring::Ring;
use crate::error::Result;
use crate::fs::{FileOps, OpenFile, Readiness};
use crate::mm::PageSource;
use alloc::sync::Arc;
use core::any::Any;
use core::task::{Context, Waker};

/// Keeps a ring going as long as it is open.
pub(super) struct RingFile {
    ring: Arc<Ring>,
}

impl RingFile {
    pub(super) fn new(ring: Arc<Ring>) -> Self {
        Self { ring }
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
        Ok(self.ring.memory().clone())
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
