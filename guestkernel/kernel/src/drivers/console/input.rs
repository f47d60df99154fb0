//! Input from a port: buffers that the device fills, and what has come and was not read.

use crate::error::Result;
use alloc::collections::VecDeque;
use machine::{
    AddError, DmaSegments, Frame, PAGE_SIZE, Payload, QueueBroken, Reply, Segment, VirtQueue,
};
use smallvec::SmallVec;

/// Buffers that the device may fill at a time.
const BUFFERS: usize = 4;
/// Pages of each: as much as a pipe of Linux holds.
const PAGES: usize = 16;

/// Bytes of a buffer that were not read.
struct Chunk {
    pages: SmallVec<[Segment; 2]>,
    start: usize,
    end: usize,
}

/// The input side of a port.
pub(super) struct Input {
    queue: VirtQueue,
    ready: VecDeque<Chunk>,
    has_buffers: bool,
    /// The way back to the host, which is told of the first wish for input where there is one.
    demand: Option<VirtQueue>,
}

impl Input {
    pub(super) fn new(queue: VirtQueue) -> Self {
        Self {
            queue,
            ready: VecDeque::with_capacity(BUFFERS),
            has_buffers: false,
            demand: None,
        }
    }

    /// Has a byte sent through `queue` when input is first wanted.
    pub(super) fn announce_demand(&mut self, queue: VirtQueue) {
        self.demand = Some(queue);
    }

    /// Gives the device its first buffers. Not before somebody wants input: what the host's end
    /// has read for us is lost to whoever shares it.
    ///
    /// # Errors
    ///
    /// `ENOMEM`.
    pub(super) fn start(&mut self) -> Result<()> {
        if self.has_buffers {
            return Ok(());
        }
        for _ in 0..BUFFERS.min(self.queue.size().into()) {
            let mut pages = SmallVec::new();
            for _ in 0..PAGES.min(self.queue.payload_limit()) {
                pages.extend(Segment::new(Frame::uninitialised()?, 0, PAGE_SIZE));
            }
            self.post(pages);
            self.has_buffers = true;
        }
        self.queue.kick();
        if let Some(queue) = &mut self.demand
            && queue.add(0, &[1], Payload::Nothing, Reply::NONE).is_ok()
        {
            queue.kick();
        }
        Ok(())
    }

    fn post(&mut self, pages: SmallVec<[Segment; 2]>) {
        let payload = Payload::FromDevice(DmaSegments::Own(pages));
        // There is a descriptor for each buffer; what fails without one has broken the queue,
        // which the next look at it shows.
        let _: Result<(), (AddError, Payload)> = self.queue.add(0, &[], payload, Reply::NONE);
    }

    /// Takes what the device has filled; true if there was anything.
    ///
    /// # Errors
    ///
    /// [`QueueBroken`].
    pub(super) fn serve(&mut self) -> Result<bool, QueueBroken> {
        let mut progress = false;
        while self.has_buffers
            && let Some(completion) = self.queue.reap()?
        {
            progress = true;
            let written = completion.written;
            let Payload::FromDevice(DmaSegments::Own(pages)) = completion.payload else {
                continue;
            };
            if written == 0 {
                self.post(pages);
                continue;
            }
            self.ready.push_back(Chunk {
                pages,
                start: 0,
                end: written,
            });
        }
        if self.has_buffers {
            self.queue.kick();
        }
        Ok(progress)
    }

    /// Whether there is something to read.
    pub(super) fn is_ready(&self) -> bool {
        !self.ready.is_empty()
    }

    /// Bytes that can be read.
    pub(super) fn available(&self) -> usize {
        self.ready.iter().map(|chunk| chunk.end - chunk.start).sum()
    }

    /// Reads what there is into `out`; how many bytes.
    pub(super) fn read(&mut self, out: &mut [u8]) -> usize {
        let mut done = 0;
        while done < out.len()
            && let Some(chunk) = self.ready.front_mut()
        {
            let offset = chunk.start % PAGE_SIZE;
            let count = (PAGE_SIZE - offset)
                .min(chunk.end - chunk.start)
                .min(out.len() - done);
            let frame = chunk.pages[chunk.start / PAGE_SIZE].frame();
            frame.read(offset, &mut out[done..done + count]);
            done += count;
            chunk.start += count;
            if chunk.start == chunk.end
                && let Some(chunk) = self.ready.pop_front()
            {
                self.post(chunk.pages);
            }
        }
        self.queue.kick();
        done
    }

    /// See [`VirtQueue::arm`].
    pub(super) fn arm(&mut self) -> bool {
        self.has_buffers && self.queue.arm()
    }
}
