//! The kernel's stacks, in a part of the address space of their own: below each is a page that is
//! not mapped, so that a stack that overflows faults and changes nothing else.

use super::mode::is_ring0;
use super::{STACK_SIZE, boot};
use crate::frame::Frame;
use crate::physical::{PAGE_SIZE, PhysAddr, pointer};
use core::sync::atomic::{AtomicU64, Ordering};

/// The entry of the page map for the stacks, and the address that it maps.
const SLOT: usize = 402;
const BASE: u64 = 0xffff_0000_0000_0000 | (SLOT as u64) << 39;
/// Distance from stack to stack. The lower half is not mapped.
const STRIDE: u64 = 2 * STACK_SIZE as u64;

const PRESENT: u64 = 1;
const WRITABLE: u64 = 1 << 1;
const USER: u64 = 1 << 2;
const ACCESSED: u64 = 1 << 5;
const DIRTY: u64 = 1 << 6;
const NO_EXECUTE: u64 = 1 << 63;
const ADDRESS: u64 = 0x000f_ffff_ffff_f000;

/// Maps the stack of CPU `number`, and gives its end.
///
/// # Panics
///
/// If there is no memory for it. Called while other CPUs that run, if there are any, only use
/// stacks that are mapped already.
pub(super) fn map(number: u32) -> u64 {
    let start = BASE + u64::from(number) * STRIDE + STRIDE / 2;
    let user = if is_ring0() { 0 } else { USER };
    let table = |entry: u64| match entry & PRESENT {
        0 => new_page() | PRESENT | WRITABLE | user,
        _ => entry,
    };
    let top = table(boot::page_map_entry(SLOT));
    boot::set_page_map_entry(SLOT, top);
    for address in (start..start + STACK_SIZE as u64).step_by(PAGE_SIZE) {
        let mut entry = top;
        for shift in [30, 21] {
            let place = entry_of(entry, address >> shift);
            entry = table(place.load(Ordering::Relaxed));
            place.store(entry, Ordering::Relaxed);
        }
        let page = new_page() | PRESENT | WRITABLE | ACCESSED | DIRTY | NO_EXECUTE | user;
        entry_of(entry, address >> 12).store(page, Ordering::Relaxed);
    }
    start + STACK_SIZE as u64
}

/// Whether an access to `address` is that of a stack that has overflowed.
pub(super) fn is_guard(address: u64) -> bool {
    address
        .checked_sub(BASE)
        .is_some_and(|offset| offset < 1 << 39 && offset % STRIDE < STRIDE / 2)
}

/// The address of a page of zeros that is never freed.
fn new_page() -> u64 {
    let frame = Frame::zeroed().expect("memory for a kernel stack");
    let address = frame.address().0;
    core::mem::forget(frame);
    address
}

/// An entry of the table that the entry `table` refers to.
fn entry_of(table: u64, index: u64) -> &'static AtomicU64 {
    let address = (table & ADDRESS) + index % 512 * 8;
    // SAFETY: the table was made by `new_page` for this module alone; entries are accessed
    // atomically.
    unsafe { &*pointer(PhysAddr(address)).cast() }
}
