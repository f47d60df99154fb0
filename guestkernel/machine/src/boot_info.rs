//! What the machine hands to the kernel when it has booted.

use crate::frame::Frame;
use alloc::string::String;
use alloc::vec::Vec;

/// What the kernel is told by the VMM.
#[derive(Debug)]
pub struct BootInfo {
    /// The kernel's command line; what is not UTF-8 is replaced.
    pub command_line: String,
    /// The boot modules in order.
    pub modules: Vec<BootModule>,
    /// TSC cycles that a loop of 16 instructions took at CPL 0: tens where it is native, tens of
    /// thousands where it is emulated.
    pub boot_loop_cycles: u32,
}

/// A file that the VMM has put into memory.
#[derive(Debug)]
pub struct BootModule {
    /// The module's own command line, which names it; may be empty.
    pub name: Vec<u8>,
    /// The pages that hold it, owned by whoever takes them.
    pub frames: Vec<Frame>,
    /// Its length in bytes.
    pub length: usize,
}
