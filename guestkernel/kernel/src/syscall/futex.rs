//! `futex(2)`: decoding for [`process::futex`](crate::process::futex).

use super::Args;
use super::time::{deadline_after, deadline_at_realtime, read_timespec};
use crate::error::{Errno, Result};
use crate::executor::sleep_until;
use crate::process::{Thread, futex};
use core::future::{Future, poll_fn};
use core::pin::{Pin, pin};
use core::task::Poll;
use linux_raw_sys::general as raw;

const COMMAND: u32 = !(raw::FUTEX_PRIVATE_FLAG | raw::FUTEX_CLOCK_REALTIME);

pub(super) async fn futex(thread: &mut Thread, args: Args) -> Result<u64> {
    let [address, operation, value, time, other, bits] = args.0;
    let (operation, value, bits) = (operation as u32, value as u32, bits as u32);
    let is_private = operation & raw::FUTEX_PRIVATE_FLAG != 0;
    let is_realtime = operation & raw::FUTEX_CLOCK_REALTIME != 0;
    let space = thread.process.space.clone();
    match operation & COMMAND {
        raw::FUTEX_WAIT if is_realtime => Err(Errno::ENOSYS),
        command @ (raw::FUTEX_WAIT | raw::FUTEX_WAIT_BITSET) => {
            let is_absolute = command == raw::FUTEX_WAIT_BITSET;
            let deadline = match time {
                0 => None,
                at => {
                    let time = read_timespec(&space, at)?;
                    Some(match (is_absolute, is_realtime) {
                        (false, _) => deadline_after(time),
                        (true, false) => time,
                        (true, true) => deadline_at_realtime(time),
                    })
                }
            };
            let bits = if is_absolute { bits } else { futex::ALL_BITS };
            let wait = futex::wait(&space, address, is_private, value, bits);
            let wait = until_deadline(wait, deadline);
            thread.process.until_signal(wait).await??;
            Ok(0)
        }
        command @ (raw::FUTEX_WAKE | raw::FUTEX_WAKE_BITSET) if !is_realtime => {
            let bits = match command {
                raw::FUTEX_WAKE => futex::ALL_BITS,
                _ => bits,
            };
            // Linux wakes one even if none is asked for.
            let count = (value as i32).max(1) as u32;
            futex::wake(&space, address, is_private, count, bits).map(u64::from)
        }
        command @ (raw::FUTEX_REQUEUE | raw::FUTEX_CMP_REQUEUE) if !is_realtime => {
            let move_count = time as u32;
            if (value | move_count) as i32 == i32::MIN || (value as i32) < 0 {
                return Err(Errno::EINVAL);
            }
            let expected = (command == raw::FUTEX_CMP_REQUEUE).then_some(bits);
            let counts = (value, move_count);
            let (woken, moved) =
                futex::requeue(&space, (address, other), is_private, counts, expected)?;
            Ok(u64::from(woken + moved))
        }
        _ => Err(Errno::ENOSYS),
    }
}

/// Waits for `future` until `deadline`, in monotonic time.
async fn until_deadline(
    future: impl Future<Output = Result<()>>,
    deadline: Option<u64>,
) -> Result<()> {
    let mut future = pin!(future);
    let mut timeout = deadline.map(sleep_until);
    poll_fn(|context| {
        if let Poll::Ready(result) = future.as_mut().poll(context) {
            return Poll::Ready(result);
        }
        match &mut timeout {
            Some(sleep) => Pin::new(sleep)
                .poll(context)
                .map(|()| Err(Errno::ETIMEDOUT)),
            None => Poll::Pending,
        }
    })
    .await
}
