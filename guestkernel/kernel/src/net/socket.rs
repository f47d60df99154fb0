//! A socket as an open file: it waits for what its end cannot do at once.

use super::address::{Address, RawAddress};
use super::common::{Common, Identity, Protocol, SocketType};
use super::end::{End, Shutdown};
use super::message::{Incoming, MessageFlags, Outgoing};
use super::option::{self, OptionValue};
use super::{inet, rights, unix};
use crate::error::{Errno, Result};
use crate::executor::{Answer, BoxFuture};
use crate::file::{DeviceNumber, FileOps, FileType, OpenFile, Readiness, Stat};
use crate::globals::global;
use crate::heap;
use crate::io::{Direction, Io, IoFlags};
use crate::mm::AddressSpace;
use alloc::boxed::Box;
use alloc::sync::Arc;
use core::any::Any;
use core::sync::atomic::{AtomicU64, Ordering};
use core::task::{Context, Poll, Waker};
use linux_raw_sys::{ioctl, net};

/// Requests of `ioctl(2)`, which linux-raw-sys lacks (`linux/sockios.h`).
const SIOCOUTQ: u32 = ioctl::TIOCOUTQ;

global! {
    /// The number that the next socket shows as its inode's.
    static NEXT_NUMBER: AtomicU64 = AtomicU64::new(1);
}

/// A socket.
pub struct Socket {
    end: Arc<dyn End>,
    common: Arc<Common>,
    number: u64,
}

impl Socket {
    fn new(end: Arc<dyn End>) -> Arc<Self> {
        Arc::new(Self {
            common: end.common().clone(),
            end,
            number: NEXT_NUMBER.fetch_add(1, Ordering::Relaxed),
        })
    }

    /// Makes a socket (`socket(2)`).
    ///
    /// # Errors
    ///
    /// `EAFNOSUPPORT`, `ESOCKTNOSUPPORT`, `EPROTONOSUPPORT`, `ENOMEM`.
    pub fn make(domain: u32, kind: u32, number: u32, who: Identity) -> Result<Arc<Self>> {
        heap::check(SIZE)?;
        match domain {
            net::AF_UNIX => Ok(Self::new(unix::make(kind, number, who)?)),
            net::AF_INET | net::AF_INET6 => Ok(Self::new(inet::make(domain, kind, number, who)?)),
            _ => Err(Errno::EAFNOSUPPORT),
        }
    }

    /// Makes two that are connected (`socketpair(2)`).
    ///
    /// # Errors
    ///
    /// As [`make`](Self::make), and `EOPNOTSUPP`.
    pub fn make_pair(domain: u32, kind: u32, number: u32, who: Identity) -> Result<[Arc<Self>; 2]> {
        heap::check(2 * SIZE)?;
        match domain {
            net::AF_UNIX => Ok(unix::make_pair(kind, number, who)?.map(Self::new)),
            _ => {
                Self::make(domain, kind, number, who)?;
                Err(Errno::EOPNOTSUPP)
            }
        }
    }

    /// The socket that `file` is, if it is one.
    pub fn of(file: &OpenFile) -> Option<&Self> {
        (&*file.ops as &dyn Any).downcast_ref()
    }

    /// What it was made as.
    pub fn protocol(&self) -> Protocol {
        self.common.protocol
    }

    /// Gives it an address of its own.
    ///
    /// # Errors
    ///
    /// Those of `bind(2)`.
    pub fn bind(&self, address: &Address) -> Result<()> {
        self.end.bind(address)
    }

    /// Waits for others to connect.
    ///
    /// # Errors
    ///
    /// Those of `listen(2)`.
    pub fn listen(&self, backlog: u32, who: Identity) -> Result<()> {
        self.end.listen(backlog, who)
    }

    /// One that has connected; unless it `is_impatient`, it waits for one.
    ///
    /// # Errors
    ///
    /// Those of `accept(2)`.
    pub fn poll_accept(
        &self,
        is_impatient: bool,
        context: &mut Context<'_>,
    ) -> Poll<Result<Arc<Self>>> {
        let attempt = || {
            heap::check(SIZE)?;
            self.end.accept().map(Self::new)
        };
        self.poll(Readiness::READABLE, is_impatient, context, attempt)
    }

    /// Connects it.
    ///
    /// # Errors
    ///
    /// Those of `connect(2)`.
    pub fn poll_connect(
        &self,
        to: &Address,
        who: Identity,
        is_impatient: bool,
        context: &mut Context<'_>,
    ) -> Poll<Result<()>> {
        let attempt = || self.end.connect(to, who, is_impatient);
        self.poll(Readiness::WRITABLE, is_impatient, context, attempt)
    }

    /// Advances a send.
    ///
    /// # Errors
    ///
    /// Those of `sendmsg(2)`.
    pub fn poll_send(
        &self,
        io: &mut Io,
        message: &mut Outgoing,
        context: &mut Context<'_>,
    ) -> Poll<Result<usize>> {
        io.poll_with(context, |io, context| {
            let is_impatient = io.flags.contains(IoFlags::NOWAIT);
            self.poll(Readiness::WRITABLE, is_impatient, context, || {
                self.end.send(io, message)
            })
        })
    }

    /// Advances a receive.
    ///
    /// # Errors
    ///
    /// Those of `recvmsg(2)`.
    pub fn poll_receive(
        &self,
        io: &mut Io,
        message: &mut Incoming,
        context: &mut Context<'_>,
    ) -> Poll<Result<usize>> {
        io.poll_with(context, |io, context| {
            let is_impatient = io.flags.contains(IoFlags::NOWAIT);
            self.poll(Readiness::READABLE, is_impatient, context, || {
                self.end.receive(io, message)
            })
        })
    }

    /// Tries until it need not wait any more.
    fn poll<T>(
        &self,
        awaited: Readiness,
        is_impatient: bool,
        context: &mut Context<'_>,
        mut attempt: impl FnMut() -> Result<T>,
    ) -> Poll<Result<T>> {
        match attempt() {
            Err(Errno::EAGAIN) if !is_impatient => {}
            result => return Poll::Ready(result),
        }
        let heard = Readiness::heard(awaited);
        self.common.changes.register_for(context.waker(), heard);
        match attempt() {
            Err(Errno::EAGAIN) => Poll::Pending,
            result => Poll::Ready(result),
        }
    }

    /// Nanoseconds after which a transfer in that direction, or a connect or accept, gives up, if that was
    /// asked for.
    pub fn timeout(&self, direction: Direction) -> Option<u64> {
        let options = self.common.options.lock();
        let timeout = match direction {
            Direction::Read => options.receive_timeout,
            Direction::Write => options.send_timeout,
        };
        (timeout > 0).then_some(timeout)
    }

    /// Ends one way or both.
    ///
    /// # Errors
    ///
    /// Those of `shutdown(2)`.
    pub fn shutdown(&self, ways: Shutdown) -> Result<()> {
        self.end.shutdown(ways)
    }

    /// Its own address.
    pub fn name(&self) -> RawAddress {
        self.end.name()
    }

    /// The address of whom it is connected to.
    ///
    /// # Errors
    ///
    /// `ENOTCONN`.
    pub fn peer(&self) -> Result<RawAddress> {
        self.end.peer()
    }

    /// Whether who receives wants to know who sends.
    pub fn passes_credentials(&self) -> bool {
        self.common.options.lock().pass_credentials
    }

    /// Whether sending to nobody sends SIGPIPE.
    pub fn breaks_with_signal(&self) -> bool {
        self.protocol().kind == SocketType::Stream
    }

    /// The value of an option.
    ///
    /// # Errors
    ///
    /// Those of `getsockopt(2)`.
    pub fn option(&self, level: u32, name: u32) -> Result<OptionValue> {
        match level {
            net::SOL_SOCKET => option::get(&*self.end, name),
            _ => self.end.option(level, name),
        }
    }

    /// Sets an option.
    ///
    /// # Errors
    ///
    /// Those of `setsockopt(2)`.
    pub fn set_option(&self, level: u32, name: u32, value: &[u8]) -> Result<()> {
        match level {
            net::SOL_SOCKET => option::set(&*self.end, name, value),
            _ => self.end.set_option(level, name, value),
        }
    }

    /// The files in messages that wait here.
    pub(super) fn for_each_waiting(&self, each: &mut dyn FnMut(&Arc<OpenFile>)) {
        self.end.for_each_waiting(each);
    }

    /// Drops all messages that wait here.
    pub(super) fn forget_waiting(&self) {
        self.end.forget_waiting();
    }
}

/// Bytes of the heap that a socket takes, more or less.
const SIZE: usize = 1024;

impl Drop for Socket {
    fn drop(&mut self) {
        self.end.close();
        rights::collect_soon(true);
    }
}

impl FileOps for Socket {
    fn poll_io(&self, io: &mut Io, context: &mut Context<'_>) -> Poll<Result<usize>> {
        let is_impatient = io.flags.contains(IoFlags::NOWAIT);
        match io.direction {
            Direction::Read => {
                if io.buffer.is_empty() {
                    return Poll::Ready(Ok(0));
                }
                let mut message = Incoming::default();
                // What has come already is of the same sender as the rest, or it would have ended.
                self.poll(Readiness::READABLE, is_impatient, context, || {
                    self.end.receive(io, &mut message)
                })
            }
            Direction::Write => {
                if !self.breaks_with_signal() {
                    io.flags |= IoFlags::NO_SIGNAL;
                }
                let mut message = Outgoing {
                    sender: Some(self.common.maker),
                    ..Outgoing::default()
                };
                if io.flags.contains(IoFlags::NO_SIGNAL) {
                    message.flags |= MessageFlags::NO_SIGNAL;
                }
                self.poll(Readiness::WRITABLE, is_impatient, context, || {
                    self.end.send(io, &mut message)
                })
            }
        }
    }

    fn stat(&self) -> Answer<'_, Stat> {
        Answer::ready(Ok(Stat {
            device: DeviceNumber::new(0, 8),
            inode: self.number,
            mode: FileType::Socket as u32 | 0o777,
            links: 1,
            block_size: 4096,
            ..Stat::default()
        }))
    }

    fn kind(&self) -> &'static str {
        "socket"
    }

    fn ioctl<'a>(
        &'a self,
        request: u32,
        argument: u64,
        space: &'a AddressSpace,
    ) -> BoxFuture<'a, Result<u64>> {
        let count = match request {
            ioctl::FIONREAD => self.end.available(),
            SIOCOUTQ => self.end.unsent(),
            _ => Err(Errno::ENOTTY),
        };
        let result = count.and_then(|count| space.write_value(argument, &(count as i32)));
        Box::pin(core::future::ready(result.map(|()| 0)))
    }

    fn poll_ready(&self, interest: Readiness, context: &mut Context<'_>) -> Readiness {
        let heard = Readiness::heard(interest);
        self.common.changes.register_for(context.waker(), heard);
        self.end.ready()
    }

    fn forget_waker(&self, waker: &Waker) {
        self.common.changes.forget(waker);
    }

    fn is_pollable(&self) -> bool {
        true
    }

    // One in a message outlives its last descriptor, and then nobody may be able to reach it.
    fn flushes(&self) -> bool {
        rights::has_sockets_in_flight()
    }

    fn flush(&self) -> Answer<'_, ()> {
        rights::collect_soon(true);
        Answer::ready(Ok(()))
    }
}
