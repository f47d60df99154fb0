//! `IORING_OP_MSG_RING`: a CQE, or a registered file, for another ring.
//!
//! The other ring is locked while the own one is, so it is only tried: if somebody else has it, the
//! request tries again in its turn.

use super::{Completion, Issue, Prepared, Started};
use crate::error::{Errno, Result};
use crate::fs::OpenFile;
use crate::io_uring::budget::MemoryCharge;
use crate::io_uring::file::ring_of;
use crate::io_uring::memory::Cqe;
use crate::io_uring::ring::{Ring, RingState};
use crate::io_uring::sqe::{RequestFlags, Sqe};
use crate::operation::Actor;
use alloc::sync::Arc;
use core::future::poll_fn;
use core::task::Poll;
use linux_raw_sys::io_uring as raw;
use raw::io_uring_msg_ring_flags as command;

/// A prepared MSG_RING.
#[derive(Clone, Copy)]
pub(in crate::io_uring) struct Message {
    fd: i32,
    command: u64,
    user_data: u64,
    length: u32,
    /// The place in the own table.
    source: u64,
    /// The place in the other's table as an SQE names it, or flags of the CQE.
    target: u32,
    flags: u32,
}

/// What the other ring is given.
enum Delivery {
    Cqe(Cqe),
    File {
        file: Arc<OpenFile>,
        place: u32,
        /// The CQE that tells of it, without its result.
        told: Option<u64>,
    },
}

impl Delivery {
    fn deliver(&self, state: &mut RingState) -> Result<u32> {
        match self {
            Self::Cqe(cqe) => {
                state.post(*cqe);
                Ok(0)
            }
            Self::File { file, place, told } => {
                let place = state.install_file(file.clone(), *place)?;
                if let Some(user_data) = told {
                    state.post(Cqe {
                        user_data: *user_data,
                        result: place as i32,
                        flags: 0,
                    });
                }
                Ok(place)
            }
        }
    }

    /// The same, if nobody else has the ring.
    fn try_deliver(&self, ring: &Ring) -> Option<Result<u32>> {
        let mut state = ring.try_lock()?;
        let result = self.deliver(&mut state);
        state.publish();
        Some(result)
    }
}

impl Message {
    const PASS: u32 = raw::IORING_MSG_RING_FLAGS_PASS;

    fn read(sqe: &Sqe) -> Result<Self> {
        let flags = sqe.op_flags();
        let is_bad = sqe.buffer() != 0
            || sqe.personality() != 0
            || flags & !(raw::IORING_MSG_RING_CQE_SKIP | Self::PASS) != 0;
        if is_bad {
            return Err(Errno::EINVAL);
        }
        Ok(Self {
            fd: sqe.fd(),
            command: sqe.address(),
            user_data: sqe.offset(),
            length: sqe.length(),
            source: sqe.address3(),
            target: sqe.file_index(),
            flags,
        })
    }

    /// The CQE that the ring gets.
    fn data(&self, ring: &Ring) -> Result<Cqe> {
        let passes = self.flags & Self::PASS != 0;
        if self.source as u32 != 0 || self.flags & !Self::PASS != 0 || !passes && self.target != 0 {
            return Err(Errno::EINVAL);
        }
        if ring.is_disabled() {
            return Err(Errno::EBADFD);
        }
        Ok(Cqe {
            user_data: self.user_data,
            result: self.length as i32,
            flags: if passes { self.target } else { 0 },
        })
    }

    fn delivery(&self, state: &RingState, ring: &Ring) -> Result<Delivery> {
        const DATA: u32 = command::IORING_MSG_DATA as u32;
        const FILE: u32 = command::IORING_MSG_SEND_FD as u32;
        match self.command as u32 {
            DATA => self.data(ring).map(Delivery::Cqe),
            FILE => {
                if self.length != 0 || state.is_of(ring) {
                    return Err(Errno::EINVAL);
                }
                if ring.is_disabled() {
                    return Err(Errno::EBADFD);
                }
                let is_silent = self.flags & raw::IORING_MSG_RING_CQE_SKIP != 0;
                Ok(Delivery::File {
                    file: state.resources.file(self.source as i32)?,
                    place: self.target,
                    told: (!is_silent).then_some(self.user_data),
                })
            }
            _ => Err(Errno::EINVAL),
        }
    }

    /// Sends the CQE that an SQE names without a ring of its own (`IORING_REGISTER_SEND_MSG_RING`).
    ///
    /// # Errors
    ///
    /// `EINVAL`, `EBADF`, `EBADFD` if it is for no ring or one that is not enabled.
    pub(in crate::io_uring) fn send(sqe: &Sqe, actor: Actor<'_>) -> Result<()> {
        let is_message = sqe.opcode() == raw::io_uring_op::IORING_OP_MSG_RING as u8;
        if sqe.flags() != 0 || !is_message {
            return Err(Errno::EINVAL);
        }
        let message = Self::read(sqe)?;
        if message.command as u32 != command::IORING_MSG_DATA as u32 {
            return Err(Errno::EINVAL);
        }
        let file = actor.process.files.get(message.fd)?;
        let ring = ring_of(&file).ok_or(Errno::EBADFD)?;
        let cqe = message.data(ring)?;
        let mut state = ring.lock();
        state.post(cqe);
        state.publish();
        Ok(())
    }
}

impl Prepared for Message {
    fn prepare(sqe: &Sqe, _: RequestFlags, _: Actor<'_>) -> Result<Self> {
        Self::read(sqe)
    }

    fn start(self, state: &mut RingState, issue: Issue<'_>) -> Started {
        let file = match state.file(self.fd, issue) {
            Ok(file) => file,
            Err(error) => return error.into(),
        };
        let Some(ring) = ring_of(&file) else {
            return Errno::EBADFD.into();
        };
        let delivery = match self.delivery(state, ring) {
            Ok(delivery) => delivery,
            Err(error) => return error.into(),
        };
        let end = |result: Result<u32>| Completion::of(result.map(|place| place as i32));
        if state.is_of(ring) {
            return end(delivery.deliver(state)).into();
        }
        match delivery.try_deliver(ring) {
            Some(result) => end(result).into(),
            None => {
                let ring = ring.clone();
                issue.spawn(Some(file), MemoryCharge::NONE, |_| {
                    poll_fn(move |context| match delivery.try_deliver(&ring) {
                        Some(result) => Poll::Ready(end(result)),
                        None => {
                            context.waker().wake_by_ref();
                            Poll::Pending
                        }
                    })
                })
            }
        }
    }
}
