//! The completion queue: CQEs go to the ring while there is room, and wait in order in the kernel
//! when there is none (`IORING_FEAT_NODROP`), until the program asks for events.

use super::memory::{Cqe, RingMemory};
use alloc::collections::VecDeque;
use linux_raw_sys::io_uring::IORING_SQ_CQ_OVERFLOW;

/// The kernel's side of the completion queue.
pub(super) struct CompletionQueue {
    /// CQEs stored in the ring ever; its lower half is the tail.
    posted: u64,
    /// Those of them that the program was shown.
    published: u64,
    /// The tail up to which there is room for sure.
    room_until: u32,
    entries: u32,
    overflow: VecDeque<Cqe>,
}

impl CompletionQueue {
    /// An empty queue of `entries`.
    pub(super) fn new(entries: u32) -> Self {
        Self {
            posted: 0,
            published: 0,
            room_until: entries,
            entries,
            overflow: VecDeque::new(),
        }
    }

    fn tail(&self) -> u32 {
        self.posted as u32
    }

    /// Posts a CQE; [`publish`](Self::publish) shows it.
    #[inline(always)]
    pub(super) fn post(&mut self, memory: &RingMemory, cqe: Cqe) {
        if !self.try_post(memory, cqe) {
            self.keep(memory, cqe);
        }
    }

    /// Keeps a CQE until there is room.
    #[cold]
    fn keep(&mut self, memory: &RingMemory, cqe: Cqe) {
        if self.overflow.is_empty() {
            memory.set_sq_flag(IORING_SQ_CQ_OVERFLOW, true);
        }
        self.overflow.push_back(cqe);
    }

    /// Posts a CQE of a request that will post more; false, and nothing done, if there is no room.
    #[inline(always)]
    pub(super) fn try_post(&mut self, memory: &RingMemory, cqe: Cqe) -> bool {
        let has_room =
            self.overflow.is_empty() && (self.tail() != self.room_until || self.find_room(memory));
        if has_room {
            memory.write_cqe(self.tail(), cqe);
            self.posted += 1;
        }
        has_room
    }

    /// Looks how far the program has read; a head that makes no sense counts as a full queue.
    fn find_room(&mut self, memory: &RingMemory) -> bool {
        let used = self.tail().wrapping_sub(memory.cq_head());
        let room = self.entries - used.min(self.entries);
        self.room_until = self.tail().wrapping_add(room);
        room > 0
    }

    /// Moves CQEs that wait into the ring, as far as there is room.
    pub(super) fn flush_overflow(&mut self, memory: &RingMemory) {
        if self.overflow.is_empty() {
            return;
        }
        while let Some(cqe) = self.overflow.front().copied()
            && (self.tail() != self.room_until || self.find_room(memory))
        {
            memory.write_cqe(self.tail(), cqe);
            self.posted += 1;
            self.overflow.pop_front();
        }
        if self.overflow.is_empty() {
            memory.set_sq_flag(IORING_SQ_CQ_OVERFLOW, false);
        }
    }

    /// Shows the program what was posted; false if that is nothing new.
    #[inline]
    pub(super) fn publish(&mut self, memory: &RingMemory) -> bool {
        if self.published == self.posted {
            return false;
        }
        self.published = self.posted;
        memory.publish_cq_tail(self.tail());
        true
    }

    /// CQEs that the program was shown ever.
    pub(super) fn published(&self) -> u64 {
        self.published
    }

    /// CQEs that the program has been shown and not taken.
    #[inline]
    pub(super) fn waiting(&self, memory: &RingMemory) -> u32 {
        (self.published as u32).wrapping_sub(memory.cq_head())
    }

    /// CQEs that wait for room.
    #[inline(always)]
    pub(super) fn overflowed(&self) -> usize {
        self.overflow.len()
    }

    /// Forgets the CQEs that wait: nobody will read them.
    pub(super) fn clear(&mut self) {
        self.overflow = VecDeque::new();
    }
}
