//! `io_uring_register` beyond tables: eventfds, restrictions, workers, ring descriptors, clones, memory
//! regions, clocks, sizes, synchronous cancellation, QUERY.

use std::os::fd::{AsRawFd, OwnedFd};

use guest_programs::aligned::AlignedBuffer;
use guest_programs::check::{Check, Outcome};
use guest_programs::ring::{Ring, Sqe, gives, milliseconds, params, refuses, register, vector};
use guest_programs::sys::{Errno, Mapping, SysResult, create, owned};
use guest_programs::{checks, expect, expect_eq, sys};
use linux_raw_sys::io_uring::io_uring_op::*;
use linux_raw_sys::io_uring::io_uring_register_op::*;
use linux_raw_sys::io_uring::*;

use crate::fixed::{FIXED_FILE, register_buffers};

pub(crate) const CHECKS: &[Check] = checks![
    event_counts_completions,
    event_is_not_counted,
    event_async,
    event_errors,
    restrictions_of_requests,
    restrictions_of_registrations,
    restrictions_errors,
    workers_are_told,
    workers_errors,
    rings_by_index,
    rings_by_index_errors,
    clones_of_buffers,
    clones_of_buffers_errors,
    clocks,
    waits_in_a_region,
    regions_errors,
    sizes_change,
    sizes_errors,
    cancel_and_wait,
    cancel_and_wait_for_futexes,
    cancel_and_wait_errors,
    query_tells,
    query_errors,
];

const EINVAL: SysResult = Err(Errno(libc::EINVAL));
const REGISTER_QUERY: u32 = 35;

fn event() -> SysResult<OwnedFd> {
    sys!(SYS_eventfd2, 0, libc::EFD_NONBLOCK).map(owned)
}

/// What the eventfd has counted.
fn counted(fd: &OwnedFd) -> SysResult<u64> {
    let mut count = 0_u64;
    sys!(SYS_read, fd, &raw mut count, 8)?;
    Ok(count)
}

fn register_event(ring: &Ring, operation: io_uring_register_op, fd: i32) -> SysResult {
    register(&ring.fd, operation as u32, &raw const fd, 1)
}

fn plain(ring: &Ring, operation: io_uring_register_op, count: u32) -> SysResult {
    register(&ring.fd, operation as u32, std::ptr::null::<u8>(), count)
}

fn event_counts_completions() -> Outcome {
    let ring = Ring::new(8)?;
    let event = event()?;
    let none = Err(Errno(libc::EAGAIN));
    expect_eq!(
        register_event(&ring, IORING_REGISTER_EVENTFD, event.as_raw_fd()),
        Ok(0)
    );
    expect_eq!(counted(&event), none);
    gives!(ring, 0, Sqe::nop());
    expect_eq!(counted(&event), Ok(1));
    expect_eq!(counted(&event), none);
    let time = milliseconds(1);
    let ended = ring.result(Sqe::timeout(&time, 0))?;
    expect_eq!(ended, Err(Errno(libc::ETIME)));
    expect_eq!(counted(&event), Ok(1));
    expect_eq!(plain(&ring, IORING_UNREGISTER_EVENTFD, 0), Ok(0));
    gives!(ring, 0, Sqe::nop());
    expect_eq!(counted(&event), none);
    Ok(())
}

fn event_is_not_counted() -> Outcome {
    let ring = Ring::new(8)?;
    let event = event()?;
    register_event(&ring, IORING_REGISTER_EVENTFD, event.as_raw_fd())?;
    ring.cq_flags().store(
        IORING_CQ_EVENTFD_DISABLED,
        std::sync::atomic::Ordering::Release,
    );
    gives!(ring, 0, Sqe::nop());
    expect_eq!(counted(&event), Err(Errno(libc::EAGAIN)));
    ring.cq_flags()
        .store(0, std::sync::atomic::Ordering::Release);
    gives!(ring, 0, Sqe::nop());
    expect_eq!(counted(&event), Ok(1));
    Ok(())
}

fn event_async() -> Outcome {
    let ring = Ring::new(8)?;
    let event = event()?;
    let operation = IORING_REGISTER_EVENTFD_ASYNC;
    expect_eq!(register_event(&ring, operation, event.as_raw_fd()), Ok(0));
    gives!(ring, 0, Sqe::nop());
    expect_eq!(counted(&event), Err(Errno(libc::EAGAIN)));
    Ok(())
}

fn event_errors() -> Outcome {
    let ring = Ring::new(8)?;
    let event = event()?;
    let file = create(c"f", b"abc")?;
    let add = |fd| register_event(&ring, IORING_REGISTER_EVENTFD, fd);
    expect_eq!(
        plain(&ring, IORING_UNREGISTER_EVENTFD, 0),
        Err(Errno(libc::ENXIO))
    );
    expect_eq!(add(file.as_raw_fd()), EINVAL);
    expect_eq!(add(999), Err(Errno(libc::EBADF)));
    expect_eq!(plain(&ring, IORING_REGISTER_EVENTFD, 0), EINVAL);
    expect_eq!(plain(&ring, IORING_REGISTER_EVENTFD, 2), EINVAL);
    expect_eq!(
        plain(&ring, IORING_REGISTER_EVENTFD, 1),
        Err(Errno(libc::EFAULT))
    );
    expect_eq!(add(event.as_raw_fd()), Ok(0));
    expect_eq!(add(event.as_raw_fd()), Err(Errno(libc::EBUSY)));
    expect_eq!(add(999), Err(Errno(libc::EBUSY)));
    expect_eq!(plain(&ring, IORING_UNREGISTER_EVENTFD, 1), EINVAL);
    Ok(())
}

/// Restrictions: a kind and a value each.
fn restrict(ring: &Ring, list: &[(u16, u8)]) -> SysResult {
    let mut bytes = Vec::new();
    for (kind, value) in list {
        bytes.extend(kind.to_le_bytes());
        bytes.push(*value);
        bytes.extend([0; 13]);
    }
    let operation = IORING_REGISTER_RESTRICTIONS as u32;
    register(&ring.fd, operation, bytes.as_ptr(), list.len() as u32)
}

const ALLOW_REGISTRATION: u16 = 0;
const ALLOW_OPCODE: u16 = 1;
const ALLOW_FLAGS: u16 = 2;
const REQUIRE_FLAGS: u16 = 3;

fn enable(ring: &Ring) -> SysResult {
    plain(ring, IORING_REGISTER_ENABLE_RINGS, 0)
}

fn restrictions_of_requests() -> Outcome {
    let ring = Ring::flagged(8, IORING_SETUP_R_DISABLED)?;
    let file = create(c"f", b"abc")?;
    crate::fixed::register_files(&ring, &[file.as_raw_fd()])?;
    let list = [
        (ALLOW_OPCODE, IORING_OP_READ as u8),
        (ALLOW_FLAGS, 1 << 2),
        (REQUIRE_FLAGS, FIXED_FILE),
    ];
    expect_eq!(restrict(&ring, &list), Ok(0));
    expect_eq!(enable(&ring), Ok(0));
    let mut bytes = [0; 3];
    let read = Sqe::read(&0, &mut bytes, 0);
    gives!(ring, 3, read.flags(FIXED_FILE));
    gives!(ring, 3, read.flags(FIXED_FILE | 1 << 2));
    refuses!(ring, EACCES, read);
    refuses!(ring, EACCES, read.flags(FIXED_FILE | 1 << 4));
    refuses!(ring, EACCES, Sqe::nop().flags(FIXED_FILE));
    refuses!(ring, EINVAL, Sqe::unknown());
    Ok(())
}

fn restrictions_of_registrations() -> Outcome {
    let ring = Ring::flagged(8, IORING_SETUP_R_DISABLED)?;
    let list = [(ALLOW_REGISTRATION, IORING_REGISTER_PERSONALITY as u8)];
    expect_eq!(restrict(&ring, &list), Ok(0));
    // Before the ring is enabled nothing is refused.
    expect_eq!(crate::fixed::register_files(&ring, &[-1]), Ok(0));
    expect_eq!(enable(&ring), Ok(0));
    expect_eq!(plain(&ring, IORING_REGISTER_PERSONALITY, 0), Ok(1));
    let eacces = Err(Errno(libc::EACCES));
    expect_eq!(crate::fixed::unregister_files(&ring), eacces);
    expect_eq!(enable(&ring), eacces);
    refuses!(ring, EACCES, Sqe::nop());
    Ok(())
}

fn restrictions_errors() -> Outcome {
    let ring = Ring::new(8)?;
    let good = [(ALLOW_OPCODE, 0)];
    expect_eq!(restrict(&ring, &good), Err(Errno(libc::EBADFD)));
    let ring = Ring::flagged(8, IORING_SETUP_R_DISABLED)?;
    expect_eq!(restrict(&ring, &[(4, 0)]), EINVAL);
    expect_eq!(restrict(&ring, &[(ALLOW_OPCODE, 63)]), EINVAL);
    expect_eq!(restrict(&ring, &[(ALLOW_REGISTRATION, 36)]), EINVAL);
    expect_eq!(plain(&ring, IORING_REGISTER_RESTRICTIONS, 1), EINVAL);
    expect_eq!(restrict(&ring, &good), Ok(0));
    expect_eq!(restrict(&ring, &good), Err(Errno(libc::EBUSY)));
    expect_eq!(enable(&ring), Ok(0));
    gives!(ring, 0, Sqe::nop());
    expect_eq!(enable(&ring), Err(Errno(libc::EACCES)));
    Ok(())
}

fn workers_are_told() -> Outcome {
    let ring = Ring::new(8)?;
    let operation = IORING_REGISTER_IOWQ_MAX_WORKERS as u32;
    let set = |new: [u32; 2]| {
        let mut counts = new;
        register(&ring.fd, operation, &raw mut counts, 2).map(|_| counts)
    };
    set([3, 5])?;
    expect_eq!(set([0, 0]), Ok([3, 5]));
    expect_eq!(set([7, 0]), Ok([3, 5]));
    expect_eq!(set([0, 9]), Ok([7, 5]));
    expect_eq!(set([0, 0]), Ok([7, 9]));
    let cpus = 1_u64;
    let operation = IORING_REGISTER_IOWQ_AFF as u32;
    expect_eq!(register(&ring.fd, operation, &raw const cpus, 8), Ok(0));
    expect_eq!(plain(&ring, IORING_UNREGISTER_IOWQ_AFF, 0), Ok(0));
    Ok(())
}

fn workers_errors() -> Outcome {
    let ring = Ring::new(8)?;
    let operation = IORING_REGISTER_IOWQ_MAX_WORKERS as u32;
    let counts = [1_u32 << 31, 0];
    expect_eq!(register(&ring.fd, operation, &raw const counts, 2), EINVAL);
    expect_eq!(register(&ring.fd, operation, &raw const counts, 1), EINVAL);
    expect_eq!(plain(&ring, IORING_REGISTER_IOWQ_MAX_WORKERS, 2), EINVAL);
    expect_eq!(plain(&ring, IORING_REGISTER_IOWQ_AFF, 8), EINVAL);
    expect_eq!(plain(&ring, IORING_UNREGISTER_IOWQ_AFF, 1), EINVAL);
    let cpus = 1_u64 << 63;
    let operation = IORING_REGISTER_IOWQ_AFF as u32;
    expect_eq!(register(&ring.fd, operation, &raw const cpus, 8), Ok(0));
    expect_eq!(register(&ring.fd, operation, &raw const cpus, 0), EINVAL);
    let nowhere = Mapping::nowhere()?;
    expect_eq!(
        register(&ring.fd, operation, nowhere, 8),
        Err(Errno(libc::EFAULT))
    );
    Ok(())
}

fn update(offset: u32, data: u64) -> io_uring_rsrc_update {
    io_uring_rsrc_update {
        offset,
        resv: 0,
        data,
    }
}

fn by_index(
    ring: &Ring,
    operation: io_uring_register_op,
    list: &mut [io_uring_rsrc_update],
) -> SysResult {
    let count = list.len() as u32;
    register(&ring.fd, operation as u32, list.as_mut_ptr(), count)
}

fn enter_by_index(index: usize) -> SysResult {
    sys!(
        SYS_io_uring_enter,
        index,
        0,
        0,
        IORING_ENTER_REGISTERED_RING,
        0,
        0
    )
}

fn rings_by_index() -> Outcome {
    let (ring, other) = (Ring::new(8)?, Ring::new(8)?);
    let fds = [&ring, &other].map(|ring| ring.fd.as_raw_fd() as u64);
    let mut list = [update(u32::MAX, fds[0]), update(5, fds[1])];
    expect_eq!(by_index(&ring, IORING_REGISTER_RING_FDS, &mut list), Ok(2));
    expect_eq!([list[0].offset, list[1].offset], [0, 5]);
    expect_eq!(enter_by_index(0), Ok(0));
    expect_eq!(enter_by_index(5), Ok(0));
    other.push(Sqe::nop());
    let flags = IORING_ENTER_REGISTERED_RING | IORING_ENTER_GETEVENTS;
    expect_eq!(sys!(SYS_io_uring_enter, 5, 1, 1, flags, 0, 0), Ok(1));
    expect!(other.pop().is_some());
    // A registration names it so, too.
    let operation = IORING_REGISTER_PERSONALITY as u32 | IORING_REGISTER_USE_REGISTERED_RING as u32;
    expect_eq!(sys!(SYS_io_uring_register, 5, operation, 0, 0), Ok(1));
    let mut gone = [update(5, 0), update(6, 0)];
    expect_eq!(
        by_index(&ring, IORING_UNREGISTER_RING_FDS, &mut gone),
        Ok(2)
    );
    expect_eq!(enter_by_index(5), Err(Errno(libc::EBADF)));
    let mut gone = [update(0, 0)];
    expect_eq!(
        by_index(&ring, IORING_UNREGISTER_RING_FDS, &mut gone),
        Ok(1)
    );
    Ok(())
}

fn rings_by_index_errors() -> Outcome {
    let ring = Ring::new(8)?;
    let fd = ring.fd.as_raw_fd() as u64;
    let file = create(c"f", b"abc")?;
    let add = |list: &mut [io_uring_rsrc_update]| by_index(&ring, IORING_REGISTER_RING_FDS, list);
    expect_eq!(add(&mut []), EINVAL);
    expect_eq!(add(&mut [update(16, fd)]), EINVAL);
    expect_eq!(
        add(&mut [io_uring_rsrc_update {
            resv: 1,
            ..update(0, fd)
        }]),
        EINVAL
    );
    expect_eq!(add(&mut [update(0, 999)]), Err(Errno(libc::EBADF)));
    let odd = file.as_raw_fd() as u64;
    expect_eq!(add(&mut [update(0, odd)]), Err(Errno(libc::EOPNOTSUPP)));
    let mut many: Vec<_> = (0..17).map(|_| update(u32::MAX, fd)).collect();
    expect_eq!(add(&mut many), EINVAL);
    expect_eq!(add(&mut many[..15]), Ok(15));
    expect_eq!(add(&mut many[15..]), Ok(1));
    expect_eq!(add(&mut [update(u32::MAX, fd)]), Err(Errno(libc::EBUSY)));
    expect_eq!(add(&mut [update(3, fd)]), Err(Errno(libc::EBUSY)));
    expect_eq!(enter_by_index(16), EINVAL);
    let mut gone: Vec<_> = (0..16).map(|index| update(index, 0)).collect();
    let remove =
        |list: &mut [io_uring_rsrc_update]| by_index(&ring, IORING_UNREGISTER_RING_FDS, list);
    expect_eq!(remove(&mut [update(0, 1)]), EINVAL);
    expect_eq!(remove(&mut [update(16, 0)]), EINVAL);
    expect_eq!(remove(&mut gone), Ok(16));
    expect_eq!(enter_by_index(0), Err(Errno(libc::EBADF)));
    Ok(())
}

fn clone_from(ring: &Ring, from: &Ring, flags: u32, ranges: [u32; 3]) -> SysResult {
    let [src_off, dst_off, nr] = ranges;
    let request = io_uring_clone_buffers {
        src_fd: from.fd.as_raw_fd() as u32,
        flags,
        src_off,
        dst_off,
        nr,
        pad: [0; 3],
    };
    let operation = IORING_REGISTER_CLONE_BUFFERS as u32;
    register(&ring.fd, operation, &raw const request, 1)
}

fn clones_of_buffers() -> Outcome {
    let (ring, other) = (Ring::new(8)?, Ring::new(8)?);
    let fd = create(c"f", b"abcdef")?;
    let mut memory = AlignedBuffer::new(8192)?;
    let vectors = [vector(&mut memory[..4096]), vector(&mut memory[4096..])];
    register_buffers(&other, &vectors)?;
    expect_eq!(clone_from(&ring, &other, 0, [0; 3]), Ok(0));
    crate::fixed::unregister_buffers(&other)?;
    gives!(ring, 6, Sqe::read_fixed(&fd, &mut memory[4096..4102], 0, 1));
    expect_eq!(&memory[4096..4102], b"abcdef");
    // A part of it, to another place.
    expect_eq!(clone_from(&other, &ring, 0, [1, 3, 1]), Ok(0));
    gives!(
        other,
        3,
        Sqe::read_fixed(&fd, &mut memory[4096..4099], 3, 3)
    );
    refuses!(other, EFAULT, Sqe::read_fixed(&fd, &mut memory[..3], 0, 0));
    let replace = IORING_REGISTER_DST_REPLACE as u32;
    expect_eq!(clone_from(&other, &ring, replace, [0, 0, 1]), Ok(0));
    gives!(other, 3, Sqe::read_fixed(&fd, &mut memory[..3], 0, 0));
    gives!(
        other,
        3,
        Sqe::read_fixed(&fd, &mut memory[4096..4099], 3, 3)
    );
    Ok(())
}

fn clones_of_buffers_errors() -> Outcome {
    let (ring, other) = (Ring::new(8)?, Ring::new(8)?);
    let mut memory = AlignedBuffer::new(8192)?;
    let all = [0; 3];
    expect_eq!(clone_from(&ring, &other, 0, all), Err(Errno(libc::ENXIO)));
    register_buffers(&other, &[vector(&mut memory)])?;
    expect_eq!(clone_from(&ring, &other, 4, all), EINVAL);
    expect_eq!(clone_from(&ring, &other, 0, [1, 0, 0]), EINVAL);
    expect_eq!(clone_from(&ring, &other, 0, [0, 1, 0]), EINVAL);
    expect_eq!(clone_from(&ring, &other, 0, [0, 0, 2]), EINVAL);
    let overflow = Err(Errno(libc::EOVERFLOW));
    expect_eq!(clone_from(&ring, &other, 0, [1, 0, 1]), overflow);
    expect_eq!(clone_from(&ring, &other, 0, [0, u32::MAX, 1]), overflow);
    expect_eq!(clone_from(&ring, &other, 0, [0, 1 << 14, 1]), EINVAL);
    expect_eq!(clone_from(&ring, &other, 0, all), Ok(0));
    expect_eq!(clone_from(&ring, &other, 0, all), Err(Errno(libc::EBUSY)));
    Ok(())
}

fn clocks() -> Outcome {
    let ring = Ring::new(8)?;
    let operation = IORING_REGISTER_CLOCK as u32;
    let set = |words: [u32; 4], count| register(&ring.fd, operation, words.as_ptr(), count);
    expect_eq!(set([libc::CLOCK_BOOTTIME as u32, 0, 0, 0], 0), Ok(0));
    expect_eq!(set([libc::CLOCK_MONOTONIC as u32, 0, 0, 0], 0), Ok(0));
    expect_eq!(set([libc::CLOCK_REALTIME as u32, 0, 0, 0], 0), EINVAL);
    expect_eq!(set([libc::CLOCK_MONOTONIC as u32, 0, 1, 0], 0), EINVAL);
    expect_eq!(set([libc::CLOCK_MONOTONIC as u32, 0, 0, 0], 1), EINVAL);
    expect_eq!(plain(&ring, IORING_REGISTER_CLOCK, 0), EINVAL);
    Ok(())
}

fn region(ring: &Ring, flags: u64, descriptor: &mut io_uring_region_desc) -> SysResult {
    let registration = io_uring_mem_region_reg {
        region_uptr: std::ptr::from_mut(descriptor).addr() as u64,
        flags,
        __resv: [0; 2],
    };
    let operation = IORING_REGISTER_MEM_REGION as u32;
    register(&ring.fd, operation, &raw const registration, 1)
}

fn descriptor(size: u64) -> io_uring_region_desc {
    io_uring_region_desc {
        user_addr: 0,
        size,
        flags: 0,
        id: 0,
        mmap_offset: 0,
        __resv: [0; 4],
    }
}

fn wait_at(ring: &Ring, offset: usize, size: usize) -> SysResult {
    let flags = IORING_ENTER_GETEVENTS | IORING_ENTER_EXT_ARG | IORING_ENTER_EXT_ARG_REG;
    sys!(SYS_io_uring_enter, &ring.fd, 0, 1, flags, offset, size)
}

fn waits_in_a_region() -> Outcome {
    let ring = Ring::flagged(8, IORING_SETUP_R_DISABLED)?;
    let mut asked = descriptor(4096);
    let holds_waits = IORING_MEM_REGION_REG_WAIT_ARG as u64;
    expect_eq!(region(&ring, holds_waits, &mut asked), Ok(0));
    expect_eq!(asked.mmap_offset, 0x2000_0000);
    expect_eq!(enable(&ring), Ok(0));
    let mapping = Mapping::shared(&ring.fd, 4096, asked.mmap_offset)?;
    let wait = io_uring_reg_wait {
        ts: __kernel_timespec {
            tv_sec: 0,
            tv_nsec: 5_000_000,
        },
        min_wait_usec: 0,
        flags: IORING_REG_WAIT_TS as u32,
        sigmask: 0,
        sigmask_sz: 0,
        pad: [0; 3],
        pad2: [0; 2],
    };
    // SAFETY: the place is in the mapping, and aligned as the structure is.
    unsafe {
        mapping
            .at(128)
            .cast::<io_uring_reg_wait>()
            .write_volatile(wait)
    };
    let size = size_of::<io_uring_reg_wait>();
    expect_eq!(wait_at(&ring, 128, size), Err(Errno(libc::ETIME)));
    let efault = Err(Errno(libc::EFAULT));
    expect_eq!(wait_at(&ring, 4, size), efault);
    expect_eq!(wait_at(&ring, 4096 - 56, size), efault);
    expect_eq!(wait_at(&ring, 4096, size), efault);
    expect_eq!(wait_at(&ring, 128, size - 8), EINVAL);
    let odd = io_uring_reg_wait { flags: 2, ..wait };
    // SAFETY: as above.
    unsafe {
        mapping
            .at(256)
            .cast::<io_uring_reg_wait>()
            .write_volatile(odd)
    };
    expect_eq!(wait_at(&ring, 256, size), EINVAL);
    Ok(())
}

fn regions_errors() -> Outcome {
    let ring = Ring::new(8)?;
    let holds_waits = IORING_MEM_REGION_REG_WAIT_ARG as u64;
    expect_eq!(region(&ring, holds_waits, &mut descriptor(4096)), EINVAL);
    expect_eq!(region(&ring, 2, &mut descriptor(4096)), EINVAL);
    expect_eq!(region(&ring, 0, &mut descriptor(0)), EINVAL);
    expect_eq!(region(&ring, 0, &mut descriptor(100)), EINVAL);
    let with = |change: fn(&mut io_uring_region_desc)| {
        let mut odd = descriptor(4096);
        change(&mut odd);
        region(&ring, 0, &mut odd)
    };
    expect_eq!(with(|it| it.user_addr = 4096), Err(Errno(libc::EFAULT)));
    expect_eq!(with(|it| it.flags = 1), Err(Errno(libc::EFAULT)));
    expect_eq!(with(|it| it.flags = 2), EINVAL);
    expect_eq!(with(|it| it.id = 1), EINVAL);
    expect_eq!(with(|it| it.mmap_offset = 1), EINVAL);
    expect_eq!(with(|it| it.__resv[3] = 1), EINVAL);
    let memory = Mapping::new(4096, libc::PROT_READ | libc::PROT_WRITE)?;
    let mut own = descriptor(4096);
    own.flags = 1;
    own.user_addr = memory.at(0).addr() as u64;
    expect_eq!(region(&ring, 0, &mut own), Ok(0));
    expect_eq!(region(&ring, 0, &mut own), Err(Errno(libc::EBUSY)));
    Ok(())
}

fn resize(ring: &Ring, params: &mut io_uring_params) -> SysResult {
    let operation = IORING_REGISTER_RESIZE_RINGS as u32;
    register(&ring.fd, operation, std::ptr::from_mut(params), 1)
}

const DEFER: u32 = IORING_SETUP_SINGLE_ISSUER | IORING_SETUP_DEFER_TASKRUN;

fn sizes_change() -> Outcome {
    let mut ring = Ring::flagged(4, DEFER | IORING_SETUP_NO_SQARRAY)?;
    for user_data in 0..3 {
        ring.push(Sqe::nop().data(user_data));
    }
    ring.enter(3, 0, IORING_ENTER_GETEVENTS)?;
    let mut new = params(IORING_SETUP_CQSIZE);
    new.sq_entries = 32;
    new.cq_entries = 128;
    expect_eq!(resize(&ring, &mut new), Ok(0));
    expect_eq!((new.sq_entries, new.cq_entries), (32, 128));
    ring.map_again(new)?;
    // What was there is there.
    for user_data in 0..3 {
        expect_eq!(ring.pop().map(|cqe| cqe.user_data), Some(user_data));
    }
    for user_data in 0..32 {
        ring.push(Sqe::nop().data(user_data));
    }
    ring.enter(32, 32, IORING_ENTER_GETEVENTS)?;
    for user_data in 0..32 {
        expect_eq!(ring.pop().map(|cqe| cqe.user_data), Some(user_data));
    }
    Ok(())
}

fn sizes_errors() -> Outcome {
    let ring = Ring::new(4)?;
    let mut new = params(0);
    new.sq_entries = 8;
    expect_eq!(resize(&ring, &mut new), EINVAL);
    let ring = Ring::flagged(4, DEFER)?;
    let mut odd = params(IORING_SETUP_SQPOLL);
    odd.sq_entries = 8;
    expect_eq!(resize(&ring, &mut odd), EINVAL);
    expect_eq!(resize(&ring, &mut params(0)), EINVAL);
    for _ in 0..6 {
        ring.push(Sqe::nop());
        ring.enter(1, 0, IORING_ENTER_GETEVENTS)?;
    }
    let mut small = params(0);
    small.sq_entries = 2;
    expect_eq!(resize(&ring, &mut small), Err(Errno(libc::EOVERFLOW)));
    Ok(())
}

fn sync_cancel(ring: &Ring, change: impl FnOnce(&mut io_uring_sync_cancel_reg)) -> SysResult {
    let mut request = io_uring_sync_cancel_reg {
        addr: 0,
        fd: 0,
        flags: 0,
        timeout: __kernel_timespec {
            tv_sec: -1,
            tv_nsec: -1,
        },
        opcode: 0,
        pad: [0; 7],
        pad2: [0; 3],
    };
    change(&mut request);
    let operation = IORING_REGISTER_SYNC_CANCEL as u32;
    register(&ring.fd, operation, &raw const request, 1)
}

fn cancel_and_wait() -> Outcome {
    let ring = Ring::new(8)?;
    let time = milliseconds(60_000);
    let none = Err(Errno(libc::ENOENT));
    expect_eq!(sync_cancel(&ring, |it| it.addr = 5), none);
    ring.push(Sqe::timeout(&time, 0).data(5));
    ring.submit()?;
    expect_eq!(sync_cancel(&ring, |it| it.addr = 5), Ok(0));
    expect_eq!(ring.next()?.res, -libc::ECANCELED);
    let mut ends = [0_i32; 2];
    sys!(SYS_pipe2, ends.as_mut_ptr(), 0)?;
    let mut bytes = [0; 3];
    for user_data in 0..3 {
        ring.push(Sqe::read(&ends[0], &mut bytes, 0).data(user_data));
    }
    ring.submit()?;
    let by_fd = |it: &mut io_uring_sync_cancel_reg| {
        it.fd = ends[0];
        it.flags = IORING_ASYNC_CANCEL_FD | IORING_ASYNC_CANCEL_ALL;
    };
    expect_eq!(sync_cancel(&ring, by_fd), Ok(3));
    for cqe in ring.take(3)? {
        expect_eq!(cqe.res, -libc::ECANCELED);
    }
    expect_eq!(sync_cancel(&ring, by_fd), Ok(0));
    ring.nothing_left()?;
    Ok(())
}

fn cancel_and_wait_for_futexes() -> Outcome {
    let ring = Ring::new(8)?;
    let word = 0_u32;
    let wait = Sqe {
        fd: 2,
        addr: (&raw const word).addr() as u64,
        addr3: u32::MAX.into(),
        ..Sqe::new(IORING_OP_FUTEX_WAIT)
    };
    ring.push(wait.data(5));
    ring.push(wait.data(6));
    ring.submit()?;
    // One that waits for a futex counts.
    expect_eq!(sync_cancel(&ring, |it| it.addr = 5), Ok(1));
    expect_eq!(ring.next()?.res, -libc::ECANCELED);
    ring.push(Sqe::cancel(6, 0).data(7));
    ring.submit()?;
    let mut both = ring.take(2)?;
    both.sort_by_key(|cqe| cqe.user_data);
    expect_eq!([both[0].res, both[1].res], [-libc::ECANCELED, 1]);
    Ok(())
}

fn cancel_and_wait_errors() -> Outcome {
    let ring = Ring::new(8)?;
    expect_eq!(sync_cancel(&ring, |it| it.flags = 1 << 6), EINVAL);
    expect_eq!(sync_cancel(&ring, |it| it.pad[3] = 1), EINVAL);
    expect_eq!(sync_cancel(&ring, |it| it.pad2[1] = 1), EINVAL);
    let by_fd = |it: &mut io_uring_sync_cancel_reg| {
        it.fd = 999;
        it.flags = IORING_ASYNC_CANCEL_FD;
    };
    expect_eq!(sync_cancel(&ring, by_fd), Err(Errno(libc::EBADF)));
    expect_eq!(plain(&ring, IORING_REGISTER_SYNC_CANCEL, 1), EINVAL);
    expect_eq!(plain(&ring, IORING_REGISTER_SYNC_CANCEL, 0), EINVAL);
    Ok(())
}

/// A query (`struct io_uring_query_hdr`).
#[repr(C)]
#[derive(Clone, Copy, Debug, Default)]
struct Query {
    next: u64,
    data: u64,
    query: u32,
    size: u32,
    result: i32,
    reserved: [u32; 3],
}

fn query(first: &mut Query, count: u32) -> SysResult {
    let first = std::ptr::from_mut(first);
    sys!(SYS_io_uring_register, -1, REGISTER_QUERY, first, count)
}

fn query_tells() -> Outcome {
    let mut answer = [u64::MAX; 8];
    let mut part = [u64::MAX; 8];
    let mut second = Query {
        data: part.as_mut_ptr().addr() as u64,
        size: 12,
        ..Query::default()
    };
    let mut first = Query {
        next: (&raw mut second).addr() as u64,
        data: answer.as_mut_ptr().addr() as u64,
        size: 64,
        ..Query::default()
    };
    expect_eq!(query(&mut first, 0), Ok(0));
    expect_eq!((first.result, first.size), (0, 48));
    // 63 opcodes and 36 registrations; flags of set-up, enter and SQEs; one query.
    expect_eq!(answer[0], 63 | 36 << 32);
    expect_eq!(&answer[2..], &[0x7_ffff, 0xff, 0x7f, 1, 0, 0]);
    // SAFETY: the kernel has written it, and is done with it.
    let second = unsafe { std::ptr::read_volatile(&raw const second) };
    expect_eq!((second.result, second.size), (0, 12));
    let ring = Ring::new(4)?;
    first.next = 0;
    let first = &raw mut first;
    expect_eq!(register(&ring.fd, REGISTER_QUERY, first, 0), Ok(0));
    Ok(())
}

fn query_errors() -> Outcome {
    let mut answer = [0_u64; 8];
    let good = Query {
        data: answer.as_mut_ptr().addr() as u64,
        size: 64,
        ..Query::default()
    };
    expect_eq!(query(&mut good.clone(), 1), EINVAL);
    let result = |mut odd: Query| query(&mut odd, 0).map(|_| (odd.result, odd.size));
    let unknown = Query { query: 9, ..good };
    expect_eq!(result(unknown), Ok((-libc::EOPNOTSUPP, 0)));
    expect_eq!(result(Query { size: 0, ..good }), Ok((-libc::EINVAL, 0)));
    expect_eq!(result(Query { result: 1, ..good }), Ok((-libc::EINVAL, 0)));
    let reserved = Query {
        reserved: [0, 0, 1],
        ..good
    };
    expect_eq!(result(reserved), Ok((-libc::EINVAL, 0)));
    let nowhere = Query {
        data: Mapping::nowhere()?.addr() as u64,
        ..good
    };
    expect_eq!(result(nowhere), Err(Errno(libc::EFAULT)));
    let mut circle = good;
    circle.next = (&raw mut circle).addr() as u64;
    expect_eq!(
        query(&mut circle, 0),
        Err(Errno(libc::EINVAL)).or(Err(Errno(libc::ERANGE)))
    );
    Ok(())
}
