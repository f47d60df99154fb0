//! `IORING_OP_PROVIDE_BUFFERS` and `REMOVE_BUFFERS`: the lists that buffers are picked from.

use super::{Completion, Issue, Prepared, Started};
use crate::error::{Errno, Result};
use crate::io_uring::buffer_group::BUFFERS_MAX;
use crate::io_uring::ring::RingState;
use crate::io_uring::sqe::{RequestFlags, Sqe};
use crate::mm::{MAX_COUNT, UserRange};
use crate::operation::Actor;

/// A prepared PROVIDE_BUFFERS.
pub(in crate::io_uring) struct ProvideBuffers {
    group: u16,
    address: u64,
    length: u32,
    first: u16,
    count: u32,
}

impl Prepared for ProvideBuffers {
    fn prepare(sqe: &Sqe, _: RequestFlags, _: Actor<'_>) -> Result<Self> {
        let (address, length) = (sqe.address(), sqe.length());
        let count = match u32::try_from(sqe.fd()) {
            Ok(count @ 1..=BUFFERS_MAX) => count,
            _ => return Err(Errno::E2BIG),
        };
        let all = u64::from(length) * u64::from(count);
        address.checked_add(all).ok_or(Errno::EOVERFLOW)?;
        // That many bytes need not be there, only possible.
        UserRange::new(address, all, usize::MAX)?;
        let first = u16::try_from(sqe.offset()).map_err(|_| Errno::E2BIG)?;
        if u32::from(first) + count > BUFFERS_MAX {
            return Err(Errno::EINVAL);
        }
        Ok(Self {
            group: sqe.buffer(),
            address,
            length: length.min(MAX_COUNT as u32),
            first,
            count,
        })
    }

    fn start(self, state: &mut RingState, _: Issue<'_>) -> Started {
        let place = (self.address, self.length);
        let result = state
            .buffers
            .provide(self.group, place, self.first, self.count);
        Completion::of(result.map(|()| 0)).into()
    }
}

/// A prepared REMOVE_BUFFERS.
pub(in crate::io_uring) struct RemoveBuffers {
    group: u16,
    count: u32,
}

impl Prepared for RemoveBuffers {
    fn prepare(sqe: &Sqe, _: RequestFlags, _: Actor<'_>) -> Result<Self> {
        match u32::try_from(sqe.fd()) {
            Ok(count @ 1..=BUFFERS_MAX) => Ok(Self {
                group: sqe.buffer(),
                count,
            }),
            _ => Err(Errno::EINVAL),
        }
    }

    fn start(self, state: &mut RingState, _: Issue<'_>) -> Started {
        let result = state.buffers.remove(self.group, self.count);
        Completion::of(result.map(|count| count as i32)).into()
    }
}
