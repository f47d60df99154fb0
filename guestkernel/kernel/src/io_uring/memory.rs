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
use crate::mm::{Access, AddressSpace};
use alloc::vec::Vec;
use core::sync::atomic::{AtomicU32, Ordering};
use linux_raw_sys::io_uring as raw;
use machine::{Frame, PAGE_SIZE, Segment};

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

/// Bytes of a completion queue entry, as a shift; of a big one.
const CQE_SHIFT: u32 = 4;
const WIDE_CQE_SHIFT: u32 = 5;
/// Bytes of a submission queue entry, as a shift; of a big one.
const SQE_SHIFT: u32 = SQE_SIZE.trailing_zeros();
const WIDE_SQE_SHIFT: u32 = SQE_SHIFT + 1;

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
    /// The program's own pages, if these are it.
    _pinned: Vec<Segment>,
    /// The program maps it: it is not the program's own.
    is_mapped: bool,
    sq_array: Option<usize>,
    sq_mask: u32,
    cq_mask: u32,
    sqe_shift: u32,
    cqe_shift: u32,
}

impl RingMemory {
    /// Pages for a ring of that size, the constants in them set: the kernel's, or the program's where
    /// `params` says so.
    ///
    /// # Errors
    ///
    /// `ENOMEM`; `EFAULT`, `EINVAL` for bad addresses.
    pub(super) fn new(
        setup: &Setup,
        params: &raw::io_uring_params,
        space: &AddressSpace,
    ) -> Result<Self> {
        let cqe_shift = match setup.has_wide_cqes() {
            true => WIDE_CQE_SHIFT,
            false => CQE_SHIFT,
        };
        let sqe_shift = match setup.has_wide_sqes() {
            true => WIDE_SQE_SHIFT,
            false => SQE_SHIFT,
        };
        let array = offset::CQES + ((setup.cq_entries as usize) << cqe_shift);
        let array_size = match setup.has_sq_array() {
            true => setup.sq_entries as usize * size_of::<u32>(),
            false => 0,
        };
        let mut pinned = Vec::new();
        let mut part = |bytes: usize, address: u64| match setup.is_mapped() {
            true => pages(bytes),
            false => users_pages(bytes, address, space, &mut pinned),
        };
        let rings = part(array + array_size, params.cq_off.user_addr)?;
        let sqes = part(
            (setup.sq_entries as usize) << sqe_shift,
            params.sq_off.user_addr,
        )?;
        let memory = Self {
            rings,
            sqes,
            _pinned: pinned,
            is_mapped: setup.is_mapped(),
            sq_array: setup.has_sq_array().then_some(array),
            sq_mask: setup.sq_entries - 1,
            cq_mask: setup.cq_entries - 1,
            sqe_shift,
            cqe_shift,
        };
        for at in (0..offset::CQES).step_by(size_of::<u32>()) {
            memory.word(at).store(0, Ordering::Relaxed);
        }
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

    /// Copies what is in other rings; false if there is no room for it.
    pub(super) fn take_over(&self, old: &Self) -> bool {
        let load = |at: usize| old.word(at).load(Ordering::Acquire);
        let (sq_head, sq_tail) = (load(offset::SQ_HEAD), load(offset::SQ_TAIL));
        let (cq_head, cq_tail) = (load(offset::CQ_HEAD), load(offset::CQ_TAIL));
        let (sqes, cqes) = (sq_tail.wrapping_sub(sq_head), cq_tail.wrapping_sub(cq_head));
        if sqes > self.sq_mask + 1 || cqes > self.cq_mask + 1 {
            return false;
        }
        for position in (0..sqes.min(old.sq_mask + 1)).map(|at| sq_head.wrapping_add(at)) {
            let place = |memory: &Self| ((position & memory.sq_mask) as usize) << memory.sqe_shift;
            copy(
                &old.sqes,
                place(old),
                &self.sqes,
                place(self),
                1 << self.sqe_shift,
            );
        }
        for position in (0..cqes.min(old.cq_mask + 1)).map(|at| cq_head.wrapping_add(at)) {
            let (from, to) = (old.cqe_at(position), self.cqe_at(position));
            copy(&old.rings, from, &self.rings, to, 1 << self.cqe_shift);
        }
        for at in [
            offset::SQ_HEAD,
            offset::SQ_TAIL,
            offset::CQ_HEAD,
            offset::CQ_TAIL,
            offset::SQ_DROPPED,
            offset::SQ_FLAGS,
            offset::CQ_FLAGS,
            offset::CQ_OVERFLOW,
        ] {
            self.word(at).store(load(at), Ordering::Release);
        }
        true
    }

    /// Where things are, for the program.
    pub(super) fn describe(&self, params: &mut raw::io_uring_params) {
        let users = |address| if self.is_mapped { 0 } else { address };
        params.sq_off = raw::io_sqring_offsets {
            head: offset::SQ_HEAD as u32,
            tail: offset::SQ_TAIL as u32,
            ring_mask: offset::SQ_MASK as u32,
            ring_entries: offset::SQ_ENTRIES as u32,
            flags: offset::SQ_FLAGS as u32,
            dropped: offset::SQ_DROPPED as u32,
            array: self.sq_array.unwrap_or(0) as u32,
            resv1: 0,
            user_addr: users(params.sq_off.user_addr),
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
            user_addr: users(params.cq_off.user_addr),
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
        let at = (index as usize) << self.sqe_shift;
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

    /// Whether the program wants no eventfd to count now.
    pub(super) fn is_event_disabled(&self) -> bool {
        let flags = self.word(offset::CQ_FLAGS).load(Ordering::Relaxed);
        flags & raw::IORING_CQ_EVENTFD_DISABLED != 0
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
        let at = self.cqe_at(tail);
        let (frame, at) = (&self.rings[at / PAGE_SIZE], at % PAGE_SIZE);
        let rest = u64::from(cqe.result as u32) | u64::from(cqe.flags) << 32;
        frame.atomic_u64(at).store(cqe.user_data, Ordering::Relaxed);
        frame.atomic_u64(at + 8).store(rest, Ordering::Relaxed);
    }

    /// Where the CQE for position `tail` is.
    #[inline(always)]
    fn cqe_at(&self, tail: u32) -> usize {
        offset::CQES + (((tail & self.cq_mask) as usize) << self.cqe_shift)
    }

    /// Stores the second half of the CQE for position `tail`: behind the first, or, in a ring where
    /// only some are big, in the next place.
    pub(super) fn write_second_half(&self, tail: u32, extra: [u64; 2]) {
        let at = self.cqe_at(tail) + (1 << CQE_SHIFT);
        let (frame, at) = (&self.rings[at / PAGE_SIZE], at % PAGE_SIZE);
        frame.atomic_u64(at).store(extra[0], Ordering::Relaxed);
        frame.atomic_u64(at + 8).store(extra[1], Ordering::Relaxed);
    }

    /// Whether the place for position `tail` is the last before the ring begins anew.
    pub(super) fn is_last_place(&self, tail: u32) -> bool {
        tail & self.cq_mask == self.cq_mask
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

/// So many bytes of the program's own pages, which are kept in `pinned`.
fn users_pages(
    bytes: usize,
    address: u64,
    space: &AddressSpace,
    pinned: &mut Vec<Segment>,
) -> Result<Vec<Frame>> {
    if address == 0 {
        return Err(Errno::EFAULT);
    }
    if !address.is_multiple_of(PAGE_SIZE as u64) {
        return Err(Errno::EINVAL);
    }
    let bytes = bytes.next_multiple_of(PAGE_SIZE);
    address.checked_add(bytes as u64).ok_or(Errno::EOVERFLOW)?;
    let segments = space.pin(address, bytes, Access::READ | Access::WRITE)?;
    let frames = segments.iter().map(|segment| segment.frame().clone());
    let frames = frames.collect();
    pinned.extend(segments);
    Ok(frames)
}

/// Copies so many bytes, which lie in one page, between pages.
fn copy(from: &[Frame], at: usize, to: &[Frame], to_at: usize, count: usize) {
    if let (Some(from), Some(to)) = (from.get(at / PAGE_SIZE), to.get(to_at / PAGE_SIZE)) {
        from.copy_to(at % PAGE_SIZE, to, to_at % PAGE_SIZE, count);
    }
}

impl RingMemory {
    /// The page of the rings at an offset in bytes, for the program to map.
    pub(super) fn ring_page(&self, offset: u32) -> Option<Frame> {
        self.mapped(&self.rings, offset)
    }

    /// The page of the SQEs at an offset in bytes, for the program to map.
    pub(super) fn sqe_page(&self, offset: u32) -> Option<Frame> {
        self.mapped(&self.sqes, offset)
    }

    fn mapped(&self, frames: &[Frame], offset: u32) -> Option<Frame> {
        let frame = frames.get(offset as usize / PAGE_SIZE)?;
        self.is_mapped.then(|| frame.clone())
    }
}
