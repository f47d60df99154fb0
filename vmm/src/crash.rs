//! What to tell when a vCPU cannot go on: registers, the instruction, and a hint.

use std::fmt::Write;

use kvm_bindings::{
    KVM_EXIT_INTERNAL_ERROR, KVM_INTERNAL_ERROR_EMULATION,
    KVM_INTERNAL_ERROR_EMULATION_FLAG_INSTRUCTION_BYTES,
};
use kvm_ioctls::VcpuFd;
use ringlet_devices::Memory;

use crate::debug::Image;
use crate::debug::memory::AddressSpace;
use crate::debug::report::State;

/// The longest x86 instruction.
const INSTRUCTION_MAX: usize = 15;

/// Why a vCPU stopped for good.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Cause {
    /// KVM_EXIT_SHUTDOWN.
    TripleFault,
    /// KVM_EXIT_INTERNAL_ERROR.
    InternalError,
    /// KVM_EXIT_FAIL_ENTRY, with the hardware's reason.
    FailedEntry(u64),
    /// KVM_EXIT_HLT, which only happens where no interrupt can come.
    Halted,
    /// An access to RAM that the host does not serve. KVM reports it as MMIO at that address where
    /// it emulates the guest, and as EFAULT where it does not.
    LostMemory(Option<u64>),
    /// Another exit.
    Unexpected(String),
    /// The debugger's requests cannot be met.
    Debug(String),
    /// KVM_RUN failed.
    Run(kvm_ioctls::Error),
}

impl Cause {
    /// What happened, and what to make of it.
    fn describe(&self, emulation: bool) -> (String, &'static str) {
        match self {
            Self::TripleFault => (
                "the guest triple-faulted".to_owned(),
                "an exception came while none could be handled: the guest kernel's tables or \
                 stack are bad",
            ),
            Self::InternalError if emulation => (
                "KVM cannot emulate an instruction of the guest (internal error)".to_owned(),
                "a CPL 0 instruction that this KVM cannot emulate: where KVM emulates CPL 0, the \
                 guest kernel may use general-purpose instructions only there",
            ),
            Self::InternalError => (
                "KVM reports an internal error".to_owned(),
                "the host's kernel log (dmesg) may say more",
            ),
            Self::FailedEntry(reason) => (
                format!("the processor refused to enter the guest (reason {reason:#x})"),
                "the guest's state is invalid, or KVM's nested virtualization is broken; the \
                 host's kernel log (dmesg) may say more",
            ),
            Self::Halted => (
                "the guest halted for good".to_owned(),
                "it waits for an interrupt, and none can come",
            ),
            Self::Unexpected(exit) => (
                format!("KVM stopped the guest with an exit that ringlet does not know: {exit}"),
                "this ringlet may be too old for the host's kernel",
            ),
            Self::LostMemory(addr) => (
                match addr {
                    Some(addr) => format!("guest memory at {addr:#x} is gone"),
                    None => "guest memory is gone".to_owned(),
                },
                "the root file system image was truncated while the VM ran, or the host is short \
                 of memory",
            ),
            Self::Debug(error) => (
                format!("the guest cannot be debugged any further: {error}"),
                "its tables or stack are bad, or KVM does not do what the debugger asked for",
            ),
            Self::Run(error) => (
                format!("KVM_RUN failed: {error}"),
                "the host may be short of memory; its kernel log (dmesg) may say more",
            ),
        }
    }
}

/// The report on vCPU `index`, several lines; the first says what happened.
pub fn report(
    fd: &mut VcpuFd,
    index: u32,
    memory: &Memory,
    image: &Image,
    cause: &Cause,
) -> String {
    let failure = emulation_failure(fd);
    let (what, hint) = cause.describe(failure.is_some());
    let mut text = format!("{what}; {hint}");
    // More of the memory may be gone, and must not be touched.
    if !matches!(cause, Cause::LostMemory(_))
        && let Ok(state) = State::of(fd, index)
    {
        let code = failure.filter(|bytes| !bytes.is_empty());
        add_state(&mut text, &state, code, memory, image);
    }
    text
}

/// The report on a guest that triple-faulted on one of the vCPUs in `states`.
pub fn triple_fault(states: &[State], memory: &Memory, image: &Image) -> String {
    let (what, hint) = Cause::TripleFault.describe(false);
    let mut text = format!("{what}; {hint}");
    for state in states.iter().filter(|state| state.is_started()) {
        add_state(&mut text, state, None, memory, image);
    }
    text
}

/// Adds a vCPU's state, and the bytes of the instruction that it is at: `code`, or what is there.
fn add_state(
    text: &mut String,
    state: &State,
    code: Option<Vec<u8>>,
    memory: &Memory,
    image: &Image,
) {
    // Writing to a String does not fail.
    let _ = write!(text, "\n{}", state.describe(memory, image));
    if let Some(code) = code.or_else(|| read_code(state, memory, image)) {
        let bytes: Vec<_> = code.iter().map(|byte| format!("{byte:02x}")).collect();
        let _ = write!(text, "\ncode at rip: {}", bytes.join(" "));
    }
}

/// For an emulation failure the instruction's bytes, empty where KVM does not tell them.
fn emulation_failure(fd: &mut VcpuFd) -> Option<Vec<u8>> {
    let run = fd.get_kvm_run();
    if run.exit_reason != KVM_EXIT_INTERNAL_ERROR {
        return None;
    }
    // SAFETY: the exit reason says which member of the union KVM filled.
    let failure = unsafe { run.__bindgen_anon_1.emulation_failure };
    if failure.suberror != KVM_INTERNAL_ERROR_EMULATION {
        return None;
    }
    let has_bytes = failure.ndata > 0
        && failure.flags & u64::from(KVM_INTERNAL_ERROR_EMULATION_FLAG_INSTRUCTION_BYTES) != 0;
    if !has_bytes {
        return Some(Vec::new());
    }
    // SAFETY: integers only, any bytes are valid; the flag says that KVM filled them.
    let instruction = unsafe { failure.__bindgen_anon_1.__bindgen_anon_1 };
    let size = usize::from(instruction.insn_size).min(INSTRUCTION_MAX);
    Some(instruction.insn_bytes[..size].to_vec())
}

/// The bytes at the instruction pointer, as far as they are in one page of guest memory.
fn read_code(state: &State, memory: &Memory, image: &Image) -> Option<Vec<u8>> {
    let (rip, sregs) = (state.regs.rip, &state.sregs);
    let linear = match sregs.cs.l {
        1 => rip,
        _ => sregs.cs.base.wrapping_add(rip) & 0xffff_ffff,
    };
    let space = AddressSpace::new(memory, image, sregs);
    let (_, part) = space.pieces(linear, INSTRUCTION_MAX).next()?;
    let mut code = vec![0; part.len()];
    space.read(linear, &mut code).ok()?;
    Some(code)
}
