//! Output to a port: copied into pages that the device then reads.

use crate::error::{Errno, Result};
use alloc::vec::Vec;
use machine::{
    AddError, DmaSegments, Frame, PAGE_SIZE, Payload, QueueBroken, Reply, Segment, VirtQueue,
};

/// Pages of output that may be under way, after which writers wait.
const PAGES: usize = 64;

/// The output side of a port.
pub(super) struct Output {
    queue: VirtQueue,
    /// Pages that were used and are free again.
    free: Vec<Frame>,
}

impl Output {
    pub(super) fn new(queue: VirtQueue) -> Self {
        Self {
            queue,
            free: Vec::with_capacity(PAGES),
        }
    }

    /// Takes back what the device has read; true if there was anything.
    ///
    /// # Errors
    ///
    /// [`QueueBroken`].
    pub(super) fn serve(&mut self) -> Result<bool, QueueBroken> {
        let mut progress = false;
        while let Some(completion) = self.queue.reap()? {
            progress = true;
            if let Payload::ToDevice(DmaSegments::Own(pages)) = completion.payload {
                self.free
                    .extend(pages.iter().map(|page| page.frame().clone()));
            }
        }
        self.queue.kick();
        Ok(progress)
    }

    /// Whether the device has not read everything.
    pub(super) fn is_in_flight(&self) -> bool {
        self.queue.in_flight() > 0
    }

    /// Whether something can be written at once. Each request has one page and one descriptor.
    pub(super) fn has_room(&self) -> bool {
        self.queue.in_flight() < PAGES.min(self.queue.size().into())
    }

    /// Copies as much of `bytes` as there is room for; how many.
    ///
    /// # Errors
    ///
    /// `ENOMEM` and `EIO`, if nothing was copied.
    pub(super) fn write(&mut self, bytes: &[u8]) -> Result<usize> {
        let mut done = 0;
        for chunk in bytes.chunks(PAGE_SIZE) {
            if !self.has_room() {
                break;
            }
            match self.write_page(chunk) {
                Ok(()) => done += chunk.len(),
                Err(error) if done == 0 => return Err(error),
                Err(_) => break,
            }
        }
        Ok(done)
    }

    fn write_page(&mut self, bytes: &[u8]) -> Result<()> {
        let page = match self.free.pop() {
            Some(page) => page,
            None => Frame::uninitialised()?,
        };
        page.write(0, bytes);
        let segments = Segment::new(page, 0, bytes.len()).into_iter().collect();
        let payload = Payload::ToDevice(DmaSegments::Own(segments));
        self.queue
            .add(0, &[], payload, Reply::NONE)
            .map_err(|(error, _)| match error {
                AddError::OutOfMemory => Errno::ENOMEM,
                AddError::Full | AddError::TooManySegments | AddError::Broken => Errno::EIO,
            })
    }

    /// Tells the device of what was written.
    pub(super) fn kick(&mut self) {
        self.queue.kick();
    }

    /// See [`VirtQueue::arm`]; false if nothing is under way.
    pub(super) fn arm(&mut self) -> bool {
        self.is_in_flight() && self.queue.arm()
    }
}
