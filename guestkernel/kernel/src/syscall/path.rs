//! System calls that make, remove and rename files, and the working directory.

use super::{Args, actor};
use crate::error::{Errno, Result};
use crate::operation::{
    ChangeDirectory, ChangeRoot, ChangeToOpenDirectory, FileRef, GetWorkingDirectory, Layout, Link,
    ListDirectory, MakeDirectory, MakeMount, MakeNode, MakeSymlink, PathAt, Rename, SetUmask,
    Unlink, Unmount,
};
use crate::process::Thread;
use alloc::boxed::Box;
use alloc::vec::Vec;
use linux_raw_sys::general as raw;
use machine::PAGE_SIZE;

/// The path at `address`.
pub(super) fn read_path(thread: &Thread, address: u64) -> Result<Vec<u8>> {
    actor(thread).read_path(address)
}

/// The path that parameter `index` is the address of.
pub(super) fn read_here(thread: &Thread, args: Args, index: usize) -> Result<PathAt> {
    Ok(PathAt::here(read_path(thread, args.get(index))?))
}

/// The descriptor that parameter `index` is, and the path that the next one is the address of.
pub(super) fn read_at(thread: &Thread, args: Args, index: usize) -> Result<PathAt> {
    Ok(PathAt {
        fd: args.int(index),
        path: read_path(thread, args.get(index + 1))?,
    })
}

/// The result of a system call that has no value.
pub(super) trait Done {
    fn done(self) -> Result<u64>;
}

impl Done for Result<()> {
    fn done(self) -> Result<u64> {
        self.map(|()| 0)
    }
}

async fn make_directory(thread: &Thread, at: PathAt, mode: u32) -> Result<u64> {
    let making = MakeDirectory { at, mode }.run(actor(thread));
    Box::pin(making).await.done()
}

pub(super) async fn mkdir(thread: &mut Thread, args: Args) -> Result<u64> {
    make_directory(thread, read_here(thread, args, 0)?, args.uint(1)).await
}

pub(super) async fn mkdirat(thread: &mut Thread, args: Args) -> Result<u64> {
    make_directory(thread, read_at(thread, args, 0)?, args.uint(2)).await
}

async fn make_node(thread: &Thread, at: PathAt, mode: u32, device: u32) -> Result<u64> {
    let operation = MakeNode {
        at,
        mode,
        device: device.into(),
    };
    Box::pin(operation.run(actor(thread))).await.done()
}

pub(super) async fn mknod(thread: &mut Thread, args: Args) -> Result<u64> {
    MakeNode::check_mode(args.uint(1))?;
    let at = read_here(thread, args, 0)?;
    make_node(thread, at, args.uint(1), args.uint(2)).await
}

pub(super) async fn mknodat(thread: &mut Thread, args: Args) -> Result<u64> {
    MakeNode::check_mode(args.uint(2))?;
    let at = read_at(thread, args, 0)?;
    make_node(thread, at, args.uint(2), args.uint(3)).await
}

async fn remove(thread: &Thread, at: PathAt, flags: u32) -> Result<u64> {
    Unlink { at, flags }.run(actor(thread)).await.done()
}

pub(super) async fn rmdir(thread: &mut Thread, args: Args) -> Result<u64> {
    remove(thread, read_here(thread, args, 0)?, raw::AT_REMOVEDIR).await
}

pub(super) async fn unlink(thread: &mut Thread, args: Args) -> Result<u64> {
    remove(thread, read_here(thread, args, 0)?, 0).await
}

pub(super) async fn unlinkat(thread: &mut Thread, args: Args) -> Result<u64> {
    Unlink::check_flags(args.uint(2))?;
    remove(thread, read_at(thread, args, 0)?, args.uint(2)).await
}

async fn rename_to(thread: &Thread, from: PathAt, to: PathAt, flags: u32) -> Result<u64> {
    let renaming = Rename { from, to, flags }.run(actor(thread));
    Box::pin(renaming).await.done()
}

pub(super) async fn rename(thread: &mut Thread, args: Args) -> Result<u64> {
    let from = read_here(thread, args, 0)?;
    rename_to(thread, from, read_here(thread, args, 1)?, 0).await
}

pub(super) async fn renameat(thread: &mut Thread, args: Args) -> Result<u64> {
    let from = read_at(thread, args, 0)?;
    rename_to(thread, from, read_at(thread, args, 2)?, 0).await
}

pub(super) async fn renameat2(thread: &mut Thread, args: Args) -> Result<u64> {
    Rename::check_flags(args.uint(4))?;
    let from = read_at(thread, args, 0)?;
    rename_to(thread, from, read_at(thread, args, 2)?, args.uint(4)).await
}

async fn link_to(thread: &Thread, from: PathAt, to: PathAt, flags: u32) -> Result<u64> {
    let linking = Link { from, to, flags }.run(actor(thread));
    Box::pin(linking).await.done()
}

pub(super) async fn link(thread: &mut Thread, args: Args) -> Result<u64> {
    let from = read_here(thread, args, 0)?;
    link_to(thread, from, read_here(thread, args, 1)?, 0).await
}

pub(super) async fn linkat(thread: &mut Thread, args: Args) -> Result<u64> {
    Link::check_flags(args.uint(4))?;
    let from = read_at(thread, args, 0)?;
    link_to(thread, from, read_at(thread, args, 2)?, args.uint(4)).await
}

async fn make_symlink(thread: &Thread, target: Vec<u8>, at: PathAt) -> Result<u64> {
    let making = MakeSymlink { target, at }.run(actor(thread));
    Box::pin(making).await.done()
}

pub(super) async fn symlink(thread: &mut Thread, args: Args) -> Result<u64> {
    let target = read_path(thread, args.get(0))?;
    make_symlink(thread, target, read_here(thread, args, 1)?).await
}

pub(super) async fn symlinkat(thread: &mut Thread, args: Args) -> Result<u64> {
    let target = read_path(thread, args.get(0))?;
    make_symlink(thread, target, read_at(thread, args, 1)?).await
}

pub(super) fn getcwd(thread: &mut Thread, args: Args) -> Result<u64> {
    let operation = GetWorkingDirectory {
        address: args.get(0),
        room: args.size(1),
    };
    operation.run(actor(thread))
}

pub(super) async fn chdir(thread: &mut Thread, args: Args) -> Result<u64> {
    let path = read_path(thread, args.get(0))?;
    ChangeDirectory { path }.run(actor(thread)).await.done()
}

pub(super) fn fchdir(thread: &mut Thread, args: Args) -> Result<u64> {
    let operation = ChangeToOpenDirectory { fd: args.int(0) };
    operation.run(actor(thread)).done()
}

pub(super) async fn chroot(thread: &mut Thread, args: Args) -> Result<u64> {
    let path = read_path(thread, args.get(0))?;
    ChangeRoot { path }.run(actor(thread)).await.done()
}

pub(super) fn umask(thread: &mut Thread, args: Args) -> Result<u64> {
    let operation = SetUmask { mask: args.uint(0) };
    Ok(operation.run(actor(thread)).into())
}

/// A string that may be missing (`copy_mount_string` of Linux).
fn read_optional(thread: &Thread, address: u64) -> Result<Option<Vec<u8>>> {
    match address {
        0 => Ok(None),
        address => match read_path(thread, address) {
            Err(Errno::ENAMETOOLONG) => Err(Errno::EINVAL),
            string => string.map(Some),
        },
    }
}

/// Options of a mount: up to a page, as far as it is there (`copy_mount_options` of Linux).
fn read_options(thread: &Thread, address: u64) -> Result<Vec<u8>> {
    if address == 0 {
        return Ok(Vec::new());
    }
    let mut data = alloc::vec![0; PAGE_SIZE];
    let mut done = 0;
    let space = &thread.process.space;
    while done < data.len() {
        match space.read_some(address.wrapping_add(done as u64), &mut data[done..]) {
            Ok(count) => done += count,
            Err(error) if done == 0 || error == Errno::ABSENT => return Err(error),
            Err(_) => break,
        }
    }
    data.truncate(
        data.iter()
            .position(|byte| *byte == 0)
            .unwrap_or(PAGE_SIZE - 1),
    );
    Ok(data)
}

pub(super) async fn mount(thread: &mut Thread, args: Args) -> Result<u64> {
    let kind = read_optional(thread, args.get(2))?;
    let source = read_optional(thread, args.get(0))?;
    let data = read_options(thread, args.get(4))?;
    let operation = MakeMount {
        source,
        target: read_path(thread, args.get(1))?,
        kind,
        flags: args.get(3),
        data,
    };
    Box::pin(operation.run(actor(thread))).await.done()
}

pub(super) async fn umount2(thread: &mut Thread, args: Args) -> Result<u64> {
    let operation = Unmount {
        target: read_path(thread, args.get(0))?,
        flags: args.uint(1),
    };
    Box::pin(operation.run(actor(thread))).await.done()
}

async fn list(thread: &Thread, args: Args, layout: Layout) -> Result<u64> {
    let operation = ListDirectory {
        file: FileRef::Descriptor(args.int(0)),
        address: args.get(1),
        room: args.uint(2) as usize,
        layout,
    };
    operation.run(actor(thread)).await
}

pub(super) async fn getdents64(thread: &mut Thread, args: Args) -> Result<u64> {
    list(thread, args, Layout::New).await
}

pub(super) async fn getdents(thread: &mut Thread, args: Args) -> Result<u64> {
    list(thread, args, Layout::Old).await
}
