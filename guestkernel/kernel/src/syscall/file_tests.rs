//! System calls about files, as a program makes them. What Linux does was found out on 6.18.

use super::{Args, dispatch, dispatch_now};
use crate::error::{Errno, Result};
use crate::executor::block_on;
use crate::fs::{DeviceDirectory, FdTable, FsContext, Namespace};
use crate::mm::{Access, AddressSpace, MapRequest, PAGE};
use crate::process::{Process, Signal, Thread};
use alloc::sync::Arc;
use alloc::vec;
use alloc::vec::Vec;
use linux_raw_sys::general as raw;
use linux_raw_sys::ioctl;
use machine::UserContext;

/// An address where nothing is mapped.
const BAD: u64 = 8;
const HERE: u64 = raw::AT_FDCWD as u64;
const RDWR_CREATE: u64 = (raw::O_RDWR | raw::O_CREAT) as u64;

/// A program that makes system calls, with two pages of memory to point at.
struct Caller {
    thread: Thread,
    memory: u64,
}

impl Caller {
    fn new() -> Self {
        let namespace = Namespace::new();
        DeviceDirectory::mount(namespace.clone()).unwrap();
        let space = AddressSpace::new().unwrap();
        let access = Access::READ | Access::WRITE;
        let memory = space.map(MapRequest::anonymous(2 * PAGE, access)).unwrap();
        let files = Arc::new(FdTable::new());
        let process = Process::new(space, files, FsContext::new(namespace));
        Self {
            thread: Thread::new(process, UserContext::new(0, 0), [0; 16]),
            memory,
        }
    }

    fn call(&mut self, number: u32, args: &[u64]) -> Result<u64> {
        let mut all = [0; 6];
        all[..args.len()].copy_from_slice(args);
        let (thread, number, args) = (&mut self.thread, number.into(), Args(all));
        match dispatch_now(thread, number, args) {
            Some(result) => result,
            None => block_on(dispatch(thread, number, args)),
        }
    }

    fn space(&self) -> &AddressSpace {
        &self.thread.process.space
    }

    /// The address of the byte `offset` of the memory.
    fn at(&self, offset: u64) -> u64 {
        self.memory + offset
    }

    /// Puts bytes into the memory and gives their address.
    fn put(&self, offset: u64, bytes: &[u8]) -> u64 {
        self.space().write(self.at(offset), bytes).unwrap();
        self.at(offset)
    }

    fn put_words(&self, offset: u64, words: &[u64]) -> u64 {
        let bytes: Vec<u8> = words.iter().flat_map(|word| word.to_ne_bytes()).collect();
        self.put(offset, &bytes)
    }

    fn get(&self, offset: u64, count: usize) -> Vec<u8> {
        let mut bytes = vec![0; count];
        self.space().read(self.at(offset), &mut bytes).unwrap();
        bytes
    }

    fn word(&self, offset: u64) -> u64 {
        self.space().read_value(self.at(offset)).unwrap()
    }

    fn open(&mut self, path: &str, flags: u64) -> Result<u64> {
        let path = self.put(0, &[path.as_bytes(), b"\0"].concat());
        self.call(raw::__NR_open, &[path, flags, 0o644])
    }

    fn write(&mut self, fd: u64, bytes: &[u8]) -> Result<u64> {
        let address = self.put(PAGE, bytes);
        self.call(raw::__NR_write, &[fd, address, bytes.len() as u64])
    }

    /// Opens a new file with that contents; its position is at the start.
    fn file(&mut self, path: &str, contents: &[u8]) -> u64 {
        let fd = self.open(path, RDWR_CREATE).unwrap();
        self.write(fd, contents).unwrap();
        self.call(raw::__NR_lseek, &[fd, 0, 0]).unwrap();
        fd
    }

    fn pipe(&mut self) -> (u64, u64) {
        let address = self.at(0);
        self.call(raw::__NR_pipe2, &[address, 0]).unwrap();
        let pair = self.word(0);
        (pair & 0xffff_ffff, pair >> 32)
    }
}

fn minus(value: u64) -> u64 {
    value.wrapping_neg()
}

#[test]
fn reads_and_writes_check_their_arguments_in_order() {
    let mut caller = Caller::new();
    let fd = caller.file("f", b"0123456789");
    let buffer = caller.at(0);
    let (reader, writer) = caller.pipe();
    let directory = caller.open("/", 0).unwrap();
    for (number, args, result) in [
        (raw::__NR_read, [fd, BAD, 5, 0], Err(Errno::EFAULT)),
        (raw::__NR_read, [fd, BAD, 0, 0], Ok(0)),
        (
            raw::__NR_read,
            [fd, buffer, u64::MAX, 0],
            Err(Errno::EFAULT),
        ),
        (raw::__NR_read, [writer, BAD, 5, 0], Err(Errno::EBADF)),
        (raw::__NR_write, [reader, buffer, 5, 0], Err(Errno::EBADF)),
        (
            raw::__NR_read,
            [directory, buffer, 5, 0],
            Err(Errno::EISDIR),
        ),
        (raw::__NR_read, [99, buffer, 5, 0], Err(Errno::EBADF)),
        (
            raw::__NR_pread64,
            [fd, buffer, 5, minus(1)],
            Err(Errno::EINVAL),
        ),
        (
            raw::__NR_pread64,
            [reader, buffer, 5, 0],
            Err(Errno::ESPIPE),
        ),
        (raw::__NR_pread64, [fd, buffer, 5, 8], Ok(2)),
        (raw::__NR_pread64, [fd, buffer, 5, 1 << 40], Ok(0)),
        (raw::__NR_lseek, [reader, 0, 9, 0], Err(Errno::EINVAL)),
        (raw::__NR_lseek, [reader, 0, 0, 0], Err(Errno::ESPIPE)),
        (raw::__NR_lseek, [fd, minus(1), 2, 0], Ok(9)),
        (raw::__NR_read, [fd, buffer, 5, 0], Ok(1)),
    ] {
        assert_eq!(caller.call(number, &args), result, "{number} {args:?}");
    }
    assert_eq!(caller.get(0, 1), b"9");
}

#[test]
fn vectors_have_limits() {
    let mut caller = Caller::new();
    let fd = caller.file("f", b"0123456789");
    let (a, b) = (caller.at(PAGE), caller.at(PAGE + 100));
    let vector = caller.put_words(0, &[a, 3, b, 4, 0, 0]);
    assert_eq!(caller.call(raw::__NR_readv, &[fd, vector, 3]), Ok(7));
    assert_eq!(
        (caller.get(PAGE, 3), caller.get(PAGE + 100, 4)),
        (b"012".to_vec(), b"3456".to_vec())
    );
    assert_eq!(
        caller.call(raw::__NR_readv, &[fd, vector, 1025]),
        Err(Errno::EINVAL)
    );
    assert_eq!(
        caller.call(raw::__NR_readv, &[fd, vector, minus(1)]),
        Err(Errno::EINVAL)
    );
    assert_eq!(caller.call(raw::__NR_readv, &[fd, BAD, 0]), Ok(0));
    assert_eq!(
        caller.call(raw::__NR_readv, &[fd, BAD, 1]),
        Err(Errno::EFAULT)
    );
    assert_eq!(caller.call(raw::__NR_preadv, &[fd, vector, 2, 8]), Ok(2));
    assert_eq!(
        caller.call(raw::__NR_pwritev, &[fd, vector, 1, minus(1)]),
        Err(Errno::EINVAL)
    );
    // The second piece is bad: the first is done.
    caller.put_words(0, &[a, 3, BAD, 4]);
    assert_eq!(caller.call(raw::__NR_pwritev, &[fd, vector, 2, 0]), Ok(3));
    caller.put_words(0, &[a, minus(1)]);
    assert_eq!(
        caller.call(raw::__NR_writev, &[fd, vector, 1]),
        Err(Errno::EINVAL)
    );
    caller.put_words(0, &[a, 5]);
    for (flags, result) in [
        (raw::RWF_HIPRI, Ok(5)),
        (raw::RWF_NOWAIT, Err(Errno::EOPNOTSUPP)),
        (0x40, Err(Errno::EOPNOTSUPP)),
        (0x8000, Err(Errno::EOPNOTSUPP)),
    ] {
        let args = [fd, vector, 1, 0, 0, flags.into()];
        assert_eq!(caller.call(raw::__NR_preadv2, &args), result, "{flags:#x}");
    }
    caller.put_words(0, &[a, 0]);
    let args = [fd, vector, 1, minus(1), minus(1), 0x8000];
    assert_eq!(caller.call(raw::__NR_preadv2, &args), Ok(0));
    assert_eq!(
        caller.call(raw::__NR_preadv2, &[fd, vector, 1, minus(2)]),
        Err(Errno::EINVAL)
    );
}

#[test]
fn a_write_to_nobody_is_an_error_and_a_signal() {
    let mut caller = Caller::new();
    let (reader, writer) = caller.pipe();
    caller.call(raw::__NR_close, &[reader]).unwrap();
    let blocked = crate::process::SignalSet(1 << (Signal::SIGPIPE.number() - 1));
    caller.thread.process.signals.lock().blocked = blocked;
    assert_eq!(caller.write(writer, b"x"), Err(Errno::EPIPE));
    let pending = caller.thread.process.signals.lock().pending;
    assert!(pending.contains(Signal::SIGPIPE));
}

#[test]
fn directories_are_listed_in_both_layouts() {
    let mut caller = Caller::new();
    caller.file("some-file", b"");
    let fd = caller.open("/", u64::from(raw::O_DIRECTORY)).unwrap();
    let buffer = caller.at(0);
    let list = [fd, buffer, 4096];
    let count = caller.call(raw::__NR_getdents64, &list).unwrap();
    let bytes = caller.get(0, count as usize);
    let length = |entry: &[u8]| usize::from(u16::from_ne_bytes([entry[16], entry[17]]));
    let mut entries = Vec::new();
    let mut rest = &bytes[..];
    while !rest.is_empty() {
        let (entry, after) = rest.split_at(length(rest));
        let name = entry[19..].split(|byte| *byte == 0).next().unwrap();
        entries.push((name.to_vec(), u32::from(entry[18])));
        rest = after;
    }
    let named = |name: &[u8], kind| (name.to_vec(), kind);
    assert_eq!(
        entries,
        [
            named(b".", raw::DT_DIR),
            named(b"..", raw::DT_DIR),
            named(b"dev", raw::DT_DIR),
            named(b"some-file", raw::DT_REG),
        ]
    );
    assert_eq!(caller.call(raw::__NR_getdents64, &list), Ok(0));
    caller.call(raw::__NR_lseek, &[fd, 0, 0]).unwrap();
    assert_eq!(
        caller.call(raw::__NR_getdents64, &[fd, buffer, 10]),
        Err(Errno::EINVAL)
    );
    assert_eq!(
        caller.call(raw::__NR_getdents64, &[fd, BAD, 100]),
        Err(Errno::EFAULT)
    );
    assert_eq!(caller.call(raw::__NR_getdents, &[fd, buffer, 24]), Ok(24));
    let old = caller.get(0, 24);
    assert_eq!(
        (length(&old), &old[18..20], old[23]),
        (24, &b".\0"[..], raw::DT_DIR as u8)
    );
    let file = caller.open("some-file", 0).unwrap();
    assert_eq!(
        caller.call(raw::__NR_getdents64, &[file, buffer, 100]),
        Err(Errno::ENOTDIR)
    );
}

#[test]
fn descriptors_are_duplicated_and_closed() {
    let mut caller = Caller::new();
    let fd = caller.file("f", b"x");
    let cloexec = u64::from(raw::O_CLOEXEC);
    for (number, args, result) in [
        (raw::__NR_dup, [fd, 0, 0], Ok(1)),
        (raw::__NR_dup2, [fd, fd, 0], Ok(fd)),
        (raw::__NR_dup2, [99, 99, 0], Err(Errno::EBADF)),
        (raw::__NR_dup2, [fd, 7, 0], Ok(7)),
        (raw::__NR_dup2, [fd, 1 << 20, 0], Err(Errno::EBADF)),
        (raw::__NR_dup2, [fd, minus(1), 0], Err(Errno::EBADF)),
        (raw::__NR_dup3, [fd, fd, 0], Err(Errno::EINVAL)),
        (raw::__NR_dup3, [fd, 9, 1], Err(Errno::EINVAL)),
        (raw::__NR_dup3, [fd, 9, cloexec], Ok(9)),
        (raw::__NR_fcntl, [9, raw::F_GETFD.into(), 0], Ok(1)),
        (raw::__NR_fcntl, [fd, raw::F_DUPFD.into(), 8], Ok(8)),
        (
            raw::__NR_fcntl,
            [fd, raw::F_DUPFD.into(), 1 << 20],
            Err(Errno::EINVAL),
        ),
        (
            raw::__NR_fcntl,
            [fd, raw::F_DUPFD.into(), minus(1)],
            Err(Errno::EINVAL),
        ),
        (raw::__NR_fcntl, [fd, 9999, 0], Err(Errno::EINVAL)),
        (
            raw::__NR_fcntl,
            [fd, raw::F_GETPIPE_SZ.into(), 0],
            Err(Errno::EBADF),
        ),
        (raw::__NR_fcntl, [fd, raw::F_GET_SEALS.into(), 0], Ok(1)),
        (
            raw::__NR_fcntl,
            [fd, raw::F_ADD_SEALS.into(), 1],
            Err(Errno::EPERM),
        ),
        (raw::__NR_close_range, [10, 5, 0], Err(Errno::EINVAL)),
        (raw::__NR_close_range, [5, 10, 1], Err(Errno::EINVAL)),
        (raw::__NR_close_range, [7, 8, u64::from(4_u32)], Ok(0)),
        (raw::__NR_fcntl, [8, raw::F_GETFD.into(), 0], Ok(1)),
        (raw::__NR_close_range, [1, u64::from(u32::MAX), 0], Ok(0)),
        (raw::__NR_close, [9, 0, 0], Err(Errno::EBADF)),
        (raw::__NR_close, [fd, 0, 0], Ok(0)),
    ] {
        assert_eq!(caller.call(number, &args), result, "{number} {args:?}");
    }
}

#[test]
fn a_pipe_that_cannot_be_told_of_is_closed_again() {
    let mut caller = Caller::new();
    assert_eq!(caller.call(raw::__NR_pipe2, &[BAD, 0]), Err(Errno::EFAULT));
    let address = caller.at(0);
    assert_eq!(
        caller.call(raw::__NR_pipe2, &[address, 1]),
        Err(Errno::EINVAL)
    );
    assert_eq!(caller.pipe(), (0, 1));
    let nonblocking = u64::from(raw::O_NONBLOCK);
    caller
        .call(raw::__NR_fcntl, &[0, raw::F_SETFL.into(), nonblocking])
        .unwrap();
    assert_eq!(
        caller.call(raw::__NR_read, &[0, address, 1]),
        Err(Errno::EAGAIN)
    );
    caller.write(1, b"abc").unwrap();
    caller
        .call(raw::__NR_ioctl, &[0, ioctl::FIONREAD.into(), address])
        .unwrap();
    assert_eq!(caller.word(0) as u32, 3);
    assert_eq!(
        caller.call(raw::__NR_fcntl, &[0, raw::F_GETPIPE_SZ.into()]),
        Ok(65536)
    );
}

#[test]
fn poll_and_select_tell_what_is_ready() {
    let mut caller = Caller::new();
    let (reader, writer) = caller.pipe();
    let entry = |fd: u64, events: u32| fd & 0xffff_ffff | u64::from(events) << 32;
    let entries = [
        entry(reader, raw::POLLIN),
        entry(writer, raw::POLLOUT | raw::POLLIN),
        entry(99, raw::POLLIN),
        entry(minus(1), raw::POLLIN),
    ];
    let address = caller.put_words(0, &entries);
    assert_eq!(caller.call(raw::__NR_poll, &[address, 4, minus(1)]), Ok(2));
    let revents = |caller: &Caller, index: u64| caller.word(index * 8) >> 48;
    assert_eq!(revents(&caller, 0), 0);
    assert_eq!(revents(&caller, 1), raw::POLLOUT.into());
    assert_eq!(revents(&caller, 2), raw::POLLNVAL.into());
    assert_eq!(revents(&caller, 3), 0);
    assert_eq!(caller.call(raw::__NR_poll, &[address, 1, 1]), Ok(0));
    assert_eq!(
        caller.call(raw::__NR_poll, &[address, 1025, 0]),
        Err(Errno::EINVAL)
    );
    let timeout = caller.put_words(100, &[0, 1_000_000]);
    assert_eq!(
        caller.call(raw::__NR_ppoll, &[address, 1, timeout, 0, 8]),
        Ok(0)
    );
    assert_eq!((caller.word(100), caller.word(108)), (0, 0));
    caller.put_words(100, &[0, 1_000_000_000]);
    assert_eq!(
        caller.call(raw::__NR_ppoll, &[address, 1, timeout]),
        Err(Errno::EINVAL)
    );
    caller.write(writer, b"x").unwrap();
    let sets = caller.put_words(200, &[1 << reader, 1 << writer, 0]);
    let select = [8, sets, sets + 8, 0, 0];
    assert_eq!(caller.call(raw::__NR_select, &select), Ok(2));
    assert_eq!(
        (caller.word(200), caller.word(208)),
        (1 << reader, 1 << writer)
    );
    caller.put_words(200, &[1 << 7, 0]);
    assert_eq!(caller.call(raw::__NR_select, &select), Err(Errno::EBADF));
    assert_eq!(
        caller.call(raw::__NR_select, &[minus(1), 0, 0, 0, 0]),
        Err(Errno::EINVAL)
    );
}

#[test]
fn openat2_reads_structures_of_all_versions() {
    let mut caller = Caller::new();
    caller.file("f", b"");
    let path = caller.put(0, b"f\0");
    let how = caller.put_words(100, &[0, 0, 0, 0]);
    let mut open = |size| caller.call(raw::__NR_openat2, &[HERE, path, how, size]);
    assert_eq!(open(8), Err(Errno::EINVAL));
    assert_eq!(open(24), Ok(1));
    assert_eq!(open(32), Ok(2));
    assert_eq!(open(5000), Err(Errno::E2BIG));
    caller.put_words(124, &[1]);
    let later = [HERE, path, how, 32];
    assert_eq!(caller.call(raw::__NR_openat2, &later), Err(Errno::E2BIG));
}

#[test]
fn files_are_copied_by_the_kernel() {
    let mut caller = Caller::new();
    let from = caller.file("f", b"0123456789");
    let to = caller.file("g", b"");
    let (reader, writer) = caller.pipe();
    let offset = caller.put_words(0, &[2]);
    assert_eq!(
        caller.call(raw::__NR_sendfile, &[to, from, offset, 5]),
        Ok(5)
    );
    assert_eq!(caller.word(0), 7);
    assert_eq!(
        caller.call(raw::__NR_sendfile, &[to, reader, 0, 5]),
        Err(Errno::EINVAL)
    );
    let directory = caller.open("/", 0).unwrap();
    assert_eq!(
        caller.call(raw::__NR_sendfile, &[writer, directory, 0, 5]),
        Err(Errno::EINVAL)
    );
    assert_eq!(
        caller.call(raw::__NR_sendfile, &[writer, from, 0, 100]),
        Ok(10)
    );
    let splice = [reader, 0, to, 0, 100, 0];
    assert_eq!(caller.call(raw::__NR_splice, &splice), Ok(10));
    let buffer = caller.at(0);
    assert_eq!(caller.call(raw::__NR_pread64, &[to, buffer, 99, 0]), Ok(15));
    assert_eq!(caller.get(0, 15), b"234560123456789");
    for (args, error) in [
        ([from, 0, to, 0, 10, 0], Errno::EINVAL),
        ([reader, 0, to, 0, 10, 0x100], Errno::EINVAL),
        ([reader, buffer, to, 0, 10, 0], Errno::ESPIPE),
    ] {
        assert_eq!(caller.call(raw::__NR_splice, &args), Err(error), "{args:?}");
    }
    caller.put_words(0, &[0, 100]);
    let range = [from, buffer, to, buffer + 8, 10, 0];
    assert_eq!(caller.call(raw::__NR_copy_file_range, &range), Ok(10));
    assert_eq!((caller.word(0), caller.word(8)), (10, 110));
    let flags = [from, buffer, to, buffer + 8, 10, 1];
    assert_eq!(
        caller.call(raw::__NR_copy_file_range, &flags),
        Err(Errno::EINVAL)
    );
}

#[test]
fn hints_and_syncs_check_the_file() {
    let mut caller = Caller::new();
    let fd = caller.file("f", b"");
    let (reader, _) = caller.pipe();
    let write_only = caller.open("f", raw::O_WRONLY.into()).unwrap();
    let null = caller.open("/dev/null", 0).unwrap();
    for (number, args, result) in [
        (raw::__NR_fsync, [fd, 0, 0, 0], Ok(0)),
        (raw::__NR_fsync, [reader, 0, 0, 0], Err(Errno::EINVAL)),
        (raw::__NR_fdatasync, [null, 0, 0, 0], Err(Errno::EINVAL)),
        (raw::__NR_syncfs, [reader, 0, 0, 0], Ok(0)),
        (raw::__NR_sync_file_range, [fd, 0, 0, 8], Err(Errno::EINVAL)),
        (
            raw::__NR_sync_file_range,
            [fd, minus(1), 0, 0],
            Err(Errno::EINVAL),
        ),
        (
            raw::__NR_sync_file_range,
            [reader, 0, 0, 2],
            Err(Errno::ESPIPE),
        ),
        (raw::__NR_sync_file_range, [fd, 0, 0, 2], Ok(0)),
        (raw::__NR_fadvise64, [fd, 0, 0, 9], Err(Errno::EINVAL)),
        (raw::__NR_fadvise64, [reader, 0, 0, 0], Err(Errno::ESPIPE)),
        (raw::__NR_fadvise64, [null, 0, 0, 0], Ok(0)),
        (raw::__NR_readahead, [fd, 0, 10, 0], Ok(0)),
        (
            raw::__NR_readahead,
            [write_only, 0, 10, 0],
            Err(Errno::EBADF),
        ),
        (raw::__NR_readahead, [reader, 0, 10, 0], Err(Errno::EINVAL)),
        (
            raw::__NR_ftruncate,
            [fd, minus(1), 0, 0],
            Err(Errno::EINVAL),
        ),
        (raw::__NR_ftruncate, [reader, 0, 0, 0], Err(Errno::EINVAL)),
        (raw::__NR_fallocate, [fd, 0, 0, 10], Ok(0)),
        (raw::__NR_fallocate, [null, 0, 0, 10], Err(Errno::EBADF)),
        (raw::__NR_flock, [fd, 0, 0, 0], Err(Errno::EINVAL)),
        (raw::__NR_flock, [fd, 2, 0, 0], Ok(0)),
        (raw::__NR_flock, [write_only, 6, 0, 0], Err(Errno::EAGAIN)),
    ] {
        assert_eq!(caller.call(number, &args), result, "{number} {args:?}");
    }
}

#[test]
fn attributes_are_asked_and_set_by_path_and_descriptor() {
    let mut caller = Caller::new();
    let fd = caller.file("f", b"abc");
    let path = caller.put(0, b"f\0\0");
    let (empty, out) = (caller.at(2), caller.at(PAGE));
    let (empty_path, no_follow) = (
        u64::from(raw::AT_EMPTY_PATH),
        u64::from(raw::AT_SYMLINK_NOFOLLOW),
    );
    for (number, args, result) in [
        (raw::__NR_stat, [path, out, 0, 0, 0], Ok(0)),
        (raw::__NR_fstat, [fd, BAD, 0, 0, 0], Err(Errno::EFAULT)),
        (
            raw::__NR_newfstatat,
            [fd, empty, out, 0, 0],
            Err(Errno::ENOENT),
        ),
        (raw::__NR_newfstatat, [fd, empty, out, empty_path, 0], Ok(0)),
        (raw::__NR_newfstatat, [fd, 0, out, empty_path, 0], Ok(0)),
        (
            raw::__NR_newfstatat,
            [HERE, path, out, 1, 0],
            Err(Errno::EINVAL),
        ),
        (raw::__NR_statx, [HERE, path, 1, 0, out], Err(Errno::EINVAL)),
        (
            raw::__NR_statx,
            [HERE, path, 0x6000, 0, out],
            Err(Errno::EINVAL),
        ),
        (
            raw::__NR_statx,
            [HERE, path, 0, 1 << 31, out],
            Err(Errno::EINVAL),
        ),
        (raw::__NR_statx, [fd, 0, empty_path, 0xfff, out], Ok(0)),
        (raw::__NR_chmod, [path, 0o4755, 0, 0, 0], Ok(0)),
        (raw::__NR_chown, [path, 5, minus(1), 0, 0], Ok(0)),
        (
            raw::__NR_fchmodat2,
            [HERE, path, 0o600, no_follow, 0],
            Ok(0),
        ),
        (raw::__NR_fchownat, [fd, empty, 6, 7, empty_path], Ok(0)),
        (raw::__NR_utimensat, [fd, 0, 0, 0, 0], Ok(0)),
        (raw::__NR_utimensat, [HERE, 0, 0, 0, 0], Err(Errno::EFAULT)),
        (
            raw::__NR_utimensat,
            [fd, empty, 0, 1, 0],
            Err(Errno::EINVAL),
        ),
        (
            raw::__NR_faccessat2,
            [HERE, path, 0, 1, 0],
            Err(Errno::EINVAL),
        ),
        (raw::__NR_access, [path, 8, 0, 0, 0], Err(Errno::EINVAL)),
        (raw::__NR_readlink, [path, out, 0, 0, 0], Err(Errno::EINVAL)),
        (
            raw::__NR_readlinkat,
            [fd, empty, out, 9, 0],
            Err(Errno::ENOENT),
        ),
        (
            raw::__NR_unlinkat,
            [HERE, path, 1, 0, 0],
            Err(Errno::EINVAL),
        ),
        (
            raw::__NR_linkat,
            [HERE, path, HERE, path, 1],
            Err(Errno::EINVAL),
        ),
        (
            raw::__NR_getxattr,
            [path, path, out, 9, 0],
            Err(Errno::EOPNOTSUPP),
        ),
        (raw::__NR_listxattr, [path, out, 9, 0, 0], Ok(0)),
        (raw::__NR_statfs, [path, out, 0, 0, 0], Ok(0)),
        (raw::__NR_fstat, [fd, out, 0, 0, 0], Ok(0)),
    ] {
        assert_eq!(caller.call(number, &args), result, "{number} {args:?}");
    }
    // st_mode, st_uid, st_gid of the last.
    assert_eq!(
        caller.word(PAGE + 24),
        6 << 32 | u64::from(raw::S_IFREG | 0o600)
    );
    assert_eq!(caller.word(PAGE + 32), 7);
    assert_eq!(caller.call(raw::__NR_umask, &[0o7777]), Ok(0o22));
    assert_eq!(caller.call(raw::__NR_umask, &[0]), Ok(0o777));
    assert_eq!(caller.call(raw::__NR_getcwd, &[out, 1]), Err(Errno::ERANGE));
    assert_eq!(caller.call(raw::__NR_getcwd, &[out, 2]), Ok(2));
}

#[test]
fn memory_files_and_counters_are_files() {
    let mut caller = Caller::new();
    let long = caller.put(0, &[vec![b'x'; 250], vec![0]].concat());
    assert_eq!(
        caller.call(raw::__NR_memfd_create, &[long, 0]),
        Err(Errno::EINVAL)
    );
    let name = caller.put(0, b"name\0");
    assert_eq!(
        caller.call(raw::__NR_memfd_create, &[name, 0x100]),
        Err(Errno::EINVAL)
    );
    let fd = caller.call(raw::__NR_memfd_create, &[name, 0]).unwrap();
    assert_eq!(caller.write(fd, b"kept"), Ok(4));
    let out = caller.at(PAGE);
    caller.call(raw::__NR_fstat, &[fd, out]).unwrap();
    assert_eq!((caller.word(PAGE + 16), caller.word(PAGE + 48)), (0, 4));
    assert_eq!(caller.word(PAGE + 24) as u32, raw::S_IFREG | 0o777);
    assert_eq!(caller.call(raw::__NR_eventfd2, &[0, 2]), Err(Errno::EINVAL));
    let event = caller.call(raw::__NR_eventfd2, &[3, 0]).unwrap();
    assert_eq!(
        caller.call(raw::__NR_read, &[event, out, 4]),
        Err(Errno::EINVAL)
    );
    assert_eq!(caller.call(raw::__NR_read, &[event, out, 8]), Ok(8));
    assert_eq!(caller.word(PAGE), 3);
}

#[test]
fn locks_of_ranges_are_kept_and_told() {
    let mut caller = Caller::new();
    let fd = caller.file("f", b"");
    let other = caller.open("f", raw::O_RDWR.into()).unwrap();
    let (set, get) = (u64::from(raw::F_OFD_SETLK), u64::from(raw::F_OFD_GETLK));
    // l_type and l_whence, l_start, l_len, l_pid.
    let lock = caller.put_words(100, &[raw::F_WRLCK.into(), 10, 20, 0]);
    assert_eq!(caller.call(raw::__NR_fcntl, &[fd, set, lock]), Ok(0));
    assert_eq!(
        caller.call(raw::__NR_fcntl, &[other, set, lock]),
        Err(Errno::EAGAIN)
    );
    caller.put_words(100, &[raw::F_RDLCK.into(), 29, 0, 0]);
    assert_eq!(caller.call(raw::__NR_fcntl, &[other, get, lock]), Ok(0));
    assert_eq!(
        [caller.word(100) as u16, caller.word(108) as u16],
        [raw::F_WRLCK as u16, 10]
    );
    assert_eq!((caller.word(116), caller.word(124) as i32), (20, -1));
    caller.put_words(100, &[raw::F_RDLCK.into(), 30, 0, 0]);
    assert_eq!(caller.call(raw::__NR_fcntl, &[other, set, lock]), Ok(0));
    caller.put_words(100, &[9, 30, 0, 0]);
    assert_eq!(
        caller.call(raw::__NR_fcntl, &[other, set, lock]),
        Err(Errno::EINVAL)
    );
}
