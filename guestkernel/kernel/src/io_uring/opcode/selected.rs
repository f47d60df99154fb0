//! Reads into provided buffers (`IOSQE_BUFFER_SELECT`, `IORING_OP_READ_MULTISHOT`): the buffer is
//! picked when there is something to be read.

use super::{Completion, Issue, Prepared, Progress, Started, Step, Work};
use crate::error::{Errno, Result};
use crate::fs::{OpenFile, Readiness};
use crate::io::Direction;
use crate::io_uring::buffer_group::{BufferGroups, Selected};
use crate::io_uring::ring::RingState;
use crate::io_uring::sqe::{RequestFlags, Sqe};
use crate::mm::{AddressSpace, IoBuffer};
use crate::operation::{Actor, Position, Transfer};
use alloc::boxed::Box;
use alloc::sync::Arc;
use core::task::{Context, Poll};
use linux_raw_sys::general::RWF_NOWAIT;

/// A read that has no buffer of its own.
#[derive(Clone, Copy, Debug)]
pub(in crate::io_uring) struct SelectedRead {
    pub(super) group: u16,
    /// Bytes that are wanted; 0 for as many as the buffer has.
    pub(super) length: u32,
    pub(super) position: Position,
    /// `RWF_*`.
    pub(super) flags: u32,
    /// It goes on after the first time.
    pub(super) is_repeated: bool,
}

/// How a request ends that has picked a buffer: what comes from a list is gone with it.
fn failure(groups: &mut BufferGroups, selected: &Selected, error: Errno) -> Completion {
    let mut completion = Completion::failure(error);
    if selected.is_listed() {
        completion.flags = groups.commit(selected, 0);
    } else {
        groups.give_back(selected);
    }
    completion
}

impl SelectedRead {
    fn transfer(
        &self,
        file: &OpenFile,
        space: &Arc<AddressSpace>,
        selected: &Selected,
    ) -> Result<Transfer> {
        let buffer = IoBuffer::user(space.clone(), selected.address, selected.length as usize);
        let transfer = Transfer::new(file, Direction::Read, buffer, self.position, self.flags)?;
        match transfer.is_polled() {
            true => Err(Errno::EINVAL),
            false => Ok(transfer),
        }
    }

    /// Starts it.
    pub(super) fn start(
        self,
        file: Arc<OpenFile>,
        state: &mut RingState,
        issue: Issue<'_>,
    ) -> Started {
        let space = issue.actor.space().clone();
        if !file.ops.is_seekable() {
            return Started::Pending(Work::selecting(file, Selecting::new(self, space)));
        }
        // Nobody waits for a file with positions: the buffer is used up at once.
        let selected = match state.buffers.select(self.group, self.length) {
            Ok(selected) => selected,
            Err(error) => return error.into(),
        };
        let flags = state.buffers.commit(&selected, selected.length);
        match self.transfer(&file, &space, &selected) {
            Ok(transfer) => Started::Pending(Work::selected(file, transfer, flags)),
            Err(error) => Started::Done(Completion {
                flags,
                ..Completion::failure(error)
            }),
        }
    }
}

/// A read that waits for something to be read.
pub(in crate::io_uring) struct Selecting {
    read: SelectedRead,
    space: Arc<AddressSpace>,
    /// A buffer of a list, which it keeps while it waits.
    kept: Option<Selected>,
    /// It has a buffer, some page of which takes time.
    current: Option<Box<(Selected, Transfer)>>,
}

impl Selecting {
    fn new(read: SelectedRead, space: Arc<AddressSpace>) -> Self {
        Self {
            read,
            space,
            kept: None,
            current: None,
        }
    }

    pub(super) fn poll(
        &mut self,
        file: &OpenFile,
        groups: &mut BufferGroups,
        context: &mut Context<'_>,
    ) -> Progress {
        let (selected, mut transfer) = match self.current.take() {
            Some(current) => *current,
            None => {
                // As on Linux, there must be a buffer although nothing can be read yet.
                let selected = match self.kept.take() {
                    Some(kept) => Ok(kept),
                    None => groups.select(self.read.group, self.read.length),
                };
                let selected = match selected {
                    Ok(selected) => selected,
                    Err(error) => return Poll::Ready(Completion::failure(error).into()),
                };
                let mut transfer = match self.read.transfer(file, &self.space, &selected) {
                    Ok(transfer) => transfer,
                    Err(error) => return Poll::Ready(failure(groups, &selected, error).into()),
                };
                let wanted = Readiness::READABLE;
                let ready = file.ops.poll_ready(wanted, context);
                if !ready.intersects(wanted | Readiness::ALWAYS) {
                    return self.wait(groups, selected);
                }
                transfer.do_not_wait();
                (selected, transfer)
            }
        };
        match transfer.poll(file, context) {
            Poll::Pending => {
                self.current = Some(Box::new((selected, transfer)));
                Poll::Pending
            }
            Poll::Ready(Err(Errno::EAGAIN)) => self.wait(groups, selected),
            Poll::Ready(Err(error)) => Poll::Ready(failure(groups, &selected, error).into()),
            Poll::Ready(Ok(0)) if self.read.is_repeated => {
                groups.give_back(&selected);
                Poll::Ready(Completion::success(0).into())
            }
            Poll::Ready(Ok(count)) => Poll::Ready(Step {
                completion: Completion {
                    result: count as i32,
                    flags: groups.commit(&selected, count as u32),
                    is_failure: count as u32 != selected.length && !self.read.is_repeated,
                },
                has_more: self.read.is_repeated,
            }),
        }
    }

    /// There is nothing to be read: a buffer of a list is kept, unless others may be read into
    /// meanwhile.
    fn wait(&mut self, groups: &mut BufferGroups, selected: Selected) -> Progress {
        if self.read.flags & RWF_NOWAIT != 0 {
            return Poll::Ready(failure(groups, &selected, Errno::EAGAIN).into());
        }
        match self.read.is_repeated {
            true => groups.give_back(&selected),
            false => self.kept = selected.is_listed().then_some(selected),
        }
        Poll::Pending
    }
}

/// A prepared READ_MULTISHOT.
pub(in crate::io_uring) struct ReadMultishot {
    fd: i32,
    read: SelectedRead,
}

impl Prepared for ReadMultishot {
    fn prepare(sqe: &Sqe, flags: RequestFlags, _: Actor<'_>) -> Result<Self> {
        if !flags.contains(RequestFlags::BUFFER_SELECT) {
            return Err(Errno::EINVAL);
        }
        Ok(Self {
            fd: sqe.fd(),
            read: SelectedRead {
                group: sqe.buffer(),
                length: 0,
                position: Position::of_sqe(sqe.offset()),
                flags: sqe.op_flags(),
                is_repeated: true,
            },
        })
    }

    fn start(self, state: &mut RingState, issue: Issue<'_>) -> Started {
        match state.file(self.fd, issue) {
            Err(error) => error.into(),
            // Only what can be waited for can be read again and again.
            Ok(file) if file.ops.is_seekable() => Errno::EBADFD.into(),
            Ok(file) => self.read.start(file, state, issue),
        }
    }
}
