//! Types of the Linux ABI that are nothing but their bytes.

use core::mem::MaybeUninit;
use linux_raw_sys::{general, io_uring, system};

/// A type for which every pattern of bytes is a value, and which has no padding: it can be read
/// from and written to a program's memory as it is.
///
/// # Safety
///
/// Every bit pattern must be a valid value, and no byte of the type may be padding.
pub unsafe trait Plain: 'static + Sized {
    /// The value with all bytes zero.
    fn zeroed() -> Self {
        // SAFETY: every bit pattern is a valid value.
        unsafe { MaybeUninit::zeroed().assume_init() }
    }

    /// The bytes of the value.
    fn as_bytes(&self) -> &[u8] {
        // SAFETY: there is no padding, so every byte of `self` is initialised.
        unsafe { core::slice::from_raw_parts((&raw const *self).cast(), size_of::<Self>()) }
    }

    /// The bytes of the value, to be overwritten.
    fn as_bytes_mut(&mut self) -> &mut [u8] {
        // SAFETY: as above, and whatever is written is a valid value.
        unsafe { core::slice::from_raw_parts_mut((&raw mut *self).cast(), size_of::<Self>()) }
    }
}

macro_rules! plain {
    ($($type:ty = $size:expr),* $(,)?) => {$(
        const _: () = assert!(size_of::<$type>() == $size);
        // SAFETY: a `repr(C)` structure of integers whose fields' sizes add up to its size, as
        // the assertion and its definition in the kernel's headers say.
        unsafe impl Plain for $type {}
    )*};
}

plain! {
    u8 = 1, u16 = 2, u32 = 4, u64 = 8, i32 = 4, i64 = 8,
    general::__kernel_timespec = 16,
    general::timespec = 16,
    general::timeval = 16,
    general::itimerval = 32,
    general::iovec = 16,
    general::stat = 144,
    general::statx = 256,
    general::statfs64 = 120,
    general::rlimit64 = 16,
    general::rusage = 144,
    general::pollfd = 8,
    general::kernel_sigset_t = 8,
    general::winsize = 8,
    general::termios = 36,
    general::termios2 = 44,
    general::robust_list_head = 24,
    general::clone_args = 88,
    general::futex_waitv = 24,
    system::new_utsname = 390,
    io_uring::io_uring_params = 120,
    io_uring::io_uring_probe_op = 8,
    io_uring::io_uring_getevents_arg = 24,
    io_uring::io_uring_rsrc_register = 32,
    io_uring::io_uring_rsrc_update2 = 32,
    io_uring::io_uring_rsrc_update = 16,
    io_uring::io_uring_file_index_range = 16,
    io_uring::io_uring_buf = 16,
    io_uring::io_uring_buf_reg = 40,
    io_uring::io_uring_buf_status = 40,
    io_uring::io_uring_sync_cancel_reg = 64,
    io_uring::io_uring_restriction = 16,
    io_uring::io_uring_clock_register = 16,
    io_uring::io_uring_clone_buffers = 32,
    io_uring::io_uring_reg_wait = 64,
    io_uring::io_uring_region_desc = 64,
    io_uring::io_uring_mem_region_reg = 32,
}
