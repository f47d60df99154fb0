//! System calls made cheap: a site that traps often is patched to jump into the kernel.
//!
//! Where CPL 0 is emulated a SYSCALL costs 1.1 µs, a jump through
//! [`machine::syscall_gate`] 11 ns. Two sequences make up nearly all hot sites of static and dynamic
//! programs, and both end in a five-byte instruction and the two bytes of SYSCALL:
//!
//! - `mov $number, %eax; syscall`: the wrappers of libraries;
//! - `mov 8(%rsp), %r9; syscall`: the `syscall()` function of glibc.
//!
//! The five bytes become a jump to a trampoline nearby that executes them, loads the address to
//! return to, and jumps into the kernel. SYSCALL itself stays where it is, so code that jumps to
//! it, or a call that is restarted there, works as before; and no stack is used, since code may keep
//! data below its stack pointer. Only code that the program cannot write is patched, in a private
//! copy of the page. The idea is X-Containers' (ASPLOS 2019) with a jump in place of a call.

use crate::error::{Errno, Result};
use crate::mm::AddressSpace;
use alloc::vec::Vec;
use core::sync::atomic::{AtomicU64, Ordering};
use machine::PAGE_SIZE;
use machine::lock::Mutex;

/// A site is patched when it has trapped so often: patching costs as much as that.
const THRESHOLD: u64 = 32;
/// Bits that hold a count; addresses have 47.
const COUNT_BITS: u32 = 8;
/// Sites that are counted at a time, in sets of two, of which a new site takes the place of the one
/// that has trapped less: with sets of one, two sites in turn would keep each other from ever being
/// patched.
const COUNTED: usize = 256;
/// Bytes set apart for a trampoline.
const TRAMPOLINE: usize = 32;

const CALL: [u8; 2] = [0x0f, 0x05];
const MOV_EAX: u8 = 0xb8;
const MOV_R9_STACK: [u8; 5] = [0x4c, 0x8b, 0x4c, 0x24, 0x08];

/// What is known of the places where a program makes system calls.
pub(crate) struct CallSites {
    /// Addresses after the SYSCALL, shifted by [`COUNT_BITS`], and how often they trapped.
    counts: [AtomicU64; COUNTED],
    /// Pages of trampolines, and how many of each are used.
    pages: Mutex<Vec<(u64, usize)>>,
    /// The low half of the gate's address; `None` if SYSCALL is as good.
    gate: Option<u32>,
}

impl CallSites {
    /// Nothing is known.
    pub(super) fn new() -> Self {
        Self {
            counts: [const { AtomicU64::new(0) }; COUNTED],
            pages: Mutex::new(Vec::new()),
            gate: machine::syscall_gate().and_then(sign_extended),
        }
    }

    /// What is known of the same places in a copy of the memory.
    pub(super) fn copy(&self) -> Self {
        Self {
            counts: self
                .counts
                .each_ref()
                .map(|count| AtomicU64::new(count.load(Ordering::Relaxed))),
            pages: Mutex::new(self.pages.lock().clone()),
            gate: self.gate,
        }
    }

    /// Notes that system call `number` was made from before `address`, and patches the site when
    /// it is worth while. A count that another thread changes at the same time may be lost.
    #[inline]
    pub(crate) fn note(&self, space: &AddressSpace, address: u64, number: u64) {
        if self.gate.is_none() {
            return;
        }
        let set = self
            .set_of(address)
            .map(|place| (place, place.load(Ordering::Relaxed)));
        let count_of = |value: u64| value % (1 << COUNT_BITS);
        let known = set.iter().find(|(_, value)| value >> COUNT_BITS == address);
        let count = known.map_or(0, |(_, value)| count_of(*value));
        if count >= THRESHOLD {
            return;
        }
        let [first, second] = &set;
        let rarer = if count_of(first.1) <= count_of(second.1) {
            first
        } else {
            second
        };
        let (place, before) = *known.unwrap_or(rarer);
        let after = address << COUNT_BITS | (count + 1);
        let is_noted = place.compare_exchange(before, after, Ordering::Relaxed, Ordering::Relaxed);
        // Only one of several threads gets so far.
        if is_noted.is_ok() && count + 1 == THRESHOLD {
            // A site that cannot be patched goes on trapping.
            let _ = self.patch(space, address, number);
        }
    }

    /// Where a site is counted, if it is.
    #[inline]
    fn set_of(&self, address: u64) -> [&AtomicU64; 2] {
        // Fibonacci hashing: sites are often at similar places of different pages.
        let hash = (address.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 32) as usize % COUNTED;
        [&self.counts[hash], &self.counts[hash ^ 1]]
    }

    #[cold]
    fn patch(&self, space: &AddressSpace, address: u64, number: u64) -> Result<()> {
        let gate = self.gate.ok_or(Errno::ENOSYS)?;
        let start = address.checked_sub(8).ok_or(Errno::EFAULT)?;
        let mut code = [0; 8];
        space.read(start, &mut code)?;
        let moved = relocatable(&code, number).ok_or(Errno::EINVAL)?;
        let site = start + 1;
        let trampoline = self.allocate(space, address)?;
        let bytes = trampoline_code(trampoline, moved, address, gate).ok_or(Errno::ERANGE)?;
        let jump = relative(site + 5, trampoline).ok_or(Errno::ERANGE)?;
        space.patch_code(trampoline, &bytes)?;
        let mut patch = [0xe9; 5];
        patch[1..].copy_from_slice(&jump.to_le_bytes());
        space.patch_code(site, &patch)
    }

    /// The address of an unused trampoline within reach of `address`.
    fn allocate(&self, space: &AddressSpace, address: u64) -> Result<u64> {
        let has_room = |page: &&mut (u64, usize)| {
            page.1 < PAGE_SIZE / TRAMPOLINE && relative(address, page.0).is_some()
        };
        let mut pages = self.pages.lock();
        if let Some((page, used)) = pages.iter_mut().find(has_room) {
            *used += 1;
            return Ok(*page + ((*used - 1) * TRAMPOLINE) as u64);
        }
        let page = space.map_code_near(address)?;
        pages.push((page, 1));
        Ok(page)
    }
}

/// The five bytes before the SYSCALL at the end of `code`, if they are an instruction that can
/// be executed elsewhere.
fn relocatable(code: &[u8; 8], number: u64) -> Option<[u8; 5]> {
    let [before, moved @ .., call0, call1] = *code;
    if [call0, call1] != CALL {
        return None;
    }
    // A REX or operand-size prefix would make another instruction of it.
    let is_prefix = matches!(before, 0x40..=0x4f | 0x66);
    let loads_number = moved[0] == MOV_EAX
        && moved[1..] == (number as u32).to_le_bytes()
        && number <= u64::from(u32::MAX)
        && !is_prefix;
    (loads_number || moved == MOV_R9_STACK).then_some(moved)
}

/// The code at `trampoline`: the instruction `moved`, RCX = `address`, into the kernel.
fn trampoline_code(
    trampoline: u64,
    moved: [u8; 5],
    address: u64,
    gate: u32,
) -> Option<[u8; TRAMPOLINE]> {
    // Int3 behind the end.
    let mut code = [0xcc; TRAMPOLINE];
    code[..5].copy_from_slice(&moved);
    // lea address(%rip), %rcx
    code[5..8].copy_from_slice(&[0x48, 0x8d, 0x0d]);
    code[8..12].copy_from_slice(&relative(trampoline + 12, address)?.to_le_bytes());
    // jmp *gate
    code[12..15].copy_from_slice(&[0xff, 0x24, 0x25]);
    code[15..19].copy_from_slice(&gate.to_le_bytes());
    Some(code)
}

/// The distance that a jump ending at `from` needs to reach `to`.
fn relative(from: u64, to: u64) -> Option<i32> {
    i32::try_from(to.wrapping_sub(from) as i64).ok()
}

/// The low half of an address that a 32-bit displacement can express.
fn sign_extended(address: u64) -> Option<u32> {
    i32::try_from(address as i64).ok().map(|low| low as u32)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::mm::{MapRequest, Placement};
    use machine::Access;

    const GETPPID: [u8; 8] = [0xc3, 0xb8, 110, 0, 0, 0, 0x0f, 0x05];

    fn sites() -> CallSites {
        CallSites {
            gate: Some(0x8020_0000),
            ..CallSites::new()
        }
    }

    /// Code at 0x401000, after it was made unwritable.
    fn space_with(code: &[u8]) -> alloc::sync::Arc<AddressSpace> {
        let space = AddressSpace::new().unwrap();
        let request = MapRequest {
            placement: Placement::Fixed(0x40_1000),
            ..MapRequest::anonymous(0x1000, Access::READ | Access::WRITE)
        };
        space.map(request).unwrap();
        space.write(0x40_1000, code).unwrap();
        space
            .protect(0x40_1000, 0x1000, Access::READ | Access::EXECUTE)
            .unwrap();
        space
    }

    fn read<const N: usize>(space: &AddressSpace, address: u64) -> [u8; N] {
        let mut bytes = [0; N];
        space.read(address, &mut bytes).unwrap();
        bytes
    }

    #[test]
    fn a_hot_site_becomes_a_jump_and_keeps_its_syscall() {
        let space = space_with(&GETPPID);
        let sites = sites();
        for _ in 0..THRESHOLD - 1 {
            sites.note(&space, 0x40_1008, 110);
        }
        assert_eq!(read::<8>(&space, 0x40_1000), GETPPID);
        sites.note(&space, 0x40_1008, 110);
        let [before, jump, distance @ .., call0, call1] = read::<8>(&space, 0x40_1000);
        assert_eq!((before, jump, [call0, call1]), (0xc3, 0xe9, CALL));
        let trampoline = 0x40_1006u64.wrapping_add_signed(i32::from_le_bytes(distance).into());
        let code: [u8; 19] = read(&space, trampoline);
        assert_eq!(code[..5], GETPPID[1..6]);
        let back = i32::from_le_bytes(code[8..12].try_into().unwrap());
        assert_eq!(
            (trampoline + 12).wrapping_add_signed(back.into()),
            0x40_1008
        );
        assert_eq!(code[15..], 0x8020_0000u32.to_le_bytes());
    }

    #[test]
    fn sites_of_one_set_do_not_keep_each_other_from_being_patched() {
        let mut code = [0x90; 0x1000];
        for at in (0..code.len()).step_by(16) {
            code[at..at + GETPPID.len()].copy_from_slice(&GETPPID);
        }
        let space = space_with(&code);
        let sites = sites();
        let first = 0x40_1008;
        let same_set = |address: &u64| {
            core::ptr::eq(sites.set_of(*address)[0], sites.set_of(first)[0])
                || core::ptr::eq(sites.set_of(*address)[0], sites.set_of(first)[1])
        };
        let second = (0x40_1018..0x40_2000).step_by(16).find(same_set).unwrap();
        for _ in 0..THRESHOLD {
            sites.note(&space, first, 110);
            sites.note(&space, second, 110);
        }
        for address in [first, second] {
            assert_eq!(read::<8>(&space, address - 8)[1], 0xe9, "{address:#x}");
        }
    }

    #[test]
    fn what_only_looks_like_a_site_is_left_alone() {
        for (code, number) in [
            // mov $110, %r8d
            ([0x41, 0xb8, 110, 0, 0, 0, 0x0f, 0x05], 110),
            // Another number was called.
            (GETPPID, 39),
            // xor %eax, %eax
            ([0x90, 0x90, 0x90, 0x90, 0x31, 0xc0, 0x0f, 0x05], 0),
            // SYSENTER
            ([0xc3, 0xb8, 110, 0, 0, 0, 0x0f, 0x34], 110),
        ] {
            assert_eq!(relocatable(&code, number), None, "{code:x?}");
        }
        let r9 = [0xca, 0x4c, 0x8b, 0x4c, 0x24, 0x08, 0x0f, 0x05];
        assert_eq!(relocatable(&r9, 426), Some(MOV_R9_STACK));
    }

    #[test]
    fn code_that_the_program_can_write_is_left_alone() {
        let space = space_with(&GETPPID);
        let all = Access::READ | Access::WRITE | Access::EXECUTE;
        space.protect(0x40_1000, 0x1000, all).unwrap();
        let sites = sites();
        for _ in 0..2 * THRESHOLD {
            sites.note(&space, 0x40_1008, 110);
        }
        assert_eq!(read::<8>(&space, 0x40_1000), GETPPID);
    }
}
