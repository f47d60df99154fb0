//! The memory that program and kernel share: `struct io_rings` with the CQEs and the SQ array
//! behind it, and the SQEs, in page frames that the program maps.
//!
//! The program may change any of it at any time: nothing read from here is trusted, and what the
//! kernel needs to remember (its own head and tail) it keeps elsewhere.
//!
//! Entries are powers of two in size and start at multiples of 64 bytes, so none crosses a page
//! and frames need not be adjacent; rings of 32-byte CQEs or 128-byte SQEs fit the same scheme.

use super::setup::Setup;
use super::sqe::{SQE_SIZE, Sqe};
use crate::error::{Errno, Result};
use crate::fs::Answer;
use crate::mm::PageSource;
use alloc::vec::Vec;
use core::sync::atomic::{AtomicU32, Ordering};
use linux_raw_sys::io_uring as raw;
use machine::{Frame, PAGE_SIZE};

/// Offsets in the ring pages. What one side writes and the other polls has a cache line of its own.
mod offset {
    pub(in super::super) const SQ_HEAD: usize = 0;
    pub(in super::super) const SQ_TAIL: usize = 64;
    pub(in super::super) const CQ_HEAD: usize = 128;
    pub(in super::super) const CQ_TAIL: usize = 192;
    pub(in super::super) const SQ_MASK: usize = 256;
    pub(in super::super) const CQ_MASK: usize = 260;
    pub(in super::super) const SQ_ENTRIES: usize = 264;
    pub(in super::super) const CQ_ENTRIES: usize = 268;
    pub(in super::super) const SQ_DROPPED: usize = 272;
    pub(in super::super) const SQ_FLAGS: usize = 276;
    pub(in super::super) const CQ_FLAGS: usize = 280;
    pub(in super::super) const CQ_OVERFLOW: usize = 284;
    pub(in super::super) const CQES: usize = 320;
}

/// Bytes of a completion queue entry.
const CQE_SIZE: usize = 16;

/// A completion queue entry, `struct io_uring_cqe`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Cqe {
    pub(super) user_data: u64,
    pub(super) result: i32,
    pub(super) flags: u32,
}

/// The pages of one ring.
pub(super) struct RingMemory {
    rings: Vec<Frame>,
    sqes: Vec<Frame>,
    sq_array: Option<usize>,
    sq_mask: u32,
    cq_mask: u32,
}

impl RingMemory {
    /// Pages for a ring of that size, the constants in them set.
    ///
    /// # Errors
    ///
    /// `ENOMEM`.
    pub(super) fn new(setup: &Setup) -> Result<Self> {
        let array = offset::CQES + setup.cq_entries as usize * CQE_SIZE;
        let array_size = match setup.has_sq_array() {
            true => setup.sq_entries as usize * size_of::<u32>(),
            false => 0,
        };
        let memory = Self {
            rings: pages(array + array_size)?,
            sqes: pages(setup.sq_entries as usize * SQE_SIZE)?,
            sq_array: setup.has_sq_array().then_some(array),
            sq_mask: setup.sq_entries - 1,
            cq_mask: setup.cq_entries - 1,
        };
        for (at, value) in [
            (offset::SQ_MASK, memory.sq_mask),
            (offset::CQ_MASK, memory.cq_mask),
            (offset::SQ_ENTRIES, setup.sq_entries),
            (offset::CQ_ENTRIES, setup.cq_entries),
        ] {
            memory.word(at).store(value, Ordering::Relaxed);
        }
        Ok(memory)
    }

    /// Where things are, for the program.
    pub(super) fn describe(&self, params: &mut raw::io_uring_params) {
        params.sq_off = raw::io_sqring_offsets {
            head: offset::SQ_HEAD as u32,
            tail: offset::SQ_TAIL as u32,
            ring_mask: offset::SQ_MASK as u32,
            ring_entries: offset::SQ_ENTRIES as u32,
            flags: offset::SQ_FLAGS as u32,
            dropped: offset::SQ_DROPPED as u32,
            array: self.sq_array.unwrap_or(0) as u32,
            resv1: 0,
            user_addr: 0,
        };
        params.cq_off = raw::io_cqring_offsets {
            head: offset::CQ_HEAD as u32,
            tail: offset::CQ_TAIL as u32,
            ring_mask: offset::CQ_MASK as u32,
            ring_entries: offset::CQ_ENTRIES as u32,
            overflow: offset::CQ_OVERFLOW as u32,
            cqes: offset::CQES as u32,
            flags: offset::CQ_FLAGS as u32,
            resv1: 0,
            user_addr: 0,
        };
    }

    #[inline(always)]
    fn word(&self, at: usize) -> &AtomicU32 {
        self.rings[at / PAGE_SIZE].atomic_u32(at % PAGE_SIZE)
    }

    /// The SQEs that the program has added since `head`, were it honest.
    #[inline]
    pub(super) fn sq_pending(&self, head: u32) -> u32 {
        let tail = self.word(offset::SQ_TAIL).load(Ordering::Acquire);
        tail.wrapping_sub(head).min(self.sq_mask + 1)
    }

    /// Copies the SQE for position `head`; `None` if the program's array has a bad index there.
    #[inline(always)]
    pub(super) fn sqe(&self, head: u32) -> Option<Sqe> {
        let mut index = head & self.sq_mask;
        if let Some(array) = self.sq_array {
            index = self
                .word(array + index as usize * size_of::<u32>())
                .load(Ordering::Relaxed);
            if index > self.sq_mask {
                return None;
            }
        }
        let at = index as usize * SQE_SIZE;
        let frame = &self.sqes[at / PAGE_SIZE];
        Some(Sqe::new(frame.read_array(at % PAGE_SIZE)))
    }

    /// Gives the SQEs before `head` back to the program.
    #[inline]
    pub(super) fn publish_sq_head(&self, head: u32) {
        self.word(offset::SQ_HEAD).store(head, Ordering::Release);
    }

    /// Counts an SQE with a bad index.
    pub(super) fn count_dropped(&self) {
        self.word(offset::SQ_DROPPED)
            .fetch_add(1, Ordering::Relaxed);
    }

    /// Sets or clears a flag of `IORING_SQ_*`.
    pub(super) fn set_sq_flag(&self, flag: u32, value: bool) {
        let flags = self.word(offset::SQ_FLAGS);
        match value {
            true => flags.fetch_or(flag, Ordering::AcqRel),
            false => flags.fetch_and(!flag, Ordering::AcqRel),
        };
    }

    /// Whether the program could find a CQE, or could make the kernel put one there.
    pub(super) fn has_cqes(&self) -> bool {
        let tail = self.word(offset::CQ_TAIL).load(Ordering::Acquire);
        let flags = self.word(offset::SQ_FLAGS).load(Ordering::Acquire);
        tail != self.cq_head() || flags & raw::IORING_SQ_CQ_OVERFLOW != 0
    }

    /// Whether there is room for an SQE.
    pub(super) fn has_sq_room(&self) -> bool {
        let head = self.word(offset::SQ_HEAD).load(Ordering::Acquire);
        self.sq_pending(head) <= self.sq_mask
    }

    /// How far the program says it has read the CQ.
    #[inline]
    pub(super) fn cq_head(&self) -> u32 {
        self.word(offset::CQ_HEAD).load(Ordering::Acquire)
    }

    /// Stores the CQE for position `tail`.
    #[inline(always)]
    pub(super) fn write_cqe(&self, tail: u32, cqe: Cqe) {
        let at = offset::CQES + (tail & self.cq_mask) as usize * CQE_SIZE;
        let (frame, at) = (&self.rings[at / PAGE_SIZE], at % PAGE_SIZE);
        let rest = u64::from(cqe.result as u32) | u64::from(cqe.flags) << 32;
        frame.atomic_u64(at).store(cqe.user_data, Ordering::Relaxed);
        frame.atomic_u64(at + 8).store(rest, Ordering::Relaxed);
    }

    /// Shows the program the CQEs before `tail`.
    #[inline]
    pub(super) fn publish_cq_tail(&self, tail: u32) {
        self.word(offset::CQ_TAIL).store(tail, Ordering::Release);
    }
}

fn pages(bytes: usize) -> Result<Vec<Frame>> {
    (0..bytes.div_ceil(PAGE_SIZE))
        .map(|_| Frame::zeroed().map_err(Errno::from))
        .collect()
}

impl RingMemory {
    /// The part that the page at an offset of the ring's file belongs to (`IORING_OFF_*`), and its
    /// number in that.
    fn part(&self, index: u64) -> Option<(&[Frame], usize)> {
        let offset = u32::try_from(index.checked_mul(PAGE_SIZE as u64)?).ok()?;
        let part = match offset & raw::IORING_OFF_MMAP_MASK {
            raw::IORING_OFF_SQ_RING | raw::IORING_OFF_CQ_RING => &self.rings,
            raw::IORING_OFF_SQES => &self.sqes,
            _ => return None,
        };
        let within = offset & !raw::IORING_OFF_MMAP_MASK;
        Some((part, within as usize / PAGE_SIZE))
    }
}

impl PageSource for RingMemory {
    fn page(&self, index: u64, _for_write: bool) -> Answer<'_, Frame> {
        let page = self.part(index).and_then(|(part, at)| part.get(at));
        Answer::ready(page.cloned().ok_or(Errno::EFAULT))
    }

    /// Linux finds no address for a part that there is not.
    fn check_start(&self, first: u64) -> Result<()> {
        self.part(first).map(drop).ok_or(Errno::ENOMEM)
    }
}
