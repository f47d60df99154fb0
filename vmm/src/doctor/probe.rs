//! Runs a guest of a few instructions, as the guest kernel begins, to see what a KVM is like.

use std::path::Path;

use kvm_ioctls::{Kvm, VcpuExit};
use ringlet_abi::EMULATED_CYCLES;
use vm_memory::{Bytes, GuestAddress, GuestMemoryMmap};

use super::KvmKind;
use crate::debug::session::has_hardware_virtualization;
use crate::memory;
use crate::vcpu;

/// Bytes of the guest's memory.
const MEMORY: usize = 0x4000;
const CODE_ADDRESS: u64 = 0x1000;
const RESULT_ADDRESS: u64 = 0x2000;

/// The boot code's loop: 16 instructions between two looks at the TSC, until it was fast once, five
/// times at most. Each line is an instruction.
#[rustfmt::skip]
const CODE: [u8; 37] = [
    0xbb, 5, 0, 0, 0,                   //        mov ebx, 5
    0x0f, 0x31,                         // again: rdtsc
    0x89, 0xc6,                         //        mov esi, eax
    0xb9, 8, 0, 0, 0,                   //        mov ecx, 8
    0x49,                               // loop:  dec ecx
    0x75, 0xfd,                         //        jnz loop
    0x0f, 0x31,                         //        rdtsc
    0x29, 0xf0,                         //        sub eax, esi
    0x3d, CYCLES[0], CYCLES[1], CYCLES[2], CYCLES[3], // cmp eax, EMULATED_CYCLES
    0x72, 0x03,                         //        jb done
    0x4b,                               //        dec ebx
    0x75, 0xe6,                         //        jnz again
    0xa3, 0x00, 0x20, 0, 0,             // done:  mov [RESULT_ADDRESS], eax
    0xf4,                               //        hlt
];
const CYCLES: [u8; 4] = EMULATED_CYCLES.to_le_bytes();

/// How many TSC cycles 16 instructions at CPL 0 take.
///
/// # Errors
///
/// Why the guest does not run.
pub(super) fn loop_cycles(kvm: &Kvm) -> Result<u32, String> {
    let ranges = [(GuestAddress(0), MEMORY)];
    let memory = GuestMemoryMmap::<()>::from_ranges(&ranges).map_err(|error| error.to_string())?;
    let write = memory.write_slice(&CODE, GuestAddress(CODE_ADDRESS));
    write.map_err(|error| error.to_string())?;
    let vm = kvm.create_vm().map_err(|error| error.to_string())?;
    memory::register(&vm, &memory).map_err(|error| error.to_string())?;
    let mut vcpu = vcpu_at(&vm, CODE_ADDRESS).map_err(|error| error.to_string())?;
    match vcpu.run() {
        Ok(VcpuExit::Hlt) => memory
            .read_obj(GuestAddress(RESULT_ADDRESS))
            .map_err(|error| error.to_string()),
        Ok(exit) => Err(format!("the guest stops with {exit:?}")),
        Err(error) => Err(format!("KVM_RUN: {error}")),
    }
}

/// A vCPU that is about to run at `entry`.
fn vcpu_at(vm: &kvm_ioctls::VmFd, entry: u64) -> Result<kvm_ioctls::VcpuFd, kvm_ioctls::Error> {
    vm.set_tss_address(vcpu::TSS_ADDRESS)?;
    let fd = vm.create_vcpu(0)?;
    vcpu::enter_at(&fd, entry, 0)?;
    Ok(fd)
}

/// What is under KVM, on whose guest the loop took `cycles`, if it ran.
pub(super) fn kind(cycles: Option<u32>) -> KvmKind {
    let has_module = |name: &str| Path::new("/sys/module").join(name).exists();
    let is_emulated = cycles.is_none_or(|cycles| cycles >= EMULATED_CYCLES);
    if is_emulated && has_module("kvm_pvm") {
        return KvmKind::Pvm;
    }
    if !has_hardware_virtualization() {
        return KvmKind::Software;
    }
    match has_svm() {
        true => KvmKind::Svm,
        false => KvmKind::Vmx,
    }
}

/// Whether the processor has SVM.
fn has_svm() -> bool {
    use std::arch::x86_64::__cpuid;
    const EXTENDED: u32 = 0x8000_0001;
    __cpuid(EXTENDED & 0xffff_0000).eax >= EXTENDED && __cpuid(EXTENDED).ecx >> 2 & 1 == 1
}
