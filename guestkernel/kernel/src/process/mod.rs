//! Processes and threads: what they have, how they start, run and end.

mod account;
mod call_sites;
mod child;
mod control_block;
mod credentials;
mod elf;
mod emulated_fault;
mod exceptions;
mod exec;
mod executable;
mod fork;
pub mod futex;
mod image;
mod interval_timer;
mod job;
mod limits;
mod pid_file;
mod posix_timer;
#[expect(clippy::module_inception, reason = "it is what the module is about")]
mod process;
mod replace;
mod restart;
mod robust_list;
mod rseq;
mod signal;
mod signaling;
mod stack;
mod table;
#[cfg(test)]
pub(crate) mod tests;
mod thread;
mod thread_group;
mod thread_state;
mod timer;
mod wait_table;

pub use child::{WaitOptions, Waited, Which};
pub use control_block::{ControlBlock, ExitStatus};
pub use credentials::{Credentials, Ids};
pub(crate) use exec::{Given, Source, check_executable, find, load};
pub use executable::Executable;
pub use fork::{Departure, NewProcess, Shared};
pub use interval_timer::{IntervalTimer, IntervalTimers};
pub use job::{is_orphaned, members, session_of_group};
pub(crate) use limits::STACK as STACK_LIMIT;
pub use limits::{Limit, Limits};
pub use pid_file::PidFile;
pub use posix_timer::{Notice, PosixTimer};
pub use process::Process;
pub use restart::Restart;
pub(crate) use ringlet_abi::names::system_call as call_name;
pub use signal::{
    Action, AlternateStack, INFO_SIZE, Interrupted, SI_TKILL, SI_USER, Sender, Signal, SignalInfo,
    SignalSet,
};
pub use table::{PID_MAX, all, counts, process as process_with, process_of, thread as thread_with};
pub use thread::{NewThread, Thread, ThreadMain};
pub use thread_group::Target;
pub use thread_state::ThreadState;
pub use timer::{TimerClock, TimerSetting};

/// Clock ticks in a second, the unit of `times(2)` (`AT_CLKTCK`).
pub const CLOCK_TICKS: u64 = 100;
