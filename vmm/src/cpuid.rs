//! CPUID for the guest: what KVM supports, with each vCPU's place in the topology.

use kvm_bindings::{CpuId, KVM_MAX_CPUID_ENTRIES, kvm_cpuid_entry2};
use kvm_ioctls::{Cap, Kvm};

/// Leaf 1, ECX: the LAPIC timer has TSC-deadline mode.
const TSC_DEADLINE: u32 = 1 << 24;
/// Leaf 1, ECX: there is a hypervisor.
const HYPERVISOR: u32 = 1 << 31;
/// Leaf 1, EDX: the package may have several logical processors.
const HTT: u32 = 1 << 28;

/// Leaf 0xb and 0x1f, ECX bits 8..16: level types.
const LEVEL_SMT: u32 = 1;
const LEVEL_CORE: u32 = 2;

/// The features that KVM offers to every vCPU.
///
/// # Errors
///
/// Those of `KVM_GET_SUPPORTED_CPUID`.
pub fn supported(kvm: &Kvm) -> Result<CpuId, kvm_ioctls::Error> {
    let mut cpuid = kvm.get_supported_cpuid(KVM_MAX_CPUID_ENTRIES)?;
    if kvm.check_extension(Cap::TscDeadlineTimer) {
        for leaf in cpuid.as_mut_slice() {
            if leaf.function == 1 {
                leaf.ecx |= TSC_DEADLINE;
            }
        }
    }
    Ok(cpuid)
}

/// `supported` as vCPU `index` of `count` sees it: one package of `count` cores with one thread
/// each; the APIC ID is the index.
pub fn for_vcpu(supported: &CpuId, index: u32, count: u32) -> CpuId {
    let mut cpuid = supported.clone();
    for leaf in cpuid.as_mut_slice() {
        set_topology(leaf, index, count);
    }
    cpuid
}

fn set_topology(leaf: &mut kvm_cpuid_entry2, index: u32, count: u32) {
    let id_bits = u32::BITS - (count - 1).leading_zeros();
    match leaf.function {
        0x1 => {
            let logical = (1_u32 << id_bits).min(0xff);
            leaf.ebx = leaf.ebx & 0xffff | logical << 16 | (index & 0xff) << 24;
            leaf.ecx |= HYPERVISOR;
            match count {
                1 => leaf.edx &= !HTT,
                _ => leaf.edx |= HTT,
            }
        }
        // Intel: caches; each core has its own but the last level's.
        0x4 if leaf.eax & 0x1f != 0 => {
            let level = leaf.eax >> 5 & 7;
            let sharing = if level >= 3 { count - 1 } else { 0 };
            leaf.eax = leaf.eax & 0x3fff | sharing.min(0xfff) << 14 | (count - 1).min(0x3f) << 26;
        }
        // Extended topology: one thread a core, then all cores.
        0xb | 0x1f => {
            let (shift, logical, kind) = match leaf.index {
                0 => (0, 1, LEVEL_SMT),
                1 => (id_bits, count, LEVEL_CORE),
                _ => (0, 0, 0),
            };
            leaf.eax = shift;
            leaf.ebx = logical;
            leaf.ecx = leaf.index & 0xff | kind << 8;
            leaf.edx = index;
        }
        // AMD: cores of the package and bits of the APIC ID.
        0x8000_0008 => leaf.ecx = leaf.ecx & !0xf0ff | (count - 1).min(0xff) | id_bits << 12,
        // AMD: APIC ID, core ID with one thread a core, one node.
        0x8000_001e => {
            leaf.eax = index;
            leaf.ebx = index & 0xff;
            leaf.ecx = 0;
        }
        _ => (),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn leaf(function: u32, index: u32) -> kvm_cpuid_entry2 {
        kvm_cpuid_entry2 {
            function,
            index,
            ..Default::default()
        }
    }

    fn topology(function: u32, sub: u32, vcpu: u32, count: u32) -> kvm_cpuid_entry2 {
        let supported = CpuId::from_entries(&[leaf(function, sub)]).unwrap();
        for_vcpu(&supported, vcpu, count).as_slice()[0]
    }

    #[test]
    fn the_apic_id_is_the_index() {
        assert_eq!(topology(1, 0, 3, 4).ebx >> 24, 3);
        assert_eq!(topology(0xb, 0, 3, 4).edx, 3);
        assert_eq!(topology(0xb, 1, 3, 4).edx, 3);
        assert_eq!(topology(0x8000_001e, 0, 3, 4).eax, 3);
    }

    #[test]
    fn counts_and_shifts_agree() {
        for (count, bits) in [(1, 0), (2, 1), (3, 2), (4, 2), (5, 3)] {
            assert_eq!(topology(0xb, 1, 0, count).eax, bits);
            assert_eq!(topology(0xb, 1, 0, count).ebx, count);
            assert_eq!(topology(1, 0, 0, count).ebx >> 16 & 0xff, 1 << bits);
            assert_eq!(topology(1, 0, 0, count).edx & HTT != 0, count > 1);
        }
        assert_eq!(topology(0xb, 2, 0, 4).ebx, 0);
    }
}
