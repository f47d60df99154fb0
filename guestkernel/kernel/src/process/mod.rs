//! Processes and threads: what they have, how they start, run and end.

mod call_sites;
mod credentials;
mod elf;
mod emulated_fault;
mod exec;
pub mod futex;
mod image;
mod interval_timer;
mod limits;
#[expect(clippy::module_inception, reason = "it is what the module is about")]
mod process;
mod robust_list;
mod rseq;
mod signals;
mod stack;
#[cfg(test)]
pub(crate) mod tests;
mod thread;
mod thread_state;
mod wait_table;

pub use credentials::{Credentials, Ids};
pub(crate) use exec::{find, load};
pub use interval_timer::{IntervalTimer, TimerSetting};
pub use limits::{Limit, Limits};
pub use process::{ExitStatus, Process};
pub(crate) use ringlet_abi::names::system_call as call_name;
pub use signals::{Action, Signal, SignalSet, Signals, ThreadSignals};
pub use thread::{NewThread, Thread, ThreadMain};
pub use thread_state::ThreadState;

/// Clock ticks in a second, the unit of `times(2)` (`AT_CLKTCK`).
pub const CLOCK_TICKS: u64 = 100;
