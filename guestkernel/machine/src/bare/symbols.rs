//! The kernel's own symbol table, for backtraces.
//!
//! The linker script reserves the section `.symbols`; the `kernel-symbols` tool fills it after
//! linking: `RLSY`, the number of functions, then for each, by address, its offset from the
//! start of the image and the offset of its name in the text that follows, all `u32`.

unsafe extern "C" {
    static symbols_start: u8;
    static symbols_end: u8;
}

fn section() -> &'static [u8] {
    let (start, end) = (&raw const symbols_start, &raw const symbols_end);
    // SAFETY: the linker script's symbols delimit a section that nobody writes.
    unsafe { core::slice::from_raw_parts(start, end as usize - start as usize) }
}

/// The name of the function at `address`, and how far into it the address is.
pub(super) fn lookup(address: u64) -> Option<(&'static str, u64)> {
    let section = section();
    let word = |index: usize| -> Option<u32> {
        let bytes = section.get(index * 4..index * 4 + 4)?;
        Some(u32::from_le_bytes(bytes.try_into().ok()?))
    };
    if section.get(..4)? != b"RLSY" {
        return None;
    }
    let count = word(1)? as usize;
    let wanted = u32::try_from(address.checked_sub(super::IMAGE_BASE)?).ok()?;
    let (mut low, mut high) = (0, count);
    while low < high {
        let middle = low + (high - low) / 2;
        if word(2 + 2 * middle)? <= wanted {
            low = middle + 1;
        } else {
            high = middle;
        }
    }
    let found = low.checked_sub(1)?;
    let names = 8 + count * 8;
    let start = names + word(3 + 2 * found)? as usize;
    let length = section.get(start..)?.iter().position(|byte| *byte == 0)?;
    let name = core::str::from_utf8(&section[start..start + length]).ok()?;
    Some((name, u64::from(wanted - word(2 + 2 * found)?)))
}
