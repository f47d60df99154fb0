//! The system calls of io_uring.

use super::{Args, Dispatched, actor};
use crate::error::Result;
use crate::io_uring::{self, Call, Enter, Entered};
use crate::process::Thread;
use linux_raw_sys::io_uring::io_uring_params;

/// `io_uring_setup(2)`.
pub(super) fn io_uring_setup(thread: &mut Thread, args: Args) -> Result<u64> {
    let process = &thread.process;
    let mut params: io_uring_params = process.space.read_value(args.get(1))?;
    let file = io_uring::create(process, args.uint(0), &mut params, thread.tid)?;
    process.space.write_value(args.get(1), &params)?;
    process.files.insert(file, true, 0).map(|fd| fd as u64)
}

/// `io_uring_enter(2)`, up to where it has to wait.
#[inline]
pub(super) fn io_uring_enter_now(thread: &mut Thread, args: Args) -> Dispatched {
    let call = Enter {
        to_submit: args.uint(1),
        min_complete: args.uint(2),
        flags: args.uint(3),
        argument: args.get(4),
        size: args.get(5),
    };
    match io_uring::enter_now(actor(thread), args.int(0), call) {
        Ok(Ok(submitted)) => Dispatched::Done(Ok(submitted.into())),
        Ok(Err(entered)) => Dispatched::Entered(entered),
        Err(error) => Dispatched::Done(Err(error)),
    }
}

/// The rest of it.
pub(crate) async fn finish_enter(thread: &mut Thread, entered: Entered) -> Result<u64> {
    let submitted = entered.wait(actor(thread)).await?;
    Ok(submitted.into())
}

/// `io_uring_register(2)`.
pub(super) fn io_uring_register(thread: &mut Thread, args: Args) -> Result<u64> {
    let call = Call {
        opcode: args.uint(1),
        argument: args.get(2),
        count: args.uint(3),
    };
    io_uring::register(&thread.process, thread.tid, args.int(0), call).map(u64::from)
}
