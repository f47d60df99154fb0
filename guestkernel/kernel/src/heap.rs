//! What programs may take of the kernel's heap.
//!
//! An allocation that fails ends the VM. So whatever makes an object that a program can have many
//! of, or large ones, asks here first, and fails with `ENOMEM` while a part of the heap is left
//! for everything that is small and short-lived.

use crate::error::{Errno, Result};

/// The part that is left, one in so many.
const RESERVE: usize = 8;

/// Whether `bytes` of objects for a program can be allocated.
///
/// # Errors
///
/// `ENOMEM`.
pub(crate) fn check(bytes: usize) -> Result<()> {
    let heap = machine::heap_use();
    match heap.free.checked_sub(bytes) {
        Some(left) if left >= heap.total / RESERVE => Ok(()),
        _ => Err(Errno::ENOMEM),
    }
}

/// Does `call` as if there were no more of the heap than the reserve.
#[cfg(test)]
pub(crate) fn exhausted<T>(call: impl FnOnce() -> T) -> T {
    use machine::hosted::heap::pretend_free;
    pretend_free(Some(machine::heap_use().total / RESERVE));
    let result = call();
    pretend_free(None);
    result
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reserve_is_left() {
        assert_eq!(check(1 << 30), Ok(()));
        let all = machine::heap_use().total;
        assert_eq!(check(all - all / RESERVE), Ok(()));
        assert_eq!(check(all - all / RESERVE + 1), Err(Errno::ENOMEM));
        assert_eq!(check(usize::MAX), Err(Errno::ENOMEM));
        assert_eq!(exhausted(|| check(0)), Ok(()));
        assert_eq!(exhausted(|| check(1)), Err(Errno::ENOMEM));
    }
}
