//! System calls about file descriptors: opening, closing, duplicating, controlling.

use super::path::{Done, read_at, read_here};
use super::{Args, Dispatched, actor};
use crate::error::{Errno, Result};
use crate::fs::OpenHow;
use crate::operation::{
    Close, CloseRange, Control, DeviceControl, Duplicate, DuplicateTo, FileRef, LockFile,
    MakeEventFd, MakeMemoryFile, MakePipe, Open, OpenRequest, PathAt,
};
use crate::process::Thread;
use linux_raw_sys::general as raw;

/// A descriptor as a system call's result.
fn descriptor(result: Result<i32>) -> Result<u64> {
    result.map(|fd| fd as u64)
}

async fn open_with(thread: &Thread, at: PathAt, how: OpenHow) -> Result<u64> {
    let operation = Open { at, how };
    descriptor(operation.install(actor(thread)).await)
}

pub(super) async fn open(thread: &mut Thread, args: Args) -> Result<u64> {
    let how = OpenHow::new(args.uint(1), args.uint(2))?;
    open_with(thread, read_here(thread, args, 0)?, how).await
}

pub(super) async fn openat(thread: &mut Thread, args: Args) -> Result<u64> {
    let how = OpenHow::new(args.uint(2), args.uint(3))?;
    open_with(thread, read_at(thread, args, 0)?, how).await
}

pub(super) async fn creat(thread: &mut Thread, args: Args) -> Result<u64> {
    let flags = raw::O_CREAT | raw::O_WRONLY | raw::O_TRUNC;
    let how = OpenHow::new(flags, args.uint(1))?;
    open_with(thread, read_here(thread, args, 0)?, how).await
}

pub(super) async fn openat2(thread: &mut Thread, args: Args) -> Result<u64> {
    let how = OpenRequest::read(actor(thread), args.get(2), args.size(3))?.check()?;
    open_with(thread, read_at(thread, args, 0)?, how).await
}

#[inline]
pub(super) fn close_now(thread: &mut Thread, args: Args) -> Dispatched {
    let operation = Close { fd: args.int(0) };
    match operation.run_now(actor(thread)).transpose() {
        Some(result) => Dispatched::Done(result.map(|()| 0)),
        None => Dispatched::Waits,
    }
}

pub(super) async fn close(thread: &mut Thread, args: Args) -> Result<u64> {
    Close { fd: args.int(0) }.run(actor(thread)).await.done()
}

pub(super) async fn close_range(thread: &mut Thread, args: Args) -> Result<u64> {
    let operation = CloseRange {
        first: args.uint(0),
        last: args.uint(1),
        flags: args.uint(2),
    };
    operation.run(actor(thread)).await.done()
}

pub(super) fn dup(thread: &mut Thread, args: Args) -> Result<u64> {
    let operation = Duplicate { fd: args.int(0) };
    descriptor(operation.run(actor(thread)))
}

async fn duplicate_to(thread: &Thread, args: Args, flags: Option<u32>) -> Result<u64> {
    let operation = DuplicateTo {
        from: args.int(0),
        to: args.int(1),
        flags,
    };
    descriptor(operation.run(actor(thread)).await)
}

pub(super) async fn dup2(thread: &mut Thread, args: Args) -> Result<u64> {
    duplicate_to(thread, args, None).await
}

pub(super) async fn dup3(thread: &mut Thread, args: Args) -> Result<u64> {
    duplicate_to(thread, args, Some(args.uint(2))).await
}

pub(super) async fn fcntl(thread: &mut Thread, args: Args) -> Result<u64> {
    let operation = Control {
        fd: args.int(0),
        command: args.uint(1),
        argument: args.get(2),
    };
    operation.run(actor(thread)).await
}

pub(super) async fn flock(thread: &mut Thread, args: Args) -> Result<u64> {
    let operation = LockFile {
        file: FileRef::Descriptor(args.int(0)),
        operation: args.uint(1),
    };
    operation.run(actor(thread)).await.done()
}

pub(super) async fn ioctl(thread: &mut Thread, args: Args) -> Result<u64> {
    let operation = DeviceControl {
        fd: args.int(0),
        request: args.uint(1),
        argument: args.get(2),
    };
    operation.run(actor(thread)).await
}

fn make_pipe(thread: &Thread, args: Args, flags: u32) -> Result<u64> {
    let operation = MakePipe {
        address: args.get(0),
        flags,
    };
    operation.run(actor(thread)).done()
}

pub(super) fn pipe(thread: &mut Thread, args: Args) -> Result<u64> {
    make_pipe(thread, args, 0)
}

pub(super) fn pipe2(thread: &mut Thread, args: Args) -> Result<u64> {
    make_pipe(thread, args, args.uint(1))
}

fn make_eventfd(thread: &Thread, args: Args, flags: u32) -> Result<u64> {
    let operation = MakeEventFd {
        count: args.uint(0),
        flags,
    };
    descriptor(operation.install(actor(thread)))
}

pub(super) fn eventfd(thread: &mut Thread, args: Args) -> Result<u64> {
    make_eventfd(thread, args, 0)
}

pub(super) fn eventfd2(thread: &mut Thread, args: Args) -> Result<u64> {
    make_eventfd(thread, args, args.uint(1))
}

pub(super) async fn memfd_create(thread: &mut Thread, args: Args) -> Result<u64> {
    /// `MFD_NAME_MAX_LEN` and the NUL.
    const NAME_LIMIT: usize = 250;
    let flags = args.uint(1);
    MakeMemoryFile::check_flags(flags)?;
    let space = &thread.process.space;
    let name = space.read_string(args.get(0), NAME_LIMIT);
    let name = name.map_err(|error| match error {
        Errno::ENAMETOOLONG => Errno::EINVAL,
        error => error,
    })?;
    let operation = MakeMemoryFile { name, flags };
    descriptor(operation.install(actor(thread)).await)
}
