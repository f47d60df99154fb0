//! System calls: the table of numbers and handlers.
//!
//! A handler decodes arguments, calls the one operation on kernel objects that does the work, and
//! encodes the result. Handlers stand in the file of what they are about; a new system call is
//! one line in the table here. The futures of all handlers that can wait share one allocation, of
//! the largest one's size: big ones box themselves.

mod arguments;
mod names;
mod process;

pub use arguments::Args;

use crate::error::{Errno, Result};
use crate::process::Thread;
use core::sync::atomic::{AtomicU64, Ordering};
use linux_raw_sys::general as number;

macro_rules! system_calls {
    (
        now { $($now:ident => $now_module:ident::$now_handler:ident),* $(,)? }
        wait { $($wait:ident => $wait_module:ident::$wait_handler:ident),* $(,)? }
    ) => {
        /// Does the system call with that number for `thread`.
        ///
        /// # Errors
        ///
        /// Those of the system call; `ENOSYS` if there is none, which is logged once.
        #[inline]
        pub async fn dispatch(thread: &mut Thread, number: u64, args: Args) -> Result<u64> {
            match u32::try_from(number).unwrap_or(u32::MAX) {
                $(number::$now => $now_module::$now_handler(thread, args),)*
                $(number::$wait => $wait_module::$wait_handler(thread, args).await,)*
                _ => unimplemented(number),
            }
        }
    };
}

system_calls! {
    // `fn(&mut Thread, Args) -> Result<u64>`
    now {
        __NR_getpid => process::getpid,
    }
    // `async fn(&mut Thread, Args) -> Result<u64>`
    wait {
        __NR_sched_yield => process::sched_yield,
    }
}

#[cold]
fn unimplemented(number: u64) -> Result<u64> {
    static LOGGED: [AtomicU64; 8] = [const { AtomicU64::new(0) }; 8];
    if let Some(name) = names::name(number) {
        let bit = 1 << (number % 64);
        let is_new = LOGGED
            .get(number as usize / 64)
            .is_some_and(|word| word.fetch_or(bit, Ordering::Relaxed) & bit == 0);
        if is_new {
            log::warn!("system call {name} ({number}) is not implemented");
        }
    }
    Err(Errno::ENOSYS)
}
