//! A vCPU's registers as GDB sees them: `target.xml` says which and in what order.

use gdbstub::arch::{Arch, Registers};
use gdbstub_arch::x86::reg::{X86_64CoreRegs, X86SegmentRegs, X87FpuInternalRegs};
use kvm_bindings::{kvm_fpu, kvm_regs, kvm_sregs};
use kvm_ioctls::VcpuFd;

/// x86-64 with SSE, segment bases and control registers.
pub enum X86_64 {}

impl Arch for X86_64 {
    type Usize = u64;
    type Registers = CpuRegisters;
    type RegId = ();
    type BreakpointKind = usize;

    fn target_description_xml() -> Option<&'static str> {
        Some(include_str!("target.xml"))
    }
}

/// Bytes of what [`X86_64CoreRegs`] serialises.
const CORE_SIZE: usize = 0x218;
/// FS base, GS base, CR0, CR2, CR3, CR4, CR8, EFER.
const SYSTEM_COUNT: usize = 8;

/// All registers that GDB sees.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct CpuRegisters {
    /// General, segment, x87 and SSE registers.
    pub core: X86_64CoreRegs,
    /// The others in the order of `target.xml`.
    system: [u64; SYSTEM_COUNT],
}

impl Registers for CpuRegisters {
    type ProgramCounter = u64;

    fn pc(&self) -> u64 {
        self.core.rip
    }

    fn gdb_serialize(&self, mut write_byte: impl FnMut(Option<u8>)) {
        self.core.gdb_serialize(&mut write_byte);
        for byte in self.system.iter().flat_map(|value| value.to_le_bytes()) {
            write_byte(Some(byte));
        }
    }

    fn gdb_deserialize(&mut self, bytes: &[u8]) -> Result<(), ()> {
        let (core, system) = bytes.split_at_checked(CORE_SIZE).ok_or(())?;
        let (system, rest) = system.as_chunks::<8>();
        if system.len() != SYSTEM_COUNT || !rest.is_empty() {
            return Err(());
        }
        self.core.gdb_deserialize(core)?;
        for (value, bytes) in self.system.iter_mut().zip(system) {
            *value = u64::from_le_bytes(*bytes);
        }
        Ok(())
    }
}

/// Why registers cannot be written.
#[derive(Debug, thiserror::Error)]
pub enum WriteError {
    /// One that only the guest may change: a selector or control register.
    #[error("segment selectors and control registers cannot be written")]
    ReadOnly,
    /// KVM refuses.
    #[error(transparent)]
    Kvm(#[from] kvm_ioctls::Error),
}

impl CpuRegisters {
    /// Those of a vCPU.
    ///
    /// # Errors
    ///
    /// Those of `KVM_GET_REGS`, `KVM_GET_SREGS` and `KVM_GET_FPU`.
    pub fn read(fd: &VcpuFd) -> Result<Self, kvm_ioctls::Error> {
        Ok(Self::from_kvm(
            &fd.get_regs()?,
            &fd.get_sregs()?,
            &fd.get_fpu()?,
        ))
    }

    /// Makes them those of a vCPU.
    ///
    /// # Errors
    ///
    /// [`WriteError`].
    pub fn write(&self, fd: &VcpuFd) -> Result<(), WriteError> {
        let before = Self::read(fd)?;
        let [fs_base, gs_base, control @ ..] = self.system;
        if self.core.segments != before.core.segments || control != before.system[2..] {
            return Err(WriteError::ReadOnly);
        }
        if [fs_base, gs_base] != before.system[..2] {
            let mut sregs = fd.get_sregs()?;
            sregs.fs.base = fs_base;
            sregs.gs.base = gs_base;
            fd.set_sregs(&sregs)?;
        }
        let (vectors, old) = (&self.core, &before.core);
        if (&vectors.st, &vectors.fpu, &vectors.xmm, vectors.mxcsr)
            != (&old.st, &old.fpu, &old.xmm, old.mxcsr)
        {
            let mut fpu = fd.get_fpu()?;
            self.put_fpu(&mut fpu);
            fd.set_fpu(&fpu)?;
        }
        fd.set_regs(&self.general())?;
        Ok(())
    }

    fn from_kvm(regs: &kvm_regs, sregs: &kvm_sregs, fpu: &kvm_fpu) -> Self {
        let mut core = X86_64CoreRegs {
            regs: [
                regs.rax, regs.rbx, regs.rcx, regs.rdx, regs.rsi, regs.rdi, regs.rbp, regs.rsp,
                regs.r8, regs.r9, regs.r10, regs.r11, regs.r12, regs.r13, regs.r14, regs.r15,
            ],
            rip: regs.rip,
            eflags: regs.rflags as u32,
            segments: X86SegmentRegs {
                cs: sregs.cs.selector.into(),
                ss: sregs.ss.selector.into(),
                ds: sregs.ds.selector.into(),
                es: sregs.es.selector.into(),
                fs: sregs.fs.selector.into(),
                gs: sregs.gs.selector.into(),
            },
            fpu: X87FpuInternalRegs {
                fctrl: fpu.fcw.into(),
                fstat: fpu.fsw.into(),
                ftag: full_tags(fpu.ftwx),
                fioff: fpu.last_ip as u32,
                fooff: fpu.last_dp as u32,
                fop: fpu.last_opcode.into(),
                ..X87FpuInternalRegs::default()
            },
            xmm: fpu.xmm.map(u128::from_le_bytes),
            mxcsr: fpu.mxcsr,
            ..X86_64CoreRegs::default()
        };
        for (st, fpr) in core.st.iter_mut().zip(&fpu.fpr) {
            st.copy_from_slice(&fpr[..10]);
        }
        let system = [
            sregs.fs.base,
            sregs.gs.base,
            sregs.cr0,
            sregs.cr2,
            sregs.cr3,
            sregs.cr4,
            sregs.cr8,
            sregs.efer,
        ];
        Self { core, system }
    }

    fn general(&self) -> kvm_regs {
        let [
            rax,
            rbx,
            rcx,
            rdx,
            rsi,
            rdi,
            rbp,
            rsp,
            r8,
            r9,
            r10,
            r11,
            r12,
            r13,
            r14,
            r15,
        ] = self.core.regs;
        kvm_regs {
            rax,
            rbx,
            rcx,
            rdx,
            rsi,
            rdi,
            rbp,
            rsp,
            r8,
            r9,
            r10,
            r11,
            r12,
            r13,
            r14,
            r15,
            rip: self.core.rip,
            rflags: self.core.eflags.into(),
        }
    }

    fn put_fpu(&self, fpu: &mut kvm_fpu) {
        let core = &self.core;
        for (fpr, st) in fpu.fpr.iter_mut().zip(&core.st) {
            fpr[..10].copy_from_slice(st);
        }
        fpu.fcw = core.fpu.fctrl as u16;
        fpu.fsw = core.fpu.fstat as u16;
        fpu.ftwx = short_tags(core.fpu.ftag);
        fpu.last_ip = core.fpu.fioff.into();
        fpu.last_dp = core.fpu.fooff.into();
        fpu.last_opcode = core.fpu.fop as u16;
        fpu.xmm = core.xmm.map(u128::to_le_bytes);
        fpu.mxcsr = core.mxcsr;
    }
}

/// FSAVE's tag word, as far as FXSAVE's says: a register is valid (0) or empty (3).
fn full_tags(short: u8) -> u32 {
    (0..8)
        .filter(|index| short & 1 << index == 0)
        .fold(0, |tags, index| tags | 3 << (2 * index))
}

/// FXSAVE's tag byte for FSAVE's word.
fn short_tags(full: u32) -> u8 {
    (0..8)
        .filter(|index| full >> (2 * index) & 3 != 3)
        .fold(0, |tags, index| tags | 1 << index)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample() -> (kvm_regs, kvm_sregs, kvm_fpu) {
        let regs = kvm_regs {
            rax: 1,
            rsp: 2,
            r15: 3,
            rip: 0xffff_ffff_8000_0000,
            rflags: 0x202,
            ..Default::default()
        };
        let mut sregs = kvm_sregs {
            cr3: 0x1000,
            efer: 0xd01,
            ..Default::default()
        };
        sregs.cs.selector = 0x33;
        sregs.gs.base = 0x5555;
        let mut fpu = kvm_fpu {
            fcw: 0x37f,
            ftwx: 0x81,
            mxcsr: 0x1f80,
            ..Default::default()
        };
        fpu.xmm[15] = [7; 16];
        fpu.fpr[0][..10].copy_from_slice(&[9; 10]);
        (regs, sregs, fpu)
    }

    #[test]
    fn registers_survive_the_way_to_gdb_and_back() {
        let (regs, sregs, fpu) = sample();
        let registers = CpuRegisters::from_kvm(&regs, &sregs, &fpu);
        let mut bytes = Vec::new();
        registers.gdb_serialize(|byte| bytes.push(byte.unwrap()));
        let mut back = CpuRegisters::default();
        back.gdb_deserialize(&bytes).unwrap();
        assert_eq!(back, registers);
        assert_eq!(back.general(), regs);
        let mut put = kvm_fpu::default();
        back.put_fpu(&mut put);
        assert_eq!(put, fpu);
        assert_eq!(back.gdb_deserialize(&bytes[1..]), Err(()));
    }

    #[test]
    fn the_description_names_what_is_sent() {
        let xml = X86_64::target_description_xml().unwrap();
        let bits: usize = xml
            .lines()
            .filter(|line| line.contains("<reg "))
            .map(|line| {
                let size = line.split("bitsize=\"").nth(1).unwrap();
                size.split('"').next().unwrap().parse::<usize>().unwrap()
            })
            .sum();
        let mut bytes = 0;
        CpuRegisters::default().gdb_serialize(|_| bytes += 1);
        assert_eq!(bits, 8 * bytes);
    }

    #[test]
    fn tags() {
        assert_eq!(full_tags(0xff), 0);
        assert_eq!(full_tags(0), 0xffff);
        for tags in [0, 1, 0x80, 0xa5, 0xff] {
            assert_eq!(short_tags(full_tags(tags)), tags);
        }
    }
}
