//! The open file that stands for a ring.

use super::ring::Ring;
use crate::error::Result;
use crate::fs::{FileOps, OpenFile, Readiness};
use crate::mm::PageSource;
use alloc::sync::Arc;
use core::any::Any;
use core::task::Context;

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
    /// The rings and the SQEs. They live as long as they are mapped, whatever becomes of the ring.
    fn page_source(self: Arc<Self>) -> Result<Arc<dyn PageSource>> {
        Ok(self.ring.memory().clone())
    }

    /// Readable when there are CQEs, writable when there is room for SQEs.
    fn poll_ready(&self, _interest: Readiness, context: &mut Context<'_>) -> Readiness {
        self.ring.ready().add_waiter(context.waker());
        let state = self.ring.lock();
        let mut ready = Readiness::empty();
        ready.set(Readiness::READABLE, state.has_events());
        ready.set(Readiness::WRITABLE, state.has_sq_room());
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
