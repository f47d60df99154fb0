//! System calls about files, as a program makes them. What Linux does was found out on 6.18.

mod descriptors;
mod mounts;
mod names;

use super::{Args, Dispatched, dispatch, dispatch_now};
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
        let namespace = Namespace::in_memory().0;
        block_on(DeviceDirectory::mount(namespace.clone())).unwrap();
        let space = AddressSpace::new().unwrap();
        let access = Access::READ | Access::WRITE;
        let memory = space.map(MapRequest::anonymous(2 * PAGE, access)).unwrap();
        let files = Arc::new(FdTable::new());
        let process = Process::new(space, files, FsContext::new(namespace));
        Self {
            thread: Thread::new(
                process,
                UserContext::new(0, 0),
                [0; 16],
                crate::thread_loop::run,
            ),
            memory,
        }
    }

    fn call(&mut self, number: u32, args: &[u64]) -> Result<u64> {
        let mut all = [0; 6];
        all[..args.len()].copy_from_slice(args);
        let (thread, number, args) = (&mut self.thread, number.into(), Args(all));
        match dispatch_now(thread, number, args) {
            Dispatched::Done(result) => result,
            Dispatched::Waits => block_on(dispatch(thread, number, args)),
            Dispatched::Entered(_) => panic!("no ring is entered here"),
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
    caller.thread.process.set_blocked(1, blocked);
    assert_eq!(caller.write(writer, b"x"), Err(Errno::EPIPE));
    let [pending, _] = caller.thread.process.pending(1);
    assert!(pending.contains(Signal::SIGPIPE));
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
