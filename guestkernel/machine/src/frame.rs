//! Page frames: who owns a page of guest RAM, and the allocator that hands them out.
//!
//! A [`Frame`] is a counted reference to one page, as `Arc` is to a value; its bytes may be
//! changed at any time by a program or a device that has the page mapped, so they are only
//! copied in and out or accessed as atomics, never borrowed as slices.

use crate::lock::Mutex;
use crate::physical::{self, PAGE_SIZE, PhysAddr};
use core::ops::Range;
use core::sync::atomic::{AtomicU32, Ordering, fence};
use spin::Once;

/// Ranges of usable RAM that are told apart; smaller ones beyond are left unused.
pub(crate) const MEMORY_RANGES: usize = 8;

/// There is no free page frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct OutOfMemory;

/// How many page frames there are and how many are free.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MemoryUse {
    /// Page frames of usable RAM.
    pub total: usize,
    /// Those that nobody owns.
    pub free: usize,
}

/// What is known of one page frame.
#[derive(Default)]
pub(crate) struct FrameState {
    /// References to the frame; 0 while it is free.
    references: AtomicU32,
    /// The next free frame while it is in the free list; 0 ends the list.
    next: AtomicU32,
}

struct FreeFrames {
    /// Frames that were never used since boot, which therefore hold zeros.
    fresh: [Range<u32>; MEMORY_RANGES],
    /// First frame of the list of used frames; 0 if it is empty. Frame 0 is never handed out.
    used: u32,
    used_count: usize,
    total: usize,
}

static STATES: Once<&'static [FrameState]> = Once::new();
static FREE: Mutex<FreeFrames> = Mutex::new(FreeFrames {
    fresh: [const { 0..0 }; MEMORY_RANGES],
    used: 0,
    used_count: 0,
    total: 0,
});

/// Makes the frames of `fresh` (frame numbers; their pages hold zeros and belong to nobody)
/// available. `states` has an element for each frame up to the last that will ever be owned.
pub(crate) fn initialise(states: &'static [FrameState], fresh: impl Iterator<Item = Range<u32>>) {
    STATES.call_once(|| states);
    let mut free = FREE.lock();
    for (place, range) in fresh.enumerate().take(MEMORY_RANGES) {
        free.total += range.len();
        free.fresh[place] = range;
    }
}

fn state(number: u32) -> &'static FrameState {
    #[cfg(not(baremetal))]
    crate::hosted::initialise();
    let states = STATES.get().expect("frames are initialised at boot");
    &states[number as usize]
}

/// How much memory there is.
pub fn memory_use() -> MemoryUse {
    #[cfg(not(baremetal))]
    crate::hosted::initialise();
    let free = FREE.lock();
    MemoryUse {
        total: free.total,
        free: free.used_count + free.fresh.iter().map(Range::len).sum::<usize>(),
    }
}

/// A counted reference to a page frame.
///
/// Reads and writes copy byte by byte or in larger units, as the machine likes: what a program or
/// device changes meanwhile may be seen in part.
#[derive(Debug, PartialEq, Eq)]
pub struct Frame {
    number: u32,
}

impl Frame {
    /// A page full of zeros.
    ///
    /// # Errors
    ///
    /// [`OutOfMemory`].
    pub fn zeroed() -> Result<Self, OutOfMemory> {
        let (frame, is_fresh) = Self::allocate()?;
        if !is_fresh {
            frame.fill(0..PAGE_SIZE, 0);
        }
        Ok(frame)
    }

    /// A page whose contents are arbitrary: whatever its last owner left in it.
    ///
    /// # Errors
    ///
    /// [`OutOfMemory`].
    pub fn uninitialised() -> Result<Self, OutOfMemory> {
        Self::allocate().map(|(frame, _)| frame)
    }

    /// Used frames first: clearing one costs less than the first touch of a fresh one, which also
    /// makes the host provide memory.
    fn allocate() -> Result<(Self, bool), OutOfMemory> {
        #[cfg(not(baremetal))]
        crate::hosted::initialise();
        let mut free = FREE.lock();
        let (number, is_fresh) = match free.take_used() {
            Some(number) => (number, false),
            None => (free.take_fresh().ok_or(OutOfMemory)?, true),
        };
        drop(free);
        state(number).references.store(1, Ordering::Relaxed);
        Ok((Self { number }, is_fresh))
    }

    /// Takes the page at `address` out of a range that is no part of the free memory.
    ///
    /// # Safety
    ///
    /// Nothing else may own or use the page, now or later, and it has a state.
    #[cfg(baremetal)]
    pub(crate) unsafe fn adopt(address: PhysAddr) -> Self {
        let number = (address.0 / PAGE_SIZE as u64) as u32;
        state(number).references.store(1, Ordering::Relaxed);
        Self { number }
    }

    /// Gives up the reference without giving it back: it lives on in a page table entry.
    pub(crate) fn into_address(self) -> PhysAddr {
        let address = self.address();
        core::mem::forget(self);
        address
    }

    /// Takes up a reference that [`into_address`](Self::into_address) gave.
    ///
    /// # Safety
    ///
    /// Each call uses up one call of `into_address`.
    pub(crate) unsafe fn from_address(address: PhysAddr) -> Self {
        Self {
            number: (address.0 / PAGE_SIZE as u64) as u32,
        }
    }

    /// The physical address of the page's first byte.
    pub fn address(&self) -> PhysAddr {
        PhysAddr(u64::from(self.number) * PAGE_SIZE as u64)
    }

    /// Whether nobody else has a reference to the page.
    pub fn is_unique(&self) -> bool {
        state(self.number).references.load(Ordering::Acquire) == 1
    }

    /// Where the kernel sees `length` bytes from `offset` on.
    ///
    /// # Panics
    ///
    /// If they are not all in the page.
    pub(crate) fn pointer(&self, offset: usize, length: usize) -> *mut u8 {
        assert!(offset <= PAGE_SIZE && length <= PAGE_SIZE - offset);
        physical::pointer(self.address()).wrapping_add(offset)
    }

    /// Copies the bytes at `offset` into `out`.
    ///
    /// # Panics
    ///
    /// If they are not all in the page.
    pub fn read(&self, offset: usize, out: &mut [u8]) {
        let from = self.pointer(offset, out.len());
        // SAFETY: the page is RAM that we own a reference to, the range lies in it, and `out` is
        // kernel memory of that length: no frame is ever lent out as a slice.
        unsafe { crate::backend::copy(from, out.as_mut_ptr(), out.len()) }
    }

    /// Copies `bytes` to `offset`.
    ///
    /// # Panics
    ///
    /// If they do not all fit in the page.
    pub fn write(&self, offset: usize, bytes: &[u8]) {
        let to = self.pointer(offset, bytes.len());
        // SAFETY: as in `read`.
        unsafe { crate::backend::copy(bytes.as_ptr(), to, bytes.len()) }
    }

    /// Copies `length` bytes at `offset` to `to_offset` of the page `to`, which may be this one.
    ///
    /// # Panics
    ///
    /// If either range is not all in its page.
    pub fn copy_to(&self, offset: usize, to: &Frame, to_offset: usize, length: usize) {
        let from = self.pointer(offset, length);
        let to = to.pointer(to_offset, length);
        // SAFETY: both ranges lie in RAM that we hold references to; overlap gives some mixture
        // of bytes, which is all that is promised of memory that others may change.
        unsafe { crate::backend::copy(from, to, length) }
    }

    /// Sets the bytes of `range` to `value`.
    ///
    /// # Panics
    ///
    /// If the range is not in the page.
    pub fn fill(&self, range: Range<usize>, value: u8) {
        let length = range.end.saturating_sub(range.start);
        let to = self.pointer(range.start, length);
        // SAFETY: as in `write`.
        unsafe { crate::backend::fill(to, value, length) }
    }

    /// Copies `N` bytes at `offset` out of the page, once, in 8-byte units where it can.
    ///
    /// # Panics
    ///
    /// If they are not all in the page.
    #[inline]
    pub fn read_array<const N: usize>(&self, offset: usize) -> [u8; N] {
        let from = self.pointer(offset, N);
        let mut out = [0; N];
        if N.is_multiple_of(8) && offset.is_multiple_of(8) {
            for (index, chunk) in out.chunks_exact_mut(8).enumerate() {
                // SAFETY: in the page, as `pointer` has checked, and aligned, since the page is;
                // volatile, since another CPU or a device may write the page meanwhile.
                let word = unsafe { from.cast::<u64>().add(index).read_volatile() };
                chunk.copy_from_slice(&word.to_ne_bytes());
            }
        } else {
            self.read(offset, &mut out);
        }
        out
    }

    /// The 16-bit word at `offset` as an atomic.
    ///
    /// # Panics
    ///
    /// If `offset` is no multiple of 2 in the page.
    #[inline]
    pub fn atomic_u16(&self, offset: usize) -> &core::sync::atomic::AtomicU16 {
        assert!(offset.is_multiple_of(2));
        // SAFETY: as for `atomic_u32`.
        unsafe { core::sync::atomic::AtomicU16::from_ptr(self.pointer(offset, 2).cast()) }
    }

    /// The 32-bit word at `offset` as an atomic.
    ///
    /// # Panics
    ///
    /// If `offset` is no multiple of 4 in the page.
    #[inline]
    pub fn atomic_u32(&self, offset: usize) -> &AtomicU32 {
        assert!(offset.is_multiple_of(4));
        // SAFETY: aligned and in the page, which lives at least as long as this reference to it.
        // Everybody else accesses frames through raw pointers or atomics, never references.
        unsafe { AtomicU32::from_ptr(self.pointer(offset, 4).cast()) }
    }

    /// The 64-bit word at `offset` as an atomic.
    ///
    /// # Panics
    ///
    /// If `offset` is no multiple of 8 in the page.
    #[inline]
    pub fn atomic_u64(&self, offset: usize) -> &core::sync::atomic::AtomicU64 {
        assert!(offset.is_multiple_of(8));
        // SAFETY: as for `atomic_u32`.
        unsafe { core::sync::atomic::AtomicU64::from_ptr(self.pointer(offset, 8).cast()) }
    }
}

impl Clone for Frame {
    fn clone(&self) -> Self {
        let before = state(self.number)
            .references
            .fetch_add(1, Ordering::Relaxed);
        assert!(before < u32::MAX / 2, "too many references to a page frame");
        Self {
            number: self.number,
        }
    }
}

impl Drop for Frame {
    fn drop(&mut self) {
        if state(self.number)
            .references
            .fetch_sub(1, Ordering::Release)
            == 1
        {
            fence(Ordering::Acquire);
            FREE.lock().give(self.number);
        }
    }
}

impl FreeFrames {
    fn take_fresh(&mut self) -> Option<u32> {
        self.fresh.iter_mut().find_map(Iterator::next)
    }

    fn take_used(&mut self) -> Option<u32> {
        let number = self.used;
        if number == 0 {
            return None;
        }
        self.used = state(number).next.load(Ordering::Relaxed);
        self.used_count -= 1;
        Some(number)
    }

    fn give(&mut self, number: u32) {
        state(number).next.store(self.used, Ordering::Relaxed);
        self.used = number;
        self.used_count += 1;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_fresh_page_holds_zeros_and_keeps_what_is_written() {
        let frame = Frame::zeroed().unwrap();
        assert_eq!(frame.read_array::<16>(4080), [0; 16]);
        frame.write(4094, &[1, 2]);
        assert_eq!(frame.read_array::<3>(4093), [0, 1, 2]);
        frame.atomic_u32(8).store(7, Ordering::Relaxed);
        assert_eq!(frame.read_array::<8>(8), [7, 0, 0, 0, 0, 0, 0, 0]);
    }

    #[test]
    fn a_page_is_zeroed_again_before_it_is_given_out_again() {
        for _ in 0..64 {
            let frame = Frame::zeroed().unwrap();
            assert_eq!(frame.read_array::<8>(0), [0; 8]);
            frame.fill(0..PAGE_SIZE, 0xff);
        }
    }

    #[test]
    fn a_clone_keeps_the_page_alive() {
        let frame = Frame::zeroed().unwrap();
        let other = frame.clone();
        assert!(!frame.is_unique());
        frame.write(0, b"x");
        drop(frame);
        assert!(other.is_unique());
        assert_eq!(other.read_array::<1>(0), *b"x");
    }

    #[test]
    #[should_panic]
    fn a_read_beyond_the_page_is_refused() {
        Frame::zeroed().unwrap().read(4090, &mut [0; 7]);
    }
}
