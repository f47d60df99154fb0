//! Terminals at a port that the test holds the other end of.

use super::*;
use crate::executor::{block_on, spawn, yield_now};
use crate::fs::{OpenFile, OpenFlags};
use crate::mm::IoBuffer;
use alloc::collections::VecDeque;
use alloc::vec;

/// The other end of a terminal.
#[derive(Default)]
struct Keyboard {
    keys: Mutex<VecDeque<u8>>,
    screen: Mutex<Vec<u8>>,
    /// Bytes that the screen still takes.
    room: Mutex<usize>,
    is_closed: AtomicBool,
    changes: WaitQueue,
}

impl Keyboard {
    fn press(&self, keys: &[u8]) {
        self.keys.lock().extend(keys);
        self.changes.wake_all();
    }

    fn close(&self) {
        self.is_closed.store(true, Ordering::Release);
        self.changes.wake_all();
    }

    fn make_room(&self, bytes: usize) {
        *self.room.lock() += bytes;
        self.changes.wake_all();
    }
}

impl ByteStream for Keyboard {
    fn poll_read(&self, out: &mut [u8], context: &mut Context<'_>) -> Poll<Result<usize>> {
        self.changes.register(context.waker());
        let mut keys = self.keys.lock();
        if keys.is_empty() && !self.is_closed.load(Ordering::Acquire) {
            return Poll::Pending;
        }
        let count = out.len().min(keys.len());
        for (byte, key) in out.iter_mut().zip(keys.drain(..count)) {
            *byte = key;
        }
        Poll::Ready(Ok(count))
    }

    fn poll_write(&self, bytes: &[u8], context: &mut Context<'_>) -> Poll<Result<usize>> {
        self.changes.register(context.waker());
        let mut room = self.room.lock();
        let count = bytes.len().min(*room);
        if count == 0 {
            return Poll::Pending;
        }
        *room -= count;
        self.screen.lock().extend_from_slice(&bytes[..count]);
        Poll::Ready(Ok(count))
    }

    fn poll_flush(&self, _context: &mut Context<'_>) -> Poll<()> {
        Poll::Ready(())
    }

    fn available(&self) -> usize {
        self.keys.lock().len()
    }

    fn poll_ready(&self, interest: Readiness, _context: &mut Context<'_>) -> Readiness {
        interest
    }

    fn forget_waker(&self, _waker: &Waker) {}
}

struct Terminal {
    keyboard: Arc<Keyboard>,
    file: Arc<OpenFile>,
    tty: Arc<Tty>,
}

fn terminal() -> Terminal {
    let keyboard = Arc::new(Keyboard::default());
    keyboard.make_room(1 << 20);
    let tty = Tty::new(80, 25);
    let output = Output::new(Some(keyboard.clone()));
    spawn("test", tty.clone().run(keyboard.clone(), output.clone()));
    let file = Arc::new(TtyFile::new(tty.clone(), output));
    Terminal {
        keyboard,
        file: OpenFile::new(file, OpenFlags::READ_WRITE),
        tty,
    }
}

impl Terminal {
    async fn read(&self, count: usize) -> Result<Vec<u8>> {
        let buffer = IoBuffer::Kernel(vec![0; count]);
        let mut io = Io::new(Direction::Read, None, buffer, IoFlags::empty());
        let count = self.file.complete(&mut io).await?;
        match io.buffer {
            IoBuffer::Kernel(bytes) => Ok(bytes[..count].to_vec()),
            _ => Err(Errno::EFAULT),
        }
    }

    async fn write(&self, bytes: &[u8]) -> Result<usize> {
        let buffer = IoBuffer::Kernel(bytes.to_vec());
        let mut io = Io::new(Direction::Write, None, buffer, IoFlags::empty());
        self.file.complete(&mut io).await
    }

    fn change(&self, change: impl FnOnce(&mut raw::termios2)) {
        let mut settings = self.tty.line.lock().settings();
        change(&mut settings);
        self.tty.set_settings(settings);
    }

    /// Gives the terminal's task time to take what was pressed.
    async fn settle(&self) {
        for _ in 0..8 {
            yield_now().await;
        }
    }

    fn screen(&self) -> Vec<u8> {
        self.keyboard.screen.lock().clone()
    }
}

#[test]
fn a_line_comes_in_when_it_is_complete_and_is_echoed() {
    let terminal = terminal();
    block_on(async {
        terminal.keyboard.press(b"hello");
        terminal.settle().await;
        terminal.file.set_flags(OpenFlags::NONBLOCK);
        assert_eq!(terminal.read(99).await, Err(Errno::EAGAIN));
        terminal.file.set_flags(OpenFlags::empty());
        terminal.keyboard.press(b"\r");
        assert_eq!(terminal.read(99).await.unwrap(), b"hello\n");
        terminal.settle().await;
        assert_eq!(terminal.screen(), b"hello\r\n");
    });
}

#[test]
fn output_goes_out_processed_even_if_there_is_little_room() {
    let terminal = terminal();
    *terminal.keyboard.room.lock() = 3;
    let keyboard = terminal.keyboard.clone();
    spawn("test", async move {
        for _ in 0..2000 {
            yield_now().await;
            keyboard.make_room(1);
        }
    });
    let text = b"line\n".repeat(200);
    assert_eq!(block_on(terminal.write(&text)), Ok(1000));
    block_on(poll_fn(|context| match terminal.screen().len() {
        1200 => Poll::Ready(()),
        _ => {
            context.waker().wake_by_ref();
            Poll::Pending
        }
    }));
    assert_eq!(terminal.screen(), b"line\r\n".repeat(200));
}

#[test]
fn raw_reads_wait_for_their_minimum_or_their_time() {
    let terminal = terminal();
    terminal.change(|settings| {
        settings.c_lflag = 0;
        settings.c_cc[raw::VMIN as usize] = 3;
    });
    let keyboard = terminal.keyboard.clone();
    spawn("test", async move {
        for key in b"abcd" {
            for _ in 0..8 {
                yield_now().await;
            }
            keyboard.press(&[*key]);
        }
    });
    assert_eq!(block_on(terminal.read(99)).unwrap(), b"abc");
    // A read that asks for less than the minimum gets that.
    assert_eq!(block_on(terminal.read(1)).unwrap(), b"d");
    terminal.change(|settings| {
        settings.c_cc[raw::VMIN as usize] = 0;
        settings.c_cc[raw::VTIME as usize] = 1;
    });
    let start = machine::clock::monotonic();
    assert_eq!(block_on(terminal.read(9)).unwrap(), b"");
    assert!(machine::clock::monotonic() >= start + TENTH);
}

#[test]
fn the_end_of_the_stream_is_the_end_of_the_file() {
    let terminal = terminal();
    terminal.keyboard.press(b"last\n");
    terminal.keyboard.close();
    assert_eq!(block_on(terminal.read(99)).unwrap(), b"last\n");
    assert_eq!(block_on(terminal.read(99)).unwrap(), b"");
}

#[test]
fn settings_and_size_are_kept() {
    let terminal = terminal();
    let space = AddressSpace::new().unwrap();
    let page = space
        .map(crate::mm::MapRequest::anonymous(
            4096,
            crate::mm::Access::READ | crate::mm::Access::WRITE,
        ))
        .unwrap();
    let control = |request| block_on(terminal.file.ops.ioctl(request, page, &space));
    control(ioctl::TCGETS).unwrap();
    let mut settings: raw::termios = space.read_value(page).unwrap();
    assert_ne!(settings.c_lflag & raw::ICANON, 0);
    settings.c_lflag &= !raw::ECHO;
    space.write_value(page, &settings).unwrap();
    control(ioctl::TCSETSF).unwrap();
    control(ioctl::TCGETS2).unwrap();
    let settings: raw::termios2 = space.read_value(page).unwrap();
    assert_eq!(settings.c_lflag & raw::ECHO, 0);
    control(ioctl::TIOCGWINSZ).unwrap();
    let size: raw::winsize = space.read_value(page).unwrap();
    assert_eq!((size.ws_col, size.ws_row), (80, 25));
    assert_eq!(control(ioctl::BLKROGET), Err(Errno::ENOTTY));
}
