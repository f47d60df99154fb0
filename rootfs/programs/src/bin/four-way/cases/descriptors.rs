//! Descriptors: opening, closing, duplicating, pipes, eventfds, `memfd_create(2)`, polling.

use guest_programs::doors::calls::*;
use guest_programs::doors::*;
use libc::{
    EFD_CLOEXEC, EFD_NONBLOCK, EFD_SEMAPHORE, F_GET_SEALS, F_GETFD, F_GETFL, MFD_ALLOW_SEALING,
    MFD_CLOEXEC, MFD_EXEC, MFD_HUGETLB, MFD_NOEXEC_SEAL, O_ACCMODE, O_APPEND, O_ASYNC, O_CLOEXEC,
    O_CREAT, O_DIRECT, O_DIRECTORY, O_EXCL, O_NOATIME, O_NOFOLLOW, O_NONBLOCK, O_PATH, O_RDONLY,
    O_RDWR, O_TMPFILE, O_TRUNC, O_WRONLY, POLLIN, POLLOUT, RLIMIT_NOFILE, S_IFIFO, S_IFSOCK,
};

use crate::case::{Case, case};

const NULL: i64 = 0;
const NO_WRITER: &str = "a ring opens a pipe without waiting for who writes to it";

/// A `struct open_how`.
fn how(flags: i32, mode: u64, resolve: u64) -> Memory {
    words([flags as u64, mode, resolve])
}

/// A `struct pollfd`.
fn polled(fd: impl Into<Arg>, events: i16) -> Memory {
    Memory::Pollfd(Box::new(fd.into()), events)
}

pub(crate) fn cases() -> Vec<Case> {
    [
        opens(),
        opens_how(),
        closes(),
        duplicates(),
        makes(),
        polls(),
        selects(),
        running(),
    ]
    .into_iter()
    .flatten()
    .collect()
}

fn opens() -> Vec<Case> {
    vec![
        case!(open("f", O_RDONLY, 0)),
        case!(open("missing", O_RDONLY, 0)),
        case!(open("new", O_WRONLY | O_CREAT, 0o640)),
        case!(creat("new", 0o777)),
        case!(creat("f", 0o777)),
        case!(creat("d", 0o777)),
        case!(openat(HERE, "f", O_RDONLY, 0)),
        case!(openat(
            HERE,
            "f",
            O_RDWR | O_CLOEXEC | O_APPEND | O_NONBLOCK,
            0
        )),
        case!(openat(HERE, "f", O_WRONLY | O_TRUNC, 0)),
        case!(openat(HERE, "f", O_RDONLY | O_TRUNC, 0)),
        case!(openat(HERE, "f", O_ACCMODE, 0)),
        case!(openat(HERE, "f", O_RDONLY | O_CREAT | O_EXCL, 0o600)),
        case!(openat(HERE, "l", O_RDONLY | O_CREAT | O_EXCL, 0o600)),
        case!(openat(HERE, "dangling", O_RDONLY | O_CREAT | O_EXCL, 0o600)),
        case!(openat(HERE, "dangling", O_RDWR | O_CREAT, 0o600)),
        case!(openat(HERE, "dangling", O_RDWR, 0o600)),
        case!(openat(HERE, "new", O_RDWR | O_CREAT, 0o7777)),
        case!(openat(HERE, "new", O_RDWR | O_CREAT, 0o170_666)),
        case!(openat(HERE, "new", O_RDONLY | O_CREAT | O_DIRECTORY, 0o666)),
        case!(openat(HERE, "d/new", O_RDWR | O_CREAT, 0o666)),
        case!(openat(directory("d"), "new", O_RDWR | O_CREAT, 0o666)),
        case!(openat(directory("d"), "g", O_RDWR, 0)),
        case!(openat(FILE, "g", O_RDWR, 0)),
        case!(openat(BAD, "g", O_RDWR, 0)),
        case!(openat(BAD, "/dev/null", O_RDWR, 0)),
        case!(openat(BAD, UNMAPPED, O_RDWR, 0)),
        case!(openat(BAD, "", O_RDWR, 0)),
        case!(openat(HERE, "", O_RDWR, 0)),
        case!(openat(FILE, "", O_RDWR, 0)),
        case!(openat(HERE, UNMAPPED, O_RDWR, 0)),
        case!(openat(HERE, NULL, O_RDWR, 0)),
        case!(openat(HERE, "d", O_RDWR, 0)),
        case!(openat(HERE, "d", O_RDONLY, 0)),
        case!(openat(HERE, "d", O_RDONLY | O_CREAT, 0)),
        case!(openat(HERE, "d/", O_RDWR | O_CREAT, 0)),
        case!(openat(HERE, "new/", O_RDWR | O_CREAT, 0)),
        case!(openat(HERE, "f/", O_RDONLY, 0)),
        case!(openat(HERE, "f/x", O_RDONLY, 0)),
        case!(openat(HERE, "f", O_RDONLY | O_DIRECTORY, 0)),
        case!(openat(HERE, "l", O_RDONLY | O_NOFOLLOW, 0)),
        case!(openat(HERE, "l", O_PATH | O_NOFOLLOW, 0)),
        case!(openat(HERE, "ld/g", O_RDONLY | O_NOFOLLOW, 0)),
        case!(openat(HERE, "loop", O_RDONLY, 0)),
        case!(openat(HERE, "f", O_PATH | O_RDWR | O_CREAT | O_TRUNC, 0)),
        case!(openat(HERE, "missing", O_PATH | O_CREAT, 0)),
        case!(openat(HERE, ".", O_TMPFILE | O_RDWR, 0o600)),
        case!(openat(HERE, ".", O_TMPFILE, 0o600)),
        case!(openat(HERE, "f", O_TMPFILE | O_RDWR, 0o600)),
        case!(openat(HERE, "f", O_RDONLY | O_DIRECT, 0)),
        case!(openat(HERE, "f", O_RDONLY | O_ASYNC, 0)),
        case!(openat(HERE, "f", 1 << 30, 0)),
        case!(openat(HERE, "f", -1, 0)),
        case!(
            openat(HERE, "f", O_RDONLY | O_NOATIME, 0),
            after[setresuid(-1, 1000, -1)]
        ),
        case!(
            openat(HERE, "n", O_RDONLY, 0),
            after[setresuid(-1, 1000, -1)]
        ),
        case!(openat(HERE, "f", O_RDWR, 0), after[setresuid(-1, 1000, -1)]),
        case!(
            openat(HERE, "new", O_RDWR | O_CREAT, 0),
            after[setresuid(-1, 1000, -1)]
        ),
        case!(openat(HERE, "/dev/null", O_RDWR | O_CREAT | O_TRUNC, 0)),
        case!(openat(HERE, "/dev/null", O_RDONLY | O_DIRECTORY, 0)),
        case!(
            openat(HERE, "pipe", O_RDONLY | O_NONBLOCK, 0),
            after[mknod("pipe", S_IFIFO | 0o600, 0)]
        ),
        case!(
            openat(HERE, "pipe", O_WRONLY | O_NONBLOCK, 0),
            after[mknod("pipe", S_IFIFO | 0o600, 0)]
        ),
        case!(
            openat(HERE, "pipe", O_RDWR, 0),
            after[mknod("pipe", S_IFIFO | 0o600, 0)]
        ),
        case!(openat(HERE, "pipe", O_RDONLY, 0), after [mknod("pipe", S_IFIFO | 0o600, 0)]; waits, differs(NO_WRITER)),
        case!(
            openat(HERE, "s", O_RDWR, 0),
            after[mknod("s", S_IFSOCK | 0o600, 0)]
        ),
        case!(
            openat(HERE, "f", O_RDONLY, 0),
            after[setrlimit(RLIMIT_NOFILE, words([4, 1024]))]
        ),
        case!(
            openat(HERE, "missing", O_RDONLY, 0),
            after[setrlimit(RLIMIT_NOFILE, words([4, 1024]))]
        ),
        case!(openat(HERE, LONG_NAME, O_RDONLY, 0)),
        case!(openat(HERE, LONG_NAME, O_RDONLY | O_CREAT, 0)),
        case!(openat(HERE, long_path(), O_RDONLY, 0)),
    ]
}

/// A name of 256 bytes, one more than there may be.
const LONG_NAME: &str = "0123456789012345678901234567890123456789012345678901234567890123\
                         0123456789012345678901234567890123456789012345678901234567890123\
                         0123456789012345678901234567890123456789012345678901234567890123\
                         0123456789012345678901234567890123456789012345678901234567890123";

/// A path of 4096 bytes without its end, one more than there may be.
fn long_path() -> Memory {
    let mut path = b"./".repeat(2047);
    path.extend(b"ff\0");
    Memory::Bytes(path)
}

fn opens_how() -> Vec<Case> {
    vec![
        case!(openat2(HERE, "f", how(O_RDWR, 0, 0), 24)),
        case!(openat2(HERE, "f", how(O_RDWR, 0o644, 0), 24)),
        case!(openat2(HERE, "new", how(O_RDWR | O_CREAT, 0o644, 0), 24)),
        case!(openat2(HERE, "new", how(O_RDWR | O_CREAT, 0o10_644, 0), 24)),
        case!(openat2(HERE, "f", how(1 << 30, 0, 0), 24)),
        case!(openat2(HERE, "f", how(O_PATH | O_RDWR, 0, 0), 24)),
        case!(openat2(HERE, "f", how(O_RDWR, 0, 0x100), 24)),
        case!(openat2(HERE, "f", how(O_RDWR, 0, 0), 16)),
        case!(openat2(HERE, "f", how(O_RDWR, 0, 0), 0)),
        case!(openat2(HERE, "f", words([2, 0, 0, 0]), 32)),
        case!(openat2(HERE, "f", words([2, 0, 0, 1]), 32)),
        case!(openat2(HERE, "f", how(O_RDWR, 0, 0), 5000)),
        case!(openat2(HERE, "f", UNMAPPED, 24)),
        case!(openat2(HERE, UNMAPPED, how(O_RDWR, 0, 0), 24)),
        case!(openat2(BAD, UNMAPPED, UNMAPPED, 8)),
        case!(openat2(BAD, "f", how(O_RDWR, 0, 0), 24)),
        case!(openat2(HERE, "missing", how(O_RDWR, 0, 0), 24)),
        case!(openat2(HERE, "l", how(O_RDWR, 0, RESOLVE_NO_SYMLINKS), 24)),
        case!(openat2(
            HERE,
            "ld/g",
            how(O_RDWR, 0, RESOLVE_NO_SYMLINKS),
            24
        )),
        case!(openat2(HERE, "f", how(O_RDWR, 0, RESOLVE_BENEATH), 24)),
        case!(openat2(HERE, "../f", how(O_RDWR, 0, RESOLVE_BENEATH), 24)),
        case!(openat2(
            HERE,
            "/dev/null",
            how(O_RDWR, 0, RESOLVE_BENEATH),
            24
        )),
        case!(openat2(
            directory("d"),
            "/g",
            how(O_RDWR, 0, RESOLVE_IN_ROOT),
            24
        )),
        case!(openat2(
            directory("d"),
            "../../g",
            how(O_RDWR, 0, RESOLVE_IN_ROOT),
            24
        )),
        case!(openat2(
            HERE,
            "/dev/null",
            how(O_RDWR, 0, RESOLVE_NO_XDEV),
            24
        )),
        case!(openat2(
            HERE,
            "f",
            how(O_RDWR, 0, RESOLVE_IN_ROOT | RESOLVE_BENEATH),
            24
        )),
        case!(openat2(HERE, "f", how(O_RDWR, 0, RESOLVE_CACHED), 24)),
        case!(openat2(
            HERE,
            "f",
            how(O_RDWR | O_TRUNC, 0, RESOLVE_CACHED),
            24
        )),
    ]
}

const RESOLVE_NO_XDEV: u64 = 1;
const RESOLVE_NO_SYMLINKS: u64 = 4;
const RESOLVE_BENEATH: u64 = 8;
const RESOLVE_IN_ROOT: u64 = 16;
const RESOLVE_CACHED: u64 = 32;

fn closes() -> Vec<Case> {
    vec![
        case!(close(FILE), then[close(FILE)]),
        case!(close(PATH_ONLY)),
        case!(close(PIPE_W), then[read(PIPE_R, room(8), 8)]),
        case!(close(event(0))),
        case!(close(BAD)),
        case!(close(-1)),
        case!(close(RING); differs("a ring closes no rings")),
        case!(close_range(FILE, FILE, 0), then[close(FILE)]),
        case!(close_range(FILE, FILE, 4), then[fcntl(FILE, F_GETFD, 0)]),
        case!(close_range(500, 600, 0)),
        case!(close_range(600, 500, 0)),
        case!(close_range(600, 500, 8)),
        case!(close_range(500, 600, 8)),
        case!(close_range(500, 600, 2); alone),
    ]
}

fn duplicates() -> Vec<Case> {
    vec![
        case!(dup(FILE)),
        case!(dup(PATH_ONLY)),
        case!(dup(BAD)),
        case!(dup(FILE), after[setrlimit(RLIMIT_NOFILE, words([5, 1024]))]),
        case!(dup2(FILE, 20)),
        case!(dup2(FILE, FILE)),
        case!(dup2(BAD, BAD)),
        case!(dup2(FILE, -1)),
        case!(dup2(FILE, 1024)),
        case!(dup2(BAD, 1024)),
        case!(dup2(PIPE_R, PIPE_W)),
        case!(dup3(FILE, 20, 0)),
        case!(dup3(FILE, 20, O_CLOEXEC)),
        case!(dup3(FILE, FILE, 0)),
        case!(dup3(FILE, 20, O_NONBLOCK)),
        case!(dup3(BAD, 20, 0)),
        case!(dup3(BAD, BAD, O_NONBLOCK)),
        case!(dup3(BAD, 1024, 0)),
        case!(dup3(FILE, 1024, 0)),
        case!(
            dup3(FILE, 20, 0),
            after[setrlimit(RLIMIT_NOFILE, words([10, 1024]))]
        ),
    ]
}

fn makes() -> Vec<Case> {
    vec![
        case!(pipe(room(8))),
        case!(pipe(UNMAPPED)),
        case!(pipe(READ_ONLY)),
        case!(
            pipe(room(8)),
            after[setrlimit(RLIMIT_NOFILE, words([5, 1024]))]
        ),
        case!(
            pipe(UNMAPPED),
            after[setrlimit(RLIMIT_NOFILE, words([5, 1024]))]
        ),
        case!(pipe2(room(8), O_CLOEXEC | O_NONBLOCK), then [fcntl(4, F_GETFD, 0), fcntl(4, F_GETFL, 0), fcntl(5, F_GETFL, 0)]),
        case!(pipe2(room(8), O_DIRECT), then[fcntl(5, F_GETFL, 0)]),
        case!(pipe2(room(8), O_RDWR)),
        case!(pipe2(UNMAPPED, O_RDWR)),
        case!(pipe2(UNMAPPED, 0)),
        case!(eventfd(3), then[read(made(0), room(8), 8)]),
        case!(
            eventfd(3),
            after[setrlimit(RLIMIT_NOFILE, words([4, 1024]))]
        ),
        case!(eventfd2(3, EFD_CLOEXEC | EFD_NONBLOCK)),
        case!(eventfd2(3, EFD_SEMAPHORE)),
        case!(eventfd2(3, 2)),
        case!(eventfd2(u32::MAX, 0)),
        case!(memfd_create("m", 0)),
        case!(memfd_create("", MFD_CLOEXEC)),
        case!(memfd_create("m", 0x1000)),
        case!(memfd_create(UNMAPPED, 0x1000)),
        case!(memfd_create(UNMAPPED, 0)),
        case!(memfd_create(LONG_NAME, 0)),
        case!(
            memfd_create("m", MFD_NOEXEC_SEAL),
            then[fcntl(4, F_GET_SEALS, 0)]
        ),
        case!(memfd_create("m", MFD_EXEC | MFD_NOEXEC_SEAL)),
        case!(memfd_create("m", MFD_HUGETLB | MFD_ALLOW_SEALING | 0x1000)),
    ]
}

fn polls() -> Vec<Case> {
    vec![
        case!(poll(polled(FILE, POLLIN | POLLOUT), 1, -1)),
        case!(poll(polled(PIPE_R, POLLIN), 1, 0)),
        case!(
            poll(polled(PIPE_R, POLLIN), 1, 0),
            after[write(PIPE_W, "a", 1)]
        ),
        case!(
            poll(polled(PIPE_R, POLLIN), 1, 10_000),
            meanwhile[write(PIPE_W, "a", 1)]
        ),
        case!(
            poll(polled(PIPE_R, POLLIN), 1, 10_000),
            meanwhile[close(PIPE_W)]
        ),
        case!(poll(polled(PIPE_R, POLLIN), 1, -1); waits),
        case!(poll(polled(PIPE_W, POLLOUT), 1, 0)),
        case!(poll(polled(PIPE_W, POLLOUT), 1, 0), after[close(PIPE_R)]),
        case!(poll(polled(event(0), POLLIN | POLLOUT), 1, 0)),
        case!(poll(polled(event(3), POLLIN), 1, 0)),
        case!(poll(polled(NULL_DEVICE, POLLIN | POLLOUT), 1, 0)),
        case!(poll(polled(RANDOM, POLLIN | POLLOUT), 1, 0)),
        case!(poll(polled(DIRECTORY, POLLIN | POLLOUT), 1, 0)),
        case!(poll(polled(RING, POLLIN | POLLOUT), 1, 0)),
        case!(poll(polled(PATH_ONLY, POLLIN), 1, 0)),
        case!(poll(polled(BAD, POLLIN), 1, 0)),
        case!(poll(polled(-1, POLLIN), 1, 0)),
        case!(poll(NULL, 0, 0)),
        case!(poll(NULL, 0, 20)),
        case!(poll(UNMAPPED, 1, 0)),
        case!(poll(READ_ONLY, 1, 0)),
        case!(poll(UNMAPPED, 1025, 0)),
        case!(poll(UNMAPPED, -1, 0)),
        case!(ppoll(polled(PIPE_R, POLLIN), 1, fixed_time(0, 0), NULL, 8)),
        case!(ppoll(
            polled(PIPE_R, POLLIN),
            1,
            fixed_time(0, 1_000_000),
            NULL,
            8
        )),
        case!(ppoll(polled(PIPE_R, POLLIN), 1, fixed_time(0, -1), NULL, 8)),
        case!(ppoll(polled(PIPE_R, POLLIN), 1, fixed_time(-1, 0), NULL, 8)),
        case!(ppoll(polled(PIPE_R, POLLIN), 1, UNMAPPED, NULL, 8)),
        case!(ppoll(polled(PIPE_R, POLLIN), 1, UNMAPPED, words([0]), 4)),
        case!(ppoll(
            polled(PIPE_R, POLLIN),
            1,
            fixed_time(0, 0),
            words([0]),
            4
        )),
        case!(ppoll(
            polled(PIPE_R, POLLIN),
            1,
            fixed_time(0, 0),
            UNMAPPED,
            8
        )),
        case!(ppoll(UNMAPPED, 1, fixed_time(0, -1), UNMAPPED, 8)),
        case!(ppoll(polled(FILE, POLLIN), 1, NULL, NULL, 0)),
    ]
}

/// A `fd_set` of one descriptor.
fn set_of(fd: impl Into<Arg>) -> Memory {
    Memory::Set(Box::new(fd.into()))
}

fn selects() -> Vec<Case> {
    vec![
        case!(select(8, set_of(FILE), NULL, NULL, NULL)),
        case!(select(8, set_of(PIPE_R), NULL, NULL, words([0, 0]))),
        case!(select(8, NULL, set_of(PIPE_W), NULL, words([0, 0]))),
        case!(select(8, set_of(PIPE_R), NULL, NULL, words([10, 0])), after [write(PIPE_W, "a", 1)]; result_only),
        case!(
            select(8, set_of(PIPE_R), NULL, NULL, NULL),
            meanwhile[close(PIPE_W)]
        ),
        case!(select(64, set_of(BAD % 64), NULL, NULL, words([0, 0]))),
        case!(select(0, NULL, NULL, NULL, words([0, 1000]))),
        case!(select(-1, NULL, NULL, NULL, words([0, 0]))),
        case!(select(8, UNMAPPED, NULL, NULL, words([0, 0]))),
        case!(select(8, NULL, NULL, NULL, UNMAPPED)),
        case!(select(-1, UNMAPPED, NULL, NULL, UNMAPPED)),
        case!(select(8, NULL, NULL, NULL, words([u64::MAX, 0]))),
        case!(select(8, NULL, NULL, NULL, words([0, u64::MAX]))),
        case!(select(8, NULL, NULL, NULL, words([0, 2_000_000]))),
        case!(select(8, NULL, NULL, set_of(PIPE_R), words([0, 0]))),
        case!(select(100_000, set_of(FILE), NULL, NULL, NULL)),
        case!(pselect6(8, set_of(FILE), NULL, NULL, NULL, NULL)),
        case!(pselect6(
            8,
            set_of(PIPE_R),
            NULL,
            NULL,
            fixed_time(0, 0),
            NULL
        )),
        case!(pselect6(
            8,
            set_of(PIPE_R),
            NULL,
            NULL,
            fixed_time(0, -1),
            NULL
        )),
        case!(pselect6(
            8,
            set_of(PIPE_R),
            NULL,
            NULL,
            fixed_time(0, 0),
            UNMAPPED
        )),
        case!(pselect6(8, set_of(PIPE_R), NULL, NULL, UNMAPPED, UNMAPPED)),
        case!(pselect6(
            8,
            set_of(PIPE_R),
            NULL,
            NULL,
            fixed_time(0, 0),
            words([0, 8])
        )),
        case!(pselect6(
            8,
            set_of(FILE),
            NULL,
            NULL,
            fixed_time(0, 0),
            Memory::Struct(vec![words([0]).into(), 8.into()])
        )),
        case!(pselect6(
            8,
            set_of(FILE),
            NULL,
            NULL,
            fixed_time(0, 0),
            Memory::Struct(vec![words([0]).into(), 4.into()])
        )),
        case!(pselect6(
            -1,
            set_of(PIPE_R),
            NULL,
            NULL,
            fixed_time(0, -1),
            NULL
        )),
    ]
}

/// What an executable allows while it runs.
fn running() -> Vec<Case> {
    const SELF: &str = "/proc/self/exe";
    vec![
        case!(openat(HERE, SELF, O_RDONLY, 0)),
        case!(openat(HERE, SELF, O_WRONLY, 0)),
        case!(openat(HERE, SELF, O_RDWR | O_APPEND, 0)),
        case!(truncate(SELF, 1 << 30)),
        case!(ftruncate(opened(SELF, O_RDONLY), 1 << 30)),
    ]
}
