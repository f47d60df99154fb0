//! Ending the VM: a panic with the reason, for a test to catch.

use crate::Frame;
use ringlet_abi::control::{Exit, Mark, ModeChoice};

/// Ends the simulated machine.
///
/// # Panics
///
/// Always, with the [`Exit`] as payload.
pub fn exit(exit: Exit) -> ! {
    std::panic::panic_any(exit)
}

/// Reports a stage of the timeline: nobody listens.
pub fn mark(_mark: Mark) {}

/// Says where the table of what the program asked for in vain is: nobody listens.
pub fn report_missing(_page: &Frame) {}

/// Reports the kernel's mode: nobody listens.
pub fn report_mode(_choice: ModeChoice) {}
