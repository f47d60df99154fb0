//! Pages that are replaced while other threads read and write them: nobody may see, or change,
//! what was there before.

use crate::crew::{self, Worker};
use guest_programs::check::{Check, Failure, Outcome};
use guest_programs::sys::{Mapping, SysResult};
use guest_programs::{checks, expect_eq, sys};
use libc::{MADV_DONTNEED, MAP_ANONYMOUS, MAP_FIXED, MAP_PRIVATE, PROT_READ, PROT_WRITE};
use std::sync::atomic::{AtomicU64, Ordering};

pub(crate) const CHECKS: &[Check] = checks![
    replaced_pages_are_seen_by_all,
    stores_do_not_reach_pages_given_back,
];

pub(crate) const PAGE: usize = 4096;
pub(crate) const PAGES: usize = 8;
const READERS: usize = 3;
/// What stray stores would leave.
const MARK: u64 = 0x5555_0000_aaaa_0000;

// SAFETY: the pages are accessed atomically.
unsafe impl Sync for Stamped {}

/// Pages with a stamp each, which one thread replaces and others read.
pub(crate) struct Stamped {
    mapping: Mapping,
    /// The stamp that was last begun to be put into each page, and the one that was last done.
    pub(crate) begun: [AtomicU64; PAGES],
    pub(crate) done: [AtomicU64; PAGES],
}

impl Stamped {
    pub(crate) fn new() -> SysResult<Self> {
        Ok(Self {
            mapping: Mapping::new(PAGES * PAGE, PROT_READ | PROT_WRITE)?,
            begun: [const { AtomicU64::new(0) }; PAGES],
            done: [const { AtomicU64::new(0) }; PAGES],
        })
    }

    /// A page's address.
    pub(crate) fn page(&self, page: usize) -> *mut u8 {
        self.mapping.at(page * PAGE)
    }

    /// A word of a page that is mapped all the time, if not the same one.
    pub(crate) fn word(&self, page: usize, word: usize) -> &AtomicU64 {
        // SAFETY: inside the mapping, which is aligned to pages; all accesses are atomic.
        unsafe { AtomicU64::from_ptr(self.page(page).wrapping_add(word * 8).cast()) }
    }

    /// Replaces a page by one of zeros with the next stamp.
    pub(crate) fn replace(&self, page: usize, with: impl FnOnce(*mut u8) -> SysResult) -> Outcome {
        let stamp = self.done[page].load(Ordering::SeqCst) + 1;
        self.begun[page].store(stamp, Ordering::SeqCst);
        with(self.page(page))?;
        // Also to the one who replaced it nothing old is there.
        expect_eq!(self.word(page, 0).load(Ordering::SeqCst), 0);
        self.word(page, 0).store(stamp, Ordering::SeqCst);
        self.done[page].store(stamp, Ordering::SeqCst);
        Ok(())
    }

    /// Fails if the page's stamp is not one that it may have now.
    pub(crate) fn verify(&self, page: usize) -> Outcome {
        let done = self.done[page].load(Ordering::SeqCst);
        let stamp = self.word(page, 0).load(Ordering::SeqCst);
        let begun = self.begun[page].load(Ordering::SeqCst);
        // Zero while a replacement has no stamp yet.
        if (done..=begun).contains(&stamp) || stamp == 0 && begun > done {
            return Ok(());
        }
        Err(Failure::new(format!(
            "page {page} has stamp {stamp}, with {done} done and {begun} begun"
        )))
    }
}

/// Maps fresh zeros at the page `at`, in place of what is there.
pub(crate) fn map_over(at: *mut u8) -> SysResult {
    let flags = MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED;
    sys!(SYS_mmap, at, PAGE, PROT_READ | PROT_WRITE, flags, -1, 0)
}

/// Drops the page `at`.
pub(crate) fn drop_page(at: *mut u8) -> SysResult {
    sys!(SYS_madvise, at, PAGE, MADV_DONTNEED)
}

pub(crate) fn replaced_pages_are_seen_by_all() -> Outcome {
    let stamped = Stamped::new()?;
    crew::run(
        "replaced_pages_are_seen_by_all",
        &[
            ("replacer", 1, &|worker: &mut Worker<'_>| {
                while worker.goes_on() {
                    let page = worker.random.below(PAGES as u64) as usize;
                    let with = [map_over, drop_page][worker.random.below(2) as usize];
                    stamped.replace(page, with)?;
                    if worker.random.once_in(4) {
                        worker.random.pause();
                    }
                }
                Ok(())
            }),
            ("reader", READERS, &|worker: &mut Worker<'_>| {
                while worker.goes_on() {
                    for page in 0..PAGES {
                        stamped.verify(page)?;
                    }
                }
                Ok(())
            }),
        ],
    )
}

/// Some store to pages that are dropped all the time; others make new mappings, which get the
/// frames of those, and look that nothing comes into them from elsewhere.
fn stores_do_not_reach_pages_given_back() -> Outcome {
    let target = Stamped::new()?;
    crew::run(
        "stores_do_not_reach_pages_given_back",
        &[
            ("writer", 2, &|worker: &mut Worker<'_>| {
                while worker.goes_on() {
                    for page in 0..PAGES {
                        for word in 0..16 {
                            target.word(page, 32 * word).store(MARK, Ordering::Relaxed);
                        }
                    }
                }
                Ok(())
            }),
            ("dropper", 1, &|worker: &mut Worker<'_>| {
                while worker.goes_on() {
                    let page = worker.random.below(PAGES as u64) as usize;
                    let with = [map_over, drop_page][worker.random.below(2) as usize];
                    with(target.page(page))?;
                }
                Ok(())
            }),
            ("mapper", 2, &|worker: &mut Worker<'_>| {
                while worker.goes_on() {
                    let fresh = Stamped::new()?;
                    let own = worker.steps() << 8 | worker.number as u64;
                    for expected in [0, own] {
                        for page in 0..PAGES {
                            for word in 0..16 {
                                let found =
                                    fresh.word(page, 32 * word).swap(own, Ordering::Relaxed);
                                expect_eq!(found, expected);
                            }
                        }
                        worker.random.pause();
                    }
                }
                Ok(())
            }),
        ],
    )
}
