//! Timers that send signals: `setitimer(2)`, `alarm(2)`, `timer_create(2)`.

use crate::catch::{bit, block, catch, caught, gettid, handle_raw};
use guest_programs::check::{Check, Outcome, comes_true};
use guest_programs::sys::SysResult;
use guest_programs::{checks, expect, expect_eq, fails, sys};
use libc::{CLOCK_MONOTONIC, CLOCK_REALTIME, SIGALRM, SIGPROF, SIGUSR1, SIGVTALRM};
use std::time::{Duration, Instant};

pub(crate) const CHECKS: &[Check] = checks![
    an_alarm_goes_off,
    an_interval_timer_goes_off_again_and_again,
    an_interval_timer_of_cpu_time,
    interval_timers_tell_what_is_left,
    interval_timers_have_errors,
    a_timer_goes_off_with_its_value,
    a_timer_goes_off_again_and_again,
    a_timer_counts_what_nobody_takes,
    a_timer_at_a_time,
    a_timer_for_a_thread,
    a_timer_that_tells_nobody,
    a_timer_of_cpu_time,
    a_timer_that_is_set_anew_forgets,
    a_timer_that_is_deleted_forgets,
    a_timer_waits_until_its_signal_is_not_ignored,
    timers_have_errors,
];

const MS: i64 = 1_000_000;

/// `struct itimerspec` and `itimerval`: the interval, and the time until the first.
type Setting = [i64; 4];

fn after(nanoseconds: i64) -> Setting {
    [
        0,
        0,
        nanoseconds / 1_000_000_000,
        nanoseconds % 1_000_000_000,
    ]
}

fn every(nanoseconds: i64) -> Setting {
    [0, nanoseconds, 0, nanoseconds]
}

fn set_interval(which: i32, setting: &Setting) -> SysResult {
    sys!(SYS_setitimer, which, setting.as_ptr(), 0)
}

/// Computes until `condition`.
fn compute_until(mut condition: impl FnMut() -> bool) -> bool {
    let start = Instant::now();
    while start.elapsed() < Duration::from_secs(10) {
        if condition() {
            return true;
        }
    }
    false
}

fn an_alarm_goes_off() -> Outcome {
    let _handled = catch(SIGALRM, 0);
    let start = Instant::now();
    expect_eq!(sys!(SYS_alarm, 1), Ok(0));
    expect_eq!(sys!(SYS_alarm, 1), Ok(1));
    let mut all = Vec::new();
    expect!(comes_true(|| {
        all.extend(caught());
        !all.is_empty()
    }));
    expect!(start.elapsed() >= Duration::from_secs(1));
    expect_eq!((all[0].signal, all[0].code), (SIGALRM, libc::SI_KERNEL));
    sys!(SYS_alarm, 100)?;
    expect_eq!(sys!(SYS_alarm, 0), Ok(100));
    expect_eq!(sys!(SYS_alarm, 0), Ok(0));
    Ok(())
}

fn an_interval_timer_goes_off_again_and_again() -> Outcome {
    let _handled = catch(SIGALRM, 0);
    // Also while nothing but the program runs.
    set_interval(libc::ITIMER_REAL, &[0, 5000, 0, 5000])?;
    let mut count = 0;
    let computed = compute_until(|| {
        count += caught().len();
        count >= 5
    });
    let waited = comes_true(|| {
        count += caught().len();
        count >= 10
    });
    set_interval(libc::ITIMER_REAL, &[0; 4])?;
    expect!(computed && waited);
    Ok(())
}

fn an_interval_timer_of_cpu_time() -> Outcome {
    for (which, signal) in [
        (libc::ITIMER_VIRTUAL, SIGVTALRM),
        (libc::ITIMER_PROF, SIGPROF),
    ] {
        let _handled = catch(signal, 0);
        set_interval(which, &[0, 10_000, 0, 20_000])?;
        let mut count = 0;
        let computed = compute_until(|| {
            count += caught().len();
            count >= 3
        });
        set_interval(which, &[0; 4])?;
        expect!(computed);
    }
    Ok(())
}

fn interval_timers_tell_what_is_left() -> Outcome {
    for which in [libc::ITIMER_REAL, libc::ITIMER_VIRTUAL, libc::ITIMER_PROF] {
        let mut left: Setting = [9; 4];
        set_interval(which, &[7, 1000, 50, 0])?;
        sys!(SYS_getitimer, which, left.as_mut_ptr())?;
        expect_eq!((left[0], left[1]), (7, 1000));
        expect!(left[2] == 49 || left[2] == 50);
        sys!(SYS_setitimer, which, 0, left.as_mut_ptr())?;
        expect!(left[2] == 49 || left[2] == 50);
        sys!(SYS_getitimer, which, left.as_mut_ptr())?;
        expect_eq!(left, [0; 4]);
    }
    Ok(())
}

fn interval_timers_have_errors() -> Outcome {
    let bad: Setting = [0, 0, 0, 1_000_000];
    let negative: Setting = [0, 0, -1, 0];
    fails!(EINVAL, SYS_setitimer, 0, bad.as_ptr(), 0);
    fails!(EINVAL, SYS_setitimer, 0, negative.as_ptr(), 0);
    fails!(EINVAL, SYS_setitimer, 3, 0, 0);
    fails!(EFAULT, SYS_setitimer, 3, 8, 0);
    fails!(EINVAL, SYS_getitimer, 3, bad.as_ptr());
    fails!(EFAULT, SYS_getitimer, 0, 8);
    Ok(())
}

/// A `sigevent`: value, signal and kind, thread.
type Event = [u64; 8];

const SIGNAL: u64 = 0;
const NONE: u64 = 1;
const THREAD: u64 = 4;

fn event(value: u64, signal: i32, kind: u64, tid: i32) -> Event {
    let mut event = [0; 8];
    event[0] = value;
    event[1] = signal as u64 | kind << 32;
    event[2] = tid as u64;
    event
}

/// A timer, which goes when this is dropped.
struct Timer(i32);

impl Timer {
    fn new(clock: i32, event: &Event) -> SysResult<Self> {
        let mut id = -1;
        sys!(SYS_timer_create, clock, event.as_ptr(), &raw mut id)?;
        Ok(Self(id))
    }

    fn set(&self, setting: &Setting) -> SysResult {
        sys!(SYS_timer_settime, self.0, 0, setting.as_ptr(), 0)
    }

    fn left(&self) -> SysResult<Setting> {
        let mut left = [9; 4];
        sys!(SYS_timer_gettime, self.0, left.as_mut_ptr())?;
        Ok(left)
    }
}

impl Drop for Timer {
    fn drop(&mut self) {
        // One that a check has deleted is no error.
        let _ = sys!(SYS_timer_delete, self.0);
    }
}

fn a_timer_goes_off_with_its_value() -> Outcome {
    let _handled = catch(SIGUSR1, 0);
    let timer = Timer::new(
        CLOCK_MONOTONIC,
        &event(0x1234_5678_9abc, SIGUSR1, SIGNAL, 0),
    )?;
    let start = Instant::now();
    timer.set(&after(20 * MS))?;
    let mut all = Vec::new();
    expect!(comes_true(|| {
        all.extend(caught());
        !all.is_empty()
    }));
    expect!(start.elapsed() >= Duration::from_millis(20));
    expect_eq!(
        (all[0].code, all[0].value),
        (libc::SI_TIMER, 0x1234_5678_9abc)
    );
    // The number of the timer, and no overrun.
    expect_eq!((all[0].pid, all[0].user), (timer.0, 0));
    expect_eq!(timer.left()?, [0; 4]);
    // Without an event it is SIGALRM with the timer's number.
    let _handled = catch(SIGALRM, 0);
    let mut id = -1;
    sys!(SYS_timer_create, CLOCK_REALTIME, 0, &raw mut id)?;
    let timer = Timer(id);
    timer.set(&after(MS))?;
    expect!(comes_true(|| {
        all.extend(caught());
        all.len() > 1
    }));
    expect_eq!((all[1].signal, all[1].value as i32), (SIGALRM, id));
    Ok(())
}

fn a_timer_goes_off_again_and_again() -> Outcome {
    let _handled = catch(SIGUSR1, 0);
    let timer = Timer::new(CLOCK_MONOTONIC, &event(1, SIGUSR1, SIGNAL, 0))?;
    timer.set(&every(5 * MS))?;
    let mut count = 0;
    expect!(compute_until(|| {
        count += caught().len();
        count >= 5
    }));
    let left = timer.left()?;
    expect_eq!((left[0], left[1]), (0, 5 * MS));
    expect!(left[2] == 0 && left[3] > 0 && left[3] <= 5 * MS);
    Ok(())
}

fn a_timer_counts_what_nobody_takes() -> Outcome {
    let _handled = catch(SIGUSR1, 0);
    let timer = Timer::new(CLOCK_MONOTONIC, &event(1, SIGUSR1, SIGNAL, 0))?;
    let before = block(bit(SIGUSR1));
    timer.set(&every(MS))?;
    std::thread::sleep(Duration::from_millis(50));
    let left = timer.left()?;
    block(before);
    timer.set(&[0; 4])?;
    let all = caught();
    let overrun = all.first().map_or(0, |caught| caught.user);
    expect!(overrun >= 45);
    expect!(left[2] == 0 && left[3] > 0 && left[3] <= MS);
    // It goes on from there.
    timer.set(&every(MS / 4))?;
    let mut count = 0;
    expect!(compute_until(|| {
        count += caught().len();
        count >= 100
    }));
    Ok(())
}

fn now(clock: i32) -> SysResult<[i64; 2]> {
    let mut time = [0; 2];
    sys!(SYS_clock_gettime, clock, time.as_mut_ptr())?;
    Ok(time)
}

fn a_timer_at_a_time() -> Outcome {
    let _handled = catch(SIGUSR1, 0);
    for clock in [CLOCK_MONOTONIC, CLOCK_REALTIME, libc::CLOCK_BOOTTIME] {
        let timer = Timer::new(clock, &event(1, SIGUSR1, SIGNAL, 0))?;
        let [seconds, nanoseconds] = now(clock)?;
        let at = nanoseconds + 20 * MS;
        let setting = [0, 0, seconds + at / 1_000_000_000, at % 1_000_000_000];
        sys!(
            SYS_timer_settime,
            timer.0,
            libc::TIMER_ABSTIME,
            setting.as_ptr(),
            0
        )?;
        expect!(comes_true(|| !caught().is_empty()));
        let time = now(clock)?;
        expect!((time[0], time[1]) >= (setting[2], setting[3]));
        // A time that has passed comes at once.
        let setting = [0, 0, seconds - 1, 0];
        sys!(
            SYS_timer_settime,
            timer.0,
            libc::TIMER_ABSTIME,
            setting.as_ptr(),
            0
        )?;
        expect!(comes_true(|| !caught().is_empty()));
    }
    Ok(())
}

fn a_timer_for_a_thread() -> Outcome {
    let _handled = catch(SIGUSR1, 0);
    let seen = std::thread::spawn(|| {
        let timer = Timer::new(CLOCK_MONOTONIC, &event(1, SIGUSR1, THREAD, gettid()))?;
        timer.set(&after(5 * MS))?;
        let mut by = Vec::new();
        comes_true(|| {
            by.extend(caught().iter().map(|caught| caught.tid));
            !by.is_empty()
        });
        Ok((by, gettid()))
    });
    let seen: SysResult<_> = seen.join().unwrap_or(Ok((Vec::new(), 0)));
    let (by, tid) = seen?;
    expect_eq!(by, [tid]);
    let event = event(1, SIGUSR1, THREAD, 4_100_000);
    let mut id = 0;
    fails!(
        EINVAL,
        SYS_timer_create,
        CLOCK_MONOTONIC,
        event.as_ptr(),
        &raw mut id
    );
    Ok(())
}

fn a_timer_that_tells_nobody() -> Outcome {
    let timer = Timer::new(CLOCK_MONOTONIC, &event(1, 0, NONE, 0))?;
    timer.set(&after(20 * MS))?;
    let left = timer.left()?;
    expect!(left[2] == 0 && left[3] > 0 && left[3] <= 20 * MS);
    std::thread::sleep(Duration::from_millis(25));
    expect_eq!(timer.left()?, [0; 4]);
    timer.set(&every(20 * MS))?;
    std::thread::sleep(Duration::from_millis(30));
    let left = timer.left()?;
    expect!(left[2] == 0 && left[3] > 0 && left[3] <= 20 * MS);
    Ok(())
}

fn a_timer_of_cpu_time() -> Outcome {
    let _handled = catch(SIGUSR1, 0);
    for clock in [
        libc::CLOCK_PROCESS_CPUTIME_ID,
        libc::CLOCK_THREAD_CPUTIME_ID,
    ] {
        let timer = Timer::new(clock, &event(1, SIGUSR1, SIGNAL, 0))?;
        let start = now(clock)?;
        timer.set(&after(30 * MS))?;
        expect!(compute_until(|| !caught().is_empty()));
        let end = now(clock)?;
        let used = (end[0] - start[0]) * 1_000_000_000 + end[1] - start[1];
        expect!(used >= 30 * MS);
    }
    Ok(())
}

fn a_timer_that_is_set_anew_forgets() -> Outcome {
    let _handled = catch(SIGUSR1, 0);
    let timer = Timer::new(CLOCK_MONOTONIC, &event(1, SIGUSR1, SIGNAL, 0))?;
    let before = block(bit(SIGUSR1));
    timer.set(&after(MS))?;
    std::thread::sleep(Duration::from_millis(10));
    timer.set(&[0; 4])?;
    block(before);
    expect_eq!(caught().len(), 0);
    Ok(())
}

fn a_timer_that_is_deleted_forgets() -> Outcome {
    let _handled = catch(SIGUSR1, 0);
    let timer = Timer::new(CLOCK_MONOTONIC, &event(1, SIGUSR1, SIGNAL, 0))?;
    let before = block(bit(SIGUSR1));
    timer.set(&every(MS))?;
    std::thread::sleep(Duration::from_millis(10));
    sys!(SYS_timer_delete, timer.0)?;
    block(before);
    expect_eq!(caught().len(), 0);
    fails!(EINVAL, SYS_timer_delete, timer.0);
    Ok(())
}

fn a_timer_waits_until_its_signal_is_not_ignored() -> Outcome {
    let ignored = handle_raw(SIGUSR1, libc::SIG_IGN, 0, 0);
    let timer = Timer::new(CLOCK_MONOTONIC, &event(1, SIGUSR1, SIGNAL, 0))?;
    timer.set(&every(2 * MS))?;
    std::thread::sleep(Duration::from_millis(10));
    let handled = catch(SIGUSR1, 0);
    expect!(comes_true(|| !caught().is_empty()));
    // The timer goes first: without a handler its signal would end the program.
    drop(timer);
    drop((handled, ignored));
    Ok(())
}

fn timers_have_errors() -> Outcome {
    let good = event(1, SIGUSR1, SIGNAL, 0);
    let mut id = 0;
    let id = &raw mut id;
    fails!(EINVAL, SYS_timer_create, 77, good.as_ptr(), id);
    let bad_signal = event(1, 65, SIGNAL, 0);
    fails!(
        EINVAL,
        SYS_timer_create,
        CLOCK_MONOTONIC,
        bad_signal.as_ptr(),
        id
    );
    let bad_kind = event(1, SIGUSR1, 7, 0);
    fails!(
        EINVAL,
        SYS_timer_create,
        CLOCK_MONOTONIC,
        bad_kind.as_ptr(),
        id
    );
    fails!(EFAULT, SYS_timer_create, CLOCK_MONOTONIC, 8, id);
    fails!(EFAULT, SYS_timer_create, CLOCK_MONOTONIC, good.as_ptr(), 8);
    fails!(
        EOPNOTSUPP,
        SYS_timer_create,
        libc::CLOCK_MONOTONIC_RAW,
        good.as_ptr(),
        id
    );
    let timer = Timer::new(CLOCK_MONOTONIC, &good)?;
    let bad: Setting = [0, 0, 0, 1_000_000_000];
    let zero: Setting = [0; 4];
    fails!(EINVAL, SYS_timer_settime, timer.0, 0, bad.as_ptr(), 0);
    fails!(EINVAL, SYS_timer_settime, timer.0, 0, 0, 0);
    fails!(EFAULT, SYS_timer_settime, timer.0, 0, 8, 0);
    fails!(EFAULT, SYS_timer_gettime, timer.0, 8);
    let none = timer.0 + 1_000_000;
    fails!(EINVAL, SYS_timer_settime, none, 0, zero.as_ptr(), 0);
    fails!(EINVAL, SYS_timer_gettime, none, zero.as_ptr());
    fails!(EINVAL, SYS_timer_getoverrun, none);
    expect_eq!(sys!(SYS_timer_getoverrun, timer.0), Ok(0));
    Ok(())
}
