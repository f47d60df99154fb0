//! Processes and threads: what they have, how they start, run and end.

mod account;
mod call_sites;
mod credentials;
mod elf;
mod emulated_fault;
mod exceptions;
mod exec;
pub mod futex;
mod image;
mod interval_timer;
mod limits;
mod posix_timer;
#[expect(clippy::module_inception, reason = "it is what the module is about")]
mod process;
mod restart;
mod robust_list;
mod rseq;
mod signal;
mod signaling;
mod stack;
#[cfg(test)]
pub(crate) mod tests;
mod thread;
mod thread_group;
mod thread_state;
mod timer;
mod wait_table;

pub use credentials::{Credentials, Ids};
pub(crate) use exec::{find, load};
pub use interval_timer::{IntervalTimer, IntervalTimers};
pub use limits::{Limit, Limits};
pub use posix_timer::{Notice, PosixTimer};
pub use process::{ExitStatus, Process};
pub use restart::Restart;
pub(crate) use ringlet_abi::names::system_call as call_name;
pub use signal::{
    Action, AlternateStack, INFO_SIZE, Interrupted, SI_TKILL, SI_USER, Sender, Signal, SignalInfo,
    SignalSet,
};
pub use thread::{NewThread, Thread, ThreadMain};
pub use thread_group::Target;
pub use thread_state::ThreadState;
pub use timer::{Schedule, Timer, TimerClock, TimerSetting, next_after, set as set_timer};

/// Clock ticks in a second, the unit of `times(2)` (`AT_CLKTCK`).
pub const CLOCK_TICKS: u64 = 100;
