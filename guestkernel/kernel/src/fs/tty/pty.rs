//! Pseudo-terminals (`pty(7)`): what one end, the master, writes has been typed at the terminal that is
//! the other end, the slave; what is written to that is read at the master.

use super::{CHUNK, Output, Tty, TtyFile, devpts};
use crate::error::{Errno, Result};
use crate::executor::{Answer, WaitQueue};
use crate::file::{
    BoxFuture, ByteStream, DeviceNumber, FileOps, FileType, Readiness, Stat, Terminal,
};
use crate::heap;
use crate::io::{Direction, Io, IoFlags};
use crate::mm::AddressSpace;
use crate::process::Signal;
use alloc::boxed::Box;
use alloc::collections::VecDeque;
use alloc::sync::Arc;
use core::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use core::task::{Context, Poll};
use linux_raw_sys::ioctl;
use machine::lock::Mutex;

/// The major number of slaves, whose minor numbers are those of their names.
pub(super) const SLAVE_MAJOR: u32 = 136;
/// Bytes that were written to a slave and that nobody has read at the master.
const CAPACITY: usize = 64 << 10;
/// Bytes of the kernel's heap that a pseudo-terminal may take.
const COST: usize = CAPACITY + (16 << 10);

/// A pseudo-terminal.
pub(super) struct Pty {
    pub(super) number: u32,
    tty: Arc<Tty>,
    output: Arc<Output>,
    /// The slave, as all open files of it have it.
    slave: Arc<TtyFile>,
    channel: Arc<Channel>,
    /// Nobody may open the slave (`unlockpt(3)`).
    is_locked: AtomicBool,
    /// Open files of the slave, and whether there has been any.
    slaves: AtomicUsize,
    was_opened: AtomicBool,
}

/// What was written to the slave.
#[derive(Default)]
struct Channel {
    bytes: Mutex<VecDeque<u8>>,
    changes: WaitQueue,
    /// The master is not open any more.
    is_closed: AtomicBool,
}

impl ByteStream for Channel {
    fn poll_read(&self, _: &mut [u8], _: &mut Context<'_>) -> Poll<Result<usize>> {
        Poll::Ready(Ok(0))
    }

    fn poll_write(&self, bytes: &[u8], context: &mut Context<'_>) -> Poll<Result<usize>> {
        if self.is_closed.load(Ordering::Acquire) {
            return Poll::Ready(Err(Errno::EPIPE));
        }
        self.changes.register(context.waker());
        let mut waiting = self.bytes.lock();
        let count = bytes.len().min(CAPACITY - waiting.len());
        if count == 0 && !bytes.is_empty() {
            return Poll::Pending;
        }
        waiting.extend(&bytes[..count]);
        drop(waiting);
        self.changes.wake_all();
        Poll::Ready(Ok(count))
    }

    fn poll_flush(&self, _: &mut Context<'_>) -> Poll<()> {
        Poll::Ready(())
    }

    fn available(&self) -> usize {
        0
    }

    fn poll_ready(&self, _: Readiness, _: &mut Context<'_>) -> Readiness {
        Readiness::WRITABLE
    }
}

impl Pty {
    /// A new one, with that number; gives its master.
    fn make(number: u32) -> Arc<Self> {
        let channel = Arc::<Channel>::default();
        let tty = Tty::new(0, 0);
        let output = Output::new(Some(channel.clone()));
        Arc::new_cyclic(|pty| Self {
            number,
            slave: Arc::new(TtyFile {
                tty: tty.clone(),
                output: output.clone(),
                pty: pty.clone(),
            }),
            tty,
            output,
            channel,
            is_locked: AtomicBool::new(true),
            slaves: AtomicUsize::new(0),
            was_opened: AtomicBool::new(false),
        })
    }

    /// Opens the slave.
    pub(super) fn open_slave(self: &Arc<Self>) -> Arc<dyn FileOps> {
        self.slaves.fetch_add(1, Ordering::AcqRel);
        self.was_opened.store(true, Ordering::Release);
        Arc::new(SlaveFile(self.clone()))
    }

    /// Opens the slave as the file of its name does.
    ///
    /// # Errors
    ///
    /// `EIO` while it is locked, or when the master is not open any more.
    pub(super) fn open_by_name(self: &Arc<Self>) -> Result<Arc<dyn FileOps>> {
        let is_closed = self.channel.is_closed.load(Ordering::Acquire);
        match is_closed || self.is_locked.load(Ordering::Relaxed) {
            true => Err(Errno::EIO),
            false => Ok(self.open_slave()),
        }
    }

    /// Whether every file of the slave was closed.
    fn is_deserted(&self) -> bool {
        self.was_opened.load(Ordering::Acquire) && self.slaves.load(Ordering::Acquire) == 0
    }
}

/// `/dev/ptmx`: each time it is opened a pseudo-terminal is made.
pub(super) struct Multiplexer;

impl FileOps for Multiplexer {
    fn opened(&self) -> Option<Result<Arc<dyn FileOps>>> {
        let made = heap::check(COST).and_then(|()| devpts::add(Pty::make));
        Some(made.map(|pty| {
            let master: Arc<dyn FileOps> = Arc::new(MasterFile(pty));
            master
        }))
    }
}

/// An open file of a slave.
struct SlaveFile(Arc<Pty>);

impl Drop for SlaveFile {
    fn drop(&mut self) {
        self.0.slaves.fetch_sub(1, Ordering::AcqRel);
        self.0.channel.changes.wake_all();
    }
}

impl FileOps for SlaveFile {
    fn poll_io(&self, io: &mut Io, context: &mut Context<'_>) -> Poll<Result<usize>> {
        let is_hung_up = self.0.tty.is_hung_up.load(Ordering::Acquire);
        if is_hung_up && io.direction == Direction::Write {
            return Poll::Ready(Err(Errno::EIO));
        }
        self.0.slave.poll_io(io, context)
    }

    fn stat(&self) -> Answer<'_, Stat> {
        Answer::ready(Ok(Stat {
            mode: FileType::CharDevice as u32 | 0o620,
            special: DeviceNumber::new(SLAVE_MAJOR, self.0.number),
            block_size: 1024,
            ..Stat::anonymous()
        }))
    }

    fn kind(&self) -> &'static str {
        "pts"
    }

    fn supports_nowait(&self) -> bool {
        false
    }

    fn ioctl<'a>(
        &'a self,
        request: u32,
        argument: u64,
        space: &'a AddressSpace,
    ) -> BoxFuture<'a, Result<u64>> {
        if self.0.tty.is_hung_up.load(Ordering::Acquire) {
            return Box::pin(core::future::ready(Err(Errno::EIO)));
        }
        Box::pin(self.0.slave.control(request, argument, space))
    }

    fn terminal(self: Arc<Self>) -> Option<Arc<dyn Terminal>> {
        // Not this file, which counts as open.
        Some(self.0.slave.clone())
    }

    fn poll_ready(&self, interest: Readiness, context: &mut Context<'_>) -> Readiness {
        self.0.slave.poll_ready(interest, context)
    }
}

/// The open master.
struct MasterFile(Arc<Pty>);

impl Drop for MasterFile {
    fn drop(&mut self) {
        let pty = &self.0;
        devpts::remove(pty.number);
        pty.channel.is_closed.store(true, Ordering::Release);
        pty.channel.changes.wake_all();
        pty.tty.hang_up();
        pty.tty.signal(Signal::SIGHUP);
        pty.tty.signal(Signal::SIGCONT);
    }
}

impl MasterFile {
    fn poll_read(&self, io: &mut Io, context: &mut Context<'_>) -> Poll<Result<usize>> {
        let channel = &self.0.channel;
        channel.changes.register(context.waker());
        // What had no room before may have some now.
        let _ = self.0.output.poll_send(context);
        let mut waiting = channel.bytes.lock();
        if waiting.is_empty() && !io.buffer.is_empty() {
            drop(waiting);
            return match () {
                () if self.0.is_deserted() => Poll::Ready(Err(Errno::EIO)),
                () if io.flags.contains(IoFlags::NOWAIT) => Poll::Ready(Err(Errno::EAGAIN)),
                () => Poll::Pending,
            };
        }
        let wanted = io.buffer.len().min(waiting.len());
        io.buffer.prepare_fill(0, wanted)?;
        let bytes: alloc::vec::Vec<u8> = waiting.drain(..wanted).collect();
        drop(waiting);
        channel.changes.wake_all();
        Poll::Ready(io.buffer.fill(0, &bytes))
    }

    fn poll_write(&self, io: &mut Io, context: &mut Context<'_>) -> Poll<Result<usize>> {
        let mut bytes = [0; CHUNK];
        while io.done < io.buffer.len() {
            let count = bytes.len().min(io.buffer.len() - io.done);
            let count = match io.buffer.take(io.done, &mut bytes[..count]) {
                Ok(count) => count,
                Err(error) => return Poll::Ready(io.cut_short(error)),
            };
            let controls = self.0.tty.receive(&bytes[..count], &self.0.output);
            // What has no room yet is sent when the master reads.
            let _ = self.0.output.poll_send(context);
            self.0.tty.interrupt(&controls);
            io.done += count;
        }
        Poll::Ready(Ok(io.done))
    }

    async fn control(&self, request: u32, argument: u64, space: &AddressSpace) -> Result<u64> {
        let pty = &self.0;
        match request {
            ioctl::TIOCGPTN => space.write_value(argument, &pty.number)?,
            ioctl::TIOCSPTLCK => {
                let is_locked = space.read_value::<i32>(argument)? != 0;
                pty.is_locked.store(is_locked, Ordering::Relaxed);
            }
            ioctl::TIOCGPTLCK => {
                let is_locked = i32::from(pty.is_locked.load(Ordering::Relaxed));
                space.write_value(argument, &is_locked)?;
            }
            ioctl::FIONREAD => {
                let count = pty.channel.bytes.lock().len() as i32;
                space.write_value(argument, &count)?;
            }
            ioctl::TIOCGPGRP => space.write_value(argument, &pty.slave.foreground())?,
            ioctl::TIOCGSID if pty.slave.session() == 0 => return Err(Errno::ENOTTY),
            ioctl::TIOCGSID => space.write_value(argument, &pty.slave.session())?,
            _ => return pty.slave.control(request, argument, space).await,
        }
        Ok(0)
    }
}

impl FileOps for MasterFile {
    fn poll_io(&self, io: &mut Io, context: &mut Context<'_>) -> Poll<Result<usize>> {
        match io.direction {
            Direction::Read => self.poll_read(io, context),
            Direction::Write => self.poll_write(io, context),
        }
    }

    fn kind(&self) -> &'static str {
        "ptmx"
    }

    fn supports_nowait(&self) -> bool {
        false
    }

    fn ioctl<'a>(
        &'a self,
        request: u32,
        argument: u64,
        space: &'a AddressSpace,
    ) -> BoxFuture<'a, Result<u64>> {
        Box::pin(self.control(request, argument, space))
    }

    fn poll_ready(&self, _: Readiness, context: &mut Context<'_>) -> Readiness {
        let channel = &self.0.channel;
        channel.changes.register(context.waker());
        let mut ready = Readiness::WRITABLE;
        if !channel.bytes.lock().is_empty() {
            ready |= Readiness::READABLE;
        }
        if self.0.is_deserted() {
            ready |= Readiness::READABLE | Readiness::HANG_UP;
        }
        ready
    }
}
