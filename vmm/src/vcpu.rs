//! Virtual CPUs: their first state, and the loop that runs one and serves its exits.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use kvm_bindings::{CpuId, kvm_regs, kvm_segment};
use kvm_ioctls::{VcpuExit, VcpuFd, VmFd};
use ringlet_devices::{Memory, Stop};
use vm_memory::{GuestAddress, GuestMemoryBackend};

use crate::bus::Bus;
use crate::cpuid;
use crate::crash::{self, Cause};
use crate::outcome::{Ending, Outcome};
use crate::serial::SerialPort;

/// CR0: protected mode, and ET, which is always set. Caching is on, unlike after reset.
const CR0: u64 = 1 | 1 << 4;
/// Bit 1 of RFLAGS is always set.
const RFLAGS_RESERVED: u64 = 2;

/// Segment types (Intel SDM volume 3, 3.4.5): code, readable and accessed; data, writable and
/// accessed; busy 32-bit TSS.
const CODE: u8 = 0xb;
const DATA: u8 = 0x3;
const TSS: u8 = 0xb;

/// What all vCPUs of a VM share.
#[derive(Clone)]
pub struct Machine {
    /// Devices in memory.
    pub bus: Arc<Bus>,
    /// The one device on I/O ports.
    pub serial: Arc<Mutex<SerialPort>>,
    /// Where the end of the VM is said.
    pub ending: Arc<Ending>,
    /// Guest RAM.
    pub memory: Memory,
}

impl Machine {
    /// Writes out what the serial port holds of a line.
    pub fn flush_serial(&self) {
        self.lock_serial().flush();
    }

    fn lock_serial(&self) -> MutexGuard<'_, SerialPort> {
        self.serial.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A virtual CPU.
pub struct Vcpu {
    fd: VcpuFd,
    index: u32,
    machine: Machine,
}

impl Vcpu {
    /// Creates vCPU `index` of `count`. All but the first wait for a startup IPI.
    ///
    /// # Errors
    ///
    /// Those of `KVM_CREATE_VCPU` and `KVM_SET_CPUID2`.
    pub fn new(
        vm: &VmFd,
        index: u32,
        count: u32,
        supported: &CpuId,
        machine: Machine,
    ) -> Result<Self, kvm_ioctls::Error> {
        let fd = vm.create_vcpu(index.into())?;
        fd.set_cpuid2(&cpuid::for_vcpu(supported, index, count))?;
        Ok(Self { fd, index, machine })
    }

    /// Sets the state that PVH asks for (Xen's `docs/misc/pvh.pandoc`): 32-bit protected mode with
    /// flat segments, paging off, `ebx` pointing at the start info.
    ///
    /// # Errors
    ///
    /// Those of `KVM_SET_SREGS` and `KVM_SET_REGS`.
    pub fn enter_at(&self, entry: u64, start_info: u64) -> Result<(), kvm_ioctls::Error> {
        let mut sregs = self.fd.get_sregs()?;
        sregs.cs = flat(CODE);
        sregs.ds = flat(DATA);
        sregs.es = sregs.ds;
        sregs.ss = sregs.ds;
        sregs.fs = sregs.ds;
        sregs.gs = sregs.ds;
        sregs.tr = kvm_segment {
            limit: 0x67,
            type_: TSS,
            present: 1,
            ..Default::default()
        };
        sregs.cr0 = CR0;
        self.fd.set_sregs(&sregs)?;
        self.fd.set_regs(&kvm_regs {
            rip: entry,
            rbx: start_info,
            rflags: RFLAGS_RESERVED,
            ..Default::default()
        })
    }

    /// Runs the guest until the VM ends or `stop` says so.
    pub fn run(mut self, stop: &Stop) {
        while !stop.requested() && !self.machine.ending.is_set() {
            if let Err(cause) = self.step() {
                let report = crash::report(&mut self.fd, self.index, &self.machine.memory, &cause);
                self.machine.ending.end(Outcome::Crash(report));
            }
        }
    }

    /// Runs the guest to its next exit and serves that.
    fn step(&mut self) -> Result<(), Cause> {
        let machine = &self.machine;
        match self.fd.run() {
            Ok(VcpuExit::MmioWrite(addr, _) | VcpuExit::MmioRead(addr, _))
                if machine.memory.address_in_range(GuestAddress(addr)) =>
            {
                return Err(Cause::LostMemory(Some(addr)));
            }
            Ok(VcpuExit::MmioWrite(addr, data)) => machine.bus.write(addr, data),
            Ok(VcpuExit::MmioRead(addr, data)) => machine.bus.read(addr, data),
            Ok(VcpuExit::IoOut(port, data)) => machine.lock_serial().write(port, data),
            Ok(VcpuExit::IoIn(port, data)) => machine.lock_serial().read(port, data),
            Ok(VcpuExit::Intr) => (),
            Ok(VcpuExit::Hlt) => return Err(Cause::Halted),
            Ok(VcpuExit::Shutdown) => return Err(Cause::TripleFault),
            Ok(VcpuExit::InternalError) => return Err(Cause::InternalError),
            Ok(VcpuExit::FailEntry(reason, _)) => return Err(Cause::FailedEntry(reason)),
            Ok(exit) => return Err(Cause::Unexpected(format!("{exit:?}"))),
            Err(error) if matches!(error.errno(), libc::EINTR | libc::EAGAIN) => (),
            Err(error) if error.errno() == libc::EFAULT => return Err(Cause::LostMemory(None)),
            Err(error) => return Err(Cause::Run(error)),
        }
        Ok(())
    }
}

/// A 32-bit segment over the whole address space.
fn flat(type_: u8) -> kvm_segment {
    kvm_segment {
        base: 0,
        limit: u32::MAX,
        // Selectors name nothing: the boot protocol leaves the GDT undefined.
        selector: if type_ == CODE { 0x8 } else { 0x10 },
        type_,
        present: 1,
        db: 1,
        s: 1,
        g: 1,
        ..Default::default()
    }
}
