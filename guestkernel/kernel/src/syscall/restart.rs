//! `restart_syscall(2)`: what a program calls, without knowing, to go on with a call that a signal
//! without a handler has interrupted.

use super::{Args, futex, poll, time};
use crate::error::{Errno, Result};
use crate::process::{Restart, Thread};

pub(super) async fn restart_syscall(thread: &mut Thread, _: Args) -> Result<u64> {
    let restart = thread.restart.take().ok_or(Errno::EINTR)?;
    match restart {
        Restart::Sleep {
            deadline,
            remaining,
        } => time::sleep(thread, deadline, remaining).await,
        Restart::Poll { files, deadline } => poll::poll_until(thread, files, deadline).await,
        Restart::Futex {
            address,
            value,
            is_private,
            deadline,
        } => {
            let place = (address, is_private);
            match futex::wait(thread, place, value, Some(deadline)).await {
                Err(Errno::ERESTARTSYS) => {
                    thread.restart = Some(restart);
                    Err(Errno::ERESTART_RESTARTBLOCK)
                }
                result => result,
            }
        }
    }
}
