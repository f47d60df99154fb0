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
    #[inline]
    pub fn run(self, actor: Actor<'_>) -> Result<()> {
        actor.view().close(self.fd)
    }
}
