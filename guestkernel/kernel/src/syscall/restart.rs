//! `restart_syscall(2)`.

use super::{Args, actor};
use crate::error::Result;
use crate::operation::GoOn;
use crate::process::Thread;

pub(super) async fn restart_syscall(thread: &mut Thread, _: Args) -> Result<u64> {
    GoOn.run(actor(thread)).await
}
