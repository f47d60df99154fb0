//! Virtual CPUs: their first state, and the loop that runs one and serves its exits.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use kvm_bindings::{CpuId, kvm_debug_exit_arch, kvm_regs, kvm_segment};
use kvm_ioctls::{VcpuExit, VcpuFd, VmFd};
use ringlet_devices::{Memory, Stop};
use vm_memory::{GuestAddress, GuestMemoryBackend};

use crate::bus::Bus;
use crate::cpuid;
use crate::crash::{self, Cause};
use crate::debug::Image;
use crate::debug::port::Dock;
use crate::debug::trap::{Cpu, Tracer, TrapError};
use crate::metrics::{Exit, Metrics};
use crate::missing::MissingTable;
use crate::outcome::{Ending, Outcome};
use crate::serial::SerialPort;

/// Where KVM puts a TSS of its own on Intel processors without unrestricted guests: three pages
/// below the BIOS, in no RAM and no device.
pub(crate) const TSS_ADDRESS: usize = 0xfffb_d000;

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
    /// What is counted.
    pub metrics: Arc<Metrics>,
    /// What the program asked for in vain.
    pub missing: Arc<MissingTable>,
    /// The kernel.
    pub image: Arc<Image>,
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
    cpu: Cpu,
    index: u32,
    machine: Machine,
    dock: Dock<Cpu>,
}

/// Why a vCPU left the guest, once that is served.
enum Left {
    /// A device was accessed.
    Access,
    /// A signal, or nothing at all.
    Interrupted,
    /// The debugger is concerned.
    Debug(kvm_debug_exit_arch),
}

impl Vcpu {
    /// Creates vCPU `index` of `count`, which others reach through `dock`. All but the first wait for
    /// a startup IPI.
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
        dock: Dock<Cpu>,
        tracer: Option<Tracer>,
    ) -> Result<Self, kvm_ioctls::Error> {
        let fd = vm.create_vcpu(index.into())?;
        fd.set_cpuid2(&cpuid::for_vcpu(supported, index, count))?;
        Ok(Self {
            cpu: Cpu { fd, tracer },
            index,
            machine,
            dock,
        })
    }

    /// Sets the state that PVH asks for (Xen's `docs/misc/pvh.pandoc`): 32-bit protected mode with
    /// flat segments, paging off, `ebx` pointing at the start info.
    ///
    /// # Errors
    ///
    /// Those of `KVM_SET_SREGS` and `KVM_SET_REGS`.
    pub fn enter_at(&self, entry: u64, start_info: u64) -> Result<(), kvm_ioctls::Error> {
        enter_at(&self.cpu.fd, entry, start_info)
    }

    /// Runs the guest until the VM ends or `stop` says so.
    pub fn run(mut self, stop: &Stop) {
        self.dock.moor();
        let ending = Arc::clone(&self.machine.ending);
        let over = || stop.requested() || ending.is_set();
        loop {
            self.dock.attend(&mut self.cpu, over);
            if over() {
                return;
            }
            let Err(cause) = self.step() else {
                continue;
            };
            self.machine.metrics.count_exit(Exit::Other);
            let (memory, image) = (&self.machine.memory, &self.machine.image);
            let report = crash::report(&mut self.cpu.fd, self.index, memory, image, &cause);
            if self.cpu.tracer.as_mut().is_some_and(Tracer::on_crash) {
                self.dock.hold();
                self.dock.attend(&mut self.cpu, over);
            }
            ending.end(Outcome::Crash(report));
        }
    }

    /// Runs the guest to its next exit and serves that.
    fn step(&mut self) -> Result<(), Cause> {
        let left = match self.enter() {
            Err(Cause::InternalError) => return self.on_internal_error(),
            left => left?,
        };
        let Cpu { fd, tracer } = &mut self.cpu;
        let Some(tracer) = tracer else {
            return Ok(());
        };
        let stops = match left {
            Left::Interrupted => return Ok(()),
            Left::Debug(exit) => tracer.on_debug(fd, &exit).map_err(debug_cause)?,
            Left::Access if !tracer.is_stepping() => return Ok(()),
            Left::Access => return self.finish_access(),
        };
        if stops {
            self.dock.hold();
        }
        Ok(())
    }

    /// Has KVM finish the instruction whose access was served, and go no further.
    fn finish_access(&mut self) -> Result<(), Cause> {
        self.cpu.fd.set_kvm_immediate_exit(1);
        let left = loop {
            match self.enter() {
                // An access in several parts.
                Ok(Left::Access) => (),
                left => break left,
            }
        };
        self.cpu.fd.set_kvm_immediate_exit(0);
        let Cpu { fd, tracer } = &mut self.cpu;
        let Some(tracer) = tracer else {
            return Ok(());
        };
        let stops = match left? {
            Left::Debug(exit) => tracer.on_debug(fd, &exit),
            _ => tracer.on_access(fd),
        };
        if stops.map_err(debug_cause)? {
            self.dock.hold();
        }
        Ok(())
    }

    /// Where KVM emulates CPL 0, a breakpoint there is an instruction that it cannot emulate.
    fn on_internal_error(&mut self) -> Result<(), Cause> {
        let Cpu { fd, tracer } = &mut self.cpu;
        let stops = match tracer {
            Some(tracer) => tracer.on_internal_error(fd).map_err(debug_cause)?,
            None => false,
        };
        match stops {
            true => self.dock.hold(),
            false => return Err(Cause::InternalError),
        }
        Ok(())
    }

    /// Runs the guest to its next exit; serves that if it is an access to a device.
    fn enter(&mut self) -> Result<Left, Cause> {
        let machine = &self.machine;
        match self.cpu.fd.run() {
            Ok(VcpuExit::MmioWrite(addr, _) | VcpuExit::MmioRead(addr, _))
                if machine.memory.address_in_range(GuestAddress(addr)) =>
            {
                return Err(Cause::LostMemory(Some(addr)));
            }
            Ok(VcpuExit::MmioWrite(addr, data)) => {
                machine.metrics.count_exit(Exit::MmioWrite);
                machine.bus.write(addr, data);
            }
            Ok(VcpuExit::MmioRead(addr, data)) => {
                machine.metrics.count_exit(Exit::MmioRead);
                machine.bus.read(addr, data);
            }
            Ok(VcpuExit::IoOut(port, data)) => {
                machine.metrics.count_exit(Exit::IoOut);
                machine.lock_serial().write(port, data);
            }
            Ok(VcpuExit::IoIn(port, data)) => {
                machine.metrics.count_exit(Exit::IoIn);
                machine.lock_serial().read(port, data);
            }
            Ok(VcpuExit::Intr) => {
                machine.metrics.count_exit(Exit::Interrupted);
                return Ok(Left::Interrupted);
            }
            Ok(VcpuExit::Debug(exit)) => {
                machine.metrics.count_exit(Exit::Debug);
                return Ok(Left::Debug(exit));
            }
            Ok(VcpuExit::Hlt) => return Err(Cause::Halted),
            Ok(VcpuExit::Shutdown) => return Err(Cause::TripleFault),
            Ok(VcpuExit::InternalError) => return Err(Cause::InternalError),
            Ok(VcpuExit::FailEntry(reason, _)) => return Err(Cause::FailedEntry(reason)),
            Ok(exit) => return Err(Cause::Unexpected(format!("{exit:?}"))),
            Err(error) if matches!(error.errno(), libc::EINTR | libc::EAGAIN) => {
                machine.metrics.count_exit(Exit::Interrupted);
                return Ok(Left::Interrupted);
            }
            Err(error) if error.errno() == libc::EFAULT => return Err(Cause::LostMemory(None)),
            Err(error) => return Err(Cause::Run(error)),
        }
        Ok(Left::Access)
    }
}

/// See [`Vcpu::enter_at`].
pub(crate) fn enter_at(fd: &VcpuFd, entry: u64, start_info: u64) -> Result<(), kvm_ioctls::Error> {
    let mut sregs = fd.get_sregs()?;
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
    fd.set_sregs(&sregs)?;
    fd.set_regs(&kvm_regs {
        rip: entry,
        rbx: start_info,
        rflags: RFLAGS_RESERVED,
        ..Default::default()
    })
}

fn debug_cause(error: TrapError) -> Cause {
    Cause::Debug(error.to_string())
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
