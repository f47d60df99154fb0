//! `io_uring_enter`: its arguments, waiting, and timeouts of waiting.

use std::time::{Duration, Instant};

use guest_programs::check::{Check, Outcome, in_some_try};
use guest_programs::sys::{Errno, Mapping, SysResult, create};
use guest_programs::{checks, expect, expect_eq, fails, sys};
use linux_raw_sys::io_uring::{
    IORING_ENTER_EXT_ARG, IORING_ENTER_GETEVENTS, IORING_FEAT_MIN_TIMEOUT,
    IORING_SETUP_DEFER_TASKRUN, IORING_SETUP_SINGLE_ISSUER, io_uring_getevents_arg,
};

use guest_programs::ring::{Ring, Sqe, milliseconds};

pub(crate) const CHECKS: &[Check] = checks![
    enter_bad_descriptors,
    enter_unknown_flags,
    enter_nothing,
    enter_submits_what_is_there,
    enter_submits_what_is_asked,
    enter_wait_for_nothing,
    enter_wait_for_what_is_there,
    enter_waits,
    enter_submits_and_waits,
    enter_timeout_expires,
    enter_timeout_is_not_needed,
    enter_timeout_after_submission,
    enter_zero_timeout,
    enter_argument_size,
    enter_argument_pointers,
    enter_signal_mask,
    enter_signal_mask_errors,
    enter_minimum_wait,
    enter_deferred,
];

const GETEVENTS: u32 = IORING_ENTER_GETEVENTS;
const EXTENDED: u32 = IORING_ENTER_GETEVENTS | IORING_ENTER_EXT_ARG;

fn argument() -> io_uring_getevents_arg {
    io_uring_getevents_arg {
        sigmask: 0,
        sigmask_sz: 0,
        min_wait_usec: 0,
        ts: 0,
    }
}

fn errno<T>(number: i32) -> SysResult<T> {
    Err(Errno(number))
}

fn enter_bad_descriptors() -> Outcome {
    fails!(EBADF, SYS_io_uring_enter, 999, 0, 0, 0, 0, 0);
    fails!(EBADF, SYS_io_uring_enter, -1, 0, 0, 0, 0, 0);
    let file = create(c"f", b"")?;
    fails!(EOPNOTSUPP, SYS_io_uring_enter, &file, 0, 0, 0, 0, 0);
    Ok(())
}

fn enter_unknown_flags() -> Outcome {
    let ring = Ring::new(4)?;
    expect_eq!(ring.enter(0, 0, 1 << 31), errno(libc::EINVAL));
    expect_eq!(ring.enter(0, 0, 1 << 20), errno(libc::EINVAL));
    // Flags are looked at before the descriptor.
    fails!(EINVAL, SYS_io_uring_enter, 999, 0, 0, 1_u32 << 31, 0, 0);
    Ok(())
}

fn enter_nothing() -> Outcome {
    let ring = Ring::new(4)?;
    expect_eq!(ring.enter(0, 0, 0), Ok(0));
    expect_eq!(ring.enter(4, 0, 0), Ok(0));
    // Without GETEVENTS nothing is waited for.
    expect_eq!(ring.enter(0, 1, 0), Ok(0));
    Ok(())
}

fn enter_submits_what_is_there() -> Outcome {
    let ring = Ring::new(4)?;
    ring.push(Sqe::nop());
    ring.push(Sqe::nop());
    expect_eq!(ring.enter(100, 0, 0), Ok(2));
    expect_eq!((ring.queued(), ring.take(2)?.len()), (0, 2));
    Ok(())
}

fn enter_submits_what_is_asked() -> Outcome {
    let ring = Ring::new(4)?;
    for index in 0..3 {
        ring.push(Sqe::nop().data(index));
    }
    expect_eq!(ring.enter(1, 0, 0), Ok(1));
    expect_eq!((ring.queued(), ring.next()?.user_data), (2, 0));
    expect_eq!(ring.enter(2, 0, 0), Ok(2));
    expect_eq!((ring.next()?.user_data, ring.next()?.user_data), (1, 2));
    Ok(())
}

fn enter_wait_for_nothing() -> Outcome {
    let ring = Ring::new(4)?;
    expect_eq!(ring.enter(0, 0, GETEVENTS), Ok(0));
    Ok(())
}

fn enter_wait_for_what_is_there() -> Outcome {
    let ring = Ring::new(4)?;
    ring.push(Sqe::nop());
    ring.push(Sqe::nop());
    ring.submit()?;
    expect_eq!(ring.enter(0, 2, GETEVENTS), Ok(0));
    expect_eq!(ring.enter(0, 1, GETEVENTS), Ok(0));
    expect_eq!(ring.ready(), 2);
    Ok(())
}

fn enter_waits() -> Outcome {
    in_some_try(|| {
        let ring = Ring::new(4)?;
        let time = milliseconds(40);
        ring.push(Sqe::timeout(&time, 0));
        let start = Instant::now();
        expect_eq!(ring.submit(), Ok(1));
        expect_eq!(ring.ready(), 0);
        expect_eq!(ring.enter(0, 1, GETEVENTS), Ok(0));
        expect!(start.elapsed() >= Duration::from_millis(40));
        expect_eq!(ring.ready(), 1);
        Ok(())
    })
}

fn enter_submits_and_waits() -> Outcome {
    let ring = Ring::new(8)?;
    let time = milliseconds(30);
    ring.push(Sqe::timeout(&time, 0));
    ring.push(Sqe::nop());
    ring.push(Sqe::nop());
    expect_eq!(ring.enter(3, 3, GETEVENTS), Ok(3));
    expect_eq!(ring.ready(), 3);
    Ok(())
}

fn enter_timeout_expires() -> Outcome {
    let ring = Ring::new(4)?;
    let start = Instant::now();
    expect_eq!(ring.wait_at_most(1, &milliseconds(30)), errno(libc::ETIME));
    expect!(start.elapsed() >= Duration::from_millis(30));
    expect!(start.elapsed() < Duration::from_secs(3));
    // Fewer than were waited for: the wait is over, and that is no error.
    ring.push(Sqe::nop());
    ring.submit()?;
    let start = Instant::now();
    expect_eq!(ring.wait_at_most(2, &milliseconds(30)), Ok(0));
    expect!(start.elapsed() >= Duration::from_millis(30));
    expect_eq!(ring.ready(), 1);
    Ok(())
}

fn enter_timeout_is_not_needed() -> Outcome {
    let ring = Ring::new(4)?;
    ring.push(Sqe::nop());
    ring.submit()?;
    expect_eq!(ring.wait_at_most(1, &milliseconds(10_000)), Ok(0));
    let time = milliseconds(20);
    ring.pop();
    ring.push(Sqe::timeout(&time, 0));
    ring.submit()?;
    expect_eq!(ring.wait_at_most(1, &milliseconds(10_000)), Ok(0));
    Ok(())
}

fn enter_timeout_after_submission() -> Outcome {
    let ring = Ring::new(4)?;
    ring.push(Sqe::nop());
    let time = milliseconds(10);
    let argument = io_uring_getevents_arg {
        ts: std::ptr::from_ref(&time).addr() as u64,
        ..argument()
    };
    // What was submitted counts more than that the wait timed out.
    let size = size_of_val(&argument);
    let fd = &ring.fd;
    let entered = sys!(
        SYS_io_uring_enter,
        fd,
        1,
        5,
        EXTENDED,
        &raw const argument,
        size
    );
    expect_eq!(entered, Ok(1));
    expect_eq!(ring.ready(), 1);
    Ok(())
}

fn enter_zero_timeout() -> Outcome {
    let ring = Ring::new(4)?;
    expect_eq!(ring.wait_at_most(1, &milliseconds(0)), errno(libc::ETIME));
    Ok(())
}

fn enter_argument_size() -> Outcome {
    let ring = Ring::new(4)?;
    let argument = argument();
    for size in [0, 8, 16, 23, 25, 64] {
        let fd = &ring.fd;
        fails!(
            EINVAL,
            SYS_io_uring_enter,
            fd,
            0,
            1,
            EXTENDED,
            &raw const argument,
            size
        );
    }
    Ok(())
}

fn enter_argument_pointers() -> Outcome {
    let ring = Ring::new(4)?;
    let bad = Mapping::nowhere()?;
    fails!(
        EFAULT,
        SYS_io_uring_enter,
        &ring.fd,
        0,
        1,
        EXTENDED,
        bad,
        24
    );
    let argument = io_uring_getevents_arg {
        ts: bad.addr() as u64,
        ..argument()
    };
    expect_eq!(ring.wait_with(1, &argument), errno(libc::EFAULT));
    Ok(())
}

fn enter_signal_mask() -> Outcome {
    let ring = Ring::new(4)?;
    let (mask, time) = (0_u64, milliseconds(10));
    let mut before = 0_u64;
    sys!(SYS_rt_sigprocmask, 0, 0, &raw mut before, 8)?;
    let argument = io_uring_getevents_arg {
        sigmask: (&raw const mask).addr() as u64,
        sigmask_sz: 8,
        ts: std::ptr::from_ref(&time).addr() as u64,
        ..argument()
    };
    expect_eq!(ring.wait_with(1, &argument), errno(libc::ETIME));
    // The mask holds for the wait only.
    let mut after = 1_u64;
    sys!(SYS_rt_sigprocmask, 0, 0, &raw mut after, 8)?;
    expect_eq!(after, before);
    // Without EXT_ARG the last two arguments are the mask itself.
    ring.push(Sqe::nop());
    let fd = &ring.fd;
    let entered = sys!(SYS_io_uring_enter, fd, 1, 1, GETEVENTS, &raw const mask, 8);
    expect_eq!(entered, Ok(1));
    Ok(())
}

fn enter_signal_mask_errors() -> Outcome {
    let ring = Ring::new(4)?;
    let mask = 0_u64;
    let argument = |sigmask: u64, sigmask_sz| io_uring_getevents_arg {
        sigmask,
        sigmask_sz,
        ..argument()
    };
    let good = (&raw const mask).addr() as u64;
    let bad = Mapping::nowhere()?.addr() as u64;
    expect_eq!(ring.wait_with(1, &argument(good, 4)), errno(libc::EINVAL));
    expect_eq!(ring.wait_with(1, &argument(bad, 8)), errno(libc::EFAULT));
    fails!(
        EINVAL,
        SYS_io_uring_enter,
        &ring.fd,
        0,
        1,
        GETEVENTS,
        good,
        4
    );
    fails!(
        EFAULT,
        SYS_io_uring_enter,
        &ring.fd,
        0,
        1,
        GETEVENTS,
        bad,
        8
    );
    Ok(())
}

fn enter_minimum_wait() -> Outcome {
    let ring = Ring::new(4)?;
    let time = milliseconds(5000);
    let argument = io_uring_getevents_arg {
        min_wait_usec: 20_000,
        ts: std::ptr::from_ref(&time).addr() as u64,
        ..argument()
    };
    if ring.params.features & IORING_FEAT_MIN_TIMEOUT == 0 {
        // To such a kernel the field is padding.
        expect_eq!(ring.wait_with(1, &argument), errno(libc::EINVAL));
        return Ok(());
    }
    // After the minimum, one completion is enough.
    ring.push(Sqe::nop());
    ring.submit()?;
    let start = Instant::now();
    expect_eq!(ring.wait_with(2, &argument), Ok(0));
    expect!(start.elapsed() >= Duration::from_millis(20));
    expect!(start.elapsed() < Duration::from_secs(3));
    Ok(())
}

fn enter_deferred() -> Outcome {
    let ring = Ring::flagged(8, IORING_SETUP_SINGLE_ISSUER | IORING_SETUP_DEFER_TASKRUN)?;
    let time = milliseconds(10);
    ring.push(Sqe::timeout(&time, 0));
    ring.submit()?;
    std::thread::sleep(Duration::from_millis(30));
    // Completions appear only when the program comes for them.
    expect_eq!(ring.ready(), 0);
    expect_eq!(ring.enter(0, 0, GETEVENTS), Ok(0));
    expect_eq!(ring.ready(), 1);
    Ok(())
}
