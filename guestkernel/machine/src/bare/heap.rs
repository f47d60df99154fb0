//! The kernel's heap: a range of RAM set aside at boot.
//!
//! Programs cannot take memory from it directly, so that the kernel can go on when they have used
//! up all frames. What it holds for them is limited by who allocates it: [`heap_use`] tells how
//! much is left.

use super::per_cpu;
use crate::HeapUse;
use crate::heap_cache::{Class, Heap, HeapCache};
use crate::lock::{MutexGuard, RawLock};
use core::alloc::{GlobalAlloc, Layout};
use core::ptr::{self, NonNull};
use talc::TalcLock;
use talc::base::Talc;
use talc::base::binning::DefaultBinning;
use talc::source::Manual;

static HEAP: TalcLock<RawLock, Manual> = TalcLock::new(Manual);

impl Heap for MutexGuard<'_, Talc<Manual, DefaultBinning>> {
    unsafe fn allocate(&mut self, layout: Layout) -> Option<NonNull<u8>> {
        // SAFETY: the caller's promise.
        unsafe { Talc::allocate(self, layout) }
    }

    unsafe fn free(&mut self, piece: NonNull<u8>, layout: Layout) {
        // SAFETY: the caller's promise.
        unsafe { Talc::deallocate(self, piece.as_ptr(), layout) }
    }
}

/// The heap, with what the CPUs keep of it.
struct CachedHeap;

#[global_allocator]
static ALLOCATOR: CachedHeap = CachedHeap;

/// This CPU's pieces.
///
/// # Safety
///
/// The reference must be gone before the next call.
#[inline]
unsafe fn cache<'a>() -> &'a mut HeapCache {
    // SAFETY: a field that only this CPU's kernel uses, which is never preempted; reports that an
    // NMI or a panic prints allocate nothing.
    unsafe { &mut (*per_cpu::current()).heap }
}

// SAFETY: pieces come from the heap and belong to one owner at a time.
unsafe impl GlobalAlloc for CachedHeap {
    #[inline]
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        match Class::of(layout) {
            // SAFETY: the reference ends with the call.
            Some(class) => unsafe { cache() }
                .take(class, || HEAP.lock())
                .map_or(ptr::null_mut(), NonNull::as_ptr),
            // SAFETY: the caller's promise.
            None => unsafe { HEAP.alloc(layout) },
        }
    }

    #[inline]
    unsafe fn dealloc(&self, piece: *mut u8, layout: Layout) {
        match (Class::of(layout), NonNull::new(piece)) {
            // SAFETY: `alloc` has taken it from a cache, and the caller's promise.
            (Some(class), Some(piece)) => unsafe { cache().give(piece, class, || HEAP.lock()) },
            // SAFETY: `alloc` has had it from there.
            _ => unsafe { HEAP.dealloc(piece, layout) },
        }
    }

    unsafe fn realloc(&self, piece: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        // SAFETY: the caller's promise.
        let new = unsafe { Layout::from_size_align_unchecked(size, layout.align()) };
        match (Class::of(layout), Class::of(new)) {
            (Some(old), Some(new)) if old == new => return piece,
            // SAFETY: it came from there, and the caller's promise.
            (None, None) => return unsafe { HEAP.realloc(piece, layout, size) },
            _ => {}
        }
        // SAFETY: the caller's promise.
        let moved = unsafe { self.alloc(new) };
        if !moved.is_null() {
            // SAFETY: both have so many bytes, and the new one is nobody else's.
            unsafe { ptr::copy_nonoverlapping(piece, moved, size.min(layout.size())) };
            // SAFETY: the caller's promise.
            unsafe { self.dealloc(piece, layout) };
        }
        moved
    }
}

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

/// How much of the heap there is and how much is free. What CPUs keep counts as used: some dozen KiB
/// each, and 128 KiB at most.
pub fn heap_use() -> HeapUse {
    let heap = HEAP.lock();
    let counters = heap.counters();
    HeapUse {
        total: counters.claimed_bytes,
        free: counters.available_bytes,
    }
}
