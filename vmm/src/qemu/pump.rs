//! The standard streams between Ringlet's own and the sockets behind QEMU's console ports.

use std::io;
use std::net::Shutdown;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use ringlet_devices::Stop;
use ringlet_devices::console::host;
use vmm_sys_util::eventfd::{EFD_NONBLOCK, EventFd};

/// Bytes that are copied at a time: as much as a pipe holds.
const CHUNK: usize = 64 << 10;

/// Copies `input` to `port` from the moment that the guest wants input, which it says with a byte.
/// The end of the input is the end of what comes from the port; `on_error` tells the guest of an error.
pub(super) fn feed(
    input: &OwnedFd,
    port: &UnixStream,
    stop: &Stop,
    on_error: impl FnOnce(&io::Error),
) {
    if !matches!(host::read(port.as_fd(), &mut [0], stop), Ok(Some(1))) {
        return;
    }
    let mut buffer = vec![0; CHUNK];
    loop {
        let count = match host::read(input.as_fd(), &mut buffer, stop) {
            Ok(Some(count @ 1..)) => count,
            Ok(_) => break,
            Err(error) => return on_error(&error),
        };
        if host::write_all(port.as_fd(), &buffer[..count], stop).is_err() {
            return;
        }
    }
    // The socket stays open: QEMU would throw away what it has not read.
    let _ = port.shutdown(Shutdown::Write);
}

/// Copies `port` to `output`, which is called `name`. When nobody reads that any longer, or it refuses
/// what is written, the port is closed; `on_loss` hears of the latter.
pub(super) fn drain(
    port: &UnixStream,
    (name, output): (&str, &OwnedFd),
    stop: &Stop,
    on_loss: impl FnOnce(),
) {
    let mut buffer = vec![0; CHUNK];
    while let Ok(Some(count @ 1..)) = host::read(port.as_fd(), &mut buffer, stop) {
        if let Err(error) = host::write_all(output.as_fd(), &buffer[..count], stop) {
            if !stop.requested() {
                host::report_loss(name, &error);
                if error.kind() != io::ErrorKind::BrokenPipe {
                    on_loss();
                }
            }
            break;
        }
    }
    let _ = port.shutdown(Shutdown::Both);
}

/// Tells when the last of several streams has ended.
pub(super) struct Drained {
    running: AtomicUsize,
    event: EventFd,
}

/// A stream that has not ended.
pub(super) struct Stream(Arc<Drained>);

impl Drained {
    /// No streams yet, and more may come until it is sealed.
    ///
    /// # Errors
    ///
    /// Those of eventfd(2).
    pub(super) fn new() -> io::Result<Self> {
        Ok(Self {
            running: AtomicUsize::new(1),
            event: EventFd::new(EFD_NONBLOCK)?,
        })
    }

    /// One more stream, which ends when this is dropped.
    pub(super) fn stream(self: &Arc<Self>) -> Stream {
        self.running.fetch_add(1, Ordering::Relaxed);
        Stream(Arc::clone(self))
    }

    /// There are no more streams to come.
    pub(super) fn seal(&self) {
        self.end_one();
    }

    /// Readable when all streams have ended.
    pub(super) fn event(&self) -> &EventFd {
        &self.event
    }

    fn end_one(&self) {
        if self.running.fetch_sub(1, Ordering::AcqRel) == 1 {
            // It fails only when the counter is full, and then it is readable.
            let _ = self.event.write(1);
        }
    }
}

impl Drop for Stream {
    fn drop(&mut self) {
        self.0.end_one();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use ringlet_devices::{ThreadKind, Threads, Worker};
    use std::io::{Read, Write};

    #[test]
    fn input_is_read_on_demand_and_to_its_end() {
        let (guest, port) = UnixStream::pair().unwrap();
        let (reader, mut writer) = io::pipe().unwrap();
        writer.write_all(b"input").unwrap();
        drop(writer);
        let input: OwnedFd = reader.try_clone().unwrap().into();
        let feed = move |stop: Arc<Stop>| feed(&input, &port, &stop, |_| ());
        let _worker =
            Worker::spawn(&Threads::unconfined(), ThreadKind::Input, "feed", feed).unwrap();
        std::thread::sleep(std::time::Duration::from_millis(50));
        let mut first = [0];
        (&reader).read_exact(&mut first).unwrap();
        assert_eq!(&first, b"i", "nobody else has read");
        (&guest).write_all(&[1]).unwrap();
        let mut rest = Vec::new();
        (&guest).read_to_end(&mut rest).unwrap();
        assert_eq!(rest, b"nput");
    }

    #[test]
    fn a_reader_that_leaves_closes_the_port() {
        let (guest, port) = UnixStream::pair().unwrap();
        let (reader, writer) = io::pipe().unwrap();
        drop(reader);
        let drained = Arc::new(Drained::new().unwrap());
        let stream = drained.stream();
        let writer: OwnedFd = writer.into();
        let drain = move |stop: Arc<Stop>| {
            drain(&port, ("stdout", &writer), &stop, || ());
            drop(stream);
        };
        let _worker =
            Worker::spawn(&Threads::unconfined(), ThreadKind::Output, "drain", drain).unwrap();
        (&guest).write_all(b"lost").unwrap();
        assert_eq!((&guest).read(&mut [0]).unwrap(), 0);
        assert!((&guest).write(b"x").is_err());
        assert!(drained.event().read().is_err(), "not sealed");
        drained.seal();
        while drained.event().read().is_err() {
            std::thread::yield_now();
        }
    }
}
