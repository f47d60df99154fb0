//! A program's address space: its areas and its page table, mapping and unmapping.
//!
//! The layout is Linux's: the program low or at `0x55...`, the heap above it, mappings from the
//! top down below the stack. [`change`](super::change) holds what alters mappings,
//! [`fault`](super::fault) what fills pages in.

use super::fault::Window;
use super::vma::{Backing, MapRequest, PAGE, Placement, Vma};
use crate::error::{Errno, Result};
use crate::heap;
use alloc::boxed::Box;
use alloc::collections::BTreeMap;
use alloc::sync::{Arc, Weak};
use alloc::vec::Vec;
use core::ops::Range;
use core::sync::atomic::AtomicU64;
use machine::lock::Mutex;
use machine::{Access, Flush, PageTable, Space};

/// Where `MAP_32BIT` has mappings.
const LOW: Range<u64> = 0x4000_0000..0x8000_0000;

/// Programs' addresses are below this.
pub const TASK_SIZE: u64 = 0x7fff_ffff_f000;
/// Nothing is put below this unless it is asked for by `MAP_FIXED`.
pub const MMAP_MIN: u64 = 0x1_0000;
/// Kept free below the stack, as Linux's `stack_guard_gap`.
const STACK_GUARD: u64 = 256 * PAGE;
/// Bytes that one mapping may promise, if memory is not larger anyway. Linux takes what is more
/// than all memory for a mistake; programs that were written for whole machines reserve more than
/// a small VM has, and use little of it.
const RESERVE_MAX: u64 = 64 << 30;
/// Bytes of memory that are unmapped at a time.
const UNMAP_BATCH: u64 = 256 << 20;
/// Areas that an address space can have (`vm.max_map_count`).
const MAX_AREAS: usize = 65530;

/// Bytes of the kernel's heap that another two areas may take: nodes of the tree.
pub(super) const AREA_COST: usize = 4096;

/// How many pages can be mapped in about the time that a fault takes: 10 µs where CPL 0 is emulated.
fn pages_worth_a_fault() -> u64 {
    if machine::is_cpl0_emulated() { 16 } else { 1 }
}

/// The memory of a program.
pub struct AddressSpace {
    // Dropped before the page table, which then knows whether a CPU has it loaded.
    root: Space,
    me: Weak<Self>,
    pub(super) mappings: Mutex<Mappings>,
    /// The page that an access missed last because it takes time, and the access, or 0: see
    /// [`bring_in_absent`](Self::bring_in_absent).
    pub(super) absent: AtomicU64,
    /// Each ends a process that the memory belongs to, and says false if there is none any more.
    pub(super) on_exhaustion: Mutex<Vec<OnExhaustion>>,
}

/// What is called when there is no memory for a page.
pub(super) type OnExhaustion = Box<dyn Fn() -> bool + Send + Sync>;

/// What the lock protects.
pub(super) struct Mappings {
    pub(super) table: PageTable,
    /// By first address; they do not overlap, and neighbours that could be one are one.
    pub(super) areas: BTreeMap<u64, Vma>,
    /// Changes whenever an area does, so that one who let go of the lock can tell.
    pub(super) generation: u64,
    pub(super) window: Window,
    /// Bytes in all areas.
    size: u64,
    /// The most `size` may be (`RLIMIT_AS`).
    limit: u64,
    /// Mappings are put below this first.
    mmap_base: u64,
    /// The heap: its start and the current break.
    heap: Range<u64>,
}

impl AddressSpace {
    /// An empty address space.
    ///
    /// # Errors
    ///
    /// `ENOMEM`.
    pub fn new() -> Result<Arc<Self>> {
        let table = PageTable::new()?;
        Ok(Arc::new_cyclic(|me| Self {
            me: me.clone(),
            root: table.space(),
            absent: AtomicU64::new(0),
            on_exhaustion: Mutex::default(),
            mappings: Mutex::new(Mappings {
                table,
                areas: BTreeMap::new(),
                generation: 0,
                window: Window::new(pages_worth_a_fault()),
                size: 0,
                limit: u64::MAX,
                mmap_base: TASK_SIZE - (1 << 32),
                heap: 0..0,
            }),
        }))
    }

    /// What [`machine::UserContext::run`] runs in.
    #[inline]
    pub fn root(&self) -> &Space {
        &self.root
    }

    /// What does not keep it.
    pub(super) fn weak(&self) -> &Weak<Self> {
        &self.me
    }

    /// Has `end` called, too, when there is no memory for a page that a program needs; it says whether
    /// there is anything that it can end.
    pub(crate) fn add_on_exhaustion(&self, end: impl Fn() -> bool + Send + Sync + 'static) {
        self.on_exhaustion.lock().push(Box::new(end));
    }

    /// Sets `RLIMIT_AS`, in bytes.
    pub fn set_limit(&self, bytes: u64) {
        self.mappings.lock().limit = bytes;
    }

    /// Bytes in all mappings.
    pub fn size(&self) -> u64 {
        self.mappings.lock().size
    }

    /// Has mappings put below `base`, a page's address.
    pub(crate) fn set_mmap_base(&self, base: u64) {
        self.mappings.lock().mmap_base = base;
    }

    /// Maps memory as `mmap(2)` does and returns where.
    ///
    /// # Errors
    ///
    /// `EINVAL` for a length of 0 or a fixed address that is no page's, `ENOMEM` if there is no
    /// room for it, `EEXIST` for [`Placement::FixedNoReplace`], `EOVERFLOW`.
    pub fn map(&self, request: MapRequest) -> Result<u64> {
        let populate = request.populate;
        let length = request.length;
        if let Backing::Source { source, .. } = &request.backing
            && let Some(mappers) = source.mappers()
        {
            mappers.add(&self.me);
        }
        let start = self.change(|mappings, flush| mappings.map(request, flush))?;
        if populate {
            self.populate(start..start + length);
        }
        Ok(start)
    }

    /// Checks that there is a place for a mapping of `length` bytes.
    ///
    /// # Errors
    ///
    /// `ENOMEM`, `EINVAL` for a fixed address that is no page's, `EEXIST` for
    /// [`Placement::FixedNoReplace`].
    pub fn check_placement(&self, placement: Placement, length: u64) -> Result<()> {
        let length = round_up(length).ok_or(Errno::ENOMEM)?;
        let mappings = self.mappings.lock();
        mappings.check_areas()?;
        mappings.place(placement, length).map(drop)
    }

    /// Maps the stack: `length` bytes below `top`, with room for nothing close below.
    pub(crate) fn map_stack(&self, top: u64, length: u64, access: Access) -> Result<()> {
        let request = MapRequest {
            placement: Placement::FixedNoReplace(top - length),
            no_reserve: true,
            ..MapRequest::anonymous(length, access)
        };
        self.change(|mappings, flush| {
            let start = mappings.map(request, flush)?;
            if let Some(area) = mappings.areas.get_mut(&start) {
                area.is_stack = true;
            }
            Ok(())
        })
    }

    /// Unmaps all pages that `length` bytes from `address` on touch, as `munmap(2)` does.
    ///
    /// # Errors
    ///
    /// `EINVAL` for an address that is no page's or a range that is empty or not a program's,
    /// `ENOMEM` if it cuts an area in two and there are too many.
    pub fn unmap(&self, address: u64, length: u64) -> Result<()> {
        self.change(|mappings, flush| {
            let range = mappings.check_unmap(address, length)?;
            mappings.unmap(range, flush);
            Ok(())
        })
    }

    /// Makes the heap start, empty, at `address`, a page's.
    pub(crate) fn set_heap(&self, address: u64) {
        self.mappings.lock().heap = address..address;
    }

    /// Calls `each` with every area, in order: its addresses, its access, whether it is shared,
    /// and whether it holds the stack. The address space is locked meanwhile.
    pub(crate) fn for_each_area(&self, mut each: impl FnMut(Range<u64>, Access, bool, bool)) {
        for (start, area) in &self.mappings.lock().areas {
            each(*start..area.end, area.access, area.is_shared, area.is_stack);
        }
    }

    /// Moves the break to `address` if that can be done, and returns where it is (`brk(2)`).
    /// `data_limit` is `RLIMIT_DATA`.
    pub fn set_break(&self, address: u64, data_limit: u64) -> u64 {
        self.change(|mappings, flush| mappings.set_break(address, data_limit, flush))
    }

    /// Whether moving the break to `address` takes no time to speak of.
    pub fn is_break_near(&self, address: u64) -> bool {
        let end = self.mappings.lock().heap.end;
        Self::is_small(end.saturating_sub(address))
    }

    /// Changes mappings. TLBs are flushed before anybody else can change them: until then another
    /// CPU may show at an address what was mapped there before.
    pub(super) fn change<R>(&self, change: impl FnOnce(&mut Mappings, &mut Flush) -> R) -> R {
        let mut mappings = self.mappings.lock();
        // Dropped before the lock is.
        let mut flush = Flush::new();
        change(&mut mappings, &mut flush)
    }
}

impl Mappings {
    pub(super) fn map(&mut self, request: MapRequest, flush: &mut Flush) -> Result<u64> {
        let range = self.check_map(&request)?;
        if !self.is_free(&range) {
            self.unmap(range.clone(), flush);
        }
        let start = range.start;
        self.insert(start, Vma::new(request, range.end));
        Ok(start)
    }

    /// Where a mapping goes, in place of what is mapped there, if it may be made.
    pub(super) fn check_map(&self, request: &MapRequest) -> Result<Range<u64>> {
        if request.length == 0 {
            return Err(Errno::EINVAL);
        }
        let length = round_up(request.length).ok_or(Errno::ENOMEM)?;
        if let Backing::Source { first_page, .. } = &request.backing {
            first_page
                .checked_add(length / PAGE)
                .filter(|end| *end <= u64::MAX / PAGE)
                .ok_or(Errno::EOVERFLOW)?;
        }
        let start = self.place(request.placement, length)?;
        let range = start..start + length;
        let replaced = self.mapped_bytes(&range);
        if self.size - replaced > self.limit.saturating_sub(length) {
            return Err(Errno::ENOMEM);
        }
        self.check_areas()?;
        let is_accounted =
            !request.no_reserve && !request.is_shared && request.access.contains(Access::WRITE);
        let most = RESERVE_MAX.max(machine::memory_use().total as u64 * PAGE);
        if is_accounted && length > most {
            return Err(Errno::ENOMEM);
        }
        Ok(range)
    }

    /// The pages that `munmap(2)` takes out, if it may.
    pub(super) fn check_unmap(&self, address: u64, length: u64) -> Result<Range<u64>> {
        let range = page_range(address, length).ok_or(Errno::EINVAL)?;
        if range.is_empty() || range.end > TASK_SIZE {
            return Err(Errno::EINVAL);
        }
        self.check_cuts(&range)?;
        Ok(range)
    }

    /// Takes over from `parent` what is not a matter of its areas.
    pub(super) fn inherit(&mut self, parent: &Self) {
        self.limit = parent.limit;
        self.mmap_base = parent.mmap_base;
        self.heap = parent.heap.clone();
    }

    /// Whether there may be more areas: `ENOMEM` if not.
    fn check_areas(&self) -> Result<()> {
        if self.areas.len() >= MAX_AREAS {
            return Err(Errno::ENOMEM);
        }
        heap::check(AREA_COST)
    }

    /// Whether areas may be cut at the ends of `range`.
    pub(super) fn check_cuts(&self, range: &Range<u64>) -> Result<()> {
        let cuts = |at: u64| matches!(self.area_at(at), Some((start, _)) if start < at);
        match cuts(range.start) || cuts(range.end) {
            true => self.check_areas(),
            false => Ok(()),
        }
    }

    /// Finds where a mapping of `length` bytes goes.
    fn place(&self, placement: Placement, length: u64) -> Result<u64> {
        let highest = TASK_SIZE.checked_sub(length).ok_or(Errno::ENOMEM)?;
        match placement {
            Placement::Fixed(address) | Placement::FixedNoReplace(address) => {
                if address > highest {
                    return Err(Errno::ENOMEM);
                }
                if !address.is_multiple_of(PAGE) {
                    return Err(Errno::EINVAL);
                }
                let range = address..address + length;
                if matches!(placement, Placement::FixedNoReplace(_)) && !self.is_free(&range) {
                    return Err(Errno::EEXIST);
                }
                Ok(address)
            }
            Placement::Hint(hint) => self
                .free_at(hint, length, TASK_SIZE)
                .or_else(|| self.find_room(self.mmap_base, length))
                .or_else(|| self.find_room(TASK_SIZE, length))
                .ok_or(Errno::ENOMEM),
            Placement::Low(hint) => self
                .free_at(hint, length, LOW.end)
                .or_else(|| self.find_low_room(length))
                .ok_or(Errno::ENOMEM),
        }
    }

    /// The page of `hint`, if it is not 0 and there is room for `length` bytes below `limit`.
    fn free_at(&self, hint: u64, length: u64, limit: u64) -> Option<u64> {
        let hint = Some(hint & !(PAGE - 1)).filter(|hint| *hint != 0)?;
        let start = hint.max(MMAP_MIN);
        let end = start.checked_add(length).filter(|end| *end <= limit)?;
        self.is_free(&self.with_guard(start..end)).then_some(start)
    }

    /// The lowest place for `length` bytes in [`LOW`].
    fn find_low_room(&self, length: u64) -> Option<u64> {
        let mut start = LOW.start;
        let below = self.areas.range(..start).next_back();
        for (area_start, area) in below.into_iter().chain(self.areas.range(start..LOW.end)) {
            if area_start.saturating_sub(start) >= length {
                break;
            }
            start = start.max(area.end);
        }
        let end = start.checked_add(length)?;
        (end <= LOW.end && self.is_free(&self.with_guard(start..end))).then_some(start)
    }

    /// The highest place for `length` bytes below `top`.
    fn find_room(&self, top: u64, length: u64) -> Option<u64> {
        let mut end = top;
        for (&start, area) in self.areas.range(..top).rev() {
            if area.end < end && end - area.end >= length {
                return Some(end - length);
            }
            let guard = if area.is_stack { STACK_GUARD } else { 0 };
            end = end.min(start.saturating_sub(guard));
        }
        end.checked_sub(length).filter(|start| *start >= MMAP_MIN)
    }

    /// `range`, with the stack's guard behind it.
    fn with_guard(&self, range: Range<u64>) -> Range<u64> {
        match self.areas.range(range.end..).next() {
            Some((&start, area)) if area.is_stack && start - range.end < STACK_GUARD => {
                range.start..start + PAGE
            }
            _ => range,
        }
    }

    /// Whether nothing is mapped in `range`.
    pub(super) fn is_free(&self, range: &Range<u64>) -> bool {
        self.areas
            .range(..range.end)
            .next_back()
            .is_none_or(|(_, area)| area.end <= range.start)
    }

    /// The bytes of `range` that are mapped.
    fn mapped_bytes(&self, range: &Range<u64>) -> u64 {
        self.overlapping(range)
            .map(|(start, area)| area.end.min(range.end) - start.max(range.start))
            .sum()
    }

    /// The areas that have a part in `range`, from the top down.
    pub(super) fn overlapping(&self, range: &Range<u64>) -> impl Iterator<Item = (u64, &Vma)> {
        let start = range.start;
        self.areas
            .range(..range.end)
            .rev()
            .map(|(start, area)| (*start, area))
            .take_while(move |(_, area)| area.end > start)
    }

    /// The area that `address` is in, with its start.
    pub(super) fn area_at(&self, address: u64) -> Option<(u64, &Vma)> {
        self.areas
            .range(..=address)
            .next_back()
            .filter(|(_, area)| address < area.end)
            .map(|(start, area)| (*start, area))
    }

    /// Adds an area where there is none, and joins it with its neighbours where that can be.
    pub(super) fn insert(&mut self, start: u64, area: Vma) {
        self.generation += 1;
        self.size += area.end - start;
        let end = area.end;
        self.areas.insert(start, area);
        self.join_at(end);
        self.join_at(start);
    }

    /// Makes one area of the two that meet at `address`, if that can be.
    pub(super) fn join_at(&mut self, address: u64) {
        let Some(next) = self.areas.get(&address) else {
            return;
        };
        let Some((&start, area)) = self.areas.range(..address).next_back() else {
            return;
        };
        if area.end == address && area.continues_in(start, next) {
            let end = next.end;
            self.areas.remove(&address);
            if let Some(area) = self.areas.get_mut(&start) {
                area.end = end;
            }
        }
    }

    /// Makes an area end, and the next one begin, at `address`, if an area is around it.
    pub(super) fn split_at(&mut self, address: u64) {
        let Some((&start, area)) = self.areas.range_mut(..address).next_back() else {
            return;
        };
        if area.end > address {
            let rest = area.split_off(start, address);
            self.areas.insert(address, rest);
        }
    }

    /// The starts of the areas of which `range` consists, after areas that reach out of it have
    /// been split.
    pub(super) fn isolate(&mut self, range: &Range<u64>) -> Vec<u64> {
        self.split_at(range.start);
        self.split_at(range.end);
        self.areas
            .range(range.clone())
            .map(|(start, _)| *start)
            .collect()
    }

    /// Takes the areas of `range` out, and its pages with them.
    pub(super) fn unmap(&mut self, range: Range<u64>, flush: &mut Flush) {
        self.generation += 1;
        for start in self.isolate(&range) {
            if let Some(area) = self.areas.remove(&start) {
                self.size -= area.end - start;
                self.unmap_pages(start..area.end, flush);
            }
        }
    }

    /// Takes the pages of `range` out, and lets go of their frames in batches: the list of them
    /// is in the kernel's heap.
    pub(super) fn unmap_pages(&mut self, range: Range<u64>, flush: &mut Flush) {
        let mut start = range.start;
        while range.end - start > UNMAP_BATCH {
            self.table.unmap(start..start + UNMAP_BATCH, flush);
            drop(core::mem::take(flush));
            start += UNMAP_BATCH;
        }
        self.table.unmap(start..range.end, flush);
    }

    /// Whether `bytes` more may be mapped.
    pub(super) fn has_room_for(&self, bytes: u64) -> bool {
        self.size <= self.limit.saturating_sub(bytes)
    }

    /// The pages that the heap loses if the break moves to `address`.
    pub(super) fn given_back(&self, address: u64, data_limit: u64) -> Option<Range<u64>> {
        let Range { start, end } = self.heap;
        if address < start || address > TASK_SIZE || address - start > data_limit {
            return None;
        }
        let range = round_up(address)?..round_up(end)?;
        (!range.is_empty()).then_some(range)
    }

    fn set_break(&mut self, address: u64, data_limit: u64, flush: &mut Flush) -> u64 {
        let Range { start, end } = self.heap;
        if address < start || address > TASK_SIZE || address - start > data_limit {
            return end;
        }
        // Both are below TASK_SIZE, so rounding cannot overflow.
        let (Some(old), Some(new)) = (round_up(end), round_up(address)) else {
            return end;
        };
        if new < old {
            self.unmap(new..old, flush);
        } else if new > old {
            let request = MapRequest {
                placement: Placement::FixedNoReplace(old),
                ..MapRequest::anonymous(new - old, Access::READ | Access::WRITE)
            };
            let with_guard = self.with_guard(old..new);
            if !self.is_free(&with_guard) || self.map(request, flush).is_err() {
                return end;
            }
        }
        self.heap.end = address;
        address
    }
}

/// `bytes`, rounded up to whole pages.
pub(super) fn round_up(bytes: u64) -> Option<u64> {
    bytes.checked_next_multiple_of(PAGE)
}

/// The pages that `length` bytes from `address`, a page's, touch; `None` if it is no page's or
/// there are not so many addresses.
pub(super) fn page_range(address: u64, length: u64) -> Option<Range<u64>> {
    if !address.is_multiple_of(PAGE) {
        return None;
    }
    Some(address..address.checked_add(round_up(length)?)?)
}
