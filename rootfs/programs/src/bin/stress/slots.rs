//! Pages of one range of addresses that threads take in turn, each under a lock: whoever has a page
//! finds there what the last one left, whichever CPU that was on, and leaves something else: new
//! contents, other rights, nothing at all.

use crate::crew::{self, Worker};
use crate::plan::Random;
use crate::remapping::{PAGE, drop_page, map_over};
use guest_programs::check::{Check, Failure, Outcome};
use guest_programs::sys::{Errno, SysResult};
use guest_programs::{checks, expect, expect_eq, sys};
use libc::{
    EAGAIN, EFAULT, MAP_ANONYMOUS, MAP_FIXED_NOREPLACE, MAP_PRIVATE, MREMAP_FIXED, MREMAP_MAYMOVE,
    PROT_NONE, PROT_READ, PROT_WRITE,
};
use std::io::{PipeReader, PipeWriter};
use std::os::fd::AsRawFd;
use std::sync::{Mutex, MutexGuard};

pub(crate) const CHECKS: &[Check] = checks![pages_are_as_they_were_left];

/// Where the range is: far from where mappings are put that name no place, for what is unmapped
/// here must stay free.
const HOME: usize = 0x1000_0000_0000;
const SLOTS: usize = 12;
const THREADS: usize = 4;

/// What a page is: what the program may do with it, and what is in it.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Slot {
    Nothing,
    Mapped { protection: i32, stamp: u64 },
}

/// The addresses, and what is there.
struct Range {
    start: *mut u8,
    slots: [Mutex<Slot>; SLOTS],
}

// SAFETY: a page is used by the thread that has its lock.
unsafe impl Sync for Range {}

impl Drop for Range {
    fn drop(&mut self) {
        // What is unmapped already is no error.
        let _ = sys!(SYS_munmap, self.start, SLOTS * PAGE);
    }
}

impl Range {
    fn new() -> SysResult<Self> {
        let flags = MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED_NOREPLACE;
        let protection = PROT_READ | PROT_WRITE;
        let start = sys!(SYS_mmap, HOME, SLOTS * PAGE, protection, flags, -1, 0)?;
        let empty = || {
            Mutex::new(Slot::Mapped {
                protection,
                stamp: 0,
            })
        };
        Ok(Self {
            start: start as *mut u8,
            slots: std::array::from_fn(|_| empty()),
        })
    }

    fn at(&self, slot: usize) -> *mut u8 {
        self.start.wrapping_add(slot * PAGE)
    }

    /// The lock of a slot; it is not waited for, so that two can be held in any order.
    fn take(&self, slot: usize) -> Option<MutexGuard<'_, Slot>> {
        self.slots[slot].try_lock().ok()
    }

    /// Looks at a page by the CPU's own accesses, where those are allowed, and by system calls.
    fn verify(&self, slot: usize, is: Slot, pipe: &Pipe) -> Outcome {
        let at = self.at(slot);
        match is {
            Slot::Mapped { protection, stamp } if protection & PROT_READ != 0 => {
                // SAFETY: the page is there to be read, and its lock is held.
                let found = unsafe { at.cast::<u64>().read_volatile() };
                expect_eq!(found, stamp);
                // SAFETY: as above.
                let last = unsafe { at.add(PAGE - 8).cast::<u64>().read_volatile() };
                expect_eq!(last, stamp);
                expect_eq!(pipe.write_from(at), Ok(8));
                let mut copy = [0; 8];
                expect_eq!(pipe.read_to(copy.as_mut_ptr()), Ok(8));
                expect_eq!(u64::from_ne_bytes(copy), stamp);
                if protection & PROT_WRITE == 0 {
                    expect_eq!(pipe.refill(), Ok(8));
                    expect_eq!(pipe.read_to(at), Err(Errno(EFAULT)));
                    pipe.drain();
                }
            }
            Slot::Mapped { .. } | Slot::Nothing => {
                expect_eq!(pipe.write_from(at), Err(Errno(EFAULT)));
            }
        }
        Ok(())
    }

    /// Changes a page in a way that chance chooses.
    fn change(&self, slot: usize, is: Slot, stamp: u64, random: &mut Random) -> SysResult<Slot> {
        let at = self.at(slot);
        let both = PROT_READ | PROT_WRITE;
        let fill = |stamp| {
            // SAFETY: the page is mapped to be written, and its lock is held.
            unsafe {
                at.cast::<u64>().write_volatile(stamp);
                at.add(PAGE - 8).cast::<u64>().write_volatile(stamp);
            }
            let protection = both;
            Slot::Mapped { protection, stamp }
        };
        let protect = |protection| sys!(SYS_mprotect, at, PAGE, protection);
        Ok(match (random.below(8), is) {
            (0, _) => {
                sys!(SYS_munmap, at, PAGE)?;
                Slot::Nothing
            }
            (1, _) | (_, Slot::Nothing) => {
                map_over(at)?;
                fill(stamp)
            }
            (2, Slot::Mapped { protection, .. }) => {
                drop_page(at)?;
                let stamp = 0;
                Slot::Mapped { protection, stamp }
            }
            (3 | 4, Slot::Mapped { stamp, .. }) => {
                let protection = [PROT_READ, PROT_NONE, both][random.below(3) as usize];
                protect(protection)?;
                Slot::Mapped { protection, stamp }
            }
            (_, Slot::Mapped { protection, .. }) => {
                if protection != both {
                    protect(both)?;
                }
                fill(stamp)
            }
        })
    }
}

/// A pipe that does not block, as a way for system calls to read and write memory.
struct Pipe {
    reader: PipeReader,
    writer: PipeWriter,
}

impl Pipe {
    fn new() -> Result<Self, Failure> {
        let (reader, writer) = std::io::pipe()?;
        let pipe = Self { reader, writer };
        for fd in [pipe.reader.as_raw_fd(), pipe.writer.as_raw_fd()] {
            sys!(SYS_fcntl, fd, libc::F_SETFL, libc::O_NONBLOCK)?;
        }
        Ok(pipe)
    }

    fn write_from(&self, at: *const u8) -> SysResult {
        sys!(SYS_write, self.writer.as_raw_fd(), at, 8)
    }

    fn read_to(&self, at: *mut u8) -> SysResult {
        sys!(SYS_read, self.reader.as_raw_fd(), at, 8)
    }

    /// Puts eight bytes into it.
    fn refill(&self) -> SysResult {
        self.write_from([0xee_u8; 8].as_ptr())
    }

    /// Empties it; a read that failed may have taken what it was to copy, or not.
    fn drain(&self) {
        let mut rest = [0; 8];
        while self.read_to(rest.as_mut_ptr()).is_ok() {}
    }
}

pub(crate) fn pages_are_as_they_were_left() -> Outcome {
    let range = Range::new()?;
    crew::run(
        "pages_are_as_they_were_left",
        &[("user", THREADS, &|worker: &mut Worker<'_>| {
            let pipe = Pipe::new()?;
            while worker.goes_on() {
                let slot = worker.random.below(SLOTS as u64) as usize;
                let Some(mut is) = range.take(slot) else {
                    continue;
                };
                range.verify(slot, *is, &pipe)?;
                let stamp = (worker.steps() << 8) | (worker.number as u64 + 1);
                let other = worker.random.below(SLOTS as u64) as usize;
                if worker.random.once_in(6)
                    && matches!(*is, Slot::Mapped { .. })
                    && let Some(mut there) = range.take(other)
                {
                    // The page moves, and takes the place of the other.
                    let flags = MREMAP_MAYMOVE | MREMAP_FIXED;
                    let (from, to) = (range.at(slot), range.at(other));
                    let moved = sys!(SYS_mremap, from, PAGE, PAGE, flags, to)?;
                    expect!(moved == to.addr());
                    *there = std::mem::replace(&mut *is, Slot::Nothing);
                    range.verify(other, *there, &pipe)?;
                } else {
                    *is = range.change(slot, *is, stamp, &mut worker.random)?;
                }
                range.verify(slot, *is, &pipe)?;
            }
            expect_eq!(pipe.read_to([0; 8].as_mut_ptr()), Err(Errno(EAGAIN)));
            Ok(())
        })],
    )
}
