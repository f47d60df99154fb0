//! Mapped memory: `munmap(2)`, `mprotect(2)`, `mremap(2)`, `madvise(2)`, `mincore(2)`, `brk(2)` and
//! what locks and syncs it. Making mappings is in [`map`](super::map).

use super::Actor;
use crate::error::{Errno, Result};
use crate::executor::Stint;
use crate::mm::{Access, AddressSpace, Advice, NotForked, PAGE, Remap, TASK_SIZE};
use alloc::vec::Vec;
use linux_raw_sys::general as raw;

/// Pages that `mincore(2)` looks at at a time.
const MINCORE_PAGES: u64 = 4096;

/// What `PROT_*` mean.
pub(super) fn access(protection: u64) -> Access {
    let protection = protection as u32;
    let mut access = Access::empty();
    access.set(Access::READ, protection & raw::PROT_READ != 0);
    access.set(Access::WRITE, protection & raw::PROT_WRITE != 0);
    access.set(Access::EXECUTE, protection & raw::PROT_EXEC != 0);
    access
}

/// `munmap(2)`.
pub struct Unmap {
    /// The first byte.
    pub address: u64,
    /// Bytes.
    pub length: u64,
}

impl Unmap {
    /// Does it if that takes no time to speak of: `None`, and nothing done, if it may.
    #[inline]
    pub fn run_now(&self, actor: Actor<'_>) -> Option<Result<()>> {
        AddressSpace::is_small(self.length).then(|| actor.space().unmap(self.address, self.length))
    }

    /// Does it.
    ///
    /// # Errors
    ///
    /// Those of `munmap(2)`.
    pub async fn run(self, actor: Actor<'_>) -> Result<()> {
        let space = actor.space();
        space.unmap_in_pieces(self.address, self.length).await
    }
}

/// `mprotect(2)`.
pub struct Protect {
    /// The first byte.
    pub address: u64,
    /// Bytes.
    pub length: u64,
    /// `PROT_*`.
    pub protection: u64,
}

impl Protect {
    fn check(&self, actor: Actor<'_>) -> Result<()> {
        let known = raw::PROT_READ | raw::PROT_WRITE | raw::PROT_EXEC | raw::PROT_SEM;
        let grows = u64::from(raw::PROT_GROWSDOWN | raw::PROT_GROWSUP);
        if self.protection & grows == grows || !self.address.is_multiple_of(PAGE) {
            return Err(Errno::EINVAL);
        }
        if self.length == 0 {
            return Ok(());
        }
        let end = self
            .length
            .checked_next_multiple_of(PAGE)
            .and_then(|length| self.address.checked_add(length));
        if end.is_none_or(|end| end <= self.address) {
            return Err(Errno::ENOMEM);
        }
        // No mapping grows here, so PROT_GROWSDOWN and PROT_GROWSUP fit none.
        match self.protection & !u64::from(known) {
            0 => Ok(()),
            more if more & !grows == 0 && actor.space().mapped_from(self.address) == 0 => {
                Err(Errno::ENOMEM)
            }
            _ => Err(Errno::EINVAL),
        }
    }

    /// Does it if that takes no time to speak of: `None`, and nothing done, if it may.
    #[inline]
    pub fn run_now(&self, actor: Actor<'_>) -> Option<Result<()>> {
        let protect = || {
            self.check(actor)?;
            let space = actor.space();
            space.protect(self.address, self.length, access(self.protection))
        };
        AddressSpace::is_small(self.length).then(protect)
    }

    /// Does it.
    ///
    /// # Errors
    ///
    /// Those of `mprotect(2)`.
    pub async fn run(self, actor: Actor<'_>) -> Result<()> {
        self.check(actor)?;
        let (space, access) = (actor.space(), access(self.protection));
        space
            .protect_in_pieces(self.address, self.length, access)
            .await
    }
}

/// `mremap(2)`.
pub struct Move {
    /// The first byte.
    pub address: u64,
    /// Bytes now.
    pub old_length: u64,
    /// Bytes then.
    pub new_length: u64,
    /// `MREMAP_*`.
    pub flags: u64,
    /// Where it goes with `MREMAP_FIXED`.
    pub new_address: u64,
}

impl Move {
    /// Does it; gives where it is.
    ///
    /// # Errors
    ///
    /// Those of `mremap(2)`.
    pub fn run(self, actor: Actor<'_>) -> Result<u64> {
        let flag = |bit: u32| self.flags & u64::from(bit) != 0;
        let known = raw::MREMAP_MAYMOVE | raw::MREMAP_FIXED | raw::MREMAP_DONTUNMAP;
        let may_move = flag(raw::MREMAP_MAYMOVE);
        let is_fixed = flag(raw::MREMAP_FIXED);
        let keep_old = flag(raw::MREMAP_DONTUNMAP);
        let is_valid = self.flags & !u64::from(known) == 0
            && (may_move || !is_fixed && !keep_old)
            && (!keep_old || self.old_length == self.new_length);
        if !is_valid {
            return Err(Errno::EINVAL);
        }
        actor.space().remap(Remap {
            address: self.address,
            old_length: self.old_length,
            new_length: self.new_length,
            may_move,
            fixed: is_fixed.then_some(self.new_address),
            keep_old,
        })
    }
}

/// `madvise(2)` and `IORING_OP_MADVISE`: how memory will be used.
pub struct AdviseMemory {
    /// The first byte.
    pub address: u64,
    /// Bytes.
    pub length: u64,
    /// `MADV_*`.
    pub advice: u32,
}

impl AdviseMemory {
    fn advice(&self) -> Result<Advice> {
        let fork = |what, is_set| Advice::Fork { what, is_set };
        Ok(match self.advice {
            raw::MADV_DONTNEED => Advice::DontNeed { locked_too: false },
            raw::MADV_DONTNEED_LOCKED => Advice::DontNeed { locked_too: true },
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
        })
    }

    /// Does it if that takes no time to speak of: `None`, and nothing done, if it may.
    #[inline]
    pub fn run_now(&self, actor: Actor<'_>) -> Option<Result<()>> {
        match self.advice() {
            Err(error) => Some(Err(error)),
            Ok(Advice::Populate { .. }) => None,
            Ok(advice) => AddressSpace::is_small(self.length)
                .then(|| actor.space().advise(self.address, self.length, advice)),
        }
    }

    /// Does it.
    ///
    /// # Errors
    ///
    /// Those of `madvise(2)`.
    pub async fn run(self, actor: Actor<'_>) -> Result<()> {
        let advice = self.advice()?;
        let space = actor.space();
        space
            .advise_in_pieces(self.address, self.length, advice)
            .await
    }
}

/// `brk(2)`.
pub struct SetBreak {
    /// Where the heap is to end.
    pub address: u64,
}

impl SetBreak {
    /// Does it if that takes no time to speak of: `None`, and nothing done, if it may. Gives where
    /// the heap ends.
    #[inline]
    pub fn run_now(&self, actor: Actor<'_>) -> Option<u64> {
        let space = actor.space();
        let limit = Self::limit(actor);
        space
            .is_break_near(self.address)
            .then(|| space.set_break(self.address, limit))
    }

    /// Does it; gives where the heap ends.
    pub async fn run(self, actor: Actor<'_>) -> u64 {
        let limit = Self::limit(actor);
        actor.space().set_break_in_pieces(self.address, limit).await
    }

    fn limit(actor: Actor<'_>) -> u64 {
        let limit = actor.process.limits.lock().get(raw::RLIMIT_DATA);
        limit.map_or(u64::MAX, |limit| limit.soft)
    }
}

/// `mincore(2)`: which pages are in memory.
pub struct GetResidency {
    /// The first byte.
    pub address: u64,
    /// Bytes.
    pub length: u64,
    /// Where a byte for each page goes.
    pub pages_at: u64,
}

impl GetResidency {
    /// Does it.
    ///
    /// # Errors
    ///
    /// Those of `mincore(2)`.
    pub async fn run(self, actor: Actor<'_>) -> Result<()> {
        let space = actor.space();
        if !self.address.is_multiple_of(PAGE) {
            return Err(Errno::EINVAL);
        }
        let length = self.length.checked_next_multiple_of(PAGE);
        let end = length.and_then(|length| self.address.checked_add(length));
        let end = end.filter(|end| *end <= TASK_SIZE).ok_or(Errno::ENOMEM)?;
        let (mut at, mut out) = (self.address, self.pages_at);
        let mut stint = Stint::default();
        // What lies before a hole is told before the hole is.
        while at < end {
            let most = (end - at).min(MINCORE_PAGES * PAGE);
            let length = space.mapped_from(at).min(most);
            let residency = space.residency(at, length.max(PAGE))?;
            let bytes: Vec<u8> = residency.into_iter().map(u8::from).collect();
            space.write(out, &bytes)?;
            at += length;
            out = out.wrapping_add(bytes.len() as u64);
            stint.give_way().await;
        }
        Ok(())
    }
}

/// `msync(2)`.
pub struct SyncMemory {
    /// The first byte.
    pub address: u64,
    /// Bytes.
    pub length: u64,
    /// `MS_*`.
    pub flags: u32,
}

impl SyncMemory {
    /// Does it.
    ///
    /// # Errors
    ///
    /// Those of `msync(2)`.
    pub fn run(self, actor: Actor<'_>) -> Result<()> {
        let known = raw::MS_ASYNC | raw::MS_INVALIDATE | raw::MS_SYNC;
        let both = raw::MS_ASYNC | raw::MS_SYNC;
        let is_valid = self.address.is_multiple_of(PAGE)
            && self.flags & !known == 0
            && self.flags & both != both;
        if !is_valid {
            return Err(Errno::EINVAL);
        }
        // A length that is rounded up to nothing is none, as on Linux.
        let length = self.length.wrapping_add(PAGE - 1) & !(PAGE - 1);
        let space = actor.space();
        let end = self.address.saturating_add(length);
        if self.flags & raw::MS_INVALIDATE != 0 && space.has_locked(self.address..end) {
            return Err(Errno::EBUSY);
        }
        check_mapped(space, self.address, length)
    }
}

/// `mlock(2)` and its relatives. Pages are never swapped out, so locking them is a matter of their
/// being there.
pub struct LockMemory {
    /// The first byte.
    pub address: u64,
    /// Bytes.
    pub length: u64,
    /// They are locked, not unlocked.
    pub locks: bool,
    /// They are brought in now, too: neither `munlock(2)` nor `MLOCK_ONFAULT`.
    pub brings_in: bool,
}

impl LockMemory {
    /// Does it.
    ///
    /// # Errors
    ///
    /// Those of `mlock(2)`.
    pub async fn run(self, actor: Actor<'_>) -> Result<()> {
        let space = actor.space();
        let start = self.address & !(PAGE - 1);
        let in_page = self.address % PAGE;
        // A length that is rounded up to nothing is none, as on Linux.
        let length = self.length.wrapping_add(in_page).wrapping_add(PAGE - 1) & !(PAGE - 1);
        if self.locks {
            let limit = lock_limit(actor)?;
            if length > limit & !(PAGE - 1) {
                return Err(Errno::ENOMEM);
            }
        }
        let end = start.checked_add(length).ok_or(Errno::EINVAL)?;
        // What lies before a hole is locked or unlocked all the same.
        let mapped = start.saturating_add(space.mapped_from(start)).min(end);
        space.set_locked(start..mapped, self.locks)?;
        if mapped < end {
            return Err(Errno::ENOMEM);
        }
        if self.brings_in {
            space.populate_in_pieces(start..end).await;
        }
        Ok(())
    }
}

/// `mlockall(2)`.
pub struct LockAllMemory {
    /// `MCL_*`.
    pub flags: u32,
}

impl LockAllMemory {
    /// Checks it: pages stay where they are anyway.
    ///
    /// # Errors
    ///
    /// `EINVAL`.
    pub fn run(self, actor: Actor<'_>) -> Result<()> {
        let known = raw::MCL_CURRENT | raw::MCL_FUTURE | raw::MCL_ONFAULT;
        let flags = self.flags;
        if flags == 0 || flags & !known != 0 || flags == raw::MCL_ONFAULT {
            return Err(Errno::EINVAL);
        }
        let limit = lock_limit(actor)?;
        match flags & raw::MCL_CURRENT != 0 && actor.space().size() > limit {
            true => Err(Errno::ENOMEM),
            false => Ok(()),
        }
    }
}

/// Bytes of memory that the process may lock (`RLIMIT_MEMLOCK`).
///
/// # Errors
///
/// `EPERM` if it may lock nothing.
fn lock_limit(actor: Actor<'_>) -> Result<u64> {
    if actor.process.credentials.lock().user.effective == 0 {
        return Ok(u64::MAX);
    }
    match actor.process.limits.lock().get(raw::RLIMIT_MEMLOCK)?.soft {
        0 => Err(Errno::EPERM),
        limit => Ok(limit),
    }
}

fn check_mapped(space: &AddressSpace, start: u64, length: u64) -> Result<()> {
    let end = length
        .checked_next_multiple_of(PAGE)
        .and_then(|length| start.checked_add(length))
        .ok_or(Errno::ENOMEM)?;
    space.check_mapped(start..end)
}

/// `membarrier(2)`. No command is offered: `MEMBARRIER_CMD_QUERY` says so.
pub struct Barrier {
    /// `MEMBARRIER_CMD_*`.
    pub command: i32,
    /// None are defined for these.
    pub flags: u32,
}

impl Barrier {
    /// Does it; gives the commands that there are.
    ///
    /// # Errors
    ///
    /// `EINVAL`.
    pub fn run(self) -> Result<u64> {
        match (self.command, self.flags) {
            (0, 0) => Ok(0),
            _ => Err(Errno::EINVAL),
        }
    }
}
