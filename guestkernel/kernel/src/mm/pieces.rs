//! Changes of ranges that may be as large as a program likes, in pieces between which others have
//! their turn.
//!
//! Pages go first, piece by piece, and then the areas that showed them at once. Who accesses memory
//! that another thread is unmapping may find it empty before it is gone.

use super::address_space::{AddressSpace, Mappings, TASK_SIZE, page_range};
use super::change::Advice;
use super::fault::FaultError;
use super::vma::{MapRequest, PAGE, Placement, normalised};
use crate::error::{Errno, Result};
use crate::executor::Stint;
use core::ops::Range;
use machine::Access;

/// Bytes of memory whose pages are changed at a time: a fraction of a millisecond's work.
const PIECE: u64 = 16 << 20;
/// Areas that are changed at a time.
const AREAS: usize = 512;
/// Bytes of a range that is changed at once, since it takes no time to speak of.
pub(super) const SMALL: u64 = 2 << 20;
/// Pages that are filled in without a look at the clock.
const PAGES: u64 = 16;

impl AddressSpace {
    /// Whether what is done about so many bytes takes no time to speak of.
    pub fn is_small(length: u64) -> bool {
        length <= SMALL
    }

    /// As [`map`](Self::map), however large it is.
    ///
    /// # Errors
    ///
    /// Those of [`map`](Self::map).
    pub async fn map_in_pieces(&self, mut request: MapRequest) -> Result<u64> {
        let populate = core::mem::take(&mut request.populate);
        let length = request.length;
        if let Placement::Fixed(address) = request.placement
            && let Some(range) = page_range(address, length)
            && range.end <= TASK_SIZE
        {
            // What is there goes anyway, unless the request is refused.
            self.change(|mappings, _| mappings.check_map(&request))?;
            self.empty(range).await;
        }
        let start = self.map(request)?;
        if populate {
            self.populate_in_pieces(start..start.saturating_add(length))
                .await;
        }
        Ok(start)
    }

    /// As [`unmap`](Self::unmap), however large it is.
    ///
    /// # Errors
    ///
    /// Those of [`unmap`](Self::unmap).
    pub async fn unmap_in_pieces(&self, address: u64, length: u64) -> Result<()> {
        let range = self.change(|mappings, _| mappings.check_unmap(address, length))?;
        self.empty(range.clone()).await;
        let mut stint = Stint::default();
        let mut rest = range;
        while !rest.is_empty() {
            let piece = self.mappings.lock().areas_of(&rest);
            rest.start = piece.end;
            self.unmap(piece.start, piece.end - piece.start)?;
            stint.give_way().await;
        }
        Ok(())
    }

    /// As [`set_break`](Self::set_break), however far it moves.
    pub async fn set_break_in_pieces(&self, address: u64, data_limit: u64) -> u64 {
        let given_back = self.mappings.lock().given_back(address, data_limit);
        if let Some(range) = given_back {
            self.empty(range).await;
        }
        self.set_break(address, data_limit)
    }

    /// As [`protect`](Self::protect), however large it is.
    ///
    /// # Errors
    ///
    /// Those of [`protect`](Self::protect).
    pub async fn protect_in_pieces(&self, address: u64, length: u64, access: Access) -> Result<()> {
        let range = Self::range_to_protect(address, length)?;
        let access = normalised(access);
        let mut stint = Stint::default();
        let mut rest = range.clone();
        while !rest.is_empty() {
            let piece = self.mappings.lock().areas_of(&rest);
            // Which pages the areas allow first, and then what the pages do.
            let changed = self.change(|mappings, _| mappings.protect_areas(piece.clone(), access));
            let (end, result) = match changed {
                (end, Ok(())) if end == piece.end => (end, Ok(())),
                (end, Ok(())) => (end, Err(Errno::ENOMEM)),
                (end, error) => (end, error),
            };
            let mut at = piece.start;
            while at < end {
                let next = (at + PIECE).min(end);
                self.change(|mappings, flush| mappings.protect_pages(at..next, flush));
                at = next;
                stint.give_way().await;
            }
            result?;
            rest.start = piece.end;
        }
        Ok(())
    }

    /// As [`advise`](Self::advise), however large it is, and waits for pages that take time.
    ///
    /// # Errors
    ///
    /// Those of [`advise`](Self::advise).
    pub async fn advise_in_pieces(&self, address: u64, length: u64, advice: Advice) -> Result<()> {
        let range = Self::range_to_advise(address, length)?;
        match advice {
            Advice::DontNeed | Advice::Free => {
                self.mappings.lock().check_advice(&range, advice)?;
                self.empty(range).await;
                self.advise(address, length, advice)
            }
            Advice::Populate { for_write } => self.fill_in_all(range, for_write).await,
            Advice::Nothing | Advice::Fork { .. } => self.advise(address, length, advice),
        }
    }

    /// Takes the pages of `range` out, which the areas there then show anew.
    async fn empty(&self, range: Range<u64>) {
        let mut stint = Stint::default();
        let mut rest = range;
        loop {
            let piece = self.mappings.lock().next_piece(&rest);
            let Some(piece) = piece else { return };
            rest.start = piece.end;
            if rest.is_empty() {
                // The rest is for whoever wants it empty.
                return;
            }
            self.change(|mappings, flush| mappings.unmap_pages(piece, flush));
            stint.give_way().await;
        }
    }

    /// Fills in all pages of `range`, as far as there are any and memory suffices; waits for those
    /// that take time.
    pub async fn populate_in_pieces(&self, range: Range<u64>) {
        let mut stint = Stint::default();
        let mut page = range.start & !(PAGE - 1);
        let mut count = 0_u64;
        while page < range.end {
            let needed = match self.mappings.lock().area_at(page) {
                Some((_, area)) if area.access.contains(Access::WRITE) => Access::WRITE,
                Some((_, area)) if !area.access.is_empty() => Access::READ,
                _ => return,
            };
            if self.fill_in_waiting(page, needed).await.is_err() {
                return;
            }
            page += PAGE;
            count += 1;
            if count.is_multiple_of(PAGES) {
                stint.give_way().await;
            }
        }
    }

    async fn fill_in_waiting(&self, page: u64, needed: Access) -> Result<(), FaultError> {
        match self.fill_in(page, needed) {
            Err(FaultError::Absent) => self.bring_in(page, needed).await,
            result => result,
        }
    }

    async fn fill_in_all(&self, range: Range<u64>, for_write: bool) -> Result<()> {
        let needed = match for_write {
            true => Access::WRITE,
            false => Access::READ,
        };
        let mut stint = Stint::default();
        for page in range.step_by(PAGE as usize) {
            if (page / PAGE).is_multiple_of(PAGES) {
                stint.give_way().await;
            }
            let filled = self.fill_in_waiting(page, needed).await;
            filled.map_err(|error| match error {
                FaultError::NotMapped | FaultError::OutOfMemory => Errno::ENOMEM,
                FaultError::Denied => Errno::EINVAL,
                FaultError::NoPage => Errno::EFAULT,
                FaultError::Absent => Errno::ABSENT,
            })?;
        }
        Ok(())
    }
}

impl Mappings {
    /// The part of `range` in which its first areas are, not too many of them.
    fn areas_of(&self, range: &Range<u64>) -> Range<u64> {
        let more = self.areas.range(range.start..range.end).nth(AREAS);
        range.start..more.map_or(range.end, |(start, _)| *start)
    }

    /// The first part of `range` that is mapped, not too much of it.
    fn next_piece(&self, range: &Range<u64>) -> Option<Range<u64>> {
        let start = match self.area_at(range.start) {
            Some(_) => range.start,
            None => *self.areas.range(range.clone()).next()?.0,
        };
        let (_, area) = self.area_at(start)?;
        let end = area.end.min(range.end).min(start.saturating_add(PIECE));
        (start < end).then_some(start..end)
    }
}
