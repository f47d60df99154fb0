//! The memory side of a read or write: a program's bytes, a registered buffer, or the kernel's.

use super::address_space::AddressSpace;
use super::user_range::{UserRange, UserRanges};
use super::vma::PAGE;
use crate::error::{Errno, Result};
use crate::executor::BoxFuture;
use alloc::boxed::Box;
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::future::ready;
use machine::{Access, DmaSegments, Frame, PAGE_SIZE, Segment};
use smallvec::SmallVec;

/// Where the bytes of a read go, or those of a write come from.
#[derive(Clone)]
pub enum IoBuffer {
    /// Memory of a program, not looked at before it is used.
    User {
        /// Whose.
        space: Arc<AddressSpace>,
        /// Which, in order.
        ranges: UserRanges,
    },
    /// A part of a buffer registered with io_uring.
    Registered {
        /// All of the buffer: all segments but the first start at a page's first byte, and all
        /// but the last end with a page's last.
        region: Arc<[Segment]>,
        /// The part's first byte.
        offset: usize,
        /// The part's bytes.
        length: usize,
    },
    /// Memory of the kernel.
    Kernel(Vec<u8>),
}

impl IoBuffer {
    /// `length` bytes of program memory.
    #[inline]
    pub fn user(space: Arc<AddressSpace>, address: u64, length: usize) -> Self {
        Self::vectored(space, [UserRange { address, length }].into())
    }

    /// Several pieces of program memory.
    #[inline]
    pub fn vectored(space: Arc<AddressSpace>, ranges: UserRanges) -> Self {
        Self::User { space, ranges }
    }

    /// `length` bytes from byte `offset` of `region` on; the caller has checked that they are
    /// all in it.
    #[inline]
    pub fn registered(region: Arc<[Segment]>, offset: usize, length: usize) -> Self {
        Self::Registered {
            region,
            offset,
            length,
        }
    }

    /// Whether it is a part of that registered buffer.
    pub fn is_of(&self, whole: &Arc<[Segment]>) -> bool {
        match self {
            Self::Registered { region, .. } => Arc::ptr_eq(region, whole),
            _ => false,
        }
    }

    /// The bytes.
    #[inline]
    pub fn len(&self) -> usize {
        match self {
            Self::User { ranges, .. } => match ranges.as_slice() {
                [range] => range.length,
                ranges => ranges.iter().map(|range| range.length).sum(),
            },
            Self::Registered { length, .. } => *length,
            Self::Kernel(bytes) => bytes.len(),
        }
    }

    /// Leaves only the first `length` bytes, if there are more.
    pub fn cut(&mut self, length: usize) {
        match self {
            Self::User { ranges, .. } => {
                let mut left = length;
                for range in ranges {
                    range.length = range.length.min(left);
                    left -= range.length;
                }
            }
            Self::Registered { length: own, .. } => *own = length.min(*own),
            Self::Kernel(bytes) => bytes.truncate(length),
        }
    }

    /// The bytes from `at` to the end of the piece that it is in.
    pub fn left_of_piece(&self, at: usize) -> usize {
        let Self::User { ranges, .. } = self else {
            return self.len().saturating_sub(at);
        };
        let mut end = 0;
        for range in ranges {
            end += range.length;
            if at < end {
                return end - at;
            }
        }
        0
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Whether all pieces start at a multiple of `alignment` (a power of 2) and are multiples of
    /// it in length, as direct access to a device needs.
    pub fn is_aligned_to(&self, alignment: usize) -> bool {
        let mask = alignment - 1;
        match self {
            Self::User { ranges, .. } => ranges
                .iter()
                .all(|range| (range.address as usize | range.length) & mask == 0),
            Self::Registered {
                region,
                offset,
                length,
            } => {
                let start = region.first().map_or(0, Segment::offset) + offset;
                (start | length) & mask == 0
            }
            Self::Kernel(bytes) => bytes.len() & mask == 0,
        }
    }

    /// Copies `bytes` into the buffer at byte `at`; returns how many fit and could be copied.
    ///
    /// # Errors
    ///
    /// `EFAULT` if the first of them could not be copied.
    pub fn fill(&mut self, at: usize, bytes: &[u8]) -> Result<usize> {
        if let Self::Kernel(buffer) = self {
            let Some(to) = buffer.get_mut(at..) else {
                return Ok(0);
            };
            let count = to.len().min(bytes.len());
            to[..count].copy_from_slice(&bytes[..count]);
            return Ok(count);
        }
        self.pieces(at, bytes.len(), |piece, done| {
            let bytes = &bytes[done..done + piece.length()];
            match piece {
                Piece::User(space, range) => space.write_some(range.address, bytes),
                Piece::Frame(frame, offset, length) => {
                    frame.write(offset, bytes);
                    Ok(length)
                }
            }
        })
    }

    /// Copies bytes of the buffer from byte `at` on into `out`; returns how many there were and
    /// could be copied.
    ///
    /// # Errors
    ///
    /// `EFAULT` if the first of them could not be copied.
    pub fn take(&self, at: usize, out: &mut [u8]) -> Result<usize> {
        if let Self::Kernel(buffer) = self {
            let from = buffer.get(at..).unwrap_or_default();
            let count = from.len().min(out.len());
            out[..count].copy_from_slice(&from[..count]);
            return Ok(count);
        }
        self.pieces(at, out.len(), |piece, done| {
            let out = &mut out[done..done + piece.length()];
            match piece {
                Piece::User(space, range) => space.read_some(range.address, out),
                Piece::Frame(frame, offset, length) => {
                    frame.read(offset, out);
                    Ok(length)
                }
            }
        })
    }

    /// Copies all bytes from byte `at` of the buffer on that `out` has room for.
    ///
    /// # Errors
    ///
    /// `EFAULT` if one of them could not be copied or is not in the buffer.
    pub fn take_all(&self, at: usize, out: &mut [u8]) -> Result<()> {
        let mut done = 0;
        while done < out.len() {
            match self.take(at + done, &mut out[done..])? {
                0 => return Err(Errno::EFAULT),
                taken => done += taken,
            }
        }
        Ok(())
    }

    /// Copies `count` bytes at `offset` of `frame` into the buffer at byte `at`, as
    /// [`fill`](Self::fill) does.
    ///
    /// # Errors
    ///
    /// As for [`fill`](Self::fill).
    ///
    /// # Panics
    ///
    /// If the bytes are not all in the page.
    pub fn fill_from_frame(
        &mut self,
        at: usize,
        frame: &Frame,
        offset: usize,
        count: usize,
    ) -> Result<usize> {
        assert!(offset <= PAGE_SIZE && count <= PAGE_SIZE - offset);
        if let Self::Kernel(buffer) = self {
            let Some(to) = buffer.get_mut(at..) else {
                return Ok(0);
            };
            let count = to.len().min(count);
            frame.read(offset, &mut to[..count]);
            return Ok(count);
        }
        self.frames(at, count, Access::WRITE, |to, to_offset, done, length| {
            frame.copy_to(offset + done, to, to_offset, length);
        })
    }

    /// Copies up to `count` bytes of the buffer from byte `at` on to `offset` of `frame`, as
    /// [`take`](Self::take) does.
    ///
    /// # Errors
    ///
    /// As for [`take`](Self::take).
    ///
    /// # Panics
    ///
    /// If the bytes are not all in the page.
    pub fn take_to_frame(
        &self,
        at: usize,
        frame: &Frame,
        offset: usize,
        count: usize,
    ) -> Result<usize> {
        assert!(offset <= PAGE_SIZE && count <= PAGE_SIZE - offset);
        if let Self::Kernel(buffer) = self {
            let from = buffer.get(at..).unwrap_or_default();
            let count = from.len().min(count);
            frame.write(offset, &from[..count]);
            return Ok(count);
        }
        self.frames(
            at,
            count,
            Access::READ,
            |from, from_offset, done, length| {
                from.copy_to(from_offset, frame, offset + done, length);
            },
        )
    }

    /// Sets `count` bytes of the buffer from byte `at` on to 0, as [`fill`](Self::fill) does.
    ///
    /// # Errors
    ///
    /// As for [`fill`](Self::fill).
    pub fn fill_zeros(&mut self, at: usize, count: usize) -> Result<usize> {
        if let Self::Kernel(buffer) = self {
            let Some(to) = buffer.get_mut(at..) else {
                return Ok(0);
            };
            let count = to.len().min(count);
            to[..count].fill(0);
            return Ok(count);
        }
        self.frames(at, count, Access::WRITE, |to, offset, _, length| {
            to.fill(offset..offset + length, 0);
        })
    }

    /// Gets the page that the buffer has missed, as an [`Errno::ABSENT`] told.
    pub(crate) fn bring_in_absent(&self) -> BoxFuture<'static, Result<()>> {
        match self {
            Self::User { space, .. } => {
                let space = space.clone();
                Box::pin(async move { space.bring_in_absent().await })
            }
            // No page of these is ever missed.
            _ => Box::pin(ready(Ok(()))),
        }
    }

    /// Sees to it that `count` bytes from byte `at` on can be filled without waiting: for those
    /// who must not lose what they take out of somewhere to fill them in.
    ///
    /// # Errors
    ///
    /// [`Errno::ABSENT`]; a bad address shows when they are filled.
    pub fn prepare_fill(&self, at: usize, count: usize) -> Result<()> {
        match self.frames(at, count, Access::WRITE, |_, _, _, _| {}) {
            Err(Errno::ABSENT) => Err(Errno::ABSENT),
            Ok(done) if done < count && done > 0 => self.prepare_fill(at + done, count - done),
            _ => Ok(()),
        }
    }

    /// The `length` bytes from byte `at` on, kept in place for a device that reads them, or
    /// writes them if `device_writes`.
    ///
    /// # Errors
    ///
    /// `EFAULT` if they are not all there; `EINVAL` for kernel memory, which devices do not reach.
    pub fn segments(&self, at: usize, length: usize, device_writes: bool) -> Result<DmaSegments> {
        let needed = if device_writes {
            Access::WRITE
        } else {
            Access::READ
        };
        match self {
            Self::User { space, ranges } => {
                if let [range] = ranges.as_slice() {
                    if at > range.length || length > range.length - at {
                        return Err(Errno::EFAULT);
                    }
                    let address = range.address.wrapping_add(at as u64);
                    return Ok(DmaSegments::Own(space.pin(address, length, needed)?));
                }
                let mut all = SmallVec::new();
                let mut left = length;
                for part in parts(ranges, at, length) {
                    let pinned = space.pin(part.address, part.length, needed)?;
                    all.try_reserve(pinned.len()).map_err(|_| Errno::ENOMEM)?;
                    all.extend(pinned);
                    left -= part.length;
                }
                if left > 0 {
                    return Err(Errno::EFAULT);
                }
                Ok(DmaSegments::Own(all))
            }
            Self::Registered {
                region,
                offset,
                length: all,
            } => {
                if at > *all || length > all - at {
                    return Err(Errno::EFAULT);
                }
                Ok(DmaSegments::Shared {
                    region: region.clone(),
                    offset: offset + at,
                    length,
                })
            }
            Self::Kernel(_) => Err(Errno::EINVAL),
        }
    }

    /// Calls `each` with pieces that lie in one page, until `count` bytes are done: the frame, the
    /// offset in it, the bytes done before, and those to do.
    fn frames(
        &self,
        at: usize,
        count: usize,
        needed: Access,
        mut each: impl FnMut(&Frame, usize, usize, usize),
    ) -> Result<usize> {
        self.pieces(at, count, |piece, done| match piece {
            Piece::Frame(frame, offset, length) => {
                each(frame, offset, done, length);
                Ok(length)
            }
            Piece::User(space, range) => {
                let mut here = 0;
                while here < range.length {
                    let address = range.address.wrapping_add(here as u64);
                    let offset = address as usize % PAGE_SIZE;
                    let length = (range.length - here).min(PAGE_SIZE - offset);
                    let result = space.with_frame(address, needed, |frame| {
                        each(frame, offset, done + here, length);
                    });
                    match result {
                        Ok(()) => here += length,
                        Err(_) if here > 0 => break,
                        Err(error) => return Err(error),
                    }
                }
                Ok(here)
            }
        })
    }

    /// Calls `each` with the pieces that make up `count` bytes from byte `at` on and the bytes
    /// done before; it returns the bytes that it did, and fewer than asked for end it.
    fn pieces(
        &self,
        at: usize,
        count: usize,
        mut each: impl FnMut(Piece<'_>, usize) -> Result<usize>,
    ) -> Result<usize> {
        let mut done = 0;
        let mut step = |piece: Piece<'_>| {
            let wanted = piece.length();
            match each(piece, done) {
                Ok(count) => {
                    done += count;
                    Ok(count == wanted)
                }
                Err(_) if done > 0 => Ok(false),
                Err(error) => Err(error),
            }
        };
        match self {
            Self::User { space, ranges } => {
                for range in parts(ranges, at, count) {
                    if !step(Piece::User(space, range))? {
                        break;
                    }
                }
            }
            Self::Registered {
                region,
                offset,
                length,
            } => {
                let count = count.min(length.saturating_sub(at));
                for (frame, offset, length) in registered_parts(region, offset + at, count) {
                    if !step(Piece::Frame(frame, offset, length))? {
                        break;
                    }
                }
            }
            Self::Kernel(_) => {}
        }
        Ok(done)
    }
}

enum Piece<'a> {
    User(&'a AddressSpace, UserRange),
    /// A page, the offset in it, the bytes.
    Frame(&'a Frame, usize, usize),
}

impl Piece<'_> {
    fn length(&self) -> usize {
        match self {
            Self::User(_, range) => range.length,
            Self::Frame(_, _, length) => *length,
        }
    }
}

/// The parts of `ranges` that make up `count` bytes from byte `at` of their concatenation on.
fn parts(ranges: &[UserRange], at: usize, count: usize) -> impl Iterator<Item = UserRange> {
    let mut skip = at;
    let mut left = count;
    ranges.iter().filter_map(move |range| {
        let before = skip.min(range.length);
        skip -= before;
        let length = (range.length - before).min(left);
        left -= length;
        (length > 0).then(|| UserRange {
            address: range.address.wrapping_add(before as u64),
            length,
        })
    })
}

/// The pages that make up `count` bytes from byte `at` of `region` on: frame, offset, bytes.
fn registered_parts(
    region: &[Segment],
    at: usize,
    count: usize,
) -> impl Iterator<Item = (&Frame, usize, usize)> {
    let first = region.first().map_or(0, Segment::len);
    // Segments after the first are whole pages, so the one to start at is computed.
    let (index, mut skip) = match at.checked_sub(first) {
        None => (0, at),
        Some(beyond) => (1 + beyond / PAGE as usize, beyond % PAGE as usize),
    };
    let mut left = count;
    region
        .get(index..)
        .unwrap_or_default()
        .iter()
        .map_while(move |segment| {
            let before = skip;
            skip = 0;
            let length = segment.len().saturating_sub(before).min(left);
            left -= length;
            (length > 0).then(|| (segment.frame(), segment.offset() + before, length))
        })
}
