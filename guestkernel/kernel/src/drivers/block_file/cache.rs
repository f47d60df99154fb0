//! Pages of a block device that were read, kept for those who read without `O_DIRECT`.
//!
//! The cache is made of *runs*, adjacent pages that one request reads. A reader who goes on where
//! a run ends is taken to go through the device: runs double in length, and the next one is asked
//! for while the program gets the one before. Nothing in the cache is newer than the device: all
//! writes go to the device at once, and when it is done with one, the cache forgets what was there.

use crate::drivers::block::{BlockDevice, BlockOp, BlockTicket, SECTOR, Sectors};
use crate::error::{Errno, Result};
use crate::executor::{WaitQueue, is_batching};
use crate::heap;
use crate::io::{Io, IoFlags};
use crate::mm::PAGE;
use alloc::collections::{BTreeMap, VecDeque};
use alloc::sync::Arc;
use alloc::task::Wake;
use alloc::vec::Vec;
use core::ops::Range;
use core::sync::atomic::{AtomicBool, Ordering};
use core::task::{Context, Poll, Waker};
use machine::lock::Mutex;
use machine::{DmaSegments, Frame, PAGE_SIZE, Segment};

/// Pages of the first run of a reader who starts at the device's first byte, and of the longest.
const FIRST: u64 = 16;
const LONGEST: u64 = 128;
/// The share of RAM that a device's cache may take, one part in so many, and the most pages.
const SHARE: usize = 32;
const MOST: usize = 16384;
/// No more is cached than one run when less than one part in so many of RAM is free.
const SCARCE: usize = 8;

/// Pages that one request reads.
pub(super) struct Run {
    /// The number of the first page.
    start: u64,
    frames: Vec<Frame>,
    /// Whether a reader comes from before it, and is likely to go on after it.
    is_sequential: bool,
    /// Whether it was used since it was last looked at.
    is_used: AtomicBool,
    state: Mutex<PageState>,
    waiters: WaitQueue,
}

enum PageState {
    Reading(BlockTicket),
    Done(Result<()>),
}

impl Wake for Run {
    fn wake(self: Arc<Self>) {
        self.waiters.wake_all();
    }
}

impl Run {
    fn end(&self) -> u64 {
        self.start + self.frames.len() as u64
    }

    fn holds(&self, page: u64) -> bool {
        (self.start..self.end()).contains(&page)
    }

    /// Whether it was read, once that is known.
    fn poll(self: &Arc<Self>, context: &mut Context<'_>) -> Poll<Result<()>> {
        let mut state = self.state.lock();
        let ticket = match &mut *state {
            PageState::Done(result) => return Poll::Ready(*result),
            PageState::Reading(ticket) => ticket,
        };
        // Several may wait, and the device wakes one: it wakes the others.
        self.waiters.register(context.waker());
        let waker = Waker::from(self.clone());
        ticket.poll(&mut Context::from_waker(&waker)).map(|result| {
            let result = result.map(|_| ());
            *state = PageState::Done(result);
            drop(state);
            self.waiters.wake_all();
            result
        })
    }

    /// The pages of it that lie in `range`, as a run of their own, if they were read.
    fn part(&self, range: Range<u64>) -> Option<Arc<Self>> {
        let range = range.start.max(self.start)..range.end.min(self.end());
        let is_read = matches!(*self.state.lock(), PageState::Done(Ok(())));
        if range.is_empty() || !is_read {
            return None;
        }
        let place = |page: u64| (page - self.start) as usize;
        Some(Arc::new(Self {
            start: range.start,
            frames: self.frames[place(range.start)..place(range.end)].to_vec(),
            is_sequential: self.is_sequential,
            is_used: AtomicBool::new(self.is_used.load(Ordering::Relaxed)),
            state: Mutex::new(PageState::Done(Ok(()))),
            waiters: WaitQueue::new(),
        }))
    }
}

#[derive(Default)]
struct Runs {
    /// By first page; they do not overlap.
    by_start: BTreeMap<u64, Arc<Run>>,
    /// The first pages of all, in the order in which they leave.
    order: VecDeque<u64>,
    pages: usize,
}

impl Runs {
    fn at(&self, page: u64) -> Option<&Arc<Run>> {
        let (_, run) = self.by_start.range(..=page).next_back()?;
        run.holds(page).then_some(run)
    }

    fn insert(&mut self, run: Arc<Run>) {
        self.pages += run.frames.len();
        self.order.push_back(run.start);
        self.by_start.insert(run.start, run);
    }

    fn remove(&mut self, start: u64) -> Option<Arc<Run>> {
        let run = self.by_start.remove(&start)?;
        self.pages -= run.frames.len();
        self.order.retain(|other| *other != start);
        Some(run)
    }

    /// Removes runs until there are at most `most` pages; those that were used lately come last.
    fn shrink(&mut self, most: usize) {
        while self.pages > most
            && let Some(start) = self.order.pop_front()
        {
            let Some(run) = self.by_start.get(&start) else {
                continue;
            };
            if run.is_used.swap(false, Ordering::Relaxed) {
                self.order.push_back(start);
            } else if let Some(run) = self.by_start.remove(&start) {
                self.pages -= run.frames.len();
            }
        }
    }
}

/// What is cached of a block device.
pub(super) struct Cache {
    device: Arc<BlockDevice>,
    runs: Mutex<Runs>,
}

impl Cache {
    /// The cache of `device`, with nothing in it.
    pub(super) fn new(device: Arc<BlockDevice>) -> Self {
        Self {
            device,
            runs: Mutex::default(),
        }
    }

    /// The device.
    pub(super) fn device(&self) -> &Arc<BlockDevice> {
        &self.device
    }

    /// Advances a read of `count` bytes from byte `position` on, all of which are on the device.
    /// `current` is the run that it waits for.
    pub(super) fn poll_read(
        &self,
        io: &mut Io,
        current: &mut Option<Arc<Run>>,
        (position, count): (u64, usize),
        context: &mut Context<'_>,
    ) -> Poll<Result<usize>> {
        let result = loop {
            if io.done == count {
                break Ok(());
            }
            let at = position + io.done as u64;
            let page = at / PAGE;
            let run = match current.take() {
                Some(run) if run.holds(page) => run,
                _ => match self.find(page, (position + count as u64).div_ceil(PAGE)) {
                    Ok(run) => run,
                    Err(error) => break Err(error),
                },
            };
            match run.poll(context) {
                Poll::Pending if io.flags.contains(IoFlags::NOWAIT) => break Err(Errno::EAGAIN),
                Poll::Pending => {
                    *current = Some(run);
                    return Poll::Pending;
                }
                Poll::Ready(Ok(())) => {
                    if let Err(error) = copy(&run, at, count, io) {
                        break Err(error);
                    }
                }
                Poll::Ready(Err(error)) => {
                    self.drop_run(&run);
                    if run.frames.len() == 1 {
                        break Err(error);
                    }
                    // Only the page that cannot be read is missed.
                    match self.read(&mut self.runs.lock(), page..page + 1, false) {
                        Ok(run) => *current = Some(run),
                        Err(error) => break Err(error),
                    }
                }
            }
        };
        Poll::Ready(match result {
            Err(error) => io.cut_short(error),
            Ok(()) => Ok(io.done),
        })
    }

    /// The run that holds `page`, for a reader who wants the pages up to `end`.
    fn find(&self, page: u64, end: u64) -> Result<Arc<Run>> {
        let mut runs = self.runs.lock();
        let run = match runs.at(page) {
            Some(run) => run.clone(),
            None => {
                let before = page.checked_sub(1).and_then(|before| runs.at(before));
                let (is_sequential, length) = match before {
                    Some(before) => (true, 2 * before.frames.len() as u64),
                    None if page == 0 => (true, FIRST),
                    None => (false, 1),
                };
                let length = length.max(end - page);
                return self.read(&mut runs, page..page + length, is_sequential);
            }
        };
        run.is_used.store(true, Ordering::Relaxed);
        let next = run.end();
        if run.is_sequential && next < self.pages() && runs.at(next).is_none() {
            let length = 2 * run.frames.len() as u64;
            // Who comes there will try again, and see the error.
            let _ = self.read(&mut runs, next..next + length, true);
        }
        Ok(run)
    }

    /// Has the device read the pages of `range`, the first of which is not there: as many of them
    /// as one run has, up to the next one.
    fn read(&self, runs: &mut Runs, range: Range<u64>, is_sequential: bool) -> Result<Arc<Run>> {
        let next = runs.by_start.range(range.start..).next();
        let next = next.map_or(self.pages(), |(start, _)| *start);
        let end = range.end.min(next).min(range.start + LONGEST);
        let count = end.saturating_sub(range.start) as usize;
        let memory = machine::memory_use();
        let most = match memory.free < memory.total / SCARCE {
            true => 0,
            false => (memory.total / SHARE).min(MOST),
        };
        runs.shrink(most.saturating_sub(count));
        heap::check(size_of::<Run>() + count * 2 * (size_of::<Frame>() + size_of::<Segment>()))?;
        let mut frames = Vec::with_capacity(count);
        for _ in 0..count {
            frames.push(Frame::uninitialised()?);
        }
        let first = range.start * PAGE;
        let bytes = (end * PAGE).min(self.device.size()) - first;
        let segment = |(index, frame): (usize, &Frame)| {
            let left = bytes as usize - index * PAGE_SIZE;
            Segment::new(frame.clone(), 0, left.min(PAGE_SIZE))
        };
        let segments = frames.iter().enumerate().filter_map(segment).collect();
        let read = BlockOp::Read(first / SECTOR, DmaSegments::Own(segments));
        let run = Arc::new(Run {
            start: range.start,
            frames,
            is_sequential,
            is_used: AtomicBool::new(false),
            state: Mutex::new(PageState::Reading(self.device.submit(read))),
            waiters: WaitQueue::new(),
        });
        if !is_batching() {
            self.device.kick();
        }
        runs.insert(run.clone());
        Ok(run)
    }

    /// Pages on the device, the last one perhaps not all there.
    fn pages(&self) -> u64 {
        self.device.size().div_ceil(PAGE)
    }

    /// Removes a run, if it is there still.
    fn drop_run(&self, run: &Arc<Run>) {
        let mut runs = self.runs.lock();
        let known = runs.by_start.get(&run.start);
        if known.is_some_and(|known| Arc::ptr_eq(known, run)) {
            runs.remove(run.start);
        }
    }

    /// Pages in the cache.
    #[cfg(test)]
    pub(super) fn pages_held(&self) -> usize {
        self.runs.lock().pages
    }

    /// Removes everything.
    pub(super) fn clear(&self) {
        *self.runs.lock() = Runs::default();
    }

    /// Removes what the device has changed. A run that is being read goes as a whole: it may have
    /// seen the range before.
    pub(super) fn forget(&self, range: Sectors) {
        const SECTORS: u64 = PAGE / SECTOR;
        let start = range.start / SECTORS;
        let end = range.start.saturating_add(range.count).div_ceil(SECTORS);
        let mut runs = self.runs.lock();
        while let Some((_, run)) = runs.by_start.range(..end).next_back()
            && run.end() > start
        {
            let run = run.clone();
            runs.remove(run.start);
            let parts = [run.part(0..start), run.part(end..u64::MAX)];
            parts
                .into_iter()
                .flatten()
                .for_each(|part| runs.insert(part));
        }
    }
}

/// Copies bytes from byte `at` of the device on to where they belong in `io`, which wants `count`
/// in all: those that the run has.
fn copy(run: &Run, at: u64, count: usize, io: &mut Io) -> Result<()> {
    let mut at = at;
    while io.done < count
        && let Some(frame) = run.frames.get((at / PAGE - run.start) as usize)
    {
        let offset = (at % PAGE) as usize;
        let length = (PAGE_SIZE - offset).min(count - io.done);
        let copied = io.buffer.fill_from_frame(io.done, frame, offset, length)?;
        io.done += copied;
        at += copied as u64;
    }
    Ok(())
}
