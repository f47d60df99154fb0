//! System calls that make, remove and rename files, and the working directory.

use super::Args;
use crate::error::{Errno, Result};
use crate::fs::{DirEntry, FsContext, PATH_MAX, View};
use crate::process::Thread;
use alloc::vec::Vec;
use linux_raw_sys::general as raw;

/// Bytes of directory entries that one call gives at most.
const ENTRIES_MAX: usize = 1 << 16;

/// The path at `address`.
pub(super) fn read_path(thread: &Thread, address: u64) -> Result<Vec<u8>> {
    thread.process.space.read_string(address, PATH_MAX)
}

/// What the process can name.
pub(super) fn view(thread: &Thread) -> View<'_> {
    View {
        files: &thread.process.files,
        context: &thread.process.fs,
    }
}

fn context(thread: &Thread) -> &FsContext {
    &thread.process.fs
}

const HERE: i32 = raw::AT_FDCWD;

/// The result of a system call that has no value.
pub(super) trait Done {
    fn done(self) -> Result<u64>;
}

impl Done for Result<()> {
    fn done(self) -> Result<u64> {
        self.map(|()| 0)
    }
}

pub(super) async fn mkdir(thread: &mut Thread, args: Args) -> Result<u64> {
    let path = read_path(thread, args.get(0))?;
    view(thread)
        .make_directory(HERE, &path, args.uint(1))
        .await
        .done()
}

pub(super) async fn mkdirat(thread: &mut Thread, args: Args) -> Result<u64> {
    let path = read_path(thread, args.get(1))?;
    view(thread)
        .make_directory(args.int(0), &path, args.uint(2))
        .await
        .done()
}

pub(super) async fn mknod(thread: &mut Thread, args: Args) -> Result<u64> {
    let path = read_path(thread, args.get(0))?;
    let device = args.uint(2).into();
    view(thread)
        .make_node(HERE, &path, args.uint(1), device)
        .await
        .done()
}

pub(super) async fn mknodat(thread: &mut Thread, args: Args) -> Result<u64> {
    let path = read_path(thread, args.get(1))?;
    let device = args.uint(3).into();
    view(thread)
        .make_node(args.int(0), &path, args.uint(2), device)
        .await
        .done()
}

pub(super) async fn rmdir(thread: &mut Thread, args: Args) -> Result<u64> {
    let path = read_path(thread, args.get(0))?;
    view(thread)
        .unlink(HERE, &path, raw::AT_REMOVEDIR)
        .await
        .done()
}

pub(super) async fn unlink(thread: &mut Thread, args: Args) -> Result<u64> {
    let path = read_path(thread, args.get(0))?;
    view(thread).unlink(HERE, &path, 0).await.done()
}

pub(super) async fn unlinkat(thread: &mut Thread, args: Args) -> Result<u64> {
    let path = read_path(thread, args.get(1))?;
    view(thread)
        .unlink(args.int(0), &path, args.uint(2))
        .await
        .done()
}

pub(super) async fn rename(thread: &mut Thread, args: Args) -> Result<u64> {
    let from = read_path(thread, args.get(0))?;
    let to = read_path(thread, args.get(1))?;
    view(thread)
        .rename((HERE, &from), (HERE, &to), 0)
        .await
        .done()
}

pub(super) async fn renameat(thread: &mut Thread, args: Args) -> Result<u64> {
    rename_with(thread, args, 0).await
}

pub(super) async fn renameat2(thread: &mut Thread, args: Args) -> Result<u64> {
    rename_with(thread, args, args.uint(4)).await
}

async fn rename_with(thread: &Thread, args: Args, flags: u32) -> Result<u64> {
    let from = read_path(thread, args.get(1))?;
    let to = read_path(thread, args.get(3))?;
    let (from, to) = ((args.int(0), &*from), (args.int(2), &*to));
    view(thread).rename(from, to, flags).await.done()
}

pub(super) async fn link(thread: &mut Thread, args: Args) -> Result<u64> {
    let from = read_path(thread, args.get(0))?;
    let to = read_path(thread, args.get(1))?;
    view(thread)
        .link((HERE, &from), (HERE, &to), 0)
        .await
        .done()
}

pub(super) async fn linkat(thread: &mut Thread, args: Args) -> Result<u64> {
    let from = read_path(thread, args.get(1))?;
    let to = read_path(thread, args.get(3))?;
    let (from, to) = ((args.int(0), &*from), (args.int(2), &*to));
    view(thread).link(from, to, args.uint(4)).await.done()
}

pub(super) async fn symlink(thread: &mut Thread, args: Args) -> Result<u64> {
    let target = read_path(thread, args.get(0))?;
    let path = read_path(thread, args.get(1))?;
    view(thread).make_symlink(&target, HERE, &path).await.done()
}

pub(super) async fn symlinkat(thread: &mut Thread, args: Args) -> Result<u64> {
    let target = read_path(thread, args.get(0))?;
    let path = read_path(thread, args.get(2))?;
    view(thread)
        .make_symlink(&target, args.int(1), &path)
        .await
        .done()
}

pub(super) fn getcwd(thread: &mut Thread, args: Args) -> Result<u64> {
    let context = context(thread);
    let (path, is_reachable) = context.path_of(context.working_directory().into())?;
    let prefix: &[u8] = if is_reachable { b"" } else { b"(unreachable)" };
    let path = [prefix, &path, b"\0"].concat();
    if path.len() > args.size(1) {
        return Err(Errno::ERANGE);
    }
    thread.process.space.write(args.get(0), &path)?;
    Ok(path.len() as u64)
}

pub(super) async fn chdir(thread: &mut Thread, args: Args) -> Result<u64> {
    let path = read_path(thread, args.get(0))?;
    let directory = view(thread).lookup(HERE, &path, true).await?;
    context(thread).set_working_directory(directory).done()
}

pub(super) fn fchdir(thread: &mut Thread, args: Args) -> Result<u64> {
    let file = thread.process.files.get_any(args.int(0))?;
    let directory = file.location().ok_or(Errno::ENOTDIR)?.clone();
    context(thread).set_working_directory(directory).done()
}

pub(super) async fn chroot(thread: &mut Thread, args: Args) -> Result<u64> {
    let path = read_path(thread, args.get(0))?;
    let directory = view(thread).lookup(HERE, &path, true).await?;
    context(thread).set_root(directory).done()
}

pub(super) fn umask(thread: &mut Thread, args: Args) -> Result<u64> {
    Ok(context(thread).set_umask(args.uint(0)).into())
}

/// How entries of a directory are laid out in memory.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Layout {
    /// `struct linux_dirent64`: the type comes before the name.
    New,
    /// `struct linux_dirent`: the type is the entry's last byte.
    Old,
}

impl Layout {
    /// Bytes before the name.
    fn header(self) -> usize {
        match self {
            Self::New => 19,
            Self::Old => 18,
        }
    }

    /// Appends an entry to `out`, which is to hold no more than `room` bytes; false if it does
    /// not fit.
    fn append(self, entry: &DirEntry<'_>, out: &mut Vec<u8>, room: usize) -> bool {
        // The name has a NUL, and the old layout a type after it.
        let tail = if self == Self::Old { 2 } else { 1 };
        let length = (self.header() + entry.name.len() + tail).next_multiple_of(8);
        if length > room - out.len() {
            return false;
        }
        let end = out.len() + length;
        out.extend_from_slice(&entry.inode.to_ne_bytes());
        out.extend_from_slice(&entry.next.to_ne_bytes());
        out.extend_from_slice(&(length as u16).to_ne_bytes());
        if self == Self::New {
            out.push(entry.kind);
        }
        out.extend_from_slice(entry.name);
        out.resize(end, 0);
        if self == Self::Old {
            out[end - 1] = entry.kind;
        }
        true
    }
}

pub(super) async fn getdents64(thread: &mut Thread, args: Args) -> Result<u64> {
    list(thread, args, Layout::New).await
}

pub(super) async fn getdents(thread: &mut Thread, args: Args) -> Result<u64> {
    list(thread, args, Layout::Old).await
}

async fn list(thread: &Thread, args: Args, layout: Layout) -> Result<u64> {
    let file = thread.process.files.get(args.int(0))?;
    let room = (args.uint(2) as usize).min(ENTRIES_MAX);
    let mut out = Vec::new();
    let mut is_full = false;
    let mut sink = |entry: &DirEntry<'_>| {
        is_full = !layout.append(entry, &mut out, room);
        !is_full
    };
    let next = file.ops.read_dir(file.position(), &mut sink).await?;
    if out.is_empty() && is_full {
        return Err(Errno::EINVAL);
    }
    thread.process.space.write(args.get(1), &out)?;
    file.set_position(next);
    Ok(out.len() as u64)
}
