//! System calls about file descriptors: opening, closing, duplicating, controlling.

use super::path::{Done, read_path, view};
use super::{Args, Dispatched, actor};
use crate::drivers::block_file;
use crate::error::{Errno, Result};
use crate::fs::{self, OpenFile, OpenFlags, OpenHow};
use crate::missing;
use crate::operation::Close;
use crate::process::Thread;
use alloc::sync::Arc;
use linux_raw_sys::general as raw;
use linux_raw_sys::ioctl as request;
use machine::PAGE_SIZE;

/// Flags of `close_range(2)`, from `linux/close_range.h`.
const CLOSE_RANGE_UNSHARE: u32 = 1 << 1;
const CLOSE_RANGE_CLOEXEC: u32 = 1 << 2;

async fn open_with(thread: &Thread, fd: i32, path: u64, how: OpenHow) -> Result<u64> {
    let path = read_path(thread, path)?;
    // A named pipe waits for its other end.
    let view = view(thread);
    let opening = view.open(fd, &path, how);
    let file = thread.until_signal(opening).await??;
    insert(thread, file, how.close_on_exec())
}

fn insert(thread: &Thread, file: Arc<OpenFile>, close_on_exec: bool) -> Result<u64> {
    let fd = thread.process.files.insert(file, close_on_exec, 0)?;
    Ok(fd as u64)
}

pub(super) async fn open(thread: &mut Thread, args: Args) -> Result<u64> {
    let how = OpenHow::new(args.uint(1), args.uint(2))?;
    open_with(thread, raw::AT_FDCWD, args.get(0), how).await
}

pub(super) async fn openat(thread: &mut Thread, args: Args) -> Result<u64> {
    let how = OpenHow::new(args.uint(2), args.uint(3))?;
    open_with(thread, args.int(0), args.get(1), how).await
}

pub(super) async fn creat(thread: &mut Thread, args: Args) -> Result<u64> {
    let flags = raw::O_CREAT | raw::O_WRONLY | raw::O_TRUNC;
    let how = OpenHow::new(flags, args.uint(1))?;
    open_with(thread, raw::AT_FDCWD, args.get(0), how).await
}

pub(super) async fn openat2(thread: &mut Thread, args: Args) -> Result<u64> {
    let how = read_how(thread, args.get(2), args.size(3))?;
    open_with(thread, args.int(0), args.get(1), how).await
}

/// Reads a `struct open_how`: a later version may be longer, but then the rest must be zeros.
fn read_how(thread: &Thread, address: u64, size: usize) -> Result<OpenHow> {
    const SIZE: usize = size_of::<raw::open_how>();
    if size < SIZE {
        return Err(Errno::EINVAL);
    }
    if size > PAGE_SIZE {
        return Err(Errno::E2BIG);
    }
    let mut bytes = alloc::vec![0; size];
    thread.process.space.read(address, &mut bytes)?;
    if bytes[SIZE..].iter().any(|byte| *byte != 0) {
        return Err(Errno::E2BIG);
    }
    let field = |index: usize| {
        let mut field = [0; 8];
        field.copy_from_slice(&bytes[index * 8..][..8]);
        u64::from_ne_bytes(field)
    };
    OpenHow::strict(field(0), field(1), field(2))
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
    let (first, last, flags) = (args.uint(0), args.uint(1), args.uint(2));
    let known = CLOSE_RANGE_UNSHARE | CLOSE_RANGE_CLOEXEC;
    if flags & !known != 0 || first > last {
        return Err(Errno::EINVAL);
    }
    for fd in thread.process.files.open_in(first..=last) {
        // The table is shared with the process's other threads: some may be closed meanwhile, and
        // errors of flushing have nobody to go to.
        let _ = match flags & CLOSE_RANGE_CLOEXEC {
            0 => view(thread).close(fd).await,
            _ => thread.process.files.set_close_on_exec(fd, true),
        };
    }
    Ok(0)
}

pub(super) fn dup(thread: &mut Thread, args: Args) -> Result<u64> {
    let file = thread.process.files.get_any(args.int(0))?;
    insert(thread, file, false)
}

pub(super) async fn dup2(thread: &mut Thread, args: Args) -> Result<u64> {
    if args.int(0) == args.int(1) {
        thread.process.files.get_any(args.int(0))?;
        return Ok(args.int(1) as u64);
    }
    duplicate(thread, args.int(0), args.int(1), false).await
}

pub(super) async fn dup3(thread: &mut Thread, args: Args) -> Result<u64> {
    let flags = args.uint(2);
    if flags & !raw::O_CLOEXEC != 0 || args.int(0) == args.int(1) {
        return Err(Errno::EINVAL);
    }
    duplicate(thread, args.int(0), args.int(1), flags != 0).await
}

async fn duplicate(thread: &Thread, from: i32, to: i32, close_on_exec: bool) -> Result<u64> {
    let files = &thread.process.files;
    let file = files.get_any(from)?;
    if let Some(old) = files.replace(file, close_on_exec, to)? {
        // As Linux does it: nobody hears of an error.
        let _ = view(thread).finish_close(&old).await;
    }
    Ok(to as u64)
}

pub(super) async fn fcntl(thread: &mut Thread, args: Args) -> Result<u64> {
    let process = &*thread.process;
    let (fd, argument) = (args.int(0), args.get(2));
    let file = process.files.get_any(fd)?;
    let command = args.uint(1);
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
        | raw::F_OFD_SETLKW => lock_range(thread, &file, command, argument).await,
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

async fn lock_range(thread: &Thread, file: &Arc<OpenFile>, command: u32, at: u64) -> Result<u64> {
    let space = &thread.process.space;
    let mut lock = fs::RangeLock::read(space, at, file).await?;
    let is_ofd = command >= raw::F_OFD_GETLK;
    if is_ofd && lock.pid != 0 {
        return Err(Errno::EINVAL);
    }
    let owner = match is_ofd {
        true => fs::LockOwner::Description,
        false => fs::LockOwner::Process(thread.process.pid),
    };
    match command {
        raw::F_GETLK | raw::F_OFD_GETLK => {
            lock.test(file, owner)?;
            lock.write(space, at)?;
        }
        raw::F_SETLK | raw::F_OFD_SETLK => lock.set(file, owner)?,
        _ => {
            let waiting = lock.set_waiting(file, owner);
            thread.until_signal(waiting).await??;
        }
    }
    Ok(0)
}

pub(super) async fn flock(thread: &mut Thread, args: Args) -> Result<u64> {
    let file = thread.process.files.get(args.int(0))?;
    let operation = args.uint(1);
    let mode = match operation & !raw::LOCK_NB {
        raw::LOCK_SH => Some(fs::LockMode::Shared),
        raw::LOCK_EX => Some(fs::LockMode::Exclusive),
        raw::LOCK_UN => None,
        _ => return Err(Errno::EINVAL),
    };
    match operation & raw::LOCK_NB {
        0 => {
            let waiting = fs::lock_file_waiting(&file, mode);
            thread.until_signal(waiting).await?;
        }
        _ => fs::lock_file(&file, mode)?,
    }
    Ok(0)
}

pub(super) async fn ioctl(thread: &mut Thread, args: Args) -> Result<u64> {
    let process = &*thread.process;
    let fd = args.int(0);
    let file = process.files.get(fd)?;
    let argument = args.get(2);
    match args.uint(1) {
        request::FIOCLEX => process.files.set_close_on_exec(fd, true)?,
        request::FIONCLEX => process.files.set_close_on_exec(fd, false)?,
        request::FIONBIO => {
            let is_on = process.space.read_value::<i32>(argument)? != 0;
            let mut flags = file.flags();
            flags.set(OpenFlags::NONBLOCK, is_on);
            file.set_flags(flags);
        }
        request::FIONREAD if file.is_regular() => {
            let left = file.ops.size().await?.saturating_sub(file.position());
            process.space.write_value(argument, &(left as i32))?;
        }
        request if block_file::needs_writable(&file, request) => return Err(Errno::EBADF),
        request => {
            let control = file.ops.ioctl(request, argument, &process.space);
            let result = thread.until_signal(control).await?;
            if result == Err(Errno::ENOTTY) {
                missing::note_ioctl(&file, request);
            }
            return result;
        }
    }
    Ok(0)
}

pub(super) fn pipe(thread: &mut Thread, args: Args) -> Result<u64> {
    make_pipe(thread, args.get(0), 0)
}

pub(super) fn pipe2(thread: &mut Thread, args: Args) -> Result<u64> {
    make_pipe(thread, args.get(0), args.uint(1))
}

fn make_pipe(thread: &Thread, address: u64, flags: u32) -> Result<u64> {
    // Pipes of packets (O_DIRECT) are not there.
    if flags & !(raw::O_CLOEXEC | raw::O_NONBLOCK) != 0 {
        return Err(Errno::EINVAL);
    }
    let kept = OpenFlags::from_bits_truncate(flags & !raw::O_CLOEXEC);
    let (reader, writer) = view(thread).pipe(kept)?;
    let files = &thread.process.files;
    let close_on_exec = flags & raw::O_CLOEXEC != 0;
    let reader = files.insert(reader, close_on_exec, 0)?;
    let result = files
        .insert(writer, close_on_exec, 0)
        .and_then(|writer| {
            let pair = u64::from(reader as u32) | u64::from(writer as u32) << 32;
            let written = thread.process.space.write_value(address, &pair);
            written.inspect_err(|_| drop(files.close(writer)))
        })
        .inspect_err(|_| drop(files.close(reader)));
    result.map(|()| 0)
}

pub(super) fn eventfd(thread: &mut Thread, args: Args) -> Result<u64> {
    make_eventfd(thread, args.uint(0), 0)
}

pub(super) fn eventfd2(thread: &mut Thread, args: Args) -> Result<u64> {
    make_eventfd(thread, args.uint(0), args.uint(1))
}

fn make_eventfd(thread: &Thread, count: u32, flags: u32) -> Result<u64> {
    if flags & !(raw::EFD_SEMAPHORE | raw::EFD_CLOEXEC | raw::EFD_NONBLOCK) != 0 {
        return Err(Errno::EINVAL);
    }
    let is_semaphore = flags & raw::EFD_SEMAPHORE != 0;
    let mut kept = OpenFlags::READ_WRITE;
    kept.set(OpenFlags::NONBLOCK, flags & raw::EFD_NONBLOCK != 0);
    let file = Arc::new(fs::EventFd::new(count.into(), is_semaphore));
    insert(
        thread,
        OpenFile::new(file, kept),
        flags & raw::EFD_CLOEXEC != 0,
    )
}

pub(super) async fn memfd_create(thread: &mut Thread, args: Args) -> Result<u64> {
    /// `MFD_NAME_MAX_LEN` and the NUL.
    const NAME_LIMIT: usize = 250;
    const KNOWN: u32 =
        raw::MFD_CLOEXEC | raw::MFD_ALLOW_SEALING | raw::MFD_NOEXEC_SEAL | raw::MFD_EXEC;
    let flags = args.uint(1);
    let both = raw::MFD_EXEC | raw::MFD_NOEXEC_SEAL;
    if flags & !KNOWN != 0 || flags & both == both {
        return Err(Errno::EINVAL);
    }
    let space = &thread.process.space;
    let name = space
        .read_string(args.get(0), NAME_LIMIT)
        .map_err(|error| match error {
            Errno::ENAMETOOLONG => Errno::EINVAL,
            error => error,
        })?;
    let mode = match flags & raw::MFD_NOEXEC_SEAL {
        0 => 0o777,
        _ => 0o666,
    };
    let file = view(thread).memory_file(&name, mode).await?;
    insert(thread, file, flags & raw::MFD_CLOEXEC != 0)
}
