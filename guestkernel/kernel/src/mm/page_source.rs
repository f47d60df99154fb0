//! What a mapping shows: the contents of a file, the pages of a ring, memory that is shared.

use super::address_space::AddressSpace;
use super::fault::take;
use crate::error::Result;
use crate::executor::{Answer, BoxFuture};
use crate::heap;
use alloc::boxed::Box;
use alloc::collections::BTreeMap;
use alloc::sync::Weak;
use alloc::vec::Vec;
use machine::Frame;
use machine::lock::Mutex;

/// Something that has pages which programs can map.
///
/// The address space calls these functions without a lock of its own. They may take locks, so
/// nobody may hold one of those while he copies from or to a program's memory, since that can
/// end up here.
pub trait PageSource: Send + Sync {
    /// The page with number `index`. Every call for the same page gives the same frame, as long
    /// as the page exists, so that all who map it see the same bytes. `for_write` tells that the
    /// program may change it through a shared mapping.
    ///
    /// # Errors
    ///
    /// Any error means that there is no such page (beyond the end, or it cannot be read): the
    /// program gets SIGBUS, a system call `EFAULT`. `ENOMEM` is the exception.
    fn page(&self, index: u64, for_write: bool) -> Answer<'_, Frame>;

    /// As [`page`](Self::page) where that is ready at once; `None` where it takes time, which this
    /// does not start. Sources whose pages take time give it without making a future.
    fn page_now(&self, index: u64, for_write: bool) -> Option<Result<Frame>> {
        self.page(index, for_write).now()
    }

    /// Whether a mapping may start at page `first`.
    ///
    /// # Errors
    ///
    /// What `mmap(2)` then gives.
    fn check_start(&self, _first: u64) -> Result<()> {
        Ok(())
    }

    /// Makes durable what was written to the pages from number `first` to before `end`
    /// (`msync(2)`).
    ///
    /// # Errors
    ///
    /// `EIO`, `ENOSPC` and their like.
    fn sync(&self, _first: u64, _end: u64) -> BoxFuture<'_, Result<()>> {
        Box::pin(core::future::ready(Ok(())))
    }

    /// Who maps it, if pages can leave it.
    fn mappers(&self) -> Option<&Mappers> {
        None
    }

    /// Whether it has to know which pages programs change, since it writes them back somewhere: a
    /// page is then writable in a shared mapping only when it is written, not when it is read.
    fn notes_writes(&self) -> bool {
        false
    }
}

/// The address spaces that map a source, so that a page that leaves it leaves them too.
#[derive(Debug, Default)]
pub struct Mappers(Mutex<Vec<Weak<AddressSpace>>>);

impl Mappers {
    /// Adds `space`, once.
    pub(super) fn add(&self, space: &Weak<AddressSpace>) {
        let mut spaces = self.0.lock();
        if !spaces.iter().any(|other| other.ptr_eq(space)) {
            spaces.retain(|other| other.strong_count() > 0);
            spaces.push(space.clone());
        }
    }

    /// Takes the pages of `source` from number `first` to before `end` out of all mappings, for
    /// which they are new at the next access. Copies that private mappings have go too if
    /// `with_copies`.
    pub fn forget(&self, source: &dyn PageSource, (first, end): (u64, u64), with_copies: bool) {
        let spaces = self.0.lock().clone();
        for space in spaces.iter().filter_map(Weak::upgrade) {
            space.forget(source, first..end, with_copies);
        }
    }
}

/// Bytes of the kernel's heap that one more page may take: a node of the tree.
const PAGE_COST: usize = 512;

/// Anonymous memory that is shared (`MAP_SHARED | MAP_ANONYMOUS`): it belongs to all mappings.
#[derive(Default)]
pub struct SharedMemory {
    pages: Mutex<BTreeMap<u64, Frame>>,
}

impl PageSource for SharedMemory {
    fn page(&self, index: u64, _for_write: bool) -> Answer<'_, Frame> {
        Answer::ready(self.get(index))
    }
}

impl SharedMemory {
    fn get(&self, index: u64) -> Result<Frame> {
        let mut pages = self.pages.lock();
        if let Some(frame) = pages.get(&index) {
            return Ok(frame.clone());
        }
        heap::check(PAGE_COST)?;
        let frame = take(Frame::zeroed)?;
        pages.insert(index, frame.clone());
        Ok(frame)
    }
}
