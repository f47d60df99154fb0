//! `lseek(2)`.

use super::{Actor, FileRef};
use crate::error::Result;

/// A position to move to.
pub struct Seek {
    /// The file.
    pub file: FileRef,
    /// Bytes, from where `whence` says.
    pub offset: i64,
    /// `SEEK_*`.
    pub whence: u32,
}

impl Seek {
    /// Does it; gives the new position.
    ///
    /// # Errors
    ///
    /// Those of `lseek(2)`.
    pub async fn run(self, actor: Actor<'_>) -> Result<u64> {
        let file = actor.file(self.file)?;
        file.seek(self.offset, self.whence).await
    }
}
