//! The serial port: the kernel's log and panics. A call costs one trap, and an exit to the VMM
//! for each byte where KVM emulates CPL 0.

use super::privileged;
use ringlet_abi::SERIAL_PORT;

/// Writes `bytes`.
pub fn write(bytes: &[u8]) {
    // SAFETY: the transmit register of a 16550, which takes a byte at any time in a VM.
    unsafe { privileged::write_port(SERIAL_PORT, bytes) }
}
