//! The heap is the host's, and as good as endless unless a test says how much is left.

use crate::HeapUse;
use std::cell::Cell;

const TOTAL: usize = 1 << 40;

thread_local! {
    static FREE: Cell<usize> = const { Cell::new(TOTAL) };
}

/// Has [`heap_use`] tell this thread that so many bytes are free; `None` for all.
pub fn pretend_free(bytes: Option<usize>) {
    FREE.set(bytes.unwrap_or(TOTAL));
}

/// How much of the heap there is and how much is free.
pub fn heap_use() -> HeapUse {
    HeapUse {
        total: TOTAL,
        free: FREE.get(),
    }
}
