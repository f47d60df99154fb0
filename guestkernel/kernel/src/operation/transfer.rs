//! Reads and writes: `read(2)`, `pread(2)`, `readv(2)`, `preadv2(2)`, their writing counterparts, and
//! `IORING_OP_READ` and its like.

use super::{Actor, FileRef};
use crate::error::{Errno, Result};
use crate::fs::{OpenFile, OpenFlags, Readiness};
use crate::io::{Direction, Io, IoFlags};
use crate::mm::{AddressSpace, IoBuffer, MAX_COUNT, UserRange, UserRanges, read_iovecs};
use crate::process::Signal;
use alloc::sync::Arc;
use core::future::poll_fn;
use core::task::{Context, Poll};
use machine::Segment;

/// The memory side of a read or write.
pub enum Memory {
    /// So many bytes at an address.
    Range {
        /// The first byte.
        address: u64,
        /// Bytes.
        length: u64,
    },
    /// The pieces that so many iovecs at an address name.
    Vector {
        /// Where the first iovec is.
        address: u64,
        /// Iovecs.
        count: u64,
    },
}

impl Memory {
    /// The pieces, checked.
    ///
    /// # Errors
    ///
    /// `EFAULT` for what cannot be a program's memory, `EINVAL` for lengths or counts that are too
    /// much.
    #[inline]
    pub fn ranges(&self, space: &AddressSpace) -> Result<UserRanges> {
        match *self {
            Self::Range { address, length } => {
                Ok([UserRange::new(address, length, MAX_COUNT)?].into())
            }
            Self::Vector { address, count } => read_iovecs(space, address, count),
        }
    }
}

/// The byte of the file at which a read or write starts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Position {
    /// Where the open file is.
    Own,
    /// There; `EINVAL` if it is negative, `ESPIPE` if the file has no positions (`pread(2)`).
    At(i64),
    /// There, unless the file has no positions (a ring's request). `EINVAL` if it is negative.
    Hint(i64),
}

/// A read or write, as a system call gives it.
pub struct ReadWrite {
    /// The file.
    pub file: FileRef,
    /// Which way the bytes go.
    pub direction: Direction,
    /// Their place in memory.
    pub memory: Memory,
    /// Their place in the file.
    pub position: Position,
    /// `RWF_*`.
    pub flags: u32,
}

impl ReadWrite {
    /// Does it; gives the number of bytes.
    ///
    /// # Errors
    ///
    /// Those of `preadv2(2)` and `pwritev2(2)`.
    pub async fn run(self, actor: Actor<'_>) -> Result<u64> {
        if let Position::At(..0) = self.position {
            return Err(Errno::EINVAL);
        }
        let file = actor.file(self.file)?;
        if let Position::At(_) = self.position
            && !file.ops.is_seekable()
        {
            return Err(Errno::ESPIPE);
        }
        file.check_direction(self.direction)?;
        let ranges = self.memory.ranges(actor.space())?;
        let mut buffer = IoBuffer::vectored(actor.space().clone(), ranges);
        if matches!(self.memory, Memory::Vector { .. }) && buffer.is_empty() {
            return Ok(0);
        }
        if self.direction == Direction::Write && file.is_regular() {
            let place = (self.position, self.flags);
            keep_within_limit(actor, &file, place, &mut buffer).await?;
        }
        // Flags are looked at only if there is something to do, as on Linux.
        if self.flags != 0 && buffer.is_empty() {
            return Ok(0);
        }
        let mut transfer = Transfer::new(&file, self.direction, buffer, self.position, self.flags)?;
        transfer.run(&file, actor).await
    }
}

/// Leaves of `buffer`, to be written at that position with these `RWF_*`, what the limit of a file's
/// size does.
async fn keep_within_limit(
    actor: Actor<'_>,
    file: &OpenFile,
    (position, flags): (Position, u32),
    buffer: &mut IoBuffer,
) -> Result<()> {
    if actor.has_no_file_size_limit() {
        return Ok(());
    }
    let flags = IoFlags::from_rwf(flags, || file.ops.supports_nowait())?;
    let appends = file.flags().contains(OpenFlags::APPEND) && !flags.contains(IoFlags::NO_APPEND)
        || flags.contains(IoFlags::APPEND);
    let start = match position {
        _ if appends => file.ops.size().await?,
        Position::Own => file.position(),
        Position::At(at) | Position::Hint(at) => u64::try_from(at).map_err(|_| Errno::EINVAL)?,
    };
    buffer.cut(actor.within_limit(file, start, buffer.len())?);
    Ok(())
}

/// A write of a buffer to a regular file, as a ring makes it when file sizes are limited: the file may
/// have to be asked for its size.
pub struct LimitedWrite {
    /// The file.
    pub file: Arc<OpenFile>,
    /// What is written.
    pub buffer: IoBuffer,
    /// Its place in the file.
    pub position: Position,
    /// `RWF_*`.
    pub flags: u32,
}

impl LimitedWrite {
    /// Whether a write to `file` is to be one.
    #[inline]
    pub fn is_needed(file: &OpenFile, actor: Actor<'_>) -> bool {
        file.is_regular() && !actor.has_no_file_size_limit()
    }

    /// Does it; gives the number of bytes.
    ///
    /// # Errors
    ///
    /// Those of `pwritev2(2)`.
    pub async fn run(mut self, actor: Actor<'_>) -> Result<u64> {
        self.file.check_direction(Direction::Write)?;
        let wanted = self.buffer.len();
        let place = (self.position, self.flags);
        keep_within_limit(actor, &self.file, place, &mut self.buffer).await?;
        if self.buffer.len() < wanted && self.position == Position::Own {
            // One that is cut off leaves the file's position alone, as on Linux.
            self.position = Position::Hint(self.file.position() as i64);
        }
        let mut transfer = Transfer::new(
            &self.file,
            Direction::Write,
            self.buffer,
            self.position,
            self.flags,
        )?;
        transfer.be_patient();
        transfer.run(&self.file, actor).await
    }
}

/// A read or write that was checked, to be polled where it stands.
pub struct Transfer(Io);

impl Transfer {
    /// A transfer between `buffer` and `file`, with `RWF_*` as flags.
    ///
    /// # Errors
    ///
    /// `EBADF` if the file was not opened for that, those of [`IoFlags::from_rwf`], `EINVAL` for a
    /// negative position.
    #[inline]
    pub fn new(
        file: &OpenFile,
        direction: Direction,
        buffer: IoBuffer,
        position: Position,
        flags: u32,
    ) -> Result<Self> {
        file.check_direction(direction)?;
        let flags = IoFlags::from_rwf(flags, || file.ops.supports_nowait())?;
        let position = match position {
            Position::Own => None,
            Position::At(at) | Position::Hint(at) => {
                Some(u64::try_from(at).map_err(|_| Errno::EINVAL)?)
            }
        };
        Ok(Self(Io::new(direction, position, buffer, flags)))
    }

    /// Has it wait although the open file is not to, where the file can tell in advance: what a ring
    /// does with `O_NONBLOCK`.
    #[inline]
    pub fn be_patient(&mut self) {
        self.0.flags |= IoFlags::PATIENT;
    }

    /// The bytes that are asked for.
    #[inline]
    pub fn len(&self) -> usize {
        self.0.buffer.len()
    }

    /// Whether nothing is asked for.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Whether it is a write.
    pub fn is_write(&self) -> bool {
        self.0.direction == Direction::Write
    }

    /// What the file is ready for when this need not wait.
    pub fn awaits(&self) -> Readiness {
        match self.0.direction {
            Direction::Read => Readiness::READABLE,
            Direction::Write => Readiness::WRITABLE,
        }
    }

    /// Whether completion is to be polled for (`RWF_HIPRI`).
    #[inline]
    pub fn is_polled(&self) -> bool {
        self.0.flags.contains(IoFlags::HIGH_PRIORITY)
    }

    /// Whether its memory is of that registered buffer.
    pub fn uses(&self, region: &Arc<[Segment]>) -> bool {
        self.0.buffer.is_of(region)
    }

    /// Whether a device works on it: it cannot be taken back.
    pub fn is_with_device(&self) -> bool {
        !self.0.in_flight.is_empty()
    }

    /// Advances it, and gives the bytes done when it is over.
    ///
    /// # Errors
    ///
    /// Those of `read(2)` and `write(2)`.
    #[inline]
    pub fn poll(&mut self, file: &OpenFile, context: &mut Context<'_>) -> Poll<Result<usize>> {
        file.poll_io(&mut self.0, context)
    }

    /// Sends what ending with `error` sends: SIGPIPE to who has written to nobody.
    #[inline]
    pub fn signal_failure(&self, error: Errno, actor: Actor<'_>) {
        let is_broken = error == Errno::EPIPE && self.0.direction == Direction::Write;
        if is_broken && !self.0.flags.contains(IoFlags::NO_SIGNAL) {
            actor.signal(Signal::SIGPIPE);
        }
    }

    /// Does it all. What may wait for ever ends at a signal, with what it has done so far.
    ///
    /// # Errors
    ///
    /// Those of `read(2)` and `write(2)`.
    pub async fn run(&mut self, file: &Arc<OpenFile>, actor: Actor<'_>) -> Result<u64> {
        let is_bounded = file.ops.is_seekable();
        let all = poll_fn(|context| self.poll(file, context));
        let result = match is_bounded {
            true => all.await,
            false => match actor.until_signal(all).await {
                Ok(result) => result,
                Err(_) if self.0.done > 0 => Ok(self.0.done),
                Err(error) => Err(error),
            },
        };
        match result {
            Err(error) => self.signal_failure(error, actor),
            Ok(_) if self.0.flags.contains(IoFlags::BROKEN) => {
                self.signal_failure(Errno::EPIPE, actor);
            }
            Ok(_) => {}
        }
        result.map(|count| count as u64)
    }
}
