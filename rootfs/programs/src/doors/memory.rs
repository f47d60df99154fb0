//! Memory at addresses that are the same in every run, with places that fault.

use std::ops::Range;

use crate::sys;
use crate::sys::SysResult;
use libc::{MAP_ANONYMOUS, MAP_FIXED_NOREPLACE, MAP_PRIVATE, PROT_NONE, PROT_READ, PROT_WRITE};

use super::argument::Memory;

const BASE: usize = 0x20_0000_0000;
/// Where operations find what they read and write.
const ROOM: Range<usize> = BASE..BASE + (1 << 20);
/// The page before the first that is not mapped.
const EDGE: Range<usize> = BASE + 0x20_0000..BASE + 0x20_1000;
const SHARED: Range<usize> = BASE + 0x24_0000..BASE + 0x24_1000;
/// A page of zeros that can only be read.
pub const READ_ONLY: Memory = Memory::At(0x20_0021_0000);
/// A page without rights.
pub const NO_ACCESS: Memory = Memory::At(0x20_0022_0000);
/// An address where nothing is mapped.
pub const UNMAPPED: Memory = Memory::At(0x20_0023_0000);
/// An address where mappings of a case may be made: nothing is there, 1 MiB around.
pub const FIXED: Memory = Memory::At(0x20_1000_0000);
/// A page to read and write that nobody uses otherwise.
pub const EMPTY_PAGE: Memory = Memory::At(0x20_0025_0000);

/// What fresh memory holds: a byte that nothing else puts there.
pub(super) const FRESH: u8 = 0xa5;

/// The memory.
pub struct Arena {
    next: usize,
}

impl Arena {
    /// Maps it; there is one in a program.
    ///
    /// # Errors
    ///
    /// Those of `mmap(2)`.
    pub fn new() -> SysResult<Self> {
        let writable = PROT_READ | PROT_WRITE;
        let Memory::At(empty) = EMPTY_PAGE else {
            return Err(sys::Errno(libc::EINVAL));
        };
        let empty = empty as usize..empty as usize + 4096;
        for range in [ROOM, EDGE, SHARED, empty] {
            map(range.start, range.len(), writable)?;
        }
        for (memory, protection) in [(READ_ONLY, PROT_READ), (NO_ACCESS, PROT_NONE)] {
            if let Memory::At(address) = memory {
                map(address as usize, 4096, protection)?;
            }
        }
        let mut arena = Self { next: ROOM.end };
        arena.reset();
        Ok(arena)
    }

    /// Makes everything fresh again.
    pub fn reset(&mut self) {
        fill(ROOM.start..self.next, FRESH);
        fill(EDGE, FRESH);
        fill(SHARED, 0);
        self.next = ROOM.start;
    }

    /// A place for so many bytes. What does not fit any more is given the last place again.
    pub fn place(&mut self, length: usize) -> usize {
        let start = self.next.next_multiple_of(64);
        let end = start.saturating_add(length);
        if end > ROOM.end {
            return ROOM.end - length.min(ROOM.len());
        }
        self.next = end;
        start
    }

    /// A place at a multiple of the page size.
    pub fn place_page(&mut self, length: usize) -> usize {
        self.next = self.next.next_multiple_of(4096);
        self.place(length)
    }

    /// The place for so many bytes, at most a page, that end where nothing is mapped.
    pub fn edge(length: usize) -> usize {
        EDGE.end - length.min(EDGE.len())
    }

    /// The shared word with that number, modulo the 64 that there are.
    pub fn shared(index: usize) -> usize {
        SHARED.start + index % 64 * 64
    }

    /// Where operations find what they read and write.
    pub fn range() -> Range<usize> {
        ROOM
    }

    /// Writes bytes to a place of the arena.
    pub fn put(address: usize, bytes: &[u8]) {
        let pointer = std::ptr::with_exposed_provenance_mut::<u8>(address);
        for (index, byte) in bytes.iter().enumerate() {
            // SAFETY: the callers pass places that this arena has given, which stay mapped and
            // which nothing of Rust's is in.
            unsafe { pointer.wrapping_add(index).write_volatile(*byte) };
        }
    }

    /// Reads bytes from a place of the arena.
    pub fn get(address: usize, length: usize) -> Vec<u8> {
        let pointer = std::ptr::with_exposed_provenance::<u8>(address);
        (0..length)
            // SAFETY: as in `put`.
            .map(|index| unsafe { pointer.wrapping_add(index).read_volatile() })
            .collect()
    }
}

fn map(address: usize, length: usize, protection: i32) -> SysResult {
    let flags = MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED_NOREPLACE;
    sys!(SYS_mmap, address, length, protection, flags, -1, 0)
}

fn fill(range: Range<usize>, byte: u8) {
    let pointer = std::ptr::with_exposed_provenance_mut::<u8>(range.start);
    // SAFETY: the ranges are of the arena, mapped to be written, and nothing of Rust's is there.
    unsafe { pointer.write_bytes(byte, range.len()) };
}
