//! What a request consists of, and what is left of it when the device has used it.

use super::VirtQueue;
use crate::dma::DmaSegments;
use alloc::boxed::Box;

/// Memory that a device works on for a request.
#[derive(Clone, Debug, Default)]
pub enum Payload {
    /// There is none.
    #[default]
    Nothing,
    /// The device reads it.
    ToDevice(DmaSegments),
    /// The device writes it.
    FromDevice(DmaSegments),
    /// Some of each. It is rare that not all of one direction is small enough for header or reply.
    Both(Box<BothWays>),
}

/// Memory that a device reads and memory that it writes after that, as the order is (VIRTIO 1.2,
/// 2.7.4.2).
#[derive(Clone, Debug)]
pub struct BothWays {
    /// What the device reads.
    pub to_device: DmaSegments,
    /// What the device writes.
    pub from_device: DmaSegments,
}

impl Payload {
    /// What the device reads.
    #[inline]
    pub fn to_device(&self) -> Option<&DmaSegments> {
        match self {
            Self::ToDevice(segments) => Some(segments),
            Self::Both(both) => Some(&both.to_device),
            Self::Nothing | Self::FromDevice(_) => None,
        }
    }

    /// What the device writes.
    #[inline]
    pub fn from_device(&self) -> Option<&DmaSegments> {
        match self {
            Self::FromDevice(segments) => Some(segments),
            Self::Both(both) => Some(&both.from_device),
            Self::Nothing | Self::ToDevice(_) => None,
        }
    }

    /// Bytes that the device writes.
    #[inline]
    pub(super) fn room(&self) -> usize {
        self.from_device().map_or(0, DmaSegments::total)
    }

    /// The bytes in it, both ways together.
    #[inline]
    pub fn total(&self) -> usize {
        self.to_device().map_or(0, DmaSegments::total) + self.room()
    }

    /// A number of descriptors that it does not take more of, found without looking at each.
    #[inline]
    pub(super) fn most_descriptors(&self) -> usize {
        match self {
            Self::Nothing => 0,
            Self::ToDevice(segments) | Self::FromDevice(segments) => segments.most_runs(),
            Self::Both(both) => both.to_device.most_runs() + both.from_device.most_runs(),
        }
    }
}

/// Bytes that the device writes and the queue keeps, and where in a request they are.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Reply {
    length: u16,
    is_first: bool,
}

impl Reply {
    /// There is none.
    pub const NONE: Self = Self::last(0);

    /// `length` bytes before the payload that the device writes, as FUSE has its header.
    pub const fn first(length: u16) -> Self {
        Self {
            length,
            is_first: true,
        }
    }

    /// `length` bytes after the payload, as a disk has its status.
    pub const fn last(length: u16) -> Self {
        Self {
            length,
            is_first: false,
        }
    }

    /// How many bytes.
    pub(super) fn bytes(self) -> usize {
        self.length.into()
    }

    /// How many bytes before the payload, and how many after it.
    pub(super) fn around(self) -> (u32, u32) {
        match self.is_first {
            true => (self.length.into(), 0),
            false => (0, self.length.into()),
        }
    }
}

/// A request that the device has used. The queue can take another when it is dropped or taken
/// apart.
#[derive(Debug)]
pub struct Completion<'a> {
    /// What [`VirtQueue::add`] was given.
    pub cookie: u32,
    /// Bytes that the device says it has written, payload and reply together: no more than there
    /// was room for.
    pub written: usize,
    /// The memory, which the device no longer touches.
    pub payload: Payload,
    /// The reply, which is in the queue until the next request.
    pub reply: ReplyBytes<'a>,
}

impl Completion<'_> {
    /// Bytes of the payload that the device says it has written.
    pub fn payload_written(&self) -> usize {
        let (before, _) = self.reply.place.around();
        let written = self.written.saturating_sub(before as usize);
        written.min(self.payload.room())
    }
}

/// The reply of a request that the device has used.
#[derive(Clone, Copy, Debug)]
pub struct ReplyBytes<'a> {
    pub(super) queue: &'a VirtQueue,
    pub(super) slot: u16,
    pub(super) place: Reply,
}

impl ReplyBytes<'_> {
    /// Its first `N` bytes: 0xff where the device wrote nothing, 0 beyond what was asked for.
    #[inline]
    pub fn array<const N: usize>(&self) -> [u8; N] {
        let mut bytes = [0; N];
        let area = self.queue.areas.area(self.slot);
        if N > area.reply_room() {
            self.read(0, &mut bytes);
            return bytes;
        }
        for (index, chunk) in bytes.chunks_mut(8).enumerate() {
            let word = area.reply_word(index).to_ne_bytes();
            chunk.copy_from_slice(&word[..chunk.len()]);
        }
        if N > self.place.bytes() {
            bytes[self.place.bytes()..].fill(0);
        }
        bytes
    }

    /// Copies its bytes from `offset` on into `out`, as [`array`](Self::array) does.
    #[inline]
    pub fn read(&self, offset: usize, out: &mut [u8]) {
        let there = self.place.bytes().saturating_sub(offset).min(out.len());
        let (there, beyond) = out.split_at_mut(there);
        if !there.is_empty() {
            self.queue.areas.area(self.slot).read_reply(offset, there);
        }
        beyond.fill(0);
    }
}
