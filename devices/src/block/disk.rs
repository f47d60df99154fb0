//! A disk image on the host: opening, checking and locking it.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::fd::AsRawFd;
use std::os::unix::fs::{FileTypeExt, MetadataExt, OpenOptionsExt};
use std::path::Path;

use super::SECTOR;

/// Whether the guest may write.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Access {
    /// Reads only.
    ReadOnly,
    /// Reads and writes.
    ReadWrite,
}

/// Why a file cannot be a disk. The messages do not name the file: the caller knows it.
#[derive(Debug, thiserror::Error)]
pub enum DiskError {
    /// It cannot be opened.
    #[error("{0}; name a disk image or block device that can be read")]
    Open(io::Error),
    /// It cannot be opened for writing, though it exists.
    #[error("{0}; to attach it without writing, append ',ro'")]
    OpenForWriting(io::Error),
    /// A directory, FIFO, socket or character device.
    #[error("it is a {0}; name a regular file or block device")]
    WrongKind(&'static str),
    /// It has no bytes.
    #[error("it is empty; make it larger, for example with 'truncate -s 64M'")]
    Empty,
    /// Its size is no multiple of the sector size.
    #[error("its size of {0} bytes is no multiple of 512; extend it with 'truncate -s %512'")]
    OddSize(u64),
    /// Somebody else has locked it.
    #[error(
        "it is already in use, by another ringlet or as another disk of this one; wait for it or \
         attach a copy"
    )]
    InUse,
    /// Its size or lock cannot be had.
    #[error("{0}")]
    Io(#[from] io::Error),
}

/// Alignment that direct I/O needs on this file (statx(2), `STATX_DIOALIGN`).
#[derive(Clone, Copy, Debug)]
pub(crate) struct DirectAlignment {
    memory: usize,
    offset: u64,
}

/// An open, locked disk image.
pub struct Disk {
    buffered: File,
    direct: Option<(File, DirectAlignment)>,
    access: Access,
    size: u64,
}

impl Disk {
    /// Opens the image at `path` and locks it (flock(2)): shared for reading, else exclusively.
    ///
    /// The file is not changed.
    ///
    /// # Errors
    ///
    /// [`DiskError`].
    pub fn open(path: &Path, access: Access) -> Result<Self, DiskError> {
        // Looked at first, since opening a FIFO waits for its other end.
        check_kind(&path.metadata().map_err(DiskError::Open)?)?;
        let write = access == Access::ReadWrite;
        let buffered = OpenOptions::new()
            .read(true)
            .write(write)
            .open(path)
            .map_err(|error| match error.raw_os_error() {
                Some(libc::EACCES | libc::EROFS | libc::EPERM) if write => {
                    DiskError::OpenForWriting(error)
                }
                _ => DiskError::Open(error),
            })?;
        let metadata = buffered.metadata()?;
        check_kind(&metadata)?;
        lock(&buffered, access)?;
        let size = size_of(&buffered)?;
        if size == 0 {
            return Err(DiskError::Empty);
        }
        if !size.is_multiple_of(SECTOR) {
            return Err(DiskError::OddSize(size));
        }
        Ok(Self {
            direct: open_direct(path, write, &metadata),
            buffered,
            access,
            size,
        })
    }

    /// Whether the guest may write.
    pub fn access(&self) -> Access {
        self.access
    }

    /// The open and locked file, for others to use: duplicates of its descriptor share the lock.
    pub fn file(&self) -> &File {
        &self.buffered
    }

    /// Size in sectors of 512 bytes.
    pub fn sectors(&self) -> u64 {
        self.size / SECTOR
    }

    /// Whether aligned requests bypass the host's page cache.
    pub fn is_direct(&self) -> bool {
        self.direct.is_some()
    }

    /// The descriptor with O_DIRECT, if a request at byte `offset` with these buffers is aligned
    /// for it.
    pub(crate) fn direct_for(&self, offset: u64, iovecs: &[libc::iovec]) -> Option<&File> {
        let (file, alignment) = self.direct.as_ref()?;
        let aligned = offset.is_multiple_of(alignment.offset)
            && iovecs.iter().all(|iovec| {
                (iovec.iov_base as usize).is_multiple_of(alignment.memory)
                    && (iovec.iov_len as u64).is_multiple_of(alignment.offset)
            });
        aligned.then_some(file)
    }
}

fn check_kind(metadata: &std::fs::Metadata) -> Result<(), DiskError> {
    let kind = metadata.file_type();
    if kind.is_file() || kind.is_block_device() {
        return Ok(());
    }
    Err(DiskError::WrongKind(if kind.is_dir() {
        "directory"
    } else if kind.is_char_device() {
        "character device"
    } else if kind.is_fifo() {
        "FIFO"
    } else {
        "socket"
    }))
}

fn lock(file: &File, access: Access) -> Result<(), DiskError> {
    let how = match access {
        Access::ReadOnly => libc::LOCK_SH,
        Access::ReadWrite => libc::LOCK_EX,
    };
    // SAFETY: flock has no memory arguments and the descriptor is open.
    if unsafe { libc::flock(file.as_raw_fd(), how | libc::LOCK_NB) } == 0 {
        return Ok(());
    }
    let error = io::Error::last_os_error();
    match error.kind() {
        io::ErrorKind::WouldBlock => Err(DiskError::InUse),
        _ => Err(DiskError::Io(error)),
    }
}

/// The size of a regular file or block device, in bytes.
fn size_of(file: &File) -> io::Result<u64> {
    io::Seek::seek(&mut &*file, io::SeekFrom::End(0))
}

/// A second descriptor of the same file with O_DIRECT, where the file system has it.
fn open_direct(
    path: &Path,
    write: bool,
    opened: &std::fs::Metadata,
) -> Option<(File, DirectAlignment)> {
    let direct = OpenOptions::new()
        .read(true)
        .write(write)
        .custom_flags(libc::O_DIRECT)
        .open(path)
        .and_then(|file| Ok((file.metadata()?, file)));
    match direct {
        Ok((metadata, file))
            if (metadata.dev(), metadata.ino()) == (opened.dev(), opened.ino()) =>
        {
            let alignment = direct_alignment(&file)?;
            log::debug!("{}: direct I/O, {alignment:?}", path.display());
            Some((file, alignment))
        }
        Ok(_) => None,
        Err(error) => {
            log::debug!("{}: no direct I/O: {error}", path.display());
            None
        }
    }
}

/// The alignment the file asks for; a sector where the kernel does not tell.
fn direct_alignment(file: &File) -> Option<DirectAlignment> {
    let unknown = DirectAlignment {
        memory: SECTOR as usize,
        offset: SECTOR,
    };
    // SAFETY: all-zero bytes are a valid statx: it is integers only.
    let mut status: libc::statx = unsafe { std::mem::zeroed() };
    // SAFETY: the path is a C string, the buffer is valid for writes, the descriptor is open.
    let result = unsafe {
        libc::statx(
            file.as_raw_fd(),
            c"".as_ptr(),
            libc::AT_EMPTY_PATH,
            libc::STATX_DIOALIGN,
            &raw mut status,
        )
    };
    if result != 0 || status.stx_mask & libc::STATX_DIOALIGN == 0 {
        return Some(unknown);
    }
    // Zeros say that direct I/O does not work on this file, whatever open(2) said.
    (status.stx_dio_offset_align != 0 && status.stx_dio_mem_align != 0).then(|| DirectAlignment {
        memory: status.stx_dio_mem_align as usize,
        offset: u64::from(status.stx_dio_offset_align).max(SECTOR),
    })
}
