//! Descriptor chains (VIRTIO 1.2, 2.7.5): writing down what a request consists of.

use super::AddError;
use super::request::{Payload, Reply};
use crate::frame::Frame;
use core::sync::atomic::Ordering;

/// Bytes of a descriptor (VIRTIO 1.2, 2.7.5).
pub(super) const DESCRIPTOR: usize = 16;
const NEXT: u16 = 1;
const DEVICE_WRITES: u16 = 2;
pub(super) const INDIRECT: u16 = 4;

/// What a chain consists of, in this order.
pub(super) struct Parts<'a> {
    /// Address and length of what the device reads first.
    pub(super) header: (u64, u32),
    pub(super) payload: &'a Payload,
    /// The most descriptors for the payload.
    pub(super) payload_limit: usize,
    /// Address and place of what the queue has room for.
    pub(super) reply: (u64, Reply),
}

impl Parts<'_> {
    /// Descriptors for header and reply.
    fn small(&self) -> usize {
        usize::from(self.header.1 > 0) + usize::from(self.reply.1.bytes() > 0)
    }

    pub(super) fn most_descriptors(&self) -> usize {
        self.small() + self.payload.most_descriptors()
    }

    /// Descriptors that may be used.
    pub(super) fn limit(&self) -> usize {
        self.small() + self.payload_limit
    }

    /// Calls `push` with the address, length and flags of each descriptor.
    pub(super) fn write(&self, mut push: impl FnMut(u64, u32, u16)) {
        if self.header.1 > 0 {
            push(self.header.0, self.header.1, 0);
        }
        if let Some(segments) = self.payload.to_device() {
            segments.for_each_run(|address, length| push(address.0, length, 0));
        }
        let (before, after) = self.reply.1.around();
        if before > 0 {
            push(self.reply.0, before, DEVICE_WRITES);
        }
        if let Some(segments) = self.payload.from_device() {
            segments.for_each_run(|address, length| push(address.0, length, DEVICE_WRITES));
        }
        if after > 0 {
            push(self.reply.0, after, DEVICE_WRITES);
        }
    }
}

/// A chain that was written.
pub(super) struct Written {
    /// Descriptors of the ring in it.
    pub(super) length: u16,
    /// The free list's first descriptor after those.
    pub(super) next: u16,
}

/// Writes a chain of descriptors, each when the next is known.
pub(super) struct ChainWriter<'a> {
    table: &'a Frame,
    at: usize,
    limit: usize,
    /// Descriptors asked for, those beyond the limit included.
    pub(super) pushed: usize,
    /// The last descriptor.
    pub(super) index: u16,
    /// Its second word, without `NEXT`.
    last: u64,
}

impl<'a> ChainWriter<'a> {
    pub(super) fn new(table: &'a Frame, at: usize, first: u16, limit: usize) -> Self {
        Self {
            table,
            at,
            limit,
            pushed: 0,
            index: first,
            last: 0,
        }
    }

    fn word(&self, index: u16, word: usize) -> &core::sync::atomic::AtomicU64 {
        let at = self.at + usize::from(index) * DESCRIPTOR + 8 * word;
        self.table.atomic_u64(at)
    }

    #[inline]
    pub(super) fn push(
        &mut self,
        address: u64,
        length: u32,
        flags: u16,
        next: impl Fn(u16) -> u16,
    ) {
        if self.pushed < self.limit {
            if self.pushed > 0 {
                let index = next(self.index);
                let linked = self.last | u64::from(NEXT) << 32 | u64::from(index) << 48;
                self.word(self.index, 1).store(linked, Ordering::Relaxed);
                self.index = index;
            }
            self.word(self.index, 0).store(address, Ordering::Relaxed);
            self.last = u64::from(length) | u64::from(flags) << 32;
        }
        self.pushed += 1;
    }

    /// The number of descriptors, now that there are no more.
    pub(super) fn finish(self) -> Result<u16, AddError> {
        if self.pushed > self.limit {
            return Err(AddError::TooManySegments);
        }
        self.word(self.index, 1).store(self.last, Ordering::Relaxed);
        Ok(self.pushed as u16)
    }
}
