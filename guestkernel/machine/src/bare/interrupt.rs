//! Interrupts: routing them, acknowledging them, waiting for one, and the timer.
//!
//! The local APIC and the I/O APIC are reached by MMIO (Intel SDM volume 3, chapter 12; 82093AA
//! data sheet); KVM emulates both in the host's kernel, some 3 µs an access.

use super::{clock, per_cpu, privileged, write_register};
use crate::PhysAddr;
use core::sync::atomic::{AtomicU64, Ordering};

const LOCAL_APIC: u64 = 0xfee0_0000;
const IO_APIC: u64 = 0xfec0_0000;

const APIC_EOI: u64 = 0xb0;
const APIC_SPURIOUS: u64 = 0xf0;
const APIC_TIMER: u64 = 0x320;
const APIC_LINT0: u64 = 0x350;
const APIC_INITIAL_COUNT: u64 = 0x380;
const APIC_DIVIDE: u64 = 0x3e0;

/// The vector of bit 0 of the latch, and of IRQ 0.
const FIRST_VECTOR: u32 = 0x20;
/// The latch's bit for the timer.
const TIMER_BIT: u32 = 32;
/// IRQs that the I/O APIC has pins for.
const IRQS: u32 = 24;
/// The APIC timer of KVM counts nanoseconds when it does not divide.
const DIVIDE_BY_ONE: u32 = 0b1011;

/// The deadline that the timer is set to; `u64::MAX` for none.
static TIMER: AtomicU64 = AtomicU64::new(u64::MAX);
/// Device interrupts that were acknowledged and not taken.
static ARRIVED: AtomicU64 = AtomicU64::new(0);

fn write_local(register: u64, value: u32) {
    // SAFETY: a register of the local APIC; interrupts go through the monitor, which only
    // latches them.
    unsafe { write_register(PhysAddr(LOCAL_APIC + register), value) }
}

pub(super) fn initialise() {
    write_local(APIC_SPURIOUS, 0x1ff);
    write_local(APIC_LINT0, 1 << 16);
    write_local(APIC_DIVIDE, DIVIDE_BY_ONE);
    write_local(APIC_TIMER, FIRST_VECTOR + TIMER_BIT);
}

/// Lets interrupts of `irq` through, edge-triggered; one that the machine does not have is
/// ignored.
pub fn enable(irq: u32) {
    if irq >= IRQS {
        return;
    }
    let write = |index: u32, value: u32| {
        // SAFETY: the I/O APIC's select and window registers, as above.
        unsafe {
            write_register(PhysAddr(IO_APIC), index);
            write_register(PhysAddr(IO_APIC + 0x10), value);
        }
    };
    write(0x10 + 2 * irq + 1, 0);
    write(0x10 + 2 * irq, FIRST_VECTOR + irq);
}

/// Takes what the monitor has latched, and lets the next interrupts come.
pub(super) fn acknowledge() {
    // SAFETY: a pointer to the CPU's block, of which the latch is atomic.
    let latched = unsafe { &(*per_cpu::current()).latched };
    let bits = latched.swap(0, Ordering::AcqRel);
    for _ in 0..bits.count_ones() {
        write_local(APIC_EOI, 0);
    }
    if bits & 1 << TIMER_BIT != 0 {
        TIMER.store(u64::MAX, Ordering::Relaxed);
    }
    ARRIVED.fetch_or(bits & ((1 << IRQS) - 1), Ordering::Relaxed);
}

/// Waits until an interrupt comes or [`monotonic`](crate::clock::monotonic) time `deadline`
/// is reached.
pub fn wait(deadline: Option<u64>) {
    set_timer(deadline);
    privileged::wait();
    acknowledge();
}

/// Makes an interrupt come at [`monotonic`](crate::clock::monotonic) time `deadline`, in place of
/// the one asked for before; `None` for none. It may come early, never late.
pub fn set_timer(deadline: Option<u64>) {
    let deadline = deadline.unwrap_or(u64::MAX);
    if TIMER.swap(deadline, Ordering::Relaxed) == deadline {
        return;
    }
    let count = if deadline == u64::MAX {
        0
    } else {
        let left = deadline.saturating_sub(clock::monotonic());
        u32::try_from(left).unwrap_or(u32::MAX).max(1)
    };
    write_local(APIC_INITIAL_COUNT, count);
}

/// The device interrupts that came since the last call, by IRQ number: bit N is IRQ N.
pub fn take_pending() -> u64 {
    ARRIVED.swap(0, Ordering::Relaxed)
}
