//! `IORING_REGISTER_SYNC_CANCEL`: ending requests, and waiting for those that cannot be ended.

use crate::error::{Errno, Result};
use crate::executor::sleep_until;
use crate::io_uring::opcode::Cancel;
use crate::io_uring::ring::Ring;
use crate::operation::Actor;
use core::future::{Future, poll_fn};
use core::pin::pin;
use core::task::Poll;

use linux_raw_sys::io_uring as raw;
use machine::clock;

/// Ends the requests that the argument describes.
///
/// # Errors
///
/// Those of io_uring_register(2); `ETIME` if some are still not at their end then.
pub(super) async fn cancel_waiting(actor: Actor<'_>, ring: &Ring, argument: u64) -> Result<u32> {
    let request: raw::io_uring_sync_cancel_reg = actor.space().read_value(argument)?;
    if request.pad != [0; 7] || request.pad2 != [0; 3] {
        return Err(Errno::EINVAL);
    }
    let cancel = Cancel::new(
        request.flags,
        request.addr,
        request.fd,
        request.opcode.into(),
    )?;
    let try_once = || {
        let mut state = ring.lock();
        let result = state.cancel_for(&cancel, Actor::submitter(actor.process, actor.tid));
        state.settle();
        result
    };
    match try_once() {
        Err(Errno::EALREADY) => {}
        result => return result.map(|count| count as u32),
    }
    let deadline = end(&request.timeout);
    let mut alarm = pin!(sleep_until(deadline));
    let waiting = poll_fn(|context| {
        ring.ready().add_waiter(context.waker());
        match try_once() {
            Err(Errno::EALREADY) => alarm.as_mut().poll(context).map(|()| Err(Errno::ETIME)),
            Err(Errno::ENOENT) | Ok(_) => Poll::Ready(Ok(0)),
            Err(error) => Poll::Ready(Err(error)),
        }
    });
    let result = actor.until_signal(waiting).await;
    result.unwrap_or(Err(Errno::EINTR))
}

/// The end of the time on the monotonic clock; -1 for no end.
fn end(time: &raw::__kernel_timespec) -> u64 {
    if time.tv_sec == -1 && time.tv_nsec == -1 {
        return u64::MAX;
    }
    let total = i128::from(time.tv_sec) * 1_000_000_000 + i128::from(time.tv_nsec);
    let span = u64::try_from(total.max(0)).unwrap_or(u64::MAX);
    clock::monotonic().saturating_add(span)
}
