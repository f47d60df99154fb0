//! Reports on vCPUs: whatever a guest has in its registers, page tables and stacks, the report is written.
#![no_main]

use kvm_bindings::{kvm_regs, kvm_sregs};
use libfuzzer_sys::arbitrary::{self, Arbitrary};
use libfuzzer_sys::fuzz_target;
use ringlet_fuzz::{image, memory};
use ringlet_vmm::debug::memory::AddressSpace;
use ringlet_vmm::debug::report::State;

/// A vCPU as a guest may leave it.
#[derive(Arbitrary, Debug)]
struct Cpu {
    rip: u64,
    rsp: u64,
    rbp: u64,
    cr0: u64,
    cr3: u16,
    cr4: u64,
    efer: u64,
    activity: u8,
    /// Where a debugger looks, and for how many bytes.
    address: u64,
    length: u16,
    memory: Vec<u8>,
}

fuzz_target!(|cpu: Cpu| {
    let (memory, image) = (memory(&cpu.memory), image());
    let state = State {
        index: 0,
        regs: kvm_regs {
            rip: cpu.rip,
            rsp: cpu.rsp,
            rbp: cpu.rbp,
            ..kvm_regs::default()
        },
        sregs: kvm_sregs {
            cr0: cpu.cr0,
            cr3: cpu.cr3.into(),
            cr4: cpu.cr4,
            efer: cpu.efer,
            ..kvm_sregs::default()
        },
        activity: cpu.activity.into(),
    };
    assert!(!state.describe(&memory, &image).is_empty());
    let space = AddressSpace::new(&memory, &image, &state.sregs);
    // What is not mapped is said to be so.
    let _ = space.read(cpu.address, &mut vec![0; cpu.length.into()]);
});
