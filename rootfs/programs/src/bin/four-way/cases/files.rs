//! Open files: flushing, sizes, locks, `fcntl(2)`, `ioctl(2)`.

use guest_programs::doors::calls::*;
use guest_programs::doors::*;
use libc::{
    F_ADD_SEALS, F_DUPFD, F_DUPFD_CLOEXEC, F_GET_SEALS, F_GETFD, F_GETFL, F_GETLEASE, F_GETLK,
    F_GETOWN, F_GETPIPE_SZ, F_NOTIFY, F_OFD_GETLK, F_OFD_SETLK, F_OFD_SETLKW, F_RDLCK, F_SEAL_GROW,
    F_SEAL_WRITE, F_SETFD, F_SETFL, F_SETLEASE, F_SETLK, F_SETOWN, F_SETPIPE_SZ, F_UNLCK, F_WRLCK,
    FALLOC_FL_COLLAPSE_RANGE, FALLOC_FL_INSERT_RANGE, FALLOC_FL_KEEP_SIZE, FALLOC_FL_PUNCH_HOLE,
    FALLOC_FL_UNSHARE_RANGE, FALLOC_FL_ZERO_RANGE, FIOASYNC, FIOCLEX, FIONBIO, FIONCLEX, FIONREAD,
    FIOQSIZE, LOCK_EX, LOCK_NB, LOCK_SH, LOCK_UN, MFD_ALLOW_SEALING, O_APPEND, O_CLOEXEC, O_DIRECT,
    O_NOATIME, O_NONBLOCK, O_RDWR, POSIX_FADV_DONTNEED, POSIX_FADV_NOREUSE, POSIX_FADV_NORMAL,
    POSIX_FADV_RANDOM, POSIX_FADV_SEQUENTIAL, POSIX_FADV_WILLNEED, SEEK_END, SEEK_SET, SIGUSR1,
    TCGETS,
};

use crate::case::{Case, case};

const F_SETSIG: i32 = 10;
const F_GETSIG: i32 = 11;
const F_SETOWN_EX: i32 = 15;
const F_GETOWN_EX: i32 = 16;
const MOST: i64 = i64::MAX;
const BITS: &str = "a ring takes the length as 32 bits";
const FILE_FIRST: &str = "a ring looks at the length last";

pub(crate) fn cases() -> Vec<Case> {
    [flushes(), sizes(), advice(), locks(), controls(), devices()]
        .into_iter()
        .flatten()
        .collect()
}

fn flushes() -> Vec<Case> {
    vec![
        case!(fsync(FILE)),
        case!(fsync(DIRECTORY)),
        case!(fsync(BAD)),
        case!(fsync(PATH_ONLY)),
        case!(fsync(PIPE_W)),
        case!(fsync(event(0))),
        case!(fsync(NULL_DEVICE)),
        case!(fsync(RING)),
        case!(fdatasync(FILE)),
        case!(fdatasync(BAD)),
        case!(fdatasync(PIPE_R)),
        case!(sync()),
        case!(syncfs(FILE)),
        case!(syncfs(DIRECTORY)),
        case!(syncfs(PIPE_R)),
        case!(syncfs(BAD)),
        case!(syncfs(PATH_ONLY)),
        case!(sync_file_range(FILE, 0, 16, 7)),
        case!(sync_file_range(FILE, 0, 0, 0)),
        case!(sync_file_range(FILE, 0, 16, 8)),
        case!(sync_file_range(FILE, -1, 16, 7)),
        case!(sync_file_range(FILE, 0, -1, 7); differs(BITS)),
        case!(sync_file_range(BAD, -1, 16, 8)),
        case!(sync_file_range(PIPE_W, 0, 16, 7)),
        case!(sync_file_range(NULL_DEVICE, 0, 16, 7)),
        case!(sync_file_range(PATH_ONLY, 0, 16, 7)),
        case!(readahead(FILE, 0, 16)),
        case!(readahead(BAD, 0, 16)),
        case!(readahead(WRITER, 0, 16)),
        case!(readahead(PIPE_R, 0, 16)),
        case!(readahead(PATH_ONLY, 0, 16)),
        case!(readahead(NULL_DEVICE, 0, 16)),
        case!(readahead(DIRECTORY, 0, 16)),
    ]
}

fn sizes() -> Vec<Case> {
    vec![
        case!(ftruncate(FILE, 8)),
        case!(ftruncate(FILE, 24)),
        case!(ftruncate(FILE, 16)),
        case!(ftruncate(FILE, -1)),
        case!(ftruncate(FILE, MOST)),
        case!(ftruncate(READER, 8)),
        case!(ftruncate(BAD, 8)),
        case!(ftruncate(BAD, -1); differs(FILE_FIRST)),
        case!(ftruncate(PATH_ONLY, 8)),
        case!(ftruncate(DIRECTORY, 8)),
        case!(ftruncate(PIPE_W, 8)),
        case!(ftruncate(NULL_DEVICE, 8)),
        case!(ftruncate(APPENDER, 8)),
        case!(truncate("f", 8)),
        case!(truncate("f", 24)),
        case!(truncate("f", -1)),
        case!(truncate("missing", -1)),
        case!(truncate("missing", 8)),
        case!(truncate("l", 8)),
        case!(truncate("loop", 8)),
        case!(truncate("d", 8)),
        case!(truncate("f/x", 8)),
        case!(truncate("", 8)),
        case!(truncate(UNMAPPED, 8)),
        case!(truncate(UNMAPPED, -1)),
        case!(truncate("/dev/null", 8)),
        case!(truncate("/dev/null", -1)),
        case!(truncate("n", 8), after[setresuid(-1, 1000, -1)]),
        case!(fallocate(FILE, 0, 0, 32)),
        case!(fallocate(FILE, FALLOC_FL_KEEP_SIZE, 0, 32)),
        case!(fallocate(
            FILE,
            FALLOC_FL_KEEP_SIZE | FALLOC_FL_PUNCH_HOLE,
            2,
            4
        )),
        case!(fallocate(FILE, FALLOC_FL_PUNCH_HOLE, 2, 4)),
        case!(fallocate(FILE, FALLOC_FL_COLLAPSE_RANGE, 0, 4096)),
        case!(fallocate(FILE, FALLOC_FL_ZERO_RANGE, 2, 4)),
        case!(fallocate(FILE, FALLOC_FL_INSERT_RANGE, 0, 4096)),
        case!(fallocate(FILE, FALLOC_FL_UNSHARE_RANGE, 0, 16)),
        case!(fallocate(
            FILE,
            FALLOC_FL_COLLAPSE_RANGE | FALLOC_FL_KEEP_SIZE,
            0,
            4096
        )),
        case!(fallocate(FILE, 0x800, 0, 16)),
        case!(fallocate(FILE, 0, -1, 16)),
        case!(fallocate(FILE, 0, 0, 0)),
        case!(fallocate(FILE, 0, 0, -1)),
        case!(fallocate(FILE, 0, MOST, 16)),
        case!(fallocate(BAD, 0x800, -1, 0)),
        case!(fallocate(READER, 0, 0, 16)),
        case!(fallocate(READER, 0x800, 0, 16)),
        case!(fallocate(PATH_ONLY, 0, 0, 16)),
        case!(fallocate(PIPE_W, 0, 0, 16)),
        case!(fallocate(DIRECTORY, 0, 0, 16)),
        case!(fallocate(NULL_DEVICE, 0, 0, 16)),
        case!(fallocate(event(0), 0, 0, 16)),
        case!(fallocate(
            APPENDER,
            FALLOC_FL_KEEP_SIZE | FALLOC_FL_PUNCH_HOLE,
            0,
            16
        )),
    ]
}

fn advice() -> Vec<Case> {
    vec![
        case!(fadvise64(FILE, 0, 16, POSIX_FADV_NORMAL)),
        case!(fadvise64(FILE, 0, 16, POSIX_FADV_RANDOM)),
        case!(fadvise64(FILE, 0, 16, POSIX_FADV_SEQUENTIAL)),
        case!(fadvise64(FILE, 0, 16, POSIX_FADV_WILLNEED)),
        case!(fadvise64(FILE, 0, 16, POSIX_FADV_DONTNEED)),
        case!(fadvise64(FILE, 0, 16, POSIX_FADV_NOREUSE)),
        case!(fadvise64(FILE, 0, 16, 6)),
        case!(fadvise64(FILE, 0, 16, -1)),
        case!(fadvise64(FILE, 0, -1, POSIX_FADV_NORMAL)),
        case!(fadvise64(FILE, -1, 16, POSIX_FADV_NORMAL)),
        case!(fadvise64(BAD, 0, -1, 6)),
        case!(fadvise64(PIPE_R, 0, 16, 6)),
        case!(fadvise64(PATH_ONLY, 0, 16, POSIX_FADV_NORMAL)),
        case!(fadvise64(NULL_DEVICE, 0, 16, POSIX_FADV_WILLNEED)),
        case!(fadvise64(event(0), 0, 16, POSIX_FADV_NORMAL)),
        case!(fadvise64(DIRECTORY, 0, 16, POSIX_FADV_WILLNEED)),
    ]
}

/// A second open file of `f`.
const OTHER: Object = Object::Opened("l", O_RDWR);

/// A `struct flock` of the whole file.
fn whole(kind: i32) -> Memory {
    let mut bytes = (kind as i16).to_le_bytes().to_vec();
    bytes.resize(32, 0);
    Memory::Bytes(bytes)
}

/// A `struct flock` of that range, with that `l_pid`.
fn range(kind: i32, whence: i32, start: i64, length: i64, pid: i32) -> Memory {
    let mut bytes = (kind as i16).to_le_bytes().to_vec();
    bytes.extend((whence as i16).to_le_bytes());
    bytes.extend([0; 4]);
    bytes.extend(start.to_le_bytes());
    bytes.extend(length.to_le_bytes());
    bytes.extend(pid.to_le_bytes());
    bytes.extend([0; 4]);
    Memory::Bytes(bytes)
}

/// A `struct flock` that is told afterwards.
fn asked(kind: u64, start: u64, length: u64) -> Memory {
    words([kind, start, length, 0])
}

fn locks() -> Vec<Case> {
    vec![
        case!(flock(FILE, LOCK_EX)),
        case!(flock(FILE, LOCK_SH | LOCK_NB)),
        case!(flock(FILE, LOCK_UN)),
        case!(flock(FILE, LOCK_EX | LOCK_NB), after[flock(OTHER, LOCK_SH)]),
        case!(flock(FILE, LOCK_SH | LOCK_NB), after[flock(OTHER, LOCK_SH)]),
        case!(flock(FILE, LOCK_EX), after [flock(OTHER, LOCK_EX)]; waits),
        case!(
            flock(FILE, LOCK_EX),
            after[flock(OTHER, LOCK_EX)],
            meanwhile[flock(OTHER, LOCK_UN)]
        ),
        case!(
            flock(FILE, LOCK_EX),
            after[flock(OTHER, LOCK_EX)],
            meanwhile[close(OTHER)]
        ),
        case!(flock(FILE, 0)),
        case!(flock(FILE, LOCK_NB)),
        case!(flock(FILE, LOCK_SH | LOCK_EX)),
        case!(flock(FILE, 0x100)),
        case!(flock(BAD, 0)),
        case!(flock(BAD, LOCK_EX)),
        case!(flock(PATH_ONLY, LOCK_EX)),
        case!(flock(PIPE_R, LOCK_EX)),
        case!(flock(event(0), LOCK_EX)),
        case!(flock(NULL_DEVICE, LOCK_EX)),
        case!(flock(DIRECTORY, LOCK_EX)),
        case!(fcntl(FILE, F_SETLK, whole(F_WRLCK))),
        case!(fcntl(FILE, F_SETLK, whole(F_UNLCK))),
        case!(fcntl(FILE, F_SETLK, whole(3))),
        case!(fcntl(FILE, F_SETLK, UNMAPPED)),
        case!(fcntl(READER, F_SETLK, whole(F_WRLCK))),
        case!(fcntl(WRITER, F_SETLK, whole(F_RDLCK))),
        case!(fcntl(FILE, F_SETLK, range(F_WRLCK, SEEK_SET, -1, 0, 0))),
        case!(fcntl(FILE, F_SETLK, range(F_WRLCK, SEEK_SET, 4, -8, 0))),
        case!(fcntl(FILE, F_SETLK, range(F_WRLCK, SEEK_SET, 8, -8, 0))),
        case!(fcntl(FILE, F_SETLK, range(F_WRLCK, SEEK_SET, MOST, 2, 0))),
        case!(fcntl(FILE, F_SETLK, range(F_WRLCK, 5, 0, 0, 0))),
        case!(fcntl(FILE, F_SETLK, range(F_WRLCK, SEEK_END, -17, 0, 0))),
        case!(fcntl(BAD, F_SETLK, UNMAPPED)),
        case!(fcntl(PATH_ONLY, F_SETLK, whole(F_WRLCK))),
        case!(fcntl(PIPE_W, F_SETLK, whole(F_WRLCK))),
        case!(
            fcntl(FILE, F_GETLK, asked(1, 0, 0)),
            after[fcntl(OTHER, F_SETLK, whole(F_WRLCK))]
        ),
        case!(fcntl(FILE, F_GETLK, asked(2, 0, 0))),
        case!(fcntl(FILE, F_GETLK, UNMAPPED)),
        case!(fcntl(FILE, F_GETLK, READ_ONLY)),
        case!(fcntl(FILE, F_OFD_SETLK, whole(F_WRLCK))),
        case!(fcntl(FILE, F_OFD_SETLK, range(F_WRLCK, SEEK_SET, 0, 0, 1))),
        case!(
            fcntl(FILE, F_OFD_SETLK, whole(F_WRLCK)),
            after[fcntl(OTHER, F_OFD_SETLK, whole(F_WRLCK))]
        ),
        case!(fcntl(FILE, F_OFD_SETLKW, whole(F_WRLCK)), after [fcntl(OTHER, F_OFD_SETLK, whole(F_WRLCK))]; waits),
        case!(
            fcntl(FILE, F_OFD_SETLKW, whole(F_WRLCK)),
            after[fcntl(OTHER, F_OFD_SETLK, whole(F_WRLCK))],
            meanwhile[close(OTHER)]
        ),
        case!(
            fcntl(FILE, F_OFD_GETLK, asked(1, 0, 0)),
            after[fcntl(OTHER, F_OFD_SETLK, whole(F_RDLCK))]
        ),
        case!(
            fcntl(FILE, F_OFD_SETLK, whole(F_WRLCK)),
            after[fcntl(OTHER, F_SETLK, whole(F_WRLCK))]
        ),
        // Closing any descriptor of a file gives up the locks of the process, by either door.
        case!(
            close(OTHER),
            after[fcntl(FILE, F_SETLK, whole(F_WRLCK))],
            then[fcntl(opened("f", O_RDWR), F_OFD_GETLK, asked(1, 0, 0))]
        ),
        case!(
            close(APPENDER),
            after[fcntl(FILE, F_OFD_SETLK, whole(F_WRLCK))],
            then[fcntl(READER, F_OFD_GETLK, asked(1, 0, 0))]
        ),
    ]
}

fn controls() -> Vec<Case> {
    vec![
        case!(fcntl(FILE, F_GETFD, 0)),
        case!(fcntl(FILE, F_SETFD, 1), then[fcntl(FILE, F_GETFD, 0)]),
        case!(fcntl(FILE, F_SETFD, 6), then[fcntl(FILE, F_GETFD, 0)]),
        case!(fcntl(FILE, F_GETFL, 0)),
        case!(fcntl(PATH_ONLY, F_GETFL, 0)),
        case!(fcntl(PATH_ONLY, F_GETFD, 0)),
        case!(fcntl(PATH_ONLY, F_SETFL, 0)),
        case!(
            fcntl(FILE, F_SETFL, O_APPEND | O_NONBLOCK),
            then[fcntl(FILE, F_GETFL, 0)]
        ),
        case!(
            fcntl(FILE, F_SETFL, O_DIRECT),
            then[fcntl(FILE, F_GETFL, 0)]
        ),
        case!(
            fcntl(FILE, F_SETFL, O_NOATIME),
            then[fcntl(FILE, F_GETFL, 0)]
        ),
        case!(fcntl(FILE, F_SETFL, -1), then[fcntl(FILE, F_GETFL, 0)]),
        case!(
            fcntl(PIPE_W, F_SETFL, O_DIRECT),
            then[fcntl(PIPE_W, F_GETFL, 0)]
        ),
        case!(fcntl(event(0), F_SETFL, O_DIRECT)),
        case!(fcntl(FILE, F_DUPFD, 10)),
        case!(fcntl(FILE, F_DUPFD, -1)),
        case!(fcntl(FILE, F_DUPFD, 1024)),
        case!(fcntl(FILE, F_DUPFD, 1023)),
        case!(
            fcntl(FILE, F_DUPFD_CLOEXEC, 10),
            then[fcntl(10, F_GETFD, 0)]
        ),
        case!(fcntl(FILE, F_DUPFD_CLOEXEC, 5000)),
        case!(fcntl(BAD, F_DUPFD, -1)),
        case!(fcntl(BAD, F_GETFD, 0)),
        case!(fcntl(BAD, 99, 0)),
        case!(fcntl(FILE, 99, 0)),
        case!(fcntl(FILE, -1, 0)),
        case!(fcntl(PATH_ONLY, 99, 0)),
        case!(fcntl(FILE, F_GETOWN, 0)),
        case!(fcntl(FILE, F_SETOWN, 0)),
        case!(fcntl(FILE, F_SETOWN, 1 << 22)),
        case!(fcntl(FILE, F_SETOWN, i32::MIN)),
        case!(fcntl(FILE, F_GETSIG, 0)),
        case!(
            fcntl(FILE, F_SETSIG, SIGUSR1),
            then[fcntl(FILE, F_GETSIG, 0)]
        ),
        case!(fcntl(FILE, F_SETSIG, 65)),
        case!(fcntl(FILE, F_SETSIG, -1)),
        case!(fcntl(PIPE_R, F_GETSIG, 0)),
        case!(fcntl(FILE, F_GETOWN_EX, room(8))),
        case!(fcntl(FILE, F_GETOWN_EX, UNMAPPED)),
        case!(fcntl(FILE, F_SETOWN_EX, halves([9, 0]))),
        case!(fcntl(FILE, F_SETOWN_EX, halves([1, 0]))),
        case!(fcntl(FILE, F_GETLEASE, 0)),
        case!(fcntl(DIRECTORY, F_GETLEASE, 0)),
        case!(fcntl(PIPE_R, F_GETLEASE, 0)),
        case!(fcntl(PATH_ONLY, F_GETLEASE, 0)),
        case!(fcntl(FILE, F_SETLEASE, F_RDLCK)),
        case!(fcntl(READER, F_SETLEASE, 7)),
        case!(fcntl(READER, F_SETLEASE, F_UNLCK)),
        case!(fcntl(PIPE_R, F_SETLEASE, F_RDLCK)),
        case!(fcntl(FILE, F_NOTIFY, 0)),
        case!(fcntl(DIRECTORY, F_NOTIFY, 0)),
        case!(fcntl(FILE, F_GETPIPE_SZ, 0)),
        case!(fcntl(PIPE_R, F_GETPIPE_SZ, 0)),
        case!(
            fcntl(PIPE_R, F_SETPIPE_SZ, 5000),
            then[fcntl(PIPE_W, F_GETPIPE_SZ, 0)]
        ),
        case!(
            fcntl(PIPE_R, F_SETPIPE_SZ, 0),
            then[fcntl(PIPE_W, F_GETPIPE_SZ, 0)]
        ),
        case!(fcntl(PIPE_R, F_SETPIPE_SZ, -1)),
        case!(fcntl(PIPE_R, F_SETPIPE_SZ, 1 << 30)),
        case!(
            fcntl(PIPE_R, F_SETPIPE_SZ, 4096),
            after[write(PIPE_W, room(9000), 9000)]
        ),
        case!(fcntl(FILE, F_GET_SEALS, 0)),
        case!(fcntl(FILE, F_ADD_SEALS, F_SEAL_WRITE)),
        case!(
            fcntl(made(0), F_GET_SEALS, 0),
            after[memfd_create("m", MFD_ALLOW_SEALING)]
        ),
        case!(fcntl(made(0), F_GET_SEALS, 0), after[memfd_create("m", 0)]),
        case!(
            fcntl(made(0), F_ADD_SEALS, F_SEAL_GROW),
            after[memfd_create("m", 0)]
        ),
        case!(fcntl(made(0), F_ADD_SEALS, F_SEAL_GROW), after [memfd_create("m", MFD_ALLOW_SEALING)], then [ftruncate(made(0), 8), fcntl(made(0), F_GET_SEALS, 0)]),
        case!(
            fcntl(made(0), F_ADD_SEALS, 0x1000),
            after[memfd_create("m", MFD_ALLOW_SEALING)]
        ),
        case!(fcntl(FILE, 1036, UNMAPPED)),
        case!(fcntl(FILE, 1035, room(8))),
        case!(fcntl(FILE, 1027, 5)),
        case!(fcntl(FILE, 1028, 0)),
    ]
}

fn devices() -> Vec<Case> {
    vec![
        case!(ioctl(FILE, FIONREAD, room(4))),
        case!(ioctl(FILE, FIONREAD, UNMAPPED)),
        case!(
            ioctl(PIPE_R, FIONREAD, room(4)),
            after[write(PIPE_W, "abc", 3)]
        ),
        case!(ioctl(PIPE_R, FIONREAD, UNMAPPED)),
        case!(ioctl(BAD, FIONREAD, UNMAPPED)),
        case!(ioctl(PATH_ONLY, FIONREAD, UNMAPPED)),
        case!(ioctl(DIRECTORY, FIONREAD, room(4))),
        case!(ioctl(event(0), FIONREAD, room(4))),
        case!(
            ioctl(FILE, FIONBIO, halves([1])),
            then[fcntl(FILE, F_GETFL, 0)]
        ),
        case!(
            ioctl(PIPE_R, FIONBIO, halves([1])),
            then[fcntl(PIPE_R, F_GETFL, 0)]
        ),
        case!(ioctl(FILE, FIONBIO, UNMAPPED)),
        case!(ioctl(FILE, FIOCLEX, 0), then[fcntl(FILE, F_GETFD, 0)]),
        case!(
            ioctl(opened("f", O_RDWR | O_CLOEXEC), FIONCLEX, 0),
            then[fcntl(opened("f", O_RDWR | O_CLOEXEC), F_GETFD, 0)]
        ),
        case!(ioctl(FILE, FIOASYNC, halves([1]))),
        case!(
            ioctl(PIPE_R, FIOASYNC, halves([1])),
            then[fcntl(PIPE_R, F_GETFL, 0)]
        ),
        case!(ioctl(FILE, FIOASYNC, UNMAPPED)),
        case!(ioctl(FILE, FIOQSIZE, room(8))),
        case!(ioctl(FILE, 2, room(4))),
        case!(ioctl(FILE, 1, room(4))),
        case!(ioctl(FILE, TCGETS, room(64))),
        case!(ioctl(PIPE_R, TCGETS, room(64))),
        case!(ioctl(NULL_DEVICE, TCGETS, room(64))),
        case!(ioctl(RING, TCGETS, room(64))),
        case!(ioctl(FILE, 0x1234_5678, UNMAPPED)),
    ]
}
