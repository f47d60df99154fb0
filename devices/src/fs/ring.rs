//! A queue as several threads give chains back to it: the one that takes requests off it, and those
//! that carry them out.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use vm_memory::{Address, Bytes};
use zerocopy::IntoBytes;

use super::protocol::{OUT_HEADER, Result, header};
use crate::chain::total;
use crate::{Buffers, QueueError, Segment, Virtqueue};

/// A queue with its lock.
#[derive(Clone)]
pub(super) struct SharedQueue(Arc<Mutex<Virtqueue>>);

impl SharedQueue {
    /// Shares `queue`.
    pub(super) fn new(queue: Virtqueue) -> Self {
        Self(Arc::new(Mutex::new(queue)))
    }

    /// The queue, for a moment.
    pub(super) fn lock(&self) -> MutexGuard<'_, Virtqueue> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Writes the reply `bytes` into `buffers` and gives the chain back.
    ///
    /// # Errors
    ///
    /// The rings are not in guest memory, or the reply does not fit.
    pub(super) fn reply(
        &self,
        buffers: &Buffers,
        bytes: &[u8],
    ) -> std::result::Result<(), QueueError> {
        let mut queue = self.lock();
        let mut rest = bytes;
        for segment in &buffers.writable {
            if rest.is_empty() {
                break;
            }
            let (now, later) = rest.split_at(rest.len().min(segment.len as usize));
            queue
                .memory()
                .write_slice(now, segment.addr)
                .map_err(|_| QueueError::Request("a buffer left guest memory"))?;
            rest = later;
        }
        if !rest.is_empty() {
            return Err(QueueError::Request("a reply does not fit"));
        }
        queue.push_used(buffers.head, bytes.len() as u32)
    }

    /// As [`reply`](Self::reply), with the header alone: `len` bytes behind it are there already.
    ///
    /// # Errors
    ///
    /// As for [`reply`](Self::reply).
    pub(super) fn reply_header(
        &self,
        buffers: &Buffers,
        unique: u64,
        len: u32,
        result: Result<()>,
    ) -> std::result::Result<(), QueueError> {
        let header = header(unique, len as usize, result);
        let mut queue = self.lock();
        let mut rest = header.as_bytes();
        for segment in &buffers.writable {
            let (now, later) = rest.split_at(rest.len().min(segment.len as usize));
            queue
                .memory()
                .write_slice(now, segment.addr)
                .map_err(|_| QueueError::Request("a buffer left guest memory"))?;
            rest = later;
            if rest.is_empty() {
                break;
            }
        }
        queue.push_used(buffers.head, OUT_HEADER as u32 + len)
    }
}

/// The `len` bytes of `segments` that start after `skip`, or what there is of them.
pub(super) fn window(segments: &[Segment], mut skip: u64, mut len: u64) -> Vec<Segment> {
    let mut window = Vec::new();
    for segment in segments {
        let dropped = skip.min(segment.len.into());
        skip -= dropped;
        let kept = (u64::from(segment.len) - dropped).min(len);
        len -= kept;
        if kept > 0 {
            window.push(Segment {
                // The segment is in guest memory, so this does not overflow.
                addr: segment.addr.unchecked_add(dropped),
                len: kept as u32,
            });
        }
    }
    window
}

/// Bytes that there is room for behind the reply's header; `None` if not even that fits.
pub(super) fn room(buffers: &Buffers) -> Option<usize> {
    let total = usize::try_from(total(&buffers.writable)).ok()?;
    total.checked_sub(OUT_HEADER)
}

#[cfg(test)]
mod tests {
    use super::*;
    use vm_memory::GuestAddress;

    #[test]
    fn a_window_is_what_it_says() {
        let segment = |addr, len| Segment {
            addr: GuestAddress(addr),
            len,
        };
        let all = [
            segment(0x1000, 16),
            segment(0x2000, 4),
            segment(0x3000, 100),
        ];
        assert_eq!(window(&all, 0, 16), [segment(0x1000, 16)]);
        assert_eq!(
            window(&all, 10, 15),
            [segment(0x100a, 6), segment(0x2000, 4), segment(0x3000, 5)]
        );
        assert_eq!(window(&all, 16, u64::MAX), all[1..]);
        assert!(window(&all, 120, 1).is_empty());
        assert!(window(&all, 0, 0).is_empty());
    }
}
