//! Filling pages in when they are first used: zeros, pages of a source, private copies.
//!
//! A fault costs more than mapping a page does, so neighbours that were never touched are mapped
//! along with the page that is needed: when a program goes through its memory, and always where a
//! fault costs very much.

use super::address_space::{AddressSpace, Mappings};
use super::page_source::PageSource;
use super::vma::{Backing, PAGE};
use crate::error::Errno;
use crate::executor::yield_now;
use alloc::sync::Arc;
use core::ops::Range;
use core::sync::atomic::Ordering;
use machine::{Access, Flush, Frame, MapError, PAGE_SIZE, PageFault};
use smallvec::SmallVec;

/// Pages of a source that one fault maps: that costs little, since they exist already.
const AROUND: u64 = 16;
/// Pages of anonymous memory that one fault maps at most, when a program goes through its memory.
const WINDOW_MOST: u64 = 256;

/// Frames that programs leave to the kernel: a share of all, between these.
const RESERVE_MIN: usize = 32;
const RESERVE_MAX: usize = 1024;

/// Why a page cannot be filled in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FaultError {
    /// Nothing is mapped there: SIGSEGV with `SEGV_MAPERR`.
    NotMapped,
    /// The mapping does not allow it: SIGSEGV with `SEGV_ACCERR`.
    Denied,
    /// What is mapped has no such page: SIGBUS.
    NoPage,
    /// It takes time to get the page, and this was not to wait: [`AddressSpace::bring_in`] does.
    Absent,
    /// There is no page frame left.
    OutOfMemory,
}

impl From<FaultError> for Errno {
    fn from(error: FaultError) -> Self {
        match error {
            FaultError::OutOfMemory => Self::ENOMEM,
            FaultError::Absent => Self::ABSENT,
            _ => Self::EFAULT,
        }
    }
}

impl From<MapError> for FaultError {
    fn from(_: MapError) -> Self {
        Self::OutOfMemory
    }
}

impl From<machine::OutOfMemory> for FaultError {
    fn from(_: machine::OutOfMemory) -> Self {
        Self::OutOfMemory
    }
}

/// How many pages of anonymous memory the next fault maps: more, when it goes on where the last
/// one ended.
pub(super) struct Window {
    /// What a fault anywhere maps; a power of two.
    least: u64,
    end: u64,
    pages: u64,
}

impl Window {
    /// One for a machine on which a fault costs as much as mapping `least` pages.
    pub(super) fn new(least: u64) -> Self {
        Self {
            least,
            end: 0,
            pages: least,
        }
    }

    /// The pages to map for a fault at `page` in the area `area`.
    fn around(&mut self, page: u64, area: &Range<u64>) -> Range<u64> {
        let range = if page == self.end {
            self.pages = (self.pages * 2).min(WINDOW_MOST);
            page..page.saturating_add(self.pages * PAGE)
        } else {
            self.pages = self.least;
            aligned_around(page, self.least)
        };
        let range = range.start.max(area.start)..range.end.min(area.end);
        self.end = range.end;
        range
    }
}

/// A frame for a program. Some are left for the kernel, so that it can still do what the program
/// asks for when that has used up its memory.
pub(super) fn take(
    frame: impl FnOnce() -> Result<Frame, machine::OutOfMemory>,
) -> Result<Frame, FaultError> {
    let memory = machine::memory_use();
    let reserve = (memory.total / 128).clamp(RESERVE_MIN, RESERVE_MAX);
    if memory.free <= reserve {
        return Err(FaultError::OutOfMemory);
    }
    Ok(frame()?)
}

fn aligned_around(page: u64, pages: u64) -> Range<u64> {
    let start = page & !(pages * PAGE - 1);
    start..start + pages * PAGE
}

/// A page of a source that is to be mapped.
struct SourceFault {
    source: Arc<dyn PageSource>,
    generation: u64,
    /// The page that is needed.
    page: u64,
    /// The pages to map, and the number of the first in the source.
    range: Range<u64>,
    first_index: u64,
    is_shared: bool,
    access: Access,
    needs_write: bool,
    /// The source must know that the page is written, or may be at any time.
    for_write: bool,
    /// As [`PageSource::notes_writes`].
    notes_writes: bool,
}

type Frames = SmallVec<[(u64, Frame); AROUND as usize]>;

enum Step {
    Done,
    FromSource(SourceFault),
}

/// The access that a program needed when it faulted.
fn needed_by(fault: PageFault) -> Access {
    if fault.is_write {
        Access::WRITE
    } else if fault.is_fetch {
        Access::EXECUTE
    } else {
        Access::READ
    }
}

impl AddressSpace {
    /// Makes the page that a program faulted on usable, if that takes no time.
    ///
    /// # Errors
    ///
    /// [`FaultError`]; [`FaultError::Absent`] where [`fault_waiting`](Self::fault_waiting) is to
    /// do it.
    pub fn fault(&self, fault: PageFault) -> Result<(), FaultError> {
        self.fill_in(fault.address, needed_by(fault))
    }

    /// As [`fault`](Self::fault), and waits for the page.
    ///
    /// # Errors
    ///
    /// [`FaultError`].
    pub async fn fault_waiting(&self, fault: PageFault) -> Result<(), FaultError> {
        self.bring_in(fault.address, needed_by(fault)).await
    }

    /// Makes the page at `address` one that the program has `needed` access to, if that takes no
    /// time. If memory does not suffice, the program is told to end: it could not go on without
    /// the page.
    ///
    /// # Errors
    ///
    /// [`FaultError`]. After [`FaultError::Absent`], [`bring_in_absent`](Self::bring_in_absent)
    /// gets the page.
    pub(super) fn fill_in(&self, address: u64, needed: Access) -> Result<(), FaultError> {
        let page = address & !(PAGE - 1);
        let result = self.try_fill_in(page, needed);
        match result {
            Err(FaultError::OutOfMemory) => self.end_exhausted(page),
            Err(FaultError::Absent) => {
                let absent = page | u64::from(needed.bits());
                self.absent.store(absent, Ordering::Relaxed);
            }
            _ => {}
        }
        result
    }

    fn try_fill_in(&self, page: u64, needed: Access) -> Result<(), FaultError> {
        loop {
            let step = self.mappings.lock().fill_in(page, needed)?;
            let Step::FromSource(fault) = step else {
                return Ok(());
            };
            // Without the lock, since the source may take its own.
            let index = fault.index_of(page);
            let frame = fault.source.page_now(index, fault.for_write);
            let frame = frame.ok_or(FaultError::Absent)?;
            if self.map_from_source(&fault, frame)? {
                return Ok(());
            }
        }
    }

    /// As [`fill_in`](Self::fill_in), and waits for the page.
    ///
    /// # Errors
    ///
    /// [`FaultError`], but for [`FaultError::Absent`].
    pub(crate) async fn bring_in(&self, address: u64, needed: Access) -> Result<(), FaultError> {
        let page = address & !(PAGE - 1);
        let result = self.try_bring_in(page, needed).await;
        if result == Err(FaultError::OutOfMemory) {
            self.end_exhausted(page);
        }
        result
    }

    async fn try_bring_in(&self, page: u64, needed: Access) -> Result<(), FaultError> {
        loop {
            let step = self.mappings.lock().fill_in(page, needed)?;
            let Step::FromSource(fault) = step else {
                return Ok(());
            };
            let index = fault.index_of(page);
            let frame = fault.source.page(index, fault.for_write).await;
            if self.map_from_source(&fault, frame)? {
                return Ok(());
            }
        }
    }

    /// Maps the page that `fault` needs, and those around it that are there. False if the mappings
    /// have changed meanwhile, so that the page may not be the right one.
    fn map_from_source(
        &self,
        fault: &SourceFault,
        needed: crate::error::Result<Frame>,
    ) -> Result<bool, FaultError> {
        let needed = needed.map_err(|error| match error {
            Errno::ENOMEM => FaultError::OutOfMemory,
            _ => FaultError::NoPage,
        })?;
        let frames = fault.with_neighbours(needed);
        self.change(|mappings, flush| {
            if mappings.generation != fault.generation {
                return Ok(false);
            }
            mappings.map_source(fault, frames, flush)?;
            Ok(true)
        })
    }

    fn end_exhausted(&self, page: u64) {
        log::error!("no memory for the page at {page:#x}");
        self.on_exhaustion.lock().retain(|end| end());
    }

    /// Gets the page that an access of the kernel's missed last, when that has failed with
    /// [`Errno::ABSENT`]: then the access is made again. It may have been another's, which has
    /// missed a page meanwhile: then the next try misses the right one again.
    ///
    /// # Errors
    ///
    /// `EFAULT` or `ENOMEM` if the page cannot be had.
    pub(crate) async fn bring_in_absent(&self) -> Result<(), Errno> {
        let absent = self.absent.swap(0, Ordering::Relaxed);
        if absent == 0 {
            yield_now().await;
            return Ok(());
        }
        let needed = Access::from_bits_truncate((absent % PAGE) as u8);
        Ok(self.bring_in(absent, needed).await?)
    }

    /// Does `access`, which accesses program memory, and does it again whenever it has missed a
    /// page that takes time, after waiting for that. It has no effect before it fails so.
    ///
    /// # Errors
    ///
    /// Those of `access`, `EFAULT` or `ENOMEM`.
    pub(crate) async fn retry<T>(
        &self,
        mut access: impl FnMut() -> Result<T, Errno>,
    ) -> Result<T, Errno> {
        loop {
            match access() {
                Err(Errno::ABSENT) => self.bring_in_absent().await?,
                result => return result,
            }
        }
    }

    /// Fills in all pages of `range`, as far as there are any and memory suffices.
    pub(crate) fn populate(&self, range: Range<u64>) {
        let mut page = range.start & !(PAGE - 1);
        while page < range.end {
            let needed = {
                let mappings = self.mappings.lock();
                match mappings.area_at(page) {
                    Some((_, area)) if area.access.contains(Access::WRITE) => Access::WRITE,
                    Some((_, area)) if !area.access.is_empty() => Access::READ,
                    _ => return,
                }
            };
            if self.fill_in(page, needed).is_err() {
                return;
            }
            page += PAGE;
        }
    }
}

impl SourceFault {
    /// The number in the source of the page at `page`.
    fn index_of(&self, page: u64) -> u64 {
        self.first_index + (page - self.range.start) / PAGE
    }

    /// The frame of the page that is needed, `needed`, and those around it that are there.
    fn with_neighbours(&self, needed: Frame) -> Frames {
        let mut frames = Frames::new();
        frames.push((self.page, needed));
        let for_write = self.for_write && !self.notes_writes;
        for page in self.range.clone().step_by(PAGE as usize) {
            if page == self.page {
                continue;
            }
            match self.source.page_now(self.index_of(page), for_write) {
                Some(Ok(frame)) => frames.push((page, frame)),
                Some(Err(_)) if page > self.page => break,
                _ => {}
            }
        }
        frames
    }
}

impl Mappings {
    fn fill_in(&mut self, page: u64, needed: Access) -> Result<Step, FaultError> {
        let (start, area) = self.area_at(page).ok_or(FaultError::NotMapped)?;
        if !area.access.contains(needed) {
            return Err(FaultError::Denied);
        }
        let access = area.access;
        let is_shared = area.is_shared;
        let bounds = start..area.end;
        let present = self.table.access(page);
        if let Some(access) = present
            && access.contains(needed)
        {
            // Somebody else has filled it in, or it was mapped along with another.
            return Ok(Step::Done);
        }
        if present.is_some() && !is_shared {
            self.unshare(page, access)?;
            return Ok(Step::Done);
        }
        match &area.backing {
            Backing::Anonymous => {
                self.map_zeros(page, access, &bounds)?;
                Ok(Step::Done)
            }
            Backing::Source { source, first_page } => {
                let needs_write = needed.contains(Access::WRITE);
                let notes_writes = source.notes_writes();
                let range = if present.is_none() {
                    let around = aligned_around(page, AROUND);
                    around.start.max(bounds.start)..around.end.min(bounds.end)
                } else {
                    page..page + PAGE
                };
                Ok(Step::FromSource(SourceFault {
                    source: source.clone(),
                    generation: self.generation,
                    page,
                    first_index: first_page + (range.start - bounds.start) / PAGE,
                    range,
                    is_shared,
                    access,
                    needs_write,
                    for_write: is_shared
                        && access.contains(Access::WRITE)
                        && (needs_write || !notes_writes),
                    notes_writes,
                }))
            }
        }
    }

    /// Makes a private page one that the program has all of `access` to: as it is if nobody else
    /// has the frame, else as a copy, since a store must not reach others.
    fn unshare(&mut self, page: u64, access: Access) -> Result<(), FaultError> {
        let copied = self.table.with_frame(page, Access::empty(), |frame| {
            if frame.is_exclusive() {
                return Ok(None);
            }
            let copy = take(Frame::uninitialised)?;
            frame.copy_to(0, &copy, 0, PAGE_SIZE);
            Ok::<_, FaultError>(Some(copy))
        });
        match copied.map_err(|_| FaultError::NotMapped)?? {
            Some(copy) => {
                let mut flush = Flush::new();
                self.table.replace(page, copy, access, &mut flush)?;
            }
            None => self.table.grant(page, access),
        }
        Ok(())
    }

    fn map_zeros(
        &mut self,
        page: u64,
        access: Access,
        bounds: &Range<u64>,
    ) -> Result<(), FaultError> {
        self.table.map(page, take(Frame::zeroed)?, access)?;
        let memory = machine::memory_use();
        if memory.free < memory.total / 8 {
            return Ok(());
        }
        let mut next = self.window.around(page, bounds);
        while next.start < next.end {
            if !self.is_filled_in(next.start) {
                let Ok(frame) = Frame::zeroed() else { break };
                if self.table.map(next.start, frame, access).is_err() {
                    break;
                }
            }
            next.start += PAGE;
        }
        Ok(())
    }

    /// Maps what a source gave. The areas have not changed since it was asked.
    fn map_source(
        &mut self,
        fault: &SourceFault,
        frames: Frames,
        flush: &mut Flush,
    ) -> Result<(), FaultError> {
        let read_only = fault.access & !Access::WRITE;
        for (page, frame) in frames {
            let is_needed = page == fault.page;
            if fault.is_shared {
                let access = match fault.notes_writes && !(is_needed && fault.needs_write) {
                    true => read_only,
                    false => fault.access,
                };
                if is_needed {
                    self.table.replace(page, frame, access, flush)?;
                } else if !self.is_filled_in(page) {
                    self.table.map(page, frame, access)?;
                }
            } else if self.is_filled_in(page) {
                // A copy that another thread has made meanwhile stays.
                continue;
            } else if is_needed && fault.needs_write {
                let copy = take(Frame::uninitialised)?;
                frame.copy_to(0, &copy, 0, PAGE_SIZE);
                self.table.map(page, copy, fault.access)?;
            } else {
                self.table.map(page, frame, read_only)?;
            }
        }
        Ok(())
    }

    /// Whether a frame is mapped at `page`, whatever the program may do with it.
    pub(super) fn is_filled_in(&self, page: u64) -> bool {
        self.table.with_frame(page, Access::empty(), |_| ()).is_ok()
    }
}
