//! Copying from file to file: what `sendfile(2)`, `splice(2)` and `copy_file_range(2)` do.

use super::{FileType, OpenFile, OpenFlags};
use crate::error::{Errno, Result};
use crate::executor::Stint;
use crate::file::is_same;
use crate::io::{Direction, Io, IoFlags};
use crate::mm::IoBuffer;
use alloc::vec::Vec;

/// Bytes copied at a time.
const CHUNK: usize = 1 << 16;

/// A file and the position to start at; `None` for its own, which moves.
pub type Place<'a> = (&'a OpenFile, Option<u64>);

/// Copies up to `count` bytes and tells how many: up to the end of the file, or, from a stream,
/// as many as there are at once.
///
/// # Errors
///
/// Those of reading and writing, if nothing was copied.
pub async fn copy(
    (from, from_start): Place<'_>,
    (to, to_start): Place<'_>,
    count: usize,
) -> Result<usize> {
    let mut done = 0;
    let mut bytes = Vec::new();
    let mut stint = Stint::default();
    let result = loop {
        if done == count {
            break Ok(());
        }
        stint.give_way().await;
        let at = |start: Option<u64>| start.map(|start| start + done as u64);
        bytes.resize(CHUNK.min(count - done), 0);
        let mut io = Io::new(
            Direction::Read,
            at(from_start),
            IoBuffer::Kernel(bytes),
            IoFlags::empty(),
        );
        let read = match from.complete(&mut io).await {
            Ok(0) => break Ok(()),
            Ok(read) => read,
            Err(error) => break Err(error),
        };
        bytes = into_bytes(io.buffer);
        bytes.truncate(read);
        let (written, result);
        (bytes, written, result) = write_all(to, at(to_start), bytes).await;
        done += written;
        if written < read && from_start.is_none() && from.ops.is_seekable() {
            // What was read and not written is read again next time.
            from.set_position(from.position() - (read - written) as u64);
        }
        if result.is_err() || !from.ops.is_seekable() {
            break result;
        }
    };
    match result {
        Err(error) if done == 0 => Err(error),
        _ => Ok(done),
    }
}

fn into_bytes(buffer: IoBuffer) -> Vec<u8> {
    match buffer {
        IoBuffer::Kernel(bytes) => bytes,
        _ => Vec::new(),
    }
}

async fn write_all(
    to: &OpenFile,
    start: Option<u64>,
    bytes: Vec<u8>,
) -> (Vec<u8>, usize, Result<()>) {
    let total = bytes.len();
    let mut left = bytes;
    let mut done = 0;
    while done < total {
        let position = start.map(|start| start + done as u64);
        let mut io = Io::new(
            Direction::Write,
            position,
            IoBuffer::Kernel(left),
            IoFlags::empty(),
        );
        let result = to.complete(&mut io).await;
        left = into_bytes(io.buffer);
        match result {
            Ok(0) => break,
            Ok(count) => {
                left.drain(..count);
                done += count;
            }
            Err(error) => return (left, done, Err(error)),
        }
    }
    (left, done, Ok(()))
}

/// Copies up to `count` bytes between regular files: `copy_file_range(2)`.
///
/// # Errors
///
/// Those of the system call.
pub async fn copy_range(from: Place<'_>, to: Place<'_>, count: usize) -> Result<usize> {
    let kind = |file: &OpenFile| file.inode().map(|inode| inode.file_type());
    let kinds = [kind(from.0), kind(to.0)];
    if kinds.contains(&Some(FileType::Directory)) {
        return Err(Errno::EISDIR);
    }
    if kinds != [Some(FileType::Regular); 2] {
        return Err(Errno::EINVAL);
    }
    let target = to.0.flags();
    if !from.0.flags().can_read() || !target.can_write() || target.contains(OpenFlags::APPEND) {
        return Err(Errno::EBADF);
    }
    let start = |(file, start): Place<'_>| start.unwrap_or_else(|| file.position());
    let (from_start, to_start) = (start(from), start(to));
    let end = |start: u64| start.checked_add(count as u64);
    let (Some(from_end), Some(to_end)) = (end(from_start), end(to_start)) else {
        return Err(Errno::EOVERFLOW);
    };
    if to_start == i64::MAX as u64 {
        return Err(Errno::EFBIG);
    }
    if from_end > i64::MAX as u64 || to_end > i64::MAX as u64 {
        return Err(Errno::EINVAL);
    }
    if let (Some(one), Some(other)) = (from.0.inode(), to.0.inode())
        && is_same(&**one, &**other)
        && from_start < to_end
        && to_start < from_end
    {
        return Err(Errno::EINVAL);
    }
    if let Some(answer) = from.0.ops.copy_to(from_start, &*to.0.ops, to_start, count) {
        match answer.await {
            Err(Errno::EOPNOTSUPP) => {}
            copied => {
                let copied = copied?;
                for (file, start) in [from, to] {
                    if start.is_none() {
                        file.set_position(file.position() + copied as u64);
                    }
                }
                return Ok(copied);
            }
        }
    }
    copy(from, to, count).await
}
