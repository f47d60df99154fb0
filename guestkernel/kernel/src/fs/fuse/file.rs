//! An open regular file: the server moves its bytes straight between the host's file and the memory of
//! whoever reads or writes.

use super::inode::FuseInode;
use super::protocol::{Arguments, FSYNC_DATA, Fields, Opened, opcode};
use super::session::{Call, release_arguments, room};
use crate::drivers::virtio_fs::{FsReply, FsTicket};
use crate::error::{Errno, Result};
use crate::fs::{Answer, AttributeChange, BoxFuture, FileOps, OpenFlags, Stat};
use crate::io::{Direction, Io, IoFlags};
use crate::mm::IoBuffer;
use alloc::boxed::Box;
use alloc::sync::Arc;
use core::task::{Context, Poll, ready};
use linux_raw_sys::general as raw;
use machine::DmaSegments;

/// The largest size of a file.
const MAX_SIZE: u64 = i64::MAX as u64;

/// An open file of a [`FuseFs`](super::session::FuseFs).
pub(super) struct FuseFile {
    inode: Arc<FuseInode>,
    fh: u64,
    /// As the server was told.
    flags: u32,
}

/// What a read or write waits for.
enum Step {
    /// The attributes: an append needs the size.
    Size { ticket: FsTicket, version: u64 },
    /// So many bytes; from or to pages of the kernel's, if there are any.
    Move {
        ticket: FsTicket,
        length: u32,
        bounce: Option<Box<DmaSegments>>,
    },
    /// What was written to be durable.
    Sync(FsTicket),
}

impl FuseFile {
    pub(super) fn new(inode: Arc<FuseInode>, opened: Opened, flags: u32) -> Self {
        Self {
            inode,
            fh: opened.fh,
            flags,
        }
    }

    fn submit(&self, call: Call) -> FsTicket {
        self.inode.fs.submit(self.inode.node, call)
    }

    async fn call(&self, call: Call) -> Result<FsReply> {
        self.inode.fs.call(self.inode.node, call).await
    }

    /// The bytes that `io` is to move in all.
    fn wanted(io: &Io) -> usize {
        let start = io.position.unwrap_or(0);
        let most = usize::try_from(MAX_SIZE.saturating_sub(start)).unwrap_or(usize::MAX);
        io.buffer.len().min(most)
    }

    /// The first step; `None` if there is nothing to do.
    fn start(&self, io: &mut Io) -> Result<Option<Step>> {
        if io.buffer.is_empty() {
            return Ok(None);
        }
        if io.direction == Direction::Write && io.flags.contains(IoFlags::APPEND) {
            let version = self.inode.fs.version();
            let ticket = self.submit(FuseInode::get_attributes());
            return Ok(Some(Step::Size { ticket, version }));
        }
        self.next(io)
    }

    /// Has the server move the next part; `None` if all is done.
    fn next(&self, io: &Io) -> Result<Option<Step>> {
        let wanted = Self::wanted(io);
        let start = io.position.unwrap_or(0);
        if io.done >= wanted {
            return match io.direction == Direction::Write
                && wanted < io.buffer.len()
                && io.done == 0
            {
                true => Err(Errno::EFBIG),
                false => Ok(None),
            };
        }
        let is_read = io.direction == Direction::Read;
        let most = (wanted - io.done).min(self.inode.fs.transfer());
        let (segments, bounce) = match &io.buffer {
            IoBuffer::Kernel(bytes) => {
                let segments = room(most)?;
                if !is_read {
                    fill(&segments, &bytes[io.done..io.done + most]);
                }
                (segments.clone(), is_read.then(|| Box::new(segments)))
            }
            buffer => (self.memory(buffer, io.done, most, is_read)?, None),
        };
        let length = segments.total() as u32;
        let mut flags = self.flags & !raw::O_APPEND;
        if io.flags.contains(IoFlags::APPEND) {
            flags |= raw::O_APPEND;
        }
        let arguments = Arguments::new()
            .u64(self.fh)
            .u64(start + io.done as u64)
            .u32(length)
            .u32(0)
            .u64(0)
            .u32(flags)
            .u32(0);
        let mut call = match is_read {
            true => Call::new(opcode::READ, arguments, 0),
            false => Call::new(opcode::WRITE, arguments, 8),
        };
        match is_read {
            true => call.from_device = Some(segments),
            false => call.to_device = Some(segments),
        }
        Ok(Some(Step::Move {
            ticket: self.submit(call),
            length,
            bounce,
        }))
    }

    /// As much of the buffer from byte `at` on as is there and fits in a request, `most` bytes at
    /// most.
    fn memory(
        &self,
        buffer: &IoBuffer,
        at: usize,
        most: usize,
        device_writes: bool,
    ) -> Result<DmaSegments> {
        let mut length = most;
        // What is not all there is tried by halves, and in the end by bytes.
        let (segments, length) = loop {
            match buffer.segments(at, length, device_writes) {
                Err(Errno::EFAULT) if length > 1 => length /= 2,
                segments => break (segments?, length),
            }
        };
        let (mut pieces, mut fits) = (0, 0);
        segments.for_each_run(|_, length| {
            pieces += 1;
            if pieces <= self.inode.fs.pieces() {
                fits += length as usize;
            }
        });
        match fits < length {
            true => Ok(segments.part(0, fits)),
            false => Ok(segments),
        }
    }

    /// Takes the reply to what moves `length` bytes; true if there will be no more.
    fn moved(
        &self,
        io: &mut Io,
        reply: &FsReply,
        length: u32,
        bounce: Option<Box<DmaSegments>>,
    ) -> Result<bool> {
        let moved = match io.direction {
            Direction::Read => reply.length,
            Direction::Write => Fields::new(&reply.fixed).u32()? as usize,
        };
        if moved > length as usize {
            return Err(Errno::EIO);
        }
        if let (Some(segments), IoBuffer::Kernel(bytes)) = (bounce, &mut io.buffer) {
            drain(&segments, &mut bytes[io.done..io.done + moved]);
        }
        io.done += moved;
        if io.direction == Direction::Write {
            let start = io.position.unwrap_or(0);
            self.inode.note_write(start.saturating_add(io.done as u64));
        }
        Ok(moved < length as usize)
    }

    /// Whether the transfer is to be durable although the server's file is not opened so.
    fn must_sync(&self, io: &Io) -> bool {
        let asked = io.flags.intersects(IoFlags::DATA_SYNC | IoFlags::SYNC);
        asked && io.direction == Direction::Write && self.flags & raw::O_SYNC == 0
    }

    fn sync_call(&self, data_only: bool) -> Call {
        let flags = if data_only { FSYNC_DATA } else { 0 };
        let arguments = Arguments::new().u64(self.fh).u32(flags).u32(0);
        Call::new(opcode::FSYNC, arguments, 0)
    }

    /// What follows `step`, whose reply is `reply`: the next, or `None` at the end.
    fn advance(&self, io: &mut Io, step: Step, reply: Result<FsReply>) -> Result<Option<Step>> {
        let is_over = match step {
            Step::Size { version, .. } => {
                let stat = self.inode.take_attributes(&reply?.fixed, version)?;
                io.position = Some(stat.size);
                false
            }
            Step::Move { length, bounce, .. } => self.moved(io, &reply?, length, bounce)?,
            Step::Sync(_) => {
                reply?;
                return Ok(None);
            }
        };
        if !is_over && let Some(step) = self.next(io)? {
            return Ok(Some(step));
        }
        Ok((self.must_sync(io) && io.done > 0).then(|| {
            let data_only = !io.flags.contains(IoFlags::SYNC);
            Step::Sync(self.submit(self.sync_call(data_only)))
        }))
    }
}

/// Copies `bytes` into memory of that size.
fn fill(segments: &DmaSegments, bytes: &[u8]) {
    if let DmaSegments::Own(segments) = segments {
        let mut rest = bytes;
        for segment in segments {
            let (here, after) = rest.split_at(segment.len().min(rest.len()));
            segment.frame().write(segment.offset(), here);
            rest = after;
        }
    }
}

/// Copies memory of at least that size into `out`.
fn drain(segments: &DmaSegments, out: &mut [u8]) {
    if let DmaSegments::Own(segments) = segments {
        let mut rest = out;
        for segment in segments {
            let (here, after) = rest.split_at_mut(segment.len().min(rest.len()));
            segment.frame().read(segment.offset(), here);
            rest = after;
        }
    }
}

impl Step {
    fn ticket(&mut self) -> &mut FsTicket {
        match self {
            Self::Size { ticket, .. } | Self::Move { ticket, .. } | Self::Sync(ticket) => ticket,
        }
    }
}

impl Drop for FuseFile {
    fn drop(&mut self) {
        let call = Call::new(opcode::RELEASE, release_arguments(self.fh, self.flags), 0);
        self.inode.fs.tell(self.inode.node, call);
    }
}

impl FileOps for FuseFile {
    fn poll_io(&self, io: &mut Io, context: &mut Context<'_>) -> Poll<Result<usize>> {
        let mut next = match io.in_flight.is_empty() {
            // Also when a page of the buffer was missed, and is there now.
            true if io.done == 0 => self.start(io),
            true => self.next(io),
            false => Ok(None),
        };
        loop {
            match next {
                Ok(Some(step)) => io.in_flight.put(Some(step)),
                Err(error) => {
                    io.in_flight.clear();
                    return Poll::Ready(io.cut_short(error));
                }
                Ok(None) => {}
            }
            let Some(step) = io.in_flight.get_mut::<Option<Step>>() else {
                return Poll::Ready(Ok(io.done));
            };
            let Some(waiting) = step else {
                return Poll::Ready(Ok(io.done));
            };
            let reply = ready!(waiting.ticket().poll(context));
            let Some(step) = step.take() else {
                return Poll::Ready(Ok(io.done));
            };
            io.in_flight.clear();
            next = self.advance(io, step, reply);
            if matches!(next, Ok(None)) {
                return Poll::Ready(Ok(io.done));
            }
        }
    }

    fn stat(&self) -> Answer<'_, Stat> {
        self.inode.attributes()
    }

    fn is_seekable(&self) -> bool {
        true
    }

    fn supports_nowait(&self) -> bool {
        false
    }

    fn size(&self) -> Answer<'_, u64> {
        self.inode.attributes().and_then(|stat| Ok(stat.size))
    }

    fn has_size(&self) -> bool {
        true
    }

    fn seek_hole(&self, from: u64, hole: bool) -> Answer<'_, u64> {
        Answer::later(async move {
            let whence = if hole { raw::SEEK_HOLE } else { raw::SEEK_DATA };
            let arguments = Arguments::new().u64(self.fh).u64(from).u32(whence).u32(0);
            let call = Call::new(opcode::LSEEK, arguments, 8);
            let reply = self.call(call).await?;
            Fields::new(&reply.fixed).u64()
        })
    }

    fn sync(&self, data_only: bool) -> BoxFuture<'_, Result<()>> {
        Box::pin(async move { self.call(self.sync_call(data_only)).await.map(drop) })
    }

    fn truncate(&self, size: u64) -> Answer<'_, ()> {
        let change = AttributeChange {
            size: Some(size),
            ..AttributeChange::default()
        };
        Answer::later(self.inode.change(change, Some(self.fh)))
    }

    fn allocate(&self, mode: u32, offset: u64, length: u64) -> Answer<'_, ()> {
        Answer::later(async move {
            let arguments = Arguments::new()
                .u64(self.fh)
                .u64(offset)
                .u64(length)
                .u32(mode)
                .u32(0);
            let call = Call::new(opcode::FALLOCATE, arguments, 0);
            let result = self.call(call).await;
            self.inode.invalidate();
            match result {
                Err(Errno::ENOSYS) => Err(Errno::EOPNOTSUPP),
                result => result.map(drop),
            }
        })
    }

    fn flush(&self) -> Answer<'_, ()> {
        if !self.flushes() {
            return Answer::ready(Ok(()));
        }
        Answer::later(async {
            let arguments = Arguments::new().u64(self.fh).u32(0).u32(0).u64(0);
            match self.call(Call::new(opcode::FLUSH, arguments, 0)).await {
                Ok(_) | Err(Errno::ENOSYS) => Ok(()),
                Err(error) => Err(error),
            }
        })
    }

    fn flushes(&self) -> bool {
        // Nothing that was put off can fail where nothing was written.
        OpenFlags::from_bits_retain(self.flags).can_write()
    }
}
