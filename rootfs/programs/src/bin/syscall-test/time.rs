//! Clocks and sleeping.

use std::ptr;
use std::time::{Duration, Instant};

use guest_programs::check::{Check, Outcome, in_some_try};
use guest_programs::sys::SysResult;
use guest_programs::{checks, expect, expect_eq, fails, sys};
use libc::{
    CLOCK_BOOTTIME, CLOCK_MONOTONIC, CLOCK_MONOTONIC_COARSE, CLOCK_MONOTONIC_RAW,
    CLOCK_PROCESS_CPUTIME_ID, CLOCK_REALTIME, CLOCK_REALTIME_COARSE, CLOCK_THREAD_CPUTIME_ID,
    TIMER_ABSTIME, timespec,
};

pub(crate) const CHECKS: &[Check] = checks![
    monotonic_clock_advances,
    realtime_clock_is_plausible,
    clocks_agree,
    cpu_clocks_count_work,
    clock_errors,
    clock_resolution,
    old_time_calls,
    nanosleep_sleeps,
    nanosleep_errors,
    clock_nanosleep_absolute,
    clock_nanosleep_errors,
    sleeping_uses_no_cpu,
];

fn now(clock: i32) -> SysResult<Duration> {
    let mut time = spec(0, 0);
    sys!(SYS_clock_gettime, clock, &raw mut time)?;
    Ok(Duration::new(time.tv_sec as u64, time.tv_nsec as u32))
}

fn spec(tv_sec: i64, tv_nsec: i64) -> timespec {
    timespec { tv_sec, tv_nsec }
}

const MILLISECOND: i64 = 1_000_000;

fn monotonic_clock_advances() -> Outcome {
    let mut last = now(CLOCK_MONOTONIC)?;
    let start = last;
    for _ in 0..1000 {
        let next = now(CLOCK_MONOTONIC)?;
        expect!(next >= last);
        last = next;
    }
    expect!(last > start);
    // The vDSO, if there is one, shows the same clock.
    let library = Instant::now();
    let call = now(CLOCK_MONOTONIC)?;
    expect!(library.elapsed() < Duration::from_secs(30) && call >= last);
    Ok(())
}

fn realtime_clock_is_plausible() -> Outcome {
    let year_2025 = Duration::from_secs(1_735_689_600);
    let year_2100 = Duration::from_secs(4_102_444_800);
    let time = now(CLOCK_REALTIME)?;
    expect!(time > year_2025 && time < year_2100);
    Ok(())
}

fn clocks_agree() -> Outcome {
    in_some_try(clocks_are_near)
}

fn clocks_are_near() -> Outcome {
    let near = |a: Duration, b: Duration| a.abs_diff(b) < Duration::from_millis(200);
    expect!(near(now(CLOCK_MONOTONIC)?, now(CLOCK_MONOTONIC_COARSE)?));
    expect!(near(now(CLOCK_REALTIME)?, now(CLOCK_REALTIME_COARSE)?));
    expect!(now(CLOCK_BOOTTIME)? + Duration::from_millis(1) >= now(CLOCK_MONOTONIC)?);
    let (raw, plain) = (now(CLOCK_MONOTONIC_RAW)?, now(CLOCK_MONOTONIC)?);
    sys!(SYS_nanosleep, ptr::from_ref(&spec(0, 20 * MILLISECOND)), 0)?;
    let raw = now(CLOCK_MONOTONIC_RAW)? - raw;
    let plain = now(CLOCK_MONOTONIC)? - plain;
    expect!(near(raw, plain));
    Ok(())
}

fn cpu_clocks_count_work() -> Outcome {
    in_some_try(work_is_counted)
}

fn work_is_counted() -> Outcome {
    for clock in [CLOCK_PROCESS_CPUTIME_ID, CLOCK_THREAD_CPUTIME_ID] {
        let before = now(clock)?;
        let start = Instant::now();
        while start.elapsed() < Duration::from_millis(20) {
            std::hint::spin_loop();
        }
        let used = now(clock)? - before;
        expect!(used > Duration::from_millis(2) && used < Duration::from_millis(200));
    }
    Ok(())
}

fn clock_errors() -> Outcome {
    let mut time = spec(0, 0);
    fails!(EINVAL, SYS_clock_gettime, 99, &raw mut time);
    fails!(EINVAL, SYS_clock_getres, 99, &raw mut time);
    Ok(())
}

fn clock_resolution() -> Outcome {
    let mut time = spec(9, 9);
    sys!(SYS_clock_getres, CLOCK_MONOTONIC, &raw mut time)?;
    expect_eq!((time.tv_sec, time.tv_nsec), (0, 1));
    // The result may be left out.
    expect_eq!(sys!(SYS_clock_getres, CLOCK_REALTIME, 0), Ok(0));
    Ok(())
}

fn old_time_calls() -> Outcome {
    let mut time = libc::timeval {
        tv_sec: 0,
        tv_usec: 0,
    };
    let before = now(CLOCK_REALTIME)?.as_secs() as i64;
    expect_eq!(sys!(SYS_gettimeofday, &raw mut time, 0), Ok(0));
    expect!((before..before + 30).contains(&time.tv_sec));
    expect!((0..1_000_000).contains(&time.tv_usec));
    let mut seconds = 0_i64;
    let returned = sys!(SYS_time, &raw mut seconds)? as i64;
    expect_eq!(returned, seconds);
    expect!((before - 1..before + 30).contains(&seconds));
    Ok(())
}

fn nanosleep_sleeps() -> Outcome {
    for milliseconds in [0, 1, 30] {
        let before = now(CLOCK_MONOTONIC)?;
        let time = spec(0, milliseconds * MILLISECOND);
        expect_eq!(sys!(SYS_nanosleep, &raw const time, 0), Ok(0));
        let slept = now(CLOCK_MONOTONIC)? - before;
        expect!(slept >= Duration::from_millis(milliseconds as u64));
        expect!(slept < Duration::from_secs(10));
    }
    Ok(())
}

fn nanosleep_errors() -> Outcome {
    fails!(
        EINVAL,
        SYS_nanosleep,
        ptr::from_ref(&spec(0, 1_000_000_000)),
        0
    );
    fails!(EINVAL, SYS_nanosleep, ptr::from_ref(&spec(0, -1)), 0);
    fails!(EINVAL, SYS_nanosleep, ptr::from_ref(&spec(-1, 0)), 0);
    Ok(())
}

fn clock_nanosleep_absolute() -> Outcome {
    for clock in [CLOCK_MONOTONIC, CLOCK_REALTIME] {
        let until = now(clock)? + Duration::from_millis(30);
        let time = spec(until.as_secs() as i64, i64::from(until.subsec_nanos()));
        expect_eq!(
            sys!(
                SYS_clock_nanosleep,
                clock,
                TIMER_ABSTIME,
                &raw const time,
                0
            ),
            Ok(0)
        );
        expect!(now(clock)? >= until);
        // What is past already does not sleep.
        let before = now(CLOCK_MONOTONIC)?;
        let past = spec(0, 1);
        expect_eq!(
            sys!(
                SYS_clock_nanosleep,
                clock,
                TIMER_ABSTIME,
                &raw const past,
                0
            ),
            Ok(0)
        );
        expect!(now(CLOCK_MONOTONIC)? - before < Duration::from_secs(10));
    }
    Ok(())
}

fn clock_nanosleep_errors() -> Outcome {
    let time = spec(0, 1);
    fails!(EINVAL, SYS_clock_nanosleep, 99, 0, &raw const time, 0);
    fails!(
        EOPNOTSUPP,
        SYS_clock_nanosleep,
        CLOCK_THREAD_CPUTIME_ID,
        0,
        &raw const time,
        0
    );
    let invalid = spec(0, -1);
    fails!(
        EINVAL,
        SYS_clock_nanosleep,
        CLOCK_MONOTONIC,
        0,
        &raw const invalid,
        0
    );
    Ok(())
}

fn sleeping_uses_no_cpu() -> Outcome {
    in_some_try(sleep_is_not_counted)
}

fn sleep_is_not_counted() -> Outcome {
    let before = now(CLOCK_PROCESS_CPUTIME_ID)?;
    sys!(SYS_nanosleep, ptr::from_ref(&spec(0, 100 * MILLISECOND)), 0)?;
    let used = now(CLOCK_PROCESS_CPUTIME_ID)? - before;
    expect!(used < Duration::from_millis(50));
    Ok(())
}
