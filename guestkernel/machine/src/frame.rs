//! Page frames: who owns a page of guest RAM, and the allocator that hands them out.
//!
//! A [`Frame`] is a counted reference to one page, as `Arc` is to a value; its bytes may be
//! changed at any time by a program or a device that has the page mapped, so they are only
//! copied in and out or accessed as atomics, never borrowed as slices.

use crate::lock::Mutex;
use crate::physical::{self, PAGE_SIZE, PhysAddr};
use core::mem::ManuallyDrop;
use core::ops::{Deref, Range};
use core::sync::atomic::{AtomicBool, AtomicU16, AtomicU64, Ordering, fence};
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
///
/// While it is owned: the references to it in the low half, and in the high half how many of those
/// are pins. While it is free: its [`Links`].
#[derive(Default)]
pub(crate) struct FrameState(AtomicU64);

/// One reference, and what a pin adds: it is a reference as well.
const REFERENCE: u64 = 1;
const PIN: u64 = 1 << 32 | REFERENCE;

fn references(state: u64) -> u32 {
    state as u32
}

fn pins(state: u64) -> u32 {
    (state >> 32) as u32
}

/// The neighbours of a free frame in the list, 0 for none. Changed under the list's lock only.
#[derive(Clone, Copy)]
struct Links {
    next: u32,
    before: u32,
}

impl FrameState {
    fn links(&self) -> Links {
        let state = self.0.load(Ordering::Relaxed);
        Links {
            next: state as u32,
            before: (state >> 32) as u32,
        }
    }

    fn set_links(&self, links: Links) {
        let state = u64::from(links.before) << 32 | u64::from(links.next);
        self.0.store(state, Ordering::Relaxed);
    }
}

/// How many frames of a block ([`BLOCK`]) are in the free list. Changed under the list's lock only.
#[derive(Default)]
pub(crate) struct BlockState(AtomicU16);

/// Frames of a block: the pieces of memory in which it goes back to the host, as large as its huge
/// pages.
pub(crate) const BLOCK: u32 = ((2 << 20) / PAGE_SIZE) as u32;

/// Whole blocks that are kept for what comes next.
const KEPT_BLOCKS: usize = 4;

struct FreeFrames {
    /// Frames that were never used since boot, which therefore hold zeros.
    fresh: [Range<u32>; MEMORY_RANGES],
    /// First frame of the list of used frames; 0 if it is empty. Frame 0 is never handed out.
    used: u32,
    used_count: usize,
    /// Blocks of which all frames are in that list, and the fewest that there were since somebody looked
    /// ([`idle_blocks`]).
    whole: usize,
    fewest_whole: usize,
    /// Where the search for one goes on.
    cursor: usize,
    /// The first frame of the last block that was given back, whose frames are as good as never used;
    /// 0 if there is none. The first frame's state has the next one.
    released: u32,
    released_count: usize,
    total: usize,
}

static STATES: Once<&'static [FrameState]> = Once::new();
static BLOCKS: Once<&'static [BlockState]> = Once::new();
static FREE: Mutex<FreeFrames> = Mutex::new(FreeFrames {
    fresh: [const { 0..0 }; MEMORY_RANGES],
    used: 0,
    used_count: 0,
    whole: 0,
    fewest_whole: 0,
    cursor: 0,
    released: 0,
    released_count: 0,
    total: 0,
});

/// Whether anybody gives blocks back, and whether there are some that he has not heard of.
static IS_WATCHED: AtomicBool = AtomicBool::new(false);
static IS_WANTED: AtomicBool = AtomicBool::new(false);

/// Makes the frames of `fresh` (frame numbers; their pages hold zeros and belong to nobody)
/// available. `states` has an element for each frame up to the last that will ever be owned, and
/// `blocks` one for each block of these.
pub(crate) fn initialise(
    states: &'static [FrameState],
    blocks: &'static [BlockState],
    fresh: impl Iterator<Item = Range<u32>>,
) {
    STATES.call_once(|| states);
    BLOCKS.call_once(|| blocks);
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

/// Frames of a block that are in the free list.
fn in_block(number: u32) -> &'static AtomicU16 {
    let blocks = BLOCKS.get().expect("frames are initialised at boot");
    &blocks[(number / BLOCK) as usize].0
}

/// From now on somebody gives blocks back, and wants to hear when there are some.
pub fn watch_free_blocks() {
    IS_WATCHED.store(true, Ordering::Relaxed);
}

/// Whether there are blocks to give back that nobody was told of yet; tells it once.
#[inline]
pub fn take_free_blocks() -> bool {
    IS_WANTED.load(Ordering::Relaxed) && IS_WANTED.swap(false, Ordering::Relaxed)
}

/// There are blocks to give back: the CPU looks at that before it goes on with a program.
#[cold]
fn tell_of_blocks() {
    if IS_WATCHED.load(Ordering::Relaxed) && !IS_WANTED.swap(true, Ordering::Relaxed) {
        crate::kick(crate::current_cpu());
    }
}

/// How many blocks were free all the time since this was asked last, beyond some that are kept; `None` if
/// there are no more than those now.
pub fn idle_blocks() -> Option<usize> {
    let mut free = FREE.lock();
    let idle = free.fewest_whole.saturating_sub(KEPT_BLOCKS);
    free.fewest_whole = free.whole;
    (free.whole > KEPT_BLOCKS).then_some(idle)
}

/// Whether there are more free blocks than are kept.
pub fn has_free_blocks() -> bool {
    FREE.lock().whole > KEPT_BLOCKS
}

/// Gives a block of free memory back to the host, which takes a while; false if there is none, or the
/// host does not take any.
pub fn release_block() -> bool {
    let Some(first) = FREE.lock().take_whole_block() else {
        return false;
    };
    let is_released = crate::backend::power::release(first / BLOCK);
    let mut free = FREE.lock();
    match is_released {
        true => {
            let next = free.released;
            state(first).set_links(Links { next, before: 0 });
            free.released = first;
            free.released_count += 1;
        }
        false => (first..first + BLOCK).for_each(|number| {
            free.give(number);
        }),
    }
    is_released
}

/// How much memory there is.
pub fn memory_use() -> MemoryUse {
    #[cfg(not(baremetal))]
    crate::hosted::initialise();
    let free = FREE.lock();
    MemoryUse {
        total: free.total,
        free: free.used_count
            + free.released_count * BLOCK as usize
            + free.fresh.iter().map(Range::len).sum::<usize>(),
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
        state(number).0.store(REFERENCE, Ordering::Relaxed);
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
        state(number).0.store(REFERENCE, Ordering::Relaxed);
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
        references(self.state()) == 1
    }

    /// Whether nobody else has a reference to the page but those who have pinned it, for whom it
    /// was made the owner's alone.
    pub fn is_exclusive(&self) -> bool {
        let state = self.state();
        references(state) - pins(state) == 1
    }

    /// Whether a device may access the page, or a registered buffer has it.
    pub fn is_pinned(&self) -> bool {
        pins(self.state()) > 0
    }

    fn state(&self) -> u64 {
        state(self.number).0.load(Ordering::Acquire)
    }

    /// Another reference, for a device or a registered buffer.
    #[inline]
    pub fn pin(&self) -> PinnedFrame {
        self.add(PIN);
        PinnedFrame(ManuallyDrop::new(Self {
            number: self.number,
        }))
    }

    #[inline]
    fn add(&self, what: u64) {
        let before = state(self.number).0.fetch_add(what, Ordering::Relaxed);
        assert!(
            references(before) < u32::MAX / 2,
            "too many references to a page frame"
        );
    }

    /// Gives up a reference, or a pin with its reference. The frame is not used afterwards.
    #[inline]
    fn remove(&mut self, what: u64) {
        let before = state(self.number).0.fetch_sub(what, Ordering::Release);
        if references(before) == 1 {
            fence(Ordering::Acquire);
            let makes_block = FREE.lock().give(self.number);
            if makes_block {
                tell_of_blocks();
            }
        }
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
    pub fn atomic_u32(&self, offset: usize) -> &core::sync::atomic::AtomicU32 {
        assert!(offset.is_multiple_of(4));
        // SAFETY: aligned and in the page, which lives at least as long as this reference to it.
        // Everybody else accesses frames through raw pointers or atomics, never references.
        unsafe { core::sync::atomic::AtomicU32::from_ptr(self.pointer(offset, 4).cast()) }
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
        self.add(REFERENCE);
        Self {
            number: self.number,
        }
    }
}

impl Drop for Frame {
    fn drop(&mut self) {
        self.remove(REFERENCE);
    }
}

/// A reference to a page frame whose page a device may access at any time, or that a registered
/// buffer has: a page of a program's that has one stays where it is.
#[derive(Debug)]
pub struct PinnedFrame(ManuallyDrop<Frame>);

impl From<Frame> for PinnedFrame {
    fn from(frame: Frame) -> Self {
        // The reference that the frame was becomes the pin's.
        frame.add(PIN - REFERENCE);
        Self(ManuallyDrop::new(frame))
    }
}

impl Deref for PinnedFrame {
    type Target = Frame;

    fn deref(&self) -> &Frame {
        &self.0
    }
}

impl Clone for PinnedFrame {
    fn clone(&self) -> Self {
        self.pin()
    }
}

impl Drop for PinnedFrame {
    fn drop(&mut self) {
        self.0.remove(PIN);
    }
}

impl FreeFrames {
    fn take_fresh(&mut self) -> Option<u32> {
        let fresh = self.fresh.iter_mut().find_map(Iterator::next);
        fresh.or_else(|| self.take_released())
    }

    /// A frame of a block that was given back; the others become fresh.
    #[cold]
    fn take_released(&mut self) -> Option<u32> {
        let first = self.released;
        if first == 0 {
            return None;
        }
        self.released = state(first).links().next;
        self.released_count -= 1;
        // All ranges are empty.
        self.fresh[0] = first..first + BLOCK;
        self.fresh[0].next()
    }

    fn take_used(&mut self) -> Option<u32> {
        let number = self.used;
        if number == 0 {
            return None;
        }
        self.unlink(number);
        Some(number)
    }

    /// Takes a frame out of the list of used frames.
    fn unlink(&mut self, number: u32) {
        let Links { next, before } = state(number).links();
        match before {
            0 => self.used = next,
            before => {
                let links = state(before).links();
                state(before).set_links(Links { next, ..links });
            }
        }
        if next != 0 {
            let links = state(next).links();
            state(next).set_links(Links { before, ..links });
        }
        self.used_count -= 1;
        let count = in_block(number).load(Ordering::Relaxed);
        in_block(number).store(count - 1, Ordering::Relaxed);
        if u32::from(count) == BLOCK {
            self.whole -= 1;
            self.fewest_whole = self.fewest_whole.min(self.whole);
        }
    }

    /// Puts a frame into the list of used frames. True if with it a block is whole, and there are more of
    /// these than are kept.
    fn give(&mut self, number: u32) -> bool {
        let next = self.used;
        state(number).set_links(Links { next, before: 0 });
        if next != 0 {
            let links = state(next).links();
            state(next).set_links(Links {
                before: number,
                ..links
            });
        }
        self.used = number;
        self.used_count += 1;
        let count = in_block(number).load(Ordering::Relaxed) + 1;
        in_block(number).store(count, Ordering::Relaxed);
        if u32::from(count) < BLOCK {
            return false;
        }
        self.whole += 1;
        self.whole > KEPT_BLOCKS
    }

    /// Takes all frames of a block out of the list of used frames, if there is one of which all are in
    /// it; gives the first.
    fn take_whole_block(&mut self) -> Option<u32> {
        let blocks = BLOCKS.get()?;
        if self.whole == 0 {
            return None;
        }
        let is_whole = |block: &usize| {
            let count = blocks[*block].0.load(Ordering::Relaxed);
            u32::from(count) == BLOCK
        };
        let block = (self.cursor..blocks.len())
            .chain(0..self.cursor.min(blocks.len()))
            .find(is_whole)?;
        self.cursor = block + 1;
        let first = block as u32 * BLOCK;
        (first..first + BLOCK).for_each(|number| self.unlink(number));
        Some(first)
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
    fn whole_blocks_are_given_back_and_come_back_as_zeros() {
        // Other tests take and give frames meanwhile, but no more than a few blocks of them.
        let frames: Vec<_> = (0..24 * BLOCK).map(|_| Frame::zeroed().unwrap()).collect();
        frames.iter().for_each(|frame| frame.fill(0..PAGE_SIZE, 7));
        drop(frames);
        let before = memory_use();
        assert_eq!(idle_blocks(), Some(0), "they are free for a moment only");
        let idle = idle_blocks().unwrap();
        assert!(idle >= 8, "{idle}");
        for _ in 0..8 {
            assert!(release_block());
        }
        let after = memory_use();
        assert_eq!(after.total, before.total);
        assert!(
            after.free.abs_diff(before.free) < 8 * BLOCK as usize,
            "{before:?} {after:?}"
        );
        // All that there is, the released blocks among them.
        let mut frames = Vec::new();
        while frames.len() < 30 * BLOCK as usize {
            frames.push(Frame::zeroed().unwrap());
        }
        assert!(
            frames
                .iter()
                .all(|frame| frame.read_array::<8>(2048) == [0; 8])
        );
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
    fn pins_are_references_that_are_told_apart() {
        let frame = Frame::zeroed().unwrap();
        assert!(frame.is_unique() && frame.is_exclusive() && !frame.is_pinned());
        let pin = frame.pin();
        let again = pin.clone();
        assert!(!frame.is_unique() && frame.is_exclusive() && frame.is_pinned());
        let other = frame.clone();
        assert!(!frame.is_exclusive());
        drop((pin, other));
        assert!(frame.is_exclusive() && frame.is_pinned());
        let free = memory_use().free;
        drop(frame);
        assert_eq!(memory_use().free, free, "the pin keeps it");
        assert!(again.is_pinned());
        drop(again);
        assert_eq!(memory_use().free, free + 1);
        let pin = PinnedFrame::from(Frame::zeroed().unwrap());
        assert!(pin.is_unique() && pin.is_pinned());
        drop(pin);
        assert_eq!(memory_use().free, free + 1);
    }

    #[test]
    #[should_panic]
    fn a_read_beyond_the_page_is_refused() {
        Frame::zeroed().unwrap().read(4090, &mut [0; 7]);
    }
}
