//! How late a thread that sleeps wakes beside each call about memory whose length a program chooses,
//! and beside a ring that is given as much to do as it takes.

use super::neighbours::is_not_late_beside;
use guest_programs::check::{Check, Outcome};
use guest_programs::ring::{Ring, Sqe};
use guest_programs::sys::{Mapping, open};
use guest_programs::{checks, expect_eq, sys};
use linux_raw_sys::io_uring::IORING_ENTER_GETEVENTS;

pub(crate) const CHECKS: &[Check] = checks![
    a_sleeper_is_not_late_beside_populating,
    a_sleeper_is_not_late_beside_changes_of_access,
    a_sleeper_is_not_late_beside_locking,
    a_sleeper_is_not_late_beside_a_look_at_pages,
    a_sleeper_is_not_late_beside_memory_that_moves,
    a_sleeper_is_not_late_beside_a_heap_that_shrinks,
    a_sleeper_is_not_late_beside_many_reads_of_a_ring,
];

const MEGABYTE: usize = 1 << 20;
/// Bytes of memory that are used: less than half of what the smallest VM of the tests has.
const SIZE: usize = 192 * MEGABYTE;
const RW: i32 = libc::PROT_READ | libc::PROT_WRITE;

fn populate(memory: &Mapping, size: usize) -> Outcome {
    sys!(SYS_madvise, memory.start, size, libc::MADV_POPULATE_WRITE)?;
    Ok(())
}

fn a_sleeper_is_not_late_beside_populating() -> Outcome {
    is_not_late_beside("MAP_POPULATE and munmap", || {
        let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_POPULATE;
        let start = sys!(SYS_mmap, 0, SIZE, RW, flags, -1, 0)?;
        sys!(SYS_munmap, start, SIZE)?;
        Ok(())
    })?;
    is_not_late_beside("MADV_POPULATE_WRITE and MADV_DONTNEED", || {
        let memory = Mapping::new(SIZE, RW)?;
        populate(&memory, SIZE)?;
        sys!(SYS_madvise, memory.start, SIZE, libc::MADV_DONTNEED)?;
        Ok(())
    })?;
    is_not_late_beside("a mapping in place of another", || {
        let memory = Mapping::new(SIZE, RW)?;
        populate(&memory, SIZE)?;
        let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_FIXED;
        let start = sys!(SYS_mmap, memory.start, SIZE, RW, flags, -1, 0)?;
        expect_eq!(start, memory.start.addr());
        Ok(())
    })
}

fn a_sleeper_is_not_late_beside_changes_of_access() -> Outcome {
    let memory = Mapping::new(SIZE, RW)?;
    populate(&memory, SIZE)?;
    is_not_late_beside("mprotect", || {
        sys!(SYS_mprotect, memory.start, SIZE, libc::PROT_READ)?;
        sys!(SYS_mprotect, memory.start, SIZE, RW)?;
        Ok(())
    })
}

fn a_sleeper_is_not_late_beside_locking() -> Outcome {
    is_not_late_beside("mlock and munlock", || {
        let memory = Mapping::new(SIZE, RW)?;
        sys!(SYS_mlock, memory.start, SIZE)?;
        sys!(SYS_munlock, memory.start, SIZE)?;
        Ok(())
    })
}

fn a_sleeper_is_not_late_beside_a_look_at_pages() -> Outcome {
    const PAGE: usize = 4096;
    const RESERVED: usize = 64 << 30;
    let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_NORESERVE;
    let start = sys!(SYS_mmap, 0, RESERVED, libc::PROT_READ, flags, -1, 0)?;
    let mut pages = vec![9_u8; RESERVED / PAGE];
    let outcome = is_not_late_beside("mincore", || {
        sys!(SYS_mincore, start, RESERVED, pages.as_mut_ptr())?;
        Ok(())
    });
    sys!(SYS_munmap, start, RESERVED)?;
    outcome?;
    expect_eq!(pages.iter().filter(|page| **page & 1 != 0).count(), 0);
    Ok(())
}

fn a_sleeper_is_not_late_beside_memory_that_moves() -> Outcome {
    let memory = Mapping::new(SIZE, RW)?;
    populate(&memory, SIZE)?;
    let mut at = memory.start.addr();
    is_not_late_beside("mremap", || {
        let room = Mapping::new(SIZE, libc::PROT_NONE)?;
        let flags = libc::MREMAP_MAYMOVE | libc::MREMAP_FIXED;
        at = sys!(SYS_mremap, at, SIZE, SIZE, flags, room.start)?;
        std::mem::forget(room);
        Ok(())
    })?;
    sys!(SYS_munmap, at, SIZE)?;
    Ok(())
}

fn a_sleeper_is_not_late_beside_a_heap_that_shrinks() -> Outcome {
    let end = sys!(SYS_brk, 0)?;
    is_not_late_beside("brk", || {
        // Others may have the heap grow meanwhile only where this program allocates: it does not.
        expect_eq!(sys!(SYS_brk, end + SIZE)?, end + SIZE);
        sys!(
            SYS_madvise,
            end.next_multiple_of(4096),
            SIZE - 4096,
            libc::MADV_POPULATE_WRITE
        )?;
        expect_eq!(sys!(SYS_brk, end)?, end);
        Ok(())
    })
}

fn a_sleeper_is_not_late_beside_many_reads_of_a_ring() -> Outcome {
    const READS: u32 = 1024;
    let ring = Ring::new(READS)?;
    let random = open(c"/dev/urandom", libc::O_RDONLY)?;
    let mut buffer = vec![0; 1 << 16];
    is_not_late_beside("1024 reads that are submitted together", || {
        for _ in 0..READS {
            ring.push(Sqe::read(&random, &mut buffer, 0));
        }
        expect_eq!(
            ring.enter(READS, READS, IORING_ENTER_GETEVENTS)?,
            READS as usize
        );
        for cqe in ring.take(READS as usize)? {
            expect_eq!(cqe.res, 1 << 16);
        }
        Ok(())
    })
}
