//! Small free pieces of the kernel's heap, kept by a CPU for its own next allocations: so that most
//! need neither the heap's lock nor its search.
//!
//! A piece that is free holds the address of the next one of its class.

use core::alloc::Layout;
use core::ptr::NonNull;

/// Classes are multiples of this many bytes; every piece is aligned to it.
const GRAIN: usize = 16;
const CLASSES: usize = 32;
/// Bytes that one class may hold, and the pieces it may hold whatever their size.
const CLASS_BYTES: usize = 4096;

/// The heap itself.
pub(crate) trait Heap {
    /// A piece; `None` if there is no room.
    ///
    /// # Safety
    ///
    /// As [`alloc`](core::alloc::GlobalAlloc::alloc).
    unsafe fn allocate(&mut self, layout: Layout) -> Option<NonNull<u8>>;

    /// Takes a piece back.
    ///
    /// # Safety
    ///
    /// As [`dealloc`](core::alloc::GlobalAlloc::dealloc).
    unsafe fn free(&mut self, piece: NonNull<u8>, layout: Layout);
}

/// A size of pieces.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Class(usize);

impl Class {
    /// That of pieces for `layout`; `None` if these are too large or aligned too far.
    #[inline]
    pub(crate) fn of(layout: Layout) -> Option<Self> {
        let class = layout.size().wrapping_sub(1) / GRAIN;
        (class < CLASSES && layout.align() <= GRAIN).then_some(Self(class))
    }

    fn size(self) -> usize {
        (self.0 + 1) * GRAIN
    }

    fn layout(self) -> Layout {
        // SAFETY: the alignment is a power of two and the size small.
        unsafe { Layout::from_size_align_unchecked(self.size(), GRAIN) }
    }

    /// Pieces that are fetched or given back at a time; twice as many are kept at most.
    fn batch(self) -> usize {
        CLASS_BYTES / 2 / self.size()
    }
}

/// The free pieces of one class.
#[derive(Clone, Copy, Debug)]
struct List {
    first: Option<NonNull<u8>>,
    count: usize,
}

/// The free pieces of one CPU.
#[derive(Debug)]
pub(crate) struct HeapCache([List; CLASSES]);

impl HeapCache {
    /// One without pieces.
    pub(crate) const fn new() -> Self {
        Self(
            [List {
                first: None,
                count: 0,
            }; CLASSES],
        )
    }

    /// A piece of a class, from the heap that `heap` gives if there is none here; `None` if there is
    /// no room.
    #[inline]
    pub(crate) fn take<H: Heap>(
        &mut self,
        class: Class,
        heap: impl FnOnce() -> H,
    ) -> Option<NonNull<u8>> {
        let list = &mut self.0[class.0];
        if list.first.is_none() {
            list.fill(class, heap());
        }
        list.pop()
    }

    /// Takes a piece of a class back; many of them go to the heap that `heap` gives.
    ///
    /// # Safety
    ///
    /// The piece was taken from a cache of the same heap, and nobody uses it.
    #[inline]
    pub(crate) unsafe fn give<H: Heap>(
        &mut self,
        piece: NonNull<u8>,
        class: Class,
        heap: impl FnOnce() -> H,
    ) {
        let list = &mut self.0[class.0];
        // SAFETY: the caller's promise.
        unsafe { list.push(piece) };
        if list.count > 2 * class.batch() {
            list.shrink(class, heap());
        }
    }
}

impl List {
    #[inline]
    fn pop(&mut self) -> Option<NonNull<u8>> {
        let piece = self.first?;
        // SAFETY: a piece in the list is ours, aligned, and holds what `push` has written.
        self.first = unsafe { piece.cast::<Option<NonNull<u8>>>().read() };
        self.count -= 1;
        Some(piece)
    }

    /// # Safety
    ///
    /// The piece has the list's class and nobody uses it.
    #[inline]
    unsafe fn push(&mut self, piece: NonNull<u8>) {
        // SAFETY: the piece is ours now, aligned, and large enough for a pointer.
        unsafe { piece.cast::<Option<NonNull<u8>>>().write(self.first) };
        self.first = Some(piece);
        self.count += 1;
    }

    #[cold]
    fn fill(&mut self, class: Class, mut heap: impl Heap) {
        for _ in 0..class.batch() {
            // SAFETY: the layout has a size.
            let Some(piece) = (unsafe { heap.allocate(class.layout()) }) else {
                return;
            };
            // SAFETY: it is new.
            unsafe { self.push(piece) };
        }
    }

    #[cold]
    fn shrink(&mut self, class: Class, mut heap: impl Heap) {
        for _ in 0..class.batch() {
            let Some(piece) = self.pop() else { return };
            // SAFETY: `fill` has allocated it with this layout, here or on another CPU.
            unsafe { heap.free(piece, class.layout()) };
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::alloc::{alloc, dealloc};
    use std::cell::Cell;

    /// Counts what it has given out, up to a limit.
    struct Counting<'a>(&'a Cell<usize>, usize);

    impl Heap for Counting<'_> {
        unsafe fn allocate(&mut self, layout: Layout) -> Option<NonNull<u8>> {
            if self.0.get() == self.1 {
                return None;
            }
            self.0.set(self.0.get() + 1);
            // SAFETY: the caller's promise.
            NonNull::new(unsafe { alloc(layout) })
        }

        unsafe fn free(&mut self, piece: NonNull<u8>, layout: Layout) {
            self.0.set(self.0.get() - 1);
            // SAFETY: the caller's promise.
            unsafe { dealloc(piece.as_ptr(), layout) };
        }
    }

    fn class(size: usize) -> Class {
        Class::of(Layout::from_size_align(size, 8).unwrap()).unwrap()
    }

    #[test]
    fn classes_hold_what_belongs_to_them() {
        for size in 1..=GRAIN * CLASSES {
            assert!((size..size + GRAIN).contains(&class(size).size()), "{size}");
        }
        let of = |size, align| Class::of(Layout::from_size_align(size, align).unwrap());
        assert_eq!(of(GRAIN * CLASSES + 1, 8), None);
        assert_eq!(of(64, 32), None);
        assert_eq!(of(0, 1), None);
    }

    #[test]
    fn pieces_are_distinct_used_again_and_given_back() {
        let out = Cell::new(0);
        let heap = || Counting(&out, usize::MAX);
        let mut cache = HeapCache::new();
        for size in [16, 100, 512] {
            let class = class(size);
            let mut pieces: Vec<_> = (0..500).map(|_| cache.take(class, heap).unwrap()).collect();
            for (number, piece) in pieces.iter().enumerate() {
                // SAFETY: the piece is this test's, and as large.
                unsafe { piece.as_ptr().write_bytes(number as u8, class.size()) };
            }
            for (number, piece) in pieces.iter().enumerate() {
                // SAFETY: as above.
                let end = unsafe { piece.as_ptr().add(size - 1).read() };
                assert_eq!(end, number as u8);
            }
            let last = pieces[499];
            for piece in pieces.drain(..) {
                // SAFETY: it was taken above and is used no more.
                unsafe { cache.give(piece, class, heap) };
            }
            assert_eq!(cache.take(class, heap), Some(last));
            // SAFETY: as above.
            unsafe { cache.give(last, class, heap) };
            assert!(out.get() <= 2 * class.batch(), "{} are kept", out.get());
            while let Some(piece) = cache.0[class.0].pop() {
                // SAFETY: the cache has allocated it with this layout.
                unsafe { heap().free(piece, class.layout()) };
            }
            assert_eq!(out.get(), 0);
        }
    }

    #[test]
    fn a_full_heap_gives_what_it_has() {
        let out = Cell::new(0);
        let heap = || Counting(&out, 3);
        let mut cache = HeapCache::new();
        let pieces: Vec<_> = (0..3).filter_map(|_| cache.take(class(32), heap)).collect();
        assert_eq!(pieces.len(), 3);
        assert_eq!(cache.take(class(32), heap), None);
        for piece in pieces {
            // SAFETY: it was taken above and is used no more.
            unsafe { cache.give(piece, class(32), heap) };
        }
        while let Some(piece) = cache.0[class(32).0].pop() {
            // SAFETY: the cache has allocated it with this layout.
            unsafe { heap().free(piece, class(32).layout()) };
        }
    }
}
