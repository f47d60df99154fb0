//! The requests of one queue: with the device, waiting for their turn, or finished.
//!
//! Slots are used again, so that nothing is allocated once as many requests have been under way at a
//! time as ever will be.

use super::{FsReply, FsRequest, Orphan, REPLY_MAX};
use crate::error::{Errno, Result};
use alloc::boxed::Box;
use alloc::collections::VecDeque;
use alloc::vec::Vec;
use core::task::Waker;
use machine::{
    AddError, BothWays, Completion, DmaSegments, Frame, PAGE_SIZE, Payload, QueueBroken, Reply,
    Segment, VirtQueue,
};
use smallvec::SmallVec;

/// Bytes of a request's header (`struct fuse_in_header`) and of a reply's (`struct fuse_out_header`).
pub(super) const IN_HEADER: usize = 40;
pub(super) const OUT_HEADER: usize = 16;
/// Bytes of header and arguments that the queue has room for: the longest name, with more than any
/// request has before it.
pub(super) const HEADER_MAX: usize = 448;
/// Completions that are taken under the lock at a time.
const REAP_AT_ONCE: usize = 16;
/// The largest error that a reply can hold (`fuse_dev_do_write` of Linux).
const LAST_ERROR: i32 = 511;

/// What the device is told: header and arguments as far as they fit, and memory.
struct Command {
    head: SmallVec<[u8; 128]>,
    payload: Payload,
    reply: Reply,
}

/// What a reply must be.
#[derive(Clone, Copy)]
struct Expected {
    unique: u64,
    opcode: u32,
    /// Bytes behind the header, before the data.
    fixed: usize,
    /// There is no reply at all.
    has_none: bool,
}

/// A request that is not finished.
struct Active {
    /// What to tell the device, until it was told.
    command: Option<Command>,
    expected: Expected,
    /// Whether nobody waits for it.
    is_abandoned: bool,
    /// Whether it is to be done though nobody waits for it.
    is_detached: bool,
    waker: Option<Waker>,
}

enum Slot {
    Free,
    Active(Active),
    /// Its ticket has not seen the result.
    Finished(u32, Result<FsReply>),
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

/// What is done when the lock is released.
#[derive(Default)]
pub(super) struct After {
    pub(super) wakers: SmallVec<[Waker; 16]>,
    pub(super) orphans: Vec<Orphan>,
}

/// The requests of one queue.
pub(super) struct Requests {
    queue: VirtQueue,
    slots: Vec<Slot>,
    free: Vec<u32>,
    /// Those that the queue has not taken, in order.
    waiting: VecDeque<u32>,
    unfinished: usize,
    has_failed: bool,
}

/// The bytes in pages of their own, for a device to read.
fn in_frames(bytes: &[u8]) -> Result<DmaSegments> {
    let mut segments = SmallVec::new();
    for part in bytes.chunks(PAGE_SIZE) {
        let frame = Frame::uninitialised()?;
        frame.write(0, part);
        segments.extend(Segment::new(frame, 0, part.len()));
    }
    Ok(DmaSegments::Own(segments))
}

impl Command {
    fn new(request: FsRequest, unique: u64) -> Result<(Self, Expected)> {
        let FsRequest {
            opcode,
            node,
            owner: (user, group),
            arguments,
            to_device,
            from_device,
            reply,
        } = request;
        let data = to_device.as_ref().map_or(0, DmaSegments::total);
        let length = IN_HEADER + arguments.len() + data;
        let mut head: SmallVec<[u8; 128]> = SmallVec::new();
        head.extend_from_slice(&(length as u32).to_le_bytes());
        head.extend_from_slice(&opcode.to_le_bytes());
        head.extend_from_slice(&unique.to_le_bytes());
        head.extend_from_slice(&node.to_le_bytes());
        head.extend_from_slice(&user.to_le_bytes());
        head.extend_from_slice(&group.to_le_bytes());
        // Whose process it is, and how much of it are extensions: of that the server knows nothing.
        head.extend_from_slice(&[0; 8]);
        let to_device = if IN_HEADER + arguments.len() <= HEADER_MAX {
            head.extend_from_slice(&arguments);
            to_device
        } else if data == 0 {
            Some(in_frames(&arguments)?)
        } else {
            return Err(Errno::E2BIG);
        };
        let payload = match (to_device, from_device) {
            (None, None) => Payload::Nothing,
            (Some(to_device), None) => Payload::ToDevice(to_device),
            (None, Some(from_device)) => Payload::FromDevice(from_device),
            (Some(to_device), Some(from_device)) => Payload::Both(Box::new(BothWays {
                to_device,
                from_device,
            })),
        };
        let expected = Expected {
            unique,
            opcode,
            fixed: reply.unwrap_or(0).into(),
            has_none: reply.is_none(),
        };
        let reply = match reply {
            Some(fixed) => Reply::first(OUT_HEADER as u16 + fixed),
            None => Reply::NONE,
        };
        Ok((
            Self {
                head,
                payload,
                reply,
            },
            expected,
        ))
    }
}

/// What a reply says, if it is one to what was asked.
///
/// # Errors
///
/// What the server gives; `EIO` for what makes no sense.
fn read_reply(completion: Completion<'_>, expected: Expected) -> Result<FsReply> {
    let mut fixed = SmallVec::new();
    if expected.has_none {
        return Ok(FsReply {
            fixed,
            data: None,
            length: 0,
        });
    }
    let header: [u8; OUT_HEADER] = completion.reply.array();
    let word = |at: usize| {
        let mut word = [0; 4];
        word.copy_from_slice(&header[at..at + 4]);
        u32::from_le_bytes(word)
    };
    let length = word(0) as usize;
    let error = word(4) as i32;
    let unique = u64::from(word(8)) | u64::from(word(12)) << 32;
    if unique != expected.unique || length != completion.written || length < OUT_HEADER {
        return Err(Errno::EIO);
    }
    if error != 0 {
        let is_error = (-LAST_ERROR..0).contains(&error) && length == OUT_HEADER;
        return Err(match is_error {
            true => Errno::from_number(error.unsigned_abs() as u16),
            false => Errno::EIO,
        });
    }
    if length < OUT_HEADER + expected.fixed {
        return Err(Errno::EIO);
    }
    fixed.resize(expected.fixed, 0);
    completion.reply.read(OUT_HEADER, &mut fixed);
    let data = match completion.payload {
        Payload::FromDevice(segments) => Some(segments),
        Payload::Both(both) => Some(both.from_device),
        Payload::Nothing | Payload::ToDevice(_) => None,
    };
    Ok(FsReply {
        fixed,
        data,
        length: length - OUT_HEADER - expected.fixed,
    })
}

impl Requests {
    pub(super) fn new(queue: VirtQueue) -> Self {
        const { assert!(REPLY_MAX >= OUT_HEADER) };
        Self {
            queue,
            slots: Vec::new(),
            free: Vec::new(),
            waiting: VecDeque::new(),
            unfinished: 0,
            has_failed: false,
        }
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
    ///
    /// # Errors
    ///
    /// `EIO` if the device has failed, `ENOMEM`.
    pub(super) fn submit(
        &mut self,
        request: FsRequest,
        unique: u64,
        is_detached: bool,
    ) -> Result<u32> {
        if self.has_failed {
            return Err(Errno::EIO);
        }
        let (command, expected) = Command::new(request, unique)?;
        let slot = Slot::Active(Active {
            command: Some(command),
            expected,
            is_abandoned: is_detached,
            is_detached,
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
        if !self.waiting.is_empty() || !self.issue(index, &mut After::default()) {
            self.waiting.push_back(index);
        }
        Ok(index)
    }

    /// Gives the device a request; false if the queue is full. One that the device cannot be given is
    /// finished.
    fn issue(&mut self, index: u32, after: &mut After) -> bool {
        let Slot::Active(active) = &mut self.slots[index as usize] else {
            return true;
        };
        let Some(Command {
            head,
            payload,
            reply,
        }) = active.command.take()
        else {
            return true;
        };
        let (error, payload) = match self.queue.add(index, &head, payload, reply) {
            Ok(()) => return true,
            Err(refused) => refused,
        };
        let error = match error {
            AddError::Full => None,
            // What is in flight gives back a descriptor that has its table already.
            AddError::OutOfMemory if self.queue.in_flight() > 0 => None,
            AddError::OutOfMemory => Some(Errno::ENOMEM),
            AddError::TooManySegments => Some(Errno::EINVAL),
            AddError::Broken => Some(Errno::EIO),
        };
        match error {
            Some(error) => self.finish(index, Err(error), after),
            None => {
                active.command = Some(Command {
                    head,
                    payload,
                    reply,
                });
            }
        }
        error.is_some()
    }

    /// Takes some of what the device has completed, and gives the device what waits for room.
    pub(super) fn reap(&mut self, after: &mut After) -> Result<Reaped, QueueBroken> {
        let mut count = 0;
        while count < REAP_AT_ONCE
            && !self.has_failed
            && let Some(completion) = self.queue.reap()?
        {
            let index = completion.cookie;
            let reply = match &self.slots[index as usize] {
                Slot::Active(active) => read_reply(completion, active.expected),
                _ => continue,
            };
            self.finish(index, reply, after);
            count += 1;
        }
        while let Some(index) = self.waiting.front().copied()
            && self.issue(index, after)
        {
            self.waiting.pop_front();
        }
        Ok(match count {
            0 => Reaped::Nothing,
            REAP_AT_ONCE => Reaped::Some,
            _ => Reaped::All,
        })
    }

    fn finish(&mut self, index: u32, reply: Result<FsReply>, after: &mut After) {
        let slot = &mut self.slots[index as usize];
        let Slot::Active(active) = core::mem::replace(slot, Slot::Free) else {
            return;
        };
        self.unfinished -= 1;
        let opcode = active.expected.opcode;
        if active.is_abandoned {
            self.free.push(index);
            after.adopt(opcode, reply);
            return;
        }
        *slot = Slot::Finished(opcode, reply);
        after.wakers.extend(active.waker);
    }

    /// Finishes all requests with `EIO`, now and from now on.
    pub(super) fn fail(&mut self, after: &mut After) {
        self.has_failed = true;
        self.waiting.clear();
        for index in 0..self.slots.len() as u32 {
            self.finish(index, Err(Errno::EIO), after);
        }
    }

    /// The reply to a request, which is then forgotten; `waker` is woken when there is one.
    pub(super) fn poll(&mut self, index: u32, waker: &Waker) -> Option<Result<FsReply>> {
        let slot = &mut self.slots[index as usize];
        if let Slot::Active(active) = slot {
            match &mut active.waker {
                Some(known) => known.clone_from(waker),
                none => *none = Some(waker.clone()),
            }
            return None;
        }
        match core::mem::replace(slot, Slot::Free) {
            Slot::Finished(_, reply) => {
                self.free.push(index);
                Some(reply)
            }
            _ => Some(Err(Errno::EIO)),
        }
    }

    /// Nobody waits for a request any longer. What the device does not know of is not done.
    pub(super) fn abandon(&mut self, index: u32, after: &mut After) {
        let slot = &mut self.slots[index as usize];
        match slot {
            Slot::Active(active) => {
                active.is_abandoned = true;
                active.waker = None;
                if active.command.is_some() && !active.is_detached {
                    self.waiting.retain(|waiting| *waiting != index);
                    self.finish(index, Err(Errno::ECANCELED), after);
                }
            }
            Slot::Finished(..) => {
                if let Slot::Finished(opcode, reply) = core::mem::replace(slot, Slot::Free) {
                    after.adopt(opcode, reply);
                }
                self.free.push(index);
            }
            Slot::Free => {}
        }
    }
}

impl After {
    fn adopt(&mut self, opcode: u32, reply: Result<FsReply>) {
        if let Ok(reply) = reply {
            self.orphans.push(Orphan { opcode, reply });
        }
    }
}
