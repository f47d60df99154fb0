//! Changing what is mapped: `mprotect(2)`, `mremap(2)`, `madvise(2)`, `mincore(2)`.

use super::address_space::{AddressSpace, Mappings, TASK_SIZE, page_range, round_up};
use super::page_source::PageSource;
use super::vma::{Backing, MapRequest, NotForked, PAGE, Placement, Vma, normalised};
use crate::error::{Errno, Result};
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::ops::Range;
use machine::{Access, Flush, PAGE_SIZE};
use smallvec::SmallVec;

/// Pages that a program gives back and that are cleared rather than unmapped, where CPL 0 is emulated:
/// a flush of the TLB and the next fault take as long as clearing far more. While memory is
/// not short, nothing is gained by having them back.
const CLEARED_MOST: usize = 16;

/// What `mremap(2)` asks for.
#[derive(Clone, Copy, Debug)]
pub struct Remap {
    /// Where the mapping is.
    pub address: u64,
    /// Its bytes now.
    pub old_length: u64,
    /// Its bytes then.
    pub new_length: u64,
    /// It may move (`MREMAP_MAYMOVE`).
    pub may_move: bool,
    /// Where it must go (`MREMAP_FIXED`).
    pub fixed: Option<u64>,
    /// The old place stays mapped, empty (`MREMAP_DONTUNMAP`).
    pub keep_old: bool,
}

/// What `madvise(2)` says that does something.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Advice {
    /// Nothing is done; the range must be mapped.
    Nothing,
    /// Drop the pages (`MADV_DONTNEED`).
    DontNeed {
        /// Those that are locked, too (`MADV_DONTNEED_LOCKED`).
        locked_too: bool,
    },
    /// What a child of `fork(2)` does not get (`MADV_DONTFORK`, `MADV_WIPEONFORK`), or does get
    /// after all (`MADV_DOFORK`, `MADV_KEEPONFORK`).
    Fork {
        /// What is set, one flag.
        what: NotForked,
        /// Whether it is set or cleared.
        is_set: bool,
    },
    /// The contents of anonymous memory are worth nothing any more (`MADV_FREE`).
    Free,
    /// Fill the pages in, for stores if so (`MADV_POPULATE_READ`, `MADV_POPULATE_WRITE`).
    Populate {
        /// For stores.
        for_write: bool,
    },
}

impl AddressSpace {
    /// Sets what the program may do with `length` bytes from `address` on (`mprotect(2)`).
    ///
    /// # Errors
    ///
    /// `EINVAL` for an address that is no page's, `ENOMEM` if not all of it is mapped or there are
    /// too many areas, `EACCES` if the mapped file does not allow it. What lies before the cause has been changed.
    pub fn protect(&self, address: u64, length: u64, access: Access) -> Result<()> {
        let range = Self::range_to_protect(address, length)?;
        self.change(|mappings, flush| {
            let (end, result) = mappings.protect_areas(range.clone(), normalised(access));
            mappings.protect_pages(range.start..end, flush);
            result?;
            match end < range.end {
                true => Err(Errno::ENOMEM),
                false => Ok(()),
            }
        })
    }

    pub(super) fn range_to_protect(address: u64, length: u64) -> Result<Range<u64>> {
        if !address.is_multiple_of(PAGE) {
            return Err(Errno::EINVAL);
        }
        page_range(address, length)
            .filter(|range| range.end <= TASK_SIZE)
            .ok_or(Errno::ENOMEM)
    }

    /// Moves or resizes a mapping (`mremap(2)`) and returns where it is. The caller has checked
    /// the flags.
    ///
    /// # Errors
    ///
    /// `EINVAL`, `EFAULT` if the old range is not one mapping, `ENOMEM`.
    pub fn remap(&self, remap: Remap) -> Result<u64> {
        self.change(|mappings, flush| mappings.remap(remap, flush))
    }

    pub(super) fn range_to_advise(address: u64, length: u64) -> Result<Range<u64>> {
        page_range(address, length)
            .filter(|range| range.end <= TASK_SIZE)
            .ok_or(Errno::EINVAL)
    }

    /// Takes an advice about `length` bytes from `address` on (`madvise(2)`), but for
    /// [`Advice::Populate`], which may take time.
    ///
    /// # Errors
    ///
    /// `EINVAL` for an address that is no page's or memory that the advice does not fit, `ENOMEM`
    /// if not all of it is mapped.
    pub fn advise(&self, address: u64, length: u64, advice: Advice) -> Result<()> {
        let range = Self::range_to_advise(address, length)?;
        // Dropped in this order, as `change` does it.
        let mut mappings = self.mappings.lock();
        let mut flush = Flush::new();
        let is_all_mapped = mappings.is_all_mapped(&range);
        mappings.check_advice(&range, advice)?;
        match advice {
            Advice::Nothing | Advice::Populate { .. } => {}
            Advice::DontNeed { .. } | Advice::Free => mappings.discard(range, &mut flush),
            Advice::Fork { what, is_set } => mappings.set_not_forked(&range, what, is_set)?,
        }
        if is_all_mapped {
            Ok(())
        } else {
            Err(Errno::ENOMEM)
        }
    }

    /// Takes the pages of `source` with the numbers `gone` out. Copies that private mappings have
    /// stay unless `with_copies`.
    pub(super) fn forget(&self, source: &dyn PageSource, gone: Range<u64>, with_copies: bool) {
        // Dropped in this order, as `change` does it.
        let mut mappings = self.mappings.lock();
        let mut flush = Flush::new();
        let shows = |start: u64, area: &Vma| {
            let Backing::Source {
                source: shown,
                first_page,
            } = &area.backing
            else {
                return None;
            };
            if !core::ptr::addr_eq(Arc::as_ptr(shown), source) || !(area.is_shared || with_copies) {
                return None;
            }
            let address = |page: u64| {
                let offset = page.saturating_sub(*first_page).saturating_mul(PAGE);
                start.saturating_add(offset).min(area.end)
            };
            Some(address(gone.start)..address(gone.end))
        };
        let areas = mappings.areas.iter();
        let ranges: Vec<_> = areas
            .filter_map(|(start, area)| shows(*start, area))
            .filter(|range| range.start < range.end)
            .collect();
        for range in ranges {
            mappings.unmap_pages(range, &mut flush);
        }
        // Whoever has got one of the pages to map it asks again.
        mappings.generation += 1;
    }

    /// For each page of `length` bytes from `address` on, whether it is in memory (`mincore(2)`):
    /// not more at a time than the kernel's heap has room for.
    ///
    /// # Errors
    ///
    /// `EINVAL` for an address that is no page's, `ENOMEM` if not all of it is mapped.
    pub fn residency(&self, address: u64, length: u64) -> Result<Vec<bool>> {
        if !address.is_multiple_of(PAGE) {
            return Err(Errno::EINVAL);
        }
        let range = page_range(address, length)
            .filter(|range| range.end <= TASK_SIZE)
            .ok_or(Errno::ENOMEM)?;
        let mappings = self.mappings.lock();
        if !mappings.is_all_mapped(&range) {
            return Err(Errno::ENOMEM);
        }
        Ok(range
            .step_by(PAGE as usize)
            .map(|page| mappings.is_filled_in(page))
            .collect())
    }

    /// Has the areas of `range` be locked, or not any more (`mlock(2)`).
    ///
    /// # Errors
    ///
    /// `ENOMEM` if there are too many areas.
    pub fn set_locked(&self, range: Range<u64>, is_locked: bool) -> Result<()> {
        self.change(|mappings, _| {
            mappings.check_cuts(&range)?;
            for start in mappings.isolate(&range) {
                if let Some(area) = mappings.areas.get_mut(&start) {
                    area.is_locked = is_locked;
                }
            }
            mappings.generation += 1;
            for edge in mappings.edges(&range) {
                mappings.join_at(edge);
            }
            Ok(())
        })
    }

    /// Whether an area of `range` is locked.
    pub fn has_locked(&self, range: Range<u64>) -> bool {
        let mappings = self.mappings.lock();
        mappings.overlapping(&range).any(|(_, area)| area.is_locked)
    }

    /// How many bytes from `address` on are mapped, without a hole.
    pub fn mapped_from(&self, address: u64) -> u64 {
        let mappings = self.mappings.lock();
        let mut end = address;
        while let Some((_, area)) = mappings.area_at(end) {
            end = area.end;
        }
        end - address
    }

    /// Checks that `length` bytes from `address` on are mapped (`msync(2)`, `mlock(2)`).
    ///
    /// # Errors
    ///
    /// `ENOMEM`.
    pub fn check_mapped(&self, range: Range<u64>) -> Result<()> {
        if self.mappings.lock().is_all_mapped(&range) {
            Ok(())
        } else {
            Err(Errno::ENOMEM)
        }
    }
}

impl Mappings {
    /// Has the pages of `range` show again what they showed before they were written.
    fn discard(&mut self, range: Range<u64>, flush: &mut Flush) {
        let are_zeros = self
            .overlapping(&range)
            .all(|(_, area)| matches!(area.backing, Backing::Anonymous));
        let memory = machine::memory_use();
        let clears = machine::is_cpl0_emulated() && are_zeros && memory.free > memory.total / 2;
        let few = clears.then(|| self.table.mapped::<CLEARED_MOST>(range.clone()));
        let Some(pages) = few.flatten() else {
            return self.unmap_pages(range, flush);
        };
        for page in pages {
            let is_cleared = self.table.with_frame(page, Access::empty(), |frame| {
                let is_ours_alone = frame.is_unique();
                if is_ours_alone {
                    frame.fill(0..PAGE_SIZE, 0);
                }
                is_ours_alone
            });
            if is_cleared != Ok(true) {
                self.unmap_pages(page..page + PAGE, flush);
            }
        }
    }

    /// Sets or clears a flag of the areas of `range`, up to the first that cannot have it.
    fn set_not_forked(&mut self, range: &Range<u64>, what: NotForked, is_set: bool) -> Result<()> {
        self.check_cuts(range)?;
        let mut result = Ok(());
        for start in self.isolate(range) {
            let Some(area) = self.areas.get_mut(&start) else {
                continue;
            };
            let is_private = matches!(area.backing, Backing::Anonymous) && !area.is_shared;
            if is_set && what == NotForked::CONTENTS && !is_private {
                result = Err(Errno::EINVAL);
                break;
            }
            area.not_forked.set(what, is_set);
        }
        self.generation += 1;
        for edge in self.edges(range) {
            self.join_at(edge);
        }
        result
    }

    fn is_all_mapped(&self, range: &Range<u64>) -> bool {
        let mut end = range.end;
        for (start, area) in self.overlapping(range) {
            if area.end < end {
                return false;
            }
            end = start;
        }
        end <= range.start
    }

    /// Whether the areas of `range` are such that the advice fits them.
    pub(super) fn check_advice(&self, range: &Range<u64>, advice: Advice) -> Result<()> {
        let fits = |area: &Vma| match advice {
            Advice::Free => matches!(area.backing, Backing::Anonymous) && !area.is_locked,
            Advice::DontNeed { locked_too } => locked_too || !area.is_locked,
            _ => true,
        };
        match self.overlapping(range).all(|(_, area)| fits(area)) {
            true => Ok(()),
            false => Err(Errno::EINVAL),
        }
    }

    /// Sets what the areas of `range` allow, from the first on as far as they follow each other and may
    /// allow it; gives where that ends. [`protect_pages`](Self::protect_pages) is to follow.
    pub(super) fn protect_areas(&mut self, range: Range<u64>, access: Access) -> (u64, Result<()>) {
        if let Err(error) = self.check_cuts(&range) {
            return (range.start, Err(error));
        }
        let mut next = range.start;
        let mut result = Ok(());
        for start in self.isolate(&range) {
            let Some(area) = self.areas.get_mut(&start) else {
                continue;
            };
            if start != next {
                break;
            }
            if !area.max_access.contains(access) {
                result = Err(Errno::EACCES);
                break;
            }
            next = area.end;
            area.access = access;
        }
        self.generation += 1;
        for edge in self.edges(&range) {
            self.join_at(edge);
        }
        (next, result)
    }

    /// Has the pages of `range` allow what their areas do.
    pub(super) fn protect_pages(&mut self, range: Range<u64>, flush: &mut Flush) {
        let areas: SmallVec<[_; 4]> = self
            .overlapping(&range)
            .map(|(start, area)| {
                let part = start.max(range.start)..area.end.min(range.end);
                (part, area.access, area.is_shared)
            })
            .collect();
        for (part, access, is_shared) in areas {
            // Frames that others see, and private pages that nobody has written yet, show their
            // first write by a fault.
            self.table.protect(part, flush, |_, frame| {
                if !is_shared && frame.is_exclusive() {
                    access
                } else {
                    access & !Access::WRITE
                }
            });
        }
    }

    /// Where areas start in `range` and right after it, from the top down.
    fn edges(&self, range: &Range<u64>) -> Vec<u64> {
        self.areas
            .range(range.start..=range.end)
            .rev()
            .map(|(start, _)| *start)
            .collect()
    }

    fn remap(&mut self, remap: Remap, flush: &mut Flush) -> Result<u64> {
        let Remap { address, .. } = remap;
        let new_length = round_up(remap.new_length).ok_or(Errno::EINVAL)?;
        let old_length = round_up(remap.old_length).ok_or(Errno::EINVAL)?;
        if !address.is_multiple_of(PAGE) || new_length == 0 || new_length > TASK_SIZE {
            return Err(Errno::EINVAL);
        }
        let old = address..address.checked_add(old_length).ok_or(Errno::EINVAL)?;
        if let Some(to) = remap.fixed {
            let overlaps = to < old.end && old.start < to.saturating_add(new_length);
            if !to.is_multiple_of(PAGE) || to > TASK_SIZE - new_length || overlaps {
                return Err(Errno::EINVAL);
            }
        }
        self.check_cuts(&old)?;
        let (start, area) = self.area_at(address).ok_or(Errno::EFAULT)?;
        if remap.fixed.is_none() && !remap.keep_old && new_length < old_length {
            // What is cut off may be more than the mapping.
            if old.end > TASK_SIZE {
                return Err(Errno::EINVAL);
            }
            self.unmap(address + new_length..old.end, flush);
            return Ok(address);
        }
        let area_end = area.end;
        let is_anonymous = matches!(area.backing, Backing::Anonymous);
        if old.is_empty() {
            // A second view of shared memory.
            if !area.is_shared || !remap.may_move {
                return Err(Errno::EINVAL);
            }
            let mut copy = area.clone();
            copy.skip(address - start);
            let to = self.reserve(&copy, new_length, remap.fixed, flush)?;
            copy.end = to + new_length;
            self.insert(to, copy);
            return Ok(to);
        }
        if old.end > area_end {
            return Err(Errno::EFAULT);
        }
        if remap.keep_old && !is_anonymous {
            return Err(Errno::EINVAL);
        }
        if remap.fixed.is_none() && !remap.keep_old {
            if new_length == old_length {
                return Ok(address);
            }
            if self.grow(start, &old, new_length)? {
                return Ok(address);
            }
        }
        if !remap.may_move {
            return Err(Errno::ENOMEM);
        }
        self.relocate(old, new_length, remap, flush)
    }

    /// Grows the area that ends at `old.end` where it is; false if something is in the way.
    fn grow(&mut self, start: u64, old: &Range<u64>, new_length: u64) -> Result<bool> {
        let end = old.start.checked_add(new_length).ok_or(Errno::EINVAL)?;
        let more = end - old.end;
        let Some(area) = self.areas.get(&start) else {
            return Ok(false);
        };
        if area.end != old.end || end > TASK_SIZE || !self.is_free(&(old.end..end)) {
            return Ok(false);
        }
        if !self.has_room_for(more) {
            return Err(Errno::ENOMEM);
        }
        let mut rest = area.clone();
        rest.skip(area.end - start);
        rest.end = end;
        self.insert(old.end, rest);
        Ok(true)
    }

    fn relocate(
        &mut self,
        mut old: Range<u64>,
        new_length: u64,
        remap: Remap,
        flush: &mut Flush,
    ) -> Result<u64> {
        if new_length < old.end - old.start {
            self.unmap(old.start + new_length..old.end, flush);
            old.end = old.start + new_length;
        }
        let (start, area) = self.area_at(old.start).ok_or(Errno::EFAULT)?;
        let mut area = area.clone();
        area.skip(old.start - start);
        let to = self.reserve(&area, new_length, remap.fixed, flush)?;
        area.end = to + new_length;
        let result = self.table.relocate(old.clone(), to, flush);
        if !remap.keep_old {
            self.unmap(old, flush);
        }
        self.insert(to, area);
        result?;
        Ok(to)
    }

    /// Finds room for `length` bytes, or makes it at `fixed`.
    fn reserve(
        &mut self,
        area: &Vma,
        length: u64,
        fixed: Option<u64>,
        flush: &mut Flush,
    ) -> Result<u64> {
        let placement = fixed.map_or(Placement::Hint(0), Placement::Fixed);
        // Mapped and taken out again: the checks are those of any new mapping.
        let to = self.map(
            MapRequest {
                placement,
                no_reserve: true,
                ..MapRequest::anonymous(length, area.access)
            },
            flush,
        )?;
        self.unmap(to..to + length, flush);
        Ok(to)
    }
}
