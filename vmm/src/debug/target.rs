//! The VM as GDB sees it: vCPUs are threads, memory is what the vCPU that stopped last sees.

use std::sync::Arc;

use gdbstub::common::{Signal, Tid};
use gdbstub::target::ext::base::BaseOps;
use gdbstub::target::ext::base::multithread::{
    MultiThreadBase, MultiThreadResume, MultiThreadResumeOps, MultiThreadSchedulerLocking,
    MultiThreadSchedulerLockingOps, MultiThreadSingleStep, MultiThreadSingleStepOps,
};
use gdbstub::target::ext::breakpoints::{
    Breakpoints, BreakpointsOps, HwBreakpoint, HwBreakpointOps, HwWatchpoint, HwWatchpointOps,
    SwBreakpoint, SwBreakpointOps, WatchKind,
};
use gdbstub::target::ext::thread_extra_info::{ThreadExtraInfo, ThreadExtraInfoOps};
use gdbstub::target::{Target, TargetError, TargetResult};
use vm_memory::{Bytes, GuestAddress};

use super::breakpoints::{Access, Watch};
use super::memory::AddressSpace;
use super::port::{NoAnswer, Port};
use super::registers::{CpuRegisters, WriteError, X86_64};
use super::session::{Action, Session};
use super::trap::Cpu;

/// What GDB is told (its own numbers, which for these are Linux's).
const EIO: u8 = libc::EIO as u8;
const EFAULT: u8 = libc::EFAULT as u8;
const EINVAL: u8 = libc::EINVAL as u8;

/// A VM under a debugger.
pub struct VmTarget {
    session: Arc<Session>,
    ports: Arc<[Port<Cpu>]>,
    /// The vCPU that stopped last.
    current: usize,
    /// What GDB asks of each vCPU when the VM goes on, if anything.
    actions: Vec<Option<Action>>,
    /// Whether vCPUs of which GDB asks nothing are held; else they go on.
    is_locked: bool,
}

/// GDB's number of a vCPU.
fn thread_of(index: usize) -> Tid {
    Tid::MIN.saturating_add(index)
}

impl VmTarget {
    /// The VM with these vCPUs.
    pub fn new(session: Arc<Session>, ports: Arc<[Port<Cpu>]>) -> Self {
        let actions = vec![None; ports.len()];
        Self {
            session,
            ports,
            current: 0,
            actions,
            is_locked: false,
        }
    }

    /// GDB's number of the vCPU that stopped last.
    pub fn current(&self) -> Tid {
        thread_of(self.current)
    }

    /// Holds all vCPUs, as `index` has stopped.
    pub fn hold(&mut self, index: Option<usize>) {
        self.current = index.unwrap_or(self.current);
        for (index, port) in self.ports.iter().enumerate() {
            if let Err(error) = port.hold() {
                log::warn!("gdb: vCPU {index}: {error}");
            }
        }
    }

    /// Takes the debugger's traces off the VM, and lets it go on.
    pub fn detach(&mut self) {
        self.session.breakpoints().clear(&self.session.memory);
        self.session.set_attached(false);
        for (index, port) in self.ports.iter().enumerate() {
            match port.ask(Cpu::disarm) {
                Ok(Ok(())) => (),
                Ok(Err(error)) => log::warn!("gdb: vCPU {index}: {error}"),
                Err(error) => log::debug!("gdb: vCPU {index}: {error}"),
            }
            port.release();
        }
    }

    fn ask<R: Send + 'static>(
        &self,
        tid: Tid,
        question: impl FnOnce(&mut Cpu) -> R + Send + 'static,
    ) -> TargetResult<R, Self> {
        let port = self.ports.get(tid.get() - 1);
        let port = port.ok_or(TargetError::Errno(EINVAL))?;
        port.ask(question).map_err(|_| TargetError::Errno(EIO))
    }

    /// Has `access` look at the address space of a vCPU.
    fn with_space<R>(
        &self,
        tid: Tid,
        access: impl FnOnce(&AddressSpace<'_>) -> R,
    ) -> TargetResult<R, Self> {
        let sregs = self
            .ask(tid, |cpu| cpu.fd.get_sregs())?
            .map_err(|_| TargetError::Errno(EIO))?;
        let (memory, image) = (&self.session.memory, &self.session.image);
        Ok(access(&AddressSpace::new(memory, image, &sregs)))
    }

    fn set_action(&mut self, tid: Tid, action: Action) -> Result<(), NoAnswer> {
        let place = self.actions.get_mut(tid.get() - 1).ok_or(NoAnswer)?;
        *place = Some(action);
        Ok(())
    }

    fn watch(address: u64, len: u64, kind: WatchKind) -> Watch {
        Watch {
            address,
            len,
            access: match kind {
                WatchKind::Write => Access::Write,
                // The processor cannot watch for reads alone.
                WatchKind::Read | WatchKind::ReadWrite => Access::ReadWrite,
            },
        }
    }

    fn execution(address: u64) -> Watch {
        Watch {
            address,
            len: 1,
            access: Access::Execute,
        }
    }
}

impl Target for VmTarget {
    type Arch = X86_64;
    type Error = NoAnswer;

    fn base_ops(&mut self) -> BaseOps<'_, X86_64, NoAnswer> {
        BaseOps::MultiThread(self)
    }

    fn support_breakpoints(&mut self) -> Option<BreakpointsOps<'_, Self>> {
        Some(self)
    }
}

impl MultiThreadBase for VmTarget {
    fn read_registers(&mut self, registers: &mut CpuRegisters, tid: Tid) -> TargetResult<(), Self> {
        *registers = self
            .ask(tid, |cpu| CpuRegisters::read(&cpu.fd))?
            .map_err(|_| TargetError::Errno(EIO))?;
        Ok(())
    }

    fn write_registers(&mut self, registers: &CpuRegisters, tid: Tid) -> TargetResult<(), Self> {
        let registers = registers.clone();
        self.ask(tid, move |cpu| registers.write(&cpu.fd))?
            .map_err(|error| match error {
                WriteError::ReadOnly => TargetError::Errno(EINVAL),
                WriteError::Kvm(_) => TargetError::Errno(EIO),
            })
    }

    fn read_addrs(&mut self, start: u64, data: &mut [u8], tid: Tid) -> TargetResult<usize, Self> {
        let breakpoints = self.session.breakpoints();
        let done = self.with_space(tid, |space| {
            let mut done = 0;
            for (physical, part) in space.pieces(start, data.len()) {
                let (bytes, end) = (&mut data[part.clone()], part.end);
                let memory = &self.session.memory;
                if memory.read_slice(bytes, GuestAddress(physical)).is_err() {
                    break;
                }
                breakpoints.hide(physical, bytes);
                done = end;
            }
            done
        })?;
        match done {
            0 if !data.is_empty() => Err(TargetError::Errno(EFAULT)),
            done => Ok(done),
        }
    }

    fn write_addrs(&mut self, start: u64, data: &[u8], tid: Tid) -> TargetResult<(), Self> {
        let mut breakpoints = self.session.breakpoints();
        self.with_space(tid, |space| {
            space.write(start, data)?;
            for (physical, part) in space.pieces(start, data.len()) {
                breakpoints.renew(&self.session.memory, physical, &data[part]);
            }
            Ok(())
        })?
        .map_err(|_: super::memory::NotMapped| TargetError::Errno(EFAULT))
    }

    fn list_active_threads(&mut self, thread: &mut dyn FnMut(Tid)) -> Result<(), NoAnswer> {
        (0..self.ports.len()).map(thread_of).for_each(thread);
        Ok(())
    }

    fn support_resume(&mut self) -> Option<MultiThreadResumeOps<'_, Self>> {
        Some(self)
    }

    fn support_thread_extra_info(&mut self) -> Option<ThreadExtraInfoOps<'_, Self>> {
        Some(self)
    }
}

impl ThreadExtraInfo for VmTarget {
    fn thread_extra_info(&self, tid: Tid, buffer: &mut [u8]) -> Result<usize, NoAnswer> {
        let sregs = self.ask(tid, |cpu| cpu.fd.get_sregs());
        let text = match sregs {
            Ok(Ok(sregs)) => format!("vCPU {}, CPL {}", tid.get() - 1, sregs.ss.dpl),
            _ => format!("vCPU {}", tid.get() - 1),
        };
        let len = text.len().min(buffer.len());
        buffer[..len].copy_from_slice(&text.as_bytes()[..len]);
        Ok(len)
    }
}

impl MultiThreadResume for VmTarget {
    fn resume(&mut self) -> Result<(), NoAnswer> {
        let mut ready = Vec::new();
        for (port, action) in self.ports.iter().zip(&self.actions) {
            let action = match action {
                Some(action) => *action,
                None if self.is_locked => continue,
                None => Action::Continue,
            };
            match port.ask(move |cpu| cpu.arm(action))? {
                Ok(true) => ready.push(port),
                // It has stopped again already.
                Ok(false) => (),
                Err(error) => {
                    log::error!("gdb: {error}");
                    return Err(NoAnswer);
                }
            }
        }
        ready.into_iter().for_each(Port::release);
        Ok(())
    }

    fn clear_resume_actions(&mut self) -> Result<(), NoAnswer> {
        self.actions.fill(None);
        self.is_locked = false;
        Ok(())
    }

    fn set_resume_action_continue(
        &mut self,
        tid: Tid,
        _signal: Option<Signal>,
    ) -> Result<(), NoAnswer> {
        self.set_action(tid, Action::Continue)
    }

    fn support_single_step(&mut self) -> Option<MultiThreadSingleStepOps<'_, Self>> {
        Some(self)
    }

    fn support_scheduler_locking(&mut self) -> Option<MultiThreadSchedulerLockingOps<'_, Self>> {
        Some(self)
    }
}

impl MultiThreadSingleStep for VmTarget {
    fn set_resume_action_step(
        &mut self,
        tid: Tid,
        _signal: Option<Signal>,
    ) -> Result<(), NoAnswer> {
        self.set_action(tid, Action::Step)
    }
}

impl MultiThreadSchedulerLocking for VmTarget {
    fn set_resume_action_scheduler_lock(&mut self) -> Result<(), NoAnswer> {
        self.is_locked = true;
        Ok(())
    }
}

impl Breakpoints for VmTarget {
    fn support_sw_breakpoint(&mut self) -> Option<SwBreakpointOps<'_, Self>> {
        Some(self)
    }

    // Where KVM emulates CPL 0, the debug registers do nothing at CPL 3, where kernel and program
    // are: better to say so than never to stop.
    fn support_hw_breakpoint(&mut self) -> Option<HwBreakpointOps<'_, Self>> {
        match self.session.native {
            true => Some(self),
            false => None,
        }
    }

    fn support_hw_watchpoint(&mut self) -> Option<HwWatchpointOps<'_, Self>> {
        match self.session.native {
            true => Some(self),
            false => None,
        }
    }
}

impl SwBreakpoint for VmTarget {
    fn add_sw_breakpoint(&mut self, address: u64, _kind: usize) -> TargetResult<bool, Self> {
        let place = self.with_space(self.current(), |space| space.translate(address))?;
        let Some((physical, _)) = place else {
            return Ok(false);
        };
        let memory = &self.session.memory;
        Ok(self.session.breakpoints().insert(memory, address, physical))
    }

    fn remove_sw_breakpoint(&mut self, address: u64, _kind: usize) -> TargetResult<bool, Self> {
        let memory = &self.session.memory;
        Ok(self.session.breakpoints().remove(memory, address))
    }
}

impl HwBreakpoint for VmTarget {
    fn add_hw_breakpoint(&mut self, address: u64, _kind: usize) -> TargetResult<bool, Self> {
        Ok(self.session.breakpoints().watch(Self::execution(address)))
    }

    fn remove_hw_breakpoint(&mut self, address: u64, _kind: usize) -> TargetResult<bool, Self> {
        Ok(self.session.breakpoints().unwatch(Self::execution(address)))
    }
}

impl HwWatchpoint for VmTarget {
    fn add_hw_watchpoint(
        &mut self,
        address: u64,
        len: u64,
        kind: WatchKind,
    ) -> TargetResult<bool, Self> {
        let watch = Self::watch(address, len, kind);
        Ok(self.session.breakpoints().watch(watch))
    }

    fn remove_hw_watchpoint(
        &mut self,
        address: u64,
        len: u64,
        kind: WatchKind,
    ) -> TargetResult<bool, Self> {
        let watch = Self::watch(address, len, kind);
        Ok(self.session.breakpoints().unwatch(watch))
    }
}
