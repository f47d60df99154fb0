//! `futex(2)`.

use super::{Args, Dispatched, actor};
use crate::error::Result;
use crate::operation::FutexCall;
use crate::process::Thread;

fn decode(args: Args) -> FutexCall {
    FutexCall {
        address: args.get(0),
        operation: args.uint(1),
        value: args.uint(2),
        time: args.get(3),
        other: args.get(4),
        third: args.uint(5),
    }
}

/// `futex(2)`, unless it is a command that waits.
pub(super) fn futex_now(thread: &mut Thread, args: Args) -> Dispatched {
    decode(args).run_now(actor(thread)).into()
}

/// `futex(2)` with a command that waits.
pub(super) async fn futex(thread: &mut Thread, args: Args) -> Result<u64> {
    decode(args).run(actor(thread)).await
}
