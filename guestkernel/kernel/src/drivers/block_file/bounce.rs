//! Writes through pages of the kernel's, for programs that do not use `O_DIRECT`.
//!
//! The bytes are written in windows of whole blocks. A block of which only a part is written is a
//! window of its own: it is read, changed, and written back, while a lock keeps other such writes
//! off the device.

use super::cache::Cache;
use super::write_ticket::WriteTicket;
use crate::drivers::block::{BlockOp, BlockTicket, SECTOR};
use crate::error::{Errno, Result};
use crate::executor::WaitQueue;
use crate::mm::IoBuffer;
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::sync::atomic::{AtomicBool, Ordering};
use core::task::{Context, Poll, ready};
use machine::{DmaSegments, Frame, PAGE_SIZE, Segment};

/// Bytes of the largest window.
const WINDOW: usize = 256 << 10;

/// Of the writes through the kernel, a device does one at a time.
#[derive(Default)]
pub(super) struct EditLock {
    is_held: AtomicBool,
    waiters: WaitQueue,
}

impl EditLock {
    fn try_take(self: &Arc<Self>) -> Option<Arc<EditGuard>> {
        match self.is_held.swap(true, Ordering::Acquire) {
            true => None,
            false => Some(Arc::new(EditGuard(self.clone()))),
        }
    }

    fn poll_take(self: &Arc<Self>, context: &mut Context<'_>) -> Poll<Arc<EditGuard>> {
        if let Some(guard) = self.try_take() {
            return Poll::Ready(guard);
        }
        self.waiters.register(context.waker());
        // It may have been released just before.
        match self.try_take() {
            Some(guard) => Poll::Ready(guard),
            None => Poll::Pending,
        }
    }
}

/// Held by a write, and by what the device still does for it when nobody waits any longer.
pub(super) struct EditGuard(Arc<EditLock>);

impl Drop for EditGuard {
    fn drop(&mut self) {
        self.0.is_held.store(false, Ordering::Release);
        self.0.waiters.wake_all();
    }
}

/// What the device does at the moment.
enum Step {
    /// Nothing.
    Idle,
    /// It reads the window.
    Read(BlockTicket),
    /// Nothing: it has read the window.
    HasRead,
    /// It writes the window, of which so many bytes are the program's.
    Write(WriteTicket, usize),
}

/// The blocks that are worked on.
#[derive(Clone, Copy)]
struct Window {
    /// The first byte on the device.
    start: u64,
    /// Bytes; a multiple of the block size.
    length: usize,
    /// Bytes before those that are asked for.
    skip: usize,
    /// Bytes that are asked for.
    wanted: usize,
}

/// A write through pages of the kernel's.
pub(super) struct Bounce {
    cache: Arc<Cache>,
    edits: Arc<EditLock>,
    guard: Option<Arc<EditGuard>>,
    position: u64,
    count: usize,
    done: usize,
    pages: Vec<Frame>,
    step: Step,
}

impl Bounce {
    /// A write of `count` bytes from byte `position` on, all of which are on the device.
    pub(super) fn new(
        cache: Arc<Cache>,
        edits: Arc<EditLock>,
        position: u64,
        count: usize,
    ) -> Self {
        Self {
            cache,
            edits,
            guard: None,
            position,
            count,
            done: 0,
            pages: Vec::new(),
            step: Step::Idle,
        }
    }

    /// Advances it; the bytes done.
    ///
    /// # Errors
    ///
    /// Those of the device and of the buffer, if nothing was done before; [`Errno::ABSENT`], after
    /// which it goes on.
    pub(super) fn poll(
        &mut self,
        buffer: &IoBuffer,
        context: &mut Context<'_>,
    ) -> Poll<Result<usize>> {
        let result = ready!(self.poll_write(buffer, context));
        if result == Err(Errno::ABSENT) {
            return Poll::Ready(Err(Errno::ABSENT));
        }
        self.guard = None;
        Poll::Ready(match result {
            Err(error) if self.done == 0 => Err(error),
            _ => Ok(self.done),
        })
    }

    fn poll_write(&mut self, buffer: &IoBuffer, context: &mut Context<'_>) -> Poll<Result<()>> {
        if self.guard.is_none() {
            self.guard = Some(ready!(self.edits.poll_take(context)));
        }
        while self.done < self.count {
            let window = self.window();
            match &mut self.step {
                Step::Idle if window.wanted < window.length => {
                    let segments = self.segments(window)?;
                    let read = BlockOp::Read(window.start / SECTOR, segments);
                    self.step = Step::Read(self.cache.device().submit(read));
                }
                Step::Idle => {
                    self.segments(window)?;
                    self.write(window, buffer)?;
                }
                Step::Read(ticket) => {
                    ready!(ticket.poll(context))?;
                    self.step = Step::HasRead;
                }
                Step::HasRead => self.write(window, buffer)?,
                Step::Write(ticket, bytes) => {
                    let bytes = *bytes;
                    ready!(ticket.poll(context))?;
                    self.step = Step::Idle;
                    self.done += bytes;
                }
            }
        }
        Poll::Ready(Ok(()))
    }

    /// Copies the program's bytes into the window and has the device write it.
    fn write(&mut self, mut window: Window, buffer: &IoBuffer) -> Result<()> {
        let mut copied = self.each_piece(window, |page, at, done, length| {
            buffer.take_to_frame(done, page, at, length)
        })?;
        if copied == 0 {
            return Err(Errno::EFAULT);
        }
        if window.wanted == window.length {
            let block = self.block();
            if copied < block {
                // The buffer ends in the first block, which has to be read first, then.
                self.count = self.done + copied;
                self.step = Step::Idle;
                return Ok(());
            }
            copied -= copied % block;
            window.length = copied;
        }
        let segments = self.segments(window)?;
        let start = window.start / SECTOR;
        let ticket = WriteTicket::submit(&self.cache, start, segments, self.guard.clone());
        self.step = Step::Write(ticket, copied);
        Ok(())
    }

    fn block(&self) -> usize {
        self.cache.device().block_size() as usize
    }

    /// The window that comes next.
    fn window(&self) -> Window {
        let block = self.block();
        let at = self.position + self.done as u64;
        let left = self.count - self.done;
        let skip = (at % block as u64) as usize;
        let start = at - skip as u64;
        let is_part = skip > 0 || left < block;
        let length = match is_part {
            true => block,
            false => (left - left % block).min(WINDOW),
        };
        Window {
            start,
            length,
            skip,
            wanted: left.min(length - skip),
        }
    }

    /// The pages of the window.
    fn segments(&mut self, window: Window) -> Result<DmaSegments> {
        while self.pages.len() * PAGE_SIZE < window.length {
            self.pages.push(Frame::uninitialised()?);
        }
        let segment = |(index, page): (usize, &Frame)| {
            let length = (window.length - index * PAGE_SIZE).min(PAGE_SIZE);
            Segment::new(page.clone(), 0, length)
        };
        let count = window.length.div_ceil(PAGE_SIZE);
        let pages = self.pages.iter().take(count);
        Ok(DmaSegments::Own(
            pages.enumerate().filter_map(segment).collect(),
        ))
    }

    /// Calls `copy` with each page that has wanted bytes, their offset in it, where in the buffer
    /// they are, and how many; it returns how many it did, of which this is the sum.
    fn each_piece(
        &self,
        window: Window,
        mut copy: impl FnMut(&Frame, usize, usize, usize) -> Result<usize>,
    ) -> Result<usize> {
        let mut copied = 0;
        while copied < window.wanted {
            let at = window.skip + copied;
            let Some(page) = self.pages.get(at / PAGE_SIZE) else {
                break;
            };
            let offset = at % PAGE_SIZE;
            let length = (PAGE_SIZE - offset).min(window.wanted - copied);
            match copy(page, offset, self.done + copied, length) {
                // If it is less than there was, the next try says why.
                Ok(here) => copied += here,
                Err(error) if copied == 0 || error == Errno::ABSENT => return Err(error),
                Err(_) => break,
            }
        }
        Ok(copied)
    }
}
