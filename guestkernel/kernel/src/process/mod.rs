//! Processes and threads: what they have, how they start, run and end.

mod limits;
mod process;
mod signals;
mod thread;

pub use limits::{Limit, Limits};
pub use process::{ExitStatus, Process};
pub use signals::{Action, Signal, SignalSet, Signals};
pub use thread::Thread;
