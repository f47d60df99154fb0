//! Exceptions that a KVM without VMX and SVM gets wrong: where an instruction of CPL 3 causes a general
//! protection fault, it tries to emulate it, and says "invalid opcode" if it cannot.

/// The longest beginning of an instruction that is looked at.
pub(super) const PREFIX: usize = 3;

/// Whether `code` begins an instruction that is valid: if it faulted, it was not for its opcode.
pub(super) fn is_valid(code: &[u8]) -> bool {
    let operation = |mod_rm: u8| mod_rm >> 3 & 7;
    let is_memory = |mod_rm: u8| mod_rm < 0xc0;
    match *code {
        // INT n.
        [0xcd, ..] => true,
        // Far call and far jump.
        [0xff, mod_rm, ..] => is_memory(mod_rm) && matches!(operation(mod_rm), 3 | 5),
        // LDMXCSR.
        [0x0f, 0xae, mod_rm, ..] => is_memory(mod_rm) && operation(mod_rm) == 2,
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn instructions_are_told_apart() {
        for code in [
            &[0xcd, 0x80][..],
            &[0xff, 0x28],
            &[0xff, 0x18],
            &[0x0f, 0xae, 0x10],
        ] {
            assert!(is_valid(code), "{code:x?}");
        }
        for code in [
            &[0x0f, 0x0b][..],
            &[0xff, 0xe8],
            &[0xff, 0x20],
            &[0x0f, 0xae, 0xd0],
            &[],
        ] {
            assert!(!is_valid(code), "{code:x?}");
        }
    }
}
