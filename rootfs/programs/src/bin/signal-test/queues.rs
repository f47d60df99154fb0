//! Signals that wait in turn: real-time signals, and values with them.

use crate::catch::{bit, block, catch, caught, gettid, kill, tgkill};
use guest_programs::check::{Check, Outcome};
use guest_programs::sys::SysResult;
use guest_programs::{checks, expect, expect_eq, fails, sys};
use libc::{SIGTERM, SIGUSR1};

pub(crate) const CHECKS: &[Check] = checks![
    real_time_signals_wait_in_turn,
    low_numbers_go_first,
    a_value_comes_with_a_signal,
    what_a_program_says_of_a_signal_is_passed_on,
    nobody_pretends_to_be_the_kernel,
    only_so_many_signals_wait,
    waiting_takes_a_signal_that_is_blocked,
    waiting_ends_with_its_time,
    waiting_calls_have_errors,
];

/// Real-time signals that the C library leaves to programs.
const FIRST: i32 = 34;
const LAST: i32 = 64;
const SI_QUEUE: i32 = -1;

/// A `siginfo_t`, as words.
type Info = [u64; 16];

fn info(code: i32, value: u64) -> Info {
    let mut info = [0; 16];
    info[1] = u64::from(code as u32);
    // The sender's process and user, and the value.
    info[2] = u64::from(std::process::id());
    info[3] = value;
    info
}

fn queue(signal: i32, info: &Info) -> SysResult {
    sys!(
        SYS_rt_sigqueueinfo,
        std::process::id(),
        signal,
        info.as_ptr()
    )
}

fn values() -> Vec<(i32, usize)> {
    let all = caught();
    all.iter()
        .map(|caught| (caught.signal, caught.value))
        .collect()
}

fn real_time_signals_wait_in_turn() -> Outcome {
    let _handled = catch(FIRST, 0);
    let before = block(bit(FIRST));
    for value in 1..=5 {
        queue(FIRST, &info(SI_QUEUE, value))?;
    }
    block(before);
    // Each handler runs before the next begins.
    expect_eq!(
        values(),
        [(FIRST, 1), (FIRST, 2), (FIRST, 3), (FIRST, 4), (FIRST, 5)]
    );
    Ok(())
}

fn low_numbers_go_first() -> Outcome {
    let _handled = [catch(FIRST, 0), catch(LAST, 0), catch(SIGUSR1, 0)];
    let all = bit(FIRST) | bit(LAST) | bit(SIGUSR1);
    let before = block(all);
    queue(LAST, &info(SI_QUEUE, 1))?;
    queue(FIRST, &info(SI_QUEUE, 2))?;
    queue(SIGUSR1, &info(SI_QUEUE, 3))?;
    queue(SIGUSR1, &info(SI_QUEUE, 4))?;
    let mut got = Vec::new();
    for _ in 0..3 {
        let mut told: Info = [0; 16];
        let zero = [0_u64; 2];
        let signal = sys!(
            SYS_rt_sigtimedwait,
            &raw const all,
            told.as_mut_ptr(),
            zero.as_ptr(),
            8
        )?;
        got.push((signal as i32, told[3]));
    }
    block(before);
    expect_eq!(got, [(SIGUSR1, 3), (FIRST, 2), (LAST, 1)]);
    // What a thread alone has goes before what all have.
    let before = block(all);
    kill(SIGUSR1)?;
    tgkill(gettid(), LAST)?;
    let zero = [0_u64; 2];
    let first = sys!(SYS_rt_sigtimedwait, &raw const all, 0, zero.as_ptr(), 8)?;
    let second = sys!(SYS_rt_sigtimedwait, &raw const all, 0, zero.as_ptr(), 8)?;
    block(before);
    expect_eq!([first as i32, second as i32], [LAST, SIGUSR1]);
    Ok(())
}

fn a_value_comes_with_a_signal() -> Outcome {
    let _handled = catch(FIRST, 0);
    queue(FIRST, &info(SI_QUEUE, 0x1234_5678_9abc))?;
    let told = caught()[0];
    expect_eq!((told.code, told.value), (SI_QUEUE, 0x1234_5678_9abc));
    expect_eq!(told.pid, std::process::id() as i32);
    let pid = std::process::id();
    let info = info(SI_QUEUE, 7);
    sys!(SYS_rt_tgsigqueueinfo, pid, gettid(), FIRST, info.as_ptr())?;
    let told = caught()[0];
    expect_eq!((told.code, told.value, told.tid), (SI_QUEUE, 7, gettid()));
    Ok(())
}

fn what_a_program_says_of_a_signal_is_passed_on() -> Outcome {
    let signals = bit(FIRST);
    let before = block(signals);
    let mut sent: Info = [0; 16];
    sent[0] = u64::from(99_u32) | 77 << 32;
    sent[1] = u64::from(-60_i32 as u32) | 55 << 32;
    for (index, word) in sent[2..6].iter_mut().enumerate() {
        *word = 0x1111_1111_1111 * (index as u64 + 1);
    }
    queue(FIRST, &sent)?;
    let mut told: Info = [u64::MAX; 16];
    sys!(
        SYS_rt_sigtimedwait,
        &raw const signals,
        told.as_mut_ptr(),
        0,
        8
    )?;
    block(before);
    // The number is the call's; the padding is nothing.
    expect_eq!(told[0], FIRST as u64 | 77 << 32);
    expect_eq!(told[1] as u32, -60_i32 as u32);
    expect_eq!(told[2..6].to_vec(), sent[2..6].to_vec());
    expect_eq!(told[6..].to_vec(), [0; 10]);
    // More than is known to belong to a code is refused.
    sent[1] = u64::from(-9_i32 as u32);
    sent[10] = 1;
    fails!(
        E2BIG,
        SYS_rt_sigqueueinfo,
        std::process::id(),
        FIRST,
        sent.as_ptr()
    );
    Ok(())
}

fn nobody_pretends_to_be_the_kernel() -> Outcome {
    let _handled = catch(FIRST, 0);
    let pid = std::process::id();
    // To oneself anything can be said.
    for code in [0, 0x80, -6, -2] {
        queue(FIRST, &info(code, 1))?;
        expect_eq!(caught()[0].code, code);
    }
    // To others not.
    let seen = std::thread::spawn(move || {
        [0, 0x80, -6].map(|code| {
            let info = info(code, 1);
            sys!(SYS_rt_sigqueueinfo, pid, FIRST, info.as_ptr())
        })
    });
    let seen = seen.join().unwrap_or([Ok(0); 3]);
    expect_eq!(seen, [Err(guest_programs::sys::Errno(libc::EPERM)); 3]);
    fails!(EFAULT, SYS_rt_sigqueueinfo, pid, FIRST, 8);
    let info = info(SI_QUEUE, 0);
    fails!(EINVAL, SYS_rt_sigqueueinfo, pid, 65, info.as_ptr());
    fails!(ESRCH, SYS_rt_sigqueueinfo, 4_100_000, FIRST, info.as_ptr());
    fails!(EINVAL, SYS_rt_tgsigqueueinfo, pid, 0, FIRST, info.as_ptr());
    fails!(
        ESRCH,
        SYS_rt_tgsigqueueinfo,
        pid + 1_000_000,
        gettid(),
        FIRST,
        info.as_ptr()
    );
    Ok(())
}

fn only_so_many_signals_wait() -> Outcome {
    let _handled = [catch(FIRST, 0), catch(SIGTERM, 0)];
    let mut limit = [0_u64; 2];
    sys!(SYS_getrlimit, libc::RLIMIT_SIGPENDING, limit.as_mut_ptr())?;
    let lower = [64, limit[1]];
    let before = block(bit(FIRST) | bit(SIGTERM));
    sys!(SYS_setrlimit, libc::RLIMIT_SIGPENDING, lower.as_ptr())?;
    let mut waiting = 0;
    let refused = loop {
        match queue(FIRST, &info(SI_QUEUE, waiting)) {
            Ok(_) if waiting < 1000 => waiting += 1,
            result => break result,
        }
    };
    // Others still come, without what is known of them.
    let killed = kill(SIGTERM);
    let killed_again = sys!(SYS_kill, std::process::id(), FIRST);
    sys!(SYS_setrlimit, libc::RLIMIT_SIGPENDING, limit.as_ptr())?;
    block(before);
    expect_eq!(refused, Err(guest_programs::sys::Errno(libc::EAGAIN)));
    expect!(waiting > 0 && waiting <= 64);
    expect_eq!((killed, killed_again), (Ok(0), Ok(0)));
    let all = caught();
    let terms: Vec<_> = all
        .iter()
        .filter(|caught| caught.signal == SIGTERM)
        .collect();
    expect_eq!(terms.len(), 1);
    Ok(())
}

fn waiting_takes_a_signal_that_is_blocked() -> Outcome {
    let _handled = catch(SIGUSR1, 0);
    let wanted = bit(SIGUSR1);
    let before = block(wanted);
    kill(SIGUSR1)?;
    let got = sys!(SYS_rt_sigtimedwait, &raw const wanted, 0, 0, 8);
    // One that comes while it waits, though it is ignored otherwise.
    let ignored = crate::catch::handle_raw(SIGUSR1, libc::SIG_IGN, 0, 0);
    let tid = gettid();
    let later = std::thread::spawn(move || {
        std::thread::sleep(std::time::Duration::from_millis(20));
        tgkill(tid, SIGUSR1)
    });
    let got_later = sys!(SYS_rt_sigtimedwait, &raw const wanted, 0, 0, 8);
    let sent = later.join().unwrap_or(Ok(1));
    drop(ignored);
    block(before);
    expect_eq!((got, got_later, sent), (Ok(10), Ok(10), Ok(0)));
    expect_eq!(caught().len(), 0);
    Ok(())
}

fn waiting_ends_with_its_time() -> Outcome {
    let wanted = bit(SIGUSR1);
    let before = block(wanted);
    let time = [0_u64, 20_000_000];
    let start = std::time::Instant::now();
    let result = sys!(SYS_rt_sigtimedwait, &raw const wanted, 0, time.as_ptr(), 8);
    block(before);
    expect_eq!(result, Err(guest_programs::sys::Errno(libc::EAGAIN)));
    expect!(start.elapsed() >= std::time::Duration::from_millis(20));
    Ok(())
}

fn waiting_calls_have_errors() -> Outcome {
    let wanted = bit(SIGUSR1);
    let bad = [0_u64, 1_000_000_000];
    fails!(
        EINVAL,
        SYS_rt_sigtimedwait,
        &raw const wanted,
        0,
        bad.as_ptr(),
        8
    );
    fails!(EINVAL, SYS_rt_sigtimedwait, &raw const wanted, 0, 0, 4);
    fails!(EFAULT, SYS_rt_sigtimedwait, 8, 0, 0, 8);
    fails!(EFAULT, SYS_rt_sigtimedwait, &raw const wanted, 0, 8, 8);
    fails!(EINVAL, SYS_rt_sigsuspend, &raw const wanted, 4);
    fails!(EFAULT, SYS_rt_sigsuspend, 8, 8);
    Ok(())
}
