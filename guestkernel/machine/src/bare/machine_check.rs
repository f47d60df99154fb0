//! What the processor says of a machine check (Intel SDM volume 3, section 17.3).

use super::mode::is_ring0;
use super::privileged::read_msr;
use core::fmt::{self, Write};

const MSR_CAPABILITIES: u32 = 0x179;
const MSR_STATUS: u32 = 0x17a;
/// The first bank's status; its address is the next register, and each bank has four.
const MSR_BANK_STATUS: u32 = 0x401;

/// The bits of a bank's status that say that there is an error, and an address.
const IS_VALID: u64 = 1 << 63;
const HAS_ADDRESS: u64 = 1 << 58;

/// Writes the banks that have an error.
pub(super) fn describe(out: &mut impl Write) -> fmt::Result {
    writeln!(out, "kernel panic: machine check")?;
    if !is_ring0() {
        // The registers are out of reach.
        return Ok(());
    }
    // SAFETY: where machine checks are, these registers are.
    let (banks, status) = unsafe { (read_msr(MSR_CAPABILITIES) & 0xff, read_msr(MSR_STATUS)) };
    writeln!(out, "status {status:#x}")?;
    for bank in 0..banks as u32 {
        let register = MSR_BANK_STATUS + 4 * bank;
        // SAFETY: the bank exists.
        let status = unsafe { read_msr(register) };
        if status & IS_VALID == 0 {
            continue;
        }
        write!(out, "bank {bank}: status {status:#018x}")?;
        if status & HAS_ADDRESS != 0 {
            // SAFETY: the bank has it, as it says.
            write!(out, ", address {:#x}", unsafe { read_msr(register + 1) })?;
        }
        writeln!(out)?;
    }
    Ok(())
}
