//! The system calls of io_uring.

use super::{Args, Dispatched, actor};
use crate::error::Result;
use crate::io_uring::{self, Call, Enter, Entered};
use crate::process::Thread;
use alloc::boxed::Box;
use linux_raw_sys::io_uring::io_uring_params;

/// `io_uring_setup(2)`.
pub(super) fn io_uring_setup(thread: &mut Thread, args: Args) -> Result<u64> {
    let process = &thread.process;
    let mut params: io_uring_params = process.space.read_value(args.get(1))?;
    let file = io_uring::create(process, args.uint(0), &mut params, thread.tid)?;
    process.space.write_value(args.get(1), &params)?;
    if io_uring::is_registered_only(&params) {
        return io_uring::register_at_index(&mut thread.registered_rings, file).map(u64::from);
    }
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
    let rings = &thread.registered_rings;
    match io_uring::enter_now(actor(thread), rings, args.int(0), call) {
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

fn registration(args: Args) -> Call {
    Call {
        opcode: args.uint(1),
        argument: args.get(2),
        count: args.uint(3),
    }
}

/// `io_uring_register(2)`, unless it has to wait.
pub(super) fn io_uring_register_now(thread: &mut Thread, args: Args) -> Dispatched {
    let call = registration(args);
    let rings = &mut thread.registered_rings;
    match io_uring::register(&thread.process, thread.tid, rings, args.int(0), call).transpose() {
        Some(result) => Dispatched::Done(result.map(u64::from)),
        None => Dispatched::Waits,
    }
}

/// The rest of it.
pub(super) async fn io_uring_register(thread: &mut Thread, args: Args) -> Result<u64> {
    let call = registration(args);
    let rings = &mut thread.registered_rings;
    let registering =
        io_uring::register_waiting(&thread.process, thread.tid, rings, args.int(0), call);
    Box::pin(registering).await.map(u64::from)
}
