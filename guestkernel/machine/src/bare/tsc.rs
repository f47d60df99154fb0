//! The frequency of the TSC where the host has no kvmclock.

use super::privileged::{read_port, write_port};
use crate::calibration::{Calibration, Look};
use core::arch::x86_64::{__cpuid, _rdtsc};

/// CPUID leaf with the ratio of TSC and crystal clock (Intel SDM volume 3, section 20.7.3).
const LEAF_TSC: u32 = 0x15;
/// CPUID leaf with the base frequency in MHz, which is the TSC's where the crystal's is not told.
const LEAF_FREQUENCY: u32 = 0x16;
/// CPUID leaf of hypervisors with the TSC frequency in kHz (the VMware convention).
const LEAF_HYPERVISOR: u32 = 0x4000_0000;
const LEAF_HYPERVISOR_TSC: u32 = 0x4000_0010;

/// The timer that every PC has (Intel 8254), and its frequency in Hz.
const PIT_COUNTER_0: u16 = 0x40;
const PIT_CONTROL: u16 = 0x43;
const PIT_FREQUENCY: u64 = 1_193_182;
/// Counter 0, low byte then high byte, rate generator.
const PIT_MODE: u8 = 0x34;
const PIT_LATCH_0: u8 = 0x00;
/// Ticks to measure for: 10 ms.
const PIT_TICKS: u64 = 11_932;
/// TSC cycles in which the counter, which wraps every 55 ms, does not do so unnoticed: 2 ms at
/// 10 GHz, 50 ms at 400 MHz.
const LONGEST_GAP: u64 = 20_000_000;
/// Looks at the counter before it is taken for broken.
const PIT_LOOKS: u32 = 10_000_000;

/// TSC cycles in a second, as CPUID says or measured against the PIT; `None` if there is neither.
pub(super) fn frequency() -> Option<u64> {
    by_crystal().or_else(by_hypervisor).or_else(by_pit)
}

fn by_crystal() -> Option<u64> {
    if __cpuid(0).eax < LEAF_TSC {
        return None;
    }
    let leaf = __cpuid(LEAF_TSC);
    let (denominator, numerator, crystal) = (leaf.eax, leaf.ebx, leaf.ecx);
    if denominator == 0 || numerator == 0 {
        return None;
    }
    if crystal == 0 {
        return by_base_frequency();
    }
    Some(u64::from(crystal) * u64::from(numerator) / u64::from(denominator))
}

fn by_base_frequency() -> Option<u64> {
    if __cpuid(0).eax < LEAF_FREQUENCY {
        return None;
    }
    let megahertz = __cpuid(LEAF_FREQUENCY).eax & 0xffff;
    Some(u64::from(megahertz) * 1_000_000).filter(|hz| *hz != 0)
}

fn by_hypervisor() -> Option<u64> {
    let is_virtual = __cpuid(1).ecx & 1 << 31 != 0;
    let highest = __cpuid(LEAF_HYPERVISOR).eax;
    if !is_virtual || !(LEAF_HYPERVISOR_TSC..LEAF_HYPERVISOR + 0x1000).contains(&highest) {
        return None;
    }
    Some(u64::from(__cpuid(LEAF_HYPERVISOR_TSC).eax) * 1000).filter(|hz| *hz != 0)
}

fn by_pit() -> Option<u64> {
    // SAFETY: counter 0 of the PIT drives an interrupt that is masked.
    unsafe {
        write_port(PIT_CONTROL, &[PIT_MODE]);
        write_port(PIT_COUNTER_0, &[0]);
        write_port(PIT_COUNTER_0, &[0]);
    }
    let mut calibration = Calibration::new(PIT_FREQUENCY, PIT_TICKS, LONGEST_GAP);
    (0..PIT_LOOKS).find_map(|_| calibration.add(look()))
}

/// The counter, which counts down, and the TSC before and after it was latched.
fn look() -> Look {
    // SAFETY: latching and reading a counter; RDTSC is always there.
    unsafe {
        let before = _rdtsc();
        write_port(PIT_CONTROL, &[PIT_LATCH_0]);
        let after = _rdtsc();
        let low = read_port(PIT_COUNTER_0);
        let high = read_port(PIT_COUNTER_0);
        Look {
            before,
            count: u16::from_le_bytes([low, high]),
            after,
        }
    }
}
