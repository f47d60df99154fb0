//! Output to a port: copied into pages that the device then reads.

use crate::error::{Errno, Result};
use crate::file::Refusal;
use alloc::vec::Vec;
use machine::{
    AddError, DmaSegments, Frame, PAGE_SIZE, Payload, QueueBroken, Reply, Segment, VirtQueue,
};
use ringlet_abi::console::STATUS_SIZE;

/// Pages of output that may be under way, after which writers wait.
const PAGES: usize = 64;

/// The output side of a port.
pub(super) struct Output {
    queue: VirtQueue,
    /// The device says what becomes of each request.
    has_status: bool,
    /// The other end may refuse what is written, and who writes is to hear of it.
    may_refuse: bool,
    /// What was refused and nobody has heard of yet.
    refusal: Option<Refusal>,
    /// Pages that were used and are free again.
    free: Vec<Frame>,
}

impl Output {
    pub(super) fn new(queue: VirtQueue, has_status: bool, may_refuse: bool) -> Self {
        Self {
            queue,
            has_status,
            may_refuse,
            refusal: None,
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
            let is_told = self.has_status && completion.written >= STATUS_SIZE;
            let status = is_told.then(|| completion.reply.array());
            if let Payload::ToDevice(DmaSegments::Own(pages)) = completion.payload {
                if let Some(status) = status {
                    self.note_status(status, &pages);
                }
                self.free
                    .extend(pages.iter().map(|page| page.frame().clone()));
            }
        }
        self.queue.kick();
        Ok(progress)
    }

    /// Takes note of what became of a request for `pages`.
    fn note_status(&mut self, status: [u8; STATUS_SIZE], pages: &[Segment]) {
        let [e0, e1, _, _, d0, d1, d2, d3] = status;
        let Some(errno) = Errno::of_host(u16::from_le_bytes([e0, e1])) else {
            return;
        };
        let all: usize = pages.iter().map(Segment::len).sum();
        let done = u32::from_le_bytes([d0, d1, d2, d3]) as usize;
        let refusal = self.refusal.get_or_insert(Refusal { errno, bytes: 0 });
        refusal.bytes += all.saturating_sub(done);
    }

    /// Whether who writes waits for what becomes of it.
    pub(super) fn may_refuse(&self) -> bool {
        self.may_refuse
    }

    /// What was refused since this was asked last.
    pub(super) fn take_refusal(&mut self) -> Option<Refusal> {
        self.refusal.take()
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
                Ok(true) => done += chunk.len(),
                Ok(false) => break,
                Err(error) if done == 0 => return Err(error),
                Err(_) => break,
            }
        }
        Ok(done)
    }

    /// False if there is no room after all.
    fn write_page(&mut self, bytes: &[u8]) -> Result<bool> {
        let page = match self.free.pop() {
            Some(page) => page,
            None => Frame::uninitialised()?,
        };
        page.write(0, bytes);
        let segments = Segment::new(page, 0, bytes.len()).into_iter().collect();
        let payload = Payload::ToDevice(DmaSegments::Own(segments));
        let reply = match self.has_status {
            true => Reply::last(STATUS_SIZE as u16),
            false => Reply::NONE,
        };
        match self.queue.add(0, &[], payload, reply) {
            Ok(()) => Ok(true),
            Err((AddError::Full, _)) => Ok(false),
            Err((AddError::OutOfMemory, _)) => Err(Errno::ENOMEM),
            Err((AddError::TooManySegments | AddError::Broken, _)) => Err(Errno::EIO),
        }
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
