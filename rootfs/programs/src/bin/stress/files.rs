//! Files that several threads have mapped: private copies made while others read, and shared pages
//! by several addresses.

use crate::crew::{self, Worker};
use crate::remapping::{PAGE, PAGES, Stamped};
use guest_programs::check::{Check, Failure, Outcome};
use guest_programs::sys::{Mapping, create};
use guest_programs::{checks, expect_eq, sys};
use libc::{MAP_FIXED, MAP_PRIVATE, PROT_READ, PROT_WRITE};
use std::sync::atomic::{AtomicU64, Ordering};

pub(crate) const CHECKS: &[Check] = checks![private_copies_are_seen_by_all, shared_pages_are_one];

const WRITERS: usize = 2;
const COUNTERS: usize = 3;

pub(crate) fn private_copies_are_seen_by_all() -> Outcome {
    let file = create(c"zeros", &[0; PAGE])?;
    let stamped = Stamped::new()?;
    let map_file = |at| {
        let (rights, flags) = (PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_FIXED);
        sys!(SYS_mmap, at, PAGE, rights, flags, &file, 0)
    };
    crew::run(
        "private_copies_are_seen_by_all",
        &[
            ("replacer", 1, &|worker: &mut Worker<'_>| {
                while worker.goes_on() {
                    let page = worker.random.below(PAGES as u64) as usize;
                    stamped.replace(page, map_file)?;
                    if worker.random.once_in(4) {
                        worker.random.pause();
                    }
                }
                Ok(())
            }),
            ("reader", 2, &|worker: &mut Worker<'_>| {
                while worker.goes_on() {
                    for page in 0..PAGES {
                        stamped.verify(page)?;
                    }
                }
                Ok(())
            }),
            // These make the private copies too, and must not lose each other's words.
            ("writer", WRITERS, &|worker: &mut Worker<'_>| {
                while worker.goes_on() {
                    let page = worker.random.below(PAGES as u64) as usize;
                    let word = stamped.word(page, 64 + worker.number);
                    let value = worker.steps();
                    let begun = stamped.begun[page].load(Ordering::SeqCst);
                    let done = stamped.done[page].load(Ordering::SeqCst);
                    word.store(value, Ordering::SeqCst);
                    worker.random.pause();
                    let found = word.load(Ordering::SeqCst);
                    let is_same = stamped.begun[page].load(Ordering::SeqCst) == begun;
                    if is_same && done == begun && found != value {
                        let why = format!("page {page} holds {found}, not {value}");
                        return Err(Failure::new(why));
                    }
                }
                Ok(())
            }),
        ],
    )
}

/// Each thread counts in the same words, by a view of its own that it makes anew now and then.
fn shared_pages_are_one() -> Outcome {
    let file = create(c"counters", &[0; PAGES * PAGE])?;
    let added = [const { AtomicU64::new(0) }; PAGES];
    crew::run(
        "shared_pages_are_one",
        &[("counter", COUNTERS, &|worker: &mut Worker<'_>| {
            while worker.goes_on() {
                let view = Mapping::shared(&file, PAGES * PAGE, 0)?;
                let word = |page: usize| {
                    // SAFETY: inside the view, which lives longer; all accesses are atomic.
                    unsafe { AtomicU64::from_ptr(view.at(page * PAGE).cast()) }
                };
                for _ in 0..worker.random.below(200) {
                    let page = worker.random.below(PAGES as u64) as usize;
                    let before = word(page).fetch_add(1, Ordering::SeqCst);
                    added[page].fetch_add(1, Ordering::SeqCst);
                    if worker.random.once_in(8) {
                        let mut found = 0_u64;
                        let at = (&raw mut found).cast::<u8>();
                        let read = sys!(SYS_pread64, &file, at, 8, page * PAGE);
                        expect_eq!((read, found > before), (Ok(8), true));
                    }
                }
            }
            Ok(())
        })],
    )?;
    for (page, added) in added.iter().enumerate() {
        let mut found = 0_u64;
        let at = (&raw mut found).cast::<u8>();
        expect_eq!(sys!(SYS_pread64, &file, at, 8, page * PAGE), Ok(8));
        expect_eq!(found, added.load(Ordering::SeqCst));
    }
    Ok(())
}
