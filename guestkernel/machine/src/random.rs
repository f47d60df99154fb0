//! The CPU's random number generator.

/// 64 bits from RDRAND (Intel SDM volume 1, 7.3.17); `None` if the CPU has no such instruction,
/// or no number at the moment.
pub fn hardware_random() -> Option<u64> {
    #[cfg(not(miri))]
    {
        use core::arch::x86_64::__cpuid;
        const RDRAND: u32 = 1 << 30;
        if __cpuid(1).ecx & RDRAND != 0 {
            let (value, is_valid): (u64, u8);
            // SAFETY: the CPU has the instruction; it changes a register and the flags.
            unsafe {
                core::arch::asm!(
                    "rdrand {value}",
                    "setc {is_valid}",
                    value = out(reg) value,
                    is_valid = out(reg_byte) is_valid,
                    options(nomem, nostack),
                );
            }
            return (is_valid != 0).then_some(value);
        }
    }
    None
}
