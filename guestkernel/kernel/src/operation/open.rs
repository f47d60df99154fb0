//! Opening: `openat2(2)` and its older forms, `memfd_create(2)`, `pipe2(2)`, `eventfd2(2)`, and their
//! opcodes.

use super::{Actor, PathAt, terminal};
use crate::error::{Errno, Result};
use crate::fs::{EventFd, OpenFile, OpenFlags, OpenHow};
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::pin::pin;
use linux_raw_sys::general as raw;
use machine::PAGE_SIZE;

/// `openat2(2)`.
pub struct Open {
    /// The path.
    pub at: PathAt,
    /// How it is opened.
    pub how: OpenHow,
}

impl Open {
    /// Opens the file. A named pipe waits for its other end.
    ///
    /// # Errors
    ///
    /// Those of `openat2(2)`; `EINTR`.
    pub async fn run(self, actor: Actor<'_>) -> Result<Arc<OpenFile>> {
        let view = actor.view();
        // Pinned here, so that it is not moved on its way, which would take its room again.
        let opening = pin!(view.open(self.at.fd, &self.at.path, self.how));
        let file = actor.until_signal(opening).await??;
        if file.is_own_terminal() {
            // `/dev/tty` is whatever terminal the process has.
            let terminal = actor.process.terminal().ok_or(Errno::ENXIO)?;
            return file.with_ops(terminal.reopen());
        }
        if file.is_terminal() && !self.how.leaves_terminal() {
            terminal::adopt(actor, &file);
        }
        Ok(file)
    }

    /// Opens it, and gives it a descriptor.
    ///
    /// # Errors
    ///
    /// Those of [`run`](Self::run); `EMFILE`.
    pub async fn install(self, actor: Actor<'_>) -> Result<i32> {
        let close_on_exec = self.how.close_on_exec();
        let file = self.run(actor).await?;
        actor.process.files.insert(file, close_on_exec, 0)
    }
}

/// How a file is to be opened, as a program says it.
#[derive(Clone, Copy, Debug)]
pub enum OpenRequest {
    /// By `open(2)`, which ignores what it does not know.
    Plain {
        /// `O_*`.
        flags: u32,
        /// Permission bits.
        mode: u32,
    },
    /// By `openat2(2)`, which does not.
    Strict {
        /// `O_*`.
        flags: u64,
        /// Permission bits.
        mode: u64,
        /// `RESOLVE_*`.
        resolve: u64,
    },
}

impl OpenRequest {
    /// Reads a `struct open_how` of `size` bytes at `address`: a later version may be longer, but then
    /// the rest must be zeros.
    ///
    /// # Errors
    ///
    /// `EINVAL`, `E2BIG`, `EFAULT`.
    pub fn read(actor: Actor<'_>, address: u64, size: usize) -> Result<Self> {
        const SIZE: usize = size_of::<raw::open_how>();
        if size < SIZE {
            return Err(Errno::EINVAL);
        }
        if size > PAGE_SIZE {
            return Err(Errno::E2BIG);
        }
        let mut bytes = alloc::vec![0; size];
        actor.space().read(address, &mut bytes)?;
        if bytes[SIZE..].iter().any(|byte| *byte != 0) {
            return Err(Errno::E2BIG);
        }
        let field = |index: usize| {
            let mut field = [0; 8];
            field.copy_from_slice(&bytes[index * 8..][..8]);
            u64::from_ne_bytes(field)
        };
        Ok(Self::Strict {
            flags: field(0),
            mode: field(1),
            resolve: field(2),
        })
    }

    /// `O_*`.
    pub fn flags(&self) -> u64 {
        match *self {
            Self::Plain { flags, .. } => flags.into(),
            Self::Strict { flags, .. } => flags,
        }
    }

    /// Checks that it makes sense.
    ///
    /// # Errors
    ///
    /// `EINVAL`, `EAGAIN`.
    pub fn check(self) -> Result<OpenHow> {
        match self {
            Self::Plain { flags, mode } => OpenHow::new(flags, mode),
            Self::Strict {
                flags,
                mode,
                resolve,
            } => OpenHow::strict(flags, mode, resolve),
        }
    }
}

/// `memfd_create(2)`.
pub struct MakeMemoryFile {
    /// The name that is shown.
    pub name: Vec<u8>,
    /// `MFD_*`.
    pub flags: u32,
}

impl MakeMemoryFile {
    /// The flags that are known.
    const KNOWN: u32 =
        raw::MFD_CLOEXEC | raw::MFD_ALLOW_SEALING | raw::MFD_NOEXEC_SEAL | raw::MFD_EXEC;

    /// Checks the flags, which Linux does before it reads the name.
    ///
    /// # Errors
    ///
    /// `EINVAL`.
    pub fn check_flags(flags: u32) -> Result<()> {
        let both = raw::MFD_EXEC | raw::MFD_NOEXEC_SEAL;
        match flags & !Self::KNOWN != 0 || flags & both == both {
            true => Err(Errno::EINVAL),
            false => Ok(()),
        }
    }

    /// Makes it, and gives it a descriptor.
    ///
    /// # Errors
    ///
    /// `EINVAL`, `ENOSPC`, `EMFILE`.
    pub async fn install(self, actor: Actor<'_>) -> Result<i32> {
        Self::check_flags(self.flags)?;
        let mode = match self.flags & raw::MFD_NOEXEC_SEAL {
            0 => 0o777,
            _ => 0o666,
        };
        let file = actor.view().memory_file(&self.name, mode).await?;
        let close_on_exec = self.flags & raw::MFD_CLOEXEC != 0;
        actor.process.files.insert(file, close_on_exec, 0)
    }
}

/// `pipe2(2)`.
pub struct MakePipe {
    /// Where the two descriptors are stored.
    pub address: u64,
    /// `O_CLOEXEC`, `O_NONBLOCK`.
    pub flags: u32,
}

impl MakePipe {
    /// Checks the flags.
    ///
    /// # Errors
    ///
    /// `EINVAL`; also for pipes of packets (`O_DIRECT`), which are not there.
    pub fn check_flags(&self) -> Result<()> {
        match self.flags & !(raw::O_CLOEXEC | raw::O_NONBLOCK) {
            0 => Ok(()),
            _ => Err(Errno::EINVAL),
        }
    }

    /// Makes it: the end to read and the end to write.
    ///
    /// # Errors
    ///
    /// `ENFILE`.
    pub fn make(&self, actor: Actor<'_>) -> Result<(Arc<OpenFile>, Arc<OpenFile>)> {
        let kept = OpenFlags::from_bits_truncate(self.flags & !raw::O_CLOEXEC);
        actor.view().pipe(kept)
    }

    /// Does it.
    ///
    /// # Errors
    ///
    /// `EINVAL`, `EFAULT`, `EMFILE`, `ENFILE`.
    pub fn run(self, actor: Actor<'_>) -> Result<()> {
        self.check_flags()?;
        actor
            .space()
            .prepare_write(self.address, size_of::<u64>())?;
        let (reader, writer) = self.make(actor)?;
        let files = &actor.process.files;
        let close_on_exec = self.flags & raw::O_CLOEXEC != 0;
        let reader = files.insert(reader, close_on_exec, 0)?;
        let result = files.insert(writer, close_on_exec, 0).and_then(|writer| {
            let pair = u64::from(reader as u32) | u64::from(writer as u32) << 32;
            let written = actor.space().write_value(self.address, &pair);
            written.inspect_err(|_| drop(files.close(writer)))
        });
        result.inspect_err(|_| drop(files.close(reader)))
    }
}

/// `eventfd2(2)`.
pub struct MakeEventFd {
    /// The count that it starts with.
    pub count: u32,
    /// `EFD_*`.
    pub flags: u32,
}

impl MakeEventFd {
    /// Makes it, and gives it a descriptor.
    ///
    /// # Errors
    ///
    /// `EINVAL`, `EMFILE`.
    pub fn install(self, actor: Actor<'_>) -> Result<i32> {
        let flags = self.flags;
        if flags & !(raw::EFD_SEMAPHORE | raw::EFD_CLOEXEC | raw::EFD_NONBLOCK) != 0 {
            return Err(Errno::EINVAL);
        }
        let is_semaphore = flags & raw::EFD_SEMAPHORE != 0;
        let mut kept = OpenFlags::READ_WRITE;
        kept.set(OpenFlags::NONBLOCK, flags & raw::EFD_NONBLOCK != 0);
        let counter = Arc::new(EventFd::new(self.count.into(), is_semaphore));
        let file = OpenFile::new(counter, kept);
        let close_on_exec = flags & raw::EFD_CLOEXEC != 0;
        actor.process.files.insert(file, close_on_exec, 0)
    }
}
