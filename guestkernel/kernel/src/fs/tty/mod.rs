//! Terminals: a standard stream that is one on the host gets a line discipline here.

mod devpts;
mod line;
mod pty;

use super::{
    Answer, BoxFuture, ByteStream, DeviceNumber, FileOps, FileType, Readiness, Stat, Terminal,
    WaitQueue,
};
use crate::error::{Errno, Result};
use crate::executor::{Sleep, Urgent, sleep_until};
use crate::io::{Direction, Io, IoFlags};
use crate::mm::AddressSpace;
use crate::process::{Signal, members};
use alloc::boxed::Box;
use alloc::sync::{Arc, Weak};
use alloc::vec::Vec;
use core::future::{Future, poll_fn};
use core::pin::Pin;
use core::sync::atomic::{AtomicBool, Ordering};
use core::task::{Context, Poll};
pub use devpts::mount as mount_devpts;
use line::{Control, Line};
use linux_raw_sys::{general as raw, ioctl};
use machine::Plain;
use machine::lock::Mutex;
use pty::Pty;

/// The device number of the console, which is what a terminal shows itself as.
pub const CONSOLE: DeviceNumber = DeviceNumber::new(5, 1);
/// Bytes taken from a program or a port at a time.
const CHUNK: usize = 512;
/// Nanoseconds in the unit of `VTIME`.
const TENTH: u64 = 100_000_000;

/// A terminal: one line discipline for the streams that are it.
pub struct Tty {
    line: Mutex<Line>,
    /// The other end is gone.
    is_hung_up: AtomicBool,
    size: Mutex<raw::winsize>,
    owner: Mutex<Owner>,
    /// Those who wait for input, and those who wait for output to be started again.
    changes: WaitQueue,
    /// When a read in raw mode gives up.
    deadline: Mutex<Option<Sleep>>,
}

/// Whose terminal it is.
#[derive(Clone, Copy, Debug, Default)]
struct Owner {
    /// The session; 0 for none.
    session: u32,
    /// The process group that control characters reach; 0 for none.
    foreground: u32,
}

/// A terminal as an open file.
pub struct TtyFile {
    tty: Arc<Tty>,
    output: Arc<Output>,
    /// The pseudo-terminal that it is one end of, if it is that.
    pty: Weak<Pty>,
}

/// Where output goes.
pub struct Output {
    /// `None` discards it.
    port: Option<Arc<dyn ByteStream>>,
    /// Processed and not sent yet.
    pending: Mutex<Vec<u8>>,
}

impl Output {
    /// Output to `port`; without one it is lost.
    pub fn new(port: Option<Arc<dyn ByteStream>>) -> Arc<Self> {
        Arc::new(Self {
            port,
            pending: Mutex::new(Vec::new()),
        })
    }

    /// Sends what is pending; ready when there is nothing more.
    fn poll_send(&self, context: &mut Context<'_>) -> Poll<Result<()>> {
        let mut pending = self.pending.lock();
        let Some(port) = &self.port else {
            pending.clear();
            return Poll::Ready(Ok(()));
        };
        while !pending.is_empty() {
            match port.poll_write(&pending, context) {
                Poll::Ready(Ok(count)) => drop(pending.drain(..count)),
                Poll::Ready(Err(error)) => {
                    pending.clear();
                    // A terminal that hung up.
                    let error = if error == Errno::EPIPE {
                        Errno::EIO
                    } else {
                        error
                    };
                    return Poll::Ready(Err(error));
                }
                Poll::Pending => return Poll::Pending,
            }
        }
        Poll::Ready(Ok(()))
    }
}

impl Tty {
    /// A terminal of `columns` by `rows` characters.
    pub fn new(columns: u16, rows: u16) -> Arc<Self> {
        Arc::new(Self {
            line: Mutex::new(Line::new()),
            is_hung_up: AtomicBool::new(false),
            size: Mutex::new(raw::winsize {
                ws_row: rows,
                ws_col: columns,
                ws_xpixel: 0,
                ws_ypixel: 0,
            }),
            owner: Mutex::default(),
            changes: WaitQueue::new(),
            deadline: Mutex::new(None),
        })
    }

    /// The terminal has `columns` by `rows` characters now.
    pub fn resize(&self, columns: u16, rows: u16) {
        self.set_size(raw::winsize {
            ws_row: rows,
            ws_col: columns,
            ws_xpixel: 0,
            ws_ypixel: 0,
        });
    }

    /// Another size is told by SIGWINCH (ioctl_tty(2)).
    fn set_size(&self, size: raw::winsize) {
        let as_words =
            |size: &raw::winsize| [size.ws_row, size.ws_col, size.ws_xpixel, size.ws_ypixel];
        let old = core::mem::replace(&mut *self.size.lock(), size);
        if as_words(&old) != as_words(&size) {
            self.signal(Signal::SIGWINCH);
        }
    }

    /// Takes in what comes from `input`, echoing to `output`, for ever: a task of its own, since a
    /// control character counts whether the program reads or not.
    pub async fn run(self: Arc<Self>, input: Arc<dyn ByteStream>, output: Arc<Output>) {
        let _urgent = Urgent::new();
        let mut bytes = [0; CHUNK];
        loop {
            let result = poll_fn(|context| {
                // An echo that found no room is sent as soon as there is some.
                let _ = output.poll_send(context);
                input.poll_read(&mut bytes, context)
            });
            match result.await {
                Ok(0) | Err(_) => break,
                Ok(count) => {
                    let controls = self.receive(&bytes[..count], &output);
                    // What is echoed is on its way before a signal may end everything.
                    poll_fn(|context| Poll::Ready(output.poll_send(context).is_ready())).await;
                    self.interrupt(&controls);
                }
            }
        }
        self.hang_up();
    }

    /// Takes what was typed, and gives the control characters in it that are signals.
    fn receive(&self, bytes: &[u8], output: &Output) -> Vec<Control> {
        let mut line = self.line.lock();
        let mut pending = output.pending.lock();
        let mut controls = Vec::new();
        for byte in bytes {
            controls.extend(line.receive(*byte, &mut pending));
        }
        drop(pending);
        drop(line);
        self.changes.wake_all();
        controls
    }

    /// Sends a signal to the process group in the foreground.
    fn signal(&self, signal: Signal) {
        let group = self.owner.lock().foreground;
        members(group)
            .iter()
            .for_each(|member| member.signal(signal));
    }

    fn interrupt(&self, controls: &[Control]) {
        for control in controls {
            self.signal(match control {
                Control::Interrupt => Signal::SIGINT,
                Control::Quit => Signal::SIGQUIT,
                Control::Suspend => Signal::SIGTSTP,
            });
        }
    }

    /// There is nobody at the other end any more.
    fn hang_up(&self) {
        self.is_hung_up.store(true, Ordering::Release);
        self.changes.wake_all();
    }

    /// Whether a read that asks for `wanted` bytes can be done now.
    fn is_readable(&self, line: &Line, wanted: usize, context: &mut Context<'_>) -> bool {
        if self.is_hung_up.load(Ordering::Acquire) || wanted == 0 {
            return true;
        }
        if line.is_canonical() {
            return line.has_line();
        }
        let (minimum, time) = line.minimum_and_time();
        let available = line.available();
        if available >= minimum.clamp(1, wanted) {
            return true;
        }
        if time == 0 {
            return minimum == 0;
        }
        // The time counts from the start of the read, or, if there is a minimum, from the last
        // byte on.
        if minimum > 0 && available == 0 {
            return false;
        }
        let mut deadline = self.deadline.lock();
        let sleep =
            deadline.get_or_insert_with(|| sleep_until(machine::clock::monotonic() + time * TENTH));
        Pin::new(sleep).poll(context).is_ready()
    }

    fn poll_read(&self, io: &mut Io, context: &mut Context<'_>) -> Poll<Result<usize>> {
        let wanted = io.buffer.len();
        self.changes.register(context.waker());
        let mut line = self.line.lock();
        if !self.is_readable(&line, wanted, context) {
            return match io.flags.contains(IoFlags::NOWAIT) {
                true => Poll::Ready(Err(Errno::EAGAIN)),
                false => Poll::Pending,
            };
        }
        if wanted > 0 {
            io.buffer.prepare_fill(0, wanted.min(line.available()))?;
        }
        let bytes = line.take(wanted);
        drop(line);
        *self.deadline.lock() = None;
        Poll::Ready(match bytes.is_empty() {
            true => Ok(0),
            false => io.buffer.fill(0, &bytes),
        })
    }

    fn set_settings(&self, settings: raw::termios2) {
        self.line.lock().set_settings(settings);
        self.changes.wake_all();
    }
}

impl TtyFile {
    /// The terminal `tty`, with output to `output`.
    pub fn new(tty: Arc<Tty>, output: Arc<Output>) -> Self {
        Self {
            tty,
            output,
            pty: Weak::new(),
        }
    }

    fn poll_write(&self, io: &mut Io, context: &mut Context<'_>) -> Poll<Result<usize>> {
        let mut bytes = [0; CHUNK];
        loop {
            match self.poll_room(context) {
                Poll::Ready(Ok(())) => {}
                Poll::Ready(Err(_)) if io.done > 0 => break,
                Poll::Ready(Err(error)) => return Poll::Ready(Err(error)),
                Poll::Pending if !io.flags.contains(IoFlags::NOWAIT) => return Poll::Pending,
                Poll::Pending if io.done > 0 => break,
                Poll::Pending => return Poll::Ready(Err(Errno::EAGAIN)),
            }
            let count = bytes.len().min(io.buffer.len() - io.done);
            if count == 0 {
                break;
            }
            let count = match io.buffer.take(io.done, &mut bytes[..count]) {
                Ok(count) => count,
                Err(error) => return Poll::Ready(io.cut_short(error)),
            };
            let mut line = self.tty.line.lock();
            let mut pending = self.output.pending.lock();
            for byte in &bytes[..count] {
                line.send(*byte, &mut pending);
            }
            io.done += count;
        }
        Poll::Ready(Ok(io.done))
    }

    /// Ready when output is not stopped and everything before has been sent.
    fn poll_room(&self, context: &mut Context<'_>) -> Poll<Result<()>> {
        self.tty.changes.register(context.waker());
        if self.tty.line.lock().is_stopped {
            return Poll::Pending;
        }
        self.output.poll_send(context)
    }

    async fn drain(&self) -> Result<()> {
        poll_fn(|context| self.poll_room(context)).await?;
        if let Some(port) = &self.output.port {
            poll_fn(|context| port.poll_flush(context)).await;
        }
        Ok(())
    }

    async fn control(&self, request: u32, argument: u64, space: &AddressSpace) -> Result<u64> {
        let tty = &self.tty;
        match request {
            ioctl::TCGETS => {
                let settings = old_settings(&tty.line.lock().settings());
                space.write_value(argument, &settings)?;
            }
            ioctl::TCGETS2 => {
                let settings = tty.line.lock().settings();
                space.write_value(argument, &settings)?;
            }
            ioctl::TCSETS | ioctl::TCSETSW | ioctl::TCSETSF => {
                let new: raw::termios = space.read_value(argument)?;
                let settings = with_old_settings(tty.line.lock().settings(), &new);
                self.change(
                    settings,
                    request != ioctl::TCSETS,
                    request == ioctl::TCSETSF,
                )
                .await?;
            }
            ioctl::TCSETS2 | ioctl::TCSETSW2 | ioctl::TCSETSF2 => {
                let settings = space.read_value(argument)?;
                self.change(
                    settings,
                    request != ioctl::TCSETS2,
                    request == ioctl::TCSETSF2,
                )
                .await?;
            }
            ioctl::TCSBRK | ioctl::TCSBRKP => self.drain().await?,
            ioctl::TCFLSH => self.flush(argument as u32)?,
            ioctl::TCXONC => self.stop_or_start(argument as u32)?,
            ioctl::TIOCGWINSZ => {
                let size = *tty.size.lock();
                space.write_value(argument, &size)?;
            }
            ioctl::TIOCSWINSZ => {
                let size = space.read_value(argument)?;
                tty.set_size(size);
            }
            ioctl::FIONREAD => {
                let count = tty.line.lock().available() as i32;
                space.write_value(argument, &count)?;
            }
            ioctl::TIOCOUTQ => {
                let count = self.output.pending.lock().len() as i32;
                space.write_value(argument, &count)?;
            }
            ioctl::TIOCGETD => space.write_value(argument, &0_i32)?,
            _ => return Err(Errno::ENOTTY),
        }
        Ok(0)
    }

    async fn change(&self, settings: raw::termios2, drain: bool, flush: bool) -> Result<()> {
        if drain {
            self.drain().await?;
        }
        if flush {
            self.tty.line.lock().flush_input();
        }
        self.tty.set_settings(settings);
        Ok(())
    }

    fn flush(&self, queue: u32) -> Result<()> {
        if !matches!(queue, raw::TCIFLUSH | raw::TCOFLUSH | raw::TCIOFLUSH) {
            return Err(Errno::EINVAL);
        }
        if queue != raw::TCOFLUSH {
            self.tty.line.lock().flush_input();
        }
        if queue != raw::TCIFLUSH {
            self.output.pending.lock().clear();
        }
        Ok(())
    }

    fn stop_or_start(&self, action: u32) -> Result<()> {
        match action {
            raw::TCOOFF => self.tty.line.lock().is_stopped = true,
            raw::TCOON => {
                self.tty.line.lock().is_stopped = false;
                self.tty.changes.wake_all();
            }
            // The other end is not asked to stop: it is a terminal emulator.
            raw::TCIOFF | raw::TCION => {}
            _ => return Err(Errno::EINVAL),
        }
        Ok(())
    }
}

impl Terminal for TtyFile {
    fn identity(&self) -> usize {
        Arc::as_ptr(&self.tty).addr()
    }

    fn session(&self) -> u32 {
        self.tty.owner.lock().session
    }

    fn foreground(&self) -> u32 {
        self.tty.owner.lock().foreground
    }

    fn belong_to(&self, session: u32, foreground: u32) {
        *self.tty.owner.lock() = Owner {
            session,
            foreground,
        };
    }

    fn set_foreground(&self, group: u32) {
        self.tty.owner.lock().foreground = group;
    }

    fn stops_output(&self) -> bool {
        self.tty.line.lock().stops_output()
    }

    fn end_session(&self) {
        self.belong_to(0, 0);
        if self.pty.strong_count() > 0 {
            self.tty.hang_up();
        }
    }

    fn reopen(self: Arc<Self>) -> Arc<dyn FileOps> {
        match self.pty.upgrade() {
            Some(pty) => pty.open_slave(),
            None => self,
        }
    }
}

fn old_settings(settings: &raw::termios2) -> raw::termios {
    let mut old = raw::termios::zeroed();
    old.c_iflag = settings.c_iflag;
    old.c_oflag = settings.c_oflag;
    old.c_cflag = settings.c_cflag;
    old.c_lflag = settings.c_lflag;
    old.c_line = settings.c_line;
    old.c_cc = settings.c_cc;
    old
}

fn with_old_settings(mut settings: raw::termios2, old: &raw::termios) -> raw::termios2 {
    settings.c_iflag = old.c_iflag;
    settings.c_oflag = old.c_oflag;
    settings.c_cflag = old.c_cflag;
    settings.c_lflag = old.c_lflag;
    settings.c_line = old.c_line;
    settings.c_cc = old.c_cc;
    settings
}

impl FileOps for TtyFile {
    fn poll_io(&self, io: &mut Io, context: &mut Context<'_>) -> Poll<Result<usize>> {
        match io.direction {
            Direction::Read => self.tty.poll_read(io, context),
            Direction::Write => self.poll_write(io, context),
        }
    }

    fn stat(&self) -> Answer<'_, Stat> {
        Answer::ready(Ok(Stat {
            mode: FileType::CharDevice as u32 | 0o620,
            special: CONSOLE,
            block_size: 1024,
            ..Stat::anonymous()
        }))
    }

    fn kind(&self) -> &'static str {
        "console"
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

    fn terminal(self: Arc<Self>) -> Option<Arc<dyn Terminal>> {
        Some(self)
    }

    fn poll_ready(&self, _interest: Readiness, context: &mut Context<'_>) -> Readiness {
        self.tty.changes.register(context.waker());
        let line = self.tty.line.lock();
        let mut ready = Readiness::empty();
        let (minimum, time) = line.minimum_and_time();
        // As Linux has it: without a time, poll waits for the minimum.
        let enough = if time == 0 { minimum.max(1) } else { 1 };
        let has_input = match line.is_canonical() {
            true => line.has_line(),
            false => line.available() >= enough,
        };
        if has_input {
            ready |= Readiness::READABLE;
        }
        if self.tty.is_hung_up.load(Ordering::Acquire) {
            ready |= Readiness::READABLE | Readiness::HANG_UP;
        }
        if !line.is_stopped && self.output.pending.lock().is_empty() {
            ready |= Readiness::WRITABLE;
        }
        ready
    }
}

#[cfg(test)]
mod tests;
