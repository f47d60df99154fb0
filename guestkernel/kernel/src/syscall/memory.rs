//! System calls about memory: `mmap(2)` and its relatives.

use super::{Args, actor};
use crate::error::{Errno, Result};
use crate::mm::{Access, Backing, MapRequest, PAGE, Placement, Remap};
use crate::operation::AdviseMemory;
use crate::process::Thread;
use alloc::sync::Arc;
use alloc::vec::Vec;
use linux_raw_sys::general as raw;

/// Pages that `mincore(2)` looks at at a time.
const MINCORE_PAGES: u64 = 4096;
/// `MAP_*` that change nothing here: hints, and what is always so.
const MAP_IGNORED: u32 = raw::MAP_GROWSDOWN
    | raw::MAP_DENYWRITE
    | raw::MAP_EXECUTABLE
    | raw::MAP_LOCKED
    | raw::MAP_NONBLOCK
    | raw::MAP_STACK;
/// `MAP_*` that this kernel gives effect to.
const MAP_KNOWN: u32 = raw::MAP_TYPE
    | raw::MAP_FIXED
    | raw::MAP_ANONYMOUS
    | raw::MAP_FIXED_NOREPLACE
    | raw::MAP_32BIT
    | raw::MAP_POPULATE
    | raw::MAP_NORESERVE
    | raw::MAP_UNINITIALIZED;

pub(super) fn mmap(thread: &mut Thread, args: Args) -> Result<u64> {
    let [address, length, protection, flags, fd, offset] = args.0;
    let flags = flags as u32;
    if !offset.is_multiple_of(PAGE) {
        return Err(Errno::EINVAL);
    }
    let access = access(protection);
    let is_anonymous = flags & raw::MAP_ANONYMOUS != 0;
    let file = match is_anonymous {
        true if flags & raw::MAP_HUGETLB != 0 => return Err(Errno::ENOMEM),
        true => None,
        false => Some(thread.process.files.get(fd as i32)?),
    };
    if length == 0 {
        return Err(Errno::EINVAL);
    }
    let is_shared = match flags & raw::MAP_TYPE {
        raw::MAP_PRIVATE => false,
        raw::MAP_SHARED => true,
        raw::MAP_SHARED_VALIDATE if !is_anonymous => {
            if flags & !(MAP_KNOWN | MAP_IGNORED) != 0 {
                return Err(Errno::EOPNOTSUPP);
            }
            true
        }
        _ => return Err(Errno::EINVAL),
    };
    let mut max_access = MapRequest::ALL_ACCESS;
    let backing = match file {
        None => Backing::Anonymous,
        Some(file) => {
            let opened = file.flags();
            if !opened.can_read()
                || is_shared && access.contains(Access::WRITE) && !opened.can_write()
            {
                return Err(Errno::EACCES);
            }
            if is_shared && !opened.can_write() {
                max_access -= Access::WRITE;
            }
            let source = Arc::clone(&file.ops).page_source()?;
            let first_page = offset / PAGE;
            source.check_start(first_page)?;
            Backing::Source { source, first_page }
        }
    };
    let placement = if flags & raw::MAP_FIXED_NOREPLACE != 0 {
        Placement::FixedNoReplace(address)
    } else if flags & raw::MAP_FIXED != 0 {
        Placement::Fixed(address)
    } else if flags & raw::MAP_32BIT != 0 {
        Placement::Low(address)
    } else {
        Placement::Hint(address)
    };
    thread.process.space.map(MapRequest {
        placement,
        length,
        access,
        max_access,
        backing,
        is_shared,
        populate: flags & (raw::MAP_POPULATE | raw::MAP_LOCKED) != 0
            && flags & raw::MAP_NONBLOCK == 0,
        no_reserve: flags & raw::MAP_NORESERVE != 0,
    })
}

/// What `PROT_*` mean.
fn access(protection: u64) -> Access {
    let protection = protection as u32;
    let mut access = Access::empty();
    access.set(Access::READ, protection & raw::PROT_READ != 0);
    access.set(Access::WRITE, protection & raw::PROT_WRITE != 0);
    access.set(Access::EXECUTE, protection & raw::PROT_EXEC != 0);
    access
}

pub(super) fn munmap(thread: &mut Thread, args: Args) -> Result<u64> {
    thread.process.space.unmap(args.get(0), args.get(1))?;
    Ok(0)
}

pub(super) fn mprotect(thread: &mut Thread, args: Args) -> Result<u64> {
    let known = raw::PROT_READ | raw::PROT_WRITE | raw::PROT_EXEC | raw::PROT_SEM;
    // No mapping grows here, so PROT_GROWSDOWN and PROT_GROWSUP fit none.
    if args.get(2) & !u64::from(known) != 0 {
        return Err(Errno::EINVAL);
    }
    thread
        .process
        .space
        .protect(args.get(0), args.get(1), access(args.get(2)))?;
    Ok(0)
}

pub(super) fn mremap(thread: &mut Thread, args: Args) -> Result<u64> {
    let [address, old_length, new_length, flags, new_address, _] = args.0;
    let flag = |bit: u32| flags & u64::from(bit) != 0;
    let known = raw::MREMAP_MAYMOVE | raw::MREMAP_FIXED | raw::MREMAP_DONTUNMAP;
    let may_move = flag(raw::MREMAP_MAYMOVE);
    let is_fixed = flag(raw::MREMAP_FIXED);
    let keep_old = flag(raw::MREMAP_DONTUNMAP);
    let is_valid = flags & !u64::from(known) == 0
        && (may_move || !is_fixed && !keep_old)
        && (!keep_old || old_length == new_length);
    if !is_valid {
        return Err(Errno::EINVAL);
    }
    thread.process.space.remap(Remap {
        address,
        old_length,
        new_length,
        may_move,
        fixed: is_fixed.then_some(new_address),
        keep_old,
    })
}

pub(super) fn madvise(thread: &mut Thread, args: Args) -> Result<u64> {
    let operation = AdviseMemory {
        address: args.get(0),
        length: args.get(1),
        advice: args.uint(2),
    };
    operation.run(actor(thread)).map(|()| 0)
}

pub(super) fn brk(thread: &mut Thread, args: Args) -> Result<u64> {
    let limit = thread.process.limits.lock().get(raw::RLIMIT_DATA)?.soft;
    Ok(thread.process.space.set_break(args.get(0), limit))
}

pub(super) fn mincore(thread: &mut Thread, args: Args) -> Result<u64> {
    let space = &thread.process.space;
    let [start, length, mut out, ..] = args.0;
    if !start.is_multiple_of(PAGE) {
        return Err(Errno::EINVAL);
    }
    check_mapped(thread, start, length)?;
    let end = start + length.next_multiple_of(PAGE);
    for chunk in (start..end).step_by((MINCORE_PAGES * PAGE) as usize) {
        let length = (end - chunk).min(MINCORE_PAGES * PAGE);
        let residency = space.residency(chunk, length)?;
        let bytes: Vec<u8> = residency.into_iter().map(u8::from).collect();
        space.write(out, &bytes)?;
        out = out.wrapping_add(bytes.len() as u64);
    }
    Ok(0)
}

pub(super) fn msync(thread: &mut Thread, args: Args) -> Result<u64> {
    let flags = args.uint(2);
    let known = raw::MS_ASYNC | raw::MS_INVALIDATE | raw::MS_SYNC;
    let both = raw::MS_ASYNC | raw::MS_SYNC;
    let is_valid = args.get(0).is_multiple_of(PAGE) && flags & !known == 0 && flags & both != both;
    if !is_valid {
        return Err(Errno::EINVAL);
    }
    check_mapped(thread, args.get(0), args.get(1))
}

/// Pages are never swapped out, so locking them is a matter of their being there.
pub(super) fn mlock(thread: &mut Thread, args: Args) -> Result<u64> {
    let start = args.get(0) & !(PAGE - 1);
    let end = args.get(0).checked_add(args.get(1)).ok_or(Errno::EINVAL)?;
    check_mapped(thread, start, end - start)?;
    thread.process.space.populate(start..end);
    Ok(0)
}

pub(super) fn mlock2(thread: &mut Thread, args: Args) -> Result<u64> {
    if args.uint(2) & !raw::MLOCK_ONFAULT != 0 {
        return Err(Errno::EINVAL);
    }
    match args.uint(2) {
        0 => mlock(thread, args),
        _ => munlock(thread, args),
    }
}

pub(super) fn munlock(thread: &mut Thread, args: Args) -> Result<u64> {
    let start = args.get(0) & !(PAGE - 1);
    let end = args.get(0).checked_add(args.get(1)).ok_or(Errno::EINVAL)?;
    check_mapped(thread, start, end - start)
}

pub(super) fn mlockall(_: &mut Thread, args: Args) -> Result<u64> {
    let known = raw::MCL_CURRENT | raw::MCL_FUTURE | raw::MCL_ONFAULT;
    let flags = args.uint(0);
    if flags == 0 || flags & !known != 0 || flags == raw::MCL_ONFAULT {
        return Err(Errno::EINVAL);
    }
    Ok(0)
}

pub(super) fn munlockall(_: &mut Thread, _: Args) -> Result<u64> {
    Ok(0)
}

fn check_mapped(thread: &Thread, start: u64, length: u64) -> Result<u64> {
    let end = length
        .checked_next_multiple_of(PAGE)
        .and_then(|length| start.checked_add(length))
        .ok_or(Errno::ENOMEM)?;
    thread.process.space.check_mapped(start..end)?;
    Ok(0)
}

/// No command is offered: `MEMBARRIER_CMD_QUERY` says so.
pub(super) fn membarrier(_: &mut Thread, args: Args) -> Result<u64> {
    match (args.int(0), args.uint(1)) {
        (0, 0) => Ok(0),
        _ => Err(Errno::EINVAL),
    }
}
