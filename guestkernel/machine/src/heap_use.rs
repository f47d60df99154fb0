//! How full the kernel's heap is.

/// Bytes of the kernel's heap.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HeapUse {
    /// All there are.
    pub total: usize,
    /// Those that are not allocated, in whatever pieces.
    pub free: usize,
}
