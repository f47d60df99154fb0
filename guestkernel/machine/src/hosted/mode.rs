//! The mode: programs are closures, which share the kernel's protection domain.

use crate::Mode;

/// The mode that the kernel runs in.
pub fn mode() -> Mode {
    Mode::Shared
}

/// Whether the host emulates CPL 0: a hosted machine has no other levels.
pub fn is_cpl0_emulated() -> bool {
    true
}
