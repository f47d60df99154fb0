//! Memory of a program: `madvise(2)` and its opcode.

use super::Actor;
use crate::error::{Errno, Result};
use crate::mm::{Advice, NotForked};
use linux_raw_sys::general as raw;

/// `madvise(2)`.
pub struct AdviseMemory {
    /// The first byte.
    pub address: u64,
    /// Bytes.
    pub length: u64,
    /// `MADV_*`.
    pub advice: u32,
}

impl AdviseMemory {
    /// Does it.
    ///
    /// # Errors
    ///
    /// Those of `madvise(2)`.
    pub fn run(self, actor: Actor<'_>) -> Result<()> {
        let fork = |what, is_set| Advice::Fork { what, is_set };
        let advice = match self.advice {
            raw::MADV_DONTNEED | raw::MADV_DONTNEED_LOCKED => Advice::DontNeed,
            raw::MADV_FREE => Advice::Free,
            raw::MADV_POPULATE_READ => Advice::Populate { for_write: false },
            raw::MADV_POPULATE_WRITE => Advice::Populate { for_write: true },
            raw::MADV_DONTFORK => fork(NotForked::AREA, true),
            raw::MADV_DOFORK => fork(NotForked::AREA, false),
            raw::MADV_WIPEONFORK => fork(NotForked::CONTENTS, true),
            raw::MADV_KEEPONFORK => fork(NotForked::CONTENTS, false),
            raw::MADV_NORMAL
            | raw::MADV_RANDOM
            | raw::MADV_SEQUENTIAL
            | raw::MADV_WILLNEED
            | raw::MADV_MERGEABLE
            | raw::MADV_UNMERGEABLE
            | raw::MADV_HUGEPAGE
            | raw::MADV_NOHUGEPAGE
            | raw::MADV_DONTDUMP
            | raw::MADV_DODUMP
            | raw::MADV_COLD
            | raw::MADV_PAGEOUT => Advice::Nothing,
            _ => return Err(Errno::EINVAL),
        };
        actor.space().advise(self.address, self.length, advice)
    }
}
