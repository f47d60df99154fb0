//! Rings as a program sees them: SQEs are written through mapped pages, system calls made, CQEs
//! read. What is expected was seen on Linux 6.18.

mod cancel;

mod fuzz;
mod hostile;
mod links;
mod read_write;
mod registration;
mod rules;
mod timeout;
mod waiting;

use super::{Call, Enter, create, enter, register};
use crate::error::{Errno, Result};
use crate::executor;
use crate::fs::{
    BoxFuture, FdTable, FileOps, FsContext, Namespace, OpenFile, OpenFlags, WaitQueue,
};
use crate::io::{Direction, Io, IoFlags};
use crate::mm::{Access, AddressSpace, MapRequest};
use crate::process::{Process, Thread};
use alloc::collections::VecDeque;
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::future::Future;
use core::pin::pin;
use core::sync::atomic::{AtomicUsize, Ordering};
use core::task::{Context, Poll, Waker};
use linux_raw_sys::io_uring as raw;
use machine::lock::Mutex;
use machine::{Plain, UserContext};
use raw::io_uring_op as op;

const RW: Access = Access::READ.union(Access::WRITE);
const TASK: u32 = 1;

const LINK: u8 = 1 << 2;
const HARD_LINK: u8 = 1 << 3;
const DRAIN: u8 = 1 << 1;
const FIXED: u8 = 1 << 0;
const SKIP: u8 = 1 << 6;
const SELECT: u8 = 1 << 5;

/// A submission, as a program would fill it in.
#[derive(Clone, Copy, Debug, Default)]
struct Entry {
    opcode: u8,
    flags: u8,
    priority: u16,
    fd: i32,
    offset: u64,
    address: u64,
    length: u32,
    op_flags: u32,
    user_data: u64,
    buffer: u16,
    personality: u16,
    file_index: u32,
    address3: u64,
    attributes: u64,
}

impl Entry {
    fn bytes(&self) -> [u8; 64] {
        let mut bytes = Vec::with_capacity(64);
        bytes.extend([self.opcode, self.flags]);
        bytes.extend(self.priority.to_le_bytes());
        bytes.extend(self.fd.to_le_bytes());
        bytes.extend(self.offset.to_le_bytes());
        bytes.extend(self.address.to_le_bytes());
        bytes.extend(self.length.to_le_bytes());
        bytes.extend(self.op_flags.to_le_bytes());
        bytes.extend(self.user_data.to_le_bytes());
        bytes.extend(self.buffer.to_le_bytes());
        bytes.extend(self.personality.to_le_bytes());
        bytes.extend(self.file_index.to_le_bytes());
        bytes.extend(self.address3.to_le_bytes());
        bytes.extend(self.attributes.to_le_bytes());
        bytes.try_into().unwrap()
    }

    fn data(self, user_data: u64) -> Self {
        Self { user_data, ..self }
    }

    fn flags(self, flags: u8) -> Self {
        Self { flags, ..self }
    }
}

fn nop() -> Entry {
    Entry::default()
}

/// A NOP that fails.
fn failing() -> Entry {
    Entry {
        op_flags: raw::IORING_NOP_INJECT_RESULT,
        length: -5_i32 as u32,
        ..nop()
    }
}

/// An SQE that is refused.
fn bad() -> Entry {
    Entry {
        opcode: 200,
        ..nop()
    }
}

/// A program with one ring.
struct Program {
    process: Arc<Process>,
    fd: i32,
    params: raw::io_uring_params,
    rings: u64,
    sqes: u64,
    /// Some pages of memory.
    memory: u64,
    memory_used: u64,
}

const MEMORY: u64 = 1 << 20;

impl Program {
    fn new(entries: u32, flags: u32) -> Self {
        Self::with_cq(entries, flags, 0)
    }

    fn with_cq(entries: u32, flags: u32, cq_entries: u32) -> Self {
        let space = AddressSpace::new().unwrap();
        let files = Arc::new(FdTable::new());
        let process = Process::new(
            space.clone(),
            files.clone(),
            FsContext::new(Namespace::in_memory().0),
        );
        let context = UserContext::new(0, 0);
        let main = crate::thread_loop::run;
        // Its first thread is the task that uses the ring.
        let thread = Thread::new(process.clone(), context, [0; 16], main);
        assert_eq!(thread.tid, TASK);
        let mut params = raw::io_uring_params::zeroed();
        params.flags = flags;
        params.cq_entries = cq_entries;
        let file = create(&process, entries, &mut params, TASK).unwrap();
        let source = file.ops.clone().page_source().unwrap();
        let map = |offset: u32, length: u32| {
            let length = u64::from(length).next_multiple_of(4096);
            let request = MapRequest::shared(source.clone(), u64::from(offset) / 4096, length, RW);
            space.map(request).unwrap()
        };
        let array_end = params.sq_off.array + 4 * params.sq_entries;
        let cqes_end = params.cq_off.cqes + 16 * params.cq_entries;
        let rings = map(raw::IORING_OFF_SQ_RING, array_end.max(cqes_end));
        let sqes = map(raw::IORING_OFF_SQES, 64 * params.sq_entries);
        let memory = space.map(MapRequest::anonymous(MEMORY, RW)).unwrap();
        Self {
            fd: files.insert(file, true, 0).unwrap(),
            process,
            params,
            rings,
            sqes,
            memory,
            memory_used: 0,
        }
    }

    fn word(&self, offset: u32) -> u32 {
        let at = self.rings + u64::from(offset);
        self.process.space.read_value(at).unwrap()
    }

    fn set_word(&self, offset: u32, value: u32) {
        let at = self.rings + u64::from(offset);
        self.process.space.write_value(at, &value).unwrap();
    }

    fn sq_flags(&self) -> u32 {
        self.word(self.params.sq_off.flags)
    }

    fn push(&self, entry: Entry) {
        let tail = self.word(self.params.sq_off.tail);
        let index = tail & (self.params.sq_entries - 1);
        if self.params.sq_off.array != 0 {
            self.set_word(self.params.sq_off.array + 4 * index, index);
        }
        let at = self.sqes + 64 * u64::from(index);
        self.process.space.write(at, &entry.bytes()).unwrap();
        self.set_word(self.params.sq_off.tail, tail.wrapping_add(1));
    }

    fn pop(&self) -> Option<(u64, i32, u32)> {
        let head = self.word(self.params.cq_off.head);
        if head == self.word(self.params.cq_off.tail) {
            return None;
        }
        let index = head & (self.params.cq_entries - 1);
        let at = self.rings + u64::from(self.params.cq_off.cqes + 16 * index);
        let user_data = self.process.space.read_value(at).unwrap();
        let result = self.process.space.read_value(at + 8).unwrap();
        let flags = self.process.space.read_value(at + 12).unwrap();
        self.set_word(self.params.cq_off.head, head.wrapping_add(1));
        Some((user_data, result, flags))
    }

    /// The `user_data` and `res` of all CQEs that are there.
    fn cqes(&self) -> Vec<(u64, i32)> {
        core::iter::from_fn(|| self.pop())
            .map(|(user_data, result, _)| (user_data, result))
            .collect()
    }

    fn call(&self, call: Enter) -> impl Future<Output = Result<u32>> {
        enter(&self.process, TASK, self.fd, call)
    }

    fn enter(&self, to_submit: u32, min_complete: u32, flags: u32) -> Result<u32> {
        executor::block_on(self.call(Enter {
            to_submit,
            min_complete,
            flags,
            argument: 0,
            size: 0,
        }))
    }

    /// Enters and asks for events.
    fn submit(&self, to_submit: u32) -> Result<u32> {
        self.enter(to_submit, 0, raw::IORING_ENTER_GETEVENTS)
    }

    /// Enters and waits for events.
    fn wait(&self, min_complete: u32) {
        let result = self.enter(0, min_complete, raw::IORING_ENTER_GETEVENTS);
        assert_eq!(result, Ok(0));
    }

    /// Submits all of `entries`, which must be taken, and returns the CQEs.
    fn run(&self, entries: &[Entry]) -> Vec<(u64, i32)> {
        entries.iter().for_each(|entry| self.push(*entry));
        assert_eq!(self.submit(entries.len() as u32), Ok(entries.len() as u32));
        self.cqes()
    }

    /// The result of one request.
    fn one(&self, entry: Entry) -> i32 {
        self.push(entry);
        let result = self.enter(1, 1, raw::IORING_ENTER_GETEVENTS);
        assert_eq!(result, Ok(1));
        let cqes = self.cqes();
        assert_eq!(cqes.len(), 1, "{cqes:?}");
        cqes[0].1
    }

    fn register(&self, opcode: raw::io_uring_register_op, argument: u64, count: u32) -> i64 {
        let call = Call {
            opcode: opcode as u32,
            argument,
            count,
        };
        match register(&self.process, TASK, &mut Vec::new(), self.fd, call) {
            Ok(Some(value)) => value.into(),
            Ok(None) => 0,
            Err(error) => error.as_result().into(),
        }
    }

    /// The address of some memory that holds `bytes`.
    fn place(&mut self, bytes: &[u8]) -> u64 {
        let at = self.memory + self.memory_used;
        self.memory_used = (self.memory_used + bytes.len() as u64).next_multiple_of(16);
        self.process.space.write(at, bytes).unwrap();
        at
    }

    fn words(&mut self, words: &[u64]) -> u64 {
        let bytes: Vec<u8> = words.iter().flat_map(|word| word.to_le_bytes()).collect();
        self.place(&bytes)
    }

    fn read_memory<const N: usize>(&self, at: u64) -> [u8; N] {
        let mut bytes = [0; N];
        self.process.space.read(at, &mut bytes).unwrap();
        bytes
    }

    fn open(&self, ops: Arc<dyn FileOps>, flags: OpenFlags) -> i32 {
        self.process
            .files
            .insert(OpenFile::new(ops, flags), false, 0)
            .unwrap()
    }

    /// A descriptor of an empty channel, and the channel.
    fn channel(&self) -> (i32, Arc<Channel>) {
        let channel = Arc::new(Channel::default());
        (self.open(channel.clone(), OpenFlags::READ_WRITE), channel)
    }
}

/// Polls a future once; it must wait.
fn assert_waits(future: impl Future) {
    let future = pin!(future);
    let mut context = Context::from_waker(Waker::noop());
    assert!(future.poll(&mut context).is_pending());
}

/// What is written to it can be read; reading waits. Bytes written count, and are gone.
#[derive(Default)]
struct Channel {
    bytes: Mutex<VecDeque<u8>>,
    readers: WaitQueue,
    polls: AtomicUsize,
}

impl Channel {
    fn feed(&self, bytes: &[u8]) {
        self.bytes.lock().extend(bytes);
        self.readers.wake_all();
    }
}

impl FileOps for Channel {
    fn poll_io(&self, io: &mut Io, context: &mut Context<'_>) -> Poll<Result<usize>> {
        self.polls.fetch_add(1, Ordering::Relaxed);
        if io.direction == Direction::Write {
            return Poll::Ready(Ok(io.buffer.len()));
        }
        let mut bytes = self.bytes.lock();
        if bytes.is_empty() {
            if io.flags.contains(IoFlags::NOWAIT) {
                return Poll::Ready(Err(Errno::EAGAIN));
            }
            self.readers.register(context.waker());
            return Poll::Pending;
        }
        let count = bytes.len().min(io.buffer.len());
        let some: Vec<u8> = bytes.drain(..count).collect();
        drop(bytes);
        Poll::Ready(io.buffer.fill(0, &some))
    }
}

/// A file of 16 bytes, counting from 0.
struct Digits;

impl FileOps for Digits {
    fn is_seekable(&self) -> bool {
        true
    }

    fn poll_io(&self, io: &mut Io, _: &mut Context<'_>) -> Poll<Result<usize>> {
        let start = io.position.unwrap() as usize;
        let bytes: Vec<u8> = (0..16).skip(start).take(io.buffer.len()).collect();
        Poll::Ready(match io.direction {
            Direction::Read => io.buffer.fill(0, &bytes),
            Direction::Write => Ok(bytes.len()),
        })
    }

    fn sync(&self, _data_only: bool) -> BoxFuture<'_, Result<()>> {
        alloc::boxed::Box::pin(executor_yield())
    }
}

async fn executor_yield() -> Result<()> {
    executor::yield_now().await;
    Ok(())
}
