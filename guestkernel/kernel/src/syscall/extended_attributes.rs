//! System calls about extended attributes.

use super::path::Done;
use super::{Args, actor};
use crate::error::Result;
use crate::operation::{
    AttributedFile, FileRef, GetExtended, ListExtended, RemoveExtended, SetExtended,
};
use crate::process::Thread;
use alloc::boxed::Box;

fn path(args: Args) -> AttributedFile {
    AttributedFile::Path {
        address: args.get(0),
        follows: true,
    }
}

fn link(args: Args) -> AttributedFile {
    AttributedFile::Path {
        address: args.get(0),
        follows: false,
    }
}

fn open(args: Args) -> AttributedFile {
    AttributedFile::Open(FileRef::Descriptor(args.int(0)))
}

async fn set(thread: &Thread, file: AttributedFile, args: Args) -> Result<u64> {
    let operation = SetExtended {
        file,
        name_at: args.get(1),
        value_at: args.get(2),
        size: args.size(3),
        flags: args.uint(4),
    };
    Box::pin(operation.run(actor(thread))).await.done()
}

async fn get(thread: &Thread, file: AttributedFile, args: Args) -> Result<u64> {
    let operation = GetExtended {
        file,
        name_at: args.get(1),
        value_at: args.get(2),
        size: args.size(3),
    };
    Box::pin(operation.run(actor(thread))).await
}

async fn list(thread: &Thread, file: AttributedFile, args: Args) -> Result<u64> {
    let operation = ListExtended {
        file,
        list_at: args.get(1),
        size: args.size(2),
    };
    Box::pin(operation.run(actor(thread))).await
}

async fn remove(thread: &Thread, file: AttributedFile, args: Args) -> Result<u64> {
    let name_at = args.get(1);
    let operation = RemoveExtended { file, name_at };
    Box::pin(operation.run(actor(thread))).await.done()
}

pub(super) async fn setxattr(thread: &mut Thread, args: Args) -> Result<u64> {
    set(thread, path(args), args).await
}

pub(super) async fn lsetxattr(thread: &mut Thread, args: Args) -> Result<u64> {
    set(thread, link(args), args).await
}

pub(super) async fn fsetxattr(thread: &mut Thread, args: Args) -> Result<u64> {
    set(thread, open(args), args).await
}

pub(super) async fn getxattr(thread: &mut Thread, args: Args) -> Result<u64> {
    get(thread, path(args), args).await
}

pub(super) async fn lgetxattr(thread: &mut Thread, args: Args) -> Result<u64> {
    get(thread, link(args), args).await
}

pub(super) async fn fgetxattr(thread: &mut Thread, args: Args) -> Result<u64> {
    get(thread, open(args), args).await
}

pub(super) async fn listxattr(thread: &mut Thread, args: Args) -> Result<u64> {
    list(thread, path(args), args).await
}

pub(super) async fn llistxattr(thread: &mut Thread, args: Args) -> Result<u64> {
    list(thread, link(args), args).await
}

pub(super) async fn flistxattr(thread: &mut Thread, args: Args) -> Result<u64> {
    list(thread, open(args), args).await
}

pub(super) async fn removexattr(thread: &mut Thread, args: Args) -> Result<u64> {
    remove(thread, path(args), args).await
}

pub(super) async fn lremovexattr(thread: &mut Thread, args: Args) -> Result<u64> {
    remove(thread, link(args), args).await
}

pub(super) async fn fremovexattr(thread: &mut Thread, args: Args) -> Result<u64> {
    remove(thread, open(args), args).await
}
