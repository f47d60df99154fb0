//! Sockets: making, naming, connecting and ending them. `socket(2)`, `socketpair(2)`, `bind(2)`,
//! `listen(2)`, `accept4(2)`, `connect(2)`, `shutdown(2)`, `getsockname(2)`, `getpeername(2)`.

use super::{Actor, FileRef};
use crate::error::{Errno, Result};
use crate::executor::until_deadline;
use crate::fs::{OpenFile, OpenFlags};
use crate::io::Direction;
use crate::mm::AddressSpace;
use crate::net::{Address, Identity, RawAddress, Shutdown, Socket};
use alloc::sync::Arc;
use core::future::{Future, poll_fn};
use linux_raw_sys::general::{self as raw, AT_FDCWD};
use linux_raw_sys::net;
use machine::clock;

/// The part of a type that is the type, not a flag (`SOCK_TYPE_MASK`).
const TYPE: u32 = 0xf;
/// Flags that come with a type, which are those of `open(2)`.
const SOCK_CLOEXEC: u32 = raw::O_CLOEXEC;
const SOCK_NONBLOCK: u32 = raw::O_NONBLOCK;
/// Numbers of types and of families are below these.
const TYPES: u32 = 11;
const FAMILIES: u32 = 46;
/// Longest queue of a socket that listens (`net.core.somaxconn`).
const BACKLOG_MAX: u32 = 4096;

/// The socket that `file` is.
///
/// # Errors
///
/// `ENOTSOCK`.
pub(super) fn socket(file: &OpenFile) -> Result<&Socket> {
    Socket::of(file).ok_or(Errno::ENOTSOCK)
}

impl Actor<'_> {
    /// Who it is, for whom it connects to.
    pub(super) fn identity(&self) -> Identity {
        let credentials = self.process.credentials.lock();
        Identity {
            pid: self.process.pid,
            uid: credentials.user.effective,
            gid: credentials.group.effective,
        }
    }

    /// Who it is, for whom it sends something to.
    pub(super) fn sender(&self) -> Identity {
        let credentials = self.process.credentials.lock();
        Identity {
            pid: self.process.pid,
            uid: credentials.user.real,
            gid: credentials.group.real,
        }
    }
}

/// The address of `length` bytes at `at`.
///
/// # Errors
///
/// `EINVAL`, `EFAULT`.
pub fn read_address(space: &AddressSpace, at: u64, length: i32) -> Result<RawAddress> {
    let length = usize::try_from(length).map_err(|_| Errno::EINVAL)?;
    let mut bytes = [0; RawAddress::MAX];
    let bytes = bytes.get_mut(..length).ok_or(Errno::EINVAL)?;
    space.read(at, bytes)?;
    RawAddress::new(bytes)
}

/// Where an address goes: where its length is stored, there is how many bytes it may have.
#[derive(Clone, Copy, Debug)]
pub struct AddressRoom {
    /// Where the address goes.
    pub at: u64,
    /// Where its length goes.
    pub length_at: u64,
}

impl AddressRoom {
    /// Stores `address`, as much of it as there is room for, and its whole length.
    ///
    /// # Errors
    ///
    /// `EINVAL` if the room is negative, `EFAULT`.
    pub fn write(self, space: &AddressSpace, address: &[u8]) -> Result<()> {
        let room: i32 = space.read_value(self.length_at)?;
        let room = usize::try_from(room).map_err(|_| Errno::EINVAL)?;
        space.write(self.at, &address[..address.len().min(room)])?;
        space.write_value(self.length_at, &(address.len() as u32))
    }

    /// Sees to it that this need not wait when it is stored.
    pub(super) fn prepare(self, space: &AddressSpace) -> Result<()> {
        space.prepare_write(self.length_at, size_of::<u32>())?;
        space.prepare_write(self.at, RawAddress::MAX)
    }
}

/// `address` for `socket`, with the file that a path in it leads to.
pub(super) async fn resolve(
    actor: Actor<'_>,
    socket: &Socket,
    address: RawAddress,
) -> Result<Address> {
    let node = match address.unix_path() {
        Some(path) if socket.protocol().domain == net::AF_UNIX => {
            let found = actor.view().lookup(AT_FDCWD, path, true).await?;
            Some(found.inode)
        }
        _ => None,
    };
    Ok(Address { raw: address, node })
}

/// Waits for `future`, at most as long as the socket is to wait in that direction: `late` then.
pub(super) async fn wait<T>(
    actor: Actor<'_>,
    socket: &Socket,
    direction: Direction,
    late: Errno,
    future: impl Future<Output = Result<T>>,
) -> Result<T> {
    // A ring's request ends by other means.
    let timeout = socket.timeout(direction).filter(|_| actor.is_caller());
    let deadline = timeout.map(|timeout| clock::monotonic().saturating_add(timeout));
    match actor.until_signal(until_deadline(deadline, future)).await {
        Ok(Some(result)) => result,
        Ok(None) => Err(late),
        // As on Linux: what is left of the time would have to be remembered.
        Err(_) if timeout.is_some() => Err(Errno::EINTR),
        Err(error) => Err(error),
    }
}

fn open(socket: Arc<Socket>, flags: u32) -> Arc<OpenFile> {
    let mut kept = OpenFlags::READ_WRITE;
    kept.set(OpenFlags::NONBLOCK, flags & SOCK_NONBLOCK != 0);
    OpenFile::new(socket, kept)
}

/// The type in `kind`, and the flags that come with it, checked.
fn split(kind: u32) -> Result<(u32, u32)> {
    let flags = kind & !TYPE;
    match flags & !(SOCK_CLOEXEC | SOCK_NONBLOCK) {
        0 => Ok((kind & TYPE, flags)),
        _ => Err(Errno::EINVAL),
    }
}

fn check_numbers(domain: u32, kind: u32) -> Result<()> {
    if domain >= FAMILIES {
        return Err(Errno::EAFNOSUPPORT);
    }
    match kind < TYPES {
        true => Ok(()),
        false => Err(Errno::EINVAL),
    }
}

/// `socket(2)`.
pub struct MakeSocket {
    /// `AF_*`.
    pub domain: u32,
    /// `SOCK_*`, with flags.
    pub kind: u32,
    /// `IPPROTO_*`.
    pub protocol: u32,
}

impl MakeSocket {
    /// Makes it.
    ///
    /// # Errors
    ///
    /// Those of `socket(2)`.
    pub fn run(&self, actor: Actor<'_>) -> Result<Arc<OpenFile>> {
        let (kind, flags) = split(self.kind)?;
        check_numbers(self.domain, kind)?;
        let socket = Socket::make(self.domain, kind, self.protocol, actor.identity())?;
        Ok(open(socket, flags))
    }

    /// Makes it, and gives it a descriptor.
    ///
    /// # Errors
    ///
    /// Those of [`run`](Self::run); `EMFILE`.
    pub fn install(&self, actor: Actor<'_>) -> Result<i32> {
        let file = self.run(actor)?;
        let close_on_exec = self.kind & SOCK_CLOEXEC != 0;
        actor.process.files.insert(file, close_on_exec, 0)
    }
}

/// `socketpair(2)`.
pub struct MakeSocketPair {
    /// What they are.
    pub make: MakeSocket,
    /// Where the two descriptors are stored.
    pub address: u64,
}

impl MakeSocketPair {
    /// Makes them, and gives them descriptors.
    ///
    /// # Errors
    ///
    /// Those of `socketpair(2)`.
    pub fn install(self, actor: Actor<'_>) -> Result<()> {
        let MakeSocket {
            domain,
            kind,
            protocol,
        } = self.make;
        let (kind, flags) = split(kind)?;
        let files = &actor.process.files;
        files.check_free()?;
        // As on Linux, it is written to before there is anything to write.
        actor.space().write_value(self.address, &u64::MAX)?;
        check_numbers(domain, kind)?;
        let pair = Socket::make_pair(domain, kind, protocol, actor.identity())?;
        let close_on_exec = flags & SOCK_CLOEXEC != 0;
        let [one, other] = pair.map(|socket| open(socket, flags));
        let one = files.insert(one, close_on_exec, 0)?;
        let result = files.insert(other, close_on_exec, 0).and_then(|other| {
            let pair = u64::from(one as u32) | u64::from(other as u32) << 32;
            let written = actor.space().write_value(self.address, &pair);
            written.inspect_err(|_| drop(files.close(other)))
        });
        result.inspect_err(|_| drop(files.close(one)))
    }
}

/// `bind(2)`.
pub struct Bind {
    /// The socket.
    pub file: FileRef,
    /// The address that it gets.
    pub address: RawAddress,
}

impl Bind {
    /// Does it; a path becomes a file.
    ///
    /// # Errors
    ///
    /// Those of `bind(2)`.
    pub async fn run(self, actor: Actor<'_>) -> Result<()> {
        let file = actor.file(self.file)?;
        let socket = socket(&file)?;
        let is_local = socket.protocol().domain == net::AF_UNIX;
        let Some(path) = self.address.unix_path().filter(|_| is_local) else {
            return socket.bind(&self.address.into());
        };
        let view = actor.view();
        let made = view.make_socket(path).await;
        let node = made.map_err(|error| match error {
            Errno::EEXIST => Errno::EADDRINUSE,
            error => error,
        })?;
        let address = Address {
            raw: self.address,
            node: Some(node),
        };
        if let Err(error) = socket.bind(&address) {
            // Nobody hears of what goes wrong with that.
            let _ = view.unlink(AT_FDCWD, path, 0).await;
            return Err(error);
        }
        Ok(())
    }
}

/// `listen(2)`.
pub struct Listen {
    /// The socket.
    pub file: FileRef,
    /// How many may wait to be accepted.
    pub backlog: i32,
}

impl Listen {
    /// Does it.
    ///
    /// # Errors
    ///
    /// Those of `listen(2)`.
    pub fn run(self, actor: Actor<'_>) -> Result<()> {
        let file = actor.file(self.file)?;
        let backlog = (self.backlog as u32).min(BACKLOG_MAX);
        socket(&file)?.listen(backlog, actor.identity())
    }
}

/// `accept4(2)`.
pub struct Accept {
    /// The socket that listens.
    pub file: FileRef,
    /// Where the address of who has connected goes, if anywhere.
    pub room: Option<AddressRoom>,
    /// `SOCK_CLOEXEC`, `SOCK_NONBLOCK`.
    pub flags: u32,
}

impl Accept {
    /// Waits for a connection, and gives its socket.
    ///
    /// # Errors
    ///
    /// Those of `accept4(2)`.
    pub async fn run(self, actor: Actor<'_>) -> Result<Arc<OpenFile>> {
        let file = actor.file(self.file)?;
        if self.flags & !(SOCK_CLOEXEC | SOCK_NONBLOCK) != 0 {
            return Err(Errno::EINVAL);
        }
        actor.process.files.check_free()?;
        let socket = socket(&file)?;
        if let Some(room) = self.room {
            room.prepare(actor.space())?;
        }
        let is_impatient = file.flags().contains(OpenFlags::NONBLOCK) && actor.is_caller();
        let accepting = poll_fn(|context| socket.poll_accept(is_impatient, context));
        let accepted = wait(actor, socket, Direction::Read, Errno::EAGAIN, accepting).await?;
        if let Some(room) = self.room {
            let peer = accepted.peer().map_err(|_| Errno::ECONNABORTED)?;
            room.write(actor.space(), peer.as_bytes())?;
        }
        Ok(open(accepted, self.flags))
    }

    /// Does it, and gives the new socket a descriptor.
    ///
    /// # Errors
    ///
    /// Those of [`run`](Self::run); `EMFILE`.
    pub async fn install(self, actor: Actor<'_>) -> Result<i32> {
        let close_on_exec = self.flags & SOCK_CLOEXEC != 0;
        let file = self.run(actor).await?;
        actor.process.files.insert(file, close_on_exec, 0)
    }
}

/// `connect(2)`.
pub struct Connect {
    /// The socket.
    pub file: FileRef,
    /// What it connects to.
    pub address: RawAddress,
}

impl Connect {
    /// Does it.
    ///
    /// # Errors
    ///
    /// Those of `connect(2)`.
    pub async fn run(self, actor: Actor<'_>) -> Result<()> {
        let file = actor.file(self.file)?;
        let socket = socket(&file)?;
        let to = resolve(actor, socket, self.address).await?;
        let who = actor.identity();
        let is_impatient = file.flags().contains(OpenFlags::NONBLOCK) && actor.is_caller();
        let connecting = poll_fn(|context| socket.poll_connect(&to, who, is_impatient, context));
        // A connection of the Internet families goes on to be made.
        let late = match socket.protocol().domain {
            net::AF_UNIX => Errno::EAGAIN,
            _ => Errno::EINPROGRESS,
        };
        wait(actor, socket, Direction::Write, late, connecting).await
    }
}

/// `shutdown(2)`.
pub struct ShutDown {
    /// The socket.
    pub file: FileRef,
    /// `SHUT_*`.
    pub how: u32,
}

impl ShutDown {
    /// Does it.
    ///
    /// # Errors
    ///
    /// Those of `shutdown(2)`.
    pub fn run(self, actor: Actor<'_>) -> Result<()> {
        let file = actor.file(self.file)?;
        let socket = socket(&file)?;
        let ways = match self.how {
            0 => Shutdown::RECEIVE,
            1 => Shutdown::SEND,
            2 => Shutdown::all(),
            _ => return Err(Errno::EINVAL),
        };
        socket.shutdown(ways)
    }
}

/// `getsockname(2)`.
pub struct GetName {
    /// The socket.
    pub file: FileRef,
    /// Where its address goes.
    pub room: AddressRoom,
}

impl GetName {
    /// Does it.
    ///
    /// # Errors
    ///
    /// Those of `getsockname(2)`.
    pub fn run(self, actor: Actor<'_>) -> Result<()> {
        let file = actor.file(self.file)?;
        let name = socket(&file)?.name();
        self.room.write(actor.space(), name.as_bytes())
    }
}

/// `getpeername(2)`.
pub struct GetPeer {
    /// The socket.
    pub file: FileRef,
    /// Where the address of the other end goes.
    pub room: AddressRoom,
}

impl GetPeer {
    /// Does it.
    ///
    /// # Errors
    ///
    /// Those of `getpeername(2)`.
    pub fn run(self, actor: Actor<'_>) -> Result<()> {
        let file = actor.file(self.file)?;
        let peer = socket(&file)?.peer()?;
        self.room.write(actor.space(), peer.as_bytes())
    }
}
