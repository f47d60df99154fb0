//! Exceptions that a KVM without VMX and SVM gets wrong: where an instruction of CPL 3 causes a general
//! protection fault, it tries to emulate it, and says "invalid opcode" if it cannot.

/// The longest beginning of an instruction that is looked at.
pub(super) const PREFIX: usize = 3;

/// The error code of the general protection fault that the instruction causes which `code` begins, if it is
/// valid: if it faulted, it was not for its opcode.
pub(super) fn error_code(code: &[u8]) -> Option<u64> {
    /// Of a selector of the table of gates.
    const GATES: u64 = 2;
    let operation = |mod_rm: u8| mod_rm >> 3 & 7;
    let is_memory = |mod_rm: u8| mod_rm < 0xc0;
    match *code {
        // INT n.
        [0xcd, vector, ..] => Some(u64::from(vector) << 3 | GATES),
        // Far call and far jump, whose selector is in memory.
        [0xff, mod_rm, ..] if is_memory(mod_rm) && matches!(operation(mod_rm), 3 | 5) => Some(0),
        // LDMXCSR.
        [0x0f, 0xae, mod_rm, ..] if is_memory(mod_rm) && operation(mod_rm) == 2 => Some(0),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn instructions_are_told_apart() {
        for (code, error) in [
            (&[0xcd, 0x80][..], 0x402),
            (&[0xff, 0x28], 0),
            (&[0xff, 0x18], 0),
            (&[0x0f, 0xae, 0x10], 0),
        ] {
            assert_eq!(error_code(code), Some(error), "{code:x?}");
        }
        for code in [
            &[0x0f, 0x0b][..],
            &[0xff, 0xe8],
            &[0xff, 0x20],
            &[0x0f, 0xae, 0xd0],
            &[],
        ] {
            assert_eq!(error_code(code), None, "{code:x?}");
        }
    }
}
