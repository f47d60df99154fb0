//! System calls about the attributes of files and file systems.

use super::path::{Done, read_path};
use super::{Args, actor};
use crate::error::{Errno, Result};
use crate::fs::{self, AttributeChange, FileSystemInfo, SetTime, Stat, Timestamp};
use crate::mm::AddressSpace;
use crate::operation::{
    CheckAccess, FileRef, GetAttributes, GetExtendedAttributes, GetFileSystem, GetOpenAttributes,
    GetOpenFileSystem, PathAt, ReadLink, SetAttributes, SetOpenAttributes, Target, TruncatePath,
};
use crate::process::Thread;
use alloc::vec::Vec;
use linux_raw_sys::general as raw;
use machine::Plain;

const HERE: i32 = raw::AT_FDCWD;

fn write_stat(thread: &Thread, address: u64, stat: &Stat) -> Result<u64> {
    thread
        .process
        .space
        .write_value(address, &stat.to_linux())
        .done()
}

async fn stat_path(thread: &Thread, args: Args, flags: u32) -> Result<u64> {
    let at = PathAt::here(read_path(thread, args.get(0))?);
    let operation = GetAttributes(Target { at, flags });
    let stat = operation.run(actor(thread)).await?;
    write_stat(thread, args.get(1), &stat)
}

pub(super) async fn stat(thread: &mut Thread, args: Args) -> Result<u64> {
    stat_path(thread, args, 0).await
}

pub(super) async fn lstat(thread: &mut Thread, args: Args) -> Result<u64> {
    stat_path(thread, args, raw::AT_SYMLINK_NOFOLLOW).await
}

pub(super) async fn fstat(thread: &mut Thread, args: Args) -> Result<u64> {
    let operation = GetOpenAttributes { fd: args.int(0) };
    let stat = operation.run(actor(thread)).await?;
    write_stat(thread, args.get(1), &stat)
}

/// A file named by the first two parameters. The path may be missing where an empty one will do.
fn read_optional(thread: &Thread, args: Args, flags: u32) -> Result<Target> {
    let path = match args.get(1) {
        0 if flags & raw::AT_EMPTY_PATH != 0 => Vec::new(),
        address => read_path(thread, address)?,
    };
    let fd = args.int(0);
    Ok(Target {
        at: PathAt { fd, path },
        flags,
    })
}

pub(super) async fn newfstatat(thread: &mut Thread, args: Args) -> Result<u64> {
    let flags = args.uint(3);
    let known = raw::AT_SYMLINK_NOFOLLOW | raw::AT_NO_AUTOMOUNT | raw::AT_EMPTY_PATH;
    if flags & !known != 0 {
        return Err(Errno::EINVAL);
    }
    let operation = GetAttributes(read_optional(thread, args, flags)?);
    let stat = operation.run(actor(thread)).await?;
    write_stat(thread, args.get(2), &stat)
}

pub(super) async fn statx(thread: &mut Thread, args: Args) -> Result<u64> {
    let (flags, mask) = (args.uint(2), args.uint(3));
    GetExtendedAttributes::check_flags(flags, mask)?;
    let target = read_optional(thread, args, flags)?;
    let operation = GetExtendedAttributes { target, mask };
    let result = operation.run(actor(thread)).await?;
    thread
        .process
        .space
        .write_value(args.get(4), &result)
        .done()
}

async fn access_at(thread: &Thread, fd: i32, path: u64, mode: u32, flags: u32) -> Result<u64> {
    CheckAccess::check_flags(mode, flags)?;
    let path = read_path(thread, path)?;
    let at = PathAt { fd, path };
    let operation = CheckAccess {
        target: Target { at, flags },
        mode,
    };
    operation.run(actor(thread)).await.done()
}

pub(super) async fn access(thread: &mut Thread, args: Args) -> Result<u64> {
    access_at(thread, HERE, args.get(0), args.uint(1), 0).await
}

pub(super) async fn faccessat(thread: &mut Thread, args: Args) -> Result<u64> {
    access_at(thread, args.int(0), args.get(1), args.uint(2), 0).await
}

pub(super) async fn faccessat2(thread: &mut Thread, args: Args) -> Result<u64> {
    access_at(thread, args.int(0), args.get(1), args.uint(2), args.uint(3)).await
}

async fn readlink_at(thread: &Thread, fd: i32, path: u64, buffer: u64, size: i32) -> Result<u64> {
    if size <= 0 {
        return Err(Errno::EINVAL);
    }
    let path = read_path(thread, path)?;
    let operation = ReadLink {
        at: PathAt { fd, path },
    };
    let target = operation.run(actor(thread)).await?;
    let count = target.len().min(size as usize);
    thread.process.space.write(buffer, &target[..count])?;
    Ok(count as u64)
}

pub(super) async fn readlink(thread: &mut Thread, args: Args) -> Result<u64> {
    readlink_at(thread, HERE, args.get(0), args.get(1), args.int(2)).await
}

pub(super) async fn readlinkat(thread: &mut Thread, args: Args) -> Result<u64> {
    readlink_at(thread, args.int(0), args.get(1), args.get(2), args.int(3)).await
}

/// Changes the attributes of the file at the path at `path`.
async fn change(
    thread: &Thread,
    fd: i32,
    path: u64,
    flags: u32,
    change: AttributeChange,
) -> Result<u64> {
    if flags & !(raw::AT_SYMLINK_NOFOLLOW | raw::AT_EMPTY_PATH) != 0 {
        return Err(Errno::EINVAL);
    }
    let path = read_path(thread, path)?;
    let at = PathAt { fd, path };
    let operation = SetAttributes {
        target: Target { at, flags },
        change,
    };
    operation.run(actor(thread)).await.done()
}

async fn change_open(thread: &Thread, fd: i32, change: AttributeChange) -> Result<u64> {
    let file = FileRef::Descriptor(fd);
    let operation = SetOpenAttributes { file, change };
    operation.run(actor(thread)).await.done()
}

fn mode_change(mode: u32) -> AttributeChange {
    AttributeChange {
        mode: Some(mode & 0o7777),
        ..AttributeChange::default()
    }
}

pub(super) async fn chmod(thread: &mut Thread, args: Args) -> Result<u64> {
    change(thread, HERE, args.get(0), 0, mode_change(args.uint(1))).await
}

pub(super) async fn fchmod(thread: &mut Thread, args: Args) -> Result<u64> {
    change_open(thread, args.int(0), mode_change(args.uint(1))).await
}

pub(super) async fn fchmodat(thread: &mut Thread, args: Args) -> Result<u64> {
    change(
        thread,
        args.int(0),
        args.get(1),
        0,
        mode_change(args.uint(2)),
    )
    .await
}

pub(super) async fn fchmodat2(thread: &mut Thread, args: Args) -> Result<u64> {
    let mode = mode_change(args.uint(2));
    change(thread, args.int(0), args.get(1), args.uint(3), mode).await
}

/// New owner and group; -1 leaves one as it is.
fn owner_change(uid: u32, gid: u32) -> AttributeChange {
    let set = |id: u32| (id != u32::MAX).then_some(id);
    AttributeChange {
        uid: set(uid),
        gid: set(gid),
        ..AttributeChange::default()
    }
}

pub(super) async fn chown(thread: &mut Thread, args: Args) -> Result<u64> {
    let owner = owner_change(args.uint(1), args.uint(2));
    change(thread, HERE, args.get(0), 0, owner).await
}

pub(super) async fn lchown(thread: &mut Thread, args: Args) -> Result<u64> {
    let owner = owner_change(args.uint(1), args.uint(2));
    change(thread, HERE, args.get(0), raw::AT_SYMLINK_NOFOLLOW, owner).await
}

pub(super) async fn fchown(thread: &mut Thread, args: Args) -> Result<u64> {
    change_open(
        thread,
        args.int(0),
        owner_change(args.uint(1), args.uint(2)),
    )
    .await
}

pub(super) async fn fchownat(thread: &mut Thread, args: Args) -> Result<u64> {
    let owner = owner_change(args.uint(2), args.uint(3));
    change(thread, args.int(0), args.get(1), args.uint(4), owner).await
}

fn time_change(accessed: Option<SetTime>, modified: Option<SetTime>) -> AttributeChange {
    AttributeChange {
        accessed,
        modified,
        ..AttributeChange::default()
    }
}

fn both_now() -> AttributeChange {
    time_change(Some(SetTime::Now), Some(SetTime::Now))
}

pub(super) async fn utimensat(thread: &mut Thread, args: Args) -> Result<u64> {
    let (fd, path, times) = (args.int(0), args.get(1), args.get(2));
    let times = match times {
        0 => both_now(),
        address => {
            let space = &thread.process.space;
            let read = |at: u64| {
                let time: raw::timespec = space.read_value(address.wrapping_add(at))?;
                fs::decode_time(time.tv_sec, time.tv_nsec)
            };
            let change = time_change(read(0)?, read(16)?);
            if change == AttributeChange::default() {
                // Both are UTIME_OMIT: nothing is looked at.
                return Ok(0);
            }
            change
        }
    };
    match path {
        0 if fd != HERE => match args.uint(3) {
            0 => change_open(thread, fd, times).await,
            _ => Err(Errno::EINVAL),
        },
        path => change(thread, fd, path, args.uint(3), times).await,
    }
}

/// A time in seconds and microseconds.
fn read_timeval(space: &AddressSpace, address: u64) -> Result<SetTime> {
    let time: raw::timeval = space.read_value(address)?;
    match u32::try_from(time.tv_usec) {
        Ok(microseconds @ 0..1_000_000) => Ok(SetTime::To(Timestamp {
            seconds: time.tv_sec,
            nanoseconds: microseconds * 1000,
        })),
        _ => Err(Errno::EINVAL),
    }
}

async fn utimes_at(thread: &Thread, fd: i32, path: u64, times: u64) -> Result<u64> {
    let times = match times {
        0 => both_now(),
        address => {
            let space = &thread.process.space;
            let accessed = read_timeval(space, address)?;
            let modified = read_timeval(space, address.wrapping_add(16))?;
            time_change(Some(accessed), Some(modified))
        }
    };
    change(thread, fd, path, 0, times).await
}

pub(super) async fn utimes(thread: &mut Thread, args: Args) -> Result<u64> {
    utimes_at(thread, HERE, args.get(0), args.get(1)).await
}

pub(super) async fn futimesat(thread: &mut Thread, args: Args) -> Result<u64> {
    match args.get(1) {
        0 => Err(Errno::EFAULT),
        path => utimes_at(thread, args.int(0), path, args.get(2)).await,
    }
}

pub(super) async fn utime(thread: &mut Thread, args: Args) -> Result<u64> {
    let times = match args.get(1) {
        0 => both_now(),
        address => {
            let read = |at: u64| -> Result<Option<SetTime>> {
                let seconds = thread.process.space.read_value(address.wrapping_add(at))?;
                Ok(Some(SetTime::To(Timestamp {
                    seconds,
                    nanoseconds: 0,
                })))
            };
            time_change(read(0)?, read(8)?)
        }
    };
    change(thread, HERE, args.get(0), 0, times).await
}

pub(super) async fn truncate(thread: &mut Thread, args: Args) -> Result<u64> {
    let size = u64::try_from(args.long(1)).map_err(|_| Errno::EINVAL)?;
    let path = read_path(thread, args.get(0))?;
    let operation = TruncatePath { path, size };
    operation.run(actor(thread)).await.done()
}

fn write_statfs(thread: &Thread, address: u64, info: &FileSystemInfo) -> Result<u64> {
    /// `ST_VALID` and `ST_RELATIME`.
    const FLAGS: i64 = 0x20 | 0x1000;
    let mut out = raw::statfs64::zeroed();
    out.f_type = info.magic as i64;
    out.f_bsize = info.block_size as i64;
    out.f_blocks = info.blocks;
    out.f_bfree = info.free_blocks;
    out.f_bavail = info.free_blocks;
    out.f_files = info.files;
    out.f_ffree = info.free_files;
    out.f_fsid.val = [info.id as i32, (info.id >> 32) as i32];
    out.f_namelen = info.name_length as i64;
    out.f_frsize = info.block_size as i64;
    out.f_flags = FLAGS;
    thread.process.space.write_value(address, &out).done()
}

pub(super) async fn statfs(thread: &mut Thread, args: Args) -> Result<u64> {
    let path = read_path(thread, args.get(0))?;
    let info = GetFileSystem { path }.run(actor(thread)).await?;
    write_statfs(thread, args.get(1), &info)
}

pub(super) async fn fstatfs(thread: &mut Thread, args: Args) -> Result<u64> {
    let operation = GetOpenFileSystem { fd: args.int(0) };
    let info = operation.run(actor(thread)).await?;
    write_statfs(thread, args.get(1), &info)
}
