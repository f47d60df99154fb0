//! Descriptors and what is set on them: `dup(2)`, `dup3(2)`, `close_range(2)`, `fcntl(2)`,
//! `flock(2)`, `ioctl(2)`.

use super::{Actor, FileRef, terminal};
use crate::drivers::block_file;
use crate::error::{Errno, Result};
use crate::executor::Stint;
use crate::fs::{self, OpenFile, OpenFlags};
use crate::missing;
use alloc::sync::Arc;
use linux_raw_sys::general as raw;
use linux_raw_sys::ioctl;

/// Flags of `close_range(2)`, from `linux/close_range.h`.
const CLOSE_RANGE_UNSHARE: u32 = 1 << 1;
const CLOSE_RANGE_CLOEXEC: u32 = 1 << 2;

/// `dup(2)`: the lowest free descriptor for the same open file.
pub struct Duplicate {
    /// The descriptor.
    pub fd: i32,
}

impl Duplicate {
    /// Does it; gives the new descriptor.
    ///
    /// # Errors
    ///
    /// `EBADF`, `EMFILE`.
    pub fn run(self, actor: Actor<'_>) -> Result<i32> {
        let file = actor.process.files.get_any(self.fd)?;
        actor.process.files.insert(file, false, 0)
    }
}

/// `dup2(2)` and `dup3(2)`: a given descriptor for the same open file.
pub struct DuplicateTo {
    /// The descriptor.
    pub from: i32,
    /// The one that it is to be, too; what that was is closed.
    pub to: i32,
    /// `O_CLOEXEC`; `None` for `dup2(2)`, which takes a descriptor as its own duplicate.
    pub flags: Option<u32>,
}

impl DuplicateTo {
    /// Does it; gives the new descriptor.
    ///
    /// # Errors
    ///
    /// Those of the calls.
    pub async fn run(self, actor: Actor<'_>) -> Result<i32> {
        let Self { from, to, flags } = self;
        let files = &actor.process.files;
        match flags {
            None if from == to => {
                files.get_any(from)?;
                return Ok(to);
            }
            Some(flags) if flags & !raw::O_CLOEXEC != 0 || from == to => {
                return Err(Errno::EINVAL);
            }
            _ => {}
        }
        let close_on_exec = flags.is_some_and(|flags| flags != 0);
        let file = files.get_any(from)?;
        if let Some(old) = files.replace(file, close_on_exec, to)? {
            // As Linux does it: nobody hears of an error.
            let _ = actor.view().finish_close(&old).await;
        }
        Ok(to)
    }
}

/// `close_range(2)`.
pub struct CloseRange {
    /// The first descriptor.
    pub first: u32,
    /// The last one.
    pub last: u32,
    /// `CLOSE_RANGE_*`.
    pub flags: u32,
}

impl CloseRange {
    /// Does it.
    ///
    /// # Errors
    ///
    /// `EINVAL`.
    pub async fn run(self, actor: Actor<'_>) -> Result<()> {
        let known = CLOSE_RANGE_UNSHARE | CLOSE_RANGE_CLOEXEC;
        if self.flags & !known != 0 || self.first > self.last {
            return Err(Errno::EINVAL);
        }
        let files = &actor.process.files;
        let mut stint = Stint::default();
        for fd in files.open_in(self.first..=self.last) {
            stint.give_way().await;
            // The table is shared with the process's other threads: some may be closed meanwhile, and
            // errors of flushing have nobody to go to.
            let _ = match self.flags & CLOSE_RANGE_CLOEXEC {
                0 => actor.view().close(fd).await,
                _ => files.set_close_on_exec(fd, true),
            };
        }
        Ok(())
    }
}

/// `fcntl(2)`.
pub struct Control {
    /// The descriptor.
    pub fd: i32,
    /// `F_*`.
    pub command: u32,
    /// What the command takes.
    pub argument: u64,
}

impl Control {
    /// Does it; gives the command's result.
    ///
    /// # Errors
    ///
    /// Those of `fcntl(2)`.
    pub async fn run(self, actor: Actor<'_>) -> Result<u64> {
        let process = actor.process;
        let Self {
            fd,
            command,
            argument,
        } = self;
        let file = process.files.get_any(fd)?;
        match command {
            raw::F_DUPFD | raw::F_DUPFD_CLOEXEC => {
                let lowest = u32::try_from(argument).map_err(|_| Errno::EINVAL)?;
                let close_on_exec = command == raw::F_DUPFD_CLOEXEC;
                let fd = process.files.insert(file, close_on_exec, lowest)?;
                Ok(fd as u64)
            }
            raw::F_GETFD => Ok(process.files.close_on_exec(fd)?.into()),
            raw::F_SETFD => {
                let close_on_exec = argument as u32 & raw::FD_CLOEXEC != 0;
                process.files.set_close_on_exec(fd, close_on_exec)?;
                Ok(0)
            }
            raw::F_GETFL => Ok(file.flags().bits().into()),
            _ if file.is_path_only() => Err(Errno::EBADF),
            raw::F_SETFL => {
                let flags = OpenFlags::from_bits_truncate(argument as u32);
                if flags.contains(OpenFlags::DIRECT) && !file.supports_direct() {
                    return Err(Errno::EINVAL);
                }
                file.set_flags(flags);
                Ok(0)
            }
            raw::F_GETLK
            | raw::F_SETLK
            | raw::F_SETLKW
            | raw::F_OFD_GETLK
            | raw::F_OFD_SETLK
            | raw::F_OFD_SETLKW => lock_range(actor, &file, command, argument).await,
            // Nobody is told of readiness by a signal.
            raw::F_GETOWN | raw::F_GETSIG => Ok(0),
            // Nor of somebody who opens the file.
            raw::F_GETLEASE => Ok(raw::F_UNLCK.into()),
            raw::F_GETPIPE_SZ | raw::F_SETPIPE_SZ => {
                let pipe = fs::pipe_of(&file).ok_or(Errno::EBADF)?;
                match command {
                    raw::F_GETPIPE_SZ => Ok(pipe.capacity() as u64),
                    _ => Ok(pipe.set_capacity(argument as u32)? as u64),
                }
            }
            raw::F_GET_SEALS | raw::F_ADD_SEALS => match fs::is_tmpfs(&file) {
                false => Err(Errno::EINVAL),
                true if command == raw::F_ADD_SEALS => Err(Errno::EPERM),
                true => Ok(raw::F_SEAL_SEAL.into()),
            },
            _ => Err(Errno::EINVAL),
        }
    }
}

async fn lock_range(actor: Actor<'_>, file: &Arc<OpenFile>, command: u32, at: u64) -> Result<u64> {
    let space = actor.space();
    let mut lock = fs::RangeLock::read(space, at, file).await?;
    let is_ofd = command >= raw::F_OFD_GETLK;
    if is_ofd && lock.pid != 0 {
        return Err(Errno::EINVAL);
    }
    let owner = match is_ofd {
        true => fs::LockOwner::Description,
        false => fs::LockOwner::Process(actor.process.files.owner()),
    };
    match command {
        raw::F_GETLK | raw::F_OFD_GETLK => {
            lock.test(file, owner)?;
            lock.write(space, at)?;
        }
        raw::F_SETLK | raw::F_OFD_SETLK => lock.set(file, owner)?,
        _ => {
            let waiting = lock.set_waiting(file, owner);
            actor.until_signal(waiting).await??;
        }
    }
    Ok(0)
}

/// `flock(2)`.
pub struct LockFile {
    /// The file.
    pub file: FileRef,
    /// `LOCK_*`.
    pub operation: u32,
}

impl LockFile {
    /// Does it.
    ///
    /// # Errors
    ///
    /// Those of `flock(2)`.
    pub async fn run(self, actor: Actor<'_>) -> Result<()> {
        let file = actor.file(self.file)?;
        let mode = match self.operation & !raw::LOCK_NB {
            raw::LOCK_SH => Some(fs::LockMode::Shared),
            raw::LOCK_EX => Some(fs::LockMode::Exclusive),
            raw::LOCK_UN => None,
            _ => return Err(Errno::EINVAL),
        };
        match self.operation & raw::LOCK_NB {
            0 => {
                let waiting = fs::lock_file_waiting(&file, mode);
                actor.until_signal(waiting).await
            }
            _ => fs::lock_file(&file, mode),
        }
    }
}

/// `ioctl(2)`.
pub struct DeviceControl {
    /// The descriptor.
    pub fd: i32,
    /// What is asked for.
    pub request: u32,
    /// What the request takes.
    pub argument: u64,
}

impl DeviceControl {
    /// Does it; gives the request's result.
    ///
    /// # Errors
    ///
    /// `EBADF`, and those of the file.
    pub async fn run(self, actor: Actor<'_>) -> Result<u64> {
        let process = actor.process;
        let Self {
            fd,
            request,
            argument,
        } = self;
        let file = process.files.get(fd)?;
        match request {
            ioctl::FIOCLEX => process.files.set_close_on_exec(fd, true)?,
            ioctl::FIONCLEX => process.files.set_close_on_exec(fd, false)?,
            ioctl::FIONBIO => {
                let is_on = process.space.read_value::<i32>(argument)? != 0;
                let mut flags = file.flags();
                flags.set(OpenFlags::NONBLOCK, is_on);
                file.set_flags(flags);
            }
            ioctl::FIONREAD if file.is_regular() => {
                let left = file.ops.size().await?.saturating_sub(file.position());
                process.space.write_value(argument, &(left as i32))?;
            }
            request if block_file::needs_writable(&file, request) => return Err(Errno::EBADF),
            request => {
                if file.is_terminal()
                    && let Some(result) = terminal::control(actor, &file, request, argument)?
                {
                    return Ok(result);
                }
                let control = file.ops.ioctl(request, argument, &process.space);
                let result = actor.until_signal(control).await?;
                if result == Err(Errno::ENOTTY) {
                    missing::note_ioctl(&file, request);
                }
                return result;
            }
        }
        Ok(0)
    }
}
