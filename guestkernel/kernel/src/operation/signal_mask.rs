//! The signals that a call blocks while it waits: `ppoll(2)`, `pselect(2)`, `io_uring_enter(2)`,
//! `sigsuspend(2)`.

use super::Actor;
use crate::error::{Errno, Result};
use crate::mm::AddressSpace;
use crate::process::SignalSet;
use core::future::Future;

/// Signals to be blocked in place of those that a thread blocks, for as long as it waits.
#[derive(Clone, Copy, Debug, Default)]
pub struct TemporaryMask(Option<SignalSet>);

impl TemporaryMask {
    /// The set of `size` bytes at `address`, or, for 0, none.
    ///
    /// # Errors
    ///
    /// `EINVAL` for another size than that of a set, `EFAULT`.
    pub fn read(space: &AddressSpace, address: u64, size: u64) -> Result<Self> {
        if address == 0 {
            return Ok(Self(None));
        }
        if size != size_of::<u64>() as u64 {
            return Err(Errno::EINVAL);
        }
        let set = SignalSet(space.read_value(address)?);
        Ok(Self(Some(set.without(SignalSet::UNBLOCKABLE))))
    }

    /// Does `waiting` with these signals blocked. A signal that ends it is handled before the
    /// thread blocks again what it did.
    ///
    /// # Errors
    ///
    /// Those of `waiting`.
    pub async fn during<T>(
        self,
        actor: Actor<'_>,
        waiting: impl Future<Output = Result<T>>,
    ) -> Result<T> {
        let Some(set) = self.0 else {
            return waiting.await;
        };
        actor.process.set_blocked_temporarily(actor.tid, set);
        let result = waiting.await;
        match &result {
            Err(error) if *error == Errno::EINTR || error.is_restart() => {}
            _ => actor.process.restore_blocked(actor.tid),
        }
        result
    }
}
