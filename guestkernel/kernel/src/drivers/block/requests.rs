//! The requests of a block device: with the device, waiting for their turn, or finished.
//!
//! Slots are used again, so that nothing is allocated once as many requests have been under way
//! at a time as ever will be.

use super::{SECTOR, Wakers};
use crate::error::{Errno, Result};
use alloc::collections::VecDeque;
use alloc::vec::Vec;
use core::task::Waker;
use machine::{AddError, DmaSegments, Payload, QueueBroken, Reply, VirtQueue};
use ringlet_abi::block::{STATUS_FBIG, STATUS_NOSPC};
use virtio_spec::blk;

/// Bytes of a command's header (VIRTIO 1.2, 5.2.6: `struct virtio_blk_req`).
const HEADER: usize = 16;
/// The status byte that ends it.
const STATUS: Reply = Reply::last(1);
/// Completions that are taken under the lock at a time.
const REAP_AT_ONCE: usize = 16;

/// What the device is told.
pub(super) struct Command {
    pub(super) kind: blk::T,
    pub(super) sector: u64,
    pub(super) payload: Payload,
}

impl Command {
    /// The header of the part that starts `offset` bytes into the command.
    fn header(&self, offset: usize) -> [u8; HEADER] {
        let sector = self.sector + offset as u64 / SECTOR;
        let mut header = [0; HEADER];
        header[..4].copy_from_slice(&u32::from(self.kind).to_le_bytes());
        header[8..].copy_from_slice(&sector.to_le_bytes());
        header
    }

    /// The bytes that are read or written.
    fn bytes(&self) -> usize {
        match self.kind {
            blk::T::In | blk::T::Out => self.payload.total(),
            _ => 0,
        }
    }

    /// The longest part from byte `from` on that has at most `most` pieces and is made of whole
    /// blocks; `None` if there is none.
    fn part(&self, from: usize, most: usize, block: usize) -> Option<Payload> {
        let length = |segments: &DmaSegments| {
            let (mut at, mut end, mut runs) = (0, from, 0);
            segments.for_each_run(|_, length| {
                at += length as usize;
                if at > from && runs < most {
                    runs += 1;
                    end = at;
                }
            });
            let length = end - from;
            Some(length - length % block).filter(|length| *length > 0)
        };
        match &self.payload {
            // A disk is told what to do by its header alone.
            Payload::Nothing | Payload::Both(_) => None,
            Payload::ToDevice(all) => Some(Payload::ToDevice(all.part(from, length(all)?))),
            Payload::FromDevice(all) => Some(Payload::FromDevice(all.part(from, length(all)?))),
        }
    }
}

/// A request that is not finished.
struct Active {
    /// What to do. The queue has the payload once it was issued, unless it is split.
    command: Command,
    /// The bytes of the whole request.
    bytes: usize,
    /// How far it has come, if it has more pieces than a command can have.
    split: Option<Split>,
    /// Commands that the device works on.
    parts: usize,
    /// Whether it stands in the line for the queue.
    is_waiting: bool,
    /// Whether nobody waits for it.
    is_abandoned: bool,
    /// The first error; nothing more is issued after that.
    error: Option<Errno>,
    waker: Option<Waker>,
}

/// A request that takes several commands.
struct Split {
    /// Bytes issued so far.
    issued: usize,
    /// The most pieces of memory in a command: such that all have about as many.
    pieces: usize,
}

impl Split {
    fn new(payload: &Payload, most: usize) -> Self {
        let mut pieces = 0_usize;
        if let Payload::ToDevice(segments) | Payload::FromDevice(segments) = payload {
            segments.for_each_run(|_, _| pieces += 1);
        }
        let commands = pieces.div_ceil(most).max(1);
        Self {
            issued: 0,
            pieces: pieces.div_ceil(commands),
        }
    }
}

/// How far a request could be given to the device.
enum Issued {
    /// All of it, or as much as makes sense.
    Completely,
    /// The queue is full.
    InPart,
}

impl Active {
    /// Gives the device as much as the queue takes.
    fn issue(&mut self, queue: &mut VirtQueue, index: u32, block: usize) -> Result<Issued> {
        if self.error.is_some() {
            return Ok(Issued::Completely);
        }
        let split = if let Some(split) = &mut self.split {
            split
        } else {
            let payload = core::mem::take(&mut self.command.payload);
            match queue.add(index, &self.command.header(0), payload, STATUS) {
                Ok(()) => {
                    self.parts += 1;
                    return Ok(Issued::Completely);
                }
                Err((error, payload)) => {
                    self.command.payload = payload;
                    if error != AddError::TooManySegments {
                        return refused(queue, error);
                    }
                    let split = Split::new(&self.command.payload, queue.payload_limit());
                    self.split.insert(split)
                }
            }
        };
        while split.issued < self.bytes {
            let part = self.command.part(split.issued, split.pieces, block);
            let part = part.ok_or(Errno::EINVAL)?;
            let length = part.total();
            match queue.add(index, &self.command.header(split.issued), part, STATUS) {
                Ok(()) => {
                    self.parts += 1;
                    split.issued += length;
                }
                Err((error, _)) => return refused(queue, error),
            }
        }
        Ok(Issued::Completely)
    }
}

/// What it means that a command was not added to the queue.
fn refused(queue: &VirtQueue, error: AddError) -> Result<Issued> {
    match error {
        AddError::Full => Ok(Issued::InPart),
        // What is in flight gives back a descriptor that has its table already.
        AddError::OutOfMemory if queue.in_flight() > 0 => Ok(Issued::InPart),
        AddError::OutOfMemory => Err(Errno::ENOMEM),
        AddError::TooManySegments => Err(Errno::EINVAL),
        AddError::Broken => Err(Errno::EIO),
    }
}

/// The error that a status byte stands for (VIRTIO 1.2, 5.2.6).
fn error_of(status: u8) -> Option<Errno> {
    match status {
        STATUS_NOSPC => Some(Errno::ENOSPC),
        STATUS_FBIG => Some(Errno::EFBIG),
        status => match blk::S::try_from(status) {
            Ok(blk::S::Ok) => None,
            Ok(blk::S::Unsupp) => Some(Errno::EOPNOTSUPP),
            _ => Some(Errno::EIO),
        },
    }
}

enum RequestSlot {
    Free,
    Active(Active),
    /// Its ticket has not seen the result.
    Finished(Result<usize>),
}

/// How much there was to reap.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Reaped {
    /// Nothing.
    Nothing,
    /// Something, and there may be more.
    Some,
    /// Something, and no more.
    All,
}

/// The requests of a block device.
pub(super) struct Requests {
    queue: VirtQueue,
    block_size: usize,
    slots: Vec<RequestSlot>,
    free: Vec<u32>,
    /// Those that the queue has not taken completely, in order.
    waiting: VecDeque<u32>,
    unfinished: usize,
    has_failed: bool,
}

impl Requests {
    pub(super) fn new(queue: VirtQueue, block_size: u32) -> Self {
        let capacity = usize::from(queue.size());
        Self {
            queue,
            block_size: block_size as usize,
            slots: Vec::with_capacity(capacity),
            free: Vec::with_capacity(capacity),
            waiting: VecDeque::with_capacity(capacity),
            unfinished: 0,
            has_failed: false,
        }
    }

    /// Slots there are, the free ones included.
    #[cfg(test)]
    pub(super) fn slots(&self) -> usize {
        self.slots.len()
    }

    /// Requests that are not finished.
    pub(super) fn unfinished(&self) -> usize {
        self.unfinished
    }

    /// Whether the device may not know of all that was added.
    pub(super) fn needs_kick(&self) -> bool {
        self.queue.needs_kick()
    }

    /// Tells the device.
    pub(super) fn kick(&mut self) {
        self.queue.kick();
    }

    /// See [`VirtQueue::arm`].
    pub(super) fn arm(&mut self) -> bool {
        self.queue.arm()
    }

    /// Takes up a request; its number.
    pub(super) fn submit(&mut self, command: Command) -> u32 {
        let slot = RequestSlot::Active(Active {
            bytes: command.bytes(),
            command,
            split: None,
            parts: 0,
            is_waiting: false,
            is_abandoned: false,
            error: self.has_failed.then_some(Errno::EIO),
            waker: None,
        });
        let index = match self.free.pop() {
            Some(index) => {
                self.slots[index as usize] = slot;
                index
            }
            None => {
                self.slots.push(slot);
                self.slots.len() as u32 - 1
            }
        };
        self.unfinished += 1;
        if !self.waiting.is_empty() || !self.issue(index, &mut Wakers::new()) {
            if let RequestSlot::Active(active) = &mut self.slots[index as usize] {
                active.is_waiting = true;
            }
            self.waiting.push_back(index);
        }
        index
    }

    /// Gives the device what the queue takes of a request; false if that is not all. A request
    /// of which nothing can be given to the device is finished.
    fn issue(&mut self, index: u32, wakers: &mut Wakers) -> bool {
        let RequestSlot::Active(active) = &mut self.slots[index as usize] else {
            return true;
        };
        match active.issue(&mut self.queue, index, self.block_size) {
            Ok(Issued::Completely) => {}
            Ok(Issued::InPart) => return false,
            Err(error) => active.error = Some(error),
        }
        active.is_waiting = false;
        if active.parts == 0 {
            self.finish(index, wakers);
        }
        true
    }

    /// Takes some of what the device has completed, and gives the device what waits for room.
    pub(super) fn reap(&mut self, wakers: &mut Wakers) -> Result<Reaped, QueueBroken> {
        let mut count = 0;
        while count < REAP_AT_ONCE
            && !self.has_failed
            && let Some(completion) = self.queue.reap()?
        {
            let (index, [status]) = (completion.cookie, completion.reply.array());
            drop(completion);
            self.complete(index, status, wakers);
            count += 1;
        }
        while let Some(index) = self.waiting.front().copied()
            && self.issue(index, wakers)
        {
            self.waiting.pop_front();
        }
        Ok(match count {
            0 => Reaped::Nothing,
            REAP_AT_ONCE => Reaped::Some,
            _ => Reaped::All,
        })
    }

    fn complete(&mut self, index: u32, status: u8, wakers: &mut Wakers) {
        let RequestSlot::Active(active) = &mut self.slots[index as usize] else {
            return;
        };
        active.parts -= 1;
        active.error = active.error.or(error_of(status));
        if active.parts == 0 && !active.is_waiting {
            self.finish(index, wakers);
        }
    }

    fn finish(&mut self, index: u32, wakers: &mut Wakers) {
        let slot = &mut self.slots[index as usize];
        let RequestSlot::Active(active) = core::mem::replace(slot, RequestSlot::Free) else {
            return;
        };
        self.unfinished -= 1;
        if active.is_abandoned {
            self.free.push(index);
            return;
        }
        *slot = RequestSlot::Finished(active.error.map_or(Ok(active.bytes), Err));
        wakers.extend(active.waker);
    }

    /// Finishes all requests with `EIO`, now and from now on.
    pub(super) fn fail(&mut self, wakers: &mut Wakers) {
        self.has_failed = true;
        self.waiting.clear();
        for index in 0..self.slots.len() {
            if let RequestSlot::Active(active) = &mut self.slots[index] {
                active.error = Some(Errno::EIO);
                self.finish(index as u32, wakers);
            }
        }
    }

    /// The result of a request, which is then forgotten; `waker` is woken when there is one.
    pub(super) fn poll(&mut self, index: u32, waker: &Waker) -> Option<Result<usize>> {
        let slot = &mut self.slots[index as usize];
        match slot {
            RequestSlot::Active(active) => {
                match &mut active.waker {
                    Some(known) => known.clone_from(waker),
                    none => *none = Some(waker.clone()),
                }
                None
            }
            RequestSlot::Finished(result) => {
                let result = *result;
                *slot = RequestSlot::Free;
                self.free.push(index);
                Some(result)
            }
            RequestSlot::Free => Some(Err(Errno::EIO)),
        }
    }

    /// Nobody waits for a request any longer. What the device does not know of is not done.
    pub(super) fn abandon(&mut self, index: u32) {
        let slot = &mut self.slots[index as usize];
        match slot {
            RequestSlot::Active(active) => {
                active.is_abandoned = true;
                active.waker = None;
                if active.is_waiting {
                    active.error = Some(Errno::ECANCELED);
                    if active.parts == 0 {
                        self.waiting.retain(|waiting| *waiting != index);
                        self.finish(index, &mut Wakers::new());
                    }
                }
            }
            RequestSlot::Finished(_) => {
                *slot = RequestSlot::Free;
                self.free.push(index);
            }
            RequestSlot::Free => {}
        }
    }
}
