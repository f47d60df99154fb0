//! Memory that holds code made at run time.

/// Bytes of a page.
pub(crate) const PAGE: usize = 4096;

/// Maps pages that may be read, written and executed, with `flags` besides, at `address` if that is
/// not 0; the error number if there are none.
pub(crate) fn map(address: usize, pages: usize, flags: i32) -> Result<*mut u8, i32> {
    let protection = libc::PROT_READ | libc::PROT_WRITE | libc::PROT_EXEC;
    let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | flags;
    let hint = std::ptr::without_provenance_mut(address);
    // SAFETY: without MAP_FIXED nothing that exists is replaced; with it the caller means that.
    let memory = unsafe { libc::mmap(hint, pages * PAGE, protection, flags, -1, 0) };
    match memory {
        libc::MAP_FAILED => Err(std::io::Error::last_os_error().raw_os_error().unwrap_or(0)),
        memory => Ok(memory.cast()),
    }
}

/// Maps pages below 4 GiB, wherever there is room.
///
/// # Panics
///
/// If there are none.
pub(crate) fn map_low(pages: usize) -> *mut u8 {
    (0x1000_0000..0x7000_0000)
        .step_by(0x10_0000)
        .find_map(|address| map(address, pages, libc::MAP_FIXED_NOREPLACE).ok())
        .expect("memory below 4 GiB")
}

/// Copies `code` to fresh memory.
///
/// # Panics
///
/// If there is none.
pub(crate) fn place(code: &[u8]) -> *mut u8 {
    let memory = map(0, 1, 0).expect("memory for code");
    // SAFETY: a page that nobody else uses, and code is shorter than that.
    unsafe { std::ptr::copy_nonoverlapping(code.as_ptr(), memory, code.len()) };
    memory
}
