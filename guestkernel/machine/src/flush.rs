//! Taking translations that were changed out of the TLBs.

use crate::backend;
use crate::frame::Frame;
use crate::page_table::Root;
use alloc::sync::Arc;
use alloc::vec::Vec;
use smallvec::SmallVec;

/// What takes a changed translation out of the TLBs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum FlushWay {
    /// INVLPG, loads of CR3 and interrupts.
    Invalidate = 0,
    /// Stores to the entries above it.
    Store = 1,
    /// Nothing: the control of a check.
    Nothing = 2,
}

impl FlushWay {
    /// The name, as in `ringlet.flush=NAME` on the command line.
    pub fn name(self) -> &'static str {
        match self {
            Self::Invalidate => "invalidate",
            Self::Store => "store",
            Self::Nothing => "nothing",
        }
    }
}

/// What each kind of [`Changed`] names at most.
const FEW: usize = 4;

/// Frames that were unmapped, kept until no CPU's TLB can know them.
///
/// Flushes when it is dropped, in one round for all CPUs; collect the changes of one system call in
/// one. All entries have been changed then.
#[must_use]
#[derive(Debug, Default)]
pub struct Flush {
    /// The tables that were changed.
    root: Option<Arc<Root>>,
    changed: Changed,
    frames: Vec<Frame>,
}

/// Which translations have changed: the pages, and by what their tables map, 2 MiB each, and the tables
/// above those, 1 GiB each.
#[derive(Debug, Default)]
pub(crate) struct Changed {
    pub(crate) pages: Few<12>,
    pub(crate) tables: Few<21>,
    pub(crate) directories: Few<30>,
    /// Whether a program may do less with some page than before, or sees another frame there.
    pub(crate) has_lost: bool,
}

/// Addresses without their low `SHIFT` bits, each once, as long as they are few.
#[derive(Debug, Default)]
pub(crate) struct Few<const SHIFT: u32> {
    known: SmallVec<[u64; FEW]>,
    has_more: bool,
}

impl<const SHIFT: u32> Few<SHIFT> {
    /// Adds `address`; false if it is known already.
    #[inline]
    fn add(&mut self, address: u64) -> bool {
        let address = address >> SHIFT << SHIFT;
        if self.known.last() == Some(&address) || self.known.contains(&address) {
            return false;
        }
        match self.known.len() < FEW {
            true => self.known.push(address),
            false => self.has_more = true,
        }
        true
    }

    /// All of them, unless they are too many.
    pub(crate) fn all(&self) -> Option<&[u64]> {
        (!self.has_more).then_some(&self.known)
    }
}

impl Flush {
    /// Nothing to flush yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// The translation of the page at `address`, which may be in TLBs, has changed in the tables of
    /// `root`.
    #[inline]
    pub(crate) fn note(&mut self, root: &Arc<Root>, address: u64) {
        if !matches!(&self.root, Some(known) if Arc::ptr_eq(known, root)) {
            self.flush();
            self.root = Some(root.clone());
        }
        let Changed {
            pages,
            tables,
            directories,
            has_lost,
        } = &mut self.changed;
        *has_lost = true;
        if pages.add(address) && tables.add(address) {
            directories.add(address);
        }
    }

    /// Keeps a frame until the flush is done.
    #[inline]
    pub(crate) fn keep(&mut self, frame: Frame) {
        self.frames.push(frame);
    }

    /// The program may do more with the page at `address` than before. A processor that knows it as it
    /// was faults once for nothing; taking it out saves these faults where they are many.
    #[inline]
    pub(crate) fn note_gain(&mut self, root: &Arc<Root>, address: u64) {
        let has_lost = self.changed.has_lost;
        self.note(root, address);
        self.changed.has_lost = has_lost;
    }

    fn flush(&mut self) {
        if let Some(root) = self.root.take() {
            backend::flush_tlb(&root, &self.changed);
            self.changed = Changed::default();
        }
    }
}

impl Drop for Flush {
    fn drop(&mut self) {
        self.flush();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn few_are_told_each_once() {
        let mut few = Few::<21>::default();
        for address in [0x20_0000, 0x3f_f000, 0x40_0000, 0x20_1000] {
            few.add(address);
        }
        assert_eq!(few.all(), Some(&[0x20_0000, 0x40_0000][..]));
        for table in 3..=FEW as u64 {
            few.add(table << 21);
        }
        assert!(few.all().is_some());
        few.add(9 << 21);
        assert!(few.all().is_none());
    }
}
