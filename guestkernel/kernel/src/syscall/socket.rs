//! System calls about sockets.

use super::path::Done;
use super::{Args, actor};
use crate::error::{Errno, Result};
use crate::net::Socket;
use crate::operation::{
    Accept, AddressRoom, Bind, Connect, FileRef, GetName, GetOption, GetPeer, Listen, MakeSocket,
    MakeSocketPair, ReceiveMessage, ReceiveMessages, SendMessage, SendMessages, SetOption,
    ShutDown, read_address,
};
use crate::process::Thread;
use alloc::boxed::Box;

/// The file behind the descriptor that is the first parameter.
fn file(args: Args) -> FileRef {
    FileRef::Descriptor(args.int(0))
}

/// The same, which must be a socket: for calls that look at that before they read an address.
fn socket(thread: &Thread, args: Args) -> Result<FileRef> {
    let file = actor(thread).file(file(args))?;
    match Socket::of(&file) {
        Some(_) => Ok(FileRef::File(file)),
        None => Err(Errno::ENOTSOCK),
    }
}

fn make(args: Args) -> MakeSocket {
    MakeSocket {
        domain: args.uint(0),
        kind: args.uint(1),
        protocol: args.uint(2),
    }
}

/// Where an address goes that parameters `index` and the next name; nowhere if that is 0.
fn room(args: Args, index: usize) -> Option<AddressRoom> {
    (args.get(index) != 0).then(|| AddressRoom {
        at: args.get(index),
        length_at: args.get(index + 1),
    })
}

pub(super) fn socket_call(thread: &mut Thread, args: Args) -> Result<u64> {
    make(args).install(actor(thread)).map(|fd| fd as u64)
}

pub(super) fn socketpair(thread: &mut Thread, args: Args) -> Result<u64> {
    let operation = MakeSocketPair {
        make: make(args),
        address: args.get(3),
    };
    operation.install(actor(thread)).done()
}

pub(super) async fn bind(thread: &mut Thread, args: Args) -> Result<u64> {
    let file = socket(thread, args)?;
    let address = read_address(actor(thread).space(), args.get(1), args.int(2))?;
    let operation = Bind { file, address };
    Box::pin(operation.run(actor(thread))).await.done()
}

pub(super) fn listen(thread: &mut Thread, args: Args) -> Result<u64> {
    let operation = Listen {
        file: file(args),
        backlog: args.int(1),
    };
    operation.run(actor(thread)).done()
}

async fn accept_with(thread: &Thread, args: Args, flags: u32) -> Result<u64> {
    let operation = Accept {
        file: file(args),
        room: room(args, 1),
        flags,
    };
    let fd = operation.install(actor(thread)).await?;
    Ok(fd as u64)
}

pub(super) async fn accept(thread: &mut Thread, args: Args) -> Result<u64> {
    accept_with(thread, args, 0).await
}

pub(super) async fn accept4(thread: &mut Thread, args: Args) -> Result<u64> {
    accept_with(thread, args, args.uint(3)).await
}

pub(super) async fn connect(thread: &mut Thread, args: Args) -> Result<u64> {
    let file = socket(thread, args)?;
    let address = read_address(actor(thread).space(), args.get(1), args.int(2))?;
    let operation = Connect { file, address };
    Box::pin(operation.run(actor(thread))).await.done()
}

pub(super) fn shutdown(thread: &mut Thread, args: Args) -> Result<u64> {
    let operation = ShutDown {
        file: file(args),
        how: args.uint(1),
    };
    operation.run(actor(thread)).done()
}

pub(super) fn getsockname(thread: &mut Thread, args: Args) -> Result<u64> {
    let operation = GetName {
        file: file(args),
        room: AddressRoom {
            at: args.get(1),
            length_at: args.get(2),
        },
    };
    operation.run(actor(thread)).done()
}

pub(super) fn getpeername(thread: &mut Thread, args: Args) -> Result<u64> {
    let operation = GetPeer {
        file: file(args),
        room: AddressRoom {
            at: args.get(1),
            length_at: args.get(2),
        },
    };
    operation.run(actor(thread)).done()
}

pub(super) fn setsockopt(thread: &mut Thread, args: Args) -> Result<u64> {
    let operation = SetOption {
        file: file(args),
        level: args.uint(1),
        name: args.uint(2),
        value_at: args.get(3),
        length: args.int(4),
    };
    operation.run(actor(thread)).done()
}

pub(super) fn getsockopt(thread: &mut Thread, args: Args) -> Result<u64> {
    let operation = GetOption {
        file: file(args),
        level: args.uint(1),
        name: args.uint(2),
        value_at: args.get(3),
        length_at: args.get(4),
    };
    operation.run(actor(thread)).done()
}

pub(super) async fn sendto(thread: &mut Thread, args: Args) -> Result<u64> {
    let operation = SendMessage::To {
        file: file(args),
        bytes: (args.get(1), args.get(2)),
        flags: args.uint(3),
        address: (args.get(4), args.int(5)),
    };
    Box::pin(operation.run(actor(thread))).await
}

pub(super) async fn recvfrom(thread: &mut Thread, args: Args) -> Result<u64> {
    let operation = ReceiveMessage::From {
        file: file(args),
        bytes: (args.get(1), args.get(2)),
        flags: args.uint(3),
        room: room(args, 4),
    };
    Box::pin(operation.run(actor(thread))).await
}

pub(super) async fn sendmsg(thread: &mut Thread, args: Args) -> Result<u64> {
    let operation = SendMessage::Message {
        file: file(args),
        header_at: args.get(1),
        flags: args.uint(2),
    };
    Box::pin(operation.run(actor(thread))).await
}

pub(super) async fn recvmsg(thread: &mut Thread, args: Args) -> Result<u64> {
    let operation = ReceiveMessage::Message {
        file: file(args),
        header_at: args.get(1),
        flags: args.uint(2),
    };
    Box::pin(operation.run(actor(thread))).await
}

pub(super) async fn sendmmsg(thread: &mut Thread, args: Args) -> Result<u64> {
    let operation = SendMessages {
        file: file(args),
        entries_at: args.get(1),
        count: args.uint(2),
        flags: args.uint(3),
    };
    Box::pin(operation.run(actor(thread))).await
}

pub(super) async fn recvmmsg(thread: &mut Thread, args: Args) -> Result<u64> {
    let operation = ReceiveMessages {
        file: file(args),
        entries_at: args.get(1),
        count: args.uint(2),
        flags: args.uint(3),
        time_at: args.get(4),
    };
    Box::pin(operation.run(actor(thread))).await
}
