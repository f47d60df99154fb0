//! System calls about memory: `mmap(2)` and its relatives.

use super::path::Done;
use super::{Args, Dispatched, actor};
use crate::error::{Errno, Result};
use crate::operation::{
    AdviseMemory, Barrier, GetResidency, LockAllMemory, LockMemory, Map, Move, Protect, SetBreak,
    SyncMemory, Unmap,
};
use crate::process::Thread;
use linux_raw_sys::general::MLOCK_ONFAULT;

fn decode_map(args: Args) -> Map {
    let [address, length, protection, flags, fd, offset] = args.0;
    Map {
        address,
        length,
        protection,
        flags: flags as u32,
        fd: fd as i32,
        offset,
    }
}

pub(super) fn mmap_now(thread: &mut Thread, args: Args) -> Dispatched {
    decode_map(args).run_now(actor(thread)).into()
}

pub(super) async fn mmap(thread: &mut Thread, args: Args) -> Result<u64> {
    decode_map(args).run(actor(thread)).await
}

fn decode_unmap(args: Args) -> Unmap {
    Unmap {
        address: args.get(0),
        length: args.get(1),
    }
}

pub(super) fn munmap_now(thread: &mut Thread, args: Args) -> Dispatched {
    let done = decode_unmap(args).run_now(actor(thread));
    done.map(Done::done).into()
}

pub(super) async fn munmap(thread: &mut Thread, args: Args) -> Result<u64> {
    decode_unmap(args).run(actor(thread)).await.done()
}

fn decode_protect(args: Args) -> Protect {
    Protect {
        address: args.get(0),
        length: args.get(1),
        protection: args.get(2),
    }
}

pub(super) fn mprotect_now(thread: &mut Thread, args: Args) -> Dispatched {
    let done = decode_protect(args).run_now(actor(thread));
    done.map(Done::done).into()
}

pub(super) async fn mprotect(thread: &mut Thread, args: Args) -> Result<u64> {
    decode_protect(args).run(actor(thread)).await.done()
}

pub(super) fn mremap(thread: &mut Thread, args: Args) -> Result<u64> {
    let [address, old_length, new_length, flags, new_address, _] = args.0;
    let operation = Move {
        address,
        old_length,
        new_length,
        flags,
        new_address,
    };
    operation.run(actor(thread))
}

fn decode_madvise(args: Args) -> AdviseMemory {
    AdviseMemory {
        address: args.get(0),
        length: args.get(1),
        advice: args.uint(2),
    }
}

pub(super) fn madvise_now(thread: &mut Thread, args: Args) -> Dispatched {
    let done = decode_madvise(args).run_now(actor(thread));
    done.map(Done::done).into()
}

pub(super) async fn madvise(thread: &mut Thread, args: Args) -> Result<u64> {
    decode_madvise(args).run(actor(thread)).await.done()
}

pub(super) fn brk_now(thread: &mut Thread, args: Args) -> Dispatched {
    let address = args.get(0);
    let done = SetBreak { address }.run_now(actor(thread));
    done.map(Ok).into()
}

pub(super) async fn brk(thread: &mut Thread, args: Args) -> Result<u64> {
    let address = args.get(0);
    Ok(SetBreak { address }.run(actor(thread)).await)
}

pub(super) async fn mincore(thread: &mut Thread, args: Args) -> Result<u64> {
    let operation = GetResidency {
        address: args.get(0),
        length: args.get(1),
        pages_at: args.get(2),
    };
    operation.run(actor(thread)).await.done()
}

pub(super) async fn msync(thread: &mut Thread, args: Args) -> Result<u64> {
    let operation = SyncMemory {
        address: args.get(0),
        length: args.get(1),
        flags: args.uint(2),
    };
    operation.run(actor(thread)).await.done()
}

async fn lock(thread: &Thread, args: Args, locks: bool, brings_in: bool) -> Result<u64> {
    let operation = LockMemory {
        address: args.get(0),
        length: args.get(1),
        locks,
        brings_in,
    };
    operation.run(actor(thread)).await.done()
}

pub(super) async fn mlock(thread: &mut Thread, args: Args) -> Result<u64> {
    lock(thread, args, true, true).await
}

pub(super) async fn mlock2(thread: &mut Thread, args: Args) -> Result<u64> {
    match args.uint(2) {
        0 => lock(thread, args, true, true).await,
        MLOCK_ONFAULT => lock(thread, args, true, false).await,
        _ => Err(Errno::EINVAL),
    }
}

pub(super) async fn munlock(thread: &mut Thread, args: Args) -> Result<u64> {
    lock(thread, args, false, false).await
}

pub(super) fn mlockall(thread: &mut Thread, args: Args) -> Result<u64> {
    let flags = args.uint(0);
    LockAllMemory { flags }.run(actor(thread)).done()
}

pub(super) fn munlockall(_: &mut Thread, _: Args) -> Result<u64> {
    Ok(0)
}

pub(super) fn membarrier(_: &mut Thread, args: Args) -> Result<u64> {
    let operation = Barrier {
        command: args.int(0),
        flags: args.uint(1),
    };
    operation.run()
}
