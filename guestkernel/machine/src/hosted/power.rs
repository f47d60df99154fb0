//! Ending the VM: a panic with the reason, for a test to catch.

use crate::frame::BLOCK;
use crate::{Frame, PAGE_SIZE, PhysAddr, physical};
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

/// Gives a block of free memory back: it holds zeros then.
pub(crate) fn release(block: u32) -> bool {
    let first = u64::from(block) * u64::from(BLOCK) * PAGE_SIZE as u64;
    let bytes = BLOCK as usize * PAGE_SIZE;
    // SAFETY: the block is simulated RAM, all of whose frames are the caller's.
    unsafe { super::fill(physical::pointer(PhysAddr(first)), 0, bytes) };
    true
}

/// Whether there is somebody to take memory back.
pub fn can_release() -> bool {
    true
}

/// Says where the table of what the program asked for in vain is: nobody listens.
pub fn report_missing(_page: &Frame) {}

/// Reports the kernel's mode: nobody listens.
pub fn report_mode(_choice: ModeChoice) {}
