//! Signals that come while an operation runs: each stays pending, and is taken at the end. What a
//! case unblocks is caught.

use std::sync::atomic::{AtomicU32, Ordering};

use crate::sys;
use libc::{SIGALRM, SIGKILL, SIGSTOP, c_int};

const COUNT: usize = 65;
static CAUGHT: [AtomicU32; COUNT] = [const { AtomicU32::new(0) }; COUNT];
/// What is left as it is: what the processor raises, and what libc has for itself.
const KEPT: [c_int; 9] = [
    SIGKILL,
    SIGSTOP,
    libc::SIGSEGV,
    libc::SIGBUS,
    libc::SIGILL,
    libc::SIGFPE,
    libc::SIGTRAP,
    32,
    33,
];
const NAMES: [(c_int, &str); 13] = [
    (libc::SIGHUP, "SIGHUP"),
    (libc::SIGINT, "SIGINT"),
    (libc::SIGUSR1, "SIGUSR1"),
    (libc::SIGUSR2, "SIGUSR2"),
    (libc::SIGPIPE, "SIGPIPE"),
    (libc::SIGTERM, "SIGTERM"),
    (libc::SIGCHLD, "SIGCHLD"),
    (libc::SIGCONT, "SIGCONT"),
    (libc::SIGURG, "SIGURG"),
    (libc::SIGXFSZ, "SIGXFSZ"),
    (libc::SIGVTALRM, "SIGVTALRM"),
    (libc::SIGPROF, "SIGPROF"),
    (libc::SIGIO, "SIGIO"),
];

extern "C" fn catch(signal: c_int) {
    if let Some(count) = CAUGHT.get(signal as usize) {
        count.fetch_add(1, Ordering::Relaxed);
    }
}

/// Catches everything, blocks everything but the alarm, and forgets what has come.
pub(super) fn reset() {
    // SAFETY: a structure for which zeros are valid; sets of signals are written before use.
    let mut action: libc::sigaction = unsafe { std::mem::zeroed() };
    action.sa_sigaction = catch as extern "C" fn(c_int) as usize;
    for signal in (1..COUNT as c_int).filter(|signal| !KEPT.contains(signal)) {
        // SAFETY: the handler touches atomics only. What cannot be caught stays as it was.
        unsafe { libc::sigaction(signal, &raw const action, std::ptr::null_mut()) };
    }
    while taken().is_some() {}
    let blocked = !(1_u64 << (SIGALRM - 1));
    let _ = sys!(
        SYS_rt_sigprocmask,
        libc::SIG_SETMASK,
        &raw const blocked,
        0,
        8
    );
    for count in &CAUGHT {
        count.store(0, Ordering::Relaxed);
    }
}

/// Blocks everything for the thread that calls this.
pub(super) fn block() {
    let all = [u8::MAX; 128];
    let all = all.as_ptr().cast::<libc::sigset_t>();
    // SAFETY: the set is as long as libc's, and every bit of it is valid.
    unsafe { libc::pthread_sigmask(libc::SIG_BLOCK, all, std::ptr::null_mut()) };
}

/// Takes a signal that is pending.
fn taken() -> Option<usize> {
    let none = [0_u64; 2];
    let all = u64::MAX;
    sys!(SYS_rt_sigtimedwait, &raw const all, 0, none.as_ptr(), 8).ok()
}

/// What has come, with the alarms only if they are `wanted`.
pub(super) fn caught(wanted: bool) -> Vec<String> {
    while let Some(signal) = taken() {
        if let Some(count) = CAUGHT.get(signal) {
            count.fetch_add(1, Ordering::Relaxed);
        }
    }
    let came = CAUGHT.iter().enumerate().filter(|(signal, count)| {
        (wanted || *signal != SIGALRM as usize) && count.load(Ordering::Relaxed) > 0
    });
    came.map(|(signal, count)| {
        let name = NAMES.iter().find(|(number, _)| *number as usize == signal);
        let name = name.map_or_else(
            || format!("signal {signal}"),
            |(_, name)| (*name).to_owned(),
        );
        match count.load(Ordering::Relaxed) {
            1 => name,
            count => format!("{name} x{count}"),
        }
    })
    .collect()
}
