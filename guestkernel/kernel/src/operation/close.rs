//! `close(2)` and `IORING_OP_CLOSE`: giving up a descriptor.

use super::Actor;
use crate::error::Result;

/// A descriptor to be closed.
pub struct Close {
    /// The descriptor.
    pub fd: i32,
}

impl Close {
    /// Does it. The descriptor is closed whatever the result; locks of the process on the file go
    /// with it.
    ///
    /// # Errors
    ///
    /// `EBADF`, and those of writes that were put off.
    pub async fn run(self, actor: Actor<'_>) -> Result<()> {
        actor.view().close(self.fd).await
    }

    /// Does it if that takes no time: `None`, and nothing done, if it may.
    ///
    /// # Errors
    ///
    /// `EBADF`.
    #[inline]
    pub fn run_now(&self, actor: Actor<'_>) -> Result<Option<()>> {
        actor.view().close_now(self.fd)
    }
}
