//! The file that a block device is: `/dev/vda` and so on (`block/fops.c` and `block/ioctl.c` of
//! Linux are what it behaves like).
//!
//! With `O_DIRECT` the device accesses the program's memory. Other reads come from a cache, which
//! reads ahead; other writes go to the device at once, through pages of the kernel's.

mod bounce;
mod cache;
mod ioctl;
#[cfg(test)]
mod tests;
mod write_ticket;

pub use ioctl::needs_writable;

use super::block::{BlockDevice, BlockOp, BlockTicket, SECTOR, Sectors};
use crate::error::{Errno, Result};
use crate::file::{Answer, BoxFuture, DeviceNumber, FileOps, FileType, Stat};
use crate::io::{Direction, Io, IoFlags};
use crate::mm::{AddressSpace, IoBuffer};
use alloc::boxed::Box;
use alloc::sync::Arc;
use bounce::{Bounce, EditLock};
use cache::{Cache, Run};
use core::task::{Context, Poll, ready};
use linux_raw_sys::general as raw;
use machine::{DmaSegments, Frame, PAGE_SIZE, Segment};
use smallvec::SmallVec;
use write_ticket::WriteTicket;

/// What memory is aligned to for direct access: Linux's `dma_alignment` of a device that asks for
/// nothing else, plus one.
const DMA_ALIGNMENT: usize = 512;
/// Pages of zeros in one write, where the device cannot zero by itself.
const ZERO_PAGES: usize = 64;

/// A read or write that the device works on.
enum Request {
    /// It reads, or makes durable what was written.
    Device(BlockTicket),
    /// It writes.
    Write(WriteTicket),
    /// It writes in parts, from memory of the kernel.
    Bounced(Box<Bounce>),
    /// It is read from the cache, and waits for this part of that.
    Cached(Option<Arc<Run>>),
}

/// The file that a block device is. All who open the device share one.
pub struct BlockFile {
    device: Arc<BlockDevice>,
    number: DeviceNumber,
    edits: Arc<EditLock>,
    cache: Arc<Cache>,
}

impl BlockFile {
    /// The file of `device`, whose device number is `number`.
    pub fn new(device: Arc<BlockDevice>, number: DeviceNumber) -> Self {
        Self {
            cache: Arc::new(Cache::new(device.clone())),
            device,
            number,
            edits: Arc::default(),
        }
    }

    /// The device.
    pub fn device(&self) -> &Arc<BlockDevice> {
        &self.device
    }

    /// Where a read or write starts, and how many of its bytes are on the device.
    fn extent(&self, io: &Io) -> Result<(u64, usize)> {
        let position = io.position.ok_or(Errno::EINVAL)?;
        let left = self.device.size().saturating_sub(position);
        let left = usize::try_from(left).unwrap_or(usize::MAX);
        Ok((position, io.buffer.len().min(left)))
    }

    /// Starts a read or write; the result, if there is one already.
    fn start(&self, io: &mut Io) -> Result<Option<usize>> {
        let (position, count) = self.extent(io)?;
        let is_write = io.direction == Direction::Write;
        if is_write && self.device.is_read_only() {
            return Err(Errno::EPERM);
        }
        if count == 0 {
            return match is_write && !io.buffer.is_empty() {
                true => Err(Errno::ENOSPC),
                false => Ok(Some(0)),
            };
        }
        let is_direct = io.flags.contains(IoFlags::DIRECT);
        if is_direct && !matches!(io.buffer, IoBuffer::Kernel(_)) {
            let segments = self.direct(io, position, count)?;
            let sector = position / SECTOR;
            io.in_flight.put(match io.direction {
                Direction::Read => {
                    Request::Device(self.device.submit(BlockOp::Read(sector, segments)))
                }
                Direction::Write => {
                    Request::Write(WriteTicket::submit(&self.cache, sector, segments, None))
                }
            });
        } else if !is_write {
            io.in_flight.put(Request::Cached(None));
        } else if io.flags.contains(IoFlags::NOWAIT) {
            return Err(Errno::EAGAIN);
        } else {
            let bounce = Bounce::new(self.cache.clone(), self.edits.clone(), position, count);
            io.in_flight.put(Request::Bounced(Box::new(bounce)));
        }
        Ok(None)
    }

    /// The memory of a direct read or write of `count` bytes.
    fn direct(&self, io: &Io, position: u64, count: usize) -> Result<DmaSegments> {
        let mask = u64::from(self.device.block_size()) - 1;
        if (position | count as u64) & mask != 0 {
            return Err(Errno::EINVAL);
        }
        let is_read = io.direction == Direction::Read;
        let segments = match io.buffer.segments(0, count, is_read) {
            Err(Errno::EFAULT) => self.segments_before_fault(&io.buffer, count, is_read)?,
            segments => segments?,
        };
        if !is_aligned(&segments) {
            return Err(Errno::EINVAL);
        }
        Ok(segments)
    }

    /// The longest part of a buffer, in whole blocks, before memory that is not there.
    fn segments_before_fault(
        &self,
        buffer: &IoBuffer,
        count: usize,
        is_read: bool,
    ) -> Result<DmaSegments> {
        let block = self.device.block_size() as usize;
        let mut best = Err(Errno::EFAULT);
        // Blocks that are there, and blocks that are not all there.
        let (mut good, mut bad) = (0, count / block);
        while bad - good > 1 {
            let middle = good + (bad - good) / 2;
            match buffer.segments(0, middle * block, is_read) {
                Ok(segments) => {
                    best = Ok(segments);
                    good = middle;
                }
                Err(Errno::EFAULT) => bad = middle,
                Err(error) => return Err(error),
            }
        }
        best
    }

    /// Makes the range read as zeros; it is made of whole blocks of the device.
    async fn write_zeros(&self, range: Sectors) -> Result<()> {
        let result = self.write_zeros_uncached(range).await;
        self.cache.forget(range);
        result
    }

    async fn write_zeros_uncached(&self, mut range: Sectors) -> Result<()> {
        if self.device.is_read_only() {
            return Err(Errno::EPERM);
        }
        let most = whole_blocks(self.device.max_write_zeroes(), &self.device);
        while most > 0 && range.count > 0 {
            let count = range.count.min(most);
            let part = Sectors { count, ..range };
            match self.device.submit(BlockOp::WriteZeroes(part)).await {
                Ok(_) => range = after(range, count),
                Err(Errno::EOPNOTSUPP) => break,
                Err(error) => return Err(error),
            }
        }
        if range.count == 0 {
            return Ok(());
        }
        let zeros = Frame::zeroed()?;
        let page = Segment::new(zeros, 0, PAGE_SIZE).ok_or(Errno::EINVAL)?;
        let most: SmallVec<_> = core::iter::repeat_n(page, ZERO_PAGES).collect();
        let most = DmaSegments::Own(most);
        while range.count > 0 {
            let count = range.count.min(most.total() as u64 / SECTOR);
            let segments = most.part(0, (count * SECTOR) as usize);
            let write = BlockOp::Write(range.start, segments);
            self.device.submit(write).await?;
            range = after(range, count);
        }
        Ok(())
    }

    /// Tells the device that the contents of the range are not needed; it is made of whole blocks.
    async fn discard(&self, mut range: Sectors) -> Result<()> {
        let most = whole_blocks(self.device.max_discard(), &self.device);
        if most == 0 {
            return Err(Errno::EOPNOTSUPP);
        }
        while range.count > 0 {
            let count = range.count.min(most);
            let part = Sectors { count, ..range };
            let result = self.device.submit(BlockOp::Discard(part)).await;
            self.cache.forget(part);
            result?;
            range = after(range, count);
        }
        Ok(())
    }

    async fn allocate(&self, mode: u32, offset: u64, length: u64) -> Result<()> {
        const KEEP: u32 = raw::FALLOC_FL_KEEP_SIZE;
        const ZERO: u32 = raw::FALLOC_FL_ZERO_RANGE;
        const PUNCH: u32 = raw::FALLOC_FL_PUNCH_HOLE;
        let is_known = mode & !(KEEP | ZERO | PUNCH) == 0;
        if !is_known || mode & (PUNCH | KEEP) == PUNCH {
            return Err(Errno::EOPNOTSUPP);
        }
        let size = self.device.size();
        let mut end = offset.checked_add(length).ok_or(Errno::EINVAL)?;
        if offset >= size || (end > size && mode & KEEP == 0) {
            return Err(Errno::EINVAL);
        }
        end = end.min(size);
        if (offset | end) & u64::from(self.device.block_size() - 1) != 0 {
            return Err(Errno::EINVAL);
        }
        match mode & !KEEP {
            ZERO | PUNCH => self.write_zeros(sectors(offset, end - offset)).await,
            _ => Err(Errno::EOPNOTSUPP),
        }
    }
}

/// The part of `range` after `count` sectors.
fn after(range: Sectors, count: u64) -> Sectors {
    Sectors {
        start: range.start + count,
        count: range.count - count,
    }
}

/// A limit in sectors, in whole blocks.
fn whole_blocks(sectors: u64, device: &BlockDevice) -> u64 {
    sectors - sectors % (u64::from(device.block_size()) / SECTOR)
}

/// The sectors of a range in bytes.
fn sectors(offset: u64, length: u64) -> Sectors {
    Sectors {
        start: offset / SECTOR,
        count: length / SECTOR,
    }
}

/// Whether Linux would take memory for direct access. One piece in one page it takes as it is,
/// and only what it may have to split must be aligned.
fn is_aligned(segments: &DmaSegments) -> bool {
    let (mut runs, mut bits, mut crosses) = (0, 0, false);
    segments.for_each_run(|address, length| {
        runs += 1;
        bits |= address.0 as usize | length as usize;
        crosses |= address.0 as usize % PAGE_SIZE + length as usize > PAGE_SIZE;
    });
    (runs == 1 && !crosses) || bits.is_multiple_of(DMA_ALIGNMENT)
}

impl FileOps for BlockFile {
    fn supports_polling(&self) -> bool {
        true
    }

    fn poll_io(&self, io: &mut Io, context: &mut Context<'_>) -> Poll<Result<usize>> {
        if io.in_flight.is_empty()
            && let Some(count) = self.start(io)?
        {
            return Poll::Ready(Ok(count));
        }
        let Some(request) = io.in_flight.get_mut() else {
            return Poll::Ready(Err(Errno::EIO));
        };
        io.done = match request {
            Request::Cached(current) => {
                let mut current = current.take();
                let extent = self.extent(io)?;
                let result = self.cache.poll_read(io, &mut current, extent, context);
                io.in_flight.put(Request::Cached(current));
                return result;
            }
            Request::Device(ticket) => {
                let count = ready!(ticket.poll(context))?;
                // After a write this was the flush.
                return Poll::Ready(Ok(match io.direction {
                    Direction::Read => count,
                    Direction::Write => io.done,
                }));
            }
            Request::Write(ticket) => ready!(ticket.poll(context))?,
            Request::Bounced(bounce) => ready!(bounce.poll(&io.buffer, context))?,
        };
        if io.done == 0 || !io.flags.intersects(IoFlags::DATA_SYNC | IoFlags::SYNC) {
            return Poll::Ready(Ok(io.done));
        }
        let mut flush = self.device.submit(BlockOp::Flush);
        let result = flush.poll(context).map(|flushed| flushed.map(|_| io.done));
        io.in_flight.put(Request::Device(flush));
        result
    }

    fn stat(&self) -> Answer<'_, Stat> {
        Answer::ready(Ok(Stat {
            mode: FileType::BlockDevice as u32 | 0o600,
            special: self.number,
            block_size: PAGE_SIZE as u32,
            ..Stat::anonymous()
        }))
    }

    fn is_seekable(&self) -> bool {
        true
    }

    fn size(&self) -> Answer<'_, u64> {
        Answer::ready(Ok(self.device.size()))
    }

    fn has_size(&self) -> bool {
        true
    }

    fn has_fixed_size(&self) -> bool {
        true
    }

    fn seek_hole(&self, _from: u64, _hole: bool) -> Answer<'_, u64> {
        Errno::EINVAL.into()
    }

    fn sync(&self, _data_only: bool) -> BoxFuture<'_, Result<()>> {
        let ticket = self.device.submit(BlockOp::Flush);
        Box::pin(async { ticket.await.map(|_| ()) })
    }

    fn ioctl<'a>(
        &'a self,
        request: u32,
        argument: u64,
        space: &'a AddressSpace,
    ) -> BoxFuture<'a, Result<u64>> {
        Box::pin(ioctl::ioctl(self, request, argument, space))
    }

    fn allocate(&self, mode: u32, offset: u64, length: u64) -> Answer<'_, ()> {
        Answer::later(self.allocate(mode, offset, length))
    }
}
