//! A block device, if `--disk` names one; its contents are overwritten.

use std::os::fd::{AsRawFd, OwnedFd};

use guest_programs::aligned::AlignedBuffer;
use guest_programs::check::{Check, Context, Failure, Outcome};
use guest_programs::sys::{SysResult, open};
use guest_programs::{checks, expect, expect_eq, sys};
use libc::{O_DIRECT, O_RDONLY, O_RDWR};
use linux_raw_sys::io_uring::{
    IORING_ASYNC_CANCEL_ALL, IORING_ASYNC_CANCEL_ANY, IORING_SETUP_CQSIZE,
    IORING_SETUP_DEFER_TASKRUN, IORING_SETUP_SINGLE_ISSUER,
};

use crate::fixed::{FIXED_FILE, register_buffers, register_files};
use guest_programs::ring::{Ring, Sqe, gives, milliseconds, params, refuses, vector};

pub(crate) const CHECKS: &[Check] = checks![; disk:
    disk_reads_what_was_written,
    disk_many_in_flight,
    disk_many_in_flight_deferred,
    disk_large_transfers,
    disk_vectors,
    disk_vectors_are_copied,
    disk_fixed_buffers,
    disk_unaligned,
    disk_ends,
    disk_position,
    disk_buffered,
    disk_fsync,
    disk_linked,
    disk_drained,
    disk_access_mode,
    disk_bad_addresses,
    disk_overflow,
    disk_counted_by_a_timeout,
    disk_cancel_leaves_one_completion_each,
    disk_cancel_by_file,
    disk_ring_closed_in_flight,
    disk_memory_unmapped_in_flight,
];

const PAGE: usize = 4096;
/// Pages that the checks of many requests use.
const PAGES: usize = 64;

fn direct(context: &Context) -> SysResult<OwnedFd> {
    open(&context.disk, O_RDWR | O_DIRECT)
}

fn size(fd: &OwnedFd) -> SysResult<u64> {
    sys!(SYS_lseek, fd, 0, libc::SEEK_END).map(|size| size as u64)
}

/// What the checks put on page `page` of the disk in round `round`.
fn fill(buffer: &mut [u8], page: usize, round: u8) {
    for (index, byte) in buffer.iter_mut().enumerate() {
        *byte = (index % 251) as u8 ^ (page as u8).wrapping_mul(31) ^ round;
    }
}

fn holds(buffer: &[u8], page: usize, round: u8) -> bool {
    let mut wanted = vec![0; buffer.len()];
    fill(&mut wanted, page, round);
    buffer == wanted
}

/// Fills the first [`PAGES`] pages of the disk.
fn prepare(fd: &OwnedFd, round: u8) -> Result<(), Failure> {
    let mut buffer = AlignedBuffer::new(PAGES * PAGE)?;
    for (page, bytes) in buffer.chunks_exact_mut(PAGE).enumerate() {
        fill(bytes, page, round);
    }
    let len = buffer.len();
    expect_eq!(sys!(SYS_pwrite64, fd, buffer.as_ptr(), len, 0), Ok(len));
    Ok(())
}

fn disk_reads_what_was_written(context: &Context) -> Outcome {
    let ring = Ring::new(4)?;
    let fd = direct(context)?;
    let mut buffer = AlignedBuffer::new(PAGE)?;
    fill(&mut buffer, 3, 1);
    gives!(ring, PAGE, Sqe::write(&fd, &buffer, 8192));
    buffer.fill(0);
    gives!(ring, PAGE, Sqe::read(&fd, &mut buffer, 8192));
    expect!(holds(&buffer, 3, 1));
    // One sector of it.
    gives!(ring, 512, Sqe::read(&fd, &mut buffer[..512], 8192 + 512));
    let mut whole = vec![0; PAGE];
    fill(&mut whole, 3, 1);
    expect!(buffer[..512] == whole[512..1024]);
    Ok(())
}

fn many_in_flight(context: &Context, flags: u32) -> Outcome {
    let ring = Ring::flagged(PAGES as u32, flags)?;
    let fd = direct(context)?;
    let mut buffer = AlignedBuffer::new(PAGES * PAGE)?;
    for round in 0..4 {
        for (page, bytes) in buffer.chunks_exact_mut(PAGE).enumerate() {
            fill(bytes, page, round);
        }
        let writes: Vec<_> = buffer
            .chunks_exact(PAGE)
            .enumerate()
            .map(|(page, bytes)| Sqe::write(&fd, bytes, (page * PAGE) as u64))
            .collect();
        let done = ring.results(&writes, PAGES)?;
        expect!(done.iter().all(|result| *result == Some(PAGE as i32)));
        buffer.fill(0);
        // Backwards, so that place in memory and place on the disk differ.
        let reads: Vec<_> = buffer
            .chunks_exact_mut(PAGE)
            .enumerate()
            .map(|(index, bytes)| Sqe::read(&fd, bytes, ((PAGES - 1 - index) * PAGE) as u64))
            .collect();
        let done = ring.results(&reads, PAGES)?;
        expect!(done.iter().all(|result| *result == Some(PAGE as i32)));
        let mut pages = buffer.chunks_exact(PAGE).enumerate();
        expect!(pages.all(|(index, bytes)| holds(bytes, PAGES - 1 - index, round)));
    }
    Ok(())
}

fn disk_many_in_flight(context: &Context) -> Outcome {
    many_in_flight(context, 0)
}

fn disk_many_in_flight_deferred(context: &Context) -> Outcome {
    many_in_flight(
        context,
        IORING_SETUP_SINGLE_ISSUER | IORING_SETUP_DEFER_TASKRUN,
    )
}

fn disk_large_transfers(context: &Context) -> Outcome {
    let ring = Ring::new(8)?;
    let fd = direct(context)?;
    const LARGE: usize = 2 << 20;
    let mut buffer = AlignedBuffer::new(4 * LARGE)?;
    for (index, bytes) in buffer.chunks_exact_mut(LARGE).enumerate() {
        fill(bytes, index, 9);
    }
    let writes: Vec<_> = buffer
        .chunks_exact(LARGE)
        .enumerate()
        .map(|(index, bytes)| Sqe::write(&fd, bytes, (index * LARGE) as u64))
        .collect();
    expect_eq!(ring.results(&writes, 4)?, [Some(LARGE as i32); 4]);
    buffer.fill(0);
    gives!(ring, 4 * LARGE, Sqe::read(&fd, &mut buffer, 0));
    let mut parts = buffer.chunks_exact(LARGE).enumerate();
    expect!(parts.all(|(index, bytes)| holds(bytes, index, 9)));
    Ok(())
}

fn disk_vectors(context: &Context) -> Outcome {
    let ring = Ring::new(4)?;
    let fd = direct(context)?;
    prepare(&fd, 2)?;
    let mut buffer = AlignedBuffer::new(4 * PAGE)?;
    let (first, rest) = buffer.split_at_mut(PAGE);
    // Out of order in memory: page 0 of the disk goes behind pages 1 and 2.
    let vectors = [
        vector(&mut rest[PAGE..2 * PAGE]),
        vector(first),
        vector(&mut rest[..PAGE]),
    ];
    gives!(ring, 3 * PAGE, Sqe::readv(&fd, &vectors, 0));
    let page = |index: usize| &buffer[index * PAGE..][..PAGE];
    expect!(holds(page(2), 0, 2) && holds(page(0), 1, 2) && holds(page(1), 2, 2));
    gives!(ring, 3 * PAGE, Sqe::writev(&fd, &vectors, 64 << 12));
    let mut read = AlignedBuffer::new(3 * PAGE)?;
    gives!(ring, 3 * PAGE, Sqe::read(&fd, &mut read, 64 << 12));
    expect!((0..3).all(|index| holds(&read[index * PAGE..][..PAGE], index, 2)));
    Ok(())
}

fn disk_vectors_are_copied(context: &Context) -> Outcome {
    let ring = Ring::new(4)?;
    let fd = direct(context)?;
    prepare(&fd, 3)?;
    let mut buffer = AlignedBuffer::new(PAGE)?;
    let mut vectors = [vector(&mut buffer)];
    ring.push(Sqe::readv(&fd, &vectors, 0));
    ring.submit()?;
    vectors[0].iov_base = std::ptr::null_mut();
    expect_eq!((ring.next()?.res, vectors[0].iov_len), (PAGE as i32, PAGE));
    expect!(holds(&buffer, 0, 3));
    Ok(())
}

fn disk_fixed_buffers(context: &Context) -> Outcome {
    let ring = Ring::new(PAGES as u32)?;
    let fd = direct(context)?;
    prepare(&fd, 4)?;
    let mut buffer = AlignedBuffer::new(PAGES * PAGE)?;
    register_buffers(&ring, &[vector(&mut buffer)])?;
    register_files(&ring, &[fd.as_raw_fd()])?;
    let reads: Vec<_> = buffer
        .chunks_exact_mut(PAGE)
        .enumerate()
        .map(|(page, bytes)| Sqe::read_fixed(&0, bytes, (page * PAGE) as u64, 0).flags(FIXED_FILE))
        .collect();
    let done = ring.results(&reads, PAGES)?;
    expect!(done.iter().all(|result| *result == Some(PAGE as i32)));
    let mut pages = buffer.chunks_exact(PAGE).enumerate();
    expect!(pages.all(|(page, bytes)| holds(bytes, page, 4)));
    fill(&mut buffer[..PAGE], 5, 5);
    let write = Sqe::read_fixed(&0, &mut buffer[..PAGE], 0, 0).into_write();
    gives!(ring, PAGE, write.flags(FIXED_FILE));
    gives!(ring, PAGE, Sqe::read(&fd, &mut buffer[PAGE..2 * PAGE], 0));
    expect!(holds(&buffer[PAGE..2 * PAGE], 5, 5));
    Ok(())
}

fn disk_unaligned(context: &Context) -> Outcome {
    let ring = Ring::new(4)?;
    let fd = direct(context)?;
    let mut buffer = AlignedBuffer::new(PAGE)?;
    for (len, offset) in [(511, 0), (513, 0), (512, 1), (512, 511), (1, 0)] {
        refuses!(ring, EINVAL, Sqe::read(&fd, &mut buffer[..len], offset));
        refuses!(ring, EINVAL, Sqe::write(&fd, &buffer[..len], offset));
    }
    gives!(ring, 0, Sqe::read(&fd, &mut buffer[..0], 0));
    gives!(ring, 512, Sqe::read(&fd, &mut buffer[512..1024], 512));
    Ok(())
}

fn disk_ends(context: &Context) -> Outcome {
    let ring = Ring::new(4)?;
    let fd = direct(context)?;
    let end = size(&fd)?;
    let mut buffer = AlignedBuffer::new(2 * PAGE)?;
    gives!(ring, 0, Sqe::read(&fd, &mut buffer, end));
    gives!(ring, 0, Sqe::read(&fd, &mut buffer, end + 4096));
    gives!(ring, PAGE, Sqe::read(&fd, &mut buffer, end - PAGE as u64));
    refuses!(ring, ENOSPC, Sqe::write(&fd, &buffer, end));
    gives!(ring, 512, Sqe::write(&fd, &buffer, end - 512));
    Ok(())
}

fn disk_position(context: &Context) -> Outcome {
    let ring = Ring::new(4)?;
    let fd = direct(context)?;
    prepare(&fd, 6)?;
    let mut buffer = AlignedBuffer::new(PAGE)?;
    sys!(SYS_lseek, &fd, 3 * PAGE, libc::SEEK_SET)?;
    gives!(ring, PAGE, Sqe::read(&fd, &mut buffer, u64::MAX));
    expect!(holds(&buffer, 3, 6));
    Ok(())
}

fn disk_buffered(context: &Context) -> Outcome {
    let ring = Ring::new(4)?;
    let fd = open(&context.disk, O_RDWR)?;
    let mut written = vec![0; 10_001];
    fill(&mut written, 1, 7);
    gives!(ring, 10_001, Sqe::write(&fd, &written, 777));
    let mut read = vec![0; 10_001];
    gives!(ring, 10_001, Sqe::read(&fd, &mut read, 777));
    expect!(read == written);
    gives!(ring, 0, Sqe::fsync(&fd));
    let mut buffer = AlignedBuffer::new(PAGE)?;
    gives!(ring, PAGE, Sqe::read(&direct(context)?, &mut buffer, 4096));
    expect!(buffer[..] == written[4096 - 777..][..PAGE]);
    Ok(())
}

fn disk_fsync(context: &Context) -> Outcome {
    let ring = Ring::new(4)?;
    let fd = direct(context)?;
    gives!(ring, 0, Sqe::fsync(&fd));
    gives!(ring, 0, Sqe::fsync(&fd).op_flags(1));
    Ok(())
}

fn disk_linked(context: &Context) -> Outcome {
    let ring = Ring::new(8)?;
    let fd = direct(context)?;
    let mut written = AlignedBuffer::new(PAGE)?;
    let mut read = AlignedBuffer::new(PAGE)?;
    for round in 0..50 {
        fill(&mut written, 1, round);
        let chain = [
            Sqe::write(&fd, &written, 0).flags(crate::links::LINK),
            Sqe::fsync(&fd).flags(crate::links::LINK),
            Sqe::read(&fd, &mut read, 0),
        ];
        let page = Some(PAGE as i32);
        expect_eq!(ring.results(&chain, 3)?, [page, Some(0), page]);
        expect!(holds(&read, 1, round));
    }
    // A read that fails, and one beyond the end, stop what follows.
    let unaligned = Sqe::read(&fd, &mut read[..100], 0).flags(crate::links::LINK);
    let results = ring.results(&[unaligned, Sqe::nop()], 2)?;
    expect_eq!(results, [Some(-libc::EINVAL), Some(-libc::ECANCELED)]);
    let beyond = Sqe::read(&fd, &mut read, size(&fd)?).flags(crate::links::LINK);
    let results = ring.results(&[beyond, Sqe::nop()], 2)?;
    expect_eq!(results, [Some(0), Some(-libc::ECANCELED)]);
    Ok(())
}

fn disk_drained(context: &Context) -> Outcome {
    let ring = Ring::new(16)?;
    let fd = direct(context)?;
    let mut buffer = AlignedBuffer::new(8 * PAGE)?;
    let mut sqes: Vec<_> = buffer
        .chunks_exact_mut(PAGE)
        .enumerate()
        .map(|(page, bytes)| Sqe::read(&fd, bytes, (page * PAGE) as u64))
        .collect();
    sqes.push(Sqe::nop().flags(1 << 1));
    let order = ring.order(&sqes)?;
    expect_eq!(order.last(), Some(&8));
    Ok(())
}

fn disk_access_mode(context: &Context) -> Outcome {
    let ring = Ring::new(4)?;
    let fd = open(&context.disk, O_RDONLY | O_DIRECT)?;
    let buffer = AlignedBuffer::new(PAGE)?;
    refuses!(ring, EBADF, Sqe::write(&fd, &buffer, 0));
    Ok(())
}

fn disk_bad_addresses(context: &Context) -> Outcome {
    let ring = Ring::new(4)?;
    let fd = direct(context)?;
    for addr in [4096, 0xffff_8880_0000_1000] {
        let at = |sqe| Sqe {
            addr,
            len: 4096,
            ..sqe
        };
        refuses!(ring, EFAULT, at(Sqe::read(&fd, &mut [], 0)));
        refuses!(ring, EFAULT, at(Sqe::write(&fd, &[], 0)));
    }
    Ok(())
}

fn disk_overflow(context: &Context) -> Outcome {
    let mut params = params(IORING_SETUP_CQSIZE);
    params.cq_entries = 4;
    let ring = Ring::with(4, params)?;
    let fd = direct(context)?;
    prepare(&fd, 8)?;
    let mut buffer = AlignedBuffer::new(PAGES * PAGE)?;
    for (page, bytes) in buffer.chunks_exact_mut(PAGE).enumerate() {
        ring.push(Sqe::read(&fd, bytes, (page * PAGE) as u64).data(page as u64));
        expect_eq!(ring.submit(), Ok(1));
    }
    let mut seen: Vec<_> = ring
        .take(PAGES)?
        .iter()
        .map(|cqe| (cqe.user_data, cqe.res))
        .collect();
    seen.sort_unstable();
    let mut all = seen.iter().enumerate();
    expect!(all.all(|(page, seen)| *seen == (page as u64, PAGE as i32)));
    let mut pages = buffer.chunks_exact(PAGE).enumerate();
    expect!(pages.all(|(page, bytes)| holds(bytes, page, 8)));
    ring.nothing_left()
}

fn disk_counted_by_a_timeout(context: &Context) -> Outcome {
    let ring = Ring::new(8)?;
    let fd = direct(context)?;
    let mut buffer = AlignedBuffer::new(2 * PAGE)?;
    let (first, second) = buffer.split_at_mut(PAGE);
    let time = milliseconds(10_000);
    let sqes = [
        Sqe::timeout(&time, 2),
        Sqe::read(&fd, first, 0),
        Sqe::read(&fd, second, 0),
    ];
    let page = Some(PAGE as i32);
    expect_eq!(ring.results(&sqes, 3)?, [Some(0), page, page]);
    Ok(())
}

/// Reads [`PAGES`] pages and sends `cancel` after them; every read completes once, either way.
fn cancel_in_flight(context: &Context, cancel: impl Fn(&OwnedFd) -> Sqe) -> Outcome {
    let ring = Ring::new(2 * PAGES as u32)?;
    let fd = direct(context)?;
    prepare(&fd, 10)?;
    let mut buffer = AlignedBuffer::new(PAGES * PAGE)?;
    for _ in 0..10 {
        buffer.fill(0);
        let mut sqes: Vec<_> = buffer
            .chunks_exact_mut(PAGE)
            .enumerate()
            .map(|(page, bytes)| Sqe::read(&fd, bytes, (page * PAGE) as u64))
            .collect();
        sqes.push(cancel(&fd));
        let results = ring.results(&sqes, PAGES + 1)?;
        for (page, bytes) in buffer.chunks_exact(PAGE).enumerate() {
            let result = results[page];
            expect!(
                result == Some(PAGE as i32) && holds(bytes, page, 10)
                    || result == Some(-libc::ECANCELED)
                    || result == Some(-libc::EINTR)
            );
        }
        let allowed = [-libc::ENOENT, -libc::EALREADY];
        expect!(results[PAGES].is_some_and(|result| result >= 0 || allowed.contains(&result)));
    }
    Ok(())
}

fn disk_cancel_leaves_one_completion_each(context: &Context) -> Outcome {
    let any = IORING_ASYNC_CANCEL_ANY | IORING_ASYNC_CANCEL_ALL;
    cancel_in_flight(context, |_| Sqe::cancel(0, any))
}

fn disk_cancel_by_file(context: &Context) -> Outcome {
    let flags = linux_raw_sys::io_uring::IORING_ASYNC_CANCEL_FD | IORING_ASYNC_CANCEL_ALL;
    cancel_in_flight(context, |fd| Sqe::cancel(0, flags).fd(fd.as_raw_fd()))
}

fn disk_ring_closed_in_flight(context: &Context) -> Outcome {
    let fd = direct(context)?;
    prepare(&fd, 11)?;
    let mut buffer = AlignedBuffer::new(PAGES * PAGE)?;
    for _ in 0..10 {
        let ring = Ring::new(PAGES as u32)?;
        for (page, bytes) in buffer.chunks_exact_mut(PAGE).enumerate() {
            ring.push(Sqe::read(&fd, bytes, (page * PAGE) as u64));
        }
        ring.submit()?;
    }
    // The disk is as usable as before.
    let ring = Ring::new(4)?;
    gives!(ring, PAGE, Sqe::read(&fd, &mut buffer[..PAGE], PAGE as u64));
    expect!(holds(&buffer[..PAGE], 1, 11));
    Ok(())
}

fn disk_memory_unmapped_in_flight(context: &Context) -> Outcome {
    let fd = direct(context)?;
    prepare(&fd, 12)?;
    let ring = Ring::new(PAGES as u32)?;
    for _ in 0..10 {
        let mut buffer = AlignedBuffer::new(PAGES * PAGE)?;
        for (page, bytes) in buffer.chunks_exact_mut(PAGE).enumerate() {
            ring.push(Sqe::read(&fd, bytes, (page * PAGE) as u64));
        }
        ring.submit()?;
        drop(buffer);
        // New memory that may reuse the pages must never see the disk's data.
        let fresh = AlignedBuffer::new(PAGES * PAGE)?;
        let clean = fresh.iter().all(|byte| *byte == 0);
        let done = ring.take(PAGES)?;
        expect!(clean && fresh.iter().all(|byte| *byte == 0));
        expect!(done.iter().all(|cqe| cqe.res == PAGE as i32));
    }
    Ok(())
}
