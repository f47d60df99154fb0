//! The block device's worker: takes requests in batches, keeps many in flight, gives them back.
//!
//! While there is work it looks at the rings itself and asks for no notifications; it sleeps after
//! a short time without any.

use std::io;
use std::os::fd::AsRawFd;
use std::sync::Arc;
use std::time::{Duration, Instant};

use virtio_bindings::virtio_blk::{VIRTIO_BLK_ID_BYTES, VIRTIO_BLK_S_IOERR, VIRTIO_BLK_S_OK};
use vm_memory::{Bytes, GuestAddress};

use super::request::{self, Action};
use super::throttle::{Limits, Throttle};
use super::{Disk, EngineKind, MAX_WRITE_ZEROES_SECTORS, QUEUE_SIZE, SECTOR};
use crate::chain::{advance, to_iovecs, total};
use crate::engine::{Completion, Engine, Operation, Pool, Uring};
use crate::poll::Spin;
use crate::{Buffers, QueueError, Statistics, Stop, ThreadKind, Virtqueue};

/// How long to look for work before sleeping.
const SPIN: Duration = Duration::from_micros(100);

/// Times that an operation is repeated after EINTR or EAGAIN.
const RETRIES: u8 = 16;

/// Bytes of zeros that one I/O vector points at, many times over, to zero a range.
const ZEROS: usize = 1 << 16;

/// Most I/O vectors that one call takes (`UIO_MAXIOV`).
const MAX_IOVECS: usize = 1024;

const _: () = assert!(MAX_WRITE_ZEROES_SECTORS as usize * SECTOR as usize <= MAX_IOVECS * ZEROS);

/// What the driver accepted.
#[derive(Clone, Copy, Debug)]
pub(super) struct Features {
    /// Without it every write is made durable before it completes (VIRTIO 1.2, 5.2.6.2).
    pub(super) flush: bool,
    /// The driver understands [`ringlet_abi::block::STATUS_NOSPC`].
    pub(super) no_space: bool,
    /// The driver understands [`ringlet_abi::block::STATUS_FBIG`].
    pub(super) too_big: bool,
}

/// What a slot's operation is, and so what follows it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stage {
    Read,
    Write,
    Sync,
    Discard { len: u64 },
    Zero { len: u64, unmap: bool },
}

/// A request in flight.
#[derive(Debug)]
struct Slot {
    head: u16,
    status: GuestAddress,
    stage: Stage,
    /// Where the rest of the data starts, in bytes.
    offset: u64,
    /// The rest of the data.
    iovecs: Vec<libc::iovec>,
    /// Bytes of the guest's buffers written at the end, the status byte left out.
    written: u32,
    retries: u8,
    /// The page cache is used although the request is aligned: direct I/O gave EINVAL.
    buffered: bool,
    /// When it was taken.
    start: Instant,
}

/// What a driver activates.
pub(super) struct Job {
    pub(super) queue: Virtqueue,
    pub(super) features: Features,
}

/// What serves one job after the other, on the thread that it was made on.
pub(super) type Serve = Box<dyn FnMut(Job, &Stop)>;

/// Makes what serves the disk `serial` on the calling thread, and says what kind of thread that is.
///
/// # Errors
///
/// The host denies the engine.
pub(super) fn prepare(
    disk: (Arc<Disk>, Arc<Statistics>),
    (kind, limits): (EngineKind, Limits),
    serial: String,
    stop: &Stop,
) -> io::Result<(ThreadKind, Serve)> {
    let throttle = Throttle::new(limits);
    if kind == EngineKind::Auto {
        match Uring::new(stop.event(), Arc::clone(&disk.1)) {
            Ok(engine) => return Ok((ThreadKind::Disk, serve_by(engine, disk, serial, throttle))),
            Err(error) => {
                log::warn!("{serial}: no io_uring on this host ({error}); using threads");
            }
        }
    }
    let engine = Pool::new(stop.event())?;
    Ok((
        ThreadKind::DiskPool,
        serve_by(engine, disk, serial, throttle),
    ))
}

fn serve_by(
    mut engine: impl Engine + 'static,
    disk: (Arc<Disk>, Arc<Statistics>),
    serial: String,
    mut throttle: Throttle,
) -> Serve {
    Box::new(move |job, stop| {
        let interrupt = Arc::clone(job.queue.interrupt());
        let disk = (&*disk.0, &*disk.1, &*serial);
        // A guest that resets the device has no more of it than before.
        if let Err(error) = serve(job, disk, &mut engine, &mut throttle, stop) {
            interrupt.fail_until(stop, &error);
        }
    })
}

/// Serves a queue until told to stop. When it returns no operation is in flight, and all requests
/// that were taken have been given back.
///
/// # Errors
///
/// The guest broke the protocol, or the host fails in a way that leaves no way on.
fn serve<E: Engine>(
    job: Job,
    disk: (&Disk, &Statistics, &str),
    engine: &mut E,
    throttle: &mut Throttle,
    stop: &Stop,
) -> Result<(), QueueError> {
    engine.attach(vec![job.queue.doorbell().try_clone()?]);
    let mut server = Server::new(job, disk, engine, throttle, stop);
    let result = server.run();
    server.engine.detach()?;
    result
}

struct Server<'a, E> {
    queue: Virtqueue,
    disk: &'a Disk,
    statistics: &'a Statistics,
    engine: &'a mut E,
    throttle: &'a mut Throttle,
    serial: [u8; VIRTIO_BLK_ID_BYTES as usize],
    features: Features,
    stop: &'a Stop,
    slots: Vec<Slot>,
    free: Vec<u16>,
    buffers: Buffers,
    zeros: Vec<u8>,
}

impl<'a, E: Engine> Server<'a, E> {
    fn new(
        job: Job,
        (disk, statistics, serial): (&'a Disk, &'a Statistics, &str),
        engine: &'a mut E,
        throttle: &'a mut Throttle,
        stop: &'a Stop,
    ) -> Self {
        let mut id = [0; VIRTIO_BLK_ID_BYTES as usize];
        for (to, from) in id.iter_mut().zip(serial.bytes()) {
            *to = from;
        }
        let slot = || Slot {
            head: 0,
            status: GuestAddress(0),
            stage: Stage::Sync,
            offset: 0,
            iovecs: Vec::new(),
            written: 0,
            retries: 0,
            buffered: false,
            start: Instant::now(),
        };
        Self {
            queue: job.queue,
            disk,
            statistics,
            engine,
            throttle,
            serial: id,
            features: job.features,
            stop,
            slots: (0..QUEUE_SIZE).map(|_| slot()).collect(),
            free: (0..QUEUE_SIZE).rev().collect(),
            buffers: Buffers::default(),
            zeros: Vec::new(),
        }
    }

    fn run(&mut self) -> Result<(), QueueError> {
        let result = self.serve().and_then(|()| self.finish());
        // After an error, too, the host must be done with guest memory before the worker ends.
        while self.in_flight() {
            if let Err(error) = self.engine.flush().and_then(|()| self.engine.wait(None)) {
                // Nothing can be known of the operations any more: better to end than to let them
                // write into memory that has another use.
                log::error!("host I/O does not end: {error}");
                std::process::abort();
            }
            while let Some(completion) = self.engine.next_completion() {
                self.free.push(completion.slot);
            }
        }
        result
    }

    fn in_flight(&self) -> bool {
        self.free.len() < self.slots.len()
    }

    fn serve(&mut self) -> Result<(), QueueError> {
        let mut spin = Spin::new(SPIN);
        self.queue.disable_notification()?;
        while !self.stop.requested() {
            let mut active = self.take_requests()?;
            self.engine.flush()?;
            while let Some(completion) = self.engine.next_completion() {
                self.complete(completion)?;
                active = true;
            }
            self.queue.announce()?;
            if active {
                spin.restart();
            } else if !spin.turn() {
                self.sleep()?;
                spin.restart();
            }
        }
        Ok(())
    }

    /// Completes what is in flight.
    fn finish(&mut self) -> Result<(), QueueError> {
        while self.in_flight() {
            self.engine.flush()?;
            while let Some(completion) = self.engine.next_completion() {
                self.complete(completion)?;
            }
            if self.in_flight() {
                self.engine.wait(None)?;
            }
        }
        self.queue.announce()
    }

    /// Waits for the host, the driver, the order to stop, or until the guest may ask for more.
    fn sleep(&mut self) -> Result<(), QueueError> {
        let wait = self.throttle.wait();
        if !wait.is_zero() {
            return Ok(self.engine.wait(Some(wait))?);
        }
        // With no slot free nothing can be taken, whatever is available.
        if !self.free.is_empty() && self.queue.enable_notification()? {
            return self.queue.disable_notification();
        }
        self.engine.wait(None)?;
        self.queue.disable_notification()
    }

    /// Starts every available request that there is a slot for; whether there was one.
    fn take_requests(&mut self) -> Result<bool, QueueError> {
        let mut any = false;
        while let Some(&slot) = self.free.last() {
            if !self.throttle.wait().is_zero() || !self.queue.pop(&mut self.buffers)? {
                break;
            }
            any = true;
            let memory = Arc::clone(self.queue.memory());
            let request = request::parse(&memory, &mut self.buffers, self.disk)?;
            let head = self.buffers.head;
            if let Ok(action) = request.action {
                self.throttle.count(action, &self.buffers);
            }
            let action = match request.action {
                Ok(Action::GetId) => {
                    let written = self.write_serial()?;
                    self.give_back(head, request.status, VIRTIO_BLK_S_OK as u8, written)?;
                    continue;
                }
                Ok(action) => action,
                Err(refusal) => {
                    self.give_back(head, request.status, refusal.0, 0)?;
                    continue;
                }
            };
            self.prepare(slot, request.status, action)?;
            self.free.pop();
            self.start(slot)?;
        }
        Ok(any)
    }

    /// Fills `slot` with the request whose data is in the buffers.
    fn prepare(
        &mut self,
        index: u16,
        status: GuestAddress,
        action: Action,
    ) -> Result<(), QueueError> {
        let slot = &mut self.slots[usize::from(index)];
        slot.head = self.buffers.head;
        slot.status = status;
        slot.iovecs.clear();
        slot.written = 0;
        slot.retries = 0;
        slot.buffered = false;
        slot.start = Instant::now();
        let data = match action {
            Action::Read(_) => &self.buffers.writable[..],
            Action::Write(_) => &self.buffers.readable[..],
            _ => &[],
        };
        to_iovecs(self.queue.memory(), data, &mut slot.iovecs)
            .ok_or(QueueError::Request("a buffer left guest memory"))?;
        let (kind, bytes) = match action {
            Action::Read(_) => (&self.statistics.reads, &self.statistics.read_bytes),
            Action::Write(_) => (&self.statistics.writes, &self.statistics.written_bytes),
            _ => (&self.statistics.others, &self.statistics.written_bytes),
        };
        kind.add(1);
        bytes.add(total(data));
        (slot.stage, slot.offset) = match action {
            Action::Read(offset) => {
                // A chain is shorter than 2^32 bytes: virtio-queue ends it there.
                slot.written = total(data) as u32;
                (Stage::Read, offset)
            }
            Action::Write(offset) => (Stage::Write, offset),
            Action::Discard { offset, len } => (Stage::Discard { len }, offset),
            Action::WriteZeroes { offset, len, unmap } => (Stage::Zero { len, unmap }, offset),
            Action::Flush | Action::GetId => (Stage::Sync, 0),
        };
        Ok(())
    }

    /// Starts the operation that `slot` is at.
    fn start(&mut self, index: u16) -> Result<(), QueueError> {
        let slot = &self.slots[usize::from(index)];
        let offset = slot.offset;
        let fd = self.disk.file().as_raw_fd();
        let data_fd = match self.disk.direct_for(offset, &slot.iovecs) {
            Some(file) if !slot.buffered => file.as_raw_fd(),
            _ => fd,
        };
        let keep = libc::FALLOC_FL_KEEP_SIZE;
        let operation = match slot.stage {
            Stage::Read => Operation::Read {
                fd: data_fd,
                offset,
            },
            Stage::Write => Operation::Write {
                fd: data_fd,
                offset,
            },
            Stage::Sync => Operation::Sync {
                fd,
                metadata: false,
            },
            Stage::Discard { len } => Operation::Allocate {
                fd,
                mode: libc::FALLOC_FL_PUNCH_HOLE | keep,
                offset,
                len,
            },
            Stage::Zero { len, unmap } => Operation::Allocate {
                fd,
                mode: match unmap {
                    true => libc::FALLOC_FL_PUNCH_HOLE | keep,
                    false => libc::FALLOC_FL_ZERO_RANGE | keep,
                },
                offset,
                len,
            },
        };
        // SAFETY: the vectors belong to the slot, which is not touched until its completion; they
        // point into guest memory, which the queue keeps mapped, or at `zeros`, which never moves
        // once made; `run` waits for every completion before any of these is dropped.
        let started = unsafe { self.engine.start(index, operation, &slot.iovecs) };
        started.map_err(|error| {
            self.free.push(index);
            error.into()
        })
    }

    /// Takes the end of an operation: the next one of the same request, or the request's end.
    fn complete(&mut self, completion: Completion) -> Result<(), QueueError> {
        let index = completion.slot;
        let slot = &mut self.slots[usize::from(index)];
        let status = match usize::try_from(completion.result) {
            Ok(count) => {
                let more = match slot.stage {
                    Stage::Read | Stage::Write => {
                        advance(&mut slot.iovecs, count);
                        slot.offset += count as u64;
                        !slot.iovecs.is_empty()
                    }
                    _ => false,
                };
                if more && count == 0 {
                    // The file ended: somebody truncated it.
                    VIRTIO_BLK_S_IOERR as u8
                } else if more {
                    return self.start(index);
                } else if !self.features.flush && slot.stage != Stage::Read {
                    match slot.stage {
                        Stage::Sync => VIRTIO_BLK_S_OK as u8,
                        _ => {
                            slot.stage = Stage::Sync;
                            return self.start(index);
                        }
                    }
                } else {
                    VIRTIO_BLK_S_OK as u8
                }
            }
            Err(_) => match self.recover(index, -completion.result) {
                Recovery::Again => return self.start(index),
                Recovery::Done => VIRTIO_BLK_S_OK as u8,
                Recovery::Fail(status) => status,
            },
        };
        let slot = &self.slots[usize::from(index)];
        let (head, addr, written) = (slot.head, slot.status, slot.written);
        self.statistics.latencies.note(slot.start.elapsed());
        if status != VIRTIO_BLK_S_OK as u8 {
            self.statistics.errors.add(1);
        }
        self.free.push(index);
        self.give_back(head, addr, status, written)
    }

    /// What to do after the host's `errno`.
    fn recover(&mut self, index: u16, errno: i32) -> Recovery {
        let slot = &mut self.slots[usize::from(index)];
        match (errno, slot.stage) {
            (libc::EINTR | libc::EAGAIN, _) if slot.retries < RETRIES => {
                slot.retries += 1;
                Recovery::Again
            }
            (libc::EINVAL, Stage::Read | Stage::Write) if !slot.buffered => {
                slot.buffered = true;
                Recovery::Again
            }
            // fallocate refuses an empty range, the protocol does not.
            (_, Stage::Discard { len: 0 } | Stage::Zero { len: 0, .. }) => Recovery::Done,
            // A discard is a hint.
            (libc::EOPNOTSUPP, Stage::Discard { .. }) => Recovery::Done,
            (libc::EOPNOTSUPP, Stage::Zero { len, .. }) => {
                self.zeros.resize(ZEROS, 0);
                let base = self.zeros.as_mut_ptr();
                let mut rest = len as usize;
                slot.iovecs.clear();
                while rest > 0 {
                    let count = rest.min(ZEROS);
                    slot.iovecs.push(libc::iovec {
                        iov_base: base.cast(),
                        iov_len: count,
                    });
                    rest -= count;
                }
                slot.stage = Stage::Write;
                Recovery::Again
            }
            (libc::ENOSPC | libc::EDQUOT, _) if self.features.no_space => {
                Recovery::Fail(ringlet_abi::block::STATUS_NOSPC)
            }
            (libc::EFBIG, _) if self.features.too_big => {
                Recovery::Fail(ringlet_abi::block::STATUS_FBIG)
            }
            _ => {
                let error = io::Error::from_raw_os_error(errno);
                log::debug!("{:?} at byte {}: {error}", slot.stage, slot.offset);
                Recovery::Fail(VIRTIO_BLK_S_IOERR as u8)
            }
        }
    }

    /// Writes the serial into the request's data buffers; gives the bytes written.
    fn write_serial(&mut self) -> Result<u32, QueueError> {
        let mut rest = &self.serial[..];
        for segment in &self.buffers.writable {
            let (now, later) = rest.split_at(rest.len().min(segment.len as usize));
            self.queue
                .memory()
                .write_slice(now, segment.addr)
                .map_err(|_| QueueError::Request("a buffer left guest memory"))?;
            rest = later;
        }
        Ok((self.serial.len() - rest.len()) as u32)
    }

    /// Writes the status byte and gives the chain back.
    fn give_back(
        &mut self,
        head: u16,
        addr: GuestAddress,
        status: u8,
        written: u32,
    ) -> Result<(), QueueError> {
        self.queue
            .memory()
            .write_obj(status, addr)
            .map_err(|_| QueueError::Request("a status byte left guest memory"))?;
        self.queue.push_used(head, written.saturating_add(1))
    }
}

enum Recovery {
    Again,
    Done,
    Fail(u8),
}
