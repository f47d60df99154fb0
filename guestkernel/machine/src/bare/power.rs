//! Ending the VM, and telling the VMM how far the guest has come.

use super::{monitor, write_register};
use crate::PhysAddr;
use ringlet_abi::CONTROL_BASE;
use ringlet_abi::control::{EXIT, Exit, MARK, Mark};

/// Ends the VM.
pub fn exit(exit: Exit) -> ! {
    // SAFETY: the control page's registers; the VMM stops all CPUs.
    unsafe { write_register(PhysAddr(CONTROL_BASE + EXIT), exit.encode()) }
    loop {
        monitor::wait();
    }
}

/// Reports a stage of the timeline.
pub fn mark(mark: Mark) {
    // SAFETY: as above; the VMM takes note.
    unsafe { write_register(PhysAddr(CONTROL_BASE + MARK), mark as u32) }
}
