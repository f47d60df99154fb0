//! System calls that move bytes between files and memory, or between files.

use super::Args;
use crate::error::{Errno, Result};
use crate::fs::{self, OpenFile, OpenFlags};
use crate::io::{Direction, Io, IoFlags};
use crate::mm::{IoBuffer, MAX_COUNT, UserRange, read_iovecs};
use crate::process::{Signal, Thread};
use linux_raw_sys::general as raw;

/// Does a read or write. One that may wait for ever ends at a signal, and one to nobody sends
/// SIGPIPE.
async fn transfer(thread: &Thread, file: &OpenFile, mut io: Io) -> Result<u64> {
    let result = match file.ops.is_seekable() {
        true => file.complete(&mut io).await,
        false => match thread.until_signal(file.complete(&mut io)).await {
            Ok(result) => result,
            Err(_) if io.done > 0 => Ok(io.done),
            Err(error) => Err(error),
        },
    };
    let is_broken = io.direction == Direction::Write && result == Err(Errno::EPIPE);
    if is_broken && !io.flags.contains(IoFlags::NO_SIGNAL) {
        thread.process.signal_thread(thread.tid, Signal::SIGPIPE);
    }
    result.map(|count| count as u64)
}

/// A range of program memory as a read or write takes it.
fn buffer(thread: &Thread, address: u64, length: u64) -> Result<IoBuffer> {
    let range = UserRange::new(address, length, MAX_COUNT)?;
    let space = thread.process.space.clone();
    Ok(IoBuffer::vectored(space, [range].into()))
}

/// The pieces that an array of `iovec`s names.
fn vector(thread: &Thread, address: u64, count: u64) -> Result<IoBuffer> {
    let space = &thread.process.space;
    let ranges = read_iovecs(space, address, count)?;
    Ok(IoBuffer::vectored(space.clone(), ranges))
}

/// The file behind descriptor `fd`, if it may be used in that direction.
fn file(thread: &Thread, fd: i32, direction: Direction) -> Result<alloc::sync::Arc<OpenFile>> {
    let file = thread.process.files.get(fd)?;
    file.check_direction(direction)?;
    Ok(file)
}

async fn plain(thread: &Thread, args: Args, direction: Direction) -> Result<u64> {
    let file = file(thread, args.int(0), direction)?;
    let buffer = buffer(thread, args.get(1), args.get(2))?;
    transfer(
        thread,
        &file,
        Io::new(direction, None, buffer, IoFlags::empty()),
    )
    .await
}

pub(super) async fn read(thread: &mut Thread, args: Args) -> Result<u64> {
    plain(thread, args, Direction::Read).await
}

pub(super) async fn write(thread: &mut Thread, args: Args) -> Result<u64> {
    plain(thread, args, Direction::Write).await
}

async fn positioned(thread: &Thread, args: Args, direction: Direction) -> Result<u64> {
    let position = u64::try_from(args.long(3)).map_err(|_| Errno::EINVAL)?;
    let file = thread.process.files.get(args.int(0))?;
    check_seekable(&file)?;
    file.check_direction(direction)?;
    let buffer = buffer(thread, args.get(1), args.get(2))?;
    let io = Io::new(direction, Some(position), buffer, IoFlags::empty());
    transfer(thread, &file, io).await
}

fn check_seekable(file: &OpenFile) -> Result<()> {
    match file.ops.is_seekable() {
        true => Ok(()),
        false => Err(Errno::ESPIPE),
    }
}

pub(super) async fn pread64(thread: &mut Thread, args: Args) -> Result<u64> {
    positioned(thread, args, Direction::Read).await
}

pub(super) async fn pwrite64(thread: &mut Thread, args: Args) -> Result<u64> {
    positioned(thread, args, Direction::Write).await
}

async fn vectored(
    thread: &Thread,
    args: Args,
    position: Option<u64>,
    flags: u32,
    direction: Direction,
) -> Result<u64> {
    let file = thread.process.files.get(args.int(0))?;
    if position.is_some() {
        check_seekable(&file)?;
    }
    file.check_direction(direction)?;
    let buffer = vector(thread, args.get(1), args.get(2))?;
    if buffer.is_empty() && flags != 0 {
        return Ok(0);
    }
    let flags = IoFlags::from_rwf(flags, &file)?;
    transfer(thread, &file, Io::new(direction, position, buffer, flags)).await
}

pub(super) async fn readv(thread: &mut Thread, args: Args) -> Result<u64> {
    vectored(thread, args, None, 0, Direction::Read).await
}

pub(super) async fn writev(thread: &mut Thread, args: Args) -> Result<u64> {
    vectored(thread, args, None, 0, Direction::Write).await
}

async fn positioned_vector(thread: &Thread, args: Args, direction: Direction) -> Result<u64> {
    let position = u64::try_from(args.long(3)).map_err(|_| Errno::EINVAL)?;
    vectored(thread, args, Some(position), 0, direction).await
}

pub(super) async fn preadv(thread: &mut Thread, args: Args) -> Result<u64> {
    positioned_vector(thread, args, Direction::Read).await
}

pub(super) async fn pwritev(thread: &mut Thread, args: Args) -> Result<u64> {
    positioned_vector(thread, args, Direction::Write).await
}

async fn flagged_vector(thread: &Thread, args: Args, direction: Direction) -> Result<u64> {
    // Parameter 4 is the upper half of the position, where a `long` has 32 bits.
    let position = match args.long(3) {
        -1 => None,
        position => Some(u64::try_from(position).map_err(|_| Errno::EINVAL)?),
    };
    vectored(thread, args, position, args.uint(5), direction).await
}

pub(super) async fn preadv2(thread: &mut Thread, args: Args) -> Result<u64> {
    flagged_vector(thread, args, Direction::Read).await
}

pub(super) async fn pwritev2(thread: &mut Thread, args: Args) -> Result<u64> {
    flagged_vector(thread, args, Direction::Write).await
}

pub(super) async fn lseek(thread: &mut Thread, args: Args) -> Result<u64> {
    let file = thread.process.files.get(args.int(0))?;
    file.seek(args.long(1), args.uint(2)).await
}

/// The position at `address`, if there is one.
fn read_position(thread: &Thread, address: u64) -> Result<Option<u64>> {
    if address == 0 {
        return Ok(None);
    }
    let position: i64 = thread.process.space.read_value(address)?;
    let position = u64::try_from(position).map_err(|_| Errno::EINVAL)?;
    Ok(Some(position))
}

/// Stores the position after `count` bytes, if there was one.
fn write_position(thread: &Thread, address: u64, start: Option<u64>, count: usize) -> Result<()> {
    match start {
        Some(start) => {
            let end = start + count as u64;
            thread.process.space.write_value(address, &end)
        }
        None => Ok(()),
    }
}

pub(super) async fn sendfile(thread: &mut Thread, args: Args) -> Result<u64> {
    let start = read_position(thread, args.get(2))?;
    let from = file(thread, args.int(1), Direction::Read)?;
    if start.is_some() {
        check_seekable(&from)?;
    }
    let to = file(thread, args.int(0), Direction::Write)?;
    let is_file = from.ops.is_seekable() && from.ops.has_size();
    if !is_file || to.flags().contains(OpenFlags::APPEND) {
        return Err(Errno::EINVAL);
    }
    let count = args.size(3).min(MAX_COUNT);
    let copied = copy(thread, (&from, start), (&to, None), count).await?;
    write_position(thread, args.get(2), start, copied)?;
    Ok(copied as u64)
}

async fn copy(
    thread: &Thread,
    from: (&OpenFile, Option<u64>),
    to: (&OpenFile, Option<u64>),
    count: usize,
) -> Result<usize> {
    let copying = fs::copy(from, to, count);
    let result = thread.until_signal(copying).await?;
    if result == Err(Errno::EPIPE) {
        thread.process.signal_thread(thread.tid, Signal::SIGPIPE);
    }
    result
}

pub(super) async fn copy_file_range(thread: &mut Thread, args: Args) -> Result<u64> {
    let from = thread.process.files.get(args.int(0))?;
    let to = thread.process.files.get(args.int(2))?;
    let from_start = read_position(thread, args.get(1))?;
    let to_start = read_position(thread, args.get(3))?;
    if args.uint(5) != 0 {
        return Err(Errno::EINVAL);
    }
    let count = args.size(4).min(MAX_COUNT);
    let copied = fs::copy_range((&from, from_start), (&to, to_start), count).await?;
    write_position(thread, args.get(1), from_start, copied)?;
    write_position(thread, args.get(3), to_start, copied)?;
    Ok(copied as u64)
}

pub(super) async fn splice(thread: &mut Thread, args: Args) -> Result<u64> {
    const KNOWN: u32 =
        raw::SPLICE_F_MOVE | raw::SPLICE_F_NONBLOCK | raw::SPLICE_F_MORE | raw::SPLICE_F_GIFT;
    let count = args.size(4).min(MAX_COUNT);
    if count == 0 {
        return Ok(0);
    }
    if args.uint(5) & !KNOWN != 0 {
        return Err(Errno::EINVAL);
    }
    let from = file(thread, args.int(0), Direction::Read)?;
    let to = file(thread, args.int(2), Direction::Write)?;
    let (from_pipe, to_pipe) = (fs::is_pipe(&from), fs::is_pipe(&to));
    if !from_pipe && !to_pipe {
        return Err(Errno::EINVAL);
    }
    if from_pipe && args.get(1) != 0 || to_pipe && args.get(3) != 0 {
        return Err(Errno::ESPIPE);
    }
    let from_start = read_position(thread, args.get(1))?;
    let to_start = read_position(thread, args.get(3))?;
    for (file, start) in [(&from, from_start), (&to, to_start)] {
        if start.is_some() && !file.ops.is_seekable() {
            return Err(Errno::EINVAL);
        }
    }
    if to.flags().contains(OpenFlags::APPEND) {
        return Err(Errno::EINVAL);
    }
    // One piece that a pipe takes or gives at once, as Linux moves it.
    let count = count.min(fs::PIPE_CAPACITY);
    let copied = copy(thread, (&from, from_start), (&to, to_start), count).await?;
    write_position(thread, args.get(1), from_start, copied)?;
    write_position(thread, args.get(3), to_start, copied)?;
    Ok(copied as u64)
}

pub(super) async fn fsync(thread: &mut Thread, args: Args) -> Result<u64> {
    let file = thread.process.files.get(args.int(0))?;
    file.sync(false).await?;
    Ok(0)
}

pub(super) async fn fdatasync(thread: &mut Thread, args: Args) -> Result<u64> {
    let file = thread.process.files.get(args.int(0))?;
    file.sync(true).await?;
    Ok(0)
}

/// File systems are in memory; block devices write through.
pub(super) fn sync(_: &mut Thread, _: Args) -> Result<u64> {
    Ok(0)
}

pub(super) fn syncfs(thread: &mut Thread, args: Args) -> Result<u64> {
    thread.process.files.get(args.int(0))?;
    Ok(0)
}

pub(super) async fn sync_file_range(thread: &mut Thread, args: Args) -> Result<u64> {
    const KNOWN: u32 = raw::SYNC_FILE_RANGE_WAIT_BEFORE
        | raw::SYNC_FILE_RANGE_WRITE
        | raw::SYNC_FILE_RANGE_WAIT_AFTER;
    let file = thread.process.files.get(args.int(0))?;
    let (offset, length) = (args.long(1), args.long(2));
    let is_range = offset >= 0 && length >= 0 && offset.checked_add(length).is_some();
    if args.uint(3) & !KNOWN != 0 || !is_range {
        return Err(Errno::EINVAL);
    }
    check_seekable(&file)?;
    match file.sync(true).await {
        // A character device has nothing to write.
        Err(Errno::EINVAL) => Err(Errno::ESPIPE),
        result => result.map(|()| 0),
    }
}

pub(super) async fn ftruncate(thread: &mut Thread, args: Args) -> Result<u64> {
    let size = u64::try_from(args.long(1)).map_err(|_| Errno::EINVAL)?;
    let file = thread.process.files.get(args.int(0))?;
    file.truncate(size).await?;
    Ok(0)
}

pub(super) async fn fallocate(thread: &mut Thread, args: Args) -> Result<u64> {
    let file = thread.process.files.get(args.int(0))?;
    file.allocate(args.uint(1), args.long(2), args.long(3))
        .await?;
    Ok(0)
}

pub(super) fn fadvise64(thread: &mut Thread, args: Args) -> Result<u64> {
    let file = thread.process.files.get(args.int(0))?;
    if fs::is_pipe(&file) {
        return Err(Errno::ESPIPE);
    }
    match args.long(2) < 0 || args.uint(3) > raw::POSIX_FADV_NOREUSE {
        true => Err(Errno::EINVAL),
        false => Ok(0),
    }
}

pub(super) fn readahead(thread: &mut Thread, args: Args) -> Result<u64> {
    let file = file(thread, args.int(0), Direction::Read)?;
    match file.ops.is_seekable() && file.ops.has_size() {
        true => Ok(0),
        false => Err(Errno::EINVAL),
    }
}
