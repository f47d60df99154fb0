//! System calls about processes and threads as such.

use super::Args;
use crate::error::Result;
use crate::executor;
use crate::process::Thread;

pub(super) fn getpid(thread: &mut Thread, _: Args) -> Result<u64> {
    Ok(thread.process.pid.into())
}

pub(super) async fn sched_yield(_: &mut Thread, _: Args) -> Result<u64> {
    executor::yield_now().await;
    Ok(0)
}
