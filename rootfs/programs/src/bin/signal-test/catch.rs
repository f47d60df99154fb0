//! Catching signals: handlers that note what they are told.

use guest_programs::check::{Failure, Outcome};
use guest_programs::sys;
use guest_programs::sys::SysResult;
use libc::{c_int, c_void, siginfo_t, ucontext_t};
use std::mem::MaybeUninit;
use std::sync::Mutex;

/// What a handler was told of a signal.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Caught {
    pub(crate) signal: i32,
    pub(crate) code: i32,
    pub(crate) pid: i32,
    pub(crate) user: u32,
    pub(crate) value: usize,
    pub(crate) address: usize,
    /// What the thread blocks while the handler runs.
    pub(crate) blocked: u64,
    /// The thread.
    pub(crate) tid: i32,
}

/// Signals that handlers were called for, in order.
static CAUGHT: Mutex<Vec<Caught>> = Mutex::new(Vec::new());

/// Does something with them, without signals: so no handler waits for what it has interrupted.
fn with_caught<R>(with: impl FnOnce(&mut Vec<Caught>) -> R) -> Option<R> {
    let before = block(u64::MAX);
    let result = CAUGHT.lock().ok().map(|mut all| with(&mut all));
    block(before);
    result
}

/// The number of the thread.
pub(crate) fn gettid() -> i32 {
    sys!(SYS_gettid).map_or(0, |tid| tid as i32)
}

pub(crate) fn bit(signal: i32) -> u64 {
    1 << (signal - 1)
}

/// What the thread blocks.
pub(crate) fn blocked() -> u64 {
    let mut set = 0_u64;
    let result = sys!(SYS_rt_sigprocmask, 0, 0, &raw mut set, 8);
    result.map_or(u64::MAX, |_| set)
}

/// Sets what the thread blocks; gives what it did.
pub(crate) fn block(set: u64) -> u64 {
    let mut before = 0_u64;
    // The arguments are good: it cannot fail.
    let _ = sys!(
        SYS_rt_sigprocmask,
        libc::SIG_SETMASK,
        &raw const set,
        &raw mut before,
        8
    );
    before
}

extern "C" fn note(signal: c_int, info: *mut siginfo_t, _: *mut c_void) {
    // SAFETY: the kernel passes a `siginfo_t`; what its fields mean depends on its code, but all are
    // plain numbers.
    let caught = unsafe {
        let info = &*info;
        Caught {
            signal,
            code: info.si_code,
            pid: info.si_pid(),
            user: info.si_uid(),
            value: info.si_value().sival_ptr.addr(),
            address: info.si_addr().addr(),
            blocked: blocked(),
            tid: gettid(),
        }
    };
    with_caught(|all| all.push(caught));
}

/// What was caught since this was called last.
pub(crate) fn caught() -> Vec<Caught> {
    // Room for what comes, so that a handler need not allocate.
    let room = Vec::with_capacity(256);
    with_caught(|all| std::mem::replace(all, room)).unwrap_or_default()
}

/// The numbers of the signals that were caught.
pub(crate) fn caught_numbers() -> Vec<i32> {
    caught().iter().map(|caught| caught.signal).collect()
}

/// A handler as the C library takes it.
pub(crate) type Handler = extern "C" fn(c_int, *mut siginfo_t, *mut c_void);

/// What was done about a signal before, which is done again when this is dropped.
pub(crate) struct Handled {
    signal: i32,
    before: libc::sigaction,
}

impl Drop for Handled {
    fn drop(&mut self) {
        // SAFETY: what was there before was good.
        unsafe { libc::sigaction(self.signal, &self.before, std::ptr::null_mut()) };
    }
}

/// Has `handler` called for `signal`.
pub(crate) fn handle(signal: i32, handler: Handler, flags: i32, mask: u64) -> Handled {
    handle_raw(
        signal,
        handler as *const () as usize,
        flags | libc::SA_SIGINFO,
        mask,
    )
}

/// Sets what is done about `signal`: a handler's address, `SIG_IGN` or `SIG_DFL`.
pub(crate) fn handle_raw(signal: i32, handler: usize, flags: i32, mask: u64) -> Handled {
    let mut before = MaybeUninit::uninit();
    // SAFETY: all fields are filled in, and handlers only do what may be done in one.
    unsafe {
        let mut action: libc::sigaction = std::mem::zeroed();
        action.sa_sigaction = handler;
        action.sa_flags = flags;
        for number in 1..=64 {
            if mask & bit(number) != 0 {
                libc::sigaddset(&mut action.sa_mask, number);
            }
        }
        libc::sigaction(signal, &action, before.as_mut_ptr());
        Handled {
            signal,
            before: before.assume_init(),
        }
    }
}

/// Notes `signal` when it comes.
pub(crate) fn catch(signal: i32, flags: i32) -> Handled {
    caught();
    handle(signal, note, flags, 0)
}

/// As [`catch`], with more blocked meanwhile.
pub(crate) fn catch_masked(signal: i32, flags: i32, mask: u64) -> Handled {
    caught();
    handle(signal, note, flags, mask)
}

/// Sends the process a signal.
pub(crate) fn kill(signal: i32) -> SysResult {
    sys!(SYS_kill, std::process::id(), signal)
}

/// Sends a thread of the process a signal.
pub(crate) fn tgkill(tid: i32, signal: i32) -> SysResult {
    sys!(SYS_tgkill, std::process::id(), tid, signal)
}

/// The registers in a frame, for handlers that change where the program goes on.
pub(crate) fn registers(context: *mut c_void) -> &'static mut [i64; 23] {
    // SAFETY: the kernel passes a `ucontext_t`, and the handler returns before it goes.
    unsafe { &mut (*context.cast::<ucontext_t>()).uc_mcontext.gregs }
}

/// Fails unless exactly these were caught.
#[track_caller]
pub(crate) fn expect_caught(numbers: &[i32]) -> Outcome {
    let caught = caught_numbers();
    match caught == numbers {
        true => Ok(()),
        false => Err(Failure::new(format!("caught {caught:?}, not {numbers:?}"))),
    }
}
