//! The virtio file system device (VIRTIO 1.2, 5.11): requests of FUSE, and what becomes of them.
//!
//! What the requests mean is the client's business ([`fs::fuse`](crate::fs::fuse)). Here is how they
//! reach the device, that replies belong to what was asked, and that all end when the device has
//! failed.

mod requests;
#[cfg(test)]
pub(crate) mod tests;

use super::interrupt::InterruptLine;
use crate::error::{Errno, Result};
use crate::executor::{Device, Listed, is_batching, note_request};
use alloc::boxed::Box;
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::fmt;
use core::pin::Pin;
use core::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use core::task::{Context, Poll};
use machine::lock::Mutex;
use machine::{DmaSegments, SmallParts, VirtioError, VirtioFound, VirtioTransport};
use requests::{After, HEADER_MAX, OUT_HEADER, Reaped, Requests};
use smallvec::SmallVec;
use spin::Once;

/// Bytes of a tag (VIRTIO 1.2, 5.11.4: `struct virtio_fs_config`).
const TAG: u64 = 36;
/// Descriptors of a request queue, and of the queue of urgent requests.
const QUEUE_SIZE: u16 = 256;
const URGENT_SIZE: u16 = 32;
/// Request queues that are used at most: each keeps 256 KiB.
const QUEUES_MAX: u32 = 4;
/// Bytes of the longest reply, but for data: header, entry and open file.
const REPLY_MAX: usize = OUT_HEADER + 128 + 16;

/// A request.
pub struct FsRequest {
    /// `FUSE_*`.
    pub opcode: u32,
    /// The node that it is about.
    pub node: u64,
    /// User and group to whom belongs what it makes.
    pub owner: (u32, u32),
    /// What follows the header: arguments, names.
    pub arguments: SmallVec<[u8; 64]>,
    /// Data that follow the arguments.
    pub to_device: Option<DmaSegments>,
    /// Where the data of the reply go.
    pub from_device: Option<DmaSegments>,
    /// Bytes that follow the reply's header, before the data; `None` if there is no reply.
    pub reply: Option<u16>,
}

/// What a request was answered.
pub struct FsReply {
    /// What follows the header, before the data: as many bytes as were asked for.
    pub fixed: SmallVec<[u8; 144]>,
    /// The memory for data.
    pub data: Option<DmaSegments>,
    /// Bytes of data there.
    pub length: usize,
}

/// A reply that nobody waits for.
pub struct Orphan {
    /// What was asked.
    pub opcode: u32,
    /// What the device has answered.
    pub reply: FsReply,
}

type Adopt = Box<dyn Fn(Orphan) + Send + Sync>;

/// One queue, and what of it is looked at without its lock.
struct Queue {
    requests: Mutex<Requests>,
    /// Requests that are not finished, those that wait for their turn included.
    unfinished: AtomicUsize,
    needs_kick: AtomicBool,
}

/// A virtio file system device.
pub struct FsDevice {
    tag: Vec<u8>,
    transport: VirtioTransport,
    line: InterruptLine,
    /// The first is for urgent requests.
    queues: Vec<Queue>,
    /// The most pieces of memory in a request.
    pieces: usize,
    next_unique: AtomicU64,
    adopt: Once<Adopt>,
}

impl FsDevice {
    /// Takes the device `found`.
    ///
    /// # Errors
    ///
    /// [`VirtioError`].
    pub(super) fn start(found: VirtioFound, line: InterruptLine) -> Result<Arc<Self>, VirtioError> {
        let mut setup = found.negotiate(0)?;
        let mut tag = Vec::new();
        for at in (0..TAG).step_by(4) {
            tag.extend_from_slice(&setup.config(at).to_le_bytes());
        }
        let length = tag.iter().position(|byte| *byte == 0).unwrap_or(tag.len());
        tag.truncate(length);
        let count = setup.config(TAG).clamp(1, QUEUES_MAX);
        let small = SmallParts {
            header: HEADER_MAX,
            reply: REPLY_MAX,
        };
        let mut queues = Vec::new();
        let mut pieces = usize::MAX;
        for index in 0..=count {
            let size = if index == 0 { URGENT_SIZE } else { QUEUE_SIZE };
            let mut queue = setup.queue_for(index, size, small)?;
            // The header and the reply take two.
            queue.limit_payload(usize::from(queue.size()).saturating_sub(2));
            if index > 0 {
                pieces = pieces.min(queue.payload_limit());
            }
            queues.push(Queue {
                requests: Mutex::new(Requests::new(queue)),
                unfinished: AtomicUsize::new(0),
                needs_kick: AtomicBool::new(false),
            });
        }
        Ok(Arc::new(Self {
            tag,
            transport: setup.start(),
            line,
            queues,
            pieces,
            // Linux's are even: the lowest bit tells an interrupt from what it interrupts.
            next_unique: AtomicU64::new(2),
            adopt: Once::new(),
        }))
    }

    /// The name by which it is mounted.
    pub fn tag(&self) -> &[u8] {
        &self.tag
    }

    /// The most pieces of memory that a request's data may be in.
    pub fn pieces(&self) -> usize {
        self.pieces
    }

    /// Has `adopt` take the replies that nobody waits for any more, for ever. The first to ask is the
    /// one.
    pub fn set_adopt(&self, adopt: impl Fn(Orphan) + Send + Sync + 'static) {
        self.adopt.call_once(|| Box::new(adopt));
    }

    fn choose(&self) -> u32 {
        let others = self.queues.len() as u32 - 1;
        1 + machine::current_cpu() % others.max(1)
    }

    /// Asks the device. It is told at the end of the [`Batch`](crate::executor::Batch), when the ticket
    /// is polled outside of one, or by [`kick`](Device::kick).
    ///
    /// The ticket gives the reply. Its errors are those that the device answers, and `EIO` if it has
    /// failed or its reply makes no sense.
    pub fn submit(self: &Arc<Self>, request: FsRequest) -> FsTicket {
        match self.add(self.choose(), request, false) {
            Ok((queue, index, unique)) => FsTicket(Ticket::Submitted {
                device: self.clone(),
                queue,
                index,
                unique,
            }),
            Err(error) => FsTicket(Ticket::Settled(error)),
        }
    }

    /// Tells the device what nobody waits for.
    pub fn tell(&self, request: FsRequest) {
        // What cannot be told now cannot be told at all: the device has failed, or memory is short.
        let _ = self.add(self.choose(), request, true);
        self.kick_unless_batching();
    }

    /// As [`tell`](Self::tell), by the queue of urgent requests.
    pub fn tell_urgently(&self, request: FsRequest) {
        let _ = self.add(0, request, true);
        self.kick_unless_batching();
    }

    fn kick_unless_batching(&self) {
        if !is_batching() {
            Device::kick(self);
        }
    }

    fn add(&self, number: u32, request: FsRequest, is_detached: bool) -> Result<(u32, u32, u64)> {
        let unique = self.next_unique.fetch_add(2, Ordering::Relaxed);
        let queue = &self.queues[number as usize];
        let mut requests = queue.requests.lock();
        let index = requests.submit(request, unique, is_detached)?;
        queue.publish(&requests);
        note_request();
        Ok((number, index, unique))
    }

    /// What follows when the lock of a queue was released.
    fn follow_up(&self, after: After) {
        after.wakers.into_iter().for_each(core::task::Waker::wake);
        if let Some(adopt) = self.adopt.get() {
            after.orphans.into_iter().for_each(adopt);
        }
    }

    /// Takes what the device has completed in `queue`; true if there was anything.
    fn reap(&self, queue: &Queue) -> bool {
        let mut progress = false;
        loop {
            let mut after = After::default();
            let mut requests = queue.requests.lock();
            let reaped = requests.reap(&mut after);
            requests.kick();
            queue.publish(&requests);
            drop(requests);
            self.follow_up(after);
            match reaped {
                Ok(Reaped::Nothing) => return progress,
                Ok(Reaped::All) => return true,
                Ok(Reaped::Some) => progress = true,
                Err(error) => {
                    log::error!("virtio-fs: {error}");
                    self.fail();
                    return true;
                }
            }
        }
    }

    /// Gives up the device: all requests fail, now and later.
    fn fail(&self) {
        for queue in &self.queues {
            let mut after = After::default();
            let mut requests = queue.requests.lock();
            requests.fail(&mut after);
            queue.publish(&requests);
            drop(requests);
            self.follow_up(after);
        }
    }
}

impl Queue {
    fn publish(&self, requests: &Requests) {
        self.unfinished
            .store(requests.unfinished(), Ordering::Relaxed);
        self.needs_kick
            .store(requests.needs_kick(), Ordering::Relaxed);
    }

    fn is_idle(&self) -> bool {
        self.unfinished.load(Ordering::Relaxed) == 0
    }

    fn kick(&self) {
        if self.needs_kick.load(Ordering::Relaxed) {
            let mut requests = self.requests.lock();
            requests.kick();
            self.publish(&requests);
        }
    }
}

impl Listed for FsDevice {
    fn describe(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let unfinished = self.queues.iter();
        let requests: usize = unfinished
            .map(|queue| queue.unfinished.load(Ordering::Relaxed))
            .sum();
        write!(out, "virtio-fs: {requests} requests")
    }
}

impl Device for FsDevice {
    fn poll(&self) -> bool {
        let has_interrupted = self.line.take();
        if has_interrupted && self.line.needs_acknowledgement() {
            self.transport.acknowledge_interrupt();
        }
        let mut progress = false;
        for queue in &self.queues {
            if !queue.is_idle() {
                progress |= self.reap(queue);
            }
        }
        // An interrupt that brings nothing may mean that the device has failed.
        if has_interrupted && !progress && self.transport.has_failed() {
            log::error!("virtio-fs: the device has failed");
            self.fail();
            return true;
        }
        progress
    }

    fn in_flight(&self) -> bool {
        self.queues.iter().any(|queue| !queue.is_idle())
    }

    fn arm(&self) -> bool {
        let mut is_pending = false;
        for queue in &self.queues {
            if !queue.is_idle() {
                let mut requests = queue.requests.lock();
                requests.kick();
                queue.publish(&requests);
                is_pending |= requests.arm();
            }
        }
        is_pending
    }

    fn kick(&self) {
        self.queues.iter().for_each(Queue::kick);
    }
}

/// Waits for a request. Dropping it abandons the request, which the device may still carry out.
pub struct FsTicket(Ticket);

enum Ticket {
    Submitted {
        device: Arc<FsDevice>,
        queue: u32,
        index: u32,
        unique: u64,
    },
    Settled(Errno),
}

impl FsTicket {
    /// The number by which the device knows the request, if it does.
    pub fn unique(&self) -> Option<u64> {
        match &self.0 {
            Ticket::Submitted { unique, .. } => Some(*unique),
            Ticket::Settled(_) => None,
        }
    }

    /// The reply, once; after that `EIO`.
    ///
    /// # Errors
    ///
    /// Those of [`FsDevice::submit`].
    pub fn poll(&mut self, context: &mut Context<'_>) -> Poll<Result<FsReply>> {
        let reply = match &self.0 {
            Ticket::Settled(error) => return Poll::Ready(Err(*error)),
            Ticket::Submitted {
                device,
                queue,
                index,
                ..
            } => {
                let requests = &device.queues[*queue as usize].requests;
                let reply = requests.lock().poll(*index, context.waker());
                if reply.is_none() {
                    device.kick_unless_batching();
                }
                reply
            }
        };
        match reply {
            Some(reply) => {
                // The request is forgotten, so there is nothing to abandon.
                self.0 = Ticket::Settled(Errno::EIO);
                Poll::Ready(reply)
            }
            None => Poll::Pending,
        }
    }
}

impl Future for FsTicket {
    type Output = Result<FsReply>;

    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        FsTicket::poll(self.get_mut(), context)
    }
}

impl Drop for FsTicket {
    fn drop(&mut self) {
        if let Ticket::Submitted {
            device,
            queue,
            index,
            ..
        } = &self.0
        {
            let mut after = After::default();
            let queue = &device.queues[*queue as usize];
            let mut requests = queue.requests.lock();
            requests.abandon(*index, &mut after);
            queue.publish(&requests);
            drop(requests);
            device.follow_up(after);
        }
    }
}
