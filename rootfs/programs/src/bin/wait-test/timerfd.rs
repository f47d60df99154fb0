//! `timerfd_create(2)`.

use std::os::fd::OwnedFd;
use std::thread;
use std::time::{Duration, Instant};

use guest_programs::check::{Check, Outcome, in_some_try};
use guest_programs::sys::{Errno, Mapping, SysResult, owned};
use guest_programs::{checks, expect, expect_eq, fails, sys};
use libc::{
    CLOCK_BOOTTIME, CLOCK_MONOTONIC, CLOCK_REALTIME, POLLIN, TFD_NONBLOCK, TFD_TIMER_ABSTIME,
    TFD_TIMER_CANCEL_ON_SET, pollfd,
};

pub(crate) const CHECKS: &[Check] = checks![
    a_timer_counts_its_times,
    a_read_waits_for_the_first_time,
    a_timer_is_ready_when_it_was_not_read,
    a_poll_waits_for_a_timer,
    a_timer_at_a_time,
    a_time_that_has_passed,
    what_is_left_of_a_timer,
    a_timer_that_is_set_forgets,
    a_timer_with_a_short_interval,
    a_ring_reads_a_timer,
    timers_have_rules,
];

const MS: i64 = 1_000_000;

/// `struct itimerspec`: the interval, and the time until the first.
type Setting = [i64; 4];

fn after(nanoseconds: i64) -> Setting {
    [0, 0, 0, nanoseconds]
}

fn every(nanoseconds: i64) -> Setting {
    [0, nanoseconds, 0, nanoseconds]
}

fn timer(clock: i32, flags: i32) -> SysResult<OwnedFd> {
    sys!(SYS_timerfd_create, clock, flags).map(owned)
}

fn set(timer: &OwnedFd, flags: i32, setting: &Setting) -> SysResult<Setting> {
    let mut before = [9; 4];
    sys!(
        SYS_timerfd_settime,
        timer,
        flags,
        setting.as_ptr(),
        before.as_mut_ptr()
    )?;
    Ok(before)
}

fn left(timer: &OwnedFd) -> SysResult<Setting> {
    let mut left = [9; 4];
    sys!(SYS_timerfd_gettime, timer, left.as_mut_ptr())?;
    Ok(left)
}

fn times(timer: &OwnedFd) -> SysResult<u64> {
    let mut count = 0_u64;
    let length = sys!(SYS_read, timer, &raw mut count, 8)?;
    assert_eq!(length, 8);
    Ok(count)
}

fn is_ready(timer: &OwnedFd, timeout: i32) -> SysResult<bool> {
    let mut file = pollfd {
        fd: std::os::fd::AsRawFd::as_raw_fd(timer),
        events: POLLIN | libc::POLLOUT,
        revents: 0,
    };
    let count = sys!(SYS_poll, &raw mut file, 1, timeout)?;
    Ok((count, file.revents) == (1, POLLIN))
}

fn a_timer_counts_its_times() -> Outcome {
    in_some_try(|| {
        let timer = timer(CLOCK_MONOTONIC, 0)?;
        set(&timer, 0, &every(20 * MS))?;
        thread::sleep(Duration::from_millis(70));
        expect_eq!(times(&timer), Ok(3));
        expect_eq!(times(&timer), Ok(1));
        Ok(())
    })
}

fn a_read_waits_for_the_first_time() -> Outcome {
    for clock in [CLOCK_MONOTONIC, CLOCK_REALTIME, CLOCK_BOOTTIME] {
        let timer = timer(clock, 0)?;
        let start = Instant::now();
        set(&timer, 0, &after(20 * MS))?;
        expect_eq!(times(&timer), Ok(1));
        expect!(start.elapsed() >= Duration::from_millis(20));
    }
    Ok(())
}

fn a_timer_is_ready_when_it_was_not_read() -> Outcome {
    let timer = timer(CLOCK_MONOTONIC, TFD_NONBLOCK)?;
    expect!(!is_ready(&timer, 0)?);
    expect_eq!(times(&timer), Err(Errno(libc::EAGAIN)));
    set(&timer, 0, &after(1))?;
    expect!(is_ready(&timer, -1)?);
    expect!(is_ready(&timer, 0)?);
    expect_eq!(times(&timer), Ok(1));
    expect!(!is_ready(&timer, 0)?);
    expect_eq!(times(&timer), Err(Errno(libc::EAGAIN)));
    Ok(())
}

fn a_poll_waits_for_a_timer() -> Outcome {
    let timer = timer(CLOCK_MONOTONIC, 0)?;
    let start = Instant::now();
    set(&timer, 0, &after(20 * MS))?;
    expect!(is_ready(&timer, 10_000)?);
    expect!(start.elapsed() >= Duration::from_millis(20));
    expect!(start.elapsed() < Duration::from_secs(5));
    Ok(())
}

fn now(clock: i32) -> SysResult<[i64; 2]> {
    let mut time = [0; 2];
    sys!(SYS_clock_gettime, clock, time.as_mut_ptr())?;
    Ok(time)
}

fn a_timer_at_a_time() -> Outcome {
    for clock in [CLOCK_MONOTONIC, CLOCK_REALTIME, CLOCK_BOOTTIME] {
        let timer = timer(clock, 0)?;
        let [seconds, nanoseconds] = now(clock)?;
        let end = seconds * 1_000_000_000 + nanoseconds + 20 * MS;
        let setting = [0, 0, end / 1_000_000_000, end % 1_000_000_000];
        let start = Instant::now();
        set(
            &timer,
            TFD_TIMER_ABSTIME | TFD_TIMER_CANCEL_ON_SET,
            &setting,
        )?;
        expect_eq!(times(&timer), Ok(1));
        expect!(start.elapsed() >= Duration::from_millis(15));
        let [_, _, seconds, nanoseconds] = setting;
        expect!(now(clock)? >= [seconds, nanoseconds]);
    }
    Ok(())
}

fn a_time_that_has_passed() -> Outcome {
    let timer = timer(CLOCK_REALTIME, 0)?;
    set(&timer, TFD_TIMER_ABSTIME, &[0, 0, 1, 0])?;
    expect_eq!(times(&timer), Ok(1));
    Ok(())
}

fn what_is_left_of_a_timer() -> Outcome {
    let timer = timer(CLOCK_MONOTONIC, TFD_NONBLOCK)?;
    expect_eq!(left(&timer), Ok([0; 4]));
    expect_eq!(set(&timer, 0, &[3, 4, 100, 0])?, [0; 4]);
    let [seconds, nanoseconds, rest, part] = left(&timer)?;
    expect_eq!([seconds, nanoseconds], [3, 4]);
    expect!((98..100).contains(&rest) && part < 1_000_000_000);
    let before = set(&timer, 0, &[0; 4])?;
    expect!(before[..2] == [3, 4] && (98..100).contains(&before[2]));
    expect_eq!(left(&timer), Ok([0; 4]));
    // Of one that went off once nothing is left, of one with an interval there always is.
    set(&timer, 0, &after(1))?;
    expect!(is_ready(&timer, -1)?);
    expect_eq!(left(&timer), Ok([0; 4]));
    expect_eq!(times(&timer), Ok(1));
    set(&timer, 0, &[50, 0, 0, 1])?;
    expect!(is_ready(&timer, -1)?);
    let [interval, _, rest, _] = left(&timer)?;
    expect_eq!(interval, 50);
    expect!((48..50).contains(&rest));
    expect_eq!(times(&timer), Ok(1));
    Ok(())
}

fn a_timer_that_is_set_forgets() -> Outcome {
    let timer = timer(CLOCK_MONOTONIC, TFD_NONBLOCK)?;
    set(&timer, 0, &after(1))?;
    expect!(is_ready(&timer, -1)?);
    set(&timer, 0, &[0, 0, 100, 0])?;
    expect_eq!(times(&timer), Err(Errno(libc::EAGAIN)));
    expect!(!is_ready(&timer, 0)?);
    Ok(())
}

fn a_timer_with_a_short_interval() -> Outcome {
    // It must not keep the machine from everything else.
    let timer = timer(CLOCK_MONOTONIC, 0)?;
    set(&timer, 0, &every(1))?;
    let start = Instant::now();
    let mut all = 0;
    while start.elapsed() < Duration::from_millis(20) {
        all += times(&timer)?;
    }
    expect!(all > 1_000_000);
    thread::sleep(Duration::from_millis(5));
    expect!(times(&timer)? >= 5_000_000);
    Ok(())
}

fn a_ring_reads_a_timer() -> Outcome {
    let timer = timer(CLOCK_MONOTONIC, 0)?;
    let mut ring = io_uring::IoUring::new(4)?;
    let mut count = 0_u64;
    let fd = io_uring::types::Fd(std::os::fd::AsRawFd::as_raw_fd(&timer));
    let read = io_uring::opcode::Read::new(fd, (&raw mut count).cast(), 8).build();
    // SAFETY: the count outlives the read, which is waited for.
    unsafe { ring.submission().push(&read)? };
    ring.submit()?;
    expect!(ring.completion().next().is_none());
    set(&timer, 0, &after(5 * MS))?;
    ring.submit_and_wait(1)?;
    let results: Vec<_> = ring.completion().map(|entry| entry.result()).collect();
    expect_eq!(results, [8]);
    expect_eq!(count, 1);
    Ok(())
}

fn timers_have_rules() -> Outcome {
    fails!(EINVAL, SYS_timerfd_create, CLOCK_MONOTONIC, 1);
    for clock in [
        libc::CLOCK_PROCESS_CPUTIME_ID,
        libc::CLOCK_MONOTONIC_RAW,
        10,
        11,
        99,
        -1,
    ] {
        fails!(EINVAL, SYS_timerfd_create, clock, 0);
    }
    let timer = timer(CLOCK_MONOTONIC, TFD_NONBLOCK)?;
    let nowhere = Mapping::nowhere()?;
    let setting = after(1);
    fails!(EFAULT, SYS_timerfd_settime, -1, 0, nowhere, 0);
    fails!(
        EINVAL,
        SYS_timerfd_settime,
        -1,
        0,
        after(1_000_000_000).as_ptr(),
        0
    );
    fails!(EINVAL, SYS_timerfd_settime, -1, 4, setting.as_ptr(), 0);
    fails!(EBADF, SYS_timerfd_settime, -1, 0, setting.as_ptr(), 0);
    fails!(EINVAL, SYS_timerfd_settime, 0, 0, setting.as_ptr(), 0);
    fails!(
        EFAULT,
        SYS_timerfd_settime,
        &timer,
        0,
        setting.as_ptr(),
        nowhere
    );
    fails!(EFAULT, SYS_timerfd_gettime, &timer, nowhere);
    fails!(EBADF, SYS_timerfd_gettime, -1, nowhere);
    fails!(EINVAL, SYS_timerfd_gettime, 0, nowhere);
    set(&timer, 0, &[0; 4])?;
    let mut bytes = [0_u8; 16];
    fails!(EINVAL, SYS_read, &timer, bytes.as_mut_ptr(), 7);
    fails!(EINVAL, SYS_write, &timer, bytes.as_mut_ptr(), 8);
    fails!(EAGAIN, SYS_read, &timer, bytes.as_mut_ptr(), 8);
    set(&timer, 0, &setting)?;
    expect!(is_ready(&timer, -1)?);
    // The times that a read could not store are lost.
    fails!(EFAULT, SYS_read, &timer, nowhere, 8);
    expect_eq!(
        sys!(SYS_read, &timer, bytes.as_mut_ptr(), 16),
        Err(Errno(libc::EAGAIN))
    );
    Ok(())
}
