//! Interrupts: routing them, acknowledging them, waiting for one, and the timer.
//!
//! The local APIC and the I/O APIC are reached by MMIO (Intel SDM volume 3, chapter 12; 82093AA
//! data sheet); KVM emulates both in the host's kernel, some 3 µs an access.

use super::{clock, per_cpu, privileged, report, watch, write_register};
use crate::PhysAddr;
use core::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use ringlet_abi::{REPORT_IRQ, REPORT_VECTOR};

const LOCAL_APIC: u64 = 0xfee0_0000;
/// I/O APICs with [`PINS`] pins each. The second is where QEMU's microvm has it; an IRQ that would be
/// its is not announced where there is none.
const IO_APICS: [u64; 2] = [0xfec0_0000, 0xfec1_0000];
const PINS: u32 = 24;

const APIC_EOI: u64 = 0xb0;
const APIC_SPURIOUS: u64 = 0xf0;
const APIC_ICR_LOW: u64 = 0x300;
const APIC_ICR_HIGH: u64 = 0x310;
const APIC_TIMER: u64 = 0x320;
const APIC_LINT0: u64 = 0x350;
const APIC_INITIAL_COUNT: u64 = 0x380;
const APIC_DIVIDE: u64 = 0x3e0;

/// Commands: INIT (level, assert) and start-up.
const ICR_INIT: u32 = 0x4500;
const ICR_START: u32 = 0x4600;
/// Command: an NMI (assert).
const ICR_NMI: u32 = 0x4400;
/// Nanoseconds that a CPU is given after INIT and start-up.
const INIT_DELAY: u64 = 200_000;
const START_DELAY: u64 = 100_000;

/// The vector of bit 0 of the latch, and of IRQ 0.
const FIRST_VECTOR: u32 = 0x20;
/// The latch's bit for the timer.
const TIMER_BIT: u32 = 56;
/// The latch's bit for [`send_kick`].
const KICK_BIT: u32 = 57;
/// The latch's bit for [`REPORT_VECTOR`].
const REPORT_BIT: u32 = REPORT_VECTOR - FIRST_VECTOR;
/// The latch's bit by which another CPU asks for a TLB flush; no interrupt has it.
pub(super) const FLUSH: u64 = 1 << 63;
/// IRQs that there are pins for.
const IRQS: u32 = PINS * IO_APICS.len() as u32;
/// The APIC timer of KVM counts nanoseconds when it does not divide.
const DIVIDE_BY_ONE: u32 = 0b1011;

/// Device interrupts that were acknowledged and not taken.
static ARRIVED: AtomicU64 = AtomicU64::new(0);
/// Somebody has asked for a report.
static IS_REPORT_WANTED: AtomicBool = AtomicBool::new(false);

fn write_local(register: u64, value: u32) {
    // SAFETY: a register of the local APIC; interrupts go through the monitor, which only
    // latches them.
    unsafe { write_register(PhysAddr(LOCAL_APIC + register), value) }
}

/// Sets up the APIC of the CPU that executes this.
pub(super) fn initialise_local() {
    write_local(APIC_SPURIOUS, 0x1ff);
    write_local(APIC_LINT0, 1 << 16);
    write_local(APIC_DIVIDE, DIVIDE_BY_ONE);
    write_local(APIC_TIMER, FIRST_VECTOR + TIMER_BIT);
}

/// Lets interrupts of `irq` through, edge-triggered; one that the machine does not have is
/// ignored.
pub fn enable(irq: u32) {
    enable_at(irq, 0);
}

/// As above, to all CPUs.
pub(super) fn enable_everywhere(irq: u32) {
    enable_at(irq, u32::MAX << 24);
}

fn enable_at(irq: u32, destination: u32) {
    let Some(controller) = IO_APICS.get((irq / PINS) as usize) else {
        return;
    };
    let write = |index: u32, value: u32| {
        // SAFETY: the I/O APIC's select and window registers, as above.
        unsafe {
            write_register(PhysAddr(*controller), index);
            write_register(PhysAddr(*controller + 0x10), value);
        }
    };
    let pin = irq % PINS;
    write(0x10 + 2 * pin + 1, destination);
    write(0x10 + 2 * pin, FIRST_VECTOR + irq);
}

/// Takes what has been latched, lets the next interrupts come, and flushes the TLB if another CPU
/// wants it.
pub(super) fn acknowledge() {
    // SAFETY: the CPU's own block; the latch is atomic and the other fields only it uses.
    let cpu = unsafe { &mut *per_cpu::current() };
    let bits = cpu.latched.swap(0, Ordering::AcqRel);
    for _ in 0..(bits & !FLUSH).count_ones() {
        write_local(APIC_EOI, 0);
    }
    if bits & 1 << TIMER_BIT != 0 {
        cpu.timer = u64::MAX;
        watch::look();
    }
    let root = cpu.root.load(Ordering::Relaxed);
    if bits & FLUSH != 0 && root != 0 {
        // SAFETY: it is the page map that is loaded.
        unsafe { privileged::load_cr3(root) };
    }
    if bits & (1 << REPORT_BIT | 1 << REPORT_IRQ) != 0 {
        IS_REPORT_WANTED.store(true, Ordering::Relaxed);
    }
    let arrived = bits & ((1 << IRQS) - 1);
    if arrived != 0 {
        ARRIVED.fetch_or(arrived, Ordering::Relaxed);
    }
}

/// Interrupts the CPU with that APIC identifier, so that it looks at what is new.
pub(super) fn send_kick(apic: u32) {
    send(apic, FIRST_VECTOR + KICK_BIT);
}

/// Sends the CPU with that APIC identifier an NMI, which makes it store where it is.
pub(super) fn send_nmi(apic: u32) {
    send(apic, ICR_NMI);
}

/// Resets the CPU with that APIC identifier, and starts it at physical page number `page`.
pub(super) fn send_start(apic: u32, page: u8) {
    send(apic, ICR_INIT);
    clock::spin(INIT_DELAY);
    for _ in 0..2 {
        send(apic, ICR_START | u32::from(page));
        clock::spin(START_DELAY);
    }
}

fn send(apic: u32, command: u32) {
    write_local(APIC_ICR_HIGH, apic << 24);
    write_local(APIC_ICR_LOW, command);
}

/// Waits until an interrupt comes or [`monotonic`](crate::clock::monotonic) time `deadline`
/// is reached.
pub fn wait(deadline: Option<u64>) {
    set_timer(deadline);
    // SAFETY: a field that never moves.
    let is_waiting = unsafe { &(*per_cpu::current()).is_waiting };
    is_waiting.store(1, Ordering::Relaxed);
    privileged::wait();
    is_waiting.store(0, Ordering::Relaxed);
    acknowledge();
}

/// Makes an interrupt come at [`monotonic`](crate::clock::monotonic) time `deadline`, in place of
/// the one asked for before; `None` for none. It may come early, never late.
pub fn set_timer(deadline: Option<u64>) {
    let deadline = deadline.unwrap_or(u64::MAX).min(watch::next());
    // SAFETY: a field that only this CPU's kernel uses.
    let timer = unsafe { &mut (*per_cpu::current()).timer };
    if core::mem::replace(timer, deadline) == deadline {
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

/// Whether somebody has asked for a report since the last call: by the VMM's interrupt, which
/// reaches all CPUs, or by the port for that.
#[inline]
pub fn take_report_request() -> bool {
    IS_REPORT_WANTED.load(Ordering::Relaxed)
        && IS_REPORT_WANTED.swap(false, Ordering::Relaxed)
        && report::is_due()
}

/// The device interrupts that came since the last call, by IRQ number: bit N is IRQ N.
pub fn take_pending() -> u64 {
    // CPUs that poll share the word until there is something.
    match ARRIVED.load(Ordering::Relaxed) {
        0 => 0,
        _ => ARRIVED.swap(0, Ordering::Relaxed),
    }
}
