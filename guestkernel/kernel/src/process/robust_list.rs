//! Robust futexes: those that a thread holds when it ends are marked and somebody who waits is
//! woken (Linux `Documentation/locking/robust-futexes.rst`).

use super::futex::{ALL_BITS, Futex};
use crate::error::{Errno, Result};
use crate::mm::{Access, AddressSpace};
use alloc::sync::Arc;
use core::sync::atomic::{AtomicU32, Ordering};
use linux_raw_sys::general as raw;

/// Entries that are looked at, so that a circle ends.
const LIMIT: usize = 2048;
/// The lowest bit of an entry's address marks a priority-inheriting futex.
const PI: u64 = 1;

/// The list of a thread.
struct List<'a> {
    space: &'a Arc<AddressSpace>,
    tid: u32,
    /// From an entry to its futex.
    offset: u64,
}

/// Releases what is in the list with its head at `head`, of the thread `tid` that ends. A list
/// that makes no sense is left where it stops to.
pub(super) async fn release(space: &Arc<AddressSpace>, head: u64, tid: u32) {
    if head != 0 {
        // The thread has ended: there is nobody to tell. What was released is not released again.
        let _ = space.retry(|| walk(space, head, tid)).await;
    }
}

fn walk(space: &Arc<AddressSpace>, head: u64, tid: u32) -> Result<()> {
    let word = |index: u64| space.read_value::<u64>(head.wrapping_add(index * 8));
    let list = List {
        space,
        tid,
        offset: word(1)?,
    };
    let pending = word(2)?;
    let mut entry = word(0)?;
    for _ in 0..LIMIT {
        if entry & !PI == head {
            break;
        }
        // Before the entry is released: then it may be gone at once.
        let next = space.read_value::<u64>(entry & !PI);
        // What was being locked or unlocked may be in the list or not.
        if entry & !PI != pending & !PI {
            list.release(entry, false)?;
        }
        entry = next?;
    }
    if pending != 0 {
        list.release(pending, true)?;
    }
    Ok(())
}

impl List<'_> {
    fn release(&self, entry: u64, is_pending: bool) -> Result<()> {
        let address = (entry & !PI).wrapping_add(self.offset);
        if !address.is_multiple_of(4) {
            return Err(Errno::EINVAL);
        }
        let is_pi = entry & PI != 0;
        let load = |word: &AtomicU32| word.load(Ordering::SeqCst);
        let value = self.space.with_u32(address, Access::READ, load)?;
        if is_pending && !is_pi && value & raw::FUTEX_TID_MASK == 0 {
            // It was released, and the wake-up perhaps not sent.
            Futex::new(self.space, address, false)?.wake(1, ALL_BITS)?;
            return Ok(());
        }
        let died = |value| {
            let is_own = value & raw::FUTEX_TID_MASK == self.tid;
            is_own.then_some(value & raw::FUTEX_WAITERS | raw::FUTEX_OWNER_DIED)
        };
        let before = self.space.with_u32(address, Access::WRITE, |word| {
            word.fetch_update(Ordering::SeqCst, Ordering::SeqCst, died)
        })?;
        if !is_pi && before.is_ok_and(|value| value & raw::FUTEX_WAITERS != 0) {
            Futex::new(self.space, address, false)?.wake(1, ALL_BITS)?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::mm::MapRequest;

    const TID: u32 = 77;

    /// A page with a list head at its start, which names the entries at the offsets given; their
    /// futexes are 8 bytes behind them.
    fn page(entries: &[u64], pending: u64) -> (Arc<AddressSpace>, u64) {
        let space = AddressSpace::new().unwrap();
        let access = Access::READ | Access::WRITE;
        let page = space.map(MapRequest::anonymous(4096, access)).unwrap();
        let mut at = page;
        for entry in entries.iter().map(|offset| page + offset).chain([page]) {
            space.write_value(at, &entry).unwrap();
            at = entry & !PI;
        }
        space.write_value(page + 8, &8_u64).unwrap();
        let pending = if pending == 0 { 0 } else { page + pending };
        space.write_value(page + 16, &pending).unwrap();
        (space, page)
    }

    #[test]
    fn what_the_thread_holds_is_marked_and_waiters_are_woken() {
        let (space, page) = page(&[0x100, 0x200, 0x301], 0x400);
        let set = |offset: u64, value: u32| space.write_value(page + offset, &value).unwrap();
        let get = |offset: u64| space.read_value::<u32>(page + offset).unwrap();
        set(0x108, TID);
        set(0x208, raw::FUTEX_WAITERS | (TID + 1));
        set(0x308, raw::FUTEX_WAITERS | TID);
        set(0x408, raw::FUTEX_WAITERS | TID);
        let futex = Futex::new(&space, page + 0x408, false).unwrap();
        let waiting = futex.wait(raw::FUTEX_WAITERS | TID, ALL_BITS).unwrap();
        crate::executor::block_on(release(&space, page, TID));
        assert_eq!(get(0x108), raw::FUTEX_OWNER_DIED);
        assert_eq!(get(0x208), raw::FUTEX_WAITERS | (TID + 1));
        let died = raw::FUTEX_OWNER_DIED | raw::FUTEX_WAITERS;
        assert_eq!((get(0x308), get(0x408)), (died, died));
        assert!(waiting.give_up());
    }

    #[test]
    fn a_lock_released_without_its_wake_up_is_woken() {
        let (space, page) = page(&[], 0x100);
        let futex = Futex::new(&space, page + 0x108, false).unwrap();
        let waiting = futex.wait(0, ALL_BITS).unwrap();
        crate::executor::block_on(release(&space, page, TID));
        assert!(waiting.give_up());
        assert_eq!(space.read_value::<u32>(page + 0x108), Ok(0));
    }

    #[test]
    fn a_list_that_makes_no_sense_ends() {
        let (space, page) = page(&[0x100, 0x200], 0);
        space.write_value(page + 0x200, &(page + 0x100)).unwrap();
        space.write_value(page + 0x108, &TID).unwrap();
        crate::executor::block_on(release(&space, page, TID));
        assert_eq!(
            space.read_value::<u32>(page + 0x108),
            Ok(raw::FUTEX_OWNER_DIED)
        );
        crate::executor::block_on(release(&space, 8, TID));
        crate::executor::block_on(release(&space, u64::MAX - 3, TID));
    }
}
