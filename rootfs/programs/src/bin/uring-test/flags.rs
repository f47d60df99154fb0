//! Flags of `io_uring_setup`: big entries, memory of the program, rings without a descriptor, shared
//! workers, polled devices, and a task of the kernel that submits.

use std::os::fd::AsRawFd;
use std::sync::atomic::Ordering;
use std::thread::sleep;
use std::time::Duration;

use guest_programs::check::{Check, Outcome, comes_true};
use guest_programs::ring::{Cqe, Ring, Sqe, gives, params, refuses, setup};
use guest_programs::sys::{Errno, Mapping, SysResult, create};
use guest_programs::{checks, expect, expect_eq, sys};
use linux_raw_sys::io_uring::*;

pub(crate) const CHECKS: &[Check] = checks![
    big_cqes,
    big_cqes_overflow,
    big_sqes,
    mixed_cqes,
    mixed_cqes_at_the_end,
    flags_that_contradict,
    memory_of_the_program,
    memory_of_the_program_errors,
    ring_without_a_descriptor,
    shared_workers,
    poller_submits,
    poller_is_woken,
    poller_and_full_queue,
    poller_of_a_cpu,
    poller_of_a_disabled_ring,
    poller_fails_entries,
    polled_devices_refuse,
];

const CQE_MIXED: u32 = 1 << 18;
const NOP_CQE32: u32 = 1 << 5;
const CQE_F_SKIP: u32 = 1 << 5;
const CQE_F_32: u32 = 1 << 15;

fn big_nop(off: u64, addr: u64) -> Sqe {
    Sqe {
        off,
        addr,
        op_flags: NOP_CQE32,
        ..Sqe::nop()
    }
}

fn big_cqes() -> Outcome {
    let ring = Ring::flagged(4, IORING_SETUP_CQE32)?;
    ring.push(Sqe::nop().data(1));
    ring.push(big_nop(0x1111, 0x2222).data(2));
    ring.submit()?;
    let first = ring
        .pop_wide()
        .map(|(cqe, extra)| (cqe.user_data, cqe.flags, extra));
    expect_eq!(first, Some((1, 0, [0, 0])));
    let second = ring
        .pop_wide()
        .map(|(cqe, extra)| (cqe.user_data, cqe.flags, extra));
    expect_eq!(second, Some((2, 0, [0x1111, 0x2222])));
    let small = Ring::new(4)?;
    refuses!(small, EINVAL, big_nop(1, 2));
    Ok(())
}

fn big_cqes_overflow() -> Outcome {
    let ring = Ring::flagged(2, IORING_SETUP_CQE32)?;
    for index in 0..9 {
        ring.push(big_nop(index, 100 + index).data(index));
        ring.submit()?;
    }
    for index in 0..9 {
        if ring.ready() == 0 {
            ring.enter(0, 1, IORING_ENTER_GETEVENTS)?;
        }
        let (cqe, extra) = ring.pop_wide().ok_or(Errno(libc::ENOENT))?;
        expect_eq!((cqe.user_data, extra), (index, [index, 100 + index]));
    }
    ring.nothing_left()?;
    Ok(())
}

fn big_sqes() -> Outcome {
    let ring = Ring::flagged(4, IORING_SETUP_SQE128)?;
    let order: Vec<_> = (0..4).map(|_| Sqe::nop()).collect();
    expect_eq!(ring.order(&order)?, [0, 1, 2, 3]);
    expect_eq!(ring.order(&order)?, [0, 1, 2, 3]);
    let both = Ring::flagged(4, IORING_SETUP_SQE128 | IORING_SETUP_CQE32)?;
    expect_eq!(both.order(&order)?, [0, 1, 2, 3]);
    Ok(())
}

fn mixed_cqes() -> Outcome {
    let ring = Ring::flagged(4, CQE_MIXED)?;
    ring.push(Sqe::nop().data(1));
    ring.push(big_nop(0x1111, 0x2222).data(2));
    ring.push(Sqe::nop().data(3));
    ring.submit()?;
    expect_eq!(ring.ready(), 4);
    expect_eq!(
        ring.pop().map(|cqe| (cqe.user_data, cqe.flags)),
        Some((1, 0))
    );
    let big = ring
        .pop_wide()
        .map(|(cqe, extra)| (cqe.user_data, cqe.flags, extra));
    expect_eq!(big, Some((2, CQE_F_32, [0x1111, 0x2222])));
    expect!(ring.pop().is_some());
    expect_eq!(
        ring.pop().map(|cqe| (cqe.user_data, cqe.flags)),
        Some((3, 0))
    );
    Ok(())
}

fn mixed_cqes_at_the_end() -> Outcome {
    let ring = Ring::flagged(4, CQE_MIXED)?;
    for user_data in 0..7 {
        gives!(ring, 0, Sqe::nop().data(user_data));
    }
    // The last place is too small.
    ring.push(big_nop(5, 6).data(8));
    ring.submit()?;
    let skipped = Cqe {
        user_data: 0,
        res: 0,
        flags: CQE_F_SKIP,
    };
    expect_eq!(ring.pop(), Some(skipped));
    let big = ring
        .pop_wide()
        .map(|(cqe, extra)| (cqe.user_data, cqe.flags, extra));
    expect_eq!(big, Some((8, CQE_F_32, [5, 6])));
    expect!(ring.pop().is_some());
    expect_eq!(ring.ready(), 0);
    Ok(())
}

fn flags_that_contradict() -> Outcome {
    let asked = |flags| setup(4, &mut params(flags)).map(drop);
    let einval = Err(Errno(libc::EINVAL));
    expect_eq!(asked(IORING_SETUP_CQE32 | CQE_MIXED), einval);
    expect_eq!(asked(IORING_SETUP_SQ_AFF), einval);
    expect_eq!(asked(IORING_SETUP_HYBRID_IOPOLL), einval);
    expect_eq!(asked(IORING_SETUP_REGISTERED_FD_ONLY), einval);
    for flag in [IORING_SETUP_COOP_TASKRUN, IORING_SETUP_TASKRUN_FLAG] {
        expect_eq!(asked(IORING_SETUP_SQPOLL | flag), einval);
    }
    let defer = IORING_SETUP_DEFER_TASKRUN | IORING_SETUP_SINGLE_ISSUER;
    expect_eq!(asked(IORING_SETUP_SQPOLL | defer), einval);
    expect_eq!(asked(1 << 19), einval);
    Ok(())
}

fn own_memory(flags: u32) -> SysResult<(io_uring_params, Mapping, Mapping)> {
    let protection = libc::PROT_READ | libc::PROT_WRITE;
    let (rings, sqes) = (
        Mapping::new(4096, protection)?,
        Mapping::new(4096, protection)?,
    );
    let mut own = params(IORING_SETUP_NO_MMAP | flags);
    own.cq_off.user_addr = rings.at(0).addr() as u64;
    own.sq_off.user_addr = sqes.at(0).addr() as u64;
    Ok((own, rings, sqes))
}

fn memory_of_the_program() -> Outcome {
    let (own, rings, sqes) = own_memory(0)?;
    let ring = Ring::in_memory(8, own, rings, sqes)?;
    let order: Vec<_> = (0..8).map(|_| Sqe::nop()).collect();
    for _ in 0..5 {
        expect_eq!(ring.order(&order)?, [0, 1, 2, 3, 4, 5, 6, 7]);
    }
    let mapped = Mapping::shared(&ring.fd, 4096, IORING_OFF_SQES.into());
    expect!(mapped.is_err());
    Ok(())
}

fn memory_of_the_program_errors() -> Outcome {
    let asked = |change: fn(&mut io_uring_params)| {
        let (mut own, _rings, _sqes) = own_memory(0)?;
        change(&mut own);
        setup(8, &mut own).map(drop)
    };
    expect_eq!(
        asked(|it| it.cq_off.user_addr = 0),
        Err(Errno(libc::EFAULT))
    );
    expect_eq!(
        asked(|it| it.sq_off.user_addr = 0),
        Err(Errno(libc::EFAULT))
    );
    expect_eq!(
        asked(|it| it.cq_off.user_addr += 64),
        Err(Errno(libc::EINVAL))
    );
    expect_eq!(
        asked(|it| it.sq_off.user_addr = 1 << 40),
        Err(Errno(libc::EFAULT))
    );
    Ok(())
}

fn ring_without_a_descriptor() -> Outcome {
    let (mut own, _rings, _sqes) = own_memory(IORING_SETUP_REGISTERED_FD_ONLY)?;
    let index = sys!(SYS_io_uring_setup, 8, &raw mut own)?;
    expect_eq!(index, 0);
    let flags = IORING_ENTER_REGISTERED_RING;
    expect_eq!(sys!(SYS_io_uring_enter, index, 0, 0, flags, 0, 0), Ok(0));
    let gone = [0_u64, 0];
    let remove = io_uring_register_op::IORING_UNREGISTER_RING_FDS as u32
        | io_uring_register_op::IORING_REGISTER_USE_REGISTERED_RING as u32;
    expect_eq!(
        sys!(SYS_io_uring_register, index, remove, gone.as_ptr(), 1),
        Ok(1)
    );
    Ok(())
}

fn shared_workers() -> Outcome {
    let ring = Ring::new(4)?;
    let with = |fd: i32, flags| {
        let mut shared = params(IORING_SETUP_ATTACH_WQ | flags);
        shared.wq_fd = fd as u32;
        setup(4, &mut shared).map(drop)
    };
    expect_eq!(with(ring.fd.as_raw_fd(), 0), Ok(()));
    expect_eq!(with(999, 0), Err(Errno(libc::ENXIO)));
    let file = create(c"f", b"")?;
    expect_eq!(with(file.as_raw_fd(), 0), Err(Errno(libc::EINVAL)));
    expect_eq!(
        with(ring.fd.as_raw_fd(), IORING_SETUP_SQPOLL),
        Err(Errno(libc::EINVAL))
    );
    let polled = Ring::with(4, poller(50))?;
    expect_eq!(with(polled.fd.as_raw_fd(), IORING_SETUP_SQPOLL), Ok(()));
    Ok(())
}

fn poller(idle: u32) -> io_uring_params {
    let mut asked = params(IORING_SETUP_SQPOLL);
    asked.sq_thread_idle = idle;
    asked
}

/// Has the task of the kernel woken if it waits, as a program has to.
fn wake(ring: &Ring) -> SysResult {
    std::sync::atomic::fence(Ordering::SeqCst);
    match ring.sq_flags() & IORING_SQ_NEED_WAKEUP {
        0 => Ok(0),
        _ => ring.enter(0, 0, IORING_ENTER_SQ_WAKEUP),
    }
}

fn poller_submits() -> Outcome {
    let ring = Ring::with(8, poller(1000))?;
    let file = create(c"f", b"abc")?;
    let mut bytes = [0; 3];
    for round in 0..20 {
        ring.push(Sqe::read(&file, &mut bytes, 0).data(round));
        wake(&ring)?;
        expect!(comes_true(|| ring.ready() == 1));
        let cqe = ring.pop();
        expect_eq!(cqe.map(|cqe| (cqe.user_data, cqe.res)), Some((round, 3)));
    }
    // It tells how many it was asked for, whoever submits them.
    ring.push(Sqe::nop());
    let flags = IORING_ENTER_GETEVENTS | IORING_ENTER_SQ_WAKEUP;
    expect_eq!(ring.enter(1, 1, flags), Ok(1));
    expect!(ring.pop().is_some());
    Ok(())
}

fn poller_is_woken() -> Outcome {
    let ring = Ring::with(8, poller(20))?;
    expect!(comes_true(|| ring.sq_flags() & IORING_SQ_NEED_WAKEUP != 0));
    ring.push(Sqe::nop());
    sleep(Duration::from_millis(30));
    expect_eq!(ring.ready(), 0);
    expect_eq!(ring.enter(0, 0, IORING_ENTER_SQ_WAKEUP), Ok(0));
    expect!(comes_true(|| ring.ready() == 1));
    expect!(comes_true(|| ring.sq_flags() & IORING_SQ_NEED_WAKEUP != 0));
    Ok(())
}

fn poller_and_full_queue() -> Outcome {
    let ring = Ring::with(4, poller(1000))?;
    for user_data in 0..100 {
        while ring.queued() == 4 {
            expect_eq!(ring.enter(0, 0, IORING_ENTER_SQ_WAIT), Ok(0));
        }
        ring.push(Sqe::nop().data(user_data));
        wake(&ring)?;
    }
    for user_data in 0..100 {
        expect_eq!(ring.next()?.user_data, user_data);
    }
    Ok(())
}

fn poller_of_a_cpu() -> Outcome {
    let with = |cpu| {
        let mut asked = poller(20);
        asked.flags |= IORING_SETUP_SQ_AFF;
        asked.sq_thread_cpu = cpu;
        Ring::with(4, asked)
    };
    let ring = with(0)?;
    ring.push(Sqe::nop());
    wake(&ring)?;
    expect!(comes_true(|| ring.ready() == 1));
    expect_eq!(with(4000).map(drop), Err(Errno(libc::EINVAL)));
    Ok(())
}

fn poller_of_a_disabled_ring() -> Outcome {
    let mut asked = poller(20);
    asked.flags |= IORING_SETUP_R_DISABLED;
    let ring = Ring::with(4, asked)?;
    ring.push(Sqe::nop());
    sleep(Duration::from_millis(5));
    expect_eq!(ring.ready(), 0);
    let operation = io_uring_register_op::IORING_REGISTER_ENABLE_RINGS as u32;
    let none = std::ptr::null::<u8>();
    expect_eq!(
        guest_programs::ring::register(&ring.fd, operation, none, 0),
        Ok(0)
    );
    wake(&ring)?;
    expect!(comes_true(|| ring.ready() == 1));
    Ok(())
}

fn poller_fails_entries() -> Outcome {
    let ring = Ring::with(4, poller(1000))?;
    ring.push(Sqe::unknown().data(1));
    wake(&ring)?;
    expect!(comes_true(|| ring.ready() == 1));
    expect_eq!(ring.pop().map(|cqe| cqe.res), Some(-libc::EINVAL));
    ring.push(Sqe::nop().data(2));
    wake(&ring)?;
    expect!(comes_true(|| ring.ready() == 1));
    Ok(())
}

fn polled_devices_refuse() -> Outcome {
    let ring = Ring::flagged(4, IORING_SETUP_IOPOLL)?;
    let file = create(c"f", b"abc")?;
    let mut bytes = [0; 3];
    gives!(ring, 0, Sqe::nop());
    refuses!(ring, EOPNOTSUPP, Sqe::read(&file, &mut bytes, 0));
    refuses!(ring, EINVAL, Sqe::fsync(&file));
    refuses!(ring, EINVAL, Sqe::close(999));
    refuses!(ring, EINVAL, Sqe::cancel(1, 0));
    Ok(())
}
