//! The memory functions that the compiler calls. Small sizes are the common ones: they are done
//! with a few overlapping loads and stores; large ones with the string instructions, in units of
//! 8 bytes: a processor does that as fast as by bytes, and an emulator does it one by one.

use core::arch::asm;
use core::arch::x86_64::{__m128i, _mm_loadu_si128, _mm_set1_epi8, _mm_storeu_si128};

/// Up to this many bytes are copied in 16-byte units.
const STRING_THRESHOLD: usize = 256;

macro_rules! copy_overlapping {
    ($unit:ty, $to:ident, $from:ident, $count:ident) => {{
        // SAFETY: the count is between one and two units, so both accesses lie in the ranges;
        // both loads come before both stores, so the ranges may overlap.
        unsafe {
            let last = $count - size_of::<$unit>();
            let head = $from.cast::<$unit>().read_unaligned();
            let tail = $from.add(last).cast::<$unit>().read_unaligned();
            $to.cast::<$unit>().write_unaligned(head);
            $to.add(last).cast::<$unit>().write_unaligned(tail);
        }
    }};
}

/// Copies fewer than 33 bytes; the ranges may overlap.
#[inline(always)]
unsafe fn copy_small(to: *mut u8, from: *const u8, count: usize) {
    match count {
        0 => {}
        // SAFETY: there is one byte.
        1 => unsafe { *to = *from },
        2..=3 => copy_overlapping!(u16, to, from, count),
        4..=7 => copy_overlapping!(u32, to, from, count),
        8..=15 => copy_overlapping!(u64, to, from, count),
        _ => copy_overlapping!(__m128i, to, from, count),
    }
}

/// Copies 8 bytes or more, upwards: the ranges may overlap if `to` is the lower one.
#[inline(always)]
unsafe fn copy_large(to: *mut u8, from: *const u8, count: usize) {
    // SAFETY: the caller's promise for both ranges; the accesses to the last 8 bytes, which the
    // string instruction may leave out in part, lie in them.
    unsafe {
        let last = count - 8;
        let tail = from.add(last).cast::<u64>().read_unaligned();
        asm!("rep movsq", inout("rcx") count / 8 => _, inout("rsi") from => _,
             inout("rdi") to => _, options(nostack, preserves_flags));
        to.add(last).cast::<u64>().write_unaligned(tail);
    }
}

/// C's `memcpy`.
///
/// # Safety
///
/// As in C.
#[unsafe(no_mangle)]
pub(super) unsafe extern "C" fn memcpy(to: *mut u8, from: *const u8, count: usize) -> *mut u8 {
    // SAFETY: the caller's promise for both ranges; each access lies in them.
    unsafe {
        if count <= 32 {
            copy_small(to, from, count);
        } else if count <= STRING_THRESHOLD {
            let last = count - 16;
            let tail = _mm_loadu_si128(from.add(last).cast());
            let mut at = 0;
            while at < last {
                let unit = _mm_loadu_si128(from.add(at).cast());
                _mm_storeu_si128(to.add(at).cast(), unit);
                at += 16;
                // Keeps the compiler from making a call of memcpy out of this loop.
                asm!("", options(nomem, nostack, preserves_flags));
            }
            _mm_storeu_si128(to.add(last).cast(), tail);
        } else {
            copy_large(to, from, count);
        }
    }
    to
}

/// C's `memmove`.
///
/// # Safety
///
/// As in C.
#[unsafe(no_mangle)]
pub(super) unsafe extern "C" fn memmove(to: *mut u8, from: *const u8, count: usize) -> *mut u8 {
    // SAFETY: the caller's promise for both ranges.
    unsafe {
        if count <= 32 {
            copy_small(to, from, count);
        } else if (to as usize).wrapping_sub(from as usize) >= count {
            // A forward copy never reads what it has overwritten.
            copy_large(to, from, count);
        } else {
            let mut at = count;
            while at >= 16 {
                at -= 16;
                let unit = _mm_loadu_si128(from.add(at).cast());
                _mm_storeu_si128(to.add(at).cast(), unit);
                asm!("", options(nomem, nostack, preserves_flags));
            }
            copy_small(to, from, at);
        }
    }
    to
}

/// C's `memset`.
///
/// # Safety
///
/// As in C.
#[unsafe(no_mangle)]
pub(super) unsafe extern "C" fn memset(to: *mut u8, value: i32, count: usize) -> *mut u8 {
    // SAFETY: the caller's promise for the range.
    unsafe {
        if count < 16 {
            let mut at = 0;
            while at < count {
                to.add(at).write(value as u8);
                at += 1;
                asm!("", options(nomem, nostack, preserves_flags));
            }
        } else if count <= STRING_THRESHOLD {
            let unit = _mm_set1_epi8(value as i8);
            let last = count - 16;
            let mut at = 0;
            while at < last {
                _mm_storeu_si128(to.add(at).cast(), unit);
                at += 16;
                asm!("", options(nomem, nostack, preserves_flags));
            }
            _mm_storeu_si128(to.add(last).cast(), unit);
        } else {
            let unit = u64::from_ne_bytes([value as u8; 8]);
            to.add(count - 8).cast::<u64>().write_unaligned(unit);
            asm!("rep stosq", inout("rcx") count / 8 => _, in("rax") unit,
                 inout("rdi") to => _, options(nostack, preserves_flags));
        }
    }
    to
}

/// C's `memcmp`.
///
/// # Safety
///
/// As in C.
#[unsafe(no_mangle)]
pub(super) unsafe extern "C" fn memcmp(left: *const u8, right: *const u8, count: usize) -> i32 {
    let mut at = 0;
    // SAFETY: the caller's promise for both ranges; each access lies in them.
    unsafe {
        while at + 8 <= count {
            let a = left.add(at).cast::<u64>().read_unaligned();
            let b = right.add(at).cast::<u64>().read_unaligned();
            if a != b {
                return if a.swap_bytes() < b.swap_bytes() {
                    -1
                } else {
                    1
                };
            }
            at += 8;
        }
        while at < count {
            let (a, b) = (*left.add(at), *right.add(at));
            if a != b {
                return i32::from(a) - i32::from(b);
            }
            at += 1;
        }
    }
    0
}

/// BSD's `bcmp`.
///
/// # Safety
///
/// As in C.
#[unsafe(no_mangle)]
pub(super) unsafe extern "C" fn bcmp(left: *const u8, right: *const u8, count: usize) -> i32 {
    // SAFETY: the caller's promise.
    unsafe { memcmp(left, right, count) }
}

/// C's `strlen`.
///
/// # Safety
///
/// As in C.
#[unsafe(no_mangle)]
pub(super) unsafe extern "C" fn strlen(string: *const u8) -> usize {
    let mut length = 0;
    // SAFETY: the string ends with a NUL byte.
    while unsafe { string.add(length).read_volatile() } != 0 {
        length += 1;
    }
    length
}
