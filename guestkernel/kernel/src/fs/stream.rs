//! A standard stream that is no terminal: a pipe to the outside.

use super::{
    Answer, BoxFuture, ByteStream, DeviceNumber, FileOps, FileType, Readiness, Stat, Timestamp,
};
use crate::error::{Errno, Result};
use crate::executor::Batch;
use crate::io::{Direction, Io, IoFlags};
use crate::mm::AddressSpace;
use alloc::boxed::Box;
use alloc::sync::Arc;
use core::task::{Context, Poll, Waker};
use linux_raw_sys::ioctl;

/// Bytes that are copied at a time between a program and the stream.
const CHUNK: usize = 4096;

/// The file that a stream is.
pub struct StreamFile {
    stream: Arc<dyn ByteStream>,
    opened: Timestamp,
    number: u64,
}

impl StreamFile {
    /// `number` tells it from others, as its inode number.
    pub fn new(stream: Arc<dyn ByteStream>, number: u64) -> Self {
        Self {
            stream,
            opened: Timestamp::now(),
            number,
        }
    }

    /// Advances a read: it is ready as soon as there are some bytes.
    fn poll_read(&self, io: &mut Io, context: &mut Context<'_>) -> Poll<Result<usize>> {
        let mut bytes = [0; CHUNK];
        while io.done < io.buffer.len() {
            let count = bytes.len().min(io.buffer.len() - io.done);
            // What is taken out of the stream must not be lost: the buffer is tried first.
            let ready = count.min(self.stream.available());
            let count = match io.buffer.fill_zeros(io.done, ready) {
                Ok(0) => count,
                Ok(writable) => writable,
                Err(error) => return Poll::Ready(io.cut_short(error)),
            };
            match self.stream.poll_read(&mut bytes[..count], context) {
                Poll::Ready(Ok(0)) => break,
                Poll::Ready(Ok(read)) => io.done += io.buffer.fill(io.done, &bytes[..read])?,
                Poll::Ready(Err(_)) | Poll::Pending if io.done > 0 => break,
                Poll::Ready(Err(error)) => return Poll::Ready(Err(error)),
                Poll::Pending if io.flags.contains(IoFlags::NOWAIT) => {
                    return Poll::Ready(Err(Errno::EAGAIN));
                }
                Poll::Pending => return Poll::Pending,
            }
        }
        Poll::Ready(Ok(io.done))
    }

    /// Advances a write: it is ready when all bytes are on their way, and where they may be refused,
    /// when they have arrived.
    fn poll_write(&self, io: &mut Io, context: &mut Context<'_>) -> Poll<Result<usize>> {
        // The device is told of all pieces at once.
        let _batch = Batch::new();
        let mut bytes = [0; CHUNK];
        while io.done < io.buffer.len() {
            let count = bytes.len().min(io.buffer.len() - io.done);
            let count = match io.buffer.take(io.done, &mut bytes[..count]) {
                Ok(count) => count,
                Err(error) => return Poll::Ready(io.cut_short(error)),
            };
            match self.stream.poll_write(&bytes[..count], context) {
                Poll::Ready(Ok(written)) => io.done += written,
                Poll::Ready(Err(_)) if io.done > 0 => break,
                Poll::Ready(Err(error)) => return Poll::Ready(Err(error)),
                Poll::Pending if !io.flags.contains(IoFlags::NOWAIT) => return Poll::Pending,
                Poll::Pending if io.done > 0 => break,
                Poll::Pending => return Poll::Ready(Err(Errno::EAGAIN)),
            }
        }
        if io.done > 0 && !io.flags.contains(IoFlags::NOWAIT) {
            let Poll::Ready(refusal) = self.stream.poll_settled(context) else {
                return Poll::Pending;
            };
            if let Some(refusal) = refusal {
                io.done = io.done.saturating_sub(refusal.bytes);
                if io.done == 0 {
                    return Poll::Ready(Err(refusal.errno));
                }
            }
        }
        Poll::Ready(Ok(io.done))
    }
}

impl FileOps for StreamFile {
    fn poll_io(&self, io: &mut Io, context: &mut Context<'_>) -> Poll<Result<usize>> {
        match io.direction {
            Direction::Read => self.poll_read(io, context),
            Direction::Write => self.poll_write(io, context),
        }
    }

    fn stat(&self) -> Answer<'_, Stat> {
        Answer::ready(Ok(Stat {
            device: DeviceNumber::new(0, 14),
            inode: self.number,
            mode: FileType::Fifo as u32 | 0o600,
            links: 1,
            block_size: CHUNK as u32,
            accessed: self.opened,
            modified: self.opened,
            changed: self.opened,
            ..Stat::default()
        }))
    }

    fn ioctl<'a>(
        &'a self,
        request: u32,
        argument: u64,
        space: &'a AddressSpace,
    ) -> BoxFuture<'a, Result<u64>> {
        let result = match request {
            ioctl::FIONREAD => {
                let count = i32::try_from(self.stream.available()).unwrap_or(i32::MAX);
                space.write_value(argument, &count).map(|()| 0)
            }
            _ => Err(Errno::ENOTTY),
        };
        Box::pin(core::future::ready(result))
    }

    fn poll_ready(&self, interest: Readiness, context: &mut Context<'_>) -> Readiness {
        self.stream.poll_ready(interest, context)
    }

    fn forget_waker(&self, waker: &Waker) {
        self.stream.forget_waker(waker);
    }

    fn is_pollable(&self) -> bool {
        true
    }
}
