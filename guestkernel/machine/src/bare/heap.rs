//! The kernel's heap: a range of RAM set aside at boot.
//!
//! Programs cannot take memory from it directly, so that the kernel can go on when they have used
//! up all frames. What it holds for them is limited by who allocates it: [`heap_use`] tells how
//! much is left.

use crate::HeapUse;
use crate::lock::RawLock;
use talc::TalcLock;
use talc::source::Manual;

/// The heap's lock, in the form that the allocator takes.
struct HeapLock(RawLock);

// SAFETY: `RawLock` is held by one at a time.
unsafe impl lock_api::RawMutex for HeapLock {
    const INIT: Self = Self(RawLock::new());

    type GuardMarker = lock_api::GuardNoSend;

    #[inline]
    #[track_caller]
    fn lock(&self) {
        self.0.lock();
    }

    #[inline]
    #[track_caller]
    fn try_lock(&self) -> bool {
        self.0.try_lock()
    }

    #[inline]
    unsafe fn unlock(&self) {
        // SAFETY: the caller's promise.
        unsafe { self.0.unlock() };
    }
}

#[global_allocator]
static HEAP: TalcLock<HeapLock, Manual> = TalcLock::new(Manual);

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
