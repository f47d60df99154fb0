//! The kernel's heap: a range of RAM set aside at boot.
//!
//! Programs cannot take memory from it directly, so that the kernel can go on when they have used
//! up all frames. What it holds for them is limited by who allocates it: [`heap_use`] tells how
//! much is left.

use crate::HeapUse;
use talc::TalcLock;
use talc::source::Manual;

#[global_allocator]
static HEAP: TalcLock<spin::Mutex<()>, Manual> = TalcLock::new(Manual);

/// Gives the heap its memory.
///
/// # Safety
///
/// The range must be valid, and belong to nobody else from now on.
pub(super) unsafe fn initialise(start: *mut u8, size: usize) {
    // SAFETY: the caller's promise.
    let claimed = unsafe { HEAP.lock().claim(start, size) };
    assert!(claimed.is_some(), "the heap is too small");
}

/// How much of the heap there is and how much is free.
pub fn heap_use() -> HeapUse {
    let heap = HEAP.lock();
    let counters = heap.counters();
    HeapUse {
        total: counters.claimed_bytes,
        free: counters.available_bytes,
    }
}
