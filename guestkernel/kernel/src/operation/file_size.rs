//! How large a file may become (`RLIMIT_FSIZE`).

use super::Actor;
use crate::error::{Errno, Result};
use crate::file::OpenFile;
use crate::process::Signal;
use linux_raw_sys::general as raw;

impl Actor<'_> {
    fn file_size_limit(&self) -> u64 {
        let limit = self.process.limits.lock().get(raw::RLIMIT_FSIZE);
        limit.map_or(u64::MAX, |limit| limit.soft)
    }

    /// Whether files may get as large as they like.
    #[inline]
    pub(super) fn has_no_file_size_limit(&self) -> bool {
        self.file_size_limit() == u64::MAX
    }

    /// How many of the `count` bytes that are to be written at `position` the limit leaves.
    ///
    /// # Errors
    ///
    /// `EFBIG`, with SIGXFSZ, if none.
    pub(super) fn within_limit(
        &self,
        file: &OpenFile,
        position: u64,
        count: usize,
    ) -> Result<usize> {
        if !file.is_regular() || count == 0 {
            return Ok(count);
        }
        match self.file_size_limit().saturating_sub(position) {
            0 => Err(self.too_big()),
            left => Ok(count.min(usize::try_from(left).unwrap_or(usize::MAX))),
        }
    }

    /// Checks that `file` may get that size, if it grows.
    ///
    /// # Errors
    ///
    /// `EFBIG`, with SIGXFSZ, and those of asking the file for its size.
    pub(super) async fn check_size(&self, file: &OpenFile, size: u64) -> Result<()> {
        if file.is_regular() && size > self.file_size_limit() && size > file.ops.size().await? {
            return Err(self.too_big());
        }
        Ok(())
    }

    #[cold]
    fn too_big(&self) -> Errno {
        // A ring's requests send no signal, as on Linux, where a thread of the kernel does them.
        if self.is_caller() {
            self.signal(Signal::SIGXFSZ);
        }
        Errno::EFBIG
    }
}
