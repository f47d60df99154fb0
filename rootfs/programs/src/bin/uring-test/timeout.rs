//! TIMEOUT.

use std::time::{Duration, Instant};

use guest_programs::check::{Check, Outcome, in_some_try};
use guest_programs::sys::{Mapping, SysResult};
use guest_programs::{checks, expect, expect_eq, sys};
use libc::{CLOCK_BOOTTIME, CLOCK_MONOTONIC, CLOCK_REALTIME, timespec};
use linux_raw_sys::io_uring::{
    IORING_TIMEOUT_ABS, IORING_TIMEOUT_BOOTTIME, IORING_TIMEOUT_ETIME_SUCCESS,
    IORING_TIMEOUT_REALTIME,
};

use guest_programs::ring::{Ring, Sqe, gives, milliseconds, refuses};

pub(crate) const CHECKS: &[Check] = checks![
    timeout_expires,
    timeout_of_nothing,
    timeouts_expire_in_order,
    timeout_clocks,
    timeout_absolute,
    timeout_absolute_in_the_past,
    timeout_counts_completions,
    timeout_count_and_time,
    timeout_counts_from_where_it_is,
    timeout_does_not_count_timeouts,
    timeout_flags,
    timeout_fields,
    timeout_bad_times,
    timeout_is_copied,
    timeouts_by_the_hundred,
    timeout_far_away,
];

fn timeout_expires() -> Outcome {
    let ring = Ring::new(4)?;
    let start = Instant::now();
    refuses!(ring, ETIME, Sqe::timeout(&milliseconds(30), 0));
    expect!(start.elapsed() >= Duration::from_millis(30));
    expect!(start.elapsed() < Duration::from_secs(3));
    Ok(())
}

fn timeout_of_nothing() -> Outcome {
    refuses!(Ring::new(4)?, ETIME, Sqe::timeout(&milliseconds(0), 0));
    Ok(())
}

fn timeouts_expire_in_order() -> Outcome {
    // One that is set much later than the one before it expires later, too.
    in_some_try(|| {
        let ring = Ring::new(4)?;
        let times = [90, 30, 60].map(milliseconds);
        let order = ring.order(&times.each_ref().map(|time| Sqe::timeout(time, 0)))?;
        expect_eq!(order, [1, 2, 0]);
        Ok(())
    })
}

fn timeout_clocks() -> Outcome {
    let ring = Ring::new(4)?;
    for flags in [IORING_TIMEOUT_BOOTTIME, IORING_TIMEOUT_REALTIME] {
        let start = Instant::now();
        refuses!(
            ring,
            ETIME,
            Sqe::timeout(&milliseconds(20), 0).op_flags(flags)
        );
        expect!(start.elapsed() >= Duration::from_millis(19));
    }
    Ok(())
}

fn later(clock: i32, milliseconds: i64) -> SysResult<timespec> {
    let mut time = timespec {
        tv_sec: 0,
        tv_nsec: 0,
    };
    sys!(SYS_clock_gettime, clock, &raw mut time)?;
    let nanoseconds = time.tv_nsec + milliseconds * 1_000_000;
    Ok(timespec {
        tv_sec: time.tv_sec + nanoseconds / 1_000_000_000,
        tv_nsec: nanoseconds % 1_000_000_000,
    })
}

fn timeout_absolute() -> Outcome {
    let ring = Ring::new(4)?;
    for (clock, flags) in [
        (CLOCK_MONOTONIC, 0),
        (CLOCK_BOOTTIME, IORING_TIMEOUT_BOOTTIME),
        (CLOCK_REALTIME, IORING_TIMEOUT_REALTIME),
    ] {
        let start = Instant::now();
        let time = later(clock, 30)?;
        refuses!(
            ring,
            ETIME,
            Sqe::timeout(&time, 0).op_flags(flags | IORING_TIMEOUT_ABS)
        );
        expect!(start.elapsed() >= Duration::from_millis(25));
        expect!(start.elapsed() < Duration::from_secs(3));
    }
    Ok(())
}

fn timeout_absolute_in_the_past() -> Outcome {
    let ring = Ring::new(4)?;
    let start = Instant::now();
    refuses!(
        ring,
        ETIME,
        Sqe::timeout(&milliseconds(1), 0).op_flags(IORING_TIMEOUT_ABS)
    );
    expect!(start.elapsed() < Duration::from_secs(3));
    Ok(())
}

fn timeout_counts_completions() -> Outcome {
    let ring = Ring::new(8)?;
    let time = milliseconds(60_000);
    let results = ring.results(&[Sqe::timeout(&time, 2), Sqe::nop(), Sqe::nop()], 3)?;
    expect_eq!(results, [Some(0); 3]);
    Ok(())
}

fn timeout_count_and_time() -> Outcome {
    let ring = Ring::new(8)?;
    let time = milliseconds(30);
    // One completion of the two it waits for: the time decides.
    let results = ring.results(&[Sqe::timeout(&time, 2), Sqe::nop()], 2)?;
    expect_eq!(results, [Some(-libc::ETIME), Some(0)]);
    Ok(())
}

fn timeout_counts_from_where_it_is() -> Outcome {
    let ring = Ring::new(8)?;
    for _ in 0..3 {
        gives!(ring, 0, Sqe::nop());
    }
    // Completions of the past do not count.
    let time = milliseconds(30);
    let results = ring.results(&[Sqe::timeout(&time, 2), Sqe::nop()], 2)?;
    expect_eq!(results[0], Some(-libc::ETIME));
    Ok(())
}

fn timeout_does_not_count_timeouts() -> Outcome {
    let ring = Ring::new(8)?;
    let (long, short) = (milliseconds(60_000), milliseconds(30));
    let sqes = [
        Sqe::timeout(&long, 1),
        Sqe::timeout(&short, 3),
        Sqe::nop(),
        Sqe::nop(),
    ];
    let results = ring.results(&sqes, 4)?;
    expect_eq!(results, [Some(0), Some(-libc::ETIME), Some(0), Some(0)]);
    Ok(())
}

fn timeout_flags() -> Outcome {
    let ring = Ring::new(4)?;
    let time = milliseconds(10);
    let both = IORING_TIMEOUT_BOOTTIME | IORING_TIMEOUT_REALTIME;
    refuses!(ring, EINVAL, Sqe::timeout(&time, 0).op_flags(both));
    refuses!(ring, EINVAL, Sqe::timeout(&time, 0).op_flags(1 << 31));
    // The flag changes what the result means to a link, not the result.
    refuses!(
        ring,
        ETIME,
        Sqe::timeout(&time, 0).op_flags(IORING_TIMEOUT_ETIME_SUCCESS)
    );
    Ok(())
}

fn timeout_fields() -> Outcome {
    let ring = Ring::new(4)?;
    let time = milliseconds(10);
    let timeout = Sqe::timeout(&time, 0);
    refuses!(ring, EINVAL, Sqe { len: 0, ..timeout });
    refuses!(ring, EINVAL, Sqe { len: 2, ..timeout });
    refuses!(
        ring,
        EINVAL,
        Sqe {
            buf_index: 1,
            ..timeout
        }
    );
    refuses!(
        ring,
        EINVAL,
        Sqe {
            file_index: 1,
            ..timeout
        }
    );
    // The descriptor says nothing.
    refuses!(ring, ETIME, timeout.fd(999));
    Ok(())
}

fn timeout_bad_times() -> Outcome {
    let ring = Ring::new(4)?;
    let bad = Sqe {
        addr: Mapping::nowhere()?.addr() as u64,
        ..Sqe::timeout(&milliseconds(0), 0)
    };
    refuses!(ring, EFAULT, bad);
    for (tv_sec, tv_nsec) in [(-1, 0), (0, -1)] {
        refuses!(ring, EINVAL, Sqe::timeout(&timespec { tv_sec, tv_nsec }, 0));
    }
    Ok(())
}

fn timeout_is_copied() -> Outcome {
    let ring = Ring::new(4)?;
    let mut time = milliseconds(20);
    ring.push(Sqe::timeout(&time, 0));
    ring.submit()?;
    time.tv_sec = 1000;
    expect_eq!((ring.next()?.res, time.tv_sec), (-libc::ETIME, 1000));
    Ok(())
}

fn timeouts_by_the_hundred() -> Outcome {
    let ring = Ring::new(256)?;
    let times: Vec<_> = (0..200)
        .map(|index| milliseconds(10 + index * 7 % 50))
        .collect();
    let sqes: Vec<_> = times.iter().map(|time| Sqe::timeout(time, 0)).collect();
    let results = ring.results(&sqes, 200)?;
    expect!(results.iter().all(|result| *result == Some(-libc::ETIME)));
    Ok(())
}

fn timeout_far_away() -> Outcome {
    let ring = Ring::new(4)?;
    let time = timespec {
        tv_sec: i64::MAX,
        tv_nsec: 0,
    };
    ring.push(Sqe::timeout(&time, 0).data(1));
    ring.submit()?;
    let early = ring.wait_at_most(1, &milliseconds(30));
    expect_eq!(early.map_err(|errno| errno.0), Err(libc::ETIME));
    gives!(ring, 0, Sqe::nop());
    Ok(())
}
