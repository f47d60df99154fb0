//! Sending and receiving: `sendto(2)`, `sendmsg(2)`, `sendmmsg(2)`, `recvfrom(2)`, `recvmsg(2)`,
//! `recvmmsg(2)`, and what `read(2)` and `write(2)` do with a socket.

use super::message_header::{self, MessageHeader};
use super::socket::{AddressRoom, read_address, resolve, socket, wait};
use super::time_value::{deadline_after, read_timespec};
use super::{Actor, FileRef, message_control};
use crate::error::{Errno, Result};
use crate::executor::Stint;
use crate::fs::{OpenFile, OpenFlags};
use crate::io::{Direction, Io, IoFlags};
use crate::mm::{IoBuffer, MAX_COUNT, UserRange};
use crate::net::{Incoming, MessageFlags, Outgoing, RawAddress, Socket};
use crate::process::Signal;
use alloc::boxed::Box;
use core::future::poll_fn;
use core::task::{Context, Poll};
use linux_raw_sys::general as raw;
use machine::clock;

/// `MSG_WAITFORONE`: after the first message nothing is waited for.
const WAIT_FOR_ONE: u32 = 0x10000;
/// Bytes of a `struct mmsghdr`, and where the length is in it.
const ENTRY: u64 = 64;
const ENTRY_LENGTH: u64 = message_header::SIZE;

/// How a transfer with `file` is done.
fn io(file: &OpenFile, direction: Direction, buffer: IoBuffer, flags: MessageFlags) -> Io {
    let is_nonblocking = file.flags().contains(OpenFlags::NONBLOCK);
    let mut io_flags = IoFlags::empty();
    if is_nonblocking || flags.contains(MessageFlags::DONT_WAIT) {
        io_flags |= IoFlags::NOWAIT;
    }
    Io::new(direction, None, buffer, io_flags)
}

/// A send, to be polled where it stands.
pub struct Sending {
    io: Io,
    message: Outgoing,
}

impl Sending {
    /// Sends `buffer` to whom the socket is connected to. Nothing is allocated for that.
    pub fn new(actor: Actor<'_>, file: &OpenFile, buffer: IoBuffer, flags: MessageFlags) -> Self {
        Self {
            io: io(file, Direction::Write, buffer, flags),
            message: Outgoing {
                flags,
                sender: Some(actor.sender()),
                ..Outgoing::default()
            },
        }
    }

    /// Has it go to `address`.
    ///
    /// # Errors
    ///
    /// Those of looking up a path.
    pub async fn set_address(
        &mut self,
        actor: Actor<'_>,
        socket: &Socket,
        address: RawAddress,
    ) -> Result<()> {
        let address = resolve(actor, socket, address).await?;
        self.message.to = Some(Box::new(address));
        Ok(())
    }

    /// Has it wait, whatever the open file's flags say: what a ring does.
    pub fn be_patient(&mut self) {
        if !self.message.flags.contains(MessageFlags::DONT_WAIT) {
            self.io.flags.remove(IoFlags::NOWAIT);
        }
    }

    /// Bytes that were sent so far.
    pub fn done(&self) -> usize {
        self.io.done
    }

    /// Advances it.
    ///
    /// # Errors
    ///
    /// Those of `sendmsg(2)`; `ENOTSOCK`.
    pub fn poll(&mut self, file: &OpenFile, context: &mut Context<'_>) -> Poll<Result<usize>> {
        match socket(file) {
            Ok(socket) => socket.poll_send(&mut self.io, &mut self.message, context),
            Err(error) => Poll::Ready(Err(error)),
        }
    }

    /// Sends what ending with `error` sends: SIGPIPE to who has sent to nobody.
    pub fn signal_failure(&self, file: &OpenFile, error: Errno, actor: Actor<'_>) {
        let is_quiet = self.message.flags.contains(MessageFlags::NO_SIGNAL);
        let breaks = Socket::of(file).is_some_and(Socket::breaks_with_signal);
        if error == Errno::EPIPE && breaks && !is_quiet {
            actor.signal(Signal::SIGPIPE);
        }
    }

    /// Does it all; gives the bytes that were sent.
    ///
    /// # Errors
    ///
    /// Those of `sendmsg(2)`.
    pub async fn run(&mut self, file: &OpenFile, actor: Actor<'_>) -> Result<u64> {
        let socket = socket(file)?;
        let sending = poll_fn(|context| self.poll(file, context));
        let result = wait(actor, socket, Direction::Write, Errno::EAGAIN, sending).await;
        match result {
            Ok(count) => Ok(count as u64),
            Err(_) if self.io.done > 0 => Ok(self.io.done as u64),
            Err(error) => {
                self.signal_failure(file, error, actor);
                Err(error)
            }
        }
    }
}

/// A receive, to be polled where it stands.
pub struct Receiving {
    io: Io,
    message: Incoming,
}

impl Receiving {
    /// Receives into `buffer`. Nothing is allocated for that.
    pub fn new(file: &OpenFile, buffer: IoBuffer, flags: MessageFlags) -> Self {
        Self {
            io: io(file, Direction::Read, buffer, flags),
            message: Incoming {
                flags,
                told: flags & MessageFlags::CLOSE_ON_EXEC,
                ..Incoming::default()
            },
        }
    }

    /// As [`Sending::be_patient`].
    pub fn be_patient(&mut self) {
        if !self.message.flags.contains(MessageFlags::DONT_WAIT) {
            self.io.flags.remove(IoFlags::NOWAIT);
        }
    }

    /// Bytes that were received so far.
    pub fn done(&self) -> usize {
        self.io.done
    }

    /// What came, besides the bytes.
    pub fn message(&self) -> &Incoming {
        &self.message
    }

    /// Advances it.
    ///
    /// # Errors
    ///
    /// Those of `recvmsg(2)`; `ENOTSOCK`.
    pub fn poll(&mut self, file: &OpenFile, context: &mut Context<'_>) -> Poll<Result<usize>> {
        match socket(file) {
            Ok(socket) => socket.poll_receive(&mut self.io, &mut self.message, context),
            Err(error) => Poll::Ready(Err(error)),
        }
    }

    /// Does it all; gives the bytes that came.
    ///
    /// # Errors
    ///
    /// Those of `recvmsg(2)`.
    pub async fn run(&mut self, file: &OpenFile, actor: Actor<'_>) -> Result<u64> {
        let socket = socket(file)?;
        let receiving = poll_fn(|context| self.poll(file, context));
        let result = wait(actor, socket, Direction::Read, Errno::EAGAIN, receiving).await;
        match result {
            Ok(count) => Ok(count as u64),
            Err(_) if self.io.done > 0 => Ok(self.io.done as u64),
            Err(error) => Err(error),
        }
    }
}

/// What `read(2)` and `write(2)` do with a socket.
pub(super) async fn transfer_with_socket(
    actor: Actor<'_>,
    file: &OpenFile,
    direction: Direction,
    buffer: IoBuffer,
) -> Result<u64> {
    let flags = MessageFlags::empty();
    match direction {
        Direction::Read => Receiving::new(file, buffer, flags).run(file, actor).await,
        Direction::Write => {
            let mut sending = Sending::new(actor, file, buffer, flags);
            sending.run(file, actor).await
        }
    }
}

/// The bytes of a message in a program's memory, in one piece.
fn one_piece(actor: Actor<'_>, address: u64, length: u64) -> Result<IoBuffer> {
    let range = UserRange::new(address, length, MAX_COUNT)?;
    Ok(IoBuffer::vectored(actor.space().clone(), [range].into()))
}

/// A message to send.
pub enum SendMessage {
    /// `sendto(2)`: bytes in one piece.
    To {
        /// The socket.
        file: FileRef,
        /// Where the bytes are, and how many.
        bytes: (u64, u64),
        /// `MSG_*`.
        flags: u32,
        /// Where the address is, or 0, and its bytes.
        address: (u64, i32),
    },
    /// `sendmsg(2)`.
    Message {
        /// The socket.
        file: FileRef,
        /// Where the `struct msghdr` is.
        header_at: u64,
        /// `MSG_*`.
        flags: u32,
    },
}

impl SendMessage {
    /// Sends it; gives the bytes.
    ///
    /// # Errors
    ///
    /// Those of `sendmsg(2)`.
    pub async fn run(self, actor: Actor<'_>) -> Result<u64> {
        match self {
            Self::To {
                file,
                bytes: (at, length),
                flags,
                address: (address_at, address_length),
            } => {
                let buffer = one_piece(actor, at, length)?;
                let file = actor.file(file)?;
                let socket = socket(&file)?;
                let flags = MessageFlags::from_bits_retain(flags);
                let mut sending = Sending::new(actor, &file, buffer, flags);
                if address_at != 0 {
                    let address = read_address(actor.space(), address_at, address_length)?;
                    sending.set_address(actor, socket, address).await?;
                }
                sending.run(&file, actor).await
            }
            Self::Message {
                file,
                header_at,
                flags,
            } => {
                let file = actor.file(file)?;
                socket(&file)?;
                let header = MessageHeader::read(actor.space(), header_at)?;
                send(actor, &file, &header, MessageFlags::from_bits_retain(flags)).await
            }
        }
    }
}

async fn send(
    actor: Actor<'_>,
    file: &OpenFile,
    header: &MessageHeader,
    flags: MessageFlags,
) -> Result<u64> {
    let socket = socket(file)?;
    let space = actor.space();
    let address = header.address(space)?;
    let buffer = IoBuffer::vectored(space.clone(), header.ranges(space)?);
    let control = header.control(space)?;
    let mut sending = Sending::new(actor, file, buffer, flags);
    message_control::read(actor, socket, &control, &mut sending.message)?;
    if let Some(address) = address {
        sending.set_address(actor, socket, address).await?;
    }
    sending.run(file, actor).await
}

/// A message to receive.
pub enum ReceiveMessage {
    /// `recvfrom(2)`: bytes in one piece.
    From {
        /// The socket.
        file: FileRef,
        /// Where the bytes go, and how many at most.
        bytes: (u64, u64),
        /// `MSG_*`.
        flags: u32,
        /// Where the sender's address goes, if anywhere.
        room: Option<AddressRoom>,
    },
    /// `recvmsg(2)`.
    Message {
        /// The socket.
        file: FileRef,
        /// Where the `struct msghdr` is.
        header_at: u64,
        /// `MSG_*`.
        flags: u32,
    },
}

impl ReceiveMessage {
    /// Receives it; gives the bytes.
    ///
    /// # Errors
    ///
    /// Those of `recvmsg(2)`.
    pub async fn run(self, actor: Actor<'_>) -> Result<u64> {
        match self {
            Self::From {
                file,
                bytes: (at, length),
                flags,
                room,
            } => {
                let buffer = one_piece(actor, at, length)?;
                let file = actor.file(file)?;
                socket(&file)?;
                if let Some(room) = room {
                    room.prepare(actor.space())?;
                }
                let flags = MessageFlags::from_bits_retain(flags);
                let mut receiving = Receiving::new(&file, buffer, flags);
                receiving.message.wants_from = room.is_some();
                let count = receiving.run(&file, actor).await?;
                if let Some(room) = room {
                    let from = receiving.message.from.take();
                    let from = from.as_ref().map_or(&[][..], |from| from.as_bytes());
                    room.write(actor.space(), from)?;
                }
                Ok(count)
            }
            Self::Message {
                file,
                header_at,
                flags,
            } => {
                let file = actor.file(file)?;
                socket(&file)?;
                let header = MessageHeader::read(actor.space(), header_at)?;
                let flags = MessageFlags::from_bits_retain(flags);
                receive(actor, &file, &header, flags).await
            }
        }
    }
}

async fn receive(
    actor: Actor<'_>,
    file: &OpenFile,
    header: &MessageHeader,
    flags: MessageFlags,
) -> Result<u64> {
    let socket = socket(file)?;
    let space = actor.space();
    let buffer = IoBuffer::vectored(space.clone(), header.ranges(space)?);
    header.prepare(space)?;
    let mut receiving = Receiving::new(file, buffer, flags);
    receiving.message.wants_from = header.wants_name();
    let count = receiving.run(file, actor).await?;
    let message = &mut receiving.message;
    let control = message_control::write(actor, socket, message, header.control_room())?;
    if header.wants_name() {
        let from = message.from.as_ref();
        header.write_name(space, from.map_or(&[], |from| from.as_bytes()))?;
    }
    header.write_result(space, message.told, control)?;
    Ok(count)
}

/// `sendmmsg(2)`.
pub struct SendMessages {
    /// The socket.
    pub file: FileRef,
    /// Where the array of `struct mmsghdr` is.
    pub entries_at: u64,
    /// How many there are.
    pub count: u32,
    /// `MSG_*`.
    pub flags: u32,
}

impl SendMessages {
    /// Sends them in order, until one fails; gives how many were sent.
    ///
    /// # Errors
    ///
    /// That of the first.
    pub async fn run(self, actor: Actor<'_>) -> Result<u64> {
        let file = actor.file(self.file)?;
        socket(&file)?;
        let flags = MessageFlags::from_bits_retain(self.flags);
        let count = self.count.min(raw::UIO_MAXIOV);
        let mut stint = Stint::default();
        for index in 0..u64::from(count) {
            stint.give_way().await;
            let at = self.entries_at.wrapping_add(index * ENTRY);
            let space = actor.space();
            let result = match MessageHeader::read(space, at) {
                Ok(header) => send(actor, &file, &header, flags).await,
                Err(error) => Err(error),
            };
            let stored = result.and_then(|sent| {
                let length_at = at.wrapping_add(ENTRY_LENGTH);
                space.write_value(length_at, &(sent as u32))
            });
            match stored {
                Ok(()) => {}
                Err(error) if index == 0 => return Err(error),
                Err(_) => return Ok(index),
            }
        }
        Ok(count.into())
    }
}

/// `recvmmsg(2)`.
pub struct ReceiveMessages {
    /// The socket.
    pub file: FileRef,
    /// Where the array of `struct mmsghdr` is.
    pub entries_at: u64,
    /// How many there are.
    pub count: u32,
    /// `MSG_*`.
    pub flags: u32,
    /// Where a `struct timespec` says for how long it goes on; 0 for ever.
    pub time_at: u64,
}

impl ReceiveMessages {
    /// Receives until all have come, one fails, or the time is over, which is looked at after each
    /// message; gives how many came.
    ///
    /// # Errors
    ///
    /// That of the first.
    pub async fn run(self, actor: Actor<'_>) -> Result<u64> {
        let space = actor.space();
        let deadline = match self.time_at {
            0 => None,
            at => Some(deadline_after(read_timespec(space, at)?)),
        };
        let file = actor.file(self.file)?;
        socket(&file)?;
        let mut flags = MessageFlags::from_bits_retain(self.flags & !WAIT_FOR_ONE);
        let count = u64::from(self.count.min(raw::UIO_MAXIOV));
        let mut received = 0;
        let mut stint = Stint::default();
        while received < count {
            stint.give_way().await;
            let at = self.entries_at.wrapping_add(received * ENTRY);
            let result = match MessageHeader::read(space, at) {
                Ok(header) => receive(actor, &file, &header, flags).await,
                Err(error) => Err(error),
            };
            let stored = result.and_then(|length| {
                let length_at = at.wrapping_add(ENTRY_LENGTH);
                space.write_value(length_at, &(length as u32))
            });
            match stored {
                Ok(()) => received += 1,
                Err(error) if received == 0 => return Err(error),
                Err(_) => break,
            }
            if self.flags & WAIT_FOR_ONE != 0 {
                flags |= MessageFlags::DONT_WAIT;
            }
            if deadline.is_some_and(|deadline| clock::monotonic() >= deadline) {
                break;
            }
        }
        if let Some(deadline) = deadline {
            let left = deadline.saturating_sub(clock::monotonic());
            let parts = [left / 1_000_000_000, left % 1_000_000_000];
            for (index, part) in parts.iter().enumerate() {
                space.write_value(self.time_at.wrapping_add(index as u64 * 8), part)?;
            }
        }
        Ok(received)
    }
}
