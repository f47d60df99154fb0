//! Reading and writing: `read(2)` and its like, `sendfile(2)`, `copy_file_range(2)`, `lseek(2)`.

use guest_programs::doors::calls::*;
use guest_programs::doors::*;
use libc::{
    O_APPEND, O_RDONLY, O_RDWR, RLIMIT_FSIZE, RWF_APPEND, RWF_DSYNC, RWF_NOWAIT, SEEK_CUR,
    SEEK_DATA, SEEK_END, SEEK_HOLE, SEEK_SET,
};

use crate::case::{Case, case};

const NULL: i64 = 0;
const POLLED: &str = "a ring waits for what a call with O_NONBLOCK does not";
const CURRENT: &str = "a ring takes -1 for the current position";
const IGNORED: &str = "a ring ignores the position where there is none";
const NOTHING: &str = "a ring is done with a transfer of no bytes";
const FILE_FIRST: &str = "a ring looks at the position last";
const VECTORS_FIRST: &str = "a ring looks at iovecs before the file";
const FLAGS_FIRST: &str = "a ring looks at flags before the position";
const KEPT: &str = "a ring tries again what was short, and keeps the position when that fails";
const BY_VALUE: &str = "an SQE holds a position, not its address";
const SHORT: &str = "a ring does not wait for room for the rest";
const WORKER: &str = "a worker of the ring gets the signal, and drops it";
const LOOKED_UP_FIRST: &str = "a ring looks up its files first";
const EXABYTES: u64 = i64::MAX as u64;

/// Limits the size of files.
fn limit_files(size: u64) -> Operation {
    setrlimit(RLIMIT_FSIZE, words([size, u64::MAX]))
}

/// Fills the pipe with `O_NONBLOCK`.
fn fill_pipe() -> Operation {
    write(NBPIPE_W, room(65536), 65536)
}

pub(crate) fn cases() -> Vec<Case> {
    [
        reads(),
        writes(),
        vectors(),
        positions(),
        copies(),
        limits(),
    ]
    .into_iter()
    .flatten()
    .collect()
}

fn reads() -> Vec<Case> {
    vec![
        case!(read(FILE, room(8), 8)),
        case!(read(FILE, room(64), 64)),
        case!(read(FILE, room(8), 0)),
        case!(read(FILE, NULL, 0)),
        case!(read(FILE, NULL, 8)),
        case!(read(BAD, room(8), 8)),
        case!(read(BAD, UNMAPPED, 8)),
        case!(read(-1, room(8), 8)),
        case!(read(WRITER, room(8), 8)),
        case!(read(WRITER, UNMAPPED, 0)),
        case!(read(PATH_ONLY, room(8), 8)),
        case!(read(DIRECTORY, room(8), 8)),
        case!(read(DIRECTORY, room(8), 0); differs(NOTHING)),
        case!(read(FILE, UNMAPPED, 8)),
        case!(read(FILE, READ_ONLY, 8)),
        case!(read(FILE, edge(4), 8)),
        case!(read(ZERO, room(8), 8)),
        case!(read(ZERO, edge(4), 8)),
        case!(read(NULL_DEVICE, room(8), 8)),
        case!(read(NULL_DEVICE, UNMAPPED, 8)),
        case!(read(FULL, room(8), 8)),
        case!(read(PIPE_R, room(8), 8), after[write(PIPE_W, "abc", 3)]),
        case!(read(PIPE_R, room(8), 8), meanwhile[write(PIPE_W, "abc", 3)]),
        case!(read(PIPE_R, room(8), 8), meanwhile[close(PIPE_W)]),
        case!(read(PIPE_R, room(8), 8); waits),
        case!(read(PIPE_R, room(8), 8), after[close(PIPE_W)]),
        case!(read(PIPE_R, room(8), 0)),
        case!(read(PIPE_R, edge(4), 8), after[write(PIPE_W, "abcdef", 6)]),
        case!(read(PIPE_R, UNMAPPED, 8), after[write(PIPE_W, "abcdef", 6)]),
        case!(read(PIPE_W, room(8), 8)),
        case!(read(NBPIPE_R, room(8), 8); waits, differs(POLLED)),
        case!(read(NBPIPE_R, UNMAPPED, 8); waits, differs(POLLED)),
        case!(read(NBPIPE_R, room(8), 8), after[close(NBPIPE_W)]),
        case!(read(event(0), room(8), 8); waits, differs(POLLED)),
        case!(read(event(3), room(8), 8)),
        case!(read(event(3), room(8), 7)),
        case!(read(event(3), room(16), 16)),
        case!(read(event(3), UNMAPPED, 8)),
        case!(read(Object::Event(3, libc::EFD_SEMAPHORE), room(8), 8)),
        case!(read(RING, room(8), 8); waits, differs(POLLED)),
        case!(read(SELF_RING, room(8), 8); waits, differs(POLLED)),
        case!(pread64(FILE, room(8), 8, 4)),
        case!(pread64(FILE, room(8), 8, 16)),
        case!(pread64(FILE, room(8), 8, EXABYTES)),
        case!(pread64(FILE, room(8), 8, -1); differs(CURRENT)),
        case!(pread64(FILE, room(8), 8, -2)),
        case!(pread64(FILE, UNMAPPED, 8, -2)),
        case!(pread64(BAD, room(8), 8, -2); differs(FILE_FIRST)),
        case!(pread64(PIPE_R, room(8), 8, 0), after [write(PIPE_W, "abc", 3)]; differs(IGNORED)),
        case!(
            pread64(PIPE_R, room(8), 8, -2),
            after[write(PIPE_W, "abc", 3)]
        ),
        case!(pread64(event(3), room(8), 8, 0); differs(IGNORED)),
        case!(pread64(DIRECTORY, room(8), 8, 0)),
        case!(pread64(WRITER, room(8), 8, 0)),
        case!(pread64(ZERO, room(8), 8, 1_i64 << 40)),
    ]
}

fn writes() -> Vec<Case> {
    vec![
        case!(write(FILE, "xyz", 3)),
        case!(write(FILE, "xyz", 0)),
        case!(write(FILE, UNMAPPED, 0)),
        case!(write(FILE, UNMAPPED, 3)),
        case!(write(FILE, Memory::BytesAtEdge(b"xyz".to_vec()), 8); differs(KEPT)),
        case!(write(APPENDER, "xyz", 3)),
        case!(write(BAD, "xyz", 3)),
        case!(write(BAD, UNMAPPED, 3)),
        case!(write(READER, "xyz", 3)),
        case!(write(READER, "xyz", 0)),
        case!(write(PATH_ONLY, "xyz", 3)),
        case!(write(DIRECTORY, "xyz", 3)),
        case!(write(NULL_DEVICE, "xyz", 3)),
        case!(write(NULL_DEVICE, UNMAPPED, 3)),
        case!(write(ZERO, "xyz", 3)),
        case!(write(FULL, "xyz", 3)),
        case!(write(FULL, "xyz", 0); differs(NOTHING)),
        case!(write(PIPE_W, "xyz", 3)),
        case!(write(PIPE_R, "xyz", 3)),
        case!(write(PIPE_W, "xyz", 3), after [pipe2(room(8), 0), close(PIPE_R)]),
        case!(write(PIPE_W, "xyz", 0), after[close(PIPE_R)]),
        case!(write(PIPE_W, UNMAPPED, 3)),
        case!(write(PIPE_W, edge(4), 8)),
        case!(write(PIPE_W, edge(4096), 5000)),
        case!(
            write(PIPE_W, room(65540), 65540),
            meanwhile[read(PIPE_R, room(4096), 4096)]; differs(SHORT)
        ),
        case!(write(PIPE_W, room(70000), 70000), meanwhile[close(PIPE_R)]; differs(SHORT)),
        case!(write(NBPIPE_W, "xyz", 3), after [fill_pipe()]; waits, differs(POLLED)),
        case!(write(NBPIPE_W, room(70000), 70000)),
        case!(write(event(3), words([5]), 8)),
        case!(write(event(3), words([5]), 7)),
        case!(write(event(3), words([5, 6]), 16)),
        case!(write(event(3), words([5]), 0); differs(NOTHING)),
        case!(write(event(3), words([u64::MAX]), 8)),
        case!(write(event(3), words([u64::MAX - 1]), 8); waits),
        case!(write(event(3), UNMAPPED, 8)),
        case!(write(RING, "xyz", 3)),
        case!(
            write(opened("f", O_RDWR | O_APPEND), "xyz", 3),
            after[lseek(opened("f", O_RDWR | O_APPEND), 4, SEEK_SET)]
        ),
        case!(write(FILE, "xyz", 3), after[lseek(FILE, 20, SEEK_SET)]),
        case!(pwrite64(FILE, "xyz", 3, 4)),
        case!(pwrite64(FILE, "xyz", 3, 20)),
        case!(pwrite64(FILE, "xyz", 3, -2)),
        case!(pwrite64(FILE, "xyz", 3, -1); differs(CURRENT)),
        case!(pwrite64(APPENDER, "xyz", 3, 4)),
        case!(pwrite64(FILE, "xyz", 3, EXABYTES)),
        case!(pwrite64(FILE, "xyz", 3, EXABYTES - 1)),
        case!(pwrite64(PIPE_W, "xyz", 3, 0); differs(IGNORED)),
        case!(pwrite64(READER, "xyz", 3, 0)),
        case!(pwrite64(FULL, "xyz", 3, 0)),
    ]
}

fn vectors() -> Vec<Case> {
    vec![
        case!(readv(FILE, vector([(room(4), 4), (room(8), 8)]), 2)),
        case!(readv(FILE, vector([(room(4), 4), (UNMAPPED, 8)]), 2)),
        case!(readv(FILE, vector([(UNMAPPED, 8), (room(4), 4)]), 2)),
        case!(readv(FILE, vector([(room(4), 4), (room(8), u64::MAX)]), 2)),
        case!(readv(FILE, vector([(room(4), 4), (room(8), EXABYTES)]), 2)),
        case!(readv(FILE, vector([(edge(4), EXABYTES)]), 1)),
        case!(readv(ZERO, vector([(edge(4), EXABYTES)]), 1)),
        case!(readv(ZERO, vector([(edge(4), 0x7fff_ffff)]), 1)),
        case!(readv(FILE, UNMAPPED, 1)),
        case!(readv(FILE, UNMAPPED, 0)),
        case!(readv(FILE, NULL, 0)),
        case!(readv(FILE, vector([(room(4), 4)]), 1025)),
        case!(readv(FILE, vector([(room(4), 4)]), -1)),
        case!(readv(BAD, UNMAPPED, -1); differs(VECTORS_FIRST)),
        case!(readv(BAD, vector([(room(4), 4)]), 1)),
        case!(readv(WRITER, vector([(room(4), 4)]), 1)),
        case!(readv(WRITER, UNMAPPED, 1); differs(VECTORS_FIRST)),
        case!(readv(DIRECTORY, vector([(room(4), 4)]), 1)),
        case!(readv(FILE, vector([(Memory::At(1 << 63), 0)]), 1)),
        case!(readv(FILE, vector([(Memory::At(1 << 63), 4)]), 1)),
        case!(readv(
            FILE,
            vector([(Memory::At(0x7fff_ffff_f000), 0x2000)]),
            1
        )),
        case!(writev(
            FILE,
            vector([(bytes(b"xy"), 2), (bytes(b"zw"), 2)]),
            2
        )),
        case!(writev(FILE, vector([(bytes(b"xy"), 2), (UNMAPPED, 2)]), 2); differs(KEPT)),
        case!(writev(FILE, vector([(UNMAPPED, 2), (bytes(b"xy"), 2)]), 2)),
        case!(writev(FILE, UNMAPPED, 1)),
        case!(writev(FILE, vector([(room(4), EXABYTES + 1)]), 1)),
        case!(writev(FILE, vector([(room(4), 4)]), 1025)),
        case!(writev(READER, vector([(room(4), 4)]), 1)),
        case!(writev(
            PIPE_W,
            vector([(bytes(b"xy"), 2), (UNMAPPED, 2)]),
            2
        )),
        case!(writev(
            PIPE_W,
            vector([(bytes(b"xy"), 2), (bytes(b"z"), 1)]),
            2
        )),
        case!(writev(
            event(0),
            vector([(words([1]), 4), (words([1]), 4)]),
            2
        )),
        case!(preadv(FILE, vector([(room(4), 4)]), 1, 4, 0)),
        case!(preadv(FILE, vector([(room(4), 4)]), 1, -1, 0); differs(CURRENT)),
        case!(preadv(FILE, vector([(room(4), 4)]), 1, -2, 0)),
        case!(preadv(PIPE_R, vector([(room(4), 4)]), 1, 4, 0), after [write(PIPE_W, "abc", 3)]; differs(IGNORED)),
        case!(preadv(BAD, UNMAPPED, 1, -2, 0); differs(VECTORS_FIRST)),
        case!(pwritev(FILE, vector([(bytes(b"xy"), 2)]), 1, 4, 0)),
        case!(pwritev(FILE, vector([(bytes(b"xy"), 2), (UNMAPPED, 2)]), 2, -1, 0); differs(CURRENT)),
        case!(preadv2(FILE, vector([(room(4), 4)]), 1, -1, 0, 0)),
        case!(preadv2(FILE, vector([(room(4), 4)]), 1, 4, 0, RWF_NOWAIT)),
        case!(preadv2(FILE, vector([(room(4), 4)]), 1, -2, 0, RWF_NOWAIT); differs(FLAGS_FIRST)),
        case!(preadv2(FILE, vector([(room(4), 4)]), 1, 4, 0, 0x1000)),
        case!(preadv2(BAD, vector([(room(4), 4)]), 1, 4, 0, 0x1000)),
        case!(preadv2(
            NBPIPE_R,
            vector([(room(4), 4)]),
            1,
            -1,
            0,
            RWF_NOWAIT
        )),
        case!(preadv2(
            PIPE_R,
            vector([(room(4), 4)]),
            1,
            -1,
            0,
            RWF_NOWAIT
        )),
        case!(preadv2(FILE, vector([(room(4), 4)]), 1, 4, 0, RWF_APPEND)),
        case!(preadv2(
            event(0),
            vector([(room(8), 8)]),
            1,
            -1,
            0,
            RWF_NOWAIT
        )),
        case!(pwritev2(
            FILE,
            vector([(bytes(b"xy"), 2)]),
            1,
            4,
            0,
            RWF_APPEND
        )),
        case!(pwritev2(
            FILE,
            vector([(bytes(b"xy"), 2)]),
            1,
            -1,
            0,
            RWF_APPEND
        )),
        case!(pwritev2(
            FILE,
            vector([(bytes(b"xy"), 2)]),
            1,
            4,
            0,
            RWF_DSYNC
        )),
        case!(pwritev2(
            FILE,
            vector([(bytes(b"xy"), 2)]),
            1,
            -2,
            0,
            RWF_NOWAIT
        ); differs(FLAGS_FIRST)),
        case!(pwritev2(
            APPENDER,
            vector([(bytes(b"xy"), 2)]),
            1,
            4,
            0,
            0x20
        )),
        case!(pwritev2(
            APPENDER,
            vector([(bytes(b"xy"), 2)]),
            1,
            4,
            0,
            0x30
        )),
        case!(
            pwritev2(NBPIPE_W, vector([(bytes(b"xy"), 2)]), 1, -1, 0, RWF_NOWAIT),
            after[fill_pipe()]
        ),
    ]
}

fn positions() -> Vec<Case> {
    vec![
        case!(lseek(FILE, 5, SEEK_SET)),
        case!(lseek(FILE, -5, SEEK_END)),
        case!(lseek(FILE, -17, SEEK_END)),
        case!(lseek(FILE, -1, SEEK_SET)),
        case!(lseek(FILE, -1, SEEK_CUR)),
        case!(
            lseek(FILE, EXABYTES, SEEK_CUR),
            after[lseek(FILE, 1, SEEK_SET)]
        ),
        case!(lseek(FILE, 3, SEEK_DATA)),
        case!(lseek(FILE, 16, SEEK_DATA)),
        case!(lseek(FILE, -1, SEEK_DATA)),
        case!(lseek(FILE, 3, SEEK_HOLE)),
        case!(lseek(FILE, 16, SEEK_HOLE)),
        case!(lseek(FILE, 0, 5)),
        case!(lseek(FILE, 0, -1)),
        case!(lseek(BAD, 0, 5)),
        case!(lseek(PATH_ONLY, 0, SEEK_SET)),
        case!(lseek(PIPE_R, 0, SEEK_SET)),
        case!(lseek(PIPE_R, 0, 5)),
        case!(lseek(event(0), 0, SEEK_SET)),
        case!(lseek(event(0), 100, SEEK_SET)),
        case!(lseek(event(0), 0, 5)),
        case!(lseek(RING, 0, SEEK_SET)),
        case!(lseek(RING, 7, SEEK_END)),
        case!(lseek(ZERO, 100, SEEK_SET)),
        case!(lseek(ZERO, 100, SEEK_END)),
        case!(lseek(NULL_DEVICE, 100, SEEK_CUR)),
        case!(lseek(RANDOM, 100, SEEK_SET)),
        case!(lseek(FULL, 100, SEEK_SET)),
        case!(lseek(DIRECTORY, 0, SEEK_SET)),
        case!(lseek(DIRECTORY, -1, SEEK_SET)),
    ]
}

fn copies() -> Vec<Case> {
    vec![
        case!(sendfile(PIPE_W, FILE, NULL, 8)),
        case!(sendfile(PIPE_W, FILE, words([4]), 8)),
        case!(sendfile(PIPE_W, FILE, words([4]), 100)),
        case!(sendfile(PIPE_W, FILE, words([16]), 100)),
        case!(sendfile(PIPE_W, FILE, NULL, 0)),
        case!(sendfile(PIPE_W, FILE, UNMAPPED, 8)),
        case!(sendfile(PIPE_W, FILE, READ_ONLY, 8)),
        case!(sendfile(PIPE_W, FILE, words([u64::MAX]), 8)),
        case!(sendfile(PIPE_W, FILE, words([EXABYTES]), 8)),
        case!(sendfile(PIPE_R, FILE, NULL, 8)),
        case!(
            sendfile(PIPE_W, PIPE_R, NULL, 8),
            after[write(PIPE_W, "abc", 3)]
        ),
        case!(sendfile(PIPE_W, PIPE_R, words([0]), 8)),
        case!(sendfile(PIPE_W, WRITER, NULL, 8)),
        case!(sendfile(PIPE_W, DIRECTORY, NULL, 8)),
        case!(sendfile(PIPE_W, ZERO, NULL, 8)),
        case!(sendfile(PIPE_W, RANDOM, NULL, 8); result_only),
        case!(sendfile(PIPE_W, NULL_DEVICE, NULL, 8)),
        case!(sendfile(PIPE_W, FULL, NULL, 8)),
        case!(sendfile(PIPE_W, event(3), NULL, 8)),
        case!(sendfile(PIPE_W, BAD, NULL, 8)),
        case!(sendfile(PIPE_W, BAD, UNMAPPED, 8)),
        case!(sendfile(BAD, FILE, NULL, 8)),
        case!(sendfile(BAD, FILE, UNMAPPED, 8)),
        case!(sendfile(PIPE_W, PATH_ONLY, NULL, 8)),
        case!(sendfile(PIPE_W, PATH_ONLY, UNMAPPED, 8)),
        case!(sendfile(PATH_ONLY, FILE, NULL, 8)),
        case!(sendfile(event(0), FILE, NULL, 8)),
        case!(sendfile(event(0), ZERO, NULL, 8)),
        case!(sendfile(APPENDER, FILE, NULL, 8)),
        case!(sendfile(
            opened("new", O_RDWR | libc::O_CREAT),
            FILE,
            NULL,
            8
        )),
        case!(sendfile(
            opened("new", O_RDWR | libc::O_CREAT),
            FILE,
            NULL,
            EXABYTES
        )),
        case!(sendfile(
            opened("new", O_RDWR | libc::O_CREAT),
            ZERO,
            NULL,
            5000
        )),
        case!(sendfile(FILE, opened("d/g", O_RDONLY), NULL, 3)),
        case!(sendfile(FILE, FILE, NULL, 8)),
        case!(sendfile(READER, opened("d/g", O_RDONLY), NULL, 3)),
        case!(sendfile(NULL_DEVICE, FILE, NULL, 8)),
        case!(sendfile(FULL, FILE, NULL, 8)),
        case!(sendfile(RING, FILE, NULL, 8)),
        case!(sendfile(NBPIPE_W, FILE, NULL, 8), after [fill_pipe()]; result_only),
        case!(sendfile(PIPE_W, FILE, NULL, 8), after [pipe2(room(8), 0), close(PIPE_R)]),
        case!(copy_file_range(
            FILE,
            NULL,
            opened("new", O_RDWR | libc::O_CREAT),
            NULL,
            8,
            0
        )),
        case!(copy_file_range(
            FILE,
            words([4]),
            opened("new", O_RDWR | libc::O_CREAT),
            words([2]),
            8,
            0
        )),
        case!(copy_file_range(
            FILE,
            NULL,
            opened("new", O_RDWR | libc::O_CREAT),
            NULL,
            8,
            1
        )),
        case!(copy_file_range(
            FILE,
            UNMAPPED,
            opened("new", O_RDWR | libc::O_CREAT),
            NULL,
            8,
            1
        )),
        case!(copy_file_range(FILE, words([0]), FILE, words([8]), 8, 0)),
        case!(copy_file_range(FILE, words([0]), FILE, words([4]), 8, 0)),
        case!(copy_file_range(
            FILE,
            words([0]),
            APPENDER,
            words([32]),
            8,
            0
        )),
        case!(copy_file_range(
            FILE,
            words([u64::MAX]),
            opened("new", O_RDWR | libc::O_CREAT),
            NULL,
            8,
            0
        )),
        case!(copy_file_range(
            FILE,
            NULL,
            opened("new", O_RDWR | libc::O_CREAT),
            words([EXABYTES]),
            8,
            0
        )),
        case!(copy_file_range(BAD, NULL, FILE, NULL, 8, 0)),
        case!(copy_file_range(FILE, NULL, BAD, NULL, 8, 1)),
        case!(copy_file_range(FILE, UNMAPPED, BAD, NULL, 8, 0)),
        case!(copy_file_range(
            WRITER,
            NULL,
            opened("new", O_RDWR | libc::O_CREAT),
            NULL,
            8,
            0
        )),
        case!(copy_file_range(
            FILE,
            NULL,
            opened("d/g", O_RDONLY),
            NULL,
            8,
            0
        )),
        case!(copy_file_range(DIRECTORY, NULL, FILE, NULL, 8, 0)),
        case!(copy_file_range(FILE, NULL, DIRECTORY, NULL, 8, 0)),
        case!(copy_file_range(PIPE_R, NULL, FILE, NULL, 8, 0)),
        case!(copy_file_range(ZERO, NULL, FILE, NULL, 8, 0)),
        case!(copy_file_range(FILE, NULL, NULL_DEVICE, NULL, 8, 0)),
        case!(
            splice(PIPE_R, NULL, FILE, NULL, 8, 0),
            after[write(PIPE_W, "abc", 3)]
        ),
        case!(tee(PIPE_R, NBPIPE_W, 8, 0), after[write(PIPE_W, "abc", 3)]),
        case!(
            tee(PIPE_R, NBPIPE_W, 2, 0),
            after[write(PIPE_W, "abc", 3), write(NBPIPE_W, "xy", 2)]
        ),
        case!(tee(PIPE_R, NBPIPE_W, 0, 0)),
        case!(tee(NBPIPE_R, PIPE_W, 8, 0)),
        case!(tee(PIPE_R, PIPE_W, 8, 0), after[write(PIPE_W, "abc", 3)]),
        case!(tee(PIPE_R, FILE, 8, 0), after[write(PIPE_W, "abc", 3)]),
        case!(tee(FILE, PIPE_W, 8, 0)),
        case!(tee(PIPE_W, NBPIPE_W, 8, 0)),
        case!(tee(PIPE_R, NBPIPE_R, 8, 0)),
        case!(tee(BAD, PIPE_W, 8, 0)),
        case!(tee(PIPE_R, BAD, 8, 0)),
        case!(tee(BAD, BAD, 0, 0); differs(LOOKED_UP_FIRST)),
        case!(tee(PIPE_R, NBPIPE_W, 8, 0x100)),
        case!(tee(PIPE_R, NBPIPE_W, 8, 2), after[write(PIPE_W, "abc", 3)]),
        case!(tee(PIPE_R, NBPIPE_W, 8, 2)),
        case!(splice(FILE, NULL, PIPE_W, NULL, 8, 0)),
        case!(splice(FILE, words([4]), PIPE_W, NULL, 8, 0); differs(BY_VALUE)),
        case!(splice(FILE, UNMAPPED, PIPE_W, NULL, 8, 0).by_call()),
        case!(splice(FILE, NULL, PIPE_W, words([4]), 8, 0)),
        case!(splice(FILE, NULL, FILE, NULL, 8, 0)),
        case!(splice(FILE, NULL, PIPE_W, NULL, 8, 0x100)),
        case!(splice(FILE, NULL, PIPE_W, NULL, 0, 0)),
        case!(splice(BAD, NULL, PIPE_W, NULL, 8, 0)),
        case!(splice(BAD, UNMAPPED, PIPE_W, UNMAPPED, 8, 0x100).by_call()),
        case!(
            splice(PIPE_R, NULL, PIPE_W, NULL, 8, 0),
            after[write(PIPE_W, "abc", 3)]
        ),
        case!(splice(NBPIPE_R, NULL, PIPE_W, NULL, 8, 0)),
        case!(splice(NBPIPE_R, NULL, FILE, NULL, 8, 0)),
        case!(
            splice(PIPE_R, NULL, READER, NULL, 8, 0),
            after[write(PIPE_W, "abc", 3)]
        ),
        case!(
            splice(PIPE_R, NULL, APPENDER, NULL, 8, 0),
            after[write(PIPE_W, "abc", 3)]
        ),
        case!(
            splice(PIPE_R, NULL, event(0), NULL, 8, 0),
            after[write(PIPE_W, words([1]), 8)]
        ),
        case!(
            splice(PIPE_R, NULL, FILE, words([20]), 8, 0),
            after[write(PIPE_W, "abc", 3)]; differs(BY_VALUE)),
        case!(
            splice(PIPE_R, NULL, FILE, words([u64::MAX - 1]), 8, 0),
            after[write(PIPE_W, "abc", 3)]
        ),
        case!(
            splice(PIPE_R, NULL, NULL_DEVICE, NULL, 8, 0),
            after[write(PIPE_W, "abc", 3)]
        ),
        case!(splice(ZERO, NULL, PIPE_W, NULL, 8, 0)),
        case!(splice(DIRECTORY, NULL, PIPE_W, NULL, 8, 0)),
    ]
}

fn limits() -> Vec<Case> {
    vec![
        case!(write(FILE, "xyz", 3), after[limit_files(2)]; differs(KEPT)),
        case!(write(FILE, "xyz", 3), after[limit_files(0)]; differs(WORKER)),
        case!(write(FILE, "", 0), after[limit_files(0)]),
        case!(write(APPENDER, "xyz", 3), after[limit_files(18)]; differs(KEPT)),
        case!(write(APPENDER, "xyz", 3), after[limit_files(16)]; differs(WORKER)),
        case!(pwrite64(FILE, "xyz", 3, 18), after[limit_files(20)]),
        case!(pwrite64(FILE, "xyz", 3, 20), after[limit_files(20)]; differs(WORKER)),
        case!(pwrite64(FILE, UNMAPPED, 3, 20), after[limit_files(20)]; differs(WORKER)),
        case!(
            writev(FILE, vector([(bytes(b"xy"), 2), (bytes(b"zw"), 2)]), 2),
            after[limit_files(3)]; differs(KEPT)
        ),
        case!(
            pwritev2(FILE, vector([(bytes(b"xy"), 2)]), 1, 0, 0, RWF_APPEND),
            after[limit_files(17)]
        ),
        case!(write(PIPE_W, "xyz", 3), after[limit_files(0)]),
        case!(write(NULL_DEVICE, "xyz", 3), after[limit_files(0)]),
        case!(ftruncate(FILE, 17), after[limit_files(16)]; differs(WORKER)),
        case!(ftruncate(FILE, 8), after[limit_files(4)]),
        case!(ftruncate(READER, 17), after[limit_files(16)]),
        case!(truncate("f", 17), after[limit_files(16)]),
        case!(truncate("missing", 17), after[limit_files(16)]),
        case!(fallocate(FILE, 0, 10, 10), after[limit_files(16)]; differs(WORKER)),
        case!(fallocate(FILE, 1, 10, 10), after[limit_files(16)]; differs(WORKER)),
        case!(
            sendfile(FILE, opened("d/g", O_RDONLY), NULL, 4),
            after[limit_files(2)]
        ),
        case!(
            sendfile(FILE, opened("d/g", O_RDONLY), NULL, 4),
            after[limit_files(0)]
        ),
        case!(
            copy_file_range(opened("d/g", O_RDONLY), NULL, FILE, NULL, 4, 0),
            after[limit_files(2)]
        ),
        case!(
            copy_file_range(opened("d/g", O_RDONLY), NULL, FILE, NULL, 4, 0),
            after[limit_files(0)]
        ),
        case!(splice(PIPE_R, NULL, FILE, NULL, 8, 0), after [write(PIPE_W, "abc", 3), limit_files(2)]; differs(WORKER)),
        case!(splice(PIPE_R, NULL, FILE, NULL, 8, 0), after [write(PIPE_W, "abc", 3), limit_files(0)]; differs(WORKER)),
        case!(write(FILE, "xyz", 3), after [
            limit_files(0), rt_sigprocmask(libc::SIG_BLOCK, words([1 << (libc::SIGXFSZ - 1)]), NULL, 8)
        ], then [rt_sigpending(room(8), 8)]; differs(WORKER)),
    ]
}
