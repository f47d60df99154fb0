//! What the first use of a page of memory costs: [`Pages`] are touched, and only that is timed.

use std::io;
use std::time::{Duration, Instant};

use guest_programs::sys;
use guest_programs::sys::Mapping;

use crate::{Context, Outcome};

const PAGE: usize = 4 << 10;
const HUGE_PAGE: usize = 2 << 20;

/// What is touched, and how.
pub(crate) enum Pages {
    /// All pages of new memory, as the kernel provides it by itself.
    New,
    /// The same, where the program has asked for small pages (`MADV_NOHUGEPAGE`).
    NewSmall,
    /// The same, so far from each other that no kernel provides two at a time.
    NewSparse,
    /// All pages that were given back before (`MADV_DONTNEED`), which is timed as well.
    GivenBack,
}

/// Nanoseconds for each page, of as many as a step touches.
pub(crate) fn touch(context: &Context, pages: &Pages) -> Outcome {
    let (len, stride) = match pages {
        Pages::New | Pages::NewSmall | Pages::GivenBack => (16 << 20, PAGE),
        Pages::NewSparse => (128 * HUGE_PAGE, HUGE_PAGE),
    };
    let rate = match pages {
        Pages::New => context.timed_rate(|| Ok(timed_touch(&map(len)?, len, stride)))?,
        Pages::NewSmall | Pages::NewSparse => context.timed_rate(|| {
            let mapping = map(len)?;
            advise(&mapping, len, libc::MADV_NOHUGEPAGE)?;
            Ok(timed_touch(&mapping, len, stride))
        })?,
        Pages::GivenBack => {
            let mapping = map(len)?;
            advise(&mapping, len, libc::MADV_NOHUGEPAGE)?;
            timed_touch(&mapping, len, stride);
            context.timed_rate(|| {
                let start = Instant::now();
                advise(&mapping, len, libc::MADV_DONTNEED)?;
                let (pages, _) = timed_touch(&mapping, len, stride);
                Ok((pages, start.elapsed()))
            })?
        }
    };
    Ok(1e9 / rate)
}

/// Nanoseconds for making `pages` pages read-only and writable again and storing to each.
pub(crate) fn protect(context: &Context, pages: usize) -> Outcome {
    /// Rounds before the clock is read.
    const ROUNDS: u64 = 16;
    let len = pages * PAGE;
    let mapping = map(len)?;
    let rate = context.rate(|| {
        for _ in 0..ROUNDS {
            for protection in [libc::PROT_READ, libc::PROT_READ | libc::PROT_WRITE] {
                sys!(SYS_mprotect, mapping.start, len, protection).map_err(io_error)?;
            }
            timed_touch(&mapping, len, PAGE);
        }
        Ok(ROUNDS)
    })?;
    Ok(1e9 / rate)
}

/// Nanoseconds for mapping four pages, storing to each, and unmapping them.
pub(crate) fn map_and_unmap(context: &Context) -> Outcome {
    const LEN: usize = 4 * PAGE;
    const ROUNDS: u64 = 16;
    let rate = context.rate(|| {
        for _ in 0..ROUNDS {
            timed_touch(&map(LEN)?, LEN, PAGE);
        }
        Ok(ROUNDS)
    })?;
    Ok(1e9 / rate)
}

fn map(len: usize) -> io::Result<Mapping> {
    Mapping::new(len, libc::PROT_READ | libc::PROT_WRITE).map_err(io_error)
}

/// Tells the kernel something about a whole mapping; one without huge pages refuses to be told not
/// to use them.
fn advise(mapping: &Mapping, len: usize, advice: i32) -> io::Result<()> {
    match sys!(SYS_madvise, mapping.start, len, advice) {
        Ok(_) => Ok(()),
        Err(sys::Errno(libc::EINVAL)) if advice == libc::MADV_NOHUGEPAGE => Ok(()),
        Err(error) => Err(io_error(error)),
    }
}

fn io_error(error: sys::Errno) -> io::Error {
    io::Error::from_raw_os_error(error.0)
}

/// Stores to every `stride`th byte: how often, and how long that took.
fn timed_touch(mapping: &Mapping, len: usize, stride: usize) -> (u64, Duration) {
    let start = Instant::now();
    for offset in (0..len).step_by(stride) {
        // SAFETY: in the mapping, to which nobody has a reference.
        unsafe { mapping.at(offset).write_volatile(1) };
    }
    ((len / stride) as u64, start.elapsed())
}
