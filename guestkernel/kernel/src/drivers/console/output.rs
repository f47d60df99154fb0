//! Output to a port: copied into pages that the device then reads.

use crate::error::{Errno, Result};
use alloc::vec::Vec;
use machine::{AddError, DmaSegments, Frame, PAGE_SIZE, Payload, QueueBroken, Segment, VirtQueue};
use smallvec::SmallVec;

/// Pages of output that may be under way, after which writers wait: 256 KiB.
const PAGES: usize = 64;
/// Pages in a request. Several requests overlap the copy here with the host's work.
const REQUEST_PAGES: usize = 16;

/// The output side of a port.
pub(super) struct Output {
    queue: VirtQueue,
    /// Pages that were used and are free again.
    free: Vec<Frame>,
    /// Pages there are, the free ones included.
    pages: usize,
}

impl Output {
    pub(super) fn new(queue: VirtQueue) -> Self {
        Self {
            queue,
            free: Vec::with_capacity(PAGES),
            pages: 0,
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
            self.recycle(completion.payload);
        }
        self.queue.kick();
        Ok(progress)
    }

    fn recycle(&mut self, payload: Payload) {
        if let Payload::ToDevice(DmaSegments::Own(pages)) = payload {
            self.free
                .extend(pages.iter().map(|page| page.frame().clone()));
        }
    }

    /// Whether the device has not read everything.
    pub(super) fn is_in_flight(&self) -> bool {
        self.queue.in_flight() > 0
    }

    /// Whether something can be written at once.
    pub(super) fn has_room(&self) -> bool {
        let has_page = self.pages < PAGES || !self.free.is_empty();
        has_page && self.queue.in_flight() < self.queue.size().into()
    }

    /// Writes up to `count` bytes, as there is room: `copy` is called with the bytes done before,
    /// a page, and how many bytes to copy to its start, and returns how many it did. Fewer than
    /// all end it. 0 means that there is no room.
    ///
    /// # Errors
    ///
    /// The first error of `copy`, if nothing was written; `ENOMEM`, `EIO`.
    pub(super) fn write(
        &mut self,
        count: usize,
        mut copy: impl FnMut(usize, &Frame, usize) -> Result<usize>,
    ) -> Result<usize> {
        let mut done = 0;
        while done < count && self.has_room() {
            let (request, is_whole) = match self.fill(done, count, &mut copy) {
                Ok(filled) => filled,
                Err(error) if done == 0 => return Err(error),
                Err(_) => break,
            };
            let segments = DmaSegments::Own(request);
            let length = segments.total();
            if length == 0 {
                break;
            }
            match self.queue.add(0, &[], Payload::ToDevice(segments), 0) {
                Ok(()) => done += length,
                Err((error, payload)) => {
                    self.recycle(payload);
                    match error {
                        AddError::Full => break,
                        _ if done > 0 => break,
                        AddError::OutOfMemory => return Err(Errno::ENOMEM),
                        AddError::TooManySegments | AddError::Broken => return Err(Errno::EIO),
                    }
                }
            }
            if !is_whole {
                break;
            }
        }
        Ok(done)
    }

    /// Fills the pages of a request; false if `copy` did less than it was asked for.
    fn fill(
        &mut self,
        done: usize,
        count: usize,
        copy: &mut impl FnMut(usize, &Frame, usize) -> Result<usize>,
    ) -> Result<(SmallVec<[Segment; 2]>, bool)> {
        let mut request = SmallVec::new();
        let mut filled = done;
        while filled < count && request.len() < REQUEST_PAGES.min(self.queue.payload_limit()) {
            let page = match self.take_page() {
                Ok(Some(page)) => page,
                Ok(None) => break,
                Err(error) if filled == done => return Err(error),
                Err(_) => break,
            };
            let here = PAGE_SIZE.min(count - filled);
            let copied = match copy(filled, &page, here) {
                Ok(copied) => copied.min(here),
                Err(error) if filled == done => {
                    self.free.push(page);
                    return Err(error);
                }
                Err(_) => 0,
            };
            filled += copied;
            match Segment::new(page.clone(), 0, copied) {
                Some(segment) => request.push(segment),
                None => self.free.push(page),
            }
            if copied < here {
                return Ok((request, false));
            }
        }
        Ok((request, true))
    }

    fn take_page(&mut self) -> Result<Option<Frame>> {
        if let Some(page) = self.free.pop() {
            return Ok(Some(page));
        }
        if self.pages == PAGES {
            return Ok(None);
        }
        let page = Frame::uninitialised()?;
        self.pages += 1;
        Ok(Some(page))
    }

    /// Tells the device of what was written.
    pub(super) fn kick(&mut self) {
        self.queue.kick();
    }

    pub(super) fn arm(&mut self) -> bool {
        self.is_in_flight() && self.queue.arm()
    }
}
