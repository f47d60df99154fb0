//! `futex(2)`: decoding for [`process::futex`](crate::process::futex).

use super::time::{deadline_after, deadline_at_realtime, read_timespec};
use super::{Args, Dispatched};
use crate::error::{Errno, Result};
use crate::executor::sleep_until;
use crate::process::futex::{ALL_BITS, Futex, Operation};
use crate::process::{Restart, Thread};
use core::future::{Future, poll_fn};
use core::pin::Pin;
use core::task::Poll;
use linux_raw_sys::general as raw;

const COMMAND: u32 = !(raw::FUTEX_PRIVATE_FLAG | raw::FUTEX_CLOCK_REALTIME);

/// The arguments of any command; what they mean depends on that.
#[derive(Clone, Copy)]
struct Call {
    command: u32,
    address: u64,
    value: u32,
    /// A time's address, or a second count.
    time: u64,
    other: u64,
    /// Bits, an expected value, or an operation.
    third: u32,
    is_private: bool,
    is_realtime: bool,
}

impl Call {
    fn new(args: Args) -> Self {
        let operation = args.uint(1);
        Self {
            command: operation & COMMAND,
            address: args.get(0),
            value: args.uint(2),
            time: args.get(3),
            other: args.get(4),
            third: args.uint(5),
            is_private: operation & raw::FUTEX_PRIVATE_FLAG != 0,
            is_realtime: operation & raw::FUTEX_CLOCK_REALTIME != 0,
        }
    }
}

/// `futex(2)`, unless it is a command that waits.
pub(super) fn futex_now(thread: &mut Thread, args: Args) -> Dispatched {
    let call = Call::new(args);
    match call.command {
        raw::FUTEX_WAIT | raw::FUTEX_WAIT_BITSET => Dispatched::Waits,
        _ if call.is_realtime => Dispatched::Done(Err(Errno::ENOSYS)),
        _ => Dispatched::Done(change(thread, call).map(u64::from)),
    }
}

/// `futex(2)` with a command that waits.
pub(super) async fn futex(thread: &mut Thread, args: Args) -> Result<u64> {
    let call = Call::new(args);
    let space = &thread.process.space;
    let is_absolute = call.command == raw::FUTEX_WAIT_BITSET;
    let deadline = match call.time {
        0 => None,
        at => {
            let time = read_timespec(space, at)?;
            Some(match (is_absolute, call.is_realtime) {
                (false, _) => deadline_after(time),
                (true, false) => time,
                (true, true) => deadline_at_realtime(time),
            })
        }
    };
    if call.is_realtime && !is_absolute {
        return Err(Errno::ENOSYS);
    }
    let bits = if is_absolute { call.third } else { ALL_BITS };
    let value = (call.value, bits);
    let result = wait(thread, (call.address, call.is_private), value, deadline).await;
    match (result, deadline) {
        (Err(Errno::ERESTARTSYS), Some(deadline)) => {
            thread.restart = Some(Restart::Futex {
                address: call.address,
                value,
                is_private: call.is_private,
                deadline,
            });
            Err(Errno::ERESTART_RESTARTBLOCK)
        }
        (result, _) => result,
    }
}

/// Waits at a word that holds the first value, for wake-ups with one of the bits.
pub(super) async fn wait(
    thread: &Thread,
    (address, is_private): (u64, bool),
    (value, bits): (u32, u32),
    deadline: Option<u64>,
) -> Result<u64> {
    let futex = Futex::new(&thread.process.space, address, is_private)?;
    let waiting = futex.wait(value, bits)?;
    let mut timeout = deadline.map(sleep_until);
    let woken = poll_fn(|context| {
        if waiting.poll(context).is_ready() {
            return Poll::Ready(Ok(()));
        }
        match &mut timeout {
            Some(sleep) => Pin::new(sleep)
                .poll(context)
                .map(|()| Err(Errno::ETIMEDOUT)),
            None => Poll::Pending,
        }
    });
    match thread.until_signal(woken).await.flatten() {
        // The wake-up would be lost on others.
        Err(_) if waiting.give_up() => Ok(0),
        result => result.map(|()| 0),
    }
}

/// Does what does not wait; returns how many waiters were woken or moved.
fn change(thread: &Thread, call: Call) -> Result<u32> {
    let space = &thread.process.space;
    let futex = |address| Futex::new(space, address, call.is_private);
    // Linux wakes one even if none is asked for.
    let count = (call.value as i32).max(1) as u32;
    match call.command {
        raw::FUTEX_WAKE => futex(call.address)?.wake(count, ALL_BITS),
        raw::FUTEX_WAKE_BITSET if call.third == 0 => Err(Errno::EINVAL),
        raw::FUTEX_WAKE_BITSET => futex(call.address)?.wake(count, call.third),
        raw::FUTEX_REQUEUE | raw::FUTEX_CMP_REQUEUE => {
            let counts = (call.value, call.time as u32);
            if (counts.0 as i32) < 0 || (counts.1 as i32) < 0 {
                return Err(Errno::EINVAL);
            }
            let expected = (call.command == raw::FUTEX_CMP_REQUEUE).then_some(call.third);
            futex(call.address)?.requeue(futex(call.other)?, counts, expected)
        }
        raw::FUTEX_WAKE_OP => {
            let (first, second) = (futex(call.address)?, futex(call.other)?);
            let second_count = (call.time as i32).max(1) as u32;
            let operation = Operation::decode(call.third)?;
            first.wake_both(second, [count, second_count], operation)
        }
        _ => Err(Errno::ENOSYS),
    }
}
