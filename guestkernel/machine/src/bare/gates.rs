//! The interrupt descriptor table of mode `ring0` (Intel SDM volume 3, section 7.14). That of mode
//! `shared` is part of the monitor.

use super::privileged::{self, GatePointer};
use core::cell::UnsafeCell;
use spin::Once;

const GATES: usize = 256;
const KERNEL_CS: u64 = 0x10;
/// Present interrupt gate, for CPL 0 and, last, for a program's INT3 and INT 4, as on Linux.
const INTERRUPT_GATE: u64 = 0x8e << 40;
const PROGRAM_GATE: u64 = 0xee << 40;
const BREAKPOINT: usize = 3;
const OVERFLOW: usize = 4;
const NMI: usize = 2;
const DOUBLE_FAULT: usize = 8;
const MACHINE_CHECK: usize = 18;
const FIRST_INTERRUPT: usize = 32;
/// Gates with a target of their own; one more target is for all others.
const TARGETS: usize = 96;

struct Table(UnsafeCell<[[u64; 2]; GATES]>);
// SAFETY: filled once, on the boot CPU, before it is loaded; only CPUs read it afterwards.
unsafe impl Sync for Table {}

static POINTER: Once<GatePointer> = Once::new();
static TABLE: Table = Table(UnsafeCell::new([[0; 2]; GATES]));

unsafe extern "C" {
    safe static gate_targets: [u64; TARGETS + 1];
}

/// Makes the table and loads it.
///
/// # Safety
///
/// Called once, on the boot CPU, at CPL 0.
pub(super) unsafe fn initialise() {
    // SAFETY: nobody else uses the table yet.
    let table = unsafe { &mut *TABLE.0.get() };
    for (vector, gate) in table.iter_mut().enumerate() {
        let target = gate_targets[vector.min(TARGETS)];
        let stack = match vector {
            NMI => 3,
            DOUBLE_FAULT | MACHINE_CHECK => 2,
            FIRST_INTERRUPT.. => 1,
            _ => 0,
        };
        let kind = match vector {
            BREAKPOINT | OVERFLOW => PROGRAM_GATE,
            _ => INTERRUPT_GATE,
        };
        *gate = [
            target & 0xffff | KERNEL_CS << 16 | stack << 32 | kind | (target >> 16 & 0xffff) << 48,
            target >> 32,
        ];
    }
    let pointer = POINTER.call_once(|| GatePointer {
        limit: size_of_val(table) as u16 - 1,
        base: TABLE.0.get() as u64,
    });
    // SAFETY: the table is static.
    unsafe { privileged::load_gates(pointer) }
}

/// The address of what LIDT takes, for other CPUs; 0 before the table is made.
pub(super) fn pointer() -> u64 {
    POINTER
        .get()
        .map_or(0, |pointer| (&raw const *pointer) as u64)
}
