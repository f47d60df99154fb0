//! The threads that take requests off the queues: they move data by the host's io_uring, do at once
//! what takes no time, and give all else to the pool.

use std::sync::Arc;
use std::time::Duration;

use fuse_abi::linux::{
    fuse_batch_forget_in, fuse_forget_in, fuse_forget_one, fuse_in_header, fuse_interrupt_in,
    fuse_opcode,
};
use rustix::io::Errno;
use zerocopy::{FromZeros, IntoBytes};

use super::pool::{Job, PoolHandle};
use super::protocol::{IN_HEADER, MAX_ARGUMENTS, OUT_HEADER, Reply, Request, Result, take};
use super::ring::{SharedQueue, room, window};
use super::server::{Outcome, Server, Transfer, TransferKind, transfer_arguments};
use crate::chain::{advance, to_iovecs, total};
use crate::engine::{Completion, Engine, EngineKind, Pool, Uring};
use crate::poll::Spin;
use crate::{Buffers, QueueError, Stop, ThreadKind};

/// How long to look for work before sleeping.
const SPIN: Duration = Duration::from_micros(50);

/// Transfers of a worker that are under way; more requests wait in their queue.
const MAX_TRANSFERS: u16 = 256;

/// Times that a transfer is repeated after EINTR or EAGAIN.
const RETRIES: u8 = 16;

type QueueResult<T> = std::result::Result<T, QueueError>;

/// What a worker serves from the device's activation to its reset.
pub(super) struct Work {
    pub(super) queues: Vec<SharedQueue>,
    pub(super) server: Arc<Server>,
    pub(super) pool: PoolHandle,
}

/// What serves one activation after the other, on the thread that it was made on.
pub(super) type Serve = Box<dyn FnMut(Work, &Stop)>;

/// A transfer under way.
struct Slot {
    queue: usize,
    buffers: Buffers,
    unique: u64,
    transfer: Option<Transfer>,
    /// The rest of the data.
    iovecs: Vec<libc::iovec>,
    done: u32,
    retries: u8,
}

/// Makes what serves queues of the share `tag` on the calling thread.
///
/// # Errors
///
/// The host denies the engine.
pub(super) fn prepare(
    tag: &str,
    kind: EngineKind,
    stop: &Stop,
) -> std::io::Result<(ThreadKind, Serve)> {
    if kind == EngineKind::Auto {
        match Uring::new(stop.event(), Arc::default()) {
            Ok(engine) => return Ok((ThreadKind::Share, serve_by(engine))),
            Err(error) => {
                log::warn!("{tag}: no io_uring on this host ({error}); using threads");
            }
        }
    }
    let engine = Pool::new(stop.event())?;
    Ok((ThreadKind::ShareThreads, serve_by(engine)))
}

fn serve_by(mut engine: impl Engine + 'static) -> Serve {
    Box::new(move |work, stop| {
        let Some(first) = work.queues.first() else {
            return;
        };
        let interrupt = Arc::clone(first.lock().interrupt());
        if let Err(error) = serve(work, &mut engine, stop) {
            interrupt.fail_until(stop, &error);
        }
    })
}

/// Serves the queues until told to stop; then no transfer is under way, and all requests that were
/// taken have been answered or given to the pool.
///
/// # Errors
///
/// The guest broke the protocol, or the host fails in a way that leaves no way on.
fn serve<E: Engine>(work: Work, engine: &mut E, stop: &Stop) -> QueueResult<()> {
    let queues = work.queues.iter();
    let doorbells = queues.map(|queue| queue.lock().doorbell().try_clone());
    engine.attach(doorbells.collect::<std::io::Result<_>>()?);
    let mut dispatcher = Dispatcher::new(work, engine);
    let result = dispatcher.run(stop);
    dispatcher.engine.detach()?;
    result
}

struct Dispatcher<'a, E> {
    work: Work,
    engine: &'a mut E,
    slots: Vec<Slot>,
    free: Vec<u16>,
    buffers: Buffers,
    arguments: Vec<u8>,
    reply: Reply,
}

impl<'a, E: Engine> Dispatcher<'a, E> {
    fn new(work: Work, engine: &'a mut E) -> Self {
        let slot = || Slot {
            queue: 0,
            buffers: Buffers::default(),
            unique: 0,
            transfer: None,
            iovecs: Vec::new(),
            done: 0,
            retries: 0,
        };
        Self {
            work,
            engine,
            slots: (0..MAX_TRANSFERS).map(|_| slot()).collect(),
            free: (0..MAX_TRANSFERS).rev().collect(),
            buffers: Buffers::default(),
            arguments: Vec::new(),
            reply: Reply::new(),
        }
    }

    fn run(&mut self, stop: &Stop) -> QueueResult<()> {
        let result = self.serve(stop).and_then(|()| self.finish());
        // After an error, too, the host must be done with guest memory before the worker ends.
        while self.in_flight() {
            if let Err(error) = self.engine.flush().and_then(|()| self.engine.wait(None)) {
                // Nothing can be known of the transfers any more: better to end than to let them
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

    fn serve(&mut self, stop: &Stop) -> QueueResult<()> {
        let mut spin = Spin::new(SPIN);
        self.disable_notifications()?;
        while !stop.requested() {
            let mut is_active = false;
            for queue in 0..self.work.queues.len() {
                is_active |= self.take_requests(queue)?;
            }
            self.engine.flush()?;
            while let Some(completion) = self.engine.next_completion() {
                self.complete(completion)?;
                is_active = true;
            }
            self.announce()?;
            if is_active {
                spin.restart();
            } else if !spin.turn() {
                self.sleep()?;
                spin.restart();
            }
        }
        Ok(())
    }

    /// Completes what is in flight.
    fn finish(&mut self) -> QueueResult<()> {
        while self.in_flight() {
            self.engine.flush()?;
            while let Some(completion) = self.engine.next_completion() {
                self.complete(completion)?;
            }
            if self.in_flight() {
                self.engine.wait(None)?;
            }
        }
        self.announce()
    }

    fn disable_notifications(&self) -> QueueResult<()> {
        let mut queues = self.work.queues.iter();
        queues.try_for_each(|queue| queue.lock().disable_notification())
    }

    fn announce(&self) -> QueueResult<()> {
        let mut queues = self.work.queues.iter();
        queues.try_for_each(|queue| queue.lock().announce())
    }

    /// Waits for the host, the driver or the order to stop.
    fn sleep(&mut self) -> QueueResult<()> {
        // With no slot free nothing can be taken, whatever is available.
        if !self.free.is_empty() {
            for queue in &self.work.queues {
                if queue.lock().enable_notification()? {
                    return self.disable_notifications();
                }
            }
        }
        self.engine.wait(None)?;
        self.disable_notifications()
    }

    /// Starts or hands on every request that is available on `queue`; whether there was one.
    fn take_requests(&mut self, queue: usize) -> QueueResult<bool> {
        let mut is_any = false;
        while !self.free.is_empty() {
            let mut buffers = std::mem::take(&mut self.buffers);
            let is_one = self.work.queues[queue].lock().pop(&mut buffers);
            let result = match is_one {
                Ok(true) => self.take_request(queue, &mut buffers),
                Ok(false) => {
                    self.buffers = buffers;
                    break;
                }
                Err(error) => Err(error),
            };
            self.buffers = buffers;
            result?;
            is_any = true;
        }
        Ok(is_any)
    }

    fn take_request(&mut self, queue: usize, buffers: &mut Buffers) -> QueueResult<()> {
        let memory = Arc::clone(self.work.queues[queue].lock().memory());
        let whole = total(&buffers.readable);
        let mut header = fuse_in_header::new_zeroed();
        if !buffers.take_front(&memory, header.as_mut_bytes()) {
            return Err(QueueError::Request("a FUSE request has no whole header"));
        }
        // A length that is wrong makes all else of the request doubtful.
        let is_whole = u64::from(header.len) == whole;
        let opcode = fuse_opcode::try_from(header.opcode);
        let has_reply = !matches!(
            opcode,
            Ok(fuse_opcode::FUSE_FORGET
                | fuse_opcode::FUSE_BATCH_FORGET
                | fuse_opcode::FUSE_INTERRUPT)
        );
        let room = match room(buffers) {
            Some(room) => room,
            None if !has_reply => 0,
            None => {
                return Err(QueueError::Request(
                    "a FUSE request has no room for a reply",
                ));
            }
        };
        let data = whole.saturating_sub(IN_HEADER as u64);
        let wanted = match transfer_arguments(header.opcode) {
            Some(arguments) => data.min(arguments as u64),
            None => data,
        };
        let refusal = match is_whole {
            false => Some(Errno::INVAL),
            true if wanted > MAX_ARGUMENTS as u64 => Some(Errno::TOOBIG),
            true => None,
        };
        if let Some(errno) = refusal {
            return self.refuse(queue, buffers, header.unique, has_reply, errno);
        }
        self.arguments.clear();
        self.arguments.resize(wanted as usize, 0);
        if !buffers.take_front(&memory, &mut self.arguments) {
            return Err(QueueError::Request("a FUSE request left guest memory"));
        }
        if !has_reply {
            self.take_note(&header);
            return self.work.queues[queue].lock().push_used(buffers.head, 0);
        }
        if transfer_arguments(header.opcode).is_some() {
            return self.start_transfer(queue, buffers, &header, data - wanted, room);
        }
        let request = Request {
            header,
            arguments: &self.arguments,
            room,
        };
        self.reply.clear();
        match self.work.server.try_now(&request, &mut self.reply) {
            Some(outcome) => {
                let result = match outcome {
                    Outcome::Failed(errno) => Err(errno),
                    _ => Ok(()),
                };
                let bytes = self.reply.finish(header.unique, result);
                self.work.queues[queue].reply(buffers, bytes)
            }
            None => {
                self.work.pool.push(Job {
                    queue: self.work.queues[queue].clone(),
                    buffers: std::mem::take(buffers),
                    header,
                    arguments: std::mem::take(&mut self.arguments),
                });
                Ok(())
            }
        }
    }

    fn refuse(
        &mut self,
        queue: usize,
        buffers: &Buffers,
        unique: u64,
        has_reply: bool,
        errno: Errno,
    ) -> QueueResult<()> {
        match has_reply {
            true => self.work.queues[queue].reply_header(buffers, unique, 0, Err(errno)),
            false => self.work.queues[queue].lock().push_used(buffers.head, 0),
        }
    }

    /// Carries out a request that has no reply; one that makes no sense does nothing.
    fn take_note(&self, header: &fuse_in_header) {
        // The result is nobody's.
        let _ = self.note(header);
        self.work.pool.retry_locks();
    }

    fn note(&self, header: &fuse_in_header) -> Result<()> {
        match fuse_opcode::try_from(header.opcode) {
            Ok(fuse_opcode::FUSE_FORGET) => {
                let (forget, _) = take::<fuse_forget_in>(&self.arguments)?;
                self.work.server.forget(header.nodeid, forget.nlookup);
            }
            Ok(fuse_opcode::FUSE_BATCH_FORGET) => {
                let (batch, mut rest) = take::<fuse_batch_forget_in>(&self.arguments)?;
                for _ in 0..batch.count {
                    let (one, others) = take::<fuse_forget_one>(rest)?;
                    self.work.server.forget(one.nodeid, one.nlookup);
                    rest = others;
                }
            }
            Ok(fuse_opcode::FUSE_INTERRUPT) => {
                let (interrupt, _) = take::<fuse_interrupt_in>(&self.arguments)?;
                self.work.pool.interrupt(interrupt.unique);
            }
            _ => (),
        }
        Ok(())
    }

    /// Starts READ, WRITE or FSYNC, whose data is in `buffers`.
    fn start_transfer(
        &mut self,
        queue: usize,
        buffers: &mut Buffers,
        header: &fuse_in_header,
        data: u64,
        room: usize,
    ) -> QueueResult<()> {
        let transfer = self
            .work
            .server
            .transfer(header, &self.arguments, data, room);
        let transfer = match transfer {
            Ok(transfer) => transfer,
            Err(errno) => return self.refuse(queue, buffers, header.unique, true, errno),
        };
        let Some(&index) = self.free.last() else {
            return self.refuse(queue, buffers, header.unique, true, Errno::AGAIN);
        };
        let slot = &mut self.slots[usize::from(index)];
        slot.iovecs.clear();
        let segments = match transfer.kind {
            TransferKind::Read => window(&buffers.writable, OUT_HEADER as u64, transfer.len.into()),
            TransferKind::Write | TransferKind::Append => buffers.readable.clone(),
            TransferKind::Sync | TransferKind::SyncData => Vec::new(),
        };
        to_iovecs(
            self.work.queues[queue].lock().memory(),
            &segments,
            &mut slot.iovecs,
        )
        .ok_or(QueueError::Request("a buffer left guest memory"))?;
        slot.queue = queue;
        std::mem::swap(&mut slot.buffers, buffers);
        slot.unique = header.unique;
        slot.done = 0;
        slot.retries = 0;
        slot.transfer = Some(transfer);
        self.free.pop();
        // Where there is no data, too, the host says whether the handle may do this.
        self.start(index)
    }

    /// Starts what is left of the transfer in slot `index`.
    fn start(&mut self, index: u16) -> QueueResult<()> {
        let slot = &self.slots[usize::from(index)];
        let Some(transfer) = &slot.transfer else {
            return Ok(());
        };
        let operation = transfer.operation(slot.done);
        // SAFETY: the vectors belong to the slot, which is not touched until its completion; they
        // point into guest memory, which the queue keeps mapped; the descriptor is the transfer's;
        // `run` waits for every completion before any of these is dropped.
        let started = unsafe { self.engine.start(index, operation, &slot.iovecs) };
        started.map_err(|error| {
            self.free.push(index);
            error.into()
        })
    }

    /// Takes the end of an operation: the next one of the same transfer, or the transfer's end.
    fn complete(&mut self, completion: Completion) -> QueueResult<()> {
        let index = completion.slot;
        let slot = &mut self.slots[usize::from(index)];
        let result = match u32::try_from(completion.result) {
            Ok(count) => {
                advance(&mut slot.iovecs, count as usize);
                slot.done = slot.done.saturating_add(count);
                // Of a file that ended there is no more, and what is written must not be cut short.
                if count > 0 && !slot.iovecs.is_empty() {
                    return self.start(index);
                }
                Ok(())
            }
            Err(_) => {
                let errno = Errno::from_raw_os_error(completion.result.saturating_neg());
                if matches!(errno, Errno::INTR | Errno::AGAIN) && slot.retries < RETRIES {
                    slot.retries += 1;
                    return self.start(index);
                }
                match slot.done {
                    0 => Err(errno),
                    _ => Ok(()),
                }
            }
        };
        self.free.push(index);
        let Some(transfer) = slot.transfer.take() else {
            return Ok(());
        };
        let queue = &self.work.queues[slot.queue];
        match (result, transfer.kind) {
            (Err(errno), _) => queue.reply_header(&slot.buffers, slot.unique, 0, Err(errno)),
            (Ok(()), TransferKind::Read) => {
                queue.reply_header(&slot.buffers, slot.unique, slot.done, Ok(()))
            }
            (Ok(()), _) => {
                self.reply.clear();
                transfer.push_result(slot.done, &mut self.reply);
                let bytes = self.reply.finish(slot.unique, Ok(()));
                queue.reply(&slot.buffers, bytes)
            }
        }
    }
}
