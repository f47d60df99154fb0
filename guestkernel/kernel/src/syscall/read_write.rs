//! System calls that move bytes between files and memory, or between files.

use super::path::Done;
use super::{Args, actor};
use crate::error::Result;
use crate::io::Direction;
use crate::operation::{
    Advise, Allocate, CopyFileRange, End, EndPosition, FileRef, Memory, Position, ReadAhead,
    ReadWrite, Seek, SendFile, Splice, Sync, SyncAll, SyncFileSystem, SyncRange, Tee, Truncate,
};
use crate::process::Thread;

/// The file behind the descriptor that a parameter is.
fn file(args: Args, index: usize) -> FileRef {
    FileRef::Descriptor(args.int(index))
}

/// A read or write of one range of memory.
async fn plain(
    thread: &Thread,
    args: Args,
    direction: Direction,
    position: Position,
) -> Result<u64> {
    let operation = ReadWrite {
        file: file(args, 0),
        direction,
        memory: Memory::Range {
            address: args.get(1),
            length: args.get(2),
        },
        position,
        flags: 0,
    };
    operation.run(actor(thread)).await
}

/// A read or write of the ranges that iovecs name.
async fn vectored(
    thread: &Thread,
    args: Args,
    direction: Direction,
    position: Position,
    flags: u32,
) -> Result<u64> {
    let operation = ReadWrite {
        file: file(args, 0),
        direction,
        memory: Memory::Vector {
            address: args.get(1),
            count: args.get(2),
        },
        position,
        flags,
    };
    operation.run(actor(thread)).await
}

pub(super) async fn read(thread: &mut Thread, args: Args) -> Result<u64> {
    plain(thread, args, Direction::Read, Position::Own).await
}

pub(super) async fn write(thread: &mut Thread, args: Args) -> Result<u64> {
    plain(thread, args, Direction::Write, Position::Own).await
}

pub(super) async fn pread64(thread: &mut Thread, args: Args) -> Result<u64> {
    plain(thread, args, Direction::Read, Position::At(args.long(3))).await
}

pub(super) async fn pwrite64(thread: &mut Thread, args: Args) -> Result<u64> {
    plain(thread, args, Direction::Write, Position::At(args.long(3))).await
}

pub(super) async fn readv(thread: &mut Thread, args: Args) -> Result<u64> {
    vectored(thread, args, Direction::Read, Position::Own, 0).await
}

pub(super) async fn writev(thread: &mut Thread, args: Args) -> Result<u64> {
    vectored(thread, args, Direction::Write, Position::Own, 0).await
}

pub(super) async fn preadv(thread: &mut Thread, args: Args) -> Result<u64> {
    let position = Position::At(args.long(3));
    vectored(thread, args, Direction::Read, position, 0).await
}

pub(super) async fn pwritev(thread: &mut Thread, args: Args) -> Result<u64> {
    let position = Position::At(args.long(3));
    vectored(thread, args, Direction::Write, position, 0).await
}

/// The position of `preadv2(2)`. Parameter 4 is its upper half, where a `long` has 32 bits.
fn position(args: Args) -> Position {
    match args.long(3) {
        -1 => Position::Own,
        position => Position::At(position),
    }
}

pub(super) async fn preadv2(thread: &mut Thread, args: Args) -> Result<u64> {
    vectored(thread, args, Direction::Read, position(args), args.uint(5)).await
}

pub(super) async fn pwritev2(thread: &mut Thread, args: Args) -> Result<u64> {
    vectored(thread, args, Direction::Write, position(args), args.uint(5)).await
}

pub(super) async fn lseek(thread: &mut Thread, args: Args) -> Result<u64> {
    let operation = Seek {
        file: file(args, 0),
        offset: args.long(1),
        whence: args.uint(2),
    };
    operation.run(actor(thread)).await
}

pub(super) async fn sendfile(thread: &mut Thread, args: Args) -> Result<u64> {
    let operation = SendFile {
        to: file(args, 0),
        from: End {
            file: file(args, 1),
            position: EndPosition::of_address(args.get(2)),
        },
        count: args.size(3),
    };
    operation.run(actor(thread)).await
}

/// The ends of a copy, whose files and positions are parameters 0 to 3.
fn ends(args: Args) -> [End; 2] {
    [0, 2].map(|first| End {
        file: file(args, first),
        position: EndPosition::of_address(args.get(first + 1)),
    })
}

pub(super) async fn copy_file_range(thread: &mut Thread, args: Args) -> Result<u64> {
    let [from, to] = ends(args);
    let operation = CopyFileRange {
        from,
        to,
        count: args.size(4),
        flags: args.uint(5),
    };
    operation.run(actor(thread)).await
}

pub(super) async fn splice(thread: &mut Thread, args: Args) -> Result<u64> {
    let [from, to] = ends(args);
    let operation = Splice {
        from,
        to,
        count: args.size(4),
        flags: args.uint(5),
    };
    operation.run(actor(thread)).await
}

pub(super) async fn tee(thread: &mut Thread, args: Args) -> Result<u64> {
    let operation = Tee {
        from: file(args, 0),
        to: file(args, 1),
        count: args.size(2),
        flags: args.uint(3),
    };
    operation.run(actor(thread)).await
}

pub(super) async fn fsync(thread: &mut Thread, args: Args) -> Result<u64> {
    let operation = Sync {
        file: file(args, 0),
        data_only: false,
    };
    operation.run(actor(thread)).await.done()
}

pub(super) async fn fdatasync(thread: &mut Thread, args: Args) -> Result<u64> {
    let operation = Sync {
        file: file(args, 0),
        data_only: true,
    };
    operation.run(actor(thread)).await.done()
}

pub(super) async fn sync(thread: &mut Thread, _: Args) -> Result<u64> {
    SyncAll.run(actor(thread)).await;
    Ok(0)
}

pub(super) async fn syncfs(thread: &mut Thread, args: Args) -> Result<u64> {
    let operation = SyncFileSystem {
        file: file(args, 0),
    };
    operation.run(actor(thread)).await.done()
}

pub(super) async fn sync_file_range(thread: &mut Thread, args: Args) -> Result<u64> {
    let operation = SyncRange {
        file: file(args, 0),
        offset: args.long(1),
        length: args.long(2),
        flags: args.uint(3),
    };
    operation.run(actor(thread)).await.done()
}

pub(super) async fn ftruncate(thread: &mut Thread, args: Args) -> Result<u64> {
    let operation = Truncate {
        file: file(args, 0),
        size: args.long(1),
    };
    operation.run(actor(thread)).await.done()
}

pub(super) async fn fallocate(thread: &mut Thread, args: Args) -> Result<u64> {
    let operation = Allocate {
        file: file(args, 0),
        mode: args.uint(1),
        offset: args.long(2),
        length: args.long(3),
    };
    operation.run(actor(thread)).await.done()
}

pub(super) fn fadvise64(thread: &mut Thread, args: Args) -> Result<u64> {
    let operation = Advise {
        file: file(args, 0),
        length: args.long(2),
        advice: args.uint(3),
    };
    operation.run(actor(thread)).done()
}

pub(super) fn readahead(thread: &mut Thread, args: Args) -> Result<u64> {
    let operation = ReadAhead {
        file: file(args, 0),
    };
    operation.run(actor(thread)).done()
}
