//! Moving bytes between files, with none of them in the program's memory: `sendfile(2)`,
//! `copy_file_range(2)`, `splice(2)`.

use super::{Actor, FileRef};
use crate::error::{Errno, Result};
use crate::fs::{self, OpenFile, OpenFlags};
use crate::io::Direction;
use crate::mm::MAX_COUNT;
use crate::process::Signal;
use alloc::sync::Arc;
use core::pin::pin;
use linux_raw_sys::general as raw;

/// One end of a copy.
pub struct End {
    /// The file.
    pub file: FileRef,
    /// Where it starts.
    pub position: EndPosition,
}

/// Where in a file a copy starts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EndPosition {
    /// Where the open file is.
    Own,
    /// There.
    At(u64),
    /// Where the number at that address of memory says, which is updated.
    InMemory(u64),
}

impl EndPosition {
    /// As system calls give it: an address, or 0 for the file's own.
    pub fn of_address(address: u64) -> Self {
        match address {
            0 => Self::Own,
            address => Self::InMemory(address),
        }
    }

    /// The position, unless it is the file's own.
    fn read(self, actor: Actor<'_>) -> Result<Option<u64>> {
        match self {
            Self::Own => Ok(None),
            Self::At(position) => Ok(Some(position)),
            Self::InMemory(address) => actor.space().read_value(address).map(Some),
        }
    }

    /// Stores the position after `count` bytes, if it is in memory and was `start`.
    fn update(self, actor: Actor<'_>, start: Option<u64>, count: usize) -> Result<()> {
        match (self, start) {
            (Self::InMemory(address), Some(start)) => {
                let end = start + count as u64;
                actor.space().write_value(address, &end)
            }
            _ => Ok(()),
        }
    }
}

/// A position that was read, if it is one.
fn check_position(position: Option<u64>) -> Result<()> {
    match position {
        Some(position) if i64::try_from(position).is_err() => Err(Errno::EINVAL),
        _ => Ok(()),
    }
}

/// The file, if it may be used in that direction.
fn file_for(actor: Actor<'_>, file: FileRef, direction: Direction) -> Result<Arc<OpenFile>> {
    let file = actor.file(file)?;
    file.check_direction(direction)?;
    Ok(file)
}

async fn copy(
    actor: Actor<'_>,
    from: (&OpenFile, Option<u64>),
    to: (&OpenFile, Option<u64>),
    count: usize,
) -> Result<usize> {
    // Pinned here, so that it is not moved on its way, which would take its room again.
    let copying = pin!(fs::copy(from, to, count));
    let result = actor.until_signal(copying).await?;
    if result == Err(Errno::EPIPE) {
        actor.signal(Signal::SIGPIPE);
    }
    result
}

/// `sendfile(2)`.
pub struct SendFile {
    /// Where the bytes go.
    pub to: FileRef,
    /// Where they come from.
    pub from: End,
    /// Bytes.
    pub count: usize,
}

impl SendFile {
    /// Does it; gives the number of bytes.
    ///
    /// # Errors
    ///
    /// Those of `sendfile(2)`.
    pub async fn run(self, actor: Actor<'_>) -> Result<u64> {
        let start = self.from.position.read(actor)?;
        let from = file_for(actor, self.from.file, Direction::Read)?;
        if start.is_some() && !from.ops.is_seekable() {
            return Err(Errno::ESPIPE);
        }
        check_position(start)?;
        let end = (start.unwrap_or_else(|| from.position()) as i64).checked_add(self.count as i64);
        if (self.count as i64) < 0 || end.is_none() {
            return Err(Errno::EINVAL);
        }
        let to = file_for(actor, self.to, Direction::Write)?;
        let can_splice = from.ops.is_seekable()
            && from.ops.can_splice(Direction::Read)
            && to.ops.can_splice(Direction::Write);
        if !can_splice || to.flags().contains(OpenFlags::APPEND) {
            return Err(Errno::EINVAL);
        }
        let count = self.count.min(MAX_COUNT);
        if Arc::ptr_eq(&from, &to) {
            // Both ends start where it is, and it moves once.
            let at = from.position();
            let from_start = start.unwrap_or(at);
            let count = actor.within_limit(&to, at, count)?;
            let copied = copy(actor, (&from, Some(from_start)), (&to, Some(at)), count).await?;
            to.set_position(at + copied as u64);
            self.from.position.update(actor, start, copied)?;
            return Ok(copied as u64);
        }
        let count = actor.within_limit(&to, to.position(), count)?;
        let copied = copy(actor, (&from, start), (&to, None), count).await?;
        self.from.position.update(actor, start, copied)?;
        Ok(copied as u64)
    }
}

/// `copy_file_range(2)`.
pub struct CopyFileRange {
    /// Where the bytes come from.
    pub from: End,
    /// Where they go.
    pub to: End,
    /// Bytes.
    pub count: usize,
    /// None are defined.
    pub flags: u32,
}

impl CopyFileRange {
    /// Does it; gives the number of bytes.
    ///
    /// # Errors
    ///
    /// Those of `copy_file_range(2)`.
    pub async fn run(self, actor: Actor<'_>) -> Result<u64> {
        let from = actor.file(self.from.file)?;
        let to = actor.file(self.to.file)?;
        let from_start = self.from.position.read(actor)?;
        let to_start = self.to.position.read(actor)?;
        if self.flags != 0 {
            return Err(Errno::EINVAL);
        }
        let count = self.count.min(MAX_COUNT);
        let at = to_start.unwrap_or_else(|| to.position());
        let count = match to.flags().can_write() && i64::try_from(at).is_ok() {
            true => actor.within_limit(&to, at, count)?,
            false => count,
        };
        let copied = fs::copy_range((&from, from_start), (&to, to_start), count).await?;
        self.from.position.update(actor, from_start, copied)?;
        self.to.position.update(actor, to_start, copied)?;
        Ok(copied as u64)
    }
}

/// `splice(2)`.
pub struct Splice {
    /// Where the bytes come from.
    pub from: End,
    /// Where they go.
    pub to: End,
    /// Bytes.
    pub count: usize,
    /// `SPLICE_F_*`.
    pub flags: u32,
}

impl Splice {
    /// The flags that are known.
    pub const KNOWN: u32 =
        raw::SPLICE_F_MOVE | raw::SPLICE_F_NONBLOCK | raw::SPLICE_F_MORE | raw::SPLICE_F_GIFT;

    /// Does it; gives the number of bytes.
    ///
    /// # Errors
    ///
    /// Those of `splice(2)`.
    pub async fn run(self, actor: Actor<'_>) -> Result<u64> {
        let count = self.count.min(MAX_COUNT);
        if count == 0 {
            return Ok(0);
        }
        if self.flags & !Self::KNOWN != 0 {
            return Err(Errno::EINVAL);
        }
        let from = file_for(actor, self.from.file, Direction::Read)?;
        let to = file_for(actor, self.to.file, Direction::Write)?;
        let (from_pipe, to_pipe) = (fs::is_pipe(&from), fs::is_pipe(&to));
        if !from_pipe && !to_pipe {
            return Err(Errno::EINVAL);
        }
        let has_position = |position: EndPosition| position != EndPosition::Own;
        if from_pipe && has_position(self.from.position)
            || to_pipe && has_position(self.to.position)
        {
            return Err(Errno::ESPIPE);
        }
        let from_start = self.from.position.read(actor)?;
        let to_start = self.to.position.read(actor)?;
        for (file, start) in [(&from, from_start), (&to, to_start)] {
            if start.is_some() && !file.ops.is_seekable() {
                return Err(Errno::EINVAL);
            }
            check_position(start)?;
        }
        let is_one_pipe = match (fs::pipe_of(&from), fs::pipe_of(&to)) {
            (Some(from), Some(to)) => Arc::ptr_eq(from, to),
            _ => false,
        };
        let can_splice =
            from.ops.can_splice(Direction::Read) && to.ops.can_splice(Direction::Write);
        if is_one_pipe || !can_splice || to.flags().contains(OpenFlags::APPEND) {
            return Err(Errno::EINVAL);
        }
        // One piece that a pipe takes or gives at once, as Linux moves it.
        let count = count.min(fs::PIPE_CAPACITY);
        let at = to_start.unwrap_or_else(|| to.position());
        let count = actor.within_limit(&to, at, count)?;
        let copied = copy(actor, (&from, from_start), (&to, to_start), count).await?;
        self.from.position.update(actor, from_start, copied)?;
        self.to.position.update(actor, to_start, copied)?;
        Ok(copied as u64)
    }
}

/// `tee(2)`: copies from pipe to pipe what stays in the first.
pub struct Tee {
    /// The pipe that is read from.
    pub from: FileRef,
    /// The pipe that is written to.
    pub to: FileRef,
    /// Bytes.
    pub count: usize,
    /// `SPLICE_F_*`.
    pub flags: u32,
}

impl Tee {
    /// Does it; gives the number of bytes.
    ///
    /// # Errors
    ///
    /// Those of `tee(2)`.
    pub async fn run(self, actor: Actor<'_>) -> Result<u64> {
        if self.flags & !Splice::KNOWN != 0 {
            return Err(Errno::EINVAL);
        }
        if self.count == 0 {
            return Ok(0);
        }
        let from = file_for(actor, self.from, Direction::Read)?;
        let to = file_for(actor, self.to, Direction::Write)?;
        let (Some(source), Some(target)) = (fs::pipe_of(&from), fs::pipe_of(&to)) else {
            return Err(Errno::EINVAL);
        };
        if Arc::ptr_eq(source, target) {
            return Err(Errno::EINVAL);
        }
        let is_patient = self.flags & raw::SPLICE_F_NONBLOCK == 0
            && ![&from, &to]
                .map(|file| file.flags().contains(OpenFlags::NONBLOCK))
                .contains(&true);
        let result = actor
            .until_signal(source.tee(target, self.count, is_patient))
            .await?;
        if result == Err(Errno::EPIPE) {
            actor.signal(Signal::SIGPIPE);
        }
        result.map(|count| count as u64)
    }
}
