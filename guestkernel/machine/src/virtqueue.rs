//! The driver's side of a split virtqueue (VIRTIO 1.2, 2.7).
//!
//! The queue owns all memory that the device may touch: the rings, and each request's segments
//! from [`add`](VirtQueue::add) until the device has used them. What the device writes into the
//! used ring is not trusted: nonsense makes the queue broken, for good, and its memory stays
//! allocated until the device has been reset.

mod chain;
#[cfg(test)]
mod tests;

pub use chain::Payload;

use crate::frame::{Frame, OutOfMemory};
use crate::physical::PAGE_SIZE;
use crate::virtio_mmio::{Registers, ring_features};
use alloc::boxed::Box;
use alloc::sync::Arc;
use alloc::vec::Vec;
use chain::{ChainWriter, DESCRIPTOR, INDIRECT, Parts, Written};
use core::sync::atomic::{Ordering, fence};

/// The available ring's flag that asks for no interrupts, and the used ring's that asks for no
/// doorbells.
const QUIET: u16 = 1;

/// Bytes of a slot's area, which holds a request's small parts: header, reply, and a table of
/// [`SMALL_TABLE`] descriptors.
const AREA: usize = 128;
const REPLY_AT: usize = 16;
const TABLE_AT: usize = 32;
const SMALL_TABLE: usize = (AREA - TABLE_AT) / DESCRIPTOR;

/// Why a request was not added to a queue.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum AddError {
    /// There is no free descriptor; some come back with [`VirtQueue::reap`].
    #[error("the queue is full")]
    Full,
    /// It is in more pieces than the queue can ever take.
    #[error("the request has too many segments")]
    TooManySegments,
    /// There is no memory for a descriptor table.
    #[error("out of memory")]
    OutOfMemory,
    /// The device has broken the queue.
    #[error("the device has broken the queue")]
    Broken,
}

/// The device has written something into the used ring that makes no sense.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the device has broken the queue")]
pub struct QueueBroken;

/// A request that the device has used.
#[derive(Debug)]
pub struct Completion {
    /// What [`VirtQueue::add`] was given.
    pub cookie: u32,
    /// Bytes that the device says it has written: payload first, then the reply.
    pub written: usize,
    /// The reply: 0xff where the device wrote nothing, 0 beyond what was asked for.
    pub reply: [u8; VirtQueue::MAX_REPLY],
    /// The memory, which the device no longer touches.
    pub payload: Payload,
}

/// A descriptor that starts a chain, and what is known of that chain.
#[derive(Debug, Default)]
struct Slot {
    /// The next descriptor of the chain or of the free list.
    next: u16,
    /// Descriptors of the ring in the chain; 0 unless a chain in flight starts here.
    chain: u16,
    cookie: u32,
    reply: u8,
    /// Bytes that the device may write.
    writable: usize,
    payload: Payload,
    /// A page for long indirect tables, kept once there is one.
    table: Option<Frame>,
}

/// Physical addresses of a queue's parts.
pub(crate) struct RingAddresses {
    pub(crate) descriptors: u64,
    pub(crate) available: u64,
    pub(crate) used: u64,
}

/// The driver's side of a virtqueue.
#[derive(Debug)]
pub struct VirtQueue {
    registers: Arc<Registers>,
    index: u32,
    size: u16,
    has_event_idx: bool,
    has_indirect: bool,
    /// Most descriptors for a request's payload.
    payload_limit: usize,
    descriptors: Frame,
    rings: Frame,
    /// Where in `rings` they start.
    available: usize,
    used: usize,
    areas: Vec<Frame>,
    slots: Box<[Slot]>,
    /// The first free descriptor, if `free_count` is not 0.
    free: u16,
    free_count: u16,
    in_flight: u16,
    /// The index of the available ring, and what it was when the device was last notified.
    added: u16,
    notified: u16,
    /// The index of the used ring up to which it has been read.
    reaped: u16,
    is_armed: bool,
    is_broken: bool,
}

impl VirtQueue {
    /// The largest size: the descriptors fill a page.
    pub const MAX_SIZE: u16 = (PAGE_SIZE / DESCRIPTOR) as u16;
    /// The longest header.
    pub const MAX_HEADER: usize = REPLY_AT;
    /// The longest reply.
    pub const MAX_REPLY: usize = TABLE_AT - REPLY_AT;

    /// A queue of `size` descriptors, a power of two up to [`MAX_SIZE`](Self::MAX_SIZE).
    pub(crate) fn new(
        registers: Arc<Registers>,
        index: u32,
        size: u16,
        features: u64,
    ) -> Result<Self, OutOfMemory> {
        debug_assert!(size.is_power_of_two() && size <= Self::MAX_SIZE);
        let entries = usize::from(size);
        let descriptors = Frame::zeroed()?;
        // All parts in one page if they fit, each on cache lines of its own. The used ring's
        // elements, which follow four bytes of header, are aligned to eight.
        let table = entries * DESCRIPTOR;
        let available_bytes = (6 + 2 * entries).next_multiple_of(64);
        let used_bytes = 4 + 6 + 8 * entries;
        let fits = table + available_bytes + used_bytes <= PAGE_SIZE;
        let (rings, available) = match fits {
            true => (descriptors.clone(), table),
            false => (Frame::zeroed()?, 0),
        };
        let areas = (0..(entries * AREA).div_ceil(PAGE_SIZE))
            .map(|_| Frame::zeroed())
            .collect::<Result<_, _>>()?;
        let slots = (1..=size)
            .map(|next| Slot {
                next,
                ..Slot::default()
            })
            .collect();
        let has_event_idx = features & ring_features::EVENT_IDX != 0;
        let mut queue = Self {
            registers,
            index,
            size,
            has_event_idx,
            has_indirect: features & ring_features::INDIRECT != 0,
            payload_limit: entries,
            descriptors,
            rings,
            available,
            used: available + available_bytes + 4,
            areas,
            slots,
            free: 0,
            free_count: size,
            in_flight: 0,
            added: 0,
            notified: 0,
            reaped: 0,
            is_armed: true,
            is_broken: false,
        };
        queue.disarm();
        Ok(queue)
    }

    pub(crate) fn addresses(&self) -> RingAddresses {
        let rings = self.rings.address().0;
        RingAddresses {
            descriptors: self.descriptors.address().0,
            available: rings + self.available as u64,
            used: rings + self.used as u64,
        }
    }

    /// Makes `limit` the most pieces of memory that a request's payload may be in.
    pub fn limit_payload(&mut self, limit: usize) {
        self.payload_limit = limit.clamp(1, self.size.into());
    }

    /// The most pieces of memory that a request's payload may be in.
    pub fn payload_limit(&self) -> usize {
        self.payload_limit
    }

    /// Descriptors in the queue.
    pub fn size(&self) -> u16 {
        self.size
    }

    /// Requests that the device has not used yet.
    pub fn in_flight(&self) -> usize {
        self.in_flight.into()
    }

    /// Queues a request: `header` for the device to read, `payload`, and room for `reply` bytes
    /// that the device writes. The device may see it at once, but is told only by
    /// [`kick`](Self::kick).
    ///
    /// # Errors
    ///
    /// [`AddError`]; the payload is then given back.
    ///
    /// # Panics
    ///
    /// If `header` or `reply` is longer than [`MAX_HEADER`](Self::MAX_HEADER) or
    /// [`MAX_REPLY`](Self::MAX_REPLY), or all is empty.
    pub fn add(
        &mut self,
        cookie: u32,
        header: &[u8],
        payload: Payload,
        reply: usize,
    ) -> Result<(), (AddError, Payload)> {
        assert!(header.len() <= Self::MAX_HEADER && reply <= Self::MAX_REPLY);
        if self.is_broken {
            return Err((AddError::Broken, payload));
        }
        if self.free_count == 0 {
            return Err((AddError::Full, payload));
        }
        let head = self.free;
        let (area, at) = self.area(head);
        let area_address = area.address().0 + at as u64;
        area.write(at, header);
        for word in 0..Self::MAX_REPLY / 8 {
            // What the device does not write must not look like an earlier request's reply.
            let at = at + REPLY_AT + 8 * word;
            area.atomic_u64(at).store(u64::MAX, Ordering::Relaxed);
        }
        let parts = Parts {
            header: (area_address, header.len() as u32),
            payload: payload.segments(),
            payload_limit: self.payload_limit,
            reply: (area_address + REPLY_AT as u64, reply as u32),
        };
        let most = parts.most_descriptors();
        assert!(most > 0, "a request of nothing");
        let chain = match self.has_indirect && most > 1 {
            true => self.write_indirect(head, &parts, most),
            false => self.write_direct(head, &parts),
        };
        let chain = match chain {
            Ok(chain) => chain,
            Err(error) => return Err((error, payload)),
        };
        let writable = match &payload {
            Payload::FromDevice(segments) => segments.total(),
            _ => 0,
        };
        let slot = &mut self.slots[usize::from(head)];
        slot.chain = chain.length;
        slot.cookie = cookie;
        slot.reply = reply as u8;
        slot.writable = writable + reply;
        slot.payload = payload;
        self.free = chain.next;
        self.free_count -= chain.length;
        self.in_flight += 1;
        let entry = self.available + 4 + 2 * usize::from(self.added % self.size);
        self.rings.atomic_u16(entry).store(head, Ordering::Relaxed);
        self.added = self.added.wrapping_add(1);
        // The device that sees the index sees the descriptors too (VIRTIO 1.2, 2.7.13.3).
        self.rings
            .atomic_u16(self.available + 2)
            .store(self.added, Ordering::Release);
        Ok(())
    }

    fn area(&self, slot: u16) -> (&Frame, usize) {
        const PER_PAGE: usize = PAGE_SIZE / AREA;
        let slot = usize::from(slot);
        (&self.areas[slot / PER_PAGE], slot % PER_PAGE * AREA)
    }

    /// Writes the request into a table and one descriptor that points to it.
    fn write_indirect(
        &mut self,
        head: u16,
        parts: &Parts<'_>,
        most: usize,
    ) -> Result<Written, AddError> {
        // A chain is never longer than the queue, in a table or not (VIRTIO 1.2, 2.7.5.3.1).
        let limit = parts.limit().min(self.size.into());
        let (table, at) = if most <= SMALL_TABLE {
            let (area, at) = self.area(head);
            (area, at + TABLE_AT)
        } else {
            let table = &mut self.slots[usize::from(head)].table;
            if table.is_none() {
                *table = Some(Frame::uninitialised().map_err(|_| AddError::OutOfMemory)?);
            }
            let table = self.slots[usize::from(head)].table.as_ref();
            (table.ok_or(AddError::OutOfMemory)?, 0)
        };
        let mut chain = ChainWriter::new(table, at, 0, limit);
        parts.write(|address, length, flags| chain.push(address, length, flags, |this| this + 1));
        let count = chain.finish()?;
        let address = table.address().0 + at as u64;
        let length = (usize::from(count) * DESCRIPTOR) as u32;
        let mut ring = ChainWriter::new(&self.descriptors, 0, head, 1);
        ring.push(address, length, INDIRECT, |this| this);
        ring.finish()?;
        Ok(Written {
            length: 1,
            next: self.slots[usize::from(head)].next,
        })
    }

    /// Writes the request into descriptors of the ring, from the free list's first on.
    fn write_direct(&self, head: u16, parts: &Parts<'_>) -> Result<Written, AddError> {
        let next = |this: u16| self.slots[usize::from(this)].next;
        let limit = parts.limit().min(self.size.into());
        let room = limit.min(self.free_count.into());
        let mut chain = ChainWriter::new(&self.descriptors, 0, head, room);
        parts.write(|address, length, flags| chain.push(address, length, flags, next));
        let (needed, last) = (chain.pushed, chain.index);
        match chain.finish() {
            Ok(length) => Ok(Written {
                length,
                next: next(last),
            }),
            Err(_) if needed <= limit => Err(AddError::Full),
            Err(error) => Err(error),
        }
    }

    /// Rings the doorbell if requests were added since the last time and the device asks for
    /// one; true if it did.
    pub fn kick(&mut self) -> bool {
        let (old, new) = (self.notified, self.added);
        if old == new || self.is_broken {
            return false;
        }
        self.notified = new;
        // The index is written before the device's wish is read, so that one of the two sides
        // sees what the other did (VIRTIO 1.2, 2.7.13.4.1).
        fence(Ordering::SeqCst);
        let is_wanted = if self.has_event_idx {
            let at = self.used + 4 + 8 * usize::from(self.size);
            let event = self.rings.atomic_u16(at).load(Ordering::Relaxed);
            is_passed(event, old, new)
        } else {
            self.rings.atomic_u16(self.used).load(Ordering::Relaxed) & QUIET == 0
        };
        if is_wanted {
            self.registers.notify(self.index);
        }
        is_wanted
    }

    /// Whether requests were added of which the device may not know.
    pub fn needs_kick(&self) -> bool {
        self.notified != self.added
    }

    /// Whether the device has used something that was not reaped yet, or claims so.
    #[inline]
    pub fn has_completion(&self) -> bool {
        self.used_index() != self.reaped
    }

    fn used_index(&self) -> u16 {
        self.rings.atomic_u16(self.used + 2).load(Ordering::Acquire)
    }

    /// Takes the next request that the device has used, and takes back the wish for an interrupt.
    ///
    /// # Errors
    ///
    /// [`QueueBroken`], from the first nonsense on.
    #[inline]
    pub fn reap(&mut self) -> Result<Option<Completion>, QueueBroken> {
        if self.is_broken {
            return Err(QueueBroken);
        }
        self.disarm();
        let pending = self.used_index().wrapping_sub(self.reaped);
        if pending == 0 {
            return Ok(None);
        }
        let completion = match pending <= self.in_flight {
            true => self.take_used(),
            false => None,
        };
        match completion {
            Some(completion) => Ok(Some(completion)),
            None => {
                self.is_broken = true;
                Err(QueueBroken)
            }
        }
    }

    /// Takes the next element of the used ring; `None` if it makes no sense.
    fn take_used(&mut self) -> Option<Completion> {
        let at = self.used + 4 + 8 * usize::from(self.reaped % self.size);
        let element = self.rings.atomic_u64(at).load(Ordering::Relaxed);
        let head = u16::try_from(element as u32).ok()?;
        let written = (element >> 32) as usize;
        let slot = self.slots.get_mut(usize::from(head))?;
        if slot.chain == 0 || written > slot.writable {
            return None;
        }
        let length = core::mem::take(&mut slot.chain);
        let payload = core::mem::take(&mut slot.payload);
        let (cookie, reply_length) = (slot.cookie, usize::from(slot.reply));
        let mut reply = [0; Self::MAX_REPLY];
        if reply_length > 0 {
            let (area, at) = self.area(head);
            reply = area.read_array(at + REPLY_AT);
            reply[reply_length..].fill(0);
        }
        let mut last = head;
        for _ in 1..length {
            last = self.slots[usize::from(last)].next;
        }
        self.slots[usize::from(last)].next = self.free;
        self.free = head;
        self.free_count += length;
        self.in_flight -= 1;
        self.reaped = self.reaped.wrapping_add(1);
        Some(Completion {
            cookie,
            written,
            reply,
            payload,
        })
    }

    /// Asks for an interrupt at the next completion; true if there is one already, for which
    /// none may come.
    pub fn arm(&mut self) -> bool {
        if self.is_broken {
            return false;
        }
        if !self.is_armed {
            self.is_armed = true;
            if self.has_event_idx {
                self.set_used_event(self.reaped);
            } else {
                self.set_flags(0);
            }
            // The wish is written before the index is read (VIRTIO 1.2, 2.7.7.2).
            fence(Ordering::SeqCst);
        }
        self.has_completion()
    }

    fn disarm(&mut self) {
        if core::mem::take(&mut self.is_armed) {
            if self.has_event_idx {
                // The index just passed comes again after 65535 completions more.
                self.set_used_event(self.reaped.wrapping_sub(1));
            } else {
                self.set_flags(QUIET);
            }
        }
    }

    fn set_used_event(&self, index: u16) {
        let at = self.available + 4 + 2 * usize::from(self.size);
        self.rings.atomic_u16(at).store(index, Ordering::Relaxed);
    }

    fn set_flags(&self, flags: u16) {
        self.rings
            .atomic_u16(self.available)
            .store(flags, Ordering::Relaxed);
    }
}

impl Drop for VirtQueue {
    fn drop(&mut self) {
        if self.registers.reset() {
            return;
        }
        // The device may go on to use the memory, so it stays allocated.
        core::mem::forget(self.descriptors.clone());
        core::mem::forget(self.rings.clone());
        core::mem::forget(core::mem::take(&mut self.areas));
        core::mem::forget(core::mem::take(&mut self.slots));
    }
}

/// Whether the index `event` lies in what was passed on the way from `old` to `new` (VIRTIO 1.2,
/// 2.7.10.1: `vring_need_event`).
fn is_passed(event: u16, old: u16, new: u16) -> bool {
    new.wrapping_sub(event).wrapping_sub(1) < new.wrapping_sub(old)
}
