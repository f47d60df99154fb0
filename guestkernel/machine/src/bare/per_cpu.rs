//! The block of memory that belongs to one CPU, reached through the GS base: the task state
//! segment, the stacks on which the CPU pushes its frames, and where the kernel left off.
//!
//! The monitor, the entry and the exit code know its layout by `offset_of!`. All of it is plain
//! memory to the monitor at CPL 0 and to the kernel at CPL 3 alike.

use core::cell::UnsafeCell;
use core::mem::offset_of;
use core::sync::atomic::AtomicU64;

/// Task state segment (Intel SDM volume 3, figure 9-11).
#[repr(C, packed(4))]
pub(super) struct TaskState {
    reserved0: u32,
    /// Stack for exceptions that arrive at CPL 3.
    rsp0: u64,
    rsp1: u64,
    rsp2: u64,
    reserved1: u64,
    /// 1: interrupts; 2: double faults.
    ist: [u64; 7],
    reserved2: u64,
    reserved3: u16,
    io_map_base: u16,
}

/// What IRETQ pops.
#[repr(C)]
#[derive(Clone, Copy)]
pub(super) struct Frame {
    pub(super) rip: u64,
    pub(super) cs: u64,
    pub(super) rflags: u64,
    pub(super) rsp: u64,
    pub(super) ss: u64,
}

/// A stack that holds one exception: the CPU pushes `frame` and perhaps `code`, the monitor the
/// rest; then it pops `upcall`, which is never changed.
#[repr(C, align(16))]
pub(super) struct ExceptionStack {
    unused: [u64; 23],
    pub(super) exception: Exception,
    upcall: Frame,
    unused_end: u64,
}

/// An exception: what the gate and the CPU have pushed.
#[repr(C)]
#[derive(Clone, Copy)]
pub(super) struct Exception {
    pub(super) cr2: u64,
    pub(super) rax: u64,
    pub(super) vector: u64,
    pub(super) code: u64,
    pub(super) frame: Frame,
}

/// A stack that holds one interrupt.
#[repr(C, align(16))]
pub(super) struct InterruptStack {
    unused: [u64; 27],
    pub(super) frame: Frame,
    upcall: Frame,
    unused_end: [u64; 3],
}

#[repr(C, align(4096))]
pub(super) struct PerCpu {
    pub(super) task: TaskState,
    /// Interrupts that have arrived and that the kernel has not taken yet: bit N is vector
    /// `FIRST_VECTOR + N`.
    pub(super) latched: AtomicU64,
    /// The kernel's stack pointer while the program runs.
    kernel_rsp: u64,
    /// The [`UserContext`](crate::UserContext) that runs.
    context: u64,
    /// The program's stack pointer while the entry code stores its registers.
    user_rsp: u64,
    /// The FS base that the CPU has now.
    pub(super) fs_base: u64,
    /// The block's own address.
    own: u64,
    /// How the kernel returns from a system call when nothing needs IRETQ: see `LeaveBy`.
    fast_return: u32,
    pub(super) exception: ExceptionStack,
    pub(super) interrupt: InterruptStack,
    /// Where an interrupt goes that arrives before the kernel has read `interrupt`: it finds
    /// the kernel running, is latched, and returns at once.
    interrupt_nested: InterruptStack,
    pub(super) double_fault: ExceptionStack,
}

/// Offsets for the assembly code.
pub(super) mod offset {
    use super::*;

    pub(crate) const IST1: usize = offset_of!(PerCpu, task) + offset_of!(TaskState, ist);
    pub(crate) const LATCHED: usize = offset_of!(PerCpu, latched);
    pub(crate) const KERNEL_RSP: usize = offset_of!(PerCpu, kernel_rsp);
    pub(crate) const CONTEXT: usize = offset_of!(PerCpu, context);
    pub(crate) const USER_RSP: usize = offset_of!(PerCpu, user_rsp);
    /// Distance from the interrupt stack to the nested one.
    pub(crate) const NESTED: usize = size_of::<InterruptStack>();
    pub(crate) const OWN: usize = offset_of!(PerCpu, own);
    pub(crate) const FAST_RETURN: usize = offset_of!(PerCpu, fast_return);
    pub(crate) const EXCEPTION: usize =
        offset_of!(PerCpu, exception) + offset_of!(ExceptionStack, exception);
    pub(crate) const EXCEPTION_RAX: usize = EXCEPTION + offset_of!(Exception, rax);
    pub(crate) const EXCEPTION_FRAME: usize = EXCEPTION + offset_of!(Exception, frame);
    pub(crate) const INTERRUPT_FRAME: usize =
        offset_of!(PerCpu, interrupt) + offset_of!(InterruptStack, frame);
    pub(crate) const DOUBLE_FAULT: usize =
        offset_of!(PerCpu, double_fault) + offset_of!(ExceptionStack, exception);
    /// Bytes from the lowest word that the monitor pushes to the upcall frame.
    pub(crate) const TO_UPCALL: usize =
        offset_of!(ExceptionStack, upcall) - offset_of!(ExceptionStack, exception);
}

/// How the exit code enters the program; the numbers are known to it.
#[derive(Clone, Copy, PartialEq, Eq)]
#[repr(u32)]
pub(super) enum LeaveBy {
    /// IRETQ from CPL 3.
    Return = 0,
    /// A jump to the address in RCX, at CPL 3.
    Jump = 1,
    /// SYSRET.
    SysRet = 2,
    /// IRETQ from CPL 0.
    ReturnToProgram = 3,
}

/// The block of the boot CPU.
#[repr(transparent)]
pub(super) struct Boot(pub(super) UnsafeCell<PerCpu>);
// SAFETY: written by its own CPU only, and by the CPU's own pushes; the other fields are atomic.
unsafe impl Sync for Boot {}

const fn upcall_frame() -> Frame {
    Frame {
        // The boot code stores the entry point: its address is not known to the compiler.
        rip: 0,
        cs: super::USER_CS,
        rflags: 0x202,
        rsp: 0,
        ss: super::USER_SS,
    }
}

const fn exception_stack() -> ExceptionStack {
    ExceptionStack {
        unused: [0; 23],
        exception: Exception {
            cr2: 0,
            rax: 0,
            vector: 0,
            code: 0,
            frame: upcall_frame(),
        },
        upcall: upcall_frame(),
        unused_end: 0,
    }
}

const fn interrupt_stack() -> InterruptStack {
    InterruptStack {
        unused: [0; 27],
        frame: upcall_frame(),
        upcall: upcall_frame(),
        unused_end: [0; 3],
    }
}

#[unsafe(no_mangle)]
pub(super) static BOOT_CPU: Boot = Boot(UnsafeCell::new(PerCpu {
    task: TaskState {
        reserved0: 0,
        rsp0: 0,
        rsp1: 0,
        rsp2: 0,
        reserved1: 0,
        ist: [0; 7],
        reserved2: 0,
        reserved3: 0,
        io_map_base: size_of::<TaskState>() as u16,
    },
    latched: AtomicU64::new(0),
    kernel_rsp: 0,
    context: 0,
    user_rsp: 0,
    fs_base: 0,
    own: 0,
    fast_return: 0,
    exception: exception_stack(),
    interrupt: interrupt_stack(),
    interrupt_nested: interrupt_stack(),
    double_fault: exception_stack(),
}));

unsafe extern "C" {
    safe fn upcall_exception();
    safe fn upcall_interrupt();
    safe fn upcall_double_fault();
}

/// Fills in the addresses that only the linker knows. Runs at CPL 3 before the first trap.
///
/// # Safety
///
/// Called once, on the boot CPU, before anything can trap.
pub(super) unsafe fn initialise(fast_return: LeaveBy) {
    let cpu = BOOT_CPU.0.get();
    let cpu_address = cpu as u64;
    // SAFETY: nothing else uses the block yet.
    let cpu = unsafe { &mut *cpu };
    cpu.own = cpu_address;
    cpu.fast_return = fast_return as u32;
    cpu.exception.upcall.rip = upcall_exception as *const () as u64;
    cpu.interrupt.upcall.rip = upcall_interrupt as *const () as u64;
    cpu.double_fault.upcall.rip = upcall_double_fault as *const () as u64;
    cpu.task.rsp0 = (&raw const cpu.exception.upcall) as u64;
    cpu.task.ist[0] = (&raw const cpu.interrupt.upcall) as u64;
    cpu.task.ist[1] = (&raw const cpu.double_fault.upcall) as u64;
}

/// The block of the CPU that executes this.
pub(super) fn current() -> *mut PerCpu {
    BOOT_CPU.0.get()
}
