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
    kind: Kind,
    /// The second half of the next CQE, in a ring that has big ones.
    extra: Option<[u64; 2]>,
    overflow: VecDeque<Kept>,
}

/// A CQE that waits for room, and its second half.
type Kept = (Cqe, Option<[u64; 2]>);

/// Which CQEs are big.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// None.
    Small,
    /// All (`IORING_SETUP_CQE32`).
    Wide,
    /// Those that need to be (`IORING_SETUP_CQE_MIXED`).
    Mixed,
}

/// Flags of CQEs that linux-raw-sys does not have (`include/uapi/linux/io_uring.h` of Linux 6.18): it
/// is no CQE, and it is a big one.
const CQE_F_SKIP: u32 = 1 << 5;
const CQE_F_32: u32 = 1 << 15;

impl CompletionQueue {
    /// An empty queue of `entries`.
    pub(super) fn new(entries: u32, kind: Kind) -> Self {
        Self {
            kind,
            extra: None,
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
        self.overflow.push_back((cqe, self.extra.take()));
    }

    /// The next CQE is a big one, with that second half.
    pub(super) fn set_extra(&mut self, extra: [u64; 2]) {
        self.extra = Some(extra);
    }

    /// There was no next CQE.
    #[inline(always)]
    pub(super) fn forget_extra(&mut self) {
        self.extra = None;
    }

    /// The ring has room for so many from now on.
    pub(super) fn resize(&mut self, entries: u32) {
        self.entries = entries;
        self.room_until = self.tail();
    }

    /// Posts a CQE of a request that will post more; false, and nothing done, if there is no room.
    #[inline(always)]
    pub(super) fn try_post(&mut self, memory: &RingMemory, cqe: Cqe) -> bool {
        if self.kind != Kind::Small {
            return self.overflow.is_empty() && self.try_post_wide(memory, cqe, self.extra);
        }
        let has_room =
            self.overflow.is_empty() && (self.tail() != self.room_until || self.find_room(memory));
        if has_room {
            memory.write_cqe(self.tail(), cqe);
            self.posted += 1;
        }
        has_room
    }

    /// The same in a ring that has big CQEs.
    fn try_post_wide(
        &mut self,
        memory: &RingMemory,
        mut cqe: Cqe,
        extra: Option<[u64; 2]>,
    ) -> bool {
        let is_double = self.kind == Kind::Mixed && extra.is_some();
        let skips = is_double && memory.is_last_place(self.tail());
        let places = 1 + u32::from(is_double) + u32::from(skips);
        if self.room_until.wrapping_sub(self.tail()) < places {
            self.find_room(memory);
            if self.room_until.wrapping_sub(self.tail()) < places {
                return false;
            }
        }
        if skips {
            let skipped = Cqe {
                user_data: 0,
                result: 0,
                flags: CQE_F_SKIP,
            };
            memory.write_cqe(self.tail(), skipped);
            self.posted += 1;
        }
        if is_double {
            cqe.flags |= CQE_F_32;
        }
        memory.write_cqe(self.tail(), cqe);
        if is_double || self.kind == Kind::Wide {
            memory.write_second_half(self.tail(), extra.unwrap_or_default());
        }
        self.posted += 1 + u64::from(is_double);
        self.extra = None;
        true
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
        while let Some((cqe, extra)) = self.overflow.front().copied() {
            let is_posted = match self.kind {
                Kind::Small => {
                    let has_room = self.tail() != self.room_until || self.find_room(memory);
                    if has_room {
                        memory.write_cqe(self.tail(), cqe);
                        self.posted += 1;
                    }
                    has_room
                }
                _ => self.try_post_wide(memory, cqe, extra),
            };
            if !is_posted {
                break;
            }
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
