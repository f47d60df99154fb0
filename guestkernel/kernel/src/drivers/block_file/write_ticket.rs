//! A write to a block device that is under way.

use super::bounce::EditGuard;
use super::cache::Cache;
use crate::drivers::block::{BlockOp, BlockTicket, SECTOR, Sectors};
use crate::error::Result;
use crate::executor;
use alloc::sync::Arc;
use core::task::{Context, Poll, ready};
use machine::DmaSegments;

/// Waits for a write. What depends on when the device is done follows even if nobody waits any
/// longer: the cache forgets what was written, and the next write of a part of a block may begin.
pub(super) struct WriteTicket(Option<Pending>);

struct Pending {
    ticket: BlockTicket,
    range: Sectors,
    cache: Arc<Cache>,
    /// Released when it is dropped.
    _guard: Option<Arc<EditGuard>>,
}

impl WriteTicket {
    /// Has the device of `cache` write `segments` to sector `start` and those after it.
    pub(super) fn submit(
        cache: &Arc<Cache>,
        start: u64,
        segments: DmaSegments,
        guard: Option<Arc<EditGuard>>,
    ) -> Self {
        let count = segments.total() as u64 / SECTOR;
        Self(Some(Pending {
            ticket: cache.device().submit(BlockOp::Write(start, segments)),
            range: Sectors { start, count },
            cache: cache.clone(),
            _guard: guard,
        }))
    }

    /// The bytes written, once.
    ///
    /// # Errors
    ///
    /// Those of the device.
    pub(super) fn poll(&mut self, context: &mut Context<'_>) -> Poll<Result<usize>> {
        let Some(pending) = &mut self.0 else {
            return Poll::Pending;
        };
        let result = ready!(pending.ticket.poll(context));
        pending.cache.forget(pending.range);
        self.0 = None;
        Poll::Ready(result)
    }
}

impl Drop for WriteTicket {
    fn drop(&mut self) {
        if let Some(pending) = self.0.take() {
            executor::spawn("abandoned write", async move {
                // Nobody is left to tell of an error.
                let _ = pending.ticket.await;
                pending.cache.forget(pending.range);
            });
        }
    }
}
