//! Access to device registers.

use crate::physical::{self, PhysAddr};
use core::arch::asm;

/// Reads the 32-bit register at `address`, which is in the range where devices are.
///
/// The instruction is spelt out because a host that emulates it must be able to decode it: a
/// plain `mov` with an address in a register, whatever the compiler would have made of a
/// volatile read.
pub(crate) fn read(address: PhysAddr) -> u32 {
    let value: u32;
    // SAFETY: `MmioRegion` has checked that no RAM is there, so no memory of ours is read.
    unsafe {
        asm!(
            "mov {value:e}, dword ptr [{address}]",
            address = in(reg) physical::pointer(address),
            value = out(reg) value,
            options(nostack, preserves_flags),
        );
    }
    value
}

/// Writes the 32-bit register at `address`, which is in the range where devices are.
pub(crate) fn write(address: PhysAddr, value: u32) {
    // SAFETY: as above; and `asm!` without `nomem` is a compiler barrier, so that what the write
    // announces to the device is in memory before it.
    unsafe {
        asm!(
            "mov dword ptr [{address}], {value:e}",
            address = in(reg) physical::pointer(address),
            value = in(reg) value,
            options(nostack, preserves_flags),
        );
    }
}
