//! What entering the kernel costs: io_uring NOPs in batches, a system call that does nothing, and a signal.

use std::error::Error;

use io_uring::{IoUring, opcode};

use crate::{Context, Outcome, ring};

/// Nanoseconds for each NOP, submitted and completed `batch` at a time.
pub(crate) fn nops(context: &Context, batch: u32) -> Outcome {
    let mut ring = ring(batch)?;
    let rate = context.rate(|| submit_nops(&mut ring, batch, 2048 / u64::from(batch)))?;
    Ok(1e9 / rate)
}

/// Submits and completes `batch` NOPs, `rounds` times; gives how many that are.
pub(crate) fn submit_nops(
    ring: &mut IoUring,
    batch: u32,
    rounds: u64,
) -> Result<u64, Box<dyn Error>> {
    for _ in 0..rounds {
        let mut queue = ring.submission();
        for index in 0..batch {
            let entry = opcode::Nop::new().build().user_data(index.into());
            // SAFETY: a NOP refers to no memory.
            unsafe { queue.push(&entry) }?;
        }
        drop(queue);
        let mut left = batch as usize;
        while left > 0 {
            ring.submit_and_wait(left)?;
            for entry in ring.completion() {
                if entry.result() != 0 {
                    return Err(format!("a NOP completed with {}", entry.result()).into());
                }
                left -= 1;
            }
        }
    }
    Ok(rounds * u64::from(batch))
}

/// Nanoseconds for `getppid`, which neither libc nor the vDSO answers.
pub(crate) fn null_syscall(context: &Context) -> Outcome {
    const CALLS: u64 = 1000;
    let rate = context.rate(|| {
        for _ in 0..CALLS {
            // SAFETY: getppid takes no arguments and has no effect.
            if unsafe { libc::syscall(libc::SYS_getppid) } < 0 {
                return Err("getppid failed".into());
            }
        }
        Ok(CALLS)
    })?;
    Ok(1e9 / rate)
}

/// Nanoseconds for a signal that the program sends itself: its handler is called, and returns.
pub(crate) fn signal(context: &Context) -> Outcome {
    const SIGNALS: u64 = 1000;
    extern "C" fn handler(_: libc::c_int) {}
    let before = {
        let handler = handler as *const () as libc::sighandler_t;
        // SAFETY: the handler does nothing.
        unsafe { libc::signal(libc::SIGUSR1, handler) }
    };
    let pid = std::process::id();
    let rate = context.rate(|| {
        for _ in 0..SIGNALS {
            // SAFETY: kill takes two numbers.
            if unsafe { libc::syscall(libc::SYS_kill, pid, libc::SIGUSR1) } < 0 {
                return Err("kill failed".into());
            }
        }
        Ok(SIGNALS)
    })?;
    // SAFETY: it was what was done before.
    unsafe { libc::signal(libc::SIGUSR1, before) };
    Ok(1e9 / rate)
}
