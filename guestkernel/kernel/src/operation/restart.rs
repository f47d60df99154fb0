//! `restart_syscall(2)`: what a program calls, without knowing, to go on with a call that a signal
//! without a handler has interrupted.

use super::{Actor, FutexWait, Poll, PollSet, Sleep};
use crate::error::{Errno, Result};
use crate::process::Restart;

/// Going on with what was interrupted.
pub struct GoOn;

impl GoOn {
    /// Does it.
    ///
    /// # Errors
    ///
    /// `EINTR` if nothing was interrupted, and those of what was.
    pub async fn run(self, actor: Actor<'_>) -> Result<u64> {
        let left = actor
            .thread()
            .and_then(|thread| thread.restart.lock().take());
        match left.ok_or(Errno::EINTR)? {
            Restart::Sleep {
                deadline,
                remaining: remaining_at,
            } => {
                let sleep = Sleep {
                    deadline,
                    remaining_at,
                };
                sleep.run(actor).await.map(|()| 0)
            }
            Restart::Poll {
                files: (address, count),
                deadline,
            } => {
                let set = PollSet { address, count };
                Poll { set, deadline }.run(actor).await
            }
            Restart::Futex {
                address,
                value: (value, bits),
                is_private,
                deadline,
            } => {
                let wait = FutexWait {
                    address,
                    is_private,
                    value,
                    bits,
                    deadline: Some(deadline),
                };
                wait.run(actor).await.map(|()| 0)
            }
        }
    }
}
