//! Virtual memory areas: runs of pages that a program mapped with one meaning.

use super::page_source::{PageSource, SharedMemory};
use alloc::sync::Arc;
use bitflags::bitflags;
use machine::{Access, PAGE_SIZE};

/// Bytes in a page, as addresses are counted.
pub const PAGE: u64 = PAGE_SIZE as u64;

/// Where a mapping goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Placement {
    /// Where there is room; there first, if it is not 0.
    Hint(u64),
    /// The same, where 31 bits hold the addresses (`MAP_32BIT`).
    Low(u64),
    /// There, in place of what is mapped (`MAP_FIXED`).
    Fixed(u64),
    /// There, or nowhere: `EEXIST` (`MAP_FIXED_NOREPLACE`).
    FixedNoReplace(u64),
}

/// What a mapping shows.
#[derive(Clone)]
pub enum Backing {
    /// Zeros, until they are written.
    Anonymous,
    /// The pages of `source` from number `first_page` on.
    Source {
        /// Where they come from.
        source: Arc<dyn PageSource>,
        /// The page that the mapping's first page shows.
        first_page: u64,
    },
}

/// What `mmap(2)` asks for.
#[derive(Clone)]
pub struct MapRequest {
    /// Where.
    pub placement: Placement,
    /// Bytes; rounded up to whole pages.
    pub length: u64,
    /// What the program may do with the pages.
    pub access: Access,
    /// What `mprotect(2)` may allow later.
    pub max_access: Access,
    /// What it shows.
    pub backing: Backing,
    /// Whether stores reach the backing (`MAP_SHARED`) or a copy (`MAP_PRIVATE`).
    pub is_shared: bool,
    /// Map all pages now (`MAP_POPULATE`).
    pub populate: bool,
    /// Do not refuse it for its size (`MAP_NORESERVE`).
    pub no_reserve: bool,
}

impl MapRequest {
    /// Every access that pages can have.
    pub const ALL_ACCESS: Access = Access::all();

    /// Private anonymous memory somewhere.
    pub fn anonymous(length: u64, access: Access) -> Self {
        Self {
            placement: Placement::Hint(0),
            length,
            access,
            max_access: Self::ALL_ACCESS,
            backing: Backing::Anonymous,
            is_shared: false,
            populate: false,
            no_reserve: false,
        }
    }

    /// Pages of `source` from `first_page` on, somewhere, shared with everybody who maps them.
    pub fn shared(
        source: Arc<dyn PageSource>,
        first_page: u64,
        length: u64,
        access: Access,
    ) -> Self {
        Self {
            backing: Backing::Source { source, first_page },
            is_shared: true,
            ..Self::anonymous(length, access)
        }
    }
}

bitflags! {
    /// What a child of `fork(2)` does not get of an area.
    #[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
    pub struct NotForked: u8 {
        /// All of it: the area is not there (`MADV_DONTFORK`).
        const AREA = 1;
        /// What is in it (`MADV_WIPEONFORK`).
        const CONTENTS = 2;
    }
}

/// One area; its first address is its key in the address space's map.
#[derive(Clone)]
pub(super) struct Vma {
    /// The first address after it.
    pub(super) end: u64,
    pub(super) access: Access,
    pub(super) max_access: Access,
    pub(super) is_shared: bool,
    /// Nothing else is mapped close below it: it holds the stack.
    pub(super) is_stack: bool,
    pub(super) not_forked: NotForked,
    /// Its pages stay in memory, where they would stay anyway (`mlock(2)`).
    pub(super) is_locked: bool,
    pub(super) backing: Backing,
}

impl Vma {
    pub(super) fn new(request: MapRequest, end: u64) -> Self {
        let backing = match request.backing {
            Backing::Anonymous if request.is_shared => Backing::Source {
                source: Arc::new(SharedMemory::default()),
                first_page: 0,
            },
            backing => backing,
        };
        Self {
            end,
            access: normalised(request.access),
            max_access: normalised(request.max_access),
            is_shared: request.is_shared,
            is_stack: false,
            not_forked: NotForked::empty(),
            is_locked: false,
            backing,
        }
    }

    /// Cuts off what lies from `at` on and returns it; the area starts at `start`.
    pub(super) fn split_off(&mut self, start: u64, at: u64) -> Self {
        let mut rest = self.clone();
        rest.skip(at - start);
        self.end = at;
        rest
    }

    /// Moves the start of the area up by `bytes`, as far as its backing is concerned.
    pub(super) fn skip(&mut self, bytes: u64) {
        if let Backing::Source { first_page, .. } = &mut self.backing {
            *first_page += bytes / PAGE;
        }
    }

    /// Whether this area, which starts at `start`, goes on in `next`, which starts at its end.
    pub(super) fn continues_in(&self, start: u64, next: &Self) -> bool {
        let backing_continues = match (&self.backing, &next.backing) {
            (Backing::Anonymous, Backing::Anonymous) => true,
            (
                Backing::Source { source, first_page },
                Backing::Source {
                    source: next_source,
                    first_page: next_page,
                },
            ) => {
                Arc::ptr_eq(source, next_source)
                    && first_page + (self.end - start) / PAGE == *next_page
            }
            _ => false,
        };
        backing_continues
            && self.access == next.access
            && self.max_access == next.max_access
            && self.is_shared == next.is_shared
            && self.is_stack == next.is_stack
            && self.not_forked == next.not_forked
            && self.is_locked == next.is_locked
    }
}

/// x86 has no page that can be written or executed but not read.
pub(super) fn normalised(access: Access) -> Access {
    if access.is_empty() {
        access
    } else {
        access | Access::READ
    }
}
