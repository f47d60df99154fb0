//! The small parts of a queue's requests: each slot has an area with room for a header, a reply
//! and a short descriptor table.

use super::chain::DESCRIPTOR;
use crate::frame::{Frame, OutOfMemory};
use crate::physical::{PAGE_SIZE, PhysAddr};
use alloc::vec::Vec;
use core::sync::atomic::Ordering;

/// Descriptors of a table that every area has room for: header, reply, and four pieces of memory.
const TABLE: usize = 6;

/// How much room a queue has for what is not memory of its submitter.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SmallParts {
    /// The longest header, in bytes.
    pub header: usize,
    /// The longest reply, in bytes.
    pub reply: usize,
}

impl Default for SmallParts {
    /// As a disk needs it: 16 bytes of each.
    fn default() -> Self {
        Self {
            header: 16,
            reply: 16,
        }
    }
}

/// The areas of a queue's slots.
#[derive(Debug)]
pub(super) struct Areas {
    frames: Vec<Frame>,
    limits: SmallParts,
    /// log2 of an area's bytes.
    shift: u32,
    /// Where in an area the reply and the table are.
    reply_at: usize,
    table_at: usize,
}

/// The area of one slot.
#[derive(Clone, Copy)]
pub(super) struct Area<'a> {
    pub(super) frame: &'a Frame,
    at: usize,
    areas: &'a Areas,
}

impl Areas {
    /// Areas for `count` slots.
    ///
    /// # Panics
    ///
    /// If an area would be larger than a page.
    pub(super) fn new(count: u16, limits: SmallParts) -> Result<Self, OutOfMemory> {
        let reply_at = limits.header.next_multiple_of(16);
        let table_at = reply_at + limits.reply.next_multiple_of(16);
        let size = (table_at + TABLE * DESCRIPTOR).next_power_of_two();
        assert!(size <= PAGE_SIZE, "small parts larger than a page");
        Ok(Self {
            frames: (0..(usize::from(count) * size).div_ceil(PAGE_SIZE))
                .map(|_| Frame::zeroed())
                .collect::<Result<_, _>>()?,
            limits,
            shift: size.trailing_zeros(),
            reply_at,
            table_at,
        })
    }

    pub(super) fn limits(&self) -> SmallParts {
        self.limits
    }

    #[inline]
    pub(super) fn area(&self, slot: u16) -> Area<'_> {
        let at = usize::from(slot) << self.shift;
        Area {
            frame: &self.frames[at / PAGE_SIZE],
            at: at % PAGE_SIZE,
            areas: self,
        }
    }

    /// Leaves the memory allocated for good.
    pub(super) fn leak(&mut self) {
        core::mem::forget(core::mem::take(&mut self.frames));
    }
}

impl Area<'_> {
    /// The header's physical address.
    pub(super) fn address(self) -> PhysAddr {
        PhysAddr(self.frame.address().0 + self.at as u64)
    }

    pub(super) fn reply_address(self) -> PhysAddr {
        PhysAddr(self.address().0 + self.areas.reply_at as u64)
    }

    pub(super) fn write_header(self, header: &[u8]) {
        self.frame.write(self.at, header);
    }

    /// Makes the reply's first `length` bytes 0xff: what the device does not write must not look
    /// like an earlier request's reply.
    #[inline]
    pub(super) fn clear_reply(self, length: usize) {
        let start = self.at + self.areas.reply_at;
        for at in (start..start + length).step_by(8) {
            self.frame.atomic_u64(at).store(u64::MAX, Ordering::Relaxed);
        }
    }

    /// Bytes that there are for a reply.
    #[inline]
    pub(super) fn reply_room(self) -> usize {
        self.areas.table_at - self.areas.reply_at
    }

    /// The bytes of the reply from `8 * index` on.
    #[inline]
    pub(super) fn reply_word(self, index: usize) -> u64 {
        let at = self.at + self.areas.reply_at + 8 * index;
        self.frame.atomic_u64(at).load(Ordering::Relaxed)
    }

    /// Copies the bytes of the reply from `offset` on.
    pub(super) fn read_reply(self, offset: usize, out: &mut [u8]) {
        self.frame.read(self.at + self.areas.reply_at + offset, out);
    }

    /// Descriptors that fit in the area's table.
    pub(super) fn table_size(self) -> usize {
        ((1 << self.areas.shift) - self.areas.table_at) / DESCRIPTOR
    }

    /// Where in the area's frame its descriptor table is.
    pub(super) fn table_at(self) -> usize {
        self.at + self.areas.table_at
    }
}
