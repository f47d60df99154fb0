//! The virtio block device (VIRTIO 1.2, 5.2): its properties, and requests for it.
//!
//! A request is submitted at once or, when the queue is full, in its turn, and the doorbell may
//! be put off ([`Batch`](super::Batch)); a [`BlockTicket`] waits for it. The device works on the
//! submitter's memory, which the request owns until the device is done, whatever becomes of the
//! ticket.

mod requests;
#[cfg(test)]
pub(super) mod tests;

use super::interrupt::InterruptLine;
use crate::error::{Errno, Result};
use crate::executor::{Device, Listed, is_batching, note_request};
use alloc::sync::Arc;
use core::fmt;
use core::pin::Pin;
use core::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use core::task::{Context, Poll, Waker};
use machine::lock::Mutex;
use machine::{DmaSegments, Frame, Payload, Segment, VirtioFound, VirtioTransport};
use requests::{Command, Reaped, Requests};
use ringlet_abi::block as ringlet;
use smallvec::SmallVec;
use spin::Once;
use virtio_spec::blk;

/// Bytes of a sector, the unit in which the device counts (VIRTIO 1.2, 5.2.4).
pub const SECTOR: u64 = 512;

/// Descriptors of the queue. With indirect tables each request takes one.
const QUEUE_SIZE: u16 = 256;

/// Offsets in the configuration space (VIRTIO 1.2, 5.2.4: `struct virtio_blk_config`).
mod config {
    pub(super) const CAPACITY: u64 = 0;
    pub(super) const SEG_MAX: u64 = 12;
    pub(super) const BLK_SIZE: u64 = 20;
    pub(super) const TOPOLOGY: u64 = 24;
    pub(super) const MAX_DISCARD_SECTORS: u64 = 36;
    pub(super) const MAX_WRITE_ZEROES_SECTORS: u64 = 48;
}

/// Wakers that are collected before the lock is released and they are woken.
type Wakers = SmallVec<[Waker; 16]>;

/// A range of sectors.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Sectors {
    /// The first.
    pub start: u64,
    /// How many.
    pub count: u64,
}

/// What a block device is asked to do.
#[derive(Debug)]
pub enum BlockOp {
    /// Read from sector `.0` on into the memory.
    Read(u64, DmaSegments),
    /// Write the memory to sector `.0` and those after it.
    Write(u64, DmaSegments),
    /// Make what was written durable.
    Flush,
    /// Forget what is in the sectors.
    Discard(Sectors),
    /// Make the sectors read as zeros.
    WriteZeroes(Sectors),
    /// Write the device's ID, of [`BlockDevice::ID_BYTES`] bytes, into the memory.
    Identify(DmaSegments),
}

/// Why a block device cannot be used.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BlockError {
    /// The transport does not work.
    #[error(transparent)]
    Virtio(#[from] machine::VirtioError),
    /// The block size is no power of two from 512 to 4096.
    #[error("the device has blocks of {0} bytes")]
    BlockSize(u32),
}

/// A virtio block device.
pub struct BlockDevice {
    transport: VirtioTransport,
    line: InterruptLine,
    sectors: u64,
    block_size: u32,
    limits: Once<Limits>,
    requests: Mutex<Requests>,
    /// An interrupt came when nothing was due.
    is_suspect: AtomicBool,
    /// Requests that are not finished, those that wait for their turn included.
    unfinished: AtomicUsize,
    needs_kick: AtomicBool,
}

/// What is asked of the device only when it is needed.
#[derive(Clone, Copy)]
struct Limits {
    discard_sectors: u64,
    write_zeroes_sectors: u64,
    physical_block_size: u32,
}

impl BlockDevice {
    /// Bytes of a device's ID (VIRTIO 1.2, 5.2.6: `VIRTIO_BLK_ID_BYTES`).
    pub const ID_BYTES: usize = 20;

    /// Takes the device `found`.
    ///
    /// # Errors
    ///
    /// [`BlockError`].
    pub(super) fn start(found: VirtioFound, line: InterruptLine) -> Result<Arc<Self>, BlockError> {
        let wanted = blk::F::RO
            | blk::F::BLK_SIZE
            | blk::F::SEG_MAX
            | blk::F::TOPOLOGY
            | blk::F::FLUSH
            | blk::F::DISCARD
            | blk::F::WRITE_ZEROES;
        let wanted =
            wanted.bits().to_ne() as u64 | 1 << ringlet::FEATURE_NOSPC | 1 << ringlet::FEATURE_FBIG;
        let mut setup = found.negotiate(wanted)?;
        let features = setup.features();
        let has = |feature: blk::F| features & feature.bits().to_ne() as u64 != 0;
        let mut queue = setup.queue(0, QUEUE_SIZE)?;
        let sectors = u64::from(setup.config(config::CAPACITY))
            | u64::from(setup.config(config::CAPACITY + 4)) << 32;
        let block_size = match has(blk::F::BLK_SIZE) {
            true => setup.config(config::BLK_SIZE),
            false => SECTOR as u32,
        };
        if !block_size.is_power_of_two() || !(SECTOR as u32..=4096).contains(&block_size) {
            return Err(BlockError::BlockSize(block_size));
        }
        // Without the feature nothing is said of how many segments the device takes: it takes as
        // many as the queue does.
        let most = usize::from(queue.size()).saturating_sub(2);
        queue.limit_payload(match has(blk::F::SEG_MAX) {
            true => most.min(setup.config(config::SEG_MAX) as usize),
            false => most,
        });
        Ok(Arc::new(Self {
            transport: setup.start(),
            line,
            // A partial block at the end cannot be accessed.
            sectors: sectors - sectors % (u64::from(block_size) / SECTOR),
            block_size,
            limits: Once::new(),
            requests: Mutex::new(Requests::new(queue, block_size)),
            is_suspect: AtomicBool::new(false),
            unfinished: AtomicUsize::new(0),
            needs_kick: AtomicBool::new(false),
        }))
    }

    fn has(&self, feature: blk::F) -> bool {
        self.transport.features() & feature.bits().to_ne() as u64 != 0
    }

    /// Sectors on the device.
    pub fn sectors(&self) -> u64 {
        self.sectors
    }

    /// Bytes on the device.
    pub fn size(&self) -> u64 {
        self.sectors.saturating_mul(SECTOR)
    }

    /// Bytes of the smallest part that can be read or written: 512 to 4096, a power of two.
    pub fn block_size(&self) -> u32 {
        self.block_size
    }

    /// Bytes of a block that the device need not read before it writes it.
    pub fn physical_block_size(&self) -> u32 {
        self.limits().physical_block_size
    }

    /// Whether it cannot be written.
    pub fn is_read_only(&self) -> bool {
        self.has(blk::F::RO)
    }

    /// Sectors that one [`BlockOp::Discard`] may have; 0 if there is no such operation.
    pub fn max_discard(&self) -> u64 {
        self.limits().discard_sectors
    }

    /// Sectors that one [`BlockOp::WriteZeroes`] may have; 0 if there is no such operation.
    pub fn max_write_zeroes(&self) -> u64 {
        self.limits().write_zeroes_sectors
    }

    fn limits(&self) -> Limits {
        *self.limits.call_once(|| {
            let value = |feature: blk::F, offset: u64| match self.has(feature) {
                true => self.transport.config(offset),
                false => 0,
            };
            // The first byte of the topology: log2 of the logical blocks in a physical block.
            let exponent = value(blk::F::TOPOLOGY, config::TOPOLOGY) & 0xff;
            Limits {
                discard_sectors: value(blk::F::DISCARD, config::MAX_DISCARD_SECTORS).into(),
                write_zeroes_sectors: value(blk::F::WRITE_ZEROES, config::MAX_WRITE_ZEROES_SECTORS)
                    .into(),
                physical_block_size: self.block_size << exponent.min(16),
            }
        })
    }

    /// Asks the device for `op`. It is told at the end of the [`Batch`](super::Batch), when the
    /// ticket is polled outside of one, or by [`kick`](Self::kick).
    ///
    /// The ticket gives the bytes read or written. Its errors are `EIO`, also beyond the end of
    /// the device, `ENOSPC` where the host has no room, `EOPNOTSUPP` for what the device does not
    /// do, `EROFS` if it is read-only, `EINVAL` for what is not made of whole blocks, and
    /// `ENOMEM`.
    pub fn submit(self: &Arc<Self>, op: BlockOp) -> BlockTicket {
        match self.prepare(op) {
            Ok(Some(command)) => {
                let mut requests = self.requests.lock();
                let index = requests.submit(command);
                self.publish(&requests);
                note_request();
                drop(requests);
                BlockTicket(Ticket::Submitted {
                    device: self.clone(),
                    index,
                })
            }
            Ok(None) => BlockTicket(Ticket::Settled(Ok(0))),
            Err(error) => BlockTicket(Ticket::Settled(Err(error))),
        }
    }

    /// The command for `op`, if it makes sense for the device; `None` if there is nothing to do.
    fn prepare(&self, op: BlockOp) -> Result<Option<Command>> {
        let (kind, sector, payload) = match op {
            BlockOp::Read(sector, segments) => (blk::T::In, sector, Payload::FromDevice(segments)),
            BlockOp::Write(sector, segments) => (blk::T::Out, sector, Payload::ToDevice(segments)),
            // Without the feature the device writes through (VIRTIO 1.2, 5.2.6.2).
            BlockOp::Flush if !self.has(blk::F::FLUSH) => return Ok(None),
            BlockOp::Flush => (blk::T::Flush, 0, Payload::Nothing),
            BlockOp::Discard(range) => {
                let payload = self.range(range, self.max_discard())?;
                (blk::T::Discard, 0, payload)
            }
            BlockOp::WriteZeroes(range) => {
                let payload = self.range(range, self.max_write_zeroes())?;
                (blk::T::WriteZeroes, 0, payload)
            }
            BlockOp::Identify(segments) => (blk::T::GetId, 0, Payload::FromDevice(segments)),
        };
        let has_data = matches!(kind, blk::T::In | blk::T::Out);
        let total = payload.total();
        if has_data {
            if !(total as u64).is_multiple_of(self.block_size.into()) {
                return Err(Errno::EINVAL);
            }
            let count = total as u64 / SECTOR;
            self.check(Sectors {
                start: sector,
                count,
            })?;
        }
        if self.is_read_only() && matches!(kind, blk::T::Out) {
            return Err(Errno::EROFS);
        }
        if has_data && total == 0 {
            return Ok(None);
        }
        Ok(Some(Command {
            kind,
            sector,
            payload,
        }))
    }

    fn check(&self, range: Sectors) -> Result<()> {
        let per_block = u64::from(self.block_size) / SECTOR;
        let end = range.start.checked_add(range.count);
        if end.is_none_or(|end| end > self.sectors) {
            return Err(Errno::EIO);
        }
        if !range.start.is_multiple_of(per_block) || !range.count.is_multiple_of(per_block) {
            return Err(Errno::EINVAL);
        }
        Ok(())
    }

    /// The `struct virtio_blk_discard_write_zeroes` for `range` (VIRTIO 1.2, 5.2.6).
    fn range(&self, range: Sectors, most: u64) -> Result<Payload> {
        if self.is_read_only() {
            return Err(Errno::EROFS);
        }
        if most == 0 {
            return Err(Errno::EOPNOTSUPP);
        }
        self.check(range)?;
        if range.count > most {
            return Err(Errno::EINVAL);
        }
        let frame = Frame::uninitialised()?;
        frame.write(0, &range.start.to_le_bytes());
        frame.write(8, &range.count.to_le_bytes());
        let segment = Segment::new(frame, 0, 16).ok_or(Errno::EINVAL)?;
        Ok(Payload::ToDevice(DmaSegments::Own(
            [segment].into_iter().collect(),
        )))
    }

    /// The ID that the host has given the device, without trailing NUL bytes.
    ///
    /// # Errors
    ///
    /// Those of [`submit`](Self::submit).
    pub async fn id(self: &Arc<Self>) -> Result<SmallVec<[u8; Self::ID_BYTES]>> {
        let frame = Frame::zeroed()?;
        let segment = Segment::new(frame.clone(), 0, Self::ID_BYTES).ok_or(Errno::EINVAL)?;
        let segments = DmaSegments::Own([segment].into_iter().collect());
        self.submit(BlockOp::Identify(segments)).await?;
        let id = frame.read_array::<{ Self::ID_BYTES }>(0);
        let length = id.iter().position(|byte| *byte == 0).unwrap_or(id.len());
        Ok(SmallVec::from_slice(&id[..length]))
    }

    /// Tells the device of requests that it was not told of.
    pub fn kick(&self) {
        if self.needs_kick.load(Ordering::Relaxed) {
            let mut requests = self.requests.lock();
            requests.kick();
            self.publish(&requests);
        }
    }

    /// Takes what the device has completed; true if there was anything.
    fn reap(&self) -> bool {
        let mut progress = false;
        loop {
            let mut wakers = Wakers::new();
            let mut requests = self.requests.lock();
            let reaped = requests.reap(&mut wakers);
            requests.kick();
            self.publish(&requests);
            drop(requests);
            wakers.into_iter().for_each(Waker::wake);
            match reaped {
                Ok(Reaped::Nothing) => return progress,
                Ok(Reaped::All) => return true,
                Ok(Reaped::Some) => progress = true,
                Err(error) => {
                    log::error!("virtio-blk: {error}");
                    self.fail();
                    return true;
                }
            }
        }
    }

    /// Tells what of `requests` is looked at without the lock.
    fn publish(&self, requests: &Requests) {
        self.unfinished
            .store(requests.unfinished(), Ordering::Relaxed);
        self.needs_kick
            .store(requests.needs_kick(), Ordering::Relaxed);
    }

    /// Gives up the device: all requests fail, now and later.
    fn fail(&self) {
        let mut wakers = Wakers::new();
        let mut requests = self.requests.lock();
        requests.fail(&mut wakers);
        self.publish(&requests);
        drop(requests);
        wakers.into_iter().for_each(Waker::wake);
    }
}

impl Listed for BlockDevice {
    fn describe(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let requests = self.unfinished.load(Ordering::Relaxed);
        write!(out, "virtio-blk: {requests} requests")
    }
}

impl Device for BlockDevice {
    fn poll(&self) -> bool {
        let has_interrupted = self.line.take();
        if has_interrupted && self.line.needs_acknowledgement() {
            self.transport.acknowledge_interrupt();
        }
        if self.unfinished.load(Ordering::Relaxed) == 0 {
            // Nothing was due, so it may have failed: the next request would wait for ever.
            self.is_suspect.fetch_or(has_interrupted, Ordering::Relaxed);
            return false;
        }
        let progress = self.reap();
        // An interrupt that brings nothing may mean that the device has failed.
        let is_suspect = has_interrupted
            || self.is_suspect.load(Ordering::Relaxed)
                && self.is_suspect.swap(false, Ordering::Relaxed);
        if is_suspect && !progress && self.transport.has_failed() {
            log::error!("virtio-blk: the device has failed");
            self.fail();
            return true;
        }
        progress
    }

    fn in_flight(&self) -> bool {
        self.unfinished.load(Ordering::Relaxed) > 0
    }

    fn arm(&self) -> bool {
        if self.unfinished.load(Ordering::Relaxed) == 0 {
            return false;
        }
        let mut requests = self.requests.lock();
        requests.kick();
        self.publish(&requests);
        requests.arm()
    }

    fn kick(&self) {
        BlockDevice::kick(self);
    }
}

/// Waits for a request. Dropping it abandons the request, which the device may still carry out.
pub struct BlockTicket(Ticket);

enum Ticket {
    Submitted {
        device: Arc<BlockDevice>,
        index: u32,
    },
    Settled(Result<usize>),
}

impl BlockTicket {
    /// The result, once there is one, and always after that.
    ///
    /// # Errors
    ///
    /// Those of [`BlockDevice::submit`].
    pub fn poll(&mut self, context: &mut Context<'_>) -> Poll<Result<usize>> {
        let result = match &self.0 {
            Ticket::Settled(result) => return Poll::Ready(*result),
            Ticket::Submitted { device, index } => {
                let result = device.requests.lock().poll(*index, context.waker());
                if result.is_none() && !is_batching() {
                    device.kick();
                }
                result
            }
        };
        match result {
            Some(result) => {
                self.0 = Ticket::Settled(result);
                Poll::Ready(result)
            }
            None => Poll::Pending,
        }
    }
}

impl Future for BlockTicket {
    type Output = Result<usize>;

    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        BlockTicket::poll(self.get_mut(), context)
    }
}

impl Drop for BlockTicket {
    fn drop(&mut self) {
        if let Ticket::Submitted { device, index } = &self.0 {
            let mut requests = device.requests.lock();
            requests.abandon(*index);
            device.publish(&requests);
        }
    }
}
