//! Pipes, with and without a name: `pipe(7)`, `fifo(7)`.

use super::context::View;
use super::{BoxFuture, FileOps, Inode, NewNode, OpenFile, OpenFlags, Readiness, WaitQueue};
use crate::error::{Errno, Result};
use crate::heap;
use crate::io::{Direction, Io, IoFlags};
use crate::mm::AddressSpace;
use alloc::boxed::Box;
use alloc::collections::VecDeque;
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::any::Any;
use core::future::poll_fn;
use core::task::{Context, Poll};
use linux_raw_sys::{general as raw, ioctl};
use machine::lock::Mutex;

/// Bytes that a new pipe holds.
pub const PIPE_CAPACITY: usize = 65536;
/// What `F_SETPIPE_SZ` allows.
const CAPACITY_MAX: usize = 1 << 20;
const CAPACITY_MIN: usize = 4096;
/// Writes up to this size are atomic.
const ATOMIC: usize = raw::PIPE_BUF as usize;
/// Bytes taken from the writer at a time.
const CHUNK: usize = 4096;

/// A pipe: what was written and not read yet.
pub struct Pipe {
    state: Mutex<PipeState>,
    /// Woken at every change.
    changes: WaitQueue,
}

struct PipeState {
    bytes: VecDeque<u8>,
    capacity: usize,
    readers: usize,
    writers: usize,
    /// Ends that were ever opened: those who open a named pipe wait for the other end to be.
    readers_seen: u64,
    writers_seen: u64,
}

/// An open end of a pipe, or both.
struct End {
    pipe: Arc<Pipe>,
    reads: bool,
    writes: bool,
}

impl Default for Pipe {
    fn default() -> Self {
        Self {
            state: Mutex::new(PipeState {
                bytes: VecDeque::new(),
                capacity: PIPE_CAPACITY,
                readers: 0,
                writers: 0,
                readers_seen: 0,
                writers_seen: 0,
            }),
            changes: WaitQueue::new(),
        }
    }
}

impl Pipe {
    fn end(self: &Arc<Self>, reads: bool, writes: bool) -> Arc<End> {
        let mut state = self.state.lock();
        if reads {
            state.readers += 1;
            state.readers_seen += 1;
        }
        if writes {
            state.writers += 1;
            state.writers_seen += 1;
        }
        drop(state);
        self.changes.wake_all();
        Arc::new(End {
            pipe: self.clone(),
            reads,
            writes,
        })
    }

    /// Opens a named pipe: waits for the other end, unless it is opened for both, or not to wait.
    ///
    /// # Errors
    ///
    /// `ENXIO` if it is opened for writing, not to wait, and nobody reads.
    pub(super) async fn open(self: &Arc<Self>, flags: OpenFlags) -> Result<Arc<dyn FileOps>> {
        let (reads, writes) = (flags.can_read(), flags.can_write());
        let is_waiting = !flags.contains(OpenFlags::NONBLOCK);
        let (before, is_there) = {
            let state = self.state.lock();
            if writes && !reads && !is_waiting && state.readers == 0 {
                return Err(Errno::ENXIO);
            }
            // It may be gone again by the time that this looks.
            let others = if reads { state.writers } else { state.readers };
            ((state.readers_seen, state.writers_seen), others > 0)
        };
        let end = self.end(reads, writes);
        if is_waiting && reads != writes && !is_there {
            poll_fn(|context| {
                self.changes.register(context.waker());
                let state = self.state.lock();
                let is_there = match reads {
                    true => state.writers > 0 || state.writers_seen != before.1,
                    false => state.readers > 0 || state.readers_seen != before.0,
                };
                if is_there {
                    Poll::Ready(())
                } else {
                    Poll::Pending
                }
            })
            .await;
        }
        Ok(end)
    }

    /// Bytes that it holds at most.
    pub fn capacity(&self) -> usize {
        self.state.lock().capacity
    }

    /// Sets how many bytes it holds, rounded up, and returns that.
    ///
    /// # Errors
    ///
    /// `EPERM` if that is too much, `EBUSY` if it holds more now.
    pub fn set_capacity(&self, capacity: u32) -> Result<usize> {
        let capacity = (capacity as usize).max(CAPACITY_MIN).next_power_of_two();
        if capacity > CAPACITY_MAX {
            return Err(Errno::EPERM);
        }
        let mut state = self.state.lock();
        if state.bytes.len() > capacity {
            return Err(Errno::EBUSY);
        }
        state.capacity = capacity;
        drop(state);
        self.changes.wake_all();
        Ok(capacity)
    }

    fn poll_read(&self, io: &mut Io, context: &mut Context<'_>) -> Poll<Result<usize>> {
        if io.buffer.is_empty() {
            return Poll::Ready(Ok(0));
        }
        let mut state = self.state.lock();
        if state.bytes.is_empty() {
            if state.writers == 0 {
                return Poll::Ready(Ok(0));
            }
            if io.flags.contains(IoFlags::NOWAIT) {
                return Poll::Ready(Err(Errno::EAGAIN));
            }
            let heard = Readiness::heard(Readiness::READABLE);
            self.changes.register_for(context.waker(), heard);
            return Poll::Pending;
        }
        let (first, second) = state.bytes.as_slices();
        let ready = state.bytes.len().min(io.buffer.len());
        io.buffer.prepare_fill(0, ready)?;
        let mut done = 0;
        while done < ready {
            let bytes = match done.checked_sub(first.len()) {
                Some(beyond) => &second[beyond..ready - first.len()],
                None => &first[done..ready.min(first.len())],
            };
            // As on Linux, a piece is read as a whole or stays.
            let bytes = &bytes[..bytes.len().min(CHUNK)];
            match io.buffer.fill(done, bytes) {
                Ok(filled) if filled == bytes.len() => done += filled,
                Err(error) if done == 0 => return Poll::Ready(Err(error)),
                Ok(_) if done == 0 => return Poll::Ready(Err(Errno::EFAULT)),
                Ok(_) | Err(_) => break,
            }
        }
        state.bytes.drain(..done);
        drop(state);
        self.changes.wake(Readiness::WRITABLE.bits());
        Poll::Ready(Ok(done))
    }

    fn poll_write(&self, io: &mut Io, context: &mut Context<'_>) -> Poll<Result<usize>> {
        let total = io.buffer.len();
        let mut bytes = [0; CHUNK];
        let mut has_written = false;
        let result = loop {
            if io.done == total {
                break Poll::Ready(Ok(total));
            }
            let mut state = self.state.lock();
            if state.readers == 0 {
                break Poll::Ready(match io.done {
                    0 => Err(Errno::EPIPE),
                    done => Ok(done),
                });
            }
            let room = state.capacity - state.bytes.len();
            let needed = if total <= ATOMIC { total } else { 1 };
            if room < needed {
                // A ring waits for room for the first bytes only, and then writes what there is
                // room for, as Linux does.
                let is_enough = io.done > 0 && io.flags.contains(IoFlags::PATIENT);
                if !io.flags.contains(IoFlags::NOWAIT) && !is_enough {
                    let heard = Readiness::heard(Readiness::WRITABLE);
                    self.changes.register_for(context.waker(), heard);
                    break Poll::Pending;
                }
                break Poll::Ready(match io.done {
                    0 => Err(Errno::EAGAIN),
                    done => Ok(done),
                });
            }
            let count = CHUNK.min(room).min(total - io.done);
            // As on Linux, a piece is written as a whole or not at all.
            let taken = io.buffer.take_all(io.done, &mut bytes[..count]);
            match taken.and_then(|()| make_room(&mut state.bytes, count)) {
                Ok(()) => {
                    state.bytes.extend(&bytes[..count]);
                    io.done += count;
                    has_written = true;
                }
                Err(error) => break Poll::Ready(io.cut_short(error)),
            }
        };
        if has_written {
            self.changes.wake(Readiness::READABLE.bits());
        }
        result
    }
}

/// One end of a copy between pipes cannot go on.
enum Blocked {
    /// Until something happens to it.
    Waits,
    /// For ever, or it is not to wait.
    Ends(Result<usize>),
}

impl Pipe {
    /// Copies up to `count` bytes to another pipe, and leaves them here: as many as there are once there
    /// are some, and room for some. Waits for both if `is_patient`.
    ///
    /// # Errors
    ///
    /// `EAGAIN`, `EPIPE` if nobody reads the other one, `ENOMEM`.
    pub async fn tee(&self, to: &Self, count: usize, is_patient: bool) -> Result<usize> {
        let mut bytes = Vec::new();
        poll_fn(|context| {
            loop {
                let blocked = match self.peek(count.min(to.room()), &mut bytes, is_patient) {
                    Ok(()) => to.append(&bytes, is_patient),
                    Err(blocked) => Err(blocked),
                };
                match blocked {
                    Ok(done) => return Poll::Ready(Ok(done)),
                    Err(Blocked::Ends(result)) => return Poll::Ready(result),
                    Err(Blocked::Waits) => {}
                }
                // Whatever has happened meanwhile is seen by one more look.
                self.changes.register(context.waker());
                to.changes.register(context.waker());
                let is_blocked = {
                    let is_empty = {
                        let state = self.state.lock();
                        state.bytes.is_empty() && state.writers > 0
                    };
                    let state = to.state.lock();
                    is_empty || state.capacity == state.bytes.len() && state.readers > 0
                };
                if is_blocked {
                    return Poll::Pending;
                }
            }
        })
        .await
    }

    fn room(&self) -> usize {
        let state = self.state.lock();
        state.capacity - state.bytes.len()
    }

    /// Copies the first bytes into `out`, as many as `count`; at least looks whether there are some.
    fn peek(&self, count: usize, out: &mut Vec<u8>, is_patient: bool) -> Result<(), Blocked> {
        let state = self.state.lock();
        if state.bytes.is_empty() {
            return Err(match state.writers {
                0 => Blocked::Ends(Ok(0)),
                _ if is_patient => Blocked::Waits,
                _ => Blocked::Ends(Err(Errno::EAGAIN)),
            });
        }
        out.clear();
        let count = count.min(state.bytes.len());
        heap::check(count).map_err(|error| Blocked::Ends(Err(error)))?;
        out.extend(state.bytes.range(..count));
        Ok(())
    }

    /// Adds bytes, as many as there is room for.
    fn append(&self, bytes: &[u8], is_patient: bool) -> Result<usize, Blocked> {
        let mut state = self.state.lock();
        if state.readers == 0 {
            return Err(Blocked::Ends(Err(Errno::EPIPE)));
        }
        let count = bytes.len().min(state.capacity - state.bytes.len());
        if count == 0 {
            return Err(match is_patient {
                true => Blocked::Waits,
                false => Blocked::Ends(Err(Errno::EAGAIN)),
            });
        }
        make_room(&mut state.bytes, count).map_err(|error| Blocked::Ends(Err(error)))?;
        state.bytes.extend(&bytes[..count]);
        drop(state);
        self.changes.wake(Readiness::READABLE.bits());
        Ok(count)
    }
}

/// Sees to it that `count` more bytes can be put into `bytes`.
fn make_room(bytes: &mut VecDeque<u8>, count: usize) -> Result<()> {
    if bytes.capacity() - bytes.len() < count {
        // Growing copies what there is.
        heap::check(2 * (bytes.len() + count))?;
        bytes.try_reserve(count).map_err(|_| Errno::ENOMEM)?;
    }
    Ok(())
}

impl Drop for End {
    fn drop(&mut self) {
        let mut state = self.pipe.state.lock();
        state.readers -= usize::from(self.reads);
        state.writers -= usize::from(self.writes);
        if state.readers == 0 && state.writers == 0 {
            state.bytes = VecDeque::new();
        }
        drop(state);
        self.pipe.changes.wake_all();
    }
}

impl FileOps for End {
    fn poll_io(&self, io: &mut Io, context: &mut Context<'_>) -> Poll<Result<usize>> {
        match io.direction {
            Direction::Read => self.pipe.poll_read(io, context),
            Direction::Write => self.pipe.poll_write(io, context),
        }
    }

    fn allocate(&self, _mode: u32, _offset: u64, _length: u64) -> super::Answer<'_, ()> {
        Errno::ESPIPE.into()
    }

    fn ioctl<'a>(
        &'a self,
        request: u32,
        argument: u64,
        space: &'a AddressSpace,
    ) -> BoxFuture<'a, Result<u64>> {
        let result = match request {
            ioctl::FIONREAD => {
                let count = self.pipe.state.lock().bytes.len() as i32;
                space.write_value(argument, &count).map(|()| 0)
            }
            _ => Err(Errno::ENOTTY),
        };
        Box::pin(core::future::ready(result))
    }

    fn poll_ready(&self, interest: Readiness, context: &mut Context<'_>) -> Readiness {
        let heard = Readiness::heard(interest);
        self.pipe.changes.register_for(context.waker(), heard);
        let state = self.pipe.state.lock();
        let mut ready = Readiness::empty();
        if self.reads {
            if !state.bytes.is_empty() {
                ready |= Readiness::READABLE;
            }
            if state.writers == 0 && state.writers_seen > 0 {
                ready |= Readiness::HANG_UP;
            }
        }
        if self.writes {
            if state.capacity - state.bytes.len() >= ATOMIC {
                ready |= Readiness::WRITABLE;
            }
            if state.readers == 0 {
                ready |= Readiness::ERROR;
            }
        }
        ready
    }
}

/// The pipe that `file` is an end of.
pub fn pipe_of(file: &OpenFile) -> Option<&Arc<Pipe>> {
    let end = (&*file.ops as &dyn Any).downcast_ref::<End>()?;
    Some(&end.pipe)
}

/// Whether `file` is an end of a pipe.
pub fn is_pipe(file: &OpenFile) -> bool {
    pipe_of(file).is_some()
}

impl View<'_> {
    /// Makes a pipe: the end to read and the end to write, both with `flags`.
    ///
    /// # Errors
    ///
    /// `ENFILE` if there are too many files.
    pub fn pipe(&self, flags: OpenFlags) -> Result<(Arc<OpenFile>, Arc<OpenFile>)> {
        let directory = self.context.namespace.unnamed();
        let inode = directory.unnamed(NewNode::Fifo, 0o600);
        let inode = inode.map_err(|_| Errno::ENFILE)?;
        let pipe = inode.pipe().ok_or(Errno::ENFILE)?;
        let inode: Arc<dyn Inode> = inode;
        let reader = pipe.end(true, false);
        let writer = pipe.end(false, true);
        let location = self.context.namespace.unnamed_location(inode);
        let open = |end: Arc<End>, flags| OpenFile::with_place(end, flags, location.clone().into());
        Ok((
            open(reader, flags)?,
            open(writer, flags | OpenFlags::WRITE_ONLY)?,
        ))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::executor::{block_on, spawn, yield_now};
    use crate::fs::{FdTable, FsContext, Namespace};
    use crate::mm::IoBuffer;
    use alloc::vec;

    fn pipe(flags: OpenFlags) -> (Arc<OpenFile>, Arc<OpenFile>) {
        let context = FsContext::new(Namespace::in_memory().0);
        let files = FdTable::new();
        let view = View {
            files: &files,
            context: &context,
        };
        view.pipe(flags).unwrap()
    }

    async fn read(file: &OpenFile, count: usize) -> Result<Vec<u8>> {
        let buffer = IoBuffer::Kernel(vec![0; count]);
        let mut io = Io::new(Direction::Read, None, buffer, IoFlags::empty());
        let count = file.complete(&mut io).await?;
        match io.buffer {
            IoBuffer::Kernel(bytes) => Ok(bytes[..count].to_vec()),
            _ => Err(Errno::EFAULT),
        }
    }

    async fn write(file: &OpenFile, bytes: &[u8]) -> Result<usize> {
        let buffer = IoBuffer::Kernel(bytes.to_vec());
        let mut io = Io::new(Direction::Write, None, buffer, IoFlags::empty());
        file.complete(&mut io).await
    }

    #[test]
    fn a_reader_waits_for_bytes_and_for_the_end() {
        let (reader, writer) = pipe(OpenFlags::empty());
        spawn("test", async move {
            yield_now().await;
            assert_eq!(write(&writer, b"hello").await, Ok(5));
        });
        assert_eq!(block_on(read(&reader, 3)).unwrap(), b"hel");
        assert_eq!(block_on(read(&reader, 9)).unwrap(), b"lo");
        assert_eq!(block_on(read(&reader, 9)).unwrap(), b"");
    }

    #[test]
    fn what_a_pipe_holds_leaves_a_part_of_the_heap() {
        let (reader, writer) = pipe(OpenFlags::NONBLOCK);
        let result = crate::heap::exhausted(|| block_on(write(&writer, b"hello")));
        assert_eq!(result, Err(Errno::ENOMEM));
        assert_eq!(block_on(read(&reader, 9)), Err(Errno::EAGAIN));
    }

    #[test]
    fn a_writer_waits_for_room_and_fails_without_readers() {
        let (reader, writer) = pipe(OpenFlags::empty());
        let all = vec![7; 3 * PIPE_CAPACITY];
        spawn("test", async move {
            let mut got = 0;
            while got < 3 * PIPE_CAPACITY {
                got += read(&reader, 10_000).await.unwrap().len();
            }
        });
        assert_eq!(block_on(write(&writer, &all)), Ok(all.len()));
        block_on(async {
            while write(&writer, b"x").await.is_ok() {
                yield_now().await;
            }
        });
        assert_eq!(block_on(write(&writer, b"x")), Err(Errno::EPIPE));
    }

    #[test]
    fn nothing_waits_when_it_is_not_to() {
        let (reader, writer) = pipe(OpenFlags::NONBLOCK);
        assert_eq!(block_on(read(&reader, 1)), Err(Errno::EAGAIN));
        assert_eq!(
            block_on(write(&writer, &vec![0; 100_000])),
            Ok(PIPE_CAPACITY)
        );
        assert_eq!(block_on(write(&writer, b"x")), Err(Errno::EAGAIN));
        block_on(read(&reader, 100)).unwrap();
        // A small write is done at once or not at all.
        assert_eq!(block_on(write(&writer, &[0; 101])), Err(Errno::EAGAIN));
        assert_eq!(block_on(write(&writer, &[0; 100])), Ok(100));
    }

    #[test]
    fn readiness_follows_the_contents_and_the_ends() {
        let (reader, writer) = pipe(OpenFlags::empty());
        let ready = |file: &OpenFile| {
            let mut context = Context::from_waker(core::task::Waker::noop());
            file.ops.poll_ready(Readiness::all(), &mut context)
        };
        assert_eq!(ready(&reader), Readiness::empty());
        assert_eq!(ready(&writer), Readiness::WRITABLE);
        block_on(write(&writer, &vec![0; PIPE_CAPACITY])).unwrap();
        assert_eq!(ready(&reader), Readiness::READABLE);
        assert_eq!(ready(&writer), Readiness::empty());
        drop(writer);
        assert_eq!(ready(&reader), Readiness::READABLE | Readiness::HANG_UP);
        let (reader, writer) = pipe(OpenFlags::empty());
        drop(reader);
        assert_eq!(ready(&writer), Readiness::WRITABLE | Readiness::ERROR);
    }

    #[test]
    fn the_capacity_can_be_changed_but_not_below_the_contents() {
        let (reader, writer) = pipe(OpenFlags::empty());
        let pipe = pipe_of(&reader).unwrap();
        assert_eq!(pipe.set_capacity(5000), Ok(8192));
        block_on(write(&writer, &[0; 8192])).unwrap();
        assert_eq!(pipe.set_capacity(0), Err(Errno::EBUSY));
        assert_eq!(pipe.set_capacity(1 << 30), Err(Errno::EPERM));
        assert_eq!(pipe.capacity(), 8192);
    }
}
