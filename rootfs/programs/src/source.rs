//! Files and block devices opened for reading, directly where that is possible.

use std::fs::{File, OpenOptions};
use std::io::{self, Seek, SeekFrom};
use std::os::unix::fs::{FileTypeExt, OpenOptionsExt};
use std::path::Path;

/// Something with a size that can be read at offsets.
pub struct Source {
    /// The open file.
    pub file: File,
    /// Its size in bytes.
    pub size: u64,
    /// Whether reads bypass the page cache and must be aligned.
    pub direct: bool,
}

impl Source {
    /// Opens a regular file or a block device; `direct` falls back to buffered reads where the
    /// file system knows no direct ones.
    ///
    /// # Errors
    ///
    /// What `open(2)` gives, and `InvalidInput` for what has no size.
    pub fn open(path: &Path, direct: bool) -> io::Result<Self> {
        let open = |flags| OpenOptions::new().read(true).custom_flags(flags).open(path);
        let (mut file, direct) = match direct.then(|| open(libc::O_DIRECT)) {
            Some(Ok(file)) => (file, true),
            Some(Err(error)) if error.raw_os_error() != Some(libc::EINVAL) => return Err(error),
            _ => (open(0)?, false),
        };
        let kind = file.metadata()?.file_type();
        if kind.is_dir() {
            return Err(io::ErrorKind::IsADirectory.into());
        }
        if !kind.is_file() && !kind.is_block_device() {
            return Err(io::Error::new(
                io::ErrorKind::InvalidInput,
                "neither a regular file nor a block device",
            ));
        }
        // The end of a block device is its size, and needs no ioctl.
        let size = file.seek(SeekFrom::End(0))?;
        Ok(Self { file, size, direct })
    }
}
