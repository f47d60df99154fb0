//! Pages of a file that are kept: what was read of it, and what programs have changed in mappings.
//!
//! A page is in the cache from when it is asked for. Pages that one request reads belong to a
//! [`Fill`] until it is done. Reads copy from the pages, mappings show them. Only stores through
//! shared mappings make a page dirty: what `write(2)` writes goes to the server at once.

use super::file::Handle;
use super::mapping::Mapped;
use super::protocol::opcode;
use super::session::{Call, FuseFs};
use crate::drivers::virtio_fs::FsTicket;
use crate::error::{Errno, Result};
use crate::executor::WaitQueue;
use crate::globals::global;
use crate::heap;
use crate::mm::PAGE;
use alloc::collections::{BTreeMap, VecDeque};
use alloc::sync::{Arc, Weak};
use alloc::task::Wake;
use alloc::vec::Vec;
use core::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use core::task::{Context, Poll, Waker};
use machine::lock::Mutex;
use machine::{DmaSegments, Frame, PAGE_SIZE, Segment};

/// Bytes of the kernel's heap that a page takes.
const PAGE_COST: usize = 96;
/// The share of RAM that pages of all shares may take, one part in so many.
const SHARE: usize = 3;
/// Less is kept when less than one part in so many of RAM is free.
const SCARCE: usize = 8;
/// Files whose pages are looked at to give some up, and pages of each, at a time.
const FILES_AT_ONCE: usize = 64;
const PAGES_AT_ONCE: usize = 256;
/// Pages that are asked for at a time when memory is short, and that a file has whose mappings are
/// worth looking at.
const SCARCE_AT_ONCE: u64 = 8;
const WORTHWHILE: usize = 32;

global! {
    /// Pages of all shares.
    static KEPT: AtomicUsize = AtomicUsize::new(0);
}
global! {
    /// Files that have pages, in the order in which these are given up.
    static FILES: Mutex<VecDeque<Weak<Pages>>> = Mutex::new(VecDeque::new());
}

/// Pages that one request reads.
pub(super) struct Fill {
    frames: Vec<Frame>,
    state: Mutex<FillState>,
    waiters: WaitQueue,
}

enum FillState {
    Reading(FsTicket),
    Done(Result<()>),
}

impl Wake for Fill {
    fn wake(self: Arc<Self>) {
        self.waiters.wake_all();
    }
}

impl Fill {
    /// Whether all was read, once that is known.
    pub(super) fn poll(self: &Arc<Self>, context: &mut Context<'_>) -> Poll<Result<()>> {
        let mut state = self.state.lock();
        let ticket = match &mut *state {
            FillState::Done(result) => return Poll::Ready(*result),
            FillState::Reading(ticket) => ticket,
        };
        // Several may wait, and the device wakes one: it wakes the others.
        self.waiters.register(context.waker());
        let waker = Waker::from(self.clone());
        let Poll::Ready(reply) = ticket.poll(&mut Context::from_waker(&waker)) else {
            return Poll::Pending;
        };
        let result = match reply {
            Ok(reply) if reply.length <= self.frames.len() * PAGE_SIZE => {
                self.clear_from(reply.length);
                Ok(())
            }
            Ok(_) => Err(Errno::EIO),
            Err(error) => Err(error),
        };
        *state = FillState::Done(result);
        drop(state);
        self.waiters.wake_all();
        Poll::Ready(result)
    }

    /// The file has ended there: what follows is zeros.
    fn clear_from(&self, length: usize) {
        for (number, frame) in self.frames.iter().enumerate() {
            let start = length.saturating_sub(number * PAGE_SIZE).min(PAGE_SIZE);
            frame.fill(start..PAGE_SIZE, 0);
        }
    }

    /// The result, if it is known without looking for it.
    fn result(&self) -> Option<Result<()>> {
        match &*self.state.lock() {
            FillState::Done(result) => Some(*result),
            FillState::Reading(_) => None,
        }
    }
}

struct Page {
    frame: Frame,
    /// Who reads it, until that is known to be done.
    fill: Option<Arc<Fill>>,
    is_dirty: bool,
}

/// What is known of a page.
pub(super) enum Found {
    /// Nothing.
    Absent,
    /// It is being read.
    Reading(Arc<Fill>),
    /// This is it.
    Ready(Frame),
}

#[derive(Default)]
struct State {
    pages: BTreeMap<u64, Page>,
    dirty: usize,
}

/// The pages of one file.
#[derive(Default)]
pub(super) struct Pages {
    state: Mutex<State>,
    /// What shows them in mappings, if anything does.
    pub(super) mapped: Mutex<Weak<Mapped>>,
    /// Whether they were used since they were last looked at to be given up.
    is_used: AtomicBool,
    /// Whether `FILES` has it.
    is_listed: AtomicBool,
    /// How many are dirty, to be looked at without the lock.
    dirty: AtomicUsize,
}

impl Pages {
    /// The page with number `index`.
    pub(super) fn get(&self, index: u64) -> Found {
        self.is_used.store(true, Ordering::Relaxed);
        let mut state = self.state.lock();
        let Some(page) = state.pages.get_mut(&index) else {
            return Found::Absent;
        };
        let Some(fill) = &page.fill else {
            return Found::Ready(page.frame.clone());
        };
        match fill.result() {
            None => Found::Reading(fill.clone()),
            Some(Ok(())) => {
                page.fill = None;
                Found::Ready(page.frame.clone())
            }
            // Who waits for it has the error; others try again.
            Some(Err(_)) => {
                state.remove(index);
                Found::Absent
            }
        }
    }

    /// Notes that a program may change the page, if it is still `frame`.
    pub(super) fn set_dirty(&self, index: u64, frame: &Frame) -> bool {
        let mut state = self.state.lock();
        let Some(page) = state.pages.get_mut(&index) else {
            return false;
        };
        if page.frame != *frame {
            return false;
        }
        if !core::mem::replace(&mut page.is_dirty, true) {
            state.dirty += 1;
            self.dirty.store(state.dirty, Ordering::Relaxed);
        }
        true
    }

    /// Pages that programs have changed.
    pub(super) fn dirty(&self) -> usize {
        self.dirty.load(Ordering::Relaxed)
    }

    /// Whether there are any pages.
    pub(super) fn is_empty(&self) -> bool {
        self.state.lock().pages.is_empty()
    }

    /// Has the server read pages from number `first`, which is absent, on: `count` at most, up to the
    /// next that is there, and to before `end`.
    ///
    /// # Errors
    ///
    /// `ENOMEM`.
    pub(super) fn fill(
        self: &Arc<Self>,
        handle: &Handle,
        (first, count, end): (u64, u64, u64),
    ) -> Result<Arc<Fill>> {
        let memory = machine::memory_use();
        let is_scarce = memory.free < memory.total / SCARCE;
        if is_scarce || KEPT.load(Ordering::Relaxed) > memory.total / SHARE {
            make_room();
        }
        let count = match is_scarce {
            true => count.min(SCARCE_AT_ONCE),
            false => count,
        };
        let count = count.min(end.saturating_sub(first)).max(1);
        let fs: &FuseFs = handle.fs();
        let count = count.min((fs.transfer() / PAGE_SIZE) as u64);
        heap::check(count as usize * PAGE_COST)?;
        let mut state = self.state.lock();
        let next = state.pages.range(first..).next();
        let count = next.map_or(count, |(next, _)| count.min(next - first));
        if count == 0 {
            // Somebody else was faster.
            drop(state);
            return match self.get(first) {
                Found::Reading(fill) => Ok(fill),
                _ => Ok(Arc::new(Fill {
                    frames: Vec::new(),
                    state: Mutex::new(FillState::Done(Ok(()))),
                    waiters: WaitQueue::new(),
                })),
            };
        }
        let mut frames = Vec::with_capacity(count as usize);
        for _ in 0..count {
            match Frame::uninitialised() {
                Ok(frame) => frames.push(frame),
                Err(_) if !frames.is_empty() => break,
                Err(error) => return Err(error.into()),
            }
        }
        let whole = |frame: &Frame| Segment::new(frame.clone(), 0, PAGE_SIZE);
        let segments = frames.iter().filter_map(whole).collect();
        let length = frames.len() * PAGE_SIZE;
        let mut call = Call::new(
            opcode::READ,
            handle.transfer_arguments(first * PAGE, length as u32, 0),
            0,
        );
        call.from_device = Some(DmaSegments::Own(segments));
        let fill = Arc::new(Fill {
            frames: frames.clone(),
            state: Mutex::new(FillState::Reading(handle.submit(call))),
            waiters: WaitQueue::new(),
        });
        KEPT.fetch_add(frames.len(), Ordering::Relaxed);
        for (index, frame) in (first..).zip(frames) {
            let page = Page {
                frame,
                fill: Some(fill.clone()),
                is_dirty: false,
            };
            state.pages.insert(index, page);
        }
        drop(state);
        if !self.is_listed.swap(true, Ordering::Relaxed) {
            FILES.lock().push_back(Arc::downgrade(self));
        }
        Ok(fill)
    }

    /// Has `copy` put what was written to the server into a page, if that is kept. A page that is
    /// being read may be from before or after, and is given up, as is one to which `copy` cannot do
    /// it: true then.
    pub(super) fn overwrite(&self, index: u64, copy: impl FnOnce(&Frame) -> bool) -> bool {
        let frame = {
            let mut state = self.state.lock();
            let Some(page) = state.pages.get_mut(&index) else {
                return false;
            };
            match page.fill.as_ref().map(|fill| fill.result()) {
                None | Some(Some(Ok(()))) => {
                    page.fill = None;
                    page.frame.clone()
                }
                _ => {
                    state.remove(index);
                    return true;
                }
            }
        };
        // Without the lock, since the bytes may be a program's.
        if copy(&frame) {
            return false;
        }
        let mut state = self.state.lock();
        state.remove(index);
        self.dirty.store(state.dirty, Ordering::Relaxed);
        true
    }

    /// Removes the pages from number `first` to before `end`; dirty ones stay if `keep_dirty`. True if
    /// there were any.
    pub(super) fn remove(&self, first: u64, end: u64, keep_dirty: bool) -> bool {
        let mut state = self.state.lock();
        let gone: Vec<u64> = state
            .pages
            .range(first..end)
            .filter(|(_, page)| !(keep_dirty && page.is_dirty))
            .map(|(index, _)| *index)
            .collect();
        for index in &gone {
            state.remove(*index);
        }
        self.dirty.store(state.dirty, Ordering::Relaxed);
        !gone.is_empty()
    }

    /// The file ends at `size`: clears what follows in its last page.
    pub(super) fn clear_tail(&self, size: u64) {
        let tail = (size % PAGE) as usize;
        if tail == 0 {
            return;
        }
        let state = self.state.lock();
        if let Some(page) = state.pages.get(&(size / PAGE)) {
            page.frame.fill(tail..PAGE_SIZE, 0);
        }
    }

    /// Takes up to `most` adjacent dirty pages that begin in `first..end`, and notes them as clean:
    /// the number of the first, and the frames.
    pub(super) fn take_dirty(
        &self,
        first: u64,
        end: u64,
        most: usize,
    ) -> Option<(u64, Vec<Frame>)> {
        let mut state = self.state.lock();
        let mut start = None;
        let mut frames = Vec::new();
        for (index, page) in state.pages.range_mut(first..end) {
            if !page.is_dirty {
                if start.is_some() {
                    break;
                }
                continue;
            }
            let begin = *start.get_or_insert(*index);
            if *index != begin + frames.len() as u64 || frames.len() == most {
                break;
            }
            page.is_dirty = false;
            frames.push(page.frame.clone());
        }
        state.dirty -= frames.len();
        self.dirty.store(state.dirty, Ordering::Relaxed);
        Some((start?, frames))
    }

    /// Takes the pages from number `first` to before `end` out of all mappings.
    pub(super) fn forget_mapped(&self, first: u64, end: u64, with_copies: bool) {
        let mapped = self.mapped.lock().upgrade();
        if let Some(mapped) = mapped {
            mapped.forget(first, end, with_copies);
        }
    }

    /// Gives up clean pages that nobody has mapped, `most` at most; gives how many.
    fn give_up(&self, most: usize) -> usize {
        let mut state = self.state.lock();
        let can_go = |(index, page): (&u64, &Page)| {
            let is_idle = !page.is_dirty
                && page.frame.is_unique()
                && page
                    .fill
                    .as_ref()
                    .is_none_or(|fill| fill.result().is_some());
            is_idle.then_some(*index)
        };
        // A page that was just read is referred to by its fill, too.
        for page in state.pages.values_mut() {
            if page
                .fill
                .as_ref()
                .is_some_and(|fill| fill.result() == Some(Ok(())))
            {
                page.fill = None;
            }
        }
        let gone: Vec<u64> = state.pages.iter().filter_map(can_go).take(most).collect();
        for index in &gone {
            state.remove(*index);
        }
        gone.len()
    }
}

impl State {
    fn remove(&mut self, index: u64) {
        if let Some(page) = self.pages.remove(&index) {
            KEPT.fetch_sub(1, Ordering::Relaxed);
            self.dirty -= usize::from(page.is_dirty);
        }
    }
}

impl Drop for Pages {
    fn drop(&mut self) {
        KEPT.fetch_sub(self.state.get_mut().pages.len(), Ordering::Relaxed);
    }
}

/// Gives up some pages, and those of shared mappings with them if there are no others: who uses such a
/// page gets it again. Nobody may hold the lock of an address space.
fn make_room() {
    if give_up(PAGES_AT_ONCE) >= WORTHWHILE {
        return;
    }
    for _ in 0..FILES_AT_ONCE {
        let Some(first) = FILES.lock().pop_front() else {
            break;
        };
        if let Some(pages) = first.upgrade() {
            if pages.state.lock().pages.len() >= WORTHWHILE {
                pages.forget_mapped(0, u64::MAX, false);
                pages.is_used.store(false, Ordering::Relaxed);
            }
            FILES.lock().push_back(first);
        }
    }
    give_up(PAGES_AT_ONCE);
}

/// Gives up about `wanted` pages that nobody uses, those of files that were not used lately first; gives
/// how many.
pub(super) fn give_up(wanted: usize) -> usize {
    let mut given = 0;
    for _ in 0..FILES_AT_ONCE {
        if given >= wanted {
            break;
        }
        let Some(first) = FILES.lock().pop_front() else {
            break;
        };
        let Some(pages) = first.upgrade() else {
            continue;
        };
        if !pages.is_used.swap(false, Ordering::Relaxed) || FILES.lock().is_empty() {
            given += pages.give_up((wanted - given).min(PAGES_AT_ONCE));
        }
        if pages.is_empty() {
            pages.is_listed.store(false, Ordering::Relaxed);
            // Somebody may have added a page in between, and not listed it.
            if pages.is_empty() || pages.is_listed.swap(true, Ordering::Relaxed) {
                continue;
            }
        }
        FILES.lock().push_back(first);
    }
    given
}
