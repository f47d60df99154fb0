//! One vCPU under a debugger: how it is stepped and run, and what its debug exits mean.
//!
//! Where KVM has VMX or SVM, `KVM_SET_GUEST_DEBUG` does all of it. A KVM that emulates CPL 0 and
//! runs CPL 3 natively, with neither, does less. Measured there:
//!
//! - At CPL 0 single-stepping and debug registers work; INT3 is an instruction that KVM cannot
//!   emulate (an internal error), which serves as well.
//! - At CPL 3 debug registers are ignored. INT3 and the single-step trap are exceptions of the
//!   guest: its handlers at CPL 0 run. So debug registers are set at these handlers' first
//!   instructions; when one is reached, the exception is undone and reported.
//! - A step from CPL 0 to CPL 3 (IRETQ), and one of a SYSCALL at CPL 3, runs on. Both instructions
//!   are carried out here.

use std::sync::Arc;

use kvm_bindings::{
    KVM_GUESTDBG_BLOCKIRQ, KVM_GUESTDBG_ENABLE, KVM_GUESTDBG_INJECT_BP, KVM_GUESTDBG_INJECT_DB,
    KVM_GUESTDBG_SINGLESTEP, KVM_GUESTDBG_USE_HW_BP, KVM_GUESTDBG_USE_SW_BP, Msrs,
    kvm_debug_exit_arch, kvm_guest_debug, kvm_msr_entry, kvm_regs, kvm_sregs,
};
use kvm_ioctls::VcpuFd;

use super::breakpoints::{Access, Watch, debug_registers};
use super::exception::{EFER_LONG_MODE_ACTIVE, FRAME_SIZE, Frame, handler, segment};
use super::memory::{AddressSpace, NotMapped};
use super::session::{Action, Event, Reason, Session};
use crate::boot::{SPARE, SPARE_SIZE};

/// Exceptions.
const DEBUG: u32 = 1;
const BREAKPOINT: u32 = 3;
/// DR6: the single-step trap (BS), and a bit for each debug register.
const DR6_STEP: u64 = 1 << 14;
const DR6_REGISTERS: u64 = 0xf;
/// RFLAGS: the trap flag.
const TRAP_FLAG: u64 = 1 << 8;

/// Where the stack for exceptions of CPL 3 is in the TSS (Intel SDM volume 3, 9.7).
const TSS_RSP0: u64 = 4;
const MSR_LSTAR: u32 = 0xc000_0082;
const MSR_FMASK: u32 = 0xc000_0084;

/// Instructions that are stepped in their own way.
const SYSCALL: [u8; 2] = [0x0f, 0x05];
const IRETQ: [u8; 2] = [0x48, 0xcf];
const PUSHF: u8 = 0x9c;
const HLT: u8 = 0xf4;

/// A vCPU's registers or the memory around them cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum TrapError {
    /// KVM refuses.
    #[error("KVM: {0}")]
    Kvm(#[from] kvm_ioctls::Error),
    /// A stack or table is not there.
    #[error(transparent)]
    NotMapped(#[from] NotMapped),
}

/// A vCPU as its visitors see it.
pub struct Cpu {
    /// The vCPU.
    pub fd: VcpuFd,
    /// Its side of the debugger, where there may be one.
    pub tracer: Option<Tracer>,
}

impl Cpu {
    /// Makes ready for what the debugger asks. False if that is done already, and the event told.
    ///
    /// # Errors
    ///
    /// [`TrapError`].
    pub fn arm(&mut self, action: Action) -> Result<bool, TrapError> {
        match &mut self.tracer {
            Some(tracer) => tracer.arm(&self.fd, action),
            None => Ok(true),
        }
    }

    /// Makes the vCPU run as without a debugger.
    ///
    /// # Errors
    ///
    /// Those of `KVM_SET_GUEST_DEBUG`.
    pub fn disarm(&mut self) -> Result<(), kvm_ioctls::Error> {
        if let Some(tracer) = &mut self.tracer {
            tracer.mode = Mode::Detached;
            self.fd.set_guest_debug(&kvm_guest_debug::default())?;
        }
        Ok(())
    }
}

/// What the vCPU is doing for the debugger.
enum Mode {
    Detached,
    Run,
    Step(Before),
}

/// What it was like before a step.
struct Before {
    rip: u64,
    rsp: u64,
    rflags: u64,
    cs: u16,
    instruction: [u8; 2],
    /// Where the step's trap will push its frame, and what is there.
    pushed: Option<(u64, [u8; FRAME_SIZE])>,
}

/// The debugger's side of one vCPU; it lives on the vCPU's thread.
pub struct Tracer {
    index: usize,
    session: Arc<Session>,
    mode: Mode,
}

impl Tracer {
    /// For vCPU `index`.
    pub fn new(index: usize, session: Arc<Session>) -> Self {
        Self {
            index,
            session,
            mode: Mode::Detached,
        }
    }

    /// Whether an access to a device that was just served may have been the instruction to step.
    pub fn is_stepping(&self) -> bool {
        matches!(self.mode, Mode::Step(_))
    }

    /// After an access to a device, which ends a step without a trap: whether the vCPU stops.
    ///
    /// # Errors
    ///
    /// Those of `KVM_GET_REGS`.
    pub fn on_access(&mut self, fd: &VcpuFd) -> Result<bool, TrapError> {
        match &self.mode {
            Mode::Step(before) if fd.get_regs()?.rip != before.rip => self.stop(Reason::Step),
            _ => Ok(false),
        }
    }

    /// After a debug exit: whether the vCPU stops.
    ///
    /// # Errors
    ///
    /// [`TrapError`].
    pub fn on_debug(&mut self, fd: &VcpuFd, exit: &kvm_debug_exit_arch) -> Result<bool, TrapError> {
        if let Mode::Detached = self.mode {
            return Ok(false);
        }
        if exit.exception == BREAKPOINT {
            let is_patch = self.session.breakpoints().contains(exit.pc);
            return match is_patch {
                true => self.stop(Reason::Patch),
                false => self.pass_on(fd, KVM_GUESTDBG_INJECT_BP),
            };
        }
        if !self.session.native {
            let sregs = fd.get_sregs()?;
            let handlers = self.handlers(&sregs);
            let at = handlers.and_then(|at| at.iter().position(|address| *address == exit.pc));
            return match at {
                Some(0) => self.on_step_handler(fd, sregs),
                Some(_) => self.on_breakpoint_handler(fd, sregs),
                None => self.on_step(fd, exit),
            };
        }
        let hit = (exit.dr6 & DR6_REGISTERS).trailing_zeros() as usize;
        let watch = self.session.breakpoints().watches().get(hit).copied();
        match watch {
            Some(watch) => self.stop(Reason::Watch(watch)),
            None => self.on_step(fd, exit),
        }
    }

    /// After an internal error of KVM: whether it is about a patch, and the vCPU stops.
    ///
    /// # Errors
    ///
    /// Those of `KVM_GET_REGS`.
    pub fn on_internal_error(&mut self, fd: &VcpuFd) -> Result<bool, TrapError> {
        let rip = fd.get_regs()?.rip;
        let is_patch =
            !matches!(self.mode, Mode::Detached) && self.session.breakpoints().contains(rip);
        match is_patch {
            true => self.stop(Reason::Patch),
            false => Ok(false),
        }
    }

    /// When the vCPU cannot go on: whether a debugger is there to look at it first.
    pub fn on_crash(&mut self) -> bool {
        let attached = self.session.is_attached();
        if attached {
            self.session.tell(Event::Stopped(self.index, Reason::Crash));
        }
        attached
    }

    fn stop(&mut self, reason: Reason) -> Result<bool, TrapError> {
        self.mode = Mode::Run;
        self.session.tell(Event::Stopped(self.index, reason));
        Ok(true)
    }

    fn arm(&mut self, fd: &VcpuFd, action: Action) -> Result<bool, TrapError> {
        match action {
            Action::Continue => {
                self.mode = Mode::Run;
                self.run(fd)?;
                Ok(true)
            }
            Action::Step => self.step(fd),
        }
    }

    /// Makes the vCPU run to the next breakpoint.
    fn run(&self, fd: &VcpuFd) -> Result<(), TrapError> {
        if self.session.native {
            return self.set(fd, 0, self.session.breakpoints().watches());
        }
        let sregs = fd.get_sregs()?;
        match self.handlers(&sregs) {
            Some(handlers) => {
                self.lend_stack(&sregs)?;
                self.set(fd, 0, &handlers.map(execution))
            }
            // The guest has no handlers yet. It is stepped until it has.
            None => self.set(fd, KVM_GUESTDBG_SINGLESTEP, &[]),
        }
    }

    /// Makes the vCPU execute one instruction, or does it here.
    fn step(&mut self, fd: &VcpuFd) -> Result<bool, TrapError> {
        let (regs, sregs) = (fd.get_regs()?, fd.get_sregs()?);
        let space = self.space(&sregs);
        let mut instruction = [0; 2];
        // What cannot be fetched faults when it is executed.
        let _ = space.read(regs.rip, &mut instruction);
        let cpl = sregs.ss.dpl;
        let is_long = sregs.efer & EFER_LONG_MODE_ACTIVE != 0 && sregs.cs.l == 1;
        if !self.session.native && is_long {
            match (cpl, instruction) {
                (0, IRETQ) => {
                    let frame = Frame::read(&space, regs.rsp)?;
                    self.return_to(fd, regs, sregs, &frame)?;
                    self.stop(Reason::Step)?;
                    return Ok(false);
                }
                (3, SYSCALL) => {
                    system_call(fd, regs)?;
                    self.stop(Reason::Step)?;
                    return Ok(false);
                }
                _ => (),
            }
        }
        let handlers = self.handlers(&sregs).filter(|_| !self.session.native);
        let mut pushed = None;
        if handlers.is_some() && cpl == 3 {
            self.lend_stack(&sregs)?;
            let top = space.read_u64(sregs.tr.base.wrapping_add(TSS_RSP0))?;
            let at = (top & !0xf).wrapping_sub(FRAME_SIZE as u64);
            let mut bytes = [0; FRAME_SIZE];
            space.read(at, &mut bytes)?;
            pushed = Some((at, bytes));
        }
        self.mode = Mode::Step(Before {
            rip: regs.rip,
            rsp: regs.rsp,
            rflags: regs.rflags,
            cs: sregs.cs.selector,
            instruction,
            pushed,
        });
        // An interrupt would make it a step into its handler; but HLT waits for one.
        let block = match instruction[0] {
            HLT => 0,
            _ => KVM_GUESTDBG_BLOCKIRQ,
        };
        let control = KVM_GUESTDBG_SINGLESTEP | block;
        match handlers {
            Some(handlers) => self.set(fd, control, &handlers.map(execution))?,
            None if self.session.native => {
                self.set(fd, control, self.session.breakpoints().watches())?;
            }
            None => self.set(fd, control, &[])?,
        }
        Ok(true)
    }

    /// After a step that KVM reports.
    fn on_step(&mut self, fd: &VcpuFd, exit: &kvm_debug_exit_arch) -> Result<bool, TrapError> {
        match &self.mode {
            Mode::Step(before) => {
                let (regs, sregs) = (fd.get_regs()?, fd.get_sregs()?);
                self.clear_pushed_trap_flag(before, &regs, &sregs);
                self.stop(Reason::Step)
            }
            // The program steps itself.
            Mode::Run if self.session.native && exit.dr6 & DR6_STEP != 0 => {
                self.pass_on(fd, KVM_GUESTDBG_INJECT_DB)
            }
            // Past a handler's first instruction, or towards the guest's handlers.
            _ => {
                self.run(fd)?;
                Ok(false)
            }
        }
    }

    /// The single-step trap of CPL 3 has reached the guest's handler.
    fn on_step_handler(&mut self, fd: &VcpuFd, sregs: kvm_sregs) -> Result<bool, TrapError> {
        let Mode::Step(before) = &self.mode else {
            return self.pass_handler(fd);
        };
        let regs = fd.get_regs()?;
        let space = self.space(&sregs);
        let mut frame = Frame::read(&space, regs.rsp)?;
        frame.rflags = frame.rflags & !TRAP_FLAG | before.rflags & TRAP_FLAG;
        if let Some((at, bytes)) = &before.pushed {
            space.write(*at, bytes)?;
        }
        let stepped = kvm_regs {
            rsp: frame.rsp,
            ..regs
        };
        self.clear_pushed_trap_flag(before, &stepped, &sregs);
        self.return_to(fd, regs, sregs, &frame)?;
        self.stop(Reason::Step)
    }

    /// An INT3 of CPL 3 has reached the guest's handler.
    fn on_breakpoint_handler(&mut self, fd: &VcpuFd, sregs: kvm_sregs) -> Result<bool, TrapError> {
        let regs = fd.get_regs()?;
        let mut frame = Frame::read(&self.space(&sregs), regs.rsp)?;
        let address = frame.rip.wrapping_sub(1);
        if self.session.breakpoints().contains(address) {
            frame.rip = address;
            if let Mode::Step(before) = &self.mode {
                frame.rflags = frame.rflags & !TRAP_FLAG | before.rflags & TRAP_FLAG;
            }
            self.return_to(fd, regs, sregs, &frame)?;
            return self.stop(Reason::Patch);
        }
        match &self.mode {
            // The program's own INT3 was stepped.
            Mode::Step(before) => {
                self.clear_pushed_trap_flag(before, &regs, &sregs);
                self.stop(Reason::Step)
            }
            _ => self.pass_handler(fd),
        }
    }

    /// Lets a handler run whose first instruction a debug register guards.
    fn pass_handler(&self, fd: &VcpuFd) -> Result<bool, TrapError> {
        self.set(fd, KVM_GUESTDBG_SINGLESTEP, &[])?;
        Ok(false)
    }

    /// Gives the guest an exception that is its own.
    fn pass_on(&self, fd: &VcpuFd, inject: u32) -> Result<bool, TrapError> {
        let step = match self.mode {
            Mode::Step(_) => KVM_GUESTDBG_SINGLESTEP,
            _ => 0,
        };
        self.set(fd, inject | step, self.session.breakpoints().watches())?;
        Ok(false)
    }

    /// The trap flag makes the step. Where the step stores the flags, it must not be seen: PUSHF
    /// stores them, and so does an exception that the instruction raises.
    fn clear_pushed_trap_flag(&self, before: &Before, regs: &kvm_regs, sregs: &kvm_sregs) {
        if before.rflags & TRAP_FLAG != 0 {
            return;
        }
        let space = self.space(sregs);
        let clear = |at: u64| {
            if let Ok(flags) = space.read_u64(at) {
                // It was readable, so it is writable.
                let _ = space.write(at, &(flags & !TRAP_FLAG).to_le_bytes());
            }
        };
        if before.instruction[0] == PUSHF {
            return clear(regs.rsp);
        }
        // The handler may have pushed a few words on the frame already.
        for frame in (0..4).map(|words| regs.rsp.wrapping_add(8 * words)) {
            let pushed = Frame::read(&space, frame);
            if pushed.is_ok_and(|pushed| {
                (pushed.cs, pushed.rsp) == (before.cs.into(), before.rsp)
                    && sregs.cs.selector != before.cs
            }) {
                return clear(frame + 16);
            }
        }
    }

    /// A kernel that has left CPL 0 but has no stack for exceptions yet gets one: an exception on none
    /// would be a triple fault.
    fn lend_stack(&self, sregs: &kvm_sregs) -> Result<(), NotMapped> {
        let space = self.space(sregs);
        let place = sregs.tr.base.wrapping_add(TSS_RSP0);
        let is_spare = space.translate(SPARE).is_some_and(|(at, _)| at == SPARE);
        if sregs.tr.base == 0 || !is_spare || space.read_u64(place)? != 0 {
            return Ok(());
        }
        space.write(place, &(SPARE + SPARE_SIZE).to_le_bytes())
    }

    /// Does what IRETQ does with `frame`.
    fn return_to(
        &self,
        fd: &VcpuFd,
        mut regs: kvm_regs,
        mut sregs: kvm_sregs,
        frame: &Frame,
    ) -> Result<(), TrapError> {
        let space = self.space(&sregs);
        let cs = segment(&space, sregs.gdt.base, frame.cs)?;
        let ss = segment(&space, sregs.gdt.base, frame.ss)?;
        (sregs.cs, sregs.ss) = (cs, ss);
        regs.rip = frame.rip;
        regs.rflags = frame.rflags;
        regs.rsp = frame.rsp;
        fd.set_sregs(&sregs)?;
        fd.set_regs(&regs)?;
        Ok(())
    }

    /// The guest's handlers of the single-step trap and of INT3, if it has both.
    fn handlers(&self, sregs: &kvm_sregs) -> Option<[u64; 2]> {
        let space = self.space(sregs);
        let handler = |vector| handler(&space, sregs, vector).ok().flatten();
        Some([handler(DEBUG)?, handler(BREAKPOINT)?])
    }

    fn space(&self, sregs: &kvm_sregs) -> AddressSpace<'_> {
        AddressSpace::new(&self.session.memory, &self.session.image, sregs)
    }

    fn set(&self, fd: &VcpuFd, control: u32, watches: &[Watch]) -> Result<(), TrapError> {
        let mut debug = kvm_guest_debug {
            control: control | KVM_GUESTDBG_ENABLE | KVM_GUESTDBG_USE_SW_BP,
            ..Default::default()
        };
        if !watches.is_empty() {
            debug.control |= KVM_GUESTDBG_USE_HW_BP;
            let (addresses, dr7) = debug_registers(watches);
            debug.arch.debugreg[..addresses.len()].copy_from_slice(&addresses);
            debug.arch.debugreg[7] = dr7;
        }
        Ok(fd.set_guest_debug(&debug)?)
    }
}

fn execution(address: u64) -> Watch {
    Watch {
        address,
        len: 1,
        access: Access::Execute,
    }
}

/// Does what a SYSCALL at CPL 3 does on a KVM that emulates CPL 0: it stays at CPL 3.
fn system_call(fd: &VcpuFd, mut regs: kvm_regs) -> Result<(), TrapError> {
    let entry = |index| kvm_msr_entry {
        index,
        ..Default::default()
    };
    let mut msrs = Msrs::from_entries(&[entry(MSR_LSTAR), entry(MSR_FMASK)])
        .map_err(|_| kvm_ioctls::Error::new(libc::ENOMEM))?;
    fd.get_msrs(&mut msrs)?;
    let [target, mask] = msrs.as_slice() else {
        return Err(kvm_ioctls::Error::new(libc::EINVAL).into());
    };
    regs.rcx = regs.rip + SYSCALL.len() as u64;
    regs.r11 = regs.rflags;
    regs.rflags &= !mask.data;
    regs.rip = target.data;
    Ok(fd.set_regs(&regs)?)
}
