//! A program's page table: which page frame each of its pages shows, and what the program may do
//! with it. The table owns a reference to every frame it maps.
//!
//! The kernel reaches a program's memory only through these functions, which walk the table; it
//! never faults. Format: Intel SDM volume 3, section 5.5 (4-level paging).

use crate::backend;
use crate::flush::Flush;
use crate::frame::{Frame, OutOfMemory};
use crate::physical::{PAGE_SIZE, PhysAddr};
use alloc::sync::Arc;
use bitflags::bitflags;
use core::ops::Range;
use core::sync::atomic::{AtomicU64, Ordering};
use smallvec::SmallVec;

bitflags! {
    /// What a program may do with a page. x86 has no page that can be written or executed but
    /// not read: every page with some access is readable.
    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    pub struct Access: u8 {
        /// Loads.
        const READ = 1;
        /// Stores.
        const WRITE = 2;
        /// Instruction fetches.
        const EXECUTE = 4;
    }
}

/// The address of the first byte that the table does not show as the caller needs it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Missing {
    /// A program address.
    pub address: u64,
}

/// Why a page was not mapped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MapError {
    /// There is no frame for a table.
    OutOfMemory,
    /// Something is mapped there already.
    Occupied,
    /// The address does not belong to programs.
    BadAddress,
}

impl From<OutOfMemory> for MapError {
    fn from(_: OutOfMemory) -> Self {
        Self::OutOfMemory
    }
}

const PRESENT: u64 = 1;
const WRITABLE: u64 = 1 << 1;
const USER: u64 = 1 << 2;
const ACCESSED: u64 = 1 << 5;
const DIRTY: u64 = 1 << 6;
/// Software bit: the entry holds a frame, be it present or not.
const HELD: u64 = 1 << 9;
const NO_EXECUTE: u64 = 1 << 63;
const ADDRESS: u64 = 0x000f_ffff_ffff_f000;
const ENTRIES: usize = 512;
/// Bits of an entry that refers to another table. As if it had been used, so that neither a processor
/// nor a host that walks the tables has to note it; what the program may do is said at the last level
/// alone.
const TABLE: u64 = PRESENT | WRITABLE | USER | ACCESSED | HELD;
/// Program addresses are below this: the lower half less its last page, as on Linux.
const END: u64 = 0x7fff_ffff_f000;

/// The tables themselves, freed with all they map when the last user is gone: a CPU whose CR3
/// points here is one.
#[derive(Debug)]
pub(crate) struct Root {
    frame: Frame,
}

impl Root {
    pub(crate) fn address(&self) -> PhysAddr {
        self.frame.address()
    }

    /// The entry for `address` in its table of `level`: 3 is the root, 0 the last; `None` if there is
    /// no such table.
    pub(crate) fn entry(&self, address: u64, level: usize) -> Option<&AtomicU64> {
        let mut table = Table::of(&self.frame);
        for above in (level + 1..4).rev() {
            let value = table.entry_at(address, above).load(Ordering::Relaxed);
            if value & HELD == 0 {
                return None;
            }
            table = Table(PhysAddr(value & ADDRESS));
        }
        Some(table.entry_at(address, level))
    }
}

impl Drop for Root {
    fn drop(&mut self) {
        for index in 0..ENTRIES / 2 {
            free_table(self.frame.atomic_u64(index * 8), 3);
        }
    }
}

/// Frees what a table entry refers to: at level 0 a page, above a table with all below it. A table
/// leaves with all its entries cleared by stores of the CPU's: a host that keeps a shadow of it knows
/// the frame by its number.
fn free_table(entry: &AtomicU64, level: u32) {
    let value = entry.load(Ordering::Relaxed);
    if value & HELD == 0 {
        return;
    }
    entry.store(0, Ordering::Relaxed);
    // SAFETY: a held entry stands for one reference, and it was cleared above.
    let frame = unsafe { Frame::from_address(PhysAddr(value & ADDRESS)) };
    if level > 0 {
        for index in 0..ENTRIES {
            free_table(frame.atomic_u64(index * 8), level - 1);
        }
    }
}

/// How much of a long piece of work on a table is done in one go: so many entries are looked at.
#[derive(Clone, Copy, Debug)]
pub struct Portion(usize);

impl Portion {
    /// All of it.
    pub const ALL: Self = Self(usize::MAX);

    /// `entries` entries, and as many more as the last table has.
    pub const fn of(entries: usize) -> Self {
        Self(entries)
    }
}

/// The page table of one address space.
#[derive(Debug)]
pub struct PageTable {
    root: Arc<Root>,
    /// Pages that are mapped.
    resident: usize,
}

impl PageTable {
    /// An empty table.
    ///
    /// # Errors
    ///
    /// [`OutOfMemory`].
    pub fn new() -> Result<Self, OutOfMemory> {
        let frame = Frame::zeroed()?;
        backend::map_kernel(&frame);
        Ok(Self {
            root: Arc::new(Root { frame }),
            resident: 0,
        })
    }

    /// How many pages are mapped.
    pub fn resident(&self) -> usize {
        self.resident
    }

    /// A reference to the tables, for [`UserContext::run`](crate::UserContext::run).
    pub fn space(&self) -> Space {
        Space(self.root.clone())
    }

    /// Maps the page at `address` (rounded down) to `frame`. No access at all keeps the frame for
    /// a later [`protect`](Self::protect).
    ///
    /// # Errors
    ///
    /// [`MapError`].
    pub fn map(&mut self, address: u64, frame: Frame, access: Access) -> Result<(), MapError> {
        let table = self.table_for(address)?;
        let entry = table.entry(address);
        if entry.load(Ordering::Relaxed) & HELD != 0 {
            return Err(MapError::Occupied);
        }
        entry.store(leaf(frame, access), Ordering::Relaxed);
        self.resident += 1;
        Ok(())
    }

    /// Maps the page at `address` (rounded down) to `frame`, whatever it showed before.
    ///
    /// # Errors
    ///
    /// [`MapError::OutOfMemory`] and [`MapError::BadAddress`].
    pub fn replace(
        &mut self,
        address: u64,
        frame: Frame,
        access: Access,
        flush: &mut Flush,
    ) -> Result<(), MapError> {
        let table = self.table_for(address)?;
        let old = table
            .entry(address)
            .swap(leaf(frame, access), Ordering::Relaxed);
        if !take(flush, &self.root, address, old) {
            self.resident += 1;
        }
        Ok(())
    }

    /// Unmaps the pages of `range` (page aligned), a `portion` of them. Gives the address up to which
    /// it has.
    pub fn unmap(&mut self, range: Range<u64>, portion: Portion, flush: &mut Flush) -> u64 {
        let root = self.root.clone();
        let mut count = 0;
        let end = self.for_each_entry(range, portion, |address, entry| {
            let old = entry.load(Ordering::Relaxed);
            // What no processor can know is not changed by one.
            let old = match old & PRESENT {
                0 => {
                    entry.store(0, Ordering::Relaxed);
                    old
                }
                _ => entry.swap(0, Ordering::Relaxed),
            };
            take(flush, &root, address, old);
            count += 1;
        });
        self.resident -= count;
        end
    }

    /// The addresses of the pages of `range` (page aligned) that are mapped, unless they are more
    /// than `N`.
    pub fn mapped<const N: usize>(&mut self, range: Range<u64>) -> Option<SmallVec<[u64; N]>> {
        let mut pages = SmallVec::new();
        let mut count = 0;
        self.for_each_entry(range, Portion::ALL, |address, _| {
            count += 1;
            if count <= N {
                pages.push(address);
            }
        });
        (count <= N).then_some(pages)
    }

    /// Sets what the program may do with the pages of `range` (page aligned) that are mapped, a
    /// `portion` of them. `adjust` is told of each page's address and frame and gives its access: less
    /// than asked for where a write has to fault first. Gives the address up to which it has.
    pub fn protect(
        &mut self,
        range: Range<u64>,
        portion: Portion,
        flush: &mut Flush,
        mut adjust: impl FnMut(u64, &Frame) -> Access,
    ) -> u64 {
        let root = self.root.clone();
        self.for_each_entry(range, portion, |address, entry| {
            let old = entry.load(Ordering::Relaxed);
            // SAFETY: the entry keeps its reference; this second one is forgotten, not dropped.
            let frame = core::mem::ManuallyDrop::new(unsafe {
                Frame::from_address(PhysAddr(old & ADDRESS))
            });
            let access = adjust(address, &frame);
            let new = old & (ADDRESS | HELD) | bits(access);
            // Swapped, since a CPU may set ACCESSED meanwhile.
            let old = entry.swap(new, Ordering::Relaxed);
            if !access.contains(access_of(old)) {
                note(flush, &root, address, old);
            } else if access != access_of(old) && old & ACCESSED != 0 {
                flush.note_gain(&root, address);
            }
        })
    }

    /// Lets the program do `access`, which is no less than it may now, with the page at `address`
    /// (rounded down), if there is one. That needs no flush: a processor that still knows the page
    /// as it was faults once for nothing.
    pub fn grant(&mut self, address: u64, access: Access) {
        if let Some(entry) = self.leaf_entry(address) {
            let old = entry.load(Ordering::Relaxed);
            if old & HELD != 0 {
                debug_assert!(access.contains(access_of(old)));
                // Stored as a whole: whatever a processor notes meanwhile is in it already.
                let new = old & (ADDRESS | HELD) | bits(access);
                entry.swap(new, Ordering::Relaxed);
            }
        }
    }

    /// Has `child`, where nothing is mapped in `range` (page aligned), show the pages of `range`
    /// too, a `portion` of them, so that neither table allows stores to a page that both show. A page
    /// that is pinned where this table is its only owner stays as it is, and `child` gets what `copy`
    /// makes of it. Gives the address up to which it has.
    ///
    /// # Errors
    ///
    /// What `copy` gives, and [`OutOfMemory`] if there is no frame for a table; pages before that
    /// are in both.
    pub fn share_with<E: From<OutOfMemory>>(
        &mut self,
        child: &mut PageTable,
        range: Range<u64>,
        portion: Portion,
        flush: &mut Flush,
        mut copy: impl FnMut(&Frame) -> Result<Frame, E>,
    ) -> Result<u64, E> {
        let root = self.root.clone();
        self.for_each_table(range, portion, |start, entries| {
            let mut to = None;
            for (place, entry) in entries.enumerate() {
                let address = start + place as u64 * PAGE_SIZE as u64;
                let old = entry.load(Ordering::Relaxed);
                if old & HELD == 0 {
                    continue;
                }
                let to = match to {
                    Some(to) => to,
                    None => *to.insert(child.table_for(address).map_err(|_| OutOfMemory)?),
                };
                // SAFETY: the entry keeps its reference; this second one is forgotten, not dropped.
                let frame = core::mem::ManuallyDrop::new(unsafe {
                    Frame::from_address(PhysAddr(old & ADDRESS))
                });
                let shown = if frame.is_pinned() && frame.is_exclusive() {
                    let copied = copy(&frame)?;
                    copied.into_address().0 | old & !ADDRESS
                } else {
                    if old & WRITABLE != 0 {
                        // One step, since a processor may note an access meanwhile.
                        let old = entry.fetch_and(!(WRITABLE | DIRTY), Ordering::Relaxed);
                        note(flush, &root, address, old);
                    }
                    Frame::clone(&frame).into_address().0 | old & !(ADDRESS | WRITABLE | DIRTY)
                };
                to.entry(address).store(shown, Ordering::Relaxed);
                child.resident += 1;
            }
            Ok(())
        })
    }

    /// Moves the pages of `range` (page aligned), a `portion` of them, so that its first page comes to
    /// `to`, as `mremap` does; what is there goes. Gives the address up to which it has.
    ///
    /// # Errors
    ///
    /// [`MapError`]; pages before the one that failed have been moved, the others are where they were.
    pub fn relocate(
        &mut self,
        range: Range<u64>,
        to: u64,
        portion: Portion,
        flush: &mut Flush,
    ) -> Result<u64, MapError> {
        let root = self.root.clone();
        let mut moved: SmallVec<[(u64, u64); 8]> = SmallVec::new();
        let mut rest = range.clone();
        // By the table, so that no more is in the hand than a table has.
        let mut left = portion.0;
        while rest.start < rest.end && left > 0 {
            let before = rest.start;
            rest.start = self.for_each_entry(rest.clone(), Portion::of(1), |address, entry| {
                moved.push((address, entry.load(Ordering::Relaxed)));
            });
            left = left.saturating_sub(ENTRIES.min(((rest.start - before) >> 12) as usize));
            for (address, _) in moved.drain(..) {
                let at = address - range.start + to;
                let target = self.table_for(at)?;
                let Some(entry) = self.leaf_entry(address) else {
                    continue;
                };
                let value = entry.swap(0, Ordering::Relaxed);
                note(flush, &root, address, value);
                let old = target.entry(at).swap(value, Ordering::Relaxed);
                if take(flush, &root, at, old) {
                    self.resident -= 1;
                }
            }
        }
        Ok(rest.start)
    }

    /// The frame that the page at `address` (rounded down) shows, and what the program may do
    /// with it; `None` if nothing is mapped.
    pub fn lookup(&self, address: u64) -> Option<(Frame, Access)> {
        let value = self.leaf_entry(address)?.load(Ordering::Relaxed);
        if value & HELD == 0 {
            return None;
        }
        // SAFETY: the entry keeps its reference; this one is forgotten and a clone returned.
        let frame = unsafe { Frame::from_address(PhysAddr(value & ADDRESS)) };
        let clone = frame.clone();
        core::mem::forget(frame);
        Some((clone, access_of(value)))
    }

    /// What the program may do with the page at `address` (rounded down); `None` if nothing is
    /// mapped.
    #[inline]
    pub fn access(&self, address: u64) -> Option<Access> {
        let value = self.leaf_entry(address)?.load(Ordering::Relaxed);
        (value & HELD != 0).then(|| access_of(value))
    }

    /// The frame at `address`, if the program has `needed` access to it.
    ///
    /// # Errors
    ///
    /// [`Missing`].
    pub fn frame(&self, address: u64, needed: Access) -> Result<Frame, Missing> {
        match self.lookup(address) {
            Some((frame, access)) if access.contains(needed) => Ok(frame),
            _ => Err(Missing { address }),
        }
    }

    /// Copies program memory from `address` on into `out`.
    ///
    /// # Errors
    ///
    /// [`Missing`] with the first address that the program cannot read; what lies before it has
    /// been copied.
    #[inline]
    pub fn read(&self, address: u64, out: &mut [u8]) -> Result<(), Missing> {
        let mut done = 0;
        while done < out.len() {
            let at = address.wrapping_add(done as u64);
            let offset = at as usize % PAGE_SIZE;
            let count = (out.len() - done).min(PAGE_SIZE - offset);
            self.with_frame(at, Access::READ, |frame| {
                frame.read(offset, &mut out[done..done + count]);
            })?;
            done += count;
        }
        Ok(())
    }

    /// Copies `bytes` to program memory from `address` on.
    ///
    /// # Errors
    ///
    /// [`Missing`] with the first address that the program cannot write; what lies before it has
    /// been copied.
    #[inline]
    pub fn write(&self, address: u64, bytes: &[u8]) -> Result<(), Missing> {
        let mut done = 0;
        while done < bytes.len() {
            let at = address.wrapping_add(done as u64);
            let offset = at as usize % PAGE_SIZE;
            let count = (bytes.len() - done).min(PAGE_SIZE - offset);
            self.with_frame(at, Access::WRITE, |frame| {
                frame.write(offset, &bytes[done..done + count]);
            })?;
            done += count;
        }
        Ok(())
    }

    /// Calls `with` with the frame at `address`, without counting a reference.
    #[inline]
    pub fn with_frame<R>(
        &self,
        address: u64,
        needed: Access,
        with: impl FnOnce(&Frame) -> R,
    ) -> Result<R, Missing> {
        let value = self
            .leaf_entry(address)
            .map_or(0, |entry| entry.load(Ordering::Relaxed));
        if value & HELD == 0 || !access_of(value).contains(needed) {
            return Err(Missing { address });
        }
        // SAFETY: the entry keeps its reference for as long as `self` is borrowed, since
        // changing it takes `&mut self`; this second one is forgotten, not dropped.
        let frame =
            core::mem::ManuallyDrop::new(unsafe { Frame::from_address(PhysAddr(value & ADDRESS)) });
        Ok(with(&frame))
    }

    /// The last-level table for `address`, made if it is not there.
    fn table_for(&mut self, address: u64) -> Result<Table, MapError> {
        if address >= END {
            return Err(MapError::BadAddress);
        }
        let mut table = Table::of(&self.root.frame);
        for level in (1..4).rev() {
            let entry = table.entry_at(address, level);
            let value = entry.load(Ordering::Relaxed);
            table = if value & HELD == 0 {
                let next = Frame::zeroed()?.into_address();
                entry.store(next.0 | TABLE, Ordering::Relaxed);
                Table(next)
            } else {
                Table(PhysAddr(value & ADDRESS))
            };
        }
        Ok(table)
    }

    #[inline]
    fn leaf_entry(&self, address: u64) -> Option<&AtomicU64> {
        if address >= END {
            return None;
        }
        self.root.entry(address, 0)
    }

    /// Calls `each` for every held entry of a portion of the range, skipping tables that are not there.
    /// Gives the address up to which it has.
    fn for_each_entry(
        &mut self,
        range: Range<u64>,
        portion: Portion,
        mut each: impl FnMut(u64, &AtomicU64),
    ) -> u64 {
        let done = self.for_each_table(range, portion, |start, entries| {
            for (place, entry) in entries.enumerate() {
                if entry.load(Ordering::Relaxed) & HELD != 0 {
                    each(start + place as u64 * PAGE_SIZE as u64, entry);
                }
            }
            Ok::<_, core::convert::Infallible>(())
        });
        match done {
            Ok(end) => end,
            Err(never) => match never {},
        }
    }

    /// Calls `each` for every last-level table of a portion of the range that is there: with the first
    /// address of the range in it, and the entries from there on that are in the range. Gives the
    /// address up to which it has.
    fn for_each_table<E>(
        &mut self,
        range: Range<u64>,
        portion: Portion,
        mut each: impl FnMut(u64, Entries<'_>) -> Result<(), E>,
    ) -> Result<u64, E> {
        let mut address = range.start;
        let end = range.end.min(END);
        let mut left = portion.0;
        while address < end {
            if left == 0 {
                return Ok(address);
            }
            let mut table = Table::of(&self.root.frame);
            let mut level = 3;
            while level > 0 {
                let value = table.entry_at(address, level).load(Ordering::Relaxed);
                if value & HELD == 0 {
                    break;
                }
                table = Table(PhysAddr(value & ADDRESS));
                level -= 1;
            }
            // Where a table is missing, all that it would map is skipped.
            let span = (PAGE_SIZE as u64) << (9 * level.max(1));
            let next = (address & !(span - 1)).saturating_add(span).min(end);
            if level == 0 {
                let first = (address >> 12) as usize % ENTRIES;
                let count = ((next - address) / PAGE_SIZE as u64) as usize;
                left = left.saturating_sub(count);
                each(
                    address,
                    Entries {
                        table,
                        range: first..first + count,
                        owner: core::marker::PhantomData,
                    },
                )?;
            }
            left = left.saturating_sub(1);
            address = next;
        }
        Ok(range.end)
    }
}

/// Entries of a last-level table that follow each other.
struct Entries<'a> {
    table: Table,
    range: Range<usize>,
    /// Whose table it is, which must not go meanwhile.
    owner: core::marker::PhantomData<&'a PageTable>,
}

impl<'a> Iterator for Entries<'a> {
    type Item = &'a AtomicU64;

    fn next(&mut self) -> Option<Self::Item> {
        let index = self.range.next()?;
        Some(self.table.entry((index as u64) << 12))
    }
}

/// The entry of the page at `address` held `old` before it was overwritten.
fn note(flush: &mut Flush, root: &Arc<Root>, address: u64, old: u64) {
    // A translation that was never used is in no TLB.
    if old & ACCESSED != 0 {
        flush.note(root, address);
    }
}

/// As [`note`], and takes the frame out of `old`; whether there was one.
fn take(flush: &mut Flush, root: &Arc<Root>, address: u64, old: u64) -> bool {
    let is_held = old & HELD != 0;
    if is_held {
        note(flush, root, address, old);
        // SAFETY: the entry stood for one reference and is gone.
        flush.keep(unsafe { Frame::from_address(PhysAddr(old & ADDRESS)) });
    }
    is_held
}

/// An address space to run a program in.
#[derive(Clone, Debug)]
pub struct Space(pub(crate) Arc<Root>);

/// A table that some [`Root`] owns.
#[derive(Clone, Copy)]
struct Table(PhysAddr);

impl Table {
    fn of(root: &Frame) -> Self {
        Self(root.address())
    }

    fn entry<'a>(self, address: u64) -> &'a AtomicU64 {
        self.entry_at(address, 0)
    }

    fn entry_at<'a>(self, address: u64, level: usize) -> &'a AtomicU64 {
        let index = (address >> (12 + 9 * level)) as usize % ENTRIES;
        let pointer = crate::physical::pointer(self.0).wrapping_add(index * 8);
        // SAFETY: tables are frames that the root owns until it is dropped, and callers keep the
        // entry no longer than they borrow the page table; all accesses to tables are atomic.
        unsafe { AtomicU64::from_ptr(pointer.cast()) }
    }
}

fn bits(access: Access) -> u64 {
    if access.is_empty() {
        return 0;
    }
    // As if the page had been used, which most are soon: a processor then need not note it. Where
    // the host keeps a shadow of the table it makes the entries of eight such neighbours at a time.
    let mut bits = PRESENT | USER | ACCESSED;
    if access.contains(Access::WRITE) {
        bits |= WRITABLE | DIRTY;
    }
    if !access.contains(Access::EXECUTE) {
        bits |= NO_EXECUTE;
    }
    bits
}

fn access_of(value: u64) -> Access {
    if value & PRESENT == 0 {
        return Access::empty();
    }
    let mut access = Access::READ;
    access.set(Access::WRITE, value & WRITABLE != 0);
    access.set(Access::EXECUTE, value & NO_EXECUTE == 0);
    access
}

fn leaf(frame: Frame, access: Access) -> u64 {
    frame.into_address().0 | HELD | bits(access)
}

#[cfg(test)]
mod tests;
