//! The driver's side of a split virtqueue (VIRTIO 1.2, 2.7).
//!
//! A request is a header and memory that the device reads, then memory and a reply that it
//! writes, each of which may be missing.
//!
//! The queue owns all memory that the device may touch: the rings, and each request's segments
//! from [`add`](VirtQueue::add) until the device has used them. What the device writes into the
//! used ring is not trusted: nonsense makes the queue broken, for good, and its memory stays
//! allocated until the device has been reset.

mod areas;
mod chain;
mod request;
#[cfg(test)]
mod tests;

pub use areas::SmallParts;
pub use request::{BothWays, Completion, Payload, Reply, ReplyBytes};

use crate::frame::{Frame, OutOfMemory};
use crate::physical::PAGE_SIZE;
use crate::virtio_mmio::{Registers, ring_features};
use alloc::boxed::Box;
use alloc::sync::Arc;
use areas::{Area, Areas};
use chain::{ChainWriter, DESCRIPTOR, INDIRECT, Parts, Written};
use core::sync::atomic::{Ordering, fence};

/// The available ring's flag that asks for no interrupts, and the used ring's that asks for no
/// doorbells.
const QUIET: u16 = 1;

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

/// A descriptor that starts a chain, and what is known of that chain.
#[derive(Debug, Default)]
struct ChainSlot {
    /// The next descriptor of the chain or of the free list.
    next: u16,
    /// Descriptors of the ring in the chain; 0 unless a chain in flight starts here.
    chain: u16,
    cookie: u32,
    reply: Reply,
    /// Bytes that the device may write.
    writable: usize,
    payload: Payload,
    /// A page for long indirect tables, kept once there is one.
    table: Option<Frame>,
}

impl ChainSlot {
    /// Writes the request into a table, and into descriptor `head` of `ring`, which is this
    /// slot's, where the table is.
    fn write_indirect(
        &mut self,
        ring: &Frame,
        head: u16,
        area: Area<'_>,
        parts: &Parts<'_>,
        most: usize,
        limit: usize,
    ) -> Result<Written, AddError> {
        let (table, at) = if most <= area.table_size() {
            (area.frame, area.table_at())
        } else {
            let table = match self.table.take() {
                Some(table) => table,
                None => Frame::uninitialised().map_err(|_| AddError::OutOfMemory)?,
            };
            (&*self.table.insert(table), 0)
        };
        let mut chain = ChainWriter::new(table, at, 0, limit);
        parts.write(|address, length, flags| chain.push(address, length, flags, |this| this + 1));
        let count = chain.finish()?;
        let address = table.address().0 + at as u64;
        let length = (usize::from(count) * DESCRIPTOR) as u32;
        let mut ring = ChainWriter::new(ring, 0, head, 1);
        ring.push(address, length, INDIRECT, |this| this);
        ring.finish()?;
        Ok(Written {
            length: 1,
            next: self.next,
        })
    }
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
    areas: Areas,
    slots: Box<[ChainSlot]>,
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

    /// A queue of `size` descriptors, a power of two up to [`MAX_SIZE`](Self::MAX_SIZE), for
    /// requests whose small parts are no larger than `small`.
    pub(crate) fn new(
        registers: Arc<Registers>,
        index: u32,
        size: u16,
        small: SmallParts,
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
        let slots = (1..=size)
            .map(|next| ChainSlot {
                next,
                ..ChainSlot::default()
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
            areas: Areas::new(size, small)?,
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

    /// Queues a request: `header` and what goes to the device of `payload` for it to read, the
    /// rest and `reply` for it to write. The device may see it at once, but is told only
    /// by [`kick`](Self::kick).
    ///
    /// # Errors
    ///
    /// [`AddError`]; the payload is then given back.
    ///
    /// # Panics
    ///
    /// If `header` or `reply` is longer than the queue was made for, or all is empty.
    pub fn add(
        &mut self,
        cookie: u32,
        header: &[u8],
        payload: Payload,
        reply: Reply,
    ) -> Result<(), (AddError, Payload)> {
        let small = self.areas.limits();
        assert!(header.len() <= small.header && reply.bytes() <= small.reply);
        if self.is_broken {
            return Err((AddError::Broken, payload));
        }
        if self.free_count == 0 {
            return Err((AddError::Full, payload));
        }
        let head = self.free;
        let area = self.areas.area(head);
        area.write_header(header);
        area.clear_reply(reply.bytes());
        let parts = Parts {
            header: (area.address().0, header.len() as u32),
            payload: &payload,
            payload_limit: self.payload_limit,
            reply: (area.reply_address().0, reply),
        };
        let most = parts.most_descriptors();
        assert!(most > 0, "a request of nothing");
        let chain = match self.has_indirect && most > 1 {
            true => {
                // A chain is never longer than the queue, in a table or not (VIRTIO 1.2,
                // 2.7.5.3.1).
                let limit = parts.limit().min(self.size.into());
                let slot = &mut self.slots[usize::from(head)];
                let ring = &self.descriptors;
                slot.write_indirect(ring, head, area, &parts, most, limit)
            }
            false => self.write_direct(head, &parts),
        };
        let chain = match chain {
            Ok(chain) => chain,
            Err(error) => return Err((error, payload)),
        };
        let writable = payload.room() + reply.bytes();
        let slot = &mut self.slots[usize::from(head)];
        slot.chain = chain.length;
        slot.cookie = cookie;
        slot.reply = reply;
        slot.writable = writable;
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
    pub fn reap(&mut self) -> Result<Option<Completion<'_>>, QueueBroken> {
        if self.is_broken {
            return Err(QueueBroken);
        }
        self.disarm();
        let pending = self.used_index().wrapping_sub(self.reaped);
        if pending == 0 {
            return Ok(None);
        }
        let used = match pending <= self.in_flight {
            true => self.take_used(),
            false => None,
        };
        let Some((head, written)) = used else {
            self.is_broken = true;
            return Err(QueueBroken);
        };
        let slot = &mut self.slots[usize::from(head)];
        let payload = core::mem::take(&mut slot.payload);
        let (cookie, place) = (slot.cookie, slot.reply);
        Ok(Some(Completion {
            cookie,
            written,
            payload,
            reply: ReplyBytes {
                queue: self,
                slot: head,
                place,
            },
        }))
    }

    /// Takes the next element of the used ring: the head of a chain, whose descriptors are free
    /// then, and the bytes written; `None` if it makes no sense.
    fn take_used(&mut self) -> Option<(u16, usize)> {
        let at = self.used + 4 + 8 * usize::from(self.reaped % self.size);
        let element = self.rings.atomic_u64(at).load(Ordering::Relaxed);
        let head = u16::try_from(element as u32).ok()?;
        let written = (element >> 32) as usize;
        let slot = self.slots.get_mut(usize::from(head))?;
        if slot.chain == 0 || written > slot.writable {
            return None;
        }
        let length = core::mem::take(&mut slot.chain);
        let mut last = head;
        for _ in 1..length {
            last = self.slots[usize::from(last)].next;
        }
        self.slots[usize::from(last)].next = self.free;
        self.free = head;
        self.free_count += length;
        self.in_flight -= 1;
        self.reaped = self.reaped.wrapping_add(1);
        Some((head, written))
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
        self.areas.leak();
        core::mem::forget(core::mem::take(&mut self.slots));
    }
}

/// Whether the index `event` lies in what was passed on the way from `old` to `new` (VIRTIO 1.2,
/// 2.7.10.1: `vring_need_event`).
fn is_passed(event: u16, old: u16, new: u16) -> bool {
    new.wrapping_sub(event).wrapping_sub(1) < new.wrapping_sub(old)
}
