//! An open regular file.
//!
//! Reads come from pages that are kept, unless the server or the program wants none to be. Otherwise
//! the server moves the bytes straight between the host's file and the memory of whoever reads or writes.

use super::inode::FuseInode;
use super::mapping::Contents;
use super::pages::{Fill, Found};
use super::protocol::{Arguments, FSYNC_DATA, Fields, OPEN_DIRECT, Opened, opcode};
use super::session::{Call, FuseFs, release_arguments, room};
use crate::drivers::virtio_fs::{FsReply, FsTicket};
use crate::error::{Errno, Result};
use crate::fs::{Answer, AttributeChange, BoxFuture, FileOps, OpenFlags, Stat};
use crate::io::{Direction, Io, IoFlags};
use crate::mm::{IoBuffer, PAGE, PageSource};
use alloc::boxed::Box;
use alloc::sync::Arc;
use core::sync::atomic::AtomicU64;
use core::task::{Context, Poll, ready};
use linux_raw_sys::general as raw;
use machine::lock::Mutex;
use machine::{DmaSegments, PAGE_SIZE};

/// The largest size of a file.
const MAX_SIZE: u64 = i64::MAX as u64;
/// Pages that are read ahead of somebody who goes through a file: at first and at most.
const FIRST_AHEAD: u64 = 16;
const MOST_AHEAD: u64 = 128;

/// A handle of the server's, until it is dropped.
pub(super) struct Handle {
    inode: Arc<FuseInode>,
    fh: u64,
    /// As the server was told.
    flags: u32,
}

impl Handle {
    pub(super) fn fs(&self) -> &FuseFs {
        &self.inode.fs
    }

    pub(super) fn can_write(&self) -> bool {
        OpenFlags::from_bits_retain(self.flags).can_write()
    }

    /// Asks the server about the file.
    pub(super) fn submit(&self, call: Call) -> FsTicket {
        self.fs().submit(self.inode.node, call)
    }

    async fn call(&self, call: Call) -> Result<FsReply> {
        self.submit(call).await
    }

    /// The arguments of READ and WRITE, which does not append.
    pub(super) fn transfer_arguments(
        &self,
        offset: u64,
        length: u32,
        write_flags: u32,
    ) -> Arguments {
        self.arguments(offset, length, write_flags, self.flags & !raw::O_APPEND)
    }

    fn arguments(&self, offset: u64, length: u32, write_flags: u32, flags: u32) -> Arguments {
        Arguments::new()
            .u64(self.fh)
            .u64(offset)
            .u32(length)
            .u32(write_flags)
            .u64(0)
            .u32(flags)
            .u32(0)
    }

    fn sync_call(&self, data_only: bool) -> Call {
        let flags = if data_only { FSYNC_DATA } else { 0 };
        let arguments = Arguments::new().u64(self.fh).u32(flags).u32(0);
        Call::new(opcode::FSYNC, arguments, 0)
    }

    /// Makes what the server was given durable.
    pub(super) async fn sync(&self, data_only: bool) -> Result<()> {
        self.call(self.sync_call(data_only)).await.map(drop)
    }
}

impl Drop for Handle {
    fn drop(&mut self) {
        let call = Call::new(opcode::RELEASE, release_arguments(self.fh, self.flags), 0);
        self.inode.fs.tell(self.inode.node, call);
    }
}

/// How somebody goes through a file, in pages.
#[derive(Default)]
struct Ahead {
    /// Where he is expected next.
    next: u64,
    /// Before where pages were asked for, and how many the last time.
    end: u64,
    window: u64,
}

/// An open file of a [`FuseFs`].
pub(super) struct FuseFile {
    inode: Arc<FuseInode>,
    handle: Arc<Handle>,
    /// The server wants nothing to be kept.
    is_direct: bool,
    ahead: Mutex<Ahead>,
    /// Errors of writing back that were seen here.
    seen: AtomicU64,
}

/// What a read or write waits for.
enum Step {
    /// The attributes, for the size; that an append starts there.
    Size { ticket: FsTicket, version: u64 },
    /// What programs have changed in mappings to be written back.
    Before(BoxFuture<'static, ()>),
    /// Pages to be read.
    Wait(Arc<Fill>),
    /// So many bytes; to pages of the kernel's, if there are any.
    Move {
        ticket: FsTicket,
        length: u32,
        bounce: Option<Box<DmaSegments>>,
    },
    /// What was written to be durable.
    Sync(FsTicket),
}

/// What came of a step.
enum Came {
    Reply(FsReply),
    Nothing,
}

impl Step {
    fn poll(&mut self, context: &mut Context<'_>) -> Poll<Result<Came>> {
        match self {
            Self::Size { ticket, .. } | Self::Move { ticket, .. } | Self::Sync(ticket) => {
                ticket.poll(context).map_ok(Came::Reply)
            }
            Self::Before(written) => written.as_mut().poll(context).map(|()| Ok(Came::Nothing)),
            Self::Wait(fill) => fill.poll(context).map_ok(|()| Came::Nothing),
        }
    }
}

impl FuseFile {
    pub(super) fn new(inode: Arc<FuseInode>, opened: Opened, flags: u32) -> Self {
        let errors = inode.contents_if_any().map_or(0, Contents::errors);
        inode.note_open(opened.flags);
        Self {
            handle: Arc::new(Handle {
                inode: inode.clone(),
                fh: opened.fh,
                flags,
            }),
            is_direct: opened.flags & OPEN_DIRECT != 0,
            inode,
            ahead: Mutex::default(),
            seen: AtomicU64::new(errors),
        }
    }

    /// Whether `io` is about pages that are kept.
    fn is_cached(&self, io: &Io) -> bool {
        io.direction == Direction::Read
            && !self.is_direct
            && (!io.flags.contains(IoFlags::DIRECT) || matches!(io.buffer, IoBuffer::Kernel(_)))
    }

    /// The bytes that `io` is to move in all.
    fn wanted(&self, io: &Io) -> usize {
        let start = io.position.unwrap_or(0);
        let end = match self.is_cached(io) {
            true => self.inode.known_size(),
            false => MAX_SIZE,
        };
        let most = usize::try_from(end.saturating_sub(start)).unwrap_or(usize::MAX);
        io.buffer.len().min(most)
    }

    /// The first step; `None` if there is nothing to do.
    fn start(&self, io: &mut Io) -> Result<Option<Step>> {
        if io.buffer.is_empty() {
            return Ok(None);
        }
        let needs_size = match io.direction {
            Direction::Write => io.flags.contains(IoFlags::APPEND),
            Direction::Read => self.is_cached(io) && !self.inode.has_valid_attributes(),
        };
        if needs_size {
            let version = self.inode.fs.version();
            let ticket = self.handle.submit(FuseInode::get_attributes());
            return Ok(Some(Step::Size { ticket, version }));
        }
        self.after_size(io)
    }

    /// The step after the size is known.
    fn after_size(&self, io: &mut Io) -> Result<Option<Step>> {
        let contents = self.inode.contents_if_any();
        let is_dirty = contents.is_some_and(|contents| contents.pages.dirty() > 0);
        if is_dirty && !self.is_cached(io) {
            let inode = self.inode.clone();
            let first = io.position.unwrap_or(0) / PAGE;
            let end = io
                .position
                .unwrap_or(0)
                .saturating_add(io.buffer.len() as u64);
            return Ok(Some(Step::Before(Box::pin(async move {
                inode.write_back(first, end.div_ceil(PAGE)).await;
            }))));
        }
        self.next(io)
    }

    /// What comes next; `None` if all is done.
    fn next(&self, io: &mut Io) -> Result<Option<Step>> {
        match self.is_cached(io) {
            true => self.copy(io),
            false => self.move_next(io),
        }
    }

    /// Copies from pages that are kept, until one is not.
    fn copy(&self, io: &mut Io) -> Result<Option<Step>> {
        let wanted = self.wanted(io);
        let start = io.position.unwrap_or(0);
        let pages = &self.inode.contents().pages;
        while io.done < wanted {
            if io.must_give_way() {
                return Err(Errno::GIVE_WAY);
            }
            let at = start + io.done as u64;
            let (index, offset) = (at / PAGE, (at % PAGE) as usize);
            let frame = match pages.get(index) {
                Found::Ready(frame) => frame,
                Found::Reading(fill) => return Ok(Some(Step::Wait(fill))),
                Found::Absent => {
                    let end = (start + wanted as u64).div_ceil(PAGE);
                    return self.read_ahead(index, end - index).map(Some);
                }
            };
            let count = (PAGE_SIZE - offset).min(wanted - io.done);
            io.done += io.buffer.fill_from_frame(io.done, &frame, offset, count)?;
            self.note_read(index);
        }
        Ok(None)
    }

    /// Has page `index` read, of which and those behind it `count` are wanted now.
    fn read_ahead(&self, index: u64, count: u64) -> Result<Step> {
        let most = {
            let mut ahead = self.ahead.lock();
            // Where the last request ended, several may wait for their parts of it.
            let goes_on = index == ahead.next || index == ahead.end || index == 0;
            ahead.window = match goes_on {
                true => (ahead.window * 2).clamp(FIRST_AHEAD, MOST_AHEAD),
                false => 0,
            };
            let most = ahead.window.max(count.min(MOST_AHEAD));
            ahead.next = index;
            ahead.end = index + most;
            most
        };
        let end = self.inode.known_size().div_ceil(PAGE);
        let pages = &self.inode.contents().pages;
        Ok(Step::Wait(pages.fill(&self.handle, (index, most, end))?))
    }

    /// Page `index` was read: who goes through the file finds the next ones there.
    fn note_read(&self, index: u64) {
        let (first, count) = {
            let mut ahead = self.ahead.lock();
            let goes_on = index == ahead.next;
            ahead.next = index + 1;
            if !goes_on || ahead.window == 0 || index + ahead.window / 2 < ahead.end {
                return;
            }
            ahead.window = (ahead.window * 2).min(MOST_AHEAD);
            let first = ahead.end;
            ahead.end += ahead.window;
            (first, ahead.window)
        };
        let end = self.inode.known_size().div_ceil(PAGE);
        let pages = &self.inode.contents().pages;
        if first < end && matches!(pages.get(first), Found::Absent) {
            // Who comes there will try again, and see the error.
            let _ = pages.fill(&self.handle, (first, count, end));
            if !crate::executor::is_batching() {
                crate::executor::kick_devices();
            }
        }
    }

    /// Has the server move the next part; `None` if all is done.
    fn move_next(&self, io: &Io) -> Result<Option<Step>> {
        let wanted = self.wanted(io);
        let start = io.position.unwrap_or(0);
        let is_read = io.direction == Direction::Read;
        if io.done >= wanted {
            return match !is_read && wanted < io.buffer.len() && io.done == 0 {
                true => Err(Errno::EFBIG),
                false => Ok(None),
            };
        }
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
        let mut flags = self.handle.flags & !raw::O_APPEND;
        if io.flags.contains(IoFlags::APPEND) {
            flags |= raw::O_APPEND;
        }
        let position = start + io.done as u64;
        let arguments = self.handle.arguments(position, length, 0, flags);
        let mut call = match is_read {
            true => Call::new(opcode::READ, arguments, 0),
            false => Call::new(opcode::WRITE, arguments, 8),
        };
        match is_read {
            true => call.from_device = Some(segments),
            false => call.to_device = Some(segments),
        }
        Ok(Some(Step::Move {
            ticket: self.handle.submit(call),
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
        if io.direction == Direction::Write {
            self.note_written(io, moved);
        }
        io.done += moved;
        Ok(moved < length as usize)
    }

    /// The server has written the next `count` bytes: so do the pages that are kept.
    fn note_written(&self, io: &Io, count: usize) {
        let start = io.position.unwrap_or(0).saturating_add(io.done as u64);
        self.inode.note_write(start.saturating_add(count as u64));
        let Some(contents) = self.inode.contents_if_any() else {
            return;
        };
        if contents.pages.is_empty() {
            return;
        }
        let mut done = 0;
        while done < count {
            let at = start + done as u64;
            let (index, offset) = (at / PAGE, (at % PAGE) as usize);
            let here = (PAGE_SIZE - offset).min(count - done);
            let is_gone = contents.pages.overwrite(index, |frame| {
                let copied = io.buffer.take_to_frame(io.done + done, frame, offset, here);
                copied == Ok(here)
            });
            if is_gone {
                contents.forget_mapped(index, index + 1, false);
            }
            done += here;
        }
    }

    /// Whether the transfer is to be durable although the server's file is not opened so.
    fn must_sync(&self, io: &Io) -> bool {
        let asked = io.flags.intersects(IoFlags::DATA_SYNC | IoFlags::SYNC);
        asked && io.direction == Direction::Write && self.handle.flags & raw::O_SYNC == 0
    }

    /// What follows `step`, of which `came` has come: the next, or `None` at the end.
    fn advance(&self, io: &mut Io, step: Step, came: Came) -> Result<Option<Step>> {
        let is_over = match (step, came) {
            (Step::Size { version, .. }, Came::Reply(reply)) => {
                let stat = self.inode.take_attributes(&reply.fixed, version)?;
                if io.direction == Direction::Write {
                    io.position = Some(stat.size);
                }
                return self.after_size(io);
            }
            (Step::Move { length, bounce, .. }, Came::Reply(reply)) => {
                self.moved(io, &reply, length, bounce)?
            }
            (Step::Sync(_), _) => return Ok(None),
            (Step::Before(_) | Step::Wait(_), _) => false,
            (Step::Size { .. } | Step::Move { .. }, Came::Nothing) => return Err(Errno::EIO),
        };
        if !is_over && let Some(step) = self.next(io)? {
            return Ok(Some(step));
        }
        Ok((self.must_sync(io) && io.done > 0).then(|| {
            let data_only = !io.flags.contains(IoFlags::SYNC);
            Step::Sync(self.handle.submit(self.handle.sync_call(data_only)))
        }))
    }

    /// Writes back what was changed in mappings, and reports what has failed, once.
    async fn write_back(&self) -> Result<()> {
        match self.inode.contents_if_any() {
            Some(contents) => {
                if contents.pages.dirty() > 0 {
                    self.inode.write_back(0, u64::MAX).await;
                }
                contents.check(&self.seen)
            }
            None => Ok(()),
        }
    }
}

impl FuseFile {
    /// Has the server copy `count` bytes, or as many of them as it likes.
    async fn copy_range(
        &self,
        position: u64,
        to: &Self,
        to_position: u64,
        count: usize,
    ) -> Result<usize> {
        self.write_back().await?;
        to.write_back().await?;
        let arguments = Arguments::new()
            .u64(self.handle.fh)
            .u64(position)
            .u64(to.inode.node)
            .u64(to.handle.fh)
            .u64(to_position)
            .u64(count as u64)
            .u64(0);
        let call = Call::new(opcode::COPY_FILE_RANGE, arguments, 8);
        let reply = match self.handle.call(call).await {
            // Two file systems of the host's, or one that cannot.
            Err(Errno::ENOSYS | Errno::EXDEV | Errno::EOPNOTSUPP) => {
                return Err(Errno::EOPNOTSUPP);
            }
            reply => reply?,
        };
        let copied = Fields::new(&reply.fixed).u32()? as usize;
        if copied > count {
            return Err(Errno::EIO);
        }
        to.inode
            .note_write(to_position.saturating_add(copied as u64));
        if let Some(contents) = to.inode.contents_if_any() {
            contents.changed(0, 0, true);
        }
        Ok(copied)
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

impl FileOps for FuseFile {
    fn poll_io(&self, io: &mut Io, context: &mut Context<'_>) -> Poll<Result<usize>> {
        let mut next = match io.in_flight.is_empty() {
            // Also when a page of the buffer was missed and is there now, or others had their turn.
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
            let Some(place) = io.in_flight.get_mut::<Option<Step>>() else {
                return Poll::Ready(Ok(io.done));
            };
            let Some(waiting) = place else {
                return Poll::Ready(Ok(io.done));
            };
            let came = ready!(waiting.poll(context));
            let Some(step) = place.take() else {
                return Poll::Ready(Ok(io.done));
            };
            io.in_flight.clear();
            next = came.and_then(|came| self.advance(io, step, came));
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
            self.write_back().await?;
            let whence = if hole { raw::SEEK_HOLE } else { raw::SEEK_DATA };
            let arguments = Arguments::new()
                .u64(self.handle.fh)
                .u64(from)
                .u32(whence)
                .u32(0);
            let call = Call::new(opcode::LSEEK, arguments, 8);
            let reply = self.handle.call(call).await?;
            Fields::new(&reply.fixed).u64()
        })
    }

    fn sync(&self, data_only: bool) -> BoxFuture<'_, Result<()>> {
        Box::pin(async move {
            self.write_back().await?;
            self.handle.sync(data_only).await
        })
    }

    fn page_source(self: Arc<Self>) -> Result<Arc<dyn PageSource>> {
        if self.is_direct
            && let Some(contents) = self.inode.contents_if_any()
        {
            contents.changed(0, 0, true);
        }
        Ok(self.inode.map(&self.handle))
    }

    fn truncate(&self, size: u64) -> Answer<'_, ()> {
        let change = AttributeChange {
            size: Some(size),
            ..AttributeChange::default()
        };
        Answer::later(self.inode.change(change, Some(self.handle.fh)))
    }

    fn allocate(&self, mode: u32, offset: u64, length: u64) -> Answer<'_, ()> {
        Answer::later(async move {
            self.write_back().await?;
            let arguments = Arguments::new()
                .u64(self.handle.fh)
                .u64(offset)
                .u64(length)
                .u32(mode)
                .u32(0);
            let call = Call::new(opcode::FALLOCATE, arguments, 0);
            let result = self.handle.call(call).await;
            self.inode.invalidate();
            if mode & !raw::FALLOC_FL_KEEP_SIZE != 0
                && let Some(contents) = self.inode.contents_if_any()
            {
                contents.changed(0, 0, true);
            }
            match result {
                Err(Errno::ENOSYS) => Err(Errno::EOPNOTSUPP),
                result => result.map(drop),
            }
        })
    }

    fn copy_to<'a>(
        &'a self,
        position: u64,
        to: &'a dyn FileOps,
        to_position: u64,
        count: usize,
    ) -> Option<Answer<'a, usize>> {
        let to = (to as &dyn core::any::Any).downcast_ref::<Self>()?;
        let is_one = Arc::ptr_eq(&self.inode.fs, &to.inode.fs);
        (is_one && count > 0)
            .then(|| Answer::later(self.copy_range(position, to, to_position, count)))
    }

    fn flush(&self) -> Answer<'_, ()> {
        if !self.flushes() {
            return Answer::ready(Ok(()));
        }
        Answer::later(async {
            let written = self.write_back().await;
            let arguments = Arguments::new().u64(self.handle.fh).u32(0).u32(0).u64(0);
            let call = Call::new(opcode::FLUSH, arguments, 0);
            match self.handle.call(call).await {
                Ok(_) | Err(Errno::ENOSYS) => written,
                Err(error) => Err(error),
            }
        })
    }

    fn flushes(&self) -> bool {
        // Nothing that was put off can fail where nothing was written.
        self.handle.can_write()
    }
}
