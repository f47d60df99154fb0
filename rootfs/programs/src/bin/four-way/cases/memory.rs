//! Mappings.

use guest_programs::doors::calls::*;
use guest_programs::doors::*;
use libc::{
    F_ADD_SEALS, F_SEAL_WRITE, MADV_COLD, MADV_DOFORK, MADV_DONTDUMP, MADV_DONTFORK, MADV_DONTNEED,
    MADV_FREE, MADV_NORMAL, MADV_PAGEOUT, MADV_POPULATE_READ, MADV_POPULATE_WRITE, MADV_RANDOM,
    MADV_REMOVE, MADV_SEQUENTIAL, MADV_WILLNEED, MADV_WIPEONFORK, MAP_ANONYMOUS, MAP_FIXED,
    MAP_FIXED_NOREPLACE, MAP_GROWSDOWN, MAP_NORESERVE, MAP_POPULATE, MAP_PRIVATE, MAP_SHARED,
    MAP_SHARED_VALIDATE, MAP_STACK, MAP_SYNC, MCL_FUTURE, MCL_ONFAULT, MFD_ALLOW_SEALING,
    MREMAP_DONTUNMAP, MREMAP_FIXED, MREMAP_MAYMOVE, MS_ASYNC, MS_INVALIDATE, MS_SYNC, O_RDONLY,
    PROT_GROWSDOWN, PROT_GROWSUP, PROT_NONE, PROT_READ, PROT_WRITE, RLIMIT_AS, RLIMIT_MEMLOCK,
};

use crate::case::{Case, case};

const NULL: i64 = 0;
const BITS: &str = "a ring takes the length as 32 bits, where none is in off";
const PAGE: i64 = 4096;
const RW: i32 = PROT_READ | PROT_WRITE;
const ANONYMOUS: i32 = MAP_PRIVATE | MAP_ANONYMOUS;
const HUGE: i64 = 1 << 46;

/// Maps so many pages at the address that is for that.
fn pages(count: i64) -> Operation {
    mmap(FIXED, count * PAGE, RW, ANONYMOUS | MAP_FIXED, -1, 0)
}

/// An address so many pages behind that one.
fn behind(count: i64) -> Memory {
    match FIXED {
        Memory::At(address) => Memory::At(address + count * PAGE),
        other => other,
    }
}

fn beyond(bytes: i64) -> Memory {
    match FIXED {
        Memory::At(address) => Memory::At(address + bytes),
        other => other,
    }
}

pub(crate) fn cases() -> Vec<Case> {
    [
        maps(),
        unmaps(),
        protects(),
        moves(),
        advises(),
        looks(),
        locks(),
    ]
    .into_iter()
    .flatten()
    .collect()
}

fn maps() -> Vec<Case> {
    vec![
        case!(mmap(NULL, PAGE, RW, ANONYMOUS, -1, 0)),
        case!(mmap(NULL, 1, RW, ANONYMOUS, -1, 0)),
        case!(mmap(NULL, 0, RW, ANONYMOUS, -1, 0)),
        case!(mmap(NULL, 0, RW, 0, BAD, 1)),
        case!(mmap(NULL, HUGE << 1, RW, ANONYMOUS, -1, 0)),
        case!(mmap(NULL, -1, RW, ANONYMOUS, -1, 0)),
        case!(mmap(NULL, -PAGE, RW, ANONYMOUS, -1, 0)),
        case!(mmap(NULL, PAGE, RW, MAP_ANONYMOUS, -1, 0)),
        case!(mmap(
            NULL,
            PAGE,
            RW,
            MAP_ANONYMOUS | MAP_PRIVATE | MAP_SHARED,
            -1,
            0
        )),
        case!(mmap(NULL, PAGE, RW, MAP_ANONYMOUS | MAP_SHARED, -1, 0)),
        case!(mmap(NULL, PAGE, RW, ANONYMOUS, -1, 1)),
        case!(mmap(NULL, PAGE, RW, ANONYMOUS, -1, 1 << 20)),
        case!(mmap(NULL, PAGE, 0x100, ANONYMOUS, -1, 0)),
        case!(mmap(NULL, PAGE, PROT_NONE, ANONYMOUS, -1, 0)),
        case!(
            mmap(FIXED, PAGE, RW, ANONYMOUS | MAP_FIXED, -1, 0),
            then[pread64(FILE, FIXED, 4, 0)]
        ),
        case!(mmap(beyond(1), PAGE, RW, ANONYMOUS | MAP_FIXED, -1, 0)),
        case!(mmap(NULL, PAGE, RW, ANONYMOUS | MAP_FIXED, -1, 0)),
        case!(mmap(
            Memory::At(0x7fff_ffff_f000),
            PAGE,
            RW,
            ANONYMOUS | MAP_FIXED,
            -1,
            0
        )),
        case!(mmap(
            Memory::At(0x7fff_ffff_e000),
            2 * PAGE,
            RW,
            ANONYMOUS | MAP_FIXED,
            -1,
            0
        )),
        case!(mmap(
            Memory::At(1 << 63),
            PAGE,
            RW,
            ANONYMOUS | MAP_FIXED,
            -1,
            0
        )),
        case!(mmap(
            FIXED,
            PAGE,
            RW,
            ANONYMOUS | MAP_FIXED_NOREPLACE,
            -1,
            0
        )),
        case!(
            mmap(FIXED, PAGE, RW, ANONYMOUS | MAP_FIXED_NOREPLACE, -1, 0),
            after[pages(1)]
        ),
        case!(
            mmap(NULL, PAGE, RW, MAP_PRIVATE, FILE, 0),
            then[write(PIPE_W, made(0), 0)]
        ),
        case!(
            mmap(FIXED, PAGE, RW, MAP_PRIVATE | MAP_FIXED, FILE, 0),
            then[write(PIPE_W, FIXED, 20)]
        ),
        case!(
            mmap(FIXED, PAGE, RW, MAP_SHARED | MAP_FIXED, FILE, 0),
            then[pread64(opened("d/g", O_RDONLY), FIXED, 4, 0)]
        ),
        case!(
            mmap(FIXED, 2 * PAGE, RW, MAP_SHARED | MAP_FIXED, FILE, 0),
            then[write(PIPE_W, behind(1), 4)]
        ),
        case!(mmap(NULL, PAGE, RW, MAP_SHARED, FILE, 1)),
        case!(mmap(NULL, PAGE, RW, MAP_SHARED, FILE, PAGE)),
        case!(mmap(NULL, PAGE, RW, MAP_SHARED, READER, 0)),
        case!(mmap(NULL, PAGE, PROT_READ, MAP_SHARED, READER, 0)),
        case!(mmap(NULL, PAGE, RW, MAP_PRIVATE, READER, 0)),
        case!(mmap(NULL, PAGE, RW, MAP_PRIVATE, WRITER, 0)),
        case!(mmap(NULL, PAGE, PROT_WRITE, MAP_SHARED, WRITER, 0)),
        case!(mmap(NULL, PAGE, RW, MAP_SHARED, APPENDER, 0)),
        case!(mmap(NULL, PAGE, RW, MAP_SHARED, BAD, 0)),
        case!(mmap(NULL, 0, RW, MAP_SHARED, BAD, 0)),
        case!(mmap(NULL, PAGE, RW, MAP_SHARED, BAD, 1)),
        case!(mmap(NULL, PAGE, RW, 0, BAD, 0)),
        case!(mmap(NULL, PAGE, RW, 0, FILE, 0)),
        case!(mmap(NULL, PAGE, RW, MAP_SHARED, PATH_ONLY, 0)),
        case!(mmap(NULL, PAGE, RW, MAP_SHARED, PIPE_R, 0)),
        case!(mmap(NULL, PAGE, RW, MAP_PRIVATE, DIRECTORY, 0)),
        case!(mmap(NULL, PAGE, RW, MAP_PRIVATE, event(0), 0)),
        case!(mmap(NULL, PAGE, RW, MAP_PRIVATE, ZERO, 0)),
        case!(mmap(NULL, PAGE, RW, MAP_SHARED, ZERO, 0)),
        case!(mmap(NULL, PAGE, RW, MAP_PRIVATE, NULL_DEVICE, 0)),
        case!(mmap(NULL, PAGE, RW, MAP_PRIVATE, FULL, 0)),
        case!(mmap(NULL, PAGE, PROT_READ, MAP_PRIVATE, RANDOM, 0)),
        case!(mmap(
            NULL,
            PAGE,
            PROT_READ,
            MAP_PRIVATE,
            FILE,
            0x7fff_ffff_ffff_f000_i64
        )),
        case!(mmap(NULL, PAGE, PROT_READ, MAP_PRIVATE, FILE, i64::MIN)),
        case!(mmap(
            NULL,
            2 * PAGE,
            PROT_READ,
            MAP_PRIVATE,
            FILE,
            0x7fff_ffff_ffff_e000_i64
        )),
        case!(mmap(NULL, PAGE, PROT_READ, MAP_PRIVATE, FILE, -PAGE)),
        case!(mmap(NULL, PAGE, RW, MAP_SHARED_VALIDATE, FILE, 0)),
        case!(mmap(
            NULL,
            PAGE,
            RW,
            MAP_SHARED_VALIDATE | MAP_SYNC,
            FILE,
            0
        )),
        case!(mmap(
            NULL,
            PAGE,
            RW,
            MAP_SHARED_VALIDATE | 0x1000_0000,
            FILE,
            0
        )),
        case!(mmap(NULL, PAGE, RW, ANONYMOUS | MAP_GROWSDOWN, -1, 0)),
        case!(mmap(
            NULL,
            PAGE,
            RW,
            MAP_SHARED | MAP_ANONYMOUS | MAP_GROWSDOWN,
            -1,
            0
        )),
        case!(mmap(
            NULL,
            PAGE,
            RW,
            ANONYMOUS | MAP_POPULATE | MAP_NORESERVE | MAP_STACK,
            -1,
            0
        )),
        case!(
            mmap(NULL, PAGE, RW, ANONYMOUS, -1, 0),
            after[setrlimit(RLIMIT_AS, words([0, u64::MAX]))]
        ),
        case!(mmap(NULL, PAGE, RW, MAP_SHARED, made(0), 0), after [memfd_create("m", MFD_ALLOW_SEALING), ftruncate(made(0), 4096), fcntl(made(0), F_ADD_SEALS, F_SEAL_WRITE)]),
    ]
}

fn unmaps() -> Vec<Case> {
    vec![
        case!(
            munmap(FIXED, PAGE),
            after[pages(1)],
            then[read(FILE, FIXED, 4)]
        ),
        case!(munmap(FIXED, PAGE)),
        case!(munmap(behind(1), PAGE), after [pages(3)], then [read(FILE, FIXED, 4), read(FILE, behind(1), 4), read(FILE, behind(2), 4)]),
        case!(munmap(FIXED, 0)),
        case!(munmap(beyond(1), PAGE)),
        case!(
            munmap(FIXED, 1),
            after[pages(1)],
            then[read(FILE, FIXED, 4)]
        ),
        case!(munmap(FIXED, -1)),
        case!(munmap(Memory::At(1 << 63), PAGE)),
        case!(munmap(Memory::At(0x7fff_ffff_f000), PAGE)),
        case!(brk(NULL)),
    ]
}

fn protects() -> Vec<Case> {
    vec![
        case!(
            mprotect(FIXED, PAGE, PROT_READ),
            after[pages(1)],
            then[read(FILE, FIXED, 4)]
        ),
        case!(
            mprotect(FIXED, PAGE, PROT_NONE),
            after[pages(1)],
            then[write(FILE, FIXED, 4)]
        ),
        case!(mprotect(FIXED, PAGE, RW)),
        case!(
            mprotect(FIXED, 2 * PAGE, PROT_READ),
            after[pages(1)],
            then[read(FILE, FIXED, 4)]
        ),
        case!(mprotect(FIXED, 0, RW)),
        case!(mprotect(FIXED, 0, 0x100)),
        case!(mprotect(beyond(1), PAGE, RW), after[pages(2)]),
        case!(mprotect(beyond(1), 0, RW)),
        case!(
            mprotect(FIXED, 1, PROT_READ),
            after[pages(1)],
            then[read(FILE, FIXED, 4)]
        ),
        case!(mprotect(FIXED, PAGE, 0x100), after[pages(1)]),
        case!(
            mprotect(FIXED, PAGE, PROT_GROWSDOWN | PROT_GROWSUP),
            after[pages(1)]
        ),
        case!(
            mprotect(FIXED, PAGE, PROT_READ | PROT_GROWSDOWN),
            after[pages(1)]
        ),
        case!(mprotect(FIXED, -1, RW)),
        case!(mprotect(FIXED, -PAGE, RW)),
        case!(
            mprotect(FIXED, PAGE, RW),
            after[mmap(FIXED, PAGE, PROT_READ, MAP_SHARED | MAP_FIXED, READER, 0)]
        ),
    ]
}

fn moves() -> Vec<Case> {
    vec![
        case!(
            mremap(FIXED, PAGE, 2 * PAGE, MREMAP_MAYMOVE, NULL),
            after[pages(1)]
        ),
        case!(
            mremap(FIXED, PAGE, 2 * PAGE, 0, NULL),
            after[pages(1)],
            then[read(FILE, behind(1), 4)]
        ),
        case!(
            mremap(FIXED, 2 * PAGE, PAGE, 0, NULL),
            after[pages(2)],
            then[read(FILE, behind(1), 4)]
        ),
        case!(mremap(FIXED, PAGE, 2 * PAGE, 0, NULL), after[pages(2)]),
        case!(mremap(FIXED, PAGE, PAGE, MREMAP_MAYMOVE | MREMAP_FIXED, behind(8)), after [pages(1)], then [read(FILE, behind(8), 4), read(FILE, FIXED, 4)]),
        case!(
            mremap(FIXED, PAGE, PAGE, MREMAP_FIXED, behind(8)),
            after[pages(1)]
        ),
        case!(
            mremap(FIXED, PAGE, PAGE, MREMAP_MAYMOVE | MREMAP_FIXED, beyond(5)),
            after[pages(1)]
        ),
        case!(
            mremap(
                FIXED,
                2 * PAGE,
                2 * PAGE,
                MREMAP_MAYMOVE | MREMAP_FIXED,
                behind(1)
            ),
            after[pages(2)]
        ),
        case!(
            mremap(FIXED, PAGE, PAGE, MREMAP_MAYMOVE | MREMAP_DONTUNMAP, NULL),
            after[pages(1)]
        ),
        case!(
            mremap(
                FIXED,
                PAGE,
                2 * PAGE,
                MREMAP_MAYMOVE | MREMAP_DONTUNMAP,
                NULL
            ),
            after[pages(1)]
        ),
        case!(
            mremap(FIXED, PAGE, PAGE, MREMAP_DONTUNMAP, NULL),
            after[pages(1)]
        ),
        case!(
            mremap(FIXED, 0, PAGE, MREMAP_MAYMOVE, NULL),
            after[pages(1)]
        ),
        case!(
            mremap(FIXED, 0, PAGE, MREMAP_MAYMOVE, NULL),
            after[mmap(FIXED, PAGE, RW, MAP_SHARED | MAP_FIXED, FILE, 0)]
        ),
        case!(
            mremap(FIXED, PAGE, 0, MREMAP_MAYMOVE, NULL),
            after[pages(1)]
        ),
        case!(mremap(FIXED, PAGE, PAGE, 8, NULL), after[pages(1)]),
        case!(mremap(beyond(1), PAGE, PAGE, 0, NULL), after[pages(2)]),
        case!(mremap(FIXED, PAGE, 2 * PAGE, 0, NULL)),
        case!(
            mremap(FIXED, 2 * PAGE, 3 * PAGE, MREMAP_MAYMOVE, NULL),
            after[pages(1)]
        ),
        case!(mremap(FIXED, 1_i64 << 40, PAGE, 0, NULL)),
        case!(mremap(FIXED, 1_i64 << 40, PAGE, 0, NULL), after[pages(1)]),
        case!(mremap(FIXED, 1_i64 << 40, 1_i64 << 40, 0, NULL)),
        case!(
            mremap(FIXED, PAGE, 1_i64 << 47, MREMAP_MAYMOVE, NULL),
            after[pages(1)]
        ),
        case!(
            mremap(FIXED, PAGE, -PAGE, MREMAP_MAYMOVE, NULL),
            after[pages(1)]
        ),
        case!(
            mremap(
                FIXED,
                PAGE,
                PAGE,
                MREMAP_MAYMOVE | MREMAP_FIXED,
                Memory::At(1 << 63)
            ),
            after[pages(1)]
        ),
    ]
}

fn advises() -> Vec<Case> {
    vec![
        case!(madvise(FIXED, PAGE, MADV_NORMAL), after[pages(1)]),
        case!(madvise(FIXED, PAGE, MADV_RANDOM), after[pages(1)]),
        case!(madvise(FIXED, PAGE, MADV_SEQUENTIAL), after[pages(1)]),
        case!(madvise(FIXED, PAGE, MADV_WILLNEED), after[pages(1)]),
        case!(madvise(FIXED, PAGE, MADV_DONTNEED), after [pages(1), read(FILE, FIXED, 4)], then [write(PIPE_W, FIXED, 4)]),
        case!(madvise(FIXED, PAGE, MADV_FREE), after[pages(1)]),
        case!(
            madvise(FIXED, PAGE, MADV_FREE),
            after[mmap(FIXED, PAGE, RW, MAP_SHARED | MAP_FIXED, FILE, 0)]
        ),
        case!(madvise(FIXED, PAGE, MADV_REMOVE), after[pages(1)]),
        case!(
            madvise(FIXED, PAGE, MADV_REMOVE),
            after[mmap(FIXED, PAGE, RW, MAP_SHARED | MAP_FIXED, FILE, 0)]
        ),
        case!(madvise(FIXED, PAGE, MADV_DONTFORK), after[pages(1)]),
        case!(madvise(FIXED, PAGE, MADV_DOFORK), after[pages(1)]),
        case!(madvise(FIXED, PAGE, MADV_WIPEONFORK), after[pages(1)]),
        case!(
            madvise(FIXED, PAGE, MADV_WIPEONFORK),
            after[mmap(FIXED, PAGE, RW, MAP_SHARED | MAP_FIXED, FILE, 0)]
        ),
        case!(madvise(FIXED, PAGE, MADV_DONTDUMP), after[pages(1)]),
        case!(madvise(FIXED, PAGE, MADV_COLD), after[pages(1)]),
        case!(madvise(FIXED, PAGE, MADV_PAGEOUT), after[pages(1)]),
        case!(madvise(FIXED, PAGE, MADV_POPULATE_READ), after[pages(1)]),
        case!(madvise(FIXED, PAGE, MADV_POPULATE_WRITE), after[pages(1)]),
        case!(
            madvise(FIXED, PAGE, MADV_POPULATE_WRITE),
            after[mmap(FIXED, PAGE, PROT_READ, ANONYMOUS | MAP_FIXED, -1, 0)]
        ),
        case!(
            madvise(FIXED, 2 * PAGE, MADV_POPULATE_READ),
            after[mmap(FIXED, 2 * PAGE, RW, MAP_SHARED | MAP_FIXED, FILE, 0)]
        ),
        case!(madvise(FIXED, PAGE, MADV_POPULATE_READ)),
        case!(madvise(FIXED, PAGE, MADV_NORMAL)),
        case!(madvise(FIXED, 2 * PAGE, MADV_DONTNEED), after[pages(1)]),
        case!(madvise(FIXED, 0, MADV_NORMAL)),
        case!(madvise(FIXED, 0, 99)),
        case!(madvise(beyond(1), PAGE, MADV_NORMAL)),
        case!(madvise(FIXED, -1, MADV_NORMAL); differs(BITS)),
        case!(madvise(FIXED, PAGE, 99), after[pages(1)]),
        case!(madvise(FIXED, PAGE, -1), after[pages(1)]),
        case!(madvise(beyond(1), PAGE, 99)),
    ]
}

fn looks() -> Vec<Case> {
    vec![
        case!(mincore(FIXED, PAGE, room(1)), after [pages(1), read(FILE, FIXED, 4)]),
        case!(mincore(FIXED, PAGE, room(1)), after [pages(1)]; result_only),
        case!(mincore(FIXED, PAGE, room(1))),
        case!(mincore(FIXED, 2 * PAGE, room(2)), after [pages(1)]; result_only),
        case!(mincore(beyond(1), PAGE, room(1))),
        case!(mincore(FIXED, -1, room(1))),
        case!(mincore(FIXED, PAGE, UNMAPPED), after[pages(1)]),
        case!(mincore(FIXED, PAGE, UNMAPPED)),
        case!(mincore(FIXED, 0, UNMAPPED)),
        case!(mincore(Memory::At(1 << 63), PAGE, room(1))),
        case!(msync(FIXED, PAGE, MS_SYNC), after[pages(1)]),
        case!(msync(FIXED, PAGE, MS_ASYNC), after[pages(1)]),
        case!(msync(FIXED, PAGE, MS_INVALIDATE), after[pages(1)]),
        case!(
            msync(FIXED, PAGE, MS_SYNC),
            after[mmap(FIXED, PAGE, RW, MAP_SHARED | MAP_FIXED, FILE, 0)]
        ),
        case!(msync(FIXED, PAGE, 0), after[pages(1)]),
        case!(msync(FIXED, PAGE, MS_SYNC | MS_ASYNC), after[pages(1)]),
        case!(msync(FIXED, PAGE, 8), after[pages(1)]),
        case!(msync(FIXED, PAGE, MS_SYNC)),
        case!(msync(FIXED, 0, MS_SYNC)),
        case!(msync(beyond(1), PAGE, MS_SYNC)),
        case!(msync(beyond(1), PAGE, 8)),
        case!(msync(FIXED, -1, MS_SYNC)),
        case!(msync(FIXED, PAGE, MS_INVALIDATE), after [pages(1), mlock(FIXED, PAGE)]),
    ]
}

fn locks() -> Vec<Case> {
    vec![
        case!(mlock(FIXED, PAGE), after[pages(1)]),
        case!(mlock(beyond(1), 1), after[pages(1)]),
        case!(mlock(FIXED, PAGE)),
        case!(mlock(FIXED, 0)),
        case!(mlock(FIXED, -1)),
        case!(mlock(FIXED, PAGE), after [pages(1), setrlimit(RLIMIT_MEMLOCK, words([0, 8 << 20])), setresuid(-1, 1000, -1)]),
        case!(mlock(FIXED, 2 * PAGE), after [pages(2), setrlimit(RLIMIT_MEMLOCK, words([4096, 8 << 20])), setresuid(-1, 1000, -1)]),
        case!(mlock2(FIXED, PAGE, 0), after[pages(1)]),
        case!(mlock2(FIXED, PAGE, 1), after[pages(1)]),
        case!(mlock2(FIXED, PAGE, 2), after[pages(1)]),
        case!(mlock2(FIXED, PAGE, 0)),
        case!(munlock(FIXED, PAGE), after[pages(1)]),
        case!(munlock(FIXED, PAGE)),
        case!(munlock(FIXED, -1)),
        case!(munlock(FIXED, 0)),
        case!(mlockall(MCL_FUTURE | MCL_ONFAULT)),
        case!(mlockall(0)),
        case!(mlockall(8)),
        case!(mlockall(MCL_ONFAULT)),
        case!(mlockall(MCL_FUTURE), after [setrlimit(RLIMIT_MEMLOCK, words([0, 8 << 20])), setresuid(-1, 1000, -1)]),
        case!(munlockall()),
        case!(membarrier(0, 0, 0)),
        case!(membarrier(1, 0, 0)),
        case!(membarrier(8, 0, 0)),
        case!(membarrier(16, 0, 0), then[membarrier(8, 0, 0)]),
        case!(membarrier(3, 0, 0)),
        case!(membarrier(-1, 0, 0)),
        case!(membarrier(1, 1, 0)),
        case!(membarrier(0, 1, 0)),
    ]
}
